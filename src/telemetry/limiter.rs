//! Warnings at most so often, one limiter per call site.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Lets one message through per period and counts the rest.
///
/// ```
/// use std::time::Duration;
/// use nodegauge::telemetry::Limiter;
///
/// static LIMITER: Limiter = Limiter::every(Duration::from_secs(60));
/// if let Some(suppressed) = LIMITER.pass() {
///     tracing::warn!(suppressed, "connection refused");
/// }
/// ```
#[derive(Debug)]
pub struct Limiter {
    period_ms: u64,
    next_ms: AtomicU64,
    suppressed: AtomicU64,
}

impl Limiter {
    /// One message per `period`, which must be under 500 million years.
    pub const fn every(period: Duration) -> Self {
        // `TryFrom` is not const; the cast keeps the low 64 bits of a number
        // that has far fewer.
        #[allow(clippy::cast_possible_truncation)]
        let period_ms = period.as_millis() as u64;
        Limiter { period_ms, next_ms: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// How many messages were suppressed since the last one, if one may be
    /// written now. Takes no lock.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(uptime_ms())
    }

    fn pass_at(&self, now_ms: u64) -> Option<u64> {
        let next = self.next_ms.load(Relaxed);
        let later = now_ms.saturating_add(self.period_ms);
        // Of several threads that come at once, the one that moves the time writes.
        if now_ms < next || self.next_ms.compare_exchange(next, later, Relaxed, Relaxed).is_err() {
            self.suppressed.fetch_add(1, Relaxed);
            return None;
        }
        Some(self.suppressed.swap(0, Relaxed))
    }
}

/// Milliseconds since the first call, on the monotonic clock.
fn uptime_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_per_period_and_the_rest_counted() {
        let limiter = Limiter::every(Duration::from_secs(60));
        assert_eq!(limiter.pass_at(5), Some(0));
        assert_eq!((limiter.pass_at(6), limiter.pass_at(60_004)), (None, None));
        assert_eq!(limiter.pass_at(60_005), Some(2));
        assert_eq!(limiter.pass_at(60_006), None);
        assert_eq!(limiter.pass_at(200_000), Some(1));
    }

    #[test]
    fn threads_share_one_period() {
        let limiter = Limiter::every(Duration::from_secs(3600));
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| limiter.pass().is_some()).count()))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(passed, 1);
        assert_eq!(limiter.suppressed.load(Relaxed), 3999);
    }
}
