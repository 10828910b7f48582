//! Kinds `cpu`, `percpu`, `cpuLoad`, `process` and `sched`.

use super::MetricType::{Counter, Gauge};
use super::Source::{File, None as Absent};
use super::{Emit, Family, Row, Source, Sources, Unit, by_version, everywhere};
use crate::expose::lines::{Label, Lines, Value, microseconds, nanoseconds, number};
use crate::snapshot::{Kind, Limit, reading};

const NO_TASK_STATES: Source = Absent("the kernel counts task states on cgroup v1 only");

/// Threads are those that `tasks` (v1) and `cgroup.threads` (v2) name.
const RUN: Source =
    File("/proc/<tid>/schedstat field 1, of all threads; at the root /proc/schedstat field 7");
const WAIT: Source =
    File("/proc/<tid>/schedstat field 2, of all threads; at the root /proc/schedstat field 8");
const SLICES: Source =
    File("/proc/<tid>/schedstat field 3, of all threads; at the root /proc/schedstat field 9");

/// On a hybrid host a cgroup without a `cpuacct` directory may still be in the
/// v2 tree, whose `cpu.stat` tells the time used.
const fn time_used(v1: Source, v2: Source) -> Sources {
    Sources {
        hybrid: File("as on v1; cpu.stat of the v2 tree where there is no cpuacct"),
        ..by_version(v1, v2)
    }
}

/// CPU time allowed in each period, where it is limited.
pub(super) fn quota(row: &Row<'_>) -> Option<u64> {
    row.sample.spec.cpu_quota_usec.and_then(Limit::value)
}

/// The CPU shares from which a runtime made `weight`.
///
/// The inverse of the mapping that runtimes use since 2025,
/// `weight = ceil(10^((l^2 + 125 l) / 612 - 7/34))` with `l = log2(shares)`.
/// Rounding up makes several shares one weight; the highest of them comes back,
/// so 1024 shares (weight 100) stay 1024. Shares are 2 to 262144.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "weights are at most 10000 and the result is clamped to 2..=262144"
)]
pub fn shares_of_weight(weight: u64) -> u64 {
    let exponent = (weight.clamp(1, 10_000) as f64).log10() + 7.0 / 34.0;
    let l = ((125.0f64 * 125.0 + 4.0 * 612.0 * exponent).sqrt() - 125.0) / 2.0;
    // The inverse of a whole number of shares may come out a little below it.
    const ROUNDING: f64 = 1e-11;
    (l.exp2() * (1.0 + ROUNDING)).clamp(2.0, 262_144.0) as u64
}

/// A figure of throttling: only where there is a quota, without one they are all 0.
fn throttling(row: &Row<'_>, out: &mut Lines<'_>, value: Option<Value>) {
    if quota(row).is_some() {
        out.sample(value);
    }
}

