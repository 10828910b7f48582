//! What a CRI runtime has told so far: lists, then the details of each
//! container and sandbox, then events. No I/O.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;

use crate::identity::grpc::proto::cri as pb;
use crate::identity::model::{
    ContainerInfo, ContainerState, Labels, Names, NetworkMode, PodContainer, PodInfo, PodOrigin, PodRef,
    Variables, docker_style_name,
};
use crate::identity::path::{PodUid, Runtime};
use crate::identity::store::View;

const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Details that failed this often are not asked for again.
const DETAIL_TRIES: u8 = 3;
/// Mounts looked at of one container.
const MAX_MOUNTS: usize = 256;

/// Whose conventions a runtime follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavor {
    Containerd,
    Crio,
    /// cri-dockerd.
    Docker,
    Other,
}

impl Flavor {
    /// From `runtime_name` of the Version call.
    pub(super) fn of(runtime_name: &str) -> Flavor {
        match runtime_name {
            "containerd" => Flavor::Containerd,
            "cri-o" => Flavor::Crio,
            "docker" => Flavor::Docker,
            _ => Flavor::Other,
        }
    }

    fn runtime(self) -> Option<Runtime> {
        match self {
            Flavor::Containerd => Some(Runtime::Containerd),
            Flavor::Crio => Some(Runtime::Crio),
            Flavor::Docker => Some(Runtime::Docker),
            Flavor::Other => None,
        }
    }

    /// Whether sandboxes go by the container name `POD` and names are `k8s_…`.
    fn is_docker_style(self) -> bool {
        matches!(self, Flavor::Crio | Flavor::Docker)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Picture {
    flavor: Flavor,
    variables: Variables,
    sandboxes: HashMap<Arc<str>, Sandbox>,
    containers: HashMap<Arc<str>, Container>,
    pods: HashMap<PodUid, Arc<PodInfo>>,
}

#[derive(Debug)]
struct Sandbox {
    info: Arc<ContainerInfo>,
    pod: PodRef,
    pod_labels: Labels,
    origin: Option<PodOrigin>,
    ready: bool,
    details: Details,
}

#[derive(Debug)]
struct Container {
    info: Arc<ContainerInfo>,
    sandbox: Arc<str>,
    details: Details,
}

/// What only the status calls tell.
#[derive(Debug, Default, Clone)]
struct Details {
    known: bool,
    tries: u8,
    image: Option<Arc<str>>,
    pid: Option<u32>,
    started_ns: Option<u64>,
    log_path: Option<Arc<str>>,
    host_network: Option<bool>,
    exit_code: Option<i32>,
    environment: Labels,
    mounts: Vec<(Arc<str>, Arc<str>)>,
}

impl Details {
    fn is_owed(&self) -> bool {
        !self.known && self.tries < DETAIL_TRIES
    }

    fn ended_is_owed(&self) -> bool {
        self.exit_code.is_none() && self.tries < DETAIL_TRIES
    }
}

/// Something whose details are owed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Owed {
    Sandbox(Arc<str>),
    Container(Arc<str>),
}

/// The JSON under `info` in verbose statuses. Its layout is nobody's promise.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Verbose {
    pid: Option<u32>,
    image: Option<String>,
    #[serde(rename = "runtimeSpec")]
    spec: Option<RuntimeSpec>,
}

/// Of the specification a container was made by, its environment.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuntimeSpec {
    process: Option<SpecProcess>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SpecProcess {
    env: Option<Vec<String>>,
}

impl Verbose {
    fn parse(info: &HashMap<String, String>) -> Verbose {
        info.get("info").and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }
}

impl Picture {
    pub(super) fn new(flavor: Flavor, variables: Variables) -> Self {
        Picture {
            flavor,
            variables,
            sandboxes: HashMap::new(),
            containers: HashMap::new(),
            pods: HashMap::new(),
        }
    }

    /// Takes complete lists; what is not in them is gone. Details stay.
    /// Returns how many entries could not be used.
    pub(super) fn listed(
        &mut self,
        sandboxes: Vec<pb::PodSandbox>,
        containers: Vec<pb::Container>,
        names: &mut Names,
    ) -> u64 {
        let mut rejected = 0;
        let mut before = std::mem::take(&mut self.sandboxes);
        for listed in sandboxes {
            let old = before.remove(listed.id.as_str());
            let (old, details) = old.map(|s| (s.info, s.details)).unzip();
            match self.sandbox(listed, old, details.unwrap_or_default(), names) {
                Some((id, sandbox)) => drop(self.sandboxes.insert(id, sandbox)),
                None => rejected += 1,
            }
        }
        let mut before = std::mem::take(&mut self.containers);
        for listed in containers {
            let old = before.remove(listed.id.as_str());
            let (old, details) = old.map(|c| (c.info, c.details)).unzip();
            match self.container(listed, old, details.unwrap_or_default(), names) {
                Some((id, container)) => drop(self.containers.insert(id, container)),
                None => rejected += 1,
            }
        }
        rejected
    }

