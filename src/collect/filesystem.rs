//! Space of the host's filesystems, and the counters of the disks below them.
//!
//! `statfs` of a dead network mount blocks for ever, so it runs on threads of
//! its own: one asks mount by mount, and one that does not return in time is
//! left behind, its mount skipped until it does return. Ticks pick up the last
//! table. `/proc/diskstats` cannot hang and is read in the tick.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use nix::sys::stat::{fstat, major, minor};
use nix::sys::statvfs::fstatvfs;

use super::{Collector, Context, Setup, Vanished};
use crate::kernel::file::{self, Buffer};
use crate::kernel::mounts::{self, Mount};
use crate::kernel::tree::Node;
use crate::kernel::{ReadError, Roots, parse};
use crate::snapshot::{
    CgroupSample, DiskStats, Filesystem, FilesystemSpace, Filesystems, Snapshot, VolumeMount,
};

/// How often the table is made anew.
const PERIOD: Duration = Duration::from_secs(10);

/// How long one mount may take to answer.
const DEADLINE: Duration = Duration::from_secs(2);

/// How long the first tick waits for the first table.
const FIRST_WAIT: Duration = Duration::from_millis(300);

/// Mounts that may hang at the same time; beyond that no new one is asked.
const MAX_STUCK: usize = 8;

/// Mounts followed.
const MAX_MOUNTS: usize = 512;

/// Volumes of pods followed: more than a node may have attached.
const MAX_VOLUMES: usize = 512;

/// Filesystem types with files of their own.
const TYPES: [&str; 24] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "bcachefs", "squashfs",
    "erofs", "vfat", "exfat", "msdos", "ntfs", "ntfs3", "udf", "iso9660", "overlay", "tmpfs", "nfs", "nfs4",
    "ceph",
];

/// Below these, mounts belong to one container each; their space is the host's
/// or a volume's.
const CONTAINER_PLACES: [&str; 6] = [
    "/var/lib/docker/",
    "/var/lib/containers/",
    "/run/containerd/",
    "/var/lib/kubelet/",
    "/run/docker/",
    "/var/lib/containerd/",
];

#[derive(Debug)]
struct FilesystemCollector {
    table: Arc<ArcSwap<Filesystems>>,
    first: Option<Receiver<()>>,
    diskstats: PathBuf,
    // Ends the thread when it is dropped.
    _stop: Sender<()>,
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let table = Arc::new(ArcSwap::default());
    let (stop, stopped) = channel();
    let (ready, first) = channel();
    let roots = setup.roots.clone();
    let shared = Arc::clone(&table);
    let run = move || Worker::new(roots, shared).run(&ready, &stopped);
    thread::Builder::new().name("filesystems".to_owned()).spawn(run).ok()?;
    let diskstats = setup.roots.proc.join("diskstats");
    Some(Box::new(FilesystemCollector { table, first: Some(first), diskstats, _stop: stop }))
}

impl Collector for FilesystemCollector {
    fn begin(&mut self, cx: &mut Context<'_>, _nodes: &mut [Node], snapshot: &mut Snapshot) {
        if let Some(first) = self.first.take() {
            // Without an answer the table is empty this time.
            let _ = first.recv_timeout(FIRST_WAIT);
        }
        let table = self.table.load();
        if !Arc::ptr_eq(&snapshot.filesystems, &table) {
            snapshot.filesystems = Arc::clone(&table);
        }
        snapshot.disks.clear();
        snapshot.disks.resize(table.mounts.len(), None);
        let disks = &mut snapshot.disks;
        let read = cx.reader.buffer.read_path(&self.diskstats).and_then(|text| {
            disk_lines(text, |device, stats| {
                for (mount, slot) in table.mounts.iter().zip(disks.iter_mut()) {
                    if (mount.major, mount.minor) == device {
                        *slot = Some(stats);
                    }
                }
            })
        });
        if let Err(error) = read {
            cx.failed("/proc/diskstats", error);
        }
    }

    fn read(
        &mut self,
        _cx: &mut Context<'_>,
        _node: &mut Node,
        _row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        Ok(())
    }
}

