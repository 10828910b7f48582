//! cAdvisor's `event_storage_age_limit` and `event_storage_event_limit`: lists such as
//! `default=24h,oom=48h`.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{Layers, go_duration, words};

/// Kinds of events, in cAdvisor's words.
const KINDS: [&str; 4] = ["oom", "oomKill", "containerCreation", "containerDeletion"];

/// How much of what happened is told later, by kind of event: OOM, OOM kill, creation,
/// deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventLimits {
    /// Of what is older nothing is told.
    pub age: [Duration; 4],
    /// The newest so many are told; none with 0.
    pub count: [usize; 4],
}

impl Default for EventLimits {
    fn default() -> EventLimits {
        EventLimits { age: [Duration::from_secs(24 * 3600); 4], count: [100_000; 4] }
    }
}

/// Reads `KIND=VALUE` pairs; `default` stands for all kinds that are not named.
fn limits<T: Copy>(list: &[String], usual: [T; 4], value: impl Fn(&str) -> Option<T>) -> Result<[T; 4]> {
    let mut found = usual;
    let pairs = words(list).map(|word| word.split_once('=').unwrap_or((word, "")));
    let (general, named): (Vec<_>, Vec<_>) = pairs.partition(|(kind, _)| *kind == "default");
    for (kind, text) in general.into_iter().chain(named) {
        let Some(value) = value(text) else {
            bail!("{kind}={text}: not a limit; accepted: such as default=24h or default=1000");
        };
        match KINDS.iter().position(|known| *known == kind) {
            _ if kind == "default" => found = [value; 4],
            Some(at) => found.iter_mut().skip(at).take(1).for_each(|one| *one = value),
            None => bail!("{kind:?}: no kind of event; accepted: default, {}", KINDS.join(", ")),
        }
    }
    Ok(found)
}

impl Layers {
    pub(super) fn events(&self) -> Result<EventLimits> {
        let usual = EventLimits::default();
        let age = self.parse_list(
            "event-storage-age-limit",
            |s| &s.event_storage_age_limit,
            |list| limits(list, usual.age, go_duration),
        )?;
        let count = self.parse_list(
            "event-storage-event-limit",
            |s| &s.event_storage_event_limit,
            |list| limits(list, usual.count, |text| text.parse().ok()),
        )?;
        Ok(EventLimits { age: age.unwrap_or(usual.age), count: count.unwrap_or(usual.count) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::load;

    fn read(words: &[&str]) -> Result<EventLimits, String> {
        load(words, &[]).map(|config| config.events).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn kinds_override_what_stands_for_all() {
        assert_eq!(read(&[]), Ok(EventLimits::default()));
        let hours = |n: u64| Duration::from_secs(n * 3600);
        let age = read(&["--event-storage-age-limit=oom=48h, default=1h ,containerDeletion=0"]).unwrap().age;
        assert_eq!(age, [hours(48), hours(1), hours(1), Duration::ZERO]);
        let count = read(&["--event-storage-event-limit", "default=0,oomKill=7"]).unwrap().count;
        assert_eq!(count, [0, 7, 0, 0]);
    }

    #[test]
    fn bad_limits_are_named() {
        let check = |words: &[&str], parts: &[&str]| {
            let text = read(words).unwrap_err();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        };
        check(&["--event-storage-age-limit=oom"], &["--event-storage-age-limit", "oom=", "default=24h"]);
        check(&["--event-storage-age-limit=default=-1h"], &["default=-1h"]);
        check(
            &["--event-storage-event-limit=default=many"],
            &["--event-storage-event-limit", "default=many"],
        );
        check(&["--event-storage-event-limit=exec=1"], &["\"exec\"", "containerCreation"]);
    }
}
