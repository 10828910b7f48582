//! Kubernetes' quantities, and the requests and limits made of them.

use std::sync::Arc;

use super::{Names, Resources};

/// A Kubernetes quantity in thousandths, rounded up: `100m` is 100, `1.5` is
/// 1500, `128Mi` is 128 × 2^20 × 1000. Negative and malformed ones are absent.
pub(in crate::identity) fn quantity_milli(text: &str) -> Option<u128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let number_ends = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(number_ends)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || number.len() > 30 {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    // Value in thousandths = digits * 1000 * multiplier / 10^(digits after the point).
    let (binary, decimal): (u32, i32) = match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        exponent => (0, exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let scaled = digits.checked_mul(1u128 << binary)?;
    let power = decimal.checked_add(3)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let factor = 10u128.checked_pow(power.unsigned_abs());
    match (power >= 0, factor) {
        (true, factor) => scaled.checked_mul(factor?),
        (false, Some(factor)) => Some(scaled.div_ceil(factor)),
        // Smaller than a thousandth, whatever it is.
        (false, None) => Some(u128::from(scaled > 0)),
    }
}

/// Resources of a container that are not among the usual three; more are left out.
const MOST_OTHERS: usize = 16;

fn whole(milli: Option<u128>) -> Option<u64> {
    milli.and_then(|milli| u64::try_from(milli.div_ceil(1000)).ok())
}

/// Reads the three resources we use from a requests or limits map.
pub(crate) fn resources<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Resources {
    let mut found = Resources::default();
    for (key, value) in pairs {
        let milli = quantity_milli(value);
        match key {
            "cpu" => found.cpu_milli = milli.and_then(|m| u64::try_from(m).ok()),
            "memory" => found.memory_bytes = whole(milli),
            "ephemeral-storage" => found.ephemeral_storage_bytes = whole(milli),
            _ => {}
        }
    }
    found
}

/// Reads all others from one, by name.
pub(in crate::identity) fn other_resources<'a>(
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    names: &mut Names,
) -> Vec<(Arc<str>, u64)> {
    let others = pairs.into_iter().filter(|(key, _)| !matches!(*key, "cpu" | "memory" | "ephemeral-storage"));
    let mut found: Vec<(&str, u64)> =
        others.filter_map(|(key, value)| Some((key, whole(quantity_milli(value))?))).collect();
    found.sort_unstable();
    found.truncate(MOST_OTHERS);
    found.into_iter().map(|(key, value)| (names.get(key), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        let check = |text: &str, want: Option<u128>| assert_eq!(quantity_milli(text), want, "{text}");
        check("0", Some(0));
        check("100m", Some(100));
        check("1", Some(1000));
        check("1.5", Some(1500));
        check(".5", Some(500));
        check("2.", Some(2000));
        check("128Mi", Some(128 << 20).map(|v: u128| v * 1000));
        check("1.5Gi", Some(3 * (1u128 << 29) * 1000));
        check("500M", Some(500_000_000_000));
        check("1e3", Some(1_000_000));
        check("12E2", Some(1_200_000));
        check("1E", Some(10u128.pow(21)));
        check("0.1m", Some(1));
        check("5n", Some(1));
        check("1e-40", Some(1));
        check("0e-40", Some(0));
        check("1e400", None);
        check("-1", None);
        check("", None);
        check(".", None);
        check("Mi", None);
        check("1Q", None);
        check("é", None);
    }

    #[test]
    fn resources_round_up_to_their_unit() {
        let found = resources([("cpu", "100u"), ("memory", "1500m"), ("hugepages-2Mi", "2Mi")]);
        let want = Resources { cpu_milli: Some(1), memory_bytes: Some(2), ..Resources::default() };
        assert_eq!(found, want);
    }

    #[test]
    fn other_resources_have_their_own_names() {
        let mut names = Names::default();
        let pairs = [("nvidia.com/gpu", "2"), ("cpu", "1"), ("hugepages-2Mi", "4Mi"), ("odd", "many")];
        let found = other_resources(pairs, &mut names);
        let found: Vec<_> = found.iter().map(|(name, count)| (&**name, *count)).collect();
        assert_eq!(found, [("hugepages-2Mi", 4 << 20), ("nvidia.com/gpu", 2)]);
        let many: Vec<String> = (0..MOST_OTHERS + 1).map(|at| format!("r{at:02}")).collect();
        let many = other_resources(many.iter().map(|name| (name.as_str(), "1")), &mut names);
        assert_eq!((many.len(), &*many[0].0), (MOST_OTHERS, "r00"));
    }
}
