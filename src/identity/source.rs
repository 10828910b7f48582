//! A source of identities, its supervision and its self-report.
//!
//! Each source runs as a task of its own: it connects, tells all it knows,
//! follows changes, and ends only by an error. Then it is tried again, for
//! ever, so that a runtime may start an hour after the agent, be replaced, or
//! hang; what it told before stays, since containers outlive their runtime's
//! daemon.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::watch;

use super::model::{Names, cut};
use super::store::{Store, View};

/// Bytes of an error's text that are kept.
const MAX_ERROR: usize = 300;

/// What kind of source, best first for containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// Docker's Engine API, also Podman's.
    Docker,
    /// The Container Runtime Interface.
    Cri,
    /// The kubelet's pods socket.
    PodsApi,
    /// The kubelet's `/pods`.
    Kubelet,
    /// `/var/log/containers` and `/var/log/pods`.
    LogLinks,
}

impl SourceKind {
    /// The runtime's own word on a container comes first.
    pub(super) fn container_rank(self) -> u8 {
        match self {
            SourceKind::Docker => 0,
            SourceKind::Cri => 1,
            SourceKind::PodsApi => 2,
            SourceKind::Kubelet => 3,
            SourceKind::LogLinks => 4,
        }
    }

    /// The kubelet's word on a pod comes first.
    pub(super) fn pod_rank(self) -> u8 {
        match self {
            SourceKind::PodsApi => 0,
            SourceKind::Kubelet => 1,
            SourceKind::Cri => 2,
            SourceKind::Docker => 3,
            SourceKind::LogLinks => 4,
        }
    }

    pub(super) fn is_runtime(self) -> bool {
        matches!(self, SourceKind::Docker | SourceKind::Cri)
    }
}

/// Whether a source answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// Not yet answered, not yet failed.
    Starting,
    /// There is no such socket or directory.
    Absent,
    /// Answers.
    Up,
    /// Failed; tried again for ever.
    Down,
}

/// One source's self-report, for `check` and our own metrics.
#[derive(Debug, Clone, Serialize)]
pub struct SourceStatus {
    /// What kind.
    pub kind: SourceKind,
    /// Its name in [`RUNTIMES`](super::RUNTIMES), or `kubelet`, `pods-api`, `log-links`.
    pub name: &'static str,
    /// Socket, URL or directory.
    pub endpoint: String,
    /// Whether it answers.
    pub state: SourceState,
    /// Since when.
    pub since: SystemTime,
    /// What it says it is, for example `containerd 1.7.2`.
    pub version: Option<String>,
    /// Whether it tells changes by itself; absent until known.
    pub events: Option<bool>,
    /// How long its last complete answer took.
    pub latency: Option<Duration>,
    /// When the last complete answer came.
    pub last_answer: Option<SystemTime>,
    /// Why it failed last.
    pub last_error: Option<String>,
    /// Containers it knows.
    pub containers: usize,
    /// Pods it knows.
    pub pods: usize,
    /// Complete answers since start.
    pub answers: u64,
    /// Failed sessions since start.
    pub failures: u64,
    /// Entries it told that we could not use, since start.
    pub rejected: u64,
    /// Whether it has answered or failed at least once.
    pub tried: bool,
    /// Where a runtime keeps images and layers; empty until known.
    pub images: Vec<ImageFilesystem>,
    /// The runtime's own version and that of its API, where it tells both.
    #[serde(skip)]
    pub versions: Option<(String, String)>,
}

/// A filesystem on which a runtime keeps images or layers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImageFilesystem {
    /// A directory on it, as the host has it: CRI `fs_id.mountpoint`, Docker
    /// `DockerRootDir`. Space is told by `statfs` there.
    pub path: String,
    /// Whether it is told of writable layers, which may be apart from images.
    pub layers: bool,
    /// The runtime's own count, bytes; Docker does not keep one.
    pub used_bytes: Option<u64>,
    /// Likewise, inodes.
    pub inodes_used: Option<u64>,
    /// When the runtime counted. Nanoseconds since the epoch.
    pub measured_ns: Option<u64>,
}

