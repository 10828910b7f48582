//! The aggregated API server: whom it believes, what they may do, and what it
//! says to whoever may not.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nodegauge::aggregate::ingest::Ingest;
use nodegauge::aggregate::model::{Model, Options};
use nodegauge::aggregator::apiserver;
use nodegauge::auth::delegated::Given;
use nodegauge::auth::reviews::Times;
use nodegauge::auth::{Delegated, Reviews, Tls, TlsFiles};
use nodegauge::expose::http::Limits;
use nodegauge::telemetry::Telemetry;
use serde_json::{Value, json};

use crate::served::{Listening, eventually, limits, own};
use crate::standin::apiserver::ApiServer;
use crate::standin::docker::Mood;
use crate::tls::{Authority, Pair, Stream, connect};

const PODS: &str = "/apis/metrics.k8s.io/v1beta1/pods";

/// The authorities of a cluster, its API server, and an aggregated one beside it.
struct Cluster {
    api: ApiServer,
    ours: Authority,
    users: Authority,
    proxies: Authority,
    dir: tempfile::TempDir,
    telemetry: Arc<Telemetry>,
    listening: Option<Listening>,
}

impl Cluster {
    fn new() -> Cluster {
        let ingest = Arc::new(Ingest::new(Arc::new(Model::new(Options::default())), 10));
        let dir = tempfile::tempdir().unwrap();
        let ours = Authority::new("ours");
        let (certificate, key) = ours.server();
        std::fs::write(dir.path().join("cert"), certificate).unwrap();
        std::fs::write(dir.path().join("key"), key).unwrap();
        Cluster {
            api: ApiServer::start(),
            ours,
            users: Authority::new("cluster"),
            proxies: Authority::new("front-proxy"),
            dir,
            telemetry: Telemetry::of_aggregator(ingest),
            listening: None,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What `extension-apiserver-authentication` holds in a cluster.
    fn trusted(&self) -> Value {
        json!({
            "client-ca-file": self.users.pem,
            "requestheader-client-ca-file": self.proxies.pem,
            "requestheader-allowed-names": "[\"front-proxy-client\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
        })
    }

    fn serve(&mut self, given: Given, times: Times) {
        let quick = Limits { tidy: Duration::from_millis(20), head_bytes: 72 << 10, ..limits() };
        let (api, telemetry) = (self.api.clone(), Arc::clone(&self.telemetry));
        let tls = TlsFiles { certificate: self.at("cert"), key: self.at("key"), client_ca: None };
        self.listening = Some(Listening::made(quick, move || {
            let reviews = Reviews::new(api.client(), String::new(), times).unwrap();
            let delegated = Delegated::open(given, reviews).unwrap();
            let guard = apiserver::guard(delegated, Tls::open(tls).unwrap(), Arc::clone(&telemetry));
            let following = Arc::clone(&guard);
            let client = api.client();
            tokio::spawn(async move { following.follow(client, Duration::from_millis(60)).await });
            let model = Arc::new(Model::new(Options::default()));
            (apiserver::site(&model, telemetry, Arc::clone(&guard)), guard)
        }));
    }

    /// One that says whom to believe, and whom the aggregated one believes already.
    fn running() -> Cluster {
        let mut cluster = Cluster::new();
        cluster.api.trusts(cluster.trusted());
        cluster.serve(Given::default(), Times::short());
        eventually("ready", || cluster.get(None, "/readyz", "").0 == 200);
        cluster
    }

    fn proxy(&self) -> Pair {
        self.proxies.client("front-proxy-client", None)
    }

    fn connect(&self, client: Option<&Pair>) -> BufReader<Stream> {
        BufReader::new(connect(self.listening.as_ref().unwrap().address, &self.ours, client))
    }

    fn get(&self, client: Option<&Pair>, path: &str, headers: &str) -> (u16, String) {
        ask(&mut self.connect(client), path, headers).unwrap_or_default()
    }

    /// Asks as a front proxy does for somebody.
    fn proxied(&self, user: &str, path: &str) -> u16 {
        self.get(Some(&self.proxy()), path, &format!("x-remote-user: {user}\r\n")).0
    }

    fn decided(&self, method: &str, result: &str) -> f64 {
        let series = format!("nodegauge_auth_decisions_total{{method=\"{method}\",result=\"{result}\"}}");
        own(&self.telemetry, &series).unwrap_or(0.0)
    }
}

/// One request on a connection that stays; an error where there is no answer.
fn ask(stream: &mut BufReader<Stream>, path: &str, headers: &str) -> std::io::Result<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    stream.get_mut().write_all(request.as_bytes())?;
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), String::from_utf8(body).unwrap()))
}

