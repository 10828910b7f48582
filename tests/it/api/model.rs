//! `/api/v1/model`.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use nodegauge::aggregate::objects::ApiNode;
use nodegauge::aggregate::watch::Object as _;
use nodegauge::identity::model::Names;
use nodegauge::push::batch::proto::{self, EntityKind};
use nodegauge::push::batch::{Batch, MetricId};
use serde_json::{Value, json};

use super::cluster::{MIB, minute, model, n1};
use super::{ask, check, get};

/// A series of whole numbers, by minutes.
fn series(points: &[(u64, u64)]) -> Value {
    let time = |at: &u64| format!("2030-01-01T00:0{at}:00Z");
    let metrics: Vec<_> =
        points.iter().map(|(at, value)| json!({"timestamp": time(at), "value": value})).collect();
    let latest = points.last().map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |(at, _)| time(at));
    json!({"metrics": metrics, "latestTimestamp": latest})
}

#[test]
fn lists_say_who_there_is_in_order() {
    check(
        &model(),
        &[
            ("/api/v1/model/nodes", json!(["n1", "n2"])),
            ("/api/v1/model/nodes/", json!(["n1", "n2"])),
            ("//api/v1/model/nodes", json!(["n1", "n2"])),
            ("//api/v1/model//nodes//", json!(["n1", "n2"])),
            ("/api/v1/model/namespaces", json!(["shop"])),
            ("/api/v1/model/namespaces/shop/pods", json!(["web-0", "web-1"])),
            ("/api/v1/model/namespaces/none/pods", json!([])),
            ("/api/v1/model/namespaces/shop/pods/web-0/containers", json!(["main", "side"])),
            ("/api/v1/model/namespaces/shop/pods/none/containers", json!([])),
            ("/api/v1/model/nodes/n1/freecontainers", json!(["kubelet", "system.slice/docker.service"])),
            ("/api/v1/model/nodes/none/freecontainers", json!([])),
            (
                "/api/v1/model/debug/allkeys",
                json!([
                    "cluster",
                    "namespace:shop",
                    "namespace:shop/pod:web-0",
                    "namespace:shop/pod:web-0/container:main",
                    "namespace:shop/pod:web-0/container:side",
                    "namespace:shop/pod:web-1",
                    "namespace:shop/pod:web-1/container:main",
                    "node:n1",
                    "node:n1/container:kubelet",
                    "node:n1/container:system.slice/docker.service",
                    "node:n2",
                    "node:n2/container:kubelet",
                    "node:n2/container:system.slice/docker.service",
                ]),
            ),
        ],
    );
}

#[test]
fn nodes_are_listed_by_the_names_of_their_hosts() {
    let model = model();
    let object = json!({
        "metadata": {"name": "n1"},
        "status": {"addresses": [{"type": "Hostname", "address": "host-1.example"}]},
    });
    let node: ApiNode = serde_json::from_value(object).unwrap();
    model.facts().nodes.put("n1".to_owned(), node.keep(&None, &mut Names::default()).unwrap(), 1);
    let containers = json!(["kubelet", "system.slice/docker.service"]);
    let memory = series(&[(1, 1_001 * MIB), (2, 1_002 * MIB)]);
    check(
        &model,
        &[
            ("/api/v1/model/nodes", json!(["host-1.example", "n2"])),
            ("/api/v1/model/nodes/host-1.example/freecontainers", containers.clone()),
            ("/api/v1/model/nodes/n1/freecontainers", containers),
            ("/api/v1/model/nodes/n2/metrics/memory/usage", memory),
            (
                "/api/v1/model/nodes/host-1.example/freecontainers/kubelet/metrics/cpu/usage_rate",
                series(&[(1, 10), (2, 10), (3, 10)]),
            ),
        ],
    );
}

