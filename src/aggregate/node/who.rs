//! Who a push is about: its entities → their numbers in the model.
//!
//! A node says the same of the same entities push after push, in the same order.
//! So each is looked for where it stood, and what is known of it is compared with
//! what is said, before any of it is made anew.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use super::{Entity, Key, Kind, Labels, MAX_ENTITIES, Node, Run, Told};
use crate::aggregate::names::Names;
use crate::identity::path::PodUid;
use crate::push::batch::{Batch, proto};

/// A key as it is looked for.
pub(super) type Parts<'a> = (Kind, &'a str, &'a str, &'a str);

impl Key {
    pub(super) fn parts(&self) -> Parts<'_> {
        (self.kind, &self.namespace, &self.pod, &self.container)
    }
}

impl Node {
    pub(super) fn entity(&self, number: u32) -> Option<&Entity> {
        self.entities.get(usize::try_from(number).ok()?)?.as_ref()
    }

    /// Where the number of an entity stands among those in the order of keys, or where it belongs.
    pub(super) fn place_of(&self, parts: Parts<'_>) -> Result<usize, usize> {
        self.by_key.binary_search_by(|number| {
            self.entity(*number).map_or(Ordering::Less, |entity| entity.key.parts().cmp(&parts))
        })
    }

    /// The number of an entity; most stand where they stood in the push before.
    fn number_of(&self, at: usize, parts: Parts<'_>) -> Option<u32> {
        if let Some(Some(entity)) = self.entities.get(at)
            && entity.key.parts() == parts
        {
            return u32::try_from(at).ok();
        }
        self.by_key.get(self.place_of(parts).ok()?).copied()
    }

    /// Numbers of the batch's entities; `None` for one that is not in the model.
    pub(super) fn numbers(&mut self, batch: &Batch, slot: u64, names: &Names) -> Vec<Option<u32>> {
        let message = batch.message();
        let text =
            |at: u32| usize::try_from(at).ok().and_then(|at| message.strings.get(at)).map_or("", |s| s);
        let mut pod_labels: HashMap<(u32, u32), Labels> = HashMap::new();
        let mut numbers = Vec::with_capacity(message.entities.len());
        // Most nodes keep about as many as they come with.
        if self.entities.is_empty() {
            self.entities.reserve_exact(message.entities.len());
            self.by_key.reserve_exact(message.entities.len());
        }
        for (at, entity) in message.entities.iter().enumerate() {
            let kind = match entity.kind() {
                proto::EntityKind::Node => Kind::Node,
                proto::EntityKind::System => Kind::System,
                proto::EntityKind::Pod if entity.pod != 0 => Kind::Pod,
                // Containers outside pods are the node's own affair.
                proto::EntityKind::Container if entity.pod != 0 && entity.container != 0 => Kind::Container,
                _ => {
                    numbers.push(None);
                    continue;
                }
            };
            let parts = (kind, text(entity.namespace), text(entity.pod), text(entity.container));
            let number = self.number_of(at, parts);
            // Two runs of a container in one step: the one that lives is it.
            if number.is_some() && entity.departed && numbers.contains(&number) {
                numbers.push(None);
                continue;
            }
            let known = number.and_then(|number| self.entity(number));
            let pod = (entity.namespace, entity.pod);
            // Those of the machine are keyed by no pod.
            if matches!(kind, Kind::Pod | Kind::Node) {
                let pairs = entity.labels.chunks_exact(2).filter_map(|pair| match pair {
                    [key, value] => Some((text(*key), text(*value))),
                    _ => None,
                });
                pod_labels.insert(pod, labels(pairs, known.map(|known| &known.labels), names));
            }
            let described = Described {
                image: (entity.image != 0).then(|| text(entity.image)),
                pod_uid: entity.pod_uid.as_slice().try_into().ok().map(|uid| (uid, entity.static_pod)),
                run: match kind {
                    Kind::Container => Told {
                        id: &entity.container_id,
                        id_text: text(entity.container_id_text),
                        name: text(entity.name),
                    },
                    _ => Told::default(),
                },
                labels: pod_labels.get(&pod).filter(|_| kind != Kind::System),
                start_ms: (entity.start_ms > 0).then_some(entity.start_ms),
                host_network: entity.host_network,
                seen_ms: slot,
            };
            numbers.push(match number {
                Some(number) => {
                    let known = usize::try_from(number).ok().and_then(|at| self.entities.get_mut(at));
                    if let Some(known) = known.and_then(Option::as_mut) {
                        described.onto(known, names);
                    }
                    Some(number)
                }
                None => self.place(parts, &described, names),
            });
        }
        numbers
    }

    /// Gives somebody new a number.
    fn place(&mut self, parts: Parts<'_>, described: &Described<'_>, names: &Names) -> Option<u32> {
        let number = match self.free.pop() {
            Some(number) => number,
            None if self.entities.len() >= MAX_ENTITIES => {
                self.unplaced += 1;
                return None;
            }
            None => {
                self.entities.push(None);
                u32::try_from(self.entities.len() - 1).ok()?
            }
        };
        let (kind, namespace, pod, container) = parts;
        let [namespace, pod, container] = [namespace, pod, container].map(|text| names.get(text));
        let key = Key { kind, namespace, pod, container };
        self.population.came(&key);
        let place = self.place_of(parts).unwrap_or_else(|place| place);
        self.by_key.insert(place, number);
        let mut entity = Entity {
            key,
            image: None,
            pod_uid: None,
            run: None,
            labels: Labels::default(),
            start_ms: None,
            host_network: false,
            seen_ms: 0,
        };
        described.onto(&mut entity, names);
        *self.entities.get_mut(usize::try_from(number).ok()?)? = Some(entity);
        Some(number)
    }
}

/// What a push says of an entity.
struct Described<'a> {
    image: Option<&'a str>,
    pod_uid: Option<([u8; 16], bool)>,
    run: Told<'a>,
    labels: Option<&'a Labels>,
    start_ms: Option<u64>,
    host_network: bool,
    seen_ms: u64,
}

impl Described<'_> {
    /// Puts it where it is kept, unless something newer is there. Most of it is there already.
    fn onto(&self, entity: &mut Entity, names: &Names) {
        if entity.seen_ms > self.seen_ms {
            return;
        }
        put(&mut entity.image, self.image, names);
        let uid = self.pod_uid.map(|(uid, is_static)| PodUid::from_bytes(uid, is_static).to_string());
        put(&mut entity.pod_uid, uid.as_deref(), names);
        Run::put(&mut entity.run, &self.run, self.seen_ms, names);
        match self.labels {
            None => entity.labels = Labels::default(),
            Some(labels) if Arc::ptr_eq(labels, &entity.labels) => {}
            Some(labels) => entity.labels = Arc::clone(labels),
        }
        entity.start_ms = self.start_ms;
        entity.host_network = self.host_network;
        entity.seen_ms = self.seen_ms;
    }
}

fn put(place: &mut Option<Arc<str>>, text: Option<&str>, names: &Names) {
    if place.as_deref() != text {
        *place = text.map(|text| names.get(text));
    }
}

/// Labels of an entity: those it has, where they are the same.
fn labels<'a>(
    pairs: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    known: Option<&Labels>,
    names: &Names,
) -> Labels {
    let same = |known: &&Labels| {
        let mut pairs = pairs.clone();
        known.iter().all(|(key, value)| pairs.next().is_some_and(|pair| pair == (&**key, &**value)))
            && pairs.next().is_none()
    };
    match known.filter(same) {
        Some(known) => Arc::clone(known),
        None => pairs.map(|(key, value)| (names.get(key), names.get(value))).collect(),
    }
}
