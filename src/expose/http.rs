//! The listener: connections, their limits, and the drain.
//!
//! One thread serves all sockets; whatever renders, compresses or reads files
//! runs on others. Every connection has a number, a time for each thing it may
//! do ([`Deadlines`]) and a size for its head; request bodies are refused but
//! where a [`Site`] takes them, and then only after the head was let in. A peer has a share of the connections and a rate of requests; a few more
//! connections are kept for probes, which are answered when all else is taken.
//! Who may ask for what is decided by the [`Guard`], what is asked and answered
//! is a [`Site`]: the agent's is in [`routes`](super::routes).

use std::borrow::Cow;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, RETRY_AFTER, TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use axum::response::{IntoResponse as _, Redirect};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use nix::errno::Errno;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::rustls;

use super::connection::{Activity, Deadlines, Timed};
use super::peers::{Peer, Peers};
use crate::auth::rules::Need;
use crate::auth::{Admitted, Asked, Certified, Guard, Refusal, path};
use crate::config::Paths;
use crate::telemetry::{HandshakeFailure, Limiter, LostConnection, Refused, Telemetry};

/// How long accepting rests when no descriptor is left.
const PAUSE: Duration = Duration::from_millis(250);

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at once.
    pub connections: usize,
    /// Of these, how many one peer may have.
    pub per_peer: usize,
    /// Connections beyond these, on which probes are answered.
    pub probes: usize,
    /// Longest such a connection may last.
    pub probe: Duration,
    /// Peers told apart; with more, the rest is refused.
    pub peers: usize,
    /// Requests of one peer a second; it may have saved up twice as many.
    pub rate: u32,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Times of one connection.
    pub deadlines: Deadlines,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How often memory of answers is tidied and files are looked at for changes.
    pub tidy: Duration,
    /// How long requests in flight may take once we are to stop.
    pub drain: Duration,
}

impl Limits {
    /// The limits of a process that may have `descriptors` descriptors: 256
    /// connections, or an eighth of the descriptors where that is less; three
    /// quarters of them for one peer, and a sixteenth more for probes.
    pub fn new(descriptors: u64) -> Self {
        let connections = usize::try_from(descriptors / 8).unwrap_or(usize::MAX).clamp(8, 256);
        Limits {
            connections,
            per_peer: connections / 4 * 3,
            probes: (connections / 16).max(2),
            probe: Duration::from_secs(2),
            peers: 4_096,
            rate: 200,
            head_bytes: 16 << 10,
            deadlines: Deadlines {
                head: Duration::from_secs(10),
                idle: Duration::from_secs(120),
                stall: Duration::from_secs(30),
                answer: Duration::from_secs(120),
            },
            handshake: Duration::from_secs(5),
            tidy: Duration::from_secs(5),
            drain: Duration::from_secs(5),
        }
    }

    /// Descriptors that clients may take.
    pub fn descriptors(&self) -> u64 {
        self.connections.saturating_add(self.probes) as u64
    }
}

/// What a listener serves.
pub struct Site {
    /// Which path answers what. With a request comes what the guard found out
    /// about it, as [`Admitted`].
    pub router: Router,
    /// Own metrics.
    pub telemetry: Arc<Telemetry>,
    /// Paths that take a body by POST or GET, with all below where they end with a slash; their routes bound
    /// its size and its time.
    pub bodies: &'static [&'static str],
    /// How paths are written by those who ask.
    pub paths: Paths,
    /// Whether slashes that are doubled or at the end of a path do not count.
    pub loose_slashes: bool,
    /// What paths that begin so are counted as, under Heapster's name for requests; none are where it is empty.
    pub handlers: &'static [(&'static str, &'static str)],
    /// How it is said that a request goes no further: by the status, and in words.
    pub refusal: fn(StatusCode, &str) -> Response<Body>,
    /// Called every [`Limits::tidy`]; quick.
    pub tidy: Box<dyn Fn() + Send>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").field("bodies", &self.bodies).finish_non_exhaustive()
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

