//! Reads a cgroup's files through handles that are held across ticks.
//!
//! A positioned read on a held handle costs a third to a fifth of
//! open + read + close, but each one pins 4.4 KiB of kernel memory charged to
//! us (the seq_file page stays until close) and a descriptor. So handles are
//! admitted until a byte budget is used up and then stay: a tick is a cyclic
//! scan, in which a cache that evicts the least recently used would never hit.
//! What is not held is opened below a directory handle, and where even those
//! are short, below a directory opened for the moment.
//!
//! Held handles are also the identity check. A read through one, and an open
//! below one, fails for ever once its cgroup is gone, also when the same name
//! has come back; a directory opened by name is compared by inode.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::AtFlags;
use nix::sys::stat::{fstat, fstatat};

use super::ReadError;
use super::cgroup::{Layout, TreeId};
use super::file::{self, Buffer};

/// Kernel memory that one held and read file handle pins, measured on 6.18.
const BYTES_PER_HANDLE: u64 = 4_445;

/// What a held directory handle pins.
const BYTES_PER_DIRECTORY: u64 = 196;

/// A file that exists in every cgroup directory of every version: whether it
/// can be found says whether the directory is still alive.
const ALWAYS_THERE: &std::ffi::CStr = c"cgroup.procs";

/// Descriptors kept free of held handles: sockets, the runtime, files opened
/// for the moment.
const RESERVED: u64 = 40;

/// Position of a registered file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileKey(u8);

/// How often a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Every tick: worth a handle.
    Tick,
    /// In most ticks, or for busy cgroups only: a handle if there is one left when
    /// every file that is read each tick has its own.
    Often,
    /// When it may have changed, and every tenth tick: opened each time.
    Slow,
}

#[derive(Debug)]
struct FileSpec {
    tree: TreeId,
    name: CString,
    pace: Pace,
}

/// One cgroup directory in one tree.
#[derive(Debug, Default)]
pub struct Directory {
    /// Inode number; 0 where the cgroup does not exist in this tree.
    pub inode: u64,
    handle: Option<OwnedFd>,
}

#[derive(Debug, Default)]
enum FileState {
    #[default]
    Untried,
    Held(OwnedFd),
    Reopened,
    /// Not there, or not supported: asked for again on slow ticks only.
    Absent,
}

/// The directories and file handles of one cgroup.
#[derive(Debug)]
pub struct CgroupFiles {
    /// Path relative to the mount point; `.` for the root.
    relative: Arc<CStr>,
    /// By tree.
    pub directories: Box<[Directory]>,
    files: Box<[FileState]>,
}

impl CgroupFiles {
    /// The path relative to the mount point; `.` for the root.
    pub fn relative(&self) -> &CStr {
        &self.relative
    }

    /// The same, for who keeps it: there are as many as cgroups.
    pub fn shared_relative(&self) -> Arc<CStr> {
        Arc::clone(&self.relative)
    }

    /// Whether the cgroup exists in a tree.
    #[inline]
    pub fn exists_in(&self, tree: TreeId) -> bool {
        self.directories.get(tree.index()).is_some_and(|d| d.inode != 0)
    }

    /// Whether it exists in no tree any more.
    pub fn is_gone(&self) -> bool {
        self.directories.iter().all(|d| d.inode == 0)
    }
}

/// The reading side of the reader thread: one buffer, the registered files and
/// the budget of held handles.
#[derive(Debug)]
pub struct Reader {
    /// For files that are not per cgroup.
    pub buffer: Buffer,
    specs: Vec<FileSpec>,
    trees: usize,
    held_files: u64,
    /// Of these, files that are not read every tick.
    held_often: u64,
    held_directories: u64,
    /// Kernel memory that handles may pin, bytes.
    handle_memory: u64,
    max_handles: u64,
    spare: Vec<OwnedFd>,
    /// Cgroups followed, whose files of each tick go before those read less.
    pub cgroups: u64,
    /// Ask again for files that were absent: set on slow ticks.
    pub retry_absent: bool,
}

/// How many handles are held, and may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HandleCounts {
    /// File handles held.
    pub files: u64,
    /// Directory handles held.
    pub directories: u64,
    /// File handles that fit the byte budget and the descriptor limit.
    pub max_files: u64,
    /// Whether it is the byte budget that says how many.
    pub by_memory: bool,
}

impl HandleCounts {
    /// Kernel memory that they pin, bytes.
    pub fn bytes(&self) -> u64 {
        self.files * BYTES_PER_HANDLE + self.directories * BYTES_PER_DIRECTORY
    }
}

/// Raises the soft limit of descriptors to the hard one and returns it.
pub fn raise_descriptor_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 1024;
    };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        return hard;
    }
    soft
}

impl Reader {
    /// A reader whose handles may pin `handle_memory` bytes of kernel memory and use
    /// `descriptors` descriptors of the process.
    pub fn new(layout: &Layout, handle_memory: u64, descriptors: u64) -> Self {
        let max_handles = descriptors.saturating_sub(RESERVED);
        let mut reader = Reader {
            buffer: Buffer::new(),
            specs: Vec::new(),
            trees: layout.trees.len(),
            held_files: 0,
            held_often: 0,
            held_directories: 0,
            handle_memory,
            max_handles,
            spare: Vec::new(),
            cgroups: 0,
            retry_absent: true,
        };
        reader.refill_spare(layout);
        reader
    }

