//! What the aggregator's page shows, as JSON.
//!
//! | path | answer |
//! |---|---|
//! | `/api/page/cluster` | the cluster, its nodes and namespaces, and the `TOP` pods by CPU and by memory |
//! | `/api/page/pods?node=N`, `?namespace=NS` | at most `PODS` pods, those with most CPU first; `more` counts the others |
//! | `/api/page/series?node=N`, `?namespace=NS[&pod=P[&container=C]]` | the lines of one of them |
//!
//! All is of the newest closed step. One pass over the nodes makes a `Picture` of a
//! step, which serves until the next; it is let go of when nobody has asked for a
//! while. CPU is in thousandths of a core, memory in bytes, `null` where nobody told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;

use crate::aggregate::ingest::Ingest;
use crate::aggregate::model::{Model, Subject};
use crate::aggregate::node::{Entity, Figure, Kind};
use crate::api::wall_clock;
use crate::expose::page::{json, parameter, takes_gzip};
use crate::expose::routes::line;
use crate::push::batch::{self, Metric, MetricId, Value, metric};

/// Pods told with the cluster, by CPU and as many by memory.
const TOP: usize = 15;

/// Most pods of an answer.
const PODS: usize = 1_000;

/// Most points of a line in a table.
const POINTS: u64 = 60;

/// Most points of a line in a chart.
const SAMPLES: u64 = 900;

/// A picture nobody looks at is kept so long.
const KEPT: Duration = Duration::from_secs(180);

/// Late pushes change a step: a picture of it is made again after so long.
const FRESH: Duration = Duration::from_secs(10);

/// What is known of a node, a namespace or a pod in one step.
#[derive(Debug, Clone, Default, Serialize)]
struct Use {
    cpu: Option<f64>,
    memory: Option<f64>,
    cpu_request: Option<f64>,
    cpu_limit: Option<f64>,
    memory_request: Option<f64>,
    memory_limit: Option<f64>,
    /// Bytes a second, as the next.
    received: Option<f64>,
    sent: Option<f64>,
    restarts: Option<f64>,
}

#[derive(Debug, Serialize)]
struct NodeRow {
    name: Arc<str>,
    #[serde(flatten)]
    used: Use,
    cpu_capacity: Option<f64>,
    memory_capacity: Option<f64>,
    pods: usize,
    /// Wall clock of its last push, milliseconds since the epoch.
    heard: u64,
    /// How far its clock is ahead, milliseconds.
    ahead: i64,
    silent: bool,
    lines: Lines,
}

#[derive(Debug, Clone, Serialize)]
struct PodRow {
    namespace: Arc<str>,
    pod: Arc<str>,
    node: Arc<str>,
    #[serde(flatten)]
    used: Use,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<Lines>,
}

#[derive(Debug, Default, Serialize)]
struct NamespaceRow {
    name: Arc<str>,
    #[serde(flatten)]
    used: Use,
    pods: usize,
    lines: Lines,
}

/// Values at the times of the picture.
#[derive(Debug, Clone, Default, Serialize)]
struct Lines {
    cpu: Vec<Option<f64>>,
    memory: Vec<Option<f64>>,
}

/// One step of the whole cluster.
#[derive(Debug)]
struct Picture {
    slot: u64,
    made: Instant,
    times: Vec<u64>,
    nodes: Vec<NodeRow>,
    namespaces: Vec<NamespaceRow>,
    pods: Vec<PodRow>,
    used: Use,
    lines: Lines,
}

/// What the answers are made from.
#[derive(Debug)]
pub struct Shown {
    ingest: Arc<Ingest>,
    picture: Mutex<Option<(Arc<Picture>, Instant)>>,
}

impl Shown {
    /// Answers about the cluster of `ingest`.
    pub fn new(ingest: Arc<Ingest>) -> Arc<Shown> {
        Arc::new(Shown { ingest, picture: Mutex::default() })
    }

    /// Lets go of what nobody looks at.
    pub fn tidy(&self) {
        self.lock().take_if(|(_, asked)| asked.elapsed() > KEPT);
    }

    /// The routes.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route(
                "/api/page/cluster",
                get(async |shown, uri, headers| answer(shown, uri, headers, cluster).await),
            )
            .route("/api/page/pods", get(async |shown, uri, headers| answer(shown, uri, headers, pods).await))
            .route(
                "/api/page/series",
                get(async |shown, uri, headers| answer(shown, uri, headers, series).await),
            )
            .with_state(Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Arc<Picture>, Instant)>> {
        // A picture is whole: a panic elsewhere changes nothing.
        self.picture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That of the newest closed step, made by the first who asks while others wait.
    fn picture(&self) -> Option<Arc<Picture>> {
        let slot = self.ingest.model().closed_ms()?;
        let mut held = self.lock();
        if let Some((picture, asked)) = held.as_mut()
            && picture.slot == slot
            && picture.made.elapsed() < FRESH
        {
            *asked = Instant::now();
            return Some(Arc::clone(picture));
        }
        let picture = Arc::new(Picture::of(&self.ingest, slot));
        *held = Some((Arc::clone(&picture), Instant::now()));
        Some(picture)
    }
}

