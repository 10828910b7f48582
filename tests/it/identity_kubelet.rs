//! The kubelet sources against stand-ins: over TLS, plain, by the pods socket;
//! and how several sources become one picture.

use std::path::Path;
use std::time::Duration;

use nodegauge::identity::kubelet::{Access, Trust};
use nodegauge::identity::model::{ContainerState, PodOrigin, Role};
use nodegauge::identity::path::{PodUid, Qos};
use nodegauge::identity::{Identities, Options, SourceState};
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::standin::cri::Runtime;
use crate::standin::docker::Mood;
use crate::standin::kubelet::{Kubelet, PodsSocket, pb, pod};
use crate::standin::{Host, id, uid, until, until_status};

fn options(host: &Host, url: &str, trust: Trust, token_file: Option<&Path>) -> Options {
    let access = Access { url: url.parse().unwrap(), token_file: token_file.map(Path::to_path_buf), trust };
    Options { kubelet: Some(access), ..host.options() }
}

fn pod_uid(number: u32) -> PodUid {
    PodUid::parse(&uid(number)).unwrap()
}

/// A key and a certificate for `names`, signed by a CA of its own or by itself.
pub(crate) struct Certificates {
    pub(crate) ca: String,
    pub(crate) server: CertificateDer<'static>,
    server_pem: String,
    key: KeyPair,
}

impl Certificates {
    pub(crate) fn new(names: &[&str], self_signed: bool) -> Certificates {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        let server = if self_signed { params.self_signed(&key) } else { params.signed_by(&key, &issuer) };
        let server = server.unwrap();
        Certificates { ca: issuer.pem(), server: server.der().clone(), server_pem: server.pem(), key }
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }
}

#[tokio::test]
async fn pods_over_plain_http() {
    let host = Host::new();
    let kubelet = Kubelet::new(vec![pod(1), pod(2), json!({"metadata": {}}), json!({"metadata": 7})]);
    let (_serving, port) = kubelet.serve_plain().await;
    let token = host.at("token");
    std::fs::write(&token, "secret").unwrap();
    let url = format!("http://127.0.0.1:{port}");
    let identities = Identities::start(&options(&host, &url, Trust::default(), Some(&token)));
    assert!(identities.settled(Duration::from_secs(5)).await);
    let directory = identities.directory();
    let known = directory.pod(pod_uid(1)).unwrap();
    assert_eq!((&*known.namespace, &*known.name), ("shop", "pod-1"));
    assert_eq!((known.qos, known.host_network), (Some(Qos::Burstable), Some(false)));
    assert_eq!(known.origin, Some(PodOrigin::Api));
    assert_eq!(known.owner.as_ref().map(|o| &*o.name), Some("shop-1"));
    let app = known.container("app").unwrap();
    assert_eq!(
        (app.role, app.restart_count, app.state),
        (Some(Role::App), Some(1), Some(ContainerState::Running))
    );
    assert_eq!((app.requests.cpu_milli, app.limits.memory_bytes), (Some(100), Some(128 << 20)));
    // No runtime answers, so the kubelet's word is final.
    let container = directory.container(&id(3)).unwrap();
    assert!(!container.partial);
    assert_eq!(container.name.as_deref(), Some(id(3).as_str()));
    let status = identities.status().into_iter().find(|s| s.name == "kubelet").unwrap();
    assert_eq!((status.pods, status.containers, status.rejected), (2, 2, 2));
    assert!(kubelet.asked().iter().all(Option::is_none), "a token is never sent in the clear");
}

