//! Measures all that one container or pod keeps on disks, step by step.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Stat, fstat};

use super::layer::{Finder, Layer};
use super::place::{Place, names, open_below, read_error, space};
use super::walk::{Scope, Step, Totals, Walk};
use crate::collect::sampler::wall_ms;
use crate::kernel::ReadError;
use crate::snapshot::{Cgroup, DiskPart, DiskUsage, FilesystemSpace, LogDirectory, VolumeUsage};

/// Volumes that lie on the node, by the directory the kubelet has them in.
const PLUGINS: [(&str, &str); 5] = [
    ("kubernetes.io~empty-dir", "empty-dir"),
    ("kubernetes.io~configmap", "configmap"),
    ("kubernetes.io~secret", "secret"),
    ("kubernetes.io~projected", "projected"),
    ("kubernetes.io~downward-api", "downward-api"),
];

/// Volumes measured of one pod, by type.
const MAX_VOLUMES: usize = 256;

/// Filesystems whose `statfs` tells a directory's project quota: ext4 and XFS.
const WITH_PROJECTS: [u64; 2] = [0xEF53, 0x5846_5342];

/// Who is measured.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    /// The node's id.
    pub(super) id: u64,
    pub(super) cgroup: Arc<Cgroup>,
    /// Its directory below the mount of a cgroup tree.
    pub(super) relative: Arc<CStr>,
}

/// What a part of the measurement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Layer,
    Logs,
    Volume { name: String, plugin: &'static str, mounted: bool },
}

/// One thing to do.
#[derive(Debug)]
enum Task {
    FindLayer,
    ListVolumes(PathBuf),
    Tree(What, PathBuf, Scope),
    Whole(What, PathBuf),
}

/// A tree being walked.
#[derive(Debug)]
struct Walking {
    walk: Walk,
    what: What,
    device: Arc<str>,
    space: FilesystemSpace,
}

/// A measurement under way.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) subject: Arc<Subject>,
    /// Where the layer is, once that was found.
    pub(super) layer: Option<Layer>,
    tasks: VecDeque<Task>,
    walking: Option<Walking>,
    /// The last measurement: what cannot be measured now keeps its figure.
    before: Arc<DiskUsage>,
    /// What was found so far.
    pub(super) usage: DiskUsage,
    /// Places that could not be measured.
    pub(super) troubles: Vec<(PathBuf, ReadError)>,
}

impl Survey {
    pub(super) fn new(subject: Arc<Subject>, layer: Option<Layer>, before: Arc<DiskUsage>) -> Survey {
        let storage = &subject.cgroup.storage;
        let layer_task = storage.layer.then(|| layer.clone().map_or(Task::FindLayer, Task::of_layer));
        let logs = storage.logs.clone().map(|logs| match logs {
            LogDirectory::Files(path) => Task::Tree(What::Logs, path, Scope::Files),
            LogDirectory::Tree(path) => Task::Tree(What::Logs, path, Scope::Tree),
        });
        let volumes = storage.volumes.clone().map(Task::ListVolumes);
        let tasks = [layer_task, logs, volumes].into_iter().flatten().collect();
        Survey {
            subject,
            layer,
            tasks,
            walking: None,
            before,
            usage: DiskUsage::default(),
            troubles: Vec::new(),
        }
    }

    /// Closes everything until the next step.
    pub(super) fn suspend(&mut self) {
        if let Some(walking) = &mut self.walking {
            walking.walk.suspend();
        }
    }

    /// Does one small thing.
    pub(super) fn step(&mut self, finder: &mut Finder) -> Step {
        if let Some(walking) = &mut self.walking {
            let step = walking.walk.step();
            if step == Ok(Step::More) {
                return Step::More;
            }
            if let Some(Walking { walk, what, device, space }) = self.walking.take() {
                match step {
                    Ok(_) => self.found(what, part(walk.totals(), device, space)),
                    Err(error) => self.failed(what, walk.place().path.clone(), error),
                }
            }
            return Step::More;
        }
        match self.tasks.pop_front() {
            None => return Step::Done,
            Some(Task::FindLayer) => match finder.layer(&self.subject.relative) {
                Ok(Some(layer)) => {
                    self.layer = Some(layer.clone());
                    self.tasks.push_front(Task::of_layer(layer));
                }
                // It has no process, or not its own root yet: tried again next time.
                Ok(None) => {}
                Err(error) => self.failed(What::Layer, PathBuf::from(&self.subject.cgroup.path), error),
            },
            Some(Task::ListVolumes(path)) => match volumes(finder, &path) {
                Ok(tasks) => self.tasks.extend(tasks),
                Err(error) => self.troubles.push((path, error)),
            },
            Some(Task::Tree(what, path, scope)) => {
                if let Err(error) = self.begin(finder, &what, &path, scope) {
                    self.failed(what, path, error);
                }
            }
            Some(Task::Whole(what, path)) => match whole(finder, &path) {
                Ok(part) => self.found(what, part),
                Err(error) => self.failed(what, path, error),
            },
        }
        Step::More
    }

