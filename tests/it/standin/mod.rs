//! Stand-ins for the daemons the agent talks to: they say what a test tells
//! them to, and misbehave on request.

pub(crate) mod apiserver;
pub(crate) mod cluster;
pub(crate) mod connections;
pub(crate) mod cri;
pub(crate) mod disk;
pub(crate) mod docker;
pub(crate) mod kubelet;
pub(crate) mod receiver;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodegauge::identity::{Directory, Identities, Options, RuntimeChoice, SourceStatus, Timing};
use tokio::task::JoinHandle;

/// Numbers that look random and are the same in each run of a test.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }
}

/// A task that ends with the test, or earlier.
#[derive(Debug)]
pub(crate) struct Running(JoinHandle<()>);

impl Running {
    pub(crate) fn new(task: JoinHandle<()>) -> Self {
        Running(task)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A host root with the directories for sockets made.
#[derive(Debug)]
pub(crate) struct Host(tempfile::TempDir);

impl Host {
    pub(crate) fn new() -> Host {
        let host = Host(tempfile::tempdir().unwrap());
        for folder in ["run/containerd", "run/crio", "var/lib/kubelet/pods"] {
            std::fs::create_dir_all(host.path().join(folder)).unwrap();
        }
        host
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    /// Options that look at this host only, with little patience.
    pub(crate) fn options(&self) -> Options {
        Options {
            runtime: RuntimeChoice::Auto,
            timing: Timing {
                call: Duration::from_millis(300),
                list: Duration::from_millis(1000),
                refresh: Duration::from_millis(400),
                gap: Duration::from_millis(10),
                retry_min: Duration::from_millis(20),
                retry_max: Duration::from_millis(100),
                absent: Duration::from_millis(50),
            },
            ..Options::new(self.path())
        }
    }
}

/// Waits until `test` holds of the directory.
pub(crate) async fn until(
    identities: &Identities,
    what: &str,
    test: impl Fn(&Directory) -> bool,
) -> Arc<Directory> {
    let started = Instant::now();
    loop {
        let directory = identities.directory();
        if test(&directory) {
            return directory;
        }
        let waited = started.elapsed();
        assert!(
            waited < Duration::from_secs(60),
            "{what}: not within {waited:?}: {:#?}",
            identities.status()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until `test` holds of a source's self-report.
pub(crate) async fn until_status(
    identities: &Identities,
    source: &str,
    what: &str,
    test: impl Fn(&SourceStatus) -> bool,
) -> SourceStatus {
    let started = Instant::now();
    loop {
        let status = identities.status().into_iter().find(|s| s.name == source).unwrap();
        if test(&status) {
            return status;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{what}: {status:#?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A container id of our own: `seed` and zeros.
pub(crate) fn id(seed: u32) -> String {
    format!("{seed:064x}")
}

/// A pod UID of our own.
pub(crate) fn uid(seed: u32) -> String {
    format!("0000000a-0000-4000-8000-{seed:012x}")
}
