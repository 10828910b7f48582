//! Interface counters, once per network namespace.
//!
//! The host's namespace belongs to the root cgroup. Every other namespace
//! belongs to the cgroup that was there first among those whose processes live
//! in it, which for a pod is its sandbox. Namespaces are told apart by the inode
//! of `/proc/<pid>/net/dev`, which needs no capability. The file is opened each
//! tick and closed at once: a handle held into a namespace would keep a dead
//! pod's interfaces alive.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::sys::stat::fstat;

use super::sockets::{Namespace, Place, Sockets};
use super::{Collector, Context, Setup, Vanished};
use crate::kernel::handles::{FileKey, Pace};
use crate::kernel::tree::{NetworkRow, Node};
use crate::kernel::{ReadError, file, parse};
use crate::snapshot::{CgroupSample, Interface, InterfaceName, Kind, Kinds, Snapshot};

/// More interfaces than this in one namespace are not followed.
const MAX_INTERFACES: usize = 256;

/// Processes of one namespace asked in one tick until one answers.
const MAX_ASKED: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Member {
    /// A process of the cgroup itself.
    pid: u32,
    namespace: Namespace,
    /// Where its counters were to go when it was located.
    network: NetworkRow,
    /// What it would be the owner by; the host's has none.
    claim: Option<Claim>,
}

/// Who has the rows of a namespace: least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    created: u64,
    /// The cgroup that has the rows.
    row: u64,
    /// The cgroup whose process is asked.
    member: u64,
}

#[derive(Debug)]
struct Network {
    procs: Option<FileKey>,
    /// Paths are built in here: `<proc>/<pid>/net/dev`.
    path: String,
    proc: PathBuf,
    host: Option<Namespace>,
    /// By cgroup: where a process of it lives.
    members: HashMap<u64, Member>,
    owners: HashMap<Namespace, Claim>,
    /// By cgroup: the namespace its row has.
    rows: HashMap<u64, Namespace>,
    /// Cgroups whose process was gone when another's row was read.
    lost: HashSet<u64>,
    /// Whether this tick wants interfaces.
    interfaces: bool,
    /// What else is asked of a namespace.
    sockets: Option<Sockets>,
}

pub(super) fn make(setup: &mut Setup<'_>) -> Option<Box<dyn Collector>> {
    let tree = setup.layout.controller("memory").or_else(|| setup.layout.unified());
    let tree = tree.or_else(|| setup.layout.controller("cpu"))?;
    Some(Box::new(Network {
        procs: setup.reader.register(tree, "cgroup.procs", Pace::Slow),
        path: String::new(),
        proc: setup.roots.proc.clone(),
        host: None,
        members: HashMap::new(),
        owners: HashMap::new(),
        rows: HashMap::new(),
        lost: HashSet::new(),
        interfaces: true,
        sockets: Sockets::new(setup),
    }))
}

/// In the host's namespace cAdvisor leaves out the loopback device and the host
/// ends of containers, which would count their traffic twice; inside a
/// namespace only the loopback device is of no interest.
fn is_followed(name: &[u8], host: bool) -> bool {
    const HOST_ENDS: [&[u8]; 3] = [b"veth", b"docker", b"nerdctl"];
    let starts = |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|n| n.eq_ignore_ascii_case(prefix));
    name != b"lo" && !(host && HOST_ENDS.into_iter().any(starts))
}

