//! Pressure stall information: `{cpu,memory,io}.pressure` (4.20), on v2 and in
//! the v2 tree of a hybrid host. The root's figures are the machine's, so where
//! no v2 tree has them they come from `/proc/pressure`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::still::Still;
use super::{Collector, Context, Depth, Setup, Vanished};
use crate::kernel::ReadError;
use crate::kernel::handles::{FileKey, Pace};
use crate::kernel::parse::{self, Stall};
use crate::kernel::tree::Node;
use crate::snapshot::{Averages, CgroupSample, Pressure, PressureStats, Snapshot, reading};

/// A stall is in the kernel's averages after this long: they are made every two seconds.
const AVERAGED: Duration = Duration::from_secs(4);

#[derive(Debug)]
struct PressureFiles {
    cpu: Source,
    memory: Source,
    io: Source,
    /// When this tick began.
    now: Instant,
    still: Still,
    /// When the totals of a cgroup were last seen to have moved, if that was not long ago.
    moved: HashMap<u64, Instant>,
}

#[derive(Debug)]
struct Source {
    file: Option<FileKey>,
    machine: PathBuf,
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let tree = setup.layout.unified();
    let mut source = |resource: &str| Source {
        file: tree.and_then(|t| setup.reader.register(t, &format!("{resource}.pressure"), Pace::Tick)),
        machine: setup.roots.proc.join("pressure").join(resource),
    };
    Some(Box::new(PressureFiles {
        cpu: source("cpu"),
        memory: source("memory"),
        io: source("io"),
        now: Instant::now(),
        still: Still::default(),
        moved: HashMap::new(),
    }))
}

fn totals(text: &[u8]) -> Result<Pressure, ReadError> {
    let (some, full) = parse::pressure(text)?;
    let total = |stall: Option<Stall>| stall.and_then(|s| reading(s.total));
    let averages = |stall: Option<Stall>| {
        stall.map(|Stall { averages: [avg10, avg60, avg300], .. }| Averages { avg10, avg60, avg300 })
    };
    Ok(Pressure {
        some_usec: total(some),
        full_usec: total(full),
        some_average: averages(some),
        full_average: averages(full),
    })
}

fn of_machine(cx: &mut Context<'_>, path: &Path) -> Pressure {
    match cx.reader.buffer.read_path(path).and_then(totals) {
        Ok(pressure) => pressure,
        Err(error) => {
            cx.errors.count(error);
            Pressure::default()
        }
    }
}

fn all(stats: &PressureStats) -> [&Pressure; 3] {
    [&stats.cpu, &stats.memory, &stats.io]
}

/// Whether there are figures, and no average is falling.
fn rests(stats: &PressureStats) -> bool {
    let none = |averages: Option<Averages>| averages.is_none_or(|a| a == Averages::default());
    stats.cpu.some_usec.is_some() && all(stats).iter().all(|p| none(p.some_average) && none(p.full_average))
}

/// Whether nothing stalled from the one to the other.
fn same_totals(before: &PressureStats, now: &PressureStats) -> bool {
    let totals = |stats| all(stats).map(|p| (p.some_usec, p.full_usec));
    totals(before) == totals(now)
}

impl PressureFiles {
    fn read_all(
        &self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        let root = node.is_root();
        for (source, out) in [
            (&self.cpu, &mut row.pressure.cpu),
            (&self.memory, &mut row.pressure.memory),
            (&self.io, &mut row.pressure.io),
        ] {
            *out = match cx.file(node, source.file, totals)? {
                Some(pressure) => pressure,
                None if root => of_machine(cx, &source.machine),
                None => Pressure::default(),
            };
        }
        Ok(())
    }

    /// Whether the totals are those of the tick before.
    fn figures(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<bool, Vanished> {
        let before = cx.before(node).map(|before| &before.pressure).filter(|p| p.cpu.some_usec.is_some());
        if let Some(before) = before
            && rests(before)
            && self.still.above(node)
            && !node.due
            && !self.moved.contains_key(&node.id)
        {
            row.pressure = *before;
            return Ok(true);
        }
        self.read_all(cx, node, row)?;
        let still = before.is_some_and(|before| same_totals(before, &row.pressure));
        if !still {
            self.moved.insert(node.id, self.now);
        } else if self.moved.get(&node.id).is_some_and(|at| self.now.duration_since(*at) >= AVERAGED) {
            self.moved.remove(&node.id);
        }
        Ok(still)
    }
}

impl Collector for PressureFiles {
    fn begin(&mut self, _cx: &mut Context<'_>, _nodes: &mut [Node], snapshot: &mut Snapshot) {
        self.now = snapshot.monotonic;
        self.still.begin();
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        let still = self.figures(cx, node, row);
        self.still.push(still == Ok(true));
        still.map(drop)
    }

    fn glance(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
        depth: Depth,
    ) -> Result<(), Vanished> {
        if depth == Depth::Whole { self.read_all(cx, node, row) } else { Ok(()) }
    }

    fn forget(&mut self, id: u64) {
        self.moved.remove(&id);
    }
}
