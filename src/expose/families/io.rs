//! Kind `diskIO`: block devices, as each cgroup used them, and on the root's row
//! also as the whole host did.

use super::MetricType::{Counter, Gauge};
use super::Source::{File, None as Absent};
use super::{Emit, Family, Row, Source, Unit, by_version, filesystem};
use crate::expose::lines::{Label, Lines, Value, microseconds, nanoseconds, number};
use crate::snapshot::{DiskStats, IoDevice, Kind};

const NO_IO_COST: Source = Absent("the cost model tells its figures on cgroup v2 only");

/// The `device` label: `/dev/<disk>`, or the numbers where the kernel names no
/// disk, so that two nameless ones stay apart.
fn label(device: &IoDevice) -> Label<'_> {
    if device.name.is_empty() {
        Label::DeviceNumbers(device.major, device.minor)
    } else {
        Label::Text(&device.name)
    }
}

/// A figure that only cgroups have.
fn cgroup_device(row: &Row<'_>, out: &mut Lines<'_>, figure: fn(&IoDevice) -> Option<Value>) {
    for device in &row.sample.io {
        out.labelled(&[("device", label(device))], figure(device));
    }
}

/// A figure that cgroups may have and mounted devices have on the root's row.
/// A disk without partitions is both; then the cgroup's figure is told.
fn device(
    row: &Row<'_>,
    out: &mut Lines<'_>,
    of_cgroup: fn(&IoDevice) -> Option<Value>,
    of_disk: fn(&DiskStats) -> Value,
) {
    cgroup_device(row, out, of_cgroup);
    for (mount, disk) in filesystem::mounts(row) {
        let Some(disk) = disk else { continue };
        let told = |d: &IoDevice| {
            matches!(label(d), Label::Text(name) if name == mount.device) && of_cgroup(d).is_some()
        };
        if !row.sample.io.iter().any(told) {
            out.labelled(&[("device", Label::Text(&mount.device))], Some(of_disk(disk)));
        }
    }
}

