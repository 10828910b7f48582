//! A snapshot's rows and the directory → what a step measures: the node, its
//! system containers, pods and containers, sorted, each at most once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use super::Departed;
use super::bases::Rise;
use crate::identity::Directory;
use crate::identity::model::{
    ContainerInfo, ContainerState, Labels, NetworkMode, PodContainer, PodInfo, Resources, Role,
};
use crate::identity::path::{self, Level, PathIdentity, PodUid, Qos, Service};
use crate::snapshot::{CgroupSample, Limit, Snapshot};

/// The kinds of entities, in the order of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Node,
    System,
    Pod,
    Container,
}

/// One cgroup's row, live or departed.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) sample: &'a CgroupSample,
    path: PathIdentity<'a>,
    /// Wall clock of its tick, milliseconds since the epoch.
    pub(super) wall_ms: u64,
    /// Of a live row: monotonic clock of its tick, since the builder was made.
    pub(super) taken_ns: u64,
    pub(super) departed: bool,
    /// Whether an entity's figures come from it.
    pub(super) used: bool,
    /// Filled in for used rows.
    pub(super) rise: Rise,
}

/// One thing to be measured. Rows are indexes.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) kind: Kind,
    pub(super) namespace: &'a str,
    pub(super) pod: &'a str,
    pub(super) container: &'a str,
    pub(super) name: &'a str,
    pub(super) image: &'a str,
    pub(super) uid: Option<PodUid>,
    pub(super) id: Option<&'a str>,
    pub(super) start_ms: Option<u64>,
    pub(super) qos: Option<Qos>,
    pub(super) labels: Option<&'a Labels>,
    pub(super) host_network: bool,
    pub(super) departed: bool,
    /// Its own cgroup.
    pub(super) row: Option<usize>,
    /// Of a pod without one: its containers' cgroups, to be added up.
    pub(super) parts: Vec<usize>,
    /// Of a pod: its live containers' cgroups.
    pub(super) members: Vec<usize>,
    /// The cgroup that carries its network.
    pub(super) network: Option<usize>,
    pub(super) declared: Declared<'a>,
}

/// What a pod's spec and status say of a container, or of several together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Declared<'a> {
    pub(super) requests: Resources,
    pub(super) limits: Resources,
    /// Requests of other resources; summed over containers where they are a pod's.
    pub(super) others: BTreeMap<&'a str, u64>,
    pub(super) restarts: Option<u64>,
}

impl<'a> Declared<'a> {
    fn of(container: &'a PodContainer) -> Declared<'a> {
        let restarts = container.restart_count.map(u64::from);
        let others = container.other_requests.iter().map(|(name, count)| (&**name, *count)).collect();
        Declared { requests: container.requests, limits: container.limits, others, restarts }
    }

    /// Adds up what is known; what nobody tells stays unknown.
    fn add(&mut self, other: &Declared<'a>) {
        for (mine, theirs) in [(&mut self.requests, other.requests), (&mut self.limits, other.limits)] {
            add(&mut mine.cpu_milli, theirs.cpu_milli);
            add(&mut mine.memory_bytes, theirs.memory_bytes);
            add(&mut mine.ephemeral_storage_bytes, theirs.ephemeral_storage_bytes);
        }
        for (name, count) in &other.others {
            let mine = self.others.entry(name).or_default();
            *mine = mine.saturating_add(*count);
        }
        add(&mut self.restarts, other.restarts);
    }
}

pub(super) fn add(mine: &mut Option<u64>, theirs: Option<u64>) {
    if let Some(theirs) = theirs {
        *mine = Some(mine.unwrap_or(0).saturating_add(theirs));
    }
}

impl<'a> Found<'a> {
    fn new(kind: Kind, row: Option<usize>) -> Found<'a> {
        Found {
            kind,
            namespace: "",
            pod: "",
            container: "",
            name: "",
            image: "",
            uid: None,
            id: None,
            start_ms: None,
            qos: None,
            labels: None,
            host_network: false,
            departed: false,
            row,
            parts: Vec::new(),
            members: Vec::new(),
            network: None,
            declared: Declared::default(),
        }
    }

