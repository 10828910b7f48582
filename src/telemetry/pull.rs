//! The aggregator about the kubelets it asks, and what it watches at the API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::histogram::Histogram;

use super::{Families, Written, float};
use crate::aggregate::ingest::Ingest;

/// From an answer on loopback to the deadline.
const SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What became of asking a kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// What it told is in the model.
    Taken,
    /// No connection, or it broke.
    Unreachable,
    /// No whole answer in time.
    Deadline,
    /// It does not let us, or our token cannot be read.
    Credentials,
    /// It answers something else than 200.
    Status,
    /// It says more than is read.
    TooLarge,
    /// It says something else than a summary.
    Malformed,
    /// The model does not take it.
    Refused,
    /// It is still being asked for an earlier step.
    Busy,
}

const FAILURES: [(Outcome, &str); 8] = [
    (Outcome::Unreachable, "unreachable"),
    (Outcome::Deadline, "deadline"),
    (Outcome::Credentials, "credentials"),
    (Outcome::Status, "status"),
    (Outcome::TooLarge, "too_large"),
    (Outcome::Malformed, "malformed"),
    (Outcome::Refused, "refused"),
    (Outcome::Busy, "busy"),
];

/// What the nodes were that a round found.
const STATES: [&str; 4] = ["asked", "pushed", "not_ready", "no_address"];

/// Figures of all kubelets together.
#[derive(Debug)]
pub struct PullMetrics {
    taken: AtomicU64,
    failures: [AtomicU64; FAILURES.len()],
    nodes: [AtomicU64; STATES.len()],
    rounds: AtomicU64,
    unconnected: AtomicU64,
    seconds: Histogram,
}

impl Default for PullMetrics {
    fn default() -> Self {
        PullMetrics {
            taken: AtomicU64::default(),
            failures: Default::default(),
            nodes: Default::default(),
            rounds: AtomicU64::default(),
            unconnected: AtomicU64::default(),
            seconds: Histogram::new(SECONDS),
        }
    }
}

impl PullMetrics {
    /// A kubelet was asked, or could not be.
    pub fn asked(&self, outcome: Outcome, took: Option<Duration>) {
        let failure = FAILURES.iter().position(|(failure, _)| *failure == outcome);
        let count = failure.and_then(|at| self.failures.get(at)).unwrap_or(&self.taken);
        count.fetch_add(1, Relaxed);
        if let Some(took) = took {
            self.seconds.observe(took.as_secs_f64());
        }
    }

    /// A round began that found so many nodes to ask, pushed by their agents, not
    /// ready, and without an address.
    pub fn nodes(&self, found: [usize; 4]) {
        for (count, found) in self.nodes.iter().zip(found) {
            count.store(u64::try_from(found).unwrap_or(u64::MAX), Relaxed);
        }
        self.rounds.fetch_add(1, Relaxed);
    }

    /// The API server could not even be asked.
    pub fn unconnected(&self) {
        self.unconnected.fetch_add(1, Relaxed);
    }

    pub(super) fn seconds(&self) -> Histogram {
        self.seconds.clone()
    }
}

/// Asked when somebody asks us.
#[derive(Debug)]
pub(super) struct Pulling {
    pub(super) metrics: Arc<PullMetrics>,
    pub(super) ingest: Arc<Ingest>,
}

impl Collector for Pulling {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Written {
        let mut f = Families(encoder);
        let m = &self.metrics;
        if m.rounds.load(Relaxed) > 0 {
            let states = STATES.iter().zip(&m.nodes);
            f.gauges(
                "nodegauge_pull_nodes",
                "Nodes of the last round of asking kubelets, by what they were.",
                &mut states.map(|(state, count)| (vec![("state", *state)], float(count.load(Relaxed)))),
            )?;
            let taken = Some(float(m.taken.load(Relaxed)));
            f.counter("nodegauge_pull_summaries", "Summaries of kubelets taken.", taken)?;
            let failures = FAILURES.iter().zip(&m.failures);
            f.counters(
                "nodegauge_pull_failures",
                "Times a kubelet was to be asked and nothing of it was taken, by reason.",
                &mut failures.map(|((_, name), count)| (vec![("reason", *name)], float(count.load(Relaxed)))),
            )?;
        }
        let unconnected = m.unconnected.load(Relaxed);
        f.counter(
            "nodegauge_api_server_failures",
            "Times there was no way to ask the API server: no credentials, or none of use.",
            (unconnected > 0 || m.rounds.load(Relaxed) > 0).then(|| float(unconnected)),
        )?;
        let facts = self.ingest.model().facts();
        let watched = [
            ("nodes", facts.nodes.is_used().then(|| facts.nodes.counts())),
            ("pods", facts.pods.is_used().then(|| facts.pods.counts())),
            ("namespaces", facts.namespaces.is_used().then(|| facts.namespaces.counts())),
        ];
        let told: Vec<_> = watched.into_iter().filter_map(|(kind, counts)| Some((kind, counts?))).collect();
        if told.is_empty() {
            return Ok(());
        }
        let rows = |value: fn(&crate::aggregate::watch::Counts) -> f64| {
            told.iter().map(move |(kind, counts)| (vec![("kind", *kind)], value(counts)))
        };
        let up = |counts: &crate::aggregate::watch::Counts| f64::from(u8::from(counts.up));
        f.gauges("nodegauge_watch_up", "Whether the API server tells of a kind of object.", &mut rows(up))?;
        f.gauges(
            "nodegauge_watch_objects",
            "Objects of the API server that are held.",
            &mut rows(|counts| float(u64::try_from(counts.objects).unwrap_or(u64::MAX))),
        )?;
        f.counters("nodegauge_watch_lists", "Complete lists read.", &mut rows(|c| float(c.lists)))?;
        f.counters(
            "nodegauge_watch_restarts",
            "Watches begun again: when the API server ended them, forgot their place or broke off.",
            &mut rows(|c| float(c.restarts)),
        )?;
        f.counters(
            "nodegauge_watch_failures",
            "Lists and watches that failed and were tried again.",
            &mut rows(|c| float(c.failures)),
        )?;
        f.counters(
            "nodegauge_watch_rejected",
            "Objects that could not be used, or found no room.",
            &mut rows(|c| float(c.rejected)),
        )
    }
}
