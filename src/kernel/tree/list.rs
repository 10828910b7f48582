//! What the filesystem says of one directory of cgroups.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use nix::dir::{Dir, Type};
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstatat};

use crate::kernel::ReadError;
use crate::kernel::cgroup::{Layout, TreeId, TreeRoot};
use crate::kernel::handles::CgroupFiles;

/// Systemd makes one cgroup per mount unit; they hold no processes of interest.
const IGNORED_SUFFIX: &[u8] = b".mount";

/// A directory below the one that is listed.
pub(super) struct Child {
    pub(super) relative: Arc<CStr>,
    pub(super) inode: u64,
}

/// The child cgroups of a directory.
pub(super) fn list(root: &TreeRoot, relative: &CStr) -> Result<Vec<Child>, ReadError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut dir = Dir::openat(root.handle(), relative, flags, Mode::empty()).map_err(ReadError::from)?;
    let mut children = Vec::new();
    for entry in dir.iter() {
        let entry = entry.map_err(ReadError::from)?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." || name.ends_with(IGNORED_SUFFIX) {
            continue;
        }
        let child = || -> Option<Arc<CStr>> {
            if relative == c"." {
                return CString::new(name).ok().map(Arc::from);
            }
            CString::new([relative.to_bytes(), b"/", name].concat()).ok().map(Arc::from)
        };
        match entry.file_type().filter(|t| root.is_cgroupfs || *t != Type::Directory) {
            Some(Type::Directory) => {
                let Some(relative) = child() else { continue };
                children.push(Child { relative, inode: entry.ino() });
            }
            None => {
                let Some(relative) = child() else { continue };
                // A captured tree: other filesystems may list other inode numbers than they stat.
                let Ok(stat) = fstatat(root.handle(), &*relative, AtFlags::AT_SYMLINK_NOFOLLOW) else {
                    continue;
                };
                if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
                    children.push(Child { relative, inode: stat.st_ino });
                }
            }
            Some(_) => {}
        }
    }
    Ok(children)
}

/// Earliest mtime of the cgroup's directories and of the file that is never
/// written after creation, seconds since the epoch.
pub(super) fn created(layout: &Layout, files: &CgroupFiles, boot: Option<u64>) -> Option<u64> {
    let mut earliest: Option<u64> = None;
    for (index, root) in layout.trees.iter().enumerate() {
        if !u8::try_from(index).is_ok_and(|i| files.exists_in(TreeId(i))) {
            continue;
        }
        let marker: &[u8] = if root.v2 { b"/cgroup.events" } else { b"/cgroup.clone_children" };
        let marker = CString::new([files.relative().to_bytes(), marker].concat()).ok();
        for path in [Some(files.relative()), marker.as_deref()].into_iter().flatten() {
            let Ok(stat) = fstatat(root.handle(), path, AtFlags::empty()) else { continue };
            if let Ok(mtime) = u64::try_from(stat.st_mtime)
                && mtime > 0
            {
                earliest = Some(earliest.map_or(mtime, |e| e.min(mtime)));
            }
        }
    }
    Some(earliest?.max(boot.unwrap_or(0)))
}
