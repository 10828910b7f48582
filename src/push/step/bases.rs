//! The counters of each cgroup at the last step it was in: what rates start from.

use std::collections::HashMap;
use std::time::Duration;

use super::values::{COUNTERS, DEVICE_COUNTERS, traffic};
use super::who::Row;
use crate::rate::{MAX_WINDOW, Moment, Window, increase};
use crate::snapshot::{CgroupSample, Reading, reading};

/// How much the counters of a cgroup rose since the last step it was in.
#[derive(Debug, Clone, Default)]
pub(super) struct Rise {
    /// Over which time; `None` where rates cannot be taken.
    pub(super) window: Option<Window>,
    /// In the order of [`COUNTERS`].
    pub(super) counters: [Reading; COUNTERS.len()],
    /// Received bytes and errors, sent bytes and errors.
    pub(super) network: Option<[Reading; 4]>,
    /// For each of the sample's devices, in the order of [`DEVICE_COUNTERS`].
    pub(super) devices: Vec<[Reading; DEVICE_COUNTERS.len()]>,
}

#[derive(Debug)]
struct Base {
    start: Option<u64>,
    taken_ns: u64,
    counters: [Reading; COUNTERS.len()],
    network: Option<[u64; 4]>,
    devices: Vec<((u32, u32), [Reading; DEVICE_COUNTERS.len()])>,
}

impl Base {
    fn new(sample: &CgroupSample, taken_ns: u64) -> Base {
        Base {
            start: sample.cgroup.created,
            taken_ns,
            counters: COUNTERS.map(|c| (c.get)(sample)),
            network: traffic(sample).map(|t| t.rated()),
            devices: sample
                .io
                .iter()
                .map(|d| ((d.major, d.minor), DEVICE_COUNTERS.map(|c| (c.get)(d))))
                .collect(),
        }
    }
}

/// The last step's counters, by cgroup path.
#[derive(Debug, Default)]
pub(super) struct Bases(HashMap<Box<str>, Box<Base>>);

impl Bases {
    /// How much the row's counters rose; it is the base of the next step then.
    pub(super) fn rise(&mut self, row: &Row<'_>) -> Rise {
        let path = row.sample.cgroup.path.as_str();
        let later = Base::new(row.sample, row.taken_ns);
        let Some(base) = self.0.get_mut(path) else {
            // A table has room for up to twice as many: of pointers rather than of counters.
            self.0.insert(path.into(), Box::new(later));
            return Rise::default();
        };
        let rise = rise(path, base, &later);
        **base = later;
        rise
    }

    /// Forgets cgroups that are gone, if the name is not back, and what was last seen too
    /// long before `now` to have a rate again.
    pub(super) fn forget<'a>(&mut self, now: Duration, gone: impl IntoIterator<Item = &'a str>) {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let now_ns = ns(now);
        for path in gone {
            if self.0.get(path).is_some_and(|base| base.taken_ns < now_ns) {
                self.0.remove(path);
            }
        }
        let oldest = ns(now.saturating_sub(MAX_WINDOW));
        self.0.retain(|_, base| base.taken_ns >= oldest);
    }
}

fn rise(path: &str, earlier: &Base, later: &Base) -> Rise {
    let moment = |base: &Base| Moment { id: path, start: base.start, taken_ns: base.taken_ns };
    let Some(window) = Window::between(&moment(earlier), &moment(later)) else { return Rise::default() };
    let mut counters = [None; COUNTERS.len()];
    risen(&mut counters, &earlier.counters, &later.counters);
    let network = earlier.network.zip(later.network).map(|(earlier, later)| {
        let mut network = [None; 4];
        risen(&mut network, &earlier.map(reading), &later.map(reading));
        network
    });
    let devices = later.devices.iter().map(|(device, later)| {
        let mut counters = [None; DEVICE_COUNTERS.len()];
        if let Some((_, earlier)) = earlier.devices.iter().find(|(d, _)| d == device) {
            risen(&mut counters, earlier, later);
        }
        counters
    });
    Rise { window: Some(window), counters, network, devices: devices.collect() }
}

fn risen(out: &mut [Reading], earlier: &[Reading], later: &[Reading]) {
    for ((out, earlier), later) in out.iter_mut().zip(earlier).zip(later) {
        *out = increase(earlier.map(u64::from), later.map(u64::from)).and_then(reading);
    }
}
