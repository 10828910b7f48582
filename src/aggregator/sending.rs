//! The way from closed slots to sinks: slots become steps of the queue, and everyone
//! who is to have them takes them out.
//!
//! ```text
//! model ──(closed slots)──► queue: steps, log ──► push: one loop, a worker per sink
//! ```
//!
//! Two threads of their own, so that neither a slow disk nor a sink that hangs
//! delays the closing of slots. What was made into steps is written down beside the
//! queue once it is in there: after a kill at most the slot it was at is made again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::watch;

use super::lead::{self, Lead};
use crate::aggregate::model::Model;
use crate::aggregate::steps::{Coverage, Steps, Taken};
use crate::config::Sending as Settings;
use crate::push::delivery::Timing;
use crate::push::delivery::crew::{self, Crew, Hand};
use crate::push::delivery::desk::Desk;
use crate::push::delivery::gate::{self, Gate};
use crate::push::delivery::worker::{Parts, Worker};
use crate::push::journal::Journal;
use crate::push::log::{self, Log, SinkName};
use crate::push::sinks;
use crate::push::target::Protocol;
use crate::telemetry::Limiter;
use crate::telemetry::lead::Leading;
use crate::telemetry::push::PushMetrics;

/// The sink that is the log of messages, as it is called everywhere.
const JOURNAL: &str = "log";

/// What was made of which slots, in the directory of the queue.
const STATE: &str = "steps";

/// Longest time between two looks for closed slots.
const LOOK: Duration = Duration::from_millis(500);

/// How long the last steps may take into the queue.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// What is running.
#[derive(Debug)]
pub struct Sending {
    queueing: JoinHandle<()>,
    stop: mpsc::Sender<()>,
    crew: Crew,
}

/// The queue of an aggregator and what was put into it.
#[derive(Debug)]
pub struct Queue {
    log: Arc<Log>,
    sinks: Vec<SinkName>,
    state: Option<PathBuf>,
    steps: Mutex<Steps>,
    coverage: Mutex<Coverage>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is protected is whole at any time: a panic elsewhere changes nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts to send, where there are sinks.
///
/// # Errors
/// The queue cannot be opened, or no thread can be had.
pub fn start(
    settings: &Settings,
    model: &Arc<Model>,
    metrics: &Arc<PushMetrics>,
    leading: &Arc<Leading>,
) -> Result<Option<Sending>> {
    settings.notices.iter().for_each(|notice| tracing::warn!("{notice}"));
    let queue = match Queue::open(settings)? {
        Some(queue) => Arc::new(queue),
        None if settings.ha.is_some() => {
            tracing::warn!("--ha has no effect without --sink");
            return Ok(None);
        }
        None => return Ok(None),
    };
    let timing = Timing { request: settings.timeout, ..Timing::default() };
    let (lead, gate) = match &settings.ha {
        None => (None, Gate::default()),
        Some(ha) => {
            let (keeper, gate) = gate::gate();
            let options = lead::Options::new(lead::identity(), settings.lease);
            (Some(Lead::new(lead::place(ha), options, Arc::clone(&queue), keeper, Arc::clone(leading))), gate)
        }
    };
    let hands = hands(settings, &queue, metrics, &gate, &timing)?;
    let crew = |stop: &watch::Receiver<bool>| {
        let mut running: Vec<Hand> = hands.into_iter().map(|hand| hand(stop.clone())).collect();
        running.extend(lead.map(|lead| Box::pin(lead.run(stop.clone())) as Hand));
        running
    };
    let crew = Crew::start(crew, timing.drain).context("cannot start the thread that pushes")?;
    let (stop, stopped) = mpsc::channel();
    let (model, metrics) = (Arc::clone(model), Arc::clone(metrics));
    let queueing = thread::Builder::new()
        .name("queue".to_owned())
        .spawn(move || queueing(&queue, &model, &metrics, &stopped))
        .context("cannot start the thread that makes steps")?;
    Ok(Some(Sending { queueing, stop, crew }))
}

type Starter = Box<dyn FnOnce(watch::Receiver<bool>) -> Hand>;

fn hands(
    settings: &Settings,
    queue: &Queue,
    metrics: &PushMetrics,
    gate: &Gate,
    timing: &Timing,
) -> Result<Vec<Starter>> {
    let mut hands: Vec<Starter> = Vec::new();
    let desk = Arc::new(Desk::default());
    for target in &settings.targets {
        let metrics = metrics.sink(&target.name);
        metrics.exports_as(match target.protocol {
            Protocol::Influxdb { .. } | Protocol::Influxdb2 { .. } => "InfluxDB Sink",
            Protocol::RemoteWrite { .. } => "Remote Write Sink",
            Protocol::Aggregator => "Aggregator Sink",
        });
        let parts = Parts {
            target,
            log: Arc::clone(&queue.log),
            directory: settings.queue_dir.as_deref(),
            node: "",
            metrics,
            timing: timing.clone(),
        };
        let sink = sinks::sink(target, settings.queue_dir.as_deref());
        let sink = sink.ok_or_else(|| anyhow!("BUG: nothing speaks the protocol of {target}"))?;
        let worker = Worker::new(sink, SinkName::new(&target.name), parts).behind(gate.clone()).at(&desk);
        hands.push(Box::new(move |stop| Box::pin(worker.run(stop))));
        tracing::info!(sink = %target, resolution = ?target.resolution, "sending");
    }
    if let Some(labels) = &settings.journal {
        let metrics = metrics.sink(JOURNAL);
        metrics.exports_as("Log Sink");
        let journal = Journal {
            name: SinkName::new(JOURNAL),
            log: Arc::clone(&queue.log),
            metrics,
            gate: gate.clone(),
            labels: labels.clone(),
        };
        hands.push(Box::new(move |stop| Box::pin(journal.run(stop))));
    }
    Ok(hands)
}

impl Sending {
    /// Ends once what is closed is queued and what is queued is sent, or the time
    /// for that is over.
    pub fn finish(self) {
        drop(self.stop);
        crew::wait(&self.queueing, LAST_STEPS);
        self.crew.finish();
    }
}

/// Until whoever holds the other end of `stop` drops it.
fn queueing(queue: &Queue, model: &Model, metrics: &PushMetrics, stop: &mpsc::Receiver<()>) {
    let wait = LOOK.min(Duration::from_millis(model.resolution_ms() / 4));
    loop {
        let stopping = !matches!(stop.recv_timeout(wait), Err(RecvTimeoutError::Timeout));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        if let Err(error) = queue.fill(model, now_ms, metrics) {
            metrics.step_failed();
            static LIMITER: Limiter = Limiter::every(Duration::from_secs(60));
            if let Some(suppressed) = LIMITER.pass() {
                tracing::warn!(%error, suppressed, "a step did not get into the queue");
            }
        }
        if stopping {
            return;
        }
    }
}

impl Queue {
    /// Opens the queue, where there are sinks.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(settings: &Settings) -> Result<Option<Queue>> {
        let names = settings.targets.iter().map(|target| target.name.as_str());
        let names = names.chain(settings.journal.as_ref().map(|_| JOURNAL));
        let sinks: Vec<SinkName> = names.map(SinkName::new).collect();
        if sinks.is_empty() {
            return Ok(None);
        }
        let directory = settings.queue_dir.as_deref();
        let options = log::Options {
            max_bytes: settings.queue_max_bytes,
            keep_acknowledged: Duration::ZERO,
            ..log::Options::default()
        };
        let (log, opened) = Log::open(directory, options, &sinks).with_context(|| match directory {
            Some(directory) => format!("--queue-dir {directory:?}"),
            None => "queue in memory".to_owned(),
        })?;
        tracing::info!(%opened, "queue");
        let mut steps = Steps::new().context("cannot start the compressor")?;
        let state = directory.map(|directory| directory.join(STATE));
        if let Some(state) = &state {
            resume(&mut steps, state);
        }
        let coverage = Mutex::new(steps.coverage());
        Ok(Some(Queue { log: Arc::new(log), sinks, state, steps: Mutex::new(steps), coverage }))
    }