    /// Takes an event: the state of one pod's sandbox and containers. Returns
    /// how many entries could not be used.
    pub(super) fn event(&mut self, event: pb::ContainerEventResponse, names: &mut Names) -> u64 {
        let deleted = event.container_event_type() == pb::ContainerEventType::ContainerDeletedEvent;
        let mut rejected = 0;
        let mut sandbox = String::new();
        if let Some(status) = event.pod_sandbox_status {
            sandbox.clone_from(&status.id);
            rejected += u64::from(!self.sandbox_status(status, None, names));
        }
        for status in event.containers_statuses {
            rejected += u64::from(!self.container_status(status, &sandbox, None, names));
        }
        if deleted {
            self.remove(&event.container_id);
        }
        rejected
    }

    /// Takes the status of a sandbox, with its verbose part where there is one.
    /// Returns whether it could be used.
    pub(super) fn sandbox_status(
        &mut self,
        status: pb::PodSandboxStatus,
        info: Option<&HashMap<String, String>>,
        names: &mut Names,
    ) -> bool {
        let old = self.sandboxes.get(status.id.as_str());
        let (old, details) = old.map(|s| (Arc::clone(&s.info), s.details.clone())).unzip();
        let mut details: Details = details.unwrap_or_default();
        let options = status.linux.and_then(|l| l.namespaces).and_then(|n| n.options);
        details.host_network =
            options.map(|o| o.network() == pb::NamespaceMode::Node).or(details.host_network);
        if let Some(info) = info {
            let verbose = Verbose::parse(info);
            details.image = verbose.image.and_then(|i| names.some(&i)).or(details.image);
            details.pid = verbose.pid.filter(|p| *p > 0);
            details.known = true;
        }
        let listed = pb::PodSandbox {
            id: status.id,
            metadata: status.metadata,
            state: status.state,
            created_at: status.created_at,
            labels: status.labels,
            annotations: status.annotations,
        };
        let built = self.sandbox(listed, old, details, names);
        built.map(|(id, sandbox)| self.sandboxes.insert(id, sandbox)).is_some()
    }

    /// Takes the status of a container, with its verbose part where there is
    /// one; a status does not name the sandbox. Returns whether it could be used.
    pub(super) fn container_status(
        &mut self,
        status: pb::ContainerStatus,
        sandbox: &str,
        info: Option<&HashMap<String, String>>,
        names: &mut Names,
    ) -> bool {
        let old = self.containers.get(status.id.as_str());
        let sandbox = old.map_or_else(|| sandbox.to_owned(), |c| c.sandbox.to_string());
        let (old, details) = old.map(|c| (Arc::clone(&c.info), c.details.clone())).unzip();
        let mut details: Details = details.unwrap_or_default();
        details.known = true;
        let exited = status.state() == pb::ContainerState::ContainerExited;
        details.exit_code = exited.then_some(status.exit_code);
        let mounts = status.mounts.iter().take(MAX_MOUNTS);
        let mounts: Vec<_> =
            mounts.filter_map(|m| Some((&*m.container_path, volume(&m.host_path)?))).collect();
        if !mounts.is_empty() {
            details.mounts = mounts.into_iter().map(|(at, name)| (names.get(at), names.get(name))).collect();
        }
        details.image = status.image.as_ref().and_then(|i| names.some(&i.image)).or(details.image);
        details.started_ns = ns(status.started_at).or(details.started_ns);
        // Behind cri-dockerd that is a link to the file that Docker tells of itself.
        let told = (!status.log_path.is_empty() && self.flavor != Flavor::Docker).then_some(status.log_path);
        details.log_path = told.map(Arc::from).or(details.log_path);
        if let Some(info) = info {
            let verbose = Verbose::parse(info);
            details.pid = verbose.pid.filter(|p| *p > 0);
            let process = verbose.spec.and_then(|spec| spec.process);
            let lines = process.and_then(|process| process.env).unwrap_or_default();
            details.environment = self.variables.of(lines.iter().map(String::as_str), false, names);
        }
        let listed = pb::Container {
            id: status.id,
            pod_sandbox_id: sandbox,
            metadata: status.metadata,
            image: status.image,
            image_ref: status.image_ref,
            state: status.state,
            created_at: status.created_at,
            labels: status.labels,
            annotations: status.annotations,
        };
        let built = self.container(listed, old, details, names);
        built.map(|(id, container)| self.containers.insert(id, container)).is_some()
    }

