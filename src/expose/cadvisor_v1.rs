//! Version 1 of cAdvisor's REST API, 1.0 to 1.3, and the kubelet's old
//! `/stats/container/`, which speaks the same: containers with their samples.

use std::collections::BTreeMap;
use std::io::Write;

use serde::{Deserialize, Serialize};

use super::cadvisor::disks::{DiskIo, FsStats};
use super::cadvisor::events::Filter;
use super::cadvisor::extra::{Cpuset, Empty, SocketStats};
use super::cadvisor::machine::MachineInfo;
use super::cadvisor::spec::{Reference, Spec};
use super::cadvisor::stats::{Cpu, Hugetlb, InterfaceStats, Memory, Parts, Processes, Tasks, filesystems};
use super::cadvisor::{
    Answer, GoTime, Listed, Mapped, Refused, Span, World, bad, is_within, time_ms, unknown,
};
use crate::history::Sample;
use crate::snapshot::{CgroupSample, Health};

/// Samples that are told where nobody says how many.
const DEFAULT_SAMPLES: i64 = 60;

/// What a request's body says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    num_stats: Option<i64>,
    start: Option<String>,
    end: Option<String>,
    /// Of `/stats/container/` alone.
    #[serde(rename = "containerName")]
    container_name: Option<String>,
    subcontainers: bool,
}

impl Asked {
    fn read(body: &[u8]) -> Result<Asked, Refused> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Asked::default());
        }
        let asked: Option<Asked> = serde_json::from_slice(body)
            .map_err(|error| bad(format!("request body: not the JSON that is accepted here: {error}")))?;
        // Go reads null as nothing.
        Ok(asked.unwrap_or_default())
    }

    fn span(&self) -> Result<Span, Refused> {
        let time = |name: &str, text: &Option<String>, none: u64| match text.as_deref() {
            None => Ok(none),
            Some(text) => match time_ms(text) {
                // Go's zero time is none.
                Some(0) => Ok(none),
                Some(ms) => Ok(ms),
                None => {
                    let shown: String = text.chars().take(80).collect();
                    Err(bad(format!("{name} {shown:?}: not a time; accepted: such as 2026-08-20T12:44:28Z")))
                }
            },
        };
        Ok(Span {
            start_ms: time("start", &self.start, 0)?,
            end_ms: time("end", &self.end, u64::MAX)?,
            ..Span::newest(self.num_stats.unwrap_or(DEFAULT_SAMPLES))?
        })
    }
}

/// A container with its samples.
#[derive(Serialize)]
struct ContainerInfo<'a> {
    #[serde(flatten)]
    reference: Reference<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subcontainers: Vec<Reference<'a>>,
    spec: Spec<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stats: Vec<Stats>,
}

#[derive(Serialize)]
struct Stats {
    timestamp: GoTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<Cpu>,
    #[serde(skip_serializing_if = "Option::is_none")]
    diskio: Option<DiskIo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    hugetlb: BTreeMap<String, Hugetlb>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Network>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filesystem: Vec<FsStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_stats: Option<Tasks>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<Processes>,
    resctrl: Empty,
    cpuset: Cpuset,
    #[serde(skip_serializing_if = "Option::is_none")]
    oom_events: Option<u64>,
    health: HealthStats,
}

/// What a container's own check says; empty where it has none.
#[derive(Serialize)]
struct HealthStats {
    status: &'static str,
}

#[derive(Serialize)]
struct Network {
    #[serde(flatten)]
    first: Option<InterfaceStats>,
    interfaces: Vec<InterfaceStats>,
    #[serde(flatten)]
    sockets: SocketStats,
}

fn stats(world: &World, row: &CgroupSample, sample: &Sample) -> Stats {
    let parts = Parts::new(world, sample, row);
    let newest = world.is_newest(sample);
    Stats {
        timestamp: parts.timestamp(),
        cpu: parts.cpu(),
        diskio: parts.diskio(),
        memory: parts.memory(),
        hugetlb: parts.hugetlb(),
        network: parts.network().map(|(interfaces, sockets)| Network {
            first: interfaces.first().cloned(),
            interfaces,
            sockets,
        }),
        filesystem: if newest { filesystems(&world.snapshot, row) } else { Vec::new() },
        task_stats: parts.tasks(),
        processes: parts.processes(),
        resctrl: Empty::default(),
        cpuset: parts.cpuset(),
        oom_events: parts.oom_events(),
        health: HealthStats { status: row.cgroup.identity.health.map_or("", Health::name) },
    }
}

fn info<'a>(world: &'a World, row: &'a CgroupSample, span: &Span) -> ContainerInfo<'a> {
    let samples = world.samples(row, span);
    // Only what no runtime knows lists what is in it, as in cAdvisor.
    let children = match row.cgroup.part.runtime {
        Some(_) => Vec::new(),
        None => children(world, &row.cgroup.path),
    };
    ContainerInfo {
        reference: Reference::to(row),
        subcontainers: children,
        spec: Spec::v1(world, row),
        stats: samples.iter().map(|sample| stats(world, row, sample)).collect(),
    }
}

