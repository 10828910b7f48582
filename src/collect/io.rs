//! Block I/O by device.
//!
//! v2 `io.stat`; v1 one of several files. `blkio.throttle.*_recursive` (5.x)
//! counts every device whatever its scheduler, so it is preferred; BFQ's own
//! file, CFQ's (before 5.0) and the throttle file that leaves descendants out
//! follow. Service times, merges and queues exist only for BFQ and CFQ.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Collector, Context, Setup, Vanished};
use crate::kernel::cgroup::TreeId;
use crate::kernel::handles::{FileKey, Pace};
use crate::kernel::parse;
use crate::kernel::tree::Node;
use crate::kernel::{Roots, file};
use crate::snapshot::{CgroupSample, IoDevice, IoOperations, Reading, Snapshot, reading};

/// Device numbers are given to other disks after a removal.
const NAMES_LAST: Duration = Duration::from_secs(60);

/// More device numbers than this are not remembered.
const MAX_NAMES: usize = 4096;

/// v1 files for bytes and requests, best first.
const V1_FAMILIES: [(&str, &str); 4] = [
    ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"),
    ("blkio.bfq.io_service_bytes_recursive", "blkio.bfq.io_serviced_recursive"),
    ("blkio.io_service_bytes_recursive", "blkio.io_serviced_recursive"),
    ("blkio.throttle.io_service_bytes", "blkio.throttle.io_serviced"),
];

/// v1 files of one scheduler only: service time, merges, queue, sectors.
const V1_SCHEDULERS: [[&str; 4]; 2] = [
    [
        "blkio.bfq.io_service_time_recursive",
        "blkio.bfq.io_merged_recursive",
        "blkio.bfq.io_queued_recursive",
        "blkio.bfq.sectors_recursive",
    ],
    [
        "blkio.io_service_time_recursive",
        "blkio.io_merged_recursive",
        "blkio.io_queued_recursive",
        "blkio.sectors_recursive",
    ],
];

#[derive(Debug)]
struct V2Io {
    stat: Option<FileKey>,
    names: DeviceNames,
}

#[derive(Debug)]
struct V1Io {
    bytes: Option<FileKey>,
    ios: Option<FileKey>,
    service_time: Option<FileKey>,
    merged: Option<FileKey>,
    queued: Option<FileKey>,
    sectors: Option<FileKey>,
    names: DeviceNames,
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let tree = setup.layout.tree_for("blkio").or_else(|| setup.layout.tree_for("io"))?;
    let names = DeviceNames::new(setup.roots);
    if setup.layout.is_v2() {
        let stat = setup.reader.register(tree, "io.stat", Pace::Tick);
        return Some(Box::new(V2Io { stat, names }));
    }
    let exists = |name: &str| has_file(setup, tree, name);
    let (bytes, ios) = V1_FAMILIES.into_iter().find(|(bytes, _)| exists(bytes))?;
    let [service_time, merged, queued, sectors] =
        V1_SCHEDULERS.into_iter().find(|[first, ..]| exists(first)).unwrap_or([""; 4]);
    let mut register = |name: &str| {
        let wanted = !name.is_empty();
        wanted.then(|| setup.reader.register(tree, name, Pace::Tick)).flatten()
    };
    Some(Box::new(V1Io {
        bytes: register(bytes),
        ios: register(ios),
        service_time: register(service_time),
        merged: register(merged),
        queued: register(queued),
        sectors: register(sectors),
        names,
    }))
}

/// The root cgroup has every file of the controller.
fn has_file(setup: &Setup<'_>, tree: TreeId, name: &str) -> bool {
    setup.layout.trees.get(tree.index()).is_some_and(|root| root.path.join(name).exists())
}

impl Collector for V2Io {
    fn begin(&mut self, _cx: &mut Context<'_>, _nodes: &mut [Node], _snapshot: &mut Snapshot) {
        self.names.expire();
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        let (names, devices) = (&mut self.names, &mut row.io);
        let done = cx.file(node, self.stat, |text| {
            parse::io_stat(text, |device, key, value| {
                let Some(found) = device_of(devices, names, device) else { return };
                let field: &mut Reading = match key {
                    b"rbytes" => &mut found.bytes.read,
                    b"wbytes" => &mut found.bytes.write,
                    b"dbytes" => &mut found.bytes.discard,
                    b"rios" => &mut found.ios.read,
                    b"wios" => &mut found.ios.write,
                    b"dios" => &mut found.ios.discard,
                    b"cost.usage" => &mut found.cost_usage_usec,
                    b"cost.wait" => &mut found.cost_wait_usec,
                    b"cost.indebt" => &mut found.cost_indebt_usec,
                    b"cost.indelay" => &mut found.cost_indelay_usec,
                    _ => return,
                };
                *field = value.and_then(reading);
            })
        })?;
        if done.is_none() {
            row.io.clear();
        }
        Ok(())
    }
}

