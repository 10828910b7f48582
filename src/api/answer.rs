//! What a handler says → a response: JSON in the two shapes Heapster sends it,
//! text, or a body that is written while it is sent.

use std::io::{self, Write};

use axum::body::Body as HttpBody;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue, VARY};
use axum::response::{IntoResponse as _, Response};
use flate2::Compression;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::request::Asked;
use crate::expose::scrape::{Feed, Streamed};
use crate::gzip::Gzip;

/// The media type of JSON.
pub const JSON: &str = "application/json";

/// Smaller bodies gain nothing by compression.
const WORTH_COMPRESSING: usize = 1 << 10;

/// Writes a body that is too long to lie in memory.
pub type Writer = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// What an answer consists of.
pub enum Body {
    /// All of it.
    Whole(Vec<u8>),
    /// What comes when it is sent.
    Written(Writer),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Body::Whole(bytes) => f.debug_tuple("Whole").field(&bytes.len()).finish(),
            Body::Written(_) => f.debug_tuple("Written").finish_non_exhaustive(),
        }
    }
}

/// Long answers that are sent at once at most: each keeps a thread until its
/// client has read it.
static TURNS: Semaphore = Semaphore::const_new(4);

/// What to answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body's media type.
    pub media_type: &'static str,
    /// What the client may name the next time to hear only of changes.
    pub tag: Option<String>,
    /// The body.
    pub body: Body,
}

impl Answer {
    /// A line of text.
    pub fn text(status: StatusCode, text: &str) -> Answer {
        let media_type = "text/plain; charset=utf-8";
        Answer { status, media_type, tag: None, body: Body::Whole(text.as_bytes().to_vec()) }
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
        Answer { status: StatusCode::OK, media_type: JSON, tag: None, body: Body::Whole(body) }
    }

    /// JSON that is written while it is sent.
    pub fn written(writer: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> Answer {
        Answer { status: StatusCode::OK, media_type: JSON, tag: None, body: Body::Written(Box::new(writer)) }
    }

    fn failed(error: &serde_json::Error) -> Answer {
        tracing::error!(%error, "answer cannot be written as JSON");
        Answer::text(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written")
    }

    /// As a response, compressed where the client takes that and it is worth it.
    pub fn into_response(self, gzip: bool) -> Response {
        let mut encoded = false;
        let body = match self.body {
            Body::Whole(bytes) if gzip && bytes.len() >= WORTH_COMPRESSING => {
                let compressed = compress(&bytes);
                encoded = compressed.is_ok();
                HttpBody::from(compressed.unwrap_or(bytes))
            }
            Body::Whole(bytes) => HttpBody::from(bytes),
            Body::Written(writer) => {
                let Ok(turn) = TURNS.try_acquire() else {
                    return Answer::text(StatusCode::SERVICE_UNAVAILABLE, "busy with other long answers")
                        .into_response(false);
                };
                encoded = gzip;
                let (feed, streamed) = Streamed::pipe();
                tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    // A client that left takes no more; that is its right.
                    if let Err(error) = write(writer, feed, gzip) {
                        tracing::debug!(%error, "long answer broke off");
                    }
                });
                HttpBody::new(streamed)
            }
        };
        let mut response = (self.status, [(CONTENT_TYPE, self.media_type)], body).into_response();
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
        if let Some(tag) = self.tag.and_then(|tag| HeaderValue::try_from(tag).ok()) {
            headers.insert(ETAG, tag);
        }
        if encoded {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = Gzip::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn write(writer: Writer, feed: Feed, gzip: bool) -> io::Result<()> {
    if !gzip {
        let mut feed = feed;
        writer(&mut feed)?;
        return feed.finish();
    }
    let mut encoder = Gzip::new(feed, Compression::fast());
    writer(&mut encoder)?;
    encoder.finish()?.finish()
}

/// A parameter of one element of an `Accept` header: `v1` is `v` of
/// `application/json;as=Table;v=v1`.
pub fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let mut parameters = element.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    parameters.find(|(known, _)| known.trim() == name).map(|(_, value)| value.trim())
}

/// Whether a request with this `Accept` header takes JSON.
pub fn accepts_json(accept: &str) -> bool {
    let takes = |element: &str| {
        let media = element.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let refused = parameter(element, "q").is_some_and(|q| q.bytes().all(|b| matches!(b, b'0' | b'.')));
        matches!(media.as_str(), "*/*" | "application/*" | "application/json") && !refused
    };
    accept.trim().is_empty() || accept.split(',').any(takes)
}

/// Answers off the event loop.
pub async fn respond(asked: Asked, answer: impl FnOnce(&Asked) -> Answer + Send + 'static) -> Response {
    let made = tokio::task::spawn_blocking(move || answer(&asked).into_response(asked.gzip));
    made.await.unwrap_or_else(|error| {
        tracing::error!(%error, "answer panicked");
        Answer::text(StatusCode::INTERNAL_SERVER_ERROR, "the answer failed").into_response(false)
    })
}
