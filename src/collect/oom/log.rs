//! The thread that reads the kernel's log, and where it leaves the kills.
//!
//! It begins behind the newest record when the agent starts, so that nothing of
//! before is counted again, and reads records as they come: the kills of a tick
//! are there when the tick begins; what else goes wrong in the machine is counted.
//! Where a kill's line does not say whose it was,
//! `/proc/<pid>/cgroup` is asked at once, while the victim is still dying.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::kernel::file::Buffer;
use crate::kernel::kmsg::{self, Kmsg, Next};
use crate::kernel::oom::{self, Kill, Parser};
use crate::kernel::problems::Problem;
use crate::kernel::{ReadError, Roots};

use super::super::sampler::wall_ms;
use super::super::{LogCounts, LogState};

/// Kills that wait for the next tick at most; more are counted, and shown by
/// the kernel's counters where their cgroups live.
const MAX_WAITING: usize = 4096;

/// How often the thread looks whether it is still wanted.
const LOOK_UP: Duration = Duration::from_secs(1);

/// After a read that failed the device is opened again, but not at once.
const REOPEN: Duration = Duration::from_secs(10);

/// The end of the log that the tick reads.
#[derive(Debug)]
pub(super) struct Log {
    shared: Arc<Mutex<Shared>>,
}

/// A kill, and when the log told of it.
#[derive(Debug)]
pub(super) struct Logged {
    pub(super) kill: Kill,
    /// Milliseconds since the epoch.
    pub(super) wall_ms: u64,
}

#[derive(Debug, Default)]
struct Shared {
    kills: Vec<Logged>,
    counts: LogCounts,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Nothing that holds it leaves it half-changed.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// Follows the host's log from this moment on, if it can be read.
    pub(super) fn follow(roots: &Roots) -> Log {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let state = match Kmsg::open(roots) {
            Ok(kmsg) => {
                let reader = Reader {
                    roots: roots.clone(),
                    shared: Arc::downgrade(&shared),
                    parser: Parser::default(),
                    proc: Buffer::new(),
                    last: None,
                };
                match thread::Builder::new().name("kmsg".to_owned()).spawn(move || reader.run(kmsg)) {
                    Ok(_) => LogState::Read,
                    Err(_) => LogState::Failed,
                }
            }
            Err(ReadError::Gone) => LogState::Absent,
            Err(ReadError::Denied) => LogState::Denied,
            Err(_) => LogState::Failed,
        };
        lock(&shared).counts.state = state;
        Log { shared }
    }

    /// Moves the kills since the last call into `kills`, which is emptied first
    /// and whose memory is used again.
    pub(super) fn take(&self, kills: &mut Vec<Logged>) -> LogCounts {
        kills.clear();
        let mut shared = lock(&self.shared);
        std::mem::swap(&mut shared.kills, kills);
        shared.counts
    }

    /// What was noticed so far.
    pub(super) fn counts(&self) -> LogCounts {
        lock(&self.shared).counts
    }
}

struct Reader {
    roots: Roots,
    shared: Weak<Mutex<Shared>>,
    parser: Parser,
    proc: Buffer,
    /// Sequence number of the last record.
    last: Option<u64>,
}

impl Reader {
    fn run(mut self, mut kmsg: Kmsg) {
        while let Some(shared) = self.shared.upgrade() {
            drop(shared);
            kmsg.wait(LOOK_UP);
            if let Err(error) = self.drain(&mut kmsg) {
                tracing::warn!(%error, "the kernel's log cannot be read any more: it is opened again");
                match self.reopen() {
                    Some(again) => kmsg = again,
                    None => return,
                }
            }
        }
    }

    fn drain(&mut self, kmsg: &mut Kmsg) -> Result<(), ReadError> {
        loop {
            let (lost, record) = match kmsg.read()? {
                Next::Nothing => return Ok(()),
                Next::Overrun => (1, None),
                Next::Record(bytes) => (0, oom::record(bytes)),
            };
            let mut kill = record.as_ref().and_then(|record| self.parser.push(record));
            if let Some(kill) = kill.as_mut().filter(|kill| !kill.certain)
                && let Some(cgroup) = kmsg::memory_cgroup_of(&self.roots, kill.pid, &mut self.proc)
            {
                kill.cgroup = Some(cgroup);
            }
            let missed = match (self.last, record) {
                (Some(last), Some(record)) => record.sequence.saturating_sub(last.saturating_add(1)),
                _ => 0,
            };
            self.last = record.map(|r| r.sequence).or(self.last);
            let problem = record.as_ref().and_then(Problem::of);
            let Some(shared) = self.shared.upgrade() else { return Ok(()) };
            let mut shared = lock(&shared);
            shared.trouble(problem);
            shared.add(kill, u64::from(record.is_some()), lost, missed);
        }
    }

    fn reopen(&mut self) -> Option<Kmsg> {
        loop {
            lock(&*self.shared.upgrade()?).counts.state = LogState::Failed;
            let until = Instant::now() + REOPEN;
            while Instant::now() < until {
                self.shared.upgrade()?;
                thread::park_timeout(LOOK_UP);
            }
            if let Ok(kmsg) = Kmsg::open(&self.roots) {
                // What was logged meanwhile is not read.
                self.last = None;
                self.parser = Parser::default();
                lock(&*self.shared.upgrade()?).counts.state = LogState::Read;
                return Some(kmsg);
            }
        }
    }
}

impl Shared {
    fn trouble(&mut self, problem: Option<Problem>) {
        let Some(problem) = problem else { return };
        if let Some(count) = self.counts.problems.get_mut(problem.index()) {
            *count += 1;
        }
        tracing::debug!(reason = problem.reason(), "the kernel logged a problem");
    }

    fn add(&mut self, kill: Option<Kill>, records: u64, overruns: u64, missed: u64) {
        self.counts.records += records;
        self.counts.overruns += overruns;
        self.counts.missed += missed;
        let Some(kill) = kill else { return };
        self.counts.kills += 1;
        tracing::debug!(pid = kill.pid, cgroup = kill.cgroup.as_deref().unwrap_or("?"), "OOM kill logged");
        if self.kills.len() < MAX_WAITING {
            self.kills.push(Logged { kill, wall_ms: wall_ms() });
        } else {
            self.counts.unplaced += 1;
        }
    }
}
