//! Whose batches a node's name stands for, and how far that node's clock is off.
//!
//! A name belongs to the agent (its boot id) that uses it. Another one takes it over
//! when it is the next life of the same machine (the kernel's boot id is the
//! same), or when the one before has fallen silent. Otherwise two machines use one name,
//! and the figures of either would be taken for the other's: the one that was
//! there first keeps it, and the other is told to come later. What an agent measured
//! before the present one began is the backlog of an earlier life, and taken.
//!
//! A node's steps stand on its own clock. Where that is off by most of a slot
//! of the model or more, its steps are moved by whole slots to where they
//! belong by our clock; less than that is shown and left alone.
//!
//! Time is passed in: the wall clock of this process, milliseconds since the epoch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::push::batch::Batch;

/// Steps of its own after which an agent that says nothing has lost its name to
/// another machine.
const SILENT_STEPS: u64 = 3;

/// At least this long, milliseconds: agents retry for a while.
const SILENT_MS: u64 = 10_000;

/// Clocks that are off by less than this are never corrected, milliseconds: a
/// busy machine takes as long to send what it has stamped.
const NEVER_MS: i64 = 5_000;

/// A push may be under way for so long, milliseconds: an agent waits that long for an
/// answer, and one that is late looks as if its clock were behind.
const UNDER_WAY_MS: i64 = 60_000;

/// So many pushes in a row have to say that a clock is behind by no more than that.
const IN_A_ROW: u32 = 3;

/// Batches a second that a name is good for, and how many it may have saved up:
/// more than what an agent keeps for an aggregator that starts again.
const RATE: u64 = 20;
const SAVED: u64 = 2_000;
const PRICE_MS: u64 = 1_000 / RATE;

/// Why a batch is not that of the node it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unclaimed {
    /// Another agent with this name is alive.
    Contested,
    /// There is room for no more names.
    Full,
    /// It sends more than it can have measured.
    TooMany,
}

/// Who uses a name.
#[derive(Debug)]
struct Claim {
    boot_id: [u8; 16],
    /// Of the machine's kernel.
    host_id: Option<[u8; 16]>,
    /// Who had it before.
    former: Option<[u8; 16]>,
    /// Time of its oldest step, by its clock.
    began_ms: u64,
    resolution_ms: u64,
    heard_ms: u64,
    /// When another agent last came with the name and was sent away.
    contested_ms: Option<u64>,
    /// What its times are corrected by.
    shift_ms: i64,
    /// How many pushes in a row were late, or from a clock that is behind, and what the one
    /// that was under way for the shortest time says of the clock.
    behind: (u32, i64),
    /// Sequence and time of sending of the batch that was sent last.
    sent: (u64, u64),
    /// Up to when its batches have used up what [`RATE`] gives, milliseconds since
    /// the epoch.
    paid_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Claims {
    slot_ms: i64,
    most: usize,
    names: Mutex<HashMap<Arc<str>, Claim>>,
}

impl Claims {
    /// Room for `most` names, for a model with slots of `slot_ms` milliseconds.
    pub fn new(slot_ms: u64, most: usize) -> Claims {
        let slot_ms = i64::try_from(slot_ms).unwrap_or(i64::MAX).max(1);
        Claims { slot_ms, most, names: Mutex::default() }
    }

    fn names(&self) -> MutexGuard<'_, HashMap<Arc<str>, Claim>> {
        // The map is whole at any time, whoever panicked.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far ahead a clock may be before its steps are moved, milliseconds.
    pub fn tolerance_ms(&self) -> u64 {
        u64::try_from((self.slot_ms / 4 * 3).max(NEVER_MS)).unwrap_or(u64::MAX)
    }

