//! The last steps of one node, compressed: what the model answers from.
//!
//! The newest step lies so that single values can be read, since most questions are about
//! it (`window/flat.rs`); each older one lies as the differences from the step after it, so that a step that leaves
//! the window is simply dropped and a series is read from new to old, one column
//! at a time. Values are whole numbers or the bits of doubles; both come back
//! exactly as they were.
//!
//! ```text
//! column of a packed step: how many bits are 0 at the end of all differences, then
//! for each row, in order of the keys
//!     0x00, n    n + 1 rows that did not change
//!     varint     the difference without these bits, zigzag, never 0
//! ```
//!
//! Memory comes in pages and disks in blocks: without the bits that are always 0 a
//! gauge of bytes takes one byte where it took three.
//!
//! A row that the newer step does not have counts as 0 there, and likewise a
//! column. A counter whose rate is there too is expected to have been the newer
//! value less the newer increase, which it is unless it began again: of two columns
//! that say the same one takes next to nothing. General compressors were considered: they need a step decompressed
//! as a whole to read one series of it.

mod coding;
mod flat;
mod saved;

pub use saved::SavedWindow;

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use crate::push::batch::{Kind, METRICS};
use coding::{Reader, Writer};
use flat::{Flat, Layout};

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
    layout: Arc<Layout>,
    /// Of each column where its rows begin in `bytes`.
    starts: Box<[u32]>,
    bytes: Box<[u8]>,
}

/// A bounded number of steps, at ascending times.
#[derive(Debug)]
pub struct Window {
    newest: Option<Flat>,
    /// From new to old.
    older: VecDeque<Packed>,
    most: usize,
}

impl Window {
    /// Room for `most` steps, at least one.
    pub fn new(most: usize) -> Window {
        Window { newest: None, older: VecDeque::new(), most: most.max(1) }
    }

    /// The rows of a metric in the newest step.
    pub fn newest_keys(&self, id: u16) -> Option<&Keys> {
        self.newest.as_ref().and_then(|flat| flat.layout.column(id)).map(|(_, keys)| keys)
    }

    /// Times of its steps, from new to old.
    pub fn times(&self) -> impl Iterator<Item = u64> {
        self.newest.iter().map(|s| s.time_ms).chain(self.older.iter().map(|p| p.time_ms))
    }

    /// The keys of all its rows, many of them more than once.
    pub fn keys(&self) -> impl Iterator<Item = u64> {
        let newest = self.newest.iter().map(|flat| &flat.layout);
        let layouts = newest.chain(self.older.iter().map(|packed| &packed.layout));
        // Neighbours share theirs.
        let mut last: Option<&Arc<Layout>> = None;
        let other =
            layouts.filter(move |layout| !last.replace(layout).is_some_and(|l| Arc::ptr_eq(l, layout)));
        other.flat_map(|layout| &layout.sets).flat_map(|keys| keys.iter().copied())
    }

    /// Bytes it takes beside the newest step, without what steps share.
    pub fn packed_bytes(&self) -> usize {
        let starts = |p: &Packed| p.starts.len() * size_of::<u32>();
        self.older.iter().map(|p| p.bytes.len() + starts(p) + size_of::<Packed>()).sum()
    }

    /// Puts a step in its place, instead of one of the same time. One older than
    /// all steps of a full window is not taken.
    pub fn insert(&mut self, mut step: Step) -> bool {
        match &self.newest {
            Some(newest) if newest.time_ms >= step.time_ms => return self.insert_late(step),
            Some(newest) => {
                share(&mut step, &newest.layout.sets);
                let before = newest.open(|_| true);
                self.older.push_front(pack(&before, &newest.layout, &step));
                self.newest = Some(Flat::new(&step, Some(&newest.layout)));
            }
            None => self.newest = Some(Flat::new(&step, None)),
        }
        self.older.truncate(self.most - 1);
        true
    }

