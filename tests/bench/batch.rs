//! One push step: how fast it is made, encoded and read, and how many bytes each
//! value takes, beside JSON and remote write 1.0 of the same step.
//!
//! Budgets: 0.5 ms of CPU to encode 500 containers × 60 values, compression
//! excluded; 7 bytes per value at 60 containers, compressed. Figures are those
//! of a busy node: counters far up, half of them still rising, gauges that have
//! nothing to do with each other. What is timed is CPU, since other load on the
//! machine matters less then.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a test that cannot go on must stop, and a bench reports by printing"
)]

#[path = "../data/mod.rs"]
mod data;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use nix::time::{ClockId, clock_gettime};
use nodegauge::identity::Directory;
use nodegauge::identity::model::{
    ContainerInfo, Labels, Names, PodContainer, PodInfo, PodRef, Resources, Role,
};
use nodegauge::identity::path::PodUid;
use nodegauge::push::batch::{Batch, Encoder, EntityKind, MAX_DECOMPRESSED, Value, decode};
use nodegauge::push::step::{Limits, Options, StepBuilder};
use nodegauge::snapshot::{
    CgroupSample, Hierarchy, Identity, Interface, InterfaceName, Origin, Reading, Snapshot, Traffic, reading,
};

use prost::Message;

/// Numbers nobody can compress: splitmix64.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// `containers` containers, two to a pod, each pod with a sandbox.
struct Node {
    uids: Vec<PodUid>,
    rows: Vec<CgroupSample>,
    directory: Directory,
    random: Random,
}

