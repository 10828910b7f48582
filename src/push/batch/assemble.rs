//! Entities and values, one after the other → the columns of a [`Batch`].

use std::collections::HashMap;

use super::metrics::{METRICS, ValueType, row};
use super::proto::{self, MetricId};
use super::{Batch, Malformed};

/// Puts a batch together: an entity, then its values, then the next entity.
#[derive(Debug)]
pub struct Assembler {
    message: proto::Batch,
    strings: HashMap<Box<str>, u32>,
    windows: HashMap<u64, u32>,
    /// One for each of [`METRICS`].
    columns: Vec<Building>,
    values: usize,
    text: usize,
}

#[derive(Debug, Default)]
struct Building {
    entities: Vec<u32>,
    labels: Vec<u32>,
    integers: Vec<u64>,
    doubles: Vec<f64>,
    /// The entity of the last row.
    last: u32,
}

impl Assembler {
    /// For a batch with the head given: its fields other than the strings, the
    /// entities and what belongs to them.
    pub fn new(head: proto::Batch) -> Assembler {
        let mut assembler = Assembler {
            message: head,
            strings: HashMap::new(),
            windows: HashMap::new(),
            columns: METRICS.iter().map(|_| Building::default()).collect(),
            values: 0,
            text: 0,
        };
        assembler.string("");
        assembler
    }

    /// The number of a string in the batch.
    pub fn string(&mut self, text: &str) -> u32 {
        if let Some(known) = self.strings.get(text) {
            return *known;
        }
        let number = u32::try_from(self.message.strings.len()).unwrap_or(u32::MAX);
        self.message.strings.push(text.to_owned());
        self.text += text.len();
        self.strings.insert(text.into(), number);
        number
    }

    /// The number of a window in the batch, as entities have it.
    pub fn window(&mut self, ns: u64) -> u32 {
        if let Some(known) = self.windows.get(&ns) {
            return *known;
        }
        self.message.windows_ns.push(ns);
        let number = u32::try_from(self.message.windows_ns.len()).unwrap_or(u32::MAX);
        self.windows.insert(ns, number);
        number
    }

    /// Begins the next entity.
    pub fn entity(&mut self, entity: proto::Entity) {
        self.message.entities.push(entity);
    }

    /// A value of the newest entity, or the increase of a counter for its rate.
    pub fn integer(&mut self, id: MetricId, value: u64) {
        self.put(id, 0, |column| column.integers.push(value), ValueType::Integer);
    }

    /// The same for a metric with a label.
    pub fn labelled(&mut self, id: MetricId, label: u32, value: u64) {
        self.put(id, label, |column| column.integers.push(value), ValueType::Integer);
    }

    /// A value of the newest entity, of a metric whose values are doubles.
    pub fn double(&mut self, id: MetricId, value: f64) {
        self.put(id, 0, |column| column.doubles.push(value), ValueType::Double);
    }

    /// The same for a metric with a label.
    pub fn labelled_double(&mut self, id: MetricId, label: u32, value: f64) {
        self.put(id, label, |column| column.doubles.push(value), ValueType::Double);
    }

    /// How many values were put in.
    pub fn values(&self) -> usize {
        self.values
    }

    /// Bytes of all strings.
    pub fn text(&self) -> usize {
        self.text
    }

    /// Says that the agent's limits kept something out.
    pub fn dropped(&mut self, reason: proto::DropReason, count: u64) {
        if count > 0 {
            self.message.dropped.push(proto::Dropped { reason: reason.into(), count });
        }
    }

    fn put(&mut self, id: MetricId, label: u32, push: impl FnOnce(&mut Building), sent_as: ValueType) {
        let Some(at) = row(id.into()) else { return };
        let (Some(metric), Some(column)) = (METRICS.get(at), self.columns.get_mut(at)) else { return };
        debug_assert!(metric.sent_as() == sent_as, "BUG: {} is not sent as {sent_as:?}", metric.name);
        let Some(entity) = self.message.entities.len().checked_sub(1) else { return };
        let entity = u32::try_from(entity).unwrap_or(u32::MAX);
        column.entities.push(entity - column.last);
        column.last = entity;
        column.labels.push(label);
        push(column);
        self.values += 1;
    }

    /// The finished batch.
    ///
    /// # Errors
    /// The head or the entities break a rule of the format.
    pub fn finish(mut self) -> Result<Batch, Malformed> {
        let mut known: HashMap<proto::Rows, u32> = HashMap::new();
        for (metric, building) in METRICS.iter().zip(self.columns) {
            if building.entities.is_empty() {
                continue;
            }
            let Building { entities, labels, integers, doubles, .. } = building;
            let labels = if metric.label.is_some() { labels } else { Vec::new() };
            let rows = proto::Rows { entities, labels };
            let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
            let rows = *known.entry(rows).or_insert_with_key(|rows| {
                self.message.rows.push(rows.clone());
                next
            });
            self.message.columns.push(proto::Column { metric: metric.id.into(), rows, integers, doubles });
        }
        Batch::new(self.message)
    }
}
