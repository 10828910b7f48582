//! Snapshots made by hand, for the binaries that test what is written from them.

#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod exposition;

use std::sync::Arc;
use std::time::{Duration, Instant};

use nodegauge::expose::base_labels;
use nodegauge::snapshot::{
    Averages, Cache, Cgroup, CgroupSample, Core, CpuStats, Dimm, Disk, DiskPart, DiskStats, DiskUsage, Extra,
    Filesystem, FilesystemSpace, Filesystems, Hardware, Hierarchy, HugePages, HugetlbStats, Identity,
    Interface, InterfaceName, IoDevice, IoOperations, Kind, Kinds, Limit, LoadStats, Machine, MemoryStats,
    NetworkCard, NumaNode, NumaPages, Origin, Pages, Pressure, PressureStats, ProcessStats, Queues, Reading,
    SchedStats, Snapshot, SocketStates, SocketStats, Spec, Tasks, TcpFigures, Traffic, VolumeUsage, reading,
};

/// Every kind.
pub(crate) fn all_kinds() -> Kinds {
    Kind::ALL.into_iter().fold(Kinds::NONE, Kinds::with)
}

/// Numbers that differ from each other, so that mixed-up figures show.
#[derive(Debug)]
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// From this number on.
    pub(crate) fn from(first: u64) -> Numbers {
        Numbers(first)
    }

    /// The next one; never 0.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 += 7_919;
        self.0
    }

    /// The next one, as a figure the kernel gave.
    pub(crate) fn figure(&mut self) -> Reading {
        reading(self.number())
    }
}

/// A cgroup called `path` with the labels that belong to it.
pub(crate) fn cgroup(path: &str, identity: Identity) -> Arc<Cgroup> {
    let labels = base_labels(path, &identity);
    Arc::new(Cgroup {
        path: path.to_owned(),
        created: Some(1_690_000_000),
        identity,
        labels,
        ..Cgroup::default()
    })
}

/// A snapshot of the root and `cgroups - 1` containers, in which everything is
/// told that this kind of host can tell.
pub(crate) fn snapshot(hierarchy: Hierarchy, cgroups: usize) -> Snapshot {
    let mut numbers = Numbers(1_000_000_000);
    let rows = (0..cgroups).map(|i| {
        let cgroup = match i {
            0 => cgroup("/", Identity::default()),
            _ => cgroup(
                &format!("/kubepods.slice/kubepods-pod{i:05}.slice/cri-containerd-{i:064x}.scope"),
                Identity {
                    name: Some(format!("{i:064x}")),
                    image: Some("registry.example/team/app:1".into()),
                    ..Identity::default()
                },
            ),
        };
        row(hierarchy, cgroup, &mut numbers)
    });
    let cgroups = rows.collect();
    let (filesystems, disks) = filesystems(&mut numbers);
    Snapshot {
        kinds: Kinds::DEFAULT,
        sequence: 1,
        origin: Origin::Grid,
        wall_ms: 1_700_000_000_120,
        monotonic: Instant::now(),
        duration: Duration::from_millis(20),
        hierarchy,
        machine: Arc::new(machine(&mut numbers)),
        filesystems: Arc::new(filesystems),
        disks,
        tasks: Tasks { current: reading(311), max: reading(32_768), load_average: Some([20, 1008, 31_212]) },
        cgroups,
        departed: Arc::default(),
        oom_gone: Arc::default(),
        oom_kills: Vec::new(),
    }
}

