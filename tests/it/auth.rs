//! Who may read: static tokens, and the Kubernetes API.

#![allow(clippy::disallowed_methods, reason = "a test waits for a file to be noticed")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use nodegauge::auth::reviews::Times;
use nodegauge::auth::{Asked, Certified, Guard, How, Refusal, Reviews, Tokens, User, rules};
use nodegauge::expose::http::Limits;
use nodegauge::telemetry::Telemetry;
use serde_json::{Value, json};

use crate::served::{POLICY, Server, eventually, limits};
use crate::standin::apiserver::ApiServer;
use crate::standin::docker::Mood;

const TOKEN: &str = "a-token-of-the-collectors";

fn with_tokens(path: PathBuf) -> Server {
    let quick = Limits { tidy: Duration::from_millis(20), ..limits() };
    let server = Server::guarded(POLICY, quick, move |telemetry| {
        Guard::new(rules::AGENT, How::Token(Some(Box::new(Tokens::open(path).unwrap()))), None, telemetry)
    });
    server.publish(1, 2);
    server
}

fn with_reviews(api: &ApiServer, times: Times) -> Server {
    let api = api.clone();
    let server = Server::guarded(POLICY, limits(), move |telemetry| {
        let reviews = Reviews::new(api.client(), "node-1".to_owned(), times).unwrap();
        Guard::new(rules::AGENT, How::Kubernetes(Box::new(reviews)), None, telemetry)
    });
    server.publish(1, 2);
    server
}

fn status(server: &Server, path: &str, token: &str) -> u16 {
    server.get(path, &format!("authorization: Bearer {token}\r\n")).status
}

#[test]
fn a_token_opens_everything_and_probes_need_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    std::fs::write(&file, format!("# collectors\n{TOKEN}\n")).unwrap();
    let server = with_tokens(file);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.get(path, "").status, 200, "{path}");
    }
    for path in [
        "/",
        "/metrics",
        "/metrics/self",
        "/nothing",
        "/healthz/",
        "/%68ealthz",
        "//healthz",
        "/healthz/../metrics",
    ] {
        let answer = server.get(path, "");
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"), "{path}");
        assert_eq!(answer.line(), "a token or a certificate is needed");
        assert_eq!(status(&server, path, "a-token-of-somebody-else"), 401, "{path}");
        assert_ne!(status(&server, path, TOKEN), 401, "{path}");
    }
    for header in [
        "",
        "authorization: Basic YTpi\r\n",
        "authorization: Bearer\r\n",
        "authorization: Bearer \r\n",
        "x-token: a\r\n",
    ] {
        assert_eq!(server.get("/metrics", header).status, 401, "{header:?}");
    }
    let cookie = format!("authorization: Bearer nobody-has-this-token\r\nauthorization: Bearer {TOKEN}\r\n");
    assert_eq!(server.get("/metrics", &cookie).status, 401, "only the first counts");
    assert!(server.own("nodegauge_auth_decisions_total{method=\"token\",result=\"accepted\"}") >= Some(8.0));
    assert!(
        server.own("nodegauge_auth_decisions_total{method=\"none\",result=\"unauthenticated\"}") >= Some(8.0)
    );
    assert!(server.own("nodegauge_http_refused_total{reason=\"unauthenticated\"}") >= Some(16.0));
    assert!(!server.telemetry.encode(true).contains(TOKEN));
}

#[test]
fn a_new_list_of_tokens_counts_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    std::fs::write(&file, TOKEN).unwrap();
    let server = with_tokens(file.clone());
    let new = "another-token-altogether";
    assert_eq!((status(&server, "/metrics", TOKEN), status(&server, "/metrics", new)), (200, 401));
    // As Kubernetes does it: another file under the same name.
    std::fs::write(dir.path().join("next"), new).unwrap();
    std::fs::rename(dir.path().join("next"), &file).unwrap();
    let reloads = |result: &str| {
        server.own(&format!("nodegauge_credential_reloads_total{{file=\"tokens\",result=\"{result}\"}}"))
    };
    eventually("the new list", || reloads("taken") == Some(1.0));
    assert_eq!((status(&server, "/metrics", TOKEN), status(&server, "/metrics", new)), (401, 200));
    std::fs::write(dir.path().join("next"), "too short").unwrap();
    std::fs::rename(dir.path().join("next"), &file).unwrap();
    eventually("the bad list", || reloads("refused") == Some(1.0));
    assert_eq!(status(&server, "/metrics", new), 200, "the last one stays");
}

