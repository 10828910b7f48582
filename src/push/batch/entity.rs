//! A batch entity by entity: who it is, and its values with their metrics.

use std::borrow::Cow;

use super::metrics::{Metric, ValueType, metric};
use super::proto;
use crate::identity::path::{PodUid, Qos};
use crate::rate::Window;

/// What kind of thing was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntityKind {
    /// The machine.
    Node,
    /// A part of it that Kubernetes reports: `kubelet`, `docker-daemon`, `system`, `pods`.
    System,
    /// A pod.
    Pod,
    /// A container, in a pod or not.
    Container,
    /// All pods of a namespace.
    Namespace,
    /// All pods of the cluster.
    Cluster,
}

/// One value of one metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// Of a metric whose type is integer.
    Integer(u64),
    /// Of a metric whose type is double.
    Double(f64),
}

/// One value of an entity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point<'a> {
    /// What it is a value of.
    pub metric: &'static Metric,
    /// The text that tells it apart, where its metric has a label: `/dev/sda`.
    pub label: Option<&'a str>,
    /// In the metric's unit and of its type.
    pub value: Value,
}

impl<'a> Point<'a> {
    /// What it is called: the metric's name, or that with a part of its own.
    pub fn name(&self) -> Cow<'a, str> {
        self.metric.called_with(self.label)
    }

    /// Labels of its own and their values.
    pub fn labels(&self) -> Vec<(&'a str, &'a str)> {
        self.metric.label.zip(self.label).map(|(label, text)| label.pairs(text)).unwrap_or_default()
    }
}

/// Which values belong to which entity: columns turned into rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// For each entity where its places begin; one more for the end.
    starts: Vec<usize>,
    /// Which value of all columns together each is, in the order of columns for each entity.
    places: Vec<u32>,
    /// Which value of all together is the first of each column; one more for the end.
    columns: Vec<u32>,
}

impl Index {
    pub(super) fn new(batch: &proto::Batch) -> Index {
        let mut starts = vec![0_usize; batch.entities.len() + 2];
        // Counted one place further on, so that the second pass can count up
        // from the beginning of each entity and leave the ends behind.
        each_place(batch, |entity, _| {
            if let Some(count) = starts.get_mut(entity + 2) {
                *count += 1;
            }
        });
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut places = vec![0; sum];
        let mut columns = vec![0; batch.columns.len() + 1];
        let mut place = 0_u32;
        each_place(batch, |entity, column| {
            if let Some(next) = starts.get_mut(entity + 1) {
                if let Some(slot) = places.get_mut(*next) {
                    *slot = place;
                }
                *next += 1;
            }
            // A batch has no room for so many.
            place = place.saturating_add(1);
            if let Some(end) = columns.get_mut(column + 1) {
                *end = place;
            }
        });
        // Those without values end where they begin.
        let mut end = 0;
        for column in &mut columns {
            end = end.max(*column);
            *column = end;
        }
        Index { starts, places, columns }
    }
}

/// Tells the entity and the column of every value of a known metric, row by row and column by column.
fn each_place(batch: &proto::Batch, mut each: impl FnMut(usize, usize)) {
    for (at, column) in batch.columns.iter().enumerate() {
        if metric(column.metric).is_none() {
            continue;
        }
        let rows = usize::try_from(column.rows).ok().and_then(|rows| batch.rows.get(rows));
        let mut entity = 0_usize;
        for distance in rows.into_iter().flat_map(|r| &r.entities) {
            entity += usize::try_from(*distance).unwrap_or(0);
            each(entity, at);
        }
    }
}

/// One thing that was measured.
#[derive(Debug, Clone, Copy)]
pub struct Entity<'a> {
    batch: &'a proto::Batch,
    message: &'a proto::Entity,
    places: &'a [u32],
    columns: &'a [u32],
    kind: EntityKind,
    window: Option<Window>,
}

