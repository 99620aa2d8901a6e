//! Operations of a running primary that need a slot and no step: what gives something back, what parks, what ends.

use super::*;

impl Uds {
    /// Of a running primary.
    pub(super) fn slot_operation(&mut self, thread: u32, operation: Operation, grants: &mut Vec<Grant>) {
        match operation {
            Operation::Unlock { lock } => {
                let result = self.unlock(thread, lock, grants);
                self.go_on(thread, result, grants);
            }
            Operation::Notify { lock, queue, all } => {
                let result = self.notify(thread, lock, queue, all);
                self.go_on(thread, result, grants);
            }
            Operation::Wait { lock, queue, timeout } => self.wait(thread, lock, queue, timeout, grants),
            Operation::Sleep { duration } => {
                self.arm(thread, duration);
                self.park(thread, State::Sleeping, grants);
            }
            Operation::Spawn { thread: child } => {
                let result = self.spawn(thread, child.0);
                self.go_on(thread, result, grants);
            }
            Operation::Join { child } => self.join(thread, child, grants),
            Operation::Try { lock, mode } => self.attempt(thread, lock, mode, grants),
            Operation::External { timeout } => self.call(thread, timeout, grants),
            Operation::Reconfigure(change) => {
                let slot = self.threads[thread as usize].slot;
                let key = if self.plants(Planted::LastChangeWins) { 0 } else { slot };
                self.changes.entry(key).or_default().then(*change);
                self.go_on(thread, OperationResult::Granted, grants);
            }
            Operation::Finish => self.finish(thread, grants),
            Operation::Lock { .. } | Operation::Yield => unreachable!("needs a step"),
        }
    }

    pub(super) fn unlock(&mut self, thread: u32, lock: LockId, grants: &mut Vec<Grant>) -> OperationResult {
        let now = self.threads[thread as usize].now;
        match self.locks.find(lock) {
            Some(index) => match self.locks.release(thread, index, now) {
                Some(queued) => {
                    if self.plants(Planted::ReadersCarry) {
                        self.locks.carry(index, now);
                    }
                    if queued {
                        self.hand_over(index, grants);
                    }
                    self.used(thread, lock);
                    OperationResult::Granted
                }
                None => OperationResult::NotPossible,
            },
            None => OperationResult::NotPossible,
        }
    }

    /// Those that may own the lock now, become its owners and go on.
    pub(super) fn hand_over(&mut self, lock: LockIndex, grants: &mut Vec<Grant>) {
        while let Some(heir) = self.locks.heir(lock) {
            self.active += 1;
            match heir {
                Heir::Thread(thread, mode) => {
                    #[cfg(feature = "planted")]
                    if self.was_counted(thread) {
                        self.active -= 1;
                    }
                    let entry = &self.threads[thread as usize];
                    let (result, relock) = match entry.pending {
                        Some(Pending::Relock { result, .. }) => (result, true),
                        _ => (OperationResult::Granted, false),
                    };
                    let slot = entry.slot as usize;
                    let past = self.locks.own(thread, lock, mode);
                    self.note(slot, self.locks.id(lock), mode, past.writers_before);
                    self.inherit(thread, past, relock);
                    self.resume(thread, State::Running, result, grants);
                }
                Heir::Ticket(grip) => {
                    if self.plants(Planted::TicketCountsAsActive) {
                        self.active -= 1;
                    }
                    self.parked -= 1;
                    self.locked(grip, grants);
                }
            }
        }
    }

    fn notify(&mut self, thread: u32, lock: LockId, queue: QueueId, all: bool) -> OperationResult {
        match self.locks.find(lock).filter(|index| self.locks.owned_as(thread, *index).is_some()) {
            Some(index) => {
                self.wake(lock, index, queue, all);
                OperationResult::Granted
            }
            None => OperationResult::NotPossible,
        }
    }

    /// The first waiter, or all, leave the queue; they enter E at the end of the round.
    pub(super) fn wake(&mut self, lock: LockId, index: LockIndex, queue: QueueId, all: bool) {
        while let Some(waiter) = self.locks.first_waiter(index, queue) {
            self.locks.leave(waiter);
            self.disarm(waiter);
            let entry = &mut self.threads[waiter as usize];
            entry.state = State::NotPrimary;
            entry.pending = Some(Pending::Relock { lock, result: OperationResult::Granted });
            self.parked -= 1;
            self.newcomers.push(waiter);
            if !all {
                return;
            }
        }
    }

