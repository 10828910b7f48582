//! How far a sink is.

use std::sync::Arc;

use super::REASONS;
use super::disk::checksum;
use super::ranges::Ranges;

/// Before each row in the file.
pub(super) const MARK: [u8; 8] = *b"\x93ngsink\n";

/// The place of a reason in `REASONS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// What it was given last and may have sent by now. It stays while there is
    /// anything else to drop: else it would be counted as lost, and arrive.
    pub(super) held: Option<u64>,
    /// Since when it is no longer configured, milliseconds since the epoch.
    pub(super) absent_since: Option<u64>,
    /// Steps dropped before it had them, in the order of `REASONS`. In the file
    /// too, so that what a kill finds missing there is counted there.
    pub(super) dropped: [u64; REASONS.len()],
    /// How often it was put into a row: the largest number is the newest row.
    pub(super) written: u64,
    /// Whether the file has another state of it.
    pub(super) dirty: bool,
}

impl Cursor {
    pub(super) fn new(name: Arc<str>, first: u64) -> Cursor {
        Cursor {
            name,
            first,
            acknowledged: Ranges::default(),
            held: None,
            absent_since: None,
            dropped: [0; REASONS.len()],
            written: 0,
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

    /// Counts a step that it was owed and is owed no more: what it is owed is
    /// what there is, so that a damaged file shows what it lost.
    pub(super) fn give_up(&mut self, sequence: u64, reason: Reason) {
        self.count(reason);
        self.acknowledged.insert(sequence);
    }

    /// Forgets all below the oldest step there is.
    pub(super) fn forget_below(&mut self, oldest: u64) {
        self.acknowledged.forget_below(oldest);
        if self.first < oldest {
            self.first = oldest;
            self.dirty = true;
        }
    }

    /// The row in the file: mark, checksum and length of the rest; then numbers of
    /// eight bytes each: how often it was written, three of its own, the counts of
    /// what was dropped, how many pairs, the pairs; then its name.
    pub(super) fn encode(&mut self) -> Vec<u8> {
        self.written = self.written.saturating_add(1);
        let absent = self.absent_since.map_or([0, 0], |since| [1, since]);
        let pairs = self.acknowledged.iter().flat_map(|(first, last)| [first, last]);
        let pairs: Vec<u64> = pairs.collect();
        let count = u64::try_from(pairs.len() / 2).unwrap_or(u64::MAX);
        let numbers = [self.written, self.first].into_iter().chain(absent).chain(self.dropped);
        let numbers = numbers.chain([count]).chain(pairs);
        let mut rest: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
        rest.extend_from_slice(self.name.as_bytes());
        let mut row = MARK.to_vec();
        row.extend(checksum([&rest]).to_le_bytes());
        row.extend(u32::try_from(rest.len()).unwrap_or(u32::MAX).to_le_bytes());
        row.extend(rest);
        row
    }

    /// The row at the beginning of these bytes.
    pub(super) fn find(bytes: &[u8]) -> Option<Cursor> {
        let (sum, bytes) = bytes.strip_prefix(&MARK)?.split_first_chunk()?;
        let (count, bytes) = bytes.split_first_chunk()?;
        let rest = bytes.get(..usize::try_from(u32::from_le_bytes(*count)).ok()?)?;
        if u32::from_le_bytes(*sum) != checksum([rest]) {
            return None;
        }
        let (words, _) = rest.as_chunks::<8>();
        let numbers: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let [written, first, absent, since, more @ ..] = numbers.as_slice() else { return None };
        let (dropped, more) = more.split_first_chunk()?;
        let (count, more) = more.split_first()?;
        let (pairs, _) = more.as_chunks::<2>();
        let pairs = pairs.get(..usize::try_from(*count).ok()?)?;
        let name = rest.get(8 * (5 + REASONS.len() + 2 * pairs.len())..)?;
        Some(Cursor {
            first: *first,
            acknowledged: Ranges::of(pairs.iter().map(|[first, last]| (*first, *last)))?,
            absent_since: (*absent == 1).then_some(*since),
            dropped: *dropped,
            written: *written,
            dirty: false,
            ..Cursor::new(std::str::from_utf8(name).ok()?.into(), 0)
        })
    }

    /// A row of the file; `None` when it is none, or that of another sink.
    pub(super) fn decode(name: &str, row: &[u8]) -> Option<Cursor> {
        Cursor::find(row).filter(|cursor| &*cursor.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_back_and_nothing_else_is() {
        let mut cursor = Cursor::new("db".into(), 7);
        cursor.absent_since = Some(9);
        for sequence in [8, 9, 12] {
            cursor.acknowledged.insert(sequence);
        }
        cursor.give_up(20, Reason::Damaged);
        let row = cursor.encode();
        let mut longer = row.clone();
        longer.extend(b"what follows in the file");
        let same = Cursor::find(&longer).unwrap();
        assert_eq!((same.first, same.written, same.absent_since), (7, 1, Some(9)));
        assert_eq!((&same.acknowledged, same.dropped), (&cursor.acknowledged, cursor.dropped));
        assert!(Cursor::decode("db", &row).is_some() && Cursor::decode("other", &row).is_none());
        for at in 0..row.len() {
            let mut bad = row.clone();
            bad[at] ^= 1;
            assert!(Cursor::find(&bad).is_none() && Cursor::find(&row[..at]).is_none(), "{at}");
        }
    }
}
