//! `--push` URIs into checked [`Target`]s: where to send, as whom, under which name.
//!
//! `KIND:URL?OPTION=VALUE&…`, for example
//! `influxdb:http://db:8086?db=k8s&user=root&password-file=/etc/nodegauge/db`.
//! A password or token is never part of the URI, which shows in process
//! listings, manifests and logs: the URI names the file or the environment
//! variable it is in. [`Secret`] holds that place only, and is read again for
//! each request, so that rotated tokens need no restart.
//!
//! Knows nothing of how a sink encodes.

pub mod heapster;
mod options;
mod schema;
mod secret;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use crate::push::labels::LabelRules;
use options::Options;
pub use schema::{Schema, Selection};
pub use secret::{Given, Secret, SecretError};

/// Time between the steps that a sink gets, unless its URI says otherwise.
pub const DEFAULT_RESOLUTION: Duration = Duration::from_secs(15);

/// Resolutions that make sense: below, the counters of the kernel are not
/// flushed that often; above, nothing is known of a node for too long.
const RESOLUTIONS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// Longest name of a sink; it is a key in the queue and a label of metrics.
const MAX_NAME: usize = 64;

/// Most labels that are put on every series.
const MAX_LABELS: usize = 20;

/// Longest value of a label that is put on every series, bytes.
const MAX_LABEL_VALUE: usize = 256;

/// One thing to send to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Names its cursor in the queue and its metrics. By default the kind, host
    /// and port, so that other options can change without losing what is queued.
    pub name: String,
    /// Scheme, host, port and path; without user, password or query.
    pub url: Url,
    /// Time between the steps it gets.
    pub resolution: Duration,
    /// As whom, and whom to believe.
    pub access: Access,
    /// What is put on every series, besides what a sink's own options say.
    pub labels: BTreeMap<String, String>,
    /// What it speaks.
    pub protocol: Protocol,
}

/// As whom to speak to a target, and whom to believe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Name and place of the password of basic authentication.
    pub basic: Option<(String, Secret)>,
    /// Place of the token.
    pub token: Option<Secret>,
    /// CA certificates to believe instead of the system's, PEM.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Believe any certificate.
    pub insecure: bool,
}

/// What a target speaks, with the options of that protocol alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// Batches, to an aggregator.
    Aggregator,
    /// Line protocol, to InfluxDB 1.x.
    Influxdb {
        /// The database, made if it is not there.
        database: String,
        /// The retention policy written to, made if it is not there.
        policy: String,
        /// What its duration shall be, zero for ever; `None` leaves an existing one as it is.
        retention: Option<Duration>,
        /// Which of Heapster's schemas.
        schema: Schema,
    },
    /// Line protocol, by the API of InfluxDB 2.x.
    Influxdb2 {
        /// The organisation; some servers have none.
        organisation: String,
        /// The bucket.
        bucket: String,
        /// Which of Heapster's schemas.
        schema: Schema,
    },
    /// Prometheus remote write 1.0.
    RemoteWrite {
        /// Label `job`.
        job: String,
        /// Label `instance`; the node's name if absent.
        instance: Option<String>,
        /// Header `X-Scope-OrgID`, which names the tenant in Cortex, Mimir and Loki's relatives.
        tenant: Option<String>,
    },
}

impl Protocol {
    /// Shows labels by these rules, where there is one text for all of them.
    pub fn show_labels(&mut self, rules: &LabelRules) {
        match self {
            Protocol::Influxdb { schema, .. } | Protocol::Influxdb2 { schema, .. } => {
                schema.labels = rules.clone();
            }
            Protocol::Aggregator | Protocol::RemoteWrite { .. } => {}
        }
    }
}

/// Why a URI is refused: one line that says what is accepted, without the values
/// of options, one of which may be a secret put in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TargetError(String);

impl TargetError {
    fn new(text: impl fmt::Display) -> TargetError {
        TargetError(text.to_string())
    }
}

type Result<T> = std::result::Result<T, TargetError>;

/// The kinds, in the order they are named in messages.
const KINDS: [&str; 4] = ["aggregator", "influxdb", "influxdb2", "remote-write"];

const EXAMPLES: &str = "accepted: aggregator:https://host:8082, influxdb:http://host:8086?db=k8s, \
    influxdb2:http://host:8086?org=o&bucket=b or remote-write:http://host/api/v1/write";

