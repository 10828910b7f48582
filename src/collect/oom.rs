//! Processes killed by the OOM killer, of the cgroup alone.
//!
//! v2 `memory.events.local:oom_kill` (5.2), before that `memory.events`, which
//! is the subtree's; v1 `memory.oom_control:oom_kill` (4.13).

use super::{Collector, Context, Setup, Vanished};
use crate::kernel::handles::{FileKey, Pace};
use crate::kernel::parse::{Keyed, MAX_KEYS, Values};
use crate::kernel::tree::Node;
use crate::snapshot::{CgroupSample, reading};

#[derive(Debug)]
struct Oom {
    file: Option<FileKey>,
    fallback: Option<FileKey>,
    keys: Keyed,
    values: Values,
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let tree = setup.layout.tree_for("memory")?;
    let mut register = |name| setup.reader.register(tree, name, Pace::Tick);
    let (file, fallback) = if setup.layout.is_v2() {
        (register("memory.events.local"), register("memory.events"))
    } else {
        (register("memory.oom_control"), None)
    };
    Some(Box::new(Oom { file, fallback, keys: Keyed::new(&["oom_kill"]), values: [None; MAX_KEYS] }))
}

impl Collector for Oom {
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        let (keys, values) = (&mut self.keys, &mut self.values);
        let mut found = cx.file(node, self.file, |text| keys.read(text, values))?;
        if found.is_none() {
            found = cx.file(node, self.fallback, |text| keys.read(text, values))?;
        }
        if found.is_some() {
            let [kills, ..] = *values;
            row.memory.oom_kills = kills.and_then(reading);
        }
        Ok(())
    }
}
