//! Where a container's writable layer lies on the host, from the mount tables of
//! one of its processes and of the host.
//!
//! ```text
//! 421 389 0:51 / / rw,relatime - overlay overlay rw,lowerdir=/l/1:/l/2,upperdir=/l/3/fs,workdir=/l/3/work
//! ```

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{major, minor};

use crate::kernel::file::Buffer;
use crate::kernel::mounts::{self, Mount};
use crate::kernel::{ReadError, Roots, parse};

/// How long the host's mount table is used before it is read again.
const MOUNTS_LAST: Duration = Duration::from_secs(60);

/// Cgroups below a container's that are searched for a process.
const MAX_SEARCHED: usize = 64;

/// Where an `upperdir` lies that is written relative to the runtime's own
/// directory, as runtimes do when the mount options would not fit a page.
const RELATIVE_TO: [&str; 2] = ["/var/lib/docker/overlay2", "/var/lib/containers/storage/overlay"];

/// What to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layer {
    /// A directory of the host.
    Tree(PathBuf),
    /// A filesystem of its own, mounted there: a thin device, a block file, a dataset.
    Whole(PathBuf),
}

/// Reads mount tables.
#[derive(Debug)]
pub(super) struct Finder {
    pub(super) roots: Roots,
    /// Mount point of a cgroup tree that every container is in.
    cgroups: PathBuf,
    buffer: Buffer,
    mounts: Vec<Mount>,
    mounts_read: Option<Instant>,
}

impl Finder {
    pub(super) fn new(roots: Roots, cgroups: PathBuf) -> Self {
        Finder { roots, cgroups, buffer: Buffer::new(), mounts: Vec::new(), mounts_read: None }
    }

    /// The layer of the container that lives in this cgroup; `None` while it has
    /// no process with a root filesystem of its own, or one that cannot be told.
    ///
    /// # Errors
    /// The cgroup's or the process's files cannot be read.
    pub(super) fn layer(&mut self, relative: &CStr) -> Result<Option<Layer>, ReadError> {
        self.refresh();
        let directory = self.cgroups.join(OsStr::from_bytes(relative.to_bytes()));
        let Some((pid, procs)) = self.process(&directory)? else { return Ok(None) };
        let table = self.roots.proc.join(pid.to_string()).join("mountinfo");
        let (own, _) = mounts::parse(self.buffer.read_path(&table)?);
        // The number may have passed to another process meanwhile.
        let mut still = false;
        parse::pids(self.buffer.read_path(&procs)?, |member| still |= member == pid)?;
        Ok(layer_of(&own, &self.mounts).filter(|_| still).map(|layer| self.absolute(layer)))
    }

    /// A process in the cgroup or, where the container's init made cgroups of its
    /// own, below it; and the file that lists it.
    fn process(&mut self, directory: &Path) -> Result<Option<(u32, PathBuf)>, ReadError> {
        let mut waiting = vec![directory.to_path_buf()];
        let mut searched = 0;
        while let Some(directory) = waiting.pop() {
            let procs = directory.join("cgroup.procs");
            let mut first = None;
            match self.buffer.read_path(&procs) {
                // 0 is a process of a PID namespace that is not ours.
                Ok(text) => parse::pids(text, |pid| first = first.or(Some(pid).filter(|p| *p > 0)))?,
                // A cgroup that vanished, or a threaded one on v2, has none to offer.
                Err(ReadError::Gone | ReadError::Unsupported) => {}
                Err(error) => return Err(error),
            }
            if let Some(pid) = first {
                return Ok(Some((pid, procs)));
            }
            searched += 1;
            if searched + waiting.len() < MAX_SEARCHED {
                let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
                let below = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path());
                waiting.extend(below.take(MAX_SEARCHED - searched - waiting.len()));
            }
        }
        Ok(None)
    }

    fn absolute(&self, layer: Layer) -> Layer {
        match layer {
            Layer::Tree(path) if path.is_relative() => {
                let places = RELATIVE_TO.iter().map(|place| Path::new(place).join(&path));
                let there = |path: &PathBuf| self.roots.in_host(path).is_dir();
                Layer::Tree(places.clone().find(there).unwrap_or(path))
            }
            other => other,
        }
    }

    fn refresh(&mut self) {
        if self.mounts_read.is_some_and(|at| at.elapsed() < MOUNTS_LAST) {
            return;
        }
        self.mounts_read = Some(Instant::now());
        match mounts::read(&self.roots, &mut self.buffer) {
            Ok((mounts, _)) => self.mounts = mounts,
            Err((path, error)) => {
                tracing::debug!(path = %path.display(), %error, "mount table cannot be read");
            }
        }
    }

    /// The `device` label of the filesystem with this device number that `path`
    /// is on. Subvolumes have device numbers that no mount shows, so then the
    /// mount around the path counts.
    pub(super) fn device(&mut self, path: &Path, device: u64) -> Arc<str> {
        self.refresh();
        let around = |m: &&Mount| path.starts_with(&m.mount_point);
        let same = |m: &&Mount| (m.major, m.minor) == (major(device), minor(device));
        let longest = |m: &&Mount| m.mount_point.as_os_str().len();
        let found = self.mounts.iter().filter(around).filter(same).max_by_key(longest);
        let found = found.or_else(|| self.mounts.iter().find(same));
        match found.or_else(|| self.mounts.iter().filter(around).max_by_key(longest)) {
            Some(mount) => super::super::filesystem::label(mount).into(),
            None => format!("{}:{}", major(device), minor(device)).into(),
        }
    }
}

