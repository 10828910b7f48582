//! The loop of one sink: next step, send, acknowledge, wait.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::backoff::Backoff;
use super::client::{Http, SendError};
use super::dead_letters::DeadLetters;
use super::desk::{Desk, Which};
use super::gate::Gate;
use super::pieces::{self, Progress};
use super::verdict::{Fault, Verdict};
use super::{First, MAX_BODY, Sink, Step, Timing, Unprepared};
use crate::push::batch::DecodeError;
use crate::push::log::{Log, Order, SinkName};
use crate::push::target::Target;
use crate::telemetry::push::{Rejected, Resent, SinkMetrics, Trouble};

/// Between two messages about the same trouble.
const TELL: Duration = Duration::from_secs(60);

/// Between two looks at what waits while nothing may be sent.
const LOOK: Duration = Duration::from_secs(5);

/// What a worker is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Where to.
    pub target: &'a Target,
    /// Out of which queue.
    pub log: Arc<Log>,
    /// Where refused items go; the log of messages without one.
    pub directory: Option<&'a Path>,
    /// The node's name, which spreads the nodes of a cluster over a step; empty for
    /// whoever sends for all.
    pub node: &'a str,
    /// What it counts.
    pub metrics: Arc<SinkMetrics>,
    /// Deadlines and waits.
    pub timing: Timing,
}

/// Sends steps to one sink.
pub struct Worker {
    sink: Box<dyn Sink>,
    name: SinkName,
    resolution_ms: u64,
    /// How long after its moment a step is sent.
    offset: Duration,
    http: Http,
    log: Arc<Log>,
    metrics: Arc<SinkMetrics>,
    timing: Timing,
    letters: DeadLetters,
    backoff: Backoff,
    prepared: bool,
    /// Whether the sink knows the step before, or never will.
    reminded: bool,
    /// Largest body that is begun.
    limit: usize,
    progress: Progress,
    desk: Arc<Desk>,
    seat: u64,
    trouble: Option<Told>,
    gate: Gate,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Since when it fails, and when that was last said.
#[derive(Debug)]
struct Told {
    since: Instant,
    last: Instant,
}

/// Why a step was not sent now.
struct Failed {
    trouble: Trouble,
    message: String,
    wait: Duration,
}

impl Worker {
    /// A worker that has sent nothing yet.
    pub fn new(sink: Box<dyn Sink>, name: SinkName, parts: Parts<'_>) -> Worker {
        let Parts { target, log, directory, node, metrics, timing } = parts;
        Worker {
            http: Http::new(target, sink.token_scheme(), timing.clone()),
            letters: DeadLetters::new(directory, &target.name),
            backoff: Backoff::new(timing.retry_min, timing.retry_max),
            resolution_ms: u64::try_from(target.resolution.as_millis()).unwrap_or(u64::MAX).max(1),
            offset: offset(node, target.resolution),
            reminded: !sink.compares(),
            sink,
            name,
            log,
            metrics,
            timing,
            prepared: false,
            limit: MAX_BODY,
            progress: Progress::new(0),
            desk: Arc::default(),
            seat: 0,
            trouble: None,
            gate: Gate::default(),
        }
    }

    /// The same, at one desk with the other workers of the same queue.
    #[must_use]
    pub fn at(self, desk: &Arc<Desk>) -> Worker {
        Worker { desk: Arc::clone(desk), seat: desk.seat(), ..self }
    }

    /// The same, but nothing is sent while the gate is closed.
    #[must_use]
    pub fn behind(self, gate: Gate) -> Worker {
        Worker { gate, ..self }
    }

