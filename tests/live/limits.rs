//! What is not read as long as there is no limit, or nobody runs, is the kernel's in the
//! first tick after that. Run by `.ci/run` as root: see `main.rs`.

use std::process::Command;
use std::time::Duration;

use crate::agent::{Agent, Scrape};
use crate::group::Group;
use crate::worker::Worker;

/// Each scrape makes a tick of its own.
fn agent() -> Agent {
    Agent::start(&["--interval", "1s", "--max-age", "100ms", "--metrics", "cpu,memory,oom_event"])
}

/// Past the ticks in which everything of a new cgroup is read.
fn settle() {
    std::thread::sleep(Duration::from_secs(4));
}

fn one(scrape: &Scrape, name: &str, group: &Group) -> f64 {
    scrape.one(name, &group.id()).unwrap_or_else(|| panic!("{name} of {} is absent", group.id()))
}

#[test]
#[ignore = "needs root"]
fn a_limit_of_cpu_that_comes_later() {
    let group = Group::create("late-cpu");
    let mut worker = Worker::start(&group, "burn 0.4");
    let agent = agent();
    settle();
    assert_eq!(group.key("cpu", "cpu.stat", "nr_periods"), 0.0);
    if group.is_v2() {
        group.write("cpu", "cpu.max", "20000 100000");
    } else {
        group.write("cpu", "cpu.cfs_quota_us", "20000");
    }
    worker.work();
    let scrape = agent.scrape();
    let exported = one(&scrape, "container_cpu_cfs_throttled_periods_total", &group);
    assert!(exported >= 5.0, "{exported}");
    assert_eq!(exported, group.key("cpu", "cpu.stat", "nr_throttled"));
    assert_eq!(one(&scrape, "container_spec_cpu_quota", &group), 20_000.0, "it was told");
}

#[test]
#[ignore = "needs root"]
fn a_limit_of_memory_that_comes_later() {
    let group = Group::create("late-memory");
    if group.is_v2() {
        println!("v2 counts this among the events, which are read each tick");
        return;
    }
    let agent = agent();
    settle();
    assert_eq!(one(&agent.scrape(), "container_memory_failcnt", &group), 0.0);
    group.write("memory", "memory.limit_in_bytes", "8388608");
    // Pages of a file, which can be taken back: the limit is met and nobody is killed.
    let disk = std::env::var("NODEGAUGE_DISK").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").to_owned());
    let directory = tempfile::tempdir_in(disk).unwrap();
    let file = directory.path().join("data");
    let procs = group.file("memory", "cgroup.procs");
    let script = format!("echo $$ >{} && head -c 64M /dev/zero >{}", procs.display(), file.display());
    let status = Command::new("sh").args(["-c", &script]).status().unwrap();
    assert!(status.success());
    let kernel = group.number("memory", "memory.failcnt");
    assert!(kernel > 0.0, "the limit was not met");
    assert_eq!(one(&agent.scrape(), "container_memory_failcnt", &group), kernel);
}

#[test]
#[ignore = "needs root"]
fn one_who_wakes_up() {
    let group = Group::create("wakes");
    let mut worker = Worker::start(&group, "burn 0.5");
    let agent = agent();
    settle();
    let before = agent.scrape();
    let of = |s: &Scrape, which: &str| one(s, &format!("container_cpu_{which}_seconds_total"), &group);
    worker.work();
    let after = agent.scrape();
    let (usage, user) = (of(&after, "usage"), of(&after, "user") + of(&after, "system"));
    assert!(usage - of(&before, "usage") > 0.45, "{usage}");
    assert!((usage - user).abs() < 0.05, "{usage} of which user and system {user}");
    if !group.is_v2() {
        assert_eq!((usage * 1e9).round(), group.number("cpuacct", "cpuacct.usage"));
        let ticks = |key: &str| group.key("cpuacct", "cpuacct.stat", key) / 100.0;
        assert!((of(&after, "user") - ticks("user")).abs() < 1e-9);
        assert!((of(&after, "system") - ticks("system")).abs() < 1e-9);
    }
}
