//! Containers too young for the ticks: when each is read next, and what was seen of it.
//!
//! A container that is made and gone between two ticks would have no row at all, so a new
//! one is read soon after it was found and then again and again, ever more seldom, since
//! what is missed at its end is in proportion to its age then. Where the kernel tells of
//! its end ([`ends`](crate::kernel::ends)) this is only for the case that it is removed too
//! soon after; where it does not, the last of these readings is all there is.
//!
//! All of it together gets a small share of one CPU, whatever comes and goes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use super::Depth;
use crate::snapshot::{Cgroup, CgroupSample, Snapshot};

/// From finding a cgroup to its first reading: by then it is in all trees.
const FIRST: Duration = Duration::from_millis(25);

/// Shortest and longest time between two readings.
const APART: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Where its end is told: the part of its age after which it is read again, and the age
/// up to which it is.
const TOLD: (u32, Duration) = (4, Duration::from_secs(3));

/// The same where it is not. What is read last is then an eighth of its age old at most,
/// until ticks are as close.
const UNTOLD: (u32, Duration) = (8, Duration::from_secs(10));

/// One reading in so many has all figures, the first among them.
const WHOLE_EVERY: u32 = 4;

/// One that is not read again is kept so long, if it was in no tick since.
const KEEP: Duration = Duration::from_secs(60);

/// Followed at most; the newest are left out.
const MAX: usize = 1024;

/// CPU time that readings may take: of each second, and saved up at most.
const SHARE: (Duration, Duration) = (Duration::from_millis(30), Duration::from_millis(60));

/// One container.
#[derive(Debug)]
pub(super) struct Early {
    /// Its figures, as far as they were read.
    pub(super) row: CgroupSample,
    /// Wall clock of the last reading, or else of when it was found, milliseconds since
    /// the epoch.
    pub(super) seen_ms: u64,
    since: Instant,
    readings: u32,
    due: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Young {
    rows: HashMap<u64, Box<Early>>,
    due: BTreeSet<(Instant, u64)>,
    budget: Budget,
}

impl Young {
    pub(super) fn new() -> Young {
        Young { rows: HashMap::new(), due: BTreeSet::new(), budget: Budget::new(Instant::now()) }
    }

    /// A new cgroup was found.
    pub(super) fn found(&mut self, id: u64, cgroup: &Arc<Cgroup>, now: Instant, wall_ms: u64) {
        if self.rows.len() >= MAX {
            return;
        }
        let due = now + FIRST;
        let row = CgroupSample::new(Arc::clone(cgroup));
        self.rows
            .insert(id, Box::new(Early { row, seen_ms: wall_ms, since: now, readings: 0, due: Some(due) }));
        self.due.insert((due, id));
    }

    /// A cgroup ends, whose last row was this: room for what is read of it now.
    pub(super) fn ends(&mut self, id: u64, now: Instant, last: impl FnOnce() -> CgroupSample, wall_ms: u64) {
        if let Some(early) = self.rows.get_mut(&id) {
            if let Some(due) = early.due.take() {
                self.due.remove(&(due, id));
            }
        } else if self.rows.len() < MAX {
            let early = Early { row: last(), seen_ms: wall_ms, since: now, readings: 0, due: None };
            self.rows.insert(id, Box::new(early));
        }
    }

    /// When the next reading is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next whose reading is due by now.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<u64> {
        let (at, id) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.remove(&(at, id));
        Some(id)
    }

    /// The figures of one, and how many of them are to be read.
    pub(super) fn get_mut(&mut self, id: u64) -> Option<(&mut Early, Depth)> {
        let early = self.rows.get_mut(&id)?;
        let depth = if early.readings.is_multiple_of(WHOLE_EVERY) { Depth::Whole } else { Depth::Little };
        Some((early, depth))
    }

    /// One was read, or it was not because of the budget: says when it is next. `told` is
    /// whether the kernel will tell of its end.
    pub(super) fn again(&mut self, id: u64, now: Instant, told: bool) {
        let Some(early) = self.rows.get_mut(&id) else { return };
        early.readings = early.readings.saturating_add(1);
        let (part, until) = if told { TOLD } else { UNTOLD };
        let age = now.saturating_duration_since(early.since);
        early.due = (age < until).then(|| now + (age / part).clamp(APART.0, APART.1));
        self.due.extend(early.due.map(|due| (due, id)));
    }

    /// One is gone: what was seen of it.
    pub(super) fn take(&mut self, id: u64) -> Option<Early> {
        let early = self.rows.remove(&id)?;
        if let Some(due) = early.due {
            self.due.remove(&(due, id));
        }
        Some(*early)
    }

