//! `--source` URIs → where figures come from: Heapster's grammar and options.
//!
//! `KEY[:URL][?OPTION=VALUE&…]`. `push` is what agents send, which is always
//! taken; `kubernetes` and `kubernetes.summary_api` are one and the same here:
//! nodes are found through the API server, and the Summary API of kubelets is
//! pulled where no agent pushes. What stands behind the colon may name
//! variables of the environment, `$NAME` or `${NAME}`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use axum::http::Uri;
use reqwest::Url;

use crate::kubernetes::Server;

const ACCEPTED: &str = "accepted: push, kubernetes:URL?OPTIONS, kubernetes.summary_api:URL?OPTIONS, such as kubernetes:https://kubernetes.default";

/// Options of the Kubernetes sources.
const OPTIONS: [&str; 8] = [
    "inClusterConfig",
    "kubeletPort",
    "kubeletHttps",
    "insecure",
    "auth",
    "useServiceAccount",
    "host_id_annotation",
    "apiVersion",
];

/// The port without TLS, which Heapster asked.
const READ_ONLY_PORT: u16 = 10_255;

/// Reads the environment.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Where figures come from besides pushes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Kubelets, where they are to be asked.
    pub pull: Option<Pull>,
    /// What was said without meaning anything, for the log.
    pub notices: Vec<String>,
}

/// Kubelets found through an API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Who tells of nodes, pods and namespaces.
    pub server: Server,
    /// The port of all kubelets.
    pub port: u16,
    /// Whether they are asked by https, and then shown the token.
    pub https: bool,
    /// Annotation of nodes that says what identifies the host, where the node has
    /// no external id.
    pub host_id_annotation: Option<String>,
}

impl Sources {
    /// Reads all `--source` that were given.
    ///
    /// # Errors
    /// One of them is none, or they contradict each other; the message begins
    /// with its text.
    pub fn parse<'t>(
        texts: impl IntoIterator<Item = &'t str>,
        environment: Environment<'_>,
    ) -> Result<Sources> {
        let mut sources = Sources::default();
        for text in texts {
            let pull = one(text, environment, &mut sources.notices).with_context(|| format!("{text:?}"))?;
            if pull.is_some() && sources.pull.is_some() {
                bail!("{text:?}: a second one; accepted: push, and one of Kubernetes");
            }
            sources.pull = sources.pull.or(pull);
        }
        Ok(sources)
    }
}

fn one(text: &str, environment: Environment<'_>, notices: &mut Vec<String>) -> Result<Option<Pull>> {
    let (key, rest) = text.split_once(':').unwrap_or((text, ""));
    match key {
        "push" if rest.is_empty() => Ok(None),
        "push" => bail!("push has no address; accepted: push"),
        "kubernetes" | "kubernetes.summary_api" => {
            pull(text, &expanded(rest, environment), notices).map(Some)
        }
        "cadvisor" => bail!(
            "hosts are not listed here any more; accepted: push, with \
             nodegauge agent --push aggregator:http://HOST:8082 on each of them"
        ),
        _ => bail!("unknown source; {ACCEPTED}"),
    }
}

fn pull(text: &str, rest: &str, notices: &mut Vec<String>) -> Result<Pull> {
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let url = match address {
        // An empty pair of quotes is how manifests wrote "no address".
        "" | "''" | "\"\"" => None,
        address if !address.contains("://") => {
            notices.push(format!(
                "--source {text:?}: {address:?} has no scheme and is not used; the cluster's own address is"
            ));
            None
        }
        address => Some(api_server(address)?),
    };
    let query = query.split('#').next().unwrap_or_default();
    let query = Url::parse(&format!("http://options/?{query}")).context("its options cannot be read")?;
    let pairs: Vec<(String, String)> = query.query_pairs().into_owned().collect();
    for (name, _) in &pairs {
        if !OPTIONS.contains(&name.as_str()) {
            notices.push(format!(
                "--source {text:?}: {name:?} is not an option and has no meaning; accepted: {}",
                OPTIONS.join(", ")
            ));
        }
    }
    // Of several the first, as before.
    let option = |name: &str| pairs.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str());
    if option("apiVersion").is_some() {
        notices.push(format!("--source {text:?}: apiVersion has no meaning any more"));
    }
    let flag = |name: &str, default: bool| option(name).map_or(Ok(default), |value| boolean(name, value));
    let port = option("kubeletPort").map(|value| match value.parse() {
        Ok(port @ 1..) => Ok(port),
        _ => Err(anyhow!("kubeletPort={value:?}: accepted: 1 to 65535")),
    });
    let non_empty = |name: &str| option(name).filter(|value| !value.is_empty());
    let in_cluster = flag("inClusterConfig", true)?;
    if in_cluster && non_empty("auth").is_some() {
        notices.push(format!("--source {text:?}: auth has no meaning without inClusterConfig=false"));
    }
    if !in_cluster && url.is_none() && non_empty("auth").is_none() {
        bail!("inClusterConfig=false, and no API server; accepted: an address, auth=KUBECONFIG or both");
    }
    Ok(Pull {
        server: Server {
            url,
            in_cluster,
            kubeconfig: non_empty("auth").map(PathBuf::from),
            service_account: flag("useServiceAccount", false)?,
            insecure: flag("insecure", false)?,
        },
        port: port.transpose()?.unwrap_or(READ_ONLY_PORT),
        https: flag("kubeletHttps", false)?,
        host_id_annotation: non_empty("host_id_annotation").map(str::to_owned),
    })
}

