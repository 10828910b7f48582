//! Delivery to a receiver that fails in every way: what was queued arrives, in
//! order, and what cannot is counted and kept apart.

mod remote;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nodegauge::push::batch::{self, proto};
use nodegauge::push::delivery::Timing;
use nodegauge::push::delivery::worker::{Parts, Worker};
use nodegauge::push::log::{Log, Options, SinkName};
use nodegauge::push::sinks;
use nodegauge::push::target::Target;
use nodegauge::telemetry::Telemetry;
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::sync::watch;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::push_encode::step;
use crate::standin::Running;
use crate::standin::receiver::{Receiver, Reply, Seen, until};

/// Some moment in the past, on every grid.
const START_MS: u64 = 1_700_000_040_000;

fn timing() -> Timing {
    Timing {
        request: Duration::from_secs(20),
        connect: Duration::from_secs(5),
        retry_min: Duration::from_millis(5),
        retry_max: Duration::from_millis(40),
        slow: Duration::from_millis(60),
        client_age: Duration::from_secs(300),
        drain: Duration::from_secs(5),
    }
}

/// A worker on a queue of its own.
struct Run {
    log: Arc<Log>,
    name: SinkName,
    telemetry: Arc<Telemetry>,
    stop: watch::Sender<bool>,
    worker: tokio::task::JoinHandle<()>,
}

impl Run {
    fn start(uri: &str, directory: Option<&Path>, timing: Timing) -> Run {
        let target = Target::parse(uri).unwrap();
        let name = SinkName::new(&target.name);
        // The steps of these tests are years old.
        let options = Options { keep_acknowledged: Duration::MAX, ..Options::default() };
        let (log, _) = Log::open(directory, options, std::slice::from_ref(&name)).unwrap();
        let log = Arc::new(log);
        let telemetry = Telemetry::new();
        let parts = Parts {
            target: &target,
            log: Arc::clone(&log),
            directory,
            node: "n1",
            metrics: telemetry.push().sink(&target.name),
            timing,
        };
        let worker = Worker::new(sinks::sink(&target, directory).unwrap(), name.clone(), parts);
        let (stop, stopped) = watch::channel(false);
        let worker = tokio::spawn(worker.run(stopped));
        Run { log, name, telemetry, stop, worker }
    }

    /// Queues steps with these numbers of seconds after the start.
    fn queue(&self, seconds: std::ops::Range<u64>, containers: u32) {
        for second in seconds {
            let time_ms = START_MS + second * 1000;
            let payload = batch::encode(&step(0, time_ms, 0..containers)).unwrap();
            self.log.append(time_ms, &payload).unwrap();
        }
    }

    async fn sent(&self) {
        until("everything is acknowledged", || self.log.status(&self.name).unwrap().steps == 0).await;
    }

