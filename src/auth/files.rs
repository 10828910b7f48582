//! Files that are read again when they change.
//!
//! Kubernetes replaces a mounted secret by turning the symbolic link above it,
//! so a change is told by what the path leads to: device, inode, times and
//! size. Looking costs a `stat` each, which every few seconds is nothing and
//! needs no watch that could be lost.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Most bytes of a file with certificates or tokens.
const MOST_BYTES: u64 = 1 << 20;

/// Why files with certificates or tokens cannot be used. Names the file, never
/// what is in it.
#[derive(Debug, Error)]
#[error("{path}: {cause}", path = path.display())]
pub struct FileError {
    path: PathBuf,
    cause: String,
}

impl FileError {
    pub(super) fn new(path: &Path, cause: impl std::fmt::Display) -> FileError {
        FileError { path: path.to_path_buf(), cause: cause.to_string() }
    }
}

/// Reads a whole file.
///
/// # Errors
/// It cannot be read, or is larger than any such file should be.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let result = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
    result.map_err(|error| FileError::new(path, error))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(FileError::new(path, format_args!("larger than {MOST_BYTES} bytes")));
    }
    Ok(bytes)
}

/// What a path led to at some time; `None` if nowhere.
type Stamp = Option<(u64, u64, i64, i64, i64, i64, u64)>;

fn stamp(path: &Path) -> Stamp {
    let meta: io::Result<_> = std::fs::metadata(path);
    let m = meta.ok()?;
    Some((m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec(), m.size()))
}

/// Files, and what they were when last looked at.
#[derive(Debug)]
pub(super) struct Watched {
    paths: Vec<PathBuf>,
    stamps: Vec<Stamp>,
}

impl Watched {
    /// The files as they are now: to be called before they are read, so that a
    /// change meanwhile is seen the next time.
    pub(super) fn new(paths: Vec<PathBuf>) -> Watched {
        let stamps = paths.iter().map(|path| stamp(path)).collect();
        Watched { paths, stamps }
    }

    /// Whether one has changed since the last call.
    pub(super) fn changed(&mut self) -> bool {
        let now: Vec<_> = self.paths.iter().map(|path| stamp(path)).collect();
        let changed = now != self.stamps;
        self.stamps = now;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turned_link_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for version in ["1", "2"] {
            std::fs::create_dir(at(version)).unwrap();
            std::fs::write(at(version).join("tls.crt"), "same").unwrap();
        }
        std::os::unix::fs::symlink("1", at("data")).unwrap();
        let mut watched = Watched::new(vec![at("data/tls.crt")]);
        assert!(!watched.changed());
        std::os::unix::fs::symlink("2", at("next")).unwrap();
        std::fs::rename(at("next"), at("data")).unwrap();
        assert_eq!((watched.changed(), watched.changed()), (true, false));
        std::fs::write(at("2/tls.crt"), "other text").unwrap();
        assert!(watched.changed());
        std::fs::remove_file(at("2/tls.crt")).unwrap();
        assert_eq!((watched.changed(), watched.changed()), (true, false), "gone is a change, once");
    }
}
