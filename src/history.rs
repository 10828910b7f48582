//! What every cgroup's main figures were within the last minutes, in memory.
//!
//! For [`numbers of samples`](History::samples) that clients of cAdvisor's REST API
//! ask for, and for the pages' lines. Held for each cgroup of the last snapshot:
//! its newest sample, as differences from one where all is absent, and behind it a ring
//! of differences, each from one sample to the next. A difference is a byte that says which groups of eight
//! figures changed, a byte for each that says which of them, and the changes as
//! zigzag varints: an idle cgroup takes eight bytes a sample, a busy one about 150.
//! Figures of the kinds that are off by default follow where there are any (`history/extra.rs`).
//! Samples are read from new to old, so that the oldest is forgotten by moving the
//! beginning of the ring.
//!
//! **Bounded**: a cgroup has [`BYTES_A_MINUTE`] for each minute of the window, and
//! earns what a sample costs by the time that passes: with short intervals a busy
//! one keeps every second or every third sample, and so the whole window, where a
//! plain ring would keep only its end. Cgroups that are gone go at the next tick.
//! A steady tick allocates nothing.
//!
//! Every snapshot counts, also those that a scrape asked for.

mod extra;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::snapshot::{
    Cgroup, CgroupSample, Interface, IoDevice, IoOperations, Reading, Snapshot, Traffic, reading,
};
pub use extra::Extras;

/// What a cgroup may take for each minute of the window, all told.
pub const BYTES_A_MINUTE: usize = 2048;

/// A ring grows by so much at a time.
const GROWTH: usize = 256;

/// Figures of a group.
const GROUP: usize = 8;

/// Where [`Reading`] is absent; it cannot hold this value.
const ABSENT: u64 = u64::MAX;

/// What is kept of a row, by the names and in the units of [`CgroupSample`].
/// Sums are over all devices or interfaces that tell the figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is the field of the snapshot that `Figures::of` names beside it")]
pub enum Figure {
    CpuUsage,
    CpuUser,
    CpuSystem,
    CpuPeriods,
    CpuThrottledPeriods,
    CpuThrottled,
    CpuBurstPeriods,
    CpuBurst,
    MemoryUsage,
    MemoryWorkingSet,
    MemoryRss,
    MemoryCache,
    MemoryMappedFile,
    MemoryActiveFile,
    MemoryInactiveFile,
    MemoryKernel,
    MemorySwap,
    MemoryPeak,
    MemoryFailcnt,
    PgfaultOwn,
    PgmajfaultOwn,
    Pgfault,
    Pgmajfault,
    OomKills,
    ReceiveBytes,
    ReceivePackets,
    ReceiveErrors,
    ReceiveDropped,
    TransmitBytes,
    TransmitPackets,
    TransmitErrors,
    TransmitDropped,
    IoReadBytes,
    IoWriteBytes,
    IoDiscardBytes,
    IoReads,
    IoWrites,
    IoDiscards,
    MemoryDirty,
    MemoryWriteback,
    CpuPressureSome,
    CpuPressureFull,
    MemoryPressureSome,
    MemoryPressureFull,
    IoPressureSome,
    IoPressureFull,
    Processes,
    Threads,
    FileDescriptors,
    Sockets,
    LayerBytes,
    LayerInodes,
    LogBytes,
    LogInodes,
    VolumeBytes,
    HugetlbUsage,
    Sleeping,
    Running,
    Stopped,
    Uninterruptible,
    IoWaiting,
    LoadMilli,
    LoadDMilli,
    EventsHigh,
}

/// How many figures there are.
const FIGURES: usize = Figure::EventsHigh as usize + 1;

/// The figures of one cgroup at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures([u64; FIGURES]);

