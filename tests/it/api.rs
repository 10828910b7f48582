//! What the aggregator answers: batches checked by hand go into a model, and
//! every API's answer is compared with what these figures come to.
//!
//! [`cluster`] has the batches and says what is in them.

pub(crate) mod cluster;
mod dashboard;
mod export;
mod model;
mod resource;
mod snapshot;
mod usage;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use nodegauge::aggregate::model::Model;
use nodegauge::api;
use nodegauge::auth::path;
use serde_json::Value;
use tower::ServiceExt as _;

/// One answer of the API.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Asks the routes over `model`, at [`cluster::NOW`].
fn ask(model: &Arc<Model>, request: Request<Body>) -> Answer {
    ask_at(model, request, || cluster::NOW)
}

fn ask_at(model: &Arc<Model>, mut request: Request<Body>, clock: api::Clock) -> Answer {
    // As the listener does it.
    let target = request.uri().path_and_query().unwrap();
    let query = target.query().map_or_else(String::new, |query| format!("?{query}"));
    *request.uri_mut() = format!("{}{query}", path::tidied(target.path())).parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let response = api::router(model, clock).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    })
}

fn get(model: &Arc<Model>, target: &str) -> Answer {
    ask(model, Request::get(target).body(Body::empty()).unwrap())
}

/// The answer to each request is this JSON.
fn check(model: &Arc<Model>, expected: &[(&str, Value)]) {
    for (target, expected) in expected {
        let found = get(model, target).json();
        assert_eq!(&found, expected, "{target}: {found:#}");
    }
}
