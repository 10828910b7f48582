//! What is said of the scrape and of each cgroup whatever is switched on: when
//! it was seen, when it began, what it is allowed.

use super::MetricType::Gauge;
use super::Source::File;
use super::{Emit, Family, Unit, by_version, cpu, everywhere};
use crate::expose::lines::{Label, Value, number};
use crate::snapshot::{Health, Limit};

/// A limit as cAdvisor writes it: 0 is unlimited.
fn limit(limit: Option<Limit>) -> Option<Value> {
    limit.map(|l| Value::integer(l.value().unwrap_or(0)))
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "cadvisor_version_info",
        help: "Versions of the kernel, the operating system and this agent; always 1.",
        metric: Gauge,
        unit: Unit::None,
        kind: None,
        stamped: false,
        sources: everywhere(File("/proc/sys/kernel/osrelease; the host's os-release:PRETTY_NAME")),
        emit: Emit::Scrape(|snapshot, out| {
            let labels = [
                ("kernelVersion", Label::Text(&snapshot.machine.kernel_version)),
                ("osVersion", Label::Text(&snapshot.machine.os_version)),
                ("dockerVersion", Label::Word("")),
                ("cadvisorVersion", Label::Word(env!("CARGO_PKG_VERSION"))),
                ("cadvisorRevision", Label::Word("")),
            ];
            out.labelled(&labels, Some(Value::integer(1)));
        }),
    },
    Family {
        name: "container_scrape_error",
        help: "1 if no cgroup could be listed, 0 otherwise.",
        metric: Gauge,
        unit: Unit::None,
        kind: None,
        stamped: false,
        sources: everywhere(File("the tick itself")),
        emit: Emit::Scrape(|snapshot, out| {
            // The root is always among them, so none means that the walk failed.
            out.sample(Some(Value::integer(u64::from(snapshot.cgroups.is_empty()))));
        }),
    },
    Family {
        name: "container_last_seen",
        help: "When the cgroup was last read, as Unix time.",
        metric: Gauge,
        unit: Unit::Seconds,
        kind: None,
        stamped: true,
        sources: everywhere(File("wall clock of the tick; of what is gone, of its last reading")),
        emit: Emit::Cgroup(|row, out| out.sample(Some(Value::integer(row.seen_ms / 1000)))),
    },
    Family {
        name: "container_health_state",
        help: "Result of the container's health check: 1 healthy, 0 starting or unhealthy, -1 without one.",
        metric: Gauge,
        unit: Unit::None,
        kind: None,
        stamped: true,
        // Nothing but a container of Docker's or Podman's has such a check.
        sources: everywhere(File("Docker's and Podman's State.Health.Status; -1 elsewhere")),
        emit: Emit::Cgroup(|row, out| {
            out.sample(Some(match row.sample.cgroup.identity.health {
                Some(Health::Healthy) => Value::integer(1),
                Some(Health::Starting | Health::Unhealthy) => Value::integer(0),
                None => Value::MINUS_ONE,
            }));
        }),
    },
    Family {
        name: "container_creation_time_seconds",
        help: "When the cgroup was created, as Unix time.",
        metric: Gauge,
        unit: Unit::Seconds,
        kind: None,
        stamped: false,
        sources: by_version(
            File("mtime of the directory and of cgroup.clone_children"),
            File("mtime of the directory and of cgroup.events"),
        ),
        emit: Emit::Cgroup(|row, out| out.sample(row.sample.cgroup.created.map(Value::integer))),
    },
    Family {
        name: "container_start_time_seconds",
        help: "When the container was started, as Unix time.",
        metric: Gauge,
        unit: Unit::Seconds,
        kind: None,
        stamped: false,
        sources: by_version(
            File(
                "Docker's and Podman's State.StartedAt; else mtime of the directory and of cgroup.clone_children",
            ),
            File("Docker's and Podman's State.StartedAt; else mtime of the directory and of cgroup.events"),
        ),
        emit: Emit::Cgroup(|row, out| {
            let cgroup = &row.sample.cgroup;
            let told = cgroup.identity.started_ns.filter(|_| cgroup.identity.start_is_told);
            out.sample(told.map(|ns| ns / 1_000_000_000).or(cgroup.created).map(Value::integer));
        }),
    },
    Family {
        name: "container_spec_cpu_period",
        help: "Period over which the CPU quota is given, in microseconds.",
        metric: Gauge,
        unit: Unit::Microseconds,
        kind: None,
        stamped: false,
        sources: by_version(File("cpu.cfs_period_us"), File("cpu.max, second field")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.spec.cpu_period_usec))),
    },
    Family {
        name: "container_spec_cpu_quota",
        help: "CPU time allowed in each period, in microseconds; only where it is limited.",
        metric: Gauge,
        unit: Unit::Microseconds,
        kind: None,
        stamped: false,
        sources: by_version(File("cpu.cfs_quota_us"), File("cpu.max, first field")),
        emit: Emit::Cgroup(|row, out| out.sample(cpu::quota(row).map(Value::integer))),
    },
    Family {
        name: "container_spec_cpu_shares",
        help: "Share of CPU time against siblings; on cgroup v2 computed back from the weight.",
        metric: Gauge,
        unit: Unit::Count,
        kind: None,
        stamped: false,
        sources: by_version(File("cpu.shares"), File("cpu.weight")),
        emit: Emit::Cgroup(|row, out| {
            let spec = &row.sample.spec;
            let of_weight = || spec.cpu_weight.map(|w| Value::integer(cpu::shares_of_weight(w.get())));
            out.sample(number(spec.cpu_shares).or_else(of_weight));
        }),
    },
    Family {
        name: "container_spec_memory_limit_bytes",
        help: "Memory the container may use; 0 is unlimited, the root has the machine's memory.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: None,
        stamped: false,
        sources: by_version(
            File("memory.limit_in_bytes; at the root /proc/meminfo:MemTotal"),
            File("memory.max; at the root /proc/meminfo:MemTotal"),
        ),
        emit: Emit::Cgroup(|row, out| out.sample(limit(row.sample.spec.memory_limit))),
    },
    Family {
        name: "container_spec_memory_swap_limit_bytes",
        help: "Swap the container may use, on cgroup v1 memory and swap together; 0 is unlimited.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: None,
        stamped: false,
        sources: by_version(
            File("memory.memsw.limit_in_bytes; at the root /proc/meminfo:SwapTotal"),
            File("memory.swap.max; at the root /proc/meminfo:SwapTotal"),
        ),
        emit: Emit::Cgroup(|row, out| out.sample(limit(row.sample.spec.memory_swap_limit))),
    },
    Family {
        name: "container_spec_memory_reservation_limit_bytes",
        help: "Memory that is spared when the machine runs short; 0 is none.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: None,
        stamped: false,
        sources: by_version(File("memory.soft_limit_in_bytes"), File("memory.low")),
        emit: Emit::Cgroup(|row, out| out.sample(limit(row.sample.spec.memory_reservation))),
    },
];
