//! The model in a file, so that one that starts again answers before agents have
//! sent everything once more.
//!
//! ```text
//! head of 16 bytes: a skippable frame of zstd with the word and the version
//! one frame of zstd, with its checksum, of records: a letter, a length, a message
//!     H  resolution, newest closed slot and time of writing
//!     N  a node, each
//!     C  what programs pushed about one subject, each
//!     E  how many of these there were
//! ```
//!
//! It is written beside the one before and takes its place when it is whole and on the
//! disk, so that whoever is killed while writing leaves the old one. What is damaged or
//! of another version is not read in part: it is set aside and said.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prost::Message as _;
use thiserror::Error;

use super::custom::SavedSubject;
use super::model::{Model, SavedMember};

/// The version of the format written here, and the only one read.
pub const VERSION: u8 = 3;

const HEAD: [u8; 15] = *b"\x5e\x2a\x4d\x18\x08\0\0\0NGMODEL";

/// Level 1, as for batches.
const LEVEL: i32 = 1;

/// Bytes of a file: five thousand nodes take a fraction.
const MOST_BYTES: u64 = 2 << 30;

/// Bytes of a record; nodes of 2,000 containers take a fraction.
const MOST_RECORD: usize = 256 << 20;

/// What decompressing may take in memory, as a power of two: more than it was written with.
const WINDOW_LOG: u32 = 24;

/// Why there is no snapshot.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The system says so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is none, it ends too early, or something in it was changed.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Another version.
    #[error("has version {0} of the format, which is not known here; known is version {VERSION}")]
    Version(u8),
    /// It is whole, but not of this model.
    #[error("not of use: {0}")]
    Useless(&'static str),
    /// It took too long, or more room than it may.
    #[error("given up: {0}")]
    GivenUp(&'static str),
}

impl SnapshotError {
    /// Whether nothing will ever read the file.
    fn is_lasting(&self) -> bool {
        matches!(self, SnapshotError::Damaged(_) | SnapshotError::Version(_))
    }
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "1")]
    resolution_ms: u64,
    #[prost(uint64, tag = "2")]
    closed_ms: u64,
    #[prost(uint64, tag = "3")]
    written_ms: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct End {
    #[prost(uint64, tag = "1")]
    nodes: u64,
    #[prost(uint64, tag = "2")]
    subjects: u64,
}

/// What became of snapshots so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Written.
    pub written: AtomicU64,
    /// Not written.
    pub failed: AtomicU64,
    /// Bytes of the last one.
    pub bytes: AtomicU64,
    /// When it was written, milliseconds since the epoch; 0 before there is one.
    pub written_ms: AtomicU64,
    /// Nodes taken back at the start.
    pub restored: AtomicU64,
    /// Set aside at the start.
    pub set_aside: AtomicU64,
}

/// A path with something behind it.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Takes no more than it may, and not for longer.
struct Bounded<'a, W> {
    inner: W,
    written: u64,
    give_up: &'a dyn Fn() -> bool,
}

impl<W: Write> Write for Bounded<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written > MOST_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too large"));
        }
        if (self.give_up)() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let written = self.inner.write(bytes)?;
        self.written += u64::try_from(written).unwrap_or(u64::MAX);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn record(out: &mut impl Write, letter: u8, message: &impl prost::Message) -> io::Result<()> {
    let mut bytes = vec![letter];
    bytes.extend(u32::try_from(message.encoded_len()).map_err(io::Error::other)?.to_le_bytes());
    message.encode(&mut bytes).map_err(io::Error::other)?;
    out.write_all(&bytes)
}

/// Writes the model down at `now_ms`, unless it is told to `give_up` before; how many bytes it took.
///
/// # Errors
/// It cannot be written; the one before stays.
pub fn save(
    model: &Model,
    path: &Path,
    now_ms: u64,
    give_up: &dyn Fn() -> bool,
) -> Result<u64, SnapshotError> {
    let new = beside(path, ".new");
    let saved = write(model, &new, now_ms, give_up);
    let result = saved.and_then(|bytes| {
        fs::rename(&new, path)?;
        // The name has to be on the disk as well.
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir)?.sync_all()?;
        Ok(bytes)
    });
    result.map_err(|error| {
        let _ = fs::remove_file(&new);
        match error.kind() {
            io::ErrorKind::TimedOut => SnapshotError::GivenUp("it took too long"),
            io::ErrorKind::FileTooLarge => SnapshotError::GivenUp("it is larger than 2 GiB"),
            _ => SnapshotError::Io(error),
        }
    })
}

fn write(model: &Model, path: &Path, now_ms: u64, give_up: &dyn Fn() -> bool) -> io::Result<u64> {
    let file = BufWriter::new(File::create(path)?);
    let mut out = Bounded { inner: file, written: 0, give_up };
    out.write_all(&HEAD)?;
    out.write_all(&[VERSION])?;
    let mut packed = zstd::Encoder::new(out, LEVEL)?;
    packed.include_checksum(true)?;
    // Slots that close meanwhile are closed again by whoever reads it.
    let closed_ms = model.closed_ms().unwrap_or(0);
    record(
        &mut packed,
        b'H',
        &Header { resolution_ms: model.resolution_ms(), closed_ms, written_ms: now_ms },
    )?;
    let mut nodes = 0;
    model.save(|member| {
        nodes += 1;
        record(&mut packed, b'N', member)
    })?;
    let mut subjects = 0;
    model.customs().save(|subject| {
        subjects += 1;
        record(&mut packed, b'C', subject)
    })?;
    record(&mut packed, b'E', &End { nodes, subjects })?;
    let Bounded { inner, written, .. } = packed.finish()?;
    let file = inner.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(written)
}

