//! Which cgroup hierarchies the host has, and where.
//!
//! Found from mountinfo rather than from the filesystem type of one path, so
//! that unusual mount points, co-mounted controllers and a v2 tree beside v1
//! controllers all come out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC};

use super::file::{self, Buffer};
use super::mounts::{self, Mount};
use super::{ReadError, Roots};
use crate::snapshot::Hierarchy;

/// v1 controllers that carry figures we read. A hierarchy with none of them
/// (cpuset, devices, freezer, `name=systemd`) is not walked.
const V1_CONTROLLERS: [&str; 6] = ["memory", "cpu", "cpuacct", "blkio", "pids", "hugetlb"];

/// Position of a mounted hierarchy in [`Layout::trees`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TreeId(pub(super) u8);

impl TreeId {
    /// The position as an index.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One mounted hierarchy.
#[derive(Debug)]
pub struct TreeRoot {
    /// v1 controllers mounted there; empty on v2, where the files tell.
    pub controllers: Vec<&'static str>,
    /// Whether it is a cgroup2 mount.
    pub v2: bool,
    /// The mount point as seen from here.
    pub path: PathBuf,
    /// Whether it is the kernel's own filesystem, not a captured tree.
    pub is_cgroupfs: bool,
    handle: OwnedFd,
}

impl TreeRoot {
    /// A handle of the mount point.
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// The hierarchies of a host.
#[derive(Debug)]
pub struct Layout {
    /// v1, v2 or both.
    pub hierarchy: Hierarchy,
    /// The trees we read; the first is the one whose changes are watched.
    pub trees: Vec<TreeRoot>,
    /// Where v1's `cpuset` is mounted, which is not walked: it has one setting that is
    /// shown, and seldom.
    pub cpuset: Option<PathBuf>,
}

/// Why no layout was found.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// mountinfo cannot be read.
    #[error("cannot read {path}: {error}")]
    Mounts {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: ReadError,
    },
    /// No cgroup filesystem is mounted.
    #[error(
        "no cgroup filesystem is mounted (looked in {path}); mount cgroup2 on /sys/fs/cgroup, or name the host's root with --host-root"
    )]
    None {
        /// Which mount table.
        path: PathBuf,
    },
    /// A cgroup filesystem is mounted but cannot be opened from here.
    #[error(
        "the mount table names a cgroup filesystem at {path}, which cannot be opened: {error}; mount it into the agent's container, or name the host's root with --host-root"
    )]
    Unreachable {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        error: ReadError,
    },
}

impl Layout {
    /// Finds the hierarchies of the host below `roots`.
    ///
    /// # Errors
    /// See [`LayoutError`].
    pub fn detect(roots: &Roots, buffer: &mut Buffer) -> Result<Layout, LayoutError> {
        let (mounts, _) =
            mounts::read(roots, buffer).map_err(|(path, error)| LayoutError::Mounts { path, error })?;
        let mut unreachable = None;
        let mut trees: Vec<TreeRoot> = Vec::new();
        let mut cpuset = None;
        for mount in in_order(&mounts) {
            let v2 = mount.fs_type == "cgroup2";
            if !v2 && mount.super_options.split(',').any(|option| option == "cpuset") {
                cpuset = cpuset.or_else(|| Some(mount.seen_at(roots)));
            }
            let controllers: Vec<&'static str> = if v2 {
                if trees.iter().any(|t| t.v2) {
                    continue;
                }
                Vec::new()
            } else {
                let free = |c: &&'static str| !trees.iter().any(|t| t.controllers.contains(c));
                let named = |c: &&'static str| mount.super_options.split(',').any(|o| o == *c);
                let wanted: Vec<_> = V1_CONTROLLERS.iter().copied().filter(named).filter(free).collect();
                if wanted.is_empty() {
                    continue;
                }
                wanted
            };
            let path = mount.seen_at(roots);
            match file::open_directory(&path) {
                Ok(handle) => {
                    let magic = nix::sys::statfs::fstatfs(&handle).map(|s| s.filesystem_type());
                    let is_cgroupfs = matches!(magic, Ok(CGROUP_SUPER_MAGIC | CGROUP2_SUPER_MAGIC));
                    trees.push(TreeRoot { controllers, v2, path, is_cgroupfs, handle });
                }
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "cgroup mount cannot be opened");
                    unreachable = unreachable.or(Some(LayoutError::Unreachable { path, error }));
                }
            }
        }
        if trees.is_empty() {
            return Err(unreachable.unwrap_or_else(|| LayoutError::None { path: roots.proc.clone() }));
        }
        let v1 = trees.iter().any(|t| !t.v2);
        let v2 = trees.iter().any(|t| t.v2);
        let hierarchy = match (v1, v2) {
            (true, true) => Hierarchy::Hybrid,
            (true, false) => Hierarchy::V1,
            (false, _) => Hierarchy::V2,
        };
        // Every runtime makes its cgroups in `memory`; a v2 tree beside v1 may be empty.
        trees.sort_by_key(|t| (t.v2, !t.controllers.contains(&"memory")));
        Ok(Layout { hierarchy, trees, cpuset })
    }

    /// The v1 tree of a controller.
    pub fn controller(&self, name: &str) -> Option<TreeId> {
        self.position(|t| t.controllers.contains(&name))
    }

    /// The v2 tree, on v2 and hybrid hosts.
    pub fn unified(&self) -> Option<TreeId> {
        self.position(|t| t.v2)
    }

    /// The tree that carries the files of a controller: the v2 tree on v2,
    /// otherwise the controller's own.
    pub fn tree_for(&self, controller: &str) -> Option<TreeId> {
        match self.hierarchy {
            Hierarchy::V2 => self.unified(),
            Hierarchy::V1 | Hierarchy::Hybrid => self.controller(controller),
        }
    }

    /// Whether a controller's files are in v2 format.
    pub fn is_v2(&self) -> bool {
        self.hierarchy == Hierarchy::V2
    }

    fn position(&self, test: impl Fn(&TreeRoot) -> bool) -> Option<TreeId> {
        let index = self.trees.iter().position(test)?;
        u8::try_from(index).ok().map(TreeId)
    }
}

/// cgroup mounts, whole ones before mounts of a subtree, later mounts on the
/// same place before those they hide.
fn in_order(mounts: &[Mount]) -> Vec<&Mount> {
    let is_cgroup = |m: &&Mount| m.fs_type == "cgroup" || m.fs_type == "cgroup2";
    let visible = |m: &&Mount| {
        let hidden_by = mounts.iter().rev().find(|other| other.mount_point == m.mount_point);
        hidden_by.is_none_or(|top| std::ptr::eq(top, *m))
    };
    let mut found: Vec<&Mount> = mounts.iter().filter(is_cgroup).filter(visible).collect();
    found.sort_by_key(|m| !m.is_whole());
    found
}
