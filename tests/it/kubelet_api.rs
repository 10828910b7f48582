//! `/stats/summary`, `/metrics/resource` and the rest that a kubelet answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use nodegauge::auth::rules::Opened;
use nodegauge::auth::{Guard, How, rules};
use nodegauge::expose::summary::{Extent, ImageStore, Surroundings, write};
use nodegauge::expose::{Format, resource};
use nodegauge::snapshot::{
    Averages, Cgroup, CgroupSample, FilesystemSpace, Filesystems, Hierarchy, Identity, Limit, Part,
    PodVolume, PressureStats, Role, Snapshot, VolumeMount, reading,
};
use serde_json::Value;

use crate::data::exposition;
use crate::data::{self, Numbers, row};
use crate::golden::is_golden;
use crate::served::{POLICY, Server, limits};

const UID: &str = "0d1c2b3a-4f5e-4a7b-8c9d-0e1f2a3b4c5d";

/// The root, one pod with a sandbox and two containers, and where all pods are.
pub(crate) fn node(hierarchy: Hierarchy) -> Snapshot {
    let mut snapshot = data::snapshot(hierarchy, 1);
    let numbers = &mut Numbers::from(3_000_000_000);
    let mut add = |path: &str, role: Role, container: Option<&str>, created_ns: u64| {
        let of_pod = role != Role::Pods;
        let named = |text: &str| of_pod.then(|| text.to_owned());
        let identity = Identity {
            namespace: named("shop"),
            pod: named("web-1"),
            container: container.map(str::to_owned),
            name: container.map(|name| format!("k8s_{name}")),
            image: container.map(|_| "registry.example/web:1".to_owned()),
            ..Identity::default()
        };
        let part = Part {
            role,
            pod_uid: of_pod.then(|| UID.into()),
            id: container.map(|name| format!("{name:0>64}").into()),
            runtime: container.map(|_| "docker"),
            created_ns: Some(created_ns),
            labels: vec![("team".into(), "a<b".into())],
            environment: container.map(|name| ("app_name".into(), name.into())).into_iter().collect(),
            volumes: Vec::new(),
        };
        let cgroup = Cgroup { part, ..(*data::cgroup(path, identity)).clone() };
        snapshot.cgroups.push(row(hierarchy, Arc::new(cgroup), numbers));
    };
    let pod = format!("/kubepods/pod{UID}");
    add("/kubepods", Role::Pods, None, 1_690_000_000_000_000_000);
    add(&pod, Role::Pod, None, 1_690_000_001_000_000_000);
    add(&format!("{pod}/a-pause"), Role::Sandbox, None, 1_690_000_002_000_000_000);
    add(&format!("{pod}/b-app"), Role::Container, Some("app"), 1_690_000_003_500_000_000);
    add(&format!("{pod}/c-log"), Role::Container, Some("log"), 1_690_000_004_000_000_000);
    snapshot
}

fn around() -> Surroundings {
    let store = ImageStore { path: "/var/lib/x".into(), used_bytes: Some(77), ..ImageStore::default() };
    Surroundings {
        node_name: "n1".into(),
        kubelet_root: "/var/lib/kubelet".into(),
        images: vec![store],
        docker: None,
    }
}

fn summary(snapshot: &Snapshot, extent: Extent) -> Value {
    let mut text = Vec::new();
    write(snapshot, &around(), extent, &mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// All keys below a value, with what they are in.
fn keys(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, inner)| keys(inner, &format!("{path}.{key}"), found))
        }
        Value::Array(list) => list.iter().for_each(|inner| keys(inner, path, found)),
        _ => found.push(path.to_owned()),
    }
}

fn keys_of(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    keys(value, "", &mut found);
    found.sort();
    found.dedup();
    found
}

