//! Who may ask for what: the part of a listener that says no.
//!
//! Knows nothing of what is served: a [`Guard`] is given a table of paths
//! ([`rules`]) and tells of a request whether it may go on. Whoever comes is
//! told apart by the client's certificate, a static token ([`tokens`]) or the
//! Kubernetes API ([`reviews`]); [`tls`] holds the certificates. Files are read
//! again when they change.

mod cache;
mod der;
mod files;
pub mod reviews;
pub mod rules;
pub mod tls;
pub mod tokens;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use files::FileError;
pub use reviews::Reviews;
pub use rules::Rule;
pub use tls::{Tls, TlsFiles};
pub use tokens::Tokens;

use self::reviews::Unanswered;
use self::rules::Need;
use crate::telemetry::{Decision, Limiter, Means, Reload, Telemetry};

/// What was said about who may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Who may read.
    pub auth: Choice,
    /// Certificate and key; plain http without.
    pub tls: Option<TlsFiles>,
}

/// Who may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Everybody.
    None,
    /// Who has a token of this file, or a certificate that the client CA signed.
    Token(Option<PathBuf>),
    /// Whom the Kubernetes API lets.
    Kubernetes,
}

impl Choice {
    /// As it is written on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Choice::None => "none",
            Choice::Token(_) => "token",
            Choice::Kubernetes => "kubernetes",
        }
    }
}

/// Somebody, as Kubernetes knows them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct User {
    /// Their name.
    pub name: String,
    /// Their id, where there is one.
    pub uid: Option<String>,
    /// Their groups.
    pub groups: Vec<String>,
    /// What else the authenticator told, handed on as it came.
    pub extra: Vec<(String, Vec<String>)>,
}

/// Every user that was told apart at all belongs to it.
const AUTHENTICATED: &str = "system:authenticated";

impl User {
    /// Whom a verified certificate names: the common name, and the
    /// organisations as groups. `None` if it names nobody.
    pub fn from_certificate(certificate: &[u8]) -> Option<User> {
        let subject = der::subject(certificate)?;
        let name = subject.common_name.filter(|name| !name.is_empty())?;
        let mut groups = subject.organizations;
        groups.push(AUTHENTICATED.to_owned());
        Some(User { name, uid: None, groups, extra: Vec::new() })
    }
}

/// Why a request goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody knows who asks.
    Unauthenticated,
    /// They may not.
    Forbidden,
    /// Nobody could tell just now.
    Unavailable,
}

/// How callers are told apart.
#[derive(Debug)]
pub enum How {
    /// Not at all: everybody may read.
    Open,
    /// By a static token or a certificate, which allow everything.
    Token(Option<Box<Tokens>>),
    /// By the API server, which says what they may do.
    Kubernetes(Box<Reviews>),
}

/// A request, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// GET, HEAD and so on.
    pub method: &'a str,
    /// The path as it was sent.
    pub path: &'a str,
    /// The header `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// Whom the client's certificate names.
    pub user: Option<&'a Arc<User>>,
}

/// See the module.
#[derive(Debug)]
pub struct Guard {
    rules: &'static [Rule],
    how: How,
    tls: Option<Tls>,
    telemetry: Arc<Telemetry>,
}

impl Guard {
    /// Guards paths as `rules` say.
    pub fn new(rules: &'static [Rule], how: How, tls: Option<Tls>, telemetry: Arc<Telemetry>) -> Guard {
        let guard = Guard { rules, how, tls, telemetry };
        guard.show_end();
        guard
    }

    /// Reads the files, finds the API server, and guards as `access` says.
    ///
    /// # Errors
    /// A file cannot be used, or there is no API server to ask.
    pub async fn open(
        access: &Access,
        rules: &'static [Rule],
        node_name: &str,
        telemetry: Arc<Telemetry>,
    ) -> anyhow::Result<Guard> {
        use anyhow::Context as _;
        let tls = access
            .tls
            .clone()
            .map(Tls::open)
            .transpose()
            .context("--tls-cert, --tls-key, --tls-client-ca")?;
        let how = match &access.auth {
            Choice::None => How::Open,
            Choice::Token(file) => How::Token(
                file.clone().map(Tokens::open).transpose().context("--auth-token-file")?.map(Box::new),
            ),
            Choice::Kubernetes => {
                let client = crate::kubernetes::client().await.context("--auth kubernetes")?;
                How::Kubernetes(Box::new(Reviews::new(
                    client,
                    node_name.to_owned(),
                    reviews::Times::default(),
                )?))
            }
        };
        Ok(Guard::new(rules, how, tls, telemetry))
    }

