//! What one tick found: plain data, no I/O.
//!
//! A [`Snapshot`] is filled by the reader thread, published behind an `Arc` and
//! never changed afterwards; every output renders from it. Absent is `None`
//! (the kernel did not tell), unlimited is [`Limit::Max`]; neither is ever 0.
//!
//! It is long because it is one file on purpose: every figure, its unit and its
//! kernel source in one place, with hardly any code.

mod extra;
mod hardware;
mod process;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nonmax::NonMaxU64;
use serde::Serialize;

pub use extra::{
    Extra, NumaPages, OF_SNMP, Pages, Queues, SchedStats, SocketStates, SocketStats, TCP_FIGURES, TCP_STATES,
    TcpFigures,
};
pub use hardware::{Cache, Core, Disk, Hardware, HugePages, NetworkCard, NumaNode};
pub use process::Process;

/// One kernel figure, or `None` where the kernel does not tell it.
///
/// Eight bytes wide, because a row carries about fifty of them: the value
/// `u64::MAX` itself cannot be held, and no counter or gauge of ours reaches it.
pub type Reading = Option<NonMaxU64>;

/// Wraps a figure the kernel gave.
#[inline]
pub fn reading(value: u64) -> Reading {
    NonMaxU64::new(value)
}

/// A limit as the kernel states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// `max` on v2; -1 or a value of at least 2^62 on v1.
    Max,
    /// A number in the file's own unit.
    Value(u64),
}

impl Limit {
    /// The number, unless unlimited.
    #[inline]
    pub fn value(self) -> Option<u64> {
        match self {
            Limit::Max => None,
            Limit::Value(v) => Some(v),
        }
    }
}

/// Why a tick ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// On the wall-clock grid of the interval: pushed, and a base of rates.
    Grid,
    /// Asked for by a scrape that found the last one too old: pull only.
    Fresh,
}

/// Which cgroup hierarchies the host mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hierarchy {
    /// cgroup v1 controllers only.
    V1,
    /// One cgroup v2 tree with all controllers.
    V2,
    /// v1 controllers plus a v2 tree that may carry `cpu.stat` and PSI.
    Hybrid,
}

/// Everything one tick found.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// Counts up by one a tick, from 1.
    pub sequence: u64,
    /// Why the tick ran.
    pub origin: Origin,
    /// Wall clock at the start of the reads, milliseconds since the epoch.
    pub wall_ms: u64,
    /// Monotonic clock at the same moment, for ages and rates.
    #[serde(skip)]
    pub monotonic: Instant,
    /// How long the reads took.
    #[serde(skip)]
    pub duration: Duration,
    /// The layout the figures come from.
    pub hierarchy: Hierarchy,
    /// What was read; more than usual while somebody asks for it.
    #[serde(skip)]
    pub kinds: Kinds,
    /// What the machine is; shared between ticks until it changes.
    pub machine: Arc<Machine>,
    /// Mounted filesystems and their space; refreshed off the tick.
    pub filesystems: Arc<Filesystems>,
    /// The line of `/proc/diskstats` for each of `filesystems.mounts`, by index.
    pub disks: Vec<Option<DiskStats>>,
    /// Tasks of the whole host.
    pub tasks: Tasks,
    /// One row per cgroup, sorted by path; the root `/` is first.
    pub cgroups: Vec<CgroupSample>,
    /// The last rows of cgroups that vanished within the last minute, oldest
    /// first: final totals, for outputs that send each step, and for scrapes as
    /// [`lingering`](Snapshot::lingering) says. A path may be here and be a cgroup again.
    pub departed: Arc<Vec<Arc<Departed>>>,
    /// Cgroups that are gone and had OOM kills, sorted by path: shown for ten
    /// minutes after, so that a container that died of it is seen to. None of
    /// them is in `cgroups`.
    pub oom_gone: Arc<Vec<OomGone>>,
    /// Processes killed since the last tick, as far as the kernel's log tells of
    /// them one by one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub oom_kills: Vec<OomKill>,
}

impl Snapshot {
    /// The row of the cgroup at `path`.
    pub fn row(&self, path: &str) -> Option<&CgroupSample> {
        let index = self.cgroups.binary_search_by(|row| row.cgroup.path.as_str().cmp(path)).ok()?;
        self.cgroups.get(index)
    }

    /// Those of the departed whose final totals are still in scrapes, oldest first.
    pub fn lingering(&self) -> impl Iterator<Item = &Arc<Departed>> {
        self.departed.iter().filter(|departed| departed.lingers(self.monotonic))
    }
}

/// Tasks of the whole host, threads among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tasks {
    /// `/proc/loadavg`, after the slash: tasks there are.
    pub current: Reading,
    /// The smaller of `/proc/sys/kernel/pid_max` and `threads-max`.
    pub max: Reading,
    /// `/proc/loadavg`: tasks that run or wait for a disk, over 1, 5 and 15 minutes,
    /// hundredths.
    pub load_average: Option<[u32; 3]>,
}

