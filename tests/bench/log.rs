//! The log of steps on the disk below the temporary directory (`TMPDIR`).
//!
//! Budgets: a durable commit of one step at most 5 ms at the median; a queue of
//! 256 MiB opened within 1 s, also after a kill.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot go on must stop")]

use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use nodegauge::push::log::{Log, Opened, Options, SinkName};

/// A step of 500 containers, compressed.
const STEP: usize = 80_000;

fn open(directory: &Path) -> (Log, Opened) {
    // Nothing is kept that everybody has; nobody has anything here but what is acknowledged.
    let options = Options { keep_acknowledged: Duration::ZERO, ..Options::default() };
    Log::open(Some(directory), options, &[SinkName::new("db")]).unwrap()
}

/// Bytes that do not compress.
fn payload(mut state: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(STEP + 8);
    state = state.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while bytes.len() < STEP {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(STEP);
    bytes
}

fn steps(c: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open(directory.path());
    let sink = SinkName::new("db");
    let mut time_ms = 0;
    let mut both = |timed: fn(Duration, Duration) -> Duration, count| {
        let mut spent = Duration::ZERO;
        for _ in 0..count {
            time_ms += 15_000;
            let step = payload(time_ms);
            let begun = Instant::now();
            let appended = log.append(time_ms, &step).unwrap();
            let append = begun.elapsed();
            log.acknowledge(&sink, &[appended.sequence]).unwrap();
            assert!(appended.durable);
            spent += timed(append, begun.elapsed() - append);
        }
        spent
    };
    let mut group = c.benchmark_group("a step of 80 kB");
    group.measurement_time(Duration::from_secs(10));
    group.bench_function("durable commit", |b| b.iter_custom(|n| both(|append, _| append, n)));
    group.bench_function("acknowledgement", |b| b.iter_custom(|n| both(|_, rest| rest, n)));
    group.finish();
}

fn full(c: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open(directory.path());
    let mut time_ms = 0;
    let mut append = || {
        time_ms += 15_000;
        let step = payload(time_ms);
        let begun = Instant::now();
        assert!(log.append(time_ms, &step).unwrap().durable);
        begun.elapsed()
    };
    while log.status(&SinkName::new("db")).unwrap().dropped.iter().all(|(_, count)| *count == 0) {
        append();
    }
    let mut group = c.benchmark_group("a queue at its cap of 256 MiB");
    group.measurement_time(Duration::from_secs(10));
    group.bench_function("durable commit", |b| b.iter_custom(|n| (0..n).map(|_| append()).sum()));
    let killed = tempfile::tempdir().unwrap();
    let mut status = |which, path: &Path| {
        group.sample_size(10).bench_function(format!("open after a {which}"), |b| {
            b.iter_custom(|n| {
                let mut spent = Duration::ZERO;
                for _ in 0..n {
                    std::fs::copy(path, killed.path().join("queue.redb")).unwrap();
                    let begun = Instant::now();
                    let (log, opened) = open(killed.path());
                    spent += begun.elapsed();
                    assert!(matches!(opened, Opened::Continued(steps) if steps > 2000), "{opened}");
                    drop(log);
                }
                spent
            });
        });
    };
    let path = directory.path().join("queue.redb");
    status("kill", &path);
    drop(log);
    status("stop", &path);
    let cut = tempfile::tempdir().unwrap();
    let file = cut.path().join("queue.redb");
    group.bench_function("open after the loss of its last byte", |b| {
        b.iter_custom(|n| {
            let mut spent = Duration::ZERO;
            for _ in 0..n {
                let len = std::fs::copy(&path, &file).unwrap();
                std::fs::File::options().write(true).open(&file).unwrap().set_len(len - 1).unwrap();
                let begun = Instant::now();
                let (log, opened) = open(cut.path());
                spent += begun.elapsed();
                assert!(matches!(opened, Opened::SetAside { saved, .. } if saved > 2000), "{opened}");
                drop(log);
            }
            spent
        });
    });
    group.finish();
}

criterion_group!(all, steps, full);
criterion_main!(all);