    /// Notes that a status call failed.
    pub(super) fn failed(&mut self, owed: &Owed) {
        let (info, details) = match owed {
            Owed::Sandbox(id) => match self.sandboxes.get_mut(id) {
                Some(sandbox) => (&mut sandbox.info, &mut sandbox.details),
                None => return,
            },
            Owed::Container(id) => match self.containers.get_mut(id) {
                Some(container) => (&mut container.info, &mut container.details),
                None => return,
            },
        };
        details.tries += 1;
        if !details.is_owed() && info.partial {
            *info = Arc::new(ContainerInfo { partial: false, ..ContainerInfo::clone(info) });
        }
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.sandboxes.remove(id);
        self.containers.remove(id);
    }

    /// What is running and not fully known, containers last, since the caller
    /// takes from the end.
    pub(super) fn owed(&self) -> Vec<Owed> {
        let sandboxes = self.sandboxes.iter().filter(|(_, s)| s.ready && s.details.is_owed());
        // Of one that ended while it was followed how it did.
        let containers = self.containers.iter().filter(|(_, c)| match c.info.state {
            Some(ContainerState::Exited) => c.details.known && c.details.ended_is_owed(),
            _ => c.details.is_owed(),
        });
        let sandboxes = sandboxes.map(|(id, _)| Owed::Sandbox(Arc::clone(id)));
        sandboxes.chain(containers.map(|(id, _)| Owed::Container(Arc::clone(id)))).collect()
    }

    /// All of it, for the store. What did not change keeps its `Arc`.
    pub(super) fn view(&mut self) -> View {
        let mut view = View::default();
        let mut pods: HashMap<PodUid, (&Sandbox, Vec<PodContainer>)> = HashMap::new();
        for (id, sandbox) in &self.sandboxes {
            view.containers.insert(Arc::clone(id), Arc::clone(&sandbox.info));
            let Some(uid) = sandbox.pod.uid else { continue };
            // Sandboxes of earlier tries stay listed for a while.
            let rank = |s: &Sandbox| (s.ready, s.info.created_ns);
            let (best, _) = pods.entry(uid).or_insert((sandbox, Vec::new()));
            if rank(sandbox) > rank(best) {
                *best = sandbox;
            }
        }
        for (id, container) in &self.containers {
            view.containers.insert(Arc::clone(id), Arc::clone(&container.info));
            let info = &container.info;
            let uid = info.pod.as_ref().and_then(|p| p.uid);
            let (Some(uid), Some(name)) = (uid, &info.container) else { continue };
            let Some((_, runs)) = pods.get_mut(&uid) else { continue };
            let run = PodContainer {
                id: Some(Arc::clone(id)),
                image: info.image.clone(),
                restart_count: info.restart_count,
                state: info.state,
                ..PodContainer::new(Arc::clone(name), None)
            };
            match runs.iter_mut().find(|r| r.name == run.name) {
                None => runs.push(run),
                Some(known) if known.restart_count < run.restart_count => *known = run,
                Some(_) => {}
            }
        }
        for (uid, (sandbox, mut runs)) in pods {
            runs.sort_by(|a, b| a.name.cmp(&b.name));
            let pod = PodInfo {
                labels: sandbox.pod_labels.clone(),
                host_network: sandbox.details.host_network,
                origin: sandbox.origin,
                created_ns: sandbox.info.created_ns,
                containers: runs,
                ..PodInfo::new(uid, Arc::clone(&sandbox.pod.namespace), Arc::clone(&sandbox.pod.name))
            };
            let known = self.pods.remove(&uid).filter(|known| **known == pod);
            view.pods.insert(uid, known.unwrap_or_else(|| Arc::new(pod)));
        }
        self.pods.clone_from(&view.pods);
        view
    }

