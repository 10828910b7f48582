//! A real cgroup, made by the cgroups-rs crate, and the kernel's files of it.

use std::path::{Path, PathBuf};

use cgroups_rs::CgroupPid;
use cgroups_rs::fs::{Cgroup, hierarchies};
use nodegauge::kernel::Roots;
use nodegauge::kernel::cgroup::Layout;
use nodegauge::kernel::file::Buffer;

pub struct Group {
    pub cgroup: Cgroup,
    pub name: String,
    layout: Layout,
}

impl Group {
    pub fn create(name: &str) -> Group {
        let layout = Layout::detect(&Roots::new(Path::new("/")), &mut Buffer::new()).expect("a cgroup mount");
        let name = format!("nglive{}-{name}", std::process::id());
        let controllers = ["cpu", "cpuacct", "memory", "blkio", "pids"].map(str::to_owned).to_vec();
        let hierarchy = hierarchies::auto();
        let cgroup = if layout.is_v2() {
            Cgroup::new(hierarchy, &name)
        } else {
            Cgroup::new_with_specified_controllers(hierarchy, &name, Some(controllers))
        };
        let group = Group { cgroup: cgroup.expect("root, to make cgroups"), name, layout };
        if let Some(unified) = group.unified() {
            std::fs::create_dir_all(unified).unwrap();
        }
        group
    }

    pub fn id(&self) -> String {
        format!("/{}", self.name)
    }

    pub fn is_v2(&self) -> bool {
        self.layout.is_v2()
    }

    /// The directory in the v2 tree, where there is one.
    pub fn unified(&self) -> Option<PathBuf> {
        let tree = self.layout.unified()?;
        Some(self.layout.trees[tree.index()].path.join(&self.name))
    }

    /// A file of this cgroup, by controller.
    pub fn file(&self, controller: &str, name: &str) -> PathBuf {
        let tree = self.layout.tree_for(controller).unwrap_or_else(|| panic!("no {controller}"));
        self.layout.trees[tree.index()].path.join(&self.name).join(name)
    }

    pub fn text(&self, controller: &str, name: &str) -> String {
        let path = self.file(controller, name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    pub fn number(&self, controller: &str, name: &str) -> f64 {
        self.text(controller, name).trim().parse().unwrap()
    }

    /// The value of a key in a flat keyed file.
    pub fn key(&self, controller: &str, name: &str, key: &str) -> f64 {
        let text = self.text(controller, name);
        let value = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {key} in {name}")).trim().parse().unwrap()
    }

    pub fn write(&self, controller: &str, name: &str, value: &str) {
        std::fs::write(self.file(controller, name), value).unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    pub fn add(&self, pid: u32) {
        self.cgroup.add_task_by_tgid(CgroupPid::from(u64::from(pid))).expect("the process joins");
        if !self.is_v2()
            && let Some(unified) = self.unified()
        {
            std::fs::write(unified.join("cgroup.procs"), pid.to_string()).unwrap();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that just ended may still be leaving.
        for _ in 0..50 {
            if let Some(unified) = self.unified() {
                let _ = std::fs::remove_dir(unified);
            }
            if self.cgroup.delete().is_ok() && !self.cgroup.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
