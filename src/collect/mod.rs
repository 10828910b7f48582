//! One family of stats per file, v1 and v2 side by side.
//!
//! A [`Collector`] reads the files of one subject for one cgroup at a time into
//! its row; the [`sampler`] walks all cgroups once per collector, so that one
//! subject's figures of all cgroups lie within a few milliseconds. There is no
//! async here and nothing that can hang: `statfs` and task counting run on
//! threads of their own and only their last results are picked up.
//!
//! To add a subject: its file, one line in [`COLLECTORS`], its fields in
//! `snapshot.rs`, and one row per metric in `expose/families`.

mod cpu;
mod cpuset;
mod departures;
pub mod filesystem;
mod hardware;
mod hugetlb;
mod io;
mod load;
mod machine;
mod memory;
mod network;
mod numa;
mod oom;
mod pids;
mod pressure;
mod process;
pub(crate) use process::sees_all_processes;
pub mod ps;
pub mod sampler;
mod sched;
mod sockets;
mod spec;
mod still;
mod tasks;
pub mod usage;
mod young;

use std::time::Duration;

use crate::kernel::cgroup::Layout;
use crate::kernel::ends::EndCounts;
use crate::kernel::handles::{FileKey, HandleCounts, Reader};
use crate::kernel::problems::PROBLEMS;
use crate::kernel::tree::{Node, TreeCounts};
use crate::kernel::{ReadError, Roots};
use crate::snapshot::{CgroupSample, Kind, Kinds, Machine, Snapshot};

pub use departures::Departures;
pub use oom::ledger::Described;
use sampler::Namer;

/// The cgroup vanished while it was read: its row is left out of the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vanished;

/// How much of a cgroup is read between ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What rises while it runs: its CPU time, and its memory now and at most.
    Little,
    /// All that a collector reads of a cgroup by itself.
    Whole,
}

/// Reads one subject.
pub trait Collector: Send + std::fmt::Debug {
    /// Runs once before the cgroups of a tick.
    fn begin(&mut self, _cx: &mut Context<'_>, _nodes: &mut [Node], _snapshot: &mut Snapshot) {}

    /// Reads the figures of one cgroup into its row.
    ///
    /// # Errors
    /// [`Vanished`] when the cgroup is no more. Other failures are counted in
    /// the context and leave fields absent.
    fn read(&mut self, cx: &mut Context<'_>, node: &mut Node, row: &mut CgroupSample)
    -> Result<(), Vanished>;

    /// Reads one cgroup between ticks, over what its row has from the last reading.
    /// Most collectors read in ticks only.
    ///
    /// # Errors
    /// [`Vanished`], as in [`read`](Collector::read); what was read before is in the row.
    fn glance(
        &mut self,
        _cx: &mut Context<'_>,
        _node: &mut Node,
        _row: &mut CgroupSample,
        _depth: Depth,
    ) -> Result<(), Vanished> {
        Ok(())
    }

    /// Runs once after the cgroups of a tick.
    fn end(&mut self, _end: &mut End<'_>) {}

    /// Drops what is remembered of a cgroup that is gone.
    fn forget(&mut self, _id: u64) {}
}

/// What a collector may change when all cgroups have been read.
pub struct End<'a> {
    /// The rows, in the order they were read.
    pub snapshot: &'a mut Snapshot,
    /// Rows of what has vanished.
    pub departed: &'a mut Departures,
    /// Says who a cgroup was.
    pub namer: &'a mut dyn Namer,
    /// What was noticed of the kernel's log.
    pub log: &'a mut LogCounts,
}

impl std::fmt::Debug for End<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("End").finish_non_exhaustive()
    }
}

/// What a collector is made from.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Where the kernel files are.
    pub roots: &'a Roots,
    /// The hierarchies.
    pub layout: &'a Layout,
    /// Registers the files to read.
    pub reader: &'a mut Reader,
    /// Kinds that are on.
    pub kinds: Kinds,
    /// CPU that measuring disk usage may take, microseconds for each second; 0 is off.
    pub disk_usage: u32,
}

