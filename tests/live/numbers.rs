//! Exported numbers beside the kernel's files, and deltas beside the work done. Run by `.ci/run` as root: see `main.rs`.

use std::process::Command;

use crate::agent::{Agent, Scrape};
use crate::group::Group;
use crate::worker::Worker;

const ALL: &str = "cpu,cpuLoad,memory,disk,diskIO,network,oom_event,pressure,process,hugetlb";

fn agent() -> Agent {
    Agent::start(&["--interval", "1s", "--max-age", "100ms", "--metrics", ALL])
}

fn close(what: &str, exported: f64, kernel: f64, tolerance: f64) {
    let error = (exported - kernel).abs() / kernel.abs().max(1.0);
    println!("{what}: exported {exported}, kernel {kernel}, off by {:.4} %", error * 100.0);
    assert!(error <= tolerance, "{what}: exported {exported}, expected {kernel} within {tolerance}");
}

fn one(scrape: &Scrape, name: &str, group: &Group) -> f64 {
    scrape.one(name, &group.id()).unwrap_or_else(|| panic!("{name} of {} is absent", group.id()))
}

#[test]
#[ignore = "needs root"]
fn two_seconds_of_cpu() {
    let group = Group::create("cpu");
    let mut worker = Worker::start(&group, "burn 2.0");
    let agent = agent();
    let usage = |s: &Scrape| one(s, "container_cpu_usage_seconds_total", &group);
    let before = usage(&agent.scrape());
    worker.work();
    let after = agent.scrape();
    close("CPU burnt", usage(&after) - before, 2.0, 0.03);
    let kernel = if group.is_v2() {
        group.key("cpu", "cpu.stat", "usage_usec") / 1e6
    } else {
        group.number("cpuacct", "cpuacct.usage") / 1e9
    };
    close("CPU usage", usage(&after), kernel, 0.001);
    let user = one(&after, "container_cpu_user_seconds_total", &group);
    let system = one(&after, "container_cpu_system_seconds_total", &group);
    close("user + system", user + system, kernel, 0.02);
}

#[test]
#[ignore = "needs root"]
fn throttling_is_what_the_kernel_counts() {
    let group = Group::create("throttled");
    if group.is_v2() {
        group.write("cpu", "cpu.max", "20000 100000");
    } else {
        group.write("cpu", "cpu.cfs_quota_us", "20000");
    }
    let mut worker = Worker::start(&group, "burn 0.4");
    let agent = agent();
    worker.work();
    let scrape = agent.scrape();
    let throttled = group.key("cpu", "cpu.stat", "nr_throttled");
    assert!(throttled >= 5.0, "only {throttled} periods were throttled");
    close(
        "throttled periods",
        one(&scrape, "container_cpu_cfs_throttled_periods_total", &group),
        throttled,
        0.0,
    );
    close(
        "periods",
        one(&scrape, "container_cpu_cfs_periods_total", &group),
        group.key("cpu", "cpu.stat", "nr_periods"),
        0.05,
    );
    let kernel = if group.is_v2() {
        group.key("cpu", "cpu.stat", "throttled_usec") / 1e6
    } else {
        group.key("cpu", "cpu.stat", "throttled_time") / 1e9
    };
    close(
        "throttled seconds",
        one(&scrape, "container_cpu_cfs_throttled_seconds_total", &group),
        kernel,
        0.0,
    );
    assert_eq!(one(&scrape, "container_spec_cpu_quota", &group), 20_000.0);
    assert_eq!(one(&scrape, "container_spec_cpu_period", &group), 100_000.0);
}

