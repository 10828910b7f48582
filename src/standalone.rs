//! Agent and aggregator of one machine in one process: what a newcomer runs first.
//!
//! Each has its own event loop and listener, as it has in a process of its own. The
//! agent's steps go straight into the aggregator's model: there is no connection
//! between them that could need credentials, break or wait, and the only queue is that of
//! ticks on their way to steps. Other agents may push to the aggregator as to any other.
//!
//! Stop order: the agent, whose last step is in the model by then, then the aggregator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::oneshot;

use crate::agent::{self, Agent, push::Local};
use crate::aggregator::{self, Aggregator};
use crate::config::StandaloneConfig;
use crate::kernel::handles;

/// Of so many descriptors one is for the aggregator; the agent reads cgroups with the others.
const SHARE: u64 = 8;

/// Runs both until SIGTERM or SIGINT; `announce` is told where the agent and the
/// aggregator serve once connections are accepted there.
///
/// # Errors
/// One of them cannot start, or ended by itself.
pub fn run(
    config: &StandaloneConfig,
    announce: impl FnOnce(SocketAddr, SocketAddr) -> Result<()>,
) -> Result<()> {
    // Both before anything starts: an address that is taken is then all there is to say.
    let of_agent = agent::bind(&config.agent)?;
    let of_aggregator = aggregator::bind(&config.aggregator, "aggregator-listen")?;
    let descriptors = handles::raise_descriptor_limit();
    let share = descriptors / SHARE;
    let aggregator = Aggregator::start(&config.aggregator, of_aggregator, share)?;
    let local = Local { ingest: Arc::clone(aggregator.ingest()), resolution: config.steps };
    let agent = Agent::start(&config.agent, of_agent, descriptors - share, Some(local))?;
    let mut signals = agent.stop_signals()?;
    announce(agent.address(), aggregator.address())?;

    let (stop, told) = oneshot::channel::<()>();
    let (alive, ended) = oneshot::channel::<()>();
    let serve = move || {
        let _alive = alive;
        aggregator.serve(async {
            // Dropped once the agent has ended, in whatever way.
            let _ = told.await;
            "the agent stopped"
        })
    };
    let thread = thread::Builder::new().name("aggregator".to_owned());
    let thread = thread.spawn(serve).context("cannot start the aggregator's thread")?;
    let by_agent = agent.serve(async {
        tokio::select! {
            signal = signals.received() => signal,
            _ = ended => "the aggregator ended",
        }
    });
    drop(stop);
    let by_aggregator = thread.join().map_err(|_| anyhow!("the aggregator's thread panicked"))?;
    by_aggregator.context("aggregator").and(by_agent.context("agent"))
}
