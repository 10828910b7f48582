//! Which cgroups there are: the tree, and what changed in it.
//!
//! Changes come from inotify watches on one tree (every runtime creates a
//! container's cgroups in all of them; v1's CPU limits lie in another and are watched
//! there), and, where watches do not suffice, from the link count of the directories,
//! which cgroup filesystems keep at two plus the number of children. Every minute
//! everything is listed again, so that nothing depends on events alone. Cgroups that
//! vanish between listing and reading are normal.

mod list;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use list::{Child, created, list};
use watch::{Event, Watcher};

use super::cgroup::{Layout, TreeRoot};
use super::handles::{CgroupFiles, Reader, inode_of};
use super::{ReadError, lossless_text};
use crate::snapshot::{Cgroup, Limit, Spec};

/// How often everything is listed again.
const FULL_SCAN: Duration = Duration::from_secs(60);

/// For so many ticks a new cgroup is looked for in the trees it is missing in:
/// runtimes create the directories of one container one after the other.
const SETTLING_TICKS: u32 = 8;

/// One cgroup.
#[derive(Debug)]
pub struct Node {
    /// Never used twice, also when a path comes back.
    pub id: u64,
    /// The row's unchanging part.
    pub cgroup: Arc<Cgroup>,
    /// Directories and handles.
    pub files: CgroupFiles,
    /// Has no child cgroups.
    pub leaf: bool,
    /// Ticks since it was found; looks in between do not count.
    pub age: u32,
    /// Its turn for what is read every tenth tick only.
    pub slow: bool,
    /// Where the cgroup above it is among the nodes; that is read before it.
    pub parent: Option<usize>,
    /// Where it was in the snapshot of the tick before.
    pub row: Option<usize>,
    /// Nothing in it ran since the tick before, as far as its CPU time is read.
    pub idle: bool,
    /// Its turn to have everything read that seems not to have moved.
    pub due: bool,
    /// It is being made: directories in some trees are still to come.
    pub unfinished: bool,
    /// Its row waits for a name.
    pub waits: bool,
    /// It is a pod or a container: what is below is a part of it.
    pub whole: bool,
    /// Where its processes' network counters go.
    pub network: NetworkRow,
    /// The kernel tells when its last process has ended.
    pub end_is_told: bool,
    /// A file in its directory was written: limits may have changed.
    pub spec_changed: bool,
    /// Writes to its limits of memory and CPU are told at once.
    pub watched: bool,
    /// Limits as last read.
    pub spec: Spec,
    links: Box<[u64]>,
    /// Was in the first tree when last looked at.
    in_first: bool,
}

/// A cgroup that vanished.
#[derive(Debug)]
pub struct Removed {
    /// See [`Node::id`].
    pub id: u64,
    /// Who it was, as far as that was known.
    pub cgroup: Arc<Cgroup>,
    /// See [`Node::waits`].
    pub waits: bool,
    /// See [`Node::whole`].
    pub whole: bool,
}

/// On which row the network namespace of a cgroup's processes is counted, if on
/// any. Namespaces are each counted once in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NetworkRow {
    /// On its own, if it was there first.
    #[default]
    Own,
    /// On the row of the cgroup with this id.
    Of(u64),
    /// Nowhere: the namespace is the host's, or another container's.
    Nowhere,
}

impl Node {
    /// Whether this is the root cgroup.
    pub fn is_root(&self) -> bool {
        self.files.relative() == c"."
    }

    /// Whether what moves only at this limit, of memory or CPU as last read, stands as it
    /// was read after that: there is none, and one that was written since would have been told.
    pub fn is_known_unlimited(&self, limit: Option<Limit>) -> bool {
        limit == Some(Limit::Max) && self.watched && !self.spec_changed && !self.slow
    }
}

/// What the tree noticed about itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeCounts {
    /// Cgroups found but not followed because of the limit, now.
    pub over_limit: u64,
    /// Directories that could not be listed, since start.
    pub unreadable: u64,
    /// Times the kernel dropped inotify events, since start.
    pub overflows: u64,
    /// Directories watched; 0 when changes are found by polling.
    pub watches: u64,
    /// Cgroups that appeared, since start.
    pub appeared: u64,
    /// Cgroups that vanished, since start.
    pub vanished: u64,
}

