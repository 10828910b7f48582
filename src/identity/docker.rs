//! Docker's Engine API over its unix socket, and Podman's copy of it.
//!
//! Running containers are listed, each new one is inspected for what lists do
//! not tell, and events say what changed meanwhile.

mod answers;

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::http::{self, Connection};
use super::json::{Cutter, Wanted};
use super::model::{ContainerInfo, ContainerState, Variables};
use super::path::Runtime;
use super::socket::Socket;
use super::source::{Feed, ImageFilesystem, Session, Source, SourceError, within};
use super::store::View;
use crate::snapshot::Health;
use answers::{Event, Info, Inspected, Listed, Version};

/// Bytes accepted of a list, of one container, of one event.
const MAX_LIST: usize = 16 << 20;
const MAX_INSPECT: usize = 4 << 20;
const MAX_EVENT: usize = 1 << 20;
/// Connections that inspect at once.
const PARALLEL: usize = 8;
/// Events waiting to be taken; the daemon is held up beyond that.
const EVENTS: usize = 64;
/// The filter `{"type":["container"]}`.
const EVENTS_QUERY: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D";

/// Docker or Podman at the first of some sockets.
#[derive(Debug)]
pub(super) struct Docker {
    sockets: Vec<PathBuf>,
    runtime: Runtime,
    variables: Variables,
}

/// A daemon that answered, and the prefix of its API's paths.
#[derive(Debug, Clone)]
struct Engine {
    socket: Socket,
    prefix: String,
}

impl Docker {
    pub(super) fn new(sockets: Vec<PathBuf>, runtime: Runtime, variables: Variables) -> Self {
        Docker { sockets, runtime, variables }
    }

    async fn follow(&self, feed: &mut Feed) -> Result<Infallible, SourceError> {
        let timing = feed.timing;
        let mut engine = Engine { socket: Socket::find(&self.sockets)?, prefix: String::new() };
        let mut connection = within("connect", timing.call, engine.connect()).await?;
        let version: Version =
            within("version", timing.call, engine.get(&mut connection, "version", "/version", MAX_INSPECT))
                .await?;
        feed.version(format!("{} (API {})", version.version, version.api_version));
        feed.api(&version.version, &version.api_version);
        engine.prefix = format!("/v{}", version.api_version);

        let variables = self.variables.clone();
        let mut known = Known { runtime: self.runtime, variables, containers: HashMap::new() };
        // Subscribed before the first list, so that nothing falls in between.
        let mut events = subscribe(engine.clone());
        feed.events(true);
        let mut told_images = false;
        loop {
            if engine.socket.is_replaced() {
                return Err(SourceError::failed("follow", "the socket was replaced"));
            }
            refresh(&engine, &mut connection, &mut known, feed).await?;
            if !std::mem::replace(&mut told_images, true) {
                images(&engine, feed).await;
            }
            loop {
                tokio::select! {
                    news = events.receiver.recv() => {
                        let ended = || Err(SourceError::failed("events", "the stream ended"));
                        let mut changed = known.apply(news.unwrap_or_else(ended)?);
                        while let Ok(news) = events.receiver.try_recv() {
                            changed |= known.apply(news?);
                        }
                        if changed {
                            known.inspect(&engine, feed).await?;
                            feed.publish(known.view());
                        }
                    }
                    () = feed.refresh_due(timing.gap) => break,
                }
            }
        }
    }
}

impl Source for Docker {
    fn session<'a>(&'a mut self, feed: &'a mut Feed) -> Session<'a> {
        Box::pin(self.follow(feed))
    }
}

impl Engine {
    async fn connect(&self) -> Result<Connection, SourceError> {
        Connection::over(self.socket.connect().await?).await
    }

    async fn get<T: DeserializeOwned>(
        &self,
        connection: &mut Connection,
        what: &'static str,
        path: &str,
        limit: usize,
    ) -> Result<T, SourceError> {
        let path = format!("{}{path}", self.prefix);
        let answer = connection.get(what, "docker", &path, None).await?;
        let body = http::read(what, answer.into_body(), limit).await?;
        serde_json::from_slice(&body).map_err(|e| SourceError::failed(what, e))
    }
}