    fn wait(&mut self, thread: u32, lock: LockId, queue: QueueId, timeout: Option<u64>, grants: &mut Vec<Grant>) {
        let owned = self.locks.find(lock).filter(|lock| self.locks.owned_as(thread, *lock) == Some(Mode::Write));
        let Some(index) = owned else {
            return self.go_on(thread, OperationResult::NotPossible, grants);
        };
        self.locks.join_wait_queue(thread, index, queue);
        if let Some(timeout) = timeout {
            self.arm(thread, timeout);
        }
        self.locks.release(thread, index, self.threads[thread as usize].now);
        self.hand_over(index, grants);
        self.threads[thread as usize].pending = Some(Pending::Relock { lock, result: OperationResult::TimedOut });
        self.park(thread, State::Waiting, grants);
    }

    /// Forfeits the remaining steps: the answer comes at the end of the round.
    fn attempt(&mut self, thread: u32, lock: LockId, mode: Mode, grants: &mut Vec<Grant>) {
        if self.locks.find(lock).is_some_and(|lock| self.locks.owned_as(thread, lock).is_some()) {
            return self.go_on(thread, OperationResult::NotPossible, grants);
        }
        self.stop(thread, State::Trying, Pending::Try { lock, mode });
        self.turns.forfeit(self.threads[thread as usize].slot);
        self.advance(grants);
    }

    pub(super) fn spawn(&mut self, parent: u32, child: u32) -> OperationResult {
        let entry = &mut self.threads[parent as usize];
        let (now, next) = (entry.now.max(self.now), Families::next(entry.id, entry.born));
        let Some(id) = next else { return OperationResult::NotPossible };
        entry.born += 1;
        let (class, future) = (entry.class, entry.future.clone());
        self.families.add(id, child);
        self.create(child, id, now);
        let entry = &mut self.threads[child as usize];
        (entry.class, entry.future) = (class, future);
        self.undeclared += 1;
        self.newcomers.push(child);
        OperationResult::Granted
    }

    /// A child that finished in an earlier round is there at once; one that finished in this round is not, because
    /// whether it was before or after this operation is local.
    fn join(&mut self, thread: u32, child: u16, grants: &mut Vec<Grant>) {
        let id = self.threads[thread as usize].id;
        match self.families.join(id, child, thread) {
            None => self.go_on(thread, OperationResult::NotPossible, grants),
            Some(Child::Finished { round, now }) if round < self.round => {
                self.inherit_child(thread, now);
                self.go_on(thread, OperationResult::Granted, grants);
            }
            Some(Child::Finished { now, .. }) => {
                self.inherit_child(thread, now);
                self.joined.push(thread);
                self.park(thread, State::Joining, grants);
            }
            Some(Child::Alive { thread: child, .. }) => {
                self.threads[thread as usize].joins = Some(child);
                self.suspects.push(thread);
                self.park(thread, State::Joining, grants);
            }
        }
    }

    /// A thread that joins a child is not before its end.
    fn inherit_child(&mut self, parent: u32, now: u64) {
        if !self.plants(Planted::JoinKeepsNow) {
            self.catch_up(parent, now);
        }
    }

    fn call(&mut self, thread: u32, timeout: Option<u64>, grants: &mut Vec<Grant>) {
        let entry = &mut self.threads[thread as usize];
        self.outstanding.insert((entry.id, entry.calls), thread);
        grants.push(Grant::Call { thread: ThreadIndex(thread), call: entry.calls });
        entry.calls += 1;
        if let Some(timeout) = timeout {
            self.arm(thread, timeout);
        }
        self.park(thread, State::External, grants);
    }

    /// A running thread leaves E and with it the round.
    fn park(&mut self, thread: u32, state: State, grants: &mut Vec<Grant>) {
        self.threads[thread as usize].state = state;
        self.parked += 1;
        self.leave_round(thread, grants);
    }

    fn finish(&mut self, thread: u32, grants: &mut Vec<Grant>) {
        let now = self.threads[thread as usize].now;
        while let Some(lock) = self.locks.first_owned(thread) {
            self.locks.release(thread, lock, now);
            self.hand_over(lock, grants);
        }
        self.leave_round(thread, grants);
        let Thread { id, born, .. } = core::mem::replace(&mut self.threads[thread as usize], VACANT);
        self.alive -= 1;
        self.undeclared -= 1;
        if born > 0 {
            self.families.forget(id);
        }
        if let Some(joiner) = self.families.finished(id, self.round, now) {
            self.inherit_child(joiner, now);
            self.threads[joiner as usize].joins = None;
            self.joined.push(joiner);
        }
        grants.push(Grant::Finished { thread: ThreadIndex(thread) });
    }

    /// Forfeits the remaining steps; the head may move.
    fn leave_round(&mut self, thread: u32, grants: &mut Vec<Grant>) {
        let slot = core::mem::replace(&mut self.threads[thread as usize].slot, NO_SLOT);
        self.slots[slot as usize].thread = NO_THREAD;
        self.turns.forfeit(slot);
        self.active -= 1;
        self.progress = true;
        self.advance(grants);
    }
}