#[test]
fn a_front_proxy_is_believed_about_who_asks() {
    let cluster = Cluster::running();
    cluster.api.allows("jane", "list pods /");
    cluster.api.allows("admins", "get pods shop/web");
    cluster.api.allows("hpa", "list pods shop/");
    cluster.api.asked();
    let pods = cluster.get(
        Some(&cluster.proxy()),
        PODS,
        "x-remote-user: jane\r\nx-remote-uid: 7\r\nx-remote-group: admins\r\n\
         x-remote-group: system:authenticated\r\nx-remote-extra-acme.com%2fproject: one\r\n",
    );
    assert_eq!(pods.0, 200, "{}", pods.1);
    let list: Value = serde_json::from_str(&pods.1).unwrap();
    assert_eq!((&list["kind"], &list["items"]), (&json!("PodMetricsList"), &json!([])));
    let asked = cluster.api.asked();
    let spec = json!({
        "user": "jane", "uid": "7", "groups": ["admins", "system:authenticated"],
        "extra": {"acme.com/project": ["one"]},
        "resourceAttributes": {
            "group": "metrics.k8s.io", "version": "v1beta1", "resource": "pods", "verb": "list",
        },
    });
    assert_eq!(asked.iter().map(|review| &review["spec"]).collect::<Vec<_>>(), [&spec]);
    // What is allowed is just that, by whatever slashes.
    let root = "/apis/metrics.k8s.io/v1beta1";
    for (user, path, expected) in [
        ("jane", "/pods/", 200),
        ("jane", "//pods", 200),
        ("jane", "/namespaces/shop/pods", 403),
        ("jane", "/nodes", 403),
        ("jane", "/pods?watch=true", 403),
        ("hpa", "/namespaces/shop/pods?labelSelector=app%3Dweb", 200),
        ("hpa", "/namespaces/shop/pods/web", 403),
        ("hpa", "/namespaces/shop%2Fpods/pods", 403),
        ("hpa", "//namespaces//shop//pods//web", 403),
        ("hpa", "/namespaces/shop/pods/../../kube-system/pods", 403),
        ("hpa", "", 403),
        ("x\r\nx-remote-group: admins", "/namespaces/shop/pods/web", 404),
    ] {
        assert_eq!(cluster.proxied(user, &format!("{root}{path}")), expected, "{user} {path}");
    }
    // An API server's own questions are answered also where nobody can be asked.
    cluster.api.mood(Mood::Garbage);
    let headers = "x-remote-user: system:kube-aggregator\r\nx-remote-group: system:masters\r\n";
    let (status, body) = cluster.get(Some(&cluster.proxy()), root, headers);
    assert_eq!(status, 200, "{body}");
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["kind"], "APIResourceList");
    assert_eq!(cluster.proxied("joe", PODS), 503);
    assert!(cluster.decided("front_proxy", "accepted") >= 5.0);
    assert!(cluster.decided("front_proxy", "forbidden") >= 7.0);
}

