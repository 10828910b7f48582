//! Version 2 of cAdvisor's REST API, 2.0 and 2.1: what a container is and how it
//! does, apart; and the machine.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use serde::Serialize;

use super::cadvisor::disks::{DiskIo, FsStats, InlineIo};
use super::cadvisor::extra::SocketStats;
use super::cadvisor::machine::{Attributes, MachineInfo, Wanted, storage, storage_labels};
use super::cadvisor::ps::ProcessInfo;
use super::cadvisor::spec::Spec;
use super::cadvisor::stats::{
    Cpu, CpuUsage, Hugetlb, InterfaceStats, Memory, Parts, Processes, cpu_between, filesystems,
};
use super::cadvisor::{Answer, GoTime, Mapped, Refused, Span, World, bad, unknown};
use super::cadvisor_v1::{events, path};
use crate::history::{Figure, Sample};
use crate::snapshot::CgroupSample;

/// Samples that are told where nobody says how many.
const DEFAULT_SAMPLES: i64 = 64;

/// What a request's parameters say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `docker` or `podman`, whose containers or names are meant; else all, and paths.
    pub runtime: Option<&'static str>,
    count: i64,
    recursive: bool,
    /// Age beyond which a fresh collection is asked for.
    pub max_age: Option<Duration>,
}

impl Options {
    /// Reads the parameters.
    ///
    /// # Errors
    /// One of them is malformed.
    pub fn read(query: &[(String, String)]) -> Result<Options, Refused> {
        let value = |name: &str| query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let refused = |name: &str, text: &str, accepted: &str| {
            let shown: String = text.chars().take(80).collect();
            bad(format!("{name} {shown:?}: not accepted; accepted: {accepted}"))
        };
        let runtime = match value("type") {
            None | Some("" | "name") => None,
            Some("docker") => Some("docker"),
            Some("podman") => Some("podman"),
            Some(other) => return Err(refused("type", other, "name, docker, podman")),
        };
        let count = match value("count").filter(|v| !v.is_empty()) {
            None => DEFAULT_SAMPLES,
            Some(text) => {
                let count = text.parse::<i64>().ok().filter(|count| *count >= -1);
                count.ok_or_else(|| refused("count", text, "-1 for all, 0 and more"))?
            }
        };
        let max_age = match value("max_age").filter(|v| !v.is_empty()) {
            None => None,
            Some(text) => Some(
                crate::config::go_duration(text)
                    .ok_or_else(|| refused("max_age", text, "such as 0s or 1m30s"))?,
            ),
        };
        Ok(Options { runtime, count, recursive: value("recursive") == Some("true"), max_age })
    }

    /// Paths of the rows that are meant.
    fn paths(&self, world: &World, name: &str) -> Result<Vec<String>, Refused> {
        let owned = |row: &CgroupSample| row.cgroup.path.clone();
        let Some(runtime) = self.runtime else {
            let path = path(name);
            let row = world.row(&path).ok_or_else(|| unknown(&path))?;
            return Ok(if self.recursive {
                world.tree(&path).map(owned).collect()
            } else {
                vec![owned(row)]
            });
        };
        match (name.trim_matches('/'), self.recursive) {
            ("", true) => Ok(world.of_runtime(runtime).map(owned).collect()),
            ("", false) => Err(bad("no name; accepted: a name, or recursive=true for all")),
            (_, true) => Err(bad("recursive with a name: accepted only with type=name")),
            (name, false) => Ok(vec![owned(world.by_name(runtime, name)?)]),
        }
    }
}

/// A sample of version 2.1: what is there was measured.
#[derive(Serialize)]
struct Stats {
    timestamp: GoTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<Cpu>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_inst: Option<CpuInst>,
    #[serde(skip_serializing_if = "Option::is_none")]
    diskio: Option<DiskIo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    hugetlb: BTreeMap<String, Hugetlb>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Network>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<Processes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filesystem: Option<FsUsage>,
}

