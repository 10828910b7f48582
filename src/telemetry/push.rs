//! The agent about what it sends: one set of figures per sink.
//!
//! Whoever sends counts here; the figures become families when somebody asks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::{Families, Took, Written, float};

/// From an answer on loopback to the deadline of a request.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 10.0, 30.0];

/// Why values were not taken by a receiver and will not be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// It says that they are not acceptable.
    Invalid,
    /// It says that they are too old, out of order, or there with other values.
    TooOld,
    /// One alone is larger than it takes.
    TooLarge,
    /// A limit of its own on series or values is reached.
    Limit,
    /// The step in the queue cannot be read.
    Unreadable,
}

impl Rejected {
    const ALL: [Rejected; 5] =
        [Rejected::Invalid, Rejected::TooOld, Rejected::TooLarge, Rejected::Limit, Rejected::Unreadable];

    /// As the metrics and the dead letters say it.
    pub fn name(self) -> &'static str {
        match self {
            Rejected::Invalid => "invalid",
            Rejected::TooOld => "too_old",
            Rejected::TooLarge => "too_large",
            Rejected::Limit => "limit",
            Rejected::Unreadable => "unreadable",
        }
    }
}

/// Why an attempt to send failed that will be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No connection, or it broke.
    Unreachable,
    /// No answer in time.
    Deadline,
    /// 429: too much at once.
    Throttled,
    /// 5xx.
    Server,
    /// Missing, wrong or insufficient credentials, or a file of them.
    Credentials,
    /// The address is wrong: 3xx or other 4xx.
    Address,
    /// The database or policy is missing.
    Unprepared,
    /// The queue on disk cannot be read or written.
    Queue,
}

impl Trouble {
    const ALL: [Trouble; 8] = [
        Trouble::Unreachable,
        Trouble::Deadline,
        Trouble::Throttled,
        Trouble::Server,
        Trouble::Credentials,
        Trouble::Address,
        Trouble::Unprepared,
        Trouble::Queue,
    ];

    /// As the metrics say it.
    pub fn name(self) -> &'static str {
        match self {
            Trouble::Unreachable => "unreachable",
            Trouble::Deadline => "deadline",
            Trouble::Throttled => "throttled",
            Trouble::Server => "server",
            Trouble::Credentials => "credentials",
            Trouble::Address => "address",
            Trouble::Unprepared => "unprepared",
            Trouble::Queue => "queue",
        }
    }
}

/// Why something was sent more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resent {
    /// In halves, after a whole was refused: bodies.
    Halves,
    /// To an aggregator that had lost its memory: steps.
    Refill,
}

/// What waits in the queue for a sink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queued {
    /// Steps.
    pub steps: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The moment of the oldest, milliseconds since the epoch.
    pub oldest_ms: Option<u64>,
    /// Steps that were dropped without having been sent, by reason.
    pub dropped: Vec<(&'static str, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SinkLabel {
    sink: String,
}

/// The figures of all sinks, and of the steps made for them.
#[derive(Debug)]
pub struct PushMetrics {
    sinks: Mutex<Vec<Arc<SinkMetrics>>>,
    seconds: Family<SinkLabel, Histogram, fn() -> Histogram>,
    made: AtomicU64,
    skipped: AtomicU64,
    failed: AtomicU64,
    in_memory: AtomicU64,
    node_unread: AtomicU64,
}

impl Default for PushMetrics {
    fn default() -> PushMetrics {
        PushMetrics {
            sinks: Mutex::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            made: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            in_memory: AtomicU64::new(0),
            node_unread: AtomicU64::new(0),
        }
    }
}

impl PushMetrics {
    /// The figures of one more sink, at zero.
    pub fn sink(&self, name: &str) -> Arc<SinkMetrics> {
        let label = SinkLabel { sink: name.to_owned() };
        let seconds = self.seconds.get_or_create(&label).clone();
        let sink = Arc::new(SinkMetrics {
            name: name.to_owned(),
            figures: Mutex::default(),
            seconds,
            waiting: OnceLock::new(),
            exporter: OnceLock::new(),
        });
        lock(&self.sinks).push(Arc::clone(&sink));
        sink
    }

    /// A step was made and is in the queue.
    pub fn step_made(&self) {
        self.made.fetch_add(1, Relaxed);
    }

    /// A tick came while the ones before were still being made into steps.
    pub fn step_skipped(&self) {
        self.skipped.fetch_add(1, Relaxed);
    }

    /// A step could not be put into the queue.
    pub fn step_failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// A step is in memory only, because the queue's file cannot be written.
    pub fn step_in_memory(&self) {
        self.in_memory.fetch_add(1, Relaxed);
    }

    /// The API server did not tell of the node.
    pub fn node_unread(&self) {
        self.node_unread.fetch_add(1, Relaxed);
    }

    /// How often it did not.
    pub fn nodes_unread(&self) -> u64 {
        self.node_unread.load(Relaxed)
    }

