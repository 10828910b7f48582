//! Which of several aggregators sends: the one that holds a Lease of Kubernetes, or
//! of a file that all can write.
//!
//! All of them queue the same steps. The holder sends, and writes beside its name
//! what each sink has taken; the others give that up in their queues. Once the
//! lease was not renewed for its whole length, by the clock of whoever waits,
//! another takes it and goes on with what is left in its queue.
//!
//! The holder sends for two thirds of the lease after it began to renew it and
//! no longer, whatever becomes of the renewal: what is in flight then is cut. So
//! two never send at once, as long as clocks run at about the same pace. Should
//! they do it all the same, they write the same points.

mod file;
mod kubernetes;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::sending::Queue;
use crate::aggregate::steps::Taken;
use crate::config::Ha;
use crate::push::batch;
use crate::push::delivery::gate::Keeper;
use crate::telemetry::Limiter;
use crate::telemetry::lead::Leading;
pub use file::FilePlace;
pub use kubernetes::LeasePlace;

/// What is written where leadership is decided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    /// Who has it; nobody, if empty.
    pub holder: String,
    /// For how long after each renewal.
    pub lease_seconds: u64,
    /// When it was last renewed, microseconds since the epoch by the holder's clock:
    /// others see by it that it was renewed, and nothing else.
    pub renewed_us: i64,
    /// How often it went to another.
    pub transitions: u64,
    /// What each sink has taken.
    pub acknowledged: BTreeMap<String, Told>,
}

/// [`Taken`] as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    /// See [`Taken::since_ms`].
    pub since_ms: u64,
    /// See [`Taken::through_ms`].
    pub through_ms: u64,
    /// See [`Taken::slots`]; digests in hexadecimal, since JSON's numbers are doubles.
    pub slots: BTreeMap<u64, String>,
}

impl From<Taken> for Told {
    fn from(taken: Taken) -> Told {
        let Taken { since_ms, through_ms, slots } = taken;
        let slots = slots.into_iter().map(|(slot, digest)| (slot, format!("{digest:x}"))).collect();
        Told { since_ms, through_ms, slots }
    }
}

impl From<&Told> for Taken {
    fn from(told: &Told) -> Taken {
        let slots = told.slots.iter();
        let slots = slots.filter_map(|(slot, text)| Some((*slot, u64::from_str_radix(text, 16).ok()?)));
        Taken { since_ms: told.since_ms, through_ms: told.through_ms, slots: slots.collect() }
    }
}

/// What is made of what is there; `None` leaves it.
pub type Decide<'a> = Box<dyn FnMut(Option<&Held>) -> Option<Held> + Send + 'a>;

/// What comes of an exchange: what is there afterwards.
pub type Exchanged<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Option<Held>>> + Send + 'a>>;

/// Where leadership is decided.
pub trait Place: Send + Sync {
    /// Reads what is there, and writes what is made of it, if nobody else wrote
    /// meanwhile. It fails if somebody did.
    fn exchange<'a>(&'a mut self, decide: Decide<'a>) -> Exchanged<'a>;
}

/// The place that the user named.
pub fn place(ha: &Ha) -> Box<dyn Place> {
    match ha {
        Ha::File(path) => Box::new(FilePlace::new(path.clone())),
        Ha::Lease { namespace, name } => Box::new(LeasePlace::new(namespace, name)),
    }
}

/// A name that no other process has: the machine's, which is the pod's, and
/// something random.
pub fn identity() -> String {
    let [a, b, c, d, ..] = batch::boot_id();
    let host = nix::sys::utsname::uname().map(|names| names.nodename().to_string_lossy().into_owned());
    format!("{}-{a:02x}{b:02x}{c:02x}{d:02x}", host.unwrap_or_else(|_| "nodegauge".to_owned()))
}

/// Between two looks at whether everything is sent, at the end.
const DRAINED: Duration = Duration::from_millis(50);

/// As whom, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    identity: String,
    lease: Duration,
}

impl Options {
    /// For this identity and length of the lease.
    pub fn new(identity: String, lease: Duration) -> Options {
        Options { identity, lease }
    }

    /// After the beginning of a renewal, how long is sent.
    fn valid(&self) -> Duration {
        self.lease / 3 * 2
    }
}

/// See the module.
pub struct Lead {
    place: Box<dyn Place>,
    options: Options,
    queue: Arc<Queue>,
    keeper: Keeper,
    leading: Arc<Leading>,
    /// What was last seen of another's, and since when it is unchanged.
    other: Option<(String, i64, Instant)>,
    is_leader: bool,
    /// Until when, if it is not renewed.
    until: Instant,
    /// What was last told of the sinks.
    told: BTreeMap<String, Told>,
}

