//! Cgroup path → pod, container, QoS class, runtime and driver: the grammar of
//! kubelets, container runtimes and machine managers, with no I/O.
//!
//! ```text
//! /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0d1c_….slice/cri-containerd-<64 hex>.scope
//! /kubepods/besteffort/pod0d1c…/<64 hex>
//! /system.slice/docker-<64 hex>.scope/kubelet/kubepods/pod0d1c…/<64 hex>
//! ```
//!
//! Patterns are not anchored at the root, because kubelets have a
//! `--cgroup-root` and nodes run inside containers (kind, k3d); components are
//! read from the root and the innermost pod and container win. What lies below
//! a container belongs to it unless a deeper pod or container id shows.
//!
//! Says what a path *looks like*. Whether the container exists, and what it is
//! called, is for the [`Directory`](super::Directory).

use std::fmt;

use serde::Serialize;

/// What a cgroup path tells. Borrows the ids from the path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathIdentity<'p> {
    /// What kind of cgroup it is.
    pub level: Level,
    /// QoS class, of a pod or of the level that holds pods of one class.
    pub qos: Option<Qos>,
    /// The pod it is or is inside of.
    pub pod: Option<PodUid>,
    /// The innermost container it is or is inside of: 64 hex digits, or the
    /// name where the runtime uses names (LXC, nspawn, garden, `ctr`).
    pub container: Option<&'p str>,
    /// The container around this pod or container: the node container of kind,
    /// or the container in which a nested runtime runs.
    pub within: Option<&'p str>,
    /// Podman's own pod, which has an id but no Kubernetes UID.
    pub podman_pod: Option<&'p str>,
    /// Who made the container's cgroup, where the path tells: a bare id below a
    /// pod may be containerd's or Docker's.
    pub runtime: Option<Runtime>,
    /// How the cgroup was made.
    pub driver: Option<Driver>,
}

/// Services of Kubernetes that a kubelet measures besides its pods: itself and
/// the runtimes.
const SERVICES: [&str; 8] = [
    "kubelet.service",
    "containerd.service",
    "crio.service",
    "docker.service",
    "cri-docker.service",
    "k3s.service",
    "k3s-agent.service",
    "k0sworker.service",
];

impl PathIdentity<'_> {
    /// Whether the kubelet of this host has rows for the cgroup: the root, the
    /// tree of its pods, itself and its runtime. Pods of a node that runs in a
    /// container are another kubelet's.
    pub fn shown_by_kubelet(&self, path: &str) -> bool {
        let service = || SERVICES.iter().any(|s| path.rsplit('/').next() == Some(s));
        match self.level {
            _ if self.within.is_some() => false,
            Level::PodsRoot | Level::Qos => true,
            Level::None => path == "/" || service(),
            _ => self.pod.is_some(),
        }
    }
}

/// What Kubernetes runs in a cgroup that is no pod's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// All pods.
    Pods,
    /// The system's services.
    System,
    /// The kubelet, or a program it is a part of.
    Kubelet,
    /// The container runtime.
    Runtime,
}

/// What a cgroup is a service of, and how good a candidate it is: less is better.
pub fn service(path: &str, level: Level) -> Option<(Service, usize)> {
    const KUBELETS: [&str; 9] = [
        "kubelet.service",
        "kubelet",
        "k3s.service",
        "k3s-agent.service",
        "rke2-server.service",
        "rke2-agent.service",
        "k0sworker.service",
        "k0scontroller.service",
        "snap.microk8s.daemon-kubelite.service",
    ];
    const RUNTIMES: [&str; 5] = [
        "crio.service",
        "cri-o.service",
        "docker.service",
        "containerd.service",
        "snap.microk8s.daemon-containerd.service",
    ];
    if level == Level::PodsRoot {
        return Some((Service::Pods, 0));
    }
    if matches!(path, "/system.slice" | "/system") {
        return Some((Service::System, 0));
    }
    let (_, unit) = path.rsplit_once('/')?;
    let rank = |units: &[&str]| units.iter().position(|u| *u == unit);
    let kubelet = rank(&KUBELETS).map(|rank| (Service::Kubelet, rank));
    kubelet.or_else(|| rank(&RUNTIMES).map(|rank| (Service::Runtime, rank)))
}

/// What kind of cgroup a path is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// No pod and no container: the root, slices, services.
    #[default]
    None,
    /// A mount, swap or socket unit of systemd: holds no workload.
    Ignored,
    /// The parent of all pods.
    PodsRoot,
    /// The parent of the pods of one QoS class.
    Qos,
    /// A pod's own cgroup.
    Pod,
    /// The cgroup of a podman pod.
    PodmanPod,
    /// A container's own cgroup.
    Container,
    /// The empty directory CRI-O leaves for a pod whose pause container it did
    /// not start; `container` is the sandbox's id.
    EmptySandbox,
    /// A container's cgroup below another container with no pod in between.
    Nested,
    /// A container's monitor process (conmon, Kata's overhead): not workload.
    Monitor,
    /// Below a container or a pod, with no id of its own.
    Below,
}