    /// What makes handshakes, if connections are to be encrypted.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Whether a path is open to everybody, whoever may read the rest.
    pub fn is_probe(&self, path: &str) -> bool {
        rules::need(self.rules, path) == Need::Open
    }

    /// Lets a request pass, or says why not.
    ///
    /// # Errors
    /// It may not pass.
    pub async fn admit(&self, asked: Asked<'_>) -> Result<(), Refusal> {
        let (How::Token(_) | How::Kubernetes(_)) = self.how else { return Ok(()) };
        let Need::Node(subresource) = rules::need(self.rules, asked.path) else { return Ok(()) };
        let (means, outcome) = self.decide(asked, subresource).await;
        let decision = match outcome {
            Ok(()) => Decision::Accepted,
            Err(Refusal::Unauthenticated) => Decision::Unauthenticated,
            Err(Refusal::Forbidden) => Decision::Forbidden,
            Err(Refusal::Unavailable) => Decision::Failed,
        };
        self.telemetry.decided(means, decision);
        outcome
    }

    async fn decide(&self, asked: Asked<'_>, subresource: &'static str) -> (Means, Result<(), Refusal>) {
        let token = asked.authorization.and_then(bearer);
        match (&self.how, asked.user, token) {
            (How::Open, ..) => (Means::Nothing, Ok(())),
            // As in Kubernetes, a certificate comes first.
            (How::Token(_), Some(_), _) => (Means::Certificate, Ok(())),
            (How::Token(tokens), None, Some(token)) => {
                let known = tokens.as_ref().is_some_and(|tokens| tokens.contain(token.as_bytes()));
                (Means::Token, if known { Ok(()) } else { Err(Refusal::Unauthenticated) })
            }
            (How::Kubernetes(reviews), Some(user), _) => {
                (Means::Certificate, may(reviews, user, asked, subresource).await)
            }
            (How::Kubernetes(reviews), None, Some(token)) => {
                let outcome = match reviews.holder(token).await {
                    Ok(Some(user)) => may(reviews, &user, asked, subresource).await,
                    Ok(None) => Err(Refusal::Unauthenticated),
                    Err(Unanswered) => Err(Refusal::Unavailable),
                };
                (Means::Kubernetes, outcome)
            }
            (How::Token(_) | How::Kubernetes(_), None, None) => {
                (Means::Nothing, Err(Refusal::Unauthenticated))
            }
        }
    }

    /// Reads files again that have changed. Blocks.
    pub fn refresh(&self) {
        let tokens = match &self.how {
            How::Token(tokens) => tokens.as_ref().and_then(|tokens| tokens.refresh()),
            How::Open | How::Kubernetes(_) => None,
        };
        self.reloaded("tokens", tokens);
        self.reloaded("certificate", self.tls.as_ref().and_then(Tls::refresh));
        self.show_end();
    }

    fn reloaded(&self, what: &'static str, result: Option<Result<(), FileError>>) {
        static FAILED: Limiter = Limiter::every(Duration::from_secs(10));
        match result {
            None => {}
            Some(Ok(())) => {
                tracing::info!(what, "changed, read again");
                self.telemetry.reloaded(what, Reload::Taken);
            }
            Some(Err(error)) => {
                self.telemetry.reloaded(what, Reload::Refused);
                if let Some(suppressed) = FAILED.pass() {
                    tracing::warn!(what, %error, suppressed, "changed, but cannot be used; the last one stays");
                }
            }
        }
    }

    fn show_end(&self) {
        if let Some(end) = self.tls.as_ref().and_then(Tls::not_after) {
            self.telemetry.certificate_ends(end);
        }
    }
}

async fn may(
    reviews: &Reviews,
    user: &Arc<User>,
    asked: Asked<'_>,
    subresource: &'static str,
) -> Result<(), Refusal> {
    match reviews.may(user, verb(asked.method), subresource, asked.path).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::Forbidden),
        Err(Unanswered) => Err(Refusal::Unavailable),
    }
}

/// The Kubernetes verb of a method, as the kubelet maps them.
fn verb(method: &str) -> &'static str {
    match method {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "get",
    }
}

/// The token of `Authorization: Bearer TOKEN`.
fn bearer(value: &[u8]) -> Option<&str> {
    let (scheme, token) = std::str::from_utf8(value).ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_tokens() {
        let check = |value: &str, expected| assert_eq!(bearer(value.as_bytes()), expected, "{value:?}");
        check("Bearer abc", Some("abc"));
        check("bearer  abc ", Some("abc"));
        for other in ["", "Bearer", "Bearer ", "Basic YTpi", "abc", "Bearerabc"] {
            check(other, None);
        }
        assert_eq!(bearer(b"Bearer \xff"), None);
    }
}
