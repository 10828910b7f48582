//! How much of a core the walker may take: pure arithmetic on clocks that the
//! caller reads.
//!
//! Work earns debt, time pays it off. What a slice of work cost is the larger of
//! its CPU time and a tenth of its duration, so that a slow disk is not kept
//! busy all the time by a thread that hardly computes.

use std::time::Duration;

/// Work is paid for once it has cost this much; shorter pauses would cost more
/// in wake-ups than they spread.
const SLICE: Duration = Duration::from_millis(1);

/// Share of the duration of a slice that counts as its cost where it is more
/// than the CPU time.
const WAITING: u32 = 10;

/// One thread's budget.
#[derive(Debug)]
pub(super) struct Pacer {
    /// Microseconds of CPU for each second.
    usec_per_second: u32,
    debt: Duration,
}

impl Pacer {
    /// Nothing is owed to begin with. A budget of a whole core or more never pauses.
    pub(super) fn new(usec_per_second: u32) -> Self {
        Pacer { usec_per_second, debt: Duration::ZERO }
    }

    /// Notes work that took `cpu` of CPU time and `wall` of time, and returns how
    /// long to pause now, in all.
    pub(super) fn worked(&mut self, cpu: Duration, wall: Duration) -> Duration {
        if self.usec_per_second >= 1_000_000 {
            return Duration::ZERO;
        }
        self.debt += cpu.max(wall / WAITING);
        if self.debt < SLICE {
            return Duration::ZERO;
        }
        let owed = std::mem::take(&mut self.debt);
        let period = owed.as_nanos().saturating_mul(1_000_000) / u128::from(self.usec_per_second.max(1));
        // The work's own time is part of the period it is spread over.
        Duration::from_nanos(u64::try_from(period).unwrap_or(u64::MAX)).saturating_sub(wall)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Share of a core over slices of so much CPU and time each, pauses included.
    fn share(usec_per_second: u32, slices: &[(Duration, Duration)]) -> f64 {
        let mut pacer = Pacer::new(usec_per_second);
        let (mut cpu, mut time) = (Duration::ZERO, Duration::ZERO);
        for (c, w) in slices {
            cpu += *c;
            time += *w + pacer.worked(*c, *w);
        }
        cpu.as_secs_f64() / time.as_secs_f64()
    }

    #[test]
    fn one_percent_of_a_core() {
        let slice = (Duration::from_micros(400), Duration::from_micros(450));
        let share = share(10_000, &[slice; 1200]);
        assert!((0.0098..=0.0101).contains(&share), "{share}");
    }

    #[test]
    fn a_slow_disk_is_busy_a_tenth_of_the_time() {
        let slice = (Duration::from_micros(10), Duration::from_millis(10));
        let mut pacer = Pacer::new(10_000);
        let pause = pacer.worked(slice.0, slice.1);
        assert_eq!(pause, Duration::from_millis(90));
    }

    #[test]
    fn a_whole_core_never_pauses() {
        let mut pacer = Pacer::new(1_000_000);
        assert_eq!(pacer.worked(Duration::from_secs(5), Duration::from_secs(5)), Duration::ZERO);
    }

    proptest! {
        /// Whatever the work is like, the share is kept but for what is still owed.
        #[test]
        fn never_over_the_budget(
            budget in 100u32..500_000,
            work in proptest::collection::vec((1u64..3_000, 0u64..20_000), 1..200),
        ) {
            let slices: Vec<_> = work
                .iter()
                .map(|(cpu, more)| (Duration::from_micros(*cpu), Duration::from_micros(cpu + more)))
                .collect();
            let mut pacer = Pacer::new(budget);
            let (mut cpu, mut time) = (Duration::ZERO, Duration::ZERO);
            for (c, w) in slices {
                cpu += c;
                // Time that passes without work pays nothing in advance.
                time += w + pacer.worked(c, w);
            }
            let allowed = time.as_secs_f64() * f64::from(budget) / 1e6;
            // The slice in which work outlasts its period on its own, and what is owed.
            prop_assert!(cpu.as_secs_f64() <= allowed + 0.0011 + 0.0031, "{cpu:?} of {allowed}");
        }
    }
}
