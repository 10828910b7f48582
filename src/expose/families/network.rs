//! Kinds `network`, `tcp`, `udp` and `advtcp`: rows of the namespace a cgroup owns.
//!
//! cAdvisor counts lines of `/proc/<pid>/net/tcp` and `udp`, shows the two queues of UDP
//! each under the other's name, and writes rows of 0 for containers that own no namespace.

use super::MetricType::{Counter, Gauge};
use super::Source::File;
use super::{Emit, Family, Row, Source, Unit, everywhere};
use crate::expose::lines::{Label, Lines, Value, number};
use crate::snapshot::{Interface, Kind, Queues, Reading, SocketStates, SocketStats, TCP_FIGURES, TCP_STATES};

fn traffic(row: &Row<'_>, out: &mut Lines<'_>, figure: fn(&Interface) -> u64) {
    for interface in &row.sample.network {
        let labels = [("interface", Label::Text(interface.name.as_str()))];
        out.labelled(&labels, Some(Value::integer(figure(interface))));
    }
}

const TCP_LISTED: Source = File(
    "sock_diag over netlink; of other network namespaces than the agent's own with CAP_SYS_ADMIN and CAP_SYS_PTRACE",
);

fn sockets<'a>(row: &Row<'a>) -> Option<&'a SocketStats> {
    row.sample.extra.as_ref().map(|extra| &extra.sockets)
}

fn tcp_states(row: &Row<'_>, out: &mut Lines<'_>, figures: fn(&SocketStates) -> Option<[u64; 11]>) {
    let Some(figures) = sockets(row).and_then(|sockets| figures(&sockets.asked)) else { return };
    for (state, count) in TCP_STATES.into_iter().zip(figures) {
        out.labelled(&[("tcp_state", Label::Word(state))], Some(Value::integer(count)));
    }
}

fn tcp_sockets(row: &Row<'_>, out: &mut Lines<'_>) {
    let Some(sockets) = sockets(row) else { return };
    for (state, count) in
        [("inuse", sockets.tcp_in_use), ("inuse6", sockets.tcp6_in_use), ("timewait", sockets.tcp_time_wait)]
    {
        out.labelled(&[("tcp_state", Label::Word(state))], number(count));
    }
}

fn tcp_figures(row: &Row<'_>, out: &mut Lines<'_>) {
    let figures = row.sample.extra.iter().flat_map(|extra| &extra.tcp.0);
    for (key, value) in TCP_FIGURES.into_iter().zip(figures) {
        out.labelled(&[("tcp_state", Label::Lower(key))], value.map(|v| Value::signed(v.get())));
    }
}