#[test]
fn names_are_those_of_plain_values() {
    let summed = json!(["cpu/request", "cpu/usage_rate", "memory/usage"]);
    check(
        &model(),
        &[
            ("/api/v1/model/metrics", summed.clone()),
            ("/api/v1/model/namespaces/shop/metrics/", summed),
            ("/api/v1/model/namespaces/none/metrics", json!([])),
            (
                "/api/v1/model/nodes/n1/metrics",
                json!([
                    "cpu/node_allocatable",
                    "cpu/node_capacity",
                    "cpu/node_utilization",
                    "cpu/request",
                    "cpu/usage",
                    "cpu/usage_rate",
                    "memory/usage",
                    "memory/working_set",
                    "uptime",
                ]),
            ),
            ("/api/v1/model/nodes/none/metrics", json!([])),
            (
                "/api/v1/model/nodes/n1/freecontainers/kubelet/metrics",
                json!(["cpu/usage_rate", "memory/usage"]),
            ),
            (
                "/api/v1/model/namespaces/shop/pods/web-0/metrics",
                json!([
                    "cpu/request",
                    "cpu/usage_rate",
                    "memory/usage",
                    "memory/working_set",
                    "network/rx",
                    "network/rx_rate",
                ]),
            ),
            (
                "/api/v1/model/namespaces/shop/pods/web-0/containers/side/metrics",
                json!([
                    "cpu/limit",
                    "cpu/request",
                    "cpu/usage",
                    "cpu/usage_rate",
                    "memory/usage",
                    "memory/working_set",
                    "restart_count",
                ]),
            ),
        ],
    );
}

#[test]
fn series_of_every_level() {
    check(
        &model(),
        &[
            // 16 + 20, 17 + 20 MiB; n2 missed the third minute.
            ("/api/v1/model/metrics/memory/usage", series(&[(1, 36 * MIB), (2, 37 * MIB), (3, 18 * MIB)])),
            ("/api/v1/model/metrics/cpu/usage_rate", series(&[(1, 40), (2, 25 + 40), (3, 35)])),
            ("/api/v1/model/namespaces/shop/metrics/cpu/usage_rate", series(&[(1, 40), (2, 65), (3, 35)])),
            ("/api/v1/model/namespaces/shop/metrics/cpu/request", series(&[(1, 300), (2, 300), (3, 200)])),
            ("/api/v1/model/nodes/n1/metrics/cpu/usage_rate", series(&[(1, 500), (2, 500), (3, 500)])),
            ("/api/v1/model/nodes/n2/metrics/memory/usage/", series(&[(1, 1_001 * MIB), (2, 1_002 * MIB)])),
            (
                "/api/v1/model/nodes/n1/freecontainers/kubelet/metrics/cpu/usage_rate",
                series(&[(1, 10), (2, 10), (3, 10)]),
            ),
            (
                "/api/v1/model/nodes/n1/freecontainers/system.slice%2Fdocker.service/metrics/memory/usage",
                series(&[(1, 60 * MIB), (2, 60 * MIB), (3, 60 * MIB)]),
            ),
            ("/api/v1/model/namespaces/shop/pods/web-0/metrics/cpu/usage_rate", series(&[(2, 25), (3, 35)])),
            (
                "/api/v1/model/namespaces/shop/pods/web-0/containers/main/metrics/cpu/usage_rate",
                series(&[(2, 20), (3, 30)]),
            ),
            (
                "/api/v1/model/namespaces/shop/pods/web-0/containers/side/metrics/restart_count",
                series(&[(1, 0), (2, 0), (3, 1)]),
            ),
            // What is not known has no points; that of another kind of value neither.
            ("/api/v1/model/namespaces/shop/pods/none/metrics/cpu/usage_rate", series(&[])),
            ("/api/v1/model/namespaces/shop/pods/web-0/metrics/none", series(&[])),
            ("/api/v1/model/nodes/none/metrics/cpu/usage_rate", series(&[])),
            ("/api/v1/model/nodes/n1/metrics/filesystem/usage", series(&[])),
            ("/api/v1/model/nodes/n1/metrics/cpu/usage_rate?labels=resource_id:/", series(&[])),
        ],
    );
}

