//! The state on a screen of any size.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::answer::{Filesystem, Overview};
use super::keys::KEYS;
use super::past::What;
use super::rows::{self, View};
use super::state::{Over, State};
use super::table::{BY_NAME, COLUMNS, Cell, LINE, NAME_KEY, Tone, cells, waits};
use super::text::{self, fit};

/// Lines of the table that should have room before the summary gets any.
const TABLE: usize = 8;

/// Cells of a part of the summary, at least.
const PART: usize = 42;

/// Cells below which a line says the least.
const NARROW: usize = 60;

/// Cells of a note that are worth showing.
const NOTE: usize = 10;

/// Filesystems that are not worth a line: what lies in them is memory or an image.
const NOT_DISKS: [&str; 6] = ["tmpfs", "devtmpfs", "ramfs", "overlay", "squashfs", "efivarfs"];

/// Least tops of the scales of lines: thousandths of a core, bytes.
const LEAST_CPU: f64 = 10.0;
const LEAST_MEMORY: f64 = 1_048_576.0;

/// Draws all of it; notes in the state how much fits.
pub fn draw(state: &mut State, area: Rect, buffer: &mut Buffer) {
    if area.width < 4 || area.height == 0 {
        return;
    }
    let mut canvas = Canvas { buffer, area, y: 0 };
    canvas.line(&title(state, usize::from(area.width)));
    match &state.over {
        Over::Table => {
            for line in summary(state, usize::from(area.width), usize::from(area.height)) {
                canvas.line(&line);
            }
            table(state, &mut canvas);
        }
        Over::Help(..) | Over::Cgroup(_) => page(state, &mut canvas),
    }
    if area.height > 2 {
        canvas.y = area.height - 1;
        canvas.line(&foot(state, usize::from(area.width)));
    }
    state.look.tame(buffer);
}

/// Lines from the top on.
struct Canvas<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    y: u16,
}

impl Canvas<'_> {
    fn line(&mut self, line: &Line<'_>) {
        self.line_at(0, line, self.area.width);
        self.y += 1;
    }

    fn line_at(&mut self, x: u16, line: &Line<'_>, width: u16) {
        if self.y < self.area.height {
            let width = width.min(self.area.width.saturating_sub(x));
            self.buffer.set_line(self.area.x + x, self.area.y + self.y, line, width);
        }
    }

    /// Lines that are left above the last one.
    fn left(&self) -> usize {
        usize::from(self.area.height.saturating_sub(self.y + 1))
    }
}

fn width(line: &Line<'_>) -> usize {
    line.width()
}

/// Both ends of a line of so many cells; what does not fit is cut from the left one.
fn ends(mut left: Line<'static>, right: Line<'static>, cells: usize, mark: &str) -> Line<'static> {
    let room = cells.saturating_sub(width(&right) + 1);
    let mut used = 0;
    left.spans.retain_mut(|span| {
        let fitting = fit(&span.content, room.saturating_sub(used), mark);
        used += span.width();
        span.content = fitting.into();
        !span.content.is_empty()
    });
    let blank = cells.saturating_sub(width(&left) + width(&right));
    left.spans.push(Span::raw(" ".repeat(blank)));
    left.spans.extend(right.spans);
    left
}

/// Seconds since the epoch at which the figures were collected.
fn now(state: &State) -> u64 {
    state.told.as_ref().map_or(0, |told| told.time / 1000)
}

fn title(state: &State, cells: usize) -> Line<'static> {
    let look = state.look;
    let mut left = Line::default();
    if let Some(told) = &state.told {
        left.spans.push(Span::styled(told.node.to_string(), look.strong()));
        let machine = &told.machine;
        let hierarchy = match &*told.hierarchy {
            "hybrid" => "cgroup v1 + v2".to_owned(),
            other => format!("cgroup {other}"),
        };
        let up = machine.boot_time.and_then(|boot| now(state).checked_sub(boot));
        let facts = [
            Some(machine.os_version.to_string()).filter(|os| !os.is_empty()),
            Some(&machine.kernel_version)
                .filter(|version| !version.is_empty())
                .map(|v| format!("Linux {}", &**v)),
            Some(hierarchy),
            up.map(|up| format!("up {}", text::span(Some(up)))),
        ];
        let facts: Vec<String> = facts.into_iter().flatten().collect();
        left.spans.push(Span::styled(format!("  {}", facts.join(look.dot())), look.quiet()));
    } else {
        left.spans.push(Span::styled("nodegauge", look.strong()));
    }
    ends(left, standing(state, cells), cells, look.cut())
}

