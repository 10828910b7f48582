//! cAdvisor's REST API: shapes, options, history, events, and what is refused.

use std::sync::Arc;
use std::time::Duration;

use nodegauge::auth::path;
use nodegauge::expose::cadvisor::events::Events;
use nodegauge::expose::cadvisor::{Answer, Host, LocalTime, Refused, World};
use nodegauge::expose::summary::{ImageStore, Surroundings};
use nodegauge::expose::{cadvisor_v1, cadvisor_v2};
use nodegauge::history::History;
use nodegauge::snapshot::{Health, Hierarchy, Origin, Process, Snapshot, reading};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::golden::is_golden;
use crate::kubelet_api::node;
use crate::served::{POLICY, Server, limits};

/// A host on which two processes run, wherever one looks.
#[derive(Debug)]
struct Asked;

impl Host for Asked {
    fn cpus(&self, cgroup: &str) -> Option<String> {
        (cgroup != "/kubepods").then(|| if cgroup == "/" { "" } else { "0-3,8" }.to_owned())
    }

    fn processes(&self, cgroup: &str) -> Vec<Process> {
        let one = |pid| Process {
            user: "app".into(),
            pid,
            parent_pid: 1,
            started: Some(1_700_000_000),
            age_seconds: 1_000,
            cpu_hundredths: 2_500,
            rss_bytes: 4096,
            virtual_bytes: 8192,
            status: "Ssl".into(),
            cgroup: cgroup.into(),
            command: "odd \"name\"\u{1}".into(),
            descriptors: (pid == 7).then_some(12),
            processor: Some(3),
        };
        vec![one(7), one(9)]
    }

    fn zone(&self) -> LocalTime {
        Box::new(|_| 3 * 3_600)
    }

    fn device(&self, uuid: &str) -> Option<(String, u32, u32)> {
        match uuid {
            "by-name" => Some(("/dev/mapper/data".to_owned(), 253, 7)),
            "by-number" => Some(("/dev/dm-1".to_owned(), 254, 1)),
            "not-mounted" => Some(("/dev/sdz".to_owned(), 8, 99)),
            _ => None,
        }
    }
}

/// So many ticks of a node, a second apart, in each of which every cgroup used
/// half a second of CPU.
pub(crate) fn world(hierarchy: Hierarchy, ticks: u64) -> World {
    world_of(hierarchy, ticks, |_, _| {})
}

/// The same, after `change` of the snapshot of each tick.
pub(crate) fn world_of(hierarchy: Hierarchy, ticks: u64, change: impl Fn(u64, &mut Snapshot)) -> World {
    let (history, events) = (Arc::new(History::new(Duration::from_secs(120))), Arc::new(Events::default()));
    let mut last = None;
    for tick in 0..ticks {
        let mut snapshot = node(hierarchy);
        let base: &Snapshot = last.as_deref().unwrap_or(&snapshot);
        let (monotonic, wall_ms) = (base.monotonic, base.wall_ms);
        snapshot.sequence = tick + 1;
        snapshot.origin = Origin::Grid;
        if tick > 0 {
            snapshot.monotonic = monotonic + Duration::from_secs(1);
            snapshot.wall_ms = wall_ms + 1_000;
        }
        for row in &mut snapshot.cgroups {
            row.cpu.usage_ns = reading(1_000_000_000 + tick * 500_000_000);
        }
        change(tick, &mut snapshot);
        let snapshot = Arc::new(snapshot);
        history.record(&snapshot);
        events.record(&snapshot);
        last = Some(snapshot);
    }
    World {
        snapshot: last.unwrap(),
        history,
        events,
        host: Some(Arc::new(Asked)),
        surroundings: Arc::default(),
    }
}

