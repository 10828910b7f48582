//! One sample of a cgroup in cAdvisor's JSON: what versions 1 and 2 share.

use std::collections::BTreeMap;

use serde::Serialize;

use super::disks::{DiskIo, FsStats, whole};
use super::extra::{Cpuset, NumaStats, Schedstat, SocketStats, Switched};
use super::{GoTime, World};
use crate::history::{Figure, Sample};
use crate::snapshot::{
    Averages, CgroupSample, HugetlbStats, Interface, IoDevice, IoOperations, Limit, Pressure, Reading,
    Snapshot,
};

/// A figure that may not be known.
type Told = Option<u64>;

/// CPU.
#[derive(Debug, Serialize)]
pub struct Cpu {
    usage: CpuUsage,
    cfs: Cfs,
    schedstat: Schedstat,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_average: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_d_average: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

/// CPU time, nanoseconds; as `cpu_inst` nanocores.
#[derive(Debug, Serialize)]
pub struct CpuUsage {
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Told,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    per_cpu_usage: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Told,
}

#[derive(Debug, Serialize)]
struct Cfs {
    #[serde(skip_serializing_if = "Option::is_none")]
    periods: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttled_periods: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttled_time: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    bursts_periods: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    burst_time: Told,
}

/// Pressure: totals in microseconds, averages in percent.
#[derive(Debug, Serialize)]
pub(super) struct Psi {
    full: PsiData,
    some: PsiData,
}

#[derive(Debug, Serialize)]
struct PsiData {
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg10: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg60: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg300: Option<f64>,
}

fn psi(sample: &Sample, figures: [Figure; 2], now: Option<&Pressure>) -> Option<Psi> {
    let [some, full] = figures.map(|figure| sample.figures.get(figure));
    some.or(full)?;
    let data = |total: Told, averages: Option<Averages>| {
        let averages = averages.filter(|_| total.is_some());
        let percent = |get: fn(&Averages) -> u16| averages.as_ref().map(|a| f64::from(get(a)) / 100.0);
        PsiData {
            total,
            avg10: percent(|a| a.avg10),
            avg60: percent(|a| a.avg60),
            avg300: percent(|a| a.avg300),
        }
    };
    Some(Psi {
        full: data(full, now.and_then(|p| p.full_average)),
        some: data(some, now.and_then(|p| p.some_average)),
    })
}

/// Memory, bytes but for counts.
#[derive(Debug, Serialize)]
pub struct Memory {
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_usage: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    rss: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    mapped_file: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_set: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_active_file: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_inactive_file: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_dirty: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_writeback: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    pgscan: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    pgsteal: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    workingset_refault_file: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    workingset_refault_anon: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    failcnt: Told,
    container_data: Faults,
    hierarchical_data: Faults,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<MemoryEvents>,
}

#[derive(Debug, Serialize)]
struct Faults {
    #[serde(skip_serializing_if = "Option::is_none")]
    pgfault: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    pgmajfault: Told,
    numa_stats: NumaStats,
}

#[derive(Debug, Serialize)]
struct MemoryEvents {
    #[serde(skip_serializing_if = "Option::is_none")]
    high: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Told,
}

/// Huge pages of one size.
#[derive(Debug, Serialize)]
pub struct Hugetlb {
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_usage: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    failcnt: Told,
}

/// An interface; the first one's figures stand beside the list too.
#[derive(Debug, Clone, Serialize)]
pub struct InterfaceStats {
    name: String,
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_dropped: u64,
}

impl InterfaceStats {
    fn of(interface: &Interface) -> InterfaceStats {
        let Interface { name, receive, transmit } = interface;
        InterfaceStats {
            name: name.as_str().to_owned(),
            rx_bytes: receive.bytes,
            rx_packets: receive.packets,
            rx_errors: receive.errors,
            rx_dropped: receive.dropped,
            tx_bytes: transmit.bytes,
            tx_packets: transmit.packets,
            tx_errors: transmit.errors,
            tx_dropped: transmit.dropped,
        }
    }

