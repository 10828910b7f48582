//! Whom an aggregated API server believes, as Kubernetes has it: the API server's
//! front proxy, which tells in headers who asks; else a certificate of the cluster's
//! CA; else a token that the API server knows.
//!
//! Which CAs these are is said by files, or by the `ConfigMap`
//! `kube-system/extension-apiserver-authentication`, which every API server keeps there.
//! Both are read again as they change: CAs are rotated. What cannot be used changes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls;

use super::files::{Watched, read};
use super::{AUTHENTICATED, Reviews, User, der, tls};
use crate::telemetry::Limiter;

/// Where Kubernetes tells whom an aggregated API server has to believe.
const NAMESPACE: &str = "kube-system";
const CONFIG_MAP: &str = "extension-apiserver-authentication";

/// Everybody who was not told apart belongs to it.
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// How long it counts that a certificate was found good, while what is believed stays
/// the same.
const VERIFIED: Duration = Duration::from_secs(10);

/// What was said about front proxies on the command line; what was not comes from the `ConfigMap`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// Certificates that sign those of clients, PEM.
    pub client_ca: Option<PathBuf>,
    /// Certificates that sign those of front proxies, PEM. With it all that follows is as said here.
    pub proxy_ca: Option<PathBuf>,
    /// Common names of front proxies; any where there are none.
    pub names: Vec<String>,
    /// Headers with the user's name, the first that there is counts; `X-Remote-User` without any.
    pub username_headers: Vec<String>,
    /// Headers with the user's groups, one each; `X-Remote-Group` without any.
    pub group_headers: Vec<String>,
    /// What headers with more about the user begin with; `X-Remote-Extra-` without any.
    pub extra_prefixes: Vec<String>,
}

impl Given {
    /// Whether the `ConfigMap` has to be asked at all.
    fn is_whole(&self) -> bool {
        self.client_ca.is_some() && self.proxy_ca.is_some()
    }
}