#[test]
fn of_certificates_only_those_of_named_users_may_read() {
    let guard = Guard::new(rules::AGGREGATOR, How::Users(vec!["ops".to_owned()]), None, Telemetry::new());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let asks = |name: Option<&str>, path: &str| {
        let user = name.map(|name| {
            Arc::new(User { name: name.to_owned(), uid: None, groups: Vec::new(), extra: Vec::new() })
        });
        let authorization = Some(&b"Bearer a-token-of-the-collectors"[..]);
        let (certified, headers) = (Certified::for_good(user), HeaderMap::new());
        let asked =
            Asked { method: "GET", path, query: "", authorization, headers: &headers, certified: &certified };
        runtime.block_on(guard.admit(asked)).map(|_| ())
    };
    assert_eq!(asks(Some("ops"), "/api/v1/model/metrics"), Ok(()));
    assert_eq!(asks(Some("ops2"), "/api/v1/model/metrics"), Err(Refusal::Forbidden));
    assert_eq!(asks(None, "/metrics"), Err(Refusal::Unauthenticated));
    assert_eq!(asks(None, "/healthz"), Ok(()));
}

fn subresources(asked: &[Value]) -> Vec<String> {
    let what = |review: &Value| match &review["spec"] {
        spec if spec.get("token").is_some() => "token".to_owned(),
        spec if spec.get("resourceAttributes").is_some() => {
            format!("nodes/{}", spec["resourceAttributes"]["subresource"].as_str().unwrap())
        }
        spec => spec["nonResourceAttributes"]["path"].as_str().unwrap().to_owned(),
    };
    asked.iter().map(what).collect()
}

#[test]
fn the_kubelets_permissions_first_then_paths() {
    let api = ApiServer::start();
    api.knows("of-prometheus", "system:serviceaccount:monitoring:prometheus", &["monitoring"]);
    api.knows("of-somebody", "somebody", &[]);
    api.knows("of-a-browser", "admin", &["system:masters"]);
    api.allows("monitoring", "nodes/metrics");
    api.allows("somebody", "/metrics/self");
    api.allows("system:masters", "nodes/proxy");
    let server = with_reviews(&api, Times::default());
    assert_eq!(server.get("/healthz", "").status, 200);
    assert_eq!(server.get("/metrics", "").status, 401);
    assert_eq!(status(&server, "/metrics", "of-nobody"), 401);
    assert_eq!(subresources(&api.asked()), ["token"], "nothing is asked about a request without a token");

    assert_eq!(status(&server, "/metrics", "of-prometheus"), 200);
    let asked = api.asked();
    assert_eq!(subresources(&asked), ["token", "nodes/metrics"]);
    let spec = &asked[1]["spec"];
    assert_eq!(spec["user"], "system:serviceaccount:monitoring:prometheus");
    assert_eq!((&spec["groups"], &spec["uid"]), (&json!(["monitoring"]), &json!("1")));
    // The same answers again, also for the other paths of the permission.
    for path in ["/metrics", "/metrics/self", "/metrics/cadvisor"] {
        assert_eq!(status(&server, path, "of-prometheus"), 200, "{path}");
    }
    assert_eq!(status(&server, "/metrics", "of-nobody"), 401);
    assert_eq!(subresources(&api.asked()), Vec::<String>::new());
    // Not what it needs: neither by permission nor by path.
    assert_eq!(status(&server, "/", "of-prometheus"), 403);
    assert_eq!(status(&server, "/stats/summary", "of-prometheus"), 403);
    assert_eq!(subresources(&api.asked()), ["nodes/proxy", "/", "nodes/stats", "/stats/summary"]);
    assert_eq!(status(&server, "/", "of-prometheus"), 403);
    assert_eq!(subresources(&api.asked()), Vec::<String>::new(), "a refusal is remembered too");

    assert_eq!(
        (status(&server, "/metrics/self", "of-somebody"), status(&server, "/metrics", "of-somebody")),
        (200, 403)
    );
    assert_eq!(
        (status(&server, "/", "of-a-browser"), status(&server, "/metrics", "of-a-browser")),
        (200, 403)
    );
    assert!(
        server.own("nodegauge_auth_decisions_total{method=\"kubernetes\",result=\"accepted\"}") >= Some(5.0)
    );
    assert!(
        server.own("nodegauge_auth_decisions_total{method=\"kubernetes\",result=\"forbidden\"}") >= Some(5.0)
    );
}

