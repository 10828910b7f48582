//! Settings of the aggregator.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tracing::level_filters::LevelFilter;

use super::access::Role;
use super::apiserver::{self, ApiServerConfig};
use super::values::{count, duration, log_format, log_level};
use super::{Environment, Layers, LogFormat, Sending, heapster};
use crate::aggregate::source::{Pull, Sources};
use crate::auth::Access;
use crate::cli::Settings;
use crate::push::labels::LabelRules;

/// Settings that mean something to the aggregator and to nobody else.
pub(super) const OWN: [&str; 9] = [
    "metric-resolution",
    "max-nodes",
    "source",
    "sink",
    "sink-export-data-timeout",
    "ha",
    "ha-lease",
    "disable-metric-sink",
    "snapshot",
];

/// Those it shares with the agent.
const SHARED: [&str; 15] = [
    "config",
    "listen",
    "auth",
    "auth-token-file",
    "auth-metrics",
    "auth-model",
    "auth-dashboard",
    "tls-cert",
    "tls-key",
    "tls-client-ca",
    "log-level",
    "log-format",
    "push",
    "queue-dir",
    "queue-max-bytes",
];

/// Finer steps than agents can push serve nobody; of longer ones the fifteen
/// minutes that are kept would have too few.
pub(super) const RESOLUTIONS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(300);

/// How the aggregator runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregatorConfig {
    /// Where to serve and to be pushed to.
    pub listen: SocketAddr,
    /// Who may read and who may push there, and by which certificates.
    pub access: Access,
    /// The resource metrics API on a port of its own, if it is served.
    pub api: Option<ApiServerConfig>,
    /// Time between two steps of the model.
    pub resolution: Duration,
    /// Where the model is kept across restarts, if it is.
    pub snapshot: Option<PathBuf>,
    /// Most nodes to hold.
    pub max_nodes: usize,
    /// Kubelets that are asked where no agent pushes.
    pub pull: Option<Pull>,
    /// How labels are shown where there is one text for all.
    pub labels: LabelRules,
    /// What is sent, and where to.
    pub sending: Sending,
    /// Whether the export stays empty.
    pub disable_export: bool,
    /// Different names a program may push of itself in one step; `None` for any number.
    pub max_push_metrics: Option<usize>,
    /// What was said that means nothing here, for the log.
    pub notices: Vec<String>,
    /// Least severe messages to log.
    pub log_level: LevelFilter,
    /// How messages are written.
    pub log_format: LogFormat,
}

impl AggregatorConfig {
    /// Reads and checks all settings. Those of the agent are refused as flags; in
    /// the environment and in a file, which roles may share, they do not count.
    ///
    /// # Errors
    /// One line for the user, about the first thing found wrong.
    pub fn load(mut flags: Settings, environment: Environment<'_>) -> Result<AggregatorConfig> {
        for flag in flags.given() {
            let mut known = SHARED.iter().chain(&OWN).chain(&apiserver::OWN);
            if !known.any(|known| *known == flag) {
                let accepted = SHARED.iter().chain(&OWN).chain(&apiserver::OWN);
                let accepted: Vec<_> = accepted.map(|name| format!("--{name}")).collect();
                bail!("--{flag}: not a setting of the aggregator; accepted: {}", accepted.join(", "));
            }
        }
        let mut said = heapster::apply(&mut flags, environment)?;
        let layers = Layers::read(flags, environment)?;
        let config = AggregatorConfig::of(&layers, Role::Aggregator, Duration::from_secs(60), environment)?;
        let mut sending = config.sending;
        sending.targets.iter_mut().for_each(|target| target.protocol.show_labels(&said.labels));
        if let Some(labels) = &mut sending.journal {
            labels.clone_from(&said.labels);
        }
        Ok(AggregatorConfig {
            access: said.restrict(config.access)?,
            sending,
            labels: said.labels,
            disable_export: said.disable_export,
            max_push_metrics: said.max_push_metrics,
            notices: said.notices.into_iter().chain(config.notices).collect(),
            ..config
        })
    }

