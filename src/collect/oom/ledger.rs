//! Kills as the kernel's counters and as its log have them → one count for each
//! cgroup's path, which lives on when the cgroup does not.
//!
//! # The rule
//! For one path both sources are lower bounds of the same number. A counter
//! (`counted`) misses what happened between its last look and the end of its
//! cgroup; the log (`told`) misses records that were overwritten. The total is the
//! larger, so nothing is counted twice, and only what both missed is lost. The
//! kernel counts before it logs, and the log is taken before counters are looked
//! at, so at a look the counter knows all that the log does, except of earlier
//! cgroups of the same path: what the log has more is theirs, and is carried.
//!
//! A cgroup that was there before the agent had kills the log never told us: what
//! its counter said first is where the log starts. Where the log stays behind a
//! living counter for [`BEHIND`], records were lost, and it is brought up.
//!
//! A pod or a container has the kills of all that is or was below it, which on v2
//! its own `memory.events` counts too, again as a lower bound: by that a kill in a
//! container that vanished shows where there is no log. If exactly one that was
//! known of the pod's containers vanished in that tick, it gets the count, too; it
//! may have been another that came and went unseen, so only the pod's is sure then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::snapshot::{Cgroup, OomGone};

/// How long the count of a cgroup that is gone is shown: longer than the five
/// minutes that alerts commonly look back over, so that the rise is seen.
pub(super) const KEEP: Duration = Duration::from_secs(600);

/// How long a cgroup that was gone without a kill may still get one from the log.
const KEEP_QUIET: Duration = Duration::from_secs(60);

/// Cgroups that are gone and remembered at most.
const MAX_GONE: usize = 2048;

/// The log is read within milliseconds of a kill. Behind for longer is lost.
const BEHIND: Duration = Duration::from_secs(10);

/// The count of one path.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// Kills of earlier cgroups of this path, and others that no counter shows.
    carried: u64,
    /// The counter at the last look.
    counter: u64,
    /// Kills before the log was followed, and such as it lost.
    before: u64,
    /// Kills that the log told.
    logged: u64,
    /// `before` is the first look of a cgroup older than the log.
    estimated: bool,
    /// Since when the log has been behind, and the least it has been so by.
    behind: Option<(Instant, u64)>,
}

impl Count {
    fn counted(&self) -> u64 {
        self.carried + self.counter
    }

    fn told(&self) -> u64 {
        self.before + self.logged
    }

    fn total(&self) -> u64 {
        self.counted().max(self.told())
    }

    /// A look at the counter, after the log was taken.
    fn look(&mut self, counter: u64, now: Instant) {
        self.counter = counter;
        let (counted, told) = (self.counted(), self.told());
        let estimated = std::mem::take(&mut self.estimated);
        if counted > told {
            let missing = counted - told;
            let (since, least) = self.behind.map_or((now, missing), |(s, l)| (s, l.min(missing)));
            self.behind = Some((since, least));
            if now.duration_since(since) >= BEHIND {
                self.before += least;
                self.behind = None;
            }
            return;
        }
        self.behind = None;
        let more = told - counted;
        if estimated {
            // In the first look, but told only after it.
            self.before = self.before.saturating_sub(more);
        } else {
            self.carried += more;
        }
    }

    /// The cgroup is gone, and another of the same path has come.
    fn again(&mut self) {
        self.carried = self.total();
        self.counter = 0;
        self.estimated = false;
    }
}

/// A cgroup as a tick sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    /// Never used twice.
    pub(super) id: u64,
    pub(super) cgroup: &'a Arc<Cgroup>,
    /// It is a pod or a container: what is below belongs to it.
    pub(super) whole: bool,
    /// Its row waits for a name.
    pub(super) waits: bool,
    /// The kernel's counter of the cgroup alone.
    pub(super) counter: Option<u64>,
    /// The kernel's counter of the subtree.
    pub(super) below: Option<u64>,
}

/// Who a cgroup was that is gone.
#[derive(Debug)]
pub struct Described {
    /// Its row's unchanging part.
    pub cgroup: Arc<Cgroup>,
    /// A name may still come.
    pub waits: bool,
    /// It was a pod or a container.
    pub whole: bool,
}

