//! The batch format: what one side writes the other reads, whatever their age.

use std::fmt::Write as _;
use std::path::PathBuf;

use nodegauge::push::batch::proto::{self, MetricId};
use nodegauge::push::batch::{
    Assembler, Batch, DecodeError, EntityKind, Label, MAX_DECOMPRESSED, MAX_ENTITIES, MAX_STRINGS, METRICS,
    Malformed, Value, ValueType, decode, encode, stamp,
};
use proptest::prelude::*;
use prost::Message;

fn head() -> proto::Batch {
    proto::Batch {
        node: "n1".into(),
        boot_id: vec![7; 16],
        time_ms: 1_700_000_010_000,
        resolution_ms: 15_000,
        sampled_ms: 1_700_000_010_003,
        ..proto::Batch::default()
    }
}

fn small() -> Batch {
    let mut batch = Assembler::new(head());
    let window = batch.window(15_000_000_000);
    batch.entity(proto::Entity { kind: proto::EntityKind::Node.into(), window, ..Default::default() });
    batch.integer(MetricId::CpuUsage, 5_000_000_000);
    batch.integer(MetricId::CpuUsageRate, 3_000_000_000);
    batch.double(MetricId::CpuNodeCapacity, 4_000.0);
    let sda = batch.string("/dev/sda");
    batch.labelled(MetricId::DiskIoReads, sda, 17);
    let (namespace, pod, container) = (batch.string("shop"), batch.string("web-0"), batch.string("web"));
    let labels = vec![batch.string("app"), pod];
    batch.entity(proto::Entity {
        kind: proto::EntityKind::Container.into(),
        namespace,
        pod,
        container,
        pod_uid: (0..16).collect(),
        container_id: vec![0xab; 32],
        labels,
        ..Default::default()
    });
    batch.integer(MetricId::CpuUsage, 9);
    batch.integer(MetricId::MemoryUsage, 1 << 40);
    batch.finish().unwrap()
}