#[test]
fn doubles_keep_their_fraction() {
    let point = |at, value, exact| json!({"timestamp": format!("2030-01-01T00:0{at}:00Z"), "value": value, "floatValue": exact});
    let doubles = |points: &[Value]| json!({"metrics": points, "latestTimestamp": "2030-01-01T00:03:00Z"});
    check(
        &model(),
        &[
            (
                "/api/v1/model/nodes/n1/metrics/cpu/node_utilization",
                doubles(&[point(1, 0, 0.125), point(2, 0, 0.125), point(3, 0, 0.125)]),
            ),
            (
                "/api/v1/model/namespaces/shop/pods/web-0/metrics/network/rx_rate",
                doubles(&[point(2, 1, 1.5), point(3, 1, 1.5)]),
            ),
        ],
    );
}

#[test]
fn labels_choose_among_values() {
    let labelled = "/api/v1/model/nodes/n1/metrics/filesystem/usage?labels=";
    let none = series(&[]);
    let found = series(&[(1, 10_001), (2, 10_002), (3, 10_003)]);
    let model = model();
    for (labels, expected) in [
        ("resource_id:/", &found),
        ("resource_id%3A%2F", &found),
        ("resource_id:/dev/sda", &none),
        ("resource_id:", &none),
        ("other:/", &none),
        ("resource_id:/,other:x", &none),
        // No labels is what Heapster takes it for.
        ("", &none),
    ] {
        check(&model, &[(&format!("{labelled}{labels}"), expected.clone())]);
    }
    let refused = get(&model, &format!("{labelled}resource_id"));
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.text().starts_with("labels: "), "{}", refused.text());
}

