//! What is asked of the aggregator: its model under the paths of Heapster, of the
//! resource metrics API and of the Dashboard's scraper.
//!
//! - [`heapster`] is Heapster's own;
//! - [`request`] reads paths and queries, [`answer`] makes responses.
//!
//! Each answer is a function of the model, the path, the query and the clock, run
//! off the event loop: it may wait for a node's lock, and some are long.

pub mod answer;
pub mod heapster;
pub mod request;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::any;

use crate::aggregate::model::Model;
use answer::Answer;
use request::Asked;

/// Tells the wall clock, milliseconds since the epoch.
pub type Clock = fn() -> u64;

/// The wall clock of this machine.
pub fn wall_clock() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Answers one kind of request from the model, at a time in milliseconds.
type Handler = fn(&Model, &Asked, u64) -> Answer;

/// Where answers begin. Below each path everything is the handler's, with or
/// without a slash at the end.
const ROOTS: &[(&str, Handler)] = &[("/api/v1/model", heapster::model::answer)];

/// The routes of all that is asked of `model`.
pub fn router(model: &Arc<Model>, clock: Clock) -> Router {
    ROOTS.iter().fold(Router::new(), |router, (root, handler)| {
        let model = Arc::clone(model);
        let service = any(async move |request: Request| serve(model, request, root, *handler, clock).await);
        let below = format!("{root}/{{*below}}");
        router.route(root, service.clone()).route(&format!("{root}/"), service.clone()).route(&below, service)
    })
}

async fn serve(
    model: Arc<Model>,
    request: Request,
    root: &'static str,
    handler: Handler,
    clock: Clock,
) -> Response {
    let (parts, _) = request.into_parts();
    let asked = match Asked::new(&parts, root) {
        Ok(asked) => asked,
        Err(refusal) => return refusal.plain(),
    };
    answer::respond(asked, move |asked| handler(&model, asked, clock())).await
}
