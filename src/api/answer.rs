//! What a handler says → a response: JSON in the two shapes Heapster sends it,
//! text, or a body that is written while it is sent.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue, VARY};
use axum::response::{IntoResponse as _, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::request::Asked;

/// The media type of JSON.
pub const JSON: &str = "application/json";

/// Smaller bodies gain nothing by compression.
const WORTH_COMPRESSING: usize = 1 << 10;

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body's media type.
    pub media_type: &'static str,
    /// What the client may name the next time to hear only of changes.
    pub tag: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A line of text.
    pub fn text(status: StatusCode, text: &str) -> Answer {
        let media_type = "text/plain; charset=utf-8";
        Answer { status, media_type, tag: None, body: text.as_bytes().to_vec() }
    }

    /// JSON as it is, and a line feed.
    pub fn compact(value: &impl Serialize) -> Answer {
        Answer::json(value, |body| body.push(b'\n'))
    }

    /// JSON over several lines: one space for each level, and one more on every
    /// line but the first.
    pub fn pretty(value: &impl Serialize) -> Answer {
        let mut body = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
        match value.serialize(&mut serde_json::Serializer::with_formatter(&mut body, formatter)) {
            Ok(()) => {
                // Within strings line feeds are escaped.
                let lines = body.split_inclusive(|byte| *byte == b'\n');
                Answer::ok(lines.collect::<Vec<_>>().join(&b" "[..]))
            }
            Err(error) => Answer::failed(&error),
        }
    }

    /// JSON as Kubernetes sends it.
    pub fn kubernetes(status: StatusCode, value: &impl Serialize) -> Answer {
        Answer { status, ..Answer::compact(value) }
    }

    /// There is no such path.
    pub fn no_page() -> Answer {
        Answer::text(StatusCode::NOT_FOUND, "404: Page Not Found")
    }

    fn json(value: &impl Serialize, finish: impl FnOnce(&mut Vec<u8>)) -> Answer {
        match serde_json::to_vec(value) {
            Ok(mut body) => {
                finish(&mut body);
                Answer::ok(body)
            }
            Err(error) => Answer::failed(&error),
        }
    }

    fn ok(body: Vec<u8>) -> Answer {
        Answer { status: StatusCode::OK, media_type: JSON, tag: None, body }
    }

    fn failed(error: &serde_json::Error) -> Answer {
        tracing::error!(%error, "answer cannot be written as JSON");
        Answer::text(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written")
    }

    /// As a response that is not compressed.
    pub fn plain(self) -> Response {
        let mut response = (self.status, [(CONTENT_TYPE, self.media_type)], self.body).into_response();
        if let Some(tag) = self.tag.and_then(|tag| HeaderValue::try_from(tag).ok()) {
            response.headers_mut().insert(ETAG, tag);
        }
        response
    }

    /// As a response to a client that takes gzip.
    fn compressed(mut self) -> Response {
        use std::io::Write as _;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let compressed = encoder.write_all(&self.body).and_then(|()| encoder.finish());
        let Ok(compressed) = compressed else { return self.plain() };
        self.body = compressed;
        let mut response = self.plain();
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    }
}

/// Whether a request with this `Accept` header takes JSON.
pub fn accepts_json(accept: &str) -> bool {
    let takes = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused = parts.any(|p| {
            let quality = p.strip_prefix("q=").map(|q| q.trim_end_matches('0').trim_end_matches('.'));
            quality.is_some_and(|q| q.is_empty() || q == "0")
        });
        matches!(media.as_str(), "*/*" | "application/*" | "application/json") && !refused
    };
    accept.trim().is_empty() || accept.split(',').any(takes)
}

/// Answers off the event loop, compressed where that is asked for and worth it.
pub async fn respond(asked: Asked, answer: impl FnOnce(&Asked) -> Answer + Send + 'static) -> Response {
    let made = tokio::task::spawn_blocking(move || {
        let answer = if accepts_json(&asked.accept) {
            answer(&asked)
        } else {
            Answer::text(StatusCode::NOT_ACCEPTABLE, "406: Not Acceptable; there is application/json")
        };
        if asked.gzip && answer.body.len() >= WORTH_COMPRESSING {
            answer.compressed()
        } else {
            answer.plain()
        }
    });
    let mut response = match made.await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, "answer panicked");
            Answer::text(StatusCode::INTERNAL_SERVER_ERROR, "the answer failed").plain()
        }
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    response
}
