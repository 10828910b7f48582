//! The real binary on trees captured on real kernels, beside the output
//! expected of them.
//!
//! `UPDATE_GOLDEN=1 cargo test --test it golden` writes the expectations anew;
//! the difference is reviewed like code. `expected/zero.txt` names the families
//! that are 0 throughout in a capture, so that every other one shows a figure
//! that a wrong reader would not get right.
#![allow(clippy::disallowed_methods)] // the binary is started

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use nodegauge::expose::families::{self, Source};
use nodegauge::kernel::Roots;
use nodegauge::kernel::cgroup::Layout;
use nodegauge::kernel::file::Buffer;
use nodegauge::snapshot::Hierarchy;

use crate::data::exposition;
use crate::ttar;

const ALL_KINDS: &str = "cpu,percpu,cpuLoad,memory,hugetlb,disk,diskIO,network,oom_event,pressure,process,\
     tcp,udp,advtcp,sched,cpu_topology,cpuset,memory_numa,memory_events";

/// The time of the run: its value is left out.
const MASKED: [&str; 1] = ["container_last_seen"];

/// Families whose source is stated but which no captured tree can show.
const NOT_IN_A_CAPTURE: [(&str, &str); 28] = [
    ("container_cpu_load_average_10s", "asked of the running kernel"),
    ("container_cpu_load_d_average_10s", "asked of the running kernel"),
    ("container_tasks_state", "asked of the running kernel"),
    ("container_fs_limit_bytes", "asked of the running kernel"),
    ("container_fs_usage_bytes", "asked of the running kernel"),
    ("container_fs_inodes_free", "asked of the running kernel"),
    ("container_fs_inodes_total", "asked of the running kernel"),
    ("nodegauge_disk_usage_bytes", "asked of the running kernel"),
    ("nodegauge_disk_usage_inodes", "asked of the running kernel"),
    ("nodegauge_disk_usage_age_seconds", "asked of the running kernel"),
    ("nodegauge_reboot_required", "a captured tree has no /run"),
    ("nodegauge_cpu_throttled_ratio", "takes two ticks in which something ran"),
    ("container_network_tcp_usage_total", "asked of the running kernel"),
    ("container_network_tcp6_usage_total", "asked of the running kernel"),
    ("container_file_descriptors", "a captured process has no fd directory"),
    ("container_sockets", "a captured process has no fd directory"),
    ("container_fs_io_cost_usage_seconds_total", "needs iocost switched on"),
    ("container_fs_io_cost_wait_seconds_total", "needs iocost switched on"),
    ("container_fs_io_cost_indebt_seconds_total", "needs iocost switched on"),
    ("container_fs_io_cost_indelay_seconds_total", "needs iocost switched on"),
    ("container_hugetlb_usage_bytes", "the captured kernel has no such controller mounted"),
    ("container_hugetlb_max_usage_bytes", "the captured kernel has no such controller mounted"),
    ("container_hugetlb_failcnt", "the captured kernel has no such controller mounted"),
    ("machine_cpu_books", "s390x only"),
    ("machine_cpu_drawers", "s390x only"),
    ("machine_dimm_count", "virtual machines have no EDAC"),
    ("machine_dimm_capacity_bytes", "virtual machines have no EDAC"),
    ("container_health_state", "needs a runtime"),
];

struct Scenario {
    name: String,
    hierarchy: Hierarchy,
    text: String,
}

fn expected(scenario: &str, file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(scenario).join("expected").join(file)
}

/// Every capture, read once by the binary.
static CAPTURES: LazyLock<Vec<Scenario>> =
    LazyLock::new(|| ttar::scenarios().iter().map(|scenario| once(scenario)).collect());

