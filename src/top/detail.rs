//! One cgroup by itself: every figure with its last minutes, its limits and who it is.

use ratatui::text::{Line, Span};
use serde_json::Value;

use super::answer::{self, Column, Part, Series};
use super::look::Look;
use super::past::{What, columns};
use super::rows::{Node, plain};
use super::table::Tone;
use super::text::{self, fit};

/// However short the window is, lines of it would not be worth drawing.
const LEAST_WINDOW_MS: u64 = 60_000;

/// Cells of a figure's name, and of a figure.
const NAME: usize = 13;
const FIGURE: usize = 11;

/// Cells from which means and maxima are shown as well as what is now.
const WITH_MOST: usize = 64;

/// Cells from which there are two columns of sections.
const TWO_COLUMNS: usize = 132;

/// A figure: its name, and what the endpoint calls it.
type Figure = (&'static str, &'static str);

/// Figures that share a scale.
struct Section {
    title: &'static str,
    note: &'static str,
    text: fn(Option<f64>) -> String,
    /// The smallest top of the scale.
    least: f64,
    /// Rows of the first figure's line.
    height: usize,
    figures: &'static [Figure],
}

const fn section(
    title: &'static str,
    text: fn(Option<f64>) -> String,
    least: f64,
    figures: &'static [Figure],
) -> Section {
    Section { title, note: "", text, least, height: 1, figures }
}

/// As on the page.
static SECTIONS: [Section; 12] = [
    Section {
        height: 3,
        ..section(
            "CPU",
            text::cores,
            10.0,
            &[("total", "cpu"), ("user", "cpu_user"), ("system", "cpu_system")],
        )
    },
    Section {
        note: "share of periods",
        ..section("Throttled", text::percent, 5.0, &[("throttled", "throttled")])
    },
    Section {
        height: 3,
        ..section(
            "Memory",
            text::bytes,
            1_048_576.0,
            &[("working set", "working_set"), ("rss", "rss"), ("cache", "cache"), ("swap", "swap")],
        )
    },
    Section {
        note: "a second",
        ..section("Page faults", text::count, 10.0, &[("all", "faults"), ("major", "major_faults")])
    },
    section("Network", text::rate, 1024.0, &[("received", "received"), ("sent", "sent")]),
    Section {
        note: "a second",
        ..section(
            "Packets",
            text::count,
            5.0,
            &[("received", "received_packets"), ("sent", "sent_packets"), ("lost", "lost")],
        )
    },
    section("Disk I/O", text::rate, 4096.0, &[("read", "read"), ("written", "written")]),
    Section {
        note: "a second",
        ..section("Disk operations", text::count, 5.0, &[("reads", "reads"), ("writes", "writes")])
    },
    Section {
        note: "of the time some task waits",
        ..section(
            "Pressure",
            text::percent,
            5.0,
            &[("CPU", "cpu_some"), ("memory", "memory_some"), ("I/O", "io_some")],
        )
    },
    Section {
        note: "of the time all tasks wait",
        ..section(
            "Stalled",
            text::percent,
            5.0,
            &[("CPU", "cpu_full"), ("memory", "memory_full"), ("I/O", "io_full")],
        )
    },
    section("Processes", text::count, 4.0, &[("threads", "threads"), ("processes", "processes")]),
    section("Descriptors", text::count, 8.0, &[("open files", "descriptors"), ("sockets", "sockets")]),
];

/// A cgroup that was opened.
#[derive(Debug, Default)]
pub struct Opened {
    /// Which opening it is.
    pub number: u64,
    /// Its path, to ask for it.
    pub path: String,
    /// The first line that is shown.
    pub offset: usize,
    name: String,
    gone: bool,
    told: Option<answer::Detail>,
    series: Series,
}

impl Opened {
    /// Nothing is told of it yet.
    pub fn new(node: &Node) -> Opened {
        Opened { path: node.target.clone().unwrap_or_default(), name: node.name.clone(), ..Opened::default() }
    }

    /// Takes an answer, which has the samples since the one before, or that there is no such cgroup.
    pub fn take(&mut self, detail: Option<answer::Detail>) {
        self.gone = detail.is_none();
        let Some(mut detail) = detail else { return };
        let before = self.series.time.len();
        let Series { mut time, figures } = std::mem::take(&mut detail.series);
        self.series.time.append(&mut time);
        for (name, mut values) in figures {
            let known = self.series.figures.entry(name).or_default();
            known.resize(before, None);
            known.append(&mut values);
        }
        let oldest = detail.time.saturating_sub(detail.window.max(LEAST_WINDOW_MS));
        let old = self.series.time.iter().take_while(|time| **time < oldest).count();
        self.series.time.drain(..old);
        for values in self.series.figures.values_mut() {
            values.drain(..old.min(values.len()));
        }
        self.told = Some(detail);
    }