#[tokio::test]
async fn whom_to_believe() {
    let host = Host::new();
    let kubelet = Kubelet::new(vec![pod(1)]);
    let check = async |certificates: &Certificates, trust: Trust, want: Result<(), &str>| {
        let (_serving, port) = kubelet.serve_tls(certificates.server.clone(), certificates.key()).await;
        let url = format!("https://127.0.0.1:{port}");
        let identities = Identities::start(&options(&host, &url, trust, None));
        let status = until_status(&identities, "kubelet", "tried", |s| s.tried).await;
        match want {
            Ok(()) => assert_eq!(status.state, SourceState::Up, "{status:?}"),
            Err(want) => {
                let error = status.last_error.unwrap();
                assert!(error.contains(want), "{error}");
            }
        }
    };
    let ca = host.at("ca.crt");
    let by_ca = || Trust { ca_file: Some(ca.clone()), ..Trust::default() };
    let named = |name: &str| Trust { node_name: Some(name.to_owned()), ..by_ca() };

    let for_address = Certificates::new(&["127.0.0.1"], false);
    std::fs::write(&ca, &for_address.ca).unwrap();
    check(&for_address, by_ca(), Ok(())).await;
    let for_name = Certificates::new(&["node-1"], false);
    std::fs::write(&ca, &for_name.ca).unwrap();
    check(&for_name, named("node-1"), Ok(())).await;
    check(&for_name, named("node-2"), Err("certificate not valid for name")).await;
    check(&for_address, by_ca(), Err("certificate")).await;

    // As a kubelet makes it for itself: the node's name, no address, no issuer.
    let own = Certificates::new(&["node-1"], true);
    check(&own, named("node-1"), Err("certificate")).await;
    check(&own, Trust::default(), Err("UnknownIssuer")).await;
    check(&own, Trust { insecure: true, ..Trust::default() }, Ok(())).await;
    let pinned = host.at("kubelet.crt");
    let pin = || Trust { pinned: vec![host.at("nothing"), pinned.clone()], ..named("node-1") };
    std::fs::write(&pinned, &own.server_pem).unwrap();
    check(&own, pin(), Ok(())).await;
    std::fs::write(&pinned, &for_name.server_pem).unwrap();
    check(&own, pin(), Err("certificate")).await;
    std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    check(&own, by_ca(), Err("read the CA")).await;
}

#[tokio::test]
async fn tokens_rotate_and_refusals_say_why() {
    let host = Host::new();
    let kubelet = Kubelet::new(vec![pod(1)]);
    kubelet.let_in("first");
    let certificates = Certificates::new(&["127.0.0.1"], true);
    let (_serving, port) = kubelet.serve_tls(certificates.server.clone(), certificates.key()).await;
    let token = host.at("token");
    std::fs::write(&token, "first\n").unwrap();
    let trust = Trust { insecure: true, ..Trust::default() };
    let url = format!("https://127.0.0.1:{port}");
    let identities = Identities::start(&options(&host, &url, trust, Some(&token)));
    until(&identities, "let in", |d| d.pod(pod_uid(1)).is_some()).await;
    kubelet.let_in("second");
    kubelet.set_pods(vec![pod(1), pod(2)]);
    let refused =
        |e: &Option<String>| e.as_deref().is_some_and(|e| e.contains("401") && e.contains("Unauthorized"));
    until_status(&identities, "kubelet", "refused", |s| refused(&s.last_error)).await;
    assert!(identities.directory().pod(pod_uid(1)).is_some(), "what it told stays");
    std::fs::write(&token, "second\n").unwrap();
    until(&identities, "let in again", |d| d.pod(pod_uid(2)).is_some()).await;
    std::fs::remove_file(&token).unwrap();
    let told = |e: &Option<String>| e.as_deref().is_some_and(|e| e.contains("read the token"));
    until_status(&identities, "kubelet", "no token", |s| told(&s.last_error)).await;
}

