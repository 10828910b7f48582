//! Nodes found through an API server, their kubelets asked: those that answer, hang,
//! lie, say too much or die; and command lines of Heapster on the real binary.

#![allow(clippy::disallowed_methods, reason = "what is noticed sooner or later is waited for")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use nodegauge::aggregate::ingest::Ingest;
use nodegauge::aggregate::model::{Model, Options, Subject};
use nodegauge::aggregate::source::Sources;
use nodegauge::aggregate::watch::Timing;
use nodegauge::aggregator::discovery::{Discovery, Plan};
use nodegauge::push::batch::{MetricId, Value, metric};
use nodegauge::telemetry::Telemetry;
use serde_json::{Value as Json, json};

use crate::cli::{Agent, nodegauge};
use crate::identity_kubelet::Certificates;
use crate::ingest::Sender;
use crate::served::own;
use crate::standin;
use crate::standin::cluster::Cluster;

/// How a kubelet answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Hangs,
    Garbage,
    Huge,
    Dies,
}

/// A kubelet on a loopback address of its own; all have the same port.
struct Kubelet {
    asked: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kubelet {
    fn start(listener: TcpListener, node: &str, mood: Mood) -> Kubelet {
        listener.set_nonblocking(true).unwrap();
        let (asked, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped, node) = (Arc::clone(&asked), Arc::clone(&stop), node.to_owned());
        let thread = thread::spawn(move || {
            let mut held = Vec::new();
            while !stopped.load(SeqCst) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                counted.fetch_add(1, SeqCst);
                let node = node.clone();
                match mood {
                    Mood::Hangs => held.push(stream),
                    mood => drop(thread::spawn(move || answer(stream, &node, mood))),
                }
            }
        });
        Kubelet { asked, stop, thread: Some(thread) }
    }

