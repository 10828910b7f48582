//! Every metric a batch can carry: the one table that the step builder, the
//! sinks and the readers share. A metric is added here and in `batch.proto`,
//! which a test compares; its number is never used again for something else.
//!
//! It is one file because it is a table, in the order of its numbers.

use super::label::Label;
use super::proto::MetricId;

/// How values of a metric follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Counts up since the entity's start.
    Cumulative,
    /// As it is at the step.
    Gauge,
    /// How fast the counter named rose over the entity's window.
    Rate(MetricId),
}

/// What values of a metric count; of a rate, in one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Thousandths of a second.
    Milliseconds,
    /// Millionths of a second.
    Microseconds,
    /// Billionths of a second.
    Nanoseconds,
    /// Thousandths of a CPU; not per second, also where it is a rate.
    Millicores,
    /// Parts of one.
    Ratio,
}

impl Unit {
    /// As Heapster's schema calls it; it knows no `us`.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Count | Unit::Ratio => "count",
            Unit::Bytes => "bytes",
            Unit::Milliseconds => "ms",
            Unit::Microseconds => "us",
            Unit::Nanoseconds => "ns",
            Unit::Millicores => "millicores",
        }
    }
}

/// The type of a metric's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// A whole number, never negative.
    Integer,
    /// A number.
    Double,
}

/// Which entities can carry a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds {
    /// The node.
    pub node: bool,
    /// System containers.
    pub system: bool,
    /// Pods.
    pub pod: bool,
    /// Containers.
    pub container: bool,
}

const N: Kinds = kinds(true, false, false, false);
const C: Kinds = kinds(false, false, false, true);
const PC: Kinds = kinds(false, false, true, true);
const NPC: Kinds = kinds(true, false, true, true);
const SPC: Kinds = kinds(false, true, true, true);
const NSPC: Kinds = kinds(true, true, true, true);

const fn kinds(node: bool, system: bool, pod: bool, container: bool) -> Kinds {
    Kinds { node, system, pod, container }
}

/// A metric under Prometheus' conventions: cAdvisor's name where it has one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prometheus {
    /// Its name.
    pub name: &'static str,
    /// A value divided by this is in the name's unit.
    pub divisor: f64,
    /// Labels that the name needs.
    pub labels: &'static [(&'static str, &'static str)],
    /// What the metric's own labels are called there, in the order of their values.
    pub own: &'static [&'static str],
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its number in the format.
    pub id: MetricId,
    /// Heapster's name, or one made like Heapster's.
    pub name: &'static str,
    /// How its values follow each other.
    pub kind: Kind,
    /// What they count.
    pub unit: Unit,
    /// What type they have for a reader.
    pub value_type: ValueType,
    /// What tells several values of one entity apart.
    pub label: Option<Label>,
    /// Who can carry it.
    pub on: Kinds,
    /// What Prometheus calls it. Rates and ratios have no name there: they are
    /// worked out from their counters.
    pub prometheus: Option<Prometheus>,
    /// Where it comes from.
    pub source: &'static str,
}

impl Metric {
    /// Whether it is a rate.
    pub fn is_rate(&self) -> bool {
        matches!(self.kind, Kind::Rate(_))
    }

    /// Whether Heapster had it.
    pub fn is_heapsters(&self) -> bool {
        !OURS.contains(&self.id)
    }

    /// The type of what the batch carries: a rate travels as the increase of its
    /// counter, which is whole.
    pub(super) fn sent_as(&self) -> ValueType {
        if self.is_rate() { ValueType::Integer } else { self.value_type }
    }
}

