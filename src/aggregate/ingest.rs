//! Bytes that an agent sent → the model, or why not.
//!
//! What comes is not trusted: it is bounded before it is read, belongs to a node its sender
//! may speak for, to a name nobody else uses ([`claims`](super::claims)), and to
//! a time near ours. What was taken is acknowledged with the boot id of this
//! process, as is what had been taken before, or is older than what is kept.
//!
//! The model is held in memory and stands on the wall clock. When that clock is set, by more than
//! a slot, nothing in the model stands where it should: it is emptied, and the
//! boot id changes, so that agents send what they still have once more.
//!
//! Time is passed in: the wall clock of this process, milliseconds since the epoch.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::claims::{Claims, Unclaimed};
use super::model::{Model, NodeStatus};
use super::node::Taken;
use super::snapshot;
use crate::push::batch::{self, Batch, DecodeError, MAX_DECOMPRESSED};
use crate::telemetry::Limiter;

/// What most batches decompress to at most: a node of 2,000 containers.
const USUAL_BYTES: usize = 1 << 20;

/// Entities of a batch that is taken: more than agents put in.
const MAX_ENTITIES: usize = 16_384;

/// Bytes of any string of a batch that is taken: agents cut theirs shorter.
const MAX_STRING: usize = 4_096;

/// Bytes of a node's name, as in Kubernetes.
const MAX_NAME: usize = 253;

/// Nodes whose silence is told one by one; of more at once, only how many.
const TOLD_AT_ONCE: usize = 5;

/// Why a batch was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is no batch, or contradicts itself.
    Malformed,
    /// Its version is not known.
    Version,
    /// It is too large, or has too much of something.
    TooLarge,
    /// It stands for a moment that has not come.
    Future,
    /// Its sender may not speak for that node.
    Foreign,
    /// Another agent with the same node name is alive.
    Contested,
    /// As many nodes are held as may be.
    Nodes,
    /// Its node sends more than it can have measured.
    Rate,
    /// More came at once than is held in memory.
    Busy,
    /// It did not come in time.
    Slow,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 10] = [
        Reason::Malformed,
        Reason::Version,
        Reason::TooLarge,
        Reason::Future,
        Reason::Foreign,
        Reason::Contested,
        Reason::Nodes,
        Reason::Rate,
        Reason::Busy,
        Reason::Slow,
    ];

    /// As the metrics say it.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::Version => "version",
            Reason::TooLarge => "too_large",
            Reason::Future => "future",
            Reason::Foreign => "foreign_node",
            Reason::Contested => "contested_name",
            Reason::Nodes => "too_many_nodes",
            Reason::Rate => "rate",
            Reason::Busy => "busy",
            Reason::Slow => "slow",
        }
    }
}

/// A batch that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// Why, as a kind.
    pub reason: Reason,
    /// Why, in words for the agent's log.
    pub message: String,
}

impl Refused {
    /// For a reason and in words.
    pub fn new(reason: Reason, message: impl Into<String>) -> Refused {
        Refused { reason, message: message.into() }
    }
}

impl From<DecodeError> for Refused {
    fn from(error: DecodeError) -> Refused {
        let reason = match &error {
            DecodeError::Version { .. } => Reason::Version,
            DecodeError::TooLarge { .. } | DecodeError::TooMany { .. } => Reason::TooLarge,
            DecodeError::NotABatch
            | DecodeError::Compression(_)
            | DecodeError::Message(_)
            | DecodeError::Malformed(_) => Reason::Malformed,
        };
        Refused::new(reason, error.to_string())
    }
}

/// What is answered for a batch that is held now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Of this process, until its clock is set.
    pub boot_id: [u8; 16],
    /// The batch's.
    pub sequence: u64,
}

