//! Pure parsers of kernel text: bytes in, numbers out.
//!
//! They take whole files as the kernel writes them (Documentation/admin-guide/
//! cgroup-v1 and cgroup-v2.rst, proc(5)), never paths, never allocate and never
//! panic on any bytes. Unknown keys are skipped: keys come and go with kernel
//! versions. A known key with a value that is no number is [`ReadError::Malformed`].

pub mod network;
pub mod numa;
pub mod scheduler;

use super::ReadError;
use crate::snapshot::{Limit, Traffic};

/// v1 memory limits at or above this are "no limit": the kernel shows 2^63
/// rounded down to a page.
const V1_UNLIMITED: u64 = 1 << 62;

fn malformed(line: usize) -> ReadError {
    ReadError::Malformed { line: u32::try_from(line).unwrap_or(u32::MAX) }
}

/// Digits only; `None` for anything else, also for more than `u64` holds.
#[inline]
pub fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    // Nineteen digits always fit, so only longer numbers need checked steps.
    if text.len() <= 19 {
        let mut value = 0u64;
        for &byte in text {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            value = value * 10 + u64::from(digit);
        }
        return Some(value);
    }
    text.iter().try_fold(0u64, |value, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Like [`digits`], but a negative number is 0: a few counters dip below it
/// through per-CPU batching.
#[inline]
pub fn clamped(text: &[u8]) -> Option<u64> {
    match text.strip_prefix(b"-") {
        Some(rest) => digits(rest).map(|_| 0),
        None => digits(text),
    }
}

#[inline]
fn trim(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b'\n' | b' ' | b'\t' | b'\r' | 0] = text {
        text = rest;
    }
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    text
}

/// A file of one number: `memory.current`, `pids.current`, `cpuacct.usage`.
///
/// ```text
/// 4096
/// ```
#[inline]
pub fn number(text: &[u8]) -> Result<u64, ReadError> {
    clamped(trim(text)).ok_or(ReadError::Malformed { line: 1 })
}

/// A file of one limit: `max`, -1 or a number; v1 numbers of at least 2^62 are none.
pub fn limit(text: &[u8]) -> Result<Limit, ReadError> {
    let text = trim(text);
    if text == b"max" || text == b"-1" {
        return Ok(Limit::Max);
    }
    match digits(text) {
        Some(value) if value >= V1_UNLIMITED => Ok(Limit::Max),
        Some(value) => Ok(Limit::Value(value)),
        None => Err(ReadError::Malformed { line: 1 }),
    }
}

/// v2 `cpu.max`: quota and period in microseconds.
///
/// ```text
/// max 100000
/// ```
pub fn cpu_max(text: &[u8]) -> Result<(Limit, u64), ReadError> {
    let mut words = words(trim(text));
    let quota = words.next().ok_or(ReadError::Malformed { line: 1 })?;
    let period = words.next().and_then(digits).ok_or(ReadError::Malformed { line: 1 })?;
    Ok((limit(quota)?, period))
}

/// The words of a line.
pub fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|b| *b == b' ' || *b == b'\t').filter(|w| !w.is_empty())
}

/// Lines with their number from 1, without the newline, empty ones skipped.
pub fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    text.split(|b| *b == b'\n').enumerate().map(|(i, l)| (i + 1, l)).filter(|(_, l)| !l.is_empty())
}

/// A flat keyed file, `key value` per line: calls `each` for every line.
///
/// ```text
/// usage_usec 4096
/// nr_periods 0
/// ```
///
/// `each` gets the key and the value's text and says whether the value was
/// acceptable.
pub fn keyed<'a>(text: &'a [u8], mut each: impl FnMut(&'a [u8], &'a [u8]) -> bool) -> Result<(), ReadError> {
    for (number, line) in lines(text) {
        let Some(space) = line.iter().position(|b| *b == b' ') else {
            return Err(malformed(number));
        };
        let (key, value) = line.split_at(space);
        if !each(key, trim(value)) {
            return Err(malformed(number));
        }
    }
    Ok(())
}

