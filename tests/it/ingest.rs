//! Bytes of agents into the model: each once, into its own slot, under its own
//! name; and what is refused.

use std::sync::Arc;
use std::time::Duration;

use nodegauge::aggregate::ingest::{Counts, Held, Ingest, Reason, Refused};
use nodegauge::aggregate::model::{Model, Options, Subject};
use nodegauge::push::batch::proto::{self, MetricId};
use nodegauge::push::batch::{self, Assembler, Batch, Value, metric};

pub(crate) const MINUTE: u64 = 60_000;
pub(crate) const START: u64 = 1_700_000_040_000 / MINUTE * MINUTE;

/// An agent that measures one pod.
#[derive(Clone)]
pub(crate) struct Sender {
    pub(crate) node: String,
    pub(crate) boot: u8,
    pub(crate) host: u8,
    pub(crate) resolution_ms: u64,
    /// How far its clock is ahead, milliseconds.
    pub(crate) ahead_ms: i64,
}

impl Sender {
    pub(crate) fn new(node: &str) -> Sender {
        Sender { node: node.to_owned(), boot: 1, host: 9, resolution_ms: MINUTE, ahead_ms: 0 }
    }

    fn clock(&self, true_ms: u64) -> u64 {
        true_ms.checked_add_signed(self.ahead_ms).unwrap()
    }

    /// The step at a moment of its own grid that has the number of its memory
    /// for a figure.
    pub(crate) fn step(&self, time_ms: u64, memory: u64) -> Batch {
        let mut batch = Assembler::new(proto::Batch {
            node: self.node.clone(),
            boot_id: vec![self.boot; 16],
            host_boot_id: vec![self.host; 16],
            time_ms,
            resolution_ms: self.resolution_ms,
            sampled_ms: time_ms + 5,
            ..proto::Batch::default()
        });
        batch.entity(proto::Entity { kind: proto::EntityKind::Node.into(), ..Default::default() });
        batch.integer(MetricId::MemoryUsage, memory * 2);
        let (namespace, pod) = (batch.string("shop"), batch.string(&format!("web-{}", self.node)));
        batch.entity(proto::Entity {
            kind: proto::EntityKind::Pod.into(),
            namespace,
            pod,
            start_ms: time_ms - 1_000,
            ..Default::default()
        });
        batch.integer(MetricId::MemoryUsage, memory);
        batch.finish().unwrap()
    }

    /// The bytes of the step that ends at the true time `time_ms`, sent at `sent_ms`.
    pub(crate) fn bytes(&self, time_ms: u64, sent_ms: u64, memory: u64) -> Vec<u8> {
        let grid = self.clock(time_ms) / self.resolution_ms * self.resolution_ms;
        let payload = batch::encode(&self.step(grid, memory)).unwrap();
        batch::stamp(&payload, memory, self.clock(sent_ms))
    }
}

/// When all these tests began.
const BEGAN: u64 = START - 10 * MINUTE;

/// Into a model that has run for a while.
fn ingest(nodes: usize) -> Ingest {
    let ingest = Ingest::new(Arc::new(Model::new(Options::default())), nodes);
    ingest.tick(BEGAN, steady(BEGAN));
    ingest
}

fn refused(result: Result<Held, Refused>) -> Reason {
    result.expect_err("must be refused").reason
}

fn memory(ingest: &Ingest, subject: &Subject) -> Vec<(u64, u64)> {
    let of = metric(MetricId::MemoryUsage as i32).unwrap();
    let series = ingest.model().series(subject, of, "");
    let whole = |value| match value {
        Value::Integer(value) => value,
        Value::Double(value) => panic!("{value}"),
    };
    series.into_iter().map(|(time, value)| (time, whole(value))).collect()
}

fn pod(node: &str) -> Subject {
    Subject::Pod(Arc::from("shop"), Arc::from(format!("web-{node}")))
}

fn at(step: u64) -> u64 {
    START + step * MINUTE
}

/// The monotonic clock that goes with a true time.
fn steady(now_ms: u64) -> Duration {
    Duration::from_millis(now_ms - BEGAN)
}

#[test]
fn each_batch_counts_once_in_its_own_slot() {
    let ingest = ingest(10);
    let sender = Sender::new("a");
    // Newest first, as a backlog comes, and all of them again.
    for i in [4, 3, 1, 2, 4, 3, 2, 1] {
        let held = ingest.take(&sender.bytes(at(i), at(4) + 100, i), None, at(4) + 120).unwrap();
        assert_eq!(held, Held { boot_id: ingest.boot_id(), sequence: i });
    }
    ingest.tick(at(4) + 200, steady(at(4) + 200));
    let expected: Vec<_> = (1..=4).map(|i| (at(i), i)).collect();
    assert_eq!(memory(&ingest, &pod("a")), expected);
    assert_eq!(memory(&ingest, &Subject::Cluster), expected);
    let Counts { batches, values, duplicates, steps, lag_ms, late, .. } = ingest.counts();
    assert_eq!((batches, values, duplicates, steps, lag_ms, late), (4, 8, 4, 1, Some(200), 0));
}