pub(crate) fn taken(answer: Option<Result<Answer, Refused>>) -> Value {
    match answer {
        Some(Ok(Answer::Json(write))) => {
            let mut text = Vec::new();
            write(&mut text).unwrap();
            serde_json::from_slice(&text).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn v1(world: &World, kind: &str, name: &str, body: &str) -> Value {
    taken(cadvisor_v1::answer(world, 3, kind, name, &[], body.as_bytes()))
}

pub(crate) fn v2(world: &World, kind: &str, name: &str, query: &str) -> Value {
    taken(cadvisor_v2::answer(world, 1, kind, name, &path::query(query).unwrap()))
}

pub(crate) const POD: &str = "kubepods/pod0d1c2b3a-4f5e-4a7b-8c9d-0e1f2a3b4c5d";

#[test]
fn a_container_with_its_samples() {
    let world = world(Hierarchy::V2, 5);
    let app = v1(&world, "containers", &format!("{POD}/b-app"), "{\"num_stats\": 3}");
    assert_eq!(app["name"], format!("/{POD}/b-app"));
    assert_eq!(app["namespace"], "docker");
    assert_eq!(app["aliases"], json!(["k8s_app", format!("{:0>64}", "app")]));
    assert_eq!(app["spec"]["labels"], json!({"team": "a<b"}));
    assert_eq!(app["spec"]["envs"], json!({"app_name": "app"}));
    assert_eq!(app["spec"]["image"], "registry.example/web:1");
    assert_eq!(app["spec"]["memory"]["swap_limit"], json!(u64::MAX));
    assert_eq!(app["spec"]["creation_time"], "2023-07-22T04:26:43.5Z");
    let stats = app["stats"].as_array().unwrap();
    let usages: Vec<u64> = stats.iter().map(|s| s["cpu"]["usage"]["total"].as_u64().unwrap()).collect();
    assert_eq!(usages, [2_000_000_000, 2_500_000_000, 3_000_000_000]);
    assert_eq!(stats[2]["timestamp"], "2023-11-14T22:13:24.12Z");
    // The newest has everything; those before what is left of it.
    let (first, last) = (&stats[0], &stats[2]);
    for part in ["cpu", "memory", "diskio", "network", "processes"] {
        assert!(first[part].is_object() && last[part].is_object(), "{part}: {first}");
    }
    assert_eq!(first["network"]["interfaces"], last["network"]["interfaces"]);
    assert_eq!(last["network"]["name"], "eth0");
    let bytes = &last["diskio"]["io_service_bytes"][0];
    assert_eq!((bytes["device"].as_str(), bytes["major"].as_u64()), (Some("/dev/vda"), Some(254)));
    assert_eq!(first["diskio"]["io_service_bytes"][0]["stats"], bytes["stats"]);
    assert_eq!(last["cpu"]["psi"]["some"]["avg60"], 45.67);
    assert!(last["filesystem"][0]["capacity"].is_u64());
}

#[test]
fn numbers_and_times_choose_samples() {
    let world = world(Hierarchy::V2, 5);
    let count = |body: &str| v1(&world, "containers", "", body)["stats"].as_array().map_or(0, Vec::len);
    assert_eq!(count(""), 5);
    assert_eq!(count(" \n"), 5);
    assert_eq!(count("null"), 5);
    assert_eq!(count("{}"), 5);
    assert_eq!(count("{\"num_stats\": -1}"), 5);
    assert_eq!(count("{\"num_stats\": 0}"), 0);
    assert_eq!(count("{\"num_stats\": 9223372036854775807}"), 5);
    assert_eq!(count("{\"start\": \"2023-11-14T22:13:21.12Z\", \"end\": \"2023-11-14T22:13:22.12Z\"}"), 2);
    assert_eq!(count("{\"start\": \"0001-01-01T00:00:00Z\", \"end\": \"0001-01-01T00:00:00Z\"}"), 5);
    assert_eq!(count("{\"start\": \"9999-12-31T23:59:59Z\"}"), 0);
    assert_eq!(count("{\"end\": \"2023-11-15T00:13:20.12+02:00\"}"), 1);
}

#[test]
fn what_is_malformed_is_refused_with_a_reason() {
    let world = world(Hierarchy::V2, 1);
    let check =
        |body: &[u8], expected: &str| match cadvisor_v1::answer(&world, 3, "containers", "", &[], body) {
            Some(Err((status, text))) => {
                assert!(status == 400 && text.contains(expected) && !text.contains('\n'), "{text}");
            }
            other => panic!("{other:?}"),
        };
    check(b"{\"num_stats\":", "request body: not the JSON that is accepted here");
    check(b"{\"num_stats\": -2}", "invalid number of samples: -2");
    check(b"{\"num_stats\": 1e99}", "request body");
    check(b"{\"start\": \"soon\"}", "start \"soon\": not a time");
    check(b"\xff\xfe", "request body");
    let deep = "[".repeat(60_000);
    check(deep.as_bytes(), "request body");
    let missing = cadvisor_v1::answer(&world, 3, "containers", "no/such", &[], b"");
    assert!(matches!(missing, Some(Err((status, text))) if status == 404 && text.contains("/no/such")));
    assert!(cadvisor_v1::answer(&world, 0, "docker", "", &[], b"").is_none());
    assert!(cadvisor_v2::answer(&world, 0, "machinestats", "", &[]).is_none());
}

#[test]
fn trees_runtimes_and_names() {
    let world = world(Hierarchy::V1, 2);
    let names = |value: &Value| -> Vec<String> {
        let list = value.as_array().unwrap();
        list.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&v1(&world, "subcontainers", "", "")).len(), world.snapshot.cgroups.len());
    assert_eq!(names(&v1(&world, "subcontainers", POD, "")).len(), 4);
    let root = v1(&world, "containers", "/", "{\"num_stats\":1}");
    assert_eq!(root["subcontainers"], json!([{"name": "/kubepods"}]));
    assert_eq!(root["spec"]["has_hugetlb"], true);
    let docker = v1(&world, "docker", "", "");
    assert_eq!(
        docker.as_object().unwrap().keys().collect::<Vec<_>>(),
        [&format!("/{POD}/b-app"), &format!("/{POD}/c-log")]
    );
    assert_eq!(v1(&world, "docker", "k8s_app", "").as_object().unwrap().len(), 1);
    let id = format!("{:0>64}", "log");
    assert_eq!(v1(&world, "docker", &id, "").as_object().unwrap().len(), 1);
    let ambiguous = cadvisor_v1::answer(&world, 2, "docker", "k8s_", &[], b"");
    assert!(matches!(ambiguous, Some(Err((status, _))) if status == 400));
    assert_eq!(v2(&world, "spec", "", "type=docker&recursive=true").as_object().unwrap().len(), 2);
    assert_eq!(v2(&world, "spec", "k8s_log", "type=docker").as_object().unwrap().len(), 1);
    assert_eq!(v2(&world, "spec", POD, "recursive=true").as_object().unwrap().len(), 4);
    let legacy = cadvisor_v1::stats_container(
        &world,
        b"{\"containerName\":\"/kubepods\",\"num_stats\":1,\"subcontainers\":true}",
    );
    assert_eq!(taken(Some(legacy)).as_object().unwrap().len(), 5);
    let legacy = taken(Some(cadvisor_v1::stats_container(&world, b"")));
    assert_eq!(legacy.as_object().unwrap().keys().collect::<Vec<_>>(), ["/"]);
}

#[test]
fn version_two() {
    let world = world(Hierarchy::V2, 4);
    let stats = v2(&world, "stats", &format!("{POD}/b-app"), "count=2");
    let one = &stats[format!("/{POD}/b-app")];
    assert_eq!(one["spec"].get("quota"), None);
    let samples = one["stats"].as_array().unwrap();
    // Half a second of CPU a second, also in the first that is shown.
    let nanocores: Vec<_> = samples.iter().map(|s| s["cpu_inst"]["usage"]["total"].as_u64()).collect();
    assert_eq!(nanocores, [Some(500_000_000); 2]);
    assert!(samples[1]["filesystem"]["containter_inode_usage"].is_u64());
    assert_eq!(v2(&world, "stats", "", ""), json!({}));
    let all = v2(&world, "stats", "", "count=-1");
    assert_eq!(all, json!({}));
    let machine = v2(&world, "machinestats", "", "count=-1");
    let first_and_last = (&machine[0], &machine[3]);
    assert_eq!(first_and_last.0.get("cpu_inst"), None);
    assert!(first_and_last.1["filesystem"].as_array().unwrap().len() == 3);
    let summary = v2(&world, "summary", POD, "");
    let minute = &summary[format!("/{POD}")]["minute_usage"];
    assert_eq!((&minute["cpu"]["mean"], &minute["cpu"]["count"]), (&json!(500), &json!(3)));
    assert_eq!(minute["percent_complete"], 5);
    assert_eq!(v2(&world, "storage", "", "").as_array().unwrap().len(), 3);
    assert_eq!(v2(&world, "storage", "", "label=root").as_array().unwrap().len(), 3);
    assert!(
        cadvisor_v2::answer(&world, 1, "storage", "", &path::query("label=x").unwrap()).unwrap().is_err()
    );
    assert_eq!(v2(&world, "attributes", "", "")["kernel_version"], "6.12.0-test");
    assert_eq!(v2(&world, "version", "", ""), concat!("v", env!("CARGO_PKG_VERSION")));
    let flat = taken(cadvisor_v2::answer(&world, 0, "stats", "", &path::query("count=1").unwrap()));
    assert_eq!((&flat["/"][0]["has_cpu"], &flat["/"][0]["has_load"]), (&json!(true), &json!(false)));
    assert_eq!(flat["/"][0]["filesystem"].as_array().unwrap().len(), 3);
    let machine = v1(&world, "machine", "", "");
    assert!(machine["num_cores"].is_u64() && machine["topology"][0]["cores"][0]["thread_ids"][1] == 1);
    assert_eq!(machine["disk_map"]["254:0"]["name"], "vda");
    assert_eq!(machine["nvm"]["app direct_mode_capacity"], 0);
}

#[test]
fn processes_are_those_of_one_cgroup() {
    let mut world = world(Hierarchy::V2, 1);
    let all = v2(&world, "ps", "", "");
    assert_eq!(
        (&all[0]["pid"], &all[0]["cgroup_path"], &all[0]["cmd"]),
        (&json!(7), &json!("/"), &json!("odd \"name\"\u{1}"))
    );
    assert_eq!((&all[0]["percent_cpu"], &all[0]["running_time"]), (&json!(2.5), &json!("00:00:25")));
    // 22:13 in UTC.
    assert_eq!(all[0]["start_time"], "01:13");
    let one = v2(&world, "ps", "k8s_app", "type=docker&recursive=true");
    assert_eq!((one.as_array().unwrap().len(), &one[1]["cgroup_path"]), (2, &json!("")));
    assert_eq!((&one[0]["fd_count"], one[1].get("fd_count")), (&json!(12), None));
    let refused = |world: &World, name: &str| match cadvisor_v2::answer(world, 1, "ps", name, &[]) {
        Some(Err((status, _))) => status.as_u16(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&world, "no/such"), 404);
    world.host = None;
    assert_eq!(refused(&world, ""), 404);
}

#[test]
fn processors_that_were_given() {
    let world = world(Hierarchy::V2, 1);
    let mask = |path: &str| v1(&world, "containers", path, "")["spec"]["cpu"].get("mask").cloned();
    let cores = world.snapshot.machine.cores.unwrap().get();
    assert_eq!(mask(""), Some(json!(format!("0-{}", cores - 1))));
    assert_eq!(mask(POD), Some(json!("0-3,8")));
    assert_eq!(mask("kubepods"), None);
}

#[test]
fn storage_by_label_and_by_uuid() {
    let mut world = world(Hierarchy::V2, 1);
    let mut snapshot = (*world.snapshot).clone();
    let mut filesystems = (*snapshot.filesystems).clone();
    for (number, mount) in filesystems.mounts.iter_mut().enumerate() {
        (mount.device, mount.mount_point) = [
            ("/dev/vda1".to_owned(), "/".to_owned()),
            ("/dev/mapper/data".to_owned(), "/var/lib".to_owned()),
            ("/dev/mapper/images".to_owned(), "/var/lib/containers".to_owned()),
        ][number]
            .clone();
        (mount.major, mount.minor) = (254, 9 - u32::try_from(number).unwrap() * 4);
    }
    snapshot.filesystems = Arc::new(filesystems);
    world.snapshot = Arc::new(snapshot);
    let store = |runtime, path: &str, layers| ImageStore {
        runtime,
        layers,
        path: path.to_owned(),
        ..ImageStore::default()
    };
    let images = vec![
        store("docker", "/var/lib/docker", false),
        store("containerd", "/var/lib/containerd", false),
        store("cri-o", "/var/lib/containers/storage/overlay-images", false),
        store("cri-o", "/run/containers/storage", true),
    ];
    world.surroundings = Arc::new(Surroundings { images, ..Surroundings::default() });
    let labels = |query: &str| -> Vec<(Value, Value)> {
        let found = v2(&world, "storage", "", query);
        found.as_array().unwrap().iter().map(|fs| (fs["mountpoint"].clone(), fs["labels"].clone())).collect()
    };
    let all = [
        (json!("/"), json!(["root", "crio-containers"])),
        (json!("/var/lib"), json!(["docker-images"])),
        (json!("/var/lib/containers"), json!(["crio-images"])),
    ];
    assert_eq!(labels(""), all);
    assert_eq!(labels("label=docker-images"), all[1..2]);
    assert_eq!(labels("label=crio-containers"), all[..1]);
    let one = |uuid: &str| v2(&world, "storage", "", &format!("uuid={uuid}"));
    assert_eq!(one("by-name")["mountpoint"], "/var/lib");
    assert_eq!(one("by-number")["labels"], json!(["crio-images"]));
    let refused =
        |query: &str| match cadvisor_v2::answer(&world, 1, "storage", "", &path::query(query).unwrap()) {
            Some(Err((status, text))) => (status.as_u16(), text),
            other => panic!("{other:?}"),
        };
    assert_eq!(refused("uuid=not-mounted").0, 404);
    assert_eq!(refused("uuid=x&label=root").0, 404);
    let (status, text) = refused("label=podman-images");
    assert!(
        status == 400 && text.ends_with("accepted: root, docker-images, crio-images, crio-containers"),
        "{text}"
    );
}

#[test]
fn dockers_versions_and_what_its_checks_say() {
    let mut world = world(Hierarchy::V2, 1);
    assert_eq!(v2(&world, "attributes", "", "")["docker_version"], "");
    let docker = Some(("28.1.0".to_owned(), "1.49".to_owned()));
    world.surroundings = Arc::new(Surroundings { docker, ..Surroundings::default() });
    let attributes = v2(&world, "attributes", "", "");
    assert_eq!(
        (&attributes["docker_version"], &attributes["docker_api_version"]),
        (&json!("28.1.0"), &json!("1.49"))
    );
    let mut snapshot = (*world.snapshot).clone();
    let row = snapshot.cgroups.iter_mut().find(|row| row.cgroup.path.ends_with("b-app")).unwrap();
    let mut cgroup = (*row.cgroup).clone();
    cgroup.identity.health = Some(Health::Unhealthy);
    row.cgroup = Arc::new(cgroup);
    world.snapshot = Arc::new(snapshot);
    let health =
        |name: &str| v1(&world, "containers", &format!("{POD}/{name}"), "")["stats"][0]["health"].clone();
    assert_eq!((health("b-app"), health("c-log")), (json!({"status": "unhealthy"}), json!({"status": ""})));
}

/// What cAdvisor has switched off by default: the objects that its clients look into.
#[test]
fn what_is_switched_off_is_as_in_cadvisor() {
    let world = world(Hierarchy::V2, 1);
    let app = format!("{POD}/b-app");
    let one = &v1(&world, "containers", &app, "")["stats"][0];
    let two = &v2(&world, "stats", &app, "")[format!("/{app}")]["stats"][0];
    for sample in [one, two] {
        assert_eq!(sample["cpu"]["schedstat"], json!({"run_time": 0, "runqueue_time": 0, "run_periods": 0}));
        for data in ["container_data", "hierarchical_data"] {
            assert_eq!(sample["memory"][data]["numa_stats"], json!({}));
        }
        let sockets = &sample["network"];
        for protocol in ["tcp", "tcp6"] {
            assert_eq!(sockets[protocol].as_object().unwrap().len(), 11);
            assert_eq!(
                (&sockets[protocol]["SynRecv"], &sockets[protocol]["FinWait2"]),
                (&json!(0), &json!(0))
            );
        }
        let udp = json!({"Listen": 0, "Dropped": 0, "RxQueued": 0, "TxQueued": 0});
        assert_eq!((&sockets["udp"], &sockets["udp6"]), (&udp, &udp));
        assert_eq!(sockets["tcp_advanced"], json!({}));
        assert_eq!(sample["processes"]["ulimits"][0]["hard_limit"], -1);
    }
    assert_eq!((&one["cpuset"], &one["resctrl"]), (&json!({"memory_migrate": 0}), &json!({})));
}

/// Whatever a name or a label holds, it is JSON and comes back as it was.
#[test]
fn names_and_labels_hold_any_character() {
    let mut world = world(Hierarchy::V2, 1);
    let odd: String =
        (0..=0x100).chain([0x2028, 0x2029, 0xfffd, 0x1f600]).filter_map(char::from_u32).collect();
    let mut snapshot = (*world.snapshot).clone();
    let row = snapshot.cgroups.iter_mut().find(|row| row.cgroup.path.ends_with("b-app")).unwrap();
    let mut cgroup = (*row.cgroup).clone();
    cgroup.part.labels = vec![(odd.as_str().into(), odd.as_str().into())];
    cgroup.identity.name = Some(odd.clone());
    cgroup.identity.image = Some(odd.clone());
    row.cgroup = Arc::new(cgroup);
    world.snapshot = Arc::new(snapshot);
    let path = format!("/{POD}/b-app");
    let app = v1(&world, "containers", &path, "");
    assert_eq!(app["spec"]["labels"][&odd], json!(odd));
    assert_eq!((&app["aliases"][0], &app["spec"]["image"]), (&json!(odd), &json!(odd)));
    assert_eq!(v2(&world, "spec", &path, "")[&path]["labels"][&odd], json!(odd));
    let found = taken(cadvisor_v1::answer(&world, 2, "docker", "", &[], b""));
    assert_eq!(found[&path]["spec"]["labels"][&odd], json!(odd));
}

/// Whole answers, reviewed as they are: `UPDATE_GOLDEN=1` writes them anew.
#[test]
fn answers_are_what_they_were() {
    let world = world(Hierarchy::V2, 3);
    let app = format!("{POD}/b-app");
    let golden = |file: &str, answer: Value| {
        let text = serde_json::to_string_pretty(&answer).unwrap() + "\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rest");
        is_golden(&std::path::Path::new(path).join(file), &text);
    };
    golden("machine.json", v1(&world, "machine", "", ""));
    golden("containers.json", v1(&world, "containers", &app, "{\"num_stats\": 2}"));
    golden("root.json", v1(&world, "containers", "", "{\"num_stats\": 1}"));
    golden("stats.json", v2(&world, "stats", &app, "count=2"));
    golden("machinestats.json", v2(&world, "machinestats", "", "count=1"));
    golden("storage.json", v2(&world, "storage", "", ""));
    golden("summary.json", v2(&world, "summary", &app, ""));
    golden(
        "events.json",
        taken(cadvisor_v1::answer(
            &world,
            3,
            "events",
            "",
            &path::query("creation_events=1&subcontainers=1").unwrap(),
            b"",
        )),
    );
    golden("ps.json", v2(&world, "ps", &app, ""));
}

#[test]
fn the_api_is_served() {
    let mut server = Server::start(POLICY, limits());
    server.publisher.publish(Arc::new(node(Hierarchy::V2)));
    let status = |path: &str| server.get(path, "").status;
    assert_eq!(["/api", "/api/", "/api/v1.3", "/api/v2.1/"].map(status), [400; 4]);
    assert_eq!(
        ["/api/v3.0/machine", "/api/v1.3/nope", "/api/v1.0/subcontainers", "/api/v1.3/containers/x"]
            .map(status),
        [404; 4]
    );
    assert_eq!(
        ["/api/v2.1/stats/?type=x", "/api/v2.1/stats/?count=-9", "/api/v1.3/%ff"].map(status),
        [400; 3]
    );
    assert_eq!(
        ["/containers/", "/containers/kubepods", "/docker/", "/docker/k8s_app", "/validate/"].map(status),
        [200; 5]
    );
    assert_eq!(["/containers/nope", "/docker/nope"].map(status), [404; 2]);
    assert_eq!(["/containers", "/docker"].map(status), [308; 2]);
    // cAdvisor's options of the exposition, which a kubelet does not have.
    let ids = |query: &str| {
        let answer = server.get(&format!("/metrics{query}"), "");
        let text = answer.text();
        assert!(text.contains("\nmachine_cpu_cores{"), "{query}");
        text.lines().filter(|line| line.starts_with("container_cpu_usage_seconds_total{")).count()
    };
    assert_eq!(["?type=docker", "?type=podman&recursive=true"].map(ids), [2, 0]);
    assert_eq!(ids("?type=name&count=7"), ids(""));
    assert_eq!(
        ["/metrics?type=lxc", "/metrics?count=-2", "/metrics/cadvisor?type=lxc&count=-2"].map(status),
        [400, 400, 200]
    );
    let page = server.get("/containers/kubepods", "");
    assert!(page.text().contains("pod0d1c2b3a") && page.header("content-type").starts_with("text/html"));
    let mut client = server.connect();
    let body = "{\"num_stats\":1}";
    for method in ["POST", "GET"] {
        client.send(method, "/api/v1.3/containers/", &format!("content-length: {}\r\n", body.len()));
        client.write(body.as_bytes());
        let answer = client.answer();
        assert_eq!(answer.status, 200, "{method}");
        assert_eq!(
            serde_json::from_slice::<Value>(&answer.body).unwrap()["stats"].as_array().unwrap().len(),
            1
        );
    }
    client.send("POST", "/stats/container/", "content-length: 1\r\n");
    client.write(b"{");
    let answer = client.answer();
    assert_eq!((answer.status, answer.line().contains("EOF")), (400, true));
    let mut client = server.connect();
    client.send("POST", "/api/v1.3/containers/", "content-length: 70000\r\n");
    client.write(&vec![b' '; 70_000]);
    assert_eq!(client.answer().status, 413);
    // Elsewhere bodies are refused as ever.
    let mut client = server.connect();
    client.send("POST", "/metrics", "content-length: 1\r\n");
    assert_eq!(client.answer().status, 413);
    assert!(server.stop());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever is asked, there is JSON or a reason, and never a panic.
    #[test]
    fn anything_is_answered_or_refused(
        kind in prop::sample::select(vec!["machine", "containers", "subcontainers", "docker", "events", "stats",
            "machinestats", "spec", "summary", "storage", "attributes", "appmetrics", "ps", "x"]),
        name in prop_oneof![Just(String::new()), Just(POD.to_owned()), Just("k8s_app".to_owned()), ".{0,12}"],
        query in prop_oneof![
            "(type|count|recursive|max_age|label|stream|start_time|max_events)=(docker|true|-?[0-9]{0,20}|[0-9]{1,3}(s|h)|.{0,6})(&(type|count|recursive)=(docker|podman|true|-1|7))?",
            ".{0,30}",
        ],
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "\\{\"(num_stats|start|end|containerName|subcontainers)\":(-?[0-9]{1,20}|\"[0-9:TZ+.-]{0,30}\"|true|null)\\}".prop_map(String::into_bytes),
        ],
        minor in 0_u8..4,
    ) {
        let world = world(Hierarchy::V2, 2);
        let pairs = path::query(&query).unwrap_or_default();
        let answers = [
            cadvisor_v1::answer(&world, minor, kind, &name, &pairs, &body),
            cadvisor_v2::answer(&world, minor.min(1), kind, &name, &pairs),
            Some(cadvisor_v1::stats_container(&world, &body)),
        ];
        for answer in answers.into_iter().flatten() {
            match answer {
                Ok(Answer::Json(write)) => {
                    let mut text = Vec::new();
                    write(&mut text).unwrap();
                    prop_assert!(serde_json::from_slice::<Value>(&text).is_ok());
                }
                Ok(Answer::Text(..) | Answer::Stream(_)) => {}
                Err((status, text)) => {
                    prop_assert!(status.is_client_error() && !text.is_empty() && text.len() < 2_000);
                }
            }
        }
    }
}
