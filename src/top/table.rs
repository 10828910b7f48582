//! The columns of the table: what they show, how they sort, and which of them have room.

use super::answer::Figures;
use super::past::What;
use super::rows::Node;
use super::text;

/// Cells a name should have before another column is shown beside it.
const NAME: usize = 24;

/// Cells of a line of the last minutes.
pub const LINE: usize = 12;

/// How alarming a figure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Not at all.
    Plain,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
}

/// A figure's column.
#[derive(Debug)]
pub struct Column {
    /// What `--sort` calls it.
    pub name: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// The key that sorts by it.
    pub key: char,
    /// What it shows, for the help.
    pub what: &'static str,
    /// Cells.
    pub width: usize,
    /// The lower, the sooner it has room.
    rank: u8,
    /// Drawn before it.
    pub line: Option<(What, u8)>,
    /// By which it is sorted.
    pub value: fn(&Node) -> Option<f64>,
    /// As it is shown, at so many seconds since the epoch.
    pub text: fn(&Node, u64) -> String,
    /// How alarming it is.
    pub tone: fn(&Node) -> Tone,
}

fn plain(_: &Node) -> Tone {
    Tone::Plain
}

fn tone(value: Option<f64>, warn: f64, bad: f64) -> Tone {
    match value {
        Some(value) if value >= bad => Tone::Bad,
        Some(value) if value >= warn => Tone::Warn,
        _ => Tone::Plain,
    }
}

/// Percent of the memory limit.
fn share(node: &Node) -> Option<f64> {
    let limit = node.figures.memory_limit.filter(|limit| *limit > 0.0)?;
    Some(node.figures.memory? * 100.0 / limit)
}

/// The worst of the three pressures.
pub fn waits(figures: &Figures) -> Option<f64> {
    [figures.cpu_pressure, figures.memory_pressure, figures.io_pressure]
        .into_iter()
        .flatten()
        .reduce(f64::max)
}

/// All, in the order they are shown.
pub static COLUMNS: [Column; 13] = [
    Column {
        name: "cpu",
        title: "CPU",
        key: 'c',
        what: "thousandths of a core, mean since the update before",
        width: 7,
        rank: 0,
        line: Some((What::Cpu, 2)),
        value: |node| node.figures.cpu,
        text: |node, _| text::cores(node.figures.cpu),
        tone: plain,
    },
    Column {
        name: "throttled",
        title: "THROT",
        key: 't',
        what: "share of CPU periods in which it was held back by its limit",
        width: 6,
        rank: 7,
        line: None,
        value: |node| node.figures.throttled,
        text: |node, _| text::percent(node.figures.throttled),
        tone: |node| tone(node.figures.throttled, 5.0, 25.0),
    },
    Column {
        name: "memory",
        title: "MEMORY",
        key: 'm',
        what: "working set: in use and not to be had back without effort",
        width: 8,
        rank: 1,
        line: Some((What::Memory, 4)),
        value: |node| node.figures.memory,
        text: |node, _| text::bytes(node.figures.memory),
        tone: plain,
    },
    Column {
        name: "limit",
        title: "LIMIT",
        key: 'l',
        what: "working set as a share of the memory limit",
        width: 5,
        rank: 3,
        line: None,
        value: share,
        text: |node, _| text::percent(share(node)),
        tone: |node| tone(share(node), 80.0, 95.0),
    },
    Column {
        name: "received",
        title: "NET IN",
        key: 'i',
        what: "received by network",
        width: 10,
        rank: 5,
        line: None,
        value: |node| node.figures.received,
        text: |node, _| text::rate(node.figures.received),
        tone: plain,
    },
    Column {
        name: "sent",
        title: "NET OUT",
        key: 'o',
        what: "sent by network",
        width: 10,
        rank: 5,
        line: None,
        value: |node| node.figures.sent,
        text: |node, _| text::rate(node.figures.sent),
        tone: plain,
    },
    Column {
        name: "read",
        title: "READ",
        key: 'r',
        what: "read from disks",
        width: 10,
        rank: 8,
        line: None,
        value: |node| node.figures.read,
        text: |node, _| text::rate(node.figures.read),
        tone: plain,
    },
    Column {
        name: "written",
        title: "WRITTEN",
        key: 'w',
        what: "written to disks",
        width: 10,
        rank: 8,
        line: None,
        value: |node| node.figures.written,
        text: |node, _| text::rate(node.figures.written),
        tone: plain,
    },
    Column {
        name: "pressure",
        title: "WAIT",
        key: 'p',
        what: "pressure: time something waited for CPU, memory or I/O, the worst of the three",
        width: 5,
        rank: 6,
        line: None,
        value: |node| waits(&node.figures),
        text: |node, _| text::percent(waits(&node.figures)),
        tone: |node| tone(waits(&node.figures), 20.0, 50.0),
    },
    Column {
        name: "threads",
        title: "THREADS",
        key: 'h',
        what: "how many there are",
        width: 7,
        rank: 9,
        line: None,
        value: |node| node.figures.threads,
        text: |node, _| text::count(node.figures.threads),
        tone: plain,
    },
    Column {
        name: "disk",
        title: "DISK",
        key: 'd',
        what: "writable layer, logs and volumes",
        width: 8,
        rank: 10,
        line: None,
        value: |node| node.figures.disk,
        text: |node, _| text::bytes(node.figures.disk),
        tone: plain,
    },
    Column {
        name: "oom",
        title: "OOM",
        key: 'x',
        what: "processes killed for want of memory",
        width: 4,
        rank: 9,
        line: None,
        value: |node| node.figures.oom_kills,
        text: |node, _| text::count(node.figures.oom_kills),
        tone: |node| tone(node.figures.oom_kills, 1.0, 1.0),
    },
    Column {
        name: "age",
        title: "AGE",
        key: 'a',
        what: "time since it was made, the youngest first",
        width: 6,
        rank: 10,
        line: None,
        value: |node| node.created.map(|created| created as f64),
        text: |node, now| text::span(node.created.and_then(|created| now.checked_sub(created))),
        tone: plain,
    },
];

