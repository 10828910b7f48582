//! A cluster of two machines and what they pushed in three minutes, with the
//! figures that answers are worked out from:
//!
//! | minute | n1 CPU | n1 memory | n2 | shop/web-0 main, side CPU | shop/web-1 main CPU |
//! |---|---|---|---|---|---|
//! | 1 | 500 m | 1,001 MiB | as n1 | no rate yet | 40 m |
//! | 2 | 500 m | 1,002 MiB | as n1 | 20 m, 5 m | 40 m |
//! | 3 | 500 m | 1,003 MiB | not there | 30 m, 5 m | not there |
//!
//! n2 missed its third push. In the third minute shop/web-0 restarted its second
//! container, whose counter began again: its rate is of the new run.

use std::sync::Arc;

use nodegauge::aggregate::model::{Model, Options};
use nodegauge::push::batch::proto::{self, MetricId};
use nodegauge::push::batch::{Assembler, Batch};

pub(crate) const MINUTE: u64 = 60_000;
/// 2030-01-01T00:00:00Z.
pub(crate) const START: u64 = 1_893_456_000_000;
/// When the tests ask. n2 was measured 90 s ago, as long as its figures stand.
pub(crate) const NOW: u64 = START + 3 * MINUTE + 30_000;

pub(crate) const MIB: u64 = 1 << 20;

/// The end of that minute.
pub(crate) fn minute(number: u64) -> u64 {
    START + number * MINUTE
}

/// A container's figures in one push.
struct Container {
    name: &'static str,
    /// CPU time used in the window, milliseconds.
    cpu_ms: Option<u64>,
    /// Absent where it does not run: then it has no figures at all.
    memory_mib: Option<u64>,
    restarts: u64,
}

fn head(node: &str, at: u64) -> Assembler {
    Assembler::new(proto::Batch {
        node: node.into(),
        boot_id: vec![1; 16],
        sequence: at,
        time_ms: minute(at),
        resolution_ms: MINUTE,
        sampled_ms: minute(at) + 5,
        sent_ms: minute(at) + 1_005,
        ..proto::Batch::default()
    })
}

fn machine(batch: &mut Assembler, at: u64, cores: f64) {
    let window = batch.window(60_000_000_000);
    let labels = vec![batch.string("kubernetes.io/os"), batch.string("linux")];
    batch.entity(proto::Entity {
        kind: proto::EntityKind::Node.into(),
        window,
        labels,
        start_ms: START - 3_600_000,
        ..Default::default()
    });
    batch.integer(MetricId::Uptime, 3_600_000 + at * MINUTE);
    batch.integer(MetricId::CpuUsage, 30_000_000_000 * at);
    batch.integer(MetricId::CpuUsageRate, 30_000_000_000);
    batch.integer(MetricId::MemoryUsage, (1_000 + at) * MIB);
    batch.integer(MetricId::MemoryWorkingSet, 800 * MIB);
    batch.double(MetricId::CpuNodeCapacity, cores * 1_000.0);
    batch.double(MetricId::CpuNodeAllocatable, cores * 1_000.0);
    batch.double(MetricId::CpuNodeUtilization, 0.5 / cores);
    batch.integer(MetricId::CpuRequest, 300);
    let [root, disk] = ["/", "/dev/sda"].map(|label| batch.string(label));
    batch.labelled(MetricId::FilesystemUsage, root, 10_000 + at);
    batch.labelled(MetricId::FilesystemInodes, root, 7_000);
    batch.labelled(MetricId::DiskIoReadBytes, disk, 4_096 * at);
    batch.labelled(MetricId::DiskIoReadBytesRate, disk, 4_096);
    let container = batch.string("kubelet");
    batch.entity(proto::Entity {
        kind: proto::EntityKind::System.into(),
        container,
        window,
        ..Default::default()
    });
    batch.integer(MetricId::MemoryUsage, 50 * MIB);
    batch.integer(MetricId::CpuUsageRate, 600_000_000);
    let container = batch.string("system.slice/docker.service");
    batch.entity(proto::Entity { kind: proto::EntityKind::System.into(), container, ..Default::default() });
    batch.integer(MetricId::MemoryUsage, 60 * MIB);
}

