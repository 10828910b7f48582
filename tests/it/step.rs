//! Snapshots and names in, batches out: what is in a step, and what is not.

mod captured;
mod limits;
mod resources;
mod storage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use nodegauge::identity::Directory;
use nodegauge::identity::model::{
    ContainerInfo, Labels, Names, PodContainer, PodInfo, PodRef, Resources, Role,
};
use nodegauge::identity::path::{PodUid, Qos};
use nodegauge::push::batch::{Batch, Entity, EntityKind, MAX_DECOMPRESSED, Value, decode, encode};
use nodegauge::push::step::{Departed, Limits, NodeResources, Options, Step, StepBuilder};
use nodegauge::snapshot::{
    Cgroup, CgroupSample, Filesystem, FilesystemSpace, Filesystems, Hierarchy, Identity, Interface,
    InterfaceName, Limit, Origin, Snapshot, Traffic, reading,
};

use crate::data;

const UID: &str = "0d1c2b3a-4f5e-4a7b-8c9d-0e1f2a3b4c5d";
const POD: &str = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0d1c2b3a_4f5e_4a7b_8c9d_0e1f2a3b4c5d.slice";
const BOOT: [u8; 16] = [3; 16];

fn id(digit: char) -> String {
    String::from(digit).repeat(64)
}

fn container_path(pod: &str, digit: char) -> String {
    format!("{pod}/cri-containerd-{}.scope", id(digit))
}

/// A row with the counters that tests look at.
fn row(path: &str, cpu_ns: u64, memory: u64) -> CgroupSample {
    let mut sample = CgroupSample::new(data::cgroup(path, Identity::default()));
    sample.cpu.usage_ns = reading(cpu_ns);
    sample.memory.usage = reading(memory);
    sample.memory.working_set = reading(memory / 2);
    sample
}

fn network(sample: &mut CgroupSample, received: u64) {
    let traffic = |bytes| Traffic { bytes, packets: 2, errors: 1, dropped: 3 };
    for name in [b"eth0", b"net1"] {
        let name = InterfaceName::new(name).unwrap();
        sample.network.push(Interface { name, receive: traffic(received), transmit: traffic(received / 2) });
    }
}

/// The moments of an agent with a clock that nobody touches.
#[derive(Debug)]
struct Clock {
    zero: Instant,
}

impl Clock {
    /// A tick at this many seconds by both clocks.
    fn tick(&self, seconds: u64, mut rows: Vec<CgroupSample>) -> Snapshot {
        rows.sort_by(|a, b| a.cgroup.path.cmp(&b.cgroup.path));
        Snapshot {
            origin: Origin::Grid,
            wall_ms: 1_700_000_010_000 + seconds * 1000,
            monotonic: self.zero + Duration::from_secs(seconds),
            cgroups: rows,
            ..data::snapshot(Hierarchy::V2, 1)
        }
    }
}

fn options() -> Options {
    Options {
        node: "n1".into(),
        boot_id: BOOT,
        interval: Duration::from_secs(5),
        resolution: Duration::from_secs(15),
        limits: Limits::default(),
    }
}

fn start() -> (StepBuilder, Clock) {
    let builder = StepBuilder::new(options());
    (builder, Clock { zero: Instant::now() })
}

fn web() -> PodContainer {
    PodContainer {
        id: Some(id('a').into()),
        image: Some("nginx:1".into()),
        requests: Resources { cpu_milli: Some(250), memory_bytes: Some(64 << 20), ..Resources::default() },
        limits: Resources { memory_bytes: Some(128 << 20), ..Resources::default() },
        other_requests: vec![("nvidia.com/gpu".into(), 2)],
        restart_count: Some(3),
        ..PodContainer::new("web".into(), Some(Role::App))
    }
}

fn pod() -> PodInfo {
    let uid = PodUid::parse(UID).unwrap();
    let labels = Labels::new([("app", "web"), ("tier", "front")], &mut Names::default());
    PodInfo {
        labels,
        qos: Some(Qos::Burstable),
        host_network: Some(false),
        started_ns: Some(1_699_999_000_000_000_000),
        containers: vec![web(), PodContainer::new("late".into(), Some(Role::App))],
        ..PodInfo::new(uid, "shop".into(), "web-0".into())
    }
}

