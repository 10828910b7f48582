//! OOM kills: the kernel's log as captured kernels wrote it, and as nobody
//! should, and the rows of what is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nodegauge::agent::naming::Naming;
use nodegauge::collect::sampler::Namer;
use nodegauge::expose::{Format, Options, Renderer, View};
use nodegauge::identity::Identities;
use nodegauge::identity::enrich::{LabelChoice, LabelStyle};
use nodegauge::kernel::oom::{Parser, memory_cgroup, record};
use nodegauge::snapshot::{Hierarchy, Identity, Kind, Kinds, KubeletLabels, OomGone};
use proptest::prelude::*;

use crate::data::exposition::Sample;
use crate::data::{all_kinds, cgroup, snapshot};
use crate::expose::{render, scrape, text, value};
use crate::standin::cri::Runtime;
use crate::standin::{Host, id, uid, until};
use crate::ttar;

/// Kills by cgroup in a log of many records.
fn kills(log: &[u8]) -> BTreeMap<Option<String>, usize> {
    let mut parser = Parser::default();
    let mut found = BTreeMap::new();
    for line in log.split(|b| *b == b'\n') {
        let Some(record) = record(line) else { continue };
        if let Some(kill) = parser.push(&record) {
            assert!(kill.pid > 1);
            *found.entry(kill.cgroup).or_default() += 1;
        }
    }
    found
}

/// What the log tells of a capture is what its counters say.
#[test]
fn captured_logs_say_what_the_counters_say() {
    let mut logs = 0;
    for scenario in ttar::scenarios() {
        let tree = ttar::unpack(&scenario);
        let Ok(log) = std::fs::read(tree.path().join("dev/kmsg")) else { continue };
        let killed = kills(&log);
        if killed.is_empty() {
            continue;
        }
        logs += 1;
        for (cgroup, kills) in killed {
            let cgroup = cgroup.unwrap_or_else(|| panic!("{scenario}: a kill without a cgroup"));
            let text = ["memory/", ""].iter().find_map(|tree_name| {
                let directory = tree.path().join(format!("sys/fs/cgroup/{tree_name}{}", &cgroup[1..]));
                ["memory.events.local", "memory.events", "memory.oom_control"]
                    .iter()
                    .find_map(|file| std::fs::read_to_string(directory.join(file)).ok())
            });
            let text = text.unwrap_or_else(|| panic!("{scenario}: no counter of {cgroup}"));
            let counted = text.lines().find_map(|l| l.strip_prefix("oom_kill ")).unwrap();
            assert_eq!(counted, kills.to_string(), "{scenario}: {cgroup}");
        }
    }
    assert!(logs >= 5, "only {logs} captures have kills in their log");
}

/// What is gone has this one family, after the rows that are there.
#[test]
fn oom_kills_of_the_gone_are_shown() {
    const FAMILY: &str = "container_oom_events_total";
    let mut snapshot = snapshot(Hierarchy::V2, 2);
    let gone = |path: &str, kills| OomGone { cgroup: cgroup(path, Identity::default()), kills, gone_ms: 1 };
    snapshot.oom_gone = Arc::new(vec![gone("/gone/a", 3), gone("/gone/b", 1)]);
    let samples = scrape(&snapshot);
    assert_eq!(value(&samples, FAMILY, "/gone/a").as_deref(), Some("3"));
    assert_eq!(value(&samples, FAMILY, "/gone/b").as_deref(), Some("1"));
    let of_gone = |s: &&Sample| s.labels.get("id").is_some_and(|id| id.starts_with("/gone/"));
    assert_eq!(samples.iter().filter(of_gone).count(), 2);
    assert_eq!(samples.iter().filter(|s| s.name == FAMILY).count(), snapshot.cgroups.len() + 2);
    let without = render(&snapshot, Format::Prometheus, all_kinds().without(Kind::OomEvent), false);
    assert!(!without.contains("/gone/"));
    // A kubelet's view has those that a kubelet shows.
    let gone = Arc::make_mut(&mut snapshot.oom_gone);
    Arc::make_mut(&mut gone[0].cgroup).kubelet = KubeletLabels::Base;
    let options =
        Options { format: Format::Prometheus, view: View::Kubelet, kinds: Kinds::KUBELET, timestamps: false };
    let text = text(&mut Renderer::new(options), &snapshot);
    assert!(text.contains("/gone/a") && !text.contains("/gone/b"), "{text}");
}

