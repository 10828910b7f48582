//! The sink `log`: every step as text in the log of this process, one message for
//! each entity.
//!
//! ```text
//! 2030-01-01T00:01:00Z type=pod_container nodename=n1 namespace_name=shop pod_name=web-0 container_name=c0 labels=app:web cpu/usage_rate=20 filesystem/usage{resource_id=/}=4096
//! ```
//!
//! It has a cursor of its own, so that a start goes on where the last run stopped.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::batch::{Batch, Entity, Value};
use super::delivery::Step;
use super::delivery::gate::Gate;
use super::labels::{self, LabelRules};
use super::log::{Log, Order, SinkName};
use crate::telemetry::push::{Rejected, SinkMetrics, Trouble};

/// Before the queue is asked again after it could not be read.
const WAIT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Journal {
    /// Its cursor.
    pub name: SinkName,
    /// Where steps come from.
    pub log: Arc<Log>,
    /// What it counts.
    pub metrics: Arc<SinkMetrics>,
    /// Whether it may write.
    pub gate: Gate,
    /// How labels are shown.
    pub labels: LabelRules,
}

impl Journal {
    /// Writes what comes until `stop` turns true, and then what is queued.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut more = self.log.subscribe();
        self.log.tell(&self.name, &self.metrics);
        let labels = Arc::new(self.labels);
        loop {
            let stopping = *stop.borrow();
            more.mark_unchanged();
            if !self.gate.is_open() {
                if stopping {
                    return;
                }
                tokio::select! {
                    () = self.gate.opened() => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
                continue;
            }
            let (log, name) = (Arc::clone(&self.log), self.name.clone());
            let (metrics, labels) = (Arc::clone(&self.metrics), Arc::clone(&labels));
            let done = tokio::task::spawn_blocking(move || one(&log, &name, &metrics, &labels)).await;
            match done {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) if stopping => return,
                Ok(Ok(false)) => {
                    tokio::select! {
                        changed = more.changed() => if changed.is_err() { return },
                        _ = stop.wait_for(|stop| *stop) => {}
                    }
                }
                Ok(Err(error)) => {
                    self.metrics.retried(Trouble::Queue);
                    tracing::warn!(sink = %self.name, error, "cannot write a step to the log");
                    if stopping {
                        return;
                    }
                    tokio::time::sleep(WAIT).await;
                }
                // It panicked, which it does not do by itself.
                Err(_) => return,
            }
        }
    }
}

/// Writes the next step; whether there was one.
fn one(log: &Log, name: &SinkName, metrics: &SinkMetrics, labels: &LabelRules) -> Result<bool, String> {
    let records = log.next(name, Order::OldestFirst, 1).map_err(|error| error.to_string())?;
    let status = log.status(name).map_err(|error| error.to_string())?;
    metrics.queued(status.into());
    let Some(record) = records.into_iter().next() else { return Ok(false) };
    let begun = Instant::now();
    let step = Step::new(record.sequence, record.time_ms, record.payload);
    match step.batch() {
        Ok(batch) => {
            let mut values = 0;
            for entity in batch.entities().filter(|entity| !entity.has_ended()) {
                let (text, count) = shown(&batch, &entity, labels);
                tracing::info!(target: "nodegauge::sink", "{text}");
                values += count;
            }
            metrics.answered(begun.elapsed());
            metrics.taken(values, 0);
            metrics.step_done();
        }
        // Nobody could ever read it; the others are not held up.
        Err(_) => metrics.rejected(Rejected::Unreadable, 1),
    }
    log.acknowledge(name, &[record.sequence]).map_err(|error| error.to_string())?;
    Ok(true)
}

/// An entity and its values as one line, and how many values these are.
fn shown(batch: &Batch, entity: &Entity<'_>, rules: &LabelRules) -> (String, u64) {
    let kind = labels::kind(entity);
    let time = std::time::UNIX_EPOCH + Duration::from_millis(batch.time_ms());
    let mut text = format!("{} type={kind}", humantime::format_rfc3339_seconds(time));
    let joined = rules.joined(entity.labels());
    let labels = [
        ("nodename", entity.node()),
        ("namespace_name", entity.namespace()),
        ("pod_name", entity.pod()),
        ("container_name", entity.container()),
        ("container_base_image", entity.image()),
        ("labels", joined.as_deref()),
    ];
    let of_entity: Vec<_> = entity.labels().collect();
    let stored = rules.stored(of_entity.iter().copied()).map(|(name, value)| (name, Some(value)));
    // Writing to a String cannot fail.
    for (name, value) in labels.into_iter().chain(stored).filter_map(|(name, value)| Some((name, value?))) {
        let _ = write!(text, " {name}={}", value.escape_debug());
    }
    let mut count = 0;
    for point in entity.metrics() {
        let _ = write!(text, " {}", point.name().escape_debug());
        let own = point.labels();
        for (at, (label, value)) in own.iter().enumerate() {
            let between = if at == 0 { '{' } else { ',' };
            let _ = write!(text, "{between}{}={}", label.escape_debug(), value.escape_debug());
        }
        if !own.is_empty() {
            text.push('}');
        }
        let _ = match point.value {
            Value::Integer(value) => write!(text, "={value}"),
            Value::Double(value) => write!(text, "={value}"),
        };
        count += 1;
    }
    (text, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::batch::{Assembler, MetricId, proto};

    #[test]
    fn one_line_for_an_entity() {
        let mut batch = Assembler::new(proto::Batch {
            boot_id: vec![1; 16],
            time_ms: 1_893_456_060_000,
            resolution_ms: 60_000,
            ..proto::Batch::default()
        });
        let (node, pod, disk) = (batch.string("n1"), batch.string("a\nb"), batch.string("/"));
        let labels = ["app", "web", "team", "x y"].map(|text| batch.string(text)).to_vec();
        batch.entity(proto::Entity {
            kind: proto::EntityKind::Pod.into(),
            node,
            namespace: pod,
            pod,
            labels,
            ..proto::Entity::default()
        });
        batch.integer(MetricId::MemoryUsage, 7);
        batch.labelled(MetricId::FilesystemUsage, disk, 9);
        let batch = batch.finish().unwrap();
        let rules = LabelRules::new(None, &["t=team".to_owned()], &["team".to_owned()]).unwrap();
        let (text, count) = shown(&batch, &batch.entities().next().unwrap(), &rules);
        assert_eq!(
            (text.as_str(), count),
            (
                "2030-01-01T00:01:00Z type=pod nodename=n1 namespace_name=a\\nb pod_name=a\\nb labels=app:web t=x y memory/usage=7 \
                 filesystem/usage{resource_id=/}=9",
                2
            )
        );
    }
}