    /// A figure of our own, 0 where it is not there.
    fn figure(&self, series: &str) -> f64 {
        let text = self.telemetry.encode(true);
        let line = text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    fn dropped(&self, reason: &str) -> f64 {
        let sink = &self.name;
        self.figure(&format!("nodegauge_push_dropped_values_total{{sink=\"{sink}\",reason=\"{reason}\"}}"))
    }

    fn retries(&self, reason: &str) -> f64 {
        let sink = &self.name;
        self.figure(&format!("nodegauge_push_retries_total{{sink=\"{sink}\",reason=\"{reason}\"}}"))
    }
}

/// The time at the end of a line.
fn time_of(line: &str) -> u64 {
    line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap() / 1_000_000
}

/// The times of the steps, in the order they were taken in; `good` says which
/// writes were.
fn order(writes: &[Seen]) -> Vec<u64> {
    let mut times: Vec<u64> = writes.iter().map(|w| (time_of(&w.lines()[0]) - START_MS) / 1000).collect();
    times.dedup();
    times
}

#[tokio::test]
async fn everything_arrives_in_order_through_every_kind_of_failure() {
    let receiver = Receiver::new();
    receiver.script([
        Reply::text(500, "boom"),
        Reply::CutMidBody,
        Reply::text(204, ""),
        Reply::CutBeforeAnswer,
        Reply::text(503, ""),
        Reply::CutMidAnswer(200),
        Reply::text(204, ""),
        Reply::CutMidAnswer(500),
        Reply::text(502, "bad gateway"),
        Reply::text(429, ""),
    ]);
    let (_server, port) = receiver.serve(0).await;
    let run = Run::start(&format!("influxdb:http://127.0.0.1:{port}?resolution=1s&name=db"), None, timing());
    run.queue(0..20, 3);
    run.sent().await;
    let writes = receiver.writes();
    assert_eq!(order(&writes), (0..20).collect::<Vec<_>>());
    let mut by_step: BTreeMap<u64, BTreeSet<Vec<String>>> = BTreeMap::new();
    for write in &writes {
        by_step.entry(time_of(&write.lines()[0])).or_default().insert(write.lines());
    }
    assert!(by_step.values().all(|bodies| bodies.len() == 1), "what is sent again is the same");
    assert_eq!((run.retries("server"), run.retries("throttled")), (4.0, 1.0));
    assert_eq!(run.retries("unreachable"), 3.0);
    assert_eq!(run.figure("nodegauge_push_sent_steps_total{sink=\"db\"}"), 20.0);
    assert_eq!(run.figure("nodegauge_push_sent_values_total{sink=\"db\"}"), 20.0 * 15.0);
    assert_eq!(run.figure("nodegauge_push_queue_steps{sink=\"db\"}"), 0.0);
    let first = &receiver.seen()[0];
    assert_eq!(first.line, "GET /ping");
    let write = &writes[0];
    assert_eq!(write.line, "POST /write?db=k8s&rp=default&precision=ns");
    assert!(write.header("user-agent").unwrap().starts_with("nodegauge/"));
}

#[tokio::test]
async fn a_receiver_that_hangs_is_left_at_the_deadline() {
    let receiver = Receiver::new();
    receiver.script([Reply::Hang]);
    let (_server, port) = receiver.serve(0).await;
    let timing = Timing { request: Duration::from_millis(1500), ..timing() };
    let run = Run::start(&format!("influxdb:http://127.0.0.1:{port}?resolution=1s"), None, timing);
    run.queue(0..2, 1);
    run.sent().await;
    assert!(run.retries("deadline") >= 1.0);
    assert_eq!(order(&receiver.writes()), [0, 1]);
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let receiver = Receiver::new();
    receiver.script([Reply::Header(429, "Retry-After", "1".to_owned())]);
    let (_server, port) = receiver.serve(0).await;
    let run = Run::start(&format!("influxdb:http://127.0.0.1:{port}?resolution=1s"), None, timing());
    run.queue(0..1, 1);
    run.sent().await;
    let at: Vec<_> = receiver.writes().iter().map(|w| w.at).collect();
    assert!(at.len() == 2 && at[1] - at[0] >= Duration::from_secs(1), "{at:?}");
}

#[tokio::test]
async fn too_large_bodies_are_halved_and_the_next_begin_smaller() {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&taken);
    let receiver = Receiver::judging(move |seen| {
        if !seen.is_write() {
            return Reply::text(200, "{}");
        }
        let body = seen.lines();
        if body.iter().map(|l| l.len() + 1).sum::<usize>() > 40_000 {
            return Reply::text(413, "Request Entity Too Large");
        }
        lines.lock().unwrap().extend(body);
        Reply::text(204, "")
    });
    let (_server, port) = receiver.serve(0).await;
    let run = Run::start(&format!("influxdb:http://127.0.0.1:{port}?resolution=1s"), None, timing());
    run.queue(0..3, 300);
    run.sent().await;
    let mut taken = std::mem::take(&mut *taken.lock().unwrap());
    assert_eq!(taken.len(), 3 * (3 + 300 * 4));
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 3 * (3 + 300 * 4), "each once");
    let refused = |w: &&Seen| w.lines().iter().map(|l| l.len() + 1).sum::<usize>() > 40_000;
    let writes = receiver.writes();
    let last = writes.iter().filter(|w| time_of(&w.lines()[0]) == START_MS + 2000);
    assert_eq!(last.filter(refused).count(), 0, "the limit is learnt");
    assert_eq!(run.dropped("too_large"), 0.0);
}

