//! Real agents that push to a real aggregator, over loopback: what is killed in the
//! middle loses nothing.

#![allow(clippy::disallowed_methods, reason = "these tests are about the program as it is started")]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use nodegauge::push::batch;
use nodegauge::push::delivery::Timing;
use nodegauge::push::delivery::worker::{Parts, Worker};
use nodegauge::push::log::{Log, Options, SinkName};
use nodegauge::push::sinks;
use nodegauge::push::target::Target;
use nodegauge::telemetry::Telemetry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cli::{Agent, nodegauge};
use crate::ingest::Sender;
use crate::tls::{Authority, Files};

/// The value of a series at a path.
fn value(of: &Agent, path: &str, series: &str) -> f64 {
    let text = of.get(path);
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {series} in {text}"))
}

fn eventually(what: &str, mut test: impl FnMut() -> bool) {
    let began = Instant::now();
    while !test() {
        assert!(began.elapsed() < Duration::from_secs(90), "not within {:?}: {what}", began.elapsed());
        thread::sleep(Duration::from_millis(50));
    }
}

fn aggregator(address: &str) -> Agent {
    let arguments = ["aggregator", "--listen", address, "--metric-resolution", "1s"];
    Agent::start(nodegauge(arguments, &[]))
}

#[test]
fn a_snapshot_answers_without_agents() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model");
    let snapshot = file.to_str().unwrap();
    let start = || {
        let words =
            ["aggregator", "--listen", "127.0.0.1:0", "--metric-resolution", "1s", "--snapshot", snapshot];
        Agent::start(nodegauge(words, &[]))
    };
    let first = start();
    let push = format!("aggregator:http://{}?resolution=1s", first.address);
    let arguments =
        ["agent", "--listen", "127.0.0.1:0", "--interval", "1s", "--node-name", "n1", "--push", &push];
    let agent = Agent::start(nodegauge(arguments, &[]));
    eventually("the model answers", || points(&first).len() >= 2);
    agent.signal(Signal::SIGKILL);
    drop(agent);
    let held = points(&first);
    first.signal(Signal::SIGTERM);
    assert_eq!(first.end().0, Some(0));
    let second = start();
    assert!(points(&second).is_superset(&held), "{held:?}");
    assert!(second.get("/healthz").starts_with("HTTP/1.1 200 OK\r\n"), "it only began");
    assert_eq!(value(&second, "/metrics", "nodegauge_snapshot_restored_nodes"), 1.0);
    // What is no snapshot does not keep it from starting.
    second.signal(Signal::SIGKILL);
    drop(second);
    std::fs::write(&file, "no snapshot").unwrap();
    let third = start();
    assert_eq!(value(&third, "/metrics", "nodegauge_snapshots_total{result=\"set_aside\"}"), 1.0);
    assert!(points(&third).is_empty() && dir.path().join("model.damaged").exists());
}