impl Network {
    /// Reads the interfaces that the process `pid` sees; its namespace is given
    /// also when it is not the expected one, with no interfaces then.
    fn look(
        &mut self,
        cx: &mut Context<'_>,
        pid: u32,
        expected: Option<Namespace>,
        host: bool,
        out: Option<&mut Vec<Interface>>,
    ) -> Result<Namespace, ReadError> {
        self.path.clear();
        // Writing to a String cannot fail.
        let _ = write!(self.path, "{}/{pid}/net/dev", self.proc.display());
        let fd = file::open(self.path.as_ref())?;
        let stat = fstat(&fd).map_err(ReadError::from)?;
        let namespace = (stat.st_dev, stat.st_ino);
        let Some(out) = out else { return Ok(namespace) };
        if expected.is_some_and(|e| e != namespace) {
            return Ok(namespace);
        }
        let len = cx.reader.buffer.fill_to_end(fd.as_fd())?;
        let parsed = parse::net_dev(cx.reader.buffer.text(len), |name, receive, transmit| {
            if out.len() < MAX_INTERFACES
                && is_followed(name, host)
                && let Some(name) = InterfaceName::new(name)
            {
                out.push(Interface { name, receive, transmit });
            }
        });
        if parsed.is_err() {
            out.clear();
        }
        parsed.map(|()| namespace)
    }

    /// Reads what the row that has a namespace shows of it.
    fn fill(
        &mut self,
        cx: &mut Context<'_>,
        pid: u32,
        expected: Option<Namespace>,
        row: &mut CgroupSample,
    ) -> Result<Namespace, ReadError> {
        let out = if self.interfaces { Some(&mut row.network) } else { None };
        let namespace = self.look(cx, pid, expected, expected.is_none(), out)?;
        if expected.is_none_or(|expected| expected == namespace)
            && let Some(sockets) = &mut self.sockets
        {
            sockets.read(cx, Place { namespace, pid }, row);
        }
        Ok(namespace)
    }

    /// Says which namespaces there are and who is asked about each.
    fn ask_for_sockets(&mut self, kinds: Kinds) {
        let Some(sockets) = &mut self.sockets else { return };
        let host = self.host.map(|namespace| Place { namespace, pid: 1 });
        let owned = self.owners.iter().filter_map(|(namespace, owner)| {
            Some(Place { namespace: *namespace, pid: self.members.get(&owner.member)?.pid })
        });
        sockets.begin(kinds, host.into_iter().chain(owned));
    }

    /// Finds a process of the cgroup and the namespace it lives in.
    fn place(&mut self, cx: &mut Context<'_>, node: &mut Node) -> Result<Option<Member>, Vanished> {
        // A cgroup has mostly one process or a few of one namespace; trying some
        // covers those that end meanwhile.
        let mut pids = [0u32; 4];
        let mut count = 0;
        cx.file(node, self.procs, |text| {
            parse::pids(text, |pid| {
                if pid != 0
                    && let Some(slot) = pids.get_mut(count)
                {
                    *slot = pid;
                    count += 1;
                }
            })
        })?;
        for pid in pids.into_iter().take(count) {
            match self.look(cx, pid, None, false, None) {
                Ok(namespace) => {
                    let network = node.network;
                    return Ok(Some(Member { pid, namespace, network, claim: None }));
                }
                Err(ReadError::Gone) => {}
                Err(error) => cx.failed(&node.cgroup.path, error),
            }
        }
        Ok(None)
    }

    /// Finds out where a cgroup lives, and enters it for that namespace.
    fn locate(&mut self, cx: &mut Context<'_>, node: &mut Node) {
        let found = self.place(cx, node).unwrap_or(None);
        self.leave(node.id);
        let Some(mut member) = found else { return };
        let row = match node.network {
            NetworkRow::Nowhere => None,
            NetworkRow::Own => Some(node.id),
            NetworkRow::Of(row) => Some(row),
        };
        let created = node.cgroup.created.unwrap_or(u64::MAX);
        let row = row.filter(|_| self.host != Some(member.namespace));
        member.claim = row.map(|row| Claim { created, row, member: node.id });
        self.members.insert(node.id, member);
        let owner = self.owners.get(&member.namespace).copied();
        if let Some(claim) = member.claim.filter(|claim| owner.is_none_or(|owner| *claim < owner)) {
            self.appoint(member.namespace, Some(claim));
        }
    }