/// A row of the table of collectors.
#[derive(Debug)]
pub struct Entry {
    /// Name in our own metrics.
    pub name: &'static str,
    /// It is on when one of these kinds is; always on when there are none.
    pub kinds: &'static [Kind],
    /// Makes it; `None` when this host has nothing for it to read.
    pub make: fn(&mut Setup<'_>) -> Option<Box<dyn Collector>>,
}

/// Every collector, in the order they run. CPU time is first: of a cgroup in which
/// nothing ran, less is read. Parents are read before what is below them, so that the
/// kernel's per-CPU counters are flushed once for all.
pub const COLLECTORS: &[Entry] = &[
    Entry { name: "cpu", kinds: &[Kind::Cpu, Kind::Percpu], make: cpu::make },
    Entry { name: "memory", kinds: &[Kind::Memory, Kind::MemoryEvents], make: memory::make },
    Entry { name: "diskIO", kinds: &[Kind::DiskIo], make: io::make },
    Entry { name: "pressure", kinds: &[Kind::Pressure], make: pressure::make },
    Entry { name: "oom_event", kinds: &[Kind::OomEvent], make: oom::make },
    Entry { name: "pids", kinds: &[Kind::Process], make: pids::make },
    Entry { name: "process", kinds: &[Kind::Process], make: process::make },
    Entry { name: "hugetlb", kinds: &[Kind::Hugetlb], make: hugetlb::make },
    Entry {
        name: "network",
        kinds: &[Kind::Network, Kind::Tcp, Kind::Udp, Kind::Advtcp],
        make: network::make,
    },
    Entry { name: "cpuLoad", kinds: &[Kind::CpuLoad], make: load::make },
    Entry { name: "sched", kinds: &[Kind::Sched], make: sched::make },
    Entry { name: "memory_numa", kinds: &[Kind::MemoryNuma], make: numa::make },
    // Before the settings of all, which take the mark that some have changed.
    Entry { name: "cpuset", kinds: &[Kind::Cpuset], make: cpuset::make },
    Entry { name: "tasks", kinds: &[], make: tasks::make },
    Entry { name: "spec", kinds: &[], make: spec::make },
    Entry { name: "disk", kinds: &[Kind::Disk, Kind::DiskIo], make: filesystem::make },
    Entry { name: "diskUsage", kinds: &[Kind::Disk], make: usage::make },
];

/// What a collector may use during a tick.
#[derive(Debug)]
pub struct Context<'a> {
    /// Reads files through held handles.
    pub reader: &'a mut Reader,
    /// The hierarchies.
    pub layout: &'a Layout,
    /// Where the kernel files are.
    pub roots: &'a Roots,
    /// The machine.
    pub machine: &'a Machine,
    /// The tick before this one, if nothing came between; none between ticks.
    pub previous: Option<&'a Snapshot>,
    /// Failures of this collector.
    pub errors: &'a mut ErrorCounts,
}

impl<'a> Context<'a> {
    /// The figures of a cgroup in the tick before.
    #[inline]
    pub fn before(&self, node: &Node) -> Option<&'a CgroupSample> {
        self.previous?.cgroups.get(node.row?)
    }

    /// Reads and parses one file of a cgroup; `None` when it is not there or
    /// could not be used, which has been counted then.
    ///
    /// # Errors
    /// [`Vanished`] when the cgroup is no more.
    #[inline]
    pub fn file<T>(
        &mut self,
        node: &mut Node,
        key: Option<FileKey>,
        parse: impl FnOnce(&[u8]) -> Result<T, ReadError>,
    ) -> Result<Option<T>, Vanished> {
        let Some(key) = key else { return Ok(None) };
        self.reader.retry_absent = node.slow;
        let result = match self.reader.read(self.layout, &mut node.files, key) {
            Ok(None) => return Ok(None),
            Ok(Some(text)) => parse(text),
            Err(error) => Err(error),
        };
        match result {
            Ok(value) => Ok(Some(value)),
            Err(ReadError::Gone) => Err(Vanished),
            Err(error) => {
                self.failed(&node.cgroup.path, error);
                Ok(None)
            }
        }
    }

    /// Counts a failure.
    #[cold]
    pub fn failed(&mut self, path: &str, error: ReadError) {
        self.errors.count(error);
        tracing::debug!(path, %error, "kernel file gave no figure");
    }
}

