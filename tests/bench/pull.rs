//! A thousand kubelets, asked by an aggregator as Heapster's pull source asks them: whether all
//! of them are in every step, and what that takes.
//!
//! `cargo bench --bench pull -- [--binary FILE] [--step SECONDS] NODES PODS CONTAINERS`. The API server and the
//! kubelets are here, the latter each at a loopback address of its own; an answer has what
//! a kubelet's summary has, with figures that rise. What they take themselves is told apart.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    missing_docs,
    unreachable_pub
)]

use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Steps that all nodes have to be in, one after the other.
const STEPS: usize = 3;
/// Rounds that may pass until then, and more: how long the machine takes is not the matter.
const PATIENCE: u32 = 20;

fn now() -> Duration {
    UNIX_EPOCH.elapsed().unwrap()
}

fn name(node: usize) -> String {
    format!("node-{node:05}")
}

fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 1, (node / 250) as u8, (node % 250) as u8 + 1)
}

/// A summary with the places of what changes: the time, and the CPU time used.
fn template(node: usize, pods: usize, containers: usize) -> String {
    let start = "2026-01-01T00:00:00Z";
    let cpu = json!({"time": "@TIME@", "usageNanoCores": 1_000_000, "usageCoreNanoSeconds": "@CPU@"});
    let memory = |of: usize| {
        json!({"time": "@TIME@", "availableBytes": 900_000_000, "usageBytes": (of % 100 + 1) << 20,
            "workingSetBytes": (of % 100 + 1) << 19, "rssBytes": 9_000_000, "pageFaults": 123_456, "majorPageFaults": 3})
    };
    let disk = json!({"time": "@TIME@", "availableBytes": 5_000_000_000_u64, "capacityBytes": 9_000_000_000_u64,
        "usedBytes": 1_000_000, "inodesFree": 500_000, "inodes": 655_360, "inodesUsed": 12});
    let container = |pod: usize, at: usize| json!({"name": format!("container-{at}"), "startTime": start, "cpu": cpu, "memory": memory(pod), "rootfs": disk, "logs": disk});
    let pod = |pod: usize| {
        let containers: Vec<Value> = (0..containers).map(|at| container(pod, at)).collect();
        json!({"podRef": {"name": format!("pod-{pod}-{node:05}"), "namespace": format!("space-{}", pod % 10),
            "uid": format!("0d1c2b3a-4f5e-4a7b-{pod:04x}-{node:012x}")}, "startTime": start, "containers": containers,
            "cpu": cpu, "memory": memory(pod), "network": {"time": "@TIME@", "name": "eth0", "rxBytes": 1_000_000,
            "rxErrors": 0, "txBytes": 2_000_000, "txErrors": 0}, "volume": [{"time": "@TIME@", "name": "data",
            "availableBytes": 1_000_000, "capacityBytes": 2_000_000, "usedBytes": 1_000, "inodes": 100, "inodesUsed": 1}]})
    };
    let pods: Vec<Value> = (0..pods).map(pod).collect();
    let all = json!({"node": {"nodeName": name(node), "startTime": start, "cpu": cpu, "memory": memory(node), "fs": disk,
        "network": {"time": "@TIME@", "name": "eth0", "rxBytes": 1, "txBytes": 1}}, "pods": pods});
    all.to_string().replace("\"@CPU@\"", "@CPU@")
}

struct Machines {
    templates: Vec<String>,
    /// Summaries that were asked for.
    asked: AtomicU64,
    bytes: AtomicU64,
    port: u16,
}

impl Machines {
    fn summary(&self, node: usize) -> String {
        let now = now();
        let time = humantime::format_rfc3339_nanos(UNIX_EPOCH + now).to_string();
        let cpu = (now.as_nanos() as u64 / 4).to_string();
        let text = self.templates[node].replace("@TIME@", &time).replace("@CPU@", &cpu);
        self.asked.fetch_add(1, Relaxed);
        self.bytes.fetch_add(text.len() as u64, Relaxed);
        text
    }

    /// What the API server has of a kind: nodes, and nothing else.
    fn list(&self, path: &str) -> String {
        let node = |at: usize| {
            json!({"metadata": {"name": name(at), "uid": format!("{at}")}, "spec": {}, "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": address(at).to_string()}]}})
        };
        let (kind, items) = match path {
            "/api/v1/nodes" => ("NodeList", (0..self.templates.len()).map(node).collect()),
            "/api/v1/pods" => ("PodList", Vec::new()),
            _ => ("NamespaceList", Vec::new()),
        };
        json!({"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})
            .to_string()
    }
}

/// One connection to a kubelet, or to the API server where it is none's.
async fn serve(mut stream: TcpStream, machines: Arc<Machines>, node: Option<usize>) -> Option<()> {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = read.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        read.drain(..end);
        let target = head.split(' ').nth(1)?;
        let path = target.split('?').next()?;
        if target.contains("watch=") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n").await.ok()?;
            // Nothing ever changes.
            return std::future::pending().await;
        }
        let body = match node {
            Some(node) => machines.summary(node),
            None => machines.list(path),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(body.as_bytes()).await.ok()?;
    }
}

