//! Real OOM kills, in cgroups that live on and in such that go with their
//! victim, seen through the kernel's counters and its log and counted once.
//! Run by `.ci/run` as root: see `main.rs`.

use std::time::{Duration, Instant};

use crate::agent::{Agent, Scrape};
use crate::pods::{Pods, container_id, pod};
use crate::worker::Worker;

const FAMILY: &str = "container_oom_events_total";
const LIMIT: u64 = 16 << 20;
/// Four times that.
const GREEDY: &str = "memory 67108864";

fn agent() -> Agent {
    agent_with("1s", "100ms")
}

fn agent_with(interval: &str, max_age: &str) -> Agent {
    let metrics = "memory,oom_event";
    Agent::start(&["--interval", interval, "--max-age", max_age, "--metrics", metrics, "--kubelet", "none"])
}

/// Whether the kernel's log can be read here; says so if not.
fn has_log(agent: &Agent) -> bool {
    let readable = agent.own("nodegauge_kernel_log_readable") == 1.0;
    if !readable {
        println!("no kernel log can be read here");
    }
    readable
}

/// Puts a process there that takes more than it may, and waits for its end.
fn kill_in(pods: &Pods, path: &str) {
    let mut victim = Worker::start_outside(GREEDY, &[]);
    pods.add(path, victim.pid());
    victim.begin();
    victim.ended();
}

