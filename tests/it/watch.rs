//! What is known of the API server's objects, whatever becomes of its watches.

#![allow(clippy::disallowed_methods, reason = "what is noticed sooner or later is waited for")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use nodegauge::aggregate::objects::{ApiNamespace, Facts};
use nodegauge::aggregate::watch::{Timing, Watcher};
use serde_json::json;

use crate::standin::cluster::Cluster;

const KIND: &str = "namespaces";

fn timing() -> Timing {
    Timing {
        answer: Duration::from_secs(20),
        watch: Duration::from_secs(60),
        retry_min: Duration::from_millis(5),
        retry_max: Duration::from_millis(50),
    }
}

/// Runs a watcher beside `test`, which looks at what it holds.
fn watched(cluster: &Cluster, timing: Timing, test: impl FnOnce(&Facts)) {
    let facts = Arc::new(Facts::default());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::scope(|scope| {
        let watching = Arc::clone(&facts);
        scope.spawn(move || {
            runtime.block_on(async {
                let watcher =
                    Watcher::<ApiNamespace>::new(&watching.namespaces, cluster.client(), (), timing);
                tokio::select! {
                    never = watcher.run() => match never {},
                    _ = stopped => {}
                }
            });
        });
        // Also when the test fails, or the thread would keep it.
        let stop = stop;
        test(&facts);
        drop(stop);
    });
}

fn eventually(what: &str, mut test: impl FnMut() -> bool) {
    let began = Instant::now();
    while !test() {
        assert!(began.elapsed() < Duration::from_secs(60), "not within {:?}: {what}", began.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn put(cluster: &Cluster, name: &str, uid: &str) {
    cluster.put(KIND, json!({"metadata": {"name": name, "uid": uid, "annotations": {"long": "x"}}}));
}

fn uid(facts: &Facts, name: &str) -> Option<String> {
    facts.namespaces.get(name).map(|kept| kept.uid.to_string())
}

fn holds(facts: &Facts, name: &str, expected: Option<&str>) {
    eventually(&format!("{name} is {expected:?}"), || uid(facts, name).as_deref() == expected);
}

#[test]
fn lists_come_in_pages_and_changes_follow() {
    let cluster = Cluster::start();
    for at in 0..1_203 {
        put(&cluster, &format!("n{at:04}"), &format!("u{at}"));
    }
    watched(&cluster, timing(), |facts| {
        eventually("all are held", || facts.namespaces.counts().objects == 1_203);
        assert!(facts.namespaces.is_known());
        assert_eq!(uid(facts, "n1202").as_deref(), Some("u1202"));
        eventually("it is watched", || cluster.watchers() == 1);
        put(&cluster, "new", "first");
        holds(facts, "new", Some("first"));
        put(&cluster, "new", "second");
        holds(facts, "new", Some("second"));
        cluster.remove(KIND, "new");
        holds(facts, "new", None);
        let pages = cluster.queries().iter().filter(|q| !q.contains("watch=1")).count();
        assert_eq!((pages, cluster.asked(KIND)), (3, (1, 1)));
        assert!(facts.namespaces.counts().up);
    });
}

#[test]
fn watches_that_end_or_break_off_go_on_where_they_were() {
    let cluster = Cluster::start();
    put(&cluster, "a", "1");
    watched(&cluster, timing(), |facts| {
        holds(facts, "a", Some("1"));
        for round in 0..3 {
            eventually("it is watched", || cluster.watchers() == 1);
            let name = format!("n{round}");
            match round {
                0 => cluster.end_watches(),
                1 => cluster.break_watches(),
                _ => cluster.babble(),
            }
            // Between two watches.
            put(&cluster, &name, "2");
            holds(facts, &name, Some("2"));
        }
        let counts = facts.namespaces.counts();
        assert_eq!((counts.lists, cluster.asked(KIND).0), (1, 1), "never listed again");
        assert!(counts.restarts >= 3, "{counts:?}");
    });
}

#[test]
fn what_is_forgotten_is_listed_again_and_what_is_gone_goes() {
    let cluster = Cluster::start();
    put(&cluster, "stays", "1");
    put(&cluster, "goes", "1");
    watched(&cluster, timing(), |facts| {
        eventually("it is watched", || cluster.watchers() == 1);
        // Nothing is told of it: as if it happened while nobody watched.
        cluster.down(true);
        cluster.remove(KIND, "goes");
        put(&cluster, "comes", "1");
        cluster.forget();
        cluster.down(false);
        holds(facts, "comes", Some("1"));
        holds(facts, "goes", None);
        assert_eq!(uid(facts, "stays").as_deref(), Some("1"));
        eventually("it is watched again", || cluster.watchers() == 1);
        let lists = cluster.asked(KIND).0;
        // A bookmark is enough to go on from.
        cluster.bookmark(KIND);
        cluster.forget();
        cluster.bookmark(KIND);
        put(&cluster, "later", "1");
        holds(facts, "later", Some("1"));
        cluster.end_watches();
        put(&cluster, "last", "1");
        holds(facts, "last", Some("1"));
        assert_eq!(cluster.asked(KIND).0, lists, "nothing was missed");
    });
}

#[test]
fn an_api_server_that_is_not_there_is_waited_for_and_its_picture_stays() {
    let cluster = Cluster::start();
    put(&cluster, "a", "1");
    cluster.down(true);
    watched(&cluster, timing(), |facts| {
        eventually("it was tried", || facts.namespaces.counts().failures >= 3);
        assert!(!facts.namespaces.is_known() && !facts.namespaces.counts().up);
        cluster.down(false);
        holds(facts, "a", Some("1"));
        cluster.down(true);
        let before = facts.namespaces.counts().failures;
        eventually("it is seen to be down", || !facts.namespaces.counts().up);
        eventually("it was tried again", || facts.namespaces.counts().failures >= before + 3);
        assert_eq!(uid(facts, "a").as_deref(), Some("1"));
        cluster.down(false);
        put(&cluster, "b", "1");
        holds(facts, "b", Some("1"));
        eventually("it is up", || facts.namespaces.counts().up);
    });
}

#[test]
fn a_watch_that_says_nothing_is_given_up() {
    let cluster = Cluster::start();
    put(&cluster, "a", "1");
    let short = Timing { watch: Duration::from_millis(50), answer: Duration::from_millis(400), ..timing() };
    watched(&cluster, short, |facts| {
        holds(facts, "a", Some("1"));
        eventually("it watches anew", || cluster.asked(KIND).1 >= 3);
        put(&cluster, "b", "1");
        holds(facts, "b", Some("1"));
    });
}