/// Kubernetes' quality-of-service class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Qos {
    /// Requests equal limits in every container.
    Guaranteed,
    /// Some container has a request or limit.
    Burstable,
    /// None has.
    BestEffort,
}

impl Qos {
    /// As in `status.qosClass`.
    pub fn name(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }

    /// From `status.qosClass`.
    pub fn from_name(name: &str) -> Option<Qos> {
        [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort].into_iter().find(|q| q.name() == name)
    }
}

/// Who made a container's cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// containerd, by CRI or by a client of its own such as `ctr`.
    Containerd,
    /// CRI-O.
    Crio,
    /// Docker, also behind cri-dockerd.
    Docker,
    /// Podman.
    Podman,
    /// nerdctl with the systemd driver; with cgroupfs it looks like containerd.
    Nerdctl,
    /// Kata's virtual machine.
    Kata,
    /// LXC, LXD, Incus.
    Lxc,
    /// systemd-nspawn and other machines registered with systemd.
    Nspawn,
    /// Cloud Foundry's garden.
    Garden,
    /// Amazon ECS's own agent, where containers are not Docker's.
    Ecs,
    /// BuildKit.
    Buildkit,
}

/// How a cgroup was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// By writing to the cgroup filesystem.
    Cgroupfs,
    /// By systemd units.
    Systemd,
    /// A systemd name created literally by a runtime set to cgroupfs
    /// (`kubepods-pod….slice:cri-containerd:<id>`): kubelet and runtime disagree.
    Mismatched,
}

/// A pod's UID: 8-4-4-4-12 hex digits, or 32 without dashes for a static pod.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodUid {
    value: u128,
    is_static: bool,
}

impl PodUid {
    /// Parses either form; in the dashed one `_` may stand for `-`, as systemd
    /// unit names need. Digits are lower case, as Kubernetes writes them.
    pub fn parse(text: &str) -> Option<PodUid> {
        let bytes = text.as_bytes();
        let is_static = match bytes.len() {
            32 => true,
            36 => false,
            _ => return None,
        };
        let mut value: u128 = 0;
        for (at, byte) in bytes.iter().enumerate() {
            if !is_static && matches!(at, 8 | 13 | 18 | 23) {
                if !matches!(byte, b'-' | b'_') {
                    return None;
                }
                continue;
            }
            value = value << 4 | u128::from(hex_digit(*byte)?);
        }
        Some(PodUid { value, is_static })
    }

    /// From its 128 bits, the first digit in the highest ones.
    pub fn from_bytes(bytes: [u8; 16], is_static: bool) -> PodUid {
        PodUid { value: u128::from_be_bytes(bytes), is_static }
    }

    /// Its 128 bits, the first digit in the highest ones.
    pub fn to_bytes(self) -> [u8; 16] {
        self.value.to_be_bytes()
    }

    /// Whether it is the hash the kubelet gives a static pod.
    pub fn is_static(self) -> bool {
        self.is_static
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = self.value;
        if self.is_static {
            return write!(f, "{v:032x}");
        }
        let part = |shift: u32, digits: u32| v >> shift & ((1u128 << (digits * 4)) - 1);
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            part(96, 8),
            part(80, 4),
            part(64, 4),
            part(48, 4),
            part(0, 12)
        )
    }
}

impl fmt::Debug for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PodUid {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Reads a path below a cgroup mount, `/` being its root.
pub fn parse(path: &str) -> PathIdentity<'_> {
    let mut found = PathIdentity::default();
    let mut before = Before::default();
    for name in path.split('/').filter(|c| !c.is_empty()) {
        found.enter(name, &before);
        before = Before { parent: name, grandparent: before.parent, depth: before.depth + 1 };
    }
    found
}

/// Whether `text` is a container id: 64 lower-case hex digits.
pub fn is_container_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| hex_digit(b).is_some())
}

/// The components above the one that is read.
#[derive(Debug, Clone, Copy, Default)]
struct Before<'p> {
    parent: &'p str,
    grandparent: &'p str,
    depth: usize,
}

/// What one component names, when it names a container.
struct Named<'p> {
    id: &'p str,
    level: Level,
    runtime: Option<Runtime>,
    driver: Driver,
}

