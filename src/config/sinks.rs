//! Settings of what the aggregator sends: sinks, their queue, and which of several
//! aggregators sends.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use super::access::Role;
use super::push::queue_bytes;
use super::values::duration;
use super::{Environment, Layers};
use crate::push::target::{self, Protocol, Target, heapster};

/// Default size of the queue on disk, bytes: an hour of a thousand nodes of 30 pods.
const ON_DISK: u64 = 1 << 30;

/// Default size of a queue in memory, bytes.
const IN_MEMORY: u64 = 64 << 20;

/// Heapster's time for a sink to take a batch.
const TIMEOUT: Duration = Duration::from_secs(20);

/// As the components of Kubernetes have it.
const LEASE: Duration = Duration::from_secs(15);

/// What the aggregator sends, and where it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// Where steps are sent.
    pub targets: Vec<Target>,
    /// Whether they are written to the log.
    pub journal: bool,
    /// Where they wait; in memory if nowhere.
    pub queue_dir: Option<PathBuf>,
    /// Size of the queue beyond which the oldest steps go, bytes.
    pub queue_max_bytes: u64,
    /// Deadline of a request.
    pub timeout: Duration,
    /// Who of several aggregators sends; each, if nothing decides.
    pub ha: Option<Ha>,
    /// How long one of them stays the one without a sign of life.
    pub lease: Duration,
    /// What has no effect or is unwise, one line each.
    pub notices: Vec<String>,
}

/// What decides who of several aggregators sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ha {
    /// A Lease of Kubernetes.
    Lease {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A file that all of them can write.
    File(PathBuf),
}

impl Layers {
    /// What is sent of a model of this resolution. As for agents, sinks are not
    /// repeated in an error: a secret may be in one.
    pub(super) fn sending(
        &self,
        role: Role,
        resolution: Duration,
        environment: Environment<'_>,
    ) -> Result<Sending> {
        let mut notices = Vec::new();
        let (mut targets, mut journal) = (Vec::new(), false);
        let given = self.0.iter().find_map(|(origin, s)| s.sink.as_ref().map(|uris| (origin, uris)));
        let variable = |name: &str| environment(name).and_then(|value| value.into_string().ok());
        for (at, (origin, uri)) in
            given.iter().flat_map(|(o, uris)| uris.iter().map(move |u| (o, u))).enumerate()
        {
            let name = format!("{} {}", origin.name("sink"), at + 1);
            let read = heapster::parse(uri, &variable, resolution)
                .map_err(|error| anyhow!("{name} {:?}: {error}", target::without_options(uri)))?;
            notices.extend(read.notices.into_iter().map(|notice| format!("{name}: {notice}")));
            match read.asked {
                heapster::Asked::Target(target) => targets.push(*target),
                heapster::Asked::Journal => journal = true,
                heapster::Asked::Model => {}
            }
        }
        // Those of the environment and of a file may be an agent's, as all are beside one.
        let beside = role == Role::Beside;
        let flags = self.0.first().and_then(|(_, flags)| flags.push.as_ref()).filter(|_| !beside);
        for (at, uri) in flags.into_iter().flatten().enumerate() {
            let name = format!("--push {} {:?}", at + 1, target::without_options(uri));
            let target = Target::parse_at(uri, resolution).map_err(|error| anyhow!("{name}: {error}"))?;
            if target.protocol == Protocol::Aggregator {
                bail!(
                    "{name}: an aggregator pushes to no other; accepted: agents that name both with --push"
                );
            }
            targets.push(target);
        }
        target::fit(&targets).map_err(|error| anyhow!("--sink: {error}"))?;
        let odd = |t: &&Target| !t.resolution.as_millis().is_multiple_of(resolution.as_millis().max(1));
        if let Some(odd) = targets.iter().find(odd) {
            bail!(
                "--sink: resolution={} of {:?} is no multiple of --metric-resolution {}; accepted: a multiple",
                humantime::format_duration(odd.resolution),
                odd.name,
                humantime::format_duration(resolution)
            );
        }
        if self.switch("disable-metric-sink", |s| &s.disable_metric_sink)? {
            notices.push(
                "--disable-metric-sink has no effect: everything is made from the model in memory".to_owned(),
            );
        }
        let queue_dir = self.parse("queue-dir", |s| &s.queue_dir, |text| Ok(PathBuf::from(text)))?;
        // A queue has one owner.
        let queue_dir = queue_dir.map(|dir| if beside { dir.join("aggregator") } else { dir });
        let ha = self.parse("ha", |s| &s.ha, ha)?.flatten();
        Ok(Sending {
            targets,
            journal,
            queue_max_bytes: self
                .parse("queue-max-bytes", |s| &s.queue_max_bytes, queue_bytes)?
                .unwrap_or(if queue_dir.is_some() { ON_DISK } else { IN_MEMORY }),
            queue_dir,
            timeout: self
                .parse("sink-export-data-timeout", |s| &s.sink_export_data_timeout, at_least_a_second)?
                .unwrap_or(TIMEOUT),
            ha,
            lease: self.parse("ha-lease", |s| &s.ha_lease, lease)?.unwrap_or(LEASE),
            notices,
        })
    }

