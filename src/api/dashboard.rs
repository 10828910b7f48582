//! `/api/v1/dashboard`: what the Kubernetes Dashboard asks its metrics scraper for.
//!
//! | path below the root | answer |
//! |---|---|
//! | `nodes/N/metrics/WHAT/…` | one item |
//! | `namespaces/NS/pod-list/P,P/metrics/WHAT/…` | an item for each pod that has points |
//!
//! WHAT is `cpu`, in thousandths of a core; anything else is memory: the working
//! set, bytes. Without points `items` is `null`, as the Dashboard is used to.

use std::sync::Arc;

use serde::Serialize;

use super::answer::Answer;
use super::heapster::time::Stamp;
use super::request::Asked;
use crate::aggregate::model::{Model, Subject};
use crate::push::batch::{MetricId, Value, metric};

#[derive(Debug, Serialize)]
struct List<'a> {
    items: Option<Vec<Item<'a>>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    data_points: [(); 0],
    metric_points: Vec<Point>,
    metric_name: &'a str,
    uids: [&'a str; 1],
}

#[derive(Debug, Serialize)]
struct Point {
    timestamp: Stamp,
    value: u64,
}

/// Answers what is asked below `/api/v1/dashboard`.
pub fn answer(model: &Arc<Model>, asked: &Asked, _now_ms: u64) -> Answer {
    match asked.segments().as_slice() {
        ["nodes", node, "metrics", what, ..] => {
            list([*node], what, |node| points(model, &Subject::Node(node), what))
        }
        ["namespaces", namespace, "pod-list", pods, "metrics", what, ..] => {
            let namespace: Arc<str> = Arc::from(*namespace);
            let of = |pod| points(model, &Subject::Pod(Arc::clone(&namespace), pod), what);
            list(pods.split(','), what, of)
        }
        _ => Answer::no_page(),
    }
}

fn list<'a>(
    names: impl IntoIterator<Item = &'a str>,
    what: &'a str,
    points: impl Fn(Arc<str>) -> Vec<Point>,
) -> Answer {
    let metric_name = if what == "cpu" { "cpu" } else { "memory" };
    let item = |name: &'a str| {
        let metric_points = points(Arc::from(name));
        Item { data_points: [], metric_points, metric_name, uids: [name] }
    };
    let items: Vec<_> = names.into_iter().map(item).filter(|item| !item.metric_points.is_empty()).collect();
    Answer::compact(&List { items: Some(items).filter(|items| !items.is_empty()) })
}

fn points(model: &Model, subject: &Subject, what: &str) -> Vec<Point> {
    let id = if what == "cpu" { MetricId::CpuUsageRate } else { MetricId::MemoryWorkingSet };
    let values = metric(id.into()).map(|metric| model.series(subject, metric, "")).unwrap_or_default();
    let point = |(time, value)| match value {
        Value::Integer(value) => Some(Point { timestamp: Stamp(time), value }),
        Value::Double(_) => None,
    };
    values.into_iter().filter_map(point).collect()
}
