//! `POST /api/v1/push/prometheus[/metrics/job/PRODUCER]`: metrics of programs' own,
//! as Prometheus' text. Who shows a certificate or a Kubernetes token pushes under
//! its name only; others say in the path who they are.
//!
//! All of a push is taken, 202, or nothing of it. A body is bounded, and so are the
//! bodies that are read at once.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use tokio::sync::Semaphore;

use super::receive::{Uncollected, collect};
use crate::aggregate::custom::{MOST_OF_PRODUCER, Refused};
use crate::aggregate::exposition;
use crate::aggregate::model::Model;
use crate::api::wall_clock;
use crate::auth::Admitted;
use crate::auth::rules::Need;
use crate::expose::routes::line;

/// What the paths begin with.
pub const PATH: &str = "/api/v1/push/";

/// Bytes of a body.
const BODY: usize = 4 << 20;
/// Bodies read at once.
const AT_ONCE: usize = 4;
/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of a producer's name.
const NAME: usize = 128;

/// See the module.
#[derive(Debug)]
pub struct Producers {
    model: Arc<Model>,
    turns: Semaphore,
}

impl Producers {
    /// Into a model.
    pub fn new(model: &Arc<Model>) -> Arc<Producers> {
        Arc::new(Producers { model: Arc::clone(model), turns: Semaphore::new(AT_ONCE) })
    }
}

/// A name that can be a part of a metric's.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':');
    !name.is_empty() && name.len() <= NAME && name.bytes().all(fits)
}

/// The route.
pub async fn push(
    State(producers): State<Arc<Producers>>,
    Extension(admitted): Extension<Admitted>,
    named: Option<Path<String>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let text = |headers: &HeaderMap, name| {
        headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).map(str::to_owned)
    };
    // Another way to this route than the one that is guarded as a push.
    if admitted.need != Need::Push {
        return line(StatusCode::FORBIDDEN, "pushes go to their own path");
    }
    let bound = admitted.user.as_ref().map(|user| user.name.as_str());
    let producer = match (bound, named) {
        (Some(user), Some(Path(named))) if user != named => {
            let why = format!("{user:?} may not push for {named:?}");
            return line(StatusCode::FORBIDDEN, &why);
        }
        (Some(user), _) => user.to_owned(),
        (None, Some(Path(named))) => named,
        (None, None) => {
            let why = "nobody knows who pushes; accepted: /api/v1/push/prometheus/metrics/job/PRODUCER";
            return line(StatusCode::BAD_REQUEST, why);
        }
    };
    if !is_name(&producer) {
        let why = "not a producer's name; accepted: letters, digits and _ - . :";
        return line(StatusCode::BAD_REQUEST, why);
    }
    let kind = text(&headers, CONTENT_TYPE).unwrap_or_default();
    let media = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let encoded = text(&headers, CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
    if media != "text/plain" || encoded {
        let why = "accepted: content-type text/plain; version=0.0.4, without content-encoding";
        return line(StatusCode::UNSUPPORTED_MEDIA_TYPE, why);
    }
    let Ok(_turn) = producers.turns.try_acquire() else {
        let mut response = line(StatusCode::SERVICE_UNAVAILABLE, "too many pushes at once");
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        return response;
    };
    let bytes = match tokio::time::timeout(PATIENCE, collect(body, BODY)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(Uncollected::TooLarge)) => {
            return line(StatusCode::PAYLOAD_TOO_LARGE, &format!("accepted: at most {BODY} bytes"));
        }
        Ok(Err(Uncollected::Broken)) => return line(StatusCode::BAD_REQUEST, "the body broke off"),
        Err(_) => return line(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
    };
    let model = Arc::clone(&producers.model);
    let taken = tokio::task::spawn_blocking(move || take(&model, &producer, &bytes)).await;
    match taken {
        Ok(Ok(())) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::ACCEPTED;
            response
        }
        Ok(Err((status, why))) => line(status, &why),
        Err(error) => {
            tracing::error!(%error, "a push of custom metrics could not be taken");
            line(StatusCode::INTERNAL_SERVER_ERROR, "it cannot be taken, which is a fault here")
        }
    }
}

fn take(model: &Model, producer: &str, bytes: &[u8]) -> Result<(), (StatusCode, String)> {
    let bad = |why: String| (StatusCode::BAD_REQUEST, why);
    let text = std::str::from_utf8(bytes).map_err(|_| bad("the body is not UTF-8".to_owned()))?;
    let samples =
        exposition::samples(text, 2 * MOST_OF_PRODUCER).map_err(|malformed| bad(malformed.to_string()))?;
    model.take_custom(producer, &samples, wall_clock()).map_err(|refused| match refused {
        Refused::Labels(..) => bad(refused.to_string()),
        Refused::TooMany(_) => (StatusCode::PAYLOAD_TOO_LARGE, refused.to_string()),
    })
}
