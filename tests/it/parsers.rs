//! Properties of the parsers: no bytes make them panic, and on well-formed and
//! damaged text they agree with slow, obvious versions.

use std::collections::BTreeMap;

use nodegauge::kernel::ReadError;
use nodegauge::kernel::mounts;
use nodegauge::kernel::parse::{self, Keyed, MAX_KEYS};
use nodegauge::kernel::sock_diag;
use nodegauge::snapshot::Limit;
use proptest::prelude::*;

const WANTED: &[&str] = &["anon", "file", "inactive_file", "pgfault", "kernel"];

/// Bytes that look like kernel text often enough to get past the first check.
fn kernel_like() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        Just("some".to_owned()),
        Just("full".to_owned()),
        Just("avg10=0.00".to_owned()),
        Just("total=12".to_owned()),
        Just("8:0".to_owned()),
        Just("Read".to_owned()),
        Just("Total".to_owned()),
        Just("rbytes=7".to_owned()),
        Just("max".to_owned()),
        Just("eth0:".to_owned()),
        Just("Tcp:".to_owned()),
        Just("inuse".to_owned()),
        Just("N0=7".to_owned()),
        Just("cpu0".to_owned()),
        Just("-".to_owned()),
        "[a-z_.]{1,12}",
        "[0-9]{1,22}",
        any::<i64>().prop_map(|n| n.to_string()),
    ];
    let separator = prop_oneof![Just(" "), Just("\n"), Just(":"), Just("="), Just("\t"), Just("")];
    let text = proptest::collection::vec((token, separator), 0..40).prop_map(|parts| {
        parts.into_iter().flat_map(|(t, s)| [t, s.to_owned()]).collect::<String>().into_bytes()
    });
    prop_oneof![4 => text, 1 => proptest::collection::vec(any::<u8>(), 0..200)]
}

fn slow_number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.trim_matches(|c| " \t\n\r\0".contains(c));
    // The parser trims carriage returns and NULs only at the end.
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |t| (true, t));
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(if negative { 0 } else { value })
}

