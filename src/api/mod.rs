//! What is asked of the aggregator: its model under the paths of Heapster, of the
//! resource metrics API and of the Dashboard's scraper.
//!
//! - [`heapster`] is Heapster's own;
//! - [`resource`] is `metrics.k8s.io`, with [`discovery`], [`openapi`], [`selector`] and [`quantity`];
//! - [`dashboard`] is that of the Dashboard's metrics scraper;
//! - [`rollups`] are sums as families of Prometheus;
//! - [`request`] reads paths and queries, [`answer`] makes responses.
//!
//! Each answer is a function of the model, the path, the query and the clock, run
//! off the event loop: it may wait for a node's lock, and some are long.

pub mod answer;
pub mod dashboard;
pub mod discovery;
pub mod heapster;
pub mod openapi;
pub mod quantity;
pub mod request;
pub mod resource;
pub mod rollups;
pub mod selector;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::any;

use crate::aggregate::model::Model;
use answer::Answer;
use request::{Asked, Refused};

/// Tells the wall clock, milliseconds since the epoch.
pub type Clock = fn() -> u64;

/// The wall clock of this machine.
pub fn wall_clock() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Answers one kind of request from the model, at a time in milliseconds.
type Handler = fn(&Arc<Model>, &Asked, u64) -> Answer;

/// How refusals are written.
type Refusals = fn(Refused) -> Answer;

/// A path, and everything below it. Listeners take slashes out that say nothing.
#[derive(Debug, Clone, Copy)]
struct Root {
    path: &'static str,
    below: bool,
    handler: Handler,
    refusals: Refusals,
}

const fn kubernetes(path: &'static str, below: bool, handler: Handler) -> Root {
    Root { path, below, handler, refusals: as_status }
}

const fn heapster(path: &'static str, handler: Handler) -> Root {
    Root { path, below: true, handler, refusals: as_text }
}

const ROOTS: &[Root] = &[
    heapster("/api/v1/model", heapster::model::answer),
    heapster("/api/v1/metric-export", heapster::export::answer),
    heapster("/api/v1/metric-export-schema", heapster::schema::answer),
    heapster("/apis/metrics/v1alpha1", heapster::usage::answer),
    heapster("/api/v1/dashboard", dashboard::answer),
    DISCOVERY,
    RESOURCES,
];

const DISCOVERY: Root = kubernetes("/apis", false, |_, asked, _| discovery::answer(asked));
const RESOURCES: Root = kubernetes("/apis/metrics.k8s.io", true, resource::answer);

/// What the API server asks of an aggregated one.
const AGGREGATED: &[Root] = &[
    DISCOVERY,
    RESOURCES,
    kubernetes("/openapi/v2", false, |_, asked, _| openapi::v2(asked)),
    kubernetes("/openapi/v3", true, |_, asked, _| openapi::v3(asked)),
    kubernetes("/version", false, |_, _, _| discovery::build()),
];

fn as_text(refused: Refused) -> Answer {
    match refused {
        Refused::Method => Answer::text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"),
        Refused::Encoding => Answer::text(StatusCode::BAD_REQUEST, "the request is not encoded in UTF-8"),
        Refused::MediaType => {
            Answer::text(StatusCode::NOT_ACCEPTABLE, "406: Not Acceptable; there is application/json")
        }
    }
}

fn as_status(refused: Refused) -> Answer {
    let (status, reason, message) = match refused {
        Refused::Method => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "accepted are get and list"),
        Refused::Encoding => (StatusCode::BAD_REQUEST, "BadRequest", "the request is not encoded in UTF-8"),
        Refused::MediaType => (StatusCode::NOT_ACCEPTABLE, "NotAcceptable", "there is application/json only"),
    };
    resource::failure(status, reason, message, None)
}

/// The routes of all that is asked of `model`.
pub fn router(model: &Arc<Model>, clock: Clock) -> Router {
    routes(ROOTS, model, clock)
}

/// The routes of an aggregated API server, which has `metrics.k8s.io` and nothing else.
pub fn aggregated(model: &Arc<Model>, clock: Clock) -> Router {
    routes(AGGREGATED, model, clock)
        .fallback(async || resource::no_resource().into_response(false))
        .method_not_allowed_fallback(async || as_status(Refused::Method).into_response(false))
}

fn routes(roots: &'static [Root], model: &Arc<Model>, clock: Clock) -> Router {
    let mut router = Router::new();
    for root in roots {
        let model = Arc::clone(model);
        let service = any(async move |request: Request| serve(model, request, root, clock).await);
        router = router.route(root.path, service.clone());
        if root.below {
            router = router.route(&format!("{}/{{*below}}", root.path), service);
        }
    }
    router
}

async fn serve(model: Arc<Model>, request: Request, root: &'static Root, clock: Clock) -> Response {
    let (parts, _) = request.into_parts();
    match Asked::new(&parts, root.path) {
        Ok(asked) => answer::respond(asked, move |asked| (root.handler)(&model, asked, clock())).await,
        Err(refused) => (root.refusals)(refused).into_response(false),
    }
}
