//! Rows → values: which figure of a row is which metric.

use std::borrow::Cow;
use std::path::Path;

use super::NodeResources;
use super::bases::Rise;
use super::limits::{Drops, Limits};
use super::storage;
use super::who::{Declared, Found, Kind, Row, add};
use crate::identity::model::Resources;
use crate::push::batch::{Assembler, Kind as MetricKind, MetricId, metric};
use crate::rate::Window;
use crate::snapshot::{CgroupSample, Filesystem, IoDevice, Reading, Snapshot};

/// Where the kubelet keeps pods: the filesystem Kubernetes means by the node's.
const KUBELET_FILES: &str = "/var/lib/kubelet";

/// A counter of a row, and the metric of its rate.
#[derive(Debug)]
pub(super) struct Counter<T> {
    id: MetricId,
    rate: MetricId,
    pub(super) get: fn(&T) -> Reading,
}

const fn counter<T>(id: MetricId, rate: MetricId, get: fn(&T) -> Reading) -> Counter<T> {
    Counter { id, rate, get }
}

type Of<T> = &'static Counter<T>;

/// A metric and where its figure is in a row.
type Figure = (MetricId, fn(&CgroupSample) -> Reading);

/// Counters of a cgroup that have rates.
pub(super) const COUNTERS: [Of<CgroupSample>; 11] = [
    &counter(MetricId::CpuUsage, MetricId::CpuUsageRate, |s| s.cpu.usage_ns),
    &counter(MetricId::CpuThrottledPeriods, MetricId::CpuThrottledPeriodsRate, |s| s.cpu.throttled_periods),
    &counter(MetricId::CpuThrottled, MetricId::CpuThrottledRate, |s| s.cpu.throttled_ns),
    &counter(MetricId::CpuPressureSome, MetricId::CpuPressureSomeRate, |s| s.pressure.cpu.some_usec),
    &counter(MetricId::CpuPressureFull, MetricId::CpuPressureFullRate, |s| s.pressure.cpu.full_usec),
    &counter(MetricId::MemoryPageFaults, MetricId::MemoryPageFaultsRate, |s| s.memory.pgfault),
    &counter(MetricId::MemoryMajorPageFaults, MetricId::MemoryMajorPageFaultsRate, |s| s.memory.pgmajfault),
    &counter(MetricId::MemoryPressureSome, MetricId::MemoryPressureSomeRate, |s| s.pressure.memory.some_usec),
    &counter(MetricId::MemoryPressureFull, MetricId::MemoryPressureFullRate, |s| s.pressure.memory.full_usec),
    &counter(MetricId::DiskPressureSome, MetricId::DiskPressureSomeRate, |s| s.pressure.io.some_usec),
    &counter(MetricId::DiskPressureFull, MetricId::DiskPressureFullRate, |s| s.pressure.io.full_usec),
];

/// Counters of a block device.
pub(super) const DEVICE_COUNTERS: [Of<IoDevice>; 4] = [
    &counter(MetricId::DiskIoReadBytes, MetricId::DiskIoReadBytesRate, |d| d.bytes.read),
    &counter(MetricId::DiskIoWriteBytes, MetricId::DiskIoWriteBytesRate, |d| d.bytes.write),
    &counter(MetricId::DiskIoReads, MetricId::DiskIoReadsRate, |d| d.ios.read),
    &counter(MetricId::DiskIoWrites, MetricId::DiskIoWritesRate, |d| d.ios.write),
];