/// A pod of the namespace `shop`, and its containers.
fn pod(batch: &mut Assembler, name: &str, uid: u8, containers: &[Container]) {
    let [namespace, pod, image] = ["shop", name, "registry.local/web:1"].map(|text| batch.string(text));
    let labels = ["app", "web", "instance", name].map(|text| batch.string(text)).to_vec();
    let window = batch.window(60_000_000_000);
    let rated = containers.iter().any(|c| c.cpu_ms.is_some());
    let of_pod = proto::Entity {
        namespace,
        pod,
        window: if rated { window } else { 0 },
        pod_uid: vec![uid; 16],
        start_ms: START,
        ..Default::default()
    };
    batch.entity(proto::Entity { kind: proto::EntityKind::Pod.into(), labels, ..of_pod.clone() });
    let memory: u64 = containers.iter().filter_map(|c| c.memory_mib).sum();
    batch.integer(MetricId::MemoryUsage, memory * MIB);
    batch.integer(MetricId::MemoryWorkingSet, (memory - 2) * MIB);
    batch.integer(MetricId::CpuRequest, 100 * containers.len() as u64);
    batch.integer(MetricId::NetworkRx, 9_000);
    if rated {
        let used: u64 = containers.iter().filter_map(|c| c.cpu_ms).sum();
        batch.integer(MetricId::CpuUsageRate, used * 1_000_000);
        batch.integer(MetricId::NetworkRxRate, 90);
    }
    for container in containers {
        let name = batch.string(container.name);
        batch.entity(proto::Entity {
            kind: proto::EntityKind::Container.into(),
            container: name,
            image,
            ..of_pod.clone()
        });
        if let Some(memory) = container.memory_mib {
            batch.integer(MetricId::CpuUsage, 1_000_000 * container.cpu_ms.unwrap_or(7));
            batch.integer(MetricId::MemoryUsage, memory * MIB);
            batch.integer(MetricId::MemoryWorkingSet, (memory - 1) * MIB);
        }
        batch.integer(MetricId::CpuRequest, 100);
        batch.integer(MetricId::CpuLimit, 200);
        batch.integer(MetricId::RestartCount, container.restarts);
        if let Some(used) = container.cpu_ms {
            batch.integer(MetricId::CpuUsageRate, used * 1_000_000);
        }
    }
}

/// The push of n1 for that minute.
pub(crate) fn n1(at: u64) -> Batch {
    n1_with(at, Some(5))
}

/// The same with another memory of the second container of shop/web-0, which does
/// not run where it has none.
pub(crate) fn n1_with(at: u64, side_mib: Option<u64>) -> Batch {
    let mut batch = head("n1", at);
    machine(&mut batch, at, 4.0);
    let (main, side) = match at {
        1 => (None, None),
        2 => (Some(1_200), Some(300)),
        _ => (Some(1_800), Some(300)),
    };
    pod(
        &mut batch,
        "web-0",
        1,
        &[
            Container { name: "main", cpu_ms: main, memory_mib: Some(10 + at), restarts: 0 },
            Container {
                name: "side",
                cpu_ms: side.filter(|_| side_mib.is_some()),
                memory_mib: side_mib,
                restarts: u64::from(at > 2),
            },
        ],
    );
    batch.finish().unwrap()
}

/// The push of n2 for that minute.
pub(crate) fn n2(at: u64) -> Batch {
    let mut batch = head("n2", at);
    machine(&mut batch, at, 2.0);
    pod(
        &mut batch,
        "web-1",
        2,
        &[Container { name: "main", cpu_ms: Some(2_400), memory_mib: Some(20), restarts: 0 }],
    );
    batch.finish().unwrap()
}

/// Everything pushed, and every slot closed.
pub(crate) fn model() -> Arc<Model> {
    let model = Model::new(Options::default());
    for at in 1..=3 {
        model.ingest(&n1(at), minute(at) + 1_000);
        if at < 3 {
            model.ingest(&n2(at), minute(at) + 1_000);
        }
        model.tick(minute(at) + 20_000);
    }
    assert_eq!(model.closed_ms(), Some(minute(3)));
    Arc::new(model)
}