#[test]
fn answers_are_asked_for_again_when_their_time_is_over() {
    let api = ApiServer::start();
    api.knows("of-prometheus", "prometheus", &[]);
    api.allows("prometheus", "nodes/metrics");
    let soon = Duration::from_millis(50);
    let server = with_reviews(&api, Times { known: soon, unknown: soon, allowed: soon, ..Times::default() });
    for _ in 0..2 {
        assert_eq!(status(&server, "/metrics", "of-prometheus"), 200);
        assert_eq!(status(&server, "/metrics", "of-the-next"), 401);
        assert_eq!(subresources(&api.asked()), ["token", "nodes/metrics", "token"]);
        std::thread::sleep(soon * 2);
    }
    api.knows("of-the-next", "prometheus", &[]);
    assert_eq!(status(&server, "/metrics", "of-the-next"), 200);
}

#[test]
fn without_an_answer_nobody_new_is_let_in() {
    let api = ApiServer::start();
    api.knows("of-prometheus", "prometheus", &[]);
    api.knows("of-the-next", "next", &[]);
    api.allows("prometheus", "nodes/metrics");
    api.allows("next", "nodes/metrics");
    let server = with_reviews(&api, Times { answer: Duration::from_secs(4), ..Times::default() });
    assert_eq!(status(&server, "/metrics", "of-prometheus"), 200);
    for mood in [Mood::Hangs, Mood::Garbage] {
        api.mood(mood);
        let answer = server.get("/metrics", "authorization: Bearer of-the-next\r\n");
        assert_eq!(answer.status, 503, "{mood:?}");
        assert_eq!(answer.line(), "whether this is allowed cannot be found out now");
        // Who is known already is not hindered, but may do nothing new.
        assert_eq!(status(&server, "/metrics", "of-prometheus"), 200, "{mood:?}");
        assert_eq!(status(&server, "/", "of-prometheus"), 503, "{mood:?}");
        assert_eq!(server.get("/healthz", "").status, 200);
    }
    assert_eq!(
        server.own("nodegauge_auth_decisions_total{method=\"kubernetes\",result=\"failed\"}"),
        Some(4.0)
    );
    api.mood(Mood::Well);
    assert_eq!(status(&server, "/metrics", "of-the-next"), 200, "a failure is not remembered");
}

#[test]
fn an_api_server_that_is_gone() {
    let api = ApiServer::start();
    let client = api.clone();
    let server = Server::guarded(POLICY, limits(), move |telemetry| {
        let times = Times { answer: Duration::from_secs(2), ..Times::default() };
        let reviews = Reviews::new(client.client(), "node-1".to_owned(), times).unwrap();
        drop(client);
        Guard::new(rules::AGENT, How::Kubernetes(Box::new(reviews)), None, telemetry)
    });
    server.publish(1, 2);
    drop(api);
    assert_eq!(status(&server, "/metrics", "of-prometheus"), 503);
    assert_eq!(server.get("/readyz", "").status, 200);
}
