//! What a database gets of a step, and under which names.

use crate::push::batch::{Kind, Metric, MetricId};
use crate::push::labels::LabelRules;

/// How a metric becomes a measurement and a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// Measurement `cpu` and field `usage_rate`, rather than measurement
    /// `cpu/usage_rate` and field `value`.
    pub with_fields: bool,
    /// Tag `cluster_name`.
    pub cluster: String,
    /// Which metrics.
    pub metrics: Selection,
    /// How labels of pods and nodes are shown: tag `labels`, and tags of their own.
    pub labels: LabelRules,
}

impl Default for Schema {
    fn default() -> Self {
        Schema {
            with_fields: false,
            cluster: "default".to_owned(),
            metrics: Selection::default(),
            labels: LabelRules::default(),
        }
    }
}

/// Which metrics a database gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Selection {
    /// All there are.
    #[default]
    All,
    /// Those that Heapster had.
    Heapster,
    /// Those without the counters that its `disable_counter_metrics` left out.
    HeapsterWithoutCounters,
}

impl Selection {
    /// Whether it holds a metric.
    pub fn takes(self, metric: &Metric) -> bool {
        match self {
            Selection::All => true,
            Selection::Heapster => metric.is_heapsters(),
            Selection::HeapsterWithoutCounters => {
                let kept = matches!(metric.id, MetricId::Uptime | MetricId::RestartCount);
                metric.is_heapsters() && (kept || metric.kind != Kind::Cumulative)
            }
        }
    }
}
