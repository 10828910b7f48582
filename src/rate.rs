//! Two readings of a counter → how much it rose, and how fast: the one place
//! where rates are made, for push and for sources that are pulled.
//!
//! A rate needs the same thing twice: the same container, by its id and by its
//! start, measured again at a later moment of the same clock; and a counter that
//! has not begun again in between. Otherwise there is no rate, which is not a
//! rate of 0. So a rate is never negative, whatever happens:
//!
//! - **restart**: a new run has another id or start, and no rate before its second sample;
//! - **reset**: a counter that fell has no rate for that window; others of the same container do;
//! - **gap**: samples may be any distance apart, up to [`MAX_WINDOW`]; the rate is the mean over all of it;
//! - **clock jumps**: moments come from a clock that is never set (monotonic for push,
//!   the samples' own stamps for pull) and a sample that is not newer has no rate.

use std::num::NonZeroU64;
use std::time::Duration;

/// Samples further apart than this have no rate between them: it would say
/// nothing of the moment it is stamped with.
pub const MAX_WINDOW: Duration = Duration::from_secs(15 * 60);

/// One measurement of a thing: which life of it, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment<'a> {
    /// What tells this thing from all others: a container's id, a cgroup's path.
    pub id: &'a str,
    /// When this life of it began, in any unit; what is not known equals only
    /// what is not known.
    pub start: Option<u64>,
    /// When it was measured: nanoseconds of a clock that is never set back.
    pub taken_ns: u64,
}

/// The time between two measurements of the same life of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window(NonZeroU64);

impl Window {
    /// The window from `earlier` to `later`, if rates may be taken over it.
    pub fn between(earlier: &Moment<'_>, later: &Moment<'_>) -> Option<Window> {
        if earlier.id != later.id || earlier.start != later.start {
            return None;
        }
        let ns = later.taken_ns.checked_sub(earlier.taken_ns)?;
        if Duration::from_nanos(ns) > MAX_WINDOW {
            return None;
        }
        Window::from_ns(ns)
    }

    /// A window of that length; `None` for no length.
    pub fn from_ns(ns: u64) -> Option<Window> {
        NonZeroU64::new(ns).map(Window)
    }

    /// Its length, nanoseconds.
    pub fn ns(self) -> u64 {
        self.0.get()
    }

    /// What `increase` comes to in one second.
    pub fn per_second(self, increase: u64) -> f64 {
        // Counters stay far below 2^53 within a window; beyond it a rate is
        // rounded, like every double.
        increase as f64 * 1e9 / self.0.get() as f64
    }

    /// What an increase in nanoseconds of CPU time comes to in thousandths of a
    /// core, truncated as Heapster does it.
    pub fn millicores(self, increase: u64) -> u64 {
        let milli = u128::from(increase) * 1000 / u128::from(self.0.get());
        u64::try_from(milli).unwrap_or(u64::MAX)
    }
}

/// How much a counter rose; `None` where it was not there both times, or began again.
pub fn increase(earlier: Option<u64>, later: Option<u64>) -> Option<u64> {
    later?.checked_sub(earlier?)
}
