//! Tickets: places in the queues of locks that a declared thread has from its admission on, wherever it is itself.
//!
//! ```text
//!   queued ──first in the queue, no owner against it──> reserved ──lock──> locked ──unlock──> used up
//!                                                          ^                          └─ uses left: reserved
//!                                                          └──────────────────────────────┘
//! ```
//! A reserved ticket owns its lock, whether or not its thread has asked for it yet. With uses left it stays reserved
//! after an unlock: a place at the end of the queue would depend on who queued first within a round.
//! Invariant: a thread's tickets stand in order of their lock's id, one for each lock.

use super::{LockIndex, Locks, Past, Place};
use crate::list::NONE;
use crate::trace::DigestWriter;
use crate::{DeclaredLock, LockId, Mode};
use alloc::vec::Vec;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Queued,
    Reserved,
    Locked,
    /// Kept until its thread finishes: taking it out of a long list would cost the length of the list.
    UsedUp,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) thread: u32,
    id: LockId,
    /// Meaningless when it is used up: the entry may be another's then.
    pub(super) lock: LockIndex,
    pub(super) mode: Mode,
    uses: u32,
    pub(super) stage: Stage,
    /// `NONE` while it is queued.
    hold: u32,
}

/// What locking by ticket comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ByTicket {
    /// No ticket for this lock and mode, or none any more.
    NotDeclared,
    /// It is locked already.
    NotPossible,
    /// The thread owns the lock.
    Locked(Grip),
    /// The thread waits until it is first.
    Waits,
}

/// A lock that a ticket just gave to its thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Grip {
    pub(crate) thread: u32,
    pub(crate) lock: LockIndex,
    pub(crate) mode: Mode,
    pub(crate) past: Past,
}

/// Each lock once, in order of ids; of several for one lock the uses add up and a writer wins.
pub(crate) fn normalized(mut declared: Vec<DeclaredLock>) -> Vec<DeclaredLock> {
    declared.iter_mut().for_each(|declared| declared.uses = declared.uses.max(1));
    declared.sort_by_key(|declared| declared.lock);
    declared.dedup_by(|again, first| {
        let same = again.lock == first.lock;
        if same {
            first.uses = first.uses.saturating_add(again.uses);
            first.mode = first.mode.max(again.mode);
        }
        same
    });
    declared
}

impl Locks {
    /// A place at the end of the queue, for a lock behind all those that the thread has tickets for. The caller hands
    /// the lock over next.
    pub(crate) fn issue(&mut self, thread: u32, declared: DeclaredLock) -> LockIndex {
        let lock = self.open(declared.lock);
        let DeclaredLock { mode, uses, .. } = declared;
        let ticket = Ticket { thread, id: declared.lock, lock, mode, uses, stage: Stage::Queued, hold: NONE };
        let at = match self.free_tickets.pop() {
            Some(free) => {
                self.tickets[free as usize] = ticket;
                free
            }
            None => {
                self.tickets.push(ticket);
                self.tickets.len() as u32 - 1
            }
        };
        self.links.reserve(ticket_node(at) as usize + 1);
        self.seats[thread as usize].tickets.push(at);
        self.locks[lock.0 as usize].queue.push_back(&mut self.links, ticket_node(at));
        lock
    }

    /// The thread locks what its ticket is for.
    pub(crate) fn lock_by_ticket(&mut self, thread: u32, id: LockId, mode: Mode) -> ByTicket {
        let Some(at) = self.ticket(thread, id).filter(|at| self.tickets[*at as usize].mode == mode) else {
            return ByTicket::NotDeclared;
        };
        match self.tickets[at as usize].stage {
            Stage::UsedUp => ByTicket::NotDeclared,
            Stage::Locked => ByTicket::NotPossible,
            Stage::Reserved => ByTicket::Locked(self.grip(at)),
            Stage::Queued => {
                let seat = &mut self.seats[thread as usize];
                assert_eq!(seat.place, Place::Nowhere, "a thread stands at one place at most");
                seat.place = Place::Ticket(self.tickets[at as usize].lock);
                ByTicket::Waits
            }
        }
    }

    /// The lock, if the thread has it locked by ticket.
    pub(crate) fn locked_by_ticket(&self, thread: u32, id: LockId) -> Option<LockIndex> {
        let ticket = &self.tickets[self.ticket(thread, id)? as usize];
        (ticket.stage == Stage::Locked).then_some(ticket.lock)
    }

