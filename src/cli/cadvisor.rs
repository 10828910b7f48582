//! cAdvisor's command line → ours, so that its image can be swapped in an old
//! manifest.
//!
//! Its flags are written as Go's flag package has them: one dash or two, a value
//! after `=` or as the next word, which a switch never takes. Where no command is
//! named and one of them is there, or the program is called `cadvisor`, the agent
//! runs as cAdvisor did: on port 8080 of all addresses, open to everybody, with
//! labels in its style. What no longer matters is told once for each flag.

mod storage;

use std::ffi::OsString;
use std::path::Path;

use crate::config::{go_bool, go_duration, refused};
use storage::Storage;

/// What becomes of a flag.
#[derive(Debug, Clone, Copy)]
enum Become {
    /// This flag of ours, with the same value.
    Flag(&'static str),
    /// The same, a switch.
    Switch(&'static str),
    /// The same, a duration, within what ours takes, milliseconds.
    Time(&'static str, u128, u128),
    /// A part of the address to listen on.
    Port,
    Ip,
    /// Exactly these kinds.
    Kinds,
    /// The socket of the runtime of this name.
    Socket(&'static str),
    /// Of storage drivers; a switch has no value of its own.
    Stored,
    StoredSwitch,
    /// Not served, and what is instead: going on without would be less safe.
    Refused(&'static str),
    /// How much is logged.
    Verbosity,
    /// The version is printed.
    Version,
    /// Nothing, and why; a switch has no value of its own.
    Nothing(&'static str),
    NothingSwitch(&'static str),
}

use Become::{
    Flag, Ip, Kinds, Nothing, NothingSwitch, Port, Refused, Socket, Stored, StoredSwitch, Switch, Time,
    Verbosity, Version,
};

const PACE: &str = "every cgroup is read once an interval, and again when a scrape finds it old";
const SOCKET: &str = "runtimes are asked at sockets of this host only";
const DRIVER: &str = "storage drivers are replaced by --push";
const NAMESPACE: &str = "containerd is asked by its runtime interface, which is of one namespace";
const SHADOWED: &str = "as in cAdvisor, -env_metadata_whitelist is what counts";
const LOGGING: &str = "messages go to standard error; --log-level and --log-format say which and how";
const FEATURE: &str = "such metrics are not collected";
const PASSWORDS: &str = "files of passwords are not served; \
    accepted: --auth token with --auth-token-file, or a proxy that asks for passwords before --listen 127.0.0.1:8080";
const REALM: &str = "nobody is asked for a password";

/// Every flag of cAdvisor's, by its name.
const FLAGS: &[(&str, Become)] = &[
    ("add_dir_header", NothingSwitch(LOGGING)),
    ("allow_dynamic_housekeeping", NothingSwitch(PACE)),
    ("alsologtostderr", NothingSwitch(LOGGING)),
    ("application_metrics_count_limit", Nothing(FEATURE)),
    ("boot_id_file", Flag("boot-id-file")),
    ("bq_account", Nothing(DRIVER)),
    ("bq_credentials_file", Nothing(DRIVER)),
    ("bq_id", Nothing(DRIVER)),
    ("bq_project_id", Nothing(DRIVER)),
    ("bq_secret", Nothing(DRIVER)),
    ("collector_cert", Nothing(FEATURE)),
    ("collector_key", Nothing(FEATURE)),
    ("container_hints", Nothing("cgroups have no mounts of their own to be told of")),
    ("containerd", Socket("containerd")),
    ("containerd-namespace", Nothing(NAMESPACE)),
    ("containerd_env_metadata_whitelist", Nothing(SHADOWED)),
    ("crio_client_timeout", Nothing("calls of runtimes have deadlines")),
    ("disable_metrics", Flag("disable-metrics")),
    ("disable_root_cgroup_stats", Switch("disable-root-cgroup-stats")),
    ("docker", Socket("docker")),
    ("docker-tls", NothingSwitch(SOCKET)),
    ("docker-tls-ca", Nothing(SOCKET)),
    ("docker-tls-cert", Nothing(SOCKET)),
    ("docker-tls-key", Nothing(SOCKET)),
    ("docker_env_metadata_whitelist", Nothing(SHADOWED)),
    ("docker_only", Switch("docker-only")),
    ("docker_root", Nothing("Docker says where its files are")),
    ("enable_load_reader", NothingSwitch("the kind cpuLoad says whether task states are read")),
    ("enable_metrics", Kinds),
    ("env_metadata_whitelist", Flag("env-metadata-whitelist")),
    ("event_storage_age_limit", Flag("event-storage-age-limit")),
    ("event_storage_event_limit", Flag("event-storage-event-limit")),
    ("global_housekeeping_interval", Nothing("new cgroups are noticed as they come")),
    ("housekeeping_interval", Time("interval", 100, HOUR_MS)),
    ("http_auth_file", Refused(PASSWORDS)),
    ("http_auth_realm", Nothing(REALM)),
    ("http_digest_file", Refused(PASSWORDS)),
    ("http_digest_realm", Nothing(REALM)),
    ("initial_splay_factor", Nothing(PACE)),
    ("jitter_factor", Nothing(PACE)),
    ("listen_ip", Ip),
    ("log_backtrace_at", Nothing(LOGGING)),
    ("log_cadvisor_usage", NothingSwitch("what this program uses is at /metrics/self")),
    ("log_dir", Nothing(LOGGING)),
    ("log_file", Nothing(LOGGING)),
    ("log_file_max_size", Nothing(LOGGING)),
    ("logtostderr", NothingSwitch(LOGGING)),
    ("machine_id_file", Flag("machine-id-file")),
    ("max_housekeeping_interval", Nothing(PACE)),
    ("max_procs", Nothing("one thread collects, and a few serve")),
    ("one_output", NothingSwitch(LOGGING)),
    ("perf_events_config", Nothing(FEATURE)),
    ("podman", Socket("podman")),
    ("port", Port),
    ("profiling", NothingSwitch("there are no profiles to serve")),
    ("prometheus_endpoint", Flag("prometheus-endpoint")),
    ("raw_cgroup_prefix_whitelist", Flag("raw-cgroup-prefix-whitelist")),
    ("referenced_reset_interval", Nothing(FEATURE)),
    ("resctrl_interval", Nothing(FEATURE)),
    ("skip_headers", NothingSwitch(LOGGING)),
    ("skip_log_headers", NothingSwitch(LOGGING)),
    ("stderrthreshold", Nothing(LOGGING)),
    ("storage_driver", Stored),
    ("storage_driver_buffer_duration", Nothing(DRIVER)),
    ("storage_driver_db", Stored),
    ("storage_driver_es_enable_sniffer", NothingSwitch(DRIVER)),
    ("storage_driver_es_host", Nothing(DRIVER)),
    ("storage_driver_es_index", Nothing(DRIVER)),
    ("storage_driver_es_type", Nothing(DRIVER)),
    ("storage_driver_host", Stored),
    ("storage_driver_influxdb_retention_policy", Stored),
    ("storage_driver_kafka_broker_list", Nothing(DRIVER)),
    ("storage_driver_kafka_ssl_ca", Nothing(DRIVER)),
    ("storage_driver_kafka_ssl_cert", Nothing(DRIVER)),
    ("storage_driver_kafka_ssl_key", Nothing(DRIVER)),
    ("storage_driver_kafka_ssl_verify", NothingSwitch(DRIVER)),
    ("storage_driver_kafka_topic", Nothing(DRIVER)),
    ("storage_driver_password", Stored),
    ("storage_driver_secure", StoredSwitch),
    ("storage_driver_table", Nothing(DRIVER)),
    ("storage_driver_user", Stored),
    ("storage_duration", Time("history", 0, HOUR_MS)),
    ("store_container_labels", Switch("store-container-labels")),
    ("update_machine_info_interval", Nothing("the machine is looked at every five minutes")),
    ("url_base_prefix", Flag("url-base-prefix")),
    ("v", Verbosity),
    ("version", Version),
    ("vmodule", Nothing(LOGGING)),
    ("whitelisted_container_labels", Flag("whitelisted-container-labels")),
];

const HOUR_MS: u128 = 3_600_000;

/// Where cAdvisor listened.
const DEFAULT_PORT: &str = "8080";
const DEFAULT_IP: &str = "0.0.0.0";

/// A command line in our words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translated {
    /// All of it, the program's name first.
    pub words: Vec<OsString>,
    /// A flag that no longer matters, and why.
    pub notices: Vec<(String, &'static str)>,
}

/// What a word is.
struct Word<'a> {
    name: &'a str,
    value: Option<&'a str>,
    becomes: Become,
    /// Written as cAdvisor alone writes it.
    theirs: bool,
}

/// The flag that a word is, with dashes for underscores or not.
fn flag(word: &OsString) -> Option<Word<'_>> {
    let text = word.to_str()?;
    let (name, two) = match text.strip_prefix("--") {
        Some(name) => (name, true),
        None => (text.strip_prefix('-')?, false),
    };
    let (name, value) = name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value)));
    let same = |known: &str| known.len() == name.len() && known.replace('_', "-") == name.replace('_', "-");
    let (known, becomes) = FLAGS.iter().find(|(known, _)| same(known))?;
    // Ours by the same name are written with two dashes, and none with underscores.
    let dashed = known.replace('_', "-");
    let ours = match becomes {
        Flag(ours) | Switch(ours) => *ours == dashed,
        Version => true,
        _ => false,
    };
    let alike = two && !name.contains('_') && ours;
    Some(Word { name: known, value, becomes: *becomes, theirs: !alike })
}

impl Become {
    fn takes_value(self) -> bool {
        !matches!(self, Switch(_) | NothingSwitch(_) | StoredSwitch | Version)
    }
}

/// Translates a command line that is cAdvisor's or has flags of it; `None` for any
/// other. `commands` are ours, `said` tells whether a setting is in the environment,
/// `is_there` whether a directory is.
///
/// # Errors
/// One line for the user about a value that cannot be used.
pub fn translate(
    words: &[OsString],
    commands: &[String],
    said: impl Fn(&str) -> bool,
    is_there: impl Fn(&Path) -> bool,
) -> Result<Option<Translated>, String> {
    let called = |as_what: &str| {
        words.first().is_some_and(|name| Path::new(name).file_name().is_some_and(|n| n == as_what))
    };
    let named = called("cadvisor");
    let rest = words.get(1..).unwrap_or_default();
    let command = rest.iter().find(|word| commands.iter().any(|c| word.to_str() == Some(c)));
    let of_heapster = |word: &OsString| {
        word.to_str().is_some_and(|t| ["--source", "--sink"].iter().any(|f| t.split('=').next() == Some(f)))
    };
    let has_theirs = rest.iter().filter_map(flag).any(|word| word.theirs);
    let elsewhere = command.is_some_and(|command| command != "agent")
        || called("heapster")
        || rest.iter().any(of_heapster);
    if elsewhere || !(named || has_theirs) {
        return Ok(None);
    }
    let swapped = command.is_none();
    let mut out = Translated { words: words.first().cloned().into_iter().collect(), notices: Vec::new() };
    if swapped {
        out.words.push("agent".into());
    }
    let (mut ip, mut port, mut kinds, mut disabled) = (None, None, None, None);
    let mut stored = Storage::default();
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        let Some(Word { name, value, becomes, .. }) = flag(word) else {
            out.words.push(word.clone());
            continue;
        };
        let value = match value {
            Some(value) => Some(value.to_owned()),
            None if becomes.takes_value() => {
                let next = rest.next().ok_or_else(|| format!("-{name}: needs a value"))?;
                Some(next.to_str().ok_or_else(|| format!("-{name}: not UTF-8"))?.to_owned())
            }
            None => None,
        };
        let switched = || match value.as_deref() {
            None => Ok(true),
            Some(text) => {
                go_bool(text).ok_or_else(|| format!("-{name} {text:?}: not accepted; accepted: true, false"))
            }
        };
        let text = value.clone().unwrap_or_default();
        match becomes {
            // Unlike ours, an empty value is the same as none.
            Flag("disable-metrics") => disabled = Some(text),
            Flag(_) if text.is_empty() => {}
            Flag(ours) => out.words.push(format!("--{ours}={text}").into()),
            Time(_, _, _) if text.is_empty() => {}
            Time(ours, least, most) => {
                let asked = go_duration(&text)
                    .ok_or_else(|| {
                        format!("-{name} {text:?}: not a duration; accepted: such as 500ms or 1m30s")
                    })?
                    .as_millis();
                let taken = asked.clamp(least, most);
                if taken != asked {
                    out.notices.push((
                        format!("-{name}={text}"),
                        "taken as the nearest that is accepted, 1h at most",
                    ));
                }
                out.words.push(format!("--{ours}={taken}ms").into());
            }
            Switch(ours) => {
                out.words.push(format!("--{ours}={}", if switched()? { "on" } else { "off" }).into())
            }
            Port => port = Some(text),
            Ip => ip = Some(text).filter(|ip| !ip.is_empty()),
            Kinds => kinds = Some(text).filter(|kinds| !kinds.is_empty()),
            Socket(_) if text.is_empty() => {}
            Socket(runtime) => match text.strip_prefix("unix://").unwrap_or(&text) {
                path if path.starts_with('/') => {
                    out.words.push(format!("--runtime-socket={runtime}={path}").into())
                }
                _ => out.notices.push((format!("-{name}"), SOCKET)),
            },
            Stored => stored.take(name, text).unwrap_or_default(),
            StoredSwitch => stored.take(name, switched()?.to_string()).unwrap_or_default(),
            Refused(_) if text.is_empty() => {}
            Refused(why) => return Err(format!("-{name} {text:?}: {why}")),
            Verbosity if text.parse::<i32>().is_ok_and(|v| v >= 4) => {
                out.words.push("--log-level=debug".into())
            }
            Verbosity => {}
            Version if switched()? => {
                // Whatever else is said, and no word of the agent's.
                out.words.truncate(1);
                out.words.push("--version".into());
                return Ok(Some(out));
            }
            Version => {}
            Nothing(why) | NothingSwitch(why) => {
                if matches!(becomes, NothingSwitch(_)) {
                    switched()?;
                }
                if !out.notices.iter().any(|(known, _)| *known == format!("-{name}")) {
                    out.notices.push((format!("-{name}"), why));
                }
            }
        }
    }
    match (kinds, disabled) {
        // As in cAdvisor, the one overrides the other.
        (Some(kinds), _) => {
            let mut taken = Vec::new();
            for kind in kinds.split(',').map(str::trim) {
                match refused(kind) {
                    Some(why) => out.notices.push((format!("-enable_metrics={kind}"), why)),
                    None => taken.push(kind),
                }
            }
            out.words.push(format!("--metrics={}", taken.join(",")).into());
        }
        (None, Some(disabled)) => out.words.push(format!("--disable-metrics={disabled}").into()),
        (None, None) => {}
    }
    if let Some(push) = stored.push()? {
        out.notices.push(("-storage_driver=influxdb".to_owned(), storage::TAKEN));
        out.words.push(format!("--push={push}").into());
    }
    let given = |setting: &str| {
        let start = format!("--{setting}");
        said(setting)
            || out.words.iter().filter_map(|w| w.to_str()).any(|w| w.split('=').next() == Some(&start))
    };
    let (listen, auth, style) = (given("listen"), given("auth"), given("label-style"));
    let given_root = given("host-root");
    let addressed = ip.is_some() || port.is_some();
    if addressed || swapped && !listen {
        let ip = ip.unwrap_or_else(|| DEFAULT_IP.to_owned());
        let ip = if ip.contains(':') && !ip.starts_with('[') { format!("[{ip}]") } else { ip };
        let port = port.unwrap_or_else(|| DEFAULT_PORT.to_owned());
        out.words.push(format!("--listen={ip}:{port}").into());
        if !auth {
            // As cAdvisor was.
            out.words.push("--auth=none".into());
        }
    }
    if swapped && !style {
        out.words.push("--label-style=cadvisor".into());
    }
    // Where its manifests mount the host, by which it too knew that it is in a container.
    if swapped && !given_root && is_there(Path::new("/rootfs/proc")) {
        out.words.push("--host-root=/rootfs".into());
    }
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<&str>, notices: &[&str]) {
        let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
        let commands = ["agent", "aggregator", "once"].map(str::to_owned);
        let found = translate(&words, &commands, |_| false, |_| false).unwrap();
        let text = |t: &Translated| t.words.iter().map(|w| w.to_str().unwrap()).collect::<Vec<_>>().join(" ");
        assert_eq!(found.as_ref().map(text).as_deref(), expected, "{line}");
        let told: Vec<_> = found.iter().flat_map(|t| &t.notices).map(|(flag, _)| flag.as_str()).collect();
        assert_eq!(told, notices, "{line}");
    }

