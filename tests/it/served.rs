//! A listener on a thread of its own, with the publisher's end in the test's
//! hands, and clients of it.

#![allow(clippy::disallowed_methods, reason = "what is noticed sooner or later is waited for")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nodegauge::auth::{Guard, How, rules};
use nodegauge::expose::http::{self, Limits, Site};
use nodegauge::expose::routes::{App, Policy};
use nodegauge::history::History;
use nodegauge::publish::{self, Publisher};
use nodegauge::snapshot::{Hierarchy, Kinds, Snapshot};
use nodegauge::telemetry::Telemetry;

use crate::data;

pub(crate) const POLICY: Policy = Policy {
    on_request: Kinds::NONE,
    kinds: Kinds::DEFAULT,
    timestamps: false,
    // Snapshots made by hand stay as they are unless a test says otherwise.
    max_age: Duration::from_secs(3600),
    interval: Duration::from_secs(10),
    patience: Duration::from_secs(2),
};

pub(crate) fn limits() -> Limits {
    Limits::new(20_000)
}

/// A server on its own thread, with the publisher's end in the test's hands.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) publisher: Publisher,
    pub(crate) telemetry: Arc<Telemetry>,
    listening: Listening,
}

/// Any site, on a thread of its own.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<bool>>,
}

impl Listening {
    /// The guard is made on its own event loop.
    pub(crate) fn start(
        site: impl Into<Site> + Send + 'static,
        limits: Limits,
        guard: impl FnOnce() -> Guard + Send + 'static,
    ) -> Listening {
        Listening::made(limits, move || (site.into(), Arc::new(guard())))
    }

    /// Both the site and its guard are made on its own event loop.
    pub(crate) fn made(
        limits: Limits,
        make: impl FnOnce() -> (Site, Arc<Guard>) + Send + 'static,
    ) -> Listening {
        let listener = http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let stop = async { stopped.await.unwrap_or(()) };
            let serve = async {
                let (site, guard) = make();
                http::serve(listener, site, guard, limits, stop).await.unwrap()
            };
            let drained = runtime.block_on(serve);
            runtime.shutdown_timeout(Duration::from_secs(1));
            drained
        });
        Listening { address, stop: Some(stop), thread: Some(thread) }
    }

    /// Stops; whether all connections ended in time.
    pub(crate) fn stop(&mut self) -> bool {
        self.stop.take().unwrap().send(()).unwrap();
        self.thread.take().unwrap().join().unwrap()
    }
}

/// The value of a series of `telemetry`.
pub(crate) fn own(telemetry: &Telemetry, series: &str) -> Option<f64> {
    let text = telemetry.encode(true);
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

impl Server {
    pub(crate) fn start(policy: Policy, limits: Limits) -> Server {
        Server::guarded(policy, limits, |telemetry| Guard::new(rules::AGENT, How::Open, None, telemetry))
    }

    /// One whose guard is made on its own event loop.
    pub(crate) fn guarded(
        policy: Policy,
        limits: Limits,
        guard: impl FnOnce(Arc<Telemetry>) -> Guard + Send + 'static,
    ) -> Server {
        let (mut publisher, snapshots) = publish::channel();
        let telemetry = Telemetry::new();
        let history = Arc::new(History::new(Duration::from_secs(120)));
        let recorder = Arc::clone(&history);
        publisher.tap(Box::new(move |snapshot| recorder.record(snapshot)));
        let app = App::new("node-1", policy, snapshots, history, Arc::clone(&telemetry));
        let own = Arc::clone(&telemetry);
        let listening = Listening::start(app, limits, move || guard(own));
        Server { address: listening.address, publisher, telemetry, listening }
    }

    /// One that has published a snapshot of `cgroups` cgroups already.
    pub(crate) fn with(cgroups: usize, policy: Policy, limits: Limits) -> Server {
        let server = Server::start(policy, limits);
        server.publish(1, cgroups);
        server
    }

    pub(crate) fn publish(&self, sequence: u64, cgroups: usize) -> Arc<Snapshot> {
        let snapshot = Arc::new(Snapshot { sequence, ..data::snapshot(Hierarchy::V2, cgroups) });
        self.publisher.publish(Arc::clone(&snapshot));
        snapshot
    }

    pub(crate) fn connect(&self) -> Client {
        Client::to(self.address)
    }

    pub(crate) fn get(&self, path: &str, headers: &str) -> Answer {
        get(self.address, path, headers)
    }

    /// The value of one of the agent's own series.
    pub(crate) fn own(&self, series: &str) -> Option<f64> {
        own(&self.telemetry, series)
    }

    pub(crate) fn lost(&self, reason: &str) -> f64 {
        self.own(&format!("nodegauge_http_connections_lost_total{{reason=\"{reason}\"}}")).unwrap()
    }

    /// Stops; whether all connections ended in time.
    pub(crate) fn stop(&mut self) -> bool {
        self.listening.stop()
    }
}

/// Waits for what is noticed sooner or later.
pub(crate) fn eventually(what: &str, mut test: impl FnMut() -> bool) {
    let began = Instant::now();
    while !test() {
        assert!(began.elapsed() < Duration::from_secs(30), "not within {:?}: {what}", began.elapsed());
        thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) struct Client(pub(crate) BufReader<TcpStream>);

/// A request on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str, headers: &str) -> Answer {
    let mut client = Client::to(address);
    client.send("GET", path, headers);
    client.answer()
}

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client(BufReader::new(stream))
    }

    pub(crate) fn send(&mut self, method: &str, path: &str, headers: &str) {
        self.write(format!("{method} {path} HTTP/1.1\r\nhost: test\r\n{headers}\r\n").as_bytes());
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        answer.body = match answer.headers.get("content-length") {
            Some(length) => {
                let mut body = vec![0; length.parse().unwrap()];
                self.0.read_exact(&mut body).unwrap();
                body
            }
            None => {
                assert_eq!(answer.header("transfer-encoding"), "chunked");
                self.chunks().expect("a whole body")
            }
        };
        answer
    }

    pub(crate) fn head(&mut self) -> Answer {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines.first().map(|l| l.split(' ').nth(1).unwrap().parse().unwrap());
        let header = |l: &String| l.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned()));
        Answer {
            status: status.expect("an answer"),
            headers: lines.iter().skip(1).filter_map(header).collect(),
            body: Vec::new(),
        }
    }

    /// A chunked body; the error when it breaks off.
    pub(crate) fn chunks(&mut self) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut size = String::new();
            self.0.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim_end(), 16)
                .map_err(|_| std::io::Error::from(ErrorKind::UnexpectedEof))?;
            let start = body.len();
            body.resize(start + size, 0);
            self.0.read_exact(&mut body[start..])?;
            self.0.read_line(&mut String::new())?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Waits for the other side to close.
    pub(crate) fn closed_after(&mut self) -> Duration {
        let began = Instant::now();
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
        began.elapsed()
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn line(&self) -> &str {
        let text = self.text();
        assert_eq!(text.matches('\n').count(), 1, "{text:?} is not one line");
        text.trim_end()
    }
}
