//! The CRI source against a stand-in with containerd's and with CRI-O's
//! answers, and against runtimes that are not there, hang or lie.

use std::time::{Duration, Instant};

use nodegauge::identity::enrich::{LabelRules, LabelStyle, NetworkRole, network_roles, resolve};
use nodegauge::identity::model::{ContainerState, NetworkMode, PodOrigin};
use nodegauge::identity::path::{PodUid, Runtime as Maker, parse};
use nodegauge::identity::{Directory, Identities, SourceState};
use tokio::io::AsyncWriteExt;

use crate::standin::cri::{Runtime, pb};
use crate::standin::{Host, id, uid, until, until_status};

const SOCKET: &str = "run/containerd/containerd.sock";

fn complete(directory: &Directory, id: &str) -> bool {
    directory.container(id).is_some_and(|c| !c.partial)
}

#[tokio::test]
async fn containerds_answers() {
    let host = Host::new();
    let runtime = Runtime::new("containerd", "1.7.27");
    let (sandbox, container) = runtime.pod(1, false);
    let (host_sandbox, _) = runtime.pod(2, true);
    let _serving = runtime.serve(&host.at(SOCKET));
    let identities = Identities::start(&host.options());
    assert!(identities.settled(Duration::from_secs(5)).await);
    let directory = identities.directory();

    let app = directory.container(&container).unwrap();
    assert_eq!((app.name.as_deref(), app.container.as_deref()), (Some(container.as_str()), Some("app")));
    // The resolved image, not the one asked for or its digest.
    assert_eq!(app.image.as_deref(), Some("docker.io/library/nginx:1"));
    assert_eq!((app.restart_count, app.state), (Some(2), Some(ContainerState::Running)));
    assert_eq!((app.pid, app.started_ns), (Some(2001), Some(1_700_000_002_000_000_000)));
    assert_eq!(app.labels.get("io.cri-containerd.kind"), Some("container"));
    let logs = format!("/var/log/pods/shop_pod-1_{}/app/2.log", uid(1));
    assert_eq!(app.log_path.as_deref(), Some(logs.as_str()));
    let pause = directory.container(&sandbox).unwrap();
    assert!(pause.is_sandbox && !pause.partial);
    assert_eq!((pause.container.as_deref(), pause.name.as_deref()), (None, Some(sandbox.as_str())));
    assert_eq!(pause.image.as_deref(), Some("registry.k8s.io/pause:3.10"));
    assert_eq!((pause.pid, pause.runtime), (Some(1001), Some(Maker::Containerd)));
    assert_eq!(pause.network, Some(NetworkMode::Own));
    assert_eq!(directory.container(&host_sandbox).unwrap().network, Some(NetworkMode::Host));

    let pod = directory.pod(PodUid::parse(&uid(1)).unwrap()).unwrap();
    assert_eq!((&*pod.namespace, &*pod.name, pod.origin), ("shop", "pod-1", Some(PodOrigin::Api)));
    assert_eq!(pod.labels.iter().collect::<Vec<_>>(), [("app.kubernetes.io/name", "shop")]);
    assert_eq!(pod.container("app").unwrap().id.as_deref(), Some(container.as_str()));

    // 1.7 deals events out among its subscribers: it is not asked for any.
    let status = until_status(&identities, "containerd", "up", |s| s.state == SourceState::Up).await;
    assert_eq!((status.events, status.version.as_deref()), (Some(false), Some("containerd 1.7.27")));
    assert_eq!(runtime.calls("GetContainerEvents"), 0);

    let status = until_status(&identities, "containerd", "images", |s| s.images.len() == 2).await;
    let images = &status.images[0];
    assert!(images.path.ends_with("snapshotter.v1.overlayfs") && !images.layers && status.images[1].layers);
    assert_eq!((images.used_bytes, images.inodes_used), (Some(123_456), None));
    assert_eq!((images.measured_ns, runtime.calls("ImageFsInfo")), (Some(1_700_000_003_000_000_000), 1));
}

