//! Answers that carry metrics: rendered off the event loop, sent in pieces.
//!
//! A compressed body is made once per snapshot and text and shared by all who
//! ask for it; it goes when a newer snapshot is there and nobody sends it any
//! more. An identity body is written while it is sent, through a channel of a
//! few chunks, so that ten megabytes of text never lie in memory. Neither holds
//! a snapshot longer than it renders: the reader thread uses old ones again.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Bytes, HttpBody};
use flate2::Compression;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{Semaphore, mpsc, watch};

use super::{Format, Options, Renderer, View};
use crate::gzip::Gzip;
use crate::snapshot::{Departed, Kinds, KubeletLabels, Snapshot};
use crate::telemetry::Telemetry;

/// Renders that may wait for their clients, and those that never wait because
/// they write to memory. Apart, so that slow readers of identity bodies cannot
/// keep everybody else from being served; four together.
const STREAMS: usize = 3;
const COMPRESSIONS: usize = 1;

/// Of 4.8 MB of 300 containers in pods level 1 makes 1.04 MB in 17 ms, level 2 0.67 MB in 23 ms,
/// and higher ones take longer for little.
const LEVEL: Compression = Compression::new(2);

/// Size of the pieces of a compressed body.
const CHUNK: usize = 64 << 10;

/// Chunks between a render and its client.
const IN_FLIGHT: usize = 2;

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoBody {
    /// As many renders run as may.
    #[error("busy with other scrapes")]
    Busy,
    /// The render failed, which is a fault of ours.
    #[error("rendering failed")]
    Failed,
}

/// Makes bodies.
#[derive(Debug)]
pub struct Bodies {
    timestamps: bool,
    telemetry: Arc<Telemetry>,
    streams: Arc<Semaphore>,
    compressions: Arc<Semaphore>,
    cache: Mutex<Vec<Cached>>,
    renderers: Mutex<Vec<Renderer>>,
}

/// A compressed body, there or under way.
#[derive(Debug)]
struct Cached {
    sequence: u64,
    text: Text,
    body: watch::Receiver<Option<Arc<Compressed>>>,
}

/// A gzip member in pieces.
#[derive(Debug)]
pub struct Compressed {
    chunks: Vec<Bytes>,
    len: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What they protect is whole at any time: a panic elsewhere changes nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which part of a text; by default all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// The families with these names.
    pub names: Option<Vec<String>>,
    /// The containers that this runtime runs, and the machine.
    pub runtime: Option<&'static str>,
}

/// Which text of a snapshot: both OpenMetrics formats are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    /// OpenMetrics, or the older text.
    pub openmetrics: bool,
    /// Which rows.
    pub view: View,
    /// Which kinds of families.
    pub kinds: Kinds,
}

impl Text {
    /// How it is called in own metrics.
    pub fn format_label(self) -> &'static str {
        if self.openmetrics { "openmetrics" } else { "text" }
    }
}

impl Bodies {
    /// No bodies yet.
    pub fn new(timestamps: bool, telemetry: Arc<Telemetry>) -> Arc<Self> {
        Arc::new(Bodies {
            timestamps,
            telemetry,
            streams: Arc::new(Semaphore::new(STREAMS)),
            compressions: Arc::new(Semaphore::new(COMPRESSIONS)),
            cache: Mutex::default(),
            renderers: Mutex::default(),
        })
    }

    /// Drops compressed bodies of snapshots older than `sequence`.
    pub fn drop_older(&self, sequence: u64) {
        lock(&self.cache).retain(|c| c.sequence >= sequence);
    }

    /// The compressed text of `snapshot`, or of a newer one if that is there.
    ///
    /// # Errors
    /// [`NoBody::Failed`].
    pub async fn compressed(
        self: &Arc<Self>,
        snapshot: Arc<Snapshot>,
        text: Text,
    ) -> Result<Arc<Compressed>, NoBody> {
        let mut body = self.cached(snapshot, text);
        let done = body.wait_for(Option::is_some).await.ok().and_then(|body| body.clone());
        // The sender went without a body: the next one who asks tries again.
        done.ok_or_else(|| {
            lock(&self.cache).retain(|c| !c.body.same_channel(&body));
            NoBody::Failed
        })
    }

    /// The cache's entry, made and begun when there is none.
    fn cached(
        self: &Arc<Self>,
        snapshot: Arc<Snapshot>,
        text: Text,
    ) -> watch::Receiver<Option<Arc<Compressed>>> {
        let mut cache = lock(&self.cache);
        let found = cache.iter().find(|c| c.text == text && c.sequence >= snapshot.sequence);
        if let Some(found) = found {
            return found.body.clone();
        }
        let (sender, body) = watch::channel(None);
        cache.retain(|c| c.text != text);
        cache.push(Cached { sequence: snapshot.sequence, text, body: body.clone() });
        drop(cache);
        // A task of its own, so that a client who leaves does not take the body
        // from those who wait for it too.
        let bodies = Arc::clone(self);
        tokio::spawn(async move {
            let Ok(_permit) = bodies.compressions.clone().acquire_owned().await else { return };
            let made = tokio::task::spawn_blocking(move || bodies.compress(&snapshot, text)).await;
            match made {
                Ok(Ok(compressed)) => drop(sender.send(Some(Arc::new(compressed)))),
                Ok(Err(error)) => tracing::error!(%error, "compression failed"),
                Err(error) => tracing::error!(%error, "rendering panicked"),
            }
        });
        body
    }

