//! What came, went and was killed, kept for who asks later.
//!
//! Found by comparing each snapshot with the one before. What came and went
//! between two of them was never seen. The kernel's counters tell how many
//! processes were killed, its log which; where the log comes after the counter, the
//! event that the counter made gets what it tells. With what code a container ended
//! its runtime tells a moment after it is gone, which is waited for.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use super::{GoTime, Refused, bad, is_within, time_ms};
use crate::config::EventLimits;
use crate::snapshot::{Cgroup, CgroupSample, OomKill, Role, Snapshot};

/// Events kept; the oldest go.
pub const KEPT: usize = 2_048;

/// Events told where nobody says how many.
const DEFAULT_MOST: usize = 10;

/// Kills of one cgroup between two snapshots that are told one by one.
const KILLS_AT_ONCE: u64 = 16;

/// Kills between two snapshots that are looked at.
const KILLS_IN_ALL: usize = 1_024;

/// How long what is not known of an event may still come.
const LATE_MS: u64 = 60_000;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
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
    /// When it was found, which is what it is kept from.
    found_ms: u64,
    what: What,
    more: More,
}

/// What else is known of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
enum More {
    Nothing,
    /// The log told which process it was; one of the two events of a kill has it.
    Logged,
    Victim(Arc<Victim>),
    /// The code a container ended with.
    Exit(i32),
}

/// A process that was killed.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Victim {
    pid: u32,
    process_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    constraint: Option<String>,
}

impl Victim {
    fn of(kill: &OomKill) -> More {
        let OomKill { pid, process, constraint, .. } = kill.clone();
        More::Victim(Arc::new(Victim { pid, process_name: process, constraint }))
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    container_name: &'a str,
    timestamp: GoTime,
    event_type: What,
    event_data: Data<'a>,
}

#[derive(Default, Serialize)]
struct Data<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    oom: Option<&'a Victim>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_deletion: Option<Deletion>,
}

#[derive(Serialize)]
struct Deletion {
    exit_code: i32,
}

impl Serialize for Event {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut event_data = Data::default();
        match &self.more {
            More::Victim(victim) => event_data.oom = Some(victim),
            More::Exit(exit_code) => event_data.container_deletion = Some(Deletion { exit_code: *exit_code }),
            // -1 is cAdvisor's word for what is not known.
            More::Nothing if self.what == What::ContainerDeletion => {
                event_data.container_deletion = Some(Deletion { exit_code: -1 });
            }
            More::Nothing | More::Logged => {}
        }
        let (container_name, timestamp) = (self.cgroup.path.as_str(), GoTime::of_ms(self.ms));
        Shown { container_name, timestamp, event_type: self.what, event_data }.serialize(serializer)
    }
}

/// Tells the code that the container of an id ended with.
pub type Exits = Box<dyn Fn(&str) -> Option<i32> + Send + Sync>;

/// See the module.
pub struct Events {
    state: Mutex<State>,
    last: watch::Sender<u64>,
    limits: EventLimits,
    exits: Option<Exits>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("state", &self.state)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    known: Vec<(Arc<Cgroup>, u64)>,
    kept: VecDeque<Event>,
    next: u64,
    /// Wall clock of the last snapshot.
    now_ms: u64,
    /// Containers are gone of which their runtime may yet tell how they ended.
    ended: bool,
}

impl Default for Events {
    fn default() -> Events {
        Events {
            state: Mutex::default(),
            last: watch::channel(0).0,
            limits: EventLimits::default(),
            exits: None,
        }
    }
}

impl Events {
    /// Tells as many as `limits` say; `exits` is asked how containers ended.
    pub fn new(limits: EventLimits, exits: Exits) -> Events {
        Events { limits, exits: Some(exits), ..Events::default() }
    }

    /// Takes a snapshot; allocates only where something happened.
    pub fn record(&self, snapshot: &Snapshot) {
        let mut state = self.lock();
        let before = state.next;
        state.now_ms = snapshot.wall_ms;
        state.ask(self.exits.as_ref());
        state.compare(snapshot);
        let now = state.next;
        drop(state);
        if now != before {
            self.last.send_replace(now);
        }
    }

