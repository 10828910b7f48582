//! Sums over namespaces and over the cluster as families of Prometheus' text, for
//! who has dashboards of these there and no other place where they are summed.
//!
//! They are those of the newest closed slot; an old one says nothing of now.

use std::fmt::Write as _;

use crate::aggregate::model::{Model, SUMMED, Subject};
use crate::expose::labels::escape;
use crate::push::batch::{Unit, Value, metric};

/// Of the text.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Age of a slot that is not told any more, milliseconds; of long slots it is three.
const STALE_MS: u64 = 180_000;

/// The families of [`SUMMED`] at `now_ms`, none where there is no slot of about now.
pub fn text(model: &Model, now_ms: u64) -> String {
    let mut text = String::new();
    let stale = STALE_MS.max(model.resolution_ms().saturating_mul(3));
    let Some(slot) = model.closed_ms().filter(|slot| now_ms.saturating_sub(*slot) <= stale) else {
        return text;
    };
    let namespaces = model.namespaces();
    for metric in SUMMED.iter().filter_map(|id| metric(*id as i32)) {
        let at = |subject: &Subject| {
            let series = model.series(subject, metric, "");
            series.last().filter(|(time, _)| *time == slot).map(|(_, value)| *value)
        };
        let (unit, divisor) = match metric.unit {
            Unit::Millicores => ("cores", 1_000.0),
            _ => ("bytes", 1.0),
        };
        let subject = metric.name.trim_end_matches("_rate").replace('/', "_");
        for (scope, about) in [("cluster", "the cluster"), ("namespace", "a namespace")] {
            let name = format!("nodegauge_{scope}_{subject}_{unit}");
            // Writing to memory does not fail.
            let _ =
                writeln!(text, "# HELP {name} {} of all pods of {about}.\n# TYPE {name} gauge", metric.name);
            if scope == "cluster" {
                if let Some(value) = at(&Subject::Cluster) {
                    let _ = writeln!(text, "{name} {}", shown(value, divisor));
                }
                continue;
            }
            for namespace in &namespaces {
                if let Some(value) = at(&Subject::Namespace(namespace.clone())) {
                    let _ = write!(text, "{name}{{namespace=\"");
                    escape(namespace, |part| text.push_str(part));
                    let _ = writeln!(text, "\"}} {}", shown(value, divisor));
                }
            }
        }
    }
    text
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has doubles only")]
fn shown(value: Value, divisor: f64) -> f64 {
    match value {
        Value::Integer(value) => value as f64 / divisor,
        Value::Double(value) => value / divisor,
    }
}
