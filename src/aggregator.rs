//! The aggregator role: builds the parts, owns the closing of steps and the stop order.
//!
//! One loop serves all sockets ([`routes`]); batches are read on other threads
//! ([`receive`]); one thread closes steps, and two take them to sinks ([`sending`]),
//! if this is the aggregator that does ([`lead`]). After a start agents send the last
//! fifteen minutes once more; with `--snapshot` they are there before that.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};

use tokio::sync::watch;

use self::apiserver::ApiServer;
use self::snapshots::Snapshots;
use crate::aggregate::ingest::Ingest;
use crate::aggregate::model::{Model, Options, Shown};
use crate::aggregate::watch::Timing;
use crate::auth::{Choice, Guard, rules};
use crate::config::{self, AggregatorConfig};
use crate::expose::http::{self, Limits, Site};
use crate::kernel::handles;
use crate::signals::StopSignals;
use crate::telemetry::Telemetry;
use discovery::{Discovery, Plan};

pub mod apiserver;
pub mod custom;
pub mod discovery;
pub mod lead;
pub mod page;
pub mod receive;
pub mod routes;
pub mod sending;
mod snapshots;

/// Threads that read batches, answer from the model and read files.
const BLOCKING_THREADS: usize = 12;

/// Longest time between two looks at which steps can be closed.
const LOOK: Duration = Duration::from_secs(1);

/// How long threads may take to end once nothing is served any more.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Runs the aggregator until SIGTERM or SIGINT; `announce` is told where it serves
/// once a connection is accepted there.
///
/// # Errors
/// It cannot start.
pub fn run(config: &AggregatorConfig, announce: impl FnOnce(SocketAddr) -> Result<()>) -> Result<()> {
    let listener = bind(config, "listen")?;
    let aggregator = Aggregator::start(config, listener, handles::raise_descriptor_limit())?;
    let mut signals = aggregator.stop_signals()?;
    announce(aggregator.address())?;
    aggregator.serve(async { signals.received().await })
}

/// Opens the socket that was configured by `setting`.
///
/// # Errors
/// It cannot be had, in words for the user.
pub fn bind(config: &AggregatorConfig, setting: &str) -> Result<TcpListener> {
    http::bind(config.listen).map_err(|error| config::not_bound(setting, config.listen, &error))
}

/// An aggregator that closes steps and is about to serve.
#[derive(Debug)]
pub struct Aggregator {
    runtime: tokio::runtime::Runtime,
    listener: TcpListener,
    address: SocketAddr,
    ingest: Arc<Ingest>,
    site: Site,
    guard: Arc<Guard>,
    limits: Limits,
    /// Its end is the stop of the thread that closes steps.
    stopped: mpsc::Sender<()>,
    closing: thread::JoinHandle<()>,
    discovery: Option<Discovery>,
    sending: Option<sending::Sending>,
    api: Option<ApiServer>,
    snapshots: Option<snapshots::Writing>,
}

impl Aggregator {
    /// Starts everything but serving at `listener`, with `descriptors` descriptors.
    ///
    /// # Errors
    /// Something cannot be had, in words for the user.
    pub fn start(config: &AggregatorConfig, listener: TcpListener, descriptors: u64) -> Result<Aggregator> {
        let address = listener.local_addr().context("cannot tell the address listened on")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()
            .context("cannot start the event loop")?;
        let shown = Shown { labels: config.labels.clone(), no_export: config.disable_export };
        let model = Model::new(Options { resolution: config.resolution, ..Options::default() });
        let ingest = Arc::new(Ingest::new(Arc::new(model.shown_as(shown)), config.max_nodes));
        let snapshots =
            config.snapshot.as_deref().map(|path| Snapshots::open(&ingest, path, config.max_nodes));
        let telemetry = Telemetry::of_aggregator(Arc::clone(&ingest));
        let sending = sending::start(&config.sending, ingest.model(), telemetry.push(), telemetry.leading())?;
        let opened = Guard::open(&config.access, rules::AGGREGATOR, "", Arc::clone(&telemetry));
        let guard = Arc::new(runtime.block_on(opened)?);
        let nobody = config.access.push == Some(Choice::Token(None))
            && config.access.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none());
        if nobody {
            tracing::warn!(
                "nobody can push: beyond loopback agents show a token (--auth-token-file) or a certificate (--tls-client-ca)"
            );
        }
        for notice in &config.notices {
            tracing::warn!(notice, "a flag without meaning");
        }
        // Where agents are told apart by the API server it can be asked about nodes too.
        let asked = config.pull.is_some() || config.access.auth == Choice::Kubernetes;
        let plan = Plan { pull: config.pull.clone(), max_nodes: config.max_nodes, timing: Timing::default() };
        let discovery = asked
            .then(|| Discovery::start(plan, Arc::clone(&ingest), Arc::clone(telemetry.pull())))
            .transpose()?;
        let (stopped, stop) = mpsc::channel::<()>();
        let closing = close_steps(Arc::clone(&ingest), config.resolution, stop)?;
        let opened = config.api.as_ref().map(|api| ApiServer::open(api, ingest.model(), &telemetry));
        let api = runtime.block_on(async {
            match opened {
                Some(opened) => opened.await.map(Some),
                None => Ok(None),
            }
        })?;
        let snapshots = snapshots.map(Snapshots::start).transpose()?;
        let site = routes::site(Arc::clone(&ingest), telemetry, receive::Limits::default());
        let limits = limits(descriptors);
        tracing::info!(%address, resolution = ?config.resolution, max_nodes = config.max_nodes, "started");
        Ok(Aggregator {
            runtime,
            listener,
            address,
            ingest,
            site,
            guard,
            limits,
            stopped,
            closing,
            discovery,
            sending,
            api,
            snapshots,
        })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The way into its model.
    pub fn ingest(&self) -> &Arc<Ingest> {
        &self.ingest
    }

