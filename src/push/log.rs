//! The one log of steps, and what of it each sink still has to get.
//!
//! A redb database, `queue.redb` under the queue's directory, or the same in
//! memory without one. `steps` holds each step once; `pending` has a row for each
//! sink and step that the sink has not acknowledged. Appending and acknowledging
//! are one durable commit each, so that a kill loses nothing that was appended
//! and brings back nothing that was acknowledged.
//!
//! Past the cap the oldest steps go, counted for each sink that still had to get
//! them. Steps that everybody has stay for [`Options::keep_acknowledged`], so
//! that [`Log::refill`] can send them once more.
//!
//! All calls block. A payload is opaque here.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use thiserror::Error;
use tokio::sync::watch;

/// Sequence → time and payload.
const STEPS: TableDefinition<'_, u64, (u64, &[u8])> = TableDefinition::new("steps");
/// Sink and sequence → bytes of the payload.
const PENDING: TableDefinition<'_, (&str, u64), u64> = TableDefinition::new("pending");
/// Word → number: `version`, and the `next` sequence.
const STATE: TableDefinition<'_, &str, u64> = TableDefinition::new("state");

/// Of the tables and the payloads in them.
const VERSION: u64 = 1;

/// Bytes redb may keep of the file in memory.
const CACHE: usize = 4 << 20;

/// What redb takes for a step besides its payload: its rows, and space on its
/// pages that is free.
const OVERHEAD: u64 = 512;

/// A sink as the log and the metrics call it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SinkName(Arc<str>);

impl SinkName {
    /// A name that was checked by [`target`](crate::push::target).
    pub fn new(name: &str) -> SinkName {
        SinkName(name.into())
    }
}

impl fmt::Display for SinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Bounds of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Size beyond which the oldest steps go.
    pub max_bytes: u64,
    /// How long steps stay that every sink has.
    pub keep_acknowledged: Duration,
    /// Age beyond which steps go although a sink has not got them.
    pub max_age: Option<Duration>,
}

impl Default for Options {
    fn default() -> Options {
        Options { max_bytes: 256 << 20, keep_acknowledged: Duration::from_secs(15 * 60), max_age: None }
    }
}

/// What was found where the log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// Nothing.
    Fresh,
    /// A log with this many steps.
    Continued(u64),
    /// A file that cannot be used. It was given another name.
    SetAside {
        /// Its name now.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Opened::Fresh => f.write_str("begun anew"),
            Opened::Continued(steps) => write!(f, "continued with {steps} steps"),
            Opened::SetAside { path, why } => {
                write!(f, "begun anew; the one before cannot be used ({why}) and is now {}", path.display())
            }
        }
    }
}

