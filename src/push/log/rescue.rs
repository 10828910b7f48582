//! What can still be had of a file that was set aside, without the database.
//!
//! redb refuses a file as soon as one page on the way to the others is bad. But
//! each piece of a payload says of which step it is, and each row of a sink of
//! which sink, with a checksum and behind a mark: so the file is read from end to
//! end for marks. Pages that are no longer in use have some as well: of steps
//! that are done with, which the cursors know, and of older cursors, which have
//! a smaller number.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use redb::StorageBackend;

use super::cursor::{self, Cursor};
use super::disk::{CHUNK, PAGE, checksum, length, pieces};

/// Before each piece of a payload, and its head with the mark.
const MARK: [u8; 8] = *b"\x93ngstep\n";
pub(super) const HEAD: usize = 44;

/// Bytes that are looked through at once, and how far a record may reach beyond.
const BLOCK: u64 = 1 << 20;
const REACH: u64 = 64 << 10;

/// What a piece says of its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Whole {
    pub(super) sequence: u64,
    pub(super) time_ms: u64,
    /// Of the payload.
    pub(super) bytes: u64,
    /// Of the payload.
    pub(super) sum: u32,
}

impl Whole {
    /// A piece of the payload as it lies in the file.
    pub(super) fn piece(&self, place: u32, piece: &[u8]) -> Vec<u8> {
        let mut record = Vec::with_capacity(HEAD + piece.len());
        record.extend(MARK);
        record.extend([self.sequence, self.time_ms, self.bytes].map(u64::to_le_bytes).as_flattened());
        record.extend([self.sum, place, self.head_sum(place, piece)].map(u32::to_le_bytes).as_flattened());
        record.extend(piece);
        record
    }

    fn head_sum(&self, place: u32, piece: &[u8]) -> u32 {
        let words = [self.sequence, self.time_ms, self.bytes, self.sum.into(), place.into()];
        let words = words.map(u64::to_le_bytes);
        checksum([words.as_flattened(), piece])
    }

    /// The piece at the beginning of these bytes: of what, and its place.
    fn find(bytes: &[u8]) -> Option<(Whole, u32)> {
        let mut head = bytes.strip_prefix(&MARK)?.get(..HEAD - MARK.len())?;
        let (sequence, time_ms, length) = (head.get_u64_le(), head.get_u64_le(), head.get_u64_le());
        let (sum, place, head_sum) = (head.get_u32_le(), head.get_u32_le(), head.get_u32_le());
        let whole = Whole { sequence, time_ms, bytes: length, sum };
        let piece = bytes.get(HEAD..HEAD + whole.piece_len(place)?)?;
        (whole.head_sum(place, piece) == head_sum).then_some((whole, place))
    }

    /// Length of the piece at a place, where there is one.
    fn piece_len(&self, place: u32) -> Option<usize> {
        let before = u64::from(place).checked_mul(u64::try_from(CHUNK).ok()?)?;
        let rest = self.bytes.checked_sub(before).filter(|_| place < pieces(self.bytes))?;
        Some(usize::try_from(rest).ok()?.min(CHUNK))
    }
}

/// Where the pieces of the steps in a file are, and the cursors.
#[derive(Debug)]
pub(super) struct Rescue {
    file: Arc<dyn StorageBackend>,
    file_len: u64,
    /// Step → place → offset of the record.
    found: BTreeMap<Whole, BTreeMap<u32, u64>>,
    cursors: BTreeMap<Arc<str>, Cursor>,
}

impl Rescue {
    /// Looks through a file.
    ///
    /// # Errors
    /// Its length cannot be told.
    pub(super) fn of(file: Arc<dyn StorageBackend>) -> io::Result<Rescue> {
        let file_len = file.len()?;
        let mut rescue = Rescue { file, file_len, found: BTreeMap::new(), cursors: BTreeMap::new() };
        let (mut offset, mut block) = (0, Vec::new());
        while offset < file_len {
            rescue.read(offset, BLOCK + REACH, &mut block);
            for (place, _) in (0..BLOCK).zip(&block).filter(|(_, byte)| **byte == MARK[0]) {
                let at = usize::try_from(place).unwrap_or(usize::MAX);
                rescue.look(offset + place, block.get(at..).unwrap_or_default());
            }
            offset += BLOCK;
        }
        Ok(rescue)
    }

    fn look(&mut self, offset: u64, bytes: &[u8]) {
        if let Some((whole, place)) = Whole::find(bytes) {
            self.found.entry(whole).or_default().insert(place, offset);
        } else if bytes.starts_with(&cursor::MARK)
            && let Some(cursor) = Cursor::find(bytes)
        {
            let known = self.cursors.get(&cursor.name);
            if known.is_none_or(|known| known.written < cursor.written) {
                self.cursors.insert(Arc::clone(&cursor.name), cursor);
            }
        }
    }

    /// Reads up to `length` bytes; what cannot be read is zeros.
    fn read(&self, offset: u64, length: u64, block: &mut Vec<u8>) {
        let there = self.file_len.saturating_sub(offset).min(length);
        block.clear();
        block.resize(usize::try_from(there).unwrap_or(0), 0);
        if self.file.read(offset, block).is_err() {
            let page_len = usize::try_from(PAGE).unwrap_or(usize::MAX);
            for (page, at) in block.chunks_mut(page_len).zip((offset..).step_by(page_len)) {
                if self.file.read(at, page).is_err() {
                    page.fill(0);
                }
            }
        }
    }

    /// The cursors, as they were last written where that is still there.
    pub(super) fn cursors(&self) -> Vec<Cursor> {
        self.cursors.values().cloned().collect()
    }

    /// The steps of which every piece is there.
    pub(super) fn steps(&self) -> impl Iterator<Item = &Whole> {
        self.found.iter().filter(is_whole).map(|(whole, _)| whole)
    }

    /// Above every sequence of which there is a trace.
    pub(super) fn next(&self) -> u64 {
        self.found.last_key_value().map_or(0, |(whole, _)| whole.sequence.saturating_add(1))
    }

    /// The payload of a step, if it is what was written.
    pub(super) fn payload(&self, sequence: u64, time_ms: u64) -> Option<Bytes> {
        let first = Whole { sequence, time_ms, bytes: 0, sum: 0 };
        let last = Whole { bytes: u64::MAX, sum: u32::MAX, ..first };
        let (whole, places) = self.found.range(first..=last).find(is_whole)?;
        let mut payload = Vec::new();
        let mut piece = Vec::new();
        for (place, offset) in places {
            let head = u64::try_from(HEAD).unwrap_or(u64::MAX);
            let there = u64::try_from(whole.piece_len(*place)?).ok()?;
            self.read(offset + head, there, &mut piece);
            payload.extend_from_slice(&piece);
        }
        let whole = length(&payload) == whole.bytes && checksum([&payload]) == whole.sum;
        whole.then(|| Bytes::from(payload))
    }
}

/// Whether every piece of a step was found.
fn is_whole((whole, places): &(&Whole, &BTreeMap<u32, u64>)) -> bool {
    u32::try_from(places.len()).is_ok_and(|count| count == pieces(whole.bytes))
}
