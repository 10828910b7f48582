//! The last snapshot, and how to ask for a fresher one.
//!
//! The reader thread publishes; every output takes an `Arc`. An output that
//! finds the last snapshot too old asks the reader thread for a fresh tick and
//! waits; all who ask at the same time share the same one.

use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use tokio::sync::watch;

use crate::snapshot::{Kinds, Snapshot};

/// What the reader thread is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Read now, unless a tick ran within the last second; these kinds too,
    /// which are read only on request.
    Fresh(Kinds),
    /// Cgroups came or went: look who they are.
    Look,
    /// Containers have ended: read them before they are gone.
    Ends,
    /// Stop.
    Stop,
}

/// The reading end, for outputs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Snapshots {
    latest: watch::Receiver<Option<Arc<Snapshot>>>,
    requests: Arc<mpsc::Sender<Request>>,
}

/// Tells the reader thread that there is something to look at. It does not keep
/// the thread from ending when nobody reads any more.
#[derive(Debug, Clone)]
pub struct Looker(Weak<mpsc::Sender<Request>>);

impl Looker {
    /// Whether there is nobody left to tell.
    pub fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }

    /// False when the reader thread is gone.
    pub fn look(&self, request: Request) -> bool {
        self.0.upgrade().is_some_and(|requests| requests.send(request).is_ok())
    }
}

/// Is given every snapshot, on the reader thread, and never waits: for what must
/// see all of them, where outputs see the last.
pub type Tap = Box<dyn Fn(&Arc<Snapshot>) + Send>;

/// The writing end, for the reader thread.
pub struct Publisher {
    latest: watch::Sender<Option<Arc<Snapshot>>>,
    taps: Vec<Tap>,
    /// What the outputs ask.
    pub requests: mpsc::Receiver<Request>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("latest", &self.latest).finish_non_exhaustive()
    }
}

/// A connected pair.
pub fn channel() -> (Publisher, Snapshots) {
    let (latest, receiver) = watch::channel(None);
    let (sender, requests) = mpsc::channel();
    let snapshots = Snapshots { latest: receiver, requests: Arc::new(sender) };
    (Publisher { latest, taps: Vec::new(), requests }, snapshots)
}

impl Publisher {
    /// Gives every snapshot to `tap` as well.
    pub fn tap(&mut self, tap: Tap) {
        self.taps.push(tap);
    }

    /// Makes `snapshot` the last one and returns the one it replaces.
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> Option<Arc<Snapshot>> {
        self.taps.iter().for_each(|tap| tap(&snapshot));
        self.latest.send_replace(Some(snapshot))
    }
}

impl Snapshots {
    /// The last snapshot; `None` before the first tick.
    pub fn latest(&self) -> Option<Arc<Snapshot>> {
        self.latest.borrow().clone()
    }

    /// A snapshot at most `max_age` old with these kinds read, for which the reader thread may be
    /// asked. When the thread does not answer within `patience`, the last one
    /// there is; `None` if there has never been one.
    pub async fn fresh(&self, max_age: Duration, patience: Duration, kinds: Kinds) -> Option<Arc<Snapshot>> {
        let young = |s: &Option<Arc<Snapshot>>| {
            s.as_ref().is_some_and(|s| s.monotonic.elapsed() <= max_age && s.kinds.has_all(kinds))
        };
        let mut latest = self.latest.clone();
        {
            let now = latest.borrow_and_update();
            if young(&now) {
                return now.clone();
            }
        }
        if self.requests.send(Request::Fresh(kinds)).is_ok() {
            // A closed channel or a passed deadline leaves what there is.
            let _ = tokio::time::timeout(patience, latest.wait_for(young)).await;
        }
        self.latest()
    }

    /// A way to make the reader thread look.
    pub fn looker(&self) -> Looker {
        Looker(Arc::downgrade(&self.requests))
    }

    /// Asks the reader thread to stop.
    pub fn stop(&self) {
        // A thread that is gone needs no asking.
        let _ = self.requests.send(Request::Stop);
    }
}
