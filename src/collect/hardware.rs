//! `/sys` and `/proc/cpuinfo` → what the machine is made of.
//!
//! The trees are those of Linux's `Documentation/ABI/stable/sysfs-devices-node` and
//! `sysfs-devices-system-cpu`. What a host does not show is left empty.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::kernel::file::{Buffer, read_trimmed};
use crate::kernel::{Roots, parse};
use crate::snapshot::{Cache, Core, Disk, Hardware, HugePages, NetworkCard, NumaNode};

/// Block devices that are no disks: of files, of memory, and optical drives.
const NO_DISKS: [&str; 3] = ["loop", "ram", "sr"];

/// Interfaces that are no cards: the loopback, and what runtimes make.
const NO_CARDS: [&str; 4] = ["lo", "veth", "docker", "nerdctl"];

pub(super) fn read(roots: &Roots, buffer: &mut Buffer) -> Hardware {
    let cpus = roots.sys.join("devices/system/cpu");
    let info = buffer.read_path(&roots.proc.join("cpuinfo")).unwrap_or_default();
    Hardware {
        vendor_id: field(info, "vendor_id").unwrap_or_default(),
        frequency_khz: number(&cpus.join("cpu0/cpufreq/cpuinfo_max_freq")).or_else(|| {
            let (whole, part) =
                field(info, "cpu MHz")?.split_once('.').map(|(w, p)| (w.to_owned(), p.to_owned()))?;
            let part: u64 = format!("{part:0<3}").get(..3)?.parse().ok()?;
            whole.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(part)
        }),
        hugepages: hugepages(&roots.sys.join("kernel/mm/hugepages")),
        nodes: nodes(&roots.sys.join("devices/system/node"), &cpus),
        disks: numbered(&roots.sys.join("block"), |name| disk(&roots.sys.join("block").join(name), name)),
        cards: numbered(&roots.sys.join("class/net"), |name| {
            card(&roots.sys.join("class/net").join(name), name)
        }),
    }
}

/// A value of `/proc/cpuinfo`: `vendor_id\t: GenuineIntel`; the first of that name.
fn field(info: &[u8], name: &str) -> Option<String> {
    let value = info.split(|b| *b == b'\n').find_map(|line| {
        let rest = line.strip_prefix(name.as_bytes())?.trim_ascii_start().strip_prefix(b":")?;
        Some(rest.trim_ascii())
    })?;
    Some(String::from_utf8_lossy(value).into_owned())
}

fn number<T: FromStr>(path: &Path) -> Option<T> {
    read_trimmed(path)?.parse().ok()
}

/// The entries of a directory, sorted: by their numbers where they have some.
fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    names
}

fn numbered<T>(directory: &Path, mut read: impl FnMut(&str) -> Option<T>) -> Vec<T> {
    entries(directory).iter().filter_map(|name| read(name)).collect()
}

/// The number of an entry such as `cpu12`.
fn number_of(name: &str, kind: &str) -> Option<u32> {
    name.strip_prefix(kind)?.parse().ok()
}

fn hugepages(directory: &Path) -> Vec<HugePages> {
    numbered(directory, |name| {
        let page_kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some(HugePages { page_kib, count: number(&directory.join(name).join("nr_hugepages"))? })
    })
}

fn nodes(directory: &Path, cpus: &Path) -> Vec<NumaNode> {
    let of_numa = numbered(directory, |name| {
        let (id, path) = (number_of(name, "node")?, directory.join(name));
        let threads: Vec<u32> = entries(&path).iter().filter_map(|name| number_of(name, "cpu")).collect();
        let distances = read_trimmed(&path.join("distance")).unwrap_or_default();
        let node = NumaNode {
            id,
            memory_bytes: memory(&path.join("meminfo")),
            hugepages: hugepages(&path.join("hugepages")),
            distances: distances.split_whitespace().filter_map(|d| d.parse().ok()).collect(),
            ..NumaNode::default()
        };
        Some(with_cores(node, &threads, cpus))
    });
    if !of_numa.is_empty() {
        return of_numa;
    }
    let mut by_socket: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for thread in entries(cpus).iter().filter_map(|name| number_of(name, "cpu")) {
        if let Some(socket) = number(&topology(cpus, thread).join("physical_package_id")) {
            by_socket.entry(socket).or_default().push(thread);
        }
    }
    let node =
        |(id, threads): (u32, Vec<u32>)| with_cores(NumaNode { id, ..NumaNode::default() }, &threads, cpus);
    by_socket.into_iter().map(node).collect()
}

