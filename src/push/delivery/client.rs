//! HTTP to one target: credentials, certificates, proxies, deadlines, bounds.
//!
//! Proxies come from `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, as
//! everywhere. Connections are kept for [`Timing::client_age`] at most, after
//! which the name is resolved again; a failure or a change of the certificates
//! on disk does the same at once. Redirects are not followed: credentials would
//! go with them. No error names a secret or a query string.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use reqwest::{Certificate, Identity, Method, RequestBuilder, Url};
use thiserror::Error;

use super::Timing;
use super::retry_after;
use crate::push::target::{Access, Peer, SecretError, Target};
use crate::telemetry::push::Trouble;

/// Bytes of an answer that are read; errors are shown, acknowledgements are short.
const MAX_ANSWER: usize = 64 << 10;

/// Characters of an answer that are shown.
const MAX_SHOWN: usize = 300;

/// Longest wait that a receiver may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Where systems keep the CA certificates they believe, as one PEM file.
const SYSTEM_CA: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How the token is written in the Authorization header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenScheme {
    /// `Bearer`.
    Bearer,
    /// `Token`, as InfluxDB 2.x calls it.
    Token,
}

/// A request to be made.
#[derive(Debug)]
pub struct Outgoing {
    /// Its method.
    pub method: Method,
    /// Where, with the query.
    pub url: Url,
    /// What goes with it besides credentials.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// As it goes on the wire.
    pub body: Bytes,
}

impl Outgoing {
    /// A GET without anything.
    pub fn get(url: Url) -> Outgoing {
        Outgoing { method: Method::GET, url, headers: Vec::new(), body: Bytes::new() }
    }
}

/// An address below another.
pub fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The wait it asks for.
    pub retry_after: Option<Duration>,
    /// The beginning of it: 64 KiB, unless more is wanted.
    pub body: Bytes,
}

impl Answer {
    /// The beginning of the body, for people: one line, without control characters.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let shown: String =
            text.trim().chars().take(MAX_SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
        shown
    }
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum SendError {
    /// A credential cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A certificate or key cannot be used.
    #[error("use {path:?}: {cause}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// No connection, or it broke.
    #[error("{0}")]
    Broken(String),
}

impl SendError {
    /// Its class, for the metrics.
    pub(super) fn trouble(&self) -> Trouble {
        match self {
            SendError::Secret(_) | SendError::Certificate { .. } => Trouble::Credentials,
            SendError::Deadline(_) => Trouble::Deadline,
            SendError::Broken(_) => Trouble::Unreachable,
        }
    }
}

/// The way to one target.
#[derive(Debug)]
pub struct Http {
    /// Scheme, host, port and path as the URI has them.
    pub url: Url,
    access: Access,
    scheme: TokenScheme,
    timing: Timing,
    /// Bytes of an answer that are read.
    most: usize,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    client: reqwest::Client,
    made: Instant,
    files: Vec<Option<SystemTime>>,
}

impl Http {
    pub(super) fn new(target: &Target, scheme: TokenScheme, timing: Timing) -> Http {
        let (url, access) = (target.url.clone(), target.access.clone());
        Http { url, access, scheme, timing, most: MAX_ANSWER, current: None }
    }

    /// To something of ours, whose answers are read up to `most` bytes.
    pub fn to(peer: &Peer, timing: Timing, most: usize) -> Http {
        let (url, access) = (peer.url.clone(), peer.access.clone());
        Http { url, access, scheme: TokenScheme::Bearer, timing, most, current: None }
    }

    /// Makes a request and reads its answer.
    ///
    /// # Errors
    /// There was no answer, or the request could not be made.
    pub async fn send(&mut self, outgoing: Outgoing) -> Result<Answer, SendError> {
        let deadline = self.timing.request;
        let sent = match tokio::time::timeout(deadline, self.exchange(outgoing)).await {
            Ok(sent) => sent,
            Err(_) => Err(SendError::Deadline(deadline)),
        };
        if sent.is_err() {
            // The next attempt resolves the name again.
            self.current = None;
        }
        sent
    }

