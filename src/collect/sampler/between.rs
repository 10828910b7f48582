//! What the sampler does between ticks: it notices cgroups that come and go, reads
//! containers that are young, and a last time those whose processes have ended.
//!
//! Each of these is short, so that a tick is never late for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Sampler, reads, wall_ms};
use crate::collect::departures::Gone;
use crate::collect::{Context, Depth, Vanished};
use crate::kernel::tree::Occasion;
use crate::snapshot::{CgroupSample, Snapshot};

impl Sampler {
    /// Notices cgroups that are new, without reading their figures, so that their
    /// names are asked for before the next tick.
    pub fn look(&mut self) {
        self.look_at_ends();
        if self.tree.has_news() {
            self.update_tree(Occasion::Look);
            self.depart(Instant::now(), wall_ms());
        }
    }

    /// Reads containers whose last process has ended a last time.
    pub fn look_at_ends(&mut self) {
        let Some(ends) = &mut self.ends else { return };
        let mut changed = std::mem::take(&mut self.changed);
        ends.drain(|id, cgroup| changed.push((id, Arc::clone(cgroup))));
        for (id, cgroup) in changed.drain(..) {
            let Some(node) = self.tree.node(&self.layout, id, &cgroup.path) else { continue };
            let ended =
                |ends: &mut crate::kernel::ends::Ends| ends.has_ended(&self.layout, &mut self.reader, node);
            if !self.ends.as_mut().is_some_and(ended) {
                continue;
            }
            let now = Instant::now();
            if !self.young.budget().allows(now, true) {
                self.report.between.skipped += 1;
                continue;
            }
            let last = || {
                let before = self.departures.last_row(&cgroup.path).filter(|_| id < self.ticked);
                before.cloned().unwrap_or_else(|| CgroupSample::new(Arc::clone(&cgroup)))
            };
            self.young.ends(id, now, last, wall_ms());
            self.glance(id, Some(Depth::Whole));
            self.report.between.last += 1;
        }
        self.changed = changed;
    }

    /// When there is something to read before the next tick.
    pub fn next_due(&self) -> Option<Instant> {
        self.young.next_due()
    }

    /// Reads young containers whose time has come, for no longer than this and one more.
    pub fn between(&mut self, limit: Duration) {
        let began = Instant::now();
        while let Some(id) = self.young.take_due(Instant::now()) {
            let now = Instant::now();
            let told = if self.young.budget().allows(now, false) {
                self.report.between.early += 1;
                self.glance(id, None)
            } else {
                self.report.between.skipped += 1;
                true
            };
            self.young.again(id, Instant::now(), told);
            if began.elapsed() >= limit {
                return;
            }
        }
    }

    /// Reads one container into its row; whether the kernel will tell of its end.
    fn glance(&mut self, id: u64, depth: Option<Depth>) -> bool {
        self.young.budget().begin();
        let told = self.read_one(id, depth);
        self.young.budget().end();
        told
    }

    fn read_one(&mut self, id: u64, depth: Option<Depth>) -> bool {
        let Some((early, own_depth)) = self.young.get_mut(id) else { return false };
        let depth = depth.unwrap_or(own_depth);
        let path = &early.row.cgroup.path;
        let Some(node) = self.tree.node(&self.layout, id, path) else { return false };
        if let Some(ends) = &mut self.ends {
            ends.watch(&self.layout, node);
        }
        let before = early.row.cpu.usage_ns;
        let mut gone = false;
        for ((kinds, collector), report) in self.collectors.iter_mut().zip(&mut self.report.collectors) {
            if !reads(kinds, self.wanted) {
                continue;
            }
            let mut cx = Context {
                reader: &mut self.reader,
                layout: &self.layout,
                roots: &self.roots,
                machine: &self.machine,
                previous: None,
                errors: &mut report.errors,
            };
            gone |= collector.glance(&mut cx, node, &mut early.row, depth) == Err(Vanished);
        }
        // Of what vanished meanwhile the CPU may have been read.
        if !gone || early.row.cpu.usage_ns != before {
            early.seen_ms = wall_ms();
        }
        node.end_is_told
    }

    /// Takes note of what the tree found: new containers are young, and all are watched.
    pub(super) fn notice(&mut self) {
        let new = self.noticed.replace(self.tree.next_id());
        let (now, wall_ms) = (Instant::now(), wall_ms());
        for node in self.tree.nodes.iter_mut().filter(|node| node.whole) {
            if let Some(ends) = &mut self.ends {
                ends.watch(&self.layout, node);
            }
            // What was there at the first look is not new.
            if new.is_some_and(|new| node.id >= new) {
                self.young.found(node.id, &node.cgroup, now, wall_ms);
            }
        }
        for removed in &self.tree.removed {
            if let Some(ends) = &mut self.ends {
                ends.forget(removed.id);
            }
        }
    }

    /// Keeps the last rows of what the tree found gone.
    pub(super) fn depart(&mut self, at: Instant, gone_ms: u64) {
        for removed in &self.tree.removed {
            let gone = Gone {
                cgroup: &removed.cgroup,
                ticked: removed.id < self.ticked,
                early: self.young.take(removed.id),
                whole: removed.whole,
                waits: removed.waits,
            };
            self.departures.add(gone, at, gone_ms);
        }
        self.departures.name(&mut *self.namer, at);
    }

    /// Says what became of the last tick's snapshot, so that the rows of what
    /// vanishes next can be taken from it.
    pub fn published(&mut self, snapshot: &Arc<Snapshot>) {
        self.departures.published(snapshot);
        self.young.published(snapshot);
    }
}
