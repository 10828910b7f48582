//! Paths that a kubelet has too: `/stats/summary` and `/metrics/resource`.

use std::io::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::{App, joined, line};
use crate::auth::path;
use crate::expose::scrape::{Feed, Streamed};
use crate::expose::summary::{self, Extent};
use crate::expose::{negotiate, resource};
use crate::snapshot::{Kind, Kinds};

pub(super) fn routes() -> Router<Arc<App>> {
    let stats = || get(stats_summary).post(stats_summary);
    Router::new()
        .route("/stats/summary", stats())
        .route("/stats/summary/", stats())
        .route("/metrics/resource", get(metrics_resource))
}

async fn stats_summary(State(app): State<Arc<App>>, method: Method, uri: Uri) -> Response {
    let Some(query) = path::query(uri.query().unwrap_or_default()) else {
        return line(StatusCode::BAD_REQUEST, "the query is not UTF-8");
    };
    // As the kubelet has it: anything but one value that is `true` asks for all.
    let mut asked = query.iter().filter(|(name, _)| name == "only_cpu_and_memory").map(|(_, v)| v.as_str());
    let extent = match (asked.next(), asked.next()) {
        (Some("true"), None) => Extent::CpuAndMemory,
        _ => Extent::Full,
    };
    let content_type = [(CONTENT_TYPE, "application/json")];
    if method == Method::HEAD {
        return (content_type, Body::new(Streamed::nothing())).into_response();
    }
    // Counting a pod's processes is left to those who ask for everything.
    let requested = match extent {
        Extent::Full => app.policy.on_request.and(Kinds::NONE.with(Kind::Process)),
        Extent::CpuAndMemory => Kinds::NONE,
    };
    let Some(snapshot) = app.snapshot(requested).await else {
        return line(StatusCode::SERVICE_UNAVAILABLE, "nothing has been collected yet");
    };
    app.telemetry.scrape("/stats/summary", "json", "identity");
    let surroundings = app.around.tell();
    let write = move |feed: &mut Feed| summary::write(&snapshot, &surroundings, extent, feed);
    match app.bodies.written(app.policy.patience, write).await {
        Ok(body) => (content_type, Body::new(body)).into_response(),
        Err(error) => line(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

async fn metrics_resource(State(app): State<Arc<App>>, method: Method, headers: HeaderMap) -> Response {
    let format = negotiate(&joined(&headers, ACCEPT));
    let headers = [(CONTENT_TYPE, format.content_type()), (VARY, "accept")];
    if method == Method::HEAD {
        return (headers, Body::new(Streamed::nothing())).into_response();
    }
    // Where there is nothing yet, the text says so itself.
    let snapshot = app.snapshot(Kinds::NONE).await;
    let name = if format.is_openmetrics() { "openmetrics" } else { "text" };
    app.telemetry.scrape("/metrics/resource", name, "identity");
    let write =
        move |feed: &mut Feed| resource::write(snapshot.as_deref(), format, |chunk| feed.write_all(chunk));
    match app.bodies.written(app.policy.patience, write).await {
        Ok(body) => (headers, Body::new(body)).into_response(),
        Err(error) => line(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}