    /// Registers a file to be read in `tree`.
    pub fn register(&mut self, tree: TreeId, name: &str, pace: Pace) -> Option<FileKey> {
        let key = FileKey(u8::try_from(self.specs.len()).ok()?);
        self.specs.push(FileSpec { tree, name: CString::new(name).ok()?, pace });
        Some(key)
    }

    /// The state of a newly found cgroup.
    pub fn open_cgroup(&self, relative: Arc<CStr>) -> CgroupFiles {
        CgroupFiles {
            relative,
            directories: (0..self.trees).map(|_| Directory::default()).collect(),
            files: self.specs.iter().map(|_| FileState::Untried).collect(),
        }
    }

    /// Gives the handles of a cgroup back.
    pub fn close_cgroup(&mut self, cgroup: &mut CgroupFiles) {
        for index in 0..cgroup.directories.len() {
            self.leave_tree(cgroup, index);
        }
    }

    /// The cgroup is no longer in one tree: its handles there are given back.
    pub fn leave_tree(&mut self, cgroup: &mut CgroupFiles, tree: usize) {
        if let Some(directory) = cgroup.directories.get_mut(tree) {
            directory.inode = 0;
            if directory.handle.take().is_some() {
                self.held_directories -= 1;
            }
        }
        for (spec, state) in self.specs.iter().zip(cgroup.files.iter_mut()) {
            if spec.tree.index() == tree {
                if matches!(state, FileState::Held(_)) {
                    self.held_files -= 1;
                    self.held_often -= u64::from(spec.pace == Pace::Often);
                }
                *state = FileState::Untried;
            }
        }
    }

    /// Held handles.
    pub fn counts(&self) -> HandleCounts {
        let (by_memory, by_descriptors) = self.limits();
        HandleCounts {
            files: self.held_files,
            directories: self.held_directories,
            max_files: by_memory.min(by_descriptors),
            by_memory: by_memory <= by_descriptors,
        }
    }

    /// Files that may be held: by memory, of which every cgroup's directories get theirs
    /// first, and by descriptors. Directories serve several files each, so they get a
    /// quarter of those.
    fn limits(&self) -> (u64, u64) {
        let directories = self.cgroups.saturating_mul(self.trees as u64);
        let left = self.handle_memory.saturating_sub(directories.saturating_mul(BYTES_PER_DIRECTORY));
        (left / BYTES_PER_HANDLE, self.max_handles / 4 * 3)
    }

    /// Keeps a few descriptors in hand for opens that meet an exhausted table.
    pub fn refill_spare(&mut self, layout: &Layout) {
        let Some(tree) = layout.trees.first() else { return };
        while self.spare.len() < 4 {
            match tree.handle().try_clone_to_owned() {
                Ok(fd) => self.spare.push(fd),
                Err(_) => break,
            }
        }
    }

    /// Reads one file of a cgroup.
    ///
    /// `Ok(None)`: the file is not there. `Err(Gone)`: the cgroup is not there
    /// any more, and its handles in that tree have been given back.
    ///
    /// # Errors
    /// Whatever else the kernel answers; the file is tried again next tick.
    #[inline]
    pub fn read(
        &mut self,
        layout: &Layout,
        cgroup: &mut CgroupFiles,
        key: FileKey,
    ) -> Result<Option<&[u8]>, ReadError> {
        let len = self.fill(layout, cgroup, key)?;
        Ok(len.map(|len| self.buffer.text(len)))
    }

    #[inline]
    fn fill(
        &mut self,
        layout: &Layout,
        cgroup: &mut CgroupFiles,
        key: FileKey,
    ) -> Result<Option<usize>, ReadError> {
        let index = usize::from(key.0);
        let (Some(spec), Some(state)) = (self.specs.get(index), cgroup.files.get_mut(index)) else {
            return Ok(None);
        };
        let tree = spec.tree;
        if cgroup.directories.get(tree.index()).is_none_or(|d| d.inode == 0) {
            return Ok(None);
        }
        match state {
            FileState::Held(fd) => match self.buffer.fill_at_once(fd.as_fd()) {
                Ok(len) => Ok(Some(len)),
                Err(ReadError::Gone) => {
                    self.leave_tree(cgroup, tree.index());
                    Err(ReadError::Gone)
                }
                Err(error) => {
                    self.held_files -= 1;
                    self.held_often -= u64::from(spec.pace == Pace::Often);
                    *state = FileState::Reopened;
                    Self::failed(state, error)
                }
            },
            FileState::Absent if !self.retry_absent => Ok(None),
            _ => self.open_and_fill(layout, cgroup, index, tree),
        }
    }

    /// Unsupported is remembered as absent; anything else is the caller's.
    fn failed(state: &mut FileState, error: ReadError) -> Result<Option<usize>, ReadError> {
        if error == ReadError::Unsupported {
            *state = FileState::Absent;
            return Ok(None);
        }
        Err(error)
    }

