//! Writing short pieces of text into a buffer.
//!
//! A scrape is tens of thousands of lines of a dozen pieces each, so what counts is how many
//! instructions a piece takes. Where there is room behind it, a piece is copied in whole
//! blocks, and what is too much is written over by the next.

/// Bytes behind a line that may be written to.
pub(super) const SLACK: usize = BLOCK;

/// What [`Padded`] text is copied in: more than nearly all names.
const BLOCK: usize = 64;

/// What turns eight digits into their characters.
const ASCII: u64 = u64::from_ne_bytes([b'0'; 8]);

/// Ten to the power of eight.
const E8: u64 = 100_000_000;

/// Text that is written many times: at once where it is short.
#[derive(Debug, Clone)]
pub(super) struct Padded {
    /// The text, and zeros behind it.
    block: [u8; BLOCK],
    /// What the block does not hold.
    rest: Vec<u8>,
    length: usize,
}

impl Padded {
    pub(super) const fn empty() -> Padded {
        Padded { block: [0; BLOCK], rest: Vec::new(), length: 0 }
    }

    pub(super) fn new(text: &str) -> Padded {
        let mut padded = Padded::empty();
        padded.set(text.as_bytes());
        padded
    }

    pub(super) fn set(&mut self, text: &[u8]) {
        let (short, rest) = text.split_at(text.len().min(BLOCK));
        self.block = [0; BLOCK];
        self.block.iter_mut().zip(short).for_each(|(to, from)| *to = *from);
        self.rest.clear();
        self.rest.extend_from_slice(rest);
        self.length = text.len();
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.length
    }
}

/// The free part of a buffer in which there is room for what is written: what is not
/// would be left out.
pub(super) struct Out<'a> {
    pub(super) bytes: &'a mut [u8],
    /// Where the next byte goes.
    pub(super) at: usize,
}

impl Out<'_> {
    /// One byte.
    #[inline(always)]
    pub(super) fn push(&mut self, byte: u8) {
        if let Some(space) = self.bytes.get_mut(self.at) {
            *space = byte;
        }
        self.at += 1;
    }

    /// For the short pieces that lines are made of: calling `memcpy` for each took half of
    /// the time of a scrape.
    #[inline(always)]
    pub(super) fn put(&mut self, piece: &[u8]) {
        let end = self.at + piece.len();
        if let Some(space) = self.bytes.get_mut(self.at..end) {
            let _ = halves::<32>(space, piece)
                || halves::<16>(space, piece)
                || halves::<8>(space, piece)
                || halves::<4>(space, piece)
                || few(space, piece);
        }
        self.at = end;
    }

    /// Text with room for [`SLACK`] behind it.
    #[inline(always)]
    pub(super) fn put_padded(&mut self, padded: &Padded) {
        if let Some(space) = self.bytes.get_mut(self.at..).and_then(|space| space.first_chunk_mut()) {
            *space = padded.block;
        }
        if padded.length > BLOCK {
            self.at += BLOCK;
            self.put_long(&padded.rest);
        } else {
            self.at += padded.length;
        }
    }

    /// The first `length` of eight bytes, with room for all of them.
    #[inline(always)]
    fn put_word(&mut self, word: u64, length: u32) {
        if let Some(space) = self.bytes.get_mut(self.at..).and_then(|space| space.first_chunk_mut()) {
            *space = word.to_le_bytes();
        }
        self.at += length as usize;
    }

    /// An integer, with room for [`SLACK`] behind it. itoa and a copy of its text take up to a
    /// third longer, of whole seconds out of nanoseconds a fifth.
    #[inline]
    pub(super) fn decimal(&mut self, value: u64) {
        if value < 10 {
            // Most of what is counted never happened.
            return self.put_word(value | ASCII, 1);
        }
        if value < E8 {
            return self.leading(value);
        }
        let (high, low) = (value / E8, value % E8);
        if high < E8 {
            self.leading(high);
        } else {
            self.leading(high / E8);
            self.put_word(eight_digits(high % E8) | ASCII, 8);
        }
        self.put_word(eight_digits(low) | ASCII, 8);
    }

    /// A number of up to eight digits, from the first that is not 0; of 0 its last.
    #[inline(always)]
    fn leading(&mut self, value: u64) {
        let digits = eight_digits(value);
        let zeros = (digits | (1 << 56)).trailing_zeros() / 8;
        self.put_word((digits | ASCII) >> (zeros * 8), 8 - zeros);
    }

    /// The point and the digits behind it, up to the last that is not 0; of 0 nothing. With
    /// room for [`SLACK`] behind it.
    #[inline]
    pub(super) fn fraction(&mut self, billionths: u64) {
        if billionths == 0 {
            return;
        }
        let (first, rest) = (billionths / E8, billionths % E8);
        self.put_word(u64::from(b'.') | ((first | u64::from(b'0')) << 8), 2);
        if rest > 0 {
            let digits = eight_digits(rest);
            self.put_word(digits | ASCII, 8 - digits.leading_zeros() / 8);
        }
    }

    /// For pieces of hundreds of bytes.
    #[inline(always)]
    pub(super) fn put_long(&mut self, piece: &[u8]) {
        let end = self.at + piece.len();
        if let Some(space) = self.bytes.get_mut(self.at..end) {
            space.copy_from_slice(piece);
        }
        self.at = end;
    }
}

