//! What inotify tells of one tree of cgroups.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// Watches on directories. One that is removed keeps its watch, and its inode with it, until
/// the watch is given back: cgroupfs does not tell of the end of a directory.
#[derive(Debug)]
pub(super) struct Watcher {
    inotify: Inotify,
    paths: HashMap<WatchDescriptor, Arc<CStr>>,
    children: HashMap<Arc<CStr>, WatchDescriptor>,
    limits: HashMap<Arc<CStr>, WatchDescriptor>,
}

/// What a watch is for.
#[derive(Debug, Clone, Copy)]
enum Told {
    Children,
    Limits,
}

const CHILDREN: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO);

/// One thing that was told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event<'a> {
    /// The kernel dropped events.
    Overflow,
    /// A child of this directory came or went.
    Children(&'a CStr),
    /// A file of this directory was written to: limits may have changed.
    Written(&'a CStr),
}

impl Watcher {
    /// `None` where no instance is to be had.
    pub(super) fn new() -> Option<Watcher> {
        match Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC) {
            Ok(inotify) => Some(Watcher {
                inotify,
                paths: HashMap::new(),
                children: HashMap::new(),
                limits: HashMap::new(),
            }),
            Err(error) => {
                tracing::warn!(%error, "no inotify instance to be had: new cgroups are found by polling");
                None
            }
        }
    }

    /// Watches a directory of the tree at `root`. False when no more watches are
    /// to be had.
    pub(super) fn add(&mut self, root: &Path, relative: &Arc<CStr>) -> bool {
        let added = self.watch(root, relative, Told::Children);
        if let Err(error) = added {
            tracing::warn!(
                %error,
                watches = self.len(),
                "no more inotify watches to be had (fs.inotify.max_user_watches): new cgroups are found by polling"
            );
        }
        added.is_ok()
    }

    /// Watches a directory of another tree for limits that are written. False when no
    /// more watches are to be had.
    pub(super) fn add_limits(&mut self, root: &Path, relative: &Arc<CStr>) -> bool {
        let added = self.watch(root, relative, Told::Limits);
        if let Err(error) = added {
            tracing::warn!(
                %error,
                watches = self.len(),
                "no more inotify watches to be had (fs.inotify.max_user_watches): changed CPU limits are noticed late"
            );
        }
        added.is_ok()
    }

    fn watch(&mut self, root: &Path, relative: &Arc<CStr>, told: Told) -> Result<(), Errno> {
        let path = root.join(OsStr::from_bytes(relative.to_bytes()));
        // Written and closed: limits of this directory changed. The kernel's own
        // notifications (memory.events and the like) do not close.
        let shared = self.children.get_key_value(&**relative).map(|(known, _)| Arc::clone(known));
        let (known, mask) = match told {
            Told::Children => (&mut self.children, CHILDREN | AddWatchFlags::IN_CLOSE_WRITE),
            Told::Limits => (&mut self.limits, AddWatchFlags::IN_CLOSE_WRITE),
        };
        match self.inotify.add_watch(&path, mask | AddWatchFlags::IN_ONLYDIR) {
            Ok(descriptor) => {
                let relative = shared.unwrap_or_else(|| Arc::clone(relative));
                match known.entry(Arc::clone(&relative)) {
                    Entry::Occupied(same) if *same.get() == descriptor => return Ok(()),
                    Entry::Occupied(mut other) => {
                        // The name came back as another directory.
                        let old = other.insert(descriptor);
                        self.paths.remove(&old);
                        let _ = self.inotify.rm_watch(old);
                    }
                    Entry::Vacant(new) => drop(new.insert(descriptor)),
                }
                self.paths.insert(descriptor, relative);
                Ok(())
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The directory is gone, or nothing about it is of interest any more.
    pub(super) fn forget(&mut self, relative: &CStr) {
        for known in [&mut self.children, &mut self.limits] {
            if let Some(descriptor) = known.remove(relative) {
                self.paths.remove(&descriptor);
                // Other filesystems than cgroupfs took it away with the directory.
                let _ = self.inotify.rm_watch(descriptor);
            }
        }
    }

    /// Forgets every directory of which this is not said.
    pub(super) fn retain(&mut self, mut wanted: impl FnMut(&CStr) -> bool) {
        let of = |known: &HashMap<Arc<CStr>, WatchDescriptor>| known.keys().cloned().collect::<Vec<_>>();
        for relative in [of(&self.children), of(&self.limits)].concat() {
            if !wanted(&relative) {
                self.forget(&relative);
            }
        }
    }

    /// Hands over what has been told since the last time.
    pub(super) fn drain(&mut self, mut each: impl FnMut(Event<'_>)) {
        while let Ok(events) = self.inotify.read_events() {
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    each(Event::Overflow);
                } else if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    let Some(path) = self.paths.remove(&event.wd) else { continue };
                    for known in [&mut self.children, &mut self.limits] {
                        if known.get(&path) == Some(&event.wd) {
                            known.remove(&path);
                        }
                    }
                } else if let Some(path) = self.paths.get(&event.wd) {
                    let written = event.mask.contains(AddWatchFlags::IN_CLOSE_WRITE);
                    each(if written { Event::Written(path) } else { Event::Children(path) });
                }
            }
        }
    }

    /// Directories watched.
    pub(super) fn len(&self) -> u64 {
        self.paths.len() as u64
    }

    /// A descriptor that becomes readable when there is something to drain.
    pub(super) fn readable(&self) -> Option<OwnedFd> {
        self.inotify.as_fd().try_clone_to_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_was_made_again_has_one_watch_and_a_forgotten_one_none() {
        let root = tempfile::tempdir().unwrap();
        let (all, cpu) = (root.path().join("all"), root.path().join("cpu"));
        let path = all.join("a");
        std::fs::create_dir_all(&path).unwrap();
        std::fs::create_dir_all(cpu.join("a")).unwrap();
        let mut watcher = Watcher::new().unwrap();
        let a: Arc<CStr> = Arc::from(c"a");
        assert!(watcher.add(&all, &a) && watcher.add_limits(&cpu, &a));
        assert!(watcher.add(&all, &a), "watching it again changes nothing");
        // Renamed, so that the watch stays with the directory as it does in cgroupfs.
        std::fs::rename(&path, all.join("b")).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(watcher.add(&all, &a));
        std::fs::create_dir(all.join("b/old")).unwrap();
        assert_eq!(watcher.len(), 2);
        std::fs::create_dir(path.join("new")).unwrap();
        std::fs::write(cpu.join("a/limit"), "1").unwrap();
        let mut told = Vec::new();
        watcher.drain(|event| told.push(format!("{event:?}")));
        assert_eq!(told, [r#"Children("a")"#, r#"Written("a")"#]);

        watcher.retain(|path| path == c"a");
        assert_eq!(watcher.len(), 2);
        watcher.forget(c"a");
        assert_eq!((watcher.len(), watcher.children.len(), watcher.limits.len()), (0, 0, 0));
        std::fs::create_dir(path.join("newer")).unwrap();
        watcher.drain(|event| panic!("{event:?}"));
    }
}
