//! `/api/v1/model`: lists of what there is, names of metrics, and series.
//!
//! | path below the root | answer |
//! |---|---|
//! | `metrics` | names of the cluster's metrics |
//! | `nodes`, `namespaces` | names; of nodes those of their hosts, and both names are taken |
//! | `nodes/N/freecontainers`, `namespaces/NS/pods`, `namespaces/NS/pods/P/containers` | names |
//! | any of these and `/NAME/metrics` | names of its metrics |
//! | any `…/metrics` and `/METRIC` | series; `start`, `end`, `labels`; METRIC may be `custom/PRODUCER/FAMILY` |
//! | `namespaces/NS/pod-list/P,P/metrics/METRIC` | series of each, in this order |
//! | `debug/allkeys` | every key |
//!
//! What is not known has an empty series, not 404.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Serialize;

use super::time::{Stamp, parse};
use crate::aggregate::model::{Model, Subject};
use crate::api::answer::Answer;
use crate::api::request::Asked;
use crate::push::batch::{METRICS, Metric, Value};

/// Names that Heapster once had, and the autoscaler and the Dashboard still ask for.
const ALIASES: [(&str, &str); 5] = [
    ("cpu-usage", "cpu/usage_rate"),
    ("cpu-limit", "cpu/limit"),
    ("memory-limit", "memory/limit"),
    ("memory-usage", "memory/usage"),
    ("memory-working", "memory/working_set"),
];

/// The metric that a path names.
pub(super) fn named(name: &str) -> Option<&'static Metric> {
    let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
    METRICS.iter().find(|metric| metric.name == name)
}

/// A series, as Heapster calls its parts.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Series {
    metrics: Vec<Point>,
    latest_timestamp: Stamp,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Point {
    timestamp: Stamp,
    value: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    float_value: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct SeriesList {
    items: Vec<Series>,
}

/// Answers what is asked below `/api/v1/model`.
pub fn answer(model: &Arc<Model>, asked: &Asked, _now_ms: u64) -> Answer {
    let name = |text: &str| -> Arc<str> { Arc::from(text) };
    match asked.segments().as_slice() {
        ["metrics", metric @ ..] => metrics(model, &Subject::Cluster, metric, asked),
        ["nodes"] => {
            // By the names of their hosts, as Heapster lists them.
            let mut hosts: Vec<_> = model.listed_nodes().iter().map(|node| model.hostname(node)).collect();
            hosts.sort();
            Answer::pretty(&hosts)
        }
        ["nodes", node, "metrics", metric @ ..] => {
            metrics(model, &Subject::Node(model.node_called(node)), metric, asked)
        }
        ["nodes", node, "freecontainers"] => {
            Answer::pretty(&model.system_containers(&model.node_called(node)))
        }
        ["nodes", node, "freecontainers", container, "metrics", metric @ ..] => {
            metrics(model, &Subject::System(model.node_called(node), name(container)), metric, asked)
        }
        ["namespaces"] => Answer::pretty(&model.namespaces()),
        ["namespaces", namespace, "metrics", metric @ ..] => {
            metrics(model, &Subject::Namespace(name(namespace)), metric, asked)
        }
        ["namespaces", namespace, "pods"] => Answer::pretty(&model.pods(namespace)),
        ["namespaces", namespace, "pods", pod, "metrics", metric @ ..] => {
            metrics(model, &Subject::Pod(name(namespace), name(pod)), metric, asked)
        }
        ["namespaces", namespace, "pods", pod, "containers"] => {
            Answer::pretty(&model.containers(namespace, pod))
        }
        ["namespaces", namespace, "pods", pod, "containers", container, "metrics", metric @ ..] => {
            let subject = Subject::Container(name(namespace), name(pod), name(container));
            metrics(model, &subject, metric, asked)
        }
        ["namespaces", namespace, "pod-list", pods, "metrics", first, rest @ ..] => {
            let metric = path_of(first, rest);
            pod_list(model, namespace, pods, &metric, asked)
        }
        ["debug", "allkeys"] => Answer::pretty(&keys(model)),
        _ => Answer::no_page(),
    }
}

/// Names of metrics have slashes.
fn path_of(first: &str, rest: &[&str]) -> String {
    rest.iter().fold(first.to_owned(), |path, segment| path + "/" + segment)
}

/// The series named by what stands behind `metrics`, or the names there are.
fn metrics(model: &Model, subject: &Subject, path: &[&str], asked: &Asked) -> Answer {
    let [first, rest @ ..] = path else {
        let mut names: Vec<Arc<str>> = model.metrics(subject).iter().map(|m| Arc::from(m.name)).collect();
        names.extend(model.names_of_their_own(subject).into_iter().map(Arc::from));
        names.extend(model.customs().names(subject, model.closed_ms().unwrap_or(0)));
        names.sort();
        names.dedup();
        return Answer::pretty(&names);
    };
    match Range::of(asked) {
        Ok(range) => Answer::pretty(&range.series(model, subject, &path_of(first, rest))),
        Err(refusal) => refusal,
    }
}

fn pod_list(model: &Model, namespace: &str, pods: &str, metric: &str, asked: &Asked) -> Answer {
    let range = match Range::of(asked) {
        Ok(range) => range,
        Err(refusal) => return refusal,
    };
    let namespace: Arc<str> = Arc::from(namespace);
    let series = |pod| range.series(model, &Subject::Pod(Arc::clone(&namespace), Arc::from(pod)), metric);
    Answer::compact(&SeriesList { items: pods.split(',').map(series).collect() })
}

/// Which part of a series is asked for.
#[derive(Debug)]
struct Range<'a> {
    start_ms: u64,
    end_ms: u64,
    /// Names and values of labels; `None` for values without a label.
    labels: Option<Vec<(&'a str, &'a str)>>,
}

