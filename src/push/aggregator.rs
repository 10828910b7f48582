//! Batches to an aggregator, as they lie in the queue.
//!
//! `proto/nodegauge/v1/ingest.proto` says what is posted and answered. The
//! aggregator holds what it is told in memory only: when its boot id changes, the
//! steps that are kept for it are sent once more. The last boot id is kept beside
//! the queue, so that an aggregator that started again while the agent was away
//! is filled up as well, and one that did not is left in peace.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message as _;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};

use crate::push::batch::{self, DecodeError, proto};
use crate::push::delivery::client::{Answer, Http, Outgoing, below};
use crate::push::delivery::verdict::{self, Fault, Verdict};
use crate::push::delivery::{First, Sink, Step};

/// Where batches are posted, below the address of the URI.
pub const PATH: &str = "api/v1/batches";

/// Length of a boot id.
const BOOT_ID: usize = 16;

/// One aggregator.
#[derive(Debug)]
pub struct Aggregator {
    state: Option<PathBuf>,
    boot_id: Option<Vec<u8>>,
    /// Of the request in flight.
    sequence: u64,
    /// In its batch.
    values: u64,
    forgotten: bool,
}

impl Aggregator {
    /// A sink that keeps the boot id it last saw in the file `state`.
    pub fn new(state: Option<PathBuf>) -> Aggregator {
        let boot_id = state.as_ref().and_then(|path| std::fs::read(path).ok());
        let boot_id = boot_id.filter(|id| id.len() == BOOT_ID);
        Aggregator { state, boot_id, sequence: 0, values: 0, forgotten: false }
    }

    fn heard_from(&mut self, boot_id: Vec<u8>) {
        if self.boot_id.as_ref() == Some(&boot_id) {
            return;
        }
        self.forgotten |= self.boot_id.is_some();
        if let Some(path) = &self.state {
            // Through a second name, so that the file is never half written. If
            // it cannot be, a restart of both goes unnoticed, no more.
            let new = path.with_extension("new");
            if let Err(error) = std::fs::write(&new, &boot_id).and_then(|()| std::fs::rename(&new, path)) {
                tracing::debug!(path = %path.display(), %error, "the aggregator's boot id cannot be kept");
            }
        }
        self.boot_id = Some(boot_id);
    }
}

impl Sink for Aggregator {
    fn first(&self) -> First {
        First::Newest
    }

    fn encode(
        &mut self,
        step: &Step,
        _from: usize,
        _limit: usize,
        body: &mut Vec<u8>,
    ) -> Result<Option<usize>, DecodeError> {
        self.sequence = step.sequence;
        // Whether it can be read is the aggregator's to say.
        self.values = step.batch().map_or(0, |batch| u64::try_from(batch.values()).unwrap_or(u64::MAX));
        body.extend_from_slice(&step.payload);
        Ok(None)
    }

    /// A batch is one piece: it says itself what is in it.
    fn item(&self, body: &[u8]) -> usize {
        body.len()
    }

    fn values(&self, _item: &[u8]) -> u64 {
        self.values
    }

    fn request(&mut self, http: &Http, items: &[u8]) -> Outgoing {
        let url = below(&http.url, PATH);
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static(batch::MEDIA_TYPE))];
        // At each attempt: the time of sending is what our clock is compared by.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let sent_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let body = Bytes::from(batch::stamp(items, self.sequence, sent_ms));
        Outgoing { method: Method::POST, url, headers, body }
    }

    fn probe(&mut self, http: &Http) -> Outgoing {
        Outgoing::get(below(&http.url, "healthz"))
    }

    fn judge(&mut self, answer: &Answer) -> Verdict {
        if answer.status != 200 {
            return match verdict::by_status(answer) {
                // Another status of success is not an aggregator's.
                Verdict::Taken => Verdict::Misconfigured(Fault::Address),
                verdict => verdict,
            };
        }
        match proto::Acknowledgement::decode(answer.body.clone()) {
            Ok(held) if held.boot_id.len() == BOOT_ID && held.sequence == self.sequence => {
                self.heard_from(held.boot_id);
                Verdict::Taken
            }
            _ => Verdict::Misconfigured(Fault::Address),
        }
    }

    fn has_forgotten(&mut self) -> bool {
        std::mem::take(&mut self.forgotten)
    }

    fn show(&self, _item: &[u8]) -> String {
        format!("the batch with sequence {}", self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(boot: u8, sequence: u64) -> Answer {
        let held = proto::Acknowledgement { boot_id: vec![boot; 16], sequence };
        Answer { status: 200, retry_after: None, body: held.encode_to_vec().into() }
    }

    #[test]
    fn another_boot_id_means_forgotten_also_after_a_restart_of_ours() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("main.boot");
        let mut sink = Aggregator::new(Some(state.clone()));
        sink.sequence = 7;
        assert_eq!(sink.judge(&answer(1, 7)), Verdict::Taken);
        assert!(!sink.has_forgotten(), "the first one seen had nothing to forget");
        assert_eq!(sink.judge(&answer(1, 7)), Verdict::Taken);
        assert!(!sink.has_forgotten());
        assert_eq!(sink.judge(&answer(2, 7)), Verdict::Taken);
        assert!(sink.has_forgotten() && !sink.has_forgotten(), "once");

        let mut again = Aggregator::new(Some(state.clone()));
        assert_eq!(again.judge(&answer(2, 0)), Verdict::Taken);
        assert!(!again.has_forgotten());
        let mut again = Aggregator::new(Some(state));
        assert_eq!(again.judge(&answer(3, 0)), Verdict::Taken);
        assert!(again.has_forgotten());
    }

    #[test]
    fn only_an_acknowledgement_of_this_batch_counts() {
        let mut sink = Aggregator::new(None);
        sink.sequence = 7;
        assert_eq!(sink.judge(&answer(1, 6)), Verdict::Misconfigured(Fault::Address));
        let page = Answer { status: 200, retry_after: None, body: Bytes::from("<html>hello</html>") };
        assert_eq!(sink.judge(&page), Verdict::Misconfigured(Fault::Address));
        let empty = Answer { status: 204, retry_after: None, body: Bytes::new() };
        assert_eq!(sink.judge(&empty), Verdict::Misconfigured(Fault::Address));
    }
}
