//! How long to wait before the next attempt.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Doubles with every failure up to a cap; each wait is drawn from the upper
/// half, so that the nodes of a cluster do not come back at the same moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    random: u64,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Backoff {
        // Keys of the standard library's hasher come from the kernel.
        let random = RandomState::new().build_hasher().finish() | 1;
        Backoff { min, max, next: min, random }
    }

    /// The next wait.
    pub(crate) fn wait(&mut self) -> Duration {
        let wait = self.jittered(self.next);
        self.next = (self.next * 2).min(self.max);
        wait
    }

    /// Between half of `time` and all of it.
    pub(crate) fn jittered(&mut self, time: Duration) -> Duration {
        // xorshift64: spreading needs no better numbers.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let thousandths = u32::try_from(self.random % 501).unwrap_or(0);
        time / 2 + time / 1000 * thousandths
    }

    /// An attempt succeeded.
    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_cap_and_begins_again() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        for expected in [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000] {
            let wait = backoff.wait().as_millis();
            assert!((expected / 2..=expected).contains(&wait), "{wait} of {expected}");
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_millis(500));
    }

    #[test]
    fn waits_differ() {
        let mut backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(30));
        let waits: std::collections::HashSet<_> = (0..100).map(|_| backoff.wait()).collect();
        assert!(waits.len() > 50, "{}", waits.len());
    }
}
