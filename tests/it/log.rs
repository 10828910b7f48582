//! The log's file under damage, kills at every point, other configurations and
//! long outages. What is asked of a queue here is what others were seen to lose.
//!
//! `NODEGAUGE_LONG=1` makes the rounds as many as the figures in the notes say.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nodegauge::push::log::{Log, OpenError, Opened, Options, Order, Record, SinkName};
use redb::{Database, TableDefinition};

use crate::standin::Chance;
use crate::standin::disk::Disk;

const FILE: &str = "queue.redb";

fn rounds(short: u64, long: u64) -> u64 {
    if std::env::var_os("NODEGAUGE_LONG").is_some() { long } else { short }
}

fn sink(name: &str) -> SinkName {
    SinkName::new(name)
}

/// Bytes that compress as badly as a step does.
pub(crate) fn payload(sequence: u64, length: usize) -> Vec<u8> {
    let mut chance = Chance::new(sequence);
    let words = std::iter::repeat_with(|| chance.next().to_le_bytes()).flatten();
    words.take(length).collect()
}

fn open(directory: &Path, sinks: &[&str]) -> (Log, Opened) {
    let sinks: Vec<_> = sinks.iter().map(|name| sink(name)).collect();
    Log::open(Some(directory), Options::default(), &sinks).unwrap()
}

fn append(log: &Log, sequences: std::ops::RangeInclusive<u64>, length: usize) {
    for sequence in sequences {
        let appended = log.append(sequence * 1000, &payload(sequence, length)).unwrap();
        assert!(appended.durable && appended.sequence == sequence, "{appended:?}");
    }
}

/// All that a sink is owed, each with what was appended.
fn owed(log: &Log, name: &str) -> Vec<u64> {
    let records = log.next(&sink(name), Order::OldestFirst, usize::MAX).unwrap();
    for Record { sequence, time_ms, payload: found } in &records {
        assert!(*time_ms == sequence * 1000 && *found == payload(*sequence, found.len()), "{sequence}");
    }
    records.into_iter().map(|record| record.sequence).collect()
}

fn dropped(log: &Log, name: &str, reason: &str) -> u64 {
    let status = log.status(&sink(name)).unwrap();
    status.dropped.iter().find(|(found, _)| *found == reason).unwrap().1
}

/// While a disk hangs, the figures are those of when it began to.
#[test]
fn what_waits_is_told_while_the_disk_hangs() {
    let disk = Disk::default();
    let clock = Arc::new(|| 3_000);
    let (log, _) = Log::open_on(disk.medium(), Options::default(), &[sink("a"), sink("b")], clock).unwrap();
    append(&log, 1..=2, 100);
    log.acknowledge(&sink("a"), &[1]).unwrap();
    let told = |name: &str| log.waiting(&sink(name)).map(|status| (status.steps, status.oldest_ms));
    assert_eq!((told("a"), told("b"), told("c")), (Some((1, Some(2_000))), Some((2, Some(1_000))), None));
    std::thread::scope(|scope| {
        let hanging = disk.hang();
        let writing = scope.spawn(|| append(&log, 3..=3, 100));
        // The step that is being written waits as well.
        let begun = Instant::now();
        while told("b") != Some((3, Some(1_000))) {
            assert!(!writing.is_finished() && begun.elapsed() < Duration::from_secs(120), "{:?}", told("b"));
            std::thread::yield_now();
        }
        assert_eq!(told("a"), Some((2, Some(2_000))));
        drop(hanging);
    });
    assert_eq!(told("a"), Some((2, Some(2_000))));
}