    fn asked(&self) -> u64 {
        self.asked.load(SeqCst)
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn answer(mut stream: TcpStream, node: &str, mood: Mood) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    assert!(head.starts_with(b"GET /stats/summary HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
    let body = match mood {
        Mood::Garbage => r#"{"kind":"Status","message":"not what you think"}"#.to_owned(),
        _ => summary(node).to_string(),
    };
    let sent = match mood {
        Mood::Dies => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n{\"node\":"),
        Mood::Huge => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"node\":{\"x\":\"");
            // Until whoever reads has had enough.
            while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
            Ok(())
        }
        _ => {
            let length = body.len();
            write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
        }
    };
    // It may have been given up meanwhile.
    drop(sent);
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A quarter of a core, an eighth in the pod's one container, 1,000 bytes a second.
fn summary(node: &str) -> Json {
    let now = seconds();
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(now)).to_string();
    let start = "2026-01-01T00:00:00Z";
    let cpu = |part: u64| json!({"time": time, "usageCoreNanoSeconds": now * 1_000_000_000 / part});
    let memory = |mib: u64| json!({"time": time, "usageBytes": mib << 20, "workingSetBytes": mib << 19});
    json!({
        "node": {"nodeName": "what it calls itself", "startTime": start, "cpu": cpu(4), "memory": memory(1_000),
            "systemContainers": [{"name": "runtime", "startTime": start, "cpu": cpu(10), "memory": memory(50)}]},
        "pods": [{"podRef": {"name": format!("web-{node}"), "namespace": "shop", "uid": uid(node)}, "startTime": start,
            "containers": [{"name": "main", "startTime": start, "cpu": cpu(8), "memory": memory(100)}],
            "cpu": cpu(8), "memory": memory(101),
            "network": {"time": time, "name": "eth0", "rxBytes": now * 1_000, "txBytes": 7}}]
    })
}

fn uid(node: &str) -> String {
    let tail: String = node.bytes().map(|b| format!("{b:02x}")).collect();
    format!("0d1c2b3a-4f5e-4a7b-8c9d-{tail:0<12.12}")
}

fn node(name: &str, address: Option<SocketAddr>, ready: bool) -> Json {
    let addresses: Vec<Json> =
        address.iter().map(|a| json!({"type": "InternalIP", "address": a.ip().to_string()})).collect();
    json!({"metadata": {"name": name, "labels": {"zone": "z1"}}, "status": {
        "allocatable": {"cpu": "1"}, "capacity": {"cpu": "2"}, "addresses": addresses,
        "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
}

fn pod(node: &str) -> Json {
    json!({"metadata": {"name": format!("web-{node}"), "namespace": "shop", "uid": uid(node), "labels": {"app": "web"}},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "web:1",
            "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "128Mi"}}}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "main", "restartCount": 2, "image": "web:1"}]}})
}

/// Listeners with one port on as many addresses.
fn listeners(count: u8) -> Vec<TcpListener> {
    let at = |last: u8, port: u16| TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port));
    for _ in 0..100 {
        let first = at(2, 0).unwrap();
        let port = first.local_addr().unwrap().port();
        let others: Result<Vec<_>, _> = (3..2 + count).map(|last| at(last, port)).collect();
        if let Ok(others) = others {
            return std::iter::once(first).chain(others).collect();
        }
    }
    panic!("no port is free on all addresses");
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

struct Running {
    ingest: Arc<Ingest>,
    telemetry: Arc<Telemetry>,
    began: Instant,
    pushed: Mutex<u64>,
    _discovery: Discovery,
}

impl Running {
    fn start(source: &str) -> Running {
        let options = Options { resolution: Duration::from_secs(1), ..Options::default() };
        let ingest = Arc::new(Ingest::new(Arc::new(Model::new(options)), 100));
        let telemetry = Telemetry::of_aggregator(Arc::clone(&ingest));
        let pull = Sources::parse([source], &|_| None).unwrap().pull;
        let timing = Timing { retry_min: Duration::from_millis(10), ..Timing::default() };
        let plan = Plan { pull, max_nodes: 100, timing };
        push(&ingest);
        let discovery = Discovery::start(plan, Arc::clone(&ingest), Arc::clone(telemetry.pull())).unwrap();
        let (began, pushed) = (Instant::now(), Mutex::new(0));
        Running { ingest, telemetry, began, pushed, _discovery: discovery }
    }

    fn eventually(&self, what: &str, mut test: impl FnMut() -> bool) {
        let began = Instant::now();
        while !test() {
            let text = || self.telemetry.encode(true);
            assert!(began.elapsed() < Duration::from_secs(90), "not in time: {what}\n{}", text());
            self.ingest.tick(now_ms(), self.began.elapsed());
            // What pushes goes on pushing.
            let mut pushed = self.pushed.lock().unwrap();
            if *pushed != seconds() {
                *pushed = seconds();
                push(&self.ingest);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn value(&self, series: &str) -> f64 {
        own(&self.telemetry, series).unwrap_or(0.0)
    }

    fn series(&self, of: &Subject, id: MetricId) -> Vec<Value> {
        let series = self.ingest.model().series(of, metric(id as i32).unwrap(), "");
        series.into_iter().map(|(_, value)| value).collect()
    }
}

fn push(ingest: &Ingest) {
    let now = now_ms();
    let step = now / 1_000 * 1_000;
    let sender = Sender { resolution_ms: 1_000, ..Sender::new("pushed") };
    ingest.take(&sender.bytes(step, now, step / 1_000), None, now).unwrap();
}

fn name(text: &str) -> Arc<str> {
    Arc::from(text)
}

#[test]
fn sick_kubelets_cost_the_others_nothing_and_pushes_win() {
    let moods = [
        ("fast", Mood::Well),
        ("hung", Mood::Hangs),
        ("lies", Mood::Garbage),
        ("huge", Mood::Huge),
        ("dies", Mood::Dies),
        ("late", Mood::Well),
        ("pushed", Mood::Well),
    ];
    let cluster = Cluster::start();
    cluster.put("namespaces", json!({"metadata": {"name": "shop", "uid": "ns-1"}}));
    let mut kubelets = BTreeMap::new();
    let listeners = listeners(7);
    let port = listeners[0].local_addr().unwrap().port();
    for ((of, mood), listener) in moods.into_iter().zip(listeners) {
        let address = listener.local_addr().unwrap();
        cluster.put("nodes", node(of, Some(address), of != "late"));
        cluster.put("pods", pod(of));
        kubelets.insert(of, (Kubelet::start(listener, of, mood), address));
    }
    cluster.put("nodes", node("nowhere", None, true));
    let running = Running::start(&format!(
        "kubernetes.summary_api:http://{}?inClusterConfig=false&kubeletPort={port}",
        cluster.address
    ));
    let fast = Subject::Node(name("fast"));
    let main = Subject::Container(name("shop"), name("web-fast"), name("main"));
    let rate = |of: &Subject| running.series(of, MetricId::CpuUsageRate);
    running.eventually("rates of the one that is well", || rate(&fast).len() >= 3 && rate(&main).len() >= 3);
    assert!(rate(&fast).iter().all(|rate| *rate == Value::Integer(250)), "{:?}", rate(&fast));
    assert!(rate(&main).iter().all(|rate| *rate == Value::Integer(125)), "{:?}", rate(&main));
    let runtime = Subject::System(name("fast"), name("docker-daemon"));
    assert!(rate(&runtime).iter().all(|rate| *rate == Value::Integer(100)));
    let pod = Subject::Pod(name("shop"), name("web-fast"));
    let traffic = running.series(&pod, MetricId::NetworkRxRate);
    assert!(!traffic.is_empty() && traffic.iter().all(|rate| *rate == Value::Double(1_000.0)), "{traffic:?}");
    assert_eq!(running.series(&pod, MetricId::RestartCount).last(), Some(&Value::Integer(2)));
    assert_eq!(running.series(&fast, MetricId::CpuRequest).last(), Some(&Value::Integer(100)));
    assert_eq!(running.series(&fast, MetricId::CpuNodeAllocatable).last(), Some(&Value::Double(1_000.0)));
    assert_eq!(running.series(&fast, MetricId::CpuNodeReservation).last(), Some(&Value::Double(0.1)));
    assert_eq!(running.series(&fast, MetricId::CpuNodeUtilization).last(), Some(&Value::Double(0.25)));
    for reason in ["deadline", "malformed", "too_large", "unreachable"] {
        let series = format!("nodegauge_pull_failures_total{{reason=\"{reason}\"}}");
        running.eventually(reason, || running.value(&series) >= 1.0);
    }
    // It is known by the API server, and its agent pushes.
    let pushed = Subject::Node(name("pushed"));
    running.eventually("pushes are held", || !running.series(&pushed, MetricId::MemoryUsage).is_empty());
    let labels = running.ingest.model().describe(&pushed).unwrap().labels;
    assert_eq!(labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(), ["zone=z1"]);
    assert_eq!(running.series(&pushed, MetricId::CpuNodeAllocatable).last(), Some(&Value::Double(1_000.0)));
    assert_eq!((kubelets["pushed"].0.asked(), kubelets["late"].0.asked()), (0, 0));
    for (state, count) in [("pushed", 1.0), ("not_ready", 1.0), ("no_address", 1.0), ("asked", 5.0)] {
        assert_eq!(running.value(&format!("nodegauge_pull_nodes{{state=\"{state}\"}}")), count, "{state}");
    }
    cluster.put("nodes", node("late", Some(kubelets["late"].1), true));
    let late = Subject::Node(name("late"));
    running.eventually("it is asked once it is ready", || !rate(&late).is_empty());
    cluster.remove("nodes", "late");
    let held = |kind: &str| running.value(&format!("nodegauge_watch_objects{{kind=\"{kind}\"}}"));
    running.eventually("it is gone", || held("nodes") == 7.0);
    let asked = kubelets["late"].0.asked();
    let taken = rate(&fast).len();
    running.eventually("others are asked on", || rate(&fast).len() >= taken + 3);
    assert!(kubelets["late"].0.asked() <= asked + 1, "one may have been on its way");
    assert_eq!((held("pods"), held("namespaces")), (7.0, 1.0));
}

#[test]
fn over_https_kubelets_are_believed_by_the_clusters_certificates_before_they_see_the_token() {
    let certificates = Certificates::new(&["127.0.0.1"], false);
    let kubelet = standin::kubelet::Kubelet::new(Vec::new());
    kubelet.let_in("the-token");
    kubelet.set_summary(summary("n1"));
    let (ready, port) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (serving, pair) = (kubelet.clone(), (certificates.server.clone(), certificates.key()));
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_running, port) = serving.serve_tls(pair.0, pair.1).await;
            ready.send(port).unwrap();
            let _ = stopped.await;
        });
    });
    let port = port.recv().unwrap();
    let cluster = Cluster::start();
    cluster.put("nodes", node("n1", Some(([127, 0, 0, 1], port).into()), true));
    let directory = tempfile::tempdir().unwrap();
    let (ca, config) = (directory.path().join("ca"), directory.path().join("config"));
    let running = |authority: &str, options: &str| {
        std::fs::write(&ca, authority).unwrap();
        let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "k", "cluster":
                {"server": format!("http://{}", cluster.address), "certificate-authority": ca.to_str().unwrap()}}],
            "users": [{"name": "u", "user": {"token": "the-token"}}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}]});
        std::fs::write(&config, text.to_string()).unwrap();
        Running::start(&format!(
            "kubernetes:?inClusterConfig=false&auth={}&kubeletPort={port}&{options}",
            config.to_str().unwrap()
        ))
    };
    let failed =
        |running: &Running| running.value("nodegauge_pull_failures_total{reason=\"unreachable\"}") >= 1.0;
    let taken = |running: &Running| running.value("nodegauge_pull_summaries_total") >= 1.0;
    let stranger = running(&Certificates::new(&["127.0.0.1"], false).ca, "kubeletHttps=true");
    stranger.eventually("it is not believed", || failed(&stranger));
    let plain = running(&certificates.ca, "kubeletHttps=false");
    plain.eventually("it does not speak http", || failed(&plain));
    assert!(kubelet.asked().is_empty(), "nobody was shown the token");
    let right = running(&certificates.ca, "kubeletHttps=true");
    right.eventually("its summaries are taken", || taken(&right));
    assert_eq!(kubelet.asked().pop().unwrap().as_deref(), Some("Bearer the-token"));
    let blind = running(&Certificates::new(&["127.0.0.1"], false).ca, "kubeletHttps=true&insecure=true");
    blind.eventually("any is believed where that was said", || taken(&blind));
    drop(stop);
    thread.join().unwrap();
}