/// A cgroup that vanished.
#[derive(Debug, Clone, Serialize)]
pub struct Departed {
    /// Its row as it was read last: in a tick, or of a young or an ending container
    /// since then. What was never read is absent. OOM kills are also those found since.
    #[serde(flatten)]
    pub last: CgroupSample,
    /// Wall clock of that reading, milliseconds since the epoch; of a container that
    /// was never read, of when it was found.
    pub seen_ms: u64,
    /// Wall clock of when it was found gone, milliseconds since the epoch.
    pub gone_ms: u64,
    /// The same on the monotonic clock.
    #[serde(skip)]
    pub gone: Instant,
    /// It was a pod or a container.
    #[serde(skip)]
    pub whole: bool,
    /// A name may still come for it.
    #[serde(skip)]
    pub waits: bool,
    /// A scrape has had it since.
    #[serde(skip)]
    pub shown: Shown,
}

/// How long final totals are in scrapes at most.
const LINGER: Duration = Duration::from_secs(60);

/// How long they are for all who scrape, also when one of them had them already.
const LINGER_FOR_ALL: Duration = Duration::from_secs(15);

impl Departed {
    /// Whether its final totals are still in scrapes of a snapshot taken at `now`.
    ///
    /// A pod or container stays until a scrape had it, but for a minute at most, and
    /// for fifteen seconds in any case, so that a second one who scrapes has it too.
    pub fn lingers(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.gone);
        let enough = if self.shown.get() { LINGER_FOR_ALL } else { LINGER };
        self.whole && !self.waits && age < enough
    }
}

/// A mark that is set behind shared references.
#[derive(Debug, Default)]
pub struct Shown(AtomicBool);

impl Shown {
    /// Sets it.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is set.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Clone for Shown {
    fn clone(&self) -> Self {
        Shown(AtomicBool::new(self.get()))
    }
}

/// OOM kills of a cgroup that is gone.
#[derive(Debug, Clone, Serialize)]
pub struct OomGone {
    /// Who it was.
    #[serde(flatten)]
    pub cgroup: Arc<Cgroup>,
    /// As [`MemoryStats::oom_kills`].
    pub kills: u64,
    /// Wall clock of the tick that found it gone, milliseconds since the epoch.
    pub gone_ms: u64,
}

/// A process that the OOM killer ended, as the kernel's log has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OomKill {
    /// Path of the cgroup it was in, as the `id` label has it.
    pub cgroup: String,
    /// Wall clock when the log told of it, milliseconds since the epoch.
    pub wall_ms: u64,
    /// Its number, in the host's namespace.
    pub pid: u32,
    /// What it called itself, at most fifteen bytes.
    pub process: String,
    /// The cgroup whose limit was hit; `None` where it was the machine's memory, or
    /// the log does not tell.
    pub limit: Option<String>,
    /// What was short, in the kernel's word (5.0): `CONSTRAINT_MEMCG`, `CONSTRAINT_NONE`.
    pub constraint: Option<String>,
}

/// One cgroup's figures in one tick.
#[derive(Debug, Clone, Serialize)]
pub struct CgroupSample {
    /// Who it is; shared between ticks.
    #[serde(flatten)]
    pub cgroup: Arc<Cgroup>,
    /// Whether it has no child cgroups, so that its own figures and those of
    /// its subtree are the same.
    pub leaf: bool,
    /// `cpu` kind.
    pub cpu: CpuStats,
    /// `memory` kind.
    pub memory: MemoryStats,
    /// `diskIO` kind: one entry per block device.
    pub io: Vec<IoDevice>,
    /// `pressure` kind.
    pub pressure: PressureStats,
    /// `process` kind.
    pub process: ProcessStats,
    /// `network` kind: interfaces of the network namespace this cgroup owns.
    pub network: Vec<Interface>,
    /// `hugetlb` kind: one entry per page size.
    pub hugetlb: Vec<HugetlbStats>,
    /// `cpuLoad` kind.
    pub load: LoadStats,
    /// Limits, weights and requests.
    pub spec: Spec,
    /// `disk` kind: what it keeps on disks, as last measured off the tick; shared
    /// between ticks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Arc<DiskUsage>>,
    /// Kinds that are off by default and have fields of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra: Option<Box<Extra>>,
}

impl CgroupSample {
    /// Where to put the figures of kinds that are off by default.
    pub fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// An empty row for `cgroup`.
    pub fn new(cgroup: Arc<Cgroup>) -> Self {
        CgroupSample {
            cgroup,
            leaf: true,
            cpu: CpuStats::default(),
            memory: MemoryStats::default(),
            io: Vec::new(),
            pressure: PressureStats::default(),
            process: ProcessStats::default(),
            network: Vec::new(),
            hugetlb: Vec::new(),
            load: LoadStats::default(),
            spec: Spec::default(),
            disk: None,
            extra: None,
        }
    }