#[derive(Serialize)]
struct CpuInst {
    usage: CpuUsage,
}

#[derive(Serialize)]
struct Network {
    interfaces: Vec<InterfaceStats>,
    #[serde(flatten)]
    sockets: SocketStats,
}

/// The misspelt key is cAdvisor's.
#[derive(Serialize)]
struct FsUsage {
    #[serde(rename = "totalUsageBytes")]
    total_usage_bytes: u64,
    #[serde(rename = "baseUsageBytes")]
    base_usage_bytes: u64,
    containter_inode_usage: u64,
}

/// The same in version 2.0, with flags.
#[derive(Serialize)]
struct FlatStats {
    has_cpu: bool,
    has_diskio: bool,
    has_memory: bool,
    has_hugetlb: bool,
    has_network: bool,
    has_processes: bool,
    has_filesystem: bool,
    has_load: bool,
    has_custom_metrics: bool,
    #[serde(flatten)]
    stats: Stats,
    /// In this version it is a list.
    #[serde(rename = "filesystem", skip_serializing_if = "Vec::is_empty")]
    filesystems: Vec<FsStats>,
}

#[derive(Serialize)]
struct Info<'a> {
    spec: Spec<'a>,
    stats: Vec<Stats>,
}

/// A sample of the machine.
#[derive(Serialize)]
struct MachineStats {
    timestamp: GoTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<Cpu>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_inst: Option<CpuInst>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Network>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filesystem: Vec<MachineFs>,
}

#[derive(Serialize)]
struct MachineFs {
    device: String,
    #[serde(rename = "type")]
    kind: &'static str,
    capacity: u64,
    usage: u64,
    available: u64,
    inodes_free: u64,
    /// The key is cAdvisor's.
    #[serde(rename = "inline", skip_serializing_if = "Option::is_none")]
    io: Option<InlineIo>,
}

fn stats(world: &World, row: &CgroupSample, before: Option<&Sample>, sample: &Sample) -> Stats {
    let parts = Parts::new(world, sample, row);
    Stats {
        timestamp: parts.timestamp(),
        cpu: parts.cpu(),
        cpu_inst: before.and_then(|before| cpu_between(before, sample)).map(|usage| CpuInst { usage }),
        diskio: parts.diskio(),
        memory: parts.memory(),
        hugetlb: parts.hugetlb(),
        network: parts.network().map(|(interfaces, sockets)| Network { interfaces, sockets }),
        processes: parts.processes(),
        filesystem: written(sample, row),
    }
}

/// What a container wrote, as known at the time of the sample.
fn written(sample: &Sample, row: &CgroupSample) -> Option<FsUsage> {
    let get = |figure| sample.figures.get(figure);
    let base = get(Figure::LayerBytes).filter(|_| row.cgroup.path != "/")?;
    Some(FsUsage {
        total_usage_bytes: base.saturating_add(get(Figure::LogBytes).unwrap_or(0)),
        base_usage_bytes: base,
        containter_inode_usage: get(Figure::LayerInodes).unwrap_or(0),
    })
}

/// All samples asked for, each beside the one before it.
fn samples(world: &World, row: &CgroupSample, count: i64) -> Vec<Stats> {
    let Ok(span) = Span::newest(count) else { return Vec::new() };
    // One more, of which the first takes its use of CPU.
    let all = world.samples(row, &Span { most: span.most.map(|most| most.saturating_add(1)), ..span });
    let surplus = span.most.map_or(0, |most| all.len().saturating_sub(most));
    let before = std::iter::once(None).chain(all.iter().map(Some));
    before.zip(&all).skip(surplus).map(|(before, sample)| stats(world, row, before, sample)).collect()
}

