//! The families and the writers, against snapshots made by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nodegauge::expose::families::{self, Emit, Family, MetricType, Source, Unit};
use nodegauge::expose::{Format, Options, Renderer, View};
use nodegauge::snapshot::{
    Cgroup, CgroupSample, Hierarchy, Identity, Interface, InterfaceName, IoDevice, Kind, Kinds, Limit,
    Machine, Snapshot, Traffic, reading,
};
use proptest::prelude::*;

use crate::data::exposition::{self, Sample, billionths};
use crate::data::{all_kinds, cgroup, snapshot};

const HIERARCHIES: [Hierarchy; 3] = [Hierarchy::V1, Hierarchy::V2, Hierarchy::Hybrid];

pub(crate) fn text(renderer: &mut Renderer, snapshot: &Snapshot) -> String {
    let mut text = Vec::new();
    renderer
        .render(snapshot, |chunk| {
            text.extend_from_slice(chunk);
            Ok::<(), std::convert::Infallible>(())
        })
        .unwrap();
    String::from_utf8(text).unwrap()
}

pub(crate) fn render(snapshot: &Snapshot, format: Format, kinds: Kinds, timestamps: bool) -> String {
    text(&mut Renderer::new(Options { format, view: View::All, kinds, timestamps }), snapshot)
}

/// The samples of a plain scrape of everything.
pub(crate) fn scrape(snapshot: &Snapshot) -> Vec<Sample> {
    exposition::samples(&render(snapshot, Format::Prometheus, all_kinds(), false), false)
}

/// The values of a family by one of its labels, on the cgroup `id`.
pub(crate) fn by_label(samples: &[Sample], name: &str, id: &str, label: &str) -> Vec<(String, String)> {
    let of = |s: &&Sample| s.name == name && s.labels.get("id").is_some_and(|l| l == id);
    samples
        .iter()
        .filter(of)
        .map(|s| (s.labels.get(label).cloned().unwrap_or_default(), s.value.clone()))
        .collect()
}

/// The one value of a family on the cgroup `id`.
pub(crate) fn value(samples: &[Sample], name: &str, id: &str) -> Option<String> {
    let mut values = by_label(samples, name, id, "");
    assert!(values.len() <= 1, "{name} of {id}: {values:?}");
    values.pop().map(|(_, value)| value)
}

#[test]
fn the_table_has_the_families_of_the_contract() {
    let expected: Vec<String> = include_str!("../data/families.txt").lines().map(str::to_owned).collect();
    let mut table: Vec<String> = families::all()
        .map(|f| {
            let metric = match f.metric {
                MetricType::Counter => "counter",
                MetricType::Gauge => "gauge",
            };
            format!("{} {metric}", f.name)
        })
        .collect();
    table.sort();
    assert_eq!(table, expected);
}

#[test]
fn every_family_has_a_source_or_a_reason() {
    for Family { name, help, sources, emit, unit, .. } in families::all() {
        assert!(help.ends_with('.') && !help.contains(['\n', '\\', '"']), "{name}: {help:?}");
        for hierarchy in HIERARCHIES {
            let (Source::File(text) | Source::None(text)) = sources.on(hierarchy);
            assert!(text.len() > 4 && !text.contains(['\n', '|']), "{name}: {text:?}");
        }
        let never = HIERARCHIES.iter().all(|h| matches!(sources.on(*h), Source::None(_)));
        assert_eq!(never, matches!(emit, Emit::Never), "{name}");
        let stem = name.strip_suffix("_total").unwrap_or(name);
        assert_eq!(stem.ends_with("_bytes"), *unit == Unit::Bytes && stem.ends_with("_bytes"), "{name}");
        assert_eq!(
            stem.ends_with("_seconds"),
            *unit == Unit::Seconds && stem.ends_with("_seconds"),
            "{name}"
        );
    }
}