impl SourceStatus {
    /// A source that is about to start.
    pub(super) fn new(kind: SourceKind, name: &'static str, endpoint: impl fmt::Display) -> Self {
        SourceStatus {
            kind,
            name,
            endpoint: endpoint.to_string(),
            state: SourceState::Starting,
            since: SystemTime::now(),
            version: None,
            events: None,
            latency: None,
            last_answer: None,
            last_error: None,
            containers: 0,
            pods: 0,
            answers: 0,
            failures: 0,
            rejected: 0,
            tried: false,
            images: Vec::new(),
            versions: None,
        }
    }
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// There is no such socket or directory: normal on most hosts.
    #[error("not there")]
    Absent,
    /// No answer within the deadline.
    #[error("{what}: no answer within {} ms", .deadline.as_millis())]
    Slow { what: &'static str, deadline: Duration },
    /// An answer came, but not one of use; the connection is fine.
    #[error("{what}: {cause}")]
    Refused { what: &'static str, cause: String },
    /// Anything else.
    #[error("{what}: {cause}")]
    Failed { what: &'static str, cause: String },
}

impl SourceError {
    pub(super) fn failed(what: &'static str, cause: impl fmt::Display) -> Self {
        let cause = cause.to_string();
        SourceError::Failed { what, cause: cut(&cause, MAX_ERROR).to_owned() }
    }

    pub(super) fn refused(what: &'static str, cause: impl fmt::Display) -> Self {
        let cause = cause.to_string();
        SourceError::Refused { what, cause: cut(&cause, MAX_ERROR).to_owned() }
    }

    pub(super) fn io(what: &'static str, error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => SourceError::Absent,
            _ => SourceError::failed(what, error),
        }
    }
}

/// Runs a call with a deadline.
pub(super) async fn within<T>(
    what: &'static str,
    deadline: Duration,
    call: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => answer,
        Err(_) => Err(SourceError::Slow { what, deadline }),
    }
}

/// How patient the sources are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// For one small call.
    pub call: Duration,
    /// For a list of everything.
    pub list: Duration,
    /// Between two complete refreshes when nothing asks for one.
    pub refresh: Duration,
    /// Between two refreshes that were asked for; the kubelet's is ten times that.
    pub gap: Duration,
    /// First wait after a failure; doubles up to `retry_max`.
    pub retry_min: Duration,
    /// Longest wait after a failure.
    pub retry_max: Duration,
    /// Between two looks at whether a socket has appeared.
    pub absent: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            call: Duration::from_secs(2),
            list: Duration::from_secs(5),
            refresh: Duration::from_secs(30),
            gap: Duration::from_millis(100),
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_secs(30),
            absent: Duration::from_secs(5),
        }
    }
}

/// A future in a box, since sources are trait objects.
pub(super) type Session<'a> = Pin<Box<dyn Future<Output = Result<Infallible, SourceError>> + Send + 'a>>;

/// One place that knows identities.
pub(super) trait Source: Send {
    /// Connects, tells all it knows, follows changes. Ends only by an error.
    fn session<'a>(&'a mut self, feed: &'a mut Feed) -> Session<'a>;
}

/// A source's way into the store.
#[derive(Debug)]
pub(super) struct Feed {
    store: Arc<Store>,
    slot: usize,
    pokes: watch::Receiver<u64>,
    last_refresh: Option<Instant>,
    /// Whether a refresh was asked for since the last one.
    asked: bool,
    was_up: bool,
    /// Strings this source shares between its entries.
    pub(super) names: Names,
    pub(super) timing: Timing,
}

impl Feed {
    pub(super) fn new(store: &Arc<Store>, status: SourceStatus, timing: Timing) -> Self {
        Feed {
            slot: store.add(status),
            pokes: store.pokes(),
            store: Arc::clone(store),
            last_refresh: None,
            asked: false,
            was_up: false,
            names: Names::default(),
            timing,
        }
    }

    /// Replaces all this source has told.
    pub(super) fn publish(&mut self, view: View) {
        self.store.publish(self.slot, view);
        self.names.sweep();
    }

    /// Notes what is being talked to.
    pub(super) fn version(&mut self, version: String) {
        self.store.update(self.slot, |s| s.version = Some(cut(&version, MAX_ERROR).to_owned()));
    }

    /// Notes a version and that of the API.
    pub(super) fn api(&mut self, version: &str, api: &str) {
        let short = |text: &str| cut(text, MAX_ERROR).to_owned();
        self.store.update(self.slot, |s| s.versions = Some((short(version), short(api))));
    }

    /// Notes whether changes are told without being asked for.
    pub(super) fn events(&mut self, offered: bool) {
        self.store.update(self.slot, |s| s.events = Some(offered));
    }

    /// Notes where images and layers are.
    pub(super) fn images(&mut self, images: Vec<ImageFilesystem>) {
        self.store.update(self.slot, |s| s.images = images);
    }

    /// Notes entries that could not be used.
    pub(super) fn rejected(&mut self, count: u64) {
        if count > 0 {
            self.store.update(self.slot, |s| s.rejected += count);
        }
    }

