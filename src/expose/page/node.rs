//! `/api/page/node`: the machine and all its cgroups, as columns.
//!
//! | parameter | meaning |
//! |---|---|
//! | `names=N` | the client has the names of generation N: they are left out if nothing changed |
//! | `past=1` | also the window's CPU and memory of each row, [`POINTS`] points of each |
//!
//! Each column has a value for each row, `null` where the kernel does not tell it; a
//! column that would be all `null` is left out. Rates are those since the sample at
//! least [`APART`] earlier. At most [`ROWS`] cgroups are told, pods and containers
//! first; `more` counts the others. Without names an answer has about 60 bytes a row.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use serde::Serialize;

use crate::history::{Figure, History, Sample};
use crate::rate::Window;
use crate::snapshot::{Cgroup, CgroupSample, Filesystems, Hierarchy, Limit, Machine, Role, Snapshot};

/// Most rows of an answer.
pub const ROWS: usize = 5_000;

/// Points of a row's past.
pub const POINTS: usize = 40;

/// Shortest time over which a rate is told, microseconds: two samples that follow
/// each other closer say little.
pub const APART: u64 = 500_000;

/// What the answer has.
#[derive(Debug, Serialize)]
pub struct Overview<'a> {
    node: &'a str,
    version: &'static str,
    hierarchy: Hierarchy,
    machine: &'a Machine,
    /// Wall clock of the collection, milliseconds since the epoch.
    time: u64,
    /// How far back lines go, milliseconds.
    window: u64,
    /// Tasks wanting to run, over 1, 5 and 15 minutes, hundredths.
    load: Option<[u32; 3]>,
    tasks: Option<u64>,
    filesystems: &'a Filesystems,
    /// Cgroups that have no row here.
    more: usize,
    /// Changes whenever rows do.
    names: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<Vec<Name<'a>>>,
    columns: Columns,
    #[serde(skip_serializing_if = "Option::is_none")]
    past: Option<Past>,
}

/// Who a row is.
#[derive(Debug, Serialize)]
struct Name<'a> {
    id: &'a str,
    /// `n` the machine, `p` a pod, `c` a container, `s` a sandbox, `g` any other cgroup.
    kind: char,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    /// UID of the pod, which tells pods without a name apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    /// Seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<u64>,
}

type Column<T> = Vec<Option<T>>;

fn nothing<T>(column: &[Option<T>]) -> bool {
    column.iter().all(Option::is_none)
}

#[derive(Debug, Default, Serialize)]
struct Columns {
    /// Thousandths of a core.
    #[serde(skip_serializing_if = "nothing")]
    cpu: Column<f64>,
    /// Thousandths of a core.
    #[serde(skip_serializing_if = "nothing")]
    cpu_limit: Column<u64>,
    /// Of the periods, how many were throttled, percent.
    #[serde(skip_serializing_if = "nothing")]
    throttled: Column<f64>,
    /// Bytes, as the others of memory.
    #[serde(skip_serializing_if = "nothing")]
    memory: Column<u64>,
    #[serde(skip_serializing_if = "nothing")]
    memory_limit: Column<u64>,
    #[serde(skip_serializing_if = "nothing")]
    rss: Column<u64>,
    #[serde(skip_serializing_if = "nothing")]
    cache: Column<u64>,
    /// Bytes a second, as the three that follow.
    #[serde(skip_serializing_if = "nothing")]
    received: Column<u64>,
    #[serde(skip_serializing_if = "nothing")]
    sent: Column<u64>,
    #[serde(skip_serializing_if = "nothing")]
    read: Column<u64>,
    #[serde(skip_serializing_if = "nothing")]
    written: Column<u64>,
    /// Time in which a task waited, percent.
    #[serde(skip_serializing_if = "nothing")]
    cpu_pressure: Column<f64>,
    #[serde(skip_serializing_if = "nothing")]
    memory_pressure: Column<f64>,
    #[serde(skip_serializing_if = "nothing")]
    io_pressure: Column<f64>,
    #[serde(skip_serializing_if = "nothing")]
    threads: Column<u64>,
    /// Writable layer, logs and volumes, bytes.
    #[serde(skip_serializing_if = "nothing")]
    disk: Column<u64>,
    /// Processes killed by the OOM killer.
    #[serde(skip_serializing_if = "nothing")]
    oom_kills: Column<u64>,
}

/// Equally spaced points up to now, for each row.
#[derive(Debug, Serialize)]
struct Past {
    /// Milliseconds between two points; the last is at the answer's time.
    step: u64,
    cpu: Vec<Column<f64>>,
    memory: Vec<Column<u64>>,
}