type Handler = fn(&Shown, &str, bool) -> Response;

/// Answers off the event loop: nodes are waited for.
async fn answer(State(shown): State<Arc<Shown>>, uri: Uri, headers: HeaderMap, handler: Handler) -> Response {
    let gzip = takes_gzip(&headers);
    let made = tokio::task::spawn_blocking(move || handler(&shown, uri.query().unwrap_or_default(), gzip));
    made.await.unwrap_or_else(|error| {
        tracing::error!(%error, "answer panicked");
        line(StatusCode::INTERNAL_SERVER_ERROR, "the answer failed")
    })
}

const WANTED: [MetricId; 12] = [
    MetricId::CpuUsageRate,
    MetricId::MemoryWorkingSet,
    MetricId::CpuRequest,
    MetricId::CpuLimit,
    MetricId::MemoryRequest,
    MetricId::MemoryLimit,
    MetricId::NetworkRxRate,
    MetricId::NetworkTxRate,
    MetricId::RestartCount,
    MetricId::CpuNodeCapacity,
    MetricId::MemoryNodeCapacity,
    MetricId::CpuNodeAllocatable,
];

fn number(value: Value) -> f64 {
    match value {
        // Beyond 2^53 it is rounded, as everything is in a browser.
        Value::Integer(value) => value as f64,
        Value::Double(value) => (value * 1000.0).round() / 1000.0,
    }
}

