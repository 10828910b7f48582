//! An aggregator under the load of a whole cluster: what it takes, and how fast it answers meanwhile.
//!
//! `cargo bench --bench scale` starts the aggregator, connects simulated agents over loopback,
//! each with a connection of its own, fills the fifteen minutes, then pushes step after step,
//! spread as agents spread theirs, and asks. `-- 1000x30x2 …` names other clusters (nodes, pods of
//! each, containers of each pod), `-- --steps 3` more steps, `-- --step 15` their length in
//! seconds, `-- --binary FILE` another aggregator. `-- --check` compares the answers with what was pushed in the end,
//! and asserts no times. `-- --during COMMAND` goes on with pushing while a shell runs that, with the
//! aggregator's address in `AGGREGATOR`, and fails with it.
//!
//! Batches are encoded beforehand, sixteen steps of each node (`-- --variants 4`: fewer) that take turns; the times and the
//! sequence are a zstd frame behind each. What the load itself takes is told separately.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    unreachable_pub
)]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use nodegauge::push::batch::{Batch, Encoder, EntityKind, MetricId, Value, proto};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

mod answers;
mod machines;
use machines::Machine;

/// Steps that the window is filled with.
const FILL: u64 = 15;

/// Pushes under way at once while it is filled.
const AT_ONCE: usize = 32;

/// Agents that share a source address: no address may have all connections.
const PER_ADDRESS: usize = 1_000;

fn main() {
    let mut clusters = Vec::new();
    let (mut steps, mut step, mut variants, mut binary) =
        (2, 60, 16, env!("CARGO_BIN_EXE_nodegauge").to_owned());
    let (mut check, mut during) = (false, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--steps" => steps = words.next().unwrap().parse().unwrap(),
            "--step" => step = words.next().unwrap().parse().unwrap(),
            "--variants" => variants = words.next().unwrap().parse().unwrap(),
            "--binary" => binary = words.next().unwrap(),
            "--check" => check = true,
            "--during" => during = words.next(),
            "--bench" => {}
            cluster => clusters.push(cluster.split('x').map(|n| n.parse().unwrap()).collect()),
        }
    }
    if clusters.is_empty() {
        clusters = vec![vec![1_000, 30, 1], vec![1_000, 30, 2], vec![2_000, 30, 2], vec![5_000, 30, 2]];
    }
    for cluster in clusters {
        let [nodes, pods, containers] = cluster[..] else { panic!("NODESxPODSxCONTAINERS") };
        let during = during.clone();
        run(
            &Cluster { nodes, pods, containers, step_ms: step * 1_000, variants, check, during },
            steps,
            &binary,
        );
    }
    println!(
        "\nHeapster 1.5, measured at 1000x30x2 and 60 s: 4.4 GB, 0.55 core, pod-list 63 ms, pods of metrics 0.5 s, \
         export 8.9 s"
    );
}

struct Cluster {
    nodes: usize,
    pods: usize,
    containers: usize,
    step_ms: u64,
    /// Steps of a node that are encoded, and take turns.
    variants: u64,
    /// Whether what is answered is compared with what was pushed.
    check: bool,
    /// What a shell runs in the end, while they push.
    during: Option<String>,
}

/// One simulated agent: its steps as they are sent, without times.
struct Agent {
    steps: Vec<Vec<u8>>,
    values: u64,
    /// What its pods use in each of them, in their order.
    memory: Vec<Vec<u64>>,
}

/// `memory/usage` of each pod.
fn memory(batch: &Batch) -> Vec<u64> {
    let pods = batch.entities().filter(|entity| entity.kind() == EntityKind::Pod);
    let of_pod = |pod: nodegauge::push::batch::Entity<'_>| {
        pod.metrics().find_map(|point| match point.value {
            Value::Integer(value) => (point.metric.id == MetricId::MemoryUsage).then_some(value),
            Value::Double(_) => None,
        })
    };
    pods.map(|pod| of_pod(pod).unwrap()).collect()
}

