//! The terminal while it is drawn on: taken, given back whatever happens, and taken again.

use std::io;

use nix::sys::signal::{Signal, raise};
use ratatui::DefaultTerminal;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, enable_raw_mode};
use ratatui::layout::Rect;

use super::draw::draw;
use super::state::State;

/// The terminal, until it is dropped. A panic gives it back before it says what happened.
#[derive(Debug)]
pub struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// There is none, or it is gone.
    pub fn take() -> io::Result<Screen> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Screen { terminal }),
            Err(error) => {
                // It may have been taken half-way.
                let _ = ratatui::try_restore();
                Err(error)
            }
        }
    }

    /// Shows the state; only what differs is written.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn show(&mut self, state: &mut State) -> io::Result<()> {
        self.terminal.draw(|frame| draw(state, frame.area(), frame.buffer_mut())).map(drop)
    }

    /// Gives the terminal to whoever stopped us, until we are continued.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn suspend(&mut self) -> io::Result<()> {
        let _ = self.terminal.show_cursor();
        ratatui::try_restore()?;
        raise(Signal::SIGTSTP)?;
        self.resume()
    }

    /// Takes the terminal again after others had it.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn resume(&mut self) -> io::Result<()> {
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        self.redraw()
    }

    /// Forgets what the terminal shows: all of it is written next.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn redraw(&mut self) -> io::Result<()> {
        // Clearing as such would ask the terminal for its cursor, and whoever waits for keys would get the answer.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::new(0, 0, size.width, size.height))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where the terminal is gone nothing is left to give back.
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
    }
}