    /// Notes that everything was listed, though not in every detail.
    pub(super) fn listed(&mut self) {
        self.last_refresh = Some(Instant::now());
    }

    /// Notes an answer that told everything. Call after publishing it.
    pub(super) fn answered(&mut self, took: Duration) {
        self.listed();
        self.complete(took);
    }

    /// Notes that the details of what was listed have come and are published.
    pub(super) fn complete(&mut self, took: Duration) {
        let mut news = None;
        self.store.update(self.slot, |s| {
            if s.state != SourceState::Up {
                s.state = SourceState::Up;
                s.since = SystemTime::now();
                news = Some((s.name, s.endpoint.clone(), s.version.clone()));
            }
            s.tried = true;
            s.answers += 1;
            s.latency = Some(took);
            s.last_answer = Some(SystemTime::now());
            s.last_error = None;
        });
        self.was_up = true;
        if let Some((source, endpoint, version)) = news {
            tracing::info!(source, endpoint, version, "identity source answers");
        }
    }

    /// Waits for the next refresh: when the reader saw an unknown id, but not
    /// within `gap` of the last one, and in any case after the refresh period.
    /// May be dropped and called again; nothing that was asked is forgotten.
    pub(super) async fn refresh_due(&mut self, gap: Duration) {
        let last = self.last_refresh.unwrap_or_else(Instant::now);
        let until = |wait: Duration| tokio::time::sleep_until(tokio::time::Instant::from_std(last + wait));
        if !self.asked {
            tokio::select! {
                () = until(self.timing.refresh) => return,
                () = poked(&mut self.pokes) => self.asked = true,
            }
        }
        until(gap.min(self.timing.refresh)).await;
        self.asked = false;
    }

    fn ended(&mut self, error: &SourceError) {
        let state = match error {
            SourceError::Absent => SourceState::Absent,
            SourceError::Slow { .. } | SourceError::Refused { .. } | SourceError::Failed { .. } => {
                SourceState::Down
            }
        };
        let mut news = None;
        self.store.update(self.slot, |s| {
            if s.state != state {
                s.state = state;
                s.since = SystemTime::now();
                news = Some((s.name, s.endpoint.clone()));
            }
            s.tried = true;
            s.failures += u64::from(state == SourceState::Down);
            s.last_error = (state == SourceState::Down).then(|| error.to_string());
        });
        match news {
            Some((source, endpoint)) if state == SourceState::Down || self.was_up => {
                tracing::warn!(source, endpoint, %error, "identity source does not answer; names it gave stay");
            }
            Some((source, endpoint)) => tracing::debug!(source, endpoint, "identity source is not there"),
            None => {}
        }
    }
}

/// A closed channel means the store is gone: then nothing is ever asked.
async fn poked(pokes: &mut watch::Receiver<u64>) {
    if pokes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Runs a source for ever.
pub(super) async fn supervise(mut source: Box<dyn Source>, mut feed: Feed) {
    let timing = feed.timing;
    let mut backoff = Backoff::new(timing.retry_min, timing.retry_max);
    loop {
        feed.was_up = false;
        let Err(error) = source.session(&mut feed).await;
        feed.ended(&error);
        if feed.was_up {
            backoff.reset();
        }
        let wait = match error {
            SourceError::Absent => timing.absent,
            SourceError::Slow { .. } | SourceError::Refused { .. } | SourceError::Failed { .. } => {
                backoff.next()
            }
        };
        // An unknown id is a hint that a runtime has appeared.
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = poked(&mut feed.pokes), if matches!(error, SourceError::Absent) => {
                tokio::time::sleep(timing.gap).await;
            }
        }
    }
}

/// Waits that double up to a limit, each shortened by up to a half at random,
/// so that many agents do not return to one kubelet or runtime at once.
#[derive(Debug)]
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    fn new(min: Duration, max: Duration) -> Self {
        Backoff { min, max, next: min }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    fn next(&mut self) -> Duration {
        let full = self.next;
        self.next = full.saturating_mul(2).min(self.max);
        // The standard hasher's random keys are all the randomness needed here.
        let random = RandomState::new().hash_one(0u8) % 1024;
        let shorten = full / 2 * u32::try_from(random).unwrap_or(0) / 1024;
        full - shorten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_its_limit_and_resets() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(min, max);
        for want in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next();
            let want = Duration::from_millis(want);
            assert!(wait <= want && wait > want / 2, "{wait:?} of {want:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= min);
    }

    #[test]
    fn errors_are_short() {
        let error = SourceError::failed("list", "x".repeat(10_000)).to_string();
        assert!(error.len() < 400, "{}", error.len());
    }
}