#[tokio::test]
async fn crios_answers() {
    let host = Host::new();
    let runtime = Runtime::new("cri-o", "1.31.2");
    let (sandbox, container) = runtime.pod(1, false);
    let _serving = runtime.serve(&host.at("run/crio/crio.sock"));
    let identities = Identities::start(&host.options());
    assert!(identities.settled(Duration::from_secs(5)).await);
    let directory = identities.directory();

    // As CRI-O lays them out with the systemd driver, the pause process left out.
    let slice = format!("/kubepods.slice/kubepods-pod{}.slice", uid(1).replace('-', "_"));
    let paths = [
        slice.clone(),
        format!("{slice}/crio-{container}.scope"),
        format!("{slice}/crio-{sandbox}"),
        format!("{slice}/crio-conmon-{container}.scope"),
        format!("{slice}/crio-{container}.scope/container"),
    ];
    let rows: Vec<_> = paths.iter().map(|p| resolve(&parse(p), &directory, Duration::ZERO)).collect();
    let rules = LabelRules::new(LabelStyle::Kubernetes);
    let labels: Vec<String> = rows
        .iter()
        .map(|row| {
            let mut text = String::new();
            row.labels("I", &rules, |name, value| text.push_str(&format!("{name}={value} ")));
            text
        })
        .collect();
    let uid_text = uid(1);
    let want = [
        "container= id=I image= name= namespace=shop pod=pod-1 ".to_owned(),
        format!(
            "container=app id=I image=docker.io/library/nginx:1 name=k8s_app_pod-1_shop_{uid_text}_0 namespace=shop pod=pod-1 "
        ),
        format!(
            "container=POD id=I image=registry.k8s.io/pause:3.10 name=k8s_POD_pod-1_shop_{uid_text}_0 namespace=shop pod=pod-1 "
        ),
        "container= id=I image= name= namespace= pod= ".to_owned(),
        "container= id=I image= name= namespace= pod= ".to_owned(),
    ];
    assert_eq!(labels, want);
    let roles = network_roles(&paths.iter().map(|p| parse(p)).zip(&rows).collect::<Vec<_>>());
    use NetworkRole::{Nobody, OfPod};
    assert_eq!(roles, [Nobody, OfPod(2), OfPod(2), Nobody, OfPod(2)]);
    assert_eq!(directory.container(&container).unwrap().labels.get("restartcount"), Some("2"));
    assert_eq!(directory.container(&sandbox).unwrap().pid, None);
    // Events are offered by the API and switched off by default.
    let status = until_status(&identities, "cri-o", "no events", |s| s.events == Some(false)).await;
    assert_eq!(status.state, SourceState::Up);
}

/// CRI-O need not make a cgroup for a sandbox that has no process. The pod's
/// network is on its own row then, told by any of its containers, not by their
/// monitors; a pod on the host's network has none.
#[tokio::test]
async fn crios_pods_without_a_sandbox_cgroup() {
    let host = Host::new();
    let runtime = Runtime::new("cri-o", "1.31.2");
    let (_, container) = runtime.pod(1, false);
    let (host_sandbox, host_container) = runtime.pod(2, true);
    let _serving = runtime.serve(&host.at("run/crio/crio.sock"));
    let identities = Identities::start(&host.options());
    assert!(identities.settled(Duration::from_secs(5)).await);
    let slice = |number| format!("/kubepods.slice/kubepods-pod{}.slice", uid(number).replace('-', "_"));
    let paths = [
        slice(1),
        format!("{}/crio-{container}.scope", slice(1)),
        format!("{}/crio-{container}.scope/container", slice(1)),
        format!("{}/crio-conmon-{container}.scope", slice(1)),
        slice(2),
        format!("{}/crio-{host_container}.scope", slice(2)),
        format!("{}/crio-{host_sandbox}", slice(2)),
        format!("{}/crio-conmon-{host_container}.scope", slice(2)),
    ];
    let directory = until(&identities, "complete", |d| {
        complete(d, &container) && complete(d, &host_container) && complete(d, &host_sandbox)
    })
    .await;
    let rows: Vec<_> = paths.iter().map(|p| resolve(&parse(p), &directory, Duration::ZERO)).collect();
    let roles = network_roles(&paths.iter().map(|p| parse(p)).zip(&rows).collect::<Vec<_>>());
    use NetworkRole::{Nobody, OfPod};
    assert_eq!(roles, [Nobody, OfPod(0), OfPod(0), Nobody, Nobody, Nobody, Nobody, Nobody]);
}

