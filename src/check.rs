//! What this host offers, what is missing, what that costs and how to cure it.
//!
//! Most of it is told by two trial collections rather than by looking at
//! versions: what they could not read will be missing from `/metrics` too.

mod costs;
mod readings;
mod sinks;

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::agent;
use crate::agent::naming::Naming;
use crate::auth::{Choice, Guard, rules};
use crate::collect::sampler::Sampler;
use crate::collect::usage::{self, Probe};
use crate::collect::{LogState, Report, sees_all_processes};
use crate::config::{self, Config};
use crate::expose::{families, http};
use crate::identity::{Identities, SourceState, path};
use crate::kernel::cgroup::{Layout, TreeRoot};
use crate::kernel::file::{self, Buffer};
use crate::kernel::handles;
use crate::kernel::{ReadError, Roots, own, parse};
use crate::snapshot::{CgroupSample, Hierarchy, Kind, Kinds, MemoryStats, Origin, PressureStats, Snapshot};
use crate::telemetry::Telemetry;

/// See [`once`](crate::once): what runs on threads of its own is there by then.
const SETTLE: Duration = Duration::from_millis(200);

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
    let roots = config.roots();
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
    let clients = http::Limits::new(descriptors).descriptors();
    let event_loop = match agent::event_loop() {
        Ok(event_loop) => event_loop,
        Err(error) => return f.fail("names", format_args!("{error:#}"), "nothing can be asked", "see above"),
    };
    let identities = event_loop.block_on(agent::identities(config));
    let namer = Box::new(Naming::new(Arc::clone(&identities), config.labels.clone(), &config.kubelet_root));
    // What is off is read as well in the end, to say what it would cost.
    let asked = costs::on_request(config);
    let mut sampler = match agent::sampler(&asked, descriptors.saturating_sub(clients), namer) {
        Ok(sampler) => sampler,
        Err(error) => {
            return f.fail("hierarchy", format_args!("{error:#}"), "nothing can be collected", "see above");
        }
    };
    sampler.want(config.kinds);
    let mut snapshot = sampler.blank();
    sampler.tick(Origin::Fresh, &mut snapshot);
    std::thread::park_timeout(SETTLE);
    sampler.tick(Origin::Fresh, &mut snapshot);

    hierarchy(f, sampler.layout(), config.kinds);
    collection(f, config, &sampler, &snapshot, descriptors);
    readings::memory_files(f, &snapshot);
    readings::oom_kills(f, config, &sampler, &snapshot);
    readings::pressure(f, &roots, &snapshot);
    readings::watches(f, &roots, sampler.report());
    readings::processes(f, config, &roots);
    readings::filesystems(f, &snapshot);
    readings::disk_usage(f, config, &usage::probe(&roots, sampler.layout(), &snapshot.cgroups));
    costs::look(f, config, &mut sampler);
    costs::socket_states(f, config);
    names(f, &identities, &snapshot);
    listener(f, config, &event_loop);
    event_loop.block_on(sinks::look(f, config));
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
                for images in source.images.iter().filter(|i| !i.layers) {
                    let used = images.used_bytes.map_or_else(String::new, |b| format!(", {b} bytes"));
                    f.ok(&format!("images of {}", source.name), format_args!("{}{used}", images.path));
                }
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
    let roots = config.roots();
    if !sees_all_processes(&roots.proc) {
        f.warn(
            "processes",
            "only those of one pid namespace are seen",
            "network, processes, descriptors and sockets of all others are missing",
            "share the host's: hostPID: true, docker run --pid host",
        );
    }
    descriptor_limits(f, report, descriptors);
}

fn descriptor_limits(f: &mut Findings, report: &Report, descriptors: u64) {
    let held = report.handles;
    let text = format!(
        "limit {descriptors}; {} file and {} directory handles held, {} KiB of kernel memory",
        held.files,
        held.directories,
        held.bytes() / 1024
    );
    // At the limit there are files that would have had a handle.
    if held.files < held.max_files {
        return f.ok("descriptors", text);
    }
    f.warn(
        "descriptors",
        text,
        "no more fit, and reading the other files costs three times as much",
        if held.by_memory { "raise --handle-memory" } else { "raise the limit (LimitNOFILE=, ulimit -n)" },
    );
}

/// Cgroups other than the root, which has other files.
fn children(snapshot: &Snapshot) -> impl Iterator<Item = &CgroupSample> {
    snapshot.cgroups.iter().filter(|c| c.cgroup.path != "/")
}

fn listener(f: &mut Findings, config: &Config, event_loop: &tokio::runtime::Runtime) {
    match http::bind(config.listen) {
        Ok(_) => f.ok("listener", format_args!("{} is free", config.listen)),
        Err(error) => f.warn(
            "listener",
            format_args!("{}: {}", config.listen, config::lower(&error)),
            "an agent cannot start there unless this is one",
            "choose another with --listen",
        ),
    }
    let access = &config.access;
    let scheme = if access.tls.is_some() { "https" } else { "http" };
    let opened = Guard::open(access, rules::AGENT, &config.node_name, Telemetry::new());
    let guard = match event_loop.block_on(opened) {
        Ok(guard) => guard,
        Err(error) => {
            return f.fail(
                "access",
                format_args!("{error:#}"),
                "the agent cannot start",
                "name a usable file, or none",
            );
        }
    };
    let who = match &access.auth {
        Choice::None => "everybody may read (--auth none)".to_owned(),
        Choice::Token(file) => {
            let tokens = file.as_ref().map(|path| format!("a token of {}", path.display()));
            let ca = access.tls.as_ref().and_then(|t| t.client_ca.as_ref());
            let certificate = ca.map(|path| format!("a certificate of {}", path.display()));
            let means: Vec<_> = tokens.into_iter().chain(certificate).collect();
            format!("who has {} may read", means.join(" or "))
        }
        Choice::Users(names) => format!("who has a certificate for one of {} names may read", names.len()),
        Choice::Kubernetes => "whom the Kubernetes API lets may read".to_owned(),
    };
    if access.auth == Choice::None && !config.listen.ip().to_canonical().is_loopback() {
        f.warn(
            "access",
            format_args!("{scheme}, {who}"),
            "whoever reaches this address sees every container's name and load",
            "say --auth token or --auth kubernetes unless the network keeps others away",
        );
    } else {
        f.ok("access", format_args!("{scheme}, {who}"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    match guard.tls().and_then(|tls| tls.not_after()) {
        None => {}
        Some(end) if end <= now => f.warn(
            "certificate",
            format_args!("ended {} days ago", (now - end) / 86_400),
            "clients refuse it",
            "replace the files of --tls-cert and --tls-key; they are read again by themselves",
        ),
        Some(end) => f.ok("certificate", format_args!("good for {} days", (end - now) / 86_400)),
    }
}
