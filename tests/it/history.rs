//! The history of cgroups' figures: what goes in comes out, within its bounds.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of the tests themselves"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use nodegauge::history::{BYTES_A_MINUTE, Figure, Figures, History, Sample};
use nodegauge::snapshot::{Cgroup, CgroupSample, Hierarchy, Identity, Snapshot, reading};
use proptest::prelude::*;

use crate::data;

const PATH: &str = "/kubepods.slice/kubepods-pod00001.slice";

/// A snapshot of `cgroups` rows, `seconds` after a moment that all share.
fn at(began: Instant, seconds: f64, mut snapshot: Snapshot) -> Snapshot {
    snapshot.monotonic = began + Duration::from_secs_f64(seconds);
    snapshot.wall_ms = 1_700_000_000_000 + (seconds * 1000.0) as u64;
    snapshot
}

fn path_of(snapshot: &Snapshot) -> String {
    let row = snapshot.cgroups.get(1).unwrap();
    assert!(row.cgroup.path.starts_with(PATH));
    row.cgroup.path.clone()
}

#[test]
fn figures_are_those_of_the_row() {
    let snapshot = data::snapshot(Hierarchy::Hybrid, 2);
    let row = &snapshot.cgroups[1];
    let figures = Figures::of(row);
    let check = |figure, expected: Option<u64>| {
        assert!(expected.is_some(), "{figure:?} is not told");
        assert_eq!(figures.get(figure), expected, "{figure:?}");
    };
    let told = |reading: nodegauge::snapshot::Reading| reading.map(|value| value.get());
    check(Figure::CpuUsage, told(row.cpu.usage_ns));
    check(Figure::CpuBurst, told(row.cpu.burst_ns));
    check(Figure::MemoryUsage, told(row.memory.usage));
    check(Figure::MemoryKernel, told(row.memory.kernel));
    check(Figure::MemorySwap, told(row.memory.swap));
    check(Figure::OomKills, told(row.memory.oom_kills));
    check(Figure::ReceiveBytes, Some(row.network.iter().map(|i| i.receive.bytes).sum()));
    check(Figure::TransmitDropped, Some(row.network.iter().map(|i| i.transmit.dropped).sum()));
    check(Figure::IoReadBytes, Some(row.io.iter().filter_map(|d| told(d.bytes.read)).sum()));
    check(Figure::IoWrites, Some(row.io.iter().filter_map(|d| told(d.ios.write)).sum()));
    check(Figure::MemoryWriteback, told(row.memory.writeback));
    check(Figure::CpuPressureSome, told(row.pressure.cpu.some_usec));
    check(Figure::IoPressureFull, told(row.pressure.io.full_usec));
    check(Figure::Threads, told(row.process.threads));
    check(Figure::Sockets, told(row.process.sockets));
    check(Figure::LayerBytes, row.disk.as_ref().and_then(|d| Some(d.layer.as_ref()?.used_bytes)));
    check(Figure::HugetlbUsage, Some(row.hugetlb.iter().filter_map(|h| told(h.usage)).sum()));
    check(Figure::LoadDMilli, told(row.load.load_d_milli));
    let of = |hierarchy| Figures::of(&data::row(hierarchy, Arc::default(), &mut data::Numbers::from(1)));
    assert!(of(Hierarchy::V2).get(Figure::EventsHigh).is_some());
    assert_eq!(of(Hierarchy::V1).get(Figure::EventsHigh), None);
}

