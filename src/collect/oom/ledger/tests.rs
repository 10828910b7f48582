//! The rule, case by case and on a model of a host: what the kernel kills, counts
//! and logs, and what a ledger makes of the part it is told.

use proptest::prelude::*;

use super::*;

fn cgroup(path: &str) -> Arc<Cgroup> {
    let labels = format!("id=\"{path}\"");
    Arc::new(Cgroup { path: path.to_owned(), labels, ..Cgroup::default() })
}

fn is_whole(path: &str) -> bool {
    path.starts_with("/pod")
}

/// A host: what the kernel knows, and a ledger that is told some of it.
struct Host {
    ledger: Ledger,
    now: Instant,
    next_id: u64,
    /// Path, id, kills of the cgroup alone, kills of the subtree.
    cgroups: Vec<(String, u64, u64, u64)>,
    /// Kills the log has and the next tick takes.
    log: Vec<String>,
    has_log: bool,
    v2: bool,
    /// Ids that the tree of the agent has.
    followed: Vec<u64>,
}

impl Host {
    fn new(has_log: bool, v2: bool) -> Host {
        let mut host = Host {
            ledger: Ledger::default(),
            now: Instant::now(),
            next_id: 1,
            cgroups: Vec::new(),
            log: Vec::new(),
            has_log,
            v2,
            followed: Vec::new(),
        };
        host.make("/");
        host
    }

    fn make(&mut self, path: &str) {
        self.cgroups.push((path.to_owned(), self.next_id, 0, 0));
        self.next_id += 1;
        self.cgroups.sort();
    }

    fn remove(&mut self, path: &str) {
        self.cgroups.retain(|c| c.0 != path);
    }

    /// The kernel kills, counts and then logs.
    fn kill(&mut self, path: &str) {
        for (other, _, own, subtree) in &mut self.cgroups {
            *own += u64::from(other == path);
            *subtree += u64::from(other == path || Below(other).holds(path));
        }
        if self.has_log {
            self.log.push(path.to_owned());
        }
    }

    fn tick_after(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        let at = Moment { now: self.now, wall_ms: 0 };
        for id in std::mem::take(&mut self.followed) {
            if !self.cgroups.iter().any(|c| c.1 == id) {
                self.ledger.left(id, at);
            }
        }
        let ledger = &mut self.ledger;
        ledger.begin(self.has_log);
        for (path, id, ..) in &self.cgroups {
            ledger.found(*id, &cgroup(path));
            self.followed.push(*id);
        }
        let find = |path: &str| self.cgroups.iter().find(|c| c.0 == path).map(|c| c.1);
        for path in self.log.drain(..) {
            assert!(ledger.killed(&path, find(&path), at, |p| find(p).is_some()), "{path}");
        }
        for (path, id, own, subtree) in &self.cgroups {
            let seen = Seen {
                id: *id,
                cgroup: &cgroup(path),
                whole: is_whole(path),
                waits: false,
                counter: Some(*own),
                below: self.v2.then_some(*subtree),
            };
            ledger.look(seen, self.now);
        }
        let whole = |path: &str, _| Described { cgroup: cgroup(path), waits: false, whole: is_whole(path) };
        ledger.settle(at, whole);
    }

    fn tick(&mut self) {
        self.tick_after(1);
    }

    /// What is shown of a path, whether it is there or not.
    fn shown(&mut self, path: &str) -> Option<u64> {
        let index = self.cgroups.iter().position(|c| c.0 == path);
        let live = index.and_then(|index| self.ledger.value(index));
        self.ledger.changed = true;
        let gone = self.ledger.news().unwrap();
        let gone = gone.iter().find(|g| g.cgroup.path == path).map(|g| g.kills);
        assert!(live.is_none() || gone.is_none(), "{path} is both");
        live.or(gone)
    }
}

#[test]
fn a_container_that_dies_of_it_is_counted() {
    for v2 in [false, true] {
        let mut host = Host::new(true, v2);
        host.make("/pod");
        host.make("/pod/c1");
        host.tick();
        assert_eq!((host.shown("/pod"), host.shown("/pod/c1")), (Some(0), Some(0)));
        host.kill("/pod/c1");
        host.remove("/pod/c1");
        host.make("/pod/c2");
        host.tick();
        assert_eq!((host.shown("/pod"), host.shown("/pod/c1")), (Some(1), Some(1)));
        assert_eq!((host.shown("/pod/c2"), host.shown("/")), (Some(0), Some(0)));
        // It stays for ten minutes; the pod keeps it.
        host.tick_after(590);
        assert_eq!(host.shown("/pod/c1"), Some(1));
        host.tick_after(20);
        assert_eq!((host.shown("/pod"), host.shown("/pod/c1")), (Some(1), None));
        host.kill("/pod/c2");
        host.tick();
        assert_eq!((host.shown("/pod"), host.shown("/pod/c2")), (Some(2), Some(1)));
    }
}