impl<'a> Range<'a> {
    fn of(asked: &'a Asked) -> Result<Range<'a>, Answer> {
        let time = |name: &str, default| {
            let Some(text) = asked.parameter(name) else { return Ok(default) };
            parse(text).ok_or_else(|| {
                Answer::text(
                    StatusCode::BAD_REQUEST,
                    &format!("{name}: accepted are times as RFC 3339 has them"),
                )
            })
        };
        let pair = |pair: &'a str| {
            pair.split_once(':').ok_or_else(|| {
                Answer::text(StatusCode::BAD_REQUEST, "labels: accepted are pairs: name:value,name:value")
            })
        };
        let labels = asked.parameter("labels").map(|labels| labels.split(',').map(pair).collect());
        Ok(Range { start_ms: time("start", 0)?, end_ms: time("end", u64::MAX)?, labels: labels.transpose()? })
    }

    fn series(&self, model: &Model, subject: &Subject, metric: &str) -> Series {
        let mut values = if metric.starts_with("custom/") {
            self.custom(model, subject, metric)
        } else {
            let found = named(metric).and_then(|metric| Some((metric, self.text(metric)?)));
            found.map(|(metric, text)| model.series(subject, metric, &text)).unwrap_or_default()
        };
        // Names that are not those of the table are parts of what nodes and pods told.
        if values.is_empty() && self.labels.is_none() {
            let told = METRICS.iter().find_map(|known| Some((known, known.text_of(metric)?)));
            values = told.map(|(known, text)| model.series(subject, known, text)).unwrap_or_default();
        }
        let within = values.into_iter().filter(|(time, _)| (self.start_ms..=self.end_ms).contains(time));
        let metrics: Vec<Point> = within.map(|(time, value)| point(time, value)).collect();
        let latest_timestamp = metrics.iter().map(|point| point.timestamp).max().unwrap_or_default();
        Series { metrics, latest_timestamp }
    }

    /// Values of what a program pushed of itself, with just the labels asked for.
    fn custom(&self, model: &Model, subject: &Subject, metric: &str) -> Vec<(u64, Value)> {
        let labels =
            self.labels.iter().flatten().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let mut labels: Vec<_> = labels.collect();
        labels.sort();
        let points = model.customs().points(subject, metric, &labels, model.closed_ms().unwrap_or(0));
        points.into_iter().map(|(time, value)| (time, Value::Double(value))).collect()
    }

    /// The text under which the model has the values asked for, if it has them.
    fn text(&self, metric: &Metric) -> Option<String> {
        match (metric.label, &self.labels) {
            (None, None) => Some(String::new()),
            (Some(label), Some(labels)) => label.text(labels),
            _ => None,
        }
    }
}

fn point(time_ms: u64, value: Value) -> Point {
    let timestamp = Stamp(time_ms);
    match value {
        Value::Integer(value) => Point { timestamp, value, float_value: None },
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "Heapster's field is whole; the conversion saturates, and floatValue has the rest"
        )]
        Value::Double(value) => {
            Point { timestamp, value: value as u64, float_value: Some(value).filter(|v| v.is_finite()) }
        }
    }
}

/// Keys as Heapster writes them, in order.
fn keys(model: &Model) -> Vec<String> {
    let key = |subject: &Subject| match subject {
        Subject::Cluster => "cluster".to_owned(),
        Subject::Namespace(namespace) => format!("namespace:{namespace}"),
        Subject::Node(node) => format!("node:{node}"),
        Subject::System(node, container) => format!("node:{node}/container:{container}"),
        Subject::Pod(namespace, pod) => format!("namespace:{namespace}/pod:{pod}"),
        Subject::Container(namespace, pod, container) => {
            format!("namespace:{namespace}/pod:{pod}/container:{container}")
        }
    };
    let mut keys: Vec<String> = model.subjects().iter().map(key).collect();
    keys.sort();
    // A pod that moves is on two machines for a while.
    keys.dedup();
    keys
}
