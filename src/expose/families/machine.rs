//! The machine, whatever is switched on.

use super::MetricType::Gauge;
use super::Source::{File, None as Absent};
use super::{Emit, Family, Source, Unit, everywhere};
use crate::expose::lines::{Label, Lines, Value, number};
use crate::snapshot::{Dimm, Machine, Snapshot};

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
];
