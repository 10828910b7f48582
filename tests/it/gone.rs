//! What scrapes have of containers that are gone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nodegauge::expose::families::{self, MetricType};
use nodegauge::expose::{Format, Options, Renderer, View};
use nodegauge::snapshot::{
    CgroupSample, Departed, Hierarchy, Identity, Kinds, KubeletLabels, OomGone, Shown, Snapshot, reading,
};

use crate::data::{all_kinds, cgroup, snapshot};
use crate::expose::{render, scrape, text, value};

const CPU: &str = "container_cpu_usage_seconds_total";

/// The last row of a container, found gone so long before the snapshot.
fn departed(of: &Snapshot, path: &str, age: Duration) -> Departed {
    let mut last = of.cgroups[1].clone();
    last.cgroup = cgroup(path, Identity::default());
    last.cpu.usage_ns = reading(1_500_000_000);
    last.cpu.per_cpu_ns.clear();
    Departed {
        last,
        seen_ms: 1_699_999_990_250,
        gone_ms: 1_699_999_991_000,
        gone: of.monotonic.checked_sub(age).unwrap(),
        whole: true,
        waits: false,
        shown: Shown::default(),
    }
}

fn with(mut snapshot: Snapshot, departed: impl IntoIterator<Item = Departed>) -> Snapshot {
    snapshot.departed = Arc::new(departed.into_iter().map(Arc::new).collect());
    snapshot
}

/// What it used remains, and when it was there; what it has is no more.
#[test]
fn final_totals_are_counters_times_and_the_peak() {
    for hierarchy in [Hierarchy::V1, Hierarchy::V2, Hierarchy::Hybrid] {
        let before = snapshot(hierarchy, 3);
        let gone = departed(&before, "/docker/gone", Duration::from_secs(1));
        let samples = scrape(&with(before, [gone]));
        assert_eq!(value(&samples, CPU, "/docker/gone").as_deref(), Some("1.5"));
        assert_eq!(value(&samples, "container_last_seen", "/docker/gone").as_deref(), Some("1699999990"));
        assert_eq!(value(&samples, "container_last_seen", "/").as_deref(), Some("1700000000"));
        let names: BTreeSet<&str> = samples
            .iter()
            .filter(|s| s.labels.get("id").is_some_and(|id| id == "/docker/gone"))
            .map(|s| s.name.as_str())
            .collect();
        for name in ["container_memory_max_usage_bytes", "container_start_time_seconds"] {
            assert!(names.contains(name), "{name} is missing");
        }
        let gauges = families::all().filter(|f| f.metric == MetricType::Gauge && names.contains(f.name));
        let gauges: Vec<&str> = gauges.map(|f| f.name).collect();
        assert_eq!(
            gauges.len(),
            4 - usize::from(!names.contains("container_creation_time_seconds")),
            "{gauges:?}"
        );
        assert!(!names.contains("container_memory_usage_bytes"));
    }
}

#[test]
fn a_figure_that_was_never_read_is_absent() {
    let before = snapshot(Hierarchy::V2, 2);
    let mut gone = departed(&before, "/docker/gone", Duration::ZERO);
    gone.last = CgroupSample::new(gone.last.cgroup);
    let samples = scrape(&with(before, [gone]));
    assert!(value(&samples, "container_last_seen", "/docker/gone").is_some());
    assert_eq!(value(&samples, CPU, "/docker/gone"), None);
}

/// Two rows of one path would be two samples with the same labels.
#[test]
fn a_path_is_shown_once() {
    let before = snapshot(Hierarchy::V2, 3);
    let live = before.cgroups[2].cgroup.path.clone();
    let mut rows = Vec::new();
    for (path, age, usage) in
        [("/docker/again", 9, 1), (&live, 5, 2), ("/docker/again", 3, 3), ("/docker/b", 1, 4)]
    {
        let mut row = departed(&before, path, Duration::from_secs(age));
        row.last.cpu.usage_ns = reading(usage * 1_000_000_000);
        rows.push(row);
    }
    let snapshot = with(before, rows);
    let samples = scrape(&snapshot);
    assert_eq!(value(&samples, CPU, "/docker/again").as_deref(), Some("3"));
    assert_eq!(value(&samples, CPU, "/docker/b").as_deref(), Some("4"));
    assert_ne!(value(&samples, CPU, &live).as_deref(), Some("2"));
}

#[test]
fn kills_of_the_gone_are_not_written_twice() {
    let mut before = snapshot(Hierarchy::V2, 2);
    let cgroup = cgroup("/docker/gone", Identity::default());
    before.oom_gone = Arc::new(vec![OomGone { cgroup, kills: 3, gone_ms: 1 }]);
    let gone = departed(&before, "/docker/gone", Duration::ZERO);
    let samples = scrape(&with(before, [gone]));
    assert_eq!(value(&samples, "container_oom_events_total", "/docker/gone").as_deref(), Some("3"));
}

#[test]
fn they_go_when_they_were_shown_and_after_a_minute() {
    let before = snapshot(Hierarchy::V2, 2);
    let lingers = |age: u64, shown: bool, whole: bool, waits: bool| {
        let row = Departed { whole, waits, ..departed(&before, "/docker/gone", Duration::from_secs(age)) };
        if shown {
            row.shown.set();
        }
        row.lingers(before.monotonic)
    };
    assert!(lingers(0, false, true, false) && lingers(59, false, true, false));
    assert!(!lingers(60, false, true, false));
    // A second one who scrapes has some time, too.
    assert!(lingers(14, true, true, false) && !lingers(15, true, true, false));
    assert!(!lingers(1, false, false, false), "no container");
    assert!(!lingers(1, false, true, true), "its name may still come");
}

/// With time stamps each has that of its own last reading, and a kubelet's view those it shows.
#[test]
fn time_stamps_and_views() {
    let before = snapshot(Hierarchy::V2, 2);
    let mut gone = departed(&before, "/docker/gone", Duration::ZERO);
    let snapshot = with(before.clone(), [gone.clone()]);
    let lines = render(&snapshot, Format::Prometheus, all_kinds(), true);
    let find = |id: &str| {
        let line = lines.lines().find(|l| l.starts_with(CPU) && l.contains(&format!("id=\"{id}\"")));
        line.unwrap_or_else(|| panic!("no {id}")).to_owned()
    };
    assert!(find("/docker/gone").ends_with(" 1.5 1699999990250"), "{}", find("/docker/gone"));
    assert!(find("/").ends_with(" 1700000000120"), "{}", find("/"));
    let options =
        Options { format: Format::Prometheus, view: View::Kubelet, kinds: Kinds::KUBELET, timestamps: false };
    assert!(!text(&mut Renderer::new(options), &snapshot).contains("/docker/gone"));
    Arc::make_mut(&mut gone.last.cgroup).kubelet = KubeletLabels::Base;
    assert!(text(&mut Renderer::new(options), &with(before, [gone])).contains("/docker/gone"));
}