#[tokio::test]
async fn events_tell_at_once() {
    let host = Host::new();
    let runtime = Runtime::new("containerd", "v2.1.0");
    runtime.change(|s| s.offers_events = true);
    let _serving = runtime.serve(&host.at(SOCKET));
    let mut options = host.options();
    options.timing.refresh = Duration::from_secs(60);
    let identities = Identities::start(&options);
    assert!(identities.settled(Duration::from_secs(5)).await);
    let lists = runtime.calls("ListContainers");

    let (sandbox, container) = runtime.pod(1, false);
    runtime.tell(&container, pb::ContainerEventType::ContainerStartedEvent);
    let told = Instant::now();
    let directory =
        until(&identities, "both named", |d| complete(d, &container) && complete(d, &sandbox)).await;
    println!("named {:?} after the event", told.elapsed());
    assert_eq!(directory.container(&container).unwrap().image.as_deref(), Some("docker.io/library/nginx:1"));
    let image = directory.container(&sandbox).unwrap().image.clone();
    assert_eq!(image.as_deref(), Some("registry.k8s.io/pause:3.10"));

    runtime.change(|s| {
        let (_, status) = s.containers.get_mut(&container).unwrap();
        status.status.as_mut().unwrap().state = pb::ContainerState::ContainerExited.into();
    });
    runtime.tell(&container, pb::ContainerEventType::ContainerStoppedEvent);
    until(&identities, "ended", |d| d.container(&container).unwrap().state == Some(ContainerState::Exited))
        .await;
    assert_eq!(runtime.calls("ListContainers"), lists, "nothing was listed for that");
    let status = identities.status().into_iter().find(|s| s.name == "containerd").unwrap();
    assert_eq!(status.events, Some(true));
}

