//! What a path needs: nothing, or a permission, as one small table.
//!
//! The permissions are the kubelet's own, so that roles written for scraping
//! kubelets work here: `nodes/metrics`, `nodes/stats`, and `nodes/proxy` for
//! whatever has none of its own. Who lacks it may still hold the path as a
//! `nonResourceURL`. Paths are compared as they are routed, byte by byte: one
//! that is written in another way is routed nowhere, and needs `nodes/proxy`.

/// What a request must be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Open,
    /// This subresource of the node.
    Node(&'static str),
}

/// Paths and what they need.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// A path; what lies below it counts too unless it is open.
    pub path: &'static str,
    /// What is needed.
    pub need: Need,
}

/// What the kubelet does with everything it has no subresource for.
const OTHERS: Need = Need::Node("proxy");

/// The agent's paths.
pub const AGENT: &[Rule] = &[
    Rule { path: "/healthz", need: Need::Open },
    Rule { path: "/readyz", need: Need::Open },
    Rule { path: "/metrics", need: Need::Node("metrics") },
    Rule { path: "/stats", need: Need::Node("stats") },
];

/// What `path` needs.
pub fn need(rules: &[Rule], path: &str) -> Need {
    let found = rules.iter().find(|rule| match rule.need {
        Need::Open => path == rule.path,
        Need::Node(_) => {
            path.strip_prefix(rule.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    });
    let odd =
        path.contains("//") || path.contains('%') || path.split('/').any(|part| part == "." || part == "..");
    found.filter(|_| !odd).map_or(OTHERS, |rule| rule.need)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs() {
        let check = |path: &str, expected: Need| assert_eq!(need(AGENT, path), expected, "{path}");
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
}