/// Most keys a [`Keyed`] reader can be asked for.
pub const MAX_KEYS: usize = 32;

/// A reader of one kind of flat keyed file that is read often.
///
/// The kernel writes the keys of such a file in the same order every time, so
/// the reader learns which line holds which wanted key and from then on only
/// verifies it: `memory.stat` has sixty lines and we want fifteen of them. When
/// a line is not as learned it learns again, so order never matters for the
/// result.
#[derive(Debug)]
pub struct Keyed {
    wanted: &'static [&'static str],
    plan: Vec<PlannedLine>,
}

#[derive(Debug)]
struct PlannedLine {
    key: Box<[u8]>,
    target: Option<usize>,
}

/// Values by position in the wanted list.
pub type Values = [Option<u64>; MAX_KEYS];

impl Keyed {
    /// A reader of `wanted` keys, at most [`MAX_KEYS`].
    pub fn new(wanted: &'static [&'static str]) -> Self {
        debug_assert!(wanted.len() <= MAX_KEYS);
        Keyed { wanted, plan: Vec::new() }
    }

    /// Reads `text` into `values`, by position in the wanted list.
    ///
    /// # Errors
    /// A wanted key whose value is no number, a line without a value, or no line
    /// at all; `values` then holds what came before it.
    pub fn read(&mut self, text: &[u8], values: &mut Values) -> Result<(), ReadError> {
        *values = [None; MAX_KEYS];
        // The kernel never writes such a file without a line.
        if text.is_empty() {
            return Err(ReadError::Malformed { line: 1 });
        }
        let mut rest = text;
        let mut number = 0;
        while !rest.is_empty() {
            // The kernel never writes empty lines; a damaged file may hold some.
            if let [b'\n', tail @ ..] = rest {
                rest = tail;
                continue;
            }
            let (target, after_key) = match self.plan.get(number).and_then(|p| p.matches(rest)) {
                Some(found) => found,
                None => self.learn(rest, number).ok_or_else(|| malformed(number + 1))?,
            };
            number += 1;
            match target {
                None => rest = skip_line(after_key),
                Some(target) => {
                    let (value, tail) = take_number(after_key).ok_or_else(|| malformed(number))?;
                    if let Some(slot) = values.get_mut(target) {
                        *slot = Some(value);
                    }
                    rest = tail;
                }
            }
        }
        Ok(())
    }

    /// Looks up the key that starts `rest` and remembers it for line `number`.
    #[cold]
    fn learn<'a>(&mut self, rest: &'a [u8], number: usize) -> Option<(Option<usize>, &'a [u8])> {
        let line_end = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
        let line = rest.get(..line_end)?;
        let space = line.iter().position(|b| *b == b' ')?;
        let key = line.get(..space)?;
        let target = self.wanted.iter().position(|w| w.as_bytes() == key);
        // Hostile input must not grow the plan: real files have under 100 lines.
        if number < 256 && key.len() < 128 {
            let planned = PlannedLine { key: key.into(), target };
            if let Some(slot) = self.plan.get_mut(number) {
                *slot = planned;
            } else if number == self.plan.len() {
                self.plan.push(planned);
            }
        }
        Some((target, rest.get(space + 1..)?))
    }
}

impl PlannedLine {
    #[inline]
    fn matches<'a>(&self, rest: &'a [u8]) -> Option<(Option<usize>, &'a [u8])> {
        match rest.strip_prefix(&*self.key)? {
            [b' ', after @ ..] => Some((self.target, after)),
            _ => None,
        }
    }
}

#[inline]
fn skip_line(text: &[u8]) -> &[u8] {
    match text.iter().position(|b| *b == b'\n') {
        Some(end) => text.get(end + 1..).unwrap_or(&[]),
        None => &[],
    }
}

/// A number that ends at a newline or at the end of the text; negative is 0.
#[inline]
fn take_number(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().position(|b| *b == b'\n').unwrap_or(text.len());
    let value = clamped(trim(text.get(..end)?))?;
    Some((value, text.get(end + 1..).unwrap_or(&[])))
}