/// `Node 0 MemTotal:       32817192 kB`.
fn memory(meminfo: &Path) -> Option<u64> {
    let text = read_trimmed(meminfo)?;
    let line = text.lines().find_map(|line| line.split_once("MemTotal:"))?.1;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

fn topology(cpus: &Path, thread: u32) -> PathBuf {
    cpus.join(format!("cpu{thread}/topology"))
}

/// Core numbers repeat from socket to socket, and from die to die.
fn with_cores(mut node: NumaNode, threads: &[u32], cpus: &Path) -> NumaNode {
    let mut cores: BTreeMap<(u32, u32, u32), Core> = BTreeMap::new();
    for &thread in threads {
        let directory = topology(cpus, thread);
        // Those that are off have no topology.
        let Some(id) = number(&directory.join("core_id")) else { continue };
        let socket = number(&directory.join("physical_package_id")).unwrap_or(0);
        let die = number(&directory.join("die_id")).unwrap_or(0);
        let core = cores.entry((socket, die, id)).or_insert_with(|| Core {
            id,
            socket,
            book: number(&directory.join("book_id")),
            drawer: number(&directory.join("drawer_id")),
            ..Core::default()
        });
        core.threads.push(thread);
    }
    node.cores = cores.into_values().collect();
    let all = node.cores.iter().map(|core| core.threads.len()).sum::<usize>() as u64;
    for core in &mut node.cores {
        let Some(first) = core.threads.first() else { continue };
        for (cache, shared_by) in caches(&cpus.join(format!("cpu{first}/cache"))) {
            if shared_by == core.threads.len() as u64 && cache.level < 3 {
                core.caches.push(cache);
            } else if cache.level < 3 {
                // As cAdvisor has it: a small cache of several cores is nobody's.
            } else if shared_by == all {
                if !node.caches.contains(&cache) {
                    node.caches.push(cache);
                }
            } else {
                core.shared_caches.push(cache);
            }
        }
    }
    node
}

/// Caches of a processor, and how many share each.
fn caches(directory: &Path) -> Vec<(Cache, u64)> {
    numbered(directory, |name| {
        number_of(name, "index")?;
        let path = directory.join(name);
        let size = read_trimmed(&path.join("size"))?;
        let (digits, unit) = size.split_at(size.find(|c: char| !c.is_ascii_digit()).unwrap_or(size.len()));
        let unit: u64 = match unit {
            "" => 1,
            "K" => 1 << 10,
            "M" => 1 << 20,
            _ => return None,
        };
        let cache = Cache {
            id: number(&path.join("id")),
            size_bytes: digits.parse::<u64>().ok()?.checked_mul(unit)?,
            kind: read_trimmed(&path.join("type"))?,
            level: number(&path.join("level"))?,
        };
        let shared = read_trimmed(&path.join("shared_cpu_list"))?;
        Some((cache, parse::cpu_list_len(shared.as_bytes()).ok()?))
    })
}

fn disk(path: &Path, name: &str) -> Option<Disk> {
    if NO_DISKS.iter().any(|start| name.starts_with(start)) {
        return None;
    }
    let device = read_trimmed(&path.join("dev"))?;
    let (major, minor) = device.split_once(':')?;
    let schedulers = read_trimmed(&path.join("queue/scheduler")).unwrap_or_default();
    // `mq-deadline [none]`: the one in use.
    let used = schedulers.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    Some(Disk {
        name: name.to_owned(),
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        // Whatever the device's own are, these are of 512 bytes.
        size_bytes: number::<u64>(&path.join("size"))?.checked_mul(512)?,
        scheduler: used.map_or("none", |(used, _)| used).to_owned(),
    })
}

fn card(path: &Path, name: &str) -> Option<NetworkCard> {
    if NO_CARDS.iter().any(|start| name.starts_with(start)) {
        return None;
    }
    Some(NetworkCard {
        name: name.to_owned(),
        mac_address: read_trimmed(&path.join("address"))?,
        speed_mbits: number(&path.join("speed")),
        mtu: number(&path.join("mtu"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, path: &str, text: &str) {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn thread(dir: &Path, thread: u32, core: u32, siblings: &str) {
        let at = |file: &str| format!("sys/devices/system/cpu/cpu{thread}/{file}");
        write(dir, &at("topology/core_id"), &format!("{core}\n"));
        write(dir, &at("topology/physical_package_id"), "0\n");
        for (index, level, kind, size, shared) in [
            (0, 1, "Data", "48K", siblings),
            (1, 2, "Unified", "2M", siblings),
            (2, 3, "Unified", "32768K", "0-3"),
        ] {
            let at = |file: &str| at(&format!("cache/index{index}/{file}"));
            write(dir, &at("id"), "0\n");
            write(dir, &at("level"), &format!("{level}\n"));
            write(dir, &at("type"), kind);
            write(dir, &at("size"), size);
            write(dir, &at("shared_cpu_list"), shared);
        }
    }

    #[test]
    fn a_machine_of_two_cores() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(root, "proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu MHz\t\t: 2893.4\n");
        for (number, core, siblings) in [(0, 0, "0-1"), (1, 0, "0-1"), (2, 1, "2-3"), (3, 1, "2-3")] {
            thread(root, number, core, siblings);
            fs::create_dir_all(root.join(format!("sys/devices/system/node/node0/cpu{number}"))).unwrap();
        }
        write(
            root,
            "sys/devices/system/node/node0/meminfo",
            "Node 0 MemTotal:       1024 kB\nNode 0 MemFree: 1 kB\n",
        );
        write(root, "sys/devices/system/node/node0/distance", "10 21\n");
        write(root, "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "3\n");
        write(root, "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "7\n");
        for (name, device) in [("vda", "254:0"), ("loop0", "7:0")] {
            write(root, &format!("sys/block/{name}/dev"), device);
            write(root, &format!("sys/block/{name}/size"), "2048\n");
            write(root, &format!("sys/block/{name}/queue/scheduler"), "none [mq-deadline] kyber\n");
        }
        for name in ["eth0", "lo", "veth12"] {
            write(root, &format!("sys/class/net/{name}/address"), "02:00:00:00:00:01\n");
            write(root, &format!("sys/class/net/{name}/mtu"), "1500\n");
            write(root, &format!("sys/class/net/{name}/speed"), "-1\n");
        }
        let found = read(&Roots::new(root), &mut Buffer::new());
        assert_eq!((found.vendor_id.as_str(), found.frequency_khz), ("GenuineIntel", Some(2_893_400)));
        assert_eq!(found.hugepages, [HugePages { page_kib: 2048, count: 7 }]);
        let disk = Disk {
            name: "vda".into(),
            major: 254,
            minor: 0,
            size_bytes: 1 << 20,
            scheduler: "mq-deadline".into(),
        };
        assert_eq!(found.disks, [disk]);
        let card = NetworkCard {
            name: "eth0".into(),
            mac_address: "02:00:00:00:00:01".into(),
            speed_mbits: None,
            mtu: 1500,
        };
        assert_eq!(found.cards, [card]);
        let cache =
            |level, kind: &str, size_bytes| Cache { id: Some(0), size_bytes, kind: kind.into(), level };
        let core = |id, threads: [u32; 2]| Core {
            id,
            threads: threads.to_vec(),
            caches: vec![cache(1, "Data", 48 << 10), cache(2, "Unified", 2 << 20)],
            ..Core::default()
        };
        let node = NumaNode {
            id: 0,
            memory_bytes: Some(1 << 20),
            hugepages: vec![HugePages { page_kib: 2048, count: 3 }],
            cores: vec![core(0, [0, 1]), core(1, [2, 3])],
            caches: vec![cache(3, "Unified", 32 << 20)],
            distances: vec![10, 21],
        };
        assert_eq!(found.nodes, std::slice::from_ref(&node));
        // Without NUMA the socket stands for the node.
        fs::remove_dir_all(root.join("sys/devices/system/node")).unwrap();
        let socket = NumaNode { memory_bytes: None, hugepages: Vec::new(), distances: Vec::new(), ..node };
        assert_eq!(read(&Roots::new(root), &mut Buffer::new()).nodes, [socket]);
    }

    #[test]
    fn a_host_that_shows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&Roots::new(dir.path()), &mut Buffer::new()), Hardware::default());
    }
}