    /// Sends until `stop` turns true; then what is queued, until it is sent or
    /// fails. A queue in memory has no later: for it failures are retried, until
    /// whoever waits for this gives up.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut more = self.log.subscribe();
        self.log.tell(&self.name, &self.metrics);
        loop {
            let stopping = *stop.borrow();
            more.mark_unchanged();
            let next = self.next().await;
            if !self.gate.is_open() {
                if stopping {
                    return;
                }
                // Meanwhile others may have it sent.
                self.progress.sequence = 0;
                tokio::select! {
                    () = self.gate.opened() => {}
                    () = tokio::time::sleep(LOOK) => {}
                    _ = stopped(&mut stop) => {}
                }
                continue;
            }
            let wait = match next {
                Ok(Some(step)) => {
                    let gate = self.gate.clone();
                    let handled = tokio::select! {
                        handled = self.handle(&step, &mut stop) => handled,
                        () = gate.closed() => continue,
                    };
                    match handled {
                        Ok(()) => continue,
                        Err(failed) => self.note(failed),
                    }
                }
                Ok(None) if stopping => return,
                Ok(None) => {
                    tokio::select! {
                        // A queue that is closed has no more, ever.
                        changed = more.changed() => if changed.is_err() { return },
                        _ = stopped(&mut stop) => {}
                    }
                    continue;
                }
                Err(message) => {
                    let wait = self.backoff.wait();
                    self.note(Failed { trouble: Trouble::Queue, message, wait })
                }
            };
            if stopping {
                if self.log.is_durable() {
                    return;
                }
                tokio::time::sleep(wait).await;
            } else {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stopped(&mut stop) => {}
                }
            }
        }
    }

    async fn handle(&mut self, step: &Step, stop: &mut watch::Receiver<bool>) -> Result<(), Failed> {
        if step.time_ms.is_multiple_of(self.resolution_ms) {
            tokio::select! {
                () = tokio::time::sleep(self.until_due(step)) => {}
                () = stopped(stop) => {}
            }
            self.send(step).await?;
            self.metrics.step_done();
        }
        self.acknowledge(step.sequence).await?;
        self.backoff.reset();
        if let Some(told) = self.trouble.take() {
            tracing::info!(sink = %self.name, after = ?told.since.elapsed(), "sending again");
        }
        if self.sink.has_forgotten() {
            self.refill().await?;
        }
        Ok(())
    }

    /// Time to the moment a new step is sent; none for an old one. A clock that
    /// was set back makes nobody wait longer than ever.
    fn until_due(&self, step: &Step) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let due = Duration::from_millis(step.time_ms) + self.offset;
        due.saturating_sub(now).min(self.offset)
    }

    /// Sends what is left of a step.
    async fn send(&mut self, step: &Step) -> Result<(), Failed> {
        self.remind(step).await;
        let _at_work = self.desk.work();
        if self.progress.sequence != step.sequence {
            self.progress = Progress::new(step.sequence);
        }
        loop {
            if self.progress.pieces.is_empty() {
                let Some(from) = self.progress.next else { return Ok(()) };
                (self.progress.from, self.progress.limit) = (from, self.limit);
                let filled = self.with_body(step, |sink, progress, _, body| progress.fill(sink, body));
                if let Err(error) = filled {
                    self.unreadable(step, &error);
                }
            } else {
                self.prepare().await?;
                self.piece(step).await?;
            }
        }
    }

    /// Shows the sink the step that a process before this one sent it last, once.
    async fn remind(&mut self, step: &Step) {
        if std::mem::replace(&mut self.reminded, true) {
            return;
        }
        let (log, name) = (Arc::clone(&self.log), self.name.clone());
        let (sequence, resolution_ms) = (step.sequence, self.resolution_ms);
        let before = move || log.sent_before(&name, sequence, resolution_ms).map_err(|e| e.to_string());
        match blocking(before).await {
            Ok(Some(before)) => {
                let step = Step::new(before.sequence, before.time_ms, before.payload);
                self.sink.remember(&step.at(Arc::clone(&self.desk)));
            }
            Ok(None) => {}
            // What has gone then ends by itself, five minutes later.
            Err(error) => tracing::warn!(sink = %self.name, error, "the step before cannot be read"),
        }
    }

    /// Does something with the body that is being sent, which is encoded again where another took its room.
    fn with_body<R>(
        &mut self,
        step: &Step,
        work: impl FnOnce(&mut dyn Sink, &mut Progress, &Http, &[u8]) -> R,
    ) -> Result<R, DecodeError> {
        let Worker { desk, seat, sink, progress, http, .. } = self;
        let Progress { sequence, from, limit, .. } = *progress;
        let mut body = desk.body();
        let encoded = body.hold(Which { seat: *seat, sequence, from, limit }, |bytes| {
            sink.encode(step, from, limit, bytes)
        })?;
        if let Some(next) = encoded {
            progress.next = next;
        }
        Ok(work(sink.as_mut(), progress, http, body.bytes()))
    }

    /// Nobody could ever read a step; the others are not held up.
    fn unreadable(&mut self, step: &Step, error: &DecodeError) {
        self.metrics.rejected(Rejected::Unreadable, 1);
        let said = error.to_string();
        self.letters.bury(&format!("step {}", step.sequence), 1, Rejected::Unreadable, &said);
        self.progress.end();
    }

    async fn prepare(&mut self) -> Result<(), Failed> {
        if self.prepared {
            return Ok(());
        }
        match self.sink.prepare(&mut self.http).await {
            Ok(()) => {
                self.prepared = true;
                Ok(())
            }
            Err(Unprepared::Send(error)) => Err(self.unsent(&error)),
            Err(Unprepared::Answer(answer)) => {
                let message = format!("preparing: {} {}", answer.status, answer.text());
                Err(self.failed(super::verdict::by_status(&answer), answer.status, message))
            }
        }
    }

    /// Sends the first piece, and does what the answer says.
    async fn piece(&mut self, step: &Step) -> Result<(), Failed> {
        let made = self.with_body(step, |sink, progress, http, body| {
            let items = progress.piece(body)?;
            Some((sink.request(http, items), items.len(), pieces::values(sink, items)))
        });
        let (outgoing, length, values) = match made {
            Ok(Some(made)) => made,
            Ok(None) => {
                self.progress.pop();
                return Ok(());
            }
            Err(error) => {
                self.unreadable(step, &error);
                return Ok(());
            }
        };
        if self.progress.pieces.len() < 2 {
            // A last piece seldom needs a second look.
            self.desk.body().free();
        }
        let bytes = u64::try_from(outgoing.body.len()).unwrap_or(u64::MAX);
        let begun = Instant::now();
        let sent = self.http.send(outgoing).await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => return Err(self.unsent(&error)),
        };
        self.metrics.answered(begun.elapsed());
        let verdict = self.sink.judge(&answer);
        match verdict {
            Verdict::Taken => {
                self.metrics.taken(values, bytes);
                self.progress.pop();
                Ok(())
            }
            Verdict::TakenExcept { lost, why } => {
                let lost = lost.unwrap_or(1).min(values);
                self.metrics.taken(values - lost, bytes);
                self.refuse(step, lost, why, &answer.text());
                Ok(())
            }
            Verdict::Split => {
                self.limit = self.limit.min(pieces::lowered(length));
                self.halves(step, values, Rejected::TooLarge, &answer.text());
                Ok(())
            }
            Verdict::Unacceptable(why) => {
                self.halves(step, values, why, &answer.text());
                Ok(())
            }
            other => Err(self.failed(other, answer.status, answer.text())),
        }
    }

    /// Sends the first piece, of so many values, in halves, or gives it up.
    fn halves(&mut self, step: &Step, values: u64, why: Rejected, said: &str) {
        match self.with_body(step, |sink, progress, _, body| progress.split(sink, body)) {
            Ok(true) => self.metrics.resent(Resent::Halves, 2),
            Ok(false) => self.refuse(step, values, why, said),
            Err(error) => self.unreadable(step, &error),
        }
    }

    /// Counts and records values of the first piece that are refused for good, and is done with it.
    fn refuse(&mut self, step: &Step, values: u64, why: Rejected, said: &str) {
        self.metrics.rejected(why, values);
        let shown = self.with_body(step, |sink, progress, _, body| {
            progress.piece(body).map(|items| sink.show(pieces::first(sink, items).0))
        });
        if let Ok(Some(item)) = shown {
            self.letters.bury(&item, values, why, said);
        }
        self.progress.pop();
    }

    fn unsent(&mut self, error: &SendError) -> Failed {
        let trouble = error.trouble();
        let wait = match trouble {
            Trouble::Credentials => self.backoff.jittered(self.timing.slow),
            _ => self.backoff.wait(),
        };
        Failed { trouble, message: error.to_string(), wait }
    }

    fn failed(&mut self, verdict: Verdict, status: u16, said: String) -> Failed {
        let (trouble, cure, wait) = match verdict {
            Verdict::Misconfigured(fault) => {
                let trouble = match fault {
                    Fault::Credentials => Trouble::Credentials,
                    Fault::Redirect | Fault::Address => Trouble::Address,
                };
                (trouble, Some(fault.cure()), self.backoff.jittered(self.timing.slow))
            }
            Verdict::Unprepared => {
                self.prepared = false;
                (Trouble::Unprepared, None, self.backoff.wait())
            }
            Verdict::Later { after } => {
                let trouble = if status == 429 { Trouble::Throttled } else { Trouble::Server };
                let wait = self.backoff.wait();
                // Those who were told the same moment do not come back together.
                let asked = after.map(|after| after + self.backoff.jittered(self.timing.retry_min));
                (trouble, None, asked.unwrap_or(wait))
            }
            // While preparing: what else there is has no better word.
            _ => (Trouble::Server, None, self.backoff.wait()),
        };
        let message = match cure {
            Some(cure) => format!("{status} {said}; {cure}"),
            None => format!("{status} {said}"),
        };
        Failed { trouble, message, wait }
    }

    /// Counts a failure, and says it once and then every minute.
    fn note(&mut self, failed: Failed) -> Duration {
        let Failed { trouble, message, wait } = failed;
        self.metrics.retried(trouble);
        let now = Instant::now();
        let told = self.trouble.get_or_insert(Told { since: now, last: now });
        if told.since == now || told.last.elapsed() >= TELL {
            told.last = now;
            let since = told.since.elapsed();
            tracing::warn!(sink = %self.name, reason = trouble.name(), error = message, retry_in = ?wait, ?since, "cannot send");
        }
        wait
    }

    /// The next step; what waits is counted on the way.
    async fn next(&self) -> Result<Option<Step>, String> {
        let order = match self.sink.first() {
            First::Oldest => Order::OldestFirst,
            First::Newest => Order::NewestFirst,
        };
        let (log, name, metrics) = (Arc::clone(&self.log), self.name.clone(), Arc::clone(&self.metrics));
        blocking(move || {
            let records = log.next(&name, order, 1).map_err(|e| e.to_string())?;
            let status = log.status(&name).map_err(|e| e.to_string())?;
            metrics.queued(status.into());
            Ok(records.into_iter().next().map(|r| Step::new(r.sequence, r.time_ms, r.payload)))
        })
        .await
        .map(|step| step.map(|step| step.at(Arc::clone(&self.desk))))
    }

    async fn acknowledge(&mut self, sequence: u64) -> Result<(), Failed> {
        let (log, name) = (Arc::clone(&self.log), self.name.clone());
        let done = blocking(move || log.acknowledge(&name, &[sequence]).map_err(|e| e.to_string())).await;
        done.map_err(|message| Failed { trouble: Trouble::Queue, message, wait: self.backoff.wait() })
    }

    async fn refill(&mut self) -> Result<(), Failed> {
        let (log, name) = (Arc::clone(&self.log), self.name.clone());
        let steps = blocking(move || log.refill(&name).map_err(|e| e.to_string())).await;
        let steps = steps.map_err(|message| Failed {
            trouble: Trouble::Queue,
            message,
            wait: self.backoff.wait(),
        })?;
        if steps > 0 {
            self.metrics.resent(Resent::Refill, steps);
            tracing::info!(sink = %self.name, steps, "the aggregator has started again; sending once more what is kept");
        }
        Ok(())
    }
}

