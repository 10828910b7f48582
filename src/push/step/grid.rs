//! Which tick of the agent makes which step.
//!
//! Steps stand on the wall-clock grid of the push resolution, so that those of
//! all nodes fall together: a step's time is a multiple of the resolution. Ticks
//! stand on the wall-clock grid of the interval, and only they make steps; ticks
//! asked for by scrapes never do.
//!
//! - The step of time T is made by **the first tick at or after T**. When the
//!   resolution is a multiple of the interval, that is the tick of T itself.
//!   When it is not, the sample is up to one interval younger than its step
//!   says; every batch carries the sample's own time too, and rates use that.
//! - **Ticks too rare** for the resolution: steps in between are left out. A step
//!   is never made up from an older sample, and no sample makes two steps.
//! - **Late tick**: a tick makes the last step before it if it is late by at most
//!   half a resolution, or by one interval if that is more. Later ones make no
//!   step, which counts as missed: its figures would stand for another moment.
//! - **Clock set forward, or the machine slept**: the next tick makes the last
//!   step before it. Steps in between never were moments of this node: they are
//!   neither made nor counted as missed, which the monotonic clock tells, since
//!   it does neither jump nor count sleep.
//! - **Clock set back** by at most one resolution: steps whose time was used
//!   already are not made again, so there is one gap and no two batches of the
//!   same time. Set back further: steps go on at the new time at once, since a
//!   clock that was an hour ahead must not silence the node for an hour. Times
//!   reached for a second time have a second batch, which databases write over
//!   the first.
//! - **Start**: the first tick makes a step like any other. A builder that is
//!   told the time of the last step in the log does not make that one again.

use std::time::{Duration, Instant};

/// Which step to make, and what happened to those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The step's time, milliseconds since the epoch.
    pub time_ms: u64,
    /// How long after it the tick came.
    pub late: Duration,
    /// Steps before this one that no tick came for.
    pub missed: u64,
    /// Whether the clock was set back by more than one resolution.
    pub set_back: bool,
}

/// The grid of steps of one agent.
#[derive(Debug)]
pub struct Grid {
    resolution_ms: u64,
    late_ms: u64,
    last: Option<Last>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    time_ms: u64,
    /// `None` for a step made by an agent before this one.
    monotonic: Option<Instant>,
}

