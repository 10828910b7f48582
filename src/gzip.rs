//! Gzip (RFC 1952) of what is written, one member, with flate2's deflate.
//!
//! A compressor that has filled its window moves what it remembers of it, tables of 192 KiB for
//! each 32 KiB of text; built for size, as the images are, that takes as long as all the rest.
//! So it begins anew before that, every 62 KiB. What we write repeats itself from one
//! line to the next: 3 % more bytes.

use std::io::{self, Write};

use flate2::{Compress, Compression, Crc, FlushCompress};

/// What fits the window of zlib, of twice 32 KiB, with its look ahead.
const STRETCH: usize = 62 << 10;

/// Compressed bytes handed on at once.
const PIECE: usize = 8 << 10;

/// Deflate, no flags, no time, no name, of an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// A writer that compresses into another.
pub struct Gzip<W> {
    inner: W,
    deflate: Compress,
    crc: Crc,
    /// What the compressor still takes before it begins anew.
    room: usize,
    begun: bool,
    piece: Box<[u8]>,
}

impl<W> std::fmt::Debug for Gzip<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gzip").field("room", &self.room).field("begun", &self.begun).finish_non_exhaustive()
    }
}

impl<W: Write> Gzip<W> {
    /// Writes to `inner` what is compressed at `level`.
    pub fn new(inner: W, level: Compression) -> Gzip<W> {
        Gzip {
            inner,
            deflate: Compress::new(level, false),
            crc: Crc::new(),
            room: STRETCH,
            begun: false,
            piece: vec![0; PIECE].into_boxed_slice(),
        }
    }

    /// Writes the end. Without it what was written is no gzip.
    ///
    /// # Errors
    /// The other writer fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.begin()?;
        self.deflate(&[], FlushCompress::Finish)?;
        self.inner.write_all(&self.crc.sum().to_le_bytes())?;
        // The length, modulo 2^32.
        self.inner.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.inner)
    }

    fn begin(&mut self) -> io::Result<()> {
        if !self.begun {
            self.begun = true;
            self.inner.write_all(&HEADER)?;
        }
        Ok(())
    }

    /// Has all of this taken, and with a flush all that was taken handed on.
    fn deflate(&mut self, mut bytes: &[u8], flush: FlushCompress) -> io::Result<()> {
        loop {
            let (taken, made) = (self.deflate.total_in(), self.deflate.total_out());
            self.deflate.compress(bytes, &mut self.piece, flush).map_err(io::Error::other)?;
            let since = |total: u64, before: u64| usize::try_from(total - before).unwrap_or(usize::MAX);
            let made = since(self.deflate.total_out(), made);
            self.inner.write_all(self.piece.get(..made).unwrap_or_default())?;
            bytes = bytes.get(since(self.deflate.total_in(), taken)..).unwrap_or_default();
            if bytes.is_empty() && made < PIECE {
                return Ok(());
            }
        }
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begin()?;
        let bytes = bytes.get(..self.room).unwrap_or(bytes);
        self.crc.update(bytes);
        self.room -= bytes.len();
        if self.room > 0 {
            self.deflate(bytes, FlushCompress::None)?;
        } else {
            // To the byte, so that the next stretch can follow; this was not the end.
            self.deflate(bytes, FlushCompress::Sync)?;
            self.deflate.reset();
            self.room = STRETCH;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn compressed(parts: &[&[u8]], level: u32) -> Vec<u8> {
        let mut gzip = Gzip::new(Vec::new(), Compression::new(level));
        parts.iter().for_each(|part| gzip.write_all(part).unwrap());
        gzip.finish().unwrap()
    }

    /// What another reads of it: the text of one member, and nothing left.
    fn read(gzip: &[u8]) -> Vec<u8> {
        let mut decoder = flate2::bufread::GzDecoder::new(gzip);
        let mut text = Vec::new();
        decoder.read_to_end(&mut text).unwrap();
        assert!(decoder.into_inner().is_empty(), "more than one member");
        text
    }

    fn lines(count: usize) -> Vec<u8> {
        let line =
            |i| format!("container_cpu_usage_seconds_total{{id=\"/pod{}\",n=\"{i}\"}} {}\n", i / 7, i * i);
        (0..count).map(line).collect::<String>().into_bytes()
    }

    #[test]
    fn nothing_and_all_lengths_about_a_stretch() {
        assert_eq!(read(&compressed(&[], 2)), b"");
        let text = lines(4_000);
        for length in [1, STRETCH - 1, STRETCH, STRETCH + 1, 2 * STRETCH, 3 * STRETCH + 7] {
            assert_eq!(read(&compressed(&[&text[..length]], 2)), text[..length], "{length}");
        }
    }

    #[test]
    fn costs_few_bytes_more_than_without_stretches() {
        let text = lines(30_000);
        let mut usual = flate2::write::GzEncoder::new(Vec::new(), Compression::new(2));
        usual.write_all(&text).unwrap();
        let usual = usual.finish().unwrap().len();
        let ours = compressed(&[&text], 2).len();
        assert!(ours * 100 < usual * 108, "{ours} and {usual} bytes");
    }

    proptest! {
        #[test]
        fn any_text_in_any_parts(
            seed in any::<u64>(),
            lengths in proptest::collection::vec(0usize..90_000, 0..6),
            spread in 1u64..=256,
            level in 0u32..=9,
        ) {
            // From one letter repeated to what cannot be compressed.
            let mut state = seed;
            let mut byte = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                u8::try_from((state >> 33) % spread).unwrap()
            };
            let parts: Vec<Vec<u8>> = lengths.iter().map(|n| (0..*n).map(|_| byte()).collect()).collect();
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(read(&compressed(&parts, level)), parts.concat());
        }
    }

    #[test]
    fn who_cannot_take_more_says_so() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut gzip = Gzip::new(Full(1_000), Compression::new(2));
        let error = gzip.write_all(&lines(30_000)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