#[test]
#[ignore = "needs root"]
fn sixty_four_mebibytes() {
    const BYTES: f64 = (64 << 20) as f64;
    let group = Group::create("memory");
    let limit = if group.is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
    let agent = agent();
    let mut worker = Worker::start(&group, "memory 67108864");
    let rss = |s: &Scrape| one(s, "container_memory_rss", &group);
    let before = agent.scrape();
    assert_eq!(one(&before, "container_spec_memory_limit_bytes", &group), 0.0, "unlimited is 0");
    worker.work();
    group.write("memory", limit, "268435456");
    let after = agent.scrape();
    close("anonymous memory", rss(&after) - rss(&before), BYTES, 0.01);
    let usage = if group.is_v2() { "memory.current" } else { "memory.usage_in_bytes" };
    let usage = group.number("memory", usage);
    close("usage", one(&after, "container_memory_usage_bytes", &group), usage, 0.005);
    let inactive_key = if group.is_v2() { "inactive_file" } else { "total_inactive_file" };
    let working_set = usage - group.key("memory", "memory.stat", inactive_key);
    close("working set", one(&after, "container_memory_working_set_bytes", &group), working_set, 0.005);
    let peak = if group.is_v2() { "memory.peak" } else { "memory.max_usage_in_bytes" };
    if group.file("memory", peak).exists() {
        close(
            "peak",
            one(&after, "container_memory_max_usage_bytes", &group),
            group.number("memory", peak),
            0.005,
        );
    }
    let faults = after.with(
        "container_memory_failures_total",
        &[("id", &group.id()), ("failure_type", "pgfault"), ("scope", "hierarchy")],
    );
    let key = if group.is_v2() { "pgfault" } else { "total_pgfault" };
    close("page faults", faults.expect("page faults"), group.key("memory", "memory.stat", key), 0.01);
    // A changed limit shows in the next tick, not in the tenth.
    assert_eq!(one(&after, "container_spec_memory_limit_bytes", &group), 268_435_456.0);
}

#[test]
#[ignore = "needs root"]
fn written_bytes_reach_their_device() {
    const BYTES: f64 = (16 << 20) as f64;
    let group = Group::create("io");
    // On a disk, which the directory for temporary files may not be.
    let disk = std::env::var("NODEGAUGE_DISK").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").to_owned());
    let directory = tempfile::tempdir_in(disk).unwrap();
    let file = directory.path().join("data");
    if !group.is_v2() {
        // Newer v1 kernels count where a throttling rule was ever set.
        use std::os::unix::fs::MetadataExt;
        let device = std::fs::metadata(directory.path()).unwrap().dev();
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        group.write("blkio", "blkio.throttle.write_bps_device", &format!("{major}:{minor} 1099511627776"));
    }
    let mut worker = Worker::start(&group, &format!("write {} 16777216", file.display()));
    let agent = agent();
    worker.work();
    let scrape = agent.scrape();
    let kernel = device_bytes(&group);
    assert!(!kernel.is_empty(), "the kernel counted nothing for this cgroup");
    let mut total = 0.0;
    for (device, bytes) in &kernel {
        let (major, minor) = device.split_once(':').unwrap();
        let id = group.id();
        let labels = [("id", id.as_str()), ("major", major), ("minor", minor), ("operation", "Write")];
        let exported =
            scrape.with("container_blkio_device_usage_total", &labels).expect("the device has a row");
        close(&format!("bytes written to {device}"), exported, *bytes, 0.0);
        total += bytes;
    }
    let rows = scrape.all("container_fs_writes_bytes_total", &group.id());
    let exported: f64 = rows.iter().map(|s| s.value).sum();
    assert_eq!(exported, total);
    assert!(rows.iter().all(|s| s.labels["device"].starts_with("/dev/")), "{rows:?}");
    close("bytes written", total, BYTES, 0.05);
}

