//! `POST /api/v1/batches` over the wire: who may push, what is bounded, and what
//! is answered.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use nodegauge::aggregate::ingest::Ingest;
use nodegauge::aggregate::model::{Model, Options};
use nodegauge::aggregator::{receive, routes};
use nodegauge::auth::reviews::Times;
use nodegauge::auth::{Guard, How, Reviews, Tokens, rules};
use nodegauge::expose::http::Site;
use nodegauge::push::batch::proto;
use nodegauge::telemetry::Telemetry;
use prost::Message as _;

use crate::ingest::{MINUTE, Sender};
use crate::served::{Answer, Client, Listening, eventually, limits, own};
use crate::standin::apiserver::ApiServer;

const TOKEN: &str = "a-token-of-the-agents";

pub(crate) struct Aggregator {
    pub(crate) listening: Listening,
    pub(crate) ingest: Arc<Ingest>,
    telemetry: Arc<Telemetry>,
}

impl Aggregator {
    pub(crate) fn start(guard: impl FnOnce(Arc<Telemetry>) -> Guard + Send + 'static) -> Aggregator {
        Aggregator::limited(receive::Limits::default(), |site| site, guard)
    }

    pub(crate) fn open(limits: receive::Limits) -> Aggregator {
        Aggregator::limited(
            limits,
            |site| site,
            |telemetry| Guard::new(rules::AGGREGATOR, How::Open, None, telemetry),
        )
    }

    fn limited(
        bounds: receive::Limits,
        change: impl FnOnce(Site) -> Site,
        guard: impl FnOnce(Arc<Telemetry>) -> Guard + Send + 'static,
    ) -> Aggregator {
        let ingest = Arc::new(Ingest::new(Arc::new(Model::new(Options::default())), 100));
        let telemetry = Telemetry::of_aggregator(Arc::clone(&ingest));
        let site = change(routes::site(Arc::clone(&ingest), Arc::clone(&telemetry), bounds));
        let of_guard = Arc::clone(&telemetry);
        let listening = Listening::start(site, limits(), move || guard(of_guard));
        Aggregator { listening, ingest, telemetry }
    }

    fn post_to(&self, path: &str, headers: &str, body: &[u8]) -> Answer {
        self.send(path, &format!("content-type: application/vnd.nodegauge.batch\r\n{headers}"), body)
    }

    /// Posts a body of any kind.
    pub(crate) fn send(&self, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut client = Client::to(self.listening.address);
        client.send("POST", path, &format!("content-length: {}\r\n{headers}", body.len()));
        client.write(body);
        client.answer()
    }

    fn post(&self, headers: &str, body: &[u8]) -> Answer {
        self.post_to(receive::PATH, headers, body)
    }

    fn pushed(&self, token: &str, body: &[u8]) -> u16 {
        self.post(&format!("authorization: Bearer {token}\r\n"), body).status
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        crate::served::get(self.listening.address, path, "")
    }

    fn refused(&self, reason: &str) -> f64 {
        let series = format!("nodegauge_ingest_refused_batches_total{{reason=\"{reason}\"}}");
        own(&self.telemetry, &series).unwrap()
    }
}

pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A batch of the last full minute, sent now.
fn batch(node: &str, sequence: u64) -> Vec<u8> {
    let now = now_ms();
    Sender::new(node).bytes(now / MINUTE * MINUTE, now, sequence)
}

#[test]
fn what_is_held_is_acknowledged_also_the_second_time() {
    let aggregator = Aggregator::open(receive::Limits::default());
    let body = batch("a", 7);
    for _ in 0..2 {
        let answer = aggregator.post("", &body);
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-protobuf"));
        let held = proto::Acknowledgement::decode(answer.body.as_slice()).unwrap();
        assert_eq!((held.boot_id, held.sequence), (aggregator.ingest.boot_id().to_vec(), 7));
    }
    let series = |name: &str| own(&aggregator.telemetry, name).unwrap();
    assert_eq!(series("nodegauge_ingest_batches_total"), 1.0);
    assert_eq!(series("nodegauge_ingest_duplicate_batches_total"), 1.0);
    assert_eq!(series("nodegauge_ingest_values_total"), 2.0);
    assert_eq!(series("nodegauge_ingest_bytes_total"), body.len() as f64);
    assert_eq!(series("nodegauge_nodes{state=\"live\"}"), 1.0);
    let ahead = series("nodegauge_node_clock_ahead_seconds{node=\"a\"}");
    assert!((-60.0..=0.0).contains(&ahead), "{ahead}");
    let own = aggregator.get("/metrics");
    assert!(String::from_utf8(own.body).unwrap().contains("nodegauge_ingest_batches_total 1"));
    assert_eq!(aggregator.get("/readyz").status, 200);
    assert_eq!(aggregator.get("/healthz").status, 200);
    assert_eq!(aggregator.get("/nothing").status, 404);
    let wrong = aggregator.get(receive::PATH);
    assert_eq!((wrong.status, wrong.header("allow")), (405, "POST"));
}