/// Why there is no log.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another process uses this queue; accepted: a directory for each agent")]
    Busy,
    /// The directory cannot be made or written.
    #[error("cannot use the directory: {0}")]
    Directory(#[source] std::io::Error),
    /// Neither the file nor a fresh one can be opened.
    #[error("cannot open the queue: {0}")]
    Failed(#[source] redb::Error),
}

/// The log could not be read or written.
#[derive(Debug, Error)]
#[error("queue: {0}")]
pub struct LogError(#[from] redb::Error);

macro_rules! log_error_from {
    ($($error:ty),*) => {$(
        impl From<$error> for LogError {
            fn from(error: $error) -> LogError {
                LogError(error.into())
            }
        }
    )*};
}
log_error_from!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

/// Which steps come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The oldest.
    OldestFirst,
    /// The newest.
    NewestFirst,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number, from 1, never used again in one directory.
    pub sequence: u64,
    /// The moment it stands for, milliseconds since the epoch.
    pub time_ms: u64,
    /// What was appended.
    pub payload: Bytes,
}

/// What a sink has still to get.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Steps.
    pub steps: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// The moment of the oldest.
    pub oldest_ms: Option<u64>,
    /// Steps dropped since the start before it got them, by reason.
    pub dropped: Vec<(&'static str, u64)>,
}

/// The log.
#[derive(Debug)]
pub struct Log {
    database: Database,
    file: Option<PathBuf>,
    options: Options,
    sinks: Vec<SinkName>,
    /// For each sink, dropped for size and for age.
    dropped: Mutex<HashMap<SinkName, [u64; 2]>>,
    newest: watch::Sender<u64>,
}

impl Log {
    /// Opens the log in `directory`, or one in memory, for these sinks. What was
    /// pending for others is forgotten.
    ///
    /// # Errors
    /// Another process has it, or it can neither be used nor begun anew.
    pub fn open(
        directory: Option<&Path>,
        options: Options,
        sinks: &[SinkName],
    ) -> Result<(Log, Opened), OpenError> {
        let file = directory.map(|directory| directory.join("queue.redb"));
        let (database, mut opened) = match &file {
            Some(file) => on_disk(file)?,
            None => (in_memory()?, Opened::Fresh),
        };
        let (newest, _) = watch::channel(0);
        let sinks = sinks.to_vec();
        let log = Log { database, file, options, sinks, dropped: Mutex::default(), newest };
        let steps = log.begin().map_err(|LogError(error)| OpenError::Failed(error))?;
        if opened == Opened::Fresh && steps > 0 {
            opened = Opened::Continued(steps);
        }
        Ok((log, opened))
    }

    /// Whether it outlives the process.
    pub fn is_durable(&self) -> bool {
        self.file.is_some()
    }

    /// Tells of every append.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The moment of the newest step.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn last_time_ms(&self) -> Result<Option<u64>, LogError> {
        let steps = self.database.begin_read()?.open_table(STEPS)?;
        Ok(steps.last()?.map(|(_, step)| step.value().0))
    }

    /// Adds a step for every sink, and drops what no longer fits; its sequence.
    ///
    /// # Errors
    /// The log cannot be written; the step is not in it.
    pub fn append(&self, time_ms: u64, payload: &[u8]) -> Result<u64, LogError> {
        let write = self.database.begin_write()?;
        let mut lost: Vec<(String, usize)> = Vec::new();
        let sequence = {
            let mut state = write.open_table(STATE)?;
            let mut steps = write.open_table(STEPS)?;
            let mut pending = write.open_table(PENDING)?;
            let sequence = state.get("next")?.map_or(1, |next| next.value());
            state.insert("next", sequence + 1)?;
            steps.insert(sequence, (time_ms, payload))?;
            let bytes = length(payload);
            for sink in &self.sinks {
                pending.insert((&*sink.0, sequence), bytes)?;
            }
            let mut stored = state.get("bytes")?.map_or(0, |b| b.value()) + bytes + OVERHEAD;
            while let Some((oldest, oldest_ms, size)) = oldest(&steps)? {
                let mut owed = Vec::new();
                for sink in &self.sinks {
                    if pending.get((&*sink.0, oldest))?.is_some() {
                        owed.push(sink);
                    }
                }
                let age = Duration::from_millis(now_ms().saturating_sub(oldest_ms));
                // The file never shrinks by itself, so that it is kept from
                // growing well before the cap.
                let full = stored > self.options.max_bytes / 4 * 3;
                let old = match owed.is_empty() {
                    true => age > self.options.keep_acknowledged,
                    false => self.options.max_age.is_some_and(|max| age > max),
                };
                if oldest == sequence || !(full || old) {
                    break;
                }
                steps.remove(oldest)?;
                for sink in owed {
                    pending.remove((&*sink.0, oldest))?;
                    lost.push((sink.to_string(), usize::from(!full)));
                }
                stored = stored.saturating_sub(size + OVERHEAD);
            }
            state.insert("bytes", stored)?;
            sequence
        };
        write.commit()?;
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        for (sink, reason) in lost {
            if let Some(count) = dropped.entry(SinkName::new(&sink)).or_default().get_mut(reason) {
                *count += 1;
            }
        }
        drop(dropped);
        self.newest.send_replace(sequence);
        Ok(sequence)
    }

    /// The first steps that a sink has not acknowledged.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn next(&self, sink: &SinkName, order: Order, limit: usize) -> Result<Vec<Record>, LogError> {
        let read = self.database.begin_read()?;
        let (pending, steps) = (read.open_table(PENDING)?, read.open_table(STEPS)?);
        let mut range = pending.range((&*sink.0, 0)..=(&*sink.0, u64::MAX))?;
        let mut records = Vec::new();
        while records.len() < limit {
            let row = match order {
                Order::OldestFirst => range.next(),
                Order::NewestFirst => range.next_back(),
            };
            let Some((key, _)) = row.transpose()? else { break };
            let (_, sequence) = key.value();
            if let Some(step) = steps.get(sequence)? {
                let (time_ms, payload) = step.value();
                records.push(Record { sequence, time_ms, payload: Bytes::copy_from_slice(payload) });
            }
        }
        Ok(records)
    }

    /// Says that a sink has these steps.
    ///
    /// # Errors
    /// The log cannot be written; the sink will be given them again.
    pub fn acknowledge(&self, sink: &SinkName, sequences: &[u64]) -> Result<(), LogError> {
        let write = self.database.begin_write()?;
        {
            let mut pending = write.open_table(PENDING)?;
            for sequence in sequences {
                pending.remove((&*sink.0, *sequence))?;
            }
        }
        write.commit()?;
        Ok(())
    }

    /// Makes every step that is kept pending for a sink again; how many were not.
    ///
    /// # Errors
    /// The log cannot be written.
    pub fn refill(&self, sink: &SinkName) -> Result<u64, LogError> {
        let write = self.database.begin_write()?;
        let mut count = 0;
        {
            let mut pending = write.open_table(PENDING)?;
            let steps = write.open_table(STEPS)?;
            for row in steps.iter()? {
                let (sequence, step) = row?;
                let was = pending.insert((&*sink.0, sequence.value()), length(step.value().1))?;
                count += u64::from(was.is_none());
            }
        }
        write.commit()?;
        self.newest.send_modify(|_| {});
        Ok(count)
    }

    /// What a sink has still to get.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn status(&self, sink: &SinkName) -> Result<Status, LogError> {
        let read = self.database.begin_read()?;
        let (pending, steps) = (read.open_table(PENDING)?, read.open_table(STEPS)?);
        let mut status = Status::default();
        for row in pending.range((&*sink.0, 0)..=(&*sink.0, u64::MAX))? {
            let (key, bytes) = row?;
            if status.steps == 0 {
                status.oldest_ms = steps.get(key.value().1)?.map(|step| step.value().0);
            }
            status.steps += 1;
            status.bytes += bytes.value();
        }
        let dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        let [size, age] = dropped.get(sink).copied().unwrap_or_default();
        status.dropped = vec![("size", size), ("age", age)];
        Ok(status)
    }

    /// Makes the tables, forgets sinks that are no more; how many steps there are.
    fn begin(&self) -> Result<u64, LogError> {
        let write = self.database.begin_write()?;
        let count = {
            write.open_table(STATE)?.insert("version", VERSION)?;
            let known = |name: &str| self.sinks.iter().any(|sink| &*sink.0 == name);
            write.open_table(PENDING)?.retain(|(name, _), _| known(name))?;
            let steps = write.open_table(STEPS)?;
            let mut count = 0;
            for row in steps.iter()? {
                row?;
                count += 1;
            }
            count
        };
        write.commit()?;
        Ok(count)
    }
}

