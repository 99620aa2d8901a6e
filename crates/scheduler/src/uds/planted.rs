//! Wrong rules, on purpose: what the published code did, and what our own first drafts did. A test of the tests: the
//! random programs must find each, else they would not find the next one either. Never in a replica.
//!
//! The rules themselves ask [`Uds::plants`], which is `false` without the feature; here are the bodies.

/// A wrong rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(feature = "planted"), allow(unreachable_pub, dead_code))]
pub enum Planted {
    /// A lock goes to whoever comes first, not to whose turn it is.
    ArrivalOrder,

    // The published code.
    /// Who was dequeued at the end of a round tries again when its processor comes to it, without a turn.
    RetryWithoutTurn,
    /// A round that finds no further request here and now is filled up and ends.
    LocalFill,
    /// A round without progress is followed by one with as many primaries.
    NoBoost,
    /// A round waits for n requests, whatever Flush says.
    NoFlush,

    // Our first draft.
    /// Tickets in force when read, declared threads not active, but undeclared ones behind a ticket are.
    TicketCountsAsActive,
    /// Tickets in force when the cursor passes, within a round.
    TicketsWithinRound,
    /// A child is born when its parent asks, though that has no slot.
    SpawnWithoutSlot,
    /// All of E that have come to a try are answered, also who has no slot.
    TryWithoutSlot,
    /// A sleep is armed when the thread comes to it, though it has no slot.
    SleepWithoutSlot,
    /// `now` is the largest Tick consumed, read when an operation returns.
    TickIsNow,
    /// Who slept goes on at the end of the round, before it is selected.
    TimerRunsThread,
    /// An Enqueued thread with steps left keeps the head.
    EnqueuedKeepsHead,
    /// Yield is progress.
    YieldIsProgress,
    /// A Flush holds until E is empty.
    FlushHoldsUntilEmpty,
    /// A Flush closes one round and is consumed.
    FlushOnce,
    /// A Tick closes no round.
    TickClosesNothing,
    /// An answer that comes before its call is dropped.
    EarlyAnswerLost,
    /// Of several changes of parameters the one made last wins.
    LastChangeWins,
    /// One hash over all grants in the order in which they are made.
    RollingHash,
    /// Who queues behind a parked owner tries again in every round.
    RetryForEver,
    /// Cycles are looked for only when nothing else could go on.
    LateDeadlock,

    // Time that is not causal.
    /// A lock carries no `now`: who gets it keeps its own.
    LockCarriesNothing,
    /// Who relocks after a wait keeps its own `now`.
    RelockKeepsNow,
    /// Releases by readers count.
    ReadersCarry,
    /// A parent that joins keeps its own `now`.
    JoinKeepsNow,
    /// Who is answered from outside keeps its own `now`.
    CallKeepsNow,
}

#[cfg(not(feature = "planted"))]
impl super::Uds {
    #[inline(always)]
    pub(super) const fn plants(&self, _: Planted) -> bool {
        false
    }
}

#[cfg(feature = "planted")]
pub(super) use bodies::Plant;

#[cfg(feature = "planted")]
mod bodies {
    use super::super::*;
    use super::Planted;

    /// What the wrong rules need to remember.
    #[derive(Clone, Debug, Default)]
    pub(in crate::uds) struct Plant {
        which: Option<Planted>,
        /// Enqueued behind a ticket and counted as active.
        counted: BTreeSet<u32>,
        /// Selected, and to try again when the next thing happens.
        retrying: Vec<u32>,
    }

    impl Uds {
        /// With a wrong rule.
        pub fn planted(parameters: Parameters, planted: Planted) -> Self {
            let plant = Plant { which: Some(planted), ..Plant::default() };
            Self { plant, ..Self::new(parameters) }
        }

        #[inline]
        pub(in crate::uds) fn plants(&self, planted: Planted) -> bool {
            self.plant.which == Some(planted)
        }

        /// Whether any rule is wrong: then no invariant is promised.
        pub(in crate::uds) fn is_planted(&self) -> bool {
            self.plant.which.is_some()
        }