#[test]
fn in_the_beginning_steps_wait_for_those_not_heard_yet() {
    let ingest = Ingest::new(Arc::new(Model::new(Options::default())), 10);
    let now = at(1) + 14_000;
    ingest.tick(now, steady(now));
    let (a, b) = (Sender::new("a"), Sender::new("b"));
    for i in [1, 0] {
        ingest.take(&a.bytes(at(i), now, 2 - i), None, now).unwrap();
    }
    ingest.tick(now + 14_000, steady(now + 14_000));
    assert_eq!(ingest.model().closed_ms(), None);
    ingest.take(&b.bytes(at(1), now + 14_000, 3), None, now + 14_000).unwrap();
    ingest.tick(now + 15_000, steady(now + 15_000));
    assert_eq!(memory(&ingest, &Subject::Cluster), [(at(0), 2), (at(1), 4)]);
    assert_eq!(ingest.counts().late, 0);
}

#[test]
fn what_comes_after_its_step_was_closed_is_late_and_counts() {
    let ingest = ingest(10);
    let (a, b) = (Sender::new("a"), Sender::new("b"));
    let take = |sender: &Sender, i: u64, now| ingest.take(&sender.bytes(at(i), now, i), None, now).unwrap();
    take(&a, 1, at(1));
    take(&b, 1, at(1));
    ingest.tick(at(1) + 500, steady(at(1) + 500));
    take(&a, 2, at(2));
    ingest.tick(at(2) + 14_000, steady(at(2) + 14_000));
    assert_eq!(ingest.counts().steps, 1, "one has not reported");
    ingest.tick(at(2) + 15_000, steady(at(2) + 15_000));
    assert_eq!((ingest.counts().steps, ingest.counts().lag_ms), (2, Some(15_000)));
    take(&b, 2, at(2) + 30_000);
    ingest.tick(at(2) + 31_000, steady(at(2) + 31_000));
    assert_eq!(ingest.counts().late, 1);
    assert_eq!(memory(&ingest, &Subject::Cluster), [(at(1), 2), (at(2), 4)]);
}

#[test]
fn a_clock_an_hour_off_costs_nothing() {
    let hour = 3_600_000;
    for ahead_ms in [hour, -hour, hour + 20_000, -hour - 20_000] {
        let ingest = ingest(10);
        let (right, wrong) = (Sender::new("a"), Sender { ahead_ms, ..Sender::new("b") });
        for i in 1..=5 {
            let now = at(i) + 100;
            ingest.take(&right.bytes(at(i), now, i), None, now).unwrap();
            // Its steps end when its own clock says so: up to 20 s later or 40 s earlier.
            let ends = at(i).saturating_add_signed(-(ahead_ms % 60_000));
            ingest.take(&wrong.bytes(ends, ends + 100, i), None, ends + 100).unwrap();
        }
        let last = at(5) + 40_000;
        ingest.tick(last, steady(last));
        let times: Vec<_> = memory(&ingest, &pod("b")).into_iter().map(|(time, _)| time).collect();
        assert_eq!(times, (1..=5).map(at).collect::<Vec<_>>(), "{ahead_ms}");
        assert_eq!(memory(&ingest, &Subject::Cluster).last(), Some(&(at(5), 10)), "{ahead_ms}");
        let nodes = ingest.model().nodes();
        assert_eq!((&*nodes[1].name, nodes[1].ahead_ms), ("b", ahead_ms), "it is shown");
        let started = ingest.model().describe(&pod("b")).unwrap().start_ms.unwrap();
        assert!(at(5) - started <= 1_000, "{ahead_ms}: {started}");
    }
}

#[test]
fn steps_that_cannot_be_yet_or_are_too_old() {
    let ingest = ingest(10);
    let sender = Sender::new("a");
    let now = at(20);
    assert_eq!(refused(ingest.take(&sender.bytes(at(30), now, 1), None, now)), Reason::Future);
    let far = Sender { resolution_ms: 1, ..Sender::new("b") };
    let far = batch::stamp(&batch::encode(&far.step(u64::MAX - 10, 1)).unwrap(), 2, now);
    assert_eq!(refused(ingest.take(&far, None, now)), Reason::Future);
    assert!(ingest.take(&sender.bytes(at(4), now, 2), None, now).is_ok(), "so that it is not sent again");
    assert!(ingest.take(&sender.bytes(at(20), now, 3), None, now).is_ok());
    ingest.tick(now, steady(now));
    assert_eq!((ingest.counts().too_old, ingest.counts().batches), (1, 1));
    assert_eq!(memory(&ingest, &pod("a")), [(at(20), 3)]);
}

