//! What databases get of a node's slot: every row as it lies there.

use std::collections::HashSet;

use super::{Entity, Node, Run, window_of};
use crate::aggregate::window::Step;
use crate::push::batch::{Metric, metric};

/// What a slot was made from: how many pushes, and which, in any order. That the slot
/// before is there counts as one, since that is where it is known from who has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Version {
    /// How many.
    pub pushes: u32,
    /// The sum of their hashes.
    pub digest: u64,
}

impl Version {
    /// The slot before is there.
    fn follow(mut self) -> Version {
        self.pushes = self.pushes.saturating_add(1);
        self.digest = self.digest.wrapping_add(crate::push::delivery::hash(*b"the slot before"));
        self
    }

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
    /// Of a container: what its runtime called it then.
    pub run: Option<&'a Run>,
    /// It was in the slot before and is not in this one; its values are of that.
    pub ended: bool,
    /// In the order of the metrics' numbers.
    pub values: &'a [Raw<'a>],
}

impl Node {
    /// What its slots were made from, in no order.
    pub fn versions(&self) -> impl Iterator<Item = (u64, Version)> {
        self.versions.iter().map(|(slot, version)| {
            let before = slot.checked_sub(self.resolution_ms);
            let follows = self.window.times().any(|time| Some(time) == before);
            (*slot, if follows { version.follow() } else { *version })
        })
    }

    /// Hands every entity of a slot to `each` in the order of keys, then those that
    /// were in the slot before and are not in this one, or not as the same run.
    pub fn rows_at(&self, slot: u64, mut each: impl FnMut(&Row<'_>)) {
        let Some(step) = self.window.at(slot) else { return };
        let here = self.rows_of(&step, |_| true, false, &mut each);
        let before = slot.checked_sub(self.resolution_ms).and_then(|before| self.window.at(before));
        if let Some(before) = before {
            let goes_on = |number: u32| {
                let run = self.entity(number).and_then(|entity| entity.run.as_deref());
                let another = run.is_some_and(|run| run.at(before.time_ms).differs(run.at(slot)));
                here.contains(&number) && !another
            };
            self.rows_of(&before, |number| !goes_on(number), true, &mut each);
        }
    }

    fn rows_of(
        &self,
        step: &Step,
        wanted: impl Fn(u32) -> bool,
        ended: bool,
        each: &mut impl FnMut(&Row<'_>),
    ) -> HashSet<u32> {
        // One list of all, sorted once: as many lists as entities would each be made room for.
        let mut of: Vec<(u32, Raw<'_>)> = Vec::new();
        for column in &step.columns {
            let Some(metric) = metric(i32::from(column.id)) else { continue };
            let keys = step.sets.get(usize::from(column.set)).map_or(&[][..], |keys| keys);
            for (key, bits) in keys.iter().zip(&column.values) {
                let (Some(label), Ok(number)) = (self.labels.text(*key), u32::try_from(key >> 32)) else {
                    continue;
                };
                if wanted(number) && !(metric.is_rate() && window_of(step, *key).is_none()) {
                    of.push((number, Raw { metric, label, bits: *bits }));
                }
            }
        }
        of.sort_by_key(|(number, _)| *number);
        let mut found: Vec<_> = of
            .chunk_by(|(a, _), (b, _)| a == b)
            .filter_map(|of| {
                let (number, _) = of.first()?;
                Some((*number, self.entity(*number)?, of))
            })
            .collect();
        found.sort_by(|(_, a, _), (_, b, _)| a.key.cmp(&b.key));
        let mut values = Vec::new();
        for (number, entity, of) in &found {
            values.clear();
            values.extend(of.iter().map(|(_, raw)| *raw));
            let window_ns = window_of(step, u64::from(*number) << 32).filter(|ns| *ns > 0);
            let run = entity.run.as_deref().map(|run| run.at(step.time_ms));
            each(&Row { entity, window_ns, run, ended, values: &values });
        }
        found.into_iter().map(|(number, ..)| number).collect()
    }
}
