//! The machine, whatever is switched on, and kind `cpu_topology`.

use super::MetricType::Gauge;
use super::Source::{File, None as Absent};
use super::{Emit, Family, Source, Unit, everywhere};
use crate::expose::lines::{Label, Lines, Value, number};
use crate::snapshot::{Cache, Dimm, Kind, Machine, Snapshot};

const NO_NVM: Source = Absent("the firmware tells it to libipmctl only, which cAdvisor itself gave up");

/// Every kernel tells the CPUs and the memory, so one that does not was not read.
fn scrape_error(snapshot: &Snapshot, out: &mut Lines<'_>) {
    let Machine { cores, memory_bytes, .. } = &*snapshot.machine;
    out.sample(Some(Value::integer(u64::from(cores.is_none() || memory_bytes.is_none()))));
}

fn dimms(machine: &Machine, out: &mut Lines<'_>, figure: fn(&Dimm) -> u64) {
    for dimm in &machine.dimms {
        out.labelled(&[("type", Label::Text(&dimm.kind))], Some(Value::integer(figure(dimm))));
    }
}

fn cache(out: &mut Lines<'_>, node: u32, core: Option<u32>, cache: &Cache) {
    let labels = [
        ("node_id", Label::Number(u64::from(node))),
        ("core_id", core.map_or(Label::Word(""), |core| Label::Number(u64::from(core)))),
        ("type", Label::Text(&cache.kind)),
        ("level", Label::Number(u64::from(cache.level))),
    ];
    out.labelled(&labels, Some(Value::integer(cache.size_bytes)));
}

/// Labels tell neither sockets nor dies, so of cores and caches that are called the same
/// only the first is shown. Caches of some cores have no row in cAdvisor either.
fn caches(machine: &Machine, out: &mut Lines<'_>) {
    let same = |a: &Cache, b: &Cache| (&a.kind, a.level) == (&b.kind, b.level);
    for node in &machine.hardware.nodes {
        for (at, core) in node.cores.iter().enumerate() {
            if node.cores.iter().take(at).any(|other| other.id == core.id) {
                continue;
            }
            core.caches.iter().for_each(|c| cache(out, node.id, Some(core.id), c));
        }
        for (at, of_node) in node.caches.iter().enumerate() {
            if !node.caches.iter().take(at).any(|other| same(other, of_node)) {
                cache(out, node.id, None, of_node);
            }
        }
    }
}

fn siblings(machine: &Machine, out: &mut Lines<'_>) {
    for node in &machine.hardware.nodes {
        for core in &node.cores {
            for thread in &core.threads {
                let labels = [("node_id", node.id), ("core_id", core.id), ("thread_id", *thread)];
                let labels = labels.map(|(name, id)| (name, Label::Number(u64::from(id))));
                out.labelled(&labels, Some(Value::integer(core.threads.len() as u64)));
            }
        }
    }
}

fn node_memory(machine: &Machine, out: &mut Lines<'_>) {
    for node in &machine.hardware.nodes {
        out.labelled(
            &[("node_id", Label::Number(u64::from(node.id)))],
            node.memory_bytes.map(Value::integer),
        );
    }
}

fn node_hugepages(machine: &Machine, out: &mut Lines<'_>) {
    for node in &machine.hardware.nodes {
        for pages in &node.hugepages {
            let id = Label::Number(u64::from(node.id));
            let labels = [("node_id", id), ("page_size", Label::Number(pages.page_kib))];
            out.labelled(&labels, Some(Value::integer(pages.count)));
        }
    }
}

