//! Whether the sinks answer, and the queue can be written.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::Findings;
use crate::config::{self, Config};
use crate::push::delivery::{self, Timing};
use crate::push::sinks;

/// How long a sink may take to answer.
const SINK_PATIENCE: Duration = Duration::from_secs(3);

/// Whether each sink answers, asked for something that changes nothing there.
pub(super) async fn look(f: &mut Findings, config: &Config) {
    for target in &config.push {
        let subject = format!("sink {target}");
        let Some(sink) = sinks::sink(target, None) else { continue };
        let timing = Timing { request: SINK_PATIENCE, connect: SINK_PATIENCE, ..Timing::default() };
        let consequence = "steps wait in the queue until it does";
        match delivery::probe(sink, target, timing).await {
            Ok(answer) if answer.status < 300 => f.ok(&subject, format_args!("answers, {}", answer.status)),
            Ok(answer) => f.warn(
                &subject,
                format_args!("answers {} {}", answer.status, answer.text()),
                "it may refuse what is sent",
                "see its address, credentials and log",
            ),
            Err(error) => f.warn(&subject, error, consequence, "see its address and whether it runs"),
        }
    }
    if let Some(directory) = config.queue_dir.as_deref().filter(|_| !config.push.is_empty()) {
        match std::fs::create_dir_all(directory).and_then(|()| tempfile_in(directory)) {
            Ok(()) => f.ok("queue", format_args!("{} can be written", directory.display())),
            Err(error) => f.fail(
                "queue",
                format_args!("{}: {}", directory.display(), config::lower(&error)),
                "the agent does not start",
                "name a directory it may write with --queue-dir",
            ),
        }
    }
}

/// Whether a file can be made there.
fn tempfile_in(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!(".check-{}", std::process::id()));
    std::fs::write(&path, b"")?;
    std::fs::remove_file(&path)
}
