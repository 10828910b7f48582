//! The last rows of cgroups that vanished.
//!
//! They are for outputs that send every step: what a container used since the
//! last one would be lost with it; and for scrapes, which have the final totals of
//! containers for a while. A row is kept for a minute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Described;
use super::sampler::Namer;
use super::young::Early;
use crate::snapshot::{Cgroup, CgroupSample, Departed, OomGone, Shown, Snapshot};

/// How long a row is kept.
const KEEP: Duration = Duration::from_secs(60);

/// Rows kept at most; the oldest go first.
const MAX: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub struct Departures {
    /// What the last tick published; rows are taken from there.
    last: Option<Arc<Snapshot>>,
    rows: Arc<Vec<Arc<Departed>>>,
    /// Rows that may wait for a name.
    waiting: usize,
    oom: Arc<Vec<OomGone>>,
}

/// A cgroup that was found gone.
#[derive(Debug)]
pub(super) struct Gone<'a> {
    /// Who it was.
    pub(super) cgroup: &'a Arc<Cgroup>,
    /// It was there in the last tick.
    pub(super) ticked: bool,
    /// What was read of it between ticks.
    pub(super) early: Option<Early>,
    /// It was a pod or a container.
    pub(super) whole: bool,
    /// A name may still come.
    pub(super) waits: bool,
}

impl Departures {
    /// The snapshot of the last tick. It is let go when the next one comes.
    pub(super) fn published(&mut self, snapshot: &Arc<Snapshot>) {
        self.last = Some(Arc::clone(snapshot));
    }

    /// What the last tick published.
    pub(super) fn last_tick(&self) -> Option<&Arc<Snapshot>> {
        self.last.as_ref()
    }

    /// The row of this path in the last tick.
    pub(super) fn last_row(&self, path: &str) -> Option<&CgroupSample> {
        self.last.as_ref()?.row(path)
    }

    /// A cgroup was found gone at this time. What nobody has seen is not kept.
    pub(super) fn add(&mut self, gone: Gone<'_>, at: Instant, gone_ms: u64) {
        let Gone { cgroup, ticked, early, whole, waits } = gone;
        let (mut last, seen_ms) = if let Some(early) = early {
            (early.row, early.seen_ms)
        } else if let Some(snapshot) = self.last.as_ref().filter(|_| ticked)
            && let Some(row) = snapshot.row(&cgroup.path)
        {
            (row.clone(), snapshot.wall_ms)
        } else {
            return;
        };
        // It may have got its name since.
        last.cgroup = Arc::clone(cgroup);
        self.waiting += usize::from(waits);
        let row = Departed { last, seen_ms, gone_ms, gone: at, whole, waits, shown: Shown::default() };
        let rows = Arc::make_mut(&mut self.rows);
        rows.push(Arc::new(row));
        let excess = rows.len().saturating_sub(MAX);
        rows.drain(..excess);
    }

    /// Asks again for the names of those that have none yet.
    pub(super) fn name(&mut self, namer: &mut dyn Namer, now: Instant) {
        if self.waiting == 0 {
            return;
        }
        self.waiting = 0;
        for row in Arc::make_mut(&mut self.rows).iter_mut().filter(|row| row.waits) {
            let before = &row.last.cgroup;
            let age = now.saturating_duration_since(row.gone);
            let Described { cgroup, waits, .. } = namer.describe_gone(&before.path, age);
            let cgroup = Cgroup { created: before.created, ..Arc::unwrap_or_clone(cgroup) };
            self.waiting += usize::from(waits);
            let row = Arc::make_mut(row);
            row.last.cgroup = Arc::new(cgroup);
            row.waits = waits;
        }
    }

    /// Forgets what has been kept long enough.
    pub(super) fn expire(&mut self, now: Instant) {
        let old = |d: &Arc<Departed>| now.duration_since(d.gone) >= KEEP;
        if self.rows.first().is_some_and(old) {
            Arc::make_mut(&mut self.rows).retain(|d| !old(d));
        }
    }

    /// The OOM kills of what is gone, all of them anew.
    pub(super) fn set_kills(&mut self, kills: Vec<OomGone>, now: Instant) {
        for gone in &kills {
            let total = crate::snapshot::reading(gone.kills);
            let row = self.rows.iter().rposition(|d| d.last.cgroup.path == gone.cgroup.path);
            match row {
                Some(at) if self.rows.get(at).is_some_and(|d| d.last.memory.oom_kills == total) => {}
                Some(at) => {
                    if let Some(row) = Arc::make_mut(&mut self.rows).get_mut(at) {
                        Arc::make_mut(row).last.memory.oom_kills = total;
                    }
                }
                // Made and gone between two ticks: nothing else is known of it.
                None => self.add_unseen(gone, now),
            }
        }
        self.oom = Arc::new(kills);
    }