/// `/proc/diskstats`, one line per block device:
/// ```text
///  254       0 vda 22418 4377 1393082 5013 12071 16104 2184504 30517 0 7852 36093
/// ```
/// Kernels append columns (discards 4.18, flushes 5.5).
fn disk_lines(text: &[u8], mut each: impl FnMut((u32, u32), DiskStats)) -> Result<(), ReadError> {
    for (number, line) in parse::lines(text) {
        let bad = || ReadError::Malformed { line: u32::try_from(number).unwrap_or(u32::MAX) };
        let mut words = parse::words(line);
        let mut device = || u32::try_from(words.next().and_then(parse::digits)?).ok();
        let numbers = device().zip(device()).ok_or_else(bad)?;
        words.next().ok_or_else(bad)?;
        let mut columns = [0u64; 11];
        for column in &mut columns {
            *column = words.next().and_then(parse::clamped).ok_or_else(bad)?;
        }
        let [r, rm, rs, rt, w, wm, ws, wt, in_flight, io_ms, weighted_ms] = columns;
        let stats = DiskStats {
            reads: r,
            reads_merged: rm,
            sectors_read: rs,
            read_ms: rt,
            writes: w,
            writes_merged: wm,
            sectors_written: ws,
            write_ms: wt,
            in_flight,
            io_ms,
            weighted_ms,
        };
        each(numbers, stats);
    }
    Ok(())
}

/// The mounts worth a row, one per device; the first mount of a device wins.
fn select(mounts: &[Mount]) -> Vec<(&Mount, String)> {
    let mut seen = HashSet::new();
    let mut selected = Vec::new();
    for mount in mounts {
        let point = mount.mount_point.to_string_lossy();
        if !TYPES.contains(&mount.fs_type.as_str())
            || CONTAINER_PLACES.iter().any(|place| point.starts_with(place) && mount.major == 0)
            || (mount.fs_type == "overlay" && point != "/")
            // A directory of a tmpfs mounted once more is no filesystem of its own.
            || (mount.fs_type == "tmpfs" && !mount.is_whole())
        {
            continue;
        }
        let device = label(mount);
        if selected.len() < MAX_MOUNTS && seen.insert(device.clone()) {
            selected.push((mount, device));
        }
    }
    selected
}

/// Volumes of pods, by a mount's place: UID of the pod and name of the directory. What
/// the kubelet fills itself is measured with the pod.
fn volume(mount: &Mount) -> Option<(&str, &str)> {
    let (before, rest) = mount.mount_point.to_str()?.split_once("/volumes/kubernetes.io~")?;
    let (pods, uid) = before.rsplit_once('/')?;
    let mut parts = rest.split('/');
    let (plugin, name) = (parts.next()?, parts.next()?);
    // A CSI driver's is mounted one level below.
    let below = (parts.next(), parts.next());
    let whole = if plugin == "csi" { below == (Some("mount"), None) } else { below == (None, None) };
    let filled = ["empty-dir", "configmap", "secret", "projected", "downward-api"].contains(&plugin);
    (pods.ends_with("/pods") && whole && !filled && !name.is_empty()).then_some((uid, name))
}

/// The `device` label of a mount's filesystem.
pub(super) fn label(mount: &Mount) -> String {
    match mount.fs_type.as_str() {
        "tmpfs" => mount.mount_point.to_string_lossy().into_owned(),
        "overlay" => format!("overlay_{}-{}", mount.major, mount.minor),
        _ => mount.source.clone(),
    }
}

#[derive(Debug)]
struct Question {
    path: PathBuf,
    /// Device the path must be on, where it may be another's.
    device: Option<(u32, u32)>,
}

struct Asker {
    questions: Sender<Question>,
    answers: Receiver<Result<FilesystemSpace, ReadError>>,
}

