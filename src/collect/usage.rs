//! What each container and pod keeps on the host's disks: writable layer, logs,
//! volumes.
//!
//! Walking directories takes long, and can take for ever, so threads of their own
//! do it within a share of a core; ticks pick up the last results, each with its
//! own time. The reader thread only tells them which cgroups there are.

mod layer;
mod pace;
mod place;
mod survey;
mod walk;
mod worker;

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};

use super::{Collector, Context, Setup, Vanished};
use crate::kernel::cgroup::Layout;
use crate::kernel::tree::Node;
use crate::kernel::{ReadError, Roots};
use crate::snapshot::{CgroupSample, LogDirectory, Snapshot};
use layer::{Finder, Layer};
use survey::{Subject, Survey};
use worker::{Event, Means, Stop, Table, Worker};

/// How long one step may take before its thread is left behind. A directory of
/// 250 files on a slow disk takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Usage {
    events: Sender<Event>,
    table: Cache<Arc<ArcSwap<Table>>, Arc<Table>>,
    stop: Arc<Stop>,
    /// Tells whether the set of cgroups, or what one of them is, has changed.
    known: Option<u64>,
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    if setup.disk_usage == 0 {
        return None;
    }
    let cgroups = tree(setup.layout)?;
    let roots = setup.roots.clone();
    let stop = Arc::<Stop>::default();
    let means = Means {
        usec_per_second: setup.disk_usage,
        patience: PATIENCE,
        finder: Arc::new(move || Finder::new(roots.clone(), cgroups.clone())),
        advance: Arc::new(Survey::step),
        stop: Arc::clone(&stop),
    };
    start(means, stop)
}

/// Where every container has a cgroup.
fn tree(layout: &Layout) -> Option<PathBuf> {
    let tree =
        layout.controller("memory").or_else(|| layout.unified()).or_else(|| layout.controller("cpu"))?;
    layout.trees.get(tree.index()).map(|root| root.path.clone())
}

fn start(means: Means, stop: Arc<Stop>) -> Option<Box<dyn Collector>> {
    let table = Arc::new(ArcSwap::default());
    let (events, received) = channel();
    let worker = (means, events.clone(), Arc::clone(&table));
    let run = move || {
        let (means, events, table) = worker;
        Worker::new(means, events, table).run(&received);
    };
    thread::Builder::new().name("disk-usage".to_owned()).spawn(run).ok()?;
    Some(Box::new(Usage { events, table: Cache::new(table), stop, known: None }))
}

/// What can be measured of containers on this host, for `nodegauge check`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probe {
    /// Containers whose processes have a root filesystem of their own.
    pub with_layer: usize,
    /// Those whose layer can be opened from here.
    pub opened: usize,
    /// Directories of layers, logs and volumes that cannot be, with the reason.
    pub failed: Vec<(PathBuf, ReadError)>,
}

/// Tries to open what would be measured of these cgroups, without measuring.
pub fn probe(roots: &Roots, layout: &Layout, cgroups: &[CgroupSample]) -> Probe {
    let mut probe = Probe::default();
    let Some(tree) = tree(layout) else { return probe };
    let mut finder = Finder::new(roots.clone(), tree);
    for cgroup in cgroups.iter().map(|row| &row.cgroup).filter(|c| !c.storage.is_empty()) {
        let relative = CString::new(cgroup.path.trim_start_matches('/')).unwrap_or_default();
        let layer = if cgroup.storage.layer { finder.layer(&relative).ok().flatten() } else { None };
        let layer = layer.map(|(Layer::Tree(path) | Layer::Whole(path))| path);
        probe.with_layer += usize::from(layer.is_some());
        let mut open = |path: PathBuf| match survey::at(&finder, &path).open() {
            Ok(_) => true,
            Err(error) => {
                probe.failed.push((path, error));
                false
            }
        };
        let opened = layer.is_some_and(&mut open);
        if let Some(LogDirectory::Files(path) | LogDirectory::Tree(path)) = cgroup.storage.logs.clone() {
            open(path);
        }
        if let Some(path) = cgroup.storage.volumes.clone() {
            open(path);
        }
        probe.opened += usize::from(opened);
    }
    probe
}

impl Collector for Usage {
    fn begin(&mut self, _cx: &mut Context<'_>, nodes: &mut [Node], _snapshot: &mut Snapshot) {
        // A row that becomes another has a new description, at another address.
        let mark = |n: &Node| n.id.wrapping_mul(31).wrapping_add(Arc::as_ptr(&n.cgroup).addr() as u64);
        let known = nodes.iter().fold(0u64, |sum, n| sum.rotate_left(5).wrapping_add(mark(n)));
        if self.known == Some(known) {
            return;
        }
        self.known = Some(known);
        let with_data = nodes.iter().filter(|n| !n.cgroup.storage.is_empty());
        let subject = |n: &Node| Subject {
            id: n.id,
            cgroup: Arc::clone(&n.cgroup),
            relative: n.files.shared_relative(),
        };
        // A thread that died has said so; its figures keep their age.
        let _ = self.events.send(Event::Subjects(with_data.map(subject).collect()));
    }

    fn read(
        &mut self,
        _cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        if !node.cgroup.storage.is_empty() {
            row.disk = self.table.load().get(&node.id).map(Arc::clone);
        }
        Ok(())
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.stop.stop();
        // It may have ended already.
        let _ = self.events.send(Event::Stop);
    }
}
