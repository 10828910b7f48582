//! Aggregators that are killed while a cluster pushes, in front of a real InfluxDB: what is
//! there in the end must be every step of every node, each once.
//!
//! `tests/e2e/faults.sh` starts the database and this. Simulated agents behave as agents do: each
//! step is kept for fifteen minutes, sent newest first until it is acknowledged, and all of
//! them once more to an aggregator that has lost them. Then, one after the other:
//!
//! 1. one aggregator is killed (SIGKILL) at random moments, `--kills` times;
//! 2. the database hangs, which accepts and never answers, while steps have to close;
//! 3. of two aggregators the one that leads is killed with a backlog, `--handovers` times.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodegauge::push::batch::{self, Encoder, EntityKind, MetricId, Value, proto};
use prost::Message as _;
use tokio::task::JoinSet;

mod machines;
use machines::{Machine, START};

/// Time in which what waits has to come.
const PATIENCE: Duration = Duration::from_secs(300);
const PODS: usize = 1;
const CONTAINERS: usize = 1;
/// Series of `memory/usage` of a node: its own, and those of its pods and containers.
const OF_NODE: usize = 1 + PODS + PODS * CONTAINERS;

struct Plan {
    nodes: usize,
    kills: usize,
    handovers: usize,
    step_ms: u64,
    influx: String,
    influxd: Pid,
    binary: String,
    directory: PathBuf,
}

fn now_ms() -> u64 {
    UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    while let Some(word) = words.next() {
        given.insert(word.trim_start_matches('-').to_owned(), words.next().expect("a value for each flag"));
    }
    let take = |name: &str| given.get(name).unwrap_or_else(|| panic!("--{name}")).clone();
    let number = |name: &str| take(name).parse::<usize>().unwrap();
    let plan = Plan {
        nodes: number("nodes"),
        kills: number("kills"),
        handovers: number("handovers"),
        step_ms: number("step") as u64 * 1_000,
        influx: take("influx"),
        influxd: Pid::from_raw(take("influxd").parse().unwrap()),
        binary: take("binary"),
        directory: PathBuf::from(take("directory")),
    };
    // The client wants one, although nothing is encrypted here.
    drop(tokio_rustls::rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        killed(&plan).await;
        // Without any, nothing may have been pushed when all is over.
        if plan.handovers > 0 {
            handed_over(&plan).await;
        }
    });
}

/// An aggregator that is started again at the same place.
struct Aggregator {
    child: Child,
    url: String,
    words: Vec<String>,
    binary: String,
}

impl Aggregator {
    fn start(plan: &Plan, name: &str, database: &str, more: &[String]) -> Aggregator {
        let step = format!("{}ms", plan.step_ms);
        let queue = plan.directory.join(name);
        let sink = format!("--sink=influxdb:{}?db={database}", plan.influx);
        let queue = queue.to_str().unwrap();
        let mut words: Vec<String> =
            ["aggregator", "--metric-resolution", &step, "--queue-dir", queue, &sink]
                .map(str::to_owned)
                .into();
        words.extend_from_slice(more);
        let binary = plan.binary.clone();
        let (child, url) = launch(&binary, &words, "127.0.0.1:0").expect("the aggregator starts");
        Aggregator { child, url, words, binary }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        let listen = self.url.trim_start_matches("http://").to_owned();
        let began = Instant::now();
        // The port may be taken for a moment.
        self.child = loop {
            match launch(&self.binary, &self.words, &listen) {
                Some((child, _)) => break child,
                None => assert!(began.elapsed() < PATIENCE, "the aggregator does not start again"),
            }
        };
    }

    /// The sum of a family of its own.
    async fn metric(&self, name: &str) -> f64 {
        let text = reqwest::get(format!("{}/metrics", self.url)).await.unwrap().text().await.unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines
            .filter(|rest| rest.starts_with([' ', '{']))
            .map(|rest| rest.rsplit(' ').next().unwrap())
            .map(|value| value.parse::<f64>().unwrap())
            .sum()
    }
}

impl Aggregator {
    async fn leads(&self) -> bool {
        self.metric("nodegauge_leader").await >= 1.0
    }
}