/// The layer, as the mount tables of a container's process and of the host tell.
fn layer_of(own: &[Mount], host: &[Mount]) -> Option<Layer> {
    // Of mounts over each other the last is seen.
    let root_of = |mounts: &'_ [Mount]| mounts.iter().rposition(|m| m.mount_point == Path::new("/"));
    let root = own.get(root_of(own)?)?;
    if root.fs_type == "overlay" {
        return upper(&root.super_options).map(|path| Layer::Tree(path.into()));
    }
    let device = (root.major, root.minor);
    let same = || host.iter().filter(move |m| (m.major, m.minor) == device);
    let host_root = host.get(root_of(host)?)?;
    // Its runtime has not changed its root yet, or never does.
    if (host_root.major, host_root.minor) == device && host_root.root == root.root {
        return None;
    }
    if root.is_whole() {
        let mount = same().find(|m| m.is_whole() && m.mount_point != Path::new("/"))?;
        return Some(Layer::Whole(mount.mount_point.clone()));
    }
    // A directory of a filesystem: where the host has that.
    let (mount, rest) = same()
        .filter_map(|m| Some((m, root.root.strip_prefix(&m.root).ok()?)))
        .min_by_key(|(m, _)| m.root.as_os_str().len())?;
    let path = mount.mount_point.join(rest);
    (path != Path::new("/")).then_some(Layer::Tree(path))
}

/// `upperdir` of overlayfs's options. The kernel writes `workdir` next; the path
/// itself may have commas.
fn upper(options: &str) -> Option<&str> {
    let (_, rest) = options.split_once(",upperdir=")?;
    let end = rest.find(",workdir=").or_else(|| rest.find(','));
    Some(end.and_then(|end| rest.get(..end)).unwrap_or(rest)).filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "27 1 254:0 / / rw - ext4 /dev/vda rw\n\
        28 27 259:1 / /data rw - xfs /dev/nvme0n1p1 rw\n\
        29 27 253:7 / /run/containerd/x/rootfs rw - ext4 /dev/mapper/snap-7 rw\n\
        30 27 259:1 /sub /srv rw - xfs /dev/nvme0n1p1 rw\n";

    fn check(own: &str, expected: Option<Layer>) {
        let (own, bad) = mounts::parse(own.as_bytes());
        assert_eq!(bad, 0);
        assert_eq!(layer_of(&own, &mounts::parse(HOST.as_bytes()).0), expected);
    }

    #[test]
    fn each_kind_of_snapshotter() {
        let tree = |path: &str| Some(Layer::Tree(path.into()));
        check(
            "1 0 0:51 / / rw - overlay overlay rw,lowerdir=/l/1:/l/2,upperdir=/l/3/fs,workdir=/l/3/work,index=off\n",
            tree("/l/3/fs"),
        );
        // A comma in the path, and a read-only overlay, which has no upper directory.
        check(
            "1 0 0:51 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/a\\054b/diff,workdir=/a\\054b/work\n",
            tree("/a,b/diff"),
        );
        check("1 0 0:51 / / ro - overlay overlay ro,lowerdir=/l/1:/l/2\n", None);
        // Copies: a directory of a filesystem, seen where the host has it mounted.
        check(
            "1 0 254:0 /var/lib/x/native/snapshots/5 / rw - ext4 /dev/vda rw\n",
            tree("/var/lib/x/native/snapshots/5"),
        );
        check("1 0 259:1 /sub/5 / rw - xfs /dev/nvme0n1p1 rw\n", tree("/data/sub/5"));
        // A device of its own.
        check(
            "1 0 253:7 / / rw - ext4 /dev/mapper/snap-7 rw\n",
            Some(Layer::Whole("/run/containerd/x/rootfs".into())),
        );
        // Not in its root yet; a device the host does not have mounted; none at all.
        check("1 0 254:0 / / rw - ext4 /dev/vda rw\n", None);
        check("1 0 253:9 / / rw - ext4 /dev/mapper/snap-9 rw\n", None);
        check("1 0 0:5 / /proc rw - proc proc rw\n", None);
        // The host's root is there first, then the container's over it.
        check(
            "1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 0:51 / / rw - overlay o rw,lowerdir=/l,upperdir=l/u/diff,workdir=l/u/work\n",
            tree("l/u/diff"),
        );
    }

    /// This process's own root is the host's, so a cgroup with it has no layer;
    /// one without processes is searched for others below it.
    #[test]
    fn a_process_is_found_below() {
        let tree = tempfile::tempdir().unwrap();
        let below = tree.path().join("c/container");
        std::fs::create_dir_all(&below).unwrap();
        std::fs::write(tree.path().join("c/cgroup.procs"), "").unwrap();
        std::fs::write(below.join("cgroup.procs"), "0\n41\n42\n").unwrap();
        let proc = tree.path().join("proc");
        for (pid, options) in [("41", "lowerdir=/l,upperdir=/u/fs,workdir=/u/work"), ("1", "lowerdir=/l")] {
            std::fs::create_dir_all(proc.join(pid)).unwrap();
            let line = format!("1 0 0:51 / / rw - overlay overlay rw,{options}\n");
            std::fs::write(proc.join(pid).join("mountinfo"), line).unwrap();
        }
        let mut finder = Finder::new(Roots::new(tree.path()), tree.path().to_path_buf());
        assert_eq!(finder.layer(c"c"), Ok(Some(Layer::Tree("/u/fs".into()))));
        assert_eq!(finder.layer(c"gone"), Ok(None));
    }
}