#[derive(Debug)]
struct Entry {
    cgroup: Arc<Cgroup>,
    whole: bool,
    waits: bool,
    /// There is a kernel counter.
    has_counter: bool,
    count: Count,
    /// What counters of the subtree said of earlier cgroups of this path.
    carried_below: u64,
    /// Kills below that are remembered nowhere else any more.
    folded: u64,
    /// Of the counter of the subtree, what could be placed nowhere: the most so far.
    unexplained: Option<u64>,
    /// What its row says.
    shown: u64,
}

impl Entry {
    fn new(cgroup: Arc<Cgroup>) -> Entry {
        Entry {
            cgroup,
            whole: false,
            waits: true,
            has_counter: false,
            count: Count::default(),
            carried_below: 0,
            folded: 0,
            unexplained: None,
            shown: 0,
        }
    }

    fn own(&self) -> u64 {
        self.count.total() + self.folded
    }
}

#[derive(Debug)]
struct Gone {
    entry: Box<Entry>,
    since: Instant,
    since_ms: u64,
    /// Found gone by the tick that runs.
    fresh: bool,
}

/// A cgroup in this tick, in the order of paths.
#[derive(Debug)]
struct Line {
    id: u64,
    cgroup: Arc<Cgroup>,
    whole: bool,
    below: Option<u64>,
    own: u64,
}

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// A table has room for up to twice as many: of pointers rather than of entries.
    live: HashMap<u64, Box<Entry>>,
    gone: HashMap<String, Gone>,
    lines: Vec<Line>,
    /// Those among the gone that have kills; few.
    killed: Vec<(Arc<Cgroup>, u64)>,
    /// The log is followed.
    has_log: bool,
    /// This kernel has counters.
    has_counters: bool,
    /// Cgroups found from now on came after the log.
    started: bool,
    /// What is shown of the gone has changed.
    changed: bool,
}

/// The time of a tick.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) wall_ms: u64,
}

impl Ledger {
    /// A tick begins.
    pub(super) fn begin(&mut self, has_log: bool) {
        self.has_log = has_log;
        self.lines.clear();
    }

    /// A cgroup was found.
    pub(super) fn found(&mut self, id: u64, cgroup: &Arc<Cgroup>) {
        if self.live.contains_key(&id) {
            return;
        }
        let entry = match self.gone.remove(&cgroup.path) {
            Some(Gone { mut entry, .. }) => {
                self.changed |= entry.shown > 0;
                entry.cgroup = Arc::clone(cgroup);
                entry.carried_below = entry.shown;
                entry.unexplained = None;
                entry.count.again();
                entry
            }
            None => {
                let mut entry = Box::new(Entry::new(Arc::clone(cgroup)));
                entry.count.estimated = !self.started;
                entry
            }
        };
        self.live.insert(id, entry);
    }

    /// A cgroup is gone.
    pub(super) fn left(&mut self, id: u64, at: Moment) {
        let Some(entry) = self.live.remove(&id) else { return };
        self.changed |= entry.shown > 0;
        let gone = Gone { entry, since: at.now, since_ms: at.wall_ms, fresh: true };
        self.gone.insert(gone.entry.cgroup.path.clone(), gone);
    }

