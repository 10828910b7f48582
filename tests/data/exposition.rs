//! A small, obvious parser of both text formats. It panics on what breaks them.

use std::collections::{BTreeMap, BTreeSet};

/// One line with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Its name.
    pub(crate) name: String,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Its value, as written.
    pub(crate) value: String,
    /// Its time stamp, as written.
    pub(crate) stamp: Option<String>,
}

/// What is said about a family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Family {
    /// Its name, as in its heading.
    pub(crate) name: String,
    /// HELP, TYPE and UNIT lines.
    pub(crate) about: BTreeMap<String, String>,
    /// Its samples, in order.
    pub(crate) samples: Vec<Sample>,
}

/// The families of a text.
pub(crate) fn parse(text: &str, openmetrics: bool) -> Vec<Family> {
    let mut lines: Vec<&str> = text.split_terminator('\n').collect();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line has no end");
    if openmetrics {
        assert_eq!(lines.pop(), Some("# EOF"));
    }
    let mut families: Vec<Family> = Vec::new();
    for line in lines {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (word, name, text) =
                (words.next().unwrap(), words.next().unwrap(), words.next().unwrap().to_owned());
            if families.last().is_none_or(|f| f.name != name) {
                families.push(Family { name: name.to_owned(), about: BTreeMap::new(), samples: Vec::new() });
            }
            let family = families.last_mut().unwrap();
            assert!(family.samples.is_empty(), "{line} after samples");
            assert_eq!(family.about.insert(word.to_owned(), text), None, "{line} twice");
        } else {
            let sample = parse_sample(line);
            let family = families.last_mut().expect("a sample before any heading");
            let total = format!("{}_total", family.name);
            let counter = family.about.get("TYPE").is_some_and(|t| t == "counter");
            let expected = if openmetrics && counter { &total } else { &family.name };
            assert_eq!(&sample.name, expected, "a sample in another family's place");
            family.samples.push(sample);
        }
    }
    let names: BTreeSet<&str> = families.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names.len(), families.len(), "a family in two places");
    for family in &families {
        assert!(!family.samples.is_empty(), "{} has a heading and no sample", family.name);
        assert!(family.about.contains_key("HELP") && family.about.contains_key("TYPE"), "{family:?}");
    }
    families
}

/// All samples of a text; panics where two have the same name and labels.
pub(crate) fn samples(text: &str, openmetrics: bool) -> Vec<Sample> {
    let samples: Vec<Sample> = parse(text, openmetrics).into_iter().flat_map(|f| f.samples).collect();
    let mut seen = BTreeSet::new();
    for sample in &samples {
        // An empty label is the same as none.
        let told: Vec<_> = sample.labels.iter().filter(|(_, v)| !v.is_empty()).collect();
        assert!(seen.insert((&sample.name, told)), "twice: {sample:?}");
    }
    samples
}

fn parse_sample(line: &str) -> Sample {
    let mut rest = line.chars().peekable();
    let mut name = String::new();
    while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    assert!(!name.is_empty(), "no name: {line:?}");
    let mut labels = BTreeMap::new();
    if rest.next_if_eq(&'{').is_some() {
        loop {
            let mut label = String::new();
            while let Some(c) = rest.next_if(|c| *c != '=') {
                label.push(c);
            }
            assert!(
                label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
                "label {label:?}: {line:?}"
            );
            assert!(!label.is_empty(), "a label without a name: {line:?}");
            assert_eq!((rest.next(), rest.next()), (Some('='), Some('"')), "{line:?}");
            let mut value = String::new();
            loop {
                match rest.next().expect("a label without an end") {
                    '"' => break,
                    '\\' => value.push(match rest.next() {
                        Some('n') => '\n',
                        Some(c @ ('\\' | '"')) => c,
                        other => panic!("escape {other:?}: {line:?}"),
                    }),
                    c => value.push(c),
                }
            }
            assert_eq!(labels.insert(label, value), None, "a label twice: {line:?}");
            match rest.next() {
                Some(',') => {}
                Some('}') => break,
                other => panic!("{other:?} after a label: {line:?}"),
            }
        }
    }
    assert_eq!(rest.next(), Some(' '), "{line:?}");
    let words: String = rest.collect();
    let mut words = words.split(' ');
    let value = words.next().unwrap().to_owned();
    billionths(&value);
    let stamp = words.next().map(str::to_owned);
    assert_eq!(words.next(), None, "{line:?}");
    Sample { name, labels, value, stamp }
}

/// A decimal number as an exact count of billionths.
pub(crate) fn billionths(number: &str) -> i128 {
    let (sign, digits) = number.strip_prefix('-').map_or((1, number), |rest| (-1, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    assert!(!whole.is_empty() && all_digits(whole) && all_digits(fraction), "no number: {number:?}");
    assert!(!digits.contains('.') || !fraction.is_empty(), "a point without digits: {number:?}");
    let fraction: i128 = format!("{fraction:0<9}").parse().unwrap();
    sign * (whole.parse::<i128>().unwrap() * 1_000_000_000 + fraction)
}
