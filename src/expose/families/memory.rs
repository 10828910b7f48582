//! Kinds `memory`, `oom_event`, `hugetlb`, `pressure`, `memory_numa` and `cpuset`.

use super::MetricType::{Counter, Gauge};
use super::Source::{File, None as Absent};
use super::{Emit, Family, Row, Source, Sources, Unit, by_version};
use crate::expose::lines::{Label, Lines, Value, microseconds, number};
use crate::snapshot::{HugetlbStats, Kind, NumaPages, Pages, Reading};

const V2_ONLY: Source = Absent("the kernel counts it on cgroup v2 only");

const NO_HIGHEST: Source = Absent("cgroup v2 keeps no highest use of huge pages");

/// Pressure is kept by cgroup v2 trees; a hybrid host has one beside its
/// controllers.
const fn pressure(v2: &'static str, hybrid: &'static str) -> Sources {
    Sources { v1: File("/proc/pressure, for the root only"), v2: File(v2), hybrid: File(hybrid) }
}

/// Page faults. `container` is the cgroup alone: v1 tells that; v2 only tells
/// of the subtree, which is the same where nothing is below.
fn failures(row: &Row<'_>, out: &mut Lines<'_>) {
    let memory = &row.sample.memory;
    for (failure, own, subtree) in [
        ("pgfault", memory.pgfault_own, memory.pgfault),
        ("pgmajfault", memory.pgmajfault_own, memory.pgmajfault),
    ] {
        let own = own.or(if row.sample.leaf { subtree } else { None });
        for (scope, faults) in [("container", own), ("hierarchy", subtree)] {
            let labels = [("failure_type", Label::Word(failure)), ("scope", Label::Word(scope))];
            out.labelled(&labels, number(faults));
        }
    }
}

fn hugetlb(row: &Row<'_>, out: &mut Lines<'_>, figure: fn(&HugetlbStats) -> Reading) {
    for pages in &row.sample.hugetlb {
        out.labelled(&[("pagesize", Label::Text(&pages.page_size))], number(figure(pages)));
    }
}

