//! Flags, environment names and help text; no decisions.
//!
//! Every setting is text here: what it means, what is accepted and what the
//! default is belongs to [`crate::config`], which reads the same [`Settings`]
//! from the environment and from the file. It is long because it is one file on
//! purpose: the one table of all settings.

pub mod cadvisor;
pub mod heapster;

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// What environment names of settings begin with.
pub const ENVIRONMENT_PREFIX: &str = "NODEGAUGE_";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "nodegauge",
    version,
    about = "Container metrics of this machine under cAdvisor's names",
    long_about = "Container metrics of this machine under cAdvisor's names.\n\n\
        Without a command it runs agent and aggregator in one process on loopback and prints the addresses to open.",
    after_help = "A flag wins over its environment name, that over the file of --config, that over the default; \
        lists replace each other.\n\
        Exit status: 0 success, 1 cannot start or not usable, 64 bad command line, environment or file.",
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Settings of all commands.
    #[command(flatten)]
    pub settings: Settings,
    /// What to do; without one, standalone.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of cAdvisor's that no longer matter, and why.
    #[arg(skip)]
    pub notices: Vec<(String, &'static str)>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Agent and aggregator of this machine in one process, until stopped; what runs without a command
    Standalone,
    /// Serve this machine's metrics until stopped
    Agent,
    /// Take what agents push, hold the last fifteen minutes of the cluster and answer from them
    Aggregator,
    /// Show pods and containers in the terminal while they run, from a running agent or straight from the kernel
    Top(TopArguments),
    /// Collect once, write the result to standard output, exit
    Once {
        /// What to write
        #[arg(long, value_enum, default_value_t = OnceFormat::Prometheus)]
        format: OnceFormat,
    },
    /// Say what this host offers, what is missing, what that costs and how to cure it
    Check {
        /// Print where each metric family comes from on each cgroup hierarchy instead
        #[arg(long)]
        families: bool,
    },
}

/// How `top` shows what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct TopArguments {
    /// Agent to ask, such as http://127.0.0.1:4194 or https://node:4194?token-file=FILE&ca=FILE; it takes the options
    /// of --push for credentials and certificates [default: none, this machine is measured by this process]
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    /// Write one table to standard output, then exit; so it is also where that is no terminal
    #[arg(long)]
    pub once: bool,
    /// What the table shows first [default: pods, where there are some]
    #[arg(long, value_enum)]
    pub view: Option<View>,
    /// Column to sort by at first, such as cpu, memory or name [default: cpu, the tree by name]
    #[arg(long, value_name = "COLUMN")]
    pub sort: Option<String>,
    /// Words that names, images or paths must have
    #[arg(long, value_name = "WORDS")]
    pub filter: Option<String>,
}

/// What `top` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// Pods, and containers outside of pods
    Pods,
    /// Containers
    Containers,
    /// The tree of cgroups
    Tree,
}

/// What `once` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnceFormat {
    /// The text of `/metrics`
    Prometheus,
    /// What `/stats/summary` answers
    Summary,
    /// The whole snapshot
    Json,
}

