//! What is asked of the aggregator: its model under the paths of Heapster, of the
//! resource metrics API and of the Dashboard's scraper.
//!
//! - [`heapster`] is Heapster's own;
//! - [`resource`] is `metrics.k8s.io`, with [`discovery`], [`selector`] and [`quantity`];
//! - [`dashboard`] is that of the Dashboard's metrics scraper;
//! - [`request`] reads paths and queries, [`answer`] makes responses.
//!
//! Each answer is a function of the model, the path, the query and the clock, run
//! off the event loop: it may wait for a node's lock, and some are long.

pub mod answer;
pub mod dashboard;
pub mod discovery;
pub mod heapster;
pub mod quantity;
pub mod request;
pub mod resource;
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

/// A path, with or without a slash at the end, and everything below it.
#[derive(Debug, Clone, Copy)]
struct Root {
    path: &'static str,
    below: bool,
    handler: Handler,
    refusals: Refusals,
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
    Root {
        path: "/apis",
        below: false,
        handler: |_, asked, _| discovery::answer(asked),
        refusals: as_status,
    },
    Root { path: "/apis/metrics.k8s.io", below: true, handler: resource::answer, refusals: as_status },
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

/// The routes of all that is asked of `model`. Proxies of Kubernetes double the
/// first slash of a path when they are asked to.
pub fn router(model: &Arc<Model>, clock: Clock) -> Router {
    let mut router = Router::new();
    for (root, slash) in ROOTS.iter().flat_map(|root| [(root, ""), (root, "/")]) {
        let model = Arc::clone(model);
        let service = any(async move |request: Request| serve(model, request, root, clock).await);
        let path = format!("{slash}{}", root.path);
        router = router.route(&path, service.clone()).route(&format!("{path}/"), service.clone());
        if root.below {
            router = router.route(&format!("{path}/{{*below}}"), service);
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