    /// A sum, which is that interface's where there is no other.
    fn of_sum(name: &str, sample: &Sample) -> Option<InterfaceStats> {
        let get = |figure| sample.figures.get(figure);
        Some(InterfaceStats {
            name: name.to_owned(),
            rx_bytes: get(Figure::ReceiveBytes)?,
            rx_packets: get(Figure::ReceivePackets)?,
            rx_errors: get(Figure::ReceiveErrors)?,
            rx_dropped: get(Figure::ReceiveDropped)?,
            tx_bytes: get(Figure::TransmitBytes)?,
            tx_packets: get(Figure::TransmitPackets)?,
            tx_errors: get(Figure::TransmitErrors)?,
            tx_dropped: get(Figure::TransmitDropped)?,
        })
    }
}

/// Tasks by state.
#[derive(Debug, Serialize)]
pub struct Tasks {
    nr_sleeping: u64,
    nr_running: Told,
    nr_stopped: Told,
    nr_uninterruptible: Told,
    nr_io_wait: Told,
}

/// Processes and their descriptors.
#[derive(Debug, Serialize)]
pub struct Processes {
    #[serde(skip_serializing_if = "Option::is_none")]
    process_count: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    fd_count: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_count: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    threads_current: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    threads_max: Told,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ulimits: Vec<Ulimit>,
}

#[derive(Debug, Serialize)]
struct Ulimit {
    name: &'static str,
    soft_limit: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    hard_limit: Option<i64>,
}

/// A sample, as far as its parts are alike in all versions.
#[derive(Debug)]
pub struct Parts<'a> {
    /// What the figures are.
    sample: &'a Sample,
    /// The row itself, where the sample is of this tick.
    now: Option<&'a CgroupSample>,
    /// The row of this tick.
    row: &'a CgroupSample,
    /// Of kinds that are off by default.
    switched: Switched<'a>,
}