/// Metrics whose name is a part of what was told, and those with several labels.
#[test]
fn names_of_their_own_and_accelerators() {
    let model = model();
    let mut message = n1(4).message().clone();
    let texts =
        ["nvidia.com/gpu", "nvidia\u{1f}Tesla P100\u{1f}GPU-6a", "queue", "queue\u{1f}kind\u{1f}mail"];
    let first = u32::try_from(message.strings.len()).unwrap();
    message.strings.extend(texts.map(str::to_owned));
    let container = message.entities.iter().position(|e| e.kind() == EntityKind::Container).unwrap();
    let container = u32::try_from(container).unwrap();
    let mut put = |metric: MetricId, labels: Vec<u32>, integers: Vec<u64>, doubles: Vec<f64>| {
        let rows = u32::try_from(message.rows.len()).unwrap();
        let entities = labels.iter().enumerate().map(|(at, _)| if at == 0 { container } else { 0 }).collect();
        message.rows.push(proto::Rows { entities, labels });
        message.columns.push(proto::Column { metric: metric.into(), rows, integers, doubles });
    };
    put(MetricId::ResourceRequest, vec![first], vec![2], Vec::new());
    put(MetricId::AcceleratorDutyCycle, vec![first + 1], vec![7], Vec::new());
    put(MetricId::Custom, vec![first + 2, first + 3], Vec::new(), vec![1.5, 2.5]);
    model.ingest(&Batch::new(message).unwrap(), minute(4) + 1_000);
    model.tick(minute(4) + 30_000);
    let root = "/api/v1/model/namespaces/shop/pods/web-0/containers/main/metrics";
    let names = get(&model, root).json();
    let names: Vec<_> = names.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(
        names.is_sorted() && names.contains(&"custom/queue") && names.contains(&"nvidia.com/gpu/request"),
        "{names:?}"
    );
    assert!(!names.iter().any(|name| name.contains('*') || name.contains("duty")), "{names:?}");
    let values = |path: &str| {
        let found = get(&model, &format!("{root}/{path}")).json();
        found["metrics"].as_array().unwrap().iter().map(|point| point["value"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(values("nvidia.com/gpu/request"), [json!(2)]);
    let card = "accelerator/duty_cycle?labels=";
    assert_eq!(values(&format!("{card}accelerator_id:GPU-6a,make:nvidia,model:Tesla%20P100")), [json!(7)]);
    for other in ["accelerator_id:GPU-6a,make:nvidia", "accelerator_id:GPU-6b,make:nvidia,model:Tesla%20P100"]
    {
        assert_eq!(values(&format!("{card}{other}")), Vec::<Value>::new(), "{other}");
    }
    assert_eq!(values("accelerator/duty_cycle"), Vec::<Value>::new());
    let queue = get(&model, &format!("{root}/custom/queue")).json();
    assert_eq!(queue["metrics"][0]["floatValue"], json!(1.5));
    let export = get(&model, "/api/v1/metric-export").json();
    let mut points =
        export.as_array().unwrap().iter().filter_map(|s| s["metrics"].get("accelerator/duty_cycle"));
    let labels = json!({"make": "nvidia", "model": "Tesla P100", "accelerator_id": "GPU-6a"});
    assert_eq!(points.next().unwrap()[0]["labels"], labels);
}

#[test]
fn start_and_end_are_inclusive() {
    let rate = "/api/v1/model/nodes/n1/metrics/cpu/usage_rate";
    let model = model();
    let all = [(1, 500), (2, 500), (3, 500)];
    for (query, expected) in [
        ("start=2030-01-01T00:02:00Z", &all[1..]),
        ("start=2030-01-01T00:02:00.001Z", &all[2..]),
        ("end=2030-01-01T00:02:00Z", &all[..2]),
        ("start=2030-01-01T02:02:00%2B02:00&end=2030-01-01T00:02:00Z", &all[1..2]),
        ("start=2031-01-01T00:00:00Z", &all[3..]),
        ("start=&end=", &all[..]),
        ("start=0001-01-01T00:00:00Z", &all[..]),
    ] {
        check(&model, &[(&format!("{rate}?{query}"), series(expected))]);
    }
    for query in ["start=yesterday", "end=1"] {
        let refused = get(&model, &format!("{rate}?{query}"));
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(refused.headers["content-type"], "text/plain; charset=utf-8");
    }
}

#[test]
fn aliases_are_the_metrics_they_stand_for() {
    let model = model();
    for (alias, metric) in [
        ("cpu-usage", "cpu/usage_rate"),
        ("cpu-limit", "cpu/limit"),
        ("memory-limit", "memory/limit"),
        ("memory-usage", "memory/usage"),
        ("memory-working", "memory/working_set"),
    ] {
        let of = "/api/v1/model/namespaces/shop/pods/web-0/containers/main/metrics/";
        let found = get(&model, &format!("{of}{alias}")).json();
        assert_eq!(found, get(&model, &format!("{of}{metric}")).json());
        // The containers of this cluster have no memory limits.
        assert_eq!(found["metrics"].as_array().unwrap().is_empty(), alias == "memory-limit", "{alias}");
    }
}

#[test]
fn a_pod_list_answers_name_by_name() {
    let list = |items: &[Value]| json!({ "items": items });
    let [web_0, web_1] = [series(&[(2, 25), (3, 35)]), series(&[(1, 40), (2, 40)])];
    let of = "/api/v1/model/namespaces/shop/pod-list";
    let model = model();
    check(
        &model,
        &[
            (
                &format!("{of}/web-1,none,web-0,web-1/metrics/cpu/usage_rate"),
                list(&[web_1.clone(), series(&[]), web_0.clone(), web_1.clone()]),
            ),
            (&format!("{of}/web-0/metrics/cpu-usage"), list(std::slice::from_ref(&web_0))),
            (&format!("{of}/web-0%2Cweb-1/metrics/cpu-usage"), list(&[web_0, web_1])),
            (
                &format!("{of}/web-0/metrics/cpu-usage?start=2030-01-01T00:03:00Z"),
                list(&[series(&[(3, 35)])]),
            ),
        ],
    );
    // Long lists make long paths.
    let names: Vec<String> = (0..500).map(|n| format!("deployment-{n}-5d8f9c7b6d-abcde")).collect();
    let found = get(&model, &format!("{of}/{}/metrics/cpu/usage_rate", names.join(","))).json();
    assert_eq!(found["items"].as_array().unwrap().len(), 500);
}

#[test]
fn pod_lists_are_compact_and_the_rest_is_pretty() {
    let model = model();
    let compact = get(&model, "/api/v1/model/namespaces/shop/pod-list/web-0/metrics/cpu/usage_rate");
    assert_eq!(
        compact.text(),
        "{\"items\":[{\"metrics\":[{\"timestamp\":\"2030-01-01T00:02:00Z\",\"value\":25},\
         {\"timestamp\":\"2030-01-01T00:03:00Z\",\"value\":35}],\
         \"latestTimestamp\":\"2030-01-01T00:03:00Z\"}]}\n"
    );
    let pretty = get(&model, "/api/v1/model/nodes/n1/metrics/cpu/usage_rate?start=2030-01-01T00:03:00Z");
    assert_eq!(
        pretty.text(),
        "{\n  \"metrics\": [\n   {\n    \"timestamp\": \"2030-01-01T00:03:00Z\",\n    \"value\": 500\n   }\n  ],\n  \
         \"latestTimestamp\": \"2030-01-01T00:03:00Z\"\n }"
    );
    assert_eq!(
        get(&model, "/api/v1/model/nodes/n1/metrics/none").text(),
        "{\n  \"metrics\": [],\n  \"latestTimestamp\": \"0001-01-01T00:00:00Z\"\n }"
    );
}

#[test]
fn other_paths_and_methods_are_refused_as_heapster_did() {
    let model = model();
    for path in [
        "/api/v1/model",
        "/api/v1/model/",
        "/api/v1/model/none",
        "/api/v1/model/nodes/n1",
        "/api/v1/model/namespaces/shop/pods/web-0",
        "/api/v1/model/namespaces/shop/pod-list/web-0/metrics",
        "/api/v1/model/debug",
    ] {
        let answer = get(&model, path);
        assert_eq!((answer.status, answer.text()), (StatusCode::NOT_FOUND, "404: Page Not Found"), "{path}");
    }
    let post = Request::post("/api/v1/model/nodes").body(Body::empty()).unwrap();
    let answer = ask(&model, post);
    assert_eq!((answer.status, answer.text()), (StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"));
    let with = |name: &str, value: &str| {
        let request = Request::get("/api/v1/model/debug/allkeys").header(name, value);
        ask(&model, request.body(Body::empty()).unwrap())
    };
    for accept in ["text/html", "application/xml, text/*", "application/json;q=0"] {
        assert_eq!(with("accept", accept).status, StatusCode::NOT_ACCEPTABLE, "{accept}");
    }
    for accept in ["*/*", "text/html, application/json;q=0.5", "application/*", ""] {
        assert_eq!(with("accept", accept).status, StatusCode::OK, "{accept}");
    }
}

#[test]
fn long_answers_are_compressed_for_who_asks() {
    let model = model();
    let names = ["web-0"; 100].join(",");
    let target = format!("/api/v1/model/namespaces/shop/pod-list/{names}/metrics/memory/usage");
    let request = Request::get(&target).header("accept-encoding", "gzip").body(Body::empty()).unwrap();
    let compressed = ask(&model, request);
    assert_eq!(compressed.headers["content-encoding"], "gzip");
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&compressed.body[..]), &mut text).unwrap();
    let plain = get(&model, &target);
    assert!(!plain.headers.contains_key("content-encoding"));
    assert_eq!(text, plain.body);
}

#[test]
fn before_the_first_step_there_is_nothing() {
    let empty = std::sync::Arc::new(nodegauge::aggregate::model::Model::new(Default::default()));
    check(
        &empty,
        &[
            ("/api/v1/model/nodes", json!([])),
            ("/api/v1/model/namespaces", json!([])),
            ("/api/v1/model/metrics", json!([])),
            ("/api/v1/model/debug/allkeys", json!(["cluster"])),
            ("/api/v1/model/metrics/cpu/usage_rate", series(&[])),
        ],
    );
}