/// The cgroups of a host.
#[derive(Debug)]
pub struct Tree {
    /// Sorted by path; the root is first.
    pub nodes: Vec<Node>,
    /// Cgroups that vanished in the last update.
    pub removed: Vec<Removed>,
    /// Self-observation.
    pub counts: TreeCounts,
    max_cgroups: usize,
    next_id: u64,
    /// Ids below were found at the first look.
    first_look: Option<u64>,
    watcher: Option<Watcher>,
    /// No watch of v1's CPU limits was refused.
    limits_told: bool,
    dirty: BTreeSet<CString>,
    last_full: Option<Instant>,
}

/// What the tree is brought up to date for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// Everything is read next.
    Tick,
    /// Only to notice what is new.
    Look,
}

/// Makes the unchanging part of a row from path and creation time.
pub type Describe<'a> = &'a mut dyn FnMut(String, Option<u64>) -> Arc<Cgroup>;

impl Tree {
    /// An empty tree that will follow at most `max_cgroups`.
    pub fn new(max_cgroups: usize) -> Self {
        Tree {
            nodes: Vec::new(),
            removed: Vec::new(),
            counts: TreeCounts::default(),
            max_cgroups,
            next_id: 1,
            first_look: None,
            watcher: Watcher::new(),
            limits_told: true,
            dirty: BTreeSet::new(),
            last_full: None,
        }
    }

    /// Whether cgroups came or went since the last look, as far as that is told.
    pub fn has_news(&mut self) -> bool {
        self.drain_events();
        !self.dirty.is_empty() || (self.watcher.is_some() && self.last_full.is_none())
    }

    /// A descriptor that becomes readable when there may be news; none where
    /// nothing tells.
    pub fn readable(&self) -> Option<OwnedFd> {
        self.watcher.as_ref()?.readable()
    }

    /// Brings the nodes up to date; `boot` is the earliest creation time possible.
    pub fn update(
        &mut self,
        layout: &Layout,
        reader: &mut Reader,
        boot: Option<u64>,
        describe: Describe<'_>,
        occasion: Occasion,
    ) {
        self.removed.clear();
        self.drain_events();
        let full = self.last_full.is_none_or(|at| at.elapsed() >= FULL_SCAN);
        let mut scan = Scan { layout, reader, added: BTreeMap::new(), changed: false };
        if full {
            self.counts.over_limit = 0;
            self.last_full = Some(Instant::now());
            self.dirty.clear();
            self.full_scan(&mut scan);
        } else {
            self.poll_links(&mut scan);
            self.settle(&mut scan);
            for relative in std::mem::take(&mut self.dirty) {
                for tree in 0..layout.trees.len() {
                    self.sync(&mut scan, tree, &relative, false);
                }
            }
        }
        let Scan { added, changed, .. } = scan;
        if occasion == Occasion::Tick {
            self.nodes.iter_mut().for_each(|node| node.age = node.age.saturating_add(1));
        }
        self.finish(layout, reader, boot, describe, added, changed);
        if full && let Some(watcher) = &mut self.watcher {
            // Of what was never taken in, or went unnoticed.
            let nodes = &self.nodes;
            watcher.retain(|relative| {
                let path = path_text(relative);
                nodes.binary_search_by(|n| n.cgroup.path.as_str().cmp(&path)).is_ok()
            });
            self.counts.watches = watcher.len();
        }
    }

    /// A read found the cgroup gone: its parent is listed again next time, since
    /// the name may have come back.
    pub fn suspect_parent(&mut self, relative: &CStr) {
        let bytes = relative.to_bytes();
        let parent = bytes.iter().rposition(|b| *b == b'/').and_then(|at| bytes.get(..at)).unwrap_or(b".");
        if let Ok(parent) = CString::new(parent) {
            self.dirty.insert(parent);
        }
    }