    /// Makes the row empty again and gives it to `cgroup`; buffers are kept.
    pub fn reset(&mut self, cgroup: &Arc<Cgroup>) {
        if !Arc::ptr_eq(&self.cgroup, cgroup) {
            self.cgroup = Arc::clone(cgroup);
        }
        self.leaf = true;
        let mut per_cpu_ns = std::mem::take(&mut self.cpu.per_cpu_ns);
        per_cpu_ns.clear();
        self.cpu = CpuStats { per_cpu_ns, ..CpuStats::default() };
        self.memory = MemoryStats::default();
        self.io.clear();
        self.pressure = PressureStats::default();
        self.process = ProcessStats::default();
        self.network.clear();
        self.hugetlb.clear();
        self.load = LoadStats::default();
        self.spec = Spec::default();
        self.disk = None;
        if let Some(extra) = &mut self.extra {
            extra.clear();
        }
    }
}

/// The unchanging part of a cgroup's row.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Cgroup {
    /// Path below the cgroup mount; `/` is the root. The `id` label.
    #[serde(rename = "id")]
    pub path: String,
    /// When it was created, seconds since the epoch: the earliest mtime of its
    /// directories and of `cgroup.clone_children` (v1) or `cgroup.events` (v2),
    /// not before boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<u64>,
    /// Which container it is, where that is known.
    #[serde(flatten)]
    pub identity: Identity,
    /// The base labels, escaped once, as they stand between `{` and `}`.
    #[serde(skip)]
    pub labels: String,
    /// Whether a kubelet would show it, and with which labels.
    #[serde(skip)]
    pub kubelet: KubeletLabels,
    /// Where on the host's disks it keeps data.
    #[serde(skip)]
    pub storage: Storage,
    /// What it is a part of.
    #[serde(skip)]
    pub part: Part,
    /// Whether `/metrics` leaves it out, because cAdvisor's flags say so.
    #[serde(skip)]
    pub hidden: bool,
}

/// What a cgroup is to who lists pods and containers instead of cgroups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub role: Role,
    /// UID of the pod that it is or is in; a static pod's is its hash.
    pub pod_uid: Option<Box<str>>,
    /// The container's id, where it is one.
    pub id: Option<Box<str>>,
    /// Who runs it, in cAdvisor's words: `docker`, `containerd`, `crio`, `podman`.
    pub runtime: Option<&'static str>,
    /// When its runtime says it was made, nanoseconds since the epoch; of a pod
    /// when it was started.
    pub created_ns: Option<u64>,
    /// The runtime's labels, by key.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// Variables of its environment that were asked for, by name.
    pub environment: Vec<(Arc<str>, Arc<str>)>,
    /// Of a pod its volumes, where its spec is known.
    pub volumes: Vec<PodVolume>,
}

/// A volume as a pod's spec has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodVolume {
    /// Its name in the pod.
    pub name: Arc<str>,
    /// The claim it is by, in the pod's namespace.
    pub claim: Option<Arc<str>>,
    /// The name of its directory, where a container of the pod tells.
    pub directory: Option<Arc<str>>,
}

/// What a cgroup is, as far as the pods of this node's kubelet are concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// None of the others.
    #[default]
    Other,
    /// Where the kubelet runs.
    Kubelet,
    /// Where the container runtime runs.
    Runtime,
    /// Where the system's other services run.
    System,
    /// What all pods are in.
    Pods,
    /// A pod's own.
    Pod,
    /// A pod's pause container.
    Sandbox,
    /// A container, of a pod or of none.
    Container,
}

/// Where a container or a pod keeps data, as far as its identity tells. All
/// paths are the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Storage {
    /// It is a container, with a root filesystem that its processes' mount table shows.
    pub layer: bool,
    /// The directory of its logs.
    pub logs: Option<LogDirectory>,
    /// The kubelet's directory of the pod's volumes: `<root>/pods/<uid>/volumes`.
    pub volumes: Option<PathBuf>,
}

impl Storage {
    /// Whether there is nothing to measure.
    pub fn is_empty(&self) -> bool {
        *self == Storage::default()
    }
}

/// Where logs lie, and what of it is theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogDirectory {
    /// The regular files in it: the kubelet's way.
    Files(PathBuf),
    /// All of it: a directory that the runtime keeps for the container.
    Tree(PathBuf),
}

/// What a kubelet makes of a cgroup in its `/metrics/cadvisor`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum KubeletLabels {
    /// It has no row: it is neither the root, a pod's, above or below one, nor a
    /// service of Kubernetes.
    #[default]
    NotShown,
    /// The base labels are the kubelet's.
    Base,
    /// These, escaped once; the base labels are of another style.
    Own(Box<str>),
}

