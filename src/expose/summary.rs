//! A snapshot as a kubelet's `/stats/summary`: node, pods and containers, in JSON.
//! The shape and what fills it are one file, so that both are seen together.
//!
//! Everything in an answer was read in one tick and has its time, but what is on
//! disks, which has the time of its measurement. What is not known is left out,
//! so that one thing that cannot be read hides nothing else. Known differences
//! from a kubelet, each on purpose:
//!
//! - totals of pressure are nanoseconds, as the type says, whatever the source;
//! - page faults are those of the whole cgroup, which on cgroup v1 a kubelet
//!   counts without what is below, so that its pods have none;
//! - a host-network pod has no network: what a kubelet tells there is the host's;
//! - without `eth0` the default interface of a pod is its first, and that of a
//!   node its first of Ethernet, where a kubelet knows none.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::pods::{self, Pod, began_ns};
use crate::snapshot::{
    Averages, CgroupSample, DiskPart, DiskUsage, Filesystem, FilesystemSpace, Interface, Limit, PodVolume,
    Pressure, Reading, Role, Snapshot, Tasks, VolumeMount, VolumeUsage, reading,
};

/// What an answer says besides the snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The node's name.
    pub node_name: String,
    /// The kubelet's directory on the host.
    pub kubelet_root: std::path::PathBuf,
    /// Where the runtime keeps images and layers.
    pub images: Vec<ImageStore>,
    /// Docker's version and that of its API, where it answers.
    pub docker: Option<(String, String)>,
}

/// A filesystem on which a runtime keeps images or layers, as it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageStore {
    /// The runtime's name, as `nodegauge check` has it.
    pub runtime: &'static str,
    /// A directory on it.
    pub path: String,
    /// Whether it is told of writable layers, which may be apart from images.
    pub layers: bool,
    /// The runtime's own count, bytes.
    pub used_bytes: Option<u64>,
    /// Likewise, inodes.
    pub inodes_used: Option<u64>,
    /// When it counted, nanoseconds since the epoch.
    pub measured_ns: Option<u64>,
}

/// How much is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Everything.
    Full,
    /// `only_cpu_and_memory=true`: nothing that is on disks or networks.
    CpuAndMemory,
}

/// Writes the answer.
///
/// # Errors
/// Those of `out`.
pub fn write(
    snapshot: &Snapshot,
    surroundings: &Surroundings,
    extent: Extent,
    out: impl std::io::Write,
) -> serde_json::Result<()> {
    let full = extent == Extent::Full;
    let view = View { snapshot, surroundings, full, node_fs: node_fs(snapshot, surroundings) };
    let pods = pods::of(snapshot);
    serde_json::to_writer(out, &Summary { node: view.node(), pods: Each(&pods, |pod| view.pod(pod)) })
}

/// Seconds since the epoch, written as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(pub(super) u64);

impl Time {
    fn of_ms(ms: u64) -> Time {
        Time(ms / 1_000)
    }

    fn of_ns(ns: u64) -> Time {
        Time(ns / 1_000_000_000)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The last second that has four digits of a year.
        let seconds = Duration::from_secs(self.0.min(253_402_300_799));
        humantime::format_rfc3339_seconds(UNIX_EPOCH + seconds).fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A list that is made while it is written.
struct Each<'a, T, F>(&'a [T], F);

impl<'a, T, S: Serialize, F: Fn(&'a T) -> S> Serialize for Each<'a, T, F> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        serializer.collect_seq(self.0.iter().map(&self.1))
    }
}

#[derive(Serialize)]
struct Summary<'a, P> {
    node: NodeStats<'a>,
    pods: P,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeStats<'a> {
    node_name: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system_containers: Vec<ContainerStats<'a>>,
    start_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<CpuStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    io: Option<IoStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<NetworkStats<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fs: Option<FsStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<RuntimeStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rlimit: Option<RlimitStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap: Option<SwapStats>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PodStats<'a> {
    pod_ref: PodReference<'a>,
    start_time: Time,
    containers: Vec<ContainerStats<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<CpuStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    io: Option<IoStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<NetworkStats<'a>>,
    #[serde(rename = "volume", skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<VolumeStats<'a>>,
    #[serde(rename = "ephemeral-storage", skip_serializing_if = "Option::is_none")]
    ephemeral_storage: Option<FsStats>,
    #[serde(rename = "process_stats", skip_serializing_if = "Option::is_none")]
    process_stats: Option<ProcessStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap: Option<SwapStats>,
}

