//! What inotify tells of one tree of cgroups.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// Watches on directories.
#[derive(Debug)]
pub(super) struct Watcher {
    inotify: Inotify,
    paths: HashMap<WatchDescriptor, CString>,
}

/// One thing that was told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event<'a> {
    /// The kernel dropped events.
    Overflow,
    /// A child of this directory came or went.
    Children(&'a CString),
    /// A file of this directory was written to: limits may have changed.
    Written(&'a CString),
}

impl Watcher {
    /// `None` where no instance is to be had.
    pub(super) fn new() -> Option<Watcher> {
        match Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC) {
            Ok(inotify) => Some(Watcher { inotify, paths: HashMap::new() }),
            Err(error) => {
                tracing::warn!(%error, "no inotify instance to be had: new cgroups are found by polling");
                None
            }
        }
    }

    /// Watches a directory of the tree at `root`. False when no more watches are
    /// to be had.
    pub(super) fn add(&mut self, root: &Path, relative: &CStr) -> bool {
        let children = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO;
        let added = self.watch(root, relative, children);
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
    pub(super) fn add_limits(&mut self, root: &Path, relative: &CStr) -> bool {
        let added = self.watch(root, relative, AddWatchFlags::empty());
        if let Err(error) = added {
            tracing::warn!(
                %error,
                watches = self.len(),
                "no more inotify watches to be had (fs.inotify.max_user_watches): changed CPU limits are noticed late"
            );
        }
        added.is_ok()
    }

    fn watch(&mut self, root: &Path, relative: &CStr, children: AddWatchFlags) -> Result<(), Errno> {
        let path = root.join(OsStr::from_bytes(relative.to_bytes()));
        // Written and closed: limits of this directory changed. The kernel's own
        // notifications (memory.events and the like) do not close.
        let mask = children | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_ONLYDIR;
        match self.inotify.add_watch(&path, mask) {
            Ok(descriptor) => {
                self.paths.insert(descriptor, relative.to_owned());
                Ok(())
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Hands over what has been told since the last time.
    pub(super) fn drain(&mut self, mut each: impl FnMut(Event<'_>)) {
        while let Ok(events) = self.inotify.read_events() {
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    each(Event::Overflow);
                } else if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    self.paths.remove(&event.wd);
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
