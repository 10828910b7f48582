//! What the trial collections could not read, subject by subject.

use super::*;

pub(super) fn memory_files(f: &mut Findings, snapshot: &Snapshot) {
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
}

/// The kernel's counters and its log each tell a part of the OOM kills.
pub(super) fn oom_kills(f: &mut Findings, config: &Config, sampler: &Sampler, snapshot: &Snapshot) {
    if !config.kinds.has(Kind::OomEvent) {
        return f.ok("OOM kills", "not asked for (kind oom_event is off)");
    }
    let with = |has: fn(&MemoryStats) -> bool| children(snapshot).any(|c| has(&c.memory));
    let counted = with(|m| m.oom_kills.is_some());
    let subtree = with(|m| m.events_oom_kill.is_some());
    if !with(|m| m.usage.is_some()) {
        // Said already: there is no cgroup to count for.
    } else if counted {
        f.ok("OOM kills", "counted by cgroup");
    } else {
        f.warn(
            "OOM kills",
            "not counted",
            "container_oom_events_total is missing",
            "use a kernel from 4.13 on, or let the agent read /dev/kmsg",
        );
    }
    // What is lost without the log depends on what counters tell.
    let consequence = match (counted, subtree) {
        (_, true) => {
            "OOM kills of a container that is gone before the next collection are told by its pod's row, \
             and by its own only if no other of the pod ended with it"
        }
        (true, false) => {
            "OOM kills of a container that is gone before the next collection are missed, which is most of them"
        }
        (false, false) => "OOM kills are not told at all",
    };
    match sampler.report().log.state {
        LogState::Read => f.ok("kernel log", "read from now on, for OOM kills"),
        LogState::Unused => f.ok("kernel log", "not read: this is no running host's tree"),
        LogState::Absent => f.warn(
            "kernel log",
            "no /dev/kmsg here",
            consequence,
            "mount the host's /dev/kmsg into the container, read-only",
        ),
        LogState::Denied => f.warn(
            "kernel log",
            "/dev/kmsg: permission denied",
            consequence,
            "run with CAP_SYSLOG and let the container use the device (or set kernel.dmesg_restrict=0)",
        ),
        LogState::Failed => f.warn(
            "kernel log",
            "/dev/kmsg is not the kernel's log device, or cannot be read",
            consequence,
            "mount the host's /dev/kmsg into the container, read-only",
        ),
    }
}

pub(super) fn pressure(f: &mut Findings, roots: &Roots, snapshot: &Snapshot) {
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

pub(super) fn watches(f: &mut Findings, roots: &Roots, report: &Report) {
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

pub(super) fn processes(f: &mut Findings, config: &Config, roots: &Roots) {
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

pub(super) fn filesystems(f: &mut Findings, snapshot: &Snapshot) {
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

/// What containers and pods keep on disks.
pub(super) fn disk_usage(f: &mut Findings, config: &Config, probe: &Probe) {
    if config.disk_usage == 0 || !config.kinds.has(Kind::Disk) {
        return f.ok("disk usage", "not asked for (--disk-usage-budget 0, or kind disk is off)");
    }
    let told = format!("layers of {} of {} containers can be measured", probe.opened, probe.with_layer);
    let missing = |error: ReadError| probe.failed.iter().find(|(_, e)| *e == error);
    let first = missing(ReadError::Denied).or_else(|| missing(ReadError::Gone));
    let Some((path, error)) = first.or_else(|| probe.failed.first()) else {
        return f.ok("disk usage", told);
    };
    let cure = match error {
        ReadError::Denied => "run as root or with CAP_DAC_READ_SEARCH",
        _ => {
            "mount the runtime's, the kubelet's and the log directories below --host-root, or name --kubelet-root"
        }
    };
    let failed = probe.failed.len();
    let consequence = "container_fs_usage_bytes and nodegauge_disk_usage_* are missing for them";
    f.warn(
        "disk usage",
        format_args!("{told}; of {failed} directories the first: {}: {error}", path.display()),
        consequence,
        cure,
    );
}