#[test]
fn a_container_that_no_tick_saw_is_counted() {
    let mut host = Host::new(true, false);
    host.make("/pod");
    host.tick();
    host.make("/pod/c1");
    host.kill("/pod/c1");
    host.remove("/pod/c1");
    host.tick();
    assert_eq!((host.shown("/pod"), host.shown("/pod/c1")), (Some(1), Some(1)));
    // Of another host's cgroups nothing is known here.
    let at = Moment { now: host.now, wall_ms: 0 };
    assert!(!host.ledger.killed("/docker/x/pod/c1", None, at, |_| false));
}

#[test]
fn the_same_path_goes_on() {
    let mut host = Host::new(true, false);
    host.make("/docker");
    let mut expected = 0;
    for round in 0..4 {
        host.make("/docker/c");
        host.tick();
        assert_eq!(host.shown("/docker/c"), Some(expected));
        host.kill("/docker/c");
        expected += 1;
        if round % 2 == 0 {
            // Seen by its counter, too, and in the next one killed before its first tick.
            host.tick();
            assert_eq!(host.shown("/docker/c"), Some(expected));
        }
        host.remove("/docker/c");
        if round == 3 {
            host.make("/docker/c");
            host.kill("/docker/c");
            expected += 1;
            host.tick();
            assert_eq!(host.shown("/docker/c"), Some(expected));
            host.kill("/docker/c");
            host.tick();
            assert_eq!(host.shown("/docker/c"), Some(expected + 1));
            host.remove("/docker/c");
        }
        host.tick();
    }
}

#[test]
fn kills_before_the_start_are_the_counters() {
    let mut host = Host::new(true, true);
    host.make("/pod");
    host.make("/pod/c1");
    host.kill("/pod/c1");
    host.log.clear();
    host.tick();
    assert_eq!(host.shown("/pod/c1"), Some(1));
    host.kill("/pod/c1");
    host.remove("/pod/c1");
    host.tick();
    assert_eq!((host.shown("/pod"), host.shown("/pod/c1")), (Some(2), Some(2)));
}

#[test]
fn a_kill_at_the_start_is_counted_once() {
    // Counted at the first look, and told only after it.
    let mut host = Host::new(true, false);
    host.make("/c1");
    host.kill("/c1");
    let late = std::mem::take(&mut host.log);
    host.tick();
    host.log = late;
    host.tick();
    assert_eq!(host.shown("/c1"), Some(1));
    host.kill("/c1");
    host.remove("/c1");
    host.tick();
    assert_eq!(host.shown("/c1"), Some(2));
}

#[test]
fn without_a_log_the_pods_counter_tells() {
    let mut host = Host::new(false, true);
    host.make("/pod");
    host.make("/pod/c1");
    host.make("/pod/c2");
    // A kill in a container that was gone before the agent came is the pod's.
    host.make("/pod/c0");
    host.kill("/pod/c0");
    host.remove("/pod/c0");
    host.tick();
    assert_eq!((host.shown("/pod"), host.shown("/pod/c1")), (Some(1), Some(0)));
    host.kill("/pod/c1");
    host.remove("/pod/c1");
    host.tick();
    assert_eq!((host.shown("/pod"), host.shown("/pod/c1")), (Some(2), Some(1)));
    // Two at a time: the pod's is sure, whose it was is not.
    host.make("/pod/c3");
    host.tick();
    host.kill("/pod/c3");
    host.remove("/pod/c3");
    host.remove("/pod/c2");
    host.tick();
    assert_eq!(host.shown("/pod"), Some(3));
    assert_eq!((host.shown("/pod/c2"), host.shown("/pod/c3")), (None, None));
}

#[test]
fn the_log_is_brought_up_after_an_overrun() {
    let mut host = Host::new(true, false);
    host.make("/c1");
    host.tick();
    host.kill("/c1");
    host.log.clear();
    (0..12).for_each(|_| host.tick());
    assert_eq!(host.shown("/c1"), Some(1));
    host.kill("/c1");
    host.remove("/c1");
    host.tick();
    assert_eq!(host.shown("/c1"), Some(2));
}

