//! How the C library's allocator is set up, which it reads once, when a program starts.
//!
//! Each thread that allocates otherwise gets a heap of its own, which keeps the
//! most it ever held; and once a megabyte was freed, memory below that size goes to these
//! heaps too. For an agent with four sinks that came to a third of all its memory. One
//! heap costs it nothing, since what runs per tick allocates nothing.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Where the C library looks.
const VARIABLE: &str = "GLIBC_TUNABLES";

/// One heap, and memory of large pieces goes back at once, not into it.
const SMALL: &str =
    "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=131072";

/// Starts this program anew in this process with few heaps, unless it was so started or
/// somebody else has set up the allocator. Comes back where that is so, or where it
/// cannot be done, with the reason; then there is more memory in use, and nothing else.
///
/// # Errors
/// The program's own file cannot be executed.
#[expect(clippy::disallowed_methods, reason = "no process is started: this one becomes itself")]
pub fn few_heaps() -> io::Result<()> {
    if cfg!(not(target_env = "gnu")) || env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    let mut words = env::args_os();
    let name = words.next().unwrap_or_else(|| OsString::from("nodegauge"));
    let words: Vec<OsString> = words.collect();
    let restart = |path: &Path| Command::new(path).arg0(&name).args(&words).env(VARIABLE, SMALL).exec();
    // The kernel calls a process by the file's name; the other also when that was replaced or is out of sight.
    if let Ok(path) = env::current_exe() {
        let _ = restart(&path);
    }
    Err(restart(Path::new("/proc/self/exe")))
}