/// Runs what may wait for a disk away from the loop all sinks share.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(error.to_string()),
    }
}

/// Waits until a stop is asked for, also when whoever could ask is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A closed channel leaves nobody to wait for.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Where in a step a node sends: the same place each time, different nodes in
/// different places, at most a quarter of the step and 10 s.
fn offset(node: &str, resolution: Duration) -> Duration {
    let most = (resolution / 4).min(Duration::from_secs(10));
    if node.is_empty() {
        return Duration::ZERO;
    }
    let thousandths = u32::try_from(super::hash(node.bytes()) % 1000).unwrap_or(0);
    most / 1000 * thousandths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_spread_over_a_quarter_of_the_step() {
        let minute = Duration::from_secs(60);
        let offsets: Vec<_> = (0..1000).map(|n| offset(&format!("node-{n}"), minute)).collect();
        assert!(offsets.iter().all(|o| *o <= Duration::from_secs(10)));
        for tenth in 0..10 {
            let range = Duration::from_secs(tenth)..Duration::from_secs(tenth + 1);
            let share = offsets.iter().filter(|o| range.contains(*o)).count();
            assert!((50..200).contains(&share), "{share} of 1000 nodes in second {tenth}");
        }
        assert!(offset("node-1", Duration::from_secs(1)) <= Duration::from_millis(250));
        assert_eq!(offset("node-1", minute), offset("node-1", minute));
    }
}
