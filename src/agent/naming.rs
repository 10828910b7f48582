//! Puts the names that identity found on the rows.
//!
//! Every row keeps what it was last resolved to; when the directory's generation
//! changes, rows are resolved again, and only those that became another get new
//! labels. Rows that wait for their name are held back, for a bounded time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::collect::sampler::Namer;
use crate::expose::labels::append;
use crate::identity::Identities;
use crate::identity::enrich::{
    LabelChoice, LabelRules, LabelStyle, NetworkRole, Row, network_roles, resolve,
};
use crate::identity::path::{self, PathIdentity};
use crate::kernel::tree::{NetworkRow, Node};
use crate::snapshot::{Cgroup, Identity, KubeletLabels};

/// Names rows from a running [`Identities`].
#[derive(Debug)]
pub struct Naming {
    identities: Arc<Identities>,
    choice: LabelChoice,
    rules: Option<LabelRules>,
    generation: Option<u64>,
    rows: HashMap<u64, Known>,
    count: usize,
}

#[derive(Debug)]
struct Known {
    row: Row,
    found: Instant,
}

impl Naming {
    /// Names from `identities`, with labels as chosen.
    pub fn new(identities: Arc<Identities>, choice: LabelChoice) -> Self {
        Naming { identities, choice, rules: None, generation: None, rows: HashMap::new(), count: 0 }
    }
}

impl Namer for Naming {
    /// A row has no labels before [`Namer::update`] has seen it, which is before
    /// it is read.
    fn describe(&mut self, path: String, created: Option<u64>) -> Arc<Cgroup> {
        Arc::new(Cgroup { path, created, ..Cgroup::default() })
    }

    fn update(&mut self, nodes: &mut [Node]) {
        let directory = self.identities.directory();
        let changed = self.generation != Some(directory.generation())
            || self.count != nodes.len()
            || nodes.iter().any(|n| n.waits || n.age == 0);
        if !changed {
            return;
        }
        self.generation = Some(directory.generation());
        self.count = nodes.len();
        let rules = self.rules.get_or_insert_with(|| {
            let paths = nodes.iter().map(|n| n.cgroup.path.as_str());
            self.choice.for_host(paths)
        });
        let now = Instant::now();
        for node in nodes.iter_mut() {
            let parsed = path::parse(&node.cgroup.path);
            let found = self.rows.get(&node.id).map_or(now, |known| known.found);
            let row = resolve(&parsed, &directory, now.duration_since(found));
            if row.waits {
                self.identities.want(&parsed);
            }
            node.waits = row.waits;
            let same = self.rows.get(&node.id).is_some_and(|known| known.row.is_same(&row));
            if !same || node.cgroup.labels.is_empty() {
                let cgroup = named(&node.cgroup, &row, rules);
                if cgroup.labels != node.cgroup.labels || cgroup.identity != node.cgroup.identity {
                    node.cgroup = Arc::new(cgroup);
                }
                self.rows.insert(node.id, Known { row, found });
            }
        }
        self.forget_gone(nodes);
        self.place_network(nodes);
    }
}

impl Naming {
    fn forget_gone(&mut self, nodes: &[Node]) {
        if self.rows.len() > nodes.len() {
            let alive: std::collections::HashSet<u64> = nodes.iter().map(|n| n.id).collect();
            self.rows.retain(|id, _| alive.contains(id));
        }
    }

