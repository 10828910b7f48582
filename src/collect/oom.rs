//! Processes killed by the OOM killer: the kernel's counters, and its log for what
//! they cannot tell.
//!
//! Counters: v2 `memory.events.local:oom_kill` (5.2), before that `memory.events`,
//! which is the subtree's; v1 `memory.oom_control:oom_kill` (4.13). A counter goes
//! with its cgroup, and a container whose main process is killed is gone before the
//! next tick, so kills are taken from the log too ([`log`]), and both are put
//! together by one rule ([`ledger`]).
//!
//! `oom_kill` of `/proc/vmstat` (4.13) counts every kill of the machine: while it stands,
//! so do all the others, and they are not read.

pub(super) mod ledger;
mod log;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use super::{Collector, Context, End, LogState, Setup, Vanished};
use crate::kernel::handles::{FileKey, Pace};
use crate::kernel::parse::{Keyed, MAX_KEYS, Values};
use crate::kernel::tree::Node;
use crate::snapshot::{CgroupSample, OomKill, Reading, Snapshot, reading};
use ledger::{Ledger, Moment, Seen};
use log::{Log, Logged};

#[derive(Debug)]
struct Oom {
    file: Option<FileKey>,
    fallback: Option<FileKey>,
    /// By cgroup: the subtree's kills, where something told them, and then its own, as last
    /// read. A kill is counted in both at once, so that the second stands as long as the
    /// first does.
    last: HashMap<u64, (Reading, Option<u64>)>,
    vmstat: PathBuf,
    vmstat_keys: Keyed,
    machine: Machine,
    keys: Keyed,
    values: Values,
    log: Option<Log>,
    ledger: Ledger,
    /// Kills of this tick; the memory is used again.
    kills: Vec<Logged>,
    /// Kills that could be put on no row.
    unplaced: u64,
    now: Instant,
}

/// Kills on the whole machine.
#[derive(Debug, Default)]
struct Machine {
    kills: Option<u64>,
    /// Ticks in which there were as many as in the one before.
    quiet: u32,
}

impl Machine {
    fn take(&mut self, kills: Option<u64>) {
        let same = kills.is_some() && kills == self.kills;
        self.quiet = if same { self.quiet.saturating_add(1) } else { 0 };
        self.kills = kills;
    }

    /// Whether no counter of a cgroup has moved since the tick before. The kernel counts a kill
    /// for the machine a moment before it does for the cgroup, so one more is read.
    fn is_quiet(&self) -> bool {
        self.quiet >= 2
    }
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let tree = setup.layout.tree_for("memory")?;
    let live = setup.layout.trees.get(tree.index()).is_some_and(|root| root.is_cgroupfs);
    let mut register = |name, pace| setup.reader.register(tree, name, pace);
    let (file, fallback) = if setup.layout.is_v2() {
        (register("memory.events.local", Pace::Often), register("memory.events", Pace::Often))
    } else {
        (register("memory.oom_control", Pace::Tick), None)
    };
    Some(Box::new(Oom {
        file,
        fallback,
        last: HashMap::new(),
        vmstat: setup.roots.proc.join("vmstat"),
        vmstat_keys: Keyed::new(&["oom_kill"]),
        machine: Machine::default(),
        keys: Keyed::new(&["oom_kill"]),
        values: [None; MAX_KEYS],
        // A captured tree's log has ended.
        log: live.then(|| Log::follow(setup.roots)),
        ledger: Ledger::default(),
        kills: Vec::new(),
        unplaced: 0,
        now: Instant::now(),
    }))
}

fn find(nodes: &[Node], path: &str) -> Option<u64> {
    let index = nodes.binary_search_by(|n| n.cgroup.path.as_str().cmp(path)).ok()?;
    nodes.get(index).map(|n| n.id)
}