    /// A step of the newest one's time, which most pushes are where there are several to a
    /// step, or one that comes late: what stands right before it is packed anew.
    fn insert_late(&mut self, mut step: Step) -> bool {
        let full = 1 + self.older.len() >= self.most;
        if full && self.times().last().is_some_and(|oldest| step.time_ms < oldest) {
            return false;
        }
        let Some(newest) = &self.newest else { return false };
        let mut newer = newest.open(|_| true);
        if newer.time_ms == step.time_ms {
            share(&mut step, &newest.layout.sets);
            if let Some(packed) = self.older.front_mut() {
                *packed = pack(&unpack(packed, &newer), &packed.layout, &step);
            }
            self.newest = Some(Flat::new(&step, Some(&newest.layout)));
            return true;
        }
        let mut place = 0;
        while let Some(packed) = self.older.get(place).filter(|packed| packed.time_ms > step.time_ms) {
            newer = unpack(packed, &newer);
            place += 1;
        }
        let replaced = self.older.get(place).filter(|packed| packed.time_ms == step.time_ms);
        let replaced = replaced.map(|packed| unpack(packed, &newer));
        let behind = self.older.get(place + usize::from(replaced.is_some()));
        let behind =
            behind.map(|packed| (unpack(packed, replaced.as_ref().unwrap_or(&newer)), &packed.layout));
        share(&mut step, &newer.sets);
        let near = self.older.get(place).map(|packed| &packed.layout);
        if let Some(near) = near {
            share(&mut step, &near.sets);
        }
        let packed = pack(&step, &Layout::of(&step, near), &newer);
        let behind = behind.map(|(behind, layout)| pack(&behind, layout, &step));
        if replaced.is_some() {
            self.older.remove(place);
        }
        self.older.insert(place, packed);
        if let Some((place, behind)) = self.older.get_mut(place + 1).zip(behind) {
            *place = behind;
        }
        self.older.truncate(self.most - 1);
        true
    }

    /// The step of that time; the further back, the more it takes.
    pub fn at(&self, time_ms: u64) -> Option<Step> {
        self.at_with(time_ms, |_| true)
    }

    /// The same, where only some metrics are wanted: of the newest step only those are there.
    pub fn at_with(&self, time_ms: u64, wanted: impl Fn(u16) -> bool) -> Option<Step> {
        let newest = self.newest.as_ref()?;
        if newest.time_ms == time_ms {
            return Some(newest.open(wanted));
        }
        let place = self.older.iter().position(|p| p.time_ms == time_ms)?;
        let mut packed = self.older.iter().take(place + 1);
        let first = unpack(packed.next()?, &newest.open(|_| true));
        Some(packed.fold(first, |newer, packed| unpack(packed, &newer)))
    }

