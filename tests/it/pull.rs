//! Summaries of kubelets → batches → the model: those of a real kubelet, and those of
//! kubelets that lie.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use nodegauge::aggregate::ingest::{Ingest, Reason};
use nodegauge::aggregate::model::{Model, Options};
use nodegauge::aggregate::node::Kind;
use nodegauge::aggregate::objects::{ApiNamespace, ApiNode, Pod, pod_key};
use nodegauge::aggregate::pull::bases::Bases;
use nodegauge::aggregate::pull::step::{self, Head};
use nodegauge::aggregate::pull::summary::Summary;
use nodegauge::aggregate::watch::Object;
use nodegauge::identity::kubelet::ApiPod;
use nodegauge::identity::model::Names;
use nodegauge::push::batch::{Batch, EntityKind, Value};
use serde_json::{Value as Json, json};

use crate::ingest::{MINUTE, Sender};

const NODE: &str = "node-e2e";

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/summary").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn object<O: Object<Context = ()>>(json: &Json) -> O::Kept {
    let object: O = serde_json::from_value(json.clone()).unwrap();
    object.keep(&(), &mut Names::default()).unwrap()
}

fn pods() -> Vec<Json> {
    serde_json::from_str::<Json>(&read("pods.json")).unwrap()["items"].as_array().unwrap().clone()
}

fn node_object() -> Json {
    json!({
        "metadata": {"name": NODE, "labels": {"zone": "z1", "kubernetes.io/os": "linux"}},
        "spec": {"externalID": "host-1"},
        "status": {
            "capacity": {"cpu": "2", "memory": "24689100Ki"},
            "allocatable": {"cpu": "1600m", "memory": "20Gi"},
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "Hostname", "address": "e2e.example"}]
        }
    })
}

/// A model that knows what the API server of that kubelet would tell.
fn ingest() -> Ingest {
    let model = Model::new(Options::default());
    let facts = model.facts();
    for pod in pods() {
        let meta = &pod["metadata"];
        let key = pod_key(meta["namespace"].as_str().unwrap(), meta["name"].as_str().unwrap());
        facts.pods.put(key, object::<ApiPod>(&pod), 1);
    }
    let node: ApiNode = serde_json::from_value(node_object()).unwrap();
    facts.nodes.put(NODE.to_owned(), node.keep(&None, &mut Names::default()).unwrap(), 1);
    let namespace = json!({"metadata": {"name": "e2e", "uid": "ns-uid"}});
    facts.namespaces.put("e2e".to_owned(), object::<ApiNamespace>(&namespace), 1);
    Ingest::new(Arc::new(model), 10)
}

fn head(sequence: u64, now_ms: u64) -> Head<'static> {
    let time_ms = now_ms.div_ceil(MINUTE) * MINUTE;
    Head { node: NODE, boot_id: [7; 16], sequence, time_ms, resolution_ms: MINUTE, now_ms }
}

/// When the kubelet read its own root cgroup, and two seconds.
fn asked_ms(summary: &Summary) -> u64 {
    summary.node.cpu.as_ref().unwrap().time.ms().unwrap() + 2_000
}

fn make(ingest: &Ingest, summary: &Summary, head: &Head<'_>, bases: &mut Bases) -> Batch {
    let facts = ingest.model().facts();
    let pod = |namespace: &str, name: &str| -> Option<Arc<Pod>> { facts.pods.get(&pod_key(namespace, name)) };
    step::batch(head, summary, &pod, bases).unwrap()
}

/// Everything that is held in a slot, a line each.
fn held(model: &Model, slot: u64) -> String {
    let mut text = String::new();
    model.figures_at(
        NODE,
        slot,
        |_| true,
        |entity, figures| {
            let key = &entity.key;
            let kind = match key.kind {
                Kind::Node => "node",
                Kind::System => "system",
                Kind::Pod => "pod",
                Kind::Container => "container",
            };
            let labels: Vec<String> = entity.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let image = entity.image.as_deref().unwrap_or("-");
            writeln!(
                text,
                "{kind} {}/{}/{} image {image} uid {} labels {} host network {}",
                key.namespace,
                key.pod,
                key.container,
                entity.pod_uid.as_deref().unwrap_or("-"),
                labels.join(","),
                entity.host_network,
            )
            .unwrap();
            for figure in figures {
                let value = match figure.value {
                    Value::Integer(value) => value.to_string(),
                    Value::Double(value) => format!("{value:.6}"),
                };
                writeln!(text, "  {} {} {value}", figure.metric.name, figure.label).unwrap();
            }
        },
    );
    text
}