/// Settings as given in one place: on the command line, in the environment or
/// in the file. The file's keys are the long flags without the dashes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// TOML file with settings, named as the flags are
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<String>,

    /// Where the host's root directory is: `/`, or where its proc and sys are mounted, or a captured tree
    /// [default: /]
    #[arg(long, global = true, value_name = "DIR")]
    #[serde(deserialize_with = "text")]
    pub host_root: Option<String>,

    /// Address to serve on; beyond loopback --auth must be said
    /// [default: 127.0.0.1:4194, of the aggregator 127.0.0.1:8082]
    #[arg(long, global = true, value_name = "IP:PORT")]
    #[serde(deserialize_with = "text")]
    pub listen: Option<String>,

    /// Address the aggregator of standalone serves on; --listen is the agent's there [default: 127.0.0.1:8082]
    #[arg(long, global = true, value_name = "IP:PORT")]
    #[serde(deserialize_with = "text")]
    pub aggregator_listen: Option<String>,

    /// Who may read, and push to the aggregator: none (everybody), token (a token of --auth-token-file or a certificate of --tls-client-ca)
    /// or kubernetes (whom the API server lets); /healthz and /readyz are always open
    /// [default: none on loopback; beyond it must be said]
    #[arg(long, global = true, value_name = "HOW")]
    #[serde(deserialize_with = "text")]
    pub auth: Option<String>,

    /// File with bearer tokens, one a line, for --auth token; read again when it changes
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(deserialize_with = "text")]
    pub auth_token_file: Option<String>,

    /// Certificate to serve https with, PEM, then those between it and its root; read again when it changes
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(deserialize_with = "text")]
    pub tls_cert: Option<String>,

    /// Key of --tls-cert, PEM
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(deserialize_with = "text")]
    pub tls_key: Option<String>,

    /// Certificates that sign those of clients, PEM; a client may then show one instead of a token
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(deserialize_with = "text")]
    pub tls_client_ca: Option<String>,

    /// Time between two collections, at least 100ms [default: 10s, of standalone 5s]
    #[arg(long, global = true, value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub interval: Option<String>,

    /// A scrape that finds the last collection older than this asks for a fresh one, at most one a second
    /// [default: 1s]
    #[arg(long, global = true, value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub max_age: Option<String>,

    /// How far back the pages and the cAdvisor API can look, at most 1h; 0s only at the last collection. Each
    /// minute takes at most 2 KiB of memory for each cgroup [default: 2m]
    #[arg(long, global = true, value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub history: Option<String>,

    /// How long what came, went and was killed is told by /api, as cAdvisor has it: KIND=DURATION for default, oom,
    /// oomKill, containerCreation and containerDeletion; at most 2048 are kept in all [default: default=24h]
    #[arg(long, global = true, value_name = "KIND=AGE,...", value_delimiter = ',')]
    #[serde(deserialize_with = "list")]
    pub event_storage_age_limit: Option<Vec<String>>,

    /// How many of each kind, the newest; 0 is none [default: default=100000]
    #[arg(long, global = true, value_name = "KIND=COUNT,...", value_delimiter = ',')]
    #[serde(deserialize_with = "list")]
    pub event_storage_event_limit: Option<Vec<String>>,

    /// Name of this node [default: the host name]
    #[arg(long, global = true, value_name = "NAME")]
    #[serde(deserialize_with = "text")]
    pub node_name: Option<String>,

    /// Kinds of metrics to collect, exactly these
    /// [default: cpu,cpuLoad,memory,disk,diskIO,network,oom_event,pressure]
    #[arg(long, global = true, value_name = "KIND,...", value_delimiter = ',')]
    #[serde(deserialize_with = "list")]
    pub metrics: Option<Vec<String>>,

    /// Collect every kind but these; as in cAdvisor, this replaces the default list of kinds that are off
    #[arg(long, global = true, value_name = "KIND,...", value_delimiter = ',')]
    #[serde(deserialize_with = "list")]
    pub disable_metrics: Option<Vec<String>>,

    /// Container runtimes to ask for names: auto, containerd, crio, docker or none [default: auto]
    #[arg(long, global = true, value_name = "RUNTIME")]
    #[serde(deserialize_with = "text")]
    pub runtime: Option<String>,

    /// Sockets of runtimes that are not at their usual place: NAME=PATH for containerd, cri-o, docker, podman and others
    #[arg(long, global = true, value_name = "NAME=PATH,...", value_delimiter = ',')]
    #[serde(deserialize_with = "list")]
    pub runtime_socket: Option<Vec<String>>,

    /// Variables of containers' environments that become container_env_* labels in the style cadvisor, by the
    /// beginnings of their names; others are not kept [default: none]
    #[arg(long, global = true, value_name = "PREFIX,...", value_delimiter = ',')]
    #[serde(deserialize_with = "list")]
    pub env_metadata_whitelist: Option<Vec<String>>,

    /// Files of the host with the machine's id, of which the first that has one counts
    /// [default: /etc/machine-id,/var/lib/dbus/machine-id]
    #[arg(long, global = true, value_name = "FILE,...", value_delimiter = ',')]
    #[serde(deserialize_with = "list")]
    pub machine_id_file: Option<Vec<String>>,

    /// The same for the id of the boot [default: /proc/sys/kernel/random/boot_id]
    #[arg(long, global = true, value_name = "FILE,...", value_delimiter = ',')]
    #[serde(deserialize_with = "list")]
    pub boot_id_file: Option<Vec<String>>,

    /// The kubelet to ask for pods: auto (where a service account's token is), its URL, or none
    /// [default: auto]
    #[arg(long, global = true, value_name = "URL")]
    #[serde(deserialize_with = "text")]
    pub kubelet: Option<String>,

    /// Labels of containers: kubernetes (namespace, pod, container), cadvisor (container_label_*) or auto,
    /// which is kubernetes where there are pods at the start [default: auto]
    #[arg(long, global = true, value_name = "STYLE")]
    #[serde(deserialize_with = "text")]
    pub label_style: Option<String>,

    /// CA certificates of the kubelet, PEM [default: the service account's]
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(deserialize_with = "text")]
    pub kubelet_ca: Option<String>,

    /// Token shown to the kubelet [default: the service account's]
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(deserialize_with = "text")]
    pub kubelet_token_file: Option<String>,

    /// Whether any certificate of the kubelet is believed: on or off; whoever answers then gets the token
    /// [default: off]
    #[arg(long, global = true, value_name = "ON|OFF")]
    #[serde(deserialize_with = "text")]
    pub kubelet_insecure: Option<String>,

    /// Whether all labels the runtime has of a container become container_label_*, in the style cadvisor:
    /// on or off [default: on]
    #[arg(long, global = true, value_name = "ON|OFF", alias = "store_container_labels")]
    #[serde(deserialize_with = "text")]
    pub store_container_labels: Option<String>,

    /// Labels that become container_label_* in any case
    #[arg(
        long,
        global = true,
        value_name = "KEY,...",
        value_delimiter = ',',
        alias = "whitelisted_container_labels"
    )]
    #[serde(deserialize_with = "list")]
    pub whitelisted_container_labels: Option<Vec<String>>,

    /// Whether /metrics leaves out cgroups that no runtime knows, but the root: on or off [default: off]
    #[arg(long, global = true, value_name = "ON|OFF")]
    #[serde(deserialize_with = "text")]
    pub docker_only: Option<String>,

    /// Of the cgroups that no runtime knows /metrics has the root and those whose paths begin so
    /// [default: all, with --docker-only none]
    #[arg(long, global = true, value_name = "PATH,...", value_delimiter = ',')]
    #[serde(deserialize_with = "list")]
    pub raw_cgroup_prefix_whitelist: Option<Vec<String>>,

    /// Whether /metrics leaves out the root cgroup: on or off [default: off]
    #[arg(long, global = true, value_name = "ON|OFF")]
    #[serde(deserialize_with = "text")]
    pub disable_root_cgroup_stats: Option<String>,

    /// What all paths begin with, behind a proxy that does not take it off [default: nothing]
    #[arg(long, global = true, value_name = "PATH")]
    #[serde(deserialize_with = "text")]
    pub url_base_prefix: Option<String>,

    /// Another path at which /metrics is served too
    #[arg(long, global = true, value_name = "PATH")]
    #[serde(deserialize_with = "text")]
    pub prometheus_endpoint: Option<String>,

    /// Whether /metrics and what is below it need what --auth asks for: on or off [default: on]
    #[arg(long, global = true, value_name = "ON|OFF")]
    #[serde(deserialize_with = "text")]
    pub auth_metrics: Option<String>,

    /// Whether /stats, /api and /apis do: cAdvisor's, the kubelet's, Heapster's and Kubernetes' APIs [default: on]
    #[arg(long, global = true, value_name = "ON|OFF")]
    #[serde(deserialize_with = "text")]
    pub auth_model: Option<String>,

    /// Whether pages, what they ask for, and the Dashboard's API do [default: on]
    #[arg(long, global = true, value_name = "ON|OFF")]
    #[serde(deserialize_with = "text")]
    pub auth_dashboard: Option<String>,

    /// Whether samples carry the time of their collection: on or off [default: off]
    #[arg(long, global = true, value_name = "ON|OFF")]
    #[serde(deserialize_with = "text")]
    pub timestamps: Option<String>,

    /// Kernel memory that held handles may pin, 4.4 KiB each; more makes collection cheaper
    /// [default: 24MiB]
    #[arg(long, global = true, value_name = "BYTES")]
    #[serde(deserialize_with = "text")]
    pub handle_memory: Option<String>,

    /// Share of one core that measuring what containers keep on disks may take on average, percent;
    /// 0 measures nothing [default: 1]
    #[arg(long, global = true, value_name = "PERCENT")]
    #[serde(deserialize_with = "text")]
    pub disk_usage_budget: Option<String>,

    /// The kubelet's directory on the host, where volumes of pods are [default: /var/lib/kubelet]
    #[arg(long, global = true, value_name = "DIR")]
    #[serde(deserialize_with = "text")]
    pub kubelet_root: Option<String>,

    /// Most cgroups to follow [default: 20000]
    #[arg(long, global = true, value_name = "COUNT")]
    #[serde(deserialize_with = "text")]
    pub max_cgroups: Option<String>,

    /// Where to send every step, once for each sink: aggregator:https://host:8082, influxdb:http://host:8086?db=k8s,
    /// influxdb2:http://host:8086?org=o&bucket=b or remote-write:http://host/api/v1/write. Passwords and tokens
    /// come from files (password-file=, token-file=) or the environment (password-env=, token-env=)
    #[arg(long, global = true, value_name = "KIND:URL")]
    #[serde(deserialize_with = "uris")]
    pub push: Option<Vec<String>>,

    /// Where steps wait on disk until every sink has them [default: in memory only]
    #[arg(long, global = true, value_name = "DIR")]
    #[serde(deserialize_with = "text")]
    pub queue_dir: Option<String>,

    /// Size of the queue, beyond which the oldest steps are dropped [default: 256MiB on disk, 16MiB in memory]
    #[arg(long, global = true, value_name = "BYTES")]
    #[serde(deserialize_with = "text")]
    pub queue_max_bytes: Option<String>,

    /// Time between two steps of the aggregator's model, 1s to 5m
    /// [default: 60s, of standalone 5s]
    #[arg(long, global = true, value_name = "DURATION", alias = "metric_resolution")]
    #[serde(deserialize_with = "text")]
    pub metric_resolution: Option<String>,

    /// Where the aggregator sends every step, once for each sink: influxdb:http://host:8086?db=k8s with Heapster's
    /// options, log, remote-write:http://host/api/v1/write or influxdb2: with those of --push
    #[arg(long, global = true, value_name = "KIND:URL")]
    #[serde(deserialize_with = "uris")]
    pub sink: Option<Vec<String>>,

    /// Deadline of each request of the aggregator to a sink [default: 20s]
    #[arg(long, global = true, value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub sink_export_data_timeout: Option<String>,

    /// Who of several aggregators sends to sinks: off (each), lease:NAMESPACE/NAME (the holder of that Lease of
    /// Kubernetes) or file:PATH (the holder of that file, which all can write) [default: off]
    #[arg(long, global = true, value_name = "HOW")]
    #[serde(deserialize_with = "text")]
    pub ha: Option<String>,

    /// How long one of several aggregators stays the one that sends without a sign of life, 1s to 10m
    /// [default: 15s]
    #[arg(long, global = true, value_name = "DURATION")]
    #[serde(deserialize_with = "text")]
    pub ha_lease: Option<String>,

    /// Of Heapster: without effect, since the aggregator's model is what everything is made from
    #[arg(
        long,
        global = true,
        value_name = "ON|OFF",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    #[serde(deserialize_with = "text")]
    pub disable_metric_sink: Option<String>,

    /// Most nodes the aggregator holds; others are told to come later [default: 10000]
    #[arg(long, global = true, value_name = "COUNT")]
    #[serde(deserialize_with = "text")]
    pub max_nodes: Option<String>,

    /// Where the aggregator's figures come from besides pushes: push, or kubernetes:URL?OPTIONS, which finds nodes
    /// through the API server there and asks the kubelets of those that push nothing; Heapster's options
    /// inClusterConfig, kubeletPort, kubeletHttps, insecure, auth, useServiceAccount and host_id_annotation. Without
    /// a command it selects the aggregator, which then listens where Heapster did [default: push]
    #[arg(long, global = true, value_name = "URI")]
    #[serde(deserialize_with = "uris")]
    pub source: Option<Vec<String>>,

    /// Heapster's own flags.
    #[arg(skip)]
    #[serde(skip)]
    pub heapster: heapster::Given,

    /// File that the aggregator keeps its model in across restarts, written about every minute and when it stops
    /// [default: none, agents send the last fifteen minutes again]
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(deserialize_with = "text")]
    pub snapshot: Option<String>,

    /// Address at which Kubernetes' API aggregation finds the aggregator's metrics.k8s.io, always by TLS; whoever
    /// asks is told apart by the API server's front proxy, a certificate of the cluster or a token
    /// [default: 0.0.0.0:10250 with --api-tls-cert, else not served]
    #[arg(long, global = true, value_name = "IP:PORT")]
    #[serde(deserialize_with = "text")]
    pub api_listen: Option<String>,

    /// Certificate for --api-listen, PEM; read again when it changes [default: that of --tls-cert]
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(deserialize_with = "text")]
    pub api_tls_cert: Option<String>,

    /// Key of --api-tls-cert, PEM [default: that of --tls-key]
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(deserialize_with = "text")]
    pub api_tls_key: Option<String>,

    /// Certificates that sign those of the cluster's users, PEM, for --api-listen
    /// [default: as kube-system/extension-apiserver-authentication says]
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(deserialize_with = "text")]
    pub client_ca_file: Option<String>,

    /// Certificates that sign those of the API server's front proxy, PEM; names and headers are then those given here
    /// [default: as kube-system/extension-apiserver-authentication says]
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(deserialize_with = "text")]
    pub requestheader_client_ca_file: Option<String>,

    /// Common names that a front proxy's certificate may have [default: any]
    #[arg(long, global = true, value_name = "NAME,...", value_delimiter = ',')]
    #[serde(deserialize_with = "list")]
    pub requestheader_allowed_names: Option<Vec<String>>,

    /// Headers in which a front proxy names the user [default: X-Remote-User]
    #[arg(long, global = true, value_name = "HEADER,...", value_delimiter = ',')]
    #[serde(deserialize_with = "list")]
    pub requestheader_username_headers: Option<Vec<String>>,

    /// Headers in which a front proxy names the user's groups [default: X-Remote-Group]
    #[arg(long, global = true, value_name = "HEADER,...", value_delimiter = ',')]
    #[serde(deserialize_with = "list")]
    pub requestheader_group_headers: Option<Vec<String>>,

    /// What headers begin with in which a front proxy tells more of the user [default: X-Remote-Extra-]
    #[arg(long, global = true, value_name = "PREFIX,...", value_delimiter = ',')]
    #[serde(deserialize_with = "list")]
    pub requestheader_extra_headers_prefix: Option<Vec<String>>,

    /// Least severe messages to log: off, error, warn, info, debug or trace [default: info]
    #[arg(long, global = true, value_name = "LEVEL")]
    #[serde(deserialize_with = "text")]
    pub log_level: Option<String>,

    /// How messages are written to standard error: text or json [default: text]
    #[arg(long, global = true, value_name = "FORMAT")]
    #[serde(deserialize_with = "text")]
    pub log_format: Option<String>,
}

