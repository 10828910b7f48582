//! Figures that are not read since they cannot have moved, or hardly: of a cgroup in which
//! nothing ran, and below one whose totals stand.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nodegauge::collect::sampler::Sampler;
use nodegauge::snapshot::{CgroupSample, Reading, Snapshot};

use crate::faults::{sampler, tick};
use crate::ttar;

/// A container of a captured tree, and its pod.
struct Family {
    tree: tempfile::TempDir,
    sampler: Sampler,
    path: String,
}

impl Family {
    fn new(capture: &str, wanted: fn(&CgroupSample) -> bool) -> Family {
        let tree = ttar::unpack(capture);
        let mut sampler = sampler(tree.path());
        let first = tick(&mut sampler);
        let deep = |r: &&CgroupSample| r.leaf && r.cgroup.path.matches('/').count() > 2 && wanted(r);
        let path = first.cgroups.iter().find(deep).expect("a container").cgroup.path.clone();
        let mut family = Family { tree, sampler, path };
        (0..3).for_each(|_| drop(family.tick()));
        family
    }

    /// Does something with all cgroups above it but the root.
    fn above(&self, act: impl Fn(&str)) {
        let parts = self.path.match_indices('/').map(|(at, _)| &self.path[..at]);
        parts.filter(|path| !path.is_empty()).for_each(act);
    }

    /// Writes a file of a cgroup, of the hierarchy that has it, without being told about it.
    fn write(&self, cgroup: &str, name: &str, change: impl Fn(&str) -> String) {
        let trees = &self.sampler.layout().trees;
        let paths: Vec<PathBuf> =
            trees.iter().map(|tree| tree.path.join(&cgroup[1..]).join(name)).filter(|p| p.exists()).collect();
        let [path] = paths.as_slice() else { panic!("{name} of {cgroup}: {paths:?}") };
        assert!(path.starts_with(self.tree.path()));
        let text = change(&fs::read_to_string(path).unwrap());
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(0).unwrap();
        file.write_at(text.as_bytes(), 0).unwrap();
        // Closing it would tell.
        std::mem::forget(file);
    }

    fn tick(&mut self) -> CgroupSample {
        let snapshot: Arc<Snapshot> = tick(&mut self.sampler);
        snapshot.cgroups.iter().find(|r| r.cgroup.path == self.path).unwrap().clone()
    }

    /// What stands is read again every ten seconds: a change that was seen at once was at
    /// the turn, which the next cannot be.
    fn stands<T: PartialEq>(&mut self, change: impl Fn(&Self, u64), of: impl Fn(&CgroupSample) -> T) {
        let stood = (1..3).any(|more| {
            let before = of(&self.tick());
            change(self, more);
            of(&self.tick()) == before
        });
        assert!(stood);
    }
}

fn number(reading: Reading) -> u64 {
    reading.expect("a figure").get()
}

/// Adds to the first number after `key`.
fn raise(text: &str, key: &str, by: u64) -> String {
    let at = text.find(key).unwrap_or_else(|| panic!("{key} in {text}")) + key.len();
    let (head, tail) = text.split_at(at);
    let from = tail.find(|c: char| c.is_ascii_digit()).unwrap();
    let digits: String = tail[from..].chars().take_while(char::is_ascii_digit).collect();
    let value: u64 = digits.parse().unwrap();
    format!("{head}{}{}{}", &tail[..from], value + by, &tail[from + digits.len()..])
}

#[test]
fn memory_of_who_does_not_run() {
    for (capture, usage, cache, cpu) in [
        ("v1-6.1", "memory.usage_in_bytes", "\ntotal_cache", "cpuacct.usage_percpu"),
        ("v2-systemd-6.12", "memory.current", "file ", "cpu.stat"),
    ] {
        let mut family = Family::new(capture, |r| r.memory.usage.is_some() && r.memory.cache.is_some());
        let path = family.path.clone();
        let more_cache = |f: &Family, by| f.write(&path, "memory.stat", |text| raise(text, cache, by * 4096));
        family.stands(more_cache, |row| row.memory.cache);
        // As much is in use as was, yet something ran.
        let before = family.tick();
        more_cache(&family, 10);
        family.write(&path, cpu, |text| raise(text, "", 1));
        let ran = family.tick();
        assert!(ran.cpu.usage_ns > before.cpu.usage_ns, "{capture}");
        assert!(number(ran.memory.cache) >= number(before.memory.cache) + 10 * 4096, "{capture}");
        // And the other way about.
        more_cache(&family, 10);
        family.write(&path, usage, |text| raise(text, "", 4096));
        let moved = family.tick();
        assert_eq!(number(moved.memory.usage), number(ran.memory.usage) + 4096, "{capture}");
        assert_eq!(number(moved.memory.cache), number(ran.memory.cache) + 10 * 4096, "{capture}");
        // A tick that nobody was told of is none to go by.
        more_cache(&family, 1);
        let mut lost = family.sampler.blank();
        family.sampler.tick(nodegauge::snapshot::Origin::Grid, &mut lost);
        let all = family.tick();
        assert_eq!(number(all.memory.cache), number(moved.memory.cache) + 4096, "{capture}");
    }
}

