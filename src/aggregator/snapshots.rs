//! When the model is written to disk: about every minute, less often where that takes
//! long, and once nothing is served any more.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::aggregate::ingest::Ingest;
use crate::aggregate::snapshot::{self, SnapshotError};
use crate::api::wall_clock;
use crate::telemetry::Limiter;

/// Time between two.
const EVERY: Duration = Duration::from_secs(60);

/// They take this part of one core at most.
const SHARE: u32 = 20;

/// Longest one may take, and the last, for which whoever stops us waits.
const LONGEST: Duration = Duration::from_secs(300);
const LAST: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Snapshots {
    ingest: Arc<Ingest>,
    path: PathBuf,
}

/// The thread that writes.
#[derive(Debug)]
pub(super) struct Writing {
    stop: mpsc::Sender<()>,
    /// Breaks off one that is being written.
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Snapshots {
    /// Takes the model back from the file, if it is of use.
    pub(super) fn open(ingest: &Arc<Ingest>, path: &Path, max_nodes: usize) -> Snapshots {
        let counts = ingest.snapshots();
        match snapshot::load(ingest.model(), path, wall_clock(), max_nodes) {
            Ok(None) => {}
            Ok(Some(nodes)) => {
                counts.restored.store(nodes, Relaxed);
                tracing::info!(nodes, path = %path.display(), "model taken back from disk");
            }
            Err(error @ (SnapshotError::Damaged(_) | SnapshotError::Version(_))) => {
                counts.set_aside.fetch_add(1, Relaxed);
                tracing::warn!(%error, path = %path.display(), "snapshot set aside, as .damaged; the model starts empty");
            }
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "snapshot not read; the model starts empty");
            }
        }
        Snapshots { ingest: Arc::clone(ingest), path: path.to_path_buf() }
    }

    /// Writes from now on.
    pub(super) fn start(self) -> Result<Writing> {
        let (stop, stopped) = mpsc::channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stopping);
        let thread = thread::Builder::new().name("snapshot".to_owned());
        let run = move || {
            let mut wait = EVERY;
            loop {
                match stopped.recv_timeout(wait) {
                    Err(RecvTimeoutError::Timeout) => {
                        wait = EVERY.max(self.write(LONGEST, &told) * SHARE);
                    }
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                        self.write(LAST, &AtomicBool::new(false));
                        return;
                    }
                }
            }
        };
        let thread = thread.spawn(run).context("cannot start the thread that writes snapshots")?;
        Ok(Writing { stop, stopping, thread })
    }

    /// How long it took.
    fn write(&self, longest: Duration, stopping: &AtomicBool) -> Duration {
        static FAILED: Limiter = Limiter::every(Duration::from_secs(600));
        let (began, now_ms) = (Instant::now(), wall_clock());
        let give_up = || began.elapsed() > longest || stopping.load(Relaxed);
        let result = snapshot::save(self.ingest.model(), &self.path, now_ms, &give_up);
        self.ingest.snapshots().note(&result, now_ms);
        match result {
            Ok(bytes) => tracing::debug!(bytes, took = ?began.elapsed(), "snapshot written"),
            Err(error) => {
                if let Some(suppressed) = FAILED.pass() {
                    tracing::warn!(%error, path = %self.path.display(), suppressed, "snapshot not written");
                }
            }
        }
        began.elapsed()
    }
}

impl Writing {
    /// Writes once more and ends.
    pub(super) fn stop(self) {
        let Writing { stop, stopping, thread } = self;
        stopping.store(true, Relaxed);
        drop(stop);
        if thread.join().is_err() {
            tracing::error!("the thread that writes snapshots panicked");
        }
    }
}
