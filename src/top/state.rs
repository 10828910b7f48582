//! What is told, what is shown of it, and what keys change.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::answer::{Detail, Overview, Row};
use super::detail::Opened;
use super::look::Look;
use super::past::Past;
use super::rows::{Line, Node, View, Wanted, lines, nodes};
use super::table::Column;

/// What is asked for: changes when keys do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Time between two questions.
    pub pace: Duration,
    /// Nothing is asked meanwhile.
    pub paused: bool,
    /// Which opening of a cgroup is shown, and its path: of another one nothing is known yet.
    pub detail: Option<(u64, String)>,
}

/// What lies over the table.
#[derive(Debug)]
pub enum Over {
    /// Nothing.
    Table,
    /// One cgroup.
    Cgroup(Box<Opened>),
    /// The keys, scrolled by so many lines, and what lies below them.
    Help(usize, Option<Box<Opened>>),
}

/// How the table is to be at first.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// What it shows; pods, where there are some.
    pub view: Option<View>,
    /// What it is sorted by; CPU use, and the tree by name.
    pub sort: Option<Option<&'static Column>>,
    /// Words that lines must have.
    pub filter: String,
}

/// Since when there is no answer, and why.
#[derive(Debug, Clone)]
pub struct Lost {
    /// When the first question failed.
    pub since: Instant,
    /// The same by the clock, milliseconds since the epoch.
    pub since_ms: u64,
    /// Why the last one did.
    pub why: String,
}

/// See the module.
#[derive(Debug)]
pub struct State {
    /// Of the terminal.
    pub look: Look,
    /// The last answer.
    pub told: Option<Overview>,
    /// Who its rows are.
    pub rows: Vec<Row>,
    /// What they used.
    pub past: Past,
    /// When the last answer came.
    pub answered: Option<Instant>,
    /// Why there is none.
    pub lost: Option<Lost>,
    /// Time between two answers.
    pub pace: Duration,
    /// Whether nothing is asked.
    pub paused: bool,
    /// What the table shows.
    pub view: View,
    /// Whether by namespace.
    pub grouped: bool,
    /// What it is sorted by; by names without it.
    pub sort: Option<&'static Column>,
    /// The largest first.
    pub down: bool,
    /// Words that lines must have.
    pub filter: String,
    /// Whether keys are letters of the filter.
    pub typing: bool,
    /// What lies over the table.
    pub over: Over,
    /// What was opened and closed by hand.
    pub toggled: HashMap<String, bool>,
    /// Key of the line that keys are about.
    pub selected: Option<String>,
    /// Where it was last, from the top of the table.
    pub at: usize,
    /// The first line that is shown.
    pub offset: usize,
    /// Lines that fit.
    pub page: usize,
    nodes: Vec<Node>,
    chosen: Choices,
    openings: u64,
}

impl State {
    /// Nothing is told yet.
    pub fn new(look: Look, pace: Duration, chosen: Choices) -> State {
        State {
            look,
            told: None,
            rows: Vec::new(),
            past: Past::default(),
            answered: None,
            lost: None,
            pace,
            paused: false,
            view: chosen.view.unwrap_or(View::Pods),
            grouped: true,
            sort: None,
            down: true,
            filter: chosen.filter.clone(),
            typing: false,
            over: Over::Table,
            toggled: HashMap::new(),
            selected: None,
            at: 0,
            offset: 0,
            page: 1,
            nodes: Vec::new(),
            chosen,
            openings: 0,
        }
    }

    /// What is to be asked for.
    pub fn wish(&self) -> Wish {
        let detail = match &self.over {
            Over::Cgroup(opened) | Over::Help(_, Some(opened)) => Some((opened.number, opened.path.clone())),
            Over::Table | Over::Help(_, None) => None,
        };
        Wish { pace: self.pace, paused: self.paused, detail }
    }