impl std::fmt::Debug for Lead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lead").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Lead {
    /// One that holds nothing yet.
    pub fn new(
        place: Box<dyn Place>,
        options: Options,
        queue: Arc<Queue>,
        keeper: Keeper,
        leading: Arc<Leading>,
    ) -> Lead {
        leading.enable();
        let (other, told) = (None, BTreeMap::new());
        let until = Instant::now();
        Lead { place, options, queue, keeper, leading, other, is_leader: false, until, told }
    }

    /// Takes, keeps and loses the lease until `stop` turns true; then keeps it until
    /// everything is sent, and gives it back.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            self.turn().await;
            let stopping = *stop.borrow();
            if stopping && !self.is_leader {
                return;
            }
            if stopping && self.is_sent().await {
                self.give_back().await;
                return;
            }
            if stopping {
                tokio::time::sleep(DRAINED.min(self.pause())).await;
            } else {
                tokio::select! {
                    () = tokio::time::sleep(self.pause()) => {}
                    // A channel that is closed asks for the same.
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            }
        }
    }

    /// Between two renewals.
    fn pause(&self) -> Duration {
        self.options.lease / 5
    }

    /// One look at the lease, and what follows from it.
    async fn turn(&mut self) {
        let begun = Instant::now();
        if self.is_leader {
            self.tell().await;
        }
        let exchanged = self.exchange(begun).await;
        let held = match exchanged {
            Ok(held) => held,
            Err(error) => {
                self.leading.failed();
                static LIMITER: Limiter = Limiter::every(Duration::from_secs(60));
                if let Some(suppressed) = LIMITER.pass() {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        suppressed,
                        "cannot read or renew the lease"
                    );
                }
                // The gate closes by itself.
                if self.is_leader && begun >= self.until {
                    self.step_down("it could not be renewed");
                }
                return;
            }
        };
        let Some(held) = held else { return };
        if held.holder != self.options.identity {
            if self.is_leader {
                self.step_down("another has it");
            }
            self.trim(&held).await;
            self.leading.acknowledged(through(&held.acknowledged));
            return;
        }
        if !self.is_leader {
            // What the one before has sent is not sent again.
            self.trim(&held).await;
            self.is_leader = true;
            self.leading.became(true);
            tracing::info!(
                identity = self.options.identity,
                transitions = held.transitions,
                "this one sends now"
            );
        }
        self.until = begun + self.options.valid();
        self.keeper.open_until(self.until);
        self.leading.acknowledged(through(&held.acknowledged));
    }

    fn step_down(&mut self, why: &str) {
        self.keeper.close();
        self.is_leader = false;
        self.other = None;
        self.leading.became(false);
        tracing::warn!(why, "this one no longer sends");
    }

    async fn exchange(&mut self, now: Instant) -> anyhow::Result<Option<Held>> {
        let Lead { place, options, other, told, is_leader, .. } = self;
        let mine = |held: Option<&Held>, transitions: u64| Held {
            holder: options.identity.clone(),
            lease_seconds: options.lease.as_secs(),
            renewed_us: now_us(),
            transitions,
            acknowledged: match (*is_leader, held) {
                // Until the first that is told is our own.
                (false, Some(held)) => held.acknowledged.clone(),
                _ => told.clone(),
            },
        };
        let decide = |held: Option<&Held>| {
            let Some(found) = held else { return Some(mine(None, 0)) };
            if found.holder == options.identity {
                return Some(mine(held, found.transitions));
            }
            let same = other
                .as_ref()
                .filter(|(holder, renewed, _)| *holder == found.holder && *renewed == found.renewed_us);
            let since = same.map_or(now, |(_, _, since)| *since);
            *other = Some((found.holder.clone(), found.renewed_us, since));
            let lease = Duration::from_secs(found.lease_seconds).max(options.lease);
            let over = found.holder.is_empty() || now.saturating_duration_since(since) > lease;
            over.then(|| mine(held, found.transitions.saturating_add(1)))
        };
        let deadline = options.lease / 3;
        match tokio::time::timeout(deadline, place.exchange(Box::new(decide))).await {
            Ok(exchanged) => exchanged,
            Err(_) => Err(anyhow::anyhow!("no answer within {deadline:?}")),
        }
    }

    /// Asks what each sink has taken. A queue that does not answer now, since its
    /// disk hangs, keeps nobody from renewing.
    async fn tell(&mut self) {
        let queue = Arc::clone(&self.queue);
        let taken = tokio::task::spawn_blocking(move || queue.taken());
        if let Ok(Ok(taken)) = tokio::time::timeout(self.options.lease / 6, taken).await {
            self.told = taken.into_iter().map(|(sink, taken)| (sink, taken.into())).collect();
        }
    }

    async fn is_sent(&self) -> bool {
        let queue = Arc::clone(&self.queue);
        tokio::task::spawn_blocking(move || queue.is_sent()).await.unwrap_or(false)
    }

    async fn trim(&self, held: &Held) {
        let taken: BTreeMap<String, Taken> =
            held.acknowledged.iter().map(|(sink, told)| (sink.clone(), told.into())).collect();
        if taken.is_empty() {
            return;
        }
        let queue = Arc::clone(&self.queue);
        let trimmed = tokio::task::spawn_blocking(move || queue.trim(&taken)).await.unwrap_or(0);
        if trimmed > 0 {
            tracing::debug!(steps = trimmed, holder = held.holder, "sent by another");
        }
    }

    /// Says that nobody has the lease, so that the next takes it at once.
    async fn give_back(&mut self) {
        self.keeper.close();
        self.tell().await;
        let Lead { place, options, told, .. } = self;
        let decide = |held: Option<&Held>| {
            let found = held.filter(|held| held.holder == options.identity)?;
            Some(Held { holder: String::new(), acknowledged: told.clone(), ..found.clone() })
        };
        let given = tokio::time::timeout(options.lease / 3, place.exchange(Box::new(decide))).await;
        if !matches!(given, Ok(Ok(_))) {
            tracing::warn!("the lease was not given back: another takes it when it is over");
        }
        self.leading.became(false);
    }
}

fn through(acknowledged: &BTreeMap<String, Told>) -> Vec<(String, u64)> {
    acknowledged.iter().map(|(sink, told)| (sink.clone(), told.through_ms)).collect()
}

fn now_us() -> i64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |now| i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}