/// Certificates that sign others, and what tells whether they did.
#[derive(Debug, Clone)]
struct Signers {
    certificates: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Signers {
    fn new(pem: &[u8]) -> Result<Signers, String> {
        let certificates = tls::of_pem(pem)?;
        let roots = Arc::new(tls::store(&certificates).map_err(|error| error.to_string())?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
        Ok(Signers { certificates, verifier: verifier.map_err(|error| error.to_string())? })
    }

    fn signed(&self, chain: &[CertificateDer<'static>]) -> bool {
        let Some((leaf, between)) = chain.split_first() else { return false };
        self.verifier.verify_client_cert(leaf, between, UnixTime::now()).is_ok()
    }
}

/// What is believed now.
#[derive(Debug, Clone)]
struct Trust {
    clients: Option<Signers>,
    proxies: Option<Signers>,
    names: Vec<String>,
    username_headers: Vec<String>,
    uid_headers: Vec<String>,
    group_headers: Vec<String>,
    extra_prefixes: Vec<String>,
}

/// A list, or what stands for it where it is empty; headers are compared in small letters.
fn headers(given: &[String], default: &str) -> Vec<String> {
    let lower = |name: &String| name.to_ascii_lowercase();
    if given.is_empty() { vec![default.to_owned()] } else { given.iter().map(lower).collect() }
}

impl Trust {
    fn new(given: &Given, found: &BTreeMap<String, String>) -> Result<Trust, String> {
        let signers = |file: &Option<PathBuf>, key: &str| match file {
            Some(path) => {
                let pem = read(path).map_err(|error| error.to_string())?;
                Signers::new(&pem).map(Some).map_err(|error| format!("{}: {error}", path.display()))
            }
            None => {
                let pem = found.get(key).filter(|pem| !pem.trim().is_empty());
                let signers = pem.map(|pem| Signers::new(pem.as_bytes())).transpose();
                signers.map_err(|error| format!("{CONFIG_MAP}, {key}: {error}"))
            }
        };
        let list = |said: &[String], key: &str| match found.get(key).filter(|_| given.proxy_ca.is_none()) {
            Some(json) => serde_json::from_str::<Vec<String>>(json)
                .map_err(|error| format!("{CONFIG_MAP}, {key}: no list of names: {error}")),
            None => Ok(said.to_vec()),
        };
        Ok(Trust {
            clients: signers(&given.client_ca, "client-ca-file")?,
            proxies: signers(&given.proxy_ca, "requestheader-client-ca-file")?,
            names: list(&given.names, "requestheader-allowed-names")?,
            username_headers: headers(
                &list(&given.username_headers, "requestheader-username-headers")?,
                "x-remote-user",
            ),
            uid_headers: headers(&list(&[], "requestheader-uid-headers")?, "x-remote-uid"),
            group_headers: headers(
                &list(&given.group_headers, "requestheader-group-headers")?,
                "x-remote-group",
            ),
            extra_prefixes: headers(
                &list(&given.extra_prefixes, "requestheader-extra-headers-prefix")?,
                "x-remote-extra-",
            ),
        })
    }

    /// All that may sign a certificate that is shown here.
    fn roots(&self) -> Result<RootCertStore, String> {
        let signers = [&self.clients, &self.proxies].into_iter().flatten();
        let certificates: Vec<_> = signers.flat_map(|signers| signers.certificates.clone()).collect();
        tls::store(&certificates).map_err(|error| error.to_string())
    }

    /// Who shows this certificate.
    fn judge(&self, chain: &[CertificateDer<'static>]) -> Verdict {
        let signed = |signers: &Option<Signers>| signers.as_ref().is_some_and(|s| s.signed(chain));
        let Some(leaf) = chain.first() else { return Verdict::default() };
        let name = der::subject(leaf).and_then(|subject| subject.common_name).unwrap_or_default();
        let meant = self.names.is_empty() || self.names.contains(&name);
        let user = signed(&self.clients).then(|| User::from_certificate(leaf)).flatten().map(Arc::new);
        Verdict { proxy: meant && signed(&self.proxies), user }
    }

    /// Whom a front proxy speaks for; `None` where it does not say.
    fn spoken_for(&self, sent: &HeaderMap) -> Option<User> {
        let texts = |name: &str| -> Option<Vec<String>> {
            let values = sent.get_all(name).iter().map(|value| std::str::from_utf8(value.as_bytes()));
            let values = values.collect::<Result<Vec<_>, _>>().ok()?;
            Some(values.into_iter().map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned).collect())
        };
        let first = |names: &[String]| -> Option<Option<String>> {
            for name in names {
                if let Some(value) = texts(name)?.into_iter().next() {
                    return Some(Some(value));
                }
            }
            Some(None)
        };
        let name = first(&self.username_headers)??;
        let mut groups = Vec::new();
        for header in &self.group_headers {
            groups.extend(texts(header)?);
        }
        if !groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        let mut extra = Vec::new();
        for header in sent.keys() {
            let prefixes = self.extra_prefixes.iter();
            let Some(key) =
                prefixes.filter_map(|prefix| header.as_str().strip_prefix(prefix.as_str())).next()
            else {
                continue;
            };
            // Keys are encoded as in paths; one that cannot be decoded is meant as it is.
            let decoded = super::path::decode(key, false).unwrap_or_else(|| key.to_owned());
            extra.push((decoded.to_lowercase(), texts(header.as_str())?));
        }
        extra.sort();
        Some(User { name, uid: first(&self.uid_headers)?, groups, extra })
    }
}

/// What a certificate makes of who shows it.
#[derive(Debug, Clone, Default)]
struct Verdict {
    proxy: bool,
    user: Option<Arc<User>>,
}

/// The certificates of a connection, and what was last made of them.
#[derive(Debug, Default)]
pub struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    judged: Mutex<Option<(Instant, Arc<Trust>, Verdict)>>,
}

impl Chain {
    /// What a client showed, its own first.
    pub(super) fn new(certificates: &[CertificateDer<'static>]) -> Chain {
        Chain { certificates: certificates.to_vec(), judged: Mutex::new(None) }
    }
}

/// Who asks, and by what that was told.
#[derive(Debug)]
pub(super) enum Caller {
    /// A front proxy said it.
    Proxied(Arc<User>),
    /// A certificate says it.
    Certified(Arc<User>),
    /// Neither: a token may.
    Unknown,
}

/// See the module.
#[derive(Debug)]
pub struct Delegated {
    pub(super) reviews: Reviews,
    given: Given,
    /// What the `ConfigMap` said last.
    found: Mutex<Option<BTreeMap<String, String>>>,
    watched: Mutex<Watched>,
    trust: ArcSwap<Trust>,
}

impl Delegated {
    /// Reads the files. What the `ConfigMap` says is not known yet.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn open(given: Given, reviews: Reviews) -> anyhow::Result<Delegated> {
        let files = [&given.client_ca, &given.proxy_ca];
        let watched = Mutex::new(Watched::new(files.into_iter().flatten().cloned().collect()));
        let trust = Trust::new(&given, &BTreeMap::new()).map_err(|error| anyhow::anyhow!("{error}"))?;
        let trust = ArcSwap::from_pointee(trust);
        Ok(Delegated { reviews, given, found: Mutex::new(None), watched, trust })
    }

    /// Whether it is known whom to believe.
    pub fn is_settled(&self) -> bool {
        self.given.is_whole() || self.found.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// All that may sign a certificate that is shown here, as it is now.
    pub(super) fn roots(&self) -> Result<RootCertStore, String> {
        self.trust.load().roots()
    }

    /// Takes what the `ConfigMap` says; whether that was something new.
    fn found(&self, data: BTreeMap<String, String>) -> Result<bool, String> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.as_ref() == Some(&data) {
            return Ok(false);
        }
        self.trust.store(Arc::new(Trust::new(&self.given, &data)?));
        *found = Some(data);
        Ok(true)
    }

    /// Reads the files again if one has changed; `None` if not. Blocks.
    pub(super) fn refresh(&self) -> Option<Result<(), String>> {
        let changed = self.watched.lock().unwrap_or_else(PoisonError::into_inner).changed();
        changed.then(|| {
            let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            let trust = Trust::new(&self.given, found.as_ref().unwrap_or(&BTreeMap::new()))?;
            self.trust.store(Arc::new(trust));
            Ok(())
        })
    }

    /// Asks for the `ConfigMap` once; whether it said something new.
    ///
    /// # Errors
    /// In words: there is no answer, or none that can be used.
    pub(super) async fn ask(&self, client: &Client) -> Result<bool, String> {
        if self.given.is_whole() {
            return Ok(false);
        }
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let map = maps.get(CONFIG_MAP).await.map_err(|error| match error {
            kube::Error::Api(status) => status.message,
            other => other.to_string(),
        })?;
        self.found(map.data.unwrap_or_default())
    }

    /// Who sent a request with these headers on a connection with these certificates.
    pub(super) fn caller(&self, chain: &Chain, sent: &HeaderMap) -> Caller {
        let trust = self.trust.load_full();
        let mut judged = chain.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = match &*judged {
            Some((at, by, verdict)) if at.elapsed() < VERIFIED && Arc::ptr_eq(by, &trust) => verdict.clone(),
            _ => {
                let verdict = trust.judge(&chain.certificates);
                *judged = Some((Instant::now(), Arc::clone(&trust), verdict.clone()));
                verdict
            }
        };
        if verdict.proxy
            && let Some(user) = trust.spoken_for(sent)
        {
            return Caller::Proxied(Arc::new(user));
        }
        verdict.user.map_or(Caller::Unknown, Caller::Certified)
    }
}

/// Says that the `ConfigMap` cannot be read.
pub(super) fn unread(error: &str) {
    static UNREAD: Limiter = Limiter::every(Duration::from_secs(60));
    if let Some(suppressed) = UNREAD.pass() {
        tracing::warn!(
            config_map = CONFIG_MAP,
            error,
            suppressed,
            "whom to believe cannot be read; what was read last stays"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(entries: &[(&str, &str)]) -> Result<Trust, String> {
        let found = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Trust::new(&Given::default(), &found)
    }

    fn sent(headers: &[(&'static str, &str)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn whom_a_proxy_speaks_for() {
        let usual = trust(&[]).unwrap();
        let mut headers = sent(&[
            ("x-remote-user", "jane"),
            ("x-remote-uid", "7"),
            ("x-remote-group", "admins"),
            ("x-remote-extra-scopes", "a"),
            ("x-remote-extra-acme.com%2Fproject", "one"),
        ]);
        headers.append("x-remote-group", "system:authenticated".parse().unwrap());
        headers.append("x-remote-extra-scopes", "b".parse().unwrap());
        let jane = usual.spoken_for(&headers).unwrap();
        assert_eq!((jane.name.as_str(), jane.uid.as_deref()), ("jane", Some("7")));
        assert_eq!(jane.groups, ["admins", "system:authenticated"]);
        let scopes = ("scopes".to_owned(), vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(jane.extra, [("acme.com/project".to_owned(), vec!["one".to_owned()]), scopes]);
        // Nobody is told of.
        for headers in [sent(&[]), sent(&[("x-remote-user", "  ")]), sent(&[("x-remote-group", "g")])] {
            assert_eq!(usual.spoken_for(&headers), None);
        }
        let mut odd = HeaderMap::new();
        odd.insert("x-remote-user", axum::http::HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(usual.spoken_for(&odd), None);
        let anonymous =
            sent(&[("x-remote-user", "system:anonymous"), ("x-remote-group", "system:unauthenticated")]);
        assert_eq!(usual.spoken_for(&anonymous).unwrap().groups, ["system:unauthenticated"]);
        // Other headers, as the config map names them.
        let other = trust(&[("requestheader-username-headers", r#"["X-User","X-Login"]"#)]).unwrap();
        assert_eq!(other.spoken_for(&headers), None);
        assert_eq!(other.spoken_for(&sent(&[("x-login", "joe")])).unwrap().name, "joe");
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let check = |key: &str, value: &str, expected: &str| {
            let error = trust(&[(key, value)]).unwrap_err();
            assert!(error.contains(key) && error.contains(expected), "{error}");
        };
        check("requestheader-allowed-names", "front-proxy", "no list of names");
        check("client-ca-file", "hello", "holds no certificate");
        check(
            "requestheader-client-ca-file",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
            ": ",
        );
    }
}