    /// From when they are made, signals stop nothing by themselves.
    ///
    /// # Errors
    /// The system gives no handler.
    pub fn stop_signals(&self) -> Result<StopSignals> {
        let _entered = self.runtime.enter();
        StopSignals::new()
    }

    /// Serves until `stop` says why to stop, then stops everything in order.
    ///
    /// # Errors
    /// It cannot serve, or a thread of it panicked.
    pub fn serve(self, stop: impl Future<Output = &'static str>) -> Result<()> {
        let Aggregator { runtime, listener, site, guard, limits, stopped, closing, .. } = self;
        let (discovery, sending, api, snapshots) = (self.discovery, self.sending, self.api, self.snapshots);
        let served = runtime.block_on(async {
            let (stopping, mut stop_api) = watch::channel(());
            let stop = async move {
                let signal = stop.await;
                tracing::info!(signal, "stopping");
                drop(stopping);
            };
            let serve_api = async move {
                let Some(api) = api else { return Ok(true) };
                tracing::info!(address = ?api.listener.local_addr(), "serves the resource metrics API");
                let following = tokio::spawn(api.follow());
                let stop = async move { drop(stop_api.changed().await) };
                let drained = http::serve(api.listener, api.site, api.guard, limits, stop).await;
                following.abort();
                drained
            };
            let served = tokio::try_join!(http::serve(listener, site, guard, limits, stop), serve_api);
            let (drained, api_drained) = served.context("cannot serve")?;
            if !(drained && api_drained) {
                tracing::warn!(after = ?limits.drain, "requests in flight were cut");
            }
            anyhow::Ok(())
        });
        drop(stopped);
        if let Some(discovery) = discovery {
            discovery.stop();
        }
        runtime.shutdown_timeout(LAST_WAIT);
        if let Some(snapshots) = snapshots {
            snapshots.stop();
        }
        if closing.join().is_err() {
            return Err(anyhow!("the thread that closes steps panicked"));
        }
        if let Some(sending) = sending {
            sending.finish();
        }
        served
    }
}

/// An agent keeps a connection between two pushes, and a whole cluster may come
/// through one proxy. Lists of pods make long paths.
fn limits(descriptors: u64) -> Limits {
    let connections = usize::try_from(descriptors / 2).unwrap_or(usize::MAX).clamp(8, 16_384);
    Limits {
        connections,
        per_peer: (connections / 4 * 3).min(4_096),
        probes: (connections / 16).max(2),
        peers: connections.max(4_096) * 2,
        rate: 2_000,
        // A path of HTTP's 64 KiB, which is the most that is understood, and headers.
        head_bytes: 72 << 10,
        ..Limits::new(descriptors)
    }
}

/// Ends when whoever holds the other end of `stop` drops it.
fn close_steps(
    ingest: Arc<Ingest>,
    resolution: Duration,
    stop: mpsc::Receiver<()>,
) -> Result<thread::JoinHandle<()>> {
    let began = Instant::now();
    let wait = LOOK.min(resolution / 4);
    let run = move || {
        loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
            ingest.tick(now_ms, began.elapsed());
            match stop.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    };
    let thread = thread::Builder::new().name("steps".to_owned());
    thread.spawn(run).context("cannot start the thread that closes steps")
}
