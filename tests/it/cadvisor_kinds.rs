//! Figures of the kinds that are off by default, in cAdvisor's REST API while they are on,
//! and what of a disk only some kernels tell.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use nodegauge::expose::cadvisor::World;
use nodegauge::expose::cadvisor::events::Events;
use nodegauge::history::History;
use nodegauge::snapshot::{Extra, Hierarchy, Kind, Kinds, NumaPages, Pages, Snapshot, reading};
use serde_json::{Map, Value, json};

use crate::cadvisor_api::{POD, v1, v2, world_of};
use crate::data;
use crate::faults::{sampler, tick};
use crate::golden::is_golden;
use crate::ttar;

const KINDS: [Kind; 6] = [Kind::Sched, Kind::Tcp, Kind::Udp, Kind::Advtcp, Kind::MemoryNuma, Kind::Cpuset];

fn with_kinds() -> Kinds {
    KINDS.into_iter().fold(Kinds::DEFAULT, Kinds::with)
}

/// The figures of a tick: most of them others than those of the tick before.
fn figures(tick: u64) -> Extra {
    let mut extra = data::extra(true, &mut data::Numbers::from(7_000 + tick * 10));
    let moves = |n: i64| if n % 7 == 0 { n + i64::try_from(tick).unwrap() } else { n };
    extra.tcp.0 = (0..99).map(|n| nonmax::NonMaxI64::new(moves(n))).collect();
    extra.tcp.0[3] = nonmax::NonMaxI64::new(-1);
    let pages = |n| Pages { file: reading(n), anon: reading(n + 1), unevictable: reading(n + 2) };
    extra.numa.push(NumaPages { node: 1, own: pages(tick), subtree: pages(tick + 10) });
    extra
}

fn set(snapshot: &mut Snapshot, extra: Option<Extra>) {
    let row = snapshot.cgroups.iter_mut().find(|row| row.cgroup.path.ends_with("b-app")).unwrap();
    row.extra = extra.map(Box::new);
}

/// The samples of `b-app` in both versions.
fn samples(world: &World) -> [Vec<Value>; 2] {
    let app = format!("{POD}/b-app");
    let one = v1(world, "containers", &app, "")["stats"].clone();
    let two = v2(world, "stats", &app, "")[format!("/{app}")]["stats"].clone();
    [one, two].map(|stats| stats.as_array().unwrap().clone())
}

/// Each sample has its own figures, not only the newest.
#[test]
fn what_is_switched_on_is_told_of_every_sample() {
    let world = world_of(Hierarchy::V1, 4, |tick, snapshot| {
        // A second later than the one before, without this.
        snapshot.monotonic += Duration::from_secs(if tick > 0 { 9 } else { 0 });
        snapshot.wall_ms += if tick > 0 { 9_000 } else { 0 };
        snapshot.kinds = with_kinds();
        set(snapshot, Some(figures(tick)));
    });
    for samples in samples(&world) {
        assert_eq!(samples.len(), 4);
        for (tick, sample) in (0..).zip(&samples) {
            let extra = figures(tick);
            let told = |reading: nodegauge::snapshot::Reading| json!(reading.unwrap().get());
            let expected = json!({
                "run_time": told(extra.sched.run_ns),
                "runqueue_time": told(extra.sched.wait_ns),
                "run_periods": told(extra.sched.slices),
            });
            assert_eq!(sample["cpu"]["schedstat"], expected, "tick {tick}");
            let sockets = &sample["network"];
            let asked = &extra.sockets.asked;
            for (protocol, states) in [("tcp", asked.tcp), ("tcp6", asked.tcp6)] {
                let states = states.unwrap();
                let shown = &sockets[protocol];
                assert_eq!(shown.as_object().unwrap().len(), 11);
                let some = [&shown["Established"], &shown["FinWait2"], &shown["Listen"], &shown["Closing"]];
                assert_eq!(some, [0, 4, 9, 10].map(|at: usize| json!(states[at])).each_ref(), "tick {tick}");
            }
            let udp = |listen, dropped, queues: Option<nodegauge::snapshot::Queues>| {
                let queues = queues.unwrap();
                json!({
                    "Listen": told(listen),
                    "Dropped": told(dropped),
                    "RxQueued": queues.receive,
                    "TxQueued": queues.transmit,
                })
            };
            let of = &extra.sockets;
            assert_eq!(sockets["udp"], udp(of.udp_in_use, of.udp_errors, asked.udp));
            assert_eq!(sockets["udp6"], udp(of.udp6_in_use, of.udp6_errors, asked.udp6));
            let advanced = sockets["tcp_advanced"].as_object().unwrap();
            assert_eq!(advanced.len(), 99);
            let some = [&advanced["RtoAlgorithm"], &advanced["MaxConn"], &advanced["PAWSEstab"]];
            assert_eq!(some, [&json!(tick), &json!(-1), &json!(98 + tick)]);
            let [first, second] = &extra.numa[..] else { panic!("two nodes") };
            for (data, pages) in [
                ("container_data", [first.own, second.own]),
                ("hierarchical_data", [first.subtree, second.subtree]),
            ] {
                let of = |get: fn(&Pages) -> nodegauge::snapshot::Reading| json!({"0": told(get(&pages[0])), "1": told(get(&pages[1]))});
                let expected = json!({"file": of(|p| p.file), "anon": of(|p| p.anon), "unevictable": of(|p| p.unevictable)});
                assert_eq!(sample["memory"][data]["numa_stats"], expected, "{data} of tick {tick}");
            }
            if let Some(cpuset) = sample.get("cpuset") {
                assert_eq!(cpuset, &json!({"memory_migrate": 1}));
            }
        }
    }
}

