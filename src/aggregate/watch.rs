//! List and watch of the API server: a picture of one kind of object, kept up to date.
//!
//! A list comes in pages, each read object by object into the little that is kept
//! of it; then changes follow in a watch, which is renewed from where it broke off.
//! Only when the API server has forgotten that place (410 Gone) is it listed again,
//! and what the new list has not is dropped. Failures are retried for ever with
//! backoff; meanwhile the last picture stays.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::http::{Method, Request, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::identity::model::Names;
use crate::push::delivery::backoff::Backoff;
use crate::telemetry::Limiter;

/// Objects of one page.
const PAGE: usize = 500;

/// Bytes of one page, of one event, and of an error that are read.
const MAX_PAGE: usize = 64 << 20;
const MAX_EVENT: usize = 4 << 20;
const MAX_ERROR: usize = 4 << 10;

/// Objects of one kind that are kept.
const MOST: usize = 500_000;

/// Failed watches after which it is listed again, in case what it goes on from is
/// what is wrong.
const FAILED_WATCHES: u32 = 5;

/// A kind of object.
pub trait Object: DeserializeOwned + Send + 'static {
    /// What is kept of it.
    type Kept: PartialEq + Send + Sync;
    /// What has to be known to do so.
    type Context: Send + Sync;
    /// As in paths: `nodes`.
    const KIND: &'static str;
    /// Which of them, by fields; empty for all.
    const SELECTOR: &'static str;
    /// What it is held under.
    fn key(&self) -> Option<String>;
    /// What is kept; `None` for one that is of no use.
    fn keep(self, context: &Self::Context, names: &mut Names) -> Option<Self::Kept>;
}

/// How it went so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Objects held.
    pub objects: usize,
    /// Complete lists.
    pub lists: u64,
    /// Watches that had to be begun again, whyever.
    pub restarts: u64,
    /// Of these and of lists, those that failed.
    pub failures: u64,
    /// Objects that could not be used, or found no room.
    pub rejected: u64,
    /// Whether there was a complete list, and the API server answers.
    pub up: bool,
}

#[derive(Debug)]
struct Entry<K> {
    /// The list it was seen in last, or after which it came.
    list: u64,
    kept: Arc<K>,
}

/// What is known of one kind of object.
#[derive(Debug)]
pub struct Store<K> {
    held: RwLock<HashMap<Box<str>, Entry<K>>>,
    lists: AtomicU64,
    restarts: AtomicU64,
    failures: AtomicU64,
    rejected: AtomicU64,
    up: AtomicBool,
    used: AtomicBool,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Store {
            held: RwLock::default(),
            lists: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            up: AtomicBool::new(false),
            used: AtomicBool::new(false),
        }
    }
}

// What is held is whole at any time, whoever panicked.
impl<K: PartialEq> Store<K> {
    /// The object of that key.
    pub fn get(&self, key: &str) -> Option<Arc<K>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.get(key).map(|entry| Arc::clone(&entry.kept))
    }

    /// All of them.
    pub fn all(&self) -> Vec<(Box<str>, Arc<K>)> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.iter().map(|(key, entry)| (key.clone(), Arc::clone(&entry.kept))).collect()
    }

    /// Whether it was listed once.
    pub fn is_known(&self) -> bool {
        self.lists.load(Relaxed) > 0
    }

    /// Whether anybody keeps it up to date.
    pub fn is_used(&self) -> bool {
        self.used.load(Relaxed)
    }

    /// How it went so far.
    pub fn counts(&self) -> Counts {
        Counts {
            objects: self.held.read().unwrap_or_else(PoisonError::into_inner).len(),
            lists: self.lists.load(Relaxed),
            restarts: self.restarts.load(Relaxed),
            failures: self.failures.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            up: self.up.load(Relaxed),
        }
    }

    /// Holds an object, as of the list that is being read or was read last.
    pub fn put(&self, key: String, kept: K, list: u64) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = held.get_mut(key.as_str()) {
            entry.list = list;
            if *entry.kept != kept {
                entry.kept = Arc::new(kept);
            }
        } else if held.len() < MOST {
            held.insert(key.into(), Entry { list, kept: Arc::new(kept) });
        } else {
            self.rejected.fetch_add(1, Relaxed);
        }
    }

    fn remove(&self, key: &str) {
        self.held.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn listed(&self, list: u64) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, entry| entry.list >= list);
        held.shrink_to_fit();
        self.lists.fetch_add(1, Relaxed);
    }
}

