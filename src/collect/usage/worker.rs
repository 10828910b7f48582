//! The threads that measure: one decides whose turn it is, one touches disks.
//!
//! Whatever touches a disk may hang for ever, so the thread that does is left
//! behind when it shows no sign of life, with what it was measuring, and another
//! takes its place. What takes long gives way after a quantum and goes on later,
//! so that one huge tree does not hold up the others.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use nix::time::{ClockId, clock_gettime};

use super::layer::{Finder, Layer};
use super::pace::Pacer;
use super::survey::{Subject, Survey};
use super::walk::Step;
use crate::kernel::ReadError;
use crate::snapshot::DiskUsage;

/// Time between two measurements of the same container or pod, where the budget allows.
const PERIOD: Duration = Duration::from_secs(60);

/// A container younger than this is still being made: its processes have not
/// changed their root yet.
const MAKING: Duration = Duration::from_secs(5);

/// CPU time after which another one has its turn.
const QUANTUM: Duration = Duration::from_millis(20);

/// Measurements that may be suspended half-way at the same time.
const MAX_SUSPENDED: usize = 4;

/// Threads that may be left behind; beyond that nothing is measured until one returns.
const MAX_STUCK: usize = 8;

/// Longest time between two tables.
const PUBLISH: Duration = Duration::from_millis(100);

/// Longest pause without a sign of life.
const NAP: Duration = Duration::from_millis(250);

/// Places named in the log at most.
const MAX_NAMED: usize = 64;

/// What is known of each cgroup, by id.
pub(super) type Table = HashMap<u64, Arc<DiskUsage>>;

/// Measures a little of a survey: [`Survey::step`], or what a test says.
pub(super) type Advance = Arc<dyn Fn(&mut Survey, &mut Finder) -> Step + Send + Sync>;

/// What the deciding thread is told.
pub(super) enum Event {
    /// These are to be measured, and no others.
    Subjects(Vec<Subject>),
    /// A survey comes back from a thread.
    Back { from: u64, survey: Box<Survey>, step: Step },
    /// End.
    Stop,
}

/// What both threads need.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) usec_per_second: u32,
    /// Silence after which a thread counts as stuck.
    pub(super) patience: Duration,
    pub(super) finder: Arc<dyn Fn() -> Finder + Send + Sync>,
    pub(super) advance: Advance,
    pub(super) stop: Arc<Stop>,
}

/// Ends pauses for good.
#[derive(Debug, Default)]
pub(super) struct Stop {
    stopped: Mutex<bool>,
    told: Condvar,
}

