//! The way from ticks to sinks: ticks become steps, steps go into the queue, and
//! a worker per sink takes them out. With an aggregator in the same process each
//! step goes into its model first, without a way over the network: it cannot be
//! away, and what it refuses it would refuse again.
//!
//! ```text
//! reader ──(2 ticks)──► steps: builder, queue ──► push: one loop, a worker per sink
//! ```
//!
//! Two threads of its own, so that neither a slow disk nor a large step delays a
//! tick or an answer: the reader hands over what it published and never waits;
//! a tick that comes while two are waiting is left out and counted.
//!
//! Stop order: the reader ends, which ends `steps` once the last tick is in the
//! queue; then the workers send what is queued, until it is sent, fails or takes
//! too long. What is on disk by then stays there for the next run.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::node;
use crate::aggregate::ingest::Ingest;
use crate::aggregate::objects::Node;
use crate::collect::sampler::wall_ms;
use crate::config::Config;
use crate::identity::Identities;
use crate::publish::Tap;
use crate::push::batch;
use crate::push::delivery::Timing;
use crate::push::delivery::crew::{self, Crew, Hand};
use crate::push::delivery::desk::Desk;
use crate::push::delivery::worker::{Parts, Worker};
use crate::push::log::{self, Log, SinkName};
use crate::push::sinks;
use crate::push::step::{self, Departed, NodeResources, StepBuilder};
use crate::push::target::{Protocol, Target};
use crate::snapshot::{Origin, Snapshot};
use crate::telemetry::Limiter;
use crate::telemetry::push::PushMetrics;

/// Ticks that wait to be made into steps.
const WAITING_TICKS: usize = 2;

/// Acknowledged steps are kept this long for aggregators that start again.
const KEEP_ACKNOWLEDGED: Duration = Duration::from_secs(15 * 60);

/// How long the last tick may take into the queue.
const LAST_STEP: Duration = Duration::from_secs(2);

/// A model in this process that every step goes into as well.
#[derive(Debug)]
pub struct Local {
    /// The way in.
    pub ingest: Arc<Ingest>,
    /// Time between its steps, at most.
    pub resolution: Duration,
}

/// What is running.
#[derive(Debug)]
pub struct Pushing {
    steps: JoinHandle<()>,
    crew: Crew,
}

/// Starts to push, where there are sinks or a model of our own, and hands over
/// what ticks are to be given to. `tasks` is the loop that asks for names.
///
/// # Errors
/// The queue cannot be opened, or no thread can be had.
pub fn start(
    config: &Config,
    local: Option<Local>,
    identities: Arc<Identities>,
    metrics: Arc<PushMetrics>,
    tasks: &Handle,
) -> Result<Option<(Pushing, Tap)>> {
    let resolutions = config.push.iter().map(|t| t.resolution).chain(local.iter().map(|l| l.resolution));
    let Some(resolution) = resolutions.min() else { return Ok(None) };
    let log = if config.push.is_empty() { None } else { Some(Arc::new(open(config)?)) };
    let timing = Timing::default();

    let mut workers = Vec::new();
    let desk = Arc::new(Desk::default());
    for (target, log) in config.push.iter().zip(log.iter().cycle()) {
        let parts = Parts {
            target,
            log: Arc::clone(log),
            directory: config.queue_dir.as_deref(),
            node: &config.node_name,
            metrics: metrics.sink(&target.name),
            timing: timing.clone(),
        };
        let sink = sinks::sink(target, config.queue_dir.as_deref());
        let sink = sink.ok_or_else(|| anyhow!("BUG: nothing speaks the protocol of {target}"))?;
        workers.push(Worker::new(sink, name(target), parts).at(&desk));
        tracing::info!(sink = %target, resolution = ?target.resolution, "pushing");
    }
    let hands = |stop: &watch::Receiver<bool>| {
        workers.into_iter().map(|worker| Box::pin(worker.run(stop.clone())) as Hand).collect()
    };
    let crew = Crew::start(hands, timing.drain).context("cannot start the thread that pushes")?;

    let options = step::Options {
        node: config.node_name.clone(),
        boot_id: batch::boot_id(),
        interval: config.interval,
        resolution,
        limits: step::Limits::default(),
    };
    let mut builder = StepBuilder::new(options);
    if let Some(time_ms) = log.as_ref().map(|log| log.last_time_ms()).transpose()?.flatten() {
        builder.resume_after(time_ms);
    }
    let (told, node) = watch::channel(None);
    if node::is_needed(&config.push) && node::can_be_asked() {
        let follow =
            node::follow(config.node_name.clone(), None, told, Arc::clone(&metrics), node::Timing::default());
        tasks.spawn(follow);
    }
    let (sender, ticks) = sync_channel::<Arc<Snapshot>>(WAITING_TICKS);
    let maker = Maker {
        builder,
        node,
        identities,
        local: local.map(|local| local.ingest),
        given: 0,
        log,
        metrics: Arc::clone(&metrics),
        in_memory: false,
    };
    let steps = thread::Builder::new()
        .name("steps".to_owned())
        .spawn(move || maker.run(&ticks))
        .context("cannot start the thread that makes steps")?;
    let tap: Tap = Box::new(move |snapshot| {
        if snapshot.origin == Origin::Grid {
            hand_over(&sender, snapshot, &metrics);
        }
    });
    Ok(Some((Pushing { steps, crew }, tap)))
}