#[tokio::test]
async fn hangs_garbage_and_endless_answers() {
    let host = Host::new();
    let kubelet = Kubelet::new(vec![pod(1)]);
    let (_serving, port) = kubelet.serve_plain().await;
    let mut options = options(&host, &format!("http://127.0.0.1:{port}"), Trust::default(), None);
    // Long enough to read all of an endless answer that is accepted, on a busy machine.
    options.timing.list = Duration::from_secs(12);
    let identities = Identities::start(&options);
    until(&identities, "named", |d| d.pod(pod_uid(1)).is_some()).await;
    for (mood, error) in
        [(Mood::Garbage, "not the JSON expected"), (Mood::Huge, "larger than"), (Mood::Hangs, "no answer")]
    {
        kubelet.mood(mood);
        let told = |e: &Option<String>| e.as_deref().is_some_and(|e| e.contains(error));
        until_status(&identities, "kubelet", error, |s| told(&s.last_error)).await;
        assert_eq!(identities.directory().pods().len(), 1, "what it told stays, and no more");
    }
    kubelet.mood(Mood::Well);
    kubelet.set_pods(vec![pod(2)]);
    until(&identities, "named at last", |d| d.pod(pod_uid(2)).is_some()).await;
}

#[tokio::test]
async fn five_hundred_pods() {
    let host = Host::new();
    let kubelet = Kubelet::new((1..=500).map(pod).collect());
    let (_serving, port) = kubelet.serve_plain().await;
    let url = format!("http://127.0.0.1:{port}");
    let identities = Identities::start(&options(&host, &url, Trust::default(), None));
    let started = std::time::Instant::now();
    assert!(identities.settled(Duration::from_secs(10)).await);
    println!("500 pods by the kubelet: {:?}", started.elapsed());
    assert_eq!(identities.directory().pods().len(), 500);
    let generation = identities.directory().generation();
    let seen = until_status(&identities, "kubelet", "answers", |s| s.answers > 0).await.answers;
    until_status(&identities, "kubelet", "refreshed", |s| s.answers > seen + 1).await;
    assert_eq!(identities.directory().generation(), generation, "the same again is no news");
}

/// A pod as the pods socket sends it.
fn encoded(number: u32, phase: &str) -> Vec<u8> {
    let text = |s: &str| s.to_owned();
    let pod = pb::core::Pod {
        metadata: Some(pb::core::ObjectMeta {
            name: format!("pod-{number}"),
            namespace: text("shop"),
            uid: uid(number),
            creation_timestamp: Some(pb::core::Time { seconds: 1_700_000_000, nanos: 5 }),
            labels: [(text("app"), text("shop"))].into(),
            ..Default::default()
        }),
        spec: Some(pb::core::PodSpec {
            containers: vec![pb::core::Container {
                name: text("app"),
                resources: Some(pb::core::ResourceRequirements {
                    requests: [(text("cpu"), pb::core::Quantity { string: text("250m") })].into(),
                    ..Default::default()
                }),
                ..Default::default()
            }],
            host_network: true,
            ..Default::default()
        }),
        status: Some(pb::core::PodStatus {
            phase: text(phase),
            container_statuses: vec![pb::core::ContainerStatus {
                name: text("app"),
                image: text("nginx:1"),
                container_id: format!("cri-o://{}", id(number)),
                ..Default::default()
            }],
            ..Default::default()
        }),
    };
    pod.encode_to_vec()
}