impl Figures {
    /// Those of a row.
    pub fn of(row: &CgroupSample) -> Figures {
        let CgroupSample { cpu, memory, pressure, process, load, .. } = row;
        let received = |get: fn(&Traffic) -> u64| network(&row.network, |i| get(&i.receive));
        let transmitted = |get: fn(&Traffic) -> u64| network(&row.network, |i| get(&i.transmit));
        let bytes = |get: fn(&IoOperations) -> Reading| io(&row.io, |d| get(&d.bytes));
        let ios = |get: fn(&IoOperations) -> Reading| io(&row.io, |d| get(&d.ios));
        let disk = row.disk.as_deref();
        let (layer, logs) = (disk.and_then(|d| d.layer.as_ref()), disk.and_then(|d| d.logs.as_ref()));
        let volumes = disk.map(|d| d.volumes.as_slice()).filter(|volumes| !volumes.is_empty());
        // In the order of `Figure`.
        Figures(
            [
                cpu.usage_ns,
                cpu.user_ns,
                cpu.system_ns,
                cpu.periods,
                cpu.throttled_periods,
                cpu.throttled_ns,
                cpu.burst_periods,
                cpu.burst_ns,
                memory.usage,
                memory.working_set,
                memory.rss,
                memory.cache,
                memory.mapped_file,
                memory.active_file,
                memory.inactive_file,
                memory.kernel,
                memory.swap,
                memory.peak,
                memory.failcnt,
                memory.pgfault_own,
                memory.pgmajfault_own,
                memory.pgfault,
                memory.pgmajfault,
                memory.oom_kills,
                received(|t| t.bytes),
                received(|t| t.packets),
                received(|t| t.errors),
                received(|t| t.dropped),
                transmitted(|t| t.bytes),
                transmitted(|t| t.packets),
                transmitted(|t| t.errors),
                transmitted(|t| t.dropped),
                bytes(|o| o.read),
                bytes(|o| o.write),
                bytes(|o| o.discard),
                ios(|o| o.read),
                ios(|o| o.write),
                ios(|o| o.discard),
                memory.dirty,
                memory.writeback,
                pressure.cpu.some_usec,
                pressure.cpu.full_usec,
                pressure.memory.some_usec,
                pressure.memory.full_usec,
                pressure.io.some_usec,
                pressure.io.full_usec,
                process.processes,
                process.threads,
                process.file_descriptors,
                process.sockets,
                layer.and_then(|p| reading(p.used_bytes)),
                layer.and_then(|p| p.inodes).and_then(reading),
                logs.and_then(|p| reading(p.used_bytes)),
                logs.and_then(|p| p.inodes).and_then(reading),
                volumes.and_then(|v| reading(v.iter().map(|v| v.usage.used_bytes).sum())),
                sum(row.hugetlb.iter().map(|size| size.usage)),
                load.sleeping,
                load.running,
                load.stopped,
                load.uninterruptible,
                load.io_waiting,
                load.load_milli,
                load.load_d_milli,
                memory.events_high,
            ]
            .map(|figure| figure.map_or(ABSENT, |value| value.get())),
        )
    }

    /// One of them; `None` where it was not told.
    pub fn get(&self, figure: Figure) -> Option<u64> {
        self.0.get(figure as usize).copied().filter(|value| *value != ABSENT)
    }
}

/// The sum of those that are told.
fn sum(readings: impl Iterator<Item = Reading>) -> Reading {
    let told = readings.flatten().map(|value| value.get());
    told.fold(None, |sum: Option<u64>, value| Some(sum.unwrap_or(0).wrapping_add(value))).and_then(reading)
}

fn network(interfaces: &[Interface], get: impl Fn(&Interface) -> u64) -> Reading {
    sum(interfaces.iter().map(|interface| reading(get(interface))))
}

fn io(devices: &[IoDevice], get: impl Fn(&IoDevice) -> Reading) -> Reading {
    sum(devices.iter().map(get))
}

/// A cgroup at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Wall clock, milliseconds since the epoch.
    pub wall_ms: u64,
    /// A clock that is never set, microseconds since the history began: for rates.
    pub taken_usec: u64,
    /// What was measured.
    pub figures: Figures,
    /// The same of kinds that are off by default.
    pub extras: Extras,
}

impl Sample {
    const NOTHING: Sample =
        Sample { wall_ms: 0, taken_usec: 0, figures: Figures([ABSENT; FIGURES]), extras: Extras::NONE };

    /// The time from `earlier` to this one, for rates; `None` for no time.
    pub fn usec_since(&self, earlier: &Sample) -> Option<u64> {
        self.taken_usec.checked_sub(earlier.taken_usec).filter(|usec| *usec > 0)
    }