/// The names a container or a pod goes by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The pod's namespace, on its own row and on those of its containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The pod's name, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The container's name in its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The runtime's name for the container. The `name` label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image it runs. The `image` label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// When its runtime says it was started, nanoseconds since the epoch; its
    /// creation is another time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_ns: Option<u64>,
    /// What `container_start_time_seconds` tells: [`Identity::started_ns`] where
    /// cAdvisor asks the runtime for it, which is Docker and Podman; the creation
    /// of the cgroup elsewhere, as in the kubelet.
    #[serde(skip)]
    pub start_is_told: bool,
    /// The result of its health check; `None` where it has none, which is
    /// everywhere but with Docker and Podman.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// What a container's own health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It has just been started.
    Starting,
    /// It passed the last check.
    Healthy,
    /// It failed as many in a row as it may.
    Unhealthy,
}

impl Health {
    /// Docker's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Health::Starting => "starting",
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
        }
    }
}

/// CPU time and throttling.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpuStats {
    /// v1 `cpuacct.usage`; v2 `cpu.stat:usage_usec`. Nanoseconds.
    pub usage_ns: Reading,
    /// v1 `cpuacct.stat:user`; v2 `cpu.stat:user_usec`. Nanoseconds.
    pub user_ns: Reading,
    /// v1 `cpuacct.stat:system`; v2 `cpu.stat:system_usec`. Nanoseconds.
    pub system_ns: Reading,
    /// `cpu.stat:nr_periods`: enforcement periods that have passed.
    pub periods: Reading,
    /// `cpu.stat:nr_throttled`: periods in which it was throttled.
    pub throttled_periods: Reading,
    /// v1 `cpu.stat:throttled_time`; v2 `cpu.stat:throttled_usec`. Nanoseconds.
    pub throttled_ns: Reading,
    /// `cpu.stat:nr_bursts` (5.14).
    pub burst_periods: Reading,
    /// v1 `cpu.stat:burst_time`; v2 `cpu.stat:burst_usec`. Nanoseconds.
    pub burst_ns: Reading,
    /// Its use between the last two ticks of the grid, billionths of a core;
    /// absent before the second. A fresh tick has that of the last on the grid.
    pub nanocores: Reading,
    /// Over the same time: of what its threads ran and were held back by the quota, how much
    /// they were held back, millionths; absent without a quota, and where they did neither.
    pub throttled_millionths: Reading,
    /// v1 `cpuacct.usage_percpu`, one figure per possible CPU; `percpu` kind only.
    pub per_cpu_ns: Vec<u64>,
}

/// Memory in bytes unless said otherwise; the whole subtree unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MemoryStats {
    /// v1 `memory.usage_in_bytes`; v2 `memory.current`, at the root anon + file.
    pub usage: Reading,
    /// v1 `memory.max_usage_in_bytes`; v2 `memory.peak` (5.19).
    pub peak: Reading,
    /// usage - inactive_file, not below 0.
    pub working_set: Reading,
    /// v1 `memory.stat:total_cache`; v2 `memory.stat:file`.
    pub cache: Reading,
    /// v1 `memory.stat:total_rss`; v2 `memory.stat:anon`.
    pub rss: Reading,
    /// v1 `memory.stat:total_swap`; v2 `memory.swap.current`, at the root from meminfo.
    pub swap: Reading,
    /// v1 `memory.kmem.usage_in_bytes`; v2 `memory.stat:kernel` (5.18).
    pub kernel: Reading,
    /// v1 `memory.stat:total_mapped_file`; v2 `memory.stat:file_mapped`.
    pub mapped_file: Reading,
    /// v1 `memory.stat:total_active_file`; v2 `memory.stat:active_file`.
    pub active_file: Reading,
    /// v1 `memory.stat:total_inactive_file`; v2 `memory.stat:inactive_file`.
    pub inactive_file: Reading,
    /// v1 `memory.stat:total_dirty`; v2 `memory.stat:file_dirty`.
    pub dirty: Reading,
    /// v1 `memory.stat:total_writeback`; v2 `memory.stat:file_writeback`.
    pub writeback: Reading,
    /// v1 `memory.failcnt`; v2 `memory.events:max`. Times usage hit the limit.
    pub failcnt: Reading,
    /// v1 `memory.stat:pgfault`: page faults of this cgroup alone.
    pub pgfault_own: Reading,
    /// v1 `memory.stat:pgmajfault`: major faults of this cgroup alone.
    pub pgmajfault_own: Reading,
    /// v1 `memory.stat:total_pgfault`; v2 `memory.stat:pgfault`.
    pub pgfault: Reading,
    /// v1 `memory.stat:total_pgmajfault`; v2 `memory.stat:pgmajfault`.
    pub pgmajfault: Reading,
    /// v2 `memory.stat:pgscan`, pages.
    pub pgscan: Reading,
    /// v2 `memory.stat:pgsteal`, pages.
    pub pgsteal: Reading,
    /// `memory.stat:[total_]workingset_refault_file` (5.9), refaults.
    pub refault_file: Reading,
    /// `memory.stat:[total_]workingset_refault_anon` (5.9), refaults.
    pub refault_anon: Reading,
    /// v2 `memory.events:low`.
    pub events_low: Reading,
    /// v2 `memory.events:high`.
    pub events_high: Reading,
    /// v2 `memory.events:max`.
    pub events_max: Reading,
    /// v2 `memory.events:oom`.
    pub events_oom: Reading,
    /// v2 `memory.events:oom_kill`: processes of the subtree killed by the OOM killer.
    pub events_oom_kill: Reading,
    /// v2 `memory.events:oom_group_kill` (5.17).
    pub events_oom_group_kill: Reading,
    /// v2 `memory.swap.events:high` (5.8): times swap use went over its high mark.
    pub swap_events_high: Reading,
    /// v2 `memory.swap.events:max`: times swap use was about to go over its limit.
    pub swap_events_max: Reading,
    /// v2 `memory.swap.events:fail`: times no swap was to be had.
    pub swap_events_fail: Reading,
    /// Processes killed by the OOM killer since the cgroup was made. Of this cgroup
    /// alone; a pod's and a container's are those of all that is or was below it.
    /// The larger of what counters and the kernel's log tell:
    /// v1 `memory.oom_control:oom_kill` (4.13); v2 `memory.events.local:oom_kill`
    /// (5.2), before that `memory.events:oom_kill`; `/dev/kmsg`.
    pub oom_kills: Reading,
}

