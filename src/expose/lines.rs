//! Writing the lines of a scrape, without allocating.
//!
//! Both text formats are the same but for the lines about a family, the unit of
//! time stamps and the end. Numbers are integers all the way: a counter of
//! nanoseconds becomes seconds by placing the decimal point.

use super::labels;
use super::out::{Out, Padded, SLACK};
use crate::snapshot::Reading;

/// Room for a number and a time stamp: 20 digits, a sign, a point and a leading
/// zero for either.
const NUMBER: usize = 48;

/// The value of a sample: an integer with the decimal point moved left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    digits: u64,
    scale: Scale,
    negative: bool,
}

/// What one is of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    One,
    Thousandth,
    Millionth,
    Billionth,
}

impl Value {
    /// Minus one, which some families use for "unlimited".
    pub const MINUS_ONE: Value = Value { digits: 1, scale: Scale::One, negative: true };

    /// An integer.
    #[inline]
    pub const fn integer(value: u64) -> Value {
        Value { digits: value, scale: Scale::One, negative: false }
    }

    /// An integer that may be negative.
    #[inline]
    pub const fn signed(value: i64) -> Value {
        Value { digits: value.unsigned_abs(), scale: Scale::One, negative: value < 0 }
    }

    /// Milliseconds, written as seconds.
    #[inline]
    pub const fn milliseconds(value: u64) -> Value {
        Value { digits: value, scale: Scale::Thousandth, negative: false }
    }

    #[inline(always)]
    fn write(self, out: &mut Out<'_>) {
        if self.negative {
            out.push(b'-');
        }
        // A division by what is known is a multiplication.
        let digits = self.digits;
        let (whole, billionths) = match self.scale {
            Scale::One => (digits, 0),
            Scale::Thousandth => (digits / 1_000, digits % 1_000 * 1_000_000),
            Scale::Millionth => (digits / 1_000_000, digits % 1_000_000 * 1_000),
            Scale::Billionth => (digits / 1_000_000_000, digits % 1_000_000_000),
        };
        out.decimal(whole);
        out.fraction(billionths);
    }
}

/// The figure as it is.
#[inline]
pub fn number(reading: Reading) -> Option<Value> {
    scaled(reading, Scale::One)
}

/// A figure in nanoseconds, written as seconds.
#[inline]
pub fn nanoseconds(reading: Reading) -> Option<Value> {
    scaled(reading, Scale::Billionth)
}

/// A figure in microseconds, written as seconds.
#[inline]
pub fn microseconds(reading: Reading) -> Option<Value> {
    scaled(reading, Scale::Millionth)
}

#[inline]
fn scaled(reading: Reading, scale: Scale) -> Option<Value> {
    reading.map(|v| Value { digits: v.get(), scale, negative: false })
}

