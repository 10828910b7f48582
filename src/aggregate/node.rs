//! One node of the model: who lives there, and what was measured in the last steps.
//!
//! A push belongs to the slot of the model's resolution that it lies in: slot T
//! takes the pushes after T - resolution up to T. Counters and gauges of a slot
//! are those of its newest push; rates are the increases of all its pushes over
//! their windows together, and so the mean over the slot. Pushes may come in any
//! order and again: a backlog is sent newest first.

mod closing;
mod labelled;
mod population;
mod read;
mod rows;
mod run;
mod saved;
mod who;

use labelled::Labelled;
pub use population::Change;
pub use read::{Figure, UsedPod};
pub use rows::{Raw, Row, Version};
pub use run::{Run, Told};
pub use saved::SavedNode;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::names::Names;
use super::window::{Column, Keys, Step, Window};
use crate::push::batch::proto::{self, MetricId};
use crate::push::batch::{Batch, Metric, Value, ValueType, metric};
use crate::rate;
use population::Population;

/// Column of the windows that rates were taken over, nanoseconds.
const WINDOWS: u16 = 0;

/// The row of [`WINDOWS`] that holds for all entities without a row of their own.
const COMMON: u64 = u64::MAX;

/// Label values of one node: devices and volumes. Values under more are not kept.
const MAX_LABELS: usize = 65_536;

/// As many label values as nodes have at most for a while; beyond it those that
/// left the window are looked for.
const USUAL_LABELS: usize = 512;

/// Entities of one node within the window; more have no place.
const MAX_ENTITIES: usize = 32_768;

/// Pushes remembered of one node: four times those of a window with one a second.
const MAX_PUSHES: usize = 4096;

/// Who was measured.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// What kind of thing.
    pub kind: Kind,
    /// The pod's namespace; empty for the node and its system containers.
    pub namespace: Arc<str>,
    /// The pod; empty likewise.
    pub pod: Arc<str>,
    /// The container, or the system container.
    pub container: Arc<str>,
}

/// What kind of thing was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The machine.
    Node,
    /// A part of it that Kubernetes reports.
    System,
    /// A pod.
    Pod,
    /// A container of a pod.
    Container,
}

/// Keys and values, sorted by key.
pub type Labels = Arc<[(Arc<str>, Arc<str>)]>;

/// What is known of it beside its figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Who it is.
    pub key: Key,
    /// The image it runs.
    pub image: Option<Arc<str>>,
    /// The pod's UID as in the API.
    pub pod_uid: Option<Arc<str>>,
    /// Of a container: what its runtime calls it.
    pub run: Option<Box<Run>>,
    /// The machine's or the pod's labels, sorted by key; a pod's are shared by its
    /// containers.
    pub labels: Labels,
    /// When it was started, milliseconds since the epoch.
    pub start_ms: Option<u64>,
    /// The pod uses the host's network.
    pub host_network: bool,
    /// Time of the newest slot that has it.
    pub seen_ms: u64,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is in the model; the slot it went into.
    Slot(u64),
    /// It had been taken before.
    Duplicate,
    /// It is older than the window.
    TooOld,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    resolution_ms: u64,
    entities: Vec<Option<Entity>>,
    /// Numbers of entities, in the order of their keys.
    by_key: Vec<u32>,
    free: Vec<u32>,
    labels: Labelled,
    window: Window,
    /// For each slot its newest push.
    pushes: HashMap<u64, u64>,
    /// For each slot what it was made from.
    versions: HashMap<u64, Version>,
    taken: HashSet<([u8; 16], u64)>,
    /// Times of the pushes taken, in the order they came, to forget them by.
    order: Vec<(u64, [u8; 16], u64)>,
    latest: Latest,
    population: Population,
    unplaced: u64,
}

/// The newest push, as far as it is asked for between two slots.
#[derive(Debug, Clone, Default)]
pub struct Latest {
    /// Its time, milliseconds since the epoch.
    pub time_ms: u64,
    /// The node's clock when it was measured, milliseconds since the epoch.
    pub sampled_ms: u64,
    /// Time between two pushes, milliseconds.
    pub resolution_ms: u64,
    /// By number of the entity, ascending, each once.
    pub usage: Vec<(u32, Usage)>,
}

impl Latest {
    /// What it says of an entity.
    pub fn usage_of(&self, number: u32) -> Option<Usage> {
        let at = self.usage.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.usage.get(at).map(|(_, usage)| *usage)
    }
}

/// See [`Latest`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time the CPU rate was taken over, nanoseconds.
    pub window_ns: Option<u64>,
    /// CPU, billionths of a core.
    pub cpu_nano: Option<u64>,
    /// `memory/working_set`, bytes.
    pub memory: Option<u64>,
}