fn hand_over(sender: &SyncSender<Arc<Snapshot>>, snapshot: &Arc<Snapshot>, metrics: &PushMetrics) {
    match sender.try_send(Arc::clone(snapshot)) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => metrics.step_skipped(),
        // It ended, which it does not do by itself: the stop says so.
        Err(TrySendError::Disconnected(_)) => {}
    }
}

impl Pushing {
    /// Ends once what is queued is sent, or the time for that is over. The
    /// reader must have ended.
    pub fn finish(self) {
        crew::wait(&self.steps, LAST_STEP);
        self.crew.finish();
    }
}

fn open(config: &Config) -> Result<Log> {
    let names = config.push.iter().map(name).collect::<Vec<_>>();
    // Nobody else ever asks for what it has had.
    let forgetful = config.push.iter().any(|t| t.protocol == Protocol::Aggregator);
    let keep_acknowledged = if forgetful { KEEP_ACKNOWLEDGED } else { Duration::ZERO };
    let options =
        log::Options { max_bytes: config.queue_max_bytes, keep_acknowledged, ..log::Options::default() };
    let directory = config.queue_dir.as_deref();
    let (log, opened) = Log::open(directory, options, &names).with_context(|| match directory {
        Some(directory) => format!("--queue-dir {directory:?}"),
        None => "queue in memory".to_owned(),
    })?;
    tracing::info!(%opened, "queue");
    Ok(log)
}

fn name(target: &Target) -> SinkName {
    SinkName::new(&target.name)
}

/// Makes steps on a thread of its own.
struct Maker {
    builder: StepBuilder,
    /// What the API server tells of this node.
    node: watch::Receiver<Option<Arc<Node>>>,
    identities: Arc<Identities>,
    local: Option<Arc<Ingest>>,
    /// Steps given to `local`.
    given: u64,
    log: Option<Arc<Log>>,
    metrics: Arc<PushMetrics>,
    /// Whether the last step was in memory only.
    in_memory: bool,
}

impl Maker {
    fn run(mut self, ticks: &Receiver<Arc<Snapshot>>) {
        while let Ok(snapshot) = ticks.recv() {
            if let Err(error) = self.tick(&snapshot) {
                self.metrics.step_failed();
                static LIMITER: Limiter = Limiter::every(Duration::from_secs(60));
                if let Some(suppressed) = LIMITER.pass() {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        suppressed,
                        "a step did not get where it should"
                    );
                }
            }
        }
    }

    fn tick(&mut self, snapshot: &Arc<Snapshot>) -> Result<()> {
        let directory = self.identities.directory();
        let departed = snapshot.departed.iter().map(|departed| Departed {
            sample: &departed.last,
            seen_ms: departed.seen_ms,
            gone: departed.gone,
        });
        if self.node.has_changed().unwrap_or(false)
            && let Some(node) = self.node.borrow_and_update().as_deref()
        {
            let &Node { capacity, allocatable, .. } = node;
            self.builder.set_node_resources(NodeResources { capacity, allocatable });
            self.builder.set_node_labels(node.labels.clone());
        }
        let step = self.builder.tick(snapshot, departed, &directory).context("make a step")?;
        let Some(step) = step else { return Ok(()) };
        // A compressor for each: it takes half a megabyte, and is idle most of the time.
        let payload = batch::encode(&step.batch).context("compress a step")?;
        let given = self.give(step.batch.node(), &payload);
        let time_ms = step.batch.time_ms();
        // From now on it is sent, and decoded for that: one of them in memory is enough.
        drop(step);
        if let Some(log) = &self.log {
            let appended = log.append(time_ms, &payload).context("write a step")?;
            self.tell(appended.durable);
        }
        self.metrics.step_made();
        given
    }

    /// Into the model of our own, at once: what it does not take it would not take later either.
    fn give(&mut self, node: &str, payload: &[u8]) -> Result<()> {
        let Some(ingest) = &self.local else { return Ok(()) };
        self.given += 1;
        let now_ms = wall_ms();
        let bytes = batch::stamp(payload, self.given, now_ms);
        ingest.take(&bytes, Some(node), now_ms).context("give a step to the aggregator")?;
        Ok(())
    }

    /// Says when steps begin and cease to be in memory only.
    fn tell(&mut self, durable: bool) {
        let Some(log) = self.log.as_ref().filter(|log| log.is_durable()) else { return };
        if !durable {
            self.metrics.step_in_memory();
            static LIMITER: Limiter = Limiter::every(Duration::from_secs(60));
            if let Some(suppressed) = LIMITER.pass() {
                let error = log.trouble().unwrap_or_default();
                tracing::warn!(error, suppressed, "the queue cannot be written; steps wait in memory");
            }
        } else if self.in_memory {
            tracing::info!("the queue is written again");
        }
        self.in_memory = !durable;
    }
}
