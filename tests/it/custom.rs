//! Metrics that programs push of themselves, over the wire and back out of the
//! model; and the paths of Heapster's clients, by whatever slashes.

use std::time::Duration;

use nodegauge::aggregator::receive;
use nodegauge::auth::{Guard, How, Tokens, rules};
use serde_json::{Value, json};

use crate::ingest::{MINUTE, Sender};
use crate::ingest_http::{Aggregator, now_ms};
use crate::served::Answer;

const JOB: &str = "/api/v1/push/prometheus/metrics/job/shop";
const TEXT: &str = "content-type: text/plain; version=0.0.4\r\n";

fn push(aggregator: &Aggregator, path: &str, text: &str) -> Answer {
    aggregator.send(path, TEXT, text.as_bytes())
}

fn get(aggregator: &Aggregator, path: &str) -> Value {
    let answer = aggregator.get(path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn what_is_pushed_is_in_the_model_and_the_export() {
    let aggregator = Aggregator::open(receive::Limits::default());
    // Both must be of one slot.
    let before = loop {
        let slot = now_ms() / MINUTE;
        for value in [10, 20] {
            let text = format!(
                "# TYPE queue gauge\nqueue{{namespace=\"shop\",pod=\"web-a\"}} {value}\n\
                 queue{{namespace=\"shop\",pod=\"web-a\",kind=\"mail\"}} {value}.25\nqueue{{node=\"a\"}} -1\n"
            );
            let answer = push(&aggregator, JOB, &text);
            assert_eq!((answer.status, answer.body.len()), (202, 0));
        }
        if now_ms() / MINUTE == slot {
            break slot;
        }
    };
    // Its slot closes as the steps of agents do.
    let end = (before + 1) * MINUTE;
    aggregator.ingest.tick(now_ms(), Duration::ZERO);
    let body = Sender::new("a").bytes(end, now_ms(), 7);
    aggregator.ingest.take(&body, None, now_ms()).unwrap();
    let root = "/api/v1/model/namespaces/shop/pods/web-a/metrics";
    assert_eq!(get(&aggregator, &format!("{root}/custom/shop/queue"))["metrics"], json!([]), "it is open");
    aggregator.ingest.model().tick(end + 30_000);
    assert_eq!(aggregator.ingest.model().closed_ms(), Some(end));
    assert_eq!(get(&aggregator, root), json!(["custom/shop/queue", "memory/usage"]));
    let values = |path: &str| {
        let series = get(&aggregator, path);
        let points = series["metrics"].as_array().unwrap();
        let value = |point: &Value| (point["value"].as_u64().unwrap(), point["floatValue"].as_f64().unwrap());
        points.iter().map(value).collect::<Vec<_>>()
    };
    // At least two gauges of the slot, of which it is the mean.
    for path in [
        format!("{root}/custom/shop/queue"),
        "//api/v1/model//namespaces/shop//pods/web-a/metrics/custom/shop/queue/".to_owned(),
    ] {
        let found = values(&path);
        assert_eq!(found.len(), 1, "{path}");
        assert!(found[0].0 == 15 && found[0].1 == 15.0, "{found:?}");
    }
    assert_eq!(values(&format!("{root}/custom/shop/queue?labels=kind:mail")), [(15, 15.25)]);
    assert_eq!(values(&format!("{root}/custom/shop/queue?labels=kind:fax")), []);
    assert_eq!(values("/api/v1/model/nodes/a/metrics/custom/shop/queue"), [(0, -1.0)]);
    let list =
        get(&aggregator, "/api/v1/model/namespaces/shop/pod-list/web-a,other/metrics/custom/shop/queue");
    let lengths = list["items"].as_array().unwrap().iter().map(|i| i["metrics"].as_array().unwrap().len());
    assert_eq!(lengths.collect::<Vec<_>>(), [1, 0]);
    let export = get(&aggregator, "/api/v1/metric-export");
    let of = |container: &str| {
        let found = export.as_array().unwrap().iter().find(|series| {
            series["labels"]["container_name"] == container
                && !series["metrics"]["custom/shop/queue"].is_null()
        });
        found.unwrap()["metrics"]["custom/shop/queue"].clone()
    };
    assert_eq!(of("machine")[0]["value"], -1.0);
    assert_eq!(of("/pod").as_array().unwrap().len(), 2);
    assert_eq!(of("/pod")[1]["labels"], json!({"kind": "mail"}));
    let text = |path: &str| String::from_utf8(aggregator.get(path).body).unwrap();
    let sums = text("/metrics/rollups");
    for line in [
        "nodegauge_namespace_memory_usage_bytes{namespace=\"shop\"} 7",
        "nodegauge_cluster_memory_usage_bytes 7",
    ] {
        assert!(sums.lines().any(|l| l == line), "{line}: {sums}");
    }
    // Another agent of another machine with the same name.
    let second = Sender { boot: 2, host: 8, ..Sender::new("a") };
    aggregator.ingest.take(&second.bytes(end, now_ms(), 1), None, now_ms()).unwrap_err();
    let own = text("/metrics");
    for series in [
        "http_requests_total{handler=\"model\",method=\"get\",code=\"200\"} ",
        "http_requests_total{handler=\"push\",method=\"post\",code=\"202\"} ",
        "heapster_scraper_last_time_seconds{source=\"push\"} ",
        "nodegauge_custom_series 3",
        "nodegauge_node_clock_ahead_seconds{node=\"a\"} ",
        "nodegauge_node_name_contested_age_seconds{node=\"a\"} ",
    ] {
        assert!(own.lines().any(|l| l.starts_with(series)), "{series}: {own}");
    }
}

#[test]
fn what_is_refused_says_why() {
    let aggregator = Aggregator::open(receive::Limits::default());
    let check = |path: &str, headers: &str, text: &str, status: u16, why: &str| {
        let answer = aggregator.send(path, headers, text.as_bytes());
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.line().contains(why), "{}", answer.line());
    };
    check(JOB, TEXT, "good 1\nbad{ 1\n", 400, "line 2: no name of a label");
    check(JOB, TEXT, "good 1\nbad{pod=\"p\"} 1\n", 400, "bad: accepted together: namespace, pod");
    check(JOB, "content-type: application/json\r\n", "{}", 415, "text/plain");
    check(JOB, &format!("{TEXT}content-encoding: gzip\r\n"), "a 1\n", 415, "without content-encoding");
    check("/api/v1/push/prometheus", TEXT, "a 1\n", 400, "nobody knows who pushes");
    check("/api/v1/push/prometheus/metrics/job/a,b", TEXT, "a 1\n", 400, "not a producer's name");
    // What is written in another way than its rule is no push to whoever decides.
    check("/api/v1/push/prometheus/metrics/job/a%2Fb", TEXT, "a 1\n", 403, "their own path");
    let many: String = (0..10_001).map(|n| format!("m{n} 1\n")).collect();
    check(JOB, TEXT, &many, 413, "more than 10000 series");
    check("/api/v1/push/influx", TEXT, "a 1\n", 404, "");
    // Longer than what is taken; not all of it is even sent.
    let mut client = crate::served::Client::to(aggregator.listening.address);
    client.send("POST", JOB, &format!("{TEXT}content-length: 1000000000\r\n"));
    client.write(&vec![b'#'; (4 << 20) + 65_536]);
    assert_eq!(client.head().status, 413);
    assert_eq!(aggregator.ingest.model().customs().series(), 0, "nothing of any was taken");
}

#[test]
fn who_may_read_may_not_push() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    std::fs::write(&file, "a-token-of-the-producers").unwrap();
    let aggregator = Aggregator::start(move |telemetry| {
        let tokens = How::Token(Some(Box::new(Tokens::open(file).unwrap())));
        Guard::new(rules::AGGREGATOR, How::Open, None, telemetry).pushed_to_by(Some(tokens))
    });
    let token = format!("{TEXT}authorization: Bearer a-token-of-the-producers\r\n");
    assert_eq!(aggregator.get("/metrics").status, 200);
    for path in
        [JOB, "//api/v1/push/prometheus/metrics/job/shop/", "/api/v1/push//prometheus/metrics//jobs/shop"]
    {
        assert_eq!(push(&aggregator, path, "a 1\n").status, 401, "{path}");
        assert_eq!(aggregator.send(path, &token, b"a 1\n").status, 202, "{path}");
    }
    // Written in another way it is no push, and takes no body or leads nowhere.
    for path in
        ["/api/v1/%70ush/prometheus/metrics/job/shop", "/api/v1/push/../push/prometheus/metrics/job/shop"]
    {
        assert!([401, 403, 404, 413].contains(&push(&aggregator, path, "a 1\n").status), "{path}");
    }
    assert_eq!(aggregator.ingest.model().customs().series(), 1);
}

