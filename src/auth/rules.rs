//! What a path needs: nothing, or a permission, as one small table per role.
//!
//! The agent's permissions are the kubelet's own, so that roles written for scraping
//! kubelets work there: `nodes/metrics`, `nodes/stats`, and `nodes/proxy` for
//! whatever has none of its own. Who lacks it may still hold the path as a
//! `nonResourceURL`, which is all the aggregator knows, since it is no node. Paths
//! are compared as they are routed, byte by byte: one that is written in another
//! way needs what whatever has no rule needs.

/// What a request must be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Open,
    /// This subresource of the node, or the path as a `nonResourceURL`.
    Node(&'static str),
    /// The path as a `nonResourceURL`.
    Path,
    /// The same, for who sends what others will read: by a token made for us alone.
    Push,
    /// The resource of Kubernetes' API that the path is, else the path as a `nonResourceURL`.
    Api,
}

/// Paths whose authentication can be switched off by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// `/metrics` and what is below it.
    Metrics,
    /// What is asked of containers, nodes and pods: cAdvisor's, the kubelet's,
    /// Heapster's and Kubernetes' APIs.
    Model,
    /// Pages for people, what they ask for, and the Dashboard's scraper API.
    Dashboard,
}

/// The areas that are open to everybody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Opened {
    /// See [`Area::Metrics`].
    pub metrics: bool,
    /// See [`Area::Model`].
    pub model: bool,
    /// See [`Area::Dashboard`].
    pub dashboard: bool,
}

impl Opened {
    /// Whether an area is.
    pub fn has(self, area: Area) -> bool {
        match area {
            Area::Metrics => self.metrics,
            Area::Model => self.model,
            Area::Dashboard => self.dashboard,
        }
    }
}

/// The areas' paths, each with what is below it; the first that fits.
const AREAS: [(&str, Area); 10] = [
    ("/metrics", Area::Metrics),
    ("/api/v1/dashboard", Area::Dashboard),
    ("/api/page", Area::Dashboard),
    ("/page", Area::Dashboard),
    ("/containers", Area::Dashboard),
    ("/docker", Area::Dashboard),
    ("/validate", Area::Dashboard),
    ("/api", Area::Model),
    ("/apis", Area::Model),
    ("/stats", Area::Model),
];

/// Paths and what they need.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// A path; what lies below it counts too, but of one that is open or pushed to only if it ends with a slash.
    pub path: &'static str,
    /// What is needed.
    pub need: Need,
}

/// All paths of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Those that have a rule.
    pub table: &'static [Rule],
    /// What all others need.
    pub others: Need,
}

/// The agent's paths; the others as the kubelet has it.
pub const AGENT: Rules = Rules {
    table: &[
        Rule { path: "/healthz", need: Need::Open },
        Rule { path: "/readyz", need: Need::Open },
        Rule { path: "/metrics", need: Need::Node("metrics") },
        Rule { path: "/stats", need: Need::Node("stats") },
    ],
    others: Need::Node("proxy"),
};

/// The aggregator's paths.
pub const AGGREGATOR: Rules = Rules {
    table: &[
        Rule { path: "/healthz", need: Need::Open },
        Rule { path: "/readyz", need: Need::Open },
        Rule { path: "/api/v1/batches", need: Need::Push },
        Rule { path: "/api/v1/push/", need: Need::Push },
    ],
    others: Need::Path,
};

/// The paths of an aggregated API server.
pub const API: Rules = Rules {
    table: &[
        Rule { path: "/healthz", need: Need::Open },
        Rule { path: "/livez", need: Need::Open },
        Rule { path: "/readyz", need: Need::Open },
    ],
    others: Need::Api,
};

impl Rules {
    /// What `path` needs.
    pub fn need(&self, path: &str) -> Need {
        let found = self.table.iter().find(|rule| match rule.need {
            Need::Open | Need::Push => {
                path == rule.path || (rule.path.ends_with('/') && path.starts_with(rule.path))
            }
            Need::Node(_) | Need::Path | Need::Api => is_within(path, rule.path),
        });
        found.filter(|_| !is_odd(path)).map_or(self.others, |rule| rule.need)
    }

    /// The area that `path` is in; none takes pushes.
    pub fn area(&self, path: &str) -> Option<Area> {
        if is_odd(path) || self.need(path) == Need::Push {
            return None;
        }
        if path == "/" {
            return Some(Area::Dashboard);
        }
        AREAS.iter().find(|(root, _)| is_within(path, root)).map(|(_, area)| *area)
    }
}

fn is_within(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Written in another way than it is routed.
fn is_odd(path: &str) -> bool {
    path.contains("//") || path.contains('%') || path.split('/').any(|part| part == "." || part == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs() {
        let check = |path: &str, expected: Need| assert_eq!(AGENT.need(path), expected, "{path}");
        for path in ["/healthz", "/readyz"] {
            check(path, Need::Open);
        }
        for path in ["/metrics", "/metrics/self", "/metrics/cadvisor", "/metrics/resource"] {
            check(path, Need::Node("metrics"));
        }
        for path in ["/stats", "/stats/summary"] {
            check(path, Need::Node("stats"));
        }
        for path in [
            "/",
            "",
            "*",
            "/metricsx",
            "/healthz/",
            "/healthz/x",
            "/Healthz",
            "/%68ealthz",
            "/readyz%00",
            "/metrics/../x",
            "/metrics//self",
            "/metrics/%2e%2e/healthz",
            "/healthz/../metrics",
            "/api/v1.3/machine",
        ] {
            check(path, Need::Node("proxy"));
        }
    }

    #[test]
    fn areas() {
        let check = |path: &str, expected| assert_eq!(AGGREGATOR.area(path), expected, "{path}");
        check("/metrics", Some(Area::Metrics));
        check("/metrics/resource", Some(Area::Metrics));
        check("/api/v1/model/nodes", Some(Area::Model));
        check("/apis/metrics.k8s.io/v1beta1/pods", Some(Area::Model));
        check("/stats/summary", Some(Area::Model));
        check("/api/v1/dashboard/nodes", Some(Area::Dashboard));
        check("/", Some(Area::Dashboard));
        for path in ["/api/v1/batches", "/apix", "/healthz", "/metrics/../x", "/api//x", "/%6detrics", ""] {
            check(path, None);
        }
    }

    #[test]
    fn only_the_path_itself_is_pushed_to() {
        let check = |path: &str, expected: Need| assert_eq!(AGGREGATOR.need(path), expected, "{path}");
        check("/api/v1/batches", Need::Push);
        check("/healthz", Need::Open);
        check("/api/v1/push/prometheus/metrics/job/shop", Need::Push);
        for path in [
            "/api/v1/pushes",
            "/api/v1/push",
            "/api/v1/push/../model",
            "/api/v1/batches/",
            "//api/v1/batches",
            "/api/v1/batches/x",
            "/api/v1/model",
            "/metrics",
        ] {
            check(path, Need::Path);
        }
    }
}