#[test]
fn the_source_table_has_a_line_for_each_family() {
    let table = families::source_table();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 1 + families::all().count());
    assert!(lines.iter().all(|l| l.split(" | ").count() == 4), "{table}");
    assert!(lines.contains(
        &"container_memory_rss | memory.stat:total_rss | memory.stat:anon | memory.stat:total_rss"
    ));
    let pgscan = "container_memory_pgscan_total | none: the kernel counts it on cgroup v2 only | \
                  memory.stat:pgscan | none: the kernel counts it on cgroup v2 only";
    assert!(lines.contains(&pgscan), "{table}");
}

/// On a host that tells all it can, exactly the families with a source have samples.
#[test]
fn sources_and_samples_agree() {
    for hierarchy in HIERARCHIES {
        let samples = scrape(&snapshot(hierarchy, 3));
        let told: BTreeSet<&str> = samples.iter().map(|s| s.name.as_str()).collect();
        for family in families::all() {
            let source = family.sources.on(hierarchy);
            assert_eq!(
                told.contains(family.name),
                matches!(source, Source::File(_)),
                "{} on {hierarchy:?}: {source}",
                family.name
            );
        }
    }
}

#[test]
fn what_is_not_told_is_absent() {
    let mut empty = snapshot(Hierarchy::V2, 0);
    let unknown =
        |path: &str| Cgroup { path: path.into(), labels: format!("id=\"{path}\""), ..Cgroup::default() };
    empty.cgroups = ["/", "/a"].map(|path| CgroupSample::new(Arc::new(unknown(path)))).into();
    empty.machine = Arc::new(Machine::default());
    empty.filesystems = Arc::default();
    empty.disks.clear();
    let lines: Vec<(String, String)> = scrape(&empty).into_iter().map(|s| (s.name, s.value)).collect();
    let line = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        lines,
        [
            line("cadvisor_version_info", "1"),
            line("container_scrape_error", "0"),
            line("container_last_seen", "1700000000"),
            line("container_last_seen", "1700000000"),
            // That there is no health check is known of every cgroup.
            line("container_health_state", "-1"),
            line("container_health_state", "-1"),
            line("machine_scrape_error", "1"),
        ]
    );
    empty.cgroups.clear();
    assert!(scrape(&empty).iter().any(|s| s.name == "container_scrape_error" && s.value == "1"));
}

#[test]
fn no_two_samples_have_the_same_labels() {
    for hierarchy in HIERARCHIES {
        let mut snapshot = snapshot(hierarchy, 3);
        // Two nameless devices, and a second tmpfs over the first.
        for minor in [1, 2] {
            let device = snapshot.cgroups[0].io[0].clone();
            snapshot.cgroups[0].io.push(IoDevice { minor, name: "".into(), ..device });
        }
        let filesystems = Arc::make_mut(&mut snapshot.filesystems);
        filesystems.mounts.push(filesystems.mounts[2].clone());
        filesystems.mounts.insert(0, filesystems.mounts[2].clone());
        snapshot.disks.insert(0, None);
        for format in [Format::Prometheus, Format::OpenMetrics, Format::OpenMetricsDraft] {
            let text = render(&snapshot, format, all_kinds(), true);
            let samples = exposition::samples(&text, format.is_openmetrics());
            assert!(samples.len() > 250, "{}", samples.len());
            let devices = |name| {
                by_label(&samples, name, "/", "device").into_iter().map(|(d, _)| d).collect::<Vec<_>>()
            };
            assert_eq!(devices("container_fs_reads_total"), ["/dev/vda", "254:1", "254:2", "/dev/vdb1"]);
            assert_eq!(devices("container_fs_limit_bytes"), ["/run", "/dev/vda", "/dev/vdb1"]);
        }
    }
}

