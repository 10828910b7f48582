//! Asking the API server who holds a token and what they may do, as the
//! kubelet does: `TokenReview`, then `SubjectAccessReview`.
//!
//! Answers are kept, by the token's code and by the question, so that scrapes
//! cost the API server nothing; what was let in and what was refused are kept
//! apart, so that guessing cannot push out those who are known. When the API
//! server does not answer nobody new is let in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::Semaphore;

use super::User;
use super::cache::Cache;
use super::request::Resource;
use super::tokens::{Code, Coder};
use crate::telemetry::Limiter;

/// How long answers are kept and waited for.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Who holds a token.
    pub known: Duration,
    /// That nobody does.
    pub unknown: Duration,
    /// That something is allowed.
    pub allowed: Duration,
    /// That it is not.
    pub denied: Duration,
    /// From a request to its decision.
    pub answer: Duration,
}

impl Default for Times {
    /// Those of the kubelet for what is allowed; a token is known for longer,
    /// since it is bound to be asked about again with every scrape.
    fn default() -> Self {
        Times {
            known: Duration::from_secs(600),
            unknown: Duration::from_secs(10),
            allowed: Duration::from_secs(300),
            denied: Duration::from_secs(30),
            answer: Duration::from_secs(5),
        }
    }
}

impl Times {
    /// Those of an aggregated API server, whose rights are taken away as quickly
    /// as those at the API server itself.
    pub fn short() -> Times {
        let short = Duration::from_secs(10);
        Times { known: short, unknown: short, allowed: short, denied: short, ..Times::default() }
    }
}

/// Answers kept of each kind.
const KEPT: usize = 1024;

/// Questions open at once: more would let strangers use us against the API server.
const AT_ONCE: usize = 8;

/// Longest token asked about; service accounts' have about 1,000 bytes.
const LONGEST: usize = 8 << 10;

/// The API server gave no decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered;

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Question {
    Node { verb: &'static str, subresource: &'static str },
    Path { verb: &'static str, path: String },
    Resource(Resource),
}

/// A token, and the audience it has to be made for.
type Shown = (Code, Option<&'static str>);

/// See the module.
pub struct Reviews {
    client: Client,
    node_name: String,
    coder: Coder,
    times: Times,
    known: Cache<Shown, Arc<User>>,
    unknown: Cache<Shown, ()>,
    allowed: Cache<(Arc<User>, Question), ()>,
    denied: Cache<(Arc<User>, Question), ()>,
    turns: Semaphore,
}

impl std::fmt::Debug for Reviews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reviews").field("node_name", &self.node_name).finish_non_exhaustive()
    }
}

