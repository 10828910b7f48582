//! Kernel files that are not as they should be: the other figures of the cgroup
//! and all of the other cgroups stay complete and right, and it is counted.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodegauge::collect::sampler::{Options, Sampler};
use nodegauge::kernel::Roots;
use nodegauge::snapshot::{Cgroup, CgroupSample, Kind, Kinds, Origin, Snapshot};

use crate::ttar;

pub(crate) fn sampler(root: &Path) -> Sampler {
    let options = Options {
        on_request: Kinds::NONE,
        kinds: Kind::ALL.into_iter().fold(Kinds::NONE, Kinds::with),
        handle_memory: 16 << 20,
        descriptors: 1024,
        max_cgroups: 1000,
        disk_usage: 0,
    };
    let describe = Box::new(|path: String, created| {
        Arc::new(Cgroup { labels: path.clone(), path, created, ..Cgroup::default() })
    });
    Sampler::new(Roots::new(root), options, describe).unwrap()
}

fn errors(sampler: &Sampler) -> u64 {
    sampler.report().collectors.iter().map(|c| c.errors.total()).sum()
}

pub(crate) fn tick(sampler: &mut Sampler) -> Arc<Snapshot> {
    let mut snapshot = sampler.blank();
    sampler.tick(Origin::Grid, &mut snapshot);
    let snapshot = Arc::new(snapshot);
    sampler.published(&snapshot);
    snapshot
}

/// A row as JSON, so that rows can be compared figure by figure.
fn figures(row: &CgroupSample) -> serde_json::Map<String, serde_json::Value> {
    let serde_json::Value::Object(map) = serde_json::to_value(row).unwrap() else { unreachable!() };
    map
}

/// Every figure of `damaged` is that of `whole`, or absent.
fn no_other_figure(whole: &serde_json::Value, damaged: &serde_json::Value, at: &str) {
    use serde_json::Value;
    match (whole, damaged) {
        (_, Value::Null) => {}
        (Value::Object(whole), Value::Object(damaged)) => {
            for (key, value) in damaged {
                no_other_figure(whole.get(key).unwrap_or(&Value::Null), value, &format!("{at}.{key}"));
            }
        }
        (Value::Array(whole), Value::Array(damaged)) => {
            for value in damaged {
                let known = whole.contains(value)
                    || whole
                        .iter()
                        .any(|w| std::panic::catch_unwind(|| no_other_figure(w, value, at)).is_ok());
                assert!(known, "{at}: {value} was not there");
            }
        }
        _ => assert_eq!(whole, damaged, "{at}"),
    }
}

/// The per-cgroup files of one cgroup.
fn files(cgroup: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cgroup).unwrap().flatten().map(|e| e.path());
    let mut files: Vec<PathBuf> = entries.filter(|p| p.is_file()).collect();
    files.sort();
    files
}