impl Cli {
    /// Whether the aggregator is to run: it is named, or Heapster's sources or sinks
    /// are, without a command.
    pub fn is_aggregator(&self) -> bool {
        self.command == Some(Command::Aggregator) || self.settings.heapster.in_its_place
    }
}

impl Settings {
    /// Long names of all settings.
    pub fn names() -> Vec<String> {
        Settings::augment_args(clap::Command::new("settings"))
            .get_arguments()
            .filter_map(|argument| argument.get_long().map(str::to_owned))
            .collect()
    }

    /// Long names of the settings that are given here.
    pub fn given(&self) -> Vec<String> {
        // What is not given has no place in a table.
        let table = toml::Table::try_from(self).unwrap_or_default();
        let config = self.config.is_some().then(|| "config".to_owned());
        config.into_iter().chain(table.into_iter().map(|(name, _)| name)).collect()
    }
}

/// The environment name of a setting.
pub fn environment_name(long: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", long.to_uppercase().replace('-', "_"))
}

/// What reading the command line came to.
#[derive(Debug)]
pub enum Parsed {
    /// Something to do.
    Run(Box<Cli>),
    /// Help or version, to be printed on standard output.
    Print(String),
    /// One line saying what is wrong and what is accepted.
    Bad(String),
}

/// Reads a command line, the program's name first.
pub fn parse<I, T>(arguments: I) -> Parsed
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    if is_eventer(&arguments) {
        return Parsed::Bad(EVENTER.to_owned());
    }
    let commands: Vec<String> = Cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
    let said = |setting: &str| {
        let in_environment =
            |name: &str| std::env::var_os(environment_name(name)).is_some_and(|v| !v.is_empty());
        in_environment(setting) || in_environment("config")
    };
    let (arguments, notices) = match cadvisor::translate(&arguments, &commands, said, std::path::Path::is_dir)
    {
        Ok(Some(translated)) => (translated.words, translated.notices),
        Ok(None) => (arguments, Vec::new()),
        Err(line) => return Parsed::Bad(line),
    };
    let arguments: Vec<OsString> = arguments.into_iter().map(dashed).collect();
    // The image carries this program under Heapster's path too.
    let heapster = arguments.first().is_some_and(|name| std::path::Path::new(name).ends_with("heapster"));
    let result = heapster::add(command()).try_get_matches_from(arguments).and_then(|m| {
        let mut cli = Cli { notices, ..Cli::from_arg_matches(&m)? };
        let given = cli.settings.given();
        let chosen = heapster || given.iter().any(|name| name == "source" || name == "sink");
        cli.settings.heapster = heapster::read(&m, cli.command.is_none() && chosen);
        Ok(cli)
    });
    match result {
        Ok(cli) => Parsed::Run(Box::new(cli)),
        Err(error) if !error.use_stderr() => Parsed::Print(error.render().to_string()),
        Err(error) => Parsed::Bad(one_line(&error)),
    }
}