/// Metrics that Heapster did not have.
const OURS: [MetricId; 36] = [
    MetricId::CpuUser,
    MetricId::CpuSystem,
    MetricId::CpuPeriods,
    MetricId::CpuThrottledPeriods,
    MetricId::CpuThrottledPeriodsRate,
    MetricId::CpuThrottled,
    MetricId::CpuThrottledRate,
    MetricId::CpuPressureSome,
    MetricId::CpuPressureSomeRate,
    MetricId::CpuPressureFull,
    MetricId::CpuPressureFullRate,
    MetricId::MemorySwap,
    MetricId::MemoryPeak,
    MetricId::MemoryMappedFile,
    MetricId::MemoryKernel,
    MetricId::MemoryFailcnt,
    MetricId::MemoryOomEvents,
    MetricId::MemoryOomKills,
    MetricId::MemoryPressureSome,
    MetricId::MemoryPressureSomeRate,
    MetricId::MemoryPressureFull,
    MetricId::MemoryPressureFullRate,
    MetricId::NetworkRxPackets,
    MetricId::NetworkRxDropped,
    MetricId::NetworkTxPackets,
    MetricId::NetworkTxDropped,
    MetricId::DiskIoReads,
    MetricId::DiskIoReadsRate,
    MetricId::DiskIoWrites,
    MetricId::DiskIoWritesRate,
    MetricId::DiskPressureSome,
    MetricId::DiskPressureSomeRate,
    MetricId::DiskPressureFull,
    MetricId::DiskPressureFullRate,
    MetricId::ProcessCount,
    MetricId::ProcessThreads,
];

/// Numbers of metrics are below this.
const NUMBERS: usize = 256;

/// For each number where its row is in [`METRICS`], and one more.
#[allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "the compiler works it out, and stops where something does not fit"
)]
const ROWS: [u8; NUMBERS] = {
    let mut rows = [0; NUMBERS];
    let mut at = 0;
    while at < METRICS.len() {
        rows[METRICS[at].id as usize] = at as u8 + 1;
        at += 1;
    }
    rows
};

/// The metric of that number, if it is known here.
#[inline]
pub fn metric(id: i32) -> Option<&'static Metric> {
    METRICS.get(row(id)?)
}

/// Its row in [`METRICS`].
#[inline]
pub(super) fn row(id: i32) -> Option<usize> {
    let row = ROWS.get(usize::try_from(id).ok()?)?;
    usize::from(*row).checked_sub(1)
}

/// What tells accelerators apart.
const ACCELERATOR: Label = Label::Each(&["make", "model", "accelerator_id"]);

const fn counter(id: MetricId, name: &'static str, unit: Unit, on: Kinds, source: &'static str) -> Metric {
    let (kind, value_type) = (Kind::Cumulative, ValueType::Integer);
    Metric { id, name, kind, unit, value_type, label: None, on, prometheus: None, source }
}

const fn gauge(id: MetricId, name: &'static str, unit: Unit, on: Kinds, source: &'static str) -> Metric {
    Metric { kind: Kind::Gauge, ..counter(id, name, unit, on, source) }
}

const fn rate(id: MetricId, name: &'static str, of: MetricId, unit: Unit, on: Kinds) -> Metric {
    let counted = counter(id, name, unit, on, "rate of the counter it is named after");
    Metric { kind: Kind::Rate(of), value_type: ValueType::Double, ..counted }
}

impl Metric {
    const fn double(self) -> Metric {
        Metric { value_type: ValueType::Double, ..self }
    }

    const fn by(self, label: &'static str) -> Metric {
        self.told(Label::Of(label))
    }

    const fn told(self, label: Label) -> Metric {
        Metric { label: Some(label), ..self }
    }

    const fn called(self, name: &'static str, divisor: f64) -> Metric {
        let own: &[&str] = match self.label {
            None => &[],
            Some(Label::Of(_)) => &["device"],
            Some(Label::Each(_)) => &["make", "model", "acc_id"],
            Some(Label::Name) => &["resource"],
        };
        Metric { prometheus: Some(Prometheus { name, divisor, labels: &[], own }), ..self }
    }

    const fn with(self, labels: &'static [(&'static str, &'static str)]) -> Metric {
        match self.prometheus {
            Some(prometheus) => Metric { prometheus: Some(Prometheus { labels, ..prometheus }), ..self },
            None => self,
        }
    }
}

