//! The agent role: builds the parts, owns the tick and the stop order.
//!
//! The reader thread is the only one that reads the kernel each tick.
//! Ticks fall on the wall-clock grid of the interval, so that all nodes sample
//! at the same moments. A scrape that finds the last snapshot too old asks for
//! a fresh tick in between, at most one a second, which everyone who waits
//! shares. Snapshots are published behind an `Arc` and used again once nobody
//! holds them, so that a steady tick allocates nothing.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::sync::oneshot;

use crate::auth::{Guard, rules};
use crate::collect::Report;
use crate::collect::ps::OnDemand;
use crate::collect::sampler::{self, Namer, Sampler, wall_ms};
use crate::config::{self, Config, KubeletChoice};
use crate::expose::cadvisor::events::Events;
use crate::expose::cadvisor::{Host, LocalTime};
use crate::expose::http::{self, Limits};
use crate::expose::routes::{App, Around, Policy};
use crate::expose::summary::{ImageStore, Surroundings};
use crate::history::History;
use crate::identity::kubelet::Access;
use crate::identity::{self, Identities, SourceState};
use crate::kernel::handles;
use crate::publish::{self, Publisher, Request, Snapshots};
use crate::signals::StopSignals;
use crate::snapshot::{Kinds, Origin, Process, Snapshot};
use crate::telemetry::Telemetry;
use naming::Naming;

pub mod naming;
pub mod node;
pub mod push;
mod watch;

/// Where Kubernetes mounts a service account's token.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// How long the first tick waits for names, where there are sources of names at all.
const FIRST_NAMES: Duration = Duration::from_millis(500);

/// Shortest time between two fresh ticks.
const FRESH_APART: Duration = Duration::from_secs(1);

/// How long kinds that are read only on request are read after they were last
/// asked for: scrapers come back within minutes.
const REQUEST_LASTS: Duration = Duration::from_secs(300);

/// Time for what is read between ticks before requests are looked at again.
const BETWEEN: Duration = Duration::from_millis(5);

/// Snapshots kept for use again: the last one, one being read and one to fill.
const MAX_SPARES: usize = 4;

/// Threads that render, compress and read files for the listener.
const BLOCKING_THREADS: usize = 6;

/// How long a scrape waits for what it needs: a tick and a render take
/// milliseconds, and scrapers give up after ten seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long threads may take to end once nothing is served any more.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Runs the agent until SIGTERM or SIGINT; `announce` is told where it serves
/// once a connection is accepted there.
///
/// # Errors
/// It cannot start, or the reader thread ended by itself.
pub fn run(config: &Config, announce: impl FnOnce(SocketAddr) -> Result<()>) -> Result<()> {
    let listener = bind(config)?;
    let agent = Agent::start(config, listener, handles::raise_descriptor_limit(), None)?;
    let mut signals = agent.stop_signals()?;
    announce(agent.address())?;
    agent.serve(async { signals.received().await })
}

/// Opens the socket that was configured.
///
/// # Errors
/// It cannot be had, in words for the user.
pub fn bind(config: &Config) -> Result<TcpListener> {
    http::bind(config.listen).map_err(|error| config::not_bound("listen", config.listen, &error))
}

/// An agent that reads and pushes, and is about to serve.
#[derive(Debug)]
pub struct Agent {
    runtime: tokio::runtime::Runtime,
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
    guard: Arc<Guard>,
    limits: Limits,
    snapshots: Snapshots,
    reader: JoinHandle<()>,
    /// Fails when the reader thread ended.
    ended: oneshot::Receiver<()>,
    pushing: Option<push::Pushing>,
}

