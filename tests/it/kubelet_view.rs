//! `/metrics/cadvisor`: the families, rows and labels of a kubelet's.

use std::collections::BTreeSet;
use std::sync::Arc;

use nodegauge::expose::families::{self, Emit};
use nodegauge::expose::{Format, Options, Renderer, View};
use nodegauge::identity::path;
use nodegauge::snapshot::{Cgroup, CgroupSample, Hierarchy, Kinds, KubeletLabels, Snapshot};

use crate::data::exposition::{self, Sample};
use crate::data::{Numbers, all_kinds, row, snapshot};

fn kubelets() -> BTreeSet<&'static str> {
    include_str!("../data/kubelet-families.txt").lines().collect()
}

fn scrape(snapshot: &Snapshot, kinds: Kinds) -> Vec<Sample> {
    let options = Options { format: Format::Prometheus, view: View::Kubelet, kinds, timestamps: false };
    let mut text = Vec::new();
    let rendered = Renderer::new(options).render(snapshot, |chunk| {
        text.extend_from_slice(chunk);
        Ok::<(), std::convert::Infallible>(())
    });
    rendered.unwrap();
    exposition::samples(&String::from_utf8(text).unwrap(), false)
}

#[test]
fn the_families_are_the_kubelets() {
    let ours: BTreeSet<&str> =
        families::all().filter(|f| families::of_the_kubelet(f)).map(|f| f.name).collect();
    assert_eq!(ours, kubelets());
    // Those that can have samples have some here, and no other family has.
    let told: BTreeSet<String> = [Hierarchy::V1, Hierarchy::V2]
        .into_iter()
        .flat_map(|hierarchy| scrape(&shown(hierarchy), all_kinds()))
        .map(|sample| sample.name)
        .collect();
    let can: BTreeSet<String> = families::all()
        .filter(|f| families::of_the_kubelet(f) && !matches!(f.emit, Emit::Never))
        .map(|f| f.name.to_owned())
        .collect();
    let missing: Vec<_> = can.difference(&told).collect();
    assert!(told.is_subset(&can) && missing.len() < can.len() / 4, "missing: {missing:?}");
    assert!(told.contains("container_processes") && !told.contains("container_hugetlb_usage_bytes"));
}

/// Everything on one row a kubelet shows.
fn shown(hierarchy: Hierarchy) -> Snapshot {
    let mut all = snapshot(hierarchy, 3);
    for row in &mut all.cgroups {
        let cgroup = Cgroup { kubelet: KubeletLabels::Base, ..(*row.cgroup).clone() };
        row.cgroup = Arc::new(cgroup);
    }
    all
}

#[test]
fn rows_and_labels_are_the_kubelets_in_either_style() {
    let own =
        "container=\"web\",id=\"/kubepods/pod1/c1\",image=\"i\",name=\"c1\",namespace=\"shop\",pod=\"p\"";
    let cgroup = |path: &str, labels: String, kubelet| {
        let cgroup = Arc::new(Cgroup { path: path.into(), labels, kubelet, ..Cgroup::default() });
        row(Hierarchy::V2, cgroup, &mut Numbers(1_000))
    };
    let mut snapshot = snapshot(Hierarchy::V2, 0);
    let base = "container=\"\",id=\"/\",image=\"\",name=\"\",namespace=\"\",pod=\"\"";
    snapshot.cgroups = vec![
        cgroup("/", base.to_owned(), KubeletLabels::Base),
        cgroup("/kubepods/pod1/c1", "id=\"/kubepods/pod1/c1\"".to_owned(), KubeletLabels::Own(own.into())),
        cgroup(
            "/system.slice/ssh.service",
            "id=\"/system.slice/ssh.service\"".to_owned(),
            KubeletLabels::NotShown,
        ),
    ];
    let samples = scrape(&snapshot, Kinds::KUBELET);
    let rows: Vec<&Sample> = samples.iter().filter(|s| s.labels.contains_key("id")).collect();
    let six = ["container", "id", "image", "name", "namespace", "pod"];
    for sample in &rows {
        assert!(six.iter().all(|label| sample.labels.contains_key(*label)), "{sample:?}");
    }
    let ids: BTreeSet<&str> = rows.iter().map(|s| s.labels["id"].as_str()).collect();
    assert_eq!(ids, BTreeSet::from(["/", "/kubepods/pod1/c1"]));
    assert!(rows.iter().any(|s| s.labels["pod"] == "p" && s.labels["namespace"] == "shop"));
    // The other view is as before.
    let options =
        Options { format: Format::Prometheus, view: View::All, kinds: Kinds::KUBELET, timestamps: false };
    let mut all = String::new();
    let rendered = Renderer::new(options).render(&snapshot, |chunk| {
        all.push_str(std::str::from_utf8(chunk).unwrap());
        Ok::<(), std::convert::Infallible>(())
    });
    rendered.unwrap();
    assert!(all.contains("id=\"/system.slice/ssh.service\"") && !all.contains("pod=\"p\""));
}

#[test]
fn a_kubelet_shows_its_pods_itself_and_its_runtime() {
    const UID: &str = "0d1c2b3a-4f5e-4a7b-8c9d-0e1f2a3b4c5d";
    let id = "4f2e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e";
    let shown = |path: &str| path::parse(path).shown_by_kubelet(path);
    for path in [
        "/".to_owned(),
        "/kubepods.slice".to_owned(),
        "/kubepods/besteffort".to_owned(),
        format!("/kubepods/besteffort/pod{UID}"),
        format!("/kubepods/besteffort/pod{UID}/{id}"),
        format!("/kubepods/besteffort/pod{UID}/{id}/container"),
        "/system.slice/kubelet.service".to_owned(),
        "/system.slice/containerd.service".to_owned(),
    ] {
        assert!(shown(&path), "{path}");
    }
    for path in [
        "/system.slice".to_owned(),
        "/system.slice/ssh.service".to_owned(),
        "/user.slice".to_owned(),
        format!("/system.slice/docker-{id}.scope"),
        format!("/docker/{id}/kubelet/kubepods/besteffort/pod{UID}"),
    ] {
        assert!(!shown(&path), "{path}");
    }
}

#[test]
fn a_row_that_is_not_shown_has_no_samples() {
    let mut snapshot = snapshot(Hierarchy::V2, 0);
    let cgroup = Arc::new(Cgroup { path: "/x".into(), ..Cgroup::default() });
    snapshot.cgroups = vec![CgroupSample::new(cgroup)];
    assert!(scrape(&snapshot, Kinds::KUBELET).iter().all(|s| !s.labels.contains_key("id")));
}
