//! A window as it is written down: as it lies in memory, since that is small already.
//! What is read is not believed: it is put together again or refused as a whole.

use std::sync::Arc;

use super::flat::{Flat, Layout};
use super::{Column, Keys, Packed, Step, Window};

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
        let numbered = |layout: &Layout| -> Vec<u32> {
            layout.columns.iter().flat_map(|(id, set)| [u32::from(*id), u32::from(*set)]).collect()
        };
        let newest = self.newest.iter().map(|flat| SavedStep {
            time_ms: flat.time_ms,
            sets: numbers(&flat.layout.sets),
            columns: numbered(&flat.layout),
            values: flat.open(|_| true).columns.into_iter().flat_map(|c| c.values).collect(),
            ..SavedStep::default()
        });
        let mut steps: Vec<SavedStep> = newest.collect();
        steps.extend(self.older.iter().map(|packed| SavedStep {
            time_ms: packed.time_ms,
            sets: numbers(&packed.layout.sets),
            columns: numbered(&packed.layout),
            starts: packed.starts.to_vec(),
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
                window.newest = Some(Flat::new(&Step { time_ms, sets, columns }, None));
                continue;
            }
            if columns.len() != step.starts.len() {
                return None;
            }
            let columns = columns.iter().map(|(id, set, _)| (*id, *set)).collect();
            let (layout, newest) = (Layout { sets: sets.into(), columns }, window.newest.as_ref());
            let near = window.older.back().map(|packed| &packed.layout).or(newest.map(|flat| &flat.layout));
            let layout = match near.filter(|near| ***near == layout) {
                Some(near) => Arc::clone(near),
                None => Arc::new(layout),
            };
            let (starts, bytes) = (step.starts.into(), step.bytes.into());
            window.older.push_back(Packed { time_ms, layout, starts, bytes });
        }
        window.older.truncate(window.most - 1);
        Some(window)
    }
}