impl Reviews {
    /// Asks through `client`, about the node of this name.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(client: Client, node_name: String, times: Times) -> anyhow::Result<Reviews> {
        let coder = Coder::new().map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
        Ok(Reviews {
            client,
            node_name,
            coder,
            times,
            known: Cache::new(times.known, KEPT),
            unknown: Cache::new(times.unknown, KEPT),
            allowed: Cache::new(times.allowed, KEPT),
            denied: Cache::new(times.denied, KEPT),
            turns: Semaphore::new(AT_ONCE),
        })
    }

    /// Who holds a token made for `audience`, without one for the API server;
    /// `None` for nobody.
    ///
    /// # Errors
    /// The API server gave no decision in time.
    pub(super) async fn holder(
        &self,
        token: &str,
        audience: Option<&'static str>,
    ) -> Result<Option<Arc<User>>, Unanswered> {
        if token.len() > LONGEST {
            return Ok(None);
        }
        let code = (self.coder.code(token.as_bytes()), audience);
        if let Some(user) = self.known.get(&code, Instant::now()) {
            return Ok(Some(user));
        }
        if self.unknown.get(&code, Instant::now()).is_some() {
            return Ok(None);
        }
        let audiences = audience.map(|audience| vec![audience.to_owned()]);
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences };
        let review = TokenReview { spec, ..TokenReview::default() };
        let status = self.ask("TokenReview", review).await?.status.ok_or_else(|| unusable("TokenReview"))?;
        // Without audiences it is a token for the API server itself.
        let meant = audience.is_none_or(|ours| status.audiences.iter().flatten().any(|a| a == ours));
        let user = match (status.authenticated, status.user) {
            (Some(true), Some(user)) if meant => user,
            _ => {
                self.unknown.put(code, (), Instant::now());
                return Ok(None);
            }
        };
        // The name decides what is allowed: one without it is no answer.
        let name = user.username.filter(|name| !name.is_empty()).ok_or_else(|| unusable("TokenReview"))?;
        let extra = user.extra.unwrap_or_default().into_iter().collect();
        let user = Arc::new(User { name, uid: user.uid, groups: user.groups.unwrap_or_default(), extra });
        self.known.put(code, Arc::clone(&user), Instant::now());
        Ok(Some(user))
    }

    /// Whether a user may do this with a subresource of the node.
    ///
    /// # Errors
    /// The API server gave no decision in time.
    pub(super) async fn may_at_node(
        &self,
        user: &Arc<User>,
        verb: &'static str,
        subresource: &'static str,
    ) -> Result<bool, Unanswered> {
        self.allows(user, Question::Node { verb, subresource }).await
    }

    /// Whether a user may do this with a path.
    ///
    /// # Errors
    /// The API server gave no decision in time.
    pub(super) async fn may_at_path(
        &self,
        user: &Arc<User>,
        verb: &'static str,
        path: &str,
    ) -> Result<bool, Unanswered> {
        self.allows(user, Question::Path { verb, path: path.to_owned() }).await
    }

    /// Whether a user may do this with what Kubernetes' API calls a resource.
    ///
    /// # Errors
    /// The API server gave no decision in time.
    pub(super) async fn may_with(&self, user: &Arc<User>, resource: Resource) -> Result<bool, Unanswered> {
        self.allows(user, Question::Resource(resource)).await
    }

    async fn allows(&self, user: &Arc<User>, question: Question) -> Result<bool, Unanswered> {
        let key = (Arc::clone(user), question);
        if self.allowed.get(&key, Instant::now()).is_some() {
            return Ok(true);
        }
        if self.denied.get(&key, Instant::now()).is_some() {
            return Ok(false);
        }
        let mut spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: user.uid.clone(),
            groups: Some(user.groups.clone()),
            extra: (!user.extra.is_empty()).then(|| user.extra.iter().cloned().collect()),
            ..SubjectAccessReviewSpec::default()
        };
        match &key.1 {
            Question::Node { verb, subresource } => {
                spec.resource_attributes = Some(ResourceAttributes {
                    verb: Some((*verb).to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some((*subresource).to_owned()),
                    name: Some(self.node_name.clone()),
                    ..ResourceAttributes::default()
                });
            }
            Question::Resource(wanted) => {
                let given = |text: &String| (!text.is_empty()).then(|| text.clone());
                spec.resource_attributes = Some(ResourceAttributes {
                    verb: Some(wanted.verb.to_owned()),
                    group: given(&wanted.group),
                    version: given(&wanted.version),
                    namespace: given(&wanted.namespace),
                    resource: given(&wanted.resource),
                    subresource: given(&wanted.subresource),
                    name: given(&wanted.name),
                    ..ResourceAttributes::default()
                });
            }
            Question::Path { verb, path } => {
                spec.non_resource_attributes =
                    Some(NonResourceAttributes { verb: Some((*verb).to_owned()), path: Some(path.clone()) });
            }
        }
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let answer = self.ask("SubjectAccessReview", review).await?;
        let status = answer.status.ok_or_else(|| unusable("SubjectAccessReview"))?;
        let allowed = status.allowed && status.denied != Some(true);
        if allowed { &self.allowed } else { &self.denied }.put(key, (), Instant::now());
        Ok(allowed)
    }

    /// Sends a review and waits for it, and for its turn, no longer than it may take.
    async fn ask<K>(&self, what: &'static str, review: K) -> Result<K, Unanswered>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
            + k8s_openapi::Resource
            + Clone
            + serde::Serialize
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
    {
        static FAILED: Limiter = Limiter::every(Duration::from_secs(60));
        let asked = async {
            let _turn = self.turns.acquire().await;
            Api::<K>::all(self.client.clone()).create(&PostParams::default(), &review).await
        };
        let error = match tokio::time::timeout(self.times.answer, asked).await {
            Ok(Ok(answer)) => return Ok(answer),
            // The message of an answer that cannot be read may quote it, token and all.
            Ok(Err(kube::Error::SerdeError(_))) => "the answer cannot be read".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.times.answer),
        };
        if let Some(suppressed) = FAILED.pass() {
            tracing::warn!(
                what,
                error,
                suppressed,
                "the API server gave no decision, so nobody new is let in"
            );
        }
        Err(Unanswered)
    }
}

fn unusable(what: &'static str) -> Unanswered {
    static UNUSABLE: Limiter = Limiter::every(Duration::from_secs(60));
    if let Some(suppressed) = UNUSABLE.pass() {
        tracing::warn!(what, suppressed, "the API server's answer has no decision in it");
    }
    Unanswered
}
