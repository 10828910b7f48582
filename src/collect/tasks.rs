//! How many tasks the host has, and may have: one figure for all, so it is read
//! before the rows.
//!
//! `/proc/loadavg`: `0.20 0.18 0.12 1/311 11206`, the tasks after the slash.

use std::path::{Path, PathBuf};

use super::{Collector, Context, Setup, Vanished};
use crate::kernel::ReadError;
use crate::kernel::file::Buffer;
use crate::kernel::parse;
use crate::kernel::tree::Node;
use crate::snapshot::{CgroupSample, Reading, Snapshot, Tasks, reading};

#[derive(Debug)]
struct OfHost {
    loadavg: PathBuf,
    pid_max: PathBuf,
    threads_max: PathBuf,
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let proc = &setup.roots.proc;
    Some(Box::new(OfHost {
        loadavg: proc.join("loadavg"),
        pid_max: proc.join("sys/kernel/pid_max"),
        threads_max: proc.join("sys/kernel/threads-max"),
    }))
}

fn tasks(text: &[u8]) -> Option<u64> {
    let word = text.split(|b| *b == b' ').nth(3)?;
    let slash = word.iter().position(|b| *b == b'/')?;
    parse::digits(word.get(slash + 1..)?)
}

fn limit(buffer: &mut Buffer, path: &Path) -> Result<Reading, ReadError> {
    buffer.read_path(path).and_then(parse::number).map(reading)
}

impl Collector for OfHost {
    fn begin(&mut self, cx: &mut Context<'_>, _nodes: &mut [Node], snapshot: &mut Snapshot) {
        let buffer = &mut cx.reader.buffer;
        let current = match buffer.read_path(&self.loadavg) {
            Ok(text) => tasks(text).and_then(reading),
            Err(error) => {
                cx.errors.count(error);
                None
            }
        };
        // Either may be hidden; the other then is all there is.
        let limits = [limit(buffer, &self.pid_max), limit(buffer, &self.threads_max)];
        let max = limits.into_iter().filter_map(Result::ok).flatten().min();
        snapshot.tasks = Tasks { current, max };
    }

    fn read(&mut self, _: &mut Context<'_>, _: &mut Node, _: &mut CgroupSample) -> Result<(), Vanished> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_after_the_slash() {
        assert_eq!(tasks(b"0.20 0.18 0.12 1/311 11206\n"), Some(311));
        for text in [&b""[..], b"0.20 0.18 0.12", b"0.20 0.18 0.12 311 1", b"a b c 1/x 2"] {
            assert_eq!(tasks(text), None);
        }
    }
}
