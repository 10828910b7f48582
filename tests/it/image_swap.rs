//! Argument lists of old manifests, as they stand there: what runs, where it
//! listens, what it collects.

use std::ffi::OsString;
use std::time::Duration;

use nodegauge::auth::Choice;
use nodegauge::cli::{Cli, Command, Parsed, parse};
use nodegauge::config::Config;
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
    let told: Vec<&str> = cli.notices.iter().map(|(flag, _)| flag.as_str()).collect();
    let expected = [
        "-logtostderr",
        "-max_housekeeping_interval",
        "-event_storage_event_limit",
        "-event_storage_age_limit",
        "-enable_metrics=app",
    ];
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
}