#[tokio::test]
async fn one_bad_point_costs_only_itself() {
    let directory = tempfile::tempdir().unwrap();
    let taken = Arc::new(Mutex::new(BTreeSet::new()));
    let lines = Arc::clone(&taken);
    // As InfluxDB 1.x: the good points are kept, and 400 says that others were not.
    let receiver = Receiver::judging(move |seen| {
        if !seen.is_write() {
            return Reply::text(200, "{}");
        }
        let (bad, good): (Vec<_>, Vec<_>) = seen
            .lines()
            .into_iter()
            .partition(|l| l.starts_with("cpu/usage,") && l.contains("pod_name=web-77,"));
        lines.lock().unwrap().extend(good);
        if bad.is_empty() {
            return Reply::text(204, "");
        }
        let text = r#"{"error":"partial write: field type conflict: input field \"value\" dropped=1"}"#;
        Reply::text(400, text)
    });
    let (_server, port) = receiver.serve(0).await;
    let uri = format!("influxdb:http://127.0.0.1:{port}?resolution=1s&name=db");
    let run = Run::start(&uri, Some(directory.path()), timing());
    run.queue(0..1, 250);
    run.sent().await;
    assert_eq!(taken.lock().unwrap().len(), 3 + 250 * 4 - 1);
    assert_eq!((run.dropped("invalid"), run.dropped("too_old")), (1.0, 0.0));
    let letters = std::fs::read_to_string(directory.path().join("dead-letters-db.jsonl")).unwrap();
    let letter: serde_json::Value = serde_json::from_str(letters.trim_end()).unwrap();
    let first = letter["first"].as_str().unwrap();
    assert!(first.starts_with("cpu/usage,") && first.contains("pod_name=web-77,"), "{first}");
    assert!(letter["said"].as_str().unwrap().contains("field type conflict"));
}

#[tokio::test]
async fn points_beyond_the_retention_policy_are_counted_and_not_looked_for() {
    let receiver = Receiver::new();
    let said = r#"{"error":"partial write: points beyond retention policy dropped=4"}"#;
    receiver.script([Reply::text(400, said)]);
    let (_server, port) = receiver.serve(0).await;
    let run = Run::start(&format!("influxdb:http://127.0.0.1:{port}?resolution=1s"), None, timing());
    run.queue(0..2, 1);
    run.sent().await;
    assert_eq!(receiver.writes().len(), 2);
    assert_eq!(run.dropped("too_old"), 4.0);
}

#[tokio::test]
async fn a_lost_database_is_made_again() {
    let receiver = Receiver::new();
    let said = r#"{"error":"database not found: \"k8s\""}"#;
    receiver.script([Reply::text(204, ""), Reply::text(404, said)]);
    let (_server, port) = receiver.serve(0).await;
    let uri = format!("influxdb:http://127.0.0.1:{port}?resolution=1s&retention=7d");
    let run = Run::start(&uri, None, timing());
    run.queue(0..2, 1);
    run.sent().await;
    let seen = receiver.seen();
    let asked: Vec<_> = seen.iter().filter(|s| s.line == "POST /query").collect();
    assert_eq!(asked.len(), 2);
    let statement = String::from_utf8(asked[0].body.clone()).unwrap();
    assert_eq!(
        statement,
        "q=CREATE+DATABASE+%22k8s%22+WITH+DURATION+604800s+REPLICATION+1+NAME+%22default%22"
    );
    assert_eq!(run.retries("unprepared"), 1.0);
}