impl<'p> PathIdentity<'p> {
    /// Goes one component deeper.
    fn enter(&mut self, name: &'p str, before: &Before<'p>) {
        let mut name = name;
        let mut driver = None;
        // Driver mismatch: "<slice>:<prefix>:<id>" is one literal directory.
        if let Some((slice, container)) = name.split_once(':')
            && slice.ends_with(".slice")
        {
            driver = Some(Driver::Mismatched);
            if let Some((uid, qos)) = pod_slice(slice) {
                self.enter_pod(uid, qos, Driver::Mismatched);
            }
            name = container;
        } else if let Some((uid, qos, driver)) = pod(name, before.parent) {
            return self.enter_pod(uid, qos, driver);
        }
        if let Some(id) = podman_pod(name, before.parent) {
            self.podman_pod = Some(id);
            self.level = if self.container.is_some() { Level::Below } else { Level::PodmanPod };
        } else if let Some(named) = container(name, before, self) {
            self.enter_container(&named, driver);
        } else if is_ignored_unit(name) {
            self.level = Level::Ignored;
        } else if self.level == Level::Monitor {
            // A monitor's own children are monitors.
        } else if self.container.is_some() || self.pod.is_some() {
            self.level = Level::Below;
        } else {
            (self.level, self.qos, self.driver) = pods_level(name, before.parent);
        }
    }

    fn enter_pod(&mut self, uid: PodUid, qos: Option<Qos>, driver: Driver) {
        *self = PathIdentity {
            level: Level::Pod,
            qos,
            pod: Some(uid),
            container: None,
            within: self.container.or(self.within),
            podman_pod: None,
            runtime: None,
            driver: Some(driver),
        };
    }

    fn enter_container(&mut self, named: &Named<'p>, driver: Option<Driver>) {
        self.level = match self.container {
            None => named.level,
            Some(_) if named.level == Level::Monitor => Level::Monitor,
            Some(_) => Level::Nested,
        };
        if self.pod.is_none() {
            self.qos = None;
        }
        self.within = self.container.or(self.within);
        self.container = Some(named.id);
        self.runtime = named.runtime;
        self.driver = driver.or(Some(named.driver));
    }
}

/// `podUID` of the cgroupfs driver or `…-podUID.slice` of the systemd one.
fn pod(name: &str, parent: &str) -> Option<(PodUid, Option<Qos>, Driver)> {
    if let Some(uid) = name.strip_prefix("pod").and_then(PodUid::parse) {
        return Some((uid, qos_of_parent(parent), Driver::Cgroupfs));
    }
    let (uid, qos) = pod_slice(name)?;
    Some((uid, qos, Driver::Systemd))
}

/// A slice's name holds those of its parents, joined with `-`, each with its
/// own `-` turned into `_`.
fn pod_slice(name: &str) -> Option<(PodUid, Option<Qos>)> {
    let (parents, last) = name.strip_suffix(".slice")?.rsplit_once('-')?;
    let uid = PodUid::parse(last.strip_prefix("pod")?)?;
    let parent = parents.rsplit_once('-').map_or(parents, |(_, last)| last);
    Some((uid, qos_of_parent(parent)))
}

/// There is no level for Guaranteed: its pods lie directly in `kubepods`.
fn qos_of_parent(parent: &str) -> Option<Qos> {
    match parent {
        "kubepods" => Some(Qos::Guaranteed),
        "burstable" => Some(Qos::Burstable),
        "besteffort" => Some(Qos::BestEffort),
        _ => None,
    }
}

/// `kubepods` and its QoS levels; anything else is [`Level::None`].
fn pods_level(name: &str, parent: &str) -> (Level, Option<Qos>, Option<Driver>) {
    let level = |parent: &str, name: &str| match (parent, name) {
        (_, "kubepods") => (Level::PodsRoot, None),
        ("kubepods", "burstable") => (Level::Qos, Some(Qos::Burstable)),
        ("kubepods", "besteffort") => (Level::Qos, Some(Qos::BestEffort)),
        _ => (Level::None, None),
    };
    let ((level, qos), driver) = match name.strip_suffix(".slice") {
        Some(unit) => {
            let mut parts = unit.rsplit('-');
            let last = parts.next().unwrap_or_default();
            (level(parts.next().unwrap_or_default(), last), Driver::Systemd)
        }
        None => (level(parent, name), Driver::Cgroupfs),
    };
    (level, qos, (level != Level::None).then_some(driver))
}

/// The container level of every runtime.
fn container<'p>(name: &'p str, before: &Before<'p>, around: &PathIdentity<'p>) -> Option<Named<'p>> {
    let driver = if name.ends_with(".scope") { Driver::Systemd } else { Driver::Cgroupfs };
    let unit = name.strip_suffix(".scope").unwrap_or(name);
    if let Some((prefix, id)) = id_with_prefix(unit) {
        return Some(with_id(prefix, id, driver, before, around));
    }
    with_name(name, before)
}