/// The value of the family on a cgroup, once it is what is expected.
fn until(agent: &Agent, id: &str, expected: f64) -> Scrape {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let scrape = agent.scrape();
        let found = scrape.one(FAMILY, id);
        if found == Some(expected) {
            return scrape;
        }
        assert!(Instant::now() < deadline, "{id} has {found:?}, not {expected}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_kill_that_the_container_survives_is_counted_once() {
    let mut pods = Pods::create("oom-survived");
    let container = format!("{}/{}", pod(1), container_id(1));
    pods.make(&container);
    pods.limit(&container, LIMIT);
    let mut first = Worker::start_outside("wait", &[]);
    first.work();
    pods.add(&container, first.pid());
    let agent = agent();
    until(&agent, &pods.id(&container), 0.0);
    kill_in(&pods, &container);
    assert_eq!(pods.kills(&container), 1);
    until(&agent, &pods.id(&container), 1.0);
    // The log has had its time to tell it, too.
    let scrape = agent.scrape();
    assert_eq!(scrape.one(FAMILY, &pods.id(&container)), Some(1.0));
    assert_eq!(scrape.one(FAMILY, &pods.id(&pod(1))), Some(1.0));
    if has_log(&agent) {
        assert!(agent.own("nodegauge_oom_kills_logged_total") >= 1.0);
    }
}

#[test]
#[ignore = "needs root"]
fn a_kill_that_the_container_dies_of_is_counted_once() {
    let mut pods = Pods::create("oom-died");
    let (first, second) = (container_id(1), container_id(2));
    let (first, second) = (format!("{}/{first}", pod(1)), format!("{}/{second}", pod(1)));
    pods.make(&first);
    pods.limit(&first, LIMIT);
    let agent = agent();
    let scrape = until(&agent, &pods.id(&first), 0.0);
    assert_eq!(scrape.one(FAMILY, &pods.id(&pod(1))), Some(0.0));
    if !has_log(&agent) && !pods.is_v2() {
        return;
    }
    kill_in(&pods, &first);
    pods.remove(&first);
    // As after a restart: another id.
    pods.make(&second);
    until(&agent, &pods.id(&first), 1.0);
    let scrape = until(&agent, &pods.id(&second), 0.0);
    assert_eq!(scrape.one(FAMILY, &pods.id(&pod(1))), Some(1.0));
    assert_eq!(scrape.one(FAMILY, &pods.id(&first)), Some(1.0));
    // Of what is gone this is all that is left.
    assert_eq!(scrape.one("container_memory_usage_bytes", &pods.id(&first)), None);
    // And with the pod.
    pods.remove(&second);
    pods.remove(&pod(1));
    until(&agent, &pods.id(&pod(1)), 1.0);
}

#[test]
#[ignore = "needs root"]
fn a_container_that_came_and_died_between_two_ticks_is_counted() {
    let mut pods = Pods::create("oom-unseen");
    pods.make(&pod(1));
    // Ticks on the grid only.
    let agent = agent_with("5s", "60s");
    if !has_log(&agent) {
        return;
    }
    let container = format!("{}/{}", pod(1), container_id(1));
    for _ in 0..2 {
        pods.make(&container);
        pods.limit(&container, LIMIT);
        kill_in(&pods, &container);
        pods.remove(&container);
    }
    until(&agent, &pods.id(&container), 2.0);
    assert_eq!(agent.scrape().one(FAMILY, &pods.id(&pod(1))), Some(2.0));
}

#[test]
#[ignore = "needs root"]
fn kills_of_before_the_start_are_not_counted() {
    let mut pods = Pods::create("oom-before");
    let container = format!("{}/{}", pod(1), container_id(1));
    pods.make(&container);
    pods.limit(&container, LIMIT);
    kill_in(&pods, &container);
    pods.remove(&container);
    let agent = agent();
    // On v2 the kernel itself counts them on the pod.
    let scrape = until(&agent, &pods.id(&pod(1)), if pods.is_v2() { 1.0 } else { 0.0 });
    assert_eq!(scrape.one(FAMILY, &pods.id(&container)), None);
}

#[test]
#[ignore = "needs root"]
fn every_victim_of_a_group_kill_is_counted() {
    let mut pods = Pods::create("oom-group");
    if !pods.is_v2() {
        println!("memory.oom.group is of cgroup v2");
        return;
    }
    let container = format!("{}/{}", pod(1), container_id(1));
    pods.make(&container);
    pods.limit(&container, LIMIT);
    pods.write(&container, "memory.oom.group", "1");
    let agent = agent();
    until(&agent, &pods.id(&container), 0.0);
    let mut bystander = Worker::start_outside("wait", &[]);
    bystander.work();
    pods.add(&container, bystander.pid());
    kill_in(&pods, &container);
    bystander.ended();
    let kills = pods.kills(&container);
    assert!(kills >= 2, "{kills}");
    pods.remove(&container);
    #[allow(clippy::cast_precision_loss, reason = "a handful")]
    let kills = kills as f64;
    until(&agent, &pods.id(&container), kills);
    assert_eq!(agent.scrape().one(FAMILY, &pods.id(&pod(1))), Some(kills));
}

/// Only where the machine is ours alone: `tests/vm/live.sh` says so.
#[test]
#[ignore = "needs root and a machine of its own"]
fn the_whole_machine_runs_short() {
    let Ok(bytes) = std::env::var("NODEGAUGE_MACHINE_BYTES") else {
        println!("not on a machine that others use: NODEGAUGE_MACHINE_BYTES is not set");
        return;
    };
    let mut pods = Pods::create("oom-machine");
    let container = format!("{}/{}", pod(1), container_id(1));
    pods.make(&container);
    let agent = agent();
    until(&agent, &pods.id(&container), 0.0);
    let before = agent.scrape().one(FAMILY, "/");
    let mut victim = Worker::start_outside(&format!("memory {bytes}"), &[]);
    pods.add(&container, victim.pid());
    // Nobody else, whatever the kernel thinks of them, also while the victim's memory is not free yet.
    std::fs::write(format!("/proc/{}/oom_score_adj", agent.pid()), "-1000").unwrap();
    std::fs::write(format!("/proc/{}/oom_score_adj", victim.pid()), "1000").unwrap();
    victim.begin();
    victim.ended();
    assert_eq!(pods.kills(&container), 1);
    pods.remove(&container);
    let scrape = until(&agent, &pods.id(&container), 1.0);
    assert_eq!(scrape.one(FAMILY, &pods.id(&pod(1))), Some(1.0));
    // It is the victim's, not the machine's.
    assert_eq!(scrape.one(FAMILY, "/"), before);
}