#[test]
fn a_real_kubelet_is_held_as_an_agent_would_be() {
    let ingest = ingest();
    let mut bases = Bases::default();
    let [first, second] = ["first.json", "second.json"].map(|name| {
        let summary: Summary = serde_json::from_str(&read(name)).unwrap();
        summary
    });
    let mut slot = 0;
    for (at, summary) in (1..).zip([&first, &second]) {
        let head = head(at, asked_ms(summary));
        slot = head.time_ms;
        ingest.take_pulled(make(&ingest, summary, &head, &mut bases), head.now_ms).unwrap();
    }
    let text = held(ingest.model(), slot);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/summary/expected.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(&path).unwrap());
    // Rates worked out from the JSON by itself.
    let [first, second]: [Json; 2] =
        ["first.json", "second.json"].map(|name| serde_json::from_str(&read(name)).unwrap());
    let seconds = |json: &Json| {
        let time = humantime::parse_rfc3339(json["time"].as_str().unwrap()).unwrap();
        time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
    };
    let mut compared = 0;
    for pod in second["pods"].as_array().unwrap() {
        let before = first["pods"].as_array().unwrap().iter().find(|p| p["podRef"] == pod["podRef"]).unwrap();
        for container in pod["containers"].as_array().unwrap() {
            let same = |c: &&Json| c["name"] == container["name"];
            let before = before["containers"].as_array().unwrap().iter().find(same).unwrap();
            let used = |c: &Json| c["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap();
            let rise = used(container) - used(before);
            let millicores = rise / 1_000_000 / (seconds(&container["cpu"]) - seconds(&before["cpu"]));
            let name = pod["podRef"]["name"].as_str().unwrap();
            let begin = format!("container e2e/{name}/{} ", container["name"].as_str().unwrap());
            let part = text.split_once(&begin).unwrap().1;
            let rate = part.lines().find_map(|l| l.trim().strip_prefix("cpu/usage_rate  ")).unwrap();
            assert_eq!(rate.parse::<u64>().unwrap(), millicores, "{begin}");
            compared += 1;
        }
    }
    assert_eq!(compared, 6);
}

#[test]
fn what_the_api_server_tells_is_put_beside() {
    let ingest = ingest();
    // The kubelet takes its time with volumes: the first has none yet.
    let summary: Summary = serde_json::from_str(&read("second.json")).unwrap();
    let batch = make(&ingest, &summary, &head(1, asked_ms(&summary)), &mut Bases::default());
    let find = |container: &str, pod: &str| {
        batch.entities().find(|e| e.container() == Some(container) && e.pod() == Some(pod)).unwrap()
    };
    let work = find("work", "plain-node-e2e");
    assert_eq!(work.value("cpu/request"), Some(Value::Integer(20)));
    assert_eq!(work.value("memory/limit"), Some(Value::Integer(64 << 20)));
    assert_eq!(work.image(), Some("nodegauge.test/busybox:1"));
    let node = batch.entities().find(|e| e.kind() == EntityKind::Node).unwrap();
    // Three pods with one such container each; the one that crashes asks for nothing.
    assert_eq!(node.value("cpu/request"), Some(Value::Integer(60)));
    assert_eq!(node.value("restart_count"), None);
    for entity in batch.entities().filter(|e| e.pod() == Some("onhost-node-e2e")) {
        assert!(entity.is_host_network());
        assert_eq!(entity.value("network/rx"), None, "its figures are the host's");
    }
    let plain =
        batch.entities().find(|e| e.pod() == Some("plain-node-e2e") && e.container().is_none()).unwrap();
    assert!(plain.value("network/rx").is_some());
    let volumes: Vec<_> = plain.metrics().filter_map(|p| p.label).collect();
    assert!(volumes.contains(&"Volume:data"), "{volumes:?}");
}

