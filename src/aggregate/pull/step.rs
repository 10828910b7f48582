//! A kubelet's summary and what the API server tells of its pods → a [`Batch`], as
//! an agent on that node would have pushed it.
//!
//! Names come from the API server: the kubelet may tell of no pods but those that
//! were given to its node. Requests, limits and restarts are those of the pods'
//! specs and statuses; containers that wait or crashed are there with these only.
//! A pod with the host's network has no network figures, and neither has one of
//! which that is not known.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::bases::{Bases, Counters, Group, scaled};
use super::summary::{ContainerStats, Cpu, Filesystem, Memory, Network, PodStats, Summary, Swap, Time};
use crate::aggregate::objects::Pod;
use crate::identity::model::{PodContainer, PodInfo, Resources, Role};
use crate::identity::path::{PodUid, Qos};
use crate::push::batch::{Assembler, Batch, Malformed, MetricId, join, proto};
use crate::push::step::{Drops, Limits, hex};
use crate::rate::Window;

/// Bytes of a name in Kubernetes.
const MAX_NAME: usize = 253;

/// A node's clock that is further off ours than this tells nothing of when it
/// measured, milliseconds.
const MAX_OFF_MS: u64 = 120_000;

/// Of the step, not of the node.
#[derive(Debug, Clone)]
pub struct Head<'a> {
    /// The node's name.
    pub node: &'a str,
    /// Of this process.
    pub boot_id: [u8; 16],
    /// Counts up.
    pub sequence: u64,
    /// The moment the step stands for, milliseconds since the epoch.
    pub time_ms: u64,
    /// Time between two steps, milliseconds.
    pub resolution_ms: u64,
    /// When the answer came, milliseconds since the epoch.
    pub now_ms: u64,
}

/// Looks a pod up by namespace and name.
pub type Lookup<'a> = &'a dyn Fn(&str, &str) -> Option<Arc<Pod>>;

/// The batch.
///
/// # Errors
/// It breaks a rule of the format, which is a bug.
pub fn batch(
    head: &Head<'_>,
    summary: &Summary,
    pods: Lookup<'_>,
    bases: &mut Bases,
) -> Result<Batch, Malformed> {
    let limits = Limits::default();
    let mut drops = Drops::default();
    let mut making = Making { head, bases, limits, drops: &mut drops };
    let mut entries = vec![making.node(summary)];
    for container in summary.node.system_containers.iter().flatten() {
        entries.extend(making.system(container));
    }
    let mut whole = Declared::default();
    let mut seen = HashSet::new();
    let told: Vec<(&PodStats, Option<Arc<Pod>>)> = summary
        .pods
        .iter()
        .flatten()
        .map(|stats| (stats, pods(&stats.pod_ref.namespace, &stats.pod_ref.name)))
        .collect();
    for (stats, known) in &told {
        let PodStats { pod_ref, .. } = stats;
        let foreign = known.as_ref().is_some_and(|pod| !pod.node.is_empty() && *pod.node != *head.node);
        let named = is_name(&pod_ref.name) && is_name(&pod_ref.namespace);
        if foreign || !named || !seen.insert((&pod_ref.namespace, &pod_ref.name)) {
            making.drops.entities += 1;
            continue;
        }
        making.pod(stats, known.as_ref().map(|pod| &*pod.info), &mut whole, &mut entries);
    }
    if let Some(node) = entries.first_mut() {
        whole.put(node);
    }
    making.bases.forget(head.now_ms);
    let sampled = summary.node.cpu.as_ref().and_then(|cpu| cpu.time.ms());
    let sampled = sampled.filter(|ms| ms.abs_diff(head.now_ms) <= MAX_OFF_MS && *ms <= head.now_ms);
    assemble(head, sampled.unwrap_or(head.now_ms), entries, limits, drops)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(|c| c.is_control() || c == '/')
}

