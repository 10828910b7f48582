//! Writing short pieces of text into a buffer.

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
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Out<'_>)) -> String {
        let mut bytes = [b'?'; 300];
        let mut out = Out { bytes: &mut bytes, at: 0 };
        write(&mut out);
        let length = out.at;
        assert!(bytes[length..].iter().all(|byte| *byte == b'?'));
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn pieces_of_any_length() {
        let piece: Vec<u8> = (0..200).map(|n| b'a' + n % 26).collect();
        for length in 0..piece.len() {
            let piece = &piece[..length];
            let expected = String::from_utf8(piece.to_vec()).unwrap();
            assert_eq!(written(|out| out.put(piece)), expected);
            assert_eq!(written(|out| out.put_long(piece)), expected);
            assert_eq!(written(|out| piece.iter().for_each(|b| out.push(*b))), expected);
        }
    }
}