    fn begin(
        &mut self,
        finder: &mut Finder,
        what: &What,
        path: &Path,
        scope: Scope,
    ) -> Result<(), ReadError> {
        let place = at(finder, path);
        let root = place.open()?;
        let stat = fstat(&root).map_err(read_error)?;
        let (space, used) = by_quota(finder, path, &root, &stat, scope)?;
        let device = finder.device(path, stat.st_dev);
        if let Some((bytes, inodes)) = used {
            let totals = Totals { bytes, inodes: 0, skipped: 0 };
            self.found(what.clone(), DiskPart { inodes, ..part(totals, device, space) });
        } else {
            let walk = Walk::new(place, root, scope)?;
            self.walking = Some(Walking { walk, what: what.clone(), device, space });
        }
        Ok(())
    }

    fn found(&mut self, what: What, part: DiskPart) {
        match what {
            What::Layer => self.usage.layer = Some(part),
            What::Logs => self.usage.logs = Some(part),
            What::Volume { name, plugin, mounted } => {
                self.usage.volumes.push(VolumeUsage { name, plugin, mounted, usage: part });
            }
        }
    }

    /// What is gone has no figure; what cannot be measured now keeps the last one.
    fn failed(&mut self, what: What, path: PathBuf, error: ReadError) {
        self.troubles.push((path, error));
        if error == ReadError::Gone {
            if what == What::Layer {
                self.layer = None;
            }
            return;
        }
        match what {
            What::Layer => self.usage.layer.clone_from(&self.before.layer),
            What::Logs => self.usage.logs.clone_from(&self.before.logs),
            What::Volume { name, .. } => {
                let before = self.before.volumes.iter().find(|v| v.name == name).cloned();
                self.usage.volumes.extend(before);
            }
        }
    }
}

impl Task {
    fn of_layer(layer: Layer) -> Task {
        match layer {
            Layer::Tree(path) => Task::Tree(What::Layer, path, Scope::Tree),
            Layer::Whole(path) => Task::Whole(What::Layer, path),
        }
    }
}

pub(super) fn at(finder: &Finder, path: &Path) -> Place {
    Place { host_root: finder.roots.host.clone(), path: path.to_path_buf() }
}

fn part(totals: Totals, device: Arc<str>, space: FilesystemSpace) -> DiskPart {
    DiskPart {
        used_bytes: totals.bytes,
        inodes: Some(totals.inodes),
        skipped_directories: totals.skipped,
        measured_ms: wall_ms(),
        device,
        space,
    }
}

/// A filesystem of its own.
fn whole(finder: &mut Finder, path: &Path) -> Result<DiskPart, ReadError> {
    let root = at(finder, path).open()?;
    let device = fstat(&root).map_err(read_error)?.st_dev;
    let (space, _) = space(&root)?;
    let inodes = space.inodes.zip(space.inodes_free).map(|(all, free)| all.saturating_sub(free));
    let totals = Totals { bytes: space.usage_bytes, inodes: 0, skipped: 0 };
    Ok(DiskPart { inodes, ..part(totals, finder.device(path, device), space) })
}

/// The pod's volumes on the node; what is mounted there, as the kubelet mounts
/// those in memory, is asked as a filesystem.
fn volumes(finder: &Finder, path: &Path) -> Result<Vec<Task>, ReadError> {
    let root = at(finder, path).open()?;
    let device = fstat(&root).map_err(read_error)?.st_dev;
    let mut tasks = Vec::new();
    for (directory, plugin) in PLUGINS {
        let Ok(opened) = open_below(&root, &CString::new(directory).unwrap_or_default()) else { continue };
        for name in names(&opened, MAX_VOLUMES)? {
            let Ok(volume) = open_below(&opened, &name) else { continue };
            let mounted = fstat(&volume).map_err(read_error)?.st_dev != device;
            let path = path.join(directory).join(OsStr::from_bytes(name.to_bytes()));
            let what = What::Volume { name: name.to_string_lossy().into_owned(), plugin, mounted };
            tasks.push(match mounted {
                true => Task::Whole(what, path),
                false => Task::Tree(what, path, Scope::Tree),
            });
        }
    }
    Ok(tasks)
}

/// Bytes and inodes that a project quota counts.
type Counted = (u64, Option<u64>);

