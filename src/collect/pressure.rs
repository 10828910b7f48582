//! Pressure stall information: `{cpu,memory,io}.pressure` (4.20), on v2 and in
//! the v2 tree of a hybrid host. The root's figures are the machine's, so where
//! no v2 tree has them they come from `/proc/pressure`.

use std::path::{Path, PathBuf};

use super::{Collector, Context, Depth, Setup, Vanished};
use crate::kernel::ReadError;
use crate::kernel::handles::{FileKey, Pace};
use crate::kernel::parse::{self, Stall};
use crate::kernel::tree::Node;
use crate::snapshot::{Averages, CgroupSample, Pressure, reading};

#[derive(Debug)]
struct PressureFiles {
    cpu: Source,
    memory: Source,
    io: Source,
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
    Some(Box::new(PressureFiles { cpu: source("cpu"), memory: source("memory"), io: source("io") }))
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

impl Collector for PressureFiles {
    fn read(
        &mut self,
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

    fn glance(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
        depth: Depth,
    ) -> Result<(), Vanished> {
        if depth == Depth::Whole { self.read(cx, node, row) } else { Ok(()) }
    }
}
