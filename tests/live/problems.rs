//! What the kernel says of itself, seen by a running agent: real troubles of a
//! filesystem, and words of programs that only look like the kernel's; and a reboot that
//! the distribution asks for. Run by `.ci/run` as root: see `main.rs`.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::pods::{Pods, container_id, pod};
use crate::worker::Worker;

fn problems(agent: &Agent, reason: &str) -> f64 {
    agent.own(&format!("nodegauge_kernel_problems_total{{reason=\"{reason}\"}}"))
}

fn agent(more: &[&str]) -> Agent {
    let args = ["--interval", "1s", "--max-age", "100ms", "--kubelet", "none", "--runtime", "none"];
    Agent::start(&[&args, more].concat())
}

/// An agent that reads the kernel's log, if that can be read here.
fn reader() -> Option<Agent> {
    let agent = agent(&["--metrics", "memory,oom_event"]);
    if agent.own("nodegauge_kernel_log_readable") == 1.0 {
        return Some(agent);
    }
    println!("no kernel log can be read here");
    None
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
#[ignore = "needs root and mkfs.ext4"]
fn a_filesystem_that_breaks_is_counted_by_what_the_kernel_says() {
    if !Path::new("/dev/loop-control").exists() {
        println!("no disk can be made of a file here");
        return;
    }
    let Some(agent) = reader() else { return };
    let reasons = ["Ext4Error", "FilesystemIsReadOnly", "IOError"];
    let before = reasons.map(|reason| problems(&agent, reason));
    let directory = tempfile::tempdir().unwrap();
    // ext4 has a file that has it find an error; a disk whose file is gone cannot be read.
    let script = "set -e
        truncate -s 8M image
        mkfs.ext4 -q -F image
        mkdir mount
        disk=$(losetup -f --show image)
        trap 'umount mount 2>/dev/null || :; losetup -d $disk' EXIT
        mount -t ext4 -o errors=remount-ro $disk mount
        echo damaged >/sys/fs/ext4/${disk#/dev/}/trigger_fs_error
        umount mount
        truncate -s 0 image
        dd if=$disk of=/dev/null bs=4096 count=1 || :";
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--propagation", "private", "sh", "-c", script]).current_dir(directory.path());
    let done = shell.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for (reason, before) in reasons.into_iter().zip(before) {
        until(reason, || problems(&agent, reason) > before);
    }
}

#[test]
#[ignore = "needs root"]
fn what_programs_write_into_the_kernels_log_is_no_problem_of_the_kernel() {
    let Some(agent) = reader() else { return };
    // No machine that runs tests has this one of itself: memory of those that tell is not read from.
    let line = "<0>EDAC MC0: 1 CE memory read error on CPU_SrcID#0_Ha#0_Chan#0_DIMM#0\n";
    let before = agent.own("nodegauge_kernel_log_records_total");
    std::fs::write("/dev/kmsg", line).unwrap();
    until("the line was read", || agent.own("nodegauge_kernel_log_records_total") > before);
    // What the kernel itself says after it has come by the same way.
    let mut pods = Pods::create("problems");
    let container = format!("{}/{}", pod(1), container_id(1));
    pods.make(&container);
    pods.limit(&container, 16 << 20);
    let mut victim = Worker::start_outside("memory 67108864", &[]);
    pods.add(&container, victim.pid());
    victim.begin();
    victim.ended();
    until("the kill was read", || agent.own("nodegauge_oom_kills_logged_total") >= 1.0);
    assert_eq!(problems(&agent, "MemoryReadError"), 0.0);
}

#[test]
#[ignore = "needs root"]
fn a_reboot_that_is_asked_for_is_told() {
    let host = tempfile::tempdir().unwrap();
    for name in ["proc", "sys"] {
        std::os::unix::fs::symlink(format!("/{name}"), host.path().join(name)).unwrap();
    }
    let run = host.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let told = || {
        let agent = agent(&["--metrics", "memory", "--host-root", host.path().to_str().unwrap()]);
        agent.scrape().with("nodegauge_reboot_required", &[])
    };
    assert_eq!(told(), Some(0.0));
    std::fs::write(run.join("reboot-required"), "*** System restart required ***\n").unwrap();
    assert_eq!(told(), Some(1.0));
}
