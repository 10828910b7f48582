//! Files that are not read each tick: what they would tell is known, and they are read
//! again in the first tick in which it is not.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use nodegauge::collect::sampler::{Options, Sampler};
use nodegauge::kernel::Roots;
use nodegauge::snapshot::{Cgroup, CgroupSample, Kinds, Limit, Snapshot};

use crate::faults::{sampler, tick};
use crate::ttar;

/// Looks at one cgroup of a captured tree.
struct Watched {
    tree: tempfile::TempDir,
    sampler: Sampler,
    path: String,
}

impl Watched {
    /// The first leaf that `wanted` likes, past the ticks in which all is read.
    fn new(capture: &str, wanted: fn(&CgroupSample) -> bool) -> Watched {
        let tree = ttar::unpack(capture);
        let mut sampler = sampler(tree.path());
        let first = tick(&mut sampler);
        let path = first.cgroups.iter().find(|r| r.leaf && wanted(r)).unwrap().cgroup.path.clone();
        let mut watched = Watched { tree, sampler, path };
        watched.pass_its_turn();
        watched
    }

    /// Its turn to be read in full has just been, so that nine ticks without one follow.
    fn pass_its_turn(&mut self) {
        let file = self.file("memory", "memory.soft_limit_in_bytes");
        let file = if file.exists() { file } else { self.file("memory", "memory.low") };
        let written = fs::File::options().write(true).open(&file).unwrap();
        (0..3).for_each(|_| drop(self.tick()));
        let before = self.tick().spec.memory_reservation;
        // Not closed, so that nobody is told.
        written.set_len(0).unwrap();
        written.write_at(b"12345678\n", 0).unwrap();
        for _ in 0..12 {
            let row = self.tick();
            if row.spec.memory_reservation != before {
                assert_eq!(row.spec.memory_reservation, Some(Limit::Value(12_345_678)));
                drop(written);
                // It is told now, and read once more.
                self.tick();
                return;
            }
        }
        panic!("limits are not read in turn");
    }

    fn kills_on_the_machine(&self, kills: u64) {
        let path = self.tree.path().join("proc/vmstat");
        fs::write(path, format!("nr_free_pages 1\noom_kill {kills}\nunevictable_pgs_culled 2\n")).unwrap();
    }

    fn file(&self, controller: &str, name: &str) -> PathBuf {
        let layout = self.sampler.layout();
        let tree = layout.tree_for(controller).unwrap();
        assert!(layout.trees[tree.index()].path.starts_with(self.tree.path()));
        layout.trees[tree.index()].path.join(&self.path[1..]).join(name)
    }

    /// Writes without being told about it, which a write that is closed is.
    fn write(&self, controller: &str, name: &str, text: &str) -> fs::File {
        let file = fs::File::options().write(true).open(self.file(controller, name)).unwrap();
        file.set_len(0).unwrap();
        file.write_at(text.as_bytes(), 0).unwrap();
        file
    }

    fn row(&self, snapshot: &Snapshot) -> CgroupSample {
        snapshot.cgroups.iter().find(|r| r.cgroup.path == self.path).unwrap().clone()
    }

    fn tick(&mut self) -> CgroupSample {
        let snapshot = tick(&mut self.sampler);
        self.row(&snapshot)
    }

    /// A tick before which something ran in it.
    fn busy_tick(&mut self) -> CgroupSample {
        let v1 = self.file("cpuacct", "cpuacct.usage_percpu");
        let unified = self.sampler.layout().trees[0].path.join(&self.path[1..]).join("cpu.stat");
        let (path, rises): (_, fn(u64) -> u64) =
            if v1.exists() { (v1, |ns| ns + 1) } else { (unified, |usec| usec + 1) };
        let text = fs::read_to_string(&path).unwrap();
        let digits = text.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty()).unwrap();
        let more = rises(digits.parse().unwrap()).to_string();
        let file = fs::File::options().write(true).open(&path).unwrap();
        let text = text.replacen(digits, &more, 1);
        file.set_len(0).unwrap();
        file.write_at(text.as_bytes(), 0).unwrap();
        self.tick()
    }
}

fn ns(reading: nodegauge::snapshot::Reading) -> u64 {
    reading.expect("a figure").get()
}