/// One line of a pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stall {
    /// `total`, microseconds.
    pub total: u64,
    /// `avg10`, `avg60` and `avg300`, hundredths of a percent.
    pub averages: [u16; 3],
}

/// The lines of a pressure file: `(some, full)`.
///
/// ```text
/// some avg10=0.00 avg60=0.00 avg300=0.00 total=0
/// full avg10=0.00 avg60=0.00 avg300=0.00 total=0
/// ```
///
/// `cpu.pressure` has no `full` line before 5.13; `irq.pressure` has no `some`.
pub fn pressure(text: &[u8]) -> Result<(Option<Stall>, Option<Stall>), ReadError> {
    let (mut some, mut full) = (None, None);
    for (number, line) in lines(text) {
        let slot = match line {
            [b's', b'o', b'm', b'e', b' ', ..] => &mut some,
            [b'f', b'u', b'l', b'l', b' ', ..] => &mut full,
            _ => return Err(malformed(number)),
        };
        *slot = Some(stall(line).ok_or_else(|| malformed(number))?);
    }
    if some.is_none() && full.is_none() {
        return Err(ReadError::Malformed { line: 1 });
    }
    Ok((some, full))
}

fn stall(line: &[u8]) -> Option<Stall> {
    let (mut total, mut averages) = (None, [0; 3]);
    let [avg10, avg60, avg300] = &mut averages;
    for word in line.split(|b| *b == b' ').skip(1) {
        match word {
            [b'a', b'v', b'g', b'1', b'0', b'=', rest @ ..] => *avg10 = hundredths(rest)?,
            [b'a', b'v', b'g', b'6', b'0', b'=', rest @ ..] => *avg60 = hundredths(rest)?,
            [b'a', b'v', b'g', b'3', b'0', b'0', b'=', rest @ ..] => *avg300 = hundredths(rest)?,
            [b't', b'o', b't', b'a', b'l', b'=', rest @ ..] => total = Some(digits(rest)?),
            _ => {}
        }
    }
    Some(Stall { total: total?, averages })
}

/// `12.34` as 1234; at most 100 %.
fn hundredths(text: &[u8]) -> Option<u16> {
    let point = text.iter().position(|b| *b == b'.').unwrap_or(text.len());
    let fraction = text.get(point + 1..).unwrap_or_default();
    let digit = |at: usize| fraction.get(at).map_or(Some(0), |b| digits(&[*b]));
    let whole = digits(text.get(..point)?)?.checked_mul(100)?;
    let all = whole.checked_add(digit(0)? * 10)?.checked_add(digit(1)?)?;
    u16::try_from(all).ok().filter(|all| *all <= 10_000)
}

/// `MAJ:MIN`.
pub fn device(text: &[u8]) -> Option<(u32, u32)> {
    let colon = text.iter().position(|b| *b == b':')?;
    let major = digits(text.get(..colon)?)?;
    let minor = digits(text.get(colon + 1..)?)?;
    Some((u32::try_from(major).ok()?, u32::try_from(minor).ok()?))
}

/// v2 `io.stat`: calls `each` with device and one `key=value`.
///
/// ```text
/// 8:0 rbytes=90112 wbytes=0 rios=12 wios=0 dbytes=0 dios=0
/// ```
///
/// Kernels 5.8 to 6.x write lines of `MAJ:MIN` alone, or several devices on one
/// line; tokens without `=` only switch the device. Values may be fractional
/// (`cost.vrate=100.00`): `each` gets `None` then.
pub fn io_stat(text: &[u8], mut each: impl FnMut((u32, u32), &[u8], Option<u64>)) -> Result<(), ReadError> {
    for (number, line) in lines(text) {
        let mut current = None;
        for word in words(line) {
            match word.iter().position(|b| *b == b'=') {
                None => current = Some(device(word).ok_or_else(|| malformed(number))?),
                Some(equals) => {
                    let current = current.ok_or_else(|| malformed(number))?;
                    let (key, value) = word.split_at(equals);
                    let value = value.get(1..).unwrap_or(&[]);
                    let value = digits(value);
                    if value.is_none() && matches!(key, b"rbytes" | b"wbytes" | b"rios" | b"wios") {
                        return Err(malformed(number));
                    }
                    each(current, key, value);
                }
            }
        }
    }
    Ok(())
}

