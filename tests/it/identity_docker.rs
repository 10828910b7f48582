//! The Docker source against a stand-in that answers well, hangs, or lies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nodegauge::identity::model::{ContainerState, NetworkMode};
use nodegauge::identity::path::{Runtime, parse};
use nodegauge::identity::{Directory, Identities, SourceState};
use nodegauge::snapshot::{Cgroup, CgroupSample, Health, Hierarchy, Identity};

use crate::data::{cgroup, snapshot};
use crate::expose::{scrape, value};
use crate::standin::docker::{Daemon, Mood};
use crate::standin::{Host, id, until, until_status};

const SOCKET: &str = "run/docker.sock";

fn complete(directory: &Directory, id: &str) -> bool {
    directory.container(id).is_some_and(|c| !c.partial)
}

#[tokio::test]
async fn lists_inspects_and_follows_events() {
    let host = Host::new();
    let daemon = Daemon::new();
    daemon.add(&id(1), "web");
    let _serving = daemon.serve(&host.at(SOCKET));
    let mut options = host.options();
    options.timing.refresh = Duration::from_secs(60);
    let identities = Identities::start(&options);
    assert!(identities.settled(Duration::from_secs(5)).await);
    let directory = identities.directory();
    let web = directory.container(&id(1)).unwrap();
    // What was asked for, which a list shows as a digest once the tag has moved.
    assert_eq!((web.name.as_deref(), web.image.as_deref()), (Some("web"), Some("nginx:1")));
    assert_eq!(web.labels.get("com.docker.compose.service"), Some("web"));
    assert_eq!(web.labels.get("restartcount"), Some("1"));
    assert_eq!((web.pid, web.runtime), (Some(77), Some(Runtime::Docker)));
    assert_eq!(web.network, Some(NetworkMode::Own));
    assert!(web.started_ns > web.created_ns && !web.partial);

    // Events, several in one piece and in the midst of what does not concern us.
    let inspected = daemon.inspected();
    for _ in 0..50 {
        daemon.tell("exec_create: /bin/healthcheck", &id(1));
        daemon.tell("health_status: healthy", &id(1));
    }
    daemon.add(&id(2), "db");
    daemon.tell("create", &id(2));
    daemon.tell("start", &id(2));
    let told = Instant::now();
    until(&identities, "db", |d| complete(d, &id(2))).await;
    println!("named {:?} after the event", told.elapsed());
    assert!(daemon.inspected() - inspected <= 2, "{}", daemon.inspected() - inspected);
    daemon.tell("die", &id(2));
    until(&identities, "ended", |d| d.container(&id(2)).unwrap().state == Some(ContainerState::Exited)).await;
    let status = identities.status().into_iter().find(|s| s.name == "docker").unwrap();
    assert_eq!((status.version.as_deref(), status.events), (Some("20.10.24 (API 1.41)"), Some(true)));
    assert_eq!((status.answers, status.failures), (1, 0));
    let status = until_status(&identities, "docker", "images", |s| !s.images.is_empty()).await;
    assert_eq!((status.images[0].path.as_str(), status.images[0].used_bytes), ("/var/lib/docker", None));
}

#[tokio::test]
async fn missed_events_are_made_up_for() {
    let host = Host::new();
    let daemon = Daemon::new();
    let _serving = daemon.serve(&host.at(SOCKET));
    let identities = Identities::start(&host.options());
    assert!(identities.settled(Duration::from_secs(5)).await);
    daemon.add(&id(1), "silent");
    until(&identities, "by the refresh", |d| complete(d, &id(1))).await;
    daemon.add(&id(2), "wanted");
    identities.want(&parse(&format!("/docker/{}", id(2))));
    until(&identities, "by asking", |d| complete(d, &id(2))).await;
    // Inspected once each, however often they are listed.
    let inspected = daemon.inspected();
    let seen = until_status(&identities, "docker", "answers", |s| s.answers > 0).await.answers;
    until_status(&identities, "docker", "refreshed", |s| s.answers > seen + 1).await;
    assert_eq!(daemon.inspected(), inspected);
}

