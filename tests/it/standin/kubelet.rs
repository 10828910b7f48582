//! A kubelet: `/pods` over TLS or plain, and the pods socket.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_stream::Stream;
use tokio_stream::wrappers::{UnboundedReceiverStream, UnixListenerStream};
use tonic::{Response as Answer, Status};

use super::docker::{Mood, endless};
use super::{Running, connections, id, uid};

#[allow(clippy::all, missing_docs, unreachable_pub, unused, missing_debug_implementations)]
pub(crate) mod pb {
    include!(concat!(env!("OUT_DIR"), "/tests/v1alpha1.rs"));
    pub mod core {
        include!(concat!(env!("OUT_DIR"), "/tests/core.v1.rs"));
    }
}

/// A pod as `/pods` shows it, with one container `app`.
pub(crate) fn pod(number: u32) -> Value {
    json!({
        "metadata": {
            "name": format!("pod-{number}"), "namespace": "shop", "uid": uid(number),
            "creationTimestamp": "2026-08-20T12:44:28Z", "labels": {"app.kubernetes.io/name": "shop"},
            "annotations": {"kubernetes.io/config.source": "api"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "shop-1", "controller": true}],
            "managedFields": [{"fieldsV1": {"f:metadata": {"f:items": [{}]}}}]
        },
        "spec": {
            "containers": [{
                "name": "app", "image": "nginx:1", "env": [{"name": "ODD", "value": "}]\\\"{["}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}
            }],
            "hostNetwork": false
        },
        "status": {
            "phase": "Running", "qosClass": "Burstable", "startTime": "2026-08-20T12:44:29Z",
            "containerStatuses": [{
                "name": "app", "image": "nginx:1", "restartCount": 1, "ready": true,
                "containerID": format!("containerd://{}", id(number * 2 + 1)),
                "state": {"running": {"startedAt": "2026-08-20T12:44:30Z"}}
            }]
        }
    })
}

/// The stand-in; clones share their state.
#[derive(Debug, Clone)]
pub(crate) struct Kubelet(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    pods: Vec<Value>,
    mood: Mood,
    /// The token that is let in; any, and none, if absent.
    token: Option<String>,
    asked: Vec<Option<String>>,
    summary: Value,
}

impl Kubelet {
    pub(crate) fn new(pods: Vec<Value>) -> Kubelet {
        Kubelet(Arc::new(Mutex::new(Inner {
            pods,
            mood: Mood::Well,
            token: None,
            asked: Vec::new(),
            summary: Value::Null,
        })))
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.0.lock().unwrap().mood = mood;
    }

    /// What `/stats/summary` is.
    pub(crate) fn set_summary(&self, summary: Value) {
        self.0.lock().unwrap().summary = summary;
    }

    pub(crate) fn set_pods(&self, pods: Vec<Value>) {
        self.0.lock().unwrap().pods = pods;
    }

    pub(crate) fn let_in(&self, token: &str) {
        self.0.lock().unwrap().token = Some(token.to_owned());
    }

    /// The Authorization header of each request.
    pub(crate) fn asked(&self) -> Vec<Option<String>> {
        self.0.lock().unwrap().asked.clone()
    }

    fn app(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    /// Serves plain HTTP on a free port of loopback.
    pub(crate) async fn serve_plain(&self) -> (Running, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = self.app();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections::serve(stream, app.clone());
            }
        });
        (Running::new(task), port)
    }

    /// Serves TLS on a free port of loopback.
    pub(crate) async fn serve_tls(
        &self,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> (Running, u16) {
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = self.app();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(stream) = acceptor.accept(stream).await {
                    connections::serve(stream, app.clone());
                }
            }
        });
        (Running::new(task), port)
    }
}

async fn answer(State(kubelet): State<Kubelet>, request: Request) -> Response {
    let summary = request.uri().path() == "/stats/summary";
    assert!(summary || request.uri().path() == "/pods", "asked for {}", request.uri());
    let token = request.headers().get("authorization").map(|v| v.to_str().unwrap().to_owned());
    let (mood, body) = {
        let mut inner = kubelet.0.lock().unwrap();
        inner.asked.push(token.clone());
        if inner.token.as_ref().is_some_and(|want| token != Some(format!("Bearer {want}"))) {
            let mut refused = Response::new(Body::from("Unauthorized"));
            *refused.status_mut() = StatusCode::UNAUTHORIZED;
            return refused;
        }
        let list = || json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": inner.pods});
        (inner.mood, if summary { inner.summary.to_string() } else { list().to_string() })
    };
    match mood {
        Mood::Well => Response::new(Body::from(body)),
        Mood::Hangs => std::future::pending().await,
        Mood::Garbage => Response::new(Body::from("<html>not what you think</html>")),
        Mood::Huge => {
            Response::new(endless(br#"{"metadata":{"name":"a","namespace":"b"}},"#, br#"{"items":["#))
        }
    }
}

/// The pods socket. What is sent to `events` goes to the one who watches.
#[derive(Debug)]
pub(crate) struct PodsSocket {
    events: Mutex<Option<mpsc::UnboundedReceiver<Result<pb::WatchPodsEvent, Status>>>>,
}

impl PodsSocket {
    pub(crate) fn serve(
        socket: &Path,
    ) -> (Running, mpsc::UnboundedSender<Result<pb::WatchPodsEvent, Status>>) {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        let service = pb::pods_server::PodsServer::new(PodsSocket { events: Mutex::new(Some(receiver)) });
        let task = tokio::spawn(async move {
            let served = tonic::transport::Server::builder().add_service(service);
            served.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        });
        (Running::new(task), sender)
    }
}

#[tonic::async_trait]
impl pb::pods_server::Pods for PodsSocket {
    type WatchPodsStream = Pin<Box<dyn Stream<Item = Result<pb::WatchPodsEvent, Status>> + Send>>;

    async fn watch_pods(
        &self,
        _: tonic::Request<pb::WatchPodsRequest>,
    ) -> Result<Answer<Self::WatchPodsStream>, Status> {
        match self.events.lock().unwrap().take() {
            Some(receiver) => Ok(Answer::new(Box::pin(UnboundedReceiverStream::new(receiver)))),
            None => Err(Status::failed_precondition("the kubelet has not synced yet")),
        }
    }
}