    pub(super) fn seconds(&self) -> impl prometheus_client::registry::Metric + use<> {
        self.seconds.clone()
    }
}

/// The figures of one sink.
#[derive(Debug)]
pub struct SinkMetrics {
    name: String,
    figures: Mutex<Figures>,
    seconds: Histogram,
    waiting: OnceLock<Ask>,
    exporter: OnceLock<&'static str>,
}

/// Tells what waits now, where that can be told at once.
struct Ask(Box<dyn Fn() -> Option<Queued> + Send + Sync>);

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ask")
    }
}

#[derive(Debug, Default)]
struct Figures {
    queued: Queued,
    steps: u64,
    values: u64,
    bytes: u64,
    retried: [u64; Trouble::ALL.len()],
    rejected: [u64; Rejected::ALL.len()],
    halves: u64,
    refilled: u64,
    last_error: Option<(Trouble, SystemTime)>,
    last_success: Option<SystemTime>,
    took: Took,
}

fn lock<T>(figures: &Mutex<T>) -> MutexGuard<'_, T> {
    // The numbers stay usable when a thread that held them panicked.
    figures.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SinkMetrics {
    /// What waits now.
    pub fn queued(&self, queued: Queued) {
        lock(&self.figures).queued = queued;
    }

    /// Who tells what waits whenever the figures are read. The first who says so does.
    pub fn ask(&self, waiting: impl Fn() -> Option<Queued> + Send + Sync + 'static) {
        let _ = self.waiting.set(Ask(Box::new(waiting)));
    }

    /// It is one of the aggregator's, which Heapster calls so.
    pub fn exports_as(&self, exporter: &'static str) {
        let _ = self.exporter.set(exporter);
    }

    /// A request was answered after `took`.
    pub fn answered(&self, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        lock(&self.figures).took.add(took);
    }

    /// A body of `bytes` on the wire with `values` values was taken.
    pub fn taken(&self, values: u64, bytes: u64) {
        let mut figures = lock(&self.figures);
        figures.values += values;
        figures.bytes += bytes;
        figures.last_success = Some(SystemTime::now());
    }

    /// Every value of a step was taken or refused.
    pub fn step_done(&self) {
        lock(&self.figures).steps += 1;
    }

    /// An attempt failed that will be made again.
    pub fn retried(&self, trouble: Trouble) {
        let mut figures = lock(&self.figures);
        figures.last_error = Some((trouble, SystemTime::now()));
        for (count, kind) in figures.retried.iter_mut().zip(Trouble::ALL) {
            *count += u64::from(kind == trouble);
        }
    }

    /// `values` values were refused for good.
    pub fn rejected(&self, why: Rejected, values: u64) {
        let mut figures = lock(&self.figures);
        for (count, kind) in figures.rejected.iter_mut().zip(Rejected::ALL) {
            *count += if kind == why { values } else { 0 };
        }
    }

    /// `count` bodies or steps are sent once more.
    pub fn resent(&self, why: Resent, count: u64) {
        let mut figures = lock(&self.figures);
        match why {
            Resent::Halves => figures.halves += count,
            Resent::Refill => figures.refilled += count,
        }
    }
}

/// Writes the figures when asked.
#[derive(Debug)]
pub(super) struct Push(pub(super) Arc<PushMetrics>);

