//! The log as it stands: the steps by number, the cursors, and what the file
//! does not have yet.
//!
//! The rows are in memory and the payloads in the file. A change is made here
//! first and then written with all earlier ones that failed, so that the file is
//! behind at times and never ahead.
//!
//! It is one file because every change of the state is one transaction over all of it.

mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::cursor::{Cursor, Reason};
use super::disk::{Change, Content, Disk, DiskError, length, pieces};
use super::medium::{Marks, Medium};
use super::{
    Appended, Clock, KEEP_CURSOR, LogError, MIN_BYTES, OpenError, Opened, Options, Order, REASONS, Record,
    SinkName, Status,
};

/// How far the ceiling is put above the next sequence: so rarely is it written.
const CEILING_AHEAD: u64 = 4096;

#[derive(Debug)]
struct Step {
    time_ms: u64,
    bytes: u64,
    /// While the file does not have it, and always without a file.
    payload: Option<Bytes>,
}

pub(super) struct State {
    options: Options,
    clock: Clock,
    steps: BTreeMap<u64, Step>,
    cursors: Vec<Cursor>,
    next: u64,
    disk: Option<Disk>,
    marks: Marks,
    /// Sequence → bytes of steps that are gone here and not yet in the file.
    removed: BTreeMap<u64, u64>,
    /// Sinks whose rows are to go.
    forgotten: BTreeSet<Arc<str>>,
    trouble: Option<String>,
    /// A compaction did not help at this length: do not try again before it changes.
    compacted_at: Option<u64>,
    /// Giving up the oldest did not help either: nothing more is given up before a
    /// write succeeds.
    stuck: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("steps", &self.steps.len()).field("next", &self.next).finish()
    }
}

impl State {
    pub(super) fn open(
        medium: Option<Box<dyn Medium>>,
        mut options: Options,
        sinks: &[SinkName],
        clock: Clock,
    ) -> Result<(State, Opened), OpenError> {
        if medium.is_some() {
            options.max_bytes = options.max_bytes.max(MIN_BYTES);
        }
        let disk = medium.map(|medium| Disk::new(medium, options.max_bytes));
        let marks = disk.as_ref().map(Disk::marks).unwrap_or_default();
        let mut state = State {
            options,
            clock,
            steps: BTreeMap::new(),
            cursors: Vec::new(),
            next: 1,
            disk,
            marks,
            removed: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            trouble: None,
            compacted_at: None,
            stuck: false,
        };
        let opened = state.begin()?;
        state.know(sinks);
        state.expire();
        state.make_room();
        state.write();
        state.shrink();
        Ok((state, opened))
    }

    /// Takes over what the file has, or sets it aside.
    fn begin(&mut self) -> Result<Opened, OpenError> {
        let now = (self.clock)();
        let Some(disk) = &mut self.disk else { return Ok(Opened::Fresh) };
        let failed = |error: DiskError| OpenError::Failed(error.to_string());
        let (content, set_aside) = match disk.load().and_then(|content| Ok((cursors(&content)?, content))) {
            Ok(content) => (content, None),
            Err(error @ (DiskError::Damaged(_) | DiskError::Version(_))) => {
                let why = match &error {
                    DiskError::Version(version) => format!("version-{version}"),
                    _ => "damaged".to_owned(),
                };
                let path = disk.set_aside(&why, now).map_err(failed)?;
                let content = disk.load().map_err(failed)?;
                ((Vec::new(), content), Some(Opened::SetAside { path, why: error.to_string() }))
            }
            Err(error) => return Err(failed(error)),
        };
        let (cursors, content) = content;
        self.cursors = cursors;
        self.next = content.next.max(self.marks.memory).max(1);
        if set_aside.is_some() {
            self.next = self.next.max(self.marks.ceiling);
        }
        for (sequence, time_ms, bytes) in content.steps {
            self.next = self.next.max(sequence.saturating_add(1));
            self.steps.insert(sequence, Step { time_ms, bytes, payload: None });
        }
        let found = length_of(self.steps.len());
        Ok(set_aside.unwrap_or(if found == 0 { Opened::Fresh } else { Opened::Continued(found) }))
    }

    /// Makes the cursors those of the sinks there are now.
    fn know(&mut self, sinks: &[SinkName]) {
        let now = (self.clock)();
        for cursor in &mut self.cursors {
            let configured = sinks.iter().any(|sink| sink.0 == cursor.name);
            if configured != cursor.absent_since.is_none() {
                cursor.absent_since = (!configured).then_some(now);
                cursor.dirty = true;
            }
        }
        for sink in sinks {
            if !self.cursors.iter().any(|cursor| cursor.name == sink.0) {
                self.cursors.push(Cursor::new(Arc::clone(&sink.0), self.next));
            }
        }
    }