/// What a client asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Generation of the names it has.
    pub names: Option<String>,
    /// Whether it wants the past.
    pub past: bool,
}

impl<'a> Overview<'a> {
    /// What there is to say of `snapshot`.
    pub fn new(node: &'a str, snapshot: &'a Snapshot, history: &History, wanted: &Wanted) -> Overview<'a> {
        let told = rows(snapshot);
        let names = generation(&told);
        let mut columns = Columns::default();
        let step = (u64::try_from(history.window().as_millis()).unwrap_or(u64::MAX) / POINTS as u64).max(1);
        let mut past = Past { step, cpu: Vec::new(), memory: Vec::new() };
        let most = if wanted.past { usize::MAX } else { 8 };
        for row in &told {
            let now = history.sample(snapshot, row);
            let samples = history.newest(&row.cgroup.path, most).unwrap_or_default();
            columns.add(row, &now, before(&samples, &now));
            if wanted.past {
                past.add(&samples, &now);
            }
        }
        let known = wanted.names.as_deref() == Some(names.as_str());
        Overview {
            node,
            version: env!("CARGO_PKG_VERSION"),
            hierarchy: snapshot.hierarchy,
            machine: &snapshot.machine,
            time: snapshot.wall_ms,
            window: u64::try_from(history.window().as_millis()).unwrap_or(u64::MAX),
            load: snapshot.tasks.load_average,
            tasks: snapshot.tasks.current.map(|tasks| tasks.get()),
            filesystems: &snapshot.filesystems,
            more: snapshot.cgroups.len() - told.len(),
            rows: (!known).then(|| told.iter().map(|row| Name::of(&row.cgroup)).collect()),
            names,
            columns,
            past: wanted.past.then_some(past),
        }
    }
}

/// Pods and containers first where not all have a place; in order of their paths.
fn rows(snapshot: &Snapshot) -> Vec<&CgroupSample> {
    let mut rows: Vec<&CgroupSample> = snapshot.cgroups.iter().collect();
    if rows.len() > ROWS {
        rows.sort_by_key(|row| matches!(kind(&row.cgroup), 'g' | 's'));
        rows.truncate(ROWS);
        rows.sort_by(|a, b| a.cgroup.path.cmp(&b.cgroup.path));
    }
    rows
}

