//! `/api/v1/metric-export`: everything that nodes, pods and containers have in the
//! newest closed slot, in one document.
//!
//! A thousand nodes are a hundred megabytes, so it is written node by node while
//! it is sent, and no node is locked while the client reads. A machine that is
//! not in that slot is not in the answer.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::sync::Arc;

use super::exported::EXPORTED;
use super::time::Stamp;
use crate::aggregate::custom::{self, Labels};
use crate::aggregate::model::{Model, Subject};
use crate::aggregate::node::{Entity, Figure, Kind as Of};
use crate::aggregate::objects::Node;
use crate::api::answer::Answer;
use crate::api::request::Asked;
use crate::push::batch::{Kind, MetricId, Value};

/// Answers `/api/v1/metric-export`.
pub fn answer(model: &Arc<Model>, asked: &Asked, _now_ms: u64) -> Answer {
    if !asked.path.is_empty() {
        return Answer::no_page();
    }
    match model.closed_ms() {
        _ if model.shown().no_export => Answer::compact(&[(); 0]),
        Some(slot) => {
            let model = Arc::clone(model);
            Answer::written(move |out| write(&model, slot, out))
        }
        None => Answer::compact(&()),
    }
}

fn write(model: &Model, slot: u64, out: &mut dyn Write) -> io::Result<()> {
    let wanted: HashSet<MetricId> = EXPORTED.iter().map(|exported| exported.id).collect();
    let end = Stamp(slot).to_string();
    let mut page = Page { model, text: vec![b'['], node: Arc::from(""), facts: None, end, first: true };
    for node in model.node_names() {
        page.facts = model.facts().nodes.get(&node);
        page.node = node;
        let node = Arc::clone(&page.node);
        model.figures_at(&node, slot, |m| wanted.contains(&m.id), |e, figures| page.put(e, figures));
        out.write_all(&page.text)?;
        page.text.clear();
    }
    model.customs().at(slot, |subject, figures| page.put_custom(subject, figures));
    out.write_all(&page.text)?;
    out.write_all(b"]\n")
}

/// The series of one node as JSON.
#[derive(Debug)]
struct Page<'m> {
    model: &'m Model,
    text: Vec<u8>,
    node: Arc<str>,
    /// What the API server tells of it.
    facts: Option<Arc<Node>>,
    /// The time of all points.
    end: String,
    first: bool,
}