    fn finish(
        &mut self,
        layout: &Layout,
        reader: &mut Reader,
        boot: Option<u64>,
        describe: Describe<'_>,
        added: BTreeMap<String, (CgroupFiles, Box<[u64]>)>,
        mut changed: bool,
    ) {
        let before = self.nodes.len();
        let removed = &mut self.removed;
        let watching = self.watcher.is_some() && self.limits_told;
        let watcher = &mut self.watcher;
        // A name that came back is watched as what it is now.
        let mut forget = |files: &CgroupFiles, back: bool| {
            if let Some(watcher) = watcher.as_mut().filter(|_| !back) {
                watcher.forget(files.relative());
            }
        };
        self.nodes.retain_mut(|node| {
            // Directories of one cgroup are removed one after the other; the
            // first tree is the one everything is in.
            let left = node.in_first && node.files.directories.first().is_none_or(|d| d.inode == 0);
            node.in_first = node.files.directories.first().is_some_and(|d| d.inode != 0);
            node.watched = watching && node.in_first;
            let gone = left || node.files.is_gone();
            if gone {
                reader.close_cgroup(&mut node.files);
                forget(&node.files, added.contains_key(&node.cgroup.path));
                let (cgroup, waits, whole) = (Arc::clone(&node.cgroup), node.waits, node.whole);
                removed.push(Removed { id: node.id, cgroup, waits, whole });
            }
            !gone
        });
        changed |= self.nodes.len() != before;
        self.counts.vanished += (before - self.nodes.len()) as u64;
        if self.nodes.capacity() - self.nodes.len() < added.len() {
            // Growing by doubling would make room for twice as many.
            self.nodes.reserve_exact(added.len().max(self.nodes.len() / 8));
        }
        for (path, (mut files, links)) in added {
            if files.is_gone() {
                forget(&files, false);
                reader.close_cgroup(&mut files);
                continue;
            }
            self.counts.appeared += 1;
            changed = true;
            let in_first = files.directories.first().is_some_and(|d| d.inode != 0);
            let created = created(layout, &files, boot);
            self.nodes.push(Node {
                id: self.next_id,
                cgroup: describe(path, created),
                files,
                leaf: true,
                age: 0,
                slow: true,
                parent: None,
                row: None,
                idle: false,
                due: true,
                unfinished: false,
                waits: false,
                whole: false,
                network: NetworkRow::default(),
                end_is_told: false,
                spec_changed: true,
                watched: watching && in_first,
                spec: Spec::default(),
                links,
                in_first,
            });
            self.next_id += 1;
        }
        if changed {
            self.nodes.sort_unstable_by(|a, b| a.cgroup.path.cmp(&b.cgroup.path));
            self.mark_family();
        }
        self.mark_unfinished(layout);
        reader.cgroups = self.nodes.len() as u64;
        self.counts.watches = self.watcher.as_ref().map_or(0, Watcher::len);
    }

    /// A cgroup of the last second that is missing in a v1 tree its parent is in
    /// is most likely still being made. What is there at the first look is taken
    /// as it is.
    fn mark_unfinished(&mut self, layout: &Layout) {
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
        let first_look = *self.first_look.get_or_insert(self.next_id);
        for index in 0..self.nodes.len() {
            let Some(node) = self.nodes.get(index) else { continue };
            let young = node.age < 4 && node.cgroup.created.is_some_and(|c| c + 1 >= now);
            if !young || node.id < first_look {
                if let Some(node) = self.nodes.get_mut(index) {
                    node.unfinished = false;
                }
                continue;
            }
            let parent = node.parent.and_then(|at| self.nodes.get(at));
            let missing = layout.trees.iter().enumerate().filter(|(_, t)| !t.v2).any(|(tree, _)| {
                let there = |n: &Node| n.files.directories.get(tree).is_some_and(|d| d.inode != 0);
                parent.is_some_and(there) && !there(node)
            });
            if let Some(node) = self.nodes.get_mut(index) {
                node.unfinished = missing;
            }
        }
    }

    /// Notes of each node where its parent is, and whether it has children.
    fn mark_family(&mut self) {
        let parents: Vec<Option<usize>> = self.nodes.iter().map(|n| self.parent_of(n)).collect();
        self.nodes.iter_mut().for_each(|node| node.leaf = true);
        for (index, parent) in parents.into_iter().enumerate() {
            if let Some(node) = self.nodes.get_mut(index) {
                node.parent = parent;
            }
            if let Some(parent) = parent.and_then(|at| self.nodes.get_mut(at)) {
                parent.leaf = false;
            }
        }
    }

