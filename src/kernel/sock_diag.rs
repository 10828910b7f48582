//! Sockets of a network namespace over netlink.
//!
//! A dump of the SOCK_DIAG family walks the sockets of the namespace that the asking
//! socket was made in, and needs no capability there. `/proc/<pid>/net/tcp` tells the
//! same and takes twenty times as long, since it walks the table of the whole machine
//! and writes text. The structures are those of linux/netlink.h and linux/inet_diag.h.
//!
//! Another namespace has to be entered for the moment in which the socket is made and
//! asked, which takes CAP_SYS_ADMIN, and CAP_SYS_PTRACE to find its entrance.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::{ReadError, file};
use crate::snapshot::{Queues, SocketStates};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
const REQUEST: usize = 72;

/// Offsets in `struct inet_diag_msg`.
const STATE: usize = 1;
const RECEIVE_QUEUE: usize = 56;
const TRANSMIT_QUEUE: usize = 60;

/// The kernel fills pages of up to 32 KiB when it is given so much room.
const ROOM: usize = 32 << 10;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A request that has been accepted but is not finished: SYN_RECV in `/proc`.
const NEW_SYN_RECV: u8 = 12;
const SYN_RECV: u8 = 3;

/// Asks for sockets. It is its thread that enters other namespaces.
#[derive(Debug)]
pub struct SockDiag {
    /// The namespace the thread comes from.
    home: OwnedFd,
    answer: Vec<u8>,
    sequence: u32,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The namespace cannot be entered, or asking failed there.
    There(ReadError),
    /// The way back failed: the thread has to end, since it is elsewhere now.
    Astray(ReadError),
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// TCP sockets by state.
    pub tcp: bool,
    /// What waits in UDP sockets.
    pub udp: bool,
}

/// What a part of an answer leaves to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// More parts come.
    More,
    /// It was the last.
    None,
}

impl SockDiag {
    /// Prepares to ask from the calling thread, of which `proc` shows the namespace.
    ///
    /// # Errors
    /// `proc` does not show it.
    pub fn new(proc: &Path) -> Result<SockDiag, ReadError> {
        let home = file::open(&proc.join("thread-self/ns/net"))?;
        Ok(SockDiag { home, answer: vec![0; ROOM], sequence: 0 })
    }

