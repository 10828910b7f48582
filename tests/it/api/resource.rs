//! `/apis/metrics.k8s.io`, and what is asked to find it.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use nodegauge::aggregate::model::{Model, Options};
use serde_json::{Value, json};

use super::cluster::{self, minute, model};
use super::{Answer, ask, ask_at, check, get};

const ROOT: &str = "/apis/metrics.k8s.io";

fn container(name: &str, cpu: &str, memory: &str) -> Value {
    json!({"name": name, "usage": {"cpu": cpu, "memory": memory}})
}

/// The two pods at the end of their last pushes, asked at 00:03:30.
fn web_0() -> Value {
    json!({
        "metadata": {
            "name": "web-0", "namespace": "shop", "creationTimestamp": "2030-01-01T00:03:30Z",
            "labels": {"app": "web", "instance": "web-0"},
        },
        "timestamp": "2030-01-01T00:03:00Z",
        "window": "1m0s",
        "containers": [container("main", "30m", "12Mi"), container("side", "5m", "4Mi")],
    })
}

fn web_1() -> Value {
    json!({
        "metadata": {
            "name": "web-1", "namespace": "shop", "creationTimestamp": "2030-01-01T00:03:30Z",
            "labels": {"app": "web", "instance": "web-1"},
        },
        "timestamp": "2030-01-01T00:02:00Z",
        "window": "1m0s",
        "containers": [container("main", "40m", "19Mi")],
    })
}

fn node(name: &str, time: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "creationTimestamp": "2030-01-01T00:03:30Z", "labels": {"kubernetes.io/os": "linux"},
        },
        "timestamp": time,
        "window": "1m0s",
        "usage": {"cpu": "500m", "memory": "800Mi"},
    })
}

fn of_kind(kind: &str, version: &str, mut object: Value) -> Value {
    object["kind"] = kind.into();
    object["apiVersion"] = format!("metrics.k8s.io/{version}").into();
    object
}

fn list(kind: &str, version: &str, items: &[Value]) -> Value {
    of_kind(kind, version, json!({"metadata": {}, "items": items}))
}

#[test]
fn every_version_lists_and_gets() {
    let model = model();
    let [n1, n2] = [node("n1", "2030-01-01T00:03:00Z"), node("n2", "2030-01-01T00:02:00Z")];
    for version in ["v1", "v1beta1", "v1alpha1"] {
        let at = |path: &str| format!("{ROOT}/{version}/{path}");
        let nodes = list("NodeMetricsList", version, &[n1.clone(), n2.clone()]);
        let pods = list("PodMetricsList", version, &[web_0(), web_1()]);
        check(
            &model,
            &[
                (&at("nodes"), nodes.clone()),
                (&at("nodes/"), nodes),
                (&at("nodes/n1"), of_kind("NodeMetrics", version, n1.clone())),
                (&at("pods"), pods.clone()),
                (&at("pods?limit=500&resourceVersion=0"), pods.clone()),
                (&at("namespaces/shop/pods"), pods),
                (&at("namespaces/none/pods"), list("PodMetricsList", version, &[])),
                (&at("namespaces/shop/pods/web-1"), of_kind("PodMetrics", version, web_1())),
            ],
        );
    }
}

#[test]
fn selectors_choose() {
    let model = model();
    let chosen = |query: &str| {
        let found = get(&model, &format!("{ROOT}/v1beta1/pods?{query}")).json();
        let items = found["items"].as_array().unwrap().clone();
        items.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (query, expected) in [
        ("labelSelector=", &["web-0", "web-1"][..]),
        ("labelSelector=app%3Dweb", &["web-0", "web-1"]),
        ("labelSelector=app%3Dweb%2Cinstance+in+%28web-1%2Cx%29", &["web-1"]),
        ("labelSelector=instance!%3Dweb-1", &["web-0"]),
        ("labelSelector=!app", &[]),
        ("fieldSelector=metadata.name%3Dweb-1", &["web-1"]),
        ("fieldSelector=metadata.namespace!%3Dshop", &[]),
        ("labelSelector=app&fieldSelector=metadata.name!%3Dweb-1", &["web-0"]),
    ] {
        assert_eq!(chosen(query), expected, "{query}");
    }
    let nodes = get(&model, &format!("{ROOT}/v1/nodes?labelSelector=kubernetes.io/os%3Dwindows")).json();
    assert_eq!(nodes["items"], json!([]));
    for query in ["labelSelector=a%3Db%3Dc", "fieldSelector=spec.nodeName%3Dn1"] {
        let refused = get(&model, &format!("{ROOT}/v1/pods?{query}"));
        assert_eq!(status(&refused, StatusCode::BAD_REQUEST)["reason"], "BadRequest", "{query}");
    }
}

/// The `Status` of a failure.
fn status(answer: &Answer, expected: StatusCode) -> Value {
    assert_eq!(answer.status, expected, "{}", answer.text());
    let document: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&document["kind"], &document["status"]), (&json!("Status"), &json!("Failure")));
    assert_eq!(document["code"], expected.as_u16());
    document
}

