//! What the sources told, merged: an immutable picture for readers.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::model::{ContainerInfo, ContainerState, PodContainer, PodInfo};
use super::path::PodUid;

/// Every pod and container known now. Entries that did not change since the
/// last directory are the same `Arc`, so a reader that keeps them can tell by
/// pointer what changed.
#[derive(Debug, Default)]
pub struct Directory {
    pub(super) generation: u64,
    pub(super) expecting: bool,
    pub(super) containers: HashMap<Arc<str>, Arc<ContainerInfo>>,
    pub(super) pods: HashMap<PodUid, Arc<PodInfo>>,
    /// Containers of which only the beginning of the id is known.
    pub(super) shortened: BTreeMap<Arc<str>, Arc<ContainerInfo>>,
}

impl Directory {
    /// A directory of just these.
    pub fn of(
        containers: impl IntoIterator<Item = ContainerInfo>,
        pods: impl IntoIterator<Item = PodInfo>,
    ) -> Directory {
        let mut directory = Directory::default();
        directory.containers.extend(containers.into_iter().map(|c| (Arc::clone(&c.id), Arc::new(c))));
        directory.pods.extend(pods.into_iter().map(|p| (p.uid, Arc::new(p))));
        directory
    }

    /// Counts up whenever anything in the directory changed.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether some source answers or may yet answer. While none does, waiting
    /// for names is useless.
    pub fn expecting(&self) -> bool {
        self.expecting
    }

    /// The container of this id.
    pub fn container(&self, id: &str) -> Option<&Arc<ContainerInfo>> {
        if let Some(found) = self.containers.get(id) {
            return Some(found);
        }
        let (prefix, found) =
            self.shortened.range::<str, _>((Bound::Unbounded, Bound::Included(id))).next_back()?;
        id.starts_with(&**prefix).then_some(found)
    }

    /// The pod of this UID.
    pub fn pod(&self, uid: PodUid) -> Option<&Arc<PodInfo>> {
        self.pods.get(&uid)
    }

    /// All containers, in no order.
    pub fn containers(&self) -> impl ExactSizeIterator<Item = &Arc<ContainerInfo>> {
        self.containers.values()
    }

    /// All pods, in no order.
    pub fn pods(&self) -> impl ExactSizeIterator<Item = &Arc<PodInfo>> {
        self.pods.values()
    }
}

/// One container from several sources, the best first: fields the first does
/// not tell come from the next that does.
pub(super) fn merge_containers(
    parts: &[Arc<ContainerInfo>],
    provisional: bool,
) -> Option<Arc<ContainerInfo>> {
    let (best, others) = parts.split_first()?;
    if others.is_empty() && best.partial == (best.partial || provisional) {
        return Some(Arc::clone(best));
    }
    let mut merged = ContainerInfo::clone(best);
    for other in others {
        let m = &mut merged;
        let o = &**other;
        fill(&mut m.name, &o.name);
        fill(&mut m.image, &o.image);
        fill(&mut m.pod, &o.pod);
        fill(&mut m.container, &o.container);
        fill(&mut m.network, &o.network);
        fill(&mut m.runtime, &o.runtime);
        fill(&mut m.state, &o.state);
        fill(&mut m.restart_count, &o.restart_count);
        fill(&mut m.pid, &o.pid);
        fill(&mut m.created_ns, &o.created_ns);
        fill(&mut m.started_ns, &o.started_ns);
        fill(&mut m.health, &o.health);
        fill(&mut m.log_path, &o.log_path);
        fill(&mut m.exit_code, &o.exit_code);
        if m.environment.is_empty() {
            m.environment = o.environment.clone();
        }
        if m.mounts.is_empty() {
            m.mounts.clone_from(&o.mounts);
        }
        m.is_sandbox |= o.is_sandbox;
        if m.labels.is_empty() {
            m.labels = o.labels.clone();
        }
    }
    merged.partial |= provisional;
    Some(Arc::new(merged))
}

/// One pod from several sources, the best first.
pub(super) fn merge_pods(parts: &[Arc<PodInfo>]) -> Option<Arc<PodInfo>> {
    let (best, others) = parts.split_first()?;
    if others.is_empty() {
        return Some(Arc::clone(best));
    }
    let mut merged = PodInfo::clone(best);
    for other in others {
        let m = &mut merged;
        let o = &**other;
        fill(&mut m.owner, &o.owner);
        fill(&mut m.qos, &o.qos);
        fill(&mut m.host_network, &o.host_network);
        fill(&mut m.origin, &o.origin);
        fill(&mut m.phase, &o.phase);
        fill(&mut m.created_ns, &o.created_ns);
        fill(&mut m.started_ns, &o.started_ns);
        if m.labels.is_empty() {
            m.labels = o.labels.clone();
        }
        if m.volumes.is_empty() {
            m.volumes.clone_from(&o.volumes);
        }
        if m.containers.is_empty() {
            m.containers.clone_from(&o.containers);
            continue;
        }
        for mine in &mut m.containers {
            if let Some(theirs) = o.container(&mine.name) {
                freshen(mine, theirs);
            }
        }
    }
    Some(Arc::new(merged))
}

/// The kubelet's status may be a poll old; a later run of the container in
/// another source is news.
fn freshen(mine: &mut PodContainer, theirs: &PodContainer) {
    let newer = theirs.restart_count > mine.restart_count;
    if newer || mine.id.is_none() || mine.id == theirs.id && theirs.state == Some(ContainerState::Exited) {
        replace(&mut mine.id, &theirs.id);
        replace(&mut mine.state, &theirs.state);
        replace(&mut mine.restart_count, &theirs.restart_count);
    }
    fill(&mut mine.image, &theirs.image);
    fill(&mut mine.last_termination, &theirs.last_termination);
    if mine.mounts.is_empty() {
        mine.mounts.clone_from(&theirs.mounts);
    }
}

fn fill<T: Clone>(mine: &mut Option<T>, theirs: &Option<T>) {
    if mine.is_none() {
        mine.clone_from(theirs);
    }
}

fn replace<T: Clone>(mine: &mut Option<T>, theirs: &Option<T>) {
    if theirs.is_some() {
        mine.clone_from(theirs);
    }
}
