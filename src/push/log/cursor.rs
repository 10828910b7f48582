//! How far a sink is.

use std::sync::Arc;

use super::REASONS;
use super::ranges::Ranges;

/// The place of a reason in `REASONS`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reason {
    Size,
    Age,
    DiskFull,
    Memory,
    Damaged,
    TooLarge,
}

/// What the log knows of one sink.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    pub(super) name: Arc<str>,
    /// The first step it is owed: a new sink starts with the next one.
    pub(super) first: u64,
    /// What it has of those.
    pub(super) acknowledged: Ranges,
    /// Since when it is no longer configured, milliseconds since the epoch.
    pub(super) absent_since: Option<u64>,
    /// Steps dropped before it had them, in the order of `REASONS`. In the file
    /// too, so that what a kill finds missing there is counted there.
    pub(super) dropped: [u64; REASONS.len()],
    /// Whether the file has another state of it.
    pub(super) dirty: bool,
}

impl Cursor {
    pub(super) fn new(name: Arc<str>, first: u64) -> Cursor {
        Cursor {
            name,
            first,
            acknowledged: Ranges::default(),
            absent_since: None,
            dropped: [0; REASONS.len()],
            dirty: true,
        }
    }

    pub(super) fn is_owed(&self, sequence: u64) -> bool {
        sequence >= self.first && !self.acknowledged.contains(sequence)
    }

    /// Counts a step that it does not get.
    pub(super) fn count(&mut self, reason: Reason) {
        if let Some(dropped) = self.dropped.get_mut(reason as usize) {
            *dropped = dropped.saturating_add(1);
            self.dirty = true;
        }
    }

    /// The row in the file: three numbers, the counts of what was dropped, then
    /// pairs; eight bytes each.
    pub(super) fn encode(&self) -> Vec<u8> {
        let absent = self.absent_since.map_or([0, 0], |since| [1, since]);
        let numbers = [self.first].into_iter().chain(absent).chain(self.dropped);
        let pairs = self.acknowledged.iter().flat_map(|(first, last)| [first, last]);
        numbers.chain(pairs).flat_map(u64::to_le_bytes).collect()
    }

    /// `None` when it is no such row.
    pub(super) fn decode(name: &str, row: &[u8]) -> Option<Cursor> {
        let (words, rest) = row.as_chunks::<8>();
        let numbers: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let [first, absent, since, rows @ ..] = numbers.as_slice() else { return None };
        let (dropped, pairs) = rows.split_first_chunk()?;
        let (pairs, odd) = pairs.as_chunks::<2>();
        if !rest.is_empty() || !odd.is_empty() || *absent > 1 {
            return None;
        }
        let acknowledged = Ranges::of(pairs.iter().map(|[first, last]| (*first, *last)))?;
        let absent_since = (*absent == 1).then_some(*since);
        Some(Cursor {
            first: *first,
            acknowledged,
            absent_since,
            dropped: *dropped,
            dirty: false,
            ..Cursor::new(name.into(), 0)
        })
    }
}
