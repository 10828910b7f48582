//! The aggregator about what it is pushed and the steps it makes of it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{Families, Written, float};
use crate::aggregate::ingest::{Ingest, Reason};

/// Asked when somebody asks us.
#[derive(Debug)]
pub(super) struct Ingesting(pub(super) Arc<Ingest>);

impl Collector for Ingesting {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Written {
        let counts = self.0.counts();
        let mut f = Families(encoder);
        let counters = [
            ("nodegauge_ingest_batches", "Batches taken into the model.", counts.batches),
            ("nodegauge_ingest_values", "Values in them.", counts.values),
            ("nodegauge_ingest_bytes", "Their bytes as they came.", counts.bytes),
            ("nodegauge_ingest_late_batches", "Of these, batches for steps closed already.", counts.late),
            ("nodegauge_ingest_duplicate_batches", "Batches that had been taken before.", counts.duplicates),
            ("nodegauge_ingest_too_old_batches", "Batches older than what is kept.", counts.too_old),
            (
                "nodegauge_ingest_entities_refused",
                "Times an entity of a batch found no place, since its node had too many.",
                counts.unplaced,
            ),
            ("nodegauge_steps_closed", "Steps of the model closed.", counts.steps),
            ("nodegauge_clock_set", "Times all was forgotten because this clock was set.", counts.clock_set),
        ];
        for (name, help, count) in counters {
            f.counter(name, help, Some(float(count)))?;
        }
        let refused = Reason::ALL.iter().zip(counts.refused);
        f.counters(
            "nodegauge_ingest_refused_batches",
            "Batches not taken, by reason.",
            &mut refused.map(|(reason, count)| (vec![("reason", reason.name())], float(count))),
        )?;
        let lag = counts.lag_ms.map(|ms| float(ms) / 1e3);
        f.gauge("nodegauge_step_close_lag_seconds", "From the last step's end until it was closed.", lag)?;
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
        let model = self.0.model();
        let age = model.closed_ms().map(|slot| float(now_ms.saturating_sub(slot)) / 1e3);
        f.gauge("nodegauge_step_age_seconds", "Time since the end of the newest closed step.", age)?;
        let nodes = model.nodes();
        let silent = nodes.iter().filter(|node| self.0.is_silent(node, now_ms)).count();
        let states = [("live", nodes.len() - silent), ("silent", silent)];
        f.gauges(
            "nodegauge_nodes",
            "Nodes held, by whether steps wait for them.",
            &mut states.iter().map(|(state, count)| (vec![("state", *state)], float(*count as u64))),
        )?;
        let offsets = nodes.iter().map(|node| {
            let ahead = float(node.ahead_ms.unsigned_abs()) / 1e3;
            (vec![("node", &*node.name)], if node.ahead_ms < 0 { -ahead } else { ahead })
        });
        f.gauges(
            "nodegauge_node_clock_ahead_seconds",
            "How far a node's clock is ahead of this one; what its push took to come makes it look behind.",
            &mut { offsets },
        )?;
        let ages = nodes
            .iter()
            .map(|node| (vec![("node", &*node.name)], float(now_ms.saturating_sub(node.heard_ms)) / 1e3));
        f.gauges("nodegauge_node_heard_age_seconds", "Time since a node was last heard.", &mut { ages })?;
        let contested = self.0.claims().contested();
        f.gauges(
            "nodegauge_node_name_contested_age_seconds",
            "Time since a second agent with the name of a node was last sent away; of names to which that happened.",
            &mut contested
                .iter()
                .map(|(name, at)| (vec![("node", &**name)], float(now_ms.saturating_sub(*at)) / 1e3)),
        )?;
        let corrected = self.0.claims().corrected();
        f.gauges(
            "nodegauge_node_clock_correction_seconds",
            "What is taken off the times of a node's steps; of nodes whose clocks are off by so much.",
            &mut corrected.iter().map(|(name, shift)| {
                let seconds = float(shift.unsigned_abs()) / 1e3;
                (vec![("node", &**name)], if *shift < 0 { -seconds } else { seconds })
            }),
        )?;
        let kept = self.0.snapshots();
        let results = [("written", &kept.written), ("failed", &kept.failed), ("set_aside", &kept.set_aside)];
        f.counters(
            "nodegauge_snapshots",
            "Snapshots of the model, by what became of them.",
            &mut results.iter().map(|(result, n)| (vec![("result", *result)], float(n.load(Relaxed)))),
        )?;
        let written = kept.written_ms.load(Relaxed);
        let age = (written > 0).then(|| float(now_ms.saturating_sub(written)) / 1e3);
        f.gauge("nodegauge_snapshot_age_seconds", "Time since the model was last written to disk.", age)?;
        let bytes = (written > 0).then(|| float(kept.bytes.load(Relaxed)));
        f.gauge("nodegauge_snapshot_bytes", "Size of that file.", bytes)?;
        f.gauge(
            "nodegauge_snapshot_restored_nodes",
            "Nodes that were taken back at the start.",
            Some(float(kept.restored.load(Relaxed))),
        )?;
        f.gauge(
            "nodegauge_custom_series",
            "Series that programs push of themselves.",
            Some(float(model.customs().series() as u64)),
        )?;
        // Heapster's name.
        let newest = nodes.iter().map(|node| node.heard_ms).max().filter(|newest| *newest > 0);
        f.gauges(
            "heapster_scraper_last_time_seconds",
            "When something last came from a source, Unix time.",
            &mut newest.iter().map(|ms| (vec![("source", "push")], float(*ms) / 1e3)),
        )
    }
}
