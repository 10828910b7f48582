//! What time brings: slots close and are summed, what is old or silent is forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::{Member, Model, SUMMED, Sums, lock, millis, read, write};
use crate::aggregate::node::{Change, Kind};
use crate::push::batch::{Metric, Value, metric};

/// For so many machines the sums of late slots are worked out again at most every
/// [`CROWD_MS`] milliseconds: about a tenth of the time that takes.
const CROWD: usize = 100;
const CROWD_MS: u64 = 200;

impl Model {
    /// Closes slots whose time has come, works sums out again, and forgets machines
    /// that have been silent too long. To be called often: about every second.
    pub fn tick(&self, now_ms: u64) {
        self.forget_silent(now_ms);
        // Before a slot is seen to be closed or no longer to be late.
        self.summing.store(true, Ordering::Release);
        if let Some(slot) = self.closable(now_ms) {
            let oldest = slot.saturating_sub(millis(self.options.kept));
            // A slot that no tick closed by itself is closed with this one.
            let before = self.closed.swap(slot, Ordering::AcqRel).max(oldest);
            let resolution = millis(self.options.resolution);
            let fresh: Vec<u64> =
                (0..(slot - before) / resolution).map(|back| slot - back * resolution).collect();
            lock(&self.late).retain(|late| !fresh.contains(late));
            self.sum(&fresh);
            write(&self.sums).retain(|time, _| *time > oldest);
            self.forget_slots(oldest);
            self.customs.forget(oldest);
        }
        self.sum_late(now_ms);
        self.summing.store(false, Ordering::Release);
    }

    /// Older slots have to be unpacked, of all machines: of many they wait a little
    /// for each other, since what is late comes in crowds, after a start.
    fn sum_late(&self, now_ms: u64) {
        if now_ms < self.late_due.load(Ordering::Acquire) {
            return;
        }
        let late: Vec<u64> = std::mem::take(&mut *lock(&self.late)).into_iter().collect();
        if !late.is_empty() {
            let crowd = u64::try_from(read(&self.nodes).len() / CROWD).unwrap_or(0);
            self.late_due.store(now_ms.saturating_add(crowd * CROWD_MS), Ordering::Release);
            self.sum(&late);
        }
    }

    /// What a machine that was silent for a while still has from before is too old,
    /// although there is room for it.
    fn forget_slots(&self, oldest: u64) {
        let members: Vec<_> = read(&self.nodes).values().cloned().collect();
        for member in members {
            let mut member = lock(&member);
            member.node.forget_before(oldest);
            let changes = member.node.changes();
            self.move_pods(&member.status.name, changes);
        }
        self.names.tidy();
    }

    /// The newest slot that may be closed now, if it is not closed yet.
    fn closable(&self, now_ms: u64) -> Option<u64> {
        let resolution = millis(self.options.resolution);
        // How long after its end a slot waits for machines that hang.
        let grace = (resolution / 4).max(2_000);
        let closed = self.closed.load(Ordering::Acquire);
        let began = self.began.load(Ordering::Acquire);
        let waited = now_ms.saturating_sub(began);
        let overdue = if waited < grace { 0 } else { now_ms.saturating_sub(grace) / resolution * resolution };
        let ended = now_ms / resolution * resolution;
        let (mut live, mut reported, mut any) = (0, 0, false);
        for member in read(&self.nodes).values() {
            let member = lock(member);
            any = true;
            if self.is_live(&member.status, now_ms) {
                live += 1;
                reported += usize::from(member.status.pushed_ms >= ended);
            }
        }
        let all = live > 0 && live == reported && waited >= 2 * resolution;
        let newest = if all { ended } else { overdue };
        (any && newest > closed).then_some(newest)
    }

    fn forget_silent(&self, now_ms: u64) {
        let kept = millis(self.options.kept);
        let silent = |m: &Arc<Mutex<Member>>| now_ms.saturating_sub(lock(m).status.heard_ms) > kept;
        if !read(&self.nodes).values().any(silent) {
            return;
        }
        let mut gone = Vec::new();
        write(&self.nodes).retain(|_, member| {
            let stays = !silent(member);
            if !stays {
                gone.push(Arc::clone(member));
            }
            stays
        });
        for member in gone {
            let member = lock(&member);
            let left = member
                .node
                .pods()
                .map(|(namespace, pod)| Change::Left(Arc::clone(namespace), Arc::clone(pod)));
            self.move_pods(&member.status.name, left.collect());
        }
        self.names.tidy();
    }

    pub(super) fn sum(&self, slots: &[u64]) {
        let mut by_slot: BTreeMap<u64, HashMap<Arc<str>, Sums>> =
            slots.iter().map(|s| (*s, HashMap::new())).collect();
        let metrics: Vec<&Metric> = SUMMED.iter().filter_map(|id| metric(*id as i32)).collect();
        let members: Vec<_> = read(&self.nodes).values().cloned().collect();
        for member in members {
            lock(&member).node.values_in(slots, &metrics, |slot, at, entity, value| {
                if entity.key.kind != Kind::Pod {
                    return;
                }
                let Value::Integer(value) = value else { return };
                let of_slot = by_slot.entry(slot).or_default();
                let sums = of_slot.entry(Arc::clone(&entity.key.namespace)).or_default();
                if let Some(sum) = sums.get_mut(at) {
                    *sum = Some(sum.unwrap_or(0).saturating_add(value));
                }
            });
        }
        write(&self.sums).append(&mut by_slot);
    }
}