impl Agent {
    /// Starts everything but serving at `listener`, with `descriptors` descriptors; steps go to `local` too.
    ///
    /// # Errors
    /// Something cannot be had, in words for the user.
    pub fn start(
        config: &Config,
        listener: TcpListener,
        descriptors: u64,
        local: Option<push::Local>,
    ) -> Result<Agent> {
        let limits = Limits::new(descriptors);
        let address = listener.local_addr().context("cannot tell the address listened on")?;
        let runtime = event_loop()?;
        let telemetry = Telemetry::new();
        let opened = Guard::open(&config.access, rules::AGENT, &config.node_name, Arc::clone(&telemetry));
        let guard = Arc::new(runtime.block_on(opened)?);
        let identities = runtime.block_on(identities(config));
        // Clients and cgroup handles share the descriptors.
        let left = descriptors.saturating_sub(limits.descriptors());
        let naming = Naming::new(Arc::clone(&identities), config.labels.clone(), &config.kubelet_root);
        let sampler = sampler(config, left, Box::new(naming))?;
        let hierarchy = sampler.layout().hierarchy;

        telemetry.names_come_from(&identities);
        let mut around = around(config, Arc::clone(&identities));
        around.host = Some(Arc::new(Asked(OnDemand::new(config.roots(), sampler.layout()))));
        let known = Arc::clone(&identities);
        let exits = move |id: &str| known.directory().container(id)?.exit_code;
        let events = Arc::new(Events::new(config.events, Box::new(exits)));
        let (mut publisher, snapshots) = publish::channel();
        let pushing = push::start(config, local, identities, Arc::clone(telemetry.push()), runtime.handle())?
            .map(|(pushing, tap)| {
                publisher.tap(tap);
                pushing
            });
        let history = Arc::new(History::new(config.history));
        let recorder = Arc::clone(&history);
        publisher.tap(Box::new(move |snapshot| recorder.record(snapshot)));
        let recorder = Arc::clone(&events);
        publisher.tap(Box::new(move |snapshot| recorder.record(snapshot)));
        let policy = Policy {
            kinds: config.kinds,
            on_request: config.on_request,
            timestamps: config.timestamps,
            max_age: config.max_age,
            interval: config.interval,
            patience: PATIENCE,
        };
        let app = App::within(around, policy, snapshots.clone(), history, events, Arc::clone(&telemetry));
        // The observer goes with the reader thread, and this sender with it.
        let (alive, ended) = oneshot::channel::<()>();
        let observer: Observer = Box::new(move |tick| {
            let _ = &alive;
            telemetry.tick(tick.origin, tick.late, tick.missed, tick.report);
        });
        watch::start(&sampler, snapshots.looker());
        let reader =
            start(sampler, config.interval, publisher, observer).context("cannot start the reader thread")?;
        tracing::info!(%address, ?hierarchy, interval = ?config.interval, node = config.node_name, "started");
        Ok(Agent { runtime, listener, address, app, guard, limits, snapshots, reader, ended, pushing })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
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
    /// It cannot serve, or the reader thread ended by itself.
    pub fn serve(self, stop: impl Future<Output = &'static str>) -> Result<()> {
        let Agent { runtime, listener, app, guard, limits, snapshots, reader, mut ended, pushing, .. } = self;
        let served = runtime.block_on(async {
            let mut by_itself = false;
            let stop = async {
                let signal = tokio::select! {
                    signal = stop => signal,
                    _ = &mut ended => {
                        by_itself = true;
                        return;
                    }
                };
                tracing::info!(signal, "stopping");
            };
            let drained = http::serve(listener, app, guard, limits, stop).await.context("cannot serve")?;
            if by_itself {
                bail!("the reader thread ended");
            }
            if !drained {
                tracing::warn!(after = ?limits.drain, "requests in flight were cut");
            }
            snapshots.stop();
            let _ = tokio::time::timeout(LAST_WAIT, ended).await;
            Ok(())
        });
        runtime.shutdown_timeout(LAST_WAIT);
        if let Some(pushing) = pushing {
            pushing.finish();
        }
        if reader.is_finished() && reader.join().is_err() {
            return Err(anyhow!("the reader thread panicked"));
        }
        served
    }
}

/// The host, asked by those who answer.
#[derive(Debug)]
struct Asked(OnDemand);

impl Host for Asked {
    fn cpus(&self, cgroup: &str) -> Option<String> {
        self.0.cpus(cgroup)
    }

    fn processes(&self, cgroup: &str) -> Vec<Process> {
        self.0.processes(cgroup)
    }

