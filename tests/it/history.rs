//! The history of cgroups' figures: what goes in comes out, within its bounds.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of the tests themselves"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use nodegauge::history::{BYTES_A_MINUTE, Figure, Figures, History, Sample};
use nodegauge::snapshot::{Cgroup, Hierarchy, Identity, Snapshot, reading};
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
            given.push(history.sample(&snapshot, &snapshot.cgroups[1]));
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

/// Every figure changes every tick, by much, at intervals from a tenth of a second.
#[test]
fn a_busy_cgroup_stays_within_its_bytes_and_covers_the_window() {
    for (window, interval) in [(120, 0.1), (120, 1.0), (120, 10.0), (600, 1.0), (60, 0.5)] {
        let history = History::new(Duration::from_secs(window));
        let began = Instant::now();
        let ticks = (window as f64 * 2.5 / interval) as u64;
        let mut row = data::snapshot(Hierarchy::Hybrid, 2);
        for tick in 1..=ticks {
            let mut numbers = data::Numbers::from(1_000_000_000 + tick * tick * 54_321);
            let cgroup = Arc::clone(&row.cgroups[1].cgroup);
            row.cgroups[1] = data::row(Hierarchy::Hybrid, cgroup, &mut numbers);
            row = at(began, tick as f64 * interval, row);
            history.record(&row);
            let most = 2 * BYTES_A_MINUTE * window as usize / 60;
            assert!(history.bytes() <= most, "{} of {most} bytes", history.bytes());
        }
        let kept = history.samples(&path_of(&row)).unwrap();
        let span = kept[kept.len() - 1].taken_usec - kept[0].taken_usec;
        assert!(
            span >= window * 800_000,
            "{window} s every {interval} s: only {span} us in {} samples",
            kept.len()
        );
        assert!(kept.len() >= window as usize / 15, "{window} s every {interval} s: {} samples", kept.len());
    }
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
