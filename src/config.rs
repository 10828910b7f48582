//! Flags, environment and file into one checked [`Config`]; every default and
//! unit lives here.
//!
//! A flag wins over its environment name, that over the file, that over the
//! default; lists replace each other. An error is one line that names the flag,
//! the environment name or the file's key, the value, and what is accepted.

mod access;
mod aggregator;
mod apiserver;
mod events;
mod go;
mod heapster;
mod kinds;
mod names;
mod paths;
mod push;
mod sinks;
mod standalone;
mod values;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize as _;
use tracing::level_filters::LevelFilter;

pub(crate) use self::kinds::refused;
use self::kinds::{enabled, not_disabled, words};
use crate::auth::Access;
use crate::cli::{Settings, environment_name};
use crate::identity::RuntimeChoice;
use crate::identity::enrich::LabelChoice;
use crate::kernel::Roots;
use crate::push::target::Target;
use crate::snapshot::Kinds;

use access::Role;
use values::{
    absolute, bytes, count, duration, history, host_name, log_format, log_level, node_name, on_off, share,
};

pub use aggregator::AggregatorConfig;
pub use apiserver::ApiServerConfig;
pub use events::EventLimits;
pub use go::{go_bool, go_duration};
pub use names::{KubeletChoice, KubeletSettings};
pub use paths::Paths;
pub use sinks::{Ha, Sending};
pub use standalone::StandaloneConfig;

/// Shorter intervals cost more than they show: cgroup counters of CPU and
/// memory are flushed lazily by the kernel.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// How the program runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the host's `/` is.
    pub host_root: PathBuf,
    /// Where to serve.
    pub listen: SocketAddr,
    /// Who may read there, and by which certificates.
    pub access: Access,
    /// What paths begin with, and another name of `/metrics`.
    pub paths: Paths,
    /// Time between two ticks.
    pub interval: Duration,
    /// Age of the last snapshot beyond which a scrape asks for a fresh one.
    pub max_age: Duration,
    /// How far back the history of cgroups' figures goes.
    pub history: Duration,
    /// How much of what came, went and was killed is told.
    pub events: EventLimits,
    /// Name of this node.
    pub node_name: String,
    /// What is collected and shown.
    pub kinds: Kinds,
    /// What else is collected while somebody asks for it: what a kubelet has and
    /// the default has not, unless kinds were named.
    pub on_request: Kinds,
    /// Container runtimes to ask for names.
    pub runtime: RuntimeChoice,
    /// Their sockets, where those are not the usual ones, by name.
    pub runtime_sockets: Vec<(&'static str, PathBuf)>,
    /// Variables of containers' environments that become labels: those whose names
    /// begin so.
    pub variables: Vec<String>,
    /// Files of the host with the machine's id; the usual ones where none are named.
    pub machine_ids: Vec<PathBuf>,
    /// Likewise with the boot's.
    pub boot_ids: Vec<PathBuf>,
    /// The kubelet to ask for pods.
    pub kubelet: KubeletSettings,
    /// Labels of containers.
    pub labels: LabelChoice,
    /// Whether samples carry the time of their tick.
    pub timestamps: bool,
    /// Kernel memory that held handles may pin, bytes.
    pub handle_memory: u64,
    /// Most cgroups to follow.
    pub max_cgroups: usize,
    /// CPU that measuring disk usage may take, microseconds for each second; 0 is off.
    pub disk_usage: u32,
    /// The kubelet's directory on the host.
    pub kubelet_root: PathBuf,
    /// Where steps are sent.
    pub push: Vec<Target>,
    /// Where they wait; in memory if nowhere.
    pub queue_dir: Option<PathBuf>,
    /// Size of the queue beyond which the oldest steps go, bytes.
    pub queue_max_bytes: u64,
    /// Least severe messages to log.
    pub log_level: LevelFilter,
    /// How messages are written.
    pub log_format: LogFormat,
}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line each.
    Text,
    /// One JSON object each.
    Json,
}

/// Reads the environment: [`std::env::var_os`], or what a test says.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Where a value was given.
#[derive(Debug)]
enum Origin {
    Flag,
    Environment,
    File(String),
}

