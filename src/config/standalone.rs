//! Settings of agent and aggregator in one process.
//!
//! All settings of both mean something here. Defaults are for a first look: figures
//! are there within seconds, and of one machine fine steps cost little.

use std::time::Duration;

use anyhow::{Result, bail};

use super::access::Role;
use super::aggregator::RESOLUTIONS;
use super::{AggregatorConfig, Config, Environment, Layers};
use crate::cli::Settings;
use crate::push::target::{DEFAULT_RESOLUTION, Target};

/// Interval of the agent, unless it was said.
const INTERVAL: Duration = Duration::from_secs(5);

/// How agent and aggregator run together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandaloneConfig {
    /// The agent.
    pub agent: Config,
    /// The aggregator.
    pub aggregator: AggregatorConfig,
    /// Time between the steps that the agent hands to the aggregator, at most; a
    /// sink of the agent's may make it shorter.
    pub steps: Duration,
}

impl StandaloneConfig {
    /// Reads and checks all settings.
    ///
    /// # Errors
    /// One line for the user, about the first thing found wrong.
    pub fn load(flags: Settings, environment: Environment<'_>) -> Result<StandaloneConfig> {
        if let Some(flag) = flags.heapster.any() {
            bail!("--{flag}: a flag of Heapster's; accepted: with --source, or with nodegauge aggregator");
        }
        let layers = Layers::read(flags, environment)?;
        let agent = Config::of(&layers, INTERVAL)?;
        // Steps in which nothing was measured show nothing.
        let whole_seconds = agent.interval.as_secs() + u64::from(agent.interval.subsec_nanos() > 0);
        let resolution = Duration::from_secs(whole_seconds).clamp(INTERVAL, *RESOLUTIONS.end());
        let aggregator = AggregatorConfig::of(&layers, Role::Beside, resolution, environment)?;
        let steps = aggregator.resolution.min(DEFAULT_RESOLUTION);
        let finest = agent.push.iter().map(|t| t.resolution).fold(steps, Duration::min);
        let odd = |t: &&Target| !t.resolution.as_millis().is_multiple_of(finest.as_millis());
        if let Some(odd) = agent.push.iter().find(odd) {
            bail!(
                "--push: resolution={} of {:?} is no multiple of {}, the steps of --metric-resolution; accepted: a multiple",
                humantime::format_duration(odd.resolution),
                odd.name,
                humantime::format_duration(finest)
            );
        }
        Ok(StandaloneConfig { agent, aggregator, steps })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::{Parsed, parse};

    fn load(words: &[&str], environment: &[(&str, &str)]) -> Result<StandaloneConfig> {
        let Parsed::Run(cli) = parse(["nodegauge"].iter().chain(words)) else {
            panic!("{words:?} is no command line")
        };
        StandaloneConfig::load(cli.settings, &|name| {
            environment.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))
        })
    }

    #[test]
    fn two_addresses_and_fine_steps() {
        let addresses = |config: &StandaloneConfig| {
            (config.agent.listen.to_string(), config.aggregator.listen.to_string())
        };
        let seconds = |config: &StandaloneConfig| {
            (
                config.agent.interval.as_secs_f64(),
                config.aggregator.resolution.as_secs(),
                config.steps.as_secs(),
            )
        };
        let config = load(&[], &[]).unwrap();
        assert_eq!(addresses(&config), ("127.0.0.1:4194".into(), "127.0.0.1:8082".into()));
        assert_eq!(seconds(&config), (5.0, 5, 5));
        let environment =
            [("NODEGAUGE_LISTEN", "127.0.0.1:1"), ("NODEGAUGE_AGGREGATOR_LISTEN", "127.0.0.1:2")];
        assert_eq!(
            addresses(&load(&[], &environment).unwrap()),
            ("127.0.0.1:1".into(), "127.0.0.1:2".into())
        );
        let check =
            |words: &[&str], expected| assert_eq!(seconds(&load(words, &[]).unwrap()), expected, "{words:?}");
        check(&["--interval", "100ms"], (0.1, 5, 5));
        check(&["--interval", "10s"], (10.0, 10, 10));
        check(&["--interval", "10500ms"], (10.5, 11, 11));
        check(&["--interval", "1h"], (3600.0, 300, 15));
        check(&["--metric-resolution", "1s", "--interval", "1s"], (1.0, 1, 1));
        check(&["--metric-resolution", "60s"], (5.0, 60, 15));
    }

    #[test]
    fn sinks_stand_on_the_same_grid() {
        assert!(load(&["--push", "influxdb:http://a"], &[]).is_ok());
        assert!(load(&["--push", "influxdb:http://a?resolution=1s"], &[]).is_ok());
        let error = load(&["--push", "influxdb:http://a?resolution=7s"], &[]).unwrap_err().to_string();
        assert!(error.contains("7s of \"influxdb-a-80\" is no multiple of 5s"), "{error}");
    }

    #[test]
    fn each_address_is_looked_at() {
        let check = |words: &[&str], expected: &str| {
            let error = format!("{:#}", load(words, &[]).unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        check(&["--aggregator-listen", "8082"], "--aggregator-listen \"8082\": not an address");
        check(&["--aggregator-listen", "0.0.0.0:8082"], "--auth none");
        check(&["--listen", "0.0.0.0:4194"], "--listen \"0.0.0.0:4194\": reaches beyond loopback");
        let beyond = load(&["--aggregator-listen", "0.0.0.0:8082", "--auth", "none"], &[]).unwrap();
        assert!(beyond.aggregator.access.push.is_some() && beyond.agent.access.push.is_none());
    }
}