    pub(super) fn last_time_ms(&self) -> Option<u64> {
        self.steps.last_key_value().map(|(_, step)| step.time_ms)
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.next
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    pub(super) fn file_bytes(&self) -> Option<u64> {
        self.disk.as_ref().and_then(Disk::file_bytes)
    }

    pub(super) fn append(&mut self, time_ms: u64, payload: &[u8]) -> Result<Appended, LogError> {
        let (bytes, limit) = (length(payload), self.options.max_bytes / 16);
        if bytes > limit {
            for cursor in self.cursors.iter_mut().filter(|c| c.absent_since.is_none()) {
                cursor.count(Reason::TooLarge);
            }
            return Err(LogError::TooLarge { bytes, limit });
        }
        let sequence = self.next;
        self.next = self.next.saturating_add(1);
        let payload = Some(Bytes::copy_from_slice(payload));
        self.steps.insert(sequence, Step { time_ms, bytes, payload });
        self.expire();
        self.make_room();
        self.write();
        let durable = self.disk.is_some() && self.steps.get(&sequence).is_some_and(|s| s.payload.is_none());
        Ok(Appended { sequence, durable })
    }

    pub(super) fn next(&mut self, sink: &str, order: Order, limit: usize) -> Result<Vec<Record>, LogError> {
        let mut records = Vec::new();
        while records.len() < limit {
            let cursor = self.cursor(sink)?;
            let given = |sequence: u64| records.iter().any(|record: &Record| record.sequence == sequence);
            let mut owed =
                self.steps.iter().filter(|(sequence, _)| cursor.is_owed(**sequence) && !given(**sequence));
            let found = match order {
                Order::OldestFirst => owed.next(),
                Order::NewestFirst => owed.next_back(),
            };
            let Some((&sequence, step)) = found else { break };
            let (time_ms, kept) = (step.time_ms, step.payload.clone());
            if let Some(payload) = self.payload(sequence, kept)? {
                records.push(Record { sequence, time_ms, payload });
            }
        }
        Ok(records)
    }

    /// Reads a payload; a step that cannot be read is dropped.
    fn payload(&mut self, sequence: u64, kept: Option<Bytes>) -> Result<Option<Bytes>, LogError> {
        let (None, Some(disk)) = (&kept, &mut self.disk) else { return Ok(kept) };
        match disk.read(sequence) {
            Ok(Some(payload)) => return Ok(Some(payload)),
            Ok(None) => self.drop_step(sequence, Some(Reason::Damaged)),
            Err(DiskError::Damaged(why)) => {
                self.drop_step(sequence, Some(Reason::Damaged));
                self.salvage(&why);
            }
            Err(error) => return Err(LogError::Unreadable(error.to_string())),
        }
        self.write();
        Ok(None)
    }

    pub(super) fn acknowledge(&mut self, sink: &str, sequences: &[u64]) -> Result<(), LogError> {
        let State { steps, cursors, .. } = self;
        let cursor = cursors.iter_mut().find(|c| &*c.name == sink);
        let cursor = cursor.ok_or_else(|| LogError::UnknownSink(sink.to_owned()))?;
        for sequence in sequences {
            if steps.contains_key(sequence) && cursor.is_owed(*sequence) {
                cursor.acknowledged.insert(*sequence);
                cursor.dirty = true;
            }
        }
        if cursor.dirty {
            self.expire();
            self.write();
            self.shrink();
        }
        Ok(())
    }

    pub(super) fn refill(&mut self, sink: &str) -> Result<u64, LogError> {
        let since = (self.clock)().saturating_sub(millis(self.options.keep_acknowledged));
        let State { steps, cursors, .. } = self;
        let cursor = cursors.iter_mut().find(|c| &*c.name == sink);
        let cursor = cursor.ok_or_else(|| LogError::UnknownSink(sink.to_owned()))?;
        let kept = steps.iter().filter(|(_, step)| step.time_ms >= since);
        let mut again = 0;
        for (sequence, _) in kept {
            again += u64::from(cursor.acknowledged.remove(*sequence));
        }
        cursor.dirty |= again > 0;
        self.write();
        Ok(again)
    }

    pub(super) fn status(&self, sink: &str) -> Result<Status, LogError> {
        let cursor = self.cursor(sink)?;
        let mut status =
            Status { dropped: REASONS.into_iter().zip(cursor.dropped).collect(), ..Status::default() };
        for (_, step) in self.steps.iter().filter(|(sequence, _)| cursor.is_owed(**sequence)) {
            status.oldest_ms.get_or_insert(step.time_ms);
            status.steps += 1;
            status.bytes += step.bytes;
        }
        Ok(status)
    }

    fn cursor(&self, sink: &str) -> Result<&Cursor, LogError> {
        let found = self.cursors.iter().find(|cursor| &*cursor.name == sink);
        found.ok_or_else(|| LogError::UnknownSink(sink.to_owned()))
    }

    fn is_owed(&self, sequence: u64) -> bool {
        self.cursors.iter().any(|cursor| cursor.is_owed(sequence))
    }

    /// Takes a step out; with a reason it is counted for those who were owed it.
    fn drop_step(&mut self, sequence: u64, reason: Option<Reason>) {
        let Some(step) = self.steps.remove(&sequence) else { return };
        if let Some(reason) = reason {
            for cursor in self.cursors.iter_mut().filter(|cursor| cursor.is_owed(sequence)) {
                cursor.count(reason);
            }
        }
        // Also one that was never written: a commit that failed may have come through.
        if self.disk.is_some() {
            self.removed.insert(sequence, step.bytes);
        }
    }

    /// Drops what is too old, and forgets sinks that are gone for long.
    fn expire(&mut self) {
        let now = (self.clock)();
        let before = |age: Duration| now.saturating_sub(millis(age));
        let (done, old) = (before(self.options.keep_acknowledged), self.options.max_age.map(before));
        let newest = self.steps.last_key_value().map(|(sequence, _)| *sequence);
        let mut gone = Vec::new();
        for (sequence, step) in &self.steps {
            if !self.is_owed(*sequence) {
                if step.time_ms < done {
                    gone.push((*sequence, None));
                }
            } else if Some(*sequence) != newest && old.is_some_and(|old| step.time_ms < old) {
                gone.push((*sequence, Some(Reason::Age)));
            }
        }
        for (sequence, reason) in gone {
            self.drop_step(sequence, reason);
        }
        let oldest = self.steps.first_key_value().map_or(self.next, |(sequence, _)| *sequence);
        let forgotten = &mut self.forgotten;
        self.cursors.retain_mut(|cursor| {
            cursor.acknowledged.forget_below(oldest);
            let keep = cursor.absent_since.is_none_or(|since| since >= before(KEEP_CURSOR));
            if !keep {
                forgotten.insert(Arc::clone(&cursor.name));
            }
            keep
        });
    }

    /// Writes what the file does not have. Failing that, drops as little as lets it
    /// succeed, or goes on in memory.
    fn write(&mut self) {
        if self.disk.is_none() || self.is_written() {
            return;
        }
        self.raise_ceiling();
        for _ in 0..4 {
            match self.commit(true, &[]) {
                Ok(()) => {
                    self.trouble = None;
                    self.stuck = false;
                    self.clear_memory_mark();
                    return;
                }
                Err(DiskError::Full(why)) => {
                    self.trouble = Some(why);
                    if !self.give_up_oldest() {
                        break;
                    }
                }
                Err(DiskError::Damaged(why)) => self.salvage(&why),
                Err(error) => self.trouble = Some(error.to_string()),
            }
        }
        self.bound_memory();
    }

    fn is_written(&self) -> bool {
        self.removed.is_empty()
            && self.forgotten.is_empty()
            && !self.cursors.iter().any(|cursor| cursor.dirty)
            && !self.steps.values().any(|step| step.payload.is_some())
    }

    /// One transaction with everything, or with all but the new steps, and without
    /// `victims`, which are dropped once that came through.
    fn commit(&mut self, with_steps: bool, victims: &[u64]) -> Result<(), DiskError> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        let mut change = Change { next: self.next, ..Change::default() };
        change.remove = self.removed.iter().map(|(sequence, bytes)| (*sequence, *bytes)).collect();
        let bytes = |sequence: &u64| self.steps.get(sequence).map(|step| (*sequence, step.bytes));
        change.remove.extend(victims.iter().filter_map(bytes));
        if with_steps {
            let new =
                self.steps.iter().filter_map(|(s, step)| Some((*s, step.time_ms, step.payload.clone()?)));
            change.add = new.collect();
        }
        for name in &self.forgotten {
            change.sinks.push((Arc::clone(name), None));
        }
        for cursor in &self.cursors {
            let mut row = cursor.clone();
            let owed = victims.iter().filter(|sequence| cursor.is_owed(**sequence));
            owed.for_each(|_| row.count(Reason::DiskFull));
            if row.dirty {
                change.sinks.push((Arc::clone(&cursor.name), Some(row.encode())));
            }
        }
        disk.commit(&change)?;
        for sequence in victims {
            self.drop_step(*sequence, Some(Reason::DiskFull));
        }
        self.removed.clear();
        self.forgotten.clear();
        self.cursors.iter_mut().for_each(|cursor| cursor.dirty = false);
        for (sequence, _, _) in &change.add {
            if let Some(step) = self.steps.get_mut(sequence) {
                step.payload = None;
            }
        }
        Ok(())
    }

