//! The log of steps beside a model of it, on a disk that fails in every way.
//!
//! The model has, for each sink, the steps it is owed. After every action the
//! log must owe the same, except for as many as its counters say were dropped.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nodegauge::push::log::{Log, Options, Order, SinkName};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::log::payload;
use crate::standin::Chance;
use crate::standin::disk::Disk;

const SINKS: [&str; 2] = ["database", "aggregator"];

#[derive(Debug, Clone)]
enum Action {
    Push(usize),
    Read(usize, bool, usize),
    /// So many, from the newest or the oldest.
    Acknowledge(usize, bool, usize),
    Refill(usize),
    /// After so many changes, with a power cut or not, and its seed.
    Crash(u64, bool, u64),
    Full(bool),
    Room(u64),
    Close,
    Wait(u64),
    /// A stop, and so many bytes less of the file.
    Cut(u64),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        8 => (0usize..60_000).prop_map(Action::Push),
        3 => (0usize..2, any::<bool>(), 1usize..4).prop_map(|(s, o, n)| Action::Read(s, o, n)),
        6 => (0usize..2, any::<bool>(), 1usize..4).prop_map(|(s, o, n)| Action::Acknowledge(s, o, n)),
        1 => (0usize..2).prop_map(Action::Refill),
        2 => (0u64..60, any::<bool>(), any::<u64>()).prop_map(|(n, cut, seed)| Action::Crash(n, cut, seed)),
        1 => any::<bool>().prop_map(Action::Full),
        1 => (1u64..4).prop_map(|mib| Action::Room(mib << 20)),
        1 => Just(Action::Close),
        1 => (1u64..400).prop_map(Action::Wait),
        1 => (1u64..65_536).prop_map(Action::Cut),
    ];
    prop::collection::vec(action, 1..60)
}

struct Step {
    time_ms: u64,
    payload: Vec<u8>,
    /// Whether a kill spares it.
    durable: bool,
}

struct Test {
    disk: Disk,
    clock: Arc<AtomicU64>,
    log: Option<Log>,
    /// What each sink is owed.
    owed: [VecDeque<u64>; 2],
    /// Every step that was ever appended.
    steps: BTreeMap<u64, Step>,
    /// Those of calls in which the process died: their pieces may be in the file.
    ghosts: Vec<(u64, Step)>,
    /// The drops for damage that cuts are to blame for.
    damaged: [u64; 2],
    /// The drops of each sink that were counted at the last look.
    dropped: [u64; 2],
    /// The same when the file had last everything: what a kill cannot undo.
    written: [u64; 2],
    /// Acknowledged while the file could not be written: a kill may undo it.
    unsafe_acks: [Vec<u64>; 2],
    /// Made pending again at such a time.
    unsafe_refills: [Vec<u64>; 2],
}

impl Test {
    fn new() -> Test {
        let clock = Arc::new(AtomicU64::new(1_700_000_000_000));
        let owed = [VecDeque::new(), VecDeque::new()];
        let mut test = Test {
            disk: Disk::default(),
            clock,
            log: None,
            owed,
            steps: BTreeMap::new(),
            ghosts: Vec::new(),
            damaged: [0; 2],
            dropped: [0; 2],
            written: [0; 2],
            unsafe_acks: [Vec::new(), Vec::new()],
            unsafe_refills: [Vec::new(), Vec::new()],
        };
        test.open();
        test
    }

    fn sinks() -> [SinkName; 2] {
        SINKS.map(SinkName::new)
    }

    fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    fn open(&mut self) {
        self.log = None;
        let clock = Arc::clone(&self.clock);
        let options = Options {
            max_bytes: 8 << 20,
            keep_acknowledged: Duration::from_secs(300),
            max_memory_bytes: 200_000,
            ..Options::default()
        };
        let now = Arc::new(move || clock.load(Ordering::Relaxed));
        let (log, _) = Log::open_on(self.disk.medium(), options, &Test::sinks(), now).unwrap();
        self.log = Some(log);
    }

    fn dropped(&self, sink: usize) -> u64 {
        let status = self.log().status(&Test::sinks()[sink]).unwrap();
        status.dropped.iter().map(|(_, count)| count).sum()
    }

    fn all(&self, sink: usize, order: Order) -> Vec<u64> {
        let records = self.log().next(&Test::sinks()[sink], order, usize::MAX).unwrap();
        for record in &records {
            let step = &self.steps[&record.sequence];
            assert_eq!(record.time_ms, step.time_ms);
            assert!(record.payload == step.payload, "payload of {}", record.sequence);
        }
        records.iter().map(|record| record.sequence).collect()
    }

