//! The clock of one connection: how long it may take to ask, to read, to idle.
//!
//! hyper has one deadline for a request's head, which it also applies to the
//! silence between two requests: a scraper that comes every 15 s would then
//! have to connect anew each time. So the deadlines are kept here, around the
//! socket, and the HTTP side tells only when it is answering.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// From accepting, or from the first byte of a later request, to the end of
    /// the request's head.
    pub head: Duration,
    /// Between an answer and the next request.
    pub idle: Duration,
    /// Without any progress while an answer is sent.
    pub stall: Duration,
    /// From the start to the end of an answer.
    pub answer: Duration,
}

/// What a connection's two sides, socket and HTTP, tell each other.
#[derive(Debug, Clone, Default)]
pub struct Activity(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    answering: AtomicBool,
    cut: AtomicBool,
    /// Who waits to read while a request is answered. It must hear of the end:
    /// the time for the next request begins then.
    reader: Mutex<Option<Waker>>,
}

impl Shared {
    fn reader(&self) -> MutexGuard<'_, Option<Waker>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Activity {
    /// A request came; it is being answered until the guard is dropped.
    pub fn begin(&self) -> Answering {
        self.0.answering.store(true, Relaxed);
        Answering(Arc::clone(&self.0))
    }

    /// Whether a deadline ended the connection, other than that of idling.
    pub fn was_cut(&self) -> bool {
        self.0.cut.load(Relaxed)
    }

    fn answering(&self) -> bool {
        self.0.answering.load(Relaxed)
    }
}

/// See [`Activity::begin`].
#[derive(Debug)]
pub struct Answering(Arc<Shared>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.store(false, Relaxed);
        let reader = self.0.reader().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Answering {
    /// Ties the guard to a body: the answer ends with it.
    pub fn until_end_of(self, body: Body) -> Body {
        Body::new(GuardedBody { body, _answering: self })
    }
}

struct GuardedBody {
    body: Body,
    _answering: Answering,
}

impl HttpBody for GuardedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The rest of a request's head, or all of the first one.
    Head,
    /// Nothing: an answer is being made or sent.
    Answer,
    /// The next request.
    Idle,
}

/// A point in time at which waiting ends, set again and again.
#[derive(Debug, Default)]
struct Deadline {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl Deadline {
    fn arm(&mut self, at: Instant) {
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
        }
        self.armed = true;
    }

    fn disarm(&mut self) {
        self.armed = false;
    }

    fn poll_passed(&mut self, cx: &mut Context<'_>) -> bool {
        self.armed && self.sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready())
    }
}

/// A socket whose reads and writes fail with [`io::ErrorKind::TimedOut`] when a
/// deadline passes.
#[derive(Debug)]
pub struct Timed<S> {
    stream: S,
    activity: Activity,
    deadlines: Deadlines,
    phase: Phase,
    read: Deadline,
    write: Deadline,
    /// When the answer now being sent was begun.
    answer_began: Option<Instant>,
}

impl<S> Timed<S> {
    /// Starts the clock of a connection just accepted.
    pub fn new(stream: S, activity: Activity, deadlines: Deadlines) -> Self {
        let mut read = Deadline::default();
        read.arm(Instant::now() + deadlines.head);
        Timed {
            stream,
            activity,
            deadlines,
            phase: Phase::Head,
            read,
            write: Deadline::default(),
            answer_began: None,
        }
    }

    /// Follows the HTTP side from one phase to the next.
    fn observe(&mut self) {
        match (self.activity.answering(), self.phase) {
            (true, Phase::Head | Phase::Idle) => {
                self.phase = Phase::Answer;
                self.read.disarm();
                self.answer_began = Some(Instant::now());
            }
            (false, Phase::Answer) => {
                self.phase = Phase::Idle;
                self.read.arm(Instant::now() + self.deadlines.idle);
            }
            _ => {}
        }
    }

