//! Kind `network`: a row for each interface of the namespace a cgroup owns.

use super::MetricType::Counter;
use super::Source::File;
use super::{Emit, Family, Row, Unit, everywhere};
use crate::expose::lines::{Label, Lines, Value};
use crate::snapshot::{Interface, Kind};

fn traffic(row: &Row<'_>, out: &mut Lines<'_>, figure: fn(&Interface) -> u64) {
    for interface in &row.sample.network {
        let labels = [("interface", Label::Text(interface.name.as_str()))];
        out.labelled(&labels, Some(Value::integer(figure(interface))));
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
];