fn container(digit: char, name: &str) -> ContainerInfo {
    let pod = PodRef { uid: PodUid::parse(UID), namespace: "shop".into(), name: "web-0".into() };
    ContainerInfo {
        image: Some("nginx:1".into()),
        pod: Some(pod),
        container: Some(name.into()),
        started_ns: Some(1_699_999_500_000_000_000),
        ..ContainerInfo::new(id(digit).into())
    }
}

fn sandbox(digit: char) -> ContainerInfo {
    ContainerInfo { is_sandbox: true, container: None, ..container(digit, "") }
}

fn directory() -> Directory {
    Directory::of([container('a', "web"), sandbox('b')], [pod()])
}

/// The pod of [`directory`] with its container and sandbox, and the node.
fn shop(factor: u64) -> Vec<CgroupSample> {
    let mut pause = row(&container_path(POD, 'b'), factor, 10);
    network(&mut pause, 1_000 * factor);
    vec![
        row("/", 9_000_000_000 * factor, 5_000),
        row(POD, 700_000_000 * factor, 900),
        row(&container_path(POD, 'a'), 600_000_000 * factor, 800),
        pause,
    ]
}

fn make(builder: &mut StepBuilder, snapshot: &Snapshot, directory: &Directory) -> Option<Step> {
    let step = builder.tick(snapshot, [], directory).unwrap()?;
    // What the builder makes travels.
    assert_eq!(decode(&encode(&step.batch).unwrap(), MAX_DECOMPRESSED).unwrap(), step.batch);
    Some(step)
}

/// The batch of two steps in a row, of which the second has rates.
fn second(rows: impl Fn(u64) -> Vec<CgroupSample>, directory: &Directory) -> Batch {
    let (mut builder, clock) = start();
    make(&mut builder, &clock.tick(0, rows(1)), directory).unwrap();
    make(&mut builder, &clock.tick(15, rows(2)), directory).unwrap().batch
}

fn entity<'a>(batch: &'a Batch, kind: EntityKind, name: &str) -> Entity<'a> {
    let name_of = |e: &Entity<'a>| e.container().or(e.pod()).or(e.name()).unwrap_or_default();
    let mut found = batch.entities().filter(|e| e.kind() == kind && name_of(e) == name);
    let one = found.next().unwrap_or_else(|| panic!("no {kind:?} {name}"));
    assert!(found.next().is_none(), "two of {kind:?} {name}");
    one
}

fn integer(entity: &Entity<'_>, metric: &str) -> Option<u64> {
    entity.value(metric).map(|v| match v {
        Value::Integer(value) => value,
        Value::Double(value) => panic!("{metric} is {value}"),
    })
}

fn double(entity: &Entity<'_>, metric: &str) -> Option<f64> {
    entity.value(metric).map(|v| match v {
        Value::Double(value) => value,
        Value::Integer(value) => panic!("{metric} is {value}"),
    })
}

#[test]
fn a_step_is_headed_by_who_and_when() {
    let (mut builder, clock) = start();
    let snapshot = clock.tick(2, shop(1));
    let step = make(&mut builder, &snapshot, &directory()).unwrap();
    let batch = &step.batch;
    assert_eq!((batch.node(), batch.boot_id(), batch.sequence()), ("n1", BOOT, 0));
    assert_eq!((batch.time_ms(), batch.resolution_ms()), (1_700_000_010_000, 15_000));
    assert_eq!((batch.sampled_ms(), batch.sent_ms()), (1_700_000_012_000, None));
    assert_eq!(step.due.late, Duration::from_secs(2));
    assert_eq!(batch.dropped().count(), 0);
    // The same step is not made twice, and scrapes make none.
    assert!(make(&mut builder, &clock.tick(7, shop(2)), &directory()).is_none());
    let fresh = Snapshot { origin: Origin::Fresh, ..clock.tick(15, shop(2)) };
    assert!(make(&mut builder, &fresh, &directory()).is_none());
    assert!(make(&mut builder, &clock.tick(15, shop(2)), &directory()).is_some());
}