impl Node {
    /// A node nothing is known of, with `steps` slots of `resolution_ms` milliseconds.
    pub fn new(resolution_ms: u64, steps: usize) -> Node {
        Node {
            resolution_ms: resolution_ms.max(1),
            entities: Vec::new(),
            by_key: Vec::new(),
            free: Vec::new(),
            labels: Labelled::default(),
            window: Window::new(steps),
            pushes: HashMap::new(),
            versions: HashMap::new(),
            taken: HashSet::new(),
            order: Vec::new(),
            latest: Latest::default(),
            population: Population::default(),
            unplaced: 0,
        }
    }

    /// The slot a push of that time belongs to.
    pub fn slot_of(&self, time_ms: u64) -> u64 {
        time_ms.div_ceil(self.resolution_ms).saturating_mul(self.resolution_ms)
    }

    /// Its last steps.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// The newest push.
    pub fn latest(&self) -> &Latest {
        &self.latest
    }

    /// Everyone known, with their numbers.
    pub fn entities(&self) -> impl Iterator<Item = (u32, &Entity)> {
        (0..).zip(&self.entities).filter_map(|(at, entity)| Some((at, entity.as_ref()?)))
    }

    /// The number of an entity, and what is known of it.
    pub fn find(&self, key: &Key) -> Option<(u32, &Entity)> {
        let number = *self.by_key.get(self.place_of(key.parts()).ok()?)?;
        Some((number, self.entity(number)?))
    }

    /// Takes a push.
    pub fn take(&mut self, batch: &Batch, names: &Names) -> Taken {
        let id = (batch.boot_id(), batch.sequence());
        if self.taken.contains(&id) {
            return Taken::Duplicate;
        }
        let slot = self.slot_of(batch.time_ms());
        let numbers = self.numbers(batch, slot, names);
        let step = self.step(batch, slot, &numbers, names);
        if batch.time_ms() >= self.latest.time_ms {
            self.latest = latest(batch, &step, &numbers);
        }
        let newest_push = self.pushes.get(&slot).copied();
        let mut merged = match newest_push {
            Some(push) => match self.slot(slot) {
                Some(before) if push > batch.time_ms() => merge(before, &step),
                Some(before) => merge(step, &before),
                None => step,
            },
            None => step,
        };
        self.derive(&mut merged);
        if !self.window.insert(merged) {
            return Taken::TooOld;
        }
        self.pushes.insert(slot, newest_push.unwrap_or(0).max(batch.time_ms()));
        self.versions.entry(slot).or_default().add(id);
        self.taken.insert(id);
        self.order.push((slot, id.0, id.1));
        self.tidy();
        Taken::Slot(slot)
    }

    /// Utilisation is that of the mean rate of the slot, as is every rate.
    fn derive(&self, step: &mut Step) {
        let id = |metric: MetricId| u16::try_from(metric as i32).unwrap_or(u16::MAX);
        let Some((number, _)) = self.entities().find(|(_, entity)| entity.key.kind == Kind::Node) else {
            return;
        };
        let key = u64::from(number) << 32;
        let window = window_of(step, key).and_then(rate::Window::from_ns);
        let used = window.zip(step.value(id(MetricId::CpuUsageRate), key));
        let given = step.value(id(MetricId::CpuNodeAllocatable), key).map(f64::from_bits);
        let (Some((window, increase)), Some(given)) = (used, given.filter(|given| *given > 0.0)) else {
            return;
        };
        // Millicores of one machine: far below where a double is not exact.
        #[allow(clippy::cast_precision_loss)]
        let share = window.millicores(increase) as f64 / given;
        let Step { sets, columns, .. } = step;
        let Some(column) = columns.iter_mut().find(|c| c.id == id(MetricId::CpuNodeUtilization)) else {
            return;
        };
        let row = sets.get(usize::from(column.set)).and_then(|keys| keys.binary_search(&key).ok());
        if let Some(value) = row.and_then(|row| column.values.get_mut(row)) {
            *value = share.to_bits();
        }
    }

    fn slot(&self, time_ms: u64) -> Option<Step> {
        self.window.at(time_ms)
    }

    /// Pods that came and went since this was last asked, in order.
    pub fn changes(&mut self) -> Vec<Change> {
        self.population.changes()
    }

    /// Namespaces and names of its pods, in order.
    pub fn pods(&self) -> impl Iterator<Item = &(Arc<str>, Arc<str>)> {
        self.population.pods()
    }

    /// How many times an entity of a push found no place, since this was last asked.
    pub fn unplaced(&mut self) -> u64 {
        std::mem::take(&mut self.unplaced)
    }

