//! Which pod and container a cgroup is.
//!
//! [`path`] reads what a cgroup's path tells by itself. Names come from
//! sources, each a task of its own: container runtimes by CRI and by Docker's
//! API, the kubelet, the kubelet's log directories. A [`Directory`] holds what
//! they told, merged; readers load it without waiting, so that a source that
//! hangs delays nothing. [`enrich`] makes the labels of a row out of both.
//!
//! To add a runtime: its file here, and a line in [`RUNTIMES`].

mod cri;
mod directory;
mod docker;
pub mod enrich;
mod grpc;
mod http;
mod json;
pub mod kubelet;
mod log_links;
pub mod model;
pub mod path;
mod socket;
mod source;
mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

pub use directory::Directory;
pub use source::{ImageFilesystem, SourceKind, SourceState, SourceStatus, Timing};
pub use store::{MAX_CONTAINERS, MAX_PODS, StoreCounts};

use cri::Cri;
use docker::Docker;
use kubelet::{Access, Kubelet, PodsApi};
use log_links::LogLinks;
use model::Variables;
use path::PathIdentity;
use source::{Feed, Source, supervise};
use store::Store;

/// A container runtime, and where it listens.
#[derive(Debug, Clone, Copy)]
pub struct Runtime {
    /// Its name in reports.
    pub name: &'static str,
    /// The choice of `--runtime` that includes it, besides `auto`.
    pub choice: RuntimeChoice,
    /// How it is talked to.
    pub api: Api,
    /// Its usual sockets on the host; the first that is there is used.
    pub sockets: &'static [&'static str],
}

/// What a runtime is asked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// The Container Runtime Interface.
    Cri,
    /// Docker's Engine API.
    Docker,
    /// Podman's copy of it.
    Podman,
}

impl Api {
    fn kind(self) -> SourceKind {
        match self {
            Api::Cri => SourceKind::Cri,
            Api::Docker | Api::Podman => SourceKind::Docker,
        }
    }
}

/// The kubelet's pods socket and log directories, on the host.
const PODS_SOCKET: &str = "/var/lib/kubelet/pods/kubelet.sock";
const CONTAINER_LOGS: &str = "/var/log/containers";
const POD_LOGS: &str = "/var/log/pods";

/// Every runtime looked for. `/var/run` is a link to `/run` on today's hosts,
/// and a link that leads out of a mounted host root.
pub const RUNTIMES: &[Runtime] = &[
    Runtime {
        name: "containerd",
        choice: RuntimeChoice::Containerd,
        api: Api::Cri,
        sockets: &["/run/containerd/containerd.sock"],
    },
    Runtime {
        name: "k3s",
        choice: RuntimeChoice::Containerd,
        api: Api::Cri,
        sockets: &["/run/k3s/containerd/containerd.sock"],
    },
    Runtime {
        name: "k0s",
        choice: RuntimeChoice::Containerd,
        api: Api::Cri,
        sockets: &["/run/k0s/containerd.sock"],
    },
    Runtime {
        name: "microk8s",
        choice: RuntimeChoice::Containerd,
        api: Api::Cri,
        sockets: &["/var/snap/microk8s/common/run/containerd.sock"],
    },
    Runtime {
        name: "cri-o",
        choice: RuntimeChoice::Crio,
        api: Api::Cri,
        sockets: &["/run/crio/crio.sock", "/var/run/crio/crio.sock"],
    },
    Runtime {
        name: "cri-dockerd",
        choice: RuntimeChoice::Docker,
        api: Api::Cri,
        sockets: &["/run/cri-dockerd.sock", "/var/run/cri-dockerd.sock"],
    },
    Runtime {
        name: "docker",
        choice: RuntimeChoice::Docker,
        api: Api::Docker,
        sockets: &["/run/docker.sock", "/var/run/docker.sock"],
    },
    Runtime {
        name: "podman",
        choice: RuntimeChoice::Auto,
        api: Api::Podman,
        sockets: &["/run/podman/podman.sock"],
    },
];

/// Which runtimes to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RuntimeChoice {
    /// Every one that is there.
    #[default]
    Auto,
    /// containerd, wherever a distribution puts its socket.
    Containerd,
    /// CRI-O.
    Crio,
    /// Docker and cri-dockerd.
    Docker,
    /// None.
    None,
}

/// What to ask, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The host's `/` as seen from here: sockets and log directories lie below it.
    pub host_root: PathBuf,
    /// Which runtimes.
    pub runtime: RuntimeChoice,
    /// The kubelet's `/pods`, unless it is not to be asked.
    pub kubelet: Option<Access>,
    /// Whether to listen to the kubelet's pods socket.
    pub pods_api: bool,
    /// Whether to read the kubelet's log directories.
    pub log_links: bool,
    /// Variables of containers' environments that become labels: those whose names
    /// begin so.
    pub variables: Vec<String>,
    /// Sockets of runtimes in the place of their usual ones, by the runtime's name.
    pub sockets: Vec<(&'static str, PathBuf)>,
    /// How patiently.
    pub timing: Timing,
}

