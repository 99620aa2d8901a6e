//! The ends and beginnings of rounds, and the cursor over the log. The steps of `end_round` are numbered as in
//! docs/internals/scheduler.md; their order is part of the contract.

use super::*;
use crate::RoundReport;
use crate::locks::Place;
use crate::trace::DigestWriter;

impl Uds {
    /// Whether the round takes no further primaries.
    fn membership_closed(&self) -> bool {
        self.closed || self.slots.len() >= self.slots_max
    }

    /// Carries on until something is active or the log is used up.
    pub(super) fn settle(&mut self, grants: &mut Vec<Grant>) {
        while self.active == 0 && self.round > 0 {
            if self.head_forfeits() {
                // Not before quiescence: until then it depends on when an unlock happens whether the head is enqueued.
                self.advance(grants);
            } else if self.membership_closed() {
                self.end_round(grants);
                self.begin_round(grants);
            } else {
                return;
            }
        }
    }

    fn head_forfeits(&mut self) -> bool {
        let Some(slot) = self.turns.head() else { return false };
        let thread = self.slots[slot as usize].thread;
        let enqueued = self.threads[thread as usize].state == State::Enqueued;
        if enqueued {
            self.turns.forfeit(slot);
        }
        enqueued
    }

    // -- the log

    /// Reads entries while the membership is open.
    pub(super) fn read_log(&mut self, grants: &mut Vec<Grant>) {
        while !self.membership_closed() {
            let Some(entry) = self.log.front_mut() else { break };
            match entry {
                Entry::Request { thread, .. } => {
                    let thread = thread.0;
                    self.consumed = true;
                    self.held = 0;
                    self.stuck = false;
                    self.select(thread, grants);
                }
                Entry::Answer { position, path, call } => {
                    self.consumed = true;
                    self.answers.extend(ThreadId::of(*position, path).map(|thread| (thread, *call)));
                }
                Entry::Tick(timestamp) => {
                    self.next_now = self.next_now.max(*timestamp);
                    self.closed = true;
                }
                Entry::Flush => {
                    let idle = !self.consumed && self.slots.is_empty();
                    let hopeless = !self.consumed && (self.stuck || self.held >= self.parameters.flush_rounds.max(1));
                    if !idle && !hopeless {
                        // The round is closed short, the cursor stays on the Flush.
                        self.closed = true;
                        self.held += 1;
                        break;
                    }
                    if !idle {
                        self.held = 0;
                        self.stuck = false;
                    }
                }
                Entry::Reconfigure(parameters) => {
                    let empty = Parameters { primaries: 1, steps: 1, order: crate::Order::RoundRobin, flush_rounds: 1 };
                    self.reconfigure = Some(core::mem::replace(parameters, empty));
                    self.closed = true;
                }
                Entry::Mark(mark) => {
                    self.mark = Some(*mark);
                    self.closed = true;
                }
            }
            self.log.pop_front();
            self.cursor += 1;
        }
        if self.membership_closed() {
            self.turns.close();
        }
        self.advance(grants);
    }

    // -- the end of a round

    pub(super) fn end_round(&mut self, grants: &mut Vec<Grant>) {
        let all_were_primary = self.eligible.is_empty();
        self.resolve_waiting(); // 1
        self.now = self.next_now; // 2
        while let Some(thread) = self.newcomers.pop() {
            self.enter(thread); // 3
        }
        while let Some(thread) = self.joined.pop() {
            self.settle_later(thread, OperationResult::Granted); // 4
            self.parked -= 1;
            self.enter(thread);
        }
        self.fire_timers();
        self.settle_answers();
        self.settle_tries();
        if let Some(parameters) = self.reconfigure.take().filter(|parameters| *parameters != self.parameters) {
            self.turns = Turns::new(&parameters); // 5
            self.parameters = parameters;
            self.progress = true;
        }
        self.locks.sweep();
        self.fold_grants(); // 6
        self.stuck = all_were_primary && !self.progress;
        self.boost = if self.progress { 0 } else { self.boost.saturating_mul(2).max(1) };
        if let Some(mark) = self.mark.take() {
            let report = self.report(mark);
            grants.push(Grant::Marked(report));
        }
    }

