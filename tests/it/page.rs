//! The pages' files and the figures they are filled from.

use std::time::Duration;

use nodegauge::expose::page::node::{Overview, ROWS, Wanted};
use nodegauge::history::History;
use nodegauge::snapshot::{Hierarchy, Snapshot, reading};
use serde_json::Value;

use crate::data;
use crate::served::{POLICY, Server, limits};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// `second` seconds after the first, with so much more on every counter.
fn after(first: &Snapshot, second: u64) -> Snapshot {
    let mut snapshot = first.clone();
    snapshot.sequence += second;
    snapshot.wall_ms += second * 1000;
    snapshot.monotonic += Duration::from_secs(second);
    for row in &mut snapshot.cgroups {
        row.cpu.usage_ns = reading(1_000_000_000 + second * 250_000_000);
        row.memory.working_set = reading(second << 20);
        row.cpu.periods = reading(second * 10);
        row.cpu.throttled_periods = reading(second * 5);
        row.network.clear();
    }
    snapshot
}

fn overview(snapshot: &Snapshot, history: &History, wanted: &Wanted) -> Value {
    serde_json::to_value(Overview::new("node-1", snapshot, history, wanted)).unwrap()
}

#[test]
fn columns_are_the_rows_and_rates_are_those_of_the_last_seconds() {
    let history = History::new(Duration::from_secs(120));
    let first = data::snapshot(Hierarchy::V2, 3);
    for second in 1..=130 {
        history.record(&after(&first, second));
    }
    let now = after(&first, 130);
    let told = overview(&now, &history, &Wanted { names: None, past: true });
    assert_eq!(told["node"], "node-1");
    assert_eq!(told["rows"].as_array().unwrap().len(), 3);
    assert_eq!(told["rows"][0]["kind"], "n");
    let columns = &told["columns"];
    assert_eq!(columns["cpu"], serde_json::json!([250.0, 250.0, 250.0]));
    assert_eq!(columns["throttled"][1], 50.0);
    assert_eq!(columns["memory"][2], 130 << 20);
    assert!(columns.get("received").is_none(), "a column of nothing");
    let past = &told["past"];
    let cpu = past["cpu"][1].as_array().unwrap();
    assert_eq!(past["step"], 3000);
    assert_eq!(cpu.len(), 40);
    assert!(cpu.iter().all(|value| *value == 250.0), "{cpu:?}");
    let memory: Vec<u64> = past["memory"][1].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    assert!(memory.windows(2).all(|pair| pair[0] + (3 << 20) == pair[1]), "{memory:?}");
    // Who knows the names does not hear them again.
    let names = told["names"].as_str().map(str::to_owned);
    let again = overview(&now, &history, &Wanted { names, past: false });
    assert!(again.get("rows").is_none() && again.get("past").is_none());
    let mut other = now.clone();
    other.cgroups.remove(1);
    let names = told["names"].as_str().map(str::to_owned);
    assert!(overview(&other, &history, &Wanted { names, past: false }).get("rows").is_some());
}

#[test]
fn an_answer_is_bounded() {
    let mut snapshot = data::snapshot(Hierarchy::V2, 2);
    let row = snapshot.cgroups[1].clone();
    for number in 0..ROWS + 100 {
        let mut row = row.clone();
        row.cgroup = data::cgroup(&format!("/z{number:06}"), Default::default());
        snapshot.cgroups.push(row);
    }
    let told = overview(&snapshot, &History::new(Duration::ZERO), &Wanted::default());
    assert_eq!(told["columns"]["memory"].as_array().unwrap().len(), ROWS);
    assert_eq!(told["more"], 102);
}

#[test]
fn the_page_is_served_with_its_policy() {
    let server = Server::with(4, POLICY, limits());
    for (path, kind) in
        [("/", "text/html"), ("/page/style.css", "text/css"), ("/page/agent.js", "text/javascript")]
    {
        let answer = server.get(path, "");
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-type").starts_with(kind), "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"));
    }
    assert_eq!(server.get("/page/none.js", "").status, 404);
}

#[test]
fn figures_are_served() {
    let server = Server::with(4, POLICY, limits());
    let node = server.get("/api/page/node?past=1", "");
    assert_eq!(node.status, 200);
    let node = json(node.text());
    let id = node["rows"][1]["id"].as_str().unwrap();
    let path = id.replace('/', "%2F");
    let detail = server.get(&format!("/api/page/cgroup?path={path}"), "");
    assert_eq!(detail.status, 200);
    let detail = json(detail.text());
    assert_eq!(detail["id"], id);
    assert!(detail["memory_limit"].is_u64(), "{detail}");
    assert_eq!(server.get("/api/page/cgroup?path=%2Fnone", "").status, 404);
    assert_eq!(server.get("/api/page/cgroup", "").status, 404);
    assert_eq!(server.get("/api/page/cgroup?path=%ff&since=x", "").status, 404);
}
