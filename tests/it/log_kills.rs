//! The queue in a process of its own that is killed at random moments, with a
//! receiver that outlives it and keeps node, boot id and sequence.
//!
//! `NODEGAUGE_KILLS=1000 cargo test --test it log_kills -- --nocapture` is the
//! full form; its figures are printed.
#![allow(clippy::disallowed_methods, reason = "this is about a process that is killed")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nodegauge::push::log::{Log, Options, Order, Record, SinkName};

use crate::log::payload;
use crate::standin::Chance;

/// What the helper is told by.
const DIRECTORY: &str = "NODEGAUGE_TEST_QUEUE";
/// Run of the helper, which stands for the boot id of an agent; 0 only sends.
const RUN: &str = "NODEGAUGE_TEST_RUN";
const SINKS: [(&str, Order); 2] = [("database", Order::OldestFirst), ("aggregator", Order::NewestFirst)];

/// Not a test: the process that is killed. It appends steps as fast as they are
/// sent, tells of each that is durable, and sends to its sinks through its output:
///
/// ```text
/// queued RUN NUMBER
/// send SINK SEQUENCE RUN NUMBER
/// ```
///
/// A line on its input acknowledges what was sent last.
#[test]
#[ignore = "the helper of a test of this file, which starts it in a process of its own"]
fn helper() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let run: u64 = std::env::var(RUN).unwrap().parse().unwrap();
    let options = Options { max_bytes: 8 << 20, keep_acknowledged: Duration::ZERO, ..Options::default() };
    let names = SINKS.map(|(name, _)| SinkName::new(name));
    let (log, opened) = Log::open(Some(Path::new(&directory)), options, &names).unwrap();
    // After whatever the test runner has begun a line with.
    say(&format!("\nopened {opened}"));
    let log = Arc::new(log);
    let done = Arc::new(AtomicBool::new(run == 0));
    if run > 0 {
        let (log, names) = (Arc::clone(&log), names.clone());
        std::thread::spawn(move || queue(&log, &names, run));
    }
    let mut answers = std::io::stdin().lines();
    loop {
        let mut sent = false;
        for (name, (word, order)) in names.iter().zip(SINKS) {
            for Record { sequence, time_ms, payload: found } in log.next(name, order, 1).unwrap() {
                let [run, number] =
                    [&found[..8], &found[8..16]].map(|word| u64::from_le_bytes(word.try_into().unwrap()));
                assert!(found[16..] == payload(number, found.len() - 16) && time_ms == number * 1000);
                say(&format!("send {word} {sequence} {run} {number}"));
                if answers.next().is_none() {
                    return;
                }
                log.acknowledge(name, &[sequence]).unwrap();
                sent = true;
            }
        }
        if !sent && done.load(Ordering::Relaxed) {
            let dropped = names.iter().flat_map(|name| log.status(name).unwrap().dropped);
            say(&format!("empty {}", dropped.map(|(_, count)| count).sum::<u64>()));
            return;
        }
    }
}

fn queue(log: &Log, names: &[SinkName], run: u64) {
    let mut chance = Chance::new(run);
    for number in 1.. {
        while names.iter().any(|name| log.status(name).unwrap().steps > 30) {
            std::thread::yield_now();
        }
        let length = usize::try_from(chance.below(40_000)).unwrap();
        let mut step = [run, number].map(u64::to_le_bytes).as_flattened().to_vec();
        step.extend(payload(number, length));
        if log.append(number * 1000, &step).unwrap().durable {
            say(&format!("queued {run} {number}"));
        }
    }
}

/// A line, in one write.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// This binary once more, as the one test named, which is a process of its own.
pub(crate) fn again(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    command
}

fn start(directory: &Path, run: u64) -> Child {
    again("log_kills::helper")
        .env(DIRECTORY, directory)
        .env(RUN, run.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// What was said by the helpers, and what the sinks have.
#[derive(Debug, Default)]
struct Seen {
    queued: BTreeSet<[u64; 2]>,
    /// Sink → sequence → run and number.
    held: BTreeMap<String, BTreeMap<u64, [u64; 2]>>,
    /// Sink → how many came again.
    again: BTreeMap<String, u64>,
    opened: u64,
    empty: Option<u64>,
}

impl Seen {
    /// Takes in a line, and answers it unless nobody is there any more.
    fn hear(&mut self, line: &str, answers: Option<&mut ChildStdin>) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "opened" => self.opened += u64::from(!line.contains("cannot be used")),
            "queued" => drop(self.queued.insert([number(1), number(2)])),
            "empty" => self.empty = Some(number(1)),
            "send" => {
                let step = [number(3), number(4)];
                let held = self.held.entry(words[1].to_owned()).or_default();
                match held.insert(number(2), step) {
                    None => {}
                    Some(before) => {
                        assert_eq!(before, step, "sequence {} is another step", number(2));
                        *self.again.entry(words[1].to_owned()).or_default() += 1;
                    }
                }
                // One that was killed does not hear it.
                let _ = answers.map(|answers| answers.write_all(b"ok\n"));
            }
            _ => {}
        }
    }
}

#[test]
fn kills_lose_nothing_that_was_durable_and_repeat_what_was_in_flight() {
    let kills: u64 = std::env::var("NODEGAUGE_KILLS").ok().map_or(30, |kills| kills.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let mut seen = Seen::default();
    let mut chance = Chance::new(std::process::id().into());
    for run in 1..=kills {
        let mut child = start(directory.path(), run);
        let mut answers = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // After so many lines, and then at any moment; one in eight while it starts.
        let count = if run % 8 == 0 { 0 } else { 3 + chance.below(60) };
        for line in lines.by_ref().take(usize::try_from(count).unwrap()) {
            seen.hear(&line.unwrap(), Some(&mut answers));
        }
        let wait = if count == 0 { 40_000 } else { 1500 };
        std::thread::park_timeout(Duration::from_micros(chance.below(wait)));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said by then arrived.
        lines.for_each(|line| seen.hear(&line.unwrap(), None));
        // One that an aggregator was being sent may come again some kills later: what
        // is newer goes first.
        for (sink, again) in &seen.again {
            assert!(*again <= run, "{again} steps again to the {sink} after {run} kills");
        }
    }
    let mut child = start(directory.path(), 0);
    let mut answers = child.stdin.take().unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        seen.hear(&line.unwrap(), Some(&mut answers));
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(seen.empty, Some(0), "steps dropped");
    for (sink, held) in &seen.held {
        let steps: BTreeSet<[u64; 2]> = held.values().copied().collect();
        assert_eq!(steps.len(), held.len(), "the {sink} has a step under two sequences");
        let lost: Vec<_> = seen.queued.difference(&steps).collect();
        assert!(lost.is_empty(), "the {sink} never got {lost:?}");
    }
    assert!(seen.held.len() == 2 && seen.queued.len() > 50, "{} steps queued", seen.queued.len());
    println!(
        "{kills} kills, {} starts that came to the log, {} steps durable, lost 0, sent again {:?}, under two sequences 0",
        seen.opened,
        seen.queued.len(),
        seen.again,
    );
}
