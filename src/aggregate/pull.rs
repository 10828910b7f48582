//! Asks kubelets, at the end of each step, for what no agent pushes.
//!
//! Every node that is ready and has no living agent is asked for its summary, each
//! on its own: with a deadline of its own, begun a little after the step's end
//! by a hash of its name, so that neither the network nor this process has all of
//! them at once. A node that did not answer in time waits for its turn among those
//! that did not either, and one that is still being asked is not asked again: whoever
//! is sick costs the others nothing. What was told becomes a batch ([`step`]) and
//! goes the way of all batches.

pub mod bases;
mod kubelet;
pub mod step;
pub mod summary;

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::ingest::{Ingest, Refused};
use super::objects::pod_key;
use super::source::Pull;
use crate::kubernetes::Credentials;
use crate::push::batch;
use crate::telemetry::Limiter;
use crate::telemetry::pull::{Outcome, PullMetrics};
use bases::Bases;
use kubelet::{Answer, Kubelets};
use step::Head;
use summary::Summary;

/// How many nodes are asked at once, and how many of those that did not answer in
/// time when they were last asked.
const AT_ONCE: usize = 1_024;
const SICK_AT_ONCE: usize = 128;

/// For every node the asking is spread over so much more time, up to a most.
const SPREAD_A_NODE: Duration = Duration::from_millis(8);
const MAX_SPREAD: Duration = Duration::from_secs(4);

/// How long connections to kubelets may take to open.
const CONNECT: Duration = Duration::from_secs(5);

/// The deadline of an answer; steps shorter than that have a shorter one.
const DEADLINE: Duration = Duration::from_secs(10);
const MIN_DEADLINE: Duration = Duration::from_secs(2);

/// Kubelets are asked for what rates start from only if the step ends later than
/// this, milliseconds.
const FIRST_MS: u64 = 5_000;

/// Credentials are read again so often.
const CREDENTIALS: Duration = Duration::from_secs(600);

/// Why a node was not measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection, or it broke.
    #[error("{0}")]
    Unreachable(String),
    /// No whole answer in time.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The token cannot be read.
    #[error("cannot read the token: {0}")]
    Credentials(String),
    /// It said something else than 200.
    #[error("the kubelet answers {0}: {1}")]
    Status(u16, String),
    /// It says more than is read.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// What it says is no summary.
    #[error("the answer is no summary: {0}")]
    Malformed(String),
    /// The model does not take it.
    #[error("{0}")]
    Refused(String),
    /// It is still being asked for an earlier step.
    #[error("it has not answered for the step before")]
    Busy,
}

impl Failure {
    fn outcome(&self) -> Outcome {
        match self {
            Failure::Unreachable(_) => Outcome::Unreachable,
            Failure::Deadline(_) => Outcome::Deadline,
            Failure::Credentials(_) | Failure::Status(401 | 403, _) => Outcome::Credentials,
            Failure::Status(..) => Outcome::Status,
            Failure::TooLarge(_) => Outcome::TooLarge,
            Failure::Malformed(_) => Outcome::Malformed,
            Failure::Refused(_) => Outcome::Refused,
            Failure::Busy => Outcome::Busy,
        }
    }
}

/// One node, between two steps.
#[derive(Debug, Default)]
struct Asked {
    asking: AtomicBool,
    /// It did not answer in time when it was last asked.
    sick: AtomicBool,
    /// What was told of it last is a failure.
    failing: AtomicBool,
    bases: Mutex<Bases>,
}

