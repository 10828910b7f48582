//! The sources of names about themselves.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{Families, Written, float};
use crate::identity::{Identities, SourceState, SourceStatus};

/// Set once the sources are started.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources(pub(super) Arc<OnceLock<Arc<Identities>>>);

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Written {
        let Some(identities) = self.0.get() else { return Ok(()) };
        let mut f = Families(encoder);
        sources(&mut f, &identities.status())?;
        let counts = identities.counts();
        let known = [(vec![("kind", "container")], counts.containers), (vec![("kind", "pod")], counts.pods)];
        f.gauges(
            "nodegauge_identities",
            "Containers and pods known, of all sources together.",
            &mut known.into_iter().map(|(labels, n)| (labels, float(n as u64))),
        )?;
        f.gauge(
            "nodegauge_identities_wanted",
            "Containers and pods seen as cgroups that no source has named yet.",
            Some(float(counts.wanted as u64)),
        )?;
        f.counter(
            "nodegauge_identities_refused",
            "Times a container or pod found no room.",
            Some(float(counts.refused)),
        )
    }
}

fn sources(f: &mut Families<'_>, all: &[SourceStatus]) -> Written {
    // What is not there has only its state, so that a host with one runtime does
    // not carry the figures of eight.
    let there = || all.iter().filter(|s| s.state != SourceState::Absent || s.answers > 0);
    let rows = |value: fn(&SourceStatus) -> Option<f64>| {
        there().filter_map(move |s| Some((vec![("source", s.name)], value(s)?)))
    };
    let states = all.iter().map(|s| {
        let up = match s.state {
            SourceState::Up => 1.0,
            SourceState::Starting | SourceState::Absent | SourceState::Down => 0.0,
        };
        (vec![("source", s.name)], up)
    });
    f.gauges("nodegauge_source_up", "Whether a source of names answers.", &mut { states })?;
    f.counters(
        "nodegauge_source_answers",
        "Complete answers of a source.",
        &mut rows(|s| Some(float(s.answers))),
    )?;
    f.counters(
        "nodegauge_source_failures",
        "Times a source failed and was begun again.",
        &mut rows(|s| Some(float(s.failures))),
    )?;
    f.counters(
        "nodegauge_source_rejected",
        "Entries of a source that could not be used.",
        &mut rows(|s| Some(float(s.rejected))),
    )?;
    f.gauges(
        "nodegauge_source_answer_duration_seconds",
        "How long a source's last complete answer took.",
        &mut rows(|s| Some(s.latency?.as_secs_f64())),
    )?;
    f.gauges(
        "nodegauge_source_answer_age_seconds",
        "Time since a source's last complete answer.",
        &mut rows(|s| Some(SystemTime::now().duration_since(s.last_answer?).ok()?.as_secs_f64())),
    )?;
    f.gauges(
        "nodegauge_source_events",
        "Whether a source tells changes by itself.",
        &mut rows(|s| s.events.map(|events| f64::from(u8::from(events)))),
    )?;
    let known = there().flat_map(|s| {
        [("container", s.containers), ("pod", s.pods)]
            .map(|(kind, count)| (vec![("source", s.name), ("kind", kind)], float(count as u64)))
    });
    f.gauges("nodegauge_source_known", "Containers and pods a source knows.", &mut { known })
}
