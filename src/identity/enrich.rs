//! A cgroup's path and the [`Directory`] → who the row is: its labels, whether
//! it still waits for its name, and whose network it carries.
//!
//! ```text
//! let path = path::parse(&cgroup);
//! let row = enrich::resolve(&path, &directory, age);
//! if row.waits { identities.want(&path) }
//! row.labels(&cgroup, &rules, |name, value| …)
//! ```
//!
//! Nothing here asks anybody anything. A row stays the same while the entries it
//! points to do, so a caller that keeps it compares it with [`Row::is_same`] when
//! the directory's generation changed, and writes labels anew only if it differs.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::directory::Directory;
use super::model::{ContainerInfo, ContainerState, NetworkMode, PodInfo, docker_style_name};
use super::path::{Level, PathIdentity, PodUid, Runtime};

/// How long rows of a pod's cgroup wait for their name rather than appear
/// without it first and with it later.
pub const POD_NAME_WAIT: Duration = Duration::from_secs(10);
/// The same for containers outside pods: their runtime tells at once, or never.
pub const CONTAINER_NAME_WAIT: Duration = Duration::from_secs(2);

/// Which set of labels rows carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelStyle {
    /// The kubelet's: `container`, `id`, `image`, `name`, `namespace`, `pod`,
    /// always all six, empty where unknown.
    Kubernetes,
    /// cAdvisor's on its own: `id`, `image` and `name` where known, and
    /// `container_label_<key>` for the runtime's labels.
    Cadvisor,
}

impl LabelStyle {
    /// The style for a host with these cgroups: the kubelet's if one of them is
    /// a pod's, or the parent of pods.
    pub fn for_host<'p>(paths: impl IntoIterator<Item = &'p str>) -> LabelStyle {
        let of_pods = |path: &str| {
            let path = super::path::parse(path);
            path.pod.is_some() || matches!(path.level, Level::PodsRoot | Level::Qos)
        };
        if paths.into_iter().any(of_pods) { LabelStyle::Kubernetes } else { LabelStyle::Cadvisor }
    }
}

/// How labels are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelChoice {
    /// Which set; `None` decides by what is there at the start.
    pub style: Option<LabelStyle>,
    /// See [`LabelRules::store_container_labels`].
    pub store_container_labels: bool,
    /// See [`LabelRules::whitelisted`].
    pub whitelisted: Vec<String>,
    /// cAdvisor's `--docker_only`: of what no runtime knows the root alone is shown.
    pub runtimes_only: bool,
    /// cAdvisor's `--raw_cgroup_prefix_whitelist`: what is shown of it besides; where
    /// there are any, nothing else is.
    pub raw_prefixes: Vec<String>,
    /// cAdvisor's `--disable_root_cgroup_stats`.
    pub without_root: bool,
}

impl Default for LabelChoice {
    fn default() -> Self {
        LabelChoice {
            style: None,
            store_container_labels: true,
            whitelisted: Vec::new(),
            runtimes_only: false,
            raw_prefixes: Vec::new(),
            without_root: false,
        }
    }
}

impl LabelChoice {
    /// Whether the cgroup at `path` is left out of `/metrics`; `of_runtime` if a
    /// runtime knows it.
    pub fn hides(&self, path: &str, of_runtime: bool) -> bool {
        if path == "/" {
            return self.without_root;
        }
        let raw = self.runtimes_only || !self.raw_prefixes.is_empty();
        raw && !of_runtime && !self.raw_prefixes.iter().any(|prefix| path.starts_with(prefix.as_str()))
    }

    /// The rules for a host with these cgroups.
    pub fn for_host<'p>(&self, paths: impl IntoIterator<Item = &'p str>) -> LabelRules {
        LabelRules {
            style: self.style.unwrap_or_else(|| LabelStyle::for_host(paths)),
            store_container_labels: self.store_container_labels,
            whitelisted: self.whitelisted.clone(),
        }
    }
}