    /// How much a counter rose since `earlier`; `None` where it was not told both
    /// times, or began again.
    pub fn rise_since(&self, earlier: &Sample, counter: Figure) -> Option<u64> {
        self.figures.get(counter)?.checked_sub(earlier.figures.get(counter)?)
    }
}

/// See the module. One thread records, any may read.
#[derive(Debug)]
pub struct History {
    window: Duration,
    began: Instant,
    /// What a ring and the newest sample may take, bytes.
    ring: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Sorted by path, as the snapshot's rows.
    series: Vec<Series>,
    scratch: Scratch,
}

/// What a tick uses again for each cgroup.
#[derive(Debug)]
struct Scratch {
    now: Sample,
    before: Sample,
    /// Where a record is made.
    record: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch { now: Sample::NOTHING, before: Sample::NOTHING, record: Vec::new() }
    }
}

#[derive(Debug, Clone)]
struct Series {
    cgroup: Arc<Cgroup>,
    newest: Packed,
    /// Records, the oldest first: length of the rest, two bytes; microseconds since
    /// the sample before; how much more the wall clock moved, milliseconds; figures.
    records: VecDeque<u8>,
    /// Microseconds from the oldest sample to the newest.
    span_usec: u64,
    /// Bytes it may take for further records, and since when.
    credit: usize,
    earned_usec: u64,
}

/// A sample in half the memory. Its figures are as a record that leads from it to
/// one where all is absent.
#[derive(Debug, Clone, Default)]
struct Packed {
    wall_ms: u64,
    taken_usec: u64,
    figures: Vec<u8>,
}

impl Packed {
    fn set(&mut self, sample: &Sample, record: &mut Vec<u8>) {
        (self.wall_ms, self.taken_usec) = (sample.wall_ms, sample.taken_usec);
        encode([0, 0], sample, &Sample::NOTHING, record);
        self.figures.clear();
        // Figures grow by a byte now and then.
        self.figures.reserve_exact(if record.len() > self.figures.capacity() { record.len() + 8 } else { 0 });
        self.figures.extend_from_slice(record);
    }

    fn get(&self, sample: &mut Sample) {
        sample.figures = Sample::NOTHING.figures;
        sample.extras.copy(&Extras::NONE);
        // Made by us, so that it is whole; where it is not, figures are absent.
        let _ = undo(sample, self.figures.get(2..).unwrap_or_default());
        (sample.wall_ms, sample.taken_usec) = (self.wall_ms, self.taken_usec);
    }
}

impl History {
    /// Of what happens within `window` from now on; zero keeps the newest only.
    pub fn new(window: Duration) -> History {
        let most =
            BYTES_A_MINUTE.saturating_mul(usize::try_from(window.as_secs()).unwrap_or(usize::MAX)) / 60;
        let ring = most.saturating_sub(size_of::<Series>() + GROWTH);
        History { window, began: Instant::now(), ring, held: Mutex::default() }
    }