/// A cgroup's row with every figure that this kind of host tells.
pub(crate) fn row(hierarchy: Hierarchy, cgroup: Arc<Cgroup>, n: &mut Numbers) -> CgroupSample {
    let v1 = hierarchy != Hierarchy::V2;
    let v2 = !v1;
    let has_v2_tree = hierarchy != Hierarchy::V1;
    let mut on = |told: bool| if told { n.figure() } else { None };
    let root = cgroup.path == "/";
    let mut sample = CgroupSample::new(cgroup);
    sample.leaf = !root;
    sample.cpu = CpuStats {
        usage_ns: on(true),
        user_ns: on(true),
        system_ns: on(true),
        periods: on(true),
        throttled_periods: on(true),
        throttled_ns: on(true),
        burst_periods: on(true),
        burst_ns: on(true),
        nanocores: on(true),
        throttled_millionths: reading(250_000),
        per_cpu_ns: if v1 { vec![12_000_000_345, 0, 700_000_000] } else { Vec::new() },
    };
    sample.memory = MemoryStats {
        usage: on(true),
        peak: on(true),
        working_set: on(true),
        cache: on(true),
        rss: on(true),
        swap: on(true),
        kernel: on(true),
        mapped_file: on(true),
        active_file: on(true),
        inactive_file: on(true),
        dirty: on(true),
        writeback: on(true),
        failcnt: on(true),
        pgfault_own: on(v1),
        pgmajfault_own: on(v1),
        pgfault: on(true),
        pgmajfault: on(true),
        pgscan: on(v2),
        pgsteal: on(v2),
        refault_file: on(true),
        refault_anon: on(true),
        events_low: on(v2),
        events_high: on(v2),
        events_max: on(v2),
        events_oom: on(v2),
        events_oom_kill: on(v2),
        oom_kills: on(true),
        ..MemoryStats::default()
    };
    // Figures that came later have numbers of their own, so that those of others stay.
    let later = &mut Numbers(n.0 + 500_000_000_000);
    if v2 {
        sample.memory.events_oom_group_kill = later.figure();
        sample.memory.swap_events_high = later.figure();
        sample.memory.swap_events_max = later.figure();
        sample.memory.swap_events_fail = later.figure();
    }
    let queued = &mut Numbers(n.0 + 600_000_000_000);
    sample.io = vec![IoDevice {
        major: 254,
        minor: 0,
        name: "/dev/vda".into(),
        bytes: operations(n, v1),
        ios: operations(n, v1),
        service_time_ns: if v1 { operations(n, true) } else { IoOperations::default() },
        merged: if v1 { operations(n, true) } else { IoOperations::default() },
        queued: if v1 { n.figure() } else { None },
        sectors: if v1 { n.figure() } else { None },
        wait_time_ns: if v1 { operations(queued, true) } else { IoOperations::default() },
        time_ms: if v1 { queued.figure() } else { None },
        cost_usage_usec: if v2 { n.figure() } else { None },
        cost_wait_usec: if v2 { n.figure() } else { None },
        cost_indebt_usec: if v2 { n.figure() } else { None },
        cost_indelay_usec: if v2 { n.figure() } else { None },
    }];
    if has_v2_tree || root {
        let averages = Averages { avg10: 123, avg60: 4_567, avg300: 10_000 };
        let mut pressure = || Pressure {
            some_usec: n.figure(),
            full_usec: n.figure(),
            some_average: Some(averages),
            full_average: Some(Averages { avg10: 5, ..averages }),
        };
        sample.pressure = PressureStats { cpu: pressure(), memory: pressure(), io: pressure() };
    }
    sample.process = ProcessStats {
        processes: n.figure(),
        threads: n.figure(),
        file_descriptors: n.figure(),
        sockets: n.figure(),
        max_open_files: Some(Limit::Value(n.number())),
        max_open_files_hard: Some(Limit::Max),
    };
    let mut traffic =
        || Traffic { bytes: n.number(), packets: n.number(), errors: n.number(), dropped: n.number() };
    if let Some(name) = InterfaceName::new(b"eth0") {
        sample.network = vec![Interface { name, receive: traffic(), transmit: traffic() }];
    }
    sample.hugetlb = vec![HugetlbStats {
        page_size: "2MB".into(),
        usage: n.figure(),
        max_usage: if v1 { n.figure() } else { None },
        failcnt: n.figure(),
    }];
    sample.extra = Some(Box::new(extra(v1, later)));
    if v1 {
        sample.load = LoadStats {
            sleeping: n.figure(),
            running: n.figure(),
            stopped: n.figure(),
            uninterruptible: n.figure(),
            io_waiting: n.figure(),
            load_milli: n.figure(),
            load_d_milli: n.figure(),
        };
    }
    sample.spec = Spec {
        cpu_period_usec: reading(100_000),
        cpu_quota_usec: Some(Limit::Value(n.number())),
        cpu_burst_usec: reading(0),
        cpu_shares: if v1 { reading(1024) } else { None },
        cpu_weight: if v2 { reading(100) } else { None },
        memory_limit: Some(Limit::Value(n.number())),
        memory_swap_limit: Some(Limit::Max),
        memory_reservation: Some(Limit::Value(n.number())),
        memory_high: v2.then_some(Limit::Max),
        memory_min: v2.then_some(Limit::Value(0)),
        threads_max: Some(Limit::Max),
    };
    if !root {
        let mut part = |device: &str| disk_part(device, n);
        let volume = VolumeUsage {
            name: "cache".into(),
            plugin: "empty-dir",
            mounted: false,
            usage: part("/dev/vda"),
        };
        sample.disk = Some(Arc::new(DiskUsage {
            layer: Some(part("/dev/vda")),
            logs: Some(part("/dev/vdb1")),
            volumes: vec![volume],
        }));
    }
    sample
}

