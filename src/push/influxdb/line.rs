//! Entities into lines of InfluxDB's line protocol, under Heapster's names.
//!
//! ```text
//! cpu/usage_rate,cluster_name=default,container_name=c0,labels=app:web\,tier:x,namespace_name=default,nodename=n1,pod_name=web-0,type=pod_container value=20i 1893456060000000000
//! cpu,cluster_name=default,nodename=n1,type=node usage_rate=171i 1893456060000000000
//! ```
//!
//! The second is the schema with fields. Tags are sorted, as the server wants
//! them for speed, and empty ones left out, as it demands. Integers are signed
//! 64 bits there; what does not fit, and what is no finite number, has no line.
//!
//! The protocol cannot escape a backslash: one before a character that is
//! escaped, or at the end of a value, would take its meaning away, and becomes a
//! slash. Line breaks become spaces.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::push::batch::{Batch, Entity, EntityKind, Label, Point, Value};
use crate::push::labels;
use crate::push::target::Schema;

/// The one label that most metrics of a batch with labels have.
const LABEL: &str = "resource_id";

/// Writes the lines of one entity after the other.
#[derive(Debug)]
pub(super) struct Lines {
    schema: Schema,
    extra: BTreeMap<String, String>,
    /// Tags before and after the place of [`LABEL`], with the comma before each.
    head: Vec<u8>,
    tail: Vec<u8>,
    /// All of them, and what comes up to the value in the schema with one field, to the
    /// field's name in the other.
    whole: Vec<u8>,
    /// What follows an integer: its mark, blank, time, end of line.
    end: Vec<u8>,
}

impl Lines {
    pub(super) fn new(schema: Schema, extra: BTreeMap<String, String>) -> Lines {
        Lines { schema, extra, head: Vec::new(), tail: Vec::new(), whole: Vec::new(), end: Vec::new() }
    }

    /// Appends the lines of an entity to `out`.
    pub(super) fn entity(&mut self, batch: &Batch, entity: &Entity<'_>, out: &mut Vec<u8>) {
        self.tags(entity);
        let assign: &[u8] = if self.schema.with_fields { b" " } else { b" value=" };
        self.whole.clear();
        for part in [&self.head, &self.tail, assign] {
            self.whole.extend_from_slice(part);
        }
        self.end.clear();
        self.end.extend_from_slice(b"i ");
        self.end.extend_from_slice(itoa::Buffer::new().format(batch.time_ms()).as_bytes());
        self.end.extend_from_slice(b"000000\n");
        for point in entity.metrics() {
            self.point(&point, out);
        }
    }

    fn point(&mut self, point: &Point<'_>, out: &mut Vec<u8>) {
        if !self.schema.metrics.takes(point.metric) {
            return;
        }
        match point.value {
            Value::Integer(value) if i64::try_from(value).is_err() => return,
            Value::Double(value) if !value.is_finite() => return,
            _ => {}
        }
        let name = point.name();
        // Names are short: `split_once` looks for more than a loop does.
        let slash = name.bytes().position(|byte| byte == b'/').filter(|_| self.schema.with_fields);
        let split = slash.and_then(|at| Some((name.get(..at)?, name.get(at + 1..)?)));
        let (measurement, field) = split.unwrap_or((&name, "value"));
        match &name {
            // The names of [`METRICS`](crate::push::batch::METRICS) are plain.
            Cow::Borrowed(_) => out.extend_from_slice(measurement.as_bytes()),
            Cow::Owned(_) => word(measurement, out),
        }
        match (point.metric.label, point.label) {
            (Some(label), Some(value)) => {
                out.extend_from_slice(&self.head);
                match label {
                    Label::Of(LABEL) => tag(LABEL, value, out),
                    _ => self.own_tags(point, out),
                }
                out.extend_from_slice(&self.tail);
                out.extend_from_slice(if self.schema.with_fields { b" " } else { b" value=" });
            }
            _ => out.extend_from_slice(&self.whole),
        }
        if self.schema.with_fields {
            match &name {
                Cow::Borrowed(_) => out.extend_from_slice(field.as_bytes()),
                Cow::Owned(_) => word(field, out),
            }
            out.push(b'=');
        }
        match point.value {
            Value::Integer(value) => {
                out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
                out.extend_from_slice(&self.end);
            }
            Value::Double(value) => {
                let mut buffer = zmij::Buffer::new();
                let text = buffer.format_finite(value);
                // A whole number has no point.
                out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
                out.extend_from_slice(self.end.get(1..).unwrap_or_default());
            }
        }
    }

