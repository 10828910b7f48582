//! Settings of the aggregator.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use tracing::level_filters::LevelFilter;

use super::access::Role;
use super::values::{count, duration, log_format, log_level};
use super::{Environment, Layers, LogFormat};
use crate::auth::Access;
use crate::cli::Settings;

/// Settings that mean something to the aggregator and to nobody else.
pub(super) const OWN: [&str; 2] = ["metric-resolution", "max-nodes"];

/// Those it shares with the agent.
const SHARED: [&str; 9] = [
    "config",
    "listen",
    "auth",
    "auth-token-file",
    "tls-cert",
    "tls-key",
    "tls-client-ca",
    "log-level",
    "log-format",
];

/// Finer steps than agents can push serve nobody; of longer ones the fifteen
/// minutes that are kept would have too few.
const RESOLUTIONS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);

/// How the aggregator runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregatorConfig {
    /// Where to serve and to be pushed to.
    pub listen: SocketAddr,
    /// Who may read and who may push there, and by which certificates.
    pub access: Access,
    /// Time between two steps of the model.
    pub resolution: Duration,
    /// Most nodes to hold.
    pub max_nodes: usize,
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
    pub fn load(flags: Settings, environment: Environment<'_>) -> Result<AggregatorConfig> {
        for flag in flags.given() {
            if !OWN.contains(&flag.as_str()) && !SHARED.contains(&flag.as_str()) {
                let accepted: Vec<_> = SHARED.iter().chain(&OWN).map(|name| format!("--{name}")).collect();
                bail!("--{flag}: not a setting of the aggregator; accepted: {}", accepted.join(", "));
            }
        }
        let layers = Layers::read(flags, environment)?;
        let (listen, access) = layers.listener(Role::Aggregator)?;
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
        Ok(AggregatorConfig {
            listen,
            access,
            resolution: resolution.unwrap_or(Duration::from_secs(60)),
            max_nodes: layers.parse("max-nodes", |s| &s.max_nodes, count)?.unwrap_or(10_000),
            log_level: layers.parse("log-level", |s| &s.log_level, log_level)?.unwrap_or(LevelFilter::INFO),
            log_format: layers.parse("log-format", |s| &s.log_format, log_format)?.unwrap_or(LogFormat::Text),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::auth::Choice;
    use crate::cli::{Parsed, parse};

    fn load(words: &[&str], environment: &[(&str, &str)]) -> Result<AggregatorConfig> {
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
        check(&["--push", "influxdb:http://a"], "--push: not a setting of the aggregator");
        check(
            &["--metric-resolution", "500ms"],
            "--metric-resolution \"500ms\": out of range; accepted: 1s to 5m",
        );
        check(&["--listen", "0.0.0.0:8082"], "--auth none");
        check(
            &["--listen", "0.0.0.0:8082", "--auth", "none", "--auth-token-file", "t"],
            "tokens are not sent over plain http",
        );
    }
}