#[test]
fn every_field_of_the_summary_is_there_where_all_is_known() {
    for hierarchy in [Hierarchy::V1, Hierarchy::V2, Hierarchy::Hybrid] {
        let mut snapshot = node(hierarchy);
        for row in &mut snapshot.cgroups {
            row.spec.memory_swap_limit = Some(Limit::Value(1 << 50));
            row.spec.memory_limit = Some(Limit::Value(1 << 50));
        }
        let found = keys_of(&summary(&snapshot, Extent::Full));
        let expected = include_str!("../data/summary-fields.txt");
        let expected: Vec<&str> = expected.lines().collect();
        let pressure =
            |key: &&str| hierarchy != Hierarchy::V1 || !key.contains(".psi.") && !key.contains(".io.");
        let of_rest = |key: &&str| {
            pressure(key) || key.starts_with(".node.") && !key.starts_with(".node.systemContainers")
        };
        let expected: Vec<&str> = expected.into_iter().filter(of_rest).collect();
        assert_eq!(found, expected, "{hierarchy:?}");
    }
}

/// Whole answers, reviewed as they are: `UPDATE_GOLDEN=1` writes them anew.
#[test]
fn answers_are_what_they_were() {
    let snapshot = node(Hierarchy::V2);
    let golden = |file: &str, text: &str| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/kubelet");
        is_golden(&std::path::Path::new(path).join(file), text);
    };
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap() + "\n";
    golden("summary.json", &pretty(&summary(&snapshot, Extent::Full)));
    golden("reduced.json", &pretty(&summary(&snapshot, Extent::CpuAndMemory)));
    let mut text = Vec::new();
    let taken = resource::write(Some(&snapshot), Format::Prometheus, |chunk| {
        text.extend_from_slice(chunk);
        Ok::<_, ()>(())
    });
    assert!(taken.is_ok());
    golden("resource.txt", &String::from_utf8(text).unwrap());
}

#[test]
fn values_of_the_summary_are_those_of_the_rows() {
    let mut snapshot = node(Hierarchy::V2);
    let app = snapshot.cgroups.iter_mut().find(|r| r.cgroup.path.ends_with("b-app")).unwrap();
    app.memory.working_set = reading(900);
    app.spec.memory_limit = Some(Limit::Value(1000));
    app.memory.swap = reading(10);
    app.spec.memory_swap_limit = Some(Limit::Max);
    app.pressure.cpu.full_usec = reading(7);
    app.pressure.cpu.full_average = Some(Averages { avg10: 1234, avg60: 5, avg300: 10_000 });
    let (usage, nanocores) = (app.cpu.usage_ns.unwrap().get(), app.cpu.nanocores.unwrap().get());
    let all = summary(&snapshot, Extent::Full);
    assert_eq!(all["node"]["nodeName"], "n1");
    assert_eq!(all["node"]["startTime"], "2023-03-28T10:40:00Z");
    assert_eq!(all["node"]["rlimit"]["curproc"], 311);
    assert_eq!(all["node"]["runtime"]["imageFs"]["usedBytes"], 77);
    assert_eq!(all["node"]["systemContainers"][0]["name"], "pods");
    let pod = &all["pods"][0];
    assert_eq!(pod["podRef"], serde_json::json!({"name": "web-1", "namespace": "shop", "uid": UID}));
    // The sandbox began, not the cgroup.
    assert_eq!(pod["startTime"], "2023-07-22T04:26:42Z");
    let app = &pod["containers"][0];
    assert_eq!(
        (app["name"].as_str(), app["startTime"].as_str()),
        (Some("app"), Some("2023-07-22T04:26:43Z"))
    );
    assert_eq!(app["cpu"]["usageCoreNanoSeconds"], usage);
    assert_eq!(app["cpu"]["usageNanoCores"], nanocores);
    assert_eq!(app["cpu"]["time"], "2023-11-14T22:13:20Z");
    assert_eq!(app["memory"]["availableBytes"], 100);
    assert_eq!(app["swap"].get("swapAvailableBytes"), None);
    assert_eq!(
        app["cpu"]["psi"]["full"],
        serde_json::json!({"total": 7000, "avg10": 12.34, "avg60": 0.05, "avg300": 100.0})
    );
    let disks: Vec<u64> = snapshot.cgroups[4..]
        .iter()
        .flat_map(|r| r.disk.as_deref())
        .flat_map(|d| [d.layer.as_ref().unwrap().used_bytes, d.logs.as_ref().unwrap().used_bytes])
        .collect();
    let own = snapshot.cgroups[2].disk.as_deref().unwrap();
    let own = own.logs.as_ref().unwrap().used_bytes + own.volumes[0].usage.used_bytes;
    assert_eq!(disks.len(), 4);
    assert_eq!(pod["ephemeral-storage"]["usedBytes"], disks.iter().sum::<u64>() + own);
}

