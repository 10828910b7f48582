//! An HTTP receiver of pushes that answers as told, or not at all: below HTTP
//! libraries, because those do not break off in the middle.

use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::Running;

/// What a request is answered with.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A status and a body.
    Status(u16, Vec<u8>),
    /// The same with a header.
    Header(u16, &'static str, String),
    /// The connection is closed after the head and a little of the body.
    CutMidBody,
    /// The connection is closed after the whole request.
    CutBeforeAnswer,
    /// The connection is closed within the answer, which began with this status.
    CutMidAnswer(u16),
    /// Nothing, for ever.
    Hang,
}

impl Reply {
    pub(crate) fn text(status: u16, text: &str) -> Reply {
        Reply::Status(status, text.as_bytes().to_vec())
    }
}

/// A request that came whole.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// `GET /ping`.
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    /// As it went on the wire.
    pub(crate) body: Vec<u8>,
    pub(crate) at: Instant,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub(crate) fn is_write(&self) -> bool {
        self.line.starts_with("POST ") && !self.line.contains("/query")
    }

    /// The body as text, out of its gzip.
    pub(crate) fn lines(&self) -> Vec<String> {
        assert_eq!(self.header("content-encoding"), Some("gzip"));
        let mut text = String::new();
        flate2::read::GzDecoder::new(self.body.as_slice()).read_to_string(&mut text).unwrap();
        assert!(text.ends_with('\n'));
        text.lines().map(str::to_owned).collect()
    }
}

type Judge = Box<dyn FnMut(&Seen) -> Reply + Send>;

/// The stand-in; clones share their state.
#[derive(Clone)]
pub(crate) struct Receiver(Arc<Mutex<Inner>>);

struct Inner {
    seen: Vec<Seen>,
    /// Answers to the next writes, in order.
    script: VecDeque<Reply>,
    /// The answer to everything else.
    judge: Judge,
}

impl Receiver {
    /// Answers writes with 204, and everything else with 200 and an empty result.
    pub(crate) fn new() -> Receiver {
        Receiver::judging(|seen| match seen.is_write() {
            true => Reply::text(204, ""),
            false => Reply::text(200, r#"{"results":[{"statement_id":0}]}"#),
        })
    }

    pub(crate) fn judging(judge: impl FnMut(&Seen) -> Reply + Send + 'static) -> Receiver {
        let inner = Inner { seen: Vec::new(), script: VecDeque::new(), judge: Box::new(judge) };
        Receiver(Arc::new(Mutex::new(inner)))
    }

    /// Answers the next writes with these instead.
    pub(crate) fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.0.lock().unwrap().script.extend(replies);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.0.lock().unwrap().seen.clone()
    }

    /// The writes that came whole.
    pub(crate) fn writes(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(Seen::is_write).collect()
    }

    /// Serves plain HTTP on `port` of loopback, 0 for any.
    pub(crate) async fn serve(&self, port: u16) -> (Running, u16) {
        self.listen(port, None).await
    }

    /// Serves TLS on a free port of loopback.
    pub(crate) async fn serve_tls(&self, config: ServerConfig) -> (Running, u16) {
        self.listen(0, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn listen(&self, port: u16, acceptor: Option<TlsAcceptor>) -> (Running, u16) {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let receiver = self.clone();
        let task = tokio::spawn(async move {
            // Connections end with the listener, as those of a killed server.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (receiver, acceptor) = (receiver.clone(), acceptor.clone());
                connections.spawn(async move {
                    match acceptor {
                        None => receiver.connection(stream).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => receiver.connection(stream).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        (Running::new(task), port)
    }

    /// Until it is closed, by either.
    async fn connection(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
        let mut buffer = Vec::new();
        loop {
            let head = loop {
                if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                    break buffer.drain(..end + 4).collect::<Vec<u8>>();
                }
                more(&mut stream, &mut buffer).await?;
            };
            let head = String::from_utf8(head).unwrap();
            let mut lines = head.lines();
            let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
            let headers: Vec<(String, String)> =
                lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            let mut seen = Seen { line, headers, body: Vec::new(), at: Instant::now() };
            let length: usize = seen.header("content-length").map_or(0, |l| l.parse().unwrap());
            let scripted = if seen.is_write() { self.0.lock().unwrap().script.pop_front() } else { None };
            if matches!(scripted, Some(Reply::CutMidBody)) {
                return None;
            }
            while buffer.len() < length {
                more(&mut stream, &mut buffer).await?;
            }
            seen.body = buffer.drain(..length).collect();
            seen.at = Instant::now();
            let reply = {
                let mut inner = self.0.lock().unwrap();
                inner.seen.push(seen.clone());
                scripted.unwrap_or_else(|| (inner.judge)(&seen))
            };
            let (status, header, body) = match reply {
                Reply::Status(status, body) => (status, String::new(), body),
                Reply::Header(status, name, value) => (status, format!("{name}: {value}\r\n"), Vec::new()),
                Reply::CutMidBody | Reply::CutBeforeAnswer => return None,
                Reply::CutMidAnswer(status) => {
                    let cut = format!("HTTP/1.1 {status} X\r\nContent-Length: 100\r\n\r\nhalf");
                    stream.write_all(cut.as_bytes()).await.ok()?;
                    return None;
                }
                Reply::Hang => std::future::pending().await,
            };
            // RFC 9110: no Content-Length with 204.
            let length =
                if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
            let answer = format!("HTTP/1.1 {status} X\r\n{header}{length}\r\n");
            stream.write_all(answer.as_bytes()).await.ok()?;
            stream.write_all(&body).await.ok()?;
        }
    }
}

/// Reads on; `None` at the end.
async fn more(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 65536];
    let read = stream.read(&mut chunk).await.ok().filter(|n| *n > 0)?;
    buffer.extend_from_slice(&chunk[..read]);
    Some(())
}

/// Waits until `test` holds, generously.
pub(crate) async fn until(what: &str, mut test: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !test() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