    /// A pod's namespace is counted on its sandbox's row, or where that is not
    /// known on the pod's own.
    fn place_network(&self, nodes: &mut [Node]) {
        let unknown = Row::default();
        let rows: Vec<(PathIdentity<'_>, &Row)> = nodes
            .iter()
            .map(|n| (path::parse(&n.cgroup.path), self.rows.get(&n.id).map_or(&unknown, |known| &known.row)))
            .collect();
        let roles = network_roles(&rows);
        let ids: Vec<u64> = nodes.iter().map(|n| n.id).collect();
        let placed: Vec<NetworkRow> = rows
            .iter()
            .zip(&roles)
            .map(|((path, _), role)| match role {
                NetworkRole::Own => NetworkRow::Own,
                NetworkRole::OfPod(index) => {
                    ids.get(*index).map_or(NetworkRow::Own, |id| NetworkRow::Of(*id))
                }
                // What is no container at all is counted where it is found.
                NetworkRole::Nobody if path.container.is_none() && path.pod.is_none() => NetworkRow::Own,
                NetworkRole::Nobody => NetworkRow::Nowhere,
            })
            .collect();
        for (node, network) in nodes.iter_mut().zip(placed) {
            node.network = network;
        }
    }
}

fn named(cgroup: &Cgroup, row: &Row, rules: &LabelRules) -> Cgroup {
    let mut labels = String::new();
    row.labels(&cgroup.path, rules, |name, value| append(&mut labels, name, value));
    let mut kubelet = String::new();
    let told = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (mut identity, mut facts) = (Identity::default(), LabelRules::new(LabelStyle::Kubernetes));
    facts.store_container_labels = false;
    row.labels(&cgroup.path, &facts, |name, value| {
        append(&mut kubelet, name, value);
        match name {
            "namespace" => identity.namespace = told(value),
            "pod" => identity.pod = told(value),
            "container" => identity.container = told(value),
            "image" => identity.image = told(value),
            "name" => identity.name = told(value),
            _ => {}
        }
    });
    let kubelet = match rules.style {
        _ if !path::parse(&cgroup.path).shown_by_kubelet(&cgroup.path) => KubeletLabels::NotShown,
        LabelStyle::Kubernetes => KubeletLabels::Base,
        LabelStyle::Cadvisor => KubeletLabels::Own(kubelet.into()),
    };
    Cgroup { path: cgroup.path.clone(), created: cgroup.created, identity, labels, kubelet }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::model::{ContainerInfo, PodRef};
    use crate::identity::path::PodUid;

    const UID: &str = "0d1c2b3a-4f5e-4a7b-8c9d-0e1f2a3b4c5d";
    const ID: &str = "4f2e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e";

    fn row(path: &str) -> Row {
        let pod = PodRef { uid: PodUid::parse(UID), namespace: "shop".into(), name: "web-1".into() };
        let container = ContainerInfo {
            name: Some(ID.into()),
            image: Some("nginx:1".into()),
            pod: Some(pod),
            container: Some("web".into()),
            ..ContainerInfo::new(ID.into())
        };
        let mut row = Row::default();
        row.level = path::parse(path).level;
        row.container = Some(Arc::new(container));
        row
    }

    #[test]
    fn a_kubelets_labels_are_there_in_either_style() {
        let path = format!("/kubepods/besteffort/pod{UID}/{ID}");
        let cgroup = Cgroup { path: path.clone(), ..Cgroup::default() };
        let six = format!(
            "container=\"web\",id=\"{path}\",image=\"nginx:1\",name=\"{ID}\",namespace=\"shop\",pod=\"web-1\""
        );
        let kubernetes = named(&cgroup, &row(&path), &LabelRules::new(LabelStyle::Kubernetes));
        assert_eq!((kubernetes.labels.as_str(), kubernetes.kubelet), (six.as_str(), KubeletLabels::Base));
        let cadvisor = named(&cgroup, &row(&path), &LabelRules::new(LabelStyle::Cadvisor));
        assert!(!cadvisor.labels.contains("pod="), "{}", cadvisor.labels);
        assert_eq!(cadvisor.kubelet, KubeletLabels::Own(six.into()));
    }

    #[test]
    fn a_service_that_is_not_kubernetes_is_not_the_kubelets() {
        let cgroup = Cgroup { path: "/system.slice/ssh.service".into(), ..Cgroup::default() };
        let cgroup = named(&cgroup, &Row::default(), &LabelRules::new(LabelStyle::Kubernetes));
        assert_eq!(cgroup.kubelet, KubeletLabels::NotShown);
    }
}