    fn zone(&self) -> LocalTime {
        let zone = self.0.zone();
        Box::new(move |at| zone.ahead(at))
    }

    fn device(&self, uuid: &str) -> Option<(String, u32, u32)> {
        self.0.device(uuid)
    }
}

/// What answers tell besides the snapshot.
pub fn around(config: &Config, identities: Arc<Identities>) -> Around {
    let (node_name, kubelet_root) = (config.node_name.clone(), config.kubelet_root.clone());
    let mut around = Around::new(move || {
        let sources = identities.status();
        let of_docker = sources.iter().find(|s| s.name == "docker" && s.state == SourceState::Up);
        let docker = of_docker.and_then(|source| source.versions.clone());
        let stores = sources.into_iter().flat_map(|s| s.images.into_iter().map(move |store| (s.name, store)));
        let images = stores.map(|(runtime, store)| ImageStore {
            runtime,
            path: store.path,
            layers: store.layers,
            used_bytes: store.used_bytes,
            inodes_used: store.inodes_used,
            measured_ns: store.measured_ns,
        });
        Surroundings {
            node_name: node_name.clone(),
            kubelet_root: kubelet_root.clone(),
            images: images.collect(),
            docker,
        }
    });
    around.paths = config.paths.clone();
    around
}

/// The one loop that serves and asks for names.
///
/// # Errors
/// The kernel gives no event queue.
pub fn event_loop() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("cannot start the event loop")
}

/// Starts the sources of names, and gives them a moment to answer.
pub async fn identities(config: &Config) -> Arc<Identities> {
    let mut options = identity::Options::new(&config.host_root);
    options.runtime = config.runtime;
    options.variables.clone_from(&config.variables);
    options.sockets.clone_from(&config.runtime_sockets);
    let url = match &config.kubelet.choice {
        KubeletChoice::At(url) => Some(url.clone()),
        KubeletChoice::Auto if std::path::Path::new(SERVICE_ACCOUNT_TOKEN).exists() => {
            "https://127.0.0.1:10250".parse().ok()
        }
        KubeletChoice::Auto | KubeletChoice::None => None,
    };
    options.kubelet = url.map(|url| {
        let mut access = Access::new(url, Some(config.node_name.clone()), &config.host_root);
        if let Some(ca) = &config.kubelet.ca_file {
            access.trust.ca_file = Some(ca.clone());
        }
        if let Some(token) = &config.kubelet.token_file {
            access.token_file = Some(token.clone());
        }
        access.trust.insecure = config.kubelet.insecure;
        access
    });
    let identities = Arc::new(Identities::start(&options));
    identities.settled(FIRST_NAMES).await;
    identities
}

/// A sampler of the configured host that may use `descriptors` descriptors.
///
/// # Errors
/// No cgroup filesystem can be found or opened.
pub fn sampler(config: &Config, descriptors: u64, namer: Box<dyn Namer>) -> Result<Sampler> {
    let options = sampler::Options {
        kinds: config.kinds,
        on_request: config.on_request,
        handle_memory: config.handle_memory,
        descriptors,
        max_cgroups: config.max_cgroups,
        disk_usage: config.disk_usage,
    };
    Ok(Sampler::new(config.roots(), options, namer)?)
}

/// What one tick was like, for our own metrics.
#[derive(Debug, Clone, Copy)]
pub struct Tick<'a> {
    /// Why it ran.
    pub origin: Origin,
    /// How long after its moment on the grid it began; zero for a fresh one.
    pub late: Duration,
    /// Moments of the grid that passed without a tick before this one.
    pub missed: u64,
    /// What the collection noticed.
    pub report: &'a Report,
}

