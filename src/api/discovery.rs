//! What Kubernetes asks to find out which API this is: `/apis`, the group, and
//! the resources of each version.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Answer, Body};
use super::request::Asked;

/// The group of the resource metrics API.
pub const GROUP: &str = "metrics.k8s.io";

/// Its versions, all of the same schema, the one to prefer first.
pub const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];

/// Name, kind and whether it lies in namespaces.
const RESOURCES: [(&str, &str, bool); 2] = [("nodes", "NodeMetrics", false), ("pods", "PodMetrics", true)];

/// The documents in which a group lists all its versions, in one answer; the
/// versions of that format, and what it is called.
const AGGREGATED: [(&str, &str); 2] = [
    ("v2", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
    ("v2beta1", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"),
];

/// Changes with the documents, which are the build's.
pub const TAG: &str = concat!("\"nodegauge-", env!("CARGO_PKG_VERSION"), "\"");

/// Answers `/apis`.
pub fn answer(asked: &Asked) -> Answer {
    let Some((version, media_type)) = aggregated(&asked.accept) else {
        let list = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group_document()]});
        return Answer::kubernetes(StatusCode::OK, &list);
    };
    let tag = Some(TAG.to_owned());
    if asked.known == TAG {
        return Answer { status: StatusCode::NOT_MODIFIED, media_type, tag, body: Body::Whole(Vec::new()) };
    }
    let list = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": [{
            "metadata": {"name": GROUP, "creationTimestamp": null},
            "versions": VERSIONS.map(discovered),
        }],
    });
    Answer { media_type, tag, ..Answer::kubernetes(StatusCode::OK, &list) }
}

/// Answers the path of the group.
pub fn group() -> Answer {
    let mut document = group_document();
    if let Value::Object(fields) = &mut document {
        fields.insert("kind".into(), "APIGroup".into());
        fields.insert("apiVersion".into(), "v1".into());
    }
    Answer::kubernetes(StatusCode::OK, &document)
}

/// Answers the path of a version.
pub fn version(version: &str) -> Answer {
    let resource = |(name, kind, namespaced): (&str, &str, bool)| {
        json!({
            "name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"],
        })
    };
    Answer::kubernetes(
        StatusCode::OK,
        &json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": format!("{GROUP}/{version}"),
            "resources": RESOURCES.map(resource),
        }),
    )
}

/// Answers `/version`: which build this is, in the form of Kubernetes.
pub fn build() -> Answer {
    let version = env!("CARGO_PKG_VERSION");
    let mut parts = version.split('.');
    let mut part = || parts.next().unwrap_or_default();
    let (major, minor) = (part(), part());
    let platform = format!("linux/{}", std::env::consts::ARCH);
    let unknown = "";
    Answer::kubernetes(
        StatusCode::OK,
        &json!({
            "major": major, "minor": minor, "gitVersion": format!("v{version}"), "gitCommit": unknown,
            "gitTreeState": unknown, "buildDate": unknown, "goVersion": unknown, "compiler": "rustc",
            "platform": platform,
        }),
    )
}

fn group_document() -> Value {
    let version = |version: &str| json!({"groupVersion": format!("{GROUP}/{version}"), "version": version});
    let versions = VERSIONS.map(version);
    json!({"name": GROUP, "versions": versions, "preferredVersion": versions.first()})
}

fn discovered(version: &str) -> Value {
    let resource = |(name, kind, namespaced): (&str, &str, bool)| {
        json!({
            "resource": name,
            "responseKind": {"group": GROUP, "version": version, "kind": kind},
            "scope": if namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": "",
            "verbs": ["get", "list"],
        })
    };
    json!({"version": version, "resources": RESOURCES.map(resource), "freshness": "Current"})
}

/// The aggregated document that a client prefers to all else it names.
fn aggregated(accept: &str) -> Option<(&'static str, &'static str)> {
    let first = accept.split(',').next()?;
    let parameter = |name: &str| super::answer::parameter(first, name);
    if parameter("as") != Some("APIGroupDiscoveryList") || parameter("g") != Some("apidiscovery.k8s.io") {
        return None;
    }
    let version = parameter("v")?;
    AGGREGATED.into_iter().find(|(known, _)| *known == version)
}
