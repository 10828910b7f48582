//! The one log of steps, and what of it each sink still has to get.
//!
//! Each step is written once, as one durable commit of `queue.redb` under the
//! queue's directory, or kept in memory without one. A sink is known by the name
//! the user sees, and what it has acknowledged is a set, since databases are fed
//! from the oldest step and aggregators from the newest.
//!
//! Past the cap the steps that everybody has go first, then the oldest, counted
//! for each sink that was owed them. Steps that everybody has stay for
//! [`Options::keep_acknowledged`], so that [`Log::refill`] can send them again.
//!
//! The file has its room on the disk beforehand: a disk that is full keeps it from
//! growing, and costs the oldest steps. While the file cannot be written, steps stay
//! in memory within [`Options::max_memory_bytes`] and go to the file with the first
//! write that succeeds; a kill before that loses them, and acknowledgements of that
//! time with them. A damaged file is set aside, the steps that can be found in it are
//! taken over, and those that cannot are counted.
//!
//! All calls block. A payload is opaque here.

mod cursor;
mod disk;
pub mod medium;
mod ranges;
mod rescue;
mod shown;
mod state;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::watch;

use crate::telemetry::push::{Queued, SinkMetrics};

use medium::{Directory, Medium};
use shown::Shown;
use state::State;

/// Why a step was dropped before a sink had it: the cap on the file's size, age,
/// a disk without room, no room left in memory while the file cannot be
/// written, damage, and a step larger than the log takes.
pub const REASONS: [&str; 6] = ["size", "age", "disk_full", "memory", "damaged", "too_large"];

/// The smallest cap on a file: a database has some hundred KiB of its own.
pub const MIN_BYTES: u64 = 4 << 20;

/// How long the cursor of a sink is kept that is no longer configured, and the
/// steps that it is owed with it.
pub const KEEP_CURSOR: Duration = Duration::from_secs(60 * 60);

/// A sink as the log and the metrics call it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SinkName(Arc<str>);

impl SinkName {
    /// A name, checked by whoever read it from the user.
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
    /// Length of the file that it never passes, bytes; of a file at least
    /// [`MIN_BYTES`]. Without a directory, the bytes of all payloads.
    pub max_bytes: u64,
    /// How long steps stay that every sink has, by their own time.
    pub keep_acknowledged: Duration,
    /// Age beyond which steps go although a sink has not got them.
    pub max_age: Option<Duration>,
    /// Payloads kept in memory while the file cannot be written, bytes.
    pub max_memory_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_bytes: 256 << 20,
            keep_acknowledged: Duration::from_secs(15 * 60),
            max_age: None,
            max_memory_bytes: 4 << 20,
        }
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
        /// Steps that could be read of it, and are in the new one.
        saved: u64,
    },
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Opened::Fresh => f.write_str("begun anew"),
            Opened::Continued(steps) => write!(f, "continued with {steps} steps"),
            Opened::SetAside { path, why, saved } => {
                let path = path.display();
                write!(
                    f,
                    "begun anew with {saved} steps of the one before, which cannot be used ({why}) and is now {path}"
                )
            }
        }
    }
}

/// Why there is no log.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("process {process} uses the queue in {}; accepted: a directory for each agent", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
        /// The process, as it wrote itself down; 0 when it did not.
        process: u64,
    },
    /// The directory cannot be made or written.
    #[error("cannot use the directory {}: {cause}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What failed.
        cause: std::io::Error,
    },
    /// Neither the file nor a fresh one can be opened.
    #[error("cannot open the queue: {0}")]
    Failed(String),
}

/// A call that was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LogError {
    /// The log takes no payload of this size.
    #[error("a step of {bytes} bytes is too large for the queue; accepted: at most {limit}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The largest that is accepted.
        limit: u64,
    },
    /// The log was opened without this sink.
    #[error("no sink {0:?} in the queue")]
    UnknownSink(String),
    /// The file cannot be read now; a later call opens it again.
    #[error("cannot read the queue: {0}")]
    Unreadable(String),
}

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

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its number.
    pub sequence: u64,
    /// Whether it outlives a kill. Never without a directory.
    pub durable: bool,
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
    /// Steps dropped before it got them, by reason, since the queue was begun: a
    /// start continues these counts with the rest of the file.
    pub dropped: Vec<(&'static str, u64)>,
}

impl From<Status> for Queued {
    fn from(status: Status) -> Queued {
        let Status { steps, bytes, oldest_ms, dropped } = status;
        Queued { steps, bytes, oldest_ms, dropped }
    }
}

/// Milliseconds since the epoch; the tests have one that they set.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The log.
#[derive(Debug)]
pub struct Log {
    state: Mutex<State>,
    shown: Arc<Shown>,
    durable: bool,
    newest: watch::Sender<u64>,
}