/// The eight digits of a number below 10^8, the first in the lowest byte: all at once, where a
/// loop would take a branch for each that the processor cannot foresee.
#[inline(always)]
const fn eight_digits(value: u64) -> u64 {
    // Two halves of four digits in 32 bits each, then four of two in 16, then eight of one.
    let fours = (value / 10_000) | ((value % 10_000) << 32);
    // x * 10486 >> 20 is x / 100 for all below 10000.
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = hundreds | ((fours - hundreds * 100) << 16);
    // x * 103 >> 10 is x / 10 for all below 100.
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | ((twos - tens * 10) << 8)
}

/// Copies what has between `N` and twice as many bytes as its first and its last `N`, which
/// may overlap; more is copied as usual.
#[inline(always)]
fn halves<const N: usize>(space: &mut [u8], piece: &[u8]) -> bool {
    if piece.len() > 64 {
        space.copy_from_slice(piece);
        return true;
    }
    let (Some(first), Some(last)) = (piece.first_chunk::<N>(), piece.last_chunk::<N>()) else { return false };
    if let Some(to) = space.first_chunk_mut() {
        *to = *first;
    }
    if let Some(to) = space.last_chunk_mut() {
        *to = *last;
    }
    true
}

/// Copies up to three bytes; of a loop the compiler would make a call.
#[inline(always)]
fn few(space: &mut [u8], piece: &[u8]) -> bool {
    if let ([to, ..], [first, ..]) = (&mut *space, piece) {
        *to = *first;
    }
    if let ([_, to, ..], [_, second, ..]) = (&mut *space, piece) {
        *to = *second;
    }
    if let ([.., to], [.., last]) = (space, piece) {
        *to = *last;
    }
    true
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What is written, and what is behind it.
    fn written_before(write: impl FnOnce(&mut Out<'_>)) -> (String, String) {
        let mut bytes = [b'?'; 300];
        let mut out = Out { bytes: &mut bytes, at: 0 };
        write(&mut out);
        let length = out.at;
        let (text, behind) = bytes.split_at(length);
        (String::from_utf8(text.to_vec()).unwrap(), String::from_utf8_lossy(behind).into_owned())
    }

    /// What is written.
    pub(in super::super) fn written(write: impl FnOnce(&mut Out<'_>)) -> String {
        written_before(write).0
    }

    /// What is written, and nothing behind it.
    fn only(write: impl FnOnce(&mut Out<'_>)) -> String {
        let (text, behind) = written_before(write);
        assert!(behind.bytes().all(|byte| byte == b'?'), "{behind}");
        text
    }

    #[test]
    fn pieces_of_any_length() {
        let piece: Vec<u8> = (0..200).map(|n| b'a' + n % 26).collect();
        for length in 0..piece.len() {
            let piece = &piece[..length];
            let expected = String::from_utf8(piece.to_vec()).unwrap();
            assert_eq!(only(|out| out.put(piece)), expected);
            assert_eq!(only(|out| out.put_long(piece)), expected);
            assert_eq!(only(|out| piece.iter().for_each(|b| out.push(*b))), expected);
        }
    }

    #[test]
    fn text_in_blocks() {
        for length in 0..200 {
            let text: String = ('a'..='z').cycle().take(length).collect();
            let padded = Padded::new(&text);
            assert_eq!(padded.len(), length);
            let mut bytes = vec![b'?'; length + SLACK + 1];
            let mut out = Out { bytes: &mut bytes, at: 1 };
            out.put_padded(&padded);
            assert_eq!(out.at, length + 1);
            assert_eq!(bytes[..=length], *format!("?{text}").as_bytes());
        }
    }

    #[test]
    fn what_has_no_room_is_left_out() {
        let mut out = Out { bytes: &mut [], at: 0 };
        out.put_padded(&Padded::new("text"));
        out.decimal(u64::MAX);
        out.fraction(123_456_789);
        out.put(b"text");
        assert_eq!(out.at, 4 + 20 + 10 + 4);
    }

    #[test]
    fn numbers_about_each_power_of_ten() {
        let powers = (0..20).map(|n| 10_u64.pow(n));
        for value in powers.flat_map(|p| [p - 1, p, p + 1, p.wrapping_mul(9)]).chain([u64::MAX]) {
            assert_eq!(written(|out| out.decimal(value)), value.to_string());
        }
    }

    proptest::proptest! {
        #[test]
        fn integers(value in 0..=u64::MAX, shift in 0..64_u32) {
            assert_eq!(written(|out| out.decimal(value >> shift)), (value >> shift).to_string());
        }

        #[test]
        fn fractions(billionths in 0..1_000_000_000_u64, zeros in 0..9_u32) {
            let billionths = billionths - billionths % 10_u64.pow(zeros);
            let digits = format!(".{billionths:09}");
            let expected = digits.trim_end_matches('0').trim_end_matches('.');
            assert_eq!(written(|out| out.fraction(billionths)), expected);
        }
    }
}