/// Options every kind has.
const COMMON: [&str; 10] = [
    "name",
    "resolution",
    "user",
    "password-file",
    "password-env",
    "token-file",
    "token-env",
    "ca",
    "insecure",
    "cert",
];

impl Target {
    /// Reads one URI.
    ///
    /// # Errors
    /// One line for the user. It does not repeat values.
    pub fn parse(text: &str) -> Result<Target> {
        Target::parse_at(text, DEFAULT_RESOLUTION)
    }

    /// Reads one URI; steps come in the resolution given unless it says another.
    ///
    /// # Errors
    /// As [`Target::parse`].
    pub fn parse_at(text: &str, default: Duration) -> Result<Target> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        if !KINDS.contains(&kind) {
            return Err(TargetError::new(format_args!("unknown kind of sink; {EXAMPLES}")));
        }
        let mut url: Url = rest
            .parse()
            .map_err(|error| TargetError::new(format_args!("not a URL ({error}); {EXAMPLES}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(TargetError::new(format_args!("not a URL of http or https; {EXAMPLES}")));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::new(
                "a user and a password before the host show in process listings; \
                 accepted: user=NAME with password-file=FILE or password-env=VARIABLE",
            ));
        }
        if url.fragment().is_some() {
            return Err(TargetError::new("a fragment (#…) has no meaning here; accepted: a URL without one"));
        }
        let mut options = Options::read(&url)?;
        url.set_query(None);
        let protocol = protocol(kind, &mut options)?;
        let labels =
            if matches!(protocol, Protocol::Aggregator) { BTreeMap::new() } else { labels(&mut options)? };
        let target = Target {
            name: match options.take("name")? {
                Some(name) => checked_name(name)?,
                None => default_name(kind, &url),
            },
            resolution: resolution(&mut options)?.unwrap_or(default),
            access: access(&url, &mut options)?,
            url,
            labels,
            protocol,
        };
        options.finish(kind, &accepted(kind))?;
        Ok(target)
    }

    /// The kind, as it is written in the URI.
    pub fn kind(&self) -> &'static str {
        match self.protocol {
            Protocol::Aggregator => "aggregator",
            Protocol::Influxdb { .. } => "influxdb",
            Protocol::Influxdb2 { .. } => "influxdb2",
            Protocol::RemoteWrite { .. } => "remote-write",
        }
    }
}

/// Without options: safe in logs whatever they are.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.name, self.kind(), self.url)
    }
}

/// Reads all URIs, which must have names of their own and resolutions that fit
/// one grid.
///
/// # Errors
/// One line for the user that says which URI, by number, kind and host.
pub fn parse_all<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Target>> {
    let mut targets: Vec<Target> = Vec::new();
    for (at, text) in texts.into_iter().enumerate() {
        let target = Target::parse(text)
            .map_err(|error| TargetError(format!("{} {:?}: {error}", at + 1, without_options(text))))?;
        targets.push(target);
    }
    fit(&targets)?;
    Ok(targets)
}

/// Whether targets have names of their own and resolutions that fit one grid.
///
/// # Errors
/// One line for the user that names the one that does not.
pub fn fit(targets: &[Target]) -> Result<()> {
    for (at, target) in targets.iter().enumerate() {
        if targets.iter().take(at).any(|t| t.name == target.name) {
            return Err(TargetError(format!(
                "two sinks are named {:?}, but each has a queue of its own; accepted: name=NAME to tell them apart",
                target.name
            )));
        }
    }
    let finest = targets.iter().map(|t| t.resolution).min().unwrap_or(DEFAULT_RESOLUTION);
    let fits = |t: &&Target| !t.resolution.as_millis().is_multiple_of(finest.as_millis().max(1));
    if let Some(odd) = targets.iter().find(fits) {
        return Err(TargetError(format!(
            "resolution={} of {:?} is no multiple of {}, the finest of all sinks; accepted: a multiple",
            humantime::format_duration(odd.resolution),
            odd.name,
            humantime::format_duration(finest)
        )));
    }
    Ok(())
}

/// A URI up to its options: what may be shown of one that is refused.
pub fn without_options(text: &str) -> &str {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    // What precedes an @ may be a password.
    match text.rsplit_once('@') {
        Some((_, host)) => host,
        None => text,
    }
}

