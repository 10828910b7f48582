//! Kinds that are off by default, beside what the kernel and the work say. Run by `.ci/run` as root: see `main.rs`.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::agent::{Agent, Scrape};
use crate::group::Group;
use crate::worker::Worker;

/// Scrapes until `told` is content.
#[track_caller]
fn until(agent: &Agent, told: impl Fn(&Scrape) -> bool) -> Scrape {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let scrape = agent.scrape();
        if told(&scrape) {
            return scrape;
        }
        assert!(Instant::now() < deadline, "{:#?}\n{}", scrape.samples, agent.get("/metrics/self"));
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
#[ignore = "needs root"]
fn sockets_of_a_pod_have_states() {
    let group = Group::create("sockets");
    let mut holder = Worker::start_outside("wait", &["unshare", "-n"]);
    holder.work();
    let namespace = holder.pid().to_string();
    let within = ["nsenter", "-n", "-t", &namespace];
    let up =
        Command::new("nsenter").args(&within[1..]).args(["--", "ip", "link", "set", "lo", "up"]).status();
    assert!(up.unwrap().success());
    let mut talker = Worker::start_outside("talk", &within);
    talker.work();
    group.add(talker.pid());
    let mut waiter = Worker::start_outside("sockets 3", &within);
    waiter.work();

    let agent = Agent::start(&["--interval", "1s", "--max-age", "100ms", "--metrics", "tcp,udp,advtcp"]);
    let id = group.id();
    let value = |s: &Scrape, name: &str, label: &str, of: &str| s.with(name, &[("id", &id), (label, of)]);
    let tcp = |s: &Scrape, state| value(s, "container_network_tcp_usage_total", "tcp_state", state);
    let began = Instant::now();
    // A guest has no modules to load.
    let cannot = || !std::fs::read_to_string("/proc/kallsyms").is_ok_and(|k| k.contains("tcp_diag_dump"));
    let given_up = || began.elapsed() > Duration::from_secs(30) && cannot();
    let scrape = until(&agent, |s| tcp(s, "established") == Some(2.0) || given_up());
    if tcp(&scrape, "established").is_none() {
        assert_eq!(value(&scrape, "nodegauge_network_tcp_sockets", "tcp_state", "inuse"), Some(2.0));
        println!("this kernel lists no sockets: the rest is left out");
        return;
    }
    assert_eq!(tcp(&scrape, "listen"), Some(0.0));
    assert_eq!(value(&scrape, "nodegauge_network_tcp_sockets", "tcp_state", "inuse"), Some(2.0));
    assert_eq!(value(&scrape, "container_network_udp_usage_total", "udp_state", "listen"), Some(3.0));
    let advanced = "container_network_advance_tcp_stats_total";
    assert_eq!(value(&scrape, advanced, "tcp_state", "activeopens"), Some(1.0));
    assert!(scrape.all("container_network_receive_bytes_total", &id).is_empty(), "the kind network is off");

    // With the last process the namespace is let go, and its figures are.
    drop((talker, waiter, holder));
    until(&agent, |s| s.all(advanced, &id).is_empty() && tcp(s, "established").is_none());
}

#[test]
#[ignore = "needs root"]
fn the_scheduler_tells_of_all_that_ran() {
    let group = Group::create("scheduled");
    let mut worker = Worker::start(&group, "burn 1.0");
    let agent = Agent::start(&["--interval", "1s", "--max-age", "100ms", "--metrics", "sched"]);
    let id = group.id();
    let ran = |s: &Scrape| s.one("container_cpu_schedstat_run_seconds_total", &id);
    worker.work();
    // The test's body is run by a thread of its own, which the process's first only waits for.
    let busy = ran(&until(&agent, |s| ran(s).is_some_and(|ran| ran > 0.9))).unwrap();
    assert!(busy < 3.0, "{busy}");
    // What ended stays in the sum.
    drop(worker);
    let after = ran(&until(&agent, |s| ran(s).is_some())).unwrap();
    assert!(after >= busy, "{after} after {busy}");
}