impl<'a> Entity<'a> {
    /// `None` for a kind that is not known here.
    pub(super) fn new(
        batch: &'a proto::Batch,
        index: &'a Index,
        message: &'a proto::Entity,
        at: usize,
    ) -> Option<Entity<'a>> {
        let kind = match message.kind() {
            proto::EntityKind::Unspecified => return None,
            proto::EntityKind::Node => EntityKind::Node,
            proto::EntityKind::System => EntityKind::System,
            proto::EntityKind::Pod => EntityKind::Pod,
            proto::EntityKind::Container => EntityKind::Container,
            proto::EntityKind::Namespace => EntityKind::Namespace,
            proto::EntityKind::Cluster => EntityKind::Cluster,
        };
        let (start, end) = (index.starts.get(at)?, index.starts.get(at + 1)?);
        let window = message.window.checked_sub(1).and_then(|at| usize::try_from(at).ok());
        let window = window.and_then(|at| batch.windows_ns.get(at)).and_then(|ns| Window::from_ns(*ns));
        let places = index.places.get(*start..*end)?;
        Some(Entity { batch, message, places, columns: &index.columns, kind, window })
    }

    /// What kind of thing it is.
    pub fn kind(&self) -> EntityKind {
        self.kind
    }

    /// The pod's namespace.
    pub fn namespace(&self) -> Option<&'a str> {
        self.string(self.message.namespace)
    }

    /// The machine it was measured on; namespaces and the cluster have none.
    pub fn node(&self) -> Option<&'a str> {
        match self.kind {
            EntityKind::Namespace | EntityKind::Cluster => None,
            _ => self.string(self.message.node).or(Some(&*self.batch.node).filter(|node| !node.is_empty())),
        }
    }

    /// The pod's name.
    pub fn pod(&self) -> Option<&'a str> {
        self.string(self.message.pod)
    }

    /// The container's name in its pod, or the system container's.
    pub fn container(&self) -> Option<&'a str> {
        self.string(self.message.container)
    }

    /// What the runtime calls the container.
    pub fn name(&self) -> Option<&'a str> {
        self.string(self.message.name)
    }

    /// The image it runs.
    pub fn image(&self) -> Option<&'a str> {
        self.string(self.message.image)
    }

    /// The pod's UID.
    pub fn pod_uid(&self) -> Option<PodUid> {
        let bytes = self.message.pod_uid.as_slice().try_into().ok()?;
        Some(PodUid::from_bytes(bytes, self.message.static_pod))
    }

    /// The container's id as the runtime writes it.
    pub fn container_id(&self) -> Option<String> {
        use std::fmt::Write;
        if self.message.container_id.is_empty() {
            return self.string(self.message.container_id_text).map(str::to_owned);
        }
        let mut id = String::with_capacity(64);
        for byte in &self.message.container_id {
            // Writing to a String cannot fail.
            let _ = write!(id, "{byte:02x}");
        }
        Some(id)
    }

    /// When it was started, milliseconds since the epoch; its counters count from there.
    pub fn start_ms(&self) -> Option<u64> {
        (self.message.start_ms > 0).then_some(self.message.start_ms)
    }

    /// The pod's quality-of-service class, on pods and their containers.
    pub fn qos(&self) -> Option<Qos> {
        match self.message.qos() {
            proto::Qos::Unspecified => None,
            proto::Qos::Guaranteed => Some(Qos::Guaranteed),
            proto::Qos::Burstable => Some(Qos::Burstable),
            proto::Qos::BestEffort => Some(Qos::BestEffort),
        }
    }

    /// Keys and values sorted by key: a pod's labels, or those of a container
    /// outside pods. A pod's containers are labelled as their pod is.
    pub fn labels(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let entity = *self;
        let text = move |string: u32| entity.string(string).unwrap_or("");
        self.message.labels.chunks_exact(2).filter_map(move |pair| match pair {
            [key, value] => Some((text(*key), text(*value))),
            _ => None,
        })
    }

    /// The time over which its rates were taken; `None` where it has none yet.
    pub fn window(&self) -> Option<Window> {
        self.window
    }

    /// Whether the pod uses the host's network and so has no figures of its own.
    pub fn is_host_network(&self) -> bool {
        self.message.host_network
    }

    /// Whether it is gone, and these are its last totals.
    pub fn is_departed(&self) -> bool {
        self.message.departed
    }

    /// Whether it was in the step before and is not in this one: its values are of
    /// that step.
    pub fn has_ended(&self) -> bool {
        self.message.ended
    }

    /// Its values, in the order of the batch's columns.
    pub fn metrics(&self) -> impl Iterator<Item = Point<'a>> + use<'a> {
        let entity = *self;
        let mut column = 0;
        self.places.iter().filter_map(move |place| {
            while entity.columns.get(column + 1).is_some_and(|end| end <= place) {
                column += 1;
            }
            let first = entity.columns.get(column)?;
            entity.point(column, usize::try_from(place.checked_sub(*first)?).ok()?)
        })
    }

    /// The value of the metric of that name, where it has one and no label.
    pub fn value(&self, name: &str) -> Option<Value> {
        self.metrics().find(|p| p.label.is_none() && p.metric.name == name).map(|p| p.value)
    }

    fn point(&self, column: usize, row: usize) -> Option<Point<'a>> {
        let column = self.batch.columns.get(column)?;
        let metric = metric(column.metric)?;
        let value = match metric.sent_as() {
            ValueType::Double => Value::Double(*column.doubles.get(row)?),
            ValueType::Integer => {
                let sent = *column.integers.get(row)?;
                match (metric.is_rate(), metric.value_type) {
                    (false, _) => Value::Integer(sent),
                    (true, ValueType::Double) => Value::Double(self.window?.per_second(sent)),
                    (true, ValueType::Integer) => Value::Integer(self.window?.millicores(sent)),
                }
            }
        };
        let label = metric.label.and_then(|_| {
            let rows = self.batch.rows.get(usize::try_from(column.rows).ok()?)?;
            self.string(*rows.labels.get(row)?)
        });
        Some(Point { metric, label, value })
    }

    fn string(&self, at: u32) -> Option<&'a str> {
        let text = self.batch.strings.get(usize::try_from(at).ok()?)?;
        (!text.is_empty()).then_some(text.as_str())
    }
}
