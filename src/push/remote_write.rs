//! Prometheus remote write 1.0: protobuf `prometheus.WriteRequest`, snappy.
//!
//! Series have cAdvisor's names where it has one, as the kubelet exports them:
//! `namespace`, `pod`, `container`, `image`, `name`, with `id` the container's
//! id, the pod's UID, `/` for the machine and `/NAME` for a system container.
//! Each has `job`, `instance`, `node` and the labels of the URI. Labels are
//! sorted by name, as the specification demands.
//!
//! What programs push of themselves is called `custom_PRODUCER_FAMILY`.
//! Namespaces and the cluster have gauges of their own, named in `remote_write/rollup.rs`.
//!
//! When something goes, its series end with a staleness marker, so that queries
//! do not see them for another five minutes: what the step says is gone has its
//! last sample on the grid and the marker one millisecond later; what was in the
//! step sent before and is not in this one has the marker at this one's time.
//! The second needs the step before; after a restart the queue has it for a while.

mod rollup;

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use prost::encoding::{encode_varint, encoded_len_varint};
use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};

use crate::push::batch::{
    self, BREAK, Batch, DecodeError, Entity, EntityKind, MetricId, Point, Prometheus, Value,
};
use crate::push::delivery::client::{Answer, Http, Outgoing};
use crate::push::delivery::verdict::{self, Verdict};
use crate::push::delivery::{Sink, Step};
use crate::push::target::{Protocol, Target};
use crate::telemetry::push::Rejected;

/// The NaN that says a series has ended: Prometheus tells it from others by its bits.
pub const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Tag of a series in a request, and of a label in a series: field 1, bytes.
const FIELD_1: u8 = 0x0a;
/// Tag of a sample in a series, and of a value in a label: field 2, bytes.
const FIELD_2: u8 = 0x12;
/// Tag of a sample's value: field 1, eight bytes.
const VALUE: u8 = 0x09;
/// Tag of a sample's time: field 2, varint.
const TIME: u8 = 0x10;

const NAME: &str = "__name__";

/// When a thing was started; cAdvisor's name.
const START: Prometheus =
    Prometheus { name: "container_start_time_seconds", divisor: 1000.0, labels: &[], own: &[] };

/// One receiver of remote write.
#[derive(Debug)]
pub struct RemoteWrite {
    job: String,
    instance: Option<String>,
    tenant: Option<HeaderValue>,
    extra: BTreeMap<String, String>,
    series: Series,
    compressed: snap::raw::Encoder,
    /// The step before the one in `this`.
    before: Option<Seen>,
    this: Option<Seen>,
}

/// A step that was encoded: who was in it.
#[derive(Debug)]
struct Seen {
    sequence: u64,
    time_ms: u64,
    payload: Bytes,
    /// A hash of the labels of each entity whose series go on.
    entities: HashSet<u64>,
}

/// What the series of one entity share, and room for one series.
#[derive(Debug, Default)]
struct Series {
    /// The entity's labels, sorted.
    labels: Vec<(String, String)>,
    /// They one after the other, encoded, and where each ends.
    encoded: Vec<u8>,
    ends: Vec<usize>,
    samples: Samples,
    one: Vec<u8>,
}

/// What samples a series has.
#[derive(Debug, Default, Clone, Copy)]
struct Samples {
    time_ms: u64,
    /// Its value at that time.
    last: bool,
    /// When it ended.
    marker: Option<u64>,
}

impl RemoteWrite {
    /// A sink for a target of this kind; `None` for others.
    pub fn new(target: &Target) -> Option<RemoteWrite> {
        let Protocol::RemoteWrite { job, instance, tenant } = &target.protocol else { return None };
        Some(RemoteWrite {
            job: job.clone(),
            instance: instance.clone(),
            tenant: tenant.as_deref().and_then(|t| HeaderValue::from_str(t).ok()),
            extra: target.labels.clone(),
            series: Series::default(),
            compressed: snap::raw::Encoder::new(),
            before: None,
            this: None,
        })
    }

    /// Notes which step is encoded, so that the one before it is known.
    fn begin(&mut self, step: &Step, time_ms: u64) {
        if self.this.as_ref().is_none_or(|seen| seen.sequence != step.sequence) {
            let (sequence, payload) = (step.sequence, step.payload.clone());
            self.before = self.this.replace(Seen { sequence, time_ms, payload, entities: HashSet::new() });
        }
    }