/// Whether the figures are live, and since when they are not.
fn standing(state: &State, cells: usize) -> Line<'static> {
    let look = state.look;
    if let Some(lost) = &state.lost {
        let since = lost.since.elapsed().as_secs();
        let room = cells.saturating_sub(cells / 4);
        let text = format!(" no answer since {} ({since} s): {} ", text::clock(lost.since_ms), lost.why);
        return Line::styled(fit(&text, room, look.cut()), look.alarm());
    }
    let Some(age) = state.age() else { return Line::styled("connecting", look.quiet()) };
    let age = age.as_secs();
    if state.paused {
        return Line::styled(format!(" paused, figures are {age} s old "), look.tone(Tone::Warn));
    }
    // Slow is not lost, but not live either.
    if age > state.pace.as_secs() * 2 + 3 {
        return Line::styled(format!(" figures are {age} s old "), look.tone(Tone::Warn));
    }
    if cells < NARROW {
        return Line::styled("live", look.good());
    }
    let pace = humantime::format_duration(state.pace);
    Line::from(vec![
        Span::styled("live", look.good()),
        Span::styled(
            format!(", every {pace}  {}", text::clock(state.told.as_ref().map_or(0, |told| told.time))),
            look.quiet(),
        ),
    ])
}

/// The machine, in as many columns and lines as there is room for.
fn summary(state: &State, cells: usize, height: usize) -> Vec<Line<'static>> {
    let Some(told) = &state.told else { return Vec::new() };
    let columns = (cells / PART).clamp(1, 3);
    let room = height.saturating_sub(TABLE + 4);
    let each = cells / columns;
    let mut parts = parts(state, told, each.saturating_sub(2));
    parts.truncate(room * columns);
    let join = |parts: &[Line<'static>]| {
        let mut joined = Line::default();
        for part in parts {
            let blank = each.saturating_sub(width(part));
            joined.spans.extend(part.spans.iter().cloned());
            joined.spans.push(Span::raw(" ".repeat(blank)));
        }
        joined
    };
    let mut lines: Vec<Line<'static>> = parts.chunks(columns).map(join).collect();
    if !lines.is_empty() {
        lines.push(Line::default());
    }
    lines
}

