//! Puts the names that identity found on the rows.
//!
//! Every row keeps what it was last resolved to; when the directory's generation
//! changes, rows are resolved again, and only those that became another get new
//! labels. Rows that wait for their name are held back, for a bounded time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::Described;
use crate::collect::sampler::Namer;
use crate::expose::labels::append;
use crate::identity::enrich::{
    LabelChoice, LabelRules, LabelStyle, NetworkRole, Row, network_roles, resolve,
};
use crate::identity::path::{self, Level, PathIdentity, Runtime, Service};
use crate::identity::{self, Directory, Identities};
use crate::kernel::tree::{NetworkRow, Node};
use crate::snapshot::{Cgroup, Identity, KubeletLabels, LogDirectory, Part, PodVolume, Role, Storage};

/// Where a kubelet has the logs of its pods, by [`NAMESPACE_POD_UID`](pod_logs).
const POD_LOGS: &str = "/var/log/pods";

/// Names rows from a running [`Identities`].
#[derive(Debug)]
pub struct Naming {
    identities: Arc<Identities>,
    choice: LabelChoice,
    /// The kubelet's directory of pods, on the host.
    pods: PathBuf,
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
    /// Names from `identities`, with labels as chosen, on a host whose kubelet
    /// keeps its files in `kubelet_root`.
    pub fn new(identities: Arc<Identities>, choice: LabelChoice, kubelet_root: &Path) -> Self {
        let pods = kubelet_root.join("pods");
        Naming { identities, choice, pods, rules: None, generation: None, rows: HashMap::new(), count: 0 }
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
            node.whole = is_whole(row.level);
            let same = self.rows.get(&node.id).is_some_and(|known| known.row.is_same(&row));
            if !same || node.cgroup.labels.is_empty() {
                let storage = storage(&parsed, &row, &self.pods);
                let mut part = part(&parsed, &node.cgroup.path, &row);
                part.volumes = volumes(&row, part.role, &directory);
                let hidden = self.choice.hides(&node.cgroup.path, part.runtime.is_some());
                let cgroup = Cgroup { storage, part, hidden, ..named(&node.cgroup, &row, rules) };
                let before = &node.cgroup;
                if cgroup.labels != before.labels
                    || cgroup.identity != before.identity
                    || cgroup.storage != before.storage
                    || cgroup.part != before.part
                    || cgroup.hidden != before.hidden
                {
                    node.cgroup = Arc::new(cgroup);
                }
                self.rows.insert(node.id, Known { row, found });
            }
        }
        self.forget_gone(nodes);
        self.place_network(nodes);
    }

    fn describe_gone(&mut self, path: &str, age: Duration) -> Described {
        let parsed = path::parse(path);
        let row = resolve(&parsed, &self.identities.directory(), age);
        if row.waits {
            self.identities.want(&parsed);
        }
        let mut cgroup = self.describe(path.to_owned(), None);
        if let Some(rules) = &self.rules {
            let part = part(&parsed, path, &row);
            let hidden = self.choice.hides(path, part.runtime.is_some());
            cgroup = Arc::new(Cgroup { part, hidden, ..named(&cgroup, &row, rules) });
        }
        Described { cgroup, waits: row.waits, whole: is_whole(row.level) }
    }
}

/// A pod or a container, with all that is below it.
fn is_whole(level: Level) -> bool {
    matches!(level, Level::Pod | Level::Container | Level::EmptySandbox | Level::Nested)
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
    if let Some(container) = &row.container {
        identity.started_ns = container.started_ns;
        identity.start_is_told = matches!(container.runtime, Some(Runtime::Docker | Runtime::Podman))
            && container.started_ns.is_some();
        identity.health = container.health;
    }
    let kubelet = match rules.style {
        _ if !path::parse(&cgroup.path).shown_by_kubelet(&cgroup.path) => KubeletLabels::NotShown,
        LabelStyle::Kubernetes => KubeletLabels::Base,
        LabelStyle::Cadvisor => KubeletLabels::Own(kubelet.into()),
    };
    let (storage, part) = (Storage::default(), Part::default());
    Cgroup {
        path: cgroup.path.clone(),
        created: cgroup.created,
        identity,
        labels,
        kubelet,
        storage,
        part,
        hidden: false,
    }
}

