//! `/apis/metrics/v1alpha1`, as `kubectl top` and the autoscaler asked Heapster.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::cluster::model;
use super::{check, get};

const ROOT: &str = "/apis/metrics/v1alpha1";

fn node(name: &str, time: &str) -> Value {
    json!({
        "metadata": {"name": name, "creationTimestamp": "2030-01-01T00:03:30Z"},
        "timestamp": time,
        "window": "1m0s",
        "usage": {"cpu": "500m", "memory": "800Mi"},
    })
}

fn web_0() -> Value {
    json!({
        "metadata": {"name": "web-0", "namespace": "shop", "creationTimestamp": "2030-01-01T00:03:30Z"},
        "timestamp": "2030-01-01T00:03:00Z",
        "window": "1m0s",
        "containers": [
            {"name": "main", "usage": {"cpu": "30m", "memory": "12Mi"}},
            {"name": "side", "usage": {"cpu": "5m", "memory": "4Mi"}},
        ],
    })
}

#[test]
fn what_kubectl_top_asked() {
    let [n1, n2] = [node("n1", "2030-01-01T00:03:00Z"), node("n2", "2030-01-01T00:02:00Z")];
    let at = |path: &str| format!("{ROOT}/{path}");
    check(
        &model(),
        &[
            (&at("nodes/?labelSelector="), json!({"metadata": {}, "items": [n1, n2]})),
            (&at("nodes/n1?labelSelector="), n1.clone()),
            (
                &at("namespaces/shop/pods/?labelSelector=instance%3Dweb-0"),
                json!({"metadata": {}, "items": [web_0()]}),
            ),
            (&at("pods?labelSelector=instance%3Dweb-0"), json!({"metadata": {}, "items": [web_0()]})),
            (&at("namespaces/shop/pods/web-0?labelSelector="), web_0()),
            // Nothing is null, as Go has it.
            (&at("pods?labelSelector=app%3Dnone"), json!({"metadata": {}, "items": null})),
            (&at("namespaces/none/pods"), json!({"metadata": {}, "items": null})),
        ],
    );
}

#[test]
fn errors_are_text() {
    let model = model();
    for (path, status) in [
        ("pods?labelSelector=a%3Db%3Dc", StatusCode::BAD_REQUEST),
        ("nodes/none", StatusCode::NOT_FOUND),
        ("namespaces/shop/pods/none", StatusCode::NOT_FOUND),
        ("none", StatusCode::NOT_FOUND),
        ("", StatusCode::NOT_FOUND),
    ] {
        let answer = get(&model, &format!("{ROOT}/{path}"));
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8", "{path}");
    }
}
