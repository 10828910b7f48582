//! Snapshots and names → one [`Batch`] per push step.
//!
//! [`grid`] says which tick makes which step. Of that tick's snapshot this takes
//! the node (the root cgroup), its system containers, the pods (each pod's own
//! cgroup, and the sum of its containers where it has none) and the containers;
//! names, labels, requests and limits come from the identity [`Directory`].
//! Rates are between the steps' own samples, by [`crate::rate`].
//!
//! What is not known is absent. A pod with no cgroup yet is not in the batch at
//! all; a container of a known pod with no cgroup, because it waits or crashed,
//! is there with its restarts, requests and limits only.
//!
//! Where two runs of the same container, or two pods of the same name, are on
//! the node at the same time, the newer one is in the batch: databases know
//! them by their names, and would mix the two. Of what lies within another
//! container (kind, nested runtimes) only pods that the directory knows are
//! there: the figures are in those of the container around them already.
//!
//! One builder per agent; it is told every tick and keeps the counters of the
//! last step.

mod bases;
pub mod grid;
mod limits;
mod storage;
mod values;
mod who;

use std::time::{Duration, Instant};

use super::batch::{Assembler, Batch, Malformed, proto};
use crate::identity::Directory;
use crate::identity::model::{Labels, Resources};
use crate::identity::path::{PodUid, Qos};
use crate::snapshot::{CgroupSample, Origin, Snapshot};
use bases::Bases;
use grid::{Due, Grid};
pub(crate) use limits::Drops;
pub use limits::Limits;
use values::Values;
use who::Found;

/// What does not change between steps.
#[derive(Debug, Clone)]
pub struct Options {
    /// The node's name in Kubernetes, elsewhere its host name.
    pub node: String,
    /// Of this run of the agent: see [`boot_id`](super::batch::boot_id).
    pub boot_id: [u8; 16],
    /// Between ticks.
    pub interval: Duration,
    /// Between steps.
    pub resolution: Duration,
    /// What a step may carry at most.
    pub limits: Limits,
}

/// What the node has and gives to pods, as the API server tells; the machine's
/// own processors and memory are used where it does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeResources {
    /// `status.capacity`.
    pub capacity: Resources,
    /// `status.allocatable`.
    pub allocatable: Resources,
}

/// A cgroup that vanished.
#[derive(Debug, Clone, Copy)]
pub struct Departed<'a> {
    /// Its row in the last tick that saw it.
    pub sample: &'a CgroupSample,
    /// Wall clock of that tick, milliseconds since the epoch.
    pub seen_ms: u64,
    /// Monotonic clock of the tick that found it gone.
    pub gone: Instant,
}

/// A finished step.
#[derive(Debug)]
pub struct Step {
    /// What was measured.
    pub batch: Batch,
    /// Where it stands on the grid, and what was missed before.
    pub due: Due,
}

/// Makes the steps of one agent.
#[derive(Debug)]
pub struct StepBuilder {
    options: Options,
    resources: NodeResources,
    labels: Labels,
    grid: Grid,
    bases: Bases,
    /// Moments are counted from here.
    zero: Instant,
    /// When the last step was sampled.
    last: Option<Instant>,
}

impl StepBuilder {
    /// A builder that has seen no tick.
    pub fn new(options: Options) -> StepBuilder {
        StepBuilder {
            grid: Grid::new(options.resolution, options.interval),
            options,
            resources: NodeResources::default(),
            labels: Labels::default(),
            bases: Bases::default(),
            zero: Instant::now(),
            last: None,
        }
    }

    /// Says which step was made last before this agent started, so that it is
    /// not made again.
    pub fn resume_after(&mut self, time_ms: u64) {
        self.grid.resume_after(time_ms);
    }

    /// Says what the node has, from the next step on.
    pub fn set_node_resources(&mut self, resources: NodeResources) {
        self.resources = resources;
    }

    /// Says the node's labels, from the next step on.
    pub fn set_node_labels(&mut self, labels: Labels) {
        self.labels = labels;
    }