impl Cluster {
    /// Encodes on as many threads as there are cores.
    fn encode(&self) -> Vec<Agent> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let share = self.nodes.div_ceil(cores);
        let encode = |from: usize| {
            let mut encoder = Encoder::new().unwrap();
            (from..self.nodes.min(from + share))
                .map(|name| {
                    let mut machine = Machine::new(name, self.pods, self.containers, self.step_ms);
                    let (mut values, mut used) = (0, Vec::new());
                    let steps = (1..=self.variants).map(|slot| {
                        let batch = machine.push(slot);
                        values = batch.values() as u64;
                        used.extend(self.check.then(|| memory(&batch)));
                        encoder.encode(&batch).unwrap()
                    });
                    Agent { steps: steps.collect(), values, memory: used }
                })
                .collect::<Vec<_>>()
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..cores).map(|n| scope.spawn(move || encode(n * share))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        })
    }
}

/// The step of an agent as it is posted: `payload` with what is known only now.
fn posted(payload: &[u8], sequence: u64, time_ms: u64) -> Vec<u8> {
    let sent_ms = now_ms();
    let fields = proto::Batch { sequence, time_ms, sampled_ms: time_ms, sent_ms, ..proto::Batch::default() };
    let fields = fields.encode_to_vec();
    // As batch::stamp does it: a frame of one block that is not compressed.
    let frame =
        [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, fields.len() as u8][..], &[(fields.len() as u8) << 3 | 1, 0, 0]];
    assert!(fields.len() < 32, "the block's head is one byte");
    let length = payload.len() + frame.concat().len() + fields.len();
    let head = format!(
        "POST /api/v1/batches HTTP/1.1\r\nhost: a\r\ncontent-type: application/vnd.nodegauge.batch\r\n\
         content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), payload, frame[0], frame[1], &fields].concat()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A connection that is kept.
struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    /// From one of the machine's own addresses, with a buffer of so many bytes: answers are
    /// read by it, and with a small one it is reading that is measured.
    async fn connect(to: SocketAddr, from: usize, buffer: usize) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        let host = u8::try_from(from + 1).unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, host], 0))).unwrap();
        let stream = socket.connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, read: Vec::with_capacity(buffer) }
    }

    /// The status and the bytes of the body, which is thrown away.
    async fn ask(&mut self, request: &[u8]) -> (u16, usize) {
        self.stream.write_all(request).await.unwrap();
        self.read.clear();
        let head = loop {
            assert!(self.stream.read_buf(&mut self.read).await.unwrap() > 0, "the aggregator hung up");
            if let Some(at) = self.read.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let text = String::from_utf8_lossy(&self.read[..head]).to_lowercase();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let mut body = self.read.len() - head;
        let ended = |read: &[u8], body: usize| match length {
            Some(length) => body >= length,
            None => read.ends_with(b"0\r\n\r\n"),
        };
        while !ended(&self.read, body) {
            // The end of what came is all that is looked at.
            self.read.drain(..self.read.len().saturating_sub(8));
            let more = self.stream.read_buf(&mut self.read).await.unwrap();
            assert!(more > 0, "the answer broke off");
            body += more;
        }
        (status, body)
    }

    async fn get(&mut self, path: &str) -> (u16, usize) {
        self.ask(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await
    }
}

/// The aggregator, and what the kernel says of it.
struct Aggregator {
    child: Child,
    address: SocketAddr,
}

impl Aggregator {
    fn start(binary: &str, step_ms: u64) -> Aggregator {
        let resolution = format!("{step_ms}ms");
        let arguments = ["aggregator", "--listen", "127.0.0.1:0", "--metric-resolution", &resolution];
        let mut command = Command::new(binary);
        let mut child =
            command.args(arguments).env_clear().stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("://").nth(1).unwrap().trim_end().trim_end_matches('/').parse().unwrap();
        Aggregator { child, address }
    }

    /// CPU it has used, seconds.
    fn cpu(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
        (ticks(11) + ticks(12)) / 100.0
    }

    /// A line of its status, MiB.
    fn memory(&self, line: &str) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let found = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
        found.unwrap().trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Aggregator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn own_cpu() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    Duration::from(time).as_secs_f64()
}

fn run(cluster: &Cluster, steps: u64, binary: &str) {
    let Cluster { nodes, pods, containers, step_ms, variants, .. } = *cluster;
    println!("\n{nodes} nodes x {pods} pods x {containers} containers, {} s", step_ms / 1_000);
    let began = Instant::now();
    let agents = Arc::new(cluster.encode());
    let per_push = agents.iter().map(|a| a.values).sum::<u64>() as f64 / nodes as f64;
    let bytes = agents.iter().flat_map(|a| &a.steps).map(Vec::len).sum::<usize>();
    let per_batch = bytes as f64 / (nodes as u64 * variants) as f64;
    println!(
        "a push    {per_push:.0} values, {:.1} kB ({:.2} B a value); encoded in {:.1} s",
        per_batch / 1e3,
        per_batch / per_push,
        began.elapsed().as_secs_f64()
    );
    let aggregator = Aggregator::start(binary, step_ms);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut clients = Vec::with_capacity(nodes);
        for node in 0..nodes {
            clients.push(Client::connect(aggregator.address, node / PER_ADDRESS, 512).await);
        }
        let idle = aggregator.memory("VmRSS");
        let first = now_ms() / step_ms - FILL + 1;
        let (cpu, own, began) = (aggregator.cpu(), own_cpu(), Instant::now());
        for step in first..first + FILL {
            clients = push(clients, &agents, step, step_ms, Duration::ZERO).await;
        }
        let values = per_push * nodes as f64 * FILL as f64;
        let (cpu, own, wall) = (aggregator.cpu() - cpu, own_cpu() - own, began.elapsed().as_secs_f64());
        let pushes = (nodes as u64 * FILL) as f64;
        println!(
            "fill      {:.2} M values/s on {:.2} cores, {:.2} M values/s a core, {:.0} us a push; the load itself {:.0} us",
            values / wall / 1e6,
            cpu / wall,
            values / cpu / 1e6,
            cpu / pushes * 1e6,
            own / pushes * 1e6,
        );
        until_after_next(step_ms).await;
        let before = aggregator.memory("VmRSS");
        println!(
            "filled    RSS {before:.0} MiB, peak {:.0}; with the connections alone {idle:.0}",
            aggregator.memory("VmHWM")
        );
        // Pushes and closing alone; then questions as well.
        let mut next = now_ms() / step_ms;
        let mut pushed: BTreeSet<u64> = (first..first + FILL).collect();
        for asked in [false, true] {
            let (cpu, own, began) = (aggregator.cpu(), own_cpu(), Instant::now());
            let questions = asked.then(|| tokio::spawn(ask_on(aggregator.address, nodes, pods)));
            for _ in 0..steps {
                clients = push(clients, &agents, next, step_ms, spread(step_ms)).await;
                pushed.insert(next);
                until_after_next(step_ms).await;
                next += 1;
            }
            let wall = began.elapsed().as_secs_f64();
            let (cpu, own) = ((aggregator.cpu() - cpu) / wall, (own_cpu() - own) / wall);
            let what = if asked { "asked     " } else { "steady    " };
            println!("{what}{cpu:.3} cores; the load itself {own:.3}");
            if let Some(questions) = questions {
                questions.abort();
                let _ = questions.await;
                heavy(aggregator.address).await;
            }
        }
        if let Some(command) = &cluster.during {
            let mut shell = Command::new("sh")
                .args(["-c", command])
                .env("AGGREGATOR", format!("http://{}", aggregator.address))
                .spawn()
                .unwrap();
            let status = loop {
                if let Some(status) = shell.try_wait().unwrap() {
                    break status;
                }
                clients = push(clients, &agents, next, step_ms, spread(step_ms)).await;
                pushed.insert(next);
                until_after_next(step_ms).await;
                next += 1;
            };
            assert!(status.success(), "{command}: {status}");
        }
        let rss = aggregator.memory("VmRSS");
        println!(
            "after     RSS {rss:.0} MiB, peak {:.0}; {:.2} kB a pod",
            aggregator.memory("VmHWM"),
            rss * 1048.576 / (nodes * pods) as f64
        );
        let text = refused(aggregator.address).await;
        assert!(text.is_empty(), "refused: {text}");
        if cluster.check {
            answers::check(aggregator.address, cluster, &agents, &pushed).await;
        }
    });
}

