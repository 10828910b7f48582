//! What a cgroup is and is allowed, in cAdvisor's JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::{GoTime, World};
use crate::expose::families::shares_of_weight;
use crate::snapshot::{CgroupSample, Limit, Reading};

/// How v1 hierarchies write "unlimited".
const UNLIMITED_V1: u64 = 9_223_372_036_854_771_712;

/// What refers to a cgroup.
#[derive(Debug, Serialize)]
pub struct Reference<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    /// Its path.
    pub name: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'static str>,
}

impl<'a> Reference<'a> {
    /// The one to `row`.
    pub fn to(row: &'a CgroupSample) -> Reference<'a> {
        let (id, namespace) = (row.cgroup.part.id.as_deref(), row.cgroup.part.runtime);
        Reference { id, name: &row.cgroup.path, aliases: aliases(row), namespace }
    }

    /// By the path alone.
    pub fn plain(row: &'a CgroupSample) -> Reference<'a> {
        Reference { id: None, name: &row.cgroup.path, aliases: Vec::new(), namespace: None }
    }
}

/// What else a container is called: the runtime's name first.
fn aliases(row: &CgroupSample) -> Vec<&str> {
    let Some(id) = row.cgroup.part.id.as_deref() else { return Vec::new() };
    match (row.cgroup.part.runtime, row.cgroup.identity.name.as_deref()) {
        (Some("containerd"), _) => vec![id, &row.cgroup.path],
        (_, Some(name)) if name != id => vec![name, id],
        _ => vec![id],
    }
}

/// Of version 1.
#[derive(Debug, Serialize)]
pub struct Spec<'a> {
    creation_time: GoTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<GoTime>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    envs: BTreeMap<&'a str, &'a str>,
    has_cpu: bool,
    cpu: CpuSpec,
    has_memory: bool,
    memory: MemorySpec,
    has_hugetlb: bool,
    has_network: bool,
    has_processes: bool,
    processes: ProcessSpec,
    has_filesystem: bool,
    has_diskio: bool,
    has_custom_metrics: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct CpuSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    max_limit: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Reading,
}

#[derive(Debug, Serialize)]
struct MemorySpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reservation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap_limit: Option<u64>,
}

#[derive(Debug, Default, Serialize)]
struct ProcessSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

impl<'a> Spec<'a> {
    /// What version 1 tells of `row`. Asks the host.
    pub fn v1(world: &World, row: &'a CgroupSample) -> Spec<'a> {
        let spec = &row.spec;
        let on_v2 = spec.cpu_weight.is_some() || row.memory.events_max.is_some();
        let unlimited = if on_v2 { u64::MAX } else { UNLIMITED_V1 };
        let bytes = |limit: Option<Limit>| limit.map(|limit| limit.value().unwrap_or(unlimited));
        let shares = spec.cpu_shares.map(u64::from);
        let part = &row.cgroup.part;
        let created = row.cgroup.created.map(|s| s.saturating_mul(1_000_000_000));
        Spec {
            creation_time: GoTime { ns: part.created_ns.or(created) },
            start_time: row.cgroup.identity.started_ns.or(created).map(|ns| GoTime { ns: Some(ns) }),
            labels: pairs(&part.labels),
            envs: pairs(&part.environment),
            has_cpu: row.cpu.usage_ns.is_some(),
            cpu: CpuSpec {
                mask: world.host.as_ref().and_then(|host| mask(host.cpus(&row.cgroup.path)?, world)),
                limit: shares.or_else(|| spec.cpu_weight.map(|weight| shares_of_weight(weight.get()))),
                max_limit: 0,
                quota: spec.cpu_quota_usec.and_then(Limit::value),
                period: spec.cpu_period_usec,
            },
            has_memory: row.memory.usage.is_some(),
            memory: MemorySpec {
                limit: bytes(spec.memory_limit),
                reservation: bytes(spec.memory_reservation),
                swap_limit: bytes(spec.memory_swap_limit),
            },
            has_hugetlb: !row.hugetlb.is_empty(),
            has_network: !row.network.is_empty(),
            has_processes: row.process.processes.is_some(),
            processes: ProcessSpec { limit: spec.threads_max.and_then(Limit::value) },
            has_filesystem: row.cgroup.path == "/" || row.disk.as_ref().is_some_and(|d| d.layer.is_some()),
            has_diskio: !row.io.is_empty(),
            has_custom_metrics: false,
            image: row.cgroup.identity.image.as_deref(),
            aliases: Vec::new(),
            namespace: None,
        }
    }

    /// What version 2 tells: names, and neither quotas nor limits of processes.
    pub fn v2(world: &World, row: &'a CgroupSample) -> Spec<'a> {
        let one = Spec::v1(world, row);
        Spec {
            cpu: CpuSpec { quota: None, period: None, ..one.cpu },
            processes: ProcessSpec::default(),
            aliases: aliases(row),
            namespace: row.cgroup.part.runtime,
            ..one
        }
    }
}

fn pairs(all: &[(Arc<str>, Arc<str>)]) -> BTreeMap<&str, &str> {
    all.iter().map(|(key, value)| (&**key, &**value)).collect()
}

/// Processors as cAdvisor tells them: all where none in particular were given.
fn mask(cpus: String, world: &World) -> Option<String> {
    if !cpus.is_empty() {
        return Some(cpus);
    }
    let last = world.snapshot.machine.cores?.get().checked_sub(1)?;
    Some(if last == 0 { "0".to_owned() } else { format!("0-{last}") })
}