fn figure(figures: &[Figure<'_>], id: MetricId) -> Option<f64> {
    figures.iter().find(|f| f.metric.id == id && f.label.is_empty()).map(|f| number(f.value))
}

fn sum(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.zip(b).map(|(a, b)| a + b).or(a).or(b)
}

impl Use {
    fn of(figures: &[Figure<'_>]) -> Use {
        let figure = |id| figure(figures, id);
        Use {
            cpu: figure(MetricId::CpuUsageRate),
            memory: figure(MetricId::MemoryWorkingSet),
            cpu_request: figure(MetricId::CpuRequest),
            cpu_limit: figure(MetricId::CpuLimit),
            memory_request: figure(MetricId::MemoryRequest),
            memory_limit: figure(MetricId::MemoryLimit),
            received: figure(MetricId::NetworkRxRate),
            sent: figure(MetricId::NetworkTxRate),
            restarts: figure(MetricId::RestartCount),
        }
    }

    fn add(&mut self, other: &Use) {
        self.cpu = sum(self.cpu, other.cpu);
        self.memory = sum(self.memory, other.memory);
        self.cpu_request = sum(self.cpu_request, other.cpu_request);
        self.cpu_limit = sum(self.cpu_limit, other.cpu_limit);
        self.memory_request = sum(self.memory_request, other.memory_request);
        self.memory_limit = sum(self.memory_limit, other.memory_limit);
        self.received = sum(self.received, other.received);
        self.sent = sum(self.sent, other.sent);
        self.restarts = sum(self.restarts, other.restarts);
    }
}

/// The values of a metric without a label at `times`.
fn values(model: &Model, subject: &Subject, id: MetricId, times: &[u64]) -> Vec<Option<f64>> {
    let found: BTreeMap<u64, Value> = metric(id.into())
        .map(|metric| model.series(subject, metric, ""))
        .unwrap_or_default()
        .into_iter()
        .collect();
    times.iter().map(|time| found.get(time).copied().map(number)).collect()
}

fn lines(model: &Model, subject: &Subject, times: &[u64]) -> Lines {
    // Sums over pods have no working set.
    let memory = match subject {
        Subject::Cluster | Subject::Namespace(_) => MetricId::MemoryUsage,
        _ => MetricId::MemoryWorkingSet,
    };
    Lines {
        cpu: values(model, subject, MetricId::CpuUsageRate, times),
        memory: values(model, subject, memory, times),
    }
}

/// The window's steps up to `slot` since there have been any, the oldest first; of
/// more than `most` every second, third and so on.
fn times(model: &Model, slot: u64, most: u64) -> Vec<u64> {
    let resolution = model.resolution_ms();
    let count = (model.kept_ms() / resolution).max(2);
    let stride = count.div_ceil(most).max(1);
    let began = model.began_ms().unwrap_or(0);
    let steps = (0..count / stride).rev().filter_map(|back| slot.checked_sub(back * stride * resolution));
    // Agents send what they have from before, and two points make a line.
    let told = metric(MetricId::CpuUsageRate.into()).map(|m| model.series(&Subject::Cluster, m, ""));
    let first = told.and_then(|told| told.first().map(|(time, _)| *time)).unwrap_or(began);
    steps.filter(|time| *time >= first || *time + stride * resolution >= slot).collect()
}

impl Picture {
    fn of(ingest: &Ingest, slot: u64) -> Picture {
        let model = ingest.model();
        let now_ms = wall_clock();
        let times = times(model, slot, POINTS);
        let mut picture = Picture {
            slot,
            made: Instant::now(),
            nodes: Vec::new(),
            namespaces: Vec::new(),
            pods: Vec::new(),
            used: Use::default(),
            lines: lines(model, &Subject::Cluster, &times),
            times,
        };
        let wanted = |metric: &Metric| WANTED.contains(&metric.id);
        for status in model.nodes() {
            let mut row = NodeRow {
                name: Arc::clone(&status.name),
                used: Use::default(),
                cpu_capacity: None,
                memory_capacity: None,
                pods: 0,
                heard: status.heard_ms,
                ahead: status.ahead_ms,
                silent: ingest.is_silent(&status, now_ms),
                lines: lines(model, &Subject::Node(Arc::clone(&status.name)), &picture.times),
            };
            model.figures_at(&status.name, slot, wanted, |entity, figures| {
                picture.take(&mut row, entity, figures);
            });
            picture.used.add(&Use { restarts: None, ..row.used.clone() });
            picture.nodes.push(row);
        }
        picture.sum_namespaces(model);
        picture.pods.sort_by(|a, b| by(b.used.cpu, a.used.cpu));
        picture
    }

    fn take(&mut self, row: &mut NodeRow, entity: &Entity, figures: &[Figure<'_>]) {
        match entity.key.kind {
            Kind::Node => {
                row.used = Use::of(figures);
                row.cpu_capacity = figure(figures, MetricId::CpuNodeCapacity);
                row.memory_capacity = figure(figures, MetricId::MemoryNodeCapacity);
            }
            Kind::Pod => {
                row.pods += 1;
                let (namespace, pod) = (Arc::clone(&entity.key.namespace), Arc::clone(&entity.key.pod));
                let used = Use::of(figures);
                self.pods.push(PodRow { namespace, pod, node: Arc::clone(&row.name), used, lines: None });
            }
            Kind::System | Kind::Container => {}
        }
    }

    fn sum_namespaces(&mut self, model: &Model) {
        let mut found: BTreeMap<Arc<str>, NamespaceRow> = BTreeMap::new();
        for pod in &self.pods {
            let row = found.entry(Arc::clone(&pod.namespace)).or_default();
            row.pods += 1;
            row.used.add(&pod.used);
        }
        for (name, row) in &mut found {
            row.name = Arc::clone(name);
            row.lines = lines(model, &Subject::Namespace(Arc::clone(name)), &self.times);
        }
        self.namespaces = found.into_values().collect();
    }

    /// With their lines.
    fn drawn<'a>(&self, model: &Model, pods: impl Iterator<Item = &'a PodRow>) -> Vec<PodRow> {
        let draw = |pod: &PodRow| {
            let subject = Subject::Pod(Arc::clone(&pod.namespace), Arc::clone(&pod.pod));
            PodRow { lines: Some(lines(model, &subject, &self.times)), ..pod.clone() }
        };
        pods.map(draw).collect()
    }
}

/// What was not told is least.
fn by(a: Option<f64>, b: Option<f64>) -> std::cmp::Ordering {
    a.unwrap_or(-1.0).total_cmp(&b.unwrap_or(-1.0))
}

#[derive(Debug, Serialize)]
struct Cluster<'a> {
    version: &'static str,
    /// Wall clock, milliseconds since the epoch.
    time: u64,
    /// Between two steps, milliseconds.
    resolution: u64,
    /// The step told; nothing has been closed yet where there is none.
    slot: Option<u64>,
    times: &'a [u64],
    nodes: &'a [NodeRow],
    namespaces: &'a [NamespaceRow],
    used: &'a Use,
    lines: &'a Lines,
    pods: usize,
    top_cpu: Vec<PodRow>,
    top_memory: Vec<PodRow>,
}

fn cluster(shown: &Shown, _: &str, gzip: bool) -> Response {
    let model = shown.ingest.model();
    let picture = shown.picture();
    let empty = (Use::default(), Lines::default());
    let Some(picture) = picture.as_deref() else {
        let cluster = Cluster {
            version: env!("CARGO_PKG_VERSION"),
            time: wall_clock(),
            resolution: model.resolution_ms(),
            slot: None,
            times: &[],
            nodes: &[],
            namespaces: &[],
            used: &empty.0,
            lines: &empty.1,
            pods: 0,
            top_cpu: Vec::new(),
            top_memory: Vec::new(),
        };
        return json(&cluster, gzip);
    };
    let mut by_memory: Vec<&PodRow> = picture.pods.iter().collect();
    by_memory.sort_by(|a, b| by(b.used.memory, a.used.memory));
    let cluster = Cluster {
        version: env!("CARGO_PKG_VERSION"),
        time: wall_clock(),
        resolution: model.resolution_ms(),
        slot: Some(picture.slot),
        times: &picture.times,
        nodes: &picture.nodes,
        namespaces: &picture.namespaces,
        used: &picture.used,
        lines: &picture.lines,
        pods: picture.pods.len(),
        top_cpu: picture.drawn(model, picture.pods.iter().take(TOP)),
        top_memory: picture.drawn(model, by_memory.into_iter().take(TOP)),
    };
    json(&cluster, gzip)
}

#[derive(Debug, Serialize)]
struct Pods<'a> {
    times: &'a [u64],
    pods: Vec<PodRow>,
    more: usize,
}