/// Figures of one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IoDevice {
    /// Device numbers as in `MAJ:MIN`.
    pub major: u32,
    /// See `major`.
    pub minor: u32,
    /// `/dev/<disk>`, or empty while the kernel names no such disk.
    pub name: Arc<str>,
    /// Bytes by operation. v1 `*io_service_bytes*`; v2 `io.stat` rbytes, wbytes, dbytes.
    pub bytes: IoOperations,
    /// Requests by operation. v1 `*io_serviced*`; v2 `io.stat` rios, wios, dios.
    pub ios: IoOperations,
    /// v1 `*io_service_time*`, nanoseconds, by operation (BFQ or CFQ only).
    pub service_time_ns: IoOperations,
    /// v1 `*io_merged*`, requests, by operation (BFQ or CFQ only).
    pub merged: IoOperations,
    /// v1 `*io_queued*:Total`, requests now queued (BFQ or CFQ only).
    pub queued: Reading,
    /// v1 `*sectors*` of 512 bytes, both directions (BFQ or CFQ only).
    pub sectors: Reading,
    /// v1 `*io_wait_time*`, nanoseconds in the scheduler's queues, by operation (BFQ or CFQ only).
    pub wait_time_ns: IoOperations,
    /// v1 `*time*`, milliseconds the device was given (BFQ or CFQ only).
    pub time_ms: Reading,
    /// v2 `io.stat:cost.usage`, microseconds (blk-iocost only).
    pub cost_usage_usec: Reading,
    /// v2 `io.stat:cost.wait`, microseconds.
    pub cost_wait_usec: Reading,
    /// v2 `io.stat:cost.indebt`, microseconds.
    pub cost_indebt_usec: Reading,
    /// v2 `io.stat:cost.indelay`, microseconds.
    pub cost_indelay_usec: Reading,
}

/// One figure per kind of operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct IoOperations {
    /// Reads.
    pub read: Reading,
    /// Writes.
    pub write: Reading,
    /// Synchronous operations (v1).
    pub sync: Reading,
    /// Asynchronous operations (v1).
    pub r#async: Reading,
    /// Discards (4.20).
    pub discard: Reading,
    /// The kernel's own sum (v1).
    pub total: Reading,
}

/// Pressure stall information of one cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PressureStats {
    /// `cpu.pressure`.
    pub cpu: Pressure,
    /// `memory.pressure`.
    pub memory: Pressure,
    /// `io.pressure`.
    pub io: Pressure,
}

/// One pressure file: totals in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pressure {
    /// `some total`: at least one task stalled.
    pub some_usec: Reading,
    /// `full total`: all non-idle tasks stalled. Absent for CPU before 5.13.
    pub full_usec: Reading,
    /// The kernel's averages of `some`.
    pub some_average: Option<Averages>,
    /// The kernel's averages of `full`.
    pub full_average: Option<Averages>,
}

