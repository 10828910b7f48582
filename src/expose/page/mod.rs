//! The pages a browser shows: files that are part of the program, and the JSON they
//! are filled from.
//!
//! | path | answer |
//! |---|---|
//! | `/` | the role's page |
//! | `/page/*` | its style and scripts, which hold no data |
//! | `/api/page/node` | the agent's machine and all its cgroups: see [`node`] |
//! | `/api/page/cgroup?path=P` | one cgroup's last minutes: see [`cgroup`] |
//!
//! Plain HTML, CSS and JavaScript as they are in `assets/`, embedded when we are
//! built; nothing is fetched from elsewhere, which the header
//! `Content-Security-Policy` holds browsers to. Names are put on pages as text only.
//! A browser asks again with the files' tag, and gets 304 until another version runs.
//!
//! Both endpoints take `since`, the `at` of the answer before, and tell what is new.

pub mod cgroup;
pub mod node;

use std::io::Write as _;
use std::sync::OnceLock;

use axum::Router;
use axum::body::Body;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderName, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::accepts_gzip;
use crate::auth::path;

/// Whose page it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// One machine's.
    Agent,
    /// The cluster's.
    Aggregator,
}

/// What a page may load and do: its own files, and questions to where it came from.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Smaller bodies gain nothing by compression.
const WORTH_COMPRESSING: usize = 1 << 10;

/// A file.
struct Asset {
    path: &'static str,
    media_type: &'static str,
    text: &'static str,
    compressed: OnceLock<Vec<u8>>,
}

const fn asset(path: &'static str, media_type: &'static str, text: &'static str) -> Asset {
    Asset { path, media_type, text, compressed: OnceLock::new() }
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

static AGENT: Asset = asset("/", HTML, include_str!("assets/agent.html"));
static AGGREGATOR: Asset = asset("/", HTML, include_str!("assets/aggregator.html"));

static SHARED: [Asset; 6] = [
    asset("/page/style.css", CSS, include_str!("assets/style.css")),
    asset("/page/common.js", SCRIPT, include_str!("assets/common.js")),
    asset("/page/charts.js", SCRIPT, include_str!("assets/charts.js")),
    asset("/page/agent.js", SCRIPT, include_str!("assets/agent.js")),
    asset("/page/aggregator.js", SCRIPT, include_str!("assets/aggregator.js")),
    asset("/page/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];

/// The routes of a page and its files.
pub fn router<S: Clone + Send + Sync + 'static>(page: Page) -> Router<S> {
    let first = match page {
        Page::Agent => &AGENT,
        Page::Aggregator => &AGGREGATOR,
    };
    let files = std::iter::once(first).chain(&SHARED);
    files.fold(Router::new(), |router, file| {
        router.route(file.path, get(async move |headers: HeaderMap| file.answer(&headers)))
    })
}

impl Asset {
    fn answer(&'static self, headers: &HeaderMap) -> Response {
        let tag = concat!("\"", env!("CARGO_PKG_VERSION"), "\"");
        let tag = if cfg!(debug_assertions) { "" } else { tag };
        let known = headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let head: [(HeaderName, &'static str); 6] = [
            (CONTENT_TYPE, self.media_type),
            (CACHE_CONTROL, "no-cache"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            (VARY, "accept-encoding"),
        ];
        let known = !tag.is_empty() && known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag);
        let mut response = if known {
            (StatusCode::NOT_MODIFIED, head).into_response()
        } else if takes_gzip(headers) {
            let compressed = self.compressed.get_or_init(|| gzip(self.text.as_bytes()).unwrap_or_default());
            (head, [(CONTENT_ENCODING, "gzip")], Body::from(compressed.as_slice())).into_response()
        } else {
            (head, self.text).into_response()
        };
        if !tag.is_empty() {
            response.headers_mut().insert(ETAG, HeaderValue::from_static(tag));
        }
        response
    }
}

/// Whether who sent these headers takes gzip.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let values: Vec<_> = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).collect();
    accepts_gzip(&values.join(","))
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// A value as JSON that nobody keeps. Not for the event loop: large ones take milliseconds.
pub fn json(value: &impl Serialize, compressed: bool) -> Response {
    let body = match serde_json::to_vec(value) {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(%error, "page's figures cannot be written");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let head = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store"), (VARY, "accept-encoding")];
    if compressed
        && body.len() >= WORTH_COMPRESSING
        && let Ok(body) = gzip(&body)
    {
        return (head, [(CONTENT_ENCODING, "gzip")], body).into_response();
    }
    (head, body).into_response()
}

/// A value of a query, decoded; the first of that name.
pub fn parameter(query: &str, name: &str) -> Option<String> {
    path::query(query)?.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let check = |query: &str, expected: Option<&str>| {
            assert_eq!(parameter(query, "path").as_deref(), expected, "{query}");
        };
        check("path=%2Fa%20b", Some("/a b"));
        check("since=1&path=/a+b&path=c", Some("/a b"));
        check("paths=x", None);
        check("path=%2", Some("%2"));
        check("path=%ff", None);
        check("", None);
    }

    #[test]
    fn pages_are_small_and_ask_nobody_else() {
        let files = [&AGENT, &AGGREGATOR].into_iter().chain(&SHARED);
        let mut bytes = 0;
        for file in files {
            bytes += file.text.len();
            let elsewhere = file.text.replace("http://www.w3.org/", "");
            for word in ["http://", "https://", "style=\"", "onclick", "innerHTML", "insertAdjacent", "eval("]
            {
                assert!(!elsewhere.contains(word), "{} has {word}", file.path);
            }
            assert!(!file.text.contains("<script>"), "{} has a script of its own", file.path);
        }
        assert!(bytes < 150 << 10, "{bytes} bytes");
    }
}
