//! Figures of the kinds that are off by default. cAdvisor's answers have their objects
//! also while a kind is off, with zeros, and so have ours, as clients look into them.
//! While it is on they have what was measured at the time of the sample.
//!
//! | object | kind |
//! |---|---|
//! | `cpu.schedstat`, times in nanoseconds | `sched` |
//! | `network.tcp`, `tcp6` | `tcp` |
//! | `network.udp`, `udp6` | `udp` |
//! | `network.tcp_advanced` | `advtcp` |
//! | `memory.container_data.numa_stats`, `hierarchical_data.numa_stats`, pages by node | `memory_numa` |
//! | `cpuset` | `cpuset` |
//! | `resctrl` | none of ours: never measured |
//!
//! But for `tcp_advanced` of a kind that is off, whose 99 zeros stand for nothing: `{}`.
//! Go's clients cannot read a number of a node beyond 255, nor one below 0 but for
//! `MaxConn`: such are left out. Version 2.1 of cAdvisor itself forgets `udp`, `udp6` and
//! `tcp_advanced`, so that its clients find zeros there; ours are told what there is.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::history::Sample;
use crate::snapshot::{
    CgroupSample, Extra, Kind, Kinds, NumaPages, Pages, Queues, Reading, TCP_FIGURES, TcpFigures,
};

/// A figure that may not be known.
type Told = Option<u64>;

/// `{}`.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Empty {}

/// Time that tasks ran and waited for a processor, nanoseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Schedstat {
    #[serde(skip_serializing_if = "Option::is_none")]
    run_time: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    runqueue_time: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_periods: Told,
}

/// Sockets of a network namespace, for both protocols and versions.
#[derive(Debug, Clone, Serialize)]
pub struct SocketStats {
    tcp: Tcp,
    tcp6: Tcp,
    udp: Udp,
    udp6: Udp,
    tcp_advanced: TcpAdvanced,
}

/// By state; empty where they were not told.
#[derive(Debug, Clone, Copy)]
struct Tcp(Option<[u64; 11]>);

/// In the order of [`crate::snapshot::TCP_STATES`].
const STATES: [&str; 11] = [
    "Established",
    "SynSent",
    "SynRecv",
    "FinWait1",
    "FinWait2",
    "TimeWait",
    "Close",
    "CloseWait",
    "LastAck",
    "Listen",
    "Closing",
];

impl Serialize for Tcp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(STATES.iter().zip(self.0.iter().flatten()))
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Udp {
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    rx_queued: Told,
    #[serde(skip_serializing_if = "Option::is_none")]
    tx_queued: Told,
}

#[derive(Debug, Clone)]
struct TcpAdvanced(TcpFigures);

impl Serialize for TcpAdvanced {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let figures =
            TCP_FIGURES.iter().zip(&self.0.0).filter_map(|(key, value)| Some((key, (*value)?.get())));
        serializer.collect_map(figures.filter(|(key, value)| *value >= 0 || **key == "MaxConn"))
    }
}

/// Whether pages follow their tasks to another node's memory.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cpuset {
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_migrate: Told,
}

/// Pages by number of the NUMA node.
#[derive(Debug, Default, Serialize)]
pub struct NumaStats {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    file: BTreeMap<u8, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    anon: BTreeMap<u8, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unevictable: BTreeMap<u8, u64>,
}

/// What a sample has of these kinds.
#[derive(Debug)]
pub(super) struct Switched<'a> {
    on: Kinds,
    extra: Cow<'a, Extra>,
    leaf: bool,
}

impl<'a> Switched<'a> {
    /// Of the row itself where the sample is of its tick, else of what was kept.
    pub(super) fn new(on: Kinds, row: &'a CgroupSample, newest: bool, sample: &Sample) -> Switched<'a> {
        let now = row.extra.as_deref().filter(|_| newest).map(Cow::Borrowed);
        let kept = || sample.extras.get().map(Cow::Owned);
        let extra = if newest { now } else { kept() };
        Switched { on, extra: extra.unwrap_or_default(), leaf: row.leaf }
    }

    /// A figure of a kind: 0 while the kind is off.
    fn told(&self, kind: Kind, figure: Reading) -> Told {
        if self.on.has(kind) { figure.map(u64::from) } else { Some(0) }
    }

    pub(super) fn schedstat(&self) -> Schedstat {
        let told = |figure| self.told(Kind::Sched, figure);
        let sched = &self.extra.sched;
        Schedstat {
            run_time: told(sched.run_ns),
            runqueue_time: told(sched.wait_ns),
            run_periods: told(sched.slices),
        }
    }

    pub(super) fn cpuset(&self) -> Cpuset {
        Cpuset { memory_migrate: self.told(Kind::Cpuset, self.extra.memory_migrate) }
    }

    /// Whether anything of a network namespace was measured.
    pub(super) fn has_sockets(&self) -> bool {
        let Extra { sockets, tcp, .. } = &*self.extra;
        *sockets != Default::default() || tcp.0.iter().any(Option::is_some)
    }

    pub(super) fn sockets(&self) -> SocketStats {
        let sockets = &self.extra.sockets;
        let tcp =
            |states: Option<[u64; 11]>| Tcp(if self.on.has(Kind::Tcp) { states } else { Some([0; 11]) });
        let told = |figure| self.told(Kind::Udp, figure);
        let udp = |listen, dropped, queues: Option<Queues>| {
            let queue = |get: fn(Queues) -> u64| told(queues.map(get).and_then(crate::snapshot::reading));
            Udp {
                listen: told(listen),
                dropped: told(dropped),
                rx_queued: queue(|q| q.receive),
                tx_queued: queue(|q| q.transmit),
            }
        };
        let figures = if self.on.has(Kind::Advtcp) { self.extra.tcp.clone() } else { TcpFigures::default() };
        SocketStats {
            tcp: tcp(sockets.asked.tcp),
            tcp6: tcp(sockets.asked.tcp6),
            udp: udp(sockets.udp_in_use, sockets.udp_errors, sockets.asked.udp),
            udp6: udp(sockets.udp6_in_use, sockets.udp6_errors, sockets.asked.udp6),
            tcp_advanced: TcpAdvanced(figures),
        }
    }

    /// Of the cgroup alone, which v2 does not tell where there are others below it, and
    /// of all of it.
    pub(super) fn numa(&self) -> [NumaStats; 2] {
        let mut found = [NumaStats::default(), NumaStats::default()];
        let nodes: &[NumaPages] = if self.on.has(Kind::MemoryNuma) { &self.extra.numa } else { &[] };
        for NumaPages { node, own, subtree } in nodes {
            let Ok(node) = u8::try_from(*node) else { continue };
            let or_subtree = |get: fn(&Pages) -> Reading| get(own).or(get(subtree).filter(|_| self.leaf));
            let alone = Pages {
                file: or_subtree(|p| p.file),
                anon: or_subtree(|p| p.anon),
                unevictable: or_subtree(|p| p.unevictable),
            };
            for (stats, pages) in found.iter_mut().zip([&alone, subtree]) {
                stats.file.extend(pages.file.map(|count| (node, count.get())));
                stats.anon.extend(pages.anon.map(|count| (node, count.get())));
                stats.unevictable.extend(pages.unevictable.map(|count| (node, count.get())));
            }
        }
        found
    }
}
