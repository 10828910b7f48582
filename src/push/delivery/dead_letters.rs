//! What a receiver refused for good, with its reason, for people to look at.
//!
//! One JSON object per line in `dead-letters-<sink>.jsonl` under the queue's
//! directory; at [`MAX_FILE`] the file moves to `….old` and replaces the one
//! before. Without a directory they go to the log, at most one a second.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::telemetry::Limiter;
use crate::telemetry::push::Rejected;

/// Bytes of the file before a new one is begun.
const MAX_FILE: u64 = 1 << 20;

/// Characters of an item that are kept.
const MAX_ITEM: usize = 4096;

/// Where refused items go.
#[derive(Debug)]
pub(super) struct DeadLetters {
    path: Option<PathBuf>,
    open: Option<(File, u64)>,
    sink: String,
}

impl DeadLetters {
    pub(super) fn new(directory: Option<&Path>, sink: &str) -> DeadLetters {
        // A name has no separators: see `target`.
        let path = directory.map(|d| d.join(format!("dead-letters-{sink}.jsonl")));
        DeadLetters { path, open: None, sink: sink.to_owned() }
    }

    /// Records `count` items, of which `item` is the first.
    pub(super) fn bury(&mut self, item: &str, count: u64, why: Rejected, said: &str) {
        let item: String = item.chars().take(MAX_ITEM).collect();
        if let Some(path) = self.path.clone() {
            let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
            let line = serde_json::json!({
                "time": at, "sink": self.sink, "reason": why.name(), "said": said, "items": count, "first": item,
            });
            match self.write(&path, &format!("{line}\n")) {
                Ok(()) => return,
                Err(error) => {
                    self.open = None;
                    static LIMITER: Limiter = Limiter::every(Duration::from_secs(60));
                    if let Some(suppressed) = LIMITER.pass() {
                        tracing::warn!(path = %path.display(), %error, suppressed, "dead letters cannot be written");
                    }
                }
            }
        }
        static LIMITER: Limiter = Limiter::every(Duration::from_secs(1));
        if let Some(suppressed) = LIMITER.pass() {
            tracing::warn!(
                sink = self.sink,
                reason = why.name(),
                said,
                items = count,
                first = item,
                suppressed,
                "the receiver refused this for good"
            );
        }
    }

    fn write(&mut self, path: &Path, line: &str) -> io::Result<()> {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        let (file, size) = match self.open.take() {
            Some(open) => open,
            None => open(path)?,
        };
        let (mut file, size) = if size.saturating_add(length) > MAX_FILE {
            drop(file);
            std::fs::rename(path, path.with_extension("jsonl.old"))?;
            open(path)?
        } else {
            (file, size)
        };
        file.write_all(line.as_bytes())?;
        self.open = Some((file, size + length));
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_and_files_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let mut letters = DeadLetters::new(Some(directory.path()), "main");
        letters.bury("cpu value=\"x\"\n", 1, Rejected::Invalid, "unable to parse");
        let path = directory.path().join("dead-letters-main.jsonl");
        let line: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!((&line["reason"], &line["items"]), (&"invalid".into(), &1.into()));
        assert_eq!((&line["said"], &line["first"]), (&"unable to parse".into(), &"cpu value=\"x\"\n".into()));
        for _ in 0..800 {
            letters.bury(&"y".repeat(10_000), 1, Rejected::TooOld, "out of order sample");
        }
        let mut total = 0;
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            let length = entry.unwrap().metadata().unwrap().len();
            assert!(length <= MAX_FILE, "{length}");
            total += length;
        }
        assert!(total > MAX_FILE, "a file was begun anew and the one before kept: {total}");
    }
}
