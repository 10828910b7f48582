//! The same as text, for pipes, logs and terminals that cannot be drawn on.

use std::io::{self, Write};

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::draw::{Layout, parts};
use super::state::State;
use super::text::clock;

/// Longest names that are not cut, cells.
const LONGEST_NAME: usize = 120;

/// Writes the summary and all lines of the table, without lines of the last minutes. `width` is that of
/// the terminal; without one nothing is cut.
///
/// # Errors
/// `out` cannot be written.
pub fn write(state: &State, width: Option<usize>, out: &mut impl Write) -> io::Result<()> {
    let Some(told) = &state.told else { return Ok(()) };
    let (lines, matched) = state.lines();
    let layout = match width {
        Some(width) => Layout::new(state, width, false),
        None => {
            let longest = lines.iter().map(|line| {
                let note = Span::raw(&line.node.note).width();
                line.depth * 2 + 2 + Span::raw(&line.node.name).width() + if note > 0 { note + 2 } else { 0 }
            });
            Layout::whole(state, longest.max().unwrap_or(0).clamp(24, LONGEST_NAME))
        }
    };
    let title = format!("{}  {}  {matched} {}", &*told.node, clock(told.time), state.view.title());
    let more = (told.more > 0).then(|| Line::raw(format!("{} cgroups are not shown", told.more)));
    let summary = std::iter::once(Line::raw(title)).chain(parts(state, told, 36)).chain(more);
    let table =
        std::iter::once(layout.heading(state)).chain(lines.iter().map(|line| layout.row(state, line)));
    for line in summary.chain([Line::default()]).chain(table) {
        let cells = u16::try_from(line.width()).unwrap_or(u16::MAX).max(1);
        let mut buffer = Buffer::empty(Rect { width: cells, height: 1, ..Rect::default() });
        buffer.set_line(0, 0, &line, cells);
        state.look.tame(&mut buffer);
        let text: String = buffer.content.iter().map(|cell| cell.symbol()).collect();
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}
