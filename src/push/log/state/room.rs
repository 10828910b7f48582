//! Keeping the file below its cap, and giving back what it does not need.
//!
//! redb doubles a file that has no free page, and cuts it only in a compaction.

use super::super::cursor::Reason;
use super::super::disk::{DiskError, PAGE};
use super::{State, Step};

/// A file below this is not worth compacting.
const SMALL_FILE: u64 = 4 << 20;

impl State {
    /// The step to go next: the oldest that nobody is owed, then the oldest.
    fn victim(&self) -> Option<u64> {
        if self.steps.len() < 2 {
            return None;
        }
        let done = self.steps.keys().find(|sequence| !self.is_owed(**sequence));
        done.or_else(|| self.steps.keys().next()).copied()
    }

    /// Drops steps until the rest is below the cap.
    pub(super) fn make_room(&mut self) {
        if self.disk.is_none() {
            let mut used: u64 = self.steps.values().map(|step| step.bytes).sum();
            while used > self.options.max_bytes
                && let Some(sequence) = self.victim()
            {
                used = used.saturating_sub(self.steps.get(&sequence).map_or(0, |step| step.bytes));
                self.drop_step(sequence, Some(Reason::Size));
            }
            return;
        }
        let mut pages: u64 = self.steps.values().map(Step::pages).sum();
        let spare = self.spare();
        self.stretch(file_size(pages) + spare);
        let Some(len) = self.file_bytes() else { return };
        let limit = reachable(len, self.options.max_bytes);
        while file_size(pages) + spare > limit
            && let Some(sequence) = self.victim()
        {
            pages = pages.saturating_sub(self.steps.get(&sequence).map_or(0, Step::pages));
            self.drop_step(sequence, Some(Reason::Size));
        }
    }

    /// Room for what a change leaves behind: pages become free one commit later.
    fn spare(&self) -> u64 {
        let largest = self.steps.values().map(Step::pages).max().unwrap_or(0);
        (256 << 10) + self.options.max_bytes / 64 + 3 * largest * PAGE
    }

    /// A file grows by doubling. One that would pass the cap by that is made as
    /// long as the cap allows, which costs reading it once.
    fn stretch(&mut self, wanted: u64) {
        let Some(len) = self.file_bytes() else { return };
        let max = self.options.max_bytes;
        if wanted <= reachable(len, max) || reachable(len, max) > max / 16 * 15 {
            return;
        }
        if self.stretched_at == Some(len) {
            return;
        }
        self.stretched_at = Some(len);
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

/// How long a file of this length can become by doubling below the cap: all of it
/// but the first page.
fn reachable(len: u64, max: u64) -> u64 {
    let mut len = len;
    while len > PAGE && len.saturating_mul(2) - PAGE <= max {
        len = len * 2 - PAGE;
    }
    len.min(max)
}
