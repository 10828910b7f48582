//! Limits, weights and requests.
//!
//! They change rarely, so they are read when something in the directory was
//! written (inotify) and every tenth tick otherwise; the last values stand in
//! between.

use super::{Collector, Context, Setup, Vanished};
use crate::kernel::handles::{FileKey, Pace};
use crate::kernel::parse;
use crate::kernel::tree::Node;
use crate::snapshot::{CgroupSample, Hierarchy, Limit, Spec, reading};

#[derive(Debug)]
struct V1Spec {
    period: Option<FileKey>,
    quota: Option<FileKey>,
    burst: Option<FileKey>,
    shares: Option<FileKey>,
    limit: Option<FileKey>,
    swap_limit: Option<FileKey>,
    soft_limit: Option<FileKey>,
    pids: Option<FileKey>,
}

#[derive(Debug)]
struct V2Spec {
    cpu: Option<FileKey>,
    burst: Option<FileKey>,
    weight: Option<FileKey>,
    max: Option<FileKey>,
    swap_max: Option<FileKey>,
    low: Option<FileKey>,
    high: Option<FileKey>,
    min: Option<FileKey>,
    pids: Option<FileKey>,
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let Setup { layout, reader, .. } = setup;
    let mut register = |controller, name| reader.register(layout.tree_for(controller)?, name, Pace::Slow);
    if layout.hierarchy == Hierarchy::V2 {
        return Some(Box::new(V2Spec {
            cpu: register("cpu", "cpu.max"),
            burst: register("cpu", "cpu.max.burst"),
            weight: register("cpu", "cpu.weight"),
            max: register("memory", "memory.max"),
            swap_max: register("memory", "memory.swap.max"),
            low: register("memory", "memory.low"),
            high: register("memory", "memory.high"),
            min: register("memory", "memory.min"),
            pids: register("pids", "pids.max"),
        }));
    }
    Some(Box::new(V1Spec {
        period: register("cpu", "cpu.cfs_period_us"),
        quota: register("cpu", "cpu.cfs_quota_us"),
        burst: register("cpu", "cpu.cfs_burst_us"),
        shares: register("cpu", "cpu.shares"),
        limit: register("memory", "memory.limit_in_bytes"),
        swap_limit: register("memory", "memory.memsw.limit_in_bytes"),
        soft_limit: register("memory", "memory.soft_limit_in_bytes"),
        pids: register("pids", "pids.max"),
    }))
}

/// The root is limited by the machine.
fn of_root(cx: &Context<'_>, spec: &mut Spec) {
    spec.memory_limit = cx.machine.memory_bytes.map(|v| Limit::Value(v.get()));
    spec.memory_swap_limit = cx.machine.swap_bytes.map(|v| Limit::Value(v.get()));
}

impl Collector for V1Spec {
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        if node.slow || node.spec_changed {
            let mut spec = Spec {
                cpu_period_usec: cx.file(node, self.period, parse::number)?.and_then(reading),
                cpu_quota_usec: cx.file(node, self.quota, parse::limit)?,
                cpu_burst_usec: cx.file(node, self.burst, parse::number)?.and_then(reading),
                cpu_shares: cx.file(node, self.shares, parse::number)?.and_then(reading),
                memory_limit: cx.file(node, self.limit, parse::limit)?,
                memory_swap_limit: cx.file(node, self.swap_limit, parse::limit)?,
                memory_reservation: cx.file(node, self.soft_limit, parse::limit)?,
                threads_max: cx.file(node, self.pids, parse::limit)?,
                ..Spec::default()
            };
            if node.is_root() {
                of_root(cx, &mut spec);
            }
            node.spec = spec;
            node.spec_changed = false;
        }
        row.spec = node.spec;
        Ok(())
    }
}

impl Collector for V2Spec {
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        if node.slow || node.spec_changed {
            let cpu = cx.file(node, self.cpu, parse::cpu_max)?;
            let mut spec = Spec {
                cpu_period_usec: cpu.and_then(|(_, period)| reading(period)),
                cpu_quota_usec: cpu.map(|(quota, _)| quota),
                cpu_burst_usec: cx.file(node, self.burst, parse::number)?.and_then(reading),
                cpu_weight: cx.file(node, self.weight, parse::number)?.and_then(reading),
                memory_limit: cx.file(node, self.max, parse::limit)?,
                memory_swap_limit: cx.file(node, self.swap_max, parse::limit)?,
                memory_reservation: cx.file(node, self.low, parse::limit)?,
                memory_high: cx.file(node, self.high, parse::limit)?,
                memory_min: cx.file(node, self.min, parse::limit)?,
                threads_max: cx.file(node, self.pids, parse::limit)?,
                ..Spec::default()
            };
            if node.is_root() {
                of_root(cx, &mut spec);
            }
            node.spec = spec;
            node.spec_changed = false;
        }
        row.spec = node.spec;
        Ok(())
    }
}
