//! `/api/v1/metric-export` and its schema.

use std::io::Read as _;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use nodegauge::aggregate::model::{Model, Options};
use serde_json::{Value, json};

use super::cluster::{MIB, model};
use super::{ask, check, get};

const EXPORT: &str = "/api/v1/metric-export";
const END: &str = "2030-01-01T00:03:00Z";
const POD_START: &str = "2030-01-01T00:00:00Z";

/// One point of a counter, or of a gauge, which begins when it ends.
fn counter(start: &str, value: u64) -> Value {
    json!([{"start": start, "end": END, "value": value}])
}

fn gauge(value: u64) -> Value {
    counter(END, value)
}

fn labelled(label: &str, start: &str, value: Value) -> Value {
    json!([{"start": start, "end": END, "labels": {"resource_id": label}, "value": value}])
}

fn labels(container: &str, others: Value) -> Value {
    let mut labels = json!({"nodename": "n1", "hostname": "n1", "container_name": container});
    let (Value::Object(labels), Value::Object(others)) = (&mut labels, others) else { panic!("no objects") };
    labels.extend(others);
    json!(labels)
}

fn container(name: &str, cpu: u64, memory_mib: u64, of_pod: &Value) -> Value {
    let mut others = of_pod.clone();
    others["container_base_image"] = "registry.local/web:1".into();
    json!({
        "metrics": {
            "cpu/usage": counter(POD_START, cpu),
            "memory/usage": gauge(memory_mib * MIB),
            "memory/working_set": gauge((memory_mib - 1) * MIB),
            "cpu/limit": gauge(200),
        },
        "labels": labels(name, others),
    })
}

#[test]
fn the_newest_slot_in_full() {
    let of_pod = json!({
        "pod_name": "web-0",
        "pod_id": "01010101-0101-0101-0101-010101010101",
        "labels": "app:web,instance:web-0",
    });
    let began = "2029-12-31T23:00:00Z";
    let expected = json!([
        {
            "metrics": {
                "uptime": counter(began, 3_780_000),
                "cpu/usage": counter(began, 90_000_000_000),
                "memory/usage": gauge(1_003 * MIB),
                "memory/working_set": gauge(800 * MIB),
                "filesystem/usage": labelled("/", END, json!(10_003)),
                "filesystem/inodes": labelled("/", END, json!(7_000)),
                "disk/io_read_bytes": labelled("/dev/sda", began, json!(12_288)),
                "disk/io_read_bytes_rate": labelled("/dev/sda", END, json!(4_096.0 / 60.0)),
            },
            "labels": labels("machine", json!({"labels": "kubernetes.io/os:linux"})),
        },
        {"metrics": {"memory/usage": gauge(50 * MIB)}, "labels": labels("kubelet", json!({}))},
        {
            "metrics": {"memory/usage": gauge(60 * MIB)},
            "labels": labels("system.slice/docker.service", json!({})),
        },
        {
            "metrics": {
                "memory/usage": gauge(18 * MIB),
                "memory/working_set": gauge(16 * MIB),
                "network/rx": counter(POD_START, 9_000),
            },
            "labels": labels("/pod", of_pod.clone()),
        },
        container("main", 1_800_000_000, 13, &of_pod),
        container("side", 300_000_000, 5, &of_pod),
    ]);
    let model = model();
    check(&model, &[(EXPORT, expected.clone()), (&format!("{EXPORT}/"), expected)]);
    let text = get(&model, EXPORT).text().to_owned();
    assert!(text.ends_with("]\n") && text.lines().count() == 1, "it is compact");
}

#[test]
fn it_is_compressed_while_it_is_written() {
    let model = model();
    let request = Request::get(EXPORT).header("accept-encoding", "gzip").body(Body::empty()).unwrap();
    let compressed = ask(&model, request);
    assert_eq!(compressed.headers["content-encoding"], "gzip");
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&compressed.body[..]).read_to_end(&mut text).unwrap();
    assert_eq!(text, get(&model, EXPORT).body);
}

#[test]
fn before_the_first_step_it_is_null() {
    let empty = Arc::new(Model::new(Options::default()));
    check(&empty, &[(EXPORT, Value::Null)]);
}

#[test]
fn the_schema_names_what_is_exported() {
    let model = model();
    let schema = get(&model, "/api/v1/metric-export-schema").json();
    let metric = |name: &str| {
        let metrics = schema["metrics"].as_array().unwrap();
        let mut found = metrics.iter().find(|metric| metric["name"] == name).unwrap().clone();
        assert!(!found["description"].as_str().unwrap().is_empty());
        found.as_object_mut().unwrap().remove("description");
        found
    };
    let plain =
        |name: &str, kind: &str| json!({"name": name, "labels": [], "type": kind, "value_type": "int64"});
    let with = |mut metric: Value, units: &str| {
        metric["units"] = units.into();
        metric
    };
    assert_eq!(metric("uptime"), with(plain("uptime", "cumulative"), "ms"));
    assert_eq!(metric("cpu/usage"), with(plain("cpu/usage", "cumulative"), "ns"));
    assert_eq!(metric("memory/usage"), with(plain("memory/usage", "gauge"), "bytes"));
    assert_eq!(metric("memory/page_faults"), plain("memory/page_faults", "cumulative"));
    assert_eq!(metric("cpu/limit"), with(plain("cpu/limit", "gauge"), "millicores"));
    let rate = metric("disk/io_read_bytes_rate");
    assert_eq!(
        (&rate["type"], &rate["value_type"], &rate["units"]),
        (&json!("gauge"), &json!("double"), &Value::Null)
    );
    assert_eq!(rate["labels"][0]["key"], "resource_id");
    let names: Vec<_> =
        schema["metrics"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    for absent in ["cpu/request", "cpu/usage_rate", "restart_count", "cpu/node_capacity"] {
        assert!(!names.contains(&absent), "{absent}");
    }
    let keys = |labels: &str| {
        let labels = schema[labels].as_array().unwrap();
        labels.iter().map(|label| label["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let common = ["nodename", "hostname", "host_id", "container_name", "container_base_image"];
    assert_eq!(keys("common_labels"), common);
    assert_eq!(keys("pod_labels"), ["pod_name", "pod_id", "namespace_id", "labels"]);
    // And nothing else is in the export.
    for series in get(&model, EXPORT).json().as_array().unwrap() {
        for name in series["metrics"].as_object().unwrap().keys() {
            assert!(names.contains(&name.as_str()), "{name}");
        }
        for label in series["labels"].as_object().unwrap().keys() {
            assert!(keys("common_labels").contains(label) || keys("pod_labels").contains(label), "{label}");
        }
    }
}
