//! What is asked of the cluster as a whole: who there is, what everybody has in
//! the newest slot, and what the newest pushes say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Member, Model, Subject, Sums, lock, millis, read};
use crate::aggregate::node::{Entity, Figure, Key, Kind, Labels, Row, Usage, UsedPod, Version};
use crate::push::batch::Metric;

/// A machine whose newest push is older than this many of its steps is not
/// answered from between slots, and neither are its pods.
const FRESH_STEPS: u64 = 3;

/// It is after this time at the earliest, milliseconds.
const FRESH_MS: u64 = 90_000;

/// What the newest push of a machine says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeUse {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// When it was measured, by its clock, milliseconds since the epoch.
    pub sampled_ms: u64,
    /// What it uses; a figure that it did not tell is absent.
    pub usage: Usage,
}

/// What the newest push of its machine says of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodUse {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub pod: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// When it was measured, by its machine's clock, milliseconds since the epoch.
    pub sampled_ms: u64,
    /// Its containers by name: those that do not run have no figures.
    pub containers: Vec<(Arc<str>, Usage)>,
}

impl Model {
    /// Whether something last seen in slot `seen_ms` is listed: one missed push
    /// takes nobody out of the lists.
    pub(super) fn is_listed(&self, seen_ms: u64) -> bool {
        let resolution = millis(self.options.resolution);
        self.closed_ms().is_some_and(|closed| seen_ms.saturating_add(resolution) >= closed)
    }

    /// Every machine, system container, pod and container that is listed, the
    /// namespaces of the pods, and the cluster; in no order.
    pub fn subjects(&self) -> Vec<Subject> {
        let mut found = vec![Subject::Cluster];
        let mut namespaces = BTreeSet::new();
        for (name, member) in self.members() {
            let member = lock(&member);
            for (_, entity) in member.node.entities().filter(|(_, e)| self.is_listed(e.seen_ms)) {
                let key = &entity.key;
                let [namespace, pod, container] = [&key.namespace, &key.pod, &key.container].map(Arc::clone);
                if !pod.is_empty() {
                    namespaces.insert(Arc::clone(&namespace));
                }
                found.push(match key.kind {
                    Kind::Node => Subject::Node(Arc::clone(&name)),
                    Kind::System => Subject::System(Arc::clone(&name), container),
                    Kind::Pod => Subject::Pod(namespace, pod),
                    Kind::Container => Subject::Container(namespace, pod, container),
                });
            }
        }
        found.extend(namespaces.into_iter().map(Subject::Namespace));
        found
    }

    /// What is known of a subject beside its figures, and on which machine.
    pub fn found_on(&self, subject: &Subject) -> Option<(Arc<str>, Entity)> {
        let (members, key) = self.places(subject);
        members.iter().rev().find_map(|member| {
            let member = lock(member);
            Some((Arc::clone(&member.status.name), member.node.find(&key)?.1.clone()))
        })
    }

    /// Machines that are listed, by name.
    pub fn listed_nodes(&self) -> Vec<Arc<str>> {
        let listed = |member: &Member| {
            member.node.entities().any(|(_, e)| e.key.kind == Kind::Node && self.is_listed(e.seen_ms))
        };
        let members = self.members();
        members.into_iter().filter(|(_, member)| listed(&lock(member))).map(|(name, _)| name).collect()
    }

    /// Names of the machines, in order: what they have in a slot is asked for one
    /// machine at a time, so that nobody waits for the whole cluster.
    pub fn node_names(&self) -> Vec<Arc<str>> {
        read(&self.nodes).keys().cloned().collect()
    }

