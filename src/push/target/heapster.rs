//! Heapster's `--sink` URIs: `influxdb:`, `log` and `metric`, as it read them, and
//! beside them those of `--push`.
//!
//! `KEY[:URL]`, where `$VAR` and `${VAR}` in the URL stand for the environment's,
//! and an empty URL for the sink's own host. Heapster's sinks that nobody serves
//! here are refused by name, with what to do instead.
//!
//! | `influxdb:` option | default | |
//! |---|---|---|
//! | `user`, `pw` | `root` | `password-file=` and `password-env=` instead of `pw` keep it out of process listings |
//! | `db` | `k8s` | made if it is not there |
//! | `secure`, `insecuressl` | `false` | https, with any certificate |
//! | `withfields` | `false` | measurement `cpu`, field `usage_rate` |
//! | `retention` | none | of the policy, `0` for ever; Heapster never applied it |
//! | `cluster_name` | `default` | a tag |
//! | `disable_counter_metrics` | `false` | without counters |
//! | `concurrency` | `1` | has no effect: one body at a time, so that the order holds |
//! | `metrics` | `heapster` | ours: `all` for every metric there is |
//!
//! And `name`, `rp`, `resolution`, `ca`, `cert`, `key` and `label.NAME` as in
//! `--push`. Other options have none either and are told, as Heapster ignored them.

use std::time::Duration;

use reqwest::Url;

use super::options::Options;
use super::{
    Access, Given, Protocol, Result, Schema, Secret, Selection, Target, TargetError, checked_name,
    default_name, labels, resolution,
};

/// Sinks that are not served, and what to do instead.
const REFUSED: [(&str, &str); 17] = [
    ("gcm", "remote-write: to Google Cloud Managed Service for Prometheus"),
    ("gcl", "an event exporter: events are not served"),
    ("gcmautoscaling", "metrics.k8s.io of this aggregator"),
    ("stackdriver", "remote-write: to Google Cloud Managed Service for Prometheus"),
    ("statsd", "remote-write: to a Prometheus with statsd_exporter's mapping turned round, or Telegraf's"),
    ("graphite", "remote-write: to a receiver that speaks Graphite on, such as Telegraf"),
    ("hawkular", "remote-write: to Prometheus, which took Hawkular's place"),
    ("kafka", "remote-write: to Telegraf or prometheus-kafka-adapter"),
    ("librato", "remote-write: to a receiver that forwards, such as Telegraf"),
    ("opentsdb", "remote-write: to VictoriaMetrics, which answers OpenTSDB's queries in its own"),
    ("wavefront", "remote-write: to Wavefront's proxy"),
    ("riemann", "remote-write: to Telegraf, which has an output for Riemann"),
    ("elasticsearch", "remote-write: to Metricbeat's prometheus module"),
    ("honeycomb", "remote-write: to an OpenTelemetry collector"),
    ("monasca", "influxdb: to Monasca's own database, or remote-write:"),
    ("influxdb08", "influxdb: of version 1 or 2"),
    ("bigquery", "remote-write: to a receiver that forwards"),
];

/// What a `--sink` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// To be sent there.
    Target(Box<Target>),
    /// To be written to the log.
    Journal,
    /// To be held in memory, as everything is.
    Model,
}

/// A `--sink` as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// What it asks for.
    pub asked: Asked,
    /// What of it has no effect or is unwise, one line each, without any secret.
    pub notices: Vec<String>,
}

/// Looks a variable up: [`std::env::var`], or what a test says.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads one `--sink`; steps come in this resolution unless it says a coarser one.
///
/// # Errors
/// One line for the user. It does not repeat values.
pub fn parse(text: &str, environment: Environment<'_>, default: Duration) -> Result<Read> {
    let (key, rest) = text.split_once(':').unwrap_or((text, ""));
    // A shell's quotes that reached us, as in many manifests.
    let rest = rest.trim_matches('\'');
    let plain = |asked| Read { asked, notices: Vec::new() };
    match key {
        "influxdb" => influxdb(rest, environment, default),
        "log" => Ok(plain(Asked::Journal)),
        "metric" => Ok(plain(Asked::Model)),
        "influxdb2" | "remote-write" => {
            let target = Target::parse_at(&format!("{key}:{}", expand(rest, environment)), default)?;
            Ok(plain(Asked::Target(Box::new(target))))
        }
        "aggregator" => Err(TargetError::new(
            "an aggregator pushes to no other; accepted: agents that name both with --push",
        )),
        _ => Err(match REFUSED.iter().find(|(name, _)| *name == key) {
            Some((name, instead)) => TargetError::new(format_args!(
                "Heapster's sink {name} is not served; instead: {instead}; accepted: {ACCEPTED}"
            )),
            None => TargetError::new(format_args!("unknown kind of sink; accepted: {ACCEPTED}")),
        }),
    }
}

const ACCEPTED: &str = "influxdb:http://host:8086?db=k8s, influxdb2:http://host:8086?org=o&bucket=b, \
    remote-write:http://host/api/v1/write, log or metric";

