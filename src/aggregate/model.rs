//! The cluster: all nodes, and the sums over namespaces and over everything.
//!
//! A slot of the model is open until every live node has pushed its end, or until
//! a while after it, so that a node that hangs costs the others nothing. Open
//! slots are not answered from. What comes late goes into its own slot, and the
//! sums of that slot are worked out again.
//!
//! Time is passed in: the wall clock of this process, milliseconds since the epoch.

mod query;
mod saved;
mod slots;

pub use query::{NodeUse, PodUse};
pub use saved::SavedMember;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use super::custom::{self, Customs};
use super::exposition::Sample;
use super::names::Names;
use super::node::{Change, Entity, Key, Kind, Node, Taken};
use super::objects::Facts;
use crate::push::batch::{Batch, Metric, MetricId, Value, metric};
use crate::push::labels::LabelRules;

/// What namespaces and the cluster have, summed over pods.
pub const SUMMED: [MetricId; 6] = [
    MetricId::CpuUsageRate,
    MetricId::MemoryUsage,
    MetricId::CpuRequest,
    MetricId::CpuLimit,
    MetricId::MemoryRequest,
    MetricId::MemoryLimit,
];

/// Pod → the machines that had it within the window, newest last.
type Homes = BTreeMap<Arc<str>, Vec<Arc<str>>>;

/// Sums in the order of [`SUMMED`]; absent where no pod had a value.
pub type Sums = [Option<u64>; SUMMED.len()];

/// How long, and how fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Time between two slots.
    pub resolution: Duration,
    /// How long slots are kept, and silent nodes.
    pub kept: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options { resolution: Duration::from_secs(60), kept: Duration::from_secs(15 * 60) }
    }
}

/// How it is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// How labels are joined.
    pub labels: LabelRules,
    /// Whether the export stays empty.
    pub no_export: bool,
}

/// Who a question is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Everything.
    Cluster,
    /// One namespace.
    Namespace(Arc<str>),
    /// One machine.
    Node(Arc<str>),
    /// A system container of a machine.
    System(Arc<str>, Arc<str>),
    /// Namespace and name of a pod.
    Pod(Arc<str>, Arc<str>),
    /// Namespace and name of a pod, name of a container.
    Container(Arc<str>, Arc<str>, Arc<str>),
}

/// One machine, as far as it is not in its slots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its name.
    pub name: Arc<str>,
    /// When its last push came, by our clock, milliseconds since the epoch.
    pub heard_ms: u64,
    /// Time of its newest push, by its clock.
    pub pushed_ms: u64,
    /// When what its newest push says was measured, by our clock: when it came,
    /// less what its clock says passed in between. Milliseconds since the epoch.
    pub measured_ms: u64,
    /// How far its clock was ahead of ours when its last push came, milliseconds;
    /// what the push took on its way makes it look behind.
    pub ahead_ms: i64,
}

#[derive(Debug)]
struct Member {
    node: Node,
    status: NodeStatus,
}

/// See the module.
#[derive(Debug)]
pub struct Model {
    options: Options,
    names: Names,
    facts: Facts,
    shown: Shown,
    nodes: RwLock<BTreeMap<Arc<str>, Arc<Mutex<Member>>>>,
    /// By namespace.
    pods: RwLock<BTreeMap<Arc<str>, Homes>>,
    /// Sums of closed slots by namespace.
    sums: RwLock<BTreeMap<u64, HashMap<Arc<str>, Sums>>>,
    /// What programs push of themselves.
    customs: Customs,
    /// Closed slots that something came into late.
    late: Mutex<BTreeSet<u64>>,
    /// How many times something did.
    lates: AtomicU64,
    /// Slots are being closed or summed again: rows may be ahead of their sums.
    summing: AtomicBool,
    /// When those are next worked out again.
    late_due: AtomicU64,
    /// The newest closed slot; 0 before there is one.
    closed: AtomicU64,
    /// When machines began to be heard; 0 where that does not matter.
    began: AtomicU64,
    /// Times an entity found no place.
    unplaced: AtomicU64,
}