fn protocol(kind: &str, options: &mut Options) -> Result<Protocol> {
    Ok(match kind {
        "influxdb" => Protocol::Influxdb {
            database: options.identifier("db")?.unwrap_or_else(|| "k8s".to_owned()),
            policy: options.identifier("rp")?.unwrap_or_else(|| "default".to_owned()),
            retention: retention(options)?,
            schema: schema(options)?,
        },
        "influxdb2" => Protocol::Influxdb2 {
            organisation: options.identifier("org")?.unwrap_or_default(),
            bucket: options
                .identifier("bucket")?
                .ok_or_else(|| TargetError::new("which bucket is not said; accepted: bucket=NAME"))?,
            schema: schema(options)?,
        },
        "remote-write" => Protocol::RemoteWrite {
            job: options.identifier("job")?.unwrap_or_else(|| "nodegauge".to_owned()),
            instance: options.identifier("instance")?,
            tenant: options.header("tenant")?,
        },
        _ => Protocol::Aggregator,
    })
}

/// The options of a kind, for the message about one that is unknown.
fn accepted(kind: &str) -> Vec<&'static str> {
    let own: &[&str] = match kind {
        "influxdb" => &["db", "rp", "retention", "withfields", "cluster-name", "label.NAME"],
        "influxdb2" => &["org", "bucket", "withfields", "cluster-name", "label.NAME"],
        "remote-write" => &["job", "instance", "tenant", "label.NAME"],
        _ => &[],
    };
    COMMON.iter().chain(&["key"]).chain(own).copied().collect()
}

fn schema(options: &mut Options) -> Result<Schema> {
    // Heapster's spelling of the second is accepted too.
    let cluster = match options.identifier("cluster-name")? {
        Some(name) => Some(name),
        None => options.identifier("cluster_name")?,
    };
    Ok(Schema {
        with_fields: options.boolean("withfields")?.unwrap_or(false),
        cluster: cluster.unwrap_or_else(|| "default".to_owned()),
        ..Schema::default()
    })
}

fn retention(options: &mut Options) -> Result<Option<Duration>> {
    let Some(text) = options.take("retention")? else { return Ok(None) };
    let given = if text == "0" { Ok(Duration::ZERO) } else { humantime::parse_duration(&text) };
    match given {
        // InfluxDB refuses shorter ones.
        Ok(value) if value.is_zero() || value >= Duration::from_secs(3600) => Ok(Some(value)),
        _ => Err(TargetError::new("retention=: accepted: 0 for ever, or at least 1h, such as 30d")),
    }
}

fn resolution(options: &mut Options) -> Result<Option<Duration>> {
    let Some(text) = options.take("resolution")? else { return Ok(None) };
    match humantime::parse_duration(&text) {
        Ok(value) if RESOLUTIONS.contains(&value) && value.subsec_nanos() == 0 => Ok(Some(value)),
        _ => Err(TargetError::new("resolution=: accepted: whole seconds from 1s to 1h")),
    }
}

fn labels(options: &mut Options) -> Result<BTreeMap<String, String>> {
    let labels = options.take_with_prefix("label.");
    if labels.len() > MAX_LABELS {
        return Err(TargetError::new(format_args!("more labels than {MAX_LABELS}")));
    }
    for (name, value) in &labels {
        let mut characters = name.chars();
        let first = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        let valid = first && characters.all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !valid || name.starts_with("__") {
            return Err(TargetError::new(
                "label.NAME=VALUE: accepted: a name of letters, digits and _ that begins with neither a digit nor __",
            ));
        }
        if value.is_empty() || value.len() > MAX_LABEL_VALUE || value.chars().any(char::is_control) {
            return Err(TargetError::new(format_args!(
                "label.{name}=: accepted: 1 to {MAX_LABEL_VALUE} bytes without control characters"
            )));
        }
    }
    Ok(labels)
}

