//! A pod's network where it has no pause process, as on CRI-O with
//! `drop_infra_ctr`: real namespaces in cgroups of CRI-O's names.
//! Run by `.ci/run` as root: see `main.rs`.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::agent::{Agent, Scrape};
use crate::pods::{Pods, container_id};
use crate::worker::Worker;

const FAMILY: &str = "container_network_receive_bytes_total";

/// A pod's slice as the systemd driver calls it.
fn slice(seed: u32) -> String {
    let uid = format!("{:08x}_0000_4000_8000_{seed:012x}", std::process::id());
    format!("kubepods.slice/kubepods-pod{uid}.slice")
}

/// A process with a network namespace of its own that has one interface.
fn namespace() -> Worker {
    let mut holder = Worker::start_outside("wait", &["unshare", "-n"]);
    holder.work();
    enter(&holder, &["ip", "link", "add", "ngpod0", "type", "veth", "peer", "name", "ngpod1"]);
    holder
}

fn enter(holder: &Worker, words: &[&str]) {
    let pid = holder.pid().to_string();
    let status = Command::new("nsenter").args(["-n", "-t", &pid, "--"]).args(words).status().unwrap();
    assert!(status.success(), "{words:?}");
}

/// The cgroups that have network rows.
fn rows(scrape: &Scrape, ids: &[&str]) -> Vec<bool> {
    ids.iter().map(|id| !scrape.all(FAMILY, id).is_empty()).collect()
}

#[track_caller]
fn until(agent: &Agent, ids: &[&str], expected: &[bool]) {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let scrape = agent.scrape();
        let found = rows(&scrape, ids);
        if Instant::now() >= deadline {
            println!(
                "{:?} at {:?}",
                ids.iter().map(|id| scrape.one("container_last_seen", id)).collect::<Vec<_>>(),
                std::time::SystemTime::now()
            );
        }
        if found == expected {
            return;
        }
        let own = agent.get("/metrics/self");
        assert!(Instant::now() < deadline, "{ids:?} have {found:?}, not {expected:?}: {own}");
    }
}

#[test]
#[ignore = "needs root"]
fn without_a_pause_process_any_container_tells() {
    let mut pods = Pods::create("crio");
    let first = format!("{}/crio-{}.scope", slice(1), container_id(1));
    let second = format!("{}/crio-{}.scope", slice(1), container_id(2));
    let monitor = format!("{}/crio-conmon-{}.scope", slice(1), container_id(1));
    let of_host = format!("{}/crio-{}.scope", slice(2), container_id(3));
    for path in [&first, &second, &monitor, &of_host] {
        pods.make(path);
    }
    let holder = namespace();
    let wrapper = holder.pid().to_string();
    let in_pod = || {
        let mut worker = Worker::start_outside("wait", &["nsenter", "-n", "-t", &wrapper]);
        worker.work();
        worker
    };
    let (one, two) = (in_pod(), in_pod());
    pods.add(&first, one.pid());
    pods.add(&second, two.pid());
    // conmon is on the host's network, but its cgroup is the pod's; even if it
    // were in the pod's, it would not be the one to ask.
    let mut conmon = Worker::start_outside("wait", &[]);
    conmon.work();
    pods.add(&monitor, conmon.pid());
    let mut host = Worker::start_outside("wait", &[]);
    host.work();
    pods.add(&of_host, host.pid());

    let metrics = ["--interval", "1s", "--max-age", "100ms", "--metrics", "memory,network"];
    let agent = Agent::start(&metrics);
    let (pod, host_pod) = (pods.id(&slice(1)), pods.id(&slice(2)));
    let ids = [&first, &second, &monitor, &of_host].map(|path| pods.id(path));
    let mut all: Vec<&str> = vec![&pod, &host_pod];
    all.extend(ids.iter().map(String::as_str));
    // Once, on the pod; of the host's network nothing.
    let once = [true, false, false, false, false, false];
    until(&agent, &all, &once);
    let of_pod = agent.scrape();
    let mut names: Vec<_> = of_pod.all(FAMILY, &pod).iter().map(|s| s.labels["interface"].clone()).collect();
    names.sort();
    assert_eq!(names, ["ngpod0", "ngpod1"]);

    // The container that is asked ends, which was there first: the other one is
    // asked at once.
    drop(one);
    assert_eq!(rows(&agent.scrape(), &all), once);
    pods.remove(&first);
    assert_eq!(rows(&agent.scrape(), &all), once);
    let third = in_pod();
    pods.make(&first);
    pods.add(&first, third.pid());
    drop(two);
    until(&agent, &all, &once);
    // And with the last one the rows go, though the namespace is still there.
    drop(third);
    until(&agent, &all, &[false; 6]);
}