/// Share of time stalled, hundredths of a percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Averages {
    /// `avg10`: over the last 10 seconds.
    pub avg10: u16,
    /// `avg60`: over the last minute.
    pub avg60: u16,
    /// `avg300`: over the last five minutes.
    pub avg300: u16,
}

/// Processes and their descriptors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ProcessStats {
    /// Lines of `cgroup.procs`: processes of this cgroup alone.
    pub processes: Reading,
    /// `pids.current`: threads of the subtree.
    pub threads: Reading,
    /// Open descriptors of those processes, from `/proc/<pid>/fd`.
    pub file_descriptors: Reading,
    /// Those among them that are sockets.
    pub sockets: Reading,
    /// `Max open files` soft limit of the oldest process, from `/proc/<pid>/limits`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_open_files: Option<Limit>,
    /// Its hard limit, which the process may raise the soft one to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_open_files_hard: Option<Limit>,
}

/// One interface of a network namespace, from `/proc/<pid>/net/dev`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Interface name, at most 15 bytes.
    pub name: InterfaceName,
    /// Receive direction.
    pub receive: Traffic,
    /// Transmit direction.
    pub transmit: Traffic,
}

/// Counters of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Errors.
    pub errors: u64,
    /// Dropped packets.
    pub dropped: u64,
}

/// An interface name held inline: the kernel's IFNAMSIZ is 16 with the NUL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InterfaceName {
    bytes: [u8; 16],
    len: u8,
}

impl InterfaceName {
    /// Takes a name of at most 16 bytes of UTF-8.
    pub fn new(name: &[u8]) -> Option<Self> {
        std::str::from_utf8(name).ok()?;
        let mut bytes = [0; 16];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(InterfaceName { bytes, len: u8::try_from(name.len()).ok()? })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..usize::from(self.len)).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or("")
    }
}

impl std::fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

impl Serialize for InterfaceName {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

/// Huge pages of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HugetlbStats {
    /// As in the file name: `2MB`, `1GB`.
    pub page_size: Arc<str>,
    /// v1 `hugetlb.<size>.usage_in_bytes`; v2 `hugetlb.<size>.current`; the
    /// `.rsvd` file where there is one. Bytes.
    pub usage: Reading,
    /// v1 `hugetlb.<size>.max_usage_in_bytes`. Bytes.
    pub max_usage: Reading,
    /// v1 `hugetlb.<size>.failcnt`; v2 `hugetlb.<size>.events:max`.
    pub failcnt: Reading,
}

/// Task states of this cgroup alone, from the kernel's cgroupstats (v1 only).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LoadStats {
    /// Tasks asleep.
    pub sleeping: Reading,
    /// Tasks running or runnable.
    pub running: Reading,
    /// Tasks stopped.
    pub stopped: Reading,
    /// Tasks in uninterruptible sleep.
    pub uninterruptible: Reading,
    /// Tasks waiting for I/O.
    pub io_waiting: Reading,
    /// Running tasks, smoothed over 10 s, times 1000.
    pub load_milli: Reading,
    /// Uninterruptible tasks, smoothed over 10 s, times 1000.
    pub load_d_milli: Reading,
}

/// What a cgroup is allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// v1 `cpu.cfs_period_us`; v2 `cpu.max`, second field. Microseconds.
    pub cpu_period_usec: Reading,
    /// v1 `cpu.cfs_quota_us`; v2 `cpu.max`, first field. Microseconds.
    pub cpu_quota_usec: Option<Limit>,
    /// v1 `cpu.cfs_burst_us`; v2 `cpu.max.burst`. Microseconds.
    pub cpu_burst_usec: Reading,
    /// v1 `cpu.shares`.
    pub cpu_shares: Reading,
    /// v2 `cpu.weight`.
    pub cpu_weight: Reading,
    /// v1 `memory.limit_in_bytes`; v2 `memory.max`; the root has the machine's memory.
    pub memory_limit: Option<Limit>,
    /// v1 `memory.memsw.limit_in_bytes` (memory + swap); v2 `memory.swap.max`
    /// (swap alone); the root has the machine's swap.
    pub memory_swap_limit: Option<Limit>,
    /// v1 `memory.soft_limit_in_bytes`; v2 `memory.low`.
    pub memory_reservation: Option<Limit>,
    /// v2 `memory.high`.
    pub memory_high: Option<Limit>,
    /// v2 `memory.min`.
    pub memory_min: Option<Limit>,
    /// `pids.max`.
    pub threads_max: Option<Limit>,
}

