//! A request → the segments of its path below a root, and its query.

use axum::http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};

use super::answer::accepts_json;
use crate::auth::path;
use crate::expose::accepts_gzip;

/// Why a request is not answered at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is no GET.
    Method,
    /// Its path or its query is not UTF-8.
    Encoding,
    /// It takes no JSON.
    MediaType,
}

/// What a handler sees of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The path below the handler's root, decoded. Empty segments are left out, so
    /// that neither a slash at the end nor a doubled one matters.
    pub path: Vec<String>,
    /// Names and values, decoded.
    pub query: Vec<(String, String)>,
    /// The header `Accept`; empty where there is none.
    pub accept: String,
    /// The header `If-None-Match`; empty likewise.
    pub known: String,
    /// Whether the answer may be compressed.
    pub gzip: bool,
}

impl Asked {
    /// Reads a request for something below `root`.
    ///
    /// # Errors
    /// It is not answered.
    pub fn new(parts: &Parts, root: &str) -> Result<Asked, Refused> {
        if parts.method != Method::GET && parts.method != Method::HEAD {
            return Err(Refused::Method);
        }
        let accept = joined(&parts.headers, &ACCEPT);
        if !accepts_json(&accept) {
            return Err(Refused::MediaType);
        }
        let path = path::tidied(parts.uri.path());
        let below = path.strip_prefix(root).unwrap_or_default();
        let query = path::query(parts.uri.query().unwrap_or_default());
        let headers = &parts.headers;
        Ok(Asked {
            path: path::segments(below).ok_or(Refused::Encoding)?,
            query: query.ok_or(Refused::Encoding)?,
            accept,
            known: joined(headers, &axum::http::header::IF_NONE_MATCH),
            gzip: accepts_gzip(&joined(headers, &ACCEPT_ENCODING)),
        })
    }

    /// The segments of the path.
    pub fn segments(&self) -> Vec<&str> {
        self.path.iter().map(String::as_str).collect()
    }

    /// The first value of a parameter; `None` where it is not there or empty.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let value = self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }
}

/// All values of a header that is a list.
fn joined(headers: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<_> = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
    values.join(",")
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn check(target: &str, path: &[&str], query: &[(&str, &str)]) {
        let (parts, ()) = Request::get(target).body(()).unwrap().into_parts();
        let asked = Asked::new(&parts, "/api").unwrap();
        assert_eq!(asked.segments(), path, "{target}");
        let found: Vec<_> = asked.query.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(found, query, "{target}");
    }

    #[test]
    fn paths_and_queries_are_read() {
        check("/api", &[], &[]);
        check("/api/", &[], &[]);
        check("/api//nodes/n1/?", &["nodes", "n1"], &[]);
        check("//api/nodes//n1", &["nodes", "n1"], &[]);
        check("/api/a%2Fb/%zz/c+d", &["a/b", "%zz", "c+d"], &[]);
        check("/api/a?x=1&&y&labels=a%3Ab+c%2bd", &["a"], &[("x", "1"), ("y", ""), ("labels", "a:b c+d")]);
    }

    #[test]
    fn what_is_not_read_is_refused() {
        let refused = |method: &str, target: &str| {
            let request = Request::builder().method(method).uri(target).body(()).unwrap();
            Asked::new(&request.into_parts().0, "/api").unwrap_err()
        };
        assert_eq!(refused("POST", "/api/a"), Refused::Method);
        assert_eq!(refused("GET", "/api/%ff"), Refused::Encoding);
    }
}