#[test]
fn a_node_speaks_for_itself_only() {
    let ingest = ingest(10);
    let bytes = Sender::new("a").bytes(at(1), at(1), 1);
    let error = ingest.take(&bytes, Some("b"), at(1)).unwrap_err();
    assert_eq!(
        (error.reason, error.to_string().as_str()),
        (Reason::Foreign, "\"b\" may not speak for node \"a\"")
    );
    assert!(ingest.model().nodes().is_empty());
    ingest.take(&bytes, Some("a"), at(1)).unwrap();
    let foreign = Reason::ALL.iter().position(|r| *r == Reason::Foreign).unwrap();
    assert_eq!(ingest.counts().refused[foreign], 1);
}

#[test]
fn of_two_machines_with_one_name_the_first_is_believed() {
    let ingest = ingest(10);
    let first = Sender::new("a");
    let second = Sender { boot: 2, host: 8, ..Sender::new("a") };
    for i in 1..=5 {
        ingest.take(&first.bytes(at(i), at(i), 100 + i), None, at(i)).unwrap();
        let error = ingest.take(&second.bytes(at(i), at(i), 200 + i), None, at(i)).unwrap_err();
        assert_eq!(error.reason, Reason::Contested);
    }
    ingest.tick(at(5), steady(at(5)));
    assert_eq!(memory(&ingest, &pod("a")), (1..=5).map(|i| (at(i), 100 + i)).collect::<Vec<_>>());
    // The next life of the first machine is no other.
    let again = Sender { boot: 3, ..first };
    ingest.take(&again.bytes(at(6), at(6), 1), None, at(6)).unwrap();
}

#[test]
fn more_nodes_than_there_is_room_for() {
    let ingest = ingest(2);
    for node in ["a", "b"] {
        ingest.take(&Sender::new(node).bytes(at(1), at(1), 1), None, at(1)).unwrap();
    }
    let third = Sender::new("c");
    assert_eq!(refused(ingest.take(&third.bytes(at(1), at(1), 1), None, at(1))), Reason::Nodes);
    // Both leave; their places are free.
    ingest.tick(at(17), steady(at(17)));
    assert!(ingest.model().nodes().is_empty());
    ingest.take(&third.bytes(at(17), at(17), 2), None, at(17)).unwrap();
}

#[test]
fn bytes_that_are_no_batch() {
    let ingest = ingest(10);
    let good = Sender::new("a").bytes(at(1), at(1), 1);
    let take = |bytes: &[u8]| refused(ingest.take(bytes, None, at(1)));
    assert_eq!(take(b""), Reason::Malformed);
    assert_eq!(take(&good[..good.len() / 2]), Reason::Malformed);
    let mut version = good.clone();
    version[15] = 2;
    assert_eq!(take(&version), Reason::Version);
    // 64 MiB of zeros in a few kilobytes.
    let mut bomb = good[..16].to_vec();
    bomb.extend(zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap());
    assert!(bomb.len() < 16 << 10);
    assert_eq!(take(&bomb), Reason::TooLarge);
    let with = |change: &dyn Fn(&mut proto::Batch)| {
        let mut message = Sender::new("a").step(at(1), 1).message().clone();
        change(&mut message);
        batch::stamp(&batch::encode(&Batch::new(message).unwrap()).unwrap(), 1, at(1))
    };
    for name in ["", "a b", "a\n", &"a".repeat(254)] {
        assert_eq!(take(&with(&|batch| batch.node = name.to_owned())), Reason::Malformed, "{name:?}");
    }
    assert_eq!(take(&with(&|batch| batch.strings.push("x".repeat(5_000)))), Reason::TooLarge);
    assert_eq!(
        take(&with(&|batch| batch.entities.resize(16_385, proto::Entity::default()))),
        Reason::TooLarge
    );
    let unstamped = batch::encode(&Sender::new("a").step(at(1), 1)).unwrap();
    assert_eq!(take(&unstamped), Reason::Malformed);
    assert!(ingest.model().nodes().is_empty());
    assert_eq!(ingest.counts().refused.iter().sum::<u64>(), 11);
}

