//! cAdvisor's REST API, versions 1.0 to 1.3 and 2.0 and 2.1: what is asked → who
//! answers and what is written.
//!
//! [`v1`](super::cadvisor_v1) and [`v2`](super::cadvisor_v2) are the answers, made
//! of what is here: [`stats`] is one sample, [`spec`] what a cgroup is and is
//! allowed, [`machine`] the machine and its filesystems, [`ps`] processes, [`events`]
//! what came and went. Keys, their odd spellings and units are cAdvisor's. What is
//! different, because no client can depend on it:
//!
//! - figures that the kernel does not tell are left out, which Go's decoder reads
//!   as the 0 that cAdvisor writes; those of kinds that are off by default are the
//!   zeros that it writes while they are off (`cadvisor/extra.rs`);
//! - samples before the newest have sums over devices and interfaces, and so the
//!   tables of those only where there is one;
//! - what is below `/a` is not what begins with `/a`;
//! - errors are 400 and 404, not 500, and text in either case;
//! - one container that cannot be shown costs itself only.

pub mod disks;
pub mod events;
pub mod extra;
pub mod machine;
pub mod ps;
pub mod spec;
pub mod stats;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::http::StatusCode;
use serde::{Serialize, Serializer};

use super::summary::Surroundings;
use crate::history::{History, Sample};
use crate::snapshot::{CgroupSample, Process, Snapshot};
use events::Events;

/// What the clock on the host's wall is ahead of UTC at a moment, seconds.
pub type LocalTime = Box<dyn Fn(u64) -> i64>;

/// What is asked of the host only when somebody wants it. All of it blocks.
pub trait Host: fmt::Debug + Send + Sync {
    /// The processors that a cgroup was given; empty for none in particular.
    fn cpus(&self, cgroup: &str) -> Option<String>;
    /// The processes of a cgroup itself; of the root all there are.
    fn processes(&self, cgroup: &str) -> Vec<Process>;
    /// Its time zone.
    fn zone(&self) -> LocalTime;
    /// The block device with a filesystem of that UUID: `/dev/<name>`, and its numbers.
    fn device(&self, uuid: &str) -> Option<(String, u32, u32)>;
}

/// What is answered from.
#[derive(Debug, Clone)]
pub struct World {
    /// The last tick.
    pub snapshot: Arc<Snapshot>,
    /// Those before.
    pub history: Arc<History>,
    /// What came and went.
    pub events: Arc<Events>,
    /// The host, where it can be asked.
    pub host: Option<Arc<dyn Host>>,
    /// What runtimes tell of themselves.
    pub surroundings: Arc<Surroundings>,
}

/// Writes a body while it is sent.
pub type Writer = Box<dyn FnOnce(&mut dyn io::Write) -> serde_json::Result<()> + Send>;

/// What to answer.
pub enum Answer {
    /// JSON.
    Json(Writer),
    /// A line of text.
    Text(StatusCode, String),
    /// Events as they happen.
    Stream(events::Filter),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Json(_) => f.write_str("Json"),
            Answer::Text(status, text) => f.debug_tuple("Text").field(status).field(text).finish(),
            Answer::Stream(filter) => f.debug_tuple("Stream").field(filter).finish(),
        }
    }
}

/// Why there is none.
pub type Refused = (StatusCode, String);

impl Answer {
    /// What `write` makes of the world.
    pub fn json(
        world: &World,
        write: impl FnOnce(&World, &mut dyn io::Write) -> serde_json::Result<()> + Send + 'static,
    ) -> Answer {
        let world = world.clone();
        Answer::Json(Box::new(move |out| write(&world, out)))
    }
}

/// A fault of the client's.
pub fn bad(text: impl Into<String>) -> Refused {
    (StatusCode::BAD_REQUEST, text.into())
}

/// There is no such container.
pub fn unknown(name: &str) -> Refused {
    let shown: String = name.chars().take(200).collect();
    (StatusCode::NOT_FOUND, format!("unknown container {shown:?}"))
}

/// Which samples are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// How many, the newest; `None` is all there are.
    pub most: Option<usize>,
    /// Not before, milliseconds since the epoch.
    pub start_ms: u64,
    /// Not after.
    pub end_ms: u64,
}

impl Span {
    /// The newest so many, where -1 is all.
    ///
    /// # Errors
    /// It is less than -1.
    pub fn newest(count: i64) -> Result<Span, Refused> {
        let most = match count {
            -1 => None,
            count => Some(usize::try_from(count).map_err(|_| {
                bad(format!("invalid number of samples: {count}; accepted: -1 for all, 0 and more"))
            })?),
        };
        Ok(Span { most, start_ms: 0, end_ms: u64::MAX })
    }
}

impl World {
    /// The row at `path`.
    pub fn row(&self, path: &str) -> Option<&CgroupSample> {
        let rows = &self.snapshot.cgroups;
        let at = rows.binary_search_by(|row| row.cgroup.path.as_str().cmp(path)).ok()?;
        rows.get(at)
    }

    /// The row at `path` and those below.
    pub fn tree<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a CgroupSample> + Clone {
        self.snapshot.cgroups.iter().filter(move |row| is_within(&row.cgroup.path, path))
    }

    /// The rows of containers that `runtime` runs.
    pub fn of_runtime<'a>(&'a self, runtime: &'a str) -> impl Iterator<Item = &'a CgroupSample> + Clone {
        self.snapshot.cgroups.iter().filter(move |row| row.cgroup.part.runtime == Some(runtime))
    }

