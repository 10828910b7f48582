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
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Body as _;
use nix::time::{ClockId, clock_gettime};
use nodegauge::expose::scrape::{Bodies, Sending, Text};
use nodegauge::expose::{Format, Options, Renderer, View};
use nodegauge::gzip::Gzip;
use nodegauge::snapshot::{Cgroup, Hierarchy, Kinds, KubeletLabels, Snapshot};
use nodegauge::telemetry::Telemetry;

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
        let kubelet = KubeletLabels::Base;
        row.cgroup = Arc::new(Cgroup { path, created, identity, labels, kubelet, ..Cgroup::default() });
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
    for (name, format, view, timestamps) in [
        ("prometheus", Format::Prometheus, View::All, false),
        ("prometheus with time stamps", Format::Prometheus, View::All, true),
        ("openmetrics", Format::OpenMetrics, View::All, false),
        ("as a kubelet", Format::Prometheus, View::Kubelet, false),
    ] {
        let kinds = if view == View::All { Kinds::DEFAULT } else { Kinds::DEFAULT.and(Kinds::KUBELET) };
        let mut renderer = Renderer::new(Options { format, view, kinds, timestamps });
        let mut text = Vec::new();
        render(&mut renderer, &snapshot, |chunk| text.extend_from_slice(chunk));
        let lines = text.split(|b| *b == b'\n').count() as u64;
        // A kubelet has fewer families.
        let expected = if view == View::All { 30_000..40_000 } else { 15_000..40_000 };
        assert!(expected.contains(&lines), "{lines} lines");
        println!(
            "{name}: {lines} lines, {} bytes; the budget is {:.2} ms",
            text.len(),
            lines as f64 / 20_000.0
        );
        group.throughput(Throughput::Elements(lines));
        group.bench_function(name, |bencher| {
            by_cpu(bencher, || {
                render(&mut renderer, &snapshot, |chunk| {
                    black_box(chunk);
                })
            });
        });
        if !timestamps && format == Format::Prometheus && view == View::All {
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

/// CPU time of the whole process: compression has a thread of its own.
fn cpu_of_all() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("every process has this clock").into()
}

/// Once for each snapshot, at most 32 ms of CPU and 55 bytes a sample for 30,000 lines;
/// whoever asks for the same snapshot next gets it within a millisecond.
fn compression(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let bodies = Bodies::new(false, Telemetry::new());
    let text = Text { openmetrics: false, view: View::All, kinds: Kinds::DEFAULT };
    let get =
        |snapshot: &Arc<Snapshot>| runtime.block_on(bodies.compressed(Arc::clone(snapshot), text)).unwrap();
    let node = node();
    let mut sequence = 0;
    let mut next = || {
        sequence += 1;
        Arc::new(Snapshot { sequence, ..node.clone() })
    };
    let mut plain = Vec::new();
    let options =
        Options { format: Format::Prometheus, view: View::All, kinds: Kinds::DEFAULT, timestamps: false };
    render(&mut Renderer::new(options), &node, |chunk| plain.extend_from_slice(chunk));
    let samples = plain.split(|b| *b == b'\n').filter(|l| !l.is_empty() && l[0] != b'#').count() as u64;
    let bytes = Sending::from(get(&next())).size_hint().exact().unwrap();
    let a_sample = bytes as f64 / samples as f64;
    println!("gzip: {bytes} bytes for {samples} samples, {a_sample:.1} bytes a sample");
    let mut group = criterion.benchmark_group("gzip");
    group.bench_function("of a new snapshot", |bencher| {
        bencher.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                let snapshot = next();
                let before = cpu_of_all();
                black_box(get(&snapshot));
                took += cpu_of_all() - before;
            }
            took
        });
    });
    // The same compression beside the library's own writer.
    let chunks = || plain.chunks(64 << 10);
    group.bench_function("of the text alone", |bencher| {
        bencher.iter(|| {
            let mut gzip = Gzip::new(Vec::with_capacity(4 << 20), Compression::new(2));
            chunks().for_each(|chunk| gzip.write_all(chunk).unwrap());
            black_box(gzip.finish().unwrap())
        });
    });
    group.bench_function("of the text alone, as flate2 does", |bencher| {
        bencher.iter(|| {
            let mut gzip = GzEncoder::new(Vec::with_capacity(4 << 20), Compression::new(2));
            chunks().for_each(|chunk| gzip.write_all(chunk).unwrap());
            black_box(gzip.finish().unwrap())
        });
    });
    let same = next();
    get(&same);
    group.bench_function("of one that somebody had", |bencher| bencher.iter(|| black_box(get(&same))));
    group.finish();
}

criterion_group!(all, benches, compression);
criterion_main!(all);
