//! How many tasks the host has, may have, and on average wants to run: figures for
//! all, so they are read before the rows.
//!
//! `/proc/loadavg`: `0.20 0.18 0.12 1/311 11206`, the averages and then the tasks
//! after the slash.

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

/// The averages over 1, 5 and 15 minutes, in hundredths: the kernel gives two digits.
fn averages(text: &[u8]) -> Option<[u32; 3]> {
    let mut words = text.split(|b| *b == b' ').map(|word| {
        let point = word.iter().position(|b| *b == b'.')?;
        let (whole, part) = (parse::digits(word.get(..point)?)?, word.get(point + 1..)?);
        let part = parse::digits(part).filter(|_| part.len() == 2)?;
        u32::try_from(whole.checked_mul(100)?.checked_add(part)?).ok()
    });
    Some([words.next()??, words.next()??, words.next()??])
}

fn limit(buffer: &mut Buffer, path: &Path) -> Result<Reading, ReadError> {
    buffer.read_path(path).and_then(parse::number).map(reading)
}

impl Collector for OfHost {
    fn begin(&mut self, cx: &mut Context<'_>, _nodes: &mut [Node], snapshot: &mut Snapshot) {
        let buffer = &mut cx.reader.buffer;
        let (current, load_average) = match buffer.read_path(&self.loadavg) {
            Ok(text) => (tasks(text).and_then(reading), averages(text)),
            Err(error) => {
                cx.errors.count(error);
                (None, None)
            }
        };
        // Either may be hidden; the other then is all there is.
        let limits = [limit(buffer, &self.pid_max), limit(buffer, &self.threads_max)];
        let max = limits.into_iter().filter_map(Result::ok).flatten().min();
        snapshot.tasks = Tasks { current, max, load_average };
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

    #[test]
    fn averages_are_before_it() {
        assert_eq!(averages(b"0.20 10.08 312.12 1/311 11206\n"), Some([20, 1008, 31_212]));
        for text in [&b""[..], b"0.20 0.18", b"0.2 0.18 0.12", b"a b c d", b". . ."] {
            assert_eq!(averages(text), None);
        }
    }
}