    /// The log of steps.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Puts into the queue what was closed since, or came late.
    ///
    /// # Errors
    /// No memory for the compressor.
    pub fn fill(&self, model: &Model, now_ms: u64, metrics: &PushMetrics) -> io::Result<()> {
        // Held until what was made is told: nobody trims by what it was before.
        let mut steps = lock(&self.steps);
        let mut durable = true;
        let made = steps.make(model, now_ms, |slot, payload| match self.log.append(slot, payload) {
            Ok(appended) => {
                metrics.step_made();
                durable &= appended.durable;
                if !appended.durable && self.log.is_durable() {
                    metrics.step_in_memory();
                }
            }
            // It is larger than the whole queue may be, and counted there.
            Err(_) => metrics.step_failed(),
        })?;
        if made == 0 {
            return Ok(());
        }
        *lock(&self.coverage) = steps.coverage();
        let Some(state) = &self.state else { return Ok(()) };
        static LIMITER: Limiter = Limiter::every(Duration::from_secs(60));
        if !durable {
            // A kill would lose these steps: then they are to be made again.
            if let Some(suppressed) = LIMITER.pass() {
                let error = self.log.trouble().unwrap_or_default();
                tracing::warn!(error, suppressed, "the queue cannot be written; steps wait in memory");
            }
        } else if let Err(error) = replace(state, &steps.encode())
            && let Some(suppressed) = LIMITER.pass()
        {
            tracing::warn!(%error, path = %state.display(), suppressed, "cannot write down which steps were made");
        }
        Ok(())
    }

    /// What each sink has taken.
    pub fn taken(&self) -> BTreeMap<String, Taken> {
        let coverage = lock(&self.coverage).clone();
        let of = |sink: &SinkName| Some((sink.to_string(), coverage.taken(&self.log.owed(sink).ok()?)));
        // What comes into the queue meanwhile makes what is told less, never more.
        self.sinks.iter().filter_map(of).collect()
    }

    /// Whether every sink has everything.
    pub fn is_sent(&self) -> bool {
        self.sinks.iter().all(|sink| self.log.owed(sink).is_ok_and(|owed| owed.is_empty()))
    }

    /// Gives up the steps that somebody else has sent; how many.
    pub fn trim(&self, taken: &BTreeMap<String, Taken>) -> u64 {
        let steps = lock(&self.steps);
        let coverage = steps.coverage();
        let of = |sink: &SinkName| {
            let done = coverage.done(taken.get(&sink.to_string())?);
            self.log.trim(sink, done).ok()
        };
        self.sinks.iter().filter_map(of).sum()
    }
}

fn resume(steps: &mut Steps, state: &Path) {
    let path = state.display();
    match fs::read(state) {
        Ok(bytes) if steps.resume(&bytes) => {}
        Ok(_) => tracing::warn!(%path, "damaged: up to fifteen minutes are sent once more"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%path, %error, "unreadable: up to fifteen minutes are sent once more"),
    }
}

/// Puts a file in the place of another, whole or not at all.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    drop(file);
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
