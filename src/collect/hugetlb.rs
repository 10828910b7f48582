//! Huge pages by size. The reservation file (`.rsvd`) is preferred where there
//! is one, since it is what the limit that kills acts on.
//!
//! v1 `hugetlb.<size>.{usage_in_bytes,max_usage_in_bytes,failcnt}`; v2
//! `hugetlb.<size>.current` and `hugetlb.<size>.events:max`.

use std::sync::Arc;

use super::{Collector, Context, Setup, Vanished};
use crate::kernel::handles::{FileKey, Pace};
use crate::kernel::parse::{self, Keyed, MAX_KEYS, Values};
use crate::kernel::tree::Node;
use crate::snapshot::{CgroupSample, HugetlbStats, reading};

#[derive(Debug)]
struct Hugetlb {
    sizes: Vec<Size>,
    events: Keyed,
    values: Values,
}

#[derive(Debug)]
struct Size {
    name: Arc<str>,
    usage: [Option<FileKey>; 2],
    max_usage: [Option<FileKey>; 2],
    failcnt: [Option<FileKey>; 2],
    events: Option<FileKey>,
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let tree = setup.layout.tree_for("hugetlb")?;
    let pools = setup.roots.sys.join("kernel/mm/hugepages");
    let mut kib: Vec<u64> = std::fs::read_dir(pools)
        .ok()?
        .flatten()
        .filter_map(|e| {
            let name = e.file_name();
            let size = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?;
            size.parse().ok()
        })
        .collect();
    kib.sort_unstable();
    let v2 = setup.layout.is_v2();
    let mut register = |name: String| setup.reader.register(tree, &name, Pace::Slow);
    let sizes: Vec<Size> = kib
        .into_iter()
        .map(size_name)
        .map(|name| {
            let mut both = |suffix: &str| {
                [
                    register(format!("hugetlb.{name}.rsvd.{suffix}")),
                    register(format!("hugetlb.{name}.{suffix}")),
                ]
            };
            let usage = both(if v2 { "current" } else { "usage_in_bytes" });
            let (max_usage, failcnt) =
                if v2 { ([None; 2], [None; 2]) } else { (both("max_usage_in_bytes"), both("failcnt")) };
            let events = if v2 { register(format!("hugetlb.{name}.events")) } else { None };
            Size { name: name.into(), usage, max_usage, failcnt, events }
        })
        .collect();
    (!sizes.is_empty()).then(|| {
        Box::new(Hugetlb { sizes, events: Keyed::new(&["max"]), values: [None; MAX_KEYS] })
            as Box<dyn Collector>
    })
}

/// The kernel's spelling in file names: `64KB`, `2MB`, `1GB`.
fn size_name(kib: u64) -> String {
    if kib >= 1 << 20 {
        format!("{}GB", kib >> 20)
    } else if kib >= 1 << 10 {
        format!("{}MB", kib >> 10)
    } else {
        format!("{kib}KB")
    }
}

impl Collector for Hugetlb {
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        for size in &self.sizes {
            let mut number = |cx: &mut Context<'_>, keys: [Option<FileKey>; 2]| {
                for key in keys {
                    if let Some(value) = cx.file(node, key, parse::number)? {
                        return Ok(reading(value));
                    }
                }
                Ok(None)
            };
            let usage = number(cx, size.usage)?;
            let max_usage = number(cx, size.max_usage)?;
            let mut failcnt = number(cx, size.failcnt)?;
            let (keys, values) = (&mut self.events, &mut self.values);
            if cx.file(node, size.events, |text| keys.read(text, values))?.is_some() {
                let [max, ..] = *values;
                failcnt = max.and_then(reading);
            }
            if usage.is_some() || failcnt.is_some() {
                row.hugetlb.push(HugetlbStats {
                    page_size: Arc::clone(&size.name),
                    usage,
                    max_usage,
                    failcnt,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_names() {
        assert_eq!(size_name(64), "64KB");
        assert_eq!(size_name(2048), "2MB");
        assert_eq!(size_name(1 << 20), "1GB");
    }
}
