//! What a directory tree takes up on its filesystem, as `du -x` counts it, in
//! steps that can be stopped and taken up again.
//!
//! The tree may belong to somebody hostile who changes it meanwhile. Every step
//! opens one name below a held directory and follows no link, so the walk cannot
//! be led out of the tree; going up is believed only if the inode is the one
//! that was left. Memory is bounded whatever the tree is like: a piece of a
//! listing at a time, a limit on depth, a limit on remembered hard links.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, RawDir, SeekFrom, Stat, fstat, seek, statat};
use rustix::io::{Errno, Result as SysResult};

use super::place::{Place, open_below, read_error};
use crate::kernel::ReadError;

/// Bytes of a listing read at once: some 250 names.
const PIECE: usize = 8 << 10;

/// The same while [`MAX_PENDING`] is used up; holds at least one name.
const SMALL_PIECE: usize = 512;

/// Bytes of names of directories that wait to be entered, all levels together.
const MAX_PENDING: usize = 256 << 10;

/// Levels below the root of the walk; deeper directories count, what is in them does not.
const MAX_DEPTH: usize = 8192;

/// Files with several links that are remembered while some of their links have not been met.
const MAX_LINKS: usize = 32_768;

/// Directories above the current one that are held open.
const KEPT: usize = 3;

/// What a walk has found so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Allocated blocks, bytes.
    pub(super) bytes: u64,
    /// Files and directories, each once.
    pub(super) inodes: u64,
    /// Directories whose content is missing: not readable, or too deep.
    pub(super) skipped: u64,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The directory and everything below it.
    Tree,
    /// The regular files in the directory itself.
    Files,
}

/// How far a step came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is more.
    More,
    /// The totals are complete.
    Done,
}

/// A level of the tree that is being listed.
#[derive(Debug)]
struct Frame {
    /// In the directory above; empty for the root.
    name: Box<CStr>,
    inode: u64,
    /// Where the listing goes on; 0 is its start.
    cookie: u64,
    listed: bool,
    /// Names of subdirectories met and not entered, each ended by NUL.
    pending: Vec<u8>,
}

impl Frame {
    fn new(name: Box<CStr>, inode: u64) -> Frame {
        Frame { name, inode, cookie: 0, listed: false, pending: Vec::new() }
    }

    /// Takes the last pending name.
    fn next(&mut self) -> Option<Box<CStr>> {
        let (_, names) = self.pending.split_last()?;
        let start = names.iter().rposition(|b| *b == 0).map_or(0, |at| at + 1);
        let name = CStr::from_bytes_with_nul(self.pending.get(start..)?).ok()?.into();
        self.pending.truncate(start);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        Some(name)
    }
}

/// A walk under way.
#[derive(Debug)]
pub(super) struct Walk {
    place: Place,
    scope: Scope,
    device: u64,
    stack: Vec<Frame>,
    /// The directory at the top of the stack, and some above it; empty while suspended.
    held: Vec<OwnedFd>,
    pending: usize,
    totals: Totals,
    /// By inode: links not met yet.
    links: HashMap<u64, u64>,
    max_links: usize,
    /// That was too few: a file met from then on is not remembered, also when
    /// there is room again, or its links would count in two ways.
    full: bool,
    /// Millionths of inodes whose links are too many to be remembered.
    fraction: u64,
}

impl Walk {
    /// A walk of `root`, which is `place` opened. Nothing is read yet.
    pub(super) fn new(place: Place, root: OwnedFd, scope: Scope) -> Result<Walk, ReadError> {
        let stat = fstat(&root).map_err(read_error)?;
        let mut walk = Walk {
            place,
            scope,
            device: stat.st_dev,
            stack: vec![Frame::new(c"".into(), stat.st_ino)],
            held: vec![root],
            pending: 0,
            totals: Totals::default(),
            links: HashMap::new(),
            max_links: MAX_LINKS,
            full: false,
            fraction: 0,
        };
        if scope == Scope::Tree {
            walk.count(&stat);
        }
        Ok(walk)
    }

