//! Closed slots → what databases get of them: batches of many machines, each a
//! part of one step, small enough to be encoded and sent one at a time.
//!
//! What was made is remembered for as long as the model remembers: for each slot
//! and machine from how many pushes, and which. So a slot is made once; of what
//! comes late only the machines it came from, and the sums over namespaces and the
//! cluster; and after a restart, while agents refill the model, nothing is made
//! again but what has more in it than before. Sums wait then until every machine
//! has told at least as much as before, since half a sum is a wrong one.
//!
//! What programs push of themselves goes with the first step of its slot, and again
//! where more of it came; never again after a restart, since some of it may be gone.
//!
//! What is remembered can be written down: see [`Steps::encode`]. A replica that
//! was pushed the same has made the same, which [`Coverage`] tells.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::custom;
use super::model::{Model, SUMMED, Subject, Sums};
use super::node::{Kind, Row, Version};
use crate::identity::path::PodUid;
use crate::push::batch::{self, Assembler, BREAK, Batch, Encoder, MetricId, ValueType, join, proto};
use crate::push::delivery::hash;

/// Values of a batch, about: half a megabyte before it is compressed.
const VALUES: usize = 32_768;

/// Entities of a batch at most.
const ENTITIES: usize = 4_096;

/// Slots that others are told of: those that something can still come late into, mostly.
const TOLD: usize = 256;

/// What is written down begins with this.
const MARK: [u8; 8] = *b"ngsteps1";

/// The window that sums of rates are taken to have risen over, nanoseconds.
const SECOND_NS: u64 = 1_000_000_000;

/// Increase over [`SECOND_NS`] of one thousandth of a core.
const MILLICORE: u64 = 1_000_000;

/// What was made of one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Made {
    /// By the hash of a machine's name.
    nodes: BTreeMap<u64, Version>,
    /// The sums are of less than that.
    sums_wait: bool,
    /// What programs had pushed; `None` where a process before this one made it.
    customs: Option<u64>,
}

/// What was made so far, for whoever compares it with another's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// From this slot on every slot was made that there was, milliseconds since the epoch.
    pub since_ms: u64,
    /// The newest slot made; 0 before there is one.
    pub last_ms: u64,
    /// The slots that are remembered, with a digest of what they were made from.
    pub slots: BTreeMap<u64, u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Steps {
    made: BTreeMap<u64, Made>,
    since_ms: u64,
    last_ms: u64,
    boot_id: [u8; 16],
    encoder: Encoder,
    /// Newest slot and number of late pushes at the last look.
    seen: Option<(u64, u64)>,
    /// Before then what came late is not looked at again.
    late_due_ms: u64,
}

impl Steps {
    /// Where nothing was made yet.
    ///
    /// # Errors
    /// No memory for the compressor.
    pub fn new() -> std::io::Result<Steps> {
        Ok(Steps {
            made: BTreeMap::new(),
            since_ms: 0,
            last_ms: 0,
            boot_id: batch::boot_id(),
            encoder: Encoder::new()?,
            seen: None,
            late_due_ms: 0,
        })
    }

    /// Makes what the model has and was not made yet; `write` is handed the moment
    /// and the encoded batches one after the other. Returns how many there were.
    ///
    /// # Errors
    /// The compressor has no memory.
    pub fn make(
        &mut self,
        model: &Model,
        now_ms: u64,
        mut write: impl FnMut(u64, &[u8]),
    ) -> std::io::Result<usize> {
        // Sums that are not worked out again yet will be at the next look.
        let (Some(closed), Some(late)) = (model.closed_ms(), model.late()) else { return Ok(0) };
        let is_new = self.seen.is_none_or(|(slot, _)| slot != closed);
        if self.seen == Some((closed, late)) || (!is_new && now_ms < self.late_due_ms) {
            return Ok(0);
        }
        self.seen = Some((closed, late));
        // What comes late comes in crowds.
        self.late_due_ms = now_ms.saturating_add((model.resolution_ms() / 4).clamp(250, 5_000));
        let oldest = closed.saturating_sub(model.kept_ms());
        let mut count = 0;
        for (slot, nodes) in model.versions() {
            count += self.slot(model, slot, &nodes, late, &mut write)?;
        }
        if model.late() != Some(late) {
            self.seen = None;
        }
        self.made.retain(|slot, _| *slot > oldest);
        Ok(count)
    }

