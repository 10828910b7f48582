//! `/apis/metrics.k8s.io`: what machines and pods use now, for `kubectl top` and
//! the autoscalers. All versions have the same schema.
//!
//! Answers come from the newest push of each machine, not from slots, and say
//! truthfully when it was measured and over which window the CPU was. A pod one
//! of whose running containers has no rate yet is left out, since a sum without
//! it would be wrong; a container that does not run is not in its pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::answer::{Answer, parameter};
use super::discovery::{self, GROUP, VERSIONS};
use super::heapster::time::Stamp;
use super::quantity;
use super::request::Asked;
use super::selector::Selector;
use crate::aggregate::model::{Model, NodeUse, PodUse};
use crate::aggregate::node::{Labels, Usage};

/// Name and labels of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Its name.
    pub name: Arc<str>,
    /// Its namespace; empty for a machine.
    #[serde(skip_serializing_if = "is_empty")]
    pub namespace: Arc<str>,
    /// When the answer was made, as with metrics-server and Heapster: it means nothing.
    pub creation_timestamp: Stamp,
    /// Its labels.
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "as_map")]
    pub labels: Labels,
}

fn as_map<S: Serializer>(labels: &[(Arc<str>, Arc<str>)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(labels.iter().map(|(key, value)| (key, value)))
}

fn is_empty(text: &str) -> bool {
    text.is_empty()
}

/// Use of resources, as quantities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quantities {
    cpu: String,
    memory: String,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Container {
    name: Arc<str>,
    usage: Quantities,
}

/// A machine or a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<String>,
    metadata: Metadata,
    timestamp: Stamp,
    window: String,
    #[serde(flatten)]
    figures: Figures,
    /// For tables: what containers use together.
    #[serde(skip)]
    total: (u64, u64),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Figures {
    Usage(Quantities),
    Containers(Vec<Container>),
}

/// CPU and memory of what has both; what is not known of one is not told of the other.
fn both(usage: Usage) -> Option<(u64, u64, u64)> {
    Some((usage.cpu_nano?, usage.memory?, usage.window_ns?))
}

/// Whole seconds, as times of objects are.
fn seconds(ms: u64) -> Stamp {
    Stamp(ms / 1_000 * 1_000)
}

/// How one of the two APIs of resource metrics writes objects.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// When the answer is made, milliseconds since the epoch.
    pub now_ms: u64,
    /// CPU in whole thousandths of a core, truncated, as Heapster has it.
    pub millicores: bool,
    /// With the labels of the objects.
    pub labels: bool,
    /// A container that does not run keeps its pod out, as with Heapster.
    pub all_containers: bool,
}

impl Style {
    fn metadata(&self, namespace: &Arc<str>, name: &Arc<str>, labels: &Labels) -> Metadata {
        let labels = if self.labels { Arc::clone(labels) } else { Labels::default() };
        Metadata {
            name: Arc::clone(name),
            namespace: Arc::clone(namespace),
            creation_timestamp: seconds(self.now_ms),
            labels,
        }
    }

    fn quantities(&self, cpu_nano: u64, memory: u64) -> Quantities {
        let cpu_nano = if self.millicores { cpu_nano / 1_000_000 * 1_000_000 } else { cpu_nano };
        Quantities { cpu: quantity::cpu(cpu_nano), memory: quantity::bytes(memory) }
    }

    /// A machine, if it told both of its figures.
    pub fn node(&self, node: &NodeUse) -> Option<Metrics> {
        let (cpu, memory, window_ns) = both(node.usage)?;
        Some(Metrics {
            kind: None,
            api_version: None,
            metadata: self.metadata(&Arc::from(""), &node.name, &node.labels),
            timestamp: seconds(node.sampled_ms),
            window: quantity::duration(window_ns),
            figures: Figures::Usage(self.quantities(cpu, memory)),
            total: (cpu, memory),
        })
    }

    /// A pod, if enough is known of its containers.
    pub fn pod(&self, pod: &PodUse) -> Option<Metrics> {
        let mut containers = Vec::with_capacity(pod.containers.len());
        let (mut longest, mut total) = (0, (0_u64, 0_u64));
        for (name, usage) in &pod.containers {
            if usage.memory.is_none() && !self.all_containers {
                continue;
            }
            let (cpu, memory, window_ns) = both(*usage)?;
            longest = longest.max(window_ns);
            total = (total.0.saturating_add(cpu), total.1.saturating_add(memory));
            containers.push(Container { name: Arc::clone(name), usage: self.quantities(cpu, memory) });
        }
        if containers.is_empty() {
            return None;
        }
        Some(Metrics {
            kind: None,
            api_version: None,
            metadata: self.metadata(&pod.namespace, &pod.pod, &pod.labels),
            timestamp: seconds(pod.sampled_ms),
            window: quantity::duration(longest),
            figures: Figures::Containers(containers),
            total,
        })
    }
}

