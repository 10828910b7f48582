//! What the kinds cost that are off by default, measured here.

use nix::time::{ClockId, clock_gettime};

use super::*;

/// Kinds that have files of their own; those of a network namespace are read together.
const KINDS: [&[Kind]; 5] = [
    &[Kind::Process],
    &[Kind::Sched],
    &[Kind::MemoryNuma],
    &[Kind::Hugetlb],
    &[Kind::Tcp, Kind::Udp, Kind::Advtcp],
];

/// Beyond this share of a core a kind that is on is worth a thought.
const MUCH: f64 = 0.02;

/// Collections with each of them, of which the one that took least counts; the first only
/// finds out what there is.
const TRIES: usize = 2;

/// What to collect: what the configuration says, with all of these on request only, so
/// that a collection can do without.
pub(super) fn on_request(config: &Config) -> Config {
    let mut asked = config.clone();
    for kind in KINDS.into_iter().flatten() {
        asked.kinds = asked.kinds.without(*kind);
        asked.on_request = asked.on_request.with(*kind);
    }
    asked
}

/// CPU time that a collection with these kinds takes.
fn cpu_time(sampler: &mut Sampler, kinds: Kinds) -> Duration {
    let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from);
    let mut snapshot = sampler.blank();
    sampler.want(kinds);
    sampler.tick(Origin::Fresh, &mut snapshot);
    let tries = (0..TRIES).map(|_| {
        let before = now();
        sampler.tick(Origin::Fresh, &mut snapshot);
        now().saturating_sub(before)
    });
    tries.min().unwrap_or_default()
}

/// Collects with and without each of them and says what that came to.
pub(super) fn look(f: &mut Findings, config: &Config, sampler: &mut Sampler) {
    let without = cpu_time(sampler, Kinds::NONE);
    for kinds in KINDS {
        let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        let on = kinds.iter().any(|kind| config.kinds.has(*kind));
        let wanted = kinds.iter().fold(Kinds::NONE, |all, kind| all.with(*kind));
        let cost = cpu_time(sampler, wanted).saturating_sub(without);
        let share = cost.as_secs_f64() / config.interval.as_secs_f64();
        let text = format!(
            "{}: {:.2} ms of CPU a collection for {} cgroups, {:.2} % of a core",
            if on { "on" } else { "off" },
            cost.as_secs_f64() * 1e3,
            sampler.report().cgroups,
            share * 100.0
        );
        let subject = format!("cost of {}", names.join(", "));
        if on && share >= MUCH {
            f.warn(&subject, text, "collection takes that much longer", "leave it off, or raise --interval");
        } else {
            f.ok(&subject, text);
        }
    }
}

/// Whether sockets of all pods tell their states.
pub(super) fn socket_states(f: &mut Findings, config: &Config) {
    if !config.kinds.has(Kind::Tcp) && !config.kinds.has(Kind::Udp) {
        return f.ok("socket states", "not asked for (kinds tcp and udp are off)");
    }
    let effective = own::capabilities().unwrap_or(0);
    let missing: Vec<_> = [(19, "CAP_SYS_PTRACE"), (21, "CAP_SYS_ADMIN")]
        .into_iter()
        .filter(|(bit, _)| effective >> bit & 1 == 0)
        .map(|(_, name)| name)
        .collect();
    if missing.is_empty() {
        f.ok("socket states", "of all network namespaces, every ten seconds");
    } else {
        f.warn(
            "socket states",
            "of the agent's own network namespace only",
            "of all others container_network_tcp_usage_total and the queues of UDP are missing; how many sockets \
             there are is told",
            &format!("run with {}, or do without", missing.join(" and ")),
        );
    }
}