impl Node {
    fn new(containers: usize) -> Node {
        let mut random = Random(7);
        let mut hex = |digits: usize| -> String {
            let text = format!(
                "{:016x}{:016x}{:016x}{:016x}",
                random.next(),
                random.next(),
                random.next(),
                random.next()
            );
            text[..digits].to_owned()
        };
        let (mut uids, mut rows, mut infos, mut pods) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut names = Names::default();
        let mut row = |path: &str| {
            rows.push(data::row(
                Hierarchy::V2,
                data::cgroup(path, Identity::default()),
                &mut data::Numbers::from(1),
            ))
        };
        row("/");
        [
            "/kubepods.slice",
            "/system.slice",
            "/system.slice/kubelet.service",
            "/system.slice/containerd.service",
        ]
        .into_iter()
        .for_each(&mut row);
        for number in 0..containers.div_ceil(2) {
            let text = format!("{}-{}-{}-{}-{}", hex(8), hex(4), hex(4), hex(4), hex(12));
            let uid = PodUid::parse(&text).unwrap();
            let slice = format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
                text.replace('-', "_")
            );
            let (namespace, app) = (format!("team-{}", number % 20), format!("service-{}", number % 90));
            let pod_name = format!("{app}-{}-{}", hex(9), hex(5));
            row(&slice);
            let labels = [
                ("app.kubernetes.io/name", app.as_str()),
                ("app.kubernetes.io/instance", app.as_str()),
                ("app.kubernetes.io/managed-by", "Helm"),
                ("pod-template-hash", &pod_name[pod_name.len() - 15..pod_name.len() - 6]),
            ];
            let mut pod = PodInfo::new(uid, namespace.as_str().into(), pod_name.as_str().into());
            pod.labels = Labels::new(labels, &mut names);
            for (which, name) in ["", "main", "sidecar"].into_iter().enumerate() {
                if which == 2 && number * 2 + 1 >= containers {
                    continue;
                }
                let id = hex(64);
                row(&format!("{slice}/cri-containerd-{id}.scope"));
                let image = format!("registry.example.com/{namespace}/{app}:v1.{}.0", number % 9);
                if which > 0 {
                    let asks = Resources {
                        cpu_milli: Some(100),
                        memory_bytes: Some(128 << 20),
                        ..Resources::default()
                    };
                    pod.containers.push(PodContainer {
                        id: Some(id.as_str().into()),
                        requests: asks,
                        limits: asks,
                        restart_count: Some(0),
                        ..PodContainer::new(name.into(), Some(Role::App))
                    });
                }
                infos.push(ContainerInfo {
                    image: Some(image.into()),
                    pod: Some(PodRef {
                        uid: Some(uid),
                        namespace: pod.namespace.clone(),
                        name: pod.name.clone(),
                    }),
                    container: (which > 0).then(|| name.into()),
                    is_sandbox: which == 0,
                    started_ns: Some(1_699_000_000_000_000_000 + number as u64 * 1_000_003_000_000),
                    ..ContainerInfo::new(id.into())
                });
            }
            uids.push(uid);
            pods.push(pod);
        }
        rows.sort_by(|a, b| a.cgroup.path.cmp(&b.cgroup.path));
        Node { uids, rows, directory: Directory::of(infos, pods), random: Random(11) }
    }

    /// The next tick, `seconds` in: every counter goes on from where it was.
    fn tick(&mut self, zero: Instant, seconds: u64) -> Snapshot {
        let Node { rows, random, .. } = self;
        for row in rows.iter_mut() {
            let first = seconds == 0;
            let sandbox = !row.network.is_empty() && row.cgroup.path.ends_with(".scope");
            // Half of all containers do nothing to speak of.
            let busy = row.cgroup.path.len().is_multiple_of(2) || random.below(2) == 0;
            let mut count = |figure: &mut Reading, most: u64, rise: u64| {
                let now = if first { random.below(most) } else { figure.map_or(0, u64::from) };
                *figure = reading(now + if busy { random.below(rise) } else { 0 });
            };
            row.leaf = row.cgroup.path.ends_with(".scope");
            let cpu = &mut row.cpu;
            count(&mut cpu.usage_ns, 1 << 45, 3_000_000_000);
            let used = cpu.usage_ns.map_or(0, u64::from);
            (cpu.user_ns, cpu.system_ns) = (reading(used / 10 * 7), reading(used - used / 10 * 7));
            count(&mut cpu.periods, 1 << 24, 150);
            count(&mut cpu.throttled_periods, 1 << 14, 10);
            count(&mut cpu.throttled_ns, 1 << 40, 500_000_000);
            let memory = &mut row.memory;
            for gauge in [
                &mut memory.usage,
                &mut memory.working_set,
                &mut memory.rss,
                &mut memory.cache,
                &mut memory.peak,
                &mut memory.mapped_file,
                &mut memory.kernel,
            ] {
                *gauge = reading((random.below(1 << 30) >> random.below(8)) & !4095);
            }
            let mut count = |figure: &mut Reading, most: u64, rise: u64| {
                let now = if first { random.below(most) } else { figure.map_or(0, u64::from) };
                *figure = reading(now + if busy { random.below(rise) } else { 0 });
            };
            count(&mut memory.pgfault, 1 << 32, 20_000);
            count(&mut memory.pgmajfault, 1 << 12, 2);
            for zero in [&mut memory.swap, &mut memory.failcnt, &mut memory.events_oom, &mut memory.oom_kills]
            {
                *zero = reading(0);
            }
            let pressure = &mut row.pressure;
            for file in [&mut pressure.cpu, &mut pressure.memory, &mut pressure.io] {
                count(&mut file.some_usec, 1 << 34, 400_000);
                count(&mut file.full_usec, 1 << 33, 200_000);
            }
            for device in &mut row.io {
                count(&mut device.bytes.read, 1 << 34, 1 << 20);
                count(&mut device.bytes.write, 1 << 36, 1 << 22);
                count(&mut device.ios.read, 1 << 22, 200);
                count(&mut device.ios.write, 1 << 24, 900);
            }
            row.process.processes = reading(1 + random.below(4));
            row.process.threads = reading(1 + random.below(60));
            let carries = first || sandbox || row.cgroup.path == "/";
            if carries && let Some(name) = InterfaceName::new(b"eth0") {
                let before = row.network.first().map(|i| i.receive.bytes).unwrap_or_default();
                let bytes = if first { random.below(1 << 38) } else { before + random.below(1 << 24) };
                let traffic =
                    |bytes: u64| Traffic { bytes, packets: bytes / 900, errors: 0, dropped: bytes >> 30 };
                row.network = vec![Interface { name, receive: traffic(bytes), transmit: traffic(bytes / 3) }];
            }
        }
        // Only sandboxes and the node have interfaces.
        for row in rows.iter_mut().filter(|r| r.cgroup.path != "/") {
            let id =
                row.cgroup.path.rsplit_once("cri-containerd-").and_then(|(_, id)| id.strip_suffix(".scope"));
            let sandbox = id.and_then(|id| self.directory.container(id)).is_some_and(|c| c.is_sandbox);
            if !sandbox {
                row.network.clear();
            }
        }
        Snapshot {
            origin: Origin::Grid,
            wall_ms: 1_700_000_010_007 + seconds * 1000,
            monotonic: zero + Duration::from_secs(seconds) + Duration::from_nanos(123_456 * seconds),
            cgroups: rows.clone(),
            ..data::snapshot(Hierarchy::V2, 1)
        }
    }
}