        /// `RetryWithoutTurn`: whatever happens next, they are faster.
        pub(in crate::uds) fn retry(&mut self, grants: &mut Vec<Grant>) {
            for thread in core::mem::take(&mut self.plant.retrying) {
                if self.threads[thread as usize].state != State::AwaitingTurn {
                    continue;
                }
                let pending = self.threads[thread as usize].pending.take().expect("who retries has an operation");
                match self.perform(thread, &pending) {
                    Some(result) => {
                        self.active += 1;
                        self.resume(thread, State::Running, result, grants);
                    }
                    None => {
                        let entry = &mut self.threads[thread as usize];
                        entry.state = State::Enqueued;
                        entry.pending = Some(pending);
                    }
                }
            }
        }

        /// `RetryWithoutTurn`: the thread was dequeued at the end of the last round and is selected again.
        pub(in crate::uds) fn retries(&mut self, thread: u32) {
            if self.scratch.enqueued.contains(&thread) {
                self.plant.retrying.push(thread);
            }
        }

        /// What a thread that has no slot asks for: true if the wrong rule performs it.
        pub(in crate::uds) fn performs_ahead(
            &mut self,
            thread: u32,
            operation: &Operation,
            grants: &mut Vec<Grant>,
        ) -> bool {
            let id = self.threads[thread as usize].id;
            match operation {
                Operation::Spawn { thread: child } if self.plants(Planted::SpawnWithoutSlot) => {
                    let result = self.spawn(thread, child.0);
                    if let Some(child) = self.newcomers.pop().filter(|_| result == OperationResult::Granted) {
                        self.eligible.insert((self.threads[child as usize].id, child));
                    }
                    self.resume(thread, State::Fresh, result, grants);
                }
                Operation::Sleep { duration }
                    if self.plants(Planted::SleepWithoutSlot) && self.eligible.remove(&(id, thread)) =>
                {
                    self.arm(thread, *duration);
                    self.threads[thread as usize].state = State::Sleeping;
                    self.parked += 1;
                }
                Operation::Unlock { lock } if self.plants(Planted::TimerRunsThread) => {
                    let result = self.unlock(thread, *lock, grants);
                    self.resume(thread, State::Fresh, result, grants);
                }
                _ => return false,
            }
            true
        }

        /// `TryWithoutSlot`: who has come to a try, in order of E.
        pub(in crate::uds) fn settle_all_tries(&mut self) {
            let tries: Vec<u32> = self
                .carried
                .iter()
                .copied()
                .chain(self.eligible.iter().map(|(_, thread)| *thread))
                .filter(|thread| {
                    let pending = &self.threads[*thread as usize].pending;
                    matches!(pending, Some(Pending::Try { .. }))
                })
                .collect();
            for thread in tries {
                let Some(Pending::Try { lock, mode }) = self.threads[thread as usize].pending else {
                    unreachable!("who tries has a try pending")
                };
                self.threads[thread as usize].state = State::NotPrimary;
                let owns = self.locks.find(lock).is_some_and(|lock| self.locks.owned_as(thread, lock).is_some());
                if !owns && self.locks.find(lock).is_none_or(|lock| self.locks.admits(lock, mode)) {
                    let lock = self.locks.open(lock);
                    self.locks.own(thread, lock, mode);
                    self.settle_later(thread, OperationResult::Granted);
                } else {
                    self.threads[thread as usize].pending = Some(Pending::Resume(OperationResult::Occupied));
                }
            }
        }

        /// `TicketCountsAsActive`: whether the Enqueued thread stands behind a ticket; then it is counted.
        pub(in crate::uds) fn counts_behind_ticket(&mut self, thread: u32) -> bool {
            let mut ahead = Vec::new();
            self.locks.waits_for(thread, &mut ahead);
            let declared =
                |thread: &u32| matches!(self.threads[*thread as usize].state, State::Admitted | State::Ticket);
            let counts = self.plants(Planted::TicketCountsAsActive) && ahead.iter().any(declared);
            if counts {
                self.plant.counted.insert(thread);
            }
            counts
        }

        /// `TicketCountsAsActive`: whether it was counted already.
        pub(in crate::uds) fn was_counted(&mut self, thread: u32) -> bool {
            self.plant.counted.remove(&thread)
        }
    }
}