fn once(scenario: &str) -> Scenario {
    let tree = ttar::unpack(scenario);
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodegauge"));
    command.args(["once", "--format", "prometheus", "--metrics", ALL_KINDS, "--host-root"]).arg(tree.path());
    // Directories of a captured tree take up what they do here.
    command.args(["--disk-usage-budget", "0"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{scenario}: {}", String::from_utf8_lossy(&output.stderr));
    let text = mask(&String::from_utf8(output.stdout).unwrap());
    let layout = Layout::detect(&Roots::new(tree.path()), &mut Buffer::new()).unwrap();
    Scenario { name: scenario.to_owned(), hierarchy: layout.hierarchy, text }
}

/// Told by the running kernel, if the tree happens to be unpacked on a device of
/// the captured number: no part of a capture.
const SPACE: [&str; 4] = [
    "container_fs_limit_bytes",
    "container_fs_usage_bytes",
    "container_fs_inodes_free",
    "container_fs_inodes_total",
];

fn mask(text: &str) -> String {
    let version = format!("cadvisorVersion=\"{}\"", env!("CARGO_PKG_VERSION"));
    let line = |line: &str| match line.rsplit_once(' ') {
        Some((start, _)) if MASKED.iter().any(|m| line.starts_with(m)) => format!("{start} MASKED\n"),
        _ => format!("{}\n", line.replace(&version, "cadvisorVersion=\"MASKED\"")),
    };
    let kept = text.lines().filter(|l| !SPACE.iter().any(|name| l.contains(name)));
    kept.map(line).collect()
}

/// Families of a text, and whether one of their samples is not 0.
fn families_of(text: &str) -> BTreeMap<String, bool> {
    let parsed = exposition::parse(&text.replace(" MASKED", " 1"), false);
    parsed.into_iter().map(|f| (f.name, f.samples.iter().any(|s| s.value != "0"))).collect()
}

fn compare(scenario: &str, file: &str, text: &str) {
    is_golden(&expected(scenario, file), text);
}

/// Compares with the golden file, or writes it.
pub(crate) fn is_golden(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        return;
    }
    let golden = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if golden != text {
        let (old, new): (BTreeSet<&str>, BTreeSet<&str>) = (golden.lines().collect(), text.lines().collect());
        let lines = |a: &BTreeSet<&str>, b: &BTreeSet<&str>, sign: &str| -> String {
            a.difference(b).take(20).map(|l| format!("{sign} {l}\n")).collect()
        };
        panic!("{} differs:\n{}{}", path.display(), lines(&old, &new, "-"), lines(&new, &old, "+"));
    }
}

#[test]
fn every_capture_gives_what_is_expected_of_it() {
    for found in CAPTURES.iter() {
        compare(&found.name, "prometheus.txt", &found.text);
        let zero: String = families_of(&found.text)
            .iter()
            .filter(|(_, any)| !**any)
            .map(|(name, _)| format!("{name}\n"))
            .collect();
        compare(&found.name, "zero.txt", &zero);
    }
}

/// What is 0 in every capture proves nothing, so there is nothing but this.
#[test]
fn every_family_is_more_than_zero_somewhere() {
    const ZERO_EVERYWHERE: [(&str, &str); 6] = [
        ("container_scrape_error", "0 says that all is well"),
        ("machine_scrape_error", "0 says that all is well"),
        ("container_network_receive_errors_total", "virtual interfaces make no errors"),
        ("container_network_receive_packets_dropped_total", "virtual interfaces drop on the sending side"),
        ("container_network_transmit_errors_total", "virtual interfaces make no errors"),
        ("container_fs_io_current", "nothing was in flight when the tree was captured"),
    ];
    let mut anywhere: BTreeMap<String, bool> = BTreeMap::new();
    for found in CAPTURES.iter() {
        for (family, any) in families_of(&found.text) {
            *anywhere.entry(family).or_default() |= any;
        }
    }
    for (family, any) in &anywhere {
        let excused = ZERO_EVERYWHERE.iter().any(|(name, _)| name == family);
        assert!(*any || excused, "{family} is 0 in every capture");
    }
    assert!(anywhere.len() > 75, "{} families", anywhere.len());
}

/// The table of sources is true: where a source is stated some capture of that
/// hierarchy has samples, and where a reason is stated none has.
#[test]
fn the_table_of_sources_holds_on_captures() {
    for hierarchy in [Hierarchy::V1, Hierarchy::V2, Hierarchy::Hybrid] {
        let of_it: Vec<&Scenario> = CAPTURES.iter().filter(|s| s.hierarchy == hierarchy).collect();
        assert!(!of_it.is_empty(), "no capture of {hierarchy:?}");
        let seen: BTreeSet<String> = of_it.iter().flat_map(|s| families_of(&s.text).into_keys()).collect();
        for family in families::all() {
            let there = seen.contains(family.name);
            match family.sources.on(hierarchy) {
                Source::None(reason) => {
                    assert!(!there, "{} on {hierarchy:?} has samples, but: {reason}", family.name)
                }
                Source::File(_) => {
                    let excused = NOT_IN_A_CAPTURE.iter().any(|(name, _)| *name == family.name);
                    assert!(
                        there || excused,
                        "{} on {hierarchy:?} has no samples in any capture",
                        family.name
                    );
                }
            }
        }
    }
}

#[test]
fn every_kind_of_host_is_captured() {
    let names = ttar::scenarios();
    for part in [
        "v2-systemd",
        "v2-cgroupfs",
        "v2-kinds",
        "v1",
        "v1-kinds",
        "hybrid",
        "hybrid-kinds",
        "bare-host",
        "damaged",
    ] {
        assert!(names.iter().any(|n| n.contains(part)), "no capture of {part} among {names:?}");
    }
}