/// What a cgroup is to this node's kubelet. Pods of a node that runs in a
/// container are another kubelet's.
fn part(parsed: &PathIdentity<'_>, path: &str, row: &Row) -> Part {
    let mut part = Part {
        role: role(parsed, path, row),
        pod_uid: parsed.pod.filter(|_| parsed.within.is_none()).map(|uid| uid.to_string().into()),
        ..Part::default()
    };
    if let (Role::Pod, Some(pod)) = (part.role, &row.pod) {
        part.created_ns = pod.started_ns.or(pod.created_ns);
    }
    if let Some(container) = &row.container {
        let uid = container.pod.as_ref().and_then(|pod| pod.uid).filter(|_| parsed.within.is_none());
        part.pod_uid = part.pod_uid.or_else(|| uid.map(|uid| uid.to_string().into()));
        part.id = Some((&*container.id).into());
        part.created_ns = container.created_ns.or(container.started_ns);
        part.runtime = container.runtime.or(parsed.runtime).and_then(namespace);
        part.labels = container.labels.shared_pairs().collect();
        part.environment = container.environment.shared_pairs().collect();
    }
    part
}

/// A pod's volumes, each with its directory where a container has it mounted.
fn volumes(row: &Row, role: Role, directory: &Directory) -> Vec<PodVolume> {
    let Some(pod) = row.pod.as_deref().filter(|_| role == Role::Pod) else { return Vec::new() };
    let found = |volume: &str| {
        pod.containers.iter().find_map(|container| {
            let running = directory.container(container.id.as_deref()?)?;
            let at = container.mounts.iter().filter(|(_, name)| **name == *volume).map(|(at, _)| at);
            let of = |at: &Arc<str>| running.mounts.iter().find(|(own, _)| own == at);
            at.filter_map(of).map(|(_, directory)| Arc::clone(directory)).next()
        })
    };
    let volume = |v: &identity::model::PodVolume| PodVolume {
        name: Arc::clone(&v.name),
        claim: v.claim.clone(),
        directory: found(&v.name),
    };
    pod.volumes.iter().map(volume).collect()
}

/// cAdvisor's word for a runtime.
fn namespace(runtime: Runtime) -> Option<&'static str> {
    Some(match runtime {
        Runtime::Docker => "docker",
        Runtime::Containerd => "containerd",
        Runtime::Crio => "crio",
        Runtime::Podman => "podman",
        _ => return None,
    })
}

fn role(parsed: &PathIdentity<'_>, path: &str, row: &Row) -> Role {
    if parsed.within.is_some() {
        // Whatever it is inside that node, here it is a container of a container.
        return if row.container.is_some() { Role::Container } else { Role::Other };
    }
    match parsed.level {
        Level::Pod => Role::Pod,
        Level::EmptySandbox => Role::Sandbox,
        Level::Container if row.is_sandbox() => Role::Sandbox,
        Level::Container => Role::Container,
        Level::Nested if row.container.is_some() => Role::Container,
        level => match path::service(path, level) {
            Some((Service::Pods, _)) => Role::Pods,
            Some((Service::Kubelet, _)) => Role::Kubelet,
            Some((Service::Runtime, _)) => Role::Runtime,
            Some((Service::System, _)) => Role::System,
            None => Role::Other,
        },
    }
}

/// Where a container or a pod keeps data. What lives inside a node that is a
/// container itself has paths that mean something else on the host.
fn storage(path: &PathIdentity<'_>, row: &Row, pods: &Path) -> Storage {
    if path.within.is_some() {
        return Storage::default();
    }
    match path.level {
        Level::Pod => Storage {
            layer: false,
            logs: row.pod.as_ref().map(|p| LogDirectory::Files(pod_logs(&p.namespace, &p.name, p.uid))),
            volumes: path.pod.map(|uid| pods.join(uid.to_string()).join("volumes")),
        },
        Level::Container => Storage { layer: true, logs: container_logs(row), volumes: None },
        Level::None
        | Level::Ignored
        | Level::PodsRoot
        | Level::Qos
        | Level::PodmanPod
        | Level::EmptySandbox
        | Level::Nested
        | Level::Monitor
        | Level::Below => Storage::default(),
    }
}

