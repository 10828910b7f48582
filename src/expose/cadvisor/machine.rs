//! The machine and its filesystems, in cAdvisor's JSON.
//!
//! What the host does not show is as cAdvisor writes what it could not find out: null
//! or 0.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::{GoTime, World};
use crate::expose::summary::holder;
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
    docker_version: &'a str,
    docker_api_version: &'a str,
    cadvisor_version: &'static str,
    #[serde(flatten)]
    machine: MachineInfo<'a>,
}

impl<'a> Attributes<'a> {
    /// Those of the host and its Docker, empty where there is none.
    pub fn of(world: &'a World) -> Attributes<'a> {
        let snapshot = &world.snapshot;
        let (docker_version, docker_api_version) =
            world.surroundings.docker.as_ref().map_or(("", ""), |(version, api)| (version, api));
        Attributes {
            kernel_version: &snapshot.machine.kernel_version,
            container_os_version: &snapshot.machine.os_version,
            docker_version,
            docker_api_version,
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

/// Whose images and layers a filesystem may have, as its label says.
const STORES: [(&str, &str, bool); 3] =
    [("docker-images", "docker", false), ("crio-images", "cri-o", false), ("crio-containers", "cri-o", true)];

/// Labels and the filesystems they are on.
fn labelled(world: &World) -> Vec<(&'static str, &Filesystem)> {
    let on = |path: &str| holder(&world.snapshot, Path::new(path));
    let store = |(label, runtime, layers): (&'static str, &str, bool)| {
        let mut of_runtime = world.surroundings.images.iter().filter(|store| store.runtime == runtime);
        // Layers are with images unless they are said to be apart.
        let first = of_runtime.clone().next()?;
        let store = of_runtime.find(|store| store.layers == layers).unwrap_or(first);
        Some((label, on(&store.path)?))
    };
    let root = world.snapshot.filesystems.mounts.iter().filter(|fs| fs.mount_point == "/");
    root.map(|fs| ("root", fs)).chain(STORES.into_iter().filter_map(store)).collect()
}

/// The labels there are.
pub fn storage_labels(world: &World) -> Vec<&'static str> {
    let mut labels: Vec<_> = labelled(world).into_iter().map(|(label, _)| label).collect();
    labels.dedup();
    labels
}

/// Which filesystems are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of them.
    All,
    /// Those with a label.
    Label(String),
    /// The one on the device of this name, or with these numbers.
    Device(String, u32, u32),
}

/// The filesystems of the host that are wanted.
pub fn storage<'a>(world: &'a World, wanted: &Wanted) -> Vec<Storage<'a>> {
    let labels = labelled(world);
    let row = |fs: &'a Filesystem| {
        let space = fs.space?;
        let on_it = labels.iter().filter(|(_, labelled)| std::ptr::eq(*labelled, fs));
        let labels: Vec<&'static str> = on_it.map(|(label, _)| *label).collect();
        let is_wanted = match wanted {
            Wanted::All => true,
            Wanted::Label(label) => labels.contains(&label.as_str()),
            Wanted::Device(name, major, minor) => {
                fs.device == *name || (fs.major, fs.minor) == (*major, *minor)
            }
        };
        is_wanted.then(|| Storage {
            timestamp: GoTime { ns: fs.space_read_at.map(|s| s.saturating_mul(1_000_000_000)) },
            device: &fs.device,
            mountpoint: &fs.mount_point,
            capacity: space.capacity_bytes,
            available: space.available_bytes,
            usage: space.usage_bytes,
            labels: (!labels.is_empty()).then_some(labels),
            inodes: space.inodes,
            inodes_free: space.inodes_free,
        })
    };
    world.snapshot.filesystems.mounts.iter().filter_map(row).collect()
}