    /// What is walked.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// What was found so far.
    pub(super) fn totals(&self) -> Totals {
        let Totals { bytes, inodes, skipped } = self.totals;
        Totals { bytes, inodes: inodes + (self.fraction + 500_000) / 1_000_000, skipped }
    }

    /// Closes everything; the next step finds the way back.
    pub(super) fn suspend(&mut self) {
        self.held.clear();
    }

    /// Enters one directory, leaves one, or reads a piece of a listing: well
    /// under a millisecond where nothing has to wait for a disk.
    ///
    /// # Errors
    /// The root is gone or has become another, or there is no descriptor left.
    pub(super) fn step(&mut self) -> Result<Step, ReadError> {
        if self.held.is_empty() {
            self.find_back()?;
        }
        let Some(frame) = self.stack.last_mut() else { return Ok(Step::Done) };
        if let Some(name) = frame.next() {
            self.pending = self.pending.saturating_sub(name.count_bytes() + 1);
            self.enter(name)?;
            return Ok(Step::More);
        }
        if !frame.listed {
            self.list()?;
            return Ok(Step::More);
        }
        self.leave()
    }

    fn enter(&mut self, name: Box<CStr>) -> Result<(), ReadError> {
        let Some(parent) = self.held.last() else { return Ok(()) };
        let child = match open_below(parent, &name) {
            Ok(child) => child,
            // It was removed, or replaced by what is no directory.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return Ok(()),
            Err(errno @ (Errno::MFILE | Errno::NFILE)) => return Err(read_error(errno)),
            Err(_) => {
                self.totals.skipped += 1;
                if let Ok(stat) = stat_at(parent, &name)
                    && stat.st_dev == self.device
                {
                    self.count(&stat);
                }
                return Ok(());
            }
        };
        let stat = fstat(&child).map_err(read_error)?;
        if stat.st_dev != self.device {
            return Ok(());
        }
        self.count(&stat);
        if self.stack.len() > MAX_DEPTH {
            self.totals.skipped += 1;
            return Ok(());
        }
        self.stack.push(Frame::new(name, stat.st_ino));
        self.held.push(child);
        if self.held.len() > KEPT + 1 {
            self.held.remove(0);
        }
        Ok(())
    }

