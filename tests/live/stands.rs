//! Figures that are left out of a tick since they cannot have moved are those the kernel
//! tells: beside a second reader that leaves nothing out. Run by `.ci/run` as root: see
//! `main.rs`.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use nodegauge::collect::sampler::{Options, Sampler};
use nodegauge::kernel::Roots;
use nodegauge::kernel::cgroup::Layout;
use nodegauge::kernel::file::Buffer;
use nodegauge::snapshot::{Cgroup, CgroupSample, Kinds, Origin, Pressure, Reading, Snapshot};

/// What runs in the containers of each pod: nothing much in most, as on most nodes.
const PODS: [[&str; 2]; 5] = [
    ["exec sleep 1000", "exec sleep 1000"],
    ["exec sleep 1000", "while :; do head -c 2000000 /dev/urandom | cksum >/dev/null; sleep 0.7; done"],
    [
        "exec sleep 1000",
        "while :; do dd if=/dev/zero of=$DISK bs=64k count=20 conv=fsync 2>/dev/null; sleep 2; done",
    ],
    ["exec sleep 1000", "(while :; do :; done) & (while :; do :; done) & while :; do :; done"],
    ["sleep 6; head -c 4000000 /dev/urandom | cksum; exec sleep 1000", "exec sleep 1000"],
];

struct Pods {
    layout: Layout,
    name: String,
    made: Vec<PathBuf>,
    children: Vec<Child>,
    disk: tempfile::TempDir,
}

impl Pods {
    fn start() -> Pods {
        let layout = Layout::detect(&Roots::new("/".as_ref()), &mut Buffer::new()).expect("a cgroup mount");
        let disk = std::env::var("NODEGAUGE_DISK").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").to_owned());
        let disk = tempfile::tempdir_in(disk).unwrap();
        let name = format!("nglive{}-stands", std::process::id());
        let mut pods = Pods { layout, name, made: Vec::new(), children: Vec::new(), disk };
        for (pod, containers) in PODS.iter().enumerate() {
            for (container, command) in containers.iter().enumerate() {
                pods.run(&format!("pod{pod}"), &format!("c{container}"), command);
            }
        }
        pods
    }

    /// Runs a command in a container, which is in every tree of this machine.
    fn run(&mut self, pod: &str, container: &str, command: &str) {
        let v2_only = self.layout.is_v2();
        let mut script = String::new();
        for tree in &self.layout.trees {
            let mut directory = tree.path.clone();
            for part in [&self.name, pod, container] {
                if v2_only {
                    for controller in ["cpu", "memory", "io", "pids"] {
                        let _ = std::fs::write(
                            directory.join("cgroup.subtree_control"),
                            format!("+{controller}"),
                        );
                    }
                }
                directory = directory.join(part);
                if !directory.is_dir() {
                    std::fs::create_dir(&directory).unwrap();
                    self.made.push(directory.clone());
                }
            }
            script.push_str(&format!("echo $$ >{}/cgroup.procs\n", directory.display()));
        }
        script.push_str(command);
        let disk = self.disk.path().join(format!("{pod}{container}"));
        let child = Command::new("sh").arg("-ec").arg(script).env("DISK", disk).spawn().unwrap();
        self.children.push(child);
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for directory in &self.made {
            for pid in std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default().lines() {
                let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
        self.children.iter_mut().for_each(|child| drop(child.wait()));
        for directory in self.made.iter().rev() {
            for _ in 0..50 {
                if std::fs::remove_dir(directory).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn sampler() -> Sampler {
    let options = Options {
        kinds: Kinds::DEFAULT,
        on_request: Kinds::NONE,
        handle_memory: 64 << 20,
        descriptors: 100_000,
        max_cgroups: 10_000,
        disk_usage: 0,
    };
    let describe = Box::new(|path: String, created| {
        Arc::new(Cgroup { labels: path.clone(), path, created, ..Cgroup::default() })
    });
    Sampler::new(Roots::new("/".as_ref()), options, describe).unwrap()
}

/// A tick, and how often this process asked the kernel to read meanwhile.
fn tick(sampler: &mut Sampler) -> (Arc<Snapshot>, u64) {
    let reads = || -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/io").unwrap_or_default();
        text.lines().find_map(|l| l.strip_prefix("syscr: ")?.parse().ok()).unwrap_or(0)
    };
    let mut snapshot = sampler.blank();
    let before = reads();
    sampler.tick(Origin::Grid, &mut snapshot);
    (Arc::new(snapshot), reads() - before)
}

/// Every total of a row that only rises, by name.
fn totals(row: &CgroupSample) -> Vec<(String, Reading)> {
    let mut all = vec![("cpu".to_owned(), row.cpu.usage_ns)];
    let pressure = |name: &str, p: &Pressure| {
        [(format!("{name} some"), p.some_usec), (format!("{name} full"), p.full_usec)]
    };
    all.extend(pressure("cpu", &row.pressure.cpu));
    all.extend(pressure("memory", &row.pressure.memory));
    all.extend(pressure("io", &row.pressure.io));
    for device in &row.io {
        let name = |figure| format!("{}:{} {figure}", device.major, device.minor);
        all.push((name("read"), device.bytes.read));
        all.push((name("write"), device.bytes.write));
        all.push((name("writes"), device.ios.write));
    }
    all
}

#[test]
#[ignore = "needs root; takes 25 s"]
fn what_is_left_out_is_what_the_kernel_tells() {
    let pods = Pods::start();
    let (mut whole, mut left_out) = (sampler(), sampler());
    let (mut rows, mut read_whole, mut read_left_out, mut same, mut averages) = (0, 0, 0, 0, 0);
    for round in 0..24 {
        // Nobody tells this one what it published, so that it goes by nothing.
        let (low, _) = tick(&mut whole);
        let (this, few) = tick(&mut left_out);
        left_out.published(&this);
        let (high, many) = tick(&mut whole);
        std::thread::sleep(Duration::from_secs(1));
        // The files of new cgroups are all tried.
        if round < 6 {
            continue;
        }
        read_whole += many;
        read_left_out += few;
        for row in &this.cgroups {
            let path = &row.cgroup.path;
            let (Some(low), Some(high)) = (low.row(path), high.row(path)) else { continue };
            rows += 1;
            let (low_totals, high_totals) = (totals(low), totals(high));
            for (name, total) in totals(row) {
                let of =
                    |all: &[(String, Reading)]| all.iter().find(|(n, _)| *n == name).and_then(|(_, t)| *t);
                let (low, high) = (of(&low_totals), of(&high_totals));
                assert!(low <= total && (total <= high), "{path} {name}: {low:?} {total:?} {high:?}");
            }
            let average = |row: &CgroupSample| {
                let all = [row.pressure.cpu, row.pressure.memory, row.pressure.io];
                all.map(|p| (p.some_average, p.full_average))
            };
            if average(low) == average(high) {
                assert_eq!(average(row), average(low), "{path}");
                averages += 1;
            }
            // What nobody used meanwhile; pages that are written out or shared belong to others.
            if path.contains(&pods.name) && low.memory == high.memory {
                assert_eq!(row.memory, low.memory, "{path}");
                same += 1;
            }
        }
    }
    println!(
        "{rows} rows, {averages} with the same averages, {same} with the same memory; {read_left_out} reads \
         where {read_whole} tell all"
    );
    assert!(rows > 18 * 15 && averages > 18 * 10 && same > 18 * 6, "{rows} {averages} {same}");
    assert!(read_left_out * 5 < read_whole * 4, "{read_left_out} of {read_whole}");
}
