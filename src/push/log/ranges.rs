//! A set of sequence numbers as ranges: what a sink has acknowledged.
//!
//! Databases acknowledge from the oldest and aggregators from the newest, so
//! that either leaves one or two ranges however many steps there are.

use std::collections::BTreeMap;

/// Sorted ranges that neither overlap nor touch: first → last, both inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    pub(super) fn contains(&self, sequence: u64) -> bool {
        self.0.range(..=sequence).next_back().is_some_and(|(_, last)| *last >= sequence)
    }

    /// Adds one; whether it was not there.
    pub(super) fn insert(&mut self, sequence: u64) -> bool {
        if self.contains(sequence) {
            return false;
        }
        let mut first = sequence;
        let mut last = sequence;
        if let Some((before, end)) = self.0.range(..sequence).next_back()
            && *end + 1 == sequence
        {
            first = *before;
        }
        if let Some(end) = sequence.checked_add(1).and_then(|next| self.0.remove(&next)) {
            last = end;
        }
        self.0.insert(first, last);
        true
    }

    /// Takes one out; whether it was there.
    pub(super) fn remove(&mut self, sequence: u64) -> bool {
        let Some((first, last)) = self.0.range(..=sequence).next_back().map(|(f, l)| (*f, *l)) else {
            return false;
        };
        if last < sequence {
            return false;
        }
        self.0.remove(&first);
        if first < sequence {
            self.0.insert(first, sequence - 1);
        }
        if sequence < last {
            self.0.insert(sequence + 1, last);
        }
        true
    }

    /// Forgets all below `sequence`, which will not be asked about again.
    pub(super) fn forget_below(&mut self, sequence: u64) {
        let mut kept = self.0.split_off(&sequence);
        if let Some((_, last)) = self.0.last_key_value()
            && *last >= sequence
        {
            kept.insert(sequence, *last);
        }
        self.0 = kept;
    }

    /// First and last of each, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    /// What `iter` gave. `None` when it is no such list.
    pub(super) fn of(pairs: impl Iterator<Item = (u64, u64)>) -> Option<Ranges> {
        let mut ranges = Ranges::default();
        let mut after = 0;
        for (first, last) in pairs {
            if first > last || first < after {
                return None;
            }
            after = last.saturating_add(2);
            ranges.0.insert(first, last);
        }
        Some(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_set_of_numbers(actions in prop::collection::vec((0u8..8, 0u64..40), 0..120)) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (action, number) in actions {
                match action {
                    0..=4 => prop_assert_eq!(ranges.insert(number), set.insert(number)),
                    5..=6 => prop_assert_eq!(ranges.remove(number), set.remove(&number)),
                    _ => {
                        ranges.forget_below(number / 4);
                        set = set.split_off(&(number / 4));
                    }
                }
                for n in 0..42 {
                    prop_assert_eq!(ranges.contains(n), set.contains(&n), "{}", n);
                }
                prop_assert_eq!(Ranges::of(ranges.iter()), Some(ranges.clone()));
            }
        }
    }
}
