//! Batch ↔ bytes: the head, the compression and the limits that keep a hostile
//! batch from using more memory than it was granted.

use std::io;

use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, skip_field};
use thiserror::Error;
use zstd::stream::raw::{self, Operation as _};

use super::check::{MAX_COLUMNS, MAX_ENTITIES, MAX_REASONS, MAX_ROW_SETS, MAX_STRINGS, Malformed};
use super::wire::Writer;
use super::{Batch, proto};

/// The version of the format written here, and the only one read.
pub const VERSION: u8 = 1;

/// What a batch may decompress to, unless a caller grants less: no step within
/// the builder's own limits reaches it; one of 500 containers takes 200 KiB.
pub const MAX_DECOMPRESSED: usize = 16 << 20;

/// A skippable frame of zstd: magic, length of what follows, and the word.
const HEAD: [u8; 15] = *b"\x5e\x2a\x4d\x18\x08\0\0\0NGBATCH";

/// Level 1: higher ones gain a few percent on columns and cost twice the time.
const LEVEL: i32 = 1;

/// Why bytes are not a batch.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// The head is missing.
    #[error("this is not a batch: it does not begin with the head of one")]
    NotABatch,
    /// Another version.
    #[error("batch has version {found} of the format, which is not known here; known is version {VERSION}")]
    Version {
        /// The version byte of the head.
        found: u8,
    },
    /// The compression is damaged or asks for too much memory.
    #[error("cannot decompress batch: {0}")]
    Compression(#[source] io::Error),
    /// It decompresses to more than is allowed.
    #[error("batch is larger than the {limit} bytes allowed when decompressed")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// There is more of something than the format allows.
    #[error("batch has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// It is no message of the format.
    #[error("cannot read batch: {0}")]
    Message(#[from] prost::DecodeError),
    /// The message breaks the rules of the format.
    #[error("batch contradicts itself: {0}")]
    Malformed(#[from] Malformed),
}

/// Encodes batches one after the other with the same buffers.
pub struct Encoder {
    compressor: zstd::bulk::Compressor<'static>,
    writer: Writer,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("buffer", &self.writer.out.capacity()).finish_non_exhaustive()
    }
}

impl Encoder {
    /// With buffers that grow to what batches need.
    ///
    /// # Errors
    /// No memory for the compressor.
    pub fn new() -> io::Result<Encoder> {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        Ok(Encoder { compressor, writer: Writer::default() })
    }

    /// The batch as protobuf, not compressed: what [`Encoder::encode`] compresses.
    pub fn plain(&mut self, batch: &Batch) -> &[u8] {
        self.writer.write(&batch.message);
        &self.writer.out
    }

    /// The batch as it lies in the log and travels.
    ///
    /// # Errors
    /// The compressor has no memory.
    pub fn encode(&mut self, batch: &Batch) -> io::Result<Vec<u8>> {
        self.writer.write(&batch.message);
        let compressed = self.compressor.compress(&self.writer.out)?;
        let mut out = Vec::with_capacity(HEAD.len() + 1 + compressed.len());
        out.extend_from_slice(&HEAD);
        out.push(VERSION);
        out.extend_from_slice(&compressed);
        Ok(out)
    }
}

/// Encodes one batch. For one after the other, keep an [`Encoder`].
///
/// # Errors
/// The compressor has no memory.
pub fn encode(batch: &Batch) -> io::Result<Vec<u8>> {
    Encoder::new()?.encode(batch)
}

/// The encoded batch with its sequence and the time it is sent, which are known
/// only later: they are one more zstd frame, and override what is in the first.
pub fn stamp(payload: &[u8], sequence: u64, sent_ms: u64) -> Vec<u8> {
    let fields = proto::Batch { sequence, sent_ms, ..proto::Batch::default() }.encode_to_vec();
    let mut out = Vec::with_capacity(payload.len() + fields.len() + 9);
    out.extend_from_slice(payload);
    // RFC 8878: magic, a single segment with its size in one byte, and one last
    // block that is not compressed. Two numbers take at most 22 bytes.
    let length = u8::try_from(fields.len()).unwrap_or(u8::MAX);
    out.extend_from_slice(&[0x28, 0xb5, 0x2f, 0xfd, 0x20, length]);
    let block = u32::from(length) << 3 | 1;
    out.extend_from_slice(block.to_le_bytes().get(..3).unwrap_or_default());
    out.extend_from_slice(&fields);
    out
}

/// Reads one batch. For one after the other, keep a [`Decoder`].
///
/// # Errors
/// See [`Decoder::decode`].
pub fn decode(payload: &[u8], max_bytes: usize) -> Result<Batch, DecodeError> {
    Decoder::new().map_err(DecodeError::Compression)?.decode(payload, max_bytes)
}

/// Room for a batch at first, bytes: one of a hundred containers.
const USUAL: usize = 64 << 10;

/// Room that a [`Decoder`] keeps at most, bytes.
const KEPT: usize = 1 << 20;

/// Decodes batches one after the other with the same buffers.
pub struct Decoder {
    decompressor: raw::Decoder<'static>,
    plain: Vec<u8>,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("buffer", &self.plain.capacity()).finish_non_exhaustive()
    }
}