    /// Frees room in the file for the steps in memory, at the price of its oldest
    /// ones; whether that came through.
    fn give_up_oldest(&mut self) -> bool {
        let new: u64 = self.steps.values().filter(|step| step.payload.is_some()).map(Step::pages).sum();
        // An acknowledgement that cannot be written is worth no step.
        if self.stuck || new == 0 {
            return false;
        }
        let written = self.steps.iter().filter(|(_, step)| step.payload.is_none());
        let (owed, done): (Vec<_>, Vec<_>) = written.partition(|(sequence, _)| self.is_owed(**sequence));
        let mut freed = 0;
        let mut victims = Vec::new();
        for (sequence, step) in done.into_iter().chain(owed) {
            if freed > 2 * new {
                break;
            }
            freed += step.pages();
            victims.push(*sequence);
        }
        // Only what the file did drop is dropped: while it refuses this too, its
        // steps can still be sent. Pages are free for the commit after the one that
        // frees them.
        let given_up = !victims.is_empty() && self.commit(false, &victims).is_ok();
        self.stuck = !given_up || self.commit(false, &[]).is_err();
        !self.stuck
    }

    /// Keeps the steps that only memory has within their bound.
    fn bound_memory(&mut self) {
        let (mut used, mut only_here) = (0, Vec::new());
        for (sequence, step) in self.steps.iter().filter(|(_, step)| step.payload.is_some()) {
            used += step.bytes;
            only_here.push((*sequence, step.bytes));
        }
        if used > 0 && self.marks.memory < self.next {
            let memory = self.next.saturating_add(CEILING_AHEAD);
            self.mark(Marks { memory, ceiling: self.marks.ceiling.max(memory) });
        }
        only_here.pop();
        for (sequence, bytes) in only_here {
            if used <= self.options.max_memory_bytes {
                break;
            }
            used -= bytes;
            self.drop_step(sequence, Some(Reason::Memory));
        }
    }

