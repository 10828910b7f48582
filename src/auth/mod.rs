//! Who may ask for what: the part of a listener that says no.
//!
//! Knows nothing of what is served: a [`Guard`] is given a table of paths
//! ([`rules`]) and tells of a request whether it may go on. Whoever comes is
//! told apart by the client's certificate, a static token ([`tokens`]) or the
//! Kubernetes API ([`reviews`]); [`tls`] holds the certificates. Files are read
//! again when they change.

mod cache;
pub mod delegated;
mod der;
mod files;
pub mod path;
mod request;
pub mod reviews;
pub mod rules;
pub mod tls;
pub mod tokens;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
pub use delegated::Delegated;
pub use files::FileError;
pub use reviews::Reviews;
pub use rules::Rules;
pub use tls::{Tls, TlsFiles};
pub use tokens::Tokens;

use rustls::pki_types::CertificateDer;
use tokio_rustls::rustls;

use self::delegated::{Caller, Chain};
use self::request::Resource;
use self::reviews::Unanswered;
use self::rules::{Need, Opened};
use crate::telemetry::{Decision, Limiter, Means, Reload, Telemetry};

/// What was said about who may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Who may read.
    pub auth: Choice,
    /// Certificate and key; plain http without.
    pub tls: Option<TlsFiles>,
    /// Who may push, where that is not who may read.
    pub push: Option<Choice>,
    /// What everybody may read, whoever may read the rest.
    pub opened: Opened,
}

/// Who may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Everybody.
    None,
    /// Who has a token of this file, or a certificate that the client CA signed.
    Token(Option<PathBuf>),
    /// Who has a certificate that the client CA signed, for one of these names.
    Users(Vec<String>),
    /// Whom the Kubernetes API lets.
    Kubernetes,
}

impl Choice {
    /// As it is written on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Choice::None => "none",
            Choice::Token(_) | Choice::Users(_) => "token",
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

/// What tokens of those who push have to be made for, so that nobody can do
/// anything else with them.
const AUDIENCE: &str = "nodegauge";

/// Where Kubernetes tells which node a token was made on.
const TOKEN_NODE: &str = "authentication.kubernetes.io/node-name";

/// What a kubelet's certificate puts before the name of its node.
const KUBELET: &str = "system:node:";

/// Who may do everything, as Kubernetes has it: an API server's own questions come from it.
const MASTERS: &str = "system:masters";

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

    /// The node they are bound to, where that can be told: that of the token, or
    /// of a kubelet's certificate.
    pub fn node(&self) -> Option<&str> {
        let of_token = self.extra.iter().find(|(key, _)| key == TOKEN_NODE).and_then(|(_, v)| v.first());
        of_token.map(String::as_str).or_else(|| self.name.strip_prefix(KUBELET))
    }
}

/// What was found out about a request that may go on; routes get it with the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// What it had to be allowed.
    pub need: Need,
    /// Who asks, where they were told apart by name.
    pub user: Option<Arc<User>>,
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
    /// By a certificate for one of these names, which allows everything.
    Users(Vec<String>),
    /// By the API server, which says what they may do.
    Kubernetes(Box<Reviews>),
    /// As an aggregated API server does it.
    Delegated(Box<Delegated>),
}

impl How {
    /// Reads the file of tokens, or finds the API server.
    async fn open(choice: &Choice, node_name: &str) -> anyhow::Result<How> {
        use anyhow::Context as _;
        Ok(match choice {
            Choice::None => How::Open,
            Choice::Token(file) => How::Token(
                file.clone().map(Tokens::open).transpose().context("--auth-token-file")?.map(Box::new),
            ),
            Choice::Users(names) => How::Users(names.clone()),
            Choice::Kubernetes => {
                let client = crate::kubernetes::client().await.context("--auth kubernetes")?;
                let times = reviews::Times::default();
                How::Kubernetes(Box::new(Reviews::new(client, node_name.to_owned(), times)?))
            }
        })
    }

    fn tokens(&self) -> Option<&Tokens> {
        match self {
            How::Token(tokens) => tokens.as_deref(),
            How::Open | How::Users(_) | How::Kubernetes(_) | How::Delegated(_) => None,
        }
    }

    fn delegated(&self) -> Option<&Delegated> {
        match self {
            How::Delegated(delegated) => Some(delegated),
            How::Open | How::Token(_) | How::Users(_) | How::Kubernetes(_) => None,
        }
    }
}

/// Who is at the other end of a connection, as far as its certificates tell.
#[derive(Debug, Default)]
pub struct Certified {
    /// Whom the certificate names, where whoever signed it is believed for good.
    user: Option<Arc<User>>,
    /// What was shown, where that has to be looked at again.
    chain: Chain,
}

impl Certified {
    /// Somebody whose certificate is believed for good, or nobody.
    pub fn for_good(user: Option<Arc<User>>) -> Certified {
        Certified { user, chain: Chain::default() }
    }
}

