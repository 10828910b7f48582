//! From closed slots to sinks: every line is what it has to be, nothing is queued
//! twice, and of two aggregators one sends everything.
#![allow(clippy::disallowed_methods, reason = "one of these tests is about the program as it is started")]

mod extras;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use nodegauge::aggregate::model::{Model, Options};
use nodegauge::aggregate::steps::Steps;
use nodegauge::aggregator::lead::{self, FilePlace, Held, Lead, LeasePlace, Place};
use nodegauge::aggregator::sending::Queue;
use nodegauge::config::Sending;
use nodegauge::push::batch::{self, Batch, MAX_DECOMPRESSED};
use nodegauge::push::delivery::worker::{Parts, Worker};
use nodegauge::push::delivery::{Sink, Step, Timing, gate};
use nodegauge::push::influxdb::Influxdb;
use nodegauge::push::log::SinkName;
use nodegauge::push::remote_write::{RemoteWrite, STALE};
use nodegauge::push::sinks;
use nodegauge::push::target::Target;
use nodegauge::push::target::heapster::{Asked, parse};
use nodegauge::telemetry::lead::Leading;
use nodegauge::telemetry::push::PushMetrics;
use prost::Message as _;
use tokio::task::JoinSet;

use crate::api::cluster::{MINUTE, START, minute, model, n1, n1_with, n2};
use crate::cli::{Agent, nodegauge};
use crate::ingest::Sender;
use crate::push_encode::prometheus;
use crate::standin::apiserver::ApiServer;
use crate::standin::receiver::{Receiver, Reply, until};

fn target(uri: &str) -> Target {
    match parse(uri, &|_| None, Duration::from_secs(60)).unwrap().asked {
        Asked::Target(target) => *target,
        other => panic!("{uri}: {other:?}"),
    }
}

/// What is made of a model now, by slot.
fn made(steps: &mut Steps, model: &Model, now_ms: u64) -> BTreeMap<u64, Vec<Vec<u8>>> {
    let mut found: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
    steps.make(model, now_ms, |slot, payload| found.entry(slot).or_default().push(payload.to_vec())).unwrap();
    found
}

fn decoded(payload: &[u8]) -> Batch {
    batch::decode(payload, MAX_DECOMPRESSED).unwrap()
}

fn bodies(sink: &mut dyn Sink, payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut all = Vec::new();
    for (sequence, payload) in (1..).zip(payloads) {
        let step = Step::new(sequence, decoded(payload).time_ms(), payload.clone().into());
        let mut next = Some(0);
        while let Some(from) = next {
            let mut body = Vec::new();
            next = sink.encode(&step, from, 1 << 20, &mut body).unwrap();
            all.extend(body);
        }
    }
    all
}

fn lines(uri: &str, payloads: &[Vec<u8>]) -> String {
    let mut sink = Influxdb::new(&target(uri)).unwrap();
    String::from_utf8(bodies(&mut sink, payloads)).unwrap()
}

/// Every type of set in both schemas: the second minute of the cluster of the API's
/// tests, checked by hand against the figures at its head.
#[test]
fn heapsters_lines() {
    let made = made(&mut Steps::new().unwrap(), &model(), minute(3) + 20_000);
    for (uri, name) in [
        ("influxdb:http://db", "heapster.lp"),
        ("influxdb:http://db?withfields=true&cluster_name=c%201&disable_counter_metrics=true", "fields.lp"),
    ] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/sinks").join(name);
        let text = lines(uri, &made[&minute(2)]);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{name}");
        for kind in ["cluster", "ns", "node", "pod", "pod_container", "sys_container"] {
            let found = text.lines().filter(|line| line.contains(&format!(",type={kind} "))).count();
            assert!(found > 0, "no line of type {kind} in {name}");
        }
    }
}