fn api_server(address: &str) -> Result<Uri> {
    let refused = || {
        anyhow!(
            "{address:?} is no address of an API server; accepted: http or https, such as https://kubernetes.default"
        )
    };
    let url: Uri = address.trim_end_matches('/').parse().map_err(|_| refused())?;
    match (url.scheme_str(), url.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(url),
        _ => Err(refused()),
    }
}

/// A switch in any of the spellings that Go accepts.
fn boolean(name: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => bail!("{name}={value:?}: accepted: true, false"),
    }
}

/// `$NAME` and `${NAME}` replaced by what the environment has, or by nothing.
fn expanded(text: &str, environment: Environment<'_>) -> String {
    let of = |name: &str| environment(name).map(|v| v.to_string_lossy().into_owned()).unwrap_or_default();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
        rest = match (braced, after.split_at_checked(end)) {
            (Some((name, after)), _) => {
                out.push_str(&of(name));
                after
            }
            (None, Some((name, after))) if !name.is_empty() => {
                out.push_str(&of(name));
                after
            }
            _ => {
                out.push('$');
                after
            }
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Result<Sources> {
        Sources::parse(texts.iter().copied(), &|name| {
            (name == "API" || name == "PORT_1")
                .then(|| OsString::from(if name == "API" { "api.test" } else { "8443" }))
        })
    }

    fn pulled(text: &str) -> Pull {
        parse(&[text]).unwrap_or_else(|e| panic!("{text}: {e:#}")).pull.unwrap()
    }

    fn url(text: &str) -> Option<String> {
        pulled(text).server.url.map(|url| url.to_string())
    }

    #[test]
    fn command_lines_people_have() {
        let plain = pulled("kubernetes:https://kubernetes.default");
        let server = Server {
            url: Some("https://kubernetes.default".parse().unwrap()),
            in_cluster: true,
            kubeconfig: None,
            service_account: false,
            insecure: false,
        };
        assert_eq!(
            plain,
            Pull { server: server.clone(), port: 10_255, https: false, host_id_annotation: None }
        );
        let outside = pulled("kubernetes:http://10.0.0.1:8080?inClusterConfig=false");
        assert_eq!((outside.server.in_cluster, outside.server.url.unwrap().port_u16()), (false, Some(8080)));
        let kubeconfig = pulled(
            "kubernetes:https://kubernetes.default?inClusterConfig=false&insecure=true&auth=/root/.kube/config",
        );
        let expected = Server {
            in_cluster: false,
            insecure: true,
            kubeconfig: Some("/root/.kube/config".into()),
            ..server
        };
        assert_eq!(kubeconfig.server, expected);
        let all = pulled(
            "kubernetes.summary_api:''?kubeletHttps=true&kubeletPort=10250&useServiceAccount=T&host_id_annotation=a%2Fb",
        );
        assert_eq!(
            (all.server.url, all.port, all.https, all.server.service_account),
            (None, 10_250, true, true)
        );
        assert_eq!(all.host_id_annotation.as_deref(), Some("a/b"));
    }

    #[test]
    fn addresses_and_the_environment() {
        for none in
            ["kubernetes", "kubernetes:", "kubernetes:''", "kubernetes:?insecure=false", "kubernetes:\"\""]
        {
            assert_eq!(url(none), None, "{none}");
        }
        let check = |text: &str, expected: &str| assert_eq!(url(text).as_deref(), Some(expected), "{text}");
        check("kubernetes:https://$API:${PORT_1}/?apiVersion=v1", "https://api.test:8443/");
        check("kubernetes:https://a$NONE.b", "https://a.b/");
        assert_eq!(expanded("a$$b$ $", &|_| None), "a$$ $", "a sign alone stays");
        assert_eq!(parse(&["push"]).unwrap(), Sources::default());
        assert!(parse(&["push", "kubernetes:"]).unwrap().pull.is_some());
    }

    #[test]
    fn what_has_no_meaning_is_told() {
        let check = |text: &str, named: &str| {
            let notices = parse(&[text]).unwrap().notices;
            assert!(notices.len() == 1 && notices[0].contains(named), "{text}: {notices:?}");
        };
        check("kubernetes:https://a?nodes=5", "\"nodes\" is not an option");
        check("kubernetes:https://a?apiVersion=v1", "apiVersion");
        check("kubernetes:https://a?auth=/x", "auth has no meaning");
        check("kubernetes:kubernetes.default", "no scheme");
    }

    #[test]
    fn refusals_name_the_value_and_what_is_accepted() {
        let check = |texts: &[&str], named: &str| {
            let error = format!("{:#}", parse(texts).expect_err("refused"));
            assert!(error.contains(named) && error.contains("accepted: "), "{error}");
        };
        check(&["cadvisor:external?standalone=true"], "\"cadvisor:external?standalone=true\": ");
        check(&["influxdb:http://a"], "unknown source");
        check(&[""], "unknown source");
        check(&["push:http://a"], "no address");
        check(&["kubernetes:ftp://a"], "\"ftp://a\"");
        check(&["kubernetes:https://a?kubeletPort=0"], "kubeletPort=\"0\"");
        check(&["kubernetes:https://a?kubeletHttps=maybe"], "kubeletHttps=\"maybe\"");
        check(&["kubernetes:?inClusterConfig=false"], "no API server");
        check(&["kubernetes:", "kubernetes.summary_api:"], "a second one");
    }
}