fn flat(world: &World, row: &CgroupSample, count: i64) -> Vec<FlatStats> {
    let newest = GoTime::of_ms(world.snapshot.wall_ms);
    let flagged = |mut stats: Stats| {
        stats.filesystem = None;
        let newest = stats.timestamp == newest;
        let filesystems = if newest { filesystems(&world.snapshot, row) } else { Vec::new() };
        FlatStats {
            has_cpu: stats.cpu.is_some(),
            has_diskio: stats.diskio.is_some(),
            has_memory: stats.memory.is_some(),
            has_hugetlb: !stats.hugetlb.is_empty(),
            has_network: stats.network.is_some(),
            has_processes: stats.processes.is_some(),
            has_filesystem: !filesystems.is_empty(),
            has_load: false,
            has_custom_metrics: false,
            stats,
            filesystems,
        }
    };
    samples(world, row, count).into_iter().map(flagged).collect()
}

fn machine_stats(world: &World, count: i64) -> Vec<MachineStats> {
    let Some(root) = world.row("/") else { return Vec::new() };
    let newest = GoTime::of_ms(world.snapshot.wall_ms);
    let of_root = |stats: Stats| {
        let all = if stats.timestamp == newest { filesystems(&world.snapshot, root) } else { Vec::new() };
        let fs = |fs: FsStats| MachineFs {
            device: fs.device,
            kind: fs.kind,
            capacity: fs.capacity,
            usage: fs.usage,
            available: fs.available,
            inodes_free: fs.inodes_free,
            io: fs.io.as_ref().map(InlineIo::from),
        };
        MachineStats {
            timestamp: stats.timestamp,
            cpu: stats.cpu,
            cpu_inst: stats.cpu_inst,
            memory: stats.memory,
            network: stats.network,
            filesystem: all.into_iter().map(fs).collect(),
        }
    };
    samples(world, root, count).into_iter().map(of_root).collect()
}

/// Use over a while, CPU in thousandths of a core, memory in bytes.
#[derive(Serialize)]
struct Summary {
    timestamp: GoTime,
    latest_usage: Latest,
    minute_usage: Usage,
    hour_usage: Usage,
    day_usage: Usage,
}

#[derive(Serialize)]
struct Latest {
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
}

#[derive(Serialize)]
struct Usage {
    percent_complete: u64,
    cpu: Percentiles,
    memory: Percentiles,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Percentiles {
    present: bool,
    mean: u64,
    /// Standard deviation.
    std: u64,
    max: u64,
    fifty: u64,
    ninety: u64,
    ninetyfive: u64,
    count: u64,
}

impl Percentiles {
    fn of(mut values: Vec<u64>) -> Percentiles {
        values.sort_unstable();
        let count = values.len() as u64;
        let Some(max) = values.last().copied() else { return Percentiles::default() };
        let sum: u128 = values.iter().map(|v| u128::from(*v)).sum();
        // The nearest rank.
        let at = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100).max(1) - 1;
            values.get(rank).copied().unwrap_or(max)
        };
        let mean = u64::try_from(sum / u128::from(count)).unwrap_or(u64::MAX);
        let apart: u128 =
            values.iter().map(|v| u128::from(v.abs_diff(mean)).pow(2)).fold(0, u128::saturating_add);
        let std = u64::try_from((apart / u128::from(count)).isqrt()).unwrap_or(u64::MAX);
        let (fifty, ninety, ninetyfive) = (at(50), at(90), at(95));
        Percentiles { present: true, mean, std, max, fifty, ninety, ninetyfive, count }
    }
}