    fn sandbox(
        &self,
        listed: pb::PodSandbox,
        old: Option<Arc<ContainerInfo>>,
        details: Details,
        names: &mut Names,
    ) -> Option<(Arc<str>, Sandbox)> {
        let metadata = listed.metadata.as_ref().filter(|_| !listed.id.is_empty())?;
        let pod = PodRef {
            uid: PodUid::parse(&metadata.uid),
            namespace: names.get(&metadata.namespace),
            name: names.get(&metadata.name),
        };
        let ready = listed.state() == pb::PodSandboxState::SandboxReady;
        let mut labels: BTreeMap<&str, &str> =
            listed.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let mut own = labels.clone();
        own.retain(|key, _| !matches!(*key, POD_NAME | POD_NAMESPACE | POD_UID | CONTAINER_NAME));
        let pod_labels = Labels::new(own, names);
        match self.flavor {
            Flavor::Containerd => drop(labels.insert("io.cri-containerd.kind", "sandbox")),
            Flavor::Crio | Flavor::Docker => drop(labels.entry(CONTAINER_NAME).or_insert("POD")),
            Flavor::Other => {}
        }
        let docker_style = self.flavor.is_docker_style();
        let id = names.get(&listed.id);
        let info = ContainerInfo {
            name: Some(match docker_style {
                true => names.get(&docker_style_name("POD", &pod, metadata.attempt)),
                false => Arc::clone(&id),
            }),
            image: details.image.clone(),
            labels: Labels::new(labels, names),
            container: docker_style.then(|| names.get("POD")),
            pod: Some(pod.clone()),
            is_sandbox: true,
            network: network_mode(details.host_network),
            runtime: self.flavor.runtime(),
            state: Some(if ready { ContainerState::Running } else { ContainerState::Exited }),
            restart_count: None,
            pid: details.pid,
            created_ns: ns(listed.created_at),
            started_ns: None,
            partial: ready && details.is_owed(),
            ..ContainerInfo::new(Arc::clone(&id))
        };
        let origin = origin(&listed.annotations, pod.uid);
        let sandbox = Sandbox { info: keep(old, info), pod, pod_labels, origin, ready, details };
        Some((id, sandbox))
    }

    fn container(
        &self,
        listed: pb::Container,
        old: Option<Arc<ContainerInfo>>,
        details: Details,
        names: &mut Names,
    ) -> Option<(Arc<str>, Container)> {
        let metadata = listed.metadata.as_ref().filter(|_| !listed.id.is_empty())?;
        let state = match listed.state() {
            pb::ContainerState::ContainerCreated => Some(ContainerState::Waiting),
            pb::ContainerState::ContainerRunning => Some(ContainerState::Running),
            pb::ContainerState::ContainerExited => Some(ContainerState::Exited),
            pb::ContainerState::ContainerUnknown => None,
        };
        let sandbox = self.sandboxes.get(listed.pod_sandbox_id.as_str());
        let label = |key: &str| listed.labels.get(key).map(String::as_str);
        let pod = match (label(POD_NAMESPACE), label(POD_NAME)) {
            (Some(namespace), Some(name)) => Some(PodRef {
                uid: label(POD_UID).and_then(PodUid::parse),
                namespace: names.get(namespace),
                name: names.get(name),
            }),
            _ => sandbox.map(|s| s.pod.clone()),
        };
        let restarts = listed.annotations.get(RESTART_COUNT).and_then(|c| c.parse().ok());
        let restarts: u32 = restarts.unwrap_or(metadata.attempt);
        let container = label(CONTAINER_NAME).unwrap_or(&metadata.name);
        let mut labels: BTreeMap<&str, &str> =
            listed.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let restart_label = restarts.to_string();
        match self.flavor {
            Flavor::Containerd => drop(labels.insert("io.cri-containerd.kind", "container")),
            // cAdvisor's own addition for runtimes it asks for a restart count.
            Flavor::Crio if restarts > 0 => drop(labels.insert("restartcount", &restart_label)),
            Flavor::Crio | Flavor::Docker | Flavor::Other => {}
        }
        // The image as asked for, until the status says what it was resolved to.
        let asked = listed.image.as_ref().and_then(|i| {
            let user = Some(i.user_specified_image.as_str()).filter(|u| !u.is_empty());
            names.some(user.unwrap_or(&i.image))
        });
        let owed = state != Some(ContainerState::Exited) && details.is_owed();
        let id = names.get(&listed.id);
        let info = ContainerInfo {
            name: match (&pod, self.flavor.is_docker_style()) {
                (Some(pod), true) => names.some(&docker_style_name(container, pod, metadata.attempt)),
                _ => Some(Arc::clone(&id)),
            },
            image: details.image.clone().or(asked),
            labels: Labels::new(labels, names),
            container: names.some(container),
            pod,
            runtime: self.flavor.runtime(),
            state,
            restart_count: Some(restarts),
            pid: details.pid,
            created_ns: ns(listed.created_at),
            started_ns: details.started_ns,
            log_path: details.log_path.clone(),
            exit_code: details.exit_code,
            environment: details.environment.clone(),
            mounts: details.mounts.clone(),
            partial: owed,
            ..ContainerInfo::new(Arc::clone(&id))
        };
        let sandbox = names.get(&listed.pod_sandbox_id);
        Some((id, Container { info: keep(old, info), sandbox, details }))
    }
}