#[tokio::test]
async fn wrong_credentials_are_tried_slowly_and_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    std::fs::write(&password, "wrong\n").unwrap();
    let receiver = Receiver::judging(|seen| match seen.header("authorization") {
        // root:right
        Some("Basic cm9vdDpyaWdodA==") if seen.is_write() => Reply::text(204, ""),
        Some("Basic cm9vdDpyaWdodA==") => Reply::text(200, "{}"),
        _ => Reply::text(401, r#"{"error":"authorization failed"}"#),
    });
    let (_server, port) = receiver.serve(0).await;
    let path = password.display();
    let uri = format!("influxdb:http://127.0.0.1:{port}?resolution=1s&user=root&password-file={path}");
    let run = Run::start(&uri, None, timing());
    run.queue(0..1, 1);
    until("it is refused", || run.retries("credentials") >= 2.0).await;
    assert_eq!(run.log.status(&run.name).unwrap().steps, 1, "nothing is dropped");
    std::fs::write(&password, "right\n").unwrap();
    run.sent().await;
    assert!(!format!("{:?}", Target::parse(&uri).unwrap()).contains("right"));
}

#[tokio::test]
async fn tokens_are_written_as_each_kind_wants_them() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "t0k").unwrap();
    let token = token.display();
    for (uri, line, authorization) in [
        (
            format!("influxdb2:URL?org=o&bucket=b%20c&token-file={token}"),
            "POST /api/v2/write?org=o&bucket=b+c&precision=ns",
            "Token t0k",
        ),
        (
            format!("remote-write:URL/api/v1/write?tenant=t1&token-file={token}"),
            "POST /api/v1/write",
            "Bearer t0k",
        ),
    ] {
        let receiver = Receiver::new();
        let (_server, port) = receiver.serve(0).await;
        let uri = uri.replace("URL", &format!("http://127.0.0.1:{port}")) + "&resolution=1s";
        let run = Run::start(&uri, None, timing());
        run.queue(0..1, 1);
        run.sent().await;
        let writes = receiver.writes();
        assert_eq!((writes.len(), writes[0].line.as_str()), (1, line));
        assert_eq!(writes[0].header("authorization"), Some(authorization));
        let tenant = uri.contains("tenant").then_some("t1");
        assert_eq!(writes[0].header("x-scope-orgid"), tenant);
    }
}

#[tokio::test]
async fn redirects_do_not_take_credentials_elsewhere() {
    let elsewhere = Receiver::new();
    let (_other, other) = elsewhere.serve(0).await;
    let receiver = Receiver::judging(move |seen| match seen.is_write() {
        true => Reply::Header(307, "Location", format!("http://127.0.0.1:{other}/write")),
        false => Reply::text(200, "{}"),
    });
    let (_server, port) = receiver.serve(0).await;
    let run = Run::start(&format!("influxdb:http://127.0.0.1:{port}?resolution=1s"), None, timing());
    run.queue(0..1, 1);
    until("it is refused", || run.retries("address") >= 2.0).await;
    assert_eq!(elsewhere.seen().len(), 0);
}

#[tokio::test]
async fn what_cannot_be_read_holds_nobody_up() {
    let receiver = Receiver::new();
    let (_server, port) = receiver.serve(0).await;
    let run = Run::start(&format!("influxdb:http://127.0.0.1:{port}?resolution=1s"), None, timing());
    run.log.append(START_MS, b"no batch").unwrap();
    run.queue(1..2, 1);
    run.sent().await;
    assert_eq!(order(&receiver.writes()), [1]);
    assert_eq!(run.dropped("unreadable"), 1.0);
}

#[tokio::test]
async fn a_coarser_sink_gets_the_steps_of_its_grid() {
    let receiver = Receiver::new();
    let (_server, port) = receiver.serve(0).await;
    let run = Run::start(&format!("influxdb:http://127.0.0.1:{port}?resolution=5s"), None, timing());
    run.queue(0..12, 1);
    run.sent().await;
    assert_eq!(order(&receiver.writes()), [0, 5, 10]);
}

