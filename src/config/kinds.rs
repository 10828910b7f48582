//! Lists of kinds of metrics, by cAdvisor's names, and of other words.

use anyhow::{Result, bail};

use crate::snapshot::{Kind, Kinds};

/// Kinds that cAdvisor knows and this version does not collect. Old command
/// lines still name `accelerator`, which cAdvisor itself has dropped.
pub(crate) const OTHER_KINDS: [&str; 12] = [
    "accelerator",
    "advtcp",
    "app",
    "cpu_topology",
    "cpuset",
    "memory_numa",
    "perf_event",
    "referenced_memory",
    "resctrl",
    "sched",
    "tcp",
    "udp",
];

fn known(name: &str) -> Result<Option<Kind>> {
    if let Some(kind) = Kind::ALL.into_iter().find(|k| k.name() == name) {
        return Ok(Some(kind));
    }
    if OTHER_KINDS.contains(&name) {
        return Ok(None);
    }
    bail!("{name:?}: unknown kind; accepted: {}", kind_names())
}

fn kind_names() -> String {
    Kind::ALL.map(Kind::name).join(", ")
}

/// Words of a list; blanks and empty words do not count.
pub(super) fn words(list: &[String]) -> impl Iterator<Item = &str> {
    list.iter().map(|w| w.trim()).filter(|w| !w.is_empty())
}

/// Those named, each of which has to be collected here.
pub(super) fn enabled(list: &[String]) -> Result<Kinds> {
    let mut kinds = Kinds::NONE;
    for name in words(list) {
        match known(name)? {
            Some(kind) => kinds = kinds.with(kind),
            None => bail!(
                "{name:?}: a kind of cAdvisor's that this version does not collect; accepted: {}",
                kind_names()
            ),
        }
    }
    if kinds == Kinds::NONE {
        bail!("no kind; accepted: {}", kind_names());
    }
    Ok(kinds)
}

/// All but those named.
pub(super) fn not_disabled(list: &[String]) -> Result<Kinds> {
    let mut kinds = Kind::ALL.into_iter().fold(Kinds::NONE, Kinds::with);
    for name in words(list) {
        if let Some(kind) = known(name)? {
            kinds = kinds.without(kind);
        }
    }
    Ok(kinds)
}