fn network_mode(host: Option<bool>) -> Option<NetworkMode> {
    host.map(|host| if host { NetworkMode::Host } else { NetworkMode::Own })
}

/// The kubelet passes a pod's annotations on to its sandbox.
fn origin(annotations: &HashMap<String, String>, uid: Option<PodUid>) -> Option<PodOrigin> {
    match annotations.get("kubernetes.io/config.source").map(String::as_str) {
        Some("api") => Some(PodOrigin::Api),
        Some(_) => Some(PodOrigin::Static),
        None => uid.filter(|u| u.is_static()).map(|_| PodOrigin::Static),
    }
}

fn keep(old: Option<Arc<ContainerInfo>>, new: ContainerInfo) -> Arc<ContainerInfo> {
    old.filter(|old| **old == new).unwrap_or_else(|| Arc::new(new))
}

/// The name of a volume's directory among those of its pod, of a path in it:
/// `…/pods/<uid>/volumes/kubernetes.io~csi/<name>/mount`.
fn volume(host_path: &str) -> Option<&str> {
    let (_, rest) = host_path.split_once("/volumes/kubernetes.io~")?;
    rest.split('/').nth(1).filter(|name| !name.is_empty())
}

/// CRI's times are nanoseconds; 0 is none.
fn ns(time: i64) -> Option<u64> {
    u64::try_from(time).ok().filter(|t| *t > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_volumes() {
        let pod = "/var/lib/kubelet/pods/0d1c";
        let check = |path: &str, expected| assert_eq!(volume(&format!("{pod}/{path}")), expected, "{path}");
        check("volumes/kubernetes.io~csi/pvc-1/mount", Some("pvc-1"));
        check("volumes/kubernetes.io~nfs/share", Some("share"));
        check("volumes/kubernetes.io~csi/", None);
        check("etc-hosts", None);
    }

    #[test]
    fn what_a_status_says_of_the_end_the_environment_and_volumes() {
        let mut picture = Picture::new(Flavor::Containerd, Variables::beginning(&["TEAM".to_owned()]));
        let mut names = Names::default();
        let status = |state: pb::ContainerState, exit_code| pb::ContainerStatus {
            id: "c1".into(),
            metadata: Some(pb::ContainerMetadata { name: "app".into(), attempt: 0 }),
            state: state.into(),
            exit_code,
            mounts: vec![pb::Mount {
                container_path: "/data".into(),
                host_path: "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/pvc-1/mount".into(),
            }],
            ..pb::ContainerStatus::default()
        };
        let info = r#"{"pid":7,"runtimeSpec":{"process":{"env":["TEAM_A=b","SECRET=x"]}}}"#;
        let info = HashMap::from([("info".to_owned(), info.to_owned())]);
        assert!(picture.container_status(
            status(pb::ContainerState::ContainerRunning, 0),
            "",
            Some(&info),
            &mut names
        ));
        let found = Arc::clone(&picture.view().containers["c1"]);
        assert_eq!(found.environment.iter().collect::<Vec<_>>(), [("TEAM_A", "b")]);
        assert_eq!((found.exit_code, found.mounts.len(), &*found.mounts[0].1), (None, 1, "pvc-1"));
        // It is listed as ended, and asked once how.
        let listed = pb::Container {
            id: "c1".into(),
            metadata: Some(pb::ContainerMetadata { name: "app".into(), attempt: 0 }),
            state: pb::ContainerState::ContainerExited.into(),
            ..pb::Container::default()
        };
        picture.listed(Vec::new(), vec![listed], &mut names);
        assert_eq!(picture.owed(), [Owed::Container("c1".into())]);
        assert!(picture.container_status(
            status(pb::ContainerState::ContainerExited, 137),
            "",
            None,
            &mut names
        ));
        assert_eq!((picture.view().containers["c1"].exit_code, picture.owed().len()), (Some(137), 0));
    }
}