    /// Whether a batch that came at `now_ms` is that of the node it names, and the
    /// milliseconds to take off its times.
    ///
    /// # Errors
    /// It is not.
    pub fn admit(&self, batch: &Batch, now_ms: u64) -> Result<i64, Unclaimed> {
        let mut names = self.names();
        let known = names.len();
        let Some(claim) = names.get_mut(batch.node()) else {
            if known >= self.most {
                return Err(Unclaimed::Full);
            }
            let mut claim = Claim::new(batch, now_ms, None);
            self.correct(&mut claim, batch, now_ms);
            let shift = claim.shift_ms;
            names.insert(Arc::from(batch.node()), claim);
            return Ok(shift);
        };
        if !claim.pay(now_ms) {
            return Err(Unclaimed::TooMany);
        }
        if claim.boot_id == batch.boot_id() {
            claim.began_ms = claim.began_ms.min(batch.time_ms());
            claim.resolution_ms = batch.resolution_ms();
            claim.heard_ms = now_ms;
        } else if batch.time_ms() >= claim.began_ms {
            if !claim.yields_to(batch, now_ms) {
                claim.contested_ms = Some(now_ms);
                return Err(Unclaimed::Contested);
            }
            let Claim { shift_ms, behind, paid_ms, contested_ms, .. } = *claim;
            let new = Claim::new(batch, now_ms, Some(claim.boot_id));
            *claim = Claim { shift_ms, behind, paid_ms, contested_ms, ..new };
        }
        self.correct(claim, batch, now_ms);
        Ok(claim.shift_ms)
    }

    /// Follows the node's clock, by whole slots. Only what leaves the tolerance
    /// moves the correction, so that one that is off by half a slot does not
    /// have its steps moved to and fro. A batch that was sent before, and comes
    /// again or was recorded, tells nothing of the clock. One that was under way for long
    /// looks like a clock that is behind, never like one that is ahead.
    fn correct(&self, claim: &mut Claim, batch: &Batch, now_ms: u64) {
        let Some(sent_ms) = batch.sent_ms() else { return };
        let (sequence, last_ms) = claim.sent;
        if batch.sequence() <= sequence && sent_ms <= last_ms {
            return;
        }
        claim.sent = (batch.sequence().max(sequence), sent_ms);
        let ahead = i64::try_from(i128::from(sent_ms) - i128::from(now_ms)).unwrap_or(i64::MAX);
        let tolerance = (self.slot_ms / 4 * 3).max(NEVER_MS);
        let off = ahead.saturating_sub(claim.shift_ms);
        let (count, least) = std::mem::replace(&mut claim.behind, (0, i64::MIN));
        if off.saturating_abs() <= tolerance {
            return;
        }
        let mut ahead = ahead;
        if (-UNDER_WAY_MS..0).contains(&off) {
            ahead = ahead.max(least);
            if count + 1 < IN_A_ROW {
                claim.behind = (count + 1, ahead);
                return;
            }
        }
        let half = self.slot_ms / 2 * ahead.signum();
        claim.shift_ms = ahead.saturating_add(half) / self.slot_ms * self.slot_ms;
    }

    /// Whether an agent with that name has pushed within the time after which it
    /// would have lost the name to another machine.
    pub fn is_alive(&self, name: &str, now_ms: u64) -> bool {
        self.names().get(name).is_some_and(|claim| !claim.is_silent(now_ms))
    }

    /// Names that more than one agent came with, in order, and when one was last sent away.
    pub fn contested(&self) -> Vec<(Arc<str>, u64)> {
        let names = self.names();
        let contested =
            names.iter().filter_map(|(name, claim)| Some((Arc::clone(name), claim.contested_ms?)));
        let mut contested: Vec<_> = contested.collect();
        contested.sort();
        contested
    }

    /// What the times of names' steps are corrected by, where they are, in order; milliseconds.
    pub fn corrected(&self) -> Vec<(Arc<str>, i64)> {
        let names = self.names();
        let shifted = names.iter().filter(|(_, claim)| claim.shift_ms != 0);
        let mut shifted: Vec<_> = shifted.map(|(name, claim)| (Arc::clone(name), claim.shift_ms)).collect();
        shifted.sort();
        shifted
    }

    /// Forgets names nobody has used since `since_ms`.
    pub fn forget_before(&self, since_ms: u64) {
        self.names().retain(|_, claim| claim.heard_ms >= since_ms);
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.names().clear();
    }
}

impl Claim {
    fn new(batch: &Batch, now_ms: u64, former: Option<[u8; 16]>) -> Claim {
        Claim {
            boot_id: batch.boot_id(),
            host_id: batch.host_boot_id(),
            former,
            began_ms: batch.time_ms(),
            resolution_ms: batch.resolution_ms(),
            heard_ms: now_ms,
            contested_ms: None,
            shift_ms: 0,
            behind: (0, i64::MIN),
            sent: (0, 0),
            paid_ms: now_ms.saturating_sub(SAVED * PRICE_MS),
        }
    }

