//! Which path of the agent answers what.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | containers and machine, Prometheus text or OpenMetrics, gzip on request |
//! | `/metrics/cadvisor` | the same as a kubelet shows it there |
//! | `/metrics/resource` | CPU and memory of node, pods and containers, as a kubelet shows them there |
//! | `/stats/summary` | the same and more, in a kubelet's JSON |
//! | `/stats/container/`, `/api/v1.3/…`, `/api/v2.1/…` | cAdvisor's REST API |
//! | `/containers/`, `/docker/`, `/validate/` | its pages, as plain as can be |
//! | `/metrics/self` | the agent about itself |
//! | `/healthz` | 200 while collection goes on, else 503 |
//! | `/readyz` | 200 once there is something to serve |
//! | `/`, `/page/*`, `/api/page/*` | the live page: see [`page`] |

mod cadvisor;
mod kubelet;
mod pages;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, VARY};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::cadvisor::events::Events;
use super::cadvisor::{Host, Refused, bad};
use super::cadvisor_v2::Options;
use super::http::Site;
use super::page::cgroup::Detail;
use super::page::node::{Overview, Wanted};
use super::page::{self, Page};
use super::scrape::{Bodies, NoBody, Part, Sending, Streamed, Text};
use super::summary::Surroundings;
use super::{View, accepts_gzip, negotiate};
use crate::auth::path;
use crate::config::Paths;
use crate::history::History;
use crate::publish::Snapshots;
use crate::snapshot::{Kind, Kinds, Snapshot};
use crate::telemetry::Telemetry;

/// How the answers are made.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Kinds shown at `/metrics`.
    pub kinds: Kinds,
    /// Kinds read only while somebody asks for them.
    pub on_request: Kinds,
    /// Whether samples carry the time of their tick.
    pub timestamps: bool,
    /// Age of the last snapshot beyond which a scrape asks for a fresh one.
    pub max_age: Duration,
    /// Time between two ticks.
    pub interval: Duration,
    /// How long a scrape waits for a fresh tick before it takes the last one
    /// there is, and for its turn to render before it is refused.
    pub patience: Duration,
}

/// What the answers are made from.
#[derive(Debug)]
pub struct App {
    policy: Policy,
    snapshots: Snapshots,
    history: Arc<History>,
    telemetry: Arc<Telemetry>,
    bodies: Arc<Bodies>,
    started: Instant,
    around: Around,
    events: Arc<Events>,
}

/// What answers tell besides the snapshot, asked anew for each.
pub struct Around {
    tell: Box<dyn Fn() -> Surroundings + Send + Sync>,
    /// How paths are written by those who ask.
    pub paths: Paths,
    /// Who is asked for what is not in the snapshot.
    pub host: Option<Arc<dyn Host>>,
}

impl Around {
    /// What `tell` tells.
    pub fn new(tell: impl Fn() -> Surroundings + Send + Sync + 'static) -> Around {
        Around { tell: Box::new(tell), paths: Paths::default(), host: None }
    }

    /// What it tells now.
    pub fn tell(&self) -> Surroundings {
        (self.tell)()
    }
}

impl Default for Around {
    fn default() -> Around {
        Around::new(Surroundings::default)
    }
}

impl std::fmt::Debug for Around {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Around").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl App {
    /// Answers of the node of that name from `snapshots` and what `history` has of those before.
    pub fn new(
        node_name: &str,
        policy: Policy,
        snapshots: Snapshots,
        history: Arc<History>,
        telemetry: Arc<Telemetry>,
    ) -> Arc<Self> {
        let node_name = node_name.to_owned();
        let surroundings = move || Surroundings { node_name: node_name.clone(), ..Surroundings::default() };
        App::within(Around::new(surroundings), policy, snapshots, history, Arc::default(), telemetry)
    }

    /// The same, with what else is to be told.
    pub fn within(
        around: Around,
        policy: Policy,
        snapshots: Snapshots,
        history: Arc<History>,
        events: Arc<Events>,
        telemetry: Arc<Telemetry>,
    ) -> Arc<Self> {
        let bodies = Bodies::new(policy.timestamps, Arc::clone(&telemetry));
        Arc::new(App {
            policy,
            snapshots,
            history,
            telemetry,
            bodies,
            started: Instant::now(),
            around,
            events,
        })
    }

    /// Own metrics.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// Lets go of what nobody will ask for again.
    pub fn tidy(&self) {
        if let Some(snapshot) = self.snapshots.latest() {
            self.bodies.drop_older(snapshot.sequence);
        }
    }