#[test]
fn user_and_system_time_move_with_the_use() {
    let mut leaf = Watched::new("v1-6.1", |r| r.cpu.usage_ns.is_some());
    let before = leaf.tick();
    let _stat = leaf.write("cpuacct", "cpuacct.stat", "user 1111\nsystem 2222\n");
    let same = leaf.tick();
    assert_eq!((same.cpu.user_ns, same.cpu.system_ns), (before.cpu.user_ns, before.cpu.system_ns));
    // The sum of the processors is the use.
    let _usage = leaf.write("cpuacct", "cpuacct.usage_percpu", "1000 34330000000 5 \n");
    let moved = leaf.tick();
    assert_eq!(ns(moved.cpu.usage_ns), 34_330_001_005);
    assert_eq!((ns(moved.cpu.user_ns), ns(moved.cpu.system_ns)), (11_110_000_000, 22_220_000_000));
    // Without them it has a file of its own.
    fs::remove_file(leaf.file("cpuacct", "cpuacct.usage_percpu")).unwrap();
    fs::write(leaf.file("cpuacct", "cpuacct.usage"), "34340000000\n").unwrap();
    let mut again = sampler(leaf.tree.path());
    assert_eq!(ns(leaf.row(&tick(&mut again)).cpu.usage_ns), 34_340_000_000);
}

#[test]
fn nobody_without_a_limit_is_throttled() {
    let mut leaf = Watched::new("v1-6.1", |r| r.spec.cpu_quota_usec == Some(Limit::Max));
    let before = leaf.tick();
    let throttled = "nr_periods 10\nnr_throttled 7\nthrottled_time 800\n";
    let _stat = leaf.write("cpu", "cpu.stat", throttled);
    assert_eq!(leaf.tick().cpu.throttled_periods, before.cpu.throttled_periods);
    // A limit is written: that is told.
    fs::write(leaf.file("cpu", "cpu.cfs_quota_us"), "20000\n").unwrap();
    let limited = leaf.tick();
    assert_eq!(ns(limited.cpu.throttled_periods), 7);
    assert_eq!(limited.spec.cpu_quota_usec, Some(Limit::Value(20_000)), "in the first tick after that");
    let _stat = leaf.write("cpu", "cpu.stat", &throttled.replace('7', "8"));
    assert_eq!(ns(leaf.tick().cpu.throttled_periods), 8, "read each tick");
    // And goes again.
    fs::write(leaf.file("cpu", "cpu.cfs_quota_us"), "-1\n").unwrap();
    let _stat = leaf.write("cpu", "cpu.stat", &throttled.replace('7', "9"));
    assert_eq!(ns(leaf.tick().cpu.throttled_periods), 9);
    assert_eq!(ns(leaf.tick().cpu.throttled_periods), 9);
    // One who was not told sees it in turn.
    let _stat = leaf.write("cpu", "cpu.stat", &throttled.replace('7', "10"));
    let seen = (0..10).position(|_| ns(leaf.tick().cpu.throttled_periods) == 10);
    assert!(seen.is_some_and(|ticks| ticks > 0), "{seen:?}");
}

#[test]
fn nothing_fails_at_no_limit() {
    let mut leaf = Watched::new("v1-6.1", |r| r.spec.memory_limit == Some(Limit::Max));
    let before = leaf.tick();
    let _failcnt = leaf.write("memory", "memory.failcnt", "7\n");
    assert_eq!(leaf.busy_tick().memory.failcnt, before.memory.failcnt);
    fs::write(leaf.file("memory", "memory.limit_in_bytes"), "8388608\n").unwrap();
    let limited = leaf.busy_tick();
    assert_eq!(ns(limited.memory.failcnt), 7);
    assert_eq!(limited.spec.memory_limit, Some(Limit::Value(8_388_608)));
    let _failcnt = leaf.write("memory", "memory.failcnt", "8\n");
    assert_eq!(ns(leaf.busy_tick().memory.failcnt), 8, "read each tick");
}

#[test]
fn devices_that_are_used_for_the_first_time() {
    let mut leaf = Watched::new("v1-6.1", |_| true);
    let file = |kind: &str| format!("blkio.throttle.{kind}_recursive");
    let (_a, _b) = (
        leaf.write("blkio", &file("io_service_bytes"), "Total 0\n"),
        leaf.write("blkio", &file("io_serviced"), "Total 0\n"),
    );
    leaf.tick();
    let (_a, _b) = (
        leaf.write("blkio", &file("io_service_bytes"), "8:16 Read 4096\n8:16 Total 4096\nTotal 4096\n"),
        leaf.write("blkio", &file("io_serviced"), "8:16 Read 3\n8:16 Total 3\nTotal 3\n"),
    );
    // What is above counts it too.
    let pod = leaf.path.rsplit_once('/').unwrap().0.to_owned();
    let container = std::mem::replace(&mut leaf.path, pod);
    let mut above = Vec::new();
    while !leaf.path.is_empty() {
        above.push(leaf.write("blkio", &file("io_service_bytes"), "8:16 Read 4096\nTotal 4096\n"));
        leaf.path.truncate(leaf.path.rfind('/').unwrap());
    }
    leaf.path = container;
    let row = leaf.tick();
    let disk = row.io.iter().find(|d| (d.major, d.minor) == (8, 16)).expect("the device");
    assert_eq!((ns(disk.bytes.read), ns(disk.ios.read)), (4096, 3));
}

