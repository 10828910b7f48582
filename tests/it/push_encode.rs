//! What the sinks make of a batch, read back: lines and protobuf hold each value
//! of the batch once, under the right name.

use std::collections::BTreeMap;
use std::sync::Arc;

use nodegauge::push::batch::{self, Assembler, Batch, MetricId, Value, proto};
use nodegauge::push::delivery::desk::Desk;
use nodegauge::push::delivery::{Sink, Step};
use nodegauge::push::influxdb::Influxdb;
use nodegauge::push::remote_write::{RemoteWrite, STALE};
use nodegauge::push::target::Target;
use prost::Message as _;

#[allow(clippy::all, missing_docs, unreachable_pub, unused, missing_debug_implementations)]
pub(crate) mod prometheus {
    include!(concat!(env!("OUT_DIR"), "/tests/prometheus.rs"));
}

pub(crate) const TIME_MS: u64 = 1_893_456_060_000;

/// A node and `containers` containers with a few values each, one of which tells
/// containers and times apart.
pub(crate) fn step(sequence: u64, time_ms: u64, containers: std::ops::Range<u32>) -> Batch {
    let mut a = Assembler::new(proto::Batch {
        node: "n1".to_owned(),
        boot_id: vec![7; 16],
        sequence,
        time_ms,
        resolution_ms: 1000,
        sampled_ms: time_ms + 1,
        ..proto::Batch::default()
    });
    a.entity(proto::Entity { kind: proto::EntityKind::Node.into(), ..proto::Entity::default() });
    a.integer(MetricId::MemoryUsage, 1 << 40);
    a.double(MetricId::CpuNodeUtilization, 0.1313);
    let device = a.string("/dev/sda");
    a.labelled(MetricId::FilesystemUsage, device, 77);
    let window = a.window(1_000_000_000);
    for number in containers {
        let mut string = |text: &str| a.string(text);
        let (namespace, container, image) = (string("shop"), string("app"), string("r/app:0"));
        let (pod, key, value) = (string(&format!("web-{number}")), string("app"), string("we,b"));
        a.entity(proto::Entity {
            kind: proto::EntityKind::Container.into(),
            namespace,
            pod,
            container,
            image,
            container_id: vec![u8::try_from(number % 251).unwrap(); 32],
            start_ms: 1_893_456_000_000,
            labels: vec![key, value],
            window,
            ..proto::Entity::default()
        });
        a.integer(MetricId::CpuUsage, time_ms * 1000 + u64::from(number));
        a.integer(MetricId::CpuUsageRate, 250_000_000);
        a.integer(MetricId::MemoryPageFaults, u64::from(number));
        a.integer(MetricId::MemoryPageFaultsRate, 3);
    }
    a.finish().unwrap()
}

pub(crate) fn record(batch: &Batch) -> Step {
    let payload = batch::encode(batch).unwrap();
    Step::new(batch.sequence(), batch.time_ms(), payload.into())
}

/// All bodies of a step.
fn bodies(sink: &mut dyn Sink, step: &Step, limit: usize) -> Vec<Vec<u8>> {
    let (mut bodies, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let mut body = Vec::new();
        next = sink.encode(step, from, limit, &mut body).unwrap();
        bodies.push(body);
    }
    bodies
}

fn remote(body: &[u8]) -> Vec<prometheus::TimeSeries> {
    prometheus::WriteRequest::decode(body).unwrap().timeseries
}

fn labels(series: &prometheus::TimeSeries) -> BTreeMap<&str, &str> {
    series.labels.iter().map(|l| (l.name.as_str(), l.value.as_str())).collect()
}

#[test]
fn workers_at_the_same_step_decode_it_once() {
    let (first, second) = (step(1, TIME_MS, 0..3), step(2, TIME_MS + 60_000, 0..3));
    let desk = Arc::new(Desk::default());
    let taken = |batch: &Batch| record(batch).at(Arc::clone(&desk)).batch().unwrap();
    assert!(!Arc::ptr_eq(&taken(&first), &taken(&first)), "nobody is at work");
    let work = (desk.work(), desk.work());
    let one = taken(&first);
    assert!(Arc::ptr_eq(&one, &taken(&first)));
    let other = Arc::downgrade(&taken(&second));
    assert_eq!(other.upgrade().unwrap().time_ms(), TIME_MS + 60_000);
    assert!(!Arc::ptr_eq(&one, &taken(&first)), "one is kept, not two");
    assert!(other.upgrade().is_none());
    let kept = Arc::downgrade(&taken(&first));
    drop(work.0);
    assert!(kept.upgrade().is_some());
    drop(work.1);
    assert!(kept.upgrade().is_none(), "nobody needs it any more");
}

