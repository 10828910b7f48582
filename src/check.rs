//! What this host offers, what is missing, what that costs and how to cure it.
//!
//! Most of it is told by two trial collections rather than by looking at
//! versions: what they could not read will be missing from `/metrics` too.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::agent;
use crate::agent::naming::Naming;
use crate::collect::Report;
use crate::collect::sampler::Sampler;
use crate::config::{self, Config};
use crate::expose::{families, http};
use crate::identity::{Identities, SourceState, path};
use crate::kernel::cgroup::{Layout, TreeRoot};
use crate::kernel::file::{self, Buffer};
use crate::kernel::handles::{self, BYTES_PER_HANDLE};
use crate::kernel::{ReadError, Roots, own, parse};
use crate::push::delivery::{self, Timing};
use crate::push::sinks;
use crate::snapshot::{CgroupSample, Hierarchy, Kind, Kinds, MemoryStats, Origin, PressureStats, Snapshot};

/// See [`once`](crate::once): what runs on threads of its own is there by then.
const SETTLE: Duration = Duration::from_millis(200);

/// How long a sink may take to answer.
const SINK_PATIENCE: Duration = Duration::from_secs(3);

/// Processes whose descriptors are tried.
const PROCESSES_TRIED: usize = 200;

/// Controllers by their v2 names, with their v1 names, the kind they serve and
/// what is missing without them.
const CONTROLLERS: [(&str, &[&str], Kind, &str); 5] = [
    ("cpu", &["cpuacct", "cpu"], Kind::Cpu, "CPU time, throttling and CPU limits are missing"),
    ("memory", &["memory"], Kind::Memory, "all memory figures are missing"),
    ("io", &["blkio"], Kind::DiskIo, "block I/O by container is missing"),
    ("pids", &["pids"], Kind::Process, "thread counts and their limits are missing"),
    ("hugetlb", &["hugetlb"], Kind::Hugetlb, "huge pages are missing"),
];