/// The rest of a row.
const FIGURES: [Figure; 17] = [
    (MetricId::CpuLoad, |s| s.load.load_milli),
    (MetricId::CpuUser, |s| s.cpu.user_ns),
    (MetricId::CpuSystem, |s| s.cpu.system_ns),
    (MetricId::CpuPeriods, |s| s.cpu.periods),
    (MetricId::MemoryUsage, |s| s.memory.usage),
    (MetricId::MemoryWorkingSet, |s| s.memory.working_set),
    (MetricId::MemoryRss, |s| s.memory.rss),
    (MetricId::MemoryCache, |s| s.memory.cache),
    (MetricId::MemorySwap, |s| s.memory.swap),
    (MetricId::MemoryPeak, |s| s.memory.peak),
    (MetricId::MemoryMappedFile, |s| s.memory.mapped_file),
    (MetricId::MemoryKernel, |s| s.memory.kernel),
    (MetricId::MemoryFailcnt, |s| s.memory.failcnt),
    (MetricId::MemoryOomEvents, |s| s.memory.events_oom),
    // These two count for the cgroup alone, which says nothing of one with
    // children: their processes are in those.
    (MetricId::MemoryOomKills, |s| s.memory.oom_kills.filter(|_| s.leaf)),
    (MetricId::ProcessCount, |s| s.process.processes.filter(|_| s.leaf)),
    (MetricId::ProcessThreads, |s| s.process.threads),
];

/// Gauges that add up where a pod has no cgroup of its own.
const SUMMED: [Figure; 4] = [
    (MetricId::MemoryUsage, |s| s.memory.usage),
    (MetricId::MemoryWorkingSet, |s| s.memory.working_set),
    (MetricId::MemoryRss, |s| s.memory.rss),
    (MetricId::MemoryCache, |s| s.memory.cache),
];

/// Rates that add up likewise; their counters do not, since containers end.
const SUMMED_RATES: [MetricId; 3] =
    [MetricId::CpuUsageRate, MetricId::MemoryPageFaultsRate, MetricId::MemoryMajorPageFaultsRate];

/// What all interfaces of a row carried together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Total {
    receive: [u64; 4],
    transmit: [u64; 4],
}

impl Total {
    /// The four that have rates.
    pub(super) fn rated(&self) -> [u64; 4] {
        let ([rx, rx_errors, ..], [tx, tx_errors, ..]) = (self.receive, self.transmit);
        [rx, rx_errors, tx, tx_errors]
    }
}

/// The sum over a row's interfaces; `None` where it has none.
pub(super) fn traffic(sample: &CgroupSample) -> Option<Total> {
    if sample.network.is_empty() {
        return None;
    }
    let mut total = Total::default();
    for interface in &sample.network {
        for (sum, t) in [(&mut total.receive, interface.receive), (&mut total.transmit, interface.transmit)] {
            for (sum, figure) in sum.iter_mut().zip([t.bytes, t.errors, t.packets, t.dropped]) {
                *sum = sum.saturating_add(figure);
            }
        }
    }
    Some(total)
}

/// The value of a metric's label; empty where it has none.
type Label<'a> = Cow<'a, str>;

#[derive(Debug, Clone, Copy)]
enum Sent {
    Integer(u64),
    Double(f64),
}

/// The values of one entity at a time.
#[derive(Debug)]
pub(super) struct Values<'a> {
    snapshot: &'a Snapshot,
    most_devices: usize,
    kind: Kind,
    departed: bool,
    list: Vec<(MetricId, Label<'a>, Sent)>,
    window: Option<Window>,
}

impl<'a> Values<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, limits: &Limits) -> Values<'a> {
        Values {
            snapshot,
            most_devices: limits.devices,
            kind: Kind::Node,
            departed: false,
            list: Vec::new(),
            window: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The window of the entity's rates, where it has any.
    pub(super) fn window(&self) -> Option<Window> {
        self.window
    }

    /// Collects what an entity's rows tell.
    pub(super) fn gather(&mut self, found: &Found<'a>, rows: &[Row<'a>], drops: &mut Drops) {
        self.list.clear();
        (self.kind, self.departed, self.window) = (found.kind, found.departed, None);
        let parts: Vec<&Row<'a>> = found.parts.iter().filter_map(|at| rows.get(*at)).collect();
        if let Some(row) = found.row.and_then(|at| rows.get(at)) {
            self.age(found, row);
            self.row(row, drops);
        } else if let Some(first) = parts.first() {
            self.age(found, first);
            self.sum(&parts);
        }
        if let Some(row) = found.network.and_then(|at| rows.get(at)) {
            self.network(row);
        }
        storage::gather(self, found, rows);
        self.declared(&found.declared);
    }