#[tokio::test]
async fn an_unknown_id_makes_it_look_again() {
    let host = Host::new();
    let runtime = Runtime::new("containerd", "1.6.20");
    let _serving = runtime.serve(&host.at(SOCKET));
    let mut options = host.options();
    options.timing.refresh = Duration::from_secs(60);
    let identities = Identities::start(&options);
    assert!(identities.settled(Duration::from_secs(5)).await);
    // The cgroup is there before the runtime answers for it.
    let (_, container) = (id(2), id(3));
    let path = format!("/kubepods/pod{}/{container}", uid(1));
    identities.want(&parse(&path));
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(identities.directory().container(&container).is_none());
    runtime.pod(1, false);
    let asked = Instant::now();
    until(&identities, "named", |d| complete(d, &container)).await;
    let took = asked.elapsed();
    println!("named {took:?} after it could be");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(identities.counts().wanted, 0);
    // An id that nobody will ever name is asked for a few times, not for ever.
    let nobody = format!("/docker/{}", id(999));
    let before = runtime.calls("ListContainers");
    for _ in 0..400 {
        identities.want(&parse(&nobody));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let lists = runtime.calls("ListContainers") - before;
    assert!((2..=7).contains(&lists), "{lists} lists");
}

#[tokio::test]
async fn a_runtime_may_come_late_go_and_be_replaced() {
    let host = Host::new();
    let identities = Identities::start(&host.options());
    assert!(identities.settled(Duration::from_secs(5)).await);
    assert!(!identities.directory().expecting());
    let status = identities.status().into_iter().find(|s| s.name == "containerd").unwrap();
    assert_eq!((status.state, status.failures), (SourceState::Absent, 0));

    let runtime = Runtime::new("containerd", "1.7.0");
    let (_, first) = runtime.pod(1, false);
    let serving = runtime.serve(&host.at(SOCKET));
    until(&identities, "named", |d| complete(d, &first) && d.expecting()).await;

    // Restarted: names stay, and new ones come from the new one.
    drop(serving);
    std::fs::remove_file(host.at(SOCKET)).unwrap();
    until_status(&identities, "containerd", "gone", |s| s.state != SourceState::Up).await;
    assert!(complete(&identities.directory(), &first));
    let (_, second) = runtime.pod(2, false);
    let serving = runtime.serve(&host.at(SOCKET));
    until(&identities, "named after the restart", |d| complete(d, &second)).await;

    // Replaced while the old one still holds its connections.
    let other = Runtime::new("containerd", "1.7.1");
    let (_, third) = other.pod(3, false);
    let _other_serving = other.serve(&host.at(SOCKET));
    until(&identities, "named by the replacement", |d| complete(d, &third)).await;
    drop(serving);
}

#[tokio::test]
async fn a_hanging_runtime_delays_nobody() {
    let host = Host::new();
    let runtime = Runtime::new("containerd", "1.7.0");
    let (_, first) = runtime.pod(1, false);
    let _serving = runtime.serve(&host.at(SOCKET));
    let other = Runtime::new("cri-o", "1.31.0");
    let _other_serving = other.serve(&host.at("run/crio/crio.sock"));
    let identities = Identities::start(&host.options());
    until(&identities, "named", |d| complete(d, &first)).await;
    runtime.change(|s| s.hangs = true);
    let slow = |e: &str| e.contains("no answer within");
    let status = until_status(&identities, "containerd", "down", |s| s.state == SourceState::Down).await;
    assert!(slow(status.last_error.as_deref().unwrap()), "{status:?}");
    assert!(complete(&identities.directory(), &first), "what it told stays");
    let (_, theirs) = other.pod(7, false);
    let asked = Instant::now();
    until(&identities, "the other runtime goes on", |d| complete(d, &theirs)).await;
    assert!(asked.elapsed() < Duration::from_secs(2));
    // It comes back.
    let (_, second) = runtime.pod(2, false);
    runtime.change(|s| s.hangs = false);
    until(&identities, "named at last", |d| complete(d, &second)).await;
    let status = until_status(&identities, "containerd", "up", |s| s.state == SourceState::Up).await;
    assert_eq!(status.last_error, None);
}

#[tokio::test]
async fn garbage_and_huge_answers_are_refused() {
    let host = Host::new();
    std::fs::write(host.at("run/containerd/containerd.sock"), "no socket").unwrap();
    let listener = tokio::net::UnixListener::bind(host.at("run/crio/crio.sock")).unwrap();
    let garbage = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(&[0xff; 4096]).await;
        }
    });
    let identities = Identities::start(&host.options());
    assert!(identities.settled(Duration::from_secs(5)).await);
    for source in ["containerd", "cri-o"] {
        let status = identities.status().into_iter().find(|s| s.name == source).unwrap();
        assert_eq!(status.state, SourceState::Down, "{status:?}");
        println!("{}", status.last_error.unwrap());
    }
    garbage.abort();

    // A list of 100 MB.
    std::fs::remove_file(host.at(SOCKET)).unwrap();
    let runtime = Runtime::new("containerd", "1.7.0");
    let (sandbox, container) = runtime.pod(1, false);
    runtime.change(|s| {
        let (listed, _) = s.sandboxes.get_mut(&sandbox).unwrap();
        listed.annotations.insert("large".into(), "x".repeat(100 << 20));
    });
    let _serving = runtime.serve(&host.at(SOCKET));
    let refused = |e: &Option<String>| e.as_deref().is_some_and(|e| e.contains("message length too large"));
    until_status(&identities, "containerd", "refuses it", |s| refused(&s.last_error)).await;
    assert!(identities.directory().container(&container).is_none());
    runtime.change(|s| _ = s.sandboxes.get_mut(&sandbox).unwrap().0.annotations.remove("large"));
    until(&identities, "named once it is sane", |d| complete(d, &container)).await;
}

#[tokio::test]
async fn one_broken_container_does_not_hide_the_others() {
    let host = Host::new();
    let runtime = Runtime::new("containerd", "1.7.0");
    let (broken_sandbox, broken) = runtime.pod(1, false);
    let (_, fine) = runtime.pod(2, false);
    let (_, nameless) = runtime.pod(3, false);
    runtime.change(|s| {
        s.broken = vec![broken.clone(), broken_sandbox.clone()];
        s.containers.get_mut(&nameless).unwrap().0.metadata = None;
    });
    let _serving = runtime.serve(&host.at(SOCKET));
    let identities = Identities::start(&host.options());
    until(&identities, "the fine one", |d| complete(d, &fine)).await;
    // After a few tries it is shown with what the list tells.
    let directory = until(&identities, "the broken one", |d| complete(d, &broken)).await;
    assert_eq!(directory.container(&broken).unwrap().image.as_deref(), Some("nginx:1"));
    until(&identities, "its sandbox", |d| complete(d, &broken_sandbox)).await;
    let status = identities.status().into_iter().find(|s| s.name == "containerd").unwrap();
    assert!(status.rejected >= 1 && status.state == SourceState::Up, "{status:?}");
    assert_eq!(runtime.calls("ContainerStatus"), 3 + 1);
}