    /// Tags of a value that has others than most: their place among the sorted ones is not looked for.
    fn own_tags(&self, point: &Point<'_>, out: &mut Vec<u8>) {
        let mut key = Vec::new();
        for (name, value) in point.labels().into_iter().filter(|(_, value)| !value.is_empty()) {
            key.clear();
            word(name, &mut key);
            let taken = [&self.head, &self.tail].into_iter().any(|tags| has(tags, &key));
            let name = String::from_utf8_lossy(&key);
            // Those of the entity stay what they are; InfluxDB has a meaning of its own for the other.
            if taken || name == "time" {
                tag(&format!("exported_{name}"), value, out);
            } else {
                tag(&name, value, out);
            }
        }
    }

    /// The tags of an entity, but for that of a metric's own label.
    fn tags(&mut self, entity: &Entity<'_>) {
        let joined = self.schema.labels.joined(entity.labels());
        let mut container = entity.container();
        let id;
        if entity.kind() == EntityKind::Container && container.is_none() {
            id = entity.container_id();
            container = entity.name().or(id.as_deref());
        }
        let ours = [
            ("cluster_name", Some(self.schema.cluster.as_str())),
            ("container_base_image", entity.image()),
            ("container_name", container),
            ("labels", joined.as_deref()),
            ("namespace_name", entity.namespace()),
            ("nodename", entity.node()),
            ("pod_name", entity.pod()),
            ("type", Some(labels::kind(entity))),
        ];
        self.head.clear();
        self.tail.clear();
        // A label that is stored under the name of a given tag takes its place.
        let of_entity: Vec<_> = entity.labels().collect();
        let mut extra: BTreeMap<_, _> = self.extra.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        extra.extend(self.schema.labels.stored(of_entity.iter().copied()));
        let mut extra = extra.into_iter().peekable();
        let (head, tail) = (&mut self.head, &mut self.tail);
        let mut put = |key: &str, value: &str| tag(key, value, if key < LABEL { head } else { tail });
        for (key, value) in ours {
            // Two sorted lists into one; ours win over a given one of that name.
            while let Some((other, text)) = extra.next_if(|(other, _)| *other <= key) {
                if other != key && other != LABEL {
                    put(other, text);
                }
            }
            if let Some(value) = value.filter(|v| !v.is_empty()) {
                put(key, value);
            }
        }
        for (other, text) in extra {
            put(other, text);
        }
    }
}

/// A name that needs no escapes: what would need one becomes `_`.
fn word(name: &str, out: &mut Vec<u8>) {
    let special = |byte: &u8| matches!(byte, b',' | b'=' | b'"' | b'\\' | 0..=b' ' | 0x7f);
    // Nearly all are copied whole.
    for part in name.as_bytes().split_inclusive(special) {
        match part.split_last() {
            Some((last, plain)) if special(last) => {
                out.extend_from_slice(plain);
                out.push(b'_');
            }
            _ => out.extend_from_slice(part),
        }
    }
}

/// Whether a tag of that key is among these: a comma or an equals sign of a value is escaped.
fn has(tags: &[u8], key: &[u8]) -> bool {
    let begins = |rest: &[u8]| {
        let after = rest.strip_prefix(b",").and_then(|rest| rest.strip_prefix(key));
        after.is_some_and(|rest| rest.starts_with(b"="))
    };
    (0..tags.len()).filter_map(|at| tags.get(at..)).any(begins)
}

/// Whether a byte of a tag's value is not simply copied. One look for each byte of every label.
#[allow(clippy::indexing_slicing, reason = "looked at by the compiler, which works this out")]
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    special[b',' as usize] = true;
    special[b'=' as usize] = true;
    special[b' ' as usize] = true;
    special[b'\n' as usize] = true;
    special[b'\r' as usize] = true;
    special[b'\\' as usize] = true;
    special
};

