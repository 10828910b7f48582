//! A Kubernetes Pod, from JSON or protobuf, as what we keep of it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::identity::grpc::proto::core as pb;
use crate::identity::model::{
    ContainerInfo, ContainerState, Labels, Names, Owner, PodContainer, PodInfo, PodOrigin, PodRef, PodVolume,
    Role, docker_style_name, other_resources, resources, time_ns,
};
use crate::identity::path::{PodUid, Qos, Runtime};
use crate::identity::store::View;

impl From<String> for pb::Time {
    fn from(text: String) -> Self {
        let ns = time_ns(&text).unwrap_or(0);
        // Both parts are in range: ns is below 2^64.
        pb::Time {
            seconds: i64::try_from(ns / 1_000_000_000).unwrap_or(0),
            nanos: i32::try_from(ns % 1_000_000_000).unwrap_or(0),
        }
    }
}

impl From<String> for pb::Quantity {
    fn from(string: String) -> Self {
        pb::Quantity { string }
    }
}

/// Adds a pod and its containers to a view. Returns whether it could be used:
/// a pod needs a name.
pub(in crate::identity) fn add(pod: pb::Pod, view: &mut View, names: &mut Names) -> bool {
    let metadata = pod.metadata.unwrap_or_default();
    let spec = pod.spec.unwrap_or_default();
    let status = pod.status.unwrap_or_default();
    if metadata.name.is_empty() || metadata.namespace.is_empty() {
        return false;
    }
    let uid = uid(&metadata);
    let reference =
        PodRef { uid, namespace: names.get(&metadata.namespace), name: names.get(&metadata.name) };

    let mut statuses: HashMap<&str, &pb::ContainerStatus> = HashMap::new();
    for list in
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses]
    {
        statuses.extend(list.iter().map(|s| (s.name.as_str(), s)));
    }
    let init = spec.init_containers.iter().map(|c| {
        // An init container that is always restarted runs for the pod's life.
        (c, if c.restart_policy == "Always" { Role::Sidecar } else { Role::Init })
    });
    let app = spec.containers.iter().map(|c| (c, Role::App));
    let ephemeral =
        spec.ephemeral_containers.iter().filter_map(|c| Some((c.common.as_ref()?, Role::Ephemeral)));
    let mut containers = Vec::new();
    for (container, role) in init.chain(app).chain(ephemeral) {
        let status = statuses.get(container.name.as_str()).copied();
        containers.push(pod_container(container, role, status, names));
        if let Some(info) = status.and_then(|s| container_info(s, &reference, names)) {
            view.containers.insert(Arc::clone(&info.id), Arc::new(info));
        }
    }

    let Some(uid) = uid else { return true };
    let owner = metadata.owner_references.iter().find(|o| o.controller);
    let pairs = metadata.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    let info = PodInfo {
        labels: Labels::new(pairs, names),
        owner: owner.map(|o| Owner { kind: names.get(&o.kind), name: names.get(&o.name) }),
        qos: Qos::from_name(&status.qos_class),
        host_network: Some(spec.host_network),
        origin: Some(origin(&metadata, uid)),
        phase: names.some(&status.phase),
        created_ns: metadata.creation_timestamp.and_then(ns),
        started_ns: status.start_time.and_then(ns),
        deleting: metadata.deletion_timestamp.is_some(),
        containers,
        volumes: spec.volumes.iter().map(|v| volume(v, &metadata.name, names)).collect(),
        ..PodInfo::new(uid, reference.namespace, reference.name)
    };
    view.pods.insert(uid, Arc::new(info));
    true
}

/// A volume, with the name of its claim; of a generic ephemeral one that of the claim
/// that is made for it.
fn volume(volume: &pb::Volume, pod: &str, names: &mut Names) -> PodVolume {
    let source = volume.source.as_ref();
    let named = source.and_then(|s| s.persistent_volume_claim.as_ref()).map(|claim| claim.claim_name.clone());
    let made = || source.and_then(|s| s.ephemeral.as_ref()).map(|_| format!("{pod}-{}", volume.name));
    let claim = named.or_else(made).filter(|claim| !claim.is_empty());
    PodVolume { name: names.get(&volume.name), claim: claim.map(|claim| names.get(&claim)) }
}

