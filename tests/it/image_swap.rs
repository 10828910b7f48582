//! Argument lists of old manifests, as they stand there: what runs, where it
//! listens, what it collects.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use nodegauge::auth::Choice;
use nodegauge::cli::{Cli, Command, Parsed, parse};
use nodegauge::config::{AggregatorConfig, Config};
use nodegauge::identity::enrich::LabelStyle;
use nodegauge::snapshot::{Kind, Kinds};

fn run(words: &[&str]) -> Cli {
    match parse(words) {
        Parsed::Run(cli) => *cli,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn config(cli: &Cli) -> Config {
    Config::load(cli.settings.clone(), &|_: &str| None::<OsString>).unwrap()
}

/// cAdvisor's DaemonSet with its example overlay: the image's entry point, and the
/// arguments of the manifest.
#[test]
fn cadvisors_daemon_set() {
    let cli = run(&[
        "/usr/bin/cadvisor",
        "-logtostderr",
        "--housekeeping_interval=10s",
        "--max_housekeeping_interval=15s",
        "--event_storage_event_limit=default=0",
        "--event_storage_age_limit=default=0",
        "--enable_metrics=app,cpu,disk,diskIO,memory,network,process",
        "--docker_only",
        "--store_container_labels=false",
        "--whitelisted_container_labels=io.kubernetes.container.name,io.kubernetes.pod.name,io.kubernetes.pod.namespace",
    ]);
    assert_eq!(cli.command, Some(Command::Agent));
    let config = config(&cli);
    assert_eq!((config.listen.to_string().as_str(), &config.access.auth), ("0.0.0.0:8080", &Choice::None));
    assert_eq!(config.interval, Duration::from_secs(10));
    let kinds = [Kind::Cpu, Kind::Disk, Kind::DiskIo, Kind::Memory, Kind::Network, Kind::Process];
    assert_eq!(config.kinds, kinds.into_iter().fold(Kinds::NONE, Kinds::with));
    assert_eq!(config.labels.style, Some(LabelStyle::Cadvisor));
    assert!(config.labels.runtimes_only && !config.labels.store_container_labels);
    assert_eq!(config.labels.whitelisted.len(), 3);
    assert_eq!((config.events.count, config.events.age), ([0; 4], [Duration::ZERO; 4]));
    let told: Vec<&str> = cli.notices.iter().map(|(flag, _)| flag.as_str()).collect();
    let expected = ["-logtostderr", "-max_housekeeping_interval", "-enable_metrics=app"];
    assert_eq!(told, expected);
}

/// Its quick start with Docker.
#[test]
fn cadvisor_beside_docker() {
    let cli = run(&[
        "cadvisor",
        "-logtostderr",
        "-port",
        "9101",
        "-url_base_prefix=/cadvisor",
        "-disable_metrics=percpu,tcp,udp",
    ]);
    let config = config(&cli);
    assert_eq!(config.listen.to_string(), "0.0.0.0:9101");
    assert_eq!(config.paths.prefix, "/cadvisor");
    assert!(
        !config.kinds.has(Kind::Percpu) && config.kinds.has(Kind::Hugetlb) && config.kinds.has(Kind::Process)
    );
}

/// Heapster's own Deployments: the addon with InfluxDB, the one that only logs, and the
/// one of Google's that names sinks nobody serves here.
#[test]
fn heapsters_deployments() {
    let aggregator = |words: &[&str]| {
        let cli = run(words);
        let nothing = |_: &str| None::<OsString>;
        (cli.command, AggregatorConfig::load(cli.settings, &nothing).map_err(|error| format!("{error:#}")))
    };
    let (command, config) = aggregator(&[
        "/heapster",
        "--source=kubernetes:https://kubernetes.default",
        "--sink=influxdb:http://monitoring-influxdb.kube-system.svc:8086",
    ]);
    let config = config.unwrap();
    assert_eq!(command, None);
    assert_eq!((config.listen.to_string().as_str(), &config.access.auth), ("0.0.0.0:8082", &Choice::None));
    assert_eq!(config.resolution, Duration::from_secs(60));
    let (_, config) = aggregator(&[
        "/heapster",
        "--source=kubernetes.summary_api:https://kubernetes.default",
        "--sink=log",
    ]);
    assert_eq!(config.unwrap().listen.to_string(), "0.0.0.0:8082");
    // A manifest with a quoted empty address, which Heapster took for none.
    let (_, config) = aggregator(&["/heapster", "--source=kubernetes.summary_api:''"]);
    assert!(config.is_ok(), "{config:?}");
    let google = ["/heapster", "--source=kubernetes:https://kubernetes.default", "--sink=gcm", "--sink=gcl"];
    let (_, refused) = aggregator(&google);
    let refused = refused.unwrap_err();
    assert!(refused.contains("gcm") && refused.contains("remote-write:"), "{refused}");
    // The same flags without the old name of the program.
    let by_flags = aggregator(&["nodegauge", "--source=kubernetes:https://kubernetes.default", "--sink=log"]);
    assert_eq!(by_flags.1.unwrap().listen.to_string(), "0.0.0.0:8082");
}

/// cAdvisor's DaemonSet as it is, without arguments, in Kubernetes' and in Docker's form.
#[test]
fn cadvisor_without_arguments() {
    for words in [&["/usr/bin/cadvisor", "-logtostderr"][..], &["cadvisor", "-logtostderr"]] {
        let cli = run(words);
        assert_eq!(cli.command, Some(Command::Agent));
        let config = config(&cli);
        assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
        assert_eq!((config.kinds, config.history), (Kinds::DEFAULT, Duration::from_secs(120)));
        assert_eq!(cli.notices.len(), 1);
    }
}

/// Every flag that has a meaning here at once, in the spellings people use.
#[test]
fn cadvisor_with_all_that_means_something() {
    let cli = run(&[
        "/usr/bin/cadvisor",
        "-logtostderr",
        "--containerd=/run/k3s/containerd/containerd.sock",
        "-docker",
        "unix:///var/run/docker.sock",
        "--machine_id_file=/etc/machine-id,/var/lib/dbus/machine-id",
        "--boot_id_file=/proc/sys/kernel/random/boot_id",
        "--env_metadata_whitelist=TEAM_,SERVICE",
        "--event_storage_age_limit=default=24h,oom=48h",
        "--event_storage_event_limit=default=1000",
        "--storage_driver=influxdb",
        "--storage_driver_host=influxdb:8086",
        "--storage_driver_db=cadvisor",
        "--max_procs=2",
    ]);
    let config = config(&cli);
    let sockets: Vec<_> =
        config.runtime_sockets.iter().map(|(name, path)| (*name, path.to_str().unwrap())).collect();
    let expected = [
        ("containerd", "/run/k3s/containerd/containerd.sock"),
        ("docker", "/var/run/docker.sock"),
        ("docker", "/run/docker.sock"),
    ];
    assert_eq!(sockets, expected);
    assert_eq!(config.machine_ids.len(), 2);
    assert_eq!(config.boot_ids, [PathBuf::from("/proc/sys/kernel/random/boot_id")]);
    assert_eq!(config.variables, ["TEAM_", "SERVICE"]);
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    assert_eq!(config.events.age, [hours(48), hours(24), hours(24), hours(24)]);
    assert_eq!(config.events.count, [1000; 4]);
    assert_eq!(config.push[0].to_string(), "influxdb-influxdb-8086 (influxdb:http://influxdb:8086/)");
    let told: Vec<&str> = cli.notices.iter().map(|(flag, _)| flag.as_str()).collect();
    assert_eq!(told, ["-logtostderr", "-max_procs", "-storage_driver=influxdb"]);
}

#[test]
fn bad_values_stop_the_start() {
    let refused = |words: &[&str]| match parse(words) {
        Parsed::Bad(line) => line,
        Parsed::Run(cli) => {
            format!("{:#}", Config::load(cli.settings, &|_: &str| None::<OsString>).unwrap_err())
        }
        Parsed::Print(text) => panic!("{text}"),
    };
    assert!(refused(&["x", "-port=http"]).contains("--listen \"0.0.0.0:http\""));
    assert!(refused(&["x", "-disable_metrics=cpus"]).contains("\"cpus\": unknown kind"));
    assert!(refused(&["x", "-docker_only=perhaps"]).contains("-docker_only"));
    assert!(refused(&["x", "-port=1", "-no_such_flag"]).contains("unknown flag"));
    assert!(refused(&["x", "-url_base_prefix=/a b"]).contains("--url-base-prefix"));
    assert!(refused(&["x", "-http_digest_file=/d"]).contains("--auth token"));
    assert!(refused(&["x", "-storage_driver=statsd"]).contains("Telegraf"));
    let socket = refused(&["x", "agent", "--runtime-socket=lxc=/run/a.sock"]);
    assert!(socket.contains("--runtime-socket") && socket.contains("cri-o"), "{socket}");
    assert!(refused(&["x", "agent", "--machine-id-file=id"]).contains("--machine-id-file"));
}