    /// Forgets slots before `time_ms`, and who was seen in none since.
    pub fn forget_before(&mut self, time_ms: u64) {
        if self.window.times().last().is_some_and(|oldest| oldest < time_ms) {
            self.window.forget_before(time_ms);
            self.forget_unseen(self.window.times().last().unwrap_or(time_ms));
        }
    }

    /// The batch as a step of the model.
    fn step(&mut self, batch: &Batch, slot: u64, numbers: &[Option<u32>], names: &Names) -> Step {
        let message = batch.message();
        let mut step = Step { time_ms: slot, ..Step::default() };
        // For each row set its keys and, for each key, the row it comes from.
        let mut orders: Vec<(u16, Vec<u32>)> = Vec::with_capacity(message.rows.len());
        for rows in &message.rows {
            let mut pairs: Vec<(u64, u32)> = Vec::with_capacity(rows.entities.len());
            let mut entity = 0_usize;
            for (row, distance) in (0_u32..).zip(&rows.entities) {
                entity += usize::try_from(*distance).unwrap_or(0);
                let Some(Some(number)) = numbers.get(entity) else { continue };
                let at = usize::try_from(row).ok().and_then(|row| rows.labels.get(row)).copied().unwrap_or(0);
                let text = usize::try_from(at).ok().and_then(|at| message.strings.get(at));
                let Some(label) = text.map_or(Some(0), |text| self.labels.number(text, names)) else {
                    continue;
                };
                pairs.push((u64::from(*number) << 32 | u64::from(label), row));
            }
            pairs.sort_unstable();
            pairs.dedup_by_key(|(key, _)| *key);
            let keys: Keys = pairs.iter().map(|(key, _)| *key).collect();
            let set = u16::try_from(step.sets.len()).unwrap_or(u16::MAX);
            step.sets.push(keys);
            orders.push((set, pairs.into_iter().map(|(_, row)| row).collect()));
        }
        for column in &message.columns {
            let Some(metric) = metric(column.metric) else { continue };
            let order = usize::try_from(column.rows).ok().and_then(|rows| orders.get(rows));
            let (Some((set, order)), Ok(id)) = (order, u16::try_from(column.metric)) else { continue };
            let value = |row: &u32| {
                let row = usize::try_from(*row).unwrap_or(usize::MAX);
                let integer = column.integers.get(row).copied();
                integer.or_else(|| column.doubles.get(row).map(|d| d.to_bits())).unwrap_or(0)
            };
            debug_assert!(
                metric.is_rate() || metric.value_type == ValueType::Integer || column.integers.is_empty()
            );
            step.columns.push(Column { id, set: *set, values: order.iter().map(value).collect() });
        }
        put_windows(&mut step, message, numbers);
        step.columns.sort_by_key(|c| c.id);
        step
    }

    /// Forgets what left the window: entities, and which pushes were taken.
    fn tidy(&mut self) {
        if let Some(oldest) = self.window.times().last() {
            self.forget_unseen(oldest);
        }
    }

    fn forget_unseen(&mut self, oldest: u64) {
        let Node { order, taken, .. } = self;
        for (_, boot, sequence) in order.drain(..order.len().saturating_sub(MAX_PUSHES)) {
            taken.remove(&(boot, sequence));
        }
        order.retain(|(slot, boot, sequence)| {
            let stays = *slot >= oldest;
            if !stays {
                taken.remove(&(*boot, *sequence));
            }
            stays
        });
        self.pushes.retain(|slot, _| *slot >= oldest);
        self.versions.retain(|slot, _| *slot >= oldest);
        let Node { entities, by_key, population, free, .. } = self;
        if entities.iter().flatten().any(|entity| entity.seen_ms < oldest) {
            // Before they go: what stands in order is compared by their keys.
            by_key.retain(|number| {
                let entity = usize::try_from(*number).ok().and_then(|at| entities.get(at)?.as_ref());
                entity.is_some_and(|entity| entity.seen_ms >= oldest)
            });
            for (number, place) in (0_u32..).zip(entities) {
                if let Some(gone) = place.take_if(|entity| entity.seen_ms < oldest) {
                    population.left(&gone.key);
                    free.push(number);
                }
            }
        }
        if self.labels.live() > self.labels.sweep_at {
            self.labels.keep(self.window.keys().map(|key| key & u64::from(u32::MAX)));
        }
    }
}

fn value(metric: &Metric, bits: u64, window: Option<rate::Window>) -> Value {
    match (window, metric.value_type) {
        (Some(window), ValueType::Double) => Value::Double(window.per_second(bits)),
        (Some(window), ValueType::Integer) => Value::Integer(window.millicores(bits)),
        (None, ValueType::Double) => Value::Double(f64::from_bits(bits)),
        (None, ValueType::Integer) => Value::Integer(bits),
    }
}