#[test]
fn containers_that_do_not_run_are_there_with_what_is_known_of_them() {
    let ingest = ingest();
    let mut summary: Json = serde_json::from_str(&read("first.json")).unwrap();
    for pod in summary["pods"].as_array_mut().unwrap() {
        pod["containers"].as_array_mut().unwrap().retain(|c| c["name"] != "idle");
    }
    let summary: Summary = serde_json::from_value(summary).unwrap();
    let batch = make(&ingest, &summary, &head(1, asked_ms(&summary)), &mut Bases::default());
    let idle: Vec<_> = batch.entities().filter(|e| e.container() == Some("idle")).collect();
    assert_eq!(idle.len(), 3);
    for entity in idle {
        assert_eq!(entity.value("restart_count"), Some(Value::Integer(0)));
        assert_eq!(entity.value("memory/usage"), None);
    }
}

#[test]
fn a_kubelet_of_long_ago_tells_of_accelerators_and_of_what_programs_told_it() {
    let ingest = ingest();
    let mut summary: Json = serde_json::from_str(&read("first.json")).unwrap();
    let pods = summary["pods"].as_array_mut().unwrap();
    let plain = pods.iter_mut().find(|pod| pod["podRef"]["name"] == "plain-node-e2e").unwrap();
    let card = |id: &str, used: u64| json!({"make": "nvidia", "model": "Tesla P100", "id": id, "memoryTotal": 100, "memoryUsed": used, "dutyCycle": 7});
    let told = |name: &str, value: f64| json!({"name": name, "type": "gauge", "units": "x", "value": value});
    for container in plain["containers"].as_array_mut().unwrap() {
        if container["name"] == "work" {
            // The second time it is told it is not believed.
            container["accelerators"] =
                json!([card("GPU-1", 30), card("GPU-2", 40), card("GPU-1", 99), card("", 1)]);
            container["userDefinedMetrics"] = json!([told("queue", 1.5), told("hits", 4.0), told("", 1.0)]);
        } else {
            container["userDefinedMetrics"] = json!([told("queue", 2.25)]);
        }
    }
    let summary: Summary = serde_json::from_value(summary).unwrap();
    let batch = make(&ingest, &summary, &head(1, asked_ms(&summary)), &mut Bases::default());
    let of = |container: Option<&str>| -> Vec<String> {
        let mut found = batch.entities().filter(|e| e.pod() == Some("plain-node-e2e"));
        let points = found.find(|e| e.container() == container).unwrap().metrics();
        let wanted = points
            .filter(|p| ["accelerator/", "custom/"].iter().any(|begin| p.metric.name.starts_with(begin)));
        wanted.map(|p| format!("{} {:?} {:?}", p.name(), p.labels(), p.value)).collect()
    };
    let card = |name: &str, id: &str, value: u64| {
        format!(
            "accelerator/{name} {:?} Integer({value})",
            [("make", "nvidia"), ("model", "Tesla P100"), ("accelerator_id", id)]
        )
    };
    let mut expected = Vec::new();
    for (name, values) in [("memory_total", [100, 100]), ("memory_used", [30, 40]), ("duty_cycle", [7, 7])] {
        expected.extend(["GPU-1", "GPU-2"].into_iter().zip(values).map(|(id, value)| card(name, id, value)));
    }
    expected.extend(["custom/hits [] Double(4.0)", "custom/queue [] Double(1.5)"].map(str::to_owned));
    assert_eq!(of(Some("work")), expected);
    assert_eq!(of(Some("idle")), ["custom/queue [] Double(2.25)"]);
    assert_eq!(of(None), ["custom/hits [] Double(4.0)", "custom/queue [] Double(3.75)"]);
    // What runs has the id that the API server tells.
    let ids = batch.entities().filter(|e| e.kind() == EntityKind::Container).map(|e| e.container_id());
    assert!(ids.flatten().any(|id| id.len() == 64));
}