#[tokio::test]
async fn the_pods_socket() {
    let host = Host::new();
    let (_serving, events) = PodsSocket::serve(&host.at("var/lib/kubelet/pods/kubelet.sock"));
    let send = |kind: pb::EventType, pod: Vec<u8>| {
        events.send(Ok(pb::WatchPodsEvent { r#type: kind.into(), pod })).unwrap();
    };
    send(pb::EventType::Added, encoded(1, "Running"));
    send(pb::EventType::Added, encoded(2, "Pending"));
    send(pb::EventType::Added, vec![0xff; 30]);
    send(pb::EventType::InitialSyncComplete, Vec::new());
    let identities = Identities::start(&host.options());
    assert!(identities.settled(Duration::from_secs(5)).await);
    let directory = identities.directory();
    let known = directory.pod(pod_uid(1)).unwrap();
    assert_eq!((known.host_network, known.created_ns), (Some(true), Some(1_700_000_000_000_000_005)));
    assert_eq!(known.container("app").unwrap().requests.cpu_milli, Some(250));
    let name = format!("k8s_app_pod-1_shop_{}_0", uid(1));
    assert_eq!(directory.container(&id(1)).unwrap().name.as_deref(), Some(name.as_str()));
    let status = identities.status().into_iter().find(|s| s.name == "pods-api").unwrap();
    assert_eq!((status.pods, status.rejected, status.state), (2, 1, SourceState::Up));

    send(pb::EventType::Modified, encoded(2, "Running"));
    until(&identities, "runs", |d| d.pod(pod_uid(2)).unwrap().phase.as_deref() == Some("Running")).await;
    send(pb::EventType::Deleted, encoded(1, "Running"));
    until_status(&identities, "pods-api", "one left", |s| s.pods == 1).await;
    drop(events);
    let status = until_status(&identities, "pods-api", "ended", |s| s.state == SourceState::Down).await;
    assert!(status.last_error.unwrap().contains("stream ended"));
    let told = |e: &Option<String>| e.as_deref().is_some_and(|e| e.contains("not synced"));
    until_status(&identities, "pods-api", "not ready", |s| told(&s.last_error)).await;
}

#[tokio::test]
async fn several_sources_make_one_picture() {
    let host = Host::new();
    // The log directories know pods 1 to 3, the kubelet 1 and 2, the runtime 1.
    for number in 1..=3 {
        let folder = format!("var/log/pods/shop_pod-{number}_{}/app", uid(number));
        std::fs::create_dir_all(host.at(&folder)).unwrap();
        std::fs::create_dir_all(host.at("var/log/containers")).unwrap();
        let link = host.at(&format!("var/log/containers/pod-{number}_shop_app-{}.log", id(number * 2 + 1)));
        std::os::unix::fs::symlink(format!("/{folder}/0.log"), link).unwrap();
    }
    let kubelet = Kubelet::new(vec![pod(1), pod(2)]);
    let (_serving, port) = kubelet.serve_plain().await;
    let options = options(&host, &format!("http://127.0.0.1:{port}"), Trust::default(), None);
    let identities = Identities::start(&options);
    let named = |n: u32| id(n * 2 + 1);
    let directory = until(&identities, "all", |d| {
        let image = d.container(&named(2)).and_then(|c| c.image.as_deref());
        d.pods().len() == 3 && d.containers().len() == 3 && image.is_some()
    })
    .await;
    // No runtime answers: what there is, is final.
    assert!(directory.containers().all(|c| !c.partial));
    assert_eq!(directory.container(&named(3)).unwrap().image, None);
    assert_eq!(directory.container(&named(2)).unwrap().image.as_deref(), Some("nginx:1"));

    let runtime = Runtime::new("containerd", "1.7.0");
    runtime.pod(1, true);
    let _runtime = runtime.serve(&host.at("run/containerd/containerd.sock"));
    let directory = until(&identities, "the runtime's word", |d| {
        d.container(&named(1))
            .is_some_and(|c| c.image.as_deref() == Some("docker.io/library/nginx:1") && !c.partial)
    })
    .await;
    // The runtime answers, so it will name these itself before long.
    assert!(directory.container(&named(2)).unwrap().partial);
    // The kubelet's word on the pod, the runtime's on the newest run of its container.
    let known = directory.pod(pod_uid(1)).unwrap();
    assert_eq!((known.qos, known.host_network), (Some(Qos::Burstable), Some(false)));
    let app = known.container("app").unwrap();
    assert_eq!((app.requests.cpu_milli, app.restart_count), (Some(100), Some(2)));
    assert_eq!(directory.container(&named(1)).unwrap().pid, Some(2001));
}
