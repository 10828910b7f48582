//! Block I/O by device.
//!
//! v2 `io.stat`. On v1 each of three sources may or may not count a device:
//! the throttle files count every device whatever its scheduler, but newer
//! kernels only where a throttling rule was ever set; BFQ's and CFQ's (before
//! 5.0) files count the devices they schedule. So those that are not empty at
//! the root are read, and the first that has a device has its bytes and requests.
//! Times, merges and queues exist only for BFQ and CFQ, and with BFQ only where the
//! kernel was made to count them (`CONFIG_BFQ_CGROUP_DEBUG`).

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::still::Still;
use super::{Collector, Context, Depth, Setup, Vanished};
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

/// Figures of a v1 source, in this order in the tables below.
const FIGURES: usize = 8;

/// Of these, bytes and requests, which several sources may count of one device.
const COUNTED: usize = 2;

/// v1 files: bytes, requests, service time, merges, queue, sectors, waiting time, time of
/// the device. The first of the two throttle sources leaves no descendants out (5.x).
const V1_SOURCES: [[&str; FIGURES]; 4] = [
    [
        "blkio.throttle.io_service_bytes_recursive",
        "blkio.throttle.io_serviced_recursive",
        "",
        "",
        "",
        "",
        "",
        "",
    ],
    ["blkio.throttle.io_service_bytes", "blkio.throttle.io_serviced", "", "", "", "", "", ""],
    [
        "blkio.bfq.io_service_bytes_recursive",
        "blkio.bfq.io_serviced_recursive",
        "blkio.bfq.io_service_time_recursive",
        "blkio.bfq.io_merged_recursive",
        "blkio.bfq.io_queued_recursive",
        "blkio.bfq.sectors_recursive",
        "blkio.bfq.io_wait_time_recursive",
        "blkio.bfq.time_recursive",
    ],
    [
        "blkio.io_service_bytes_recursive",
        "blkio.io_serviced_recursive",
        "blkio.io_service_time_recursive",
        "blkio.io_merged_recursive",
        "blkio.io_queued_recursive",
        "blkio.sectors_recursive",
        "blkio.io_wait_time_recursive",
        "blkio.time_recursive",
    ],
];

#[derive(Debug)]
struct V2Io {
    stat: Option<FileKey>,
    names: DeviceNames,
    still: Still,
}

#[derive(Debug)]
struct V1Io {
    sources: Vec<V1Source>,
    names: DeviceNames,
    /// Kept where all sources count what is below a cgroup as the cgroup's own.
    still: Option<Still>,
}

#[derive(Debug)]
struct V1Source {
    files: [Option<FileKey>; FIGURES],
    /// The root's file has lines of devices.
    active: bool,
    /// Cgroups that have lines although the root has none.
    cgroups: HashSet<u64>,
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let tree = setup.layout.tree_for("blkio").or_else(|| setup.layout.tree_for("io"))?;
    let names = DeviceNames::new(setup.roots);
    if setup.layout.is_v2() {
        let stat = setup.reader.register(tree, "io.stat", Pace::Tick);
        return Some(Box::new(V2Io { stat, names, still: Still::default() }));
    }
    let recursive = has_file(setup, tree, "blkio.throttle.io_service_bytes_recursive");
    let mut sources = Vec::new();
    let mut own = false;
    for (index, figures) in V1_SOURCES.into_iter().enumerate() {
        let throttle = index < 2;
        let covered = index == 1 && recursive;
        if covered || !has_file(setup, tree, figures[0]) {
            continue;
        }
        own |= index == 1;
        let files = figures.map(|name| {
            let there = !name.is_empty() && has_file(setup, tree, name);
            let pace = if throttle && name == figures[0] { Pace::Tick } else { Pace::Often };
            there.then(|| setup.reader.register(tree, name, pace)).flatten()
        });
        sources.push(V1Source { files, active: true, cgroups: HashSet::new() });
    }
    Some(Box::new(V1Io { sources, names, still: (!own).then(Still::default) }))
}

/// The devices of a cgroup as they were, where nothing moved above it.
fn standing<'a>(cx: &Context<'a>, node: &Node, still: &Still) -> Option<&'a [IoDevice]> {
    (still.above(node) && !node.due).then(|| cx.before(node)).flatten().map(|before| before.io.as_slice())
}

fn copy(devices: &[IoDevice], to: &mut Vec<IoDevice>) {
    to.clear();
    // See `device_of`.
    to.reserve_exact(devices.len());
    to.extend_from_slice(devices);
}

/// Whether a cgroup's devices are as they were in the tick before. What the root counts differs by
/// source and kernel, so that nothing follows from it.
fn stands(cx: &Context<'_>, node: &Node, row: &CgroupSample) -> bool {
    !node.is_root() && cx.before(node).is_some_and(|before| before.io == row.io)
}

/// The root cgroup has every file of the controller.
fn has_file(setup: &Setup<'_>, tree: TreeId, name: &str) -> bool {
    setup.layout.trees.get(tree.index()).is_some_and(|root| root.path.join(name).exists())
}

