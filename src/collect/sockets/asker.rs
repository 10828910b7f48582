//! The thread that has sockets listed, namespace by namespace.
//!
//! A list costs some 15 µs and 0.4 µs for each socket, and a namespace other than the
//! agent's has to be entered for it, so it is neither made by the reader's thread nor in
//! each tick: every ten seconds, and more seldom where a round took long, so that it takes
//! a fiftieth of one core at most. Ticks pick up the last answers.
//!
//! Without CAP_SYS_ADMIN and CAP_SYS_PTRACE only the agent's own namespace is told, which
//! is the host's where the agent is on the host's network.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nix::sys::stat::fstat;

use super::{Namespace, Place};
use crate::kernel::sock_diag::{Refused, SockDiag, Wanted};
use crate::kernel::{ReadError, file};
use crate::snapshot::SocketStates;

/// How often sockets are listed.
const PERIOD: Duration = Duration::from_secs(10);

/// A round is followed by so many times its length without one.
const REST: u32 = 49;

type Answers = HashMap<Place, SocketStates>;

/// The way to the thread.
#[derive(Debug)]
pub(in crate::collect) struct Asker {
    places: Sender<Vec<Place>>,
    answers: Arc<ArcSwap<Answers>>,
    known: Vec<Place>,
    now: Vec<Place>,
}

impl Asker {
    /// Starts it; `None` where there can be no such thread.
    pub(super) fn start(proc: &Path, wanted: Wanted) -> Option<Asker> {
        let (places, receiver) = channel();
        let answers: Arc<ArcSwap<Answers>> = Arc::default();
        let (proc, told) = (proc.to_path_buf(), Arc::clone(&answers));
        let run = move || match SockDiag::new(&proc) {
            Ok(diag) => Worker { diag, proc, wanted, told, denied: false }.run(&receiver),
            Err(error) => tracing::info!(%error, "own network namespace not seen: sockets have no states"),
        };
        thread::Builder::new().name("sockets".to_owned()).spawn(run).ok()?;
        Some(Asker { places, answers, known: Vec::new(), now: Vec::new() })
    }

    /// Says which namespaces there are.
    pub(super) fn ask(&mut self, places: impl Iterator<Item = Place>) {
        self.now.clear();
        self.now.extend(places);
        self.now.sort_unstable();
        if self.now != self.known {
            self.known.clone_from(&self.now);
            // A worker that ended has said so; its figures stay absent.
            let _ = self.places.send(self.now.clone());
        }
    }

    /// What was told of a namespace last.
    pub(super) fn answer(&self, place: Place) -> Option<SocketStates> {
        self.answers.load().get(&place).copied()
    }
}

struct Worker {
    diag: SockDiag,
    proc: PathBuf,
    wanted: Wanted,
    told: Arc<ArcSwap<Answers>>,
    /// Whether it has been said that other namespaces cannot be entered.
    denied: bool,
}

/// The round cannot be finished, nor another one.
struct Stop;

impl Worker {
    fn run(mut self, places: &Receiver<Vec<Place>>) {
        let mut current = Vec::new();
        let mut due = Instant::now() + Duration::from_secs(3600);
        loop {
            match places.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(first) => {
                    // New ones wait for the next turn, but the first answers come at once.
                    let is_start = current.is_empty();
                    current = places.try_iter().last().unwrap_or(first);
                    if !is_start && Instant::now() < due {
                        continue;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let began = Instant::now();
            match self.round(&current) {
                Ok(answers) => self.told.store(Arc::new(answers)),
                Err(Stop) => {
                    self.told.store(Arc::default());
                    return;
                }
            }
            due = began + PERIOD.max(began.elapsed() * REST);
        }
    }

    /// The namespace of this thread, as the reader tells them apart.
    fn own(&self) -> Result<Namespace, ReadError> {
        let fd = file::open(&self.proc.join("thread-self/net/dev"))?;
        let stat = fstat(fd.as_fd()).map_err(ReadError::from)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    fn round(&mut self, places: &[Place]) -> Result<Answers, Stop> {
        let own = self.own().ok();
        let mut answers = Answers::with_capacity(places.len());
        for place in places {
            let asked = if own == Some(place.namespace) {
                self.diag.here(self.wanted).map_err(Refused::There)
            } else {
                self.diag.there(&self.proc.join(place.pid.to_string()), self.wanted)
            };
            match asked {
                Ok(states) => {
                    answers.insert(*place, states);
                }
                Err(Refused::There(ReadError::Gone)) => {}
                Err(Refused::There(ReadError::Unsupported)) => {
                    tracing::info!("this kernel lists no sockets over netlink: they have no states");
                    return Err(Stop);
                }
                Err(Refused::There(error)) => {
                    if !self.denied {
                        tracing::info!(%error, "only the own network namespace tells the states of its sockets");
                        self.denied = true;
                    }
                }
                Err(Refused::Astray(error)) => {
                    tracing::warn!(%error, "no way back to the own network namespace: sockets have no states");
                    return Err(Stop);
                }
            }
        }
        Ok(answers)
    }
}