/// The UID that the pod's cgroup carries: of a mirror pod that of its static pod.
pub(in crate::identity) fn uid(metadata: &pb::ObjectMeta) -> Option<PodUid> {
    PodUid::parse(metadata.annotations.get("kubernetes.io/config.mirror").unwrap_or(&metadata.uid))
}

fn origin(metadata: &pb::ObjectMeta, uid: PodUid) -> PodOrigin {
    let annotation = |key: &str| metadata.annotations.get(key).map(String::as_str);
    if annotation("kubernetes.io/config.mirror").is_some() {
        return PodOrigin::Mirror;
    }
    match annotation("kubernetes.io/config.source") {
        Some("api") => PodOrigin::Api,
        Some(_) => PodOrigin::Static,
        None if uid.is_static() => PodOrigin::Static,
        None => PodOrigin::Api,
    }
}

fn pod_container(
    spec: &pb::Container,
    role: Role,
    status: Option<&pb::ContainerStatus>,
    names: &mut Names,
) -> PodContainer {
    fn pairs(map: &HashMap<String, pb::Quantity>) -> impl Iterator<Item = (&str, &str)> {
        map.iter().map(|(k, v)| (k.as_str(), v.string.as_str()))
    }
    let declared = spec.resources.as_ref();
    let last = status.and_then(|s| s.last_state.as_ref()).and_then(|s| s.terminated.as_ref());
    PodContainer {
        id: status.and_then(|s| split_id(&s.container_id)).map(|(_, id)| names.get(id)),
        image: status.and_then(|s| names.some(&s.image)).or_else(|| names.some(&spec.image)),
        requests: declared.map(|r| resources(pairs(&r.requests))).unwrap_or_default(),
        limits: declared.map(|r| resources(pairs(&r.limits))).unwrap_or_default(),
        other_requests: declared.map(|r| other_resources(pairs(&r.requests), names)).unwrap_or_default(),
        restart_count: status.and_then(|s| u32::try_from(s.restart_count).ok()),
        state: status.and_then(|s| state(s.state.as_ref())),
        last_termination: last.and_then(|t| names.some(&t.reason)),
        mounts: spec.volume_mounts.iter().map(|m| (names.get(&m.mount_path), names.get(&m.name))).collect(),
        ..PodContainer::new(names.get(&spec.name), Some(role))
    }
}

fn state(state: Option<&pb::ContainerState>) -> Option<ContainerState> {
    let state = state?;
    if state.running.is_some() {
        Some(ContainerState::Running)
    } else if state.terminated.is_some() {
        Some(ContainerState::Exited)
    } else {
        Some(ContainerState::Waiting)
    }
}

/// The container that a status's id names, with the labels its runtime gives it.
fn container_info(status: &pb::ContainerStatus, pod: &PodRef, names: &mut Names) -> Option<ContainerInfo> {
    let (scheme, id) = split_id(&status.container_id)?;
    let runtime = match scheme {
        "containerd" => Some(Runtime::Containerd),
        "cri-o" => Some(Runtime::Crio),
        "docker" => Some(Runtime::Docker),
        _ => None,
    };
    let restarts = u32::try_from(status.restart_count).ok();
    let docker_style = matches!(runtime, Some(Runtime::Crio | Runtime::Docker));
    let uid = pod.uid.map(|u| u.to_string()).unwrap_or_default();
    let labels = [
        ("io.kubernetes.container.name", status.name.as_str()),
        ("io.kubernetes.pod.name", &*pod.name),
        ("io.kubernetes.pod.namespace", &*pod.namespace),
        ("io.kubernetes.pod.uid", uid.as_str()),
    ];
    let running = status.state.as_ref().and_then(|s| s.running.as_ref());
    let ended = status.state.as_ref().and_then(|s| s.terminated.as_ref());
    Some(ContainerInfo {
        name: match docker_style {
            true => names.some(&docker_style_name(&status.name, pod, restarts.unwrap_or(0))),
            false => Some(names.get(id)),
        },
        image: names.some(&status.image),
        labels: Labels::new(labels.into_iter().filter(|(_, value)| !value.is_empty()), names),
        pod: Some(pod.clone()),
        container: names.some(&status.name),
        runtime,
        state: state(status.state.as_ref()),
        restart_count: restarts,
        started_ns: running.and_then(|r| r.started_at).and_then(ns),
        exit_code: ended.map(|t| t.exit_code),
        ..ContainerInfo::new(names.get(id))
    })
}

