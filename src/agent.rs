//! The reader thread: the only one that reads the kernel each tick.
//!
//! Ticks fall on the wall-clock grid of the interval, so that all nodes sample
//! at the same moments. A scrape that finds the last snapshot too old asks for
//! a fresh tick in between, at most one a second, which everyone who waits
//! shares. Snapshots are published behind an `Arc` and used again once nobody
//! holds them, so that a steady tick allocates nothing.

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::collect::Report;
use crate::collect::sampler::{Sampler, wall_ms};
use crate::publish::{Publisher, Request};
use crate::snapshot::{Origin, Snapshot};

/// Shortest time between two fresh ticks.
const FRESH_APART: Duration = Duration::from_secs(1);

/// Snapshots kept for use again: the last one, one being read and one to fill.
const MAX_SPARES: usize = 4;

/// What one tick was like, for our own metrics.
#[derive(Debug, Clone, Copy)]
pub struct Tick<'a> {
    /// Why it ran.
    pub origin: Origin,
    /// How long after its moment on the grid it began; zero for a fresh one.
    pub late: Duration,
    /// Moments of the grid that passed without a tick before this one.
    pub missed: u64,
    /// What the collection noticed.
    pub report: &'a Report,
}

/// Told about every tick, on the reader thread.
pub type Observer = Box<dyn FnMut(Tick<'_>) + Send>;

/// Starts the reader thread; it ends when asked to, or when nobody can ask any more.
///
/// # Errors
/// No thread can be had.
pub fn start(
    sampler: Sampler,
    interval: Duration,
    publisher: Publisher,
    observer: Observer,
) -> std::io::Result<JoinHandle<()>> {
    let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
    let reader =
        ReaderThread { sampler, interval_ms, publisher, observer, spares: Vec::new(), last_grid: None };
    thread::Builder::new().name("reader".to_owned()).spawn(move || reader.run())
}

struct ReaderThread {
    sampler: Sampler,
    interval_ms: u64,
    publisher: Publisher,
    observer: Observer,
    spares: Vec<Arc<Snapshot>>,
    /// Number of the last grid moment that had its tick.
    last_grid: Option<u64>,
}

impl ReaderThread {
    fn run(mut self) {
        // The first snapshot does not wait for the grid.
        self.tick(Origin::Fresh, Duration::ZERO, 0);
        let mut last = Instant::now();
        let mut wanted = false;
        loop {
            let mut wait = self.until_grid();
            if wanted {
                wait = wait.min(FRESH_APART.saturating_sub(last.elapsed()));
            }
            match self.publisher.requests.recv_timeout(wait) {
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Request::Fresh) => wanted = true,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some((late, missed)) = self.grid_due() {
                self.tick(Origin::Grid, late, missed);
            } else if wanted && last.elapsed() >= FRESH_APART {
                self.tick(Origin::Fresh, Duration::ZERO, 0);
            } else {
                continue;
            }
            last = Instant::now();
            wanted = false;
        }
    }

    /// Time to the next moment of the grid by the wall clock, so that a clock
    /// that is set moves the grid with it.
    fn until_grid(&self) -> Duration {
        let now = wall_ms();
        Duration::from_millis(self.interval_ms - now % self.interval_ms)
    }

    /// Whether a grid moment has come that had no tick, how long ago it was, and
    /// how many before it had none. A clock set back starts a new count.
    fn grid_due(&mut self) -> Option<(Duration, u64)> {
        let now = wall_ms();
        let moment = now / self.interval_ms;
        let Some(last) = self.last_grid.replace(moment) else {
            // The thread began within this step.
            return None;
        };
        let steps = moment.checked_sub(last)?;
        (steps > 0).then(|| (Duration::from_millis(now % self.interval_ms), steps - 1))
    }

    fn tick(&mut self, origin: Origin, late: Duration, missed: u64) {
        let free = self.spares.iter_mut().position(|s| Arc::get_mut(s).is_some());
        let mut snapshot = match free {
            Some(index) => self.spares.swap_remove(index),
            None => Arc::new(self.sampler.blank()),
        };
        let Some(filled) = Arc::get_mut(&mut snapshot) else { return };
        self.sampler.tick(origin, filled);
        if let Some(replaced) = self.publisher.publish(snapshot)
            && self.spares.len() < MAX_SPARES
        {
            self.spares.push(replaced);
        }
        (self.observer)(Tick { origin, late, missed, report: self.sampler.report() });
    }
}