/// How labels are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRules {
    /// Which set.
    pub style: LabelStyle,
    /// cAdvisor's `--store_container_labels`: all runtime labels, not only those
    /// of the whitelist.
    pub store_container_labels: bool,
    /// cAdvisor's `--whitelisted_container_labels`: keys kept in any case.
    pub whitelisted: Vec<String>,
}

impl LabelRules {
    /// A style with cAdvisor's defaults.
    pub fn new(style: LabelStyle) -> Self {
        LabelRules { style, store_container_labels: true, whitelisted: Vec::new() }
    }
}

/// Who a row is.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// The container, on the container's own cgroup.
    pub container: Option<Arc<ContainerInfo>>,
    /// The pod, on its own cgroup and on those of its containers.
    pub pod: Option<Arc<PodInfo>>,
    /// What kind of cgroup it is.
    pub level: Level,
    /// Who made the cgroup, as the path tells.
    runtime: Option<Runtime>,
    /// Whether a source may still name it, so that it is better left out for now.
    pub waits: bool,
}

/// Finds out who a row is. `age` is how long the agent has seen the cgroup.
pub fn resolve(path: &PathIdentity<'_>, directory: &Directory, age: Duration) -> Row {
    let mut row = Row { level: path.level, runtime: path.runtime, ..Row::default() };
    match path.level {
        Level::Pod => {
            row.pod = path.pod.and_then(|uid| directory.pod(uid)).cloned();
            row.waits = row.pod.is_none() && directory.expecting() && age < POD_NAME_WAIT;
        }
        Level::Container | Level::EmptySandbox => {
            let patience = if path.pod.is_some() { POD_NAME_WAIT } else { CONTAINER_NAME_WAIT };
            row.container = path.container.and_then(|id| directory.container(id)).cloned();
            let complete = row.container.as_ref().is_some_and(|c| !c.partial);
            row.waits = !complete && directory.expecting() && age < patience;
        }
        // A container in a container is seldom one of this host's runtime.
        Level::Nested => row.container = path.container.and_then(|id| directory.container(id)).cloned(),
        Level::None
        | Level::Ignored
        | Level::PodsRoot
        | Level::Qos
        | Level::PodmanPod
        | Level::Monitor
        | Level::Below => {}
    }
    if row.pod.is_none()
        && let Some(container) = &row.container
    {
        let uid = container.pod.as_ref().and_then(|p| p.uid).or(path.pod);
        row.pod = uid.and_then(|uid| directory.pod(uid)).cloned();
    }
    row
}