fn summary(world: &World, row: &CgroupSample) -> Summary {
    let all = world.samples(row, &Span { most: None, start_ms: 0, end_ms: u64::MAX });
    let now_ms = world.snapshot.wall_ms;
    let millicores = |before: &Sample, sample: &Sample| {
        let window = crate::rate::Window::from_ns(sample.usec_since(before)?.saturating_mul(1_000))?;
        Some(window.millicores(sample.rise_since(before, Figure::CpuUsage)?))
    };
    let pairs: Vec<(u64, Option<u64>)> = all
        .iter()
        .zip(all.iter().skip(1))
        .map(|(before, sample)| (sample.wall_ms, millicores(before, sample)))
        .collect();
    let usage = |seconds: u64| {
        let start = now_ms.saturating_sub(seconds * 1_000);
        let cpu: Vec<u64> = pairs.iter().filter(|(ms, _)| *ms >= start).filter_map(|(_, cpu)| *cpu).collect();
        let within = all.iter().filter(|sample| sample.wall_ms >= start);
        let memory = within.clone().filter_map(|s| s.figures.get(Figure::MemoryWorkingSet)).collect();
        let known_ms = within.map(|s| s.wall_ms).min().map_or(0, |first| now_ms.saturating_sub(first));
        Usage {
            percent_complete: (known_ms / (seconds * 10)).min(100),
            cpu: Percentiles::of(cpu),
            memory: Percentiles::of(memory),
        }
    };
    Summary {
        timestamp: GoTime::of_ms(now_ms),
        latest_usage: Latest {
            cpu: pairs.last().and_then(|(_, cpu)| *cpu),
            memory: row.memory.working_set.map(u64::from),
        },
        minute_usage: usage(60),
        hour_usage: usage(3_600),
        day_usage: usage(86_400),
    }
}

/// Answers what version `minor` has of this kind; `None` where it has nothing.
///
/// # Errors
/// What is asked is malformed, or of no container here.
pub fn answer(
    world: &World,
    minor: u8,
    kind: &str,
    name: &str,
    query: &[(String, String)],
) -> Option<Result<Answer, Refused>> {
    if !kinds(minor).contains(&kind) {
        return None;
    }
    let options = match Options::read(query) {
        Ok(options) => options,
        Err(refused) => return Some(Err(refused)),
    };
    let count = options.count;
    let of_each = |each: Each| {
        let paths = options.paths(world, name)?;
        Ok(Answer::json(world, move |world, out| each(world, out, &paths, count)))
    };
    Some(match (kind, minor) {
        ("version", _) => Ok(Answer::json(world, |_, out| {
            serde_json::to_writer(out, concat!("v", env!("CARGO_PKG_VERSION")))
        })),
        ("attributes", _) => Ok(Answer::json(world, |w, out| serde_json::to_writer(out, &Attributes::of(w)))),
        ("machine", _) => {
            Ok(Answer::json(world, |w, out| serde_json::to_writer(out, &MachineInfo::of(&w.snapshot))))
        }
        ("machinestats", _) => Ok(Answer::json(world, move |world, out| {
            serde_json::to_writer(out, &machine_stats(world, count))
        })),
        ("stats", 0) => of_each(|world, out, paths, count| {
            let rows = paths.iter().filter_map(|path| world.row(path));
            serde_json::to_writer(out, &Mapped(rows.map(|row| (&row.cgroup.path, flat(world, row, count)))))
        }),
        ("stats", _) => of_each(|world, out, paths, count| {
            let info = |row| Info { spec: Spec::v2(world, row), stats: samples(world, row, count) };
            // The root has machinestats.
            let rows = paths.iter().filter(|path| *path != "/").filter_map(|path| world.row(path));
            serde_json::to_writer(out, &Mapped(rows.map(|row| (&row.cgroup.path, info(row)))))
        }),
        ("spec", _) => of_each(|world, out, paths, _| {
            let rows = paths.iter().filter_map(|path| world.row(path));
            serde_json::to_writer(out, &Mapped(rows.map(|row| (&row.cgroup.path, Spec::v2(world, row)))))
        }),
        ("summary", _) => of_each(|world, out, paths, _| {
            let rows = paths.iter().filter_map(|path| world.row(path));
            serde_json::to_writer(out, &Mapped(rows.map(|row| (&row.cgroup.path, summary(world, row)))))
        }),
        ("ps", _) => processes(world, &options, name),
        ("storage", _) => storage_of(world, query),
        ("events", _) => events(world, name, query),
        ("appmetrics", _) => of_each(|_, out, paths, _| {
            // Nothing scrapes applications: each has none.
            let none = BTreeMap::<&str, ()>::new();
            serde_json::to_writer(out, &Mapped(paths.iter().map(|path| (path, none.clone()))))
        }),
        _ => return None,
    })
}

