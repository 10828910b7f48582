//! Sockets of a network namespace, and what TCP did in it.
//!
//! How many there are is told by `/proc/<pid>/net/sockstat`, in which only `inuse` and
//! `tw` are of the namespace, and what was dropped by `snmp` and `snmp6`: each read once a
//! tick by the process that is asked about the interfaces. In which states they are takes
//! a list of all of them, which [`asker`] has made on a thread of its own. `net/tcp` is
//! never read: that takes milliseconds for each namespace, however few sockets it has.

pub(super) mod asker;

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use asker::Asker;

use super::{Context, Setup};
use crate::kernel::ReadError;
use crate::kernel::parse::network::{Columns, snmp6, sockstat};
use crate::kernel::sock_diag::Wanted;
use crate::snapshot::{CgroupSample, Kind, Kinds, OF_SNMP, SocketStats, TCP_FIGURES, reading};

/// Device and inode of a namespace's `net/dev`.
pub(super) type Namespace = (u64, u64);

/// A network namespace, and the process that is asked about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) namespace: Namespace,
    pub(super) pid: u32,
}

/// Reads what the kinds `tcp`, `udp` and `advtcp` show.
#[derive(Debug)]
pub(super) struct Sockets {
    /// In this tick.
    tcp: bool,
    udp: bool,
    advtcp: bool,
    proc: PathBuf,
    /// Paths are built in here.
    path: String,
    dropped: Columns,
    snmp: Columns,
    netstat: Columns,
    asker: Option<Asker>,
}

impl Sockets {
    /// None of those kinds is on: `None`.
    pub(super) fn new(setup: &Setup<'_>) -> Option<Sockets> {
        let [tcp, udp, advtcp] = [Kind::Tcp, Kind::Udp, Kind::Advtcp].map(|kind| setup.kinds.has(kind));
        if !(tcp || udp || advtcp) {
            return None;
        }
        let (of_snmp, of_netstat) = TCP_FIGURES.split_at(OF_SNMP);
        let live = setup.layout.trees.iter().any(|tree| tree.is_cgroupfs);
        let asker = (live && (tcp || udp)).then(|| Asker::start(&setup.roots.proc, Wanted { tcp, udp }));
        Some(Sockets {
            tcp,
            udp,
            advtcp,
            proc: setup.roots.proc.clone(),
            path: String::new(),
            dropped: Columns::new("Udp:", &["InErrors"]),
            snmp: Columns::new("Tcp:", of_snmp),
            netstat: Columns::new("TcpExt:", of_netstat),
            asker: asker.flatten(),
        })
    }

    /// A tick begins, which wants these kinds, and in which there are these namespaces.
    pub(super) fn begin(&mut self, kinds: Kinds, places: impl Iterator<Item = Place>) {
        self.tcp = kinds.has(Kind::Tcp);
        self.udp = kinds.has(Kind::Udp);
        self.advtcp = kinds.has(Kind::Advtcp);
        if let Some(asker) = &mut self.asker {
            asker.ask(places);
        }
    }

    /// Reads the figures of a namespace into the row that has it.
    pub(super) fn read(&mut self, cx: &mut Context<'_>, place: Place, row: &mut CgroupSample) {
        if !(self.tcp || self.udp || self.advtcp) {
            return;
        }
        let (path, proc, cgroup) = (&mut self.path, self.proc.display(), Arc::clone(&row.cgroup));
        let mut file = |name: &str, parse: &mut dyn FnMut(&[u8]) -> Result<(), ReadError>| {
            path.clear();
            // Writing to a String cannot fail.
            let _ = write!(path, "{proc}/{}/net/{name}", place.pid);
            match cx.reader.buffer.read_path(path.as_ref()).and_then(parse) {
                // Without IPv6 there are no files of it.
                Ok(()) | Err(ReadError::Gone) => {}
                Err(error) => cx.failed(&cgroup.path, error),
            }
        };
        let extra = row.extra();
        let mut found = SocketStats::default();
        if self.tcp || self.udp {
            let (tcp, udp) = (self.tcp, self.udp);
            let mut take = |text: &[u8]| {
                sockstat(text, |protocol, key, value| {
                    let place = match (protocol, key) {
                        (b"TCP", b"inuse") if tcp => &mut found.tcp_in_use,
                        (b"TCP6", b"inuse") if tcp => &mut found.tcp6_in_use,
                        (b"TCP", b"tw") if tcp => &mut found.tcp_time_wait,
                        (b"UDP", b"inuse") if udp => &mut found.udp_in_use,
                        (b"UDP6", b"inuse") if udp => &mut found.udp6_in_use,
                        _ => return,
                    };
                    *place = reading(value);
                })
            };
            file("sockstat", &mut take);
            file("sockstat6", &mut take);
        }
        if self.udp {
            let (columns, errors) = (&mut self.dropped, &mut found.udp_errors);
            file("snmp", &mut |text| {
                columns.read(text, |_, value| *errors = u64::try_from(value.get()).ok().and_then(reading))
            });
            let errors = &mut found.udp6_errors;
            file("snmp6", &mut |text| {
                *errors = snmp6(text, "Udp6InErrors")?.and_then(reading);
                Ok(())
            });
        }
        if self.advtcp {
            let figures = &mut extra.tcp.0;
            figures.resize(TCP_FIGURES.len(), None);
            for (name, columns, first) in
                [("snmp", &mut self.snmp, 0), ("netstat", &mut self.netstat, OF_SNMP)]
            {
                file(name, &mut |text| {
                    columns.read(text, |at, value| {
                        if let Some(figure) = figures.get_mut(first + at) {
                            *figure = Some(value);
                        }
                    })
                });
            }
        }
        found.asked = self.asker.as_ref().and_then(|asker| asker.answer(place)).unwrap_or_default();
        extra.sockets = found;
    }
}
