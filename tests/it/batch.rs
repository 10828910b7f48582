//! The batch format: what one side writes the other reads, whatever their age.

use nodegauge::push::batch::proto::{self, MetricId};
use nodegauge::push::batch::{
    Assembler, Batch, DecodeError, EntityKind, MAX_DECOMPRESSED, Value, decode, encode, stamp,
};

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
    assert_eq!((disk.label, disk.value), (Some(("resource_id", "/dev/sda")), Value::Integer(17)));
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
