//! What the machine is: processors, memory, identity. Read at start and every
//! five minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::hardware;
use crate::kernel::file::{Buffer, read_trimmed};
use crate::kernel::{Roots, parse};
use crate::snapshot::{Dimm, Machine, reading};

/// Reads everything; what the host does not tell is left empty.
pub(super) fn read(roots: &Roots, buffer: &mut Buffer) -> Machine {
    let file = |path: &str| read_trimmed(&roots.proc.join(path)).unwrap_or_default();
    let meminfo = |buffer: &mut Buffer, key| {
        let text = buffer.read_path(&roots.proc.join("meminfo")).ok()?;
        parse::meminfo(text, key).and_then(reading)
    };
    let topology = Topology::read(&roots.sys.join("devices/system/cpu"));
    Machine {
        machine_id: machine_id(roots),
        system_uuid: system_uuid(roots),
        boot_id: match roots.boot_ids.as_slice() {
            [] => file("sys/kernel/random/boot_id"),
            named => first_of(roots, named),
        },
        kernel_version: kernel_version(roots),
        os_version: os_version(roots),
        boot_time: boot_time(roots, buffer),
        cores: topology.threads.and_then(reading),
        physical_cores: topology.cores.and_then(reading),
        sockets: topology.sockets.and_then(reading),
        books: topology.books.and_then(reading),
        drawers: topology.drawers.and_then(reading),
        memory_bytes: meminfo(buffer, "MemTotal"),
        swap_bytes: meminfo(buffer, "SwapTotal"),
        dimms: dimms(&roots.sys.join("devices/system/edac/mc")),
        reboot_required: reboot_required(roots),
        hardware: hardware::read(roots, buffer),
    }
}

/// Debian's `update-notifier` and `unattended-upgrades` make the file when what they
/// installed needs a reboot; it goes with the reboot, since `/run` is in memory. Where
/// `/run` is not mounted here, whoever may trace the first process sees it behind that.
fn reboot_required(roots: &Roots) -> Option<bool> {
    let seen = [roots.in_host(Path::new("/run")), roots.proc.join("1/root/run")];
    let run = seen.iter().find(|path| path.is_dir())?;
    run.join("reboot-required").try_exists().ok()
}

fn first_of(roots: &Roots, paths: &[impl AsRef<Path>]) -> String {
    let found = paths.iter().filter_map(|p| read_trimmed(&roots.in_host(p.as_ref())));
    found.into_iter().find(|id| !id.is_empty()).unwrap_or_default()
}

fn machine_id(roots: &Roots) -> String {
    match roots.machine_ids.as_slice() {
        [] => first_of(roots, &["/etc/machine-id", "/var/lib/dbus/machine-id"]),
        named => first_of(roots, named),
    }
}

/// DMI on PCs and servers, the device tree on POWER and s390; elsewhere the
/// machine's id, as the kubelet has it.
fn system_uuid(roots: &Roots) -> String {
    const SOURCES: [&str; 4] = [
        "class/dmi/id/product_uuid",
        "firmware/devicetree/base/system-id",
        "firmware/devicetree/base/vm,uuid",
        "hypervisor/uuid",
    ];
    let found = SOURCES.iter().filter_map(|p| read_trimmed(&roots.sys.join(p)));
    found.into_iter().find(|id| !id.is_empty()).unwrap_or_else(|| machine_id(roots))
}

/// `/proc/sys/kernel/osrelease`, else the third word of `/proc/version`.
fn kernel_version(roots: &Roots) -> String {
    if let Some(release) = read_trimmed(&roots.proc.join("sys/kernel/osrelease")) {
        return release;
    }
    let version = read_trimmed(&roots.proc.join("version")).unwrap_or_default();
    version.split_whitespace().nth(2).unwrap_or_default().to_owned()
}

fn os_version(roots: &Roots) -> String {
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
        let Some(text) = read_trimmed(&roots.in_host(Path::new(path))) else { continue };
        let name = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
        if let Some(name) = name {
            return name.trim_matches('"').to_owned();
        }
    }
    "Linux".to_owned()
}