#[derive(Serialize)]
struct PodReference<'a> {
    name: &'a str,
    namespace: &'a str,
    uid: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStats<'a> {
    name: &'a str,
    start_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<CpuStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    io: Option<IoStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rootfs: Option<FsStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<FsStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap: Option<SwapStats>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CpuStats {
    time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_nano_cores: Reading,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_core_nano_seconds: Reading,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemoryStats {
    time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    available_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_bytes: Reading,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_set_bytes: Reading,
    #[serde(skip_serializing_if = "Option::is_none")]
    rss_bytes: Reading,
    #[serde(skip_serializing_if = "Option::is_none")]
    page_faults: Reading,
    #[serde(skip_serializing_if = "Option::is_none")]
    major_page_faults: Reading,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Serialize)]
struct IoStats {
    time: Time,
    psi: Psi,
}

#[derive(Serialize)]
struct Psi {
    full: PsiData,
    some: PsiData,
}

#[derive(Serialize)]
struct PsiData {
    total: u64,
    avg10: f64,
    avg60: f64,
    avg300: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SwapStats {
    time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap_available_bytes: Option<u64>,
    swap_usage_bytes: u64,
}

#[derive(Serialize)]
struct NetworkStats<'a> {
    time: Time,
    #[serde(flatten)]
    default: Option<InterfaceStats<'a>>,
    interfaces: Vec<InterfaceStats<'a>>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct InterfaceStats<'a> {
    name: &'a str,
    rx_bytes: u64,
    rx_errors: u64,
    tx_bytes: u64,
    tx_errors: u64,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct FsStats {
    time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    available_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inodes_free: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inodes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inodes_used: Option<u64>,
}

#[derive(Serialize)]
struct VolumeStats<'a> {
    #[serde(flatten)]
    fs: FsStats,
    name: &'a str,
    #[serde(rename = "pvcRef", skip_serializing_if = "Option::is_none")]
    claim: Option<ClaimReference<'a>>,
}

#[derive(Serialize)]
struct ClaimReference<'a> {
    name: &'a str,
    namespace: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeStats {
    #[serde(skip_serializing_if = "Option::is_none")]
    image_fs: Option<FsStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_fs: Option<FsStats>,
}

#[derive(Serialize)]
struct RlimitStats {
    time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    maxpid: Reading,
    #[serde(skip_serializing_if = "Option::is_none")]
    curproc: Reading,
}

#[derive(Serialize)]
struct ProcessStats {
    process_count: u64,
}

struct View<'a> {
    snapshot: &'a Snapshot,
    surroundings: &'a Surroundings,
    full: bool,
    node_fs: Option<(Time, FilesystemSpace)>,
}

impl<'a> View<'a> {
    fn time(&self) -> Time {
        Time::of_ms(self.snapshot.wall_ms)
    }