#[test]
fn what_is_not_there_is_not_found() {
    let model = model();
    for (path, resource, name) in [
        ("nodes/none", "nodes", "none"),
        ("namespaces/shop/pods/none", "pods", "none"),
        ("namespaces/none/pods/web-0", "pods", "web-0"),
    ] {
        let document = status(&get(&model, &format!("{ROOT}/v1beta1/{path}")), StatusCode::NOT_FOUND);
        assert_eq!(document["details"], json!({"name": name, "group": "metrics.k8s.io", "kind": resource}));
        assert_eq!(document["message"], format!("{resource}.metrics.k8s.io \"{name}\" not found"));
    }
    for path in ["v2", "v1/services", "v1/namespaces", "v1/pods/web-0", "v1/nodes/n1/x"] {
        assert_eq!(
            status(&get(&model, &format!("{ROOT}/{path}")), StatusCode::NOT_FOUND)["reason"],
            "NotFound",
            "{path}"
        );
    }
    let post = Request::post(format!("{ROOT}/v1/nodes")).body(Body::empty()).unwrap();
    assert_eq!(status(&ask(&model, post), StatusCode::METHOD_NOT_ALLOWED)["reason"], "MethodNotAllowed");
}

#[test]
fn a_pod_without_a_whole_answer_has_none() {
    // In its first minute web-0 has memory, and no rate of CPU yet.
    let model = Arc::new(Model::new(Options::default()));
    model.ingest(&cluster::n1(1), minute(1) + 1_000);
    let pods =
        |path: &str| ask_at(&model, Request::get(path).body(Body::empty()).unwrap(), || minute(1) + 2_000);
    let path = format!("{ROOT}/v1beta1/namespaces/shop/pods");
    assert_eq!(pods(&path).json()["items"], json!([]));
    assert_eq!(pods(&format!("{path}/web-0")).status, StatusCode::NOT_FOUND);
    // Answers come from the newest push: no slot needs to be closed.
    assert_eq!(model.closed_ms(), None);
    assert_eq!(pods(&format!("{ROOT}/v1beta1/nodes")).json()["items"].as_array().unwrap().len(), 1);
    model.ingest(&cluster::n1(2), minute(1) + 1_500);
    assert_eq!(pods(&path).json()["items"][0]["containers"].as_array().unwrap().len(), 2);
}

#[test]
fn containers_that_do_not_run_are_left_out() {
    let model = Arc::new(Model::new(Options::default()));
    model.ingest(&cluster::n1_with(3, None), minute(3) + 1_000);
    let found = get(&model, &format!("{ROOT}/v1/namespaces/shop/pods/web-0")).json();
    assert_eq!(found["containers"], json!([container("main", "30m", "12Mi")]));
    // Heapster left such a pod out.
    let older = get(&model, "/apis/metrics/v1alpha1/namespaces/shop/pods/web-0");
    assert_eq!(older.status, StatusCode::NOT_FOUND);
}

#[test]
fn figures_of_a_silent_machine_are_not_shown() {
    let model = model();
    let at = |path: &str, clock: nodegauge::api::Clock| {
        let request = Request::get(format!("{ROOT}/v1/{path}")).body(Body::empty()).unwrap();
        ask_at(&model, request, clock)
    };
    // Measured at 00:02:00.005; three steps of a minute later it is too old.
    let names = |answer: &Answer| answer.json()["items"].as_array().unwrap().len();
    assert_eq!(names(&at("nodes", || minute(5))), 2);
    assert_eq!(names(&at("nodes", || minute(5) + 6)), 1);
    assert_eq!(names(&at("pods", || minute(5) + 6)), 1);
    assert_eq!(at("namespaces/shop/pods/web-1", || minute(5) + 6).status, StatusCode::NOT_FOUND);
}