    async fn exchange(&mut self, outgoing: Outgoing) -> Result<Answer, SendError> {
        let Outgoing { method, url, headers, body } = outgoing;
        let mut all = HeaderMap::new();
        all.insert(USER_AGENT, HeaderValue::from_static(concat!("nodegauge/", env!("CARGO_PKG_VERSION"))));
        all.extend(headers);
        let request = self.client()?.request(method, url).headers(all).body(body);
        let request = self.authorized(request)?;
        let mut response = request.send().await.map_err(broken)?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok());
        let retry_after = retry_after
            .and_then(|text| retry_after::parse(text, SystemTime::now()))
            .map(|t| t.min(MAX_RETRY_AFTER));
        let mut body = BytesMut::new();
        // An answer that breaks off after its status is still an answer, unless
        // it is one of success: then it may come from a proxy that gave up.
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let room = self.most.saturating_sub(body.len());
                    body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
                    if body.len() >= self.most {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) if (200..300).contains(&status) => return Err(broken(error)),
                Err(_) => break,
            }
        }
        Ok(Answer { status, retry_after, body: body.freeze() })
    }

    /// The request with the credentials as they are now.
    fn authorized(&self, request: RequestBuilder) -> Result<RequestBuilder, SendError> {
        Ok(match (&self.access.basic, &self.access.token) {
            (Some((user, password)), _) => request.basic_auth(user, Some(password.read()?)),
            (None, Some(token)) => match self.scheme {
                TokenScheme::Bearer => request.bearer_auth(token.read()?),
                TokenScheme::Token => {
                    let value = HeaderValue::from_str(&format!("Token {}", token.read()?));
                    let mut value = value.map_err(|_| SecretError::Unusable("a header".to_owned()))?;
                    value.set_sensitive(true);
                    request.header(AUTHORIZATION, value)
                }
            },
            (None, None) => request,
        })
    }

    /// The client in use, or a new one where it is too old or certificates changed.
    fn client(&mut self) -> Result<reqwest::Client, SendError> {
        let files: Vec<_> =
            self.files().map(|f| std::fs::metadata(f).and_then(|m| m.modified()).ok()).collect();
        if let Some(current) = &self.current
            && current.made.elapsed() < self.timing.client_age
            && current.files == files
        {
            return Ok(current.client.clone());
        }
        let client = self.build()?;
        self.current = Some(Current { client: client.clone(), made: Instant::now(), files });
        Ok(client)
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        let identity = self.access.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        self.access.ca.iter().chain(identity).map(PathBuf::as_path)
    }

    fn build(&self) -> Result<reqwest::Client, SendError> {
        // Another part of the program may have been first; it takes the same.
        drop(tokio_rustls::rustls::crypto::ring::default_provider().install_default());
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.timing.connect)
            .pool_idle_timeout(self.timing.client_age)
            .pool_max_idle_per_host(1)
            .http1_only()
            // The system's are read here rather than by the library, which
            // refuses to work at all where there are none, as in our image.
            .tls_certs_only(self.authorities()?)
            .tls_danger_accept_invalid_certs(self.access.insecure);
        if let Some((certificate, key)) = &self.access.identity {
            let mut pem = read(certificate)?;
            pem.push(b'\n');
            pem.extend(read(key)?);
            let refused = |error: reqwest::Error| SendError::Certificate {
                path: certificate.clone(),
                cause: chain(&error.without_url()),
            };
            builder = builder.identity(Identity::from_pem(&pem).map_err(refused)?);
        }
        builder.build().map_err(broken)
    }

    fn authorities(&self) -> Result<Vec<Certificate>, SendError> {
        let parse = |path: &Path| {
            Certificate::from_pem_bundle(&read(path)?).map_err(|error| SendError::Certificate {
                path: path.to_owned(),
                cause: chain(&error.without_url()),
            })
        };
        match &self.access.ca {
            Some(path) => parse(path),
            None if self.url.scheme() != "https" || self.access.insecure => Ok(Vec::new()),
            None => {
                let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
                let known = SYSTEM_CA.iter().map(PathBuf::from);
                match named.into_iter().chain(known).find(|path| path.is_file()) {
                    Some(path) => parse(&path),
                    None => Ok(Vec::new()),
                }
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SendError> {
    std::fs::read(path)
        .map_err(|error| SendError::Certificate { path: path.to_owned(), cause: error.to_string() })
}

fn broken(error: reqwest::Error) -> SendError {
    SendError::Broken(chain(&error.without_url()))
}

/// An error and its causes in one line. The library's own words say where, the
/// last cause says why.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_shown_as_one_short_line() {
        let answer =
            Answer { status: 400, retry_after: None, body: Bytes::from(format!("a\nb{}", "x".repeat(9999))) };
        let text = answer.text();
        assert!(text.starts_with("a bxx") && text.len() == 300, "{text}");
    }
}