    fn add_unseen(&mut self, gone: &OomGone, now: Instant) {
        let known = self.oom.iter().any(|o| o.cgroup.path == gone.cgroup.path);
        if known || self.rows.len() >= MAX {
            return;
        }
        let mut last = CgroupSample::new(Arc::clone(&gone.cgroup));
        last.memory.oom_kills = crate::snapshot::reading(gone.kills);
        // Its kills are in scrapes for longer than totals are.
        let row = Departed {
            last,
            seen_ms: gone.gone_ms,
            gone_ms: gone.gone_ms,
            gone: now,
            whole: false,
            waits: false,
            shown: Shown::default(),
        };
        Arc::make_mut(&mut self.rows).push(Arc::new(row));
    }

    /// Puts them into a snapshot.
    pub(super) fn show(&self, snapshot: &mut Snapshot) {
        if !Arc::ptr_eq(&snapshot.departed, &self.rows) {
            snapshot.departed = Arc::clone(&self.rows);
        }
        if !Arc::ptr_eq(&snapshot.oom_gone, &self.oom) {
            snapshot.oom_gone = Arc::clone(&self.oom);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::young::Young;
    use crate::snapshot::{Hierarchy, Kinds, Origin, reading};

    fn cgroup(path: &str) -> Arc<Cgroup> {
        Arc::new(Cgroup { path: path.to_owned(), ..Cgroup::default() })
    }

    fn ticked(cgroup: &Arc<Cgroup>) -> Gone<'_> {
        Gone { cgroup, ticked: true, early: None, whole: true, waits: false }
    }

    fn snapshot(sequence: u64, paths: &[&str]) -> Snapshot {
        let row = |path: &&str| {
            let mut row = CgroupSample::new(cgroup(path));
            row.cpu.usage_ns = reading(sequence);
            row
        };
        Snapshot {
            sequence,
            origin: Origin::Grid,
            wall_ms: sequence * 1000,
            monotonic: Instant::now(),
            duration: Duration::ZERO,
            hierarchy: Hierarchy::V2,
            kinds: Kinds::NONE,
            machine: Arc::default(),
            filesystems: Arc::default(),
            disks: Vec::new(),
            cgroups: paths.iter().map(row).collect(),
            departed: Arc::default(),
            tasks: crate::snapshot::Tasks::default(),
            oom_gone: Arc::default(),
            oom_kills: Vec::new(),
        }
    }

    fn shown(departures: &Departures) -> Vec<(String, Option<u64>, u64)> {
        let mut out = snapshot(9, &[]);
        departures.show(&mut out);
        let row = |d: &Arc<Departed>| {
            assert!(d.seen_ms < d.gone_ms || d.last.cpu.usage_ns.is_none());
            (d.last.cgroup.path.clone(), d.last.cpu.usage_ns.map(|n| n.get()), d.gone_ms)
        };
        out.departed.iter().map(row).collect()
    }

    fn at(path: &str, usage: u64, gone_ms: u64) -> (String, Option<u64>, u64) {
        (path.to_owned(), Some(usage), gone_ms)
    }

    #[test]
    fn the_last_row_is_kept_for_a_minute() {
        let start = Instant::now();
        let mut departures = Departures::default();
        let gone = |departures: &mut Departures, path: &str, seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            departures.expire(now);
            departures.add(ticked(&cgroup(path)), now, seconds * 1000);
        };
        gone(&mut departures, "/a", 1);
        assert_eq!(shown(&departures), [], "nothing was published yet");
        departures.published(&Arc::new(snapshot(1, &["/", "/a", "/b"])));
        gone(&mut departures, "/a", 10);
        departures.published(&Arc::new(snapshot(2, &["/", "/b"])));
        gone(&mut departures, "/never", 20);
        gone(&mut departures, "/b", 30);
        assert_eq!(shown(&departures), [at("/a", 1, 10_000), at("/b", 2, 30_000)]);
        departures.expire(start + Duration::from_secs(69));
        assert_eq!(shown(&departures).len(), 2);
        departures.expire(start + Duration::from_secs(70));
        assert_eq!(shown(&departures), [at("/b", 2, 30_000)]);
        departures.expire(start + Duration::from_secs(90));
        assert_eq!(shown(&departures), []);
    }

