//! What is known of pods and containers, whichever source told it.
//!
//! Absent fields are what the source does not tell; the store
//! fills them from the next source.

mod quantity;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::path::{PodUid, Qos, Runtime};
use crate::snapshot::Health;
pub(super) use quantity::other_resources;
pub(crate) use quantity::resources;

/// Labels kept of one pod or container; more are dropped, the last in key order first.
pub const MAX_LABELS: usize = 256;
/// Bytes kept of one label's value.
pub const MAX_LABEL_VALUE: usize = 4096;

/// A pod, as the kubelet and the runtimes see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodInfo {
    /// As in the cgroup path: for a static pod its hash, not its mirror's UID.
    pub uid: PodUid,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// The controller that owns it.
    pub owner: Option<Owner>,
    /// `status.qosClass`.
    pub qos: Option<Qos>,
    /// `spec.hostNetwork`: its traffic is the host's.
    pub host_network: Option<bool>,
    /// Where the kubelet has it from.
    pub origin: Option<PodOrigin>,
    /// `status.phase`.
    pub phase: Option<Arc<str>>,
    /// `metadata.creationTimestamp`; by CRI the creation of the sandbox.
    /// Nanoseconds since the epoch.
    pub created_ns: Option<u64>,
    /// `status.startTime`. Nanoseconds since the epoch.
    pub started_ns: Option<u64>,
    /// Whether its deletion was asked for.
    pub deleting: bool,
    /// Its containers in spec order: init and sidecar ones first, ephemeral ones last.
    pub containers: Vec<PodContainer>,
    /// `spec.volumes`, where the source has them.
    pub volumes: Vec<PodVolume>,
}

/// A volume as a pod's spec has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodVolume {
    /// `name`, unique in the pod.
    pub name: Arc<str>,
    /// The claim that it is by, in the pod's namespace.
    pub claim: Option<Arc<str>>,
}

impl PodInfo {
    /// A pod of which only the names are known.
    pub fn new(uid: PodUid, namespace: Arc<str>, name: Arc<str>) -> Self {
        PodInfo {
            uid,
            namespace,
            name,
            labels: Labels::default(),
            owner: None,
            qos: None,
            host_network: None,
            origin: None,
            phase: None,
            created_ns: None,
            started_ns: None,
            deleting: false,
            containers: Vec::new(),
            volumes: Vec::new(),
        }
    }

    /// The container of that name.
    pub fn container(&self, name: &str) -> Option<&PodContainer> {
        self.containers.iter().find(|c| &*c.name == name)
    }
}

/// The controller a pod belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// `ReplicaSet`, `DaemonSet`, `Node`, ...
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// Where the kubelet has a pod from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PodOrigin {
    /// The API server.
    Api,
    /// A static pod: a file or URL the kubelet was given.
    Static,
    /// The API server's picture of a static pod.
    Mirror,
}

/// A container as a pod's spec and status have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodContainer {
    /// `name`, unique in the pod.
    pub name: Arc<str>,
    /// When it runs; only the kubelet tells.
    pub role: Option<Role>,
    /// The id of its newest run; absent until it was created.
    pub id: Option<Arc<str>>,
    /// The image as resolved, else as asked for.
    pub image: Option<Arc<str>>,
    /// `resources.requests`.
    pub requests: Resources,
    /// `resources.limits`.
    pub limits: Resources,
    /// `resources.requests` of anything else, such as `nvidia.com/gpu`, by name: in
    /// whole units, rounded up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_requests: Vec<(Arc<str>, u64)>,
    /// `restartCount`.
    pub restart_count: Option<u32>,
    /// State of its newest run.
    pub state: Option<ContainerState>,
    /// Why the run before ended: `OOMKilled`, `Error`, `Completed`.
    pub last_termination: Option<Arc<str>>,
    /// Where it has the pod's volumes: its own path, and the volume's name.
    pub mounts: Vec<(Arc<str>, Arc<str>)>,
}

impl PodContainer {
    /// A container of which only the name is known.
    pub fn new(name: Arc<str>, role: Option<Role>) -> Self {
        PodContainer {
            name,
            role,
            id: None,
            image: None,
            requests: Resources::default(),
            limits: Resources::default(),
            other_requests: Vec::new(),
            restart_count: None,
            state: None,
            last_termination: None,
            mounts: Vec::new(),
        }
    }
}

/// When a container of a pod runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Before the others, to its end.
    Init,
    /// An init container that keeps running.
    Sidecar,
    /// An ordinary one.
    App,
    /// Added for debugging.
    Ephemeral,
}

/// Requests or limits of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// `cpu`, thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// `memory`, bytes.
    pub memory_bytes: Option<u64>,
    /// `ephemeral-storage`, bytes.
    pub ephemeral_storage_bytes: Option<u64>,
}

