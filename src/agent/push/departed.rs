//! Cgroups that vanished between two ticks, with the last that was seen of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::push::step::Departed;
use crate::snapshot::{CgroupSample, Snapshot};

/// As long as the coarsest step looks back, and for scrapers' sake no longer.
const KEPT: Duration = Duration::from_secs(60);

/// More at once are a clean-up rather than containers; the oldest are forgotten.
const MOST: usize = 1000;

/// What vanished lately.
#[derive(Debug, Default)]
pub(super) struct Departures {
    last: Option<Arc<Snapshot>>,
    gone: Vec<Gone>,
}

#[derive(Debug)]
struct Gone {
    sample: CgroupSample,
    seen_ms: u64,
    at: Instant,
}

impl Departures {
    /// Notes who was in the last tick and is not in this one.
    pub(super) fn tick(&mut self, snapshot: &Arc<Snapshot>) {
        self.gone.retain(|gone| snapshot.monotonic.saturating_duration_since(gone.at) <= KEPT);
        let Some(last) = self.last.replace(Arc::clone(snapshot)) else { return };
        // Both are sorted by path. The same path made again is another cgroup.
        let mut now = snapshot.cgroups.iter().peekable();
        for row in &last.cgroups {
            while now.next_if(|n| n.cgroup.path < row.cgroup.path).is_some() {}
            let there = now
                .peek()
                .is_some_and(|n| n.cgroup.path == row.cgroup.path && n.cgroup.created == row.cgroup.created);
            if !there {
                self.gone.push(Gone { sample: row.clone(), seen_ms: last.wall_ms, at: snapshot.monotonic });
            }
        }
        let surplus = self.gone.len().saturating_sub(MOST);
        self.gone.drain(..surplus);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Departed<'_>> {
        self.gone.iter().map(|gone| Departed { sample: &gone.sample, seen_ms: gone.seen_ms, gone: gone.at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Cgroup, Hierarchy, Identity, Kinds, Origin};

    fn snapshot(start: &Arc<Snapshot>, second: u64, rows: &[(&str, u64)]) -> Arc<Snapshot> {
        let mut snapshot = (**start).clone();
        snapshot.monotonic += Duration::from_secs(second);
        snapshot.wall_ms = second * 1000;
        snapshot.cgroups = rows
            .iter()
            .map(|(path, created)| {
                let (path, created) = ((*path).to_owned(), Some(*created));
                let identity = Identity::default();
                CgroupSample::new(Arc::new(Cgroup {
                    path,
                    created,
                    identity,
                    labels: String::new(),
                    kubelet: Default::default(),
                }))
            })
            .collect();
        Arc::new(snapshot)
    }

    #[test]
    fn who_left_is_kept_for_a_minute() {
        let start = Arc::new(Snapshot {
            sequence: 1,
            origin: Origin::Grid,
            kinds: Kinds::NONE,
            wall_ms: 0,
            monotonic: Instant::now(),
            duration: Duration::ZERO,
            hierarchy: Hierarchy::V2,
            machine: Arc::default(),
            filesystems: Arc::default(),
            disks: Vec::new(),
            cgroups: Vec::new(),
        });
        let mut departures = Departures::default();
        let gone = |d: &Departures| -> Vec<(String, u64)> {
            d.iter().map(|gone| (gone.sample.cgroup.path.clone(), gone.seen_ms)).collect()
        };
        departures.tick(&snapshot(&start, 1, &[("/", 0), ("/a", 1), ("/b", 1), ("/c", 1)]));
        assert_eq!(gone(&departures), []);
        departures.tick(&snapshot(&start, 2, &[("/", 0), ("/aa", 1), ("/b", 2), ("/c", 1)]));
        assert_eq!(gone(&departures), [("/a".to_owned(), 1000), ("/b".to_owned(), 1000)]);
        departures.tick(&snapshot(&start, 3, &[("/", 0), ("/aa", 1), ("/b", 2)]));
        let all = [("/a".to_owned(), 1000), ("/b".to_owned(), 1000), ("/c".to_owned(), 2000)];
        assert_eq!(gone(&departures), all);
        departures.tick(&snapshot(&start, 63, &[("/", 0), ("/aa", 1), ("/b", 2)]));
        assert_eq!(gone(&departures), [("/c".to_owned(), 2000)]);
    }
}
