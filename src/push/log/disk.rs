//! The log's file: a redb database with a cap on its length.
//!
//! `steps` has a row for each step, `chunks` its payload in pieces that fill a
//! page each and say what they are (see `rescue`): a value in one piece would take the next power of two of pages,
//! and leave holes that only the same size fits. `sinks` has a row for each
//! sink, `state` a few numbers.
//!
//! Each change is one transaction, durable when it returns, with the state of
//! the allocator in it, so that opening after a kill reads no more than the rows.
//! Rows and payloads have checksums of their own, since reading checks no page.
//!
//! redb wants to be opened again after an I/O error and panics on some damage.
//! Both end here: after any failure the database is closed, and opened again by
//! the next call.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use flate2::Crc;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use thiserror::Error;

use super::medium::{Marks, Medium};
use super::rescue::{HEAD, Rescue, Whole};

/// Sequence → time, bytes and checksum of the payload, checksum of all these.
const STEPS: TableDefinition<'_, u64, RowValue> = TableDefinition::new("steps");
/// Sequence and place → a piece of the payload.
const CHUNKS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("chunks");
/// Name → `Cursor`, as bytes.
const SINKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sinks");
/// Word → number: `version`, and the `next` sequence.
const STATE: TableDefinition<'_, &str, u64> = TableDefinition::new("state");

/// Of the tables. A file of another version is set aside.
pub(super) const VERSION: u64 = 1;

/// Bytes redb may keep of the file in memory, which it does once it has seen that many: a step
/// is written once and read once, and the system has its pages.
const CACHE: usize = 512 << 10;

/// A page of redb, and what of it one piece may fill beside its head.
pub(super) const PAGE: u64 = 4096;
pub(super) const CHUNK: usize = 4032 - HEAD;

/// A failure of the file.
#[derive(Debug, Error)]
pub(super) enum DiskError {
    /// No room on the disk, or none below the cap.
    #[error("no room: {0}")]
    Full(String),
    /// What is in the file makes no sense.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Written by a program with other tables.
    #[error("version {0}, this program writes {VERSION}")]
    Version(u64),
    /// Anything else; it may pass.
    #[error("{0}")]
    Failed(String),
}

impl From<redb::Error> for DiskError {
    fn from(error: redb::Error) -> DiskError {
        let text = error.to_string();
        match error {
            redb::Error::Io(cause) => DiskError::from(cause),
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => DiskError::Failed(text),
            _ => DiskError::Damaged(text),
        }
    }
}

impl From<io::Error> for DiskError {
    fn from(error: io::Error) -> DiskError {
        use io::ErrorKind::{
            FileTooLarge, InvalidData, IsADirectory, QuotaExceeded, StorageFull, UnexpectedEof,
        };
        let text = error.to_string();
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => DiskError::Full(text),
            InvalidData | UnexpectedEof | IsADirectory => DiskError::Damaged(text),
            _ => DiskError::Failed(text),
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for DiskError {
            fn from(error: $error) -> DiskError {
                DiskError::from(redb::Error::from(error))
            }
        }
    )*};
}
from_redb!(
    DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::CompactionError,
    redb::SetDurabilityError
);

type RowValue = (u64, u64, u32, u32);

impl Whole {
    fn of(sequence: u64, time_ms: u64, payload: &[u8]) -> Whole {
        Whole { sequence, time_ms, bytes: length(payload), sum: checksum([payload]) }
    }

    /// The row in the file.
    fn row(&self) -> RowValue {
        (self.time_ms, self.bytes, self.sum, self.row_sum())
    }

    /// `None` when it is no such row.
    fn of_row(sequence: u64, (time_ms, bytes, sum, row_sum): RowValue) -> Option<Whole> {
        let whole = Whole { sequence, time_ms, bytes, sum };
        (whole.row_sum() == row_sum).then_some(whole)
    }

    fn row_sum(&self) -> u32 {
        let words = [self.sequence, self.time_ms, self.bytes, u64::from(self.sum)];
        checksum([words.map(u64::to_le_bytes).as_flattened()])
    }
}

/// What one transaction changes.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Sequences to take out, with the bytes of their payloads.
    pub(super) remove: Vec<(u64, u64)>,
    /// Sequence, time and payload of new steps.
    pub(super) add: Vec<(u64, u64, Bytes)>,
    /// Rows of sinks; `None` takes one out.
    pub(super) sinks: Vec<(Arc<str>, Option<Vec<u8>>)>,
    /// The next sequence.
    pub(super) next: u64,
}