impl Grid {
    /// A grid of that resolution for ticks of that interval; whole milliseconds,
    /// at least one.
    pub fn new(resolution: Duration, interval: Duration) -> Grid {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX).max(1);
        let resolution_ms = ms(resolution);
        Grid { resolution_ms, late_ms: ms(interval).max(resolution_ms / 2), last: None }
    }

    /// Time between steps, milliseconds.
    pub fn resolution_ms(&self) -> u64 {
        self.resolution_ms
    }

    /// Says which step was made last before this agent started.
    pub fn resume_after(&mut self, time_ms: u64) {
        self.last = Some(Last { time_ms, monotonic: None });
    }

    /// The step that a tick at these moments makes, if it makes one.
    pub fn due(&mut self, wall_ms: u64, monotonic: Instant) -> Option<Due> {
        let late_ms = wall_ms % self.resolution_ms;
        let time_ms = wall_ms - late_ms;
        if late_ms > self.late_ms {
            return None;
        }
        let mut due = Due { time_ms, late: Duration::from_millis(late_ms), missed: 0, set_back: false };
        if let Some(last) = self.last {
            match time_ms.checked_sub(last.time_ms) {
                Some(0) => return None,
                Some(ahead_ms) => due.missed = self.missed(ahead_ms, last, monotonic),
                None if last.time_ms - time_ms <= self.resolution_ms => return None,
                None => due.set_back = true,
            }
        }
        self.last = Some(Last { time_ms, monotonic: Some(monotonic) });
        Some(due)
    }

    /// Steps in between by the wall clock, at most those by the monotonic one.
    fn missed(&self, ahead_ms: u64, last: Last, monotonic: Instant) -> u64 {
        let Some(before) = last.monotonic else { return 0 };
        let passed = monotonic.saturating_duration_since(before).as_millis();
        // Ticks come early and late by less than half a step.
        let passed = u64::try_from(passed).unwrap_or(u64::MAX).saturating_add(self.resolution_ms / 2);
        (ahead_ms.min(passed) / self.resolution_ms).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ticks as (seconds by the wall clock, seconds by the monotonic one) → the
    /// times of the steps made, in seconds, with what was missed before them.
    fn check(resolution: f64, interval: f64, ticks: &[(f64, f64)], expected: &[(u64, u64)]) {
        let mut grid = Grid::new(Duration::from_secs_f64(resolution), Duration::from_secs_f64(interval));
        let zero = Instant::now();
        let made: Vec<(u64, u64)> = ticks
            .iter()
            .filter_map(|(wall, monotonic)| {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
                let wall_ms = (wall * 1000.0).round() as u64;
                grid.due(wall_ms, zero + Duration::from_secs_f64(*monotonic))
            })
            .map(|due| (due.time_ms / 1000, due.missed))
            .collect();
        assert_eq!(made, expected, "resolution {resolution}, interval {interval}, ticks {ticks:?}");
    }

    /// Ticks of a clock that nobody touches.
    fn steady(seconds: &[f64]) -> Vec<(f64, f64)> {
        seconds.iter().map(|s| (*s, *s)).collect()
    }

    #[test]
    fn multiple_of_the_interval() {
        let ticks = steady(&[55.0, 60.002, 65.0, 70.004, 75.01, 80.0, 85.0, 90.0]);
        check(15.0, 5.0, &ticks, &[(60, 0), (75, 0), (90, 0)]);
        check(5.0, 5.0, &ticks[..3], &[(55, 0), (60, 0), (65, 0)]);
    }

    #[test]
    fn no_multiple_of_the_interval() {
        let ticks = steady(&[30.001, 40.001, 50.0, 60.0, 70.0, 80.0, 90.0]);
        check(15.0, 10.0, &ticks, &[(30, 0), (45, 0), (60, 0), (75, 0), (90, 0)]);
    }

    #[test]
    fn ticks_too_rare() {
        let ticks = steady(&[30.0, 40.0, 50.0]);
        check(4.0, 10.0, &ticks, &[(28, 0), (40, 2), (48, 1)]);
    }

    #[test]
    fn late_ticks() {
        // The tick of 30 came 7 s late, that of 45 8 s late, that of 60 in time.
        check(15.0, 1.0, &steady(&[15.0, 37.0, 53.0, 60.0]), &[(15, 0), (30, 0), (60, 1)]);
    }

    #[test]
    fn stalls() {
        check(15.0, 5.0, &steady(&[15.0, 61.0, 75.0]), &[(15, 0), (60, 2), (75, 0)]);
    }

    #[test]
    fn clock_set_forward_or_sleep() {
        // Of the hour that the wall clock jumped, 20 s passed for the machine.
        check(
            15.0,
            5.0,
            &[(15.0, 0.0), (3_620.0, 20.0), (3_630.0, 30.0)],
            &[(15, 0), (3_615, 0), (3_630, 0)],
        );
    }

    #[test]
    fn clock_set_back_a_little() {
        let ticks = [(30.0, 0.0), (35.0, 5.0), (28.0, 8.0), (30.0, 10.0), (40.0, 20.0), (45.0, 25.0)];
        check(15.0, 5.0, &ticks, &[(30, 0), (45, 0)]);
    }

    #[test]
    fn clock_set_back_far() {
        let ticks = [(7_215.0, 0.0), (20.0, 5.0), (30.0, 15.0), (45.0, 30.0)];
        check(15.0, 5.0, &ticks, &[(7_215, 0), (15, 0), (30, 0), (45, 0)]);
        let mut grid = Grid::new(Duration::from_secs(15), Duration::from_secs(5));
        let now = Instant::now();
        assert!(!grid.due(7_215_000, now).unwrap().set_back);
        assert!(grid.due(30_000, now).unwrap().set_back);
    }

    #[test]
    fn a_restarted_agent_does_not_repeat_a_step() {
        let mut grid = Grid::new(Duration::from_secs(15), Duration::from_secs(5));
        grid.resume_after(30_000);
        let now = Instant::now();
        assert_eq!(grid.due(35_000, now), None);
        let due = grid.due(45_010, now).unwrap();
        assert_eq!((due.time_ms, due.missed, due.late), (45_000, 0, Duration::from_millis(10)));
        // The log is from a time that is yet to come.
        grid.resume_after(7_200_000);
        assert!(grid.due(60_000, now).unwrap().set_back);
    }

    proptest! {
        /// Whatever the clocks do: steps are on the grid, at or before their tick
        /// and not long before; neighbours differ; and none is missed while the
        /// ticks come.
        #[test]
        fn steps_keep_the_rules(
            resolution in 1_u64..100, interval in 1_u64..100,
            ticks in prop::collection::vec((0_u64..10_000, 0_u64..10_000), 1..50),
        ) {
            let mut grid = Grid::new(Duration::from_millis(resolution), Duration::from_millis(interval));
            let mut monotonic = Instant::now();
            let (mut last, mut since) = (None, 0);
            for (wall, passed) in ticks {
                monotonic += Duration::from_millis(passed);
                since += passed;
                let Some(due) = grid.due(wall, monotonic) else { continue };
                prop_assert_eq!(due.time_ms % resolution, 0);
                prop_assert!(due.time_ms <= wall && wall < due.time_ms + resolution);
                prop_assert!(wall - due.time_ms <= interval.max(resolution / 2));
                prop_assert!(Some(due.time_ms) != last);
                prop_assert!(due.missed <= since / resolution);
                (last, since) = (Some(due.time_ms), 0);
            }
        }

        #[test]
        fn a_steady_clock_misses_nothing(factor in 1_u64..20, interval in 1_u64..1_000, start in 0_u64..100_000) {
            let mut grid =
                Grid::new(Duration::from_millis(interval * factor), Duration::from_millis(interval));
            let (zero, mut made) = (Instant::now(), 0);
            for tick in 0..factor * 5 {
                let wall = (start + tick) * interval;
                if let Some(due) = grid.due(wall, zero + Duration::from_millis(tick * interval)) {
                    prop_assert_eq!(due.missed, 0);
                    made += 1;
                }
            }
            prop_assert!((5..=6).contains(&made), "{}", made);
        }
    }
}
