//! The built binary: exit codes, its one line on failure, start and stop.

#![allow(clippy::disallowed_methods, reason = "these tests are about the program as it is started")]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const BINARY: &str = env!("CARGO_BIN_EXE_nodegauge");

pub(crate) fn nodegauge<I: IntoIterator<Item: AsRef<OsStr>>>(
    arguments: I,
    environment: &[(&str, &str)],
) -> Command {
    let mut command = Command::new(BINARY);
    // Whether there are pods on the machine that runs the tests is not theirs to know.
    command.args(arguments).env_clear().env("NODEGAUGE_LABEL_STYLE", "cadvisor");
    command.envs(environment.iter().copied()).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    nodegauge(arguments, &[]).output().unwrap()
}

/// Fails with `code` and one line that holds all of `named`.
fn refused(arguments: &[&str], environment: &[(&str, &str)], code: i32, named: &[&str]) {
    let output = nodegauge(arguments, environment).output().unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    let case = format!("{arguments:?} {environment:?}: {line:?}");
    assert_eq!(output.status.code(), Some(code), "{case}");
    assert!(output.stdout.is_empty(), "{case}");
    assert_eq!(line.matches('\n').count(), 1, "{case} is not one line");
    assert!(line.starts_with("nodegauge: "), "{case}");
    for word in named {
        assert!(line.contains(word), "{case} does not name {word:?}");
    }
}

#[test]
fn bad_usage_exits_64_and_names_what_is_accepted() {
    let usage = |arguments: &[&str], named: &[&str]| refused(arguments, &[], 64, named);
    usage(&["--nonsense"], &["--nonsense", "--help"]);
    usage(&["agent", "--intervall", "1s"], &["--intervall", "--interval"]);
    usage(&["serve"], &["\"serve\"", "standalone, agent, aggregator, top, once, check"]);
    usage(&["agent", "--aggregator-listen", "127.0.0.1:0"], &["--aggregator-listen", "standalone"]);
    usage(&["aggregator", "--aggregator-listen", "127.0.0.1:0"], &["--aggregator-listen", "--listen"]);
    usage(&["eventer", "--sink=log"], &["events of Kubernetes are not served", "event exporter"]);
    usage(&["aggregator", "--frequency=30s"], &["events of Kubernetes are not served"]);
    usage(&["agent", "extra"], &["\"extra\"", "--help"]);
    usage(&["--interval"], &["--interval", "value"]);
    usage(&["--interval", "soon"], &["--interval \"soon\"", "10s"]);
    usage(&["--interval", "50ms"], &["--interval \"50ms\"", "100ms to 1h"]);
    usage(&["--interval", "1s", "--interval", "2s"], &["--interval"]);
    usage(&["--interval", "a\nb"], &["--interval \"a\\nb\""]);
    usage(&["--listen", "localhost"], &["--listen \"localhost\"", "IP:PORT"]);
    usage(&["--listen", "0.0.0.0:0"], &["--listen \"0.0.0.0:0\"", "loopback", "--auth none"]);
    usage(&["--auth", "all"], &["--auth \"all\"", "none, token, kubernetes"]);
    usage(&["--auth", "token"], &["--auth \"token\"", "--auth-token-file"]);
    usage(&["--tls-cert", "a"], &["--tls-cert", "--tls-key"]);
    usage(&["--metrics", "cpu,app"], &["--metrics", "\"app\"", "scrapes", "cpu, percpu"]);
    usage(&["--metrics", "cpu", "--disable-metrics", "tcp"], &["--metrics", "--disable-metrics", "one of"]);
    usage(&["once", "--format", "xml"], &["--format \"xml\"", "prometheus, summary, json"]);
    refused(&[], &[("NODEGAUGE_MAX_AGE", "old")], 64, &["NODEGAUGE_MAX_AGE \"old\"", "10s"]);
    refused(&["check"], &[("NODEGAUGE_LOG_LEVEL", "loud")], 64, &["NODEGAUGE_LOG_LEVEL \"loud\"", "trace"]);
}

#[test]
fn bad_files_exit_64_and_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let usage = |path: &str, named: &[&str]| {
        refused(&["--config", path], &[], 64, &[&[path], named].concat());
        refused(&[], &[("NODEGAUGE_CONFIG", path)], 64, &[&[path], named].concat());
    };
    usage("/nowhere/at/all.toml", &["no such file", "readable TOML file"]);
    usage(directory.path().to_str().unwrap(), &["is a directory"]);
    usage(
        &file("key.toml", b"listen = \"127.0.0.1:0\"\nintervall = \"1s\"\n"),
        &["line 2", "`intervall`", "`interval`"],
    );
    usage(&file("value.toml", b"interval = \"soon\"\n"), &["interval \"soon\"", "10s"]);
    usage(&file("type.toml", b"metrics = 3\n"), &["line 1", "list of strings"]);
    usage(&file("syntax.toml", b"interval = = 3\n"), &["line 1"]);
    usage(&file("binary.toml", b"\xff\xfe\x00"), &["cannot read"]);
}