/// What can be wrong with a file: empty, cut, binary, words, too much, not to be
/// opened, gone.
type Damage = (&'static str, fn(&Path, &[u8]));
const DAMAGES: [Damage; 7] = [
    ("empty", |path, _| fs::write(path, b"").unwrap()),
    ("cut", |path, text| fs::write(path, &text[..text.len() / 2]).unwrap()),
    ("binary", |path, _| fs::write(path, [0xff, 0, 0x80, b'\n', 0xfe, b' ', 7]).unwrap()),
    ("words", |path, _| fs::write(path, b"total nonsense\nhere\n").unwrap()),
    ("too much", |path, _| fs::write(path, vec![b'7'; 5 << 20]).unwrap()),
    ("a loop", |path, _| {
        fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink(path, path).unwrap();
    }),
    ("gone", |path, _| fs::remove_file(path).unwrap()),
];

#[test]
fn a_damaged_file_costs_its_own_figures_only() {
    let tree = ttar::unpack("v2-systemd-6.12");
    let whole = tick(&mut sampler(tree.path()));
    // A leaf with figures in every subject.
    let victim =
        whole.cgroups.iter().find(|r| r.leaf && r.cpu.throttled_ns.is_some_and(|v| v.get() > 0)).unwrap();
    let directory = tree.path().join("sys/fs/cgroup").join(victim.cgroup.path.trim_start_matches('/'));
    let mut counted = 0;
    let mut tried = 0;
    for file in files(&directory) {
        // Without it the directory is no cgroup.
        if file.file_name().is_some_and(|n| n == "cgroup.procs") {
            continue;
        }
        let text = fs::read(&file).unwrap();
        for (damage, apply) in DAMAGES {
            tried += 1;
            // On a real kernel a damaged file does not make the cgroup younger.
            let made = fs::metadata(&directory).and_then(|m| m.modified()).unwrap();
            apply(&file, &text);
            fs::File::open(&directory).and_then(|d| d.set_modified(made)).unwrap();
            let mut sampler = sampler(tree.path());
            let damaged = tick(&mut sampler);
            let at = format!("{} {damage}", file.display());
            assert_eq!(damaged.cgroups.len(), whole.cgroups.len(), "{at}");
            for (before, after) in whole.cgroups.iter().zip(&damaged.cgroups) {
                assert_eq!(before.cgroup.path, after.cgroup.path, "{at}");
                let (before, after) = (figures(before), figures(after));
                for (key, value) in &after {
                    // Half a number is a number: cut files may show one.
                    if before["id"] == *victim.cgroup.path
                        && damage != "cut"
                        && damage != "too much"
                        && key != "created"
                    {
                        no_other_figure(&before[key], value, &format!("{at}: {key}"));
                    } else if before["id"] != *victim.cgroup.path {
                        assert_eq!(before[key], *value, "{at}: {key} of another cgroup");
                    }
                }
            }
            counted += u32::from(errors(&sampler) > 0);
            if file.is_symlink() {
                fs::remove_file(&file).unwrap();
            }
            fs::write(&file, &text).unwrap();
            fs::File::open(&directory).and_then(|d| d.set_modified(made)).unwrap();
        }
    }
    println!("{tried} damages, {counted} counted as errors");
    assert!(tried > 150 && counted > 50, "{tried} tried, {counted} counted");
}

#[test]
fn a_file_that_heals_has_its_figure_again() {
    let tree = ttar::unpack("v1-6.1");
    let mut sampler = sampler(tree.path());
    let first = tick(&mut sampler);
    let row =
        first.cgroups.iter().position(|r| r.leaf && r.memory.usage.is_some_and(|v| v.get() > 0)).unwrap();
    let path = first.cgroups[row].cgroup.path.clone();
    let file = tree.path().join("sys/fs/cgroup/memory").join(&path[1..]).join("memory.usage_in_bytes");
    let text = fs::read(&file).unwrap();
    // In place, since the handle is held.
    fs::write(&file, "junk\n").unwrap();
    let broken = tick(&mut sampler);
    assert_eq!(broken.cgroups[row].memory.usage, None);
    assert_eq!(broken.cgroups[row].memory.working_set, None);
    assert_eq!(broken.cgroups[row].memory.rss, first.cgroups[row].memory.rss);
    let report = sampler.report().collectors.iter().find(|c| c.name == "memory").unwrap();
    assert_eq!(report.errors.malformed, 1);
    fs::write(&file, text).unwrap();
    assert_eq!(tick(&mut sampler).cgroups[row].memory.usage, first.cgroups[row].memory.usage);
}

#[test]
fn a_removed_directory_takes_its_row_and_no_other() {
    let tree = ttar::unpack("v2-systemd-6.12");
    let mut sampler = sampler(tree.path());
    let first = tick(&mut sampler);
    let leaf = first.cgroups.iter().find(|r| r.leaf).unwrap().cgroup.path.clone();
    fs::remove_dir_all(tree.path().join("sys/fs/cgroup").join(&leaf[1..])).unwrap();
    let second = tick(&mut sampler);
    assert_eq!(second.cgroups.len(), first.cgroups.len() - 1);
    assert!(second.cgroups.iter().all(|r| r.cgroup.path != leaf));
}

#[test]
fn the_limit_of_cgroups_is_kept_and_counted() {
    let tree = ttar::unpack("v2-systemd-6.12");
    let all = tick(&mut sampler(tree.path())).cgroups.len();
    let options = Options {
        kinds: Kinds::DEFAULT,
        on_request: Kinds::NONE,
        handle_memory: 0,
        descriptors: 256,
        max_cgroups: 3,
        disk_usage: 0,
    };
    let describe = Box::new(|path: String, created| {
        Arc::new(Cgroup { labels: path.clone(), path, created, ..Cgroup::default() })
    });
    let mut few = Sampler::new(Roots::new(tree.path()), options, describe).unwrap();
    assert_eq!(tick(&mut few).cgroups.len(), 3);
    assert!(few.report().tree.over_limit > 0);
    assert!(all > 3);
    assert_eq!(few.report().handles.files, 0, "no memory for handles means none");
}

#[test]
fn a_look_finds_a_new_cgroup_and_the_next_tick_reads_all_of_it() {
    let tree = ttar::unpack("v2-systemd-6.12");
    let (told, described) = std::sync::mpsc::channel();
    let describe = Box::new(move |path: String, created| {
        told.send(path.clone()).unwrap();
        Arc::new(Cgroup { labels: path.clone(), path, created, ..Cgroup::default() })
    });
    let options = Options {
        kinds: Kinds::DEFAULT,
        on_request: Kinds::NONE,
        handle_memory: 16 << 20,
        descriptors: 1024,
        max_cgroups: 1000,
        disk_usage: 0,
    };
    let mut sampler = Sampler::new(Roots::new(tree.path()), options, describe).unwrap();
    let first = tick(&mut sampler);
    assert_eq!(described.try_iter().count(), first.cgroups.len());
    sampler.look();
    assert_eq!(described.try_iter().count(), 0, "nothing was new");
    // A copy of a container's cgroup, beside it.
    let limited = |r: &&CgroupSample| r.leaf && r.spec.memory_limit.is_some();
    let leaf = first.cgroups.iter().find(limited).unwrap();
    let root = tree.path().join("sys/fs/cgroup");
    let (old, new) = (root.join(&leaf.cgroup.path[1..]), root.join("new"));
    fs::create_dir(&new).unwrap();
    for file in files(&old) {
        fs::copy(&file, new.join(file.file_name().unwrap())).unwrap();
    }
    (0..3).for_each(|_| sampler.look());
    assert_eq!(described.try_iter().collect::<Vec<_>>(), ["/new"]);
    let second = tick(&mut sampler);
    let row = second.cgroups.iter().find(|r| r.cgroup.path == "/new").unwrap();
    assert_eq!(row.spec.memory_limit, leaf.spec.memory_limit);
    assert_eq!(described.try_iter().count(), 0);
}

#[test]
fn directories_made_in_any_order_are_all_followed() {
    let tree = ttar::unpack("v1-6.1");
    let (told, described) = std::sync::mpsc::channel();
    let describe = Box::new(move |path: String, created| {
        told.send(path.clone()).unwrap();
        Arc::new(Cgroup { labels: path.clone(), path, created, ..Cgroup::default() })
    });
    let options = Options {
        kinds: Kinds::DEFAULT,
        on_request: Kinds::NONE,
        handle_memory: 0,
        descriptors: 1024,
        max_cgroups: 1000,
        disk_usage: 0,
    };
    let mut sampler = Sampler::new(Roots::new(tree.path()), options, describe).unwrap();
    tick(&mut sampler);
    let entries = fs::read_dir(tree.path().join("sys/fs/cgroup")).unwrap();
    let trees: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).filter(|p| !p.is_symlink()).collect();
    assert!(trees.len() > 5, "{trees:?}");
    let below = |tree: &Path, path: &str| tree.join("kubepods/burstable").join(path);
    for tree in &trees {
        fs::create_dir_all(below(tree, "")).unwrap();
    }
    tick(&mut sampler);
    for (number, late) in trees.iter().enumerate() {
        let make = |trees: &[PathBuf], path: &str| {
            trees.iter().for_each(|t| fs::create_dir(below(t, path)).unwrap());
        };
        let early: Vec<PathBuf> = trees.iter().filter(|t| *t != late).cloned().collect();
        let (pod, container) = (format!("pod{number}"), format!("pod{number}/container"));
        make(&early, &pod);
        // For which the directory of both is listed.
        make(&trees, &format!("{pod}-sibling"));
        tick(&mut sampler);
        fs::create_dir(below(late, &pod)).unwrap();
        tick(&mut sampler);
        make(&trees, &container);
        tick(&mut sampler);
        let found: Vec<String> = described.try_iter().collect();
        let container = format!("/kubepods/burstable/{container}");
        assert!(found.contains(&container), "made last in {}: {found:?}", late.display());
    }
}

