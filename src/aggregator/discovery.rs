//! The thread that speaks to the API server and to kubelets: what is known of nodes,
//! pods and namespaces is kept up to date, and who pushes nothing is asked.
//!
//! It has an event loop of its own, so that nobody who asks the aggregator waits for a
//! cluster's worth of TLS. Where the API server is not there, or its credentials
//! are not, everything else goes on and this is tried for ever.

use std::convert::Infallible;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::watch;

use crate::aggregate::ingest::Ingest;
use crate::aggregate::objects::{ApiNamespace, ApiNode};
use crate::aggregate::pull::Puller;
use crate::aggregate::source::Pull;
use crate::aggregate::watch::{Timing, Watcher};
use crate::identity::kubelet::ApiPod;
use crate::kubernetes::{self, Connection};
use crate::push::delivery::backoff::Backoff;
use crate::telemetry::pull::PullMetrics;

/// Threads that make steps of what kubelets told.
const BLOCKING_THREADS: usize = 4;

/// First and longest wait for credentials.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long kubelets are not asked because pods are not known yet: without them
/// nothing is known of requests, and of who has the host's network.
const PODS: Duration = Duration::from_secs(15);

/// Between two looks at whether something is known by now.
const LOOK: Duration = Duration::from_millis(50);

/// What is to be found out.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Kubelets to be asked; without, nodes are all that is watched, at the API
    /// server of the cluster this process belongs to.
    pub pull: Option<Pull>,
    /// Most nodes to ask.
    pub max_nodes: usize,
    /// Of watches.
    pub timing: Timing,
}

/// The thread; it ends when this is dropped or [`Discovery::stop`]ped.
#[derive(Debug)]
pub struct Discovery {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Discovery {
    /// Starts it.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(plan: Plan, ingest: Arc<Ingest>, metrics: Arc<PullMetrics>) -> Result<Discovery> {
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()
            .context("cannot start an event loop")?;
        let run = move || {
            let mut until = stopped.clone();
            runtime.block_on(async {
                tokio::select! {
                    never = discover(&plan, &ingest, &metrics, stopped) => match never {},
                    // Also when whoever could say so is gone.
                    _ = until.wait_for(|stop| *stop) => {}
                }
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
        };
        let thread = thread::Builder::new().name("discovery".to_owned());
        let thread = thread.spawn(run).context("cannot start the thread that finds nodes")?;
        Ok(Discovery { stop, thread: Some(thread) })
    }

    /// Ends it.
    pub fn stop(mut self) {
        self.stop.send_replace(true);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that finds nodes panicked");
        }
    }
}

async fn discover(
    plan: &Plan,
    ingest: &Arc<Ingest>,
    metrics: &Arc<PullMetrics>,
    stop: watch::Receiver<bool>,
) -> Infallible {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let (connection, puller) = loop {
        let made = async {
            let connection = connect(plan).await?;
            let credentials = connection.credentials.clone();
            let puller = |pull: &Pull| {
                let (ingest, metrics) = (Arc::clone(ingest), Arc::clone(metrics));
                Puller::new(ingest, pull.clone(), credentials, metrics, plan.max_nodes).map(Arc::new)
            };
            let puller = plan.pull.as_ref().map(puller).transpose()?;
            anyhow::Ok((connection, puller))
        };
        match made.await {
            Ok(made) => break made,
            Err(error) => {
                metrics.unconnected();
                let wait = backoff.wait();
                tracing::warn!(
                    error = format!("{error:#}"), again_in = ?wait,
                    "the API server cannot be asked, so no node is found; trying again"
                );
                tokio::time::sleep(wait).await;
            }
        }
    };
    tracing::info!(url = connection.url, "asking the API server");
    let facts = ingest.model().facts();
    let annotation = plan.pull.as_ref().and_then(|pull| pull.host_id_annotation.clone());
    let client = || connection.client.clone();
    let nodes = Watcher::<ApiNode>::new(&facts.nodes, client(), annotation, plan.timing);
    let Some(puller) = puller else { return nodes.run().await };
    let pods = Watcher::<ApiPod>::new(&facts.pods, client(), (), plan.timing);
    let namespaces = Watcher::<ApiNamespace>::new(&facts.namespaces, client(), (), plan.timing);
    let pulling = async {
        while !facts.nodes.is_known() {
            tokio::time::sleep(LOOK).await;
        }
        let known = async {
            while !facts.pods.is_known() {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(PODS, known).await.is_err() {
            tracing::warn!("kubelets are asked although nothing is known of pods");
        }
        puller.run(|| async { connect(plan).await.map(|connection| connection.credentials) }, stop).await;
        // It was told to stop, as are all others.
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        never = nodes.run() => never,
        never = pods.run() => never,
        never = namespaces.run() => never,
        never = pulling => never,
    }
}

async fn connect(plan: &Plan) -> Result<Connection> {
    match &plan.pull {
        Some(pull) => pull.server.connect().await,
        None => kubernetes::own().await,
    }
}
