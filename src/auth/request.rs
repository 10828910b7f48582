//! A request → what it is in the terms of Kubernetes' API: a verb on a resource,
//! which is what roles allow, or a mere path.
//!
//! `GET /apis/metrics.k8s.io/v1beta1/namespaces/shop/pods/web` is `get` on `pods`
//! of the group `metrics.k8s.io`, in `shop`, by the name of `web`.

use super::path;

/// A verb on a resource. What does not apply is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Resource {
    pub(super) verb: &'static str,
    pub(super) group: String,
    pub(super) version: String,
    pub(super) namespace: String,
    pub(super) resource: String,
    pub(super) subresource: String,
    pub(super) name: String,
}

impl Resource {
    /// What a request wants; `None` if it is about no resource of a group. The path is one
    /// without doubled slashes. Segments are decoded one by one, as they are where they are answered.
    pub(super) fn of(method: &str, target: &str, query: &str) -> Option<Resource> {
        let mut segments = path::segments(target)?;
        if segments.len() < 4 || segments.first().map(String::as_str) != Some("apis") {
            return None;
        }
        let mut rest = segments.split_off(3).into_iter().peekable();
        let mut head = segments.into_iter().skip(1);
        let mut next = || rest.next().unwrap_or_default();
        let mut namespace = String::new();
        let mut resource = next();
        let (mut name, mut subresource) = (next(), next());
        if resource == "namespaces" && !subresource.is_empty() {
            (namespace, resource) = (name, subresource);
            (name, subresource) = (next(), next());
        } else if resource == "namespaces" {
            namespace.clone_from(&name);
        }
        let query = path::query(query)?;
        let parameter = |wanted: &str| query.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
        let watches = parameter("watch").is_some_and(|watch| !matches!(watch.as_str(), "" | "0" | "false"));
        let verb = match (method, name.is_empty()) {
            ("GET" | "HEAD", _) if watches => "watch",
            ("GET" | "HEAD", true) => "list",
            ("GET" | "HEAD", false) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "deletecollection",
            ("DELETE", false) => "delete",
            _ => "",
        };
        // Who may list one object by its name may do so.
        if verb == "list"
            && let Some(only) = parameter("fieldSelector")
            && let Some(only) = only.strip_prefix("metadata.name=")
            && !only.contains([',', '=', '\\'])
        {
            name = only.to_owned();
        }
        let mut head = || head.next().unwrap_or_default();
        Some(Resource { verb, group: head(), version: head(), namespace, resource, subresource, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, target: &str, expected: Option<[&str; 5]>) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let found = Resource::of(method, path, query);
        if let Some(found) = &found {
            assert_eq!((found.group.as_str(), found.version.as_str()), ("metrics.k8s.io", "v1beta1"));
        }
        let found = found.map(|r| [r.verb.to_owned(), r.namespace, r.resource, r.subresource, r.name]);
        assert_eq!(found, expected.map(|e| e.map(str::to_owned)), "{method} {target}");
    }

    #[test]
    fn resources() {
        const ROOT: &str = "/apis/metrics.k8s.io/v1beta1";
        let check = |method, path: &str, expected| check(method, &format!("{ROOT}{path}"), expected);
        check("GET", "/nodes", Some(["list", "", "nodes", "", ""]));
        check("GET", "/nodes/n1", Some(["get", "", "nodes", "", "n1"]));
        check("HEAD", "/nodes/n1/x", Some(["get", "", "nodes", "x", "n1"]));
        check("GET", "/pods?watch=true", Some(["watch", "", "pods", "", ""]));
        check("GET", "/pods?watch=0", Some(["list", "", "pods", "", ""]));
        check("GET", "/namespaces/shop/pods", Some(["list", "shop", "pods", "", ""]));
        check("GET", "/namespaces/shop/pods/web", Some(["get", "shop", "pods", "", "web"]));
        check("GET", "/namespaces/sh%6Fp/pods/a%2Fb", Some(["get", "shop", "pods", "", "a/b"]));
        check("GET", "/namespaces/shop", Some(["get", "shop", "namespaces", "", "shop"]));
        check(
            "GET",
            "/namespaces/shop/pods?fieldSelector=metadata.name%3Dweb",
            Some(["list", "shop", "pods", "", "web"]),
        );
        // The first one counts, however it is written.
        let twice = "/pods?field%53elector=metadata.namespace%3Da&fieldSelector=metadata.name%3Dweb";
        check("GET", twice, Some(["list", "", "pods", "", ""]));
        for other in ["metadata.name!=web", "metadata.name%3Da,metadata.namespace%3Db", "metadata.name==a"] {
            let path = format!("/pods?fieldSelector={other}");
            check("GET", &path, Some(["list", "", "pods", "", ""]));
        }
        check("DELETE", "/pods", Some(["deletecollection", "", "pods", "", ""]));
        check("POST", "/namespaces/shop/pods", Some(["create", "shop", "pods", "", ""]));
        check("BREW", "/pods", Some(["", "", "pods", "", ""]));
        check("GET", "", None);
        check("GET", "/", None);
        check("GET", "/pods/%ff", None);
    }

    #[test]
    fn mere_paths() {
        for path in ["/", "/apis", "/apis/metrics.k8s.io", "/version", "/api/v1/nodes/n1", "/openapi/v2", "*"]
        {
            check("GET", path, None);
        }
    }
}