impl Collector for Push {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Written {
        let sinks = lock(&self.0.sinks).clone();
        if sinks.is_empty() {
            return Ok(());
        }
        for sink in &sinks {
            if let Some(queued) = sink.waiting.get().and_then(|Ask(waiting)| waiting()) {
                sink.queued(queued);
            }
        }
        let mut f = Families(encoder);
        f.counter(
            "nodegauge_push_steps",
            "Push steps made and put into the queue.",
            Some(float(self.0.made.load(Relaxed))),
        )?;
        let lost = [
            (vec![("reason", "busy")], float(self.0.skipped.load(Relaxed))),
            (vec![("reason", "queue")], float(self.0.failed.load(Relaxed))),
        ];
        f.counters(
            "nodegauge_push_steps_lost",
            "Push steps that did not get into the queue: the ones before took too long, or it could not be written.",
            &mut lost.into_iter(),
        )?;
        f.counter(
            "nodegauge_push_steps_in_memory",
            "Push steps that were kept in memory at first, because the file of the queue could not be written.",
            Some(float(self.0.in_memory.load(Relaxed))),
        )?;
        f.counter(
            "nodegauge_push_node_errors",
            "Times the API server was asked for this node's capacity and labels and did not tell.",
            Some(float(self.0.nodes_unread())),
        )?;
        let all = Sinks(&sinks);
        let wall = SystemTime::now();
        all.gauge(&mut f, "nodegauge_push_queue_steps", "Steps that wait for a sink.", |s| {
            Some(float(s.queued.steps))
        })?;
        all.gauge(&mut f, "nodegauge_push_queue_bytes", "Bytes of the steps that wait for a sink.", |s| {
            Some(float(s.queued.bytes))
        })?;
        all.gauge(
            &mut f,
            "nodegauge_push_queue_oldest_age_seconds",
            "Age of the oldest step that waits.",
            |s| {
                let oldest = UNIX_EPOCH + Duration::from_millis(s.queued.oldest_ms?);
                Some(wall.duration_since(oldest).unwrap_or_default().as_secs_f64())
            },
        )?;
        all.counter(&mut f, "nodegauge_push_sent_steps", "Steps a sink is done with.", |s| s.steps)?;
        all.counter(&mut f, "nodegauge_push_sent_values", "Values a sink took.", |s| s.values)?;
        all.counter(&mut f, "nodegauge_push_sent_bytes", "Bytes on the wire that a sink took.", |s| s.bytes)?;
        all.labelled(&mut f, "nodegauge_push_retries", "Attempts that failed and are made again.", |s| {
            Trouble::ALL.iter().zip(s.retried).map(|(t, n)| (t.name(), n)).collect()
        })?;
        all.labelled(
            &mut f,
            "nodegauge_push_resent",
            "Bodies sent once more in halves, and steps sent once more to an aggregator that had lost them.",
            |s| vec![("halves", s.halves), ("refill", s.refilled)],
        )?;
        all.labelled(&mut f, "nodegauge_push_dropped_values", "Values a sink refused for good.", |s| {
            Rejected::ALL.iter().zip(s.rejected).map(|(r, n)| (r.name(), n)).collect()
        })?;
        all.labelled(
            &mut f,
            "nodegauge_push_dropped_steps",
            "Steps that left the queue without having been sent.",
            |s| s.queued.dropped.clone(),
        )?;
        all.gauge(
            &mut f,
            "nodegauge_push_last_success_timestamp_seconds",
            "When a sink last took something.",
            |s| Some(s.last_success?.duration_since(UNIX_EPOCH).ok()?.as_secs_f64()),
        )?;
        let errors = sinks.iter().filter_map(|sink| {
            let (trouble, at) = lock(&sink.figures).last_error?;
            let at = at.duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
            Some((vec![("sink", sink.name.as_str()), ("reason", trouble.name())], at))
        });
        f.gauges(
            "nodegauge_push_last_error_timestamp_seconds",
            "When an attempt last failed, with the reason of that one.",
            &mut { errors },
        )?;
        exporters(&sinks, &mut f)
    }
}

/// Under Heapster's names, by kind of sink.
fn exporters(sinks: &[Arc<SinkMetrics>], f: &mut Families<'_>) -> Written {
    let mut kinds: BTreeMap<&str, (Took, Option<SystemTime>)> = BTreeMap::new();
    for sink in sinks {
        let Some(exporter) = sink.exporter.get() else { continue };
        let figures = lock(&sink.figures);
        let (took, last) = kinds.entry(exporter).or_default();
        *took += figures.took;
        *last = (*last).max(figures.last_success);
    }
    if kinds.is_empty() {
        return Ok(());
    }
    f.durations(
        "heapster_exporter_duration_milliseconds",
        "From a request to a sink until its answer.",
        &mut kinds.iter().map(|(exporter, (took, _))| (vec![("exporter", *exporter)], *took)),
    )?;
    let last = kinds.iter().filter_map(|(exporter, (_, last))| {
        let last = (*last)?.duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
        Some((vec![("exporter", *exporter)], last))
    });
    f.gauges("heapster_exporter_last_time_seconds", "When a sink last took something, Unix time.", &mut {
        last
    })
}

struct Sinks<'a>(&'a [Arc<SinkMetrics>]);

impl Sinks<'_> {
    fn gauge(
        &self,
        f: &mut Families<'_>,
        name: &str,
        help: &str,
        get: impl Fn(&Figures) -> Option<f64>,
    ) -> Written {
        f.gauges(
            name,
            help,
            &mut self
                .0
                .iter()
                .filter_map(|s| Some((vec![("sink", s.name.as_str())], get(&lock(&s.figures))?))),
        )
    }

    fn counter(&self, f: &mut Families<'_>, name: &str, help: &str, get: fn(&Figures) -> u64) -> Written {
        f.counters(
            name,
            help,
            &mut self.0.iter().map(|s| (vec![("sink", s.name.as_str())], float(get(&lock(&s.figures))))),
        )
    }

    fn labelled(
        &self,
        f: &mut Families<'_>,
        name: &str,
        help: &str,
        get: fn(&Figures) -> Vec<(&'static str, u64)>,
    ) -> Written {
        let rows = self.0.iter().flat_map(|s| {
            let figures = get(&lock(&s.figures));
            figures
                .into_iter()
                .map(|(reason, n)| (vec![("sink", s.name.as_str()), ("reason", reason)], float(n)))
        });
        f.counters(name, help, &mut { rows })
    }
}
