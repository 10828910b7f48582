//! What the answer of a receiver means for what was sent.
//!
//! | answer | meaning |
//! | --- | --- |
//! | 2xx | taken |
//! | 429, 5xx, 408, none at all | try again, when `Retry-After` says or with growing waits |
//! | 413 | send it in halves |
//! | 400, 409, 422 | something in it is not acceptable: find it by halves, drop and record it, keep the rest |
//! | 401, 403 | the credentials are wrong: try again slowly, and say so |
//! | 3xx, other 4xx | the address is wrong: the same |
//!
//! Sinks know more of their receivers' words for the fourth row.

use std::time::Duration;

use super::client::Answer;
use crate::telemetry::push::Rejected;

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything was taken.
    Taken,
    /// Everything but `lost` items was taken, and sending those again would not help.
    TakenExcept {
        /// How many, if the receiver said.
        lost: Option<u64>,
        /// Why.
        why: Rejected,
    },
    /// It is too large.
    Split,
    /// An item in it, or all, are not acceptable.
    Unacceptable(Rejected),
    /// What it needs at the receiver is gone: prepare again, then send again.
    Unprepared,
    /// Not now.
    Later {
        /// What the receiver asks for.
        after: Option<Duration>,
    },
    /// Not until somebody changes the configuration, here or there.
    Misconfigured(Fault),
}

/// What is wrong with the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 401 or 403.
    Credentials,
    /// 3xx.
    Redirect,
    /// Another 4xx.
    Address,
}

impl Fault {
    /// What to do about it.
    pub(super) fn cure(self) -> &'static str {
        match self {
            Fault::Credentials => {
                "credentials are missing, wrong or not enough: see user=, password-file= and token-file="
            }
            Fault::Redirect => {
                "redirects are not followed, since credentials would go with them: name the final address"
            }
            Fault::Address => "nothing there takes this: see the address and its path",
        }
    }
}

/// The verdict by status alone.
pub fn by_status(answer: &Answer) -> Verdict {
    match answer.status {
        200..=299 => Verdict::Taken,
        413 => Verdict::Split,
        400 | 409 | 422 => Verdict::Unacceptable(Rejected::Invalid),
        401 | 403 => Verdict::Misconfigured(Fault::Credentials),
        300..=399 => Verdict::Misconfigured(Fault::Redirect),
        408 | 425 | 429 | 500.. => Verdict::Later { after: answer.retry_after },
        _ => Verdict::Misconfigured(Fault::Address),
    }
}

/// Whether a receiver of remote write says that a sample is too old, out of
/// order, or there with another value: Prometheus, Thanos, Cortex and Mimir,
/// VictoriaMetrics, InfluxDB.
pub fn says_too_old(text: &str) -> bool {
    const WORDS: [&str; 14] = [
        // Prometheus 2.x and 3.x
        "out of order sample",
        "out of bounds",
        "duplicate sample for timestamp",
        "too old sample",
        // Cortex, Mimir
        "err-mimir-sample-out-of-order",
        "err-mimir-sample-timestamp-too-old",
        "err-mimir-sample-duplicate-timestamp",
        "err-mimir-too-old",
        "sample timestamp too old",
        "timestamp is too old",
        // Thanos
        "out of order samples",
        // VictoriaMetrics
        "outside the retention",
        // InfluxDB 1.x and 2.x
        "points beyond retention policy",
        "outside of the retention policy",
    ];
    let text = text.to_ascii_lowercase();
    WORDS.iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16) -> Answer {
        Answer { status, retry_after: Some(Duration::from_secs(7)), body: bytes::Bytes::new() }
    }

    #[test]
    fn by_class() {
        let check = |status, expected| assert_eq!(by_status(&answer(status)), expected, "{status}");
        let later = Verdict::Later { after: Some(Duration::from_secs(7)) };
        for status in [200, 202, 204] {
            check(status, Verdict::Taken);
        }
        for status in [408, 429, 500, 502, 503, 504, 599] {
            check(status, later.clone());
        }
        for status in [400, 409, 422] {
            check(status, Verdict::Unacceptable(Rejected::Invalid));
        }
        check(413, Verdict::Split);
        check(401, Verdict::Misconfigured(Fault::Credentials));
        check(403, Verdict::Misconfigured(Fault::Credentials));
        check(307, Verdict::Misconfigured(Fault::Redirect));
        check(404, Verdict::Misconfigured(Fault::Address));
        check(415, Verdict::Misconfigured(Fault::Address));
    }

    #[test]
    fn too_old_in_the_receivers_words() {
        for text in [
            "out of order sample",
            "out of bounds",
            "duplicate sample for timestamp",
            "too old sample",
            "failed pushing to ingester: user=t: the sample has been rejected because another sample with a more \
             recent timestamp has already been ingested and out-of-order samples are not allowed \
             (err-mimir-sample-out-of-order)",
            "store locally for endpoint x: add 3 samples: out of order samples",
            "{\"error\":\"partial write: points beyond retention policy dropped=3\"}",
        ] {
            assert!(says_too_old(text), "{text}");
        }
        assert!(!says_too_old("invalid metric name"));
    }
}
