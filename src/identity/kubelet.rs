//! The kubelet's `GET /pods`: every pod of this node, with spec and status, as
//! the kubelet sees it. It has no watch, so it is asked periodically, and soon
//! after the reader saw an unknown id.
//!
//! Needs `get` on `nodes/pods` (Kubernetes 1.33; `nodes/proxy` before, which
//! also allows to run commands in containers). The list is read as it comes,
//! one pod at a time: on a full node it is several MB.

mod pod;
mod pods_api;
mod tls;

use std::convert::Infallible;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use hyper::Uri;
use hyper::header::HeaderValue;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::grpc::proto::core::Pod;
use super::http::{self, Connection};
use super::json::{Cutter, Wanted};
use super::model::{Names, PodInfo};
use super::source::{Feed, Session, Source, SourceError, within};
use super::store::{MAX_PODS, View};
pub(super) use pods_api::PodsApi;
pub use tls::Trust;

/// Bytes accepted of a list, and of one pod; etcd holds no larger object.
const MAX_LIST: usize = 64 << 20;
const MAX_POD: usize = 2 << 20;

/// A pod as the API server writes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct ApiPod(Pod);

impl ApiPod {
    /// Its namespace and name.
    pub fn names(&self) -> Option<(&str, &str)> {
        self.0.metadata.as_ref().map(|m| (m.namespace.as_str(), m.name.as_str()))
    }

    /// The node it was given to; empty before that.
    pub fn node(&self) -> &str {
        self.0.spec.as_ref().map_or("", |spec| &spec.node_name)
    }

    /// What is kept of it; `None` without a UID that cgroups carry.
    pub fn info(self, names: &mut Names) -> Option<Arc<PodInfo>> {
        let mut view = View::default();
        pod::add(self.0, &mut view, names);
        view.pods.into_values().next()
    }
}

/// How to reach and believe the kubelet.
#[derive(Debug, Clone)]
pub struct Access {
    /// Its URL; `http` only for the read-only port.
    pub url: Uri,
    /// A service account's token; read again for every request, since it rotates.
    pub token_file: Option<PathBuf>,
    /// Whom to trust.
    pub trust: Trust,
}

/// Where a pod finds its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Where kubelets keep the certificate they signed themselves, on the host; the
/// second is that of Azure's nodes.
const OWN_CERTIFICATES: [&str; 2] =
    ["var/lib/kubelet/pki/kubelet.crt", "etc/kubernetes/certs/kubeletserver.crt"];

impl Access {
    /// A kubelet at this URL, with the service account's token and CA if this
    /// process has them, and the node's own certificate if it can be read.
    pub fn new(url: Uri, node_name: Option<String>, host_root: &Path) -> Access {
        let account = Path::new(SERVICE_ACCOUNT);
        let token = account.join("token");
        Access {
            url,
            token_file: token.exists().then_some(token),
            trust: Trust {
                ca_file: Some(account.join("ca.crt")),
                pinned: OWN_CERTIFICATES.iter().map(|path| host_root.join(path)).collect(),
                node_name,
                insecure: false,
            },
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Kubelet {
    access: Access,
}

impl Kubelet {
    pub(super) fn new(access: Access) -> Self {
        Kubelet { access }
    }

    async fn follow(&self, feed: &mut Feed) -> Result<Infallible, SourceError> {
        feed.version("/pods".to_owned());
        feed.events(false);
        loop {
            let started = Instant::now();
            let view = within("GET /pods", feed.timing.list, self.pods(feed)).await?;
            feed.publish(view);
            feed.answered(started.elapsed());
            feed.refresh_due(feed.timing.gap * 10).await;
        }
    }

    async fn pods(&self, feed: &mut Feed) -> Result<View, SourceError> {
        const WHAT: &str = "GET /pods";
        let (mut connection, authority) = self.connect().await?;
        let token = if self.is_tls() { self.token()? } else { None };
        let answer = connection.get(WHAT, &authority, "/pods", token.as_ref()).await?;
        let mut body = answer.into_body();
        let mut cutter = Cutter::new(Wanted::Items, MAX_POD);
        let mut view = View::default();
        let (mut size, mut pods, mut rejected) = (0, 0, 0);
        while let Some(bytes) = http::chunk(WHAT, &mut body).await? {
            size += bytes.len();
            if size > MAX_LIST {
                return Err(SourceError::failed(WHAT, format!("the answer is larger than {MAX_LIST} bytes")));
            }
            let names = &mut feed.names;
            let cut = cutter.push(&bytes, |object| {
                pods += 1;
                let used = pods <= MAX_PODS
                    && serde_json::from_slice::<Pod>(object).is_ok_and(|p| pod::add(p, &mut view, names));
                rejected += u64::from(!used);
            });
            cut.map_err(|e| SourceError::failed(WHAT, e))?;
        }
        cutter.finish().map_err(|e| SourceError::failed(WHAT, e))?;
        feed.rejected(rejected);
        Ok(view)
    }

    fn is_tls(&self) -> bool {
        self.access.url.scheme_str() != Some("http")
    }

    async fn connect(&self) -> Result<(Connection, String), SourceError> {
        let url = &self.access.url;
        let host = url.host().ok_or_else(|| SourceError::failed("connect", "the URL names no host"))?;
        let port = url.port_u16().unwrap_or(if self.is_tls() { 10250 } else { 10255 });
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, port)).await.map_err(|e| SourceError::failed("connect", e))?;
        let authority = format!("{host}:{port}");
        if !self.is_tls() {
            return Ok((Connection::over(stream).await?, authority));
        }
        let name = match bare.parse::<IpAddr>() {
            Ok(address) => ServerName::from(address),
            Err(_) => ServerName::try_from(bare.to_owned()).map_err(|e| SourceError::failed("connect", e))?,
        };
        let connector = TlsConnector::from(self.access.trust.client_config()?);
        let stream = connector.connect(name, stream).await.map_err(|e| SourceError::failed("TLS", e))?;
        Ok((Connection::over(stream).await?, authority))
    }

    fn token(&self) -> Result<Option<HeaderValue>, SourceError> {
        let Some(path) = &self.access.token_file else { return Ok(None) };
        let refuse =
            |cause: String| SourceError::failed("read the token", format!("{}: {cause}", path.display()));
        let token = std::fs::read_to_string(path).map_err(|e| refuse(e.to_string()))?;
        let value = HeaderValue::try_from(format!("Bearer {}", token.trim()));
        let mut value = value.map_err(|_| refuse("not a token".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

impl Source for Kubelet {
    fn session<'a>(&'a mut self, feed: &'a mut Feed) -> Session<'a> {
        Box::pin(self.follow(feed))
    }
}