    fn compress(&self, snapshot: &Snapshot, text: Text) -> io::Result<Compressed> {
        let began = Instant::now();
        let mut encoder = Gzip::new(Pieces::default(), LEVEL);
        self.render(snapshot, text, |chunk| encoder.write_all(chunk))?;
        let compressed = encoder.finish()?.finish();
        self.telemetry.rendered(text.format_label(), "gzip", began.elapsed());
        Ok(compressed)
    }

    /// The text of `snapshot`, written while it is sent; begun within `patience`.
    ///
    /// # Errors
    /// [`NoBody::Busy`].
    pub async fn streamed(
        self: &Arc<Self>,
        snapshot: Arc<Snapshot>,
        text: Text,
        patience: Duration,
    ) -> Result<Streamed, NoBody> {
        let permit = tokio::time::timeout(patience, self.streams.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return Err(NoBody::Busy) };
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let bodies = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let began = Instant::now();
            let mut waited = Duration::ZERO;
            let mut send = |piece| {
                let began = Instant::now();
                let sent = sender.blocking_send(piece).map_err(drop);
                waited += began.elapsed();
                sent
            };
            let rendered =
                bodies.render(&snapshot, text, |chunk| send(Piece::Text(Bytes::copy_from_slice(chunk))));
            // A client that left takes no more; that is its right.
            if rendered.is_ok() && send(Piece::End).is_ok() {
                let took = began.elapsed().saturating_sub(waited);
                bodies.telemetry.rendered(text.format_label(), "identity", took);
            }
        });
        Ok(Streamed { receiver, ended: false })
    }

    /// A part of it, written while it is sent.
    ///
    /// # Errors
    /// [`NoBody::Busy`].
    pub async fn part(
        self: &Arc<Self>,
        snapshot: Arc<Snapshot>,
        text: Text,
        part: Part,
        patience: Duration,
    ) -> Result<Streamed, NoBody> {
        let options = self.options(text);
        let write = move |feed: &mut Feed| {
            let mut renderer = Renderer::new(options);
            if let Some(names) = &part.names {
                renderer = renderer.only(&names.iter().map(String::as_str).collect::<Vec<_>>());
            }
            if let Some(runtime) = part.runtime {
                renderer = renderer.of_runtime(runtime);
            }
            renderer.render(&snapshot, |chunk| feed.write_all(chunk))
        };
        self.written(patience, write).await
    }

    fn options(&self, text: Text) -> Options {
        let Text { openmetrics, view, kinds } = text;
        let format = if openmetrics { Format::OpenMetrics } else { Format::Prometheus };
        Options { format, view, kinds, timestamps: self.timestamps }
    }

    /// What `write` writes, written while it is sent; begun within `patience`.
    ///
    /// # Errors
    /// [`NoBody::Busy`].
    pub async fn written<E: std::fmt::Display>(
        self: &Arc<Self>,
        patience: Duration,
        write: impl FnOnce(&mut Feed) -> Result<(), E> + Send + 'static,
    ) -> Result<Streamed, NoBody> {
        let permit = tokio::time::timeout(patience, self.streams.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return Err(NoBody::Busy) };
        let (mut feed, streamed) = Streamed::pipe();
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            // A client that left takes no more; that is its right.
            match write(&mut feed) {
                Ok(()) => drop(feed.finish()),
                Err(error) => tracing::debug!(%error, "answer broke off"),
            }
        });
        Ok(streamed)
    }

    /// Renders with one of the renderers kept, whose buffers are there already.
    fn render<E>(
        &self,
        snapshot: &Snapshot,
        text: Text,
        sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let options = self.options(text);
        let kept = {
            let mut renderers = lock(&self.renderers);
            let fitting = renderers.iter().position(|r| r.options() == options);
            fitting.map(|at| renderers.swap_remove(at))
        };
        let mut renderer = kept.unwrap_or_else(|| Renderer::new(options));
        let result = renderer.render(snapshot, sink);
        if result.is_ok() {
            let all = text.view == View::All;
            let had = |d: &&Arc<Departed>| all || d.last.cgroup.kubelet != KubeletLabels::NotShown;
            snapshot.lingering().filter(had).for_each(|departed| departed.shown.set());
        }
        let mut renderers = lock(&self.renderers);
        if renderers.len() < STREAMS + COMPRESSIONS {
            renderers.push(renderer);
        }
        result
    }
}

