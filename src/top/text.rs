//! Figures and names as text for a terminal, and lines drawn with characters.
//!
//! Units are those of the page; what is absent is [`ABSENT`].

use std::fmt::Write as _;

use ratatui::text::Span;
use serde::Deserialize;

/// What stands where nothing is known.
pub const ABSENT: &str = "-";

/// Longest text of an answer that is kept, characters: no terminal shows more.
const LONGEST: usize = 1000;

/// Text from elsewhere that is safe to show: names are made up by whoever starts a container, and a
/// terminal obeys control characters. What has no width or changes the order of others is gone too,
/// since rows would no longer be in columns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Text(String);

impl From<String> for Text {
    fn from(raw: String) -> Text {
        Text(clean(&raw))
    }
}

impl std::ops::Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// `raw` with a `?` for each character that a terminal would not simply show.
pub fn clean(raw: &str) -> String {
    let safe = |c: char| {
        let unseen = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
        if c.is_control() || unseen || (!c.is_ascii() && Span::raw(c.to_string()).width() == 0) {
            '?'
        } else {
            c
        }
    };
    raw.chars().take(LONGEST).map(safe).collect()
}

fn told(value: Option<f64>, text: impl FnOnce(f64) -> String) -> String {
    value.map_or_else(|| ABSENT.to_owned(), text)
}

