//! The model: what nodes pushed, in any order, is what is answered.

use std::sync::Arc;

use nodegauge::aggregate::model::{Model, Options, Subject};
use nodegauge::aggregate::names::Names;
use nodegauge::aggregate::node::{Key, Kind, Node, Taken};
use nodegauge::push::batch::proto::{self, MetricId};
use nodegauge::push::batch::{Assembler, Batch, Value, metric};

const MINUTE: u64 = 60_000;
const START: u64 = 1_700_000_040_000 / MINUTE * MINUTE;

/// What a push says of the one container: CPU time since its start in ms, memory.
#[derive(Clone, Copy)]
struct Figures {
    sequence: u64,
    time_ms: u64,
    /// Length of the rate's window and CPU time used in it, ms.
    window: Option<(u64, u64)>,
    memory: u64,
}

fn push(figures: Figures) -> Batch {
    let Figures { sequence, time_ms, window, memory } = figures;
    let mut batch = Assembler::new(proto::Batch {
        node: "n1".into(),
        boot_id: vec![7; 16],
        sequence,
        time_ms,
        resolution_ms: 15_000,
        sampled_ms: time_ms + 3,
        ..proto::Batch::default()
    });
    let length = window.map_or(0, |(length, _)| batch.window(length * 1_000_000));
    batch.entity(proto::Entity {
        kind: proto::EntityKind::Node.into(),
        window: length,
        ..Default::default()
    });
    batch.integer(MetricId::MemoryUsage, memory * 2);
    let sda = batch.string("/dev/sda");
    let sdb = batch.string("/dev/sdb");
    batch.labelled(MetricId::DiskIoReads, sdb, sequence * 10);
    batch.labelled(MetricId::DiskIoReads, sda, sequence);
    batch.double(MetricId::CpuNodeCapacity, 3_920.5);
    let (namespace, pod) = (batch.string("shop"), batch.string("web-0"));
    let labels = vec![batch.string("app"), batch.string("web")];
    let of_pod =
        proto::Entity { namespace, pod, window: length, pod_uid: (0..16).collect(), ..Default::default() };
    batch.entity(proto::Entity { kind: proto::EntityKind::Pod.into(), labels, ..of_pod.clone() });
    batch.integer(MetricId::MemoryUsage, memory + 1);
    let container = batch.string("web");
    batch.entity(proto::Entity { kind: proto::EntityKind::Container.into(), container, ..of_pod });
    batch.integer(MetricId::MemoryUsage, memory);
    batch.integer(MetricId::MemoryWorkingSet, memory - 1);
    if let Some((_, used)) = window {
        batch.integer(MetricId::CpuUsageRate, used * 1_000_000);
        batch.integer(MetricId::NetworkRxRate, used);
    }
    batch.finish().unwrap()
}

fn key(kind: Kind, pod: [&str; 3]) -> Key {
    let [namespace, pod, container] = pod.map(Arc::from);
    Key { kind, namespace, pod, container }
}

fn container() -> Key {
    key(Kind::Container, ["shop", "web-0", "web"])
}

fn series(node: &Node, of: &Key, id: MetricId, label: &str) -> Vec<(u64, Value)> {
    let (number, _) = node.find(of).unwrap();
    let mut found = Vec::new();
    node.series(number, metric(id as i32).unwrap(), label, |time, value| found.push((time, value)));
    found.reverse();
    found
}

/// Eight pushes of 15 s: two slots of a minute.
fn two_minutes() -> Vec<Figures> {
    (1..=8)
        .map(|i| Figures {
            sequence: i,
            time_ms: START + i * 15_000,
            window: (i > 1).then_some((15_000, 1_500 * i)),
            memory: 1_000 + i,
        })
        .collect()
}

