//! What the rules of time and patience promise, seen from outside: how far agreed time may be off, how long a request
//! may wait, when leaders stay. Each bound follows from a documented rule (docs/internals/consensus.md) and from what a
//! run does to its world.
//!
//! ```text
//!   ahead    a stamp needs a correct vote: at most D * 4^k beyond the clocks, where k time-outs may have come in the time for
//!            which that voter has decided nothing; what is ahead may stay as far ahead
//!   behind   who holds time back for two windows of 5 D loses its place
//!   calm     links and disks in order: a leader that neglects a request or is slow loses its place; no other does
//! ```

use super::World;
use crate::Property;
use crate::plan::SECOND;
use std::collections::BTreeMap;
use unisono_types::{RequestNumber, SequenceNumber, SessionId, Timestamp};

/// D, and how far 4^k widens it.
const SKEW: u64 = SECOND / 2;
const TOLERANCE_MAX: u64 = 60 * SECOND;

/// The shortest time-out, a little less for clocks that run fast.
const TIME_OUT: u64 = 149_000;

/// A voter tolerated what it did for as long: blocks that it votes for together may be decided one by one.
const TOLERATED_FOR: u64 = SECOND;

/// Agreed time that is behind the clocks runs at an eighth of their speed at least over so long, for each liar: a window
/// of 5 D may be slow if the next runs at a quarter, and it takes two slow ones to lose a place.
const PACE_WINDOW: u64 = 30 * SKEW;
const PACE_DIVISOR: u64 = 8;

/// A request that is not ordered within this time in a calm world waits for a slow leader: that is told after 20 ms, and
/// may take 20 ms for each of the two blocks in flight and for the next.
const PROMPT: u64 = 85_000;

/// For so long one request may wait in a calm world with one liar: for the longest of the quick time-outs (150 ms,
/// doubled four times), for a leader that does not know of it to be told, and once more for the view change.
const WAITING_MAX: u64 = 5 * SECOND;

/// For so long all of them together where clients reach everybody: slow turns that come to 0.6 s within 1.5 s cost a
/// leader its place, and a window may have begun before them.
const SLOW_MAX: u64 = 3 * SECOND;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// By replica.
    deciding: Vec<Deciding>,
    /// Agreed time may stay so far ahead, once it was.
    ahead: u64,
    /// Since when agreed time has been behind all clocks, and where it stood then.
    behind: Option<(u64, u64)>,
    /// When an entry with the newest agreed time was executed last.
    timed_at: u64,
    /// Requests that are not ordered yet, with when they were asked.
    asked: BTreeMap<(SessionId, RequestNumber), u64>,
    longest_wait: u64,
    /// For how long any of them waited longer than it should, and until when this is counted.
    waited: u64,
    waited_until: u64,
}

/// Where clients ask for more large values than links carry, rooms are full, and followers may wait for a frame that the
/// leader has dropped.
const VIEWS_MAX: u32 = 2;

/// Where all are far from each other the time-out is doubled from 150 ms to a minute, and no further view is left.
const FAR_VIEWS_MAX: u32 = 9;

/// How a replica gets on.
#[derive(Clone, Copy, Debug, Default)]
struct Deciding {
    newest: SequenceNumber,
    since: u64,
    /// What it tolerated when it decided, and until when that counts.
    tolerated: u64,
    until: u64,
}

/// D * 4^k after so long without a decision. The first time-out may have begun to run before that decision, which was
/// about something else.
fn tolerance(micros: u64) -> u64 {
    let time_outs = (1 + micros / TIME_OUT).min(8) as u32;
    (SKEW << (2 * time_outs)).min(TOLERANCE_MAX)
}

impl Deciding {
    fn decides(&mut self, now: u64, sequence: SequenceNumber) {
        if sequence <= self.newest {
            return;
        }
        let tolerated = tolerance(now - self.since);
        if tolerated >= self.tolerated || now >= self.until {
            (self.tolerated, self.until) = (tolerated, now + TOLERATED_FOR);
        }
        (self.newest, self.since) = (sequence, now);
    }

    fn tolerates(&self, now: u64) -> u64 {
        let before = if now < self.until { self.tolerated } else { 0 };
        before.max(tolerance(now - self.since))
    }
}

impl Bounds {
    pub(super) fn new(replicas: usize) -> Self {
        Self { deciding: vec![Deciding::default(); replicas], ..Self::default() }
    }

    pub(super) fn decides(&mut self, now: u64, replica: usize, sequence: SequenceNumber) {
        self.deciding[replica].decides(now, sequence);
    }

    /// A request was asked at `since` and waits no more. Where several wait too long it counts once.
    fn wait_ends(&mut self, now: u64, since: u64) {
        self.longest_wait = self.longest_wait.max(now - since);
        if now - since > PROMPT {
            self.waited += now - since.max(self.waited_until).min(now);
            self.waited_until = now;
        }
    }
}