/// Serves `site` to whom `guard` lets until `stop` completes; then takes no more connections, lets
/// requests in flight end, and returns. True if all ended in time.
///
/// # Errors
/// The listener cannot be used with this runtime.
pub async fn serve(
    listener: TcpListener,
    site: impl Into<Site>,
    guard: Arc<Guard>,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> io::Result<bool> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let Site { router, telemetry, bodies, paths, loose_slashes, handlers, refusal, tidy: tidy_site } =
        site.into();
    let (stopping, watching) = watch::channel(());
    let server = Server {
        router,
        telemetry,
        bodies,
        paths: Arc::new(paths),
        loose_slashes,
        handlers,
        refusal,
        guard,
        slots: Arc::new(Semaphore::new(limits.connections)),
        probes: Arc::new(Semaphore::new(limits.probes)),
        peers: Peers::new(limits.per_peer, limits.rate, limits.peers),
        limits,
        stop: watching,
    };
    let mut connections = JoinSet::new();
    let mut tidy = tokio::time::interval(limits.tidy);
    tidy.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = server.accept(&listener) => {
                if let Some((stream, place)) = accepted {
                    connections.spawn(server.clone().connection(stream, place));
                }
            }
            // Ended connections are let go of at once.
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "connection failed");
                }
            }
            _ = tidy.tick() => {
                tidy_site();
                server.peers.tidy();
                // It reads files.
                let guard = Arc::clone(&server.guard);
                tokio::task::spawn_blocking(move || guard.refresh());
            }
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
    bodies: &'static [&'static str],
    paths: Arc<Paths>,
    loose_slashes: bool,
    handlers: &'static [(&'static str, &'static str)],
    refusal: fn(StatusCode, &str) -> Response<Body>,
    guard: Arc<Guard>,
    slots: Arc<Semaphore>,
    probes: Arc<Semaphore>,
    peers: Peers,
    limits: Limits,
    /// Its sender goes when the server is to stop.
    stop: watch::Receiver<()>,
}

/// What a connection takes from the limits, until it is dropped.
#[derive(Debug)]
struct Place {
    peer: Peer,
    /// Whether it is one too many, so that only probes are answered.
    crowded: bool,
    _slot: OwnedSemaphorePermit,
}

impl Server {
    /// The next connection, if there is room for it. Safe to be cancelled.
    async fn accept(&self, listener: &tokio::net::TcpListener) -> Option<(TcpStream, Place)> {
        static REFUSED: Limiter = Limiter::every(Duration::from_secs(60));
        static FAILED: Limiter = Limiter::every(Duration::from_secs(60));
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Some(place) = self.place(peer.ip()) {
                    return Some((stream, place));
                }
                self.telemetry.lost_connection(LostConnection::Limit);
                if let Some(suppressed) = REFUSED.pass() {
                    let (limit, per_peer) = (self.limits.connections, self.limits.per_peer);
                    tracing::warn!(%peer, limit, per_peer, suppressed, "too many connections, refused");
                }
                if self.guard.tls().is_none() {
                    refuse(stream);
                }
                None
            }
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

    /// A place within the limits, or one of those for probes.
    fn place(&self, peer: IpAddr) -> Option<Place> {
        let (peer, share) = self.peers.connect(peer)?;
        let slot = share.then(|| Arc::clone(&self.slots).try_acquire_owned().ok()).flatten();
        let crowded = slot.is_none();
        let slot = slot.or_else(|| Arc::clone(&self.probes).try_acquire_owned().ok())?;
        Some(Place { peer, crowded, _slot: slot })
    }

