//! A window as it is written down: as it lies in memory, since that is small already.
//! What is read is not believed: it is put together again or refused as a whole.

use std::sync::Arc;

use super::{Column, Head, Keys, Packed, Step, Window};

/// A window as it is written down.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SavedWindow {
    /// Row sets that steps name by index.
    #[prost(message, repeated, tag = "1")]
    sets: Vec<SavedKeys>,
    /// From new to old.
    #[prost(message, repeated, tag = "2")]
    steps: Vec<SavedStep>,
}

/// A row set.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SavedKeys {
    /// From each key to the next.
    #[prost(uint64, repeated, tag = "1")]
    distances: Vec<u64>,
}

/// A step: the newest with its values, others packed.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SavedStep {
    #[prost(uint64, tag = "1")]
    time_ms: u64,
    #[prost(uint32, repeated, tag = "2")]
    sets: Vec<u32>,
    /// Metric and row set of each column.
    #[prost(uint32, repeated, tag = "3")]
    columns: Vec<u32>,
    #[prost(uint64, repeated, tag = "4")]
    values: Vec<u64>,
    #[prost(uint32, repeated, tag = "5")]
    starts: Vec<u32>,
    #[prost(bytes = "vec", tag = "6")]
    bytes: Vec<u8>,
}

impl Window {
    /// As it lies in memory, to be written down.
    pub(in crate::aggregate) fn save(&self) -> SavedWindow {
        let mut saved = SavedWindow::default();
        let mut known: Vec<Keys> = Vec::new();
        let mut numbers = |sets: &[Keys]| -> Vec<u32> {
            let number = |keys: &Keys| {
                let found = known.iter().position(|k| Arc::ptr_eq(k, keys));
                let at = found.unwrap_or_else(|| {
                    let mut last = 0;
                    let distances =
                        keys.iter().map(|key| key.wrapping_sub(std::mem::replace(&mut last, *key)));
                    saved.sets.push(SavedKeys { distances: distances.collect() });
                    known.push(Arc::clone(keys));
                    known.len() - 1
                });
                u32::try_from(at).unwrap_or(u32::MAX)
            };
            sets.iter().map(number).collect()
        };
        let newest = self.newest.iter().map(|step| SavedStep {
            time_ms: step.time_ms,
            sets: numbers(&step.sets),
            columns: step.columns.iter().flat_map(|c| [u32::from(c.id), u32::from(c.set)]).collect(),
            values: step.columns.iter().flat_map(|c| c.values.iter().copied()).collect(),
            ..SavedStep::default()
        });
        let mut steps: Vec<SavedStep> = newest.collect();
        steps.extend(self.older.iter().map(|packed| SavedStep {
            time_ms: packed.time_ms,
            sets: numbers(&packed.sets),
            columns: packed.heads.iter().flat_map(|h| [u32::from(h.id), u32::from(h.set)]).collect(),
            starts: packed.heads.iter().map(|h| h.start).collect(),
            bytes: packed.bytes.to_vec(),
            ..SavedStep::default()
        }));
        saved.steps = steps;
        saved
    }

    /// What was written down, in room for `most` steps; `None` if it cannot have been.
    pub(in crate::aggregate) fn restore(saved: SavedWindow, most: usize) -> Option<Window> {
        let keys = |saved: SavedKeys| -> Option<Keys> {
            let mut last = None;
            let ascending = saved.distances.iter().map(|distance| {
                let key = last.map_or(Some(*distance), |last: u64| last.checked_add(*distance))?;
                let rises = last.is_none_or(|last| last < key);
                last = Some(key);
                rises.then_some(key)
            });
            ascending.collect::<Option<Vec<_>>>().map(Keys::from)
        };
        let known: Vec<Keys> = saved.sets.into_iter().map(keys).collect::<Option<_>>()?;
        let mut window = Window::new(most);
        let mut last = u64::MAX;
        for (at, step) in saved.steps.into_iter().enumerate() {
            let time_ms = step.time_ms;
            if time_ms >= std::mem::replace(&mut last, time_ms) {
                return None;
            }
            let set = |number: &u32| known.get(usize::try_from(*number).ok()?).cloned();
            let sets: Vec<Keys> = step.sets.iter().map(set).collect::<Option<_>>()?;
            let mut columns = Vec::with_capacity(step.columns.len() / 2);
            for pair in step.columns.chunks(2) {
                let [id, set] = pair else { return None };
                let (id, set) = (u16::try_from(*id).ok()?, u16::try_from(*set).ok()?);
                let rises = columns.last().is_none_or(|(last, ..): &(u16, u16, usize)| *last < id);
                let rows = sets.get(usize::from(set)).filter(|_| rises)?.len();
                columns.push((id, set, rows));
            }
            if at == 0 {
                let mut values = step.values.into_iter();
                let column = |(id, set, rows): &(u16, u16, usize)| {
                    let values: Vec<u64> = values.by_ref().take(*rows).collect();
                    (values.len() == *rows).then_some(Column { id: *id, set: *set, values })
                };
                let columns = columns.iter().map(column).collect::<Option<_>>()?;
                window.newest = Some(Step { time_ms, sets, columns });
                continue;
            }
            if columns.len() != step.starts.len() {
                return None;
            }
            let heads = columns.iter().zip(&step.starts).map(|((id, set, _), start)| Head {
                id: *id,
                set: *set,
                start: *start,
            });
            let (heads, bytes) = (heads.collect(), step.bytes.into());
            window.older.push_back(Packed { time_ms, sets: sets.into(), heads, bytes });
        }
        window.older.truncate(window.most - 1);
        Some(window)
    }
}
