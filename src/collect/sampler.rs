//! Runs the collectors over the cgroups and fills a snapshot.

mod between;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::departures::Gone;
use super::young::Young;
use super::{
    COLLECTORS, Collector, CollectorReport, Context, Departures, Described, End, Report, Setup, Vanished,
    machine,
};
use crate::kernel::Roots;
use crate::kernel::cgroup::{Layout, LayoutError};
use crate::kernel::ends::Ends;
use crate::kernel::file::Buffer;
use crate::kernel::handles::Reader;
use crate::kernel::tree::{Node, Occasion, Tree};
use crate::snapshot::{Cgroup, CgroupSample, Filesystems, Kind, Kinds, Machine, Origin, Snapshot, Tasks};

/// How often the machine is looked at again.
const MACHINE_LASTS: Duration = Duration::from_secs(300);

/// One cgroup in this many is read in full each tick, in turn: limits, and
/// files that were not there.
const SLOW_EVERY: u64 = 10;

/// Figures that seem not to have moved are read again after this long.
const STANDS: Duration = Duration::from_secs(10);

/// What to read, and how much it may take.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Kinds that are on.
    pub kinds: Kinds,
    /// Kinds that are read only in ticks for which [`Sampler::want`] named them.
    pub on_request: Kinds,
    /// Kernel memory that held handles may pin, bytes.
    pub handle_memory: u64,
    /// Descriptors the process may have.
    pub descriptors: u64,
    /// Cgroups followed at most.
    pub max_cgroups: usize,
    /// CPU that measuring disk usage may take, microseconds for each second; 0 is off.
    pub disk_usage: u32,
}

/// Says who a cgroup is: the seam where identity comes in. It is asked on the
/// reader thread, so it never waits.
pub trait Namer: Send {
    /// Makes the unchanging part of a new row from a path and a creation time.
    fn describe(&mut self, path: String, created: Option<u64>) -> Arc<Cgroup>;

    /// Names again those whose names may have changed. Runs once a tick, when
    /// the tree is up to date; what is no more has no node.
    fn update(&mut self, _nodes: &mut [Node]) {}

    /// Says who the cgroup of this path was, which was gone `age` ago before it was seen.
    fn describe_gone(&mut self, path: &str, _age: Duration) -> Described {
        Described { cgroup: self.describe(path.to_owned(), None), waits: false, whole: false }
    }
}

impl<F: FnMut(String, Option<u64>) -> Arc<Cgroup> + Send> Namer for F {
    fn describe(&mut self, path: String, created: Option<u64>) -> Arc<Cgroup> {
        self(path, created)
    }
}