    /// Asks about the namespace the thread is in.
    ///
    /// # Errors
    /// The kernel has no SOCK_DIAG, or does not answer.
    pub fn here(&mut self, wanted: Wanted) -> Result<SocketStates, ReadError> {
        let protocol = SockProtocol::NetlinkSockDiag;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(1))?;
        let states = SocketStates {
            tcp: self.dump(&socket, (AF_INET, TCP), wanted.tcp, count)?,
            tcp6: self.dump(&socket, (AF_INET6, TCP), wanted.tcp, count)?,
            udp: self.dump(&socket, (AF_INET, UDP), wanted.udp, add)?,
            udp6: self.dump(&socket, (AF_INET6, UDP), wanted.udp, add)?,
        };
        if states == SocketStates::default() { Err(ReadError::Unsupported) } else { Ok(states) }
    }

    /// Asks about the namespace of a process, whose directory below `/proc` is given, and
    /// comes back.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn there(&mut self, process: &Path, wanted: Wanted) -> Result<SocketStates, Refused> {
        let namespace = file::open(&process.join("ns/net")).map_err(Refused::There)?;
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|e| Refused::There(e.into()))?;
        let states = self.here(wanted);
        setns(&self.home, CloneFlags::CLONE_NEWNET).map_err(|e| Refused::Astray(e.into()))?;
        states.map_err(Refused::There)
    }

    /// Adds up the sockets of a family and a protocol; `None` if they are not wanted, or this
    /// kernel does not list them.
    fn dump<T: Default>(
        &mut self,
        socket: &OwnedFd,
        (family, protocol): (u8, u8),
        wanted: bool,
        add: fn(&mut T, &[u8]),
    ) -> Result<Option<T>, ReadError> {
        if !wanted {
            return Ok(None);
        }
        let mut sum = T::default();
        self.sequence = self.sequence.wrapping_add(1);
        send(socket.as_raw_fd(), &request(self.sequence, family, protocol), MsgFlags::empty())?;
        loop {
            let len = match recv(socket.as_raw_fd(), &mut self.answer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let part = self.answer.get(..len).unwrap_or(&[]);
            match messages(part, self.sequence, |message| add(&mut sum, message)) {
                Ok(Rest::More) => {}
                Ok(Rest::None) => return Ok(Some(sum)),
                Err(ReadError::Unsupported) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// A dump of all sockets of a family and a protocol, in all states: `struct nlmsghdr`
/// and `struct inet_diag_req_v2`.
fn request(sequence: u32, family: u8, protocol: u8) -> Vec<u8> {
    let mut message = Vec::with_capacity(REQUEST);
    message.extend_from_slice(&u32::try_from(REQUEST).unwrap_or(0).to_ne_bytes());
    message.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    message.extend_from_slice(&sequence.to_ne_bytes());
    message.extend_from_slice(&0u32.to_ne_bytes());
    message.extend_from_slice(&[family, protocol, 0, 0]);
    message.extend_from_slice(&u32::MAX.to_ne_bytes());
    message.resize(REQUEST, 0);
    message
}

fn field<const N: usize>(message: &[u8], at: usize) -> Option<[u8; N]> {
    message.get(at..)?.first_chunk::<N>().copied()
}

/// Calls `each` with the payload of every socket in one part of the answer to the request
/// `sequence`.
///
/// # Errors
/// The kernel refused, or the bytes are no such answer.
pub fn messages(part: &[u8], sequence: u32, mut each: impl FnMut(&[u8])) -> Result<Rest, ReadError> {
    const BAD: ReadError = ReadError::Malformed { line: 1 };
    let mut rest = part;
    while !rest.is_empty() {
        let len = field(rest, 0).map(u32::from_ne_bytes).and_then(|len| usize::try_from(len).ok());
        let (message, tail) = match len {
            Some(len) if len >= HEADER => {
                let message = rest.get(..len).ok_or(BAD)?;
                (message, rest.get(len.next_multiple_of(4)..).unwrap_or(&[]))
            }
            _ => return Err(BAD),
        };
        rest = tail;
        // The answer to a request that timed out may still come.
        if field(message, 8) != Some(sequence.to_ne_bytes()) {
            continue;
        }
        match field(message, 4).map(u16::from_ne_bytes) {
            Some(NLMSG_DONE) => return Ok(Rest::None),
            Some(NLMSG_ERROR) => {
                let code = field(message, HEADER).map_or(0, i32::from_ne_bytes);
                let errno = Errno::from_raw(code.saturating_neg());
                // No module for this protocol, and a kernel without any of it.
                let missing = matches!(errno, Errno::ENOENT | Errno::EINVAL | Errno::EPROTONOSUPPORT);
                return Err(if missing { ReadError::Unsupported } else { errno.into() });
            }
            _ => each(message.get(HEADER..).unwrap_or(&[])),
        }
    }
    Ok(Rest::More)
}

fn count(states: &mut [u64; 11], socket: &[u8]) {
    let state = match socket.get(STATE) {
        Some(&NEW_SYN_RECV) => SYN_RECV,
        Some(&state) => state,
        None => return,
    };
    if let Some(count) = usize::from(state).checked_sub(1).and_then(|at| states.get_mut(at)) {
        *count += 1;
    }
}

fn add(queues: &mut Queues, socket: &[u8]) {
    let bytes = |at| field(socket, at).map_or(0, |b| u64::from(u32::from_ne_bytes(b)));
    queues.receive = queues.receive.saturating_add(bytes(RECEIVE_QUEUE));
    queues.transmit = queues.transmit.saturating_add(bytes(TRANSMIT_QUEUE));
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};

    use super::*;

    fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut message = request(sequence, 0, 0);
        message.truncate(HEADER);
        message.extend_from_slice(payload);
        let len = u32::try_from(message.len()).unwrap();
        message[..4].copy_from_slice(&len.to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message
    }

    #[test]
    fn answers_come_in_parts() {
        let mut socket = vec![0; 72];
        socket[STATE] = 10;
        let parts = [message(20, 7, &socket), message(20, 6, &socket), message(20, 7, &socket)].concat();
        let mut states = [0; 11];
        assert_eq!(messages(&parts, 7, |m| count(&mut states, m)), Ok(Rest::More));
        assert_eq!(states, [0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        let end = [message(20, 7, &socket), message(NLMSG_DONE, 7, &[0; 4])].concat();
        assert_eq!(messages(&end, 7, |m| count(&mut states, m)), Ok(Rest::None));
        let refused = message(NLMSG_ERROR, 7, &(-1i32).to_ne_bytes());
        assert_eq!(messages(&refused, 7, |_| ()), Err(ReadError::Denied));
        let missing = message(NLMSG_ERROR, 7, &(-2i32).to_ne_bytes());
        assert_eq!(messages(&missing, 7, |_| ()), Err(ReadError::Unsupported));
        for damaged in [&parts[..5], &parts[..40], &[0; 16][..]] {
            assert_eq!(messages(damaged, 7, |_| ()), Err(ReadError::Malformed { line: 1 }));
        }
    }

    /// On kernels that have it: sockets of this very process are among those told.
    #[test]
    fn own_sockets_are_told() {
        let mut diag = SockDiag::new(Path::new("/proc")).unwrap();
        let wanted = Wanted { tcp: true, udp: true };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let _stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        receiver.send_to(&[0; 700], receiver.local_addr().unwrap()).unwrap();
        let six = TcpListener::bind((Ipv6Addr::LOCALHOST, 0));
        match diag.here(wanted) {
            Ok(states) => {
                assert!(states.tcp.unwrap()[9] >= 1, "{states:?}");
                assert!(states.tcp.unwrap()[0] >= 2, "{states:?}");
                assert!(states.udp.is_none_or(|udp| udp.receive >= 700), "{states:?}");
                assert!(six.is_err() || states.tcp6.is_none_or(|tcp| tcp[9] >= 1), "{states:?}");
            }
            Err(error) => assert_eq!(error, ReadError::Unsupported),
        }
    }
}
