//! `/api/v1/metric-export-schema`: which metrics and labels the export carries.

use std::sync::Arc;

use serde_json::{Value, json};

use super::exported::{COMMON_LABELS, EXPORTED, Exported, POD_LABELS};
use crate::aggregate::model::Model;
use crate::api::answer::Answer;
use crate::api::request::Asked;
use crate::push::batch::{Kind, Label, ValueType, metric};

/// Answers `/api/v1/metric-export-schema`.
pub fn answer(_model: &Arc<Model>, asked: &Asked, _now_ms: u64) -> Answer {
    if !asked.path.is_empty() {
        return Answer::no_page();
    }
    let labels = |labels: &[(&str, &str)]| -> Vec<Value> {
        labels.iter().map(|(key, description)| json!({"key": key, "description": description})).collect()
    };
    Answer::pretty(&json!({
        "metrics": EXPORTED.iter().filter_map(described).collect::<Vec<_>>(),
        "common_labels": labels(&COMMON_LABELS),
        "pod_labels": labels(&POD_LABELS),
    }))
}

fn described(exported: &Exported) -> Option<Value> {
    let metric = metric(exported.id.into())?;
    let label = |key: &str, description: &str| json!({"key": key, "description": description});
    let labels: Vec<Value> = match metric.label {
        None | Some(Label::Name) => Vec::new(),
        Some(Label::Of(key)) => vec![label(key, "filesystem, volume or device")],
        Some(Label::Each(keys)) => keys.iter().map(|key| label(key, "of the accelerator")).collect(),
    };
    let mut described = json!({
        "name": metric.name,
        "description": exported.description,
        "labels": labels,
        "type": if metric.kind == Kind::Cumulative { "cumulative" } else { "gauge" },
        "value_type": match metric.value_type {
            ValueType::Integer => "int64",
            ValueType::Double => "double",
        },
    });
    // Things have no unit, and there was none for what comes in a second.
    let unit = Some(metric.unit.name()).filter(|unit| *unit != "count" && !metric.is_rate());
    if let (Value::Object(fields), Some(unit)) = (&mut described, unit) {
        fields.insert("units".into(), unit.into());
    }
    Some(described)
}
