//! Task states and the load they make, on v1.
//!
//! One netlink request per cgroup costs as much as half its other reads, and
//! the figures are smoothed over ten seconds anyway, so a thread of its own
//! asks every ten seconds and ticks pick up its last answers.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::{Collector, Context, Setup, Vanished};
use crate::kernel::ReadError;
use crate::kernel::cgroupstats::{CgroupStats, TaskStates};
use crate::kernel::tree::Node;
use crate::snapshot::{CgroupSample, LoadStats, Snapshot, reading};

/// How often tasks are counted.
const PERIOD: Duration = Duration::from_secs(10);

/// exp(-PERIOD / 10 s): how much of the old load remains.
const DECAY: f64 = 0.367_879_441_171_442_3;

type Cgroups = Vec<(u64, Arc<CStr>)>;
type Loads = HashMap<u64, LoadStats>;

#[derive(Debug)]
struct Load {
    cgroups: Sender<Cgroups>,
    loads: Arc<ArcSwap<Loads>>,
    known: (usize, u64),
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let tree = setup.layout.controller("cpu")?;
    let root = setup.layout.trees.get(tree.index()).filter(|root| root.is_cgroupfs)?.path.clone();
    let stats = match CgroupStats::open() {
        Ok(stats) => stats,
        Err(error) => {
            tracing::info!(%error, "this kernel counts no tasks by state: no load figures");
            return None;
        }
    };
    let loads = Arc::new(ArcSwap::default());
    let (cgroups, receiver) = channel();
    let worker = Worker { root, stats, loads: Arc::clone(&loads), smoothed: HashMap::new() };
    thread::Builder::new().name("load".to_owned()).spawn(move || worker.run(&receiver)).ok()?;
    Some(Box::new(Load { cgroups, loads, known: (0, 0) }))
}

impl Collector for Load {
    fn begin(&mut self, _cx: &mut Context<'_>, nodes: &mut [Node], _snapshot: &mut Snapshot) {
        // Ids are never used twice, so count and sum change with the set.
        let known = (nodes.len(), nodes.iter().map(|n| n.id).sum());
        if known != self.known {
            self.known = known;
            let cgroups = nodes.iter().map(|n| (n.id, n.files.shared_relative())).collect();
            // A worker that died has said so; its figures stay absent.
            let _ = self.cgroups.send(cgroups);
        }
    }

    fn read(
        &mut self,
        _cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        if let Some(load) = self.loads.load().get(&node.id) {
            row.load = *load;
        }
        Ok(())
    }
}

struct Worker {
    root: PathBuf,
    stats: CgroupStats,
    loads: Arc<ArcSwap<Loads>>,
    smoothed: HashMap<u64, (f64, f64)>,
}

impl Worker {
    fn run(mut self, cgroups: &Receiver<Cgroups>) {
        let mut current = Cgroups::new();
        let mut due = Instant::now() + Duration::from_secs(3600);
        loop {
            match cgroups.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(first) => {
                    let is_start = current.is_empty();
                    current = cgroups.try_iter().last().unwrap_or(first);
                    // New cgroups wait for the next turn, but the first answers come at once.
                    if !is_start && Instant::now() < due {
                        continue;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            due = Instant::now() + PERIOD;
            self.count(&current);
        }
    }

    fn count(&mut self, cgroups: &Cgroups) {
        let mut loads = Loads::with_capacity(cgroups.len());
        for (id, relative) in cgroups {
            let path = self.root.join(OsStr::from_bytes(relative.to_bytes()));
            match self.stats.read(&path) {
                Ok(states) => {
                    loads.insert(*id, self.smooth(*id, states));
                }
                Err(ReadError::Gone) => {}
                Err(error) => tracing::debug!(path = %path.display(), %error, "tasks not counted"),
            }
        }
        self.smoothed.retain(|id, _| loads.contains_key(id));
        self.loads.store(Arc::new(loads));
    }

    fn smooth(&mut self, id: u64, states: TaskStates) -> LoadStats {
        let (running, uninterruptible) = (to_f64(states.running), to_f64(states.uninterruptible));
        let (load, load_d) = match self.smoothed.get(&id) {
            Some((old, old_d)) => {
                let blend = |old: f64, new: f64| old * DECAY + new * (1.0 - DECAY);
                (blend(*old, running), blend(*old_d, uninterruptible))
            }
            None => (running, uninterruptible),
        };
        self.smoothed.insert(id, (load, load_d));
        LoadStats {
            sleeping: reading(states.sleeping),
            running: reading(states.running),
            stopped: reading(states.stopped),
            uninterruptible: reading(states.uninterruptible),
            io_waiting: reading(states.io_wait),
            load_milli: milli(load),
            load_d_milli: milli(load_d),
        }
    }
}

fn to_f64(tasks: u64) -> f64 {
    u32::try_from(tasks).map_or(f64::from(u32::MAX), f64::from)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count of tasks: never negative, far below 2^53
fn milli(load: f64) -> crate::snapshot::Reading {
    reading((load * 1000.0).round() as u64)
}