#[test]
fn nobody_else_is_believed_about_who_asks() {
    let cluster = Cluster::running();
    cluster.api.allows("jane", "list pods /");
    cluster.api.allows("system:masters", "list nodes /");
    cluster.api.knows("token-of-jane", "jane", &[]);
    let headers = "x-remote-user: jane\r\nx-remote-group: system:masters\r\n";
    // Without a certificate, with another name, with one of the cluster's users.
    assert_eq!(cluster.get(None, PODS, headers).0, 401);
    let other = cluster.proxies.client("somebody-else", None);
    assert_eq!(cluster.get(Some(&other), PODS, headers).0, 401);
    let joe = cluster.users.client("joe", None);
    assert_eq!(cluster.get(Some(&joe), PODS, headers).0, 403);
    // A proxy that speaks for nobody is nobody itself.
    assert_eq!(cluster.get(Some(&cluster.proxy()), PODS, "").0, 401);
    assert_eq!(cluster.get(Some(&cluster.proxy()), PODS, "x-remote-user: \r\n").0, 401);
    // Its name would do, were it not signed by somebody else: there is no connection.
    let stranger = Authority::new("stranger").client("front-proxy-client", None);
    assert!(ask(&mut cluster.connect(Some(&stranger)), PODS, headers).is_err());
    // Certificates and tokens say it themselves.
    let jane = cluster.users.client("jane", None);
    assert_eq!(cluster.get(Some(&jane), PODS, "").0, 200);
    let token = |token: &str| cluster.get(None, PODS, &format!("authorization: Bearer {token}\r\n")).0;
    assert_eq!((token("token-of-jane"), token("token-of-nobody")), (200, 401));
    assert_eq!(cluster.get(None, "/livez", "").0, 200);
    assert_eq!(cluster.get(None, "//livez/", "").0, 200);
    for path in ["/livez/x", "/%6civez", "/apis", "/openapi/v2", "/version", "/metrics", "/livez/../version"]
    {
        assert_eq!(cluster.get(None, path, "").0, 401, "{path}");
    }
}

#[test]
fn refusals_are_of_kubernetes_form() {
    let cluster = Cluster::running();
    cluster.api.allows("jane", "get nodes /n9");
    let check = |user: &str, path: &str, code: u16, reason: &str| {
        let headers = format!("x-remote-user: {user}\r\n");
        let (status, body) = cluster.get(Some(&cluster.proxy()), path, &headers);
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &answer["kind"], &answer["status"]), (code, &json!("Status"), &json!("Failure")));
        assert_eq!((&answer["code"], &answer["reason"]), (&json!(code), &json!(reason)), "{path}");
    };
    let root = "/apis/metrics.k8s.io/v1beta1";
    check("", PODS, 401, "Unauthorized");
    check("jane", PODS, 403, "Forbidden");
    check("jane", &format!("{root}/nodes/n9"), 404, "NotFound");
    let masters = "admin\r\nx-remote-group: system:masters";
    check(masters, "/nothing", 404, "NotFound");
    check(masters, "/apis/metrics.k8s.io/v2/pods", 404, "NotFound");
    check(masters, &format!("{root}/pods?labelSelector=a%3D%3D%3D"), 400, "BadRequest");
    check(masters, &format!("{root}/pods?watch=1"), 405, "MethodNotAllowed");
    let long = format!("{root}/namespaces/{}/pods", "n".repeat(60_000));
    assert_eq!(cluster.proxied(masters, &long), 200, "a long path is a path");
}

#[test]
fn what_the_api_server_asks_besides() {
    let cluster = Cluster::running();
    let headers = "x-remote-user: system:aggregator\r\nx-remote-group: system:masters\r\n";
    let get = |path: &str| {
        let (status, body) = cluster.get(Some(&cluster.proxy()), path, headers);
        assert_eq!(status, 200, "{path}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    assert_eq!(get("/version")["gitVersion"], format!("v{}", env!("CARGO_PKG_VERSION")));
    let found = get("/openapi/v3");
    for version in ["v1", "v1beta1", "v1alpha1"] {
        let link = &found["paths"][format!("apis/metrics.k8s.io/{version}")]["serverRelativeURL"];
        let document = get(link.as_str().unwrap());
        resolved(&document, &document);
        let name = format!("io.k8s.metrics.pkg.apis.metrics.{version}.PodMetrics");
        let of_kind = &document["components"]["schemas"][&name]["x-kubernetes-group-version-kind"];
        let expected = json!([{"group": "metrics.k8s.io", "version": version, "kind": "PodMetrics"}]);
        assert_eq!(*of_kind, expected);
    }
    let document = get("/openapi/v2");
    resolved(&document, &document);
    assert_eq!(document["paths"].as_object().unwrap().len(), 15);
}

/// Every reference in a document leads to something in it.
fn resolved(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
            fields.values().for_each(|value| resolved(document, value));
        }
        Value::Array(items) => items.iter().for_each(|value| resolved(document, value)),
        _ => {}
    }
}