/// Deadlines and waits.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For a page of a list, and for the beginning of a watch.
    pub answer: Duration,
    /// After which the API server ends a watch; a while longer and it is broken.
    pub watch: Duration,
    /// The first wait after a failure.
    pub retry_min: Duration,
    /// The longest.
    pub retry_max: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            answer: Duration::from_secs(30),
            watch: Duration::from_secs(90),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

#[derive(Debug, Deserialize)]
struct Page<O> {
    #[serde(default)]
    metadata: ListMeta,
    items: Option<Vec<O>>,
}

/// What all events have, also those that carry no object.
#[derive(Debug, Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    object: HeadObject,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HeadObject {
    metadata: ListMeta,
    code: u16,
    message: String,
}

#[derive(Debug, Deserialize)]
struct Carrying<O> {
    object: O,
}

/// Why there is no answer, or no more of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The place to go on from is forgotten.
    #[error("410 Gone: {0}")]
    Gone(String),
    /// The API server says no, or something else answers.
    #[error("{0}")]
    Refused(String),
    /// Nothing answers, or it broke off.
    #[error("{0}")]
    Broken(String),
}

/// Keeps a [`Store`] up to date.
#[derive(Debug)]
pub struct Watcher<'a, O: Object> {
    store: &'a Store<O::Kept>,
    client: Shown,
    context: O::Context,
    timing: Timing,
    names: Mutex<Names>,
}

/// A client that can be shown.
struct Shown(Client);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl<'a, O: Object> Watcher<'a, O> {
    /// One that fills `store` by `client`.
    pub fn new(store: &'a Store<O::Kept>, client: Client, context: O::Context, timing: Timing) -> Self {
        store.used.store(true, Relaxed);
        Watcher { store, client: Shown(client), context, timing, names: Mutex::default() }
    }

    /// Runs for ever.
    pub async fn run(&self) -> std::convert::Infallible {
        let mut backoff = Backoff::new(self.timing.retry_min, self.timing.retry_max);
        loop {
            let mut version = match self.list().await {
                Ok(version) => version,
                Err(trouble) => {
                    self.wait(&mut backoff, "list", &trouble).await;
                    continue;
                }
            };
            backoff.reset();
            let counts = self.store.counts();
            if !self.store.up.swap(true, Relaxed) {
                tracing::info!(kind = O::KIND, objects = counts.objects, "listed, watching from now on");
            }
            self.follow(&mut version, &mut backoff).await;
        }
    }

    /// Watches until it has to be listed again.
    async fn follow(&self, version: &mut String, backoff: &mut Backoff) {
        let mut failed = 0;
        loop {
            let began = Instant::now();
            let before = version.clone();
            let ended = self.watch(version).await;
            self.store.restarts.fetch_add(1, Relaxed);
            // Those of objects that went meanwhile.
            self.names().sweep();
            let lived = *version != before || began.elapsed() >= self.timing.watch / 2;
            if lived {
                (failed, _) = (0, backoff.reset());
            }
            match ended {
                Ok(()) if lived => {}
                // One that ends at once without a word would be asked without a pause.
                Ok(()) => tokio::time::sleep(backoff.wait()).await,
                Err(Trouble::Gone(_)) => {
                    tokio::time::sleep(backoff.wait()).await;
                    return;
                }
                Err(trouble) => {
                    self.wait(backoff, "watch", &trouble).await;
                    failed += 1;
                    if failed >= FAILED_WATCHES {
                        return;
                    }
                }
            }
        }
    }

    async fn wait(&self, backoff: &mut Backoff, what: &'static str, trouble: &Trouble) {
        static TOLD: Limiter = Limiter::every(Duration::from_secs(30));
        self.store.failures.fetch_add(1, Relaxed);
        // A watch that broke is begun again before anything is missed.
        if what == "list" {
            self.store.up.store(false, Relaxed);
        }
        let wait = backoff.wait();
        if let Some(suppressed) = TOLD.pass() {
            tracing::warn!(
                kind = O::KIND, what, error = %trouble, again_in = ?wait, suppressed,
                "the API server does not tell; trying again"
            );
        }
        tokio::time::sleep(wait).await;
    }

    /// Everything there is; the version to watch from.
    async fn list(&self) -> Result<String, Trouble> {
        let list = self.store.lists.load(Relaxed) + 1;
        let mut next = String::new();
        loop {
            let limit = PAGE.to_string();
            let mut query = vec![("limit", limit.as_str())];
            if !next.is_empty() {
                query.push(("continue", &next));
            }
            let page = async { collect(self.ask(&query).await?, MAX_PAGE).await };
            let page = within(self.timing.answer, page).await?;
            let page: Page<O> = serde_json::from_slice(&page).map_err(|error| {
                Trouble::Refused(format!("the answer is no list of {}: {error}", O::KIND))
            })?;
            for object in page.items.unwrap_or_default() {
                self.take(object, list);
            }
            if page.metadata.next.is_empty() {
                self.store.listed(list);
                self.names().sweep();
                return Ok(page.metadata.resource_version);
            }
            next = page.metadata.next;
        }
    }

