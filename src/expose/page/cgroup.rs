//! `/api/page/cgroup?path=P`: the last minutes of one cgroup, as columns over time,
//! and what it is now.
//!
//! With `since=T`, the `at` of the answer before, only the samples after it. At most
//! [`SAMPLES`] are told: of more, every second, third and so on.

use serde::Serialize;

use super::node::{cpu_limit, kind, memory_limit, millicores, percent, short, throttled, whole};
use crate::history::{Figure, History, Sample};
use crate::snapshot::{CgroupSample, DiskUsage, Identity, Interface, IoDevice, Snapshot, Spec};

/// Most samples of an answer.
pub const SAMPLES: usize = 600;

/// What the answer has.
#[derive(Debug, Serialize)]
pub struct Detail<'a> {
    id: &'a str,
    kind: char,
    identity: &'a Identity,
    uid: Option<&'a str>,
    container_id: Option<&'a str>,
    runtime: Option<&'a str>,
    created: Option<u64>,
    /// Wall clock of the collection, milliseconds since the epoch.
    time: u64,
    /// The newest sample's, for `since`.
    at: u64,
    /// How far back samples go, milliseconds.
    window: u64,
    /// Thousandths of a core.
    cpu_limit: Option<u64>,
    /// Bytes.
    memory_limit: Option<u64>,
    spec: &'a Spec,
    oom_kills: Option<u64>,
    disk: Option<&'a DiskUsage>,
    interfaces: &'a [Interface],
    devices: &'a [IoDevice],
    series: Series,
}

type Column<T> = Vec<Option<T>>;

/// The samples, the oldest first; rates are those since the sample before. Units as
/// in the answer for the whole machine.
#[derive(Debug, Default, Serialize)]
struct Series {
    /// Wall clock, milliseconds since the epoch.
    time: Vec<u64>,
    cpu: Column<f64>,
    cpu_user: Column<f64>,
    cpu_system: Column<f64>,
    throttled: Column<f64>,
    usage: Column<u64>,
    working_set: Column<u64>,
    rss: Column<u64>,
    cache: Column<u64>,
    swap: Column<u64>,
    faults: Column<u64>,
    major_faults: Column<f64>,
    received: Column<u64>,
    sent: Column<u64>,
    received_packets: Column<u64>,
    sent_packets: Column<u64>,
    lost: Column<f64>,
    read: Column<u64>,
    written: Column<u64>,
    reads: Column<f64>,
    writes: Column<f64>,
    cpu_some: Column<f64>,
    cpu_full: Column<f64>,
    memory_some: Column<f64>,
    memory_full: Column<f64>,
    io_some: Column<f64>,
    io_full: Column<f64>,
    processes: Column<u64>,
    threads: Column<u64>,
    descriptors: Column<u64>,
    sockets: Column<u64>,
}

impl<'a> Detail<'a> {
    /// What there is to say of `path`; `None` where there is no such cgroup.
    pub fn new(
        snapshot: &'a Snapshot,
        history: &History,
        path: &str,
        since: Option<u64>,
    ) -> Option<Detail<'a>> {
        let at = snapshot.cgroups.binary_search_by(|row| row.cgroup.path.as_str().cmp(path)).ok()?;
        let row: &CgroupSample = snapshot.cgroups.get(at)?;
        let now = history.sample(snapshot, row);
        let mut samples = history.samples(path).unwrap_or_default();
        if samples.last().is_none_or(|newest| now.usec_since(newest).is_some()) {
            samples.push(now);
        }
        let mut series = Series::default();
        let stride = samples.len().div_ceil(SAMPLES).max(1);
        // The newest stays.
        let kept: Vec<&Sample> = samples.iter().rev().step_by(stride).collect();
        let pairs = kept.iter().rev().zip(kept.iter().rev().skip(1));
        for (earlier, later) in pairs.filter(|(_, later)| since.is_none_or(|since| later.taken_usec > since))
        {
            series.add(earlier, later);
        }
        let cgroup = &row.cgroup;
        Some(Detail {
            id: &cgroup.path,
            kind: kind(cgroup),
            identity: &cgroup.identity,
            uid: cgroup.part.pod_uid.as_deref(),
            container_id: cgroup.part.id.as_deref(),
            runtime: cgroup.part.runtime,
            created: cgroup.created,
            time: snapshot.wall_ms,
            at: samples.last().map_or(0, |newest| newest.taken_usec),
            window: u64::try_from(history.window().as_millis()).unwrap_or(u64::MAX),
            cpu_limit: cpu_limit(row),
            memory_limit: memory_limit(row),
            spec: &row.spec,
            oom_kills: row.memory.oom_kills.map(|kills| kills.get()),
            disk: row.disk.as_deref(),
            interfaces: &row.network,
            devices: &row.io,
            series,
        })
    }
}

impl Series {
    fn add(&mut self, earlier: &Sample, later: &Sample) {
        let cpu = |counter| millicores(earlier, later, counter);
        let rate = |counter| whole(earlier, later, counter);
        let share = |counter| percent(earlier, later, counter);
        let fine = |counter| super::node::rate(earlier, later, counter).map(short);
        let figure = |figure| later.figures.get(figure);
        self.time.push(later.wall_ms);
        self.cpu.push(cpu(Figure::CpuUsage));
        self.cpu_user.push(cpu(Figure::CpuUser));
        self.cpu_system.push(cpu(Figure::CpuSystem));
        self.throttled.push(throttled(earlier, later));
        self.usage.push(figure(Figure::MemoryUsage));
        self.working_set.push(figure(Figure::MemoryWorkingSet));
        self.rss.push(figure(Figure::MemoryRss));
        self.cache.push(figure(Figure::MemoryCache));
        self.swap.push(figure(Figure::MemorySwap));
        self.faults.push(rate(Figure::Pgfault));
        self.major_faults.push(fine(Figure::Pgmajfault));
        self.received.push(rate(Figure::ReceiveBytes));
        self.sent.push(rate(Figure::TransmitBytes));
        self.received_packets.push(rate(Figure::ReceivePackets));
        self.sent_packets.push(rate(Figure::TransmitPackets));
        let lost =
            [Figure::ReceiveErrors, Figure::ReceiveDropped, Figure::TransmitErrors, Figure::TransmitDropped];
        self.lost.push(lost.into_iter().filter_map(fine).reduce(|sum, one| sum + one));
        self.read.push(rate(Figure::IoReadBytes));
        self.written.push(rate(Figure::IoWriteBytes));
        self.reads.push(fine(Figure::IoReads));
        self.writes.push(fine(Figure::IoWrites));
        self.cpu_some.push(share(Figure::CpuPressureSome));
        self.cpu_full.push(share(Figure::CpuPressureFull));
        self.memory_some.push(share(Figure::MemoryPressureSome));
        self.memory_full.push(share(Figure::MemoryPressureFull));
        self.io_some.push(share(Figure::IoPressureSome));
        self.io_full.push(share(Figure::IoPressureFull));
        self.processes.push(figure(Figure::Processes));
        self.threads.push(figure(Figure::Threads));
        self.descriptors.push(figure(Figure::FileDescriptors));
        self.sockets.push(figure(Figure::Sockets));
    }
}