    fn slot(
        &mut self,
        model: &Model,
        slot: u64,
        nodes: &BTreeMap<Arc<str>, Version>,
        late: u64,
        write: &mut impl FnMut(u64, &[u8]),
    ) -> std::io::Result<usize> {
        let before = self.made.get(&slot);
        let had = |key: u64| before.and_then(|made| made.nodes.get(&key));
        let has_more = |key: u64, now: &Version| {
            had(key).is_none_or(|had| now.digest != had.digest && now.pushes >= had.pushes)
        };
        let keyed: BTreeMap<u64, (&Arc<str>, &Version)> =
            nodes.iter().map(|(name, version)| (key_of(name), (name, version))).collect();
        let changed: Vec<&Arc<str>> =
            keyed.iter().filter(|(key, (_, now))| has_more(**key, now)).map(|(_, (name, _))| *name).collect();
        let is_whole = before.is_none_or(|made| {
            let told =
                |key: &u64, had: &Version| keyed.get(key).is_some_and(|(_, now)| now.pushes >= had.pushes);
            made.nodes.iter().all(|(key, had)| told(key, had))
        });
        let waited = before.is_some_and(|made| made.sums_wait);
        let pushed = model.customs().digest(slot).unwrap_or(0);
        let customs_before = before.map_or(Some(0), |made| made.customs);
        let customs_changed = customs_before.is_some_and(|made| made != pushed);
        if changed.is_empty() && !customs_changed && !(waited && is_whole) {
            return Ok(0);
        }
        let sums_stand = changed.is_empty() && !waited;
        let mut parts = Parts::new(model, slot, self.boot_id);
        let mut versions = Vec::new();
        let mut count = 0;
        for name in changed {
            let version = model.rows_at(name, slot, |row| parts.row(name, row));
            versions.extend(version.map(|version| (key_of(name), version)));
            for part in parts.finished.drain(..) {
                write(slot, &self.encoder.encode(&part)?);
                count += 1;
            }
        }
        if customs_changed {
            // In batches of their own: within one an entity that comes twice is one that was restarted.
            parts.begin_next();
            model.customs().at(slot, |subject, figures| parts.custom(model, subject, figures));
            parts.begin_next();
        }
        // Another thread closes slots and takes pushes: sums that may be of other rows
        // than these, or are not there yet, wait for the next look.
        let fits = !sums_stand && is_whole && model.late() == Some(late);
        let sums = model.sums_at(slot).filter(|_| fits);
        if let Some(sums) = &sums {
            parts.sums(sums);
        }
        for part in parts.finish() {
            write(slot, &self.encoder.encode(&part)?);
            count += 1;
        }
        let made = self.made.entry(slot).or_default();
        made.customs = customs_before.map(|_| pushed);
        made.nodes.extend(versions);
        made.sums_wait = sums.is_none() && !sums_stand;
        if slot > self.last_ms {
            // What lies between was never told here.
            if self.last_ms == 0 || slot - self.last_ms > model.kept_ms() {
                self.since_ms = slot;
            }
            self.last_ms = slot;
        }
        self.since_ms = self.since_ms.min(slot);
        Ok(count)
    }

    /// What was made so far.
    pub fn coverage(&self) -> Coverage {
        let slots = self.made.iter().map(|(slot, made)| (*slot, made.digest())).collect();
        Coverage { since_ms: self.since_ms, last_ms: self.last_ms, slots }
    }