#[tokio::test]
async fn a_stop_sends_what_is_queued() {
    let receiver = Receiver::new();
    let run = Run::start("influxdb:http://127.0.0.1:9?resolution=1s", None, timing());
    run.queue(0..5, 1);
    until("it fails", || run.retries("unreachable") >= 1.0).await;
    drop(run);

    let (_server, port) = receiver.serve(0).await;
    let uri = format!("influxdb:http://127.0.0.1:{port}?resolution=1s");
    let slow =
        Timing { retry_min: Duration::from_secs(3600), retry_max: Duration::from_secs(3600), ..timing() };
    receiver.script([Reply::text(500, "")]);
    let run = Run::start(&uri, None, slow);
    run.queue(0..5, 1);
    until("it failed and waits", || run.retries("server") >= 1.0).await;
    run.stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(60), run.worker).await.expect("it ends").unwrap();
    assert_eq!(order(&receiver.writes()), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_queue_on_disk_waits_over_any_number_of_runs() {
    let directory = tempfile::tempdir().unwrap();
    let path = Some(directory.path());
    for run in 0..5 {
        let receiver = Receiver::judging(|_| Reply::text(503, ""));
        let (_server, port) = receiver.serve(0).await;
        let uri = format!("influxdb:http://127.0.0.1:{port}?resolution=1s&name=db");
        let sender = Run::start(&uri, path, timing());
        sender.queue(run * 2..run * 2 + 2, 1);
        until("it fails", || sender.retries("server") >= 1.0).await;
        sender.stop.send(true).unwrap();
        tokio::time::timeout(Duration::from_secs(60), sender.worker).await.expect("it ends").unwrap();
    }
    let receiver = Receiver::new();
    let (_server, port) = receiver.serve(0).await;
    // Another address, database and policy: the name is what counts.
    let uri = format!("influxdb:http://127.0.0.1:{port}?db=other&rp=short&resolution=1s&name=db");
    let run = Run::start(&uri, path, timing());
    run.sent().await;
    assert_eq!(order(&receiver.writes()), (0..10).collect::<Vec<_>>());
}

/// An aggregator as the tests need it: decodes and checks, and tells duplicates
/// by node, boot id and sequence.
struct Aggregator {
    receiver: Receiver,
    held: Arc<Mutex<Vec<(u64, u64)>>>,
    boot: Arc<Mutex<u8>>,
}

impl Aggregator {
    fn new() -> Aggregator {
        let held: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
        let boot = Arc::new(Mutex::new(1));
        let (list, id) = (Arc::clone(&held), Arc::clone(&boot));
        let mut known = BTreeSet::new();
        let mut last = 1;
        let receiver = Receiver::judging(move |seen| {
            assert_eq!(seen.line, "POST /api/v1/batches");
            assert_eq!(seen.header("content-type"), Some(batch::MEDIA_TYPE));
            let batch = batch::decode(&seen.body, batch::MAX_DECOMPRESSED).unwrap();
            assert!(batch.sent_ms().is_some() && batch.sequence() > 0);
            let boot = *id.lock().unwrap();
            if boot != last {
                (last, known) = (boot, BTreeSet::new());
            }
            if known.insert((batch.node().to_owned(), batch.boot_id(), batch.sequence())) {
                list.lock().unwrap().push((batch.sequence(), batch.time_ms()));
            }
            let answer = proto::Acknowledgement { boot_id: vec![boot; 16], sequence: batch.sequence() };
            Reply::Status(200, answer.encode_to_vec())
        });
        Aggregator { receiver, held, boot }
    }

    fn sequences(&self) -> Vec<u64> {
        self.held.lock().unwrap().iter().map(|(sequence, _)| *sequence).collect()
    }
}

#[tokio::test]
async fn aggregators_get_the_newest_first_and_are_filled_up_when_they_start_again() {
    let aggregator = Aggregator::new();
    let (_server, port) = aggregator.receiver.serve(0).await;
    // Nobody is there until everything is queued.
    aggregator.receiver.script([Reply::Header(503, "Retry-After", "1".to_owned())]);
    let run = Run::start(&format!("aggregator:http://127.0.0.1:{port}?resolution=1s&name=a"), None, timing());
    run.queue(0..1, 1);
    until("the first attempt", || run.retries("server") >= 1.0).await;
    run.queue(1..6, 1);
    run.sent().await;
    assert_eq!(aggregator.sequences(), [6, 5, 4, 3, 2, 1]);

    // It starts again after each step, and has forgotten what it had said it has.
    for step in 6..9 {
        *aggregator.boot.lock().unwrap() += 1;
        aggregator.held.lock().unwrap().clear();
        run.queue(step..step + 1, 1);
        let all: Vec<u64> = (1..=step + 1).rev().collect();
        until("it is filled up", || aggregator.sequences().len() == all.len()).await;
        run.sent().await;
        assert_eq!(aggregator.sequences(), all);
    }
    assert_eq!(run.figure("nodegauge_push_resent_total{sink=\"a\",reason=\"refill\"}"), 7.0 + 8.0 + 9.0);
}

/// A CA, a certificate for 127.0.0.1 and one for a client, as PEM files.
struct Papers {
    directory: tempfile::TempDir,
    server: (rcgen::Certificate, KeyPair),
    ca: rcgen::Certificate,
}

impl Papers {
    fn new() -> Papers {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let sign = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &issuer).unwrap(), key)
        };
        let client = sign("client");
        for (file, text) in [("ca", ca.pem()), ("cert", client.0.pem()), ("key", client.1.serialize_pem())] {
            std::fs::write(directory.path().join(file), text).unwrap();
        }
        Papers { directory, server: sign("127.0.0.1"), ca }
    }

    fn path(&self, file: &str) -> String {
        self.directory.path().join(file).display().to_string()
    }

    fn server(&self, ask: bool) -> ServerConfig {
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::try_from(self.server.1.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let config = match ask {
            true => config.with_client_cert_verifier(verifier),
            false => config.with_no_client_auth(),
        };
        config.with_single_cert(vec![self.server.0.der().clone()], key).unwrap()
    }
}