#[test]
fn what_stands_is_read_after_ten_seconds() {
    let mut family = Family::new("v2-systemd-6.12", |r| r.memory.cache.is_some());
    let before = number(family.tick().memory.cache);
    family.write(&family.path.clone(), "memory.stat", |text| raise(text, "file ", 4096));
    let began = std::time::Instant::now();
    while number(family.tick().memory.cache) == before {
        assert!(began.elapsed() < Duration::from_secs(11), "still not read");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

#[test]
fn pressure_below_who_had_none() {
    let mut family = Family::new("v2-systemd-6.12", |r| r.pressure.cpu.some_usec.is_some());
    let path = family.path.clone();
    let average = |text: &str, value: &str| {
        let rest = text.find("avg10=").unwrap() + "avg10=".len();
        format!("{}{value}{}", &text[..rest], &text[rest + 4..])
    };
    for file in ["cpu.pressure", "memory.pressure", "io.pressure"] {
        let none = "avg10=0.00 avg60=0.00 avg300=0.00 total=";
        let rest = |cgroup: &str| family.write(cgroup, file, |_| format!("some {none}77\nfull {none}7\n"));
        family.above(rest);
        rest(&path);
    }
    let more = |f: &Family, cgroup: &str, by| f.write(cgroup, "cpu.pressure", |t| raise(t, "total=", by));
    let more_above = |f: &Family, by| {
        f.above(|cgroup| more(f, cgroup, by));
        more(f, "/", by);
    };
    let total = |row: &CgroupSample| number(row.pressure.cpu.some_usec);
    // Averages may still have to be made of what has just been seen.
    let began = family.tick();
    more(&family, &path, 1);
    assert_eq!(total(&family.tick()), total(&began) + 1);
    std::thread::park_timeout(Duration::from_millis(4500));
    family.tick();
    family.tick();
    family.stands(|f, by| more(f, &path, by), total);
    // The pod's has moved.
    let before = total(&family.tick());
    more(&family, &path, 10);
    more_above(&family, 10);
    let moved = total(&family.tick());
    assert!(moved >= before + 10, "{moved} {before}");
    // For four seconds after that it is read in any case.
    more(&family, &path, 1);
    assert_eq!(total(&family.tick()), moved + 1);
    std::thread::park_timeout(Duration::from_millis(4500));
    // An average that falls is read too.
    family.write(&path, "io.pressure", |text| average(text, "1.25"));
    more_above(&family, 1);
    family.tick();
    family.write(&path, "io.pressure", |text| average(text, "1.05"));
    let falls = family.tick().pressure.io.some_average.unwrap();
    assert_eq!(falls.avg10, 105);
}

#[test]
fn io_below_who_had_none() {
    for (capture, file, key) in [
        ("v1-6.1", "blkio.throttle.io_service_bytes_recursive", "Read "),
        ("v2-systemd-6.12", "io.stat", "rbytes="),
    ] {
        let mut family = Family::new(capture, |r| r.io.iter().any(|d| d.bytes.read.is_some()));
        let path = family.path.clone();
        let more = |f: &Family, cgroup: &str, by| f.write(cgroup, file, |text| raise(text, key, by));
        let read =
            |row: &CgroupSample| row.io.iter().filter_map(|d| d.bytes.read).map(u64::from).sum::<u64>();
        family.stands(|f, by| more(f, &path, by), read);
        let before = read(&family.tick());
        more(&family, &path, 10);
        family.above(|cgroup| more(&family, cgroup, 10));
        assert!(read(&family.tick()) >= before + 10, "{capture}");
        assert!(!family.tick().io.is_empty(), "{capture}");
    }
}