/// What `--sort` and the heading call the column of names.
pub const BY_NAME: &str = "name";

/// The key that sorts by name.
pub const NAME_KEY: char = 'n';

/// A column of that name; `None` for the one of names.
///
/// # Errors
/// There is none; in words for the user.
pub fn column(name: &str) -> Result<Option<&'static Column>, String> {
    if name == BY_NAME {
        return Ok(None);
    }
    let known = || COLUMNS.iter().map(|column| column.name).collect::<Vec<_>>().join(", ");
    let found = COLUMNS.iter().find(|column| column.name == name);
    found.map(Some).ok_or_else(|| format!("accepted: {BY_NAME}, {}", known()))
}

/// Something beside the name.
#[derive(Debug, Clone, Copy)]
pub enum Cell {
    /// The last minutes.
    Line(What),
    /// A figure.
    Figure(&'static Column),
}

impl Cell {
    /// Its cells, without what parts it from the one before.
    pub fn width(self) -> usize {
        match self {
            Cell::Line(_) => LINE,
            Cell::Figure(column) => column.width,
        }
    }
}

/// What has room beside names in `width` cells: always what it is sorted by. With lines or without.
pub fn cells(width: usize, sorted: Option<&Column>, lines: bool) -> Vec<Cell> {
    let upto = |rank: u8| {
        let mut cells = Vec::new();
        for column in &COLUMNS {
            if let Some((what, line)) = column.line
                && lines
                && line <= rank
            {
                cells.push(Cell::Line(what));
            }
            if column.rank <= rank || sorted.is_some_and(|sorted| sorted.name == column.name) {
                cells.push(Cell::Figure(column));
            }
        }
        cells
    };
    let room = |cells: &[Cell]| NAME + cells.iter().map(|cell| cell.width() + 1).sum::<usize>() <= width;
    let ranks = (0..=10).rev().map(upto);
    let mut fitting = ranks.skip_while(|cells| !room(cells));
    fitting.next().unwrap_or_else(|| upto(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_terminals_keep_what_matters() {
        let check = |width: usize, sorted: &str, expected: &str| {
            let cells = cells(width, column(sorted).unwrap(), true);
            let titles: Vec<&str> = cells
                .iter()
                .map(|cell| match cell {
                    Cell::Line(_) => "~",
                    Cell::Figure(column) => column.title,
                })
                .collect();
            assert_eq!(titles.join(" "), expected, "{width}");
        };
        check(10, "name", "CPU");
        check(40, "name", "CPU");
        check(41, "name", "CPU MEMORY");
        check(80, "cpu", "~ CPU ~ MEMORY LIMIT");
        check(79, "age", "~ CPU MEMORY LIMIT AGE");
        check(100, "cpu", "~ CPU ~ MEMORY LIMIT NET IN NET OUT");
        check(300, "cpu", "~ CPU THROT ~ MEMORY LIMIT NET IN NET OUT READ WRITTEN WAIT THREADS DISK OOM AGE");
    }

    #[test]
    fn each_column_has_a_key_and_a_name_of_its_own() {
        let mut keys: Vec<char> = COLUMNS.iter().map(|column| column.key).chain([NAME_KEY]).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), COLUMNS.len() + 1);
        let error = column("size").unwrap_err();
        assert!(
            error.starts_with("accepted: name, cpu, throttled, memory, ") && error.ends_with("age"),
            "{error}"
        );
    }
}
