//! Parsers on captured files, beside an obvious way to read the same figures.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a bench that cannot go on must stop"
)]

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nodegauge::kernel::parse::{self, Keyed, MAX_KEYS};

const WANTED: &[&str] = &[
    "anon",
    "file",
    "kernel",
    "file_mapped",
    "file_dirty",
    "file_writeback",
    "inactive_file",
    "active_file",
    "workingset_refault_anon",
    "workingset_refault_file",
    "pgscan",
    "pgsteal",
    "pgfault",
    "pgmajfault",
];

/// The first file of this name in a captured tree.
fn captured(name: &str) -> Vec<u8> {
    let archive = include_str!("../../fixtures/v2-systemd-6.12/tree.ttar");
    let heading = format!("\nfile {name}\n");
    // The root's own files come first and have fewer lines.
    let longest = archive.match_indices(&heading).map(|(at, _)| {
        let lines = archive[at + heading.len()..].lines().take_while(|l| l.starts_with('|'));
        lines.map(|l| format!("{}\n", &l[1..])).collect::<String>()
    });
    longest.max_by_key(String::len).unwrap().into_bytes()
}

fn benches(c: &mut Criterion) {
    let stat = captured("memory.stat");
    let mut group = c.benchmark_group("memory.stat");
    group.throughput(Throughput::Bytes(stat.len() as u64));
    let mut keyed = Keyed::new(WANTED);
    let mut values = [None; MAX_KEYS];
    group.bench_function("learnt order", |b| {
        b.iter(|| {
            keyed.read(black_box(&stat), &mut values).unwrap();
            values[0]
        });
    });
    group.bench_function("map of all lines", |b| {
        b.iter(|| {
            let text = std::str::from_utf8(black_box(&stat)).unwrap();
            let lines = text.lines().filter_map(|l| l.split_once(' '));
            let map: HashMap<&str, u64> = lines.filter_map(|(k, v)| Some((k, v.parse().ok()?))).collect();
            WANTED.iter().filter_map(|w| map.get(w)).sum::<u64>()
        });
    });
    group.finish();

    let mut group = c.benchmark_group("parse");
    let (pressure, io) = (captured("cpu.pressure"), captured("io.stat"));
    group.bench_function("cpu.pressure", |b| b.iter(|| parse::pressure(black_box(&pressure)).unwrap()));
    group.bench_function("io.stat", |b| {
        b.iter(|| {
            let mut sum = 0;
            parse::io_stat(black_box(&io), |_, _, value| sum += value.unwrap_or(0)).unwrap();
            sum
        });
    });
    group.bench_function("number", |b| b.iter(|| parse::number(black_box(b"1073741824\n")).unwrap()));
    group.finish();
}

criterion_group!(parsers, benches);
criterion_main!(parsers);
