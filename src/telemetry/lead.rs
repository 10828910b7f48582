//! The aggregator about whether it is the one that sends, where there are several.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{Families, Written, float};

/// What is known of it.
#[derive(Debug, Default)]
pub struct Leading {
    enabled: AtomicBool,
    leads: AtomicBool,
    transitions: AtomicU64,
    failures: AtomicU64,
    acknowledged: Mutex<Vec<(String, u64)>>,
}

impl Leading {
    /// There are several: from now on it is told.
    pub fn enable(&self) {
        self.enabled.store(true, Relaxed);
    }

    /// It sends now, or no longer.
    pub fn became(&self, leads: bool) {
        if self.leads.swap(leads, Relaxed) != leads {
            self.transitions.fetch_add(1, Relaxed);
        }
    }

    /// Whether it sends.
    pub fn leads(&self) -> bool {
        self.leads.load(Relaxed)
    }

    /// The lease could not be read or written.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    /// Up to when each sink has everything, milliseconds since the epoch.
    pub fn acknowledged(&self, through: Vec<(String, u64)>) {
        *self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner) = through;
    }
}

/// Writes the figures when asked.
#[derive(Debug)]
pub(super) struct Lead(pub(super) Arc<Leading>);

impl Collector for Lead {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Written {
        let leading = &self.0;
        if !leading.enabled.load(Relaxed) {
            return Ok(());
        }
        let mut f = Families(encoder);
        let leads = float(u64::from(leading.leads()));
        f.gauge("nodegauge_leader", "Whether this aggregator is the one that sends.", Some(leads))?;
        f.counter(
            "nodegauge_leader_transitions",
            "Times it became the one that sends, or ceased to be it.",
            Some(float(leading.transitions.load(Relaxed))),
        )?;
        f.counter(
            "nodegauge_leader_failures",
            "Times the lease could not be read or renewed.",
            Some(float(leading.failures.load(Relaxed))),
        )?;
        let through = leading.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rows = through.iter().map(|(sink, ms)| (vec![("sink", sink.as_str())], float(*ms) / 1e3));
        f.gauges(
            "nodegauge_sink_acknowledged_timestamp_seconds",
            "The step up to which a sink has everything, as the one that sends tells.",
            &mut { rows },
        )
    }
}