    /// The step that this tick makes; `None` for most ticks. `departed` are the
    /// cgroups that vanished lately: those found gone since the last step are in
    /// this one for the last time, with the totals of their counters only.
    ///
    /// # Errors
    /// The step breaks a rule of the format, which is a bug.
    pub fn tick<'d>(
        &mut self,
        snapshot: &Snapshot,
        departed: impl IntoIterator<Item = Departed<'d>>,
        directory: &Directory,
    ) -> Result<Option<Step>, Malformed> {
        if snapshot.origin != Origin::Grid {
            return Ok(None);
        }
        let Some(due) = self.grid.due(snapshot.wall_ms, snapshot.monotonic) else { return Ok(None) };
        // What came and went before the first step is in it, and in no other.
        let last = self.last.replace(snapshot.monotonic);
        let departed = departed.into_iter().filter(|d| last.is_none_or(|last| d.gone > last));
        let departed: Vec<Departed<'_>> = departed.collect();
        let batch = self.build(due, snapshot, &departed, directory)?;
        Ok(Some(Step { batch, due }))
    }

    fn build<'a>(
        &mut self,
        due: Due,
        snapshot: &'a Snapshot,
        departed: &[Departed<'a>],
        directory: &'a Directory,
    ) -> Result<Batch, Malformed> {
        let mut batch = Assembler::new(self.head(due, snapshot));
        let mut drops = Drops::default();
        let mut rows = who::rows(snapshot, departed, self.zero);
        let mut found = who::find(&rows, directory, snapshot.machine.boot_time);
        for node in found.iter_mut().filter(|found| found.is_node()) {
            node.labels = Some(&self.labels);
        }
        who::mark(&mut rows, &found);
        for row in rows.iter_mut().filter(|row| row.used && !row.departed) {
            row.rise = self.bases.rise(&*row);
        }
        let gone = departed.iter().map(|d| d.sample.cgroup.path.as_str());
        self.bases.forget(snapshot.monotonic.saturating_duration_since(self.zero), gone);
        let declared = who::node_total(&found);
        let mut values = Values::new(snapshot, &self.options.limits);
        for (at, found) in found.iter().enumerate() {
            if at >= self.options.limits.entities || batch.text() >= self.options.limits.text {
                drops.entities += 1;
                continue;
            }
            values.gather(found, &rows, &mut drops);
            if found.is_node() {
                values.node(&self.resources, &declared, &mut drops);
            }
            if batch.values() + values.len() > self.options.limits.values {
                drops.series += values.len() as u64;
                continue;
            }
            let window = values.window().map_or(0, |w| batch.window(w.ns()));
            let entity = entity(&mut batch, found, window, &self.options.limits, &mut drops);
            batch.entity(entity);
            values.put(&mut batch);
        }
        drops.tell(&mut batch);
        batch.finish()
    }

    fn head(&self, due: Due, snapshot: &Snapshot) -> proto::Batch {
        // The kernel writes its boot id like any UUID.
        let host_boot_id = PodUid::parse(&snapshot.machine.boot_id).map(PodUid::to_bytes);
        proto::Batch {
            node: self.options.node.clone(),
            boot_id: self.options.boot_id.to_vec(),
            time_ms: due.time_ms,
            resolution_ms: self.grid.resolution_ms(),
            sampled_ms: snapshot.wall_ms,
            agent: concat!("nodegauge ", env!("CARGO_PKG_VERSION")).to_owned(),
            host_boot_id: host_boot_id.map(Vec::from).unwrap_or_default(),
            ..proto::Batch::default()
        }
    }
}

fn entity(
    batch: &mut Assembler,
    found: &Found<'_>,
    window: u32,
    limits: &Limits,
    drops: &mut Drops,
) -> proto::Entity {
    let mut name = |text: &str| batch.string(limits.cut(text, drops));
    let [namespace, pod, container] = [found.namespace, found.pod, found.container].map(&mut name);
    let [image, called] = [found.image, found.name].map(&mut name);
    let labels = limits.labels(found.labels, batch, drops);
    let container_id = found.id.and_then(hex);
    let container_id_text = match (found.id, &container_id) {
        (Some(id), None) => batch.string(limits.cut(id, drops)),
        _ => 0,
    };
    let kind = match found.kind {
        who::Kind::Node => proto::EntityKind::Node,
        who::Kind::System => proto::EntityKind::System,
        who::Kind::Pod => proto::EntityKind::Pod,
        who::Kind::Container => proto::EntityKind::Container,
    };
    let qos = match found.qos {
        None => proto::Qos::Unspecified,
        Some(Qos::Guaranteed) => proto::Qos::Guaranteed,
        Some(Qos::Burstable) => proto::Qos::Burstable,
        Some(Qos::BestEffort) => proto::Qos::BestEffort,
    };
    proto::Entity {
        kind: kind.into(),
        namespace,
        pod,
        container,
        name: called,
        image,
        pod_uid: found.uid.map(|uid| uid.to_bytes().to_vec()).unwrap_or_default(),
        static_pod: found.uid.is_some_and(PodUid::is_static),
        container_id: container_id.unwrap_or_default(),
        container_id_text,
        start_ms: found.start_ms.unwrap_or(0),
        qos: qos.into(),
        labels,
        window,
        host_network: found.host_network,
        departed: found.departed,
        ..proto::Entity::default()
    }
}

/// The 32 bytes of 64 hex digits in lower case.
pub(crate) fn hex(id: &str) -> Option<Vec<u8>> {
    if id.len() != 64 || id.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let (pairs, _) = id.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(byte).collect()
}