/// Every metric, in the order of its number.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    counter(MetricId::Uptime, "uptime", Unit::Milliseconds, NSPC,
        "time of the sample minus start"),
    counter(MetricId::RestartCount, "restart_count", Unit::Count, PC,
        "`status.containerStatuses[].restartCount`, or the runtime's attempt; a pod has the sum")
        .called("nodegauge_restarts_total", 1.0),
    gauge(MetricId::CpuLoad, "cpu/load", Unit::Count, NSPC,
        "v1 cgroupstats: running tasks smoothed over 10 s, times 1000")
        .called("container_cpu_load_average_10s", 1.0),
    counter(MetricId::CpuUsage, "cpu/usage", Unit::Nanoseconds, NSPC,
        "v1 `cpuacct.usage`; v2 `cpu.stat:usage_usec`")
        .called("container_cpu_usage_seconds_total", 1000000000.0).with(&[("cpu", "total")]),
    Metric { value_type: ValueType::Integer, ..rate(MetricId::CpuUsageRate, "cpu/usage_rate", MetricId::CpuUsage, Unit::Millicores, NSPC) },
    counter(MetricId::CpuUser, "cpu/user", Unit::Nanoseconds, NSPC,
        "v1 `cpuacct.stat:user`; v2 `cpu.stat:user_usec`")
        .called("container_cpu_user_seconds_total", 1000000000.0),
    counter(MetricId::CpuSystem, "cpu/system", Unit::Nanoseconds, NSPC,
        "v1 `cpuacct.stat:system`; v2 `cpu.stat:system_usec`")
        .called("container_cpu_system_seconds_total", 1000000000.0),
    counter(MetricId::CpuPeriods, "cpu/periods", Unit::Count, SPC,
        "`cpu.stat:nr_periods`")
        .called("container_cpu_cfs_periods_total", 1.0),
    counter(MetricId::CpuThrottledPeriods, "cpu/throttled_periods", Unit::Count, SPC,
        "`cpu.stat:nr_throttled`")
        .called("container_cpu_cfs_throttled_periods_total", 1.0),
    rate(MetricId::CpuThrottledPeriodsRate, "cpu/throttled_periods_rate", MetricId::CpuThrottledPeriods, Unit::Count, SPC),
    counter(MetricId::CpuThrottled, "cpu/throttled", Unit::Nanoseconds, SPC,
        "v1 `cpu.stat:throttled_time`; v2 `cpu.stat:throttled_usec`")
        .called("container_cpu_cfs_throttled_seconds_total", 1000000000.0),
    rate(MetricId::CpuThrottledRate, "cpu/throttled_rate", MetricId::CpuThrottled, Unit::Nanoseconds, SPC),
    gauge(MetricId::CpuRequest, "cpu/request", Unit::Millicores, NPC,
        "`resources.requests`; pods and nodes have the sum of what is set")
        .called("nodegauge_cpu_request_cores", 1000.0),
    gauge(MetricId::CpuLimit, "cpu/limit", Unit::Millicores, NPC,
        "`resources.limits`, outside pods the cgroup's quota; pods and nodes have the sum of what is set")
        .called("nodegauge_cpu_limit_cores", 1000.0),
    gauge(MetricId::CpuNodeCapacity, "cpu/node_capacity", Unit::Millicores, N,
        "online logical CPUs").double()
        .called("machine_cpu_cores", 1000.0),
    gauge(MetricId::CpuNodeAllocatable, "cpu/node_allocatable", Unit::Millicores, N,
        "`status.allocatable` of the node").double()
        .called("nodegauge_cpu_allocatable_cores", 1000.0),
    gauge(MetricId::CpuNodeUtilization, "cpu/node_utilization", Unit::Ratio, N,
        "`cpu/usage_rate` / `cpu/node_allocatable`").double(),
    gauge(MetricId::CpuNodeReservation, "cpu/node_reservation", Unit::Ratio, N,
        "`cpu/request` / `cpu/node_allocatable`").double(),
    counter(MetricId::CpuPressureSome, "cpu/pressure_some", Unit::Microseconds, NSPC,
        "`cpu.pressure:some total`")
        .called("container_pressure_cpu_waiting_seconds_total", 1000000.0),
    rate(MetricId::CpuPressureSomeRate, "cpu/pressure_some_rate", MetricId::CpuPressureSome, Unit::Microseconds, NSPC),
    counter(MetricId::CpuPressureFull, "cpu/pressure_full", Unit::Microseconds, NSPC,
        "`cpu.pressure:full total`")
        .called("container_pressure_cpu_stalled_seconds_total", 1000000.0),
    rate(MetricId::CpuPressureFullRate, "cpu/pressure_full_rate", MetricId::CpuPressureFull, Unit::Microseconds, NSPC),
    gauge(MetricId::MemoryUsage, "memory/usage", Unit::Bytes, NSPC,
        "v1 `memory.usage_in_bytes`; v2 `memory.current`")
        .called("container_memory_usage_bytes", 1.0),
    gauge(MetricId::MemoryWorkingSet, "memory/working_set", Unit::Bytes, NSPC,
        "usage minus inactive_file")
        .called("container_memory_working_set_bytes", 1.0),
    gauge(MetricId::MemoryRss, "memory/rss", Unit::Bytes, NSPC,
        "v1 `memory.stat:total_rss`; v2 `memory.stat:anon`")
        .called("container_memory_rss", 1.0),
    gauge(MetricId::MemoryCache, "memory/cache", Unit::Bytes, NSPC,
        "v1 `memory.stat:total_cache`; v2 `memory.stat:file`")
        .called("container_memory_cache", 1.0),
    gauge(MetricId::MemorySwap, "memory/swap", Unit::Bytes, NSPC,
        "v1 `memory.stat:total_swap`; v2 `memory.swap.current`")
        .called("container_memory_swap", 1.0),
    gauge(MetricId::MemoryPeak, "memory/peak", Unit::Bytes, SPC,
        "v1 `memory.max_usage_in_bytes`; v2 `memory.peak`")
        .called("container_memory_max_usage_bytes", 1.0),
    gauge(MetricId::MemoryMappedFile, "memory/mapped_file", Unit::Bytes, NSPC,
        "v1 `memory.stat:total_mapped_file`; v2 `memory.stat:file_mapped`")
        .called("container_memory_mapped_file", 1.0),
    gauge(MetricId::MemoryKernel, "memory/kernel", Unit::Bytes, NSPC,
        "v1 `memory.kmem.usage_in_bytes`; v2 `memory.stat:kernel`")
        .called("container_memory_kernel_usage", 1.0),
    counter(MetricId::MemoryPageFaults, "memory/page_faults", Unit::Count, NSPC,
        "v1 `memory.stat:total_pgfault`; v2 `memory.stat:pgfault`")
        .called("container_memory_failures_total", 1.0).with(&[("failure_type", "pgfault"), ("scope", "hierarchy")]),
    rate(MetricId::MemoryPageFaultsRate, "memory/page_faults_rate", MetricId::MemoryPageFaults, Unit::Count, NSPC),
    counter(MetricId::MemoryMajorPageFaults, "memory/major_page_faults", Unit::Count, NSPC,
        "v1 `memory.stat:total_pgmajfault`; v2 `memory.stat:pgmajfault`")
        .called("container_memory_failures_total", 1.0).with(&[("failure_type", "pgmajfault"), ("scope", "hierarchy")]),
    rate(MetricId::MemoryMajorPageFaultsRate, "memory/major_page_faults_rate", MetricId::MemoryMajorPageFaults, Unit::Count, NSPC),
    counter(MetricId::MemoryFailcnt, "memory/failcnt", Unit::Count, SPC,
        "v1 `memory.failcnt`; v2 `memory.events:max`")
        .called("container_memory_failcnt", 1.0),
    counter(MetricId::MemoryOomEvents, "memory/oom_events", Unit::Count, SPC,
        "v2 `memory.events:oom`")
        .called("container_memory_events_oom_total", 1.0),
    counter(MetricId::MemoryOomKills, "memory/oom_kills", Unit::Count, SPC,
        "v1 `memory.oom_control:oom_kill`; v2 `memory.events.local:oom_kill`")
        .called("container_oom_events_total", 1.0),
    gauge(MetricId::MemoryRequest, "memory/request", Unit::Bytes, NPC,
        "as `cpu/request`")
        .called("nodegauge_memory_request_bytes", 1.0),
    gauge(MetricId::MemoryLimit, "memory/limit", Unit::Bytes, NPC,
        "as `cpu/limit`")
        .called("nodegauge_memory_limit_bytes", 1.0),
    gauge(MetricId::MemoryNodeCapacity, "memory/node_capacity", Unit::Bytes, N,
        "`MemTotal` of `/proc/meminfo`").double()
        .called("machine_memory_bytes", 1.0),
    gauge(MetricId::MemoryNodeAllocatable, "memory/node_allocatable", Unit::Bytes, N,
        "`status.allocatable` of the node").double()
        .called("nodegauge_memory_allocatable_bytes", 1.0),
    gauge(MetricId::MemoryNodeUtilization, "memory/node_utilization", Unit::Ratio, N,
        "`memory/usage` / `memory/node_allocatable`").double(),
    gauge(MetricId::MemoryNodeReservation, "memory/node_reservation", Unit::Ratio, N,
        "`memory/request` / `memory/node_allocatable`").double(),
    counter(MetricId::MemoryPressureSome, "memory/pressure_some", Unit::Microseconds, NSPC,
        "`memory.pressure:some total`")
        .called("container_pressure_memory_waiting_seconds_total", 1000000.0),
    rate(MetricId::MemoryPressureSomeRate, "memory/pressure_some_rate", MetricId::MemoryPressureSome, Unit::Microseconds, NSPC),
    counter(MetricId::MemoryPressureFull, "memory/pressure_full", Unit::Microseconds, NSPC,
        "`memory.pressure:full total`")
        .called("container_pressure_memory_stalled_seconds_total", 1000000.0),
    rate(MetricId::MemoryPressureFullRate, "memory/pressure_full_rate", MetricId::MemoryPressureFull, Unit::Microseconds, NSPC),
    gauge(MetricId::EphemeralStorageUsage, "ephemeral_storage/usage", Unit::Bytes, NPC,
        "nodes: the filesystem the kubelet keeps pods on; containers: layer and logs; pods: these, their logs and their volumes on disk")
        .called("nodegauge_ephemeral_storage_usage_bytes", 1.0),
    gauge(MetricId::EphemeralStorageRequest, "ephemeral_storage/request", Unit::Bytes, NPC,
        "as `cpu/request`")
        .called("nodegauge_ephemeral_storage_request_bytes", 1.0),
    gauge(MetricId::EphemeralStorageLimit, "ephemeral_storage/limit", Unit::Bytes, NPC,
        "`resources.limits`; pods and nodes have the sum of what is set")
        .called("nodegauge_ephemeral_storage_limit_bytes", 1.0),
    gauge(MetricId::EphemeralStorageNodeCapacity, "ephemeral_storage/node_capacity", Unit::Bytes, N,
        "`status.capacity` of the node").double()
        .called("nodegauge_ephemeral_storage_capacity_bytes", 1.0),
    gauge(MetricId::EphemeralStorageNodeAllocatable, "ephemeral_storage/node_allocatable", Unit::Bytes, N,
        "`status.allocatable` of the node").double()
        .called("nodegauge_ephemeral_storage_allocatable_bytes", 1.0),
    gauge(MetricId::EphemeralStorageNodeUtilization, "ephemeral_storage/node_utilization", Unit::Ratio, N,
        "`ephemeral_storage/usage` / `ephemeral_storage/node_allocatable`").double(),
    gauge(MetricId::EphemeralStorageNodeReservation, "ephemeral_storage/node_reservation", Unit::Ratio, N,
        "`ephemeral_storage/request` / `ephemeral_storage/node_allocatable`").double(),
    gauge(MetricId::ResourceRequest, "*/request", Unit::Count, PC,
        "`resources.requests` of anything else; pods have the sum of what is set").told(Label::Name)
        .called("nodegauge_resource_request", 1.0),
    counter(MetricId::NetworkRx, "network/rx", Unit::Bytes, NSPC,
        "`/proc/<pid>/net/dev`, sum over interfaces")
        .called("container_network_receive_bytes_total", 1.0),
    rate(MetricId::NetworkRxRate, "network/rx_rate", MetricId::NetworkRx, Unit::Bytes, NSPC),
    counter(MetricId::NetworkRxErrors, "network/rx_errors", Unit::Count, NSPC,
        "`/proc/<pid>/net/dev`, sum over interfaces")
        .called("container_network_receive_errors_total", 1.0),
    rate(MetricId::NetworkRxErrorsRate, "network/rx_errors_rate", MetricId::NetworkRxErrors, Unit::Count, NSPC),
    counter(MetricId::NetworkRxPackets, "network/rx_packets", Unit::Count, NSPC,
        "`/proc/<pid>/net/dev`, sum over interfaces")
        .called("container_network_receive_packets_total", 1.0),
    counter(MetricId::NetworkRxDropped, "network/rx_dropped", Unit::Count, NSPC,
        "`/proc/<pid>/net/dev`, sum over interfaces")
        .called("container_network_receive_packets_dropped_total", 1.0),
    counter(MetricId::NetworkTx, "network/tx", Unit::Bytes, NSPC,
        "`/proc/<pid>/net/dev`, sum over interfaces")
        .called("container_network_transmit_bytes_total", 1.0),
    rate(MetricId::NetworkTxRate, "network/tx_rate", MetricId::NetworkTx, Unit::Bytes, NSPC),
    counter(MetricId::NetworkTxErrors, "network/tx_errors", Unit::Count, NSPC,
        "`/proc/<pid>/net/dev`, sum over interfaces")
        .called("container_network_transmit_errors_total", 1.0),
    rate(MetricId::NetworkTxErrorsRate, "network/tx_errors_rate", MetricId::NetworkTxErrors, Unit::Count, NSPC),
    counter(MetricId::NetworkTxPackets, "network/tx_packets", Unit::Count, NSPC,
        "`/proc/<pid>/net/dev`, sum over interfaces")
        .called("container_network_transmit_packets_total", 1.0),
    counter(MetricId::NetworkTxDropped, "network/tx_dropped", Unit::Count, NSPC,
        "`/proc/<pid>/net/dev`, sum over interfaces")
        .called("container_network_transmit_packets_dropped_total", 1.0),
    gauge(MetricId::FilesystemUsage, "filesystem/usage", Unit::Bytes, NPC,
        "nodes `statfs:f_blocks - f_bfree`, `/` is the filesystem the kubelet keeps pods on, others go by device; containers `/` the writable layer and `logs`, pods `Volume:NAME`, what they take up").by("resource_id")
        .called("container_fs_usage_bytes", 1.0),
    gauge(MetricId::FilesystemLimit, "filesystem/limit", Unit::Bytes, NPC,
        "`statfs:f_blocks`; of pods and containers of the filesystem that `filesystem/usage` is on").by("resource_id")
        .called("container_fs_limit_bytes", 1.0),
    gauge(MetricId::FilesystemAvailable, "filesystem/available", Unit::Bytes, NPC,
        "`statfs:f_bavail`; of pods and containers of the filesystem that `filesystem/usage` is on").by("resource_id")
        .called("container_fs_available_bytes", 1.0),
    gauge(MetricId::FilesystemInodes, "filesystem/inodes", Unit::Count, NPC,
        "`statfs:f_files`; of pods and containers of the filesystem that `filesystem/usage` is on").by("resource_id")
        .called("container_fs_inodes_total", 1.0),
    gauge(MetricId::FilesystemInodesFree, "filesystem/inodes_free", Unit::Count, NPC,
        "`statfs:f_ffree`; of pods and containers of the filesystem that `filesystem/usage` is on").by("resource_id")
        .called("container_fs_inodes_free", 1.0),
    counter(MetricId::DiskIoReadBytes, "disk/io_read_bytes", Unit::Bytes, NSPC,
        "v1 `blkio.throttle.io_service_bytes:Read`; v2 `io.stat:rbytes`; by device").by("resource_id")
        .called("container_fs_reads_bytes_total", 1.0),
    rate(MetricId::DiskIoReadBytesRate, "disk/io_read_bytes_rate", MetricId::DiskIoReadBytes, Unit::Bytes, NSPC).by("resource_id"),
    counter(MetricId::DiskIoWriteBytes, "disk/io_write_bytes", Unit::Bytes, NSPC,
        "v1 `blkio.throttle.io_service_bytes:Write`; v2 `io.stat:wbytes`; by device").by("resource_id")
        .called("container_fs_writes_bytes_total", 1.0),
    rate(MetricId::DiskIoWriteBytesRate, "disk/io_write_bytes_rate", MetricId::DiskIoWriteBytes, Unit::Bytes, NSPC).by("resource_id"),
    counter(MetricId::DiskIoReads, "disk/io_reads", Unit::Count, NSPC,
        "v1 `blkio.throttle.io_serviced:Read`; v2 `io.stat:rios`; by device").by("resource_id")
        .called("container_fs_reads_total", 1.0),
    rate(MetricId::DiskIoReadsRate, "disk/io_reads_rate", MetricId::DiskIoReads, Unit::Count, NSPC).by("resource_id"),
    counter(MetricId::DiskIoWrites, "disk/io_writes", Unit::Count, NSPC,
        "v1 `blkio.throttle.io_serviced:Write`; v2 `io.stat:wios`; by device").by("resource_id")
        .called("container_fs_writes_total", 1.0),
    rate(MetricId::DiskIoWritesRate, "disk/io_writes_rate", MetricId::DiskIoWrites, Unit::Count, NSPC).by("resource_id"),
    counter(MetricId::DiskPressureSome, "disk/pressure_some", Unit::Microseconds, NSPC,
        "`io.pressure:some total`")
        .called("container_pressure_io_waiting_seconds_total", 1000000.0),
    rate(MetricId::DiskPressureSomeRate, "disk/pressure_some_rate", MetricId::DiskPressureSome, Unit::Microseconds, NSPC),
    counter(MetricId::DiskPressureFull, "disk/pressure_full", Unit::Microseconds, NSPC,
        "`io.pressure:full total`")
        .called("container_pressure_io_stalled_seconds_total", 1000000.0),
    rate(MetricId::DiskPressureFullRate, "disk/pressure_full_rate", MetricId::DiskPressureFull, Unit::Microseconds, NSPC),
    gauge(MetricId::ProcessCount, "process/count", Unit::Count, SPC,
        "lines of `cgroup.procs`")
        .called("container_processes", 1.0),
    gauge(MetricId::ProcessThreads, "process/threads", Unit::Count, NSPC,
        "`pids.current`")
        .called("container_threads", 1.0),
    gauge(MetricId::AcceleratorMemoryTotal, "accelerator/memory_total", Unit::Bytes, C,
        "`accelerators[].memoryTotal` of kubelets before 1.25").told(ACCELERATOR)
        .called("container_accelerator_memory_total_bytes", 1.0),
    gauge(MetricId::AcceleratorMemoryUsed, "accelerator/memory_used", Unit::Bytes, C,
        "`accelerators[].memoryUsed` of kubelets before 1.25").told(ACCELERATOR)
        .called("container_accelerator_memory_used_bytes", 1.0),
    gauge(MetricId::AcceleratorDutyCycle, "accelerator/duty_cycle", Unit::Count, C,
        "`accelerators[].dutyCycle` of kubelets before 1.25, percent").told(ACCELERATOR)
        .called("container_accelerator_duty_cycle", 1.0),
    gauge(MetricId::Custom, "custom/*", Unit::Count, NSPC,
        "what programs push of themselves; `userDefinedMetrics` of old kubelets, of which a pod has the sum")
        .told(Label::Name).double(),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const PROTO: &str = include_str!("../../../proto/nodegauge/v1/batch.proto");

    /// Writers of series merge them with others without sorting.
    #[test]
    fn labels_of_series_are_in_order() {
        for named in METRICS.iter().filter_map(|m| m.prometheus) {
            assert!(named.labels.is_sorted_by(|(a, _), (b, _)| a < b), "{}", named.name);
            let mut names = named.labels.iter().map(|(name, _)| *name).chain(named.own.iter().copied());
            assert!(names.all(|name| name > "__name__"), "{}", named.name);
        }
    }

    /// The comment behind a number in the .proto is what the table says.
    #[test]
    fn the_proto_says_the_same() {
        let lines: Vec<&str> = PROTO.lines().filter(|l| l.trim_start().starts_with("METRIC_ID_")).collect();
        assert_eq!(lines.len(), METRICS.len() + 1, "METRIC_ID_UNSPECIFIED and the table");
        for (line, metric) in lines.iter().skip(1).zip(METRICS) {
            let (number, comment) = line.split_once(';').unwrap();
            assert!(
                number.contains(&format!("{} = {}", metric.id.as_str_name(), metric.id as i32)),
                "{line}"
            );
            let label = match metric.label {
                None => String::new(),
                Some(Label::Of(label)) => format!(" [{label}]"),
                Some(Label::Each(labels)) => format!(" [{}]", labels.join(",")),
                Some(Label::Name) => " [*]".to_owned(),
            };
            let kind = match metric.kind {
                Kind::Cumulative => "C",
                Kind::Gauge => "G",
                Kind::Rate(_) => "R",
            };
            let on = [
                (metric.on.node, 'N'),
                (metric.on.system, 'S'),
                (metric.on.pod, 'P'),
                (metric.on.container, 'C'),
            ];
            let on: String = on.into_iter().filter(|(on, _)| *on).map(|(_, letter)| letter).collect();
            let words: Vec<&str> = comment.trim_start_matches([' ', '/']).split(", ").collect();
            assert_eq!(words[0], format!("{}{label}", metric.name), "{line}");
            assert_eq!(words[1], kind, "{line}");
            assert_eq!(words[3], on, "{line}");
            let double = words[2].contains("double");
            let expected = metric.value_type == ValueType::Double && !metric.is_rate();
            assert_eq!(double, expected, "{line}");
        }
    }

    /// The table of Heapster's own schema, by name.
    #[test]
    fn heapsters_metrics() {
        let had = "uptime restart_count cpu/load cpu/usage cpu/usage_rate cpu/request cpu/limit cpu/node_capacity \
            cpu/node_allocatable cpu/node_utilization cpu/node_reservation memory/usage memory/working_set memory/rss \
            memory/cache memory/page_faults memory/page_faults_rate memory/major_page_faults \
            memory/major_page_faults_rate memory/request memory/limit memory/node_capacity memory/node_allocatable \
            memory/node_utilization memory/node_reservation ephemeral_storage/usage ephemeral_storage/request \
            ephemeral_storage/limit ephemeral_storage/node_capacity ephemeral_storage/node_allocatable \
            ephemeral_storage/node_utilization ephemeral_storage/node_reservation */request network/rx network/rx_rate \
            network/rx_errors network/rx_errors_rate network/tx network/tx_rate network/tx_errors \
            network/tx_errors_rate filesystem/usage filesystem/limit filesystem/available filesystem/inodes \
            filesystem/inodes_free disk/io_read_bytes disk/io_read_bytes_rate disk/io_write_bytes \
            disk/io_write_bytes_rate accelerator/memory_total accelerator/memory_used accelerator/duty_cycle custom/*";
        let ours: Vec<_> = METRICS.iter().filter(|m| m.is_heapsters()).map(|m| m.name).collect();
        assert_eq!(ours, had.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn names_are_unique_and_rates_have_counters() {
        let names: HashSet<_> = METRICS.iter().map(|m| m.name).collect();
        assert_eq!(names.len(), METRICS.len());
        assert!(METRICS.is_sorted_by_key(|m| m.id));
        for m in METRICS {
            assert_eq!(metric(m.id.into()), Some(m), "{}", m.name);
            if let Kind::Rate(of) = m.kind {
                let counter = metric(of.into()).unwrap();
                assert_eq!(m.name, format!("{}_rate", counter.name));
                assert_eq!((counter.kind, counter.label, counter.on), (Kind::Cumulative, m.label, m.on));
            }
            if let Some(prometheus) = m.prometheus {
                // cAdvisor's names are not ours to mend.
                let odd = matches!(m.name, "memory/failcnt" | "filesystem/inodes");
                let total = prometheus.name.ends_with("_total") != odd;
                assert_eq!(total, m.kind == Kind::Cumulative, "{}", m.name);
                assert_eq!(prometheus.own.is_empty(), m.label.is_none());
            }
        }
    }
}