    /// The routes.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .merge(page::router(Page::Agent))
            .route("/api/page/node", get(overview))
            .route("/api/page/cgroup", get(detail))
            .route(
                "/metrics",
                get(async |app, method, uri, headers| metrics(app, method, uri, headers, View::All).await),
            )
            .route(
                "/metrics/cadvisor",
                get(async |app, method, uri, headers| {
                    metrics(app, method, uri, headers, View::Kubelet).await
                }),
            )
            .route("/metrics/self", get(own_metrics))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .merge(kubelet::routes())
            .merge(cadvisor::routes())
            .merge(pages::routes())
            .fallback(not_found)
            .method_not_allowed_fallback(not_allowed)
            .with_state(Arc::clone(self))
    }

    /// What is wrong with the collection, if anything.
    fn sick(&self) -> Option<String> {
        let limit = self.policy.interval * 3 + Duration::from_secs(5);
        let (age, what) = match self.snapshots.latest() {
            Some(snapshot) => (snapshot.monotonic.elapsed(), "the last collection was"),
            None => (self.started.elapsed(), "there has been no collection since the start"),
        };
        (age > limit)
            .then(|| format!("{what} {:.1} s ago, more than {:.1} s", age.as_secs_f64(), limit.as_secs_f64()))
    }

    async fn snapshot(&self, requested: Kinds) -> Option<Arc<Snapshot>> {
        self.snapshots.fresh(self.policy.max_age, self.policy.patience, requested).await
    }
}

impl From<Arc<App>> for Site {
    fn from(app: Arc<App>) -> Site {
        Site {
            router: app.router(),
            telemetry: Arc::clone(app.telemetry()),
            bodies: &cadvisor::BODIES,
            paths: app.around.paths.clone(),
            loose_slashes: false,
            handlers: &[],
            refusal: line,
            tidy: Box::new(move || app.tidy()),
        }
    }
}

/// One line of text.
pub fn line(status: StatusCode, text: &str) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{text}\n")).into_response()
}

