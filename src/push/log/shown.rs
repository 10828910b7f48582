//! What is told of the queue while its file is being written, which a slow disk makes
//! long: how it was when that began, with the step that is being written.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Status;

/// With as many steps counting them costs about what a write does, and is done this often.
const MANY: usize = 4_096;
const SELDOM: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Inner {
    of_sinks: Vec<(Arc<str>, Status)>,
    counted: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shown(Mutex<Inner>);

impl Shown {
    /// What was last noted of a sink.
    pub(super) fn of(&self, sink: &str) -> Option<Status> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.of_sinks.iter().find(|(name, _)| **name == *sink).map(|(_, status)| status.clone())
    }

    /// Notes what is counted now, of that many steps.
    pub(super) fn note(&self, steps: usize, count: impl FnOnce() -> Vec<(Arc<str>, Status)>) {
        let now = Instant::now();
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if steps < MANY || inner.counted.is_none_or(|counted| now.duration_since(counted) >= SELDOM) {
            *inner = Inner { of_sinks: count(), counted: Some(now) };
        }
    }
}
