//! The ends and beginnings of rounds, and the cursor over the log. The steps of `end_round` are numbered as in
//! docs/internals/scheduler.md; their order is part of the contract.

use super::*;
use crate::locks::Place;
use crate::trace::DigestWriter;
use crate::{RoundEnd, RoundReport};
use alloc::boxed::Box;

/// Declared requests that a round consumes at most: what is kept of them until its end, their names and hashes, has a
/// bound, and a round so long costs nothing to end.
const DECLARED_MAX: usize = 1 << 16;

impl Uds {
    /// Whether the round takes no further members: it was closed short, or is full. A load of declared requests alone
    /// has no rounds to wait for.
    fn membership_closed(&self) -> bool {
        self.closed
            || self.declared_read >= DECLARED_MAX
            || self.slots.len() + self.declared_read + self.gate.held_back >= self.slots_max
                && (!self.slots.is_empty() || self.undeclared > 0)
    }

    /// Carries on until something is active or the log is used up.
    pub(super) fn settle(&mut self, grants: &mut Vec<Grant>) {
        while self.active == 0 && self.round > 0 {
            if self.head_forfeits() {
                // Not before quiescence: until then it depends on when an unlock happens whether the head is enqueued.
                self.advance(grants);
            } else if self.membership_closed() || self.fills_up() {
                self.end_round(grants);
                self.begin_round(grants);
                if cfg!(any(debug_assertions, feature = "planted")) {
                    let longest = 3 + (self.slots.len() + self.eligible.len() + 1).ilog2();
                    assert!(self.idle_rounds <= longest, "I7: {} rounds without progress", self.idle_rounds);
                }
            } else {
                return;
            }
        }
    }

    /// Never, as long as nobody planted that.
    fn fills_up(&self) -> bool {
        self.plants(Planted::LocalFill) && !self.slots.is_empty() && self.boost == 0
    }