/// v1 blkio file: calls `each` with device, operation and value.
///
/// ```text
/// 8:0 Read 4096
/// 8:0 Total 4096
/// Total 4096
/// ```
///
/// Files without operations (`8:0 2048`) give the operation as empty.
pub fn blkio(text: &[u8], mut each: impl FnMut((u32, u32), &[u8], u64)) -> Result<(), ReadError> {
    for (number, line) in lines(text) {
        let mut words = words(line);
        let (first, second, third) = (words.next(), words.next(), words.next());
        let bad = || malformed(number);
        match (first, second, third) {
            (Some(b"Total"), Some(value), None) => {
                clamped(value).ok_or_else(bad)?;
            }
            (Some(dev), Some(value), None) => {
                each(device(dev).ok_or_else(bad)?, b"", clamped(value).ok_or_else(bad)?);
            }
            (Some(dev), Some(op), Some(value)) => {
                each(device(dev).ok_or_else(bad)?, op, clamped(value).ok_or_else(bad)?);
            }
            _ => return Err(bad()),
        }
    }
    Ok(())
}

/// v1 `cpuacct.usage_percpu`: nanoseconds by possible CPU.
pub fn per_cpu(text: &[u8], out: &mut Vec<u64>) -> Result<(), ReadError> {
    out.clear();
    for word in words(trim(text)) {
        match clamped(word) {
            Some(value) => out.push(value),
            None => {
                out.clear();
                return Err(ReadError::Malformed { line: 1 });
            }
        }
    }
    Ok(())
}

/// `/proc/<pid>/net/dev`: calls `each` with interface name, receive and transmit.
///
/// ```text
/// Inter-|   Receive                                                |  Transmit
///  face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
///     lo:     672       8    0    0    0     0          0         0      672       8    0    0    0     0       0          0
/// ```
///
/// The name may touch the first number, and may itself hold colons (aliases),
/// so it ends at the last colon of the line.
pub fn net_dev(text: &[u8], mut each: impl FnMut(&[u8], Traffic, Traffic)) -> Result<(), ReadError> {
    for (number, line) in lines(text).filter(|(n, _)| *n > 2) {
        let bad = || malformed(number);
        let colon = line.iter().rposition(|b| *b == b':').ok_or_else(bad)?;
        let (name, rest) = line.split_at(colon);
        let mut columns = [0u64; 16];
        let mut words = words(rest.get(1..).unwrap_or(&[]));
        for column in &mut columns {
            *column = words.next().and_then(clamped).ok_or_else(bad)?;
        }
        let [rb, rp, re, rd, _, _, _, _, tb, tp, te, td, ..] = columns;
        each(
            trim(name),
            Traffic { bytes: rb, packets: rp, errors: re, dropped: rd },
            Traffic { bytes: tb, packets: tp, errors: te, dropped: td },
        );
    }
    Ok(())
}

/// `cgroup.procs`: calls `each` with every pid; pids of other pid namespaces are
/// written as 0 and passed as such.
pub fn pids(text: &[u8], mut each: impl FnMut(u32)) -> Result<(), ReadError> {
    for (number, line) in lines(text) {
        let pid = digits(trim(line)).and_then(|p| u32::try_from(p).ok()).ok_or_else(|| malformed(number))?;
        each(pid);
    }
    Ok(())
}

/// A CPU list, `0-3,8`: how many CPUs it names.
pub fn cpu_list_len(text: &[u8]) -> Result<u64, ReadError> {
    const BAD: ReadError = ReadError::Malformed { line: 1 };
    let text = trim(text);
    if text.is_empty() {
        return Ok(0);
    }
    text.split(|b| *b == b',').try_fold(0u64, |sum, part| {
        let (first, last) = match part.iter().position(|b| *b == b'-') {
            None => (digits(part).ok_or(BAD)?, digits(part).ok_or(BAD)?),
            Some(dash) => {
                let (first, last) = part.split_at(dash);
                (digits(first).ok_or(BAD)?, digits(last.get(1..).unwrap_or(&[])).ok_or(BAD)?)
            }
        };
        let count = last.checked_sub(first).and_then(|n| n.checked_add(1)).ok_or(BAD)?;
        sum.checked_add(count).ok_or(BAD)
    })
}