    /// What is remembered, to be read with [`Steps::resume`]: numbers of eight bytes,
    /// their checksum last.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MARK.to_vec();
        let mut put = |number: u64| out.extend_from_slice(&number.to_le_bytes());
        [self.since_ms, self.last_ms].into_iter().for_each(&mut put);
        for (slot, made) in &self.made {
            let count = u64::try_from(made.nodes.len()).unwrap_or(u64::MAX);
            [*slot, u64::from(made.sums_wait), count].into_iter().for_each(&mut put);
            for (key, version) in &made.nodes {
                [*key, u64::from(version.pushes), version.digest].into_iter().for_each(&mut put);
            }
        }
        let sum = hash(out.iter().copied());
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// Goes on from what was written down; false, and as before, where that is damaged.
    pub fn resume(&mut self, bytes: &[u8]) -> bool {
        match read(bytes) {
            Some((since_ms, last_ms, made)) => {
                (self.since_ms, self.last_ms, self.made) = (since_ms, last_ms, made);
                true
            }
            None => false,
        }
    }
}

fn read(bytes: &[u8]) -> Option<(u64, u64, BTreeMap<u64, Made>)> {
    let (rest, sum) = bytes.split_last_chunk()?;
    let numbers = rest.strip_prefix(&MARK)?;
    if hash(rest.iter().copied()) != u64::from_le_bytes(*sum) {
        return None;
    }
    let (words, _) = numbers.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    let (since_ms, last_ms) = (words.next()?, words.next()?);
    let mut slots = BTreeMap::new();
    while let Some(slot) = words.next() {
        let mut made = Made { sums_wait: words.next()? != 0, ..Made::default() };
        for _ in 0..words.next()? {
            let key = words.next()?;
            let pushes = u32::try_from(words.next()?).ok()?;
            made.nodes.insert(key, Version { pushes, digest: words.next()? });
        }
        slots.insert(slot, made);
    }
    Some((since_ms, last_ms, slots))
}

impl Made {
    fn digest(&self) -> u64 {
        let of = |(key, version): (&u64, &Version)| {
            let words = [*key, u64::from(version.pushes), version.digest];
            hash(words.into_iter().flat_map(u64::to_le_bytes))
        };
        self.nodes.iter().map(of).fold(u64::from(self.sums_wait), u64::wrapping_add)
    }
}

fn key_of(node: &str) -> u64 {
    hash(node.bytes())
}

/// The batches of one slot.
struct Parts {
    slot: u64,
    resolution_ms: u64,
    boot_id: [u8; 16],
    part: Assembler,
    entities: usize,
    finished: Vec<Batch>,
}

impl Parts {
    fn new(model: &Model, slot: u64, boot_id: [u8; 16]) -> Parts {
        let resolution_ms = model.resolution_ms();
        let part = Parts::begin(slot, resolution_ms, boot_id);
        Parts { slot, resolution_ms, boot_id, part, entities: 0, finished: Vec::new() }
    }

    fn begin(slot: u64, resolution_ms: u64, boot_id: [u8; 16]) -> Assembler {
        Assembler::new(proto::Batch {
            boot_id: boot_id.to_vec(),
            time_ms: slot,
            resolution_ms,
            sampled_ms: slot,
            agent: concat!("nodegauge/", env!("CARGO_PKG_VERSION")).to_owned(),
            ..proto::Batch::default()
        })
    }

    /// Begins the next batch if this one is full.
    fn turn(&mut self) {
        if self.part.values() >= VALUES || self.entities >= ENTITIES {
            self.begin_next();
        }
    }

    /// Begins the next batch.
    fn begin_next(&mut self) {
        let next = Parts::begin(self.slot, self.resolution_ms, self.boot_id);
        self.close(next);
    }

    fn close(&mut self, next: Assembler) {
        if std::mem::take(&mut self.entities) == 0 {
            return;
        }
        match std::mem::replace(&mut self.part, next).finish() {
            Ok(batch) => self.finished.push(batch),
            // What was put together here keeps the rules.
            Err(error) => {
                tracing::error!(%error, slot = self.slot, "BUG: a step breaks the rules of its format")
            }
        }
    }