/// What the kernel does not tell is left out, and the objects are there.
#[test]
fn what_is_switched_on_and_not_told_is_absent() {
    let world = world_of(Hierarchy::V2, 2, |_, snapshot| {
        snapshot.kinds = with_kinds();
        set(snapshot, None);
    });
    let nothing = json!({});
    let [one, two] = samples(&world);
    assert_eq!(one[0]["cpuset"], nothing);
    for sample in one.iter().chain(&two) {
        assert_eq!(sample["cpu"]["schedstat"], nothing);
        for protocol in ["tcp", "tcp6", "udp", "udp6", "tcp_advanced"] {
            assert_eq!(sample["network"][protocol], nothing, "{protocol}");
        }
        assert_eq!(sample["memory"]["hierarchical_data"]["numa_stats"], nothing);
    }
}

/// Where only sockets are measured, there is no interface to be told.
#[test]
fn sockets_without_interfaces() {
    let world = world_of(Hierarchy::V2, 2, |tick, snapshot| {
        snapshot.kinds = Kinds::NONE.with(Kind::Udp).with(Kind::Memory);
        set(snapshot, Some(figures(tick)));
        snapshot.cgroups.iter_mut().for_each(|row| row.network.clear());
    });
    for samples in samples(&world) {
        for (tick, sample) in (0..).zip(samples) {
            let network = &sample["network"];
            assert_eq!((&network["interfaces"], network.get("name")), (&json!([]), None));
            let listen = figures(tick).sockets.udp_in_use.unwrap().get();
            assert_eq!(network["udp"]["Listen"], listen);
            // Of kinds that are off there are zeros.
            assert_eq!((&network["tcp"]["Listen"], &network["tcp_advanced"]), (&json!(0), &json!({})));
        }
    }
}

/// What Go's clients cannot read would cost them the whole answer.
#[test]
fn what_no_client_could_read_is_left_out() {
    let world = world_of(Hierarchy::V2, 1, |_, snapshot| {
        snapshot.kinds = with_kinds();
        let mut extra = figures(0);
        extra.tcp.0[0] = nonmax::NonMaxI64::new(-5);
        extra.numa[1].node = 256;
        set(snapshot, Some(extra));
    });
    for sample in samples(&world).into_iter().flatten() {
        assert_eq!(sample["network"]["tcp_advanced"].get("RtoAlgorithm"), None);
        assert_eq!(sample["network"]["tcp_advanced"]["MaxConn"], -1);
        let nodes = sample["memory"]["hierarchical_data"]["numa_stats"]["file"].as_object().unwrap();
        assert_eq!(nodes.keys().collect::<Vec<_>>(), ["0"]);
    }
}

/// One tick of a captured tree, with all kinds.
fn captured(root: &std::path::Path) -> World {
    let mut sampler = sampler(root);
    // Settings are read in turn.
    (0..11).for_each(|_| _ = tick(&mut sampler));
    let snapshot = tick(&mut sampler);
    let history = Arc::new(History::new(Duration::from_secs(120)));
    history.record(&snapshot);
    World { snapshot, history, events: Arc::new(Events::default()), host: None, surroundings: Arc::default() }
}

