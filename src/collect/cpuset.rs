//! Whether memory follows a cpuset that moves to other NUMA nodes: v1
//! `cpuset.memory_migrate`, 0 or 1. On v2 it always does, and there is no such file.
//!
//! It is a setting, so it is read when the others are.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{Collector, Context, Setup, Vanished};
use crate::kernel::tree::Node;
use crate::kernel::{ReadError, parse};
use crate::snapshot::{CgroupSample, Reading, reading};

#[derive(Debug)]
struct Cpuset {
    /// Not one of the trees that are walked: a cgroup is looked up here by its path.
    mount: PathBuf,
    /// Paths are built in here.
    path: PathBuf,
    last: HashMap<u64, Reading>,
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let mount = setup.layout.cpuset.clone()?;
    Some(Box::new(Cpuset { mount, path: PathBuf::new(), last: HashMap::new() }))
}

impl Collector for Cpuset {
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        if node.slow || node.spec_changed {
            self.path.clear();
            self.path.push(&self.mount);
            self.path.push(OsStr::from_bytes(node.files.relative().to_bytes()));
            self.path.push("cpuset.memory_migrate");
            let told = match cx.reader.buffer.read_path(&self.path).and_then(parse::number) {
                Ok(value) => reading(value),
                // It may be in other hierarchies only.
                Err(ReadError::Gone) => None,
                Err(error) => {
                    cx.failed(&node.cgroup.path, error);
                    None
                }
            };
            self.last.insert(node.id, told);
        }
        row.extra().memory_migrate = self.last.get(&node.id).copied().flatten();
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        self.last.remove(&id);
    }
}
