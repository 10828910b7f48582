//! What databases get of a node's slot: every row as it lies there.

use std::collections::{BTreeMap, HashSet};

use super::{Entity, Node, window_of};
use crate::aggregate::window::Step;
use crate::push::batch::{Metric, metric};

/// What a slot was made from: how many pushes, and which, in any order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Version {
    /// How many.
    pub pushes: u32,
    /// The sum of their hashes.
    pub digest: u64,
}

impl Version {
    /// Takes in a push, by the agent's boot id and its sequence.
    pub(super) fn add(&mut self, (boot, sequence): ([u8; 16], u64)) {
        let bytes = boot.into_iter().chain(sequence.to_le_bytes());
        self.pushes = self.pushes.saturating_add(1);
        self.digest = self.digest.wrapping_add(crate::push::delivery::hash(bytes));
    }
}

/// One value as it lies in a slot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Raw<'a> {
    /// What it is a value of.
    pub metric: &'static Metric,
    /// The value of the metric's label; empty where it has none.
    pub label: &'a str,
    /// An integer, the bits of a double, or of a rate the increase over the window.
    pub bits: u64,
}

/// One entity in a slot.
#[derive(Debug)]
pub struct Row<'a> {
    /// Who it is.
    pub entity: &'a Entity,
    /// Over what its rates were taken, nanoseconds.
    pub window_ns: Option<u64>,
    /// It was in the slot before and is not in this one; its values are of that.
    pub ended: bool,
    /// In the order of the metrics' numbers.
    pub values: &'a [Raw<'a>],
}

impl Node {
    /// What its slots were made from, in no order.
    pub fn versions(&self) -> impl Iterator<Item = (u64, Version)> {
        self.versions.iter().map(|(slot, version)| (*slot, *version))
    }

    /// Hands every entity of a slot to `each` in the order of keys, then those that
    /// were in the slot before and are not in this one.
    pub fn rows_at(&self, slot: u64, mut each: impl FnMut(&Row<'_>)) {
        let Some(step) = self.window.at(slot) else { return };
        let here = self.rows_of(&step, |_| true, false, &mut each);
        let before = slot.checked_sub(self.resolution_ms).and_then(|before| self.window.at(before));
        if let Some(before) = before {
            self.rows_of(&before, |number| !here.contains(&number), true, &mut each);
        }
    }

    fn rows_of(
        &self,
        step: &Step,
        wanted: impl Fn(u32) -> bool,
        ended: bool,
        each: &mut impl FnMut(&Row<'_>),
    ) -> HashSet<u32> {
        let mut of: BTreeMap<u32, Vec<Raw<'_>>> = BTreeMap::new();
        for column in &step.columns {
            let Some(metric) = metric(i32::from(column.id)) else { continue };
            let keys = step.sets.get(usize::from(column.set)).map_or(&[][..], |keys| keys);
            for (key, bits) in keys.iter().zip(&column.values) {
                let (Some(label), Ok(number)) = (self.labels.text(*key), u32::try_from(key >> 32)) else {
                    continue;
                };
                if wanted(number) && !(metric.is_rate() && window_of(step, *key).is_none()) {
                    of.entry(number).or_default().push(Raw { metric, label, bits: *bits });
                }
            }
        }
        let entity = |number: u32| self.entities.get(usize::try_from(number).ok()?)?.as_ref();
        let mut found: Vec<_> = of.iter().filter_map(|(n, of)| Some((*n, entity(*n)?, of))).collect();
        found.sort_by(|(_, a, _), (_, b, _)| a.key.cmp(&b.key));
        for (number, entity, values) in found {
            let window_ns = window_of(step, u64::from(number) << 32).filter(|ns| *ns > 0);
            each(&Row { entity, window_ns, ended, values });
        }
        of.into_keys().collect()
    }
}
