//! Objects of the API server, and the little that is kept of each.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::watch::{Object, Store};
use crate::identity::kubelet::ApiPod;
use crate::identity::model::{Labels, Names, PodInfo, Resources, resources};

/// Everything the API server told.
#[derive(Debug, Default)]
pub struct Facts {
    /// Nodes by name.
    pub nodes: Store<Node>,
    /// Pods by namespace and name: `NAMESPACE/NAME`.
    pub pods: Store<Pod>,
    /// Namespaces by name.
    pub namespaces: Store<Namespace>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Whether its kubelet says that it can run pods.
    pub ready: bool,
    /// Its `InternalIP`, else its `ExternalIP`.
    pub address: Option<IpAddr>,
    /// Its address of type `Hostname`.
    pub hostname: Option<Arc<str>>,
    /// Its external id, else what the annotation says.
    pub host_id: Option<Arc<str>>,
    /// Its labels.
    pub labels: Labels,
    /// What it has.
    pub capacity: Resources,
    /// What it gives to pods.
    pub allocatable: Resources,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// The node it was given to.
    pub node: Arc<str>,
    /// Requests, limits, restarts, labels and the like.
    pub info: Arc<PodInfo>,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its UID.
    pub uid: Arc<str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    uid: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// A node as the API server writes it.
#[derive(Debug, Deserialize)]
pub struct ApiNode {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    #[serde(rename = "externalID")]
    external_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    capacity: BTreeMap<String, String>,
    allocatable: BTreeMap<String, String>,
    conditions: Vec<Typed>,
    addresses: Vec<Typed>,
}

/// A condition or an address.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Typed {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    address: String,
}

impl Object for ApiNode {
    type Kept = Node;
    /// The annotation that may hold the host's id.
    type Context = Option<String>;
    const KIND: &'static str = "nodes";
    const SELECTOR: &'static str = "";

    fn key(&self) -> Option<String> {
        (!self.metadata.name.is_empty()).then(|| self.metadata.name.clone())
    }

    fn keep(self, annotation: &Option<String>, names: &mut Names) -> Option<Node> {
        let ApiNode { metadata, spec, status } = self;
        let address = |kind: &str| {
            let told = status.addresses.iter().filter(|a| a.kind == kind);
            told.map(|a| a.address.as_str()).find(|a| !a.is_empty())
        };
        let ip = |kind: &str| address(kind).and_then(|a| a.parse().ok());
        let annotated = annotation.as_ref().and_then(|key| metadata.annotations.get(key));
        let host_id = Some(&spec.external_id).filter(|id| !id.is_empty()).or(annotated);
        let pairs =
            |map: &BTreeMap<String, String>| resources(map.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        Some(Node {
            ready: status.conditions.iter().any(|c| c.kind == "Ready" && c.status == "True"),
            address: ip("InternalIP").or_else(|| ip("ExternalIP")),
            hostname: address("Hostname").map(|name| names.get(name)),
            host_id: host_id.and_then(|id| names.some(id)),
            labels: Labels::new(metadata.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())), names),
            capacity: pairs(&status.capacity),
            allocatable: pairs(&status.allocatable),
        })
    }
}

impl Object for ApiPod {
    type Kept = Pod;
    type Context = ();
    const KIND: &'static str = "pods";
    /// What has ended is measured no more.
    const SELECTOR: &'static str = "status.phase!=Succeeded,status.phase!=Failed";

    fn key(&self) -> Option<String> {
        let (namespace, name) = self.names()?;
        (!namespace.is_empty() && !name.is_empty()).then(|| pod_key(namespace, name))
    }

    fn keep(self, (): &(), names: &mut Names) -> Option<Pod> {
        let node = names.get(self.node());
        Some(Pod { node, info: self.info(names)? })
    }
}

/// The key of a pod.
pub fn pod_key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// A namespace as the API server writes it.
#[derive(Debug, Deserialize)]
pub struct ApiNamespace {
    #[serde(default)]
    metadata: Metadata,
}