#[test]
fn a_batch_reads_entity_by_entity() {
    let batch = decode(&encode(&small()).unwrap(), MAX_DECOMPRESSED).unwrap();
    assert_eq!(batch, small());
    let entities: Vec<_> = batch.entities().collect();
    let [node, container] = entities.as_slice() else { panic!("{entities:?}") };
    assert_eq!(node.kind(), EntityKind::Node);
    assert_eq!(node.value("cpu/usage"), Some(Value::Integer(5_000_000_000)));
    assert_eq!(node.value("cpu/usage_rate"), Some(Value::Integer(200)));
    assert_eq!(node.value("cpu/node_capacity"), Some(Value::Double(4_000.0)));
    assert_eq!(node.value("memory/usage"), None);
    let disk = node.metrics().find(|p| p.metric.name == "disk/io_reads").unwrap();
    assert_eq!((disk.labels(), disk.value), (vec![("resource_id", "/dev/sda")], Value::Integer(17)));
    assert_eq!(container.kind(), EntityKind::Container);
    assert_eq!(
        (container.namespace(), container.pod(), container.container()),
        (Some("shop"), Some("web-0"), Some("web"))
    );
    assert_eq!(container.labels().collect::<Vec<_>>(), [("app", "web-0")]);
    assert_eq!(container.pod_uid().unwrap().to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    assert_eq!(container.container_id().unwrap(), "ab".repeat(32));
    assert_eq!(container.image(), None);
    let values: Vec<_> = container.metrics().map(|p| (p.metric.name, p.value)).collect();
    assert_eq!(values, [("cpu/usage", Value::Integer(9)), ("memory/usage", Value::Integer(1 << 40))]);
}

#[test]
fn a_stamp_overrides_and_changes_nothing_else() {
    let payload = encode(&small()).unwrap();
    let first = decode(&stamp(&payload, 5, 1_700_000_011_000), MAX_DECOMPRESSED).unwrap();
    assert_eq!((first.sequence(), first.sent_ms()), (5, Some(1_700_000_011_000)));
    let again = stamp(&stamp(&payload, 5, 1), u64::MAX, u64::MAX);
    let again = decode(&again, MAX_DECOMPRESSED).unwrap();
    assert_eq!((again.sequence(), again.sent_ms()), (u64::MAX, Some(u64::MAX)));
    let message = proto::Batch { sequence: 0, sent_ms: 0, ..again.message().clone() };
    assert_eq!(&message, small().message());
}

#[test]
fn other_versions_are_refused_by_name() {
    let mut payload = encode(&small()).unwrap();
    payload[15] = 9;
    let error = decode(&payload, MAX_DECOMPRESSED).unwrap_err();
    assert!(matches!(error, DecodeError::Version { found: 9 }));
    assert!(error.to_string().contains("version 9") && error.to_string().contains("version 1"), "{error}");
    assert!(matches!(decode(&payload[1..], MAX_DECOMPRESSED), Err(DecodeError::NotABatch)));
    assert!(matches!(decode(b"", MAX_DECOMPRESSED), Err(DecodeError::NotABatch)));
}

/// Everything a reader can learn of a batch.
fn dump(batch: &Batch) -> String {
    let mut text = String::new();
    let boot: String = batch.boot_id().iter().map(|b| format!("{b:02x}")).collect();
    let head = (batch.node(), batch.sequence(), batch.time_ms(), batch.resolution_ms());
    let _ = writeln!(text, "{head:?} boot {boot} {:?} {:?}", batch.sampled_ms(), batch.sent_ms());
    for e in batch.entities() {
        let names = (e.namespace(), e.pod(), e.container(), e.name(), e.image());
        let _ = writeln!(text, "{:?} {names:?} {:?} {:?}", e.kind(), e.pod_uid(), e.container_id());
        let labels: Vec<_> = e.labels().collect();
        let flags = (e.is_host_network(), e.is_departed());
        let _ = writeln!(text, "  {:?} {:?} {labels:?} {:?} {flags:?}", e.start_ms(), e.qos(), e.window());
        for p in e.metrics() {
            let _ = writeln!(text, "  {} {:?} {:?}", p.metric.name, p.labels().first(), p.value);
        }
    }
    let _ = writeln!(text, "dropped {:?}", batch.dropped().collect::<Vec<_>>());
    text
}

/// One entity of each kind with every field, and every metric that the format began with
/// somewhere: those have one label at most.
fn complete() -> Batch {
    let mut batch = Assembler::new(proto::Batch {
        sequence: 42,
        sent_ms: 1_700_000_011_500,
        agent: "nodegauge 0.1.0".into(),
        host_boot_id: (16..32).collect(),
        ..head()
    });
    let window = batch.window(14_999_000_001);
    let kinds = [
        proto::EntityKind::Node,
        proto::EntityKind::System,
        proto::EntityKind::Pod,
        proto::EntityKind::Container,
    ];
    for (number, kind) in (1_u8..).zip(kinds) {
        let mut string = |what: &str| batch.string(&format!("{what}-{number}"));
        let (namespace, pod, container) = (string("namespace"), string("pod"), string("container"));
        let (name, image) = (string("name"), string("image"));
        let labels = vec![string("key"), string("value"), string("key2"), 0];
        let container_id_text = if number == 4 { 0 } else { string("id") };
        let device = string("/dev/sda");
        batch.entity(proto::Entity {
            kind: kind.into(),
            namespace,
            pod,
            container,
            name,
            image,
            pod_uid: vec![number; 16],
            static_pod: number == 3,
            container_id: if number == 4 { vec![0xc4; 32] } else { Vec::new() },
            container_id_text,
            start_ms: 1_699_999_000_000 + u64::from(number),
            qos: i32::from(number) - 1,
            labels,
            window,
            host_network: number == 3,
            departed: number == 4,
            // Agents send neither.
            node: 0,
            ended: false,
        });
        let first = METRICS.iter().filter(|m| matches!(m.label, None | Some(Label::Of(_))));
        for (value, metric) in (u64::from(number) * 1_000_003..).step_by(997).zip(first) {
            match (metric.label, metric.value_type) {
                (Some(_), _) => batch.labelled(metric.id, device, value),
                (None, ValueType::Double) if !metric.is_rate() => batch.double(metric.id, value as f64 / 3.0),
                (None, _) => batch.integer(metric.id, value * value),
            }
        }
    }
    batch.dropped(proto::DropReason::Labels, 7);
    batch.finish().unwrap()
}

/// A batch as version 1 wrote it when it was made. It is never written anew:
/// agents that wrote such batches are out there.
#[test]
fn batches_of_version_1_are_read() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let (stored, text) = (folder.join("batch-v1.bin"), folder.join("batch-v1.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() && !stored.exists() {
        std::fs::write(&stored, encode(&complete()).unwrap()).unwrap();
        std::fs::write(&text, dump(&complete())).unwrap();
    }
    let batch = decode(&std::fs::read(stored).unwrap(), MAX_DECOMPRESSED).unwrap();
    assert_eq!(dump(&batch), std::fs::read_to_string(text).unwrap());
    let carried: usize = batch.entities().map(|e| e.metrics().count()).sum();
    assert!(carried >= 4 * 80, "{carried} values");
}

/// Messages of a later format with the same version: what is there today, and more.
mod later {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Batch {
        #[prost(string, tag = "1")]
        pub(super) node: String,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) boot_id: Vec<u8>,
        #[prost(uint64, tag = "4")]
        pub(super) time_ms: u64,
        #[prost(uint64, tag = "5")]
        pub(super) resolution_ms: u64,
        #[prost(string, repeated, tag = "16")]
        pub(super) strings: Vec<String>,
        #[prost(message, repeated, tag = "17")]
        pub(super) entities: Vec<Entity>,
        #[prost(message, repeated, tag = "19")]
        pub(super) rows: Vec<super::proto::Rows>,
        #[prost(message, repeated, tag = "20")]
        pub(super) columns: Vec<Column>,
        #[prost(message, repeated, tag = "21")]
        pub(super) dropped: Vec<super::proto::Dropped>,
        #[prost(fixed32, tag = "40")]
        pub(super) flavour: u32,
        #[prost(message, optional, tag = "3000")]
        pub(super) extra: Option<Entity>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Entity {
        #[prost(int32, tag = "1")]
        pub(super) kind: i32,
        #[prost(uint32, tag = "3")]
        pub(super) pod: u32,
        #[prost(int32, tag = "12")]
        pub(super) qos: i32,
        #[prost(string, tag = "50")]
        pub(super) zone: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Column {
        #[prost(int32, tag = "1")]
        pub(super) metric: i32,
        #[prost(uint32, tag = "2")]
        pub(super) rows: u32,
        #[prost(uint64, repeated, tag = "3")]
        pub(super) integers: Vec<u64>,
        #[prost(sint64, repeated, tag = "5")]
        pub(super) signed: Vec<i64>,
    }
}

/// Any message as a batch of version 1.
fn framed(message: &impl Message) -> Vec<u8> {
    frame(&message.encode_to_vec())
}

fn frame(plain: &[u8]) -> Vec<u8> {
    let mut payload = encode(&small()).unwrap();
    payload.truncate(16);
    payload.extend(zstd::encode_all(plain, 1).unwrap());
    payload
}

#[test]
fn what_a_later_agent_adds_is_passed_over() {
    let entity = |kind: i32, pod: u32| later::Entity { kind, pod, qos: 9, zone: "eu".into() };
    let column =
        |metric: i32, signed: Vec<i64>| later::Column { metric, rows: 0, integers: vec![5, 6, 7], signed };
    let batch = later::Batch {
        node: "n1".into(),
        boot_id: vec![1; 16],
        time_ms: 30_000,
        resolution_ms: 15_000,
        strings: vec![String::new(), "a".into(), "b".into()],
        entities: vec![entity(3, 1), entity(77, 0), entity(3, 2)],
        rows: vec![proto::Rows { entities: vec![0, 1, 1], labels: Vec::new() }],
        columns: vec![
            column(MetricId::MemoryUsage.into(), vec![-1]),
            column(9_999, Vec::new()),
            later::Column { metric: 9_998, rows: 0, integers: Vec::new(), signed: vec![1] },
        ],
        dropped: vec![proto::Dropped { reason: 99, count: 4 }],
        flavour: 12,
        extra: Some(entity(1, 1)),
    };
    let read = decode(&framed(&batch), MAX_DECOMPRESSED).unwrap();
    let pods: Vec<_> = read.entities().map(|e| (e.pod().unwrap(), e.value("memory/usage"))).collect();
    assert_eq!(pods, [("a", Some(Value::Integer(5))), ("b", Some(Value::Integer(7)))]);
    assert!(read.entities().all(|e| e.qos().is_none() && e.metrics().count() == 1));
    assert_eq!(read.dropped().collect::<Vec<_>>(), [(proto::DropReason::Unspecified, 4)]);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let check = |break_it: &dyn Fn(&mut proto::Batch), expected: Malformed| {
        let mut message = complete().message().clone();
        break_it(&mut message);
        match decode(&framed(&message), MAX_DECOMPRESSED) {
            Err(DecodeError::Malformed(found)) => assert_eq!(found, expected),
            other => panic!("{expected}: {other:?}"),
        }
    };
    check(&|b| b.boot_id.truncate(15), Malformed::BootId);
    check(&|b| b.host_boot_id.truncate(1), Malformed::BootId);
    check(&|b| b.time_ms += 1, Malformed::Time);
    check(&|b| b.resolution_ms = 0, Malformed::Time);
    check(&|b| b.strings[0] = "x".into(), Malformed::FirstString);
    check(&|b| b.entities[1].image = 1_000, Malformed::String);
    check(&|b| b.entities[1].labels[0] = 1_000, Malformed::String);
    check(&|b| b.entities[1].labels.truncate(3), Malformed::Labels);
    check(&|b| b.entities[1].pod_uid.truncate(3), Malformed::Id);
    check(&|b| b.entities[3].container_id.push(1), Malformed::Id);
    check(&|b| b.entities[1].window = 2, Malformed::Window);
    check(&|b| b.windows_ns[0] = 0, Malformed::Window);
    check(&|b| b.rows[0].entities[1] = 9, Malformed::Entity);
    check(&|b| b.rows[0].entities[1] = u32::MAX, Malformed::Entity);
    check(&|b| b.rows[0].labels.push(0), Malformed::RowLabels);
    check(&|b| b.columns[0].rows = 99, Malformed::Rows);
    check(&|b| b.columns[0].integers.truncate(1), Malformed::Values);
    check(&|b| b.columns[0].integers.push(1), Malformed::Values);
    check(&|b| b.columns[1].metric = b.columns[0].metric, Malformed::Twice);
    let labelled = |b: &mut proto::Batch| b.rows.iter().position(|r| !r.labels.is_empty()).unwrap();
    check(
        &|b| {
            let at = labelled(b);
            b.rows[at].labels[0] = 1_000
        },
        Malformed::String,
    );
}

#[test]
fn bombs_are_refused() {
    let refused = |payload: &[u8], limit: usize| decode(payload, limit).unwrap_err();
    let zeros = frame(&vec![0; 64 << 20]);
    assert!(zeros.len() < 10_000);
    assert!(matches!(refused(&zeros, 1 << 20), DecodeError::TooLarge { limit } if limit == 1 << 20));
    // More frames than one do not get round it.
    let mut frames = frame(&[0; 1 << 16]);
    let again = frames[16..].to_vec();
    (0..100).for_each(|_| frames.extend_from_slice(&again));
    assert!(matches!(refused(&frames, 1 << 20), DecodeError::TooLarge { .. }));
    // Each of these is three bytes here and much more in memory.
    let empty = |field: u8, count: usize| frame(&[0x80 | field << 3 | 2, field >> 4, 0].repeat(count));
    for (field, count) in [(17, MAX_ENTITIES + 1), (19, 4_097), (20, 4_097), (21, 65), (16, MAX_STRINGS + 1)]
    {
        let error = refused(&empty(field, count), MAX_DECOMPRESSED);
        assert!(matches!(error, DecodeError::TooMany { .. }), "{field}: {error}");
    }
    assert!(matches!(refused(&frame(&[0x0a, 9]), MAX_DECOMPRESSED), DecodeError::Malformed(Malformed::Cut)));
    assert!(matches!(refused(&frame(&[0x0a, 1, 0xff]), MAX_DECOMPRESSED), DecodeError::Message(_)));
    // A window of 2 GiB.
    let mut window = encode(&small()).unwrap();
    window.truncate(16);
    window.extend_from_slice(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0]);
    assert!(matches!(refused(&window, MAX_DECOMPRESSED), DecodeError::Compression(_)));
    // Damage is noticed.
    let mut damaged = encode(&complete()).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x10;
    assert!(decode(&damaged, MAX_DECOMPRESSED).is_err());
    let cut = encode(&complete()).unwrap();
    for at in 0..cut.len() {
        assert!(decode(&cut[..at], MAX_DECOMPRESSED).is_err(), "cut at {at}");
    }
}

/// An entity as (kind, text, window, values as (row of the table, label, value)).
type Made = (i32, String, u64, Vec<(usize, String, u64)>);

fn made() -> impl Strategy<Value = Vec<Made>> {
    let value = (0..METRICS.len(), "[a-c]{0,2}", prop_oneof![0_u64..300, any::<u64>()]);
    let entity = (1..=4_i32, "\\PC{0,8}", 0_u64..4, prop::collection::vec(value, 0..20));
    prop::collection::vec(entity, 0..40)
}

fn assemble(entities: &[Made]) -> Batch {
    let mut batch = Assembler::new(head());
    for (kind, text, window, values) in entities {
        let (pod, labels) = (batch.string(text), vec![batch.string("k"), batch.string(text)]);
        let window = if *window > 0 { batch.window(*window) } else { 0 };
        batch.entity(proto::Entity { kind: *kind, pod, labels, window, ..Default::default() });
        for (metric, label, value) in values {
            let metric = &METRICS[*metric];
            let label = if metric.label.is_some() { batch.string(label) } else { 0 };
            if metric.value_type == ValueType::Double && !metric.is_rate() {
                batch.labelled_double(metric.id, label, f64::from_bits(*value));
            } else {
                batch.labelled(metric.id, label, *value);
            }
        }
    }
    batch.finish().unwrap()
}

proptest! {
    /// What goes in comes out: the same bytes of the same values, entity by entity.
    #[test]
    fn round_trip(entities in made()) {
        let batch = assemble(&entities);
        let read = decode(&encode(&batch).unwrap(), MAX_DECOMPRESSED).unwrap();
        prop_assert_eq!(read.message().encode_to_vec(), batch.message().encode_to_vec());
        prop_assert_eq!(read.entities().count(), entities.len());
        for (entity, (kind, text, window, values)) in read.entities().zip(&entities) {
            prop_assert_eq!(entity.kind() as i32 + 1, *kind);
            prop_assert_eq!(entity.pod().unwrap_or(""), text);
            let mut expected: Vec<(i32, &str, u64)> = Vec::new();
            for (metric, label, value) in values {
                let metric = &METRICS[*metric];
                // A rate needs a window.
                if !metric.is_rate() || *window > 0 {
                    let label = if metric.label.is_some() { label.as_str() } else { "" };
                    let window = nodegauge::rate::Window::from_ns(*window);
                    let seen = match (metric.is_rate(), metric.value_type) {
                        (false, _) => *value,
                        (true, ValueType::Integer) => window.unwrap().millicores(*value),
                        (true, ValueType::Double) => window.unwrap().per_second(*value).to_bits(),
                    };
                    expected.push((metric.id.into(), label, seen));
                }
            }
            expected.sort_by_key(|(metric, ..)| *metric);
            let seen: Vec<(i32, &str, u64)> = entity.metrics().map(|p| {
                let value = match p.value {
                    Value::Integer(value) => value,
                    Value::Double(value) => value.to_bits(),
                };
                (p.metric.id.into(), p.label.unwrap_or_default(), value)
            }).collect();
            prop_assert_eq!(seen, expected);
        }
    }

    /// No bytes make it panic, neither in place of a batch, nor of its message,
    /// nor a few of them within.
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
        let _ = decode(&bytes, 1 << 16);
        let _ = decode(&frame(&bytes), 1 << 16);
        let payload = encode(&complete()).unwrap();
        let mut outside = payload.clone();
        let mut inside = complete().message().encode_to_vec();
        for (at, byte) in &edits {
            let (outer, inner) = (at.index(outside.len()), at.index(inside.len()));
            outside[outer] = *byte;
            inside[inner] = *byte;
        }
        let _ = decode(&outside, 1 << 16);
        if let Ok(batch) = decode(&frame(&inside), 1 << 16) {
            let _ = dump(&batch);
        }
    }
}
