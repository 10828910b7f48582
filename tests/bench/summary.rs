//! A kubelet's summary of 500 containers in 250 pods. The budget is 5 ms.
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

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use nodegauge::expose::summary::{self, Extent, Surroundings};
use nodegauge::expose::{Format, resource};
use nodegauge::snapshot::{Cgroup, Hierarchy, Identity, Part, Role, Snapshot};

/// Of every four cgroups one is a pod, one its pause container, and two are its containers.
fn node() -> Snapshot {
    let mut snapshot = data::snapshot(Hierarchy::V2, 1_001);
    for (i, row) in snapshot.cgroups.iter_mut().enumerate().skip(1) {
        let pod = (i - 1) / 4;
        let role = match (i - 1) % 4 {
            0 => Role::Pod,
            1 => Role::Sandbox,
            _ => Role::Container,
        };
        let identity = Identity {
            namespace: Some(format!("team-{}", pod % 20)),
            pod: Some(format!("service-{pod}-7d4b9c6f5d-x{pod:04}")),
            container: (role == Role::Container).then(|| format!("app-{}", i % 4)),
            ..Identity::default()
        };
        let part = Part {
            role,
            pod_uid: Some(format!("0d1c2b3a-4f5e-4a7b-8c9d-{pod:012}").into()),
            created_ns: Some(1_690_000_000_000_000_000),
            ..Part::default()
        };
        let path = row.cgroup.path.clone();
        row.cgroup = Arc::new(Cgroup { path, identity, part, ..Cgroup::default() });
        if role != Role::Sandbox {
            row.network.clear();
        }
    }
    snapshot
}

fn benches(criterion: &mut Criterion) {
    let (snapshot, around) = (node(), Surroundings { node_name: "n1".into(), ..Surroundings::default() });
    let mut group = criterion.benchmark_group("kubelet");
    for (name, extent) in [("summary", Extent::Full), ("reduced summary", Extent::CpuAndMemory)] {
        let mut out = Vec::new();
        summary::write(&snapshot, &around, extent, &mut out).unwrap();
        println!("{name}: {} bytes", out.len());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                summary::write(black_box(&snapshot), &around, extent, &mut out).unwrap();
            });
        });
    }
    group.bench_function("resource", |bencher| {
        bencher.iter(|| {
            let Ok(()) = resource::write(Some(black_box(&snapshot)), Format::Prometheus, |chunk| {
                black_box(chunk);
                Ok::<(), std::convert::Infallible>(())
            });
        });
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
