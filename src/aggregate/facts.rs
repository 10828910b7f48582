//! What is known of nodes besides what they pushed, into their batches: labels,
//! what they have and give to pods, and which part of that is used.

use super::objects::{Facts, Node};
use crate::identity::model::Resources;
use crate::push::batch::{Batch, EntityKind, MetricId, Value};

/// Capacity, allocatable, utilization and reservation of one resource, and of what
/// the latter two are parts.
struct Shares {
    ids: [MetricId; 4],
    of: fn(&Resources) -> Option<u64>,
    used: &'static str,
    requested: &'static str,
}

const SHARES: [Shares; 3] = [
    Shares {
        ids: [
            MetricId::CpuNodeCapacity,
            MetricId::CpuNodeAllocatable,
            MetricId::CpuNodeUtilization,
            MetricId::CpuNodeReservation,
        ],
        of: |r| r.cpu_milli,
        used: "cpu/usage_rate",
        requested: "cpu/request",
    },
    Shares {
        ids: [
            MetricId::MemoryNodeCapacity,
            MetricId::MemoryNodeAllocatable,
            MetricId::MemoryNodeUtilization,
            MetricId::MemoryNodeReservation,
        ],
        of: |r| r.memory_bytes,
        used: "memory/usage",
        requested: "memory/request",
    },
    Shares {
        ids: [
            MetricId::EphemeralStorageNodeCapacity,
            MetricId::EphemeralStorageNodeAllocatable,
            MetricId::EphemeralStorageNodeUtilization,
            MetricId::EphemeralStorageNodeReservation,
        ],
        of: |r| r.ephemeral_storage_bytes,
        used: "ephemeral_storage/usage",
        requested: "ephemeral_storage/request",
    },
];

impl Facts {
    /// Puts what is known of its node into a batch.
    pub fn amend(&self, batch: &mut Batch) {
        if let Some(node) = self.nodes.get(batch.node()) {
            let figures = figures(&node, batch);
            batch.describe_node(node.labels.iter(), &figures);
        }
    }
}

fn figures(node: &Node, batch: &Batch) -> Vec<(MetricId, f64)> {
    let mut told = Vec::new();
    let Some(entity) = batch.entities().find(|e| e.kind() == EntityKind::Node) else { return told };
    for shares in SHARES {
        let value = |name: &str| match entity.value(name) {
            Some(Value::Integer(value)) => Some(value),
            Some(Value::Double(_)) | None => None,
        };
        let allocatable = (shares.of)(&node.allocatable);
        let part = |of: Option<u64>| {
            let (of, all) = of.zip(allocatable.filter(|all| *all > 0))?;
            Some(of as f64 / all as f64)
        };
        let [capacity, allocatable] = [(shares.of)(&node.capacity), allocatable].map(|v| v.map(|v| v as f64));
        let values = [capacity, allocatable, part(value(shares.used)), part(value(shares.requested))];
        told.extend(shares.ids.into_iter().zip(values).filter_map(|(id, value)| Some((id, value?))));
    }
    told
}