#[test]
fn filesystems_and_disks_are_the_roots() {
    let snapshot = snapshot(Hierarchy::V2, 2);
    let samples = scrape(&snapshot);
    let child = &snapshot.cgroups[1].cgroup.path;
    let space = snapshot.filesystems.mounts[0].space.unwrap();
    let disks: Vec<_> = snapshot.disks.iter().flatten().collect();
    let at = |device: &str, value: String| (device.to_owned(), value);
    // The second filesystem has no fixed number of inodes.
    assert_eq!(
        by_label(&samples, "container_fs_inodes_free", "/", "device"),
        [
            at("/dev/vda", space.inodes_free.unwrap().to_string()),
            at("/run", snapshot.filesystems.mounts[2].space.unwrap().inodes_free.unwrap().to_string())
        ]
    );
    // Milliseconds are seconds, and only block devices have lines in diskstats.
    let seconds = |ms: u64| format!("{}.{:03}", ms / 1000, ms % 1000).trim_end_matches('0').to_owned();
    assert_eq!(
        by_label(&samples, "container_fs_io_time_seconds_total", "/", "device"),
        [at("/dev/vda", seconds(disks[0].io_ms)), at("/dev/vdb1", seconds(disks[1].io_ms))]
    );
    assert_eq!(
        by_label(&samples, "container_fs_sector_writes_total", "/", "device"),
        [
            at("/dev/vda", disks[0].sectors_written.to_string()),
            at("/dev/vdb1", disks[1].sectors_written.to_string())
        ]
    );
    // A cgroup's own figure is told before the disk's of the same name.
    let own = snapshot.cgroups[0].io[0].ios.read.unwrap().to_string();
    assert_eq!(
        by_label(&samples, "container_fs_reads_total", "/", "device"),
        [at("/dev/vda", own), at("/dev/vdb1", disks[1].reads.to_string())]
    );
    assert_eq!(by_label(&samples, "container_fs_reads_total", child, "device").len(), 1);
}

#[test]
fn cpu_usage_is_in_total_or_by_cpu() {
    let v1 = snapshot(Hierarchy::V1, 2);
    let name = "container_cpu_usage_seconds_total";
    assert_eq!(
        by_label(&scrape(&v1), name, "/", "cpu"),
        [("cpu00".into(), "12.000000345".into()), ("cpu02".into(), "0.7".into())]
    );
    let text = render(&v1, Format::Prometheus, Kinds::DEFAULT, false);
    let total = by_label(&exposition::samples(&text, false), name, "/", "cpu");
    assert_eq!(total.len(), 1);
    assert_eq!(total[0].0, "total");
    // The kernel says 0, so 0 is told.
    let mut idle = snapshot(Hierarchy::V2, 1);
    idle.cgroups[0].cpu.usage_ns = reading(0);
    assert_eq!(by_label(&scrape(&idle), name, "/", "cpu"), [("total".into(), "0".into())]);
}

#[test]
fn throttling_needs_a_quota() {
    let mut snapshot = snapshot(Hierarchy::V2, 1);
    snapshot.cgroups[0].spec.cpu_quota_usec = Some(Limit::Value(20_000));
    snapshot.cgroups[0].cpu.throttled_ns = reading(1_500_000);
    let samples = scrape(&snapshot);
    assert_eq!(value(&samples, "container_spec_cpu_quota", "/").as_deref(), Some("20000"));
    assert_eq!(value(&samples, "container_cpu_cfs_throttled_seconds_total", "/").as_deref(), Some("0.0015"));
    for unlimited in [Some(Limit::Max), None] {
        snapshot.cgroups[0].spec.cpu_quota_usec = unlimited;
        let samples = scrape(&snapshot);
        assert_eq!(value(&samples, "container_spec_cpu_quota", "/"), None);
        assert!(samples.iter().all(|s| !s.name.starts_with("container_cpu_cfs_")));
        assert_eq!(value(&samples, "container_spec_cpu_period", "/").as_deref(), Some("100000"));
    }
}

