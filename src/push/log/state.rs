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
use super::rescue::{Rescue, Whole};
use super::shown::Shown;
use super::{
    Appended, Clock, KEEP_CURSOR, LogError, MIN_BYTES, OpenError, Opened, Options, Order, REASONS, Record,
    SinkName, Status,
};

/// How far the ceiling is put above the next sequence: so rarely is it written.
const CEILING_AHEAD: u64 = 4096;

/// Sequences that are looked for at most in a damaged file: more than fit a file.
const COUNTED: u64 = 1 << 20;

/// Payloads that are moved to a new file in one transaction, bytes.
const COPIED: u64 = 4 << 20;

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
    shown: Arc<Shown>,
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
            shown: Arc::default(),
        };
        let opened = state.begin(sinks)?;
        state.expire();
        state.make_room();
        state.write();
        state.shrink();
        Ok((state, opened))
    }

    /// Takes over what the file has, or sets it aside and takes over what can be
    /// read of it.
    fn begin(&mut self, sinks: &[SinkName]) -> Result<Opened, OpenError> {
        let now = (self.clock)();
        let Some(disk) = &mut self.disk else {
            self.know(sinks, 1);
            return Ok(Opened::Fresh);
        };
        let failed = |error: DiskError| OpenError::Failed(error.to_string());
        let error = match disk.load().and_then(|content| Ok((cursors(&content)?, content))) {
            Ok((cursors, content)) => {
                self.cursors = cursors;
                self.take(&content.steps, content.next);
                self.know(sinks, self.next);
                let found = length_of(self.steps.len());
                return Ok(if found == 0 { Opened::Fresh } else { Opened::Continued(found) });
            }
            Err(error @ (DiskError::Damaged(_) | DiskError::Version(_))) => error,
            Err(error) => return Err(failed(error)),
        };
        let word = match &error {
            DiskError::Version(version) => format!("version-{version}"),
            _ => "damaged".to_owned(),
        };
        let path = disk.set_aside(&word, now).map_err(failed)?;
        disk.load().map_err(failed)?;
        let mut first = u64::MAX;
        if matches!(error, DiskError::Damaged(_))
            && let Ok(rescue) = disk.rescue(&path)
        {
            self.cursors = rescue.cursors();
            // Who is owed what is not known of a cursor that is not there.
            first = 0;
            self.know(sinks, first);
            let steps: Vec<Whole> =
                rescue.steps().filter(|step| self.is_owed(step.sequence)).copied().collect();
            self.take(&steps, 0);
            self.copy(&rescue);
            self.count_missing(rescue.next());
        }
        self.next = self.next.max(self.marks.ceiling);
        self.know(sinks, first.min(self.next));
        Ok(Opened::SetAside { path, why: error.to_string(), saved: length_of(self.steps.len()) })
    }

    /// Takes over rows.
    fn take(&mut self, steps: &[Whole], next: u64) {
        // A new file knows nothing of what was given out before.
        let next = if next == 0 { self.marks.ceiling } else { next };
        self.next = next.max(self.marks.memory).max(1);
        for Whole { sequence, time_ms, bytes, .. } in steps {
            self.next = self.next.max(sequence.saturating_add(1));
            self.steps.insert(*sequence, Step { time_ms: *time_ms, bytes: *bytes, payload: None });
        }
    }

    /// Makes the cursors those of the sinks there are now; new ones are owed the
    /// steps from `first` on.
    fn know(&mut self, sinks: &[SinkName], first: u64) {
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
                self.cursors.push(Cursor::new(Arc::clone(&sink.0), first));
            }
        }
    }

    /// Counts steps below `next` that a sink is owed and that are not there.
    fn count_missing(&mut self, next: u64) {
        let newest = self.steps.last_key_value().map_or(0, |(sequence, _)| sequence.saturating_add(1));
        // Garbage must not make this long.
        let next = if self.marks.ceiling > 0 { next.min(self.marks.ceiling) } else { next }.max(newest);
        for cursor in &mut self.cursors {
            for sequence in cursor.first.max(next.saturating_sub(COUNTED))..next {
                if cursor.first > 0 && cursor.is_owed(sequence) && !self.steps.contains_key(&sequence) {
                    cursor.give_up(sequence, Reason::Damaged);
                }
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
        // Asking for room can hang as well.
        self.show();
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
        if let Some(cursor) = self.cursors.iter_mut().find(|cursor| &*cursor.name == sink) {
            cursor.held = records.first().map(|record| record.sequence);
        }
        Ok(records)
    }

    /// The last step before `sequence` that a sink with this resolution has got.
    pub(super) fn sent_before(
        &mut self,
        sink: &str,
        sequence: u64,
        resolution_ms: u64,
    ) -> Result<Option<Record>, LogError> {
        let cursor = self.cursor(sink)?;
        let mut older = self.steps.range(..sequence).rev();
        let found =
            older.find(|(at, step)| step.time_ms.is_multiple_of(resolution_ms) && !cursor.is_owed(**at));
        let Some((&sequence, step)) = found else { return Ok(None) };
        let (time_ms, kept) = (step.time_ms, step.payload.clone());
        let payload = self.payload(sequence, kept)?;
        Ok(payload.map(|payload| Record { sequence, time_ms, payload }))
    }

    /// Reads a payload; a step that cannot be read, and is not saved with a new
    /// file either, is dropped.
    fn payload(&mut self, sequence: u64, kept: Option<Bytes>) -> Result<Option<Bytes>, LogError> {
        let mut kept = kept;
        for _ in 0..2 {
            let (None, Some(disk)) = (&kept, &mut self.disk) else { return Ok(kept) };
            match disk.read(sequence) {
                Ok(Some(payload)) => return Ok(Some(payload)),
                Ok(None) => break,
                Err(DiskError::Damaged(why)) => self.salvage(&why),
                Err(error) => return Err(LogError::Unreadable(error.to_string())),
            }
            let Some(step) = self.steps.get(&sequence) else { break };
            kept = step.payload.clone();
        }
        if kept.is_some() {
            return Ok(kept);
        }
        self.drop_step(sequence, Some(Reason::Damaged));
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

    pub(super) fn owed(&self, sink: &str) -> Result<BTreeSet<u64>, LogError> {
        let cursor = self.cursor(sink)?;
        let owed = self.steps.iter().filter(|(sequence, _)| cursor.is_owed(**sequence));
        Ok(owed.map(|(_, step)| step.time_ms).collect())
    }

    pub(super) fn trim(&mut self, sink: &str, done: impl Fn(u64) -> bool) -> Result<u64, LogError> {
        let cursor = self.cursor(sink)?;
        let owed = self.steps.iter().filter(|(sequence, _)| cursor.is_owed(**sequence));
        let sequences: Vec<u64> =
            owed.filter(|(_, step)| done(step.time_ms)).map(|(sequence, _)| *sequence).collect();
        if !sequences.is_empty() {
            self.acknowledge(sink, &sequences)?;
        }
        Ok(u64::try_from(sequences.len()).unwrap_or(u64::MAX))
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

    /// What is told while this cannot be asked.
    pub(super) fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown)
    }

    fn show(&self) {
        let of = |cursor: &Cursor| Some((Arc::clone(&cursor.name), self.status(&cursor.name).ok()?));
        self.shown.note(self.steps.len(), || self.cursors.iter().filter_map(of).collect());
    }

    fn cursor(&self, sink: &str) -> Result<&Cursor, LogError> {
        let found = self.cursors.iter().find(|cursor| &*cursor.name == sink);
        found.ok_or_else(|| LogError::UnknownSink(sink.to_owned()))
    }

    fn is_owed(&self, sequence: u64) -> bool {
        self.cursors.iter().any(|cursor| cursor.is_owed(sequence))
    }

    fn is_held(&self, sequence: u64) -> bool {
        self.cursors.iter().any(|cursor| cursor.held == Some(sequence) && cursor.is_owed(sequence))
    }

    /// Takes a step out; with a reason it is counted for those who were owed it.
    fn drop_step(&mut self, sequence: u64, reason: Option<Reason>) {
        let Some(step) = self.steps.remove(&sequence) else { return };
        if let Some(reason) = reason {
            for cursor in self.cursors.iter_mut().filter(|cursor| cursor.is_owed(sequence)) {
                cursor.give_up(sequence, reason);
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
            } else if Some(*sequence) != newest
                && old.is_some_and(|old| step.time_ms < old)
                && !self.is_held(*sequence)
            {
                gone.push((*sequence, Some(Reason::Age)));
            }
        }
        for (sequence, reason) in gone {
            self.drop_step(sequence, reason);
        }
        let oldest = self.steps.first_key_value().map_or(self.next, |(sequence, _)| *sequence);
        let forgotten = &mut self.forgotten;
        self.cursors.retain_mut(|cursor| {
            cursor.forget_below(oldest);
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
        self.show();
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
        for cursor in &mut self.cursors {
            let mut row = cursor.clone();
            let owed = victims.iter().filter(|sequence| cursor.is_owed(**sequence));
            owed.for_each(|sequence| row.give_up(*sequence, Reason::DiskFull));
            if row.dirty {
                change.sinks.push((Arc::clone(&cursor.name), Some(row.encode())));
                // Also of a commit that fails: it may come through.
                cursor.written = row.written;
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
        let (held, owed): (Vec<_>, Vec<_>) =
            owed.into_iter().partition(|(sequence, _)| self.is_held(**sequence));
        let mut freed = 0;
        let mut victims = Vec::new();
        for (sequence, step) in done.into_iter().chain(owed).chain(held) {
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
            if self.is_held(sequence) {
                continue;
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

    /// Begins a new file with what can be read of the damaged one; the rest is
    /// counted as lost.
    fn salvage(&mut self, why: &str) {
        let now = (self.clock)();
        self.trouble = Some(why.to_owned());
        let Some(disk) = &mut self.disk else { return };
        let path = match disk.set_aside("damaged", now) {
            Ok(path) => path,
            Err(error) => {
                self.trouble = Some(error.to_string());
                return;
            }
        };
        tracing::warn!(path = %path.display(), why, "queue damaged, set aside");
        self.removed.clear();
        self.forgotten.clear();
        match disk.rescue(&path) {
            Ok(rescue) => self.copy(&rescue),
            Err(_) => self.lose(|step| step.payload.is_none()),
        }
    }

    /// Copies the steps that are not in memory out of a file set aside, the newest
    /// first. Those that neither file nor memory takes are lost.
    fn copy(&mut self, rescue: &Rescue) {
        let missing = self.steps.iter().rev().filter(|(_, step)| step.payload.is_none());
        let mut missing: Vec<_> =
            missing.map(|(sequence, step)| (*sequence, step.time_ms, step.bytes)).collect();
        self.cursors.iter_mut().for_each(|cursor| cursor.dirty = true);
        self.stretch_to_all();
        let mut lost = BTreeSet::new();
        while !missing.is_empty() {
            let mut bytes = 0;
            let fits = missing.iter().take_while(|(_, _, length)| {
                bytes += length;
                bytes <= COPIED
            });
            for (sequence, time_ms, _) in missing.drain(..fits.count().max(1)) {
                let payload = rescue.payload(sequence, time_ms);
                match self.steps.get_mut(&sequence) {
                    Some(step) if payload.is_some() => step.payload = payload,
                    _ => drop(lost.insert(sequence)),
                }
            }
            if let Err(error) = self.commit(true, &[]) {
                self.trouble = Some(error.to_string());
                self.bound_memory();
                break;
            }
        }
        lost.extend(missing.into_iter().map(|(sequence, _, _)| sequence));
        for sequence in lost {
            self.drop_step(sequence, Some(Reason::Damaged));
        }
    }

    fn lose(&mut self, which: impl Fn(&Step) -> bool) {
        let lost = self.steps.iter().filter(|(_, step)| which(step)).map(|(sequence, _)| *sequence);
        for sequence in lost.collect::<Vec<_>>() {
            self.drop_step(sequence, Some(Reason::Damaged));
        }
        self.cursors.iter_mut().for_each(|cursor| cursor.dirty = true);
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
