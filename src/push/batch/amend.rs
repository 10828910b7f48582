//! What an agent cannot know of its node, put into its batch by whoever knows.

use super::proto::{self, EntityKind, MetricId};
use super::{Batch, OnceLock};

impl Batch {
    /// Gives the node these labels, in place of those it has, and these values of
    /// metrics that are doubles and that only nodes have. Without an entity that
    /// is the node nothing happens.
    pub fn describe_node<'l>(
        &mut self,
        labels: impl Iterator<Item = (&'l str, &'l str)>,
        figures: &[(MetricId, f64)],
    ) {
        let message = &mut self.message;
        let Some(at) = message.entities.iter().position(|e| e.kind() == EntityKind::Node) else { return };
        let (Ok(entity), Ok(rows)) = (u32::try_from(at), u32::try_from(message.rows.len())) else { return };
        // The empty string comes first.
        if message.strings.is_empty() {
            message.strings.push(String::new());
        }
        let mut numbers = Vec::new();
        for text in labels.flat_map(|(key, value)| [key, value]) {
            numbers.push(u32::try_from(message.strings.len()).unwrap_or(0));
            message.strings.push(text.to_owned());
        }
        if let Some(node) = message.entities.get_mut(at) {
            node.labels = numbers;
        }
        if !figures.is_empty() {
            let told = |column: &proto::Column| figures.iter().any(|(id, _)| column.metric == *id as i32);
            message.columns.retain(|column| !told(column));
            message.rows.push(proto::Rows { entities: vec![entity], labels: Vec::new() });
            message.columns.extend(figures.iter().map(|(id, value)| proto::Column {
                metric: (*id).into(),
                rows,
                integers: Vec::new(),
                doubles: vec![*value],
            }));
        }
        self.index = OnceLock::new();
    }
}