#[test]
fn pods_and_containers_have_names_and_figures() {
    let batch = second(shop, &directory());
    let kinds: Vec<EntityKind> = batch.entities().map(|e| e.kind()).collect();
    let (pod, container) = (EntityKind::Pod, EntityKind::Container);
    // The pause container is its pod's; "late" has not been made yet.
    assert_eq!(kinds, [EntityKind::Node, pod, container, container]);

    let pod = entity(&batch, pod, "web-0");
    assert_eq!((pod.namespace(), pod.qos()), (Some("shop"), Some(Qos::Burstable)));
    assert_eq!(pod.pod_uid().unwrap().to_string(), UID);
    assert_eq!(pod.labels().collect::<Vec<_>>(), [("app", "web"), ("tier", "front")]);
    assert_eq!(pod.start_ms(), Some(1_699_999_000_000));
    assert_eq!(integer(&pod, "uptime"), Some(1_025_000));
    // Its own cgroup's, not its containers' sum.
    assert_eq!(integer(&pod, "cpu/usage"), Some(1_400_000_000));
    assert_eq!(integer(&pod, "cpu/usage_rate"), Some(46));
    assert_eq!(integer(&pod, "memory/usage"), Some(900));
    // From the sandbox, over both interfaces.
    assert_eq!(integer(&pod, "network/rx"), Some(4_000));
    assert_eq!(double(&pod, "network/rx_rate"), Some(2_000.0 / 15.0));
    assert_eq!(integer(&pod, "network/tx_packets"), Some(4));
    assert_eq!(integer(&pod, "network/rx_dropped"), Some(6));
    // Sums over its containers.
    assert_eq!(integer(&pod, "restart_count"), Some(3));
    assert_eq!(integer(&pod, "cpu/request"), Some(250));
    assert_eq!(integer(&pod, "cpu/limit"), None);

    let web = entity(&batch, container, "web");
    assert_eq!((web.namespace(), web.pod(), web.image()), (Some("shop"), Some("web-0"), Some("nginx:1")));
    assert_eq!((web.pod_uid(), web.container_id()), (pod.pod_uid(), Some(id('a'))));
    assert_eq!(web.labels().count(), 0);
    assert_eq!(integer(&web, "cpu/usage_rate"), Some(40));
    assert_eq!(integer(&web, "memory/limit"), Some(128 << 20));
    assert_eq!(integer(&web, "restart_count"), Some(3));
    assert_eq!(integer(&web, "network/rx"), None);
    assert_eq!(web.window().unwrap().ns(), 15_000_000_000);

    let late = entity(&batch, container, "late");
    assert_eq!((late.container_id(), late.start_ms(), late.metrics().count()), (None, None, 0));

    let node = entity(&batch, EntityKind::Node, "");
    assert_eq!(integer(&node, "cpu/usage_rate"), Some(600));
    assert_eq!(integer(&node, "memory/request"), Some(64 << 20));
    assert_eq!(integer(&node, "restart_count"), None);
}

#[test]
fn containers_that_wait_are_there_with_their_restarts() {
    let crashed = PodContainer { id: None, restart_count: Some(17), ..web() };
    let pod = PodInfo { containers: vec![crashed], ..pod() };
    let rows = |factor| vec![row("/", factor, 1), row(POD, factor, 2)];
    let batch = second(rows, &Directory::of([], [pod]));
    let web = entity(&batch, EntityKind::Container, "web");
    assert_eq!(integer(&web, "restart_count"), Some(17));
    assert_eq!(integer(&web, "cpu/request"), Some(250));
    assert_eq!(integer(&web, "cpu/usage"), None);
    assert_eq!(integer(&web, "uptime"), None);
    assert_eq!(integer(&entity(&batch, EntityKind::Pod, "web-0"), "restart_count"), Some(17));
}

#[test]
fn a_pod_without_cgroup_is_absent() {
    let batch = second(|factor| vec![row("/", factor, 1)], &directory());
    assert_eq!(batch.entities().map(|e| e.kind()).collect::<Vec<_>>(), [EntityKind::Node]);
    assert_eq!(integer(&batch.entities().next().unwrap(), "cpu/request"), None);
}