    /// Ends the series of those who were in the step before and are not in this
    /// one; numbered on from `count`, the entities of this one.
    fn ended(&mut self, from: usize, count: usize, limit: usize, body: &mut Vec<u8>) -> Option<usize> {
        let (Some(before), Some(this)) = (self.before.take(), &self.this) else { return None };
        let gone: HashSet<u64> = before.entities.difference(&this.entities).copied().collect();
        let now = this.time_ms;
        let mut left = None;
        if !gone.is_empty()
            && before.time_ms < now
            && let Ok(batch) = batch::decode(&before.payload, batch::MAX_DECOMPRESSED)
        {
            for (at, entity) in batch.entities().enumerate().skip(from.saturating_sub(count)) {
                self.labels(&entity);
                if !gone.contains(&self.series.hash()) {
                    continue;
                }
                let start = body.len();
                self.samples(&entity, Samples { time_ms: now, last: false, marker: Some(now) }, body);
                if body.len() > limit && start > 0 {
                    body.truncate(start);
                    left = Some(count + at);
                    break;
                }
            }
        }
        self.before = Some(before);
        left
    }

    /// Appends the series of an entity to `out`.
    fn entity(&mut self, batch: &Batch, entity: &Entity<'_>, out: &mut Vec<u8>) {
        self.labels(entity);
        let time_ms = batch.time_ms();
        let samples = match entity.has_ended() {
            true => Samples { time_ms, last: false, marker: Some(time_ms) },
            false => Samples { time_ms, last: true, marker: entity.is_departed().then_some(time_ms + 1) },
        };
        self.samples(entity, samples, out);
    }

    fn samples(&mut self, entity: &Entity<'_>, samples: Samples, out: &mut Vec<u8>) {
        self.series.samples = samples;
        // The machine's is when it booted, which has another name there.
        if let Some(start) = entity.start_ms().filter(|_| entity.kind() != EntityKind::Node) {
            self.series.write(&START, None, float(start), out);
        }
        for point in entity.metrics() {
            let value = match point.value {
                Value::Integer(value) => float(value),
                Value::Double(value) => value,
            };
            if point.metric.id == MetricId::Custom {
                self.series.custom(&point, value, out);
            } else if let Some(named) = rollup::named(entity.kind(), point.metric) {
                self.series.write(named, point.label, value, out);
            }
        }
    }

    fn labels(&mut self, entity: &Entity<'_>) {
        let labels = &mut self.series.labels;
        labels.clear();
        let mut put = |name: &str, value: Option<&str>| {
            if let Some(value) = value.filter(|v| !v.is_empty()) {
                labels.push((name.to_owned(), value.to_owned()));
            }
        };
        let id = match entity.kind() {
            EntityKind::Node => Some("/".to_owned()),
            EntityKind::System => entity.container().map(|name| format!("/{name}")),
            EntityKind::Pod => entity.pod_uid().map(|uid| uid.to_string()),
            EntityKind::Container => entity.container_id(),
            EntityKind::Namespace | EntityKind::Cluster => None,
        };
        put("job", Some(&self.job));
        put("instance", self.instance.as_deref().or(entity.node()));
        put("node", entity.node());
        put("id", id.as_deref());
        put("namespace", entity.namespace());
        put("pod", entity.pod());
        put("image", entity.image());
        put("name", entity.name());
        if entity.kind() == EntityKind::Container {
            put("container", entity.container());
        }
        for (name, value) in &self.extra {
            // Ours win over a given one of that name.
            if !labels.iter().any(|(n, _)| n == name) {
                labels.push((name.clone(), value.clone()));
            }
        }
        labels.sort_unstable();
        let Series { labels, encoded, ends, .. } = &mut self.series;
        encoded.clear();
        ends.clear();
        for (name, value) in labels {
            label(name, value, encoded);
            ends.push(encoded.len());
        }
    }
}

