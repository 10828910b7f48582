//! Kind `disk`: space of the host's filesystems, on the root's row.

use std::sync::Arc;

use super::MetricType::Gauge;
use super::Source::File;
use super::{Emit, Family, Row, Unit, everywhere};
use crate::expose::lines::{Label, Lines, Value};
use crate::snapshot::{DiskStats, Filesystem, FilesystemSpace, Filesystems, Kind, Snapshot};

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
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "container_fs_inodes_free",
        help: "Inodes free, by filesystem.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::Disk),
        stamped: true,
        sources: everywhere(File("statfs of each mount, at the root: f_ffree")),
        emit: Emit::Cgroup(|row, out| space(row, out, |s| s.inodes_free)),
    },
    Family {
        name: "container_fs_inodes_total",
        help: "Inodes, by filesystem.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::Disk),
        stamped: true,
        sources: everywhere(File("statfs of each mount, at the root: f_files")),
        emit: Emit::Cgroup(|row, out| space(row, out, |s| s.inodes)),
    },
    Family {
        name: "container_fs_limit_bytes",
        help: "Size, by filesystem.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Disk),
        stamped: true,
        sources: everywhere(File("statfs of each mount, at the root: f_frsize * f_blocks")),
        emit: Emit::Cgroup(|row, out| space(row, out, |s| Some(s.capacity_bytes))),
    },
    Family {
        name: "container_fs_usage_bytes",
        help: "Space used, by filesystem.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Disk),
        stamped: true,
        sources: everywhere(File("statfs of each mount, at the root: f_frsize * (f_blocks - f_bfree)")),
        emit: Emit::Cgroup(|row, out| space(row, out, |s| Some(s.usage_bytes))),
    },
];
