//! Memory: use, composition, faults, events.
//!
//! v1 `memory.stat` has every key twice: for the cgroup alone and, with the
//! prefix `total_`, for its subtree; we take the subtree, and the faults both
//! ways. v2 `memory.stat` is the subtree only.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::{Collector, Context, Depth, Setup, Vanished};
use crate::kernel::handles::{FileKey, Pace};
use crate::kernel::parse::{self, Keyed, MAX_KEYS, Values};
use crate::kernel::tree::Node;
use crate::snapshot::{CgroupSample, Kind, MemoryStats, Reading, Snapshot, reading};

const V1: &[&str] = &[
    "total_cache",
    "total_rss",
    "total_swap",
    "total_mapped_file",
    "total_active_file",
    "total_inactive_file",
    "total_dirty",
    "total_writeback",
    "pgfault",
    "pgmajfault",
    "total_pgfault",
    "total_pgmajfault",
    "total_workingset_refault_file",
    "total_workingset_refault_anon",
];

const V2: &[&str] = &[
    "file",
    "anon",
    "file_mapped",
    "active_file",
    "inactive_file",
    "file_dirty",
    "file_writeback",
    "pgfault",
    "pgmajfault",
    "pgscan",
    "pgsteal",
    "workingset_refault_file",
    "workingset_refault_anon",
    // One figure for both until 5.9, when anonymous pages had no refaults.
    "workingset_refault",
    "kernel",
    // The parts of `kernel` before 5.18 summed them up.
    "kernel_stack",
    "pagetables",
    "percpu",
    "sock",
    "vmalloc",
    "slab",
];

const EVENTS: &[&str] = &["low", "high", "max", "oom", "oom_kill", "oom_group_kill"];

const SWAP_EVENTS: &[&str] = &["high", "max", "fail"];

#[derive(Debug)]
struct V1Memory {
    stat: Option<FileKey>,
    usage: Option<FileKey>,
    peak: Option<FileKey>,
    failcnt: Option<FileKey>,
    /// By cgroup, as last read: without a limit nothing can fail at it.
    last_failcnt: HashMap<u64, Reading>,
    /// The tick this was last read in.
    sequence: u64,
    kernel: Option<FileKey>,
    keys: Keyed,
    values: Values,
}

#[derive(Debug)]
struct V2Memory {
    stat: Option<FileKey>,
    current: Option<FileKey>,
    peak: Option<FileKey>,
    swap: Option<FileKey>,
    /// Cgroups that have that file: where the machine has no swap, it is 0 there.
    have_swap: HashSet<u64>,
    events: Option<FileKey>,
    swap_events: Option<FileKey>,
    /// By cgroup.
    last_swap_events: HashMap<u64, SwapEvents>,
    meminfo: PathBuf,
    root_swap: Option<u64>,
    /// Whether the machine has no swap; an area that is being given up counts as long as
    /// something is in it.
    no_swap: bool,
    // The root's memory.stat has other lines than everyone else's.
    root_keys: Keyed,
    keys: Keyed,
    event_keys: Keyed,
    swap_event_keys: Keyed,
    values: Values,
}

/// `memory.swap.events` as last read. They rise only while memory is reclaimed, so the file
/// is read again when pages were looked at for that, and every tenth tick otherwise.
#[derive(Debug, Clone, Copy)]
struct SwapEvents {
    pgscan: Option<u64>,
    /// In the order of [`SWAP_EVENTS`].
    counts: [Reading; 3],
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let tree = setup.layout.tree_for("memory")?;
    let swap_events = setup.kinds.has(Kind::MemoryEvents) && setup.layout.is_v2();
    let swap_events =
        swap_events.then(|| setup.reader.register(tree, "memory.swap.events", Pace::Slow)).flatten();
    let mut register_for = |name, pace| setup.reader.register(tree, name, pace);
    if setup.layout.is_v2() {
        let swap = register_for("memory.swap.current", Pace::Often);
        let mut register = |name| register_for(name, Pace::Tick);
        return Some(Box::new(V2Memory {
            stat: register("memory.stat"),
            current: register("memory.current"),
            peak: register("memory.peak"),
            swap,
            have_swap: HashSet::new(),
            events: register("memory.events"),
            swap_events,
            last_swap_events: HashMap::new(),
            meminfo: setup.roots.proc.join("meminfo"),
            root_swap: None,
            no_swap: false,
            root_keys: Keyed::new(V2),
            keys: Keyed::new(V2),
            event_keys: Keyed::new(EVENTS),
            swap_event_keys: Keyed::new(SWAP_EVENTS),
            values: [None; MAX_KEYS],
        }));
    }
    let failcnt = register_for("memory.failcnt", Pace::Often);
    let mut register = |name| register_for(name, Pace::Tick);
    Some(Box::new(V1Memory {
        stat: register("memory.stat"),
        usage: register("memory.usage_in_bytes"),
        peak: register("memory.max_usage_in_bytes"),
        failcnt,
        last_failcnt: HashMap::new(),
        sequence: 0,
        kernel: register("memory.kmem.usage_in_bytes"),
        keys: Keyed::new(V1),
        values: [None; MAX_KEYS],
    }))
}

