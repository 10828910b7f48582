//! Opening directories of the host in a way that nobody can lead astray.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::{Errno, Result as SysResult};

use crate::kernel::ReadError;

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