#[test]
fn what_cannot_start_exits_1_and_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(
        &["agent", "--listen", &address],
        &[],
        1,
        &["--listen", &address, "address already in use", "free port"],
    );
    for (flag, other) in [("--listen", "--aggregator-listen"), ("--aggregator-listen", "--listen")] {
        let named = [&format!("{flag} {address}"), "address already in use"];
        refused(&["standalone", flag, &address, other, "127.0.0.1:0"], &[], 1, &named);
    }
    refused(
        &["--listen", "127.0.0.1:0", "--host-root", "/nowhere"],
        &[],
        1,
        &["--host-root \"/nowhere\"", "no such file"],
    );
    refused(
        &[
            "agent",
            "--listen",
            "127.0.0.1:0",
            "--tls-cert",
            "/nowhere/tls.crt",
            "--tls-key",
            "/nowhere/tls.key",
        ],
        &[],
        1,
        &["--tls-cert", "/nowhere/tls.crt", "No such file"],
    );
    refused(
        &["once", "--host-root", "/etc/hostname"],
        &[],
        1,
        &["--host-root \"/etc/hostname\"", "not a directory"],
    );

    // A host without any cgroup filesystem.
    let host = tempfile::tempdir().unwrap();
    let root = host.path().to_str().unwrap();
    refused(&["once", "--host-root", root], &[], 1, &["mountinfo", root]);
    fs::create_dir_all(host.path().join("proc/1")).unwrap();
    let mounts = "22 1 0:21 / / rw,relatime - ext4 /dev/vda rw\n23 22 0:22 / /proc rw - proc proc rw\n";
    fs::write(host.path().join("proc/1/mountinfo"), mounts).unwrap();
    for arguments in [&["agent", "--listen", "127.0.0.1:0"][..], &["once"]] {
        let arguments = [arguments, &["--host-root", root]].concat();
        refused(&arguments, &[], 1, &["no cgroup filesystem", root, "--host-root"]);
    }
    let check = run(&["check", "--host-root", root]);
    assert_eq!(check.status.code(), Some(1));
    assert!(String::from_utf8(check.stdout).unwrap().contains("fail  hierarchy: no cgroup filesystem"));
}

#[test]
fn help_and_version_go_to_standard_output() {
    for (arguments, expected) in [
        (&["--help"][..], "NODEGAUGE_HANDLE_MEMORY"),
        (&["agent", "--help"], "NODEGAUGE_INTERVAL"),
        (&["once", "--help"], "--format"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}");
        assert!(String::from_utf8(output.stdout).unwrap().contains(expected), "{arguments:?}");
    }
}

/// A running agent or aggregator, or both in one, killed when dropped.
pub(crate) struct Agent {
    child: Child,
    pub(crate) address: SocketAddr,
    output: BufReader<ChildStdout>,
}

impl Agent {
    pub(crate) fn start(mut command: Command) -> Agent {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        Agent { address: announced(&mut output), child, output }
    }

    /// The address in the next line it writes.
    pub(crate) fn next_address(&mut self) -> SocketAddr {
        announced(&mut self.output)
    }

    pub(crate) fn get(&self, path: &str) -> String {
        self.get_from(self.address, path)
    }

    pub(crate) fn get_from(&self, address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// The exit code and what was logged.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

fn announced(output: &mut BufReader<ChildStdout>) -> SocketAddr {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let address =
        line.split("://").nth(1).and_then(|rest| rest.trim_end().trim_end_matches('/').parse().ok());
    address.unwrap_or_else(|| panic!("no address in {line:?}"))
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_agent_prints_its_address_serves_and_stops_on_signals() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let agent = Agent::start(nodegauge(["agent", "--listen", "127.0.0.1:0"], &[]));
        let metrics = agent.get("/metrics");
        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
        assert!(metrics.contains("container_cpu_usage_seconds_total{id=\"/\""), "{metrics}");
        assert!(agent.get("/readyz").ends_with("ok\n"));
        let page = agent.get("/");
        assert!(page.to_lowercase().contains("<!doctype html>"), "{page}");
        let own = agent.get("/metrics/self");
        assert!(own.contains("nodegauge_ticks_total{origin=\"fresh\"} "), "{own}");
        // An idle connection does not hold it up.
        let _idle = TcpStream::connect(agent.address).unwrap();
        agent.signal(signal);
        let (code, log) = agent.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("started") && log.contains("stopping"), "{log}");
    }
}

#[test]
fn settings_from_file_and_environment_reach_the_agent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nodegauge.toml");
    fs::write(&path, "listen = \"127.0.0.1:0\"\nmetrics = [\"memory\"]\nlog-format = \"json\"\n").unwrap();
    let environment = [("NODEGAUGE_CONFIG", path.to_str().unwrap()), ("NODEGAUGE_TIMESTAMPS", "on")];
    // What Kubernetes injects for a Service called nodegauge is no setting of ours.
    let injected = [("NODEGAUGE_PORT", "tcp://10.0.0.1:4194"), ("NODEGAUGE_SERVICE_HOST", "10.0.0.1")];
    let agent = Agent::start(nodegauge(["agent"], &[environment, injected].concat()));
    let metrics = agent.get("/metrics");
    let usage = metrics.lines().find(|l| l.starts_with("container_memory_usage_bytes{id=\"/\""));
    let usage = usage.unwrap_or_else(|| panic!("{metrics}"));
    assert_eq!(usage.split(' ').count(), 3, "no time in {usage:?}");
    assert!(!metrics.contains("container_cpu_usage_seconds_total"));
    agent.signal(Signal::SIGTERM);
    let (code, log) = agent.end();
    assert_eq!(code, Some(0));
    assert!(log.lines().all(|l| l.starts_with('{') && l.ends_with('}')), "{log}");
}