/// `$NAME` and `${NAME}` become what the environment has of them, nothing if it has
/// none, as in Go.
fn expand(text: &str, environment: Environment<'_>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let (name, next) = braced.unwrap_or_else(|| {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            after.split_at(end)
        });
        if name.is_empty() {
            out.push('$');
        }
        out.push_str(&environment(name).unwrap_or_default());
        rest = next;
    }
    out.push_str(rest);
    out
}

fn influxdb(rest: &str, environment: Environment<'_>, default: Duration) -> Result<Read> {
    let wrong = || {
        TargetError::new(
            "not a URL with a host; accepted: influxdb:http://host:8086?db=k8s, or influxdb: alone for localhost",
        )
    };
    let expanded = expand(rest, environment);
    let mut notices = Vec::new();
    let mut notice = |text: String| notices.push(text);
    let given = match expanded.as_str() {
        "" => "http://localhost:8086".to_owned(),
        query if query.starts_with('?') => format!("http://localhost:8086/{query}"),
        url if url.contains("://") => url.to_owned(),
        _ => return Err(wrong()),
    };
    let given: Url = given.parse().map_err(|_| wrong())?;
    let host = given.host_str().filter(|host| !host.is_empty()).ok_or_else(wrong)?.to_owned();
    if !given.username().is_empty() || given.password().is_some() {
        return Err(TargetError::new(
            "a user and a password before the host; accepted: user=NAME with password-file=FILE, \
             password-env=VARIABLE or pw=",
        ));
    }
    let mut options = Options::read(&given)?;
    let secure = flag(&mut options, "secure")?;
    let scheme = if secure { "https" } else { "http" };
    if given.scheme() == "https" && !secure {
        notice(
            "https:// has no effect, as in Heapster: say secure=true, or all goes over plain http".to_owned(),
        );
    }
    if !matches!(given.path(), "" | "/") {
        notice("the path has no effect, as in Heapster".to_owned());
    }
    // A port that is the given scheme's own is left out of a parsed URL.
    let port = given.port_or_known_default().unwrap_or(8086);
    let url: Url = format!("{scheme}://{host}:{port}/").parse().map_err(|_| wrong())?;
    let without_counters = flag(&mut options, "disable_counter_metrics")?;
    if let Some(text) = options.take("concurrency")? {
        match text.parse::<u32>() {
            Ok(0) | Err(_) => return Err(TargetError::new("concurrency=: accepted: a number above 0")),
            Ok(1) => {}
            Ok(_) => {
                notice("concurrency has no effect: one body at a time, so that the order holds".to_owned())
            }
        }
    }
    let metrics = match (options.take("metrics")?.as_deref(), without_counters) {
        (None | Some("heapster"), false) => Selection::Heapster,
        (None | Some("heapster"), true) => Selection::HeapsterWithoutCounters,
        (Some("all"), false) => Selection::All,
        _ => {
            return Err(TargetError::new(
                "metrics=: accepted: heapster, or all without disable_counter_metrics",
            ));
        }
    };
    let insecure = flag(&mut options, "insecuressl")?;
    let password = match (options.secret("password")?, options.take("pw")?) {
        (Some(place), None) => place,
        (Some(_), Some(_)) => {
            return Err(TargetError::new("pw= and another password are given; accepted: one of them"));
        }
        (None, Some(pw)) => {
            // What came out of the environment is not in the process listing.
            if rest.split(['?', '&']).any(|option| option.starts_with("pw=") && !option.contains('$')) {
                notice(
                    "pw= shows in process listings and manifests: password-file=FILE, password-env=VARIABLE \
                     or pw=$VARIABLE do not"
                        .to_owned(),
                );
            }
            Secret::Given(Given::new(pw))
        }
        (None, None) => Secret::Given(Given::new("root".to_owned())),
    };
    let user = options.take("user")?.unwrap_or_else(|| "root".to_owned());
    let identity = match (options.take("cert")?, options.take("key")?) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        _ => return Err(TargetError::new("cert= and key= go together; accepted: both or neither")),
    };
    let schema = Schema {
        with_fields: flag(&mut options, "withfields")?,
        cluster: options.identifier("cluster_name")?.unwrap_or_else(|| "default".to_owned()),
        metrics,
        ..Schema::default()
    };
    let protocol = Protocol::Influxdb {
        database: options.identifier("db")?.unwrap_or_else(|| "k8s".to_owned()),
        policy: options.identifier("rp")?.unwrap_or_else(|| "default".to_owned()),
        retention: super::retention(&mut options)?,
        schema,
    };
    let target = Target {
        name: match options.take("name")? {
            Some(name) => checked_name(name)?,
            None => default_name("influxdb", &url),
        },
        resolution: resolution(&mut options)?.unwrap_or(default),
        access: Access {
            basic: Some((user, password)),
            token: None,
            ca: options.take("ca")?.map(Into::into),
            identity,
            insecure,
        },
        labels: labels(&mut options)?,
        url,
        protocol,
    };
    for name in options.rest() {
        notice(format!("option {name} is not known and has no effect"));
    }
    Ok(Read { asked: Asked::Target(Box::new(target)), notices })
}