/// On the same port, which the system may give to somebody else for a moment.
fn aggregator_again(address: SocketAddr) -> Agent {
    let began = Instant::now();
    loop {
        if let Ok(started) = std::panic::catch_unwind(|| aggregator(&address.to_string())) {
            return started;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{address} stays taken");
        thread::sleep(Duration::from_millis(200));
    }
}

/// Times and values of a node's memory, as the model API tells them.
fn points(of: &Agent) -> BTreeSet<String> {
    let answer = of.get("/api/v1/model/nodes/n1/metrics/memory/usage");
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    body["metrics"].as_array().into_iter().flatten().map(ToString::to_string).collect()
}

const BATCHES: &str = "nodegauge_ingest_batches_total";

#[test]
fn a_killed_aggregator_is_filled_up_again() {
    let first = aggregator("127.0.0.1:0");
    let address = first.address;
    assert!(first.get("/readyz").starts_with("HTTP/1.1 200 OK\r\n"));
    let push = format!("aggregator:http://{address}?resolution=1s");
    let arguments =
        ["agent", "--listen", "127.0.0.1:0", "--interval", "1s", "--node-name", "n1", "--push", &push];
    let agent = Agent::start(nodegauge(arguments, &[]));
    eventually("six batches", || value(&first, "/metrics", BATCHES) >= 6.0);
    eventually("a step is closed", || value(&first, "/metrics", "nodegauge_steps_closed_total") >= 1.0);
    assert!(first.get("/healthz").starts_with("HTTP/1.1 200 OK\r\n"));
    let offset = value(&first, "/metrics", "nodegauge_node_clock_ahead_seconds{node=\"n1\"}");
    assert!(offset <= 0.0, "one clock for both: {offset}");
    eventually("the model answers", || points(&first).len() >= 3);
    let held = points(&first);
    let before = value(&first, "/metrics", BATCHES);
    first.signal(Signal::SIGKILL);
    drop(first);
    // Steps go on meanwhile and wait.
    let waiting = "nodegauge_push_queue_steps{sink=";
    eventually("steps wait", || {
        let text = agent.get("/metrics/self");
        let found =
            text.lines().find_map(|l| l.strip_prefix(waiting)?.split_once(' ')?.1.parse::<f64>().ok());
        found.is_some_and(|steps| steps >= 2.0)
    });
    let second = aggregator_again(address);
    eventually("all there was and what waited", || value(&second, "/metrics", BATCHES) >= before + 2.0);
    eventually("the window is what it was", || points(&second).is_superset(&held));
    assert_eq!(value(&second, "/metrics", "nodegauge_nodes{state=\"live\"}"), 1.0);
    for reason in ["malformed", "contested_name", "future"] {
        let series = format!("nodegauge_ingest_refused_batches_total{{reason=\"{reason}\"}}");
        assert_eq!(value(&second, "/metrics", &series), 0.0, "{reason}");
    }
    let resent = agent.get("/metrics/self");
    let refill = |line: &str| line.contains("\"refill\"") && !line.ends_with(" 0.0");
    assert!(resent.lines().any(refill), "{resent}");
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.end().0, Some(0));
    second.signal(Signal::SIGTERM);
    let (code, log) = second.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("started") && log.contains("stopping"), "{log}");
}

#[test]
fn over_tls_agents_show_a_token_or_a_certificate() {
    let authority = Authority::new("cluster");
    let files = Files::new(&authority.server(), &authority);
    let at = |name: &str| files.at(name).to_str().unwrap().to_owned();
    let (certificate, key) = authority.client("system:node:n2", Some("system:nodes"));
    for (name, text) in [("tokens", "a-token-of-the-agents"), ("node", &certificate), ("node-key", &key)] {
        std::fs::write(files.at(name), text).unwrap();
    }
    let (cert, key, ca, tokens) = (at("cert"), at("key"), at("ca"), at("tokens"));
    let listener = ["aggregator", "--listen", "127.0.0.1:0", "--metric-resolution", "1s"];
    let tls = ["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca];
    let auth = ["--auth", "token", "--auth-token-file", &tokens];
    let aggregator = Agent::start(nodegauge([&listener[..], &tls, &auth].concat(), &[]));
    let url = format!("aggregator:https://localhost:{}?resolution=1s&ca={ca}", aggregator.address.port());
    let agent = |node: &str, credentials: &str| {
        let push = format!("{url}{credentials}");
        let arguments =
            ["agent", "--listen", "127.0.0.1:0", "--interval", "1s", "--node-name", node, "--push", &push];
        Agent::start(nodegauge(arguments, &[]))
    };
    let certificate = format!("&cert={}&key={}", at("node"), at("node-key"));
    let with_token = agent("n1", &format!("&token-file={tokens}"));
    let with_certificate = agent("n2", &certificate);
    let foreign = agent("n3", &certificate);
    let nobody = agent("n4", "");
    let own = |agent: &Agent, series: &str| {
        let text = agent.get("/metrics/self");
        let lines = text.lines().filter(|line| line.starts_with(series));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
    };
    for agent in [&with_token, &with_certificate] {
        eventually("its steps are taken", || own(agent, "nodegauge_push_sent_steps_total") >= 2.0);
    }
    for agent in [&foreign, &nobody] {
        let sink = format!("aggregator-localhost-{}", aggregator.address.port());
        let series = format!("nodegauge_push_retries_total{{sink=\"{sink}\",reason=\"credentials\"}}");
        eventually("it is told that it may not", || own(agent, &series) >= 1.0);
        assert_eq!(own(agent, "nodegauge_push_sent_steps_total"), 0.0);
    }
    aggregator.signal(Signal::SIGTERM);
    assert_eq!(aggregator.end().0, Some(0));
}

/// Agents as far as an aggregator sees them: a queue and its worker each.
struct Fleet {
    logs: Vec<Arc<Log>>,
    stop: watch::Sender<bool>,
    workers: JoinHandle<()>,
}

impl Fleet {
    fn start(nodes: usize, address: SocketAddr) -> Fleet {
        let target = Target::parse(&format!("aggregator:http://{address}?resolution=1s")).unwrap();
        let name = SinkName::new(&target.name);
        let open = |_| {
            let options = Options { keep_acknowledged: Duration::from_secs(900), ..Options::default() };
            Arc::new(Log::open(None, options, std::slice::from_ref(&name)).unwrap().0)
        };
        let logs: Vec<_> = (0..nodes).map(open).collect();
        let (stop, stopped) = watch::channel(false);
        let queues = logs.clone();
        let workers = thread::spawn(move || {
            let timing = Timing {
                retry_min: Duration::from_millis(20),
                retry_max: Duration::from_millis(200),
                ..Timing::default()
            };
            let telemetry = Telemetry::new();
            let worker = |(node, log)| {
                let parts = Parts {
                    target: &target,
                    log,
                    directory: None,
                    node: &format!("n{node}"),
                    metrics: telemetry.push().sink(&target.name),
                    timing: timing.clone(),
                };
                Worker::new(sinks::sink(&target, None).unwrap(), SinkName::new(&target.name), parts)
            };
            let all = queues.into_iter().enumerate().map(worker).map(|worker| worker.run(stopped.clone()));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { all.collect::<JoinSet<()>>().join_all().await });
        });
        Fleet { logs, stop, workers }
    }

    /// Every node measures at `time_ms`.
    fn step(&self, time_ms: u64) {
        for (node, log) in self.logs.iter().enumerate() {
            let sender = Sender { resolution_ms: 1_000, ..Sender::new(&format!("n{node}")) };
            log.append(time_ms, &batch::encode(&sender.step(time_ms, 7)).unwrap()).unwrap();
        }
    }
}

