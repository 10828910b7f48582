//! `/proc/<pid>/mountinfo`: what is mounted where.
//!
//! ```text
//! 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//! ```
//!
//! A parser of our own although the procfs crate has one: a line it cannot
//! parse must cost that mount, not the table, and paths come as bytes with
//! octal escapes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::file::Buffer;
use super::{ReadError, Roots, parse};

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Device numbers of the filesystem.
    pub major: u32,
    /// See `major`.
    pub minor: u32,
    /// Which directory of the filesystem is mounted.
    pub root: PathBuf,
    /// Where, as the host sees it.
    pub mount_point: PathBuf,
    /// Filesystem type.
    pub fs_type: String,
    /// Mount source.
    pub source: String,
    /// Options of the superblock, comma separated.
    pub super_options: String,
}

/// The mounts of `text`, and how many lines could not be parsed.
pub fn parse(text: &[u8]) -> (Vec<Mount>, u32) {
    let mut bad = 0;
    let mounts = parse::lines(text)
        .filter_map(|(_, line)| {
            let mount = parse_line(line);
            bad += u32::from(mount.is_none());
            mount
        })
        .collect();
    (mounts, bad)
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut words = parse::words(line);
    let device = words.nth(2)?;
    let (major, minor) = parse::device(device)?;
    let root = path(words.next()?);
    let mount_point = path(words.next()?);
    words.find(|w| *w == b"-")?;
    let fs_type = text(words.next()?);
    let source = text(words.next()?);
    let super_options = words.next().map(text).unwrap_or_default();
    Some(Mount { major, minor, root, mount_point, fs_type, source, super_options })
}

fn path(word: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(word)))
}

fn text(word: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(word)).into_owned()
}

/// Undoes `\040`-style escapes of space, tab, newline and backslash.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'\\'
            && let [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] = tail
        {
            out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = tail;
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    out
}

/// The host's mounts: those of this process on a live host, else those of the
/// host's first process, whose mount namespace is the host's.
pub fn read(roots: &Roots, buffer: &mut Buffer) -> Result<(Vec<Mount>, u32), (PathBuf, ReadError)> {
    let first = if roots.is_live() { ["self", "1"] } else { ["1", "self"] };
    let mut error = None;
    for pid in first {
        let path = roots.proc.join(pid).join("mountinfo");
        match buffer.read_path(&path) {
            Ok(text) => return Ok(parse(text)),
            Err(e) => error = error.or(Some((path, e))),
        }
    }
    Err(error.unwrap_or((roots.proc.clone(), ReadError::Gone)))
}

impl Mount {
    /// Where the mount is, seen from here.
    pub fn seen_at(&self, roots: &Roots) -> PathBuf {
        roots.in_host(&self.mount_point)
    }

    /// Whether the whole filesystem is mounted, not one of its directories.
    pub fn is_whole(&self) -> bool {
        self.root == Path::new("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_optional_fields() {
        let line = b"36 35 98:0 /mnt1 /a\\040b\\134c rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n";
        let (mounts, bad) = parse(line);
        assert_eq!(bad, 0);
        assert_eq!(mounts[0].mount_point, Path::new("/a b\\c"));
        assert_eq!((mounts[0].major, mounts[0].minor), (98, 0));
        assert_eq!(mounts[0].super_options, "rw,errors=continue");
    }

    #[test]
    fn a_bad_line_costs_only_itself() {
        let (mounts, bad) = parse(b"garbage\n22 27 0:21 / /proc rw,relatime - proc proc rw\n\xff\xfe\n");
        assert_eq!((mounts.len(), bad), (1, 2));
        assert_eq!(mounts[0].fs_type, "proc");
    }
}