/// A long flag's name with dashes, where it has underscores: both are accepted, as
/// Heapster and cAdvisor do.
fn dashed(word: OsString) -> OsString {
    let Some(text) = word.to_str().filter(|text| text.starts_with("--")) else { return word };
    let (name, value) = text.split_at(text.find('=').unwrap_or(text.len()));
    format!("{}{value}", name.replace('_', "-")).into()
}

/// What is said where Heapster's second program is wanted.
const EVENTER: &str = "eventer: events of Kubernetes are not served; instead: an event exporter, such as \
    kubernetes-event-exporter, to the same database; accepted: nodegauge aggregator for metrics";

/// Whether it was called as Heapster's eventer was: by its name, its command, or
/// the one flag that only it had.
fn is_eventer(arguments: &[OsString]) -> bool {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let named = |word: &&str| *word == "eventer" || word.ends_with("/eventer");
    let frequency =
        |word: &&str| ["--frequency", "-frequency"].contains(&word.split('=').next().unwrap_or(word));
    words.iter().take(2).any(named) || words.iter().any(frequency)
}

/// The command with the environment name of each setting in its help.
fn command() -> clap::Command {
    let settings = Settings::names();
    Cli::command().mut_args(|argument| {
        let Some(long) = argument.get_long().filter(|long| settings.iter().any(|s| s == long)) else {
            return argument;
        };
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let help = format!("{help} [env: {}]", environment_name(long));
        argument.help(help)
    })
}

