//! Task states of a v1 cgroup, from the kernel's cgroupstats.
//!
//! A generic netlink request of the TASKSTATS family that names an open cgroup
//! directory; the answer counts the tasks of that cgroup alone by state. Needs
//! no capability. There is nothing like it for v2. The four small structures
//! are those of linux/netlink.h, linux/genetlink.h and linux/cgroupstats.h.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
};
use nix::sys::stat::Mode;
use nix::sys::time::{TimeVal, TimeValLike};

use super::ReadError;

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CGROUPSTATS_CMD_GET: u8 = 4;
const CGROUPSTATS_CMD_ATTR_FD: u16 = 1;
const CGROUPSTATS_TYPE_CGROUP_STATS: u16 = 1;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NETLINK_HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;

/// Tasks by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskStates {
    /// Asleep.
    pub sleeping: u64,
    /// Running or runnable.
    pub running: u64,
    /// Stopped.
    pub stopped: u64,
    /// In uninterruptible sleep.
    pub uninterruptible: u64,
    /// Waiting for I/O.
    pub io_wait: u64,
}

/// A socket to ask on.
#[derive(Debug)]
pub struct CgroupStats {
    socket: OwnedFd,
    family: u16,
    sequence: u32,
}

impl CgroupStats {
    /// Opens the socket and finds the family.
    ///
    /// # Errors
    /// The kernel has no TASKSTATS, or the socket cannot be had.
    pub fn open() -> Result<Self, ReadError> {
        let protocol = SockProtocol::NetlinkGeneric;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(1))?;
        let mut stats = CgroupStats { socket, family: GENL_ID_CTRL, sequence: 0 };
        let mut answer = [0u8; 4096];
        let name = b"TASKSTATS\0";
        let len = stats.ask(CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, name, &mut answer)?;
        let answer = answer.get(..len).unwrap_or(&[]);
        let id = attribute(answer, CTRL_ATTR_FAMILY_ID).and_then(|id| id.first_chunk::<2>().copied());
        stats.family = id.map(u16::from_ne_bytes).ok_or(ReadError::Unsupported)?;
        Ok(stats)
    }

    /// Counts the tasks of the cgroup directory at `path`.
    ///
    /// # Errors
    /// [`ReadError::Gone`] when there is no such cgroup, others as they come.
    pub fn read(&mut self, path: &Path) -> Result<TaskStates, ReadError> {
        // A handle opened with O_PATH is not accepted.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = nix::fcntl::open(path, flags, Mode::empty())?;
        let fd = u32::try_from(directory.as_fd().as_raw_fd()).map_err(|_| ReadError::Os(Errno::EBADF))?;
        let mut answer = [0u8; 256];
        let len = self.ask(CGROUPSTATS_CMD_GET, CGROUPSTATS_CMD_ATTR_FD, &fd.to_ne_bytes(), &mut answer)?;
        let answer = answer.get(..len).unwrap_or(&[]);
        let counts = attribute(answer, CGROUPSTATS_TYPE_CGROUP_STATS).ok_or(ReadError::Unsupported)?;
        let mut words =
            counts.chunks_exact(8).filter_map(|c| c.first_chunk::<8>()).map(|c| u64::from_ne_bytes(*c));
        let mut next = || words.next().ok_or(ReadError::Malformed { line: 1 });
        Ok(TaskStates {
            sleeping: next()?,
            running: next()?,
            stopped: next()?,
            uninterruptible: next()?,
            io_wait: next()?,
        })
    }

    fn ask(&mut self, command: u8, kind: u16, payload: &[u8], answer: &mut [u8]) -> Result<usize, ReadError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(self.family, self.sequence, command, kind, payload);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        loop {
            let len = recv(self.socket.as_raw_fd(), answer, MsgFlags::empty())?;
            let message = answer.get(..len).unwrap_or(&[]);
            // The answer to a request that timed out may still come.
            if field(message, 8) != Some(self.sequence.to_ne_bytes()) {
                continue;
            }
            if field(message, 4) == Some(NLMSG_ERROR.to_ne_bytes()) {
                let code = field(message, NETLINK_HEADER).map_or(0, i32::from_ne_bytes);
                return Err(Errno::from_raw(code.saturating_neg()).into());
            }
            return Ok(len);
        }
    }
}

fn request(family: u16, sequence: u32, command: u8, kind: u16, payload: &[u8]) -> Vec<u8> {
    let attribute = ATTRIBUTE_HEADER + payload.len();
    let total = NETLINK_HEADER + GENERIC_HEADER + attribute.next_multiple_of(4);
    let mut message = Vec::with_capacity(total);
    message.extend_from_slice(&u32::try_from(total).unwrap_or(0).to_ne_bytes());
    message.extend_from_slice(&family.to_ne_bytes());
    message.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    message.extend_from_slice(&sequence.to_ne_bytes());
    message.extend_from_slice(&0u32.to_ne_bytes());
    message.extend_from_slice(&[command, 1, 0, 0]);
    message.extend_from_slice(&u16::try_from(attribute).unwrap_or(0).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(payload);
    message.resize(total, 0);
    message
}

fn field<const N: usize>(message: &[u8], at: usize) -> Option<[u8; N]> {
    message.get(at..)?.first_chunk::<N>().copied()
}

/// The payload of the first attribute of a kind.
fn attribute(message: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = message.get(NETLINK_HEADER + GENERIC_HEADER..)?;
    loop {
        let len = usize::from(u16::from_ne_bytes(field(rest, 0)?));
        let found = u16::from_ne_bytes(field(rest, 2)?);
        let payload = rest.get(ATTRIBUTE_HEADER..len)?;
        if found == kind {
            return Some(payload);
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_garbage_is_not() {
        let message = request(7, 1, 4, 9, b"abc");
        assert_eq!(attribute(&message, 9), Some(&b"abc"[..]));
        assert_eq!(attribute(&message, 8), None);
        assert_eq!(attribute(b"short", 1), None);
        let mut endless = message;
        endless[20..22].copy_from_slice(&0u16.to_ne_bytes());
        assert_eq!(attribute(&endless, 8), None);
    }
}