impl Series {
    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.labels.hash(&mut hasher);
        hasher.finish()
    }

    fn write(&mut self, named: &Prometheus, text: Option<&str>, value: f64, out: &mut Vec<u8>) {
        let name = (NAME, named.name);
        let value = value / named.divisor;
        match (named.own, text) {
            // In order, as they are in the table: the name sorts before any of them.
            ([], _) | (_, None) => {
                self.one(std::iter::once(name).chain(named.labels.iter().copied()), value, out);
            }
            (own, Some(text)) => {
                let mut own: Vec<_> = own.iter().copied().zip(text.split(BREAK)).collect();
                own.retain(|(_, value)| !value.is_empty());
                own.extend(named.labels);
                own.push(name);
                own.sort_unstable();
                self.one(own.into_iter(), value, out);
            }
        }
    }

    /// What a program pushed of itself: `custom_PRODUCER_FAMILY`, with its labels.
    fn custom(&mut self, point: &Point<'_>, value: f64, out: &mut Vec<u8>) {
        let word = |text: &str, colons: bool| -> String {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
            text.chars().map(|c| if plain(c) { c } else { '_' }).collect()
        };
        let name = word(&point.name(), true);
        let mut own: Vec<(String, &str)> = Vec::new();
        for (label, value) in point.labels() {
            let label = word(label, false);
            // Those of the entity stay what they are, and others are not a program's to give.
            let taken = label.starts_with("__") || self.labels.iter().any(|(other, _)| *other == label);
            own.push((if taken { format!("exported_{label}") } else { label }, value));
        }
        own.retain(|(label, value)| !value.is_empty() && !label.starts_with(|c: char| c.is_ascii_digit()));
        own.push((NAME.to_owned(), &name));
        own.sort_unstable();
        own.dedup_by(|next, kept| next.0 == kept.0);
        self.one(own.iter().map(|(label, value)| (label.as_str(), *value)), value, out);
    }

    /// A series of the entity with labels of its own, in order, and its samples.
    fn one<'a>(&mut self, own: impl Iterator<Item = (&'a str, &'a str)>, value: f64, out: &mut Vec<u8>) {
        self.one.clear();
        let mut copied = 0;
        for (name, value) in own {
            let at = self.labels.partition_point(|(other, _)| other.as_str() < name);
            let end = |at: usize| self.ends.get(at).copied().unwrap_or(self.encoded.len());
            let here = at.checked_sub(1).map_or(0, end);
            self.one.extend_from_slice(self.encoded.get(copied..here).unwrap_or_default());
            label(name, value, &mut self.one);
            // The metric's own labels win: without them two series would be one.
            let same = self.labels.get(at).is_some_and(|(other, _)| other == name);
            copied = if same { end(at) } else { here };
        }
        self.one.extend_from_slice(self.encoded.get(copied..).unwrap_or_default());
        if self.samples.last {
            sample(value, self.samples.time_ms, &mut self.one);
        }
        if let Some(time_ms) = self.samples.marker {
            sample(f64::from_bits(STALE), time_ms, &mut self.one);
        }
        out.push(FIELD_1);
        length(self.one.len(), out);
        out.extend_from_slice(&self.one);
    }
}

fn length(length: usize, out: &mut Vec<u8>) {
    encode_varint(u64::try_from(length).unwrap_or(u64::MAX), out);
}

fn label(name: &str, value: &str, out: &mut Vec<u8>) {
    let size =
        |text: &str| 1 + encoded_len_varint(u64::try_from(text.len()).unwrap_or(u64::MAX)) + text.len();
    out.push(FIELD_1);
    length(size(name) + size(value), out);
    for (tag, text) in [(FIELD_1, name), (FIELD_2, value)] {
        out.push(tag);
        length(text.len(), out);
        out.extend_from_slice(text.as_bytes());
    }
}

fn sample(value: f64, time_ms: u64, out: &mut Vec<u8>) {
    out.push(FIELD_2);
    length(10 + encoded_len_varint(time_ms), out);
    out.push(VALUE);
    out.extend_from_slice(&value.to_le_bytes());
    out.push(TIME);
    encode_varint(time_ms, out);
}

/// Prometheus has no other numbers.
#[allow(clippy::cast_precision_loss)]
fn float(value: u64) -> f64 {
    value as f64
}

impl Sink for RemoteWrite {
    fn compares(&self) -> bool {
        true
    }

