//! A column of a packed step as bytes; the [window](super) says what they are.

/// Small for small changes up and down.
fn zigzag(change: u64) -> u64 {
    (change << 1) ^ 0_u64.wrapping_sub(change >> 63)
}

fn from_zigzag(zigzag: u64) -> u64 {
    (zigzag >> 1) ^ 0_u64.wrapping_sub(zigzag & 1)
}

pub(super) struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    shift: u32,
    unchanged: u64,
}

impl Writer<'_> {
    /// Appends a column of these changes.
    pub(super) fn write(changes: &[u64], bytes: &mut Vec<u8>) {
        let shift = changes.iter().fold(0, |all, change| all | change).trailing_zeros() % u64::BITS;
        bytes.push(shift.to_le_bytes()[0]);
        let mut writer = Writer { bytes, shift, unchanged: 0 };
        changes.iter().for_each(|change| writer.row(*change));
        writer.flush();
    }

    fn row(&mut self, change: u64) {
        if change == 0 {
            self.unchanged += 1;
        } else {
            self.flush();
            // The sign is kept, and the bits that are left out are 0.
            self.varint(zigzag((change.cast_signed() >> self.shift).cast_unsigned()));
        }
    }

    fn flush(&mut self) {
        if let Some(more) = self.unchanged.checked_sub(1) {
            self.bytes.push(0);
            self.varint(more);
            self.unchanged = 0;
        }
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.bytes.push(value.to_le_bytes()[0]);
    }
}

/// The changes of a column, row by row; it does not know where they end.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    shift: u8,
    unchanged: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(column: &'a [u8]) -> Option<Reader<'a>> {
        let (shift, bytes) = column.split_first()?;
        Some(Reader { bytes, shift: shift % 64, unchanged: 0 })
    }

    fn varint(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0_u64, 0_u32);
        loop {
            let (byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
        }
    }
}

impl Iterator for Reader<'_> {
    type Item = u64;

    fn nth(&mut self, mut row: usize) -> Option<u64> {
        // What stands before the row is passed by without reading it.
        while row > 0 {
            if self.unchanged > 0 {
                let passed = self.unchanged.min(u64::try_from(row).unwrap_or(u64::MAX));
                self.unchanged -= passed;
                row -= usize::try_from(passed).unwrap_or(row);
            } else if *self.bytes.first()? == 0 {
                self.next()?;
                row -= 1;
            } else {
                let end = self.bytes.iter().position(|byte| *byte < 0x80)?;
                self.bytes = self.bytes.get(end + 1..)?;
                row -= 1;
            }
        }
        self.next()
    }

    fn next(&mut self) -> Option<u64> {
        if let Some(left) = self.unchanged.checked_sub(1) {
            self.unchanged = left;
            return Some(0);
        }
        match self.varint()? {
            0 => {
                self.unchanged = self.varint()?;
                Some(0)
            }
            zigzag => Some(from_zigzag(zigzag) << self.shift),
        }
    }
}
