//! What came, went and was killed, as cAdvisor's REST API tells it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use nodegauge::auth::path;
use nodegauge::config::EventLimits;
use nodegauge::expose::cadvisor::World;
use nodegauge::expose::cadvisor::events::Events;
use nodegauge::expose::cadvisor_v1;
use nodegauge::snapshot::{Hierarchy, OomGone, OomKill, Snapshot, reading};
use serde_json::{Value, json};

use crate::cadvisor_api::{POD, taken, world};

#[test]
fn events_are_what_came_went_and_was_killed() {
    let mut world = world(Hierarchy::V2, 1);
    let next = |world: &World, change: &dyn Fn(&mut Snapshot)| {
        let mut snapshot = (*world.snapshot).clone();
        snapshot.sequence += 1;
        snapshot.wall_ms += 10_000;
        change(&mut snapshot);
        Arc::new(snapshot)
    };
    world.snapshot = next(&world, &|s| {
        let kills = s.cgroups[4].memory.oom_kills.unwrap().get();
        s.cgroups[4].memory.oom_kills = reading(kills + 2);
    });
    world.events.record(&world.snapshot);
    world.snapshot = next(&world, &|s| drop(s.cgroups.remove(5)));
    world.events.record(&world.snapshot);
    let find = |query: &str| {
        let found = taken(cadvisor_v1::answer(&world, 3, "events", "", &path::query(query).unwrap(), b""));
        let list = found.as_array().unwrap().clone();
        list.iter()
            .map(|e| (e["event_type"].clone(), e["container_name"].clone(), e["event_data"].clone()))
            .collect::<Vec<_>>()
    };
    let types = |query: &str| find(query).into_iter().map(|(kind, ..)| kind).collect::<Vec<_>>();
    assert_eq!(types(""), Vec::<Value>::new());
    assert_eq!(types("creation_events=true"), ["containerCreation"]);
    assert_eq!(types("creation_events=true&subcontainers=true").len(), 6);
    assert_eq!(types("creation_events=true&subcontainers=true&max_events=2").len(), 2);
    assert_eq!(
        types("oom_events=1&oom_kill_events=true&subcontainers=true"),
        ["oom", "oomKill", "oom", "oomKill"]
    );
    let gone = find("deletion_events=true&subcontainers=true");
    let expected = (
        json!("containerDeletion"),
        json!(format!("/{POD}/c-log")),
        json!({"container_deletion": {"exit_code": -1}}),
    );
    assert_eq!(gone, [expected]);
    assert_eq!(
        types("all_events=true&subcontainers=true&start_time=2023-11-14T22:13:31Z"),
        ["containerDeletion"]
    );
    let both = cadvisor_v1::answer(
        &world,
        3,
        "events",
        "",
        &path::query("stream=true&start_time=2023-11-14T22:13:31Z").unwrap(),
        b"",
    );
    assert!(matches!(both, Some(Err(_))));
}

/// The world after `change` of its last snapshot, ten seconds later.
fn later(world: &mut World, change: impl FnOnce(&mut Snapshot)) {
    let mut snapshot = (*world.snapshot).clone();
    snapshot.sequence += 1;
    snapshot.wall_ms += 10_000;
    snapshot.oom_kills.clear();
    change(&mut snapshot);
    world.snapshot = Arc::new(snapshot);
    world.events.record(&world.snapshot);
}

/// Type, container and data of what happened below the root.
fn happened(world: &World, query: &str) -> Vec<(Value, Value, Value)> {
    let query = path::query(&format!("subcontainers=1&max_events=-1&{query}")).unwrap();
    let found = taken(cadvisor_v1::answer(world, 3, "events", "", &query, b""));
    let list = found.as_array().unwrap().clone();
    let told = |e: &Value| (e["event_type"].clone(), e["container_name"].clone(), e["event_data"].clone());
    list.iter().map(told).collect()
}

fn killed(cgroup: &str, limit: Option<&str>, wall_ms: u64) -> OomKill {
    OomKill {
        cgroup: format!("/{POD}/{cgroup}"),
        wall_ms,
        pid: 4711,
        process: "java".into(),
        limit: limit.map(str::to_owned),
        constraint: Some("CONSTRAINT_MEMCG".into()),
    }
}