#[test]
fn a_pod_whose_cgroup_is_not_seen_adds_up() {
    let rows = |factor| shop(factor).into_iter().filter(|r| r.cgroup.path != POD).collect();
    let batch = second(rows, &directory());
    let pod = entity(&batch, EntityKind::Pod, "web-0");
    assert_eq!(integer(&pod, "memory/usage"), Some(810));
    assert_eq!(integer(&pod, "cpu/usage_rate"), Some(40));
    // Counters end with their containers and are not added up.
    assert_eq!(integer(&pod, "cpu/usage"), None);
    assert_eq!(integer(&pod, "network/rx"), Some(4_000));

    // One container has no rate yet: the sum would be a wrong one.
    let (mut builder, clock) = start();
    let first = shop(1).into_iter().filter(|r| !r.cgroup.path.contains(&id('a')) && r.cgroup.path != POD);
    make(&mut builder, &clock.tick(0, first.collect()), &directory()).unwrap();
    let batch = make(&mut builder, &clock.tick(15, rows(2)), &directory()).unwrap().batch;
    let pod = entity(&batch, EntityKind::Pod, "web-0");
    assert_eq!((integer(&pod, "cpu/usage_rate"), integer(&pod, "memory/usage")), (None, Some(810)));
}

#[test]
fn host_network_pods_have_no_network() {
    let pod = PodInfo { host_network: Some(true), ..pod() };
    let batch = second(shop, &Directory::of([container('a', "web"), sandbox('b')], [pod]));
    let pod = entity(&batch, EntityKind::Pod, "web-0");
    assert!(pod.is_host_network());
    assert!(pod.metrics().all(|p| !p.metric.name.starts_with("network/")));
}

#[test]
fn the_newest_run_of_a_container_is_the_one() {
    let new = ContainerInfo { created_ns: Some(1_700_000_000_000_000_000), ..container('c', "web") };
    let old = ContainerInfo { created_ns: Some(1_699_000_000_000_000_000), ..container('a', "web") };
    let rows = |factor| {
        let mut rows = shop(factor);
        rows.push(row(&container_path(POD, 'c'), factor, 77));
        rows
    };
    let batch = second(rows, &Directory::of([new, old, sandbox('b')], [pod()]));
    let web = entity(&batch, EntityKind::Container, "web");
    assert_eq!((web.container_id(), integer(&web, "memory/usage")), (Some(id('c')), Some(77)));
}

#[test]
fn the_newest_pod_of_a_name_is_the_one() {
    let other = "11111111-4f5e-4a7b-8c9d-0e1f2a3b4c5d";
    let path = POD.replace("0d1c2b3a_4f5e", "11111111_4f5e");
    let uid = PodUid::parse(other).unwrap();
    let before = PodInfo { uid, deleting: true, containers: Vec::new(), ..pod() };
    let rows = |factor| {
        let mut rows = shop(factor);
        rows.push(row(&path, factor, 77));
        rows
    };
    let directory = Directory::of([container('a', "web"), sandbox('b')], [pod(), before]);
    let batch = second(rows, &directory);
    assert_eq!(entity(&batch, EntityKind::Pod, "web-0").pod_uid().unwrap().to_string(), UID);
}

#[test]
fn names_nobody_told_are_absent() {
    let batch = second(shop, &Directory::default());
    let pod = batch.entities().find(|e| e.kind() == EntityKind::Pod).unwrap();
    assert_eq!((pod.namespace(), pod.pod()), (None, None));
    assert_eq!(pod.pod_uid().unwrap().to_string(), UID);
    assert_eq!(pod.qos(), Some(Qos::Burstable));
    // Without a name the sandbox cannot be told from a container.
    let ids: Vec<_> = batch.entities().filter(|e| e.kind() == EntityKind::Container).collect();
    assert_eq!(ids.iter().map(|e| e.container_id().unwrap()).collect::<Vec<_>>(), [id('a'), id('b')]);
    assert_eq!(integer(&pod, "network/rx"), Some(4_000));
}

