//! The last steps of one node, compressed: what the model answers from.
//!
//! The newest step lies open, since most questions are about it; each older one
//! lies as the differences from the step after it, so that a step that leaves
//! the window is simply dropped and a series is read from new to old, one column
//! at a time. Values are whole numbers or the bits of doubles; both come back
//! exactly as they were.
//!
//! ```text
//! column of a packed step: for each row, in order of the keys
//!     0x00, n    n + 1 rows that did not change
//!     varint     the difference, zigzag, never 0
//! ```
//!
//! A row that the newer step does not have counts as 0 there, and likewise a
//! column. A counter whose rate is there too is expected to have been the newer
//! value less the newer increase, which it is unless it began again: of two columns
//! that say the same one takes next to nothing. General compressors were considered: they need a step decompressed
//! as a whole to read one series of it.

mod saved;

pub use saved::SavedWindow;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use crate::push::batch::{Kind, METRICS};

/// The rows of a column: their keys, ascending, each once. Columns and steps share them.
pub type Keys = Arc<[u64]>;

/// What one step has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// The end of the step, milliseconds since the epoch.
    pub time_ms: u64,
    /// Row sets that columns name by index.
    pub sets: Vec<Keys>,
    /// In ascending order of `id`, each once.
    pub columns: Vec<Column>,
}

/// The values of one metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Which metric.
    pub id: u16,
    /// Index into [`Step::sets`].
    pub set: u16,
    /// One for each key.
    pub values: Vec<u64>,
}

impl Step {
    /// The column of that metric, with its keys.
    pub fn column(&self, id: u16) -> Option<(&Keys, &Column)> {
        let at = self.columns.binary_search_by_key(&id, |c| c.id).ok()?;
        let column = self.columns.get(at)?;
        Some((self.sets.get(usize::from(column.set))?, column))
    }

    /// The value of one series.
    pub fn value(&self, id: u16, key: u64) -> Option<u64> {
        let (keys, column) = self.column(id)?;
        column.values.get(keys.binary_search(&key).ok()?).copied()
    }
}

/// A step as differences from the one after it.
#[derive(Debug)]
struct Packed {
    time_ms: u64,
    sets: Box<[Keys]>,
    heads: Box<[Head]>,
    bytes: Box<[u8]>,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    id: u16,
    set: u16,
    /// Where its rows begin in `bytes`.
    start: u32,
}

/// A bounded number of steps, at ascending times.
#[derive(Debug)]
pub struct Window {
    newest: Option<Step>,
    /// From new to old.
    older: VecDeque<Packed>,
    most: usize,
}

impl Window {
    /// Room for `most` steps, at least one.
    pub fn new(most: usize) -> Window {
        Window { newest: None, older: VecDeque::new(), most: most.max(1) }
    }

    /// The newest step.
    pub fn newest(&self) -> Option<&Step> {
        self.newest.as_ref()
    }

    /// Times of its steps, from new to old.
    pub fn times(&self) -> impl Iterator<Item = u64> {
        self.newest.iter().map(|s| s.time_ms).chain(self.older.iter().map(|p| p.time_ms))
    }

    /// The keys of all its rows, many of them more than once.
    pub fn keys(&self) -> impl Iterator<Item = u64> {
        let newest = self.newest.iter().flat_map(|step| &step.sets);
        let older = self.older.iter().flat_map(|packed| &packed.sets);
        newest.chain(older).flat_map(|keys| keys.iter().copied())
    }

    /// Bytes it takes beside the newest step, without row sets that are shared.
    pub fn packed_bytes(&self) -> usize {
        let heads = |p: &Packed| p.heads.len() * size_of::<Head>();
        self.older.iter().map(|p| p.bytes.len() + heads(p) + size_of::<Packed>()).sum()
    }

    /// Puts a step in its place, instead of one of the same time. One older than
    /// all steps of a full window is not taken.
    pub fn insert(&mut self, mut step: Step) -> bool {
        match &self.newest {
            Some(newest) if newest.time_ms >= step.time_ms => return self.insert_late(step),
            _ => {}
        }
        if let Some(newest) = &self.newest {
            share(&mut step, &newest.sets);
        }
        if let Some(before) = self.newest.replace(step)
            && let Some(newest) = &self.newest
        {
            self.older.push_front(pack(&before, newest));
        }
        self.older.truncate(self.most - 1);
        true
    }

