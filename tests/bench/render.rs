//! A scrape of 500 cgroups with about 60 samples each, in Kubernetes' label set.
//!
//! The budget is 1.5 ms of CPU for 30,000 lines, so CPU is what is measured, and
//! other load on the machine matters less. `floor` beside it copies the finished
//! text in chunks, which no writer can beat: on a slower machine, compare with it.
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

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use nix::time::{ClockId, clock_gettime};
use nodegauge::expose::{Format, Options, Renderer, View};
use nodegauge::snapshot::{Cgroup, Hierarchy, Kinds, Snapshot};

/// Containers on cgroup v2 with a quota and one disk; every third has the pod's
/// network.
fn node() -> Snapshot {
    let mut snapshot = data::snapshot(Hierarchy::V2, 500);
    for (i, row) in snapshot.cgroups.iter_mut().enumerate().skip(1) {
        let Cgroup { path, created, identity, .. } = (*row.cgroup).clone();
        let labels = format!(
            "container=\"app-{i}\",id=\"{path}\",image=\"registry.example.com/team-{}/service:v1.{i}.0\",\
             name=\"\",namespace=\"team-{}\",pod=\"service-{i}-7d4b9c6f5d-x{i:04}\"",
            i % 20,
            i % 20,
        );
        row.cgroup = Arc::new(Cgroup { path, created, identity, labels, ..Cgroup::default() });
        let device = &mut row.io[0];
        device.cost_usage_usec = None;
        device.cost_wait_usec = None;
        device.cost_indebt_usec = None;
        device.cost_indelay_usec = None;
        if i % 3 != 0 {
            row.network.clear();
        }
    }
    snapshot
}

fn render(renderer: &mut Renderer, snapshot: &Snapshot, mut sink: impl FnMut(&[u8])) {
    let Ok(()) = renderer.render(snapshot, |chunk| {
        sink(chunk);
        Ok::<(), Infallible>(())
    });
}

/// CPU time of this thread. `getrusage` would only tell it as of the last tick.
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
    let snapshot = node();
    let mut group = criterion.benchmark_group("render");
    for (name, format, timestamps) in [
        ("prometheus", Format::Prometheus, false),
        ("prometheus with time stamps", Format::Prometheus, true),
        ("openmetrics", Format::OpenMetrics, false),
    ] {
        let mut renderer =
            Renderer::new(Options { format, view: View::All, kinds: Kinds::DEFAULT, timestamps });
        let mut text = Vec::new();
        render(&mut renderer, &snapshot, |chunk| text.extend_from_slice(chunk));
        let lines = text.split(|b| *b == b'\n').count() as u64;
        assert!((25_000..35_000).contains(&lines), "{lines} lines");
        println!("{name}: {lines} lines, {} bytes", text.len());
        group.throughput(Throughput::Elements(lines));
        group.bench_function(name, |bencher| {
            by_cpu(bencher, || {
                render(&mut renderer, &snapshot, |chunk| {
                    black_box(chunk);
                })
            });
        });
        if !timestamps && format == Format::Prometheus {
            let mut buffer = vec![0; 64 * 1024];
            group.bench_function("floor", |bencher| {
                by_cpu(bencher, || {
                    for chunk in text.chunks(buffer.len()) {
                        if let Some(space) = buffer.get_mut(..chunk.len()) {
                            space.copy_from_slice(chunk);
                        }
                        black_box(&mut buffer);
                    }
                });
            });
        }
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