    fn parent_of(&self, node: &Node) -> Option<usize> {
        let (parent, name) = node.cgroup.path.rsplit_once('/')?;
        if name.is_empty() {
            return None;
        }
        let parent = if parent.is_empty() { "/" } else { parent };
        self.nodes.binary_search_by(|n| n.cgroup.path.as_str().cmp(parent)).ok()
    }

    fn find(&mut self, path: &str) -> Option<&mut Node> {
        let index = self.nodes.binary_search_by(|n| n.cgroup.path.as_str().cmp(path)).ok()?;
        self.nodes.get_mut(index)
    }

    fn full_scan(&mut self, scan: &mut Scan<'_>) {
        for tree in 0..scan.layout.trees.len() {
            let Some(root) = scan.layout.trees.get(tree) else { continue };
            match inode_of(root.handle(), c".") {
                Ok(inode) => self.place(scan, tree, Child { relative: Arc::from(c"."), inode }),
                Err(_) => continue,
            };
            self.sync(scan, tree, c".", true);
        }
    }

    /// Link counts where no event would tell: every directory when polling,
    /// else the top two levels of the trees that are not watched.
    fn poll_links(&mut self, scan: &mut Scan<'_>) {
        let polling = self.watcher.is_none();
        for node in &mut self.nodes {
            let top = node.cgroup.path.bytes().skip(1).all(|b| b != b'/');
            let from = usize::from(!polling);
            let to = if top { scan.layout.trees.len() } else { 1 };
            for tree in from..to {
                if node.files.directories.get(tree).is_none_or(|d| d.inode == 0) {
                    continue;
                }
                let Ok(links) = scan.reader.links(scan.layout, &node.files, tree) else { continue };
                // Filesystems that do not count children keep the number at one.
                if node.links.get(tree) != Some(&links) || links < 2 {
                    if let Some(slot) = node.links.get_mut(tree) {
                        *slot = links;
                    }
                    self.dirty.insert(node.files.relative().to_owned());
                }
            }
        }
    }

    /// Looks for new cgroups in the trees they were missing in.
    fn settle(&mut self, scan: &mut Scan<'_>) {
        for node in self.nodes.iter_mut().filter(|n| n.age < SETTLING_TICKS) {
            complete(&mut self.dirty, scan.layout, node);
        }
    }

    /// The node with this id and path, for looks between ticks; a new one has been looked
    /// for in the trees it was missing in.
    pub fn node(&mut self, layout: &Layout, id: u64, path: &str) -> Option<&mut Node> {
        let index = self.nodes.binary_search_by(|n| n.cgroup.path.as_str().cmp(path)).ok()?;
        let node = self.nodes.get_mut(index).filter(|n| n.id == id)?;
        if node.age < SETTLING_TICKS {
            complete(&mut self.dirty, layout, node);
        }
        Some(node)
    }

    /// The id that the next new cgroup gets.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Compares the children of one directory in one tree with what is known;
    /// goes down into new children, or into all of them.
    fn sync(&mut self, scan: &mut Scan<'_>, tree: usize, relative: &CStr, all: bool) {
        let mut stack: Vec<Arc<CStr>> = vec![Arc::from(relative)];
        while let Some(directory) = stack.pop() {
            let Some(root) = scan.layout.trees.get(tree) else { return };
            // First watched, then listed, so that no child is missed in between.
            self.watch(tree, root, &directory);
            let children = match list(root, &directory) {
                Ok(children) => children,
                Err(ReadError::Gone) => Vec::new(),
                Err(error) => {
                    self.counts.unreadable += 1;
                    tracing::debug!(path = %path_text(&directory), %error, "cgroup directory cannot be listed");
                    continue;
                }
            };
            self.drop_missing(scan, tree, &directory, &children);
            for child in children {
                let relative = Arc::clone(&child.relative);
                if self.place(scan, tree, child) || all {
                    stack.push(relative);
                }
            }
        }
    }