    /// One use is used up, with the last the ticket, at the thread's own time `now`. The lock, if the thread had it
    /// locked: to be handed over next.
    pub(crate) fn unlock_by_ticket(&mut self, thread: u32, id: LockId, now: u64) -> Option<LockIndex> {
        let at = self.ticket(thread, id)?;
        let ticket = &mut self.tickets[at as usize];
        if ticket.stage != Stage::Locked {
            return None;
        }
        let (lock, mode) = (ticket.lock, ticket.mode);
        ticket.uses -= 1;
        if ticket.uses > 0 {
            ticket.stage = Stage::Reserved;
        } else {
            ticket.stage = Stage::UsedUp;
            let hold = ticket.hold;
            self.remove_owner(hold);
        }
        // Also with uses left: they may be given up without having been used.
        if mode == Mode::Write {
            self.carry(lock, now);
        }
        Some(lock)
    }

    /// The thread, at its own time `now`, gives up a ticket that is in force; its lock is to be handed over next. `None`:
    /// it has no more. A lock that was only reserved carries nothing of it: its thread has never been there.
    pub(crate) fn give_up_ticket(&mut self, thread: u32, now: u64) -> Option<LockIndex> {
        loop {
            let tickets = &mut self.seats[thread as usize].tickets;
            let at = tickets.pop()?;
            if tickets.is_empty() && tickets.capacity() > KEPT_TICKETS {
                *tickets = Vec::new();
            }
            self.free_tickets.push(at);
            let Ticket { lock, mode, stage, hold, .. } = self.tickets[at as usize];
            if stage == Stage::Locked && mode == Mode::Write {
                self.carry(lock, now);
            }
            match stage {
                Stage::UsedUp => continue,
                Stage::Queued => self.locks[lock.0 as usize].queue.remove(&mut self.links, ticket_node(at)),
                Stage::Reserved | Stage::Locked => self.remove_owner(hold),
            }
            return Some(lock);
        }
    }

    /// The ticket is first and nobody stands against it. `Some`: its thread waits for it and goes on.
    pub(super) fn reserve_ticket(&mut self, at: u32) -> Option<Grip> {
        let Ticket { thread, lock, mode, .. } = self.tickets[at as usize];
        self.locks[lock.0 as usize].queue.remove(&mut self.links, ticket_node(at));
        let hold = self.add_owner(thread, lock, mode);
        let ticket = &mut self.tickets[at as usize];
        ticket.stage = Stage::Reserved;
        ticket.hold = hold;
        let is_blocked_at = !self.locks[lock.0 as usize].blocked.is_empty();
        let seat = &mut self.seats[thread as usize];
        if seat.place != Place::Ticket(lock) {
            if is_blocked_at && seat.place != Place::Nowhere {
                self.cornered.push(thread);
            }
            return None;
        }
        seat.place = Place::Nowhere;
        Some(self.grip(at))
    }

    fn grip(&mut self, at: u32) -> Grip {
        let ticket = &mut self.tickets[at as usize];
        ticket.stage = Stage::Locked;
        let Ticket { thread, lock, mode, .. } = *ticket;
        Grip { thread, lock, mode, past: self.count_writer(lock, mode) }
    }

    pub(super) fn ticket(&self, thread: u32, id: LockId) -> Option<u32> {
        let tickets = &self.seats[thread as usize].tickets;
        let at = tickets.binary_search_by_key(&id, |at| self.tickets[*at as usize].id);
        at.ok().map(|at| tickets[at])
    }

    pub(crate) fn digest_tickets(&self, thread: u32, digest: &mut DigestWriter) {
        let tickets = &self.seats[thread as usize].tickets;
        digest.word(tickets.len() as u64);
        for at in tickets {
            let Ticket { id, mode, uses, stage, .. } = self.tickets[*at as usize];
            digest.lock(id);
            digest.words(&[u64::from(mode == Mode::Write), uses.into(), stage as u64]);
        }
    }
}

/// Above so many tickets a thread's list gives its memory back with the last.
const KEPT_TICKETS: usize = 64;

/// Nodes of queues: threads have even numbers, tickets odd ones.
pub(super) const fn ticket_node(at: u32) -> u32 {
    at * 2 + 1
}