fn access(url: &Url, options: &mut Options) -> Result<Access> {
    for plain in ["password", "pw", "token"] {
        if options.take(plain)?.is_some() {
            let what = if plain == "token" { "token" } else { "password" };
            return Err(TargetError::new(format_args!(
                "{plain}=: would show in process listings; accepted: {what}-file=FILE or {what}-env=VARIABLE"
            )));
        }
    }
    let insecure = options.boolean("insecure")?.unwrap_or(false);
    let password = options.secret("password")?;
    let basic = match (options.take("user")?, password) {
        (Some(user), Some(password)) => Some((user, password)),
        (None, None) => None,
        (Some(_), None) => {
            return Err(TargetError::new(
                "user=: without a password; accepted: with password-file=FILE or password-env=VARIABLE",
            ));
        }
        (None, Some(_)) => {
            return Err(TargetError::new("a password without a user; accepted: with user=NAME"));
        }
    };
    let token = options.secret("token")?;
    if token.is_some() && basic.is_some() {
        return Err(TargetError::new("a token and a user are given; accepted: one of them"));
    }
    if token.is_some() && url.scheme() == "http" && !is_loopback(url) && !insecure {
        return Err(TargetError::new(
            "a token is not sent over plain http beyond loopback; accepted: https, \
             or insecure=true where the network is trusted",
        ));
    }
    let identity = match (options.take("cert")?, options.take("key")?) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        _ => return Err(TargetError::new("cert= and key= go together; accepted: both or neither")),
    };
    let ca = options.take("ca")?.map(PathBuf::from);
    if url.scheme() == "http" && (ca.is_some() || identity.is_some()) {
        return Err(TargetError::new("ca=, cert= and key= have no meaning over plain http; accepted: https"));
    }
    Ok(Access { basic, token, ca, identity, insecure })
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn checked_name(name: String) -> Result<String> {
    let valid = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(valid) {
        return Err(TargetError::new(format_args!(
            "name=: accepted: 1 to {MAX_NAME} of letters, digits and . _ : -"
        )));
    }
    Ok(name)
}