/// Agents push within the first quarter of a step, or its first ten seconds.
fn spread(step_ms: u64) -> Duration {
    Duration::from_millis((step_ms / 4).min(10_000))
}

/// A moment after the next step begins.
async fn until_after_next(step_ms: u64) {
    tokio::time::sleep(Duration::from_millis(step_ms - now_ms() % step_ms + 50)).await;
}

/// Every agent pushes one step, `over` a while or as fast as it is taken.
async fn push(
    clients: Vec<Client>,
    agents: &Arc<Vec<Agent>>,
    step: u64,
    step_ms: u64,
    over: Duration,
) -> Vec<Client> {
    let turns = Arc::new(Semaphore::new(if over.is_zero() { AT_ONCE } else { clients.len() }));
    let mut pushes = JoinSet::new();
    let nodes = clients.len();
    for (node, mut client) in clients.into_iter().enumerate() {
        let (turns, agents) = (Arc::clone(&turns), Arc::clone(agents));
        pushes.spawn(async move {
            tokio::time::sleep(over.mul_f64(node as f64 / nodes as f64)).await;
            let _turn = turns.acquire().await.unwrap();
            let variant = usize::try_from(step).unwrap() % agents[node].steps.len();
            let request = posted(&agents[node].steps[variant], step, step * step_ms);
            let (status, _) = client.ask(&request).await;
            assert_eq!(status, 200, "a push was refused");
            (node, client)
        });
    }
    let mut clients = pushes.join_all().await;
    clients.sort_by_key(|(node, _)| *node);
    clients.into_iter().map(|(_, client)| client).collect()
}