/// Bytes written by device, as the kernel's own file has them.
fn device_bytes(group: &Group) -> Vec<(String, f64)> {
    if group.is_v2() {
        let text = group.text("io", "io.stat");
        let line = |l: &str| {
            let (device, rest) = l.split_once(' ')?;
            let bytes = rest.split_whitespace().find_map(|w| w.strip_prefix("wbytes="))?;
            Some((device.to_owned(), bytes.parse().ok()?))
        };
        return text.lines().filter_map(line).collect();
    }
    let text = group.text("blkio", "blkio.throttle.io_service_bytes_recursive");
    let line = |l: &str| {
        let mut words = l.split_whitespace();
        let device = words.next()?;
        (words.next()? == "Write").then_some(())?;
        Some((device.to_owned(), words.next()?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

#[test]
#[ignore = "needs root"]
fn processes_threads_and_sockets() {
    let group = Group::create("process");
    let mut sockets = Worker::start(&group, "sockets 25");
    let mut threads = Worker::start(&group, "threads 7");
    let agent = agent();
    sockets.work();
    threads.work();
    let scrape = agent.scrape();
    assert_eq!(one(&scrape, "container_processes", &group), 2.0);
    let kernel = group.number("pids", "pids.current");
    assert!(kernel >= 9.0);
    assert_eq!(one(&scrape, "container_threads", &group), kernel);
    let (mut descriptors, mut of_those) = (0, 0);
    for pid in [sockets.pid(), threads.pid()] {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            descriptors += 1;
            let target = std::fs::read_link(entry.path()).unwrap();
            of_those += u32::from(target.to_string_lossy().starts_with("socket:"));
        }
    }
    assert!(of_those >= 25);
    assert_eq!(one(&scrape, "container_sockets", &group), f64::from(of_those));
    assert_eq!(one(&scrape, "container_file_descriptors", &group), f64::from(descriptors));
    let limit = scrape.with("container_ulimits_soft", &[("id", &group.id()), ("ulimit", "max_open_files")]);
    let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    assert_eq!(limit, Some(soft as f64), "workers inherit this process's limit");
}

#[test]
#[ignore = "needs root"]
fn a_namespace_is_counted_once_and_let_go() {
    let first = Group::create("net-a");
    let second = Group::create("net-b");
    let mut holder = Worker::start_outside("wait", &["unshare", "-n"]);
    holder.work();
    first.add(holder.pid());
    // A second cgroup in the same namespace, created later: no rows of its own.
    let mut sharer = Worker::start_outside("wait", &["nsenter", "-n", "-t", &holder.pid().to_string()]);
    sharer.work();
    second.add(sharer.pid());
    let nsenter = |words: &[&str]| {
        let pid = holder.pid().to_string();
        let status = Command::new("nsenter").args(["-n", "-t", &pid, "--"]).args(words).status().unwrap();
        assert!(status.success(), "{words:?}");
    };
    nsenter(&["ip", "link", "add", "ngd0", "type", "veth", "peer", "name", "ngd1"]);
    for end in ["ngd0", "ngd1"] {
        nsenter(&[
            "ip",
            "addr",
            "add",
            if end == "ngd0" { "10.99.0.1/24" } else { "10.99.1.1/24" },
            "dev",
            end,
        ]);
        nsenter(&["ip", "link", "set", end, "up"]);
    }
    let agent = agent();
    let scrape = agent.scrape();
    let text = std::fs::read_to_string(format!("/proc/{}/net/dev", holder.pid())).unwrap();
    let mut interfaces = 0;
    for line in text.lines().skip(2) {
        let (name, columns) = line.trim().split_once(':').unwrap();
        if name == "lo" {
            continue;
        }
        interfaces += 1;
        let columns: Vec<f64> = columns.split_whitespace().map(|c| c.parse().unwrap()).collect();
        for (family, column) in [
            ("container_network_receive_bytes_total", 0),
            ("container_network_receive_packets_total", 1),
            ("container_network_transmit_bytes_total", 8),
            ("container_network_transmit_packets_total", 9),
        ] {
            let exported = scrape.with(family, &[("id", &first.id()), ("interface", name)]);
            let exported = exported.unwrap_or_else(|| panic!("{family} of {name} is absent"));
            assert!(exported <= columns[column], "{family} of {name}: {exported} > {}", columns[column]);
        }
    }
    assert_eq!(interfaces, 2);
    assert!(scrape.all("container_network_receive_bytes_total", &second.id()).is_empty(), "counted twice");
    // Nothing of ours keeps the namespace alive once its processes are gone.
    let inode = std::fs::metadata(format!("/proc/{}/ns/net", holder.pid())).unwrap();
    let handles = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().flatten();
    for handle in handles {
        let target = std::fs::read_link(handle.path()).unwrap_or_default();
        assert!(!target.to_string_lossy().contains("/net/"), "{target:?} is held");
        let same = std::fs::metadata(handle.path()).is_ok_and(|m| {
            use std::os::unix::fs::MetadataExt;
            (m.dev(), m.ino()) == (inode.dev(), inode.ino())
        });
        assert!(!same, "the namespace is held");
    }
}

#[test]
#[ignore = "needs root"]
fn pressure_is_the_kernels() {
    let group = Group::create("pressure");
    let Some(file) = group.unified().map(|d| d.join("cpu.pressure")) else {
        println!("no v2 tree here");
        return;
    };
    if std::fs::read_to_string(&file).is_err() {
        println!("this kernel keeps no pressure");
        return;
    }
    // More runnable processes than processors.
    let count = std::thread::available_parallelism().unwrap().get() + 2;
    let mut workers: Vec<Worker> = (0..count).map(|_| Worker::start(&group, "burn 0.5")).collect();
    let agent = agent();
    workers.iter_mut().for_each(Worker::begin);
    workers.iter_mut().for_each(Worker::wait);
    let scrape = agent.scrape();
    let text = std::fs::read_to_string(&file).unwrap();
    let total = |kind: &str| -> Option<f64> {
        let line = text.lines().find(|l| l.starts_with(kind))?;
        line.rsplit_once("total=")?.1.parse().ok()
    };
    let waiting = one(&scrape, "container_pressure_cpu_waiting_seconds_total", &group);
    assert!(waiting > 0.1, "waited {waiting} s");
    close("cpu waiting", waiting, total("some").unwrap() / 1e6, 0.01);
    if let Some(full) = total("full") {
        close(
            "cpu stalled",
            one(&scrape, "container_pressure_cpu_stalled_seconds_total", &group),
            full / 1e6,
            0.01,
        );
    }
}

#[test]
#[ignore = "needs root"]
fn out_of_memory_kills_are_counted() {
    let group = Group::create("oom");
    if group.is_v2() {
        group.write("memory", "memory.max", "16777216");
        let _ = std::fs::write(group.file("memory", "memory.swap.max"), "0");
    } else {
        group.write("memory", "memory.limit_in_bytes", "16777216");
    }
    let agent = agent();
    assert_eq!(one(&agent.scrape(), "container_oom_events_total", &group), 0.0);
    let mut victim = Worker::start(&group, "memory 67108864");
    victim.begin();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let kills = || {
        if group.is_v2() {
            group.key("memory", "memory.events", "oom_kill")
        } else {
            group.key("memory", "memory.oom_control", "oom_kill")
        }
    };
    while kills() == 0.0 {
        assert!(std::time::Instant::now() < deadline, "the kernel killed nothing");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let scrape = agent.scrape();
    assert_eq!(one(&scrape, "container_oom_events_total", &group), kills());
    assert!(one(&scrape, "container_memory_failcnt", &group) > 0.0);
}

#[test]
#[ignore = "needs root"]
fn filesystems_are_what_statfs_says() {
    let agent = agent();
    let scrape = agent.scrape();
    let stat = nix::sys::statvfs::statvfs("/").unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let source = mounts.lines().find_map(|l| {
        let mut words = l.split(' ');
        let source = words.next()?;
        (words.next()? == "/").then(|| source.to_owned())
    });
    let device = source.expect("a root filesystem");
    let labels = [("id", "/"), ("device", device.as_str())];
    let capacity = (stat.blocks() * stat.fragment_size()) as f64;
    assert_eq!(scrape.with("container_fs_limit_bytes", &labels), Some(capacity));
    let used = ((stat.blocks() - stat.blocks_free()) * stat.fragment_size()) as f64;
    close("space used", scrape.with("container_fs_usage_bytes", &labels).unwrap(), used, 0.02);
    assert_eq!(scrape.with("container_fs_inodes_total", &labels), Some(stat.files() as f64));
}

#[test]
#[ignore = "needs root"]
fn v1_agrees_with_an_independent_reader() {
    use cgroups_rs::fs::cpuacct::CpuAcctController;
    use cgroups_rs::fs::memory::MemController;
    let group = Group::create("second");
    if group.is_v2() {
        println!("cgroups-rs reads v1 only well enough");
        return;
    }
    let mut worker = Worker::start(&group, "memory 33554432");
    worker.work();
    let agent = agent();
    let scrape = agent.scrape();
    let memory: &MemController = group.cgroup.controller_of().unwrap();
    let cpu: &CpuAcctController = group.cgroup.controller_of().unwrap();
    let stat = memory.memory_stat();
    close("usage", one(&scrape, "container_memory_usage_bytes", &group), stat.usage_in_bytes as f64, 0.005);
    close("rss", one(&scrape, "container_memory_rss", &group), stat.stat.total_rss as f64, 0.005);
    close(
        "cpu",
        one(&scrape, "container_cpu_usage_seconds_total", &group),
        cpu.cpuacct().usage as f64 / 1e9,
        0.01,
    );
}
