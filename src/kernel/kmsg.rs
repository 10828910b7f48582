//! Follows the kernel's log at `/dev/kmsg`, from now on.
//!
//! The ring holds what was logged since boot as far as it fits; reading begins
//! behind the newest record, so that nothing of the past is told again. A reader
//! that is too slow loses the oldest records (EPIPE); how many shows in the
//! sequence numbers.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{fstat, major, minor};
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use nix::unistd::{Whence, lseek};

use super::{ReadError, Roots, file, oom};

/// Longer than any record: the kernel's own limit is 8 KiB with escapes.
const MAX_RECORD: usize = 16 << 10;

/// Device numbers of `/dev/kmsg`.
const DEVICE: (u64, u64) = (1, 11);

/// An open log.
#[derive(Debug)]
pub struct Kmsg {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

/// What a read gave.
#[derive(Debug)]
pub enum Next<'a> {
    /// The next record, for [`oom::record`].
    Record(&'a [u8]),
    /// Records were lost: overwritten before they were read.
    Overrun,
    /// Nothing more for now.
    Nothing,
}

impl Kmsg {
    /// Opens the host's log behind its newest record.
    ///
    /// # Errors
    /// [`ReadError::Gone`] where there is none, [`ReadError::Denied`] without
    /// CAP_SYSLOG or where the container may not use the device,
    /// [`ReadError::Unsupported`] for a file that is not the device.
    pub fn open(roots: &Roots) -> Result<Kmsg, ReadError> {
        let mut result = Err(ReadError::Gone);
        for path in places(roots) {
            result = match (Kmsg::open_at(&path), result) {
                (Err(ReadError::Gone), before) => before,
                (Ok(kmsg), _) => return Ok(kmsg),
                (Err(error), _) => Err(error),
            };
        }
        result
    }

    fn open_at(path: &Path) -> Result<Kmsg, ReadError> {
        let fd = file::open(path)?;
        let stat = fstat(&fd)?;
        // A container may have a pipe or a plain file of that name, in which
        // anybody's words could pass for the kernel's.
        let is_device = stat.st_mode & libc::S_IFMT == libc::S_IFCHR
            && (major(stat.st_rdev), minor(stat.st_rdev)) == DEVICE;
        if !is_device {
            return Err(ReadError::Unsupported);
        }
        lseek(&fd, 0, Whence::SeekEnd)?;
        Ok(Kmsg { fd, buffer: vec![0; MAX_RECORD] })
    }

    /// Waits until there is something to read, at most so long.
    pub fn wait(&self, at_most: Duration) {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        // Whatever it says, the read that follows says it better.
        let _ = poll(&mut fds, timeout);
    }

    /// The next record, without waiting for one.
    ///
    /// # Errors
    /// The device cannot be read any more.
    pub fn read(&mut self) -> Result<Next<'_>, ReadError> {
        loop {
            match nix::unistd::read(&self.fd, &mut self.buffer) {
                Ok(0) | Err(Errno::EAGAIN) => return Ok(Next::Nothing),
                Ok(count) => return Ok(Next::Record(self.buffer.get(..count).unwrap_or(&[]))),
                // EINVAL: it did not fit, and has been passed over.
                Err(Errno::EPIPE | Errno::EINVAL) => return Ok(Next::Overrun),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The host's device may be mounted with the rest of the host or in its usual
/// place. A captured tree has no log that goes on.
fn places(roots: &Roots) -> Vec<PathBuf> {
    let device = Path::new("/dev/kmsg");
    let mut places = vec![roots.in_host(device)];
    let live = statfs(&roots.proc).is_ok_and(|s| s.filesystem_type() == PROC_SUPER_MAGIC);
    if live && !roots.is_live() {
        places.push(device.to_path_buf());
    }
    places
}

/// The cgroup a process is in, as far as `/proc` still tells; see [`oom::memory_cgroup`].
pub fn memory_cgroup_of(roots: &Roots, pid: u32, buffer: &mut file::Buffer) -> Option<String> {
    let path = roots.proc.join(pid.to_string()).join("cgroup");
    oom::memory_cgroup(buffer.read_path(&path).ok()?)
}
