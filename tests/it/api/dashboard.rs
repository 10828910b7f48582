//! `/api/v1/dashboard`, as the Kubernetes Dashboard asks its scraper.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::cluster::{MIB, model};
use super::{check, get};

const ROOT: &str = "/api/v1/dashboard";

fn item(name: &str, metric: &str, points: &[(u64, u64)]) -> Value {
    let point =
        |(at, value): &(u64, u64)| json!({"timestamp": format!("2030-01-01T00:0{at}:00Z"), "value": value});
    let points: Vec<_> = points.iter().map(point).collect();
    json!({"dataPoints": [], "metricPoints": points, "metricName": metric, "uids": [name]})
}

#[test]
fn what_the_dashboard_asks() {
    let items = |items: &[Value]| json!({ "items": items });
    let at = |path: &str| format!("{ROOT}/{path}");
    let web_0 = item("web-0", "cpu", &[(2, 25), (3, 35)]);
    let web_1 = item("web-1", "cpu", &[(1, 40), (2, 40)]);
    check(
        &model(),
        &[
            (
                &at("nodes/n1/metrics/cpu/usage_rate"),
                items(&[item("n1", "cpu", &[(1, 500), (2, 500), (3, 500)])]),
            ),
            (
                &at("nodes/n2/metrics/memory/usage"),
                items(&[item("n2", "memory", &[(1, 800 * MIB), (2, 800 * MIB)])]),
            ),
            (&at("namespaces/shop/pod-list/web-1,none,web-0/metrics/cpu/usage_rate"), items(&[web_1, web_0])),
            (
                &at("namespaces/shop/pod-list/web-0/metrics/memory/usage"),
                items(&[item("web-0", "memory", &[(1, 14 * MIB), (2, 15 * MIB), (3, 16 * MIB)])]),
            ),
            (&at("nodes/none/metrics/cpu/usage_rate"), json!({"items": null})),
            (&at("namespaces/shop/pod-list/none/metrics/memory/usage"), json!({"items": null})),
        ],
    );
}

#[test]
fn other_paths_are_not_there() {
    let model = model();
    for path in ["", "nodes", "nodes/n1/metrics", "namespaces/shop/pods"] {
        assert_eq!(get(&model, &format!("{ROOT}/{path}")).status, StatusCode::NOT_FOUND, "{path}");
    }
}