/// What the collection noticed about itself; counts are since start.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// One per collector that is on.
    pub collectors: Vec<CollectorReport>,
    /// Handles held.
    pub handles: HandleCounts,
    /// The tree of cgroups.
    pub tree: TreeCounts,
    /// The kernel's log.
    pub log: LogCounts,
    /// What was read between ticks.
    pub between: BetweenCounts,
    /// Rows in the last snapshot.
    pub cgroups: u64,
    /// Cgroups that vanished while they were read, and were left out of that snapshot.
    pub vanished_in_tick: u64,
    /// How long the last tick took.
    pub duration: Duration,
}

/// Readings of single cgroups between ticks; counts are since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BetweenCounts {
    /// Readings of young containers.
    pub early: u64,
    /// Readings of containers whose last process had ended.
    pub last: u64,
    /// Readings left out because those before had used up their share of CPU.
    pub skipped: u64,
    /// Watches on the ends of containers.
    pub ends: EndCounts,
}

/// What became of the kernel's log; counts are since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Whether it can be read.
    pub state: LogState,
    /// Records read.
    pub records: u64,
    /// Times the kernel overwrote records before they were read.
    pub overruns: u64,
    /// Records that were lost so.
    pub missed: u64,
    /// OOM kills found.
    pub kills: u64,
    /// Those among them that are on no row: their cgroup is not known here.
    pub unplaced: u64,
    /// Troubles of the machine found, by [`crate::kernel::problems::Problem::index`].
    pub problems: [u64; PROBLEMS],
}

/// Whether the kernel's log can be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogState {
    /// Nobody asked for it, or the tree is a captured one.
    #[default]
    Unused,
    /// It is read.
    Read,
    /// There is no `/dev/kmsg` here.
    Absent,
    /// Permission denied.
    Denied,
    /// It is something else, or reading failed.
    Failed,
}

/// One collector's work.
#[derive(Debug, Clone, Default)]
pub struct CollectorReport {
    /// Name, as in `--metrics` where there is such a kind.
    pub name: &'static str,
    /// Duration of its last pass over all cgroups.
    pub last: Duration,
    /// Duration of all its passes.
    pub total: Duration,
    /// Passes.
    pub passes: u64,
    /// Files it could not read or parse, by reason.
    pub errors: ErrorCounts,
}

/// Reads that gave no figure although the file should be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErrorCounts {
    /// Permission denied.
    pub denied: u64,
    /// Content is not what the kernel documents.
    pub malformed: u64,
    /// No descriptor left.
    pub exhausted: u64,
    /// Larger than we accept.
    pub too_large: u64,
    /// Any other error of the system call.
    pub os: u64,
}

impl ErrorCounts {
    /// Counts one failure; a vanished or unsupported file is none.
    pub fn count(&mut self, error: ReadError) {
        match error {
            ReadError::Gone | ReadError::Unsupported => {}
            ReadError::Denied => self.denied += 1,
            ReadError::Malformed { .. } => self.malformed += 1,
            ReadError::Exhausted => self.exhausted += 1,
            ReadError::TooLarge => self.too_large += 1,
            ReadError::Os(_) => self.os += 1,
        }
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.denied + self.malformed + self.exhausted + self.too_large + self.os
    }
}