impl<'a> Parts<'a> {
    /// Those of `sample` of `row`, which `world` has.
    pub fn new(world: &World, sample: &'a Sample, row: &'a CgroupSample) -> Parts<'a> {
        let newest = world.is_newest(sample);
        let switched = Switched::new(world.snapshot.kinds, row, newest, sample);
        Parts { sample, now: newest.then_some(row), row, switched }
    }

    fn get(&self, figure: Figure) -> Told {
        self.sample.figures.get(figure)
    }

    fn told(&self, get: impl Fn(&CgroupSample) -> Reading) -> Told {
        self.now.and_then(get).map(u64::from)
    }

    /// When it was taken.
    pub fn timestamp(&self) -> GoTime {
        GoTime::of_ms(self.sample.wall_ms)
    }

    /// CPU.
    pub fn cpu(&self) -> Option<Cpu> {
        let total = self.get(Figure::CpuUsage);
        total?;
        Some(Cpu {
            usage: CpuUsage {
                total,
                per_cpu_usage: self.now.map(|row| row.cpu.per_cpu_ns.clone()).unwrap_or_default(),
                user: self.get(Figure::CpuUser),
                system: self.get(Figure::CpuSystem),
            },
            cfs: Cfs {
                periods: self.get(Figure::CpuPeriods),
                throttled_periods: self.get(Figure::CpuThrottledPeriods),
                throttled_time: self.get(Figure::CpuThrottled),
                bursts_periods: self.get(Figure::CpuBurstPeriods),
                burst_time: self.get(Figure::CpuBurst),
            },
            schedstat: self.switched.schedstat(),
            load_average: self.get(Figure::LoadMilli),
            load_d_average: self.get(Figure::LoadDMilli),
            psi: psi(
                self.sample,
                [Figure::CpuPressureSome, Figure::CpuPressureFull],
                self.now.map(|row| &row.pressure.cpu),
            ),
        })
    }

    /// Block I/O. Of an older sample the sums, which are a device's where it is
    /// the only one.
    pub fn diskio(&self) -> Option<DiskIo> {
        let devices = self.devices()?;
        let pressure = [Figure::IoPressureSome, Figure::IoPressureFull];
        let psi = psi(self.sample, pressure, self.now.map(|row| &row.pressure.io));
        Some(DiskIo::of(&devices, psi))
    }

    fn devices(&self) -> Option<Vec<IoDevice>> {
        if let Some(row) = self.now {
            return (!row.io.is_empty() || row.pressure.io.some_usec.is_some()).then(|| row.io.clone());
        }
        let [device] = self.row.io.as_slice() else { return None };
        let figure = |figure| self.get(figure).and_then(crate::snapshot::reading);
        let operations = |read, write, discard| IoOperations {
            read: figure(read),
            write: figure(write),
            discard: figure(discard),
            ..IoOperations::default()
        };
        Some(vec![IoDevice {
            bytes: operations(Figure::IoReadBytes, Figure::IoWriteBytes, Figure::IoDiscardBytes),
            ios: operations(Figure::IoReads, Figure::IoWrites, Figure::IoDiscards),
            service_time_ns: IoOperations::default(),
            merged: IoOperations::default(),
            queued: None,
            sectors: None,
            wait_time_ns: IoOperations::default(),
            time_ms: None,
            cost_usage_usec: None,
            cost_wait_usec: None,
            cost_indebt_usec: None,
            cost_indelay_usec: None,
            ..device.clone()
        }])
    }

    /// Memory.
    pub fn memory(&self) -> Option<Memory> {
        let (usage, working_set) = (self.get(Figure::MemoryUsage), self.get(Figure::MemoryWorkingSet));
        usage.or(working_set)?;
        let (high, max) = (self.get(Figure::EventsHigh), self.told(|row| row.memory.events_max));
        let [numa_own, numa] = self.switched.numa();
        Some(Memory {
            usage,
            max_usage: self.get(Figure::MemoryPeak),
            cache: self.get(Figure::MemoryCache),
            rss: self.get(Figure::MemoryRss),
            swap: self.get(Figure::MemorySwap),
            mapped_file: self.get(Figure::MemoryMappedFile),
            working_set,
            total_active_file: self.get(Figure::MemoryActiveFile),
            total_inactive_file: self.get(Figure::MemoryInactiveFile),
            file_dirty: self.get(Figure::MemoryDirty),
            file_writeback: self.get(Figure::MemoryWriteback),
            kernel: self.get(Figure::MemoryKernel),
            pgscan: self.told(|row| row.memory.pgscan),
            pgsteal: self.told(|row| row.memory.pgsteal),
            workingset_refault_file: self.told(|row| row.memory.refault_file),
            workingset_refault_anon: self.told(|row| row.memory.refault_anon),
            failcnt: self.get(Figure::MemoryFailcnt),
            container_data: Faults {
                pgfault: self.get(Figure::PgfaultOwn).or(self.get(Figure::Pgfault)),
                pgmajfault: self.get(Figure::PgmajfaultOwn).or(self.get(Figure::Pgmajfault)),
                numa_stats: numa_own,
            },
            hierarchical_data: Faults {
                pgfault: self.get(Figure::Pgfault),
                pgmajfault: self.get(Figure::Pgmajfault),
                numa_stats: numa,
            },
            psi: psi(
                self.sample,
                [Figure::MemoryPressureSome, Figure::MemoryPressureFull],
                self.now.map(|row| &row.pressure.memory),
            ),
            events: high.or(max).map(|_| MemoryEvents { high, max }),
        })
    }

    /// Huge pages by size, of the newest sample.
    pub fn hugetlb(&self) -> BTreeMap<String, Hugetlb> {
        let size = |h: &HugetlbStats| {
            let told = |reading: Reading| reading.map(u64::from);
            let (usage, max_usage, failcnt) = (told(h.usage), told(h.max_usage), told(h.failcnt));
            (h.page_size.to_string(), Hugetlb { usage, max_usage, failcnt })
        };
        self.now.map(|row| row.hugetlb.iter().map(size).collect()).unwrap_or_default()
    }

    /// Interfaces; of an older sample the sum, where there is only one.
    fn interfaces(&self) -> Vec<InterfaceStats> {
        match (self.now, self.row.network.as_slice()) {
            (Some(row), _) => row.network.iter().map(InterfaceStats::of).collect(),
            (None, [only]) => InterfaceStats::of_sum(only.name.as_str(), self.sample).into_iter().collect(),
            (None, _) => Vec::new(),
        }
    }

    /// Interfaces and sockets, where any are known.
    pub fn network(&self) -> Option<(Vec<InterfaceStats>, SocketStats)> {
        let interfaces = self.interfaces();
        let any = !interfaces.is_empty() || self.switched.has_sockets();
        any.then(|| (interfaces, self.switched.sockets()))
    }

    /// Whether memory follows to other NUMA nodes.
    pub fn cpuset(&self) -> Cpuset {
        self.switched.cpuset()
    }

    /// Tasks by state, where the kernel counts them.
    pub fn tasks(&self) -> Option<Tasks> {
        Some(Tasks {
            nr_sleeping: self.get(Figure::Sleeping)?,
            nr_running: self.get(Figure::Running),
            nr_stopped: self.get(Figure::Stopped),
            nr_uninterruptible: self.get(Figure::Uninterruptible),
            nr_io_wait: self.get(Figure::IoWaiting),
        })
    }

    /// Processes.
    pub fn processes(&self) -> Option<Processes> {
        let (process_count, threads_current) = (self.get(Figure::Processes), self.get(Figure::Threads));
        process_count.or(threads_current)?;
        let limit = |limit: Limit| match limit {
            Limit::Max => -1,
            Limit::Value(value) => i64::try_from(value).unwrap_or(i64::MAX),
        };
        let files = self.now.and_then(|row| row.process.max_open_files);
        let hard = self.now.and_then(|row| row.process.max_open_files_hard).map(limit);
        Some(Processes {
            process_count,
            fd_count: self.get(Figure::FileDescriptors),
            socket_count: self.get(Figure::Sockets),
            threads_current,
            // 0 is cAdvisor's word for no limit.
            threads_max: self.now.and_then(|row| row.spec.threads_max).map(|l| l.value().unwrap_or(0)),
            ulimits: files
                .map(|files| Ulimit { name: "max_open_files", soft_limit: limit(files), hard_limit: hard })
                .into_iter()
                .collect(),
        })
    }

    /// OOM kills.
    pub fn oom_events(&self) -> Told {
        self.get(Figure::OomKills)
    }
}

