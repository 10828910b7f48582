//! Everybody who takes steps out of a queue, on one loop in a thread of its own,
//! so that neither a slow disk nor a receiver delays anything else.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Threads for names and the queue's disk.
const BLOCKING_THREADS: usize = 8;

/// One of them: runs until it is told to stop and what it has is done.
pub type Hand = Pin<Box<dyn Future<Output = ()> + Send>>;

/// See the module.
#[derive(Debug)]
pub struct Crew {
    thread: JoinHandle<()>,
    stop: watch::Sender<bool>,
    drain: Duration,
}

impl Crew {
    /// Starts those that `hands` makes, given the wish to stop; after one they have
    /// the time `drain`.
    ///
    /// # Errors
    /// There is no loop or thread to be had.
    pub fn start(
        hands: impl FnOnce(&watch::Receiver<bool>) -> Vec<Hand>,
        drain: Duration,
    ) -> io::Result<Crew> {
        let (stop, stopped) = watch::channel(false);
        let hands = hands(&stopped);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        let run = move || {
            runtime.block_on(all(hands, stopped, drain));
            // What hangs in there hangs in a resolver or on a disk.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("push".to_owned()).spawn(run)?;
        Ok(Crew { thread, stop, drain })
    }

    /// Ends once what is queued is sent, or the time for that is over.
    pub fn finish(self) {
        // Those that are gone need no telling.
        let _ = self.stop.send(true);
        wait(&self.thread, self.drain + Duration::from_secs(1));
    }
}

/// Waits for the end of a thread, so long at most.
pub fn wait(thread: &JoinHandle<()>, at_most: Duration) {
    let end = Instant::now() + at_most;
    while !thread.is_finished() && Instant::now() < end {
        thread::park_timeout(Duration::from_millis(5));
    }
}

async fn all(hands: Vec<Hand>, stop: watch::Receiver<bool>, drain: Duration) {
    let mut running = tokio::task::JoinSet::new();
    for hand in hands {
        running.spawn(hand);
    }
    let mut stopped = stop;
    // Whoever could ask for a stop is gone: the same.
    let _ = stopped.wait_for(|stop| *stop).await;
    let all = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, all).await.is_err() {
        tracing::warn!(after = ?drain, "steps that were not sent yet stay in the queue");
    }
}
