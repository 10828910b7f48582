//! The counters of one kubelet's things as they were before: what rates start from.
//!
//! A kubelet reads each cgroup in its own time, and CPU, memory and network of one
//! pod not together: each of these has windows of its own. An answer that brings the
//! same sample again leaves the base where it is, and has the same rise again for a
//! while: kubelets read every ten to fifteen seconds, and may be asked more often.

use std::collections::HashMap;

use crate::rate::{MAX_WINDOW, Moment, Window, increase};

/// For so long a sample that comes again has its rise, milliseconds: three times as
/// long as a kubelet takes to read again.
const AGAIN_MS: u64 = 45_000;

/// What is read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Group {
    Cpu,
    Memory,
    Network,
}

/// Counters of one group, at most so many.
pub(super) type Counters = [Option<u64>; 4];

/// How much they rose, and over which time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rise {
    pub(super) window: Window,
    pub(super) increases: Counters,
}

#[derive(Debug)]
struct Base {
    start: Option<u64>,
    taken_ns: u64,
    counters: Counters,
    /// When the kubelet told it, by our clock, milliseconds since the epoch.
    told_ms: u64,
    /// When it was told first.
    first_ms: u64,
    rise: Option<Rise>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Bases(HashMap<(String, Group), Base>);

impl Bases {
    /// How much counters rose since they were told before; they are what the next
    /// rise is counted from.
    pub(super) fn rise(
        &mut self,
        of: (&str, Group),
        start: Option<u64>,
        taken_ns: u64,
        counters: Counters,
        now_ms: u64,
    ) -> Option<Rise> {
        let (id, group) = of;
        let later = Base { start, taken_ns, counters, told_ms: now_ms, first_ms: now_ms, rise: None };
        let key = (id.to_owned(), group);
        let Some(base) = self.0.get_mut(&key) else {
            self.0.insert(key, later);
            return None;
        };
        if base.start == start && base.taken_ns == taken_ns {
            base.told_ms = now_ms;
            return base.rise.filter(|_| now_ms.saturating_sub(base.first_ms) <= AGAIN_MS);
        }
        let moment = |base: &Base| Moment { id: "", start: base.start, taken_ns: base.taken_ns };
        let window = Window::between(&moment(base), &moment(&later));
        let mut increases = [None; 4];
        for ((out, earlier), later) in increases.iter_mut().zip(base.counters).zip(counters) {
            *out = increase(earlier, later);
        }
        let rise = window.map(|window| Rise { window, increases });
        *base = Base { rise, ..later };
        rise
    }

    /// Forgets what was not told for too long to have a rate again.
    pub(super) fn forget(&mut self, now_ms: u64) {
        let most = u64::try_from(MAX_WINDOW.as_millis()).unwrap_or(u64::MAX);
        self.0.retain(|_, base| now_ms.saturating_sub(base.told_ms) <= most);
    }
}

/// An increase over `own`, as it would have been over `window`.
pub(super) fn scaled(increase: u64, own: Window, window: Window) -> u64 {
    if own == window {
        return increase;
    }
    let scaled = u128::from(increase) * u128::from(window.ns()) / u128::from(own.ns());
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn rates_need_the_same_life_a_newer_sample_and_no_reset() {
        let mut bases = Bases::default();
        let now = std::cell::Cell::new(0);
        let mut check = |start: u64, taken: u64, value: u64, expected: Option<(u64, Option<u64>)>| {
            let counters = [Some(value), None, None, None];
            now.set(now.get() + 20_000);
            let rise = bases.rise(("a", Group::Cpu), Some(start), taken * S, counters, now.get());
            let got = rise.map(|r| (r.window.ns() / S, r.increases[0]));
            assert_eq!(got, expected, "{start} {taken} {value}");
        };
        check(1, 100, 5, None);
        check(1, 160, 11, Some((60, Some(6))));
        // The same sample again, then for too long, and then one after it.
        check(1, 160, 11, Some((60, Some(6))));
        check(1, 160, 11, Some((60, Some(6))));
        check(1, 160, 11, None);
        check(1, 220, 12, Some((60, Some(1))));
        // Counted from anew.
        check(1, 280, 3, Some((60, None)));
        check(1, 340, 4, Some((60, Some(1))));
        // Another run.
        check(2, 400, 9, None);
        check(2, 460, 9, Some((60, Some(0))));
        // The node's clock was set back.
        check(2, 10, 10, None);
        check(2, 70, 12, Some((60, Some(2))));
    }

    #[test]
    fn what_is_not_told_is_forgotten() {
        let mut bases = Bases::default();
        bases.rise(("a", Group::Cpu), None, S, [None; 4], 1_000);
        bases.forget(901_000);
        assert_eq!(bases.0.len(), 1);
        bases.forget(901_001);
        assert!(bases.0.is_empty());
    }

    #[test]
    fn increases_are_scaled_without_loss_of_the_rate() {
        let window = |ns| Window::from_ns(ns).unwrap();
        assert_eq!(scaled(600, window(60), window(30)), 300);
        assert_eq!(scaled(7, window(10), window(10)), 7);
        assert_eq!(scaled(u64::MAX, window(1), window(10)), u64::MAX);
    }
}
