//! Unix sockets of runtimes: found among the usual places, and checked for
//! having been replaced.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

use super::source::SourceError;

/// A socket that was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Socket {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Socket {
    /// The first of `paths` that is a socket.
    ///
    /// # Errors
    /// Absent when none is; otherwise why the first that is there cannot be used.
    pub(super) fn find(paths: &[PathBuf]) -> Result<Socket, SourceError> {
        let mut reason = SourceError::Absent;
        for path in paths {
            match Socket::at(path) {
                Ok(socket) => return Ok(socket),
                Err(error) if matches!(reason, SourceError::Absent) => reason = error,
                Err(_) => {}
            }
        }
        Err(reason)
    }

    fn at(path: &Path) -> Result<Socket, SourceError> {
        let meta = std::fs::metadata(path).map_err(|e| SourceError::io("look for the socket", &e))?;
        if !meta.file_type().is_socket() {
            return Err(SourceError::failed(
                "look for the socket",
                format!("{} is no socket", path.display()),
            ));
        }
        Ok(Socket { path: path.to_path_buf(), device: meta.dev(), inode: meta.ino() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether another socket lies at its path now, or none: a connection to
    /// the old one may stay open and silent.
    pub(super) fn is_replaced(&self) -> bool {
        Socket::at(&self.path).ok().as_ref() != Some(self)
    }

    /// Connects.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn connect(&self) -> Result<UnixStream, SourceError> {
        UnixStream::connect(&self.path).await.map_err(|e| SourceError::io("connect", &e))
    }
}