#[tokio::test]
async fn a_slow_status_holds_up_no_other() {
    let host = Host::new();
    let runtime = Runtime::new("containerd", "1.6.20");
    let (_, slow) = runtime.pod(1, false);
    runtime.change(|s| s.held.push(slow.clone()));
    let _serving = runtime.serve(&host.at(SOCKET));
    let mut options = host.options();
    options.timing.refresh = Duration::from_secs(60);
    options.timing.call = Duration::from_secs(30);
    let identities = Identities::start(&options);
    until(&identities, "listed", |d| d.container(&slow).is_some()).await;
    let (_, later) = runtime.pod(2, false);
    identities.want(&parse(&format!("/kubepods/pod{}/{later}", uid(2))));
    let directory = until(&identities, "named meanwhile", |d| complete(d, &later)).await;
    assert!(!complete(&directory, &slow), "its status is still to come");
    assert_eq!(runtime.calls("ContainerStatus"), 2, "each was asked for once");
    runtime.change(|s| s.held.clear());
    until(&identities, "told at last", |d| complete(d, &slow)).await;
}

#[tokio::test]
async fn five_hundred_pods_from_cold() {
    let host = Host::new();
    let runtime = Runtime::new("containerd", "1.7.0");
    let ids: Vec<_> = (1..=500).map(|n| runtime.pod(n, false)).collect();
    let _serving = runtime.serve(&host.at(SOCKET));
    let started = Instant::now();
    let identities = Identities::start(&host.options());
    assert!(identities.settled(Duration::from_secs(30)).await);
    let took = started.elapsed();
    let directory = identities.directory();
    for (sandbox, container) in &ids {
        assert!(complete(&directory, sandbox) && complete(&directory, container));
    }
    println!("500 pods, 1000 containers: {took:?}");
    assert_eq!(directory.pods().len(), 500);
    // A refresh that finds nothing new makes no new directory.
    let generation = directory.generation();
    let answers = |s: &nodegauge::identity::SourceStatus| s.answers;
    let before = until_status(&identities, "containerd", "answers", |s| answers(s) > 0).await.answers;
    until_status(&identities, "containerd", "refreshed", |s| answers(s) > before + 1).await;
    assert_eq!(identities.directory().generation(), generation);
}

#[tokio::test]
async fn sources_are_told_of_in_own_metrics() {
    let host = Host::new();
    let runtime = Runtime::new("containerd", "1.7.27");
    runtime.pod(1, false);
    let _serving = runtime.serve(&host.at(SOCKET));
    let identities = std::sync::Arc::new(Identities::start(&host.options()));
    until_status(&identities, "containerd", "up", |s| s.state == SourceState::Up).await;
    assert!(identities.settled(Duration::from_secs(10)).await);
    let telemetry = nodegauge::telemetry::Telemetry::new();
    assert!(!telemetry.encode(true).contains("nodegauge_source_up"), "nobody was asked yet");
    telemetry.names_come_from(&identities);
    let text = telemetry.encode(false);
    let value = |series: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse::<f64>().unwrap()
    };
    assert_eq!(value("nodegauge_source_up{source=\"containerd\"}"), 1.0);
    assert_eq!(value("nodegauge_source_up{source=\"cri-o\"}"), 0.0);
    assert!(value("nodegauge_source_answers_total{source=\"containerd\"}") >= 1.0);
    assert_eq!(value("nodegauge_source_failures_total{source=\"containerd\"}"), 0.0);
    assert_eq!(value("nodegauge_source_events{source=\"containerd\"}"), 0.0);
    assert_eq!(value("nodegauge_source_known{source=\"containerd\",kind=\"container\"}"), 2.0);
    assert_eq!(value("nodegauge_source_known{source=\"containerd\",kind=\"pod\"}"), 1.0);
    assert_eq!(value("nodegauge_identities{kind=\"container\"}"), 2.0);
    assert!(value("nodegauge_source_answer_age_seconds{source=\"containerd\"}") < 60.0);
    // What is not there says no more than that.
    assert!(!text.contains("nodegauge_source_known{source=\"cri-o\""), "{text}");
}
