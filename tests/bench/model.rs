//! The model at the size of a cluster: memory, values a second, and how long
//! questions take meanwhile.
//!
//! A program of its own rather than criterion, because it measures one long run:
//! `cargo bench --bench model -- [NODES] [PODS] [CONTAINERS]`. Pushes are decoded
//! beforehand, so that the model alone is measured; figures change as a node's do.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;

use nodegauge::aggregate::model::{Model, Options, Subject};
use nodegauge::push::batch::proto::{self};
use nodegauge::push::batch::{Assembler, Batch, Kinds, METRICS, Metric, ValueType, metric};
use tower::ServiceExt as _;

const MINUTE: u64 = 60_000;
const SLOTS: u64 = 16;

/// A node's figures: counters that rise, gauges that move a little, and much that
/// stays as it is.
struct Machine {
    name: usize,
    pods: usize,
    containers: usize,
    state: u64,
}

impl Machine {
    fn random(&mut self) -> u64 {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.state >> 33
    }

    fn push(&mut self, slot: u64) -> Batch {
        let mut batch = Assembler::new(proto::Batch {
            node: format!("node-{}", self.name),
            boot_id: vec![1; 16],
            sequence: slot,
            time_ms: 1_700_000_040_000 / MINUTE * MINUTE + slot * MINUTE,
            resolution_ms: MINUTE,
            ..proto::Batch::default()
        });
        let window = batch.window(60_000_000_000 + self.random() % 1_000_000);
        let on = |m: &Metric, pick: fn(Kinds) -> bool| pick(m.on);
        batch.entity(proto::Entity { kind: proto::EntityKind::Node.into(), window, ..Default::default() });
        self.values(&mut batch, slot, 0, |m| on(m, |k| k.node));
        for pod in 0..self.pods {
            let namespace = batch.string(&format!("namespace-{}", pod % 10));
            let name = batch.string(&format!("deployment-{pod}-{:09x}-{:05x}", self.name, pod));
            let labels = ["app", "tier", "pod-template-hash"].map(|key| batch.string(key));
            let value = batch.string("some-label-value");
            let labels = labels.into_iter().flat_map(|key| [key, value]).collect();
            let of_pod = proto::Entity {
                namespace,
                pod: name,
                window,
                pod_uid: (self.name as u128 * 1000 + pod as u128).to_be_bytes().into(),
                ..Default::default()
            };
            batch.entity(proto::Entity { kind: proto::EntityKind::Pod.into(), labels, ..of_pod.clone() });
            self.values(&mut batch, slot, pod, |m| on(m, |k| k.pod));
            for container in 0..self.containers {
                let container = batch.string(&format!("container-{container}"));
                batch.entity(proto::Entity {
                    kind: proto::EntityKind::Container.into(),
                    container,
                    ..of_pod.clone()
                });
                self.values(&mut batch, slot, pod, |m| on(m, |k| k.container));
            }
        }
        batch.finish().unwrap()
    }

    fn values(&mut self, batch: &mut Assembler, slot: u64, pod: usize, has: impl Fn(&Metric) -> bool) {
        let busy = !pod.is_multiple_of(3);
        for (at, metric) in METRICS.iter().enumerate().filter(|(_, m)| has(m) && m.label.is_none()) {
            if metric.value_type == ValueType::Double && !metric.is_rate() {
                batch.double(metric.id, 4_000.0);
                continue;
            }
            let base = (at as u64 + 1) * 1_000_003 + pod as u64 * 77_777;
            let value = match (metric.is_rate(), at % 4) {
                // A third of the counters stand still, as those of errors do.
                (true, 0) | (false, 0) => 0,
                (true, _) if busy => self.random() % 3_000_000,
                (true, _) => 0,
                (false, 1) => base + slot * 3_000_000 * u64::from(busy) + self.random() % 1_000,
                (false, _) => base + self.random() % 40 * 4_096 * u64::from(busy),
            };
            batch.integer(metric.id, value);
        }
    }
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let of = |at: usize, default: usize| numbers.get(at).copied().unwrap_or(default);
    let (nodes, pods, containers) = (of(0, 1_000), of(1, 30), of(2, 2));
    let mut machines: Vec<Machine> =
        (0..nodes).map(|name| Machine { name, pods, containers, state: name as u64 * 77 + 1 }).collect();
    let model = Model::new(Options::default());
    let before = resident();
    let (mut values, mut taking, mut closing) = (0_u64, Duration::ZERO, Duration::ZERO);
    for slot in 1..=SLOTS {
        let mut now = 0;
        for machine in &mut machines {
            let batch = machine.push(slot);
            now = batch.time_ms() + 100;
            values += batch.values() as u64;
            let began = Instant::now();
            model.ingest(&batch, now);
            taking += began.elapsed();
        }
        let began = Instant::now();
        model.tick(now);
        closing += began.elapsed();
    }
    let used = resident() - before;
    let all_pods = nodes * pods;
    println!("{nodes} nodes x {pods} pods x {containers} containers, {SLOTS} slots, {values} values");
    println!("ingest    {:.2} M values/s", values as f64 / taking.as_secs_f64() / 1e6);
    println!("close     {:.1} ms a slot", closing.as_secs_f64() * 1e3 / SLOTS as f64);
    println!(
        "memory    {:.0} MiB, {:.2} kB a pod",
        used as f64 / (1 << 20) as f64,
        used as f64 / all_pods as f64 / 1e3
    );
    let memory = metric(proto::MetricId::MemoryUsage as i32).unwrap();
    let rate = metric(proto::MetricId::CpuUsageRate as i32).unwrap();
    let names = model.pods("namespace-3");
    let began = Instant::now();
    let mut found = 0;
    for pod in names.iter().take(500) {
        found += model.series(&Subject::Pod("namespace-3".into(), pod.clone()), memory, "").len();
    }
    println!(
        "pod-list  {:.2} ms for {} pods, {found} points",
        began.elapsed().as_secs_f64() * 1e3,
        names.len().min(500)
    );
    let began = Instant::now();
    let points = model.series(&Subject::Cluster, rate, "").len();
    println!("cluster   {:.3} ms, {points} points", began.elapsed().as_secs_f64() * 1e3);
    let model = Arc::new(model);
    let now = || (1_700_000_040_000 / MINUTE + SLOTS) * MINUTE + 1_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for path in [
        "/apis/metrics.k8s.io/v1beta1/pods",
        "/apis/metrics.k8s.io/v1beta1/namespaces/namespace-3/pods",
        "/api/v1/metric-export",
    ] {
        let router = nodegauge::api::router(&model, now);
        let began = Instant::now();
        let bytes = runtime.block_on(async {
            let request = axum::http::Request::get(path).body(axum::body::Body::empty()).unwrap();
            let mut body = router.oneshot(request).await.unwrap().into_body();
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                bytes += frame.unwrap().data_ref().map_or(0, |data| data.len());
            }
            bytes
        });
        println!("{path}: {:.1} ms, {:.1} MB", began.elapsed().as_secs_f64() * 1e3, bytes as f64 / 1e6);
    }
}