#[test]
fn what_is_refused_says_why_and_keeps_the_connection() {
    let aggregator = Aggregator::open(receive::Limits::default());
    let mut client = Client::to(aggregator.listening.address);
    let mut post = |kind: &str, body: &[u8]| {
        let length = body.len();
        client.send("POST", receive::PATH, &format!("content-type: {kind}\r\ncontent-length: {length}\r\n"));
        client.write(body);
        client.answer()
    };
    let kind = "application/vnd.nodegauge.batch";
    let good = batch("a", 1);
    let mut version = good.clone();
    version[15] = 9;
    for (kind, body, status, word) in [
        (kind, &b"hello"[..], 400, "not a batch"),
        (kind, b"", 400, "not a batch"),
        (kind, &version, 415, "version 9"),
        ("application/json", &good, 415, "content-type"),
        (kind, &good, 200, ""),
    ] {
        let answer = post(kind, body);
        assert_eq!(answer.status, status);
        assert!(status == 200 || answer.line().contains(word), "{}", answer.line());
    }
    assert_eq!((aggregator.refused("malformed"), aggregator.refused("version")), (2.0, 2.0));
    // No other path takes a body.
    assert_eq!(aggregator.post_to("/metrics", "", &good).status, 413);
}

#[test]
fn bodies_are_bounded_in_size_and_number() {
    let bounds = receive::Limits {
        body: 64 << 10,
        in_flight: 128 << 10,
        patience: Duration::from_secs(3600),
        queue: Duration::from_millis(50),
        ..receive::Limits::default()
    };
    let aggregator = Aggregator::open(bounds);
    let head = |client: &mut Client, rest: &str| {
        let kind = "content-type: application/vnd.nodegauge.batch\r\n";
        client.send("POST", receive::PATH, &format!("{kind}{rest}"));
    };
    let mut said = Client::to(aggregator.listening.address);
    head(&mut said, "content-length: 100000000\r\n");
    assert_eq!(said.answer().status, 413, "before the body comes");
    let mut chunked = Client::to(aggregator.listening.address);
    head(&mut chunked, "transfer-encoding: chunked\r\n");
    chunked.write(&[&b"14000\r\n"[..], &[0; 0x14000], b"\r\n"].concat());
    assert_eq!(chunked.answer().status, 413);
    assert_eq!(aggregator.refused("too_large"), 2.0);
    // Two that stop half-way take all the room there is, until they are gone.
    let mut slow: Vec<Client> = (0..2).map(|_| Client::to(aggregator.listening.address)).collect();
    for client in &mut slow {
        head(client, "content-length: 65536\r\n");
        client.write(b"x");
    }
    eventually("there is no room", || {
        let answer = aggregator.post("", &batch("a", 1));
        answer.status == 503 && answer.header("retry-after") == "5"
    });
    assert!(aggregator.refused("busy") >= 1.0);
    drop(slow);
    eventually("there is room again", || aggregator.post("", &batch("a", 2)).status == 200);
    assert_eq!(aggregator.refused("slow"), 2.0);
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let patience = Duration::from_millis(200);
    let aggregator = Aggregator::open(receive::Limits { patience, ..receive::Limits::default() });
    let mut client = Client::to(aggregator.listening.address);
    let kind = "content-type: application/vnd.nodegauge.batch\r\n";
    client.send("POST", receive::PATH, &format!("{kind}content-length: 65536\r\n"));
    client.write(b"x");
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("retry-after")), (503, "5"));
    assert_eq!(answer.line(), "the body took longer than 200ms");
    assert_eq!(aggregator.refused("slow"), 1.0);
}

#[test]
fn health_is_that_steps_close_and_half_of_the_nodes_report() {
    let aggregator = Aggregator::open(receive::Limits::default());
    let now = now_ms();
    let minutes_ago = |minutes: u64| now - minutes * MINUTE;
    let health = || {
        let answer = aggregator.get("/healthz");
        (answer.status, answer.line().to_owned())
    };
    let push = |node: &str, sequence: u64, at: u64| {
        let bytes = Sender::new(node).bytes(at / MINUTE * MINUTE, at, sequence);
        aggregator.ingest.take(&bytes, None, at).unwrap();
    };
    let model = aggregator.ingest.model();
    model.begin(minutes_ago(2));
    assert_eq!(health().0, 200, "it has begun only");
    model.begin(minutes_ago(20));
    let (status, line) = health();
    assert_eq!(
        (status, line.starts_with("there has been no step since the beginning, 12")),
        (503, true),
        "{line}"
    );
    for node in ["a", "b", "c"] {
        push(node, 1, minutes_ago(10));
    }
    model.tick(minutes_ago(9));
    let (status, line) = health();
    assert_eq!((status, line.starts_with("the newest step ended ")), (503, true), "{line}");
    push("a", 2, minutes_ago(1));
    model.tick(now);
    assert_eq!(health(), (503, "1 of 3 nodes report, under half".to_owned()));
    push("b", 2, now);
    assert_eq!(health(), (200, "ok".to_owned()));
    let nodes = |state: &str| own(&aggregator.telemetry, &format!("nodegauge_nodes{{state=\"{state}\"}}"));
    assert_eq!((nodes("live"), nodes("silent")), (Some(2.0), Some(1.0)));
}

