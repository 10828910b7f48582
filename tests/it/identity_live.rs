//! Identities of real daemons. `tests/e2e/identity-containerd.sh` and `identity-docker.sh` start
//! them, say where in `NODEGAUGE_LIVE_ROOT`, and run these tests.

use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(
        std::env::var_os("NODEGAUGE_LIVE_ROOT").expect("NODEGAUGE_LIVE_ROOT: run by tests/e2e/*.sh"),
    )
}

mod containerd {
    use std::collections::HashMap;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use hyper_util::rt::TokioIo;
    use nodegauge::identity::model::{ContainerState, NetworkMode, PodOrigin};
    use nodegauge::identity::path::{Level, PodUid, Runtime, parse};
    use nodegauge::identity::{Identities, Options, RuntimeChoice, SourceState};
    use tonic::transport::{Channel, Endpoint};

    use super::root;

    #[allow(clippy::all, missing_docs, unreachable_pub, unused)]
    mod admin {
        include!(concat!(env!("OUT_DIR"), "/tests/admin/runtime.v1.rs"));
    }
    use admin::runtime_service_client::RuntimeServiceClient;

    /// Everything below one cgroup of our own.
    fn cgroup() -> String {
        format!("/nodegauge-live-{}", std::process::id())
    }
    const HOST: i32 = 2;
    const POD: i32 = 0;

    struct Maker(RuntimeServiceClient<Channel>);

    /// A pod that was made.
    struct Made {
        config: admin::PodSandboxConfig,
        network: i32,
        sandbox: String,
    }

    impl Maker {
        async fn new() -> Maker {
            let socket = root().join("run/containerd/containerd.sock");
            let connect = tower_service_fn(socket);
            Maker(RuntimeServiceClient::new(
                Endpoint::from_static("http://localhost").connect_with_connector(connect).await.unwrap(),
            ))
        }

        async fn pod(&mut self, number: u32, network: i32) -> Made {
            let uid = format!("0000000a-0000-4000-8000-{number:012x}");
            let name = format!("pod-{number}");
            let pairs = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
                pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
            };
            let config = admin::PodSandboxConfig {
                metadata: Some(admin::PodSandboxMetadata {
                    name: name.clone(),
                    uid: uid.clone(),
                    namespace: "live".into(),
                    attempt: 0,
                }),
                hostname: if network == HOST { String::new() } else { name.clone() },
                log_directory: root().join(format!("logs/live_{name}_{uid}")).display().to_string(),
                labels: pairs(&[
                    ("app", "live"),
                    ("io.kubernetes.pod.name", &name),
                    ("io.kubernetes.pod.namespace", "live"),
                    ("io.kubernetes.pod.uid", &uid),
                ]),
                annotations: pairs(&[("kubernetes.io/config.source", "api")]),
                linux: Some(admin::LinuxPodSandboxConfig {
                    cgroup_parent: format!("{}/kubepods/burstable/pod{uid}", cgroup()),
                    security_context: Some(admin::LinuxSandboxSecurityContext {
                        namespace_options: Some(admin::NamespaceOption { network }),
                    }),
                }),
            };
            let request = admin::RunPodSandboxRequest { config: Some(config.clone()) };
            let sandbox = self.0.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
            Made { config, network, sandbox }
        }

        async fn container(&mut self, pod: &Made, name: &str, restarts: u32) -> String {
            let mut labels = pod.config.labels.clone();
            labels.remove("app");
            labels.insert("io.kubernetes.container.name".into(), name.into());
            let config = admin::ContainerConfig {
                metadata: Some(admin::ContainerMetadata { name: name.into(), attempt: restarts }),
                image: Some(admin::ImageSpec { image: "nodegauge.test/busybox:1".into() }),
                command: vec!["/bin/sleep".into(), "3600".into()],
                labels,
                annotations: [("io.kubernetes.container.restartCount".into(), restarts.to_string())].into(),
                log_path: format!("{name}/{restarts}.log"),
                linux: Some(admin::LinuxContainerConfig {
                    security_context: Some(admin::LinuxContainerSecurityContext {
                        namespace_options: Some(admin::NamespaceOption { network: pod.network }),
                    }),
                }),
            };
            let request = admin::CreateContainerRequest {
                pod_sandbox_id: pod.sandbox.clone(),
                config: Some(config),
                sandbox_config: Some(pod.config.clone()),
            };
            let id = self.0.create_container(request).await.unwrap().into_inner().container_id;
            let request = admin::StartContainerRequest { container_id: id.clone() };
            self.0.start_container(request).await.unwrap();
            id
        }