    /// The log owes what the model does, but for what it counted as dropped.
    fn compare(&mut self) {
        for (sink, name) in SINKS.iter().enumerate() {
            let status = self.log().status(&Test::sinks()[sink]).unwrap();
            let found = self.all(sink, Order::OldestFirst);
            let mut backwards = self.all(sink, Order::NewestFirst);
            backwards.reverse();
            assert_eq!(found, backwards);
            assert_eq!(status.steps, u64::try_from(found.len()).unwrap());
            let strange: Vec<_> = found.iter().filter(|s| !self.owed[sink].contains(s)).collect();
            assert!(strange.is_empty(), "{} is given {strange:?}", name);
            let missing = self.owed[sink].len() - found.len();
            let counted = self.dropped(sink);
            let damaged = status.dropped.iter().find(|(reason, _)| *reason == "damaged").unwrap().1;
            assert_eq!(damaged, self.damaged[sink], "nothing but a cut damages what was synced");
            assert_eq!(u64::try_from(missing).unwrap(), counted - self.dropped[sink], "{}", name);
            self.dropped[sink] = counted;
            if self.log().trouble().is_none() {
                self.written[sink] = counted;
            } else {
                // Dropped here and not yet in the file: a kill brings it back.
                let gone = self.owed[sink].iter().filter(|s| !found.contains(s));
                self.unsafe_acks[sink].extend(gone);
            }
            self.owed[sink] = found.into();
        }
        assert!(self.disk.longest() <= 8 << 20, "{}", self.disk.longest());
    }

    /// After a kill: what was durable is there, and nothing that never was.
    fn recover(&mut self, in_flight: &[u64]) {
        self.open();
        for (sink, name) in SINKS.iter().enumerate() {
            let found = self.all(sink, Order::OldestFirst);
            let dropped = self.dropped(sink);
            let missing: Vec<u64> = self.owed[sink]
                .iter()
                .copied()
                .filter(|s| !found.contains(s) && self.steps[s].durable && !in_flight.contains(s))
                .filter(|s| !self.unsafe_refills[sink].contains(s))
                .collect();
            let counted = dropped.checked_sub(self.written[sink]).expect("no count is lost");
            assert!(
                u64::try_from(missing.len()).unwrap() <= counted,
                "{name} lost {missing:?}, counted {counted}"
            );
            for sequence in &found {
                let known = self.owed[sink].contains(sequence)
                    || in_flight.contains(sequence)
                    || self.unsafe_acks[sink].contains(sequence);
                assert!(known, "{} is given {sequence} again", name);
            }
            self.owed[sink] = found.into();
            self.unsafe_acks[sink].clear();
            self.unsafe_refills[sink].clear();
            (self.dropped[sink], self.written[sink]) = (dropped, dropped);
        }
        // A process that died in the call never told the number, which may come again.
        let next = self.log().next_sequence();
        for sequence in in_flight.iter().filter(|sequence| **sequence >= next) {
            self.ghosts.extend(self.steps.remove(sequence).map(|step| (*sequence, step)));
        }
        self.steps.values_mut().for_each(|step| step.durable = true);
    }

    /// After a cut: it starts, and what is there was appended. How much may be gone
    /// depends on the sizes, of which the tests of the file itself are.
    fn survive(&mut self) {
        self.open();
        for sink in 0..SINKS.len() {
            for record in self.log().next(&Test::sinks()[sink], Order::OldestFirst, usize::MAX).unwrap() {
                let is = |step: &Step| step.time_ms == record.time_ms && step.payload == record.payload;
                let ghost = self.ghosts.iter().position(|(s, step)| *s == record.sequence && is(step));
                if let Some(at) = ghost
                    && !self.steps.get(&record.sequence).is_some_and(is)
                {
                    let (sequence, step) = self.ghosts.swap_remove(at);
                    self.steps.insert(sequence, Step { durable: true, ..step });
                }
            }
            let found = self.all(sink, Order::OldestFirst);
            self.owed[sink] = found.into();
            let status = self.log().status(&Test::sinks()[sink]).unwrap();
            self.damaged[sink] = status.dropped.iter().find(|(reason, _)| *reason == "damaged").unwrap().1;
            let dropped = self.dropped(sink);
            (self.dropped[sink], self.written[sink]) = (dropped, dropped);
            self.unsafe_acks[sink].clear();
            self.unsafe_refills[sink].clear();
        }
    }

    fn push(&mut self, length: usize) -> u64 {
        let time_ms = self.clock.load(Ordering::Relaxed);
        let probe = self.log().next_sequence();
        let payload = payload(probe, length);
        let result = self.log().append(time_ms, &payload).unwrap();
        assert_eq!(result.sequence, probe);
        assert!(!self.steps.contains_key(&probe), "sequence {probe} again");
        self.steps.insert(probe, Step { time_ms, payload, durable: result.durable });
        for owed in &mut self.owed {
            owed.push_back(probe);
        }
        if result.durable {
            // Everything that waited went with it.
            self.steps.values_mut().for_each(|step| step.durable = true);
            self.unsafe_acks = [Vec::new(), Vec::new()];
            self.unsafe_refills = [Vec::new(), Vec::new()];
        }
        probe
    }

