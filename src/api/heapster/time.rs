//! Times as Go writes and reads them.

use serde::{Serialize, Serializer};

/// A time, milliseconds since the epoch; 0 is Go's zero time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp(pub u64);

impl std::fmt::Display for Stamp {
    /// RFC 3339 in UTC, with a fraction only where there is one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == 0 {
            return f.write_str("0001-01-01T00:00:00Z");
        }
        let seconds = std::time::UNIX_EPOCH + std::time::Duration::from_secs(self.0 / 1000);
        let whole = humantime::format_rfc3339_seconds(seconds);
        match self.0 % 1000 {
            0 => std::fmt::Display::fmt(&whole, f),
            millis => {
                let (whole, fraction) = (whole.to_string(), format!("{millis:03}"));
                write!(f, "{}.{}Z", whole.trim_end_matches('Z'), fraction.trim_end_matches('0'))
            }
        }
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A time as RFC 3339 with any offset from UTC → milliseconds since the epoch;
/// 0 for times before it. `None` for what is no time.
pub fn parse(text: &str) -> Option<u64> {
    let (date, clock) = text.split_once(['T', 't'])?;
    let (clock, offset_minutes) = if let Some(clock) = clock.strip_suffix(['Z', 'z']) {
        (clock, 0)
    } else {
        let at = clock.rfind(['+', '-'])?;
        let (clock, offset) = (clock.get(..at)?, clock.get(at..)?);
        let (hours, minutes) = offset.get(1..)?.split_once(':')?;
        if hours.len() != 2 || minutes.len() != 2 {
            return None;
        }
        let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
        if !(0..24).contains(&hours) || !(0..60).contains(&minutes) {
            return None;
        }
        let ahead = hours * 60 + minutes;
        (clock, if offset.starts_with('-') { -ahead } else { ahead })
    };
    let year: u32 = date.split('-').next().filter(|year| year.len() == 4)?.parse().ok()?;
    if year < 1970 {
        return Some(0);
    }
    let local = humantime::parse_rfc3339(&format!("{date}T{clock}Z")).ok()?;
    let local = i64::try_from(local.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis()).ok()?;
    Some(u64::try_from(local.checked_sub(offset_minutes * 60_000)?).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        let check = |ms, expected: &str| assert_eq!(Stamp(ms).to_string(), expected);
        check(0, "0001-01-01T00:00:00Z");
        check(1_893_456_060_000, "2030-01-01T00:01:00Z");
        check(1_893_456_060_500, "2030-01-01T00:01:00.5Z");
        check(1_893_456_060_005, "2030-01-01T00:01:00.005Z");
    }

    #[test]
    fn times_are_read_with_their_offset() {
        let check = |text: &str, expected| assert_eq!(parse(text), expected, "{text}");
        check("2030-01-01T00:01:00Z", Some(1_893_456_060_000));
        check("2030-01-01T02:01:00.25+02:00", Some(1_893_456_060_250));
        check("2029-12-31T19:01:00-05:00", Some(1_893_456_060_000));
        check("0001-01-01T00:00:00Z", Some(0));
        check("1970-01-01T00:00:00+01:00", Some(0));
        for wrong in [
            "",
            "2030-01-01",
            "2030-01-01T00:01:00",
            "2030-01-01T00:01:00+2",
            "2030-01-01T00:01:00+aa:bb",
            "2030-01-01T00:01:00+99:00",
            "2030-13-01T00:01:00Z",
            "é030-01-01T00:01:00é",
            "yesterday",
        ] {
            check(wrong, None);
        }
    }
}