    /// A tick read everything.
    pub(super) fn published(&mut self, snapshot: &Snapshot) {
        if self.rows.is_empty() {
            return;
        }
        self.rows.retain(|_, early| {
            let row = snapshot.row(&early.row.cgroup.path).filter(|_| early.seen_ms <= snapshot.wall_ms);
            if early.due.is_none() {
                // The tick has it, and later ones will.
                let age = snapshot.monotonic.saturating_duration_since(early.since);
                return row.is_none() && age < KEEP;
            }
            if let Some(row) = row {
                early.row.clone_from(row);
                early.seen_ms = snapshot.wall_ms;
            }
            true
        });
    }

    /// What readings may take.
    pub(super) fn budget(&mut self) -> &mut Budget {
        &mut self.budget
    }
}

/// CPU time to be had.
#[derive(Debug)]
pub(super) struct Budget {
    left: Duration,
    at: Instant,
    began: Duration,
}

impl Budget {
    fn new(now: Instant) -> Budget {
        Budget { left: SHARE.1, at: now, began: Duration::ZERO }
    }

    /// Whether there is time for another reading; what an early one would take is kept
    /// for last ones where there is little.
    pub(super) fn allows(&mut self, now: Instant, last: bool) -> bool {
        let since = now.saturating_duration_since(self.at).min(Duration::from_secs(10));
        self.at = now;
        let more = SHARE.0.mul_f64(since.as_secs_f64());
        self.left = (self.left + more).min(SHARE.1);
        self.left > if last { Duration::ZERO } else { SHARE.1 / 4 }
    }

    /// A reading begins.
    pub(super) fn begin(&mut self) {
        self.began = cpu_time();
    }

    /// It has ended.
    pub(super) fn end(&mut self) {
        self.left = self.left.saturating_sub(cpu_time().saturating_sub(self.began));
    }
}

/// What this thread has taken: a machine that is busy otherwise is not our cost.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup() -> Arc<Cgroup> {
        Arc::new(Cgroup { path: "/a".to_owned(), ..Cgroup::default() })
    }

    /// The ages at which one is read, milliseconds.
    fn ages(told: bool) -> Vec<u128> {
        let (mut young, start) = (Young::new(), Instant::now());
        young.found(7, &cgroup(), start, 1);
        let mut ages = Vec::new();
        while let Some(due) = young.next_due() {
            assert_eq!(young.take_due(due - Duration::from_micros(1)), None);
            assert_eq!(young.take_due(due), Some(7));
            ages.push((due - start).as_millis());
            young.again(7, due, told);
        }
        ages
    }

    #[test]
    fn what_a_last_reading_misses_is_a_small_part() {
        for (told, part, until) in [(true, 0.25, 3000), (false, 0.125, 10_000)] {
            let ages = ages(told);
            assert!(ages.len() < 50 && ages.last().is_some_and(|last| *last >= until), "{ages:?}");
            for pair in ages.windows(2) {
                let (before, after) = (pair[0] as f64, pair[1] as f64);
                assert!(after - before <= 50.0_f64.max(before * part) + 1.0, "{ages:?}");
            }
        }
    }

    #[test]
    fn what_ends_is_not_read_early_again() {
        let (mut young, now) = (Young::new(), Instant::now());
        young.found(1, &cgroup(), now, 10);
        young.ends(1, now, || unreachable!("it has a row"), 20);
        young.ends(2, now, || CgroupSample::new(cgroup()), 20);
        assert_eq!(young.next_due(), None);
        assert_eq!(young.take(1).map(|early| early.seen_ms), Some(10));
        assert_eq!(young.take(2).map(|early| early.seen_ms), Some(20));
        assert!(young.take(2).is_none());
    }

    #[test]
    fn there_is_a_limit() {
        let (mut young, now) = (Young::new(), Instant::now());
        (0..2 * MAX as u64).for_each(|id| young.found(id, &cgroup(), now, 10));
        assert_eq!((young.rows.len(), young.due.len()), (MAX, MAX));
    }

    #[test]
    fn time_that_was_used_up_comes_back_slowly() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert!(budget.allows(start, false));
        budget.left = Duration::ZERO;
        assert!(!budget.allows(start, true));
        let soon = start + Duration::from_millis(100);
        assert!(budget.allows(soon, true) && !budget.allows(soon, false));
        assert!(budget.allows(start + Duration::from_secs(1), false));
        budget.allows(start + Duration::from_secs(3600), false);
        assert_eq!(budget.left, SHARE.1);
    }
}