/// Parts of the summary, each of so many cells at most.
pub fn parts(state: &State, told: &Overview, cells: usize) -> Vec<Line<'static>> {
    let look = state.look;
    let part = |name: &str, value: String, tone: Tone, rest: String| {
        Line::from(vec![
            Span::styled(format!("{name:<9}"), look.quiet()),
            Span::styled(value, look.tone(tone).patch(look.strong())),
            Span::raw(rest),
        ])
    };
    let with_line = |mut line: Line<'static>, what: What, least: f64| {
        // Lines of a machine begin at the same place in each part.
        let blank = 36_usize.saturating_sub(width(&line)).max(1);
        let room = cells.saturating_sub(width(&line) + blank).min(40);
        if room >= 6 {
            let drawn = look.ramp().columns(&state.past.line(what, &["/"], room), least, 1).concat();
            line.spans.extend([Span::raw(" ".repeat(blank)), Span::styled(drawn, look.line(what))]);
        }
        line
    };
    let machine = told.columns.row(0);
    let cores = told.machine.cores.map(|cores| cores as f64);
    let share = |part: Option<f64>, of: Option<f64>| Some(part? * 100.0 / of.filter(|of| *of > 0.0)?);
    let high = |share: Option<f64>| match share {
        Some(share) if share >= 95.0 => Tone::Bad,
        Some(share) if share >= 80.0 => Tone::Warn,
        _ => Tone::Plain,
    };
    let cpu = share(machine.cpu, cores.map(|cores| cores * 1000.0));
    let of_cores = machine.cpu.map(|cpu| {
        format!(
            "  {:.2} of {} cores",
            cpu / 1000.0,
            told.machine.cores.map_or_else(|| "?".to_owned(), |cores| cores.to_string())
        )
    });
    let memory_bytes = told.machine.memory_bytes.map(|bytes| bytes as f64);
    let memory = share(machine.memory, memory_bytes);
    let of_memory =
        machine.memory.map(|_| format!("  {} of {}", text::bytes(machine.memory), text::bytes(memory_bytes)));
    let load = told.load.map(|loads| loads.map(|load| format!("{:.2}", f64::from(load) / 100.0)));
    let loads = load.as_ref().map_or_else(String::new, |[_, five, fifteen]| {
        format!(" {five} {fifteen}  {} tasks", text::count(told.tasks.map(|tasks| tasks as f64)))
    });
    let waiting = waits(&machine);
    let pressures =
        [("CPU", machine.cpu_pressure), ("memory", machine.memory_pressure), ("I/O", machine.io_pressure)];
    let pressures: Vec<String> =
        pressures.iter().map(|(name, value)| format!("{name} {}", text::percent(*value))).collect();
    let (pressure, pressure_tone) = match waiting {
        None => (text::ABSENT.to_owned(), Tone::Plain),
        Some(worst) if worst >= 50.0 => (pressures.join("  "), Tone::Bad),
        Some(worst) if worst >= 20.0 => (pressures.join("  "), Tone::Warn),
        Some(_) => (pressures.join("  "), Tone::Plain),
    };
    let mut parts = vec![
        with_line(
            part("CPU", text::percent(cpu), high(cpu), of_cores.unwrap_or_default()),
            What::Cpu,
            cores.map_or(LEAST_CPU, |cores| cores * 100.0),
        ),
        with_line(
            part("Memory", text::percent(memory), high(memory), of_memory.unwrap_or_default()),
            What::Memory,
            memory_bytes.unwrap_or(LEAST_MEMORY),
        ),
        part("Load", load.map_or_else(|| text::ABSENT.to_owned(), |[one, ..]| one), Tone::Plain, loads),
        part("Pressure", pressure, pressure_tone, String::new()),
        part(
            "Network",
            text::rate(machine.received),
            Tone::Plain,
            format!(" in  {} out", text::rate(machine.sent)),
        ),
        part(
            "Disks",
            text::rate(machine.read),
            Tone::Plain,
            format!(" read  {} written", text::rate(machine.written)),
        ),
    ];
    parts.extend(disks(told).into_iter().map(|(mount, used, available)| {
        let name = fit(mount, 20, look.cut());
        part(
            "Space",
            format!("{name} {}", text::percent(Some(used))),
            high(Some(used)),
            format!("  {} free", text::bytes(Some(available))),
        )
    }));
    parts
}

/// The three fullest disks: where, percent, bytes that are free.
fn disks(told: &Overview) -> Vec<(&str, f64, f64)> {
    let usable = |mount: &&Filesystem| mount.space.as_ref().is_some_and(|space| space.capacity_bytes > 0);
    let all: Vec<&Filesystem> = told.filesystems.mounts.iter().filter(usable).collect();
    let real: Vec<&Filesystem> =
        all.iter().copied().filter(|mount| !NOT_DISKS.contains(&&*mount.fs_type)).collect();
    let mut shown: Vec<(&str, f64, f64)> = if real.is_empty() { all } else { real }
        .into_iter()
        .filter_map(|mount| {
            let space = mount.space.as_ref()?;
            let (used, available) = (space.usage_bytes as f64, space.available_bytes as f64);
            Some((&*mount.mount_point, used * 100.0 / (used + available).max(1.0), available))
        })
        .collect();
    shown.sort_by(|a, b| b.1.total_cmp(&a.1));
    shown.truncate(3);
    shown
}

