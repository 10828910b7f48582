//! Readers of single values: text to a checked value, or what is accepted.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tracing::level_filters::LevelFilter;

use super::LogFormat;

pub(super) fn duration(text: &str) -> Result<Duration> {
    humantime::parse_duration(text)
        .map_err(|_| anyhow!("not a duration; accepted: such as 500ms, 10s or 1m30s"))
}

/// How far back to look: what is a matter of hours is for a database.
pub(super) fn history(text: &str) -> Result<Duration> {
    let value = duration(text)?;
    if value > Duration::from_secs(3600) {
        bail!("out of range; accepted: 0s to 1h");
    }
    Ok(value)
}

pub(super) fn on_off(text: &str) -> Result<bool> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => bail!("not accepted; accepted: on, off"),
    }
}

pub(super) fn log_level(text: &str) -> Result<LevelFilter> {
    const NAMES: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let accepted = || anyhow!("not accepted; accepted: {}", NAMES.join(", "));
    // The type's own reader also takes numbers and any case.
    if !NAMES.contains(&text) {
        return Err(accepted());
    }
    text.parse().map_err(|_| accepted())
}

pub(super) fn log_format(text: &str) -> Result<LogFormat> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => bail!("not accepted; accepted: text, json"),
    }
}

pub(super) fn count(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => bail!("not accepted; accepted: 1 to 1000000"),
    }
}

/// Percent of a core, as microseconds of CPU for each second.
pub(super) fn share(text: &str) -> Result<u32> {
    let accepted = || anyhow!("not accepted; accepted: 0 to 100 percent, such as 1 or 0.25");
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |t: &str| !t.is_empty() && t.len() <= 4 && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return Err(accepted());
    }
    let part: u32 = format!("{part:0<4}").parse()?;
    let share = whole.parse::<u32>()? * 10_000 + part;
    if share > 1_000_000 { Err(accepted()) } else { Ok(share) }
}

pub(super) fn absolute(text: &str) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { bail!("not accepted; accepted: an absolute path on the host") }
}

pub(super) fn node_name(text: &str) -> Result<String> {
    if text.len() > 253 || text.chars().any(|c| c.is_control() || c.is_whitespace()) || text.is_empty() {
        bail!("not a node name; accepted: 1 to 253 characters without blanks");
    }
    Ok(text.to_owned())
}

pub(super) fn host_name() -> String {
    match nix::sys::utsname::uname() {
        Ok(names) => names.nodename().to_string_lossy().into_owned(),
        Err(_) => "localhost".to_owned(),
    }
}

/// Bytes, with a binary (`KiB`, `Ki`) or decimal (`kB`) suffix.
pub(super) fn bytes(text: &str) -> Result<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let unit: Option<u64> = match suffix.trim_start() {
        "" | "B" => Some(1),
        "kB" | "KB" => Some(1000),
        "MB" => Some(1000 * 1000),
        "GB" => Some(1000 * 1000 * 1000),
        "KiB" | "Ki" => Some(1 << 10),
        "MiB" | "Mi" => Some(1 << 20),
        "GiB" | "Gi" => Some(1 << 30),
        _ => None,
    };
    let value = digits.parse::<u64>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
    value.ok_or_else(|| anyhow!("not a size; accepted: such as 0, 4194304, 512KiB or 16MiB"))
}