impl Row {
    /// Whether `other` is the same entries of the directory, to be shown or not alike.
    pub fn is_same(&self, other: &Row) -> bool {
        fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
            match (a, b) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (a, b) => a.is_none() && b.is_none(),
            }
        }
        self.waits == other.waits
            && self.level == other.level
            && same(self.container.as_ref(), other.container.as_ref())
            && same(self.pod.as_ref(), other.pod.as_ref())
    }

    /// Whether it is a pod's sandbox.
    pub fn is_sandbox(&self) -> bool {
        self.level == Level::EmptySandbox || self.container.as_ref().is_some_and(|c| c.is_sandbox)
    }

    /// cAdvisor's `name`: what the runtime calls the container.
    pub fn name(&self) -> Option<Cow<'_, str>> {
        let container = self.container.as_deref()?;
        if let Some(name) = &container.name {
            return Some(Cow::Borrowed(name));
        }
        // Known by its log's name only: made up by the conventions of its runtime.
        match (self.runtime.or(container.runtime), &container.pod, &container.container) {
            (Some(Runtime::Crio | Runtime::Docker), Some(pod), Some(name)) => {
                Some(Cow::Owned(docker_style_name(name, pod, container.restart_count.unwrap_or(0))))
            }
            (Some(Runtime::Containerd), ..) => Some(Cow::Borrowed(&container.id)),
            _ => None,
        }
    }

    /// The image the container runs.
    pub fn image(&self) -> Option<&str> {
        self.container.as_deref()?.image.as_deref()
    }

    /// Hands each label's name and value to `each`; `id` is the cgroup's path.
    pub fn labels(&self, id: &str, rules: &LabelRules, mut each: impl FnMut(&str, &str)) {
        let name = self.name();
        match rules.style {
            LabelStyle::Kubernetes => {
                let container = self.container.as_deref();
                let (namespace, pod) = self.pod_names();
                each("container", container.and_then(|c| c.container.as_deref()).unwrap_or(""));
                each("id", id);
                each("image", self.image().unwrap_or(""));
                each("name", name.as_deref().unwrap_or(""));
                each("namespace", namespace);
                each("pod", pod);
            }
            LabelStyle::Cadvisor => {
                each("id", id);
                // An empty label is the same as none.
                for (label, value) in [("image", self.image()), ("name", name.as_deref())] {
                    if let Some(value) = value.filter(|v| !v.is_empty()) {
                        each(label, value);
                    }
                }
                self.runtime_labels(rules, each);
            }
        }
    }

    /// Namespace and name of the pod, on pod and container rows.
    fn pod_names(&self) -> (&str, &str) {
        match (self.container.as_deref(), self.pod.as_deref()) {
            (Some(ContainerInfo { pod: Some(pod), .. }), _) => (&pod.namespace, &pod.name),
            (Some(_), Some(pod)) | (None, Some(pod)) if self.level != Level::Nested => {
                (&pod.namespace, &pod.name)
            }
            _ => ("", ""),
        }
    }

    /// `container_label_*` and `container_env_*`. Keys that become the same label name: the
    /// first in byte order is shown, so that a series does not change from scrape to scrape.
    fn runtime_labels(&self, rules: &LabelRules, mut each: impl FnMut(&str, &str)) {
        let Some(container) = self.container.as_deref() else { return };
        let mut seen: Vec<String> = Vec::new();
        let wanted = |key: &str| rules.store_container_labels || rules.whitelisted.iter().any(|w| w == key);
        let labels = container.labels.iter().filter(|(key, _)| wanted(key)).map(|pair| ("label", pair));
        let variables = container.environment.iter().map(|pair| ("env", pair));
        for (what, (key, value)) in labels.chain(variables) {
            let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
            let label = format!("container_{what}_{}", key.chars().map(legal).collect::<String>());
            if !seen.contains(&label) {
                each(&label, value);
                seen.push(label);
            }
        }
    }
}

/// What a row has to do with network counters. Indices are those of the rows
/// given to [`network_roles`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkRole {
    /// Its processes' namespace is counted on its own row.
    Own,
    /// Its processes' namespace is counted on the row of that index: its pod's,
    /// or that of the container it is a part of.
    OfPod(usize),
    /// Its processes share the host's namespace, or another container's.
    Nobody,
}

