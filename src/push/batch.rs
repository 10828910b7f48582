//! The batch: what one node measured in one push step, as it lies in the log and
//! travels to the aggregator. `proto/nodegauge/v1/batch.proto` is the format's
//! published definition and says how bytes are framed and what compatible means.
//!
//! Values are columns, one per metric, so that a step of many containers is
//! mostly long runs of like numbers, which compress well and are written without
//! a branch. A [`Batch`] keeps the columns as they travel; readers see it entity
//! by entity:
//!
//! ```text
//! let batch = batch::decode(&payload, MAX_DECOMPRESSED)?;
//! for entity in batch.entities() {
//!     for point in entity.metrics() { point.name(), point.labels(), point.value }
//! }
//! ```
//!
//! Nothing here knows where values come from or where they go.

mod amend;
mod assemble;
mod check;
mod entity;
mod frame;
mod label;
mod metrics;
mod wire;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

pub use assemble::Assembler;
pub use check::{MAX_COLUMNS, MAX_ENTITIES, MAX_ROW_SETS, MAX_STRINGS, Malformed};
pub use entity::{Entity, EntityKind, Point, Value};
pub use frame::{DecodeError, Decoder, Encoder, MAX_DECOMPRESSED, VERSION, decode, encode, stamp};
pub use label::{BREAK, Label, join};
pub use metrics::{Kind, Kinds, METRICS, Metric, Prometheus, Unit, ValueType, metric};
pub use proto::{DropReason, MetricId};

use entity::Index;

/// The messages of `batch.proto`, as generated.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; the .proto documents them")]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/nodegauge.v1.rs"));
}

/// The media type of an encoded batch.
pub const MEDIA_TYPE: &str = "application/vnd.nodegauge.batch";

/// One node and one push step: checked, and cheap to read entity by entity.
#[derive(Debug, Clone)]
pub struct Batch {
    message: proto::Batch,
    /// Made when the first reader asks.
    index: OnceLock<Index>,
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.message == other.message
    }
}

impl Batch {
    /// Takes a message that keeps the rules of the format.
    ///
    /// # Errors
    /// It does not: an index leads nowhere, or columns and rows do not fit.
    pub fn new(message: proto::Batch) -> Result<Batch, Malformed> {
        check::check(&message)?;
        Ok(Batch { message, index: OnceLock::new() })
    }

    /// The node's name in Kubernetes, elsewhere its host name.
    pub fn node(&self) -> &str {
        &self.message.node
    }

    /// Chosen at random when the agent that made the batch started.
    pub fn boot_id(&self) -> [u8; 16] {
        self.message.boot_id.as_slice().try_into().unwrap_or_default()
    }

    /// Of the machine's kernel, where it is known.
    pub fn host_boot_id(&self) -> Option<[u8; 16]> {
        self.message.host_boot_id.as_slice().try_into().ok()
    }

    /// Counts up by one a step; 0 until it was [stamped](stamp).
    pub fn sequence(&self) -> u64 {
        self.message.sequence
    }

    /// The moment the step stands for, equal for all its entities: milliseconds
    /// since the epoch, a multiple of [`Batch::resolution_ms`].
    pub fn time_ms(&self) -> u64 {
        self.message.time_ms
    }

    /// Time between steps, milliseconds.
    pub fn resolution_ms(&self) -> u64 {
        self.message.resolution_ms
    }

    /// When the reads began that the step was made from, milliseconds since the epoch.
    pub fn sampled_ms(&self) -> u64 {
        self.message.sampled_ms
    }

    /// When it was sent, milliseconds since the epoch; `None` until it was [stamped](stamp).
    pub fn sent_ms(&self) -> Option<u64> {
        (self.message.sent_ms > 0).then_some(self.message.sent_ms)
    }

    /// Everyone who was measured: the node, system containers, pods, containers.
    /// Entities of a kind that is not known here are left out.
    pub fn entities(&self) -> impl Iterator<Item = Entity<'_>> {
        let index = self.index.get_or_init(|| Index::new(&self.message));
        let entities = self.message.entities.iter().enumerate();
        entities.filter_map(move |(at, entity)| Entity::new(&self.message, index, entity, at))
    }

    /// What the agent's limits kept out, by reason.
    pub fn dropped(&self) -> impl Iterator<Item = (DropReason, u64)> {
        self.message.dropped.iter().map(|d| (d.reason(), d.count))
    }

    /// How many values it carries, of metrics known here or not.
    pub fn values(&self) -> usize {
        self.message.columns.iter().map(|c| c.integers.len() + c.doubles.len()).sum()
    }

    /// Takes so many milliseconds off all moments but that of sending, for a node
    /// whose clock is ahead. What would come before the epoch stays at it.
    pub fn move_back(&mut self, ms: i64) {
        let message = &mut self.message;
        let starts = message.entities.iter_mut().map(|entity| &mut entity.start_ms);
        let own = [&mut message.time_ms, &mut message.sampled_ms, &mut message.sent_ms];
        for moment in starts.chain(own).filter(|moment| **moment > 0) {
            *moment = if ms > 0 {
                moment.saturating_sub(ms.unsigned_abs())
            } else {
                moment.saturating_add(ms.unsigned_abs())
            };
        }
    }

    /// The message as it travels.
    pub fn message(&self) -> &proto::Batch {
        &self.message
    }
}

/// A boot id: 16 bytes nobody else has, from the random keys the standard
/// library gets from the kernel.
pub fn boot_id() -> [u8; 16] {
    let mut id = [0; 16];
    for half in id.chunks_mut(8) {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u128(std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos()));
        for (byte, random) in half.iter_mut().zip(hasher.finish().to_le_bytes()) {
            *byte = random;
        }
    }
    id
}