#[test]
fn unlimited_is_written_as_cadvisor_does() {
    let mut snapshot = snapshot(Hierarchy::V2, 1);
    let sample = &mut snapshot.cgroups[0];
    sample.spec.memory_limit = Some(Limit::Max);
    sample.spec.memory_swap_limit = Some(Limit::Max);
    sample.spec.memory_reservation = Some(Limit::Max);
    sample.spec.threads_max = Some(Limit::Max);
    sample.process.max_open_files = Some(Limit::Max);
    sample.spec.cpu_weight = reading(59);
    let samples = scrape(&snapshot);
    for (name, expected) in [
        ("container_spec_memory_limit_bytes", "0"),
        ("container_spec_memory_swap_limit_bytes", "0"),
        ("container_spec_memory_reservation_limit_bytes", "0"),
        ("container_threads_max", "0"),
        ("container_ulimits_soft", "-1"),
        ("container_spec_cpu_shares", "521"),
    ] {
        assert_eq!(value(&samples, name, "/").as_deref(), Some(expected), "{name}");
    }
}

#[test]
fn page_faults_of_the_cgroup_alone_are_told_where_known() {
    let scopes = |hierarchy, leaf| {
        let mut snapshot = snapshot(hierarchy, 1);
        let sample = &mut snapshot.cgroups[0];
        sample.leaf = leaf;
        sample.memory.pgfault = reading(10);
        if hierarchy == Hierarchy::V1 {
            sample.memory.pgfault_own = reading(4);
        }
        let samples = scrape(&snapshot);
        let of = |s: &&Sample| s.labels.get("failure_type").is_some_and(|t| t == "pgfault");
        samples.iter().filter(of).map(|s| format!("{} {}", s.labels["scope"], s.value)).collect::<Vec<_>>()
    };
    assert_eq!(scopes(Hierarchy::V1, false), ["container 4", "hierarchy 10"]);
    assert_eq!(scopes(Hierarchy::V1, true), ["container 4", "hierarchy 10"]);
    assert_eq!(scopes(Hierarchy::V2, false), ["hierarchy 10"]);
    assert_eq!(scopes(Hierarchy::V2, true), ["container 10", "hierarchy 10"]);
}

#[test]
fn kinds_and_names_choose_families() {
    let snapshot = snapshot(Hierarchy::V2, 2);
    let families = |text: &str| -> BTreeSet<String> {
        exposition::parse(text, false).into_iter().map(|f| f.name).collect()
    };
    for kind in Kind::ALL {
        let text = render(&snapshot, Format::Prometheus, Kinds::NONE.with(kind), false);
        let expected: BTreeSet<String> = families::all()
            .filter(|f| f.kind.is_none_or(|k| k == kind))
            .filter(|f| matches!(f.sources.v2, Source::File(_)))
            .map(|f| f.name.to_owned())
            .collect();
        assert_eq!(families(&text), expected, "{}", kind.name());
    }
    let options =
        Options { format: Format::Prometheus, view: View::All, kinds: Kinds::DEFAULT, timestamps: false };
    let names = ["machine_cpu_cores", "container_memory_rss", "container_sockets", "no_such_family"];
    let mut renderer = Renderer::new(options).only(&names);
    // Sockets are of a kind that is off.
    assert_eq!(
        families(&text(&mut renderer, &snapshot)),
        BTreeSet::from(["machine_cpu_cores".to_owned(), "container_memory_rss".to_owned()])
    );
}