// What the locks protect is whole at any time: a panic elsewhere changes nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Model {
    /// A cluster nothing is known of.
    pub fn new(options: Options) -> Model {
        Model {
            options,
            names: Names::default(),
            facts: Facts::default(),
            shown: Shown::default(),
            nodes: RwLock::default(),
            pods: RwLock::default(),
            sums: RwLock::default(),
            customs: Customs::default(),
            late: Mutex::default(),
            lates: AtomicU64::new(0),
            summing: AtomicBool::new(false),
            late_due: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            began: AtomicU64::new(0),
            unplaced: AtomicU64::new(0),
        }
    }

    /// Answers as these say.
    #[must_use]
    pub fn shown_as(self, shown: Shown) -> Model {
        Model { shown, ..self }
    }

    /// Holds what programs push as these say, of which there is none yet.
    #[must_use]
    pub fn with_customs(self, customs: Customs) -> Model {
        Model { customs, ..self }
    }

    /// The machine that is meant: one of that name, else one whose host is called so.
    pub fn node_called(&self, text: &str) -> Arc<str> {
        let is_known = read(&self.nodes).contains_key(text);
        let host = || {
            let all = self.facts.nodes.all();
            let found = all.into_iter().find(|(_, node)| node.hostname.as_deref() == Some(text));
            found.map(|(name, _)| Arc::from(&*name))
        };
        if is_known { Arc::from(text) } else { host().unwrap_or_else(|| Arc::from(text)) }
    }

    /// What a machine's host is called: as the API server tells, else as the machine is.
    pub fn hostname(&self, node: &Arc<str>) -> Arc<str> {
        let told = self.facts.nodes.get(node).and_then(|told| told.hostname.clone());
        told.unwrap_or_else(|| Arc::clone(node))
    }

    /// How it is answered from.
    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// What the API server tells, as far as it is asked.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Time between two slots, milliseconds.
    pub fn resolution_ms(&self) -> u64 {
        millis(self.options.resolution)
    }

    /// How long slots and silent machines are kept, milliseconds.
    pub fn kept_ms(&self) -> u64 {
        millis(self.options.kept)
    }

    /// Whether slots wait for a machine: it was heard within two of them.
    pub fn is_live(&self, node: &NodeStatus, now_ms: u64) -> bool {
        now_ms.saturating_sub(node.heard_ms) < 2 * self.resolution_ms()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        write(&self.nodes).clear();
        write(&self.pods).clear();
        write(&self.sums).clear();
        self.customs.clear();
        lock(&self.late).clear();
        self.late_due.store(0, Ordering::Release);
        self.closed.store(0, Ordering::Release);
        self.names.tidy();
    }

    /// Says that nobody can have been heard before `now_ms`: for two slots who was
    /// heard are not all there are, and every slot waits for the others as long as
    /// for machines that hang.
    pub fn begin(&self, now_ms: u64) {
        self.began.store(now_ms, Ordering::Release);
    }

    /// When machines began to be heard, if that was said.
    pub fn began_ms(&self) -> Option<u64> {
        Some(self.began.load(Ordering::Acquire)).filter(|began| *began > 0)
    }

    /// Takes a push that came at `now_ms`.
    pub fn ingest(&self, batch: &Batch, now_ms: u64) -> Taken {
        let name = self.names.get(batch.node());
        let known = read(&self.nodes).get(&name).cloned();
        let member = known.unwrap_or_else(|| {
            Arc::clone(write(&self.nodes).entry(name).or_insert_with(|| self.member(batch.node())))
        });
        let mut member = lock(&member);
        let Member { node, status } = &mut *member;
        let taken = node.take(batch, &self.names);
        status.heard_ms = now_ms;
        if matches!(taken, Taken::Slot(_)) && batch.time_ms() >= status.pushed_ms {
            // Its moments may have been moved onto our clock, the one of sending not.
            let passed = batch.sent_ms().map_or(0, |sent| sent.saturating_sub(batch.sampled_ms()));
            let passed = passed.min(now_ms.saturating_sub(batch.sampled_ms()));
            status.measured_ms = now_ms.saturating_sub(passed);
        }
        status.pushed_ms = status.pushed_ms.max(batch.time_ms());
        if let Some(sent) = batch.sent_ms() {
            let ahead = i128::from(sent) - i128::from(now_ms);
            status.ahead_ms = i64::try_from(ahead).unwrap_or(i64::MAX);
        }
        self.unplaced.fetch_add(node.unplaced(), Ordering::Relaxed);
        self.move_pods(&status.name, node.changes());
        if let Taken::Slot(slot) = taken
            && slot <= self.closed.load(Ordering::Acquire)
        {
            lock(&self.late).insert(slot);
            self.lates.fetch_add(1, Ordering::AcqRel);
        }
        taken
    }

    fn member(&self, name: &str) -> Arc<Mutex<Member>> {
        let node = Node::new(millis(self.options.resolution), self.steps());
        let status = NodeStatus { name: self.names.get(name), ..NodeStatus::default() };
        Arc::new(Mutex::new(Member { node, status }))
    }

    /// Slots that are kept, and one more for that which is open.
    fn steps(&self) -> usize {
        let steps = millis(self.options.kept) / millis(self.options.resolution);
        usize::try_from(steps).unwrap_or(1).max(1) + 1
    }

    fn move_pods(&self, node: &Arc<str>, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let mut pods = write(&self.pods);
        for change in changes {
            match change {
                Change::Came(namespace, pod) => {
                    let nodes = pods.entry(namespace).or_default().entry(pod).or_default();
                    nodes.retain(|n| n != node);
                    nodes.push(Arc::clone(node));
                }
                Change::Left(namespace, pod) => {
                    let Some(of_namespace) = pods.get_mut(&namespace) else { continue };
                    if let Some(nodes) = of_namespace.get_mut(&pod) {
                        nodes.retain(|n| n != node);
                        if nodes.is_empty() {
                            of_namespace.remove(&pod);
                        }
                    }
                    if of_namespace.is_empty() {
                        pods.remove(&namespace);
                    }
                }
            }
        }
    }

    /// How many times an entity of a push found no place.
    pub fn unplaced(&self) -> u64 {
        self.unplaced.load(Ordering::Relaxed)
    }

    /// Notes how far a machine's clock is ahead of ours, for a push whose times
    /// were corrected before it came here.
    pub fn clock_is_ahead(&self, node: &str, ahead_ms: i64) {
        let member = read(&self.nodes).get(node).cloned();
        if let Some(member) = member {
            lock(&member).status.ahead_ms = ahead_ms;
        }
    }

    /// What programs push of themselves.
    pub fn customs(&self) -> &Customs {
        &self.customs
    }

    /// Takes what a producer pushes of itself at `now_ms`, for the slot that is open then.
    ///
    /// # Errors
    /// Nothing of it was taken.
    pub fn take_custom(
        &self,
        producer: &str,
        samples: &[Sample],
        now_ms: u64,
    ) -> Result<(), custom::Refused> {
        let resolution = millis(self.options.resolution);
        let slot = (now_ms / resolution + 1) * resolution;
        self.customs.take(producer, samples, slot)?;
        // Closed while it was taken: whoever made something of the slot has to look again.
        if slot <= self.closed.load(Ordering::Acquire) {
            self.lates.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// The newest closed slot, milliseconds since the epoch.
    pub fn closed_ms(&self) -> Option<u64> {
        Some(self.closed.load(Ordering::Acquire)).filter(|slot| *slot > 0)
    }

    /// The machines, by name.
    pub fn nodes(&self) -> Vec<NodeStatus> {
        read(&self.nodes).values().map(|m| lock(m).status.clone()).collect()
    }

    /// Namespaces with pods that are listed, in order.
    pub fn namespaces(&self) -> Vec<Arc<str>> {
        let all: Vec<Arc<str>> = read(&self.pods).keys().cloned().collect();
        // Pod by pod: the first is listed, mostly, and whoever pushes is not kept waiting.
        let next = |namespace: &Arc<str>, after: Bound<&str>| {
            let pods = read(&self.pods);
            let found = pods.get(namespace)?.range::<str, _>((after, Bound::Unbounded)).next();
            found.map(|(pod, _)| Arc::clone(pod))
        };
        let listed = |namespace: &Arc<str>| {
            let first = next(namespace, Bound::Unbounded);
            let mut pods = std::iter::successors(first, |last| next(namespace, Bound::Excluded(last)));
            pods.any(|pod| self.is_pod_listed(namespace, &pod))
        };
        all.into_iter().filter(listed).collect()
    }

    /// Pods of a namespace that are listed, in order: who was in one of the newest
    /// two closed slots.
    pub fn pods(&self, namespace: &str) -> Vec<Arc<str>> {
        let all: Vec<Arc<str>> =
            read(&self.pods).get(namespace).into_iter().flat_map(BTreeMap::keys).cloned().collect();
        let namespace: Arc<str> = Arc::from(namespace);
        all.into_iter().filter(|pod| self.is_pod_listed(&namespace, pod)).collect()
    }

    fn is_pod_listed(&self, namespace: &Arc<str>, pod: &Arc<str>) -> bool {
        let (members, key) = self.places(&Subject::Pod(Arc::clone(namespace), Arc::clone(pod)));
        let seen = members.iter().rev().find_map(|member| Some(lock(member).node.find(&key)?.1.seen_ms));
        seen.is_some_and(|seen_ms| self.is_listed(seen_ms))
    }

    /// Containers of a pod, in order.
    pub fn containers(&self, namespace: &str, pod: &str) -> Vec<Arc<str>> {
        let mut found = BTreeSet::new();
        for member in self.homes(namespace, pod) {
            let of_pod = |e: &Entity| {
                let listed = e.key.kind == Kind::Container && self.is_listed(e.seen_ms);
                listed && *e.key.namespace == *namespace && *e.key.pod == *pod
            };
            let member = lock(&member);
            found.extend(
                member.node.entities().filter(|(_, e)| of_pod(e)).map(|(_, e)| Arc::clone(&e.key.container)),
            );
        }
        found.into_iter().collect()
    }

    /// System containers of a machine, in order.
    pub fn system_containers(&self, node: &str) -> Vec<Arc<str>> {
        let Some(member) = read(&self.nodes).get(node).cloned() else { return Vec::new() };
        let member = lock(&member);
        let listed = |e: &Entity| e.key.kind == Kind::System && self.is_listed(e.seen_ms);
        let system = member.node.entities().filter(|(_, e)| listed(e));
        let found: BTreeSet<_> = system.map(|(_, e)| Arc::clone(&e.key.container)).collect();
        found.into_iter().collect()
    }

    /// What is known of a subject beside its figures.
    pub fn describe(&self, subject: &Subject) -> Option<Entity> {
        let (members, key) = self.places(subject);
        members.iter().rev().find_map(|member| Some(lock(member).node.find(&key)?.1.clone()))
    }

    /// Metrics without a label that a subject has, by name.
    pub fn metrics(&self, subject: &Subject) -> Vec<&'static Metric> {
        let until = self.closed.load(Ordering::Acquire);
        let mut found: Vec<&'static Metric> = match subject {
            Subject::Cluster | Subject::Namespace(_) => {
                let has = |id: &&MetricId| !self.summed(subject, **id).is_empty();
                SUMMED.iter().filter(has).filter_map(|id| metric(*id as i32)).collect()
            }
            _ => {
                let (members, key) = self.places(subject);
                let of = |member: &Arc<Mutex<Member>>| {
                    let member = lock(member);
                    let number = member.node.find(&key).map(|(number, _)| number);
                    number.map(|number| member.node.metrics_of(number, until)).unwrap_or_default()
                };
                members.iter().flat_map(of).collect()
            }
        };
        found.sort_by_key(|m| m.name);
        found.dedup_by_key(|m| m.name);
        found
    }

    /// Names of a subject's metrics that nodes named, such as that of a resource asked for.
    pub fn names_of_their_own(&self, subject: &Subject) -> Vec<String> {
        let until = self.closed.load(Ordering::Acquire);
        let (members, key) = self.places(subject);
        let of = |member: &Arc<Mutex<Member>>| {
            let member = lock(member);
            let number = member.node.find(&key).map(|(number, _)| number);
            number.map(|number| member.node.names_of(number, until)).unwrap_or_default()
        };
        members.iter().flat_map(of).collect()
    }

    /// Times and values of closed slots, from old to new; `label` is empty for a
    /// metric that has none.
    pub fn series(&self, subject: &Subject, metric: &Metric, label: &str) -> Vec<(u64, Value)> {
        if matches!(subject, Subject::Cluster | Subject::Namespace(_)) {
            return self.summed(subject, metric.id);
        }
        let until = self.closed.load(Ordering::Acquire);
        let (members, key) = self.places(subject);
        let mut found: Vec<(u64, Value)> = Vec::new();
        // A pod that moved: where both have a slot, the newer home counts.
        for member in members.iter().rev() {
            let member = lock(member);
            let Some((number, _)) = member.node.find(&key) else { continue };
            member.node.series(number, metric, label, |time, value| {
                if time <= until {
                    found.push((time, value));
                }
            });
        }
        // Of one time the newest home's came first, and stays.
        found.sort_by_key(|(time, _)| *time);
        found.dedup_by_key(|(time, _)| *time);
        found
    }

    fn summed(&self, subject: &Subject, id: MetricId) -> Vec<(u64, Value)> {
        let Some(at) = SUMMED.iter().position(|known| *known == id) else { return Vec::new() };
        let of_slot = |sums: &HashMap<Arc<str>, Sums>| match subject {
            Subject::Namespace(namespace) => sums.get(namespace)?.get(at).copied()?,
            _ => {
                let told = sums.values().filter_map(|s| s.get(at).copied()?);
                told.fold(None, |sum: Option<u64>, value| Some(sum.unwrap_or(0).saturating_add(value)))
            }
        };
        let sums = read(&self.sums);
        sums.iter().filter_map(|(time, sums)| Some((*time, Value::Integer(of_slot(sums)?)))).collect()
    }

    /// The machines that may know a subject, the newest last, and its key there.
    fn places(&self, subject: &Subject) -> (Vec<Arc<Mutex<Member>>>, Key) {
        let none: Arc<str> = Arc::from("");
        let key = |kind, namespace: &Arc<str>, pod: &Arc<str>, container: &Arc<str>| Key {
            kind,
            namespace: Arc::clone(namespace),
            pod: Arc::clone(pod),
            container: Arc::clone(container),
        };
        let machine = |name: &str| read(&self.nodes).get(name).cloned().into_iter().collect();
        match subject {
            Subject::Cluster | Subject::Namespace(_) => (Vec::new(), key(Kind::Node, &none, &none, &none)),
            Subject::Node(name) => (machine(name), key(Kind::Node, &none, &none, &none)),
            Subject::System(name, container) => (machine(name), key(Kind::System, &none, &none, container)),
            Subject::Pod(namespace, pod) => {
                (self.homes(namespace, pod), key(Kind::Pod, namespace, pod, &none))
            }
            Subject::Container(namespace, pod, container) => {
                (self.homes(namespace, pod), key(Kind::Container, namespace, pod, container))
            }
        }
    }

    fn homes(&self, namespace: &str, pod: &str) -> Vec<Arc<Mutex<Member>>> {
        let homes =
            read(&self.pods).get(namespace).and_then(|pods| pods.get(pod)).cloned().unwrap_or_default();
        let nodes = read(&self.nodes);
        homes.iter().filter_map(|name| nodes.get(name).cloned()).collect()
    }
}