fn table(state: &mut State, canvas: &mut Canvas<'_>) {
    let cells_of = usize::from(canvas.area.width);
    state.page = canvas.left().saturating_sub(1).max(1);
    state.keep_in_sight();
    let layout = Layout::new(state, cells_of, true);
    canvas.line(&layout.heading(state));
    let (lines, _) = state.lines();
    let selected = state.selected_line(&lines);
    for (number, line) in lines.iter().enumerate().skip(state.offset).take(state.page) {
        canvas.line(&layout.row(state, line));
        if number == selected {
            let row = Rect { y: canvas.area.y + canvas.y - 1, height: 1, ..canvas.area };
            canvas.buffer.set_style(row, state.look.selected());
        }
    }
    if lines.is_empty() {
        let text = match (&state.told, state.filter.is_empty()) {
            (None, _) => "Waiting for the first answer.",
            (Some(_), true) => "Nothing is here; Tab shows something else.",
            (Some(_), false) => "Nothing matches; Esc takes the filter away.",
        };
        canvas.line(&Line::styled(text, state.look.quiet()));
    }
}

/// Which columns there are.
#[derive(Debug)]
pub struct Layout {
    name: usize,
    cells: Vec<Cell>,
}

impl Layout {
    /// What fits so many cells, with lines of the last minutes or without.
    pub fn new(state: &State, width: usize, lines: bool) -> Layout {
        let cells = cells(width, state.sort, lines);
        let beside: usize = cells.iter().map(|cell| cell.width() + 1).sum();
        Layout { name: width.saturating_sub(beside), cells }
    }

    /// All columns, and names of so many cells.
    pub fn whole(state: &State, name: usize) -> Layout {
        Layout { name, cells: cells(usize::MAX, state.sort, false) }
    }

    /// The line of headings.
    pub fn heading(&self, state: &State) -> Line<'static> {
        let look = state.look;
        let first = match state.view {
            View::Pods => "POD",
            View::Containers => "CONTAINER",
            View::Tree => "CGROUP",
        };
        let arrow = look.arrow(state.down);
        let marked =
            |title: &str, sorted: bool| if sorted { format!("{title}{arrow}") } else { title.to_owned() };
        let first = marked(first, state.sort.is_none());
        let mut line = Line::styled(format!("{:<1$}", fit(&first, self.name, ""), self.name), look.heading());
        for cell in &self.cells {
            let text = match cell {
                Cell::Line(_) => " ".repeat(LINE + 1),
                Cell::Figure(column) => {
                    let sorted = state.sort.is_some_and(|sort| sort.name == column.name);
                    format!(" {:>1$}", marked(column.title, sorted), column.width)
                }
            };
            line.spans.push(Span::styled(text, look.heading()));
        }
        line
    }

    /// A line of the table.
    pub fn row(&self, state: &State, line: &rows::Line<'_>) -> Line<'static> {
        let look = state.look;
        let rows::Line { node, depth, open } = *line;
        let twist = if node.children.is_empty() { " " } else { look.twist(open) };
        let name = format!("{}{twist} {}", "  ".repeat(depth.min(20)), node.name);
        let style = if node.group { look.strong() } else { Style::new() };
        let mut spans = vec![Span::styled(fit(&name, self.name, look.cut()), style)];
        let room = self.name.saturating_sub(Span::raw(&name).width() + 2);
        if room >= NOTE.min(Span::raw(&node.note).width()) && !node.note.is_empty() {
            spans.push(Span::styled(format!("  {}", fit(&node.note, room, look.cut())), look.quiet()));
        }
        let used: usize = spans.iter().map(Span::width).sum();
        spans.push(Span::raw(" ".repeat(self.name.saturating_sub(used))));
        for cell in &self.cells {
            spans.push(match cell {
                Cell::Line(what) => {
                    let least = match what {
                        What::Cpu => LEAST_CPU,
                        What::Memory => LEAST_MEMORY,
                    };
                    let ids: Vec<&str> = node.lines.iter().map(String::as_str).collect();
                    let values = state.past.line(*what, &ids, LINE);
                    Span::styled(
                        format!(" {}", look.ramp().columns(&values, least, 1).concat()),
                        look.line(*what),
                    )
                }
                Cell::Figure(column) => {
                    let text = (column.text)(node, now(state));
                    let style = if text == text::ABSENT || text == "0" {
                        look.quiet()
                    } else {
                        look.tone((column.tone)(node))
                    };
                    Span::styled(format!(" {text:>0$}", column.width), style)
                }
            });
        }
        Line::from(spans)
    }
}