/// What came so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Batches taken.
    pub batches: u64,
    /// Values in them.
    pub values: u64,
    /// Their bytes as they came.
    pub bytes: u64,
    /// Of these, batches for steps that were closed already.
    pub late: u64,
    /// Batches that had been taken before.
    pub duplicates: u64,
    /// Batches older than what is kept.
    pub too_old: u64,
    /// Batches not taken, in the order of [`Reason::ALL`].
    pub refused: [u64; Reason::ALL.len()],
    /// Steps closed.
    pub steps: u64,
    /// From the end of the last step closed until it was closed, milliseconds.
    pub lag_ms: Option<u64>,
    /// Times everything was forgotten because the clock was set.
    pub clock_set: u64,
    /// Times an entity of a batch found no place.
    pub unplaced: u64,
}

#[derive(Debug, Default)]
struct Counters {
    batches: AtomicU64,
    values: AtomicU64,
    bytes: AtomicU64,
    late: AtomicU64,
    duplicates: AtomicU64,
    too_old: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
}

/// What only the ticks know.
#[derive(Debug, Default)]
struct Watch {
    /// Wall clock and monotonic clock at the last tick.
    clocks: Option<(u64, Duration)>,
    silent: BTreeSet<Arc<str>>,
    steps: u64,
    lag_ms: Option<u64>,
    clock_set: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Ingest {
    model: Arc<Model>,
    claims: Claims,
    snapshots: snapshot::Counts,
    boot_id: Mutex<[u8; 16]>,
    counters: Counters,
    watch: Mutex<Watch>,
    /// A batch that is larger than usual is read alone.
    large: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is protected is whole at any time: a panic elsewhere changes nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ingest {
    /// Into a model, of at most `nodes` nodes.
    pub fn new(model: Arc<Model>, nodes: usize) -> Ingest {
        let slot_ms = model.resolution_ms();
        Ingest {
            model,
            claims: Claims::new(slot_ms, nodes),
            snapshots: snapshot::Counts::default(),
            boot_id: Mutex::new(batch::boot_id()),
            counters: Counters::default(),
            watch: Mutex::default(),
            large: Mutex::new(()),
        }
    }

    /// What it goes into.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Takes the bytes of a batch whose head came at `now_ms`, from somebody who
    /// is bound to the node `bound`, if that can be told. Takes as long as reading
    /// it takes.
    ///
    /// # Errors
    /// It was not taken. That is counted.
    pub fn take(&self, bytes: &[u8], bound: Option<&str>, now_ms: u64) -> Result<Held, Refused> {
        let taken = self.try_take(bytes, bound, now_ms);
        if let Err(refused) = &taken {
            self.refused(refused.reason);
        }
        taken
    }

    /// Counts a batch that was not taken before it was read.
    pub fn refused(&self, reason: Reason) {
        if let Some(at) = Reason::ALL.iter().position(|known| *known == reason)
            && let Some(count) = self.counters.refused.get(at)
        {
            count.fetch_add(1, Relaxed);
        }
    }

    fn try_take(&self, bytes: &[u8], bound: Option<&str>, now_ms: u64) -> Result<Held, Refused> {
        let mut batch = self.read(bytes)?;
        plausible(&batch)?;
        if let Some(bound) = bound.filter(|bound| *bound != batch.node()) {
            let text = format!("{bound:?} may not speak for node {:?}", batch.node());
            return Err(Refused::new(Reason::Foreign, text));
        }
        let shift = self.claims.admit(&batch, now_ms).map_err(|unclaimed| refuse_name(&batch, unclaimed))?;
        let ahead = batch.sent_ms().map(|sent| i128::from(sent) - i128::from(now_ms));
        if shift != 0 {
            batch.move_back(shift);
        }
        let held = Held { boot_id: self.boot_id(), sequence: batch.sequence() };
        let model = &self.model;
        let latest = now_ms.saturating_add(self.claims.tolerance_ms()).saturating_add(model.resolution_ms());
        if batch.time_ms() > latest {
            let ahead = batch.time_ms() - now_ms;
            return Err(Refused::new(Reason::Future, format!("its moment comes in {ahead} ms only")));
        }
        let values = u64::try_from(batch.values()).unwrap_or(u64::MAX);
        let closed = model.closed_ms();
        if batch.time_ms().saturating_add(model.kept_ms()) < now_ms {
            self.counters.too_old.fetch_add(1, Relaxed);
            return Ok(held);
        }
        model.facts().amend(&mut batch);
        let taken = model.ingest(&batch, now_ms);
        if let Some(ahead) = ahead.filter(|_| shift != 0) {
            model.clock_is_ahead(batch.node(), i64::try_from(ahead).unwrap_or(i64::MAX));
        }
        match taken {
            Taken::Slot(slot) => {
                self.counters.batches.fetch_add(1, Relaxed);
                self.counters.values.fetch_add(values, Relaxed);
                let bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                self.counters.bytes.fetch_add(bytes, Relaxed);
                self.counters.late.fetch_add(u64::from(closed >= Some(slot)), Relaxed);
            }
            Taken::Duplicate => {
                self.counters.duplicates.fetch_add(1, Relaxed);
            }
            Taken::TooOld => {
                self.counters.too_old.fetch_add(1, Relaxed);
            }
        }
        Ok(held)
    }

    /// Whether a node has an agent that pushes.
    pub fn is_pushed(&self, node: &str, now_ms: u64) -> bool {
        self.claims.is_alive(node, now_ms)
    }

    /// Takes a batch made here of what a kubelet told, at `now_ms`.
    ///
    /// # Errors
    /// It has too much of something, or the node has an agent by now, whose pushes
    /// say more.
    pub fn take_pulled(&self, mut batch: Batch, now_ms: u64) -> Result<(), Refused> {
        plausible(&batch)?;
        if self.is_pushed(batch.node(), now_ms) {
            return Err(Refused::new(Reason::Contested, "its agent pushes by now"));
        }
        self.model.facts().amend(&mut batch);
        self.model.ingest(&batch, now_ms);
        Ok(())
    }

    /// Few batches are large; those are read one at a time, so that what reading
    /// takes in memory is bounded by one of them.
    fn read(&self, bytes: &[u8]) -> Result<Batch, Refused> {
        match batch::decode(bytes, USUAL_BYTES) {
            Err(DecodeError::TooLarge { .. }) => {
                let _alone = lock(&self.large);
                Ok(batch::decode(bytes, MAX_DECOMPRESSED)?)
            }
            usual => Ok(usual?),
        }
    }

    /// Chosen at random at the start, and when everything was forgotten.
    pub fn boot_id(&self) -> [u8; 16] {
        *lock(&self.boot_id)
    }

    /// Closes steps, forgets who left, notices who is silent. To be called about
    /// every second, with a monotonic clock beside the wall clock.
    pub fn tick(&self, now_ms: u64, steady: Duration) {
        let mut watch = lock(&self.watch);
        if watch.clocks.is_none() {
            self.model.begin(now_ms);
        }
        if self.was_set(&mut watch, now_ms, steady) {
            self.forget_all(&mut watch, now_ms);
        }
        let before = self.model.closed_ms();
        self.model.tick(now_ms);
        let closed = self.model.closed_ms();
        if let Some(slot) = closed.filter(|slot| Some(*slot) > before) {
            let steps = before.map_or(1, |before| (slot - before) / self.model.resolution_ms());
            watch.steps += steps;
            watch.lag_ms = Some(now_ms.saturating_sub(slot));
            tracing::debug!(slot, steps, lag_ms = watch.lag_ms, "step closed");
        }
        self.claims.forget_before(now_ms.saturating_sub(self.model.kept_ms()));
        self.listen(&mut watch, now_ms);
    }

    /// Whether the wall clock went another way than time did since the last tick.
    fn was_set(&self, watch: &mut Watch, now_ms: u64, steady: Duration) -> bool {
        let Some((before_ms, before)) = watch.clocks.replace((now_ms, steady)) else { return false };
        let passed = i128::try_from(steady.saturating_sub(before).as_millis()).unwrap_or(i128::MAX);
        let went = i128::from(now_ms) - i128::from(before_ms);
        let off = (went - passed).unsigned_abs();
        off > u128::from(self.model.resolution_ms())
    }

    fn forget_all(&self, watch: &mut Watch, now_ms: u64) {
        tracing::warn!("the clock of this machine was set: all steps are asked for again");
        self.model.clear();
        self.model.begin(now_ms);
        self.claims.clear();
        *lock(&self.boot_id) = batch::boot_id();
        watch.silent.clear();
        watch.clock_set += 1;
    }

    fn listen(&self, watch: &mut Watch, now_ms: u64) {
        let nodes = self.model.nodes();
        let silent: BTreeSet<Arc<str>> =
            nodes.iter().filter(|n| self.is_silent(n, now_ms)).map(|n| Arc::clone(&n.name)).collect();
        let fell: Vec<&Arc<str>> = silent.difference(&watch.silent).collect();
        for node in fell.iter().take(TOLD_AT_ONCE) {
            tracing::warn!(%node, "node is silent");
        }
        if let Some(others @ 1..) = fell.len().checked_sub(TOLD_AT_ONCE) {
            tracing::warn!(others, "more nodes are silent");
        }
        let left = |name: &&Arc<str>| !nodes.iter().any(|n| n.name == **name);
        let (gone, back): (Vec<_>, Vec<_>) = watch.silent.difference(&silent).partition(left);
        for node in gone.iter().take(TOLD_AT_ONCE) {
            tracing::info!(%node, "node is gone");
        }
        for node in back.iter().take(TOLD_AT_ONCE) {
            tracing::info!(%node, "node is heard again");
        }
        watch.silent = silent;
    }

    /// Whether a node has not been heard for longer than steps wait for it.
    pub fn is_silent(&self, node: &NodeStatus, now_ms: u64) -> bool {
        !self.model.is_live(node, now_ms)
    }

    /// What became of snapshots of the model.
    pub fn snapshots(&self) -> &snapshot::Counts {
        &self.snapshots
    }

    /// Whose names nodes have.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// What came so far.
    pub fn counts(&self) -> Counts {
        let counters = &self.counters;
        let watch = lock(&self.watch);
        let mut refused = [0; Reason::ALL.len()];
        for (to, from) in refused.iter_mut().zip(&counters.refused) {
            *to = from.load(Relaxed);
        }
        Counts {
            batches: counters.batches.load(Relaxed),
            values: counters.values.load(Relaxed),
            bytes: counters.bytes.load(Relaxed),
            late: counters.late.load(Relaxed),
            duplicates: counters.duplicates.load(Relaxed),
            too_old: counters.too_old.load(Relaxed),
            refused,
            steps: watch.steps,
            lag_ms: watch.lag_ms,
            clock_set: watch.clock_set,
            unplaced: self.model.unplaced(),
        }
    }
}

/// Bounds that the format leaves to whoever reads.
fn plausible(batch: &Batch) -> Result<(), Refused> {
    let message = batch.message();
    let name = batch.node();
    let refuse = |reason, text: String| Err(Refused::new(reason, text));
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return refuse(Reason::Malformed, "its node has no name that a node can have".to_owned());
    }
    if batch.sent_ms().is_none() {
        return refuse(Reason::Malformed, "it does not say when it was sent".to_owned());
    }
    if message.entities.len() > MAX_ENTITIES {
        return refuse(Reason::TooLarge, format!("it has more than {MAX_ENTITIES} entities"));
    }
    if message.strings.iter().any(|s| s.len() > MAX_STRING) {
        return refuse(Reason::TooLarge, format!("it has a string of more than {MAX_STRING} bytes"));
    }
    Ok(())
}

fn refuse_name(batch: &Batch, unclaimed: Unclaimed) -> Refused {
    static TOLD: Limiter = Limiter::every(Duration::from_secs(60));
    let node = batch.node();
    let (reason, text) = match unclaimed {
        Unclaimed::Contested => (Reason::Contested, "another agent with this node name is alive"),
        Unclaimed::TooMany => (Reason::Rate, "more batches of this node than it can have measured"),
        Unclaimed::Full => (Reason::Nodes, "as many nodes are held as --max-nodes allows"),
    };
    if let Some(suppressed) = TOLD.pass() {
        tracing::warn!(node, suppressed, reason = text, "batch refused");
    }
    Refused::new(reason, text)
}
