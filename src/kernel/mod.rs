//! The only code that opens kernel files.
//!
//! [`Roots`] says where they are, so that every reader works on the live
//! kernel, on a host mounted below `/host` and on a captured tree alike.
//! Readers return [`ReadError`], which is small and never allocates: the path
//! is added where an error is logged.

pub mod cgroup;
pub mod cgroupstats;
pub mod ends;
pub mod file;
pub mod handles;
pub mod kmsg;
pub mod mounts;
pub mod oom;
pub mod own;
pub mod parse;
pub mod problems;
pub mod sock_diag;
pub mod tree;

use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// Where the host's kernel files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// The host's `/`, or where it is mounted.
    pub host: PathBuf,
    /// `<host>/proc`.
    pub proc: PathBuf,
    /// `<host>/sys`.
    pub sys: PathBuf,
    /// Files of the host with the machine's id, the first that has one counts; the
    /// usual ones where none are named.
    pub machine_ids: Vec<PathBuf>,
    /// Likewise with the boot's.
    pub boot_ids: Vec<PathBuf>,
}

impl Roots {
    /// The roots below `host`.
    pub fn new(host: &Path) -> Self {
        Roots {
            host: host.to_path_buf(),
            proc: host.join("proc"),
            sys: host.join("sys"),
            machine_ids: Vec::new(),
            boot_ids: Vec::new(),
        }
    }

    /// Whether the host is the one this process runs on, seen from its own `/`.
    pub fn is_live(&self) -> bool {
        self.host == Path::new("/")
    }

    /// An absolute host path as seen from here.
    pub fn in_host(&self, path: &Path) -> PathBuf {
        self.host.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// A path of the kernel's as text; bytes that are not UTF-8 become `\xHH`, so that
/// different names stay different.
pub fn lossless_text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 1);
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Why a kernel file gave no figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The cgroup or process is gone (ENOENT, ENODEV, ESRCH): normal, not a failure.
    #[error("gone")]
    Gone,
    /// This kernel, or this cgroup, does not offer the file (EOPNOTSUPP, EINVAL).
    #[error("not supported by this kernel")]
    Unsupported,
    /// Permission denied.
    #[error("permission denied")]
    Denied,
    /// No descriptor left (EMFILE, ENFILE).
    #[error("out of file descriptors")]
    Exhausted,
    /// Any other error of the system call.
    #[error("{0}")]
    Os(Errno),
    /// The content is not what the kernel documents; the line counts from 1.
    #[error("malformed at line {line}")]
    Malformed {
        /// First line that could not be parsed.
        line: u32,
    },
    /// More than the reader accepts.
    #[error("larger than the limit of the reader")]
    TooLarge,
}

impl From<Errno> for ReadError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ENOENT | Errno::ENODEV | Errno::ESRCH | Errno::ENOTDIR => ReadError::Gone,
            Errno::EOPNOTSUPP | Errno::EINVAL => ReadError::Unsupported,
            Errno::EACCES | Errno::EPERM => ReadError::Denied,
            Errno::EMFILE | Errno::ENFILE => ReadError::Exhausted,
            other => ReadError::Os(other),
        }
    }
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(code) => Errno::from_raw(code).into(),
            None => ReadError::Os(Errno::EIO),
        }
    }
}