/// A running aggregator in Heapster's place, on a port of its own.
fn heapster(words: &[&str], environment: &[(&str, &str)]) -> Agent {
    let own = ["--listen_ip=127.0.0.1", "--heapster-port=0", "--metric_resolution=5s", "--v=4"];
    Agent::start(nodegauge([words, &own].concat(), environment))
}

fn figure(agent: &Agent, series: &str) -> f64 {
    let text = agent.get("/metrics");
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or(0.0)
}

fn eventually(what: &str, mut test: impl FnMut() -> bool) {
    let began = Instant::now();
    while !test() {
        assert!(began.elapsed() < Duration::from_secs(60), "not in time: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn ends_well(agent: Agent, named: &[&str]) {
    assert!(agent.get("/readyz").starts_with("HTTP/1.1 200 OK\r\n"));
    agent.signal(Signal::SIGTERM);
    let (code, log) = agent.end();
    assert_eq!(code, Some(0), "{log}");
    for named in named {
        assert!(log.contains(named), "{named:?} is not in {log}");
    }
}

#[test]
fn command_lines_of_heapster_start_and_work() {
    // No service account, or no API server: it starts, says so and goes on trying.
    let plain =
        heapster(&["--source=kubernetes:https://kubernetes.default", "--logtostderr", "--max_procs=2"], &[]);
    let failures = |agent: &Agent| {
        figure(agent, "nodegauge_api_server_failures_total")
            + figure(agent, "nodegauge_watch_failures_total{kind=\"nodes\"}")
    };
    eventually("it says that it cannot ask", || failures(&plain) >= 1.0);
    ends_well(plain, &["--logtostderr is accepted and means nothing here", "--max-procs", "trying again"]);
    // A plain address, as of a proxy.
    let cluster = Cluster::start();
    cluster.put("nodes", node("n1", None, true));
    let source = format!("--source=kubernetes:http://{}?inClusterConfig=false", cluster.address);
    let outside = heapster(&[&source], &[]);
    eventually("it knows the node", || figure(&outside, "nodegauge_watch_objects{kind=\"nodes\"}") == 1.0);
    ends_well(outside, &["asking the API server", &cluster.address.to_string()]);
    // A kubeconfig; the address of the URI wins, also where nothing is behind it.
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config");
    let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": format!("http://{}", cluster.address)}}],
        "users": [{"name": "u", "user": {"token": "a-token-nobody-may-see"}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}]});
    std::fs::write(&config, text.to_string()).unwrap();
    let config = config.to_str().unwrap();
    let options = format!("inClusterConfig=false&insecure=true&auth={config}");
    let with_address = heapster(&[&format!("--source=kubernetes:https://kubernetes.default?{options}")], &[]);
    eventually("it says that nobody answers", || failures(&with_address) >= 1.0);
    with_address.signal(Signal::SIGTERM);
    let (code, log) = with_address.end();
    assert!(code == Some(0) && log.contains("the API server does not tell"), "{log}");
    assert!(!log.contains("nobody-may-see"), "{log}");
    let environment = [("KUBECONFIG_OF_TEST", config)];
    let from_environment = "--source=kubernetes:''?inClusterConfig=false&auth=$KUBECONFIG_OF_TEST";
    let configured = heapster(&[from_environment], &environment);
    eventually("it knows the node", || figure(&configured, "nodegauge_watch_objects{kind=\"nodes\"}") == 1.0);
    ends_well(configured, &[]);
}
