//! A running agent, and what it answers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::exposition;

/// One parsed sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// A parsed exposition.
#[derive(Debug)]
pub struct Scrape {
    pub samples: Vec<Sample>,
}

impl Scrape {
    pub fn parse(text: &str) -> Scrape {
        let samples = exposition::samples(text, false).into_iter().map(|s| Sample {
            value: s.value.parse().unwrap_or_else(|e| panic!("value of {s:?}: {e}")),
            name: s.name,
            labels: s.labels,
        });
        Scrape { samples: samples.collect() }
    }

    /// The values of a family on a cgroup, by its other labels.
    pub fn all(&self, name: &str, id: &str) -> Vec<&Sample> {
        self.samples
            .iter()
            .filter(|s| s.name == name && s.labels.get("id").is_some_and(|i| i == id))
            .collect()
    }

    /// The one value of a family on a cgroup.
    pub fn one(&self, name: &str, id: &str) -> Option<f64> {
        let found = self.all(name, id);
        assert!(found.len() <= 1, "{name} of {id} has {} samples", found.len());
        found.first().map(|s| s.value)
    }

    /// The value of the only sample with these labels.
    pub fn with(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let matches = |s: &&Sample| {
            s.name == name && labels.iter().all(|(k, v)| s.labels.get(*k).map_or("", String::as_str) == *v)
        };
        let found: Vec<_> = self.samples.iter().filter(matches).collect();
        assert!(found.len() <= 1, "{name}{labels:?} has {} samples", found.len());
        found.first().map(|s| s.value)
    }

    /// Every cgroup that has a row.
    pub fn ids(&self) -> Vec<&str> {
        let seen = self.samples.iter().filter(|s| s.name == "container_last_seen");
        seen.filter_map(|s| s.labels.get("id").map(String::as_str)).collect()
    }
}

/// The program under test: the one built with these tests, unless they run
/// somewhere else (`tests/vm/live.sh`) and are told where it is.
pub fn binary() -> String {
    std::env::var("NODEGAUGE").unwrap_or_else(|_| env!("CARGO_BIN_EXE_nodegauge").to_owned())
}

/// A running `nodegauge agent`, ended on drop.
pub struct Agent {
    child: Child,
    pub port: u16,
}

impl Agent {
    pub fn start(args: &[&str]) -> Agent {
        Agent::start_with(args, |_| {})
    }

    /// `prepare` may change how it is started.
    pub fn start_with(args: &[&str], prepare: impl FnOnce(&mut Command)) -> Agent {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Agent::attach(port, |listen| {
            let mut command = Command::new(binary());
            command.args(["agent", "--listen", listen]).args(args);
            prepare(&mut command);
            command
        })
    }

    /// Starts what `command` makes of the address to listen on.
    pub fn attach(port: u16, command: impl FnOnce(&str) -> Command) -> Agent {
        let mut command = command(&format!("127.0.0.1:{port}"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().expect("the agent starts");
        let mut agent = Agent { child, port };
        agent.wait_ready();
        agent
    }

    fn wait_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.try_get("/readyz").is_ok_and(|(status, _)| status == 200) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the agent ended: {status}");
            }
            assert!(Instant::now() < deadline, "the agent is not ready after 10 s");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn try_get(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        // HTTP/1.0, so that the body ends with the connection.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Ok((status, body.to_owned()))
    }

    pub fn get(&self, path: &str) -> String {
        let (status, body) = self.try_get(path).expect("the agent answers");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// A scrape of a snapshot that is not older than the wait before it.
    pub fn scrape(&self) -> Scrape {
        // The agent takes at most one fresh tick a second.
        std::thread::sleep(Duration::from_millis(1050));
        self.scrape_now()
    }

    pub fn scrape_now(&self) -> Scrape {
        Scrape::parse(&self.get("/metrics"))
    }

    /// One of its own metrics, by the start of the line.
    pub fn own(&self, start: &str) -> f64 {
        let text = self.get("/metrics/self");
        let sum: f64 = text
            .lines()
            .filter(|l| l.starts_with(start) && !l.starts_with('#'))
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        sum
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
