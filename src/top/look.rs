//! What the terminal can show: colours, characters beyond ASCII, and whether it can be drawn on at all.

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

use super::past::What;
use super::table::Tone;
use super::text::Ramp;
use crate::config::Environment;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    colours: bool,
    unicode: bool,
    /// Whether places on it can be addressed.
    pub drawable: bool,
    blocks: bool,
}

impl Look {
    /// For logs, pipes and the oldest terminals.
    pub const PLAIN: Look = Look { colours: false, unicode: false, drawable: false, blocks: false };

    /// As the environment describes it: `TERM`, `NO_COLOR`, and the locale in `LC_ALL`, `LC_CTYPE` or `LANG`.
    pub fn of(environment: Environment<'_>) -> Look {
        let value = |name: &str| {
            let value = environment(name)?.into_string().ok()?;
            (!value.is_empty()).then_some(value)
        };
        let terminal = value("TERM").unwrap_or_else(|| "dumb".to_owned());
        let old = ["vt50", "vt52", "vt100", "vt102", "vt220", "vt320", "vt420", "dumb"];
        let monochrome = terminal.ends_with("-m")
            || terminal.ends_with("-mono")
            || old.iter().any(|t| terminal.starts_with(t));
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(value).unwrap_or_default();
        let locale = locale.to_lowercase();
        let unicode = locale.contains("utf-8") || locale.contains("utf8");
        Look {
            colours: !monochrome && value("NO_COLOR").is_none(),
            unicode,
            drawable: !matches!(terminal.as_str(), "dumb" | "unknown" | "emacs"),
            // The console's font has half of these at most.
            blocks: unicode && terminal != "linux",
        }
    }

    /// What lines are drawn with.
    pub fn ramp(self) -> Ramp {
        if self.blocks { Ramp::BLOCKS } else { Ramp::ASCII }
    }

    /// What stands where a text was cut.
    pub fn cut(self) -> &'static str {
        if self.unicode { "…" } else { "~" }
    }

    /// What stands before something that is open or closed.
    pub fn twist(self, open: bool) -> &'static str {
        match (self.blocks, open) {
            (true, true) => "▾",
            (true, false) => "▸",
            (false, true) => "-",
            (false, false) => "+",
        }
    }

    /// Which way a column is sorted.
    pub fn arrow(self, down: bool) -> &'static str {
        match (self.blocks, down) {
            (true, true) => "▼",
            (true, false) => "▲",
            (false, true) => "v",
            (false, false) => "^",
        }
    }

    /// What parts facts in one line.
    pub fn dot(self) -> &'static str {
        if self.unicode { " · " } else { ", " }
    }

    fn coloured(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    /// Of names of figures and all that is beside the point.
    pub fn quiet(self) -> Style {
        // Bright black would be the background of some palettes.
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Of what is the point.
    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Of headings.
    pub fn heading(self) -> Style {
        self.strong().add_modifier(Modifier::UNDERLINED)
    }

    /// Of the line that keys are about.
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Of a line of the last minutes.
    pub fn line(self, what: What) -> Style {
        self.coloured(match what {
            What::Cpu => Color::Cyan,
            What::Memory => Color::Magenta,
        })
    }

    /// Of a figure.
    pub fn tone(self, tone: Tone) -> Style {
        match tone {
            Tone::Plain => Style::new(),
            Tone::Warn => self.coloured(Color::Yellow).add_modifier(Modifier::BOLD),
            Tone::Bad => self.coloured(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    /// Of what must not be missed.
    pub fn alarm(self) -> Style {
        self.tone(Tone::Bad).add_modifier(Modifier::REVERSED)
    }

    /// Of what says that all is well.
    pub fn good(self) -> Style {
        self.coloured(Color::Green)
    }

    /// Takes out what the terminal cannot show, wherever it came from.
    pub fn tame(self, buffer: &mut Buffer) {
        if self.unicode {
            return;
        }
        for cell in &mut buffer.content {
            if !cell.symbol().is_ascii() {
                cell.set_symbol("?");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn terminals() {
        let check = |variables: &[(&str, &str)],
                     colours: bool,
                     unicode: bool,
                     blocks: bool,
                     drawable: bool| {
            let environment = |name: &str| {
                variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value))
            };
            assert_eq!(Look::of(&environment), Look { colours, unicode, blocks, drawable }, "{variables:?}");
        };
        check(&[("TERM", "xterm-256color"), ("LANG", "en_US.UTF-8")], true, true, true, true);
        check(&[("TERM", "tmux"), ("LANG", "C.utf8"), ("NO_COLOR", "1")], false, true, true, true);
        check(&[("TERM", "tmux"), ("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")], true, false, false, true);
        check(&[("TERM", "tmux"), ("LANG", "de_DE.UTF-8"), ("LC_ALL", "")], true, true, true, true);
        check(&[("TERM", "linux"), ("LC_CTYPE", "C.UTF-8"), ("NO_COLOR", "")], true, true, false, true);
        check(&[("TERM", "vt220")], false, false, false, true);
        check(&[("TERM", "xterm-mono")], false, false, false, true);
        check(&[("TERM", "dumb"), ("LANG", "C.UTF-8")], false, true, true, false);
        check(&[], false, false, false, false);
    }
}