fn device_usage(row: &Row<'_>, out: &mut Lines<'_>) {
    for device in &row.sample.io {
        let bytes = &device.bytes;
        for (operation, figure) in [
            ("Read", bytes.read),
            ("Write", bytes.write),
            ("Sync", bytes.sync),
            ("Async", bytes.r#async),
            ("Discard", bytes.discard),
            ("Total", bytes.total),
        ] {
            let labels = [
                ("device", label(device)),
                ("major", Label::Number(device.major.into())),
                ("minor", Label::Number(device.minor.into())),
                ("operation", Label::Word(operation)),
            ];
            out.labelled(&labels, number(figure));
        }
    }
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "container_fs_reads_bytes_total",
        help: "Bytes read, by device.",
        metric: Counter,
        unit: Unit::Bytes,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(File("blkio.*io_service_bytes*:Read"), File("io.stat:rbytes")),
        emit: Emit::Cgroup(|row, out| cgroup_device(row, out, |d| number(d.bytes.read))),
    },
    Family {
        name: "container_fs_reads_total",
        help: "Reads, by device.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(
            File("blkio.*io_serviced*:Read; at the root /proc/diskstats field 1"),
            File("io.stat:rios; at the root /proc/diskstats field 1"),
        ),
        emit: Emit::Cgroup(|row, out| device(row, out, |d| number(d.ios.read), |d| Value::integer(d.reads))),
    },
    Family {
        name: "container_fs_sector_reads_total",
        help: "Sectors of 512 bytes read, by device.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(
            File("at the root /proc/diskstats field 3"),
            File("at the root /proc/diskstats field 3"),
        ),
        emit: Emit::Cgroup(|row, out| device(row, out, |_| None, |d| Value::integer(d.sectors_read))),
    },
    Family {
        name: "container_fs_reads_merged_total",
        help: "Reads merged with others, by device.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(
            File("blkio.*io_merged*:Read (BFQ, CFQ); at the root /proc/diskstats field 2"),
            File("at the root /proc/diskstats field 2"),
        ),
        emit: Emit::Cgroup(|row, out| {
            device(row, out, |d| number(d.merged.read), |d| Value::integer(d.reads_merged))
        }),
    },
    Family {
        name: "container_fs_read_seconds_total",
        help: "Time spent reading, by device.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(
            File("blkio.*io_service_time*:Read (BFQ, CFQ); at the root /proc/diskstats field 4"),
            File("at the root /proc/diskstats field 4"),
        ),
        emit: Emit::Cgroup(|row, out| {
            device(row, out, |d| nanoseconds(d.service_time_ns.read), |d| Value::milliseconds(d.read_ms))
        }),
    },
    Family {
        name: "container_fs_writes_bytes_total",
        help: "Bytes written, by device.",
        metric: Counter,
        unit: Unit::Bytes,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(File("blkio.*io_service_bytes*:Write"), File("io.stat:wbytes")),
        emit: Emit::Cgroup(|row, out| cgroup_device(row, out, |d| number(d.bytes.write))),
    },
    Family {
        name: "container_fs_writes_total",
        help: "Writes, by device.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(
            File("blkio.*io_serviced*:Write; at the root /proc/diskstats field 5"),
            File("io.stat:wios; at the root /proc/diskstats field 5"),
        ),
        emit: Emit::Cgroup(|row, out| {
            device(row, out, |d| number(d.ios.write), |d| Value::integer(d.writes))
        }),
    },
    Family {
        name: "container_fs_sector_writes_total",
        help: "Sectors of 512 bytes written, by device.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(
            File("at the root /proc/diskstats field 7"),
            File("at the root /proc/diskstats field 7"),
        ),
        emit: Emit::Cgroup(|row, out| device(row, out, |_| None, |d| Value::integer(d.sectors_written))),
    },
    Family {
        name: "container_fs_writes_merged_total",
        help: "Writes merged with others, by device.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(
            File("blkio.*io_merged*:Write (BFQ, CFQ); at the root /proc/diskstats field 6"),
            File("at the root /proc/diskstats field 6"),
        ),
        emit: Emit::Cgroup(|row, out| {
            device(row, out, |d| number(d.merged.write), |d| Value::integer(d.writes_merged))
        }),
    },
    Family {
        name: "container_fs_write_seconds_total",
        help: "Time spent writing, by device.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(
            File("blkio.*io_service_time*:Write (BFQ, CFQ); at the root /proc/diskstats field 8"),
            File("at the root /proc/diskstats field 8"),
        ),
        emit: Emit::Cgroup(|row, out| {
            device(row, out, |d| nanoseconds(d.service_time_ns.write), |d| Value::milliseconds(d.write_ms))
        }),
    },
    Family {
        name: "container_fs_io_current",
        help: "Requests now queued or in flight, by device.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(
            File("blkio.*io_queued*:Total (BFQ, CFQ); at the root /proc/diskstats field 9"),
            File("at the root /proc/diskstats field 9"),
        ),
        emit: Emit::Cgroup(|row, out| {
            device(row, out, |d| number(d.queued), |d| Value::integer(d.in_flight))
        }),
    },
    Family {
        name: "container_fs_io_time_seconds_total",
        help: "Time in which the device was busy.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(
            File("blkio.*io_service_time*:Total (BFQ, CFQ); at the root /proc/diskstats field 10"),
            File("at the root /proc/diskstats field 10"),
        ),
        emit: Emit::Cgroup(|row, out| {
            device(row, out, |d| nanoseconds(d.service_time_ns.total), |d| Value::milliseconds(d.io_ms))
        }),
    },
    Family {
        name: "container_fs_io_time_weighted_seconds_total",
        help: "Time requests have spent in the device, added up.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(
            File("at the root /proc/diskstats field 11"),
            File("at the root /proc/diskstats field 11"),
        ),
        emit: Emit::Cgroup(|row, out| device(row, out, |_| None, |d| Value::milliseconds(d.weighted_ms))),
    },
    Family {
        name: "container_fs_io_cost_usage_seconds_total",
        help: "Device time used by the cost model, by device.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(NO_IO_COST, File("io.stat:cost.usage (blk-iocost)")),
        emit: Emit::Cgroup(|row, out| cgroup_device(row, out, |d| microseconds(d.cost_usage_usec))),
    },
    Family {
        name: "container_fs_io_cost_wait_seconds_total",
        help: "Time requests waited for the cost model, by device.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(NO_IO_COST, File("io.stat:cost.wait (blk-iocost)")),
        emit: Emit::Cgroup(|row, out| cgroup_device(row, out, |d| microseconds(d.cost_wait_usec))),
    },
    Family {
        name: "container_fs_io_cost_indebt_seconds_total",
        help: "Time in debt to the cost model, by device.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(NO_IO_COST, File("io.stat:cost.indebt (blk-iocost)")),
        emit: Emit::Cgroup(|row, out| cgroup_device(row, out, |d| microseconds(d.cost_indebt_usec))),
    },
    Family {
        name: "container_fs_io_cost_indelay_seconds_total",
        help: "Time delayed for debt to the cost model, by device.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(NO_IO_COST, File("io.stat:cost.indelay (blk-iocost)")),
        emit: Emit::Cgroup(|row, out| cgroup_device(row, out, |d| microseconds(d.cost_indelay_usec))),
    },
    Family {
        name: "container_blkio_device_usage_total",
        help: "Bytes by device and operation.",
        metric: Counter,
        unit: Unit::Bytes,
        kind: Some(Kind::DiskIo),
        stamped: true,
        sources: by_version(File("blkio.*io_service_bytes*"), File("io.stat:rbytes, wbytes, dbytes")),
        emit: Emit::Cgroup(device_usage),
    },
];