#[test]
fn slashes_open_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    std::fs::write(&file, "a-token-of-the-readers").unwrap();
    let aggregator = Aggregator::start(move |telemetry| {
        let tokens = How::Token(Some(Box::new(Tokens::open(file).unwrap())));
        Guard::new(rules::AGGREGATOR, tokens, None, telemetry)
    });
    let get =
        |path: &str, headers: &str| crate::served::get(aggregator.listening.address, path, headers).status;
    let token = "authorization: Bearer a-token-of-the-readers\r\n";
    for path in ["/healthz", "//healthz", "/healthz/", "/readyz//"] {
        assert_eq!(get(path, ""), 200, "{path}");
    }
    for path in [
        "//api/v1/model//nodes",
        "/api/v1/model/nodes/",
        "//apis//metrics/v1alpha1/nodes/?labelSelector=",
        "/apis/metrics.k8s.io//v1beta1/pods/",
        "//metrics",
    ] {
        assert_eq!((get(path, ""), get(path, token)), (401, 200), "{path}");
    }
    for path in ["/healthz/../metrics", "/healthz%2F..%2Fmetrics", "//healthz//../metrics", "/healthz/x"] {
        assert_eq!((get(path, ""), get(path, token)), (401, 404), "{path}");
    }
    assert_eq!(get("http://elsewhere//healthz/", ""), 200);
}
