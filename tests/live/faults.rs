//! Things that go wrong on a live kernel: no crash, no wrong number, a counter,
//! and a complete answer for everything else. Run by `.ci/run` as root: see `main.rs`.

use std::collections::HashSet;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::agent::{Agent, Sample, binary};
use crate::group::Group;
use crate::worker::Worker;

const QUICK: [&str; 4] = ["--interval", "1s", "--max-age", "100ms"];

fn value_of<'a>(samples: &'a [Sample], name: &str, id: &str) -> Option<&'a Sample> {
    samples.iter().find(|s| s.name == name && s.labels.get("id").is_some_and(|i| i == id))
}

/// Directories of one cgroup in every tree the group is in.
fn directories(group: &Group) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = ["cpu", "cpuacct", "memory", "blkio", "pids"]
        .iter()
        .map(|c| group.file(c, "cgroup.procs").parent().unwrap().to_owned())
        .chain(group.unified())
        .collect();
    all.sort();
    all.dedup();
    all
}

#[test]
#[ignore = "needs root; takes 30 s"]
fn two_hundred_cgroups_a_second_come_and_go() {
    let parent = Group::create("churn");
    let steady = Group::create("steady");
    let mut worker = Worker::start(&steady, "memory 8388608");
    worker.work();
    let mut agent = Agent::start(&QUICK);
    let stop = Arc::new(AtomicBool::new(false));
    let made = Arc::new(AtomicU64::new(0));
    let churn = {
        let (stop, made, roots) = (Arc::clone(&stop), Arc::clone(&made), directories(&parent));
        std::thread::spawn(move || {
            let started = Instant::now();
            let mut alive: std::collections::VecDeque<u64> = std::collections::VecDeque::new();
            while !stop.load(Ordering::Relaxed) {
                let number = made.fetch_add(1, Ordering::Relaxed);
                roots.iter().for_each(|r| std::fs::create_dir(r.join(format!("c{number}"))).unwrap());
                alive.push_back(number);
                if alive.len() > 20 {
                    let oldest = alive.pop_front().unwrap();
                    roots.iter().for_each(|r| std::fs::remove_dir(r.join(format!("c{oldest}"))).unwrap());
                }
                let due = Duration::from_millis(number * 5);
                std::thread::sleep(due.saturating_sub(started.elapsed()));
            }
            for number in alive {
                roots.iter().for_each(|r| std::fs::remove_dir(r.join(format!("c{number}"))).unwrap());
            }
        })
    };
    let rss = |agent: &Agent| -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", agent.pid())).unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    std::thread::sleep(Duration::from_secs(3));
    let rss_before = rss(&agent);
    let started = Instant::now();
    let mut scrapes = 0;
    let mut seen: HashSet<String> = HashSet::new();
    while started.elapsed() < Duration::from_secs(27) {
        let scrape = agent.scrape_now();
        scrapes += 1;
        for sample in scrape.samples.iter().filter(|s| s.name == "container_memory_usage_bytes") {
            seen.insert(sample.labels["id"].clone());
        }
        // Everything else is complete and right all the while.
        let rss = value_of(&scrape.samples, "container_memory_rss", &steady.id()).expect("the steady cgroup");
        assert!(rss.value >= 8_388_608.0 * 0.99, "{}", rss.value);
        assert!(value_of(&scrape.samples, "container_cpu_usage_seconds_total", "/").is_some());
        // A row is whole or absent.
        for id in scrape.ids() {
            if id.starts_with(&parent.id()) {
                let whole = [
                    "container_cpu_usage_seconds_total",
                    "container_memory_usage_bytes",
                    "container_spec_cpu_shares",
                ];
                for name in whole {
                    assert!(value_of(&scrape.samples, name, id).is_some(), "{id} lacks {name}");
                }
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    stop.store(true, Ordering::Relaxed);
    churn.join().unwrap();
    let made = made.load(Ordering::Relaxed);
    let rate = made as f64 / 30.0;
    println!(
        "{made} cgroups ({rate:.0}/s), {} seen by {scrapes} scrapes, rss {rss_before} -> {}",
        seen.len(),
        rss(&agent)
    );
    assert!(rate > 150.0, "only {rate:.0} cgroups a second");
    assert!(agent.is_running());
    assert!(seen.len() > 100);
    assert!(rss(&agent) < rss_before + (4 << 20), "grew from {rss_before} to {}", rss(&agent));
    let after = agent.scrape();
    assert!(after.ids().iter().all(|id| !id.starts_with(&format!("{}/", parent.id()))), "gone ones stay");
    assert!(agent.own("nodegauge_cgroups_vanished_total") >= made as f64 * 0.02);
}

#[test]
#[ignore = "needs root"]
fn a_name_that_comes_back_is_another_cgroup() {
    let agent = Agent::start(&["--interval", "60s", "--max-age", "100ms"]);
    let mut group = Group::create("again");
    let mut worker = Worker::start(&group, "burn 1.0");
    worker.work();
    let first = agent.scrape().one("container_cpu_usage_seconds_total", &group.id()).unwrap();
    assert!(first >= 1.0);
    drop(worker);
    drop(group);
    group = Group::create("again");
    let second = agent.scrape();
    let usage = second.one("container_cpu_usage_seconds_total", &group.id());
    assert!(usage.is_some_and(|u| u < 0.1), "old counts in a new cgroup: {usage:?}");
}

#[test]
#[ignore = "needs root"]
fn sixty_four_descriptors_are_enough() {
    let parent = Group::create("few");
    let count = 40;
    let roots = directories(&parent);
    for index in 0..count {
        roots.iter().for_each(|r| std::fs::create_dir(r.join(format!("c{index}"))).unwrap());
    }
    let words = ["prlimit", "--nofile=64:64", &binary()];
    let output = std::process::Command::new(words[0])
        .args(&words[1..])
        .args(["once", "--format", "prometheus"])
        .output()
        .unwrap();
    let scrape = crate::agent::Scrape::parse(&String::from_utf8(output.stdout).unwrap());
    for index in 0..count {
        let id = format!("{}/c{index}", parent.id());
        for name in
            ["container_cpu_usage_seconds_total", "container_memory_usage_bytes", "container_spec_cpu_shares"]
        {
            assert!(
                scrape.one(name, &id).is_some(),
                "{id} lacks {name}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    for index in 0..count {
        roots.iter().for_each(|r| std::fs::remove_dir(r.join(format!("c{index}"))).unwrap());
    }
}

#[test]
#[ignore = "needs root"]
fn what_is_gone_is_watched_no_more() {
    let parent = Group::create("watched");
    let agent = Agent::start(&QUICK);
    let roots = directories(&parent);
    agent.scrape();
    let before = agent.own("nodegauge_inotify_watches");
    for round in 0..3 {
        // The last ones have the same name each time.
        let names: Vec<String> =
            (0..20).map(|n| if n < 10 { format!("c{round}-{n}") } else { format!("c{n}") }).collect();
        let each = |act: fn(PathBuf) -> std::io::Result<()>| {
            names.iter().for_each(|name| roots.iter().for_each(|r| act(r.join(name)).unwrap()));
        };
        each(std::fs::create_dir);
        agent.scrape();
        assert!(agent.own("nodegauge_inotify_watches") >= before + 20.0);
        each(std::fs::remove_dir);
        if round == 0 {
            agent.scrape();
        }
    }
    agent.scrape();
    // Other things may come and go on the machine.
    let after = agent.own("nodegauge_inotify_watches");
    assert!(after < before + 20.0, "{before} watches before, {after} after");
}

#[test]
#[ignore = "needs root"]
fn without_inotify_new_cgroups_are_polled_for() {
    // Limits of inotify belong to the user namespace.
    let script = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let agent = Agent::attach(port, |listen| {
        let mut command = std::process::Command::new("unshare");
        command.args(["-Ur", "sh", "-c", script, &binary(), "agent", "--listen", listen]);
        command.args(QUICK);
        command
    });
    assert_eq!(agent.own("nodegauge_inotify_watches"), 0.0, "inotify was to be had");
    let group = Group::create("polled");
    let nested = directories(&group);
    nested.iter().for_each(|d| std::fs::create_dir(d.join("inner")).unwrap());
    let scrape = agent.scrape();
    let ids = scrape.ids();
    assert!(ids.contains(&group.id().as_str()), "not found");
    assert!(ids.contains(&format!("{}/inner", group.id()).as_str()), "nested one not found");
    nested.iter().for_each(|d| std::fs::remove_dir(d.join("inner")).unwrap());
    let scrape = agent.scrape();
    assert!(!scrape.ids().contains(&format!("{}/inner", group.id()).as_str()), "gone one stays");
}

#[test]
#[ignore = "needs root"]
fn an_ordinary_user_reads_every_cgroup() {
    let group = Group::create("nobody");
    let mut worker = Worker::start(&group, "memory 8388608");
    worker.work();
    let agent = Agent::start_with(&QUICK, |command| {
        command.uid(65534).gid(65534);
    });
    let scrape = agent.scrape();
    assert!(scrape.one("container_memory_rss", &group.id()).is_some_and(|v| v >= 8_388_608.0));
    assert!(scrape.one("container_cpu_usage_seconds_total", &group.id()).is_some());
    assert!(!scrape.all("container_network_receive_bytes_total", "/").is_empty());
}

#[test]
#[ignore = "needs root, to become somebody who may not read everything"]
fn what_may_not_be_read_costs_itself_and_is_counted() {
    let tree = crate::ttar::unpack("v2-systemd-6.12");
    let shut = |path: PathBuf, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    shut(tree.path().to_path_buf(), 0o755);
    let root = tree.path().to_str().unwrap().to_owned();
    let args = ["--interval", "1s", "--max-age", "100ms", "--host-root", &root];
    let as_nobody = || {
        Agent::start_with(&args, |command| {
            command.uid(65534).gid(65534);
        })
    };
    let whole = as_nobody().scrape();
    let system = "/system.slice";
    let usage = |scrape: &crate::agent::Scrape, id: &str| scrape.one("container_memory_usage_bytes", id);
    let (file, directory) = ("/system.slice/ssh.service", "/user.slice");
    assert!(usage(&whole, file).is_some() && usage(&whole, directory).is_some(), "{:?}", whole.ids());

    let cgroups = tree.path().join("sys/fs/cgroup");
    shut(cgroups.join("system.slice/ssh.service/memory.current"), 0o000);
    shut(cgroups.join("user.slice"), 0o000);
    let agent = as_nobody();
    let scrape = agent.scrape();
    assert_eq!(usage(&scrape, file), None, "a figure of an unreadable file");
    assert!(scrape.one("container_memory_rss", file).is_some(), "its other figures");
    assert_eq!(usage(&scrape, directory), None);
    for id in whole.ids().into_iter().filter(|id| *id != file && !id.starts_with(directory)) {
        assert_eq!(usage(&scrape, id), usage(&whole, id), "{id}");
    }
    assert!(usage(&scrape, system).is_some());
    assert!(agent.own("nodegauge_collector_errors_total{collector=\"memory\",reason=\"denied\"") > 0.0);
    assert!(agent.own("nodegauge_cgroup_directories_unreadable_total") > 0.0);
    shut(cgroups.join("user.slice"), 0o755);
}
