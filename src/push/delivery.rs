//! Steps out of the queue to a receiver, until they are there: one worker per sink.
//!
//! A worker takes one step at a time, encodes it body by body and sends each,
//! retries what may pass, halves what is too large or has something unacceptable
//! in it, records what is refused for good, and acknowledges the step once all
//! of it was taken or refused. So after a kill at most the step in flight is
//! sent again, and since its series, tags and times are fixed, it overwrites the
//! same points.
//!
//! What a sink speaks is behind [`Sink`]; which answers mean what is in
//! [`verdict`]. Nothing here retries without an end: what waits is bounded by
//! the queue, whose oldest steps go first.

pub(crate) mod backoff;
pub mod client;
pub mod crew;
mod dead_letters;
pub mod desk;
pub mod gate;
mod pieces;
mod retry_after;
pub mod verdict;
pub mod worker;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use crate::push::batch::{self, Batch, DecodeError};
use crate::push::target::Target;
use client::{Answer, Http, Outgoing, SendError, TokenScheme};
use desk::Desk;
use verdict::Verdict;

/// Largest body before compression. Receivers and proxies commonly take 1 MiB
/// to 25 MiB; one is in memory while it is encoded, and what is gained by more than the 2,000 to 3,000 values of this is little: Prometheus sends 2,000.
pub const MAX_BODY: usize = 256 << 10;

/// Deadlines and waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// For a whole request and its answer.
    pub request: Duration,
    /// For a connection, TLS included.
    pub connect: Duration,
    /// The first wait after a failure.
    pub retry_min: Duration,
    /// The longest wait after failures.
    pub retry_max: Duration,
    /// The wait while the configuration is wrong, here or at the receiver.
    pub slow: Duration,
    /// After which connections are made anew and names resolved again.
    pub client_age: Duration,
    /// How long steps are still sent once a stop is asked for.
    pub drain: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            request: Duration::from_secs(30),
            connect: Duration::from_secs(5),
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_secs(30),
            slow: Duration::from_secs(60),
            client_age: Duration::from_secs(300),
            drain: Duration::from_secs(5),
        }
    }
}

/// Which steps a sink gets first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// The oldest: databases refuse or pay for samples that come backwards.
    Oldest,
    /// The newest: an aggregator answers for now, and fills up later.
    Newest,
}

/// One step out of the queue.
#[derive(Debug)]
pub struct Step {
    /// Its number.
    pub sequence: u64,
    /// The moment it stands for, milliseconds since the epoch.
    pub time_ms: u64,
    /// As the batch module encoded it.
    pub payload: Bytes,
    batch: OnceLock<Arc<Batch>>,
    desk: Option<Arc<Desk>>,
}

impl Step {
    /// A step as it lies in the queue.
    pub fn new(sequence: u64, time_ms: u64, payload: Bytes) -> Step {
        Step { sequence, time_ms, payload, batch: OnceLock::new(), desk: None }
    }

    /// The same step, decoded together with others of its queue.
    #[must_use]
    pub fn at(mut self, desk: Arc<Desk>) -> Step {
        self.desk = Some(desk);
        self
    }

    fn decode(&self) -> Result<Batch, DecodeError> {
        batch::decode(&self.payload, batch::MAX_DECOMPRESSED)
    }

    /// What is in it. At a desk it is decoded anew after another step was, else once.
    ///
    /// # Errors
    /// It is damaged, or of a version that is not known here.
    pub fn batch(&self) -> Result<Arc<Batch>, DecodeError> {
        if let Some(desk) = &self.desk {
            return desk.get_or_decode(self);
        }
        if let Some(batch) = self.batch.get() {
            return Ok(Arc::clone(batch));
        }
        let batch = Arc::new(self.decode()?);
        Ok(Arc::clone(self.batch.get_or_init(|| batch)))
    }
}

/// FNV-1a of some bytes: the same in every build and run.
pub fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Whether a target answers, and with which status: for `check`.
///
/// # Errors
/// It does not answer.
pub async fn probe(mut sink: Box<dyn Sink>, target: &Target, timing: Timing) -> Result<Answer, SendError> {
    let mut http = Http::new(target, sink.token_scheme(), timing);
    let outgoing = sink.probe(&http);
    http.send(outgoing).await
}

/// What comes of preparing a receiver.
pub type Prepared<'a> = Pin<Box<dyn Future<Output = Result<(), Unprepared>> + Send + 'a>>;

/// Why a receiver is not ready.
#[derive(Debug)]
pub enum Unprepared {
    /// It did not answer.
    Send(SendError),
    /// It answered that it is not.
    Answer(Answer),
}

/// What one kind of receiver speaks.
///
/// A body is a row of items, which can be sent apart from each other: lines or
/// series.
pub trait Sink: Send + Sync {
    /// Which steps it gets first.
    fn first(&self) -> First {
        First::Oldest
    }

    /// How its tokens are written.
    fn token_scheme(&self) -> TokenScheme {
        TokenScheme::Bearer
    }

    /// Makes sure that the receiver has what writes need. Asked before the first
    /// write, and again after [`Verdict::Unprepared`].
    fn prepare<'a>(&'a mut self, http: &'a mut Http) -> Prepared<'a> {
        let _ = http;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Whether it tells what has gone since the step before, which after a restart it
    /// is shown by [`Sink::remember`].
    fn compares(&self) -> bool {
        false
    }

    /// The step that was sent before the one that comes next, by a process before this one.
    fn remember(&mut self, step: &Step) {
        let _ = step;
    }

    /// Encodes the entities of a step from number `from` on into the empty
    /// `body`, as many as fit `limit` bytes and at least one; the number of the
    /// first that is left, `None` when none is.
    ///
    /// # Errors
    /// The step cannot be read.
    fn encode(
        &mut self,
        step: &Step,
        from: usize,
        limit: usize,
        body: &mut Vec<u8>,
    ) -> Result<Option<usize>, DecodeError>;

    /// Bytes of the first item of a body that is not empty.
    fn item(&self, body: &[u8]) -> usize;

    /// How many values an item has.
    fn values(&self, item: &[u8]) -> u64 {
        let _ = item;
        1
    }

    /// A body, or some items of one, as a request.
    fn request(&mut self, http: &Http, items: &[u8]) -> Outgoing;

    /// A request that shows whether the receiver is there and lets us in, and
    /// changes nothing there.
    fn probe(&mut self, http: &Http) -> Outgoing;

    /// What the answer to a request means.
    fn judge(&mut self, answer: &Answer) -> Verdict {
        verdict::by_status(answer)
    }

    /// Whether the receiver has lost what it had taken before the last answer,
    /// so that kept steps are to be sent again.
    fn has_forgotten(&mut self) -> bool {
        false
    }

    /// An item, for people.
    fn show(&self, item: &[u8]) -> String;
}