#[test]
fn a_slot_has_the_newest_counters_and_the_mean_rate() {
    let names = Names::default();
    let expected_cpu = [
        // 3,000 + 4,500 + 6,000 ms in 45 s; the first push had no rate.
        (START + MINUTE, Value::Integer(300)),
        // 7,500 + 9,000 + 10,500 + 12,000 ms in 60 s.
        (START + 2 * MINUTE, Value::Integer(650)),
    ];
    let expected_memory =
        [(START + MINUTE, Value::Integer(1_004)), (START + 2 * MINUTE, Value::Integer(1_008))];
    // In order, newest first as a backlog comes, mixed, and twice.
    for order in [[1, 2, 3, 4, 5, 6, 7, 8], [8, 7, 6, 5, 4, 3, 2, 1], [4, 8, 1, 6, 2, 7, 3, 5]] {
        let mut node = Node::new(MINUTE, 15);
        for sequence in order {
            let figures = two_minutes()[sequence - 1];
            let slot = START + if sequence <= 4 { MINUTE } else { 2 * MINUTE };
            assert_eq!(node.take(&push(figures), &names), Taken::Slot(slot), "{order:?} {sequence}");
            assert_eq!(node.take(&push(figures), &names), Taken::Duplicate);
        }
        let of = container();
        assert_eq!(series(&node, &of, MetricId::CpuUsageRate, ""), expected_cpu, "{order:?}");
        assert_eq!(series(&node, &of, MetricId::MemoryUsage, ""), expected_memory, "{order:?}");
        assert_eq!(
            series(&node, &of, MetricId::NetworkRxRate, "")[1],
            (START + 2 * MINUTE, Value::Double(650.0)),
            "{order:?}"
        );
        let latest = node.latest();
        assert_eq!((latest.time_ms, latest.sampled_ms), (START + 2 * MINUTE, START + 2 * MINUTE + 3));
        let usage = latest.usage_of(node.find(&of).unwrap().0).unwrap();
        assert_eq!(
            (usage.cpu_nano, usage.memory, usage.window_ns),
            (Some(800_000_000), Some(1_007), Some(15_000_000_000))
        );
    }
}

#[test]
fn labelled_values_and_doubles_come_back() {
    let names = Names::default();
    let mut node = Node::new(MINUTE, 15);
    two_minutes().into_iter().for_each(|figures| {
        node.take(&push(figures), &names);
    });
    let of = key(Kind::Node, ["", "", ""]);
    let times = |a, b| [(START + MINUTE, Value::Integer(a)), (START + 2 * MINUTE, Value::Integer(b))];
    assert_eq!(series(&node, &of, MetricId::DiskIoReads, "/dev/sda"), times(4, 8));
    assert_eq!(series(&node, &of, MetricId::DiskIoReads, "/dev/sdb"), times(40, 80));
    assert_eq!(series(&node, &of, MetricId::DiskIoReads, "/dev/sdc"), []);
    assert_eq!(series(&node, &of, MetricId::CpuNodeCapacity, "")[0].1, Value::Double(3_920.5));
    let (number, entity) = node.find(&key(Kind::Pod, ["shop", "web-0", ""])).unwrap();
    let labels: Vec<_> = entity.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!((labels, entity.seen_ms), (vec!["app=web".to_owned()], START + 2 * MINUTE));
    assert_eq!(entity.pod_uid.as_deref(), Some("00010203-0405-0607-0809-0a0b0c0d0e0f"));
    assert!(node.labels_of(number, metric(MetricId::DiskIoReads as i32).unwrap()).is_empty());
}

#[test]
fn what_left_the_window_is_forgotten() {
    let names = Names::default();
    let mut node = Node::new(MINUTE, 3);
    let figures = |i: u64| Figures { sequence: i, time_ms: START + i * MINUTE, window: None, memory: 1 };
    for i in 1..=100 {
        assert_eq!(node.take(&push(figures(i)), &names), Taken::Slot(START + i * MINUTE));
    }
    assert_eq!(node.window().times().collect::<Vec<_>>(), [100, 99, 98].map(|i| START + i * MINUTE));
    assert_eq!(node.take(&push(Figures { sequence: 500, ..figures(7) }), &names), Taken::TooOld);
    assert_eq!(node.entities().count(), 3);
    // A step without them: the node alone stays once the window has passed.
    for i in 101..=103 {
        let mut batch = Assembler::new(proto::Batch {
            node: "n1".into(),
            boot_id: vec![7; 16],
            sequence: i,
            time_ms: START + i * MINUTE,
            resolution_ms: MINUTE,
            ..proto::Batch::default()
        });
        batch.entity(proto::Entity { kind: proto::EntityKind::Node.into(), ..Default::default() });
        node.take(&batch.finish().unwrap(), &names);
    }
    assert_eq!(node.entities().count(), 1);
}

