//! Agent and aggregator in one process, as a newcomer starts them.

#![allow(clippy::disallowed_methods, reason = "these tests are about the program as it is started")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cli::{Agent, nodegauge};

const BOTH: [&str; 4] = ["--listen", "127.0.0.1:0", "--aggregator-listen", "127.0.0.1:0"];

fn start(more: &[&str]) -> (Agent, SocketAddr) {
    let mut agent = Agent::start(nodegauge([more, &BOTH].concat(), &[]));
    let aggregator = agent.next_address();
    (agent, aggregator)
}

fn eventually<T>(what: &str, mut test: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = test() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(90), "not within {:?}: {what}", began.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn json(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or_default()
}

#[test]
fn both_serve_the_same_machine_and_stop_together() {
    for (more, signal) in [(&[][..], Signal::SIGTERM), (&["standalone", "--interval", "1s"], Signal::SIGINT)]
    {
        let (agent, aggregator) =
            start(&[more, &["--metric-resolution", "1s", "--node-name", "n1"]].concat());
        assert_ne!(agent.address, aggregator);
        let metrics = agent.get("/metrics");
        assert!(metrics.contains("container_cpu_usage_seconds_total{id=\"/\""), "{metrics}");
        let rate = eventually("a rate is in the model", || {
            let answer = agent.get_from(aggregator, "/api/v1/model/nodes/n1/metrics/cpu/usage_rate");
            json(&answer)["metrics"].as_array()?.last()?["value"].as_u64()
        });
        assert!(rate <= 1_000 * 1_000, "{rate} millicores");
        let memory = json(&agent.get_from(aggregator, "/apis/metrics.k8s.io/v1beta1/nodes/n1"));
        assert!(memory["usage"]["memory"].as_str().is_some_and(|text| !text.starts_with('0')), "{memory}");
        assert!(agent.get_from(aggregator, "/").to_lowercase().contains("<!doctype html>"));
        let shown = json(&agent.get_from(aggregator, "/api/page/cluster"));
        assert_eq!(shown["nodes"].as_array().map(Vec::len), Some(1), "{shown}");
        assert!(shown["slot"].as_u64().is_some_and(|slot| slot > 1_700_000_000_000), "{shown}");
        assert!(agent.get_from(aggregator, "/healthz").ends_with("ok\n"));
        agent.signal(signal);
        let (code, log) = agent.end();
        assert_eq!(code, Some(0), "{log}");
        let of_agent = log.find("stopping").unwrap_or_else(|| panic!("{log}"));
        assert!(log[of_agent..].contains("the agent stopped"), "the aggregator stops last: {log}");
    }
}

#[test]
fn sinks_get_what_the_model_gets_and_other_agents_may_push() {
    let receiver =
        Agent::start(nodegauge(["aggregator", "--listen", "127.0.0.1:0", "--metric-resolution", "1s"], &[]));
    let push = format!("aggregator:http://{}?resolution=1s", receiver.address);
    let (agent, aggregator) =
        start(&["--interval", "1s", "--metric-resolution", "1s", "--node-name", "n1", "--push", &push]);
    let to_first = format!("aggregator:http://{aggregator}?resolution=1s");
    let arguments =
        ["agent", "--listen", "127.0.0.1:0", "--interval", "1s", "--node-name", "n2", "--push", &to_first];
    let _second = Agent::start(nodegauge(arguments, &[]));
    let points = |at: SocketAddr, node: &str| {
        let answer = agent.get_from(at, &format!("/api/v1/model/nodes/{node}/metrics/memory/usage"));
        json(&answer)["metrics"].as_array().map_or(0, Vec::len)
    };
    eventually("each has what it is pushed", || {
        (points(aggregator, "n1") >= 2
            && points(aggregator, "n2") >= 2
            && points(receiver.address, "n1") >= 2)
            .then_some(())
    });
}