/// A number of the full form, which the environment asks for.
fn asked(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// In full: `INGEST_NODES=200 INGEST_KILLS=30 INGEST_STEPS=60 cargo test --test it whatever_is_killed`.
#[test]
fn whatever_is_killed_in_the_middle_everything_is_held_once() {
    let (nodes, kills, steps) =
        (asked("INGEST_NODES", 20), asked("INGEST_KILLS", 4), asked("INGEST_STEPS", 40));
    let mut aggregator_now = aggregator("127.0.0.1:0");
    let address = aggregator_now.address;
    let fleet = Fleet::start(usize::try_from(nodes).unwrap(), address);
    // All of them end in the past, and within the window until the test has ended.
    let start = now_ms() / 1_000 * 1_000 - (steps + 20) * 1_000;
    for step in 0..steps {
        fleet.step(start + step * 1_000);
        if step % (steps / kills) == steps / kills / 2 {
            // In the middle of whatever it does, once it has begun with it.
            eventually("something came", || value(&aggregator_now, "/metrics", BATCHES) >= 1.0);
            aggregator_now.signal(Signal::SIGKILL);
            drop(aggregator_now);
            aggregator_now = aggregator_again(address);
        }
    }
    let all = (nodes * steps) as f64;
    eventually("all steps of all nodes", || value(&aggregator_now, "/metrics", BATCHES) >= all);
    fleet.stop.send(true).unwrap();
    fleet.workers.join().unwrap();
    assert_eq!(value(&aggregator_now, "/metrics", BATCHES), all, "each once");
    // Those that have nothing more to say are silent after two steps.
    let text = aggregator_now.get("/metrics");
    let states =
        text.lines().filter_map(|line| line.strip_prefix("nodegauge_nodes{state=")?.rsplit_once(' '));
    assert_eq!(states.map(|(_, count)| count.parse::<f64>().unwrap()).sum::<f64>(), nodes as f64);
    let expected: Vec<u64> = (0..steps).map(|step| start + step * 1_000).collect();
    for node in [0, nodes / 2, nodes - 1] {
        let times = || held(&aggregator_now, &format!("n{node}"));
        eventually("every step is answered from", || times().len() >= expected.len());
        assert_eq!(times(), expected, "n{node}");
    }
    nothing_refused(&aggregator_now, &[]);
}

/// Times of what is held of a node, milliseconds since the epoch, from old to new.
fn held(of: &Agent, node: &str) -> Vec<u64> {
    let answer = of.get(&format!("/api/v1/model/nodes/{node}/metrics/memory/usage"));
    let body: serde_json::Value =
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or_default();
    let time = |point: &serde_json::Value| {
        let time = humantime::parse_rfc3339(point["timestamp"].as_str().unwrap()).unwrap();
        u64::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
    };
    body["metrics"].as_array().into_iter().flatten().map(time).collect()
}

fn nothing_refused(of: &Agent, but: &[&str]) {
    let text = of.get("/metrics");
    let refused = text.lines().filter(|l| l.starts_with("nodegauge_ingest_refused_batches_total"));
    assert!(refused.clone().count() > 5, "{text}");
    let wrong =
        |l: &&str| !l.ends_with(" 0.0") && !but.iter().any(|reason| l.contains(&format!("\"{reason}\"")));
    assert_eq!(refused.filter(wrong).collect::<Vec<_>>(), [""; 0]);
}

/// Posts a body of which only so much comes.
fn post(to: SocketAddr, length: usize, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = format!(
        "POST /api/v1/batches HTTP/1.1\r\nhost: t\r\ncontent-type: {}\r\ncontent-length: {length}\r\n\r\n",
        batch::MEDIA_TYPE
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    stream
}

fn status(mut of: TcpStream) -> u16 {
    let mut answer = [0; 12];
    of.read_exact(&mut answer).unwrap();
    std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
}

#[test]
fn hung_and_hostile_agents_cost_the_others_nothing() {
    const NODES: usize = 5;
    const STEPS: u64 = 6;
    let aggregator = aggregator("127.0.0.1:0");
    let address = aggregator.address;
    let send = |bytes: &[u8]| status(post(address, bytes.len(), bytes));
    let start = now_ms() / 1_000 * 1_000 - STEPS * 1_000;
    let sender = |node: &str, host| Sender { resolution_ms: 1_000, host, ..Sender::new(node) };
    // Steps wait for one that is live, and its next push stops half-way.
    let hung = sender("hung", 9);
    assert_eq!(send(&hung.bytes(start, now_ms(), 1)), 200);
    let half = hung.bytes(start + 1_000, now_ms(), 2);
    let half = post(address, half.len(), &half[..half.len() / 2]);
    let silent = TcpStream::connect(address).unwrap();

    let fleet = Fleet::start(NODES, address);
    let recorded = sender("n0", 9).bytes(start, now_ms(), 1);
    for step in 0..STEPS {
        fleet.step(start + step * 1_000);
        let taken = 1.0 + (NODES as u64 * (step + 1)) as f64;
        eventually("the step of all others", || value(&aggregator, "/metrics", BATCHES) >= taken);
        // Another machine that says it is one of them, and one that sends again what it heard.
        assert_eq!(
            send(&Sender { boot: 7, ..sender("n1", 8) }.bytes(start + step * 1_000, now_ms(), 99)),
            503
        );
        assert_eq!(send(&recorded), 200);
        assert_eq!(send(b"no batch at all"), 400);
        let good = sender("hostile", 9).bytes(start, now_ms(), 1);
        let mut bomb = good[..16].to_vec();
        bomb.extend(zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap());
        assert_eq!(send(&bomb), 413);
        assert_eq!(status(post(address, usize::MAX >> 2, b"x")), 413);
    }
    let expected: Vec<u64> = (0..STEPS).map(|step| start + step * 1_000).collect();
    for node in 0..NODES {
        let times = || held(&aggregator, &format!("n{node}"));
        eventually("every step is answered from", || times().len() >= expected.len());
        assert_eq!(times(), expected, "n{node}");
    }
    nothing_refused(&aggregator, &["malformed", "too_large", "contested_name"]);
    assert_eq!(held(&aggregator, "hung"), [start]);
    drop((half, silent));
    fleet.stop.send(true).unwrap();
    fleet.workers.join().unwrap();
    aggregator.signal(Signal::SIGTERM);
    assert_eq!(aggregator.end().0, Some(0));
}
