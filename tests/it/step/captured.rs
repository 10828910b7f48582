//! Steps of real kernels' trees.

use std::collections::HashMap;
use std::time::Duration;

use nodegauge::identity::Directory;
use nodegauge::identity::path::{Level, parse};
use nodegauge::push::batch::EntityKind;
use nodegauge::push::step::{Options, StepBuilder};
use nodegauge::snapshot::CgroupSample;

use super::{entity, integer, make, options};
use crate::{faults, ttar};

const METRICS: [&str; 7] = [
    "cpu/usage",
    "cpu/throttled",
    "memory/usage",
    "memory/working_set",
    "memory/page_faults",
    "memory/pressure_some",
    "process/threads",
];

/// The same, as the snapshot has them.
fn figures(row: &CgroupSample) -> [Option<u64>; 7] {
    [
        row.cpu.usage_ns,
        row.cpu.throttled_ns,
        row.memory.usage,
        row.memory.working_set,
        row.memory.pgfault,
        row.pressure.memory.some_usec,
        row.process.threads,
    ]
    .map(|reading| reading.map(u64::from))
}

/// What kernels told, from the captured trees: every cgroup of a pod or container
/// is in the step, with the snapshot's figures.
#[test]
fn captured_trees_make_steps() {
    let (mut pods, mut containers) = (0, 0);
    for scenario in ttar::scenarios() {
        let tree = ttar::unpack(&scenario);
        let snapshot = faults::tick(&mut faults::sampler(tree.path()));
        let mut builder = StepBuilder::new(Options { resolution: Duration::from_millis(1), ..options() });
        let batch = make(&mut builder, &snapshot, &Directory::default()).unwrap().batch;
        let node = entity(&batch, EntityKind::Node, "");
        assert_eq!(METRICS.map(|m| integer(&node, m))[2], figures(&snapshot.cgroups[0])[2], "{scenario}");
        // The shapes made by hand have some ids twice; one of the rows is in the step.
        let mut rows: HashMap<_, Vec<&CgroupSample>> = HashMap::new();
        for row in &snapshot.cgroups {
            let path = parse(&row.cgroup.path);
            // What is inside another container is the outer one's.
            if matches!(path.level, Level::Pod | Level::Container) && path.within.is_none() {
                rows.entry((path.level, path.pod, path.container)).or_default().push(row);
            }
        }
        for ((level, pod, container), rows) in rows {
            let found = batch.entities().find(|e| match level {
                Level::Pod => e.kind() == EntityKind::Pod && e.pod_uid() == pod,
                _ => e.container_id().as_deref() == container,
            });
            let path = &rows[0].cgroup.path;
            let found = found.unwrap_or_else(|| panic!("{scenario}: {path} is missing"));
            let sent = METRICS.map(|metric| integer(&found, metric));
            let told: Vec<_> = rows.iter().map(|row| figures(row)).collect();
            assert!(told.contains(&sent), "{scenario}: {path} has {told:?}, sent was {sent:?}");
            let whole = sent[0].is_some() && sent[2].is_some();
            assert!(whole || scenario == "damaged", "{scenario}: {path}");
            pods += usize::from(found.kind() == EntityKind::Pod);
            containers += usize::from(found.kind() == EntityKind::Container);
        }
    }
    assert!(pods > 5 && containers > 10, "{pods} pods, {containers} containers");
}