#[test]
fn openmetrics_has_the_same_samples() {
    let snapshot = snapshot(Hierarchy::V1, 3);
    let plain = exposition::parse(&render(&snapshot, Format::Prometheus, all_kinds(), false), false);
    let open = exposition::parse(&render(&snapshot, Format::OpenMetrics, all_kinds(), false), true);
    assert_eq!(plain.len(), open.len());
    let mut unknown = Vec::new();
    for (plain, open) in plain.iter().zip(&open) {
        assert_eq!(plain.samples, open.samples);
        assert_eq!(plain.about["HELP"], open.about["HELP"]);
        match open.about["TYPE"].as_str() {
            "counter" => assert_eq!(format!("{}_total", open.name), plain.name),
            "gauge" => assert!(!open.name.ends_with("_total")),
            "unknown" => unknown.push(open.name.as_str()),
            other => panic!("{other}"),
        }
        assert_eq!(plain.about.get("UNIT"), None);
        if let Some(unit) = open.about.get("UNIT") {
            assert!(open.name.ends_with(&format!("_{unit}")), "{open:?}");
        }
    }
    // Two counters without the suffix, and a gauge with it.
    assert_eq!(
        unknown,
        [
            "container_memory_failcnt",
            "container_hugetlb_failcnt",
            "container_fs_inodes_total",
            "container_network_tcp_usage_total",
            "container_network_tcp6_usage_total",
            "container_network_advance_tcp_stats_total",
            "container_network_udp_usage_total",
            "container_network_udp6_usage_total",
        ]
    );
    assert!(open.iter().any(|f| f.about.get("UNIT").is_some_and(|u| u == "seconds")));
    assert!(open.iter().any(|f| f.about.get("UNIT").is_some_and(|u| u == "bytes")));
}

#[test]
fn time_stamps_are_where_cadvisor_has_them() {
    let snapshot = snapshot(Hierarchy::V1, 2);
    let without: BTreeSet<&str> = BTreeSet::from([
        "cadvisor_version_info",
        "container_scrape_error",
        "container_creation_time_seconds",
        "container_start_time_seconds",
        "container_spec_cpu_period",
        "container_spec_cpu_quota",
        "container_spec_cpu_shares",
        "container_spec_memory_limit_bytes",
        "container_spec_memory_swap_limit_bytes",
        "container_spec_memory_reservation_limit_bytes",
        "machine_scrape_error",
    ]);
    for (format, stamp) in [(Format::Prometheus, "1700000000120"), (Format::OpenMetrics, "1700000000.12")] {
        let off =
            exposition::samples(&render(&snapshot, format, all_kinds(), false), format.is_openmetrics());
        assert!(off.iter().all(|s| s.stamp.is_none()));
        let on = exposition::samples(&render(&snapshot, format, all_kinds(), true), format.is_openmetrics());
        assert_eq!(on.len(), off.len());
        for (on, off) in on.iter().zip(off) {
            let expected = (!without.contains(on.name.as_str())).then(|| stamp.to_owned());
            assert_eq!(on.stamp, expected, "{}", on.name);
            assert_eq!(Sample { stamp: None, ..on.clone() }, off);
        }
    }
}

#[test]
fn the_first_error_of_the_sink_ends_the_scrape() {
    let snapshot = snapshot(Hierarchy::V2, 500);
    let options =
        Options { format: Format::OpenMetrics, view: View::All, kinds: all_kinds(), timestamps: false };
    let mut renderer = Renderer::new(options);
    let mut calls = 0;
    let result = renderer.render(&snapshot, |chunk| {
        calls += 1;
        assert!(chunk.len() <= 64 * 1024 && chunk.ends_with(b"\n"));
        if calls == 3 { Err("gone") } else { Ok(()) }
    });
    assert_eq!((result, calls), (Err("gone"), 3));
    // The next scrape starts clean.
    let open = text(&mut renderer, &snapshot);
    assert!(open.starts_with("# HELP") && open.ends_with("# EOF\n"));
}

/// What a label's value is shown as: control characters the way systemd shows them.
fn shown(value: &str) -> String {
    let hex = |c: char| c.to_string().bytes().map(|b| format!("\\x{b:02x}")).collect::<String>();
    value.chars().map(|c| if c.is_control() && c != '\n' { hex(c) } else { c.to_string() }).collect()
}

type Key = (String, BTreeMap<String, String>);

/// What a scrape must say, for families that use every way of writing.
#[derive(Default)]
struct Expected(BTreeMap<Key, i128>);

