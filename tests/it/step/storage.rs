//! What pods and containers keep on disks, as filesystem metrics.

use nodegauge::snapshot::{DiskPart, DiskUsage, VolumeUsage};

use super::*;

fn part(used_bytes: u64) -> DiskPart {
    let space = FilesystemSpace {
        capacity_bytes: 9_000,
        available_bytes: 3_000,
        usage_bytes: 6_000,
        inodes: Some(70),
        inodes_free: Some(50),
    };
    DiskPart {
        used_bytes,
        inodes: Some(4),
        skipped_directories: 0,
        measured_ms: 1_700_000_000_000,
        device: "/dev/sda1".into(),
        space,
    }
}

fn volume(name: &str, plugin: &'static str, mounted: bool, used_bytes: u64) -> VolumeUsage {
    VolumeUsage { name: name.to_owned(), plugin, mounted, usage: part(used_bytes) }
}

/// The figures of an entity under each label, in order.
fn labelled(entity: &Entity<'_>, name: &str) -> Vec<(String, u64)> {
    let of = |value| match value {
        Value::Integer(value) => value,
        Value::Double(value) => panic!("{value} is a double"),
    };
    let points = entity.metrics().filter(|point| point.metric.name == name);
    let mut found: Vec<_> = points.map(|p| (p.label.unwrap().to_owned(), of(p.value))).collect();
    found.sort();
    found
}

fn made(of_container: Option<DiskUsage>, of_pod: DiskUsage) -> Batch {
    let (mut builder, clock) = start();
    let mut rows = shop(1);
    rows[1].disk = Some(Arc::new(of_pod));
    rows[2].disk = of_container.map(Arc::new);
    make(&mut builder, &clock.tick(0, rows), &directory()).unwrap().batch
}

fn of_pod() -> DiskUsage {
    DiskUsage {
        layer: None,
        logs: Some(part(7)),
        volumes: vec![
            volume("cache", "empty-dir", false, 100),
            volume("shm", "empty-dir", true, 1_000),
            volume("config", "configmap", false, 10),
            volume("token", "projected", true, 10_000),
        ],
    }
}

#[test]
fn layers_logs_and_volumes() {
    let of_container = DiskUsage { layer: Some(part(400)), logs: Some(part(50)), volumes: Vec::new() };
    let batch = made(Some(of_container), of_pod());
    let container = entity(&batch, EntityKind::Container, "web");
    let of = |label: &str, value: u64| (label.to_owned(), value);
    assert_eq!(labelled(&container, "filesystem/usage"), [of("/", 400), of("logs", 50)]);
    assert_eq!(labelled(&container, "filesystem/limit"), [of("/", 9_000), of("logs", 9_000)]);
    assert_eq!(labelled(&container, "filesystem/available"), [of("/", 3_000), of("logs", 3_000)]);
    assert_eq!(labelled(&container, "filesystem/inodes"), [of("/", 70), of("logs", 70)]);
    assert_eq!(labelled(&container, "filesystem/inodes_free"), [of("/", 50), of("logs", 50)]);
    assert_eq!(integer(&container, "ephemeral_storage/usage"), Some(450));
    let pod = entity(&batch, EntityKind::Pod, "web-0");
    assert_eq!(
        labelled(&pod, "filesystem/usage"),
        [
            of("Volume:cache", 100),
            of("Volume:config", 10),
            of("Volume:shm", 1_000),
            of("Volume:token", 10_000)
        ]
    );
    // Its containers, its logs, and volumes that are not memory.
    assert_eq!(integer(&pod, "ephemeral_storage/usage"), Some(450 + 7 + 100 + 10));
}

#[test]
fn what_was_not_measured_makes_no_sum() {
    let unknown = DiskUsage { layer: Some(part(400)), logs: None, volumes: Vec::new() };
    for of_container in [None, Some(unknown)] {
        let batch = made(of_container, of_pod());
        for (kind, name) in [(EntityKind::Container, "web"), (EntityKind::Pod, "web-0")] {
            assert_eq!(integer(&entity(&batch, kind, name), "ephemeral_storage/usage"), None);
        }
    }
}