    pub(super) fn is_node(&self) -> bool {
        self.kind == Kind::Node
    }

    /// The order of a batch.
    fn key(&self) -> (Kind, [&'a str; 4], Option<PodUid>, Option<&'a str>) {
        (self.kind, [self.namespace, self.pod, self.container, self.name], self.uid, self.id)
    }

    /// The rows its figures come from.
    fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.row.into_iter().chain(self.network).chain(self.parts.iter().copied())
    }
}

/// Every row of the snapshot, and those of cgroups that are gone.
pub(super) fn rows<'a>(snapshot: &'a Snapshot, departed: &[Departed<'a>], zero: Instant) -> Vec<Row<'a>> {
    let taken_ns = snapshot.monotonic.saturating_duration_since(zero).as_nanos();
    let taken_ns = u64::try_from(taken_ns).unwrap_or(u64::MAX);
    let row = |sample: &'a CgroupSample, wall_ms: u64, departed: bool| Row {
        sample,
        path: path::parse(&sample.cgroup.path),
        wall_ms,
        taken_ns,
        departed,
        used: false,
        rise: Rise::default(),
    };
    let gone = departed.iter().map(|d| row(d.sample, d.seen_ms, true));
    let live = snapshot.cgroups.iter().map(|s| row(s, snapshot.wall_ms, false));
    gone.chain(live).collect()
}

/// A pod's rows.
#[derive(Debug, Default)]
struct Pod<'a> {
    info: Option<&'a PodInfo>,
    own: Option<usize>,
    sandbox: Option<usize>,
    containers: Vec<(usize, Option<&'a ContainerInfo>)>,
}

/// What to measure, in the order of a batch.
pub(super) fn find<'a>(rows: &[Row<'a>], directory: &'a Directory, boot_time: Option<u64>) -> Vec<Found<'a>> {
    let mut found = Vec::new();
    let mut pods: BTreeMap<(Option<&'a str>, PodUid), Pod<'a>> = BTreeMap::new();
    let mut alone: HashMap<&'a str, Found<'a>> = HashMap::new();
    let mut system: BTreeMap<&'static str, (usize, usize, usize)> = BTreeMap::new();
    for (at, row) in rows.iter().enumerate() {
        let path = &row.path;
        match path.level {
            Level::None if row.sample.cgroup.path == "/" => {
                let mut node = Found::new(Kind::Node, Some(at));
                node.start_ms = boot_time.map(|s| s.saturating_mul(1000));
                node.network = Some(at);
                found.push(node);
            }
            Level::None | Level::PodsRoot if path.container.is_none() && !row.departed => {
                if let Some((name, rank)) = system_container(&row.sample.cgroup.path, path.level) {
                    let claim = (rank, row.sample.cgroup.path.len(), at);
                    let best = system.entry(name).or_insert(claim);
                    *best = claim.min(*best);
                }
            }
            Level::Pod | Level::Container | Level::EmptySandbox => {
                let info = path.container.and_then(|id| directory.container(id)).map(|c| &**c);
                let told = info.and_then(|c| c.pod.as_ref()).and_then(|p| p.uid);
                match path.pod.or(told) {
                    Some(uid) => {
                        let pod = pods.entry((path.within, uid)).or_default();
                        pod.info = directory.pod(uid).map(|p| &**p);
                        match (path.level, info) {
                            (Level::Pod, _) => place(&mut pod.own, at, rows),
                            (Level::EmptySandbox, _) => place(&mut pod.sandbox, at, rows),
                            (_, Some(info)) if info.is_sandbox => place(&mut pod.sandbox, at, rows),
                            (_, info) => pod.containers.push((at, info)),
                        }
                    }
                    None if path.within.is_none() => {
                        let container = container_alone(at, row, info);
                        let id = path.container.unwrap_or_default();
                        let best = alone.entry(id).or_insert_with(|| container_alone(at, row, info));
                        if best.departed && !container.departed {
                            *best = container;
                        }
                    }
                    None => {}
                }
            }
            _ => {}
        }
    }
    for (name, (_, _, at)) in system {
        let mut container = Found::new(Kind::System, Some(at));
        container.container = name;
        container.start_ms = rows.get(at).and_then(|r| created_ms(r.sample));
        found.push(container);
    }
    found.extend(alone.into_values());
    one_pod_of_each_name(&mut pods, rows);
    for ((within, uid), pod) in &pods {
        if within.is_none() || pod.info.is_some() {
            add_pod(*uid, pod, rows, &mut found);
        }
    }
    found.sort_by_key(Found::key);
    found
}

/// Marks the rows whose figures are used.
pub(super) fn mark(rows: &mut [Row<'_>], found: &[Found<'_>]) {
    for at in found.iter().flat_map(Found::rows) {
        if let Some(row) = rows.get_mut(at) {
            row.used = true;
        }
    }
}

/// A live row is better than a departed one, and a later cgroup than an earlier.
fn place(slot: &mut Option<usize>, at: usize, rows: &[Row<'_>]) {
    let rank = |at: &usize| rows.get(*at).map(|r| (!r.departed, r.sample.cgroup.created));
    if slot.is_none_or(|old| rank(&at) > rank(&old)) {
        *slot = Some(at);
    }
}

/// The node's own figures of what pods ask for.
pub(super) fn node_total<'a>(found: &[Found<'a>]) -> Declared<'a> {
    let mut total = Declared::default();
    found.iter().filter(|f| f.kind == Kind::Pod).for_each(|f| total.add(&f.declared));
    total.restarts = None;
    // Heapster has a sum over a pod's containers, and no other.
    total.others.clear();
    total
}