#[test]
fn remote_write_has_sums_and_ends_what_is_gone() {
    let model = Model::new(Options::default());
    for (at, side) in [(1, Some(5)), (2, None)] {
        let batch = if at == 1 { n1_with(1, side) } else { without_web(2) };
        model.ingest(&batch, minute(at) + 1_000);
        model.tick(minute(at) + 20_000);
    }
    let mut steps = Steps::new().unwrap();
    let made = made(&mut steps, &model, minute(2) + 20_000);
    let mut sink = RemoteWrite::new(&target("remote-write:http://p/w")).unwrap();
    let all = made.values().flatten().cloned().collect::<Vec<_>>();
    let series = prometheus::WriteRequest::decode(bodies(&mut sink, &all).as_slice()).unwrap().timeseries;
    let mut found: BTreeMap<String, Vec<(i64, u64)>> = BTreeMap::new();
    for one in &series {
        let name: Vec<_> = one.labels.iter().map(|l| format!("{}={}", l.name, l.value)).collect();
        let samples = one.samples.iter().map(|s| (s.timestamp, s.value.to_bits()));
        found.entry(name.join(",")).or_default().extend(samples);
    }
    let [first, second] = [minute(1), minute(2)].map(u64::cast_signed);
    let of = |name: &str| found.get(name).unwrap_or_else(|| panic!("no {name} in {found:#?}")).clone();
    let value = |value: f64| value.to_bits();
    let mib = 1_048_576.0;
    assert_eq!(
        of("__name__=nodegauge_namespace_memory_usage_bytes,job=nodegauge,namespace=shop"),
        [(first, value(16.0 * mib))]
    );
    assert_eq!(of("__name__=nodegauge_cluster_cpu_request_cores,job=nodegauge"), [(first, value(0.2))]);
    let pod = "__name__=container_memory_usage_bytes,container=main,image=registry.local/web:1,instance=n1,\
        job=nodegauge,namespace=shop,node=n1,pod=web-0";
    assert_eq!(of(pod), [(first, value(11.0 * mib)), (second, STALE)]);
    let node = "__name__=container_memory_usage_bytes,id=/,instance=n1,job=nodegauge,node=n1";
    assert_eq!(of(node), [(first, value(1_001.0 * mib)), (second, value(1_002.0 * mib))]);
    let text = lines("influxdb:http://db", &made[&minute(2)]);
    assert!(text.contains("type=node ") && !text.contains("web-0"), "{text}");
}

/// The machine alone.
fn without_web(at: u64) -> Batch {
    let mut message = n1(at).message().clone();
    for entity in &mut message.entities {
        if entity.pod != 0 {
            entity.kind = 0;
        }
    }
    Batch::new(message).unwrap()
}

#[test]
fn a_slot_is_made_once_and_what_comes_late_alone() {
    let model = Model::new(Options::default());
    let mut steps = Steps::new().unwrap();
    for at in 1..=2 {
        model.ingest(&n1(at), minute(at) + 1_000);
        model.tick(minute(at) + 20_000);
    }
    let first = made(&mut steps, &model, minute(2) + 20_000);
    assert_eq!(first.keys().copied().collect::<Vec<_>>(), [minute(1), minute(2)]);
    assert!(made(&mut steps, &model, minute(2) + 60_000).is_empty());
    model.ingest(&n2(1), minute(2) + 30_000);
    assert!(made(&mut steps, &model, minute(2) + 61_000).is_empty(), "its sums are not worked out again yet");
    model.tick(minute(2) + 61_000);
    let late = made(&mut steps, &model, minute(2) + 90_000);
    assert_eq!(late.keys().copied().collect::<Vec<_>>(), [minute(1)]);
    let text = lines("influxdb:http://db", &late[&minute(1)]);
    assert!(text.lines().all(|line| !line.contains("nodename=n1")), "{text}");
    let sum = format!("memory/usage,cluster_name=default,namespace_name=shop,type=ns value={}i ", 36 << 20);
    assert!(text.contains(&sum), "11 and 5 of n1, 20 of n2: {text}");
}

/// Pushes come on other threads while a step is made.
#[test]
fn what_comes_while_a_step_is_made_is_in_its_sums() {
    let model = Model::new(Options::default());
    let mut steps = Steps::new().unwrap();
    for at in 1..=2 {
        model.ingest(&n1(at), minute(at) + 1_000);
        model.tick(minute(at) + 20_000);
    }
    let mut early: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
    let write = |slot, payload: &[u8]| {
        if slot == minute(1) {
            model.ingest(&n2(2), minute(2) + 30_000);
        }
        early.entry(slot).or_default().push(payload.to_vec());
    };
    steps.make(&model, minute(2) + 30_000, write).unwrap();
    let text = lines("influxdb:http://db", &early[&minute(2)]);
    assert!(
        text.contains("nodename=n1") && !text.contains("type=ns "),
        "the sums of before are not its: {text}"
    );
    model.tick(minute(2) + 31_000);
    let late = made(&mut steps, &model, minute(2) + 60_000);
    assert_eq!(late.keys().copied().collect::<Vec<_>>(), [minute(2)]);
    let text = lines("influxdb:http://db", &late[&minute(2)]);
    assert!(text.contains("nodename=n2") && !text.contains("nodename=n1"), "{text}");
    assert!(text.contains("type=ns ") && text.contains("type=cluster "), "{text}");
}