/// What the machine is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// `/etc/machine-id`, else the boot loader's D-Bus id.
    pub machine_id: String,
    /// `/sys/class/dmi/id/product_uuid`, lower case as the kernel gives it; the
    /// machine id where the firmware tells none.
    pub system_uuid: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// `/proc/sys/kernel/osrelease`.
    pub kernel_version: String,
    /// `PRETTY_NAME` of the host's os-release.
    pub os_version: String,
    /// `btime` of `/proc/stat`, seconds since the epoch.
    pub boot_time: Option<u64>,
    /// Online logical CPUs.
    pub cores: Reading,
    /// Distinct (socket, core) pairs.
    pub physical_cores: Reading,
    /// Distinct sockets.
    pub sockets: Reading,
    /// s390x books.
    pub books: Reading,
    /// s390x drawers.
    pub drawers: Reading,
    /// `MemTotal` of `/proc/meminfo`, bytes.
    pub memory_bytes: Reading,
    /// `SwapTotal` of `/proc/meminfo`, bytes.
    pub swap_bytes: Reading,
    /// Memory modules by type, from EDAC.
    pub dimms: Vec<Dimm>,
    /// Whether the distribution asks for a reboot, by `/run/reboot-required`; `None`
    /// where the host's `/run` cannot be seen.
    #[serde(skip)]
    pub reboot_required: Option<bool>,
    /// What it is made of.
    #[serde(skip)]
    pub hardware: Hardware,
}

/// Memory modules of one type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dimm {
    /// `dimm_mem_type`, for example `Registered-DDR4`.
    pub kind: String,
    /// How many.
    pub count: u64,
    /// Their capacity together, bytes.
    pub capacity_bytes: u64,
}

/// Mounted filesystems.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Filesystems {
    /// One per device, in mount order.
    pub mounts: Vec<Filesystem>,
    /// Volumes of pods that are filesystems of their own, by claim or by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeMount>,
}

/// A volume that the kubelet has mounted for a pod: `…/pods/<uid>/volumes/kubernetes.io~<plugin>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeMount {
    /// UID of the pod.
    pub pod_uid: String,
    /// Name of its directory: of the persistent volume, or the volume's in the pod.
    pub name: String,
    /// `statfs`: absent when the mount hangs, cannot be reached or is not visible here.
    pub space: Option<FilesystemSpace>,
    /// Seconds since the epoch at which `space` was read.
    pub space_read_at: Option<u64>,
}

/// One mounted filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Filesystem {
    /// The `device` label: mount source; tmpfs: mount point; overlay: `overlay_<major>-<minor>`.
    pub device: String,
    /// Where it is mounted first.
    pub mount_point: String,
    /// `ext4`, `xfs`, ...
    pub fs_type: String,
    /// Device numbers, which may be those of no disk.
    pub major: u32,
    /// See `major`.
    pub minor: u32,
    /// `statfs`: absent when the mount hangs, cannot be reached or is not visible here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub space: Option<FilesystemSpace>,
    /// Seconds since the epoch at which `space` was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub space_read_at: Option<u64>,
}

/// Space of a filesystem.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FilesystemSpace {
    /// f_frsize * f_blocks.
    pub capacity_bytes: u64,
    /// f_frsize * f_bavail.
    pub available_bytes: u64,
    /// f_frsize * (f_blocks - f_bfree).
    pub usage_bytes: u64,
    /// f_files; absent where the filesystem has no fixed number (reports 0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
    /// f_ffree; absent likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes_free: Option<u64>,
}

/// What a container or a pod keeps on disks. Each part has its own time, because
/// trees are walked within a budget and large ones take long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DiskUsage {
    /// The writable layer: overlayfs's `upperdir`, or the container's copy or
    /// device where the snapshotter makes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<DiskPart>,
    /// Logs: of a container its log files, of a pod the files beside its
    /// containers' directories.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<DiskPart>,
    /// A pod's volumes that lie on the node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeUsage>,
}

/// One directory tree or filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskPart {
    /// 512 * st_blocks of each inode, hard links once; of a whole filesystem or a
    /// project quota f_frsize * (f_blocks - f_bfree). Bytes.
    pub used_bytes: u64,
    /// Inodes, the directory itself among them; absent where the filesystem has
    /// no fixed number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
    /// Directories whose content is missing in it: not readable, or too deep.
    pub skipped_directories: u64,
    /// When it was complete, milliseconds since the epoch.
    pub measured_ms: u64,
    /// The `device` label of the filesystem it is on.
    pub device: Arc<str>,
    /// Space of that filesystem at that time.
    pub space: FilesystemSpace,
}

/// A volume on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeUsage {
    /// Its name in the pod.
    pub name: String,
    /// The kubelet's word for its type: `empty-dir`, `configmap`, `secret`, `projected`, `downward-api`.
    pub plugin: &'static str,
    /// Whether it is a filesystem of its own, for example of memory.
    pub mounted: bool,
    /// What it takes up.
    pub usage: DiskPart,
}