fn children<'a>(world: &'a World, path: &str) -> Vec<Reference<'a>> {
    let is_child = |row: &&CgroupSample| {
        let below = row.cgroup.path.strip_prefix(path.trim_end_matches('/'));
        below
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|name| !name.is_empty() && !name.contains('/'))
    };
    world.snapshot.cgroups.iter().filter(is_child).map(Reference::plain).collect()
}

/// Answers what version `minor` has at `segments`; `None` where it has nothing.
///
/// # Errors
/// What is asked is malformed, or of no container here.
pub fn answer(
    world: &World,
    minor: u8,
    kind: &str,
    name: &str,
    query: &[(String, String)],
    body: &[u8],
) -> Option<Result<Answer, Refused>> {
    Some(match (kind, minor) {
        ("machine", _) => Ok(Answer::json(world, |world, out| {
            serde_json::to_writer(out, &MachineInfo::of(&world.snapshot))
        })),
        ("containers", _) => container(world, name, body),
        ("subcontainers", 1..) => subcontainers(world, name, body),
        ("docker", 2..) => docker(world, name, body),
        ("events", 3..) => events(world, name, query),
        _ => return None,
    })
}

/// The kinds of requests that version `minor` has, sorted.
pub fn kinds(minor: u8) -> &'static [&'static str] {
    match minor {
        0 => &["containers", "machine"],
        1 => &["containers", "machine", "subcontainers"],
        2 => &["containers", "docker", "machine", "subcontainers"],
        _ => &["containers", "docker", "events", "machine", "subcontainers"],
    }
}

fn container(world: &World, name: &str, body: &[u8]) -> Result<Answer, Refused> {
    let span = Asked::read(body)?.span()?;
    let path = path(name);
    world.row(&path).ok_or_else(|| unknown(&path))?;
    Ok(Answer::json(world, move |world, out| match world.row(&path) {
        Some(row) => serde_json::to_writer(out, &info(world, row, &span)),
        None => Ok(()),
    }))
}

fn subcontainers(world: &World, name: &str, body: &[u8]) -> Result<Answer, Refused> {
    let span = Asked::read(body)?.span()?;
    let path = path(name);
    if world.tree(&path).next().is_none() {
        return Err(unknown(&path));
    }
    Ok(Answer::json(world, move |world, out| {
        serde_json::to_writer(out, &Listed(world.tree(&path).map(|row| info(world, row, &span))))
    }))
}

fn docker(world: &World, name: &str, body: &[u8]) -> Result<Answer, Refused> {
    let span = Asked::read(body)?.span()?;
    let name = name.trim_matches('/');
    if name.contains('/') {
        return Err(bad(format!("{name:?}: not the name of a container; accepted: a name or an id")));
    }
    let one = match name {
        "" => None,
        name => Some(world.by_name("docker", name)?.cgroup.path.clone()),
    };
    Ok(Answer::json(world, move |world, out| {
        let rows =
            world.of_runtime("docker").filter(|r| one.as_ref().is_none_or(|one| r.cgroup.path == *one));
        serde_json::to_writer(out, &Mapped(rows.map(|row| (&row.cgroup.path, info(world, row, &span)))))
    }))
}

/// Events of either version.
///
/// # Errors
/// What is asked contradicts itself.
pub fn events(world: &World, name: &str, query: &[(String, String)]) -> Result<Answer, Refused> {
    let filter = Filter::read(&path(name), query)?;
    if filter.stream {
        return Ok(Answer::Stream(filter));
    }
    Ok(Answer::json(world, move |world, out| serde_json::to_writer(out, &world.events.find(&filter))))
}

/// A kubelet's `/stats/container/`.
///
/// # Errors
/// What is asked is malformed, or of no container here.
pub fn stats_container(world: &World, body: &[u8]) -> Result<Answer, Refused> {
    let asked = Asked::read(body)?;
    let span = asked.span()?;
    let root =
        asked.container_name.filter(|name| !name.is_empty()).map_or_else(|| "/".to_owned(), |n| path(&n));
    world.row(&root).ok_or_else(|| unknown(&root))?;
    let wanted = move |path: &str| path == root || asked.subcontainers && is_within(path, &root);
    Ok(Answer::json(world, move |world, out: &mut dyn Write| {
        let rows = world.snapshot.cgroups.iter().filter(|row| wanted(&row.cgroup.path));
        serde_json::to_writer(out, &Mapped(rows.map(|row| (&row.cgroup.path, info(world, row, &span)))))
    }))
}

/// The path of a cgroup as it may be written: with or without slashes around it.
pub(super) fn path(name: &str) -> String {
    format!("/{}", name.trim_matches('/'))
}
