//! Batch → protobuf. What prost would write, in under half the time: prost walks
//! over every number three times, twice only to learn how long it will be, and
//! stores it byte by byte. Numbers go into a scratch buffer eight bytes at a
//! time here, and their length is known once they are there.
//!
//! Reading is prost's own, so that what is written here is checked by another
//! implementation in every test that reads a batch.

use super::proto;

/// Protobuf's wire type of numbers of variable length.
const VARINT: u32 = 0;
/// And of anything with a length in front.
const BYTES: u32 = 2;

/// Longest number on the wire: 64 bits in groups of seven. One more byte is
/// written over by the next number.
const LONGEST: usize = 10;

/// Writes batches into a buffer that is used again.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) out: Vec<u8>,
    /// A nested message, until its length is known.
    nested: Vec<u8>,
    /// Packed numbers; its length is that of the longest so far.
    numbers: Vec<u8>,
}

impl Writer {
    /// Puts the batch into `out`, in place of what was there.
    pub(super) fn write(&mut self, batch: &proto::Batch) {
        let proto::Batch {
            node,
            boot_id,
            sequence,
            time_ms,
            resolution_ms,
            sampled_ms,
            sent_ms,
            agent,
            host_boot_id,
            strings,
            entities,
            windows_ns,
            rows,
            columns,
            dropped,
        } = batch;
        let Writer { out, nested, numbers } = self;
        out.clear();
        bytes(out, 1, node.as_bytes());
        bytes(out, 2, boot_id);
        for (field, value) in [(3, sequence), (4, time_ms), (5, resolution_ms), (6, sampled_ms), (7, sent_ms)]
        {
            number(out, field, *value);
        }
        bytes(out, 8, agent.as_bytes());
        bytes(out, 9, host_boot_id);
        for string in strings {
            // The empty one too: it has a place in the table.
            always_bytes(out, 16, string.as_bytes());
        }
        for entity in entities {
            nested.clear();
            write_entity(nested, numbers, entity);
            always_bytes(out, 17, nested);
        }
        packed(out, numbers, 18, windows_ns.iter().copied());
        for set in rows {
            nested.clear();
            packed(nested, numbers, 1, set.entities.iter().map(|n| u64::from(*n)));
            packed(nested, numbers, 2, set.labels.iter().map(|n| u64::from(*n)));
            always_bytes(out, 19, nested);
        }
        for column in columns {
            nested.clear();
            number(nested, 1, enumeration(column.metric));
            number(nested, 2, u64::from(column.rows));
            packed(nested, numbers, 3, column.integers.iter().copied());
            if !column.doubles.is_empty() {
                key(nested, 4, BYTES);
                varint(nested, column.doubles.len() as u64 * 8);
                column.doubles.iter().for_each(|d| nested.extend_from_slice(&d.to_le_bytes()));
            }
            always_bytes(out, 20, nested);
        }
        for reason in dropped {
            nested.clear();
            number(nested, 1, enumeration(reason.reason));
            number(nested, 2, reason.count);
            always_bytes(out, 21, nested);
        }
    }
}

fn write_entity(out: &mut Vec<u8>, numbers: &mut Vec<u8>, entity: &proto::Entity) {
    let proto::Entity {
        kind,
        namespace,
        pod,
        container,
        name,
        image,
        pod_uid,
        static_pod,
        container_id,
        container_id_text,
        start_ms,
        qos,
        labels,
        window,
        host_network,
        departed,
        node,
        ended,
    } = entity;
    number(out, 1, enumeration(*kind));
    for (field, string) in [(2, namespace), (3, pod), (4, container), (5, name), (6, image)] {
        number(out, field, u64::from(*string));
    }
    bytes(out, 7, pod_uid);
    number(out, 8, u64::from(*static_pod));
    bytes(out, 9, container_id);
    number(out, 10, u64::from(*container_id_text));
    number(out, 11, *start_ms);
    number(out, 12, enumeration(*qos));
    packed(out, numbers, 13, labels.iter().map(|n| u64::from(*n)));
    number(out, 14, u64::from(*window));
    number(out, 15, u64::from(*host_network));
    number(out, 16, u64::from(*departed));
    number(out, 17, u64::from(*node));
    number(out, 18, u64::from(*ended));
}

/// Protobuf writes a negative enumerator like a negative 64-bit number.
fn enumeration(value: i32) -> u64 {
    i64::from(value).cast_unsigned()
}

fn key(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint(out, u64::from(field << 3 | wire_type));
}

/// A number, unless it is 0, which is the same as absent.
fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        key(out, field, VARINT);
        varint(out, value);
    }
}

/// Bytes or text, unless empty, which is the same as absent.
fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    if !value.is_empty() {
        always_bytes(out, field, value);
    }
}