    fn acknowledge(&mut self, sink: usize, newest: bool, count: usize) -> Vec<u64> {
        let order = if newest { Order::NewestFirst } else { Order::OldestFirst };
        let name = &Test::sinks()[sink];
        let records = match self.log().next(name, order, count) {
            Err(_) if self.disk.is_dead() => return Vec::new(),
            records => records.unwrap(),
        };
        let sent: Vec<u64> = records.iter().map(|record| record.sequence).collect();
        self.log().acknowledge(name, &sent).unwrap();
        self.owed[sink].retain(|sequence| !sent.contains(sequence));
        if self.log().trouble().is_some() {
            self.unsafe_acks[sink].extend(&sent);
        }
        sent
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Push(length) => drop(self.push(length)),
            Action::Read(sink, newest, count) => {
                let order = if newest { Order::NewestFirst } else { Order::OldestFirst };
                let records = self.log().next(&Test::sinks()[sink], order, count).unwrap();
                let got: Vec<u64> = records.iter().map(|record| record.sequence).collect();
                let owed = &self.owed[sink];
                let expected: Vec<u64> = match newest {
                    true => owed.iter().rev().take(count).copied().collect(),
                    false => owed.iter().take(count).copied().collect(),
                };
                assert_eq!(got, expected);
            }
            Action::Acknowledge(sink, newest, count) => drop(self.acknowledge(sink, newest, count)),
            Action::Refill(sink) => {
                let again = self.log().refill(&Test::sinks()[sink]).unwrap();
                let since = self.clock.load(Ordering::Relaxed) - 300_000;
                let found = self.all(sink, Order::OldestFirst);
                let new: Vec<u64> = found.iter().copied().filter(|s| !self.owed[sink].contains(s)).collect();
                assert!(new.iter().all(|s| self.steps[s].time_ms >= since));
                // A refill needs little room and costs no step.
                assert_eq!(u64::try_from(new.len()).unwrap(), again);
                if self.log().trouble().is_some() {
                    self.unsafe_refills[sink].extend(&new);
                }
                self.owed[sink].extend(new);
                self.owed[sink].make_contiguous().sort_unstable();
            }
            Action::Crash(changes, power_cut, seed) => {
                self.disk.die_after(changes);
                let mut touched = Vec::new();
                // Until it is dead, the next step is appended and one acknowledged.
                for round in 0..8 {
                    if self.disk.is_dead() {
                        break;
                    }
                    let pushed = self.push(20_000);
                    // A step that was said to be durable is none that may be lost.
                    if self.disk.is_dead() && !self.steps[&pushed].durable {
                        touched.push(pushed);
                    }
                    if round % 2 == 0 && !self.disk.is_dead() {
                        let sent = self.acknowledge(round / 2 % 2, round % 4 == 0, 1);
                        if self.disk.is_dead() {
                            touched.extend(sent);
                        }
                    }
                }
                self.disk.die_after(0);
                self.log = None;
                self.disk.fill(false);
                self.disk.room(None);
                let mut chance = Chance::new(seed);
                self.disk.restart(|n| chance.below(n), power_cut);
                self.recover(&touched);
            }
            Action::Full(full) => self.disk.fill(full),
            Action::Room(room) => self.disk.room(Some(room)),
            Action::Close => {
                self.disk.fill(false);
                self.disk.room(None);
                // What is only in memory is lost with a stop, unless a write succeeds.
                self.push(100);
                self.compare();
                self.open();
            }
            Action::Cut(bytes) => {
                self.log = None;
                self.disk.fill(false);
                self.disk.room(None);
                self.disk.cut(bytes);
                self.survive();
            }
            Action::Wait(seconds) => {
                self.clock.fetch_add(seconds * 1000, Ordering::Relaxed);
            }
        }
        self.compare();
    }
}

/// As few cases as take some seconds, unless `PROPTEST_CASES` wants more.
/// The same cases each time; others, and as many as wanted, with `PROPTEST_CASES`.
fn config() -> ProptestConfig {
    match std::env::var("PROPTEST_CASES") {
        Ok(_) => ProptestConfig::default(),
        Err(_) => ProptestConfig { cases: 24, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() },
    }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn the_log_is_its_model(actions in actions()) {
        let mut test = Test::new();
        for action in &actions {
            test.act(action);
        }
    }
}

#[test]
fn a_kill_after_damage_gives_no_sequence_out_again() {
    let mut test = Test::new();
    use Action::{Acknowledge, Crash, Cut, Push};
    let actions = [
        Push(15_953),
        Crash(0, false, 0),
        Push(35_893),
        Push(11_965),
        Push(51_845),
        Acknowledge(0, false, 1),
        Push(23_929),
        Push(19_941),
        Cut(24_512),
        Cut(1),
        Crash(0, false, 0),
        Push(0),
    ];
    for action in &actions {
        test.act(action);
    }
}
