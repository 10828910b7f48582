//! A node as it is written down. What is read is not believed: it is put together
//! again or refused as a whole.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Entity, Key, Kind, Labelled, Labels, Latest, MAX_ENTITIES, Node, Run, Told, Usage};
use crate::aggregate::names::Names;
use crate::aggregate::window::{SavedWindow, Window};

/// One node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SavedNode {
    #[prost(message, repeated, tag = "1")]
    entities: Vec<SavedEntity>,
    /// Keys and values of labels in turn; entities name them by index and one.
    #[prost(message, repeated, tag = "2")]
    labels: Vec<SavedLabels>,
    /// Numbers of label values, and these.
    #[prost(uint32, repeated, tag = "3")]
    numbers: Vec<u32>,
    #[prost(string, repeated, tag = "4")]
    texts: Vec<String>,
    #[prost(message, optional, tag = "5")]
    window: Option<SavedWindow>,
    /// Slot and newest push in turn.
    #[prost(uint64, repeated, tag = "6")]
    pushes: Vec<u64>,
    #[prost(message, repeated, tag = "7")]
    taken: Vec<SavedPush>,
    /// Time, moment of measuring and resolution of the newest push, milliseconds.
    #[prost(uint64, repeated, tag = "8")]
    latest: Vec<u64>,
    #[prost(message, repeated, tag = "9")]
    usage: Vec<SavedUsage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SavedEntity {
    #[prost(uint32, tag = "1")]
    number: u32,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "4")]
    pod: String,
    #[prost(string, tag = "5")]
    container: String,
    #[prost(string, optional, tag = "6")]
    image: Option<String>,
    #[prost(string, optional, tag = "7")]
    pod_uid: Option<String>,
    #[prost(uint32, tag = "8")]
    labels: u32,
    #[prost(uint64, optional, tag = "9")]
    start_ms: Option<u64>,
    #[prost(bool, tag = "10")]
    host_network: bool,
    #[prost(uint64, tag = "11")]
    seen_ms: u64,
    /// What a runtime calls the container.
    #[prost(bytes = "vec", tag = "12")]
    id: Vec<u8>,
    #[prost(string, tag = "13")]
    id_text: String,
    #[prost(string, tag = "14")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SavedLabels {
    #[prost(string, repeated, tag = "1")]
    pairs: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SavedPush {
    #[prost(uint64, tag = "1")]
    slot: u64,
    #[prost(bytes = "vec", tag = "2")]
    boot_id: Vec<u8>,
    #[prost(uint64, tag = "3")]
    sequence: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct SavedUsage {
    #[prost(uint32, tag = "1")]
    number: u32,
    #[prost(uint64, optional, tag = "2")]
    window_ns: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    cpu_nano: Option<u64>,
    #[prost(uint64, optional, tag = "4")]
    memory: Option<u64>,
}

const KINDS: [Kind; 4] = [Kind::Node, Kind::System, Kind::Pod, Kind::Container];

impl Node {
    /// As it is.
    pub fn save(&self) -> SavedNode {
        // A pod's containers share its labels.
        let mut sets: Vec<&Labels> = Vec::new();
        let mut numbers: HashMap<*const (Arc<str>, Arc<str>), u32> = HashMap::new();
        for (_, entity) in self.entities().filter(|(_, entity)| !entity.labels.is_empty()) {
            numbers.entry(entity.labels.as_ptr()).or_insert_with(|| {
                sets.push(&entity.labels);
                u32::try_from(sets.len()).unwrap_or(0)
            });
        }
        let labels_of = |labels: &Labels| numbers.get(&labels.as_ptr()).copied().unwrap_or(0);
        let text = |text: &Arc<str>| text.to_string();
        let entities = self.entities().map(|(number, entity)| SavedEntity {
            number,
            kind: KINDS.iter().zip(0..).find(|(kind, _)| **kind == entity.key.kind).map_or(0, |(_, at)| at),
            namespace: text(&entity.key.namespace),
            pod: text(&entity.key.pod),
            container: text(&entity.key.container),
            image: entity.image.as_ref().map(text),
            pod_uid: entity.pod_uid.as_ref().map(text),
            labels: labels_of(&entity.labels),
            start_ms: entity.start_ms,
            host_network: entity.host_network,
            seen_ms: entity.seen_ms,
            id: entity.run.as_ref().map(|run| run.id().to_vec()).unwrap_or_default(),
            id_text: entity.run.as_ref().map(|run| run.id_text().to_owned()).unwrap_or_default(),
            name: entity.run.as_ref().map(|run| run.name()).unwrap_or_default(),
        });
        let entities = entities.collect();
        let pairs = |labels: &&Labels| SavedLabels {
            pairs: labels.iter().flat_map(|(key, value)| [key.to_string(), value.to_string()]).collect(),
        };
        let taken = self.order.iter().map(|(slot, boot_id, sequence)| SavedPush {
            slot: *slot,
            boot_id: boot_id.to_vec(),
            sequence: *sequence,
        });
        let usage = self.latest.usage.iter().map(|(number, usage)| {
            let Usage { window_ns, cpu_nano, memory } = *usage;
            SavedUsage { number: *number, window_ns, cpu_nano, memory }
        });
        let (numbers, texts) = self.labels.all().map(|(number, text)| (number, text.to_string())).unzip();
        SavedNode {
            entities,
            labels: sets.iter().map(pairs).collect(),
            numbers,
            texts,
            window: Some(self.window.save()),
            pushes: self.pushes.iter().flat_map(|(slot, push)| [*slot, *push]).collect(),
            taken: taken.collect(),
            latest: vec![self.latest.time_ms, self.latest.sampled_ms, self.latest.resolution_ms],
            usage: usage.collect(),
        }
    }

    /// What was written down, for `steps` slots of `resolution_ms` milliseconds; `None` if
    /// it cannot have been.
    pub fn restore(saved: SavedNode, resolution_ms: u64, steps: usize, names: &Names) -> Option<Node> {
        let mut node = Node::new(resolution_ms, steps);
        let sets = saved.labels.iter().map(|set| -> Option<Labels> {
            let pair = |pair: &[String]| match pair {
                [key, value] => Some((names.get(key), names.get(value))),
                _ => None,
            };
            set.pairs.chunks(2).map(pair).collect::<Option<Vec<_>>>().map(Labels::from)
        });
        let sets: Vec<Labels> = sets.collect::<Option<_>>()?;
        for entity in saved.entities {
            let at = usize::try_from(entity.number).ok().filter(|at| *at < MAX_ENTITIES)?;
            if node.entities.len() <= at {
                node.entities.resize(at + 1, None);
            }
            let labels = match usize::try_from(entity.labels).ok()?.checked_sub(1) {
                None => Labels::default(),
                Some(at) => sets.get(at)?.clone(),
            };
            let key = Key {
                kind: *KINDS.get(usize::try_from(entity.kind).ok()?)?,
                namespace: names.get(&entity.namespace),
                pod: names.get(&entity.pod),
                container: names.get(&entity.container),
            };
            let Err(place) = node.place_of(key.parts()) else { return None };
            node.by_key.insert(place, entity.number);
            node.population.came(&key);
            let mut run = None;
            let told = Told { id: &entity.id, id_text: &entity.id_text, name: &entity.name };
            Run::put(&mut run, &told, entity.seen_ms, names);
            let described = Entity {
                key,
                run,
                image: entity.image.as_deref().map(|image| names.get(image)),
                pod_uid: entity.pod_uid.as_deref().map(|uid| names.get(uid)),
                labels,
                start_ms: entity.start_ms,
                host_network: entity.host_network,
                seen_ms: entity.seen_ms,
            };
            if node.entities.get_mut(at)?.replace(described).is_some() {
                return None;
            }
        }
        let free = (0..).zip(&node.entities).filter(|(_, entity)| entity.is_none()).map(|(number, _)| number);
        node.free = free.collect();
        if saved.numbers.len() != saved.texts.len() {
            return None;
        }
        let texts = saved.numbers.iter().copied().zip(saved.texts.iter().map(|text| names.get(text)));
        node.labels = Labelled::restore(texts)?;
        node.window = Window::restore(saved.window?, steps)?;
        for pair in saved.pushes.chunks(2) {
            let [slot, push] = pair else { return None };
            node.pushes.insert(*slot, *push);
        }
        for push in saved.taken {
            let boot_id: [u8; 16] = push.boot_id.try_into().ok()?;
            if node.taken.insert((boot_id, push.sequence)) {
                node.order.push((push.slot, boot_id, push.sequence));
            }
        }
        let [time_ms, sampled_ms, resolution_ms] = saved.latest.as_slice().try_into().ok()?;
        let usage = saved.usage.iter().map(|saved| {
            let SavedUsage { number, window_ns, cpu_nano, memory } = *saved;
            (number, Usage { window_ns, cpu_nano, memory })
        });
        node.latest = Latest { time_ms, sampled_ms, resolution_ms, usage: usage.collect() };
        let rises = node.latest.usage.is_sorted_by(|(a, _), (b, _)| a < b);
        rises.then_some(node)
    }
}
