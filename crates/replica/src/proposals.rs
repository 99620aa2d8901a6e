//! When this replica puts something into the order by itself.
//!
//! ```text
//!   Flush    execution has used up the log and something can only go on with another entry
//!   Tick     likewise, and the wall clock has passed the earliest deadline
//!   Mark     the rule for Marks is met
//!   Expire   a session has been idle for too long
//! ```
//! Hints only: what an entry does is decided when it is walked. The leader proposes at once, the others one after the
//! other a little later, each only if it is still needed then: normally one entry is ordered, and a leader that
//! withholds it meets entries of the others that it must order or be replaced.

use crate::order::LastMark;
use crate::{MarkRule, Timer};
use alloc::vec::Vec;
use unisono_types::{SystemEntry, Time, Timestamp};

/// Between two replicas that propose the same: longer than a decision usually takes.
const STAGGER_MICROSECONDS: u64 = 40_000;

/// Until something proposed is proposed again: it may be lost with a leader.
const AGAIN_MICROSECONDS: u64 = 500_000;

/// Idle sessions are looked for this often within the time that a session may be idle, within these bounds.
const EXPIRE_PARTS: u64 = 8;
const EXPIRE_MICROSECONDS_MIN: u64 = 1_000_000;
const EXPIRE_MICROSECONDS_MAX: u64 = 60_000_000;

/// The replica's own timers have the top bit set: those of consensus do not.
pub(crate) const OWN_TIMERS: u32 = 1 << 31;
pub(crate) const FLUSH: Timer = unisono_consensus::TimerId(OWN_TIMERS);
pub(crate) const TICK: Timer = unisono_consensus::TimerId(OWN_TIMERS | 1);
pub(crate) const MARK: Timer = unisono_consensus::TimerId(OWN_TIMERS | 2);
pub(crate) const EXPIRE: Timer = unisono_consensus::TimerId(OWN_TIMERS | 3);

/// What the rest of the replica knows just now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// How many replicas propose before this one; 0: this is the leader.
    pub(crate) rank: u64,
    /// Last effective Tick.
    pub(crate) tick: Timestamp,
    /// Last effective Mark.
    pub(crate) mark: LastMark,
    /// Whether a Mark in the next decision takes effect by number, and the agreed time at which it does by time.
    pub(crate) mark_due: Option<(bool, Timestamp)>,
    /// Whether sessions are open.
    pub(crate) sessions: bool,
    /// The agreed time that the next decision may have, and whether it goes on at half speed only: clocks that were set
    /// back are behind it.
    pub(crate) agreed: (Timestamp, bool),
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Propose(SystemEntry),
    SetTimer(Timer, Option<u64>),
}

#[derive(Clone, Debug)]
pub(crate) struct Proposals {
    rule: MarkRule,
    session_idle: u64,
    /// Works given to execution; a need reported before the last of them is void.
    works: u64,
    flush: Option<u64>,
    deadline: Option<Timestamp>,
    mark_armed: Option<LastMark>,
    mark_by_number: bool,
    expire_armed: bool,
}

impl Proposals {
    pub(crate) fn new(rule: MarkRule, session_idle: u64) -> Self {
        Self {
            rule,
            session_idle,
            works: 0,
            flush: None,
            deadline: None,
            mark_armed: None,
            mark_by_number: false,
            expire_armed: false,
        }
    }

    /// Execution was given something new: what it needed before may be met.
    pub(crate) fn executing(&mut self) {
        self.works += 1;
    }

    /// Execution has used up the log.
    pub(crate) fn starved(
        &mut self,
        now: Time,
        view: &View,
        flush: bool,
        tick: Option<Timestamp>,
        steps: &mut Vec<Step>,
    ) {
        if flush && self.flush != Some(self.works) {
            self.flush = Some(self.works);
            self.propose_after(now, view.rank * STAGGER_MICROSECONDS, FLUSH, SystemEntry::Flush, steps);
        }
        if !flush {
            self.flush = None;
        }
        if tick != self.deadline {
            self.deadline = tick;
            self.tick(now, view, view.rank * STAGGER_MICROSECONDS, steps);
        }
    }

    fn propose_after(&self, now: Time, delay: u64, timer: Timer, entry: SystemEntry, steps: &mut Vec<Step>) {
        if delay == 0 {
            steps.push(Step::Propose(entry));
        }
        let delay = if delay == 0 { AGAIN_MICROSECONDS } else { delay };
        steps.push(Step::SetTimer(timer, Some(now.monotonic.saturating_add(delay))));
    }

