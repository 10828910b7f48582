//! Samples as Prometheus text 0.0.4 and OpenMetrics 1.0.
//!
//! The hot writer: families outside, cgroups inside, into one buffer that is
//! kept between scrapes. A steady scrape allocates nothing. prometheus-client
//! was measured and rejected: it has neither text 0.0.4 nor time stamps and
//! takes twenty times as long.

use super::families::{self, Emit, Family, FirstMounts, MetricType, Row, Unit};
use super::labels;
use super::lines::{Heading, LineEnd, Lines};
use super::negotiate::Format;
use crate::snapshot::{Cgroup, CgroupSample, Kinds, KubeletLabels, Machine, OomGone, Snapshot};

/// Size of the chunks, which is also what the text of a scrape takes in memory.
const CHUNK: usize = 64 * 1024;

/// Which rows and labels a scrape wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Every cgroup, with the labels chosen at the start.
    All,
    /// What a kubelet's `/metrics/cadvisor` has: its families, the cgroups it
    /// shows, its labels.
    Kubelet,
}

/// What a scrape wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Which text.
    pub format: Format,
    /// Which rows.
    pub view: View,
    /// Which kinds of families; those without a kind are always there.
    pub kinds: Kinds,
    /// Whether samples carry the time of their tick. Prometheus then shows what
    /// is gone for another five minutes.
    pub timestamps: bool,
}

/// Writes snapshots as text; keeps its buffers from one to the next.
#[derive(Debug)]
pub struct Renderer {
    options: Options,
    runtime: Option<&'static str>,
    families: Vec<(&'static Family, Heading)>,
    buffer: Vec<u8>,
    machine_labels: String,
    mounts: FirstMounts,
    /// Room for the rows that are shown, empty between scrapes.
    shown: Vec<Shown<'static>>,
    /// Those of the snapshot's departed that are shown, and ends of lines at their times.
    gone: Vec<usize>,
    ends: Vec<LineEnd>,
    plain: LineEnd,
    stamped: LineEnd,
}

impl Renderer {
    /// A renderer of all families that `options` switch on.
    pub fn new(options: Options) -> Self {
        let wanted = |f: &&Family| {
            let shown = f.kind.is_none_or(|k| options.kinds.has(k));
            shown && (options.view == View::All || families::of_the_kubelet(f))
        };
        Renderer {
            options,
            runtime: None,
            families: families::all().filter(wanted).map(|f| (f, heading(f, options.format))).collect(),
            buffer: Vec::with_capacity(CHUNK),
            machine_labels: String::new(),
            mounts: FirstMounts::default(),
            shown: Vec::new(),
            gone: Vec::new(),
            ends: Vec::new(),
            plain: LineEnd::plain(),
            stamped: LineEnd::plain(),
        }
    }

    /// Only the families with these names; unknown ones are ignored.
    #[must_use]
    pub fn only(mut self, names: &[&str]) -> Self {
        self.families.retain(|(family, _)| names.contains(&family.name));
        self
    }

    /// Only the containers that this runtime runs.
    #[must_use]
    pub fn of_runtime(mut self, runtime: &'static str) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// What it was made with.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Hands the text of `snapshot` to `sink`, in chunks of whole lines of at
    /// most 64 KiB (longer only for one line that is).
    ///
    /// # Errors
    /// The first error of `sink`, which is then not called again.
    pub fn render<E>(
        &mut self,
        snapshot: &Snapshot,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Options { format, view, kinds, timestamps } = self.options;
        if timestamps {
            self.stamped.stamp(snapshot.wall_ms, format.is_openmetrics());
        }
        write_machine_labels(&mut self.machine_labels, &snapshot.machine);
        self.mounts.refresh(snapshot);
        self.find_gone(snapshot);
        let runtime = self.runtime;
        let wanted = |cgroup: &Cgroup| runtime.is_none() || cgroup.part.runtime == runtime;
        // Found once, since every family goes through them.
        let mut shown = emptied(std::mem::take(&mut self.shown));
        shown.extend(snapshot.cgroups.iter().filter(|sample| wanted(&sample.cgroup)).filter_map(|sample| {
            let base = base_labels(&sample.cgroup, view)?;
            Some(Shown { sample, base })
        }));

        let mut result = Ok(());
        let mut taken = |chunk: &[u8]| {
            result = sink(chunk);
            result.is_ok()
        };
        let mut lines = Lines::new(&mut self.buffer, &mut taken);
        for (family, heading) in &self.families {
            let end = if family.stamped { &self.stamped } else { &self.plain };
            lines.family(heading, end);
            let (each, gone) = match family.emit {
                Emit::Cgroup(each) => (Some(each), None),
                Emit::CgroupAndGone(each, gone) => (Some(each), Some(gone)),
                _ => (None, None),
            };
            if let Some(each) = each {
                let (of_kubelet, mounts) = (view == View::Kubelet, &self.mounts);
                let row_of = |sample, seen_ms| Row { sample, seen_ms, snapshot, kinds, mounts, of_kubelet };
                if let Some(first) = shown.first() {
                    let mut row = row_of(first.sample, snapshot.wall_ms);
                    for Shown { sample, base } in &shown {
                        lines.base(base);
                        row.sample = sample;
                        each(&row, &mut lines);
                    }
                }
                let remains = families::remains(family);
                for (index, at) in self.gone.iter().enumerate().filter(|_| remains) {
                    let Some(departed) = snapshot.departed.get(*at) else { continue };
                    let sample = &departed.last;
                    let Some(base) = base_labels(&sample.cgroup, view) else { continue };
                    // Kills of the gone have rows of their own.
                    let twice = gone.is_some() && is_among(&snapshot.oom_gone, &sample.cgroup);
                    if twice || !wanted(&sample.cgroup) {
                        continue;
                    }
                    lines.base(base);
                    if family.stamped {
                        lines.end(self.ends.get(index).unwrap_or(end));
                    }
                    each(&row_of(sample, departed.seen_ms), &mut lines);
                }
                lines.end(end);
            }
            if let Some(gone) = gone {
                for row in snapshot.oom_gone.iter().filter(|row| wanted(&row.cgroup)) {
                    let Some(base) = base_labels(&row.cgroup, view) else { continue };
                    lines.base(base);
                    gone(row, &mut lines);
                }
            }
            match family.emit {
                Emit::Machine(emit) => {
                    lines.base(&self.machine_labels);
                    emit(&snapshot.machine, &mut lines);
                }
                Emit::Scrape(emit) => emit(snapshot, &mut lines),
                Emit::Cgroup(_) | Emit::CgroupAndGone(..) | Emit::Never => {}
            }
            if lines.stopped() {
                break;
            }
        }
        lines.finish(format.is_openmetrics());
        self.shown = emptied(shown);
        result
    }
}

/// A row of the scrape, and its base labels.
#[derive(Debug)]
struct Shown<'a> {
    sample: &'a CgroupSample,
    base: &'a str,
}

/// The same room for rows of another snapshot.
fn emptied<'b>(mut rows: Vec<Shown<'_>>) -> Vec<Shown<'b>> {
    rows.clear();
    // Collected in place.
    rows.into_iter().map_while(|_| None).collect()
}