#[test]
fn after_a_restart_only_what_has_more_in_it() {
    let pushed = |names: &[&Batch], now: u64| {
        let model = Model::new(Options::default());
        for batch in names {
            model.ingest(batch, now);
        }
        model.tick(now);
        model
    };
    let now = minute(2) + 50_000;
    let mut steps = Steps::new().unwrap();
    let all = [n1(1), n2(1), n1(2)];
    let batches: Vec<&Batch> = all.iter().collect();
    made(&mut steps, &pushed(&batches, now), now);
    let written = steps.encode();
    let coverage = steps.coverage();
    let resumed = || {
        let mut steps = Steps::new().unwrap();
        assert!(steps.resume(&written));
        assert_eq!(steps.coverage(), coverage);
        steps
    };
    for at in 0..written.len() {
        let mut bad = written.clone();
        bad[at] ^= 1;
        assert!(!Steps::new().unwrap().resume(&bad) && !Steps::new().unwrap().resume(&written[..at]), "{at}");
    }
    assert!(made(&mut resumed(), &pushed(&batches, now), now).is_empty(), "filled up again");
    assert!(made(&mut resumed(), &pushed(&[&all[0]], now), now).is_empty(), "less than before");
    // A push that never came before; n2 has not told its first minute again yet.
    let newer = n2(2);
    let model = pushed(&[&all[0], &all[2], &newer], now);
    let mut steps = resumed();
    let more = made(&mut steps, &model, now);
    assert_eq!(more.keys().copied().collect::<Vec<_>>(), [minute(2)]);
    let text = lines("influxdb:http://db", &more[&minute(2)]);
    assert!(text.contains("nodename=n2") && !text.contains("nodename=n1") && text.contains("type=cluster"));
    // More of the first minute of n1, without n2's: no sum of half the cluster.
    let other = Sender { boot: 3, ..Sender::new("n1") };
    let extra = batch::decode(&other.bytes(minute(1), minute(1) + 10, 77), MAX_DECOMPRESSED).unwrap();
    model.ingest(&extra, now + 1_000);
    model.tick(now + 1_000);
    let half = made(&mut steps, &model, now + 20_000);
    let text = lines("influxdb:http://db", &half[&minute(1)]);
    assert!(text.contains("nodename=n1") && !text.contains("type=cluster"), "{text}");
    model.ingest(&all[1], now + 21_000);
    model.tick(now + 21_000);
    let whole = made(&mut steps, &model, now + 40_000);
    let text = lines("influxdb:http://db", &whole[&minute(1)]);
    assert!(text.contains("type=cluster") && !text.contains("type=node"), "{text}");
}

/// Agents send the newest step first, so that the slot which a container was in last comes after
/// the one that it is missing in.
#[test]
fn an_end_during_a_restart_is_told_after_it() {
    let now = minute(2) + 50_000;
    let mut steps = Steps::new().unwrap();
    let before = Model::new(Options::default());
    before.ingest(&n1(1), minute(1) + 1_000);
    before.tick(minute(1) + 20_000);
    assert_eq!(made(&mut steps, &before, minute(1) + 20_000).len(), 1);
    let mut resumed = Steps::new().unwrap();
    assert!(resumed.resume(&steps.encode()));
    let after = Model::new(Options::default());
    after.ingest(&without_web(2), now);
    after.tick(now);
    let first = made(&mut resumed, &after, now);
    let ended = |payloads: &[Vec<u8>]| {
        let pods = |payload: &Vec<u8>| {
            let batch = decoded(payload);
            batch
                .entities()
                .filter(|e| e.has_ended())
                .filter_map(|e| e.pod().map(str::to_owned))
                .collect::<Vec<_>>()
        };
        payloads.iter().flat_map(pods).collect::<BTreeSet<String>>()
    };
    assert!(ended(&first[&minute(2)]).is_empty());
    after.ingest(&n1(1), now + 1_000);
    after.tick(now + 1_000);
    let again = made(&mut resumed, &after, now + 20_000);
    assert_eq!(again.keys().copied().collect::<Vec<_>>(), [minute(2)], "the first minute was sent before");
    assert!(ended(&again[&minute(2)]).contains("web-0"), "{again:?}");
    assert!(made(&mut resumed, &after, now + 40_000).is_empty());
}