    /// A flag of Heapster's that is on when it is named.
    pub(super) fn switch(
        &self,
        setting: &str,
        get: impl Fn(&crate::cli::Settings) -> &Option<String>,
    ) -> Result<bool> {
        Ok(self.parse(setting, get, super::names::switch)?.unwrap_or(false))
    }
}

fn at_least_a_second(text: &str) -> Result<Duration> {
    match duration(text)? {
        value if value >= Duration::from_secs(1) => Ok(value),
        _ => bail!("too short; accepted: at least 1s"),
    }
}

fn lease(text: &str) -> Result<Duration> {
    match duration(text)? {
        // Leases of Kubernetes count in whole seconds.
        value if (1..=600).contains(&value.as_secs()) && value.subsec_nanos() == 0 => Ok(value),
        _ => bail!("not accepted; accepted: whole seconds from 1s to 10m"),
    }
}

fn ha(text: &str) -> Result<Option<Ha>> {
    const ACCEPTED: &str = "accepted: off, lease:NAMESPACE/NAME or file:PATH";
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    // RFC 1123, as Kubernetes has it.
    let valid = |name: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        let edge = |c: char| c.is_ascii_alphanumeric();
        (1..=253).contains(&name.len())
            && name.chars().all(inner)
            && name.starts_with(edge)
            && name.ends_with(edge)
    };
    match (kind, rest.split_once('/')) {
        ("off", _) if rest.is_empty() => Ok(None),
        ("lease", Some((namespace, name))) if valid(namespace) && valid(name) => {
            Ok(Some(Ha::Lease { namespace: namespace.to_owned(), name: name.to_owned() }))
        }
        ("lease", _) => bail!("not the namespace and the name of a Lease; {ACCEPTED}"),
        ("file", _) if rest.starts_with('/') => Ok(Some(Ha::File(rest.into()))),
        ("file", _) => bail!("not an absolute path; {ACCEPTED}"),
        _ => bail!("unknown; {ACCEPTED}"),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::{Parsed, parse};
    use crate::config::AggregatorConfig;

    fn load(words: &[&str]) -> Result<Sending> {
        let Parsed::Run(cli) = parse(["nodegauge", "aggregator"].iter().chain(words)) else {
            panic!("{words:?} is no command line")
        };
        let environment = |name: &str| (name == "DB_PW").then(|| OsString::from("hunter2"));
        AggregatorConfig::load(cli.settings, &environment).map(|config| config.sending)
    }

    #[test]
    fn heapsters_sinks_and_ours() {
        let nothing = load(&[]).unwrap();
        assert_eq!((nothing.targets.len(), nothing.journal, nothing.ha), (0, false, None));
        assert_eq!((nothing.queue_max_bytes, nothing.timeout), (IN_MEMORY, TIMEOUT));
        let sending = load(&[
            "--sink=influxdb:http://db:8086?user=u&pw=$DB_PW",
            "--sink=log",
            "--sink=metric",
            "--sink=remote-write:http://p/api/v1/write?resolution=2m",
            "--push=influxdb2:http://v:8086?bucket=b",
            "--queue-dir=/q",
            "--sink_export_data_timeout=7s",
            "--disable_metric_sink",
            "--ha=lease:kube-system/heapster",
        ])
        .unwrap();
        let names: Vec<_> =
            sending.targets.iter().map(|t| (t.name.as_str(), t.resolution.as_secs())).collect();
        assert_eq!(names, [("influxdb-db-8086", 60), ("remote-write-p-80", 120), ("influxdb2-v-8086", 60)]);
        assert!(sending.journal && !format!("{sending:?}").contains("hunter2"));
        assert_eq!((sending.queue_max_bytes, sending.timeout), (ON_DISK, Duration::from_secs(7)));
        let [notice] = sending.notices.as_slice() else { panic!("{:?}", sending.notices) };
        assert!(notice.starts_with("--disable-metric-sink has no effect"), "{notice}");
        let lease = Ha::Lease { namespace: "kube-system".to_owned(), name: "heapster".to_owned() };
        assert_eq!((sending.ha, sending.lease), (Some(lease), LEASE));
    }

    #[test]
    fn what_is_refused() {
        let check = |words: &[&str], expected: &str| {
            let error = format!("{:#}", load(words).unwrap_err());
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        };
        check(
            &["--sink=kafka:?brokers=h:9092&password=hunter2"],
            "--sink 1 \"kafka:\": Heapster's sink kafka is not served; instead: remote-write:",
        );
        check(
            &["--sink=log", "--sink=influxdb:http://u:hunter2@db"],
            "--sink 2 \"db\": a user and a password",
        );
        check(&["--sink=influxdb:http://db", "--sink=influxdb:http://db?db=b"], "two sinks are named");
        check(&["--sink=influxdb:http://db?resolution=90s"], "no multiple of --metric-resolution 1m");
        check(&["--push=aggregator:http://other:8082"], "agents that name both with --push");
        check(&["--ha=lease:x"], "--ha \"lease:x\": not the namespace and the name of a Lease");
        check(&["--ha=file:x"], "not an absolute path; accepted: off, lease:NAMESPACE/NAME or file:PATH");
        check(&["--ha=zookeeper"], "unknown; accepted: off");
        check(&["--ha-lease=500ms"], "whole seconds from 1s to 10m");
    }
}