    /// The result of a write, or the end of the connection's time for it.
    fn written<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write.disarm();
            return result;
        }
        if !self.write.armed {
            let stalled = Instant::now() + self.deadlines.stall;
            let too_long = self.answer_began.map(|at| at + self.deadlines.answer);
            self.write.arm(too_long.map_or(stalled, |at| at.min(stalled)));
        }
        if self.write.poll_passed(cx) { Poll::Ready(Err(self.cut())) } else { Poll::Pending }
    }

    fn cut(&self) -> io::Error {
        self.activity.0.cut.store(true, Relaxed);
        io::ErrorKind::TimedOut.into()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.observe();
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buffer) {
            Poll::Pending if this.phase == Phase::Answer => {
                *this.activity.0.reader() = Some(cx.waker().clone());
                // The answer may have ended on another thread since.
                if !this.activity.answering() {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
            Poll::Pending if this.read.poll_passed(cx) => Poll::Ready(Err(match this.phase {
                Phase::Idle => io::ErrorKind::TimedOut.into(),
                Phase::Head | Phase::Answer => this.cut(),
            })),
            Poll::Ready(Ok(())) if buffer.filled().len() > before && this.phase == Phase::Idle => {
                this.phase = Phase::Head;
                this.read.arm(Instant::now() + this.deadlines.head);
                Poll::Ready(Ok(()))
            }
            result => result,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.observe();
        let result = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.written(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.observe();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let result = Pin::new(&mut this.stream).poll_flush(cx);
        this.written(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let result = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.written(cx, result)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    const DEADLINES: Deadlines = Deadlines {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(120),
        stall: Duration::from_secs(30),
        answer: Duration::from_secs(100),
    };

    /// Runs `test` on a clock that jumps to the next deadline when all wait.
    fn check<F: Future<Output = ()>>(test: impl FnOnce(Timed<DuplexStream>, DuplexStream, Activity) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let (near, far) = tokio::io::duplex(64);
            let activity = Activity::default();
            test(Timed::new(near, activity.clone(), DEADLINES), far, activity).await;
        });
    }

    async fn read_ends_after(timed: &mut Timed<DuplexStream>, expected: u64) {
        let began = Instant::now();
        loop {
            match timed.read(&mut [0; 8]).await {
                Ok(0) => panic!("closed"),
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                    assert_eq!(began.elapsed().as_secs(), expected);
                    return;
                }
            }
        }
    }

    #[test]
    fn a_head_that_trickles_is_cut() {
        check(|mut timed, mut far, _activity| async move {
            let trickle = tokio::spawn(async move {
                while far.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
            read_ends_after(&mut timed, 10).await;
            drop(timed);
            trickle.await.unwrap();
        });
    }

    #[test]
    fn answering_has_no_read_deadline_and_idling_a_longer_one() {
        check(|mut timed, mut far, activity| async move {
            let answering = activity.begin();
            let long = tokio::time::timeout(Duration::from_secs(3600), timed.read(&mut [0; 8])).await;
            assert!(long.is_err(), "cut while answering: {long:?}");
            // The end of the answer reaches a read that is under way.
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(7)).await;
                drop(answering);
            });
            read_ends_after(&mut timed, 127).await;
            assert!(!activity.was_cut(), "idling is no offence");
            // A later request has its own time for the head.
            let mut timed = Timed { phase: Phase::Idle, ..timed };
            far.write_all(b"G").await.unwrap();
            read_ends_after(&mut timed, 10).await;
            assert!(activity.was_cut());
        });
    }

    #[test]
    fn a_reader_that_stops_is_cut() {
        check(|mut timed, far, activity| async move {
            let _answering = activity.begin();
            let began = Instant::now();
            let error = timed.write_all(&[0; 100]).await.unwrap_err();
            assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 30));
            drop(far);
        });
    }

    #[test]
    fn a_reader_that_trickles_is_cut_in_the_end() {
        check(|mut timed, mut far, activity| async move {
            let _answering = activity.begin();
            let slow = tokio::spawn(async move {
                while far.read(&mut [0; 1]).await.is_ok_and(|n| n > 0) {
                    tokio::time::sleep(Duration::from_secs(20)).await;
                }
            });
            let began = Instant::now();
            let error = timed.write_all(&[0; 1000]).await.unwrap_err();
            assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 100));
            drop(timed);
            slow.await.unwrap();
        });
    }
}