    fn finish(mut self) -> Vec<Batch> {
        self.begin_next();
        self.finished
    }

    fn row(&mut self, node: &Arc<str>, row: &Row<'_>) {
        self.turn();
        let (entity, part) = (row.entity, &mut self.part);
        let key = &entity.key;
        let kind = match key.kind {
            Kind::Node => proto::EntityKind::Node,
            Kind::System => proto::EntityKind::System,
            Kind::Pod => proto::EntityKind::Pod,
            Kind::Container => proto::EntityKind::Container,
        };
        let uid = entity.pod_uid.as_deref().and_then(PodUid::parse);
        let labels = entity.labels.iter().flat_map(|(key, value)| [key, value]);
        let made = proto::Entity {
            kind: kind.into(),
            node: part.string(node),
            namespace: part.string(&key.namespace),
            pod: part.string(&key.pod),
            container: part.string(&key.container),
            image: entity.image.as_deref().map_or(0, |image| part.string(image)),
            pod_uid: uid.map(|uid| uid.to_bytes().to_vec()).unwrap_or_default(),
            static_pod: uid.is_some_and(PodUid::is_static),
            container_id: row.run.map(|run| run.id().to_vec()).unwrap_or_default(),
            container_id_text: row.run.map_or(0, |run| part.string(run.id_text())),
            name: row.run.map_or(0, |run| part.string(&run.name())),
            start_ms: entity.start_ms.unwrap_or(0),
            labels: labels.map(|text| part.string(text)).collect(),
            window: row.window_ns.map_or(0, |ns| part.window(ns)),
            host_network: entity.host_network,
            ended: row.ended,
            ..proto::Entity::default()
        };
        part.entity(made);
        self.entities += 1;
        for value in row.values {
            let id = value.metric.id;
            let is_double = !value.metric.is_rate() && value.metric.value_type == ValueType::Double;
            let label = if value.label.is_empty() { 0 } else { part.string(value.label) };
            if is_double {
                part.labelled_double(id, label, f64::from_bits(value.bits));
            } else {
                part.labelled(id, label, value.bits);
            }
        }
    }

    /// What programs pushed about a subject, which is called as everything else of it is.
    fn custom(
        &mut self,
        model: &Model,
        subject: &Subject,
        figures: &[(&str, custom::Kind, &custom::Labels, f64)],
    ) {
        self.turn();
        let part = &mut self.part;
        let none: Arc<str> = Arc::default();
        let (kind, node, [namespace, pod, container]) = match subject {
            Subject::Cluster => (proto::EntityKind::Cluster, &none, [&none; 3]),
            Subject::Namespace(namespace) => (proto::EntityKind::Namespace, &none, [namespace, &none, &none]),
            Subject::Node(node) => (proto::EntityKind::Node, node, [&none; 3]),
            Subject::System(node, container) => (proto::EntityKind::System, node, [&none, &none, container]),
            Subject::Pod(namespace, pod) => (proto::EntityKind::Pod, &none, [namespace, pod, &none]),
            Subject::Container(namespace, pod, container) => {
                (proto::EntityKind::Container, &none, [namespace, pod, container])
            }
        };
        let known = model.found_on(subject);
        let node = known.as_ref().map_or(node, |(node, _)| node);
        let entity = known.as_ref().map(|(_, entity)| entity);
        let labels = entity.map(|entity| entity.labels.iter()).into_iter().flatten();
        let uid = entity.and_then(|entity| entity.pod_uid.as_deref()).and_then(PodUid::parse);
        let run = entity.and_then(|entity| entity.run.as_deref()).map(|run| run.at(self.slot));
        let made = proto::Entity {
            kind: kind.into(),
            node: part.string(node),
            namespace: part.string(namespace),
            pod: part.string(pod),
            container: part.string(container),
            image: entity.and_then(|entity| entity.image.as_deref()).map_or(0, |image| part.string(image)),
            pod_uid: uid.map(|uid| uid.to_bytes().to_vec()).unwrap_or_default(),
            static_pod: uid.is_some_and(PodUid::is_static),
            container_id: run.map(|run| run.id().to_vec()).unwrap_or_default(),
            container_id_text: run.map_or(0, |run| part.string(run.id_text())),
            name: run.map_or(0, |run| part.string(&run.name())),
            labels: labels.flat_map(|(key, value)| [key, value]).map(|text| part.string(text)).collect(),
            ..proto::Entity::default()
        };
        part.entity(made);
        self.entities += 1;
        for (name, _, labels, value) in figures {
            let metric = batch::metric(MetricId::Custom.into());
            let Some(text) = metric.and_then(|metric| metric.text_of(name)) else { continue };
            let pairs = labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
            let texts = std::iter::once(text).chain(pairs).map(|text| text.replace(BREAK, " "));
            let text = part.string(&join(texts.collect::<Vec<_>>().iter().map(String::as_str)));
            part.labelled_double(MetricId::Custom, text, *value);
        }
    }

