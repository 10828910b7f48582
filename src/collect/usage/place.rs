//! Opening directories of the host in a way that nobody can lead astray.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, RawDir, ResolveFlags, fstatfs, openat, openat2};
use rustix::io::{Errno, Result as SysResult};

use crate::kernel::ReadError;
use crate::snapshot::FilesystemSpace;

/// A directory of the host, and how to get there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// Where the host's `/` is.
    pub(super) host_root: PathBuf,
    /// The path on the host.
    pub(super) path: PathBuf,
}

impl Place {
    /// Opens it for listing. Links on the way are followed as the host follows
    /// them, so one in a mounted host root cannot lead out of it; the last part
    /// must not be a link.
    pub(super) fn open(&self) -> Result<OwnedFd, ReadError> {
        let flags = DIRECTORY.union(OFlags::NOFOLLOW);
        let inside = || {
            let root = openat(CWD, &self.host_root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            openat2(root, &self.path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
        };
        match inside() {
            // Kernels before 5.6, and seccomp filters that do not know the call.
            Err(Errno::NOSYS | Errno::PERM) => {
                let path = self.host_root.join(self.path.strip_prefix("/").unwrap_or(&self.path));
                openat(CWD, path, flags, Mode::empty())
            }
            other => other,
        }
        .map_err(read_error)
    }
}

/// Flags to open a directory for listing.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Says why, in the words of the readers of kernel files.
pub(super) fn read_error(errno: Errno) -> ReadError {
    std::io::Error::from(errno).into()
}

/// Opens a directory by its name in another one, following no link.
pub(super) fn open_below(dir: &OwnedFd, name: &CStr) -> SysResult<OwnedFd> {
    openat(dir, name, DIRECTORY.union(OFlags::NOFOLLOW), Mode::empty())
}

/// The names in a directory, at most `limit`.
pub(super) fn names(dir: &OwnedFd, limit: usize) -> Result<Vec<CString>, ReadError> {
    let mut space = Vec::<u8>::with_capacity(4096);
    let mut listing = RawDir::new(dir, space.spare_capacity_mut());
    let mut names = Vec::new();
    while names.len() < limit
        && let Some(entry) = listing.next()
    {
        let name = entry.map_err(read_error)?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Space of the filesystem a directory is on, and its type's magic number.
pub(super) fn space(dir: &OwnedFd) -> Result<(FilesystemSpace, u64), ReadError> {
    let stat = fstatfs(dir).map_err(read_error)?;
    let number = |n: i128| u64::try_from(n).unwrap_or(0);
    // 0 where the filesystem says only the block size.
    let unit = [number(stat.f_frsize.into()), number(stat.f_bsize.into())].into_iter().find(|n| *n > 0);
    let bytes = |blocks: u64| blocks.saturating_mul(unit.unwrap_or(1));
    let fixed = stat.f_files > 0;
    let space = FilesystemSpace {
        capacity_bytes: bytes(stat.f_blocks),
        available_bytes: bytes(stat.f_bavail),
        usage_bytes: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
        inodes: fixed.then_some(stat.f_files),
        inodes_free: fixed.then_some(stat.f_ffree),
    };
    Ok((space, number(stat.f_type.into())))
}