fn oldest(steps: &redb::Table<'_, u64, (u64, &'static [u8])>) -> Result<Option<(u64, u64, u64)>, LogError> {
    Ok(steps.first()?.map(|(sequence, step)| {
        let (time_ms, payload) = step.value();
        (sequence.value(), time_ms, length(payload))
    }))
}

fn length(payload: &[u8]) -> u64 {
    u64::try_from(payload.len()).unwrap_or(u64::MAX)
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn in_memory() -> Result<Database, OpenError> {
    let made = Database::builder().set_cache_size(CACHE).create_with_backend(InMemoryBackend::new());
    made.map_err(|error| OpenError::Failed(error.into()))
}

fn on_disk(file: &Path) -> Result<(Database, Opened), OpenError> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory).map_err(OpenError::Directory)?;
    }
    let create = || Database::builder().set_cache_size(CACHE).create(file);
    let why = match create() {
        Ok(database) => match version(&database) {
            Ok(VERSION) => return Ok((database, Opened::Fresh)),
            Ok(other) => format!("version {other}, known is {VERSION}"),
            Err(LogError(error)) => error.to_string(),
        },
        Err(DatabaseError::DatabaseAlreadyOpen) => return Err(OpenError::Busy),
        Err(error) => error.to_string(),
    };
    let path = file.with_extension(format!("redb.{}", now_ms()));
    std::fs::rename(file, &path).map_err(OpenError::Directory)?;
    let database = create().map_err(|error| OpenError::Failed(error.into()))?;
    Ok((database, Opened::SetAside { path, why }))
}