    /// Rare: a step that comes late, or again.
    fn insert_late(&mut self, step: Step) -> bool {
        let full = 1 + self.older.len() >= self.most;
        if full && self.times().last().is_some_and(|oldest| step.time_ms < oldest) {
            return false;
        }
        let mut steps = self.unpack();
        steps.retain(|s| s.time_ms != step.time_ms);
        let at = steps.partition_point(|s| s.time_ms < step.time_ms);
        steps.insert(at, step);
        *self = Window::new(self.most);
        for step in steps {
            self.insert(step);
        }
        true
    }

    /// The step of that time; the further back, the more it takes.
    pub fn at(&self, time_ms: u64) -> Option<Cow<'_, Step>> {
        let newest = self.newest.as_ref()?;
        if newest.time_ms == time_ms {
            return Some(Cow::Borrowed(newest));
        }
        let place = self.older.iter().position(|p| p.time_ms == time_ms)?;
        let mut packed = self.older.iter().take(place + 1);
        let first = unpack(packed.next()?, newest);
        Some(Cow::Owned(packed.fold(first, |newer, packed| unpack(packed, &newer))))
    }

    /// All steps, from old to new.
    pub fn unpack(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = self.newest.iter().cloned().collect();
        for packed in &self.older {
            if let Some(newer) = steps.last() {
                steps.push(unpack(packed, newer));
            }
        }
        steps.reverse();
        steps
    }

    /// Drops steps before `time_ms`.
    pub fn forget_before(&mut self, time_ms: u64) {
        while self.older.back().is_some_and(|p| p.time_ms < time_ms) {
            self.older.pop_back();
        }
        if self.newest.as_ref().is_some_and(|s| s.time_ms < time_ms) {
            self.newest = None;
        }
    }

    /// Hands the times and values of one series to `each`, from new to old.
    pub fn series(&self, id: u16, key: u64, mut each: impl FnMut(u64, u64)) {
        let Some(newest) = &self.newest else { return };
        let rate = rate_of(id);
        let mut value = newest.value(id, key);
        let mut rise = rate.and_then(|rate| newest.value(rate, key));
        if let Some(value) = value {
            each(newest.time_ms, value);
        }
        for packed in &self.older {
            let expected = value.unwrap_or(0).wrapping_sub(rise.unwrap_or(0));
            value = packed.difference(id, key).map(|difference| apply(expected, difference));
            let of_rate = rate.and_then(|rate| packed.difference(rate, key));
            rise = of_rate.map(|difference| apply(rise.unwrap_or(0), difference));
            if let Some(value) = value {
                each(packed.time_ms, value);
            }
        }
    }
}

/// Makes equal row sets the same ones.
fn share(step: &mut Step, sets: &[Keys]) {
    for set in &mut step.sets {
        if let Some(same) = sets.iter().find(|s| **s == *set) {
            *set = Arc::clone(same);
        }
    }
}

fn pack(step: &Step, newer: &Step) -> Packed {
    let mut bytes = Vec::new();
    let mut heads = Vec::with_capacity(step.columns.len());
    for column in &step.columns {
        let Some(keys) = step.sets.get(usize::from(column.set)) else { continue };
        let Ok(start) = u32::try_from(bytes.len()) else { break };
        heads.push(Head { id: column.id, set: column.set, start });
        let mut writer = Writer { bytes: &mut bytes, unchanged: 0 };
        let mut expected = Expected::new(column.id, keys, newer);
        for (row, (key, old)) in keys.iter().zip(&column.values).enumerate() {
            writer.row(expected.of(row, *key), *old);
        }
        writer.flush();
    }
    Packed { time_ms: step.time_ms, sets: step.sets.clone().into(), heads: heads.into(), bytes: bytes.into() }
}

fn unpack(packed: &Packed, newer: &Step) -> Step {
    let column = |head: &Head| {
        let keys = packed.sets.get(usize::from(head.set))?;
        let mut expected = Expected::new(head.id, keys, newer);
        let mut rows = Reader::new(packed.bytes.get(usize::try_from(head.start).ok()?..)?);
        let values = keys.iter().enumerate();
        let values = values.map(|(row, key)| apply(expected.of(row, *key), rows.next().unwrap_or(0)));
        Some(Column { id: head.id, set: head.set, values: values.collect() })
    };
    Step {
        time_ms: packed.time_ms,
        sets: packed.sets.to_vec(),
        columns: packed.heads.iter().filter_map(column).collect(),
    }
}

impl Packed {
    fn difference(&self, id: u16, key: u64) -> Option<u64> {
        let at = self.heads.binary_search_by_key(&id, |h| h.id).ok()?;
        let head = self.heads.get(at)?;
        let row = self.sets.get(usize::from(head.set))?.binary_search(&key).ok()?;
        Reader::new(self.bytes.get(usize::try_from(head.start).ok()?..)?).nth(row)
    }
}

