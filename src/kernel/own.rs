//! What the kernel says about this process: `/proc/self`, never the host's
//! mounted proc, in which `self` may be nobody.

use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::unistd::{SysconfVar, sysconf};

use super::file::Buffer;
use super::parse;

const SELF: &str = "/proc/self";

/// Figures of this process; absent where the kernel does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnProcess {
    /// User and system CPU time of all threads, by getrusage: exact, where
    /// `/proc/self/stat` counts clock ticks.
    pub cpu: Option<Duration>,
    /// Resident memory, bytes.
    pub resident_bytes: Option<u64>,
    /// Address space, bytes.
    pub virtual_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open descriptors.
    pub descriptors: Option<u64>,
    /// Soft limit of descriptors.
    pub max_descriptors: Option<u64>,
}

/// Reads all of it. Counting the descriptors costs about half a microsecond each.
pub fn read() -> OwnProcess {
    let mut own = OwnProcess {
        cpu: cpu(),
        descriptors: count_descriptors(),
        max_descriptors: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        ..OwnProcess::default()
    };
    let mut buffer = Buffer::new();
    if let Ok(text) = buffer.read_path(&Path::new(SELF).join("stat"))
        && let Some((threads, virtual_bytes, pages)) = parse_stat(text)
    {
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|p| u64::try_from(p).ok());
        own.threads = Some(threads);
        own.virtual_bytes = Some(virtual_bytes);
        own.resident_bytes = page.and_then(|page| pages.checked_mul(page));
    }
    own
}

fn cpu() -> Option<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let micros = |t: nix::sys::time::TimeVal| {
        Some(u64::try_from(t.tv_sec()).ok()? * 1_000_000 + u64::try_from(t.tv_usec()).ok()?)
    };
    Some(Duration::from_micros(micros(usage.user_time())? + micros(usage.system_time())?))
}

/// The handle that lists them is one of them, and is not counted.
fn count_descriptors() -> Option<u64> {
    let entries = std::fs::read_dir(Path::new(SELF).join("fd")).ok()?;
    u64::try_from(entries.count().saturating_sub(1)).ok()
}

/// Effective capabilities of this process, by bit (capabilities(7)).
pub fn capabilities() -> Option<u64> {
    let mut buffer = Buffer::new();
    parse_capabilities(buffer.read_path(&Path::new(SELF).join("status")).ok()?)
}

/// `CapEff` of `/proc/<pid>/status`, proc(5).
///
/// ```text
/// CapEff:	000001ffffffffff
/// ```
fn parse_capabilities(text: &[u8]) -> Option<u64> {
    let line = parse::lines(text).find_map(|(_, line)| line.strip_prefix(b"CapEff:"))?;
    let word = std::str::from_utf8(parse::words(line).next()?).ok()?;
    u64::from_str_radix(word, 16).ok()
}

/// `num_threads`, `vsize` (bytes) and `rss` (pages) of `/proc/<pid>/stat`, proc(5).
///
/// ```text
/// 1234 (name with ) in it) S 1 1234 1234 0 -1 4194304 ... 7 0 4242 11194368 1234 ...
/// ```
///
/// The name may hold anything, so fields are counted after its last `)`.
fn parse_stat(text: &[u8]) -> Option<(u64, u64, u64)> {
    let after = text.iter().rposition(|b| *b == b')')?;
    let mut fields = parse::words(text.get(after + 1..)?);
    // The first word here is field 3.
    let threads = parse::digits(fields.nth(20 - 3)?)?;
    let virtual_bytes = parse::digits(fields.nth(23 - 20 - 1)?)?;
    let pages = parse::digits(fields.next()?)?;
    Some((threads, virtual_bytes, pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_hostile_name() {
        let text = b"2 (a) R 1 (b) S 1 2 2 0 -1 4194560 1 0 0 0 3 4 0 0 20 0 7 0 4242 11194368 1234 18446744073709551615 1\n";
        assert_eq!(parse_stat(text), Some((7, 11_194_368, 1234)));
        assert_eq!(parse_stat(b"1 (x) S 1"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn effective_capabilities() {
        let text = b"Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000000000080004\n";
        assert_eq!(parse_capabilities(text), Some(1 << 19 | 1 << 2));
        assert_eq!(parse_capabilities(b"CapEff:\n"), None);
        assert!(capabilities().is_some());
    }

    #[test]
    fn this_process_has_figures_that_move() {
        let before = read();
        assert!(before.resident_bytes.is_some_and(|b| (1 << 20..1 << 32).contains(&b)), "{before:?}");
        assert!(before.threads.is_some_and(|t| t >= 1) && before.cpu.is_some());
        let held: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let after = read();
        // Other tests open and close descriptors at the same time.
        assert!(after.descriptors.unwrap() >= before.descriptors.unwrap() + held.len() as u64 - 20);
        assert!(after.descriptors.unwrap() <= after.max_descriptors.unwrap());
    }
}