/// Memory in use without the page cache that could go at once. The files are
/// not read at one instant, so the difference can dip below zero.
fn set_working_set(memory: &mut MemoryStats) {
    let both = memory.usage.zip(memory.inactive_file);
    memory.working_set =
        both.and_then(|(usage, inactive)| reading(usage.get().saturating_sub(inactive.get())));
}

impl Collector for V1Memory {
    fn begin(&mut self, _cx: &mut Context<'_>, _nodes: &mut [Node], snapshot: &mut Snapshot) {
        if snapshot.sequence != self.sequence + 1 {
            // What was told of limits meanwhile is not known here.
            self.last_failcnt.clear();
        }
        self.sequence = snapshot.sequence;
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        let memory = &mut row.memory;
        let (keys, values) = (&mut self.keys, &mut self.values);
        if cx.file(node, self.stat, |text| keys.read(text, values))?.is_some() {
            let [cache, rss, swap, mapped, active, inactive, dirty, writeback, ..] = *values;
            let [.., pgfault, pgmajfault, total_pgfault, total_pgmajfault, refault_file, refault_anon] =
                first::<14>(values);
            memory.cache = cache.and_then(reading);
            memory.rss = rss.and_then(reading);
            memory.swap = swap.and_then(reading);
            memory.mapped_file = mapped.and_then(reading);
            memory.active_file = active.and_then(reading);
            memory.inactive_file = inactive.and_then(reading);
            memory.dirty = dirty.and_then(reading);
            memory.writeback = writeback.and_then(reading);
            memory.pgfault_own = pgfault.and_then(reading);
            memory.pgmajfault_own = pgmajfault.and_then(reading);
            memory.pgfault = total_pgfault.and_then(reading);
            memory.pgmajfault = total_pgmajfault.and_then(reading);
            memory.refault_file = refault_file.and_then(reading);
            memory.refault_anon = refault_anon.and_then(reading);
        }
        memory.usage = cx.file(node, self.usage, parse::number)?.and_then(reading);
        memory.peak = cx.file(node, self.peak, parse::number)?.and_then(reading);
        let unlimited = node.is_known_unlimited(node.spec.memory_limit);
        memory.failcnt = match self.last_failcnt.get(&node.id).filter(|_| unlimited) {
            Some(failcnt) => *failcnt,
            None => {
                let failcnt = cx.file(node, self.failcnt, parse::number)?.and_then(reading);
                self.last_failcnt.insert(node.id, failcnt);
                failcnt
            }
        };
        memory.kernel = cx.file(node, self.kernel, parse::number)?.and_then(reading);
        set_working_set(memory);
        Ok(())
    }

    fn glance(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
        depth: Depth,
    ) -> Result<(), Vanished> {
        if depth == Depth::Whole {
            return self.read(cx, node, row);
        }
        row.memory.usage = cx.file(node, self.usage, parse::number)?.and_then(reading);
        row.memory.peak = cx.file(node, self.peak, parse::number)?.and_then(reading);
        set_working_set(&mut row.memory);
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        self.last_failcnt.remove(&id);
    }
}

