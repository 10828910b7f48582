//! The machine and its filesystems, in cAdvisor's JSON.
//!
//! What the host does not show is as cAdvisor writes what it could not find out: null
//! or 0.

use std::collections::BTreeMap;

use serde::Serialize;

use super::GoTime;
use crate::snapshot::{Cache, Core, Disk, Filesystem, HugePages, Machine, NumaNode, Reading, Snapshot};

/// What cAdvisor says of clouds since version 0.60.
const CLOUD: &str = "Unknown";

/// The machine.
#[derive(Debug, Serialize)]
pub struct MachineInfo<'a> {
    timestamp: GoTime,
    vendor_id: &'a str,
    num_cores: Reading,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_physical_cores: Reading,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_sockets: Reading,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_books: Reading,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_drawers: Reading,
    cpu_frequency_khz: u64,
    memory_capacity: Reading,
    swap_capacity: Reading,
    memory_by_type: BTreeMap<&'a str, MemoryInfo>,
    nvm: Nvm,
    hugepages: Option<Vec<HugePagesInfo>>,
    machine_id: &'a str,
    system_uuid: &'a str,
    boot_id: &'a str,
    filesystems: Vec<FsInfo<'a>>,
    disk_map: BTreeMap<String, DiskInfo<'a>>,
    network_devices: Option<Vec<NetInfo<'a>>>,
    topology: Option<Vec<NodeInfo<'a>>>,
    cloud_provider: &'static str,
    instance_type: &'static str,
    instance_id: &'static str,
}

#[derive(Debug, Serialize)]
struct MemoryInfo {
    capacity: u64,
    dimm_count: u64,
}

#[derive(Debug, Default, Serialize)]
struct Nvm {
    memory_mode_capacity: u64,
    #[serde(rename = "app direct_mode_capacity")]
    app_direct_mode_capacity: u64,
    avg_power_budget: u64,
}

#[derive(Debug, Serialize)]
struct FsInfo<'a> {
    device: &'a str,
    capacity: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    inodes: u64,
    has_inodes: bool,
}

#[derive(Debug, Serialize)]
struct DiskInfo<'a> {
    name: &'a str,
    major: u32,
    minor: u32,
    size: u64,
    scheduler: &'a str,
}

#[derive(Debug, Serialize)]
struct HugePagesInfo {
    page_size: u64,
    num_pages: u64,
}

#[derive(Debug, Serialize)]
struct NetInfo<'a> {
    name: &'a str,
    mac_address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<u64>,
    mtu: u64,
}

#[derive(Debug, Serialize)]
struct NodeInfo<'a> {
    node_id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
    hugepages: Option<Vec<HugePagesInfo>>,
    cores: Option<Vec<CoreInfo<'a>>>,
    caches: Option<Vec<CacheInfo<'a>>>,
    distances: Option<&'a [u64]>,
}

#[derive(Debug, Serialize)]
struct CoreInfo<'a> {
    core_id: u32,
    thread_ids: &'a [u32],
    caches: Option<Vec<CacheInfo<'a>>>,
    uncore_caches: Option<Vec<CacheInfo<'a>>>,
    socket_id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    book_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drawer_id: Option<u32>,
}

#[derive(Debug, Serialize)]
struct CacheInfo<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
    size: u64,
    #[serde(rename = "type")]
    kind: &'a str,
    level: u32,
}

/// A list as Go writes it: null for one that nothing was put into.
fn listed<'a, T, U>(items: &'a [T], info: impl FnMut(&'a T) -> U) -> Option<Vec<U>> {
    (!items.is_empty()).then(|| items.iter().map(info).collect())
}

fn hugepages(all: &[HugePages]) -> Option<Vec<HugePagesInfo>> {
    listed(all, |pages| HugePagesInfo { page_size: pages.page_kib, num_pages: pages.count })
}

fn caches(all: &[Cache]) -> Option<Vec<CacheInfo<'_>>> {
    listed(all, |c| CacheInfo { id: c.id, size: c.size_bytes, kind: &c.kind, level: c.level })
}

fn node(node: &NumaNode) -> NodeInfo<'_> {
    NodeInfo {
        node_id: node.id,
        memory: node.memory_bytes,
        hugepages: hugepages(&node.hugepages),
        cores: listed(&node.cores, |one| {
            let Core { id: core_id, socket: socket_id, book: book_id, drawer: drawer_id, .. } = *one;
            CoreInfo {
                core_id,
                thread_ids: &one.threads,
                caches: caches(&one.caches),
                uncore_caches: caches(&one.shared_caches),
                socket_id,
                book_id,
                drawer_id,
            }
        }),
        caches: caches(&node.caches),
        distances: (!node.distances.is_empty()).then_some(&node.distances),
    }
}