fn default_name(kind: &str, url: &Url) -> String {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().unwrap_or(80);
    let mut name = format!("{kind}-{host}-{port}");
    if name.len() > MAX_NAME {
        // The port tells neighbours apart; what is cut is the domain's end.
        let tail = format!("-{port}");
        name = name.chars().take(MAX_NAME - tail.len()).chain(tail.chars()).collect();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, expected: &str) {
        let error = Target::parse(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(!error.contains("hunter2"), "{text}: {error}");
    }

    #[test]
    fn defaults_by_kind() {
        let t = Target::parse("influxdb:http://db:8086").unwrap();
        assert_eq!((t.name.as_str(), t.url.as_str()), ("influxdb-db-8086", "http://db:8086/"));
        assert_eq!(t.resolution, Duration::from_secs(15));
        let schema = Schema::default();
        assert_eq!(
            t.protocol,
            Protocol::Influxdb {
                database: "k8s".to_owned(),
                policy: "default".to_owned(),
                retention: None,
                schema
            }
        );
        let t = Target::parse("remote-write:https://[::1]/api/v1/write").unwrap();
        assert_eq!((t.name.as_str(), t.url.path()), ("remote-write-::1-443", "/api/v1/write"));
        let t = Target::parse("aggregator:https://a.b.svc:8082").unwrap();
        assert_eq!(t.name, "aggregator-a.b.svc-8082");
        assert_eq!(t.to_string(), "aggregator-a.b.svc-8082 (aggregator:https://a.b.svc:8082/)");
    }

    #[test]
    fn options_are_read() {
        let t = Target::parse(
            "influxdb:https://db:8086/sub?db=my%20db&rp=week&retention=7d&withfields=true&cluster-name=c1&name=main\
             &resolution=1m&user=root&password-file=/run/pw&ca=/run/ca&cert=/run/c&key=/run/k&label.zone=a%26b",
        )
        .unwrap();
        assert_eq!((t.name.as_str(), t.url.as_str()), ("main", "https://db:8086/sub"));
        assert_eq!(t.resolution, Duration::from_secs(60));
        assert_eq!(t.labels, BTreeMap::from([("zone".to_owned(), "a&b".to_owned())]));
        assert_eq!(t.access.basic, Some(("root".to_owned(), Secret::File("/run/pw".into()))));
        assert_eq!(t.access.identity, Some(("/run/c".into(), "/run/k".into())));
        let Protocol::Influxdb { database, policy, retention, schema } = t.protocol else { panic!() };
        assert_eq!((database.as_str(), policy.as_str()), ("my db", "week"));
        assert_eq!(retention, Some(Duration::from_secs(7 * 86400)));
        assert!(schema.with_fields && schema.cluster == "c1");
        let t = Target::parse("influxdb2:https://h?org=o&bucket=b&token-env=INFLUX_TOKEN").unwrap();
        assert_eq!(t.access.token, Some(Secret::Environment("INFLUX_TOKEN".to_owned())));
        let t = Target::parse("remote-write:http://h/w?job=j&instance=i&tenant=t1").unwrap();
        let Protocol::RemoteWrite { job, instance, tenant } = t.protocol else { panic!() };
        assert_eq!((job.as_str(), instance.as_deref(), tenant.as_deref()), ("j", Some("i"), Some("t1")));
    }

    #[test]
    fn refusals_say_what_is_accepted_and_never_a_secret() {
        refused("kafka:http://h?pw=hunter2", "unknown kind of sink; accepted: aggregator:https://");
        refused("influxdb:h:8086", "accepted: aggregator:https://");
        refused("influxdb:", "not a URL");
        refused("influxdb:ftp://h", "not a URL of http or https");
        refused("influxdb:http://root:hunter2@h", "process listings; accepted: user=NAME");
        refused(
            "influxdb:http://h?password=hunter2",
            "accepted: password-file=FILE or password-env=VARIABLE",
        );
        refused("influxdb:http://h?pw=hunter2", "accepted: password-file=FILE");
        refused("influxdb2:https://h?bucket=b&token=hunter2", "accepted: token-file=FILE or token-env=");
        refused("influxdb2:http://h", "accepted: bucket=NAME");
        refused("influxdb:http://h?user=u", "accepted: with password-file=");
        refused("aggregator:http://h?token-file=/f", "plain http beyond loopback");
        refused("remote-write:http://h?ca=/f", "accepted: https");
        refused("remote-write:https://h?cert=/f", "both or neither");
        refused(
            "aggregator:https://h?db=hunter2",
            "db: unknown option of aggregator; accepted: name, resolution, user, password-file, password-env, \
             token-file, token-env, ca, insecure, cert, key",
        );
        refused("influxdb:http://h?db=a&db=b", "db=: given more than once");
        refused("influxdb:http://h?withfields=maybe", "withfields=: accepted: true, false");
        refused("influxdb:http://h?retention=5m", "at least 1h");
        refused("influxdb:http://h?resolution=500ms", "whole seconds from 1s to 1h");
        refused("influxdb:http://h?name=a/b", "name=: accepted: 1 to 64");
        refused("influxdb:http://h?label.0a=x", "label.NAME=VALUE: accepted:");
        refused("influxdb:http://h?label.a=", "label.a=: accepted: 1 to 256");
        refused("influxdb:http://h#x", "fragment");
        refused("remote-write:http://h?tenant=a%0d%0ab", "tenant=: accepted:");
        Target::parse("aggregator:http://127.0.0.1:8082?token-file=/f").unwrap();
        Target::parse("aggregator:http://h?token-file=/f&insecure=true").unwrap();
    }

    #[test]
    fn several_need_names_and_one_grid() {
        let error = |texts: &[&str]| parse_all(texts.iter().copied()).expect_err("refused").to_string();
        let same = error(&["influxdb:http://h?db=a", "influxdb:http://h?db=b"]);
        assert!(same.contains("two sinks are named \"influxdb-h-80\""), "{same}");
        let odd = error(&["influxdb:http://h?resolution=10s", "influxdb:http://i"]);
        assert!(odd.contains("resolution=15s of \"influxdb-i-80\" is no multiple of 10s"), "{odd}");
        let bad = error(&["influxdb:http://h", "influxdb:http://u:hunter2@i?pw=hunter2"]);
        assert!(bad.starts_with("2 \"i\": ") && !bad.contains("hunter2"), "{bad}");
        let texts = ["influxdb:http://h?resolution=10s", "remote-write:http://i?resolution=60s"];
        assert_eq!(parse_all(texts).unwrap().len(), 2);
    }

    #[test]
    fn long_hosts_keep_their_port() {
        let t = Target::parse(&format!("influxdb:http://{}:8086", "a".repeat(200))).unwrap();
        assert!(t.name.len() == 64 && t.name.ends_with("-8086"), "{}", t.name);
    }
}