/// `/proc/meminfo`: the value of `key` in bytes (the file counts in KiB).
///
/// ```text
/// MemTotal:       24684096 kB
/// ```
pub fn meminfo(text: &[u8], key: &str) -> Option<u64> {
    lines(text).find_map(|(_, line)| {
        let rest = line.strip_prefix(key.as_bytes())?.strip_prefix(b":")?;
        let kib = words(rest).next().and_then(digits)?;
        kib.checked_mul(1024)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn malformed<T>(line: u32) -> Result<T, ReadError> {
        Err(ReadError::Malformed { line })
    }

    #[test]
    fn numbers() {
        assert_eq!(number(b"4096\n"), Ok(4096));
        assert_eq!(number(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(number(b"-12\n"), Ok(0));
        for bad in [&b""[..], b"\n", b"max\n", b"1 2\n", b"18446744073709551616", b"--1", b"\0\xff"] {
            assert_eq!(number(bad), malformed(1), "{bad:?}");
        }
    }

    #[test]
    fn limits() {
        assert_eq!(limit(b"max\n"), Ok(Limit::Max));
        assert_eq!(limit(b"-1\n"), Ok(Limit::Max));
        assert_eq!(limit(b"9223372036854771712\n"), Ok(Limit::Max));
        assert_eq!(limit(b"9223372036854710272\n"), Ok(Limit::Max));
        assert_eq!(limit(b"0\n"), Ok(Limit::Value(0)));
        assert_eq!(limit(b"67108864\n"), Ok(Limit::Value(64 << 20)));
        assert_eq!(limit(b"maximum\n"), malformed(1));
        assert_eq!(cpu_max(b"max 100000\n"), Ok((Limit::Max, 100_000)));
        assert_eq!(cpu_max(b"20000 100000\n"), Ok((Limit::Value(20_000), 100_000)));
        assert_eq!(cpu_max(b"20000\n"), malformed(1));
    }

    #[test]
    fn keyed_files_in_any_order() {
        let mut keyed = Keyed::new(&["usage_usec", "nr_periods"]);
        let mut values = [None; MAX_KEYS];
        keyed.read(b"usage_usec 7\nuser_usec 3\nnr_periods 2\n", &mut values).unwrap();
        assert_eq!(values[..2], [Some(7), Some(2)]);
        // Another order, another set: learnt again, nothing kept from before.
        keyed.read(b"nr_periods 5\nusage_usec_more 9\n", &mut values).unwrap();
        assert_eq!(values[..2], [None, Some(5)]);
        keyed.read(b"user_usec x\nusage_usec 8", &mut values).unwrap();
        assert_eq!(values[..2], [Some(8), None]);
        assert_eq!(keyed.read(b"user_usec 1\nusage_usec eight\n", &mut values), malformed(2));
        assert_eq!(keyed.read(b"usage_usec\n", &mut values), malformed(1));
        assert_eq!(keyed.read(b"", &mut values), malformed(1));
        assert_eq!(values[..2], [None, None]);
    }

    #[test]
    fn pressure_totals() {
        let both = b"some avg10=0.12 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        let stall = |total, averages| Some(Stall { total, averages });
        assert_eq!(pressure(both), Ok((stall(77, [12, 0, 0]), stall(5, [0, 0, 0]))));
        let some = b"some avg10=100.00 avg60=7.5 avg300=0.01 total=77\n";
        assert_eq!(pressure(some), Ok((stall(77, [10_000, 750, 1]), None)));
        assert_eq!(pressure(b"full avg10=0.12 total=9\n"), Ok((None, stall(9, [12, 0, 0]))));
        assert_eq!(pressure(b"full avg10=100.01 total=9\n"), malformed(1));
        assert_eq!(pressure(b""), malformed(1));
        assert_eq!(pressure(b"some avg10=0.12 total=\n"), malformed(1));
        assert_eq!(pressure(b"some avg10=0.1 total=1\nhalf total=2\n"), malformed(2));
    }

    #[test]
    fn io_stat_with_odd_lines() {
        let mut seen = Vec::new();
        // A device alone, two devices on one line, a fraction: kernels write all three.
        let text = b"7:0 \n8:0 8:16 rbytes=1 wbytes=2 rios=3 wios=4\n253:0 rbytes=5 cost.vrate=100.00\n";
        io_stat(text, |device, key, value| {
            seen.push((device, String::from_utf8_lossy(key).into_owned(), value))
        })
        .unwrap();
        assert_eq!(seen[0], ((8, 16), "rbytes".to_owned(), Some(1)));
        assert_eq!(seen[5], ((253, 0), "cost.vrate".to_owned(), None));
        assert_eq!(io_stat(b"8:0 rbytes=x\n", |_, _, _| {}), malformed(1));
        assert_eq!(io_stat(b"rbytes=1\n", |_, _, _| {}), malformed(1));
        assert_eq!(io_stat(b"8 rbytes=1\n", |_, _, _| {}), malformed(1));
    }

    #[test]
    fn blkio_with_and_without_operations() {
        let mut seen = Vec::new();
        blkio(b"8:0 Read 4096\n8:0 Total 4096\n9:1 2048\nTotal 4096\n", |d, op, v| {
            seen.push((d, op.to_vec(), v))
        })
        .unwrap();
        assert_eq!(
            seen,
            [((8, 0), b"Read".to_vec(), 4096), ((8, 0), b"Total".to_vec(), 4096), ((9, 1), vec![], 2048)]
        );
        assert_eq!(blkio(b"8:0 Read\n", |_, _, _| {}), malformed(1));
        assert_eq!(blkio(b"Total 0\n8:0 Read 1 2 3\n8:x Read 1\n", |_, _, _| {}), malformed(3));
    }

    #[test]
    fn interfaces() {
        let text = b"Inter-|   Receive | Transmit\n face |bytes packets\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\neth0:1:123 0 0 0 0 0 0 0 7 0 0 0 0 0 0 0\n";
        let mut seen = Vec::new();
        net_dev(text, |name, rx, tx| seen.push((name.to_vec(), rx.bytes, rx.dropped, tx.bytes, tx.dropped)))
            .unwrap();
        assert_eq!(seen, [(b"lo".to_vec(), 1, 4, 9, 12), (b"eth0:1".to_vec(), 123, 0, 7, 0)]);
        assert_eq!(net_dev(b"a\nb\nlo: 1 2\n", |_, _, _| {}), malformed(3));
    }

    #[test]
    fn small_ones() {
        assert_eq!(cpu_list_len(b"0-3,8\n"), Ok(5));
        assert_eq!(cpu_list_len(b"\n"), Ok(0));
        assert_eq!(cpu_list_len(b"3-1\n"), malformed(1));
        assert_eq!(cpu_list_len(b"0-18446744073709551615"), malformed(1));
        let mut out = vec![9];
        assert_eq!(per_cpu(b"1 2 3 \n", &mut out), Ok(()));
        assert_eq!(out, [1, 2, 3]);
        assert_eq!(per_cpu(b"1 x\n", &mut out), malformed(1));
        assert!(out.is_empty());
        let mut seen = Vec::new();
        assert_eq!(pids(b"1\n0\n42\n", |p| seen.push(p)), Ok(()));
        assert_eq!(seen, [1, 0, 42]);
        assert_eq!(pids(b"1\n-2\n", |_| {}), malformed(2));
        assert_eq!(meminfo(b"MemTotal:       24 kB\nMemTotalX: 9 kB\n", "MemTotal"), Some(24 * 1024));
        assert_eq!(device(b"8:16"), Some((8, 16)));
        assert_eq!(device(b"8:4294967296"), None);
    }
}