/// A queue as a kill leaves it.
fn killed(directory: &Path, steps: u64, length: usize) -> Vec<u8> {
    let (log, _) = open(directory, &["db"]);
    append(&log, 1..=steps, length);
    fs::read(directory.join(FILE)).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_that_was_cut_costs_the_steps_that_lay_there() {
    const STEPS: u64 = 60;
    let directory = tempfile::tempdir().unwrap();
    // Of nine pages each, in a file that has little more than these.
    let whole = killed(directory.path(), STEPS, 30_000);
    let mut chance = Chance::new(7);
    let mut worst = 0;
    for _ in 0..rounds(20, 200) {
        let cut = 1 + chance.below(64 << 10);
        let left = whole.len() - usize::try_from(cut).unwrap();
        fs::write(directory.path().join(FILE), &whole[..left]).unwrap();
        let (log, opened) = open(directory.path(), &["db"]);
        let found = owed(&log, "db");
        let lost = STEPS - u64::try_from(found.len()).unwrap();
        // Each step that misses one of its pages, and no other.
        assert!(lost <= cut.div_ceil(4096) + 1, "{cut} bytes cost {lost} steps");
        // Of the newest step there may be no trace at all.
        let counted = dropped(&log, "db", "damaged");
        assert!(counted <= lost && lost <= counted + 1, "lost {lost}, counted {counted}");
        match opened {
            Opened::SetAside { saved, .. } => assert_eq!(saved, STEPS - lost),
            other => assert!(lost == 0, "{other:?}"),
        }
        assert!(log.append(9_999_000, &payload(1, 5000)).unwrap().durable);
        worst = worst.max(lost);
    }
    assert!(worst > 0, "no cut reached a step");
}

#[test]
fn flipped_bytes_cost_the_steps_they_are_in() {
    const STEPS: u64 = 20;
    let directory = tempfile::tempdir().unwrap();
    let whole = killed(directory.path(), STEPS, 20_000);
    let mut chance = Chance::new(11);
    let mut worst = 0;
    for _ in 0..rounds(25, 200) {
        let mut bad = whole.clone();
        let flips = 1 + chance.below(4);
        for _ in 0..flips {
            let at = usize::try_from(chance.below(u64::try_from(bad.len()).unwrap())).unwrap();
            bad[at] ^= u8::try_from(1 + chance.below(255)).unwrap();
        }
        fs::write(directory.path().join(FILE), &bad).unwrap();
        let (log, _) = open(directory.path(), &["db"]);
        let found = owed(&log, "db");
        let lost = STEPS - u64::try_from(found.len()).unwrap();
        assert!(lost <= flips, "{flips} bytes cost {lost} steps");
        // Asked for all, it knows of all damage; counted or, of the newest, untraced.
        let counted = dropped(&log, "db", "damaged");
        assert!(counted <= lost && lost <= counted + 1, "lost {lost}, counted {counted}");
        let sequence = log.next_sequence();
        let appended = log.append(sequence * 1000, &payload(sequence, 5000)).unwrap();
        assert!(appended.durable && sequence > found.last().copied().unwrap_or(0));
        worst = worst.max(lost);
    }
    assert!(worst > 0, "no byte was in a step");
}

#[test]
fn what_is_no_queue_is_set_aside_and_a_fresh_one_begun() {
    let version: TableDefinition<'_, &str, u64> = TableDefinition::new("state");
    let other: TableDefinition<'_, u64, u64> = TableDefinition::new("other");
    type Make<'a> = (&'a str, Box<dyn Fn(&Path) + 'a>);
    let database = |path: &Path, table: TableDefinition<'_, &str, u64>, value| {
        let write = Database::create(path).unwrap().begin_write().unwrap();
        write.open_table(table).unwrap().insert("version", value).unwrap();
        write.commit().unwrap();
    };
    let makes: [Make<'_>; 8] = [
        ("garbage", Box::new(|path| fs::write(path, payload(3, 100_000)).unwrap())),
        ("text", Box::new(|path| fs::write(path, "no queue\n").unwrap())),
        ("head only", Box::new(|path| fs::write(path, b"redb\x1a\x0a\xa9\x0d\x0a").unwrap())),
        ("zeros", Box::new(|path| fs::write(path, vec![0; 1 << 20]).unwrap())),
        ("older", Box::new(|path| database(path, version, 0))),
        ("newer", Box::new(|path| database(path, version, 99))),
        (
            "another database",
            Box::new(|path| {
                let write = Database::create(path).unwrap().begin_write().unwrap();
                write.open_table(other).unwrap().insert(1, 1).unwrap();
                write.commit().unwrap();
            }),
        ),
        ("directory", Box::new(|path| fs::create_dir(path).unwrap())),
    ];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let mut next = 1;
    for (what, make) in makes {
        make(&path);
        let (log, opened) = open(directory.path(), &["db"]);
        let Opened::SetAside { path: aside, why, saved: 0 } = opened else { panic!("{what}: {opened:?}") };
        assert!(aside.exists() && !why.is_empty(), "{what}: {why}");
        let name = aside.file_name().unwrap().to_str().unwrap();
        let word = if ["older", "newer"].contains(&what) { "version" } else { "damaged" };
        assert!(name.starts_with(&format!("{FILE}.{word}-")), "{what}: {name}");
        // No sequence comes again in this directory.
        let sequence = log.next_sequence();
        assert!(sequence >= next, "{what}: {sequence} after {next}");
        append(&log, sequence..=sequence, 1000);
        assert_eq!(owed(&log, "db"), [sequence]);
        next = sequence + 1;
        drop(log);
        fs::remove_file(&path).unwrap();
        // What was set aside does not pile up; what is no file of ours stays.
        let asides = names(directory.path()).iter().filter(|name| name.starts_with(FILE)).count();
        assert_eq!(asides, 1, "{what}: {:?}", names(directory.path()));
    }
    // Nothing at all, and an empty file, are a fresh start.
    fs::write(&path, "").unwrap();
    assert_eq!(open(directory.path(), &["db"]).1, Opened::Fresh);
}

