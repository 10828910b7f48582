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
use nodegauge::push::batch::{metric, proto};
use tower::ServiceExt as _;

mod machines;
use machines::{Machine, START};

const MINUTE: u64 = 60_000;
const SLOTS: u64 = 16;

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let of = |at: usize, default: usize| numbers.get(at).copied().unwrap_or(default);
    let (nodes, pods, containers) = (of(0, 1_000), of(1, 30), of(2, 2));
    let mut machines: Vec<Machine> =
        (0..nodes).map(|name| Machine::new(name, pods, containers, MINUTE)).collect();
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
    let now = || START + SLOTS * MINUTE + 1_000;
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
