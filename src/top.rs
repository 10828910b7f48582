//! `nodegauge top`: the agent's page in a terminal.
//!
//! | | |
//! |---|---|
//! | `answer` | what the page's endpoints tell |
//! | `ask` | a running agent, or this machine: both by those endpoints |
//! | `past`, `rows`, `table`, `detail` | answers as lines of the last minutes, a tree, its columns, one cgroup |
//! | `state`, `keys` | what is shown, and what keys change |
//! | `look`, `text`, `draw`, `plain` | characters: with colours or without, with Unicode or without, drawn or written |
//! | `screen` | the terminal, taken and given back |
//!
//! This thread draws. Another asks, and waits for signals; a third waits for keys. A terminal that takes
//! nothing more, an agent that does not answer: neither keeps the others from going on, nor from ending.

pub mod answer;
pub mod ask;
pub mod detail;
pub mod draw;
pub mod keys;
pub mod look;
pub mod past;
pub mod plain;
pub mod rows;
pub mod screen;
pub mod state;
pub mod table;
pub mod text;

use std::io::{self, IsTerminal as _, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::terminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::agent;
use crate::cli::TopArguments;
use crate::config::{Config, Environment};
use crate::push::target::Peer;
use crate::signals::StopSignals;
use ask::{News, Source, follow};
use keys::{Effect, press};
use look::Look;
use screen::Screen;
use state::{Choices, State, Wish};

/// Time between two answers, unless it was said.
pub const PACE: Duration = Duration::from_secs(2);

/// A collection takes milliseconds, but nobody reads faster.
const SHORTEST_PACE: Duration = Duration::from_secs(1);

/// Ages are told by the second.
const REDRAW: Duration = Duration::from_secs(1);

/// How long a terminal that takes nothing more keeps us from ending.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// How it is shown, and whence.
#[derive(Debug)]
pub struct Options {
    from: Option<Peer>,
    look: Look,
    choices: Choices,
    once: bool,
}

impl Options {
    /// Reads the arguments; a terminal is asked what it can show.
    ///
    /// # Errors
    /// One line for the user, about the first thing found wrong.
    pub fn read(arguments: &TopArguments, environment: Environment<'_>) -> Result<Options> {
        let from = arguments.from.as_deref().map(|text| {
            Peer::parse(text)
                .map_err(|error| anyhow!("--from {:?}: {error}", crate::push::target::without_options(text)))
        });
        let sort = arguments.sort.as_deref().map(|name| {
            table::column(name).map_err(|accepted| anyhow!("--sort {name:?}: not a column; {accepted}"))
        });
        let choices = Choices {
            view: arguments.view,
            sort: sort.transpose()?,
            filter: arguments.filter.clone().unwrap_or_default(),
        };
        let once = arguments.once || !io::stdout().is_terminal();
        Ok(Options { from: from.transpose()?, look: Look::of(environment), choices, once })
    }

    /// Whether the terminal is drawn on: messages would go between.
    pub fn draws(&self) -> bool {
        !self.once && self.look.drawable
    }
}

/// What happens.
enum Happening {
    News(News),
    Input(Event),
    /// We are continued after a stop: others may have had the terminal.
    Continued,
    /// A signal, or the keyboard is gone.
    Stop,
}

/// Shows the machine until told to end; once where that was asked for, or standard output is no terminal.
///
/// # Errors
/// There is nothing to collect from, no answer where one is all that is wanted, or no terminal.
pub fn run(config: &Config, options: Options) -> Result<()> {
    let event_loop = agent::event_loop()?;
    let source = event_loop.block_on(Source::open(config, options.from.as_ref()))?;
    let draws = options.draws();
    let mut state = State::new(options.look, config.interval.max(SHORTEST_PACE), options.choices);
    if options.once {
        return event_loop.block_on(once(source, &mut state));
    }
    let (happenings, happened) = mpsc::channel();
    let (wishes, wished) = watch::channel(state.wish());
    let asking = happenings.clone();
    let asks = thread::Builder::new().name("asks".to_owned());
    let asks = asks
        .spawn(move || event_loop.block_on(ask(source, wished, asking)))
        .context("cannot start a thread")?;
    if !draws {
        let width = || terminal::size().ok().map(|(width, _)| usize::from(width));
        while let Ok(happening) = happened.recv() {
            match happening {
                Happening::News(News::Overview(overview)) => {
                    state.take(*overview);
                    written(&state, width())?;
                }
                Happening::News(News::Lost(why)) => writeln!(io::stdout(), "no answer: {why}")?,
                Happening::Stop => return Ok(()),
                Happening::News(News::Detail(..)) | Happening::Input(_) | Happening::Continued => {}
            }
        }
        bail!("nobody asks any more");
    }
    let mut screen = Screen::take().context("cannot draw on this terminal; --once prints a table")?;
    let keyboard = thread::Builder::new().name("keys".to_owned());
    keyboard.spawn(move || listen(&happenings)).context("cannot start a thread")?;
    loop {
        screen.show(&mut state).context("the terminal is gone")?;
        let first = match happened.recv_timeout(REDRAW) {
            Ok(happening) => Some(happening),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => bail!("nobody listens any more"),
        };
        // What has come meanwhile is drawn together.
        for happening in first.into_iter().chain(happened.try_iter()) {
            let effect = match happening {
                Happening::News(News::Overview(overview)) => {
                    state.take(*overview);
                    Effect::None
                }
                Happening::News(News::Detail(number, detail)) => {
                    state.take_detail(number, detail.map(|detail| *detail));
                    Effect::None
                }
                Happening::News(News::Lost(why)) => {
                    state.take_loss(why);
                    Effect::None
                }
                Happening::Input(Event::Key(key)) => press(&mut state, key),
                Happening::Input(_) => Effect::None,
                Happening::Continued => {
                    screen.resume().context("the terminal is gone")?;
                    Effect::None
                }
                Happening::Stop => Effect::Quit,
            };
            match effect {
                Effect::None => {}
                Effect::Quit => return Ok(()),
                Effect::Suspend => screen.suspend().context("the terminal is gone")?,
                Effect::Redraw => screen.redraw().context("the terminal is gone")?,
            }
        }
        if asks.is_finished() {
            bail!("nobody asks any more");
        }
        wishes.send_if_modified(|wish: &mut Wish| {
            let changed = *wish != state.wish();
            *wish = state.wish();
            changed
        });
    }
}

/// One table.
async fn once(mut source: Source, state: &mut State) -> Result<()> {
    let overview = source.once().await.context("no answer")?;
    state.take(overview);
    let width = io::stdout().is_terminal().then(terminal::size).and_then(io::Result::ok);
    written(state, width.map(|(width, _)| usize::from(width)))
}

/// Writes the table. A reader that has seen enough is no error.
fn written(state: &State, width: Option<usize>) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match plain::write(state, width, &mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write the table"),
    }
}

