//! Which families were seen on a live kernel, as `docs/coverage.tsv` says. Run by `.ci/run` as
//! root: see `main.rs`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use nodegauge::kernel::Roots;
use nodegauge::kernel::cgroup::Layout;
use nodegauge::kernel::file::Buffer;
use nodegauge::snapshot::{Hierarchy, Kind};

use crate::agent::Agent;
use crate::group::Group;
use crate::worker::Worker;

/// Rows of the table: family, its source on cgroup v1 and what was found there, the same on v2.
const TABLE: &str = include_str!("../../docs/coverage.tsv");

/// Of the families that any kernel with this layout tells, whoever made the machine.
fn expected(v2: bool) -> BTreeSet<String> {
    let rows = TABLE.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
    let seen = rows.filter(|row| row[if v2 { 4 } else { 2 }] == "seen");
    seen.map(|row| row[0].to_owned()).collect()
}

/// Has a guest, which nobody else uses, tell what kernels tell only when asked to.
fn cost_model_and_huge_pages() {
    if std::env::var_os("NODEGAUGE_GUEST").is_none() {
        return;
    }
    let root = Path::new("/sys/fs/cgroup");
    let _ = std::fs::write(root.join("cgroup.subtree_control"), "+hugetlb");
    let _ = std::fs::write("/sys/module/blk_cgroup/parameters/blkcg_debug_stats", "1");
    for disk in std::fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        if let Ok(numbers) = std::fs::read_to_string(disk.path().join("dev")) {
            let _ = std::fs::write(root.join("io.cost.qos"), format!("{} enable=1", numbers.trim()));
        }
    }
}

#[test]
#[ignore = "needs root; takes 20 s"]
fn every_family_that_is_said_to_be_seen() {
    let layout = Layout::detect(&Roots::new("/".as_ref()), &mut Buffer::new()).expect("a cgroup mount");
    cost_model_and_huge_pages();
    let group = Group::create("families");
    let mut holder = Worker::start_outside("wait", &["unshare", "-n"]);
    holder.work();
    let namespace = holder.pid().to_string();
    let mut worker = Worker::start_outside("burn 3", &["nsenter", "-n", "-t", &namespace]);
    group.add(worker.pid());
    if group.is_v2() {
        group.write("cpu", "cpu.max", "50000 100000");
        group.write("memory", "memory.max", "268435456");
    } else {
        group.write("cpu", "cpu.cfs_quota_us", "50000");
        group.write("memory", "memory.limit_in_bytes", "268435456");
    }
    let disk = std::env::var("NODEGAUGE_DISK").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").to_owned());
    let disk = tempfile::tempdir_in(disk).unwrap();
    let path = disk.path().join("written");
    let mut writer = Worker::start(&group, &format!("write {} 4194304", path.display()));
    writer.work();
    let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    let agent = Agent::start(&["--interval", "1s", "--max-age", "100ms", "--metrics", &kinds.join(",")]);
    worker.begin();
    let expected = expected(layout.hierarchy == Hierarchy::V2);
    let mut seen = BTreeSet::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    let settled = Instant::now() + Duration::from_secs(15);
    while Instant::now() < settled || (!expected.is_subset(&seen) && Instant::now() < deadline) {
        let ours = |name: &str| {
            ["container_", "machine_", "cadvisor_", "nodegauge_"].iter().any(|start| name.starts_with(start))
        };
        let scrape = agent.scrape();
        seen.extend(scrape.samples.into_iter().map(|sample| sample.name).filter(|name| ours(name)));
        std::thread::sleep(Duration::from_secs(1));
    }
    // For who brings the table up to date.
    seen.iter().for_each(|family| println!("seen\t{family}"));
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let major: u32 = release.split('.').next().unwrap().parse().unwrap();
    if major < 6 {
        println!("kernel {}: the table was made with 6.1 and later", release.trim());
        return;
    }
    let missing: Vec<&String> = expected.difference(&seen).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
