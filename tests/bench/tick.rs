//! A tick over live cgroups beside the floor: the same files with the same mix
//! of held and reopened handles, nothing parsed. Needs root, to make cgroups.
//!
//! `cargo bench --bench tick` prints, for each size, medians of passes taken
//! turn by turn, in CPU time of this thread, and their ratio. Absolute times
//! depend on the machine and on what else runs; the ratio does not.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods, // it waits
    missing_docs,
    unreachable_pub
)]

mod cgroups;

use std::sync::Arc;
use std::time::Duration;

use cgroups::{Floor, LiveCgroups};
use nix::time::{ClockId, clock_gettime};
use nodegauge::collect::sampler::Sampler;
use nodegauge::snapshot::Origin;

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

fn timed(mut work: impl FnMut()) -> Duration {
    let before = cpu_time();
    work();
    cpu_time() - before
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

struct Ticks {
    sampler: Sampler,
    snapshot: nodegauge::snapshot::Snapshot,
}

impl Ticks {
    fn new(descriptors: u64) -> Ticks {
        let sampler = cgroups::sampler(descriptors);
        let snapshot = sampler.blank();
        let mut ticks = Ticks { sampler, snapshot };
        // Handles are taken in the first tick, absent files learnt in the next ones.
        (0..12).for_each(|_| ticks.pass());
        ticks
    }

    fn pass(&mut self) {
        self.sampler.tick(Origin::Grid, &mut self.snapshot);
    }
}

fn per_cgroup(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

fn compare(count: usize, rounds: usize) {
    let live = LiveCgroups::create(count);
    let mut ticks = Ticks::new(cgroups::descriptors());
    let handles = ticks.sampler.report().handles;
    let (mut tick_times, mut floor_times) = (Vec::new(), Vec::new());
    let (held, reopened);
    if count <= 500 {
        let mut floor = Floor::new(&live, handles.files);
        (held, reopened) = floor.files();
        floor.pass();
        for _ in 0..rounds {
            tick_times.push(timed(|| ticks.pass()));
            floor_times.push(timed(|| floor.pass()));
        }
    } else {
        // Both together would need more descriptors than there are.
        tick_times.extend((0..rounds).map(|_| timed(|| ticks.pass())));
        let ended = Ticks { sampler: cgroups::sampler(64), snapshot: ticks.snapshot.clone() };
        let report = std::mem::replace(&mut ticks, ended).sampler.report().clone();
        println!("    {:?}", report.handles);
        let mut floor = Floor::new(&live, handles.files);
        (held, reopened) = floor.files();
        floor.pass();
        floor_times.extend((0..rounds).map(|_| timed(|| floor.pass())));
    }
    let (tick, base) = (median(&mut tick_times), median(&mut floor_times));
    let rows = ticks.snapshot.cgroups.len();
    println!(
        "{count} cgroups ({rows} rows), {held} files held and {reopened} reopened: tick {:.1} us, floor {:.1} us per cgroup, \
         ratio {:.2}; whole tick {tick:.1?}",
        per_cgroup(tick, count),
        per_cgroup(base, count),
        tick.as_secs_f64() / base.as_secs_f64(),
    );
    for collector in &ticks.sampler.report().collectors {
        println!("    {:10} {:?}", collector.name, collector.last);
    }
}

/// As an agent ticks: what nobody used since the last tick is left out. Nothing runs in these.
fn at_rest(count: usize, rounds: usize) {
    let _live = LiveCgroups::create(count);
    let mut all = Ticks::new(cgroups::descriptors());
    let mut sampler = cgroups::sampler(cgroups::descriptors());
    let (mut last, mut spare) = (Arc::new(sampler.blank()), Arc::new(sampler.blank()));
    let mut pass = || {
        sampler.tick(Origin::Grid, Arc::get_mut(&mut spare).expect("nobody else has it"));
        sampler.published(&spare);
        std::mem::swap(&mut last, &mut spare);
    };
    (0..12).for_each(|_| pass());
    // Pressure is read until the averages are made.
    std::thread::sleep(Duration::from_secs(5));
    (0..2).for_each(|_| pass());
    let (mut all_times, mut rest_times) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        all_times.push(timed(|| all.pass()));
        rest_times.push(timed(&mut pass));
    }
    let (all, rest) = (median(&mut all_times), median(&mut rest_times));
    println!(
        "{count} cgroups in which nothing runs: tick {rest:.1?}, {:.1} us per cgroup, beside {all:.1?} for all files, ratio {:.2}",
        per_cgroup(rest, count),
        rest.as_secs_f64() / all.as_secs_f64(),
    );
}

fn few_handles(count: usize, rounds: usize) {
    let _live = LiveCgroups::create(count);
    let mut many = Ticks::new(cgroups::descriptors());
    let mut few = Ticks::new(1024);
    let (mut many_times, mut few_times) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        many_times.push(timed(|| many.pass()));
        few_times.push(timed(|| few.pass()));
    }
    let errors: u64 = few.sampler.report().collectors.iter().map(|c| c.errors.total()).sum();
    let (many, few) = (median(&mut many_times), median(&mut few_times));
    println!(
        "{count} cgroups, 1,024 descriptors: tick {few:.1?} beside {many:.1?}, ratio {:.2}, failed reads {errors}",
        few.as_secs_f64() / many.as_secs_f64(),
    );
}

fn main() {
    // `cargo test --benches` only wants to see it start.
    if std::env::args().any(|a| a == "--test") {
        compare(10, 2);
        return;
    }
    compare(500, 60);
    at_rest(500, 40);
    few_handles(500, 40);
    compare(2_000, 25);
}
