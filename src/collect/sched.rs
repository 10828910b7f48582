//! What the scheduler did for the threads of each cgroup and all below it: time on a CPU,
//! time waiting for one, slices.
//!
//! The kernel keeps these by thread (`/proc/<tid>/schedstat`, readable by everybody), so
//! each thread that v2 `cgroup.threads` or v1 `tasks` names is asked; cAdvisor asks only
//! the first thread of each process. Sums never fall: of threads that ended, and of
//! cgroups that are gone, what was last seen of them stays in the sum. What a thread did
//! after that is missing, and one that moves from one cgroup to another is counted in both.
//! The root has the figures of the machine, where `/proc/schedstat` tells them.
//!
//! One tick asks a bounded number of threads; cgroups whose turn did not come keep their
//! last sums.

use std::collections::HashMap;
use std::fmt::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::process::sees_all_processes;
use super::{Collector, Context, End, Setup, Vanished};
use crate::kernel::handles::{FileKey, Pace};
use crate::kernel::parse::{self, scheduler};
use crate::kernel::tree::Node;
use crate::kernel::{ReadError, file};
use crate::snapshot::{CgroupSample, SchedStats, Snapshot, reading};

/// Threads asked in one tick: about 40 ms on a small machine.
const THREADS_PER_TICK: u64 = 5_000;

/// Run time, waiting time, slices.
type Figures = [u64; 3];

fn add(to: &mut Figures, more: Figures) {
    for (to, more) in to.iter_mut().zip(more) {
        *to = to.saturating_add(more);
    }
}

#[derive(Debug, Clone, Copy)]
struct Thread {
    /// The tick that saw it last.
    seen: u64,
    figures: Figures,
}

/// What is known of one cgroup.
#[derive(Debug, Default)]
struct Account {
    /// The cgroup it is in.
    parent: u64,
    threads: HashMap<u32, Thread>,
    /// Of threads and cgroups that are gone.
    gone: Figures,
    /// All of it in the last tick, without what is in cgroups below; absent where not all
    /// of its threads can be seen.
    own: Option<Figures>,
}

#[derive(Debug)]
struct Sched {
    /// In the first tree a cgroup exists in.
    threads: [Option<FileKey>; 2],
    proc: PathBuf,
    /// Of the machine.
    schedstat: PathBuf,
    /// Paths are built in here.
    path: String,
    /// Whether v1's lists have all threads there are.
    all_seen: bool,
    tick: u64,
    accounts: HashMap<u64, Account>,
    /// Cgroups that are gone since the last tick, and what they were in.
    heirs: HashMap<u64, u64>,
    /// The set of nodes by count and sum of ids, which are never used twice, and the
    /// position of each one's parent.
    known: (usize, u64),
    parents: Vec<usize>,
    /// By position, in this tick.
    totals: Vec<Option<Figures>>,
    machine: Option<Figures>,
    tids: Vec<u32>,
    left: u64,
    /// Where the last tick's budget ran out.
    resume_at: u64,
    stopped_at: Option<u64>,
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let v2 = setup.layout.is_v2();
    let trees = [setup.layout.tree_for("cpu"), setup.layout.tree_for("memory")];
    let trees = if v2 { [setup.layout.unified(), None] } else { trees };
    let name = if v2 { "cgroup.threads" } else { "tasks" };
    Some(Box::new(Sched {
        threads: trees.map(|tree| setup.reader.register(tree?, name, Pace::Slow)),
        proc: setup.roots.proc.clone(),
        schedstat: setup.roots.proc.join("schedstat"),
        path: String::new(),
        all_seen: v2 || sees_all_processes(&setup.roots.proc),
        tick: 0,
        accounts: HashMap::new(),
        heirs: HashMap::new(),
        known: (0, 0),
        parents: Vec::new(),
        totals: Vec::new(),
        machine: None,
        tids: Vec::new(),
        left: 0,
        resume_at: 0,
        stopped_at: None,
    }))
}

impl Account {
    /// Takes over what a thread has done so far.
    fn see(&mut self, tid: u32, tick: u64, figures: Figures) {
        let thread = Thread { seen: tick, figures };
        // A number that was given to another thread starts again from 0.
        if let Some(before) = self.threads.insert(tid, thread)
            && before.figures.iter().zip(&figures).any(|(before, now)| before > now)
        {
            add(&mut self.gone, before.figures);
        }
    }

    /// Settles the threads that this tick did not see, and sums up.
    fn sum(&mut self, tick: u64) -> Figures {
        let gone = &mut self.gone;
        self.threads.retain(|_, thread| {
            if thread.seen != tick {
                add(gone, thread.figures);
            }
            thread.seen == tick
        });
        let mut sum = self.gone;
        self.threads.values().for_each(|thread| add(&mut sum, thread.figures));
        sum
    }
}

impl Sched {
    fn ask(&mut self, cx: &mut Context<'_>, tid: u32) -> Result<Figures, ReadError> {
        self.path.clear();
        // Writing to a String cannot fail.
        let _ = write!(self.path, "{}/{tid}/schedstat", self.proc.display());
        let fd = file::open(self.path.as_ref())?;
        let len = cx.reader.buffer.fill_at_once(fd.as_fd())?;
        scheduler::of_thread(cx.reader.buffer.text(len))
    }