/// `containerd://<id>`; empty until the container was created.
fn split_id(container_id: &str) -> Option<(&str, &str)> {
    container_id.split_once("://").filter(|(_, id)| !id.is_empty())
}

fn ns(time: pb::Time) -> Option<u64> {
    let seconds = u64::try_from(time.seconds).ok().filter(|s| *s > 0)?;
    seconds.checked_mul(1_000_000_000)?.checked_add(u64::try_from(time.nanos).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> View {
        let mut view = View::default();
        let pod: pb::Pod = serde_json::from_str(json).unwrap();
        assert!(add(pod, &mut view, &mut Names::default()));
        view
    }

    #[test]
    fn a_pod_of_the_api_server() {
        let view = read(
            r#"{"metadata":{"name":"web-1","namespace":"shop","uid":"0d1c2b3a-4f5e-4a7b-8c9d-0e1f2a3b4c5d",
                "creationTimestamp":"2026-08-20T12:44:28Z","labels":{"app":"web"},
                "annotations":{"kubernetes.io/config.source":"api"},
                "ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-7","controller":true}]},
              "spec":{"nodeName":"n1","volumes":[{"name":"v","emptyDir":{}},
                  {"name":"data","persistentVolumeClaim":{"claimName":"orders"}},{"name":"tmp","ephemeral":{"volumeClaimTemplate":{}}}],
                "initContainers":[{"name":"setup","image":"a"},{"name":"proxy","image":"b","restartPolicy":"Always"}],
                "containers":[{"name":"web","image":"c","env":[{"name":"X","value":"{]}"}],"volumeMounts":[{"name":"data","mountPath":"/data"}],
                  "resources":{"limits":{"cpu":"1500m","memory":"128Mi"},"requests":{"cpu":"100m","ephemeral-storage":"1Gi"}}}],
                "ephemeralContainers":[{"name":"debug","image":"d","targetContainerName":"web"}]},
              "status":{"phase":"Running","qosClass":"Burstable","startTime":"2026-08-20T12:44:29Z",
                "initContainerStatuses":[{"name":"setup","state":{"terminated":{"exitCode":0,"reason":"Completed"}},
                  "restartCount":0,"image":"a","containerID":"containerd://5e"}],
                "containerStatuses":[{"name":"web","state":{"running":{"startedAt":"2026-08-20T12:44:30Z"}},
                  "lastState":{"terminated":{"exitCode":137,"reason":"OOMKilled"}},"restartCount":3,
                  "image":"docker.io/library/c:1","containerID":"containerd://ab"}]}}"#,
        );
        let pod = view.pods.values().next().unwrap();
        assert_eq!((&*pod.namespace, &*pod.name, pod.qos), ("shop", "web-1", Some(Qos::Burstable)));
        assert_eq!((pod.host_network, pod.origin, pod.deleting), (Some(false), Some(PodOrigin::Api), false));
        assert_eq!(pod.owner.as_ref().map(|o| (&*o.kind, &*o.name)), Some(("ReplicaSet", "web-7")));
        assert_eq!(pod.created_ns, Some(1_787_229_868_000_000_000));
        assert_eq!(pod.started_ns, Some(1_787_229_869_000_000_000));
        let roles: Vec<_> = pod.containers.iter().map(|c| (&*c.name, c.role.unwrap())).collect();
        let want =
            [("setup", Role::Init), ("proxy", Role::Sidecar), ("web", Role::App), ("debug", Role::Ephemeral)];
        assert_eq!(roles, want);
        let web = pod.container("web").unwrap();
        assert_eq!((web.limits.cpu_milli, web.limits.memory_bytes), (Some(1500), Some(128 << 20)));
        assert_eq!((web.requests.cpu_milli, web.requests.memory_bytes), (Some(100), None));
        assert_eq!(web.requests.ephemeral_storage_bytes, Some(1 << 30));
        let volumes: Vec<_> = pod.volumes.iter().map(|v| (&*v.name, v.claim.as_deref())).collect();
        assert_eq!(volumes, [("v", None), ("data", Some("orders")), ("tmp", Some("web-1-tmp"))]);
        assert_eq!(web.mounts, [("/data".into(), "data".into())]);
        assert_eq!((web.restart_count, web.last_termination.as_deref()), (Some(3), Some("OOMKilled")));
        assert_eq!(web.image.as_deref(), Some("docker.io/library/c:1"));
        let proxy = pod.container("proxy").unwrap();
        assert_eq!((proxy.id.as_ref(), proxy.restart_count, proxy.limits.is_empty()), (None, None, true));
        assert_eq!(view.containers.len(), 2);
        let info = &view.containers["ab"];
        assert_eq!((info.name.as_deref(), info.container.as_deref()), (Some("ab"), Some("web")));
        assert_eq!(info.started_ns, Some(1_787_229_870_000_000_000));
        assert_eq!(view.containers["5e"].state, Some(ContainerState::Exited));
        assert_eq!((view.containers["5e"].exit_code, info.exit_code), (Some(0), None));
    }

    #[test]
    fn static_and_mirror_pods_carry_the_hash() {
        let hash = "9c0f2f3b1a2d4e5f60718293a4b5c6d7";
        let check = |uid: &str, annotations: &str, want: PodOrigin| {
            let view = read(&format!(
                r#"{{"metadata":{{"name":"etcd-n1","namespace":"kube-system","uid":"{uid}","creationTimestamp":null,
                   "annotations":{annotations}}},"spec":{{"hostNetwork":true,"containers":[{{"name":"etcd"}}]}},
                   "status":{{"containerStatuses":[{{"name":"etcd","restartCount":1,"containerID":"cri-o://ab","image":"e"}}]}}}}"#
            ));
            let pod = view.pods.values().next().unwrap();
            assert_eq!((pod.uid.to_string().as_str(), pod.origin), (hash, Some(want)));
            assert_eq!((pod.host_network, pod.created_ns), (Some(true), None));
            let want = format!("k8s_etcd_etcd-n1_kube-system_{hash}_1");
            assert_eq!(view.containers["ab"].name.as_deref(), Some(want.as_str()));
        };
        let source =
            format!(r#"{{"kubernetes.io/config.hash":"{hash}","kubernetes.io/config.source":"file"}}"#);
        check(hash, &source, PodOrigin::Static);
        check(hash, "{}", PodOrigin::Static);
        let mirror =
            format!(r#"{{"kubernetes.io/config.mirror":"{hash}","kubernetes.io/config.source":"api"}}"#);
        check("0d1c2b3a-4f5e-4a7b-8c9d-0e1f2a3b4c5d", &mirror, PodOrigin::Mirror);
    }

    #[test]
    fn a_uid_of_another_form_costs_the_pod_but_not_its_containers() {
        let view = read(
            r#"{"metadata":{"name":"p","namespace":"n","uid":"by-hand"},"spec":{"containers":[{"name":"c"}]},
                "status":{"containerStatuses":[{"name":"c","containerID":"docker://ab","image":"i"}]}}"#,
        );
        assert!(view.pods.is_empty());
        assert_eq!(view.containers["ab"].pod.as_ref().unwrap().uid, None);
        let nameless: pb::Pod = serde_json::from_str("{}").unwrap();
        assert!(!add(nameless, &mut View::default(), &mut Names::default()));
    }
}