/// clap's errors are several lines with usage and tips; ours are one that names
/// the thing and what is accepted.
fn one_line(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) if !texts.is_empty() => Some(texts.join(", ")),
        _ => None,
    };
    let argument = context(ContextKind::InvalidArg);
    let flag = argument.as_deref().map(|a| a.split([' ', '=']).next().unwrap_or(a).to_owned());
    match (error.kind(), flag) {
        (ErrorKind::UnknownArgument, Some(flag)) if !flag.starts_with('-') => {
            format!("{argument:?}: unexpected; see nodegauge --help", argument = argument.unwrap_or_default())
        }
        (ErrorKind::UnknownArgument, Some(flag)) => match context(ContextKind::SuggestedArg) {
            Some(near) => format!("{flag}: unknown flag; did you mean {near}? see nodegauge --help"),
            None => format!("{flag}: unknown flag; see nodegauge --help"),
        },
        (ErrorKind::InvalidSubcommand, _) => {
            let word = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            let names: Vec<_> = Cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
            format!("{word:?}: unknown command; accepted: {}", names.join(", "))
        }
        (ErrorKind::InvalidValue, Some(flag)) => {
            let accepted = context(ContextKind::ValidValue);
            match context(ContextKind::InvalidValue).filter(|v| !v.is_empty()) {
                Some(value) => {
                    let accepted = accepted.map(|a| format!("; accepted: {a}")).unwrap_or_default();
                    format!("{flag} {value:?}: not accepted{accepted}")
                }
                None => format!("{}: needs a value", argument.unwrap_or(flag)),
            }
        }
        (ErrorKind::ArgumentConflict, Some(flag)) => format!("{flag}: given more than once"),
        _ => {
            let text = error.render().to_string();
            let head: Vec<_> = text
                .lines()
                .map(str::trim)
                .take_while(|l| !l.is_empty() && !l.starts_with("Usage:"))
                .collect();
            format!("{}; see nodegauge --help", head.join(" ").trim_start_matches("error: "))
        }
    }
}