impl Origin {
    /// The setting as it is named there.
    fn name(&self, setting: &str) -> String {
        match self {
            Origin::Flag => format!("--{setting}"),
            Origin::Environment => environment_name(setting),
            Origin::File(path) => format!("{path}: {setting}"),
        }
    }
}

/// The places settings come from, the winning one first.
struct Layers(Vec<(Origin, Settings)>);

impl Config {
    /// Reads and checks all settings.
    ///
    /// # Errors
    /// One line for the user, about the first thing found wrong.
    pub fn load(flags: Settings, environment: Environment<'_>) -> Result<Config> {
        Config::load_with(flags, environment, Duration::from_secs(10))
    }

    /// The same with another default of the interval.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with(flags: Settings, environment: Environment<'_>, interval: Duration) -> Result<Config> {
        if let Some(flag) = flags.given().iter().find(|flag| aggregator::OWN.contains(&flag.as_str())) {
            bail!(
                "--{flag}: a setting of the aggregator only; accepted: with nodegauge aggregator or standalone"
            );
        }
        if let Some(flag) = flags.heapster.any() {
            bail!("--{flag}: a flag of Heapster's; accepted: with --source, or with nodegauge aggregator");
        }
        if flags.aggregator_listen.is_some() {
            bail!(
                "--aggregator-listen: of no meaning without an aggregator; accepted: with nodegauge standalone"
            );
        }
        Config::of(&Layers::read(flags, environment)?, interval)
    }

    /// The agent's settings, with its default interval.
    fn of(layers: &Layers, default_interval: Duration) -> Result<Config> {
        let (listen, access) = layers.listener(Role::Agent)?;
        let interval = layers.parse(
            "interval",
            |s| &s.interval,
            |text| {
                let value = duration(text)?;
                if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&value) {
                    bail!("out of range; accepted: 100ms to 1h");
                }
                Ok(value)
            },
        )?;
        let kinds = layers.kinds()?;
        let queue_dir = layers.parse("queue-dir", |s| &s.queue_dir, |text| Ok(PathBuf::from(text)))?;
        Ok(Config {
            host_root: layers
                .parse("host-root", |s| &s.host_root, |text| Ok(PathBuf::from(text)))?
                .unwrap_or_else(|| PathBuf::from("/")),
            listen,
            access,
            paths: layers.paths()?,
            interval: interval.unwrap_or(default_interval),
            max_age: layers.parse("max-age", |s| &s.max_age, duration)?.unwrap_or(Duration::from_secs(1)),
            history: layers.parse("history", |s| &s.history, history)?.unwrap_or(Duration::from_secs(120)),
            events: layers.events()?,
            node_name: layers.parse("node-name", |s| &s.node_name, node_name)?.unwrap_or_else(host_name),
            kinds: kinds.unwrap_or(Kinds::DEFAULT),
            on_request: if kinds.is_none() { Kinds::KUBELET } else { Kinds::NONE },
            timestamps: layers.parse("timestamps", |s| &s.timestamps, on_off)?.unwrap_or(false),
            runtime: layers.parse("runtime", |s| &s.runtime, names::runtime)?.unwrap_or_default(),
            runtime_sockets: layers
                .parse_list("runtime-socket", |s| &s.runtime_socket, names::sockets)?
                .unwrap_or_default(),
            variables: layers
                .parse_list(
                    "env-metadata-whitelist",
                    |s| &s.env_metadata_whitelist,
                    |list| Ok(words(list).map(str::to_owned).collect()),
                )?
                .unwrap_or_default(),
            machine_ids: layers
                .parse_list("machine-id-file", |s| &s.machine_id_file, names::files)?
                .unwrap_or_default(),
            boot_ids: layers
                .parse_list("boot-id-file", |s| &s.boot_id_file, names::files)?
                .unwrap_or_default(),
            kubelet: layers.kubelet()?,
            labels: layers.labels()?,
            handle_memory: layers.parse("handle-memory", |s| &s.handle_memory, bytes)?.unwrap_or(24 << 20),
            max_cgroups: layers.parse("max-cgroups", |s| &s.max_cgroups, count)?.unwrap_or(20_000),
            disk_usage: layers.parse("disk-usage-budget", |s| &s.disk_usage_budget, share)?.unwrap_or(10_000),
            kubelet_root: layers
                .parse("kubelet-root", |s| &s.kubelet_root, absolute)?
                .unwrap_or_else(|| PathBuf::from("/var/lib/kubelet")),
            push: layers.push()?,
            queue_max_bytes: layers
                .parse("queue-max-bytes", |s| &s.queue_max_bytes, push::queue_bytes)?
                .unwrap_or(if queue_dir.is_some() { push::ON_DISK } else { push::IN_MEMORY }),
            queue_dir,
            log_level: layers.parse("log-level", |s| &s.log_level, log_level)?.unwrap_or(LevelFilter::INFO),
            log_format: layers.parse("log-format", |s| &s.log_format, log_format)?.unwrap_or(LogFormat::Text),
        })
    }

    /// Where the host's kernel files are.
    pub fn roots(&self) -> Roots {
        let (machine_ids, boot_ids) = (self.machine_ids.clone(), self.boot_ids.clone());
        Roots { machine_ids, boot_ids, ..Roots::new(&self.host_root) }
    }

    /// Makes sure that the host's root is there.
    ///
    /// # Errors
    /// One line for the user. Not a fault of the command line alone: the
    /// directory may have to be mounted.
    pub fn check_host_root(&self) -> Result<()> {
        let path = &self.host_root;
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => bail!(
                "--host-root {path:?}: not a directory; accepted: a directory that holds the host's proc and sys"
            ),
            Err(error) => bail!(
                "--host-root {path:?}: {}; accepted: a directory that holds the host's proc and sys",
                lower(&error)
            ),
        }
    }
}

