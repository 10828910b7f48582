//! What collection came to, told from the report of the last tick.

use std::sync::{Arc, Mutex};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{Families, Ticks, Written, float, lock};
use crate::collect::{BetweenCounts, CollectorReport, LogCounts, LogState};
use crate::kernel::problems::Problem;

/// Families from the report of the last tick.
#[derive(Debug)]
pub(super) struct Collection {
    pub(super) ticks: Arc<Mutex<Ticks>>,
}

impl Collector for Collection {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Written {
        let ticks = lock(&self.ticks);
        let report = &ticks.report;
        let mut f = Families(encoder);
        let origins = [(vec![("origin", "grid")], ticks.grid), (vec![("origin", "fresh")], ticks.fresh)];
        f.counters(
            "nodegauge_ticks",
            "Collections, on the grid of the interval or asked for by a scrape.",
            &mut origins.into_iter().map(|(labels, n)| (labels, float(n))),
        )?;
        f.counter(
            "nodegauge_ticks_late",
            "Collections that began 50 ms or more after their moment on the grid.",
            Some(float(ticks.late)),
        )?;
        f.counter(
            "nodegauge_ticks_missed",
            "Moments of the grid that passed without a collection.",
            Some(float(ticks.missed)),
        )?;
        f.gauge(
            "nodegauge_last_tick_age_seconds",
            "Time since the end of the last collection.",
            ticks.last.map(|at| at.elapsed().as_secs_f64()),
        )?;
        if ticks.last.is_none() {
            return Ok(());
        }
        collectors(&mut f, &report.collectors)?;

        let tree = &report.tree;
        f.gauge("nodegauge_cgroups", "Cgroups in the last collection.", Some(float(report.cgroups)))?;
        f.gauge(
            "nodegauge_cgroups_over_limit",
            "Cgroups not followed because of --max-cgroups.",
            Some(float(tree.over_limit)),
        )?;
        f.counter("nodegauge_cgroups_appeared", "Cgroups that appeared.", Some(float(tree.appeared)))?;
        f.counter("nodegauge_cgroups_vanished", "Cgroups that vanished.", Some(float(tree.vanished)))?;
        f.counter(
            "nodegauge_cgroups_vanished_while_read",
            "Cgroups that vanished while they were read, and were left out of that collection.",
            Some(float(report.vanished_in_tick)),
        )?;
        f.counter(
            "nodegauge_cgroup_directories_unreadable",
            "Cgroup directories that could not be listed.",
            Some(float(tree.unreadable)),
        )?;
        let handles = &report.handles;
        let held =
            [(vec![("kind", "file")], handles.files), (vec![("kind", "directory")], handles.directories)];
        f.gauges(
            "nodegauge_handles",
            "Handles held into the cgroup filesystem.",
            &mut held.into_iter().map(|(labels, n)| (labels, float(n))),
        )?;
        f.gauge(
            "nodegauge_file_handles_limit",
            "File handles that fit --handle-memory and the descriptor limit.",
            Some(float(handles.max_files)),
        )?;
        f.gauge(
            "nodegauge_inotify_watches",
            "Directories watched; 0 when changes are found by polling.",
            Some(float(tree.watches)),
        )?;
        f.counter(
            "nodegauge_inotify_overflows",
            "Times the kernel dropped events.",
            Some(float(tree.overflows + report.between.ends.overflows)),
        )?;
        between(&mut f, &report.between)?;
        kernel_log(&mut f, &report.log)
    }
}

fn between(f: &mut Families<'_>, between: &BetweenCounts) -> Written {
    let readings = [("early", between.early), ("last", between.last)];
    f.counters(
        "nodegauge_container_readings",
        "Readings of single containers between collections: while they are young, and when their last process has ended.",
        &mut readings.into_iter().map(|(when, count)| (vec![("when", when)], float(count))),
    )?;
    f.counter(
        "nodegauge_container_readings_skipped",
        "Readings between collections that were left out because others had used up their share of CPU.",
        Some(float(between.skipped)),
    )?;
    f.gauge(
        "nodegauge_container_end_watches",
        "Containers and pods whose end the kernel tells; 0 on cgroup v1 without a v2 tree.",
        Some(float(between.ends.watches)),
    )
}

/// Nothing where the log is not asked for.
fn kernel_log(f: &mut Families<'_>, log: &LogCounts) -> Written {
    if log.state == LogState::Unused {
        return Ok(());
    }
    f.gauge(
        "nodegauge_kernel_log_readable",
        "1 if the kernel's log is read for OOM kills, 0 if it cannot be.",
        Some(f64::from(u8::from(log.state == LogState::Read))),
    )?;
    f.counter("nodegauge_kernel_log_records", "Records read of the kernel's log.", Some(float(log.records)))?;
    f.counter(
        "nodegauge_kernel_log_overruns",
        "Times the kernel overwrote records before they were read.",
        Some(float(log.overruns)),
    )?;
    f.counter(
        "nodegauge_kernel_log_records_lost",
        "Records overwritten before they were read.",
        Some(float(log.missed)),
    )?;
    f.counter("nodegauge_oom_kills_logged", "OOM kills found in the kernel's log.", Some(float(log.kills)))?;
    f.counter(
        "nodegauge_oom_kills_unattributed",
        "OOM kills in the kernel's log whose cgroup is not told or not known here.",
        Some(float(log.unplaced)),
    )?;
    // Where the log was never read nothing is known of them.
    if log.state != LogState::Read && log.records == 0 {
        return Ok(());
    }
    f.counters(
        "nodegauge_kernel_problems",
        "Lines of the kernel's log that tell of a problem of the machine, by node-problem-detector's reasons.",
        &mut Problem::ALL
            .iter()
            .zip(&log.problems)
            .map(|(problem, count)| (vec![("reason", problem.reason())], float(*count))),
    )
}

fn collectors(f: &mut Families<'_>, collectors: &[CollectorReport]) -> Written {
    let labelled = |value: fn(&CollectorReport) -> f64| {
        collectors.iter().map(move |c| (vec![("collector", c.name)], value(c)))
    };
    f.gauges(
        "nodegauge_collector_last_pass_seconds",
        "Duration of a collector's last pass over all cgroups.",
        &mut labelled(|c| c.last.as_secs_f64()),
    )?;
    f.counters(
        "nodegauge_collector_seconds",
        "Duration of all passes of a collector.",
        &mut labelled(|c| c.total.as_secs_f64()),
    )?;
    f.counters("nodegauge_collector_passes", "Passes of a collector.", &mut labelled(|c| float(c.passes)))?;
    let errors = collectors.iter().flat_map(|c| {
        let e = c.errors;
        [
            ("denied", e.denied),
            ("malformed", e.malformed),
            ("exhausted", e.exhausted),
            ("too_large", e.too_large),
            ("os", e.os),
        ]
        .map(|(reason, count)| (vec![("collector", c.name), ("reason", reason)], float(count)))
    });
    f.counters(
        "nodegauge_collector_errors",
        "Files a collector could not read or parse although they should be there.",
        &mut { errors },
    )
}