/// `,key=value`; keys are plain words.
fn tag(key: &str, value: &str, out: &mut Vec<u8>) {
    out.push(b',');
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    let bytes = value.as_bytes();
    let special = |byte: &u8| SPECIAL.get(usize::from(*byte)).is_some_and(|special| *special);
    let mut copied = 0;
    for (at, byte) in bytes.iter().enumerate().filter(|(_, byte)| special(byte)) {
        let escaped: &[u8] = match byte {
            b',' => b"\\,",
            b'=' => b"\\=",
            b'\\' => match bytes.get(at + 1) {
                Some(b'\\') => continue,
                Some(next) if !special(next) => continue,
                _ => b"/",
            },
            _ => b"\\ ",
        };
        out.extend_from_slice(bytes.get(copied..at).unwrap_or_default());
        out.extend_from_slice(escaped);
        copied = at + 1;
    }
    out.extend_from_slice(bytes.get(copied..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::batch::{Assembler, METRICS, MetricId, join, proto};
    use crate::push::labels::LabelRules;

    fn written(build: impl FnOnce(&mut Assembler), schema: Schema, extra: &[(&str, &str)]) -> String {
        let head = proto::Batch {
            node: "n1".to_owned(),
            boot_id: vec![1; 16],
            time_ms: 1_893_456_060_000,
            resolution_ms: 15_000,
            ..proto::Batch::default()
        };
        let mut assembler = Assembler::new(head);
        build(&mut assembler);
        let batch = assembler.finish().unwrap();
        let extra = extra.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut lines = Lines::new(schema, extra);
        let mut out = Vec::new();
        for entity in batch.entities() {
            lines.entity(&batch, &entity, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    fn schema(with_fields: bool) -> Schema {
        Schema { with_fields, ..Schema::default() }
    }

    fn container(a: &mut Assembler) {
        let mut string = |text: &str| a.string(text);
        let (namespace, pod, name) = (string("default"), string("web-0"), string("c0"));
        let image = string("r/app:0");
        let labels = vec![string("app"), string("web"), string("tier"), string("x")];
        let window = a.window(10_000_000_000);
        a.entity(proto::Entity {
            kind: proto::EntityKind::Container.into(),
            namespace,
            pod,
            container: name,
            image,
            labels,
            window,
            ..proto::Entity::default()
        });
        a.integer(MetricId::CpuUsageRate, 200_000_000);
        a.integer(MetricId::MemoryPageFaultsRate, 25);
        a.integer(MetricId::MemoryUsage, 4096);
    }

    #[test]
    fn heapsters_two_schemas() {
        let tags = "cluster_name=default,container_base_image=r/app:0,container_name=c0,labels=app:web\\,tier:x,\
                    namespace_name=default,nodename=n1,pod_name=web-0,type=pod_container";
        let time = "1893456060000000000\n";
        let expected = format!(
            "cpu/usage_rate,{tags} value=20i {time}memory/usage,{tags} value=4096i {time}\
             memory/page_faults_rate,{tags} value=2.5 {time}"
        );
        assert_eq!(written(container, schema(false), &[]), expected);
        let expected = format!(
            "cpu,{tags} usage_rate=20i {time}memory,{tags} usage=4096i {time}memory,{tags} page_faults_rate=2.5 {time}"
        );
        assert_eq!(written(container, schema(true), &[]), expected);
    }

    #[test]
    fn labels_as_the_rules_say() {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let labels = LabelRules::new(Some(";"), &own(&["team=tier", "app", "none"]), &own(&["app"])).unwrap();
        let text = written(container, Schema { labels, ..schema(false) }, &[("app", "given"), ("rack", "r")]);
        let tags = "app=web,cluster_name=default,container_base_image=r/app:0,container_name=c0,labels=tier:x,\
                    namespace_name=default,nodename=n1,pod_name=web-0,rack=r,team=x,type=pod_container";
        assert!(text.starts_with(&format!("cpu/usage_rate,{tags} value=20i ")), "{text}");
    }

    #[test]
    fn nodes_labels_of_metrics_and_extra_tags() {
        let node = |a: &mut Assembler| {
            a.entity(proto::Entity { kind: proto::EntityKind::Node.into(), ..proto::Entity::default() });
            let device = a.string("/dev/sd a");
            a.integer(MetricId::Uptime, 5);
            a.double(MetricId::CpuNodeUtilization, 0.1313);
            a.double(MetricId::CpuNodeCapacity, 4000.0);
            a.double(MetricId::CpuNodeReservation, f64::NAN);
            a.integer(MetricId::MemoryUsage, u64::MAX);
            a.labelled(MetricId::FilesystemUsage, device, 7);
        };
        let extra = [("Zone", "a,b"), ("nodename", "other"), ("rack", "r\\"), ("zone", "z\\ z\n")];
        let (head, tail) =
            ("Zone=a\\,b,cluster_name=default,nodename=n1,rack=r/", "type=node,zone=z/\\ z\\ ");
        let expected = format!(
            "uptime,{head},{tail} value=5i 1893456060000000000\n\
             cpu/node_capacity,{head},{tail} value=4000 1893456060000000000\n\
             cpu/node_utilization,{head},{tail} value=0.1313 1893456060000000000\n\
             filesystem/usage,{head},resource_id=/dev/sd\\ a,{tail} value=7i 1893456060000000000\n"
        );
        assert_eq!(written(node, schema(false), &extra), expected);
    }

    #[test]
    fn names_and_labels_of_their_own() {
        let build = |a: &mut Assembler| {
            container(a);
            let mut string = |parts: &[&str]| a.string(&join(parts.iter().copied()));
            let (card, gpu) = (string(&["nvidia", "Tesla P100", "GPU-6a"]), string(&["nvidia.com/gpu"]));
            let (queue, odd) = (
                string(&["shop/queue", "kind", "mail", "pod_name", "x"]),
                string(&["a, b=\"c", "time", "1"]),
            );
            a.labelled(MetricId::ResourceRequest, gpu, 2);
            a.labelled(MetricId::AcceleratorMemoryUsed, card, 7);
            a.labelled_double(MetricId::Custom, queue, -1.5);
            a.labelled_double(MetricId::Custom, odd, 2.0);
        };
        let head = "cluster_name=default,container_base_image=r/app:0,container_name=c0,labels=app:web\\,tier:x,\
                    namespace_name=default,nodename=n1,pod_name=web-0";
        let (tail, time) = ("type=pod_container", "1893456060000000000");
        let expected = |split: bool| {
            let [gpu, card, queue, odd] = match split {
                false => [
                    "nvidia.com/gpu/request",
                    "accelerator/memory_used",
                    "custom/shop/queue",
                    "custom/a__b__c",
                ]
                .map(|name| (name, "value")),
                true => [
                    ("nvidia.com", "gpu/request"),
                    ("accelerator", "memory_used"),
                    ("custom", "shop/queue"),
                    ("custom", "a__b__c"),
                ],
            };
            [
                (gpu, "", "2i"),
                (card, "make=nvidia,model=Tesla\\ P100,accelerator_id=GPU-6a,", "7i"),
                (queue, "kind=mail,exported_pod_name=x,", "-1.5"),
                (odd, "exported_time=1,", "2"),
            ]
            .map(|((name, field), own, value)| format!("{name},{head},{own}{tail} {field}={value} {time}\n"))
            .concat()
        };
        for split in [false, true] {
            let text = written(build, schema(split), &[]);
            assert!(text.ends_with(&expected(split)), "{text}\n{}", expected(split));
        }
    }

    #[test]
    fn names_need_no_escapes_and_most_have_one_label() {
        for metric in METRICS {
            assert!(
                metric.name.bytes().all(|b| b.is_ascii_lowercase() || b"/_*".contains(&b)),
                "{}",
                metric.name
            );
            // Its place among the tags is known beforehand.
            assert!(!matches!(metric.label, Some(Label::Of(label)) if label != LABEL), "{}", metric.name);
        }
    }
}
