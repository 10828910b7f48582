//! How much one peer may take: a share of the connections and a rate of
//! requests, so that one that misbehaves leaves room for the others.
//!
//! A peer is an address; of IPv6, the network of 64 bits, all of which one
//! machine may use.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What a request whose sender is unknown costs more than others: guessing
/// tokens is slowed down before it reaches whoever knows them.
const UNKNOWN: f64 = 9.0;

/// All peers. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Peers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    share: usize,
    rate: f64,
    most: usize,
    peers: Mutex<HashMap<IpAddr, State>>,
}

#[derive(Debug)]
struct State {
    connections: usize,
    /// Requests it may make at once; grows with time.
    allowance: f64,
    at: Instant,
}

impl State {
    fn earn(&mut self, rate: f64, now: Instant) {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * rate;
        self.allowance = (self.allowance + earned).min(2.0 * rate);
        self.at = now;
    }
}

impl Shared {
    fn peers(&self) -> MutexGuard<'_, HashMap<IpAddr, State>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peers {
    /// Peers that may have `share` connections and make `rate` requests a second
    /// each. `most` are remembered; without a connection one is remembered only
    /// until it has its full allowance again.
    pub(super) fn new(share: usize, rate: u32, most: usize) -> Peers {
        Peers(Arc::new(Shared { share, rate: f64::from(rate), most, peers: Mutex::default() }))
    }

    /// Counts a connection until it is dropped, and tells whether it is within
    /// the peer's share. `None` when there are more peers than can be told apart.
    pub(super) fn connect(&self, address: IpAddr) -> Option<(Peer, bool)> {
        let address = network(address);
        let mut peers = self.0.peers();
        if peers.len() >= self.0.most && !peers.contains_key(&address) {
            return None;
        }
        let fresh = || State { connections: 0, allowance: 2.0 * self.0.rate, at: Instant::now() };
        let state = peers.entry(address).or_insert_with(fresh);
        state.connections += 1;
        let within = state.connections <= self.0.share;
        Some((Peer { address, peers: Arc::clone(&self.0) }, within))
    }

    /// Forgets peers without a connection that may do everything again.
    pub(super) fn tidy(&self) {
        let (rate, now) = (self.0.rate, Instant::now());
        self.0.peers().retain(|_, state| {
            state.earn(rate, now);
            state.connections > 0 || state.allowance < 2.0 * rate
        });
    }
}

/// One connection of a peer.
#[derive(Debug)]
pub(super) struct Peer {
    address: IpAddr,
    peers: Arc<Shared>,
}

impl Peer {
    /// A request came; whether the peer may make it.
    pub(super) fn request(&self) -> bool {
        self.take(1.0, Instant::now())
    }

    /// The sender of the last request is unknown.
    pub(super) fn unknown(&self) {
        self.take(UNKNOWN, Instant::now());
    }

    fn take(&self, cost: f64, now: Instant) -> bool {
        let mut peers = self.peers.peers();
        let Some(state) = peers.get_mut(&self.address) else { return false };
        state.earn(self.peers.rate, now);
        let may = state.allowance >= 1.0;
        if may {
            state.allowance = (state.allowance - cost).max(0.0);
        }
        may
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(state) = self.peers.peers().get_mut(&self.address) {
            state.connections = state.connections.saturating_sub(1);
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_share_of_the_connections() {
        let peers = Peers::new(2, 10, 100);
        let connect = |text: &str| peers.connect(address(text)).unwrap();
        let one = connect("10.0.0.1");
        let two = connect("::ffff:10.0.0.1");
        let three = connect("10.0.0.1");
        assert_eq!([one.1, two.1, three.1, connect("10.0.0.2").1], [true, true, false, true]);
        drop((two, three));
        assert!(connect("10.0.0.1").1);
        let _near = (connect("2001:db8::1"), connect("2001:db8::2"));
        assert!(!connect("2001:db8:0:0:ffff::3").1 && connect("2001:db8:0:1::1").1);
    }

    #[test]
    fn a_rate_of_requests() {
        let peers = Peers::new(9, 10, 100);
        let (peer, _) = peers.connect(address("10.0.0.1")).unwrap();
        let start = Instant::now();
        let made = |now| (0..100).filter(|_| peer.take(1.0, now)).count();
        assert_eq!((made(start), made(start + Duration::from_secs(1))), (20, 10));
        assert!(peer.take(1.0, start + Duration::from_secs(2)));
        peer.take(UNKNOWN, start + Duration::from_secs(2));
        assert_eq!(made(start + Duration::from_secs(2)), 0, "nine more for one whose sender is unknown");
        let (other, _) = peers.connect(address("10.0.0.2")).unwrap();
        assert!(other.request());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let peers = Peers::new(9, 10, 100);
        for n in 0_u32..100 {
            drop(peers.connect(IpAddr::from(n.to_be_bytes())));
        }
        assert!(peers.connect(address("200.0.0.1")).is_none());
        peers.tidy();
        assert!(peers.0.peers().is_empty() && peers.connect(address("200.0.0.1")).is_some());
    }
}