#[test]
fn the_log_says_who_was_killed() {
    let mut world = world(Hierarchy::V2, 1);
    let count = |s: &mut Snapshot, more: u64| {
        let kills = s.cgroups[4].memory.oom_kills.unwrap().get();
        s.cgroups[4].memory.oom_kills = reading(kills + more);
    };
    let app = json!(format!("/{POD}/b-app"));
    let victim = json!({"oom": {"pid": 4711, "process_name": "java", "constraint": "CONSTRAINT_MEMCG"}});
    let (pod, nothing) = (json!(format!("/{POD}")), json!({}));
    let of_limit = |limit: &Value| {
        [(json!("oom"), app.clone(), nothing.clone()), (json!("oomKill"), limit.clone(), victim.clone())]
    };
    // Counter and log in the same tick are one kill.
    later(&mut world, |s| {
        count(s, 1);
        let pod = format!("/{POD}");
        s.oom_kills.push(killed("b-app/inner", Some(&pod), s.wall_ms - 3_000));
    });
    let query = "oom_events=1&oom_kill_events=1";
    let inner = json!(format!("/{POD}/b-app/inner"));
    let first = [(json!("oom"), inner, nothing.clone()), (json!("oomKill"), pod, victim.clone())];
    assert_eq!(happened(&world, query), first);
    // The log comes one tick after the counter.
    later(&mut world, |s| count(s, 1));
    let plain = (json!("oomKill"), app.clone(), nothing.clone());
    assert_eq!(happened(&world, query)[2..], [(json!("oom"), app.clone(), nothing.clone()), plain]);
    later(&mut world, |s| s.oom_kills.push(killed("b-app", None, s.wall_ms)));
    assert_eq!(happened(&world, query)[2..], of_limit(&app));
    // Another that the counter has not seen, since its cgroup is gone.
    later(&mut world, |s| {
        s.cgroups.remove(4);
        s.oom_kills.push(killed("b-app", None, s.wall_ms));
    });
    assert_eq!(happened(&world, query)[4..], of_limit(&json!("/")));
    assert_eq!(happened(&world, "deletion_events=1").len(), 1);
}

#[test]
fn kills_of_what_is_gone_are_told_by_what_is_kept_of_it() {
    let mut world = world(Hierarchy::V2, 1);
    later(&mut world, |s| {
        let gone = s.cgroups.remove(5);
        let kills = gone.memory.oom_kills.unwrap().get() + 1;
        s.oom_gone = Arc::new(vec![OomGone { cgroup: gone.cgroup, kills, gone_ms: s.wall_ms }]);
    });
    let types: Vec<_> = happened(&world, "all_events=1").into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(types[6..], ["oom", "oomKill", "containerDeletion"]);
}

#[test]
fn how_a_container_ended_is_told_once_it_is_known() {
    let mut world = world(Hierarchy::V2, 1);
    let code = Arc::new(AtomicI32::new(0));
    let told = Arc::clone(&code);
    let ids = move |id: &str| {
        assert_eq!(id, format!("{:0>64}", "log"));
        Some(told.load(Ordering::Relaxed)).filter(|code| *code != 0)
    };
    world.events = Arc::new(Events::new(EventLimits::default(), Box::new(ids)));
    world.events.record(&world.snapshot);
    later(&mut world, |s| drop(s.cgroups.remove(5)));
    let ended =
        |world: &World| happened(world, "deletion_events=1")[0].2["container_deletion"]["exit_code"].clone();
    assert_eq!(ended(&world), -1);
    code.store(137, Ordering::Relaxed);
    assert_eq!(ended(&world), 137);
    // It is asked no more.
    code.store(1, Ordering::Relaxed);
    later(&mut world, |_| ());
    assert_eq!(ended(&world), 137);
}

#[test]
fn events_are_told_within_limits() {
    let mut world = world(Hierarchy::V2, 1);
    let of_limits = |age: [u64; 4], count| {
        let limits = EventLimits { age: age.map(Duration::from_secs), count };
        Arc::new(Events::new(limits, Box::new(|_: &str| None)))
    };
    let kinds = |world: &World| -> Vec<Value> {
        happened(world, "all_events=1").into_iter().map(|(kind, ..)| kind).collect()
    };
    let again = |world: &mut World, events| {
        world.events = events;
        world.events.record(&world.snapshot);
        later(world, |s| drop(s.cgroups.pop()));
        later(world, |_| ());
    };
    again(&mut world, of_limits([3600; 4], [1, 1, 2, 1]));
    assert_eq!(kinds(&world), ["containerCreation", "containerCreation", "containerDeletion"]);
    again(&mut world, of_limits([3600; 4], [0; 4]));
    assert_eq!(kinds(&world), Vec::<Value>::new());
    // Creations were found twenty seconds ago, the deletion ten.
    again(&mut world, of_limits([11; 4], [100; 4]));
    assert_eq!(kinds(&world), ["containerDeletion"]);
    again(&mut world, of_limits([0; 4], [100; 4]));
    assert_eq!(kinds(&world), Vec::<Value>::new());
}
