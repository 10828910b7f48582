//! Kind `disk`: space of the host's filesystems, on the root's row, and what
//! containers and pods keep on them, on theirs.

use std::sync::Arc;

use super::MetricType::Gauge;
use super::Source::File;
use super::{Emit, Family, Row, Unit, everywhere};
use crate::expose::lines::{Label, Lines, Value};
use crate::snapshot::{DiskPart, DiskStats, Filesystem, FilesystemSpace, Filesystems, Kind, Snapshot};

/// Which mounts are the first with their `device` label.
///
/// Two can have the same: a tmpfs goes by its mount point, and a second one can
/// be mounted over the first. The same label twice would cost the scraper both
/// samples, so only the first is told. Kept between scrapes, because mounts
/// seldom change and a node can have thousands.
#[derive(Debug, Default)]
pub struct FirstMounts {
    of: Option<Arc<Filesystems>>,
    order: Vec<usize>,
    repeated: Vec<bool>,
}

impl FirstMounts {
    /// Looks at the mounts of `snapshot`, unless they are those of the last call.
    pub fn refresh(&mut self, snapshot: &Snapshot) {
        let filesystems = &snapshot.filesystems;
        if self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, filesystems)) {
            return;
        }
        let device = |i: usize| filesystems.mounts.get(i).map(|m| m.device.as_str());
        self.order.clear();
        self.order.extend(0..filesystems.mounts.len());
        self.order.sort_unstable_by_key(|&i| (device(i), i));
        self.repeated.clear();
        self.repeated.resize(filesystems.mounts.len(), false);
        for (&first, &second) in self.order.iter().zip(self.order.iter().skip(1)) {
            if device(first) == device(second)
                && let Some(repeated) = self.repeated.get_mut(second)
            {
                *repeated = true;
            }
        }
        self.of = Some(Arc::clone(filesystems));
    }
}

/// The mounts to tell of on this row, each with its line of diskstats: those of
/// the host on the root's, none on others.
pub(super) fn mounts<'a>(
    row: &Row<'a>,
) -> impl Iterator<Item = (&'a Filesystem, Option<&'a DiskStats>)> + use<'a> {
    let Row { snapshot, mounts, .. } = *row;
    let here: &[Filesystem] = if row.is_root() { &snapshot.filesystems.mounts } else { &[] };
    here.iter()
        .enumerate()
        .filter(|(i, _)| mounts.repeated.get(*i) != Some(&true))
        .map(|(i, mount)| (mount, snapshot.disks.get(i).and_then(Option::as_ref)))
}

fn space(row: &Row<'_>, out: &mut Lines<'_>, figure: fn(&FilesystemSpace) -> Option<u64>) {
    for (mount, _) in mounts(row) {
        let value = mount.space.as_ref().and_then(figure).map(Value::integer);
        out.labelled(&[("device", Label::Text(&mount.device))], value);
    }
    if let Some((first, second)) = parts(row) {
        for part in [Some(first), second.filter(|s| s.device != first.device)].into_iter().flatten() {
            out.labelled(&[("device", Label::Text(&part.device))], figure(&part.space).map(Value::integer));
        }
    }
}

/// A container's layer and logs, the one that is there first. A kubelet has
/// them only of runtimes that cAdvisor asks for layers, which today's are not.
fn parts<'a>(row: &Row<'a>) -> Option<(&'a DiskPart, Option<&'a DiskPart>)> {
    let disk = row.sample.disk.as_deref().filter(|_| !row.of_kubelet)?;
    // Of a pod's own files cAdvisor has no rows.
    let layer = disk.layer.as_ref()?;
    Some((layer, disk.logs.as_ref()))
}

fn usage(row: &Row<'_>, out: &mut Lines<'_>) {
    for (mount, _) in mounts(row) {
        let value = mount.space.as_ref().map(|s| Value::integer(s.usage_bytes));
        out.labelled(&[("device", Label::Text(&mount.device))], value);
    }
    let Some((layer, logs)) = parts(row) else { return };
    let together = logs.filter(|l| l.device == layer.device).map_or(0, |l| l.used_bytes);
    let line = |out: &mut Lines<'_>, device: &str, bytes: u64| {
        out.labelled(&[("device", Label::Text(device))], Some(Value::integer(bytes)));
    };
    line(out, &layer.device, layer.used_bytes.saturating_add(together));
    if let Some(logs) = logs.filter(|l| l.device != layer.device) {
        line(out, &logs.device, logs.used_bytes);
    }
}