/// The kernel writes the distances to the nodes that are online, in their order.
fn distances(machine: &Machine, out: &mut Lines<'_>) {
    let nodes = &machine.hardware.nodes;
    for node in nodes {
        for (target, distance) in nodes.iter().zip(&node.distances) {
            let labels = [("node_id", node.id), ("target_node_id", target.id)];
            let labels = labels.map(|(name, id)| (name, Label::Number(u64::from(id))));
            out.labelled(&labels, Some(Value::integer(*distance)));
        }
    }
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "machine_scrape_error",
        help: "1 if the machine could not be looked at, 0 otherwise.",
        metric: Gauge,
        unit: Unit::None,
        kind: None,
        stamped: false,
        sources: everywhere(File("/proc/meminfo; /sys/devices/system/cpu")),
        emit: Emit::Scrape(scrape_error),
    },
    Family {
        name: "machine_cpu_physical_cores",
        help: "Physical cores.",
        metric: Gauge,
        unit: Unit::Count,
        kind: None,
        stamped: true,
        sources: everywhere(File("/sys/devices/system/cpu/cpu*/topology, distinct pairs of socket and core")),
        emit: Emit::Machine(|machine, out| out.sample(number(machine.physical_cores))),
    },
    Family {
        name: "machine_cpu_cores",
        help: "Logical CPUs that are online.",
        metric: Gauge,
        unit: Unit::Count,
        kind: None,
        stamped: true,
        sources: everywhere(File("/sys/devices/system/cpu/online")),
        emit: Emit::Machine(|machine, out| out.sample(number(machine.cores))),
    },
    Family {
        name: "machine_cpu_sockets",
        help: "CPU sockets.",
        metric: Gauge,
        unit: Unit::Count,
        kind: None,
        stamped: true,
        sources: everywhere(File("/sys/devices/system/cpu/cpu*/topology/physical_package_id")),
        emit: Emit::Machine(|machine, out| out.sample(number(machine.sockets))),
    },
    Family {
        name: "machine_cpu_books",
        help: "CPU books, a unit of s390x.",
        metric: Gauge,
        unit: Unit::Count,
        kind: None,
        stamped: true,
        sources: everywhere(File("/sys/devices/system/cpu/cpu*/topology/book_id (s390x)")),
        emit: Emit::Machine(|machine, out| out.sample(number(machine.books))),
    },
    Family {
        name: "machine_cpu_drawers",
        help: "CPU drawers, a unit of s390x.",
        metric: Gauge,
        unit: Unit::Count,
        kind: None,
        stamped: true,
        sources: everywhere(File("/sys/devices/system/cpu/cpu*/topology/drawer_id (s390x)")),
        emit: Emit::Machine(|machine, out| out.sample(number(machine.drawers))),
    },
    Family {
        name: "machine_memory_bytes",
        help: "Memory of the machine.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: None,
        stamped: true,
        sources: everywhere(File("/proc/meminfo:MemTotal")),
        emit: Emit::Machine(|machine, out| out.sample(number(machine.memory_bytes))),
    },
    Family {
        name: "machine_swap_bytes",
        help: "Swap of the machine.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: None,
        stamped: true,
        sources: everywhere(File("/proc/meminfo:SwapTotal")),
        emit: Emit::Machine(|machine, out| out.sample(number(machine.swap_bytes))),
    },
    Family {
        name: "machine_dimm_count",
        help: "Memory modules, by type.",
        metric: Gauge,
        unit: Unit::Count,
        kind: None,
        stamped: true,
        sources: everywhere(File("/sys/devices/system/edac/mc/mc*/dimm*/dimm_mem_type")),
        emit: Emit::Machine(|machine, out| dimms(machine, out, |d| d.count)),
    },
    Family {
        name: "machine_dimm_capacity_bytes",
        help: "Capacity of the memory modules, by type.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: None,
        stamped: true,
        sources: everywhere(File("/sys/devices/system/edac/mc/mc*/dimm*/size")),
        emit: Emit::Machine(|machine, out| dimms(machine, out, |d| d.capacity_bytes)),
    },
    Family {
        name: "machine_nvm_capacity",
        help: "Persistent memory, by mode.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: None,
        stamped: true,
        sources: everywhere(NO_NVM),
        emit: Emit::Never,
    },
    Family {
        name: "machine_nvm_avg_power_budget_watts",
        help: "Power budget of persistent memory.",
        metric: Gauge,
        unit: Unit::None,
        kind: None,
        stamped: true,
        sources: everywhere(NO_NVM),
        emit: Emit::Never,
    },
    Family {
        name: "nodegauge_reboot_required",
        help: "1 if the distribution asks for a reboot, 0 if it does not; looked at every five minutes.",
        metric: Gauge,
        unit: Unit::None,
        kind: None,
        stamped: true,
        sources: everywhere(File("/run/reboot-required, also behind /proc/1/root")),
        emit: Emit::Machine(|machine, out| {
            out.sample(machine.reboot_required.map(|required| Value::integer(u64::from(required))));
        }),
    },
    Family {
        name: "machine_cpu_cache_capacity_bytes",
        help: "Capacity of caches, of a core or of a NUMA node.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::CpuTopology),
        stamped: true,
        sources: everywhere(File("/sys/devices/system/cpu/cpu*/cache/index*/size")),
        emit: Emit::Machine(caches),
    },
    Family {
        name: "machine_thread_siblings_count",
        help: "How many logical CPUs share the core of each.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::CpuTopology),
        stamped: true,
        sources: everywhere(File("/sys/devices/system/cpu/cpu*/topology/core_id, by socket and die")),
        emit: Emit::Machine(siblings),
    },
    Family {
        name: "machine_node_memory_capacity_bytes",
        help: "Memory of each NUMA node.",
        metric: Gauge,
        unit: Unit::Bytes,
        kind: Some(Kind::CpuTopology),
        stamped: true,
        sources: everywhere(File("/sys/devices/system/node/node*/meminfo:MemTotal")),
        emit: Emit::Machine(node_memory),
    },
    Family {
        name: "machine_node_hugepages_count",
        help: "Huge pages set aside on each NUMA node, by size in KiB.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::CpuTopology),
        stamped: true,
        sources: everywhere(File("/sys/devices/system/node/node*/hugepages/hugepages-*/nr_hugepages")),
        emit: Emit::Machine(node_hugepages),
    },
    Family {
        name: "machine_node_distance",
        help: "Distance between NUMA nodes; 10 is none.",
        metric: Gauge,
        unit: Unit::None,
        kind: Some(Kind::CpuTopology),
        stamped: true,
        sources: everywhere(File("/sys/devices/system/node/node*/distance")),
        emit: Emit::Machine(distances),
    },
];