/// A request, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// GET, HEAD and so on.
    pub method: &'a str,
    /// The path as it is routed.
    pub path: &'a str,
    /// What follows the question mark; empty where there is none.
    pub query: &'a str,
    /// The header `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// Whom the connection comes from.
    pub certified: &'a Certified,
}

/// See the module.
#[derive(Debug)]
pub struct Guard {
    rules: Rules,
    how: How,
    push: Option<How>,
    opened: Opened,
    tls: Option<Tls>,
    telemetry: Arc<Telemetry>,
}

impl Guard {
    /// Guards paths as `rules` say.
    pub fn new(rules: Rules, how: How, tls: Option<Tls>, telemetry: Arc<Telemetry>) -> Guard {
        let guard = Guard { rules, how, push: None, opened: Opened::default(), tls, telemetry };
        if let Some(Err(error)) = guard.how.delegated().map(|delegated| guard.believe(delegated)) {
            tracing::warn!(error, "no certificates of clients are taken");
        }
        guard.show_end();
        guard
    }

    /// Lets others push than may read.
    #[must_use]
    pub fn pushed_to_by(self, push: Option<How>) -> Guard {
        Guard { push, ..self }
    }

    /// Lets everybody read these areas.
    #[must_use]
    pub fn opening(self, opened: Opened) -> Guard {
        Guard { opened, ..self }
    }

    /// Reads the files, finds the API server, and guards as `access` says.
    ///
    /// # Errors
    /// A file cannot be used, or there is no API server to ask.
    pub async fn open(
        access: &Access,
        rules: Rules,
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
        let how = How::open(&access.auth, node_name).await?;
        let push = match &access.push {
            Some(choice) => Some(How::open(choice, node_name).await?),
            None => None,
        };
        Ok(Guard::new(rules, how, tls, telemetry).pushed_to_by(push).opening(access.opened))
    }

