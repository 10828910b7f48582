//! Records of the kernel's log → troubles of the machine, counted by reason.
//!
//! The reasons are those that node-problem-detector's `kernel-monitor` has, by the lines
//! that it looks for, so that alerts on its `problem_counter` carry over; lockups and
//! stalls of RCU are added. An oops is counted by the one line that each has, on every
//! architecture, instead of two of its beginnings. `OOMKilling` is in
//! [`oom`](super::oom), with whose kill it was.
//!
//! Pure: bytes in, a reason out. Only lines of the kernel's own facility count, since
//! anyone who may write to the log can write the others.

use super::oom::Record;

/// What is wrong with the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// A task waits in the kernel for longer than `kernel.hung_task_timeout_secs`.
    TaskHung,
    /// A CPU ran kernel code for longer than `kernel.watchdog_thresh` allows.
    SoftLockup,
    /// A CPU took no interrupts for that long.
    HardLockup,
    /// A CPU keeps RCU from going on.
    RcuStall,
    /// The kernel made an error; the process in whose name it ran was killed.
    KernelOops,
    /// A network device cannot go, since something holds it.
    UnregisterNetDevice,
    /// ext4 found its data structures damaged.
    Ext4Error,
    /// ext4 found something odd.
    Ext4Warning,
    /// XFS shut a filesystem down.
    XfsShutdown,
    /// A filesystem is read-only from now on, after an error.
    FilesystemIsReadOnly,
    /// A block device did not do what was asked of it.
    IoError,
    /// A memory module had an error that was corrected.
    MemoryReadError,
}

/// How many reasons there are.
pub const PROBLEMS: usize = 12;

impl Problem {
    /// All of them, in the order of [`Problem::index`].
    pub const ALL: [Problem; PROBLEMS] = [
        Problem::TaskHung,
        Problem::SoftLockup,
        Problem::HardLockup,
        Problem::RcuStall,
        Problem::KernelOops,
        Problem::UnregisterNetDevice,
        Problem::Ext4Error,
        Problem::Ext4Warning,
        Problem::XfsShutdown,
        Problem::FilesystemIsReadOnly,
        Problem::IoError,
        Problem::MemoryReadError,
    ];

    /// As node-problem-detector calls it, where it does.
    pub fn reason(self) -> &'static str {
        match self {
            Problem::TaskHung => "TaskHung",
            Problem::SoftLockup => "SoftLockup",
            Problem::HardLockup => "HardLockup",
            Problem::RcuStall => "RcuStall",
            Problem::KernelOops => "KernelOops",
            Problem::UnregisterNetDevice => "UnregisterNetDevice",
            Problem::Ext4Error => "Ext4Error",
            Problem::Ext4Warning => "Ext4Warning",
            Problem::XfsShutdown => "XfsShutdown",
            Problem::FilesystemIsReadOnly => "FilesystemIsReadOnly",
            Problem::IoError => "IOError",
            Problem::MemoryReadError => "MemoryReadError",
        }
    }

    /// Its place in a table by problem, below [`PROBLEMS`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The problem that a record tells of, if it is one.
    pub fn of(record: &Record<'_>) -> Option<Problem> {
        if record.facility != 0 {
            return None;
        }
        let text = record.text;
        let begins = |word: &str| text.starts_with(word.as_bytes());
        let has = |word: &str| text.windows(word.len()).any(|w| w == word.as_bytes());
        let found = match () {
            // The name of the task is its own choice: what follows it is looked for behind.
            () if begins("INFO: task ") && has(" blocked ") && has(" for more than ") => Problem::TaskHung,
            () if begins("watchdog: BUG: soft lockup - CPU#") || begins("BUG: soft lockup - CPU#") => {
                Problem::SoftLockup
            }
            () if has("Watchdog detected hard LOCKUP on cpu") => Problem::HardLockup,
            () if has("INFO: rcu")
                && (has("self-detected stall on CPU") || has("detected stalls on CPUs/tasks")) =>
            {
                Problem::RcuStall
            }
            () if is_oops(text) => Problem::KernelOops,
            () if begins("unregister_netdevice: waiting for ") && has(" to become free. ") => {
                Problem::UnregisterNetDevice
            }
            () if begins("EXT4-fs error ") => Problem::Ext4Error,
            () if begins("EXT4-fs warning ") => Problem::Ext4Warning,
            // Corruption, an error of the log and who asks for it have different beginnings.
            () if begins("XFS (") && has("Shutting down filesystem") => Problem::XfsShutdown,
            () if has("Remounting filesystem read-only") => Problem::FilesystemIsReadOnly,
            () if begins("Buffer I/O error ") => Problem::IoError,
            () if has(" CE memory read error ") => Problem::MemoryReadError,
            () => return None,
        };
        Some(found)
    }
}

