//! Figures that cAdvisor itself measures only where their kinds are switched on, which
//! they are not by default, and that are not measured here at all. Its answers have their
//! objects all the same, and so have ours, as clients look into them: with zeros, as
//! there, but for `tcp_advanced`, whose 99 zeros stand for nothing in every sample.
//!
//! | object | kind of cAdvisor's |
//! |---|---|
//! | `cpu.schedstat` | `sched` |
//! | `network.tcp`, `tcp6` | `tcp` |
//! | `network.udp`, `udp6` | `udp` |
//! | `network.tcp_advanced` | `advtcp` |
//! | `memory.container_data.numa_stats`, `hierarchical_data.numa_stats` | `memory_numa` |
//! | `resctrl` | `resctrl` |
//! | `cpuset` | `cpuset` |

use serde::Serialize;

/// `{}`.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Empty {}

/// Time that tasks ran and waited for a processor.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Schedstat {
    run_time: u64,
    runqueue_time: u64,
    run_periods: u64,
}

/// Sockets of a network namespace, for both protocols and versions.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct SocketStats {
    tcp: Tcp,
    tcp6: Tcp,
    udp: Udp,
    udp6: Udp,
    tcp_advanced: Empty,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tcp {
    established: u64,
    syn_sent: u64,
    syn_recv: u64,
    fin_wait1: u64,
    fin_wait2: u64,
    time_wait: u64,
    close: u64,
    close_wait: u64,
    last_ack: u64,
    listen: u64,
    closing: u64,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Udp {
    listen: u64,
    dropped: u64,
    rx_queued: u64,
    tx_queued: u64,
}

/// Whether pages follow their tasks to another node's memory.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Cpuset {
    memory_migrate: u64,
}