fn settings(directory: &Path, uri: &str) -> Sending {
    Sending {
        targets: vec![target(uri)],
        journal: None,
        queue_dir: Some(directory.to_owned()),
        queue_max_bytes: 64 << 20,
        timeout: Duration::from_secs(20),
        ha: None,
        lease: Duration::from_secs(15),
        notices: Vec::new(),
    }
}

fn timing() -> Timing {
    let retry = Duration::from_millis(10);
    Timing { retry_min: retry, retry_max: retry, slow: retry, ..Timing::default() }
}

/// One of two aggregators, without its listener.
struct Replica {
    name: &'static str,
    model: Model,
    queue: Arc<Queue>,
    leading: Arc<Leading>,
    running: JoinSet<()>,
}

const LEASE: Duration = Duration::from_millis(900);

impl Replica {
    async fn start(name: &'static str, directory: &Path, uri: &str) -> Replica {
        let settings = settings(&directory.join(name), uri);
        let mut opened = Queue::open(&settings);
        // What was killed may still be at its last write.
        while opened.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            opened = Queue::open(&settings);
        }
        let queue = Arc::new(opened.unwrap().unwrap());
        let (keeper, gate) = gate::gate();
        let leading = Arc::new(Leading::default());
        let options = lead::Options::new(format!("{name}-{:?}", std::time::Instant::now()), LEASE);
        let place = Box::new(FilePlace::new(directory.join("lease")));
        let lead = Lead::new(place, options, Arc::clone(&queue), keeper, Arc::clone(&leading));
        let target = &settings.targets[0];
        let parts = Parts {
            target,
            log: Arc::clone(queue.log()),
            directory: None,
            node: "",
            metrics: PushMetrics::default().sink(&target.name),
            timing: timing(),
        };
        let worker = Worker::new(sinks::sink(target, None).unwrap(), SinkName::new(&target.name), parts);
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut running = JoinSet::new();
        running.spawn(worker.behind(gate).run(stopped.clone()));
        running.spawn(async move {
            lead.run(stopped).await;
            drop(stop);
        });
        Replica { name, model: Model::new(Options::default()), queue, leading, running }
    }

    /// Pushes of three machines for these minutes, all of them closed and queued.
    fn told(&self, minutes: std::ops::RangeInclusive<u64>) {
        let now = minute(*minutes.end()) + 40_000;
        for at in minutes {
            for node in ["n1", "n2", "n3"] {
                let sender = Sender::new(node);
                let bytes = sender.bytes(minute(at), minute(at) + 5, at);
                self.model.ingest(&batch::decode(&bytes, MAX_DECOMPRESSED).unwrap(), now);
            }
        }
        self.model.tick(now);
        self.queue.fill(&self.model, now, &PushMetrics::default()).unwrap();
    }

    async fn kill(mut self) -> &'static str {
        self.running.shutdown().await;
        self.name
    }
}