#[test]
fn containers_outside_pods_have_their_own_limits_and_network() {
    let labels = Labels::new([("com.example.team", "blue")], &mut Names::default());
    let docker = ContainerInfo {
        name: Some("db".into()),
        image: Some("postgres:17".into()),
        labels,
        restart_count: Some(1),
        ..ContainerInfo::new(id('d').into())
    };
    let path = format!("/system.slice/docker-{}.scope", id('d'));
    let rows = |factor| {
        let mut db = row(&path, 300_000_000 * factor, 5);
        network(&mut db, 100 * factor);
        db.spec.memory_limit = Some(Limit::Value(1 << 30));
        db.spec.cpu_quota_usec = Some(Limit::Value(150_000));
        db.spec.cpu_period_usec = reading(100_000);
        vec![row("/", factor, 1), db]
    };
    let batch = second(rows, &Directory::of([docker], []));
    let db = entity(&batch, EntityKind::Container, "db");
    assert_eq!((db.pod(), db.container(), db.image()), (None, None, Some("postgres:17")));
    assert_eq!(db.labels().collect::<Vec<_>>(), [("com.example.team", "blue")]);
    assert_eq!(integer(&db, "cpu/limit"), Some(1_500));
    assert_eq!(integer(&db, "memory/limit"), Some(1 << 30));
    assert_eq!(integer(&db, "network/rx"), Some(400));
    assert_eq!(integer(&db, "cpu/usage_rate"), Some(20));
    assert_eq!(integer(&db, "restart_count"), Some(1));
}

#[test]
fn system_containers_have_heapsters_names() {
    let rows = |factor| {
        let paths = [
            "/",
            "/kubepods.slice",
            "/kubepods.slice/kubepods-burstable.slice",
            "/system.slice",
            "/system.slice/containerd.service",
            "/system.slice/kubelet.service",
            "/system.slice/sshd.service",
            "/user.slice",
        ];
        paths.into_iter().map(|path| row(path, factor, path.len() as u64)).collect()
    };
    let batch = second(rows, &Directory::default());
    let system = batch.entities().filter(|e| e.kind() == EntityKind::System);
    let names: Vec<_> =
        system.map(|e| (e.container().unwrap(), integer(&e, "memory/usage").unwrap())).collect();
    assert_eq!(names, [("docker-daemon", 32), ("kubelet", 29), ("pods", 15), ("system", 13)]);
}

#[test]
fn the_node_has_filesystems_and_shares() {
    let filesystem = |device: &str, mount_point: &str, usage_bytes| Filesystem {
        device: device.into(),
        mount_point: mount_point.into(),
        fs_type: "ext4".into(),
        major: 8,
        minor: 1,
        space: (usage_bytes > 0).then_some(FilesystemSpace {
            capacity_bytes: 1_000,
            available_bytes: 800,
            usage_bytes,
            inodes: None,
            inodes_free: None,
        }),
        space_read_at: None,
    };
    let mounts = vec![
        filesystem("/dev/sda1", "/", 200),
        filesystem("/dev/sdb1", "/var/lib", 300),
        filesystem("/dev/sdc1", "/var/libexec", 400),
        filesystem("server:/x", "/mnt", 0),
    ];
    let (mut builder, clock) = start();
    let allocatable =
        Resources { cpu_milli: Some(2_000), memory_bytes: Some(10_000), ephemeral_storage_bytes: Some(600) };
    builder.set_node_resources(NodeResources { capacity: Resources::default(), allocatable });
    builder.set_node_labels(Labels::new([("zone", "a")], &mut Names::default()));
    let tick = |seconds, factor| Snapshot {
        filesystems: Arc::new(Filesystems { mounts: mounts.clone(), ..Filesystems::default() }),
        ..clock.tick(seconds, shop(factor))
    };
    make(&mut builder, &tick(0, 1), &directory()).unwrap();
    let snapshot = tick(15, 2);
    let batch = make(&mut builder, &snapshot, &directory()).unwrap().batch;
    let node = entity(&batch, EntityKind::Node, "");
    let usage: Vec<_> = node
        .metrics()
        .filter(|p| p.metric.name == "filesystem/usage")
        .map(|p| (p.label.unwrap(), p.value))
        .collect();
    assert_eq!(
        usage,
        [("/", Value::Integer(300)), ("/dev/sda1", Value::Integer(200)), ("/dev/sdc1", Value::Integer(400))]
    );
    assert_eq!(integer(&node, "ephemeral_storage/usage"), Some(300));
    let labels: Vec<_> = node.labels().collect();
    assert_eq!(labels, [("zone", "a")]);
    assert_eq!(double(&node, "ephemeral_storage/node_utilization"), Some(0.5));
    let cores = u64::from(snapshot.machine.cores.unwrap()) as f64;
    assert_eq!(double(&node, "cpu/node_capacity"), Some(cores * 1000.0));
    assert_eq!(double(&node, "cpu/node_utilization"), Some(0.3));
    assert_eq!(double(&node, "cpu/node_reservation"), Some(0.125));
    assert_eq!(double(&node, "memory/node_utilization"), Some(0.5));
    assert_eq!(double(&node, "ephemeral_storage/node_capacity"), None);
}