/// Heapster's name of a system container, and how good a candidate the cgroup is.
fn system_container(path: &str, level: Level) -> Option<(&'static str, usize)> {
    path::service(path, level).map(|(service, rank)| match service {
        Service::Pods => ("pods", rank),
        Service::System => ("system", rank),
        Service::Kubelet => ("kubelet", rank),
        Service::Runtime => ("docker-daemon", rank),
    })
}

fn created_ms(sample: &CgroupSample) -> Option<u64> {
    sample.cgroup.created.map(|s| s.saturating_mul(1000))
}

fn text(told: Option<&str>) -> &str {
    told.unwrap_or("")
}

/// What a container's own row tells, and its entry in the directory.
fn container<'a>(at: usize, row: &Row<'a>, info: Option<&'a ContainerInfo>) -> Found<'a> {
    let names = &row.sample.cgroup.identity;
    let told_ns = info.and_then(|c| c.started_ns.or(c.created_ns));
    Found {
        container: text(info.and_then(|c| c.container.as_deref()).or(names.container.as_deref())),
        name: text(names.name.as_deref().or(info.and_then(|c| c.name.as_deref()))),
        image: text(info.and_then(|c| c.image.as_deref()).or(names.image.as_deref())),
        id: row.path.container,
        start_ms: told_ns.map(|ns| ns / 1_000_000).or(created_ms(row.sample)),
        departed: row.departed,
        ..Found::new(Kind::Container, Some(at))
    }
}

/// A container outside pods: its limits are those of its cgroup, and it may
/// have a network of its own.
fn container_alone<'a>(at: usize, row: &Row<'a>, info: Option<&'a ContainerInfo>) -> Found<'a> {
    Found {
        labels: info.map(|c| &c.labels),
        network: Some(at),
        declared: Declared {
            limits: enforced(row.sample),
            restarts: info.and_then(|c| c.restart_count).map(u64::from),
            ..Declared::default()
        },
        ..container(at, row, info)
    }
}

/// Limits as the kernel enforces them.
fn enforced(sample: &CgroupSample) -> Resources {
    let period_usec = sample.spec.cpu_period_usec.map(u64::from).filter(|p| *p > 0);
    let quota_usec = sample.spec.cpu_quota_usec.and_then(Limit::value);
    Resources {
        cpu_milli: quota_usec.zip(period_usec).map(|(quota, period)| quota.saturating_mul(1000) / period),
        memory_bytes: sample.spec.memory_limit.and_then(Limit::value),
        ephemeral_storage_bytes: None,
    }
}

