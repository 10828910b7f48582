//! An API server that lists and watches nodes, pods and namespaces, and forgets,
//! breaks off and goes away on request.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::connections;

type Line = Result<Bytes, io::Error>;

/// The stand-in, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<Inner>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Inner {
    version: u64,
    /// By kind and key.
    objects: BTreeMap<(String, String), Value>,
    /// Version, kind, and the event.
    events: Vec<(u64, String, Value)>,
    /// Versions before it are forgotten.
    kept_from: u64,
    watchers: Vec<(String, UnboundedSender<Line>)>,
    down: bool,
    lists: BTreeMap<String, u64>,
    watches: u64,
    queries: Vec<String>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.state.lock().unwrap().watchers.clear();
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Cluster {
    pub(crate) fn start() -> Cluster {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(Inner { version: 100, ..Inner::default() }));
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
        Cluster { address, state, stop: Some(stop), thread: Some(thread) }
    }

    /// A client of it; to be made on the event loop that will use it.
    pub(crate) fn client(&self) -> kube::Client {
        let mut config = kube::Config::new(format!("http://{}", self.address).parse().unwrap());
        config.default_retry = false;
        kube::Client::try_from(config).unwrap()
    }

    /// Adds an object, or changes it.
    pub(crate) fn put(&self, kind: &str, mut object: Value) {
        let mut inner = self.state.lock().unwrap();
        inner.version += 1;
        object["metadata"]["resourceVersion"] = json!(inner.version.to_string());
        let key = (kind.to_owned(), key(&object));
        let known = inner.objects.insert(key, object.clone()).is_some();
        inner.tell(kind, if known { "MODIFIED" } else { "ADDED" }, object);
    }

    pub(crate) fn remove(&self, kind: &str, key: &str) {
        let mut inner = self.state.lock().unwrap();
        inner.version += 1;
        let version = inner.version.to_string();
        let mut object = inner.objects.remove(&(kind.to_owned(), key.to_owned())).unwrap();
        object["metadata"]["resourceVersion"] = json!(version);
        inner.tell(kind, "DELETED", object);
    }

    /// Says only how far things are.
    pub(crate) fn bookmark(&self, kind: &str) {
        let mut inner = self.state.lock().unwrap();
        inner.version += 1;
        let object = json!({"kind": "Status", "metadata": {"resourceVersion": inner.version.to_string()}});
        inner.tell(kind, "BOOKMARK", object);
        inner.events.pop();
    }

    /// Ends all watches as a server does that has had enough.
    pub(crate) fn end_watches(&self) {
        self.state.lock().unwrap().watchers.clear();
    }

    /// Breaks all watches off in the middle of an event.
    pub(crate) fn break_watches(&self) {
        for (_, watcher) in self.state.lock().unwrap().watchers.drain(..) {
            let _ = watcher.send(Ok(Bytes::from_static(b"{\"type\":\"ADDED\",\"object\":{\"meta")));
            let _ = watcher.send(Err(io::Error::other("broken")));
        }
    }

    /// Says something that is no event to all who watch.
    pub(crate) fn babble(&self) {
        for (_, watcher) in &self.state.lock().unwrap().watchers {
            let _ = watcher.send(Ok(Bytes::from_static(b"<html>\n")));
        }
    }

    /// Forgets what happened so far: who wants to go on from there has to list again.
    pub(crate) fn forget(&self) {
        let mut inner = self.state.lock().unwrap();
        inner.version += 1;
        inner.kept_from = inner.version;
        inner.events.clear();
    }

    pub(crate) fn down(&self, down: bool) {
        let mut inner = self.state.lock().unwrap();
        inner.down = down;
        if down {
            inner.watchers.clear();
        }
    }

    /// How many lists of a kind were begun, and how many watches of any.
    pub(crate) fn asked(&self, kind: &str) -> (u64, u64) {
        let inner = self.state.lock().unwrap();
        (inner.lists.get(kind).copied().unwrap_or_default(), inner.watches)
    }

    /// How many watch now.
    pub(crate) fn watchers(&self) -> usize {
        let mut inner = self.state.lock().unwrap();
        inner.watchers.retain(|(_, watcher)| !watcher.is_closed());
        inner.watchers.len()
    }

    /// The query of every request.
    pub(crate) fn queries(&self) -> Vec<String> {
        self.state.lock().unwrap().queries.clone()
    }
}

fn key(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().unwrap();
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

fn line(event: &Value) -> Bytes {
    Bytes::from(format!("{event}\n"))
}

impl Inner {
    fn tell(&mut self, kind: &str, what: &str, object: Value) {
        let event = json!({"type": what, "object": object});
        self.watchers.retain(|(wanted, watcher)| wanted != kind || watcher.send(Ok(line(&event))).is_ok());
        self.events.push((self.version, kind.to_owned(), event));
    }

    fn list(&mut self, kind: &str, query: &BTreeMap<String, String>) -> Value {
        let after = query.get("continue");
        if after.is_none() {
            *self.lists.entry(kind.to_owned()).or_default() += 1;
        }
        let limit: usize = query["limit"].parse().unwrap();
        let of_kind = self.objects.iter().filter(|((k, _), _)| k == kind);
        let mut rest = of_kind.filter(|((_, key), _)| after.is_none_or(|after| key > after));
        let page: Vec<_> = rest.by_ref().take(limit).collect();
        let next = page.last().map(|((_, key), _)| key.clone()).filter(|_| rest.next().is_some());
        let items: Vec<&Value> = page.iter().map(|(_, object)| *object).collect();
        let metadata =
            json!({"resourceVersion": self.version.to_string(), "continue": next.unwrap_or_default()});
        json!({"kind": "List", "metadata": metadata, "items": items})
    }

    fn watch(&mut self, kind: &str, query: &BTreeMap<String, String>) -> Body {
        self.watches += 1;
        let from: u64 = query["resourceVersion"].parse().unwrap();
        let (sender, receiver) = unbounded_channel();
        if from < self.kept_from {
            let gone =
                json!({"kind": "Status", "code": 410, "message": "too old resource version", "metadata": {}});
            sender.send(Ok(line(&json!({"type": "ERROR", "object": gone})))).unwrap();
        } else {
            let missed = self.events.iter().filter(|(version, k, _)| *version > from && k == kind);
            missed.for_each(|(.., event)| sender.send(Ok(line(event))).unwrap());
            self.watchers.push((kind.to_owned(), sender));
        }
        Body::from_stream(UnboundedReceiverStream::new(receiver))
    }
}

async fn answer(State(state): State<Arc<Mutex<Inner>>>, request: Request) -> Response {
    let kind = request.uri().path().strip_prefix("/api/v1/").unwrap().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let pairs = reqwest::Url::parse(&format!("http://a/?{query}")).unwrap();
    let pairs: BTreeMap<String, String> = pairs.query_pairs().into_owned().collect();
    let mut inner = state.lock().unwrap();
    inner.queries.push(format!("{kind}?{query}"));
    if inner.down {
        let status = json!({"kind": "Status", "message": "the stand-in is down", "code": 503});
        let mut response = Response::new(Body::from(status.to_string()));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return response;
    }
    let body = match pairs.get("watch") {
        Some(_) => inner.watch(&kind, &pairs),
        None => Body::from(inner.list(&kind, &pairs).to_string()),
    };
    Response::new(body)
}