impl Drop for Aggregator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(binary: &str, words: &[String], listen: &str) -> Option<(Child, String)> {
    let mut command = Command::new(binary);
    command.args(words).args(["--listen", listen]).env_clear();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    if line.is_empty() {
        child.wait().unwrap();
        return None;
    }
    let address = line.split("://").nth(1).unwrap().trim_end().trim_end_matches('/');
    Some((child, format!("http://{address}")))
}

/// What agents made: for each node the values of its own `memory/usage` by step.
type Made = Arc<Mutex<BTreeMap<String, BTreeMap<u64, u64>>>>;

/// All agents, until they are told that no further step is made; they end when all is acknowledged.
struct Agents {
    running: JoinSet<()>,
    stop: Arc<AtomicBool>,
    made: Made,
}

impl Agents {
    fn start(plan: &Plan, aggregators: &[String]) -> Agents {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Made::default());
        let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        let mut running = JoinSet::new();
        for node in 0..plan.nodes {
            let steps = Arc::new(Mutex::new(Vec::new()));
            let ended = Arc::new(AtomicBool::new(false));
            let machine = Machine::new(node, PODS, CONTAINERS, plan.step_ms);
            running.spawn(measure(
                machine,
                Arc::clone(&steps),
                Arc::clone(&made),
                Arc::clone(&stop),
                Arc::clone(&ended),
            ));
            for url in aggregators {
                let (steps, ended) = (Arc::clone(&steps), Arc::clone(&ended));
                running.spawn(send(format!("{url}/api/v1/batches"), client.clone(), steps, ended));
            }
        }
        Agents { running, stop, made }
    }

    /// No further step; waits until all of them are acknowledged.
    async fn finish(mut self) -> BTreeMap<String, BTreeMap<u64, u64>> {
        self.stop.store(true, Ordering::Release);
        let all = async { while self.running.join_next().await.transpose().unwrap().is_some() {} };
        tokio::time::timeout(PATIENCE, all).await.expect("every step is acknowledged");
        std::mem::take(&mut *self.made.lock().unwrap())
    }
}

type Steps = Arc<Mutex<Vec<Vec<u8>>>>;

/// A step whenever the grid has one.
async fn measure(
    mut machine: Machine,
    steps: Steps,
    made: Made,
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
) {
    let step_ms = machine.resolution_ms;
    let mut encoder = Encoder::new().unwrap();
    let mut slot = (now_ms() - START) / step_ms + 1;
    while !stop.load(Ordering::Acquire) {
        let due = START + slot * step_ms;
        tokio::time::sleep(Duration::from_millis(due.saturating_sub(now_ms()))).await;
        let batch = machine.push(slot);
        let own = batch.entities().find(|entity| entity.kind() == EntityKind::Node).unwrap();
        let memory = own.metrics().find(|point| point.metric.id == MetricId::MemoryUsage).unwrap();
        let Value::Integer(memory) = memory.value else { panic!("memory is whole") };
        made.lock().unwrap().entry(batch.node().to_owned()).or_default().insert(batch.time_ms(), memory);
        steps.lock().unwrap().push(encoder.encode(&batch).unwrap());
        slot += 1;
    }
    ended.store(true, Ordering::Release);
}