fn usage(row: &Row<'_>, out: &mut Lines<'_>) {
    let cpu = &row.sample.cpu;
    if !row.kinds.has(Kind::Percpu) || cpu.per_cpu_ns.is_empty() {
        return out.labelled(&[("cpu", Label::Word("total"))], nanoseconds(cpu.usage_ns));
    }
    for (number, &ns) in cpu.per_cpu_ns.iter().enumerate() {
        // Possible CPUs that are not there have 0 for ever.
        if ns != 0 {
            out.labelled(&[("cpu", Label::Cpu(number))], nanoseconds(reading(ns)));
        }
    }
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "container_cpu_user_seconds_total",
        help: "CPU time spent in user mode.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::Cpu),
        stamped: true,
        sources: time_used(File("cpuacct.stat:user"), File("cpu.stat:user_usec")),
        emit: Emit::Cgroup(|row, out| out.sample(nanoseconds(row.sample.cpu.user_ns))),
    },
    Family {
        name: "container_cpu_system_seconds_total",
        help: "CPU time spent in the kernel.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::Cpu),
        stamped: true,
        sources: time_used(File("cpuacct.stat:system"), File("cpu.stat:system_usec")),
        emit: Emit::Cgroup(|row, out| out.sample(nanoseconds(row.sample.cpu.system_ns))),
    },
    Family {
        name: "container_cpu_usage_seconds_total",
        help: "CPU time used, in total or by CPU.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::Cpu),
        stamped: true,
        sources: time_used(
            File("cpuacct.usage; with percpu cpuacct.usage_percpu"),
            File("cpu.stat:usage_usec"),
        ),
        emit: Emit::Cgroup(usage),
    },
    Family {
        name: "container_cpu_cfs_periods_total",
        help: "Enforcement periods of the CPU quota that have passed.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Cpu),
        stamped: true,
        sources: everywhere(File("cpu.stat:nr_periods")),
        emit: Emit::Cgroup(|row, out| throttling(row, out, number(row.sample.cpu.periods))),
    },
    Family {
        name: "container_cpu_cfs_throttled_periods_total",
        help: "Enforcement periods in which the container was held back.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Cpu),
        stamped: true,
        sources: everywhere(File("cpu.stat:nr_throttled")),
        emit: Emit::Cgroup(|row, out| throttling(row, out, number(row.sample.cpu.throttled_periods))),
    },
    Family {
        name: "container_cpu_cfs_throttled_seconds_total",
        help: "Time for which the container was held back by its CPU quota.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::Cpu),
        stamped: true,
        sources: by_version(File("cpu.stat:throttled_time"), File("cpu.stat:throttled_usec")),
        emit: Emit::Cgroup(|row, out| throttling(row, out, nanoseconds(row.sample.cpu.throttled_ns))),
    },
    Family {
        name: "container_cpu_cfs_burst_periods_total",
        help: "Enforcement periods in which the container used saved-up CPU time.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Cpu),
        stamped: true,
        sources: everywhere(File("cpu.stat:nr_bursts (5.14)")),
        emit: Emit::Cgroup(|row, out| throttling(row, out, number(row.sample.cpu.burst_periods))),
    },
    Family {
        name: "container_cpu_cfs_burst_seconds_total",
        help: "Saved-up CPU time used beyond the quota.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::Cpu),
        stamped: true,
        sources: by_version(File("cpu.stat:burst_time (5.14)"), File("cpu.stat:burst_usec (5.14)")),
        emit: Emit::Cgroup(|row, out| throttling(row, out, nanoseconds(row.sample.cpu.burst_ns))),
    },
    Family {
        name: "container_cpu_load_average_10s",
        help: "Running tasks, smoothed over 10 s, times 1000.",
        metric: Gauge,
        unit: Unit::None,
        kind: Some(Kind::CpuLoad),
        stamped: true,
        sources: by_version(File("cgroupstats over netlink: nr_running"), NO_TASK_STATES),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.load.load_milli))),
    },
    Family {
        name: "container_cpu_load_d_average_10s",
        help: "Tasks in uninterruptible sleep, smoothed over 10 s, times 1000.",
        metric: Gauge,
        unit: Unit::None,
        kind: Some(Kind::CpuLoad),
        stamped: true,
        sources: by_version(File("cgroupstats over netlink: nr_uninterruptible"), NO_TASK_STATES),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.load.load_d_milli))),
    },
    Family {
        name: "container_tasks_state",
        help: "Tasks of this cgroup alone by state.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::CpuLoad),
        stamped: true,
        sources: by_version(File("cgroupstats over netlink"), NO_TASK_STATES),
        emit: Emit::Cgroup(|row, out| {
            let load = &row.sample.load;
            for (state, tasks) in [
                ("sleeping", load.sleeping),
                ("running", load.running),
                ("stopped", load.stopped),
                ("uninterruptible", load.uninterruptible),
                ("iowaiting", load.io_waiting),
            ] {
                out.labelled(&[("state", Label::Word(state))], number(tasks));
            }
        }),
    },
    Family {
        name: "container_processes",
        help: "Processes of this cgroup alone.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::Process),
        stamped: true,
        sources: everywhere(File("cgroup.procs, lines")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.process.processes))),
    },
    Family {
        name: "container_threads",
        help: "Threads of this cgroup and those below it.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::Process),
        stamped: true,
        sources: everywhere(File("pids.current")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.process.threads))),
    },
    Family {
        name: "container_threads_max",
        help: "Threads the container may have; 0 is unlimited.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::Process),
        stamped: true,
        sources: everywhere(File("pids.max")),
        emit: Emit::Cgroup(|row, out| {
            let max = row.sample.spec.threads_max;
            out.sample(max.map(|m| Value::integer(m.value().unwrap_or(0))));
        }),
    },
    Family {
        name: "container_file_descriptors",
        help: "Open file descriptors of the processes of this cgroup.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::Process),
        stamped: true,
        sources: everywhere(File("/proc/<pid>/fd of the pids in cgroup.procs")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.process.file_descriptors))),
    },
    Family {
        name: "container_sockets",
        help: "Open sockets of the processes of this cgroup.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::Process),
        stamped: true,
        sources: everywhere(File("/proc/<pid>/fd of the pids in cgroup.procs, links to sockets")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.process.sockets))),
    },
    Family {
        name: "container_ulimits_soft",
        help: "Soft limit of the container's oldest process; -1 is unlimited.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::Process),
        stamped: true,
        sources: everywhere(File("/proc/<pid>/limits:Max open files")),
        emit: Emit::Cgroup(|row, out| {
            let soft = row.sample.process.max_open_files;
            let value = soft.map(|l| l.value().map_or(Value::MINUS_ONE, Value::integer));
            out.labelled(&[("ulimit", Label::Word("max_open_files"))], value);
        }),
    },
    Family {
        name: "container_cpu_schedstat_run_seconds_total",
        help: "Time that threads spent on a CPU, as the scheduler counts it.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::Sched),
        stamped: true,
        sources: everywhere(RUN),
        emit: Emit::Cgroup(|row, out| {
            out.sample(row.sample.extra.as_ref().and_then(|e| nanoseconds(e.sched.run_ns)))
        }),
    },
    Family {
        name: "container_cpu_schedstat_runqueue_seconds_total",
        help: "Time that threads waited for a CPU.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::Sched),
        stamped: true,
        sources: everywhere(WAIT),
        emit: Emit::Cgroup(|row, out| {
            out.sample(row.sample.extra.as_ref().and_then(|e| nanoseconds(e.sched.wait_ns)))
        }),
    },
    Family {
        name: "container_cpu_schedstat_run_periods_total",
        help: "Time slices that threads ran.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Sched),
        stamped: true,
        sources: everywhere(SLICES),
        emit: Emit::Cgroup(|row, out| {
            out.sample(row.sample.extra.as_ref().and_then(|e| number(e.sched.slices)))
        }),
    },
    Family {
        name: "nodegauge_cpu_throttled_ratio",
        help: "How long threads were held back by the CPU quota, of that and the time they ran, between the last two collections on the grid.",
        metric: Gauge,
        unit: Unit::None,
        kind: Some(Kind::Cpu),
        stamped: true,
        sources: by_version(
            File("cpu.stat:throttled_time and cpuacct.usage, between two ticks"),
            File("cpu.stat:throttled_usec and usage_usec, between two ticks"),
        ),
        emit: Emit::Cgroup(|row, out| {
            throttling(row, out, microseconds(row.sample.cpu.throttled_millionths))
        }),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The mapping of the runtimes, as they write it.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn weight_of_shares(shares: u64) -> u64 {
        let l = (shares as f64).log2();
        (10f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0) - 1e-9).ceil() as u64
    }

    #[test]
    fn shares_come_back_from_weights() {
        assert_eq!(shares_of_weight(0), 2);
        assert_eq!(shares_of_weight(1), 2);
        assert_eq!(shares_of_weight(100), 1024);
        assert_eq!(shares_of_weight(10_000), 262_144);
        assert_eq!(shares_of_weight(u64::MAX), 262_144);
        let mut last = 0;
        for weight in 1..=10_000 {
            let shares = shares_of_weight(weight);
            assert!(shares >= last && (2..=262_144).contains(&shares), "{weight} gives {shares}");
            last = shares;
        }
    }

    #[test]
    fn the_shares_that_come_back_make_the_same_weight() {
        for shares in (2..=262_144).step_by(7) {
            let weight = weight_of_shares(shares);
            let back = shares_of_weight(weight);
            assert!(back >= shares, "{shares} became {weight} and {back}");
            assert_eq!(weight_of_shares(back), weight, "{shares} became {weight} and {back}");
        }
    }
}