/// Steps of a counter as (seconds, its value, the cgroup's creation) → rates.
fn rates(ticks: &[(u64, Option<u64>, u64)], expected: &[Option<u64>]) {
    let (mut builder, clock) = start();
    let made: Vec<Option<u64>> = ticks
        .iter()
        .map(|(seconds, value, created)| {
            let mut root = row("/", 0, 1);
            root.cpu.usage_ns = value.and_then(reading);
            let mut cgroup = Cgroup::clone(&root.cgroup);
            cgroup.created = Some(*created);
            root.cgroup = Arc::new(cgroup);
            let batch =
                make(&mut builder, &clock.tick(*seconds, vec![root]), &Directory::default()).unwrap().batch;
            integer(&entity(&batch, EntityKind::Node, ""), "cpu/usage_rate")
        })
        .collect();
    assert_eq!(made, expected, "{ticks:?}");
}

#[test]
fn rates_survive_gaps_and_refuse_resets() {
    let second = 1_000_000_000;
    rates(
        &[(0, Some(5), 1), (15, Some(5 + 15 * second), 1), (60, Some(5 + 60 * second), 1)],
        &[None, Some(1000), Some(1000)],
    );
    rates(&[(0, Some(9), 1), (15, Some(3), 1), (30, Some(3), 1)], &[None, None, Some(0)]);
    rates(&[(0, Some(9), 1), (15, Some(10), 2), (30, Some(10), 2)], &[None, None, Some(0)]);
    rates(&[(0, Some(9), 1), (15, None, 1), (30, Some(10), 1)], &[None, None, None]);
    rates(&[(0, Some(9), 1), (1_200, Some(10), 1)], &[None, None]);
}

#[test]
fn a_row_missing_in_one_step_has_its_rate_in_the_next() {
    let (mut builder, clock) = start();
    make(&mut builder, &clock.tick(0, shop(1)), &directory()).unwrap();
    make(&mut builder, &clock.tick(15, vec![row("/", 1, 1)]), &directory()).unwrap();
    let batch = make(&mut builder, &clock.tick(30, shop(2)), &directory()).unwrap().batch;
    let web = entity(&batch, EntityKind::Container, "web");
    assert_eq!((integer(&web, "cpu/usage_rate"), web.window().unwrap().ns()), (Some(20), 30_000_000_000));
}

#[test]
fn what_is_gone_sends_its_totals_once() {
    let (mut builder, clock) = start();
    make(&mut builder, &clock.tick(0, shop(1)), &directory()).unwrap();
    let last = shop(2);
    let gone = |at: u64| {
        last.iter().filter(|r| r.cgroup.path != "/").map(move |sample| Departed {
            sample,
            seen_ms: 1_700_000_015_000,
            gone: clock.zero + Duration::from_secs(at),
        })
    };
    let alive = || vec![row("/", 3, 1)];
    let batch = builder.tick(&clock.tick(15, alive()), gone(10), &directory()).unwrap().unwrap().batch;
    let web = entity(&batch, EntityKind::Container, "web");
    assert!(web.is_departed());
    assert_eq!(integer(&web, "cpu/usage"), Some(1_200_000_000));
    assert_eq!(integer(&web, "uptime"), Some(515_000));
    assert_eq!((integer(&web, "memory/usage"), integer(&web, "cpu/usage_rate")), (None, None));
    let pod = entity(&batch, EntityKind::Pod, "web-0");
    assert!(pod.is_departed());
    assert_eq!(integer(&pod, "network/rx"), Some(4_000));
    let batch = builder.tick(&clock.tick(30, alive()), gone(10), &directory()).unwrap().unwrap().batch;
    assert_eq!(batch.entities().count(), 1);
    // A cgroup that is back is the one that counts.
    let batch = builder.tick(&clock.tick(45, shop(1)), gone(40), &directory()).unwrap().unwrap().batch;
    let web = entity(&batch, EntityKind::Container, "web");
    assert_eq!((web.is_departed(), integer(&web, "cpu/usage")), (false, Some(600_000_000)));
}

