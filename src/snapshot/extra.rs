//! Figures of the kinds that are off by default. A row has them in a box of its
//! own, so that they take up nothing while none of those kinds is on.

use nonmax::NonMaxI64;
use serde::{Serialize, Serializer};

use super::Reading;

/// The figures of one cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Extra {
    /// `sched` kind.
    pub sched: SchedStats,
    /// `cpuset` kind: v1 `cpuset.memory_migrate`, 1 if pages follow their task to other nodes.
    pub memory_migrate: Reading,
    /// `memory_numa` kind: one entry per NUMA node.
    pub numa: Vec<NumaPages>,
    /// `tcp` and `udp` kinds: sockets of the network namespace this cgroup owns.
    pub sockets: SocketStats,
    /// `advtcp` kind: figures of the same namespace.
    pub tcp: TcpFigures,
}

impl Extra {
    /// Makes it empty again; buffers are kept.
    pub fn clear(&mut self) {
        self.sched = SchedStats::default();
        self.memory_migrate = None;
        self.numa.clear();
        self.sockets = SocketStats::default();
        self.tcp.0.clear();
    }
}

/// What the scheduler did for the threads of a cgroup and all below it, from
/// `/proc/<tid>/schedstat`: of those that live, and of those that ended what was last
/// seen of them. The root has the machine's, from `/proc/schedstat` where there is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SchedStats {
    /// Time on a CPU, nanoseconds.
    pub run_ns: Reading,
    /// Time waiting for a CPU, nanoseconds.
    pub wait_ns: Reading,
    /// Time slices.
    pub slices: Reading,
}

/// Pages on one NUMA node, from `memory.numa_stat`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct NumaPages {
    /// The node's number.
    pub node: u32,
    /// Of this cgroup alone (v1).
    pub own: Pages,
    /// Of the subtree: v1 `hierarchical_*`; v2 the keys as they are, bytes by page size.
    pub subtree: Pages,
}

/// Pages by type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pages {
    /// `file`.
    pub file: Reading,
    /// `anon`.
    pub anon: Reading,
    /// `unevictable`.
    pub unevictable: Reading,
}

/// Sockets of a network namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SocketStats {
    /// `net/sockstat:TCP inuse`: of IPv4, without those in TIME_WAIT.
    pub tcp_in_use: Reading,
    /// `net/sockstat6:TCP6 inuse`: of IPv6, likewise.
    pub tcp6_in_use: Reading,
    /// `net/sockstat:TCP tw`: of both in TIME_WAIT.
    pub tcp_time_wait: Reading,
    /// `net/sockstat:UDP inuse`.
    pub udp_in_use: Reading,
    /// `net/sockstat6:UDP6 inuse`.
    pub udp6_in_use: Reading,
    /// `net/snmp:Udp InErrors`: packets dropped, also by sockets that are gone.
    pub udp_errors: Reading,
    /// `net/snmp6:Udp6InErrors`, likewise.
    pub udp6_errors: Reading,
    /// What sock_diag told last, where it may be asked.
    pub asked: SocketStates,
}

/// Sockets as the kernel lists them over netlink; absent where it does not, or was not asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SocketStates {
    /// TCP sockets of IPv4 by state, in the order of [`TCP_STATES`].
    pub tcp: Option<[u64; 11]>,
    /// The same of IPv6.
    pub tcp6: Option<[u64; 11]>,
    /// Bytes that wait in UDP sockets of IPv4.
    pub udp: Option<Queues>,
    /// The same of IPv6.
    pub udp6: Option<Queues>,
}

/// Bytes that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Queues {
    /// To be read.
    pub receive: u64,
    /// To be sent.
    pub transmit: u64,
}

/// cAdvisor's names of the states of a TCP socket; the kernel counts them from 1.
pub const TCP_STATES: [&str; 11] = [
    "established",
    "synsent",
    "synrecv",
    "finwait1",
    "finwait2",
    "timewait",
    "close",
    "closewait",
    "lastack",
    "listen",
    "closing",
];

/// Figures of `net/snmp` and `net/netstat`, in the order of [`TCP_FIGURES`]; empty where
/// nothing was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TcpFigures(pub Vec<Option<NonMaxI64>>);

impl Serialize for TcpFigures {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(TCP_FIGURES.iter().zip(&self.0).filter_map(|(key, value)| Some((key, (*value)?))))
    }
}

/// How many of [`TCP_FIGURES`] are in `net/snmp`; the others are in `net/netstat`.
pub const OF_SNMP: usize = 15;

/// The kernel's names of the figures that cAdvisor has: lines `Tcp` of `net/snmp`, then
/// lines `TcpExt` of `net/netstat`. Its labels are the same in small letters.
#[rustfmt::skip]
pub const TCP_FIGURES: [&str; 99] = [
    "RtoAlgorithm", "RtoMin", "RtoMax", "MaxConn", "ActiveOpens", "PassiveOpens", "AttemptFails", "EstabResets",
    "CurrEstab", "InSegs", "OutSegs", "RetransSegs", "InErrs", "OutRsts", "InCsumErrors",
    "EmbryonicRsts", "SyncookiesSent", "SyncookiesRecv", "SyncookiesFailed", "PruneCalled", "RcvPruned",
    "OfoPruned", "OutOfWindowIcmps", "LockDroppedIcmps", "TW", "TWRecycled", "TWKilled", "TCPTimeWaitOverflow",
    "TCPTimeouts", "TCPSpuriousRTOs", "TCPLossProbes", "TCPLossProbeRecovery", "TCPRenoRecoveryFail",
    "TCPSackRecoveryFail", "TCPRenoFailures", "TCPSackFailures", "TCPLossFailures", "DelayedACKs",
    "DelayedACKLocked", "DelayedACKLost", "ListenOverflows", "ListenDrops", "TCPHPHits", "TCPPureAcks",
    "TCPHPAcks", "TCPRenoRecovery", "TCPSackRecovery", "TCPSACKReneging", "TCPFACKReorder", "TCPSACKReorder",
    "TCPRenoReorder", "TCPTSReorder", "TCPFullUndo", "TCPPartialUndo", "TCPDSACKUndo", "TCPLossUndo",
    "TCPFastRetrans", "TCPSlowStartRetrans", "TCPLostRetransmit", "TCPRetransFail", "TCPRcvCollapsed",
    "TCPDSACKOldSent", "TCPDSACKOfoSent", "TCPDSACKRecv", "TCPDSACKOfoRecv", "TCPAbortOnData",
    "TCPAbortOnClose", "TCPAbortOnMemory", "TCPAbortOnTimeout", "TCPAbortOnLinger", "TCPAbortFailed",
    "TCPMemoryPressures", "TCPMemoryPressuresChrono", "TCPSACKDiscard", "TCPDSACKIgnoredOld",
    "TCPDSACKIgnoredNoUndo", "TCPMD5NotFound", "TCPMD5Unexpected", "TCPMD5Failure", "TCPSackShifted",
    "TCPSackMerged", "TCPSackShiftFallback", "TCPBacklogDrop", "PFMemallocDrop", "TCPMinTTLDrop",
    "TCPDeferAcceptDrop", "IPReversePathFilter", "TCPReqQFullDoCookies", "TCPReqQFullDrop",
    "TCPFastOpenActive", "TCPFastOpenActiveFail", "TCPFastOpenPassive", "TCPFastOpenPassiveFail",
    "TCPFastOpenListenOverflow", "TCPFastOpenCookieReqd", "TCPSynRetrans", "TCPOrigDataSent", "PAWSActive",
    "PAWSEstab",
];
