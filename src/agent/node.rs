//! What the API server tells of the node this agent is on: labels, and what it has
//! and gives to pods.
//!
//! Steps that go straight to a database need it; an aggregator asks by itself, and what
//! it is told goes before this. One GET every five minutes, by the right to `get` nodes.

use std::env;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use axum::http::Request;
use kube::Client;
use tokio::sync::watch;

use super::SERVICE_ACCOUNT_TOKEN;
use crate::aggregate::objects::{ApiNode, Node};
use crate::aggregate::watch::Object as _;
use crate::identity::model::Names;
use crate::kubernetes;
use crate::push::target::{Protocol, Target};
use crate::telemetry::push::PushMetrics;

/// How often it is asked for, and how soon again after a failure.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// After an answer.
    pub every: Duration,
    /// After none.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing { every: Duration::from_secs(300), retry: Duration::from_secs(60) }
    }
}

/// Whether one of these is a database: aggregators ask by themselves, and the role of an
/// agent that pushes to nothing else has no right to `get` nodes.
pub fn is_needed(targets: &[Target]) -> bool {
    targets.iter().any(|target| target.protocol != Protocol::Aggregator)
}

/// Whether there is an API server to ask, as far as can be told without asking: a service
/// account is mounted, or `KUBECONFIG` names a file.
pub fn can_be_asked() -> bool {
    Path::new(SERVICE_ACCOUNT_TOKEN).exists() || env::var_os("KUBECONFIG").is_some()
}

/// Asks again and again, until nobody wants to know any more. A failure is counted, told
/// once until an answer comes, and leaves what was known.
pub async fn follow(
    name: String,
    mut client: Option<Client>,
    told: watch::Sender<Option<Arc<Node>>>,
    metrics: Arc<PushMetrics>,
    timing: Timing,
) {
    let mut failing = false;
    loop {
        let wait = match read(&mut client, &name).await {
            Ok(node) => {
                failing = false;
                told.send_replace(Some(Arc::new(node)));
                timing.every
            }
            Err(error) => {
                metrics.node_unread();
                if !failing {
                    let error = Shown(&error);
                    tracing::warn!(node = name, %error, "what the node gives to pods is not known to databases");
                }
                failing = true;
                timing.retry
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = told.closed() => return,
        }
    }
}

struct Shown<'a>(&'a anyhow::Error);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

async fn read(client: &mut Option<Client>, name: &str) -> Result<Node> {
    let client = match client {
        Some(client) => client,
        None => client.insert(kubernetes::client().await?),
    };
    let path = format!("/api/v1/nodes/{name}");
    let request = Request::get(&path).body(Vec::new()).context("a node's name that no path can hold")?;
    let answer = client.request::<ApiNode>(request).await;
    let node = answer.map_err(|error| anyhow!("{error}")).with_context(|| format!("GET {path}"))?;
    node.keep(&None, &mut Names::default()).ok_or_else(|| anyhow!("GET {path}: not a node"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_databases_need_it() {
        let needed = |urls: &[&str]| {
            let targets: Vec<Target> = urls.iter().map(|url| Target::parse(url).unwrap()).collect();
            is_needed(&targets)
        };
        assert!(!needed(&[]));
        assert!(!needed(&["aggregator:https://a:8082", "aggregator:https://b:8082?name=b"]));
        assert!(needed(&["aggregator:https://a:8082", "influxdb:http://h:8086?db=k8s"]));
        assert!(needed(&["remote-write:http://h/api/v1/write"]));
    }
}