    /// Hands everything to the batch, as values of its newest entity.
    pub(super) fn put(&mut self, batch: &mut Assembler) {
        for (id, label, sent) in self.list.drain(..) {
            match sent {
                Sent::Integer(value) if label.is_empty() => batch.integer(id, value),
                Sent::Integer(value) => {
                    let label = batch.string(&label);
                    batch.labelled(id, label, value);
                }
                Sent::Double(value) => batch.double(id, value),
            }
        }
    }

    fn push(&mut self, id: MetricId, label: Label<'a>, sent: Sent) {
        let Some(metric) = metric(id.into()) else { return };
        let carried = match self.kind {
            Kind::Node => metric.on.node,
            Kind::System => metric.on.system,
            Kind::Pod => metric.on.pod,
            Kind::Container => metric.on.container,
        };
        // What is gone uses nothing any more; what it used remains.
        if carried && !(self.departed && metric.kind == MetricKind::Gauge) {
            self.list.push((id, label, sent));
        }
    }

    pub(super) fn integer(&mut self, id: MetricId, value: Option<u64>) {
        if let Some(value) = value {
            self.push(id, Cow::Borrowed(""), Sent::Integer(value));
        }
    }

    fn double(&mut self, id: MetricId, value: Option<f64>) {
        if let Some(value) = value.filter(|v| v.is_finite()) {
            self.push(id, Cow::Borrowed(""), Sent::Double(value));
        }
    }

    pub(super) fn labelled(&mut self, id: MetricId, label: &Label<'a>, value: Option<u64>) {
        if let Some(value) = value {
            self.push(id, label.clone(), Sent::Integer(value));
        }
    }

    fn age(&mut self, found: &Found<'_>, row: &Row<'_>) {
        // A clock that was set since has no age to tell.
        self.integer(MetricId::Uptime, found.start_ms.and_then(|start| row.wall_ms.checked_sub(start)));
    }

    fn row(&mut self, row: &Row<'a>, drops: &mut Drops) {
        let (sample, rise) = (row.sample, &row.rise);
        self.window = rise.window;
        for (counter, rise) in COUNTERS.iter().zip(rise.counters) {
            self.integer(counter.id, (counter.get)(sample).map(u64::from));
            self.integer(counter.rate, rise.map(u64::from));
        }
        for (id, get) in FIGURES {
            self.integer(id, get(sample).map(u64::from));
        }
        self.disks(sample, rise, drops);
    }

    fn disks(&mut self, sample: &'a CgroupSample, rise: &Rise, drops: &mut Drops) {
        let label = |device: &'a IoDevice| match &*device.name {
            "" => Cow::Owned(format!("{}:{}", device.major, device.minor)),
            name => Cow::Borrowed(name),
        };
        let mut devices: Vec<(Label<'a>, usize, &IoDevice)> =
            sample.io.iter().enumerate().map(|(at, d)| (label(d), at, d)).collect();
        devices.sort_by(|a, b| a.0.cmp(&b.0));
        devices.dedup_by(|a, b| a.0 == b.0);
        drops.devices += devices.len().saturating_sub(self.most_devices) as u64;
        for (label, at, device) in devices.into_iter().take(self.most_devices) {
            let rises = rise.devices.get(at).copied().unwrap_or_default();
            for (counter, rise) in DEVICE_COUNTERS.iter().zip(rises) {
                self.labelled(counter.id, &label, (counter.get)(device).map(u64::from));
                self.labelled(counter.rate, &label, rise.map(u64::from));
            }
        }
    }