fn builder() -> StepBuilder {
    StepBuilder::new(Options {
        node: "node-17.eu-west-1.compute.internal".into(),
        boot_id: nodegauge::push::batch::boot_id(),
        interval: Duration::from_secs(15),
        resolution: Duration::from_secs(15),
        limits: Limits::default(),
    })
}

/// The second step of a node, which has rates.
fn step(containers: usize) -> Batch {
    let (mut node, mut builder, zero) = (Node::new(containers), builder(), Instant::now());
    builder.tick(&node.tick(zero, 0), [], &node.directory).unwrap().unwrap();
    let snapshot = node.tick(zero, 15);
    let batch = builder.tick(&snapshot, [], &node.directory).unwrap().unwrap().batch;
    let pods = batch.entities().filter(|e| e.kind() == EntityKind::Pod).count();
    assert_eq!(pods, node.uids.len());
    assert_eq!(batch.entities().count(), containers + pods + 5);
    batch
}

fn labels(batch: &Batch) -> Vec<BTreeMap<&'static str, String>> {
    let told = |name: &'static str, text: Option<&str>| text.map(|t| (name, t.to_owned()));
    let of = |e: nodegauge::push::batch::Entity<'_>| {
        let labels = [
            told("namespace", e.namespace()),
            told("pod", e.pod()),
            told("container", e.container()),
            told("image", e.image()),
            told("id", e.container_id().as_deref()),
            told("uid", e.pod_uid().map(|u| u.to_string()).as_deref()),
        ];
        labels.into_iter().flatten().chain([("node", batch.node().to_owned())]).collect()
    };
    batch.entities().map(of).collect()
}

/// One object per entity.
fn json(batch: &Batch) -> Vec<u8> {
    let entities: Vec<serde_json::Value> = batch
        .entities()
        .zip(labels(batch))
        .map(|(entity, labels)| {
            let metrics: serde_json::Map<String, serde_json::Value> = entity
                .metrics()
                .map(|p| {
                    let value = match p.value {
                        Value::Integer(value) => value.into(),
                        Value::Double(value) => value.into(),
                    };
                    (p.label.map_or(p.metric.name.to_owned(), |l| format!("{} {l}", p.metric.name)), value)
                })
                .collect();
            serde_json::json!({
                "labels": labels,
                "pod_labels": entity.labels().collect::<BTreeMap<_, _>>(),
                "metrics": metrics,
            })
        })
        .collect();
    serde_json::to_vec(&serde_json::json!({ "time_ms": batch.time_ms(), "entities": entities })).unwrap()
}