    fn sums(&mut self, namespaces: &BTreeMap<Arc<str>, Sums>) {
        let mut all: Sums = [None; SUMMED.len()];
        for (name, sums) in namespaces {
            for (all, sum) in all.iter_mut().zip(sums) {
                *all = sum.map(|sum| all.unwrap_or(0).saturating_add(sum)).or(*all);
            }
            self.sum(proto::EntityKind::Namespace, name, sums);
        }
        self.sum(proto::EntityKind::Cluster, "", &all);
    }

    fn sum(&mut self, kind: proto::EntityKind, namespace: &str, sums: &Sums) {
        self.turn();
        let part = &mut self.part;
        let (namespace, window) = (part.string(namespace), part.window(SECOND_NS));
        part.entity(proto::Entity { kind: kind.into(), namespace, window, ..proto::Entity::default() });
        self.entities += 1;
        for (id, sum) in SUMMED.iter().zip(sums) {
            let rate = batch::metric((*id).into()).is_some_and(batch::Metric::is_rate);
            match sum {
                Some(sum) if rate => part.integer(*id, sum.saturating_mul(MILLICORE)),
                Some(sum) => part.integer(*id, *sum),
                None => {}
            }
        }
    }
}

impl Coverage {
    /// The slots of `mine` that need not be sent, where somebody else told what was
    /// `taken` of theirs up to `through_ms`: those made from the same, and those too
    /// old to be compared.
    pub fn done(&self, taken: &Taken) -> impl Fn(u64) -> bool {
        let same: HashSet<u64> = self
            .slots
            .iter()
            .filter(|(slot, digest)| taken.slots.get(slot) == Some(digest))
            .map(|(slot, _)| *slot)
            .collect();
        let remembered = self.slots.keys().next().copied().unwrap_or(u64::MAX);
        let (since, through) = (taken.since_ms, taken.through_ms);
        move |slot| {
            same.contains(&slot) || (slot < remembered && (since..=through).contains(&slot) && since > 0)
        }
    }

    /// What a sink has of it that is still owed the slots `owed`.
    pub fn taken(&self, owed: &std::collections::BTreeSet<u64>) -> Taken {
        let through_ms = owed.first().map_or(self.last_ms, |first| (first - 1).min(self.last_ms));
        // The newest: where slots are short there are many, and the place is small.
        let slots = self.slots.iter().rev().take(TOLD).filter(|(slot, _)| !owed.contains(slot));
        Taken {
            since_ms: self.since_ms,
            through_ms,
            slots: slots.map(|(slot, digest)| (*slot, *digest)).collect(),
        }
    }
}

/// What a sink has taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// From this slot on, milliseconds since the epoch.
    pub since_ms: u64,
    /// Up to this one everything.
    pub through_ms: u64,
    /// Newer ones, and what they were made from.
    pub slots: BTreeMap<u64, u64>,
}