/// The value of a label.
#[derive(Debug, Clone, Copy)]
pub enum Label<'a> {
    /// Any text; escaped as it is written.
    Text(&'a str),
    /// A word of ours, which needs no escape.
    Word(&'static str),
    /// A word of ours, which is written in small letters.
    Lower(&'static str),
    /// A decimal number.
    Number(u64),
    /// A CPU by number: `cpu00`, `cpu07`, `cpu128`.
    Cpu(usize),
    /// Device numbers: `259:0`.
    DeviceNumbers(u32, u32),
}

impl Label<'_> {
    #[inline]
    fn room(self) -> usize {
        match self {
            Label::Text(text) => text.len() * labels::WORST_GROWTH,
            Label::Word(word) | Label::Lower(word) => word.len(),
            Label::Number(_) | Label::Cpu(_) | Label::DeviceNumbers(..) => NUMBER,
        }
    }

    #[inline]
    fn write(self, out: &mut Out<'_>) {
        match self {
            Label::Text(text) => labels::escape(text, |piece| out.put(piece.as_bytes())),
            Label::Word(word) => out.put(word.as_bytes()),
            Label::Lower(word) => word.bytes().for_each(|b| out.push(b.to_ascii_lowercase())),
            Label::Number(number) => out.decimal(number),
            Label::Cpu(number) => {
                out.put(if number < 10 { b"cpu0" } else { b"cpu" });
                out.decimal(number as u64);
            }
            Label::DeviceNumbers(major, minor) => {
                out.decimal(major.into());
                out.push(b':');
                out.decimal(minor.into());
            }
        }
    }
}

/// What is said once about a family, before its first sample, and its name.
#[derive(Debug, Clone)]
pub struct Heading {
    /// The name of its samples and an opening brace, which most lines begin with.
    opening: Padded,
    family: &'static str,
    help: &'static str,
    type_name: &'static str,
    unit: Option<&'static str>,
}

impl Heading {
    /// The heading of samples called `sample`.
    ///
    /// - `family`: the name to say it under, which OpenMetrics has without `_total`;
    /// - `help`: without line feeds, backslashes and double quotes;
    /// - `type_name`: `counter`, `gauge` or `unknown`;
    /// - `unit`: OpenMetrics only; with which `family` ends.
    pub fn new(
        sample: &str,
        family: &'static str,
        help: &'static str,
        type_name: &'static str,
        unit: Option<&'static str>,
    ) -> Heading {
        Heading { opening: Padded::new(&format!("{sample}{{")), family, help, type_name, unit }
    }
}

/// A time stamp and the end of the line, written once a scrape.
#[derive(Debug, Clone)]
pub struct LineEnd {
    text: Padded,
}

impl LineEnd {
    /// The end of lines without a time stamp.
    pub fn plain() -> LineEnd {
        LineEnd { text: Padded::new("\n") }
    }

    /// Makes it the end of lines with the time stamp `wall_ms`: milliseconds in
    /// Prometheus text, seconds in OpenMetrics.
    pub fn stamp(&mut self, wall_ms: u64, openmetrics: bool) {
        let value = if openmetrics { Value::milliseconds(wall_ms) } else { Value::integer(wall_ms) };
        let mut text = [0; NUMBER + SLACK];
        let mut out = Out { bytes: &mut text, at: 0 };
        out.push(b' ');
        value.write(&mut out);
        out.push(b'\n');
        let length = out.at;
        self.text.set(text.get(..length).unwrap_or_default());
    }
}

/// What lines begin and end with before the first family.
static EMPTY: Padded = Padded::empty();

/// Where samples go: a buffer that is handed on whenever it is full, always at
/// the end of a line.
pub struct Lines<'a> {
    /// All of it is there to be written to.
    buffer: &'a mut Vec<u8>,
    /// Bytes of it that are written.
    at: usize,
    /// Takes a full buffer and says whether it wants more.
    sink: &'a mut dyn FnMut(&[u8]) -> bool,
    stopped: bool,
    /// What is still to be said about the family.
    heading: Option<&'a Heading>,
    opening: &'a Padded,
    base: &'a str,
    end: &'a Padded,
}

impl std::fmt::Debug for Lines<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("stopped", &self.stopped).finish_non_exhaustive()
    }
}

impl<'a> Lines<'a> {
    /// Lines into `buffer`, which is handed to `sink` in chunks of its capacity.
    pub fn new(buffer: &'a mut Vec<u8>, sink: &'a mut dyn FnMut(&[u8]) -> bool) -> Self {
        buffer.resize(buffer.capacity(), 0);
        Lines { buffer, at: 0, sink, stopped: false, heading: None, opening: &EMPTY, base: "", end: &EMPTY }
    }

    /// Starts a family; the samples that follow are its own and end with `end`.
    pub fn family(&mut self, heading: &'a Heading, end: &'a LineEnd) {
        self.heading = Some(heading);
        self.opening = &heading.opening;
        self.base = "";
        self.end = &end.text;
    }

    /// The labels of the samples that follow, ready to stand between `{` and `}`.
    #[inline]
    pub fn base(&mut self, labels: &'a str) {
        self.base = labels;
    }

    /// The end of the samples that follow, where it is not the family's.
    #[inline]
    pub fn end(&mut self, end: &'a LineEnd) {
        self.end = &end.text;
    }

    /// Whether the sink wants no more.
    #[inline]
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// A sample without labels of its own; nothing where there is no value.
    #[inline]
    pub fn sample(&mut self, value: Option<Value>) {
        if let Some(value) = value {
            self.write_sample(value);
        }
    }

    /// A sample with labels of its own; nothing where there is no value.
    #[inline]
    pub fn labelled(&mut self, own: &[(&'static str, Label<'_>)], value: Option<Value>) {
        if let Some(value) = value {
            self.write_labelled(own, value);
        }
    }

    fn write_sample(&mut self, value: Value) {
        let (opening, base, end) = (self.opening, self.base.as_bytes(), self.end);
        let mut out = self.room(opening.len() + base.len() + end.len());
        if base.is_empty() {
            // No labels: a space where the brace is.
            out.put_padded(opening);
            out.at = out.at.saturating_sub(1);
            out.push(b' ');
        } else {
            out.put_padded(opening);
            out.put_long(base);
            out.put(b"} ");
        }
        value.write(&mut out);
        out.put_padded(end);
        self.at = out.at;
    }