#[tokio::test]
async fn whoever_leads_sends_what_is_left_and_nothing_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    // How many writes are taken; the database is down for all others.
    let room = Arc::new(AtomicI64::new(0));
    let taken = Arc::clone(&room);
    let receiver = Receiver::judging(move |seen| match seen.is_write() {
        true if taken.fetch_sub(1, Ordering::AcqRel) > 0 => Reply::text(204, ""),
        true => Reply::text(503, "down"),
        false => Reply::text(200, r#"{"results":[{"statement_id":0}]}"#),
    });
    let (_server, port) = receiver.serve(0).await;
    let uri = format!("influxdb:http://127.0.0.1:{port}?name=db");
    let mut leader = Replica::start("a", directory.path(), &uri).await;
    until("the first leads", || leader.leading.leads()).await;
    let mut standby = Replica::start("b", directory.path(), &uri).await;
    let mut last = 0;
    for round in 0..10 {
        let minutes = last + 1..=last + 3;
        last += 3;
        leader.told(minutes.clone());
        standby.told(minutes);
        // It sends a part of its backlog and is killed.
        room.store(2, Ordering::Release);
        until("two steps are taken", || room.load(Ordering::Acquire) <= 0).await;
        let name = leader.kill().await;
        until("the other leads", || standby.leading.leads()).await;
        leader = standby;
        standby = Replica::start(name, directory.path(), &uri).await;
        // Agents fill it up again.
        standby.told(last.saturating_sub(9).max(1)..=last);
        assert_eq!(standby.name, if round % 2 == 0 { "a" } else { "b" });
    }
    room.store(i64::MAX / 2, Ordering::Release);
    until("everything is sent, and given up by the other", || {
        leader.queue.is_sent() && standby.queue.is_sent()
    })
    .await;
    let mut points: BTreeMap<(String, u64), BTreeSet<String>> = BTreeMap::new();
    for line in receiver.writes().iter().flat_map(|write| write.lines()) {
        let words: Vec<&str> = line.rsplitn(3, ' ').collect();
        let key = (words[2].to_owned(), words[0].parse().unwrap());
        points.entry(key).or_default().insert(words[1].to_owned());
    }
    let series: BTreeSet<&str> = points.keys().map(|(series, _)| series.as_str()).collect();
    // For each machine itself and its pod, the namespace and the cluster.
    assert_eq!(series.iter().filter(|s| s.starts_with("memory/usage,")).count(), 3 * 2 + 2, "{series:#?}");
    for at in 1..=last {
        for one in series.iter().filter(|s| s.starts_with("memory/usage,")) {
            let values = points.get(&((*one).to_owned(), minute(at) * 1_000_000));
            let sum = if one.contains("type=ns") || one.contains("type=cluster") { 3 * at } else { at };
            let value = if one.contains("type=node") { 2 * at } else { sum };
            assert_eq!(values, Some(&BTreeSet::from([format!("value={value}i")])), "{one} at {at}");
        }
    }
}

#[tokio::test]
async fn a_standby_keeps_what_the_leader_was_not_told() {
    let directory = tempfile::tempdir().unwrap();
    let open = |name: &str| {
        let settings = settings(&directory.path().join(name), "influxdb:http://db?name=db");
        Queue::open(&settings).unwrap().unwrap()
    };
    let (leader, standby) = (open("a"), open("b"));
    let tell = |queue: &Queue, model: &Model, batches: &[Batch]| {
        let now = minute(2) + 50_000;
        for batch in batches {
            model.ingest(batch, now);
        }
        model.tick(now);
        queue.fill(model, now, &PushMetrics::default()).unwrap();
    };
    let sink = SinkName::new("db");
    let owed = |queue: &Queue| queue.log().owed(&sink).unwrap();
    let (here, there) = (Model::new(Options::default()), Model::new(Options::default()));
    tell(&leader, &here, &[n1(1), n1(2)]);
    tell(&standby, &there, &[n1(1), n2(1), n1(2)]);
    assert_eq!(standby.trim(&leader.taken()), 0, "nothing is sent yet");
    leader.log().trim(&sink, |_| true).unwrap();
    standby.trim(&leader.taken());
    assert_eq!(owed(&standby), BTreeSet::from([minute(1)]), "n2 told the leader nothing");
    // It does now: then both have the same.
    here.ingest(&n2(1), minute(2) + 51_000);
    here.tick(minute(2) + 51_000);
    leader.fill(&here, minute(2) + 80_000, &PushMetrics::default()).unwrap();
    assert_eq!(standby.trim(&leader.taken()), 0, "the leader has not sent it");
    leader.log().trim(&sink, |_| true).unwrap();
    standby.trim(&leader.taken());
    assert_eq!(owed(&standby), BTreeSet::new());
    assert_eq!(START % MINUTE, 0);
}

