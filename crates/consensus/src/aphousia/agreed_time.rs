//! Agreed time: what a leader stamps, when a follower votes for a stamp, and which leader's time is too slow.
//!
//! ```text
//!   c = the newest decided block, e = monotonic time since it came here, k = own time-outs since it was decided
//!
//!   leader     its clock                  where that is not below the parent's stamp
//!              max(parent's, c + e/2)     else: the clocks were set back, agreed time waits for them at half speed
//!   follower   votes when  stamp <= max(its clock + D * 4^k, c + e)     until then the block waits, it is not dropped
//!              where its clock is the best that it has been since c: what it allowed once it allows until c moves on
//!              or when     it has my vote, or those of f+1 members, in this chain already
//! ```
//! Old stamps never prevent a vote. Stamps never fall along a chain, so a timely block has timely ancestors only.
//! Nothing here makes a block valid or invalid: these are opinions about when to speak.
//!
//! A clock that is set back while a block is half voted for must not stop the others: the block may be the base of each
//! later view, and would keep all waiting for as long as the step. Hence the clock as it was at best since c.
//!
//! e runs from the moment at which c was first held here, not from its decision. Under load the next block is built at
//! the very moment of a decision; time since the decision would then be 0 for each block, and agreed time would stand.
//! A block that had to wait for its stamp counts as held from the moment at which it was timely: else each early stamp
//! would gain what it had to wait.
//!
//! Source: the design's section on Aphousia, "Timestamps", and its corrections.

use super::{Instance, Message, Node, Rules};
use crate::{ClockReading, Output};
use alloc::{collections::BTreeSet, vec::Vec};
use unisono_types::{Digest, SequenceNumber, Time, Timestamp};

/// D * 4^k grows no further: beyond it leadership reaches a replica whose clock is not ahead, which all can follow.
const TOLERANCE_MICROS_MAX: u64 = 60_000_000;
/// A window over which the speed of agreed time is measured, in D. Two slow ones in a row are a fault.
const WINDOW_SKEWS: u64 = 5;

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct AgreedTime {
    /// c's timestamp.
    newest: Timestamp,
    /// Since when c has been here, monotonic.
    since: u64,
    /// The greatest lead of my clock over the monotonic one since c.
    clock_lead: i128,
    /// What my clock had shown when the process before this one voted last.
    before: ClockReading,
    /// k.
    time_outs: u32,
    /// The earliest moment at which something that waits for time becomes timely, as of the newest input.
    wake: Option<u64>,
    /// Whether something waited for time before the newest input.
    waiting: bool,
    pace: Option<Pace>,
    /// Agreed time minus my clock when c was decided.
    pub(super) skew_micros: i64,
    /// How often votes had to wait for time.
    pub(super) waits: u64,
}

/// The speed of agreed time while it is behind my clock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Pace {
    /// Monotonic.
    since: u64,
    from: Timestamp,
    /// The window before was too slow. One alone may be a pause of my own: what was decided meanwhile comes late.
    slow_before: bool,
}

fn clock_lead(now: Time) -> i128 {
    i128::from(now.wall) - i128::from(now.monotonic)
}

impl AgreedTime {
    /// Before the start, with the newest [`crate::Record::Clock`].
    pub(super) fn recovered(before: ClockReading) -> Self {
        Self { before, ..Self::default() }
    }

    /// With c as the log has it. What the clock had shown before c was decided counts no more.
    pub(super) fn start(&mut self, height: SequenceNumber, newest: Timestamp, now: Time) {
        let before = if self.before.after >= height { self.before.micros } else { 0 };
        let before = clock_lead(Time { wall: before, ..now });
        (self.newest, self.since, self.clock_lead) = (newest, now.monotonic, clock_lead(now).max(before));
    }

    /// What my clock shows counts until c moves on.
    pub(super) fn reads(&mut self, now: Time) {
        self.clock_lead = self.clock_lead.max(clock_lead(now));
    }

    /// My clock as it was at best since c.
    pub(super) fn clock(&self, now: Time) -> u64 {
        u64::try_from(i128::from(now.monotonic) + self.clock_lead).unwrap_or(now.wall)
    }

    const fn elapsed(&self, now: Time) -> u64 {
        now.monotonic.saturating_sub(self.since)
    }

    /// An own time-out ran out.
    pub(super) const fn timed_out(&mut self) {
        self.time_outs = self.time_outs.saturating_add(1);
    }

    /// A view is entered that lies `views` further on.
    pub(super) fn skipped(&mut self, rules: &impl Rules, views: u32) {
        self.time_outs = rules.time_outs_after(self.time_outs, views);
    }

    /// When to look again, asked once after each input.
    pub(super) const fn take_wake(&mut self) -> Option<u64> {
        if self.wake.is_some() && !self.waiting {
            self.waits += 1;
        }
        self.waiting = self.wake.is_some();
        self.wake.take()
    }

