//! `/apis/metrics/v1alpha1`: the resource metrics that `kubectl top` and the
//! autoscaler asked Heapster for before there was `metrics.k8s.io`.
//!
//! The same figures as [`resource`](crate::api::resource), with Heapster's shape:
//! no kind, `null` instead of an empty list, CPU in thousandths of a core, errors
//! as text. The window is the true one, which was always `1m0s`; a pod without
//! figures is 404, also one that is not known, which was 500.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use serde::Serialize;

use crate::aggregate::model::{Model, NodeUse};
use crate::api::answer::Answer;
use crate::api::request::Asked;
use crate::api::resource::{Metrics, Style, pods};
use crate::api::selector::Selector;

/// Answers what is asked below `/apis/metrics/v1alpha1`.
pub fn answer(model: &Arc<Model>, asked: &Asked, now_ms: u64) -> Answer {
    let style = Style { now_ms, millicores: true, labels: false, all_containers: true };
    let everything = Selector::default();
    match asked.segments().as_slice() {
        ["nodes"] => list(asked, |labels| {
            let nodes = model.nodes_in_use(now_ms);
            let wanted = |node: &&NodeUse| labels.matches(&node.labels);
            nodes.iter().filter(wanted).filter_map(|node| style.node(node)).collect()
        }),
        ["nodes", name] => {
            one(model.node_in_use(name, now_ms).and_then(|node| style.node(&node)), "node", name)
        }
        ["pods"] => list(asked, |labels| pods(model, None, style, labels, &everything)),
        ["namespaces", namespace, "pods"] => {
            list(asked, |labels| pods(model, Some(namespace), style, labels, &everything))
        }
        ["namespaces", namespace, "pods", name] => {
            let found = model.pod_in_use(namespace, name, now_ms).and_then(|pod| style.pod(&pod));
            one(found, "pod", name)
        }
        _ => Answer::no_page(),
    }
}

fn list(asked: &Asked, found: impl FnOnce(&Selector) -> Vec<Metrics>) -> Answer {
    #[derive(Serialize)]
    struct List {
        metadata: BTreeMap<(), ()>,
        items: Option<Vec<Metrics>>,
    }
    match Selector::labels(asked.parameter("labelSelector").unwrap_or_default()) {
        Ok(labels) => {
            let items = Some(found(&labels)).filter(|items| !items.is_empty());
            Answer::pretty(&List { metadata: BTreeMap::new(), items })
        }
        Err(wrong) => Answer::text(StatusCode::BAD_REQUEST, &format!("labelSelector: {wrong}")),
    }
}

fn one(found: Option<Metrics>, what: &str, name: &str) -> Answer {
    match found {
        Some(found) => Answer::pretty(&found),
        None => {
            let shown: String = name.chars().take(80).collect();
            Answer::text(StatusCode::NOT_FOUND, &format!("no metrics of {what} {shown}"))
        }
    }
}