impl Log {
    /// Opens the log in `directory`, or one in memory, for these sinks.
    ///
    /// # Errors
    /// Another process has it, or it can neither be used nor begun anew.
    pub fn open(
        directory: Option<&Path>,
        options: Options,
        sinks: &[SinkName],
    ) -> Result<(Log, Opened), OpenError> {
        let medium = match directory {
            Some(path) => Some(Box::new(Directory::lock(path)?) as Box<dyn Medium>),
            None => None,
        };
        Log::open_on(medium, options, sinks, Arc::new(now_ms))
    }

    /// Opens the log on a medium, with a clock.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_on(
        medium: Option<Box<dyn Medium>>,
        options: Options,
        sinks: &[SinkName],
        clock: Clock,
    ) -> Result<(Log, Opened), OpenError> {
        let durable = medium.is_some();
        let (state, opened) = State::open(medium, options, sinks, clock)?;
        let (newest, _) = watch::channel(0);
        let shown = state.shown();
        Ok((Log { state: Mutex::new(state), shown, durable, newest }, opened))
    }

    /// Whether it outlives the process.
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// Tells of every append and refill.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The moment of the newest step that is kept.
    ///
    /// # Errors
    /// None today; the file may have to be asked some day.
    pub fn last_time_ms(&self) -> Result<Option<u64>, LogError> {
        Ok(self.state().last_time_ms())
    }

    /// The number that the next step gets.
    pub fn next_sequence(&self) -> u64 {
        self.state().next_sequence()
    }

    /// Adds a step for every sink, and drops what no longer fits.
    ///
    /// # Errors
    /// It is too large, and counted as dropped. That the file cannot be written is
    /// no error: see [`Appended::durable`] and [`Log::trouble`].
    pub fn append(&self, time_ms: u64, payload: &[u8]) -> Result<Appended, LogError> {
        let appended = self.state().append(time_ms, payload)?;
        self.newest.send_replace(appended.sequence);
        Ok(appended)
    }

    /// The first steps that a sink has not acknowledged.
    ///
    /// # Errors
    /// The file cannot be read, or there is no such sink.
    pub fn next(&self, sink: &SinkName, order: Order, limit: usize) -> Result<Vec<Record>, LogError> {
        self.state().next(&sink.0, order, limit)
    }

    /// The last step before this one that a sink has acknowledged, of those on its
    /// own grid; `None` once it is no longer kept.
    ///
    /// # Errors
    /// An unknown sink, or a file that cannot be read now.
    pub fn sent_before(
        &self,
        sink: &SinkName,
        sequence: u64,
        resolution_ms: u64,
    ) -> Result<Option<Record>, LogError> {
        self.state().sent_before(&sink.0, sequence, resolution_ms)
    }

    /// Says that a sink has these steps. Those it is not owed do not matter.
    ///
    /// # Errors
    /// There is no such sink.
    pub fn acknowledge(&self, sink: &SinkName, sequences: &[u64]) -> Result<(), LogError> {
        self.state().acknowledge(&sink.0, sequences)
    }

    /// The moments of the steps that a sink has still to get.
    ///
    /// # Errors
    /// There is no such sink.
    pub fn owed(&self, sink: &SinkName) -> Result<BTreeSet<u64>, LogError> {
        self.state().owed(&sink.0)
    }

    /// Says that a sink has the steps of these moments; how many were owed to it.
    ///
    /// # Errors
    /// There is no such sink.
    pub fn trim(&self, sink: &SinkName, done: impl Fn(u64) -> bool) -> Result<u64, LogError> {
        self.state().trim(&sink.0, done)
    }

    /// Makes the steps of the last [`Options::keep_acknowledged`] pending for a
    /// sink again; how many were not.
    ///
    /// # Errors
    /// There is no such sink.
    pub fn refill(&self, sink: &SinkName) -> Result<u64, LogError> {
        let count = self.state().refill(&sink.0)?;
        self.newest.send_modify(|_| {});
        Ok(count)
    }

    /// What a sink has still to get.
    ///
    /// # Errors
    /// There is no such sink.
    pub fn status(&self, sink: &SinkName) -> Result<Status, LogError> {
        self.state().status(&sink.0)
    }

    /// Has the figures of a sink say what waits for it when they are asked for: while a
    /// request hangs nobody else tells them.
    pub fn tell(self: &Arc<Self>, sink: &SinkName, metrics: &SinkMetrics) {
        let (log, sink) = (Arc::downgrade(self), sink.clone());
        metrics.ask(move || log.upgrade()?.waiting(&sink).map(Queued::from));
    }

    /// What a sink has still to get, told at once: while the file is being written, which a
    /// slow disk makes long, it is what there was to get when that began.
    pub fn waiting(&self, sink: &SinkName) -> Option<Status> {
        let state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => return self.shown.of(&sink.0),
        };
        state.status(&sink.0).ok()
    }

    /// Why the last write of the file failed, while steps are kept in memory.
    pub fn trouble(&self) -> Option<String> {
        self.state().trouble()
    }

    /// Length of the file in bytes; `None` without one, or while it is closed.
    pub fn file_bytes(&self) -> Option<u64> {
        self.state().file_bytes()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