#[test]
fn a_kubelet_that_tells_of_containers_only_has_sums_for_pods() {
    let ingest = ingest();
    let mut bases = Bases::default();
    let mut rates = Vec::new();
    for (at, name) in (1..).zip(["first.json", "second.json"]) {
        let mut summary: Json = serde_json::from_str(&read(name)).unwrap();
        for pod in summary["pods"].as_array_mut().unwrap() {
            pod.as_object_mut().unwrap().retain(|key, _| key != "cpu" && key != "memory");
        }
        let summary: Summary = serde_json::from_value(summary).unwrap();
        let batch = make(&ingest, &summary, &head(at, asked_ms(&summary)), &mut bases);
        let of = |container: Option<&str>, name: &str| {
            let mut found = batch.entities().filter(|e| e.pod() == Some("plain-node-e2e"));
            match found.find(|e| e.container() == container).unwrap().value(name) {
                Some(Value::Integer(value)) => Some(value),
                _ => None,
            }
        };
        let sum = of(Some("work"), "memory/usage").unwrap() + of(Some("idle"), "memory/usage").unwrap();
        assert_eq!(of(None, "memory/usage"), Some(sum));
        assert_eq!(of(None, "cpu/usage"), None, "counters of containers end with them");
        rates.push([None, Some("work"), Some("idle")].map(|container| of(container, "cpu/usage_rate")));
    }
    assert_eq!(rates[0], [None; 3]);
    let [whole, work, idle] = rates[1].map(Option::unwrap);
    assert!(whole.abs_diff(work + idle) <= 1, "{whole} {work} {idle}");
}

#[test]
fn a_kubelet_tells_of_no_pods_but_its_own() {
    let ingest = ingest();
    let mut stolen = pods()[0].clone();
    stolen["spec"]["nodeName"] = json!("another");
    let key = pod_key("e2e", stolen["metadata"]["name"].as_str().unwrap());
    ingest.model().facts().pods.put(key, object::<ApiPod>(&stolen), 1);
    let odd = json!({
        "node": {"cpu": {"time": "2026-11-20T12:00:00Z", "usageCoreNanoSeconds": u64::MAX}},
        "pods": [
            {"podRef": {"name": stolen["metadata"]["name"], "namespace": "e2e", "uid": "x"}, "containers": []},
            {"podRef": {"name": "twice", "namespace": "e2e", "uid": "x"}, "containers": null},
            {"podRef": {"name": "twice", "namespace": "e2e", "uid": "y"},
             "containers": [{"name": "c", "memory": {"usageBytes": 5}}]},
            {"podRef": {"name": "a/b", "namespace": "e2e", "uid": "x"}},
            {"podRef": {"name": "x".repeat(254), "namespace": "e2e", "uid": "x"}},
            {"podRef": {}},
            {"podRef": {"name": "same", "namespace": "e2e", "uid": "x"},
             "network": {"time": "2026-11-20T12:00:00Z", "rxBytes": 5},
             "volume": [{"name": "v", "usedBytes": 1}, {"name": "v", "usedBytes": 2}, {"name": "", "usedBytes": 3}],
             "containers": [{"name": "c"}, {"name": "c"}, {"name": ""}]},
        ]
    });
    let summary: Summary = serde_json::from_value(odd).unwrap();
    let batch = make(&ingest, &summary, &head(1, 1_763_640_000_000), &mut Bases::default());
    let mut named: Vec<String> = batch
        .entities()
        .filter_map(|e| Some(format!("{} {}", e.pod()?, e.container().unwrap_or("-"))))
        .collect();
    named.sort();
    assert_eq!(named, ["same -", "same c", "twice -"]);
    let same = batch.entities().find(|e| e.pod() == Some("same") && e.container().is_none()).unwrap();
    assert_eq!(same.value("network/rx"), None, "nobody knows whose network it has");
    assert_eq!(same.metrics().filter(|p| p.label.is_some()).count(), 1);
    ingest.take_pulled(batch, 1_763_640_000_000).unwrap();
}

#[test]
fn pushes_win_and_are_amended_too() {
    let ingest = ingest();
    let now = 1_763_640_000_000 / MINUTE * MINUTE;
    ingest.take(&Sender::new(NODE).bytes(now, now, 5), None, now).unwrap();
    let slot = now;
    let text = held(ingest.model(), slot);
    assert!(text.contains("labels kubernetes.io/os=linux,zone=z1"), "{text}");
    assert!(text.contains("  cpu/node_allocatable  1600.000000"), "{text}");
    let summary: Summary = serde_json::from_str(&read("first.json")).unwrap();
    let batch = || make(&ingest, &summary, &head(9, now), &mut Bases::default());
    assert!(ingest.is_pushed(NODE, now + 1_000));
    assert_eq!(ingest.take_pulled(batch(), now + 1_000).unwrap_err().reason, Reason::Contested);
    // Its agent has been silent for three of its steps.
    assert!(!ingest.is_pushed(NODE, now + 10 * MINUTE));
    ingest.take_pulled(batch(), now + 10 * MINUTE).unwrap();
}