    async fn connection(self, stream: TcpStream, place: Place) {
        let _open = self.telemetry.connection();
        // Chunks are large; the last one must not wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let (crowded, probe) = (place.crowded, self.limits.probe);
        let telemetry = Arc::clone(&self.telemetry);
        let served = async {
            let Some(acceptor) = self.guard.tls().map(|tls| tls.acceptor()) else {
                return self.speak(stream, place, Certified::default()).await;
            };
            let handshake = tokio::time::timeout(self.limits.handshake, acceptor.accept(stream)).await;
            let stream = match handshake {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "handshake failed");
                    return self.telemetry.handshake_failed(cause(&error));
                }
                Err(_) => return self.telemetry.handshake_failed(HandshakeFailure::Slow),
            };
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let certified = self.guard.recognise(certificates);
            self.speak(stream, place, certified).await;
        };
        if !crowded {
            return served.await;
        }
        if tokio::time::timeout(probe, served).await.is_err() {
            telemetry.lost_connection(LostConnection::Slow);
        }
    }

    /// Answers requests until the connection ends.
    async fn speak<S>(&self, stream: S, place: Place, certified: Certified)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let caller = Arc::new(Caller { place, certified });
        let activity = Activity::default();
        let io = TokioIo::new(Timed::new(stream, activity.clone(), self.limits.deadlines));
        let server = self.clone();
        let requests = activity.clone();
        let service = service_fn(move |request| {
            let answering = requests.begin();
            let (server, caller) = (server.clone(), Arc::clone(&caller));
            async move {
                let response = server.answer(request, &caller).await;
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

    async fn answer(&self, request: Request<Incoming>, caller: &Caller) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let alone = !self.paths.prefix.is_empty() && parts.uri.path() == self.paths.prefix;
        // Before anything is decided, so that what is decided about is what is routed.
        let target = routed(parts.uri.path(), &self.paths, self.loose_slashes);
        if let Some(target) = target.map(Cow::into_owned) {
            set_path(&mut parts.uri, target);
        }
        let handler = self.handlers.iter().find(|(path, _)| parts.uri.path().starts_with(path));
        let (handler, method) = (handler.map_or("other", |(_, name)| *name), parts.method.clone());
        let admitted = self.admit(&parts, caller).await;
        let close = admitted.as_ref().is_err_and(|refused| refused.close);
        let mut response = match admitted {
            Err(refused) => refused.response,
            // A page's links are relative to where it is.
            Ok(_) if alone => Redirect::permanent(&format!("{}/", self.paths.prefix)).into_response(),
            Ok(admitted) => {
                let mut request = Request::from_parts(parts, body);
                request.extensions_mut().insert(admitted);
                let router = TowerToHyperService::new(self.router.clone());
                match router.call(request.map(Body::new)).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
        };
        self.telemetry.responded(response.status().as_u16());
        if !self.handlers.is_empty() {
            self.telemetry.handled(handler, method.as_str(), response.status().as_u16());
        }
        // Nobody may keep idle connections when there are few left: probes need one.
        let crowded = caller.place.crowded || self.slots.available_permits() < self.limits.connections / 4;
        if close || crowded {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// What is known of a request that may go on, or the answer to one that may not.
    async fn admit(&self, request: &Parts, caller: &Caller) -> Result<Admitted, Box<Refusing>> {
        let headers = &request.headers;
        let path = request.uri.path();
        let say = self.refusal;
        let refuse = |reason: Refused, response: Response<Body>, close: bool| {
            self.telemetry.refused(reason);
            Err(Box::new(Refusing { response, close }))
        };
        let has_body = headers.contains_key(TRANSFER_ENCODING)
            || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
        let taken = |taking: &&str| path == *taking || (taking.ends_with('/') && path.starts_with(*taking));
        let takes_body =
            matches!(request.method, Method::POST | Method::GET) && self.bodies.iter().any(taken);
        if has_body && !takes_body {
            let text = "request bodies are not accepted";
            return refuse(Refused::Body, say(StatusCode::PAYLOAD_TOO_LARGE, text), true);
        }
        if self.guard.is_probe(path) {
            return Ok(Admitted { need: Need::Open, user: None });
        }
        if caller.place.crowded {
            let text = "too many connections";
            return refuse(Refused::Crowded, say(StatusCode::SERVICE_UNAVAILABLE, text), true);
        }
        if !caller.place.peer.request() {
            let mut response = say(StatusCode::TOO_MANY_REQUESTS, "too many requests");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return refuse(Refused::Rate, response, true);
        }
        let asked = Asked {
            method: request.method.as_str(),
            path,
            query: request.uri.query().unwrap_or_default(),
            headers,
            authorization: headers.get(AUTHORIZATION).map(HeaderValue::as_bytes),
            certified: &caller.certified,
        };
        let (reason, mut response) = match self.guard.admit(asked).await {
            Ok(admitted) => return Ok(admitted),
            Err(Refusal::Unauthenticated) => {
                caller.place.peer.unknown();
                (
                    Refused::Unauthenticated,
                    say(StatusCode::UNAUTHORIZED, "a token or a certificate is needed"),
                )
            }
            Err(Refusal::Forbidden) => (Refused::Forbidden, say(StatusCode::FORBIDDEN, "not allowed")),
            Err(Refusal::Unavailable) => (
                Refused::Unavailable,
                say(StatusCode::SERVICE_UNAVAILABLE, "whether this is allowed cannot be found out now"),
            ),
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // Nobody reads the body, after which there could be another request.
        refuse(reason, response, has_body)
    }
}

/// A path as it is routed, where that is not how it is written: without slashes that
/// say nothing, and without the prefix. What lacks it is routed to nothing.
fn routed<'a>(path: &'a str, paths: &Paths, loose_slashes: bool) -> Option<Cow<'a, str>> {
    let tidy = if loose_slashes { path::tidied(path) } else { Cow::Borrowed(path) };
    if *paths == Paths::default() {
        return matches!(tidy, Cow::Owned(_)).then_some(tidy);
    }
    let below = tidy.strip_prefix(&paths.prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let below = match below {
        None => "/lacks-the-prefix",
        Some("") => "/",
        Some(below) if paths.metrics.as_deref() == Some(below) => "/metrics",
        Some(below) => below,
    };
    Some(Cow::Owned(below.to_owned()))
}

/// Puts a path in the place of that of `uri`.
fn set_path(uri: &mut Uri, path: String) {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = std::mem::take(uri).into_parts();
    // It is a part of what was one.
    parts.path_and_query = target.parse().ok();
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// The answer to a request that goes no further.
struct Refusing {
    response: Response<Body>,
    /// Whether the connection ends with it.
    close: bool,
}

/// Who is at the other end of a connection.
#[derive(Debug)]
struct Caller {
    place: Place,
    /// What its certificates tell.
    certified: Certified,
}

/// Why a handshake failed.
fn cause(error: &io::Error) -> HandshakeFailure {
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(_)) => HandshakeFailure::Certificate,
        Some(_) => HandshakeFailure::Protocol,
        None => HandshakeFailure::Closed,
    }
}

/// Says why and closes, without waiting for anything.
fn refuse(stream: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\
        content-type: text/plain\r\ncontent-length: 21\r\n\r\ntoo many connections\n";
    // The client may be gone or its window full; then it learns from the close.
    let _ = stream.try_write(ANSWER);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_routed_without_their_prefix() {
        let paths = Paths { prefix: "/node/1".into(), metrics: Some("/prom".into()) };
        let check = |written: &str, expected: &str| {
            let mut uri: Uri = written.parse().unwrap();
            let found = routed(uri.path(), &paths, false).unwrap().into_owned();
            set_path(&mut uri, found);
            assert_eq!(uri.to_string(), expected, "{written}");
        };
        check("/node/1/healthz", "/healthz");
        check("/node/1", "/");
        check("/node/1/?a=b", "/?a=b");
        check("/node/1/prom?name[]=x", "/metrics?name[]=x");
        check("/node/10/metrics", "/lacks-the-prefix");
        check("/metrics", "/lacks-the-prefix");
        assert_eq!(routed("/metrics", &Paths::default(), true), None);
        assert_eq!(routed("//metrics/", &Paths::default(), false), None);
        assert_eq!(routed("//metrics/", &Paths::default(), true).as_deref(), Some("/metrics"));
    }
}