    /// A pod without a cgroup of its own uses what its containers use. Its
    /// counters are not made up from theirs, because theirs end with them.
    fn sum(&mut self, parts: &[&Row<'a>]) {
        for (id, get) in SUMMED {
            let mut sum = None;
            parts.iter().for_each(|row| add(&mut sum, get(row.sample).map(u64::from)));
            self.integer(id, sum);
        }
        let mut windows = parts.iter().map(|row| row.rise.window);
        let Some(first) = windows.next().flatten() else { return };
        // A sum in which one container is missing would be a wrong one.
        if !windows.all(|w| w == Some(first)) {
            return;
        }
        self.window = Some(first);
        for (at, counter) in COUNTERS.iter().enumerate().filter(|(_, c)| SUMMED_RATES.contains(&c.rate)) {
            let rises = parts.iter().map(|row| row.rise.counters.get(at).copied().flatten().map(u64::from));
            self.integer(counter.rate, rises.sum());
        }
    }

    fn network(&mut self, row: &Row<'a>) {
        let Some(total) = traffic(row.sample) else { return };
        let [rx, rx_errors, rx_packets, rx_dropped] = total.receive.map(Some);
        let [tx, tx_errors, tx_packets, tx_dropped] = total.transmit.map(Some);
        // The sandbox may have been sampled at other steps than the pod.
        let rise = row.rise.network.filter(|_| row.rise.window == self.window).unwrap_or_default();
        let [rx_rise, rx_errors_rise, tx_rise, tx_errors_rise] = rise.map(|r| r.map(u64::from));
        for (id, value) in [
            (MetricId::NetworkRx, rx),
            (MetricId::NetworkRxRate, rx_rise),
            (MetricId::NetworkRxErrors, rx_errors),
            (MetricId::NetworkRxErrorsRate, rx_errors_rise),
            (MetricId::NetworkRxPackets, rx_packets),
            (MetricId::NetworkRxDropped, rx_dropped),
            (MetricId::NetworkTx, tx),
            (MetricId::NetworkTxRate, tx_rise),
            (MetricId::NetworkTxErrors, tx_errors),
            (MetricId::NetworkTxErrorsRate, tx_errors_rise),
            (MetricId::NetworkTxPackets, tx_packets),
            (MetricId::NetworkTxDropped, tx_dropped),
        ] {
            self.integer(id, value);
        }
    }

    fn declared(&mut self, declared: &Declared<'a>) {
        let Declared { requests, limits, others, restarts } = declared;
        self.integer(MetricId::RestartCount, *restarts);
        self.integer(MetricId::CpuRequest, requests.cpu_milli);
        self.integer(MetricId::CpuLimit, limits.cpu_milli);
        self.integer(MetricId::MemoryRequest, requests.memory_bytes);
        self.integer(MetricId::MemoryLimit, limits.memory_bytes);
        self.integer(MetricId::EphemeralStorageRequest, requests.ephemeral_storage_bytes);
        self.integer(MetricId::EphemeralStorageLimit, limits.ephemeral_storage_bytes);
        for (name, count) in others {
            self.labelled(MetricId::ResourceRequest, &Cow::Borrowed(*name), Some(*count));
        }
    }

    /// What only a node has, after its row: filesystems, what it has and gives
    /// to pods, and what its pods ask for together.
    pub(super) fn node(&mut self, resources: &NodeResources, pods: &Declared<'a>, drops: &mut Drops) {
        self.declared(pods);
        let machine = &self.snapshot.machine;
        let cores = machine.cores.map(|c| u64::from(c).saturating_mul(1000));
        let cpu = resources.capacity.cpu_milli.or(cores);
        let memory = resources.capacity.memory_bytes.or(machine.memory_bytes.map(u64::from));
        let used_cpu = self.window.zip(self.sent(MetricId::CpuUsageRate)).map(|(w, rise)| w.millicores(rise));
        let used_memory = self.sent(MetricId::MemoryUsage);
        let storage = self.filesystems(drops);
        self.integer(MetricId::EphemeralStorageUsage, storage);
        let Resources { cpu_milli, memory_bytes, ephemeral_storage_bytes } = resources.allocatable;
        // Heapster's names for capacity, allocatable, utilization and reservation.
        self.shares(
            [
                MetricId::CpuNodeCapacity,
                MetricId::CpuNodeAllocatable,
                MetricId::CpuNodeUtilization,
                MetricId::CpuNodeReservation,
            ],
            [cpu, cpu_milli, used_cpu, pods.requests.cpu_milli],
        );
        self.shares(
            [
                MetricId::MemoryNodeCapacity,
                MetricId::MemoryNodeAllocatable,
                MetricId::MemoryNodeUtilization,
                MetricId::MemoryNodeReservation,
            ],
            [memory, memory_bytes, used_memory, pods.requests.memory_bytes],
        );
        let capacity = resources.capacity.ephemeral_storage_bytes;
        self.shares(
            [
                MetricId::EphemeralStorageNodeCapacity,
                MetricId::EphemeralStorageNodeAllocatable,
                MetricId::EphemeralStorageNodeUtilization,
                MetricId::EphemeralStorageNodeReservation,
            ],
            [capacity, ephemeral_storage_bytes, storage, pods.requests.ephemeral_storage_bytes],
        );
    }

    /// Capacity and allocatable as they are, usage and requests as parts of
    /// what is allocatable.
    fn shares(&mut self, ids: [MetricId; 4], figures: [Option<u64>; 4]) {
        let allocatable = figures.get(1).copied().flatten().map(|a| a as f64);
        for (at, (id, figure)) in ids.into_iter().zip(figures).enumerate() {
            let figure = figure.map(|f| f as f64);
            let value = if at < 2 { figure } else { figure.zip(allocatable).map(|(f, a)| f / a) };
            self.double(id, value);
        }
    }

    /// Space of each filesystem; returns what is used of the one with pods.
    fn filesystems(&mut self, drops: &mut Drops) -> Option<u64> {
        let snapshot = self.snapshot;
        let mounts = &snapshot.filesystems.mounts;
        let holds_pods = |f: &&Filesystem| Path::new(KUBELET_FILES).starts_with(&f.mount_point);
        let pods = mounts.iter().filter(holds_pods).max_by_key(|f| f.mount_point.len());
        let is_pods = |f: &Filesystem| pods.is_some_and(|p| std::ptr::eq(p, f));
        let label = |f: &'a Filesystem| if is_pods(f) { "/" } else { f.device.as_str() };
        let mut spaces: Vec<_> = mounts.iter().filter_map(|f| Some((label(f), f.space?))).collect();
        spaces.sort_by_key(|(label, _)| *label);
        spaces.dedup_by_key(|(label, _)| *label);
        drops.devices += spaces.len().saturating_sub(self.most_devices) as u64;
        for (label, space) in spaces.into_iter().take(self.most_devices) {
            let label = Cow::Borrowed(label);
            self.labelled(MetricId::FilesystemUsage, &label, Some(space.usage_bytes));
            self.labelled(MetricId::FilesystemLimit, &label, Some(space.capacity_bytes));
            self.labelled(MetricId::FilesystemAvailable, &label, Some(space.available_bytes));
            self.labelled(MetricId::FilesystemInodes, &label, space.inodes);
            self.labelled(MetricId::FilesystemInodesFree, &label, space.inodes_free);
        }
        pods.and_then(|f| f.space).map(|s| s.usage_bytes)
    }

    /// What is in the list for a metric without label.
    fn sent(&self, id: MetricId) -> Option<u64> {
        self.list.iter().find(|(listed, ..)| *listed == id).and_then(|(.., sent)| match sent {
            Sent::Integer(value) => Some(*value),
            Sent::Double(_) => None,
        })
    }
}
