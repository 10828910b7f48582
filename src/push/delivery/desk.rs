//! What the workers of one queue have in common: most of the time all are at the same
//! step, which takes megabytes when it is decoded, and none needs its body once that is
//! compressed. So there is one decoded step, and room for one body.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Step;
use crate::push::batch::{Batch, DecodeError};

/// What an entity that passes a body's limit may take, bytes; larger ones make the body grow.
const LAST_ENTITY: usize = 64 << 10;

/// The step that was decoded last, for as long as anybody is at work.
#[derive(Debug, Default)]
struct Decoded {
    at_work: usize,
    last: Option<(u64, Arc<Batch>)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Desk {
    seats: AtomicU64,
    decoded: Mutex<Decoded>,
    body: Mutex<Body>,
}

impl Desk {
    /// A number that nobody else at this desk has.
    pub(super) fn seat(&self) -> u64 {
        self.seats.fetch_add(1, Ordering::Relaxed)
    }

    fn decoded(&self) -> MutexGuard<'_, Decoded> {
        // A count and a pointer are whole at any time.
        self.decoded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As long as it is held, the step that was decoded last is kept.
    pub fn work(self: &Arc<Desk>) -> AtWork {
        self.decoded().at_work += 1;
        AtWork(Arc::clone(self))
    }

    /// Of two steps in turn, as where one receiver is slower than another, each is
    /// decoded for every body: what takes longer is to be sent anyway.
    pub(super) fn get_or_decode(&self, step: &Step) -> Result<Arc<Batch>, DecodeError> {
        let mut decoded = self.decoded();
        if let Some((sequence, batch)) = &decoded.last
            && *sequence == step.sequence
        {
            return Ok(Arc::clone(batch));
        }
        // Never two at once.
        decoded.last = None;
        let batch = Arc::new(step.decode()?);
        if decoded.at_work > 0 {
            decoded.last = Some((step.sequence, Arc::clone(&batch)));
        }
        Ok(batch)
    }

    /// The room for a body, until it is let go.
    pub(super) fn body(&self) -> MutexGuard<'_, Body> {
        self.body.lock().unwrap_or_else(|poisoned| {
            // Nobody knows how far it was encoded.
            let mut body = poisoned.into_inner();
            body.free();
            body
        })
    }
}

/// See [`Desk::work`].
#[derive(Debug)]
pub struct AtWork(Arc<Desk>);

impl Drop for AtWork {
    fn drop(&mut self) {
        let mut decoded = self.0.decoded();
        decoded.at_work -= 1;
        if decoded.at_work == 0 {
            decoded.last = None;
        }
    }
}

/// Which body it is: encoding it again gives the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Which {
    /// Whose sink encodes it.
    pub(super) seat: u64,
    /// Out of which step.
    pub(super) sequence: u64,
    /// From which entity on.
    pub(super) from: usize,
    /// Up to how many bytes.
    pub(super) limit: usize,
}

/// The body that was encoded last.
#[derive(Debug, Default)]
pub(super) struct Body {
    which: Option<Which>,
    bytes: Vec<u8>,
}

impl Body {
    /// Encodes a body unless it is there already; what `encode` said if it did.
    ///
    /// # Errors
    /// Those of `encode`.
    pub(super) fn hold<T>(
        &mut self,
        which: Which,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.which == Some(which) {
            return Ok(None);
        }
        self.which = None;
        self.bytes.clear();
        // Growing by doubling would make room for twice as much; what is not used takes no memory.
        self.bytes.reserve_exact(which.limit.saturating_add(LAST_ENTITY));
        let said = encode(&mut self.bytes)?;
        self.which = Some(which);
        Ok(Some(said))
    }

    /// What is held.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the memory back.
    pub(super) fn free(&mut self) {
        *self = Body::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_encoded_once_until_another_takes_its_room() {
        let desk = Desk::default();
        let which = |seat| Which { seat, sequence: 7, from: 0, limit: 10 };
        let (mine, theirs) = (which(desk.seat()), which(desk.seat()));
        let mut encoded = 0;
        let mut hold = |which: Which, text: &str| {
            let mut body = desk.body();
            let said = body.hold(which, |bytes| {
                encoded += 1;
                bytes.extend_from_slice(text.as_bytes());
                Ok(encoded)
            });
            (said.unwrap(), String::from_utf8(body.bytes().to_vec()).unwrap())
        };
        assert_eq!(hold(mine, "mine"), (Some(1), "mine".to_owned()));
        assert_eq!(hold(mine, "?"), (None, "mine".to_owned()));
        assert_eq!(hold(theirs, "theirs"), (Some(2), "theirs".to_owned()));
        assert_eq!(hold(mine, "mine"), (Some(3), "mine".to_owned()));
        assert_eq!(hold(Which { from: 3, ..mine }, "on"), (Some(4), "on".to_owned()));
        desk.body().free();
        assert_eq!(hold(Which { from: 3, ..mine }, "on"), (Some(5), "on".to_owned()));
    }

    #[test]
    fn half_a_body_is_not_held() {
        let mut body = Body::default();
        let which = Which { seat: 0, sequence: 1, from: 0, limit: 10 };
        let failed: Result<Option<()>, _> = body.hold(which, |bytes| {
            bytes.push(1);
            Err(DecodeError::NotABatch)
        });
        assert!(failed.is_err());
        assert_eq!(body.hold(which, |_| Ok(())).unwrap(), Some(()), "it is encoded again");
        assert!(body.bytes().is_empty());
    }
}
