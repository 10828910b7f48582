//! What containers and pods keep on disks, as it is told.

use std::sync::Arc;

use nodegauge::expose::{Format, Options, Renderer, View};
use nodegauge::snapshot::{DiskPart, DiskUsage, Hierarchy, Kinds, KubeletLabels};

use crate::data::snapshot;
use crate::expose::{by_label, scrape};

/// A container's row has its layer and logs, by filesystem; each part is told by itself too.
#[test]
fn what_a_container_keeps_on_disks() {
    let mut snapshot = snapshot(Hierarchy::V2, 2);
    let id = snapshot.cgroups[1].cgroup.path.clone();
    let disk = snapshot.cgroups[1].disk.clone().unwrap();
    let (layer, logs) = (disk.layer.clone().unwrap(), disk.logs.clone().unwrap());
    let samples = scrape(&snapshot);
    let at = |device: &str, value: u64| (device.to_owned(), value.to_string());
    assert_eq!(
        by_label(&samples, "container_fs_usage_bytes", &id, "device"),
        [at("/dev/vda", layer.used_bytes), at("/dev/vdb1", logs.used_bytes)]
    );
    assert_eq!(
        by_label(&samples, "container_fs_inodes_total", &id, "device"),
        [at("/dev/vda", layer.space.inodes.unwrap()), at("/dev/vdb1", logs.space.inodes.unwrap())]
    );
    assert_eq!(
        by_label(&samples, "nodegauge_disk_usage_inodes", &id, "part"),
        [
            at("layer", layer.inodes.unwrap()),
            at("logs", logs.inodes.unwrap()),
            at("empty-dir", disk.volumes[0].usage.inodes.unwrap())
        ]
    );
    let ages = by_label(&samples, "nodegauge_disk_usage_age_seconds", &id, "volume");
    assert_eq!(ages.iter().find(|(volume, _)| volume == "cache").unwrap().1, "40.12");

    // On the same filesystem they are one figure, as cAdvisor has it.
    let mut together = DiskUsage::clone(&disk);
    together.logs = Some(DiskPart { device: Arc::clone(&layer.device), ..logs.clone() });
    snapshot.cgroups[1].disk = Some(Arc::new(together));
    assert_eq!(
        by_label(&scrape(&snapshot), "container_fs_usage_bytes", &id, "device"),
        [at("/dev/vda", layer.used_bytes + logs.used_bytes)]
    );
    // Without a layer, as of a pod's own files, cAdvisor has no rows.
    snapshot.cgroups[1].disk = Some(Arc::new(DiskUsage { layer: None, ..DiskUsage::clone(&disk) }));
    let samples = scrape(&snapshot);
    assert_eq!(by_label(&samples, "container_fs_usage_bytes", &id, "device"), []);
    assert_eq!(by_label(&samples, "nodegauge_disk_usage_bytes", &id, "part").len(), 2);
}

/// A kubelet has no such rows of the runtimes there are, and none of our families.
#[test]
fn a_kubelets_rows_have_none_of_it() {
    let mut snapshot = snapshot(Hierarchy::V2, 2);
    for row in &mut snapshot.cgroups {
        Arc::make_mut(&mut row.cgroup).kubelet = KubeletLabels::Base;
    }
    let id = &snapshot.cgroups[1].cgroup.path;
    let options =
        Options { format: Format::Prometheus, view: View::Kubelet, kinds: Kinds::KUBELET, timestamps: false };
    let mut text = Vec::new();
    let written = Renderer::new(options).render(&snapshot, |chunk| {
        text.extend_from_slice(chunk);
        Ok::<(), std::convert::Infallible>(())
    });
    assert_eq!(written, Ok(()));
    let text = String::from_utf8(text).unwrap();
    let of_it = |l: &&str| l.contains("_fs_usage_bytes{") || l.contains("disk_usage");
    let lines: Vec<&str> = text.lines().filter(of_it).collect();
    assert!(
        !lines.is_empty() && lines.iter().all(|l| !l.contains(id) && !l.contains("nodegauge")),
        "{lines:?}"
    );
}
