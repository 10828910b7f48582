//! CPU time and throttling.
//!
//! v2 `cpu.stat` (microseconds; the last five lines only with the controller):
//! ```text
//! usage_usec 4096
//! user_usec 1000
//! system_usec 3096
//! nr_periods 10
//! nr_throttled 2
//! throttled_usec 800
//! nr_bursts 0
//! burst_usec 0
//! ```
//! v1 `cpuacct.usage` (nanoseconds), `cpuacct.stat` (1/100 s) and `cpu.stat`
//! (`throttled_time` and `burst_time` in nanoseconds). On a hybrid host a cgroup
//! that has no `cpuacct` directory may still have the v2 file.
//!
//! v1's files tell the same time several ways, so not all are read each tick.
//! `cpuacct.usage` is the sum of `cpuacct.usage_percpu`, CPU by CPU over the same
//! CPUs, and is left out where that is read. `cpuacct.stat` moves only with the time
//! that is charged at the same clock tick or after it, so it is read when the use has
//! moved since it was read last. Nobody without a limit is throttled, and limits that
//! are written are told.

use std::collections::HashMap;
use std::time::Instant;

use super::{Collector, Context, Depth, Setup, Vanished};
use crate::kernel::cgroup::TreeId;
use crate::kernel::handles::{FileKey, Pace};
use crate::kernel::parse::{self, Keyed, MAX_KEYS, Values};
use crate::kernel::tree::Node;
use crate::rate::{Moment, Window, increase};
use crate::snapshot::{CgroupSample, CpuStats, Hierarchy, Kind, Origin, Reading, Snapshot, reading};

/// The kernel shows ticks of USER_HZ, which is 100 on every architecture we know.
const NS_PER_TICK: u64 = 10_000_000;

const V2: &[&str] = &[
    "usage_usec",
    "user_usec",
    "system_usec",
    "nr_periods",
    "nr_throttled",
    "throttled_usec",
    "nr_bursts",
    "burst_usec",
];
const V1: &[&str] = &["nr_periods", "nr_throttled", "throttled_time", "nr_bursts", "burst_time"];
const V1_ACCT: &[&str] = &["user", "system"];

#[derive(Debug)]
struct Cpu {
    cpuacct_tree: Option<TreeId>,
    usage: Option<FileKey>,
    split: Option<FileKey>,
    throttling: Option<FileKey>,
    per_cpu: Option<FileKey>,
    unified: Option<FileKey>,
    split_keys: Keyed,
    throttling_keys: Keyed,
    unified_keys: Keyed,
    values: Values,
    pace: Pacer,
}

/// The use of each node between ticks of the grid.
#[derive(Debug, Default)]
struct Pacer {
    /// Whether this tick is one of them, and when it is.
    on_grid: bool,
    now_ns: u64,
    began: Option<Instant>,
    last: HashMap<u64, Last>,
}

/// A node in the last tick of the grid.
#[derive(Debug)]
struct Last {
    taken_ns: u64,
    usage_ns: Reading,
    throttled_ns: Reading,
    speed: Speed,
}

/// How fast, and how much slower than it wanted.
#[derive(Debug, Clone, Copy, Default)]
struct Speed {
    nanocores: Reading,
    throttled_millionths: Reading,
}

/// Of two times how much the first is of both, millionths; `None` where both are 0.
fn share(part: u64, rest: u64) -> Reading {
    let both = u128::from(part) + u128::from(rest);
    let share = (u128::from(part) * 1_000_000).checked_div(both)?;
    u64::try_from(share).ok().and_then(reading)
}

impl Pacer {
    fn begin(&mut self, snapshot: &Snapshot) {
        let began = *self.began.get_or_insert(snapshot.monotonic);
        let since = snapshot.monotonic.saturating_duration_since(began).as_nanos();
        self.now_ns = u64::try_from(since).unwrap_or(u64::MAX);
        self.on_grid = snapshot.origin == Origin::Grid;
    }

    fn of(&mut self, node: u64, cpu: &CpuStats) -> Speed {
        if !self.on_grid {
            return self.last.get(&node).map(|last| last.speed).unwrap_or_default();
        }
        // A node's number is never given to another life of its cgroup.
        let moment = |taken_ns| Moment { id: "", start: Some(node), taken_ns };
        let (usage_ns, throttled_ns) = (cpu.usage_ns, cpu.throttled_ns);
        let rise = |last: Reading, now: Reading| increase(last.map(u64::from), now.map(u64::from));
        let since = self.last.get(&node).and_then(|last| {
            let window = Window::between(&moment(last.taken_ns), &moment(self.now_ns))?;
            let used = rise(last.usage_ns, usage_ns)?;
            let throttled = rise(last.throttled_ns, throttled_ns);
            Some(Speed {
                nanocores: reading(window.nanocores(used)),
                throttled_millionths: throttled.and_then(|throttled| share(throttled, used)),
            })
        });
        let speed = since.unwrap_or_default();
        self.last.insert(node, Last { taken_ns: self.now_ns, usage_ns, throttled_ns, speed });
        speed
    }
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let Setup { layout, reader, kinds, .. } = setup;
    let v1 = layout.hierarchy != Hierarchy::V2;
    let cpuacct = layout.controller("cpuacct");
    let mut register = |tree: Option<TreeId>, name, pace| reader.register(tree?, name, pace);
    let percpu = kinds.has(Kind::Percpu);
    let per_cpu = if percpu { register(cpuacct, "cpuacct.usage_percpu", Pace::Tick) } else { None };
    Some(Box::new(Cpu {
        cpuacct_tree: cpuacct,
        usage: register(cpuacct, "cpuacct.usage", if percpu { Pace::Often } else { Pace::Tick }),
        split: register(cpuacct, "cpuacct.stat", Pace::Often),
        throttling: if v1 { register(layout.controller("cpu"), "cpu.stat", Pace::Often) } else { None },
        per_cpu,
        unified: register(layout.unified(), "cpu.stat", Pace::Tick),
        split_keys: Keyed::new(V1_ACCT),
        throttling_keys: Keyed::new(V1),
        unified_keys: Keyed::new(V2),
        values: [None; MAX_KEYS],
        pace: Pacer::default(),
    }))
}