/// Namespace and name of a pod: from its own entry, from what its containers
/// say, or from what its rows are called.
fn pod_names<'a>(pod: &Pod<'a>, rows: &[Row<'a>]) -> (&'a str, &'a str) {
    if let Some(info) = pod.info {
        return (&info.namespace, &info.name);
    }
    let from_containers = pod.containers.iter().find_map(|(_, c)| c.and_then(|c| c.pod.as_ref()));
    if let Some(told) = from_containers {
        return (&told.namespace, &told.name);
    }
    let own = pod.own.into_iter().chain(pod.sandbox).chain(pod.containers.iter().map(|(at, _)| *at));
    let mut names = own.filter_map(|at| rows.get(at)).map(|r| &r.sample.cgroup.identity);
    let named = names.find_map(|n| Some((n.namespace.as_deref()?, n.pod.as_deref()?)));
    named.unwrap_or(("", ""))
}

/// Of pods with the same name only the newest stays: the others are on their way out.
fn one_pod_of_each_name<'a>(pods: &mut BTreeMap<(Option<&'a str>, PodUid), Pod<'a>>, rows: &[Row<'a>]) {
    /// Live, not being deleted, created; the UID decides between equals.
    type Rank = (bool, bool, Option<u64>, PodUid);
    let mut newest: HashMap<(&str, &str), Rank> = HashMap::new();
    let rank = |uid: PodUid, pod: &Pod<'a>| {
        let row = pod.own.or(pod.sandbox).or(pod.containers.first().map(|(at, _)| *at));
        let row = row.and_then(|at| rows.get(at));
        let deleting = pod.info.is_some_and(|p| p.deleting);
        let created_ns = pod.info.and_then(|p| p.created_ns.or(p.started_ns));
        let created = created_ns.map(|ns| ns / 1_000_000).or(row.and_then(|r| created_ms(r.sample)));
        (row.is_some_and(|r| !r.departed), !deleting, created, uid)
    };
    for ((_, uid), pod) in pods.iter() {
        let names = pod_names(pod, rows);
        if names.1.is_empty() {
            continue;
        }
        let mine = rank(*uid, pod);
        let best = newest.entry(names).or_insert(mine);
        *best = mine.max(*best);
    }
    pods.retain(|(_, uid), pod| newest.get(&pod_names(pod, rows)).is_none_or(|(_, _, _, best)| best == uid));
}