/// Told about every tick, on the reader thread.
pub type Observer = Box<dyn FnMut(Tick<'_>) + Send>;

/// Starts the reader thread; it ends when asked to, or when nobody can ask any more.
///
/// # Errors
/// No thread can be had.
pub fn start(
    sampler: Sampler,
    interval: Duration,
    publisher: Publisher,
    observer: Observer,
) -> std::io::Result<JoinHandle<()>> {
    let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
    let reader = ReaderThread {
        sampler,
        interval_ms,
        publisher,
        observer,
        spares: Vec::new(),
        last_grid: None,
        asked: None,
    };
    thread::Builder::new().name("reader".to_owned()).spawn(move || reader.run())
}

struct ReaderThread {
    sampler: Sampler,
    interval_ms: u64,
    publisher: Publisher,
    observer: Observer,
    spares: Vec<Arc<Snapshot>>,
    /// Number of the last grid moment that had its tick.
    last_grid: Option<u64>,
    /// Kinds asked for, and when last.
    asked: Option<(Kinds, Instant)>,
}

impl ReaderThread {
    fn run(mut self) {
        // The first snapshot does not wait for the grid.
        self.tick(Origin::Fresh, Duration::ZERO, 0);
        let mut last = Instant::now();
        let mut wanted = false;
        loop {
            let mut wait = self.until_grid();
            if wanted {
                wait = wait.min(FRESH_APART.saturating_sub(last.elapsed()));
            }
            if let Some(due) = self.sampler.next_due() {
                wait = wait.min(due.saturating_duration_since(Instant::now()));
            }
            match self.publisher.requests.recv_timeout(wait) {
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Request::Look) => self.sampler.look(),
                Ok(Request::Ends) => self.sampler.look_at_ends(),
                Ok(Request::Fresh(kinds)) => {
                    wanted = true;
                    self.want(kinds);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some((late, missed)) = self.grid_due() {
                self.tick(Origin::Grid, late, missed);
            } else if wanted && last.elapsed() >= FRESH_APART {
                self.tick(Origin::Fresh, Duration::ZERO, 0);
            } else {
                self.sampler.between(BETWEEN.min(self.until_grid()));
                continue;
            }
            last = Instant::now();
            wanted = false;
        }
    }

    /// Time to the next moment of the grid by the wall clock, so that a clock
    /// that is set moves the grid with it.
    fn until_grid(&self) -> Duration {
        let now = wall_ms();
        Duration::from_millis(self.interval_ms - now % self.interval_ms)
    }

    /// Whether a grid moment has come that had no tick, how long ago it was, and
    /// how many before it had none. A clock set back starts a new count.
    fn grid_due(&mut self) -> Option<(Duration, u64)> {
        let now = wall_ms();
        let moment = now / self.interval_ms;
        let Some(last) = self.last_grid.replace(moment) else {
            // The thread began within this step.
            return None;
        };
        let steps = moment.checked_sub(last)?;
        (steps > 0).then(|| (Duration::from_millis(now % self.interval_ms), steps - 1))
    }

    /// Reads what was asked for until nobody has asked for long.
    fn want(&mut self, kinds: Kinds) {
        if kinds == Kinds::NONE {
            return;
        }
        let before = self.asked.filter(|(_, at)| at.elapsed() < REQUEST_LASTS).map(|(kinds, _)| kinds);
        let kinds = before.map_or(kinds, |before| before.or(kinds));
        self.asked = Some((kinds, Instant::now()));
        self.sampler.want(kinds);
    }

    fn tick(&mut self, origin: Origin, late: Duration, missed: u64) {
        if self.asked.is_some_and(|(_, at)| at.elapsed() >= REQUEST_LASTS) {
            self.asked = None;
            self.sampler.want(Kinds::NONE);
        }
        let free = self.spares.iter_mut().position(|s| Arc::get_mut(s).is_some());
        let mut snapshot = match free {
            Some(index) => self.spares.swap_remove(index),
            None => Arc::new(self.sampler.blank()),
        };
        let Some(filled) = Arc::get_mut(&mut snapshot) else { return };
        self.sampler.tick(origin, filled);
        self.sampler.published(&snapshot);
        if let Some(replaced) = self.publisher.publish(snapshot)
            && self.spares.len() < MAX_SPARES
        {
            self.spares.push(replaced);
        }
        (self.observer)(Tick { origin, late, missed, report: self.sampler.report() });
    }
}