/// Takes the model back from a file at `now_ms`, at most `most` nodes; how many there were, `None`
/// where there is no file. The model knows nothing before, nor if it cannot be read.
///
/// # Errors
/// It is not of use. What never will be was set aside, under its name and `.damaged`.
pub fn load(model: &Model, path: &Path, now_ms: u64, most: usize) -> Result<Option<u64>, SnapshotError> {
    // Of one that was killed while writing.
    let _ = fs::remove_file(beside(path, ".new"));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let restored = read(model, BufReader::new(file), now_ms, most);
    restored.map(Some).inspect_err(|error| {
        model.clear();
        if error.is_lasting() {
            let _ = fs::rename(path, beside(path, ".damaged"));
        }
    })
}

fn read(model: &Model, mut file: impl Read, now_ms: u64, most: usize) -> Result<u64, SnapshotError> {
    let damaged = |why: &dyn std::fmt::Display| SnapshotError::Damaged(why.to_string());
    let mut head = [0; HEAD.len() + 1];
    file.read_exact(&mut head).map_err(|error| damaged(&error))?;
    let Some((version, word)) = head.split_last() else { return Err(damaged(&"no head")) };
    if *word != HEAD {
        return Err(damaged(&"it does not begin with the head of a snapshot"));
    }
    if *version != VERSION {
        return Err(SnapshotError::Version(*version));
    }
    let mut packed = zstd::Decoder::new(file)?.single_frame();
    packed.window_log_max(WINDOW_LOG)?;
    let mut header: Option<Header> = None;
    let (mut nodes, mut subjects, mut useless) = (0, 0, None);
    loop {
        let (letter, bytes) = next(&mut packed).map_err(|error| damaged(&error))?;
        let malformed = |error: prost::DecodeError| damaged(&error);
        match (letter, &header) {
            (b'H', None) => {
                let found = Header::decode(bytes.as_slice()).map_err(malformed)?;
                // Told at the end only: whether it is damaged is known there.
                useless = if found.resolution_ms != model.resolution_ms() {
                    Some("its steps are of another resolution")
                } else if found.written_ms > now_ms.saturating_add(model.resolution_ms()) {
                    Some("it was written later than now")
                } else if now_ms.saturating_sub(found.written_ms) > model.kept_ms() {
                    Some("it is older than what is kept")
                } else {
                    None
                };
                header = Some(found);
            }
            (b'N', Some(_)) => {
                let member = SavedMember::decode(bytes.as_slice()).map_err(malformed)?;
                nodes += 1;
                if nodes <= most && useless.is_none() {
                    model.restore(member, now_ms).ok_or_else(|| damaged(&"a node contradicts itself"))?;
                }
            }
            (b'C', Some(_)) => {
                let subject = SavedSubject::decode(bytes.as_slice()).map_err(malformed)?;
                subjects += 1;
                if useless.is_none() {
                    let oldest = now_ms.saturating_sub(model.kept_ms());
                    let restored = model.customs().restore(subject, oldest);
                    restored.ok_or_else(|| damaged(&"what programs pushed contradicts itself"))?;
                }
            }
            (b'E', Some(header)) => {
                let end = End::decode(bytes.as_slice()).map_err(malformed)?;
                let nodes = u64::try_from(nodes).unwrap_or(u64::MAX);
                // Only at the end of the frame it is known whether the checksum fits.
                let rest = packed.read(&mut [0; 1]).map_err(|error| damaged(&error))?;
                if end.nodes != nodes || end.subjects != subjects || rest != 0 {
                    return Err(damaged(&"it does not end where it should"));
                }
                if let Some(why) = useless {
                    return Err(SnapshotError::Useless(why));
                }
                model.restored(header.closed_ms.min(now_ms));
                return Ok(u64::try_from(model.node_names().len()).unwrap_or(u64::MAX));
            }
            _ => return Err(damaged(&"a record that should not be there")),
        }
    }
}

/// The letter and the message of a record.
fn next(packed: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    packed.read_exact(&mut head)?;
    let [letter, length @ ..] = head;
    let length = usize::try_from(u32::from_le_bytes(length)).map_err(io::Error::other)?;
    if length > MOST_RECORD {
        return Err(io::Error::other("a record is too long"));
    }
    let mut bytes = Vec::new();
    // Grows with what is there, not with what is said to be.
    packed.take(u64::try_from(length).unwrap_or(0)).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((letter, bytes))
}

impl Counts {
    /// Notes how writing one at `now_ms` went.
    pub fn note(&self, result: &Result<u64, SnapshotError>, now_ms: u64) {
        match result {
            Ok(bytes) => {
                self.written.fetch_add(1, Relaxed);
                self.bytes.store(*bytes, Relaxed);
                self.written_ms.store(now_ms, Relaxed);
            }
            Err(_) => {
                self.failed.fetch_add(1, Relaxed);
            }
        }
    }
}