#[test]
fn beyond_loopback_everybody_may_read_but_not_push() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    std::fs::write(&file, TOKEN).unwrap();
    let aggregator = Aggregator::start(move |telemetry| {
        let tokens = How::Token(Some(Box::new(Tokens::open(file).unwrap())));
        Guard::new(rules::AGGREGATOR, How::Open, None, telemetry).pushed_to_by(Some(tokens))
    });
    assert_eq!(aggregator.get("/metrics").status, 200);
    let refused = aggregator.post("", &batch("a", 1));
    assert_eq!((refused.status, refused.header("connection")), (401, "close"));
    assert_eq!(aggregator.pushed("a-token-of-somebody-else", &batch("a", 1)), 401);
    assert!(aggregator.ingest.model().nodes().is_empty());
    assert_eq!(aggregator.pushed(TOKEN, &batch("a", 1)), 200);
}

#[test]
fn nobody_can_push_where_nothing_tells_agents_apart() {
    let aggregator = Aggregator::start(|telemetry| {
        Guard::new(rules::AGGREGATOR, How::Open, None, telemetry).pushed_to_by(Some(How::Token(None)))
    });
    assert_eq!(aggregator.pushed(TOKEN, &batch("a", 1)), 401);
    assert_eq!(aggregator.get("/metrics").status, 200);
}

#[test]
fn a_detour_to_the_route_is_no_push() {
    // As if another module routed the same handler under its own path.
    let detour = |site: Site| Site {
        router: Router::new().nest("/detour", site.router),
        bodies: &["/detour/api/v1/batches"],
        paths: Default::default(),
        ..site
    };
    let aggregator = Aggregator::limited(receive::Limits::default(), detour, |telemetry| {
        Guard::new(rules::AGGREGATOR, How::Open, None, telemetry).pushed_to_by(Some(How::Token(None)))
    });
    let answer = aggregator.post_to("/detour/api/v1/batches", "", &batch("a", 1));
    assert_eq!((answer.status, aggregator.refused("foreign_node")), (403, 1.0));
}

#[test]
fn a_kubernetes_token_is_good_for_its_own_node() {
    let api = ApiServer::start();
    let (user, audience) = ("system:serviceaccount:nodegauge:agent", "nodegauge");
    api.knows_bound("token-of-node-a", user, audience, "a");
    api.knows_bound("token-of-a-stranger", "system:serviceaccount:default:default", audience, "a");
    api.knows("token-for-the-api-server", user, &[]);
    api.allows(user, receive::PATH);
    let of_guard = api.clone();
    let aggregator = Aggregator::start(move |telemetry| {
        let reviews = Reviews::new(of_guard.client(), String::new(), Times::default()).unwrap();
        Guard::new(rules::AGGREGATOR, How::Kubernetes(Box::new(reviews)), None, telemetry)
    });
    assert_eq!(aggregator.pushed("token-of-node-a", &batch("a", 1)), 200);
    let asked = api.asked();
    assert_eq!(asked[0]["spec"]["audiences"], serde_json::json!(["nodegauge"]));
    let attributes = &asked[1]["spec"]["nonResourceAttributes"];
    assert_eq!(*attributes, serde_json::json!({"path": "/api/v1/batches", "verb": "post"}));
    assert_eq!(asked.len(), 2, "no node is asked about");
    let foreign = aggregator.post("authorization: Bearer token-of-node-a\r\n", &batch("b", 2));
    assert_eq!((foreign.status, foreign.line()), (403, "\"a\" may not speak for node \"b\""));
    assert_eq!(aggregator.pushed("token-of-a-stranger", &batch("a", 3)), 403);
    assert_eq!(aggregator.pushed("token-for-the-api-server", &batch("a", 4)), 401);
    assert_eq!(aggregator.pushed("token-nobody-has", &batch("a", 5)), 401);
    // A token of the agents is none for reading.
    let headers = "authorization: Bearer token-of-node-a\r\n";
    assert_eq!(crate::served::get(aggregator.listening.address, "/metrics", headers).status, 401);
    assert_eq!(aggregator.ingest.counts().batches, 1);
}
