//! Resources that are neither CPU, memory nor storage.

use super::*;

#[test]
fn other_resources_are_named_by_what_was_asked_for() {
    let side = PodContainer {
        other_requests: vec![("nvidia.com/gpu".into(), 1)],
        ..PodContainer::new("side".into(), Some(Role::App))
    };
    let pod = PodInfo { containers: vec![web(), side], ..pod() };
    let rows = |factor| vec![row("/", factor, 1), row(POD, factor, 2)];
    let batch = second(rows, &Directory::of([], [pod]));
    let told = |kind, name| -> Vec<_> {
        let points = entity(&batch, kind, name).metrics();
        let named = points.filter(|point| point.metric.name.contains('*'));
        named.map(|point| (point.name().into_owned(), point.labels().len(), point.value)).collect()
    };
    for (kind, name, count) in
        [(EntityKind::Container, "web", 2), (EntityKind::Container, "side", 1), (EntityKind::Pod, "web-0", 3)]
    {
        assert_eq!(
            told(kind, name),
            [("nvidia.com/gpu/request".to_owned(), 0, Value::Integer(count))],
            "{name}"
        );
    }
    assert_eq!(
        batch
            .entities()
            .find(|e| e.kind() == EntityKind::Node)
            .unwrap()
            .metrics()
            .filter(|p| p.metric.name.contains('*'))
            .count(),
        0
    );
}