fn processes(world: &World, options: &Options, name: &str) -> Result<Answer, Refused> {
    let paths = Options { recursive: false, ..options.clone() }.paths(world, name)?;
    if world.host.is_none() {
        return Err((StatusCode::NOT_FOUND, "processes cannot be listed here".to_owned()));
    }
    Ok(Answer::json(world, move |world, out| {
        let found = paths.iter().zip(&world.host).flat_map(|(path, host)| {
            let zone = host.zone();
            let shown = |process| ProcessInfo::of(process, &world.snapshot, &zone, path == "/");
            host.processes(path).into_iter().map(shown).collect::<Vec<_>>()
        });
        serde_json::to_writer(out, &found.collect::<Vec<_>>())
    }))
}

type Each = fn(&World, &mut dyn std::io::Write, &[String], i64) -> serde_json::Result<()>;

fn storage_of(world: &World, query: &[(String, String)]) -> Result<Answer, Refused> {
    let value = |name: &str| query.iter().find(|(n, _)| n == name).map(|(_, v)| v).filter(|v| !v.is_empty());
    let short = |text: &str| text.chars().take(80).collect::<String>();
    if let Some(uuid) = value("uuid") {
        let device = world.host.as_ref().and_then(|host| host.device(uuid));
        let wanted = device.map(|(name, major, minor)| Wanted::Device(name, major, minor));
        let Some(wanted) = wanted.filter(|wanted| !storage(world, wanted).is_empty()) else {
            let text = format!("uuid {:?}: on no filesystem that is known here", short(uuid));
            return Err((StatusCode::NOT_FOUND, text));
        };
        // One is asked for, so it is no list.
        return Ok(Answer::json(world, move |world, out| match storage(world, &wanted).first() {
            Some(one) => serde_json::to_writer(out, one),
            None => Ok(()),
        }));
    }
    let wanted = value("label").map_or(Wanted::All, |label| Wanted::Label(label.clone()));
    if let Wanted::Label(label) = &wanted
        && storage(world, &wanted).is_empty()
    {
        let known = storage_labels(world).join(", ");
        return Err(bad(format!("label {:?}: on no filesystem; accepted: {known}", short(label))));
    }
    Ok(Answer::json(world, move |world, out| serde_json::to_writer(out, &storage(world, &wanted))))
}

/// The kinds of requests that version `minor` has, sorted.
pub fn kinds(minor: u8) -> &'static [&'static str] {
    const ALL: [&str; 11] = [
        "appmetrics",
        "attributes",
        "events",
        "machine",
        "ps",
        "spec",
        "stats",
        "storage",
        "summary",
        "version",
        "machinestats",
    ];
    if minor == 0 { ALL.split_at(10).0 } else { &ALL }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
        let found = Percentiles::of((1..=20).rev().collect());
        assert_eq!((found.mean, found.std, found.max, found.count), (10, 5, 20, 20));
        assert_eq!((found.fifty, found.ninety, found.ninetyfive), (10, 18, 19));
        assert_eq!(Percentiles::of(vec![7]).fifty, 7);
    }

    #[test]
    fn options_are_checked() {
        let read = |query: &str| Options::read(&crate::auth::path::query(query).unwrap());
        let options = read("type=docker&count=-1&recursive=true&max_age=1m30s").unwrap();
        assert_eq!(options.runtime, Some("docker"));
        assert_eq!((options.count, options.recursive), (-1, true));
        assert_eq!(options.max_age, Some(Duration::from_secs(90)));
        assert_eq!(read("").unwrap().count, DEFAULT_SAMPLES);
        for query in
            ["type=lxc", "count=-2", "count=99999999999999999999", "count=x", "max_age=soon", "max_age=-"]
        {
            assert!(read(query).is_err(), "{query}");
        }
    }
}