proptest! {
    /// What is read is the end of what was given, whatever the figures do.
    #[test]
    fn samples_come_back_as_they_were(
        steps in prop::collection::vec((1_u64..40_000, any::<u64>(), any::<u64>(), 0_u64..5), 1..80)
    ) {
        let (began, mut seconds) = (Instant::now(), 1.0);
        let history = History::new(Duration::from_secs(120));
        let mut given: Vec<Sample> = Vec::new();
        for (ms, value, other, clock) in steps {
            seconds += ms as f64 / 1000.0;
            let mut snapshot = at(began, seconds, data::snapshot(Hierarchy::V2, 2));
            snapshot.wall_ms -= clock * 86_400_000;
            let row = &mut snapshot.cgroups[1];
            row.cpu.usage_ns = reading(value);
            row.memory.usage = (value % 3 == 0).then_some(other).and_then(reading);
            row.pressure.io.full_usec = reading(other);
            match value % 3 {
                0 => row.extra().numa.clear(),
                _ => row.extra().sched.run_ns = reading(other),
            }
            let row = &snapshot.cgroups[1];
            given.push(history.sample(&snapshot, row));
            // What is kept is what the row had.
            let extra = given[given.len() - 1].extras.get();
            prop_assert_eq!(extra.as_ref(), row.extra.as_deref());
            history.record(&snapshot);
        }
        let path = path_of(&data::snapshot(Hierarchy::V2, 2));
        let kept = history.samples(&path).unwrap();
        // At these intervals nothing is left out.
        prop_assert_eq!(&kept[..], &given[given.len() - kept.len()..]);
        let span = kept[kept.len() - 1].taken_usec - kept[0].taken_usec;
        prop_assert!(span <= 120_000_000);
        if kept.len() < given.len() {
            let before = given[given.len() - kept.len() - 1].taken_usec;
            prop_assert!(given[given.len() - 1].taken_usec - before > 120_000_000, "forgotten too early");
        }
    }
}

/// Ticks of a cgroup with `next` figures, until the window was filled more than twice;
/// within its bytes at any time. What it has in the end.
fn busy(window: u64, interval: f64, mut next: impl FnMut(u64, &mut CgroupSample)) -> Vec<Sample> {
    let history = History::new(Duration::from_secs(window));
    let began = Instant::now();
    let ticks = (window as f64 * 2.5 / interval) as u64;
    let mut snapshot = data::snapshot(Hierarchy::Hybrid, 2);
    snapshot.cgroups[0].extra = None;
    for tick in 1..=ticks {
        next(tick, &mut snapshot.cgroups[1]);
        snapshot = at(began, tick as f64 * interval, snapshot);
        history.record(&snapshot);
        let most = 2 * BYTES_A_MINUTE * window as usize / 60;
        assert!(history.bytes() <= most, "{} of {most} bytes", history.bytes());
    }
    history.samples(&path_of(&snapshot)).unwrap()
}

/// Every figure of them changes every tick, by much.
fn all_figures(tick: u64, row: &mut CgroupSample) {
    let mut numbers = data::Numbers::from(1_000_000_000 + tick * tick * 54_321);
    *row = data::row(Hierarchy::Hybrid, Arc::clone(&row.cgroup), &mut numbers);
}

/// At intervals from a tenth of a second.
#[test]
fn a_busy_cgroup_stays_within_its_bytes_and_covers_the_window() {
    for (window, interval) in [(120, 0.1), (120, 1.0), (120, 10.0), (600, 1.0), (60, 0.5)] {
        let kept = busy(window, interval, |tick, row| {
            all_figures(tick, row);
            row.extra = None;
        });
        let span = kept[kept.len() - 1].taken_usec - kept[0].taken_usec;
        assert!(
            span >= window * 800_000,
            "{window} s every {interval} s: only {span} us in {} samples",
            kept.len()
        );
        assert!(kept.len() >= window as usize / 15, "{window} s every {interval} s: {} samples", kept.len());
    }
}