/// Capabilities that matter here, by bit.
const CAPABILITIES: [(u32, &str); 6] = [
    (1, "DAC_OVERRIDE"),
    (2, "DAC_READ_SEARCH"),
    (19, "SYS_PTRACE"),
    (21, "SYS_ADMIN"),
    (24, "SYS_RESOURCE"),
    (34, "SYSLOG"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// The lines so far.
#[derive(Debug, Default)]
struct Findings(Vec<(Verdict, String)>);

impl Findings {
    fn ok(&mut self, subject: &str, finding: impl std::fmt::Display) {
        self.0.push((Verdict::Ok, format!("{subject}: {finding}")));
    }

    fn warn(&mut self, subject: &str, finding: impl std::fmt::Display, consequence: &str, cure: &str) {
        self.0.push((Verdict::Warn, format!("{subject}: {finding}; {consequence}; {cure}")));
    }

    fn fail(&mut self, subject: &str, finding: impl std::fmt::Display, consequence: &str, cure: &str) {
        self.0.push((Verdict::Fail, format!("{subject}: {finding}; {consequence}; {cure}")));
    }
}

/// Writes the table of sources of all families.
///
/// # Errors
/// `out` cannot be written.
pub fn families(out: &mut impl Write) -> io::Result<()> {
    out.write_all(families::source_table().as_bytes())
}

/// Looks at the host and writes a line for each subject; true if the agent is
/// of use here.
///
/// # Errors
/// `out` cannot be written.
pub fn run(config: &Config, out: &mut impl Write) -> io::Result<bool> {
    let mut findings = Findings::default();
    look(config, &mut findings);
    for (verdict, line) in &findings.0 {
        let word = match verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        writeln!(out, "{word}  {line}")?;
    }
    Ok(findings.0.iter().all(|(verdict, _)| *verdict != Verdict::Fail))
}

fn look(config: &Config, f: &mut Findings) {
    let roots = Roots::new(&config.host_root);
    if let Err(error) = config.check_host_root() {
        return f.0.push((
            Verdict::Fail,
            format!("host root: {error:#}; nothing can be read; mount it or name another"),
        ));
    }
    let kernel = file::read_trimmed(&roots.proc.join("sys/kernel/osrelease"));
    match kernel {
        Some(version) => f.ok("kernel", version),
        None => f.warn(
            "kernel",
            format_args!("no version in {}", roots.proc.display()),
            "machine figures are missing",
            "mount the host's proc there",
        ),
    }
    let descriptors = handles::raise_descriptor_limit();
    let clients = http::Limits::new(descriptors).connections as u64;
    let event_loop = match agent::event_loop() {
        Ok(event_loop) => event_loop,
        Err(error) => return f.fail("names", format_args!("{error:#}"), "nothing can be asked", "see above"),
    };
    let identities = event_loop.block_on(agent::identities(config));
    let namer = Box::new(Naming::new(Arc::clone(&identities), config.labels.clone()));
    let mut sampler = match agent::sampler(config, descriptors.saturating_sub(clients), namer) {
        Ok(sampler) => sampler,
        Err(error) => {
            return f.fail("hierarchy", format_args!("{error:#}"), "nothing can be collected", "see above");
        }
    };
    let mut snapshot = sampler.blank();
    sampler.tick(Origin::Fresh, &mut snapshot);
    std::thread::park_timeout(SETTLE);
    sampler.tick(Origin::Fresh, &mut snapshot);

    hierarchy(f, sampler.layout(), config.kinds);
    collection(f, config, &sampler, &snapshot, descriptors);
    memory_files(f, &snapshot);
    pressure(f, &roots, &snapshot);
    watches(f, &roots, sampler.report());
    processes(f, config, &roots);
    filesystems(f, &snapshot);
    names(f, &identities, &snapshot);
    listener(f, config);
    event_loop.block_on(sinks(f, config));
}

/// The sources of names, and whether they name what is there.
fn names(f: &mut Findings, identities: &Identities, snapshot: &Snapshot) {
    let mut up = 0;
    for source in identities.status() {
        let subject = format!("names by {}", source.name);
        let place = &source.endpoint;
        match source.state {
            SourceState::Up => {
                up += 1;
                let version = source.version.as_deref().unwrap_or("no version told");
                let latency = source.latency.map_or_else(String::new, |l| format!(", answers in {l:.1?}"));
                let told = format!("{} containers, {} pods", source.containers, source.pods);
                f.ok(&subject, format_args!("{version} at {place}{latency}: {told}"));
            }
            SourceState::Absent => f.ok(&subject, format_args!("not here ({place})")),
            SourceState::Starting => f.warn(
                &subject,
                format_args!("{place} has not answered yet"),
                "its containers have no names meanwhile",
                "look at it again; the agent keeps asking",
            ),
            SourceState::Down => f.warn(
                &subject,
                format_args!("{place}: {}", source.last_error.as_deref().unwrap_or("failed")),
                "its containers have no names until it answers; the agent keeps asking",
                "start it, or let the agent reach its socket",
            ),
        }
    }
    let containers = |c: &&CgroupSample| path::parse(&c.cgroup.path).container.is_some();
    let all = snapshot.cgroups.iter().filter(containers).count();
    let named =
        snapshot.cgroups.iter().filter(containers).filter(|c| c.cgroup.identity.name.is_some()).count();
    if all > named {
        f.warn(
            "containers",
            format_args!("{named} of {all} have a name"),
            "the others appear with their cgroup's path only",
            if up == 0 { "start a runtime, or let the agent reach its socket" } else { "see above" },
        );
    } else {
        f.ok("containers", format_args!("{named} of {all} have a name"));
    }
}

fn hierarchy(f: &mut Findings, layout: &Layout, kinds: Kinds) {
    let name = match layout.hierarchy {
        Hierarchy::V1 => "cgroup v1",
        Hierarchy::V2 => "cgroup v2",
        Hierarchy::Hybrid => "hybrid: cgroup v1 controllers with a v2 tree beside them",
    };
    let trees: Vec<_> = layout
        .trees
        .iter()
        .map(|t| match t.v2 {
            true => format!("v2 at {}", t.path.display()),
            false => format!("{} at {}", t.controllers.join(","), t.path.display()),
        })
        .collect();
    f.ok("hierarchy", format_args!("{name} ({})", trees.join(", ")));
    let unified = layout.is_v2().then(|| layout.trees.iter().find(|t| t.v2)).flatten();
    for (name, v1_names, kind, consequence) in CONTROLLERS {
        let subject = format!("controller {name}");
        if !kinds.has(kind) {
            f.ok(&subject, format_args!("not asked for (kind {} is off)", kind.name()));
            continue;
        }
        match unified {
            Some(tree) => unified_controller(f, tree, &subject, name, consequence),
            None => {
                let missing: Vec<_> =
                    v1_names.iter().copied().filter(|n| layout.controller(n).is_none()).collect();
                if missing.is_empty() {
                    f.ok(&subject, "mounted");
                } else {
                    f.warn(
                        &subject,
                        format_args!("no hierarchy with {}", missing.join(",")),
                        consequence,
                        &format!(
                            "mount -t cgroup -o {0} cgroup /sys/fs/cgroup/{0}, or boot with cgroup_enable={0}",
                            missing.first().copied().unwrap_or(name)
                        ),
                    );
                }
            }
        }
    }
}

/// On v2 a controller counts for a cgroup only where its parent passes it on.
fn unified_controller(f: &mut Findings, tree: &TreeRoot, subject: &str, name: &str, consequence: &str) {
    let lists = |file: &str| {
        file::read_trimmed(&tree.path.join(file)).is_some_and(|text| text.split(' ').any(|word| word == name))
    };
    if lists("cgroup.subtree_control") {
        f.ok(subject, "on for the root's children");
    } else if lists("cgroup.controllers") {
        f.warn(
            subject,
            "there, but off for the root's children",
            consequence,
            &format!(
                "echo +{name} > {}/cgroup.subtree_control, or turn on accounting in systemd",
                tree.path.display()
            ),
        );
    } else {
        f.warn(
            subject,
            "not in cgroup.controllers",
            consequence,
            &format!("boot with cgroup_enable={name}, or unmount it from v1"),
        );
    }
}

fn collection(f: &mut Findings, config: &Config, sampler: &Sampler, snapshot: &Snapshot, descriptors: u64) {
    let report = sampler.report();
    let took =
        format!("{} cgroups in {:.1} ms", snapshot.cgroups.len(), snapshot.duration.as_secs_f64() * 1e3);
    if report.tree.over_limit > 0 {
        f.warn(
            "cgroups",
            format_args!("{took}, {} more beyond the limit", report.tree.over_limit),
            "those are missing",
            "raise --max-cgroups",
        );
    } else if snapshot.cgroups.is_empty() {
        f.fail("cgroups", "none", "there is nothing to serve", "see whether the cgroup mounts can be listed");
    } else if snapshot.duration > config.interval / 2 {
        f.warn(
            "cgroups",
            took,
            "collection takes over half of the interval",
            "raise --interval or --handle-memory",
        );
    } else {
        f.ok("cgroups", took);
    }
    for collector in report.collectors.iter().filter(|c| c.errors.total() > 0) {
        let e = collector.errors;
        let counts = [
            ("denied", e.denied),
            ("malformed", e.malformed),
            ("without a descriptor", e.exhausted),
            ("too large", e.too_large),
            ("failed otherwise", e.os),
        ];
        let reasons: Vec<_> =
            counts.iter().filter(|(_, n)| *n > 0).map(|(reason, n)| format!("{n} {reason}")).collect();
        f.warn(
            &format!("collector {}", collector.name),
            format_args!("files it could not use: {}", reasons.join(", ")),
            "their figures are missing",
            "--log-level debug names them",
        );
    }
    descriptor_limits(f, config, report, descriptors);
}

fn descriptor_limits(f: &mut Findings, config: &Config, report: &Report, descriptors: u64) {
    let held = report.handles;
    let text = format!(
        "limit {descriptors}; {} file and {} directory handles held, {} KiB of kernel memory",
        held.files,
        held.directories,
        held.files * BYTES_PER_HANDLE / 1024
    );
    // At the limit there are files that would have had a handle.
    if held.files < held.max_files {
        return f.ok("descriptors", text);
    }
    let by_memory = config.handle_memory / BYTES_PER_HANDLE <= held.max_files;
    f.warn(
        "descriptors",
        text,
        "no more fit, and reading the other files costs three times as much",
        if by_memory { "raise --handle-memory" } else { "raise the limit (LimitNOFILE=, ulimit -n)" },
    );
}

/// Cgroups other than the root, which has other files.
fn children(snapshot: &Snapshot) -> impl Iterator<Item = &CgroupSample> {
    snapshot.cgroups.iter().filter(|c| c.cgroup.path != "/")
}

fn memory_files(f: &mut Findings, snapshot: &Snapshot) {
    let with = |has: fn(&MemoryStats) -> bool| children(snapshot).any(|c| has(&c.memory));
    if !with(|m| m.usage.is_some()) {
        return f.warn(
            "memory",
            "no cgroup below the root has memory figures",
            "what it offers cannot be told",
            "start a container or a service with memory accounting",
        );
    }
    if with(|m| m.peak.is_some()) {
        f.ok("memory peak", "told");
    } else {
        f.warn(
            "memory peak",
            "not told",
            "container_memory_max_usage_bytes is missing",
            "use a kernel from 5.19 on",
        );
    }
    if with(|m| m.swap.is_some()) {
        f.ok("swap accounting", "on");
    } else {
        f.warn("swap accounting", "off", "container_memory_swap is missing", "boot with swapaccount=1");
    }
    if with(|m| m.oom_kills.is_some()) {
        f.ok("OOM kills", "counted by the kernel for each cgroup");
    } else {
        f.warn(
            "OOM kills",
            "not counted",
            "container_oom_events_total is missing",
            "use a kernel from 4.13 on",
        );
    }
}

fn pressure(f: &mut Findings, roots: &Roots, snapshot: &Snapshot) {
    let host = Buffer::new().read_path(&roots.proc.join("pressure/cpu")).and_then(parse::pressure).is_ok();
    // The root's comes from the machine's.
    let by_cgroup = children(snapshot).any(|c| c.pressure != PressureStats::default());
    let consequence = "container_pressure_* are missing";
    match (by_cgroup, host) {
        (true, _) => f.ok("pressure", "told by cgroup"),
        (false, true) => f.warn(
            "pressure",
            "told for the machine only",
            consequence,
            "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1)",
        ),
        (false, false) => {
            f.warn("pressure", "not told", consequence, "boot with psi=1 on a kernel from 4.20 on");
        }
    }
}

fn watches(f: &mut Findings, roots: &Roots, report: &Report) {
    let limit = |name: &str| {
        file::read_trimmed(&roots.proc.join("sys/fs/inotify").join(name))
            .unwrap_or_else(|| "unknown".to_owned())
    };
    let limits =
        format!("limits: {} watches, {} instances", limit("max_user_watches"), limit("max_user_instances"));
    if report.tree.watches > 0 {
        f.ok("inotify", format_args!("{} directories watched ({limits})", report.tree.watches));
    } else {
        f.warn(
            "inotify",
            format_args!("no watches to be had ({limits})"),
            "new cgroups are found by polling, up to one interval late",
            "raise fs.inotify.max_user_watches and fs.inotify.max_user_instances",
        );
    }
}

fn processes(f: &mut Findings, config: &Config, roots: &Roots) {
    let effective = own::capabilities().unwrap_or(0);
    let named: Vec<_> =
        CAPABILITIES.iter().filter(|(bit, _)| effective >> bit & 1 == 1).map(|(_, name)| *name).collect();
    let who = format!(
        "uid {}, capabilities that matter here: {}",
        nix::unistd::geteuid(),
        if named.is_empty() { "none".to_owned() } else { named.join(" ") }
    );
    f.ok("process", who);

    let pids: Vec<_> = std::fs::read_dir(&roots.proc)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .take(PROCESSES_TRIED)
        .collect();
    let readable = |below: &str| pids.iter().filter(|pid| is_readable(&pid.path().join(below))).count();
    let net = readable("net/dev");
    if net > 0 {
        f.ok("network", format_args!("{net} of {} processes tried show their interfaces", pids.len()));
    } else {
        f.warn(
            "network",
            format_args!("none of {} processes tried shows its interfaces", pids.len()),
            "container_network_* are missing",
            "mount the host's proc (hostPID: true), without hidepid",
        );
    }
    // Not used by this version, so its absence costs nothing.
    let kmsg = match file::open(&roots.in_host(Path::new("/dev/kmsg"))) {
        Ok(_) => "readable".to_owned(),
        Err(ReadError::Gone) => {
            "not there; not needed: the kernel counts OOM kills for each cgroup".to_owned()
        }
        Err(error) => format!("{error}; not needed: the kernel counts OOM kills for each cgroup"),
    };
    f.ok("kernel log", kmsg);
    if !config.kinds.has(Kind::Process) {
        return f.ok("process descriptors", "not asked for (kind process is off)");
    }
    let fd = readable("fd");
    let text = format!("readable for {fd} of {} processes tried", pids.len());
    if fd == pids.len() {
        f.ok("process descriptors", text);
    } else {
        f.warn(
            "process descriptors",
            text,
            "container_file_descriptors and container_sockets are missing for the others",
            "run with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
        );
    }
}

fn is_readable(path: &Path) -> bool {
    match path.is_dir() {
        true => std::fs::read_dir(path).is_ok(),
        false => file::open(path).is_ok(),
    }
}

fn filesystems(f: &mut Findings, snapshot: &Snapshot) {
    let mounts = &snapshot.filesystems.mounts;
    let silent: Vec<_> =
        mounts.iter().filter(|m| m.space.is_none()).map(|m| m.mount_point.as_str()).collect();
    if silent.is_empty() {
        return f.ok("filesystems", format_args!("{} told their space", mounts.len()));
    }
    let shown: Vec<_> = silent.iter().take(5).copied().collect();
    let more = silent.len() - shown.len();
    f.warn(
        "filesystems",
        format_args!(
            "{} of {} do not tell their space: {}{}",
            silent.len(),
            mounts.len(),
            shown.join(" "),
            if more > 0 { format!(" and {more} more") } else { String::new() }
        ),
        "container_fs_limit_bytes, container_fs_usage_bytes and inode counts are missing for them",
        "make them visible below --host-root, or see why they do not answer",
    );
}

/// Whether each sink answers, asked for something that changes nothing there.
async fn sinks(f: &mut Findings, config: &Config) {
    for target in &config.push {
        let subject = format!("sink {target}");
        let Some(sink) = sinks::sink(target, None) else { continue };
        let timing = Timing { request: SINK_PATIENCE, connect: SINK_PATIENCE, ..Timing::default() };
        let consequence = "steps wait in the queue until it does";
        match delivery::probe(sink, target, timing).await {
            Ok(answer) if answer.status < 300 => f.ok(&subject, format_args!("answers, {}", answer.status)),
            Ok(answer) => f.warn(
                &subject,
                format_args!("answers {} {}", answer.status, answer.text()),
                "it may refuse what is sent",
                "see its address, credentials and log",
            ),
            Err(error) => f.warn(&subject, error, consequence, "see its address and whether it runs"),
        }
    }
    if let Some(directory) = config.queue_dir.as_deref().filter(|_| !config.push.is_empty()) {
        match std::fs::create_dir_all(directory).and_then(|()| tempfile_in(directory)) {
            Ok(()) => f.ok("queue", format_args!("{} can be written", directory.display())),
            Err(error) => f.fail(
                "queue",
                format_args!("{}: {}", directory.display(), config::lower(&error)),
                "the agent does not start",
                "name a directory it may write with --queue-dir",
            ),
        }
    }
}

/// Whether a file can be made there.
fn tempfile_in(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!(".check-{}", std::process::id()));
    std::fs::write(&path, b"")?;
    std::fs::remove_file(&path)
}

fn listener(f: &mut Findings, config: &Config) {
    match http::bind(config.listen) {
        Ok(_) => f.ok("listener", format_args!("{} is free", config.listen)),
        Err(error) => f.warn(
            "listener",
            format_args!("{}: {}", config.listen, config::lower(&error)),
            "an agent cannot start there unless this is one",
            "choose another with --listen",
        ),
    }
}
