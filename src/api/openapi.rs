//! What the objects of `metrics.k8s.io` look like, in OpenAPI 2 and 3: the API server
//! merges it into its own, and `kubectl explain` reads it.

#![allow(clippy::indexing_slicing, reason = "documents are made here: an index adds to an object of JSON")]

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Body};
use super::discovery::{GROUP, TAG, VERSIONS};
use super::request::Asked;
use super::resource::no_resource;

/// Where schemas are named in each format.
const V2: &str = "#/definitions/";
const V3: &str = "#/components/schemas/";

/// Answers `/openapi/v2`.
pub fn v2(asked: &Asked) -> Answer {
    let of = |make: fn(&str, &str) -> Map<String, Value>| -> Map<String, Value> {
        VERSIONS.iter().flat_map(|version| make(version, V2)).collect()
    };
    let mut paths =
        of(|version, at| paths(version, at, |schema| json!({"description": "OK", "schema": schema})));
    for operations in paths.values_mut() {
        operations["get"]["produces"] = json!(["application/json"]);
        for parameter in operations["parameters"].as_array_mut().into_iter().flatten() {
            parameter["type"] = json!("string");
        }
    }
    tagged(
        asked,
        &json!({
            "swagger": "2.0",
            "info": {"title": "nodegauge", "version": env!("CARGO_PKG_VERSION")},
            "paths": paths,
            "definitions": of(schemas),
        }),
    )
}

/// Answers `/openapi/v3`, and below it the document of each version.
pub fn v3(asked: &Asked) -> Answer {
    match asked.segments().as_slice() {
        [] => {
            let tag = TAG.trim_matches('"');
            let link = |version: &str| {
                let path = format!("apis/{GROUP}/{version}");
                let link = json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={tag}")});
                (path, link)
            };
            tagged(asked, &json!({"paths": VERSIONS.map(link).into_iter().collect::<Map<_, _>>()}))
        }
        ["apis", GROUP, version] if VERSIONS.contains(version) => {
            let answer =
                |schema| json!({"description": "OK", "content": {"application/json": {"schema": schema}}});
            let mut paths = paths(version, V3, answer);
            for operations in paths.values_mut() {
                for parameter in operations["parameters"].as_array_mut().into_iter().flatten() {
                    parameter["schema"] = json!({"type": "string"});
                }
            }
            tagged(
                asked,
                &json!({
                    "openapi": "3.0.0",
                    "info": {"title": "nodegauge", "version": env!("CARGO_PKG_VERSION")},
                    "paths": paths,
                    "components": {"schemas": schemas(version, V3)},
                }),
            )
        }
        _ => no_resource(),
    }
}

/// An answer that changes with the build only.
fn tagged(asked: &Asked, document: &Value) -> Answer {
    let answer = Answer { tag: Some(TAG.to_owned()), ..Answer::kubernetes(StatusCode::OK, document) };
    if asked.known == TAG {
        return Answer { status: StatusCode::NOT_MODIFIED, body: Body::Whole(Vec::new()), ..answer };
    }
    answer
}

fn name(version: &str, kind: &str) -> String {
    format!("io.k8s.metrics.pkg.apis.metrics.{version}.{kind}")
}

fn kind(version: &str, kind: &str) -> Value {
    json!({"group": GROUP, "version": version, "kind": kind})
}

/// The objects of a version; `at` is where a reference finds them.
fn schemas(version: &str, at: &str) -> Map<String, Value> {
    let text = |description: &str| json!({"type": "string", "description": description});
    let time =
        |description: &str| json!({"type": "string", "format": "date-time", "description": description});
    let usage = json!({
        "type": "object",
        "description": "what is used, by resource: cpu in cores over the window, memory in bytes of working set",
        "additionalProperties": {"type": "string"},
    });
    let metadata = |description: &str| json!({"type": "object", "description": description});
    let own = |kind: &str| json!({"$ref": format!("{at}{}", name(version, kind))});
    let object = |about: &str, kind_of: Option<&str>, required: &[&str], own: Value| {
        let mut schema = json!({
            "description": about, "type": "object", "required": required, "properties": own,
        });
        if let Some(named) = kind_of {
            schema["properties"]["apiVersion"] = text("version of this schema");
            schema["properties"]["kind"] = text("kind of this object");
            schema["x-kubernetes-group-version-kind"] = json!([kind(version, named)]);
        }
        schema
    };
    let measured = |more: (&str, Value)| {
        let mut fields = json!({
            "metadata": metadata("name, namespace and labels of what was measured"),
            "timestamp": time("end of the window"),
            "window": text("time over which the CPU was measured"),
        });
        fields[more.0] = more.1;
        fields
    };
    let list = |about: &str, of: &str| {
        let items = json!({"type": "array", "items": own(of), "description": "one for each object"});
        let fields = json!({"metadata": metadata("of the list"), "items": items});
        object(about, Some(&format!("{of}List")), &["items"], fields)
    };
    let containers =
        json!({"type": "array", "items": own("ContainerMetrics"), "description": "those that run"});
    let named = [
        (
            "NodeMetrics",
            object(
                "what a node uses",
                Some("NodeMetrics"),
                &["timestamp", "window", "usage"],
                measured(("usage", usage.clone())),
            ),
        ),
        ("NodeMetricsList", list("what nodes use", "NodeMetrics")),
        (
            "ContainerMetrics",
            object(
                "what a container uses",
                None,
                &["name", "usage"],
                json!({"name": text("its name in the pod"), "usage": usage}),
            ),
        ),
        (
            "PodMetrics",
            object(
                "what the containers of a pod use",
                Some("PodMetrics"),
                &["timestamp", "window", "containers"],
                measured(("containers", containers)),
            ),
        ),
        ("PodMetricsList", list("what pods use", "PodMetrics")),
    ];
    named.into_iter().map(|(kind, schema)| (name(version, kind), schema)).collect()
}

/// The paths of a version; `answer` makes what is answered of a schema.
fn paths(version: &str, at: &str, answer: impl Fn(Value) -> Value) -> Map<String, Value> {
    let root = format!("/apis/{GROUP}/{version}");
    let path = |below: &str, object: &str, list: bool| {
        let (action, shown) =
            if list { ("list", format!("{object}List")) } else { ("get", object.to_owned()) };
        let everywhere = if below == "/pods" { "ForAllNamespaces" } else { "" };
        let namespaced = if below.starts_with("/namespaces") { "Namespaced" } else { "" };
        let id = format!("{action}Metrics{version}{namespaced}{object}{everywhere}");
        let parameters = ["namespace", "name"].into_iter().filter(|p| below.contains(&format!("{{{p}}}")));
        let parameters: Vec<_> =
            parameters.map(|p| json!({"name": p, "in": "path", "required": true})).collect();
        let operations = json!({
            "get": {
                "operationId": id,
                "description": format!("{action} objects of kind {object}"),
                "responses": {"200": answer(json!({"$ref": format!("{at}{}", name(version, &shown))}))},
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": kind(version, object),
            },
            "parameters": parameters,
        });
        (format!("{root}{below}"), operations)
    };
    [
        path("/nodes", "NodeMetrics", true),
        path("/nodes/{name}", "NodeMetrics", false),
        path("/pods", "PodMetrics", true),
        path("/namespaces/{namespace}/pods", "PodMetrics", true),
        path("/namespaces/{namespace}/pods/{name}", "PodMetrics", false),
    ]
    .into_iter()
    .collect()
}