#[test]
fn few_descriptors_are_enough() {
    // With 64 the limit of connections is met first, with 32 that of the kernel.
    for limit in [64, 32] {
        // The hard limit too, which the agent would raise itself to.
        let script = format!(
            "ulimit -n {limit}; exec \"$0\" agent --listen 127.0.0.1:0 --interval 100ms --log-level off"
        );
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, BINARY]).env_clear();
        let agent = Agent::start(command);
        // While sources of names are looked for there may be no descriptor for anybody.
        let ask = |path: &str| {
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let answer = std::panic::catch_unwind(|| agent.get(path)).unwrap_or_default();
                if answer.starts_with("HTTP/1.1 200 OK\r\n") {
                    return answer;
                }
                assert!(Instant::now() < deadline, "serves nobody");
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        ask("/metrics");
        let crowd: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(agent.address).unwrap()).collect();
        // Ticks go on meanwhile.
        std::thread::sleep(Duration::from_millis(500));
        drop(crowd);
        let own = ask("/metrics/self");
        let lost = |reason: &str| -> u32 {
            let series = format!("nodegauge_http_connections_lost_total{{reason=\"{reason}\"}} ");
            own.lines().find_map(|l| l.strip_prefix(&series)?.parse().ok()).unwrap()
        };
        assert!(lost("limit") + lost("descriptors") > 0, "{own}");
        if limit == 64 {
            assert!(lost("limit") > 50, "{own}");
        }
        let exhausted = own.lines().filter(|l| l.contains("reason=\"exhausted\"") && !l.ends_with(" 0.0"));
        assert_eq!(exhausted.count(), 0, "{own}");
        agent.signal(Signal::SIGTERM);
        assert_eq!(agent.end().0, Some(0));
    }
}

#[test]
fn once_writes_one_collection() {
    let text = run(&["once"]);
    assert_eq!(text.status.code(), Some(0), "{}", String::from_utf8_lossy(&text.stderr));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("container_memory_usage_bytes{id=\"/\""), "{text}");
    let json = run(&["once", "--format", "json", "--metrics", "cpu"]);
    assert_eq!(json.status.code(), Some(0));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["cgroups"][0]["id"], "/");
    assert!(json["cgroups"][0]["cpu"]["usage_ns"].is_u64(), "{json}");
    assert!(json["cgroups"][0]["memory"]["usage"].is_null());
    let summary = run(&["once", "--format", "summary", "--node-name", "n1"]);
    assert_eq!(summary.status.code(), Some(0));
    let summary: serde_json::Value = serde_json::from_slice(&summary.stdout).unwrap();
    assert_eq!(summary["node"]["nodeName"], "n1");
    assert!(summary["node"]["memory"]["workingSetBytes"].is_u64() && summary["pods"].is_array(), "{summary}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    for arguments in
        [&["once"][..], &["once", "--format=json"], &["check"], &["check", "--families"], &["--help"]]
    {
        let mut child = nodegauge(arguments, &[("NODEGAUGE_LOG_LEVEL", "warn")])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut log = String::new();
        child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        let code = child.wait().unwrap().code();
        assert!(log.is_empty(), "{arguments:?}: {log}");
        assert!(code == Some(0) || arguments == ["check"], "{arguments:?}: {code:?}");
    }
}

#[test]
fn check_has_a_verdict_on_each_line() {
    let output = run(&["check"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut failed = false;
    for line in text.lines() {
        let (verdict, rest) = line.split_once(' ').unwrap();
        let (subject, finding) = rest.trim_start().split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
        assert!(!subject.is_empty() && !finding.is_empty(), "{line:?}");
        match verdict {
            "ok" => {}
            // Finding, consequence and cure.
            "warn" | "fail" => assert!(finding.split("; ").count() >= 3, "{line:?}"),
            _ => panic!("{line:?}"),
        }
        failed |= verdict == "fail";
    }
    assert_eq!(output.status.code(), Some(i32::from(failed)), "{text}");
    for subject in [
        "kernel",
        "hierarchy",
        "controller memory",
        "cgroups",
        "descriptors",
        "pressure",
        "inotify",
        "process",
        "network",
        "filesystems",
        "listener",
    ] {
        assert!(text.contains(&format!("  {subject}: ")), "{subject} is missing in\n{text}");
    }
    let table = run(&["check", "--families"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.starts_with("family | v1 | v2 | hybrid\n"));
    assert!(table.lines().count() > 90 && table.lines().all(|l| l.split(" | ").count() == 4), "{table}");
}