/// A container that no tick saw gets its labels from its path, as soon as its
/// runtime tells, and is a part of its pod.
#[tokio::test]
async fn who_is_gone_has_a_name() {
    let host = Host::new();
    let runtime = Runtime::new("containerd", "v1.7.0");
    let (_, container) = runtime.pod(1, false);
    let _serving = runtime.serve(&host.at("run/containerd/containerd.sock"));
    let identities = Arc::new(Identities::start(&host.options()));
    until(&identities, "named", |d| d.container(&container).is_some_and(|c| !c.partial)).await;
    let choice = LabelChoice { style: Some(LabelStyle::Kubernetes), ..LabelChoice::default() };
    let mut naming = Naming::new(identities, choice, "/var/lib/kubelet".as_ref());
    naming.update(&mut []);
    let path = format!("/kubepods/pod{}/{container}", uid(1));
    let gone = naming.describe_gone(&path, Duration::ZERO);
    assert!(gone.whole && !gone.waits);
    let identity = &gone.cgroup.identity;
    assert_eq!((identity.pod.as_deref(), identity.container.as_deref()), (Some("pod-1"), Some("app")));
    assert_eq!(identity.started_ns, Some(1_700_000_002_000_000_000));
    assert!(!identity.start_is_told && identity.health.is_none());
    assert!(gone.cgroup.labels.contains("container=\"app\"") && gone.cgroup.labels.contains(&path));
    // Of one that nobody knows the pod is known, and after a while there is no more to wait for.
    let other = format!("/kubepods/pod{}/{}", uid(1), id(99));
    assert!(naming.describe_gone(&other, Duration::ZERO).waits);
    let other = naming.describe_gone(&other, Duration::from_secs(10));
    assert!(other.whole && !other.waits);
    assert!(!naming.describe_gone("/system.slice/a.service", Duration::ZERO).whole);
}

/// Text made of the pieces that the parser looks for, in any order.
fn log_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null)".to_owned()),
        Just(",oom_memcg=/a".to_owned()),
        Just(",global_oom".to_owned()),
        Just(",task_memcg=/a/b".to_owned()),
        Just(",task=dd".to_owned()),
        Just(",pid=7".to_owned()),
        Just(",uid=0".to_owned()),
        Just("Task in /a".to_owned()),
        Just(" killed as a result of limit of ".to_owned()),
        Just("Tasks in /a".to_owned()),
        Just(" are going to be killed due to memory.oom.group set".to_owned()),
        Just("Memory cgroup out of memory: ".to_owned()),
        Just("Killed process 7 (dd) total-vm".to_owned()),
        Just("dd invoked oom-killer: gfp".to_owned()),
        Just("\\x".to_owned()),
        Just("\\x0a".to_owned()),
        Just("\n".to_owned()),
        Just("6,1,2,-;".to_owned()),
        Just("6,1,2,c;".to_owned()),
        Just("14,1,2,-;".to_owned()),
        "[ -~]{0,6}",
        "[0-9]{1,22}",
    ];
    let text = proptest::collection::vec(piece, 0..30).prop_map(|parts| parts.concat().into_bytes());
    prop_oneof![4 => text, 1 => proptest::collection::vec(any::<u8>(), 0..300)]
}

proptest! {
    #[test]
    fn nothing_makes_the_parser_panic(records in proptest::collection::vec(log_like(), 0..12)) {
        let mut parser = Parser::default();
        for bytes in &records {
            if let Some(record) = record(bytes)
                && let Some(kill) = parser.push(&record)
            {
                prop_assert_eq!(record.facility, 0);
                prop_assert!(kill.cgroup.is_none_or(|cgroup| cgroup.starts_with('/')));
            }
            if let Some(path) = memory_cgroup(bytes) {
                prop_assert!(path.starts_with('/') && path.len() > 1);
            }
        }
    }

    /// A summary and its kill come back as they went in, whatever the names.
    #[test]
    fn summaries_round_trip(
        path in "(/[a-z0-9_.:@=,(){} -]{1,30}){1,4}",
        name in "[ -~]{0,15}",
        pid in 1u32..4_194_304,
        global: bool,
    ) {
        prop_assume!(!path.contains(",task=") && !path.contains(",task_memcg="));
        let escaped: String = name.chars().map(|c| if c == '\\' { "\\x5c".to_owned() } else { c.to_string() }).collect();
        let limit = if global { "global_oom" } else { "oom_memcg=/" };
        let lines = [
            format!("6,1,5,-;oom-kill:constraint=CONSTRAINT_X,nodemask=(null),cpuset=/,mems_allowed=0,{limit},task_memcg={path},task={escaped},pid={pid},uid=0"),
            format!("3,2,6,-;Out of memory: Killed process {pid} ({escaped}) total-vm:1kB"),
        ];
        let mut parser = Parser::default();
        let kills: Vec<_> = lines.iter().filter_map(|l| parser.push(&record(l.as_bytes())?)).collect();
        prop_assert_eq!(kills.len(), 1);
        prop_assert_eq!((kills[0].pid, kills[0].certain), (pid, true));
        prop_assert_eq!(kills[0].cgroup.as_deref(), Some(path.as_str()));
    }
}