/// Asks where images are, which does not change while the daemon runs. What they
/// take up it would have to walk. On a connection of its own, since a daemon that
/// cannot tell has names all the same.
async fn images(engine: &Engine, feed: &mut Feed) {
    let told = within("info", feed.timing.call, async {
        let mut connection = engine.connect().await?;
        engine.get::<Info>(&mut connection, "info", "/info", MAX_INSPECT).await
    });
    let path = match told.await {
        Ok(info) => info.docker_root_dir,
        Err(error) => return tracing::debug!(%error, "the daemon does not tell where its images are"),
    };
    if !path.is_empty() {
        feed.images(vec![ImageFilesystem { path, ..ImageFilesystem::default() }]);
    }
}

/// Lists, publishes the names, inspects what is new.
async fn refresh(
    engine: &Engine,
    connection: &mut Connection,
    known: &mut Known,
    feed: &mut Feed,
) -> Result<(), SourceError> {
    let started = Instant::now();
    let path = "/containers/json?all=0&size=0";
    let list: Vec<Listed> =
        within("list", feed.timing.list, engine.get(connection, "list", path, MAX_LIST)).await?;
    known.listed(&list, feed);
    feed.publish(known.view());
    known.inspect(engine, feed).await?;
    feed.publish(known.view());
    feed.answered(started.elapsed());
    Ok(())
}

/// What the daemon has told so far.
#[derive(Debug)]
struct Known {
    runtime: Runtime,
    variables: Variables,
    containers: HashMap<Arc<str>, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    info: Option<Arc<ContainerInfo>>,
    inspected: bool,
}

impl Known {
    /// Takes a complete list; what is not in it is gone.
    fn listed(&mut self, list: &[Listed], feed: &mut Feed) {
        let mut before = std::mem::take(&mut self.containers);
        let mut rejected = 0;
        for listed in list {
            if let Some((id, old)) = before.remove_entry(listed.id.as_str()).filter(|(_, e)| e.inspected) {
                self.containers.insert(id, old);
            } else if let Some(info) = listed.info(self.runtime, &mut feed.names) {
                let entry = Entry { inspected: false, info: Some(Arc::new(info)) };
                self.containers.insert(Arc::from(listed.id.as_str()), entry);
            } else {
                rejected += 1;
            }
        }
        feed.rejected(rejected);
    }

    /// Takes an event and says whether it changed anything.
    fn apply(&mut self, event: Event) -> bool {
        let id = event.actor.id.as_str();
        match event.action.as_str() {
            "create" | "start" | "restart" | "rename" | "init" | "unpause" | "pause" => {
                let entry = self.containers.entry(Arc::from(id)).or_default();
                entry.inspected = false;
                true
            }
            "die" | "died" => match self.containers.get_mut(id).and_then(|e| e.info.as_mut()) {
                Some(info) => {
                    let ended = ContainerInfo {
                        state: Some(ContainerState::Exited),
                        pid: None,
                        exit_code: event.actor.exit_code(),
                        ..ContainerInfo::clone(info)
                    };
                    *info = Arc::new(ended);
                    true
                }
                None => false,
            },
            "destroy" | "remove" => self.containers.remove(id).is_some(),
            _ => event.health().is_some_and(|health| self.checked(id, health)),
        }
    }

    /// Takes the outcome of a health check, most of which are the same as before.
    fn checked(&mut self, id: &str, health: Health) -> bool {
        let info = self.containers.get_mut(id).and_then(|e| e.info.as_mut());
        let Some(info) = info.filter(|info| info.health != Some(health)) else { return false };
        *info = Arc::new(ContainerInfo { health: Some(health), ..ContainerInfo::clone(info) });
        true
    }

