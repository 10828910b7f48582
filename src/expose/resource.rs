//! A snapshot as a kubelet's `/metrics/resource`: CPU, working set and swap of
//! the node, its pods and their containers, which is all that metrics-server asks for.
//!
//! Samples carry the time of their tick whatever `--timestamps` says, because the
//! readers of this page make rates of them.

use super::labels;
use super::lines::{Heading, LineEnd, Lines, Value, nanoseconds, number};
use super::negotiate::Format;
use super::pods::{self, began_ns};
use super::summary::swap_limit;
use crate::snapshot::{CgroupSample, Reading, Snapshot, reading};

/// Whose samples a family has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Node,
    Container,
    Pod,
    Scrape,
}

struct Family {
    name: &'static str,
    of: Of,
    help: &'static str,
    counter: bool,
    stamped: bool,
    value: fn(&CgroupSample) -> Option<Value>,
}

fn cpu(row: &CgroupSample) -> Option<Value> {
    nanoseconds(row.cpu.usage_ns)
}

fn working_set(row: &CgroupSample) -> Option<Value> {
    number(row.memory.working_set)
}

fn swap(row: &CgroupSample) -> Option<Value> {
    number(row.memory.swap)
}

fn started(row: &CgroupSample) -> Option<Value> {
    let told: Reading = began_ns(row).filter(|ns| *ns > 0).and_then(reading);
    nanoseconds(told)
}

const fn gauge(
    name: &'static str,
    of: Of,
    help: &'static str,
    value: fn(&CgroupSample) -> Option<Value>,
) -> Family {
    Family { name, of, help, counter: false, stamped: true, value }
}

const fn counter(name: &'static str, of: Of, help: &'static str) -> Family {
    Family { name, of, help, counter: true, stamped: true, value: cpu }
}

/// All of them, by name.
const FAMILIES: [Family; 13] = [
    counter(
        "container_cpu_usage_seconds_total",
        Of::Container,
        "[STABLE] CPU time the container has used, in seconds.",
    ),
    gauge(
        "container_memory_working_set_bytes",
        Of::Container,
        "[STABLE] Working set of the container, in bytes.",
        working_set,
    ),
    Family {
        stamped: false,
        ..gauge(
            "container_start_time_seconds",
            Of::Container,
            "[STABLE] When the container was started, in seconds since the epoch.",
            started,
        )
    },
    gauge(
        "container_swap_limit_bytes",
        Of::Container,
        "[ALPHA] Swap the container may use, in bytes; absent where it is not limited.",
        |row| number(swap_limit(row)),
    ),
    gauge("container_swap_usage_bytes", Of::Container, "[ALPHA] Swap the container uses, in bytes.", swap),
    counter("node_cpu_usage_seconds_total", Of::Node, "[STABLE] CPU time the node has used, in seconds."),
    gauge(
        "node_memory_working_set_bytes",
        Of::Node,
        "[STABLE] Working set of the node, in bytes.",
        working_set,
    ),
    gauge("node_swap_usage_bytes", Of::Node, "[ALPHA] Swap the node uses, in bytes.", swap),
    counter("pod_cpu_usage_seconds_total", Of::Pod, "[STABLE] CPU time the pod has used, in seconds."),
    gauge("pod_memory_working_set_bytes", Of::Pod, "[STABLE] Working set of the pod, in bytes.", working_set),
    gauge("pod_swap_usage_bytes", Of::Pod, "[ALPHA] Swap the pod uses, in bytes.", swap),
    Family {
        stamped: false,
        ..gauge(
            "resource_scrape_error",
            Of::Scrape,
            "[STABLE] 1 if the figures could not be had, else 0.",
            |_| None,
        )
    },
    Family {
        stamped: false,
        ..gauge(
            "scrape_error",
            Of::Scrape,
            "[ALPHA] 1 if the figures could not be had, else 0; resource_scrape_error is its successor.",
            |_| None,
        )
    },
];

/// Hands the text to `sink`, in chunks of whole lines; without a snapshot it
/// says only that there is none.
///
/// # Errors
/// The first error of `sink`, which is then not called again.
pub fn write<E>(
    snapshot: Option<&Snapshot>,
    format: Format,
    mut sink: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let openmetrics = format.is_openmetrics();
    let headings: Vec<Heading> = FAMILIES.iter().map(|family| heading(family, openmetrics)).collect();
    let plain = LineEnd::plain();
    let mut stamped = LineEnd::plain();
    stamped.stamp(snapshot.map_or(0, |s| s.wall_ms), openmetrics);
    let pods = snapshot.map(pods::of).unwrap_or_default();
    let mut of_pods = Vec::with_capacity(pods.len());
    let mut of_containers = Vec::new();
    for pod in &pods {
        let mut base = String::new();
        labels::append(&mut base, "namespace", pod.namespace);
        labels::append(&mut base, "pod", pod.name);
        for (name, row) in &pod.containers {
            let mut own = String::new();
            labels::append(&mut own, "container", name);
            of_containers.push((format!("{own},{base}"), *row));
        }
        if let Some(row) = pod.own {
            of_pods.push((base, row));
        }
    }
    of_containers.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let root = snapshot.and_then(|s| s.cgroups.first()).filter(|row| row.cgroup.path == "/");
    let root: Vec<_> = root.into_iter().map(|row| (String::new(), row)).collect();

    let mut result = Ok(());
    let mut taken = |chunk: &[u8]| {
        result = sink(chunk);
        result.is_ok()
    };
    let mut buffer = Vec::with_capacity(16 << 10);
    let mut lines = Lines::new(&mut buffer, &mut taken);
    for (family, heading) in FAMILIES.iter().zip(&headings) {
        lines.family(heading, if family.stamped { &stamped } else { &plain });
        let rows = match family.of {
            Of::Node => &root,
            Of::Pod => &of_pods,
            Of::Container => &of_containers,
            Of::Scrape => {
                lines.sample(Some(Value::integer(u64::from(snapshot.is_none()))));
                continue;
            }
        };
        for (base, row) in rows {
            lines.base(base);
            lines.sample((family.value)(row));
        }
    }
    lines.finish(openmetrics);
    result
}

fn heading(family: &Family, openmetrics: bool) -> Heading {
    let Family { name, help, counter, .. } = *family;
    let shown = if counter && openmetrics { name.strip_suffix("_total").unwrap_or(name) } else { name };
    let suffix = ["seconds", "bytes"].into_iter().find(|unit| shown.ends_with(unit));
    let type_name = if counter { "counter" } else { "gauge" };
    Heading::new(name, shown, help, type_name, suffix.filter(|_| openmetrics))
}