    /// What makes handshakes, if connections are to be encrypted.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// What the certificates of a connection make of who shows them.
    pub fn recognise(&self, certificates: &[CertificateDer<'static>]) -> Certified {
        if self.how.delegated().is_some() {
            return Certified { user: None, chain: Chain::new(certificates) };
        }
        let user = certificates.first().and_then(|c| User::from_certificate(c)).map(Arc::new);
        Certified::for_good(user)
    }

    /// Whether it is known whom to believe.
    pub fn is_settled(&self) -> bool {
        self.how.delegated().is_none_or(Delegated::is_settled)
    }

    /// Keeps up with whom the API server says is to be believed, asking every so often
    /// and sooner while there is no answer; ends only where nobody has to be asked.
    pub async fn follow(&self, client: kube::Client, every: Duration) {
        let Some(delegated) = self.how.delegated() else { return };
        loop {
            let answered = match delegated.ask(&client).await {
                Ok(true) => {
                    self.reloaded("front proxy", Some(self.believe(delegated)));
                    true
                }
                Ok(false) => true,
                Err(error) => {
                    self.telemetry.reloaded("front proxy", Reload::Refused);
                    delegated::unread(&error);
                    false
                }
            };
            tokio::time::sleep(if answered { every } else { every / 6 }).await;
        }
    }

    /// Has connections take certificates of whom is believed now.
    fn believe(&self, delegated: &Delegated) -> Result<(), String> {
        let roots = delegated.roots()?;
        self.tls.as_ref().map_or(Ok(()), |tls| tls.trust(roots).map_err(|error| error.to_string()))
    }

    /// Whether a path is open to everybody, whoever may read the rest.
    pub fn is_probe(&self, path: &str) -> bool {
        self.rules.need(path) == Need::Open
    }

    /// Lets a request pass, or says why not.
    ///
    /// # Errors
    /// It may not pass.
    pub async fn admit(&self, asked: Asked<'_>) -> Result<Admitted, Refusal> {
        let need = self.rules.need(asked.path);
        let how = self.push.as_ref().filter(|_| need == Need::Push).unwrap_or(&self.how);
        let opened = self.rules.area(asked.path).is_some_and(|area| self.opened.has(area));
        if matches!(how, How::Open) || need == Need::Open || opened {
            return Ok(Admitted { need, user: asked.certified.user.clone() });
        }
        let (means, outcome) = decide(how, asked, need).await;
        let decision = match outcome {
            Ok(_) => Decision::Accepted,
            Err(Refusal::Unauthenticated) => Decision::Unauthenticated,
            Err(Refusal::Forbidden) => Decision::Forbidden,
            Err(Refusal::Unavailable) => Decision::Failed,
        };
        self.telemetry.decided(means, decision);
        outcome.map(|user| Admitted { need, user })
    }

    /// Reads files again that have changed. Blocks.
    pub fn refresh(&self) {
        for tokens in [Some(&self.how), self.push.as_ref()].into_iter().flatten().filter_map(How::tokens) {
            self.reloaded("tokens", tokens.refresh());
        }
        if let Some(delegated) = self.how.delegated() {
            let refreshed = delegated.refresh();
            self.reloaded("front proxy", refreshed.map(|r| r.and_then(|()| self.believe(delegated))));
        }
        self.reloaded("certificate", self.tls.as_ref().and_then(Tls::refresh));
        self.show_end();
    }

    fn reloaded<E: std::fmt::Display>(&self, what: &'static str, result: Option<Result<(), E>>) {
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

type Decided = Result<Option<Arc<User>>, Refusal>;

async fn decide(how: &How, asked: Asked<'_>, need: Need) -> (Means, Decided) {
    let token = asked.authorization.and_then(bearer);
    match (how, asked.certified.user.as_ref(), token) {
        (How::Open, user, _) => (Means::Nothing, Ok(user.cloned())),
        (How::Users(names), Some(user), _) => {
            let named = names.iter().any(|name| *name == user.name);
            (Means::Certificate, if named { Ok(Some(Arc::clone(user))) } else { Err(Refusal::Forbidden) })
        }
        (How::Delegated(delegated), _, token) => {
            match (delegated.caller(&asked.certified.chain, asked.headers), token) {
                (Caller::Proxied(user), _) => {
                    (Means::Proxy, may(&delegated.reviews, user, asked, need).await)
                }
                (Caller::Certified(user), _) => {
                    (Means::Certificate, may(&delegated.reviews, user, asked, need).await)
                }
                (Caller::Unknown, Some(token)) => {
                    (Means::Kubernetes, held(&delegated.reviews, token, asked, need).await)
                }
                (Caller::Unknown, None) => (Means::Nothing, Err(Refusal::Unauthenticated)),
            }
        }
        // As in Kubernetes, a certificate comes first.
        (How::Token(_), Some(user), _) => (Means::Certificate, Ok(Some(Arc::clone(user)))),
        (How::Token(tokens), None, Some(token)) => {
            let known = tokens.as_ref().is_some_and(|tokens| tokens.contain(token.as_bytes()));
            (Means::Token, if known { Ok(None) } else { Err(Refusal::Unauthenticated) })
        }
        (How::Kubernetes(reviews), Some(user), _) => {
            (Means::Certificate, may(reviews, Arc::clone(user), asked, need).await)
        }
        (How::Kubernetes(reviews), None, Some(token)) => {
            (Means::Kubernetes, held(reviews, token, asked, need).await)
        }
        (How::Users(_), None, _) | (How::Token(_) | How::Kubernetes(_), None, None) => {
            (Means::Nothing, Err(Refusal::Unauthenticated))
        }
    }
}

/// Whether whoever holds a token may.
async fn held(reviews: &Reviews, token: &str, asked: Asked<'_>, need: Need) -> Decided {
    let audience = (need == Need::Push).then_some(AUDIENCE);
    match reviews.holder(token, audience).await {
        Ok(Some(user)) => may(reviews, user, asked, need).await,
        Ok(None) => Err(Refusal::Unauthenticated),
        Err(Unanswered) => Err(Refusal::Unavailable),
    }
}

async fn may(reviews: &Reviews, user: Arc<User>, asked: Asked<'_>, need: Need) -> Decided {
    let asks = async {
        if let Need::Node(subresource) = need
            && reviews.may_at_node(&user, verb(asked.method), subresource).await?
        {
            return Ok(true);
        }
        if need == Need::Api {
            if user.groups.iter().any(|group| group == MASTERS) {
                return Ok(true);
            }
            if let Some(resource) = Resource::of(asked.method, asked.path, asked.query) {
                return reviews.may_with(&user, resource).await;
            }
        }
        let verb = if need == Need::Push { "post" } else { verb(asked.method) };
        reviews.may_at_path(&user, verb, asked.path).await
    };
    match asks.await {
        Ok(true) => Ok(Some(user)),
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
    fn who_is_bound_to_a_node() {
        let user = |name: &str, extra: Vec<(&str, Vec<&str>)>| User {
            name: name.to_owned(),
            uid: None,
            groups: Vec::new(),
            extra: extra
                .into_iter()
                .map(|(key, values)| (key.to_owned(), values.into_iter().map(str::to_owned).collect()))
                .collect(),
        };
        assert_eq!(user("system:node:n1", Vec::new()).node(), Some("n1"));
        assert_eq!(user("agents", Vec::new()).node(), None);
        let pod = ("authentication.kubernetes.io/pod-name", vec!["agent-x"]);
        let node = ("authentication.kubernetes.io/node-name", vec!["n2"]);
        assert_eq!(user("system:serviceaccount:a:b", vec![pod.clone(), node]).node(), Some("n2"));
        assert_eq!(user("system:serviceaccount:a:b", vec![pod]).node(), None);
        let none = ("authentication.kubernetes.io/node-name", vec![]);
        assert_eq!(user("system:node:n1", vec![none]).node(), Some("n1"));
    }

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