impl Collector for Cpu {
    fn begin(&mut self, _cx: &mut Context<'_>, _nodes: &mut [Node], snapshot: &mut Snapshot) {
        self.pace.begin(snapshot);
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        self.figures(cx, node, row)?;
        let before = cx.before(node).and_then(|before| before.cpu.usage_ns);
        node.idle = before.is_some() && before == row.cpu.usage_ns;
        let Speed { nanocores, throttled_millionths } = self.pace.of(node.id, &row.cpu);
        row.cpu.nanocores = nanocores;
        row.cpu.throttled_millionths = throttled_millionths;
        Ok(())
    }

    fn glance(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
        depth: Depth,
    ) -> Result<(), Vanished> {
        let in_v1 = self.cpuacct_tree.is_some_and(|tree| node.files.exists_in(tree));
        if depth == Depth::Whole || !in_v1 {
            return self.figures(cx, node, row);
        }
        row.cpu.usage_ns = cx.file(node, self.usage, parse::number)?.and_then(reading);
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        self.pace.last.remove(&id);
    }
}

impl Cpu {
    fn figures(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        let cpu = &mut row.cpu;
        if !self.cpuacct_tree.is_some_and(|tree| node.files.exists_in(tree)) {
            let (keys, values) = (&mut self.unified_keys, &mut self.values);
            if cx.file(node, self.unified, |text| keys.read(text, values))?.is_some() {
                let [usage, user, system, periods, throttled, throttled_usec, bursts, burst_usec, ..] =
                    *values;
                let ns = |usec: Option<u64>| usec.and_then(|v| reading(v.saturating_mul(1000)));
                cpu.usage_ns = ns(usage);
                cpu.user_ns = ns(user);
                cpu.system_ns = ns(system);
                cpu.periods = periods.and_then(reading);
                cpu.throttled_periods = throttled.and_then(reading);
                cpu.throttled_ns = ns(throttled_usec);
                cpu.burst_periods = bursts.and_then(reading);
                cpu.burst_ns = ns(burst_usec);
            }
            return Ok(());
        }
        cx.file(node, self.per_cpu, |text| parse::per_cpu(text, &mut cpu.per_cpu_ns))?;
        cpu.usage_ns = if cpu.per_cpu_ns.is_empty() {
            cx.file(node, self.usage, parse::number)?.and_then(reading)
        } else {
            reading(cpu.per_cpu_ns.iter().fold(0, |sum: u64, ns| sum.saturating_add(*ns)))
        };
        self.read_split(cx, node, cpu)?;
        self.read_throttling(cx, node, cpu)
    }

    /// v1 `cpuacct.stat`, if the use has moved since.
    fn read_split(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        cpu: &mut CpuStats,
    ) -> Result<(), Vanished> {
        let known = cx.before(node).map(|before| &before.cpu);
        if let Some(known) = known.filter(|known| {
            known.user_ns.is_some() && known.usage_ns.is_some() && known.usage_ns == cpu.usage_ns
        }) {
            cpu.user_ns = known.user_ns;
            cpu.system_ns = known.system_ns;
            return Ok(());
        }
        let (keys, values) = (&mut self.split_keys, &mut self.values);
        if cx.file(node, self.split, |text| keys.read(text, values))?.is_some() {
            let [user, system, ..] = *values;
            let ns = |ticks: Option<u64>| ticks.and_then(|v| reading(v.saturating_mul(NS_PER_TICK)));
            cpu.user_ns = ns(user);
            cpu.system_ns = ns(system);
        }
        Ok(())
    }

    /// v1 `cpu.stat`, if there may be a limit.
    fn read_throttling(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        cpu: &mut CpuStats,
    ) -> Result<(), Vanished> {
        let unlimited = node.is_known_unlimited(node.spec.cpu_quota_usec);
        let known = cx.before(node).map(|before| &before.cpu);
        if let Some(known) = known.filter(|known| unlimited && known.periods.is_some()) {
            cpu.periods = known.periods;
            cpu.throttled_periods = known.throttled_periods;
            cpu.throttled_ns = known.throttled_ns;
            cpu.burst_periods = known.burst_periods;
            cpu.burst_ns = known.burst_ns;
            return Ok(());
        }
        let (keys, values) = (&mut self.throttling_keys, &mut self.values);
        if cx.file(node, self.throttling, |text| keys.read(text, values))?.is_some() {
            let [periods, throttled, throttled_ns, bursts, burst_ns, ..] = *values;
            cpu.periods = periods.and_then(reading);
            cpu.throttled_periods = throttled.and_then(reading);
            cpu.throttled_ns = throttled_ns.and_then(reading);
            cpu.burst_periods = bursts.and_then(reading);
            cpu.burst_ns = burst_ns.and_then(reading);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        assert_eq!(share(0, 0), None);
        assert_eq!(share(0, 7), reading(0));
        assert_eq!(share(1, 3), reading(250_000));
        assert_eq!(share(u64::MAX, 0), reading(1_000_000));
        assert_eq!(share(u64::MAX, u64::MAX), reading(500_000));
    }
}