/// Space of the filesystem that holds a tree and, where the tree is a project of
/// its own with a limit, what the quota has counted.
///
/// `quotactl` would need CAP_SYS_ADMIN, but `statfs` of a directory that passes
/// its project on shows the project as if it were a filesystem, to anybody. A
/// project that begins further up counts more than the tree, so the directory
/// two levels up must show the whole filesystem; runtimes give the project to
/// the directory above the layer.
fn by_quota(
    finder: &Finder,
    path: &Path,
    root: &OwnedFd,
    stat: &Stat,
    scope: Scope,
) -> Result<(FilesystemSpace, Option<Counted>), ReadError> {
    let (own, magic) = space(root)?;
    let above = path.parent().and_then(Path::parent).filter(|above| *above != Path::new("/"));
    if scope != Scope::Tree || !WITH_PROJECTS.contains(&magic) {
        return Ok((own, None));
    }
    let around = above.and_then(|above| {
        let opened = at(finder, above).open().ok()?;
        let same = fstat(&opened).is_ok_and(|s| s.st_dev == stat.st_dev);
        same.then(|| space(&opened).ok())?.map(|(space, _)| space)
    });
    Ok(around.map_or((own, None), |around| (around, counted(&own, &around))))
}

fn counted(own: &FilesystemSpace, around: &FilesystemSpace) -> Option<Counted> {
    let limited = own.capacity_bytes < around.capacity_bytes;
    let inodes = own.inodes.zip(own.inodes_free).filter(|_| own.inodes < around.inodes);
    limited.then(|| (own.usage_bytes, inodes.map(|(all, free)| all.saturating_sub(free))))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::kernel::Roots;
    use crate::snapshot::Storage;

    fn finish(storage: Storage, before: DiskUsage) -> Survey {
        let cgroup = Arc::new(Cgroup { storage, ..Cgroup::default() });
        let subject = Subject { id: 1, cgroup, relative: c"none".into() };
        let mut finder = Finder::new(Roots::new("/".as_ref()), "/nonexistent".into());
        let mut survey = Survey::new(Arc::new(subject), None, Arc::new(before));
        while survey.step(&mut finder) == Step::More {}
        survey
    }

    #[test]
    fn volumes_by_name_and_logs_by_file() {
        let pod = tempfile::tempdir().unwrap();
        let volumes = pod.path().join("volumes");
        for (plugin, name) in [("empty-dir", "cache"), ("configmap", "settings"), ("nfs", "remote")] {
            let volume = volumes.join(format!("kubernetes.io~{plugin}")).join(name);
            fs::create_dir_all(volume.join("below")).unwrap();
            fs::write(volume.join("below/file"), vec![1; 100_000]).unwrap();
        }
        let outside = pod.path().join("outside");
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, volumes.join("kubernetes.io~empty-dir/link")).unwrap();
        fs::write(pod.path().join("0.log"), vec![1; 5000]).unwrap();
        let survey = finish(
            Storage {
                layer: true,
                logs: Some(LogDirectory::Files(pod.path().into())),
                volumes: Some(volumes),
            },
            DiskUsage::default(),
        );
        let mut found: Vec<_> =
            survey.usage.volumes.iter().map(|v| (v.name.as_str(), v.plugin, v.mounted)).collect();
        found.sort_unstable();
        assert_eq!(found, [("cache", "empty-dir", false), ("settings", "configmap", false)]);
        for volume in &survey.usage.volumes {
            assert!(volume.usage.used_bytes >= 100_000 && volume.usage.inodes == Some(3), "{volume:?}");
            assert!(volume.usage.space.capacity_bytes > 0 && !volume.usage.device.is_empty());
        }
        assert_eq!(survey.usage.logs.as_ref().unwrap().inodes, Some(1));
        // Its cgroup has no process.
        assert_eq!((survey.usage.layer, survey.troubles.len()), (None, 0));
    }

    #[test]
    fn what_is_gone_has_no_figure() {
        let logs = Some(LogDirectory::Tree("/nonexistent/logs".into()));
        let old = part(Totals::default(), "/dev/vda".into(), FilesystemSpace::default());
        let before = DiskUsage { logs: Some(old), ..DiskUsage::default() };
        let survey = finish(Storage { logs, ..Storage::default() }, before);
        assert_eq!(survey.usage, DiskUsage::default());
        assert_eq!(survey.troubles, [("/nonexistent/logs".into(), ReadError::Gone)]);
    }

    #[test]
    fn a_project_with_a_limit_counts_its_tree() {
        let around = FilesystemSpace {
            capacity_bytes: 1000,
            usage_bytes: 700,
            available_bytes: 300,
            inodes: Some(100),
            inodes_free: Some(40),
        };
        let own = FilesystemSpace { capacity_bytes: 200, usage_bytes: 50, ..around };
        assert_eq!(counted(&own, &around), Some((50, None)));
        let own = FilesystemSpace { inodes: Some(10), inodes_free: Some(7), ..own };
        assert_eq!(counted(&own, &around), Some((50, Some(3))));
        assert_eq!(counted(&around, &around), None);
    }
}