/// Of each cgroup the objects of these kinds, as far as the tree has files of them.
fn of_kinds(world: &World) -> Map<String, Value> {
    let all = v1(world, "subcontainers", "", "{\"num_stats\": 1}");
    let one = |info: &Value| {
        let stats = &info["stats"][0];
        let mut shown = json!({
            "schedstat": stats["cpu"]["schedstat"],
            "container_data": stats["memory"]["container_data"]["numa_stats"],
            "hierarchical_data": stats["memory"]["hierarchical_data"]["numa_stats"],
            "cpuset": stats["cpuset"],
        });
        if let Some(network) = stats.get("network") {
            for part in ["tcp", "tcp6", "udp", "udp6", "tcp_advanced"] {
                shown[part] = network[part].clone();
            }
        }
        (info["name"].as_str().unwrap().to_owned(), shown)
    };
    all.as_array().unwrap().iter().map(one).collect()
}

#[test]
fn captured_trees_with_these_kinds() {
    let names: Vec<String> = ttar::scenarios().into_iter().filter(|name| name.contains("-kinds-")).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    for name in names {
        let tree = ttar::unpack(&name);
        let world = captured(tree.path());
        let shown = of_kinds(&world);
        for (path, objects) in &shown {
            let states = [&objects["tcp"], &objects["tcp6"]];
            // No socket of a captured tree can be listed.
            assert!(states.iter().all(|s| s.is_null() || **s == json!({})), "{name}: {path}: {objects}");
        }
        let text = serde_json::to_string_pretty(&Value::Object(shown)).unwrap() + "\n";
        // A figure that is 0 throughout would prove nothing.
        let lines: Vec<&str> = text.lines().map(|line| line.trim().trim_end_matches(',')).collect();
        for key in ["run_time", "runqueue_time", "run_periods", "Listen", "PassiveOpens", "anon", "file"] {
            let told = lines.windows(2).any(|pair| {
                let Some(value) = pair[0].strip_prefix(&format!("\"{key}\": ")) else { return false };
                let value = if value == "{" { pair[1].split(": ").nth(1) } else { Some(value) };
                value.is_some_and(|value| value != "0")
            });
            assert!(told, "{name}: {key} is 0 or absent\n{text}");
        }
        is_golden(&ttar::fixture(&name).join("expected/rest.json"), &text);
    }
}

/// BFQ, where the kernel was made to count them, and CFQ tell times that the files of
/// throttling do not have, which count the same devices.
#[test]
fn times_of_a_disks_scheduler() {
    for scheduler in ["blkio.bfq", "blkio"] {
        let tree = ttar::unpack("v1-6.1");
        let root = tree.path().join("sys/fs/cgroup/blkio");
        let throttled = fs::read_to_string(root.join("blkio.throttle.io_service_bytes_recursive")).unwrap();
        let device = throttled.split(' ').next().unwrap().to_owned();
        let of = |what: &str| match what {
            "time" => format!("{device} 1234\n"),
            "sectors" => format!("{device} 88\n"),
            other => {
                let value = other.len();
                format!("{device} Read {value}\n{device} Write 2\n{device} Total {}\nTotal {0}\n", value + 2)
            }
        };
        for what in [
            "io_service_bytes",
            "io_serviced",
            "io_service_time",
            "io_wait_time",
            "io_merged",
            "io_queued",
            "sectors",
            "time",
        ] {
            fs::write(root.join(format!("{scheduler}.{what}_recursive")), of(what)).unwrap();
        }
        let world = captured(tree.path());
        let io = &v1(&world, "containers", "", "{\"num_stats\": 1}")["stats"][0]["diskio"];
        let stats = |table: &str| {
            let rows = io[table].as_array().unwrap_or_else(|| panic!("{table}: {io}"));
            let row = rows.iter().find(|row| format!("{}:{}", row["major"], row["minor"]) == device);
            row.unwrap()["stats"].clone()
        };
        assert_eq!(stats("io_wait_time"), json!({"Read": 12, "Write": 2, "Total": 14}), "{scheduler}");
        assert_eq!(stats("io_service_time"), json!({"Read": 15, "Write": 2, "Total": 17}));
        assert_eq!(stats("io_time"), json!({"Count": 1234}));
        assert_eq!(stats("sectors"), json!({"Count": 88}));
        // Bytes are still those of throttling, which counts whatever schedules.
        assert_ne!(stats("io_service_bytes")["Read"], json!(16));
    }
}
