//! Time on and for a CPU: `schedstat` of threads and of the machine.

use super::{ReadError, digits, lines, malformed, words};

/// `/proc/<tid>/schedstat`: nanoseconds on a CPU, nanoseconds waiting for one, slices.
///
/// ```text
/// 1525513354 97597250 333
/// ```
pub fn of_thread(text: &[u8]) -> Result<[u64; 3], ReadError> {
    let mut words = text.trim_ascii_end().split(|b| *b == b' ').map(digits);
    match (words.next().flatten(), words.next().flatten(), words.next().flatten()) {
        (Some(run), Some(wait), Some(slices)) => Ok([run, wait, slices]),
        _ => Err(ReadError::Malformed { line: 1 }),
    }
}

/// `/proc/schedstat`: the same three of all CPUs together, which are the seventh to ninth
/// number of each; what idle threads did is not among them.
///
/// ```text
/// version 15
/// timestamp 4294913524
/// cpu0 0 0 0 0 0 0 1525513354 97597250 333
/// domain0 3 0 0 0
/// ```
///
/// # Errors
/// No CPU, or one with fewer numbers.
pub fn of_machine(text: &[u8]) -> Result<[u64; 3], ReadError> {
    let mut sums: Option<[u64; 3]> = None;
    for (number, line) in lines(text) {
        let mut words = words(line);
        let cpu = words.next().and_then(|w| w.strip_prefix(b"cpu")).and_then(digits);
        if cpu.is_none() {
            continue;
        }
        let mut figures = words.skip(6).map(digits);
        for sum in sums.get_or_insert_default() {
            let figure = figures.next().flatten().ok_or_else(|| malformed(number))?;
            *sum = sum.saturating_add(figure);
        }
    }
    sums.ok_or(ReadError::Malformed { line: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads() {
        assert_eq!(of_thread(b"1525513354 97597250 333\n"), Ok([1_525_513_354, 97_597_250, 333]));
        for damaged in [&b""[..], b"1 2\n", b"1 2 x\n", b"1  2 3\n"] {
            assert_eq!(of_thread(damaged), Err(ReadError::Malformed { line: 1 }), "{damaged:?}");
        }
    }

    #[test]
    fn machines() {
        let text =
            b"version 15\ntimestamp 1\ncpu0 0 0 0 0 0 0 10 20 3\ndomain0 3 1 1\ncpu1 0 0 0 0 0 0 1 2 4\n";
        assert_eq!(of_machine(text), Ok([11, 22, 7]));
        assert_eq!(of_machine(b"cpu0 0 0 0 0 0 0 10 20\n"), Err(ReadError::Malformed { line: 1 }));
        assert!(of_machine(b"version 15\n").is_err());
    }
}
