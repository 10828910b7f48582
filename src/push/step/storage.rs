//! What pods and containers keep on the node's disks → their filesystem metrics.
//!
//! Under Heapster's labels: of a container `/` is its writable layer and `logs`
//! its log files, of a pod `Volume:NAME` is a volume. Usage is their own; size,
//! free space and inodes are those of the filesystem they are on, as a kubelet
//! tells them. Only what was measured is there, and it may be minutes old.

use std::borrow::Cow;

use super::values::Values;
use super::who::{Found, Kind, Row};
use crate::push::batch::MetricId;
use crate::snapshot::{DiskPart, DiskUsage, VolumeUsage};

/// Types of volumes that count as the pod's own use of its node's disk, where
/// they are no filesystem of their own, such as memory.
const EPHEMERAL: [&str; 2] = ["empty-dir", "configmap"];

/// Puts what an entity keeps with its values.
pub(super) fn gather<'a>(values: &mut Values<'a>, found: &Found<'_>, rows: &[Row<'a>]) {
    let kept = |at: &usize| rows.get(*at).and_then(|row| row.sample.disk.as_deref());
    let own = found.row.as_ref().and_then(kept);
    match found.kind {
        Kind::Node | Kind::System => {}
        Kind::Container => {
            let Some(own) = own else { return };
            part(values, Cow::Borrowed("/"), own.layer.as_ref());
            part(values, Cow::Borrowed("logs"), own.logs.as_ref());
            values.integer(MetricId::EphemeralStorageUsage, of_container(own));
        }
        Kind::Pod => {
            for volume in own.into_iter().flat_map(|own| &own.volumes) {
                part(values, Cow::Owned(format!("Volume:{}", volume.name)), Some(&volume.usage));
            }
            // A sum in which one container is missing would be a wrong one.
            let of_containers: Option<u64> =
                found.members.iter().map(|at| kept(at).and_then(of_container)).sum();
            let usage = of_containers.map(|sum| sum.saturating_add(own.map_or(0, of_pod_itself)));
            values.integer(MetricId::EphemeralStorageUsage, usage.filter(|_| !found.members.is_empty()));
        }
    }
}

fn part<'a>(values: &mut Values<'a>, label: Cow<'a, str>, part: Option<&DiskPart>) {
    let Some(DiskPart { used_bytes, space, .. }) = part else { return };
    for (id, value) in [
        (MetricId::FilesystemUsage, Some(*used_bytes)),
        (MetricId::FilesystemLimit, Some(space.capacity_bytes)),
        (MetricId::FilesystemAvailable, Some(space.available_bytes)),
        (MetricId::FilesystemInodes, space.inodes),
        (MetricId::FilesystemInodesFree, space.inodes_free),
    ] {
        values.labelled(id, &label, value);
    }
}

/// Layer and logs, where both are known.
fn of_container(own: &DiskUsage) -> Option<u64> {
    let (layer, logs) = (own.layer.as_ref()?, own.logs.as_ref()?);
    Some(layer.used_bytes.saturating_add(logs.used_bytes))
}

/// A pod's logs and volumes.
fn of_pod_itself(own: &DiskUsage) -> u64 {
    let counts = |volume: &&VolumeUsage| EPHEMERAL.contains(&volume.plugin) && !volume.mounted;
    let volumes: u64 = own.volumes.iter().filter(counts).map(|volume| volume.usage.used_bytes).sum();
    volumes.saturating_add(own.logs.as_ref().map_or(0, |logs| logs.used_bytes))
}