    /// Step 1: cycles are broken, queues are emptied, who stands behind a parked owner leaves E until that lock is
    /// released. What is left of the primaries is carried over, to retry with a new step.
    fn resolve_waiting(&mut self) {
        let mut scratch = core::mem::take(&mut self.scratch);
        let Scratch { enqueued, suspects, victims, tries, released, blocked, cycles } = &mut scratch;
        enqueued.clear();
        suspects.clear();
        victims.clear();
        tries.clear();
        for (at, slot) in self.slots.iter().enumerate().filter(|(_, slot)| slot.thread != NO_THREAD) {
            match core::mem::replace(&mut self.threads[slot.thread as usize].state, State::NotPrimary) {
                State::Enqueued => enqueued.push(slot.thread),
                State::Trying => tries.push(at),
                _ => {}
            }
        }
        suspects.extend(enqueued.iter().copied().chain(self.joining.drain(..)));
        if !suspects.is_empty() {
            let rank = |thread: u32| self.threads[thread as usize].id;
            let joins = |thread: u32| self.threads[thread as usize].joins;
            while let Some(victim) = cycles.youngest(&self.locks, suspects, self.threads.len(), rank, joins) {
                self.locks.leave(victim);
                victims.push(victim);
            }
        }
        for thread in enqueued.iter().copied() {
            if let Place::Queue(lock) = self.locks.place(thread) {
                self.locks.leave(thread);
                if self.has_parked_owner(lock) {
                    self.block(thread, lock);
                }
            }
        }
        self.locks.take_released(released);
        for lock in released.iter().copied() {
            blocked.clear();
            blocked.extend(self.locks.blocked(lock));
            for thread in blocked.iter().copied() {
                // Blocked only now, behind the parked owner that came after the release: it stays.
                let stays = self.threads[thread as usize].slot != NO_SLOT && self.has_parked_owner(lock);
                if !stays {
                    self.locks.leave(thread);
                    self.unblock(thread);
                }
            }
        }
        for victim in victims.iter().copied() {
            self.disarm(victim);
            if self.threads[victim as usize].state == State::Blocked {
                self.unblock(victim);
            }
            self.settle_later(victim, OperationResult::Deadlock);
        }
        self.scratch = scratch;
        for slot in self.slots.iter().filter(|slot| slot.thread != NO_THREAD) {
            let entry = &mut self.threads[slot.thread as usize];
            entry.slot = NO_SLOT;
            if entry.state == State::NotPrimary {
                self.carried.push(slot.thread);
            }
        }
    }

    fn has_parked_owner(&self, lock: LockIndex) -> bool {
        let parked = |state| {
            matches!(state, State::Waiting | State::Sleeping | State::Blocked | State::Joining | State::External)
        };
        self.locks.owners(lock).any(|owner| parked(self.threads[owner as usize].state))
    }

    fn block(&mut self, thread: u32, lock: LockIndex) {
        let entry = &mut self.threads[thread as usize];
        let mode = match entry.pending {
            Some(Pending::Operation(Operation::Lock { mode, .. })) => mode,
            _ => Mode::Write,
        };
        entry.state = State::Blocked;
        self.locks.block(thread, lock, mode);
        self.parked += 1;
        self.progress = true;
    }

    /// It has left its place at the lock. Who was a primary of this round is carried over, the others enter E.
    fn unblock(&mut self, thread: u32) {
        if self.threads[thread as usize].slot != NO_SLOT {
            self.threads[thread as usize].state = State::NotPrimary;
            self.progress = true;
        } else {
            self.enter(thread);
        }
        self.parked -= 1;
    }

    /// The thread enters E; it has something pending, or has just been born.
    fn enter(&mut self, thread: u32) {
        let entry = &mut self.threads[thread as usize];
        if entry.state != State::Fresh {
            entry.state = State::NotPrimary;
        }
        self.eligible.insert((entry.id, thread));
        self.progress = true;
    }

    /// The thread owns what it got, but runs on only when it is selected.
    fn settle_later(&mut self, thread: u32, result: OperationResult) {
        self.threads[thread as usize].pending = Some(Pending::Resume(result));
        self.progress = true;
    }

    /// Step 4: deadlines that have come, by (deadline, thread).
    fn fire_timers(&mut self) {
        while let Some((deadline, _, thread)) = self.timers.first().copied() {
            if deadline > self.now {
                return;
            }
            self.timers.pop_first();
            let entry = &mut self.threads[thread as usize];
            entry.deadline = None;
            match entry.state {
                State::Sleeping => {
                    self.settle_later(thread, OperationResult::Granted);
                    self.parked -= 1;
                    self.enter(thread);
                }
                State::External => {
                    self.forget_call(thread);
                    self.settle_later(thread, OperationResult::TimedOut);
                    self.parked -= 1;
                    self.enter(thread);
                }
                // Its relock, with TimedOut as result, is pending since it began to wait.
                State::Waiting => {
                    self.locks.leave(thread);
                    self.parked -= 1;
                    self.enter(thread);
                }
                State::Blocked => {
                    self.locks.leave(thread);
                    self.unblock(thread);
                    self.settle_later(thread, OperationResult::TimedOut);
                }
                State::NotPrimary => self.settle_later(thread, OperationResult::TimedOut),
                state => unreachable!("the timer of a thread that is {state:?} at the end of a round"),
            }
        }
    }

