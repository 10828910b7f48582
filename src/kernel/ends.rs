//! When the last process of a cgroup has ended, told by the kernel.
//!
//! On v2, and in the v2 tree of a hybrid host, `cgroup.events` says `populated 1` or
//! `populated 0` of a cgroup with all below it, and inotify tells when that changes
//! (IN_MODIFY, at most once in ten milliseconds). A runtime removes the cgroup only
//! after that, so its figures can be read a last time. v1 has nothing of the kind.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use super::cgroup::{Layout, TreeId};
use super::handles::{FileKey, Pace, Reader};
use super::parse::{Keyed, MAX_KEYS, Values};
use super::tree::Node;
use crate::snapshot::Cgroup;

/// Cgroups watched at most. A watch keeps an inode in memory, about a kilobyte.
const MAX_WATCHES: usize = 8192;

/// What the watches came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndCounts {
    /// Cgroups watched, now.
    pub watches: u64,
    /// Times the kernel dropped events, since start.
    pub overflows: u64,
}

/// Watches on `cgroup.events`.
#[derive(Debug)]
pub struct Ends {
    inotify: Inotify,
    tree: TreeId,
    events: FileKey,
    keys: Keyed,
    watched: HashMap<WatchDescriptor, (u64, Arc<Cgroup>)>,
    by_node: HashMap<u64, WatchDescriptor>,
    overflows: u64,
    /// No more watches were to be had; it is tried again when one was given back.
    full: bool,
    /// And that was said.
    warned: bool,
}

impl Ends {
    /// `None` where the kernel does not tell: v1 only, a captured tree, or no inotify
    /// instance to be had.
    pub fn new(layout: &Layout, reader: &mut Reader) -> Option<Ends> {
        let tree = layout.unified()?;
        layout.trees.get(tree.index()).filter(|root| root.is_cgroupfs)?;
        let events = reader.register(tree, "cgroup.events", Pace::Slow)?;
        match Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC) {
            Ok(inotify) => Some(Ends {
                inotify,
                tree,
                events,
                keys: Keyed::new(&["populated"]),
                watched: HashMap::new(),
                by_node: HashMap::new(),
                overflows: 0,
                full: false,
                warned: false,
            }),
            Err(error) => {
                tracing::warn!(%error, "no inotify instance to be had: what containers use at their end may be missed");
                None
            }
        }
    }

    /// Watches a cgroup, once it is in the v2 tree.
    pub fn watch(&mut self, layout: &Layout, node: &mut Node) {
        let Some(root) = layout.trees.get(self.tree.index()) else { return };
        let room = self.watched.len() < MAX_WATCHES && !self.full;
        if node.end_is_told || !room || !node.files.exists_in(self.tree) {
            return;
        }
        let path = root.path.join(OsStr::from_bytes(node.files.relative().to_bytes())).join("cgroup.events");
        match self.inotify.add_watch(&path, AddWatchFlags::IN_MODIFY) {
            Ok(descriptor) => {
                node.end_is_told = true;
                self.watched.insert(descriptor, (node.id, Arc::clone(&node.cgroup)));
                self.by_node.insert(node.id, descriptor);
            }
            // It is gone already.
            Err(Errno::ENOENT) => {}
            Err(error) => {
                self.full = true;
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(
                        %error,
                        watches = self.watched.len(),
                        "no more inotify watches to be had (fs.inotify.max_user_watches): what containers use at their end may be missed"
                    );
                }
            }
        }
    }

    /// The cgroup is gone.
    pub fn forget(&mut self, node: u64) {
        if let Some(descriptor) = self.by_node.remove(&node) {
            self.watched.remove(&descriptor);
            self.full = false;
            // The kernel may have taken the watch away with the file.
            let _ = self.inotify.rm_watch(descriptor);
        }
    }

    /// Hands over the nodes, by id and who they were when they were first watched, of
    /// which something changed since the last time.
    pub fn drain(&mut self, mut each: impl FnMut(u64, &Arc<Cgroup>)) {
        while let Ok(events) = self.inotify.read_events() {
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    self.overflows += 1;
                } else if event.mask.contains(AddWatchFlags::IN_MODIFY)
                    && let Some((id, cgroup)) = self.watched.get(&event.wd)
                {
                    each(*id, cgroup);
                }
            }
        }
    }

    /// Whether the last process of this cgroup and of all below it has ended; false
    /// where that cannot be told.
    pub fn has_ended(&mut self, layout: &Layout, reader: &mut Reader, node: &mut Node) -> bool {
        let mut values: Values = [None; MAX_KEYS];
        let read = match reader.read(layout, &mut node.files, self.events) {
            Ok(Some(text)) => self.keys.read(text, &mut values).is_ok(),
            Ok(None) | Err(_) => false,
        };
        let [populated, ..] = values;
        read && populated == Some(0)
    }

    /// A descriptor that becomes readable when there is something to drain.
    pub fn readable(&self) -> Option<OwnedFd> {
        self.inotify.as_fd().try_clone_to_owned().ok()
    }

    /// What the watches came to.
    pub fn counts(&self) -> EndCounts {
        EndCounts { watches: self.watched.len() as u64, overflows: self.overflows }
    }
}