impl Resources {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Resources::default()
    }
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// Not created, or created and not started.
    Waiting,
    /// Running.
    Running,
    /// Ended.
    Exited,
}

/// A container as its runtime knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContainerInfo {
    /// The id that its cgroup's name carries.
    pub id: Arc<str>,
    /// The runtime's own name for it, cAdvisor's `name` label: the id with
    /// containerd, `k8s_…` with CRI-O and cri-dockerd, the container's name with
    /// Docker and Podman.
    pub name: Option<Arc<str>>,
    /// The image, as the runtime resolved it.
    pub image: Option<Arc<str>>,
    /// Labels in the runtime.
    pub labels: Labels,
    /// The pod it belongs to.
    pub pod: Option<PodRef>,
    /// Its name in the pod. A sandbox has `POD` with Docker and CRI-O and none with containerd.
    pub container: Option<Arc<str>>,
    /// Whether it is a pod's pause container, which owns the network namespace.
    pub is_sandbox: bool,
    /// Whose network it uses.
    pub network: Option<NetworkMode>,
    /// Who runs it.
    pub runtime: Option<Runtime>,
    /// What it is doing.
    pub state: Option<ContainerState>,
    /// Earlier runs of the same container in the same pod.
    pub restart_count: Option<u32>,
    /// Its first process, in the host's PID namespace.
    pub pid: Option<u32>,
    /// Nanoseconds since the epoch.
    pub created_ns: Option<u64>,
    /// Nanoseconds since the epoch.
    pub started_ns: Option<u64>,
    /// The result of its health check; only Docker and Podman have such.
    pub health: Option<Health>,
    /// The host's file its output goes to, where there is one.
    pub log_path: Option<Arc<str>>,
    /// The code its last run ended with; absent while it runs.
    pub exit_code: Option<i32>,
    /// The variables of its environment that were asked for, by name.
    pub environment: Labels,
    /// Where it has volumes of the kubelet's: its own path, and the name of the
    /// volume's directory among those of its pod.
    pub mounts: Vec<(Arc<str>, Arc<str>)>,
    /// Whether the source still owes something that goes into labels.
    pub partial: bool,
}

impl ContainerInfo {
    /// A container of which only the id is known.
    pub fn new(id: Arc<str>) -> Self {
        ContainerInfo {
            id,
            name: None,
            image: None,
            labels: Labels::default(),
            pod: None,
            container: None,
            is_sandbox: false,
            network: None,
            runtime: None,
            state: None,
            restart_count: None,
            pid: None,
            created_ns: None,
            started_ns: None,
            health: None,
            log_path: None,
            exit_code: None,
            environment: Labels::default(),
            mounts: Vec::new(),
            partial: false,
        }
    }
}

/// The pod a container says it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodRef {
    /// Absent where it is not of the form cgroup names carry.
    pub uid: Option<PodUid>,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

/// Whose network namespace a container uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// Its own, or its pod's.
    Own,
    /// The host's.
    Host,
    /// That of the container of this id or name.
    Shared(Arc<str>),
}

/// Label keys and values, sorted by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// Takes at most [`MAX_LABELS`] pairs, the first in key order, and cuts
    /// values at [`MAX_LABEL_VALUE`].
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>, names: &mut Names) -> Labels {
        let sorted: BTreeMap<&str, &str> = pairs.into_iter().collect();
        let pairs = sorted.into_iter().take(MAX_LABELS);
        Labels(pairs.map(|(k, v)| (names.get(k), names.get(cut(v, MAX_LABEL_VALUE)))).collect())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.shared(key).map(|v| &**v)
    }

    /// The value of a key, to be kept.
    pub fn shared(&self, key: &str) -> Option<&Arc<str>> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// All pairs in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }

    /// All pairs in key order, to be kept.
    pub fn shared_pairs(&self) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
        self.0.iter().map(|(k, v)| (Arc::clone(k), Arc::clone(v)))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.iter())
    }
}

/// Which variables of containers' environments are kept: those whose names begin so.
/// What is not asked for, which may be secret, is never held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables(Arc<[String]>);

impl Variables {
    /// Those whose names begin with one of `prefixes`.
    pub fn beginning(prefixes: &[String]) -> Variables {
        Variables(prefixes.iter().filter(|p| !p.is_empty()).cloned().collect())
    }