    fn write_labelled(&mut self, own: &[(&'static str, Label<'_>)], value: Value) {
        let (opening, base, end) = (self.opening, self.base.as_bytes(), self.end);
        // Four more bytes for each label: the comma, `=` and the quotes.
        let more: usize = own.iter().map(|(name, value)| name.len() + 4 + value.room()).sum();
        let mut out = self.room(opening.len() + base.len() + more + end.len());
        out.put_padded(opening);
        out.put_long(base);
        let mut comma = !base.is_empty();
        for (name, value) in own {
            if comma {
                out.push(b',');
            }
            comma = true;
            out.put(name.as_bytes());
            out.put(b"=\"");
            value.write(&mut out);
            out.push(b'"');
        }
        out.put(b"} ");
        value.write(&mut out);
        out.put_padded(end);
        self.at = out.at;
    }

    /// Begins a line of at most so many bytes, beside its value.
    #[inline(always)]
    fn room(&mut self, bytes: usize) -> Out<'_> {
        if let Some(heading) = self.heading.take() {
            self.write_heading(heading);
        }
        self.make_room(bytes + NUMBER + SLACK);
        Out { at: self.at, bytes: self.buffer }
    }

    #[cold]
    fn write_heading(&mut self, heading: &Heading) {
        let Heading { family, help, type_name, unit, .. } = heading;
        for (word, text) in [("HELP", *help), ("TYPE", *type_name), ("UNIT", unit.unwrap_or(""))] {
            if !text.is_empty() {
                self.write_all(&["# ", word, " ", family, " ", text, "\n"]);
            }
        }
    }

    /// Appends `pieces` as one line.
    fn write_all(&mut self, pieces: &[&str]) {
        self.make_room(pieces.iter().map(|p| p.len()).sum());
        let mut out = Out { at: self.at, bytes: self.buffer };
        for piece in pieces {
            out.put_long(piece.as_bytes());
        }
        self.at = out.at;
    }

    /// Ends the scrape: hands on what is left.
    pub fn finish(mut self, openmetrics: bool) {
        if openmetrics {
            self.write_all(&["# EOF\n"]);
        }
        self.flush();
    }

    #[inline]
    fn make_room(&mut self, bytes: usize) {
        if self.buffer.len() - self.at < bytes {
            self.flush();
            if self.buffer.len() < bytes {
                // A line longer than the buffer: it grows once and keeps its size.
                self.buffer.resize(bytes, 0);
            }
        }
    }

    #[cold]
    fn flush(&mut self) {
        let written = self.buffer.get(..self.at).unwrap_or_default();
        if !self.stopped && !written.is_empty() {
            self.stopped = !(self.sink)(written);
        }
        self.at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::out::tests::written;
    use super::*;
    use crate::snapshot::reading;

    #[test]
    fn numbers_are_exact() {
        let check = |value: Option<Value>, expected: &str| {
            assert_eq!(written(|out| value.unwrap().write(out)), expected);
        };
        check(number(reading(0)), "0");
        check(number(reading(u64::MAX - 1)), "18446744073709551614");
        check(nanoseconds(reading(0)), "0");
        check(nanoseconds(reading(1)), "0.000000001");
        check(nanoseconds(reading(999_999_999)), "0.999999999");
        check(nanoseconds(reading(1_000_000_000)), "1");
        check(nanoseconds(reading(1_000_000_001)), "1.000000001");
        check(nanoseconds(reading(12_340_000_000)), "12.34");
        check(nanoseconds(reading(u64::MAX - 1)), "18446744073.709551614");
        check(microseconds(reading(1)), "0.000001");
        check(microseconds(reading(100_000)), "0.1");
        check(microseconds(reading(12_345_678)), "12.345678");
        check(Some(Value::milliseconds(10)), "0.01");
        check(Some(Value::milliseconds(1_234)), "1.234");
        check(Some(Value::integer(u64::MAX)), "18446744073709551615");
        check(Some(Value::MINUS_ONE), "-1");
        check(Some(Value::signed(-12)), "-12");
        check(Some(Value::signed(12)), "12");
        assert_eq!(number(None), None);
    }

    #[test]
    fn label_values() {
        let check = |label: Label<'_>, expected: &str| {
            assert_eq!(written(|out| label.write(out)), expected);
            assert!(expected.len() <= label.room());
        };
        check(Label::Lower("TCPTimeouts"), "tcptimeouts");
        check(Label::Cpu(0), "cpu00");
        check(Label::Cpu(63), "cpu63");
        check(Label::Cpu(128), "cpu128");
        check(Label::Number(u64::MAX), "18446744073709551615");
        check(Label::DeviceNumbers(u32::MAX, u32::MAX), "4294967295:4294967295");
        check(Label::Text("a\"b"), "a\\\"b");
        check(Label::Text("\u{1}"), "\\\\x01");
    }

    fn heading(unit: Option<&'static str>) -> Heading {
        Heading::new("a_total", "a", "An a.", "counter", unit)
    }

    /// What comes out of a buffer of `capacity`, chunk by chunk.
    fn chunks(
        capacity: usize,
        openmetrics: bool,
        families: &[(Heading, LineEnd)],
        write: impl for<'a> FnOnce(&mut Lines<'a>, &'a [(Heading, LineEnd)]),
    ) -> Vec<String> {
        let mut chunks = Vec::new();
        let mut buffer = Vec::with_capacity(capacity);
        let mut sink = |chunk: &[u8]| {
            chunks.push(String::from_utf8(chunk.to_vec()).unwrap());
            true
        };
        let mut lines = Lines::new(&mut buffer, &mut sink);
        write(&mut lines, families);
        lines.finish(openmetrics);
        chunks
    }

    #[test]
    fn a_family_without_samples_writes_nothing() {
        let none = chunks(64, false, &[(heading(None), LineEnd::plain())], |lines, families| {
            lines.family(&families[0].0, &families[0].1);
            lines.base("id=\"/\"");
            lines.sample(None);
            lines.labelled(&[("a", Label::Number(1))], None);
        });
        assert_eq!(none, Vec::<String>::new());
    }

    #[test]
    fn labels_and_stamps() {
        let mut milliseconds = LineEnd::plain();
        milliseconds.stamp(1_700_000_000_120, false);
        let mut seconds = LineEnd::plain();
        seconds.stamp(1_700_000_000_120, true);
        let families = [
            (heading(None), LineEnd::plain()),
            (heading(Some("bytes")), milliseconds),
            (heading(None), seconds),
        ];
        let text = chunks(4096, true, &families, |lines, families| {
            let one = |n| Some(Value::integer(n));
            lines.family(&families[0].0, &families[0].1);
            lines.sample(one(1));
            lines.labelled(&[("x", Label::Text("y"))], one(2));
            lines.base("id=\"/\"");
            lines.sample(one(3));
            lines.labelled(&[("x", Label::Word("y")), ("z", Label::Number(7))], one(4));
            lines.family(&families[1].0, &families[1].1);
            lines.sample(one(5));
            lines.family(&families[2].0, &families[2].1);
            lines.sample(one(6));
        });
        assert_eq!(
            text.concat(),
            "# HELP a An a.\n# TYPE a counter\na_total 1\na_total{x=\"y\"} 2\na_total{id=\"/\"} 3\n\
             a_total{id=\"/\",x=\"y\",z=\"7\"} 4\n\
             # HELP a An a.\n# TYPE a counter\n# UNIT a bytes\na_total 5 1700000000120\n\
             # HELP a An a.\n# TYPE a counter\na_total 6 1700000000.12\n# EOF\n"
        );
    }

    #[test]
    fn chunks_end_with_whole_lines_and_long_lines_fit() {
        let long = "v".repeat(1000);
        let parts = chunks(256, false, &[(heading(None), LineEnd::plain())], |lines, families| {
            lines.family(&families[0].0, &families[0].1);
            for i in 0..20 {
                lines.sample(Some(Value::integer(i)));
            }
            lines.labelled(&[("x", Label::Text(&long))], Some(Value::integer(20)));
        });
        assert!(parts.len() > 2, "{parts:?}");
        assert!(parts.iter().all(|p| p.ends_with('\n')));
        let short: String = (0..20).map(|i| format!("a_total {i}\n")).collect();
        let expected = format!("# HELP a An a.\n# TYPE a counter\n{short}a_total{{x=\"{long}\"}} 20\n");
        assert_eq!(parts.concat(), expected);
    }

    #[test]
    fn a_sink_that_fails_gets_no_more() {
        let (heading, end) = (heading(None), LineEnd::plain());
        let mut calls = 0;
        let mut buffer = Vec::with_capacity(128);
        let mut sink = |_: &[u8]| {
            calls += 1;
            false
        };
        let mut lines = Lines::new(&mut buffer, &mut sink);
        lines.family(&heading, &end);
        for i in 0..100 {
            lines.sample(Some(Value::integer(i)));
        }
        assert!(lines.stopped());
        lines.finish(true);
        assert_eq!(calls, 1);
    }
}