/// Volumes that are filesystems of their own: by the directory that a container has,
/// by the name in the pod, and the one that is left over.
#[test]
fn volumes_by_claim() {
    let found = |volumes: &[(&str, Option<&str>, Option<&str>)], mounts: &[&str]| {
        let mut snapshot = node(Hierarchy::V2);
        let row = snapshot.cgroups.iter_mut().find(|row| row.cgroup.part.role == Role::Pod).unwrap();
        let mut cgroup = (*row.cgroup).clone();
        let volume = |(name, claim, directory): &(&str, Option<&str>, Option<&str>)| PodVolume {
            name: (*name).into(),
            claim: claim.map(Into::into),
            directory: directory.map(Into::into),
        };
        cgroup.part.volumes = volumes.iter().map(volume).collect();
        row.cgroup = Arc::new(cgroup);
        row.disk = None;
        let mount = |pod: &str, name: &str| {
            let space = FilesystemSpace {
                capacity_bytes: 100,
                available_bytes: 60,
                usage_bytes: 30,
                inodes: Some(10),
                inodes_free: Some(7),
            };
            let (pod_uid, name, space_read_at) = (pod.to_owned(), name.to_owned(), Some(1_700_000_000));
            VolumeMount { pod_uid, name, space: Some(space), space_read_at }
        };
        let mut all = vec![mount("0", "pvc-9"), mount("f", "pvc-9")];
        all.extend(mounts.iter().map(|name| mount(UID, name)));
        all.sort_by(|a, b| (&a.pod_uid, &a.name).cmp(&(&b.pod_uid, &b.name)));
        let filesystems = Filesystems { volumes: all, ..(*snapshot.filesystems).clone() };
        snapshot.filesystems = Arc::new(filesystems);
        assert_eq!(summary(&snapshot, Extent::CpuAndMemory)["pods"][0].get("volume"), None);
        summary(&snapshot, Extent::Full)["pods"][0]["volume"].clone()
    };
    let shown = |name: &str, claim: Option<&str>| {
        let mut volume = serde_json::json!({
            "time": "2023-11-14T22:13:20Z", "name": name, "capacityBytes": 100, "availableBytes": 60, "usedBytes": 30,
            "inodes": 10, "inodesFree": 7, "inodesUsed": 3,
        });
        if let Some(claim) = claim {
            volume["pvcRef"] = serde_json::json!({"name": claim, "namespace": "shop"});
        }
        volume
    };
    let two =
        [("data", Some("orders"), Some("pvc-2")), ("more", Some("history"), None), ("share", None, None)];
    let expected = [shown("more", Some("history")), shown("data", Some("orders")), shown("share", None)];
    assert_eq!(found(&two, &["pvc-2", "pvc-1", "share"]), Value::from(expected.to_vec()));
    // Which of two it is nobody says.
    let unknown = [("a", Some("a"), None), ("b", Some("b"), None)];
    assert_eq!(found(&unknown, &["pvc-1", "pvc-2"]), Value::Null);
    assert_eq!(found(&unknown, &["pvc-1"]), Value::Null);
    assert_eq!(found(&unknown[..1], &["pvc-1", "pvc-2"]), Value::Null);
    assert_eq!(found(&[], &["pvc-1"]), Value::Null);
}