fn assemble(
    head: &Head<'_>,
    sampled_ms: u64,
    entries: Vec<Entry<'_>>,
    limits: Limits,
    mut drops: Drops,
) -> Result<Batch, Malformed> {
    let mut batch = Assembler::new(proto::Batch {
        node: head.node.to_owned(),
        boot_id: head.boot_id.to_vec(),
        sequence: head.sequence,
        time_ms: head.time_ms,
        resolution_ms: head.resolution_ms,
        sampled_ms,
        sent_ms: head.now_ms,
        agent: concat!("nodegauge ", env!("CARGO_PKG_VERSION"), ", pulled").to_owned(),
        ..proto::Batch::default()
    });
    for (at, entry) in entries.into_iter().enumerate() {
        if at >= limits.entities || batch.text() >= limits.text {
            drops.entities += 1;
            continue;
        }
        if batch.values() + entry.values.len() > limits.values {
            drops.series += u64::try_from(entry.values.len()).unwrap_or(u64::MAX);
            continue;
        }
        let Entry {
            kind,
            names: [namespace, pod, container],
            image,
            info,
            uid,
            start_ms,
            window,
            values,
            customs,
        } = entry;
        let spec = info.filter(|_| kind == proto::EntityKind::Container);
        let id = spec.and_then(|info| info.container(container)?.id.as_deref());
        let container_id = id.and_then(hex);
        let container_id_text = match (id, &container_id) {
            (Some(id), None) => batch.string(limits.cut(id, &mut drops)),
            _ => 0,
        };
        let [namespace, pod, container, image] =
            [namespace, pod, container, image].map(|text| batch.string(limits.cut(text, &mut drops)));
        let labelled = info.filter(|_| kind == proto::EntityKind::Pod);
        let labels = limits.labels(labelled.map(|info| &info.labels), &mut batch, &mut drops);
        let window = window.map_or(0, |window| batch.window(window.ns()));
        let qos = match info.and_then(|info| info.qos) {
            None => proto::Qos::Unspecified,
            Some(Qos::Guaranteed) => proto::Qos::Guaranteed,
            Some(Qos::Burstable) => proto::Qos::Burstable,
            Some(Qos::BestEffort) => proto::Qos::BestEffort,
        };
        batch.entity(proto::Entity {
            kind: kind.into(),
            namespace,
            pod,
            container,
            image,
            pod_uid: uid.map(|uid| uid.to_bytes().to_vec()).unwrap_or_default(),
            static_pod: uid.is_some_and(PodUid::is_static),
            container_id: container_id.unwrap_or_default(),
            container_id_text,
            start_ms: start_ms.unwrap_or(0),
            qos: qos.into(),
            labels,
            window,
            host_network: info.and_then(|info| info.host_network) == Some(true),
            ..proto::Entity::default()
        });
        for (id, label, value) in values {
            if label.is_empty() {
                batch.integer(id, value);
            } else {
                let label = batch.string(limits.cut(&label, &mut drops));
                batch.labelled(id, label, value);
            }
        }
        for (name, value) in customs {
            let name = batch.string(limits.cut(name, &mut drops));
            batch.labelled_double(MetricId::Custom, name, value);
        }
    }
    drops.tell(&mut batch);
    batch.finish()
}

/// One entity and its values.
#[derive(Debug)]
struct Entry<'a> {
    kind: proto::EntityKind,
    /// Namespace, pod and container.
    names: [&'a str; 3],
    image: &'a str,
    info: Option<&'a PodInfo>,
    uid: Option<PodUid>,
    start_ms: Option<u64>,
    window: Option<Window>,
    values: Vec<(MetricId, String, u64)>,
    /// What it told of itself, by name.
    customs: BTreeMap<&'a str, f64>,
}