/// Three digits.
fn digits(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

fn scaled(mut value: f64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if value < 1024.0 {
        return format!("{value:.0} B");
    }
    let mut unit = "";
    for next in UNITS {
        value /= 1024.0;
        unit = next;
        if value < 1023.5 {
            break;
        }
    }
    format!("{} {unit}", digits(value))
}

/// Bytes.
pub fn bytes(value: Option<f64>) -> String {
    told(value, scaled)
}

/// Bytes a second.
pub fn rate(value: Option<f64>) -> String {
    told(value, |v| if v == 0.0 { "0".to_owned() } else { format!("{}/s", scaled(v)) })
}

/// Thousandths of a core, as Kubernetes writes them.
pub fn cores(value: Option<f64>) -> String {
    told(value, |v| match v {
        0.0 => "0".to_owned(),
        v if v < 0.05 => "<0.1m".to_owned(),
        v if v < 9.95 => format!("{v:.1}m"),
        v => format!("{v:.0}m"),
    })
}

/// Hundredths.
pub fn percent(value: Option<f64>) -> String {
    told(value, |v| match v {
        0.0 => "0%".to_owned(),
        v if v < 0.1 => "<0.1%".to_owned(),
        v if v < 9.95 => format!("{v:.1}%"),
        v => format!("{v:.0}%"),
    })
}

/// How many, or how many a second.
pub fn count(value: Option<f64>) -> String {
    told(value, |v| match v {
        v if v >= 1e6 => format!("{} M", digits(v / 1e6)),
        v if v >= 1e4 => format!("{} k", digits(v / 1e3)),
        v if v >= 10.0 || v.fract() == 0.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    })
}

/// How long, of seconds.
pub fn span(seconds: Option<u64>) -> String {
    let Some(seconds) = seconds else { return ABSENT.to_owned() };
    for (length, unit) in [(86_400, "d"), (3_600, "h"), (60, "min")] {
        if seconds >= length * 2 {
            return format!("{} {unit}", seconds / length);
        }
    }
    format!("{seconds} s")
}

/// A moment of a day, from milliseconds since the epoch. UTC: what a machine elsewhere calls local is
/// not known here.
pub fn clock(ms: u64) -> String {
    let seconds = ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// What a column is drawn with, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ramp(&'static [char]);

impl Ramp {
    /// Eighths of a cell.
    pub const BLOCKS: Ramp = Ramp(&['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']);
    /// For terminals that have ASCII only.
    pub const ASCII: Ramp = Ramp(&['_', '.', '-', '=', '+', '*', '%', '#']);

    /// Columns of `height` rows, the top row first. The scale goes from 0 to the largest value,
    /// and at least to `least`. Blank where a value is absent.
    pub fn columns(self, values: &[Option<f64>], least: f64, height: usize) -> Vec<String> {
        let top = values.iter().flatten().copied().fold(least, f64::max);
        let levels = self.0.len();
        let all = levels * height;
        let filled =
            |value: f64| (1..all).take_while(|level| value * all as f64 > top * *level as f64).count() + 1;
        let filled: Vec<Option<usize>> =
            values.iter().map(|value| value.map(|v| if top > 0.0 { filled(v) } else { 1 })).collect();
        let row = |row: usize| {
            let below = (height - 1 - row) * levels;
            let glyph = |filled: &Option<usize>| {
                let here = filled.and_then(|filled| filled.checked_sub(below)).filter(|here| *here > 0);
                here.and_then(|here| self.0.get(here.min(levels) - 1)).copied().unwrap_or(' ')
            };
            filled.iter().map(glyph).collect()
        };
        (0..height).map(row).collect()
    }

    /// A bar of `width` cells, filled by `share` from 0 to 1.
    pub fn bar(self, share: f64, width: usize) -> String {
        let full = (1..=width).take_while(|cell| share * width as f64 + 0.5 >= *cell as f64).count();
        let (on, off) = if self == Ramp::BLOCKS { ('█', '░') } else { ('#', '.') };
        (0..width).map(|cell| if cell < full { on } else { off }).collect()
    }
}

/// The beginning of a text that fits `width` cells, ending in `mark` where it was cut.
pub fn fit(text: &str, width: usize, mark: &str) -> String {
    if Span::raw(text).width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(Span::raw(mark).width());
    let (mut kept, mut used) = (String::new(), 0);
    for c in text.chars() {
        let wide = Span::raw(c.to_string()).width();
        if used + wide > room {
            break;
        }
        used += wide;
        kept.push(c);
    }
    if width > 0 {
        let _ = write!(kept, "{mark}");
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_units_and_absent_is_not_zero() {
        let check = |shown: String, expected: &str| assert_eq!(shown, expected);
        check(bytes(None), "-");
        check(bytes(Some(0.0)), "0 B");
        check(bytes(Some(1023.0)), "1023 B");
        check(bytes(Some(1024.0)), "1.00 KiB");
        check(bytes(Some(1024.0 * 1023.9)), "1.00 MiB");
        check(bytes(Some(15.25 * 1024.0 * 1024.0)), "15.2 MiB");
        check(rate(Some(0.0)), "0");
        check(rate(Some(2048.0)), "2.00 KiB/s");
        check(cores(None), "-");
        check(cores(Some(0.0)), "0");
        check(cores(Some(0.01)), "<0.1m");
        check(cores(Some(9.96)), "10m");
        check(cores(Some(1500.4)), "1500m");
        check(percent(Some(0.05)), "<0.1%");
        check(percent(Some(3.21)), "3.2%");
        check(percent(Some(99.6)), "100%");
        check(count(Some(12_345.0)), "12.3 k");
        check(count(Some(0.5)), "0.5");
        check(span(Some(119)), "119 s");
        check(span(Some(120)), "2 min");
        check(span(Some(3 * 86_400)), "3 d");
        check(clock(1_795_230_978_123), "03:16:18 UTC");
    }

    #[test]
    fn no_name_reaches_the_terminal_as_a_command() {
        let check = |raw: &str, expected: &str| assert_eq!(&*Text::from(raw.to_owned()), expected, "{raw:?}");
        check("web-0", "web-0");
        check("\u{1b}[2J\u{7}\r\n\t\u{0}", "?[2J?????");
        check("\u{9b}31m\u{7f}", "?31m?");
        check("a\u{202e}b\u{2066}c\u{200b}\u{feff}\u{ad}", "a?b?c???");
        check("e\u{301}", "e?");
        check("größe-日本", "größe-日本");
        assert_eq!(clean(&"x".repeat(5000)).len(), LONGEST);
    }

    #[test]
    fn columns_are_as_high_as_their_share() {
        let values = [None, Some(0.0), Some(1.0), Some(4.0), Some(8.0)];
        assert_eq!(Ramp::BLOCKS.columns(&values, 0.0, 1), [" ▁▁▄█"]);
        assert_eq!(Ramp::ASCII.columns(&values, 0.0, 1), [" __=#"]);
        assert_eq!(Ramp::BLOCKS.columns(&values, 0.0, 2), ["    █", " ▁▂██"]);
        // A small value on a scale that begins at `least` stays low.
        assert_eq!(Ramp::BLOCKS.columns(&[Some(1.0)], 8.0, 1), ["▁"]);
        assert_eq!(Ramp::BLOCKS.columns(&[Some(0.0)], 0.0, 1), ["▁"]);
        assert_eq!(Ramp::BLOCKS.bar(0.5, 4), "██░░");
        assert_eq!(Ramp::ASCII.bar(2.0, 4), "####");
    }

    #[test]
    fn texts_are_cut_by_cells() {
        assert_eq!(fit("abc", 3, "…"), "abc");
        assert_eq!(fit("abcd", 3, "…"), "ab…");
        assert_eq!(fit("日本語", 4, "~"), "日~");
        assert_eq!(fit("abc", 0, "…"), "");
    }
}