/// One line of `/proc/diskstats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DiskStats {
    /// Reads completed.
    pub reads: u64,
    /// Reads merged.
    pub reads_merged: u64,
    /// Sectors of 512 bytes read.
    pub sectors_read: u64,
    /// Milliseconds spent reading.
    pub read_ms: u64,
    /// Writes completed.
    pub writes: u64,
    /// Writes merged.
    pub writes_merged: u64,
    /// Sectors of 512 bytes written.
    pub sectors_written: u64,
    /// Milliseconds spent writing.
    pub write_ms: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// Milliseconds with at least one request in flight.
    pub io_ms: u64,
    /// Milliseconds weighted by requests in flight.
    pub weighted_ms: u64,
}

/// A group of families that is switched on and off together, under cAdvisor's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[repr(u8)]
pub enum Kind {
    /// CPU time, throttling.
    Cpu,
    /// CPU time by CPU instead of in total (v1 only).
    Percpu,
    /// Task states and their smoothed counts (v1 only).
    CpuLoad,
    /// Memory use, faults, events.
    Memory,
    /// Huge pages.
    Hugetlb,
    /// Space and inodes of filesystems.
    Disk,
    /// Block I/O.
    DiskIo,
    /// Network interfaces.
    Network,
    /// Processes killed by the OOM killer.
    OomEvent,
    /// Pressure stall information.
    Pressure,
    /// Processes, threads, descriptors, sockets.
    Process,
    /// TCP sockets by state.
    Tcp,
    /// UDP sockets and what waits in them.
    Udp,
    /// What TCP did, by the kernel's own names.
    Advtcp,
    /// What the scheduler did.
    Sched,
    /// Processors, caches and memory of the machine by NUMA node.
    CpuTopology,
    /// Whether memory follows a cpuset (v1 only).
    Cpuset,
    /// Memory by NUMA node.
    MemoryNuma,
    /// Every event of memory and swap limits (v2 only); not one of cAdvisor's.
    MemoryEvents,
}

impl Kind {
    /// Every kind this version collects.
    pub const ALL: [Kind; 19] = [
        Kind::Cpu,
        Kind::Percpu,
        Kind::CpuLoad,
        Kind::Memory,
        Kind::Hugetlb,
        Kind::Disk,
        Kind::DiskIo,
        Kind::Network,
        Kind::OomEvent,
        Kind::Pressure,
        Kind::Process,
        Kind::Tcp,
        Kind::Udp,
        Kind::Advtcp,
        Kind::Sched,
        Kind::CpuTopology,
        Kind::Cpuset,
        Kind::MemoryNuma,
        Kind::MemoryEvents,
    ];

    /// cAdvisor's name, or ours.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Cpu => "cpu",
            Kind::Percpu => "percpu",
            Kind::CpuLoad => "cpuLoad",
            Kind::Memory => "memory",
            Kind::Hugetlb => "hugetlb",
            Kind::Disk => "disk",
            Kind::DiskIo => "diskIO",
            Kind::Network => "network",
            Kind::OomEvent => "oom_event",
            Kind::Pressure => "pressure",
            Kind::Process => "process",
            Kind::Tcp => "tcp",
            Kind::Udp => "udp",
            Kind::Advtcp => "advtcp",
            Kind::Sched => "sched",
            Kind::CpuTopology => "cpu_topology",
            Kind::Cpuset => "cpuset",
            Kind::MemoryNuma => "memory_numa",
            Kind::MemoryEvents => "memory_events",
        }
    }
}

/// Which kinds are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds(u32);

impl Kinds {
    /// None.
    pub const NONE: Kinds = Kinds(0);

    /// What is on both in cAdvisor on its own and in the kubelet.
    pub const DEFAULT: Kinds = Kinds::NONE
        .with(Kind::Cpu)
        .with(Kind::CpuLoad)
        .with(Kind::Memory)
        .with(Kind::Disk)
        .with(Kind::DiskIo)
        .with(Kind::Network)
        .with(Kind::OomEvent)
        .with(Kind::Pressure);

    /// What a kubelet's `/metrics/cadvisor` has.
    pub const KUBELET: Kinds = Kinds::DEFAULT.with(Kind::Process);

    /// Those in both.
    #[must_use]
    pub const fn and(self, other: Kinds) -> Kinds {
        Kinds(self.0 & other.0)
    }

    /// Those in either.
    #[must_use]
    pub const fn or(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    /// Whether all of `other` are on.
    pub const fn has_all(self, other: Kinds) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `kind`.
    #[must_use]
    pub const fn with(self, kind: Kind) -> Kinds {
        Kinds(self.0 | 1 << kind as u8)
    }

    /// These without `kind`.
    #[must_use]
    pub const fn without(self, kind: Kind) -> Kinds {
        Kinds(self.0 & !(1 << kind as u8))
    }

    /// Whether `kind` is on.
    pub const fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    /// Those that are on, in the order of [`Kind::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |k| self.has(*k))
    }
}