    /// Those among `NAME=VALUE` lines, with names in lower case where `lower`, as
    /// cAdvisor has Docker's.
    pub(super) fn of<'a>(
        &self,
        lines: impl IntoIterator<Item = &'a str>,
        lower: bool,
        names: &mut Names,
    ) -> Labels {
        if self.0.is_empty() {
            return Labels::default();
        }
        let wanted = lines.into_iter().filter_map(|line| {
            let (name, value) = line.split_once('=')?;
            let wanted = self.0.iter().any(|prefix| name.starts_with(prefix.as_str()));
            wanted.then(|| (if lower { name.to_lowercase() } else { name.to_owned() }, value))
        });
        let wanted: Vec<(String, &str)> = wanted.collect();
        Labels::new(wanted.iter().map(|(name, value)| (name.as_str(), *value)), names)
    }
}

/// The longest prefix of at most `limit` bytes.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

/// Strings that occur in many containers, held once.
#[derive(Debug, Default)]
pub struct Names(HashSet<Arc<str>>);

impl Names {
    /// The shared copy of `text`.
    pub fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(text);
        self.0.insert(Arc::clone(&new));
        new
    }

    /// The shared copy of `text`; `None` for an empty one.
    pub fn some(&mut self, text: &str) -> Option<Arc<str>> {
        (!text.is_empty()).then(|| self.get(text))
    }

    /// Forgets what nothing else holds.
    pub fn sweep(&mut self) {
        self.0.retain(|name| Arc::strong_count(name) > 1);
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The name the kubelet's Docker conventions give a container; CRI-O and
/// cri-dockerd keep to them. None of the parts contains `_`.
pub(super) fn docker_style_name(container: &str, pod: &PodRef, attempt: u32) -> String {
    let (name, namespace) = (&pod.name, &pod.namespace);
    match pod.uid {
        Some(uid) => format!("k8s_{container}_{name}_{namespace}_{uid}_{attempt}"),
        None => format!("k8s_{container}_{name}_{namespace}__{attempt}"),
    }
}

/// Nanoseconds since the epoch of an RFC 3339 time: `2026-08-20T12:44:28.5Z`,
/// `…+02:00`. Go's zero time and anything before 1970 are absent.
pub(crate) fn time_ns(text: &str) -> Option<u64> {
    let (local, offset_seconds) = match text.strip_suffix(['Z', 'z']) {
        Some(local) => (local, 0),
        None => {
            let at = text.len().checked_sub(6)?;
            let (local, offset) = text.split_at_checked(at)?;
            let (hours, minutes) = offset.get(1..)?.split_once(':')?;
            let seconds = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
            (local, if offset.starts_with('-') { -seconds } else { seconds })
        }
    };
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let since = local.duration_since(std::time::UNIX_EPOCH).ok()?;
    let ns = i128::try_from(since.as_nanos()).ok()? - i128::from(offset_seconds) * 1_000_000_000;
    u64::try_from(ns).ok().filter(|ns| *ns > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |text: &str, want: Option<u64>| assert_eq!(time_ns(text), want, "{text}");
        check("1970-01-01T00:00:01Z", Some(1_000_000_000));
        check("2026-08-20T12:44:28.500000001Z", Some(1_787_229_868_500_000_001));
        check("2026-08-20T14:44:28.500000001+02:00", Some(1_787_229_868_500_000_001));
        check("2026-08-20T07:14:28.5-05:30", Some(1_787_229_868_500_000_000));
        check("0001-01-01T00:00:00Z", None);
        check("", None);
        check("yesterday", None);
        check("2026-08-20T12:44:28é0:00", None);
    }

    #[test]
    fn labels_are_sorted_bounded_and_shared() {
        let mut names = Names::default();
        let long = "é".repeat(MAX_LABEL_VALUE);
        let many: Vec<(String, String)> =
            (0..MAX_LABELS + 10).map(|i| (format!("k{i:04}"), long.clone())).rev().collect();
        let labels = Labels::new(many.iter().map(|(k, v)| (k.as_str(), v.as_str())), &mut names);
        assert_eq!(labels.len(), MAX_LABELS);
        assert_eq!(labels.iter().next().unwrap().0, "k0000");
        assert_eq!(labels.get("k0001").unwrap().len(), MAX_LABEL_VALUE);
        assert_eq!(labels.get("k9999"), None);
        assert_eq!(names.len(), MAX_LABELS + 1);
        drop(labels);
        names.sweep();
        assert!(names.is_empty());
    }

    #[test]
    fn docker_style_names() {
        let pod = PodRef {
            uid: PodUid::parse("9c0f2f3b1a2d4e5f60718293a4b5c6d7"),
            namespace: "kube-system".into(),
            name: "etcd-n1".into(),
        };
        let want = "k8s_POD_etcd-n1_kube-system_9c0f2f3b1a2d4e5f60718293a4b5c6d7_2";
        assert_eq!(docker_style_name("POD", &pod, 2), want);
    }
}