impl Decoder {
    /// With buffers that grow to what batches need.
    ///
    /// # Errors
    /// No memory for the decompressor.
    pub fn new() -> io::Result<Decoder> {
        Ok(Decoder { decompressor: raw::Decoder::new()?, plain: Vec::new() })
    }

    /// Reads a batch that may decompress to at most `max_bytes`, for instance
    /// [`MAX_DECOMPRESSED`]. Memory used is at most 16 times what it decompresses
    /// to, and 16 MiB; of that at most 1 MiB is kept, and what zstd keeps.
    ///
    /// # Errors
    /// It is no batch, of another version, too large, damaged, or contradicts itself.
    pub fn decode(&mut self, payload: &[u8], max_bytes: usize) -> Result<Batch, DecodeError> {
        let Some((found, frames)) = payload.strip_prefix(&HEAD).and_then(<[u8]>::split_first) else {
            return Err(DecodeError::NotABatch);
        };
        if *found != VERSION {
            return Err(DecodeError::Version { found: *found });
        }
        let length = self.decompress(frames, max_bytes)?;
        let plain = self.plain.get(..length).unwrap_or_default();
        let read = count(plain).and_then(|()| Ok(Batch::new(proto::Batch::decode(plain)?)?));
        if self.plain.len() > KEPT {
            self.plain = Vec::new();
        }
        read
    }

    /// All frames, to the beginning of the buffer; how many bytes that are.
    fn decompress(&mut self, mut frames: &[u8], max_bytes: usize) -> Result<usize, DecodeError> {
        let Decoder { decompressor, plain } = self;
        decompressor.reinit().map_err(DecodeError::Compression)?;
        // No window needs to be larger than what may come out.
        let window = max_bytes.checked_next_power_of_two().map_or(27, usize::ilog2).clamp(10, 27);
        let window = raw::DParameter::WindowLogMax(window);
        decompressor.set_parameter(window).map_err(DecodeError::Compression)?;
        if plain.is_empty() {
            plain.resize(USUAL.min(max_bytes.saturating_add(1)), 0);
        }
        let mut length = 0;
        let mut ended = true;
        while !(frames.is_empty() && ended) {
            let room = plain.get_mut(length..).unwrap_or_default();
            let status = decompressor.run_on_buffers(frames, room).map_err(DecodeError::Compression)?;
            let stuck = status.bytes_read == 0 && status.bytes_written == 0 && status.remaining > 0;
            ended = status.remaining == 0;
            length += status.bytes_written;
            frames = frames.get(status.bytes_read..).unwrap_or_default();
            if length > max_bytes {
                return Err(DecodeError::TooLarge { limit: max_bytes });
            }
            if length == plain.len() && !ended {
                plain.resize(plain.len().saturating_mul(2).min(max_bytes.saturating_add(1)), 0);
            } else if stuck && frames.is_empty() {
                return Err(DecodeError::Compression(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(length)
    }
}

/// Counts what becomes much larger in memory than it is on the wire, before any
/// of it is made: an empty entity is two bytes there and two hundred here.
fn count(mut plain: &[u8]) -> Result<(), DecodeError> {
    const LIMITS: [(u32, &str, usize); 5] = [
        (16, "strings", MAX_STRINGS),
        (17, "entities", MAX_ENTITIES),
        (19, "row sets", MAX_ROW_SETS),
        (20, "columns", MAX_COLUMNS),
        (21, "reasons", MAX_REASONS),
    ];
    let mut counts = [0_usize; LIMITS.len()];
    while !plain.is_empty() {
        let (field, wire_type) = decode_key(&mut plain)?;
        for ((limited, what, limit), count) in LIMITS.into_iter().zip(&mut counts) {
            *count += usize::from(field == limited);
            if *count > limit {
                return Err(DecodeError::TooMany { what, limit });
            }
        }
        skip(field, wire_type, &mut plain)?;
    }
    Ok(())
}

fn skip(field: u32, wire_type: WireType, plain: &mut &[u8]) -> Result<(), DecodeError> {
    if wire_type != WireType::LengthDelimited {
        return Ok(skip_field(wire_type, field, plain, prost::encoding::DecodeContext::default())?);
    }
    // The generic way walks over the bytes one by one.
    let length = decode_varint(plain)?;
    let rest = usize::try_from(length).ok().and_then(|length| plain.get(length..));
    *plain = rest.ok_or(Malformed::Cut)?;
    Ok(())
}