    /// All steps, from old to new.
    pub fn unpack(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = self.newest.iter().map(|flat| flat.open(|_| true)).collect();
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
        let (mut of_value, mut of_rate) = (Place::new(key), Place::new(key));
        for packed in &self.older {
            let expected = value.unwrap_or(0).wrapping_sub(rise.unwrap_or(0));
            value = packed.change(id, &mut of_value).map(|change| expected.wrapping_add(change));
            rise = rate
                .and_then(|rate| packed.change(rate, &mut of_rate))
                .map(|change| rise.unwrap_or(0).wrapping_add(change));
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

/// A step, which has this layout, before the one that is newer.
fn pack(step: &Step, layout: &Arc<Layout>, newer: &Step) -> Packed {
    let rows: usize = step.columns.iter().map(|c| c.values.len()).sum();
    let mut bytes = Vec::with_capacity(rows * 2);
    let mut starts = Vec::with_capacity(step.columns.len());
    let mut changes = Vec::new();
    for column in &step.columns {
        starts.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        changes.clear();
        if let Some(keys) = step.sets.get(usize::from(column.set)) {
            Expected::new(column.id, keys, newer).changes(keys, &column.values, &mut changes);
        }
        Writer::write(&changes, &mut bytes);
    }
    let layout = Arc::clone(layout);
    Packed { time_ms: step.time_ms, layout, starts: starts.into(), bytes: bytes.into() }
}

fn unpack(packed: &Packed, newer: &Step) -> Step {
    let Layout { sets, columns } = &*packed.layout;
    let column = |((id, set), start): (&(u16, u16), &u32)| {
        let keys = sets.get(usize::from(*set))?;
        let mut expected = Expected::new(*id, keys, newer);
        let mut rows = Reader::new(packed.bytes.get(usize::try_from(*start).ok()?..)?)?;
        let values = keys.iter().enumerate();
        let values = values.map(|(row, key)| expected.of(row, *key).wrapping_add(rows.next().unwrap_or(0)));
        Some(Column { id: *id, set: *set, values: values.collect() })
    };
    let columns = columns.iter().zip(&packed.starts).filter_map(column).collect();
    Step { time_ms: packed.time_ms, sets: sets.to_vec(), columns }
}

impl Packed {
    /// By how much a value differs from what is expected, wrapping.
    fn change(&self, id: u16, place: &mut Place) -> Option<u64> {
        let (at, keys) = self.layout.column(id)?;
        let row = place.row(keys)?;
        let start = usize::try_from(*self.starts.get(at)?).ok()?;
        Reader::new(self.bytes.get(start..)?)?.nth(row)
    }
}

/// Where a key stands: steps share their row sets, so it is looked for once.
struct Place {
    key: u64,
    known: Option<(Keys, Option<usize>)>,
}

impl Place {
    fn new(key: u64) -> Place {
        Place { key, known: None }
    }

    fn row(&mut self, keys: &Keys) -> Option<usize> {
        match &self.known {
            Some((known, row)) if Arc::ptr_eq(known, keys) => *row,
            _ => {
                let row = keys.binary_search(&self.key).ok();
                self.known = Some((Arc::clone(keys), row));
                row
            }
        }
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

    /// By how much each value differs from what is expected.
    fn changes(mut self, keys: &Keys, values: &[u64], changes: &mut Vec<u64>) {
        match (&self.newer, &self.rise) {
            // The usual ones, without a look at each key.
            (Some(newer), None) if newer.is_of(values) => {
                changes.extend(values.iter().zip(newer.values).map(|(old, new)| old.wrapping_sub(*new)));
            }
            (Some(newer), Some(rise)) if newer.is_of(values) && rise.is_of(values) => {
                let expected =
                    newer.values.iter().zip(rise.values).map(|(new, rise)| new.wrapping_sub(*rise));
                changes.extend(values.iter().zip(expected).map(|(old, expected)| old.wrapping_sub(expected)));
            }
            _ => {
                let rows = keys.iter().zip(values).enumerate();
                changes.extend(rows.map(|(row, (key, old))| old.wrapping_sub(self.of(row, *key))));
            }
        }
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

    /// Whether these have the same rows.
    fn is_of(&self, values: &[u64]) -> bool {
        self.same && self.values.len() == values.len()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::push::batch::MetricId;

    /// Steps of random rows; values near those before, as counters are.
    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let rows = proptest::collection::btree_map(
            0_u64..12,
            prop_oneof![0_u64..5, any::<u64>(), (0_u64..9).prop_map(|pages| pages << 60 | pages << 12)],
            0..8,
        );
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
            assert_eq!(window.at(step.time_ms).as_ref(), Some(step));
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
    fn a_counter_beside_its_rate_takes_three_bytes_a_step() {
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
        let overhead = 2 * (size_of::<Packed>() + 2 * size_of::<u32>());
        assert_eq!(window.packed_bytes() - overhead, 2 * (3 + 101), "the increases rise by one each");
        assert_eq!(window.unpack(), (1..=3).map(step).collect::<Vec<_>>());
    }

    #[test]
    fn a_step_that_did_not_change_takes_three_bytes_a_column() {
        let keys: Keys = (0..100).collect();
        let step = |time_ms| Step {
            time_ms,
            sets: vec![Arc::clone(&keys)],
            columns: (0..10).map(|id| Column { id, set: 0, values: (0..100).collect() }).collect(),
        };
        let mut window = Window::new(3);
        (1..=3).for_each(|time| assert!(window.insert(step(time))));
        let overhead = 2 * (size_of::<Packed>() + 10 * size_of::<u32>());
        assert_eq!(window.packed_bytes() - overhead, 2 * 10 * 3);
    }

    #[test]
    fn a_gauge_of_pages_takes_a_byte_a_row() {
        let keys: Keys = (0..100).collect();
        let step = |time_ms: u64| Step {
            time_ms,
            sets: vec![Arc::clone(&keys)],
            columns: vec![Column {
                id: MetricId::MemoryUsage as u16,
                set: 0,
                // Some rise, and some fall.
                values: (0..100).map(|row| (1 << 30) + (row * 7 + time_ms * 3) % 50 * 4_096).collect(),
            }],
        };
        let mut window = Window::new(3);
        (1..=3).for_each(|time| assert!(window.insert(step(time))));
        let overhead = 2 * (size_of::<Packed>() + size_of::<u32>());
        assert_eq!(window.packed_bytes() - overhead, 2 * (1 + 100));
        assert_eq!(window.unpack(), (1..=3).map(step).collect::<Vec<_>>());
    }
}