#[test]
fn the_systems_services_are_misc() {
    let mut snapshot = node(Hierarchy::V2);
    let mut row = snapshot.cgroups[1].clone();
    let part = Part { role: Role::System, ..Part::default() };
    row.cgroup = Arc::new(Cgroup { path: "/system.slice".into(), part, ..Cgroup::default() });
    snapshot.cgroups.push(row);
    let all = summary(&snapshot, Extent::Full);
    let names: Vec<_> =
        all["node"]["systemContainers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["misc", "pods"]);
}

/// What is not known is not there, and the rest is.
#[test]
fn the_summary_is_partial_rather_than_wrong() {
    let mut snapshot = node(Hierarchy::V2);
    for row in &mut snapshot.cgroups {
        *row = CgroupSample::new(Arc::clone(&row.cgroup));
    }
    snapshot.filesystems = Arc::default();
    snapshot.tasks = Default::default();
    let all = summary(&snapshot, Extent::Full);
    let pod = &all["pods"][0];
    assert_eq!(pod["containers"].as_array().unwrap().len(), 2);
    for section in ["cpu", "memory", "io", "network", "volume", "ephemeral-storage", "process_stats", "swap"]
    {
        assert_eq!(pod.get(section), None, "{section}");
        assert_eq!(all["node"].get(section), None, "{section}");
    }
    assert_eq!((all["node"].get("fs"), all["node"].get("rlimit")), (None, None));
    // One container whose layer is not known: no sum without it.
    let mut snapshot = node(Hierarchy::V2);
    snapshot.cgroups[5].disk = None;
    let all = summary(&snapshot, Extent::Full);
    assert_eq!(all["pods"][0].get("ephemeral-storage"), None);
    assert!(all["pods"][0]["containers"][0].get("rootfs").is_some());
    // No snapshot has the figures of the second before there was a tick.
    snapshot.cgroups.clear();
    assert_eq!(summary(&snapshot, Extent::Full)["pods"], serde_json::json!([]));
}

#[test]
fn the_reduced_summary_has_no_disks_and_no_networks() {
    let found = keys_of(&summary(&node(Hierarchy::V2), Extent::CpuAndMemory));
    assert!(found.iter().any(|key| key == ".pods.containers.cpu.psi.full.avg10"));
    for part in
        ["network", "fs", "rootfs", "logs", "io", "runtime", "rlimit", "volume", "ephemeral", "process"]
    {
        let has = |key: &String| key.split('.').any(|word| word.starts_with(part));
        assert!(!found.iter().any(has), "{part} in {found:?}");
    }
}

fn resource(snapshot: Option<&Snapshot>, format: Format) -> String {
    let mut text = Vec::new();
    resource::write(snapshot, format, |chunk| {
        text.extend_from_slice(chunk);
        Ok::<(), std::convert::Infallible>(())
    })
    .unwrap();
    String::from_utf8(text).unwrap()
}

/// What metrics-server takes of a text, by its own rules: five families, CPU and
/// memory with their stamps, containers by namespace, pod and container.
#[test]
fn metrics_server_finds_what_it_looks_for() {
    let snapshot = node(Hierarchy::V2);
    let text = resource(Some(&snapshot), Format::Prometheus);
    let families: Vec<String> = exposition::parse(&text, false).into_iter().map(|f| f.name).collect();
    let mut sorted = families.clone();
    sorted.sort();
    assert_eq!(families, sorted);
    assert_eq!(families.len(), 12, "swap is not limited: {families:?}");
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
    let stamp = format!(" {}", snapshot.wall_ms);
    for family in ["node_cpu_usage_seconds_total ", "node_memory_working_set_bytes "] {
        let found: Vec<_> = lines.iter().filter(|l| l.starts_with(family)).collect();
        assert!(found.len() == 1 && found[0].ends_with(&stamp), "{found:?}");
    }
    for name in ["app", "log"] {
        let labels = format!("{{container=\"{name}\",namespace=\"shop\",pod=\"web-1\"}} ");
        for (family, stamped) in [
            ("container_cpu_usage_seconds_total", true),
            ("container_memory_working_set_bytes", true),
            ("container_start_time_seconds", false),
        ] {
            let found: Vec<_> =
                lines.iter().filter(|l| l.starts_with(&format!("{family}{labels}"))).collect();
            assert!(found.len() == 1 && found[0].ends_with(&stamp) == stamped, "{family}: {found:?}");
        }
    }
    assert!(text.contains(
        "container_start_time_seconds{container=\"app\",namespace=\"shop\",pod=\"web-1\"} 1690000003.5\n"
    ));
    assert!(text.contains("resource_scrape_error 0\n"));
    let open = resource(Some(&snapshot), Format::OpenMetrics);
    assert!(open.contains("# TYPE pod_cpu_usage_seconds counter\n") && open.ends_with("# EOF\n"), "{open}");
    exposition::parse(&open, true);
}

#[test]
fn without_figures_the_resource_metrics_say_so() {
    let text = resource(None, Format::Prometheus);
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(lines, ["resource_scrape_error 1", "scrape_error 1"]);
}

#[test]
fn the_paths_are_served() {
    let mut server = Server::start(POLICY, limits());
    assert_eq!(server.get("/stats/summary", "").status, 503);
    assert!(server.get("/metrics/resource", "").text().contains("resource_scrape_error 1"));
    server.publisher.publish(Arc::new(node(Hierarchy::V2)));
    for (path, full) in [
        ("/stats/summary", true),
        ("/stats/summary/", true),
        ("/stats/summary?only_cpu_and_memory=true", false),
        ("/stats/summary?only_cpu_and_memory=false", true),
        ("/stats/summary?only_cpu_and_memory=true&only_cpu_and_memory=true", true),
    ] {
        let answer = server.get(path, "");
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{path}");
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(value["node"].get("network").is_some(), full, "{path}");
    }
    let mut client = server.connect();
    client.send("POST", "/stats/summary", "content-length: 0\r\n");
    assert_eq!(client.answer().status, 200);
    let answer = server.get("/metrics/resource", "accept: application/openmetrics-text;version=1.0.0\r\n");
    assert!(answer.text().ends_with("# EOF\n"));
    assert!(server.stop());
}

#[test]
fn families_are_chosen_by_name() {
    let mut server = Server::with(3, POLICY, limits());
    let names = |path: &str| -> BTreeMap<String, usize> {
        let answer = server.get(path, "accept-encoding: gzip\r\n");
        assert_eq!((answer.status, answer.header("content-encoding")), (200, ""), "{path}");
        let families = exposition::parse(answer.text(), false);
        families.into_iter().map(|f| (f.name, f.samples.len())).collect()
    };
    let found = names("/metrics?name[]=container_memory_rss&name%5B%5D=machine_cpu_cores&name[]=nothing");
    let expected = [("container_memory_rss".to_owned(), 3), ("machine_cpu_cores".to_owned(), 1)];
    assert_eq!(found, BTreeMap::from(expected));
    assert_eq!(names("/metrics?name[]=nothing"), BTreeMap::new());
    assert_eq!(server.get("/metrics?name[]=%ff", "").status, 400);
    assert!(server.get("/metrics?other=1", "").text().len() > 10_000);
    assert!(server.stop());
}

#[test]
fn areas_are_opened_one_by_one() {
    let check = |opened: Opened, expected: [u16; 4]| {
        let mut server = Server::guarded(POLICY, limits(), move |telemetry| {
            Guard::new(rules::AGENT, How::Token(None), None, telemetry).opening(opened)
        });
        server.publish(1, 2);
        let paths = ["/metrics", "/stats/summary", "/containers/", "/api/v1.3/machine"];
        assert_eq!(paths.map(|path| server.get(path, "").status), expected, "{opened:?}");
        assert_eq!(server.get("/metrics/../stats/summary", "").status, 401);
        assert!(server.stop());
    };
    check(Opened::default(), [401; 4]);
    check(Opened { metrics: true, ..Opened::default() }, [200, 401, 401, 401]);
    check(Opened { model: true, ..Opened::default() }, [401, 200, 401, 200]);
    check(Opened { dashboard: true, ..Opened::default() }, [401, 401, 200, 401]);
}

#[test]
fn pressure_that_is_not_told_is_not_there() {
    let mut snapshot = node(Hierarchy::V2);
    snapshot.cgroups.iter_mut().for_each(|row| row.pressure = PressureStats::default());
    let found = keys_of(&summary(&snapshot, Extent::Full));
    assert!(!found.iter().any(|key| key.contains("psi") || key.contains(".io.")), "{found:?}");
}