impl Layers {
    fn read(flags: Settings, environment: Environment<'_>) -> Result<Layers> {
        let mut table = toml::Table::new();
        for setting in Settings::names() {
            let name = environment_name(&setting);
            // Set but empty is what manifests write for "not set".
            let Some(value) = environment(&name).filter(|v| !v.is_empty()) else { continue };
            let value = value.into_string().map_err(|v| anyhow!("{name} {v:?}: not UTF-8"))?;
            table.insert(setting, toml::Value::String(value));
        }
        let file_in_environment = table.remove("config").and_then(|v| v.as_str().map(str::to_owned));
        let from_environment =
            Settings::deserialize(table).map_err(|e| anyhow!("environment: {}", e.message()))?;
        let file = match (&flags.config, file_in_environment) {
            (Some(path), _) => Some(("--config", path.clone())),
            (None, Some(path)) => Some(("NODEGAUGE_CONFIG", path)),
            (None, None) => None,
        };
        let mut layers = vec![(Origin::Flag, flags), (Origin::Environment, from_environment)];
        if let Some((named_by, path)) = file {
            let settings = read_file(&path).with_context(|| format!("{named_by} {path:?}"))?;
            layers.push((Origin::File(path), settings));
        }
        Ok(Layers(layers))
    }

    /// The winning value of a setting, read by `parse`; `None` when not given.
    fn parse<T>(
        &self,
        setting: &str,
        get: impl Fn(&Settings) -> &Option<String>,
        parse: impl Fn(&str) -> Result<T>,
    ) -> Result<Option<T>> {
        let given = self.0.iter().find_map(|(origin, s)| get(s).as_deref().map(|text| (origin, text)));
        let Some((origin, text)) = given else { return Ok(None) };
        parse(text).map(Some).with_context(|| format!("{} {text:?}", origin.name(setting)))
    }

    /// The same of a list, which comes from one place as a whole.
    fn parse_list<T>(
        &self,
        setting: &str,
        get: impl Fn(&Settings) -> &Option<Vec<String>>,
        parse: impl Fn(&[String]) -> Result<T>,
    ) -> Result<Option<T>> {
        let given = self.0.iter().find_map(|(origin, s)| get(s).as_deref().map(|list| (origin, list)));
        let Some((origin, list)) = given else { return Ok(None) };
        parse(list).map(Some).with_context(|| origin.name(setting))
    }