    /// Reads one piece of the current directory's listing.
    fn list(&mut self) -> Result<(), ReadError> {
        let (Some(frame), Some(dir)) = (self.stack.last_mut(), self.held.last()) else { return Ok(()) };
        if frame.cookie != 0 {
            // A directory that was removed takes no position, and has nothing more to tell.
            if seek(dir, SeekFrom::Start(frame.cookie)).is_err() {
                frame.listed = true;
                return Ok(());
            }
        }
        let size = if self.pending < MAX_PENDING { PIECE } else { SMALL_PIECE };
        let mut space = Vec::<u8>::with_capacity(size);
        let mut listing = RawDir::new(dir, space.spare_capacity_mut());
        let mut found = Vec::new();
        frame.listed = true;
        while let Some(entry) = listing.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // What was removed meanwhile has nothing more to tell.
                Err(Errno::NOENT) => break,
                Err(_) => {
                    self.totals.skipped += 1;
                    break;
                }
            };
            frame.cookie = entry.next_entry_cookie();
            let name = entry.file_name();
            if name != c"." && name != c".." {
                let mut is_directory = entry.file_type() == FileType::Directory;
                if !is_directory && let Ok(stat) = stat_at(dir, name) {
                    // Some filesystems give no type in listings.
                    is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                    if !is_directory && stat.st_dev == self.device {
                        found.push(stat);
                    }
                }
                if is_directory && self.scope == Scope::Tree {
                    frame.pending.extend_from_slice(name.to_bytes_with_nul());
                    self.pending += name.count_bytes() + 1;
                }
            }
            if listing.is_buffer_empty() {
                frame.listed = false;
                break;
            }
        }
        for stat in found {
            self.count(&stat);
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<Step, ReadError> {
        let left = self.held.pop();
        self.stack.pop();
        let Some(frame) = self.stack.last() else { return Ok(Step::Done) };
        if self.held.is_empty()
            && let Some(above) = left.and_then(|left| open_below(&left, c"..").ok())
            && self.is_it(&above, frame.inode)
        {
            self.held.push(above);
        }
        // Else it was moved meanwhile, and the next step finds the way back.
        Ok(Step::More)
    }

    /// Opens the way from the root to the current directory again. Where it is
    /// cut, the walk goes on with what is still there.
    fn find_back(&mut self) -> Result<(), ReadError> {
        let mut at = self.place.open()?;
        if self.stack.first().is_none_or(|frame| !self.is_it(&at, frame.inode)) {
            return Err(ReadError::Gone);
        }
        let mut reached = 1;
        for frame in self.stack.iter().skip(1) {
            match open_below(&at, &frame.name) {
                Ok(next) if self.is_it(&next, frame.inode) => at = next,
                Err(errno @ (Errno::MFILE | Errno::NFILE)) => return Err(read_error(errno)),
                Ok(_) | Err(_) => break,
            }
            reached += 1;
        }
        let lost: usize = self.stack.iter().skip(reached).map(|frame| frame.pending.len()).sum();
        self.pending = self.pending.saturating_sub(lost);
        self.stack.truncate(reached);
        self.held.push(at);
        Ok(())
    }

    fn is_it(&self, dir: &OwnedFd, inode: u64) -> bool {
        fstat(dir).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (self.device, inode))
    }

    /// Counts an inode, unless another of its links has been.
    fn count(&mut self, stat: &Stat) {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.scope == Scope::Files && kind != FileType::RegularFile {
            return;
        }
        let bytes = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        #[allow(clippy::useless_conversion, reason = "its width differs by architecture")]
        let links = u64::from(stat.st_nlink);
        if links > 1 && kind != FileType::Directory {
            if let Some(left) = self.links.get_mut(&stat.st_ino) {
                *left -= 1;
                if *left == 0 {
                    self.links.remove(&stat.st_ino);
                }
                return;
            }
            self.full |= self.links.len() >= self.max_links;
            if self.full {
                // Each link counts for its part: right if all links are in the tree.
                self.totals.bytes += bytes / links;
                self.fraction += 1_000_000 / links;
                return;
            }
            self.links.insert(stat.st_ino, links - 1);
        }
        self.totals.bytes += bytes;
        self.totals.inodes += 1;
    }
}