    /// A kill that the log told, in the cgroup of this path, which is now that of
    /// `id` if it is there. `is_here` says whether a path is a cgroup's of this
    /// host. False if nothing is known of it.
    pub(super) fn killed(
        &mut self,
        path: &str,
        id: Option<u64>,
        at: Moment,
        is_here: impl Fn(&str) -> bool,
    ) -> bool {
        if let Some(entry) = id.and_then(|id| self.live.get_mut(&id)) {
            entry.count.logged += 1;
            return true;
        }
        if let Some(gone) = self.gone.get_mut(path) {
            gone.entry.count.logged += 1;
            self.changed = true;
            return true;
        }
        // Made and gone between two ticks. One of another host's cgroups, seen from
        // a container that shares the kernel with it, lies below nothing we know.
        let mut above = path;
        while let Some((parent, _)) = above.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
            above = parent;
            if is_here(above) || self.gone.contains_key(above) {
                let unnamed = Cgroup { path: path.to_owned(), ..Cgroup::default() };
                let mut entry = Box::new(Entry::new(Arc::new(unnamed)));
                entry.count.logged = 1;
                let gone = Gone { entry, since: at.now, since_ms: at.wall_ms, fresh: true };
                self.gone.insert(path.to_owned(), gone);
                self.changed = true;
                return true;
            }
        }
        false
    }

    /// Takes the counters of a cgroup; called for each, in the order of paths.
    pub(super) fn look(&mut self, seen: Seen<'_>, now: Instant) {
        self.found(seen.id, seen.cgroup);
        let mut own = 0;
        if let Some(entry) = self.live.get_mut(&seen.id) {
            if !Arc::ptr_eq(&entry.cgroup, seen.cgroup) {
                entry.cgroup = Arc::clone(seen.cgroup);
            }
            (entry.whole, entry.waits) = (seen.whole, seen.waits);
            if let Some(counter) = seen.counter {
                if entry.count.estimated && !entry.has_counter {
                    // What the log has told so far was before this look.
                    entry.count.before = counter.saturating_sub(entry.count.logged);
                    entry.count.counter = counter;
                } else {
                    entry.count.look(counter, now);
                }
                entry.has_counter = true;
                self.has_counters = true;
            }
            own = entry.own();
        }
        let Seen { id, whole, below, .. } = seen;
        self.lines.push(Line { id, cgroup: Arc::clone(seen.cgroup), whole, below, own });
    }

    /// All counters have been looked at: works out what rows say.
    pub(super) fn settle(&mut self, at: Moment, mut describe: impl FnMut(&str, Duration) -> Described) {
        self.started = true;
        for (path, gone) in &mut self.gone {
            if gone.entry.waits && gone.entry.own() > 0 {
                let told = describe(path, at.now.duration_since(gone.since));
                (gone.entry.cgroup, gone.entry.waits) = (told.cgroup, told.waits);
                gone.entry.whole |= told.whole;
                self.changed = true;
            }
        }
        self.list_killed();
        let quiet = self.lines.iter().all(|l| l.own == 0) && self.killed.is_empty();
        for index in 0..self.lines.len() {
            self.settle_line(index, quiet);
        }
        if self.changed {
            self.settle_gone();
        }
        self.gone.values_mut().for_each(|gone| gone.fresh = false);
        self.expire(at.now);
    }

    fn settle_line(&mut self, index: usize, quiet: bool) {
        let Some(line) = self.lines.get(index) else { return };
        let has_log = self.has_log;
        let mut value = line.own;
        if line.whole {
            let prefix = Below(&line.cgroup.path);
            if !quiet {
                let start = self.lines.partition_point(|l| prefix.is_after(&l.cgroup.path));
                let below = self.lines.iter().skip(start).take_while(|l| prefix.holds(&l.cgroup.path));
                value += below.map(|l| l.own).sum::<u64>();
                value += prefix.sum(&self.killed);
            }
            let Some(entry) = self.live.get_mut(&line.id) else { return };
            let counted = entry.carried_below + line.below.unwrap_or(0);
            if line.below.is_some() && counted > value {
                let unexplained = counted - value;
                let news = entry.unexplained.and_then(|most| unexplained.checked_sub(most));
                let mut fresh = self
                    .gone
                    .values_mut()
                    .filter(|g| g.fresh && g.entry.whole && prefix.holds(&g.entry.cgroup.path));
                match (news, fresh.next(), fresh.next()) {
                    (Some(news), Some(only), None) if news > 0 && !has_log => {
                        only.entry.count.carried += news;
                        only.entry.shown += news;
                        self.changed = true;
                    }
                    _ => entry.unexplained = entry.unexplained.max(Some(unexplained)),
                }
                value = counted;
            } else {
                entry.unexplained = entry.unexplained.or(Some(0));
            }
        }
        if let Some(entry) = self.live.get_mut(&line.id) {
            entry.shown = entry.shown.max(value);
        }
    }

    fn list_killed(&mut self) {
        let killed = self.gone.values().map(|g| (&g.entry.cgroup, g.entry.own())).filter(|(_, own)| *own > 0);
        self.killed.clear();
        self.killed.extend(killed.map(|(cgroup, own)| (Arc::clone(cgroup), own)));
    }

    fn settle_gone(&mut self) {
        // A line may have placed a kill.
        self.list_killed();
        for gone in self.gone.values_mut() {
            let entry = &mut gone.entry;
            let prefix = Below(&entry.cgroup.path);
            let below = if entry.whole { prefix.sum(&self.killed) } else { 0 };
            entry.shown = entry.shown.max(entry.own() + below);
        }
    }

    fn expire(&mut self, now: Instant) {
        let keep = |g: &Gone| now.duration_since(g.since) < if g.entry.shown > 0 { KEEP } else { KEEP_QUIET };
        let mut over: Vec<String> =
            self.gone.iter().filter(|(_, g)| !keep(g)).map(|(path, _)| path.clone()).collect();
        let excess = (self.gone.len() - over.len()).saturating_sub(MAX_GONE);
        if excess > 0 {
            let kept = self.gone.iter().filter(|(_, g)| keep(g));
            let mut oldest: Vec<_> = kept.map(|(path, g)| (g.entry.shown > 0, g.since, path)).collect();
            oldest.sort_unstable();
            over.extend(oldest.into_iter().take(excess).map(|(.., path)| path.clone()));
        }
        for path in over {
            let Some(gone) = self.gone.remove(&path) else { continue };
            self.changed |= gone.entry.shown > 0;
            self.fold(&path, gone.entry.own());
        }
    }

    /// Kills of a cgroup that is forgotten stay with the pod or container it was part of.
    fn fold(&mut self, path: &str, kills: u64) {
        let mut above = path;
        while let Some((parent, _)) = above.rsplit_once('/').filter(|_| kills > 0) {
            above = parent;
            let line = self.lines.binary_search_by(|l| l.cgroup.path.as_str().cmp(above)).ok();
            if let Some(line) = line.and_then(|at| self.lines.get(at)).filter(|l| l.whole)
                && let Some(entry) = self.live.get_mut(&line.id)
            {
                entry.folded += kills;
                return;
            }
        }
    }

    /// What the row at this place in the tick's order says.
    /// Without a counter of its own the log tells, but it says nothing of cgroups
    /// that this kernel accounts no memory to, while it does to others.
    pub(super) fn value(&self, index: usize) -> Option<u64> {
        let line = self.lines.get(index)?;
        let entry = self.live.get(&line.id)?;
        let logged = self.has_log && (entry.shown > 0 || !self.has_counters || line.cgroup.path == "/");
        (entry.has_counter || logged).then_some(entry.shown)
    }

    /// The rows of what is gone, if they have changed since the last call.
    pub(super) fn news(&mut self) -> Option<Vec<OomGone>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let shown = self.gone.values().filter(|g| g.entry.shown > 0 && !g.entry.waits);
        let mut rows: Vec<OomGone> = shown
            .map(|g| OomGone {
                cgroup: Arc::clone(&g.entry.cgroup),
                kills: g.entry.shown,
                gone_ms: g.since_ms,
            })
            .collect();
        rows.sort_unstable_by(|a, b| a.cgroup.path.cmp(&b.cgroup.path));
        Some(rows)
    }
}

/// The paths below one.
#[derive(Debug, Clone, Copy)]
struct Below<'a>(&'a str);

impl Below<'_> {
    fn holds(self, path: &str) -> bool {
        path.strip_prefix(self.0).is_some_and(|rest| rest.starts_with('/') && rest.len() > 1)
    }

    fn sum(self, killed: &[(Arc<Cgroup>, u64)]) -> u64 {
        killed.iter().filter(|(cgroup, _)| self.holds(&cgroup.path)).map(|(_, own)| own).sum()
    }

    /// Whether all of them come after `path`.
    fn is_after(self, path: &str) -> bool {
        let (own, path) = (self.0.bytes().chain(std::iter::once(b'/')), path.bytes());
        path.lt(own)
    }
}

#[cfg(test)]
mod tests;
