//! Which pods a node has, and what changed of that: so that nobody has to compare
//! all of them with each push.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Key, Kind};

/// Namespace and name.
type Pod = (Arc<str>, Arc<str>);

/// A pod that came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The first of its entities is here.
    Came(Arc<str>, Arc<str>),
    /// None is here any more.
    Left(Arc<str>, Arc<str>),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Population {
    /// How many entities each pod has: itself and its containers.
    pods: BTreeMap<Pod, u32>,
    changes: Vec<Change>,
}

fn pod_of(key: &Key) -> Option<Pod> {
    let is_of_pod = matches!(key.kind, Kind::Pod | Kind::Container);
    is_of_pod.then(|| (Arc::clone(&key.namespace), Arc::clone(&key.pod)))
}

impl Population {
    pub(super) fn came(&mut self, key: &Key) {
        let Some(pod) = pod_of(key) else { return };
        let count = self.pods.entry(pod).or_default();
        *count += 1;
        if *count == 1 {
            self.changes.push(Change::Came(Arc::clone(&key.namespace), Arc::clone(&key.pod)));
        }
    }

    pub(super) fn left(&mut self, key: &Key) {
        let Some(pod) = pod_of(key) else { return };
        let Some(count) = self.pods.get_mut(&pod) else { return };
        *count -= 1;
        if *count == 0 {
            self.pods.remove(&pod);
            self.changes.push(Change::Left(pod.0, pod.1));
        }
    }

    /// What changed since this was last asked, in order.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.keys()
    }
}
