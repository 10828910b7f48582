//! Memory by NUMA node, from `memory.numa_stat` of either version.
//!
//! v1 counts pages, of the cgroup alone and (`hierarchical_`) of its subtree; v2 (5.10)
//! counts bytes of the subtree, which become pages, as the family is in pages.

use nix::unistd::{SysconfVar, sysconf};

use super::{Collector, Context, Setup, Vanished};
use crate::kernel::handles::{FileKey, Pace};
use crate::kernel::parse::numa::by_node;
use crate::kernel::tree::Node;
use crate::snapshot::{CgroupSample, NumaPages, Pages, reading};

/// More nodes than this are not followed; the kernel's own bound is 1024.
const MAX_NODES: usize = 1024;

#[derive(Debug)]
struct Numa {
    /// Opened each time: one more handle for each cgroup is not worth a kind that is
    /// mostly off.
    stat: FileKey,
    /// What a page is in the file's unit.
    page: u64,
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let tree = setup.layout.tree_for("memory")?;
    let stat = setup.reader.register(tree, "memory.numa_stat", Pace::Slow)?;
    let bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|page| u64::try_from(page).ok());
    let page = if setup.layout.is_v2() { bytes.filter(|page| *page > 0)? } else { 1 };
    Some(Box::new(Numa { stat, page }))
}

/// Where a line of the file goes.
fn place<'a>(pages: &'a mut NumaPages, key: &[u8], v2: bool) -> Option<&'a mut crate::snapshot::Reading> {
    let (of, key) = match key.strip_prefix(b"hierarchical_") {
        Some(key) => (&mut pages.subtree, key),
        None if v2 => (&mut pages.subtree, key),
        None => (&mut pages.own, key),
    };
    let Pages { file, anon, unevictable } = of;
    match key {
        b"file" => Some(file),
        b"anon" => Some(anon),
        b"unevictable" => Some(unevictable),
        _ => None,
    }
}

impl Collector for Numa {
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        let v2 = cx.layout.is_v2();
        let nodes = &mut row.extra().numa;
        let read = cx.file(node, Some(self.stat), |text| {
            by_node(text, |key, number, value| {
                let at = nodes.iter().position(|n| n.node == number).unwrap_or_else(|| {
                    if nodes.len() < MAX_NODES {
                        nodes.push(NumaPages { node: number, ..NumaPages::default() });
                    }
                    nodes.len() - 1
                });
                let pages = nodes.get_mut(at).filter(|n| n.node == number);
                if let Some(place) = pages.and_then(|n| place(n, key, v2)) {
                    *place = reading(value / self.page);
                }
            })
        })?;
        // What was read of a file that is damaged further down is not told.
        if read.is_none() {
            nodes.clear();
        }
        Ok(())
    }
}