/// Reads a host's cgroups.
pub struct Sampler {
    roots: Roots,
    layout: Layout,
    reader: Reader,
    tree: Tree,
    namer: Box<dyn Namer>,
    collectors: Vec<(&'static [Kind], Box<dyn Collector>)>,
    /// Kinds that are on, those read only on request, and those read next.
    kinds: Kinds,
    on_request: Kinds,
    wanted: Kinds,
    machine: Arc<Machine>,
    machine_read: Instant,
    made: Instant,
    sequence: u64,
    report: Report,
    departures: Departures,
    /// Rows left out of the snapshot, by index.
    left_out: Vec<usize>,
    /// What tells of the ends of containers, and those it told of; the memory is used again.
    ends: Option<Ends>,
    changed: Vec<(u64, Arc<Cgroup>)>,
    /// Containers that ticks have not seen, or not at their end.
    young: Young,
    /// Cgroups with lower ids were in the last tick, and those in the last look.
    ticked: u64,
    noticed: Option<u64>,
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampler")
            .field("layout", &self.layout)
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

impl Sampler {
    /// Finds the hierarchies below `roots` and prepares to read them.
    ///
    /// # Errors
    /// No cgroup filesystem can be found or opened.
    pub fn new(roots: Roots, options: Options, namer: Box<dyn Namer>) -> Result<Sampler, LayoutError> {
        let mut buffer = Buffer::new();
        let layout = Layout::detect(&roots, &mut buffer)?;
        let machine = Arc::new(machine::read(&roots, &mut buffer));
        let mut reader = Reader::new(&layout, options.handle_memory, options.descriptors);
        let mut collectors = Vec::new();
        let mut report = Report::default();
        for entry in COLLECTORS {
            let kinds = options.kinds.or(options.on_request);
            let on = reads(entry.kinds, kinds);
            let disk_usage = options.disk_usage;
            let mut setup = Setup { roots: &roots, layout: &layout, reader: &mut reader, kinds, disk_usage };
            if let Some(collector) = on.then(|| (entry.make)(&mut setup)).flatten() {
                collectors.push((entry.kinds, collector));
                report.collectors.push(CollectorReport { name: entry.name, ..CollectorReport::default() });
            }
        }
        let ends = Ends::new(&layout, &mut reader);
        Ok(Sampler {
            roots,
            layout,
            reader,
            tree: Tree::new(options.max_cgroups),
            namer,
            collectors,
            kinds: options.kinds,
            on_request: options.on_request,
            wanted: options.kinds,
            machine,
            machine_read: Instant::now(),
            made: Instant::now(),
            sequence: 0,
            report,
            departures: Departures::default(),
            left_out: Vec::new(),
            ends,
            changed: Vec::new(),
            young: Young::new(),
            ticked: 0,
            noticed: None,
        })
    }

    /// The hierarchies read.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What was noticed so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Has the next ticks read these kinds too, as far as they can be requested,
    /// and no others that are read only on request.
    pub fn want(&mut self, kinds: Kinds) {
        self.wanted = self.kinds.or(self.on_request.and(kinds));
    }

    /// A snapshot to fill; its buffers can be used again by a later tick.
    pub fn blank(&self) -> Snapshot {
        Snapshot {
            sequence: 0,
            origin: Origin::Grid,
            wall_ms: 0,
            monotonic: Instant::now(),
            duration: Duration::ZERO,
            hierarchy: self.layout.hierarchy,
            kinds: self.kinds,
            machine: Arc::clone(&self.machine),
            filesystems: Arc::new(Filesystems::default()),
            disks: Vec::new(),
            tasks: Tasks::default(),
            cgroups: Vec::new(),
            departed: Arc::default(),
            oom_gone: Arc::default(),
            oom_kills: Vec::new(),
        }
    }

    /// Reads everything into `snapshot`, whatever it held before. A tick as a
    /// whole never fails: what could not be read is absent and counted.
    pub fn tick(&mut self, origin: Origin, snapshot: &mut Snapshot) {
        let started = Instant::now();
        self.sequence += 1;
        if self.machine_read.elapsed() >= MACHINE_LASTS {
            self.machine_read = started;
            let machine = machine::read(&self.roots, &mut self.reader.buffer);
            if machine != *self.machine {
                self.machine = Arc::new(machine);
            }
        }
        self.update_tree(Occasion::Tick);
        snapshot.sequence = self.sequence;
        snapshot.origin = origin;
        snapshot.kinds = self.wanted;
        snapshot.monotonic = Instant::now();
        snapshot.wall_ms = wall_ms();
        self.departures.expire(snapshot.monotonic);
        self.depart(snapshot.monotonic, snapshot.wall_ms);
        if !Arc::ptr_eq(&snapshot.machine, &self.machine) {
            snapshot.machine = Arc::clone(&self.machine);
        }
        snapshot.oom_kills.clear();
        let before = self.sequence - 1;
        let previous = self.departures.last_tick().filter(|last| last.sequence == before).cloned();
        self.prepare_rows(snapshot, previous.as_deref());
        self.collect(snapshot, previous.as_deref());
        self.drop_incomplete(snapshot);
        self.ticked = self.tree.next_id();
        self.departures.show(snapshot);
        self.reader.refill_spare(&self.layout);
        snapshot.duration = started.elapsed();
        self.report.handles = self.reader.counts();
        self.report.tree = self.tree.counts;
        self.report.between.ends = self.ends.as_ref().map(Ends::counts).unwrap_or_default();
        self.report.cgroups = snapshot.cgroups.len() as u64;
        self.report.duration = snapshot.duration;
    }

    /// A descriptor that becomes readable when there may be something to
    /// [`look`](Sampler::look) at.
    pub fn readable(&self) -> Option<OwnedFd> {
        self.tree.readable()
    }

    /// The same for [`look_at_ends`](Sampler::look_at_ends), where the kernel tells.
    pub fn ends_readable(&self) -> Option<OwnedFd> {
        self.ends.as_ref()?.readable()
    }

    fn update_tree(&mut self, occasion: Occasion) {
        let namer = &mut self.namer;
        let mut describe = |path, created| namer.describe(path, created);
        let boot = self.machine.boot_time;
        self.tree.update(&self.layout, &mut self.reader, boot, &mut describe, occasion);
        self.namer.update(&mut self.tree.nodes);
        for removed in &self.tree.removed {
            self.collectors.iter_mut().for_each(|(_, c)| c.forget(removed.id));
        }
        self.notice();
    }

    fn prepare_rows(&mut self, snapshot: &mut Snapshot, previous: Option<&Snapshot>) {
        let mut rows = previous.map_or(&[] as &[_], |p| &p.cgroups).iter().enumerate().peekable();
        let since = |at: Instant, id: u64| {
            // Each in its own second.
            let turn = Duration::from_secs(id % STANDS.as_secs());
            (at.saturating_duration_since(self.made) + turn).as_secs() / STANDS.as_secs()
        };
        let count = self.tree.nodes.len();
        snapshot.cgroups.truncate(count);
        if snapshot.cgroups.capacity() < count {
            // Growing by doubling would make room for twice as many.
            snapshot.cgroups.reserve_exact(count + count / 8 - snapshot.cgroups.len());
        }
        for (index, node) in self.tree.nodes.iter_mut().enumerate() {
            node.slow = node.age <= 1 || (node.id + self.sequence).is_multiple_of(SLOW_EVERY);
            node.idle = false;
            node.due =
                previous.is_none_or(|p| since(p.monotonic, node.id) != since(snapshot.monotonic, node.id));
            // Both are sorted by path. What was not there then has had no tick.
            let path = node.cgroup.path.as_str();
            while rows.next_if(|(_, row)| row.cgroup.path.as_str() < path).is_some() {}
            let same = rows.peek().filter(|(_, row)| row.cgroup.path == path && node.age > 1);
            node.row = same.map(|(index, _)| *index);
            match snapshot.cgroups.get_mut(index) {
                Some(row) => row.reset(&node.cgroup),
                None => snapshot.cgroups.push(CgroupSample::new(Arc::clone(&node.cgroup))),
            }
            if let Some(row) = snapshot.cgroups.get_mut(index) {
                row.leaf = node.leaf;
            }
        }
    }

    fn collect(&mut self, snapshot: &mut Snapshot, previous: Option<&Snapshot>) {
        self.left_out.clear();
        for ((kinds, collector), report) in self.collectors.iter_mut().zip(&mut self.report.collectors) {
            if !reads(kinds, self.wanted) {
                continue;
            }
            let started = Instant::now();
            let mut cx = Context {
                reader: &mut self.reader,
                layout: &self.layout,
                roots: &self.roots,
                machine: &self.machine,
                previous,
                errors: &mut report.errors,
            };
            collector.begin(&mut cx, &mut self.tree.nodes, snapshot);
            for (index, (node, row)) in self.tree.nodes.iter_mut().zip(&mut snapshot.cgroups).enumerate() {
                match collector.read(&mut cx, node, row) {
                    Ok(()) => {}
                    Err(Vanished) => self.left_out.push(index),
                }
            }
            report.last = started.elapsed();
            report.total += report.last;
            report.passes += 1;
        }
        for (_, collector) in self.collectors.iter_mut().filter(|(kinds, _)| reads(kinds, self.wanted)) {
            collector.end(&mut End {
                snapshot,
                departed: &mut self.departures,
                namer: &mut *self.namer,
                log: &mut self.report.log,
            });
        }
    }

    /// A row that was read in part, or of a cgroup that is still being made or
    /// waits for its name, is not published as if it were whole.
    fn drop_incomplete(&mut self, snapshot: &mut Snapshot) {
        self.left_out.sort_unstable();
        self.left_out.dedup();
        self.report.vanished_in_tick += self.left_out.len() as u64;
        for index in &self.left_out {
            if let Some(node) = self.tree.nodes.get(*index) {
                let relative = node.files.relative().to_owned();
                // The next tick finds it gone, when this one is the last.
                let gone = Gone {
                    cgroup: &node.cgroup,
                    ticked: node.id < self.ticked,
                    early: self.young.take(node.id),
                    whole: node.whole,
                    waits: node.waits,
                };
                self.departures.add(gone, snapshot.monotonic, snapshot.wall_ms);
                self.tree.suspect_parent(&relative);
            }
        }
        let unfinished = self.tree.nodes.iter().enumerate().filter(|(_, n)| n.unfinished || n.waits);
        let before = self.left_out.len();
        self.left_out.extend(unfinished.map(|(index, _)| index));
        if self.left_out.is_empty() {
            return;
        }
        if self.left_out.len() > before {
            self.left_out.sort_unstable();
        }
        let mut index = 0;
        snapshot.cgroups.retain(|_| {
            let gone = self.left_out.binary_search(&index).is_ok();
            index += 1;
            !gone
        });
    }
}

/// Whether a collector of these kinds has something to read.
fn reads(kinds: &[Kind], on: Kinds) -> bool {
    kinds.is_empty() || kinds.iter().any(|k| on.has(*k))
}

/// Milliseconds since the epoch.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