#[tokio::test]
async fn tls_believes_the_ca_named_and_shows_our_certificate() {
    let papers = Papers::new();
    let receiver = Receiver::new();
    let (_server, port): (Running, u16) = receiver.serve_tls(papers.server(true)).await;
    let url = format!("influxdb:https://127.0.0.1:{port}?resolution=1s");
    let (ca, cert, key) = (papers.path("ca"), papers.path("cert"), papers.path("key"));
    // Nobody has signed for it; it wants a certificate; the file is not there yet.
    let missing = papers.path("later");
    for options in ["", &format!("&ca={ca}"), "&insecure=true"] {
        let run = Run::start(&format!("{url}{options}"), None, timing());
        run.queue(0..1, 1);
        until("it is refused", || run.retries("unreachable") >= 2.0).await;
    }
    assert_eq!(receiver.seen().len(), 0);
    let run = Run::start(&format!("{url}&ca={missing}&cert={cert}&key={key}"), None, timing());
    run.queue(0..1, 1);
    until("the file is missing", || run.retries("credentials") >= 1.0).await;
    std::fs::copy(&ca, &missing).unwrap();
    run.sent().await;
    assert_eq!(order(&receiver.writes()), [0]);

    let (_plain, port) = receiver.serve_tls(papers.server(false)).await;
    let uri = format!("influxdb:https://127.0.0.1:{port}?resolution=1s&insecure=true");
    let run = Run::start(&uri, None, timing());
    run.queue(1..2, 1);
    run.sent().await;
}