#[tokio::test]
async fn a_lease_of_kubernetes_is_taken_renewed_and_contested() {
    let server = ApiServer::start();
    let place = || LeasePlace::new("kube-system", "heapster").with(server.client());
    let (mut one, mut other) = (place(), place());
    let held = |holder: &str, acknowledged: &BTreeMap<_, _>| Held {
        holder: holder.to_owned(),
        lease_seconds: 15,
        renewed_us: 1_893_456_000_123_456,
        transitions: 3,
        acknowledged: acknowledged.clone(),
    };
    let told = lead::Told {
        since_ms: 1,
        through_ms: 1_893_456_000_000,
        slots: BTreeMap::from([(1_893_456_060_000, "f00f".to_owned())]),
    };
    let told = BTreeMap::from([("db".to_owned(), told)]);
    let first = held("one", &told);
    let taken = one.exchange(Box::new(|found| {
        assert_eq!(found, None);
        Some(first.clone())
    }));
    assert_eq!(taken.await.unwrap(), Some(first.clone()));
    let seen = other.exchange(Box::new(|found| {
        assert_eq!(found, Some(&first));
        None
    }));
    assert_eq!(seen.await.unwrap(), Some(first.clone()));
    // Somebody writes between the reading and the writing of the other.
    let second = held("other", &told);
    let lost = other.exchange(Box::new(|_| {
        server.touch_leases();
        Some(second.clone())
    }));
    assert!(lost.await.is_err());
    let written = other.exchange(Box::new(|_| Some(second.clone()))).await.unwrap();
    assert_eq!(written, Some(second));
}

/// The moments of a machine's own memory that were written, in seconds.
fn written(receiver: &Receiver) -> BTreeSet<u64> {
    let mut times = BTreeSet::new();
    for line in receiver.writes().iter().flat_map(|write| write.lines()) {
        if line.starts_with("memory/usage,") && line.contains(",type=node ") {
            let time: u64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
            times.insert(time / 1_000_000_000);
        }
    }
    times
}

#[tokio::test]
async fn a_stuck_sink_stops_nothing_and_neither_does_a_kill() {
    let stuck = Receiver::judging(|_| Reply::Hang);
    let receiver = Receiver::new();
    let (_stuck, nowhere) = stuck.serve(0).await;
    let (_server, port) = receiver.serve(0).await;
    let directory = tempfile::tempdir().unwrap();
    let queue = directory.path().to_str().unwrap().to_owned();
    let sinks = [nowhere, port].map(|port| format!("--sink=influxdb:http://127.0.0.1:{port}?pw=hunter2"));
    let start = |address: String| {
        let (queue, sinks) = (queue.clone(), sinks.clone());
        let arguments =
            ["aggregator", "--metric-resolution", "2s", "--queue-dir", &queue, "--listen", &address];
        Agent::start(nodegauge([&arguments[..], &[&sinks[0], &sinks[1]]].concat(), &[]))
    };
    let mut aggregator = start("127.0.0.1:0".to_owned());
    let address = aggregator.address;
    let push = format!("aggregator:http://{address}?resolution=1s");
    let arguments =
        ["agent", "--listen", "127.0.0.1:0", "--interval", "1s", "--node-name", "n1", "--push", &push];
    let agent = Agent::start(nodegauge(arguments, &[]));
    for _ in 0..2 {
        let before = written(&receiver).len();
        until("steps arrive beside a sink that hangs", || written(&receiver).len() >= before + 3).await;
        aggregator.signal(Signal::SIGKILL);
        drop(aggregator);
        // The port may be somebody else's for a moment.
        aggregator = loop {
            match std::panic::catch_unwind(|| start(address.to_string())) {
                Ok(started) => break started,
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        };
    }
    let before = written(&receiver).len();
    until("they go on", || written(&receiver).len() >= before + 4).await;
    let queued = written(&receiver).len();
    let waiting = format!("nodegauge_push_queue_steps{{sink=\"influxdb-127.0.0.1-{nowhere}\"}} ");
    // Counted now, not when it began to wait for the answer; while the queue is written it is what it was.
    until("what waits for the sink that hangs is told", || {
        let own = aggregator.get("/metrics");
        assert!(!own.contains("hunter2"), "{own}");
        let waits = own.lines().find_map(|line| line.strip_prefix(&waiting)?.parse::<f64>().ok());
        waits.is_some_and(|steps| steps >= queued as f64)
    })
    .await;
    drop(agent);
    aggregator.signal(Signal::SIGTERM);
    let (code, log) = aggregator.end();
    assert!(code == Some(0) && log.contains("process listings") && !log.contains("hunter2"), "{log}");
    let times = written(&receiver);
    let (first, last) = (*times.first().unwrap(), *times.last().unwrap());
    let missing: Vec<u64> = (first..=last).step_by(2).filter(|time| !times.contains(time)).collect();
    assert!(missing.is_empty(), "{missing:?} of {times:?}");
}