impl World {
    /// A correct replica executes an entry with this time.
    pub(super) fn note_agreed_time(&mut self, replica: usize, timestamp: Timestamp) {
        if timestamp.0 < self.agreed {
            return;
        }
        self.check_pace(timestamp.0);
        if timestamp.0 == self.agreed {
            return;
        }
        self.agreed = timestamp.0;
        let lead = timestamp.0.saturating_sub(self.greatest_correct_clock());
        let tolerated = self.correct().map(|replica| self.bounds.deciding[replica].tolerates(self.now)).max();
        let allowed = tolerated.unwrap_or_default().max(self.bounds.ahead);
        if lead > allowed + self.drift() {
            let (lead, allowed) = (lead / 1_000, allowed / 1_000);
            let text = format!(
                "replica {replica} executes at a time that is {lead} ms ahead of every correct clock, not {allowed}"
            );
            self.checker.report(Property::AgreedTime, text);
        }
        self.bounds.ahead = if lead > SKEW { allowed } else { 0 };
    }

    /// What clocks that run at different speeds may have made of a second by now.
    fn drift(&self) -> u64 {
        self.now / 1_000_000 * 2 * self.plan.clocks.1 + 1_000
    }

    /// Agreed time is, or becomes, `agreed`.
    fn check_pace(&mut self, agreed: u64) {
        let clocks = self.correct().map(|replica| self.hosts[replica].clock.read(self.now).wall);
        let smallest = clocks.min().unwrap_or_default();
        let rests = self.now - std::mem::replace(&mut self.bounds.timed_at, self.now) > SECOND;
        if rests || agreed + SKEW >= smallest {
            self.bounds.behind = None;
            return;
        }
        let (since, from) = *self.bounds.behind.get_or_insert((self.now, agreed));
        let elapsed = self.now - since;
        if elapsed < PACE_WINDOW * self.plan.liars.len().max(1) as u64 {
            return;
        }
        if agreed - from < elapsed / PACE_DIVISOR {
            let text = format!(
                "agreed time went on by {} ms in {} ms although it is {} ms behind every correct clock",
                (agreed - from) / 1_000,
                elapsed / 1_000,
                (smallest - agreed) / 1_000
            );
            self.checker.report(Property::AgreedTime, text);
        }
        self.bounds.behind = Some((self.now, agreed));
    }

    /// Whether how long requests wait is bounded beforehand. A second dragging leader is excused by the first, and a
    /// leader that rotates is back before long.
    fn bounds_waiting(&self) -> bool {
        let one = self.plan.liars.is_empty() || (self.plan.liars.len() == 1 && self.plan.rotation == 0);
        !self.healed && one && self.plan.large == 0 && self.is_calm
    }

    /// A client asks.
    pub(super) fn note_asked(&mut self, session: SessionId, number: RequestNumber) {
        if self.bounds_waiting() {
            self.bounds.asked.insert((session, number), self.now);
        }
    }

    /// A correct replica gives a request to execution.
    pub(super) fn note_ordered(&mut self, session: SessionId, number: RequestNumber) {
        if let Some(since) = self.bounds.asked.remove(&(session, number)) {
            self.bounds.wait_ends(self.now, since);
        }
    }

    /// At the end of a calm time.
    pub(super) fn check_patience(&mut self) {
        if self.plan.is_far() {
            return self.check_views(FAR_VIEWS_MAX);
        }
        if !self.is_calm {
            return;
        }
        let now = self.now;
        let waiting = std::mem::take(&mut self.bounds.asked);
        waiting.values().for_each(|since| self.bounds.wait_ends(now, *since));
        let (longest, all) = (self.bounds.longest_wait, self.bounds.waited);
        if longest > WAITING_MAX || (all > SLOW_MAX && self.plan.faults.is_empty()) {
            let (longest, all) = (longest / 1_000, all / 1_000);
            let text = format!("in a calm world a request waited {longest} ms to be ordered, all together {all} ms");
            self.checker.report(Property::PromptService, text);
        }
        self.check_views(if self.plan.large > 0 { VIEWS_MAX } else { 0 });
    }

    /// Nothing but a liar makes correct replicas leave more views.
    fn check_views(&mut self, tolerated: u32) {
        let views = self.correct().map(|replica| self.progress(replica).view.0).max().unwrap_or_default();
        if self.plan.liars.is_empty() && views > tolerated {
            let text = format!(
                "{views} views were left in a world without liars where only this is wrong: {:?}",
                self.plan.faults
            );
            self.checker.report(Property::LastingLeaders, text);
        }
    }
}