/// A setting written as a string, a number or a boolean.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct Text;
    impl Visitor<'_> for Text {
        type Value = String;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a string, a number or a boolean")
        }
        fn visit_str<E>(self, v: &str) -> Result<String, E> {
            Ok(v.to_owned())
        }
        fn visit_i64<E>(self, v: i64) -> Result<String, E> {
            Ok(v.to_string())
        }
        fn visit_u64<E>(self, v: u64) -> Result<String, E> {
            Ok(v.to_string())
        }
        fn visit_bool<E>(self, v: bool) -> Result<String, E> {
            Ok(if v { "on" } else { "off" }.to_owned())
        }
    }
    deserializer.deserialize_any(Text).map(Some)
}

/// A setting written as a list of strings or as one string with commas.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    words(deserializer, |text| text.split(',').map(str::to_owned).collect())
}

/// A setting written as a list of strings or as one string with blanks: a URI
/// may hold commas.
fn uris<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    words(deserializer, |text| text.split_whitespace().map(str::to_owned).collect())
}

fn words<'de, D: Deserializer<'de>>(
    deserializer: D,
    split: fn(&str) -> Vec<String>,
) -> Result<Option<Vec<String>>, D::Error> {
    struct List(fn(&str) -> Vec<String>);
    impl<'de> Visitor<'de> for List {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of strings")
        }
        fn visit_str<E>(self, v: &str) -> Result<Vec<String>, E> {
            Ok((self.0)(v))
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
            let mut out = Vec::new();
            while let Some(word) = seq.next_element::<toml::Value>()? {
                let word = word.as_str().ok_or_else(|| A::Error::custom("a list holds strings"))?;
                out.push(word.to_owned());
            }
            Ok(out)
        }
    }
    deserializer.deserialize_any(List(split)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> Cli {
        match parse(std::iter::once("nodegauge").chain(words.iter().copied())) {
            Parsed::Run(cli) => *cli,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    fn bad(words: &[&str], expected: &str) {
        match parse(std::iter::once("nodegauge").chain(words.iter().copied())) {
            Parsed::Bad(line) => assert_eq!(line, expected, "{words:?}"),
            other => panic!("{words:?}: {other:?}"),
        }
    }

    #[test]
    fn settings_go_before_and_after_the_command() {
        for words in [&["--interval", "5s", "agent"][..], &["agent", "--interval=5s"], &["--interval", "5s"]]
        {
            assert_eq!(run(words).settings.interval.as_deref(), Some("5s"), "{words:?}");
        }
        assert_eq!(run(&["agent"]).command, Some(Command::Agent));
        assert_eq!(run(&[]).command, None);
    }

    #[test]
    fn lists_are_split_and_appended() {
        let expected = ["cpu", "memory", "disk"].map(str::to_owned).to_vec();
        assert_eq!(run(&["--metrics", "cpu,memory", "--metrics=disk"]).settings.metrics, Some(expected));
    }

    #[test]
    fn errors_are_one_line() {
        bad(&["--nope"], "--nope: unknown flag; see nodegauge --help");
        bad(
            &["--intervall", "1s"],
            "--intervall: unknown flag; did you mean --interval? see nodegauge --help",
        );
        bad(
            &["serve"],
            "\"serve\": unknown command; accepted: standalone, agent, aggregator, top, once, check",
        );
        bad(&["agent", "serve"], "\"serve\": unexpected; see nodegauge --help");
        bad(
            &["once", "--format", "xml"],
            "--format \"xml\": not accepted; accepted: prometheus, summary, json",
        );
        bad(&["--interval"], "--interval <DURATION>: needs a value");
        bad(&["--interval", "1s", "--interval", "2s"], "--interval: given more than once");
        bad(
            &["check", "--families=x"],
            "unexpected value 'x' for '--families' found; no more were expected; see nodegauge --help",
        );
    }

    #[test]
    fn help_names_the_environment_of_every_setting() {
        let Parsed::Print(help) = parse(["nodegauge", "--help"]) else { panic!("no help") };
        let flat: String = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for name in Settings::names() {
            // Those that need no value show it in brackets.
            let shown = [' ', '['].iter().any(|after| flat.contains(&format!("--{name}{after}")));
            assert!(shown, "{name}");
            assert!(flat.contains(&format!("[env: {}]", environment_name(&name))), "{name}");
        }
    }
}
