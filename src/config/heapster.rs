//! Heapster's flags → our settings.

use anyhow::{Result, anyhow, bail};

use super::Environment;
use crate::auth::{Access, Choice};
use crate::cli::{Settings, environment_name};
use crate::push::labels::LabelRules;

/// Heapster's port.
const PORT: u16 = 8082;

/// What Heapster's flags say that is no setting of ours.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// How labels are joined.
    pub(super) labels: LabelRules,
    /// Whether `/api/v1/metric-export` stays empty.
    pub(super) disable_export: bool,
    /// Different names a producer may push in one step; `None` for any number.
    pub(super) max_push_metrics: Option<usize>,
    users: Vec<String>,
    /// What means nothing here.
    pub(super) notices: Vec<String>,
}

/// Takes what Heapster's flags say into the settings they stand for.
///
/// # Errors
/// A value is bad, or contradicts a flag of ours.
pub(super) fn apply(flags: &mut Settings, environment: Environment<'_>) -> Result<Said> {
    let given = flags.heapster.clone();
    let port = match (given.last("heapster-port"), given.last("port")) {
        (Some(text), _) => Some(("heapster-port", text)),
        (None, text) => text.map(|text| ("port", text)),
    };
    let ip = given.last("listen-ip").filter(|text| !text.is_empty());
    let told = |setting: &str| environment(&environment_name(setting)).is_some_and(|v| !v.is_empty());
    let listens = flags.listen.is_some();
    if let Some((name, _)) = port.filter(|_| listens) {
        bail!("--{name}: given together with --listen; accepted: one of them");
    }
    if ip.is_some() && listens {
        bail!("--listen-ip: given together with --listen; accepted: one of them");
    }
    if port.is_some() || ip.is_some() || given.in_its_place && !listens && !told("listen") {
        let port = match port {
            Some((name, text)) => text
                .parse::<u16>()
                .map_err(|_| anyhow!("--{name} {text:?}: not a port; accepted: 0 to 65535, 0 takes any"))?,
            None => PORT,
        };
        // As Heapster where it is swapped, else as safe as by default.
        let any = if given.in_its_place { "0.0.0.0" } else { "127.0.0.1" };
        let ip = ip.unwrap_or(any);
        let address: std::net::IpAddr =
            ip.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| {
                anyhow!("--listen-ip {ip:?}: not an address; accepted: such as 0.0.0.0 or ::")
            })?;
        flags.listen = Some(std::net::SocketAddr::new(address, port).to_string());
    }
    let users: Vec<String> = given
        .all("allowed-users")
        .iter()
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|user| !user.is_empty())
        .map(str::to_owned)
        .collect();
    if given.in_its_place && flags.auth.is_none() && !told("auth") {
        let certificates = flags.tls_client_ca.is_some() || told("tls-client-ca");
        flags.auth = Some(if certificates { "token" } else { "none" }.to_owned());
    }
    if let Some(text) = given.last("v").filter(|_| flags.log_level.is_none() && !told("log-level")) {
        let level: u32 =
            text.parse().map_err(|_| anyhow!("--v {text:?}: not a number; accepted: 0 to 10"))?;
        flags.log_level = Some(
            match level {
                0 | 1 => "info",
                2..=4 => "debug",
                _ => "trace",
            }
            .to_owned(),
        );
    }
    let disable_export = match given.last("disable-export") {
        None | Some("false" | "0") => false,
        Some("true" | "1") => true,
        Some(text) => bail!("--disable-export {text:?}: accepted: true, false"),
    };
    let separator = given.last("label-separator").or(given.last("label-seperator"));
    let labels = LabelRules::new(separator, given.all("store-label"), given.all("ignore-label"))
        .map_err(|bad| anyhow!("--store-label {bad:?}: accepted: NAME or NEW=OLD"))?;
    let max_push_metrics = match given.last("max-push-metrics") {
        None | Some("0") => None,
        Some(text) => Some(text.parse().map_err(|_| {
            anyhow!("--max-push-metrics {text:?}: not a number; accepted: names of a producer in a step, 0 for any number")
        })?),
    };
    Ok(Said { labels, disable_export, max_push_metrics, users, notices: given.notices() })
}

impl Said {
    /// Lets only those certificates read that `--allowed-users` names.
    pub(super) fn restrict(&mut self, access: Access) -> Result<Access> {
        if self.users.is_empty() {
            return Ok(access);
        }
        if access.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none()) {
            bail!("--allowed-users: given without --tls-client-ca; accepted: both or none");
        }
        // Agents that push are told apart as they were.
        let push = access.push.or(Some(access.auth));
        Ok(Access { auth: Choice::Users(std::mem::take(&mut self.users)), push, ..access })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::auth::rules::Opened;
    use crate::cli::{Parsed, parse};
    use crate::config::AggregatorConfig;
    use crate::push::target::Protocol;