impl Collector for V2Memory {
    fn begin(&mut self, cx: &mut Context<'_>, _nodes: &mut [Node], _snapshot: &mut Snapshot) {
        self.root_swap = None;
        self.no_swap = false;
        if let Ok(text) = cx.reader.buffer.read_path(&self.meminfo) {
            let (total, free) = (parse::meminfo(text, "SwapTotal"), parse::meminfo(text, "SwapFree"));
            self.no_swap = total == Some(0);
            self.root_swap = total.zip(free).map(|(total, free)| total.saturating_sub(free));
        }
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        let memory = &mut row.memory;
        let root = node.is_root();
        let (keys, values) = (if root { &mut self.root_keys } else { &mut self.keys }, &mut self.values);
        if cx.file(node, self.stat, |text| keys.read(text, values))?.is_some() {
            let [file, anon, mapped, active, inactive, dirty, writeback, pgfault, pgmajfault, ..] = *values;
            let [.., pgscan, pgsteal, refault_file, refault_anon, refault] = first::<14>(values);
            let [.., kernel, stack, tables, percpu, sock, vmalloc, slab] = first::<21>(values);
            memory.cache = file.and_then(reading);
            memory.rss = anon.and_then(reading);
            memory.mapped_file = mapped.and_then(reading);
            memory.active_file = active.and_then(reading);
            memory.inactive_file = inactive.and_then(reading);
            memory.dirty = dirty.and_then(reading);
            memory.writeback = writeback.and_then(reading);
            memory.pgfault = pgfault.and_then(reading);
            memory.pgmajfault = pgmajfault.and_then(reading);
            memory.pgscan = pgscan.and_then(reading);
            memory.pgsteal = pgsteal.and_then(reading);
            memory.refault_file = refault_file.or(refault).and_then(reading);
            memory.refault_anon = refault_anon.and_then(reading);
            let parts = || {
                let parts = [stack, tables, percpu, sock, vmalloc, slab];
                parts.iter().any(Option::is_some).then(|| parts.iter().flatten().sum())
            };
            memory.kernel = kernel.or_else(parts).and_then(reading);
            if root {
                // The root has no memory.current.
                memory.usage = file.zip(anon).and_then(|(file, anon)| reading(file.saturating_add(anon)));
                memory.swap = self.root_swap.and_then(reading);
            }
        }
        if !root {
            memory.usage = cx.file(node, self.current, parse::number)?.and_then(reading);
            memory.swap = if self.no_swap && !node.slow && self.have_swap.contains(&node.id) {
                reading(0)
            } else {
                let swap = cx.file(node, self.swap, parse::number)?.and_then(reading);
                match swap {
                    Some(_) => self.have_swap.insert(node.id),
                    None => self.have_swap.remove(&node.id),
                };
                swap
            };
            memory.peak = cx.file(node, self.peak, parse::number)?.and_then(reading);
            let keys = &mut self.event_keys;
            if cx.file(node, self.events, |text| keys.read(text, values))?.is_some() {
                let [low, high, max, oom, oom_kill, oom_group_kill, ..] = *values;
                memory.events_low = low.and_then(reading);
                memory.events_high = high.and_then(reading);
                memory.events_max = max.and_then(reading);
                memory.events_oom = oom.and_then(reading);
                memory.events_oom_kill = oom_kill.and_then(reading);
                memory.events_oom_group_kill = oom_group_kill.and_then(reading);
                memory.failcnt = memory.events_max;
            }
            let pgscan = memory.pgscan.map(u64::from);
            let mut swap = self.last_swap_events.get(&node.id).copied();
            if node.slow || swap.is_none_or(|last| last.pgscan != pgscan) {
                let keys = &mut self.swap_event_keys;
                swap = cx.file(node, self.swap_events, |text| keys.read(text, values))?.map(|()| {
                    let [high, max, fail, ..] = values.map(|value| value.and_then(reading));
                    SwapEvents { pgscan, counts: [high, max, fail] }
                });
                match swap {
                    Some(read) => self.last_swap_events.insert(node.id, read),
                    None => self.last_swap_events.remove(&node.id),
                };
            }
            let [high, max, fail] = swap.map_or([None; 3], |swap| swap.counts);
            memory.swap_events_high = high;
            memory.swap_events_max = max;
            memory.swap_events_fail = fail;
        }
        set_working_set(memory);
        Ok(())
    }

    fn glance(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
        depth: Depth,
    ) -> Result<(), Vanished> {
        if depth == Depth::Whole {
            return self.read(cx, node, row);
        }
        row.memory.usage = cx.file(node, self.current, parse::number)?.and_then(reading);
        row.memory.peak = cx.file(node, self.peak, parse::number)?.and_then(reading);
        set_working_set(&mut row.memory);
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        self.last_swap_events.remove(&id);
        self.have_swap.remove(&id);
    }
}

fn first<const N: usize>(values: &Values) -> [Option<u64>; N] {
    let mut out = [None; N];
    for (to, from) in out.iter_mut().zip(values) {
        *to = *from;
    }
    out
}