impl Stop {
    pub(super) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.told.notify_all();
    }

    /// Waits, and says whether it is to end.
    fn pause(&self, long: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.told.wait_timeout_while(stopped, long, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

struct Entry {
    subject: Arc<Subject>,
    usage: Arc<DiskUsage>,
    layer: Option<Layer>,
    /// In the hands of a thread, or suspended.
    away: bool,
}

/// A thread that touches disks.
struct Walker {
    id: u64,
    surveys: Sender<Box<Survey>>,
    beat: Arc<AtomicU64>,
    /// Whose survey it has, and its last sign of life.
    busy: Option<(Arc<Subject>, u64, Instant)>,
}

pub(super) struct Worker {
    means: Means,
    events: Sender<Event>,
    table: Arc<ArcSwap<Table>>,
    entries: HashMap<u64, Box<Entry>>,
    /// What most have: one for all of them.
    nothing: Arc<DiskUsage>,
    due: BTreeSet<(Instant, u64)>,
    suspended: VecDeque<Box<Survey>>,
    /// Whether a suspended one was the last to have its turn.
    resumed: bool,
    walker: Option<Walker>,
    stuck: Vec<Walker>,
    walkers: u64,
    named: HashSet<(PathBuf, &'static str)>,
    /// Since when there is something that is not in the table.
    changed: bool,
    published: Option<Instant>,
}

impl Worker {
    pub(super) fn new(means: Means, events: Sender<Event>, table: Arc<ArcSwap<Table>>) -> Worker {
        Worker {
            means,
            events,
            table,
            entries: HashMap::new(),
            nothing: Arc::default(),
            due: BTreeSet::new(),
            suspended: VecDeque::new(),
            resumed: false,
            walker: None,
            stuck: Vec::new(),
            walkers: 0,
            named: HashSet::new(),
            changed: false,
            published: None,
        }
    }

    pub(super) fn run(mut self, events: &Receiver<Event>) {
        loop {
            self.watch();
            self.dispatch();
            match events.recv_timeout(self.wait()) {
                Ok(Event::Subjects(subjects)) => self.replace(subjects),
                Ok(Event::Back { from, survey, step }) => self.back(from, survey, step),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            self.publish();
        }
    }

    /// How long nothing will have to be done.
    fn wait(&self) -> Duration {
        let now = Instant::now();
        let due = self.due.first().map_or(PERIOD, |(at, _)| at.saturating_duration_since(now));
        let idle = self.walker.as_ref().is_none_or(|w| w.busy.is_none());
        let wait = if idle && self.stuck.len() < MAX_STUCK { due } else { self.means.patience / 4 };
        if self.changed { wait.min(PUBLISH) } else { wait }.max(Duration::from_millis(1))
    }

    fn replace(&mut self, subjects: Vec<Subject>) {
        let mut old = std::mem::take(&mut self.entries);
        let now = Instant::now();
        for subject in subjects {
            let id = subject.id;
            let entry = match old.remove(&id) {
                Some(mut known) => {
                    let more = known.subject.cgroup.storage != subject.cgroup.storage;
                    if more && !known.away {
                        self.due.insert((now, id));
                    }
                    known.subject = Arc::new(subject);
                    known
                }
                None => {
                    let age = subject.cgroup.created.map(|c| SystemTime::UNIX_EPOCH + Duration::from_secs(c));
                    let young = age.and_then(|a| a.elapsed().ok()).is_some_and(|age| age < MAKING);
                    self.due.insert((if young { now + MAKING } else { now }, id));
                    let usage = Arc::clone(&self.nothing);
                    Box::new(Entry { subject: Arc::new(subject), usage, layer: None, away: false })
                }
            };
            self.entries.insert(id, entry);
        }
        let entries = &self.entries;
        self.due.retain(|(_, id)| entries.contains_key(id));
        self.suspended.retain(|survey| entries.contains_key(&survey.subject.id));
        self.changed = true;
    }

    /// Gives the thread the next survey: by turns one that is due and one that
    /// was suspended.
    fn dispatch(&mut self) {
        if self.walker.as_ref().is_some_and(|w| w.busy.is_some()) || self.stuck.len() >= MAX_STUCK {
            return;
        }
        let fresh = || self.due.first().is_some_and(|(at, _)| *at <= Instant::now());
        let resume = !self.suspended.is_empty() && (!self.resumed || !fresh());
        let survey = if resume { self.suspended.pop_front() } else { self.fresh() };
        self.resumed = resume;
        let Some(survey) = survey else { return };
        let subject = Arc::clone(&survey.subject);
        if self.walker.is_none() {
            self.walker = self.start();
        }
        let Some(walker) = &mut self.walker else { return };
        walker.busy = Some((subject, walker.beat.load(Ordering::Relaxed), Instant::now()));
        if let Err(SendError(survey)) = walker.surveys.send(survey) {
            // Its thread is gone; another one goes on.
            self.walker = None;
            self.suspended.push_front(survey);
        }
    }

    /// A new survey of the one that is due longest.
    fn fresh(&mut self) -> Option<Box<Survey>> {
        let now = Instant::now();
        while let Some((at, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, id));
            if let Some(entry) = self.entries.get_mut(&id).filter(|entry| !entry.away) {
                entry.away = true;
                let (subject, before) = (Arc::clone(&entry.subject), Arc::clone(&entry.usage));
                return Some(Box::new(Survey::new(subject, entry.layer.clone(), before)));
            }
        }
        None
    }

    fn back(&mut self, from: u64, survey: Box<Survey>, step: Step) {
        if let Some(walker) = self.walker.as_mut().filter(|w| w.id == from) {
            walker.busy = None;
        }
        if self.stuck.iter().any(|w| w.id == from) {
            self.stuck.retain(|w| w.id != from);
            tracing::info!(cgroup = survey.subject.cgroup.path, "disk usage goes on: the disk answers again");
        }
        let id = survey.subject.id;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let now = Instant::now();
        if step == Step::More {
            if self.suspended.len() < MAX_SUSPENDED {
                self.suspended.push_back(survey);
            } else {
                // Begun anew when those are through.
                entry.away = false;
                self.due.insert((now + PERIOD, id));
            }
            return;
        }
        entry.away = false;
        entry.layer = survey.layer;
        if *entry.usage != survey.usage {
            entry.usage = Arc::new(survey.usage);
            self.changed = true;
        }
        let more = survey.subject.cgroup.storage != entry.subject.cgroup.storage;
        self.due.insert((if more { now } else { now + PERIOD }, id));
        for (path, error) in survey.troubles {
            self.name(path, error);
        }
    }

    /// Names a place that cannot be measured, once for all below the same
    /// directory: in a container only some of the host's are mounted.
    fn name(&mut self, path: PathBuf, error: ReadError) {
        let reason = match error {
            ReadError::Gone => "not there",
            ReadError::Denied => "permission denied",
            ReadError::Unsupported
            | ReadError::Exhausted
            | ReadError::Os(_)
            | ReadError::Malformed { .. }
            | ReadError::TooLarge => "failed",
        };
        let directory: PathBuf = path.components().take(4).collect();
        if self.named.len() < MAX_NAMED && self.named.insert((directory.clone(), reason)) {
            let directory = directory.display();
            tracing::info!(%directory, %error, path = %path.display(), "no disk usage below a directory that cannot be read here");
        }
    }

    /// Leaves a thread behind that shows no sign of life.
    fn watch(&mut self) {
        let Some(walker) = &mut self.walker else { return };
        let Some((subject, beat, since)) = &mut walker.busy else { return };
        let now = walker.beat.load(Ordering::Relaxed);
        if now != *beat {
            (*beat, *since) = (now, Instant::now());
        } else if since.elapsed() >= self.means.patience {
            tracing::warn!(cgroup = subject.cgroup.path, "a disk does not answer: its usage keeps its age");
            self.stuck.extend(self.walker.take());
        }
    }

    fn publish(&mut self) {
        if !self.changed || self.published.is_some_and(|at| at.elapsed() < PUBLISH) {
            return;
        }
        let told = |e: &&Entry| *e.usage != DiskUsage::default();
        let told =
            self.entries.values().map(Box::as_ref).filter(told).map(|e| (e.subject.id, Arc::clone(&e.usage)));
        self.table.store(Arc::new(told.collect()));
        self.changed = false;
        self.published = Some(Instant::now());
    }

    fn start(&mut self) -> Option<Walker> {
        self.walkers += 1;
        let (id, means, events) = (self.walkers, self.means.clone(), self.events.clone());
        let (surveys, taken) = channel();
        let beat = Arc::new(AtomicU64::new(0));
        let shown = Arc::clone(&beat);
        let run = move || walk(id, &means, &taken, &events, &shown);
        thread::Builder::new().name("disk-walk".to_owned()).spawn(run).ok()?;
        Some(Walker { id, surveys, beat, busy: None })
    }
}

/// Measures whatever it is given, within the budget.
fn walk(id: u64, means: &Means, surveys: &Receiver<Box<Survey>>, events: &Sender<Event>, beat: &AtomicU64) {
    // The niceness of a thread also puts its I/O last among those without a class;
    // the idle class itself would need a system call that no library wraps.
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        tracing::debug!(%error, "the walker runs at normal priority");
    }
    let mut finder = (means.finder)();
    let mut pacer = Pacer::new(means.usec_per_second);
    for mut survey in surveys {
        let begun = cpu_time();
        let mut step = Step::More;
        while step == Step::More && cpu_time().saturating_sub(begun) < QUANTUM {
            let (cpu, wall) = (cpu_time(), Instant::now());
            step = (means.advance)(&mut survey, &mut finder);
            beat.fetch_add(1, Ordering::Relaxed);
            let mut left = pacer.worked(cpu_time().saturating_sub(cpu), wall.elapsed());
            while !left.is_zero() {
                let nap = left.min(NAP);
                if means.stop.pause(nap) {
                    return;
                }
                left = left.saturating_sub(nap);
                beat.fetch_add(1, Ordering::Relaxed);
            }
        }
        survey.suspend();
        if events.send(Event::Back { from: id, survey, step }).is_err() {
            return;
        }
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::kernel::Roots;
    use crate::snapshot::{Cgroup, LogDirectory, Storage};

    fn subject(id: u64, logs: &Path) -> Subject {
        let storage = Storage { logs: Some(LogDirectory::Tree(logs.into())), ..Storage::default() };
        let cgroup = Arc::new(Cgroup { path: format!("/{id}"), storage, ..Cgroup::default() });
        Subject { id, cgroup, relative: c"none".into() }
    }

    struct Running {
        events: Sender<Event>,
        table: Arc<ArcSwap<Table>>,
        stop: Arc<Stop>,
        worker: Option<thread::JoinHandle<()>>,
    }

    impl Running {
        fn start(patience: Duration, advance: Advance) -> Running {
            let stop = Arc::<Stop>::default();
            let means = Means {
                usec_per_second: 1_000_000,
                patience,
                finder: Arc::new(|| Finder::new(Roots::new("/".as_ref()), "/nonexistent".into())),
                advance,
                stop: Arc::clone(&stop),
            };
            let table = Arc::new(ArcSwap::default());
            let (events, received) = channel();
            let worker = Worker::new(means, events.clone(), Arc::clone(&table));
            let worker = Some(thread::spawn(move || worker.run(&received)));
            Running { events, table, stop, worker }
        }

        fn tell(&self, subjects: Vec<Subject>) {
            self.events.send(Event::Subjects(subjects)).unwrap();
        }

        /// Waits until the table is as it should be.
        fn until(&self, what: &str, holds: impl Fn(&Table) -> bool) {
            let deadline = Instant::now() + Duration::from_secs(120);
            while !holds(&self.table.load()) {
                assert!(Instant::now() < deadline, "{what}: {:?}", self.table.load());
                thread::park_timeout(Duration::from_millis(5));
            }
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.stop.stop();
            let _ = self.events.send(Event::Stop);
            if let Some(worker) = self.worker.take() {
                let _ = worker.join();
            }
        }
    }

    fn trees(count: usize) -> Vec<tempfile::TempDir> {
        let trees: Vec<_> = (0..count).map(|_| tempfile::tempdir().unwrap()).collect();
        trees.iter().for_each(|t| std::fs::write(t.path().join("0.log"), vec![1; 9000]).unwrap());
        trees
    }

    #[test]
    fn all_are_measured_and_those_gone_are_forgotten() {
        let trees = trees(5);
        let running = Running::start(Duration::from_secs(60), Arc::new(Survey::step));
        let all = |range: std::ops::Range<u64>| -> Vec<Subject> {
            range.zip(&trees).map(|(id, tree)| subject(id, tree.path())).collect()
        };
        running.tell(all(0..5));
        running.until("five", |t| t.len() == 5);
        let part = running.table.load()[&4].logs.clone().unwrap();
        assert!(part.used_bytes >= 9000 && part.inodes == Some(2), "{part:?}");
        running.tell(all(0..2));
        running.until("two", |t| t.len() == 2);
    }

    #[test]
    fn a_disk_that_hangs_holds_up_nobody_else() {
        let trees = trees(3);
        // Whoever wants to touch the first tree waits for this.
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let hang = Arc::clone(&gate);
        let advance: Advance = Arc::new(move |survey, finder| {
            if survey.subject.id == 0 {
                drop(hang.lock());
            }
            survey.step(finder)
        });
        let running = Running::start(Duration::from_millis(200), advance);
        running.tell(trees.iter().zip(0..).map(|(tree, id)| subject(id, tree.path())).collect());
        running.until("the others", |t| t.contains_key(&1) && t.contains_key(&2));
        assert!(!running.table.load().contains_key(&0));
        drop(closed);
        running.until("the one that hung", |t| t.len() == 3);
    }

    #[test]
    fn a_large_tree_gives_way_to_small_ones() {
        let trees = trees(3);
        // The first needs more than a quantum until the others are through.
        let others = Arc::new(Mutex::new(0));
        let (seen, turns) = (Arc::clone(&others), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&turns);
        let advance: Advance = Arc::new(move |survey, finder| {
            if survey.subject.id == 0 && *seen.lock().unwrap() < 2 {
                let begun = cpu_time();
                while cpu_time().saturating_sub(begun) <= QUANTUM {}
                counted.fetch_add(1, Ordering::Relaxed);
                return Step::More;
            }
            let step = survey.step(finder);
            if survey.subject.id != 0 && step == Step::Done {
                *seen.lock().unwrap() += 1;
            }
            step
        });
        let running = Running::start(Duration::from_secs(60), advance);
        running.tell(trees.iter().zip(0..).map(|(tree, id)| subject(id, tree.path())).collect());
        running.until("all", |t| t.len() == 3);
        assert!(turns.load(Ordering::Relaxed) >= 1, "the large one was not first");
    }
}