/// Answers what is asked below `/apis/metrics.k8s.io`.
pub fn answer(model: &Arc<Model>, asked: &Asked, now_ms: u64) -> Answer {
    let segments = asked.segments();
    let [version, path @ ..] = segments.as_slice() else { return discovery::group() };
    let Some(version) = VERSIONS.into_iter().find(|known| known == version) else { return no_resource() };
    if asked.parameter("watch").is_some_and(|watch| !matches!(watch, "0" | "false")) {
        let message = "watch is not supported on resources of this group; accepted are get and list";
        return failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message, None);
    }
    let style = Style { now_ms, millicores: false, labels: true, all_containers: false };
    match path {
        [] => discovery::version(version),
        ["nodes"] => list(version, "NodeMetricsList", asked, |labels, fields| {
            let nodes = model.nodes_in_use(now_ms);
            let wanted = |n: &&NodeUse| labels.matches(&n.labels) && fields.matches_object("", &n.name);
            nodes.iter().filter(wanted).filter_map(|n| style.node(n)).collect()
        }),
        ["nodes", name] => {
            let found = model.node_in_use(name, now_ms).and_then(|node| style.node(&node));
            one(version, "NodeMetrics", "nodes", name, found, asked)
        }
        ["pods"] => list(version, "PodMetricsList", asked, |l, f| pods(model, None, style, l, f)),
        ["namespaces", namespace, "pods"] => list(version, "PodMetricsList", asked, |labels, fields| {
            pods(model, Some(namespace), style, labels, fields)
        }),
        ["namespaces", namespace, "pods", name] => {
            let found = model.pod_in_use(namespace, name, now_ms).and_then(|pod| style.pod(&pod));
            one(version, "PodMetrics", "pods", name, found, asked)
        }
        _ => no_resource(),
    }
}

/// Pods of a namespace or of all that the selectors select.
pub fn pods(
    model: &Model,
    namespace: Option<&str>,
    style: Style,
    labels: &Selector,
    fields: &Selector,
) -> Vec<Metrics> {
    let pods = model.pods_in_use(namespace, style.now_ms);
    let wanted =
        |pod: &&PodUse| labels.matches(&pod.labels) && fields.matches_object(&pod.namespace, &pod.pod);
    pods.iter().filter(wanted).filter_map(|pod| style.pod(pod)).collect()
}

fn list(
    version: &str,
    kind: &str,
    asked: &Asked,
    found: impl FnOnce(&Selector, &Selector) -> Vec<Metrics>,
) -> Answer {
    let labels = Selector::labels(asked.parameter("labelSelector").unwrap_or_default());
    let fields = Selector::fields(asked.parameter("fieldSelector").unwrap_or_default());
    let (labels, fields) = match (labels, fields) {
        (Ok(labels), Ok(fields)) => (labels, fields),
        (Err(wrong), _) => return bad_request(&format!("labelSelector: {wrong}")),
        (_, Err(wrong)) => return bad_request(&format!("fieldSelector: {wrong}")),
    };
    let items = found(&labels, &fields);
    if wants_table(&asked.accept) {
        return table(&items);
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct List<'a> {
        kind: &'a str,
        api_version: String,
        metadata: BTreeMap<(), ()>,
        items: Vec<Metrics>,
    }
    let (api_version, metadata) = (format!("{GROUP}/{version}"), BTreeMap::new());
    Answer::kubernetes(StatusCode::OK, &List { kind, api_version, metadata, items })
}

fn one(
    version: &str,
    kind: &'static str,
    resource: &str,
    name: &str,
    found: Option<Metrics>,
    asked: &Asked,
) -> Answer {
    match found {
        Some(found) if wants_table(&asked.accept) => table(&[found]),
        Some(found) => {
            let api_version = Some(format!("{GROUP}/{version}"));
            Answer::kubernetes(StatusCode::OK, &Metrics { kind: Some(kind), api_version, ..found })
        }
        None => {
            let message = format!("{resource}.{GROUP} {name:?} not found");
            let details = json!({"name": name, "group": GROUP, "kind": resource});
            failure(StatusCode::NOT_FOUND, "NotFound", &message, Some(details))
        }
    }
}

/// Whether a client asks for a table before all else that there is.
fn wants_table(accept: &str) -> bool {
    accept.split(',').next().is_some_and(|first| {
        parameter(first, "as") == Some("Table")
            && parameter(first, "g") == Some("meta.k8s.io")
            && parameter(first, "v") == Some("v1")
    })
}

/// Objects as `kubectl get` shows them.
fn table(items: &[Metrics]) -> Answer {
    let column = |name: &str, format: &str, description: &str| {
        json!({
            "name": name, "type": "string", "format": format, "description": description, "priority": 0,
        })
    };
    let row = |item: &Metrics| {
        let (cpu, memory) = item.total;
        json!({
            "cells": [item.metadata.name, quantity::cpu(cpu), quantity::bytes(memory), item.window],
            "object": {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": item.metadata,
            },
        })
    };
    let rows: Vec<Value> = items.iter().map(row).collect();
    Answer::kubernetes(
        StatusCode::OK,
        &json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": {},
            "columnDefinitions": [
                column("Name", "name", "name of the object"),
                column("cpu", "", "CPU used over the window, cores"),
                column("memory", "", "working set, bytes"),
                column("Window", "", "time over which the CPU was measured"),
            ],
            "rows": rows,
        }),
    )
}

/// Says as Kubernetes does that a request goes no further.
pub fn refusal(status: StatusCode, message: &str) -> Response {
    let reason = match status {
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::PAYLOAD_TOO_LARGE => "RequestEntityTooLarge",
        _ => "ServiceUnavailable",
    };
    failure(status, reason, message, None).into_response(false)
}

/// Says as Kubernetes does that something went wrong.
pub fn failure(status: StatusCode, reason: &str, message: &str, details: Option<Value>) -> Answer {
    let mut document = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": status.as_u16(),
    });
    if let (Value::Object(fields), Some(details)) = (&mut document, details) {
        fields.insert("details".into(), details);
    }
    Answer::kubernetes(status, &document)
}

fn bad_request(message: &str) -> Answer {
    failure(StatusCode::BAD_REQUEST, "BadRequest", message, None)
}

/// There is no such thing here.
pub fn no_resource() -> Answer {
    let message = "the server could not find the requested resource";
    failure(StatusCode::NOT_FOUND, "NotFound", message, None)
}