    fn kubelet(&self) -> Result<KubeletSettings> {
        let file = |text: &str| Ok(PathBuf::from(text));
        Ok(KubeletSettings {
            choice: self.parse("kubelet", |s| &s.kubelet, names::kubelet)?.unwrap_or(KubeletChoice::Auto),
            ca_file: self.parse("kubelet-ca", |s| &s.kubelet_ca, file)?,
            token_file: self.parse("kubelet-token-file", |s| &s.kubelet_token_file, file)?,
            insecure: self.parse("kubelet-insecure", |s| &s.kubelet_insecure, on_off)?.unwrap_or(false),
        })
    }

    fn labels(&self) -> Result<LabelChoice> {
        let listed = self.0.iter().find_map(|(_, s)| s.whitelisted_container_labels.as_ref());
        let prefixes = self.0.iter().find_map(|(_, s)| s.raw_cgroup_prefix_whitelist.as_ref());
        Ok(LabelChoice {
            style: self.parse("label-style", |s| &s.label_style, names::label_style)?.flatten(),
            store_container_labels: self
                .parse("store-container-labels", |s| &s.store_container_labels, names::switch)?
                .unwrap_or(true),
            whitelisted: listed.map(|list| words(list).map(str::to_owned).collect()).unwrap_or_default(),
            runtimes_only: self.parse("docker-only", |s| &s.docker_only, names::switch)?.unwrap_or(false),
            raw_prefixes: prefixes.map(|list| words(list).map(str::to_owned).collect()).unwrap_or_default(),
            without_root: self
                .parse("disable-root-cgroup-stats", |s| &s.disable_root_cgroup_stats, names::switch)?
                .unwrap_or(false),
        })
    }

    /// `metrics` or `disable-metrics`, whichever the winning place names; `None`
    /// where none does.
    fn kinds(&self) -> Result<Option<Kinds>> {
        for (origin, settings) in &self.0 {
            match (&settings.metrics, &settings.disable_metrics) {
                (Some(_), Some(_)) => bail!(
                    "{} and {}: given together, but each replaces the whole list; accepted: one of them",
                    origin.name("metrics"),
                    origin.name("disable-metrics")
                ),
                (Some(on), None) => return enabled(on).map(Some).with_context(|| origin.name("metrics")),
                (None, Some(off)) => {
                    return not_disabled(off).map(Some).with_context(|| origin.name("disable-metrics"));
                }
                (None, None) => {}
            }
        }
        Ok(None)
    }
}

fn read_file(path: &str) -> Result<Settings> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| anyhow!("cannot read: {}; accepted: a readable TOML file", lower(&e)))?;
    toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        // The parser's messages are one or more lines, without an excerpt.
        let message = error.message().lines().map(str::trim).collect::<Vec<_>>().join(" ");
        anyhow!("line {line}: {message}")
    })
}

/// What to say when an address cannot be listened on, which `setting` named.
pub fn not_bound(setting: &str, listen: SocketAddr, error: &std::io::Error) -> anyhow::Error {
    anyhow!(
        "--{setting} {listen}: {}; accepted: an address of this machine with a free port, 0 takes any",
        lower(error)
    )
}

