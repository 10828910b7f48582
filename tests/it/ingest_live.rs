//! A real agent that pushes to a real aggregator: two processes over loopback.

#![allow(clippy::disallowed_methods, reason = "these tests are about the program as it is started")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::cli::{Agent, nodegauge};

/// The value of a series at a path.
fn value(of: &Agent, path: &str, series: &str) -> f64 {
    let text = of.get(path);
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {series} in {text}"))
}

fn eventually(what: &str, mut test: impl FnMut() -> bool) {
    let began = Instant::now();
    while !test() {
        assert!(began.elapsed() < Duration::from_secs(90), "not within {:?}: {what}", began.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn aggregator(address: &str) -> Agent {
    let arguments = ["aggregator", "--listen", address, "--metric-resolution", "1s"];
    Agent::start(nodegauge(arguments, &[]))
}

/// On the same port, which the system may give to somebody else for a moment.
fn aggregator_again(address: SocketAddr) -> Agent {
    let began = Instant::now();
    loop {
        if let Ok(started) = std::panic::catch_unwind(|| aggregator(&address.to_string())) {
            return started;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{address} stays taken");
        std::thread::sleep(Duration::from_millis(200));
    }
}

const BATCHES: &str = "nodegauge_ingest_batches_total";

#[test]
fn a_killed_aggregator_is_filled_up_again() {
    let first = aggregator("127.0.0.1:0");
    let address = first.address;
    assert!(first.get("/readyz").starts_with("HTTP/1.1 200 OK\r\n"));
    let push = format!("aggregator:http://{address}?resolution=1s");
    let arguments =
        ["agent", "--listen", "127.0.0.1:0", "--interval", "1s", "--node-name", "n1", "--push", &push];
    let agent = Agent::start(nodegauge(arguments, &[]));
    eventually("six batches", || value(&first, "/metrics", BATCHES) >= 6.0);
    eventually("a step is closed", || value(&first, "/metrics", "nodegauge_steps_closed_total") >= 1.0);
    assert!(first.get("/healthz").starts_with("HTTP/1.1 200 OK\r\n"));
    let offset = value(&first, "/metrics", "nodegauge_node_clock_ahead_seconds{node=\"n1\"}");
    assert!(offset <= 0.0, "one clock for both: {offset}");
    let before = value(&first, "/metrics", BATCHES);
    first.signal(Signal::SIGKILL);
    drop(first);
    // Steps go on meanwhile and wait.
    let waiting = "nodegauge_push_queue_steps{sink=";
    eventually("steps wait", || {
        let text = agent.get("/metrics/self");
        let found =
            text.lines().find_map(|l| l.strip_prefix(waiting)?.split_once(' ')?.1.parse::<f64>().ok());
        found.is_some_and(|steps| steps >= 2.0)
    });
    let second = aggregator_again(address);
    eventually("all there was and what waited", || value(&second, "/metrics", BATCHES) >= before + 2.0);
    assert_eq!(value(&second, "/metrics", "nodegauge_nodes{state=\"live\"}"), 1.0);
    for reason in ["malformed", "contested_name", "future"] {
        let series = format!("nodegauge_ingest_refused_batches_total{{reason=\"{reason}\"}}");
        assert_eq!(value(&second, "/metrics", &series), 0.0, "{reason}");
    }
    let resent = agent.get("/metrics/self");
    let refill = |line: &str| line.contains("\"refill\"") && !line.ends_with(" 0.0");
    assert!(resent.lines().any(refill), "{resent}");
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.end().0, Some(0));
    second.signal(Signal::SIGTERM);
    let (code, log) = second.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("started") && log.contains("stopping"), "{log}");
}