/// `Oops: 0002 [#1] SMP`, `invalid opcode: 0000 [#1]`, `Internal error: Oops: 0000000096000004 [#1]`:
/// a code in hexadecimal and how many there were.
fn is_oops(text: &[u8]) -> bool {
    const COUNT: &[u8] = b" [#";
    let Some(at) = text.windows(COUNT.len()).position(|w| w == COUNT) else { return false };
    let (Some(before), Some(after)) = (text.get(..at), text.get(at + COUNT.len()..)) else { return false };
    let number = after.iter().take_while(|b| b.is_ascii_digit()).count();
    let code = before.iter().rev().take_while(|b| b.is_ascii_hexdigit()).count();
    let closed = number > 0 && after.get(number) == Some(&b']');
    let colon = code >= 4
        && before
            .len()
            .checked_sub(code)
            .is_some_and(|end| before.get(..end).is_some_and(|b| b.ends_with(b": ")));
    closed && colon
}

#[cfg(test)]
mod tests {
    use super::super::oom::record;
    use super::*;

    fn of(facility: u64, line: &str) -> Option<&'static str> {
        let text = format!("{},501,12773889,-;{line}\n SUBSYSTEM=x\n", facility << 3 | 3);
        Problem::of(&record(text.as_bytes()).unwrap()).map(Problem::reason)
    }

    /// Lines as kernels from 4.19 to 6.18 write them.
    #[test]
    fn lines_of_each_reason() {
        for (expected, line) in [
            ("TaskHung", "INFO: task dockerd:1234 blocked for more than 120 seconds."),
            ("TaskHung", "INFO: task a b:1 blocked in I/O wait for more than 120 seconds."),
            ("SoftLockup", "watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [kworker/3:1:99]"),
            ("SoftLockup", "BUG: soft lockup - CPU#0 stuck for 23s! [sh:1]"),
            ("HardLockup", "NMI watchdog: Watchdog detected hard LOCKUP on cpu 5"),
            ("HardLockup", "watchdog: Watchdog detected hard LOCKUP on cpu 0"),
            ("RcuStall", "rcu: INFO: rcu_sched self-detected stall on CPU"),
            ("RcuStall", "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"),
            ("KernelOops", "Oops: 0002 [#1] SMP PTI"),
            ("KernelOops", "Oops: 0000 [#12] PREEMPT SMP NOPTI"),
            ("KernelOops", "invalid opcode: 0000 [#1] SMP"),
            ("KernelOops", "divide error: 0000 [#1] SMP"),
            (
                "KernelOops",
                "general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] SMP",
            ),
            ("KernelOops", "Internal error: Oops: 0000000096000004 [#1] PREEMPT SMP"),
            ("UnregisterNetDevice", "unregister_netdevice: waiting for lo to become free. Usage count = 1"),
            ("Ext4Error", "EXT4-fs error (device sda1): ext4_lookup:1601: inode #2: comm ls: deleted inode"),
            (
                "Ext4Warning",
                "EXT4-fs warning (device sda1): ext4_dirblock_csum_verify:375: inode #2: comm ls: No space",
            ),
            ("XfsShutdown", "XFS (dm-1): Corruption of in-memory data detected.  Shutting down filesystem"),
            ("XfsShutdown", "XFS (sdb): User initiated shutdown received. Shutting down filesystem"),
            ("FilesystemIsReadOnly", "EXT4-fs (sda1): Remounting filesystem read-only"),
            ("IOError", "Buffer I/O error on dev sda, logical block 0, lost async page write"),
            ("MemoryReadError", "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#0 (channel:0 slot:0)"),
        ] {
            assert_eq!(of(0, line), Some(expected), "{line}");
            assert_eq!(of(1, line), None, "not the kernel's: {line}");
        }
    }

    #[test]
    fn lines_of_none() {
        for line in [
            "",
            " [#",
            "Code: 48 89 [#1]",
            "usb 1-1: New device: 04 [#1]",
            "Oops: 0002 [#x]",
            "a task was blocked for more than a minute",
            "EXT4-fs (sda1): mounted filesystem with ordered data mode",
            "XFS (sda1): Mounting V5 Filesystem",
            "Memory cgroup out of memory: Killed process 422 (INFO: task ) total-vm:67796kB",
        ] {
            assert_eq!(of(0, line), None, "{line}");
        }
    }

    #[test]
    fn each_has_its_own_place_and_name() {
        for (place, problem) in Problem::ALL.into_iter().enumerate() {
            assert_eq!(problem.index(), place);
            assert_eq!(Problem::ALL.iter().filter(|p| p.reason() == problem.reason()).count(), 1);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken(text in proptest::collection::vec(0u8..=255, 0..300)) {
            Problem::of(&Record { facility: 0, sequence: 1, usec: 1, fragment: false, text: &text });
        }
    }
}