impl Expected {
    const NAMES: [&'static str; 8] = [
        "container_cpu_usage_seconds_total",
        "container_memory_usage_bytes",
        "container_fs_reads_total",
        "container_fs_io_time_seconds_total",
        "container_blkio_device_usage_total",
        "container_network_transmit_bytes_total",
        "container_pressure_io_waiting_seconds_total",
        "machine_memory_bytes",
    ];

    fn add(&mut self, name: &str, labels: &[(&str, &str)], billionths: i128) {
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), shown(v))).collect();
        assert_eq!(self.0.insert((name.to_owned(), labels), billionths), None);
    }

    fn of(snapshot: &Snapshot) -> Expected {
        const ONE: i128 = 1_000_000_000;
        let mut all = Expected::default();
        let [cpu, memory, reads, busy, usage, sent, stalled, machine_memory] = Expected::NAMES;
        let machine = &snapshot.machine;
        let ids = [
            ("machine_id", machine.machine_id.as_str()),
            ("system_uuid", &machine.system_uuid),
            ("boot_id", &machine.boot_id),
        ];
        all.add(machine_memory, &ids, i128::from(machine.memory_bytes.unwrap().get()) * ONE);
        for row in &snapshot.cgroups {
            let mut base = vec![("id", row.cgroup.path.as_str())];
            base.extend(row.cgroup.identity.name.as_deref().filter(|n| !n.is_empty()).map(|n| ("name", n)));
            base.extend(row.cgroup.identity.image.as_deref().filter(|i| !i.is_empty()).map(|i| ("image", i)));
            let with = |more: &[(&'static str, &str)]| -> Vec<(&str, String)> {
                let all = base.iter().chain(more);
                all.map(|(n, v)| (*n, (*v).to_owned())).collect()
            };
            let mut add = |name: &str, more: &[(&'static str, &str)], value: i128| {
                let labels = with(more);
                let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (*n, v.as_str())).collect();
                all.add(name, &labels, value);
            };
            if let Some(ns) = row.cpu.usage_ns {
                add(cpu, &[("cpu", "total")], ns.get().into());
            }
            if let Some(bytes) = row.memory.usage {
                add(memory, &[], i128::from(bytes.get()) * ONE);
            }
            if let Some(usec) = row.pressure.io.some_usec {
                add(stalled, &[], i128::from(usec.get()) * 1000);
            }
            for interface in &row.network {
                let bytes = i128::from(interface.transmit.bytes) * ONE;
                add(sent, &[("interface", interface.name.as_str())], bytes);
            }
            let mut told = BTreeSet::new();
            for device in &row.io {
                let numbers = format!("{}:{}", device.major, device.minor);
                let name = if device.name.is_empty() { &numbers } else { &*device.name };
                if let Some(ios) = device.ios.read {
                    told.insert(name.to_owned());
                    add(reads, &[("device", name)], i128::from(ios.get()) * ONE);
                }
                let (major, minor) = (device.major.to_string(), device.minor.to_string());
                for (operation, bytes) in [
                    ("Read", device.bytes.read),
                    ("Write", device.bytes.write),
                    ("Discard", device.bytes.discard),
                ] {
                    let labels =
                        [("device", name), ("major", &*major), ("minor", &*minor), ("operation", operation)];
                    if let Some(bytes) = bytes {
                        add(usage, &labels, i128::from(bytes.get()) * ONE);
                    }
                }
            }
            if row.cgroup.path == "/" {
                let mut seen = BTreeSet::new();
                for (mount, disk) in snapshot.filesystems.mounts.iter().zip(&snapshot.disks) {
                    let first = seen.insert(&mount.device);
                    let Some(disk) = disk.filter(|_| first) else { continue };
                    add(busy, &[("device", &mount.device)], i128::from(disk.io_ms) * 1_000_000);
                    if !told.contains(&mount.device) {
                        add(reads, &[("device", &mount.device)], i128::from(disk.reads) * ONE);
                    }
                }
            }
        }
        all
    }
}