    fn load(words: &[&str], environment: &[(&str, &str)]) -> Result<AggregatorConfig> {
        let Parsed::Run(cli) = parse(std::iter::once(&"nodegauge").chain(words)) else {
            panic!("{words:?} is no command line")
        };
        assert!(cli.is_aggregator(), "{words:?}");
        AggregatorConfig::load(cli.settings, &|name| {
            environment.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))
        })
    }

    #[test]
    fn in_heapsters_place_it_listens_where_heapster_did() {
        let config = |words: &[&str]| load(words, &[]).unwrap();
        let plain = config(&["--source=kubernetes:https://kubernetes.default"]);
        assert_eq!(plain.listen.to_string(), "0.0.0.0:8082");
        let push = Some(Choice::Token(None));
        let everybody = Access { auth: Choice::None, tls: None, push, opened: Opened::default() };
        assert_eq!((plain.access, plain.pull.is_some()), (everybody, true));
        let moved = config(&["--source=push", "--listen_ip=::1", "--heapster_port=80", "--v=4"]);
        assert_eq!(moved.listen.to_string(), "[::1]:80");
        assert_eq!(moved.log_level, tracing::level_filters::LevelFilter::DEBUG);
        assert_eq!(config(&["--source=push", "--listen", "127.0.0.1:1"]).listen.to_string(), "127.0.0.1:1");
        // With a command it is as careful as ever.
        assert_eq!(config(&["aggregator", "--source=push"]).listen.to_string(), "127.0.0.1:8082");
        assert_eq!(config(&["aggregator", "--port", "7"]).listen.to_string(), "127.0.0.1:7");
        let environment = [("NODEGAUGE_LISTEN", "127.0.0.1:2"), ("NODEGAUGE_LOG_LEVEL", "warn")];
        let told = load(&["--source=push", "--v=9"], &environment).unwrap();
        assert_eq!(told.listen.to_string(), "127.0.0.1:2");
        assert_eq!(told.log_level, tracing::level_filters::LevelFilter::WARN);
        let Parsed::Run(cli) = parse(["/heapster", "--metric_resolution=30s"]) else { panic!() };
        assert!(cli.is_aggregator());
    }

    #[test]
    fn certificates_and_users() {
        let tls = ["--source=push", "--tls_cert=c", "--tls_key=k", "--tls_client_ca=a"];
        let of_ca = load(&tls, &[]).unwrap().access;
        assert_eq!(of_ca.auth, Choice::Token(None));
        let named = load(&[&tls[..], &["--allowed_users=ops, dash"]].concat(), &[]).unwrap().access;
        assert_eq!(named.auth, Choice::Users(vec!["ops".to_owned(), "dash".to_owned()]));
        assert_eq!(named.push, Some(Choice::Token(None)));
    }

    #[test]
    fn labels_and_the_export() {
        let words = [
            "--source=push",
            "--label_seperator=;",
            "--store_label=a=b",
            "--ignore_label=c",
            "--disable_export",
            "--max_push_metrics=7",
        ];
        let config = load(&words, &[]).unwrap();
        assert!(config.disable_export && config.notices.is_empty());
        assert_eq!(config.max_push_metrics, Some(7));
        let words = ["--source=push", "--sink=influxdb:http://a", "--ignore_label=c"];
        let sending = load(&words, &[]).unwrap().sending;
        let Protocol::Influxdb { schema, .. } = &sending.targets[0].protocol else { panic!("{sending:?}") };
        assert_eq!(schema.labels.joined([("b", "1"), ("c", "2")]).as_deref(), Some("b:1"));
        assert_eq!(config.labels.joined([("b", "1"), ("c", "2"), ("d", "3")]).as_deref(), Some("b:1;d:3"));
        assert_eq!(config.labels.stored([("b", "1")]).collect::<Vec<_>>(), [("a", "1")]);
        let told = load(&["--source=push", "--max_procs=2", "--log-dir", "/x", "--api-server=false"], &[]);
        assert_eq!(told.unwrap().notices.len(), 3);
    }

    #[test]
    fn what_is_refused() {
        let check = |words: &[&str], named: &[&str]| {
            let error = format!("{:#}", load(words, &[]).unwrap_err());
            assert!(named.iter().all(|named| error.contains(named)), "{error}");
        };
        let both = ["--source=push", "--port=1", "--listen=127.0.0.1:2"];
        check(&both, &["--port: given together with --listen"]);
        check(&["--source=push", "--heapster-port=x"], &["--heapster-port \"x\"", "0 to 65535"]);
        check(&["--source=push", "--listen-ip=here"], &["--listen-ip \"here\"", "0.0.0.0"]);
        check(&["--source=push", "--allowed-users=a"], &["--allowed-users", "--tls-client-ca"]);
        check(&["--source=push", "--store-label=a="], &["--store-label \"a=\"", "NEW=OLD"]);
        check(&["--source=push", "--max_push_metrics=x"], &["--max-push-metrics \"x\"", "0 for any number"]);
        check(&["--source=push", "--v=loud"], &["--v \"loud\""]);
        check(&["--source=cadvisor:external"], &["--source: \"cadvisor:external\"", "accepted: push"]);
        check(&["aggregator", "--listen-ip=0.0.0.0"], &["--auth none"]);
    }
}