    fn head_forfeits(&mut self) -> bool {
        let Some(slot) = self.turns.head() else { return false };
        let thread = self.slots[slot as usize].thread;
        let enqueued =
            self.threads[thread as usize].state == State::Enqueued && !self.plants(Planted::EnqueuedKeepsHead);
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
            self.moved |= !matches!(entry, Entry::Flush);
            match entry {
                Entry::Request { thread, declaration, .. } => {
                    let (thread, declaration) = (thread.0, core::mem::take(declaration));
                    self.read_request(thread, declaration, grants);
                }
                Entry::Answer { position, path, call, timestamp } => {
                    let timestamp = *timestamp;
                    self.consumed = true;
                    let call = ThreadId::of(*position, path).map(|thread| (thread, *call));
                    let lost = self.plants(Planted::EarlyAnswerLost)
                        && call.is_some_and(|call| !self.outstanding.contains_key(&call));
                    if let Some(call) = call.filter(|_| !lost) {
                        self.answers.entry(call).or_insert(timestamp);
                    }
                }
                Entry::Tick(timestamp) => {
                    self.next_now = self.next_now.max(*timestamp);
                    self.closed = !self.plants(Planted::TickClosesNothing);
                    if self.plants(Planted::TickIsNow) {
                        self.now = self.next_now;
                    }
                }
                Entry::Flush => {
                    let idle = !self.consumed && self.slots.is_empty();
                    let hopeless = !self.consumed && (self.stuck || self.held >= self.parameters.flush_rounds.max(1));
                    let hopeless = hopeless && !self.plants(Planted::FlushHoldsUntilEmpty);
                    let passed = idle || hopeless || self.plants(Planted::NoFlush);
                    if !idle && self.plants(Planted::FlushOnce) {
                        self.closed = true;
                    } else if !passed {
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
                Entry::Reconfigure(change) => {
                    self.reconfigure = Some(core::mem::take(change));
                    self.closed = true;
                }
                Entry::Mark(mark) => {
                    self.mark = Some(*mark);
                    self.closed = true;
                }
            }
            self.log.pop_front();
            self.cursor += 1;
            self.idle_rounds = 0;
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
        self.fire_timers(grants);
        self.settle_answers();
        self.settle_tries();
        self.change_parameters(); // 5
        self.progress |= !self.deferred.is_empty();
        self.locks.sweep(self.now);
        self.fold_grants(); // 6
        self.stuck = all_were_primary && !self.progress;
        self.still = self.stuck && !self.moved;
        self.idle_rounds = if self.progress { 0 } else { self.idle_rounds + 1 };
        self.boost =
            if self.progress || self.plants(Planted::NoBoost) { 0 } else { self.boost.saturating_mul(2).max(1) };
        if let Some(mark) = self.mark.take() {
            let report = self.report(mark);
            grants.push(Grant::Marked(Box::new(report)));
        }
        if self.observed {
            let (round, primaries, admitted) = (self.round, self.slots.len(), self.declared_read);
            grants.push(Grant::RoundEnded(Box::new(RoundEnd {
                round,
                primaries,
                admitted,
                parameters: self.parameters.clone(),
            })));
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
        suspects.extend(enqueued.iter().copied());
        let waits = |thread: &u32| self.threads[*thread as usize].state.is_suspect();
        suspects.extend(self.suspects.drain(..).chain(self.locks.cornered.drain(..)).filter(waits));
        let late = self.plants(Planted::LateDeadlock)
            && (self.progress
                || self.slots_max < self.undeclared
                || !self.timers.is_empty()
                || !self.outstanding.is_empty());
        if !suspects.is_empty() && !late {
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
                if self.has_parked_owner(lock) && !self.plants(Planted::RetryForEver) {
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
            Some(Pending::Lock { mode, .. }) => mode,
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
    pub(super) fn settle_later(&mut self, thread: u32, result: OperationResult) {
        self.threads[thread as usize].pending = Some(Pending::Resume(result));
        self.progress = true;
    }

    /// Step 4: deadlines that have come, by (deadline, thread).
    fn fire_timers(&mut self, grants: &mut Vec<Grant>) {
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
                    if self.plants(Planted::TimerRunsThread) {
                        self.resume(thread, State::Fresh, OperationResult::Granted, grants);
                    }
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
        while let Some((call, timestamp)) = self.answers.pop_first() {
            if let Some(thread) = self.outstanding.remove(&call) {
                self.disarm(thread);
                if !self.plants(Planted::CallKeepsNow) {
                    self.catch_up(thread, timestamp);
                }
                self.settle_later(thread, OperationResult::Granted);
                self.parked -= 1;
                self.enter(thread);
            }
        }
    }

    /// Step 4, last: tries in slot order. One that fails is no progress.
    fn settle_tries(&mut self) {
        #[cfg(feature = "planted")]
        if self.plants(Planted::TryWithoutSlot) {
            return self.settle_all_tries();
        }
        let tries = core::mem::take(&mut self.scratch.tries);
        for slot in tries.iter().copied() {
            let thread = self.slots[slot].thread;
            let Some(Pending::Try { lock, mode }) = self.threads[thread as usize].pending else {
                unreachable!("who tries has a try pending")
            };
            if self.locks.find(lock).is_none_or(|lock| self.locks.admits(lock, mode)) {
                let (id, index) = (lock, self.locks.open(lock));
                let past = self.locks.own(thread, index, mode);
                self.note(slot, id, mode, past.writers_before);
                self.inherit(thread, past, false);
                self.settle_later(thread, OperationResult::Granted);
            } else {
                self.threads[thread as usize].pending = Some(Pending::Resume(OperationResult::Occupied));
            }
        }
        self.scratch.tries = tries;
    }

    /// Step 5: what handlers changed, in slot order, then what the log changed.
    fn change_parameters(&mut self) {
        let mut change = Change::default();
        while let Some((_, by_handler)) = self.changes.pop_first() {
            change.then(by_handler);
        }
        change.then(self.reconfigure.take().unwrap_or_default());
        if change.apply(&mut self.parameters) {
            self.turns = Turns::new(&self.parameters);
            self.gate = Gate::new(&self.parameters.predicate);
            self.progress = true;
        }
    }

    /// Step 6: the grants of the round, in slot order, then in log order.
    fn fold_grants(&mut self) {
        for slot in self.slots.iter().filter(|slot| !slot.grants.is_empty()) {
            self.trace.fold(self.round, slot.id, slot.grants);
        }
        self.fold_shares();
    }

    // -- the beginning of a round

    pub(super) fn begin_round(&mut self, grants: &mut Vec<Grant>) {
        self.round += 1;
        self.slots.clear();
        self.declared_read = 0;
        self.closed = false;
        // Deferred ones are admitted into this round: what they do waits for its end, so a Flush must not pass it over.
        self.consumed = !self.deferred.is_empty();
        self.progress = false;
        self.moved = self.consumed;
        let primaries = self.parameters.primaries.max(1) as usize;
        let eligible = self.carried.len() + self.eligible.len();
        self.slots_max = primaries.saturating_add(self.boost as usize).min(primaries.saturating_add(eligible));
        self.turns.begin(self.slots_max);
        self.admit_deferred(grants); // 7
        self.gate.begin(self.boost == 0);
        match self.gate.is_shut() {
            true => self.select_passing(grants),
            false => self.select_first(grants),
        }
        self.read_log(grants);
    }

    /// The first of E become primaries of the round that begins.
    fn select_first(&mut self, grants: &mut Vec<Grant>) {
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
    }

    /// The thread becomes a primary of this round.
    pub(super) fn select(&mut self, thread: u32, grants: &mut Vec<Grant>) {
        let slot = self.turns.push();
        let entry = &mut self.threads[thread as usize];
        entry.slot = slot;
        self.slots.push(Slot { thread, id: entry.id, grants: Grants::default() });
        match entry.pending.take() {
            None => {
                entry.state = State::Running;
                self.active += 1;
                self.moved = true;
                grants.push(Grant::Start { thread: ThreadIndex(thread) });
            }
            Some(Pending::Resume(result)) => {
                self.active += 1;
                self.resume(thread, State::Running, result, grants);
            }
            Some(pending @ (Pending::Relock { .. } | Pending::Lock { .. } | Pending::Yield)) => {
                self.arm_lock(thread, &pending);
                let entry = &mut self.threads[thread as usize];
                entry.state = State::AwaitingTurn;
                entry.pending = Some(pending);
                #[cfg(feature = "planted")]
                if self.plants(Planted::RetryWithoutTurn) {
                    self.retries(thread);
                }
            }
            Some(pending) => {
                entry.state = State::Running;
                self.active += 1;
                let operation = pending.operation().expect("an operation");
                self.slot_operation(thread, operation, grants);
            }
        }
    }

    // -- what replicas compare

    fn report(&mut self, mark: u64) -> RoundReport {
        RoundReport { mark, round: self.round, grants: self.trace.report(self.round), state: self.digest() }
    }

    /// Everything that the rest of the log will meet, in canonical order. Requests that are fresh stand in the log
    /// behind the cursor; of those held back, and of children that are fresh, only the name and the time count: how far
    /// they have run ahead is local.
    fn digest(&self) -> [u8; 32] {
        let mut digest = DigestWriter::new("unisono uds state");
        self.parameters.digest(&mut digest);
        digest.words(&[self.round, self.cursor, self.now, self.boost.into(), self.held.into(), self.stuck.into()]);
        let mut threads: Vec<u32> = (0..self.threads.len() as u32)
            .filter(|thread| match self.threads[*thread as usize] {
                Thread { state: State::Vacant, .. } => false,
                Thread { state: State::Fresh, id, .. } => !id.is_request() || self.eligible.contains(&(id, *thread)),
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
            digest.word(entry.class.into());
            digest.future_locks(entry.future.as_deref());
            match entry.pending.as_ref().filter(|_| entry.state != State::Fresh) {
                None => digest.word(0),
                Some(Pending::Relock { lock, result }) => {
                    digest.word(2);
                    digest.lock(*lock);
                    digest.result(*result);
                }
                Some(Pending::Resume(result)) => {
                    digest.word(3);
                    digest.result(*result);
                }
                Some(pending) => {
                    digest.word(1);
                    pending.clone().operation().expect("an operation").digest(&mut digest);
                }
            }
            if matches!(entry.state, State::Admitted | State::Ticket) {
                self.locks.digest_tickets(thread, &mut digest);
                continue;
            }
            digest.word(self.locks.owned(thread).count() as u64);
            self.locks.owned(thread).for_each(|(lock, _)| digest.lock(lock));
        }
        digest.ids(&self.deferred.iter().map(|(thread, _)| self.threads[*thread as usize].id).collect::<Vec<_>>());
        self.locks.digest(&mut digest, |thread| self.threads[thread as usize].id);
        self.families.digest(&mut digest);
        digest.finish()
    }

    // -- invariants

    /// The invariants that cost no more than the round.
    pub(super) fn round_invariants(&self) {
        let present = || self.slots.iter().enumerate().filter(|(_, slot)| slot.thread != NO_THREAD);
        let state = |slot: &Slot| self.threads[slot.thread as usize].state;
        assert!(self.slots.len() <= self.slots_max.max(1));
        assert!(self.slots.is_sorted_by(|a, b| a.id < b.id), "slots stand in order of id");
        for (at, slot) in present() {
            assert_eq!(self.threads[slot.thread as usize].slot, at as u32);
            let of_the_round = [State::Running, State::AwaitingTurn, State::OutOfSteps, State::Enqueued, State::Trying];
            assert!(of_the_round.contains(&state(slot)), "a primary is {:?}", state(slot));
        }
        let running = present().filter(|(_, slot)| state(slot) == State::Running).count();
        assert!(self.active >= running, "I3: active");
        assert!(self.active > 0 || self.log.is_empty(), "settled: whoever can run, runs");
    }

    /// All invariants; O(threads and locks). For tests and simulators.
    ///
    /// # Panics
    /// When one does not hold.
    pub fn invariants(&self) {
        #[cfg(feature = "planted")]
        if self.is_planted() {
            return;
        }
        self.locks.invariants();
        let count = |states: &[State]| self.threads.iter().filter(|thread| states.contains(&thread.state)).count();
        assert_eq!(self.alive, self.threads.len() - count(&[State::Vacant]));
        assert_eq!(
            self.parked,
            count(&[State::Waiting, State::Sleeping, State::Blocked, State::Joining, State::External, State::Ticket])
        );
        assert_eq!(self.active, count(&[State::Running, State::Admitted]), "I3: active");
        assert_eq!(self.outstanding.len(), count(&[State::External]));
        assert_eq!(self.timers.len(), self.threads.iter().filter(|thread| thread.deadline.is_some()).count());
        let fresh = |(index, thread): &(usize, &Thread)| {
            thread.state == State::Fresh
                && (!thread.id.is_request() || self.eligible.contains(&(thread.id, *index as u32)))
        };
        let fresh = self.threads.iter().enumerate().filter(fresh).count();
        assert_eq!(
            self.eligible.len() + self.carried.len() + self.newcomers.len(),
            count(&[State::NotPrimary]) + fresh,
            "who has something to do stands in exactly one list"
        );
        for (index, thread) in self.threads.iter().enumerate() {
            let place = self.locks.place(index as u32);
            let stands_right = match thread.state {
                State::Enqueued => matches!(place, Place::Queue(_)),
                State::Blocked => matches!(place, Place::Blocked(_)),
                State::Waiting => matches!(place, Place::Waiting(..)),
                State::Ticket => matches!(place, Place::Ticket(_)),
                _ => place == Place::Nowhere,
            };
            assert!(stands_right, "a thread that is {:?} stands at {place:?}", thread.state);
            let owns_nothing = self.locks.first_owned(index as u32).is_none();
            assert!(
                owns_nothing || !matches!(thread.state, State::Vacant | State::Fresh),
                "I2: it owns what it cannot"
            );
            assert!(
                matches!(thread.state, State::Admitted | State::Ticket)
                    || (thread.slot != NO_SLOT)
                        == matches!(
                            thread.state,
                            State::Running | State::AwaitingTurn | State::OutOfSteps | State::Enqueued | State::Trying
                        ),
                "a primary has a slot and nobody else"
            );
        }
    }
}