/// Asks for series, one after the other, and now and then for a list of pods.
async fn ask_on(address: SocketAddr, nodes: usize, pods: usize) {
    let mut answers = Answers::default();
    let mut client = Client::connect(address, 100, 256 << 10).await;
    for turn in 0_usize.. {
        let node = turn * 7_919 % nodes;
        let (namespace, pod) = Machine::pod(node, turn % pods);
        let of_pod = format!("/api/v1/model/namespaces/{namespace}/pods/{pod}");
        let path = match turn % 5 {
            0 => format!("{of_pod}/metrics/memory/usage"),
            1 => format!("{of_pod}/containers/container-0/metrics/cpu/usage_rate"),
            2 => format!("/api/v1/model/nodes/{}/metrics/cpu/usage_rate", Machine::node(node)),
            3 => format!("/api/v1/model/namespaces/{namespace}/metrics/memory/usage"),
            _ => "/api/v1/model/metrics/cpu/usage_rate".to_owned(),
        };
        answers.time("series", &mut client, &path).await;
        if turn % 50 == 0 {
            let names: Vec<_> = (0..500).map(|n| Machine::pod((node + n) % nodes, 3).1).collect();
            let path = format!(
                "/api/v1/model/namespaces/namespace-3/pod-list/{}/metrics/memory/usage",
                names.join(",")
            );
            answers.time("pod-list of 500", &mut client, &path).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What everybody is in.
async fn heavy(address: SocketAddr) {
    let mut client = Client::connect(address, 100, 256 << 10).await;
    let mut answers = Answers::default();
    for _ in 0..3 {
        answers
            .time("metrics.k8s.io pods of all nodes", &mut client, "/apis/metrics.k8s.io/v1beta1/pods")
            .await;
        answers.time("metric-export", &mut client, "/api/v1/metric-export").await;
    }
}

/// Times of answers by kind, told when it is dropped.
#[derive(Default)]
struct Answers(Vec<(&'static str, f64, usize)>);

impl Answers {
    async fn time(&mut self, kind: &'static str, client: &mut Client, path: &str) {
        let began = Instant::now();
        let (status, bytes) = client.get(path).await;
        assert_eq!(status, 200, "{path}");
        self.0.push((kind, began.elapsed().as_secs_f64() * 1e3, bytes));
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let mut kinds: Vec<&str> = self.0.iter().map(|(kind, ..)| *kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let of_kind = self.0.iter().filter(|(k, ..)| *k == kind);
            let mut times: Vec<f64> = of_kind.clone().map(|(_, ms, _)| *ms).collect();
            times.sort_by(f64::total_cmp);
            let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
            let bytes = of_kind.map(|(.., bytes)| *bytes).max().unwrap_or(0);
            println!(
                "{kind}: p50 {:.2} ms, p99 {:.2}, longest {:.2}, of {}; up to {:.1} kB",
                at(0.5),
                at(0.99),
                at(1.0),
                times.len(),
                bytes as f64 / 1e3
            );
        }
    }
}

/// The series that say something was refused or came too late.
async fn refused(address: SocketAddr) -> String {
    let text = answers::text(address, "/metrics").await;
    let series = ["nodegauge_ingest_refused_batches_total", "nodegauge_ingest_too_old_batches_total"];
    let told = text.lines().filter(|l| series.iter().any(|s| l.starts_with(s)) && !l.ends_with(" 0.0"));
    told.collect::<Vec<_>>().join("\n")
}