/// See the module.
#[derive(Debug)]
pub struct Puller {
    ingest: Arc<Ingest>,
    pull: Pull,
    metrics: Arc<PullMetrics>,
    kubelets: Mutex<(Arc<Kubelets>, Instant)>,
    nodes: Mutex<BTreeMap<Box<str>, Arc<Asked>>>,
    lane: Semaphore,
    sick: Semaphore,
    decoding: Semaphore,
    boot_id: [u8; 16],
    sequence: AtomicU64,
    resolution: Duration,
    most: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is protected is whole at any time: a panic elsewhere changes nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Puller {
    /// Asks at most `most` nodes, as `pull` says.
    ///
    /// # Errors
    /// The credentials cannot be used.
    pub fn new(
        ingest: Arc<Ingest>,
        pull: Pull,
        credentials: Credentials,
        metrics: Arc<PullMetrics>,
        most: usize,
    ) -> Result<Puller> {
        let kubelets = Kubelets::new(&pull, credentials, CONNECT)?;
        let resolution = Duration::from_millis(ingest.model().resolution_ms());
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Puller {
            ingest,
            pull,
            metrics,
            kubelets: Mutex::new((Arc::new(kubelets), Instant::now())),
            nodes: Mutex::default(),
            lane: Semaphore::new(AT_ONCE),
            sick: Semaphore::new(SICK_AT_ONCE),
            decoding: Semaphore::new(cores.clamp(1, 4)),
            boot_id: batch::boot_id(),
            sequence: AtomicU64::new(0),
            resolution,
            most,
        })
    }