fn always_bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    key(out, field, BYTES);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Numbers one behind the other, with their length in bytes in front.
fn packed(out: &mut Vec<u8>, scratch: &mut Vec<u8>, field: u32, values: impl ExactSizeIterator<Item = u64>) {
    if values.len() == 0 {
        return;
    }
    let most = values.len().saturating_mul(LONGEST);
    if scratch.len() < most {
        scratch.resize(most, 0);
    }
    let mut at = 0;
    for value in values {
        if let Some((space, _)) = scratch.get_mut(at..).and_then(|s| s.split_first_chunk_mut()) {
            at += spread(space, value);
        }
    }
    always_bytes(out, field, scratch.get(..at).unwrap_or_default());
}

fn varint(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(value.to_le_bytes()[0]);
        return;
    }
    let mut space = [0; LONGEST];
    let length = spread(&mut space, value);
    out.extend_from_slice(space.get(..length).unwrap_or_default());
}

/// Writes a number in groups of seven bits, the lowest first, each but the last
/// with its top bit set; returns in how many bytes.
#[inline]
fn spread(space: &mut [u8; LONGEST], value: u64) -> usize {
    const CONTINUED: u64 = 0x8080_8080_8080_8080;
    let groups = (70 - (value | 1).leading_zeros()) / 7;
    // Seven-bit groups moved apart to bytes: halves, quarters, eighths.
    let x = (value & 0x0fff_ffff) | (value & 0x00ff_ffff_f000_0000) << 4;
    let x = (x & 0x0000_3fff_0000_3fff) | (x & 0x0fff_c000_0fff_c000) << 2;
    let x = (x & 0x007f_007f_007f_007f) | (x & 0x3f80_3f80_3f80_3f80) << 1;
    let [low @ .., ninth, tenth] = space;
    if groups <= 8 {
        *low = (x | CONTINUED & !(u64::MAX << (8 * (groups - 1)))).to_le_bytes();
    } else {
        *low = (x | CONTINUED).to_le_bytes();
        let rest = (value >> 56).to_le_bytes()[0];
        (*ninth, *tenth) = if groups == 9 { (rest, 0) } else { (rest | 0x80, rest >> 7) };
    }
    groups as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn check(value: u64) {
        let (mut ours, mut prosts) = (Vec::new(), Vec::new());
        varint(&mut ours, value);
        prost::encoding::encode_varint(value, &mut prosts);
        assert_eq!(ours, prosts, "{value}");
    }

    #[test]
    fn numbers_at_the_edges() {
        check(0);
        for bits in 0..64 {
            check(1 << bits);
            check((1 << bits) - 1);
            check(u64::MAX >> bits);
        }
    }

    /// A metric or kind of a later version keeps its number.
    #[test]
    fn negative_enumerators() {
        let dropped = vec![proto::Dropped { reason: -3, count: 1 }];
        let batch = proto::Batch { dropped, ..proto::Batch::default() };
        let mut writer = Writer::default();
        writer.write(&batch);
        assert_eq!(writer.out, batch.encode_to_vec());
    }

    proptest! {
        #[test]
        fn numbers(value: u64, shift in 0..64) {
            check(value >> shift);
        }

        /// Byte by byte what prost writes.
        #[test]
        fn as_prost_writes_it(
            values in prop::collection::vec(any::<u64>(), 0..20),
            small in prop::collection::vec(0_u32..1000, 0..20),
            doubles in prop::collection::vec(any::<f64>(), 0..5),
            text in "\\PC{0,10}", flag: bool, kind: i32,
        ) {
            let entity = proto::Entity {
                kind, namespace: 1, pod: 200, container: 3, name: 4, image: 70_000, pod_uid: vec![1; 16],
                static_pod: flag, container_id: vec![2; 32], container_id_text: 9, start_ms: 1 << 40, qos: 2,
                labels: small.clone(), window: 1, host_network: !flag, departed: flag,
                node: 300, ended: !flag,
            };
            let batch = proto::Batch {
                node: text.clone(), boot_id: vec![3; 16], sequence: 1, time_ms: 2, resolution_ms: 3,
                sampled_ms: 4, sent_ms: 0, agent: text.clone(), host_boot_id: Vec::new(),
                strings: vec![String::new(), text],
                entities: vec![entity, proto::Entity::default()],
                windows_ns: values.clone(),
                rows: vec![proto::Rows { entities: small, labels: Vec::new() }, proto::Rows::default()],
                columns: vec![
                    proto::Column { metric: 5, rows: 0, integers: values, doubles },
                    proto::Column::default(),
                ],
                dropped: vec![proto::Dropped { reason: 1, count: 2 }],
            };
            let mut writer = Writer::default();
            writer.write(&batch);
            prop_assert_eq!(writer.out, batch.encode_to_vec());
        }
    }
}
