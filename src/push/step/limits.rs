//! What a step may carry at most. Everything is cut in a sorted order, so that
//! the same things are left out step after step, and everything left out is
//! counted by reason.

use crate::identity::model::Labels;
use crate::push::batch::{Assembler, DropReason};

/// Caps on what one step carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entities. Those beyond are left out: the last containers by namespace,
    /// pod and name first.
    pub entities: usize,
    /// Values of all entities. Entities that do not fit are left out.
    pub values: usize,
    /// Labels of one entity. The last by key are left out.
    pub labels: usize,
    /// Bytes of a label's key. Labels with a longer one are left out, since a
    /// shortened key would be another key.
    pub label_key: usize,
    /// Bytes of a label's value, and of names and images. Longer ones are cut.
    pub label_value: usize,
    /// Bytes of all names and labels. Labels that do not fit are left out, and
    /// entities once none does.
    pub text: usize,
    /// Devices and filesystems of one entity. The last by name are left out.
    pub devices: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // A key in Kubernetes has at most 253 + 1 + 63 bytes.
        Limits {
            entities: 10_000,
            values: 400_000,
            labels: 64,
            label_key: 317,
            label_value: 1_024,
            text: 8 << 20,
            devices: 64,
        }
    }
}

impl Limits {
    /// The longest beginning of a text that is allowed.
    pub(crate) fn cut<'t>(&self, text: &'t str, drops: &mut Drops) -> &'t str {
        if text.len() <= self.label_value {
            return text;
        }
        drops.label_values += 1;
        let end = (0..=self.label_value).rev().find(|at| text.is_char_boundary(*at));
        end.and_then(|end| text.get(..end)).unwrap_or("")
    }

    /// Labels as an entity of the batch has them.
    pub(crate) fn labels(
        &self,
        labels: Option<&Labels>,
        batch: &mut Assembler,
        drops: &mut Drops,
    ) -> Vec<u32> {
        let Some(labels) = labels else { return Vec::new() };
        let mut pairs = Vec::with_capacity(labels.len().min(self.labels) * 2);
        for (key, value) in labels.iter() {
            if key.is_empty() || key.len() > self.label_key {
                drops.label_keys += 1;
            } else if pairs.len() >= self.labels * 2 || batch.text() >= self.text {
                drops.labels += 1;
            } else {
                pairs.push(batch.string(key));
                pairs.push(batch.string(self.cut(value, drops)));
            }
        }
        pairs
    }
}

/// What the limits kept out of one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Drops {
    pub(crate) entities: u64,
    pub(crate) series: u64,
    pub(crate) labels: u64,
    pub(crate) label_keys: u64,
    pub(crate) label_values: u64,
    pub(crate) devices: u64,
}

impl Drops {
    /// Writes them into the batch.
    pub(crate) fn tell(&self, batch: &mut Assembler) {
        batch.dropped(DropReason::Entities, self.entities);
        batch.dropped(DropReason::Series, self.series);
        batch.dropped(DropReason::Labels, self.labels);
        batch.dropped(DropReason::LabelKey, self.label_keys);
        batch.dropped(DropReason::LabelValue, self.label_values);
        batch.dropped(DropReason::Devices, self.devices);
    }
}
