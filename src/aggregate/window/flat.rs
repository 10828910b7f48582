//! The newest step of a window: open to single questions, in half of the room. Each column
//! takes as many bytes a value as its largest needs, and steps share what says which
//! columns and rows there are, which seldom changes.

use std::sync::Arc;

use super::{Column, Keys, Step};

/// Which columns and rows a step has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Row sets that columns name by index.
    pub(super) sets: Box<[Keys]>,
    /// Metric and row set of each column, in ascending order of the metrics.
    pub(super) columns: Box<[(u16, u16)]>,
}

impl Layout {
    /// That of a step, or the other one where it is the same.
    pub(super) fn of(step: &Step, other: Option<&Arc<Layout>>) -> Arc<Layout> {
        let is_same = |other: &&Arc<Layout>| {
            let columns = step.columns.iter().map(|column| (column.id, column.set));
            let sets = step.sets.iter().zip(&other.sets);
            step.sets.len() == other.sets.len()
                && sets.into_iter().all(|(a, b)| Arc::ptr_eq(a, b))
                && columns.eq(other.columns.iter().copied())
        };
        match other.filter(is_same) {
            Some(other) => Arc::clone(other),
            None => Arc::new(Layout {
                sets: step.sets.clone().into(),
                columns: step.columns.iter().map(|column| (column.id, column.set)).collect(),
            }),
        }
    }

    /// Where the column of a metric stands, and its rows.
    pub(super) fn column(&self, id: u16) -> Option<(usize, &Keys)> {
        let at = self.columns.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let (_, set) = self.columns.get(at)?;
        Some((at, self.sets.get(usize::from(*set))?))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Flat {
    pub(super) time_ms: u64,
    pub(super) layout: Arc<Layout>,
    /// Of each column where it begins in `bytes`, and how many a value takes there.
    places: Box<[(u32, u8)]>,
    bytes: Box<[u8]>,
}

/// Bytes that every one of these fits in, from none to eight.
fn width(values: &[u64]) -> usize {
    let bits = u64::BITS - values.iter().fold(0, |all, value| all | value).leading_zeros();
    usize::try_from(bits.div_ceil(8)).unwrap_or(size_of::<u64>())
}

impl Flat {
    /// A step, beside one whose layout it may have.
    pub(super) fn new(step: &Step, other: Option<&Arc<Layout>>) -> Flat {
        let widths: Vec<usize> = step.columns.iter().map(|column| width(&column.values)).collect();
        let lengths = step.columns.iter().zip(&widths).map(|(column, width)| column.values.len() * width);
        let mut bytes = Vec::with_capacity(lengths.sum());
        let mut places = Vec::with_capacity(step.columns.len());
        for (column, width) in step.columns.iter().zip(widths) {
            places.push((u32::try_from(bytes.len()).unwrap_or(u32::MAX), u8::try_from(width).unwrap_or(8)));
            for value in &column.values {
                bytes.extend_from_slice(value.to_le_bytes().get(..width).unwrap_or_default());
            }
        }
        let layout = Layout::of(step, other);
        Flat { time_ms: step.time_ms, layout, places: places.into(), bytes: bytes.into() }
    }

    /// The bytes of a column that has so many rows, and how many each value takes.
    fn column(&self, at: usize, rows: usize) -> Option<(&[u8], usize)> {
        let (start, width) = *self.places.get(at)?;
        let (start, width) = (usize::try_from(start).ok()?, usize::from(width));
        Some((self.bytes.get(start..start + rows * width)?, width))
    }

    /// The value of one series.
    pub(super) fn value(&self, id: u16, key: u64) -> Option<u64> {
        let (at, keys) = self.layout.column(id)?;
        let row = keys.binary_search(&key).ok()?;
        let (bytes, width) = self.column(at, keys.len())?;
        Some(number(bytes.get(row * width..(row + 1) * width)?))
    }

    /// The step with the columns that are wanted.
    pub(super) fn open(&self, wanted: impl Fn(u16) -> bool) -> Step {
        let columns = self.layout.columns.iter().enumerate().filter(|(_, (id, _))| wanted(*id));
        let column = |(at, (id, set)): (usize, &(u16, u16))| {
            let rows = self.layout.sets.get(usize::from(*set))?.len();
            let (bytes, width) = self.column(at, rows)?;
            let values = match width {
                0 => vec![0; rows],
                width => bytes.chunks_exact(width).map(number).collect(),
            };
            Some(Column { id: *id, set: *set, values })
        };
        let columns = columns.filter_map(column).collect();
        Step { time_ms: self.time_ms, sets: self.layout.sets.to_vec(), columns }
    }
}

fn number(bytes: &[u8]) -> u64 {
    let mut all = [0; size_of::<u64>()];
    if let Some(place) = all.get_mut(..bytes.len()) {
        place.copy_from_slice(bytes);
    }
    u64::from_le_bytes(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_take_what_the_largest_needs() {
        let keys: Keys = [3, 5, 9].into();
        let column = |id, values: [u64; 3]| Column { id, set: 0, values: values.into() };
        let columns = vec![
            column(1, [0; 3]),
            column(4, [7, 255, 0]),
            column(5, [256, 1, 2]),
            column(9, [u64::MAX, 0, 1 << 40]),
        ];
        let step = Step { time_ms: 60, sets: vec![keys], columns };
        let flat = Flat::new(&step, None);
        assert_eq!(flat.bytes.len(), 3 * (1 + 2 + 8));
        assert_eq!(flat.open(|_| true), step);
        assert_eq!(flat.open(|id| id == 5).columns, step.columns[2..3]);
        for column in &step.columns {
            for (key, value) in [3, 5, 9].into_iter().zip(&column.values) {
                assert_eq!(flat.value(column.id, key), Some(*value));
            }
            assert_eq!((flat.value(column.id, 4), flat.value(2, 3)), (None, None));
        }
        let same = Flat::new(&step, Some(&flat.layout));
        assert!(Arc::ptr_eq(&same.layout, &flat.layout));
        let fewer = Step { columns: step.columns[1..].to_vec(), ..step };
        assert!(!Arc::ptr_eq(&Flat::new(&fewer, Some(&flat.layout)).layout, &flat.layout));
    }
}