/// What a file has when it is opened.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) steps: Vec<Whole>,
    pub(super) sinks: Vec<(String, Vec<u8>)>,
    /// 0 in a new file.
    pub(super) next: u64,
}

/// A backend that refuses to grow past the cap, and everything once it is closed.
#[derive(Debug, Clone)]
struct Capped {
    file: Arc<dyn StorageBackend>,
    max_bytes: u64,
    closed: Arc<AtomicBool>,
}

impl Capped {
    fn open(&self) -> io::Result<&dyn StorageBackend> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(io::Error::other("the file is closed")),
            false => Ok(&*self.file),
        }
    }
}

impl StorageBackend for Capped {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.max_bytes && len > self.file.len()? {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the file is at its cap"));
        }
        self.open()?.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.open()?.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.open()?.write(offset, data)
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct Disk {
    medium: Box<dyn Medium>,
    max_bytes: u64,
    open: Option<(Database, Capped)>,
}

impl Disk {
    pub(super) fn new(medium: Box<dyn Medium>, max_bytes: u64) -> Disk {
        Disk { medium, max_bytes, open: None }
    }

    /// Opens the file unless it is open.
    fn database(&mut self) -> Result<&mut Database, DiskError> {
        if self.open.is_none() {
            let (file, closed) = (self.medium.open()?, Arc::default());
            let file = Capped { file, max_bytes: self.max_bytes, closed };
            let backend = file.clone();
            let made =
                guarded(|| Ok(Database::builder().set_cache_size(CACHE).create_with_backend(backend)?))?;
            self.open = Some((made, file));
        }
        match &mut self.open {
            Some((database, _)) => Ok(database),
            None => Err(DiskError::Failed("closed".to_owned())),
        }
    }

    /// Closes the file; the next call opens it again. As a kill would: everything is
    /// in the file, and redb would make it shorter, so that on a full disk its room
    /// were somebody else's by then.
    pub(super) fn close(&mut self) {
        if let Some((database, file)) = self.open.take() {
            file.closed.store(true, Ordering::Release);
            drop(catch_unwind(AssertUnwindSafe(|| drop(database))));
        }
    }

    fn run<T>(&mut self, work: impl FnOnce(&mut Database) -> Result<T, DiskError>) -> Result<T, DiskError> {
        let result = match self.database() {
            Ok(database) => guarded(|| work(database)),
            Err(error) => Err(error),
        };
        if result.is_err() {
            self.close();
        }
        result
    }

    /// Makes the tables of a new file and reads the rows of any.
    pub(super) fn load(&mut self) -> Result<Content, DiskError> {
        self.run(|database| {
            let mut write = database.begin_write()?;
            write.set_quick_repair(true);
            let version = write.open_table(STATE)?.get("version")?.map(|v| v.value());
            match version {
                Some(VERSION) => write.abort()?,
                Some(other) => {
                    write.abort()?;
                    return Err(DiskError::Version(other));
                }
                None => {
                    let strange =
                        write.list_tables()?.any(|table| redb::TableHandle::name(&table) != "state");
                    if strange {
                        return Err(DiskError::Damaged("a database with other tables".to_owned()));
                    }
                    write.open_table(STATE)?.insert("version", VERSION)?;
                    write.open_table(STEPS)?;
                    write.open_table(CHUNKS)?;
                    write.open_table(SINKS)?;
                    write.commit()?;
                }
            }
            let read = database.begin_read()?;
            let mut content = Content::default();
            for row in read.open_table(STEPS)?.iter()? {
                let (sequence, row) = row?;
                let sequence = sequence.value();
                let Some(step) = Whole::of_row(sequence, row.value()) else {
                    return Err(DiskError::Damaged(format!("row of step {sequence}")));
                };
                content.steps.push(step);
            }
            read.open_table(CHUNKS)?;
            for row in read.open_table(SINKS)?.iter()? {
                let (name, row) = row?;
                content.sinks.push((name.value().to_owned(), row.value().to_vec()));
            }
            content.next = read.open_table(STATE)?.get("next")?.map_or(0, |next| next.value());
            Ok(content)
        })
    }