impl<'a> MachineInfo<'a> {
    /// The machine of a snapshot.
    pub fn of(snapshot: &'a Snapshot) -> MachineInfo<'a> {
        let Machine { cores, physical_cores, sockets, books, drawers, .. } = *snapshot.machine;
        let machine = &snapshot.machine;
        let hardware = &machine.hardware;
        let dimm = |d: &'a crate::snapshot::Dimm| {
            (d.kind.as_str(), MemoryInfo { capacity: d.capacity_bytes, dimm_count: d.count })
        };
        MachineInfo {
            timestamp: GoTime::of_ms(snapshot.wall_ms),
            vendor_id: &hardware.vendor_id,
            num_cores: cores,
            num_physical_cores: physical_cores,
            num_sockets: sockets,
            num_books: books,
            num_drawers: drawers,
            cpu_frequency_khz: hardware.frequency_khz.unwrap_or(0),
            memory_capacity: machine.memory_bytes,
            swap_capacity: machine.swap_bytes,
            memory_by_type: machine.dimms.iter().map(dimm).collect(),
            nvm: Nvm::default(),
            hugepages: hugepages(&hardware.hugepages),
            machine_id: &machine.machine_id,
            system_uuid: &machine.system_uuid,
            boot_id: &machine.boot_id,
            filesystems: filesystems(snapshot),
            disk_map: hardware.disks.iter().map(disk).collect(),
            network_devices: listed(&hardware.cards, |card| NetInfo {
                name: &card.name,
                mac_address: &card.mac_address,
                speed: card.speed_mbits,
                mtu: card.mtu,
            }),
            topology: listed(&hardware.nodes, node),
            cloud_provider: CLOUD,
            instance_type: CLOUD,
            instance_id: "",
        }
    }
}

fn filesystems(snapshot: &Snapshot) -> Vec<FsInfo<'_>> {
    let info = |fs: &'_ Filesystem| fs.space.map(|space| (space.capacity_bytes, space.inodes));
    let row = |fs| {
        let (capacity, inodes) = info(fs)?;
        let kind = if fs.fs_type == "zfs" { "zfs" } else { "vfs" };
        let (has_inodes, inodes) = (inodes.is_some(), inodes.unwrap_or(0));
        Some(FsInfo { device: &fs.device, capacity, kind, inodes, has_inodes })
    };
    snapshot.filesystems.mounts.iter().filter_map(row).collect()
}

fn disk(disk: &Disk) -> (String, DiskInfo<'_>) {
    let Disk { name, major, minor, size_bytes, scheduler } = disk;
    let info = DiskInfo { name, major: *major, minor: *minor, size: *size_bytes, scheduler };
    (format!("{major}:{minor}"), info)
}

/// Of version 2: the machine and what runs on it.
#[derive(Debug, Serialize)]
pub struct Attributes<'a> {
    kernel_version: &'a str,
    container_os_version: &'a str,
    docker_version: &'static str,
    docker_api_version: &'static str,
    cadvisor_version: &'static str,
    #[serde(flatten)]
    machine: MachineInfo<'a>,
}

impl<'a> Attributes<'a> {
    /// Those of a snapshot.
    pub fn of(snapshot: &'a Snapshot) -> Attributes<'a> {
        Attributes {
            kernel_version: &snapshot.machine.kernel_version,
            container_os_version: &snapshot.machine.os_version,
            docker_version: "",
            docker_api_version: "",
            cadvisor_version: env!("CARGO_PKG_VERSION"),
            machine: MachineInfo::of(snapshot),
        }
    }
}

/// One filesystem, of version 2.
#[derive(Debug, Serialize)]
pub struct Storage<'a> {
    timestamp: GoTime,
    device: &'a str,
    mountpoint: &'a str,
    capacity: u64,
    available: u64,
    usage: u64,
    labels: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inodes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inodes_free: Option<u64>,
}

/// Whether a filesystem has the label: `root`, or what `holds` says.
fn labels(fs: &Filesystem) -> Option<Vec<&'static str>> {
    (fs.mount_point == "/").then(|| vec!["root"])
}

/// The filesystems of a snapshot, or those with a label.
pub fn storage<'a>(snapshot: &'a Snapshot, label: Option<&str>) -> Vec<Storage<'a>> {
    let wanted = |fs: &&Filesystem| match label {
        None => true,
        Some(label) => labels(fs).is_some_and(|labels| labels.contains(&label)),
    };
    let row = |fs: &'a Filesystem| {
        let space = fs.space?;
        Some(Storage {
            timestamp: GoTime { ns: fs.space_read_at.map(|s| s.saturating_mul(1_000_000_000)) },
            device: &fs.device,
            mountpoint: &fs.mount_point,
            capacity: space.capacity_bytes,
            available: space.available_bytes,
            usage: space.usage_bytes,
            labels: labels(fs),
            inodes: space.inodes,
            inodes_free: space.inodes_free,
        })
    };
    snapshot.filesystems.mounts.iter().filter(wanted).filter_map(row).collect()
}
