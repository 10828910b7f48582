//! Clients that want too much: the others, and the probes, are still served.
//! What takes many descriptors, and what it costs, is in tests/e2e/hostile.sh.

use std::io::{BufRead as _, ErrorKind, Write as _};
use std::time::Duration;

use nodegauge::expose::http::Limits;

use crate::served::{Client, POLICY, Server, eventually, limits};

/// A connection from another address of loopback than the usual one.
fn from_elsewhere(server: &Server) -> Client {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        socket.connect(server.address).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    Client(std::io::BufReader::new(stream))
}

fn crowded() -> Limits {
    Limits { connections: 8, per_peer: 4, probes: 2, probe: Duration::from_secs(5), ..limits() }
}

fn status(client: &mut Client, path: &str) -> u16 {
    client.send("GET", path, "");
    client.answer().status
}

#[test]
fn one_peer_has_a_share_and_probes_have_room() {
    let server = Server::with(2, POLICY, crowded());
    let mut held: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for client in &mut held {
        assert_eq!(status(client, "/metrics"), 200);
    }
    // One too many: probes only, and then it is closed.
    let mut probe = server.connect();
    probe.send("GET", "/healthz", "");
    let answer = probe.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    probe.closed_after();
    let mut crowded = server.connect();
    crowded.send("GET", "/metrics", "");
    let answer = crowded.answer();
    assert_eq!((answer.status, answer.line()), (503, "too many connections"));
    // Somebody else is served as ever.
    assert_eq!(status(&mut from_elsewhere(&server), "/metrics"), 200);
    assert_eq!(server.own("nodegauge_http_refused_total{reason=\"crowded\"}"), Some(1.0));
    // Who holds the places of the probes without asking loses them soon.
    let silent: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    eventually("the places of the probes given back", || {
        status(&mut from_elsewhere(&server), "/readyz") == 200 && server.lost("slow") >= 2.0
    });
    drop(silent);
}

#[test]
fn one_peer_has_a_rate() {
    let server = Server::with(2, POLICY, Limits { rate: 1, ..limits() });
    let mut client = server.connect();
    let mut statuses = Vec::new();
    for _ in 0..200 {
        client.send("GET", "/nothing", "");
        let answer = client.answer();
        statuses.push(answer.status);
        if answer.status == 429 {
            assert_eq!((answer.header("retry-after"), answer.header("connection")), ("1", "close"));
            break;
        }
    }
    assert!(statuses.len() > 2, "less than the allowance: {statuses:?}");
    assert_eq!(statuses.last(), Some(&429), "no end: {statuses:?}");
    let mut client = server.connect();
    assert_eq!(status(&mut client, "/healthz"), 200, "probes are not counted");
    assert_eq!(status(&mut from_elsewhere(&server), "/metrics"), 200);
    assert!(server.own("nodegauge_http_refused_total{reason=\"rate\"}") >= Some(1.0));
}

#[test]
fn nothing_of_a_request_comes_back_as_a_header() {
    let server = Server::with(2, POLICY, limits());
    for path in ["/%0d%0aset-cookie:%20a=b", "/a%0d%0a%0d%0a<script>", "/x?%0d%0aset-cookie:a=b", "/\u{e9}"] {
        let answer = server.get(path, "x-forwarded-host: evil\r\norigin: http://evil\r\n");
        assert!([404, 400].contains(&answer.status), "{path}: {}", answer.status);
        let headers = format!("{answer:?}").to_lowercase();
        assert!(!headers.contains("set-cookie: ") && !headers.contains("evil"), "{path}: {answer:?}");
        assert_eq!(answer.header("set-cookie"), "");
        if answer.status == 404 {
            assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        }
    }
    // Lines that are broken in ways a proxy in front may read otherwise.
    for request in [
        b"GET /metrics HTTP/1.1\r\nhost: a\r\nx: a\x00b\r\n\r\n".as_slice(),
        b"GET /metrics HTTP/1.1\r\nhost : a\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"GET /metrics\x0bx HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut client = server.connect();
        let _ = client.0.get_mut().write_all(request);
        let mut line = String::new();
        match client.0.read_line(&mut line) {
            Ok(_) => assert!(line.is_empty() || line.contains(" 400 "), "{request:?}: {line}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    assert_eq!(server.get("/metrics", "").status, 200);
}

#[test]
fn a_giant_body_is_not_read() {
    let server = Server::with(2, POLICY, limits());
    let mut client = server.connect();
    client.send("POST", "/metrics", &format!("content-length: {}\r\n", 1_u64 << 40));
    let chunk = vec![0; 1 << 20];
    let mut sent = 0;
    // It ends when the server has closed; the sockets' buffers take some.
    while sent < 64 && client.0.get_mut().write_all(&chunk).is_ok() {
        sent += 1;
    }
    assert!(sent < 64, "64 MiB were taken");
    assert_eq!(server.own("nodegauge_http_refused_total{reason=\"body\"}"), Some(1.0));
    assert_eq!(server.get("/healthz", "").status, 200);
}