/// `btime` of `/proc/stat`, seconds since the epoch.
fn boot_time(roots: &Roots, buffer: &mut Buffer) -> Option<u64> {
    let text = buffer.read_path(&roots.proc.join("stat")).ok()?;
    parse::lines(text).find_map(|(_, line)| parse::digits(line.strip_prefix(b"btime ")?))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Topology {
    threads: Option<u64>,
    cores: Option<u64>,
    sockets: Option<u64>,
    books: Option<u64>,
    drawers: Option<u64>,
}

impl Topology {
    /// Core numbers repeat from socket to socket, so a core is a pair; books
    /// and drawers exist on s390x only.
    fn read(cpus: &Path) -> Topology {
        let online = fs::read(cpus.join("online")).ok();
        let threads = online.and_then(|text| parse::cpu_list_len(&text).ok()).filter(|n| *n > 0);
        let (mut cores, mut sockets) = (BTreeSet::new(), BTreeSet::new());
        let (mut books, mut drawers) = (BTreeSet::new(), BTreeSet::new());
        let entries = fs::read_dir(cpus).into_iter().flatten().flatten();
        for cpu in entries.map(|e| e.path()) {
            let name = cpu.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let is_cpu = name.strip_prefix("cpu").is_some_and(|n| n.parse::<u32>().is_ok());
            // CPUs that are off have no topology.
            let topology = cpu.join("topology");
            let id =
                |file: &str| read_trimmed(&topology.join(file)).filter(|id| !id.is_empty() && id != "-1");
            if !is_cpu || !topology.exists() {
                continue;
            }
            let socket = id("physical_package_id").unwrap_or_else(|| "0".to_owned());
            if let Some(core) = id("core_id") {
                let die = id("die_id").unwrap_or_default();
                cores.insert((socket.clone(), die, core));
            }
            books.extend(id("book_id"));
            drawers.extend(id("drawer_id"));
            sockets.insert(socket);
        }
        let count = |n: usize| (n > 0).then_some(n as u64);
        Topology {
            threads,
            cores: count(cores.len()),
            sockets: count(sockets.len()),
            books: count(books.len()),
            drawers: count(drawers.len()),
        }
    }
}

/// Memory modules by type: `mc*/dimm*/{dimm_mem_type,size}`, size in MiB.
fn dimms(controllers: &Path) -> Vec<Dimm> {
    let mut by_kind: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let dirs = |path: &Path, prefix: &'static str| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path());
        entries.filter(move |p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)))
    };
    for controller in dirs(controllers, "mc") {
        for dimm in dirs(&controller, "dimm") {
            let Some(kind) = read_trimmed(&dimm.join("dimm_mem_type")) else { continue };
            let mib: u64 = read_trimmed(&dimm.join("size")).and_then(|s| s.parse().ok()).unwrap_or(0);
            // Empty slots have a directory as well.
            if mib > 0 {
                let entry = by_kind.entry(kind).or_default();
                entry.0 += 1;
                entry.1 += mib << 20;
            }
        }
    }
    by_kind.into_iter().map(|(kind, (count, capacity_bytes))| Dimm { kind, count, capacity_bytes }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, path: &str, text: &str) {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn cores_repeat_from_socket_to_socket() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "online", "0-3\n");
        for (cpu, socket, core) in [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)] {
            write(dir.path(), &format!("cpu{cpu}/topology/physical_package_id"), &format!("{socket}\n"));
            write(dir.path(), &format!("cpu{cpu}/topology/core_id"), &format!("{core}\n"));
        }
        let found = Topology::read(dir.path());
        assert_eq!((found.threads, found.cores, found.sockets), (Some(4), Some(4), Some(2)));
        assert_eq!((found.books, found.drawers), (None, None));
    }

    #[test]
    fn a_reboot_is_required_where_run_is_seen_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::new(dir.path());
        assert_eq!(reboot_required(&roots), None);
        write(dir.path(), "proc/1/root/run/utmp", "");
        assert_eq!(reboot_required(&roots), Some(false));
        write(dir.path(), "proc/1/root/run/reboot-required", "*** System restart required ***\n");
        assert_eq!(reboot_required(&roots), Some(true));
        // What is mounted comes first.
        write(dir.path(), "run/utmp", "");
        assert_eq!(reboot_required(&roots), Some(false));
        write(dir.path(), "run/reboot-required", "");
        assert_eq!(reboot_required(&roots), Some(true));
    }

    #[test]
    fn ids_come_from_the_first_file_that_has_one() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "etc/machine-id", "usual\n");
        write(dir.path(), "proc/sys/kernel/random/boot_id", "this-boot\n");
        write(dir.path(), "etc/empty", "\n");
        write(dir.path(), "etc/own", "ours\n");
        let ids = |roots: &Roots| {
            let machine = read(roots, &mut Buffer::new());
            (machine.machine_id, machine.boot_id, machine.system_uuid)
        };
        let mut roots = Roots::new(dir.path());
        assert_eq!(ids(&roots), ("usual".into(), "this-boot".into(), "usual".into()));
        roots.machine_ids = ["/etc/none", "/etc/empty", "/etc/own"].map(Into::into).to_vec();
        roots.boot_ids = vec!["/etc/own".into()];
        assert_eq!(ids(&roots), ("ours".into(), "ours".into(), "ours".into()));
        roots.machine_ids = vec!["/etc/none".into()];
        assert_eq!(ids(&roots).0, "");
    }

    #[test]
    fn modules_by_type() {
        let dir = tempfile::tempdir().unwrap();
        for slot in 0..2 {
            write(dir.path(), &format!("mc0/dimm{slot}/dimm_mem_type"), "Registered-DDR4\n");
            write(dir.path(), &format!("mc0/dimm{slot}/size"), "16384\n");
        }
        write(dir.path(), "mc0/dimm2/dimm_mem_type", "Empty\n");
        write(dir.path(), "mc0/dimm2/size", "0\n");
        let expected = Dimm { kind: "Registered-DDR4".to_owned(), count: 2, capacity_bytes: 32 << 30 };
        assert_eq!(dimms(dir.path()), [expected]);
    }
}