/// One row for the window that most entities have, and one for each other entity
/// that has one: most nodes read all their cgroups in one go.
fn put_windows(step: &mut Step, message: &proto::Batch, numbers: &[Option<u32>]) {
    let ns = |window: u32| {
        let at = usize::try_from(window).ok()?.checked_sub(1)?;
        message.windows_ns.get(at).copied()
    };
    let mut rows: Vec<(u64, u64)> = message
        .entities
        .iter()
        .zip(numbers)
        .filter_map(|(entity, number)| Some((u64::from((*number)?) << 32, ns(entity.window)?)))
        .collect();
    let mut counts: HashMap<u64, usize> = HashMap::new();
    rows.iter().for_each(|(_, ns)| *counts.entry(*ns).or_default() += 1);
    let Some((common, _)) = counts.into_iter().max_by_key(|(ns, count)| (*count, *ns)) else { return };
    rows.retain(|(_, ns)| *ns != common);
    rows.push((COMMON, common));
    rows.sort_unstable();
    let set = u16::try_from(step.sets.len()).unwrap_or(u16::MAX);
    step.sets.push(rows.iter().map(|(key, _)| *key).collect());
    step.columns.push(Column { id: WINDOWS, set, values: rows.into_iter().map(|(_, ns)| ns).collect() });
}

/// The window of an entity's rates in a step.
fn window_of(step: &Step, key: u64) -> Option<u64> {
    step.value(WINDOWS, key >> 32 << 32).or_else(|| step.value(WINDOWS, COMMON))
}

/// Two pushes of one slot: counters and gauges of the newer one, and of both
/// together the increases and the windows they were taken over.
fn merge(newer: Step, older: &Step) -> Step {
    let mut merged = newer;
    let before = merged.clone();
    for column in &mut merged.columns {
        let Some(keys) = before.sets.get(usize::from(column.set)) else { continue };
        if column.id == WINDOWS || !metric(i32::from(column.id)).is_some_and(Metric::is_rate) {
            continue;
        }
        for (key, value) in keys.iter().zip(&mut column.values) {
            let (Some(own), Some(other)) = (window_of(&before, *key), window_of(older, *key)) else {
                continue;
            };
            match older.value(column.id, *key) {
                Some(increase) => *value = value.saturating_add(increase),
                // Not risen with the others in the other push: its counter began
                // again. Its own window stands for both.
                None => {
                    let scaled =
                        u128::from(*value) * u128::from(own.saturating_add(other)) / u128::from(own.max(1));
                    *value = u64::try_from(scaled).unwrap_or(u64::MAX);
                }
            }
        }
    }
    let numbers: HashSet<u64> =
        before.sets.iter().flat_map(|s| s.iter()).map(|key| key >> 32 << 32).collect();
    let total = |key: u64| {
        let own = window_of(&before, key)?;
        Some(own.saturating_add(window_of(older, key).unwrap_or(0)))
    };
    let mut rows: Vec<(u64, u64)> = numbers.into_iter().filter_map(|key| Some((key, total(key)?))).collect();
    let common =
        before.value(WINDOWS, COMMON).map(|ns| ns.saturating_add(older.value(WINDOWS, COMMON).unwrap_or(0)));
    rows.retain(|(key, ns)| *key != COMMON >> 32 << 32 && Some(*ns) != common);
    rows.extend(common.map(|ns| (COMMON, ns)));
    rows.sort_unstable();
    let set = u16::try_from(merged.sets.len()).unwrap_or(u16::MAX);
    merged.sets.push(rows.iter().map(|(key, _)| *key).collect());
    merged.columns.retain(|c| c.id != WINDOWS);
    merged
        .columns
        .insert(0, Column { id: WINDOWS, set, values: rows.into_iter().map(|(_, ns)| ns).collect() });
    merged
}

fn latest(batch: &Batch, step: &Step, numbers: &[Option<u32>]) -> Latest {
    let id = |metric: MetricId| u16::try_from(metric as i32).unwrap_or(u16::MAX);
    let usage = |number: u32| {
        let key = u64::from(number) << 32;
        let window = window_of(step, key).and_then(rate::Window::from_ns);
        let increase = step.value(id(MetricId::CpuUsageRate), key);
        let usage = Usage {
            window_ns: window.map(rate::Window::ns),
            cpu_nano: window.zip(increase).map(|(window, increase)| window.nanocores(increase)),
            memory: step.value(id(MetricId::MemoryWorkingSet), key),
        };
        (number, usage)
    };
    let mut numbers: Vec<u32> = numbers.iter().flatten().copied().collect();
    numbers.sort_unstable();
    numbers.dedup();
    Latest {
        time_ms: batch.time_ms(),
        sampled_ms: batch.sampled_ms(),
        resolution_ms: batch.resolution_ms(),
        usage: numbers.into_iter().map(usage).collect(),
    }
}