#[tokio::test]
async fn one_broken_container_does_not_hide_the_others() {
    let host = Host::new();
    let daemon = Daemon::new();
    daemon.add(&id(1), "broken");
    daemon.add(&id(2), "fine");
    daemon.break_container(&id(1));
    let _serving = daemon.serve(&host.at(SOCKET));
    let identities = Identities::start(&host.options());
    let directory = until(&identities, "both", |d| complete(d, &id(1)) && complete(d, &id(2))).await;
    assert_eq!(directory.container(&id(1)).unwrap().name.as_deref(), Some("broken"));
    let status = until_status(&identities, "docker", "up", |s| s.state == SourceState::Up).await;
    assert_eq!(status.rejected, 1);
}

#[tokio::test]
async fn hangs_garbage_and_endless_answers() {
    let host = Host::new();
    let daemon = Daemon::new();
    daemon.add(&id(1), "web");
    let _serving = daemon.serve(&host.at(SOCKET));
    let identities = Identities::start(&host.options());
    until(&identities, "named", |d| complete(d, &id(1))).await;
    let cases = [
        (Mood::Hangs, "no answer within"),
        (Mood::Garbage, "expected value"),
        (Mood::Huge, "larger than"),
        (Mood::Hangs, "no answer within"),
    ];
    for (mood, error) in cases {
        daemon.mood(mood);
        let told = |e: &Option<String>| e.as_deref().is_some_and(|e| e.contains(error));
        let status = until_status(&identities, "docker", error, |s| told(&s.last_error)).await;
        assert_eq!(status.state, SourceState::Down);
        assert!(complete(&identities.directory(), &id(1)), "what it told stays");
    }
    daemon.add(&id(2), "later");
    daemon.mood(Mood::Well);
    until(&identities, "named at last", |d| complete(d, &id(2))).await;
    // And a daemon that goes and comes back with fewer containers.
    daemon.remove(&id(1));
    until_status(&identities, "docker", "one left", |s| s.containers == 1).await;
    assert!(complete(&identities.directory(), &id(1)), "the last sample still needs its name");
}

/// Health comes with the inspection, then by events, for which nobody is asked.
#[tokio::test]
async fn health_follows_events() {
    let host = Host::new();
    let daemon = Daemon::new();
    daemon.add(&id(1), "web");
    daemon.add(&id(2), "db");
    daemon.set_health(&id(1), "starting");
    let _serving = daemon.serve(&host.at(SOCKET));
    let mut options = host.options();
    options.timing.refresh = Duration::from_secs(60);
    let identities = Identities::start(&options);
    until(&identities, "both", |d| complete(d, &id(1)) && complete(d, &id(2))).await;
    let health = |d: &Directory, n: u32| d.container(&id(n)).unwrap().health;
    let directory = identities.directory();
    assert_eq!((health(&directory, 1), health(&directory, 2)), (Some(Health::Starting), None));
    let inspected = daemon.inspected();
    for (word, want) in [("healthy", Health::Healthy), ("unhealthy", Health::Unhealthy)] {
        daemon.tell(&format!("health_status: {word}"), &id(1));
        until(&identities, word, |d| health(d, 1) == Some(want)).await;
    }
    assert_eq!(daemon.inspected(), inspected);
    assert_eq!(health(&identities.directory(), 2), None);
}

#[test]
fn start_and_health_are_the_runtimes() {
    let check = |identity: Identity, start: &str, health: &str| {
        let mut one = snapshot(Hierarchy::V2, 0);
        let made = Cgroup { created: Some(1_700_000_000), ..Cgroup::clone(&cgroup("/docker/a", identity)) };
        one.cgroups = vec![CgroupSample::new(Arc::new(made))];
        let samples = scrape(&one);
        let got =
            ["container_creation_time_seconds", "container_start_time_seconds", "container_health_state"]
                .map(|family| value(&samples, family, "/docker/a"));
        assert_eq!(got, ["1700000000", start, health].map(|v| Some(v.to_owned())));
    };
    let told = Identity { started_ns: Some(1_700_000_009_900_000_000), ..Identity::default() };
    check(Identity::default(), "1700000000", "-1");
    // The kubelet shows the cgroup's time whatever its runtime says.
    check(told.clone(), "1700000000", "-1");
    let docker = |health| Identity { start_is_told: true, health, ..told.clone() };
    check(docker(None), "1700000009", "-1");
    check(docker(Some(Health::Healthy)), "1700000009", "1");
    check(docker(Some(Health::Starting)), "1700000009", "0");
    check(docker(Some(Health::Unhealthy)), "1700000009", "0");
}
