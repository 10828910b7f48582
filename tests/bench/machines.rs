//! Simulated nodes: batches as agents push them, of a given size.
//!
//! A quarter of the counters and gauges stand still, as those of errors do, and so does all of
//! every third pod; the others move at random, as those of a busy container do. Every metric is there
//! that an entity can have, and disks and filesystems with one or two labels each.

use std::collections::HashMap;

use nodegauge::push::batch::proto;
use nodegauge::push::batch::{Assembler, Batch, Kind, Kinds, Label, METRICS, Metric, MetricId, ValueType};

/// The first step, milliseconds since the epoch.
pub const START: u64 = 1_700_000_040_000 / 60_000 * 60_000;

/// A node's figures: counters that rise, gauges that move a little, and much that
/// stays as it is.
pub struct Machine {
    pub name: usize,
    pub pods: usize,
    pub containers: usize,
    pub resolution_ms: u64,
    state: u64,
    /// Every counter, in the order of the values of a push.
    counters: Vec<u64>,
}

impl Machine {
    pub fn new(name: usize, pods: usize, containers: usize, resolution_ms: u64) -> Machine {
        Machine { name, pods, containers, resolution_ms, state: name as u64 * 77 + 1, counters: Vec::new() }
    }

    /// What it is called.
    pub fn node(name: usize) -> String {
        format!("node-{name}")
    }

    /// Namespace and name of one of its pods.
    pub fn pod(name: usize, pod: usize) -> (String, String) {
        (format!("namespace-{}", pod % 10), format!("deployment-{pod}-{name:09x}-{pod:05x}"))
    }

    fn random(&mut self) -> u64 {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.state >> 33
    }

    /// What it pushes for the step of that number, from 1.
    pub fn push(&mut self, slot: u64) -> Batch {
        let time_ms = START + slot * self.resolution_ms;
        let mut batch = Assembler::new(proto::Batch {
            node: Machine::node(self.name),
            boot_id: vec![1; 16],
            host_boot_id: (self.name as u128).to_be_bytes().into(),
            sequence: slot,
            time_ms,
            sampled_ms: time_ms,
            resolution_ms: self.resolution_ms,
            ..proto::Batch::default()
        });
        let mut counter = 0;
        let window = batch.window(self.resolution_ms * 1_000_000 + self.random() % 1_000_000);
        let on = |m: &Metric, pick: fn(Kinds) -> bool| pick(m.on);
        batch.entity(proto::Entity { kind: proto::EntityKind::Node.into(), window, ..Default::default() });
        self.values(&mut batch, &mut counter, 0, |m| on(m, |k| k.node), &["/", "/dev/vda"]);
        for pod in 0..self.pods {
            let (namespace, name) = Machine::pod(self.name, pod);
            let (namespace, name) = (batch.string(&namespace), batch.string(&name));
            let labels = ["app", "tier", "pod-template-hash"].map(|key| batch.string(key));
            let value = batch.string("some-label-value");
            let labels = labels.into_iter().flat_map(|key| [key, value]).collect();
            let of_pod = proto::Entity {
                namespace,
                pod: name,
                window,
                pod_uid: (self.name as u128 * 1000 + pod as u128).to_be_bytes().into(),
                start_ms: START - 1_000_000,
                ..Default::default()
            };
            batch.entity(proto::Entity { kind: proto::EntityKind::Pod.into(), labels, ..of_pod.clone() });
            self.values(&mut batch, &mut counter, pod, |m| on(m, |k| k.pod), &["Volume:data"]);
            for container in 0..self.containers {
                let image = batch.string(&format!("registry.example/team/image-{}:1.0", pod % 20));
                let container = batch.string(&format!("container-{container}"));
                batch.entity(proto::Entity {
                    kind: proto::EntityKind::Container.into(),
                    container,
                    image,
                    ..of_pod.clone()
                });
                self.values(&mut batch, &mut counter, pod, |m| on(m, |k| k.container), &["/", "logs"]);
            }
        }
        batch.finish().unwrap()
    }

    fn values(
        &mut self,
        batch: &mut Assembler,
        counter: &mut usize,
        pod: usize,
        has: impl Fn(&Metric) -> bool,
        filesystems: &[&str],
    ) {
        let busy = !pod.is_multiple_of(3);
        let mut risen: HashMap<(MetricId, &str), u64> = HashMap::new();
        // Accelerators, and what has a name of its own, are on few nodes.
        let common = METRICS.iter().filter(|m| matches!(m.label, None | Some(Label::Of(_))));
        for (at, metric) in common.enumerate().filter(|(_, m)| has(m)) {
            let labels = match metric.label {
                None => &[""][..],
                Some(_) if metric.name.starts_with("filesystem/") => filesystems,
                Some(_) => &["/dev/vda"],
            };
            for label in labels {
                let moves = busy && !at.is_multiple_of(4);
                let value = match metric.kind {
                    Kind::Rate(of) => risen.get(&(of, *label)).copied().unwrap_or(0),
                    Kind::Cumulative => {
                        let rise = if moves { self.random() % 3_000_000 } else { 0 };
                        risen.insert((metric.id, label), rise);
                        if self.counters.len() == *counter {
                            self.counters.push(at as u64 * 1_000_003 + pod as u64 * 77_777);
                        }
                        self.counters[*counter] += rise;
                        *counter += 1;
                        self.counters[*counter - 1]
                    }
                    Kind::Gauge if moves => at as u64 * 1_000_003 + self.random() % 40 * 4_096,
                    Kind::Gauge => at as u64 * 4_096,
                };
                if metric.value_type == ValueType::Double && !metric.is_rate() {
                    batch.double(metric.id, 4_000.0);
                } else {
                    let label = batch.string(label);
                    batch.labelled(metric.id, label, value);
                }
            }
        }
    }
}