    /// How far back it goes.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// The time of a snapshot on the clock of [`Sample::taken_usec`].
    fn taken_usec(&self, snapshot: &Snapshot) -> u64 {
        let since = snapshot.monotonic.saturating_duration_since(self.began);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// A row of a snapshot as a sample: the newest may be newer than those kept.
    pub fn sample(&self, snapshot: &Snapshot, row: &CgroupSample) -> Sample {
        Sample {
            wall_ms: snapshot.wall_ms,
            taken_usec: self.taken_usec(snapshot),
            figures: Figures::of(row),
            extras: Extras::of(row),
        }
    }

    /// Takes a snapshot. Readers are waited for: each holds the lock for a copy of
    /// one cgroup's ring.
    pub fn record(&self, snapshot: &Snapshot) {
        let window = u64::try_from(self.window.as_micros()).unwrap_or(u64::MAX);
        let mut held = self.lock();
        let Held { series, scratch } = &mut *held;
        let same = series.len() == snapshot.cgroups.len()
            && series.iter().zip(&snapshot.cgroups).all(|(s, row)| s.is_of(&row.cgroup));
        if !same {
            let mut known = std::mem::take(series).into_iter().peekable();
            series.extend(snapshot.cgroups.iter().map(|row| {
                while known.next_if(|s| s.cgroup.path < row.cgroup.path).is_some() {}
                let known = known.next_if(|s| s.is_of(&row.cgroup));
                known.unwrap_or_else(|| {
                    let first = self.sample(snapshot, row);
                    Series::new(Arc::clone(&row.cgroup), &first, self.ring / 8, &mut scratch.record)
                })
            }));
        }
        (scratch.now.wall_ms, scratch.now.taken_usec) = (snapshot.wall_ms, self.taken_usec(snapshot));
        for (series, row) in series.iter_mut().zip(&snapshot.cgroups) {
            scratch.now.figures = Figures::of(row);
            scratch.now.extras.set(row);
            if !Arc::ptr_eq(&series.cgroup, &row.cgroup) {
                series.cgroup = Arc::clone(&row.cgroup);
            }
            let ring = self.ring.saturating_sub(series.newest.figures.capacity());
            series.take(scratch, ring, window);
        }
    }

    /// The samples kept of the cgroup at `path`, oldest first; `None` where the last
    /// snapshot had none there. Never empty.
    pub fn samples(&self, path: &str) -> Option<Vec<Sample>> {
        self.newest(path, usize::MAX)
    }

    /// The same, but at most the newest `most`, of which there is at least one.
    pub fn newest(&self, path: &str, most: usize) -> Option<Vec<Sample>> {
        let series = {
            let held = self.lock();
            let at = held.series.binary_search_by(|s| s.cgroup.path.as_str().cmp(path)).ok()?;
            held.series.get(at)?.clone()
        };
        let mut samples = series.newest_first(most);
        samples.reverse();
        Some(samples)
    }

    /// The cgroups it has, in order of their paths.
    pub fn cgroups(&self) -> Vec<Arc<Cgroup>> {
        self.lock().series.iter().map(|series| Arc::clone(&series.cgroup)).collect()
    }

    /// Memory it takes, bytes.
    pub fn bytes(&self) -> usize {
        let of = |s: &Series| size_of::<Series>() + s.newest.figures.capacity() + s.records.capacity();
        self.lock().series.iter().map(of).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Each series is whole between two records: a panic elsewhere changes nothing.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Series {
    fn new(cgroup: Arc<Cgroup>, first: &Sample, credit: usize, record: &mut Vec<u8>) -> Series {
        let earned_usec = first.taken_usec;
        let mut newest = Packed::default();
        newest.set(first, record);
        Series { cgroup, newest, records: VecDeque::new(), span_usec: 0, credit, earned_usec }
    }

    /// A name that came later changes nothing; another life of the path does.
    fn is_of(&self, cgroup: &Arc<Cgroup>) -> bool {
        Arc::ptr_eq(&self.cgroup, cgroup)
            || (self.cgroup.path == cgroup.path && self.cgroup.created == cgroup.created)
    }

    /// Takes what is now if there is credit for it.
    fn take(&mut self, scratch: &mut Scratch, ring: usize, window_usec: u64) {
        let Scratch { now: sample, before: newest, record } = scratch;
        self.newest.get(newest);
        let Some(usec) = sample.usec_since(newest) else { return };
        // An eighth less than the ring has, so that the window ends before the ring does.
        let earned = u128::from(sample.taken_usec.saturating_sub(self.earned_usec))
            * (ring - ring / 8) as u128
            / u128::from(window_usec.max(1));
        let earned = usize::try_from(earned).unwrap_or(usize::MAX);
        // Both clocks differ by rounding alone, unless one is set.
        let moved = difference(newest.wall_ms.wrapping_add(usec / 1000), sample.wall_ms);
        encode([usec, moved], newest, sample, record);
        if record.len() > ring {
            self.newest.set(sample, record);
            self.records.clear();
            self.span_usec = 0;
            return;
        }
        if record.len() > self.credit.saturating_add(earned) {
            return;
        }
        self.credit = self.credit.saturating_add(earned).min(ring / 8 + record.len()) - record.len();
        self.earned_usec = sample.taken_usec;
        self.span_usec = self.span_usec.saturating_add(usec);
        while self.records.len() + record.len() > ring || self.span_usec > window_usec {
            if !self.forget_oldest() {
                break;
            }
        }
        if self.records.capacity() - self.records.len() < record.len() {
            self.records.reserve_exact(record.len().max(GROWTH));
        }
        self.records.extend(record.iter());
        self.newest.set(sample, record);
    }

    /// False where there is only the newest sample.
    fn forget_oldest(&mut self) -> bool {
        let mut bytes = self.records.iter().copied();
        let Some(length) = length(&mut bytes) else { return false };
        let usec = varint(&mut bytes).unwrap_or(0);
        self.span_usec = self.span_usec.saturating_sub(usec);
        self.records.drain(..(length + 2).min(self.records.len()));
        true
    }

    /// At most `most` of its samples, and always the newest.
    fn newest_first(mut self, most: usize) -> Vec<Sample> {
        let mut rest: &[u8] = self.records.make_contiguous();
        let mut records = Vec::new();
        while let Some(length) = length(&mut rest.iter().copied()) {
            let Some((record, after)) = rest.get(2..).and_then(|rest| rest.split_at_checked(length)) else {
                break;
            };
            records.push(record);
            rest = after;
        }
        let mut newest = Sample::NOTHING;
        self.newest.get(&mut newest);
        let mut sample = newest.clone();
        let older = records.into_iter().rev().map_while(|record| {
            undo(&mut sample, record)?;
            Some(sample.clone())
        });
        std::iter::once(newest).chain(older).take(most.max(1)).collect()
    }
}

fn length(bytes: &mut impl Iterator<Item = u8>) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes([bytes.next()?, bytes.next()?])))
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return out.push(low & 0x7f);
        }
        out.push(low | 0x80);
    }
}