    /// The figures of the cgroup's own threads; `None` where it has some that are not seen.
    fn own(&mut self, cx: &mut Context<'_>, node: &mut Node) -> Result<Option<Figures>, Vanished> {
        self.tids.clear();
        let (mut read, mut hidden) = (None, !self.all_seen);
        for key in self.threads {
            if read.is_none() {
                let tids = &mut self.tids;
                read = cx.file(node, key, |text| {
                    parse::pids(text, |tid| if tid == 0 { hidden = true } else { tids.push(tid) })
                })?;
            }
        }
        if read.is_none() || hidden {
            return Ok(None);
        }
        let mut account = self.accounts.remove(&node.id).unwrap_or_default();
        let mut whole = true;
        for at in 0..self.tids.len() {
            let Some(tid) = self.tids.get(at).copied() else { break };
            self.left = self.left.saturating_sub(1);
            match self.ask(cx, tid) {
                Ok(figures) => account.see(tid, self.tick, figures),
                Err(ReadError::Gone) => {}
                Err(error) => {
                    // Part of the sum would be a wrong number.
                    whole = false;
                    if let Some(thread) = account.threads.get_mut(&tid) {
                        thread.seen = self.tick;
                    }
                    cx.failed(&node.cgroup.path, error);
                }
            }
        }
        let sum = account.sum(self.tick);
        self.accounts.insert(node.id, account);
        Ok(whole.then_some(sum))
    }

    /// Finds everyone's parent: nodes are sorted by path, so it comes before them.
    fn relate(&mut self, nodes: &[Node]) {
        let known = (nodes.len(), nodes.iter().map(|n| n.id).sum());
        if known == self.known {
            return;
        }
        self.known = known;
        let positions: HashMap<&str, usize> =
            nodes.iter().enumerate().map(|(at, node)| (node.cgroup.path.as_str(), at)).collect();
        self.parents.clear();
        for node in nodes {
            let mut path = node.cgroup.path.as_str();
            let parent = loop {
                path = path.rsplit_once('/').map_or("", |(above, _)| above);
                if path.is_empty() {
                    break 0;
                }
                if let Some(at) = positions.get(path) {
                    break *at;
                }
            };
            self.parents.push(parent);
            let parent = nodes.get(parent).map_or(node.id, |parent| parent.id);
            self.accounts.entry(node.id).or_default().parent = parent;
        }
    }
}

impl Collector for Sched {
    fn begin(&mut self, cx: &mut Context<'_>, nodes: &mut [Node], _snapshot: &mut Snapshot) {
        self.tick += 1;
        self.left = THREADS_PER_TICK;
        self.resume_at = self.stopped_at.take().unwrap_or(0);
        self.heirs.clear();
        self.totals.clear();
        self.relate(nodes);
        let machine = cx.reader.buffer.read_path(&self.schedstat);
        self.machine = machine.and_then(scheduler::of_machine).ok();
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        _row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        let last = self.accounts.get(&node.id).and_then(|account| account.own);
        let turn = node.id >= self.resume_at;
        let own = if node.is_root() && self.machine.is_some() {
            Ok(self.machine)
        } else if last.is_some() && (!turn || self.left == 0) {
            if turn && self.stopped_at.is_none() {
                self.stopped_at = Some(node.id);
            }
            Ok(last)
        } else {
            self.own(cx, node)
        };
        // Of one that vanishes now, those above keep what was seen.
        self.totals.push(own.unwrap_or(last));
        if let Some(account) = self.accounts.get_mut(&node.id) {
            account.own = own.unwrap_or(last);
        }
        own.map(|_| ())
    }

    fn end(&mut self, end: &mut End<'_>) {
        for at in (1..self.totals.len()).rev() {
            let Some(total) = self.totals.get(at).copied() else { continue };
            let Some(above) = self.parents.get(at).and_then(|parent| self.totals.get_mut(*parent)) else {
                continue;
            };
            *above = above.zip(total).map(|(mut sum, total)| {
                add(&mut sum, total);
                sum
            });
        }
        if let (Some(machine), Some(root)) = (self.machine, self.totals.first_mut()) {
            *root = Some(machine);
        }
        for (row, total) in end.snapshot.cgroups.iter_mut().zip(&self.totals) {
            if let Some([run_ns, wait_ns, slices]) = total.map(|figures| figures.map(reading)) {
                row.extra().sched = SchedStats { run_ns, wait_ns, slices };
            }
        }
    }

    fn forget(&mut self, id: u64) {
        let Some(account) = self.accounts.remove(&id) else { return };
        self.heirs.insert(id, account.parent);
        let mut heir = account.parent;
        while !self.accounts.contains_key(&heir) {
            // Its parent went with it, and before it.
            match self.heirs.get(&heir) {
                Some(above) if *above != heir => heir = *above,
                _ => return,
            }
        }
        if let (Some(heir), Some(own)) = (self.accounts.get_mut(&heir), account.own) {
            add(&mut heir.gone, own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_never_fall() {
        let mut account = Account::default();
        account.see(7, 1, [10, 1, 1]);
        account.see(8, 1, [5, 2, 1]);
        assert_eq!(account.sum(1), [15, 3, 2]);
        // One of them ended, and its number went to another thread.
        account.see(7, 2, [1, 0, 1]);
        assert_eq!(account.sum(2), [16, 3, 3]);
        assert_eq!(account.threads.len(), 1);
        assert_eq!(account.sum(3), [16, 3, 3]);
    }
}