fn add_pod<'a>(uid: PodUid, pod: &Pod<'a>, rows: &[Row<'a>], found: &mut Vec<Found<'a>>) {
    let (namespace, name) = pod_names(pod, rows);
    let live = |at: &usize| rows.get(*at).is_some_and(|r| !r.departed);
    let all = || pod.own.into_iter().chain(pod.sandbox).chain(pod.containers.iter().map(|(at, _)| *at));
    let of_path = all().find_map(|at| rows.get(at)?.path.qos);
    let qos = pod.info.and_then(|p| p.qos).or(of_path);
    let host = |c: &ContainerInfo| c.network == Some(NetworkMode::Host);
    let host_network = match pod.info.and_then(|p| p.host_network) {
        Some(told) => told,
        None => pod.containers.iter().any(|(_, c)| c.is_some_and(host)),
    };
    let labels = pod.info.map(|p| &p.labels);
    // One row has the pod's interfaces; the sampler puts them on the sandbox's
    // where it is known.
    let has_network = |at: &usize| rows.get(*at).is_some_and(|r| !r.sample.network.is_empty());
    let network = pod.sandbox.into_iter().chain(all()).find(has_network).filter(|_| !host_network);
    let own_row = pod.own.filter(live).or_else(|| pod.own.filter(|_| !all().any(|at| live(&at))));
    let parts = match own_row {
        Some(_) => Vec::new(),
        None => pod.containers.iter().map(|(at, _)| *at).chain(pod.sandbox).filter(live).collect(),
    };
    let first = own_row.or(all().next()).and_then(|at| rows.get(at));
    let told_ns = pod.info.and_then(|p| p.started_ns.or(p.created_ns));
    let mut whole = Found {
        namespace,
        pod: name,
        uid: Some(uid),
        start_ms: told_ns.map(|ns| ns / 1_000_000).or(first.and_then(|r| created_ms(r.sample))),
        qos,
        labels,
        host_network,
        departed: !all().any(|at| live(&at)),
        row: own_row,
        parts,
        network,
        ..Found::new(Kind::Pod, None)
    };
    let mut running: HashSet<&str> = HashSet::new();
    for (at, info) in newest_runs(pod, rows) {
        let Some(row) = rows.get(at) else { continue };
        let mut part = container(at, row, info);
        (part.namespace, part.pod, part.uid, part.qos) = (namespace, name, Some(uid), qos);
        part.host_network = host_network;
        let spec = pod.info.and_then(|p| p.container(part.container)).filter(|_| !part.container.is_empty());
        part.declared = declared(spec, row, info);
        running.insert(part.container);
        if !row.departed {
            whole.members.push(at);
        }
        whole.declared.add(&part.declared);
        found.push(part);
    }
    // Containers that wait or crashed have no cgroup; only the kubelet tells of them.
    for spec in pod.info.map(|p| p.containers.as_slice()).unwrap_or_default() {
        if !matches!(spec.role, Some(Role::App | Role::Sidecar)) || running.contains(&*spec.name) {
            continue;
        }
        let mut part = Found::new(Kind::Container, None);
        (part.namespace, part.pod, part.uid, part.qos) = (namespace, name, Some(uid), qos);
        (part.container, part.image, part.id) = (&spec.name, text(spec.image.as_deref()), spec.id.as_deref());
        part.host_network = host_network;
        part.declared = Declared::of(spec);
        whole.declared.add(&part.declared);
        found.push(part);
    }
    found.push(whole);
}

/// A container's requests, limits and restarts: the kubelet's word, or else what
/// the kernel enforces and the runtime counted.
fn declared<'a>(spec: Option<&'a PodContainer>, row: &Row<'_>, info: Option<&ContainerInfo>) -> Declared<'a> {
    let counted = info.and_then(|c| c.restart_count).map(u64::from);
    let same_run = |spec: &&PodContainer| spec.id.is_none() || spec.id.as_deref() == row.path.container;
    match spec.filter(|s| s.role.is_some()) {
        Some(spec) => {
            let restarts = Some(spec).filter(same_run).and_then(|s| s.restart_count).map(u64::from);
            let told = Declared::of(spec);
            Declared { restarts: restarts.or(counted).or(told.restarts), ..told }
        }
        None => {
            let restarts = counted.or(spec.and_then(|s| s.restart_count).map(u64::from));
            Declared { limits: enforced(row.sample), restarts, ..Declared::default() }
        }
    }
}

/// The pod's containers, of runs of the same name only the newest.
fn newest_runs<'a>(pod: &Pod<'a>, rows: &[Row<'a>]) -> Vec<(usize, Option<&'a ContainerInfo>)> {
    let rank = |(at, info): &(usize, Option<&'a ContainerInfo>)| {
        let row = rows.get(*at);
        let exited = info.is_some_and(|c| c.state == Some(ContainerState::Exited));
        let created_ns = info.and_then(|c| c.created_ns);
        let created = created_ns.map(|ns| ns / 1_000_000).or(row.and_then(|r| created_ms(r.sample)));
        (row.is_some_and(|r| !r.departed), !exited, created, row.and_then(|r| r.path.container))
    };
    let mut newest: BTreeMap<&str, (usize, Option<&'a ContainerInfo>)> = BTreeMap::new();
    for run in &pod.containers {
        let (at, info) = run;
        let Some(row) = rows.get(*at) else { continue };
        let name = text(
            info.and_then(|c| c.container.as_deref()).or(row.sample.cgroup.identity.container.as_deref()),
        );
        // What has no name yet is known by its id.
        let name = if name.is_empty() { row.path.container.unwrap_or_default() } else { name };
        let best = newest.entry(name).or_insert(*run);
        if rank(run) > rank(best) {
            *best = *run;
        }
    }
    newest.into_values().collect()
}
