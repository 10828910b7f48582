//! Cgroups as a kubelet makes them, in the hierarchy that has the memory controller.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nodegauge::kernel::Roots;
use nodegauge::kernel::cgroup::Layout;
use nodegauge::kernel::file::Buffer;

/// A directory of our own with cgroups below, all removed on drop.
pub struct Pods {
    mount: PathBuf,
    name: String,
    v2: bool,
    made: Vec<PathBuf>,
}

/// A container's id: `seed` in 64 digits.
pub fn container_id(seed: u32) -> String {
    format!("{:08x}{seed:056x}", std::process::id())
}

/// A pod's cgroup below its parent, as the cgroupfs driver calls it.
pub fn pod(seed: u32) -> String {
    format!("kubepods/pod{:08x}-0000-4000-8000-{seed:012x}", std::process::id())
}

impl Pods {
    pub fn create(name: &str) -> Pods {
        let layout = Layout::detect(&Roots::new(Path::new("/")), &mut Buffer::new()).expect("a cgroup mount");
        let tree = layout.tree_for("memory").expect("the memory controller");
        let mount = layout.trees[tree.index()].path.clone();
        let name = format!("nglive{}-{name}", std::process::id());
        let mut pods = Pods { mount, name, v2: layout.is_v2(), made: Vec::new() };
        pods.make("");
        pods
    }

    pub fn is_v2(&self) -> bool {
        self.v2
    }

    fn directory(&self, path: &str) -> PathBuf {
        self.mount.join(&self.name).join(path)
    }

    /// The `id` label of a cgroup.
    pub fn id(&self, path: &str) -> String {
        format!("/{}/{path}", self.name)
    }

    /// Makes a cgroup and those above it, each with the memory controller.
    pub fn make(&mut self, path: &str) {
        let directory = self.directory(path);
        let mut above: Vec<&Path> = directory.ancestors().take_while(|d| *d != self.mount).collect();
        above.reverse();
        for directory in above {
            if self.v2 {
                let parent = directory.parent().unwrap();
                std::fs::write(parent.join("cgroup.subtree_control"), "+memory").unwrap();
            }
            if !directory.is_dir() {
                std::fs::create_dir(directory).unwrap();
                self.made.push(directory.to_path_buf());
            }
        }
    }

    pub fn add(&self, path: &str, pid: u32) {
        std::fs::write(self.directory(path).join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// The most memory it may have, bytes; no swap, where that can be said.
    pub fn limit(&self, path: &str, bytes: u64) {
        let directory = self.directory(path);
        let file = if self.v2 { "memory.max" } else { "memory.limit_in_bytes" };
        std::fs::write(directory.join(file), bytes.to_string()).unwrap();
        let (file, value) = if self.v2 {
            ("memory.swap.max", "0".to_owned())
        } else {
            ("memory.memsw.limit_in_bytes", bytes.to_string())
        };
        let _ = std::fs::write(directory.join(file), value);
    }

    pub fn write(&self, path: &str, file: &str, value: &str) {
        std::fs::write(self.directory(path).join(file), value).unwrap();
    }

    /// Kills in the cgroup alone, as its kernel counter has them.
    pub fn kills(&self, path: &str) -> u64 {
        let file = if self.v2 { "memory.events.local" } else { "memory.oom_control" };
        let text = std::fs::read_to_string(self.directory(path).join(file)).unwrap();
        text.lines().find_map(|l| l.strip_prefix("oom_kill ")).expect("a counter").parse().unwrap()
    }

    /// Removes a cgroup as soon as its last process has left.
    pub fn remove(&mut self, path: &str) {
        let directory = self.directory(path);
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(error) = std::fs::remove_dir(&directory) {
            assert!(Instant::now() < deadline, "{}: {error}", directory.display());
            std::thread::sleep(Duration::from_millis(1));
        }
        self.made.retain(|made| *made != directory);
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for directory in self.made.iter().rev() {
            // A process that just ended may still be leaving.
            for _ in 0..100 {
                match std::fs::remove_dir(directory) {
                    Ok(()) => break,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        }
    }
}