    /// Takes note of one existing directory; true if it is new in this tree.
    fn place(&mut self, scan: &mut Scan<'_>, tree: usize, child: Child) -> bool {
        let path = path_text(&child.relative);
        if let Some((files, _)) = scan.added.get_mut(&path) {
            let Some(directory) = files.directories.get_mut(tree) else { return false };
            let new = directory.inode != child.inode;
            directory.inode = child.inode;
            return new;
        }
        let count = self.nodes.len() + scan.added.len();
        let max = self.max_cgroups;
        match self.find(&path) {
            Some(node) => {
                let known = node.files.directories.get(tree).map_or(0, |d| d.inode);
                if known == child.inode {
                    return false;
                }
                if known != 0 {
                    // The name came back as another cgroup: nothing of the old
                    // one may be mixed into it, so it starts as a new node.
                    for index in 0..node.files.directories.len() {
                        scan.reader.leave_tree(&mut node.files, index);
                    }
                } else if !node.files.is_gone() {
                    if let Some(directory) = node.files.directories.get_mut(tree) {
                        directory.inode = child.inode;
                    }
                    return true;
                }
            }
            None if count >= max => {
                self.counts.over_limit += 1;
                return false;
            }
            None => {}
        }
        let mut files = scan.reader.open_cgroup(child.relative);
        if let Some(directory) = files.directories.get_mut(tree) {
            directory.inode = child.inode;
        }
        let links = vec![0; scan.layout.trees.len()].into_boxed_slice();
        scan.added.insert(path, (files, links));
        scan.changed = true;
        true
    }

    /// Known children of a directory that are no longer listed leave this tree,
    /// with all below them.
    fn drop_missing(&mut self, scan: &mut Scan<'_>, tree: usize, directory: &CStr, children: &[Child]) {
        let parent = path_text(directory);
        let prefix = if parent == "/" { parent } else { format!("{parent}/") };
        let listed: HashMap<String, u64> =
            children.iter().map(|c| (path_text(&c.relative), c.inode)).collect();
        let start = self.nodes.partition_point(|n| n.cgroup.path.as_str() < prefix.as_str());
        for node in self.nodes.iter_mut().skip(start) {
            let Some(below) = node.cgroup.path.strip_prefix(&prefix) else { break };
            if below.is_empty() {
                continue;
            }
            let name_end = prefix.len() + below.find('/').unwrap_or(below.len());
            let child = node.cgroup.path.get(..name_end).unwrap_or_default();
            if !listed.contains_key(child) {
                scan.reader.leave_tree(&mut node.files, tree);
            }
        }
    }

    fn watch(&mut self, tree: usize, root: &TreeRoot, relative: &Arc<CStr>) {
        let Some(watcher) = &mut self.watcher else { return };
        if tree == 0 {
            if !watcher.add(&root.path, relative) {
                self.watcher = None;
            }
        } else if self.limits_told && root.controllers.contains(&"cpu") {
            self.limits_told = watcher.add_limits(&root.path, relative);
        }
    }

    fn drain_events(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut specs: Vec<CString> = Vec::new();
        watcher.drain(|event| match event {
            Event::Overflow => {
                self.counts.overflows += 1;
                self.last_full = None;
                // Which limits were written is lost with the events.
                self.nodes.iter_mut().for_each(|node| node.spec_changed = true);
            }
            Event::Children(path) => drop(self.dirty.insert(path.to_owned())),
            Event::Written(path) if specs.last().is_none_or(|last| **last != *path) => {
                specs.push(path.to_owned())
            }
            Event::Written(_) => {}
        });
        for relative in specs {
            if let Some(node) = self.find(&path_text(&relative)) {
                node.spec_changed = true;
            }
        }
    }
}

/// Looks for a cgroup in the trees it was missing in. Where one turns up it is
/// listed as well: that is what puts a watch on it.
fn complete(dirty: &mut BTreeSet<CString>, layout: &Layout, node: &mut Node) {
    for (tree, root) in layout.trees.iter().enumerate() {
        if node.files.directories.get(tree).is_some_and(|d| d.inode == 0)
            && let Ok(inode) = inode_of(root.handle(), node.files.relative())
            && let Some(directory) = node.files.directories.get_mut(tree)
        {
            directory.inode = inode;
            dirty.insert(node.files.relative().to_owned());
        }
    }
}

struct Scan<'a> {
    layout: &'a Layout,
    reader: &'a mut Reader,
    added: BTreeMap<String, (CgroupFiles, Box<[u64]>)>,
    changed: bool,
}

/// A relative path as the `id` label shows it.
pub fn path_text(relative: &CStr) -> String {
    let bytes = relative.to_bytes();
    if bytes == b"." {
        return "/".to_owned();
    }
    format!("/{}", lossless_text(bytes))
}