/// A machine with pods of one container each, their memory given.
fn machine(name: &str, sequence: u64, time_ms: u64, pods: &[(&str, &str, u64)]) -> Batch {
    let mut batch = Assembler::new(proto::Batch {
        node: name.into(),
        boot_id: vec![7; 16],
        sequence,
        time_ms,
        resolution_ms: MINUTE,
        sent_ms: time_ms + 40,
        ..proto::Batch::default()
    });
    let window = batch.window(60_000_000_000);
    batch.entity(proto::Entity { kind: proto::EntityKind::Node.into(), window, ..Default::default() });
    batch.integer(MetricId::MemoryUsage, 1 << 30);
    let container = batch.string("kubelet");
    batch.entity(proto::Entity { kind: proto::EntityKind::System.into(), container, ..Default::default() });
    batch.integer(MetricId::MemoryUsage, 1 << 20);
    for (namespace, pod, memory) in pods {
        let (namespace, pod) = (batch.string(namespace), batch.string(pod));
        let of_pod = proto::Entity { namespace, pod, window, ..Default::default() };
        batch.entity(proto::Entity { kind: proto::EntityKind::Pod.into(), ..of_pod.clone() });
        batch.integer(MetricId::MemoryUsage, *memory);
        batch.integer(MetricId::CpuUsageRate, 6_000_000_000);
        let container = batch.string("main");
        batch.entity(proto::Entity { kind: proto::EntityKind::Container.into(), container, ..of_pod });
        batch.integer(MetricId::MemoryUsage, *memory);
    }
    batch.finish().unwrap()
}

fn text(names: &[Arc<str>]) -> Vec<&str> {
    names.iter().map(|n| &**n).collect()
}

fn memory(model: &Model, subject: &Subject) -> Vec<(u64, Value)> {
    model.series(subject, metric(MetricId::MemoryUsage as i32).unwrap(), "")
}

fn of(text: &str) -> Arc<str> {
    Arc::from(text)
}

#[test]
fn a_slot_closes_when_all_have_reported_or_after_a_while() {
    let model = Model::new(Options::default());
    let slot = START + MINUTE;
    model.ingest(&machine("a", 1, slot, &[("shop", "web-0", 10), ("db", "pg-0", 5)]), slot + 100);
    model.ingest(&machine("b", 1, slot, &[("shop", "web-1", 20)]), slot + 200);
    assert_eq!(model.closed_ms(), None);
    assert!(memory(&model, &Subject::Cluster).is_empty(), "an open slot is not answered from");
    model.tick(slot + 300);
    assert_eq!(model.closed_ms(), Some(slot));
    let sum = |value| vec![(slot, Value::Integer(value))];
    assert_eq!(memory(&model, &Subject::Cluster), sum(35));
    assert_eq!(memory(&model, &Subject::Namespace(of("shop"))), sum(30));
    assert_eq!(memory(&model, &Subject::Namespace(of("none"))), []);
    assert_eq!(memory(&model, &Subject::Node(of("a"))), sum(1 << 30));
    assert_eq!(memory(&model, &Subject::System(of("b"), of("kubelet"))), sum(1 << 20));
    assert_eq!(memory(&model, &Subject::Container(of("db"), of("pg-0"), of("main"))), sum(5));
    let rate = metric(MetricId::CpuUsageRate as i32).unwrap();
    assert_eq!(model.series(&Subject::Namespace(of("shop")), rate, ""), sum(200));
    assert_eq!(text(&model.namespaces()), ["db", "shop"]);
    assert_eq!(text(&model.pods("shop")), ["web-0", "web-1"]);
    assert_eq!(text(&model.containers("db", "pg-0")), ["main"]);
    assert_eq!(text(&model.system_containers("a")), ["kubelet"]);
    let names = |subject: &Subject| model.metrics(subject).iter().map(|m| m.name).collect::<Vec<_>>();
    assert_eq!(names(&Subject::Pod(of("shop"), of("web-0"))), ["cpu/usage_rate", "memory/usage"]);
    assert_eq!(names(&Subject::Cluster), ["cpu/usage_rate", "memory/usage"]);
    // One hangs: the slot stays open for a quarter of its length, not longer.
    let next = slot + MINUTE;
    model.ingest(&machine("a", 2, next, &[("shop", "web-0", 11)]), next + 100);
    model.tick(next + 14_999);
    assert_eq!(model.closed_ms(), Some(slot));
    model.tick(next + 15_000);
    assert_eq!(model.closed_ms(), Some(next));
    assert_eq!(memory(&model, &Subject::Cluster).last(), Some(&(next, Value::Integer(11))));
    // It comes after all: the slot's sums are worked out again.
    model.ingest(&machine("b", 2, next, &[("shop", "web-1", 22)]), next + 30_000);
    model.tick(next + 30_500);
    assert_eq!(memory(&model, &Subject::Cluster), [(slot, Value::Integer(35)), (next, Value::Integer(33))]);
    // The clock of a machine that takes 60 ms to be heard looks 60 ms behind.
    let status = model.nodes();
    assert_eq!((&*status[0].name, status[0].ahead_ms, status[0].pushed_ms), ("a", -60, next));
}

