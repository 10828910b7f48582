//! Settings of what is sent: sinks and their queue.

use anyhow::{Result, anyhow, bail};

use super::Layers;
use super::values::bytes;
use crate::push::target::{self, Target};

/// Least size of the queue's file, bytes.
const MIN_QUEUE: u64 = 4 << 20;

/// Default size of a queue on disk, bytes: a day and more of a node of 60
/// containers.
pub(super) const ON_DISK: u64 = 256 << 20;

/// Default size of a queue in memory, bytes: an hour of the same, within the
/// memory an agent is given.
pub(super) const IN_MEMORY: u64 = 16 << 20;

impl Layers {
    /// The sinks. Unlike other values theirs are not repeated in an error: one
    /// may be a secret in the wrong place.
    pub(super) fn push(&self) -> Result<Vec<Target>> {
        let given = self.0.iter().find_map(|(origin, s)| s.push.as_ref().map(|uris| (origin, uris)));
        let Some((origin, uris)) = given else { return Ok(Vec::new()) };
        target::parse_all(uris.iter().map(String::as_str))
            .map_err(|error| anyhow!("{}: {error}", origin.name("push")))
    }
}

/// A size that holds at least a few steps of a large node.
pub(super) fn queue_bytes(text: &str) -> Result<u64> {
    match bytes(text)? {
        size if size >= MIN_QUEUE => Ok(size),
        _ => bail!("too small; accepted: at least 4MiB"),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::config::tests::{error, load, with_file};

    #[test]
    fn sinks() {
        let names = |config: &Config| config.push.iter().map(|t| t.name.clone()).collect::<Vec<_>>();
        let flags = ["--push", "influxdb:http://a?db=x,y", "--push", "remote-write:http://b/w"];
        let environment =
            [("NODEGAUGE_PUSH", "influxdb:http://c aggregator:https://d"), ("NODEGAUGE_QUEUE_DIR", "/q")];
        let config = load(&flags, &environment).unwrap();
        assert_eq!(names(&config), ["influxdb-a-80", "remote-write-b-80"], "lists replace");
        assert_eq!((config.queue_dir, config.queue_max_bytes), (Some("/q".into()), 256 << 20));
        assert_eq!(names(&load(&[], &environment).unwrap()), ["influxdb-c-80", "aggregator-d-443"]);
        with_file("push = [\"influxdb:http://e\"]\nqueue-max-bytes = \"8MiB\"\n", |path| {
            let config = load(&["--config", path], &[]).unwrap();
            assert_eq!((names(&config), config.queue_max_bytes), (vec!["influxdb-e-80".to_owned()], 8 << 20));
        });
        let nothing = load(&[], &[]).unwrap();
        assert_eq!((nothing.push, nothing.queue_max_bytes), (Vec::new(), 16 << 20));
        assert_eq!(
            error(&["--queue-max-bytes", "1MiB"], &[]),
            "--queue-max-bytes \"1MiB\": too small; accepted: at least 4MiB"
        );
    }

    #[test]
    fn refused_sinks_do_not_show_their_options() {
        let flag = error(&["--push", "influxdb:http://a?password=hunter2"], &[]);
        assert!(
            flag.starts_with("--push: 1 \"influxdb:http://a\": password=: ") && !flag.contains("hunter2"),
            "{flag}"
        );
        let from_environment = error(&[], &[("NODEGAUGE_PUSH", "influxdb:http://u:hunter2@a")]);
        assert!(from_environment.starts_with("NODEGAUGE_PUSH: ") && !from_environment.contains("hunter2"));
    }
}