/// The messages of Prometheus' remote write 1.0, as far as needed to count bytes.
mod remote_write {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Request {
        #[prost(message, repeated, tag = "1")]
        pub(super) series: Vec<Series>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Series {
        #[prost(message, repeated, tag = "1")]
        pub(super) labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub(super) samples: Vec<Sample>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Label {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Sample {
        #[prost(double, tag = "1")]
        pub(super) value: f64,
        #[prost(int64, tag = "2")]
        pub(super) time_ms: i64,
    }
}

/// Every value as a series of its own.
fn remote_write(batch: &Batch) -> Vec<u8> {
    use remote_write::{Label, Request, Sample, Series};
    let label = |name: &str, value: &str| Label { name: name.into(), value: value.into() };
    let mut request = Request::default();
    for (entity, labels) in batch.entities().zip(labels(batch)) {
        for point in entity.metrics() {
            let called = point.metric.prometheus.map_or(point.metric.name, |p| p.name);
            let mut series = vec![label("__name__", called)];
            series.extend(point.labels().into_iter().map(|(name, value)| label(name, value)));
            series.extend(labels.iter().map(|(name, value)| label(name, value)));
            let value = match point.value {
                Value::Integer(value) => value as f64,
                Value::Double(value) => value,
            };
            let time_ms = i64::try_from(batch.time_ms()).unwrap();
            request.series.push(Series { labels: series, samples: vec![Sample { value, time_ms }] });
        }
    }
    request.encode_to_vec()
}

fn sizes(containers: usize) {
    let batch = step(containers);
    let values = batch.entities().map(|e| e.metrics().count()).sum::<usize>();
    assert_eq!(values, batch.values());
    let in_containers: usize =
        batch.entities().filter(|e| e.kind() == EntityKind::Container).map(|e| e.metrics().count()).sum();
    let mut encoder = Encoder::new().unwrap();
    let plain = encoder.plain(&batch).len();
    let encoded = encoder.encode(&batch).unwrap().len();
    let (json, remote_write) = (json(&batch), remote_write(&batch));
    let snappy = snap::raw::Encoder::new().compress_vec(&remote_write).unwrap().len();
    let zipped = zstd::bulk::compress(&json, 1).unwrap().len();
    let per = |bytes: usize| bytes as f64 / values as f64;
    println!(
        "{containers} containers, {values} values, {:.1} per container: batch {encoded} B, {:.2} B per value \
         ({:.2} before zstd); JSON {:.1}, with zstd {:.2}; remote write {:.0}, with snappy {:.1}",
        in_containers as f64 / containers as f64,
        per(encoded),
        per(plain),
        per(json.len()),
        per(zipped),
        per(remote_write.len()),
        per(snappy),
    );
    if containers == 60 {
        assert!(per(encoded) <= 7.0, "over budget");
    }
}

/// CPU time of this thread.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has this clock").into()
}

fn by_cpu(bencher: &mut Bencher<'_>, mut work: impl FnMut()) {
    bencher.iter_custom(|times| {
        let before = cpu();
        for _ in 0..times {
            work();
        }
        cpu() - before
    });
}

fn benches(criterion: &mut Criterion) {
    [10, 60, 500].into_iter().for_each(sizes);
    let batch = step(500);
    let values = batch.values() as u64;
    let mut encoder = Encoder::new().unwrap();
    let mut group = criterion.benchmark_group("batch");
    group.throughput(Throughput::Elements(values));
    group.bench_function("encode, not compressed", |bencher| {
        by_cpu(bencher, || {
            black_box(encoder.plain(black_box(&batch)).len());
        });
    });
    group.bench_function("the same by prost", |bencher| {
        let mut out = Vec::new();
        by_cpu(bencher, || {
            out.clear();
            batch.message().encode(&mut out).unwrap();
            black_box(out.len());
        });
    });
    group.bench_function("encode and compress", |bencher| {
        by_cpu(bencher, || {
            black_box(encoder.encode(black_box(&batch)).unwrap().len());
        });
    });
    let payload = encoder.encode(&batch).unwrap();
    group.bench_function("decode", |bencher| {
        by_cpu(bencher, || {
            black_box(decode(black_box(&payload), MAX_DECOMPRESSED).unwrap());
        });
    });
    group.bench_function("decode and read every value", |bencher| {
        by_cpu(bencher, || {
            let batch = decode(black_box(&payload), MAX_DECOMPRESSED).unwrap();
            let points = batch.entities().flat_map(|e| e.metrics());
            black_box(points.fold(0_u64, |sum, point| match point.value {
                Value::Integer(value) => sum.wrapping_add(value),
                Value::Double(value) => sum.wrapping_add(value.to_bits()),
            }));
        });
    });
    let (mut node, zero) = (Node::new(500), Instant::now());
    let ticks: Vec<Snapshot> = (0..20).map(|n| node.tick(zero, n * 15)).collect();
    group.bench_function("make from a snapshot", |bencher| {
        let (mut builder, mut at) = (builder(), 0);
        bencher.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                if at % ticks.len() == 0 {
                    (builder, at) = (self::builder(), 0);
                    builder.tick(&ticks[0], [], &node.directory).unwrap();
                    at = 1;
                }
                let before = cpu();
                black_box(builder.tick(&ticks[at], [], &node.directory).unwrap().unwrap());
                spent += cpu() - before;
                at += 1;
            }
            spent
        });
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
