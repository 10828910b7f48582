//! The listener against real sockets, with snapshots published by hand.

#![allow(clippy::disallowed_methods, reason = "clients that are slow on purpose sleep")]

use std::io::{BufRead as _, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nodegauge::expose::http::Limits;
use nodegauge::expose::routes::Policy;
use nodegauge::expose::{Format, Options, Renderer, View};
use nodegauge::publish::Request;
use nodegauge::snapshot::{Hierarchy, Kinds, Snapshot};

use crate::data;
use crate::served::{Client, POLICY, Server, get, limits};

const GZIP: &str = "accept-encoding: gzip\r\n";

fn unzip(body: &[u8]) -> Vec<u8> {
    let mut decoder = flate2::bufread::GzDecoder::new(body);
    let mut text = Vec::new();
    decoder.read_to_end(&mut text).unwrap();
    assert!(decoder.into_inner().is_empty(), "more than one gzip member");
    text
}

fn rendered(snapshot: &Snapshot, format: Format) -> Vec<u8> {
    let mut text = Vec::new();
    let options = Options { format, view: View::All, kinds: POLICY.kinds, timestamps: POLICY.timestamps };
    let mut sink = |chunk: &[u8]| {
        text.extend_from_slice(chunk);
        Ok::<(), std::convert::Infallible>(())
    };
    Renderer::new(options).render(snapshot, &mut sink).unwrap();
    text
}

#[test]
fn identity_and_gzip_carry_the_rendered_text() {
    let server = Server::start(POLICY, limits());
    // Several chunks of 64 KiB.
    let expected = rendered(&server.publish(1, 50), Format::Prometheus);
    assert!(expected.len() > 300_000);
    let plain = server.get("/metrics", "");
    assert_eq!((plain.status, plain.header("content-encoding")), (200, ""));
    assert_eq!(plain.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert!(plain.body == expected, "identity body differs");
    let gzip = server.get("/metrics", GZIP);
    assert_eq!((gzip.status, gzip.header("content-encoding")), (200, "gzip"));
    assert_eq!(gzip.header("vary"), "accept, accept-encoding");
    assert!(unzip(&gzip.body) == expected, "gzip body differs");
    let refused = server.get("/metrics", "accept-encoding: gzip;q=0\r\n");
    assert_eq!(refused.header("content-encoding"), "");
}

#[test]
fn openmetrics_by_negotiation() {
    let server = Server::start(POLICY, limits());
    let expected = rendered(&server.publish(1, 3), Format::OpenMetrics);
    // What Prometheus sends.
    let accept = "accept: application/openmetrics-text;version=1.0.0;q=0.8,\
        text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n";
    for encoding in ["", GZIP] {
        let answer = server.get("/metrics", &format!("{accept}{encoding}"));
        assert_eq!(
            answer.header("content-type"),
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        );
        let body = if encoding.is_empty() { answer.body } else { unzip(&answer.body) };
        assert!(body == expected && body.ends_with(b"# EOF\n"));
    }
    let own = server.get("/metrics/self", accept);
    assert_eq!(own.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(own.text().ends_with("# EOF\n"));
    let own = server.get("/metrics/self", "");
    assert_eq!(own.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert!(own.text().contains("# TYPE nodegauge_scrapes_total counter\n"), "{}", own.text());
}

#[test]
fn head_has_the_headers_and_no_body() {
    let server = Server::with(3, POLICY, limits());
    let mut client = server.connect();
    for path in ["/", "/metrics", "/metrics/self", "/healthz", "/nothing"] {
        client.send("HEAD", path, "");
        let head = client.head();
        // Were there a body, it would stand where the next answer begins.
        client.send("GET", path, "");
        let get = client.answer();
        assert_eq!(
            (head.status, head.header("content-type")),
            (get.status, get.header("content-type")),
            "{path}"
        );
        assert!(!get.body.is_empty());
    }
    assert_eq!(server.own("nodegauge_http_connections "), Some(1.0));
}

#[test]
fn a_body_is_compressed_once_and_shared() {
    let server = Server::with(300, POLICY, limits());
    let renders = |format: &str| {
        let series =
            format!("nodegauge_render_duration_seconds_count{{format=\"{format}\",encoding=\"gzip\"}}");
        server.own(&series)
    };
    let address = server.address;
    let scrapers: Vec<_> =
        (0..8).map(|_| thread::spawn(move || get(address, "/metrics", GZIP).body)).collect();
    let bodies: Vec<Vec<u8>> = scrapers.into_iter().map(|s| s.join().unwrap()).collect();
    assert!(bodies.iter().all(|b| *b == bodies[0]), "scrapers got different bodies");
    assert_eq!(renders("text"), Some(1.0));
    // The other text and the next snapshot are bodies of their own.
    let openmetrics = server.get("/metrics", &format!("{GZIP}accept: application/openmetrics-text\r\n"));
    assert!(openmetrics.body != bodies[0] && renders("openmetrics") == Some(1.0));
    assert!(server.get("/metrics", GZIP).body == bodies[0]);
    server.publish(2, 299);
    assert!(server.get("/metrics", GZIP).body != bodies[0]);
    assert_eq!(renders("text"), Some(2.0));
}

#[test]
fn a_superseded_snapshot_is_let_go() {
    let server = Server::start(POLICY, limits());
    let old = Arc::downgrade(&server.publish(1, 50));
    assert_eq!(server.get("/metrics", GZIP).status, 200);
    assert_eq!(server.get("/metrics", "").status, 200);
    server.publish(2, 50);
    let deadline = Instant::now() + Duration::from_secs(5);
    while old.strong_count() > 0 {
        assert!(Instant::now() < deadline, "the reader thread could not use the snapshot again");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn kinds_only_a_kubelet_shows_are_read_when_somebody_asks() {
    let policy = Policy { on_request: Kinds::KUBELET, ..POLICY };
    let server = Server::with(2, policy, limits());
    assert_eq!(server.get("/metrics", "").status, 200);
    assert_eq!(server.publisher.requests.try_recv().ok(), None, "/metrics needs nothing more");
    let address = server.address;
    let scraper = thread::spawn(move || get(address, "/metrics/cadvisor", "").body);
    let asked = server.publisher.requests.recv_timeout(Duration::from_secs(5));
    assert_eq!(asked, Ok(Request::Fresh(Kinds::KUBELET)));
    let mut snapshot = crate::data::snapshot(Hierarchy::V2, 2);
    snapshot.kinds = Kinds::KUBELET;
    server.publisher.publish(Arc::new(snapshot));
    assert!(!scraper.join().unwrap().is_empty());
    assert_eq!(server.get("/metrics/cadvisor", GZIP).status, 200);
    assert_eq!(server.publisher.requests.try_recv().ok(), None, "they were read already");
}

#[test]
fn a_fresh_tick_is_asked_for_only_when_the_last_is_too_old() {
    let policy = Policy { max_age: Duration::from_millis(500), ..POLICY };
    let server = Server::with(2, policy, limits());
    assert_eq!(server.get("/metrics", "").status, 200);
    assert_eq!(server.publisher.requests.try_recv().ok(), None, "asked although the last was young");
    thread::sleep(Duration::from_millis(600));
    let address = server.address;
    let scraper = thread::spawn(move || get(address, "/metrics", "").body);
    let asked = server.publisher.requests.recv_timeout(Duration::from_secs(5));
    assert_eq!(asked, Ok(Request::Fresh(Kinds::NONE)));
    let expected = rendered(&server.publish(2, 7), Format::Prometheus);
    assert!(scraper.join().unwrap() == expected, "not the fresh one");
    // cAdvisor's way of asking for one that is fresher than others get.
    let patient = Policy { max_age: Duration::from_secs(3600), ..POLICY };
    let server = Server::with(2, patient, limits());
    let (address, path) = (server.address, "/metrics?max_age=0s");
    let scraper = thread::spawn(move || get(address, path, "").body);
    let asked = server.publisher.requests.recv_timeout(Duration::from_secs(5));
    assert_eq!(asked, Ok(Request::Fresh(Kinds::NONE)));
    let expected = rendered(&server.publish(2, 7), Format::Prometheus);
    assert!(scraper.join().unwrap() == expected, "not the fresh one");
    assert_eq!(server.get("/metrics?max_age=1h", "").status, 200);
    assert_eq!(server.get("/metrics?max_age=soon", "").status, 400);
    assert_eq!(server.publisher.requests.try_recv().ok(), None, "asked although the last was young");
    // A reader thread that does not answer costs the patience, not the scrape.
    let impatient = Policy { patience: Duration::from_millis(200), max_age: Duration::ZERO, ..POLICY };
    let server = Server::with(2, impatient, limits());
    let began = Instant::now();
    assert_eq!(server.get("/metrics", "").status, 200);
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[test]
fn health_follows_the_newest_snapshot() {
    let policy = Policy {
        interval: Duration::from_millis(100),
        max_age: Duration::from_secs(3600),
        patience: Duration::from_millis(50),
        ..POLICY
    };
    let server = Server::start(policy, limits());
    let states = || ["/healthz", "/readyz", "/metrics"].map(|path| server.get(path, "").status);
    assert_eq!(states(), [200, 503, 503], "before the first snapshot");
    server.publish(1, 2);
    assert_eq!(states(), [200, 200, 200]);
    // Three intervals and five seconds.
    let old = Instant::now().checked_sub(Duration::from_millis(5400)).unwrap();
    let stale = Snapshot { sequence: 2, monotonic: old, ..data::snapshot(Hierarchy::V2, 2) };
    server.publisher.publish(Arc::new(stale));
    assert_eq!(states(), [503, 503, 200], "stale figures are better than none, but said to be");
    let why = server.get("/healthz", "");
    assert!(why.line().starts_with("the last collection was 5."), "{:?}", why.text());
}

#[test]
fn what_is_not_there_and_what_is_not_accepted() {
    let server = Server::with(2, POLICY, limits());
    for path in [
        "/nothing",
        "/metrics/",
        "/metrics/../../etc/passwd",
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//metrics",
        "/metrics/self/../self",
        "/metrics%00",
    ] {
        let answer = server.get(path, "");
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.line().ends_with("/ names what there is"), "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "NONSENSE"] {
        let mut client = server.connect();
        client.send(method, "/metrics", "");
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("allow")), (405, "GET,HEAD"), "{method}");
        assert_eq!(answer.line(), format!("{method} is not accepted; accepted: GET, HEAD"));
    }
    for body in ["content-length: 5\r\n\r\nhello", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"] {
        let mut client = server.connect();
        client.send("GET", "/metrics", body);
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (413, "close"), "{body:?}");
        assert_eq!(answer.line(), "request bodies are not accepted");
        client.closed_after();
    }
    assert_eq!(server.get("/metrics?kind=cpu", "").status, 200, "a query is ignored");
}

#[test]
fn a_head_too_large_or_malformed_is_refused() {
    let server = Server::with(2, POLICY, limits());
    let giant = format!("x: {}\r\n", "a".repeat(20 << 10));
    let many = "x: y\r\n".repeat(200);
    let long_path = format!("/{}", "a".repeat(20 << 10));
    for (path, headers) in [("/metrics", giant.as_str()), ("/metrics", &many), (&long_path, "")] {
        let mut client = server.connect();
        // The server may close before it has read all.
        let _ = client.0.get_mut().write_all(format!("GET {path} HTTP/1.1\r\n{headers}\r\n").as_bytes());
        let mut status = String::new();
        match client.0.read_line(&mut status) {
            Ok(_) => assert!(status.contains(" 431 ") || status.contains(" 414 "), "{status:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    let mut client = server.connect();
    client.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is TLS\r\n\r\n");
    assert_eq!(client.head().status, 400);
    assert!(server.lost("protocol") >= 3.0, "{}", server.telemetry.encode(true));
    assert_eq!(server.get("/healthz", "").status, 200);
}

#[test]
fn a_slow_loris_is_cut_and_hinders_nobody() {
    let mut limits = limits();
    limits.deadlines.head = Duration::from_millis(400);
    let server = Server::with(2, POLICY, limits);
    let mut loris = server.connect();
    let mut silent = server.connect();
    let began = Instant::now();
    loris.write(b"GET /metrics HTTP/1.1\r\n");
    while began.elapsed() < Duration::from_secs(10) {
        if loris.0.get_mut().write_all(b"x-a: b\r\n").is_err() {
            break;
        }
        assert_eq!(server.get("/healthz", "").status, 200);
        thread::sleep(Duration::from_millis(50));
    }
    loris.closed_after();
    silent.closed_after();
    assert!(began.elapsed() < Duration::from_secs(3), "cut after {:?}", began.elapsed());
    assert_eq!(server.lost("slow"), 2.0);
}

#[test]
fn an_idle_connection_is_kept_longer_than_a_head_may_take() {
    let mut limits = limits();
    limits.deadlines.head = Duration::from_millis(200);
    limits.deadlines.idle = Duration::from_millis(900);
    let server = Server::with(2, POLICY, limits);
    let mut client = server.connect();
    for _ in 0..2 {
        client.send("GET", "/healthz", "");
        assert_eq!(client.answer().status, 200);
        thread::sleep(Duration::from_millis(500));
    }
    let idle = client.closed_after() + Duration::from_millis(500);
    assert!((Duration::from_millis(850)..Duration::from_secs(3)).contains(&idle), "closed after {idle:?}");
}

#[test]
fn a_reader_that_stops_is_cut_and_frees_its_render() {
    let mut limits = limits();
    limits.deadlines.stall = Duration::from_millis(500);
    let policy = Policy { patience: Duration::from_millis(100), ..POLICY };
    // More than the sockets' buffers hold.
    let server = Server::with(600, policy, limits);
    let mut stuck: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for client in &mut stuck {
        client.send("GET", "/metrics", "");
        assert_eq!(client.head().status, 200);
    }
    // All streams are taken; compressed bodies are not their hostages.
    let busy = server.get("/metrics", "");
    assert_eq!((busy.status, busy.line()), (503, "busy with other scrapes"));
    assert_eq!(server.get("/metrics", GZIP).status, 200);
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.lost("slow") < 3.0 {
        assert!(Instant::now() < deadline, "not cut: {}", server.telemetry.encode(true));
        thread::sleep(Duration::from_millis(20));
    }
    for client in &mut stuck {
        assert!(client.chunks().is_err(), "a cut body must not look whole");
    }
    assert_eq!(server.get("/metrics", "").status, 200, "a render was not given back");
}

#[test]
fn three_hundred_connections() {
    let server = Server::with(2, POLICY, Limits { per_peer: 256, probes: 0, ..limits() });
    let mut clients: Vec<Client> = (0..300).map(|_| server.connect()).collect();
    let statuses: Vec<u16> = clients
        .iter_mut()
        .map(|client| {
            // A refused one has its answer already, and may not take the request.
            let _ = client.0.get_mut().write_all(b"GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n");
            let mut line = String::new();
            match client.0.read_line(&mut line) {
                Ok(0) | Err(_) => 503,
                Ok(_) => line.split(' ').nth(1).unwrap().parse().unwrap(),
            }
        })
        .collect();
    let served = statuses.iter().filter(|s| **s == 200).count();
    assert_eq!((served, statuses.len() - served), (256, 44), "{statuses:?}");
    assert_eq!(server.lost("limit"), 44.0);
    drop(clients);
    let deadline = Instant::now() + Duration::from_secs(5);
    while server.own("nodegauge_http_connections ") != Some(0.0) {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server.get("/metrics", "").status, 200);
}

#[test]
fn when_few_connections_are_left_none_is_kept_idle() {
    let server = Server::with(2, POLICY, Limits { connections: 8, ..limits() });
    let mut clients: Vec<Client> = (0..7).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET", "/healthz", "");
    }
    let kept = clients.iter_mut().filter_map(|c| (c.answer().header("connection") != "close").then_some(c));
    assert!(kept.count() <= 6);
    assert_eq!(server.get("/healthz", "").status, 200);
}

#[test]
fn a_stop_lets_requests_in_flight_end() {
    let mut server = Server::with(600, POLICY, limits());
    let mut idle = server.connect();
    idle.send("GET", "/healthz", "");
    assert_eq!(idle.answer().status, 200);
    let mut slow = server.connect();
    slow.send("GET", "/metrics", "");
    assert_eq!(slow.head().status, 200);
    let address = server.address;
    let reader = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        // Nobody new comes in while it drains.
        assert!(TcpStream::connect(address).is_err());
        slow.chunks()
    });
    let began = Instant::now();
    assert!(server.stop(), "not drained");
    assert!(began.elapsed() >= Duration::from_millis(300), "did not wait");
    assert!(reader.join().unwrap().is_ok(), "cut while it was sent");
    idle.closed_after();
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let mut server = Server::with(600, POLICY, Limits { drain: Duration::from_millis(300), ..limits() });
    let mut stuck = server.connect();
    stuck.send("GET", "/metrics", "");
    assert_eq!(stuck.head().status, 200);
    let began = Instant::now();
    assert!(!server.stop(), "claims to have drained");
    assert!(began.elapsed() < Duration::from_secs(5));
}