/// The cause without the number of the error.
pub fn lower(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Parsed, parse};
    use crate::snapshot::Kind;

    pub(super) fn load(words: &[&str], environment: &[(&str, &str)]) -> Result<Config> {
        let Parsed::Run(cli) = parse(std::iter::once("nodegauge").chain(words.iter().copied())) else {
            panic!("{words:?} is no command line")
        };
        Config::load(cli.settings, &|name| {
            environment.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))
        })
    }

    pub(super) fn error(words: &[&str], environment: &[(&str, &str)]) -> String {
        format!("{:#}", load(words, environment).expect_err("must be refused"))
    }

    pub(super) fn with_file(text: &str, test: impl Fn(&str)) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        test(file.path().to_str().unwrap());
    }

    #[test]
    fn defaults() {
        let config = load(&[], &[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:4194");
        assert_eq!((config.interval, config.max_age), (Duration::from_secs(10), Duration::from_secs(1)));
        assert_eq!((config.handle_memory, config.max_cgroups), (25_165_824, 20_000));
        assert_eq!((config.kinds, config.timestamps), (Kinds::DEFAULT, false));
        assert_eq!((config.log_level, config.log_format), (LevelFilter::INFO, LogFormat::Text));
        assert!(!config.node_name.is_empty());
    }

    #[test]
    fn flag_wins_over_environment_over_file() {
        with_file("interval = \"3s\"\nmax-age = \"3s\"\nmax-cgroups = 3\ntimestamps = true\n", |path| {
            let environment =
                [("NODEGAUGE_INTERVAL", "2s"), ("NODEGAUGE_MAX_AGE", "2s"), ("NODEGAUGE_NODE_NAME", "")];
            let config = load(&["--config", path, "--interval", "1s"], &environment).unwrap();
            assert_eq!((config.interval, config.max_age), (Duration::from_secs(1), Duration::from_secs(2)));
            assert_eq!((config.max_cgroups, config.timestamps), (3, true));
            let config = load(&[], &[("NODEGAUGE_CONFIG", path)]).unwrap();
            assert_eq!(config.interval, Duration::from_secs(3));
        });
    }

    #[test]
    fn lists_replace() {
        with_file("metrics = [\"cpu\", \"memory\"]\n", |path| {
            let cpu_memory = Kinds::NONE.with(Kind::Cpu).with(Kind::Memory);
            assert_eq!(load(&["--config", path], &[]).unwrap().kinds, cpu_memory);
            let config = load(&["--config", path], &[("NODEGAUGE_METRICS", "disk, network")]).unwrap();
            assert_eq!(config.kinds, Kinds::NONE.with(Kind::Disk).with(Kind::Network));
            // The other list in a stronger place is no contradiction: it replaces.
            let config = load(&["--config", path, "--disable-metrics", "cpu"], &[]).unwrap();
            assert!(config.kinds.has(Kind::Process) && !config.kinds.has(Kind::Cpu));
        });
    }

    #[test]
    fn names_and_labels() {
        let config = load(&[], &[]).unwrap();
        assert_eq!(config.labels, LabelChoice::default());
        let kubelet =
            KubeletSettings { choice: KubeletChoice::Auto, ca_file: None, token_file: None, insecure: false };
        assert_eq!(config.kubelet, kubelet);
        let words = ["--store_container_labels=false", "--whitelisted_container_labels=app,team"];
        let labels = load(&words, &[]).unwrap().labels;
        assert_eq!(
            (labels.store_container_labels, labels.whitelisted),
            (false, vec!["app".into(), "team".into()])
        );
        let words =
            ["--kubelet-insecure=on", "--kubelet-ca=/ca", "--kubelet-token-file=/token", "--kubelet=none"];
        let kubelet = load(&words, &[]).unwrap().kubelet;
        assert_eq!((kubelet.choice, kubelet.insecure), (KubeletChoice::None, true));
        assert_eq!((kubelet.ca_file, kubelet.token_file), (Some("/ca".into()), Some("/token".into())));
        assert_eq!(
            error(&["--store-container-labels=maybe"], &[]),
            "--store-container-labels \"maybe\": not accepted; accepted: on, off, true, false"
        );
    }

    #[test]
    fn disabled_kinds_replace_the_default_list() {
        let all = Kind::ALL.into_iter().fold(Kinds::NONE, Kinds::with);
        assert_eq!(load(&["--disable-metrics", "resctrl,accelerator"], &[]).unwrap().kinds, all);
        assert_eq!(load(&["--disable-metrics="], &[]).unwrap().kinds, all);
        let config = load(&["--disable-metrics", "percpu,sched,process,app"], &[]).unwrap();
        assert_eq!(config.kinds, all.without(Kind::Percpu).without(Kind::Sched).without(Kind::Process));
    }

    #[test]
    fn refusals_name_the_place_the_value_and_what_is_accepted() {
        let check = |words: &[&str], expected: &str| assert_eq!(error(words, &[]), expected);
        check(
            &["--interval", "soon"],
            "--interval \"soon\": not a duration; accepted: such as 500ms, 10s or 1m30s",
        );
        check(&["--interval", "99ms"], "--interval \"99ms\": out of range; accepted: 100ms to 1h");
        check(&["--max-age", "5"], "--max-age \"5\": not a duration; accepted: such as 500ms, 10s or 1m30s");
        check(
            &["--listen", "4194"],
            "--listen \"4194\": not an address; accepted: IP:PORT, such as 127.0.0.1:4194 or [::1]:4194",
        );
        check(&["--timestamps", "yes"], "--timestamps \"yes\": not accepted; accepted: on, off");
        check(
            &["--handle-memory", "16m"],
            "--handle-memory \"16m\": not a size; accepted: such as 0, 4194304, 512KiB or 16MiB",
        );
        check(&["--max-cgroups", "0"], "--max-cgroups \"0\": not accepted; accepted: 1 to 1000000");
        check(
            &["--log-level", "loud"],
            "--log-level \"loud\": not accepted; accepted: off, error, warn, info, debug, trace",
        );
        check(&["--log-format", "xml"], "--log-format \"xml\": not accepted; accepted: text, json");
        check(&["--auth", "all"], "--auth \"all\": not accepted; accepted: none, token, kubernetes");
        check(
            &["--metrics", "cpu,app"],
            "--metrics: \"app\": a kind of cAdvisor's that is not collected: it scrapes what containers serve themselves, \
             which Prometheus does with more care; accepted: cpu, percpu, cpuLoad, memory, hugetlb, disk, diskIO, network, \
             oom_event, pressure, process, tcp, udp, advtcp, sched, cpu_topology, cpuset, memory_numa, \
             memory_events",
        );
        check(
            &["--disable-metrics", "tpc"],
            "--disable-metrics: \"tpc\": unknown kind; accepted: cpu, percpu, cpuLoad, memory, hugetlb, disk, diskIO, \
             network, oom_event, pressure, process, tcp, udp, advtcp, sched, cpu_topology, cpuset, memory_numa, \
             memory_events",
        );
        check(
            &["--metrics", "cpu", "--disable-metrics", "tcp"],
            "--metrics and --disable-metrics: given together, but each replaces the whole list; accepted: one of them",
        );
        let from_environment = error(&[], &[("NODEGAUGE_INTERVAL", "soon")]);
        assert!(from_environment.starts_with("NODEGAUGE_INTERVAL \"soon\": "), "{from_environment}");
    }

    #[test]
    fn beyond_loopback_something_must_be_said() {
        for address in ["0.0.0.0:4194", "[::]:4194", "10.0.0.1:80", "[::ffff:10.0.0.1]:80"] {
            assert!(error(&["--listen", address], &[]).contains("--auth none"), "{address}");
            assert!(load(&["--listen", address, "--auth", "none"], &[]).is_ok(), "{address}");
        }
        for address in ["127.0.0.1:0", "127.8.9.1:4194", "[::1]:4194", "[::ffff:127.0.0.1]:80"] {
            assert!(load(&["--listen", address], &[]).is_ok(), "{address}");
        }
    }

    #[test]
    fn files_are_refused_with_path_and_line() {
        let missing = error(&["--config", "/nowhere/x.toml"], &[]);
        assert_eq!(
            missing,
            "--config \"/nowhere/x.toml\": cannot read: no such file or directory; accepted: a readable TOML file"
        );
        let check = |text: &str, expected: &str| {
            with_file(text, |path| {
                let line = error(&["--config", path], &[]);
                assert!(
                    line.contains(path) && line.contains(expected) && !line.contains('\n'),
                    "{text:?}: {line}"
                );
            });
        };
        check(
            "interval = \"1s\"\nintervall = \"1s\"\n",
            "line 2: unknown field `intervall`, expected one of `host-root`, ",
        );
        check("interval = \n", "line 1: ");
        check("interval = \"soon\"\n", ": interval \"soon\": not a duration");
        check("interval = [1]\n", "line 1: invalid type: sequence, expected a string, a number or a boolean");
        check("metrics = [1]\n", "line 1: a list holds strings");
        check("config = \"other.toml\"\n", "line 1: unknown field `config`");
    }

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(bytes(text).ok(), expected, "{text:?}");
        check("0", Some(0));
        check("512KiB", Some(524_288));
        check("16Mi", Some(16 << 20));
        check("1 GB", Some(1_000_000_000));
        for refused in ["", "MiB", "-1", "1.5MiB", "16m", "99999999999GiB"] {
            check(refused, None);
        }
    }
}