/// The column of the rate of a counter, where it has one.
fn rate_of(counter: u16) -> Option<u16> {
    static RATES: LazyLock<Box<[u16]>> = LazyLock::new(|| {
        let number = |id: crate::push::batch::MetricId| usize::try_from(id as i32).unwrap_or(0);
        let most = METRICS.iter().map(|m| number(m.id)).max().unwrap_or(0);
        let mut rates = vec![0; most + 1];
        for metric in METRICS {
            if let Kind::Rate(of) = metric.kind
                && let (Some(rate), Ok(id)) = (rates.get_mut(number(of)), u16::try_from(number(metric.id)))
            {
                *rate = id;
            }
        }
        rates.into()
    });
    RATES.get(usize::from(counter)).copied().filter(|rate| *rate != 0)
}

/// What the values of an older step are expected to be, after the step that is newer.
struct Expected<'a> {
    newer: Option<Bases<'a>>,
    rise: Option<Bases<'a>>,
}

impl<'a> Expected<'a> {
    /// Of a column whose rows have these keys.
    fn new(id: u16, keys: &Keys, newer: &'a Step) -> Expected<'a> {
        let bases = |id| newer.column(id).map(|(of, column)| Bases::new(of, &column.values, keys));
        Expected { newer: bases(id), rise: rate_of(id).and_then(bases) }
    }

    /// For rows in their order.
    #[inline]
    fn of(&mut self, row: usize, key: u64) -> u64 {
        let newer = self.newer.as_mut().map_or(0, |newer| newer.of(row, key));
        newer.wrapping_sub(self.rise.as_mut().map_or(0, |rise| rise.of(row, key)))
    }
}

/// Values of the newer step by ascending keys; 0 for a key it does not have.
struct Bases<'a> {
    keys: &'a [u64],
    values: &'a [u64],
    /// The rows are the same, as they are in most steps.
    same: bool,
}

impl<'a> Bases<'a> {
    fn new(keys: &'a Keys, values: &'a [u64], of: &Keys) -> Bases<'a> {
        Bases { keys, values, same: Arc::ptr_eq(keys, of) }
    }

    #[inline]
    fn of(&mut self, row: usize, key: u64) -> u64 {
        if self.same {
            return self.values.get(row).copied().unwrap_or(0);
        }
        let passed = self.keys.iter().take_while(|k| **k < key).count();
        self.keys = self.keys.get(passed..).unwrap_or_default();
        self.values = self.values.get(passed..).unwrap_or_default();
        match (self.keys.first(), self.values.first()) {
            (Some(found), Some(value)) if *found == key => *value,
            _ => 0,
        }
    }
}

/// Zigzag of the wrapping difference: small for small changes up and down.
fn difference(base: u64, value: u64) -> u64 {
    let change = value.wrapping_sub(base);
    (change << 1) ^ 0_u64.wrapping_sub(change >> 63)
}

fn apply(base: u64, zigzag: u64) -> u64 {
    let change = (zigzag >> 1) ^ 0_u64.wrapping_sub(zigzag & 1);
    base.wrapping_add(change)
}

struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    unchanged: u64,
}

impl Writer<'_> {
    fn row(&mut self, base: u64, value: u64) {
        let zigzag = difference(base, value);
        if zigzag == 0 {
            self.unchanged += 1;
        } else {
            self.flush();
            self.varint(zigzag);
        }
    }

    fn flush(&mut self) {
        if let Some(more) = self.unchanged.checked_sub(1) {
            self.bytes.push(0);
            self.varint(more);
            self.unchanged = 0;
        }
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.bytes.push(value.to_le_bytes()[0]);
    }
}

/// The differences of a column, row by row; it does not know where they end.
struct Reader<'a> {
    bytes: &'a [u8],
    unchanged: u64,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, unchanged: 0 }
    }

    fn varint(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0_u64, 0_u32);
        loop {
            let (byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
        }
    }
}