async fn accept(listener: TcpListener, machines: Arc<Machines>, node: Option<usize>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&machines), node));
        }
    }
}

struct Aggregator {
    child: Child,
    url: String,
}

impl Drop for Aggregator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Aggregator {
    fn start(binary: &str, api: &str, port: u16, step: u64) -> Aggregator {
        let source =
            format!("--source=kubernetes:{api}?inClusterConfig=false&kubeletHttps=false&kubeletPort={port}");
        let resolution = format!("{step}s");
        let mut child = Command::new(binary)
            .args(["aggregator", "--listen", "127.0.0.1:0", "--metric-resolution", &resolution, &source])
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("://").nth(1).unwrap().trim_end().trim_end_matches('/').to_owned();
        Aggregator { child, url: format!("http://{address}") }
    }

    fn cpu(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    fn memory(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }

    async fn text(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.url.trim_start_matches("http://")).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// Times of the points of a series.
    async fn times(&self, path: &str) -> Vec<String> {
        let answer: Value = serde_json::from_str(&self.text(path).await).unwrap();
        let points = answer["metrics"].as_array().unwrap().iter();
        points.map(|point| point["timestamp"].as_str().unwrap().to_owned()).collect()
    }

    async fn failures(&self) -> Vec<String> {
        let text = self.text("/metrics").await;
        let failed = text.lines().filter(|line| line.starts_with("nodegauge_pull_failures_total{"));
        failed
            .filter(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() > 0.0)
            .map(str::to_owned)
            .collect()
    }
}

fn main() {
    let mut binary = env!("CARGO_BIN_EXE_nodegauge").to_owned();
    let mut step = 60;
    let mut sizes: Vec<usize> = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--binary" => binary = words.next().unwrap(),
            "--step" => step = words.next().unwrap().parse().unwrap(),
            "--bench" => {}
            size => sizes.push(size.parse().unwrap()),
        }
    }
    let size = |at: usize, default: usize| sizes.get(at).copied().unwrap_or(default);
    let (nodes, pods, containers) = (size(0, 1_000), size(1, 30), size(2, 2));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(&binary, step, nodes, pods, containers));
}

async fn run(binary: &str, step: u64, nodes: usize, pods: usize, containers: usize) {
    let first = TcpListener::bind((address(0), 0)).await.unwrap();
    let port = first.local_addr().unwrap().port();
    let templates = (0..nodes).map(|node| template(node, pods, containers)).collect();
    let machines = Arc::new(Machines { templates, asked: AtomicU64::new(0), bytes: AtomicU64::new(0), port });
    tokio::spawn(accept(first, Arc::clone(&machines), Some(0)));
    for node in 1..nodes {
        let listener = TcpListener::bind((address(node), machines.port)).await.unwrap();
        tokio::spawn(accept(listener, Arc::clone(&machines), Some(node)));
    }
    let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api_url = format!("http://{}", api.local_addr().unwrap());
    tokio::spawn(accept(api, Arc::clone(&machines), None));
    let aggregator = Aggregator::start(binary, &api_url, machines.port, step);
    let began = Instant::now();
    let limit = Duration::from_secs(step) * PATIENCE;
    // Before the first whole step there is only what rates start from.
    while aggregator.times(&format!("/api/v1/model/nodes/{}/metrics/cpu/usage_rate", name(0))).await.len()
        < STEPS
    {
        assert!(began.elapsed() < limit, "no steps: {:?}", aggregator.failures().await);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (cpu, wall) = (aggregator.cpu(), began.elapsed().as_secs_f64());
    let failures = aggregator.failures().await;
    assert!(failures.is_empty(), "{failures:?}");
    let wanted = aggregator.times(&format!("/api/v1/model/nodes/{}/metrics/cpu/usage_rate", name(0))).await;
    let wanted = &wanted[..STEPS];
    for node in 0..nodes {
        let found =
            aggregator.times(&format!("/api/v1/model/nodes/{}/metrics/cpu/usage_rate", name(node))).await;
        assert!(wanted.iter().all(|time| found.contains(time)), "{}: {found:?} of {wanted:?}", name(node));
    }
    let asked = machines.asked.load(Relaxed);
    println!(
        "pull: {nodes} kubelets x {pods} pods x {containers} containers each {step} s, all of them in each of {STEPS} steps \
         and no failure; {asked} summaries of {:.0} kB, {:.1} ms of CPU each, {:.3} cores, at most {:.0} MiB",
        machines.bytes.load(Relaxed) as f64 / asked as f64 / 1e3,
        cpu / asked as f64 * 1e3,
        cpu / wall,
        aggregator.memory()
    );
}
