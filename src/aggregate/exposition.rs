//! Prometheus' text format 0.0.4 → samples, or the line at which it is none.
//!
//! ```text
//! # TYPE queue_length gauge
//! queue_length{namespace="shop",pod="web-0",queue="mail"} 17 1395066363000
//! ```
//!
//! Families of histograms and summaries are left out, since the model has no place
//! for them; so are values that are no number. Times are read and not believed.

use std::collections::BTreeMap;

/// Bytes of a name, of a metric or of a label.
const LONGEST_NAME: usize = 256;
/// Bytes of a label's value.
const LONGEST_VALUE: usize = 1_024;
/// Labels of one sample.
const MOST_LABELS: usize = 32;

/// How values of a family follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It counts up.
    Counter,
    /// It is as it is; also where nothing is said.
    Gauge,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The family's name.
    pub family: String,
    /// How its values follow each other.
    pub kind: Kind,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The value, which is a number.
    pub value: f64,
}

/// Where a text is none, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Malformed {
    line: usize,
    why: String,
}

/// The samples of a text, at most `most` of them.
///
/// # Errors
/// A line is not of the format, or there are more.
pub fn samples(text: &str, most: usize) -> Result<Vec<Sample>, Malformed> {
    let mut found = Vec::new();
    // Type by family; none for what has no place in the model.
    let mut kinds: BTreeMap<&str, Option<Kind>> = BTreeMap::new();
    for (line, text) in text.split('\n').enumerate().map(|(at, text)| (at + 1, text.trim())) {
        let malformed = |why: &str| Malformed { line, why: why.to_owned() };
        if let Some(comment) = text.strip_prefix('#') {
            let mut words = comment.split_ascii_whitespace();
            if words.next() == Some("TYPE") {
                let (Some(family), Some(kind), None) = (words.next(), words.next(), words.next()) else {
                    return Err(malformed("accepted: # TYPE NAME KIND"));
                };
                let kind = match kind {
                    "counter" => Some(Kind::Counter),
                    "gauge" | "untyped" => Some(Kind::Gauge),
                    "histogram" | "summary" => None,
                    _ => {
                        return Err(malformed(
                            "unknown kind; accepted: counter, gauge, untyped, histogram, summary",
                        ));
                    }
                };
                kinds.insert(family, kind);
            }
            continue;
        }
        if text.is_empty() {
            continue;
        }
        let mut rest = Rest(text);
        let name = rest.name(true).ok_or_else(|| malformed("no name of a metric"))?;
        let labels = rest.labels().map_err(malformed)?;
        let mut words = rest.0.split_ascii_whitespace();
        let value = words.next().and_then(number).ok_or_else(|| malformed("no value"))?;
        let time = words.next().is_none_or(|time| time.parse::<i64>().is_ok());
        if !time || words.next().is_some() {
            return Err(malformed("after the value only a time in milliseconds may stand"));
        }
        let of_histogram = ["_bucket", "_sum", "_count"]
            .iter()
            .any(|part| name.strip_suffix(part).is_some_and(|family| kinds.get(family) == Some(&None)));
        let Some(kind) = kinds.get(name).copied().unwrap_or(Some(Kind::Gauge)).filter(|_| !of_histogram)
        else {
            continue;
        };
        if !value.is_finite() {
            continue;
        }
        if found.len() >= most {
            return Err(malformed(&format!("more than {most} samples")));
        }
        found.push(Sample { family: name.to_owned(), kind, labels, value });
    }
    Ok(found)
}

/// Rust's numbers, without the words that only Rust knows.
fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        other if other.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E')) => {
            other.parse().ok()
        }
        _ => None,
    }
}