/// Each part that was measured, by itself.
fn each_part(row: &Row<'_>, out: &mut Lines<'_>, figure: fn(&DiskPart, &Snapshot) -> Option<Value>) {
    let Some(disk) = row.sample.disk.as_deref() else { return };
    let mut line = |part: &DiskPart, what: &'static str, volume: &str| {
        let labels = [
            ("device", Label::Text(&part.device)),
            ("part", Label::Word(what)),
            ("volume", Label::Text(volume)),
        ];
        out.labelled(&labels, figure(part, row.snapshot));
    };
    if let Some(layer) = &disk.layer {
        line(layer, "layer", "");
    }
    if let Some(logs) = &disk.logs {
        line(logs, "logs", "");
    }
    for volume in &disk.volumes {
        line(&volume.usage, volume.plugin, &volume.name);
    }
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "container_fs_inodes_free",
        help: "Inodes free, by filesystem.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::Disk),
        stamped: true,
        sources: everywhere(File(
            "statfs f_ffree: at the root of each mount, of a container of what its layer and logs are on",
        )),
        emit: Emit::Cgroup(|row, out| space(row, out, |s| s.inodes_free)),
    },
    Family {
        name: "container_fs_inodes_total",
        help: "Inodes, by filesystem.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::Disk),
        stamped: true,
        sources: everywhere(File(
            "statfs f_files: at the root of each mount, of a container of what its layer and logs are on",
        )),
        emit: Emit::Cgroup(|row, out| space(row, out, |s| s.inodes)),
    },
    Family {
        name: "container_fs_limit_bytes",
        help: "Size, by filesystem.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Disk),
        stamped: true,
        sources: everywhere(File(
            "statfs f_frsize * f_blocks: at the root of each mount, of a container of what its layer and logs are on",
        )),
        emit: Emit::Cgroup(|row, out| space(row, out, |s| Some(s.capacity_bytes))),
    },
    Family {
        name: "container_fs_usage_bytes",
        help: "Space used, by filesystem.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Disk),
        stamped: true,
        sources: everywhere(File(
            "at the root statfs of each mount: f_frsize * (f_blocks - f_bfree); of a container 512 * st_blocks of its layer and logs",
        )),
        emit: Emit::Cgroup(usage),
    },
    Family {
        name: "nodegauge_disk_usage_bytes",
        help: "Space that a layer, logs or a volume take up; cAdvisor has only sums.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Disk),
        stamped: true,
        sources: everywhere(File(
            "512 * st_blocks of each inode of the tree; statfs of volumes that are mounts",
        )),
        emit: Emit::Cgroup(|row, out| each_part(row, out, |part, _| Some(Value::integer(part.used_bytes)))),
    },
    Family {
        name: "nodegauge_disk_usage_inodes",
        help: "Inodes that a layer, logs or a volume take up; cAdvisor gives those of layers as container_fs_inodes_total.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::Disk),
        stamped: true,
        sources: everywhere(File("inodes of the tree; statfs of volumes that are mounts")),
        emit: Emit::Cgroup(|row, out| each_part(row, out, |part, _| part.inodes.map(Value::integer))),
    },
    Family {
        name: "nodegauge_disk_usage_age_seconds",
        help: "Age of the disk usage of a layer, logs or a volume, which is measured slowly on purpose.",
        metric: Gauge,
        unit: Unit::Seconds,
        kind: Some(Kind::Disk),
        stamped: true,
        sources: everywhere(File("the wall clock when the walk of the tree was complete")),
        emit: Emit::Cgroup(|row, out| {
            each_part(row, out, |part, snapshot| {
                Some(Value::milliseconds(snapshot.wall_ms.saturating_sub(part.measured_ms)))
            });
        }),
    },
];
