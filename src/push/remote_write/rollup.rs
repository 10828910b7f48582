//! What sums over pods are called: what namespaces and the cluster have.
//!
//! | metric | namespace, with label `namespace` | cluster |
//! |---|---|---|
//! | `cpu/usage_rate` | `nodegauge_namespace_cpu_usage_cores` | `nodegauge_cluster_cpu_usage_cores` |
//! | `cpu/request` | `nodegauge_namespace_cpu_request_cores` | `nodegauge_cluster_cpu_request_cores` |
//! | `cpu/limit` | `nodegauge_namespace_cpu_limit_cores` | `nodegauge_cluster_cpu_limit_cores` |
//! | `memory/usage` | `nodegauge_namespace_memory_usage_bytes` | `nodegauge_cluster_memory_usage_bytes` |
//! | `memory/request` | `nodegauge_namespace_memory_request_bytes` | `nodegauge_cluster_memory_request_bytes` |
//! | `memory/limit` | `nodegauge_namespace_memory_limit_bytes` | `nodegauge_cluster_memory_limit_bytes` |
//!
//! The first is a rate, which everything else leaves to the database: a sum over
//! pods that come and go has no counter.

use crate::push::batch::{EntityKind, Metric, MetricId, Prometheus};

const fn gauge(name: &'static str, divisor: f64) -> Prometheus {
    Prometheus { name, divisor, labels: &[], own: &[] }
}

/// Metric, name for a namespace, name for the cluster.
const SUMS: [(MetricId, Prometheus, Prometheus); 6] = [
    (
        MetricId::CpuUsageRate,
        gauge("nodegauge_namespace_cpu_usage_cores", 1000.0),
        gauge("nodegauge_cluster_cpu_usage_cores", 1000.0),
    ),
    (
        MetricId::CpuRequest,
        gauge("nodegauge_namespace_cpu_request_cores", 1000.0),
        gauge("nodegauge_cluster_cpu_request_cores", 1000.0),
    ),
    (
        MetricId::CpuLimit,
        gauge("nodegauge_namespace_cpu_limit_cores", 1000.0),
        gauge("nodegauge_cluster_cpu_limit_cores", 1000.0),
    ),
    (
        MetricId::MemoryUsage,
        gauge("nodegauge_namespace_memory_usage_bytes", 1.0),
        gauge("nodegauge_cluster_memory_usage_bytes", 1.0),
    ),
    (
        MetricId::MemoryRequest,
        gauge("nodegauge_namespace_memory_request_bytes", 1.0),
        gauge("nodegauge_cluster_memory_request_bytes", 1.0),
    ),
    (
        MetricId::MemoryLimit,
        gauge("nodegauge_namespace_memory_limit_bytes", 1.0),
        gauge("nodegauge_cluster_memory_limit_bytes", 1.0),
    ),
];

/// What a metric is called on something of that kind.
pub(super) fn named(kind: EntityKind, metric: &'static Metric) -> Option<&'static Prometheus> {
    let sum = || SUMS.iter().find(|(id, _, _)| *id == metric.id);
    match kind {
        EntityKind::Namespace => sum().map(|(_, namespace, _)| namespace),
        EntityKind::Cluster => sum().map(|(_, _, cluster)| cluster),
        _ => metric.prometheus.as_ref(),
    }
}