    fn node(&self) -> NodeStats<'a> {
        let Snapshot { machine, cgroups, tasks, .. } = self.snapshot;
        let root = cgroups.first().filter(|row| row.cgroup.path == "/");
        let boot = machine.boot_time.or_else(|| root.and_then(|row| row.cgroup.created));
        NodeStats {
            node_name: &self.surroundings.node_name,
            system_containers: self.system_containers(),
            start_time: Time(boot.unwrap_or_default()),
            cpu: root.and_then(|row| self.cpu(row)),
            memory: root.and_then(|row| self.memory(row)),
            io: root.and_then(|row| self.io(row)),
            network: root.filter(|_| self.full).and_then(|row| self.network(&row.network, of_node)),
            fs: self.node_fs.filter(|_| self.full).map(|(time, space)| whole(time, &space)),
            runtime: if self.full { self.runtime() } else { None },
            rlimit: (self.full && *tasks != Tasks::default()).then_some(RlimitStats {
                time: self.time(),
                maxpid: tasks.max,
                curproc: tasks.current,
            }),
            swap: root.and_then(|row| self.swap(row)),
        }
    }

    fn system_containers(&self) -> Vec<ContainerStats<'a>> {
        let of_role = |(role, name): (Role, &'static str)| {
            let mut rows = self.snapshot.cgroups.iter().filter(|row| row.cgroup.part.role == role);
            // The outermost, where there are several.
            let row = rows.by_ref().min_by_key(|row| row.cgroup.path.len())?;
            Some(self.measured(name, row))
        };
        let roles = [
            (Role::Kubelet, "kubelet"),
            (Role::Runtime, "runtime"),
            (Role::System, "misc"),
            (Role::Pods, "pods"),
        ];
        roles.into_iter().filter_map(of_role).collect()
    }

    /// What system containers and containers have alike.
    fn measured(&self, name: &'a str, row: &CgroupSample) -> ContainerStats<'a> {
        ContainerStats {
            name,
            start_time: Time::of_ns(began_ns(row).unwrap_or_default()),
            cpu: self.cpu(row),
            memory: self.memory(row),
            io: self.io(row),
            rootfs: None,
            logs: None,
            swap: self.swap(row),
        }
    }

    fn pod(&self, pod: &Pod<'a>) -> PodStats<'a> {
        let own = pod.own;
        let disk = own.and_then(|row| row.disk.as_deref()).filter(|_| self.full);
        PodStats {
            pod_ref: PodReference { name: pod.name, namespace: pod.namespace, uid: pod.uid },
            start_time: Time::of_ns(pod.began_ns().unwrap_or_default()),
            containers: pod.containers.iter().map(|(name, row)| self.container(name, row)).collect(),
            cpu: own.and_then(|row| self.cpu(row)),
            memory: own.and_then(|row| self.memory(row)),
            io: own.and_then(|row| self.io(row)),
            network: pod.network().filter(|_| self.full).and_then(|row| self.network(&row.network, of_pod)),
            volumes: if self.full { self.volumes(pod, disk) } else { Vec::new() },
            ephemeral_storage: if self.full { self.ephemeral(pod, disk) } else { None },
            process_stats: if self.full { processes(pod) } else { None },
            swap: own.and_then(|row| self.swap(row)),
        }
    }

    /// Those that the kubelet fills, and those that are mounted.
    fn volumes(&self, pod: &Pod<'a>, disk: Option<&'a DiskUsage>) -> Vec<VolumeStats<'a>> {
        let filled = disk.into_iter().flat_map(|disk| &disk.volumes).map(volume);
        let known = pod.own.map_or(&[] as &[PodVolume], |row| &row.cgroup.part.volumes);
        let mounts = &self.snapshot.filesystems.volumes;
        let first = mounts.partition_point(|mount| mount.pod_uid.as_str() < pod.uid);
        let mounts = mounts.iter().skip(first).take_while(|mount| mount.pod_uid == pod.uid);
        let told = |mount: &&VolumeMount| {
            let of = |name: &Arc<str>| **name == *mount.name;
            known.iter().find(|v| v.directory.as_ref().is_some_and(of) || of(&v.name))
        };
        // A persistent volume's directory has its own name. What is left over on both
        // sides is the same only if it is one.
        let left = |v: &&PodVolume| {
            let is_told =
                mounts.clone().filter_map(|mount| told(&mount)).any(|other| std::ptr::eq(other, *v));
            v.claim.is_some() && !is_told
        };
        let only = |all: &mut dyn Iterator<Item = &'a PodVolume>| all.next().filter(|_| all.next().is_none());
        let alone = mounts.clone().filter(|mount| told(mount).is_none()).count() == 1;
        let rest = if alone { only(&mut known.iter().filter(left)) } else { None };
        let mounted = mounts.clone().filter_map(|mount| {
            let volume = told(&mount).or(rest)?;
            let fs = whole(Time(mount.space_read_at?), &mount.space?);
            let claim = volume.claim.as_deref().map(|name| ClaimReference { name, namespace: pod.namespace });
            Some(VolumeStats { fs, name: &volume.name, claim })
        });
        filled.chain(mounted).collect()
    }

    fn container(&self, name: &'a str, row: &CgroupSample) -> ContainerStats<'a> {
        let disk = row.disk.as_deref().filter(|_| self.full);
        let logs = |part: &DiskPart| {
            let space = self.node_fs.map_or(part.space, |(_, space)| space);
            taken(part, &space)
        };
        ContainerStats {
            rootfs: disk.and_then(|disk| disk.layer.as_ref()).map(|part| taken(part, &part.space)),
            logs: disk.and_then(|disk| disk.logs.as_ref()).map(logs),
            ..self.measured(name, row)
        }
    }

    fn cpu(&self, row: &CgroupSample) -> Option<CpuStats> {
        row.cpu.usage_ns?;
        Some(CpuStats {
            time: self.time(),
            usage_nano_cores: row.cpu.nanocores,
            usage_core_nano_seconds: row.cpu.usage_ns,
            psi: psi(&row.pressure.cpu),
        })
    }

    fn memory(&self, row: &CgroupSample) -> Option<MemoryStats> {
        let memory = &row.memory;
        memory.usage.or(memory.working_set)?;
        let limit = row.spec.memory_limit.and_then(Limit::value);
        let left = |(limit, used): (u64, u64)| limit.saturating_sub(used);
        Some(MemoryStats {
            time: self.time(),
            available_bytes: limit.zip(memory.working_set.map(u64::from)).map(left),
            usage_bytes: memory.usage,
            working_set_bytes: memory.working_set,
            rss_bytes: memory.rss,
            page_faults: memory.pgfault,
            major_page_faults: memory.pgmajfault,
            psi: psi(&row.pressure.memory),
        })
    }

    fn io(&self, row: &CgroupSample) -> Option<IoStats> {
        // The reduced answer has pressure of what it has.
        let psi = psi(&row.pressure.io).filter(|_| self.full)?;
        Some(IoStats { time: self.time(), psi })
    }

    fn swap(&self, row: &CgroupSample) -> Option<SwapStats> {
        let used: u64 = row.memory.swap?.into();
        let limit = row.spec.memory_swap_limit.and_then(Limit::value);
        let left = limit.map(|limit| limit.saturating_sub(used));
        Some(SwapStats { time: self.time(), swap_available_bytes: left, swap_usage_bytes: used })
    }

    fn network(
        &self,
        all: &'a [Interface],
        default: fn(&'a [Interface]) -> Option<&'a Interface>,
    ) -> Option<NetworkStats<'a>> {
        if all.is_empty() {
            return None;
        }
        let stats = |interface: &'a Interface| InterfaceStats {
            name: interface.name.as_str(),
            rx_bytes: interface.receive.bytes,
            rx_errors: interface.receive.errors,
            tx_bytes: interface.transmit.bytes,
            tx_errors: interface.transmit.errors,
        };
        let eth0 = all.iter().find(|interface| interface.name.as_str() == "eth0");
        Some(NetworkStats {
            time: self.time(),
            default: eth0.or_else(|| default(all)).map(stats),
            interfaces: all.iter().map(stats).collect(),
        })
    }

    fn runtime(&self) -> Option<RuntimeStats> {
        let of = |layers: bool| {
            let store = self.surroundings.images.iter().find(|store| store.layers == layers)?;
            Some(self.store(store))
        };
        let image_fs = of(false);
        let container_fs = of(true).or_else(|| image_fs.clone());
        (image_fs.is_some() || container_fs.is_some()).then_some(RuntimeStats { image_fs, container_fs })
    }

    fn store(&self, store: &ImageStore) -> FsStats {
        let holder = holder(self.snapshot, Path::new(&store.path));
        let space = holder.and_then(|fs| fs.space);
        let counted = store.measured_ns.map(Time::of_ns);
        FsStats {
            time: counted.or_else(|| holder?.space_read_at.map(Time)).unwrap_or_else(|| self.time()),
            available_bytes: space.map(|s| s.available_bytes),
            capacity_bytes: space.map(|s| s.capacity_bytes),
            used_bytes: store.used_bytes,
            inodes_free: space.and_then(|s| s.inodes_free),
            inodes: space.and_then(|s| s.inodes),
            inodes_used: store.inodes_used,
        }
    }

    /// What counts against the pod's limit of storage on its node. A sum in which
    /// one container is missing would be a wrong one.
    fn ephemeral(&self, pod: &Pod<'a>, own: Option<&DiskUsage>) -> Option<FsStats> {
        let (_, space) = self.node_fs?;
        let mut sum = Sum::default();
        for (_, row) in &pod.containers {
            let disk = row.disk.as_deref()?;
            sum.add(disk.layer.as_ref()?);
            sum.add(disk.logs.as_ref()?);
        }
        let own = own?;
        own.logs.iter().for_each(|part| sum.add(part));
        own.volumes.iter().filter(|volume| !volume.mounted).for_each(|volume| sum.add(&volume.usage));
        Some(FsStats {
            used_bytes: Some(sum.bytes),
            inodes_used: sum.inodes,
            ..whole(Time::of_ms(sum.newest_ms), &space)
        })
    }
}