impl Page<'_> {
    fn put(&mut self, entity: &Entity, figures: &[Figure<'_>]) {
        if !std::mem::take(&mut self.first) {
            self.text.push(b',');
        }
        self.raw("{\"metrics\":{");
        let start = entity.start_ms.map_or_else(|| self.end.clone(), |ms| Stamp(ms).to_string());
        let mut last = None;
        // What is no number is no JSON either.
        let told = |f: &&Figure<'_>| !matches!(f.value, Value::Double(value) if !value.is_finite());
        for figure in figures.iter().filter(told) {
            if last == Some(figure.metric.id) {
                self.text.push(b',');
            } else {
                self.raw(if last.is_some() { "],\"" } else { "\"" });
                self.raw(figure.metric.name);
                self.raw("\":[");
                last = Some(figure.metric.id);
            }
            self.point(figure, &start);
        }
        self.raw(if last.is_some() { "]},\"labels\":{" } else { "},\"labels\":{" });
        self.labels(entity);
        self.raw("}}");
    }

    /// What programs pushed of themselves, of what the export is about: neither namespaces nor the cluster.
    fn put_custom(&mut self, subject: &Subject, figures: &[(&str, custom::Kind, &Labels, f64)]) {
        let hostname = match subject {
            Subject::Node(node) | Subject::System(node, _) => self.model.hostname(node),
            _ => Arc::default(),
        };
        let labels: &[(&str, &str)] = match subject {
            Subject::Cluster | Subject::Namespace(_) => return,
            Subject::Node(node) => {
                &[("nodename", node), ("hostname", &hostname), ("container_name", "machine")]
            }
            Subject::System(node, container) => {
                &[("nodename", node), ("hostname", &hostname), ("container_name", container)]
            }
            Subject::Pod(namespace, pod) => {
                &[("namespace_name", namespace), ("pod_name", pod), ("container_name", "/pod")]
            }
            Subject::Container(namespace, pod, container) => {
                &[("namespace_name", namespace), ("pod_name", pod), ("container_name", container)]
            }
        };
        if !std::mem::take(&mut self.first) {
            self.text.push(b',');
        }
        let mut metrics: BTreeMap<&str, Vec<serde_json::Value>> = BTreeMap::new();
        for (name, _, labels, value) in figures {
            let point = if labels.is_empty() {
                serde_json::json!({"start": self.end, "end": self.end, "value": value})
            } else {
                let labels: BTreeMap<_, _> = labels.iter().map(|(key, value)| (key, value)).collect();
                serde_json::json!({"start": self.end, "end": self.end, "labels": labels, "value": value})
            };
            metrics.entry(name).or_default().push(point);
        }
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        self.json(&serde_json::json!({"metrics": metrics, "labels": labels}));
    }

    fn point(&mut self, figure: &Figure<'_>, start: &str) {
        self.raw("{\"start\":\"");
        if figure.metric.kind == Kind::Cumulative {
            self.raw(start);
        } else {
            self.end();
        }
        self.raw("\",\"end\":\"");
        self.end();
        self.raw("\",");
        if let Some(label) = figure.metric.label {
            for (at, (name, value)) in label.pairs(figure.label).into_iter().enumerate() {
                self.raw(if at == 0 { "\"labels\":{" } else { "," });
                self.label(name, value);
            }
            self.raw("},");
        }
        self.raw("\"value\":");
        match figure.value {
            Value::Integer(value) => self.raw(itoa::Buffer::new().format(value)),
            Value::Double(value) => self.json(&value),
        }
        self.raw("}");
    }

    fn labels(&mut self, entity: &Entity) {
        let key = &entity.key;
        let container = match key.kind {
            Of::Node => "machine",
            Of::Pod => "/pod",
            Of::System | Of::Container => &*key.container,
        };
        let (node, facts) = (Arc::clone(&self.node), self.facts.clone());
        let hostname = facts.as_ref().and_then(|f| f.hostname.as_deref()).unwrap_or(&node);
        for (at, (name, value)) in
            [("nodename", &*node), ("hostname", hostname), ("container_name", container)]
                .into_iter()
                .enumerate()
        {
            if at > 0 {
                self.text.push(b',');
            }
            self.label(name, value);
        }
        let image = entity.image.as_deref().filter(|_| key.kind == Of::Container);
        let pod = Some(&*key.pod).filter(|pod| !pod.is_empty());
        let joined = self.model.shown().labels.joined(entity.labels.iter().map(|(k, v)| (&**k, &**v)));
        let namespace = pod.and_then(|_| self.model.facts().namespaces.get(&key.namespace));
        for (name, value) in [
            ("host_id", facts.as_ref().and_then(|f| f.host_id.as_deref())),
            ("container_base_image", image),
            ("pod_name", pod),
            ("pod_id", entity.pod_uid.as_deref()),
            ("namespace_id", namespace.as_ref().map(|n| &*n.uid)),
            ("labels", joined.as_deref()),
        ] {
            if let Some(value) = value {
                self.text.push(b',');
                self.label(name, value);
            }
        }
    }

    fn label(&mut self, name: &str, value: &str) {
        self.raw("\"");
        self.raw(name);
        self.raw("\":");
        self.json(value);
    }

    fn end(&mut self) {
        self.text.extend_from_slice(self.end.as_bytes());
    }

    fn raw(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    fn json(&mut self, value: &(impl serde::Serialize + ?Sized)) {
        // Strings and numbers are JSON, and memory takes what is written.
        let _ = serde_json::to_writer(&mut self.text, value);
    }
}