/// A boolean as Go reads it; false where it is not given.
fn flag(options: &mut Options, name: &str) -> Result<bool> {
    match options.take(name)?.as_deref() {
        None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some(_) => Err(TargetError::new(format_args!("{name}=: accepted: true, false"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn read(text: &str) -> Result<Read> {
        let variables = |name: &str| (name == "PW").then(|| "hunter2".to_owned());
        parse(text, &variables, MINUTE)
    }

    fn target(text: &str) -> (Target, Vec<String>) {
        let read = read(text).unwrap();
        match read.asked {
            Asked::Target(target) => (*target, read.notices),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn schema(target: &Target) -> Schema {
        match &target.protocol {
            Protocol::Influxdb { schema, .. } => schema.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_manifests_have() {
        for text in ["influxdb", "influxdb:", "influxdb:''", "influxdb:http://localhost:8086"] {
            let (target, notices) = target(text);
            assert_eq!(
                (target.url.as_str(), target.name.as_str()),
                ("http://localhost:8086/", "influxdb-localhost-8086")
            );
            let root = Secret::Given(Given::new("root".to_owned()));
            assert_eq!(target.access.basic, Some(("root".to_owned(), root)), "{text}");
            assert_eq!((target.resolution, notices), (MINUTE, Vec::new()));
            let expected = Schema { metrics: Selection::Heapster, ..Schema::default() };
            assert_eq!(schema(&target), expected);
        }
        let (plain, _) = target("influxdb:http://monitoring-influxdb.kube-system.svc:8086");
        assert_eq!(plain.url.as_str(), "http://monitoring-influxdb.kube-system.svc:8086/");
        let (same, _) = target("influxdb:http://db:80");
        assert_eq!(same.url.port_or_known_default(), Some(80));
        let (all, notices) = target(
            "influxdb:https://db:9999/x?user=u&pw=${PW}&db=my&secure=T&withfields=1&retention=30d&insecuressl=true\
             &cluster_name=c&disable_counter_metrics=TRUE&concurrency=4&foo=bar",
        );
        assert_eq!((all.url.as_str(), all.access.insecure), ("https://db:9999/", true));
        assert_eq!(all.access.basic.unwrap().1.read().unwrap(), "hunter2");
        let Protocol::Influxdb { database, policy, retention, schema } = all.protocol else { panic!() };
        assert_eq!((database.as_str(), policy.as_str()), ("my", "default"));
        assert_eq!(retention, Some(Duration::from_secs(30 * 86_400)));
        let expected = Schema {
            with_fields: true,
            cluster: "c".to_owned(),
            metrics: Selection::HeapsterWithoutCounters,
            ..Schema::default()
        };
        assert_eq!(schema, expected);
        let told = notices.join("; ");
        for word in ["the path has no effect", "concurrency has no effect", "option foo is not known"] {
            assert!(told.contains(word), "{told}");
        }
        assert!(!told.contains("process listings"), "{told}");
        assert_eq!(read("log").unwrap().asked, Asked::Journal);
        assert_eq!(read("metric").unwrap().asked, Asked::Model);
        assert_eq!(target("remote-write:http://h/w").0.resolution, MINUTE);
    }

    #[test]
    fn no_secret_is_ever_shown() {
        let read = read("influxdb:https://db?user=u&pw=hunter2").unwrap();
        let shown = format!("{read:?}");
        assert!(!shown.contains("hunter2") && shown.contains("pw= shows in process listings"), "{shown}");
        assert!(shown.contains("https:// has no effect"));
        for text in ["influxdb:http://u:hunter2@db", "influxdb:http://db?pw=hunter2&withfields=hunter2"] {
            assert!(!self::read(text).unwrap_err().to_string().contains("hunter2"));
        }
    }

    #[test]
    fn what_is_refused_says_what_to_do() {
        let check = |text: &str, expected: &str| {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        };
        for (name, instead) in REFUSED {
            check(
                &format!("{name}:http://h?pw=x"),
                &format!("sink {name} is not served; instead: {instead}"),
            );
        }
        check("nats:h", "unknown kind of sink; accepted: influxdb:http://");
        check("aggregator:http://h", "agents that name both");
        check("influxdb:db:8086", "not a URL with a host");
        check("influxdb:http://db?concurrency=0", "a number above 0");
        check("influxdb:http://db?withfields=maybe", "withfields=: accepted: true, false");
        check("influxdb:http://db?retention=5m", "at least 1h");
        check("remote-write:http://h/w?foo=1", "unknown option of remote-write");
    }

    #[test]
    fn variables_as_in_go() {
        let expand = |text: &str| {
            expand(text, &|name| Some(format!("<{name}>")).filter(|_| name != "gone" && !name.is_empty()))
        };
        assert_eq!(expand("a$B_1/${c d}$gone$"), "a<B_1>/<c d>$");
    }
}