/// Asks until a signal says to stop.
async fn ask(source: Source, wished: watch::Receiver<Wish>, happenings: Sender<Happening>) {
    let told = happenings.clone();
    let stopped = async {
        // Without handlers signals end us where we stand.
        let Ok(mut stop) = StopSignals::new() else { return std::future::pending().await };
        let (Ok(mut hangup), Ok(mut continued)) =
            (signal(SignalKind::hangup()), signal(SignalKind::from_raw(libc::SIGCONT)))
        else {
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                _ = stop.received() => return,
                _ = hangup.recv() => return,
                _ = continued.recv() => drop(happenings.send(Happening::Continued)),
            }
        }
    };
    tokio::select! {
        () = follow(source, wished, |news| told.send(Happening::News(news)).is_ok()) => {}
        () = stopped => {
            drop(told.send(Happening::Stop));
            tokio::time::sleep(LAST_WAIT).await;
            // Whoever draws waits for a terminal that takes nothing more.
            std::process::exit(1);
        }
    }
}

/// Waits for keys until there is no keyboard any more.
fn listen(happenings: &Sender<Happening>) {
    loop {
        let happening = event::read().map_or(Happening::Stop, Happening::Input);
        let last = matches!(happening, Happening::Stop);
        if happenings.send(happening).is_err() || last {
            return;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
