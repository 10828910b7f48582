//! Numbers of the label values of one node: devices, and volumes, which come and
//! go with their pods. Number 0 is that of no label.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{MAX_LABELS, USUAL_LABELS};
use crate::aggregate::names::Names;

/// See the module.
#[derive(Debug)]
pub(super) struct Labelled {
    texts: Vec<Option<Arc<str>>>,
    numbers: HashMap<Arc<str>, u32>,
    free: Vec<u32>,
    /// With more than this many it is worth looking for those that are not used.
    pub(super) sweep_at: usize,
}

impl Default for Labelled {
    fn default() -> Self {
        Labelled {
            texts: vec![Some(Arc::from(""))],
            numbers: HashMap::new(),
            free: Vec::new(),
            sweep_at: USUAL_LABELS,
        }
    }
}

impl Labelled {
    /// How many there are.
    pub(super) fn live(&self) -> usize {
        self.numbers.len()
    }

    /// The number of a label, if it has one.
    pub(super) fn find(&self, text: &str) -> Option<u32> {
        if text.is_empty() { Some(0) } else { self.numbers.get(text).copied() }
    }

    /// The number of a label, a new one if need be; `None` where there are too many.
    pub(super) fn number(&mut self, text: &str, names: &Names) -> Option<u32> {
        if let Some(known) = self.find(text) {
            return Some(known);
        }
        let text = names.get(text);
        let number = match self.free.pop() {
            Some(number) => number,
            None if self.texts.len() < MAX_LABELS => {
                self.texts.push(None);
                u32::try_from(self.texts.len() - 1).ok()?
            }
            None => return None,
        };
        *self.texts.get_mut(usize::try_from(number).ok()?)? = Some(Arc::clone(&text));
        self.numbers.insert(text, number);
        Some(number)
    }

    /// All there are, with their numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Arc<str>)> {
        self.numbers.iter().map(|(text, number)| (*number, text))
    }

    /// These with these numbers; `None` if they cannot be.
    pub(super) fn restore(all: impl Iterator<Item = (u32, Arc<str>)>) -> Option<Labelled> {
        let mut labels = Labelled::default();
        for (number, text) in all {
            let at = usize::try_from(number).ok().filter(|at| (1..MAX_LABELS).contains(at))?;
            if labels.texts.len() <= at {
                labels.texts.resize(at + 1, None);
            }
            if labels.texts.get_mut(at)?.replace(Arc::clone(&text)).is_some() {
                return None;
            }
            labels.numbers.insert(text, number);
        }
        let free = (0..).zip(&labels.texts).filter(|(_, text)| text.is_none()).map(|(number, _)| number);
        labels.free = free.collect();
        labels.sweep_at = (labels.live() * 2).max(USUAL_LABELS);
        Some(labels)
    }

    /// The label of a row, by its key.
    pub(super) fn text(&self, key: u64) -> Option<&Arc<str>> {
        let number = key & u64::from(u32::MAX);
        self.texts.get(usize::try_from(number).ok()?)?.as_ref()
    }

    /// Forgets all but these numbers.
    pub(super) fn keep(&mut self, used: impl Iterator<Item = u64>) {
        let used: HashSet<u64> = used.collect();
        let Labelled { texts, numbers, free, .. } = self;
        numbers.retain(|_, number| {
            let stays = used.contains(&u64::from(*number));
            if !stays {
                free.push(*number);
                if let Some(place) = usize::try_from(*number).ok().and_then(|at| texts.get_mut(at)) {
                    *place = None;
                }
            }
            stays
        });
        self.sweep_at = (self.live() * 2).max(USUAL_LABELS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_once_nothing_has_them() {
        let names = Names::default();
        let mut labels = Labelled::default();
        let number = |labels: &mut Labelled, text: &str| u64::from(labels.number(text, &names).unwrap());
        let [none, sda, volume] = ["", "/dev/sda", "Volume:a"].map(|text| number(&mut labels, text));
        assert_eq!((none, number(&mut labels, "/dev/sda"), labels.live()), (0, sda, 2));
        labels.keep([none, sda].into_iter());
        assert_eq!((labels.find("Volume:a"), labels.text(volume)), (None, None));
        assert_eq!(number(&mut labels, "Volume:b"), volume);
        assert_eq!(labels.text(7 << 32 | volume).map(|text| &**text), Some("Volume:b"));
    }

    #[test]
    fn what_is_too_much_has_no_number() {
        let names = Names::default();
        let mut labels = Labelled::default();
        let given = (0..MAX_LABELS).filter_map(|at| labels.number(&at.to_string(), &names)).count();
        assert_eq!(given, MAX_LABELS - 1, "the first is that of no label");
        assert_eq!(labels.number("0", &names), Some(1));
    }
}
