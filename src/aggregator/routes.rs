//! Which path of the aggregator answers what.
//!
//! | path | answer |
//! |---|---|
//! | `POST /api/v1/batches` | takes what agents push: see [`receive`] |
//! | `/api/v1/…`, `/apis/…` | what is asked of the model: see [`api`] |
//! | `/metrics` | the aggregator about itself |
//! | `/healthz` | 200 while steps close and nodes report, else 503 |
//! | `/readyz` | 200: it takes pushes from the start |
//! | `/` | what there is |
//!
//! What is asked of the model is merged in [`routes`].

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};

use super::receive::{self, Receiver};
use crate::aggregate::ingest::Ingest;
use crate::aggregate::model::Model;
use crate::api;
use crate::expose::http::Site;
use crate::expose::routes::{line, not_found, own, page_of};
use crate::telemetry::Telemetry;

/// Age of the newest step beyond which something is wrong; of long steps it is three.
const STALE: Duration = Duration::from_secs(180);

/// Paths worth naming, with what they hold.
const INDEX: [(&str, &str); 5] = [
    ("/api/v1/model/", "the last fifteen minutes of everything, as Heapster tells it"),
    ("/apis/metrics.k8s.io/v1beta1/", "what nodes and pods use now"),
    ("/metrics", "the aggregator about itself"),
    ("/healthz", "whether steps close and nodes report"),
    ("/readyz", "whether pushes are taken"),
];

/// What is asked of the model: each module of the API gives its routes here.
pub fn routes(model: &Arc<Model>) -> Router {
    api::router(model, api::wall_clock)
}

/// What the answers are made from.
#[derive(Debug)]
struct App {
    ingest: Arc<Ingest>,
    telemetry: Arc<Telemetry>,
}

/// Everything the aggregator's listener serves.
pub fn site(ingest: Arc<Ingest>, telemetry: Arc<Telemetry>, limits: receive::Limits) -> Site {
    let receiver = Receiver::new(Arc::clone(&ingest), limits);
    let model = Arc::clone(ingest.model());
    let app = Arc::new(App { ingest, telemetry: Arc::clone(&telemetry) });
    let router = Router::new()
        .route("/", get(index))
        .route("/metrics", get(own_metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(app)
        .route(receive::PATH, post(receive::batches).with_state(receiver))
        .merge(routes(&model))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed);
    Site { router, telemetry, bodies: &[receive::PATH], paths: Default::default(), tidy: Box::new(|| {}) }
}

impl App {
    /// What is wrong, if anything.
    fn sick(&self) -> Option<String> {
        let model = self.ingest.model();
        let limit = STALE.max(Duration::from_millis(model.resolution_ms()) * 3);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        // After the start, or since all was forgotten.
        let waited = (model.began_ms(), "there has been no step since the beginning,");
        let newest = model.closed_ms().map(|slot| (Some(slot), "the newest step ended"));
        let (since, what) = newest.unwrap_or(waited);
        let age = Duration::from_millis(since.map_or(0, |since| now_ms.saturating_sub(since)));
        if age > limit {
            return Some(format!("{what} {} s ago, more than {} s", age.as_secs(), limit.as_secs()));
        }
        let nodes = model.nodes();
        let live = nodes.iter().filter(|node| !self.ingest.is_silent(node, now_ms)).count();
        (live * 2 < nodes.len()).then(|| format!("{live} of {} nodes report, under half", nodes.len()))
    }
}

async fn healthz(State(app): State<Arc<App>>) -> Response {
    match app.sick() {
        None => line(StatusCode::OK, "ok"),
        Some(why) => line(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

/// Agents reach an aggregator that has nothing yet through a Service of ready ones.
async fn readyz() -> Response {
    line(StatusCode::OK, "ok")
}

async fn own_metrics(State(app): State<Arc<App>>, method: Method, headers: HeaderMap) -> Response {
    own(&app.telemetry, "/metrics", &method, &headers).await
}

async fn index() -> Response {
    page_of(&INDEX)
}

/// Which are accepted the header `Allow` says.
async fn not_allowed(method: Method) -> Response {
    let shown: String = method.as_str().chars().take(20).collect();
    line(StatusCode::METHOD_NOT_ALLOWED, &format!("{shown} is not accepted here"))
}
