//! What the machine is made of, for who asks for the machine as a whole. Read with
//! the rest of it, at start and every five minutes.

/// Processors, memory, disks and network cards, as `/sys` shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hardware {
    /// `vendor_id` of `/proc/cpuinfo`; empty on architectures that have none.
    pub vendor_id: String,
    /// Highest frequency of the first processor, kHz: `cpufreq/cpuinfo_max_freq`, else
    /// the first `cpu MHz` of `/proc/cpuinfo`.
    pub frequency_khz: Option<u64>,
    /// Huge pages of each size that are set aside.
    pub hugepages: Vec<HugePages>,
    /// NUMA nodes; without NUMA a node for each socket.
    pub nodes: Vec<NumaNode>,
    /// Block devices, but those that are made of files or memory.
    pub disks: Vec<Disk>,
    /// Network interfaces, but the loopback's and those of containers.
    pub cards: Vec<NetworkCard>,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HugePages {
    /// Of each, KiB.
    pub page_kib: u64,
    /// `nr_hugepages`.
    pub count: u64,
}

/// A NUMA node, or a socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NumaNode {
    /// Its number.
    pub id: u32,
    /// `MemTotal` of its meminfo, bytes.
    pub memory_bytes: Option<u64>,
    /// Of this node's memory.
    pub hugepages: Vec<HugePages>,
    /// Its cores, by socket and number.
    pub cores: Vec<Core>,
    /// Caches that all its processors share.
    pub caches: Vec<Cache>,
    /// To all nodes in order, as the firmware says; 10 is none.
    pub distances: Vec<u64>,
}

/// A core.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Core {
    /// Its number within the socket.
    pub id: u32,
    /// The socket's.
    pub socket: u32,
    /// On s390x only.
    pub book: Option<u32>,
    /// On s390x only.
    pub drawer: Option<u32>,
    /// Its logical processors.
    pub threads: Vec<u32>,
    /// Caches of its own.
    pub caches: Vec<Cache>,
    /// Caches that it shares with some cores of the node.
    pub shared_caches: Vec<Cache>,
}

/// A cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Its number among those of the level; absent before Linux 4.11.
    pub id: Option<u32>,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// `Data`, `Instruction` or `Unified`.
    pub kind: String,
    /// 1, 2, 3.
    pub level: u32,
}

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Such as `sda`.
    pub name: String,
    /// Device numbers.
    pub major: u32,
    /// See `major`.
    pub minor: u32,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// The I/O scheduler in use; `none` where there is none.
    pub scheduler: String,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkCard {
    /// Such as `eth0`.
    pub name: String,
    /// Its hardware address.
    pub mac_address: String,
    /// Mbit/s; absent where there is no link, or none to speak of.
    pub speed_mbits: Option<u64>,
    /// Bytes of the longest packet.
    pub mtu: u64,
}