fn pods(shown: &Shown, query: &str, gzip: bool) -> Response {
    let Some(picture) = shown.picture() else {
        return line(StatusCode::SERVICE_UNAVAILABLE, "no step has been closed yet");
    };
    let (node, namespace) = (parameter(query, "node"), parameter(query, "namespace"));
    let wanted = |pod: &&PodRow| {
        node.as_deref().is_none_or(|node| *pod.node == *node)
            && namespace.as_deref().is_none_or(|namespace| *pod.namespace == *namespace)
    };
    let all = picture.pods.iter().filter(wanted);
    let count = all.clone().count();
    let pods = picture.drawn(shown.ingest.model(), all.take(PODS));
    json(&Pods { times: &picture.times, more: count - pods.len(), pods }, gzip)
}

#[derive(Debug, Serialize)]
struct Series {
    times: Vec<u64>,
    /// What it is beside its figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<u64>,
    labels: Vec<(Arc<str>, Arc<str>)>,
    /// By Heapster's names of the metrics.
    series: BTreeMap<&'static str, Vec<Option<f64>>>,
    /// Containers of a pod.
    containers: Vec<Container>,
}

#[derive(Debug, Serialize)]
struct Container {
    name: Arc<str>,
    lines: Lines,
}

fn series(shown: &Shown, query: &str, gzip: bool) -> Response {
    let model = shown.ingest.model();
    let Some(slot) = model.closed_ms() else {
        return line(StatusCode::SERVICE_UNAVAILABLE, "no step has been closed yet");
    };
    let named = |name| parameter(query, name).map(Arc::<str>::from);
    let subject = match (named("node"), named("namespace"), named("pod"), named("container")) {
        (Some(node), ..) => Subject::Node(node),
        (None, Some(namespace), Some(pod), Some(container)) => Subject::Container(namespace, pod, container),
        (None, Some(namespace), Some(pod), None) => Subject::Pod(namespace, pod),
        (None, Some(namespace), None, _) => Subject::Namespace(namespace),
        _ => Subject::Cluster,
    };
    let metrics = model.metrics(&subject);
    if metrics.is_empty() {
        return line(StatusCode::NOT_FOUND, "there is nothing of that name (any more)");
    }
    let times = times(model, slot, SAMPLES);
    let entity = model.describe(&subject);
    let mut containers = Vec::new();
    if let Subject::Pod(namespace, pod) = &subject {
        for name in model.containers(namespace, pod) {
            let subject = Subject::Container(Arc::clone(namespace), Arc::clone(pod), Arc::clone(&name));
            containers.push(Container { name, lines: lines(model, &subject, &times) });
        }
    }
    // Counters say nothing as lines: there are their rates.
    let told = metrics.iter().filter(|m| m.kind != batch::Kind::Cumulative);
    let series = told.map(|m| (m.name, values(model, &subject, m.id, &times))).collect();
    json(
        &Series {
            image: entity.as_ref().and_then(|e| e.image.clone()),
            started: entity.as_ref().and_then(|e| e.start_ms),
            labels: entity.map(|e| e.labels.to_vec()).unwrap_or_default(),
            series,
            containers,
            times,
        },
        gzip,
    )
}