        async fn remove(&mut self, pod: &Made) {
            let request = || admin::StopPodSandboxRequest { pod_sandbox_id: pod.sandbox.clone() };
            self.0.stop_pod_sandbox(request()).await.unwrap();
            self.0.remove_pod_sandbox(request()).await.unwrap();
        }
    }

    /// A connector to one socket.
    fn tower_service_fn(
        socket: std::path::PathBuf,
    ) -> impl tonic::codegen::Service<
        tonic::codegen::http::Uri,
        Response = TokioIo<tokio::net::UnixStream>,
        Error = std::io::Error,
        Future = impl Future<Output = std::io::Result<TokioIo<tokio::net::UnixStream>>> + Send,
    > {
        tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
        })
    }

    fn options() -> Options {
        Options { runtime: RuntimeChoice::Containerd, ..Options::new(&root()) }
    }

    /// Directories below a cgroup, as paths of the tree that containers are found in.
    fn cgroups() -> Vec<String> {
        let mount =
            ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].map(Path::new).into_iter().find(|m| m.is_dir());
        let mount = mount.unwrap();
        let mut found = Vec::new();
        let mut queue = vec![mount.join(&cgroup()[1..])];
        while let Some(folder) = queue.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            found.push(format!("/{}", folder.strip_prefix(mount).unwrap().display()));
            queue.extend(entries.flatten().filter(|e| e.path().is_dir()).map(|e| e.path()));
        }
        found
    }

    #[tokio::test]
    #[ignore = "needs the containerd of tests/e2e/identity-containerd.sh"]
    async fn names_pods_and_containers() {
        let mut maker = Maker::new().await;
        let plain = maker.pod(1, POD).await;
        let host = maker.pod(2, HOST).await;
        let first = maker.container(&plain, "web", 0).await;
        let second = maker.container(&host, "agent", 3).await;

        let identities = Identities::start(&options());
        assert!(identities.settled(Duration::from_secs(5)).await);
        let status = identities.status().into_iter().find(|s| s.name == "containerd").unwrap();
        println!("{status:#?}");
        assert_eq!(status.state, SourceState::Up);
        assert!(status.version.unwrap().starts_with("containerd "));
        assert_eq!((status.containers, status.pods), (4, 2));

        let directory = identities.directory();
        println!("{:#?}", directory.container(&plain.sandbox));
        println!("{:#?}", directory.container(&first));
        println!("{:#?}", directory.container(&second));
        let sandbox = directory.container(&plain.sandbox).unwrap();
        assert!(sandbox.is_sandbox && !sandbox.partial);
        assert_eq!(sandbox.image.as_deref(), Some("nodegauge.test/pause:1"));
        assert_eq!(sandbox.name.as_deref(), Some(plain.sandbox.as_str()));
        assert_eq!(sandbox.container, None);
        assert_eq!(sandbox.network, Some(NetworkMode::Own));
        assert_eq!(sandbox.labels.get("io.cri-containerd.kind"), Some("sandbox"));
        let pid = sandbox.pid.unwrap();
        assert!(std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap().contains(&plain.sandbox));
        let sandbox = directory.container(&host.sandbox).unwrap();
        assert_eq!(sandbox.network, Some(NetworkMode::Host));

        let container = directory.container(&first).unwrap();
        assert!(!container.is_sandbox && !container.partial);
        assert_eq!(container.image.as_deref(), Some("nodegauge.test/busybox:1"));
        assert_eq!(container.container.as_deref(), Some("web"));
        assert_eq!(container.state, Some(ContainerState::Running));
        assert_eq!(container.runtime, Some(Runtime::Containerd));
        assert!(container.started_ns >= container.created_ns && container.created_ns.is_some());
        let pid = container.pid.unwrap();
        assert!(std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap().contains(&first));
        assert_eq!(directory.container(&second).unwrap().restart_count, Some(3));

        let uid = PodUid::parse("0000000a-0000-4000-8000-000000000002").unwrap();
        let pod = directory.pod(uid).unwrap();
        assert_eq!((&*pod.namespace, &*pod.name), ("live", "pod-2"));
        assert_eq!(pod.host_network, Some(true));
        assert_eq!(pod.origin, Some(PodOrigin::Api));
        assert_eq!(pod.labels.iter().collect::<Vec<_>>(), [("app", "live")]);
        assert_eq!(pod.container("agent").unwrap().id.as_deref(), Some(second.as_str()));

        // Every container cgroup the runtime made is one the directory has.
        let mut containers = 0;
        for path in cgroups() {
            let parsed = parse(&path);
            if parsed.level == Level::Container {
                containers += 1;
                assert!(directory.container(parsed.container.unwrap()).is_some(), "{path}");
            }
        }
        assert_eq!(containers, 4);
        maker.remove(&plain).await;
        maker.remove(&host).await;
    }

    /// Starts pods one after another while a reader looks at the cgroups four
    /// times a second, as a tick would, and asks for what it does not know.
    #[tokio::test]
    #[ignore = "needs the containerd of tests/e2e/identity-containerd.sh"]
    async fn new_pods_get_their_names_soon() {
        let pods: u32 = std::env::var("NODEGAUGE_LIVE_PODS").map_or(20, |n| n.parse().unwrap());
        let identities = Identities::start(&options());
        assert!(identities.settled(Duration::from_secs(5)).await);
        let mut maker = Maker::new().await;
        let (sender, mut made) = tokio::sync::mpsc::unbounded_channel();
        let work = tokio::spawn(async move {
            let mut all = Vec::new();
            for number in 100..100 + pods {
                let pod = maker.pod(number, HOST).await;
                let id = maker.container(&pod, "main", 0).await;
                sender.send((id, Instant::now())).unwrap();
                all.push(pod);
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
            drop(sender);
            for pod in &all {
                maker.remove(pod).await;
            }
        });
        let mut started: HashMap<String, Instant> = HashMap::new();
        let mut named: HashMap<String, Instant> = HashMap::new();
        loop {
            let directory = identities.directory();
            for path in cgroups() {
                let parsed = parse(&path);
                let Some(id) = parsed.container else { continue };
                match directory.container(id) {
                    Some(info) if !info.partial => {
                        _ = named.entry(id.to_owned()).or_insert_with(Instant::now)
                    }
                    _ => identities.want(&parsed),
                }
            }
            let over = loop {
                match made.try_recv() {
                    Ok((id, at)) => _ = started.insert(id, at),
                    Err(tokio::sync::mpsc::error::TryRecvError::Empty) => break false,
                    Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => break true,
                }
            };
            if over {
                break;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        work.await.unwrap();
        let mut late: Vec<Duration> = started
            .iter()
            .map(|(id, at)| named.get(id).expect("named at last").saturating_duration_since(*at))
            .collect();
        late.sort();
        let counts = identities.counts();
        println!(
            "{} starts, median {:?}, worst {:?}, {counts:?}",
            late.len(),
            late[late.len() / 2],
            late[late.len() - 1]
        );
        println!("{:#?}", identities.status().iter().find(|s| s.name == "containerd"));
        assert!(late[late.len() * 95 / 100] < Duration::from_millis(1000), "{late:?}");
        assert!(late[late.len() - 1] < Duration::from_secs(2), "{late:?}");
    }
}

mod docker {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use hyper::Request;
    use hyper_util::rt::TokioIo;
    use nodegauge::identity::model::{ContainerInfo, ContainerState, NetworkMode};
    use nodegauge::identity::path::Runtime;
    use nodegauge::identity::{Identities, Options, RuntimeChoice};

    use super::root;

    /// Asks the daemon to do something.
    async fn post(path: &str) {
        let stream = tokio::net::UnixStream::connect(root().join("run/docker.sock")).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(path).header("host", "docker").body(Full::new(Bytes::new())).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "{path}: {status}: {body:?}");
    }

    fn by_name(identities: &Identities) -> HashMap<String, Arc<ContainerInfo>> {
        let directory = identities.directory();
        directory.containers().map(|c| (c.name.as_deref().unwrap_or("").to_owned(), Arc::clone(c))).collect()
    }

    #[tokio::test]
    #[ignore = "needs the daemon of tests/e2e/identity-docker.sh"]
    async fn names_containers_and_follows_events() {
        let options = Options { runtime: RuntimeChoice::Docker, ..Options::new(&root()) };
        let identities = Identities::start(&options);
        assert!(identities.settled(Duration::from_secs(5)).await);
        println!("{:#?}", identities.status().iter().find(|s| s.name == "docker"));
        let found = by_name(&identities);
        assert_eq!(found.len(), 3, "{found:#?}");
        let db = &found["shop-db-1"];
        println!("{db:#?}");
        assert_eq!(db.image.as_deref(), Some("nodegauge.test/busybox:1"));
        assert_eq!(db.labels.get("com.docker.compose.service"), Some("db"));
        assert_eq!(db.labels.get("com.docker.compose.project"), Some("shop"));
        assert_eq!((db.runtime, db.state), (Some(Runtime::Docker), Some(ContainerState::Running)));
        assert!(!db.partial && db.started_ns >= db.created_ns && db.created_ns.is_some());
        let pid = db.pid.unwrap();
        assert!(std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap().contains(&*db.id));
        assert_eq!(db.network, Some(NetworkMode::Own));
        assert_eq!(found["shop-web-1"].network, Some(NetworkMode::Shared(Arc::clone(&db.id))));
        assert_eq!(found["node"].network, Some(NetworkMode::Host));

        // Started, renamed, ended: told without being asked.
        let wait = |what: &'static str, test: fn(&HashMap<String, Arc<ContainerInfo>>) -> bool| {
            let identities = &identities;
            async move {
                let started = Instant::now();
                while !test(&by_name(identities)) {
                    assert!(started.elapsed() < Duration::from_secs(2), "{what}: {:#?}", by_name(identities));
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                println!("{what}: known after {:?}", started.elapsed());
            }
        };
        post("/containers/never-started/start").await;
        wait("start", |f| f.get("never-started").is_some_and(|c| !c.partial && c.pid.is_some())).await;
        post("/containers/never-started/rename?name=started").await;
        wait("rename", |f| f.contains_key("started") && !f.contains_key("never-started")).await;
        post("/containers/started/stop?t=0").await;
        wait("stop", |f| f.get("started").is_some_and(|c| c.state == Some(ContainerState::Exited))).await;
    }
}