/// Text as someone with ill will would name things.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[\"\\\\{}=,# \n\r\t\u{0}-\u{1f}\u{7f}-\u{9f}nx]{0,12}", "[a-z/-]{1,30}"]
}

fn hostile_row() -> impl Strategy<Value = CgroupSample> {
    let names = (hostile(), hostile(), hostile(), hostile());
    let figures = prop::collection::vec(prop::option::weighted(0.8, 0..u64::MAX), 6);
    (names, prop::option::of(hostile()), figures).prop_map(
        |((path, device, image, interface), name, figures)| {
            let figure = |i: usize| figures[i].and_then(reading);
            let identity = Identity { name, image: Some(image), ..Identity::default() };
            let mut row = snapshot(Hierarchy::V2, 1).cgroups.remove(0);
            row.cgroup = cgroup(&path, identity);
            row.cpu.usage_ns = figure(0);
            row.memory.usage = figure(1);
            row.pressure.io.some_usec = figure(2);
            let told = row.io[0].clone();
            row.io = [(1, format!("/dev/{device}")), (2, String::new()), (3, String::new())]
                .map(|(minor, name)| IoDevice { minor, name: name.into(), ..told.clone() })
                .into();
            row.io[0].ios.read = figure(3);
            row.io[1].bytes.write = figure(4);
            row.network.clear();
            let mut interface = interface;
            while InterfaceName::new(interface.as_bytes()).is_none() {
                interface.pop();
            }
            let transmit = Traffic { bytes: figures[5].unwrap_or(0), ..Traffic::default() };
            row.network.push(Interface {
                name: InterfaceName::new(interface.as_bytes()).unwrap(),
                receive: Traffic::default(),
                transmit,
            });
            row
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// What is parsed back is what was told, whatever things are called.
    #[test]
    fn parsing_a_scrape_gives_the_snapshot(
        rows in prop::collection::vec(hostile_row(), 0..5),
        devices in prop::collection::vec(hostile(), 3),
        boot_id in hostile(),
        io_ms in any::<u64>(),
        timestamps in any::<bool>(),
    ) {
        let mut snapshot = snapshot(Hierarchy::V2, 1);
        Arc::make_mut(&mut snapshot.machine).boot_id = boot_id;
        let filesystems = Arc::make_mut(&mut snapshot.filesystems);
        for (mount, device) in filesystems.mounts.iter_mut().zip(devices) {
            mount.device = device;
        }
        // One device has the name of a mount, which only hers must be told of.
        snapshot.cgroups[0].io[0].name = filesystems.mounts[1].device.as_str().into();
        snapshot.disks[0].as_mut().unwrap().io_ms = io_ms;
        for (i, mut row) in rows.into_iter().enumerate() {
            // Paths differ.
            let Cgroup { path, identity, .. } = &*row.cgroup;
            row.cgroup = cgroup(&format!("{path}#{i}"), identity.clone());
            snapshot.cgroups.push(row);
        }
        let expected = Expected::of(&snapshot).0;
        for format in [Format::Prometheus, Format::OpenMetrics] {
            let options = Options { format, view: View::All, kinds: all_kinds(), timestamps };
            let everything = text(&mut Renderer::new(options), &snapshot);
            exposition::samples(&everything, format.is_openmetrics());
            let chosen = text(&mut Renderer::new(options).only(&Expected::NAMES), &snapshot);
            let samples = exposition::samples(&chosen, format.is_openmetrics());
            let told: BTreeMap<Key, i128> =
                samples.into_iter().map(|s| ((s.name, s.labels), billionths(&s.value))).collect();
            prop_assert_eq!(&told, &expected);
        }
    }

    #[test]
    fn negotiation_takes_any_header(header in hostile()) {
        nodegauge::expose::negotiate(&header);
        nodegauge::expose::accepts_gzip(&header);
    }
}