#[test]
fn a_pod_that_moves_is_one_series() {
    let model = Model::new(Options::default());
    let at = |i: u64| START + i * MINUTE;
    model.ingest(&machine("a", 1, at(1), &[("db", "pg-0", 1)]), at(1));
    model.ingest(&machine("a", 2, at(2), &[("db", "pg-0", 2)]), at(2));
    model.ingest(&machine("a", 3, at(3), &[]), at(3));
    model.ingest(&machine("b", 1, at(3), &[("db", "pg-0", 3)]), at(3));
    model.tick(at(3));
    let expected: Vec<_> = (1..=3).map(|i| (at(i), Value::Integer(i))).collect();
    assert_eq!(memory(&model, &Subject::Pod(of("db"), of("pg-0"))), expected);
    assert_eq!(text(&model.pods("db")), ["pg-0"]);
}

#[test]
fn a_silent_machine_leaves_with_its_pods() {
    let model = Model::new(Options::default());
    let at = |i: u64| START + i * MINUTE;
    model.ingest(&machine("a", 1, at(1), &[("db", "pg-0", 1)]), at(1));
    for i in 1..=15 {
        model.ingest(&machine("b", i, at(i), &[("shop", "web-0", i)]), at(i));
        model.tick(at(i));
    }
    assert_eq!(model.nodes().len(), 2);
    model.tick(at(16) + 1);
    assert_eq!(model.nodes().len(), 1);
    assert_eq!(text(&model.namespaces()), ["shop"]);
    assert_eq!(memory(&model, &Subject::Cluster).len(), 15, "slots go one by one");
}

#[test]
fn labels_that_come_and_go_take_no_room_for_good() {
    let names = Names::default();
    let mut node = Node::new(MINUTE, 3);
    let volume = |step: u64, at: u64| format!("Volume:{step}-{at}");
    for step in 1..=40 {
        let mut batch = Assembler::new(proto::Batch {
            node: "n1".into(),
            boot_id: vec![7; 16],
            sequence: step,
            time_ms: START + step * MINUTE,
            resolution_ms: MINUTE,
            ..proto::Batch::default()
        });
        let (namespace, pod) = (batch.string("shop"), batch.string("web-0"));
        batch.entity(proto::Entity {
            kind: proto::EntityKind::Pod.into(),
            namespace,
            pod,
            ..Default::default()
        });
        for at in 0..200 {
            let label = batch.string(&volume(step, at));
            batch.labelled(MetricId::FilesystemUsage, label, step * 1_000 + at);
        }
        node.take(&batch.finish().unwrap(), &names);
        names.tidy();
        // Those of the window, and a few more until it is worth looking.
        assert!(names.len() < 8 * 200, "{} after {step} steps", names.len());
    }
    let of = key(Kind::Pod, ["shop", "web-0", ""]);
    for step in 38..=40 {
        for at in [0, 199] {
            let expected = [(START + step * MINUTE, Value::Integer(step * 1_000 + at))];
            assert_eq!(series(&node, &of, MetricId::FilesystemUsage, &volume(step, at)), expected);
        }
    }
    assert_eq!(series(&node, &of, MetricId::FilesystemUsage, &volume(30, 0)), []);
}
