//! Batches that keep the rules of the format and make no sense: whatever an agent
//! that is let in sends, the model takes it or not, and goes on.

use std::sync::Arc;
use std::time::Duration;

use nodegauge::aggregate::ingest::Ingest;
use nodegauge::aggregate::model::{Model, Options, Subject};
use nodegauge::push::batch::{self, Batch, METRICS, ValueType, proto};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::ingest::{MINUTE, START};

const STRINGS: usize = 6;

/// Numbers at which sums and products break.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(u64::MAX),
        Just(u64::MAX - 1),
        Just(i64::MAX.unsigned_abs() + 1),
        0_u64..100_000,
        any::<u64>(),
    ]
}

/// Moments about which there could be an argument, most near the present.
fn moment() -> impl Strategy<Value = u64> {
    prop_oneof![
        10 => START - 20 * MINUTE..START + 3 * MINUTE,
        1 => number(),
    ]
}

fn string() -> impl Strategy<Value = u32> {
    0..u32::try_from(STRINGS).unwrap()
}

fn entity(windows: usize) -> impl Strategy<Value = proto::Entity> {
    let windows = u32::try_from(windows).unwrap();
    let names = (0..6_i32, string(), string(), string(), string());
    let rest = (0..=windows, number(), any::<bool>(), any::<bool>(), vec(string(), 0..3), any::<bool>());
    (names, rest).prop_map(|((kind, namespace, pod, container, image), rest)| {
        let (window, start_ms, host_network, departed, labels, has_uid) = rest;
        proto::Entity {
            kind,
            namespace,
            pod,
            container,
            image,
            window,
            start_ms,
            host_network,
            departed,
            labels: labels.into_iter().flat_map(|label| [label, label]).collect(),
            pod_uid: if has_uid { vec![7; 16] } else { Vec::new() },
            ..proto::Entity::default()
        }
    })
}

/// Rows of up to three entities, some several times.
fn rows(entities: usize) -> impl Strategy<Value = proto::Rows> {
    let at = vec(0..entities.max(1), if entities == 0 { 0..1_usize } else { 0..8 });
    (at, vec(string(), 8), any::<bool>()).prop_map(move |(mut at, labels, labelled)| {
        if entities == 0 {
            at.clear();
        }
        at.sort_unstable();
        let mut last = 0;
        let distances = at.iter().map(|at| u32::try_from(at - std::mem::replace(&mut last, *at)).unwrap());
        let entities: Vec<u32> = distances.collect();
        let labels = if labelled { labels[..entities.len()].to_vec() } else { Vec::new() };
        proto::Rows { entities, labels }
    })
}

fn batch() -> impl Strategy<Value = Batch> {
    let shape = (0_usize..8, 0_usize..3, 0_usize..4);
    shape
        .prop_flat_map(|(entities, windows, sets)| {
            let parts = (
                vec(entity(windows), entities),
                vec(number(), windows),
                vec(rows(entities), sets),
                proptest::sample::subsequence(METRICS.iter().map(|m| m.id).collect::<Vec<_>>(), 0..12),
                vec((0..sets.max(1), vec(number(), 8)), 12),
            );
            let head = (0..3_u8, 0..2_u8, 1..6_u64, moment(), moment(), moment());
            let resolution = prop_oneof![Just(1), Just(1_000), Just(7_000), Just(15_000), Just(MINUTE)];
            (parts, head, prop_oneof![10 => resolution, 1 => number().prop_map(|n| n.max(1))])
        })
        .prop_map(|((entities, windows_ns, rows, metrics, columns), head, resolution_ms)| {
            let (node, boot, sequence, time_ms, sampled_ms, sent_ms) = head;
            let column = |(metric, (set, values)): (proto::MetricId, (usize, Vec<u64>))| {
                let count = rows.get(set)?.entities.len();
                let known = METRICS.iter().find(|m| m.id == metric).unwrap();
                let mut column = proto::Column {
                    metric: metric.into(),
                    rows: u32::try_from(set).unwrap(),
                    ..proto::Column::default()
                };
                let values = values.into_iter().take(count);
                match known.is_rate() || known.value_type == ValueType::Integer {
                    true => column.integers = values.collect(),
                    false => column.doubles = values.map(f64::from_bits).collect(),
                }
                Some(column)
            };
            let columns = metrics.into_iter().zip(columns).filter_map(column).collect();
            let message = proto::Batch {
                node: format!("n{node}"),
                boot_id: vec![boot; 16],
                host_boot_id: vec![boot; 16],
                sequence,
                time_ms: time_ms / resolution_ms * resolution_ms,
                resolution_ms,
                sampled_ms,
                sent_ms: sent_ms.max(1),
                strings: ["", "a", "b", "c", "default", "x"].map(str::to_owned).to_vec(),
                entities,
                windows_ns: windows_ns.into_iter().map(|ns| ns.max(1)).collect(),
                rows,
                columns,
                ..proto::Batch::default()
            };
            Batch::new(message).expect("it keeps the rules")
        })
}

/// Asks for everything there could be.
fn ask(model: &Model) {
    let name = |text: &str| Arc::<str>::from(text);
    let mut subjects = vec![Subject::Cluster];
    for node in model.nodes() {
        subjects.push(Subject::Node(Arc::clone(&node.name)));
        for system in model.system_containers(&node.name) {
            subjects.push(Subject::System(Arc::clone(&node.name), system));
        }
    }
    for namespace in model.namespaces() {
        subjects.push(Subject::Namespace(Arc::clone(&namespace)));
        for pod in model.pods(&namespace) {
            let containers = model.containers(&namespace, &pod);
            let of_pod = |c| Subject::Container(Arc::clone(&namespace), Arc::clone(&pod), c);
            subjects.extend(containers.into_iter().map(of_pod));
            subjects.push(Subject::Pod(Arc::clone(&namespace), pod));
        }
    }
    for subject in &subjects {
        model.describe(subject);
        model.metrics(subject);
        for metric in METRICS {
            for label in ["", "a", "default"] {
                let series = model.series(subject, metric, &name(label));
                assert!(series.is_sorted_by(|a, b| a.0 < b.0), "{subject:?} {}", metric.name);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn nothing_breaks(
        batches in vec((batch(), any::<bool>()), 1..30),
        ahead in 0..2_u64,
    ) {
        let model = Arc::new(Model::new(Options::default()));
        let ingest = Ingest::new(Arc::clone(&model), 2);
        let steady = |now: u64| Duration::from_millis(now - START / 2);
        ingest.tick(START - 10 * MINUTE, steady(START - 10 * MINUTE));
        let mut now = START;
        for (batch, tick) in batches {
            let payload = batch::encode(&batch).unwrap();
            let bytes = batch::stamp(&payload, batch.sequence(), batch.sent_ms().unwrap());
            // Whether it is taken is not the point.
            let _ = ingest.take(&bytes, None, now);
            if tick {
                now += ahead * 20_000 + 1;
                ingest.tick(now, steady(now));
            }
        }
        now += MINUTE;
        ingest.tick(now, steady(now));
        ask(&model);
        prop_assert!(model.nodes().len() <= 2);
        let counts = ingest.counts();
        prop_assert_eq!(counts.clock_set, 0);
    }
}
