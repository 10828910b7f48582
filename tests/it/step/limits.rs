//! What the limits keep out of a step, always the same things, and that it is counted.

use std::time::Instant;

use nodegauge::identity::Directory;
use nodegauge::identity::model::{Labels, Names, PodInfo};
use nodegauge::push::batch::{Batch, DropReason, Entity, EntityKind};
use nodegauge::push::step::{Limits, Options, StepBuilder};
use nodegauge::snapshot::{CgroupSample, Hierarchy};

use super::{Clock, container, directory, entity, make, options, pod, row, sandbox, shop};
use crate::data;

fn limited(limits: Limits, rows: Vec<CgroupSample>, directory: &Directory) -> Batch {
    let mut builder = StepBuilder::new(Options { limits, ..options() });
    let clock = Clock { zero: Instant::now() };
    make(&mut builder, &clock.tick(0, rows), directory).unwrap().batch
}

#[test]
fn labels_are_capped_and_counted() {
    let long = "v".repeat(30) + "é";
    let labels = [("a", "1"), ("b", long.as_str()), (&"k".repeat(11), "2"), ("z1", "3"), ("z2", "4")];
    let pod = PodInfo { labels: Labels::new(labels, &mut Names::default()), ..pod() };
    let limits = Limits { labels: 3, label_key: 10, label_value: 31, ..Limits::default() };
    let batch = limited(limits, shop(1), &Directory::of([container('a', "web"), sandbox('b')], [pod]));
    let pod = entity(&batch, EntityKind::Pod, "web-0");
    let cut = "v".repeat(30);
    assert_eq!(pod.labels().collect::<Vec<_>>(), [("a", "1"), ("b", &*cut), ("z1", "3")]);
    assert_eq!(
        batch.dropped().collect::<Vec<_>>(),
        [(DropReason::Labels, 1), (DropReason::LabelKey, 1), (DropReason::LabelValue, 1)]
    );
}

#[test]
fn text_is_capped() {
    let whole = limited(Limits::default(), shop(1), &directory());
    assert_eq!((whole.entities().count(), whole.dropped().count()), (4, 0));
    // What the node needs, "shop", "web-0" and one pair of labels; nobody after that.
    let node = whole.message().strings.iter().take_while(|s| *s != "shop").map(String::len);
    let limits = Limits { text: node.sum::<usize>() + 12, ..Limits::default() };
    let batch = limited(limits, shop(1), &directory());
    let pod = entity(&batch, EntityKind::Pod, "web-0");
    assert_eq!(pod.labels().collect::<Vec<_>>(), [("app", "web")]);
    let dropped: Vec<_> = batch.dropped().collect();
    assert_eq!(dropped, [(DropReason::Entities, 2), (DropReason::Labels, 1)]);
}

#[test]
fn entities_and_values_are_capped_in_order() {
    let many = |count: usize| -> Vec<CgroupSample> {
        let rows = (0..count).map(|i| row(&format!("/docker/{i:064x}"), i as u64, 7));
        std::iter::once(row("/", 1, 1)).chain(rows).collect()
    };
    let limits = Limits { entities: 11, ..Limits::default() };
    for _ in 0..3 {
        let batch = limited(limits, many(15), &Directory::default());
        let ids: Vec<_> = batch.entities().filter_map(|e| e.container_id()).collect();
        assert_eq!(ids, (0..10).map(|i| format!("{i:064x}")).collect::<Vec<_>>());
        assert_eq!(batch.dropped().collect::<Vec<_>>(), [(DropReason::Entities, 5)]);
    }
    let all = limited(Limits::default(), many(15), &Directory::default());
    let values = |e: &Entity<'_>| e.metrics().count();
    let (node, each) = (values(&all.entities().next().unwrap()), values(&all.entities().nth(1).unwrap()));
    let limits = Limits { values: node + 4 * each + 1, ..Limits::default() };
    let batch = limited(limits, many(15), &Directory::default());
    assert_eq!(batch.entities().count(), 5);
    assert_eq!(batch.dropped().collect::<Vec<_>>(), [(DropReason::Series, 11 * each as u64)]);

    let mut root = data::snapshot(Hierarchy::V2, 1).cgroups.remove(0);
    let device = root.io.remove(0);
    root.io = (0..9)
        .rev()
        .map(|minor| {
            let mut device = device.clone();
            (device.minor, device.name) =
                (minor, if minor < 5 { "".into() } else { format!("/dev/sd{minor}").into() });
            device
        })
        .collect();
    let limits = Limits { devices: 7, ..Limits::default() };
    let batch = limited(limits, vec![root], &Directory::default());
    let node = batch.entities().next().unwrap();
    let devices: Vec<_> =
        node.metrics().filter(|p| p.metric.name == "disk/io_reads").map(|p| p.label.unwrap()).collect();
    assert_eq!(devices, ["/dev/sd5", "/dev/sd6", "/dev/sd7", "/dev/sd8", "254:0", "254:1", "254:2"]);
    assert_eq!(batch.dropped().collect::<Vec<_>>(), [(DropReason::Devices, 2)]);
}