fn generation(rows: &[&CgroupSample]) -> String {
    let mut hasher = DefaultHasher::new();
    for row in rows {
        // Another name is another allocation; another allocation of the same name
        // costs one longer answer.
        (Arc::as_ptr(&row.cgroup), &row.cgroup.path, row.cgroup.created).hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

pub(super) fn kind(cgroup: &Cgroup) -> char {
    let named = cgroup.identity.container.as_deref().is_some_and(|name| name != "POD");
    match cgroup.part.role {
        _ if cgroup.path == "/" => 'n',
        Role::Pod => 'p',
        Role::Sandbox => 's',
        Role::Container => 'c',
        Role::Other | Role::Kubelet | Role::Runtime | Role::System | Role::Pods if named => 'c',
        Role::Other | Role::Kubelet | Role::Runtime | Role::System | Role::Pods => 'g',
    }
}

impl<'a> Name<'a> {
    fn of(cgroup: &'a Cgroup) -> Name<'a> {
        let identity = &cgroup.identity;
        Name {
            id: &cgroup.path,
            kind: kind(cgroup),
            namespace: identity.namespace.as_deref(),
            pod: identity.pod.as_deref(),
            container: identity.container.as_deref(),
            name: identity.name.as_deref(),
            image: identity.image.as_deref(),
            uid: cgroup.part.pod_uid.as_deref(),
            created: cgroup.created,
        }
    }
}

/// The newest sample that is [`APART`] from `now`.
fn before<'a>(samples: &'a [Sample], now: &Sample) -> Option<&'a Sample> {
    let apart = |sample: &&Sample| now.usec_since(sample).is_some_and(|usec| usec >= APART);
    samples.iter().rev().find(apart)
}

/// The rate of a counter between two samples, per second.
pub(super) fn rate(earlier: &Sample, later: &Sample, counter: Figure) -> Option<f64> {
    let window = Window::from_ns(later.usec_since(earlier)?.checked_mul(1000)?)?;
    Some(window.per_second(later.rise_since(earlier, counter)?))
}

/// A number with few digits: as many as a page shows.
pub(super) fn short(value: f64) -> f64 {
    if value < 100.0 { (value * 100.0).round() / 100.0 } else { value.round() }
}

/// CPU use between two samples, thousandths of a core.
pub(super) fn millicores(earlier: &Sample, later: &Sample, counter: Figure) -> Option<f64> {
    rate(earlier, later, counter).map(|ns| short(ns / 1e6))
}

/// Share of the time between two samples, percent.
pub(super) fn percent(earlier: &Sample, later: &Sample, counter: Figure) -> Option<f64> {
    rate(earlier, later, counter).map(|usec| short(usec / 1e4))
}

/// Of the periods between two samples, how many were throttled, percent.
pub(super) fn throttled(earlier: &Sample, later: &Sample) -> Option<f64> {
    let periods = later.rise_since(earlier, Figure::CpuPeriods).filter(|periods| *periods > 0)?;
    let throttled = later.rise_since(earlier, Figure::CpuThrottledPeriods)?;
    // Both are counts of tenths of seconds within minutes.
    Some(short(throttled as f64 * 100.0 / periods as f64))
}

/// Per second, without a fraction.
pub(super) fn whole(earlier: &Sample, later: &Sample, counter: Figure) -> Option<u64> {
    let usec = later.usec_since(earlier)?;
    let rise = u128::from(later.rise_since(earlier, counter)?);
    u64::try_from(rise * 1_000_000 / u128::from(usec)).ok()
}

/// What a row may use of CPU, thousandths of a core.
pub(super) fn cpu_limit(row: &CgroupSample) -> Option<u64> {
    let quota = row.spec.cpu_quota_usec.and_then(Limit::value)?;
    quota.checked_mul(1000)?.checked_div(row.spec.cpu_period_usec?.get())
}

/// What a row may use of memory, bytes.
pub(super) fn memory_limit(row: &CgroupSample) -> Option<u64> {
    row.spec.memory_limit.and_then(Limit::value)
}

impl Columns {
    fn add(&mut self, row: &CgroupSample, now: &Sample, before: Option<&Sample>) {
        let figure = |figure| now.figures.get(figure);
        let rate = |counter| whole(before?, now, counter);
        self.cpu.push(before.and_then(|before| millicores(before, now, Figure::CpuUsage)));
        self.cpu_limit.push(cpu_limit(row));
        self.throttled.push(before.and_then(|before| throttled(before, now)));
        self.memory.push(figure(Figure::MemoryWorkingSet));
        self.memory_limit.push(memory_limit(row));
        self.rss.push(figure(Figure::MemoryRss));
        self.cache.push(figure(Figure::MemoryCache));
        self.received.push(rate(Figure::ReceiveBytes));
        self.sent.push(rate(Figure::TransmitBytes));
        self.read.push(rate(Figure::IoReadBytes));
        self.written.push(rate(Figure::IoWriteBytes));
        let pressure = |counter| percent(before?, now, counter);
        self.cpu_pressure.push(pressure(Figure::CpuPressureSome));
        self.memory_pressure.push(pressure(Figure::MemoryPressureSome));
        self.io_pressure.push(pressure(Figure::IoPressureSome));
        self.threads.push(figure(Figure::Threads));
        let parts = [Figure::LayerBytes, Figure::LogBytes, Figure::VolumeBytes].map(figure);
        self.disk.push(parts.iter().flatten().copied().reduce(u64::saturating_add));
        self.oom_kills.push(figure(Figure::OomKills));
    }
}

impl Past {
    /// At each point what the sample that follows it says; nothing before the oldest.
    fn add(&mut self, samples: &[Sample], now: &Sample) {
        let mut all = samples.to_vec();
        if now.usec_since(all.last().unwrap_or(now)).is_some() {
            all.push(now.clone());
        }
        let step = self.step.saturating_mul(1000);
        let at = |point: usize| {
            let moment = now.taken_usec.checked_sub(step.saturating_mul((POINTS - 1 - point) as u64))?;
            let next = all.partition_point(|sample| sample.taken_usec < moment);
            Some((all.get(next.checked_sub(1)?)?, all.get(next)?))
        };
        let cpu = |point| at(point).and_then(|(earlier, later)| millicores(earlier, later, Figure::CpuUsage));
        let memory = |point| at(point).and_then(|(_, later)| later.figures.get(Figure::MemoryWorkingSet));
        self.cpu.push((0..POINTS).map(cpu).collect());
        self.memory.push((0..POINTS).map(memory).collect());
    }
}