#[test]
fn every_value_is_in_one_line() {
    let batch = step(1, TIME_MS, 0..40);
    let values: usize = batch.entities().map(|e| e.metrics().count()).sum();
    for with_fields in [false, true] {
        let uri = format!("influxdb:http://h?withfields={with_fields}&label.rack=r%201");
        let mut sink = Influxdb::new(&Target::parse(&uri).unwrap()).unwrap();
        let bodies = bodies(&mut sink, &record(&batch), 2000);
        assert!(bodies.len() > 5 && bodies.iter().all(|b| b.len() <= 2000));
        let text = String::from_utf8(bodies.concat()).unwrap();
        assert_eq!(text.lines().count(), values);
        for entity in batch.entities() {
            let tag = entity.pod().map_or("type=node".to_owned(), |p| format!("pod_name={p},"));
            for point in entity.metrics() {
                let (family, field) = point.metric.name.split_once('/').unwrap();
                let (measurement, field) =
                    if with_fields { (family, field) } else { (point.metric.name, "value") };
                let value = match point.value {
                    Value::Integer(n) => format!("{n}i"),
                    Value::Double(n) => format!("{n}"),
                };
                let end = format!(" {field}={value} {TIME_MS}000000");
                let start = format!("{measurement},cluster_name=default,");
                let found = text
                    .lines()
                    .filter(|l| l.starts_with(&start) && l.ends_with(&end) && l.contains(&tag))
                    .count();
                assert_eq!(found, 1, "{start} {tag} {end}");
            }
        }
        assert_eq!(text.matches(",rack=r\\ 1,").count(), values);
        assert_eq!(text.matches(",labels=app:we\\,b,").count(), values - 3);
    }
}

#[test]
fn series_are_sorted_named_and_valued() {
    let batch = step(1, TIME_MS, 0..3);
    let uri = "remote-write:http://h/w?job=j&label.Zone=z&label.node=other&label.zz=1";
    let mut sink = RemoteWrite::new(&Target::parse(uri).unwrap()).unwrap();
    let series = remote(&bodies(&mut sink, &record(&batch), 1 << 20).concat());
    for one in &series {
        let names: Vec<_> = one.labels.iter().map(|l| l.name.as_str()).collect();
        assert!(names.is_sorted() && names.len() == labels(one).len(), "{names:?}");
        assert!(one.labels.iter().all(|l| !l.value.is_empty()));
        assert_eq!(one.samples.len(), 1);
        assert_eq!(one.samples[0].timestamp, TIME_MS.cast_signed());
        let labels = labels(one);
        assert_eq!((labels["job"], labels["instance"], labels["node"]), ("j", "n1", "n1"));
        assert_eq!((labels["Zone"], labels["zz"]), ("z", "1"));
    }
    let value = |name: &str, wanted: &[(&str, &str)]| {
        let mut found = series.iter().filter(|s| {
            let labels = labels(s);
            labels["__name__"] == name && wanted.iter().all(|(n, v)| labels.get(n) == Some(v))
        });
        let value = found.next().unwrap_or_else(|| panic!("{name}")).samples[0].value;
        assert!(found.next().is_none(), "{name} twice");
        value
    };
    assert_eq!(value("container_memory_usage_bytes", &[("id", "/")]), 1_099_511_627_776.0);
    assert_eq!(value("container_fs_usage_bytes", &[("id", "/"), ("device", "/dev/sda")]), 77.0);
    let pod = [("namespace", "shop"), ("pod", "web-2"), ("container", "app"), ("image", "r/app:0")];
    assert_eq!(value("container_start_time_seconds", &pod), 1_893_456_000.0);
    let with = |more: &[(&'static str, &'static str)]| [pod.as_slice(), more].concat();
    #[allow(clippy::cast_precision_loss)]
    let seconds = (TIME_MS * 1000 + 2) as f64 / 1e9;
    assert_eq!(value("container_cpu_usage_seconds_total", &with(&[("cpu", "total")])), seconds);
    let faults = [("failure_type", "pgfault"), ("scope", "hierarchy"), ("id", &*"02".repeat(32).leak())];
    assert_eq!(value("container_memory_failures_total", &with(&faults)), 2.0);
    assert_eq!(series.len(), 2 + 3 * 3, "rates and ratios have no series");
}

