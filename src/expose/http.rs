//! The listener: connections, their limits, and the drain.
//!
//! One thread serves all sockets; whatever renders, compresses or reads files
//! runs on others. Every connection has a number, a time for each thing it may
//! do ([`Deadlines`]) and a size for its head; request bodies are refused. What
//! is asked and answered is in [`routes`](super::routes).

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use axum::http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use nix::errno::Errno;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::connection::{Activity, Deadlines, Timed};
use super::routes::{App, line};
use crate::telemetry::{Limiter, LostConnection, Telemetry};

/// How long accepting rests when no descriptor is left.
const PAUSE: Duration = Duration::from_millis(250);

/// How often the answers' memory is tidied.
const TIDY: Duration = Duration::from_secs(5);

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at once.
    pub connections: usize,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Times of one connection.
    pub deadlines: Deadlines,
    /// How long requests in flight may take once we are to stop.
    pub drain: Duration,
}

impl Limits {
    /// The limits of a process that may have `descriptors` descriptors: 256
    /// connections, or an eighth of the descriptors where that is less.
    pub fn new(descriptors: u64) -> Self {
        Limits {
            connections: usize::try_from(descriptors / 8).unwrap_or(usize::MAX).clamp(8, 256),
            head_bytes: 16 << 10,
            deadlines: Deadlines {
                head: Duration::from_secs(10),
                idle: Duration::from_secs(120),
                stall: Duration::from_secs(30),
                answer: Duration::from_secs(120),
            },
            drain: Duration::from_secs(5),
        }
    }
}

/// Opens the listening socket.
///
/// # Errors
/// The system's: the address is in use, is not ours, or is not allowed.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves `app` until `stop` completes; then takes no more connections, lets
/// requests in flight end, and returns. True if all ended in time.
///
/// # Errors
/// The listener cannot be used with this runtime.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> io::Result<bool> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (stopping, watching) = watch::channel(());
    let server = Server {
        router: app.router(),
        telemetry: Arc::clone(app.telemetry()),
        slots: Arc::new(Semaphore::new(limits.connections)),
        limits,
        stop: watching,
    };
    let mut connections = JoinSet::new();
    let mut tidy = tokio::time::interval(TIDY);
    tidy.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = server.accept(&listener) => {
                if let Some((stream, slot)) = accepted {
                    connections.spawn(server.clone().connection(stream, slot));
                }
            }
            // Ended connections are let go of at once.
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "connection failed");
                }
            }
            _ = tidy.tick() => app.tidy(),
        }
    }
    drop(listener);
    drop(stopping);
    let drained =
        tokio::time::timeout(limits.drain, async { while connections.join_next().await.is_some() {} });
    let in_time = drained.await.is_ok();
    // Those that are still there end with the set.
    connections.shutdown().await;
    Ok(in_time)
}

#[derive(Debug, Clone)]
struct Server {
    router: Router,
    telemetry: Arc<Telemetry>,
    slots: Arc<Semaphore>,
    limits: Limits,
    /// Its sender goes when the server is to stop.
    stop: watch::Receiver<()>,
}

impl Server {
    /// The next connection, if there is room for it. Safe to be cancelled.
    async fn accept(&self, listener: &tokio::net::TcpListener) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        static REFUSED: Limiter = Limiter::every(Duration::from_secs(60));
        static FAILED: Limiter = Limiter::every(Duration::from_secs(60));
        match listener.accept().await {
            Ok((stream, peer)) => match Arc::clone(&self.slots).try_acquire_owned() {
                Ok(slot) => Some((stream, slot)),
                Err(_) => {
                    self.telemetry.lost_connection(LostConnection::Limit);
                    if let Some(suppressed) = REFUSED.pass() {
                        let limit = self.limits.connections;
                        tracing::warn!(%peer, limit, suppressed, "too many connections, refused");
                    }
                    refuse(stream);
                    None
                }
            },
            Err(error) => {
                let code = error.raw_os_error().map(Errno::from_raw);
                if matches!(code, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)) {
                    self.telemetry.lost_connection(LostConnection::Descriptors);
                    if let Some(suppressed) = FAILED.pass() {
                        tracing::warn!(%error, suppressed, "no connection can be accepted now");
                    }
                    // The connection stays in the backlog: asking again at once would spin.
                    tokio::time::sleep(PAUSE).await;
                }
                // Anything else is the fate of that one connection.
                None
            }
        }
    }

    async fn connection(self, stream: TcpStream, slot: OwnedSemaphorePermit) {
        let _slot = slot;
        let _open = self.telemetry.connection();
        // Chunks are large; the last one must not wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let activity = Activity::default();
        let io = TokioIo::new(Timed::new(stream, activity.clone(), self.limits.deadlines));
        let server = self.clone();
        let requests = activity.clone();
        let service = service_fn(move |request| {
            let answering = requests.begin();
            let server = server.clone();
            async move {
                let response = server.answer(request).await;
                Ok::<_, Infallible>(response.map(|body| answering.until_end_of(body)))
            }
        });
        let connection = http1::Builder::new()
            .max_buf_size(self.limits.head_bytes)
            .header_read_timeout(None)
            .serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        let mut stop = self.stop.clone();
        let result = tokio::select! {
            result = connection.as_mut() => result,
            // Fails when the sender goes, which is the sign.
            _ = stop.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = &result {
            tracing::debug!(%error, "connection ended");
        }
        if activity.was_cut() {
            self.telemetry.lost_connection(LostConnection::Slow);
        } else if result.is_err_and(|e| e.is_parse() || e.is_incomplete_message()) {
            self.telemetry.lost_connection(LostConnection::Protocol);
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let has_body = request.headers().contains_key(TRANSFER_ENCODING)
            || request.headers().get(CONTENT_LENGTH).is_some_and(|length| length != "0");
        let mut response = if has_body {
            line(StatusCode::PAYLOAD_TOO_LARGE, "request bodies are not accepted")
        } else {
            let router = TowerToHyperService::new(self.router.clone());
            match router.call(request.map(Body::new)).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        };
        self.telemetry.responded(response.status().as_u16());
        // Nobody may keep idle connections when there are few left: probes need one.
        let crowded = self.slots.available_permits() < self.limits.connections / 4;
        if has_body || crowded {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Says why and closes, without waiting for anything.
fn refuse(stream: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\
        content-type: text/plain\r\ncontent-length: 21\r\n\r\ntoo many connections\n";
    // The client may be gone or its window full; then it learns from the close.
    let _ = stream.try_write(ANSWER);
}