#[test]
fn tables_for_who_asks_for_them() {
    let model = model();
    let table = |path: &str, accept: &str| {
        let request = Request::get(format!("{ROOT}/v1beta1/{path}")).header("accept", accept);
        ask(&model, request.body(Body::empty()).unwrap()).json()
    };
    let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
    let pods = table("namespaces/shop/pods", kubectl);
    assert_eq!((&pods["kind"], &pods["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let columns: Vec<_> =
        pods["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(columns, ["Name", "cpu", "memory", "Window"]);
    let rows = pods["rows"].as_array().unwrap();
    assert_eq!(rows[0]["cells"], json!(["web-0", "35m", "16Mi", "1m0s"]));
    assert_eq!(rows[0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(rows[0]["object"]["metadata"], web_0()["metadata"]);
    assert_eq!(table("nodes/n1", kubectl)["rows"][0]["cells"], json!(["n1", "500m", "800Mi", "1m0s"]));
    for accept in ["application/json", "application/json,application/json;as=Table;v=v1;g=meta.k8s.io"] {
        assert_eq!(table("nodes", accept)["kind"], "NodeMetricsList", "{accept}");
    }
    let top = table("nodes", "application/vnd.kubernetes.protobuf, */*");
    assert_eq!(top["kind"], "NodeMetricsList");
}

#[test]
fn the_group_is_found() {
    let resources = |version: &str| {
        json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": format!("metrics.k8s.io/{version}"),
            "resources": [
                {"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics",
                 "verbs": ["get", "list"]},
                {"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics",
                 "verbs": ["get", "list"]},
            ],
        })
    };
    let version =
        |version: &str| json!({"groupVersion": format!("metrics.k8s.io/{version}"), "version": version});
    let mut group = json!({
        "name": "metrics.k8s.io",
        "versions": [version("v1"), version("v1beta1"), version("v1alpha1")],
        "preferredVersion": version("v1"),
    });
    let model = model();
    check(
        &model,
        &[
            ("/apis", json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]})),
            (&format!("{ROOT}/v1"), resources("v1")),
            (&format!("{ROOT}/v1beta1/"), resources("v1beta1")),
            (&format!("{ROOT}/v1alpha1"), resources("v1alpha1")),
        ],
    );
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    check(&model, &[(ROOT, group.clone()), (&format!("{ROOT}/"), group)]);
}

#[test]
fn the_group_is_found_by_the_aggregation_layer() {
    let model = model();
    let media = |version: &str| {
        format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList")
    };
    let ask = |accept: &str, known: &str| {
        let request = Request::get("/apis").header("accept", accept).header("if-none-match", known);
        ask(&model, request.body(Body::empty()).unwrap())
    };
    for version in ["v2", "v2beta1"] {
        let accept = format!("{},application/json", media(version));
        let answer = ask(&accept, "");
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers["content-type"], media(version));
        let document: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(document["kind"], "APIGroupDiscoveryList");
        assert_eq!(document["apiVersion"], format!("apidiscovery.k8s.io/{version}"));
        let group = &document["items"][0];
        assert_eq!(group["metadata"]["name"], "metrics.k8s.io");
        let beta = &group["versions"][1];
        assert_eq!((&beta["version"], &beta["freshness"]), (&json!("v1beta1"), &json!("Current")));
        assert_eq!(
            beta["resources"][1],
            json!({
                "resource": "pods",
                "responseKind": {"group": "metrics.k8s.io", "version": "v1beta1", "kind": "PodMetrics"},
                "scope": "Namespaced",
                "singularResource": "",
                "verbs": ["get", "list"],
            })
        );
        let tag = answer.headers["etag"].to_str().unwrap();
        let again = ask(&accept, tag);
        assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
    }
    let other = ask(&format!("{},application/json", media("v3")), "");
    assert_eq!(other.json()["kind"], "APIGroupList");
}