    /// Asks at the end of every step until `stop` says so. `credentials` are read
    /// again from time to time.
    pub async fn run<F, C>(self: Arc<Self>, credentials: F, mut stop: watch::Receiver<bool>)
    where
        F: Fn() -> C,
        C: Future<Output = Result<Credentials>>,
    {
        let mut asking = JoinSet::new();
        // So that there are rates at the end of the first step, if there is time.
        let slot_ms = self.ingest.model().resolution_ms();
        if slot_ms - now_ms() % slot_ms > FIRST_MS.max(slot_ms / 4) {
            self.round(None, &mut asking);
        }
        loop {
            let slot_ms = self.ingest.model().resolution_ms();
            let next = (now_ms() / slot_ms + 1) * slot_ms;
            // No longer than a step, should the clock be set back.
            while let Some(left @ 1..) = next.checked_sub(now_ms()).filter(|left| *left <= slot_ms) {
                let wait = Duration::from_millis(left.min(1_000));
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    changed = stop.changed() => if changed.is_err() || *stop.borrow() { return },
                }
            }
            while asking.try_join_next().is_some() {}
            if lock(&self.kubelets).1.elapsed() >= CREDENTIALS {
                self.renew(credentials().await);
            }
            self.round(Some(now_ms() / slot_ms * slot_ms), &mut asking);
        }
    }

    fn renew(&self, credentials: Result<Credentials>) {
        let made = credentials.and_then(|credentials| Kubelets::new(&self.pull, credentials, CONNECT));
        let mut kubelets = lock(&self.kubelets);
        match made {
            Ok(made) => *kubelets = (Arc::new(made), Instant::now()),
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "credentials cannot be read again; the last ones stay"
                );
                kubelets.1 = Instant::now();
            }
        }
    }

    /// Begins to ask all nodes that are to be asked for the step that ended at
    /// `slot_ms`; without one, only for what rates start from.
    fn round(self: &Arc<Self>, slot_ms: Option<u64>, asking: &mut JoinSet<()>) {
        let now = now_ms();
        let (mut not_ready, mut unaddressed, mut pushed) = (0, 0, 0);
        let mut found: Vec<(Box<str>, IpAddr)> = Vec::new();
        for (name, node) in self.ingest.model().facts().nodes.all() {
            match node.address {
                _ if self.ingest.is_pushed(&name, now) => pushed += 1,
                _ if !node.ready => not_ready += 1,
                Some(address) => found.push((name, address)),
                None => unaddressed += 1,
            }
        }
        found.sort();
        found.truncate(self.most);
        self.metrics.nodes([found.len(), pushed, not_ready, unaddressed]);
        let mut nodes = lock(&self.nodes);
        let named: BTreeSet<&str> = found.iter().map(|(name, _)| &**name).collect();
        // One that is pushed for a while starts over after it.
        nodes.retain(|name, asked| named.contains(&**name) || asked.asking.load(Relaxed));
        let spread = SPREAD_A_NODE.saturating_mul(u32::try_from(found.len()).unwrap_or(u32::MAX));
        let spread = spread.min(MAX_SPREAD).min(self.resolution / 8);
        for (name, address) in found {
            let asked = Arc::clone(nodes.entry(name.clone()).or_default());
            if asked.asking.swap(true, Relaxed) {
                self.metrics.asked(Outcome::Busy, None);
                continue;
            }
            let delay = spread.mul_f64(share(&name));
            let puller = Arc::clone(self);
            asking.spawn(async move {
                tokio::time::sleep(delay).await;
                puller.ask(&name, address, &asked, slot_ms).await;
                asked.asking.store(false, Relaxed);
            });
        }
    }

    async fn ask(&self, name: &str, address: IpAddr, asked: &Arc<Asked>, slot_ms: Option<u64>) {
        let lane = if asked.sick.load(Relaxed) { &self.sick } else { &self.lane };
        // It is closed by nobody.
        let Ok(turn) = lane.acquire().await else { return };
        let began = Instant::now();
        let kubelets = Arc::clone(&lock(&self.kubelets).0);
        let answer = kubelets.summary(address, self.deadline()).await;
        let took = began.elapsed();
        drop(turn);
        asked.sick.store(matches!(answer, Err(Failure::Deadline(_))), Relaxed);
        let taken = match answer {
            Ok(answer) => self.take(name, answer, asked, slot_ms).await,
            Err(failure) => Err(failure),
        };
        self.tell(name, address, asked, &taken, took);
    }

    fn deadline(&self) -> Duration {
        self.resolution.clamp(MIN_DEADLINE, DEADLINE)
    }

    async fn take(
        &self,
        name: &str,
        answer: Answer,
        asked: &Arc<Asked>,
        slot_ms: Option<u64>,
    ) -> Result<(), Failure> {
        let Ok(_turn) = self.decoding.acquire().await else { return Ok(()) };
        let (ingest, name, asked) = (Arc::clone(&self.ingest), name.to_owned(), Arc::clone(asked));
        let boot_id = self.boot_id;
        let sequence = self.sequence.fetch_add(1, Relaxed) + 1;
        let taken = tokio::task::spawn_blocking(move || {
            let summary: Summary =
                serde_json::from_slice(&answer.body).map_err(|e| Failure::Malformed(e.to_string()))?;
            drop(answer);
            let resolution_ms = ingest.model().resolution_ms();
            let now_ms = now_ms();
            let head = Head {
                node: &name,
                boot_id,
                sequence,
                time_ms: slot_ms.unwrap_or(now_ms / resolution_ms * resolution_ms),
                resolution_ms,
                now_ms,
            };
            let facts = ingest.model().facts();
            let pod = |namespace: &str, pod: &str| facts.pods.get(&pod_key(namespace, pod));
            let made = step::batch(&head, &summary, &pod, &mut lock(&asked.bases));
            let batch = made.map_err(|error| Failure::Malformed(error.to_string()))?;
            if slot_ms.is_none() {
                return Ok(());
            }
            let taken = ingest.take_pulled(batch, now_ms);
            taken.map_err(|Refused { message, .. }| Failure::Refused(message))
        });
        taken.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a summary could not be taken");
            Err(Failure::Malformed("it cannot be taken, which is a fault here".to_owned()))
        })
    }

    fn tell(&self, name: &str, address: IpAddr, asked: &Asked, taken: &Result<(), Failure>, took: Duration) {
        static TOLD: Limiter = Limiter::every(Duration::from_secs(10));
        let Err(failure) = taken else {
            self.metrics.asked(Outcome::Taken, Some(took));
            if asked.failing.swap(false, Relaxed) {
                tracing::info!(node = name, "the kubelet answers again");
            }
            return;
        };
        self.metrics.asked(failure.outcome(), Some(took));
        // Each node once, as long as it stays so.
        if !asked.failing.swap(true, Relaxed)
            && let Some(suppressed) = TOLD.pass()
        {
            tracing::warn!(node = name, %address, error = %failure, suppressed, "the kubelet does not tell");
        }
    }
}

/// Where a node is among the others: 0 to 1, the same each time.
fn share(name: &str) -> f64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    f64::from(u16::try_from(hasher.finish() >> 48).unwrap_or(u16::MAX)) / f64::from(u16::MAX)
}
