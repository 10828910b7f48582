//! `POST /api/v1/batches`, as `proto/nodegauge/v1/ingest.proto` has it.
//!
//! A body is read only when it was let in, fits, and there is room for it beside the others
//! that are being read: memory is bounded whatever agents send. Reading
//! batches is work for other threads than the one that serves.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::aggregate::ingest::{Held, Ingest, Reason, Refused};
use crate::auth::Admitted;
use crate::auth::rules::Need;
use crate::expose::routes::line;
use crate::push::batch::{MEDIA_TYPE, proto};

/// Where batches are posted.
pub const PATH: &str = "/api/v1/batches";

/// What an agent may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a body.
    pub body: usize,
    /// Bytes of all bodies that are being read or wait to be.
    pub in_flight: usize,
    /// Batches being decoded at once.
    pub decoding: usize,
    /// How long a body may take to come.
    pub patience: Duration,
    /// How long a request waits for room.
    pub queue: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Limits {
            // Agents keep theirs below a quarter of this.
            body: 4 << 20,
            in_flight: 64 << 20,
            decoding: cores.clamp(1, 4),
            patience: Duration::from_secs(15),
            queue: Duration::from_secs(2),
        }
    }
}

/// Permits are counted in these, since there are at most 2^32 of them.
const UNIT: usize = 1 << 10;

/// When agents come back that were told to: seconds. Theirs is jittered.
const COME_BACK: u64 = 5;

/// See the module.
#[derive(Debug)]
pub struct Receiver {
    ingest: Arc<Ingest>,
    limits: Limits,
    memory: Arc<Semaphore>,
    decoding: Semaphore,
}

impl Receiver {
    /// One that hands batches to `ingest`.
    pub fn new(ingest: Arc<Ingest>, limits: Limits) -> Arc<Receiver> {
        let memory = Arc::new(Semaphore::new(limits.in_flight / UNIT));
        Arc::new(Receiver { ingest, limits, memory, decoding: Semaphore::new(limits.decoding) })
    }

    async fn receive(&self, admitted: &Admitted, headers: &HeaderMap, body: Body) -> Result<Held, Refused> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let refuse = |reason, text: String| {
            self.ingest.refused(reason);
            Err(Refused::new(reason, text))
        };
        // Another way to this route than the one that is guarded as a push.
        if admitted.need != Need::Push {
            return refuse(Reason::Foreign, "pushes go to their own path".to_owned());
        }
        let length = headers.get(CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse::<usize>().ok());
        let too_large = || refuse(Reason::TooLarge, format!("accepted: at most {} bytes", self.limits.body));
        if length.is_some_and(|length| length > self.limits.body) {
            return too_large();
        }
        let Some(_room) = self.room(length.unwrap_or(self.limits.body)).await else {
            return refuse(Reason::Busy, "too many batches at once".to_owned());
        };
        let bytes = match tokio::time::timeout(self.limits.patience, collect(body, self.limits.body)).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(Uncollected::TooLarge)) => return too_large(),
            Ok(Err(Uncollected::Broken)) => {
                return refuse(Reason::Slow, "the body broke off".to_owned());
            }
            Err(_) => {
                let text = format!("the body took longer than {:?}", self.limits.patience);
                return refuse(Reason::Slow, text);
            }
        };
        // After the body, so that the connection can be used again.
        if headers.get(CONTENT_TYPE).is_none_or(|kind| kind != MEDIA_TYPE) {
            return refuse(Reason::Version, format!("accepted: content-type {MEDIA_TYPE}"));
        }
        // Closing it is nobody's business but ours.
        let Ok(_turn) = self.decoding.acquire().await else {
            return refuse(Reason::Busy, "stopping".to_owned());
        };
        let ingest = Arc::clone(&self.ingest);
        let bound = admitted.user.as_ref().and_then(|user| user.node()).map(str::to_owned);
        let taken = tokio::task::spawn_blocking(move || ingest.take(&bytes, bound.as_deref(), now_ms)).await;
        taken.unwrap_or_else(|error| {
            // It would fail again: the agent is told to drop it.
            tracing::error!(%error, "a batch could not be taken");
            refuse(Reason::Malformed, "it cannot be taken, which is a fault here".to_owned())
        })
    }

    async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT).max(1)).ok()?;
        let room = Arc::clone(&self.memory).acquire_many_owned(units);
        tokio::time::timeout(self.limits.queue, room).await.ok()?.ok()
    }
}

/// Why there is no whole body.
#[derive(Debug)]
pub(super) enum Uncollected {
    TooLarge,
    Broken,
}

/// A body of at most so many bytes.
pub(super) async fn collect(mut body: Body, most: usize) -> Result<Bytes, Uncollected> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Uncollected::Broken)?.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(Uncollected::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// The route.
pub async fn batches(
    State(receiver): State<Arc<Receiver>>,
    Extension(admitted): Extension<Admitted>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match receiver.receive(&admitted, &headers, body).await {
        Ok(held) => {
            let held = proto::Acknowledgement { boot_id: held.boot_id.to_vec(), sequence: held.sequence };
            ([(CONTENT_TYPE, "application/x-protobuf")], held.encode_to_vec()).into_response()
        }
        Err(refused) => {
            let status = status(refused.reason);
            let mut response = line(status, &refused.message);
            if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(COME_BACK));
            }
            response
        }
    }
}

fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::Malformed | Reason::Future => StatusCode::BAD_REQUEST,
        Reason::Version => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::Foreign => StatusCode::FORBIDDEN,
        Reason::Rate => StatusCode::TOO_MANY_REQUESTS,
        Reason::Contested | Reason::Nodes | Reason::Busy | Reason::Slow => StatusCode::SERVICE_UNAVAILABLE,
    }
}