impl<'a> Entry<'a> {
    fn new(kind: proto::EntityKind, names: [&'a str; 3], start: Time) -> Entry<'a> {
        Entry {
            kind,
            names,
            image: "",
            info: None,
            uid: None,
            start_ms: start.ms(),
            window: None,
            values: Vec::new(),
            customs: BTreeMap::new(),
        }
    }

    fn put(&mut self, id: MetricId, value: Option<u64>) {
        self.values.extend(value.map(|value| (id, String::new(), value)));
    }

    fn get(&self, wanted: MetricId) -> Option<u64> {
        self.values.iter().find(|(id, label, _)| *id == wanted && label.is_empty()).map(|(.., value)| *value)
    }

    /// What something takes up, and the filesystem it is on.
    fn files(&mut self, label: &str, files: Option<&Filesystem>) {
        let Some(files) = files else { return };
        for (id, value) in [
            (MetricId::FilesystemUsage, files.used_bytes),
            (MetricId::FilesystemLimit, files.capacity_bytes),
            (MetricId::FilesystemAvailable, files.available_bytes),
            (MetricId::FilesystemInodes, files.inodes),
            (MetricId::FilesystemInodesFree, files.inodes_free),
        ] {
            self.values.extend(value.map(|value| (id, label.to_owned(), value)));
        }
    }
}

/// What specs and statuses say of a container, or of several together.
#[derive(Debug, Clone, Default)]
struct Declared<'a> {
    requests: Resources,
    limits: Resources,
    /// Requests of other resources.
    others: BTreeMap<&'a str, u64>,
    restarts: Option<u64>,
}

impl<'a> Declared<'a> {
    fn of(container: &'a PodContainer) -> Declared<'a> {
        let restarts = container.restart_count.map(u64::from);
        let others = container.other_requests.iter().map(|(name, count)| (&**name, *count)).collect();
        Declared { requests: container.requests, limits: container.limits, others, restarts }
    }

    fn values(&self) -> [(MetricId, Option<u64>); 7] {
        let Declared { requests, limits, restarts, .. } = self;
        [
            (MetricId::RestartCount, *restarts),
            (MetricId::CpuRequest, requests.cpu_milli),
            (MetricId::CpuLimit, limits.cpu_milli),
            (MetricId::MemoryRequest, requests.memory_bytes),
            (MetricId::MemoryLimit, limits.memory_bytes),
            (MetricId::EphemeralStorageRequest, requests.ephemeral_storage_bytes),
            (MetricId::EphemeralStorageLimit, limits.ephemeral_storage_bytes),
        ]
    }

    /// Adds up what is known; what nobody tells stays unknown.
    fn add(&mut self, other: &Declared<'a>) {
        let sum = |mine: &mut Option<u64>, theirs: Option<u64>| {
            *mine = theirs.map(|theirs| mine.unwrap_or(0).saturating_add(theirs)).or(*mine);
        };
        for (mine, theirs) in [(&mut self.requests, other.requests), (&mut self.limits, other.limits)] {
            sum(&mut mine.cpu_milli, theirs.cpu_milli);
            sum(&mut mine.memory_bytes, theirs.memory_bytes);
            sum(&mut mine.ephemeral_storage_bytes, theirs.ephemeral_storage_bytes);
        }
        for (name, count) in &other.others {
            let mine = self.others.entry(name).or_default();
            *mine = mine.saturating_add(*count);
        }
        sum(&mut self.restarts, other.restarts);
    }

    /// Nodes have no restarts, and as with Heapster no sums of other resources.
    fn put(&self, entry: &mut Entry<'_>) {
        let is_node = entry.kind == proto::EntityKind::Node;
        for (id, value) in self.values() {
            entry.put(id, value.filter(|_| !is_node || id != MetricId::RestartCount));
        }
        let others = self.others.iter().filter(|_| !is_node);
        entry
            .values
            .extend(others.map(|(name, count)| (MetricId::ResourceRequest, (*name).to_owned(), *count)));
    }
}

/// Counters of a group, each with its rate.
type Rated = [(MetricId, MetricId)];

const CPU: &Rated = &[(MetricId::CpuUsage, MetricId::CpuUsageRate)];
const FAULTS: &Rated = &[
    (MetricId::MemoryPageFaults, MetricId::MemoryPageFaultsRate),
    (MetricId::MemoryMajorPageFaults, MetricId::MemoryMajorPageFaultsRate),
];
const TRAFFIC: &Rated = &[
    (MetricId::NetworkRx, MetricId::NetworkRxRate),
    (MetricId::NetworkRxErrors, MetricId::NetworkRxErrorsRate),
    (MetricId::NetworkTx, MetricId::NetworkTxRate),
    (MetricId::NetworkTxErrors, MetricId::NetworkTxErrorsRate),
];

/// What adds up where a pod has no figures of its own: gauges, and rates. Its
/// counters do not, since containers end.
const SUMMED: [MetricId; 6] = [
    MetricId::CpuUsageRate,
    MetricId::MemoryUsage,
    MetricId::MemoryWorkingSet,
    MetricId::MemoryRss,
    MetricId::MemoryPageFaultsRate,
    MetricId::MemoryMajorPageFaultsRate,
];

struct Making<'b> {
    head: &'b Head<'b>,
    bases: &'b mut Bases,
    limits: Limits,
    drops: &'b mut Drops,
}

impl Making<'_> {
    fn node<'a>(&mut self, summary: &'a Summary) -> Entry<'a> {
        let node = &summary.node;
        let mut entry = Entry::new(proto::EntityKind::Node, [""; 3], node.start_time);
        self.age(&mut entry);
        self.used(&mut entry, "n", (node.cpu.as_ref(), node.memory.as_ref(), node.swap.as_ref()));
        self.traffic(&mut entry, "n", node.network.as_ref());
        entry.files("/", node.fs.as_ref());
        entry.put(MetricId::EphemeralStorageUsage, node.fs.as_ref().and_then(|fs| fs.used_bytes));
        entry
    }

    fn system<'a>(&mut self, stats: &'a ContainerStats) -> Option<Entry<'a>> {
        // Heapster's names.
        let name = match stats.name.as_str() {
            "runtime" => "docker-daemon",
            "misc" => "system",
            name => name,
        };
        if !is_name(name) {
            self.drops.entities += 1;
            return None;
        }
        let mut entry = Entry::new(proto::EntityKind::System, ["", "", name], stats.start_time);
        self.age(&mut entry);
        let used = (stats.cpu.as_ref(), stats.memory.as_ref(), stats.swap.as_ref());
        self.used(&mut entry, &format!("s/{name}"), used);
        Some(entry)
    }

    /// The pod, then its containers.
    fn pod<'a>(
        &mut self,
        stats: &'a PodStats,
        info: Option<&'a PodInfo>,
        of_node: &mut Declared<'a>,
        entries: &mut Vec<Entry<'a>>,
    ) {
        let PodStats { pod_ref, .. } = stats;
        let told = PodUid::parse(&pod_ref.uid);
        // One of the same name before or after it is another pod.
        let info = info.filter(|info| told.is_none_or(|told| told == info.uid));
        let (namespace, name) = (pod_ref.namespace.as_str(), pod_ref.name.as_str());
        let mut pod = Entry::new(proto::EntityKind::Pod, [namespace, name, ""], stats.start_time);
        (pod.uid, pod.info) = (told.or(info.map(|info| info.uid)), info);
        self.age(&mut pod);
        let id = format!("p/{namespace}/{name}/{}", pod_ref.uid);
        self.used(&mut pod, &id, (stats.cpu.as_ref(), stats.memory.as_ref(), stats.swap.as_ref()));
        let mut whole = Declared::default();
        let mut containers: HashMap<&str, Entry<'a>> = HashMap::new();
        for container in stats.containers.iter().flatten() {
            if !is_name(&container.name) || containers.contains_key(container.name.as_str()) {
                self.drops.entities += 1;
                continue;
            }
            let spec = info.and_then(|info| info.container(&container.name));
            let mut entry = self.container(&pod, container, &id);
            entry.image = spec.and_then(|spec| spec.image.as_deref()).unwrap_or_default();
            let declared = spec.map(Declared::of).unwrap_or_default();
            declared.put(&mut entry);
            whole.add(&declared);
            for (name, value) in &entry.customs {
                *pod.customs.entry(name).or_default() += value;
            }
            containers.insert(&container.name, entry);
        }
        if stats.cpu.is_none() && stats.memory.is_none() {
            sum(&mut pod, &containers);
        }
        if info.is_some_and(|info| info.host_network == Some(false)) {
            self.traffic(&mut pod, &id, stats.network.as_ref());
        }
        self.storage(&mut pod, stats);
        // Those that wait or crashed are not measured; only the API server tells of them.
        for spec in info.map(|info| info.containers.as_slice()).unwrap_or_default() {
            let runs_on = matches!(spec.role, Some(Role::App | Role::Sidecar));
            if !runs_on || containers.contains_key(&*spec.name) {
                continue;
            }
            let names = [namespace, name, &*spec.name];
            let mut entry = Entry::new(proto::EntityKind::Container, names, Time(None));
            (entry.uid, entry.info) = (pod.uid, info);
            entry.image = spec.image.as_deref().unwrap_or_default();
            let declared = Declared::of(spec);
            declared.put(&mut entry);
            whole.add(&declared);
            containers.insert(&spec.name, entry);
        }
        whole.put(&mut pod);
        of_node.add(&whole);
        entries.push(pod);
        let mut containers: Vec<_> = containers.into_iter().collect();
        containers.sort_by_key(|(name, _)| *name);
        entries.extend(containers.into_iter().map(|(_, entry)| entry));
    }

    fn container<'a>(&mut self, pod: &Entry<'a>, stats: &'a ContainerStats, id: &str) -> Entry<'a> {
        let [namespace, name, _] = pod.names;
        let names = [namespace, name, stats.name.as_str()];
        let mut entry = Entry::new(proto::EntityKind::Container, names, stats.start_time);
        (entry.uid, entry.info) = (pod.uid, pod.info);
        self.age(&mut entry);
        let used = (stats.cpu.as_ref(), stats.memory.as_ref(), stats.swap.as_ref());
        self.used(&mut entry, &format!("{id}/{}", stats.name), used);
        entry.files("/", stats.rootfs.as_ref());
        entry.files("logs", stats.logs.as_ref());
        self.extras(&mut entry, stats);
        let used = |files: &Option<Filesystem>| files.as_ref().and_then(|files| files.used_bytes);
        let both = used(&stats.rootfs).zip(used(&stats.logs));
        entry.put(MetricId::EphemeralStorageUsage, both.map(|(layer, logs)| layer.saturating_add(logs)));
        entry
    }

    /// What only kubelets of long ago tell: accelerators, and figures of the program's own.
    fn extras<'a>(&mut self, entry: &mut Entry<'a>, stats: &'a ContainerStats) {
        let mut seen = HashSet::new();
        let most = self.limits.devices;
        for card in stats.accelerators.iter().flatten() {
            let said = [&card.make, &card.model, &card.id];
            let named = !card.id.is_empty() && said.iter().all(|text| !text.contains(char::is_control));
            if !named || seen.len() >= most || !seen.insert(said) {
                self.drops.devices += 1;
                continue;
            }
            let text = join(said.map(String::as_str));
            for (id, value) in [
                (MetricId::AcceleratorMemoryTotal, card.memory_total),
                (MetricId::AcceleratorMemoryUsed, card.memory_used),
                (MetricId::AcceleratorDutyCycle, card.duty_cycle),
            ] {
                entry.values.extend(value.map(|value| (id, text.clone(), value)));
            }
        }
        for told in stats.user_defined_metrics.iter().flatten() {
            let named = !told.name.is_empty() && !told.name.contains(char::is_control);
            let Some(value) = told.value.filter(|value| value.is_finite() && named) else { continue };
            if entry.customs.len() < most {
                entry.customs.insert(&told.name, value);
            } else {
                self.drops.series += 1;
            }
        }
    }

    fn storage(&mut self, pod: &mut Entry<'_>, stats: &PodStats) {
        let volumes = stats.volume.as_deref().unwrap_or_default();
        let most = self.limits.devices;
        self.drops.devices += u64::try_from(volumes.len().saturating_sub(most)).unwrap_or(u64::MAX);
        let mut seen = HashSet::new();
        for volume in volumes.iter().take(most).filter(|volume| is_name(&volume.name)) {
            if seen.insert(&volume.name) {
                pod.files(&format!("Volume:{}", volume.name), Some(&volume.usage));
            }
        }
        let used = stats.ephemeral_storage.as_ref().and_then(|storage| storage.used_bytes);
        pod.put(MetricId::EphemeralStorageUsage, used);
    }

    fn age(&self, entry: &mut Entry<'_>) {
        // A clock that was set since has no age to tell.
        entry.put(MetricId::Uptime, entry.start_ms.and_then(|start| self.head.now_ms.checked_sub(start)));
    }

    fn used(
        &mut self,
        entry: &mut Entry<'_>,
        id: &str,
        (cpu, memory, swap): (Option<&Cpu>, Option<&Memory>, Option<&Swap>),
    ) {
        if let Some(cpu) = cpu {
            let counters = [cpu.usage_core_nano_seconds, None, None, None];
            self.counted(entry, (id, Group::Cpu), cpu.time, counters, CPU);
        }
        if let Some(memory) = memory {
            entry.put(MetricId::MemoryUsage, memory.usage_bytes);
            // Told as zero where there are no figures of memory at all.
            let told = memory.usage_bytes.is_some() || memory.rss_bytes.is_some();
            let working_set = memory.working_set_bytes.filter(|bytes| told || *bytes > 0);
            entry.put(MetricId::MemoryWorkingSet, working_set);
            entry.put(MetricId::MemoryRss, memory.rss_bytes);
            let counters = [memory.page_faults, memory.major_page_faults, None, None];
            self.counted(entry, (id, Group::Memory), memory.time, counters, FAULTS);
        }
        entry.put(MetricId::MemorySwap, swap.and_then(|swap| swap.swap_usage_bytes));
    }

    fn traffic(&mut self, entry: &mut Entry<'_>, id: &str, network: Option<&Network>) {
        if let Some(network) = network {
            self.counted(entry, (id, Group::Network), network.time, network.totals(), TRAFFIC);
        }
    }

    /// Puts counters and how much they rose. An entity has one window: that of its
    /// first group that rose; others are put as if they had been read with it.
    fn counted(
        &mut self,
        entry: &mut Entry<'_>,
        of: (&str, Group),
        time: Time,
        counters: Counters,
        rated: &Rated,
    ) {
        for ((counter, _), value) in rated.iter().zip(counters) {
            entry.put(*counter, value);
        }
        let Some(taken_ns) = time.0 else { return };
        let rise = self.bases.rise(of, entry.start_ms, taken_ns, counters, self.head.now_ms);
        let Some(rise) = rise else { return };
        let window = *entry.window.get_or_insert(rise.window);
        for ((_, rate), increase) in rated.iter().zip(rise.increases) {
            entry.put(*rate, increase.map(|increase| scaled(increase, rise.window, window)));
        }
    }
}

/// A pod of a kubelet that tells of containers only uses what these use. A sum in
/// which one is missing would be a wrong one.
fn sum(pod: &mut Entry<'_>, containers: &HashMap<&str, Entry<'_>>) {
    let measured: Vec<&Entry<'_>> = containers.values().collect();
    let windows: Option<Vec<Window>> = measured.iter().map(|c| c.window).collect();
    let window = windows.and_then(|windows| windows.into_iter().max());
    for id in SUMMED {
        let rate = crate::push::batch::metric(id.into()).is_some_and(|m| m.is_rate());
        let value = |entry: &&Entry<'_>| {
            let value = entry.get(id)?;
            if !rate {
                return Some(value);
            }
            Some(scaled(value, entry.window?, window?))
        };
        let sum = measured.iter().map(value).try_fold(0_u64, |sum, value| Some(sum.saturating_add(value?)));
        pod.put(id, sum.filter(|_| !measured.is_empty()));
    }
    pod.window = pod.window.or(window);
}