#[test]
fn what_is_gone_becomes_stale_and_only_that() {
    let mut sink = RemoteWrite::new(&Target::parse("remote-write:http://h/w").unwrap()).unwrap();
    let stale = |bodies: &[Vec<u8>]| -> Vec<(String, i64)> {
        let mut found = Vec::new();
        for series in remote(&bodies.concat()) {
            for sample in &series.samples {
                if sample.value.to_bits() == STALE {
                    found.push((labels(&series)["pod"].to_owned(), sample.timestamp));
                }
            }
        }
        found.sort();
        found.dedup();
        found
    };
    let first = record(&step(1, TIME_MS, 0..6));
    assert_eq!(stale(&bodies(&mut sink, &first, 1000)), []);
    let later = TIME_MS + 1000;
    let second = record(&step(2, later, 2..6));
    let gone = [("web-0".to_owned(), later.cast_signed()), ("web-1".to_owned(), later.cast_signed())];
    let sent = bodies(&mut sink, &second, 1000);
    assert_eq!(stale(&sent), gone);
    assert_eq!(bodies(&mut sink, &second, 1000), sent, "sent again it is the same bytes");
    let third = record(&step(3, later + 1000, 2..6));
    assert_eq!(stale(&bodies(&mut sink, &third, 1000)), []);

    let mut restarted = RemoteWrite::new(&Target::parse("remote-write:http://h/w").unwrap()).unwrap();
    assert_eq!(stale(&bodies(&mut restarted, &second, 1000)), [], "nobody knows what was there");
    let mut restarted = RemoteWrite::new(&Target::parse("remote-write:http://h/w").unwrap()).unwrap();
    restarted.remember(&first);
    assert_eq!(bodies(&mut restarted, &second, 1000), sent, "a step left by a kill is the same bytes");
}

#[test]
fn the_departed_have_their_last_value_and_the_marker() {
    let mut a = Assembler::new(proto::Batch {
        node: "n1".to_owned(),
        boot_id: vec![7; 16],
        time_ms: TIME_MS,
        resolution_ms: 1000,
        ..proto::Batch::default()
    });
    let pod = a.string("web-0");
    a.entity(proto::Entity {
        kind: proto::EntityKind::Pod.into(),
        pod,
        departed: true,
        ..proto::Entity::default()
    });
    a.integer(MetricId::MemoryUsage, 9);
    let batch = a.finish().unwrap();
    let mut sink = RemoteWrite::new(&Target::parse("remote-write:http://h/w").unwrap()).unwrap();
    let series = remote(&bodies(&mut sink, &record(&batch), 1 << 20).concat());
    let [one] = series.as_slice() else { panic!("{series:?}") };
    let samples: Vec<_> = one.samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect();
    let time = TIME_MS.cast_signed();
    assert_eq!(samples, [(time, 9.0_f64.to_bits()), (time + 1, STALE)]);
}

#[test]
fn bodies_keep_to_the_limit_but_for_one_large_entity() {
    let batch = step(1, TIME_MS, 0..100);
    let mut sink = RemoteWrite::new(&Target::parse("remote-write:http://h/w").unwrap()).unwrap();
    let all = bodies(&mut sink, &record(&batch), usize::MAX);
    assert_eq!(all.len(), 1);
    for limit in [1, 1000, 5000] {
        let mut sink = RemoteWrite::new(&Target::parse("remote-write:http://h/w").unwrap()).unwrap();
        let parts = bodies(&mut sink, &record(&batch), limit);
        assert_eq!(remote(&parts.concat()), remote(&all[0]), "{limit}");
        assert!(limit == 1 || parts.iter().all(|b| b.len() <= limit), "{limit}");
        assert!(parts.len() > 1);
    }
}