/// Of a log; this one of a new file.
fn version(database: &Database) -> Result<u64, LogError> {
    let write: WriteTransaction = database.begin_write()?;
    let version = write.open_table(STATE)?.get("version")?.map_or(VERSION, |v| v.value());
    write.abort()?;
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sinks() -> [SinkName; 2] {
        [SinkName::new("a"), SinkName::new("b")]
    }

    fn open(directory: Option<&Path>, options: Options) -> (Log, Opened) {
        Log::open(directory, options, &sinks()).unwrap()
    }

    fn keep() -> Options {
        Options { keep_acknowledged: Duration::MAX, ..Options::default() }
    }

    fn sequences(log: &Log, sink: &SinkName, order: Order) -> Vec<u64> {
        log.next(sink, order, 100).unwrap().iter().map(|r| r.sequence).collect()
    }

    #[test]
    fn each_sink_gets_each_step_until_it_has_it() {
        let (log, opened) = open(None, keep());
        assert_eq!(opened, Opened::Fresh);
        let [a, b] = sinks();
        for time in 1..=4 {
            assert_eq!(log.append(time * 1000, b"step").unwrap(), time);
        }
        assert_eq!(sequences(&log, &a, Order::OldestFirst), [1, 2, 3, 4]);
        log.acknowledge(&a, &[1, 3]).unwrap();
        assert_eq!(sequences(&log, &a, Order::NewestFirst), [4, 2]);
        assert_eq!(sequences(&log, &b, Order::OldestFirst), [1, 2, 3, 4]);
        let status = log.status(&a).unwrap();
        assert_eq!((status.steps, status.bytes, status.oldest_ms), (2, 8, Some(2000)));
        assert_eq!(log.refill(&a).unwrap(), 2);
        assert_eq!(sequences(&log, &a, Order::OldestFirst), [1, 2, 3, 4]);
        assert_eq!(log.last_time_ms().unwrap(), Some(4000));
    }

    #[test]
    fn a_directory_outlives_the_process_and_numbers_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = Some(directory.path());
        let [a, b] = sinks();
        {
            let (log, _) = open(path, keep());
            log.append(1000, b"one").unwrap();
            log.append(2000, b"two").unwrap();
            log.acknowledge(&a, &[1]).unwrap();
            let busy = Log::open(path, keep(), &sinks()).expect_err("somebody has it");
            assert!(matches!(busy, OpenError::Busy), "{busy}");
        }
        let (log, opened) = open(path, keep());
        assert_eq!(opened, Opened::Continued(2));
        assert_eq!(sequences(&log, &a, Order::OldestFirst), [2]);
        assert_eq!(sequences(&log, &b, Order::OldestFirst), [1, 2]);
        assert_eq!(log.append(3000, b"three").unwrap(), 3);
        let record = log.next(&b, Order::NewestFirst, 1).unwrap().remove(0);
        assert_eq!((record.time_ms, record.payload), (3000, Bytes::from_static(b"three")));
    }

    #[test]
    fn past_the_cap_the_oldest_go_and_are_counted_for_who_had_not_got_them() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { max_bytes: 4 << 20, ..keep() };
        let (log, _) = open(Some(directory.path()), options);
        let [a, b] = sinks();
        let payload = vec![7; 50_000];
        for time in 1..=200_u64 {
            let sequence = log.append(time * 1000, &payload).unwrap();
            log.acknowledge(&a, &[sequence]).unwrap();
        }
        let waiting = log.status(&b).unwrap();
        assert_eq!(log.status(&a).unwrap().dropped, [("size", 0), ("age", 0)]);
        assert_eq!(waiting.dropped, [("size", 200 - waiting.steps), ("age", 0)]);
        assert!(waiting.steps > 50, "{waiting:?}");
        assert_eq!(sequences(&log, &b, Order::OldestFirst)[0], 201 - waiting.steps);
    }

    #[test]
    fn acknowledged_steps_go_with_age_and_waiting_ones_stay() {
        let (log, _) =
            open(None, Options { keep_acknowledged: Duration::from_secs(900), ..Options::default() });
        let [a, b] = sinks();
        let old = now_ms() - 3_600_000;
        log.append(old, b"had by both").unwrap();
        log.append(old + 1, b"had by one").unwrap();
        log.acknowledge(&a, &[1, 2]).unwrap();
        log.acknowledge(&b, &[1]).unwrap();
        log.append(now_ms(), b"new").unwrap();
        assert_eq!(log.refill(&a).unwrap(), 1, "of the second; the first is gone");
        assert_eq!(sequences(&log, &b, Order::OldestFirst), [2, 3]);
        assert_eq!(log.status(&b).unwrap().dropped, [("size", 0), ("age", 0)]);
    }

    #[test]
    fn what_cannot_be_used_is_set_aside() {
        for damage in [&b"garbage"[..], &[0; 8192]] {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("queue.redb"), damage).unwrap();
            let (log, opened) = open(Some(directory.path()), keep());
            let Opened::SetAside { path, .. } = opened else { panic!("{opened:?}") };
            assert_eq!(std::fs::read(path).unwrap(), damage);
            assert_eq!(log.append(1000, b"step").unwrap(), 1);
        }
    }
}
