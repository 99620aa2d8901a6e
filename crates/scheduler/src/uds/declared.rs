//! The declared lane: requests that say beforehand which locks they will use. One ticket per lock, in log order; no
//! slot, no steps.
//!
//! ```text
//!   read ──no primary in the round──> admitted: tickets in the queues ──> runs, waits for its tickets ──> finish
//!     └──else──> deferred ──end of the round──^
//! ```
//! Tickets enter where every replica sees the same queues: between two rounds, or in a round without primaries, where
//! nobody takes steps. A running declared thread counts as active, so all that it does belongs to a round; one that waits
//! for a ticket does not, so no round waits for a lock that is held across rounds. Two declared threads never wait for
//! each other in a circle: tickets stand in log order everywhere.

use super::*;
use crate::locks::{ByTicket, Grip, normalized};
use crate::{Declaration, Lane};

/// A declared thread's grants of the round; what is hashed at its end stays when the thread is gone.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pub(super) thread: u32,
    pub(super) id: ThreadId,
    pub(super) grants: Grants,
}

impl Uds {
    /// A request is read: it becomes a primary, is admitted, or waits for the end of the round.
    pub(super) fn read_request(&mut self, thread: u32, declaration: Declaration, grants: &mut Vec<Grant>) {
        self.consumed = true;
        self.held = 0;
        self.stuck = false;
        let Declaration { class, lane, locks } = declaration;
        match lane {
            Lane::Undeclared => {
                let entry = &mut self.threads[thread as usize];
                entry.class = class;
                entry.future = gate::future_locks(locks);
                self.enter_round(thread, grants);
            }
            Lane::Declared => {
                self.declared_read += 1;
                let locks = normalized(locks);
                let at_once = self.plants(Planted::TicketsWithinRound) || self.plants(Planted::TicketCountsAsActive);
                if self.slots.is_empty() || at_once {
                    self.admit(thread, &locks, grants);
                } else {
                    self.deferred.push((thread, locks));
                }
            }
        }
    }

    /// Tickets enter the queues; the thread may run.
    pub(super) fn admit(&mut self, thread: u32, locks: &[DeclaredLock], grants: &mut Vec<Grant>) {
        for declared in locks {
            let lock = self.locks.issue(thread, *declared);
            self.hand_over(lock, grants);
        }
        self.active += usize::from(!self.plants(Planted::TicketCountsAsActive));
        let entry = &mut self.threads[thread as usize];
        entry.state = State::Admitted;
        match entry.pending.take() {
            None => {
                self.moved = true;
                grants.push(Grant::Start { thread: ThreadIndex(thread) });
            }
            Some(pending) => {
                let operation = pending.operation().expect("who was not admitted has had no operation performed");
                self.declared_operation(thread, operation, grants);
            }
        }
    }

    /// Of a running admitted thread.
    pub(super) fn declared_operation(&mut self, thread: u32, operation: Operation, grants: &mut Vec<Grant>) {
        let now = self.threads[thread as usize].now;
        let result = match operation {
            Operation::Lock { lock, mode, timeout: None } => match self.locks.lock_by_ticket(thread, lock, mode) {
                ByTicket::Locked(grip) => return self.locked(grip, grants),
                ByTicket::Waits => {
                    self.suspects.push(thread);
                    self.parked += 1;
                    self.active += usize::from(self.plants(Planted::TicketCountsAsActive));
                    return self.stop(thread, State::Ticket, operation.into());
                }
                ByTicket::NotPossible => OperationResult::NotPossible,
                ByTicket::NotDeclared => OperationResult::NotDeclared,
            },
            Operation::Unlock { lock } => match self.locks.unlock_by_ticket(thread, lock, now) {
                Some(lock) => {
                    self.hand_over(lock, grants);
                    OperationResult::Granted
                }
                None => OperationResult::NotPossible,
            },
            Operation::Notify { lock, queue, all } => match self.locks.locked_by_ticket(thread, lock) {
                Some(index) => {
                    self.wake(lock, index, queue, all);
                    OperationResult::Granted
                }
                None => OperationResult::NotPossible,
            },
            Operation::Finish => return self.finish_declared(thread, grants),
            _ => OperationResult::NotDeclared,
        };
        self.resume(thread, State::Admitted, result, grants);
    }

    /// A ticket gave the lock to its running thread.
    pub(super) fn locked(&mut self, grip: Grip, grants: &mut Vec<Grant>) {
        let Grip { thread, lock, mode, past } = grip;
        let entry = &mut self.threads[thread as usize];
        if entry.slot == NO_SLOT {
            entry.slot = self.shares.len() as u32;
            self.shares.push(Share { thread, id: entry.id, grants: Grants::default() });
        }
        let share = &mut self.shares[entry.slot as usize];
        self.trace.grant(&mut share.grants, self.locks.id(lock), mode, past.writers_before);
        self.inherit(thread, past, false);
        self.resume(thread, State::Admitted, OperationResult::Granted, grants);
    }

    fn finish_declared(&mut self, thread: u32, grants: &mut Vec<Grant>) {
        let now = self.threads[thread as usize].now;
        while let Some(lock) = self.locks.give_up_ticket(thread, now) {
            self.hand_over(lock, grants);
        }
        let slot = self.threads[thread as usize].slot;
        if let Some(share) = self.shares.get_mut(slot as usize) {
            share.thread = NO_THREAD;
        }
        self.threads[thread as usize] = VACANT;
        self.alive -= 1;
        self.active -= usize::from(!self.plants(Planted::TicketCountsAsActive));
        self.progress = true;
        grants.push(Grant::Finished { thread: ThreadIndex(thread) });
    }

    /// The end of the round: their grants, in log order.
    pub(super) fn fold_shares(&mut self) {
        self.shares.sort_unstable_by_key(|share| share.id);
        for Share { thread, id, grants } in self.shares.drain(..) {
            self.trace.fold(self.round, id, grants);
            if thread != NO_THREAD {
                self.threads[thread as usize].slot = NO_SLOT;
            }
        }
    }

    /// Step 7: the declared requests read in the last round are admitted, in log order.
    pub(super) fn admit_deferred(&mut self, grants: &mut Vec<Grant>) {
        for (thread, locks) in core::mem::take(&mut self.deferred) {
            self.admit(thread, &locks, grants);
        }
    }
}