    /// Hands everything a machine has of the wanted metrics in the slot to `each`,
    /// entity by entity in the order of their keys.
    pub fn figures_at(
        &self,
        node: &str,
        slot: u64,
        wanted: impl Fn(&Metric) -> bool,
        each: impl FnMut(&Entity, &[Figure<'_>]),
    ) {
        let member = read(&self.nodes).get(node).cloned();
        if let Some(member) = member {
            lock(&member).node.figures_at(slot, wanted, each);
        }
    }

    /// What the closed slots of every machine were made from.
    pub fn versions(&self) -> BTreeMap<u64, BTreeMap<Arc<str>, Version>> {
        let Some(closed) = self.closed_ms() else { return BTreeMap::new() };
        let oldest = closed.saturating_sub(self.kept_ms());
        let mut found: BTreeMap<u64, BTreeMap<Arc<str>, Version>> = BTreeMap::new();
        for (name, member) in self.members() {
            for (slot, version) in lock(&member).node.versions() {
                if slot > oldest && slot <= closed {
                    found.entry(slot).or_default().insert(Arc::clone(&name), version);
                }
            }
        }
        found
    }

    /// Hands every entity that a machine has in a slot to `each`, and what it was
    /// made from.
    pub fn rows_at(&self, node: &str, slot: u64, each: impl FnMut(&Row<'_>)) -> Option<Version> {
        let member = read(&self.nodes).get(node).cloned()?;
        let member = lock(&member);
        member.node.rows_at(slot, each);
        member.node.versions().find(|(at, _)| *at == slot).map(|(_, version)| version)
    }

    /// The sums of a closed slot: of each namespace by name, in the order of
    /// [`SUMMED`](super::SUMMED).
    pub fn sums_at(&self, slot: u64) -> Option<BTreeMap<Arc<str>, Sums>> {
        let sums = read(&self.sums);
        Some(sums.get(&slot)?.iter().map(|(name, sums)| (Arc::clone(name), *sums)).collect())
    }

    /// How many times something came into a closed slot; `None` while sums have still
    /// to be worked out. What is read between two calls that say the same fits together.
    pub fn late(&self) -> Option<u64> {
        let waiting = lock(&self.late);
        let settled = waiting.is_empty() && !self.summing.load(Ordering::Acquire);
        settled.then(|| self.lates.load(Ordering::Acquire))
    }

    /// What machines use, by name; asked at `now_ms`.
    pub fn nodes_in_use(&self, now_ms: u64) -> Vec<NodeUse> {
        self.members().iter().filter_map(|(name, member)| node_use(name, &lock(member), now_ms)).collect()
    }

    /// What one machine uses.
    pub fn node_in_use(&self, name: &str, now_ms: u64) -> Option<NodeUse> {
        let member = read(&self.nodes).get(name).cloned()?;
        let member = lock(&member);
        node_use(&member.status.name, &member, now_ms)
    }

    /// What pods use, by namespace and name, of one namespace or of all.
    pub fn pods_in_use(&self, namespace: Option<&str>, now_ms: u64) -> Vec<PodUse> {
        let members: Vec<_> = match namespace {
            None => self.members().into_iter().map(|(_, member)| member).collect(),
            Some(namespace) => {
                let homes: BTreeSet<Arc<str>> = {
                    let pods = read(&self.pods);
                    pods.get(namespace).into_iter().flat_map(|p| p.values()).flatten().cloned().collect()
                };
                let nodes = read(&self.nodes);
                homes.iter().filter_map(|name| nodes.get(name).cloned()).collect()
            }
        };
        let wanted = |key: &str| namespace.is_none_or(|namespace| *namespace == *key);
        let mut found = Vec::new();
        for member in members {
            found.extend(pod_uses(&lock(&member), now_ms, |key| wanted(&key.namespace)));
        }
        newest(found)
    }

    /// What one pod uses.
    pub fn pod_in_use(&self, namespace: &str, pod: &str, now_ms: u64) -> Option<PodUse> {
        let mut found = Vec::new();
        for member in self.homes(namespace, pod) {
            let wanted = |key: &Key| *key.namespace == *namespace && *key.pod == *pod;
            found.extend(pod_uses(&lock(&member), now_ms, wanted));
        }
        newest(found).into_iter().next()
    }

    fn members(&self) -> Vec<(Arc<str>, Arc<std::sync::Mutex<Member>>)> {
        read(&self.nodes).iter().map(|(name, member)| (Arc::clone(name), Arc::clone(member))).collect()
    }
}

/// By namespace and name. A pod that moved is where it was measured last.
fn newest(mut pods: Vec<PodUse>) -> Vec<PodUse> {
    pods.sort_by(|a, b| {
        (&a.namespace, &a.pod).cmp(&(&b.namespace, &b.pod)).then(b.sampled_ms.cmp(&a.sampled_ms))
    });
    pods.dedup_by(|next, kept| kept.pod == next.pod && kept.namespace == next.namespace);
    pods
}

/// Whether the newest push is young enough, by our clock alone.
fn is_fresh(member: &Member, now_ms: u64) -> bool {
    let latest = member.node.latest();
    let limit = latest.resolution_ms.saturating_mul(FRESH_STEPS).max(FRESH_MS);
    now_ms.saturating_sub(member.status.measured_ms) <= limit
}

fn node_use(name: &Arc<str>, member: &Member, now_ms: u64) -> Option<NodeUse> {
    let (entity, usage) = member.node.used().filter(|_| is_fresh(member, now_ms))?;
    Some(NodeUse {
        name: Arc::clone(name),
        labels: entity.labels.clone(),
        sampled_ms: member.node.latest().sampled_ms,
        usage,
    })
}

fn pod_uses(member: &Member, now_ms: u64, wanted: impl Fn(&Key) -> bool) -> Vec<PodUse> {
    if !is_fresh(member, now_ms) {
        return Vec::new();
    }
    let sampled_ms = member.node.latest().sampled_ms;
    let pod = |UsedPod { namespace, pod, labels, containers }| PodUse {
        namespace,
        pod,
        labels,
        sampled_ms,
        containers,
    };
    member.node.used_by_pods(wanted).into_iter().map(pod).collect()
}