struct Sum {
    bytes: u64,
    inodes: Option<u64>,
    newest_ms: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Sum { bytes: 0, inodes: Some(0), newest_ms: 0 }
    }
}

impl Sum {
    fn add(&mut self, part: &DiskPart) {
        self.bytes = self.bytes.saturating_add(part.used_bytes);
        self.inodes = self.inodes.zip(part.inodes).map(|(sum, more)| sum.saturating_add(more));
        self.newest_ms = self.newest_ms.max(part.measured_ms);
    }
}

/// Processes of the pod's containers, without its pause container.
fn processes(pod: &Pod<'_>) -> Option<ProcessStats> {
    let counts = pod.containers.iter().map(|(_, row)| row.process.processes.map(u64::from));
    let process_count = counts.sum::<Option<u64>>().filter(|_| !pod.containers.is_empty())?;
    Some(ProcessStats { process_count })
}

fn of_pod(all: &[Interface]) -> Option<&Interface> {
    all.first()
}

/// Bridges and tunnels come after or before, in no order; cards have names that
/// say so.
fn of_node(all: &[Interface]) -> Option<&Interface> {
    let is_card = |name: &str| ["en", "eth", "bond", "wl"].iter().any(|start| name.starts_with(start));
    all.iter().find(|interface| is_card(interface.name.as_str()))
}

