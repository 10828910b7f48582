//! Unpacks the captured trees of `fixtures/`; `fixtures/README.md` describes the
//! format and `tests/vm/ttar.py` writes it.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The names of all captures.
pub(crate) fn scenarios() -> Vec<String> {
    let entries = fs::read_dir(fixtures()).unwrap().flatten().filter(|e| e.path().is_dir());
    let mut names: Vec<String> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The directory of a capture.
pub(crate) fn fixture(scenario: &str) -> PathBuf {
    fixtures().join(scenario)
}

/// The tree of a capture, in a directory that goes when it is dropped.
pub(crate) fn unpack(scenario: &str) -> TempDir {
    let archive = fs::read_to_string(fixtures().join(scenario).join("tree.ttar")).unwrap();
    let root = tempfile::tempdir().unwrap();
    unpack_into(&archive, root.path());
    root
}

enum Entry {
    Directory,
    File,
    Link,
}

fn unpack_into(archive: &str, root: &Path) {
    let mut times: Vec<(PathBuf, u64)> = Vec::new();
    let mut directory = root.to_path_buf();
    let mut entry: Option<(Entry, PathBuf, Vec<u8>)> = None;
    let finish = |entry: Option<(Entry, PathBuf, Vec<u8>)>| match entry {
        Some((Entry::File, path, content)) => fs::write(path, content).unwrap(),
        Some((Entry::Link, path, content)) => {
            symlink(OsStr::from_bytes(content.trim_ascii_end()), path).unwrap();
        }
        Some((Entry::Directory, ..)) | None => {}
    };
    for line in archive.split('\n') {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(text) = line.strip_prefix(['|', '\\']) {
            let (_, _, content) = entry.as_mut().expect("content without a file");
            content.extend(unescape(text));
            if line.starts_with('|') {
                content.push(b'\n');
            }
        } else if word == "time" {
            let (_, path, _) = entry.as_ref().expect("a time without a file");
            times.push((path.clone(), rest.parse().unwrap()));
        } else if let Some(kind) = match word {
            "dir" => Some(Entry::Directory),
            "file" => Some(Entry::File),
            "link" => Some(Entry::Link),
            _ => None,
        } {
            finish(entry.take());
            let name = OsString::from_vec(unescape(rest));
            let path = if word == "dir" { root.join(&name) } else { directory.join(&name) };
            if word == "dir" {
                fs::create_dir_all(&path).unwrap();
                directory.clone_from(&path);
            }
            entry = Some((kind, path, Vec::new()));
        } else {
            assert!(line.is_empty() || line.starts_with('#'), "not understood: {line:?}");
        }
    }
    finish(entry);
    // Last, since making a file changes its directory's time.
    for (path, seconds) in times {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        fs::File::open(&path).and_then(|f| f.set_modified(time)).unwrap();
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.extend(before.bytes());
        rest = match after.strip_prefix('\\') {
            Some(rest) => {
                out.push(b'\\');
                rest
            }
            None => {
                let (hex, rest) = after.split_at(3);
                out.push(u8::from_str_radix(hex.strip_prefix('x').unwrap(), 16).unwrap());
                rest
            }
        };
    }
    out.extend(rest.bytes());
    out
}