impl Options {
    /// Everything that needs no address or credentials, with the usual patience.
    pub fn new(host_root: &Path) -> Self {
        Options {
            host_root: host_root.to_path_buf(),
            runtime: RuntimeChoice::Auto,
            kubelet: None,
            pods_api: true,
            log_links: true,
            variables: Vec::new(),
            sockets: Vec::new(),
            timing: Timing::default(),
        }
    }
}

/// The running sources. Dropping it stops them.
#[derive(Debug)]
pub struct Identities {
    store: Arc<Store>,
    tasks: Vec<JoinHandle<()>>,
}

impl Identities {
    /// Starts every source as a task; needs a tokio runtime. Returns at once,
    /// with an empty directory.
    pub fn start(options: &Options) -> Identities {
        let store = Arc::new(Store::new());
        let mut tasks = Vec::new();
        for (status, source) in sources(options) {
            let feed = Feed::new(&store, status, options.timing);
            tasks.push(tokio::spawn(supervise(source, feed)));
        }
        let merging = Arc::clone(&store);
        tasks.push(tokio::spawn(async move { merging.run().await }));
        Identities { store, tasks }
    }

    /// What is known now. Never waits.
    pub fn directory(&self) -> Arc<Directory> {
        self.store.directory()
    }

    /// Says that a path's container or pod is not in the directory, so that the
    /// sources are asked again soon. Never waits, cheap to repeat every tick.
    pub fn want(&self, path: &PathIdentity<'_>) {
        self.store.want(path, Instant::now());
    }

    /// Each source's self-report.
    pub fn status(&self) -> Vec<SourceStatus> {
        self.store.statuses()
    }

    /// The directory's self-report.
    pub fn counts(&self) -> StoreCounts {
        self.store.counts()
    }

    /// Waits until every source has answered or failed once, at most `patience`.
    /// Returns whether it came to that.
    pub async fn settled(&self, patience: Duration) -> bool {
        let mut changes = self.store.changes();
        let all = async {
            while !self.store.is_settled() {
                // The sender lives in the store.
                let _ = changes.changed().await;
            }
        };
        tokio::time::timeout(patience, all).await.is_ok()
    }
}

impl Drop for Identities {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Each source with its first self-report.
fn sources(options: &Options) -> Vec<(SourceStatus, Box<dyn Source>)> {
    let mut found: Vec<(SourceStatus, Box<dyn Source>)> = Vec::new();
    let host = |path: &str| below(&options.host_root, path);
    let wanted = |r: &&Runtime| options.runtime == RuntimeChoice::Auto || options.runtime == r.choice;
    for runtime in RUNTIMES.iter().filter(wanted) {
        let named = options.sockets.iter().filter(|(name, _)| *name == runtime.name);
        let mut sockets: Vec<PathBuf> = named.map(|(_, path)| host(&path.to_string_lossy())).collect();
        if sockets.is_empty() {
            sockets = runtime.sockets.iter().map(|s| host(s)).collect();
        }
        let variables = Variables::beginning(&options.variables);
        let endpoint = sockets.first().map(|s| s.display().to_string()).unwrap_or_default();
        let source: Box<dyn Source> = match runtime.api {
            Api::Cri => Box::new(Cri::new(sockets, variables)),
            Api::Docker => Box::new(Docker::new(sockets, path::Runtime::Docker, variables)),
            Api::Podman => Box::new(Docker::new(sockets, path::Runtime::Podman, variables)),
        };
        found.push((SourceStatus::new(runtime.api.kind(), runtime.name, endpoint), source));
    }
    if options.pods_api {
        let socket = host(PODS_SOCKET);
        let status = SourceStatus::new(SourceKind::PodsApi, "pods-api", socket.display());
        found.push((status, Box::new(PodsApi::new(socket))));
    }
    if let Some(access) = &options.kubelet {
        let status = SourceStatus::new(SourceKind::Kubelet, "kubelet", &access.url);
        found.push((status, Box::new(Kubelet::new(access.clone()))));
    }
    if options.log_links {
        let (containers, pods) = (host(CONTAINER_LOGS), host(POD_LOGS));
        let status = SourceStatus::new(SourceKind::LogLinks, "log-links", containers.display());
        found.push((status, Box::new(LogLinks::new(containers, pods))));
    }
    found
}

/// An absolute host path as seen from here.
fn below(host_root: &Path, path: &str) -> PathBuf {
    host_root.join(path.trim_start_matches('/'))
}