impl V1Io {
    fn file(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
        key: Option<FileKey>,
        mut put: impl FnMut(&mut IoDevice, &[u8], Reading),
    ) -> Result<(), Vanished> {
        let (names, devices) = (&mut self.names, &mut row.io);
        cx.file(node, key, |text| {
            parse::blkio(text, |device, operation, value| {
                if let Some(found) = device_of(devices, names, device) {
                    put(found, operation, reading(value));
                }
            })
        })?;
        Ok(())
    }
}

impl Collector for V1Io {
    fn begin(&mut self, _cx: &mut Context<'_>, _nodes: &mut [Node], _snapshot: &mut Snapshot) {
        self.names.expire();
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        self.file(cx, node, row, self.bytes, |d, op, v| set(&mut d.bytes, op, v))?;
        self.file(cx, node, row, self.ios, |d, op, v| set(&mut d.ios, op, v))?;
        self.file(cx, node, row, self.service_time, |d, op, v| set(&mut d.service_time_ns, op, v))?;
        self.file(cx, node, row, self.merged, |d, op, v| set(&mut d.merged, op, v))?;
        self.file(cx, node, row, self.queued, |d, op, v| {
            if op == b"Total" {
                d.queued = v;
            }
        })?;
        self.file(cx, node, row, self.sectors, |d, _, v| d.sectors = v)
    }
}

fn set(operations: &mut IoOperations, operation: &[u8], value: Reading) {
    match operation {
        b"Read" => operations.read = value,
        b"Write" => operations.write = value,
        b"Sync" => operations.sync = value,
        b"Async" => operations.r#async = value,
        b"Discard" => operations.discard = value,
        b"Total" => operations.total = value,
        _ => {}
    }
}

/// The entry of a device; the one asked for last is the likeliest.
fn device_of<'a>(
    devices: &'a mut Vec<IoDevice>,
    names: &mut DeviceNames,
    (major, minor): (u32, u32),
) -> Option<&'a mut IoDevice> {
    let at = devices.iter().rposition(|d| d.major == major && d.minor == minor);
    let index = match at {
        Some(index) => index,
        None => {
            devices.push(IoDevice {
                major,
                minor,
                name: names.get(major, minor),
                bytes: IoOperations::default(),
                ios: IoOperations::default(),
                service_time_ns: IoOperations::default(),
                merged: IoOperations::default(),
                queued: None,
                sectors: None,
                cost_usage_usec: None,
                cost_wait_usec: None,
                cost_indebt_usec: None,
                cost_indelay_usec: None,
            });
            devices.len() - 1
        }
    };
    devices.get_mut(index)
}

/// Names of block devices by number, from sysfs.
#[derive(Debug)]
struct DeviceNames {
    by_number: PathBuf,
    block: PathBuf,
    known: HashMap<(u32, u32), Arc<str>>,
    since: Instant,
}

impl DeviceNames {
    fn new(roots: &Roots) -> Self {
        DeviceNames {
            by_number: roots.sys.join("dev/block"),
            block: roots.sys.join("block"),
            known: HashMap::new(),
            since: Instant::now(),
        }
    }

    fn expire(&mut self) {
        if self.since.elapsed() >= NAMES_LAST {
            self.known.clear();
            self.since = Instant::now();
        }
    }

    fn get(&mut self, major: u32, minor: u32) -> Arc<str> {
        if let Some(name) = self.known.get(&(major, minor)) {
            return Arc::clone(name);
        }
        let name = self.look_up(major, minor);
        if self.known.len() < MAX_NAMES {
            self.known.insert((major, minor), Arc::clone(&name));
        }
        name
    }

    /// `/sys/dev/block/MAJ:MIN` links to the device's directory; a captured tree
    /// may only have `/sys/block/<disk>/dev`. The numbers stand in for a name
    /// nobody knows, so that two unknown devices stay apart.
    fn look_up(&self, major: u32, minor: u32) -> Arc<str> {
        let number = format!("{major}:{minor}");
        let linked = std::fs::read_link(self.by_number.join(&number)).ok();
        let name = linked.as_deref().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
        let name = name.or_else(|| {
            let disks = std::fs::read_dir(&self.block).ok()?;
            let mut names = disks.flatten().map(|d| d.path());
            let found =
                names.find(|d| file::read_trimmed(&d.join("dev")).as_deref() == Some(number.as_str()))?;
            Some(found.file_name()?.to_string_lossy().into_owned())
        });
        match name {
            // Sysfs writes the slash of names like cciss/c0d0 as an exclamation mark.
            Some(name) => format!("/dev/{}", name.replace('!', "/")).into(),
            None => number.into(),
        }
    }
}