/// What is left of a line.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// A name at the beginning; one of a metric may have colons.
    fn name(&mut self, colons: bool) -> Option<&'a str> {
        let fits = |byte: u8, first: bool| {
            byte.is_ascii_alphabetic()
                || byte == b'_'
                || (byte == b':' && colons)
                || (byte.is_ascii_digit() && !first)
        };
        let length = self.0.bytes().enumerate().take_while(|(at, byte)| fits(*byte, *at == 0)).count();
        let (name, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        (!name.is_empty() && name.len() <= LONGEST_NAME).then_some(name)
    }

    fn skip(&mut self, wanted: char) -> bool {
        self.0 = self.0.trim_start();
        let rest = self.0.strip_prefix(wanted);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// `{name="value",…}`, if it is there.
    fn labels(&mut self) -> Result<BTreeMap<String, String>, &'static str> {
        let mut labels = BTreeMap::new();
        if !self.skip('{') {
            return Ok(labels);
        }
        while !self.skip('}') {
            let name = self.name(false).ok_or("no name of a label")?;
            if !(self.skip('=') && self.skip('"')) {
                return Err("a label is written name=\"value\"");
            }
            let value = self.value()?;
            if labels.insert(name.to_owned(), value).is_some() {
                return Err("a label is there twice");
            }
            if labels.len() > MOST_LABELS {
                return Err("too many labels; accepted: 32");
            }
            if !self.skip(',') && !self.0.starts_with('}') {
                return Err("labels end with }");
            }
        }
        Ok(labels)
    }

    /// A label's value, to its closing quote.
    fn value(&mut self) -> Result<String, &'static str> {
        let mut value = String::new();
        let mut characters = self.0.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.0 = self.0.get(at + 1..).unwrap_or_default();
                    return Ok(value);
                }
                '\\' => value.push(match characters.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, escaped @ ('\\' | '"'))) => escaped,
                    _ => return Err("unknown escape; accepted: \\\\, \\\" and \\n"),
                }),
                other => value.push(other),
            }
            if value.len() > LONGEST_VALUE {
                return Err("the value of a label is too long; accepted: 1024 bytes");
            }
        }
        Err("the value of a label does not end")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(family: &str, kind: Kind, labels: &[(&str, &str)], value: f64) -> Sample {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Sample { family: family.to_owned(), kind, labels, value }
    }

    #[test]
    fn texts() {
        let text = "# HELP requests All of them\n# TYPE requests counter\nrequests{code=\"200\", path=\"a\\\\b\\\"c\\n\",} 7e2 \
                    1395066363000\r\nrequests 1\n\n# just words\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_sum 3\nh_count 4\n\
                    # TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 1\nother:one -0.5\nnot_a_number NaN\nh_sumx 9\n";
        assert_eq!(
            samples(text, 100).unwrap(),
            [
                sample("requests", Kind::Counter, &[("code", "200"), ("path", "a\\b\"c\n")], 700.0),
                sample("requests", Kind::Counter, &[], 1.0),
                sample("other:one", Kind::Gauge, &[], -0.5),
                sample("h_sumx", Kind::Gauge, &[], 9.0),
            ]
        );
        assert_eq!(samples("", 1).unwrap(), []);
    }

    #[test]
    fn what_is_no_text_says_where() {
        let check = |line: &str, why: &str| {
            let error = samples(&format!("a 1\n{line}\n"), 100).unwrap_err().to_string();
            assert!(error.starts_with("line 2: ") && error.contains(why), "{line}: {error}");
        };
        check("7a 1", "no name of a metric");
        check("{a=\"b\"} 1", "no name of a metric");
        check("a", "no value");
        check("a one", "no value");
        check("a infinity", "no value");
        check("a 1 2 3", "after the value");
        check("a 1 soon", "after the value");
        check("a{b} 1", "name=\"value\"");
        check("a{b=c} 1", "name=\"value\"");
        check("a{b=\"c} 1", "does not end");
        check("a{b=\"c\"", "labels end with }");
        check("a{b=\"c\" d=\"e\"} 1", "labels end with }");
        check("a{b=\"c\",b=\"d\"} 1", "twice");
        check("a{b=\"\\t\"} 1", "unknown escape");
        check("# TYPE a", "# TYPE NAME KIND");
        check("# TYPE a sum", "unknown kind");
        check(&format!("a{{b=\"{}\"}} 1", "x".repeat(2_000)), "too long");
        check(&format!("{} 1", "x".repeat(300)), "no name of a metric");
        let error = samples("a 1\nb 1\nc 1\n", 2).unwrap_err().to_string();
        assert_eq!(error, "line 3: more than 2 samples");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ -~\n\\PC]{0,200}", near in "[a{}=\",\\\\ 1\n#TYPE]{0,60}") {
            let _ = (samples(&text, 10), samples(&near, 10));
        }
    }
}
