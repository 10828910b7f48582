//! What the export carries: the metrics, in the order of the schema, and the labels.

use crate::push::batch::MetricId;

/// A metric of the export.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exported {
    pub(super) id: MetricId,
    /// For people.
    pub(super) description: &'static str,
}

const fn exported(id: MetricId, description: &'static str) -> Exported {
    Exported { id, description }
}

/// Every metric of the export: those of everything, then limits, then labelled ones.
pub(super) const EXPORTED: &[Exported] = &[
    exported(MetricId::Uptime, "time since it was started"),
    exported(MetricId::CpuUsage, "CPU time used by all its processes"),
    exported(MetricId::CpuLoad, "tasks that run or wait to run, smoothed, in thousandths"),
    exported(MetricId::EphemeralStorageUsage, "space used on the node's filesystem for pods"),
    exported(MetricId::MemoryUsage, "memory used, caches included"),
    exported(MetricId::MemoryRss, "anonymous memory"),
    exported(MetricId::MemoryCache, "memory used for cached files"),
    exported(
        MetricId::MemoryWorkingSet,
        "memory used that is not reclaimed at once: usage without inactive files",
    ),
    exported(MetricId::MemoryPageFaults, "page faults"),
    exported(MetricId::MemoryMajorPageFaults, "page faults that needed a read from disk"),
    exported(MetricId::NetworkRx, "bytes received over the network"),
    exported(MetricId::NetworkRxErrors, "errors while receiving over the network"),
    exported(MetricId::NetworkTx, "bytes sent over the network"),
    exported(MetricId::NetworkTxErrors, "errors while sending over the network"),
    exported(MetricId::CpuLimit, "CPU that may be used"),
    exported(MetricId::MemoryLimit, "memory that may be used"),
    exported(MetricId::FilesystemUsage, "space used on a filesystem"),
    exported(MetricId::FilesystemLimit, "size of a filesystem"),
    exported(MetricId::FilesystemAvailable, "space of a filesystem that can still be used"),
    exported(MetricId::FilesystemInodes, "inodes of a filesystem"),
    exported(MetricId::FilesystemInodesFree, "inodes of a filesystem that are free"),
    exported(MetricId::DiskIoReadBytes, "bytes read from a device"),
    exported(MetricId::DiskIoReadBytesRate, "bytes read from a device in a second"),
    exported(MetricId::DiskIoWriteBytes, "bytes written to a device"),
    exported(MetricId::DiskIoWriteBytesRate, "bytes written to a device in a second"),
    exported(MetricId::AcceleratorMemoryTotal, "memory that an accelerator has"),
    exported(MetricId::AcceleratorMemoryUsed, "memory of an accelerator that is used"),
    exported(MetricId::AcceleratorDutyCycle, "part of the time in which an accelerator worked, percent"),
];

/// Labels that everything has, and what they mean.
pub(super) const COMMON_LABELS: [(&str, &str); 5] = [
    ("nodename", "name of the node"),
    ("hostname", "host name of the node"),
    ("host_id", "what identifies the host, as its provider says"),
    ("container_name", "name of the container; machine for a node"),
    ("container_base_image", "image that the container was made from"),
];

/// Labels that pods have beside, and their containers.
pub(super) const POD_LABELS: [(&str, &str); 4] = [
    ("pod_name", "name of the pod"),
    ("pod_id", "UID of the pod"),
    ("namespace_id", "UID of the pod's namespace"),
    ("labels", "labels of the pod, as key:value joined by commas"),
];