fn udp(
    row: &Row<'_>,
    out: &mut Lines<'_>,
    figures: fn(&SocketStats) -> (Reading, Reading),
    queues: fn(&SocketStates) -> Option<Queues>,
) {
    let Some(sockets) = sockets(row) else { return };
    let (listen, dropped) = figures(sockets);
    let queues = queues(&sockets.asked);
    for (state, value) in [
        ("listen", number(listen)),
        ("dropped", number(dropped)),
        ("rxqueued", queues.map(|q| Value::integer(q.receive))),
        ("txqueued", queues.map(|q| Value::integer(q.transmit))),
    ] {
        out.labelled(&[("udp_state", Label::Word(state))], value);
    }
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "container_network_receive_bytes_total",
        help: "Bytes received, by interface.",
        metric: Counter,
        unit: Unit::Bytes,
        kind: Some(Kind::Network),
        stamped: true,
        sources: everywhere(File("/proc/<pid>/net/dev, receive bytes")),
        emit: Emit::Cgroup(|row, out| traffic(row, out, |i| i.receive.bytes)),
    },
    Family {
        name: "container_network_receive_packets_total",
        help: "Packets received, by interface.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Network),
        stamped: true,
        sources: everywhere(File("/proc/<pid>/net/dev, receive packets")),
        emit: Emit::Cgroup(|row, out| traffic(row, out, |i| i.receive.packets)),
    },
    Family {
        name: "container_network_receive_packets_dropped_total",
        help: "Packets dropped while receiving, by interface.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Network),
        stamped: true,
        sources: everywhere(File("/proc/<pid>/net/dev, receive drop")),
        emit: Emit::Cgroup(|row, out| traffic(row, out, |i| i.receive.dropped)),
    },
    Family {
        name: "container_network_receive_errors_total",
        help: "Errors while receiving, by interface.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Network),
        stamped: true,
        sources: everywhere(File("/proc/<pid>/net/dev, receive errs")),
        emit: Emit::Cgroup(|row, out| traffic(row, out, |i| i.receive.errors)),
    },
    Family {
        name: "container_network_transmit_bytes_total",
        help: "Bytes sent, by interface.",
        metric: Counter,
        unit: Unit::Bytes,
        kind: Some(Kind::Network),
        stamped: true,
        sources: everywhere(File("/proc/<pid>/net/dev, transmit bytes")),
        emit: Emit::Cgroup(|row, out| traffic(row, out, |i| i.transmit.bytes)),
    },
    Family {
        name: "container_network_transmit_packets_total",
        help: "Packets sent, by interface.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Network),
        stamped: true,
        sources: everywhere(File("/proc/<pid>/net/dev, transmit packets")),
        emit: Emit::Cgroup(|row, out| traffic(row, out, |i| i.transmit.packets)),
    },
    Family {
        name: "container_network_transmit_packets_dropped_total",
        help: "Packets dropped while sending, by interface.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Network),
        stamped: true,
        sources: everywhere(File("/proc/<pid>/net/dev, transmit drop")),
        emit: Emit::Cgroup(|row, out| traffic(row, out, |i| i.transmit.dropped)),
    },
    Family {
        name: "container_network_transmit_errors_total",
        help: "Errors while sending, by interface.",
        metric: Counter,
        unit: Unit::Count,
        kind: Some(Kind::Network),
        stamped: true,
        sources: everywhere(File("/proc/<pid>/net/dev, transmit errs")),
        emit: Emit::Cgroup(|row, out| traffic(row, out, |i| i.transmit.errors)),
    },
    Family {
        name: "container_network_tcp_usage_total",
        help: "TCP sockets of IPv4 by state.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::Tcp),
        stamped: true,
        sources: everywhere(TCP_LISTED),
        emit: Emit::Cgroup(|row, out| tcp_states(row, out, |asked| asked.tcp)),
    },
    Family {
        name: "container_network_tcp6_usage_total",
        help: "TCP sockets of IPv6 by state.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::Tcp),
        stamped: true,
        sources: everywhere(TCP_LISTED),
        emit: Emit::Cgroup(|row, out| tcp_states(row, out, |asked| asked.tcp6)),
    },
    Family {
        name: "nodegauge_network_tcp_sockets",
        help: "TCP sockets of the network namespace: in use by IPv4, by IPv6, and of both in TIME_WAIT.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::Tcp),
        stamped: true,
        sources: everywhere(File("/proc/<pid>/net/sockstat:TCP inuse, TCP tw; sockstat6:TCP6 inuse")),
        emit: Emit::Cgroup(tcp_sockets),
    },
    Family {
        name: "container_network_advance_tcp_stats_total",
        help: "What TCP did in the network namespace, by the kernel's names.",
        metric: Gauge,
        unit: Unit::Count,
        kind: Some(Kind::Advtcp),
        stamped: true,
        sources: everywhere(File("/proc/<pid>/net/snmp:Tcp; /proc/<pid>/net/netstat:TcpExt")),
        emit: Emit::Cgroup(tcp_figures),
    },
    Family {
        name: "container_network_udp_usage_total",
        help: "UDP sockets of IPv4, packets they dropped, and bytes that wait in them.",
        metric: Gauge,
        unit: Unit::None,
        kind: Some(Kind::Udp),
        stamped: true,
        sources: everywhere(File(
            "/proc/<pid>/net/sockstat:UDP inuse; snmp:Udp InErrors; queues by sock_diag, as with TCP",
        )),
        emit: Emit::Cgroup(|row, out| udp(row, out, |s| (s.udp_in_use, s.udp_errors), |asked| asked.udp)),
    },
    Family {
        name: "container_network_udp6_usage_total",
        help: "UDP sockets of IPv6, packets they dropped, and bytes that wait in them.",
        metric: Gauge,
        unit: Unit::None,
        kind: Some(Kind::Udp),
        stamped: true,
        sources: everywhere(File(
            "/proc/<pid>/net/sockstat6:UDP6 inuse; snmp6:Udp6InErrors; queues by sock_diag, as with TCP",
        )),
        emit: Emit::Cgroup(|row, out| udp(row, out, |s| (s.udp6_in_use, s.udp6_errors), |asked| asked.udp6)),
    },
];