pub(crate) fn extra(v1: bool, n: &mut Numbers) -> Extra {
    let mut pages = || Pages { file: n.figure(), anon: n.figure(), unevictable: n.figure() };
    let own = if v1 { pages() } else { Pages::default() };
    let numa = vec![NumaPages { node: 0, own, subtree: pages() }];
    let mut states = || Some([0; 11].map(|_: u64| n.number()));
    let (tcp, tcp6) = (states(), states());
    let mut queues = || Some(Queues { receive: n.number(), transmit: n.number() });
    let asked = SocketStates { tcp, tcp6, udp: queues(), udp6: queues() };
    Extra {
        sched: SchedStats { run_ns: n.figure(), wait_ns: n.figure(), slices: n.figure() },
        memory_migrate: if v1 { reading(1) } else { None },
        numa,
        sockets: SocketStats {
            tcp_in_use: n.figure(),
            tcp6_in_use: n.figure(),
            tcp_time_wait: n.figure(),
            udp_in_use: n.figure(),
            udp6_in_use: n.figure(),
            udp_errors: n.figure(),
            udp6_errors: n.figure(),
            asked,
        },
        tcp: TcpFigures((-1..98).map(nonmax::NonMaxI64::new).collect()),
    }
}

/// A tree on a filesystem.
pub(crate) fn disk_part(device: &str, n: &mut Numbers) -> DiskPart {
    DiskPart {
        used_bytes: n.number(),
        inodes: Some(n.number()),
        skipped_directories: 0,
        measured_ms: 1_699_999_960_000,
        device: device.into(),
        space: FilesystemSpace {
            capacity_bytes: n.number(),
            available_bytes: n.number(),
            usage_bytes: n.number(),
            inodes: Some(n.number()),
            inodes_free: Some(n.number()),
        },
    }
}

fn operations(n: &mut Numbers, v1: bool) -> IoOperations {
    IoOperations {
        read: n.figure(),
        write: n.figure(),
        sync: if v1 { n.figure() } else { None },
        r#async: if v1 { n.figure() } else { None },
        discard: n.figure(),
        total: if v1 { n.figure() } else { None },
    }
}

/// A disk that a cgroup device is named after, a partition, and a tmpfs.
fn filesystems(n: &mut Numbers) -> (Filesystems, Vec<Option<DiskStats>>) {
    let mut mount = |device: &str, inodes: bool| Filesystem {
        device: device.to_owned(),
        mount_point: "/".to_owned(),
        fs_type: "ext4".to_owned(),
        major: 254,
        minor: 0,
        space: Some(FilesystemSpace {
            capacity_bytes: n.number(),
            available_bytes: n.number(),
            usage_bytes: n.number(),
            inodes: inodes.then(|| n.number()),
            inodes_free: inodes.then(|| n.number()),
        }),
        space_read_at: Some(1_700_000_000),
    };
    let mounts = vec![mount("/dev/vda", true), mount("/dev/vdb1", false), mount("/run", true)];
    let mut disk = || DiskStats {
        reads: n.number(),
        reads_merged: n.number(),
        sectors_read: n.number(),
        read_ms: n.number(),
        writes: n.number(),
        writes_merged: n.number(),
        sectors_written: n.number(),
        write_ms: n.number(),
        in_flight: n.number(),
        io_ms: n.number(),
        weighted_ms: n.number(),
    };
    (Filesystems { mounts, ..Filesystems::default() }, vec![Some(disk()), Some(disk()), None])
}

fn hardware(n: &mut Numbers) -> Hardware {
    let mut cache = |level| Cache { id: Some(level), size_bytes: n.number(), kind: "Unified".into(), level };
    let core = Core {
        threads: vec![0, 1],
        caches: vec![cache(1)],
        shared_caches: vec![cache(3)],
        ..Core::default()
    };
    let caches = vec![cache(4)];
    let hugepages = vec![HugePages { page_kib: 2048, count: n.number() }];
    Hardware {
        vendor_id: "GenuineIntel".into(),
        frequency_khz: Some(n.number()),
        hugepages: hugepages.clone(),
        nodes: vec![NumaNode {
            id: 0,
            memory_bytes: Some(n.number()),
            hugepages,
            cores: vec![core],
            caches,
            distances: vec![10, 21],
        }],
        disks: vec![Disk {
            name: "vda".into(),
            major: 254,
            minor: 0,
            size_bytes: n.number(),
            scheduler: "none".into(),
        }],
        cards: vec![NetworkCard {
            name: "eth0".into(),
            mac_address: "02:00:00:00:00:01".into(),
            speed_mbits: Some(10_000),
            mtu: 1500,
        }],
    }
}

fn machine(n: &mut Numbers) -> Machine {
    Machine {
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        system_uuid: "a1b2c3d4-0000-1111-2222-333344445555".into(),
        boot_id: "9f8e7d6c-0000-1111-2222-333344445555".into(),
        kernel_version: "6.12.0-test".into(),
        os_version: "Some \"Linux\" 13".into(),
        boot_time: Some(1_680_000_000),
        cores: n.figure(),
        physical_cores: n.figure(),
        sockets: n.figure(),
        books: n.figure(),
        drawers: n.figure(),
        memory_bytes: n.figure(),
        swap_bytes: n.figure(),
        dimms: vec![Dimm { kind: "Registered-DDR4".into(), count: 8, capacity_bytes: n.number() }],
        reboot_required: Some(true),
        hardware: hardware(n),
    }
}
