//! Which path of the aggregator answers what.
//!
//! | path | answer |
//! |---|---|
//! | `POST /api/v1/batches` | takes what agents push: see [`receive`] |
//! | `POST /api/v1/push/prometheus…` | takes what programs push of themselves: see [`custom`] |
//! | `/api/v1/…`, `/apis/…` | what is asked of the model: see [`api`] |
//! | `/metrics` | the aggregator about itself |
//! | `/metrics/rollups` | sums over namespaces and the cluster, for Prometheus |
//! | `/healthz` | 200 while steps close and nodes report, else 503 |
//! | `/readyz` | 200: it takes pushes from the start |
//! | `/`, `/page/*`, `/api/page/*` | the page: see [`page`] |
//!
//! What is asked of the model is merged in [`routes`].

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};

use super::custom::{self, Producers};
use super::page;
use super::receive::{self, Receiver};
use crate::aggregate::ingest::Ingest;
use crate::aggregate::model::Model;
use crate::api::{self, rollups};
use crate::expose::http::Site;
use crate::expose::page::{self as assets, Page};
use crate::expose::routes::{line, not_found, own};
use crate::telemetry::Telemetry;

/// Age of the newest step beyond which something is wrong; of long steps it is three.
const STALE: Duration = Duration::from_secs(180);

/// What requests are counted as.
const HANDLERS: [(&str, &str); 8] = [
    (receive::PATH, "batches"),
    (custom::PATH, "push"),
    ("/api/v1/model", "model"),
    ("/api/v1/metric-export", "export"),
    ("/api/v1/dashboard", "dashboard"),
    ("/apis/", "resource"),
    ("/metrics", "prometheus"),
    ("/healthz", "healthz"),
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
    let producers = Producers::new(&model);
    let shown = page::Shown::new(Arc::clone(&ingest));
    let app = Arc::new(App { ingest, telemetry: Arc::clone(&telemetry) });
    let router = Router::new()
        .route("/metrics", get(own_metrics))
        .route("/metrics/rollups", get(roll_ups))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(app)
        .route(receive::PATH, post(receive::batches).with_state(receiver))
        .route("/api/v1/push/prometheus", post(custom::push).with_state(Arc::clone(&producers)))
        .route(
            "/api/v1/push/prometheus/metrics/job/{producer}",
            post(custom::push).with_state(Arc::clone(&producers)),
        )
        .route("/api/v1/push/prometheus/metrics/jobs/{producer}", post(custom::push).with_state(producers))
        .merge(routes(&model))
        .merge(assets::router(Page::Aggregator))
        .merge(shown.router())
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed);
    Site {
        router,
        telemetry,
        bodies: &[receive::PATH, custom::PATH],
        // As Heapster's clients have them, and proxies double the first.
        loose_slashes: true,
        handlers: &HANDLERS,
        refusal: line,
        paths: Default::default(),
        tidy: Box::new(move || shown.tidy()),
    }
}

impl App {
    /// What is wrong, if anything.
    fn sick(&self) -> Option<String> {
        let model = self.ingest.model();
        let limit = STALE.max(Duration::from_millis(model.resolution_ms()) * 3);
        let now_ms = now_ms();
        // After the start, or since all was forgotten.
        let waited = (model.began_ms(), "there has been no step since the beginning,");
        // One taken back from disk says nothing of now.
        let newest = model.closed_ms().filter(|slot| Some(*slot) >= model.began_ms());
        let (since, what) = newest.map_or(waited, |slot| (Some(slot), "the newest step ended"));
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

async fn roll_ups(State(app): State<Arc<App>>) -> Response {
    let model = Arc::clone(app.ingest.model());
    let text = tokio::task::spawn_blocking(move || rollups::text(&model, api::wall_clock())).await;
    match text {
        Ok(text) => ([(CONTENT_TYPE, rollups::MEDIA_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "roll-ups cannot be written");
            line(StatusCode::INTERNAL_SERVER_ERROR, "roll-ups cannot be written")
        }
    }
}

/// The wall clock, milliseconds since the epoch.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Which are accepted the header `Allow` says.
async fn not_allowed(method: Method) -> Response {
    let shown: String = method.as_str().chars().take(20).collect();
    line(StatusCode::METHOD_NOT_ALLOWED, &format!("{shown} is not accepted here"))
}