impl Object for ApiNamespace {
    type Kept = Namespace;
    type Context = ();
    const KIND: &'static str = "namespaces";
    const SELECTOR: &'static str = "";

    fn key(&self) -> Option<String> {
        (!self.metadata.name.is_empty()).then(|| self.metadata.name.clone())
    }

    fn keep(self, (): &(), names: &mut Names) -> Option<Namespace> {
        names.some(&self.metadata.uid).map(|uid| Namespace { uid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(json: &str, annotation: Option<&str>) -> Node {
        let node: ApiNode = serde_json::from_str(json).unwrap();
        assert_eq!(node.key().as_deref(), Some("n1"));
        node.keep(&annotation.map(str::to_owned), &mut Names::default()).unwrap()
    }

    #[test]
    fn a_node_is_where_its_kubelet_is_reached() {
        let told = node(
            r#"{"metadata":{"name":"n1","uid":"u","labels":{"zone":"z1"},"annotations":{"id":"host-7"},"managedFields":[{"a":1}]},
                "spec":{"podCIDR":"10.0.0.0/24"},
                "status":{"capacity":{"cpu":"4","memory":"8Gi","ephemeral-storage":"100Gi","pods":"110"},
                  "allocatable":{"cpu":"3920m","memory":"7Gi"},
                  "conditions":[{"type":"MemoryPressure","status":"False"},{"type":"Ready","status":"True"}],
                  "addresses":[{"type":"ExternalIP","address":"8.8.8.8"},{"type":"InternalIP","address":"10.1.2.3"},
                    {"type":"Hostname","address":"h1"}]}}"#,
            Some("id"),
        );
        assert_eq!((told.ready, told.address), (true, Some([10, 1, 2, 3].into())));
        assert_eq!((told.hostname.as_deref(), told.host_id.as_deref()), (Some("h1"), Some("host-7")));
        assert_eq!((told.capacity.cpu_milli, told.allocatable.cpu_milli), (Some(4_000), Some(3_920)));
        assert_eq!(told.capacity.ephemeral_storage_bytes, Some(100 << 30));
        assert_eq!(told.labels.get("zone"), Some("z1"));
    }

    #[test]
    fn what_a_node_does_not_tell_is_absent() {
        let bare = node(r#"{"metadata":{"name":"n1"}}"#, None);
        assert_eq!((bare.ready, bare.address, bare.host_id), (false, None, None));
        let outside = node(
            r#"{"metadata":{"name":"n1"},"spec":{"externalID":"i-1"},"status":{"conditions":[{"type":"Ready","status":"Unknown"}],
               "addresses":[{"type":"InternalIP","address":"no address"},{"type":"ExternalIP","address":"2001:db8::1"}]}}"#,
            Some("id"),
        );
        assert_eq!((outside.ready, outside.host_id.as_deref()), (false, Some("i-1")));
        assert_eq!(outside.address.unwrap().to_string(), "2001:db8::1");
    }

    #[test]
    fn pods_and_namespaces_are_stripped() {
        let pod: ApiPod = serde_json::from_str(
            r#"{"metadata":{"name":"p","namespace":"n","uid":"0d1c2b3a-4f5e-4a7b-8c9d-0e1f2a3b4c5d"},
                "spec":{"nodeName":"n1","containers":[{"name":"c","env":[{"name":"SECRET","value":"x"}]}]}}"#,
        )
        .unwrap();
        assert_eq!(pod.key().as_deref(), Some("n/p"));
        let kept = pod.keep(&(), &mut Names::default()).unwrap();
        assert_eq!((&*kept.node, &*kept.info.name), ("n1", "p"));
        let namespace: ApiNamespace =
            serde_json::from_str(r#"{"metadata":{"name":"n","uid":"u1"}}"#).unwrap();
        assert_eq!(&*namespace.keep(&(), &mut Names::default()).unwrap().uid, "u1");
    }
}
