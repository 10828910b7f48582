//! A file as the place: JSON, replaced as a whole under a lock of its own beside it.
//!
//! It has to lie where all aggregators can write and lock: a directory of one
//! machine, or a shared filesystem with locks.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{Decide, Exchanged, Held, Place};
use crate::aggregator::sending::replace;

/// See the module.
#[derive(Debug)]
pub struct FilePlace {
    path: PathBuf,
}

impl FilePlace {
    /// At this path.
    pub fn new(path: PathBuf) -> FilePlace {
        FilePlace { path }
    }
}

impl Place for FilePlace {
    fn exchange<'a>(&'a mut self, mut decide: Decide<'a>) -> Exchanged<'a> {
        // A few bytes, and a lock that is not waited for: as quick as the disk, and
        // the holder of a lease on a disk that hangs is not to go on.
        Box::pin(async move { exchange(&self.path, &mut decide) })
    }
}

fn exchange(path: &Path, decide: &mut Decide<'_>) -> Result<Option<Held>> {
    let shown = path.display();
    let beside = path.with_extension("lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&beside);
    let lock = lock.with_context(|| format!("open {}", beside.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!("another is just looking at {shown}"),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("lock {}", beside.display()));
        }
    }
    let held = match fs::read(path) {
        // What nobody can read says nothing of a holder: it is taken after a whole
        // lease, as one that is not renewed.
        Ok(bytes) => Some(
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Held { holder: "unreadable".to_owned(), ..Held::default() }),
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("read {shown}")),
    };
    match decide(held.as_ref()) {
        None => Ok(held),
        Some(new) => {
            let bytes = serde_json::to_vec(&new).context("write the lease")?;
            replace(path, &bytes).with_context(|| format!("write {shown}"))?;
            Ok(Some(new))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_replaced_or_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lease");
        let take = |name: &'static str| {
            let mut decide: Decide<'_> = Box::new(move |held| {
                Some(Held { holder: format!("{name}{}", held.is_some()), ..Held::default() })
            });
            exchange(&path, &mut decide).unwrap().unwrap().holder
        };
        assert_eq!((take("a"), take("b")), ("afalse".to_owned(), "btrue".to_owned()));
        let mut leave: Decide<'_> = Box::new(|_| None);
        assert_eq!(exchange(&path, &mut leave).unwrap().unwrap().holder, "btrue");
        fs::write(&path, "{").unwrap();
        assert_eq!(exchange(&path, &mut leave).unwrap().unwrap().holder, "unreadable");
        let lock = File::open(path.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        assert!(exchange(&path, &mut leave).is_err(), "nobody waits for the other");
    }
}
