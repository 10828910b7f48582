//! A snapshot's rows → the pods of this node, each with its containers: what a
//! kubelet lists where cAdvisor lists cgroups.

use std::collections::HashMap;

use crate::snapshot::{CgroupSample, Role, Snapshot};

/// A pod and its rows.
#[derive(Debug, Clone)]
pub struct Pod<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID; of a static pod its hash.
    pub uid: &'a str,
    /// Its own cgroup.
    pub own: Option<&'a CgroupSample>,
    /// Its pause container.
    pub sandbox: Option<&'a CgroupSample>,
    /// Its containers by name, of several runs of one the newest.
    pub containers: Vec<(&'a str, &'a CgroupSample)>,
}

impl<'a> Pod<'a> {
    fn new(uid: &'a str) -> Pod<'a> {
        Pod { namespace: "", name: "", uid, own: None, sandbox: None, containers: Vec::new() }
    }

    /// Nanoseconds since the epoch at which it began: with its sandbox, as far
    /// as that is known.
    pub fn began_ns(&self) -> Option<u64> {
        self.sandbox.and_then(began_ns).or_else(|| self.own.and_then(began_ns))
    }

    /// The row with the pod's interfaces.
    pub fn network(&self) -> Option<&'a CgroupSample> {
        let rows =
            self.sandbox.into_iter().chain(self.own).chain(self.containers.iter().map(|(_, row)| *row));
        rows.into_iter().find(|row| !row.network.is_empty())
    }
}

/// Nanoseconds since the epoch at which a row's container was made, else its cgroup.
pub fn began_ns(row: &CgroupSample) -> Option<u64> {
    let cgroup = &row.cgroup;
    cgroup.part.created_ns.or_else(|| cgroup.created.map(|s| s.saturating_mul(1_000_000_000)))
}

/// The pods whose names are known, by namespace and name. Of two of the same
/// name the older is on its way out, and not listed.
pub fn of(snapshot: &Snapshot) -> Vec<Pod<'_>> {
    let mut by_uid: HashMap<&str, Pod<'_>> = HashMap::new();
    for row in &snapshot.cgroups {
        let part = &row.cgroup.part;
        let Some(uid) = part.pod_uid.as_deref() else { continue };
        if !matches!(part.role, Role::Pod | Role::Sandbox | Role::Container) {
            continue;
        }
        let pod = by_uid.entry(uid).or_insert_with(|| Pod::new(uid));
        let names = &row.cgroup.identity;
        if let (Some(namespace), Some(name)) = (&names.namespace, &names.pod) {
            (pod.namespace, pod.name) = (namespace, name);
        }
        match part.role {
            Role::Pod => newer(&mut pod.own, row),
            Role::Sandbox => newer(&mut pod.sandbox, row),
            _ => {
                let Some(name) = names.container.as_deref() else { continue };
                match pod.containers.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, known)) => *known = newest(known, row),
                    None => pod.containers.push((name, row)),
                }
            }
        }
    }
    let mut pods: Vec<Pod<'_>> = by_uid.into_values().filter(|pod| !pod.name.is_empty()).collect();
    for pod in &mut pods {
        pod.containers.sort_unstable_by_key(|(name, _)| *name);
    }
    let key = |pod: &Pod<'_>| (pod.began_ns(), pod.own.is_some());
    pods.sort_by(|a, b| {
        (a.namespace, a.name).cmp(&(b.namespace, b.name)).then(key(b).cmp(&key(a))).then(a.uid.cmp(b.uid))
    });
    pods.dedup_by(|later, first| (later.namespace, later.name) == (first.namespace, first.name));
    pods
}

fn newer<'a>(slot: &mut Option<&'a CgroupSample>, row: &'a CgroupSample) {
    *slot = Some(slot.map_or(row, |known| newest(known, row)));
}

fn newest<'a>(known: &'a CgroupSample, row: &'a CgroupSample) -> &'a CgroupSample {
    if began_ns(row) >= began_ns(known) { row } else { known }
}