    fn open_and_fill(
        &mut self,
        layout: &Layout,
        cgroup: &mut CgroupFiles,
        index: usize,
        tree: TreeId,
    ) -> Result<Option<usize>, ReadError> {
        let momentary = match self.directory(layout, cgroup, tree) {
            Ok(directory) => directory,
            Err(ReadError::Gone) => {
                self.leave_tree(cgroup, tree.index());
                return Err(ReadError::Gone);
            }
            Err(error) => return Err(error),
        };
        let (Some(spec), Some(state), Some(directory)) =
            (self.specs.get(index), cgroup.files.get_mut(index), cgroup.directories.get(tree.index()))
        else {
            return Ok(None);
        };
        let Some(handle) = momentary.as_ref().or(directory.handle.as_ref()) else { return Ok(None) };
        let opened = file::open_at(handle.as_fd(), spec.name.as_c_str()).or_else(|error| {
            if error != ReadError::Exhausted || self.spare.pop().is_none() {
                return Err(error);
            }
            file::open_at(handle.as_fd(), spec.name.as_c_str())
        });
        let fd = match opened {
            Ok(fd) => fd,
            Err(ReadError::Gone) => {
                if is_alive(handle.as_fd()) {
                    *state = FileState::Absent;
                    return Ok(None);
                }
                self.leave_tree(cgroup, tree.index());
                return Err(ReadError::Gone);
            }
            Err(error) => return Self::failed(state, error),
        };
        match self.buffer.fill_at_once(fd.as_fd()) {
            Ok(len) => {
                *state = if self.has_room(spec.pace) {
                    self.held_files += 1;
                    self.held_often += u64::from(spec.pace == Pace::Often);
                    FileState::Held(fd)
                } else {
                    FileState::Reopened
                };
                Ok(Some(len))
            }
            Err(ReadError::Gone) => {
                self.leave_tree(cgroup, tree.index());
                Err(ReadError::Gone)
            }
            Err(error) => Self::failed(state, error),
        }
    }

    /// Whether a file of this pace may have a handle.
    fn has_room(&self, pace: Pace) -> bool {
        let (by_memory, by_descriptors) = self.limits();
        let most = by_memory.min(by_descriptors);
        let wanted = match pace {
            Pace::Tick => true,
            Pace::Often => {
                let each_tick = self.specs.iter().filter(|spec| spec.pace == Pace::Tick).count() as u64;
                self.held_often < most.saturating_sub(self.cgroups.saturating_mul(each_tick))
            }
            Pace::Slow => false,
        };
        wanted && self.held_files < most && self.held_files + self.held_directories < self.max_handles
    }

    /// Makes sure of a directory to open files below: the held one, one newly
    /// held (both give `None`), or, where handles are short, one for the moment.
    fn directory(
        &mut self,
        layout: &Layout,
        cgroup: &mut CgroupFiles,
        tree: TreeId,
    ) -> Result<Option<OwnedFd>, ReadError> {
        let (Some(directory), Some(root)) =
            (cgroup.directories.get_mut(tree.index()), layout.trees.get(tree.index()))
        else {
            return Err(ReadError::Gone);
        };
        if directory.handle.is_some() {
            return Ok(None);
        }
        let relative = &*cgroup.relative;
        let opened = file::open_directory_at(root.handle(), relative).or_else(|error| {
            if error != ReadError::Exhausted || self.spare.pop().is_none() {
                return Err(error);
            }
            file::open_directory_at(root.handle(), relative)
        })?;
        // Another cgroup may have taken the name since.
        if fstat(&opened).map_err(ReadError::from)?.st_ino != directory.inode {
            return Err(ReadError::Gone);
        }
        if self.held_files + self.held_directories < self.max_handles {
            self.held_directories += 1;
            directory.handle = Some(opened);
            return Ok(None);
        }
        Ok(Some(opened))
    }

    /// Link count of a cgroup's directory, which on cgroup filesystems is two
    /// more than the number of its children.
    pub fn links(&self, layout: &Layout, cgroup: &CgroupFiles, tree: usize) -> Result<u64, ReadError> {
        let (Some(directory), Some(root)) = (cgroup.directories.get(tree), layout.trees.get(tree)) else {
            return Err(ReadError::Gone);
        };
        let stat = match &directory.handle {
            Some(handle) => fstat(handle),
            None => fstatat(root.handle(), &*cgroup.relative, AtFlags::empty()),
        };
        // 32 bits on arm64.
        #[allow(clippy::useless_conversion)]
        Ok(u64::from(stat.map_err(ReadError::from)?.st_nlink))
    }
}

fn is_alive(directory: BorrowedFd<'_>) -> bool {
    fstatat(directory, ALWAYS_THERE, AtFlags::empty()).is_ok()
}

/// Inode of a directory below a tree's root.
pub fn inode_of(root: BorrowedFd<'_>, relative: &std::ffi::CStr) -> Result<u64, ReadError> {
    Ok(fstatat(root, relative, AtFlags::empty()).map_err(ReadError::from)?.st_ino)
}
