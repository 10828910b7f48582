//! Strings that many entities share, kept once.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

/// A set of strings. Those that nobody holds any more go with [`Names::tidy`].
#[derive(Debug, Default)]
pub struct Names {
    known: RwLock<HashSet<Arc<str>>>,
}

impl Names {
    /// The one copy of `text`.
    pub fn get(&self, text: &str) -> Arc<str> {
        // The set is whole at any time, whoever panicked.
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(text) {
            return Arc::clone(known);
        }
        let mut set = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = set.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(text);
        set.insert(Arc::clone(&new));
        new
    }

    /// Drops what nobody else holds.
    pub fn tidy(&self) {
        let mut set = self.known.write().unwrap_or_else(PoisonError::into_inner);
        set.retain(|name| Arc::strong_count(name) > 1);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_copy_for_all_until_nobody_holds_it() {
        let names = Names::default();
        let first = names.get("shop");
        assert!(Arc::ptr_eq(&first, &names.get("shop")) && !names.is_empty());
        names.get("gone");
        names.tidy();
        assert_eq!(names.len(), 1);
    }
}
