//! Two readings of a counter → how much it rose, and how fast: the one place
//! where rates are made, for push and for sources that are pulled.
//!
//! A rate needs the same thing twice: the same container, by its id and by its
//! start, measured again at a later moment of the same clock; and a counter that
//! has not begun again in between. Otherwise there is no rate, which is not a
//! rate of 0. So a rate is never negative, whatever happens:
//!
//! - **restart**: a new run has another id or start, and no rate before its second sample;
//! - **reset**: a counter that fell has no rate for that window; others of the same container do;
//! - **gap**: samples may be any distance apart, up to [`MAX_WINDOW`]; the rate is the mean over all of it;
//! - **clock jumps**: moments come from a clock that is never set (monotonic for push,
//!   the samples' own stamps for pull) and a sample that is not newer has no rate.

use std::num::NonZeroU64;
use std::time::Duration;

/// Samples further apart than this have no rate between them: it would say
/// nothing of the moment it is stamped with.
pub const MAX_WINDOW: Duration = Duration::from_secs(15 * 60);

/// One measurement of a thing: which life of it, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment<'a> {
    /// What tells this thing from all others: a container's id, a cgroup's path.
    pub id: &'a str,
    /// When this life of it began, in any unit; what is not known equals only
    /// what is not known.
    pub start: Option<u64>,
    /// When it was measured: nanoseconds of a clock that is never set back.
    pub taken_ns: u64,
}

/// The time between two measurements of the same life of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window(NonZeroU64);

impl Window {
    /// The window from `earlier` to `later`, if rates may be taken over it.
    pub fn between(earlier: &Moment<'_>, later: &Moment<'_>) -> Option<Window> {
        if earlier.id != later.id || earlier.start != later.start {
            return None;
        }
        let ns = later.taken_ns.checked_sub(earlier.taken_ns)?;
        if Duration::from_nanos(ns) > MAX_WINDOW {
            return None;
        }
        Window::from_ns(ns)
    }

    /// A window of that length; `None` for no length.
    pub fn from_ns(ns: u64) -> Option<Window> {
        NonZeroU64::new(ns).map(Window)
    }

    /// Its length, nanoseconds.
    pub fn ns(self) -> u64 {
        self.0.get()
    }

    /// What `increase` comes to in one second.
    pub fn per_second(self, increase: u64) -> f64 {
        // Counters stay far below 2^53 within a window; beyond it a rate is
        // rounded, like every double.
        increase as f64 * 1e9 / self.0.get() as f64
    }

    /// What an increase in nanoseconds of CPU time comes to in thousandths of a
    /// core, truncated as Heapster does it.
    pub fn millicores(self, increase: u64) -> u64 {
        self.parts(increase, 1_000)
    }

    /// The same in billionths of a core.
    pub fn nanocores(self, increase: u64) -> u64 {
        self.parts(increase, 1_000_000_000)
    }

    fn parts(self, increase: u64, of_one: u32) -> u64 {
        let parts = u128::from(increase) * u128::from(of_one) / u128::from(self.0.get());
        u64::try_from(parts).unwrap_or(u64::MAX)
    }
}

/// How much a counter rose; `None` where it was not there both times, or began again.
pub fn increase(earlier: Option<u64>, later: Option<u64>) -> Option<u64> {
    later?.checked_sub(earlier?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(earlier: (&str, Option<u64>, u64), later: (&str, Option<u64>, u64), expected: Option<u64>) {
        let moment = |(id, start, taken_ns)| Moment { id, start, taken_ns };
        let window = Window::between(&moment(earlier), &moment(later));
        assert_eq!(window.map(Window::ns), expected, "{earlier:?} {later:?}");
    }

    #[test]
    fn windows_need_the_same_life_and_a_later_sample() {
        check(("a", Some(1), 10), ("a", Some(1), 25), Some(15));
        check(("a", None, 10), ("a", None, 25), Some(15));
        check(("a", Some(1), 10), ("b", Some(1), 25), None);
        check(("a", Some(1), 10), ("a", Some(2), 25), None);
        check(("a", None, 10), ("a", Some(2), 25), None);
        check(("a", Some(1), 10), ("a", Some(1), 10), None);
        check(("a", Some(1), 10), ("a", Some(1), 9), None);
        let most = u64::try_from(MAX_WINDOW.as_nanos()).unwrap();
        check(("a", Some(1), 10), ("a", Some(1), most + 10), Some(most));
        check(("a", Some(1), 10), ("a", Some(1), most + 11), None);
    }

    #[test]
    fn rates_are_what_heapster_makes_of_them() {
        let window = Window::from_ns(15_000_000_000).unwrap();
        assert_eq!(window.millicores(149_999_999), 9);
        assert_eq!(window.millicores(150_000_000), 10);
        assert_eq!(window.nanocores(149_999_999), 9_999_999);
        assert!((window.per_second(30) - 2.0).abs() < f64::EPSILON);
        assert_eq!(window.per_second(0), 0.0);
        assert_eq!(Window::from_ns(1).unwrap().millicores(u64::MAX), u64::MAX);
        assert_eq!(Window::from_ns(0), None);
    }

    /// What happens to a container between two samples.
    #[derive(Debug, Clone)]
    enum Event {
        Use(u64),
        Restart,
        Reset,
        Pass(u64),
        SetBack(u64),
        Sample,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0_u64..1 << 40).prop_map(Event::Use),
            Just(Event::Restart),
            Just(Event::Reset),
            (0_u64..2_000_000_000_000).prop_map(Event::Pass),
            (0_u64..2_000_000_000).prop_map(Event::SetBack),
            Just(Event::Sample),
            Just(Event::Sample),
        ]
    }

    proptest! {
        /// Against a container whose use is known: a rate is what was used over
        /// what passed, unless something began again, in which case there is
        /// none or one that is not negative.
        #[test]
        fn rates_hold_through_everything(events in prop::collection::vec(event(), 1..60)) {
            let (mut counter, mut now, mut start) = (0_u64, 1_u64 << 50, 0_u64);
            let mut last: Option<(u64, u64, u64)> = None;
            let (mut used, mut whole) = (0_u64, true);
            for event in events {
                match event {
                    Event::Use(ns) => {
                        counter += ns;
                        used += ns;
                    }
                    Event::Restart => (counter, start) = (0, start + 1),
                    Event::Reset => (counter, whole) = (0, false),
                    Event::Pass(ns) => now += ns,
                    Event::SetBack(ns) => now -= ns,
                    Event::Sample => {
                        let later = Moment { id: "a", start: Some(start), taken_ns: now };
                        if let Some((before, then, began)) = last {
                            let earlier = Moment { id: "a", start: Some(began), taken_ns: then };
                            let window = Window::between(&earlier, &later);
                            let possible = began == start && now > then && now - then <= 900_000_000_000;
                            prop_assert_eq!(window.is_some(), possible);
                            let rise = increase(Some(before), Some(counter));
                            prop_assert_eq!(rise.is_some(), counter >= before);
                            if let (Some(window), Some(rise)) = (window, rise) {
                                prop_assert!(window.per_second(rise) >= 0.0);
                                if whole {
                                    prop_assert_eq!(rise, used);
                                }
                            }
                        }
                        last = Some((counter, now, start));
                        (used, whole) = (0, true);
                    }
                }
            }
        }
    }
}