#[test]
fn whom_to_believe_is_followed() {
    let mut cluster = Cluster::new();
    cluster.serve(Given::default(), Times::short());
    cluster.api.allows("jane", "list pods /");
    let headers = "x-remote-user: jane\r\n";
    // Nothing is known of front proxies: their certificates are nobody's.
    assert_eq!(cluster.get(None, "/readyz", "").0, 503);
    assert_eq!(cluster.get(Some(&cluster.proxy()), PODS, headers).0, 401);
    cluster.api.trusts(cluster.trusted());
    eventually("ready", || cluster.get(None, "/readyz", "").0 == 200);
    let proxy = cluster.proxy();
    let mut open = cluster.connect(Some(&proxy));
    assert_eq!(ask(&mut open, PODS, headers).unwrap().0, 200);
    // What cannot be used changes nothing.
    let mut broken = cluster.trusted();
    broken["requestheader-client-ca-file"] = json!("-----BEGIN CERTIFICATE-----\n?\n");
    cluster.api.trusts(broken);
    let refused = "nodegauge_credential_reloads_total{file=\"front proxy\",result=\"refused\"}";
    let before = own(&cluster.telemetry, refused);
    eventually("the broken one is seen", || own(&cluster.telemetry, refused) > before);
    let next = Authority::new("front-proxy-2");
    let mut rotated = cluster.trusted();
    rotated["requestheader-client-ca-file"] = json!(format!("{}{}", cluster.proxies.pem, next.pem));
    assert_eq!(ask(&mut open, PODS, headers).unwrap().0, 200);
    cluster.api.trusts(rotated.clone());
    let new = next.client("front-proxy-client", None);
    eventually("both are believed", || cluster.get(Some(&new), PODS, headers).0 == 200);
    assert_eq!(ask(&mut open, PODS, headers).unwrap().0, 200);
    // The old one is believed no more, also on a connection that was there before.
    rotated["requestheader-client-ca-file"] = json!(next.pem);
    cluster.api.trusts(rotated);
    eventually("the old one is not believed", || ask(&mut open, PODS, headers).unwrap().0 == 401);
    assert!(ask(&mut cluster.connect(Some(&proxy)), PODS, headers).is_err());
    assert_eq!(cluster.get(Some(&new), PODS, headers).0, 200);
}

#[test]
fn files_say_it_as_well() {
    let mut cluster = Cluster::new();
    std::fs::write(cluster.at("users"), &cluster.users.pem).unwrap();
    std::fs::write(cluster.at("proxies"), &cluster.proxies.pem).unwrap();
    cluster.api.allows("jane", "list pods /");
    let given = Given {
        client_ca: Some(cluster.at("users")),
        proxy_ca: Some(cluster.at("proxies")),
        username_headers: vec!["X-User".to_owned()],
        ..Given::default()
    };
    cluster.serve(given, Times::short());
    assert_eq!(cluster.get(None, "/readyz", "").0, 200, "the API server is not asked");
    let any = cluster.proxies.client("any-name", None);
    let headers = "x-user: jane\r\nx-remote-user: joe\r\n";
    assert_eq!(cluster.get(Some(&any), PODS, headers).0, 200);
    let next = Authority::new("front-proxy-2");
    std::fs::write(cluster.at("proxies"), &next.pem).unwrap();
    let new = next.client("any-name", None);
    eventually("the new one is believed", || cluster.get(Some(&new), PODS, headers).0 == 200);
    assert!(ask(&mut cluster.connect(Some(&any)), PODS, headers).is_err());
}