/// Splits `cri-containerd-ID`, `cri-containerd:ID`, `kata_ID` and `ID`.
fn id_with_prefix(unit: &str) -> Option<(&str, &str)> {
    let (prefix, id) = unit.split_at_checked(unit.len().checked_sub(64)?)?;
    if !is_container_id(id) {
        return None;
    }
    match prefix.char_indices().next_back() {
        None => Some(("", id)),
        Some((at, '-' | ':')) => Some((prefix.get(..at)?, id)),
        Some(_) if prefix == "kata_" => Some(("kata", id)),
        Some(_) => None,
    }
}

fn with_id<'p>(
    prefix: &str,
    id: &'p str,
    driver: Driver,
    before: &Before<'p>,
    around: &PathIdentity<'p>,
) -> Named<'p> {
    let (runtime, level) = match prefix {
        "cri-containerd" => (Some(Runtime::Containerd), Level::Container),
        // With the systemd driver CRI-O's containers are scopes; the directory
        // without one is all there is of a pause container it did not start.
        "crio" if around.level == Level::Pod && around.driver == Some(Driver::Systemd) => match driver {
            Driver::Systemd => (Some(Runtime::Crio), Level::Container),
            Driver::Cgroupfs | Driver::Mismatched => (Some(Runtime::Crio), Level::EmptySandbox),
        },
        "crio" => (Some(Runtime::Crio), Level::Container),
        "crio-conmon" => (Some(Runtime::Crio), Level::Monitor),
        "docker" => (Some(Runtime::Docker), Level::Container),
        "libpod" => (Some(Runtime::Podman), Level::Container),
        "libpod-conmon" => (Some(Runtime::Podman), Level::Monitor),
        "nerdctl" => (Some(Runtime::Nerdctl), Level::Container),
        "kata" => (Some(Runtime::Kata), Level::Container),
        "" => match before.parent {
            "docker" | "actions_job" => (Some(Runtime::Docker), Level::Container),
            "kata_overhead" => (Some(Runtime::Kata), Level::Monitor),
            "garden" => (Some(Runtime::Garden), Level::Container),
            "buildkit" => (Some(Runtime::Buildkit), Level::Container),
            _ if before.grandparent == "ecs" => (Some(Runtime::Docker), Level::Container),
            parent if is_containerd_namespace(parent) => (Some(Runtime::Containerd), Level::Container),
            _ => (None, Level::Container),
        },
        _ => (None, Level::Container),
    };
    Named { id, level, runtime, driver }
}

/// Runtimes whose containers go by names.
fn with_name<'p>(name: &'p str, before: &Before<'p>) -> Option<Named<'p>> {
    let named = |id: &'p str, level, runtime, driver| {
        (!id.is_empty()).then_some(Named { id, level, runtime: Some(runtime), driver })
    };
    if let Some(id) = name.strip_prefix("lxc.payload.") {
        return named(id, Level::Container, Runtime::Lxc, Driver::Cgroupfs);
    }
    if let Some(id) = name.strip_prefix("lxc.monitor.") {
        return named(id, Level::Monitor, Runtime::Lxc, Driver::Cgroupfs);
    }
    if let Some(id) = name.strip_prefix("systemd-nspawn@").and_then(|n| n.strip_suffix(".service")) {
        return named(id, Level::Container, Runtime::Nspawn, Driver::Systemd);
    }
    if let Some(id) = name.strip_prefix("machine-").and_then(|n| n.strip_suffix(".scope")) {
        return named(id, Level::Container, Runtime::Nspawn, Driver::Systemd);
    }
    let runtime = match before.parent {
        "lxc" => Runtime::Lxc,
        "garden" => Runtime::Garden,
        "buildkit" => Runtime::Buildkit,
        _ if before.grandparent == "ecs" => Runtime::Ecs,
        // "default" is a common word: only as the first component.
        parent if before.depth == 1 && is_containerd_namespace(parent) => Runtime::Containerd,
        _ => return None,
    };
    named(name, Level::Container, runtime, Driver::Cgroupfs)
}

/// containerd's cgroups lie below its namespace; any name is possible, these
/// are the ones its clients use by default.
fn is_containerd_namespace(name: &str) -> bool {
    matches!(name, "k8s.io" | "default" | "moby")
}

/// `machine-libpod_pod_ID.slice`, or `ID` in `libpod_parent`.
fn podman_pod<'p>(name: &'p str, parent: &str) -> Option<&'p str> {
    let id = match name.strip_suffix(".slice") {
        Some(unit) => unit.rsplit_once("libpod_pod_").map(|(_, id)| id)?,
        None if parent == "libpod_parent" => name,
        None => return None,
    };
    is_container_id(id).then_some(id)
}

fn is_ignored_unit(name: &str) -> bool {
    [".mount", ".swap", ".socket"].iter().any(|suffix| name.ends_with(suffix))
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}
