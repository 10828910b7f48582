//! An API server that answers reviews: who holds a token, and what they may do.
//! And it keeps Leases, each under its path.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::connections;
use super::docker::Mood;

/// The stand-in, on a thread of its own; clones share their state.
#[derive(Debug, Clone)]
pub(crate) struct ApiServer {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<Inner>>,
    _running: Arc<Thread>,
}

#[derive(Debug)]
struct Inner {
    mood: Mood,
    /// Token → user and groups.
    users: HashMap<String, (String, Vec<String>)>,
    /// Token → what it was made for and the node it was made on.
    bound: HashMap<String, (String, String)>,
    /// User or group, and what: `nodes/metrics` or a path.
    allowed: HashSet<(String, String)>,
    asked: Vec<Value>,
    leases: HashMap<String, Value>,
    version: u64,
    /// What `extension-apiserver-authentication` says, where it is there.
    trusted: Option<Value>,
}

#[derive(Debug)]
struct Thread(Option<tokio::sync::oneshot::Sender<()>>, Option<JoinHandle<()>>);

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.0.take());
        let _ = self.1.take().map(JoinHandle::join);
    }
}

impl ApiServer {
    pub(crate) fn start() -> ApiServer {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(Inner {
            mood: Mood::Well,
            users: HashMap::new(),
            bound: HashMap::new(),
            allowed: HashSet::new(),
            asked: Vec::new(),
            leases: HashMap::new(),
            version: 0,
            trusted: None,
        }));
        let app = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let serve = async {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        connections::serve(stream, app.clone());
                    }
                };
                tokio::select! {
                    () = serve => {}
                    _ = stopped => {}
                }
            });
        });
        ApiServer { address, state, _running: Arc::new(Thread(Some(stop), Some(thread))) }
    }

    /// A client of it; to be made on the event loop that will use it.
    pub(crate) fn client(&self) -> kube::Client {
        let url = format!("http://{}", self.address).parse().unwrap();
        kube::Client::try_from(kube::Config::new(url)).unwrap()
    }

    pub(crate) fn knows(&self, token: &str, user: &str, groups: &[&str]) {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        self.state.lock().unwrap().users.insert(token.to_owned(), (user.to_owned(), groups));
    }

    /// A token made for an audience, on a node.
    pub(crate) fn knows_bound(&self, token: &str, user: &str, audience: &str, node: &str) {
        self.knows(token, user, &["system:serviceaccounts"]);
        let bound = (audience.to_owned(), node.to_owned());
        self.state.lock().unwrap().bound.insert(token.to_owned(), bound);
    }

    /// Allows a user or a group `nodes/metrics` and the like, or a path, or a verb on a resource of
    /// `metrics.k8s.io`: `list pods shop/`, `get nodes /n1`.
    pub(crate) fn allows(&self, whom: &str, what: &str) {
        self.state.lock().unwrap().allowed.insert((whom.to_owned(), what.to_owned()));
    }

    /// Says whom aggregated API servers are to believe.
    pub(crate) fn trusts(&self, data: Value) {
        self.state.lock().unwrap().trusted = Some(data);
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    /// Writes every Lease once more as it is.
    pub(crate) fn touch_leases(&self) {
        let mut inner = self.state.lock().unwrap();
        let Inner { leases, version, .. } = &mut *inner;
        for lease in leases.values_mut() {
            *version += 1;
            lease["metadata"]["resourceVersion"] = json!(version.to_string());
        }
    }

    /// The reviews asked for since the last call.
    pub(crate) fn asked(&self) -> Vec<Value> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

async fn answer(State(state): State<Arc<Mutex<Inner>>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    if path == "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication" {
        return config_map(state.lock().unwrap().trusted.as_ref());
    }
    let method = request.method().clone();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    if path.contains("/leases") {
        return lease(&mut state.lock().unwrap(), &method, path, &body);
    }
    let mut review: Value = serde_json::from_slice(&body).unwrap();
    let mood = {
        let mut inner = state.lock().unwrap();
        inner.asked.push(review.clone());
        let spec = review["spec"].clone();
        review["status"] = match path.as_str() {
            "/apis/authentication.k8s.io/v1/tokenreviews" => {
                let token = spec["token"].as_str().unwrap();
                let bound = inner.bound.get(token);
                let audience = bound.map_or("https://kubernetes.default.svc", |(audience, _)| audience);
                let meant = spec["audiences"]
                    .as_array()
                    .map_or(bound.is_none(), |asked| asked.iter().any(|a| a == audience));
                match inner.users.get(token) {
                    Some((name, groups)) if meant => {
                        let mut user = json!({"username": name, "uid": "1", "groups": groups});
                        if let Some((_, node)) = bound {
                            user["extra"] = json!({"authentication.kubernetes.io/node-name": [node]});
                        }
                        json!({"authenticated": true, "user": user, "audiences": [audience]})
                    }
                    _ => json!({"authenticated": false, "error": "unknown"}),
                }
            }
            "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
                let what = match spec.get("resourceAttributes") {
                    Some(wanted) if wanted["group"] == "metrics.k8s.io" => {
                        let text = |key: &str| wanted[key].as_str().unwrap_or_default().to_owned();
                        format!(
                            "{} {} {}/{}",
                            text("verb"),
                            text("resource"),
                            text("namespace"),
                            text("name")
                        )
                    }
                    Some(wanted) => {
                        assert_eq!((&wanted["verb"], &wanted["name"]), (&json!("get"), &json!("node-1")));
                        format!(
                            "{}/{}",
                            wanted["resource"].as_str().unwrap(),
                            wanted["subresource"].as_str().unwrap()
                        )
                    }
                    None => spec["nonResourceAttributes"]["path"].as_str().unwrap().to_owned(),
                };
                let mut who: Vec<&str> =
                    spec["groups"].as_array().unwrap().iter().map(|g| g.as_str().unwrap()).collect();
                who.push(spec["user"].as_str().unwrap());
                let allowed = who.iter().any(|w| inner.allowed.contains(&((*w).to_owned(), what.clone())));
                json!({"allowed": allowed})
            }
            other => panic!("asked for {other}"),
        };
        inner.mood
    };
    let mut response = match mood {
        Mood::Well => Response::new(Body::from(review.to_string())),
        Mood::Hangs => std::future::pending().await,
        Mood::Garbage => Response::new(Body::from("<html>not what you think</html>")),
        Mood::Huge => panic!("not of an API server"),
    };
    *response.status_mut() = StatusCode::CREATED;
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

/// Reads, makes and replaces; a replacement of another version than there is is refused.
fn lease(inner: &mut Inner, method: &Method, mut path: String, body: &[u8]) -> Response {
    let status = |code: u16, reason: &str| {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
            "message": reason, "code": code});
        (StatusCode::from_u16(code).unwrap(), status)
    };
    let (code, answer) = if method == Method::GET {
        inner
            .leases
            .get(&path)
            .map_or_else(|| status(404, "NotFound"), |lease| (StatusCode::OK, lease.clone()))
    } else {
        let mut new: Value = serde_json::from_slice(body).unwrap();
        if method == Method::POST {
            path = format!("{path}/{}", new["metadata"]["name"].as_str().unwrap());
        }
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
        match inner.leases.get(&path) {
            Some(_) if method == Method::POST => status(409, "AlreadyExists"),
            Some(there) if version(there) != version(&new) => status(409, "Conflict"),
            _ => {
                inner.version += 1;
                new["metadata"]["resourceVersion"] = json!(inner.version.to_string());
                inner.leases.insert(path, new.clone());
                (StatusCode::OK, new)
            }
        }
    };
    let mut response = Response::new(Body::from(answer.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

fn config_map(trusted: Option<&Value>) -> Response {
    let metadata = json!({"name": "extension-apiserver-authentication", "namespace": "kube-system"});
    let (status, body) = match trusted {
        Some(data) => (
            StatusCode::OK,
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": data}),
        ),
        None => (
            StatusCode::NOT_FOUND,
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "not found", "reason": "NotFound", "code": 404,
            }),
        ),
    };
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}
