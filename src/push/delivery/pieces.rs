//! A body and what of it is still to be sent: whole, or in halves of halves.

use std::collections::VecDeque;
use std::ops::Range;

use super::Sink;

/// Requests a body may take before what is left of it is given up: one bad item
/// in a body of 10,000 is found with 28, two with twice that.
const MAX_REQUESTS: u32 = 64;

/// Bytes below which no body is begun, however small a receiver's limit is.
const MIN_LIMIT: usize = 16 << 10;

/// What of one step is sent, is being sent and is left.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) sequence: u64,
    /// The entity the next body begins with; `None` after the last.
    pub(super) next: Option<usize>,
    /// The entity this body began with.
    pub(super) from: usize,
    /// Largest body, when this one was begun.
    pub(super) limit: usize,
    /// What of the body is left. Those found first are tried first, so that one
    /// bad item is approached from the top and not each in turn from the left.
    pub(super) pieces: VecDeque<Range<usize>>,
    requests: u32,
}

impl Progress {
    /// Of a step of which nothing was sent.
    pub(super) fn new(sequence: u64) -> Progress {
        let pieces = VecDeque::new();
        Progress { sequence, next: Some(0), from: 0, limit: 0, pieces, requests: 0 }
    }

    /// Nothing is left of the step.
    pub(super) fn end(&mut self) {
        self.next = None;
        self.pieces.clear();
    }

    /// The body was encoded: it is to be sent in pieces of at most the limit's bytes.
    pub(super) fn fill(&mut self, sink: &dyn Sink, body: &[u8]) {
        self.requests = 0;
        self.pieces.clear();
        let mut large = Vec::new();
        if !body.is_empty() {
            large.push(0..body.len());
        }
        while let Some(piece) = large.pop() {
            // One item may be larger; what becomes of it the receiver says.
            match (piece.len() > self.limit).then(|| halve(sink, body, &piece)).flatten() {
                Some((left, right)) => large.extend([right, left]),
                None => self.pieces.push_back(piece),
            }
        }
    }

    /// The piece to send next.
    pub(super) fn piece<'b>(&self, body: &'b [u8]) -> Option<&'b [u8]> {
        body.get(self.pieces.front()?.clone())
    }

    /// The first piece is done with.
    pub(super) fn pop(&mut self) {
        self.pieces.pop_front();
    }

    /// Puts halves in the place of the first piece; false when it is one item,
    /// or has taken too many requests already.
    pub(super) fn split(&mut self, sink: &dyn Sink, body: &[u8]) -> bool {
        self.requests += 2;
        if self.requests > MAX_REQUESTS {
            return false;
        }
        let Some(halves) = self.pieces.front().and_then(|piece| halve(sink, body, piece)) else {
            return false;
        };
        self.pieces.pop_front();
        self.pieces.push_back(halves.0);
        self.pieces.push_back(halves.1);
        true
    }
}

/// The limit after a body of `length` bytes was too large.
pub(super) fn lowered(length: usize) -> usize {
    (length / 2).max(MIN_LIMIT)
}

/// How many values the items have.
pub(super) fn values(sink: &dyn Sink, items: &[u8]) -> u64 {
    let mut rest = items;
    let mut values = 0;
    while !rest.is_empty() {
        let (item, after) = first(sink, rest);
        values += sink.values(item);
        rest = after;
    }
    values
}

/// The first item, and what follows.
pub(super) fn first<'a>(sink: &dyn Sink, items: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    // At least a byte, so that nobody goes on for ever.
    items.split_at(sink.item(items).clamp(1, items.len().max(1)).min(items.len()))
}

/// Two pieces of nearly the same length; `None` when there is but one item.
fn halve(sink: &dyn Sink, body: &[u8], piece: &Range<usize>) -> Option<(Range<usize>, Range<usize>)> {
    let mut at = piece.start;
    let mut rest = body.get(piece.clone())?;
    loop {
        let (item, after) = first(sink, rest);
        let next = at + item.len();
        if next >= piece.end {
            // The last item alone is larger than the half.
            return (at > piece.start).then_some((piece.start..at, at..piece.end));
        }
        if next - piece.start >= piece.len() / 2 {
            return Some((piece.start..next, next..piece.end));
        }
        at = next;
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::influxdb::Influxdb;
    use crate::push::target::Target;

    fn sink() -> Influxdb {
        Influxdb::new(&Target::parse("influxdb:http://h").unwrap()).unwrap()
    }

    fn progress(text: &str, limit: usize) -> Progress {
        let mut progress = Progress { limit, ..Progress::new(1) };
        progress.fill(&sink(), text.as_bytes());
        progress
    }

    #[test]
    fn halves_end_between_items() {
        let check = |text: &str, expected: Option<(Range<usize>, Range<usize>)>| {
            assert_eq!(halve(&sink(), text.as_bytes(), &(0..text.len())), expected, "{text:?}");
        };
        check("a\nb\n", Some((0..2, 2..4)));
        check("a\nb\nc\n", Some((0..4, 4..6)));
        check("a\nbbbbbbbbbb\n", Some((0..2, 2..13)));
        check("aaaaaaaaaaaa\nb\n", Some((0..13, 13..15)));
        check("a\n", None);
        check("a", None);
        check("", None);
    }

    #[test]
    fn nothing_is_lost_whatever_the_limit() {
        let text: String = (0..50).map(|n| format!("{}\n", "x".repeat(n % 7))).collect();
        for limit in [1, 10, 30, 1000] {
            let mut progress = progress(&text, limit);
            let mut sent = Vec::new();
            while let Some(piece) = progress.piece(text.as_bytes()) {
                assert!(piece.len() <= limit.max(7), "{limit}");
                sent.push(progress.pieces.front().unwrap().clone());
                progress.pop();
            }
            sent.sort_by_key(|range| range.start);
            let joined: String = sent.into_iter().map(|r| &text[r]).collect();
            assert_eq!(joined, text, "{limit}");
        }
    }

    #[test]
    fn one_bad_item_in_ten_thousand_is_found_alone() {
        let text: String = (0..10_000).map(|n| format!("item {n}\n")).collect();
        let mut progress = progress(&text, usize::MAX);
        let (mut good, mut bad) = (0, Vec::new());
        while let Some(piece) = progress.piece(text.as_bytes()) {
            let piece = String::from_utf8(piece.to_vec()).unwrap();
            if !piece.contains("item 6543\n") {
                good += piece.lines().count();
                progress.pop();
            } else if !progress.split(&sink(), text.as_bytes()) {
                bad.push(piece);
                progress.pop();
            }
        }
        assert_eq!((good, bad), (9_999, vec!["item 6543\n".to_owned()]));
    }

    #[test]
    fn where_everything_is_bad_it_ends() {
        let text: String = (0..10_000).map(|n| format!("item {n}\n")).collect();
        let mut progress = progress(&text, usize::MAX);
        let (mut requests, mut given_up) = (0, 0);
        while let Some(piece) = progress.piece(text.as_bytes()) {
            requests += 1;
            let items = values(&sink(), piece);
            if !progress.split(&sink(), text.as_bytes()) {
                given_up += items;
                progress.pop();
            }
        }
        assert_eq!(given_up, 10_000);
        assert!(requests <= 100, "{requests}");
    }
}