impl Renderer {
    /// Which of the departed are shown: of one path the last, and only while nothing
    /// lives there again, since two rows would have the same labels.
    fn find_gone(&mut self, snapshot: &Snapshot) {
        let Options { format, timestamps, .. } = self.options;
        let Renderer { gone, ends, .. } = self;
        let path = |at: &usize| snapshot.departed.get(*at).map(|d| d.last.cgroup.path.as_str());
        gone.clear();
        gone.extend(snapshot.departed.iter().enumerate().filter_map(|(at, departed)| {
            let shown = departed.lingers(snapshot.monotonic) && !departed.last.cgroup.labels.is_empty();
            (shown && snapshot.row(&departed.last.cgroup.path).is_none()).then_some(at)
        }));
        gone.sort_unstable_by_key(|at| (path(at), std::cmp::Reverse(*at)));
        gone.dedup_by_key(|at| path(at));
        if !timestamps {
            return;
        }
        if ends.len() < gone.len() {
            ends.resize_with(gone.len(), LineEnd::plain);
        }
        for (end, at) in ends.iter_mut().zip(gone) {
            if let Some(departed) = snapshot.departed.get(*at) {
                end.stamp(departed.seen_ms, format.is_openmetrics());
            }
        }
    }
}

/// Whether a cgroup's kills are shown on a row of their own.
fn is_among(gone: &[OomGone], cgroup: &Cgroup) -> bool {
    gone.binary_search_by(|row| row.cgroup.path.cmp(&cgroup.path)).is_ok()
}

/// The base labels of a cgroup's rows, where it has rows.
fn base_labels(cgroup: &Cgroup, view: View) -> Option<&str> {
    match (view, &cgroup.kubelet) {
        (View::All, _) if cgroup.hidden => None,
        (View::All, _) | (View::Kubelet, KubeletLabels::Base) => Some(&cgroup.labels),
        (View::Kubelet, KubeletLabels::Own(labels)) => Some(labels),
        (View::Kubelet, KubeletLabels::NotShown) => None,
    }
}

fn write_machine_labels(text: &mut String, machine: &Machine) {
    text.clear();
    labels::append(text, "machine_id", &machine.machine_id);
    labels::append(text, "system_uuid", &machine.system_uuid);
    labels::append(text, "boot_id", &machine.boot_id);
}

/// What is said about a family.
///
/// OpenMetrics names a counter without the `_total` of its samples, and allows
/// no other type whose samples end so. Sample names never change, so what does
/// not fit is of unknown type there.
fn heading(family: &Family, format: Format) -> Heading {
    let Family { name, help, metric, unit, .. } = *family;
    let plain = match metric {
        MetricType::Counter => "counter",
        MetricType::Gauge => "gauge",
    };
    if !format.is_openmetrics() {
        return Heading::new(name, name, help, plain, None);
    }
    let total = name.strip_suffix("_total");
    let (family, type_name) = match (metric, total) {
        (MetricType::Counter, Some(family)) => (family, plain),
        (MetricType::Gauge, None) => (name, plain),
        (MetricType::Counter, None) | (MetricType::Gauge, Some(_)) => (name, "unknown"),
    };
    let suffix = match unit {
        Unit::Seconds => "seconds",
        Unit::Bytes => "bytes",
        Unit::Microseconds | Unit::Count | Unit::None => "",
    };
    // A unit must be the end of the family's name.
    let named = !suffix.is_empty() && family.strip_suffix(suffix).is_some_and(|f| f.ends_with('_'));
    Heading::new(name, family, help, type_name, named.then_some(suffix))
}