#[test]
fn each_source_fills_the_others_gap() {
    let mut host = Host::new(true, false);
    host.make("/c1");
    host.tick();
    // Told by the log only: the counter went with its cgroup.
    host.kill("/c1");
    host.remove("/c1");
    host.make("/c1");
    host.tick();
    assert_eq!(host.shown("/c1"), Some(1));
    // Told by the counter only: the record was lost.
    host.kill("/c1");
    host.log.clear();
    host.tick();
    assert_eq!(host.shown("/c1"), Some(2));
}

#[test]
fn kernels_without_counters_have_the_log() {
    let mut ledger = Ledger::default();
    let at = Moment { now: Instant::now(), wall_ms: 0 };
    for has_log in [false, true] {
        ledger.begin(has_log);
        for (id, path) in [(1, "/"), (2, "/pod"), (3, "/pod/c1")] {
            ledger.found(id, &cgroup(path));
            if has_log && id == 3 {
                assert!(ledger.killed(path, Some(id), at, |_| true));
            }
            let cgroup = &cgroup(path);
            let whole = is_whole(path);
            ledger.look(Seen { id, cgroup, whole, waits: false, counter: None, below: None }, at.now);
        }
        ledger.settle(at, |_, _| unreachable!());
        let values = [0, 1, 2].map(|index| ledger.value(index));
        assert_eq!(values, if has_log { [Some(0), Some(1), Some(1)] } else { [None; 3] });
    }
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut host = Host::new(true, false);
    for round in 0..MAX_GONE + 100 {
        let path = format!("/c{round}");
        host.make(&path);
        host.tick_after(0);
        if round % 100 == 0 {
            host.kill(&path);
        }
        host.remove(&path);
    }
    host.tick();
    assert_eq!(host.ledger.gone.len(), MAX_GONE);
    // Those with kills stay rather than those without.
    assert_eq!(host.shown("/c0"), Some(1));
    host.tick_after(61);
    assert_eq!(host.ledger.gone.len(), (MAX_GONE + 100).div_ceil(100));
    host.tick_after(600);
    assert!(host.ledger.gone.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Make(u8),
    Remove(u8),
    Kill(u8),
    /// The log reaches the agent some ticks late.
    Lag,
    Tick,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let path = 0..4u8;
    let step = prop_oneof![
        2 => path.clone().prop_map(Step::Make),
        2 => path.clone().prop_map(Step::Remove),
        3 => path.prop_map(Step::Kill),
        1 => Just(Step::Lag),
        3 => Just(Step::Tick),
    ];
    proptest::collection::vec(step, 0..60)
}

/// Whatever happens, each kill is counted once: on its path, and on the pod.
/// Without a log whose it was may be unknown, but none is counted twice, and the
/// pod's counter misses none.
fn holds(has_log: bool, v2: bool, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut host = Host::new(has_log, v2);
    host.make("/pod");
    host.tick();
    let path = |n: &u8| format!("/pod/c{n}");
    let mut killed = [0u64; 4];
    let mut last = [0u64; 4];
    for step in steps.iter().chain([&Step::Tick]) {
        match step {
            Step::Make(n) if !host.cgroups.iter().any(|c| c.0 == path(n)) => host.make(&path(n)),
            Step::Remove(n) => host.remove(&path(n)),
            Step::Kill(n) if host.cgroups.iter().any(|c| c.0 == path(n)) => {
                host.kill(&path(n));
                killed[usize::from(*n)] += 1;
            }
            Step::Lag => {
                // Told in the tick after the next, as when the thread had no time.
                let late = std::mem::take(&mut host.log);
                host.tick();
                host.log = late;
            }
            Step::Tick => {
                host.tick();
                for n in 0..4u8 {
                    let at = usize::from(n);
                    let shown = host.shown(&path(&n)).unwrap_or(0);
                    prop_assert!(!has_log || shown <= killed[at], "{n}: {shown} of {}", killed[at]);
                    prop_assert!(shown >= last[at], "{n} falls from {} to {shown}", last[at]);
                    last[at] = shown;
                }
                prop_assert!(last.iter().sum::<u64>() <= killed.iter().sum(), "{last:?} of {killed:?}");
            }
            Step::Make(_) | Step::Kill(_) => {}
        }
    }
    if has_log {
        prop_assert_eq!(last, killed);
    }
    if has_log || v2 {
        prop_assert_eq!(host.shown("/pod"), Some(killed.iter().sum()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn never_twice_and_never_lost(has_log: bool, v2: bool, steps in steps()) {
        holds(has_log, v2, &steps)?;
    }
}