    /// Waits for the deadline and `stagger` more, or proposes if that time has come.
    fn tick(&self, now: Time, view: &View, stagger: u64, steps: &mut Vec<Step>) {
        let Some(deadline) = self.deadline.filter(|deadline| *deadline > view.tick) else {
            steps.push(Step::SetTimer(TICK, None));
            return;
        };
        let (agreed, slow) = view.agreed;
        let wait = deadline.0.saturating_add(stagger).saturating_sub(agreed.0) << u32::from(slow);
        self.propose_after(now, wait, TICK, SystemEntry::Tick(agreed), steps);
    }

    /// After decisions were walked: is a Mark due, or does the time until the next one begin to run? Are there
    /// sessions to watch?
    pub(crate) fn walked(&mut self, now: Time, view: &View, steps: &mut Vec<Step>) {
        if view.sessions && !self.expire_armed {
            self.expire_armed = true;
            steps.push(Step::SetTimer(EXPIRE, Some(now.monotonic.saturating_add(self.expire_every()))));
        }
        let Some((by_number, _)) = view.mark_due else { return };
        let fresh = self.mark_armed != Some(view.mark);
        if by_number && (fresh || !self.mark_by_number) {
            self.mark_by_number = true;
            self.mark_armed = Some(view.mark);
            self.propose_after(now, view.rank * STAGGER_MICROSECONDS, MARK, SystemEntry::Mark, steps);
        } else if fresh {
            self.mark_by_number = false;
            self.mark_armed = Some(view.mark);
            let wait = self.rule.microseconds.saturating_add(view.rank * STAGGER_MICROSECONDS);
            steps.push(Step::SetTimer(MARK, Some(now.monotonic.saturating_add(wait))));
        }
    }

    /// One of the timers above has come. `has_idle` tells whether an Expire would close anything.
    pub(crate) fn timeout(&mut self, now: Time, timer: Timer, view: &View, has_idle: bool, steps: &mut Vec<Step>) {
        match timer {
            FLUSH if self.flush == Some(self.works) => self.propose_after(now, 0, FLUSH, SystemEntry::Flush, steps),
            TICK => self.tick(now, view, 0, steps),
            MARK => self.mark(now, view, steps),
            EXPIRE => {
                if has_idle {
                    steps.push(Step::Propose(SystemEntry::Expire));
                }
                self.expire_armed = view.sessions;
                if view.sessions {
                    steps.push(Step::SetTimer(EXPIRE, Some(now.monotonic.saturating_add(self.expire_every()))));
                }
            }
            _ => {}
        }
    }

    fn mark(&mut self, now: Time, view: &View, steps: &mut Vec<Step>) {
        let Some((by_number, at)) = view.mark_due else {
            self.mark_armed = None;
            return;
        };
        let wait = if by_number { 0 } else { at.0.saturating_sub(now.wall).min(self.rule.microseconds) };
        self.propose_after(now, wait, MARK, SystemEntry::Mark, steps);
    }

