//! One collection to standard output: for scripts, tests and bug reports.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::agent;
use crate::agent::naming::Naming;
use crate::cli::OnceFormat;
use crate::config::Config;
use crate::expose::summary::{self, Extent};
use crate::expose::{Format, Options, Renderer, View};
use crate::kernel::handles;
use crate::snapshot::Origin;

/// What runs on threads of its own (space of filesystems, task states) is there
/// after this long, unless something hangs.
const SETTLE: Duration = Duration::from_millis(200);

/// Collects and writes.
///
/// # Errors
/// There is nothing to collect from, or `out` cannot be written.
pub fn run(config: &Config, format: OnceFormat, out: &mut impl Write) -> Result<()> {
    let event_loop = agent::event_loop()?;
    let identities = event_loop.block_on(agent::identities(config));
    let namer = Box::new(Naming::new(Arc::clone(&identities), config.labels.clone(), &config.kubelet_root));
    let mut sampler = agent::sampler(config, handles::raise_descriptor_limit(), namer)?;
    let mut snapshot = sampler.blank();
    sampler.tick(Origin::Fresh, &mut snapshot);
    // The first tick starts those threads on the cgroups it found; the second
    // picks up their answers.
    std::thread::park_timeout(SETTLE);
    sampler.tick(Origin::Fresh, &mut snapshot);
    match format {
        OnceFormat::Prometheus => {
            let options = Options {
                format: Format::Prometheus,
                view: View::All,
                kinds: config.kinds,
                timestamps: config.timestamps,
            };
            Renderer::new(options).render(&snapshot, |text| out.write_all(text))
        }
        OnceFormat::Summary => {
            let surroundings = agent::around(config, identities).tell();
            summary::write(&snapshot, &surroundings, Extent::Full, &mut *out)
                .map_err(Into::into)
                .and_then(|()| out.write_all(b"\n"))
        }
        OnceFormat::Json => serde_json::to_writer(&mut *out, &snapshot)
            .map_err(Into::into)
            .and_then(|()| out.write_all(b"\n")),
    }
    .context("cannot write the collection")
}
