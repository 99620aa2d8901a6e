//! A leader that decides a little from time to time, and a lot less than it could, is replaced too.
//!
//! ```text
//!   the oldest entry here   arrives ──(20 ms)──> told to the leader ──────── wait ────────> decided
//!                                                 or seen in a block          │
//!   turn = wait / blocks decided meanwhile        slow: beyond what distance, bytes and earlier leaders excuse
//!   0.6 s of slow turns within 1.5 s              Wish
//! ```
//! A leader answers only for what it was told by this replica or shows itself: an entry that a client gave to me alone
//! accuses nobody. A turn is compared, not a throughput: whatever the load, an entry that the leader knows stands in one
//! of its next blocks, and a block takes a round trip and two syncs.
//!
//! When everything is slow, all leaders are alike: what was too slow once is excused twice over until some leader shows
//! that it can be done faster. So a change for the worse costs one view, not a storm.

use super::{Instance, Message, Rules, timers};
use crate::Output;
use alloc::vec::Vec;
use unisono_types::{Time, View};

/// Turns below this are never slow: a disk may stall for half of it.
const TURN_MICROS_MIN: u64 = 20_000;
/// The leader is told after this time, or two round trips if these are longer.
const TELL_MICROS: u64 = 20_000;
/// A larger entry is not shown to a leader that is likely to have it.
const TOLD_BYTES_MAX: usize = 64 * 1024;
/// Two windows are looked at together, the one that runs and the one before.
const WINDOW_MICROS: u64 = 750_000;
/// So much waiting for slow turns within them is a fault; half of it when another replica wishes for a change already: each sees
/// other entries wait, and f+1 must find the leader slow. A liar may always wish, so half of it must be reason enough.
const SLOW_MICROS: u64 = 600_000;

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Watch {
    /// Since when the leader has known the oldest entry.
    told: Option<u64>,
    /// Blocks decided since, and their bytes.
    blocks: u64,
    bytes: usize,
    window: u64,
    /// Time of this window that was spent waiting for slow turns, and of the one before.
    slow: u64,
    slow_before: u64,
    longest: u64,
    /// Turns up to here are excused.
    excused: u64,
    /// The view that was found slow, and when.
    found: Option<(View, u64)>,
}

impl Watch {
    /// Another view, another leader.
    pub(super) fn enter(&mut self, now: Time) {
        *self = Self { window: now.monotonic, excused: self.excused, ..Self::default() };
    }

    pub(super) const fn block_decided(&mut self, bytes: usize) {
        self.blocks += 1;
        self.bytes += bytes;
    }

    /// This replica did not run for so long.
    pub(super) fn excuse(&mut self, micros: u64) {
        self.window += micros;
        self.told = self.told.map(|told| told + micros);
    }

    /// Since when the leader knows what is the oldest entry now.
    const fn waits_from(&mut self, told: Option<u64>) {
        (self.told, self.blocks, self.bytes) = (told, 0, 0);
    }

    /// The oldest entry is not waited for any more.
    pub(super) fn forget_oldest(&mut self) {
        self.waits_from(None);
    }

    /// Whether this view's leader was found slow since then.
    pub(super) fn has_found(&self, view: View, since: u64) -> bool {
        self.found.is_some_and(|(found, at)| found == view && at >= since)
    }

    fn begin_window(&mut self, now: u64) {
        if self.longest > 0 {
            self.excused = self.excused.min(self.longest.saturating_mul(4));
        }
        self.slow_before = if now.saturating_sub(self.window) > 2 * WINDOW_MICROS { 0 } else { self.slow };
        (self.window, self.slow, self.longest) = (now, 0, 0);
    }
}

impl<R: Rules> Instance<R> {
    /// The oldest entry was decided.
    pub(super) fn turn_ended(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) {
        let (blocks, bytes) = (self.watch.blocks.max(1), self.watch.bytes);
        let told = self.watch.told;
        self.watch.waits_from(None);
        let Some(told) = told.filter(|_| self.next_leader() != self.me()) else { return };
        let wait = now.monotonic.saturating_sub(told);
        let turn = wait / blocks;
        if now.monotonic.saturating_sub(self.watch.window) > WINDOW_MICROS {
            self.watch.begin_window(now.monotonic);
        }
        self.watch.longest = self.watch.longest.max(turn);
        let excused = TURN_MICROS_MIN.max(self.distance.needed_micros(now)).max(self.watch.excused);
        if self.rules.turn_is_slow(turn, excused.saturating_add(self.micros_to_followers(bytes) / blocks)) {
            self.watch.slow = self.watch.slow.saturating_add(wait);
        }
        let enough = if self.changes.another_wishes_on(self.me(), self.seat.view, self.seen) {
            SLOW_MICROS / 2
        } else {
            SLOW_MICROS
        };
        if self.watch.slow + self.watch.slow_before >= enough {
            self.watch.excused = self.watch.longest.saturating_mul(2);
            self.watch.begin_window(now.monotonic);
            self.watch.slow_before = 0;
            self.watch.found = Some((self.seat.view, now.monotonic));
            self.changes.complaints.slow += 1;
            self.wish(self.seat.view.next(), outbox);
        }
    }

    /// Notes when the leader is known to know the oldest entry, and sees to it that it does.
    pub(super) fn watch_oldest(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) {
        if self.watch.told.is_none() && self.pending.oldest_is_proposed() {
            self.watch.waits_from(Some(now.monotonic));
        }
        let since = self.patience.as_ref().filter(|patience| patience.subject.is_some()).map(|patience| patience.since);
        let tell = since.filter(|_| self.watch.told.is_none()).map(|since| since + self.tell_micros());
        self.timers.want(timers::TELL, tell, outbox);
    }

    fn tell_micros(&self) -> u64 {
        TELL_MICROS.max(2 * self.distance.round_trip_micros())
    }

    /// Shows the oldest entry to the leader: one frame, since the leader is likely to have it.
    pub(super) fn tell_leader(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) {
        let leader = self.next_leader();
        let frames = self.pending.first_to_show();
        if frames.is_empty() {
            return;
        }
        // What is not told counts as told much later: at half time all is forwarded.
        let mut known = now.monotonic.saturating_add(self.timeout_micros(now));
        if leader != self.me() && frames.iter().all(|frame| frame.wire().len() <= TOLD_BYTES_MAX) {
            known = now.monotonic.saturating_add(self.distance.round_trip_micros());
            outbox.push(Output::Send { to: leader, message: Message::Frames(frames) });
        }
        self.watch.waits_from(Some(known));
    }
}
