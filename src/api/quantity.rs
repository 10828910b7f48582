//! Figures as Kubernetes writes them: quantities and durations.

use serde::{Serialize, Serializer};

/// CPU in billionths of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu(pub u64);

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl Serialize for Cpu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (figure, suffix) = largest(self.0, 1_000, &CPU);
        whole(figure, suffix, serializer)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (figure, suffix) = largest(self.0, 1_024, &BYTES);
        whole(figure, suffix, serializer)
    }
}

/// Without a piece of memory for each: there are two for each container of a cluster.
fn whole<S: Serializer>(figure: u64, suffix: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = [0; 24];
    let mut digits = itoa::Buffer::new();
    let parts = [digits.format(figure).as_bytes(), suffix.as_bytes()];
    let mut length = 0;
    for (place, byte) in text.iter_mut().zip(parts.into_iter().flatten()) {
        *place = *byte;
        length += 1;
    }
    let text = text.get(..length).and_then(|text| std::str::from_utf8(text).ok());
    serializer.serialize_str(text.unwrap_or_default())
}

const CPU: [&str; 4] = ["n", "u", "m", ""];
const BYTES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// CPU in billionths of a core, with the largest suffix that keeps it whole.
pub fn cpu(nano: u64) -> String {
    scaled(nano, 1_000, &CPU)
}

/// Bytes, with the largest binary suffix that keeps them whole.
pub fn bytes(bytes: u64) -> String {
    scaled(bytes, 1_024, &BYTES)
}

fn scaled(figure: u64, step: u64, suffixes: &[&'static str]) -> String {
    let (figure, suffix) = largest(figure, step, suffixes);
    format!("{figure}{suffix}")
}

/// With the last suffix that keeps it whole; nothing has none.
fn largest(figure: u64, step: u64, suffixes: &[&'static str]) -> (u64, &'static str) {
    if figure == 0 {
        return (0, "");
    }
    let mut left = figure;
    let mut suffixes = suffixes.iter();
    let mut suffix = suffixes.next();
    while left.is_multiple_of(step) {
        let Some(next) = suffixes.next() else { break };
        (left, suffix) = (left / step, Some(next));
    }
    (left, suffix.copied().unwrap_or_default())
}

/// A duration as Go writes it: `15.003s`, `1m0s`, `500ms`.
pub fn duration(ns: u64) -> String {
    let decimal = |whole: u64, unit: u64, name: &str| {
        let digits = unit.ilog10() as usize;
        let fraction = format!("{:0digits$}", whole % unit);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() || unit == 1 { "" } else { "." };
        let fraction = if unit == 1 { "" } else { fraction };
        format!("{}{point}{fraction}{name}", whole / unit)
    };
    match ns {
        0 => "0s".to_owned(),
        1..1_000 => decimal(ns, 1, "ns"),
        1_000..1_000_000 => decimal(ns, 1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(ns, 1_000_000, "ms"),
        _ => {
            let minutes = ns / 60_000_000_000;
            let seconds = decimal(ns % 60_000_000_000, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_canonical() {
        let check = |found: String, expected: &str| assert_eq!(found, expected);
        check(cpu(0), "0");
        check(cpu(17_789_464), "17789464n");
        check(cpu(250_000_000), "250m");
        check(cpu(2_500), "2500n");
        check(cpu(3_000), "3u");
        check(cpu(12_000_000_000_000), "12000");
        check(bytes(0), "0");
        check(bytes(1_000), "1000");
        check(bytes(7_680 << 10), "7680Ki");
        check(bytes(1_536 << 20), "1536Mi");
        check(bytes(1 << 60), "1Ei");
        check(bytes(u64::MAX), "18446744073709551615");
        for figure in [0, 1, 999, 2_500, 1_536 << 20, 12_000_000_000_000, u64::MAX] {
            check(serde_json::to_string(&Cpu(figure)).unwrap(), &format!("{:?}", cpu(figure)));
            check(serde_json::to_string(&Bytes(figure)).unwrap(), &format!("{:?}", bytes(figure)));
        }
    }

    #[test]
    fn durations_are_as_go_writes_them() {
        let check = |ns, expected: &str| assert_eq!(duration(ns), expected);
        check(0, "0s");
        check(999, "999ns");
        check(1_500, "1.5µs");
        check(500_000_000, "500ms");
        check(15_040_000_000, "15.04s");
        check(60_000_000_000, "1m0s");
        check(60_500_000_000, "1m0.5s");
        check(3_600_000_000_000, "1h0m0s");
        check(3_661_000_000_001, "1h1m1.000000001s");
    }
}
