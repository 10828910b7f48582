//! Memory: use, composition, faults, events.
//!
//! v1 `memory.stat` has every key twice: for the cgroup alone and, with the
//! prefix `total_`, for its subtree; we take the subtree, and the faults both
//! ways. v2 `memory.stat` is the subtree only.

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
    events: Option<FileKey>,
    swap_events: Option<FileKey>,
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
            events: register("memory.events"),
            swap_events,
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

/// The figures of the tick before, if they are taken to stand: nothing ran in the cgroup, and
/// as much is in use as was. The rest can still move, as pages age, are written out or shared
/// with who runs: what stands is read again after ten seconds.
fn standing(cx: &Context<'_>, node: &Node, usage: Reading) -> Option<MemoryStats> {
    let before = cx.before(node).filter(|_| node.idle && !node.due)?.memory;
    // Kills are told elsewhere.
    (usage.is_some() && before.usage == usage).then_some(MemoryStats { oom_kills: None, ..before })
}

/// What rises while a cgroup runs, between ticks.
fn glance_at(
    cx: &mut Context<'_>,
    node: &mut Node,
    memory: &mut MemoryStats,
    (usage, peak): (Option<FileKey>, Option<FileKey>),
) -> Result<(), Vanished> {
    memory.usage = cx.file(node, usage, parse::number)?.and_then(reading);
    memory.peak = cx.file(node, peak, parse::number)?.and_then(reading);
    set_working_set(memory);
    Ok(())
}

impl Collector for V1Memory {
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        let memory = &mut row.memory;
        memory.usage = cx.file(node, self.usage, parse::number)?.and_then(reading);
        if let Some(standing) = standing(cx, node, memory.usage) {
            *memory = standing;
            return Ok(());
        }
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
        memory.peak = cx.file(node, self.peak, parse::number)?.and_then(reading);
        // Without a limit nothing can fail at it.
        let unlimited = node.is_known_unlimited(node.spec.memory_limit);
        memory.failcnt = match cx.before(node).filter(|_| unlimited) {
            Some(before) => before.memory.failcnt,
            None => cx.file(node, self.failcnt, parse::number)?.and_then(reading),
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
        glance_at(cx, node, &mut row.memory, (self.usage, self.peak))
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
        if !root {
            memory.usage = cx.file(node, self.current, parse::number)?.and_then(reading);
            if let Some(standing) = standing(cx, node, memory.usage) {
                *memory = standing;
                return Ok(());
            }
        }
        let before = cx.before(node).map(|before| &before.memory);
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
            // Where the machine has no swap, it is 0 for all that have the file.
            let had_swap = before.is_some_and(|before| before.swap.is_some());
            memory.swap = if self.no_swap && !node.slow && had_swap {
                reading(0)
            } else {
                cx.file(node, self.swap, parse::number)?.and_then(reading)
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
            // These rise only while memory is reclaimed: they are read again when pages were
            // looked at for that, and every tenth tick.
            let told = |before: &&MemoryStats| {
                before.pgscan == memory.pgscan
                    && (before.swap_events_high.or(before.swap_events_max).or(before.swap_events_fail))
                        .is_some()
            };
            [memory.swap_events_high, memory.swap_events_max, memory.swap_events_fail] = match before
                .filter(|_| !node.slow)
                .filter(told)
            {
                Some(before) => [before.swap_events_high, before.swap_events_max, before.swap_events_fail],
                None => {
                    let keys = &mut self.swap_event_keys;
                    let read = cx.file(node, self.swap_events, |text| keys.read(text, values))?;
                    read.map_or([None; 3], |()| {
                        let [high, max, fail, ..] = values.map(|value| value.and_then(reading));
                        [high, max, fail]
                    })
                }
            };
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
        glance_at(cx, node, &mut row.memory, (self.current, self.peak))
    }
}

fn first<const N: usize>(values: &Values) -> [Option<u64>; N] {
    let mut out = [None; N];
    for (to, from) in out.iter_mut().zip(values) {
        *to = *from;
    }
    out
}