/// One cgroup or the help, scrolled.
fn page(state: &mut State, canvas: &mut Canvas<'_>) {
    let cells = usize::from(canvas.area.width);
    let now = now(state);
    let (head, columns) = match &state.over {
        Over::Cgroup(opened) => opened.text(state.look, cells, now),
        _ => (Vec::new(), vec![help(state)]),
    };
    head.iter().for_each(|line| canvas.line(line));
    state.page = canvas.left().max(1);
    let most = columns.iter().map(Vec::len).max().unwrap_or(0).saturating_sub(state.page);
    let offset = match &mut state.over {
        Over::Cgroup(opened) => &mut opened.offset,
        Over::Help(offset, _) => offset,
        Over::Table => return,
    };
    *offset = (*offset).min(most);
    let (offset, top) = (*offset, canvas.y);
    let each = canvas.area.width / u16::try_from(columns.len().max(1)).unwrap_or(1);
    let mut x = 0;
    for lines in &columns {
        canvas.y = top;
        for line in lines.iter().skip(offset).take(state.page) {
            canvas.line_at(x, line, each.saturating_sub(1).max(1));
            canvas.y += 1;
        }
        x += each;
    }
}

/// Keys, and columns with the keys that sort by them.
fn help(state: &State) -> Vec<Line<'static>> {
    let look = state.look;
    let entry = |shown: &str, what: &str| {
        Line::from(vec![Span::styled(format!("  {shown:<14}"), look.strong()), Span::raw(what.to_owned())])
    };
    let mut lines = vec![Line::styled("Keys", look.heading())];
    lines.extend(KEYS.iter().filter(|key| !key.shown.is_empty()).map(|key| entry(key.shown, key.what)));
    lines.extend([
        Line::default(),
        Line::styled("Columns, and keys to sort by them; the same again turns the order", look.heading()),
    ]);
    lines.push(entry(&format!("{NAME_KEY}"), BY_NAME));
    lines.extend(
        COLUMNS.iter().map(|column| entry(&format!("{}  {}", column.key, column.title), column.what)),
    );
    lines.extend([Line::default(), Line::raw("  A figure that is not known is -, never 0.")]);
    lines
}

fn foot(state: &State, cells: usize) -> Line<'static> {
    let look = state.look;
    if state.typing {
        return Line::from(vec![
            Span::styled("filter: ", look.strong()),
            Span::raw(text::clean(&state.filter)),
            Span::styled(" ", look.selected()),
        ]);
    }
    let keys = match state.over {
        Over::Table => "/ filter  Tab view  Enter open  ? help  q quit",
        Over::Cgroup(_) => "Up Down scroll  Esc back  q quit",
        Over::Help(..) => "Up Down scroll  Esc back",
    };
    let mut left = Line::default();
    if let (Over::Table, Some(told)) = (&state.over, &state.told) {
        let (lines, matched) = state.lines();
        let all =
            if state.view == View::Tree && state.filter.is_empty() { state.rows.len() } else { matched };
        let last = (state.offset + state.page).min(lines.len());
        left.spans.push(Span::raw(format!("{all} {}", state.view.title())));
        if lines.len() > state.page {
            left.spans.push(Span::styled(
                format!(", lines {}-{last} of {}", state.offset + 1, lines.len()),
                look.quiet(),
            ));
        }
        if told.more > 0 {
            left.spans
                .push(Span::styled(format!(", {} cgroups are not shown", told.more), look.tone(Tone::Warn)));
        }
        if !state.filter.is_empty() {
            left.spans.push(Span::styled(format!("  filter: {}", text::clean(&state.filter)), look.strong()));
        }
    }
    let wide = cells >= width(&left) + keys.len() + 2;
    let keys = if wide { keys } else { "? help" };
    ends(left, Line::styled(keys, look.quiet()), cells, look.cut())
}
