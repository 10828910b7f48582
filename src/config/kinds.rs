//! Lists of kinds of metrics, by cAdvisor's names, and of other words.

use anyhow::{Result, bail};

use crate::snapshot::{Kind, Kinds};

/// Kinds that cAdvisor knows and this version does not collect, and why. Old command
/// lines still name `accelerator`, which cAdvisor itself has dropped.
const REFUSED: [(&str, &str); 5] = [
    ("accelerator", "cAdvisor itself dropped it; NVIDIA's DCGM exporter has such figures"),
    ("app", "it scrapes what containers serve themselves, which Prometheus does with more care"),
    (
        "perf_event",
        "it holds a descriptor for each event, processor and cgroup, and needs CAP_PERFMON and a file of events",
    ),
    (
        "referenced_memory",
        "it makes the kernel walk the page tables of every process, and clears what others learn from them",
    ),
    (
        "resctrl",
        "it needs a monitoring group for each container to be made in resctrl, whose number is small",
    ),
];

/// Why this version does not collect a kind of cAdvisor's; `None` for kinds that it
/// does, and for what is none.
pub(crate) fn refused(name: &str) -> Option<&'static str> {
    REFUSED.into_iter().find_map(|(known, why)| (known == name).then_some(why))
}

fn known(name: &str) -> Result<Option<Kind>> {
    if let Some(kind) = Kind::ALL.into_iter().find(|k| k.name() == name) {
        return Ok(Some(kind));
    }
    if refused(name).is_some() {
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
                "{name:?}: a kind of cAdvisor's that is not collected: {}; accepted: {}",
                refused(name).unwrap_or_default(),
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