    /// The row of the container of `runtime` with this name, this id, or an id or
    /// name that alone begins so.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn by_name<'a>(&'a self, runtime: &'a str, name: &str) -> Result<&'a CgroupSample, Refused> {
        let names = |row: &CgroupSample| {
            [row.cgroup.part.id.as_deref().map(str::to_owned), row.cgroup.identity.name.clone()]
        };
        let found = |test: &dyn Fn(&str) -> bool| {
            let fits = |row: &&CgroupSample| names(row).into_iter().flatten().any(|name| test(&name));
            self.of_runtime(runtime).filter(fits).collect::<Vec<_>>()
        };
        let exact = found(&|known| known == name);
        if let Some(row) = exact.first() {
            return Ok(row);
        }
        match *found(&|known| known.starts_with(name)) {
            [row] => Ok(row),
            [] => Err(unknown(name)),
            ref several => Err(bad(format!("{name:?} is the beginning of {} containers", several.len()))),
        }
    }

    /// Samples of a row, oldest first.
    pub fn samples(&self, row: &CgroupSample, span: &Span) -> Vec<Sample> {
        let mut samples = self.history.samples(&row.cgroup.path).unwrap_or_default();
        // Between two ticks it may have been made anew, or kept no sample of this one.
        samples.retain(|sample| sample.wall_ms < self.snapshot.wall_ms);
        samples.push(self.history.sample(&self.snapshot, row));
        samples.retain(|sample| (span.start_ms..=span.end_ms).contains(&sample.wall_ms));
        let surplus = span.most.map_or(0, |most| samples.len().saturating_sub(most));
        samples.drain(..surplus);
        samples
    }

    /// Whether a sample is the one that `row` is.
    pub fn is_newest(&self, sample: &Sample) -> bool {
        sample.wall_ms == self.snapshot.wall_ms
    }
}

/// Whether `path` is `root` or below it.
pub fn is_within(path: &str, root: &str) -> bool {
    root == "/" || path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A list that is made while it is written.
pub struct Listed<I>(pub I);

impl<I: Iterator<Item = T> + Clone, T: Serialize> Serialize for Listed<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.clone())
    }
}

impl<I> fmt::Debug for Listed<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listed")
    }
}

/// An object that is made while it is written.
pub struct Mapped<I>(pub I);

impl<I: Iterator<Item = (K, V)> + Clone, K: Serialize, V: Serialize> Serialize for Mapped<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.clone())
    }
}

impl<I> fmt::Debug for Mapped<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mapped")
    }
}

/// A time as Go writes it: fractions without zeros at their end, and the year 1
/// for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoTime {
    /// Nanoseconds since the epoch.
    pub ns: Option<u64>,
}

impl GoTime {
    /// So many milliseconds after the epoch.
    pub fn of_ms(ms: u64) -> GoTime {
        GoTime { ns: Some(ms.saturating_mul(1_000_000)) }
    }
}

impl fmt::Display for GoTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(ns) = self.ns else { return f.write_str("0001-01-01T00:00:00Z") };
        let time = UNIX_EPOCH + Duration::from_nanos(ns);
        if ns.is_multiple_of(1_000_000_000) {
            return humantime::format_rfc3339_seconds(time).fmt(f);
        }
        let text = humantime::format_rfc3339_nanos(time).to_string();
        f.write_str(text.trim_end_matches('Z').trim_end_matches('0'))?;
        f.write_str("Z")
    }
}

impl Serialize for GoTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Milliseconds since the epoch of an RFC 3339 time; 0 for one before 1970, which
/// Go's zero time is.
pub fn time_ms(text: &str) -> Option<u64> {
    let (local, offset_minutes) = match text.strip_suffix(['Z', 'z']) {
        Some(local) => (local, 0),
        None => {
            let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            let (hours, minutes) = offset.get(1..)?.split_once(':')?;
            let minutes =
                hours.parse::<u8>().ok().map(i64::from)? * 60 + minutes.parse::<u8>().ok().map(i64::from)?;
            match offset.get(..1)? {
                "+" => (local, minutes),
                "-" => (local, -minutes),
                _ => return None,
            }
        }
    };
    if local.starts_with("0001-01-01T00:00:00") {
        return Some(0);
    }
    let time = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let ms = i64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).ok()?;
    Some(u64::try_from(ms.checked_sub(offset_minutes * 60_000)?).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_gos() {
        let check = |ns, expected| assert_eq!(GoTime { ns }.to_string(), expected);
        check(None, "0001-01-01T00:00:00Z");
        check(Some(1_787_229_868_000_000_000), "2026-08-20T12:44:28Z");
        check(Some(1_787_229_868_120_000_000), "2026-08-20T12:44:28.12Z");
        check(Some(1_787_229_868_000_000_001), "2026-08-20T12:44:28.000000001Z");
    }

    #[test]
    fn times_are_read() {
        let check = |text: &str, expected| assert_eq!(time_ms(text), expected, "{text}");
        check("2026-08-20T12:44:28.12Z", Some(1_787_229_868_120));
        check("2026-08-20T14:44:28.12+02:00", Some(1_787_229_868_120));
        check("2026-08-20T07:14:28-05:30", Some(1_787_229_868_000));
        check("0001-01-01T00:00:00Z", Some(0));
        for text in
            ["", "Z", "soon", "2026-08-20", "2026-08-20T12:44:28", "2026-08-20T12:44:28é0:00", "99999"]
        {
            check(text, None);
        }
    }

    #[test]
    fn below_is_not_begins_with() {
        assert!(is_within("/docker/a", "/docker") && is_within("/docker", "/docker"));
        assert!(is_within("/x", "/") && is_within("/", "/"));
        assert!(!is_within("/docker-other", "/docker") && !is_within("/", "/docker"));
    }
}