/// Everything to one aggregator, as agents do.
async fn send(url: String, client: reqwest::Client, steps: Steps, ended: Arc<AtomicBool>) {
    let mut acknowledged: BTreeSet<usize> = BTreeSet::new();
    let mut boot_id = Vec::new();
    loop {
        let last = ended.load(Ordering::Acquire);
        let next = {
            let steps = steps.lock().unwrap();
            // Newest first.
            let at = (0..steps.len()).rev().find(|at| !acknowledged.contains(at));
            at.map(|at| (at, steps[at].clone()))
        };
        let Some((at, payload)) = next else {
            if last {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let body = batch::stamp(&payload, at as u64 + 1, now_ms());
        let request = client.post(&url).header("content-type", batch::MEDIA_TYPE).body(body);
        let answer = match request.send().await {
            Ok(answer) if answer.status() == 200 => answer.bytes().await.ok(),
            _ => None,
        };
        match answer.and_then(|bytes| proto::Acknowledgement::decode(bytes).ok()) {
            Some(held) => {
                if std::mem::replace(&mut boot_id, held.boot_id.clone()) != held.boot_id {
                    acknowledged.clear();
                }
                acknowledged.insert(at);
            }
            None => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}

/// Some moment of the next seconds, other ones each time.
async fn some_moment(round: usize) {
    tokio::time::sleep(Duration::from_millis(500 + round as u64 * 7_919 % 3_000)).await;
}

async fn steps_closed(aggregator: &Aggregator, more: f64, while_: &str) {
    let before = aggregator.metric("nodegauge_steps_closed_total").await;
    let began = Instant::now();
    while aggregator.metric("nodegauge_steps_closed_total").await < before + more {
        assert!(began.elapsed() < PATIENCE, "no step closes while {while_}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn killed(plan: &Plan) {
    let began = Instant::now();
    let mut aggregator = Aggregator::start(plan, "alone", "alone", &[]);
    let agents = Agents::start(plan, std::slice::from_ref(&aggregator.url));
    steps_closed(&aggregator, 2.0, "nothing is wrong").await;
    for round in 0..plan.kills {
        some_moment(round).await;
        aggregator.kill();
        aggregator.start_again();
    }
    let took = began.elapsed().as_secs();
    steps_closed(&aggregator, 2.0, "nothing is wrong any more").await;
    let lag = "nodegauge_step_close_lag_seconds";
    let usual = aggregator.metric(lag).await;
    kill(plan.influxd, Signal::SIGSTOP).unwrap();
    steps_closed(&aggregator, 4.0, "the database hangs").await;
    let (hung, waiting) =
        (aggregator.metric(lag).await, aggregator.metric("nodegauge_push_queue_steps").await);
    kill(plan.influxd, Signal::SIGCONT).unwrap();
    assert!(waiting >= 3.0, "{waiting} steps wait for a database that hangs");
    println!(
        "stuck: steps closed {hung:.2} s after their end while the database hung, {usual:.2} s before; {waiting} waited"
    );
    let made = agents.finish().await;
    let found = complete(plan, "alone", &made).await;
    println!("kills: {} of the aggregator in {took} s with {} nodes; {found}", plan.kills, plan.nodes);
}

async fn handed_over(plan: &Plan) {
    let lease = format!("file:{}", plan.directory.join("lease").display());
    let words = ["--ha", &lease, "--ha-lease", "2s"].map(str::to_owned);
    let mut pair = ["one", "other"].map(|name| Aggregator::start(plan, name, "pair", &words));
    let agents = Agents::start(plan, &pair.each_ref().map(|aggregator| aggregator.url.clone()));
    for _ in 0..plan.handovers {
        let leader = leading(&pair).await;
        kill(plan.influxd, Signal::SIGSTOP).unwrap();
        steps_closed(&pair[leader], 2.0, "the database hangs").await;
        // The first that are closed may be from before any machine pushed.
        let began = Instant::now();
        while pair[leader].metric("nodegauge_push_queue_steps").await < 1.0 {
            assert!(began.elapsed() < PATIENCE, "no backlog");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        kill(plan.influxd, Signal::SIGCONT).unwrap();
        pair[leader].kill();
        until_leading(&pair[1 - leader]).await;
        pair[leader].start_again();
    }
    let made = agents.finish().await;
    let found = complete(plan, "pair", &made).await;
    println!("leader: killed {} times with a backlog, and the other took over; {found}", plan.handovers);
}

/// The one that leads, once one does.
async fn leading(pair: &[Aggregator; 2]) -> usize {
    let began = Instant::now();
    loop {
        for (at, aggregator) in pair.iter().enumerate() {
            if aggregator.leads().await {
                return at;
            }
        }
        assert!(began.elapsed() < PATIENCE, "nobody leads");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn until_leading(aggregator: &Aggregator) {
    let began = Instant::now();
    while !aggregator.leads().await {
        assert!(began.elapsed() < PATIENCE, "the other does not take over");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Tags, and values by time.
type Series = (BTreeMap<String, String>, Vec<(u64, u64)>);

/// Series of `memory/usage` in the database.
async fn stored(influx: &str, database: &str) -> Vec<Series> {
    let query =
        [("db", database), ("epoch", "ms"), ("q", "SELECT \"value\" FROM \"memory/usage\" GROUP BY *")];
    let url = reqwest::Url::parse_with_params(&format!("{influx}/query"), query).unwrap();
    let text = match reqwest::Client::new().get(url).basic_auth("root", Some("root")).send().await {
        Ok(answer) => answer.text().await.unwrap_or_default(),
        Err(_) => return Vec::new(),
    };
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let series = answer["results"][0]["series"].as_array().cloned().unwrap_or_default();
    let one = |series: &serde_json::Value| {
        let tags = series["tags"].as_object().unwrap().iter();
        let tags = tags.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
        let points = series["values"].as_array().unwrap().iter();
        let points = points.map(|point| (point[0].as_u64().unwrap(), point[1].as_u64().unwrap()));
        (tags.collect(), points.collect())
    };
    series.iter().map(one).collect()
}

/// Waits until every step of every node is there, and says what is.
async fn complete(plan: &Plan, database: &str, made: &BTreeMap<String, BTreeMap<u64, u64>>) -> String {
    let began = Instant::now();
    loop {
        let series = stored(&plan.influx, database).await;
        match compare(plan, &series, made) {
            Ok(points) => {
                let steps = made.values().map(BTreeMap::len).max().unwrap_or(0);
                return format!(
                    "{steps} steps, {points} points of {} series, none missing, none twice",
                    series.len()
                );
            }
            Err(missing) => assert!(began.elapsed() < PATIENCE, "{database}: {missing}"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn compare(
    plan: &Plan,
    series: &[Series],
    made: &BTreeMap<String, BTreeMap<u64, u64>>,
) -> Result<usize, String> {
    let of = |kind: &'static str| series.iter().filter(move |(tags, _)| tags["type"] == kind);
    let counts = ["node", "pod", "pod_container", "ns", "cluster"].map(|kind| of(kind).count());
    // The pods are all in one namespace.
    let expected = [plan.nodes, plan.nodes * PODS, plan.nodes * PODS * CONTAINERS, 1, 1];
    if counts != expected || series.len() != plan.nodes * OF_NODE + 2 {
        return Err(format!("series of kinds {counts:?}, expected {expected:?}"));
    }
    let mut points = 0;
    for (tags, found) in series {
        let kind = &tags["type"];
        let times: Vec<u64> = found.iter().map(|(time, _)| *time).collect();
        points += times.len();
        let steps: BTreeSet<u64> = match tags.get("nodename").and_then(|node| made.get(node)) {
            Some(of_node) => of_node.keys().copied().collect(),
            None => made.values().flat_map(|of_node| of_node.keys().copied()).collect(),
        };
        if !times.iter().eq(&steps) {
            let times: BTreeSet<u64> = times.into_iter().collect();
            let extra: Vec<_> = found.iter().filter(|(time, _)| !steps.contains(time)).collect();
            let missing: Vec<_> = steps.difference(&times).collect();
            return Err(format!(
                "{tags:?}: {} steps, missing {missing:?}, never made {extra:?}",
                steps.len()
            ));
        }
        if kind == "node"
            && !made[&tags["nodename"]].iter().eq(found.iter().map(|(time, value)| (time, value)))
        {
            return Err(format!("{tags:?}: other values than were pushed"));
        }
    }
    let sum = |time: &u64| {
        of("pod")
            .flat_map(|(_, found)| found.iter().filter(|(at, _)| at == time))
            .map(|(_, v)| v)
            .sum::<u64>()
    };
    for (tags, found) in of("cluster") {
        if let Some((time, value)) = found.iter().find(|(time, value)| sum(time) != *value) {
            return Err(format!("{tags:?} at {time}: {value}, of the pods {}", sum(time)));
        }
    }
    Ok(points)
}