fn varint(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let byte = bytes.next()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
        shift += 7;
    }
}

/// `to` - `from`, with small numbers for small differences of either sign. All
/// differences fit, since they wrap: absence is a number like any other here.
fn difference(from: u64, to: u64) -> u64 {
    let wrapped = to.wrapping_sub(from);
    (wrapped << 1) ^ 0_u64.wrapping_sub(wrapped >> 63)
}

/// `to` without what [`difference`] says.
fn without(to: u64, difference: u64) -> u64 {
    to.wrapping_sub((difference >> 1) ^ 0_u64.wrapping_sub(difference & 1))
}

/// Makes the record that leads from `old` to `new`, beginning with two numbers.
fn encode(head: [u64; 2], old: &Sample, new: &Sample, out: &mut Vec<u8>) {
    out.clear();
    out.extend([0, 0]);
    head.into_iter().for_each(|number| push_varint(out, number));
    let groups_at = out.len();
    out.push(0);
    let groups = old.figures.0.chunks(GROUP).zip(new.figures.0.chunks(GROUP));
    let mut changed = 0;
    for (group, (old, new)) in groups.enumerate() {
        let mask = old.iter().zip(new).rev().fold(0_u8, |mask, (a, b)| mask << 1 | u8::from(a != b));
        if mask != 0 {
            changed |= 1_u8 << group;
            out.push(mask);
            let differences = old.iter().zip(new).filter(|(a, b)| a != b);
            differences.for_each(|(a, b)| push_varint(out, difference(*a, *b)));
        }
    }
    if let Some(groups) = out.get_mut(groups_at) {
        *groups = changed;
    }
    old.extras.encode(&new.extras, out);
    // 64 figures of 11 bytes at most, and ten times as many of 12.
    let length = u16::try_from(out.len() - 2).unwrap_or(u16::MAX).to_le_bytes();
    out.iter_mut().zip(length).for_each(|(byte, length)| *byte = length);
}

/// Makes `sample` the one before it.
fn undo(sample: &mut Sample, record: &[u8]) -> Option<()> {
    let mut bytes = record.iter().copied();
    let usec = varint(&mut bytes)?;
    let moved = varint(&mut bytes)?;
    sample.taken_usec = sample.taken_usec.wrapping_sub(usec);
    sample.wall_ms = without(sample.wall_ms, moved).wrapping_sub(usec / 1000);
    let groups = bytes.next()?;
    for (group, figures) in sample.figures.0.chunks_mut(GROUP).enumerate() {
        if groups & (1 << group) == 0 {
            continue;
        }
        let mask = bytes.next()?;
        for (bit, figure) in figures.iter_mut().enumerate() {
            if mask & (1 << bit) != 0 {
                *figure = without(*figure, varint(&mut bytes)?);
            }
        }
    }
    sample.extras.undo(&mut bytes)
}
