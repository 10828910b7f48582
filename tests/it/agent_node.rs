//! What an agent asks the API server about its own node.

use std::sync::Arc;
use std::time::Duration;

use nodegauge::agent::node::{self, Timing};
use nodegauge::telemetry::push::PushMetrics;
use serde_json::json;
use tokio::sync::watch;

use crate::standin::cluster::Cluster;

#[tokio::test]
async fn the_own_node_is_asked_for_until_it_is_told_and_again() {
    let cluster = Cluster::start();
    let metrics = Arc::new(PushMetrics::default());
    let (told, mut known) = watch::channel(None);
    let timing = Timing { every: Duration::from_millis(50), retry: Duration::from_millis(10) };
    let following = tokio::spawn(node::follow(
        "n1".to_owned(),
        Some(cluster.client()),
        told,
        Arc::clone(&metrics),
        timing,
    ));
    while metrics.nodes_unread() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(known.borrow().is_none(), "nothing is known of a node that is not there");

    let node = |cpu: &str| {
        json!({
            "metadata": {"name": "n1", "labels": {"zone": "a"}},
            "status": {"allocatable": {"cpu": cpu, "memory": "1Ki"}, "capacity": {"cpu": "4"}},
        })
    };
    cluster.put("nodes", node("1500m"));
    known.changed().await.unwrap();
    {
        let node = known.borrow_and_update();
        let node = node.as_ref().unwrap();
        assert_eq!(node.allocatable.cpu_milli, Some(1_500));
        assert_eq!(node.allocatable.memory_bytes, Some(1_024));
        assert_eq!((node.capacity.cpu_milli, node.capacity.memory_bytes), (Some(4_000), None));
        assert_eq!(node.labels.get("zone"), Some("a"));
    }

    cluster.put("nodes", node("3"));
    known
        .wait_for(|node| node.as_ref().is_some_and(|n| n.allocatable.cpu_milli == Some(3_000)))
        .await
        .unwrap();
    let failures = metrics.nodes_unread();
    cluster.down(true);
    while metrics.nodes_unread() == failures {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(known.borrow().is_some(), "what was told stays");
    assert!(
        cluster.queries().iter().all(|query| query == "nodes/n1?"),
        "it asks for its own node and for no other"
    );

    drop(known);
    following.await.unwrap();
}
