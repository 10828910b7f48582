//! A process as `ps` writes it, in cAdvisor's JSON, version 2.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::LocalTime;
use crate::snapshot::{Process, Snapshot};

/// One process.
#[derive(Debug, Serialize)]
pub struct ProcessInfo {
    user: String,
    pid: u32,
    parent_pid: u32,
    start_time: String,
    percent_cpu: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent_mem: Option<f32>,
    rss: u64,
    virtual_size: u64,
    status: String,
    running_time: String,
    cgroup_path: String,
    cmd: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fd_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psr: Option<u32>,
}

/// Tenths of a percent, as percent: what `ps` shows.
fn percent(part: u128, whole: u128) -> Option<f32> {
    let tenths = part.checked_mul(1_000)?.checked_div(whole)?;
    // Exact: beyond this nobody cares.
    Some(f32::from(u16::try_from(tenths).unwrap_or(u16::MAX)) / 10.0)
}

impl ProcessInfo {
    /// A process on the machine of `snapshot`, which is in `zone`. The cgroup is told only
    /// where it may be another than was asked for.
    pub fn of(process: Process, snapshot: &Snapshot, zone: &LocalTime, with_cgroup: bool) -> ProcessInfo {
        let local = |at: u64| at.saturating_add_signed(zone(at));
        let now = local(snapshot.wall_ms / 1_000);
        let memory = snapshot.machine.memory_bytes.map(|bytes| u128::from(bytes.get()));
        ProcessInfo {
            user: process.user,
            pid: process.pid,
            parent_pid: process.parent_pid,
            start_time: process.started.map(|at| started(local(at), now)).unwrap_or_default(),
            percent_cpu: percent(u128::from(process.cpu_hundredths), u128::from(process.age_seconds) * 100)
                .unwrap_or(0.0),
            percent_mem: memory.and_then(|all| percent(u128::from(process.rss_bytes), all)),
            rss: process.rss_bytes,
            virtual_size: process.virtual_bytes,
            status: process.status,
            running_time: running(process.cpu_hundredths / 100),
            cgroup_path: if with_cgroup { process.cgroup } else { String::new() },
            cmd: process.command,
            fd_count: process.descriptors,
            psr: process.processor,
        }
    }
}

/// `ps`'s STIME, of local times: the time of today, the day of this year, or the year.
fn started(at: u64, now: u64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // Four digits of a year at most.
    let text = |seconds: u64| {
        let time = UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799));
        humantime::format_rfc3339_seconds(time).to_string()
    };
    let (at, now) = (text(at), text(now));
    let part = |from: usize, to: usize| at.get(from..to).unwrap_or_default().to_owned();
    if at.get(..10) == now.get(..10) {
        return part(11, 16);
    }
    if at.get(..4) == now.get(..4) {
        let month = part(5, 7).parse::<usize>().ok().and_then(|n| MONTHS.get(n.checked_sub(1)?));
        return format!("{}{}", month.unwrap_or(&""), part(8, 10));
    }
    part(0, 4)
}

/// `ps`'s TIME: CPU used, as `[DD-]HH:MM:SS`.
fn running(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let time = format!("{:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60);
    if days > 0 { format!("{days:02}-{time}") } else { time }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_ps_writes_them() {
        // 2026-08-20T12:44:28Z
        let now = 1_787_229_868;
        assert_eq!(started(now - 60, now), "12:43");
        assert_eq!(started(now - 86_400, now), "Aug19");
        assert_eq!(started(now - 400 * 86_400, now), "2025");
        assert_eq!((running(59).as_str(), running(3_661).as_str()), ("00:00:59", "01:01:01"));
        assert_eq!(running(2 * 86_400 + 1), "02-00:00:01");
    }

    #[test]
    fn shares_have_one_digit() {
        assert_eq!((percent(1, 3), percent(2, 1), percent(1, 0)), (Some(33.3), Some(200.0), None));
    }
}
