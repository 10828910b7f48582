//! Figures of the kinds that are off by default, as one list, so that a history keeps
//! their differences as it does those of all others: of a cgroup that has none of them
//! the list is empty, and takes nothing.

use crate::snapshot::{
    CgroupSample, Extra, NumaPages, Pages, Queues, Reading, SchedStats, SocketStates, SocketStats,
    TCP_FIGURES, TcpFigures, reading,
};
use nonmax::NonMaxI64;

use super::{ABSENT, difference, push_varint, varint, without};

/// NUMA nodes beyond these are of the newest sample only.
const MAX_NODES: usize = 64;

/// Figures of a node: its number, pages of the cgroup alone, pages of the subtree.
const OF_NODE: usize = 7;

/// Figures before those of nodes: four of scheduler and cpuset, seven counts of sockets,
/// the states of two protocols, two queues of two, and what TCP did.
const FIXED: usize = 4 + 7 + 2 * 11 + 2 * 2 + TCP_FIGURES.len();

/// The figures of one cgroup at one moment: of the scheduler, `memory_migrate`, sockets,
/// TCP, and those of each NUMA node. What is absent at the end is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extras(Vec<u64>);

impl Extras {
    /// That nothing is known.
    pub(super) const NONE: Extras = Extras(Vec::new());

    /// Those of a row.
    pub fn of(row: &CgroupSample) -> Extras {
        let mut extras = Extras::NONE;
        extras.set(row);
        extras
    }

    /// Becomes those of `row`.
    pub(super) fn set(&mut self, row: &CgroupSample) {
        self.0.clear();
        if let Some(extra) = &row.extra {
            self.fill(extra);
        }
        self.trim();
    }

    fn fill(&mut self, extra: &Extra) {
        let Extra { sched, memory_migrate, numa, sockets, tcp } = extra;
        let of = |reading: Reading| reading.map_or(ABSENT, |value| value.get());
        let SocketStates { tcp: states, tcp6, udp, udp6 } = &sockets.asked;
        self.0.extend([sched.run_ns, sched.wait_ns, sched.slices, *memory_migrate].map(of));
        let SocketStats { tcp_in_use, tcp6_in_use, tcp_time_wait, .. } = *sockets;
        let SocketStats { udp_in_use, udp6_in_use, udp_errors, udp6_errors, .. } = *sockets;
        self.0.extend([tcp_in_use, tcp6_in_use, tcp_time_wait].map(of));
        self.0.extend([udp_in_use, udp6_in_use, udp_errors, udp6_errors].map(of));
        for states in [states, tcp6] {
            self.0.extend(states.unwrap_or([ABSENT; 11]));
        }
        for queues in [udp, udp6] {
            self.0.extend(queues.map_or([ABSENT; 2], |q| [q.receive, q.transmit]));
        }
        let figures = tcp.0.iter().copied().chain(std::iter::repeat(None)).take(TCP_FIGURES.len());
        self.0.extend(figures.map(|figure| figure.map_or(ABSENT, unsigned)));
        for NumaPages { node, own, subtree } in numa.iter().take(MAX_NODES) {
            self.0.push(u64::from(*node));
            for Pages { file, anon, unevictable } in [own, subtree] {
                self.0.extend([*file, *anon, *unevictable].map(of));
            }
        }
    }