#[test]
fn a_directory_that_cannot_be_had_is_a_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Log::open(Some(&file), Options::default(), &[sink("db")]).unwrap_err();
    assert!(error.to_string().starts_with("cannot use the directory"), "{error}");
    let (_first, _) = open(directory.path(), &["db"]);
    let error = Log::open(Some(directory.path()), Options::default(), &[sink("db")]).unwrap_err();
    assert!(matches!(error, OpenError::Busy { process, .. } if process == u64::from(std::process::id())));
    assert!(error.to_string().contains("a directory for each agent"), "{error}");
}

#[test]
fn other_sinks_in_another_order_leave_each_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open(directory.path(), &["a", "b"]);
    append(&log, 1..=4, 1000);
    log.acknowledge(&sink("a"), &[1, 2]).unwrap();
    drop(log);
    let (log, _) = open(directory.path(), &["new", "b", "a"]);
    assert_eq!((owed(&log, "a"), owed(&log, "b")), (vec![3, 4], vec![1, 2, 3, 4]));
    assert!(owed(&log, "new").is_empty(), "a new sink begins with the next step");
    append(&log, 5..=5, 1000);
    assert_eq!(owed(&log, "new"), [5]);
    drop(log);
    // One that is left out for a while has its place when it is back.
    let (log, _) = open(directory.path(), &["b"]);
    append(&log, 6..=6, 1000);
    drop(log);
    let (log, _) = open(directory.path(), &["a", "b"]);
    assert_eq!(owed(&log, "a"), [3, 4, 5, 6]);
}

/// A log on a stand-in disk.
fn on(disk: &Disk, now: &Arc<AtomicU64>, options: Options, sinks: &[&str]) -> Log {
    let now = Arc::clone(now);
    let clock = Arc::new(move || now.load(Ordering::Relaxed));
    let sinks: Vec<_> = sinks.iter().map(|name| sink(name)).collect();
    Log::open_on(disk.medium(), options, &sinks, clock).unwrap().0
}