    /// What is shown of it in so many cells: one column of lines or two.
    pub fn text(&self, look: Look, width: usize, now: u64) -> (Vec<Line<'static>>, Vec<Vec<Line<'static>>>) {
        let mut head = self.head(look, now);
        if self.gone {
            head.push(Line::styled("It is gone.", look.alarm()));
        }
        let Some(told) = &self.told else { return (head, Vec::new()) };
        if self.series.time.is_empty() {
            head.push(Line::styled("Waiting for the second sample.", look.quiet()));
        }
        let two = width >= TWO_COLUMNS;
        let each = if two { (width - 4) / 2 } else { width };
        let mut blocks: Vec<Vec<Line<'static>>> =
            SECTIONS.iter().filter_map(|section| self.section(section, told, look, each)).collect();
        blocks.extend(facts(told, &self.path).into_iter().filter_map(|(title, facts)| {
            let facts: Vec<_> = facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            (!facts.is_empty()).then(|| {
                let line = |(name, value): (String, String)| {
                    Line::from(vec![
                        Span::styled(
                            format!("  {:<width$} ", fit(&name, NAME + 8, look.cut()), width = NAME + 8),
                            look.quiet(),
                        ),
                        Span::raw(value),
                    ])
                };
                std::iter::once(Line::styled(title, look.strong()))
                    .chain(facts.into_iter().map(line))
                    .collect()
            })
        }));
        let all: usize = blocks.iter().map(|block| block.len() + 1).sum();
        let mut columns = vec![Vec::new()];
        let mut used = 0;
        for block in blocks {
            if two && columns.len() == 1 && used * 2 >= all {
                columns.push(Vec::new());
            }
            used += block.len() + 1;
            if let Some(column) = columns.last_mut() {
                column.extend(block);
                column.push(Line::default());
            }
        }
        (head, columns)
    }

    fn head(&self, look: Look, now: u64) -> Vec<Line<'static>> {
        let Some(told) = &self.told else {
            return vec![Line::styled(self.name.clone(), look.strong()), Line::default()];
        };
        let names = &told.identity;
        let kind = match told.kind {
            'n' => "machine",
            'p' => "pod",
            'c' => "container",
            's' => "pod sandbox",
            _ => "cgroup",
        };
        let pod = names.pod.as_deref().filter(|_| told.kind == 'p');
        let name = names.container.as_deref().or(pod).or(names.name.as_deref());
        let name = match (name, told.kind) {
            (Some(name), _) => name.to_owned(),
            (None, 'n') => "The whole machine".to_owned(),
            (None, _) => plain(&self.path),
        };
        let within: Vec<&str> =
            [names.namespace.as_deref(), names.pod.as_deref().filter(|_| told.kind != 'p')]
                .into_iter()
                .flatten()
                .collect();
        let age = told.created.and_then(|created| now.checked_sub(created));
        let facts = [
            Some(kind.to_owned()),
            (!within.is_empty()).then(|| format!("of {}", within.join("/"))),
            names.image.as_deref().map(str::to_owned),
            told.runtime.as_deref().map(str::to_owned),
            age.map(|age| format!("{} old", text::span(Some(age)))),
            names.health.as_deref().map(|health| format!("health: {health}")),
        ];
        let facts: Vec<String> = facts.into_iter().flatten().collect();
        vec![
            Line::from(vec![
                Span::styled(name, look.strong()),
                Span::styled(format!("  {}", facts.join(look.dot())), look.quiet()),
            ]),
            Line::default(),
        ]
    }

    /// A section, unless nothing is known of it.
    fn section(
        &self,
        section: &Section,
        told: &answer::Detail,
        look: Look,
        width: usize,
    ) -> Option<Vec<Line<'static>>> {
        let with_most = width >= WITH_MOST;
        let figures = if with_most { 3 } else { 1 };
        let graph = width.saturating_sub(2 + NAME + figures * (FIGURE + 1) + 2);
        let window = told.window.max(LEAST_WINDOW_MS);
        let known =
            |key: &str| self.series.figures.get(key).filter(|values| values.iter().any(Option::is_some));
        let shown: Vec<(&str, &Column)> =
            section.figures.iter().filter_map(|(name, key)| Some((*name, known(key)?))).collect();
        let top = shown
            .iter()
            .flat_map(|(_, values)| values.iter())
            .flatten()
            .copied()
            .fold(section.least, f64::max);
        if shown.is_empty() {
            return None;
        }
        let limit = match section.title {
            "CPU" => told.cpu_limit,
            "Memory" => told.memory_limit,
            _ => None,
        };
        let note = limit.map_or_else(
            || section.note.to_owned(),
            |limit| format!("of at most {}", (section.text)(Some(limit))),
        );
        let note = fit(&note, graph, look.cut());
        let title = Span::styled(format!("{:<1$}", section.title, 2 + NAME), look.strong());
        let headings = if with_most {
            format!("{:>FIGURE$} {:>FIGURE$} {:>FIGURE$} ", "now", "mean", "most")
        } else {
            format!("{:>FIGURE$} ", "now")
        };
        let mut lines = vec![Line::from(vec![
            title,
            Span::styled(headings, look.quiet()),
            Span::styled(format!(" {note}"), look.quiet()),
        ])];
        let what = if section.title.starts_with("Memory") { What::Memory } else { What::Cpu };
        for (number, (name, values)) in shown.into_iter().enumerate() {
            let height = if number == 0 { section.height } else { 1 };
            let line = columns(&self.series.time, values, window, graph);
            let rows = look.ramp().columns(&line, top, height);
            for (row, graph) in rows.into_iter().enumerate() {
                let last = row + 1 == height;
                let label = if last { name } else { "" };
                let figures = if last { figures_of(section, values, with_most) } else { String::new() };
                lines.push(Line::from(vec![
                    Span::styled(format!("  {label:<NAME$}"), look.quiet()),
                    Span::styled(format!("{figures:<0$} ", figures_width(with_most)), look.tone(Tone::Plain)),
                    Span::styled(format!(" {graph}"), look.line(what)),
                ]));
            }
        }
        Some(lines)
    }
}

