//! The families: one row for each, with where its figures come from.
//!
//! Every exposition of samples reads this table; nothing else knows a family's
//! name. Names, types and labels are cAdvisor's and a contract: changing one
//! breaks dashboards. Where cAdvisor writes 0 for what it cannot know, no
//! sample is written; the row then says why.

mod cpu;
mod filesystem;
mod general;
mod io;
mod machine;
mod memory;
mod network;

use std::fmt::Write as _;

use super::lines::Lines;
use crate::snapshot::{CgroupSample, Hierarchy, Kind, Kinds, Machine, OomGone, Snapshot};

pub use cpu::shares_of_weight;
pub use filesystem::FirstMounts;

/// The table, one part per subject.
const TABLE: [&[Family]; 7] = [
    general::FAMILIES,
    cpu::FAMILIES,
    memory::FAMILIES,
    filesystem::FAMILIES,
    io::FAMILIES,
    network::FAMILIES,
    machine::FAMILIES,
];

/// Every family, in the order of a scrape.
pub fn all() -> impl Iterator<Item = &'static Family> {
    TABLE.into_iter().flatten()
}

/// Whether a kubelet's `/metrics/cadvisor` has it: cAdvisor's families but those
/// of the kinds a kubelet leaves off.
pub fn of_the_kubelet(family: &Family) -> bool {
    family.kind.is_none_or(|kind| Kinds::KUBELET.has(kind)) && !family.name.starts_with(OURS)
}

/// Gauges that stay true of what is gone.
const REMAIN: [&str; 4] = [
    "container_last_seen",
    "container_creation_time_seconds",
    "container_start_time_seconds",
    "container_memory_max_usage_bytes",
];

/// Whether the final totals of a container that is gone have it: it uses nothing any more,
/// so they are its counters, its peak and its times.
pub fn remains(family: &Family) -> bool {
    family.metric == MetricType::Counter || REMAIN.contains(&family.name)
}

/// What the names of families begin with that cAdvisor does not have.
const OURS: &str = "nodegauge_";

/// One family of samples.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// The name of its samples.
    pub name: &'static str,
    /// What it tells, in a sentence without line feeds, backslashes and double quotes.
    pub help: &'static str,
    /// Whether it only rises.
    pub metric: MetricType,
    /// What one of it is, after conversion.
    pub unit: Unit,
    /// What switches it; `None` where nothing does.
    pub kind: Option<Kind>,
    /// Whether cAdvisor gives its samples a time stamp.
    pub stamped: bool,
    /// Where its figures come from.
    pub sources: Sources,
    /// Writes its samples.
    pub emit: Emit,
}

/// How a family's values move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricType {
    /// Only rises, until its cgroup is made anew.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// What a value counts, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds, converted exactly from what the kernel counts.
    Seconds,
    /// Microseconds.
    Microseconds,
    /// Bytes.
    Bytes,
    /// Things: events, packets, tasks, inodes, shares.
    Count,
    /// A constant, a state, or a number of no unit.
    None,
}

/// Where a family's figures come from on each kind of host.
#[derive(Debug, Clone, Copy)]
pub struct Sources {
    /// cgroup v1 only.
    pub v1: Source,
    /// cgroup v2 only.
    pub v2: Source,
    /// v1 controllers with a v2 tree beside them.
    pub hybrid: Source,
}

impl Sources {
    /// The source on hosts of this kind.
    pub fn on(&self, hierarchy: Hierarchy) -> Source {
        match hierarchy {
            Hierarchy::V1 => self.v1,
            Hierarchy::V2 => self.v2,
            Hierarchy::Hybrid => self.hybrid,
        }
    }
}

/// Where a figure comes from, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A file and the key in it; both as the kernel calls them. Samples are
    /// written wherever this kernel has the file and the key.
    File(&'static str),
    /// Never a sample, for this reason.
    None(&'static str),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::File(file) => f.write_str(file),
            Source::None(reason) => write!(f, "none: {reason}"),
        }
    }
}

/// Sources that differ by controller version. A hybrid host has its controllers
/// on v1, so it is like v1.
const fn by_version(v1: Source, v2: Source) -> Sources {
    Sources { v1, v2, hybrid: v1 }
}

/// The same source whatever the host mounts.
const fn everywhere(source: Source) -> Sources {
    Sources { v1: source, v2: source, hybrid: source }
}

/// How a family writes its samples. A sample without a value is not written.
#[derive(Debug, Clone, Copy)]
pub enum Emit {
    /// For each cgroup, with its base labels.
    Cgroup(fn(&Row<'_>, &mut Lines<'_>)),
    /// For each cgroup, and after them for each that is gone and whose OOM kills
    /// are still shown.
    CgroupAndGone(fn(&Row<'_>, &mut Lines<'_>), fn(&OomGone, &mut Lines<'_>)),
    /// Once, with the machine's labels.
    Machine(fn(&Machine, &mut Lines<'_>)),
    /// Once, without base labels.
    Scrape(fn(&Snapshot, &mut Lines<'_>)),
    /// Not at all: no host can tell.
    Never,
}

/// A cgroup and what is around it.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The cgroup's figures.
    pub sample: &'a CgroupSample,
    /// When it was read, milliseconds since the epoch.
    pub seen_ms: u64,
    /// Everything the tick found.
    pub snapshot: &'a Snapshot,
    /// What is on.
    pub kinds: Kinds,
    /// Which mounts have a `device` label of their own.
    pub mounts: &'a FirstMounts,
    /// Whether the rows are those of a kubelet.
    pub of_kubelet: bool,
}

impl Row<'_> {
    /// Whether it is the host itself.
    #[inline]
    pub fn is_root(&self) -> bool {
        self.sample.cgroup.path == "/"
    }
}

/// The table for people: `family | v1 | v2 | hybrid`, a line for each family.
pub fn source_table() -> String {
    let mut table = String::from("family | v1 | v2 | hybrid\n");
    for Family { name, sources: Sources { v1, v2, hybrid }, .. } in all() {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{name} | {v1} | {v2} | {hybrid}");
    }
    table
}