    fn names(&self) -> std::sync::MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, object: O, list: u64) {
        let key = object.key();
        let kept = object.keep(&self.context, &mut self.names());
        match key.zip(kept) {
            Some((key, kept)) => self.store.put(key, kept, list),
            None => drop(self.store.rejected.fetch_add(1, Relaxed)),
        }
    }

    /// Follows changes from `version` on, and moves it along; ends well when the
    /// API server ends it.
    async fn watch(&self, version: &mut String) -> Result<(), Trouble> {
        let seconds = self.timing.watch.as_secs().max(1).to_string();
        let from = version.clone();
        let query = [
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", &from),
            ("timeoutSeconds", &seconds),
        ];
        let mut body = within(self.timing.answer, self.ask(&query)).await?;
        let mut line = BytesMut::new();
        let patience = self.timing.watch + self.timing.answer;
        while let Some(data) = within(patience, piece(&mut body)).await? {
            for part in data.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if line.len() > MAX_EVENT {
                    return Err(Trouble::Refused(format!("an event is larger than {MAX_EVENT} bytes")));
                }
                if part.ends_with(b"\n") {
                    self.event(&line.split(), version)?;
                }
            }
        }
        // An event that was cut off comes again.
        Ok(())
    }

    fn event(&self, line: &[u8], version: &mut String) -> Result<(), Trouble> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let head: Head = serde_json::from_slice(line)
            .map_err(|error| Trouble::Refused(format!("what came is no event: {error}")))?;
        let list = self.store.lists.load(Relaxed);
        match head.kind.as_str() {
            "BOOKMARK" => {}
            "ERROR" if head.object.code == 410 => return Err(Trouble::Gone(head.object.message)),
            "ERROR" => {
                return Err(Trouble::Refused(format!("{} {}", head.object.code, head.object.message)));
            }
            kind => match serde_json::from_slice::<Carrying<O>>(line) {
                Ok(Carrying { object }) if kind == "DELETED" => {
                    object.key().iter().for_each(|key| self.store.remove(key));
                }
                Ok(Carrying { object }) => self.take(object, list),
                Err(_) => drop(self.store.rejected.fetch_add(1, Relaxed)),
            },
        }
        if !head.object.metadata.resource_version.is_empty() {
            *version = head.object.metadata.resource_version;
        }
        self.store.up.store(true, Relaxed);
        Ok(())
    }

    /// The body of an answer with status 200.
    async fn ask(&self, query: &[(&str, &str)]) -> Result<Body, Trouble> {
        let mut url =
            reqwest::Url::parse("http://api/api/v1/").map_err(|e| Trouble::Broken(e.to_string()))?;
        url.set_path(&format!("/api/v1/{}", O::KIND));
        url.query_pairs_mut().extend_pairs(query);
        if !O::SELECTOR.is_empty() {
            url.query_pairs_mut().append_pair("fieldSelector", O::SELECTOR);
        }
        let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let request = Request::builder().method(Method::GET).uri(target).header("accept", "application/json");
        let request = request.body(Body::empty()).map_err(|e| Trouble::Broken(e.to_string()))?;
        let answer = self.client.0.send(request).await.map_err(|error| Trouble::Broken(chain(&error)))?;
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(answer.into_body());
        }
        let said = collect(answer.into_body(), MAX_ERROR).await.unwrap_or_default();
        let said = serde_json::from_slice::<HeadObject>(&said).map(|s| s.message).unwrap_or_default();
        Err(match status {
            StatusCode::GONE => Trouble::Gone(said),
            _ => Trouble::Refused(format!("{status}: {said}")),
        })
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

async fn within<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    let late = |_| Err(Trouble::Broken(format!("no answer within {deadline:?}")));
    tokio::time::timeout(deadline, answer).await.unwrap_or_else(late)
}

async fn piece(body: &mut Body) -> Result<Option<Bytes>, Trouble> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|error| Trouble::Broken(chain(&error)))?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

async fn collect(mut body: Body, most: usize) -> Result<Bytes, Trouble> {
    let mut all = BytesMut::new();
    while let Some(data) = piece(&mut body).await? {
        if all.len() + data.len() > most {
            return Err(Trouble::Refused(format!("the answer is larger than {most} bytes")));
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}