fn slow_keyed(text: &[u8]) -> Result<BTreeMap<usize, u64>, ()> {
    let mut found = BTreeMap::new();
    if text.is_empty() {
        return Err(());
    }
    for line in text.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let space = line.iter().position(|b| *b == b' ').ok_or(())?;
        let (key, value) = line.split_at(space);
        if let Some(index) = WANTED.iter().position(|w| w.as_bytes() == key) {
            found.insert(index, slow_number(&value[1..]).ok_or(())?);
        }
    }
    Ok(found)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics(text in kernel_like()) {
        let _ = parse::number(&text);
        let _ = parse::limit(&text);
        let _ = parse::cpu_max(&text);
        let _ = parse::keyed(&text, |_, _| true);
        let _ = parse::pressure(&text);
        let _ = parse::io_stat(&text, |_, _, _| {});
        let _ = parse::blkio(&text, |_, _, _| {});
        let _ = parse::per_cpu(&text, &mut Vec::new());
        let _ = parse::net_dev(&text, |_, _, _| {});
        let _ = parse::pids(&text, |_| {});
        let _ = parse::cpu_list_len(&text);
        let _ = parse::meminfo(&text, "MemTotal");
        let _ = parse::network::sockstat(&text, |_, _, _| {});
        let _ = parse::network::snmp6(&text, "Udp6InErrors");
        let _ = parse::network::Columns::new("Tcp:", &["InSegs"]).read(&text, |_, _| {});
        let _ = parse::numa::by_node(&text, |_, _, _| {});
        let _ = parse::scheduler::of_thread(&text);
        let _ = parse::scheduler::of_machine(&text);
        let _ = sock_diag::messages(&text, 0, |_| {});
        let _ = mounts::parse(&text);
    }

    #[test]
    fn numbers_agree(text in prop_oneof!["-?[0-9]{0,21}\n?", "[ -~]{0,12}"]) {
        prop_assume!(!text.starts_with(['\r', '\0']));
        prop_assert_eq!(parse::number(text.as_bytes()).ok(), slow_number(text.as_bytes()));
    }

    /// The learning reader gives what reading line by line gives, whatever it
    /// had learnt from the file before.
    #[test]
    fn keyed_agrees(
        files in proptest::collection::vec(
            proptest::collection::vec(
                (prop_oneof![
                    Just("anon"), Just("file"), Just("inactive_file"), Just("pgfault"), Just("kernel"),
                    Just("anonymous"), Just("fil"), Just("slab"),
                ], prop_oneof![3 => "[0-9]{1,19}", 1 => "-[0-9]{1,5}", 1 => "[a-z]{0,3}"]),
                0..8,
            ),
            1..4,
        ),
        newline in any::<bool>(),
    ) {
        let mut keyed = Keyed::new(WANTED);
        for file in files {
            let mut text = file.iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>().join("\n");
            if newline {
                text.push('\n');
            }
            let mut values = [None; MAX_KEYS];
            let read = keyed.read(text.as_bytes(), &mut values);
            match slow_keyed(text.as_bytes()) {
                Err(()) => prop_assert!(matches!(read, Err(ReadError::Malformed { .. })), "{:?}", text),
                Ok(expected) => {
                    prop_assert_eq!(read, Ok(()), "{:?}", text);
                    for (index, value) in values.into_iter().enumerate() {
                        prop_assert_eq!(value, expected.get(&index).copied(), "key {} of {:?}", index, text);
                    }
                }
            }
        }
    }

    /// Any bytes: the learning reader and the obvious one fail and succeed alike.
    #[test]
    fn keyed_agrees_on_anything(first in kernel_like(), second in kernel_like()) {
        let mut keyed = Keyed::new(WANTED);
        let mut values = [None; MAX_KEYS];
        for text in [&first, &second] {
            let read = keyed.read(text, &mut values).is_ok();
            prop_assert_eq!(read, slow_keyed(text).is_ok(), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn io_lines_round_trip(devices in proptest::collection::vec((0u32..4096, 0u32..1_048_576, any::<u64>(), any::<u64>()), 0..6)) {
        let text: String = devices.iter().map(|(a, b, r, w)| format!("{a}:{b} rbytes={r} wbytes={w} rios=1 wios=2\n")).collect();
        let mut seen = Vec::new();
        parse::io_stat(text.as_bytes(), |(a, b), key, value| {
            if key == b"rbytes" || key == b"wbytes" {
                seen.push((a, b, value));
            }
        }).unwrap();
        let expected: Vec<_> = devices.iter().flat_map(|(a, b, r, w)| [(*a, *b, Some(*r)), (*a, *b, Some(*w))]).collect();
        prop_assert_eq!(seen, expected.clone());

        let text: String = devices.iter().map(|(a, b, r, w)| format!("{a}:{b} Read {r}\n{a}:{b} Write {w}\n")).collect();
        let mut seen = Vec::new();
        parse::blkio(format!("{text}Total 3\n").as_bytes(), |(a, b), _, value| seen.push((a, b, Some(value)))).unwrap();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn limits_agree(value in any::<u64>()) {
        let expected = if value >= 1 << 62 { Limit::Max } else { Limit::Value(value) };
        prop_assert_eq!(parse::limit(format!("{value}\n").as_bytes()), Ok(expected));
    }

    #[test]
    fn cpu_lists_agree(parts in proptest::collection::vec((0u64..300, 0u64..40), 1..8)) {
        let text: Vec<String> = parts.iter().map(|(a, n)| if *n == 0 { a.to_string() } else { format!("{a}-{}", a + n) }).collect();
        let expected: u64 = parts.iter().map(|(_, n)| n + 1).sum();
        prop_assert_eq!(parse::cpu_list_len(text.join(",").as_bytes()), Ok(expected));
    }
}