    /// Takes what was told of all.
    pub fn take(&mut self, mut answer: Overview) {
        if let Some(rows) = answer.rows.take() {
            self.rows = rows;
        }
        self.past.take(&answer, &self.rows);
        if self.told.is_none() {
            self.show(self.chosen.view.unwrap_or_else(|| View::best(&self.rows)));
            if let Some(sort) = self.chosen.sort {
                self.sort_by(sort);
            }
        }
        self.told = Some(answer);
        self.answered = Some(Instant::now());
        self.lost = None;
        self.arrange();
    }

    /// Shows the cgroup of a line by itself.
    pub fn open(&mut self, mut opened: Opened) {
        self.openings += 1;
        opened.number = self.openings;
        self.over = Over::Cgroup(Box::new(opened));
    }

    /// Takes what was told of the cgroup that was opened so, or that it is gone.
    pub fn take_detail(&mut self, number: u64, detail: Option<Detail>) {
        if let Over::Cgroup(opened) | Over::Help(_, Some(opened)) = &mut self.over
            && opened.number == number
        {
            opened.take(detail);
        }
    }

    /// Takes that there was no answer.
    pub fn take_loss(&mut self, why: String) {
        let lost = self.lost.take();
        let since = lost.as_ref().map_or_else(Instant::now, |lost| lost.since);
        let since_ms = lost.map_or_else(crate::collect::sampler::wall_ms, |lost| lost.since_ms);
        self.lost = Some(Lost { since, since_ms, why });
    }

    /// How old the figures are by the clock here.
    pub fn age(&self) -> Option<Duration> {
        self.answered.map(|answered| answered.elapsed())
    }

    /// Changes what the table shows, to the order that suits it.
    pub fn show(&mut self, view: View) {
        let by_name = |view| view == View::Tree;
        if self.told.is_none() || by_name(self.view) != by_name(view) {
            self.sort_by(if by_name(view) { None } else { super::table::COLUMNS.first() });
        }
        self.view = view;
        (self.selected, self.at, self.offset) = (None, 0, 0);
        self.arrange();
    }

    /// Sorts by another column from the largest on, by names from the first on; by
    /// the same in the other direction.
    pub fn sort_by(&mut self, column: Option<&'static Column>) {
        let same = self.sort.map(|sort| sort.name) == column.map(|column| column.name);
        self.down = if same && self.told.is_some() { !self.down } else { column.is_some() };
        self.sort = column;
    }

    /// Makes the tree anew.
    pub fn arrange(&mut self) {
        if let Some(told) = &self.told {
            self.nodes = nodes(&self.rows, &told.columns, self.view, self.grouped);
        }
    }

    /// The lines of the table, and how many match the filter.
    pub fn lines(&self) -> (Vec<Line<'_>>, usize) {
        let by = self.sort.map(|column| column.value);
        let wanted = Wanted { by, down: self.down, filter: &self.filter, toggled: &self.toggled };
        lines(&self.nodes, &wanted)
    }

    /// The number of the line that keys are about.
    pub fn selected_line(&self, lines: &[Line<'_>]) -> usize {
        let key = self.selected.as_deref();
        let found = lines.iter().position(|line| Some(line.node.key.as_str()) == key);
        found.unwrap_or_else(|| self.at.min(lines.len().saturating_sub(1)))
    }

    /// Makes the line of that number the selected one and brings it into sight.
    pub fn select(&mut self, number: usize) {
        let lines = self.lines().0;
        let number = number.min(lines.len().saturating_sub(1));
        let key = lines.get(number).map(|line| line.node.key.clone());
        (self.selected, self.at) = (key, number);
        self.keep_in_sight();
    }

    /// Scrolls as little as it takes to see the selected line; until one was
    /// selected, the top stays in sight whatever becomes first.
    pub fn keep_in_sight(&mut self) {
        let lines = self.lines().0;
        let (at, count) = (self.selected_line(&lines), lines.len());
        self.at = at;
        self.offset =
            self.offset.min(count.saturating_sub(self.page)).min(at).max((at + 1).saturating_sub(self.page));
    }
}
