//! The aggregator role: builds the parts, owns the closing of steps and the stop order.
//!
//! One loop serves all sockets ([`routes`]); batches are read on other threads
//! ([`receive`]); one thread closes steps. Nothing is kept on disk: after a start
//! agents send the last fifteen minutes once more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};

use crate::aggregate::ingest::Ingest;
use crate::aggregate::model::{Model, Options};
use crate::auth::{Choice, Guard, rules};
use crate::config::{self, AggregatorConfig};
use crate::expose::http::{self, Limits};
use crate::kernel::handles;
use crate::signals::StopSignals;
use crate::telemetry::Telemetry;

pub mod page;
pub mod receive;
pub mod routes;

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
    let limits = limits(handles::raise_descriptor_limit());
    let listener = http::bind(config.listen).map_err(|error| config::not_bound(config.listen, &error))?;
    let address = listener.local_addr().context("cannot tell the address listened on")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("cannot start the event loop")?;
    let model = Arc::new(Model::new(Options { resolution: config.resolution, ..Options::default() }));
    let ingest = Arc::new(Ingest::new(model, config.max_nodes));
    let telemetry = Telemetry::of_aggregator(Arc::clone(&ingest));
    let opened = Guard::open(&config.access, rules::AGGREGATOR, "", Arc::clone(&telemetry));
    let guard = Arc::new(runtime.block_on(opened)?);
    let nobody = config.access.push == Some(Choice::Token(None))
        && config.access.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none());
    if nobody {
        tracing::warn!(
            "nobody can push: beyond loopback agents show a token (--auth-token-file) or a certificate (--tls-client-ca)"
        );
    }
    let (stopped, stop) = mpsc::channel::<()>();
    let closing = close_steps(Arc::clone(&ingest), config.resolution, stop)?;
    let site = routes::site(ingest, telemetry, receive::Limits::default());
    let served = runtime.block_on(async {
        let mut signals = StopSignals::new()?;
        announce(address)?;
        tracing::info!(%address, resolution = ?config.resolution, max_nodes = config.max_nodes, "started");
        let stop = async {
            let signal = signals.received().await;
            tracing::info!(signal, "stopping");
        };
        let drained = http::serve(listener, site, guard, limits, stop).await.context("cannot serve")?;
        if !drained {
            tracing::warn!(after = ?limits.drain, "requests in flight were cut");
        }
        anyhow::Ok(())
    });
    drop(stopped);
    runtime.shutdown_timeout(LAST_WAIT);
    if closing.join().is_err() {
        return Err(anyhow!("the thread that closes steps panicked"));
    }
    served
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