    fn remember(&mut self, step: &Step) {
        // One that cannot be read has nothing to compare with.
        let Ok(batch) = step.batch() else { return };
        if batch.node().is_empty() {
            return;
        }
        self.begin(step, batch.time_ms());
        for entity in batch.entities().filter(|entity| !entity.is_departed()) {
            self.labels(&entity);
            let hash = self.series.hash();
            if let Some(this) = &mut self.this {
                this.entities.insert(hash);
            }
        }
    }

    fn encode(
        &mut self,
        step: &Step,
        from: usize,
        limit: usize,
        body: &mut Vec<u8>,
    ) -> Result<Option<usize>, DecodeError> {
        let batch = &*step.batch()?;
        // Of a part of a step of many machines it is said who has ended.
        let is_whole = !batch.node().is_empty();
        if is_whole {
            self.begin(step, batch.time_ms());
        }
        let mut count = 0;
        for (at, entity) in batch.entities().enumerate() {
            count = at + 1;
            if at < from {
                continue;
            }
            let before = body.len();
            self.entity(batch, &entity, body);
            if body.len() > limit && before > 0 {
                body.truncate(before);
                return Ok(Some(at));
            }
            let hash = self.series.hash();
            if let Some(this) = self.this.as_mut().filter(|_| is_whole && !entity.is_departed()) {
                this.entities.insert(hash);
            }
        }
        Ok(if is_whole { self.ended(from, count, limit, body) } else { None })
    }

    fn item(&self, body: &[u8]) -> usize {
        let mut rest = body.get(1..).unwrap_or_default();
        let length = prost::encoding::decode_varint(&mut rest).ok().and_then(|l| usize::try_from(l).ok());
        let head = body.len() - rest.len();
        length.map_or(body.len(), |length| (head + length).min(body.len()))
    }

    fn request(&mut self, http: &Http, items: &[u8]) -> Outgoing {
        let mut headers = vec![
            (CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf")),
            (CONTENT_ENCODING, HeaderValue::from_static("snappy")),
            (HeaderName::from_static("x-prometheus-remote-write-version"), HeaderValue::from_static("0.1.0")),
        ];
        if let Some(tenant) = &self.tenant {
            headers.push((HeaderName::from_static("x-scope-orgid"), tenant.clone()));
        }
        // Fails beyond 4 GiB only; bodies have at most a few MiB.
        let mut body = self.compressed.compress_vec(items).unwrap_or_default();
        // It has room for what cannot be compressed.
        body.shrink_to_fit();
        Outgoing { method: Method::POST, url: http.url.clone(), headers, body: Bytes::from(body) }
    }

    /// A request with no series.
    fn probe(&mut self, http: &Http) -> Outgoing {
        self.request(http, &[])
    }

    fn judge(&mut self, answer: &Answer) -> Verdict {
        let refused = matches!(answer.status, 400 | 409 | 422);
        // Prometheus 3 and others answer 500 for what it will never take, too.
        if refused && verdict::says_too_old(&String::from_utf8_lossy(&answer.body)) {
            return Verdict::Unacceptable(Rejected::TooOld);
        }
        verdict::by_status(answer)
    }

    fn show(&self, item: &[u8]) -> String {
        shown(item).unwrap_or_else(|| format!("a series of {} bytes", item.len()))
    }
}

/// `{name="value", …}`, out of what [`Series::write`] wrote.
fn shown(item: &[u8]) -> Option<String> {
    let mut rest = item.get(1..)?;
    prost::encoding::decode_varint(&mut rest).ok()?;
    let mut text = String::from("{");
    while let Some((&FIELD_1, mut after)) = rest.split_first() {
        prost::encoding::decode_varint(&mut after).ok()?;
        for mark in ["=\"", "\""] {
            after = after.get(1..)?;
            let length = usize::try_from(prost::encoding::decode_varint(&mut after).ok()?).ok()?;
            let (word, next) = after.split_at_checked(length)?;
            text.push_str(&String::from_utf8_lossy(word));
            text.push_str(mark);
            after = next;
        }
        text.push_str(", ");
        rest = after;
    }
    Some(format!("{}}}", text.trim_end_matches(", ")))
}