#[test]
fn what_was_gone_before_the_first_step_is_in_it() {
    let (mut builder, clock) = start();
    let last = shop(2);
    let gone = || {
        let gone = |sample| Departed { sample, seen_ms: 1_700_000_000_000, gone: clock.zero };
        last.iter().filter(|r| r.cgroup.path != "/").map(gone)
    };
    let alive = || vec![row("/", 3, 1)];
    let batch = builder.tick(&clock.tick(0, alive()), gone(), &directory()).unwrap().unwrap().batch;
    let web = entity(&batch, EntityKind::Container, "web");
    assert_eq!((web.is_departed(), integer(&web, "cpu/usage")), (true, Some(1_200_000_000)));
    let batch = builder.tick(&clock.tick(15, alive()), gone(), &directory()).unwrap().unwrap().batch;
    assert_eq!(batch.entities().count(), 1);
}

/// Every metric of the table that a kernel tells is in a step of a host that
/// tells everything, and only on what the table says.
#[test]
fn a_full_host_fills_the_table() {
    use nodegauge::push::batch::METRICS;
    let mut seen = std::collections::HashSet::new();
    for hierarchy in [Hierarchy::V1, Hierarchy::V2] {
        let (mut builder, clock) = start();
        builder.set_node_resources(NodeResources {
            capacity: Resources { ephemeral_storage_bytes: Some(5), ..Resources::default() },
            allocatable: Resources {
                cpu_milli: Some(1),
                memory_bytes: Some(1),
                ephemeral_storage_bytes: Some(1),
            },
        });
        let mut numbers = data::Numbers::from(1_000);
        let rows = |numbers: &mut data::Numbers| -> Vec<CgroupSample> {
            let paths = [container_path(POD, 'a'), container_path(POD, 'b')];
            let mut rows: Vec<CgroupSample> = ["/", "/system.slice/kubelet.service", POD]
                .into_iter()
                .chain(paths.iter().map(String::as_str))
                .map(|path| data::row(hierarchy, data::cgroup(path, Identity::default()), numbers))
                .collect();
            rows[2].network.clear();
            rows
        };
        let asks = Resources { cpu_milli: Some(1), memory_bytes: Some(1), ephemeral_storage_bytes: Some(1) };
        let web = PodContainer { requests: asks, limits: asks, ..web() };
        let pod = PodInfo { containers: vec![web], ..pod() };
        let directory = Directory::of([container('a', "web"), sandbox('b')], [pod]);
        make(&mut builder, &clock.tick(0, rows(&mut numbers)), &directory).unwrap();
        let mut snapshot = clock.tick(15, rows(&mut numbers));
        let mut filesystems = Filesystems::clone(&snapshot.filesystems);
        filesystems.mounts[0].mount_point = "/".into();
        snapshot.filesystems = Arc::new(filesystems);
        let batch = make(&mut builder, &snapshot, &directory).unwrap().batch;
        for entity in batch.entities() {
            for point in entity.metrics() {
                let on = point.metric.on;
                let may = match entity.kind() {
                    EntityKind::Node => on.node,
                    EntityKind::System => on.system,
                    EntityKind::Pod => on.pod,
                    EntityKind::Container => on.container,
                    EntityKind::Namespace | EntityKind::Cluster => false,
                };
                assert!(may, "{} on {:?}", point.metric.name, entity.kind());
                assert_eq!(point.label.is_some(), point.metric.label.is_some(), "{}", point.metric.name);
                seen.insert(point.metric.name);
            }
        }
    }
    let told_by_others =
        |name: &&str| ["accelerator/", "custom/"].iter().any(|begin| name.starts_with(begin));
    let missing: Vec<_> =
        METRICS.iter().map(|m| m.name).filter(|name| !seen.contains(name) && !told_by_others(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