fn figures_width(with_most: bool) -> usize {
    if with_most { FIGURE * 3 + 2 } else { FIGURE }
}

/// The newest value, and of all those known the mean and the largest.
fn figures_of(section: &Section, values: &[Option<f64>], with_most: bool) -> String {
    let now = (section.text)(values.last().copied().flatten());
    if !with_most {
        return format!("{now:>FIGURE$}");
    }
    let known: Vec<f64> = values.iter().copied().flatten().collect();
    let mean = (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64);
    let most = known.iter().copied().reduce(f64::max);
    format!("{now:>FIGURE$} {:>FIGURE$} {:>FIGURE$}", (section.text)(mean), (section.text)(most))
}

type Facts = Vec<(String, Option<String>)>;

/// What it may use, what it keeps, and who it is; absent where it is not told.
fn facts(told: &answer::Detail, path: &str) -> [(&'static str, Facts); 3] {
    let limit = |key: &str, text: fn(Option<f64>) -> String| match told.spec.get(key)? {
        Value::Null => None,
        Value::String(_) => Some("none".to_owned()),
        Value::Number(number) => Some(text(number.as_f64())),
        told => Some(text(told.get("value")?.as_f64())),
    };
    let fact = |name: &str, value: Option<String>| (name.to_owned(), value);
    let cpu = told.cpu_limit.map(|cpu| text::cores(Some(cpu)));
    let limits = vec![
        fact("CPU", cpu.or_else(|| limit("cpu_quota_usec", text::count))),
        fact("CPU weight", limit("cpu_weight", text::count)),
        fact("CPU shares", limit("cpu_shares", text::count)),
        fact("memory", limit("memory_limit", text::bytes)),
        fact("throttled above", limit("memory_high", text::bytes)),
        fact("protected", limit("memory_reservation", text::bytes)),
        fact("swap", limit("memory_swap_limit", text::bytes)),
        fact("threads", limit("threads_max", text::count)),
        fact("OOM kills", told.oom_kills.map(|kills| kills.to_string())),
    ];
    let part = |part: &Part| {
        let inodes = part.inodes.map(|inodes| format!(", {} inodes", text::count(Some(inodes))));
        part.used_bytes.map(|used| format!("{}{}", text::bytes(Some(used)), inodes.unwrap_or_default()))
    };
    let mut disk = Vec::new();
    if let Some(told) = &told.disk {
        disk.push(fact("writable layer", told.layer.as_ref().and_then(part)));
        disk.push(fact("logs", told.logs.as_ref().and_then(part)));
        disk.extend(
            told.volumes.iter().map(|volume| fact(&format!("volume {}", &*volume.name), part(&volume.usage))),
        );
    }
    let word = |value: &Option<text::Text>| value.as_deref().map(str::to_owned);
    let identity = vec![
        fact("namespace", word(&told.identity.namespace)),
        fact("pod", word(&told.identity.pod)),
        fact("container", word(&told.identity.container)),
        fact("image", word(&told.identity.image)),
        fact("pod UID", word(&told.uid)),
        fact("id", told.container_id.as_deref().map(|id| id.chars().take(12).collect())),
        fact("cgroup", Some(text::clean(path))),
    ];
    [("Limits", limits), ("On disk", disk), ("Identity", identity)]
}