/// As with faults, v2 tells of the subtree only.
fn numa(row: &Row<'_>, out: &mut Lines<'_>) {
    for NumaPages { node, own, subtree } in row.sample.extra.iter().flat_map(|extra| &extra.numa) {
        let both = |figure: fn(&Pages) -> Reading| {
            let subtree = figure(subtree);
            [figure(own).or(if row.sample.leaf { subtree } else { None }), subtree]
        };
        for (kind, pages) in
            [("file", both(|p| p.file)), ("anon", both(|p| p.anon)), ("unevictable", both(|p| p.unevictable))]
        {
            for (scope, pages) in ["container", "hierarchy"].into_iter().zip(pages) {
                let node = Label::Number(u64::from(*node));
                let labels = [("type", Label::Word(kind)), ("scope", Label::Word(scope)), ("node", node)];
                out.labelled(&labels, number(pages));
            }
        }
    }
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "container_memory_cache",
        help: "Page cache, with shared memory and tmpfs.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(File("memory.stat:total_cache"), File("memory.stat:file")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.cache))),
    },
    Family {
        name: "container_memory_rss",
        help: "Anonymous memory.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(File("memory.stat:total_rss"), File("memory.stat:anon")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.rss))),
    },
    Family {
        name: "container_memory_kernel_usage",
        help: "Memory the kernel uses for the container.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(File("memory.kmem.usage_in_bytes"), File("memory.stat:kernel (5.18)")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.kernel))),
    },
    Family {
        name: "container_memory_mapped_file",
        help: "Page cache that is mapped by processes.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(File("memory.stat:total_mapped_file"), File("memory.stat:file_mapped")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.mapped_file))),
    },
    Family {
        name: "container_memory_swap",
        help: "Swap in use.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(
            File("memory.stat:total_swap"),
            File("memory.swap.current; at the root /proc/meminfo:SwapTotal - SwapFree"),
        ),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.swap))),
    },
    Family {
        name: "container_memory_failcnt",
        help: "Times memory use hit the limit.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(File("memory.failcnt"), File("memory.events:max")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.failcnt))),
    },
    Family {
        name: "container_memory_usage_bytes",
        help: "Memory in use, with page cache and kernel memory.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(
            File("memory.usage_in_bytes"),
            File("memory.current; at the root memory.stat:anon + file"),
        ),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.usage))),
    },
    Family {
        name: "container_memory_max_usage_bytes",
        help: "Highest memory use so far.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(File("memory.max_usage_in_bytes"), File("memory.peak (5.19)")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.peak))),
    },
    Family {
        name: "container_memory_working_set_bytes",
        help: "Memory in use less file pages that were not used lately.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(
            File("memory.usage_in_bytes - memory.stat:total_inactive_file"),
            File("memory.current - memory.stat:inactive_file"),
        ),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.working_set))),
    },
    Family {
        name: "container_memory_total_active_file_bytes",
        help: "File pages used lately.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(File("memory.stat:total_active_file"), File("memory.stat:active_file")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.active_file))),
    },
    Family {
        name: "container_memory_total_inactive_file_bytes",
        help: "File pages not used lately.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(File("memory.stat:total_inactive_file"), File("memory.stat:inactive_file")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.inactive_file))),
    },
    Family {
        name: "container_memory_failures_total",
        help: "Page faults by type, of the cgroup alone and with those below it.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(
            File("memory.stat:pgfault, pgmajfault, total_pgfault, total_pgmajfault"),
            File("memory.stat:pgfault, pgmajfault; scope container only for cgroups without children"),
        ),
        emit: Emit::Cgroup(failures),
    },
    Family {
        name: "container_memory_events_high_total",
        help: "Times memory use went over the high mark.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(V2_ONLY, File("memory.events:high")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.events_high))),
    },
    Family {
        name: "container_memory_events_max_total",
        help: "Times memory use was about to go over the limit.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(V2_ONLY, File("memory.events:max")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.events_max))),
    },
    Family {
        name: "container_memory_file_dirty_bytes",
        help: "File pages that wait to be written.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(File("memory.stat:total_dirty"), File("memory.stat:file_dirty")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.dirty))),
    },
    Family {
        name: "container_memory_file_writeback_bytes",
        help: "File pages that are being written.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(File("memory.stat:total_writeback"), File("memory.stat:file_writeback")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.writeback))),
    },
    Family {
        name: "container_memory_pgscan_total",
        help: "Pages looked at to reclaim memory.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(V2_ONLY, File("memory.stat:pgscan")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.pgscan))),
    },
    Family {
        name: "container_memory_pgsteal_total",
        help: "Pages reclaimed.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(V2_ONLY, File("memory.stat:pgsteal")),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.pgsteal))),
    },
    Family {
        name: "container_memory_workingset_refault_file_total",
        help: "File pages read again soon after they were reclaimed.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(
            File("memory.stat:total_workingset_refault_file (5.9)"),
            File("memory.stat:workingset_refault_file (5.9)"),
        ),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.refault_file))),
    },
    Family {
        name: "container_memory_workingset_refault_anon_total",
        help: "Anonymous pages read again soon after they were reclaimed.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Memory),
        stamped: true,
        sources: by_version(
            File("memory.stat:total_workingset_refault_anon (5.9)"),
            File("memory.stat:workingset_refault_anon (5.9)"),
        ),
        emit: Emit::Cgroup(|row, out| out.sample(number(row.sample.memory.refault_anon))),
    },
    // cAdvisor's count goes with the container, so that a container that dies of
    // it is never seen to rise. Ours stays for ten minutes under the labels it had,
    // and for good on the pod's row, which is there before the first kill; and it
    // is each victim's own cgroup that counts, also when the machine ran short.
    Family {
        name: "container_oom_events_total",
        help: "Processes killed because memory ran out; of a pod or a container with all that is or was below it.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::OomEvent),
        stamped: true,
        sources: by_version(
            File("memory.oom_control:oom_kill (4.13), /dev/kmsg; the larger"),
            File(
                "memory.events.local:oom_kill (5.2), before that memory.events:oom_kill; /dev/kmsg; the larger",
            ),
        ),
        emit: Emit::CgroupAndGone(
            |row, out| out.sample(number(row.sample.memory.oom_kills)),
            |gone, out| out.sample(Some(Value::integer(gone.kills))),
        ),
    },
    Family {
        name: "container_hugetlb_failcnt",
        help: "Times huge pages hit the limit, by page size.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Hugetlb),
        stamped: true,
        sources: by_version(
            File("hugetlb.<size>.failcnt, of .rsvd where there is one"),
            File("hugetlb.<size>.events:max"),
        ),
        emit: Emit::Cgroup(|row, out| hugetlb(row, out, |h| h.failcnt)),
    },
    Family {
        name: "container_hugetlb_usage_bytes",
        help: "Huge pages in use, by page size.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Hugetlb),
        stamped: true,
        sources: by_version(
            File("hugetlb.<size>.usage_in_bytes, of .rsvd where there is one"),
            File("hugetlb.<size>.current, of .rsvd where there is one"),
        ),
        emit: Emit::Cgroup(|row, out| hugetlb(row, out, |h| h.usage)),
    },
    Family {
        name: "container_hugetlb_max_usage_bytes",
        help: "Most huge pages in use so far, by page size.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::Hugetlb),
        stamped: true,
        sources: by_version(
            File("hugetlb.<size>.max_usage_in_bytes, of .rsvd where there is one"),
            NO_HIGHEST,
        ),
        emit: Emit::Cgroup(|row, out| hugetlb(row, out, |h| h.max_usage)),
    },
    Family {
        name: "container_pressure_cpu_stalled_seconds_total",
        help: "Time in which all tasks waited for the CPU.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::Pressure),
        stamped: true,
        sources: pressure("cpu.pressure:full total (5.13)", "cpu.pressure:full total (5.13), in the v2 tree"),
        emit: Emit::Cgroup(|row, out| out.sample(microseconds(row.sample.pressure.cpu.full_usec))),
    },
    Family {
        name: "container_pressure_cpu_waiting_seconds_total",
        help: "Time in which some task waited for the CPU.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::Pressure),
        stamped: true,
        sources: pressure("cpu.pressure:some total (4.20)", "cpu.pressure:some total (4.20), in the v2 tree"),
        emit: Emit::Cgroup(|row, out| out.sample(microseconds(row.sample.pressure.cpu.some_usec))),
    },
    Family {
        name: "container_pressure_memory_stalled_seconds_total",
        help: "Time in which all tasks waited for memory.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::Pressure),
        stamped: true,
        sources: pressure(
            "memory.pressure:full total (4.20)",
            "memory.pressure:full total (4.20), in the v2 tree",
        ),
        emit: Emit::Cgroup(|row, out| out.sample(microseconds(row.sample.pressure.memory.full_usec))),
    },
    Family {
        name: "container_pressure_memory_waiting_seconds_total",
        help: "Time in which some task waited for memory.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::Pressure),
        stamped: true,
        sources: pressure(
            "memory.pressure:some total (4.20)",
            "memory.pressure:some total (4.20), in the v2 tree",
        ),
        emit: Emit::Cgroup(|row, out| out.sample(microseconds(row.sample.pressure.memory.some_usec))),
    },
    Family {
        name: "container_pressure_io_stalled_seconds_total",
        help: "Time in which all tasks waited for I/O.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::Pressure),
        stamped: true,
        sources: pressure("io.pressure:full total (4.20)", "io.pressure:full total (4.20), in the v2 tree"),
        emit: Emit::Cgroup(|row, out| out.sample(microseconds(row.sample.pressure.io.full_usec))),
    },
    Family {
        name: "container_pressure_io_waiting_seconds_total",
        help: "Time in which some task waited for I/O.",
        metric: Counter,
        unit: Unit::Seconds,
        kind: Some(Kind::Pressure),
        stamped: true,
        sources: pressure("io.pressure:some total (4.20)", "io.pressure:some total (4.20), in the v2 tree"),
        emit: Emit::Cgroup(|row, out| out.sample(microseconds(row.sample.pressure.io.some_usec))),
    },
    Family {
        name: "container_memory_numa_pages",
        help: "Pages by type on each NUMA node, of the cgroup alone and with those below it.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::MemoryNuma),
        stamped: true,
        sources: by_version(
            File("memory.numa_stat:file, anon, unevictable and hierarchical_*"),
            File(
                "memory.numa_stat:file, anon, unevictable by page size (5.10); scope container only for cgroups without children",
            ),
        ),
        emit: Emit::Cgroup(numa),
    },
    Family {
        name: "container_memory_migrate",
        help: "1 if pages move along when a cpuset gets other NUMA nodes.",
        metric: Gauge,
        unit: Unit::None,
        kind: Some(Kind::Cpuset),
        stamped: true,
        sources: by_version(
            File("cpuset.memory_migrate"),
            Absent("cgroup v2 always migrates and has no such setting"),
        ),
        emit: Emit::Cgroup(|row, out| {
            out.sample(row.sample.extra.as_ref().and_then(|e| number(e.memory_migrate)))
        }),
    },
    Family {
        name: "nodegauge_memory_events_total",
        help: "Events of memory limits and protections, by the kernel's names.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::MemoryEvents),
        stamped: true,
        sources: by_version(V2_ONLY, File("memory.events")),
        emit: Emit::Cgroup(|row, out| {
            let memory = &row.sample.memory;
            for (event, count) in [
                ("low", memory.events_low),
                ("high", memory.events_high),
                ("max", memory.events_max),
                ("oom", memory.events_oom),
                ("oom_kill", memory.events_oom_kill),
                ("oom_group_kill", memory.events_oom_group_kill),
            ] {
                out.labelled(&[("event", Label::Word(event))], number(count));
            }
        }),
    },
    Family {
        name: "nodegauge_memory_swap_events_total",
        help: "Events of swap limits, by the kernel's names.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::MemoryEvents),
        stamped: true,
        sources: by_version(V2_ONLY, File("memory.swap.events")),
        emit: Emit::Cgroup(|row, out| {
            let memory = &row.sample.memory;
            for (event, count) in [
                ("high", memory.swap_events_high),
                ("max", memory.swap_events_max),
                ("fail", memory.swap_events_fail),
            ] {
                out.labelled(&[("event", Label::Word(event))], number(count));
            }
        }),
    },
];
