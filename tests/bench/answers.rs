//! Whether an aggregator under load answers with what was pushed: each point of some
//! series, sums over the cluster, every pod, and its own counts.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::machines::Machine;
use super::{Agent, Cluster};

/// How long all steps may take to be closed and summed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes a value takes on its way, at most.
const BYTES_A_VALUE: f64 = 7.0;

/// The body of an answer.
pub async fn text(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nhost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{path}: {head}");
    body.to_owned()
}

/// Steps and values of a series.
async fn series(address: SocketAddr, path: &str, step_ms: u64) -> Vec<(u64, u64)> {
    let answer: Value = serde_json::from_str(&text(address, path).await).unwrap();
    let point = |point: &Value| {
        let time = humantime::parse_rfc3339(point["timestamp"].as_str().unwrap()).unwrap();
        let ms = time.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
        assert_eq!(ms % step_ms, 0, "{path}");
        (ms / step_ms, point["value"].as_u64().unwrap())
    };
    answer["metrics"].as_array().unwrap().iter().map(point).collect()
}

/// Compares what `address` answers with what `agents` pushed in the steps `pushed`.
pub async fn check(address: SocketAddr, cluster: &Cluster, agents: &[Agent], pushed: &BTreeSet<u64>) {
    let Cluster { nodes, pods, step_ms, .. } = *cluster;
    let of_cluster = "/api/v1/model/metrics/memory/usage";
    let variant = |agent: &Agent, step: u64| usize::try_from(step).unwrap() % agent.memory.len();
    let all = |step: u64| agents.iter().map(|a| a.memory[variant(a, step)].iter().sum::<u64>()).sum::<u64>();
    let expected: Vec<_> = pushed.iter().map(|step| (*step, all(*step))).collect();
    // The last step closes by and by, and sums over what came late are worked out again.
    let began = std::time::Instant::now();
    let mut found = series(address, of_cluster, step_ms).await;
    while found != expected && began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(200)).await;
        found = series(address, of_cluster, step_ms).await;
    }
    assert_eq!(found, expected, "{of_cluster}");
    for node in [0, nodes / 2, nodes - 1] {
        for pod in [0, pods - 1] {
            let (namespace, name) = Machine::pod(node, pod);
            let path = format!("/api/v1/model/namespaces/{namespace}/pods/{name}/metrics/memory/usage");
            let agent = &agents[node];
            let value = |step: &u64| (*step, agent.memory[variant(agent, *step)][pod]);
            let expected: Vec<_> = pushed.iter().map(value).collect();
            assert_eq!(series(address, &path, step_ms).await, expected, "{path}");
        }
    }
    let listed: Value =
        serde_json::from_str(&text(address, "/apis/metrics.k8s.io/v1beta1/pods").await).unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), nodes * pods, "pods of metrics.k8s.io");
    let metrics = text(address, "/metrics").await;
    let count = |name: &str| -> f64 {
        let told = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        told.unwrap_or_else(|| panic!("{name}")).parse().unwrap()
    };
    let batches = (pushed.len() * nodes) as f64;
    let values = pushed.len() as u64 * agents.iter().map(|agent| agent.values).sum::<u64>();
    assert_eq!(count("nodegauge_ingest_batches_total"), batches, "batches");
    assert_eq!(count("nodegauge_ingest_values_total"), values as f64, "values");
    assert_eq!(count("nodegauge_ingest_duplicate_batches_total"), 0.0, "duplicates");
    let a_value = count("nodegauge_ingest_bytes_total") / values as f64;
    assert!(a_value <= BYTES_A_VALUE, "{a_value} bytes a value");
    println!("checked   {} steps: series, sums, pods and counts are as pushed", pushed.len());
}