#[test]
fn a_kill_between_any_two_writes_loses_and_repeats_no_more_than_one_step() {
    let now = Arc::new(AtomicU64::new(10_000));
    for power_cut in [false, true] {
        for acknowledging in [false, true] {
            let (mut done, mut changes) = (false, 0);
            while !done {
                let disk = Disk::default();
                let log = on(&disk, &now, Options::default(), &["a", "b"]);
                append(&log, 1..=5, 10_000);
                log.acknowledge(&sink("a"), &[1]).unwrap();
                disk.die_after(changes);
                let durable = match acknowledging {
                    true => log.acknowledge(&sink("a"), &[2]).map(|()| false).unwrap(),
                    false => log.append(6000, &payload(6, 10_000)).unwrap().durable,
                };
                done = !disk.is_dead();
                disk.die_after(0);
                drop(log);
                let mut chance = Chance::new(changes);
                disk.restart(|n| chance.below(n), power_cut);
                // More than once, as a loop of crashes would.
                for _ in 0..3 {
                    let log = on(&disk, &now, Options::default(), &["a", "b"]);
                    let (a, b) = (owed(&log, "a"), owed(&log, "b"));
                    if acknowledging {
                        assert!(a == [2, 3, 4, 5] && !done || a == [3, 4, 5], "{changes}: {a:?}");
                        assert_eq!(b, [1, 2, 3, 4, 5], "{changes}");
                    } else {
                        assert!(a.starts_with(&[2, 3, 4, 5]) && a.len() <= 5, "{changes}: {a:?}");
                        assert!(!durable || a.ends_with(&[6]), "{changes}: {a:?}");
                        assert_eq!(b[1..], a, "{changes}");
                    }
                }
                changes += 1;
            }
            assert!(changes > 10, "only {changes} writes");
        }
    }
}

#[test]
fn a_step_and_an_acknowledgement_are_one_commit_each() {
    let (disk, now) = (Disk::default(), Arc::new(AtomicU64::new(1000)));
    let log = on(&disk, &now, Options::default(), &["a", "b"]);
    append(&log, 1..=1, 80_000);
    // A commit in two phases: what it is, then that it is.
    const COMMIT: u64 = 2;
    for sequence in 2..=20 {
        let before = disk.syncs();
        append(&log, sequence..=sequence, 80_000);
        let appended = disk.syncs();
        log.acknowledge(&sink("a"), &[sequence]).unwrap();
        let acknowledged = disk.syncs();
        // Nothing new, nothing written.
        log.acknowledge(&sink("a"), &[sequence]).unwrap();
        owed(&log, "b");
        assert_eq!(disk.syncs(), acknowledged);
        assert!(acknowledged - appended <= COMMIT, "{}", acknowledged - appended);
        // A file that grows is synced once more.
        assert!(appended - before <= COMMIT + 1, "{}", appended - before);
    }
}

/// What a sink was given may be on its way: counted as dropped, it would arrive all the same.
#[test]
fn a_step_that_a_sink_was_given_is_not_dropped_before_others() {
    let options = Options { max_bytes: 4 << 20, ..Options::default() };
    let fill = |log: &Log, sequences: std::ops::RangeInclusive<u64>| {
        for sequence in sequences {
            log.append(sequence * 1000, &payload(sequence, 200_000)).unwrap();
        }
    };
    let directory = tempfile::tempdir().unwrap();
    for place in [None, Some(directory.path())] {
        let (log, _) = Log::open(place, options, &[sink("db"), sink("ledger")]).unwrap();
        fill(&log, 1..=3);
        let given = log.next(&sink("db"), Order::OldestFirst, 1).unwrap();
        assert_eq!(given[0].sequence, 1);
        fill(&log, 4..=60);
        assert_eq!(owed(&log, "db")[0], 1, "it is on its way");
        assert!(owed(&log, "db")[1] > 3, "others went");
        log.acknowledge(&sink("db"), &[1]).unwrap();
        let left = owed(&log, "db");
        let gone = 60 - 1 - left.len() as u64;
        assert_eq!(dropped(&log, "db", "size"), gone, "each that did not arrive, and no other");
        fill(&log, 61..=100);
        let (first, rest) = (left[0], &owed(&log, "db")[1..]);
        assert_eq!(owed(&log, "db")[0], first, "it was given again");
        assert!(rest.iter().all(|sequence| *sequence > 60), "{rest:?}");
        assert_eq!(dropped(&log, "db", "size"), 100 - 2 - rest.len() as u64);
    }
}