    /// Makes a change durable. Doing one again that had come through does no harm.
    pub(super) fn commit(&mut self, change: &Change) -> Result<(), DiskError> {
        self.run(|database| {
            let mut write = database.begin_write()?;
            write.set_quick_repair(true);
            {
                let mut steps = write.open_table(STEPS)?;
                let mut chunks = write.open_table(CHUNKS)?;
                for (sequence, bytes) in &change.remove {
                    steps.remove(sequence)?;
                    for place in 0..pieces(*bytes) {
                        chunks.remove((*sequence, place))?;
                    }
                }
                for (sequence, time_ms, payload) in &change.add {
                    let step = Whole::of(*sequence, *time_ms, payload);
                    steps.insert(sequence, step.row())?;
                    let mut rest = &payload[..];
                    for place in 0..pieces(step.bytes) {
                        let (piece, after) = rest.split_at(rest.len().min(CHUNK));
                        chunks.insert((*sequence, place), step.piece(place, piece).as_slice())?;
                        rest = after;
                    }
                }
                let mut sinks = write.open_table(SINKS)?;
                for (name, row) in &change.sinks {
                    match row {
                        Some(row) => sinks.insert(&**name, row.as_slice())?,
                        None => sinks.remove(&**name)?,
                    };
                }
                let mut state = write.open_table(STATE)?;
                state.insert("version", VERSION)?;
                state.insert("next", change.next)?;
            }
            write.commit()?;
            Ok(())
        })
    }

    /// The payload of a step; `None` when it is not what was written.
    pub(super) fn read(&mut self, sequence: u64) -> Result<Option<Bytes>, DiskError> {
        self.run(|database| {
            let read = database.begin_read()?;
            let Some(row) = read.open_table(STEPS)?.get(sequence)? else { return Ok(None) };
            let Some(step) = Whole::of_row(sequence, row.value()) else { return Ok(None) };
            let chunks = read.open_table(CHUNKS)?;
            let mut payload = Vec::new();
            for piece in chunks.range((sequence, 0)..=(sequence, u32::MAX))? {
                payload.extend_from_slice(piece?.1.value().get(HEAD..).unwrap_or_default());
            }
            let whole = length(&payload) == step.bytes && checksum([&payload]) == step.sum;
            Ok(whole.then(|| Bytes::from(payload)))
        })
    }

    /// Gives free pages at the end back, after moving what is behind holes.
    pub(super) fn compact(&mut self) -> Result<(), DiskError> {
        self.run(|database| {
            database.compact()?;
            // With the state of the allocator, which a compaction leaves out.
            let mut write = database.begin_write()?;
            write.set_quick_repair(true);
            Ok(write.commit()?)
        })
    }

    /// Makes the file as long as it may be. redb, which doubles it, takes any length
    /// that is whole pages; it looks through the file when it opens it then.
    pub(super) fn stretch(&mut self) -> Result<(), DiskError> {
        self.close();
        let file = self.medium.open()?;
        file.set_len(self.max_bytes / PAGE * PAGE)?;
        file.sync_data()?;
        self.database().map(|_| ())
    }

    /// Makes sure that the disk has room for a file of this length.
    pub(super) fn reserve(&mut self, len: u64) -> Result<(), DiskError> {
        Ok(self.medium.reserve(len)?)
    }

    /// Length of the file in bytes; `None` while it is closed.
    pub(super) fn file_bytes(&self) -> Option<u64> {
        self.open.as_ref().and_then(|(_, file)| file.len().ok())
    }

    pub(super) fn set_aside(&mut self, why: &str, now_ms: u64) -> Result<PathBuf, DiskError> {
        self.close();
        Ok(self.medium.set_aside(why, now_ms)?)
    }

    /// Looks through what was set aside.
    pub(super) fn rescue(&mut self, aside: &Path) -> Result<Rescue, DiskError> {
        Ok(Rescue::of(self.medium.look(aside)?)?)
    }

    pub(super) fn marks(&self) -> Marks {
        self.medium.marks()
    }

    pub(super) fn mark(&mut self, marks: Marks) -> Result<(), DiskError> {
        Ok(self.medium.mark(marks)?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

/// A panic of redb is damage that it has not foreseen.
fn guarded<T>(work: impl FnOnce() -> Result<T, DiskError>) -> Result<T, DiskError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(DiskError::Damaged(text.unwrap_or_else(|| "the database gave up".to_owned())))
    })
}

/// Into how many pieces a payload goes, at least one.
pub(super) fn pieces(bytes: u64) -> u32 {
    let chunk = u64::try_from(CHUNK).unwrap_or(u64::MAX);
    u32::try_from(bytes.div_ceil(chunk).max(1)).unwrap_or(u32::MAX)
}

pub(super) fn length(payload: &[u8]) -> u64 {
    u64::try_from(payload.len()).unwrap_or(u64::MAX)
}

pub(super) fn checksum<const N: usize>(parts: [&[u8]; N]) -> u32 {
    let mut crc = Crc::new();
    parts.iter().for_each(|part| crc.update(part));
    crc.sum()
}
