//! A CRI runtime with the answers of containerd or of CRI-O.

use std::collections::HashMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::{UnboundedReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};

use super::{Running, id, uid};

#[allow(clippy::all, missing_docs, unreachable_pub, unused, missing_debug_implementations)]
pub(crate) mod pb {
    include!(concat!(env!("OUT_DIR"), "/tests/runtime.v1.rs"));
}
use pb::image_service_server::{ImageService, ImageServiceServer};
use pb::runtime_service_server::{RuntimeService, RuntimeServiceServer};

/// What the stand-in knows and how it behaves.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) sandboxes: HashMap<String, (pb::PodSandbox, pb::PodSandboxStatusResponse)>,
    pub(crate) containers: HashMap<String, (pb::Container, pb::ContainerStatusResponse)>,
    /// Answer nothing any more.
    pub(crate) hangs: bool,
    /// Statuses of these are an error.
    pub(crate) broken: Vec<String>,
    /// Statuses of these come when they are taken out of here.
    pub(crate) held: Vec<String>,
    /// Calls by method.
    pub(crate) calls: HashMap<&'static str, u64>,
    /// Where there are no senders, events are not offered.
    pub(crate) offers_events: bool,
    subscribers: Vec<mpsc::UnboundedSender<Result<pb::ContainerEventResponse, Status>>>,
}

/// The stand-in; clones share their state.
#[derive(Debug, Clone)]
pub(crate) struct Runtime(Arc<Mutex<State>>);

