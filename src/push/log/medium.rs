//! Where the log's file lies: a directory, with a lock beside the file.
//!
//! `queue.lock` keeps a second process out and tells its number. It also holds
//! two marks that must outlive the file of the log itself, so that no sequence
//! is given out twice in one directory: it is overwritten in place, which a full
//! disk allows.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::StorageBackend;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::OpenError;

/// Name of the file in the directory.
pub const FILE: &str = "queue.redb";
const LOCK: &str = "queue.lock";

/// What was set aside is kept for a look; the newest of it only, since each may
/// be as large as the log.
const KEPT: usize = 1;

/// Sequences that were, or may have been, given out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// Above every sequence in the file: where to go on when the file is lost.
    pub ceiling: u64,
    /// Above every sequence given out while the file could not be written; 0 when
    /// there are none. Where to go on in any case.
    pub memory: u64,
}

/// What the log is kept on. The tests have one that fails.
pub trait Medium: Debug + Send {
    /// Opens the storage, which is empty when it is new.
    ///
    /// # Errors
    /// It cannot be opened. [`io::ErrorKind::IsADirectory`] and
    /// [`io::ErrorKind::InvalidData`] mean that something else is in its place.
    fn open(&mut self) -> io::Result<Arc<dyn StorageBackend>>;

    /// Makes sure that there is room for so many bytes, where that can be had
    /// beforehand, without making the storage longer.
    ///
    /// # Errors
    /// There is none.
    fn reserve(&mut self, len: u64) -> io::Result<()>;

    /// Gives what is there another name, so that `open` begins anew.
    ///
    /// # Errors
    /// It cannot be renamed.
    fn set_aside(&mut self, why: &str, now_ms: u64) -> io::Result<PathBuf>;

    /// Opens what `set_aside` gave another name, only to read it.
    ///
    /// # Errors
    /// It cannot be opened.
    fn look(&mut self, aside: &Path) -> io::Result<Arc<dyn StorageBackend>>;

    /// The marks last written; zeros without any.
    fn marks(&self) -> Marks;

    /// Writes the marks.
    ///
    /// # Errors
    /// They cannot be written.
    fn mark(&mut self, marks: Marks) -> io::Result<()>;
}

/// A directory that this process has locked.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    lock: File,
}

impl Directory {
    /// Makes the directory and locks it for this process.
    ///
    /// # Errors
    /// It cannot be made or written, or another process has it.
    pub fn lock(path: &Path) -> Result<Directory, OpenError> {
        let failed = |cause| OpenError::Directory { path: path.to_owned(), cause };
        fs::create_dir_all(path).map_err(failed)?;
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = numbers(&lock)[0];
                return Err(OpenError::Busy { path: path.to_owned(), process: holder });
            }
            Err(TryLockError::Error(cause)) => return Err(failed(cause)),
        }
        let directory = Directory { path: path.to_owned(), lock };
        directory.write(directory.marks()).map_err(failed)?;
        Ok(directory)
    }

    fn write(&self, marks: Marks) -> io::Result<()> {
        // Of one length always, so that it is written over in place.
        let process = std::process::id();
        let text =
            format!("process {process:020}\nceiling {:020}\nmemory {:020}\n", marks.ceiling, marks.memory);
        self.lock.write_all_at(text.as_bytes(), 0)?;
        self.lock.sync_data()
    }
}

/// Takes the blocks for so many bytes of a file.
fn reserve(file: &File, len: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, len) {
        // Not every filesystem can; there a full disk is noticed later.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        Err(error) => {
            // What it had got before it failed.
            file.set_len(file.metadata()?.len())?;
            Err(error.into())
        }
    }
}

/// A file with room on the disk for all of its length: so a disk that is full
/// refuses to make it longer, and takes every change within it. Dropping the oldest
/// steps then makes room for new ones. `queue.lock` keeps others out, and redb
/// does without locks of its own.
#[derive(Debug)]
struct Reserved(File);

impl StorageBackend for Reserved {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.len()? {
            reserve(&self.0, len)?;
        }
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// The numbers in a lock file, 0 for each that is not there.
fn numbers(lock: &File) -> [u64; 3] {
    let mut text = [0; 256];
    let read = lock.read_at(&mut text, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(text.get(..read).unwrap_or_default()).into_owned();
    let number = |key: &str| {
        let word = text.lines().find_map(|line| line.strip_prefix(key));
        word.and_then(|word| word.trim().parse().ok()).unwrap_or(0)
    };
    [number("process "), number("ceiling "), number("memory ")]
}

impl Medium for Directory {
    fn open(&mut self) -> io::Result<Arc<dyn StorageBackend>> {
        let path = self.path.join(FILE);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // The file's name must outlive a power cut as its content does.
        File::open(&self.path)?.sync_all()?;
        Ok(Arc::new(Reserved(file)))
    }

    fn reserve(&mut self, len: u64) -> io::Result<()> {
        reserve(&File::options().write(true).open(self.path.join(FILE))?, len)
    }

    fn set_aside(&mut self, why: &str, now_ms: u64) -> io::Result<PathBuf> {
        let prefix = format!("{FILE}.{why}-");
        let to = self.path.join(format!("{prefix}{now_ms}"));
        fs::rename(self.path.join(FILE), &to)?;
        let mut others: Vec<_> = fs::read_dir(&self.path)?
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                let rest = name.to_str().and_then(|n| n.strip_prefix(FILE)).and_then(|n| n.strip_prefix('.'));
                let ours = rest.is_some_and(|rest| rest.rsplit_once('-').is_some_and(|(_, t)| is_number(t)));
                // What somebody put there as a directory is not ours to delete.
                ours && entry.file_type().is_ok_and(|t| t.is_file()) && entry.path() != to
            })
            .collect();
        others.sort_by_key(|entry| std::cmp::Reverse(entry.metadata().and_then(|m| m.modified()).ok()));
        for old in others.iter().skip(KEPT - 1) {
            fs::remove_file(old.path())?;
        }
        Ok(to)
    }

    fn look(&mut self, aside: &Path) -> io::Result<Arc<dyn StorageBackend>> {
        let file = File::open(aside)?;
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Arc::new(Reserved(file)))
    }

    fn marks(&self) -> Marks {
        let [_, ceiling, memory] = numbers(&self.lock);
        Marks { ceiling, memory }
    }

    fn mark(&mut self, marks: Marks) -> io::Result<()> {
        self.write(marks)
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}