    /// Inspects what has not been, over a few connections.
    async fn inspect(&mut self, engine: &Engine, feed: &mut Feed) -> Result<(), SourceError> {
        let waiting: VecDeque<Arc<str>> =
            self.containers.iter().filter(|(_, e)| !e.inspected).map(|(id, _)| Arc::clone(id)).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let workers = waiting.len().min(PARALLEL);
        let waiting = Arc::new(Mutex::new(waiting));
        let (sender, mut receiver) = mpsc::channel(PARALLEL);
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            tasks.spawn(inspect_some(engine.clone(), Arc::clone(&waiting), sender.clone(), feed.timing.call));
        }
        drop(sender);
        while let Some((id, told)) = receiver.recv().await {
            match told {
                Ok(Some(inspected)) => {
                    let entry = self.containers.entry(id).or_default();
                    entry.inspected = true;
                    match inspected.info(self.runtime, &self.variables, &mut feed.names) {
                        Some(info) if entry.info.as_deref() == Some(&info) => {}
                        Some(info) => entry.info = Some(Arc::new(info)),
                        None => feed.rejected(1),
                    }
                }
                Ok(None) => drop(self.containers.remove(&id)),
                // One container the daemon cannot tell about must not hide the others.
                Err(error @ SourceError::Refused { .. }) => {
                    tracing::debug!(%id, %error, "inspect failed");
                    feed.rejected(1);
                    let entry = self.containers.entry(id).or_default();
                    entry.inspected = true;
                    if let Some(info) = &mut entry.info {
                        *info = Arc::new(ContainerInfo { partial: false, ..ContainerInfo::clone(info) });
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn view(&self) -> View {
        let infos =
            self.containers.iter().filter_map(|(id, e)| Some((Arc::clone(id), Arc::clone(e.info.as_ref()?))));
        View { containers: infos.collect(), ..View::default() }
    }
}

type Told = (Arc<str>, Result<Option<Box<Inspected>>, SourceError>);

/// Inspects ids until none waits.
async fn inspect_some(
    engine: Engine,
    waiting: Arc<Mutex<VecDeque<Arc<str>>>>,
    sender: mpsc::Sender<Told>,
    deadline: std::time::Duration,
) {
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let mut connection = None;
    while let Some(id) = next() {
        let path = format!("{}/containers/{id}/json", engine.prefix);
        let told = within("inspect", deadline, async {
            let open = match &mut connection {
                Some(open) => open,
                none => none.insert(engine.connect().await?),
            };
            let answer = open.find("inspect", "docker", &path, None).await?;
            let Some(answer) = answer else { return Ok(None) };
            let body = http::read("inspect", answer.into_body(), MAX_INSPECT).await?;
            serde_json::from_slice(&body).map(Some).map_err(|e| SourceError::refused("inspect", e))
        });
        let told = told.await;
        let stop = !matches!(told, Ok(_) | Err(SourceError::Refused { .. }));
        if sender.send((id, told)).await.is_err() || stop {
            return;
        }
    }
}

/// A running subscription; dropping it ends it.
struct Events {
    receiver: mpsc::Receiver<Result<Event, SourceError>>,
    task: AbortHandle,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn subscribe(engine: Engine) -> Events {
    let (sender, receiver) = mpsc::channel(EVENTS);
    let task = tokio::spawn(async move {
        if let Err(error) = events(&engine, &sender).await {
            // The session may have ended meanwhile.
            let _ = sender.send(Err(error)).await;
        }
    });
    Events { receiver, task: task.abort_handle() }
}

/// Passes on events that concern us until the stream ends. Most on a busy host
/// are health checks.
async fn events(
    engine: &Engine,
    sender: &mpsc::Sender<Result<Event, SourceError>>,
) -> Result<(), SourceError> {
    let mut connection = engine.connect().await?;
    let path = format!("{}{EVENTS_QUERY}", engine.prefix);
    let mut body = connection.get("events", "docker", &path, None).await?.into_body();
    let mut cutter = Cutter::new(Wanted::Top, MAX_EVENT);
    while let Some(bytes) = http::chunk("events", &mut body).await? {
        let mut found = Vec::new();
        let cut = cutter.push(&bytes, |object| {
            // An event we cannot read is made up for by the next refresh.
            if let Ok(event) = serde_json::from_slice::<Event>(object)
                && !event.action.starts_with("exec_")
            {
                found.push(event);
            }
        });
        for event in found {
            if sender.send(Ok(event)).await.is_err() {
                return Ok(());
            }
        }
        cut.map_err(|e| SourceError::failed("events", e))?;
    }
    Ok(())
}