/// What is not seen is absent: of processes in another pid namespace v2 says that they are there, v1 nothing.
#[test]
fn processes_of_other_pid_namespaces_are_not_nothing() {
    for (capture, procs, processes) in [("v2-systemd-6.12", "0\n0\n", Some(2)), ("v1-6.1", "", None)] {
        let tree = ttar::unpack(capture);
        let whole = tick(&mut sampler(tree.path()));
        let leaf = whole.cgroups.iter().find(|row| row.leaf && row.process.processes.is_some()).unwrap();
        let relative = leaf.cgroup.path.trim_start_matches('/').to_owned();
        let own = tree.path().join("proc/self/ns");
        fs::create_dir_all(&own).unwrap();
        let _ = fs::remove_file(own.join("pid"));
        std::os::unix::fs::symlink("pid:[4026532299]", own.join("pid")).unwrap();
        let hierarchies = tree.path().join("sys/fs/cgroup");
        let below = fs::read_dir(&hierarchies).unwrap().map(|entry| entry.unwrap().path());
        let directories = below.chain([hierarchies.clone()]).map(|top| top.join(&relative));
        for file in directories.map(|directory| directory.join("cgroup.procs")).filter(|file| file.exists()) {
            fs::write(file, procs).unwrap();
        }
        let now = tick(&mut sampler(tree.path()));
        let row = now.cgroups.iter().find(|row| row.cgroup.path == leaf.cgroup.path).unwrap();
        assert_eq!(row.process.processes.map(|n| n.get()), processes, "{capture}");
        assert_eq!((row.process.file_descriptors, row.process.sockets), (None, None), "{capture}");
    }
}
