//! Answers kept for a while, with a bound on how many.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Values by key, each for the same time, at most so many.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    entries: Mutex<HashMap<K, (V, Instant)>>,
    keep: Duration,
    most: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// One that keeps at most `most` values for `keep` each.
    pub(super) fn new(keep: Duration, most: usize) -> Self {
        Cache { entries: Mutex::new(HashMap::new()), keep, most }
    }

    /// The value of a key, unless its time is over.
    pub(super) fn get(&self, key: &K, now: Instant) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).filter(|(_, ends)| now < *ends).map(|(value, _)| value.clone())
    }

    /// Keeps a value. When there is no room the ones that are over go, and if
    /// there are none the one that would be over first.
    pub(super) fn put(&self, key: K, value: V, now: Instant) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.most && !entries.contains_key(&key) {
            entries.retain(|_, (_, ends)| now < *ends);
            if entries.len() >= self.most {
                let first = entries.iter().min_by_key(|(_, (_, ends))| *ends).map(|(key, _)| key.clone());
                first.map(|key| entries.remove(&key));
            }
        }
        entries.insert(key, (value, now + self.keep));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_and_make_room() {
        let cache = Cache::new(Duration::from_secs(10), 2);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        cache.put("a", 1, at(0));
        cache.put("b", 2, at(1));
        assert_eq!((cache.get(&"a", at(9)), cache.get(&"a", at(10))), (Some(1), None));
        // Full: the oldest goes.
        cache.put("c", 3, at(2));
        assert_eq!(
            [cache.get(&"a", at(3)), cache.get(&"b", at(3)), cache.get(&"c", at(3))],
            [None, Some(2), Some(3)]
        );
        // One that is there is renewed in its place.
        cache.put("b", 4, at(5));
        assert_eq!((cache.get(&"b", at(14)), cache.get(&"c", at(5))), (Some(4), Some(3)));
    }
}