/// All filesystems of the host on the root, and on a container what it wrote.
pub fn filesystems(snapshot: &Snapshot, row: &CgroupSample) -> Vec<FsStats> {
    if row.cgroup.path == "/" {
        let mounts = snapshot.filesystems.mounts.iter().enumerate();
        let disk = |at: usize| snapshot.disks.get(at).and_then(Option::as_ref);
        return mounts.filter_map(|(at, fs)| whole(fs, disk(at))).collect();
    }
    let Some(disk) = row.disk.as_deref() else { return Vec::new() };
    let Some(layer) = &disk.layer else { return Vec::new() };
    let logs = disk.logs.as_ref().map_or(0, |logs| logs.used_bytes);
    vec![FsStats {
        device: layer.device.to_string(),
        kind: "vfs",
        capacity: layer.space.capacity_bytes,
        usage: layer.used_bytes.saturating_add(logs),
        base_usage: layer.used_bytes,
        available: layer.space.available_bytes,
        has_inodes: layer.inodes.is_some(),
        inodes: layer.inodes.unwrap_or(0),
        inodes_free: layer.space.inodes_free.unwrap_or(0),
        io: None,
    }]
}

/// The use of CPU between two samples, nanocores.
pub fn cpu_between(earlier: &Sample, later: &Sample) -> Option<CpuUsage> {
    let nanocores = |figure| {
        let window = crate::rate::Window::from_ns(later.usec_since(earlier)?.saturating_mul(1_000))?;
        Some(window.nanocores(later.rise_since(earlier, figure)?))
    };
    Some(CpuUsage {
        total: Some(nanocores(Figure::CpuUsage)?),
        per_cpu_usage: Vec::new(),
        user: nanocores(Figure::CpuUser),
        system: nanocores(Figure::CpuSystem),
    })
}