/// Says for each row where the namespace of its processes is counted.
///
/// A pod's is counted on its sandbox's row, as the kubelet does, and where the
/// sandbox is not known on the pod's own row; CRI-O's sandboxes without process
/// carry what the pod's other containers' processes see. Which namespace a
/// process is in, and that each is counted once, is for the reader to find out.
pub fn network_roles(rows: &[(PathIdentity<'_>, &Row)]) -> Vec<NetworkRole> {
    // A pod within a node container is another than one of the same UID outside.
    /// Rank of the row, creation of its container, index.
    type Claim = (u8, Option<u64>, usize);
    let mut carriers: HashMap<(Option<&str>, PodUid), Claim> = HashMap::new();
    for (index, (path, row)) in rows.iter().enumerate() {
        let Some(uid) = path.pod else { continue };
        let running = |c: &Arc<ContainerInfo>| c.state != Some(ContainerState::Exited);
        let rank = match path.level {
            Level::Pod => 0,
            Level::Container | Level::EmptySandbox if row.is_sandbox() => {
                1 + u8::from(row.container.as_ref().is_some_and(running))
            }
            _ => continue,
        };
        // Of two sandboxes the newer one is in use.
        let claim = (rank, row.container.as_ref().and_then(|c| c.created_ns), index);
        let best = carriers.entry((path.within, uid)).or_insert(claim);
        if (claim.0, claim.1) > (best.0, best.1) {
            *best = claim;
        }
    }
    let role = |(path, row): &(PathIdentity<'_>, &Row)| {
        if !matches!(path.level, Level::Container | Level::EmptySandbox | Level::Nested) {
            return NetworkRole::Nobody;
        }
        let mode = row.container.as_ref().and_then(|c| c.network.as_ref());
        let of_host = row.pod.as_ref().and_then(|p| p.host_network) == Some(true);
        if of_host || mode == Some(&NetworkMode::Host) {
            return NetworkRole::Nobody;
        }
        match (path.level, path.pod) {
            (Level::Container | Level::EmptySandbox, Some(uid)) => match carriers.get(&(path.within, uid)) {
                Some((_, _, carrier)) => NetworkRole::OfPod(*carrier),
                None => NetworkRole::Own,
            },
            (Level::Nested, _) if row.container.is_none() => NetworkRole::Nobody,
            _ if matches!(mode, Some(NetworkMode::Shared(_))) => NetworkRole::Nobody,
            _ => NetworkRole::Own,
        }
    };
    let mut roles: Vec<NetworkRole> = rows.iter().map(role).collect();
    // What is a part of a container goes with it: crun puts a container's
    // processes into a child of its cgroup.
    let whole = |(path, _): &(PathIdentity<'_>, &Row)| matches!(path.level, Level::Container | Level::Nested);
    let containers: HashMap<_, _> = rows
        .iter()
        .zip(&roles)
        .enumerate()
        .filter(|(_, (row, _))| whole(row))
        .map(|(index, ((path, _), role))| {
            let carried = if *role == NetworkRole::Own { NetworkRole::OfPod(index) } else { *role };
            ((path.within, path.container), carried)
        })
        .collect();
    for ((path, _), role) in rows.iter().zip(&mut roles) {
        if path.level == Level::Below
            && path.container.is_some()
            && let Some(carried) = containers.get(&(path.within, path.container))
        {
            *role = *carried;
        }
    }
    roles
}

#[cfg(test)]
mod tests {
    use super::super::model::{Labels, Names, PodRef};
    use super::super::path::parse;
    use super::*;

    const UID: &str = "0d1c2b3a-4f5e-4a7b-8c9d-0e1f2a3b4c5d";
    const ID: &str = "4f2e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e";
    const PAUSE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn pod_ref() -> PodRef {
        PodRef { uid: PodUid::parse(UID), namespace: "shop".into(), name: "web-1".into() }
    }

    fn container(id: &str) -> ContainerInfo {
        ContainerInfo {
            name: Some(id.into()),
            image: Some("nginx:1".into()),
            pod: Some(pod_ref()),
            container: Some("web".into()),
            ..ContainerInfo::new(id.into())
        }
    }

    fn sandbox() -> ContainerInfo {
        ContainerInfo { image: Some("pause:3".into()), container: None, is_sandbox: true, ..container(PAUSE) }
    }

    fn pod() -> PodInfo {
        PodInfo::new(PodUid::parse(UID).unwrap(), "shop".into(), "web-1".into())
    }

    fn directory(containers: Vec<ContainerInfo>, pods: Vec<PodInfo>) -> Directory {
        Directory {
            expecting: true,
            containers: containers.into_iter().map(|c| (Arc::clone(&c.id), Arc::new(c))).collect(),
            pods: pods.into_iter().map(|p| (p.uid, Arc::new(p))).collect(),
            ..Directory::default()
        }
    }

    fn labels(path: &str, directory: &Directory, rules: &LabelRules) -> String {
        let row = resolve(&parse(path), directory, Duration::ZERO);
        assert!(!row.waits, "{path}");
        let mut text = Vec::new();
        row.labels("I", rules, |name, value| text.push(format!("{name}={value}")));
        text.join(" ")
    }

    #[test]
    fn the_kubelets_labels() {
        let containerd = directory(vec![container(ID), sandbox()], vec![pod()]);
        let named = |name: &str, info: ContainerInfo| ContainerInfo { name: Some(name.into()), ..info };
        let crio = directory(
            vec![
                named("k8s_web_web-1_shop_u_0", container(ID)),
                ContainerInfo { container: Some("POD".into()), ..named("k8s_POD_web-1_shop_u_0", sandbox()) },
            ],
            vec![pod()],
        );
        let check = |directory: &Directory, path: &str, want: &str| {
            let got = labels(path, directory, &LabelRules::new(LabelStyle::Kubernetes));
            assert_eq!(got, want, "{path}");
        };
        let pod_path = format!("/kubepods/burstable/pod{UID}");
        let empty = "container= id=I image= name= namespace= pod=";
        for path in ["/", "/kubepods", "/kubepods/burstable", "/system.slice/ssh.service"] {
            check(&containerd, path, empty);
        }
        check(&containerd, &pod_path, "container= id=I image= name= namespace=shop pod=web-1");
        let want = format!("container=web id=I image=nginx:1 name={ID} namespace=shop pod=web-1");
        check(&containerd, &format!("{pod_path}/{ID}"), &want);
        let want = format!("container= id=I image=pause:3 name={PAUSE} namespace=shop pod=web-1");
        check(&containerd, &format!("{pod_path}/{PAUSE}"), &want);
        check(&containerd, &format!("{pod_path}/{ID}/inner"), empty);
        check(&containerd, &format!("{pod_path}/{ID}/docker/{PAUSE}x"), empty);
        check(&containerd, &format!("{pod_path}/{ID}/docker/{}", PAUSE.replace('a', "c")), empty);
        let want = "container=POD id=I image=pause:3 name=k8s_POD_web-1_shop_u_0 namespace=shop pod=web-1";
        check(&crio, &format!("{pod_path}/crio-{PAUSE}"), want);
        check(&crio, &format!("{pod_path}/crio-conmon-{ID}"), empty);
        // Docker's own containers beside pods.
        let plain = ContainerInfo {
            name: Some("db".into()),
            image: Some("postgres".into()),
            ..ContainerInfo::new(ID.into())
        };
        let docker = directory(vec![plain], vec![]);
        check(&docker, &format!("/docker/{ID}"), "container= id=I image=postgres name=db namespace= pod=");
    }

    #[test]
    fn cadvisors_labels() {
        let mut names = Names::default();
        let pairs =
            [("app.kubernetes.io/name", "a"), ("app-kubernetes-io-name", "b"), ("x", "c"), ("é", "d")];
        let info = ContainerInfo { labels: Labels::new(pairs, &mut names), ..container(ID) };
        let bare = ContainerInfo::new(PAUSE.into());
        let known = directory(vec![info, bare], vec![pod()]);
        let path = format!("/docker/{ID}");
        let mut rules = LabelRules::new(LabelStyle::Cadvisor);
        let want = format!(
            "id=I image=nginx:1 name={ID} container_label_app_kubernetes_io_name=b container_label_x=c container_label__=d"
        );
        assert_eq!(labels(&path, &known, &rules), want);
        assert_eq!(labels(&format!("/docker/{PAUSE}"), &known, &rules), "id=I");
        assert_eq!(labels(&format!("/kubepods/pod{UID}"), &known, &rules), "id=I");
        rules.store_container_labels = false;
        assert_eq!(labels(&path, &known, &rules), format!("id=I image=nginx:1 name={ID}"));
        let variables = Labels::new([("team-name", "web"), ("team.name", "x")], &mut Names::default());
        let known_too = directory(vec![ContainerInfo { environment: variables, ..container(ID) }], vec![]);
        assert!(labels(&path, &known_too, &rules).ends_with(" container_env_team_name=web"));
        rules.whitelisted = vec!["app.kubernetes.io/name".into(), "nothing".into()];
        let want = format!("id=I image=nginx:1 name={ID} container_label_app_kubernetes_io_name=a");
        assert_eq!(labels(&path, &known, &rules), want);
    }

    #[test]
    fn rows_wait_while_a_name_may_come() {
        let check = |path: &str, directory: &Directory, age: u64, want: bool| {
            let row = resolve(&parse(path), directory, Duration::from_secs(age));
            assert_eq!(row.waits, want, "{path} after {age} s");
        };
        let in_pod = format!("/kubepods/pod{UID}/{ID}");
        let nothing = directory(vec![], vec![]);
        check(&in_pod, &nothing, 9, true);
        check(&in_pod, &nothing, 10, false);
        check(&format!("/kubepods/pod{UID}"), &nothing, 9, true);
        check(&format!("/docker/{ID}"), &nothing, 1, true);
        check(&format!("/docker/{ID}"), &nothing, 2, false);
        check("/system.slice", &nothing, 0, false);
        check(&format!("{in_pod}/docker/{PAUSE}"), &nothing, 0, false);
        let partial = directory(vec![ContainerInfo { partial: true, ..container(ID) }], vec![pod()]);
        check(&in_pod, &partial, 9, true);
        check(&in_pod, &partial, 10, false);
        check(&in_pod, &Directory::default(), 0, false);
    }

    #[test]
    fn names_by_convention_where_only_the_log_tells() {
        let info = |id: &str| ContainerInfo { name: None, image: None, ..container(id) };
        let known = directory(vec![info(ID)], vec![pod()]);
        let check = |path: String, want: Option<&str>| {
            assert_eq!(resolve(&parse(&path), &known, Duration::ZERO).name().as_deref(), want, "{path}");
        };
        let slice = format!("/kubepods.slice/kubepods-pod{}.slice", UID.replace('-', "_"));
        check(format!("{slice}/cri-containerd-{ID}.scope"), Some(ID));
        check(format!("{slice}/crio-{ID}.scope"), Some(&format!("k8s_web_web-1_shop_{UID}_0")));
        check(format!("/kubepods/pod{UID}/{ID}"), None);
    }

    fn roles(paths: &[String], directory: &Directory) -> Vec<NetworkRole> {
        let rows: Vec<Row> = paths.iter().map(|p| resolve(&parse(p), directory, Duration::ZERO)).collect();
        let rows: Vec<_> = paths.iter().zip(&rows).map(|(p, r)| (parse(p), r)).collect();
        network_roles(&rows)
    }

    #[test]
    fn a_pods_network_is_on_its_sandbox() {
        use NetworkRole::{Nobody, OfPod, Own};
        let pod_path = format!("/kubepods/pod{UID}");
        let paths: Vec<String> = vec![
            "/".into(),
            pod_path.clone(),
            format!("{pod_path}/{ID}"),
            format!("{pod_path}/{PAUSE}"),
            format!("{pod_path}/{PAUSE}/inner"),
        ];
        let both = || vec![container(ID), sandbox()];
        let known = directory(both(), vec![pod()]);
        assert_eq!(roles(&paths, &known), [Nobody, Nobody, OfPod(3), OfPod(3), OfPod(3)]);
        // Without a runtime's word the pod's own row has it.
        assert_eq!(roles(&paths, &Directory::default()), [Nobody, Nobody, OfPod(1), OfPod(1), OfPod(1)]);
        let host = directory(both(), vec![PodInfo { host_network: Some(true), ..pod() }]);
        assert_eq!(roles(&paths, &host), [Nobody; 5]);
        // CRI-O without a pause process: the path tells.
        let slice = format!("/kubepods.slice/kubepods-pod{}.slice", UID.replace('-', "_"));
        let crio = [
            slice.clone(),
            format!("{slice}/crio-{ID}.scope"),
            format!("{slice}/crio-{PAUSE}"),
            format!("{slice}/crio-{ID}.scope/container"),
        ];
        assert_eq!(roles(&crio, &Directory::default()), [Nobody, OfPod(2), OfPod(2), OfPod(2)]);
        let podman = format!("/machine.slice/libpod-{ID}.scope");
        let podman = [format!("{podman}/container"), podman, "/lxc/a/b/c".into()];
        assert_eq!(roles(&podman, &Directory::default()), [OfPod(1), Own, Nobody]);
        // A sandbox that ended, and the one that replaced it.
        let newer = PAUSE.replace('a', "c");
        let ended = ContainerInfo { state: Some(ContainerState::Exited), created_ns: Some(9), ..sandbox() };
        let running =
            ContainerInfo { state: Some(ContainerState::Running), id: newer.as_str().into(), ..sandbox() };
        let known = directory(vec![ended, running], vec![pod()]);
        let paths = [pod_path.clone(), format!("{pod_path}/{PAUSE}"), format!("{pod_path}/{newer}")];
        assert_eq!(roles(&paths, &known), [Nobody, OfPod(2), OfPod(2)]);
        // Docker: shared and host networks are counted elsewhere.
        let docker = |id: &str, mode| ContainerInfo { network: Some(mode), pod: None, ..container(id) };
        let known = directory(
            vec![
                docker(ID, NetworkMode::Shared("x".into())),
                docker(PAUSE, NetworkMode::Own),
                docker(&newer, NetworkMode::Host),
            ],
            vec![],
        );
        let paths = [
            format!("/docker/{ID}"),
            format!("/docker/{PAUSE}"),
            format!("/docker/{newer}"),
            "/lxc/a".into(),
        ];
        assert_eq!(roles(&paths, &known), [Nobody, Own, Nobody, Own]);
    }

    #[test]
    fn what_cadvisors_flags_leave_out() {
        let check = |runtimes_only, prefixes: &[&str], without_root, hidden: [bool; 3]| {
            let raw_prefixes = prefixes.iter().map(|p| (*p).to_owned()).collect();
            let choice = LabelChoice { runtimes_only, raw_prefixes, without_root, ..LabelChoice::default() };
            let paths = [("/", false), ("/system.slice/a", false), ("/docker/b", true)];
            assert_eq!(paths.map(|(path, known)| choice.hides(path, known)), hidden, "{choice:?}");
        };
        check(false, &[], false, [false; 3]);
        check(true, &[], false, [false, true, false]);
        check(true, &["/system"], false, [false; 3]);
        check(false, &["/user"], true, [true, true, false]);
    }

    #[test]
    fn the_style_follows_the_host() {
        let check = |paths: &[&str], want| assert_eq!(LabelStyle::for_host(paths.iter().copied()), want);
        check(&["/", "/docker/x", "/system.slice"], LabelStyle::Cadvisor);
        check(&["/", "/kubepods.slice"], LabelStyle::Kubernetes);
        check(&["/a/pod0d1c2b3a-4f5e-4a7b-8c9d-0e1f2a3b4c5d"], LabelStyle::Kubernetes);
    }

    #[test]
    fn the_same_entries_are_the_same_row() {
        let known = directory(vec![container(ID)], vec![pod()]);
        let path = format!("/kubepods/pod{UID}/{ID}");
        let row = || resolve(&parse(&path), &known, Duration::ZERO);
        assert!(row().is_same(&row()));
        let other = directory(vec![container(ID)], vec![pod()]);
        assert!(!row().is_same(&resolve(&parse(&path), &other, Duration::ZERO)));
        assert!(!row().is_same(&Row::default()));
    }
}