pub(super) const fn thread_node(thread: u32) -> u32 {
    thread * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(lock: u128, mode: Mode, uses: u32) -> DeclaredLock {
        DeclaredLock { lock: LockId(lock), mode, uses }
    }

    /// Two threads with tickets for the locks 1 and 2, in this order.
    fn two() -> Locks {
        let mut locks = Locks::default();
        for thread in 0..2 {
            locks.reserve(thread);
            for lock in [1, 2] {
                let lock = locks.issue(thread, declared(lock, Mode::Write, 1));
                assert_eq!(locks.heir(lock), None);
            }
        }
        locks.invariants();
        locks
    }

    #[test]
    fn tickets_are_served_in_the_order_of_their_issue() {
        let mut locks = two();
        assert_eq!(locks.lock_by_ticket(1, LockId(2), Mode::Write), ByTicket::Waits);
        let ByTicket::Locked(grip) = locks.lock_by_ticket(0, LockId(2), Mode::Write) else { panic!("the first") };
        assert_eq!((grip.thread, grip.past.writers_before), (0, 0));
        assert_eq!(locks.lock_by_ticket(0, LockId(2), Mode::Write), ByTicket::NotPossible);
        let lock = locks.unlock_by_ticket(0, LockId(2), 7).unwrap();
        let Some(crate::locks::Heir::Ticket(grip)) = locks.heir(lock) else { panic!("the second waits") };
        assert_eq!((grip.thread, grip.past), (1, Past { writers_before: 1, carried: 7 }));
        assert_eq!(locks.lock_by_ticket(0, LockId(2), Mode::Write), ByTicket::NotDeclared, "used up");
        assert_eq!(locks.locked_by_ticket(0, LockId(1)), None, "reserved only");
        locks.invariants();
        for thread in [0, 1] {
            while let Some(lock) = locks.give_up_ticket(thread, 0) {
                assert_eq!(locks.heir(lock), None);
            }
        }
        locks.invariants();
        locks.sweep(9);
        assert_eq!(locks.len(), 0);
    }

    #[test]
    fn with_uses_left_the_lock_stays_reserved() {
        let mut locks = Locks::default();
        locks.reserve(0);
        let lock = locks.issue(0, declared(1, Mode::Write, 2));
        assert_eq!(locks.heir(lock), None);
        for use_ in 0..2 {
            let ByTicket::Locked(grip) = locks.lock_by_ticket(0, LockId(1), Mode::Write) else { panic!("use {use_}") };
            assert_eq!(grip.past.writers_before, use_);
            assert_eq!(locks.unlock_by_ticket(0, LockId(1), 0), Some(lock));
            assert_eq!(locks.unlock_by_ticket(0, LockId(1), 0), None);
        }
        assert_eq!(locks.owners(lock).count(), 0);
    }

    #[test]
    fn a_use_that_is_given_up_carries_what_the_one_before_it_left() {
        let mut locks = Locks::default();
        (0..2).for_each(|thread| locks.reserve(thread));
        for (uses, expected) in [(2, 40), (1, 0)] {
            let id = u128::from(uses);
            for thread in 0..2 {
                let lock = locks.issue(thread, declared(id, Mode::Write, uses));
                assert_eq!(locks.heir(lock), None);
            }
            if uses == 2 {
                let ByTicket::Locked(_) = locks.lock_by_ticket(0, LockId(id), Mode::Write) else { panic!("the first") };
                locks.unlock_by_ticket(0, LockId(id), 40);
            }
            assert_eq!(locks.lock_by_ticket(1, LockId(id), Mode::Write), ByTicket::Waits);
            let lock = locks.give_up_ticket(0, 50).unwrap();
            let Some(crate::locks::Heir::Ticket(grip)) = locks.heir(lock) else { panic!("the second waits") };
            assert_eq!(grip.past.carried, expected, "who was never there leaves nothing");
            locks.give_up_ticket(1, 60);
        }
    }

    #[test]
    fn a_lock_declared_twice_is_declared_once() {
        let [read, write] = [Mode::Read, Mode::Write];
        let twice =
            vec![declared(7, read, 1), declared(3, read, 0), declared(7, write, 2), declared(7, read, u32::MAX)];
        assert_eq!(normalized(twice), [declared(3, read, 1), declared(7, write, u32::MAX)]);
    }
}
