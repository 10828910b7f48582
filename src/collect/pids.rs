//! Threads of a cgroup's subtree: `pids.current`; for the root, which has no
//! such file, the total of `/proc/loadavg`.
//!
//! ```text
//! 0.20 0.18 0.12 1/80 11206
//! ```

use std::path::PathBuf;

use super::{Collector, Context, Setup, Vanished};
use crate::kernel::handles::{FileKey, Pace};
use crate::kernel::parse;
use crate::kernel::tree::Node;
use crate::snapshot::{CgroupSample, reading};

#[derive(Debug)]
struct Pids {
    current: Option<FileKey>,
    loadavg: PathBuf,
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let tree = setup.layout.tree_for("pids");
    Some(Box::new(Pids {
        current: tree.and_then(|t| setup.reader.register(t, "pids.current", Pace::Tick)),
        loadavg: setup.roots.proc.join("loadavg"),
    }))
}

/// The total of threads in `/proc/loadavg`.
fn total_threads(text: &[u8]) -> Option<u64> {
    let running = parse::words(text).nth(3)?;
    let slash = running.iter().position(|b| *b == b'/')?;
    parse::digits(running.get(slash + 1..)?)
}

impl Collector for Pids {
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        row.process.threads = cx.file(node, self.current, parse::number)?.and_then(reading);
        if row.process.threads.is_none() && node.is_root() {
            row.process.threads = match cx.reader.buffer.read_path(&self.loadavg) {
                Ok(text) => total_threads(text).and_then(reading),
                Err(error) => {
                    cx.errors.count(error);
                    None
                }
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loadavg_total() {
        assert_eq!(total_threads(b"0.20 0.18 0.12 1/80 11206\n"), Some(80));
        assert_eq!(total_threads(b"0.20 0.18"), None);
        assert_eq!(total_threads(b""), None);
    }
}