impl Runtime {
    pub(crate) fn new(name: &'static str, version: &'static str) -> Runtime {
        Runtime(Arc::new(Mutex::new(State { name, version, ..State::default() })))
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    pub(crate) fn calls(&self, method: &'static str) -> u64 {
        self.change(|s| s.calls.get(method).copied().unwrap_or(0))
    }

    /// Serves on a socket until dropped.
    pub(crate) fn serve(&self, socket: &Path) -> Running {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let service = RuntimeServiceServer::new(self.clone());
        let images = ImageServiceServer::new(self.clone());
        Running::new(tokio::spawn(async move {
            let served = tonic::transport::Server::builder().add_service(service).add_service(images);
            served.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        }))
    }

    /// Makes pod `number` with a sandbox and one container `app`; returns both ids.
    pub(crate) fn pod(&self, number: u32, host_network: bool) -> (String, String) {
        let (sandbox, container) = (id(number * 2), id(number * 2 + 1));
        let name = format!("pod-{number}");
        let crio = self.change(|s| s.name == "cri-o");
        let mut labels = HashMap::from([
            ("io.kubernetes.pod.name".to_owned(), name.clone()),
            ("io.kubernetes.pod.namespace".to_owned(), "shop".to_owned()),
            ("io.kubernetes.pod.uid".to_owned(), uid(number)),
        ]);
        let metadata =
            pb::PodSandboxMetadata { name, uid: uid(number), namespace: "shop".into(), attempt: 0 };
        let mut sandbox_labels = labels.clone();
        sandbox_labels.insert("app.kubernetes.io/name".into(), "shop".into());
        if crio {
            sandbox_labels.insert("io.kubernetes.container.name".into(), "POD".into());
        }
        let listed = pb::PodSandbox {
            id: sandbox.clone(),
            metadata: Some(metadata.clone()),
            state: 0,
            created_at: 1_700_000_000_000_000_000 + i64::from(number),
            labels: sandbox_labels.clone(),
            annotations: HashMap::from([("kubernetes.io/config.source".into(), "api".into())]),
        };
        let network = if host_network { pb::NamespaceMode::Node } else { pb::NamespaceMode::Pod };
        let options = pb::NamespaceOption { network: network.into() };
        let namespaces = pb::Namespace { options: Some(options) };
        let status = pb::PodSandboxStatus {
            id: sandbox.clone(),
            metadata: Some(metadata),
            state: 0,
            created_at: listed.created_at,
            linux: Some(pb::LinuxPodSandboxStatus { namespaces: Some(namespaces) }),
            labels: sandbox_labels,
            annotations: listed.annotations.clone(),
        };
        // CRI-O starts no pause process: pid 0.
        let pid = if crio { 0 } else { 1000 + number };
        let info =
            format!(r#"{{"image":"registry.k8s.io/pause:3.10","pid":{pid},"runtimeSpec":{{"a":[1,{{}}]}}}}"#);
        let answer = pb::PodSandboxStatusResponse {
            status: Some(status),
            info: HashMap::from([("info".into(), info)]),
        };
        labels.insert("io.kubernetes.container.name".into(), "app".into());
        let listed_container = pb::Container {
            id: container.clone(),
            pod_sandbox_id: sandbox.clone(),
            metadata: Some(pb::ContainerMetadata { name: "app".into(), attempt: 0 }),
            image: Some(pb::ImageSpec { image: "sha256:12".into(), user_specified_image: "nginx:1".into() }),
            image_ref: "sha256:12".into(),
            state: 1,
            created_at: 1_700_000_001_000_000_000,
            labels: labels.clone(),
            annotations: HashMap::from([("io.kubernetes.container.restartCount".into(), "2".into())]),
        };
        let status = pb::ContainerStatus {
            id: container.clone(),
            metadata: listed_container.metadata.clone(),
            state: 1,
            created_at: listed_container.created_at,
            started_at: 1_700_000_002_000_000_000,
            finished_at: 0,
            exit_code: 0,
            image: Some(pb::ImageSpec {
                image: "docker.io/library/nginx:1".into(),
                user_specified_image: String::new(),
            }),
            image_ref: "sha256:12".into(),
            reason: String::new(),
            labels,
            annotations: listed_container.annotations.clone(),
            mounts: Vec::new(),
            log_path: format!("/var/log/pods/shop_pod-{number}_{}/app/2.log", uid(number)),
        };
        let info = format!(r#"{{"sandboxID":"{sandbox}","pid":{}}}"#, 2000 + number);
        let status_answer = pb::ContainerStatusResponse {
            status: Some(status),
            info: HashMap::from([("info".into(), info)]),
        };
        self.change(|s| {
            s.sandboxes.insert(sandbox.clone(), (listed, answer));
            s.containers.insert(container.clone(), (listed_container, status_answer));
        });
        (sandbox, container)
    }

    /// Tells every subscriber about a container.
    pub(crate) fn tell(&self, container: &str, kind: pb::ContainerEventType) {
        self.change(|s| {
            let (listed, status) = s.containers.get(container).unwrap();
            let (_, sandbox) = s.sandboxes.get(&listed.pod_sandbox_id).unwrap();
            let event = pb::ContainerEventResponse {
                container_id: container.to_owned(),
                container_event_type: kind.into(),
                created_at: 1,
                pod_sandbox_status: sandbox.status.clone(),
                containers_statuses: status.status.clone().into_iter().collect(),
            };
            s.subscribers.retain(|to| to.send(Ok(event.clone())).is_ok());
        });
    }

    async fn called(&self, method: &'static str) {
        let hangs = self.change(|s| {
            *s.calls.entry(method).or_default() += 1;
            s.hangs
        });
        if hangs {
            std::future::pending::<()>().await;
        }
    }
}

#[tonic::async_trait]
impl ImageService for Runtime {
    async fn image_fs_info(
        &self,
        _: Request<pb::ImageFsInfoRequest>,
    ) -> Result<Response<pb::ImageFsInfoResponse>, Status> {
        self.called("ImageFsInfo").await;
        let mountpoint = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs".into();
        let usage = pb::FilesystemUsage {
            timestamp: 1_700_000_003_000_000_000,
            fs_id: Some(pb::FilesystemIdentifier { mountpoint }),
            used_bytes: Some(pb::UInt64Value { value: 123_456 }),
            inodes_used: None,
        };
        Ok(Response::new(pb::ImageFsInfoResponse {
            image_filesystems: vec![usage.clone()],
            container_filesystems: vec![usage],
        }))
    }
}

#[tonic::async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, _: Request<pb::VersionRequest>) -> Result<Response<pb::VersionResponse>, Status> {
        self.called("Version").await;
        let (name, version) = self.change(|s| (s.name, s.version));
        Ok(Response::new(pb::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: name.into(),
            runtime_version: version.into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn list_pod_sandbox(
        &self,
        _: Request<pb::ListPodSandboxRequest>,
    ) -> Result<Response<pb::ListPodSandboxResponse>, Status> {
        self.called("ListPodSandbox").await;
        let items = self.change(|s| s.sandboxes.values().map(|(listed, _)| listed.clone()).collect());
        Ok(Response::new(pb::ListPodSandboxResponse { items }))
    }

    async fn list_containers(
        &self,
        _: Request<pb::ListContainersRequest>,
    ) -> Result<Response<pb::ListContainersResponse>, Status> {
        self.called("ListContainers").await;
        let containers = self.change(|s| s.containers.values().map(|(listed, _)| listed.clone()).collect());
        Ok(Response::new(pb::ListContainersResponse { containers }))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<pb::PodSandboxStatusRequest>,
    ) -> Result<Response<pb::PodSandboxStatusResponse>, Status> {
        self.called("PodSandboxStatus").await;
        let id = request.into_inner().pod_sandbox_id;
        self.change(|s| match s.sandboxes.get(&id) {
            _ if s.broken.contains(&id) => Err(Status::unknown("shim is gone")),
            Some((_, status)) => Ok(Response::new(status.clone())),
            None => Err(Status::not_found(id)),
        })
    }

    async fn container_status(
        &self,
        request: Request<pb::ContainerStatusRequest>,
    ) -> Result<Response<pb::ContainerStatusResponse>, Status> {
        self.called("ContainerStatus").await;
        let id = request.into_inner().container_id;
        while self.change(|s| s.held.contains(&id)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.change(|s| match s.containers.get(&id) {
            _ if s.broken.contains(&id) => Err(Status::unknown("shim is gone")),
            Some((_, status)) => Ok(Response::new(status.clone())),
            None => Err(Status::not_found(id)),
        })
    }

    type GetContainerEventsStream =
        Pin<Box<dyn Stream<Item = Result<pb::ContainerEventResponse, Status>> + Send>>;

    async fn get_container_events(
        &self,
        _: Request<pb::GetEventsRequest>,
    ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        self.called("GetContainerEvents").await;
        let (sender, receiver) = mpsc::unbounded_channel();
        // CRI-O with events switched off ends the stream at once.
        self.change(|s| {
            if s.offers_events {
                s.subscribers.push(sender);
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(receiver))))
    }
}