/// The same with figures of all kinds that are off by default, of which those of sockets
/// and of TCP change as those of a busy pod do. If all do, it is within its bytes at least.
#[test]
fn a_busy_cgroup_of_all_kinds_does_so_too() {
    for (window, interval) in [(120, 1.0), (120, 10.0), (600, 1.0)] {
        let kept = busy(window, interval, |tick, row| {
            let sched = data::extra(true, &mut data::Numbers::from(tick * tick * 54_321)).sched;
            let mut extra = data::extra(true, &mut data::Numbers::from(40));
            let sockets = [tick % 7, 0, 0, tick % 3, 0, tick % 5, 0, 1, 0, 4, 0];
            (extra.sched, extra.sockets.asked.tcp) = (sched, Some(sockets));
            for figure in extra.tcp.0.iter_mut().skip(4).step_by(8) {
                *figure = nonmax::NonMaxI64::new(i64::try_from(tick * 321).unwrap());
            }
            all_figures(tick, row);
            row.extra = Some(Box::new(extra));
        });
        let span = kept[kept.len() - 1].taken_usec - kept[0].taken_usec;
        assert!(span >= window * 700_000, "{window} s every {interval} s: only {span} us");
        assert!(kept.len() >= window as usize / 20, "{window} s every {interval} s: {} samples", kept.len());
    }
    for interval in [0.1, 1.0] {
        let kept = busy(120, interval, |tick, row| {
            all_figures(tick, row);
            let figures = &mut row.extra().tcp.0;
            figures
                .iter_mut()
                .for_each(|f| *f = nonmax::NonMaxI64::new(i64::try_from(tick * tick).unwrap() << 20));
        });
        assert!(kept.last().unwrap().extras.get().is_some());
    }
}

/// Figures of kinds that are off by default come and go with what has them.
#[test]
fn what_one_sample_has_the_next_may_lack() {
    let history = History::new(Duration::from_secs(120));
    let began = Instant::now();
    let mut given = Vec::new();
    for (tick, has) in [true, false, false, true, true].into_iter().enumerate() {
        let mut snapshot = at(began, 1.0 + tick as f64 * 25.0, data::snapshot(Hierarchy::V1, 2));
        if !has {
            snapshot.cgroups[1].extra = None;
        }
        given.push(snapshot.cgroups[1].extra.as_deref().cloned());
        history.record(&snapshot);
    }
    let kept = history.samples(&path_of(&data::snapshot(Hierarchy::V1, 2))).unwrap();
    assert_eq!(kept.iter().map(|sample| sample.extras.get()).collect::<Vec<_>>(), given);
}

#[test]
fn an_idle_cgroup_keeps_every_second() {
    let history = History::new(Duration::from_secs(120));
    let began = Instant::now();
    for second in 1..=300 {
        history.record(&at(began, f64::from(second), data::snapshot(Hierarchy::V2, 2)));
    }
    let kept = history.samples(&path_of(&data::snapshot(Hierarchy::V2, 2))).unwrap();
    assert_eq!(kept.len(), 121);
    assert_eq!(kept[1].usec_since(&kept[0]), Some(1_000_000));
    assert_eq!(kept[1].rise_since(&kept[0], Figure::CpuUsage), Some(0));
}

#[test]
fn another_life_begins_anew_and_what_is_gone_goes() {
    let history = History::new(Duration::from_secs(120));
    let began = Instant::now();
    let first = data::snapshot(Hierarchy::V2, 3);
    let path = path_of(&first);
    history.record(&at(began, 1.0, first.clone()));
    // A name that came later is the same life.
    let named = |created| {
        let identity = Identity { pod: Some("web".into()), ..Identity::default() };
        Arc::new(Cgroup { path: path.clone(), created, identity, ..Cgroup::default() })
    };
    let mut second = at(began, 2.0, first.clone());
    second.cgroups[1].cgroup = named(first.cgroups[1].cgroup.created);
    history.record(&second);
    assert_eq!(history.samples(&path).unwrap().len(), 2);
    let mut third = at(began, 3.0, first.clone());
    third.cgroups[1].cgroup = named(Some(1_700_000_001));
    third.cgroups.truncate(2);
    history.record(&third);
    assert_eq!(history.samples(&path).unwrap().len(), 1);
    assert_eq!(history.samples(&first.cgroups[2].cgroup.path), None);
    assert_eq!(history.samples("/").unwrap().len(), 3);
    assert_eq!(history.cgroups().len(), 2);
}

#[test]
fn a_window_of_nothing_keeps_the_newest() {
    let history = History::new(Duration::ZERO);
    let began = Instant::now();
    let snapshot = data::snapshot(Hierarchy::V2, 2);
    for second in [1.0, 2.0] {
        history.record(&at(began, second, snapshot.clone()));
    }
    let kept = history.samples("/").unwrap();
    assert_eq!((kept.len(), kept[0].wall_ms), (1, 1_700_000_002_000));
}