    /// One more batch; whether it is within what the name is good for.
    fn pay(&mut self, now_ms: u64) -> bool {
        let paid = self.paid_ms.max(now_ms.saturating_sub(SAVED * PRICE_MS)) + PRICE_MS;
        let may = paid <= now_ms;
        if may {
            self.paid_ms = paid;
        }
        may
    }

    fn is_silent(&self, now_ms: u64) -> bool {
        let patience = self.resolution_ms.saturating_mul(SILENT_STEPS).max(SILENT_MS);
        now_ms.saturating_sub(self.heard_ms) > patience
    }

    /// Whether the sender of `batch`, another agent, is the one that has the name now.
    fn yields_to(&self, batch: &Batch, now_ms: u64) -> bool {
        if self.is_silent(now_ms) {
            return true;
        }
        // One that was replaced and lives on is a second agent on the machine.
        self.host_id.is_some() && self.host_id == batch.host_boot_id() && self.former != Some(batch.boot_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::batch::proto;

    const NOW: u64 = 1_700_000_040_000;
    const MINUTE: u64 = 60_000;

    /// A step of `n1`, sent right when it was made.
    fn step(boot: u8, host: u8, time_ms: u64) -> Batch {
        sent(boot, host, time_ms, time_ms)
    }

    fn sent(boot: u8, host: u8, time_ms: u64, sent_ms: u64) -> Batch {
        Batch::new(proto::Batch {
            node: "n1".to_owned(),
            boot_id: vec![boot; 16],
            host_boot_id: if host == 0 { Vec::new() } else { vec![host; 16] },
            time_ms,
            resolution_ms: 15_000,
            sequence: 1,
            sent_ms,
            ..proto::Batch::default()
        })
        .unwrap()
    }

    fn at(step: u64) -> u64 {
        NOW + step * 15_000
    }

    #[test]
    fn an_agent_that_starts_again_takes_its_name_along() {
        let claims = Claims::new(MINUTE, 10);
        assert_eq!(claims.admit(&step(1, 9, at(0)), at(0)), Ok(0));
        assert_eq!(claims.admit(&step(2, 9, at(1)), at(1)), Ok(0));
        // What the first life left behind.
        assert_eq!(claims.admit(&sent(1, 9, at(0), at(1)), at(1)), Ok(0));
        assert_eq!(claims.admit(&step(3, 9, at(2)), at(2)), Ok(0));
    }

    #[test]
    fn of_two_machines_the_first_keeps_the_name_until_it_is_silent() {
        let claims = Claims::new(MINUTE, 10);
        for (first, other) in [(9, 8), (9, 0), (0, 8), (0, 0)] {
            claims.clear();
            for i in 0..5 {
                assert_eq!(claims.admit(&step(1, first, at(i)), at(i)), Ok(0));
                assert_eq!(claims.admit(&step(2, other, at(i)), at(i)), Err(Unclaimed::Contested));
            }
            assert_eq!(claims.admit(&step(2, other, at(7)), at(7)), Err(Unclaimed::Contested));
            assert_eq!(claims.admit(&step(2, other, at(8)), at(8)), Ok(0));
            assert_eq!(claims.admit(&step(1, first, at(9)), at(9)), Err(Unclaimed::Contested));
        }
    }

    #[test]
    fn two_agents_on_one_machine_do_not_take_turns() {
        let claims = Claims::new(MINUTE, 10);
        assert_eq!(claims.admit(&step(1, 9, at(0)), at(0)), Ok(0));
        assert_eq!(claims.admit(&step(2, 9, at(1)), at(1)), Ok(0));
        assert_eq!(claims.admit(&step(1, 9, at(1)), at(1)), Err(Unclaimed::Contested));
        assert_eq!(claims.admit(&step(2, 9, at(2)), at(2)), Ok(0));
    }

    #[test]
    fn names_are_bounded_and_forgotten() {
        let claims = Claims::new(MINUTE, 1);
        assert_eq!(claims.admit(&step(1, 9, at(0)), at(0)), Ok(0));
        let mut other = step(1, 9, at(0)).message().clone();
        other.node = "n2".to_owned();
        let other = Batch::new(other).unwrap();
        assert_eq!(claims.admit(&other, at(0)), Err(Unclaimed::Full));
        claims.forget_before(at(1));
        assert_eq!(claims.admit(&other, at(1)), Ok(0));
    }

    #[test]
    fn clocks_are_corrected_by_whole_slots() {
        let claims = Claims::new(MINUTE, 10);
        let sequence = std::cell::Cell::new(1);
        let check = |ahead_ms: i64, expected: i64| {
            let clock = NOW.checked_add_signed(ahead_ms).unwrap();
            let mut message = sent(1, 9, clock / 15_000 * 15_000, clock).message().clone();
            message.sequence = sequence.replace(sequence.get() + 1);
            let batch = Batch::new(message).unwrap();
            assert_eq!(claims.admit(&batch, NOW), Ok(expected), "{ahead_ms}");
        };
        let hour = 3_600_000;
        check(40, 0);
        check(-44_000, 0);
        check(45_000, 0);
        check(45_001, 60_000);
        check(20_000, 60_000);
        check(0, 60_000);
        check(0, 60_000);
        check(0, 0);
        check(hour + 29_000, hour);
        check(hour - 31_000, hour);
        check(hour - 45_000, hour);
        check(hour - 46_000, hour);
        check(hour - 47_000, hour);
        check(hour - 46_000, hour - 60_000);
        check(-hour + 200, -hour);
        // Nonsense is bounded by the numbers there are.
        let most = step(2, 9, u64::MAX / 15_000 * 15_000);
        assert!(claims.admit(&most, NOW + 3_600_000).is_ok());
    }

    /// A machine that is busy takes and sends late; steps went into the slot after theirs.
    #[test]
    fn a_push_that_was_under_way_for_long_moves_no_clock() {
        let claims = Claims::new(5_000, 10);
        let mut sequence = 0;
        let mut late = |late_ms: u64| {
            sequence += 1;
            let mut message = sent(1, 9, NOW, NOW + sequence).message().clone();
            message.sequence = sequence;
            claims.admit(&Batch::new(message).unwrap(), NOW + sequence + late_ms).unwrap()
        };
        for late_ms in [19_000, 7_000, 10, 30_000, 6_000, 4_000, 59_000, 0] {
            assert_eq!(late(late_ms), 0, "{late_ms}");
        }
        // None in a row was quick: as far as anybody can tell the clock is behind.
        assert_eq!([late(19_000), late(11_000), late(14_000)], [0, 0, -10_000]);
        assert_eq!(late(10), 0, "no push comes before it was sent");
    }

    #[test]
    fn what_was_recorded_and_is_sent_again_moves_no_clock() {
        let claims = Claims::new(MINUTE, 10);
        let batch = |sequence: u64, sent_ms: u64| {
            let mut message = sent(1, 9, at(0), sent_ms).message().clone();
            message.sequence = sequence;
            Batch::new(message).unwrap()
        };
        let hour = 3_600_000;
        assert_eq!(claims.admit(&batch(7, NOW), NOW), Ok(0));
        assert_eq!(claims.admit(&batch(7, NOW), NOW + hour), Ok(0));
        assert_eq!(claims.admit(&batch(6, NOW - 1), NOW + hour), Ok(0));
        // A backlog, sent now; and a new step after the clock was set back.
        assert_eq!(claims.admit(&batch(5, NOW + hour), NOW + hour), Ok(0));
        assert_eq!(claims.admit(&batch(8, NOW), NOW + hour), Ok(-3_600_000));
    }

    #[test]
    fn a_name_is_good_for_so_many_batches() {
        let claims = Claims::new(MINUTE, 10);
        let taken = |now_ms| (0..5_000).filter(|_| claims.admit(&step(1, 9, at(0)), now_ms).is_ok()).count();
        // The first one is what makes the claim.
        assert_eq!(taken(NOW), 2_001);
        assert_eq!(claims.admit(&step(1, 9, at(0)), NOW), Err(Unclaimed::TooMany));
        assert_eq!((taken(NOW + 49), taken(NOW + 50), taken(NOW + 1_050)), (0, 1, 20));
        assert_eq!(taken(NOW + 1_000_000), 2_000);
    }

    #[test]
    fn fine_slots_have_coarse_clocks() {
        let claims = Claims::new(1_000, 10);
        assert_eq!(claims.admit(&sent(1, 9, at(0), at(0) - 4_000), at(0)), Ok(0));
        assert_eq!(claims.admit(&sent(1, 9, at(0), at(0) + 7_400), at(0)), Ok(7_000));
        assert_eq!(claims.tolerance_ms(), 5_000);
    }
}