    #[test]
    fn what_no_tick_saw_has_what_was_read_between() {
        let (mut young, now) = (Young::new(), Instant::now());
        young.found(7, &cgroup("/a"), now, 1500);
        young.found(8, &cgroup("/b"), now, 1600);
        if let Some((early, _)) = young.get_mut(7) {
            (early.row.cpu.usage_ns, early.seen_ms) = (reading(5), 1900);
        }
        let mut departures = Departures::default();
        // An earlier cgroup of that path was in the last tick; this one was not.
        departures.published(&Arc::new(snapshot(1, &["/a", "/b"])));
        for (id, path) in [(7, "/a"), (8, "/b"), (9, "/b")] {
            let cgroup = cgroup(path);
            let gone = Gone { ticked: false, early: young.take(id), ..ticked(&cgroup) };
            departures.add(gone, now, 2000);
        }
        let row = |d: &Arc<Departed>| (d.last.cpu.usage_ns.map(|n| n.get()), d.seen_ms);
        assert_eq!(departures.rows.iter().map(row).collect::<Vec<_>>(), [(Some(5), 1900), (None, 1600)]);
    }

    /// Knows a name from this age on.
    struct Late(Duration);

    impl Namer for Late {
        fn describe(&mut self, path: String, created: Option<u64>) -> Arc<Cgroup> {
            Arc::new(Cgroup { path, created, ..Cgroup::default() })
        }

        fn describe_gone(&mut self, path: &str, age: Duration) -> Described {
            let named = age >= self.0;
            let labels = if named { "name=\"web\"" } else { "" };
            let cgroup = Cgroup { labels: labels.to_owned(), path: path.to_owned(), ..Cgroup::default() };
            Described { cgroup: Arc::new(cgroup), waits: !named, whole: true }
        }
    }

    #[test]
    fn names_may_come_late() {
        let start = Instant::now();
        let mut departures = Departures::default();
        departures.published(&Arc::new(snapshot(1, &["/a"])));
        let created = Arc::new(Cgroup { path: "/a".to_owned(), created: Some(3), ..Cgroup::default() });
        departures.add(Gone { waits: true, ..ticked(&created) }, start, 2000);
        let mut namer = Late(Duration::from_secs(2));
        for (seconds, labels) in [(0, ""), (1, ""), (2, "name=\"web\""), (3, "name=\"web\"")] {
            departures.name(&mut namer, start + Duration::from_secs(seconds));
            let row = &departures.rows[0];
            assert_eq!((row.last.cgroup.labels.as_str(), row.waits), (labels, labels.is_empty()));
            assert_eq!(row.last.cgroup.created, Some(3));
        }
        assert_eq!(departures.waiting, 0);
    }

    #[test]
    fn no_more_than_so_many_are_kept() {
        let paths: Vec<String> = (0..MAX + 10).map(|n| format!("/{n:05}")).collect();
        let names: Vec<&str> = paths.iter().map(String::as_str).collect();
        let mut departures = Departures::default();
        departures.published(&Arc::new(snapshot(1, &names)));
        for path in &names {
            departures.add(ticked(&cgroup(path)), Instant::now(), 2000);
        }
        let shown = shown(&departures);
        assert_eq!((shown.len(), shown[0].0.as_str()), (MAX, "/00010"));
    }

    #[test]
    fn kills_found_later_are_in_the_last_row() {
        let mut departures = Departures::default();
        departures.published(&Arc::new(snapshot(1, &["/a"])));
        departures.add(ticked(&cgroup("/a")), Instant::now(), 2000);
        let kills = |kills| {
            vec![
                OomGone { cgroup: cgroup("/a"), kills, gone_ms: 2000 },
                OomGone { cgroup: cgroup("/unseen"), kills: 7, gone_ms: 2000 },
            ]
        };
        let totals = |departures: &Departures| -> Vec<Option<u64>> {
            departures.rows.iter().map(|d| d.last.memory.oom_kills.map(|n| n.get())).collect()
        };
        departures.set_kills(kills(1), Instant::now());
        assert_eq!(totals(&departures), [Some(1), Some(7)]);
        departures.set_kills(kills(2), Instant::now());
        assert_eq!(totals(&departures), [Some(2), Some(7)]);
    }
}