    fn raise_ceiling(&mut self) {
        if self.marks.ceiling <= self.next {
            let ceiling = self.next.saturating_add(CEILING_AHEAD);
            self.mark(Marks { ceiling, ..self.marks });
        }
    }

    fn clear_memory_mark(&mut self) {
        if self.marks.memory > 0 {
            self.mark(Marks { memory: 0, ..self.marks });
        }
    }

    fn mark(&mut self, marks: Marks) {
        let Some(disk) = &mut self.disk else { return };
        match disk.mark(marks) {
            Ok(()) => self.marks = marks,
            Err(error) => self.trouble = Some(error.to_string()),
        }
    }

    /// Begins a new file with what can be read of the damaged one, newest steps
    /// first as far as the bound of memory allows; the rest is counted as lost.
    fn salvage(&mut self, why: &str) {
        let now = (self.clock)();
        self.trouble = Some(why.to_owned());
        let Some(disk) = &mut self.disk else { return };
        let mut room = self.options.max_memory_bytes;
        let mut lost = Vec::new();
        for (sequence, step) in self.steps.iter_mut().rev().filter(|(_, step)| step.payload.is_none()) {
            let payload = if step.bytes <= room { disk.read(*sequence).ok().flatten() } else { None };
            match payload {
                Some(payload) => {
                    room = room.saturating_sub(step.bytes);
                    step.payload = Some(payload);
                }
                None => lost.push(*sequence),
            }
        }
        for sequence in lost {
            self.drop_step(sequence, Some(Reason::Damaged));
        }
        self.removed.clear();
        self.forgotten.clear();
        self.cursors.iter_mut().for_each(|cursor| cursor.dirty = true);
        let Some(disk) = &mut self.disk else { return };
        let begun = disk.set_aside("damaged", now).and_then(|path| disk.load().map(|_| path));
        match begun {
            Ok(path) => tracing::warn!(path = %path.display(), why, "queue damaged, set aside"),
            Err(error) => self.trouble = Some(error.to_string()),
        }
    }
}

impl Step {
    /// Pages of the file it takes: its pieces, and its share of rows and branches.
    fn pages(&self) -> u64 {
        u64::from(pieces(self.bytes)).max(1)
    }
}

fn cursors(content: &Content) -> Result<Vec<Cursor>, DiskError> {
    let rows = content.sinks.iter();
    rows.map(|(name, row)| {
        Cursor::decode(name, row).ok_or_else(|| DiskError::Damaged(format!("cursor of {name}")))
    })
    .collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn length_of(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