fn stat_at(dir: &OwnedFd, name: &CStr) -> SysResult<Stat> {
    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::NO_AUTOMOUNT))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt, symlink};
    use std::path::Path;

    use proptest::prelude::*;
    use rustix::fs::{CWD, Mode, openat};

    use super::*;
    use crate::collect::usage::place::DIRECTORY;

    fn place(path: &Path) -> Place {
        Place { host_root: "/".into(), path: path.into() }
    }

    fn walk(path: &Path, scope: Scope) -> Walk {
        let place = place(path);
        let root = place.open().unwrap();
        Walk::new(place, root, scope).unwrap()
    }

    fn finish(walk: &mut Walk) -> Totals {
        while walk.step().unwrap() == Step::More {}
        walk.totals()
    }

    fn totals(path: &Path) -> Totals {
        finish(&mut walk(path, Scope::Tree))
    }

    /// The slow obvious version.
    fn slow(path: &Path) -> Totals {
        fn add(path: &Path, seen: &mut HashSet<u64>, totals: &mut Totals) {
            let stat = fs::symlink_metadata(path).unwrap();
            if seen.insert(stat.ino()) {
                totals.bytes += stat.blocks() * 512;
                totals.inodes += 1;
            }
            if stat.is_dir() {
                fs::read_dir(path).unwrap().for_each(|e| add(&e.unwrap().path(), seen, totals));
            }
        }
        let mut totals = Totals::default();
        add(path, &mut HashSet::new(), &mut totals);
        totals
    }

    #[derive(Debug, Clone)]
    enum Make {
        Directory(u8),
        File(u8, u32),
        Sparse(u8, u32),
        Link(u8, u8),
        Symlink(u8),
    }

    fn make() -> impl Strategy<Value = Make> {
        prop_oneof![
            any::<u8>().prop_map(Make::Directory),
            (any::<u8>(), 0u32..20_000).prop_map(|(d, size)| Make::File(d, size)),
            (any::<u8>(), 1u32..50_000_000).prop_map(|(d, at)| Make::Sparse(d, at)),
            (any::<u8>(), any::<u8>()).prop_map(|(d, f)| Make::Link(d, f)),
            any::<u8>().prop_map(Make::Symlink),
        ]
    }

    fn build(root: &Path, makes: &[Make]) {
        let (mut directories, mut files) = (vec![root.to_path_buf()], Vec::new());
        for (number, make) in makes.iter().enumerate() {
            let at = |d: u8| directories[usize::from(d) % directories.len()].join(format!("n{number}"));
            match make {
                Make::Directory(d) => {
                    fs::create_dir(at(*d)).unwrap();
                    directories.push(at(*d));
                }
                Make::File(d, size) => {
                    fs::write(at(*d), vec![1; *size as usize]).unwrap();
                    files.push(at(*d));
                }
                Make::Sparse(d, offset) => {
                    let file = fs::File::create(at(*d)).unwrap();
                    file.write_all_at(b"x", u64::from(*offset)).unwrap();
                    files.push(at(*d));
                }
                Make::Link(d, file) if !files.is_empty() => {
                    fs::hard_link(&files[usize::from(*file) % files.len()], at(*d)).unwrap();
                }
                Make::Link(..) => {}
                Make::Symlink(d) => symlink("/", at(*d)).unwrap(),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn counts_as_the_slow_version(makes in proptest::collection::vec(make(), 0..60), every in 1usize..5) {
            let root = tempfile::tempdir().unwrap();
            build(root.path(), &makes);
            let expected = slow(root.path());
            prop_assert_eq!(totals(root.path()), expected);
            // Stopped and taken up again all the time.
            let mut walk = walk(root.path(), Scope::Tree);
            for number in 0.. {
                if walk.step().unwrap() == Step::Done {
                    break;
                }
                if number % every == 0 {
                    walk.suspend();
                }
            }
            prop_assert_eq!(walk.totals(), expected);
            prop_assert_eq!(walk.pending, 0);
        }
    }

    #[test]
    fn long_listings_come_in_pieces() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..1500 {
            let name = format!("{number}-{}", "x".repeat(100));
            match number % 3 {
                0 => fs::create_dir_all(root.path().join(name).join("below")).unwrap(),
                _ => fs::write(root.path().join(name), "1").unwrap(),
            }
        }
        assert_eq!(totals(root.path()), slow(root.path()));
    }

    #[test]
    fn five_thousand_levels() {
        let root = tempfile::tempdir().unwrap();
        let mut at = openat(CWD, root.path(), DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..5000 {
            rustix::fs::mkdirat(&at, c"d", Mode::RWXU).unwrap();
            at = open_below(&at, c"d").unwrap();
        }
        let mut walk = walk(root.path(), Scope::Tree);
        while walk.stack.len() < 4000 {
            assert_eq!(walk.step(), Ok(Step::More));
        }
        walk.suspend();
        let totals = finish(&mut walk);
        assert_eq!((totals.inodes, totals.skipped), (5001, 0));
        // Deeper than what removes directories by path can go.
        let mut place = openat(CWD, root.path(), DIRECTORY, Mode::empty()).unwrap();
        while let Ok(below) = open_below(&place, c"d") {
            if let Ok(two) = open_below(&below, c"d") {
                rustix::fs::renameat(&below, c"d", CWD, root.path().join("e")).unwrap();
                drop(two);
            }
            rustix::fs::unlinkat(&place, c"d", AtFlags::REMOVEDIR).unwrap();
            if root.path().join("e").exists() {
                fs::rename(root.path().join("e"), root.path().join("d")).unwrap();
            }
            place = openat(CWD, root.path(), DIRECTORY, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn links_out_of_the_tree_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("big"), vec![1; 1 << 20]).unwrap();
        for name in ["a", "b"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let mut walk = walk(root.path(), Scope::Tree);
        // Both are listed and wait to be entered; now one becomes a link.
        walk.step().unwrap();
        fs::remove_dir(root.path().join("a")).unwrap();
        symlink(other.path(), root.path().join("a")).unwrap();
        let totals = finish(&mut walk);
        assert_eq!(totals.inodes, 2);
        assert!(totals.bytes < 1 << 20);
        // A root that is a link is none.
        fs::remove_dir(root.path().join("b")).unwrap();
        symlink(other.path(), root.path().join("b")).unwrap();
        assert_eq!(place(&root.path().join("b")).open().unwrap_err(), ReadError::Gone);
    }

    #[test]
    fn a_directory_moved_away_does_not_take_the_walk_along() {
        let root = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b/c/d/e/f/g")).unwrap();
        fs::write(other.path().join("big"), vec![1; 1 << 20]).unwrap();
        let mut walk = walk(root.path(), Scope::Tree);
        while walk.stack.len() < 8 {
            walk.step().unwrap();
        }
        fs::rename(root.path().join("a/b"), other.path().join("b")).unwrap();
        let totals = finish(&mut walk);
        assert!(totals.bytes < 1 << 20 && totals.inodes == 8, "{totals:?}");
    }

    #[test]
    fn what_vanishes_is_not_missed() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..50 {
            fs::create_dir_all(root.path().join(format!("{number}/below"))).unwrap();
        }
        let mut walk = walk(root.path(), Scope::Tree);
        (0..4).for_each(|_| assert_eq!(walk.step(), Ok(Step::More)));
        for number in 0..50 {
            fs::remove_dir_all(root.path().join(format!("{number}"))).unwrap();
        }
        let totals = finish(&mut walk);
        assert!(totals.inodes < 10 && totals.skipped == 0, "{totals:?}");
        walk.suspend();
        fs::remove_dir(root.path()).unwrap();
        walk.stack = vec![Frame::new(c"".into(), 1)];
        assert_eq!(walk.step(), Err(ReadError::Gone));
    }

    #[test]
    fn an_unreadable_directory_counts_and_its_content_does_not() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("closed/below")).unwrap();
        let closed = root.path().join("closed");
        fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        let found = totals(root.path());
        // Root reads it all the same.
        let expected = if fs::read_dir(&closed).is_ok() { (3, 0) } else { (2, 1) };
        assert_eq!((found.inodes, found.skipped), expected);
        fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    }

    #[test]
    fn links_beyond_memory_count_for_their_part() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..40 {
            let first = root.path().join(format!("{number}-0"));
            fs::write(&first, vec![1; 8192]).unwrap();
            (1..4).for_each(|n| fs::hard_link(&first, root.path().join(format!("{number}-{n}"))).unwrap());
        }
        let mut walk = walk(root.path(), Scope::Tree);
        walk.max_links = 4;
        let (found, expected) = (finish(&mut walk), slow(root.path()));
        assert_eq!(found.inodes, expected.inodes);
        assert_eq!(found.bytes, expected.bytes);
        assert!(walk.links.len() <= 4);
    }

    #[test]
    fn logs_are_the_files_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("0.log"), vec![1; 10_000]).unwrap();
        fs::create_dir(root.path().join("below")).unwrap();
        fs::write(root.path().join("below/1"), vec![1; 10_000]).unwrap();
        symlink("0.log", root.path().join("link")).unwrap();
        let found = finish(&mut walk(root.path(), Scope::Files));
        let blocks = fs::metadata(root.path().join("0.log")).unwrap().blocks();
        assert_eq!(found, Totals { bytes: blocks * 512, inodes: 1, skipped: 0 });
    }
}
