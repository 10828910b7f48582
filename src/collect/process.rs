//! Processes, descriptors and sockets of the cgroup alone, and the descriptor
//! limit of its first process.
//!
//! Counting sockets takes one readlink per descriptor, so a tick looks at a
//! bounded number of them; cgroups whose turn did not come keep their last
//! counts. `/proc/<pid>/fd` needs the process's own uid, or CAP_SYS_PTRACE and
//! CAP_DAC_READ_SEARCH.
//!
//! Processes of other pid namespaces are 0 in `cgroup.procs` on v2 and left out on v1:
//! what they have open is not known then, nor on v1 how many they are.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use procfs_core::FromBufRead;
use procfs_core::process::{LimitValue, Limits};

use super::{Collector, Context, Setup, Vanished};
use crate::kernel::handles::{FileKey, Pace};
use crate::kernel::tree::Node;
use crate::kernel::{ReadError, parse};
use crate::snapshot::{CgroupSample, Limit, ProcessStats, Snapshot, reading};

/// Descriptors looked at in one tick: about 30 ms on a small machine.
const DESCRIPTORS_PER_TICK: u64 = 20_000;

/// What `/proc/self/ns/pid` is where every process is seen: `PROC_PID_INIT_INO` of the kernel.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

#[derive(Debug)]
struct Process {
    /// In the first tree a cgroup exists in.
    procs: [Option<FileKey>; 2],
    proc: PathBuf,
    /// Whether `cgroup.procs` of v1 has all processes there are.
    all_seen: bool,
    last: HashMap<u64, ProcessStats>,
    /// Where the last tick's budget ran out.
    resume_at: u64,
    left: u64,
    stopped_at: Option<u64>,
    pids: Vec<u32>,
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let trees = [setup.layout.tree_for("cpu"), setup.layout.tree_for("memory")];
    let trees = if setup.layout.is_v2() { [setup.layout.unified(), None] } else { trees };
    Some(Box::new(Process {
        procs: trees.map(|tree| setup.reader.register(tree?, "cgroup.procs", Pace::Tick)),
        proc: setup.roots.proc.clone(),
        all_seen: setup.layout.is_v2() || sees_all_processes(&setup.roots.proc),
        last: HashMap::new(),
        resume_at: 0,
        left: 0,
        stopped_at: None,
        pids: Vec::new(),
    }))
}

/// Whether this process is in the pid namespace that has all of them; where nothing says so, it is.
pub(crate) fn sees_all_processes(proc: &Path) -> bool {
    std::fs::read_link(proc.join("self/ns/pid")).map_or(true, |to| to.as_os_str() == FIRST_NAMESPACE)
}

/// Descriptors of a process, and how many of them are sockets.
fn descriptors(process: &Path) -> Result<(u64, u64), ReadError> {
    let (mut all, mut sockets) = (0, 0);
    for entry in std::fs::read_dir(process.join("fd"))? {
        let Ok(entry) = entry else { continue };
        all += 1;
        // A descriptor may be closed between listing and looking.
        if let Ok(target) = std::fs::read_link(entry.path())
            && target.as_os_str().as_encoded_bytes().starts_with(b"socket:")
        {
            sockets += 1;
        }
    }
    Ok((all, sockets))
}

/// Soft and hard limit of open files, from the table in `/proc/<pid>/limits`.
fn open_files(text: &[u8]) -> Result<(Limit, Limit), ReadError> {
    let limit = |value| match value {
        LimitValue::Unlimited => Limit::Max,
        LimitValue::Value(value) => Limit::Value(value),
    };
    match Limits::from_buf_read(text) {
        Ok(Limits { max_open_files: found, .. }) => Ok((limit(found.soft_limit), limit(found.hard_limit))),
        Err(_) => Err(ReadError::Malformed { line: 1 }),
    }
}

impl Process {
    fn look(&mut self, cx: &mut Context<'_>, path: &str, processes: u64) -> ProcessStats {
        let (mut all, mut sockets) = (0, 0);
        let mut readable = self.pids.len() as u64 == processes && (self.all_seen || processes > 0);
        let mut limit = None;
        for (index, pid) in self.pids.iter().enumerate() {
            let process = self.proc.join(pid.to_string());
            match descriptors(&process) {
                Ok((fds, of_those)) => {
                    all += fds;
                    sockets += of_those;
                    self.left = self.left.saturating_sub(fds + 1);
                }
                Err(ReadError::Gone) => {}
                Err(error) => {
                    // Part of the sum would be a wrong number.
                    readable = false;
                    cx.failed(path, error);
                }
            }
            if index == 0 {
                match cx.reader.buffer.read_path(&process.join("limits")).and_then(open_files) {
                    Ok(found) => limit = Some(found),
                    Err(error) => cx.errors.count(error),
                }
            }
        }
        ProcessStats {
            file_descriptors: if readable { reading(all) } else { None },
            sockets: if readable { reading(sockets) } else { None },
            max_open_files: limit.map(|(soft, _)| soft),
            max_open_files_hard: limit.map(|(_, hard)| hard),
            ..ProcessStats::default()
        }
    }
}

impl Collector for Process {
    fn begin(&mut self, _cx: &mut Context<'_>, _nodes: &mut [Node], _snapshot: &mut Snapshot) {
        self.left = DESCRIPTORS_PER_TICK;
        self.resume_at = self.stopped_at.take().unwrap_or(0);
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        let pids = &mut self.pids;
        pids.clear();
        let mut processes = 0;
        let mut read = None;
        for key in self.procs {
            if read.is_none() {
                read = cx.file(node, key, |text| {
                    parse::pids(text, |pid| {
                        processes += 1;
                        if pid != 0 {
                            pids.push(pid);
                        }
                    })
                })?;
            }
        }
        if read.is_none() {
            return Ok(());
        }
        let turn = node.id >= self.resume_at;
        let stats = match self.last.get(&node.id) {
            Some(stats) if !turn || self.left == 0 => {
                if turn && self.stopped_at.is_none() {
                    self.stopped_at = Some(node.id);
                }
                *stats
            }
            // One that was never looked at is, whatever the budget says.
            _ => {
                let stats = self.look(cx, &node.cgroup.path, processes);
                self.last.insert(node.id, stats);
                stats
            }
        };
        let counted = if processes > 0 || self.all_seen { reading(processes) } else { None };
        row.process = ProcessStats { threads: row.process.threads, processes: counted, ..stats };
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        self.last.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_table() {
        let text = std::fs::read("/proc/self/limits").unwrap();
        let number = |limit: Limit| limit.value().unwrap_or(u64::MAX);
        let (soft, hard) = open_files(&text).unwrap();
        assert!(number(soft) > 0 && number(soft) <= number(hard));
        assert_eq!(open_files(b"\xff\x00"), Err(ReadError::Malformed { line: 1 }));
    }

    #[test]
    fn own_descriptors() {
        let _socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (all, sockets) = descriptors(Path::new("/proc/self")).unwrap();
        // Other tests open and close descriptors meanwhile; standard input is no socket.
        assert!(sockets >= 1 && all > sockets, "{all} descriptors, {sockets} sockets");
    }
}
