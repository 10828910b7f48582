//! The last minutes of every row, for its lines: what the first answer told, and from then on what each
//! answer adds.

use std::collections::{HashMap, VecDeque};

use super::answer::{Overview, Row, add};

/// A pair of answers further apart than so many of the steps before has a gap between them.
const GAP: u64 = 4;

/// However short the window is, lines of it would not be worth drawing.
const LEAST_WINDOW_MS: u64 = 60_000;

/// Figures of one row, one for each of the times.
#[derive(Debug, Clone, Default)]
struct Line {
    cpu: VecDeque<Option<f64>>,
    memory: VecDeque<Option<f64>>,
}

/// Which line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Thousandths of a core.
    Cpu,
    /// Bytes.
    Memory,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Past {
    /// Milliseconds since the epoch, ascending.
    times: VecDeque<u64>,
    window: u64,
    lines: HashMap<String, Line>,
}

impl Past {
    /// Takes an answer; `rows` are its rows.
    pub fn take(&mut self, answer: &Overview, rows: &[Row]) {
        self.window = answer.window.max(LEAST_WINDOW_MS);
        if let Some(told) = &answer.past {
            let points = told.cpu.first().map_or(0, Vec::len) as u64;
            let time = |point: u64| answer.time.saturating_sub((points - 1 - point) * told.step);
            self.times = (0..points).map(time).collect();
            let of = |columns: &[Vec<Option<f64>>], number: usize| {
                let mut line: VecDeque<_> = columns.get(number).cloned().unwrap_or_default().into();
                line.resize(self.times.len(), None);
                line
            };
            let line = |number| Line { cpu: of(&told.cpu, number), memory: of(&told.memory, number) };
            self.lines =
                rows.iter().enumerate().map(|(number, row)| (row.id.clone(), line(number))).collect();
        } else if self.times.back().is_none_or(|last| answer.time > *last) {
            self.mark_gap(answer.time);
            self.times.push_back(answer.time);
            let mut known = std::mem::take(&mut self.lines);
            for (number, row) in rows.iter().enumerate() {
                let mut line = known.remove(&row.id).unwrap_or_default();
                let now = answer.columns.row(number);
                for (values, value) in [(&mut line.cpu, now.cpu), (&mut line.memory, now.memory)] {
                    values.resize(self.times.len() - 1, None);
                    values.push_back(value);
                }
                self.lines.insert(row.id.clone(), line);
            }
        }
        self.forget(answer.time);
    }

    /// Where nothing was told for long there is nothing to draw.
    fn mark_gap(&mut self, time: u64) {
        let (Some(last), Some(before)) = (self.times.back(), self.times.iter().nth_back(1)) else { return };
        let step = last - before;
        if step > 0 && time - last > step.saturating_mul(GAP) {
            self.times.push_back(time - step);
        }
    }

    fn forget(&mut self, time: u64) {
        let oldest = time.saturating_sub(self.window);
        let old =
            self.times.iter().take_while(|t| **t < oldest).count().min(self.times.len().saturating_sub(2));
        self.times.drain(..old);
        for line in self.lines.values_mut() {
            line.cpu.drain(..old.min(line.cpu.len()));
            line.memory.drain(..old.min(line.memory.len()));
        }
    }

    /// The sum of the lines of `ids`, as `width` columns over the window.
    pub fn line(&self, what: What, ids: &[&str], width: usize) -> Vec<Option<f64>> {
        let mut sum: Vec<Option<f64>> = vec![None; self.times.len()];
        for line in ids.iter().filter_map(|id| self.lines.get(*id)) {
            let values = match what {
                What::Cpu => &line.cpu,
                What::Memory => &line.memory,
            };
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum = add(*sum, *value));
        }
        let times: Vec<u64> = self.times.iter().copied().collect();
        columns(&times, &sum, self.window, width)
    }
}

/// Values at `times` as `width` columns, each the mean of those in its share of the window, up to the
/// last. A value holds from the one before it on. Columns begin at multiples of their length, so that a
/// line moves by whole columns and none changes once it has passed.
pub fn columns(times: &[u64], values: &[Option<f64>], window: u64, width: usize) -> Vec<Option<f64>> {
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return vec![None; width] };
    let step = (window / (width as u64).max(1)).max(1);
    let end = last.div_ceil(step);
    let column = |number: usize| {
        let after = end.checked_sub((width - number) as u64)? * step;
        let to = after + step;
        let (from, until) = (times.partition_point(|t| *t <= after), times.partition_point(|t| *t <= to));
        let inside: Vec<f64> = values.get(from..until)?.iter().copied().flatten().collect();
        match inside.len() {
            0 if from < until || to < *first => None,
            0 => *values.get(until)?,
            many => Some(inside.iter().sum::<f64>() / many as f64),
        }
    };
    (0..width).map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::tests::overview;

    #[test]
    fn columns_hold_still_and_gaps_stay() {
        let times = [1000, 2000, 3000, 4000, 8000, 9000];
        let values = [Some(1.0), Some(3.0), None, Some(5.0), Some(7.0), Some(9.0)];
        let check = |window, width, expected: &[Option<f64>]| {
            assert_eq!(columns(&times, &values, window, width), expected, "{window}/{width}");
        };
        check(10_000, 5, &[Some(2.0), Some(5.0), Some(7.0), Some(7.0), Some(9.0)]);
        check(20_000, 4, &[None, None, Some(3.0), Some(8.0)]);
        check(9_000, 9, &[1.0, 3.0, -1.0, 5.0, 7.0, 7.0, 7.0, 7.0, 9.0].map(|v| (v >= 0.0).then_some(v)));
        assert_eq!(columns(&[], &[], 1000, 2), [None, None]);
    }

    #[test]
    fn lines_grow_by_answers_and_forget_what_is_old() {
        let mut past = Past::default();
        let first = overview(1_000_000);
        let rows = first.rows.clone().unwrap();
        past.take(&first, &rows);
        let pod = ["/kubepods/pod1/app"];
        assert_eq!(past.times.len(), 40);
        let cpu = past.line(What::Cpu, &pod, 4);
        assert!(cpu.iter().all(Option::is_some), "{cpu:?}");
        for second in 1..=200 {
            let mut answer = overview(1_000_000 + second * 1000);
            (answer.rows, answer.past) = (None, None);
            past.take(&answer, &rows);
        }
        assert!((120..=122).contains(&past.times.len()), "{}", past.times.len());
        assert!(past.lines.values().all(|line| line.cpu.len() == past.times.len()));
        // A minute without an answer, and a row that has gone.
        let mut late = overview(1_260_000);
        (late.rows, late.past) = (None, None);
        past.take(&late, &rows[..1]);
        assert_eq!(past.lines.len(), 1);
        let root = past.line(What::Memory, &["/"], 12);
        assert!(root[11].is_some() && root[8].is_none() && root[2].is_some(), "{root:?}");
        // What was told before is told again: nothing happens.
        let before = past.times.len();
        past.take(&late, &rows[..1]);
        assert_eq!(past.times.len(), before);
    }
}