    /// Those that `filter` lets through, by time; of too many the newest.
    pub fn find(&self, filter: &Filter) -> Vec<Event> {
        let mut state = self.lock();
        state.ask(self.exits.as_ref());
        let mut left = self.limits.count;
        let mut told = |event: &&Event| {
            let (at, now_ms) = (event.what as usize, state.now_ms);
            let young = |age: Duration| u128::from(now_ms.saturating_sub(event.found_ms)) < age.as_millis();
            let young = self.limits.age.get(at).is_some_and(|age| young(*age));
            // Of each kind the newest.
            let Some(left) = left.get_mut(at).filter(|left| young && **left > 0) else { return false };
            *left -= 1;
            true
        };
        let mut found: Vec<Event> =
            state.kept.iter().rev().filter(|e| told(e)).filter(|e| filter.lets(e)).cloned().collect();
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

fn kills(row: &CgroupSample) -> u64 {
    row.memory.oom_kills.map_or(0, u64::from)
}

impl State {
    fn compare(&mut self, snapshot: &Snapshot) {
        let rows = &snapshot.cgroups;
        self.log(snapshot);
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
            while let Some((gone, counted)) = before.next_if(|(c, _)| c.path < cgroup.path) {
                self.left(gone, counted, snapshot);
            }
            match before.next_if(|(c, _)| c.path == cgroup.path) {
                // A name that came later is the same cgroup.
                Some((old, counted)) if old.created == cgroup.created => {
                    self.counted(cgroup, kills(row).saturating_sub(counted), snapshot);
                }
                other => {
                    if let Some((gone, counted)) = other {
                        self.left(gone, counted, snapshot);
                    }
                    let made = cgroup.created.map_or(now, |s| s.saturating_mul(1_000)).min(now);
                    self.push(Arc::clone(cgroup), made, What::ContainerCreation, More::Nothing);
                }
            }
            self.known.push((Arc::clone(cgroup), kills(row)));
        }
        for (gone, counted) in before {
            self.left(gone, counted, snapshot);
        }
    }

    /// Kills that the log tells of. Those that a counter told before get what it says.
    fn log(&mut self, snapshot: &Snapshot) {
        let all = snapshot.oom_kills.get(..KILLS_IN_ALL).unwrap_or(&snapshot.oom_kills);
        for (at, kill) in all.iter().enumerate() {
            let earlier = all.iter().take(at).filter(|other| other.cgroup == kill.cgroup).count() as u64;
            if earlier >= KILLS_AT_ONCE || self.told_before(kill) {
                continue;
            }
            let find = |path: &str| {
                let at = self.known.binary_search_by(|(c, _)| c.path.as_str().cmp(path)).ok()?;
                self.known.get(at).map(|(cgroup, _)| Arc::clone(cgroup))
            };
            let cgroup = |path: &str| {
                find(path).unwrap_or_else(|| Arc::new(Cgroup { path: path.to_owned(), ..Cgroup::default() }))
            };
            let victim = cgroup(&kill.cgroup);
            // Without a limit it is the machine that was short; where the log has not
            // said, nobody knows better than the victim's own.
            let limited = match (&kill.limit, &kill.constraint) {
                (Some(limit), _) => cgroup(limit),
                (None, Some(_)) => cgroup("/"),
                (None, None) => Arc::clone(&victim),
            };
            self.push(victim, kill.wall_ms, What::Oom, More::Logged);
            self.push(limited, kill.wall_ms, What::OomKill, Victim::of(kill));
        }
    }

    /// Gives what the log says to the events that a counter made of the same kill.
    fn told_before(&mut self, kill: &OomKill) -> bool {
        let since = self.now_ms.saturating_sub(LATE_MS);
        let counted = |event: &Event| {
            event.what == What::Oom
                && event.more == More::Nothing
                && event.found_ms >= since
                && is_of(&event.cgroup, &kill.cgroup)
        };
        let Some(at) = self.kept.iter().position(counted) else { return false };
        for (at, more) in [(at, More::Logged), (at + 1, Victim::of(kill))] {
            if let Some(event) = self.kept.get_mut(at) {
                event.more = more;
            }
        }
        true
    }

    /// Kills that a counter tells of, but for those that the log told of just now.
    fn counted(&mut self, cgroup: &Arc<Cgroup>, more: u64, snapshot: &Snapshot) {
        // A pod's kills are those of its containers.
        if more == 0 || cgroup.part.role == Role::Pod {
            return;
        }
        let logged = snapshot.oom_kills.iter().filter(|kill| is_of(cgroup, &kill.cgroup)).count() as u64;
        for _ in 0..more.saturating_sub(logged).min(KILLS_AT_ONCE) {
            self.push(Arc::clone(cgroup), snapshot.wall_ms, What::Oom, More::Nothing);
            self.push(Arc::clone(cgroup), snapshot.wall_ms, What::OomKill, More::Nothing);
        }
    }

    /// A cgroup is gone, perhaps because of kills that no snapshot had.
    fn left(&mut self, gone: Arc<Cgroup>, counted: u64, snapshot: &Snapshot) {
        let last = &snapshot.oom_gone;
        let found = last.binary_search_by(|row| row.cgroup.path.cmp(&gone.path)).ok();
        let kills = found.and_then(|at| last.get(at)).map_or(0, |row| row.kills);
        self.counted(&gone, kills.saturating_sub(counted), snapshot);
        self.ended |= gone.part.id.is_some();
        self.push(gone, snapshot.wall_ms, What::ContainerDeletion, More::Nothing);
    }

    /// Asks how containers ended that are gone since a while.
    fn ask(&mut self, exits: Option<&Exits>) {
        if !std::mem::take(&mut self.ended) {
            return;
        }
        let Some(exits) = exits else { return };
        let since = self.now_ms.saturating_sub(LATE_MS);
        for event in self.kept.iter_mut().rev().take_while(|event| event.found_ms >= since) {
            if event.what == What::ContainerDeletion
                && event.more == More::Nothing
                && let Some(id) = event.cgroup.part.id.as_deref()
            {
                match exits(id) {
                    Some(code) => event.more = More::Exit(code),
                    None => self.ended = true,
                }
            }
        }
    }

    fn push(&mut self, cgroup: Arc<Cgroup>, ms: u64, what: What, more: More) {
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Event { number: self.next, cgroup, ms, found_ms: self.now_ms, what, more });
        self.next += 1;
    }
}

/// Whether a kill in the cgroup at `path` is counted by this one: a container has those
/// of what is below it.
fn is_of(cgroup: &Cgroup, path: &str) -> bool {
    cgroup.path == path || cgroup.part.id.is_some() && is_within(path, &cgroup.path)
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
