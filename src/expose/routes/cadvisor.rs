//! Paths of cAdvisor's REST API, and of the kubelet's that speaks the same.
//!
//! `/api/v1.3/containers/<path>` and the like: a body or a query says what is
//! wanted, and the answer is written while it is sent.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use tokio::sync::Semaphore;

use super::{App, line, not_found};
use crate::auth::path;
use crate::expose::cadvisor::events::Filter;
use crate::expose::cadvisor::{Answer, Refused, World};
use crate::expose::scrape::{Feed, Streamed};
use crate::expose::{cadvisor_v1, cadvisor_v2};
use crate::snapshot::{Kinds, Snapshot};

/// Paths that may have a body.
pub(super) const BODIES: [&str; 2] = ["/api/", "/stats/container/"];

/// Longest body that is read; what is asked takes a hundred bytes.
const MAX_BODY: usize = 64 << 10;

/// How long it may take to come.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// Versions there are, by number.
const VERSIONS: [(&str, u8, u8); 6] =
    [("v1.0", 1, 0), ("v1.1", 1, 1), ("v1.2", 1, 2), ("v1.3", 1, 3), ("v2.0", 2, 0), ("v2.1", 2, 1)];

/// Streams of events at once: each keeps a connection.
static STREAMS: Semaphore = Semaphore::const_new(8);

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api", any(versions))
        .route("/api/", any(versions))
        .route("/api/{*rest}", any(api))
        .route("/stats/container", get(stats_container).post(stats_container))
        .route("/stats/container/", get(stats_container).post(stats_container))
}

async fn versions() -> Response {
    let names = VERSIONS.map(|(name, ..)| name).join(", ");
    line(StatusCode::BAD_REQUEST, &format!("supported API versions: {names}"))
}

/// What a request says, decoded.
struct Asked {
    query: Vec<(String, String)>,
    body: Vec<u8>,
}

async fn read(request: Request) -> Result<Asked, Box<Response>> {
    let refuse = |status, text: &str| Err(Box::new(line(status, text)));
    if !matches!(*request.method(), Method::GET | Method::POST | Method::HEAD) {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "accepted here: GET, POST, HEAD");
    }
    let Some(query) = path::query(request.uri().query().unwrap_or_default()) else {
        return refuse(StatusCode::BAD_REQUEST, "the query is not UTF-8");
    };
    let body = tokio::time::timeout(BODY_PATIENCE, to_bytes(request.into_body(), MAX_BODY)).await;
    match body {
        Ok(Ok(body)) => Ok(Asked { query, body: body.to_vec() }),
        Ok(Err(_)) => {
            refuse(StatusCode::PAYLOAD_TOO_LARGE, "the request body is cut off, or longer than 64 KiB")
        }
        Err(_) => refuse(StatusCode::REQUEST_TIMEOUT, "the request body did not come"),
    }
}

async fn api(State(app): State<Arc<App>>, uri: Uri, request: Request) -> Response {
    let head = *request.method() == Method::HEAD;
    let asked = match read(request).await {
        Ok(asked) => asked,
        Err(refused) => return *refused,
    };
    let rest = uri.path().strip_prefix("/api/").unwrap_or_default();
    let Some(rest) = path::decode(rest, false) else {
        return line(StatusCode::BAD_REQUEST, "the path is not UTF-8");
    };
    let (version, rest) = rest.split_once('/').unwrap_or((&rest, ""));
    let Some((_, major, minor)) = VERSIONS.iter().find(|(name, ..)| *name == version) else {
        return not_found(uri).await;
    };
    let (kind, name) = rest.split_once('/').unwrap_or((rest, ""));
    if kind.is_empty() {
        let kinds = if *major == 1 { cadvisor_v1::kinds(*minor) } else { cadvisor_v2::kinds(*minor) };
        let text = format!("supported request types: {:?}", kinds.join(","));
        return line(StatusCode::BAD_REQUEST, &text);
    }
    let max_age = match cadvisor_v2::Options::read(&asked.query) {
        Ok(options) if *major == 2 => options.max_age,
        // Version 1 has no parameters; version 2 says itself what is wrong with them.
        Ok(_) | Err(_) => None,
    };
    let Some(world) = app.world(max_age).await else {
        return line(StatusCode::SERVICE_UNAVAILABLE, "nothing has been collected yet");
    };
    app.telemetry.scrape("/api", "json", "identity");
    let answer = match major {
        1 => cadvisor_v1::answer(&world, *minor, kind, name, &asked.query, &asked.body),
        _ => cadvisor_v2::answer(&world, *minor, kind, name, &asked.query),
    };
    match answer {
        Some(answer) => app.respond(&world, answer, head).await,
        None => not_found(uri).await,
    }
}

async fn stats_container(State(app): State<Arc<App>>, request: Request) -> Response {
    let head = *request.method() == Method::HEAD;
    let asked = match read(request).await {
        Ok(asked) => asked,
        Err(refused) => return *refused,
    };
    let Some(world) = app.world(None).await else {
        return line(StatusCode::SERVICE_UNAVAILABLE, "nothing has been collected yet");
    };
    app.telemetry.scrape("/stats/container", "json", "identity");
    app.respond(&world, cadvisor_v1::stats_container(&world, &asked.body), head).await
}

impl App {
    /// The last tick with what came before it; not older than the policy, or than asked for.
    async fn world(&self, max_age: Option<Duration>) -> Option<World> {
        let max_age = max_age.map_or(self.policy.max_age, |asked| asked.min(self.policy.max_age));
        let snapshot = self.snapshots.fresh(max_age, self.policy.patience, Kinds::NONE).await?;
        Some(self.world_of(snapshot))
    }

    /// A tick with what came before it.
    pub(super) fn world_of(&self, snapshot: Arc<Snapshot>) -> World {
        World {
            snapshot,
            history: Arc::clone(&self.history),
            events: Arc::clone(&self.events),
            host: self.around.host.clone(),
            surroundings: Arc::new(self.around.tell()),
        }
    }

    async fn respond(&self, world: &World, answer: Result<Answer, Refused>, head: bool) -> Response {
        let json = [(CONTENT_TYPE, "application/json")];
        let answer = answer.unwrap_or_else(|(status, text)| Answer::Text(status, text));
        match answer {
            Answer::Text(status, text) => line(status, &text),
            _ if head => (json, Body::new(Streamed::nothing())).into_response(),
            Answer::Json(write) => {
                match self.bodies.written(self.policy.patience, move |feed: &mut Feed| write(feed)).await {
                    Ok(body) => (json, Body::new(body)).into_response(),
                    Err(error) => line(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
                }
            }
            Answer::Stream(filter) => {
                let Ok(turn) = STREAMS.try_acquire() else {
                    return line(StatusCode::SERVICE_UNAVAILABLE, "busy with other streams of events");
                };
                (json, Body::new(stream(world, filter, turn))).into_response()
            }
        }
    }
}

/// Events from now on, one JSON object a line.
fn stream(world: &World, filter: Filter, turn: tokio::sync::SemaphorePermit<'static>) -> Streamed {
    let (live, streamed) = Streamed::live();
    let events = Arc::clone(&world.events);
    let (_, mut next) = events.since(u64::MAX, &filter);
    tokio::spawn(async move {
        let _turn = turn;
        let mut news = events.watch();
        loop {
            let (found, after) = events.since(next, &filter);
            next = after;
            for event in found {
                let Ok(mut text) = serde_json::to_vec(&event) else { return };
                text.push(b'\n');
                if !live.send(text).await {
                    return;
                }
            }
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                () = live.left() => return,
            }
        }
    });
    streamed
}
