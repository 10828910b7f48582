//! Keeping the file below its cap, and giving back what it does not need.
//!
//! redb doubles a file that has no free page, and cuts it only in a compaction.

use super::super::cursor::Reason;
use super::super::disk::{DiskError, PAGE};
use super::{State, Step};

/// A file below this is not worth compacting.
const SMALL_FILE: u64 = 4 << 20;

impl State {
    /// The step to go next: the oldest that nobody is owed, then the oldest that no sink
    /// was given. Never the newest: its number was given out just now, and memory has
    /// room for it. One that a sink was given goes only for the cap: on a full disk it
    /// would be lost for nothing.
    fn victim(&self, reason: Reason) -> Option<u64> {
        let newest = self.steps.last_key_value().map(|(sequence, _)| *sequence);
        let older = || self.steps.keys().copied().filter(|sequence| Some(*sequence) != newest);
        let done = older().find(|sequence| !self.is_owed(*sequence));
        let waiting = || older().find(|sequence| !self.is_held(*sequence));
        let held = || if reason == Reason::Size { older().next() } else { None };
        done.or_else(waiting).or_else(held)
    }

    /// Drops steps until the rest is below the cap.
    pub(super) fn make_room(&mut self) {
        if self.disk.is_none() {
            let mut used: u64 = self.steps.values().map(|step| step.bytes).sum();
            while used > self.options.max_bytes
                && let Some(sequence) = self.victim(Reason::Size)
            {
                used = used.saturating_sub(self.steps.get(&sequence).map_or(0, |step| step.bytes));
                self.drop_step(sequence, Some(Reason::Size));
            }
            return;
        }
        let mut pages: u64 = self.steps.values().map(Step::pages).sum();
        let Some((limit, reason)) = self.limit(file_size(pages)) else { return };
        let limit = limit.saturating_sub(self.spare(limit));
        while file_size(pages) > limit
            && let Some(sequence) = self.victim(reason)
        {
            pages = pages.saturating_sub(self.steps.get(&sequence).map_or(0, Step::pages));
            self.drop_step(sequence, Some(reason));
        }
    }

    /// How long the file may become for so many bytes, and what hinders it from
    /// becoming longer. Room for the next length is reserved before the present one
    /// is used up: in a file without a free page not even a step can be dropped.
    fn limit(&mut self, used: u64) -> Option<(u64, Reason)> {
        let max = self.options.max_bytes;
        let len = self.file_bytes()?;
        if used + self.spare(len) <= len {
            return Some((len, Reason::Size));
        }
        self.stretch(used + self.spare(max));
        let len = self.file_bytes()?;
        let mut next = len;
        while next < used + self.spare(next) && doubled(next) <= max {
            next = doubled(next);
        }
        if next > len && self.disk.as_mut().is_some_and(|disk| disk.reserve(next).is_err()) {
            return Some((len, Reason::DiskFull));
        }
        Some((reachable(len, max), Reason::Size))
    }

    /// Makes the file long enough for all steps, where doubling will not.
    pub(super) fn stretch_to_all(&mut self) {
        let used = file_size(self.steps.values().map(Step::pages).sum());
        self.stretch(used + self.spare(self.options.max_bytes));
    }

    /// Room for what a change leaves behind: pages become free one commit later.
    fn spare(&self, len: u64) -> u64 {
        let largest = self.steps.values().map(Step::pages).max().unwrap_or(0);
        (256 << 10) + len / 64 + 3 * largest * PAGE
    }

    /// A file grows by doubling. One that would pass the cap by that is made as
    /// long as the cap allows, which costs reading it once.
    fn stretch(&mut self, wanted: u64) {
        let Some(len) = self.file_bytes() else { return };
        let max = self.options.max_bytes;
        if wanted <= reachable(len, max) || reachable(len, max) > max / 16 * 15 {
            return;
        }
        let Some(disk) = &mut self.disk else { return };
        if let Err(error) = disk.stretch() {
            self.trouble = Some(error.to_string());
        }
    }

    /// Gives the disk back what is free, once most of the file is.
    pub(super) fn shrink(&mut self) {
        let Some(len) = self.file_bytes() else { return };
        let used = file_size(self.steps.values().map(Step::pages).sum());
        let over = len > self.options.max_bytes;
        if over || (len > SMALL_FILE && used < len / 4 && self.compacted_at != Some(len)) {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        match disk.compact() {
            Ok(()) => self.compacted_at = disk.file_bytes(),
            Err(DiskError::Damaged(why)) => self.salvage(&why),
            Err(error) => self.trouble = Some(error.to_string()),
        }
    }
}

/// Bytes of a file with so many pages of payload in it.
fn file_size(pages: u64) -> u64 {
    (pages + pages / 32 + 64) * PAGE
}

/// The length of a file after it has grown: twice all but the first page.
fn doubled(len: u64) -> u64 {
    len.saturating_mul(2).saturating_sub(PAGE)
}

/// How long a file of this length can become below the cap.
fn reachable(len: u64, max: u64) -> u64 {
    let mut len = len;
    while len > PAGE && doubled(len) <= max {
        len = doubled(len);
    }
    len.min(max)
}
