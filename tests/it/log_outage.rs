//! A sink that is away for hours: the queue stays within its cap, keeps as much as
//! fits, counts the rest, and is emptied in order when the sink is back.
#![allow(clippy::disallowed_methods, reason = "memory is that of a process of its own")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nodegauge::push::log::{Log, Options, Order, Record, SinkName, medium};

use crate::log::payload;
use crate::log_kills::again;
use crate::standin::Chance;

const STEP_MS: u64 = 60_000;
const HOUR: u64 = 3600 * 1000 / STEP_MS;
const CAP: u64 = 8 << 20;

/// A step of about 32 kB: the same for its number whenever it is asked for.
fn step(sequence: u64) -> Vec<u8> {
    let length = 28_000 + Chance::new(sequence).below(8000);
    payload(sequence, usize::try_from(length).unwrap())
}

/// What this process has in memory, bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

struct Node {
    log: Log,
    now: Arc<AtomicU64>,
    database: SinkName,
    aggregator: SinkName,
    longest: u64,
}

impl Node {
    fn dropped(&self, sink: &SinkName) -> u64 {
        let dropped = self.log.status(sink).unwrap().dropped;
        let of_size = dropped.iter().find(|(reason, _)| *reason == "size").unwrap().1;
        assert_eq!(dropped.iter().map(|(_, count)| count).sum::<u64>(), of_size, "only the cap drops");
        of_size
    }

    fn tick(&mut self) -> u64 {
        let now = self.now.fetch_add(STEP_MS, Ordering::Relaxed) + STEP_MS;
        let sequence = self.log.next_sequence();
        let appended = self.log.append(now, &step(sequence)).unwrap();
        assert!(appended.durable && appended.sequence == sequence);
        self.longest = self.longest.max(self.log.file_bytes().unwrap());
        sequence
    }

    /// Takes the next step out, as a sink that is there.
    fn send(&self, sink: &SinkName, order: Order) -> Option<u64> {
        let Record { sequence, payload: found, .. } = self.log.next(sink, order, 1).unwrap().pop()?;
        assert!(found == step(sequence), "payload of {sequence}");
        self.log.acknowledge(sink, &[sequence]).unwrap();
        Some(sequence)
    }
}

/// Not a test: the process whose memory is looked at.
#[test]
#[ignore = "the helper of a test of this file, which starts it in a process of its own"]
fn helper() {
    let directory = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(1_700_000_040_000));
    let clock = Arc::clone(&now);
    let (database, aggregator) = (SinkName::new("database"), SinkName::new("aggregator"));
    let options =
        Options { max_bytes: CAP, keep_acknowledged: Duration::from_secs(900), ..Options::default() };
    let medium = medium::Directory::lock(directory.path()).unwrap();
    let sinks = [database.clone(), aggregator.clone()];
    let clock = Arc::new(move || clock.load(Ordering::Relaxed));
    let (log, _) = Log::open_on(Some(Box::new(medium)), options, &sinks, clock).unwrap();
    let mut node = Node { log, now, database, aggregator, longest: 0 };
    let (database, aggregator) = (node.database.clone(), node.aggregator.clone());

    // All is well, then the database is away for six hours, and for the last ten
    // minutes of them the aggregator as well.
    for _ in 0..HOUR / 4 {
        let sequence = node.tick();
        assert_eq!(node.send(&database, Order::OldestFirst), Some(sequence));
        assert_eq!(node.send(&aggregator, Order::NewestFirst), Some(sequence));
    }
    let (begun, mut at_cap) = (node.log.next_sequence(), None);
    let mut kept = None;
    for tick in 1..=6 * HOUR {
        let sequence = node.tick();
        if tick <= 6 * HOUR - HOUR / 6 {
            assert_eq!(node.send(&aggregator, Order::NewestFirst), Some(sequence));
        }
        let (status, dropped) = (node.log.status(&database).unwrap(), node.dropped(&database));
        assert_eq!(status.steps + dropped, tick, "every step waits or is counted");
        if dropped > 0 && kept.is_none() {
            kept = Some(status.bytes);
        }
        // Warm once the cap has been reached for an hour.
        if dropped >= HOUR && at_cap.is_none() {
            at_cap = Some(resident());
        }
    }
    let kept = kept.expect("the cap is reached");
    assert!(kept > CAP / 4 * 3, "the first step was dropped with {kept} bytes in the queue");
    let (before, after) = (at_cap.expect("for an hour"), resident());
    assert!(after < before + (2 << 20), "from {before} to {after} bytes of memory at the cap");
    assert_eq!(node.dropped(&aggregator), 0);

    // Both are back. What comes meanwhile is sent in its turn.
    let newest = node.log.next_sequence() - 1;
    for sequence in (newest + 1 - HOUR / 6..=newest).rev() {
        assert_eq!(node.send(&aggregator, Order::NewestFirst), Some(sequence));
    }
    let mut expected = begun + node.dropped(&database);
    let mut sent = 0;
    while let Some(sequence) = node.send(&database, Order::OldestFirst) {
        assert_eq!(sequence, expected);
        (expected, sent) = (expected + 1, sent + 1);
        if sent % 10 == 0 {
            node.tick();
        }
    }
    assert_eq!(expected, node.log.next_sequence());
    // A quarter of an hour later nothing of it is left.
    for _ in 0..HOUR / 2 {
        node.tick();
        while node.send(&database, Order::OldestFirst).is_some() {}
        while node.send(&aggregator, Order::NewestFirst).is_some() {}
    }
    let left = node.log.file_bytes().unwrap();
    assert!(node.longest <= CAP && left <= CAP / 2, "{} bytes at most, {left} bytes left", node.longest);
    println!(
        "\n6 h away: {kept} bytes waited when the first step went, file at most {} of {CAP} bytes, {left} after; \
         sent {sent} steps in order, dropped and counted {}; memory {before} -> {after} bytes",
        node.longest,
        node.dropped(&database)
    );
}

#[test]
fn a_long_outage_costs_what_the_cap_drops_and_no_more() {
    let output = again("log_outage::helper").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", text.lines().find(|line| line.starts_with("6 h away")).expect("figures"));
}