#[test]
fn a_replay_changes_nothing() {
    let ingest = ingest(10);
    let sender = Sender::new("a");
    let recorded: Vec<_> = (1..=15).map(|i| sender.bytes(at(i), at(i), i)).collect();
    for (i, bytes) in (1..).zip(&recorded) {
        ingest.take(bytes, None, at(i)).unwrap();
    }
    ingest.tick(at(15), steady(at(15)));
    let before = memory(&ingest, &Subject::Cluster);
    assert_eq!(before.len(), 15);
    // What was sent minutes ago looks as if the clock were minutes behind.
    for bytes in &recorded {
        drop(ingest.take(bytes, None, at(15) + 1_000));
    }
    ingest.tick(at(15) + 2_000, steady(at(15) + 2_000));
    assert_eq!(memory(&ingest, &Subject::Cluster), before);
    assert_eq!(ingest.counts().batches, 15);
}

#[test]
fn silence_is_noticed_and_the_silent_leave_after_fifteen_minutes() {
    let ingest = ingest(10);
    let (a, b) = (Sender::new("a"), Sender::new("b"));
    ingest.take(&a.bytes(at(1), at(1), 1), None, at(1)).unwrap();
    let silent = |now| {
        let nodes = ingest.model().nodes();
        nodes.iter().filter(|n| ingest.is_silent(n, now)).map(|n| n.name.to_string()).collect::<Vec<_>>()
    };
    for i in 1..=16 {
        ingest.take(&b.bytes(at(i), at(i), i), None, at(i)).unwrap();
        ingest.tick(at(i), steady(at(i)));
        match i {
            1..=2 => assert_eq!(silent(at(i)), [""; 0], "{i}"),
            _ => assert_eq!(silent(at(i)), ["a"], "{i}"),
        }
    }
    ingest.tick(at(16) + 1, steady(at(16) + 1));
    assert_eq!(silent(at(16)), [""; 0]);
    assert_eq!(ingest.model().nodes().len(), 1);
    // It comes back with a backlog, of which fifteen minutes count.
    for i in (1..=30).rev() {
        ingest.take(&a.bytes(at(i), at(30), 100 + i), None, at(30)).unwrap();
    }
    ingest.take(&b.bytes(at(30), at(30), 30), None, at(30)).unwrap();
    ingest.tick(at(30), steady(at(30)));
    let times: Vec<_> = memory(&ingest, &pod("a")).into_iter().map(|(time, _)| time).collect();
    assert_eq!(times, (15..=30).map(at).collect::<Vec<_>>());
}

#[test]
fn when_our_own_clock_is_set_everything_is_asked_for_again() {
    let hour = 60 * MINUTE;
    for set_to in [|now: u64, by: u64| now + by, |now, by| now - by] {
        let ingest = ingest(10);
        let sender = Sender::new("a");
        let now = at(100);
        let first = ingest.take(&sender.bytes(now, now, 1), None, now).unwrap();
        ingest.tick(now, steady(now));
        // A step of a second is no reason.
        ingest.tick(now + 3_000, steady(now + 2_000));
        assert_eq!((ingest.boot_id(), ingest.counts().clock_set), (first.boot_id, 0));
        let set = set_to(now, hour);
        ingest.tick(set + 4_000, steady(now + 3_000));
        assert_ne!(ingest.boot_id(), first.boot_id);
        assert_eq!((ingest.counts().clock_set, ingest.model().closed_ms()), (1, None));
        // The agent's clock was set likewise; what it sends again is taken.
        assert!(ingest.take(&sender.bytes(set, set + 4_000, 1), None, set + 4_000).is_ok());
        ingest.tick(set + 18_000, steady(now + 17_000));
        assert_eq!(ingest.model().closed_ms(), None, "others may come");
        ingest.tick(set + 19_000, steady(now + 18_000));
        assert_eq!(memory(&ingest, &pod("a")), [(set, 1)]);
    }
}

#[test]
fn entities_without_end_take_bounded_room() {
    let ingest = ingest(10);
    for i in 1..=8 {
        let mut message = Sender::new("a").step(at(i), 1).message().clone();
        let pod = message.entities[1].clone();
        for extra in 0..6_000 {
            message.strings.push(format!("pod-{i}-{extra}"));
            let pod = proto::Entity { pod: u32::try_from(message.strings.len() - 1).unwrap(), ..pod.clone() };
            message.entities.push(pod);
        }
        let payload = batch::encode(&Batch::new(message).unwrap()).unwrap();
        ingest.take(&batch::stamp(&payload, i, at(i)), None, at(i)).unwrap();
    }
    let held = ingest.model().pods("shop").len();
    assert!(held <= 32_768, "{held}");
    assert_eq!(ingest.counts().unplaced, 8 * 6_000 + 2 - 32_768);
}