fn psi(pressure: &Pressure) -> Option<Psi> {
    // All eight numbers are always there: the format knows none that is absent.
    let data = |usec: Reading, averages: Option<Averages>| {
        let averages = averages.unwrap_or_default();
        let percent = |hundredths: u16| f64::from(hundredths) / 100.0;
        PsiData {
            total: usec.map_or(0, |usec| usec.get().saturating_mul(1_000)),
            avg10: percent(averages.avg10),
            avg60: percent(averages.avg60),
            avg300: percent(averages.avg300),
        }
    };
    pressure.some_usec.or(pressure.full_usec)?;
    Some(Psi {
        full: data(pressure.full_usec, pressure.full_average),
        some: data(pressure.some_usec, pressure.some_average),
    })
}

/// A whole filesystem.
fn whole(time: Time, space: &FilesystemSpace) -> FsStats {
    let inodes_used = space.inodes.zip(space.inodes_free).map(|(all, free)| all.saturating_sub(free));
    FsStats {
        time,
        available_bytes: Some(space.available_bytes),
        capacity_bytes: Some(space.capacity_bytes),
        used_bytes: Some(space.usage_bytes),
        inodes_free: space.inodes_free,
        inodes: space.inodes,
        inodes_used,
    }
}

/// A part of a filesystem of that space.
fn taken(part: &DiskPart, space: &FilesystemSpace) -> FsStats {
    let time = Time::of_ms(part.measured_ms);
    FsStats { used_bytes: Some(part.used_bytes), inodes_used: part.inodes, ..whole(time, space) }
}

fn volume(volume: &VolumeUsage) -> VolumeStats<'_> {
    VolumeStats { fs: taken(&volume.usage, &volume.usage.space), name: &volume.name, claim: None }
}

/// The filesystem that a path is on.
pub(super) fn holder<'a>(snapshot: &'a Snapshot, path: &Path) -> Option<&'a Filesystem> {
    let mounts = snapshot.filesystems.mounts.iter();
    mounts.filter(|fs| path.starts_with(&fs.mount_point)).max_by_key(|fs| fs.mount_point.len())
}

fn node_fs(snapshot: &Snapshot, surroundings: &Surroundings) -> Option<(Time, FilesystemSpace)> {
    let fs = holder(snapshot, &surroundings.kubelet_root)?;
    Some((Time(fs.space_read_at?), fs.space?))
}

/// The limit that goes with a use of swap: what is left and what is used.
pub(super) fn swap_limit(row: &CgroupSample) -> Reading {
    let used = row.memory.swap?.get();
    let limit = row.spec.memory_swap_limit.and_then(Limit::value)?;
    reading(limit.max(used))
}