impl Asker {
    fn start() -> Option<Asker> {
        let (questions, asked) = channel::<Question>();
        let (reply, answers) = channel();
        let run = move || {
            for question in asked {
                if reply.send(space(&question)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("statfs".to_owned()).spawn(run).ok()?;
        Some(Asker { questions, answers })
    }
}

fn space(question: &Question) -> Result<FilesystemSpace, ReadError> {
    let directory = file::open_directory(&question.path)?;
    if let Some(expected) = question.device {
        let device = fstat(&directory)?.st_dev;
        let found = (u32::try_from(major(device)).ok(), u32::try_from(minor(device)).ok());
        if found != (Some(expected.0), Some(expected.1)) {
            return Err(ReadError::Gone);
        }
    }
    let stat = fstatvfs(directory.as_fd())?;
    let block = stat.fragment_size();
    let bytes = |blocks: u64| blocks.saturating_mul(block);
    let fixed = stat.files() > 0;
    Ok(FilesystemSpace {
        capacity_bytes: bytes(stat.blocks()),
        available_bytes: bytes(stat.blocks_available()),
        usage_bytes: bytes(stat.blocks().saturating_sub(stat.blocks_free())),
        inodes: fixed.then(|| stat.files()),
        inodes_free: fixed.then(|| stat.files_free()),
    })
}

struct Worker {
    roots: Roots,
    table: Arc<ArcSwap<Filesystems>>,
    buffer: Buffer,
    asker: Option<Asker>,
    /// By mount point: the one still waiting for an answer about it.
    stuck: HashMap<PathBuf, Asker>,
}

impl Worker {
    fn new(roots: Roots, table: Arc<ArcSwap<Filesystems>>) -> Self {
        Worker { roots, table, buffer: Buffer::new(), asker: Asker::start(), stuck: HashMap::new() }
    }

    fn run(mut self, ready: &Sender<()>, stopped: &Receiver<()>) {
        loop {
            self.refresh();
            // Only the first tick listens.
            let _ = ready.send(());
            match stopped.recv_timeout(PERIOD) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn refresh(&mut self) {
        let mounts = match mounts::read(&self.roots, &mut self.buffer) {
            Ok((mounts, _)) => mounts,
            Err((path, error)) => {
                tracing::debug!(path = %path.display(), %error, "mount table cannot be read");
                return;
            }
        };
        let previous = self.table.load_full();
        let mut table = Filesystems::default();
        for (mount, device) in select(&mounts) {
            let before = previous
                .mounts
                .iter()
                .find(|f| f.device == device && f.mount_point == *mount.mount_point.to_string_lossy());
            let mut entry = Filesystem {
                device,
                mount_point: mount.mount_point.to_string_lossy().into_owned(),
                fs_type: mount.fs_type.clone(),
                major: mount.major,
                minor: mount.minor,
                space: None,
                space_read_at: None,
            };
            match self.ask(mount) {
                Some(Ok(space)) => {
                    entry.space = Some(space);
                    entry.space_read_at = SystemTime::UNIX_EPOCH.elapsed().ok().map(|d| d.as_secs());
                }
                Some(Err(error)) => {
                    tracing::debug!(mount_point = entry.mount_point, %error, "no statfs of this mount");
                }
                // A slow mount keeps what it last said; its age is exported.
                None => {
                    if let Some(before) = before {
                        entry.space = before.space;
                        entry.space_read_at = before.space_read_at;
                    }
                }
            }
            table.mounts.push(entry);
        }
        let mut volumes: HashMap<(&str, &str), &Mount> = HashMap::new();
        for mount in &mounts {
            let known = volumes.len();
            if let Some(key) = volume(mount).filter(|key| known < MAX_VOLUMES || volumes.contains_key(key)) {
                // Of mounts on top of each other the last is seen.
                volumes.insert(key, mount);
            }
        }
        for ((uid, name), mount) in volumes {
            let before = previous.volumes.iter().find(|v| v.pod_uid == uid && v.name == name);
            let mut entry = VolumeMount {
                pod_uid: uid.to_owned(),
                name: name.to_owned(),
                space: before.and_then(|before| before.space),
                space_read_at: before.and_then(|before| before.space_read_at),
            };
            if let Some(answer) = self.ask(mount) {
                entry.space = answer.ok();
                entry.space_read_at = SystemTime::UNIX_EPOCH.elapsed().ok().map(|d| d.as_secs());
            }
            table.volumes.push(entry);
        }
        table.volumes.sort_unstable_by(|a, b| (&a.pod_uid, &a.name).cmp(&(&b.pod_uid, &b.name)));
        if table.mounts != previous.mounts || table.volumes != previous.volumes {
            self.table.store(Arc::new(table));
        }
    }

    /// `None` when there is no answer in time.
    fn ask(&mut self, mount: &Mount) -> Option<Result<FilesystemSpace, ReadError>> {
        if let Some(asker) = self.stuck.get(&mount.mount_point) {
            let answer = asker.answers.try_recv().ok()?;
            self.stuck.remove(&mount.mount_point);
            tracing::info!(mount_point = %mount.mount_point.display(), "mount answers again");
            return Some(answer);
        }
        if self.stuck.len() >= MAX_STUCK {
            return None;
        }
        if self.asker.is_none() {
            self.asker = Asker::start();
        }
        let path = mount.seen_at(&self.roots);
        let elsewhere = !self.roots.is_live() && !["btrfs", "zfs"].contains(&mount.fs_type.as_str());
        let device = elsewhere.then_some((mount.major, mount.minor));
        let asker = self.asker.take()?;
        asker.questions.send(Question { path, device }).ok()?;
        match asker.answers.recv_timeout(DEADLINE) {
            Ok(answer) => {
                self.asker = Some(asker);
                Some(answer)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!(mount_point = %mount.mount_point.display(), "mount does not answer: skipped until it does");
                self.stuck.insert(mount.mount_point.clone(), asker);
                None
            }
        }
    }
}

/// Whether a path can be asked for its space at all, for `nodegauge check`.
pub fn visible(roots: &Roots, mount: &Mount) -> bool {
    Path::new(&mount.seen_at(roots)).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_by_their_place() {
        let check = |point: &str, expected: Option<(&str, &str)>| {
            let text = format!("30 27 8:1 / /var/lib/kubelet/pods/{point} rw - ext4 /dev/sda1 rw\n");
            let (found, _) = mounts::parse(text.as_bytes());
            assert_eq!(volume(&found[0]), expected, "{point}");
        };
        check("u1/volumes/kubernetes.io~csi/pvc-1/mount", Some(("u1", "pvc-1")));
        check("u1/volumes/kubernetes.io~csi/pvc-1", None);
        check("u1/volumes/kubernetes.io~nfs/share", Some(("u1", "share")));
        check("u1/volumes/kubernetes.io~nfs/share/mount/below", None);
        check("u1/volumes/kubernetes.io~local-volume/disk-1", Some(("u1", "disk-1")));
        // Measured with the pod.
        check("u1/volumes/kubernetes.io~empty-dir/cache", None);
        check("u1/volume-subpaths/pvc-1/app/0", None);
        check("volumes/kubernetes.io~nfs/share", None);
    }

    #[test]
    fn one_row_per_device() {
        let text = b"27 1 254:0 / / rw - ext4 /dev/vda rw\n\
            28 27 254:0 /srv /mnt rw - ext4 /dev/vda rw\n\
            29 27 0:30 / /run rw - tmpfs tmpfs rw\n\
            30 27 0:31 / /var/lib/kubelet/pods/x/volumes/y rw - tmpfs tmpfs rw\n\
            31 27 0:32 / /var/lib/docker/overlay2/z/merged rw - overlay overlay rw\n\
            34 27 0:30 /systemd/inaccessible /run/credentials rw - tmpfs tmpfs rw\n\
            32 27 0:33 / /proc rw - proc proc rw\n\
            33 27 259:1 / /data rw - xfs /dev/nvme0n1p1 rw\n";
        let (mounts, _) = mounts::parse(text);
        let devices: Vec<String> = select(&mounts).into_iter().map(|(_, d)| d).collect();
        assert_eq!(devices, ["/dev/vda", "/run", "/dev/nvme0n1p1"]);
    }

    #[test]
    fn disks_of_any_name() {
        let text = b" 259       1 nvme0n1p1 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n";
        let mut found = Vec::new();
        disk_lines(text, |device, stats| found.push((device, stats))).unwrap();
        assert_eq!(found[0].0, (259, 1));
        assert_eq!((found[0].1.reads, found[0].1.weighted_ms), (1, 11));
        assert!(disk_lines(b"259 1 nvme0n1 1 2\n", |_, _| {}).is_err());
    }

    #[test]
    fn own_root_has_space() {
        let question = Question { path: PathBuf::from("/"), device: None };
        let space = space(&question).unwrap();
        assert!(space.capacity_bytes > 0 && space.usage_bytes <= space.capacity_bytes);
        let other = Question { path: PathBuf::from("/"), device: Some((4095, 1)) };
        assert_eq!(super::space(&other), Err(ReadError::Gone));
    }
}