    const OPEN: &str = "--listen=0.0.0.0:8080 --auth=none --label-style=cadvisor";

    #[test]
    fn flags_in_all_spellings() {
        check(
            "nodegauge --port=9090",
            Some("nodegauge agent --listen=0.0.0.0:9090 --auth=none --label-style=cadvisor"),
            &[],
        );
        check(
            "x -listen_ip ::1 -port 1",
            Some("x agent --listen=[::1]:1 --auth=none --label-style=cadvisor"),
            &[],
        );
        let docker_only = format!("x agent --docker-only=on --interval=5000ms {OPEN}");
        check("x --docker_only --housekeeping-interval=5s", Some(&docker_only), &[]);
        check("/usr/bin/cadvisor", Some(&format!("/usr/bin/cadvisor agent {OPEN}")), &[]);
        check("x -disable_metrics=tcp,udp", Some(&format!("x agent --disable-metrics=tcp,udp {OPEN}")), &[]);
        check(
            "x -enable_metrics cpu,tcp,resctrl,app",
            Some(&format!("x agent --metrics=cpu,tcp {OPEN}")),
            &["-enable_metrics=resctrl", "-enable_metrics=app"],
        );
        check(
            "x -storage_duration=1m -v=4",
            Some(&format!("x agent --history=60000ms --log-level=debug {OPEN}")),
            &[],
        );
        check(
            "x -storage_duration=1.5h -housekeeping_interval=0.5s",
            Some(&format!("x agent --history=3600000ms --interval=500ms {OPEN}")),
            &["-storage_duration=1.5h"],
        );
        check("x -storage_duration=0", Some(&format!("x agent --history=0ms {OPEN}")), &[]);
        check("/usr/bin/cadvisor --version", Some("/usr/bin/cadvisor --version"), &[]);
        check("x -port=1 -version -v=4", Some("x --version"), &[]);
        check("x -logtostderr -logtostderr=true", Some(&format!("x agent {OPEN}")), &["-logtostderr"]);
    }