/// Docker and Podman have a directory for each container, in which the log is;
/// elsewhere it is the kubelet that has the logs.
fn container_logs(row: &Row) -> Option<LogDirectory> {
    let container = row.container.as_ref()?;
    let told = container.log_path.as_deref().map(Path::new).filter(|p| p.is_absolute());
    let directory = told.and_then(Path::parent).map(Path::to_path_buf);
    if matches!(container.runtime, Some(Runtime::Docker | Runtime::Podman)) {
        return directory.map(LogDirectory::Tree);
    }
    let by_name = || {
        let (pod, name) = (container.pod.as_ref()?, container.container.as_ref()?);
        let one = |part: &str| !part.is_empty() && !part.contains('/') && part != "..";
        let logs = pod_logs(&pod.namespace, &pod.name, pod.uid?);
        (!container.is_sandbox && one(name)).then(|| logs.join(&**name))
    };
    directory.or_else(by_name).map(LogDirectory::Files)
}

fn pod_logs(namespace: &str, name: &str, uid: path::PodUid) -> PathBuf {
    // Names of Kubernetes have no slash; others must not lead elsewhere.
    let one = format!("{namespace}_{name}_{uid}").replace('/', "_");
    Path::new(POD_LOGS).join(one)
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
    fn where_data_is() {
        let pods = Path::new("/srv/kubelet/pods");
        let at = |text: &str, row: &Row| storage(&path::parse(text), row, pods);
        let pod = at(&format!("/kubepods/pod{UID}"), &Row::default());
        assert_eq!(pod.volumes, Some(pods.join(UID).join("volumes")));
        assert!(!pod.layer && pod.logs.is_none());

        let in_pod = format!("/kubepods/besteffort/pod{UID}/{ID}");
        let logs = format!("/var/log/pods/shop_web-1_{UID}/web");
        let found = at(&in_pod, &row(&in_pod));
        assert_eq!(found.logs, Some(LogDirectory::Files(logs.into())));
        assert!(found.layer && found.volumes.is_none());

        let docker = format!("/docker/{ID}");
        let info = ContainerInfo {
            runtime: Some(Runtime::Docker),
            log_path: Some("/data/docker/containers/x/x-json.log".into()),
            ..ContainerInfo::new(ID.into())
        };
        let mut docker_row = row(&docker);
        docker_row.container = Some(Arc::new(info));
        let found = at(&docker, &docker_row);
        assert_eq!(found.logs, Some(LogDirectory::Tree("/data/docker/containers/x".into())));

        // A pod of a node that is a Docker container.
        let inner = format!("/docker/{ID}/kubelet/kubepods/besteffort/pod{UID}/{ID}");
        assert_eq!(at(&inner, &row(&inner)), Storage::default());
        assert_eq!(at("/system.slice", &Row::default()), Storage::default());
    }

    #[test]
    fn volumes_are_joined_by_where_containers_have_them() {
        let path = format!("/kubepods/burstable/pod{UID}");
        let uid = PodUid::parse(UID).unwrap();
        let volume = |name: &str, claim: Option<&str>| identity::model::PodVolume {
            name: name.into(),
            claim: claim.map(Into::into),
        };
        let container = identity::model::PodContainer {
            id: Some(ID.into()),
            mounts: vec![("/data".into(), "data".into()), ("/log".into(), "logs".into())],
            ..identity::model::PodContainer::new("web".into(), None)
        };
        let pod = identity::model::PodInfo {
            volumes: vec![
                volume("data", Some("orders")),
                volume("logs", Some("history")),
                volume("tmp", None),
            ],
            containers: vec![container],
            ..identity::model::PodInfo::new(uid, "shop".into(), "web-1".into())
        };
        let running = ContainerInfo {
            mounts: vec![("/data".into(), "pvc-1".into()), ("/etc/hosts".into(), "x".into())],
            ..ContainerInfo::new(ID.into())
        };
        let directory = Directory::of([running], [pod]);
        let row = resolve(&path::parse(&path), &directory, Duration::ZERO);
        let found = volumes(&row, Role::Pod, &directory);
        let shown: Vec<_> =
            found.iter().map(|v| (&*v.name, v.claim.as_deref(), v.directory.as_deref())).collect();
        let expected =
            [("data", Some("orders"), Some("pvc-1")), ("logs", Some("history"), None), ("tmp", None, None)];
        assert_eq!(shown, expected);
        assert!(volumes(&row, Role::Container, &directory).is_empty());
    }

    #[test]
    fn a_service_that_is_not_kubernetes_is_not_the_kubelets() {
        let cgroup = Cgroup { path: "/system.slice/ssh.service".into(), ..Cgroup::default() };
        let cgroup = named(&cgroup, &Row::default(), &LabelRules::new(LabelStyle::Kubernetes));
        assert_eq!(cgroup.kubelet, KubeletLabels::NotShown);
    }
}
