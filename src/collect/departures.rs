//! The last rows of cgroups that vanished.
//!
//! They are for outputs that send every step: what a container used since the
//! last one would be lost with it. A row is kept for a minute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::snapshot::{Cgroup, CgroupSample, Departed, OomGone, Snapshot};

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
    oom: Arc<Vec<OomGone>>,
}

impl Departures {
    /// The snapshot of the last tick. It is let go when the next one comes.
    pub(super) fn published(&mut self, snapshot: &Arc<Snapshot>) {
        self.last = Some(Arc::clone(snapshot));
    }

    /// Cgroups were found gone at this time. What was not in the last tick is not kept.
    pub(super) fn add<'c>(&mut self, gone: impl Iterator<Item = &'c Arc<Cgroup>>, at: Instant, gone_ms: u64) {
        let Some(last) = &self.last else { return };
        let find = |cgroup: &Arc<Cgroup>| {
            let index = last.cgroups.binary_search_by(|row| row.cgroup.path.cmp(&cgroup.path)).ok()?;
            last.cgroups.get(index)
        };
        let mut found = gone.filter_map(find).peekable();
        if found.peek().is_none() {
            return;
        }
        let rows = Arc::make_mut(&mut self.rows);
        rows.extend(
            found.map(|row| {
                Arc::new(Departed { last: row.clone(), seen_ms: last.wall_ms, gone_ms, gone: at })
            }),
        );
        let excess = rows.len().saturating_sub(MAX);
        rows.drain(..excess);
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
        let row = Departed { last, seen_ms: gone.gone_ms, gone_ms: gone.gone_ms, gone: now };
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