impl Oom {
    /// The cgroup's own kills; `below` is what `memory.events` told of the subtree just before.
    fn counter(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        below: Reading,
    ) -> Result<Option<u64>, Vanished> {
        if let Some((then, own)) = self.last.get(&node.id)
            && (self.machine.is_quiet() || (below.is_some() && *then == below))
            && !node.slow
        {
            return Ok(*own);
        }
        let (keys, values) = (&mut self.keys, &mut self.values);
        let mut found = cx.file(node, self.file, |text| keys.read(text, values))?;
        if found.is_none() {
            found = cx.file(node, self.fallback, |text| keys.read(text, values))?;
        }
        let [kills, ..] = *values;
        let own = found.and(kills);
        self.last.insert(node.id, (below, own));
        Ok(own)
    }
}

impl Collector for Oom {
    fn begin(&mut self, cx: &mut Context<'_>, nodes: &mut [Node], snapshot: &mut Snapshot) {
        let (keys, values) = (&mut self.vmstat_keys, &mut self.values);
        let read = cx.reader.buffer.read_path(&self.vmstat).and_then(|text| keys.read(text, values));
        let [kills, ..] = *values;
        self.machine.take(kills.filter(|_| read.is_ok()));
        self.now = snapshot.monotonic;
        let at = Moment { now: self.now, wall_ms: snapshot.wall_ms };
        for node in nodes.iter().filter(|n| n.age == 0) {
            self.ledger.found(node.id, &node.cgroup);
        }
        let mut state = LogState::Unused;
        if let Some(log) = &self.log {
            let counts = log.take(&mut self.kills);
            state = counts.state;
            for Logged { kill, wall_ms } in &self.kills {
                let placed = kill.cgroup.as_deref().is_some_and(|path| {
                    let is_here = |path: &str| find(nodes, path).is_some();
                    self.ledger.killed(path, find(nodes, path), at, is_here)
                });
                self.unplaced += u64::from(!placed);
                let Some(cgroup) = kill.cgroup.clone().filter(|_| placed) else { continue };
                snapshot.oom_kills.push(OomKill {
                    cgroup,
                    wall_ms: *wall_ms,
                    pid: kill.pid,
                    process: kill.process.clone(),
                    limit: kill.limit.clone(),
                    constraint: kill.constraint.clone(),
                });
            }
        }
        self.ledger.begin(state == LogState::Read);
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        let counter = self.counter(cx, node, row.memory.events_oom_kill);
        let seen = Seen {
            id: node.id,
            cgroup: &node.cgroup,
            whole: node.whole,
            waits: node.waits,
            counter: counter.unwrap_or(None),
            below: row.memory.events_oom_kill.map(|n| n.get()),
        };
        self.ledger.look(seen, self.now);
        counter.map(drop)
    }

    fn end(&mut self, end: &mut End<'_>) {
        let snapshot = &mut *end.snapshot;
        let at = Moment { now: self.now, wall_ms: snapshot.wall_ms };
        self.ledger.settle(at, |path, age| end.namer.describe_gone(path, age));
        for (index, row) in snapshot.cgroups.iter_mut().enumerate() {
            row.memory.oom_kills = self.ledger.value(index).and_then(reading);
        }
        if let Some(rows) = self.ledger.news() {
            end.departed.set_kills(rows, self.now);
        }
        if let Some(log) = &self.log {
            let mut counts = log.counts();
            counts.unplaced += self.unplaced;
            *end.log = counts;
        }
    }

    fn forget(&mut self, id: u64) {
        self.last.remove(&id);
        self.ledger.left(id, Moment { now: Instant::now(), wall_ms: super::sampler::wall_ms() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_stand_from_the_second_tick_without_a_kill_on() {
        let mut machine = Machine::default();
        let quiet = [None, None, None, Some(3), Some(3), Some(3), Some(4), Some(4), Some(4), None, Some(4)]
            .map(|kills| {
                machine.take(kills);
                machine.is_quiet()
            });
        assert_eq!(quiet, [false, false, false, false, false, true, false, false, true, false, false]);
    }
}
