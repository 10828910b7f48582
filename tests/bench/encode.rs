//! A step of 500 containers with about 60 values each, as bodies for a database.
//!
//! The budget, compression excluded, is 5 ms for line protocol and 12 ms for
//! remote write. Decoding the batch comes first and is measured beside them.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot go on must stop")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use nodegauge::push::batch::{self, Assembler, Batch, Label, METRICS, MetricId, ValueType, proto};
use nodegauge::push::delivery::{MAX_BODY, Sink, Step};
use nodegauge::push::influxdb::Influxdb;
use nodegauge::push::remote_write::RemoteWrite;
use nodegauge::push::target::Target;

/// Containers with every metric that containers can have, disks twice.
fn node(containers: u32) -> Batch {
    let mut a = Assembler::new(proto::Batch {
        node: "ip-10-1-2-3.eu-central-1.compute.internal".to_owned(),
        boot_id: vec![7; 16],
        time_ms: 1_893_456_060_000,
        resolution_ms: 15_000,
        ..proto::Batch::default()
    });
    let window = a.window(15_000_000_000);
    for number in 0..containers {
        let mut string = |text: String| a.string(&text);
        let (namespace, container) =
            (string(format!("team-{}", number % 20)), string(format!("app-{number}")));
        let pod = string(format!("service-{number}-7d4b9c6f5d-x{number:04}"));
        let image = string(format!("registry.example.com/team-{}/service:v1.{number}.0", number % 20));
        let labels =
            ["app", "service", "pod-template-hash", "7d4b9c6f5d"].map(|t| string(t.to_owned())).to_vec();
        let disks = [string("/dev/nvme0n1".to_owned()), string("/dev/nvme1n1".to_owned())];
        let mut container_id = vec![9; 28];
        container_id.extend(number.to_be_bytes());
        a.entity(proto::Entity {
            kind: proto::EntityKind::Container.into(),
            namespace,
            pod,
            container,
            image,
            container_id,
            labels,
            window,
            start_ms: 1_893_400_000_000,
            ..proto::Entity::default()
        });
        let common = METRICS.iter().filter(|m| matches!(m.label, None | Some(Label::Of(_))));
        for (metric, at) in common.filter(|m| m.on.container).zip(1_u64..) {
            let value = u64::from(number) * 1_000_003 + at * 77_777_777;
            if metric.id == MetricId::CpuLoad {
                continue;
            }
            match (metric.label, metric.value_type) {
                (Some(_), _) => disks.iter().for_each(|disk| a.labelled(metric.id, *disk, value)),
                (None, ValueType::Double) if !metric.is_rate() => a.double(metric.id, 0.25),
                (None, _) => a.integer(metric.id, value),
            }
        }
    }
    a.finish().unwrap()
}

fn encode(sink: &mut dyn Sink, step: &Step, body: &mut Vec<u8>) -> usize {
    let (mut bytes, mut next) = (0, Some(0));
    while let Some(from) = next {
        body.clear();
        next = sink.encode(step, from, MAX_BODY, body).unwrap();
        bytes += black_box(&body).len();
    }
    bytes
}

fn benches(c: &mut Criterion) {
    let batch = node(500);
    let payload = batch::encode(&batch).unwrap();
    let values: usize = batch.entities().map(|e| e.metrics().count()).sum();
    let mut group = c.benchmark_group(format!("{values} values of 500 containers"));
    group.bench_function("decode the batch", |b| {
        b.iter(|| batch::decode(black_box(&payload), batch::MAX_DECOMPRESSED).unwrap());
    });
    let step = Step::new(1, batch.time_ms(), payload.into());
    step.batch().unwrap();
    let mut body = Vec::with_capacity(2 * MAX_BODY);
    for (name, uri) in
        [("line protocol", "influxdb:http://h"), ("with fields", "influxdb:http://h?withfields=true")]
    {
        let mut sink = Influxdb::new(&Target::parse(uri).unwrap()).unwrap();
        group.bench_function(name, |b| b.iter(|| encode(&mut sink, &step, &mut body)));
    }
    let mut sink = RemoteWrite::new(&Target::parse("remote-write:http://h/w").unwrap()).unwrap();
    group.bench_function("remote write", |b| b.iter(|| encode(&mut sink, &step, &mut body)));
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
