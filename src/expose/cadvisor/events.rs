//! What came, went and was killed, kept for who asks later.
//!
//! Found by comparing each snapshot with the one before. What came and went
//! between two of them was never seen. The kernel's counters tell how many
//! processes were killed, not which.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

use super::{GoTime, Refused, bad, is_within, time_ms};
use crate::snapshot::{Cgroup, Role, Snapshot};

/// Events kept; the oldest go.
pub const KEPT: usize = 2_048;

/// Events told where nobody says how many.
const DEFAULT_MOST: usize = 10;

/// Kills of one cgroup between two snapshots that are told one by one.
const KILLS_AT_ONCE: u64 = 16;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// A process was killed for want of memory; on the victim's cgroup.
    Oom,
    /// The same, on the cgroup whose limit it was.
    OomKill,
    /// A cgroup was made.
    ContainerCreation,
    /// A cgroup was removed.
    ContainerDeletion,
}

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    number: u64,
    cgroup: Arc<Cgroup>,
    ms: u64,
    what: What,
}

#[derive(Serialize)]
struct Shown<'a> {
    container_name: &'a str,
    timestamp: GoTime,
    event_type: What,
    event_data: Data,
}

#[derive(Default, Serialize)]
struct Data {
    #[serde(skip_serializing_if = "Option::is_none")]
    container_deletion: Option<Deletion>,
}

#[derive(Serialize)]
struct Deletion {
    exit_code: i8,
}

impl Serialize for Event {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // -1 is cAdvisor's word for what is not known.
        let gone = self.what == What::ContainerDeletion;
        Shown {
            container_name: &self.cgroup.path,
            timestamp: GoTime::of_ms(self.ms),
            event_type: self.what,
            event_data: Data { container_deletion: gone.then_some(Deletion { exit_code: -1 }) },
        }
        .serialize(serializer)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Events {
    state: Mutex<State>,
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    known: Vec<(Arc<Cgroup>, u64)>,
    kept: VecDeque<Event>,
    next: u64,
}

impl Default for Events {
    fn default() -> Events {
        Events { state: Mutex::default(), last: watch::channel(0).0 }
    }
}

impl Events {
    /// Takes a snapshot; allocates only where something happened.
    pub fn record(&self, snapshot: &Snapshot) {
        let mut state = self.lock();
        let before = state.next;
        state.compare(snapshot);
        let now = state.next;
        drop(state);
        if now != before {
            self.last.send_replace(now);
        }
    }

    /// Those that `filter` lets through, by time; of too many the newest.
    pub fn find(&self, filter: &Filter) -> Vec<Event> {
        let state = self.lock();
        let mut found: Vec<Event> = state.kept.iter().filter(|e| filter.lets(e)).cloned().collect();
        drop(state);
        found.sort_by_key(|event| (event.ms, event.number));
        found.drain(..found.len().saturating_sub(filter.most));
        found
    }

    /// Tells when there are more.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// Those that `filter` lets through, from number `from` on, and where to go on.
    pub fn since(&self, from: u64, filter: &Filter) -> (Vec<Event>, u64) {
        let state = self.lock();
        let new = state.kept.iter().filter(|e| e.number >= from && filter.lets(e)).cloned().collect();
        (new, state.next)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each event is whole: a panic elsewhere changes nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn compare(&mut self, snapshot: &Snapshot) {
        let kills = |row: &crate::snapshot::CgroupSample| row.memory.oom_kills.map_or(0, u64::from);
        let rows = &snapshot.cgroups;
        let same = self.known.len() == rows.len()
            && self
                .known
                .iter()
                .zip(rows)
                .all(|((c, k), row)| Arc::ptr_eq(c, &row.cgroup) && *k == kills(row));
        if same {
            return;
        }
        let now = snapshot.wall_ms;
        let mut before = std::mem::take(&mut self.known).into_iter().peekable();
        for row in rows {
            let cgroup = &row.cgroup;
            while let Some((gone, _)) = before.next_if(|(c, _)| c.path < cgroup.path) {
                self.push(gone, now, What::ContainerDeletion);
            }
            match before.next_if(|(c, _)| c.path == cgroup.path) {
                // A name that came later is the same cgroup.
                Some((old, counted)) if old.created == cgroup.created => {
                    // A pod's kills are those of its containers.
                    let more = kills(row).saturating_sub(counted).min(KILLS_AT_ONCE);
                    if cgroup.part.role != Role::Pod {
                        for _ in 0..more {
                            self.push(Arc::clone(cgroup), now, What::Oom);
                            self.push(Arc::clone(cgroup), now, What::OomKill);
                        }
                    }
                }
                other => {
                    if let Some((gone, _)) = other {
                        self.push(gone, now, What::ContainerDeletion);
                    }
                    let made = cgroup.created.map_or(now, |s| s.saturating_mul(1_000)).min(now);
                    self.push(Arc::clone(cgroup), made, What::ContainerCreation);
                }
            }
            self.known.push((Arc::clone(cgroup), kills(row)));
        }
        for (gone, _) in before {
            self.push(gone, now, What::ContainerDeletion);
        }
    }

    fn push(&mut self, cgroup: Arc<Cgroup>, ms: u64, what: What) {
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Event { number: self.next, cgroup, ms, what });
        self.next += 1;
    }
}

/// Which events are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    path: String,
    below: bool,
    kinds: [bool; 4],
    most: usize,
    start_ms: u64,
    end_ms: u64,
    /// Whether to go on with what happens from now.
    pub stream: bool,
}

impl Filter {
    /// Reads the parameters of a request for what is at `path`. As in cAdvisor bad
    /// values are passed over, and who names no kind gets none.
    ///
    /// # Errors
    /// A stream has no time range.
    pub fn read(path: &str, query: &[(String, String)]) -> Result<Filter, Refused> {
        let value = |name: &str| query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let on = |name: &str| matches!(value(name), Some("true" | "1" | "t" | "T" | "TRUE" | "True"));
        let all = on("all_events");
        let kind = |name: &str| all || on(name);
        let time = |name: &str| value(name).and_then(time_ms);
        let stream = on("stream");
        if stream && (time("start_time").is_some() || time("end_time").is_some()) {
            return Err(bad("start_time and end_time: not accepted with stream"));
        }
        let most = value("max_events").and_then(|v| v.parse::<i64>().ok());
        Ok(Filter {
            path: path.to_owned(),
            below: on("subcontainers"),
            kinds: [
                kind("oom_events"),
                kind("oom_kill_events"),
                kind("creation_events"),
                kind("deletion_events"),
            ],
            most: match most {
                None => DEFAULT_MOST,
                // -1 is all.
                Some(most) => usize::try_from(most).unwrap_or(KEPT),
            },
            start_ms: time("start_time").unwrap_or(0),
            end_ms: time("end_time").unwrap_or(u64::MAX),
            stream,
        })
    }

    fn lets(&self, event: &Event) -> bool {
        let [oom, kill, creation, deletion] = self.kinds;
        let wanted = match event.what {
            What::Oom => oom,
            What::OomKill => kill,
            What::ContainerCreation => creation,
            What::ContainerDeletion => deletion,
        };
        let path = &event.cgroup.path;
        let place = *path == self.path || self.below && is_within(path, &self.path);
        wanted && place && (self.start_ms..=self.end_ms).contains(&event.ms)
    }
}