    #[test]
    fn places_that_are_named() {
        check(
            "x -containerd=/run/c.sock -docker unix:///var/run/docker.sock -docker-tls -podman=",
            Some(&format!(
                "x agent --runtime-socket=containerd=/run/c.sock --runtime-socket=docker=/var/run/docker.sock {OPEN}"
            )),
            &["-docker-tls"],
        );
        check("x -docker=tcp://10.0.0.1:2376", Some(&format!("x agent {OPEN}")), &["-docker"]);
        check(
            "x -machine_id_file=/a,/b -boot_id_file /c -env_metadata_whitelist=TEAM",
            Some(&format!(
                "x agent --machine-id-file=/a,/b --boot-id-file=/c --env-metadata-whitelist=TEAM {OPEN}"
            )),
            &[],
        );
        check(
            "x -storage_driver=influxdb -storage_driver_host=db:8086 -storage_driver_table=stats",
            Some(&format!("x agent --push=influxdb:http://db:8086?db=cadvisor {OPEN}")),
            &["-storage_driver_table", "-storage_driver=influxdb"],
        );
    }

    #[test]
    fn a_host_that_is_mounted_as_cadvisors() {
        let found = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
            let commands = ["agent".to_owned()];
            let is_there = |path: &Path| path == Path::new("/rootfs/proc");
            let words = translate(&words, &commands, |_| false, is_there).unwrap().unwrap().words;
            words.into_iter().filter(|w| w.to_str().unwrap().starts_with("--host-root")).collect::<Vec<_>>()
        };
        assert_eq!(found("/usr/bin/cadvisor"), ["--host-root=/rootfs"]);
        assert_eq!(found("x -port=1 --host-root=/h"), ["--host-root=/h"]);
        assert_eq!(found("x agent -port=1"), Vec::<OsString>::new());
    }

    #[test]
    fn other_command_lines_are_not_touched() {
        check("nodegauge", None, &[]);
        check("nodegauge --interval 5s", None, &[]);
        check("nodegauge --disable-metrics=disk", None, &[]);
        check("nodegauge --version", None, &[]);
        check("nodegauge --docker-only on --machine-id-file /a", None, &[]);
        check("nodegauge agent --url-base-prefix /a", None, &[]);
        check("nodegauge aggregator --port=1", None, &[]);
        check("/heapster --source=kubernetes --v=2", None, &[]);
        check("/heapster --metric_resolution=30s --v=2", None, &[]);
        check(
            "nodegauge agent --docker_only --node-name n",
            Some("nodegauge agent --docker-only=on --node-name n"),
            &[],
        );
    }

    #[test]
    fn bad_values_are_named() {
        let bad = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
            translate(&words, &[], |_| false, |_| false).unwrap_err()
        };
        assert_eq!(
            bad("x -docker_only=maybe"),
            "-docker_only \"maybe\": not accepted; accepted: true, false"
        );
        assert_eq!(bad("x -port"), "-port: needs a value");
        let refused = bad("x -http_auth_file /etc/passwords");
        assert!(refused.contains("-http_auth_file \"/etc/passwords\"") && refused.contains("--auth token"));
        assert!(bad("x -storage_driver kafka").contains("Telegraf"));
        assert_eq!(
            bad("x -storage_duration=long"),
            "-storage_duration \"long\": not a duration; accepted: such as 500ms or 1m30s"
        );
    }

    #[test]
    fn what_is_said_elsewhere_stays() {
        let words: Vec<OsString> = ["x", "-docker_only"].map(Into::into).to_vec();
        let found = translate(&words, &[], |setting| setting != "port", |_| true).unwrap().unwrap();
        assert_eq!(found.words, ["x", "agent", "--docker-only=on"]);
    }

    #[test]
    fn every_flag_is_named_once() {
        let mut names: Vec<_> = FLAGS.iter().map(|(name, _)| name.replace('_', "-")).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), FLAGS.len());
    }
}
