//! Live cgroups for the benchmarks: made below one directory, removed on drop.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodegauge::collect::sampler::{Options, Sampler};
use nodegauge::kernel::cgroup::Layout;
use nodegauge::kernel::file::{self, Buffer};
use nodegauge::kernel::{Roots, handles};
use nodegauge::snapshot::{Cgroup, Hierarchy, Kinds};

pub struct LiveCgroups {
    pub layout: Layout,
    trees: Vec<PathBuf>,
    count: usize,
}

impl LiveCgroups {
    /// Makes `count` cgroups in every tree that is read; needs root.
    pub fn create(count: usize) -> LiveCgroups {
        let layout = Layout::detect(&Roots::new(Path::new("/")), &mut Buffer::new()).expect("a cgroup mount");
        let name = format!("ngbench{}", std::process::id());
        let trees: Vec<PathBuf> = layout.trees.iter().map(|t| t.path.join(&name)).collect();
        for (tree, root) in trees.iter().zip(&layout.trees) {
            fs::create_dir_all(tree).expect("root, to make cgroups");
            if root.v2 && layout.hierarchy == Hierarchy::V2 {
                let controllers = fs::read_to_string(tree.join("cgroup.controllers")).unwrap();
                for controller in controllers.split_whitespace() {
                    fs::write(tree.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
                }
            }
            for index in 0..count {
                fs::create_dir_all(tree.join(child(index))).unwrap();
            }
        }
        LiveCgroups { layout, trees, count }
    }

    pub fn directory(&self, tree: usize, index: usize) -> PathBuf {
        self.trees[tree].join(child(index))
    }
}

fn child(index: usize) -> String {
    format!("c{index:05}")
}

impl Drop for LiveCgroups {
    fn drop(&mut self) {
        for tree in &self.trees {
            for index in 0..self.count {
                let _ = fs::remove_dir(tree.join(child(index)));
            }
            let _ = fs::remove_dir(tree);
        }
    }
}

pub fn sampler(descriptors: u64) -> Sampler {
    let options = Options {
        kinds: Kinds::DEFAULT,
        on_request: Kinds::NONE,
        handle_memory: 24 << 20,
        descriptors,
        max_cgroups: 20_000,
        disk_usage: 0,
    };
    let describe = Box::new(|path: String, created| {
        Arc::new(Cgroup { labels: format!("id=\"{path}\""), path, created, ..Cgroup::default() })
    });
    Sampler::new(Roots::new(Path::new("/")), options, describe).expect("a sampler of this host")
}

pub fn descriptors() -> u64 {
    handles::raise_descriptor_limit()
}

/// The v2 tree of a hybrid host, in the place of a controller.
const UNIFIED: &str = "unified";

/// The files the default kinds read each tick, in the collectors' order, as
/// (controller on v1, name). `once in ten` are the limits.
const V1_TICK: [(&str, &str); 14] = [
    ("memory", "memory.stat"),
    ("memory", "memory.usage_in_bytes"),
    ("memory", "memory.max_usage_in_bytes"),
    ("memory", "memory.failcnt"),
    ("memory", "memory.kmem.usage_in_bytes"),
    ("cpuacct", "cpuacct.usage"),
    ("cpuacct", "cpuacct.stat"),
    ("cpu", "cpu.stat"),
    ("blkio", "blkio.throttle.io_service_bytes_recursive"),
    ("blkio", "blkio.throttle.io_serviced_recursive"),
    (UNIFIED, "cpu.pressure"),
    (UNIFIED, "memory.pressure"),
    (UNIFIED, "io.pressure"),
    ("memory", "memory.oom_control"),
];
const V1_SLOW: [(&str, &str); 8] = [
    ("cpu", "cpu.cfs_period_us"),
    ("cpu", "cpu.cfs_quota_us"),
    ("cpu", "cpu.cfs_burst_us"),
    ("cpu", "cpu.shares"),
    ("memory", "memory.limit_in_bytes"),
    ("memory", "memory.memsw.limit_in_bytes"),
    ("memory", "memory.soft_limit_in_bytes"),
    ("pids", "pids.max"),
];
const V2_TICK: [&str; 11] = [
    "memory.stat",
    "memory.current",
    "memory.swap.current",
    "memory.peak",
    "memory.events",
    "cpu.stat",
    "io.stat",
    "cpu.pressure",
    "memory.pressure",
    "io.pressure",
    "memory.events.local",
];
const V2_SLOW: [&str; 9] = [
    "cpu.max",
    "cpu.max.burst",
    "cpu.weight",
    "memory.max",
    "memory.swap.max",
    "memory.low",
    "memory.high",
    "memory.min",
    "pids.max",
];

enum Access {
    Held(OwnedFd),
    /// Below the handle of that directory.
    Reopened(Arc<OwnedFd>, std::ffi::CString),
}

/// The least a tick could do: the same files of the same cgroups in the same
/// order, as many through held handles, the rest opened below a held directory,
/// one read each into one buffer, nothing parsed.
pub struct Floor {
    tick: Vec<Access>,
    slow: Vec<Access>,
    turn: usize,
    buffer: Buffer,
    pub bytes: usize,
}

impl Floor {
    pub fn new(live: &LiveCgroups, mut held: u64) -> Floor {
        let v2 = live.layout.hierarchy == Hierarchy::V2;
        let tree_of = |controller: &str| {
            let layout = &live.layout;
            let tree = if controller == UNIFIED { layout.unified() } else { layout.tree_for(controller) };
            tree.map(|t| t.index())
        };
        let named =
            |list: &[(&'static str, &'static str)], v2_list: &[&'static str]| -> Vec<(usize, &'static str)> {
                if v2 {
                    return v2_list.iter().map(|name| (0, *name)).collect();
                }
                list.iter().filter_map(|(c, name)| Some((tree_of(c)?, *name))).collect()
            };
        let directories: Vec<Vec<Arc<OwnedFd>>> = (0..live.layout.trees.len())
            .map(|tree| {
                let open = |index| Arc::new(file::open_directory(&live.directory(tree, index)).unwrap());
                (0..live.count).map(open).collect()
            })
            .collect();
        let mut list = |files: Vec<(usize, &str)>, hold: bool| {
            let mut accesses = Vec::new();
            for (tree, name) in files {
                for directory in &directories[tree] {
                    let name = std::ffi::CString::new(name).unwrap();
                    let Ok(fd) = file::open_at(directory.as_fd(), name.as_c_str()) else { continue };
                    accesses.push(if hold && held > 0 {
                        held -= 1;
                        Access::Held(fd)
                    } else {
                        Access::Reopened(Arc::clone(directory), name)
                    });
                }
            }
            accesses
        };
        let tick = list(named(&V1_TICK, &V2_TICK), true);
        let slow = list(named(&V1_SLOW, &V2_SLOW), false);
        Floor { tick, slow, turn: 0, buffer: Buffer::new(), bytes: 0 }
    }

    pub fn files(&self) -> (usize, usize) {
        let held = self.tick.iter().filter(|a| matches!(a, Access::Held(_))).count();
        (held, self.tick.len() - held)
    }

    pub fn pass(&mut self) {
        let Floor { tick, slow, turn, buffer, bytes } = self;
        let mut read = |access: &Access| {
            *bytes += match access {
                Access::Held(fd) => buffer.fill_at_once(fd.as_fd()).unwrap_or(0),
                Access::Reopened(directory, name) => {
                    let fd = file::open_at(directory.as_fd(), name.as_c_str()).unwrap();
                    buffer.fill_at_once(fd.as_fd()).unwrap_or(0)
                }
            };
        };
        tick.iter().for_each(&mut read);
        *turn += 1;
        slow.iter().skip(*turn % 10).step_by(10).for_each(&mut read);
    }
}
