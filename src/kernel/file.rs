//! Reads whole kernel files into one reused buffer.
//!
//! The calls a tick makes by the thousand go to the kernel directly: the C library's are
//! places where a thread may be cancelled, and seeing to that is a tenth of a short read.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use rustix::fs::OFlags;

use super::ReadError;

/// Largest file we accept. The biggest per-cgroup file is `cgroup.procs`: seven
/// bytes per process.
const MAX_FILE: usize = 4 << 20;

/// The one buffer of a reading thread.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Buffer {
    /// 16 KiB to begin with, which holds every file we read each tick; grows to 4 MiB.
    pub fn new() -> Self {
        Buffer { bytes: vec![0; 16 << 10] }
    }

    /// One positioned read from the start of a file that the kernel writes in
    /// one piece: every cgroup statistics file. Returns the length for
    /// [`Buffer::text`]. A cgroup that is gone answers [`ReadError::Gone`]
    /// (ENODEV) for ever on a held handle, also when its name has come back.
    #[inline]
    pub fn fill_at_once(&mut self, fd: BorrowedFd<'_>) -> Result<usize, ReadError> {
        loop {
            let count = directly(|| rustix::io::pread(fd, &mut *self.bytes, 0))?;
            // A full buffer says nothing about the rest of the file.
            if count < self.bytes.len() {
                return Ok(count);
            }
            self.grow()?;
        }
    }

    /// Reads to the end of a file that the kernel writes record by record
    /// (`cgroup.procs`, `net/dev`, `mountinfo`): a short read is not its end.
    pub fn fill_to_end(&mut self, fd: BorrowedFd<'_>) -> Result<usize, ReadError> {
        let mut filled = 0;
        loop {
            if filled == self.bytes.len() {
                self.grow()?;
            }
            let space = self.bytes.get_mut(filled..).unwrap_or(&mut []);
            let offset = u64::try_from(filled).map_err(|_| ReadError::TooLarge)?;
            let count = directly(|| rustix::io::pread(fd, &mut *space, offset))?;
            if count == 0 {
                return Ok(filled);
            }
            filled += count;
        }
    }

    /// The first `len` bytes, as the last fill left them.
    #[inline]
    pub fn text(&self, len: usize) -> &[u8] {
        self.bytes.get(..len).unwrap_or(&[])
    }

    /// Opens, reads to the end and closes `path`.
    pub fn read_path(&mut self, path: &Path) -> Result<&[u8], ReadError> {
        let fd = open(path)?;
        let len = self.fill_to_end(fd.as_fd())?;
        Ok(self.text(len))
    }

    fn grow(&mut self) -> Result<(), ReadError> {
        let next = self.bytes.len() * 2;
        if next > MAX_FILE {
            return Err(ReadError::TooLarge);
        }
        self.bytes.resize(next, 0);
        Ok(())
    }
}

#[inline]
fn directly<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> Result<T, ReadError> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map_err(|error| Errno::from_raw(error.raw_os_error()).into()),
        }
    }
}

#[inline]
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, ReadError> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other.map_err(ReadError::from),
        }
    }
}

const FILE: OFlag = OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY);
const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC).union(OFlag::O_DIRECTORY);

/// Opens a file for reading.
pub fn open(path: &Path) -> Result<OwnedFd, ReadError> {
    retry(|| nix::fcntl::open(path, FILE, Mode::empty()))
}

/// Opens a file below a directory handle for reading.
#[inline]
pub fn open_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, ReadError> {
    const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
    directly(|| rustix::fs::openat(dir, name, FLAGS, rustix::fs::Mode::empty()))
}

/// Opens a directory handle that can only be used to open what lies below it.
pub fn open_directory(path: &Path) -> Result<OwnedFd, ReadError> {
    retry(|| nix::fcntl::open(path, DIRECTORY, Mode::empty()))
}

/// Opens a directory handle below another one.
#[inline]
pub fn open_directory_at<P: NixPath + ?Sized>(dir: BorrowedFd<'_>, name: &P) -> Result<OwnedFd, ReadError> {
    retry(|| openat(dir, name, DIRECTORY, Mode::empty()))
}

/// The text of a small file, trimmed; `None` when it cannot be read.
pub fn read_trimmed(path: &Path) -> Option<String> {
    let mut buffer = Buffer { bytes: vec![0; 4096] };
    let text = buffer.read_path(path).ok()?;
    Some(String::from_utf8_lossy(text).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
}