    fn forget_call(&mut self, thread: u32) {
        let Thread { id, calls, .. } = self.threads[thread as usize];
        self.outstanding.remove(&(id, calls - 1));
    }

    /// Step 4: answers. What nobody waits for is dropped.
    fn settle_answers(&mut self) {
        while let Some(call) = self.answers.pop_first() {
            if let Some(thread) = self.outstanding.remove(&call) {
                self.disarm(thread);
                self.settle_later(thread, OperationResult::Granted);
                self.parked -= 1;
                self.enter(thread);
            }
        }
    }

    /// Step 4, last: tries in slot order. One that fails is no progress.
    fn settle_tries(&mut self) {
        let tries = core::mem::take(&mut self.scratch.tries);
        for slot in tries.iter().copied() {
            let thread = self.slots[slot].thread;
            let Some(Pending::Operation(Operation::Try { lock, mode })) = self.threads[thread as usize].pending else {
                unreachable!("who tries has a try pending")
            };
            if self.locks.find(lock).is_none_or(|lock| self.locks.admits(lock, mode)) {
                let lock = self.locks.open(lock);
                self.own_in(slot, thread, lock, mode);
                self.settle_later(thread, OperationResult::Granted);
            } else {
                self.threads[thread as usize].pending = Some(Pending::Resume(OperationResult::Occupied));
            }
        }
        self.scratch.tries = tries;
    }

    /// Step 6: the grants of the round, in slot order.
    fn fold_grants(&mut self) {
        for slot in self.slots.iter().filter(|slot| !slot.grants.is_empty()) {
            self.trace.fold(self.round, slot.id, slot.grants);
        }
    }

    // -- the beginning of a round

    pub(super) fn begin_round(&mut self, grants: &mut Vec<Grant>) {
        self.round += 1;
        self.slots.clear();
        self.closed = false;
        self.consumed = false;
        self.progress = false;
        let primaries = self.parameters.primaries.max(1) as usize;
        let eligible = self.carried.len() + self.eligible.len();
        self.slots_max = primaries.saturating_add(self.boost as usize).min(primaries.saturating_add(eligible));
        self.turns.begin(self.slots_max);
        let mut carried = core::mem::take(&mut self.carried);
        let mut rest = carried.iter().copied().peekable();
        while self.slots.len() < self.slots_max {
            let older = match (rest.peek(), self.eligible.first()) {
                (Some(carried), Some((id, _))) => self.threads[*carried as usize].id < *id,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => break,
            };
            let thread = match older {
                true => rest.next(),
                false => self.eligible.pop_first().map(|(_, thread)| thread),
            };
            self.select(thread.expect("one of the two has a first"), grants);
        }
        for thread in rest {
            self.eligible.insert((self.threads[thread as usize].id, thread));
        }
        carried.clear();
        self.carried = carried;
        self.read_log(grants);
    }

    /// The thread becomes a primary of this round.
    fn select(&mut self, thread: u32, grants: &mut Vec<Grant>) {
        let slot = self.turns.push();
        let entry = &mut self.threads[thread as usize];
        entry.slot = slot;
        self.slots.push(Slot { thread, id: entry.id, grants: Word::default() });
        match entry.pending.take() {
            None => {
                entry.state = State::Running;
                self.active += 1;
                grants.push(Grant::Start { thread: ThreadIndex(thread) });
            }
            Some(Pending::Resume(result)) => {
                self.active += 1;
                self.resume(thread, result, grants);
            }
            Some(
                pending @ (Pending::Relock { .. } | Pending::Operation(Operation::Lock { .. } | Operation::Yield)),
            ) => {
                self.arm_lock(thread, &pending);
                let entry = &mut self.threads[thread as usize];
                entry.state = State::AwaitingTurn;
                entry.pending = Some(pending);
            }
            Some(Pending::Operation(operation)) => {
                entry.state = State::Running;
                self.active += 1;
                self.slot_operation(thread, operation, grants);
            }
        }
    }

    // -- what replicas compare

    fn report(&mut self, mark: u64) -> RoundReport {
        RoundReport { mark, round: self.round, grants: self.trace.report(self.round), state: self.digest() }
    }