    /// What the row had; `None` where it had none of them.
    pub fn get(&self) -> Option<Extra> {
        if self.0.is_empty() {
            return None;
        }
        let (fixed, of_nodes) = self.0.split_at_checked(FIXED).unwrap_or((&self.0, &[]));
        let mut rest = fixed.iter().copied();
        let mut told = || reading(rest.next().unwrap_or(ABSENT));
        let sched = SchedStats { run_ns: told(), wait_ns: told(), slices: told() };
        let memory_migrate = told();
        let mut sockets = SocketStats {
            tcp_in_use: told(),
            tcp6_in_use: told(),
            tcp_time_wait: told(),
            udp_in_use: told(),
            udp6_in_use: told(),
            udp_errors: told(),
            udp6_errors: told(),
            asked: SocketStates::default(),
        };
        let mut states = || {
            let states: [u64; 11] = std::array::from_fn(|_| told().map_or(ABSENT, u64::from));
            (!states.contains(&ABSENT)).then_some(states)
        };
        (sockets.asked.tcp, sockets.asked.tcp6) = (states(), states());
        let mut queues = || {
            let both = [told(), told()].map(|queue| queue.map(u64::from));
            Some(Queues { receive: both[0]?, transmit: both[1]? })
        };
        (sockets.asked.udp, sockets.asked.udp6) = (queues(), queues());
        let mut tcp: Vec<_> =
            TCP_FIGURES.iter().map(|_| told().and_then(|value| signed(value.get()))).collect();
        if tcp.iter().all(Option::is_none) {
            tcp.clear();
        }
        let numa = of_nodes.chunks(OF_NODE).filter_map(of_node).collect();
        Some(Extra { sched, memory_migrate, numa, sockets, tcp: TcpFigures(tcp) })
    }

    fn trim(&mut self) {
        let told = self.0.iter().rposition(|figure| *figure != ABSENT);
        self.0.truncate(told.map_or(0, |last| last + 1));
    }

    /// Appends to a record what leads from `self` to `new`: for each figure that changed,
    /// how many did not before it, and the difference.
    pub(super) fn encode(&self, new: &Extras, out: &mut Vec<u8>) {
        let figure = |of: &Extras, at: usize| of.0.get(at).copied().unwrap_or(ABSENT);
        let mut same = 0;
        for at in 0..self.0.len().max(new.0.len()) {
            let (old, new) = (figure(self, at), figure(new, at));
            if old == new {
                same += 1;
                continue;
            }
            push_varint(out, std::mem::take(&mut same));
            push_varint(out, difference(old, new));
        }
    }

    /// Makes it what it was before the rest of a record.
    pub(super) fn undo(&mut self, bytes: &mut impl Iterator<Item = u8>) -> Option<()> {
        let mut at = 0_usize;
        while let Some(same) = varint(bytes) {
            at = at.checked_add(usize::try_from(same).ok()?)?;
            // No record of ours goes further.
            if at >= FIXED + MAX_NODES * OF_NODE {
                return None;
            }
            if at >= self.0.len() {
                self.0.resize(at + 1, ABSENT);
            }
            let figure = self.0.get_mut(at)?;
            *figure = without(*figure, varint(bytes)?);
            at += 1;
        }
        self.trim();
        Some(())
    }

    /// Makes it the same as another, without allocating where there is room.
    pub(super) fn copy(&mut self, other: &Extras) {
        self.0.clear();
        self.0.extend_from_slice(&other.0);
    }
}

/// Such that small numbers are small, and none is the one that stands for absence. The
/// least of all, which nothing counts, comes back as absent.
fn unsigned(figure: NonMaxI64) -> u64 {
    let value = figure.get();
    value.cast_unsigned().wrapping_sub(u64::from(value < 0))
}

fn signed(figure: u64) -> Option<NonMaxI64> {
    let value = figure.cast_signed();
    NonMaxI64::new(if value < 0 { value.wrapping_add(1) } else { value })
}

fn of_node(figures: &[u64]) -> Option<NumaPages> {
    let told = |at: usize| figures.get(at).copied().and_then(reading);
    let pages = |at| Pages { file: told(at), anon: told(at + 1), unevictable: told(at + 2) };
    let node = u32::try_from(told(0)?.get()).ok()?;
    Some(NumaPages { node, own: pages(1), subtree: pages(4) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_come_back() {
        for value in [0, 1, -1, 7, i64::MAX - 1, i64::MIN + 1] {
            let figure = NonMaxI64::new(value).unwrap();
            assert_ne!(unsigned(figure), ABSENT);
            assert_eq!(signed(unsigned(figure)), Some(figure), "{value}");
        }
    }
}