    /// Gives a namespace to the least claim on it.
    fn elect(&mut self, namespace: Namespace) {
        let claims = self.members.values().filter(|m| m.namespace == namespace).filter_map(|m| m.claim);
        self.appoint(namespace, claims.min());
    }

    fn appoint(&mut self, namespace: Namespace, owner: Option<Claim>) {
        if let Some(before) = self.owners.remove(&namespace) {
            self.rows.remove(&before.row);
        }
        if let Some(owner) = owner {
            self.owners.insert(namespace, owner);
            self.rows.insert(owner.row, namespace);
        }
    }

    /// Whether this cgroup's process is the one asked about its namespace.
    fn is_asked(&self, id: u64, member: &Member) -> bool {
        self.owners.get(&member.namespace).is_some_and(|owner| owner.member == id)
    }

    /// Forgets where a cgroup lives; the next in line has its namespace then.
    fn leave(&mut self, id: u64) {
        let Some(member) = self.members.remove(&id) else { return };
        if self.is_asked(id, &member) {
            self.elect(member.namespace);
        }
    }
}

impl Collector for Network {
    fn begin(&mut self, cx: &mut Context<'_>, nodes: &mut [Node], snapshot: &mut Snapshot) {
        self.interfaces = snapshot.kinds.has(Kind::Network);
        match self.look(cx, 1, None, true, None) {
            Ok(namespace) => self.host = Some(namespace),
            // Counted where the root's row is read.
            Err(_) => self.host = None,
        }
        for node in nodes.iter_mut().filter(|n| !n.is_root()) {
            // Those who are not asked are looked at again in turn: processes may
            // join a namespace, and the one who is asked may have gone.
            let member = self.members.get(&node.id);
            let settling = member.is_none() && node.age < 3;
            // Its pod's sandbox has become known since, or that it is on the host's network.
            let moved = member.is_some_and(|m| m.network != node.network);
            let idle = !member.is_some_and(|m| self.is_asked(node.id, m));
            if self.lost.remove(&node.id) || moved || ((node.slow || settling) && idle) {
                self.locate(cx, node);
            }
        }
        self.ask_for_sockets(snapshot.kinds);
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        node: &mut Node,
        row: &mut CgroupSample,
    ) -> Result<(), Vanished> {
        if node.is_root() {
            if let Err(error) = self.fill(cx, 1, None, row) {
                cx.failed(&node.cgroup.path, error);
            }
            return Ok(());
        }
        // A pod without a pause process lives on in any of its containers, and they
        // are tried in turn when the one that was asked has ended.
        for _attempt in 0..MAX_ASKED {
            let namespace = self.rows.get(&node.id);
            let owner = namespace.and_then(|n| self.owners.get(n)).filter(|owner| owner.row == node.id);
            let Some(asked) = owner.map(|owner| owner.member) else { return Ok(()) };
            let Some(member) = self.members.get(&asked).copied() else { return Ok(()) };
            match self.fill(cx, member.pid, Some(member.namespace), row) {
                Ok(namespace) if namespace == member.namespace => return Ok(()),
                // That process is gone, or its number has passed to another one.
                Ok(_) | Err(ReadError::Gone) if asked == node.id => self.locate(cx, node),
                Ok(_) | Err(ReadError::Gone) => {
                    self.lost.insert(asked);
                    self.leave(asked);
                }
                Err(error) => {
                    cx.failed(&node.cgroup.path, error);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        self.lost.remove(&id);
        self.leave(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_only_begin_like_others_are_followed() {
        assert!(!is_followed(b"lo", true) && !is_followed(b"lo", false));
        assert!(is_followed(b"longhorn0", true) && is_followed(b"eth0", true));
        assert!(!is_followed(b"vethab12", true) && is_followed(b"veth0", false));
        assert!(!is_followed(b"docker0", true) && !is_followed(b"Docker0", true));
    }
}