    /// The aggregator's settings, with its default resolution.
    pub(super) fn of(
        layers: &Layers,
        role: Role,
        default_resolution: Duration,
        environment: Environment<'_>,
    ) -> Result<AggregatorConfig> {
        let (listen, access) = layers.listener(role)?;
        let sources = layers.sources(environment)?;
        let resolution = layers.parse(
            "metric-resolution",
            |s| &s.metric_resolution,
            |text| {
                let value = duration(text)?;
                // Steps stand on a grid of whole milliseconds.
                if !RESOLUTIONS.contains(&value) || value.subsec_nanos() % 1_000_000 != 0 {
                    bail!("out of range; accepted: 1s to 5m");
                }
                Ok(value)
            },
        )?;
        let resolution = resolution.unwrap_or(default_resolution);
        Ok(AggregatorConfig {
            listen,
            api: layers.api_server(access.tls.as_ref())?,
            access,
            resolution,
            sending: layers.sending(role, resolution, environment)?,
            snapshot: layers.parse("snapshot", |s| &s.snapshot, snapshot)?,
            max_nodes: layers.parse("max-nodes", |s| &s.max_nodes, count)?.unwrap_or(10_000),
            pull: sources.pull,
            labels: LabelRules::default(),
            disable_export: false,
            max_push_metrics: None,
            notices: sources.notices,
            log_level: layers.parse("log-level", |s| &s.log_level, log_level)?.unwrap_or(LevelFilter::INFO),
            log_format: layers.parse("log-format", |s| &s.log_format, log_format)?.unwrap_or(LogFormat::Text),
        })
    }
}

impl Layers {
    /// Every `--source` of the place that wins.
    fn sources(&self, environment: Environment<'_>) -> Result<Sources> {
        let Some((origin, texts)) = self.0.iter().find_map(|(o, s)| s.source.as_ref().map(|t| (o, t))) else {
            return Ok(Sources::default());
        };
        Sources::parse(texts.iter().map(String::as_str), environment).with_context(|| origin.name("source"))
    }
}

fn snapshot(text: &str) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    if path.file_name().is_none() || path.is_dir() {
        bail!("no file; accepted: a file in a directory that can be written to");
    }
    Ok(path)
}

#[cfg(test)]
pub(super) mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::auth::Choice;
    use crate::cli::{Parsed, parse};

    pub(in crate::config) fn load(words: &[&str], environment: &[(&str, &str)]) -> Result<AggregatorConfig> {
        let Parsed::Run(cli) = parse(["nodegauge", "aggregator"].iter().chain(words)) else {
            panic!("{words:?} is no command line")
        };
        AggregatorConfig::load(cli.settings, &|name| {
            environment.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))
        })
    }

    #[test]
    fn defaults_and_heapsters_spelling() {
        let config = load(&[], &[("NODEGAUGE_PUSH", "influxdb:http://a")]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8082");
        assert_eq!((config.resolution, config.max_nodes), (Duration::from_secs(60), 10_000));
        assert_eq!(
            config.access,
            Access { auth: Choice::None, tls: None, push: None, opened: Default::default() }
        );
        let finer = load(&["--metric_resolution=15s"], &[]).unwrap();
        assert_eq!(finer.resolution, Duration::from_secs(15));
    }

    #[test]
    fn who_may_push_is_told_apart_beyond_loopback() {
        let access = |words: &[&str]| load(words, &[]).unwrap().access;
        let beyond = ["--listen", "0.0.0.0:8082"];
        assert_eq!(access(&[&beyond[..], &["--auth", "none"]].concat()).push, Some(Choice::Token(None)));
        let tls = ["--tls-cert", "c", "--tls-key", "k"];
        let tokens = [&beyond[..], &tls, &["--auth", "none", "--auth-token-file", "t"]].concat();
        assert_eq!(access(&tokens).push, Some(Choice::Token(Some("t".into()))));
        let certificates = [&beyond[..], &tls, &["--auth", "none", "--tls-client-ca", "a"]].concat();
        assert_eq!(access(&certificates).push, Some(Choice::Token(None)));
        let same = [&beyond[..], &tls, &["--auth", "kubernetes"]].concat();
        assert_eq!(access(&same).push, None, "who may read is asked the same way");
    }

    #[test]
    fn what_is_refused() {
        let check = |words: &[&str], expected: &str| {
            let error = format!("{:#}", load(words, &[]).unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        check(&["--interval", "5s"], "--interval: not a setting of the aggregator; accepted: --config, ");
        check(
            &["--metric-resolution", "500ms"],
            "--metric-resolution \"500ms\": out of range; accepted: 1s to 5m",
        );
        check(&["--listen", "0.0.0.0:8082"], "--auth none");
        check(&["--snapshot", "/tmp"], "--snapshot \"/tmp\": no file; accepted: a file in a directory");
        check(&["--snapshot", ""], "--snapshot \"\": no file");
        check(
            &["--listen", "0.0.0.0:8082", "--auth", "none", "--auth-token-file", "t"],
            "tokens are not sent over plain http",
        );
    }
}
