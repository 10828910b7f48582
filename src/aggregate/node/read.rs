//! What is asked of a node: its steps by series and by slot, and its newest push.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{COMMON, Entity, Key, Kind, Labels, Node, Usage, WINDOWS, value, window_of};
use crate::aggregate::window::Step;
use crate::push::batch::{BREAK, Label, Metric, Value, metric};
use crate::rate;

/// One value of an entity in a slot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure<'a> {
    /// What it is a value of.
    pub metric: &'static Metric,
    /// The value of the metric's label; empty where it has none.
    pub label: &'a str,
    /// In the metric's unit.
    pub value: Value,
}

/// A pod in the newest push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedPod {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub pod: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its containers: name and use, by name.
    pub containers: Vec<(Arc<str>, Usage)>,
}

impl Node {
    /// Metrics without a label that an entity has a value of in the newest slot not
    /// after `until_ms`.
    pub fn metrics_of(&self, number: u32, until_ms: u64) -> Vec<&'static Metric> {
        let Some(step) = self.newest_until(until_ms) else { return Vec::new() };
        let key = u64::from(number) << 32;
        let columns = step.columns.iter().filter(|c| step.value(c.id, key).is_some());
        columns.filter_map(|c| metric(i32::from(c.id))).filter(|m| m.label.is_none()).collect()
    }

    /// Names under which an entity has values there of metrics that are named by their
    /// label, and that have no other.
    pub fn names_of(&self, number: u32, until_ms: u64) -> Vec<String> {
        let Some(step) = self.newest_until(until_ms) else { return Vec::new() };
        let mut names = Vec::new();
        for column in &step.columns {
            let named = metric(i32::from(column.id)).filter(|m| m.label == Some(Label::Name));
            let Some((metric, (keys, _))) = named.zip(step.column(column.id)) else { continue };
            let of_entity = keys.iter().filter(|key| **key >> 32 == u64::from(number));
            let texts = of_entity.filter_map(|key| self.labels.text(*key));
            let plain = texts.filter(|text| !text.is_empty() && !text.contains(BREAK));
            names.extend(plain.map(|text| metric.called_with(Some(text)).into_owned()));
        }
        names
    }

    fn newest_until(&self, until_ms: u64) -> Option<Step> {
        self.window.times().find(|time| *time <= until_ms).and_then(|time| self.window.at(time))
    }

    /// Times and values of a metric, from new to old; `label` is that of the
    /// value, empty where the metric has none.
    pub fn series(&self, number: u32, metric: &Metric, label: &str, mut each: impl FnMut(u64, Value)) {
        let (Some(label), Ok(id)) = (self.labels.find(label), u16::try_from(metric.id as i32)) else {
            return;
        };
        let key = u64::from(number) << 32 | u64::from(label);
        if !metric.is_rate() {
            return self.window.series(id, key, |time, bits| each(time, value(metric, bits, None)));
        }
        let mut windows = HashMap::new();
        self.window.series(WINDOWS, COMMON, |time, ns| {
            windows.insert(time, ns);
        });
        self.window.series(WINDOWS, u64::from(number) << 32, |time, ns| {
            windows.insert(time, ns);
        });
        self.window.series(id, key, |time, increase| {
            if let Some(window) = windows.get(&time).and_then(|ns| rate::Window::from_ns(*ns)) {
                each(time, value(metric, increase, Some(window)));
            }
        });
    }

    /// Labels under which the newest step has values of a metric for an entity.
    pub fn labels_of(&self, number: u32, metric: &Metric) -> Vec<Arc<str>> {
        let id = u16::try_from(metric.id as i32).ok();
        let keys = id.and_then(|id| self.window.newest_keys(id)).map_or(&[][..], |keys| keys);
        let of_entity = keys.iter().filter(|key| **key >> 32 == u64::from(number));
        let label = |key: &u64| self.labels.text(*key);
        of_entity.filter_map(label).cloned().collect()
    }
    /// Hands every entity that has a value of a wanted metric in the slot to
    /// `each`, with these values: in the order of keys, and of the metrics' numbers.
    pub fn figures_at(
        &self,
        slot: u64,
        wanted: impl Fn(&Metric) -> bool,
        mut each: impl FnMut(&Entity, &[Figure<'_>]),
    ) {
        let asked = |id: u16| id == WINDOWS || metric(i32::from(id)).is_some_and(&wanted);
        let Some(step) = self.window.at_with(slot, asked) else { return };
        let mut of: BTreeMap<u32, Vec<Figure<'_>>> = BTreeMap::new();
        for column in &step.columns {
            let Some(metric) = metric(i32::from(column.id)).filter(|m| wanted(m)) else { continue };
            let keys = step.sets.get(usize::from(column.set)).map_or(&[][..], |keys| keys);
            for (key, bits) in keys.iter().zip(&column.values) {
                let (Some(label), Ok(number)) = (self.labels.text(*key), u32::try_from(key >> 32)) else {
                    continue;
                };
                let window = window_of(&step, *key).and_then(rate::Window::from_ns);
                if metric.is_rate() && window.is_none() {
                    continue;
                }
                let value = value(metric, *bits, window.filter(|_| metric.is_rate()));
                of.entry(number).or_default().push(Figure { metric, label, value });
            }
        }
        let entity = |number: &u32| self.entities.get(usize::try_from(*number).ok()?)?.as_ref();
        let mut found: Vec<_> = of.iter().filter_map(|(number, of)| Some((entity(number)?, of))).collect();
        found.sort_by(|(a, _), (b, _)| a.key.cmp(&b.key));
        found.into_iter().for_each(|(entity, of)| each(entity, of));
    }

    /// What the newest push says of the machine itself.
    pub fn used(&self) -> Option<(&Entity, Usage)> {
        let (number, entity) = self.entities().find(|(_, e)| e.key.kind == Kind::Node)?;
        Some((entity, self.latest.usage_of(number)?))
    }

    /// Pods with containers in the newest push that are `wanted`, in order.
    pub fn used_by_pods(&self, wanted: impl Fn(&Key) -> bool) -> Vec<UsedPod> {
        let mut found: Vec<UsedPod> = Vec::new();
        // In the order of keys the containers of a pod stand together.
        for number in &self.by_key {
            let Some(entity) = self.entity(*number) else { continue };
            let key = &entity.key;
            if key.kind != Kind::Container || !wanted(key) {
                continue;
            }
            let Some(usage) = self.latest.usage_of(*number) else { continue };
            let container = (Arc::clone(&key.container), usage);
            match found.last_mut() {
                Some(last) if last.namespace == key.namespace && last.pod == key.pod => {
                    last.containers.push(container);
                }
                _ => found.push(UsedPod {
                    namespace: Arc::clone(&key.namespace),
                    pod: Arc::clone(&key.pod),
                    labels: self.labels_of_pod(&key.namespace, &key.pod),
                    containers: vec![container],
                }),
            }
        }
        found
    }

    /// The labels of a pod, none where it is not known.
    pub fn labels_of_pod(&self, namespace: &str, pod: &str) -> Labels {
        let place = self.place_of((Kind::Pod, namespace, pod, "")).ok();
        let number = place.and_then(|place| self.by_key.get(place));
        number.and_then(|number| self.entity(*number)).map(|pod| pod.labels.clone()).unwrap_or_default()
    }
}