    /// Everything that the rest of the log will meet, in canonical order. Requests that are fresh stand in the log
    /// behind the cursor; of children that are fresh only the name and the time count: how far they have run ahead is
    /// local.
    fn digest(&self) -> [u8; 32] {
        let mut digest = DigestWriter::new("unisono uds state");
        self.parameters.digest(&mut digest);
        digest.words(&[self.round, self.cursor, self.now, self.boost.into(), self.held.into(), self.stuck.into()]);
        let mut threads: Vec<u32> = (0..self.threads.len() as u32)
            .filter(|thread| match self.threads[*thread as usize] {
                Thread { state: State::Vacant, .. } => false,
                Thread { state: State::Fresh, id, .. } => !id.is_request(),
                _ => true,
            })
            .collect();
        threads.sort_unstable_by_key(|thread| self.threads[*thread as usize].id);
        digest.word(threads.len() as u64);
        for thread in threads {
            let entry = &self.threads[thread as usize];
            digest.id(entry.id);
            digest.words(&[entry.now, entry.state as u64, entry.born.into(), entry.calls.into()]);
            digest.option(entry.deadline);
            match entry.pending.as_ref().filter(|_| entry.state != State::Fresh) {
                None => digest.word(0),
                Some(Pending::Operation(operation)) => {
                    digest.word(1);
                    operation.digest(&mut digest);
                }
                Some(Pending::Relock { lock, result }) => {
                    digest.word(2);
                    digest.lock(*lock);
                    digest.result(*result);
                }
                Some(Pending::Resume(result)) => {
                    digest.word(3);
                    digest.result(*result);
                }
            }
            digest.word(self.locks.owned(thread).count() as u64);
            self.locks.owned(thread).for_each(|(lock, _)| digest.lock(lock));
        }
        self.locks.digest(&mut digest, |thread| self.threads[thread as usize].id);
        self.families.digest(&mut digest);
        digest.finish()
    }

    // -- invariants

    /// The invariants that cost no more than the round.
    pub(super) fn round_invariants(&self) {
        let present = || self.slots.iter().enumerate().filter(|(_, slot)| slot.thread != NO_THREAD);
        let state = |slot: &Slot| self.threads[slot.thread as usize].state;
        assert_eq!(self.active, present().filter(|(_, slot)| state(slot) == State::Running).count(), "I3: active");
        assert!(self.slots.len() <= self.slots_max.max(1));
        assert!(self.slots.is_sorted_by(|a, b| a.id < b.id), "slots stand in order of id");
        for (at, slot) in present() {
            assert_eq!(self.threads[slot.thread as usize].slot, at as u32);
            let of_the_round = [State::Running, State::AwaitingTurn, State::OutOfSteps, State::Enqueued, State::Trying];
            assert!(of_the_round.contains(&state(slot)), "a primary is {:?}", state(slot));
        }
        assert!(self.active > 0 || self.log.is_empty(), "settled: whoever can run, runs");
    }

    /// All invariants; O(threads and locks). For tests and simulators.
    ///
    /// # Panics
    /// When one does not hold.
    pub fn invariants(&self) {
        self.locks.invariants();
        let count = |states: &[State]| self.threads.iter().filter(|thread| states.contains(&thread.state)).count();
        assert_eq!(self.alive, self.threads.len() - count(&[State::Vacant]));
        assert_eq!(
            self.parked,
            count(&[State::Waiting, State::Sleeping, State::Blocked, State::Joining, State::External])
        );
        assert_eq!(self.outstanding.len(), count(&[State::External]));
        assert_eq!(self.timers.len(), self.threads.iter().filter(|thread| thread.deadline.is_some()).count());
        let fresh_children =
            self.threads.iter().filter(|thread| thread.state == State::Fresh && !thread.id.is_request());
        assert_eq!(
            self.eligible.len() + self.carried.len() + self.newcomers.len(),
            count(&[State::NotPrimary]) + fresh_children.count(),
            "who has something to do stands in exactly one list"
        );
        for (index, thread) in self.threads.iter().enumerate() {
            let place = self.locks.place(index as u32);
            let stands_right = match thread.state {
                State::Enqueued => matches!(place, Place::Queue(_)),
                State::Blocked => matches!(place, Place::Blocked(_)),
                State::Waiting => matches!(place, Place::Waiting(..)),
                _ => place == Place::Nowhere,
            };
            assert!(stands_right, "a thread that is {:?} stands at {place:?}", thread.state);
            let owns_nothing = self.locks.first_owned(index as u32).is_none();
            assert!(
                owns_nothing || !matches!(thread.state, State::Vacant | State::Fresh),
                "I2: it owns what it cannot"
            );
            assert_eq!(
                thread.slot != NO_SLOT,
                matches!(
                    thread.state,
                    State::Running | State::AwaitingTurn | State::OutOfSteps | State::Enqueued | State::Trying
                ),
                "a primary has a slot and nobody else"
            );
        }
    }
}
