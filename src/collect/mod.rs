//! One family of stats per file, v1 and v2 side by side.

use std::time::Duration;

use crate::kernel::handles::HandleCounts;
use crate::kernel::tree::TreeCounts;

/// What the collection noticed about itself; counts are since start.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// One per collector that is on.
    pub collectors: Vec<CollectorReport>,
    /// Handles held.
    pub handles: HandleCounts,
    /// The tree of cgroups.
    pub tree: TreeCounts,
    /// Rows in the last snapshot.
    pub cgroups: u64,
    /// Cgroups that vanished while they were read, and were left out of that snapshot.
    pub vanished_in_tick: u64,
    /// How long the last tick took.
    pub duration: Duration,
}

/// One collector's work.
#[derive(Debug, Clone, Default)]
pub struct CollectorReport {
    /// Name, as in `--metrics` where there is such a kind.
    pub name: &'static str,
    /// Duration of its last pass over all cgroups.
    pub last: Duration,
    /// Duration of all its passes.
    pub total: Duration,
    /// Passes.
    pub passes: u64,
    /// Files it could not read or parse, by reason.
    pub errors: ErrorCounts,
}

/// Reads that gave no figure although the file should be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErrorCounts {
    /// Permission denied.
    pub denied: u64,
    /// Content is not what the kernel documents.
    pub malformed: u64,
    /// No descriptor left.
    pub exhausted: u64,
    /// Larger than we accept.
    pub too_large: u64,
    /// Any other error of the system call.
    pub os: u64,
}