/// Collects what is written in pieces of [`CHUNK`] bytes, so that no buffer is
/// ever copied into a larger one.
#[derive(Debug, Default)]
struct Pieces {
    full: Vec<Bytes>,
    last: Vec<u8>,
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.last.capacity() == 0 {
            self.last.reserve_exact(CHUNK);
        }
        let room = CHUNK.saturating_sub(self.last.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.last.extend_from_slice(taken);
        if self.last.len() >= CHUNK {
            self.full.push(Bytes::from(std::mem::take(&mut self.last)));
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pieces {
    fn finish(mut self) -> Compressed {
        if !self.last.is_empty() {
            self.full.push(Bytes::copy_from_slice(&self.last));
        }
        let len = self.full.iter().map(|c| c.len() as u64).sum();
        Compressed { chunks: self.full, len }
    }
}

/// A shared compressed body on its way to one client.
#[derive(Debug)]
pub struct Sending {
    body: Arc<Compressed>,
    next: usize,
    left: u64,
}

impl From<Arc<Compressed>> for Sending {
    fn from(body: Arc<Compressed>) -> Self {
        Sending { left: body.len, next: 0, body }
    }
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(chunk) = self.body.chunks.get(self.next).cloned() else { return Poll::Ready(None) };
        self.next += 1;
        self.left -= chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[derive(Debug)]
enum Piece {
    Text(Bytes),
    End,
}

/// An identity body on its way to its client.
pub struct Streamed {
    receiver: mpsc::Receiver<Piece>,
    ended: bool,
}

impl Streamed {
    /// A body of unknown length and no content: what HEAD answers with.
    pub fn nothing() -> Self {
        let (_, receiver) = mpsc::channel(1);
        Streamed { receiver, ended: true }
    }

    /// A body, and its other end for a task.
    pub fn live() -> (Live, Streamed) {
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        (Live(sender), Streamed { receiver, ended: false })
    }

    /// A body, and what is written into it on another thread.
    pub fn pipe() -> (Feed, Streamed) {
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        (Feed { sender, chunk: Vec::with_capacity(CHUNK) }, Streamed { receiver, ended: false })
    }
}

/// The end of a body that comes piece by piece over a long time.
#[derive(Debug)]
pub struct Live(mpsc::Sender<Piece>);

impl Live {
    /// Sends a piece once there is room for it; false when the client has left.
    pub async fn send(&self, text: Vec<u8>) -> bool {
        self.0.send(Piece::Text(Bytes::from(text))).await.is_ok()
    }

    /// Waits until the client has left.
    pub async fn left(&self) {
        self.0.closed().await;
    }
}

/// The end of a body that is written into. It blocks while the client reads
/// slowly, and fails once it has left; a body that is not finished breaks off.
#[derive(Debug)]
pub struct Feed {
    sender: mpsc::Sender<Piece>,
    chunk: Vec<u8>,
}

impl Feed {
    fn send(&mut self, piece: Piece) -> io::Result<()> {
        self.sender.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Sends what is left and says that this was all.
    ///
    /// # Errors
    /// The client has left.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.send(Piece::End)
    }
}

impl io::Write for Feed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK.saturating_sub(self.chunk.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.chunk.extend_from_slice(taken);
        if self.chunk.len() >= CHUNK {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        self.send(Piece::Text(Bytes::from(chunk)))
    }
}

impl std::fmt::Debug for Streamed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streamed").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.receiver.poll_recv(cx).map(|piece| match piece {
            Some(Piece::Text(text)) => Some(Ok(Frame::data(text))),
            Some(Piece::End) => {
                self.ended = true;
                None
            }
            // Without its end the body must not look whole.
            None => Some(Err(io::Error::other("rendering broke off"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn pieces_are_one_gzip_member_of_the_stated_length() {
        // Numbers of a linear generator hardly compress: several pieces come out.
        let mut state = 1u32;
        let text: Vec<u8> = (0..300_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            })
            .collect();
        let mut encoder = Gzip::new(Pieces::default(), LEVEL);
        for part in text.chunks(70_000) {
            encoder.write_all(part).unwrap();
        }
        let compressed = encoder.finish().unwrap().finish();
        let whole = compressed.chunks.concat();
        assert_eq!(whole.len() as u64, compressed.len);
        assert!(compressed.chunks.len() > 2 && compressed.chunks.iter().all(|c| c.len() <= CHUNK));
        let mut decoder = flate2::bufread::GzDecoder::new(&whole[..]);
        let mut back = Vec::new();
        decoder.read_to_end(&mut back).unwrap();
        assert_eq!(back, text);
        assert!(decoder.into_inner().is_empty(), "more than one member");
    }

    #[test]
    fn a_stream_without_its_end_is_an_error() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (sender, receiver) = mpsc::channel(2);
            sender.send(Piece::Text(Bytes::from_static(b"a 1\n"))).await.unwrap();
            drop(sender);
            let mut body = axum::body::Body::new(Streamed { receiver, ended: false });
            let mut next = async || std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            assert!(next().await.is_some_and(|f| f.is_ok()));
            assert!(next().await.is_some_and(|f| f.is_err()));
        });
    }
}