impl V2Io {
    fn read_all(
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

impl Collector for V2Io {
    fn begin(&mut self, _cx: &mut Context<'_>, _nodes: &mut [Node], _snapshot: &mut Snapshot) {
        self.names.expire();
        self.still.begin();
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        if let Some(devices) = standing(cx, node, &self.still) {
            copy(devices, &mut row.io);
            self.still.push(true);
            return Ok(());
        }
        let read = self.read_all(cx, node, row);
        self.still.push(read.is_ok() && stands(cx, node, row));
        read
    }

    fn glance(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
        depth: Depth,
    ) -> Result<(), Vanished> {
        if depth == Depth::Whole { again(row, |row| self.read_all(cx, node, row)) } else { Ok(()) }
    }
}

impl V1Source {
    /// Reads one figure of all devices; devices before `from` have theirs from a
    /// better source, if that counts it. Says whether there are any devices in the file.
    fn file(
        &self,
        cx: &mut Context<'_>,
        node: &mut Node,
        devices: &mut Vec<IoDevice>,
        names: &mut DeviceNames,
        (figure, from): (usize, usize),
    ) -> Result<Option<bool>, Vanished> {
        let key = self.files.get(figure).copied().flatten();
        let mut any = false;
        let read = cx.file(node, key, |text| {
            parse::blkio(text, |numbers, operation, value| {
                any = true;
                let taken =
                    figure < COUNTED && devices.iter().take(from).any(|d| (d.major, d.minor) == numbers);
                let found = (!taken).then(|| device_of(devices, names, numbers)).flatten();
                let (Some(device), value) = (found, reading(value)) else { return };
                match figure {
                    0 => set(&mut device.bytes, operation, value),
                    1 => set(&mut device.ios, operation, value),
                    2 => set(&mut device.service_time_ns, operation, value),
                    3 => set(&mut device.merged, operation, value),
                    4 if operation == b"Total" => device.queued = value,
                    5 => device.sectors = value,
                    6 => set(&mut device.wait_time_ns, operation, value),
                    7 => device.time_ms = value,
                    _ => {}
                }
            })
        })?;
        Ok(read.map(|()| any))
    }
}

impl V1Io {
    fn read_all(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        let V1Io { sources, names, .. } = self;
        for (index, source) in sources.iter_mut().enumerate() {
            // The first counts only where a rule was set, which the root does not
            // tell; what the root does not count with the others, nobody does,
            // but for kernels that leave the root out: hence the look in turn.
            if index > 0 && !source.active && !node.slow && !source.cgroups.contains(&node.id) {
                continue;
            }
            let from = row.io.len();
            for figure in 0..FIGURES {
                let devices = source.file(cx, node, &mut row.io, names, (figure, from))?;
                // All files of a source list the same devices, which are those that the
                // cgroup has used: mostly none.
                if figure == 0 && devices == Some(false) {
                    break;
                }
            }
            if index > 0 && !source.active && row.io.len() > from {
                source.cgroups.insert(node.id);
            }
        }
        Ok(())
    }
}

impl Collector for V1Io {
    fn begin(&mut self, cx: &mut Context<'_>, nodes: &mut [Node], _snapshot: &mut Snapshot) {
        self.names.expire();
        self.still.as_mut().into_iter().for_each(Still::begin);
        let Some(root) = nodes.first_mut().filter(|n| n.is_root() && n.slow) else { return };
        for source in &mut self.sources {
            let [bytes, ..] = source.files;
            let mut any = false;
            let read = cx.file(root, bytes, |text| parse::blkio(text, |_, _, _| any = true));
            source.active = any && read.is_ok();
        }
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        let still = self.still.as_ref();
        if let Some(devices) = still.and_then(|still| standing(cx, node, still)) {
            copy(devices, &mut row.io);
            self.still.as_mut().into_iter().for_each(|still| still.push(true));
            return Ok(());
        }
        let read = self.read_all(cx, node, row);
        let stands = read.is_ok() && stands(cx, node, row);
        self.still.as_mut().into_iter().for_each(|still| still.push(stands));
        read
    }

    fn glance(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
        depth: Depth,
    ) -> Result<(), Vanished> {
        if depth == Depth::Whole { again(row, |row| self.read_all(cx, node, row)) } else { Ok(()) }
    }

    fn forget(&mut self, id: u64) {
        self.sources.iter_mut().for_each(|s| _ = s.cgroups.remove(&id));
    }
}

/// Reads the devices of a row anew; where that fails it keeps those it had.
fn again(
    row: &mut CgroupSample,
    read: impl FnOnce(&mut CgroupSample) -> Result<(), Vanished>,
) -> Result<(), Vanished> {
    let before = std::mem::take(&mut row.io);
    let done = read(row);
    if done.is_err() {
        row.io = before;
    }
    done
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
            // Most cgroups have one or two, of 320 bytes, and keep them; growing by itself makes room for four.
            devices.reserve_exact(1);
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
                wait_time_ns: IoOperations::default(),
                time_ms: None,
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