    fn expire_every(&self) -> u64 {
        (self.session_idle / EXPIRE_PARTS).clamp(EXPIRE_MICROSECONDS_MIN, EXPIRE_MICROSECONDS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_types::SequenceNumber;

    const NOW: Time = Time { monotonic: 1_000_000, wall: 50_000_000 };

    fn proposals() -> Proposals {
        Proposals::new(MarkRule { decisions: 10, microseconds: 5_000_000 }, 3_600_000_000)
    }

    fn view(rank: u64) -> View {
        let agreed = (NOW.timestamp(), false);
        View { rank, tick: Timestamp(0), mark: LastMark::default(), mark_due: None, sessions: false, agreed }
    }

    fn later(microseconds: u64) -> Time {
        Time { monotonic: NOW.monotonic + microseconds, wall: NOW.wall + microseconds }
    }

    fn proposed(steps: &[Step]) -> Vec<SystemEntry> {
        steps.iter().filter_map(|step| if let Step::Propose(entry) = step { Some(*entry) } else { None }).collect()
    }

    fn timer(steps: &[Step], wanted: Timer) -> Option<u64> {
        steps.iter().rev().find_map(|step| match step {
            Step::SetTimer(timer, at) if *timer == wanted => *at,
            _ => None,
        })
    }

    #[test]
    fn the_leader_flushes_at_once_and_once_for_one_need() {
        let (mut proposals, mut steps) = (proposals(), Vec::new());
        proposals.starved(NOW, &view(0), true, None, &mut steps);
        proposals.starved(NOW, &view(0), true, None, &mut steps);
        assert_eq!(proposed(&steps), [SystemEntry::Flush]);
        proposals.executing();
        proposals.starved(NOW, &view(0), true, None, &mut steps);
        assert_eq!(proposed(&steps).len(), 2, "a new need");
    }

    #[test]
    fn others_flush_later_and_only_if_the_leader_did_not() {
        for answered in [true, false] {
            let (mut proposals, mut steps) = (proposals(), Vec::new());
            proposals.starved(NOW, &view(1), true, None, &mut steps);
            assert_eq!(proposed(&steps), []);
            let at = timer(&steps, FLUSH).unwrap();
            if answered {
                proposals.executing();
            }
            proposals.timeout(later(at - NOW.monotonic), FLUSH, &view(1), false, &mut steps);
            assert_eq!(proposed(&steps).len(), usize::from(!answered));
        }
    }

    #[test]
    fn a_tick_waits_for_its_deadline_and_is_repeated_until_it_took_effect() {
        let (mut proposals, mut steps) = (proposals(), Vec::new());
        let deadline = Timestamp(NOW.wall + 300);
        proposals.starved(NOW, &view(0), false, Some(deadline), &mut steps);
        assert_eq!((proposed(&steps), timer(&steps, TICK)), (vec![], Some(NOW.monotonic + 300)));
        steps.clear();
        let due = later(300);
        let then = View { agreed: (due.timestamp(), false), ..view(0) };
        proposals.timeout(due, TICK, &then, false, &mut steps);
        assert_eq!(proposed(&steps), [SystemEntry::Tick(deadline)]);
        let again = timer(&steps, TICK).unwrap();
        steps.clear();
        let ticked = View { tick: deadline, ..view(0) };
        proposals.timeout(Time { monotonic: again, ..due }, TICK, &ticked, false, &mut steps);
        assert_eq!(proposed(&steps), [], "it took effect");
    }

    #[test]
    fn a_tick_follows_agreed_time_where_clocks_are_behind_it() {
        let (mut proposals, mut steps) = (proposals(), Vec::new());
        let ahead = Timestamp(NOW.wall + 600_000_000);
        let view = View { agreed: (ahead, true), ..view(0) };
        proposals.starved(NOW, &view, false, Some(Timestamp(ahead.0 + 300)), &mut steps);
        assert_eq!((proposed(&steps), timer(&steps, TICK)), (vec![], Some(NOW.monotonic + 600)), "at half speed");
        steps.clear();
        let view = View { agreed: (Timestamp(ahead.0 + 300), true), ..view };
        proposals.timeout(later(600), TICK, &view, false, &mut steps);
        assert_eq!(proposed(&steps), [SystemEntry::Tick(Timestamp(ahead.0 + 300))]);
    }

    #[test]
    fn a_mark_comes_by_number_or_by_time() {
        let due = |by_number| View { mark_due: Some((by_number, Timestamp(NOW.wall + 5_000_000))), ..view(0) };
        let (mut proposals, mut steps) = (proposals(), Vec::new());
        proposals.walked(NOW, &due(false), &mut steps);
        proposals.walked(NOW, &due(false), &mut steps);
        assert_eq!(steps, [Step::SetTimer(MARK, Some(NOW.monotonic + 5_000_000))], "armed once");
        proposals.walked(NOW, &due(true), &mut steps);
        proposals.walked(NOW, &due(true), &mut steps);
        assert_eq!(proposed(&steps), [SystemEntry::Mark]);
        steps.clear();
        let effective = LastMark { sequence: SequenceNumber(10), timestamp: Timestamp(NOW.wall), followed: true };
        let next = View { mark: effective, ..due(false) };
        proposals.walked(NOW, &next, &mut steps);
        assert_eq!(timer(&steps, MARK), Some(NOW.monotonic + 5_000_000), "and the time runs again");
        steps.clear();
        proposals.timeout(later(5_000_000), MARK, &next, false, &mut steps);
        assert_eq!(proposed(&steps), [SystemEntry::Mark]);
        steps.clear();
        proposals.timeout(later(6_000_000), MARK, &view(0), false, &mut steps);
        assert_eq!(steps, [], "nothing was ordered since");
    }

    #[test]
    fn idle_sessions_are_looked_for_while_there_are_any() {
        let (mut proposals, mut steps) = (proposals(), Vec::new());
        let busy = View { sessions: true, ..view(0) };
        proposals.walked(NOW, &busy, &mut steps);
        assert_eq!(timer(&steps, EXPIRE), Some(NOW.monotonic + EXPIRE_MICROSECONDS_MAX));
        steps.clear();
        proposals.timeout(later(EXPIRE_MICROSECONDS_MAX), EXPIRE, &busy, true, &mut steps);
        assert_eq!(proposed(&steps), [SystemEntry::Expire]);
        assert!(timer(&steps, EXPIRE).is_some());
        steps.clear();
        proposals.timeout(later(2 * EXPIRE_MICROSECONDS_MAX), EXPIRE, &view(0), false, &mut steps);
        assert_eq!(steps, []);
    }
}