    fn wake_at(&mut self, at: u64) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

impl<R: Rules> Instance<R> {
    /// The stamp of a block on `parent`.
    pub(super) fn stamp(&self, parent: Timestamp, now: Time) -> Timestamp {
        let resumed = self.time.newest.after(self.time.elapsed(now) / 2);
        self.rules.stamp(now.timestamp(), parent, resumed)
    }

    /// D * 4^k.
    pub(super) fn tolerance_micros(&self) -> u64 {
        let skew = self.settings.tuning.skew_micros;
        skew.saturating_mul(4u64.saturating_pow(self.time.time_outs)).min(TOLERANCE_MICROS_MAX.max(skew))
    }

    /// How long a block with this stamp still has to wait.
    fn wait_micros(&self, timestamp: Timestamp, now: Time) -> u64 {
        let by_clock = timestamp.0.saturating_sub(self.time.clock(now).saturating_add(self.tolerance_micros()));
        let by_agreed = timestamp.0.saturating_sub(self.time.newest.after(self.time.elapsed(now)).0);
        self.rules.wait_for_stamp(by_clock, by_agreed)
    }

    /// Since when a block that comes now counts as held.
    pub(super) fn held_since(&self, timestamp: Timestamp, now: Time) -> u64 {
        now.monotonic.saturating_add(self.wait_micros(timestamp, now))
    }

    /// Whether time allows a vote for a node; if not yet, it is looked at again as soon as it does.
    pub(super) fn is_timely(&mut self, hash: &Digest, now: Time) -> bool {
        let Some(node) = self.chain.nodes.get(hash) else { return true }; // decided
        let wait = self.wait_micros(node.header().timestamp, now);
        if wait == 0 || self.has_voted_for_time_of(node) || self.is_vouched_for(node) {
            return true;
        }
        self.time.wake_at(now.monotonic.saturating_add(wait));
        false
    }

    /// Whether a block below with the same stamp has my vote: the chain gains no more time by this one.
    fn has_voted_for_time_of(&self, node: &Node) -> bool {
        let Some(voted) = self.chain.nodes.get(&self.seat.last.hash) else { return false };
        let mut at = Some(node);
        while let Some(node) = at.filter(|node| node.header().timestamp <= voted.header().timestamp) {
            if node.block == voted.block {
                return true;
            }
            at = self.chain.nodes.get(&node.header().parent);
        }
        false
    }

    /// Whether f+1 members have voted for this stamp in the chain of this node, at or below it: one of them is correct and has
    /// found it timely.
    fn is_vouched_for(&self, node: &Node) -> bool {
        let timestamp = node.header().timestamp;
        let mut voters = BTreeSet::new();
        let mut at = Some(node);
        while let Some(node) = at.filter(|node| node.header().timestamp == timestamp) {
            voters.extend(node.votes.keys().copied());
            voters.extend(self.changes.last_voters(&node.block.hash()));
            at = self.chain.nodes.get(&node.header().parent);
        }
        voters.len() >= self.settings.membership.quorum().one_correct()
    }

    /// A new c, which has been here since `since`.
    pub(super) fn time_agreed(
        &mut self,
        now: Time,
        timestamp: Timestamp,
        since: u64,
        outbox: &mut Vec<Output<Message>>,
    ) {
        self.time.newest = timestamp;
        self.time.since = since.min(now.monotonic);
        self.time.clock_lead = clock_lead(now);
        self.time.time_outs = 0;
        let skew = i128::from(timestamp.0) - i128::from(now.wall);
        self.time.skew_micros = skew.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        if self.time_lags(now, timestamp) {
            self.changes.complaints.time_held_back += 1;
            self.wish(self.seat.view.next(), outbox);
        }
    }

    /// Agreed time that is behind my clock and runs at less than a quarter of its speed for 10 D is a leader's fault.
    fn time_lags(&mut self, now: Time, timestamp: Timestamp) -> bool {
        let skew = self.settings.tuning.skew_micros;
        let behind = timestamp.0.saturating_add(skew) < now.wall;
        let fresh = Pace { since: now.monotonic, from: timestamp, slow_before: false };
        let pace = self.time.pace.filter(|_| behind);
        let Some(pace) = pace else {
            self.time.pace = Some(fresh);
            return false;
        };
        let elapsed = now.monotonic.saturating_sub(pace.since);
        if elapsed < WINDOW_SKEWS * skew {
            return false;
        }
        let slow = self.rules.time_is_slow(timestamp.0.saturating_sub(pace.from.0), elapsed);
        self.time.pace = Some(Pace { slow_before: slow, ..fresh });
        slow && pace.slow_before
    }
}
