//! Block I/O and filesystems in cAdvisor's JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::stats::Psi;
use crate::snapshot::{DiskStats, Filesystem, IoDevice, IoOperations, Reading};

/// Block I/O: a table for each of its figures. Times are in nanoseconds, but for
/// `io_time`, in milliseconds, and costs, in microseconds.
#[derive(Debug, Serialize)]
pub struct DiskIo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes: Vec<PerDisk>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced: Vec<PerDisk>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_queued: Vec<PerDisk>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sectors: Vec<PerDisk>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_time: Vec<PerDisk>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_wait_time: Vec<PerDisk>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_merged: Vec<PerDisk>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_time: Vec<PerDisk>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_cost_usage: Vec<PerDisk>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_cost_wait: Vec<PerDisk>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_cost_indebt: Vec<PerDisk>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_cost_indelay: Vec<PerDisk>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Serialize)]
struct PerDisk {
    device: Arc<str>,
    major: u32,
    minor: u32,
    stats: BTreeMap<&'static str, u64>,
}

impl DiskIo {
    /// The tables of `devices`.
    pub(super) fn of(devices: &[IoDevice], psi: Option<Psi>) -> DiskIo {
        DiskIo {
            io_service_bytes: table(devices, |d| d.bytes),
            io_serviced: table(devices, |d| d.ios),
            io_queued: count(devices, |d| d.queued),
            sectors: count(devices, |d| d.sectors),
            io_service_time: table(devices, |d| d.service_time_ns),
            io_wait_time: table(devices, |d| d.wait_time_ns),
            io_merged: table(devices, |d| d.merged),
            io_time: count(devices, |d| d.time_ms),
            io_cost_usage: count(devices, |d| d.cost_usage_usec),
            io_cost_wait: count(devices, |d| d.cost_wait_usec),
            io_cost_indebt: count(devices, |d| d.cost_indebt_usec),
            io_cost_indelay: count(devices, |d| d.cost_indelay_usec),
            psi,
        }
    }
}

fn per_disk(device: &IoDevice, pairs: &[(&'static str, Reading)]) -> Option<PerDisk> {
    let stats: BTreeMap<_, _> = pairs.iter().filter_map(|(op, v)| Some((*op, v.map(u64::from)?))).collect();
    let IoDevice { name, major, minor, .. } = device;
    (!stats.is_empty()).then(|| PerDisk { device: Arc::clone(name), major: *major, minor: *minor, stats })
}

fn table(devices: &[IoDevice], get: impl Fn(&IoDevice) -> IoOperations) -> Vec<PerDisk> {
    let row = |device: &IoDevice| {
        let IoOperations { read, write, sync, r#async, discard, total } = get(device);
        let pairs = [
            ("Read", read),
            ("Write", write),
            ("Sync", sync),
            ("Async", r#async),
            ("Discard", discard),
            ("Total", total),
        ];
        per_disk(device, &pairs)
    };
    devices.iter().filter_map(row).collect()
}

fn count(devices: &[IoDevice], get: impl Fn(&IoDevice) -> Reading) -> Vec<PerDisk> {
    devices.iter().filter_map(|device| per_disk(device, &[("Count", get(device))])).collect()
}

/// A filesystem, or what a container has of one.
#[derive(Debug, Serialize)]
pub struct FsStats {
    /// Its `device` label.
    pub device: String,
    /// `vfs`, or `zfs`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Bytes it has.
    pub capacity: u64,
    /// Bytes in use.
    pub usage: u64,
    /// Of these, in a container's writable layer.
    pub base_usage: u64,
    /// Bytes left.
    pub available: u64,
    /// Whether inodes are counted.
    pub has_inodes: bool,
    /// Inodes it has, or a container's.
    pub inodes: u64,
    /// Inodes left.
    pub inodes_free: u64,
    /// Of the disk it is on.
    #[serde(flatten)]
    pub io: Option<FsIo>,
}

/// What `/proc/diskstats` tells of a filesystem's disk; times in milliseconds.
#[derive(Debug, Serialize)]
pub struct FsIo {
    reads_completed: u64,
    reads_merged: u64,
    sectors_read: u64,
    read_time: u64,
    writes_completed: u64,
    writes_merged: u64,
    sectors_written: u64,
    write_time: u64,
    io_in_progress: u64,
    io_time: u64,
    weighted_io_time: u64,
}

impl FsIo {
    fn of(disk: &DiskStats) -> FsIo {
        FsIo {
            reads_completed: disk.reads,
            reads_merged: disk.reads_merged,
            sectors_read: disk.sectors_read,
            read_time: disk.read_ms,
            writes_completed: disk.writes,
            writes_merged: disk.writes_merged,
            sectors_written: disk.sectors_written,
            write_time: disk.write_ms,
            io_in_progress: disk.in_flight,
            io_time: disk.io_ms,
            weighted_io_time: disk.weighted_ms,
        }
    }
}

/// The same in samples of the machine, version 2; times in nanoseconds.
#[derive(Debug, Serialize)]
pub struct InlineIo {
    reads_completed: u64,
    reads_merged: u64,
    sectors_read: u64,
    read_duration: u64,
    writes_completed: u64,
    writes_merged: u64,
    sectors_written: u64,
    write_duration: u64,
    io_in_progress: u64,
    io_duration: u64,
    weighted_io_duration: u64,
}

impl From<&FsIo> for InlineIo {
    fn from(io: &FsIo) -> InlineIo {
        let ns = |ms: u64| ms.saturating_mul(1_000_000);
        InlineIo {
            reads_completed: io.reads_completed,
            reads_merged: io.reads_merged,
            sectors_read: io.sectors_read,
            read_duration: ns(io.read_time),
            writes_completed: io.writes_completed,
            writes_merged: io.writes_merged,
            sectors_written: io.sectors_written,
            write_duration: ns(io.write_time),
            io_in_progress: io.io_in_progress,
            io_duration: ns(io.io_time),
            weighted_io_duration: ns(io.weighted_io_time),
        }
    }
}

/// A whole filesystem, where its space is known.
pub(super) fn whole(fs: &Filesystem, disk: Option<&DiskStats>) -> Option<FsStats> {
    let space = fs.space?;
    Some(FsStats {
        device: fs.device.clone(),
        kind: if fs.fs_type == "zfs" { "zfs" } else { "vfs" },
        capacity: space.capacity_bytes,
        usage: space.usage_bytes,
        base_usage: 0,
        available: space.available_bytes,
        has_inodes: space.inodes.is_some(),
        inodes: space.inodes.unwrap_or(0),
        inodes_free: space.inodes_free.unwrap_or(0),
        io: disk.map(FsIo::of),
    })
}