impl Iterator for Reader<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if let Some(left) = self.unchanged.checked_sub(1) {
            self.unchanged = left;
            return Some(0);
        }
        match self.varint()? {
            0 => {
                self.unchanged = self.varint()?;
                Some(0)
            }
            zigzag => Some(zigzag),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::push::batch::MetricId;

    /// Steps of random rows; values near those before, as counters are.
    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let rows = proptest::collection::btree_map(0_u64..12, prop_oneof![0_u64..5, any::<u64>()], 0..8);
        let columns = proptest::collection::btree_map(0_u16..6, rows, 0..5);
        proptest::collection::vec(columns, 0..12).prop_map(|steps| {
            let step = |(at, columns): (
                usize,
                std::collections::BTreeMap<u16, std::collections::BTreeMap<u64, u64>>,
            )| {
                let mut step = Step { time_ms: 1_000 * (at as u64 + 1), ..Step::default() };
                for (id, rows) in columns {
                    let keys: Keys = rows.keys().copied().collect();
                    let set = step.sets.iter().position(|s| *s == keys).unwrap_or_else(|| {
                        step.sets.push(keys);
                        step.sets.len() - 1
                    });
                    let set = u16::try_from(set).unwrap();
                    step.columns.push(Column { id, set, values: rows.into_values().collect() });
                }
                step
            };
            steps.into_iter().enumerate().map(step).collect()
        })
    }

    fn check(window: &Window, expected: &[Step]) {
        let restored = Window::restore(window.save(), window.most).unwrap();
        assert_eq!(restored.unpack(), expected);
        assert_eq!(window.unpack(), expected);
        for step in expected {
            assert_eq!(window.at(step.time_ms).as_deref(), Some(step));
            assert_eq!(window.at(step.time_ms + 1), None);
        }
        for id in 0..6 {
            for key in 0..12 {
                let mut found = Vec::new();
                window.series(id, key, |time, value| found.push((time, value)));
                found.reverse();
                let slow: Vec<_> =
                    expected.iter().filter_map(|s| s.value(id, key).map(|v| (s.time_ms, v))).collect();
                assert_eq!(found, slow, "{id} {key}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(steps in steps(), most in 1_usize..6) {
            let mut window = Window::new(most);
            for (at, step) in steps.iter().enumerate() {
                prop_assert!(window.insert(step.clone()));
                let kept = &steps[..=at];
                check(&window, &kept[kept.len().saturating_sub(most)..]);
            }
        }

        #[test]
        fn late_steps_go_into_their_place(
            (steps, shuffled) in steps().prop_flat_map(|s| (Just(s.clone()), Just(s).prop_shuffle()))
        ) {
            let mut window = Window::new(20);
            for step in shuffled.iter().chain(shuffled.first()) {
                prop_assert!(window.insert(step.clone()));
            }
            check(&window, &steps);
        }
    }

    #[test]
    fn what_is_older_than_a_full_window_is_not_taken() {
        let step = |time_ms| Step { time_ms, ..Step::default() };
        let mut window = Window::new(2);
        assert!(window.insert(step(2)) && window.insert(step(3)) && !window.insert(step(1)));
        assert_eq!(window.times().collect::<Vec<_>>(), [3, 2]);
        window.forget_before(3);
        assert_eq!(window.times().collect::<Vec<_>>(), [3]);
        window.forget_before(4);
        assert_eq!(window.times().count(), 0);
    }

    #[test]
    fn a_counter_beside_its_rate_takes_two_bytes_a_step() {
        let keys: Keys = (0..100).collect();
        let (counter, rate) = (MetricId::CpuUsage as u16, MetricId::CpuUsageRate as u16);
        assert_eq!((rate_of(counter), rate_of(rate)), (Some(rate), None));
        let rise = |time: u64, key: u64| 1_000 * key + time;
        let step = |time: u64| Step {
            time_ms: time,
            sets: vec![Arc::clone(&keys)],
            columns: vec![
                Column {
                    id: counter,
                    set: 0,
                    values: keys.iter().map(|key| (1..=time).map(|t| rise(t, *key)).sum()).collect(),
                },
                Column { id: rate, set: 0, values: keys.iter().map(|key| rise(time, *key)).collect() },
            ],
        };
        let mut window = Window::new(3);
        (1..=3).for_each(|time| assert!(window.insert(step(time))));
        let overhead = 2 * (size_of::<Packed>() + 2 * size_of::<Head>());
        assert_eq!(window.packed_bytes() - overhead, 2 * (2 + 100), "the increases rise by one each");
        assert_eq!(window.unpack(), (1..=3).map(step).collect::<Vec<_>>());
    }

    #[test]
    fn a_step_that_did_not_change_takes_two_bytes_a_column() {
        let keys: Keys = (0..100).collect();
        let step = |time_ms| Step {
            time_ms,
            sets: vec![Arc::clone(&keys)],
            columns: (0..10).map(|id| Column { id, set: 0, values: (0..100).collect() }).collect(),
        };
        let mut window = Window::new(3);
        (1..=3).for_each(|time| assert!(window.insert(step(time))));
        let overhead = 2 * (size_of::<Packed>() + 10 * size_of::<Head>());
        assert_eq!(window.packed_bytes() - overhead, 2 * 10 * 2);
    }
}
