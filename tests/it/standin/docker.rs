//! A Docker Engine API on a unix socket.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::broadcast;

use super::{Running, connections};

/// How the stand-in answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    Hangs,
    Garbage,
    /// A hundred megabytes of valid JSON that does not end.
    Huge,
}

/// The stand-in; clones share their state.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<Value>,
}

#[derive(Debug)]
struct Inner {
    containers: BTreeMap<String, Value>,
    mood: Mood,
    inspected: u64,
    /// Inspecting these is an error of the daemon.
    broken: Vec<String>,
}

impl Daemon {
    pub(crate) fn new() -> Daemon {
        let inner = Inner { containers: BTreeMap::new(), mood: Mood::Well, inspected: 0, broken: Vec::new() };
        Daemon { inner: Arc::new(Mutex::new(inner)), events: broadcast::channel(1024).0 }
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.inner.lock().unwrap().mood = mood;
    }

    pub(crate) fn inspected(&self) -> u64 {
        self.inner.lock().unwrap().inspected
    }

    pub(crate) fn break_container(&self, id: &str) {
        self.inner.lock().unwrap().broken.push(id.to_owned());
    }

    /// Adds a running container, as `inspect` shows it.
    pub(crate) fn add(&self, id: &str, name: &str) {
        let container = json!({
            "Id": id, "Name": format!("/{name}"), "Created": "2026-08-20T12:00:00.5Z", "RestartCount": 1,
            "State": {"Status": "running", "Running": true, "Pid": 77, "StartedAt": "2026-08-20T12:00:01Z"},
            "Config": {"Image": "nginx:1", "Labels": {"com.docker.compose.service": name}},
            "HostConfig": {"NetworkMode": "bridge"}
        });
        self.inner.lock().unwrap().containers.insert(id.to_owned(), container);
    }

    /// Gives a container a health check with this outcome.
    pub(crate) fn set_health(&self, id: &str, status: &str) {
        if let Some(container) = self.inner.lock().unwrap().containers.get_mut(id) {
            container["State"]["Health"] = json!({"Status": status, "FailingStreak": 0, "Log": []});
        }
    }

    pub(crate) fn remove(&self, id: &str) {
        self.inner.lock().unwrap().containers.remove(id);
    }

    pub(crate) fn tell(&self, action: &str, id: &str) {
        // Nobody may be listening.
        let _ = self
            .events
            .send(json!({"Type": "container", "Action": action, "Actor": {"ID": id, "Attributes": {}}}));
    }

    pub(crate) fn serve(&self, socket: &Path) -> Running {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let app = Router::new().fallback(answer).with_state(self.clone());
        Running::new(tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections::serve(stream, app.clone());
            }
        }))
    }
}

async fn answer(State(daemon): State<Daemon>, request: Request) -> Response {
    let mood = daemon.inner.lock().unwrap().mood;
    match mood {
        Mood::Well => {}
        Mood::Hangs => std::future::pending().await,
        Mood::Garbage => return Response::new(Body::from("<html>not what you think</html>")),
        Mood::Huge => return Response::new(endless(br#"{"Id":"0","Names":["/x"]},"#, b"[")),
    }
    let path = request.uri().path().to_owned();
    let path = path.strip_prefix("/v1.41").unwrap_or(&path);
    if path == "/version" {
        return json_of(&json!({"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}));
    }
    if path == "/info" {
        return json_of(&json!({"Containers": 1, "DockerRootDir": "/var/lib/docker", "Driver": "overlay2"}));
    }
    if path == "/events" {
        let mut events = daemon.events.subscribe();
        let (sender, body) = fed();
        tokio::spawn(async move {
            while let Ok(event) = events.recv().await {
                if sender.send(Ok(Bytes::from(event.to_string()))).await.is_err() {
                    return;
                }
            }
        });
        return Response::new(body);
    }
    if path == "/containers/json" {
        let inner = daemon.inner.lock().unwrap();
        let list: Vec<Value> = inner
            .containers
            .values()
            .map(|c| {
                json!({"Id": c["Id"], "Names": [c["Name"]], "Image": "sha256:12", "State": "running",
                       "Created": 1_700_000_000, "Labels": c["Config"]["Labels"],
                       "HostConfig": {"NetworkMode": c["HostConfig"]["NetworkMode"]}})
            })
            .collect();
        return json_of(&Value::Array(list));
    }
    let id = path.trim_start_matches("/containers/").trim_end_matches("/json");
    let mut inner = daemon.inner.lock().unwrap();
    inner.inspected += 1;
    let (status, body) = match inner.containers.get(id) {
        _ if inner.broken.iter().any(|b| b == id) => (500, json!({"message": "layer not found"})),
        Some(container) => (200, container.clone()),
        None => (404, json!({"message": "No such container"})),
    };
    let mut answer = json_of(&body);
    *answer.status_mut() = axum::http::StatusCode::from_u16(status).unwrap();
    answer
}

fn json_of(value: &Value) -> Response {
    Response::new(Body::from(value.to_string()))
}

/// A body and the way to fill it.
fn fed() -> (tokio::sync::mpsc::Sender<Result<Bytes, std::io::Error>>, Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    (sender, Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver)))
}

/// `begin`, then `element` over and over for a hundred megabytes.
pub(crate) fn endless(element: &'static [u8], begin: &'static [u8]) -> Body {
    let (sender, body) = fed();
    tokio::spawn(async move {
        let block = Bytes::from(element.repeat(65_536 / element.len()));
        let _ = sender.send(Ok(Bytes::from_static(begin))).await;
        for _ in 0..(100 << 20) / block.len() {
            if sender.send(Ok(block.clone())).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    body
}