async fn metrics(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    view: View,
) -> Response {
    let (asked, part) = match asked(&uri, view) {
        Ok(asked) => asked,
        Err((status, text)) => return line(status, &text),
    };
    let max_age = asked.map_or(app.policy.max_age, |asked| asked.min(app.policy.max_age));
    let Policy { kinds, on_request, .. } = app.policy;
    let (path, kinds, requested) = match view {
        View::All => ("/metrics", kinds, Kinds::NONE),
        View::Kubelet => {
            ("/metrics/cadvisor", kinds.or(on_request).and(Kinds::KUBELET), on_request.and(Kinds::KUBELET))
        }
    };
    let format = negotiate(&joined(&headers, ACCEPT));
    let mut gzip = accepts_gzip(&joined(&headers, ACCEPT_ENCODING));
    let body = if method == Method::HEAD {
        Ok(Body::new(Streamed::nothing()))
    } else {
        let Some(snapshot) = app.snapshots.fresh(max_age, app.policy.patience, requested).await else {
            return line(StatusCode::SERVICE_UNAVAILABLE, "nothing has been collected yet");
        };
        let text = Text { openmetrics: format.is_openmetrics(), view, kinds };
        app.telemetry.scrape(path, text.format_label(), if gzip { "gzip" } else { "identity" });
        if part == Part::default() {
            app.body(snapshot, text, gzip).await
        } else {
            // Few ask so, each for something else: nothing is kept of it.
            gzip = false;
            app.bodies.part(snapshot, text, part, app.policy.patience).await.map(Body::new)
        }
    };
    match body {
        Ok(body) => {
            let headers = [(CONTENT_TYPE, format.content_type()), (VARY, "accept, accept-encoding")];
            let mut response = (headers, body).into_response();
            if gzip {
                let value = axum::http::HeaderValue::from_static("gzip");
                response.headers_mut().insert(CONTENT_ENCODING, value);
            }
            response
        }
        Err(error @ NoBody::Busy) => line(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        Err(error @ NoBody::Failed) => line(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// What a scrape's parameters say: the age beyond which a fresher collection is asked for
/// than others get, and which part of it is wanted. `?name[]=` names families; of cAdvisor's
/// options `type` and `max_age` work where they do there, `count` must be a number, and
/// only the newest sample and all containers are ever told.
fn asked(uri: &Uri, view: View) -> Result<(Option<Duration>, Part), Refused> {
    let mut query =
        path::query(uri.query().unwrap_or_default()).ok_or_else(|| bad("the query is not UTF-8"))?;
    if view == View::Kubelet {
        // A kubelet does not look at the others.
        query.retain(|(name, _)| ["name[]", "max_age"].contains(&name.as_str()));
    }
    let Options { runtime, max_age, .. } = Options::read(&query)?;
    let names: Vec<String> = query.into_iter().filter(|(n, _)| n == "name[]").map(|(_, name)| name).collect();
    Ok((max_age, Part { names: (!names.is_empty()).then_some(names), runtime }))
}

impl App {
    async fn body(&self, snapshot: Arc<Snapshot>, text: Text, gzip: bool) -> Result<Body, NoBody> {
        if gzip {
            let body = self.bodies.compressed(snapshot, text).await?;
            return Ok(Body::new(Sending::from(body)));
        }
        Ok(Body::new(self.bodies.streamed(snapshot, text, self.policy.patience).await?))
    }
}

async fn own_metrics(State(app): State<Arc<App>>, method: Method, headers: HeaderMap) -> Response {
    own(&app.telemetry, "/metrics/self", &method, &headers).await
}

/// A process's own metrics, at `path`.
pub async fn own(
    telemetry: &Arc<Telemetry>,
    path: &'static str,
    method: &Method,
    headers: &HeaderMap,
) -> Response {
    let format = negotiate(&joined(headers, ACCEPT));
    let content_type = [(CONTENT_TYPE, format.content_type()), (VARY, "accept")];
    if *method == Method::HEAD {
        return (content_type, Body::new(Streamed::nothing())).into_response();
    }
    let name = if format.is_openmetrics() { "openmetrics" } else { "text" };
    telemetry.scrape(path, name, "identity");
    // It reads this process's figures from the kernel.
    let telemetry = Arc::clone(telemetry);
    match tokio::task::spawn_blocking(move || telemetry.encode(format.is_openmetrics())).await {
        Ok(text) => (content_type, text).into_response(),
        Err(error) => {
            tracing::error!(%error, "own metrics panicked");
            line(StatusCode::INTERNAL_SERVER_ERROR, "own metrics failed")
        }
    }
}

async fn healthz(State(app): State<Arc<App>>) -> Response {
    match app.sick() {
        None => line(StatusCode::OK, "ok"),
        Some(why) => line(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

async fn readyz(State(app): State<Arc<App>>) -> Response {
    match (app.snapshots.latest(), app.sick()) {
        (_, Some(why)) => line(StatusCode::SERVICE_UNAVAILABLE, &why),
        (None, None) => line(StatusCode::SERVICE_UNAVAILABLE, "nothing has been collected yet"),
        (Some(_), None) => line(StatusCode::OK, "ok"),
    }
}

/// What the page shows of the machine.
async fn overview(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Response {
    let query = uri.query().unwrap_or_default();
    let names = page::parameter(query, "names");
    let wanted = Wanted { names, past: page::parameter(query, "past").as_deref() == Some("1") };
    app.shown(Kinds::NONE, &headers, move |app, snapshot, gzip| {
        page::json(&Overview::new(&app.around.tell().node_name, snapshot, &app.history, &wanted), gzip)
    })
    .await
}

/// What the page shows of one cgroup, for which more is read while it is shown.
async fn detail(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Response {
    let query = uri.query().unwrap_or_default();
    let path = page::parameter(query, "path").unwrap_or_default();
    let since = page::parameter(query, "since").and_then(|since| since.parse().ok());
    let kinds = app.policy.on_request.and(Kinds::NONE.with(Kind::Process));
    app.shown(kinds, &headers, move |app, snapshot, gzip| {
        match Detail::new(snapshot, &app.history, &path, since) {
            Some(detail) => page::json(&detail, gzip),
            None => line(StatusCode::NOT_FOUND, "there is no such cgroup (any more)"),
        }
    })
    .await
}

impl App {
    /// An answer from a fresh snapshot, made off the event loop.
    async fn shown(
        self: &Arc<Self>,
        kinds: Kinds,
        headers: &HeaderMap,
        answer: impl FnOnce(&App, &Snapshot, bool) -> Response + Send + 'static,
    ) -> Response {
        let Some(snapshot) = self.snapshot(kinds).await else {
            return line(StatusCode::SERVICE_UNAVAILABLE, "nothing has been collected yet");
        };
        let (app, gzip) = (Arc::clone(self), page::takes_gzip(headers));
        let made = tokio::task::spawn_blocking(move || answer(&app, &snapshot, gzip)).await;
        made.unwrap_or_else(|error| {
            tracing::error!(%error, "answer panicked");
            line(StatusCode::INTERNAL_SERVER_ERROR, "the answer failed")
        })
    }
}

/// For paths that are not there.
pub async fn not_found(uri: Uri) -> Response {
    let shown: String = uri.path().chars().take(80).collect();
    line(StatusCode::NOT_FOUND, &format!("nothing at {shown}; / names what there is"))
}

async fn not_allowed(method: Method) -> Response {
    let shown: String = method.as_str().chars().take(20).collect();
    line(StatusCode::METHOD_NOT_ALLOWED, &format!("{shown} is not accepted; accepted: GET, HEAD"))
}

/// All values of a header that is a list.
fn joined(headers: &HeaderMap, name: HeaderName) -> String {
    let values: Vec<_> = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
    values.join(",")
}
