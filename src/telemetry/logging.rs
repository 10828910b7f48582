//! Log setup: messages go to standard error.

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::config::LogFormat;

/// Starts logging for the process; a second call changes nothing.
///
/// Messages of libraries come from `warn` on, or from `debug` on when ours come
/// from `trace` on.
pub fn init(level: LevelFilter, format: LogFormat) {
    let libraries = match level {
        LevelFilter::TRACE => LevelFilter::DEBUG,
        level => level.min(LevelFilter::WARN),
    };
    let filter = Targets::new().with_default(libraries).with_target("nodegauge", level);
    let layer = match format {
        LogFormat::Text => {
            fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).boxed()
        }
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed(),
    };
    // Fails when there is a subscriber already, which then stays.
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
}
