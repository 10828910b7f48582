//! A process as `ps` shows it, for who asks for the processes of a cgroup.

/// One process, at the moment it was asked for. What the kernel does not tell us of
/// another's process is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Process {
    /// The name of its effective user on the host, else the number.
    pub user: String,
    /// Its number, and its parent's.
    pub pid: u32,
    /// See `pid`.
    pub parent_pid: u32,
    /// Seconds since the epoch at which it began; absent where the time of boot is.
    pub started: Option<u64>,
    /// Seconds since it began.
    pub age_seconds: u64,
    /// CPU it has used, hundredths of a second.
    pub cpu_hundredths: u64,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Address space, bytes.
    pub virtual_bytes: u64,
    /// As `ps` has it in STAT, such as `Ssl`.
    pub status: String,
    /// Its cgroup: of the cpu controller, or in the v2 tree.
    pub cgroup: String,
    /// The name of its program, at most fifteen bytes.
    pub command: String,
    /// Open descriptors; needs the process's own user, or SYS_PTRACE and DAC_READ_SEARCH.
    pub descriptors: Option<u64>,
    /// The processor it ran on last.
    pub processor: Option<u32>,
}