#[test]
fn kills_of_a_cgroup_move_with_those_of_its_subtree() {
    let mut leaf = Watched::new("v2-systemd-6.12", |r| r.memory.events_oom_kill.is_some());
    let before = leaf.tick();
    let events = "low 0\nhigh 0\nmax 0\noom 9\noom_kill 9\noom_group_kill 0\n";
    let _own = leaf.write("memory", "memory.events.local", events);
    assert_eq!(leaf.tick().memory.oom_kills, before.memory.oom_kills);
    let _all = leaf.write("memory", "memory.events", events);
    // The machine counts every kill, and has counted none.
    assert_eq!(leaf.tick().memory.oom_kills, before.memory.oom_kills);
    leaf.kills_on_the_machine(9);
    // Who is killed runs once more.
    assert_eq!(ns(leaf.busy_tick().memory.oom_kills), 9);
}

#[test]
fn kills_move_with_those_of_the_machine() {
    let mut leaf = Watched::new("v1-6.1", |r| r.memory.oom_kills.is_some());
    leaf.kills_on_the_machine(0);
    (0..2).for_each(|_| drop(leaf.tick()));
    let before = leaf.tick();
    let control = |kills: u64| format!("oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n");
    let _own = leaf.write("memory", "memory.oom_control", &control(1));
    assert_eq!(leaf.tick().memory.oom_kills, before.memory.oom_kills);
    leaf.kills_on_the_machine(1);
    assert_eq!(ns(leaf.tick().memory.oom_kills), 1);
    // Counted a moment later than the machine's.
    let _own = leaf.write("memory", "memory.oom_control", &control(2));
    assert_eq!(ns(leaf.tick().memory.oom_kills), 2);
    let _own = leaf.write("memory", "memory.oom_control", &control(3));
    assert_eq!(ns(leaf.tick().memory.oom_kills), 2);
    // A kernel that does not tell.
    fs::remove_file(leaf.tree.path().join("proc/vmstat")).unwrap();
    assert_eq!(ns(leaf.tick().memory.oom_kills), 3);
}

#[test]
fn swap_of_a_machine_that_has_none() {
    let mut leaf = Watched::new("v2-systemd-6.12", |r| r.memory.swap.is_some());
    let meminfo = leaf.tree.path().join("proc/meminfo");
    let text = fs::read_to_string(&meminfo).unwrap();
    let with = |kib: u64| {
        let lines = text.lines().filter(|l| !l.starts_with("Swap"));
        let lines: Vec<&str> = lines.collect();
        format!("{}\nSwapTotal: {kib} kB\nSwapFree: 0 kB\n", lines.join("\n"))
    };
    fs::write(&meminfo, with(0)).unwrap();
    assert_eq!(ns(leaf.tick().memory.swap), 0);
    let _swap = leaf.write("memory", "memory.swap.current", "4096\n");
    assert_eq!(ns(leaf.busy_tick().memory.swap), 0);
    fs::write(&meminfo, with(8)).unwrap();
    assert_eq!(ns(leaf.busy_tick().memory.swap), 4096, "swap was switched on");
}

/// Directories and all, and what is read each tick goes first.
#[test]
fn handles_stay_within_their_memory() {
    let tree = ttar::unpack("v1-6.1");
    let sampler = |handle_memory| {
        let options = Options {
            kinds: Kinds::DEFAULT,
            on_request: Kinds::NONE,
            handle_memory,
            descriptors: 4096,
            max_cgroups: 1000,
            disk_usage: 0,
        };
        let describe = Box::new(|path: String, created| {
            Arc::new(Cgroup { labels: path.clone(), path, created, ..Cgroup::default() })
        });
        let mut sampler = Sampler::new(Roots::new(tree.path()), options, describe).unwrap();
        (0..3).for_each(|_| drop(tick(&mut sampler)));
        sampler.report().handles
    };
    let all = sampler(1 << 30);
    assert!(all.files < all.max_files && all.bytes() < 1 << 30, "{all:?}");
    let few = sampler(300_000);
    assert!(few.bytes() <= 300_000 && few.by_memory, "{few:?}");
    assert_eq!(few.files, few.max_files);
    assert_eq!(few.directories, all.directories);
    assert_eq!(sampler(0).files, 0);
}
