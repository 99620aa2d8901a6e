//! UDS, the unified deterministic scheduler: threads run in parallel within rounds, take their steps in turns, and every
//! replica makes the same grants whatever its cores, its load or the luck of its operating system.
//!
//! ```text
//!   log ──> cursor ──> E, the eligible ──first n_now──> slots of the round ──turns──> steps ──> grants
//!                       ^                                  │ out of steps, enqueued: again in the next round
//!                       └── notified, due, unblocked <─────┤ parked: wait, sleep, blocked behind a parked owner
//!                            (at the end of the round)     └ finished
//! ```
//! Source: Hauck, Habiger, Domaschka, "UDS: A Novel and Flexible Scheduling Algorithm for Deterministic
//! Multithreading", SRDS 2016, after the authors' published code, repaired; docs/internals/scheduler.md lists the rules
//! and what was repaired.
//!
//! Never does: read a clock or a queue length of this machine, look at how far a thread has run, decide by the order in
//! which running threads reach their operations. What a thread does before it is selected has no effect.
//!
//! Invariants: `active` = running threads, each of which has a slot or is declared and admitted; a round ends only when nothing is active and its
//! membership is closed; parameters are constant within a round; a round costs O(slots), whatever is parked.
//!
//! `turns` knows whose turn it is, `declared` is the lane of those that have tickets, `round` ends and begins rounds,
//! `operations` has what needs no step; here are the steps.

mod declared;
mod gate;
mod operations;
mod planted;
mod round;
mod turns;

use crate::cycles::Cycles;
use crate::family::{Child, Families, ThreadId};
use crate::locks::{Acquired, Heir, LockIndex, Locks, Past};
use crate::trace::{Grants, Trace};
use crate::{
    Change, DeclaredLock, Entry, Event, Grant, GrantRecord, LockId, Mode, Operation, OperationResult, Parameters,
    QueueId, Scheduler, Standing, Status, ThreadIndex,
};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use declared::Share;
use gate::{FutureLocks, Gate};
#[cfg(feature = "planted")]
pub use planted::Planted;
#[cfg(not(feature = "planted"))]
use planted::Planted;
use turns::Turns;

/// No slot.
const NO_SLOT: u32 = u32::MAX;

/// No thread.
const NO_THREAD: u32 = u32::MAX;

/// Where a thread is between two operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// No thread has this index.
    Vacant,
    /// Never yet primary; a child, and a request that was held back, stands in E all the same. Whether it computes already, or has come to its first operation, is local.
    Fresh,
    /// Computes as primary.
    Running,
    /// Has an operation pending that a later round performs.
    NotPrimary,
    /// Primary, with an operation that waits for its turn.
    AwaitingTurn,
    /// Primary, with an operation for which no step is left in this round.
    OutOfSteps,
    /// Primary, took its step, queues at a lock.
    Enqueued,
    /// Primary, until the end of the round.
    Trying,
    /// Behind a lock whose owner is parked, until it is released.
    Blocked,
    /// In a wait queue.
    Waiting,
    /// Until its deadline.
    Sleeping,
    /// Until a child has finished.
    Joining,
    /// Until an outside call is answered.
    External,
    /// Computes, declared and admitted.
    Admitted,
    /// Admitted, until its ticket is first.
    Ticket,
}

impl State {
    /// Of those that were suspected of having closed a cycle: whether it still may.
    fn is_suspect(self) -> bool {
        matches!(self, Self::Joining | Self::Ticket)
    }
}

/// What a thread that does not run is to do when its turn comes. Small: every thread has room for one.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Pending {
    Lock {
        lock: LockId,
        mode: Mode,
        timeout: Option<u64>,
    },
    Yield,
    Try {
        lock: LockId,
        mode: Mode,
    },
    Finish,
    /// Another operation that needs a slot only.
    Other(Box<Operation>),
    /// Own the lock again after a wait that ended like this.
    Relock {
        lock: LockId,
        result: OperationResult,
    },
    /// Its operation came to this while it was parked.
    Resume(OperationResult),
}

impl From<Operation> for Pending {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Lock { lock, mode, timeout } => Self::Lock { lock, mode, timeout },
            Operation::Yield => Self::Yield,
            Operation::Try { lock, mode } => Self::Try { lock, mode },
            Operation::Finish => Self::Finish,
            other => Self::Other(Box::new(other)),
        }
    }
}

impl Pending {
    /// What the thread asked for, if it has not been performed.
    fn operation(self) -> Option<Operation> {
        Some(match self {
            Self::Lock { lock, mode, timeout } => Operation::Lock { lock, mode, timeout },
            Self::Yield => Operation::Yield,
            Self::Try { lock, mode } => Operation::Try { lock, mode },
            Self::Finish => Operation::Finish,
            Self::Other(operation) => *operation,
            Self::Relock { .. } | Self::Resume(_) => return None,
        })
    }
}

#[derive(Clone, Debug)]
struct Thread {
    id: ThreadId,
    state: State,
    /// Invariant: of a vacant or running thread none; of a thread in E one.
    pending: Option<Pending>,
    /// Of a declared thread: its share of the round's grants.
    slot: u32,
    now: u64,
    /// Invariant: stands in `timers` exactly when set.
    deadline: Option<u64>,
    /// Children that it has had.
    born: u16,
    /// The living child that it joins.
    joins: Option<u32>,
    /// Outside calls that it has made.
    calls: u32,
    /// What predicates see of it. Its children are of the same class and want what it still wants.
    class: u16,
    future: FutureLocks,
}

const VACANT: Thread = Thread {
    id: ThreadId::request(0),
    state: State::Vacant,
    pending: None,
    slot: NO_SLOT,
    now: 0,
    deadline: None,
    born: 0,
    joins: None,
    calls: 0,
    class: 0,
    future: None,
};

/// A primary of the round. What is hashed at its end stays when the thread is gone.
#[derive(Clone, Debug)]
struct Slot {
    /// `NO_THREAD` once it has finished or parked.
    thread: u32,
    id: ThreadId,
    grants: Grants,
}

/// The policy.
#[derive(Clone, Debug)]
pub struct Uds {
    parameters: Parameters,
    #[cfg(feature = "planted")]
    plant: planted::Plant,

    // The log.
    log: VecDeque<Entry>,
    /// Entries consumed.
    cursor: u64,
    last_position: Option<u64>,

    // Threads and locks. `threads` is indexed by `ThreadIndex`.
    threads: Vec<Thread>,
    locks: Locks,
    timers: BTreeSet<(u64, ThreadId, u32)>,
    /// E without the primaries of this round.
    eligible: BTreeSet<(ThreadId, u32)>,
    /// Primaries of the round before that stay in E, in order of id; empty within a round.
    carried: Vec<u32>,
    /// Notified or born in this round: they enter E at its end.
    newcomers: Vec<u32>,
    families: Families,
    /// Outside calls that wait for their answers.
    outstanding: BTreeMap<(ThreadId, u32), u32>,
    /// Answers consumed in this round, with their times. They may come before the call: on a slow machine.
    answers: BTreeMap<(ThreadId, u32), u64>,
    /// Began in this round to join a living child, or to wait for a ticket: that may have closed a cycle.
    suspects: Vec<u32>,
    /// Parents whose child finished in this round: they enter E at its end.
    joined: Vec<u32>,
    alive: usize,
    parked: usize,
    /// Undeclared threads that were read and have not finished.
    undeclared: usize,

    // The round.
    round: u64,
    slots: Vec<Slot>,
    turns: Turns,
    gate: Gate,
    /// Declared threads with grants in this round.
    shares: Vec<Share>,
    /// Declared requests read while the round had primaries: they are admitted at its end.
    deferred: Vec<(u32, Vec<DeclaredLock>)>,
    /// Declared requests that the round consumed.
    declared_read: usize,
    /// n_now: slots that this round may have.
    slots_max: usize,
    /// Running primaries and running admitted threads.
    active: usize,
    progress: bool,
    /// Some thread has run in it, or an entry was read that is no Flush.
    moved: bool,
    /// Closed short: by a Flush, a Tick, a Reconfigure or a Mark.
    closed: bool,
    /// By slot: what its handler changed.
    changes: BTreeMap<u32, Change>,
    /// Whether the round consumed a request, or admitted one.
    consumed: bool,
    now: u64,

    // From round to round.
    next_now: u64,
    /// Primaries beyond n: grows while rounds make no progress.
    boost: u32,
    /// Rounds without progress since an entry was consumed.
    idle_rounds: u32,
    /// Short rounds that the Flush under the cursor has had.
    held: u32,
    /// The last round had all of E as primaries and made no progress.
    stuck: bool,
    /// And nothing moved in it: it ended as it had begun.
    still: bool,
    reconfigure: Option<Change>,
    mark: Option<u64>,
    trace: Trace,
    /// Somebody wants to know when rounds end.
    observed: bool,
    scratch: Scratch,
}

/// Memory reused from round to round.
#[derive(Clone, Debug, Default)]
struct Scratch {
    enqueued: Vec<u32>,
    /// Who may have closed a cycle: those that queue, and those that began to join.
    suspects: Vec<u32>,
    victims: Vec<u32>,
    /// Slots of those that try, in order.
    tries: Vec<usize>,
    released: Vec<LockIndex>,
    blocked: Vec<u32>,
    cycles: Cycles,
}

impl Scheduler for Uds {
    fn handle(&mut self, event: Event, grants: &mut Vec<Grant>) {
        #[cfg(feature = "planted")]
        self.retry(grants);
        match event {
            Event::Entry(entry) => self.entry(entry, grants),
            Event::Operation { thread, operation } => self.operation(thread.0, operation, grants),
        }
        self.settle(grants);
        #[cfg(feature = "planted")]
        if self.is_planted() {
            return;
        }
        if cfg!(debug_assertions) {
            self.round_invariants();
        }
    }

    fn status(&self) -> Status {
        Status {
            round: self.round,
            threads: self.alive,
            parked: self.parked,
            needs_flush: self.active == 0
                && self.log.is_empty()
                && (self.alive > self.parked && !self.repeats() || self.parked > 0 && self.someone_is_due()),
            deadline: self.timers.first().map(|(deadline, ..)| *deadline),
        }
    }

    fn parameters(&self) -> Option<&Parameters> {
        Some(&self.parameters)
    }

    fn grants(&self, from: u64, limit: usize) -> Vec<GrantRecord> {
        self.trace.kept().records(from, limit)
    }

    fn observe(&mut self, on: bool) {
        self.observed = on;
    }

    fn standing(&self, thread: ThreadIndex) -> Standing {
        match self.threads.get(thread.0 as usize).map_or(State::Vacant, |thread| thread.state) {
            State::Vacant => Standing::Nowhere,
            State::Fresh => Standing::Fresh,
            State::Running | State::Admitted => Standing::Running,
            State::NotPrimary => Standing::NotPrimary,
            State::AwaitingTurn => Standing::AwaitingTurn,
            State::OutOfSteps => Standing::OutOfSteps,
            State::Enqueued => Standing::Enqueued,
            State::Trying => Standing::Trying,
            State::Blocked => Standing::Blocked,
            State::Ticket => Standing::Ticket,
            State::Waiting => Standing::Waiting,
            State::Sleeping => Standing::Sleeping,
            State::Joining => Standing::Joining,
            State::External => Standing::External,
        }
    }
}

impl Uds {
    /// Nothing has happened yet. Parameters that make no sense (no primaries, no steps) count as 1.
    pub fn new(parameters: Parameters) -> Self {
        Self {
            turns: Turns::new(&parameters),
            gate: Gate::new(&parameters.predicate),
            parameters,
            #[cfg(feature = "planted")]
            plant: planted::Plant::default(),
            log: VecDeque::new(),
            cursor: 0,
            last_position: None,
            threads: Vec::new(),
            locks: Locks::default(),
            timers: BTreeSet::new(),
            eligible: BTreeSet::new(),
            carried: Vec::new(),
            newcomers: Vec::new(),
            families: Families::default(),
            outstanding: BTreeMap::new(),
            answers: BTreeMap::new(),
            suspects: Vec::new(),
            joined: Vec::new(),
            alive: 0,
            parked: 0,
            undeclared: 0,
            round: 0,
            slots: Vec::new(),
            shares: Vec::new(),
            deferred: Vec::new(),
            declared_read: 0,
            slots_max: 0,
            active: 0,
            progress: true,
            moved: false,
            closed: false,
            changes: BTreeMap::new(),
            consumed: false,
            now: 0,
            next_now: 0,
            boost: 0,
            idle_rounds: 0,
            held: 0,
            stuck: false,
            still: false,
            reconfigure: None,
            mark: None,
            trace: Trace::default(),
            observed: false,
            scratch: Scratch::default(),
        }
    }

    /// Locks that somebody owns or stands at, and those that were used in this round. Memory follows this number.
    pub fn locks_in_use(&self) -> usize {
        self.locks.len()
    }

    // -- what happens

    fn entry(&mut self, entry: Entry, grants: &mut Vec<Grant>) {
        if let Entry::Request { thread, position, timestamp, .. } = &entry {
            assert!(self.last_position < Some(*position), "positions ascend");
            self.last_position = Some(*position);
            self.create(thread.0, ThreadId::request(*position), *timestamp);
        }
        self.log.push_back(entry);
        if self.round == 0 {
            self.begin_round(grants);
        } else {
            self.read_log(grants);
        }
    }

    /// Rounds that begin alike end alike: the last one changed nothing, and this one has come as far as that, so another
    /// Flush would bring one more. Those that wait so wait for somebody who is parked himself: behind a ticket whose
    /// owner waits for his next one, for example.
    fn repeats(&self) -> bool {
        self.still && !self.moved
    }

    /// A join, an answer or a lock has come for a parked thread, or a thread has begun to join or to wait for a ticket,
    /// or came to own what others wait for, which may have closed a cycle: that is looked for at the end of the round.
    fn someone_is_due(&self) -> bool {
        let waits = |thread: &u32| self.threads[*thread as usize].state.is_suspect();
        !self.joined.is_empty()
            || self.suspects.iter().chain(&self.locks.cornered).any(waits)
            || self.locks.any_released()
            || self.answers.keys().any(|call| self.outstanding.contains_key(call))
    }

    fn create(&mut self, thread: u32, id: ThreadId, now: u64) {
        let index = thread as usize;
        if self.threads.len() <= index {
            self.threads.resize(index + 1, VACANT);
        }
        self.locks.reserve(thread);
        assert_eq!(self.threads[index].state, State::Vacant, "the index of a live thread");
        self.threads[index] = Thread { id, state: State::Fresh, now, ..VACANT };
        self.alive += 1;
    }

    fn operation(&mut self, thread: u32, operation: Operation, grants: &mut Vec<Grant>) {
        let entry = &mut self.threads[thread as usize];
        match entry.state {
            // It was started ahead and is not primary: its operation is performed when it is selected.
            State::Fresh => {
                assert!(entry.pending.is_none(), "one operation at a time");
                #[cfg(feature = "planted")]
                if self.performs_ahead(thread, &operation, grants) {
                    return;
                }
                self.threads[thread as usize].pending = Some(operation.into());
            }
            State::Running => match operation {
                Operation::Lock { lock, mode, timeout } => self.lock(thread, lock, mode, timeout, grants),
                Operation::Yield => self.step_operation(thread, Pending::Yield, grants),
                operation => self.slot_operation(thread, operation, grants),
            },
            State::Admitted => self.declared_operation(thread, operation, grants),
            state => panic!("an operation of a thread that is {state:?}"),
        }
    }

    // -- operations that need a slot and a step

    /// Of a running primary.
    fn lock(&mut self, thread: u32, lock: LockId, mode: Mode, timeout: Option<u64>, grants: &mut Vec<Grant>) {
        let slot = self.threads[thread as usize].slot;
        if timeout.is_some() || self.turns.head() != Some(slot) {
            return self.step_operation(thread, Pending::Lock { lock, mode, timeout }, grants);
        }
        // The usual case, straight on.
        self.turns.take(slot);
        match self.acquire(thread, lock, mode, OperationResult::Granted, false) {
            Some(result) => self.go_on(thread, result, grants),
            None => self.stop(thread, State::Enqueued, Pending::Lock { lock, mode, timeout }),
        }
        self.advance(grants);
    }

    /// Of a running primary: performs it if it is its turn.
    fn step_operation(&mut self, thread: u32, pending: Pending, grants: &mut Vec<Grant>) {
        self.arm_lock(thread, &pending);
        let slot = self.threads[thread as usize].slot;
        if !self.turns.has_steps(slot) {
            return self.stop(thread, State::OutOfSteps, pending);
        }
        if self.turns.head() != Some(slot) && !self.plants(Planted::ArrivalOrder) {
            return self.stop(thread, State::AwaitingTurn, pending);
        }
        self.turns.take(slot);
        match self.perform(thread, &pending) {
            Some(result) => self.resume(thread, State::Running, result, grants),
            None => self.stop(thread, State::Enqueued, pending),
        }
        self.advance(grants);
    }

    /// A running thread cannot go on in this round, for now.
    fn stop(&mut self, thread: u32, state: State, pending: Pending) {
        let entry = &mut self.threads[thread as usize];
        entry.state = state;
        entry.pending = Some(pending);
        self.active -= 1;
    }

    /// Lets those at the head whose operation waits take their steps.
    fn advance(&mut self, grants: &mut Vec<Grant>) {
        while let Some(slot) = self.turns.head() {
            let thread = self.slots[slot as usize].thread;
            let entry = &mut self.threads[thread as usize];
            if entry.state != State::AwaitingTurn {
                return;
            }
            let pending = entry.pending.take().expect("who waits for its turn has an operation");
            self.turns.take(slot);
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

    /// The step is taken. `None`: the thread queues at the lock now.
    fn perform(&mut self, thread: u32, pending: &Pending) -> Option<OperationResult> {
        match *pending {
            Pending::Lock { lock, mode, .. } => self.acquire(thread, lock, mode, OperationResult::Granted, false),
            Pending::Relock { lock, result } => self.acquire(thread, lock, Mode::Write, result, true),
            Pending::Yield => {
                self.progress |= self.plants(Planted::YieldIsProgress);
                Some(OperationResult::Granted)
            }
            _ => unreachable!("{pending:?} needs no step"),
        }
    }

    #[inline]
    fn acquire(
        &mut self,
        thread: u32,
        id: LockId,
        mode: Mode,
        result: OperationResult,
        relock: bool,
    ) -> Option<OperationResult> {
        match self.locks.acquire(thread, id, mode) {
            Acquired::Owned(past) => {
                self.note(self.threads[thread as usize].slot as usize, id, mode, past.writers_before);
                self.inherit(thread, past, relock);
                Some(result)
            }
            Acquired::Already => Some(OperationResult::NotPossible),
            Acquired::Busy(lock) => {
                self.locks.enqueue(thread, lock, mode);
                #[cfg(feature = "planted")]
                if self.counts_behind_ticket(thread) {
                    self.active += 1;
                }
                None
            }
        }
    }

    /// A grant, for the trace. It belongs to this slot, even when the thread has left it.
    #[inline]
    fn note(&mut self, slot: usize, lock: LockId, mode: Mode, writers_before: u64) {
        self.trace.grant(&mut self.slots[slot].grants, lock, mode, writers_before);
        self.progress = true;
        if self.plants(Planted::RollingHash) {
            self.trace.fold(self.round, self.slots[slot].id, Grants::default());
        }
    }

    // -- time

    /// The thread owns a lock: its time is not before that of those who owned it alone before.
    #[inline]
    fn inherit(&mut self, thread: u32, past: Past, relock: bool) {
        let keeps = self.plants(Planted::LockCarriesNothing) || relock && self.plants(Planted::RelockKeepsNow);
        if !keeps {
            self.catch_up(thread, past.carried);
        }
    }

    /// The thread's time is not before this one.
    #[inline]
    fn catch_up(&mut self, thread: u32, now: u64) {
        let entry = &mut self.threads[thread as usize];
        entry.now = entry.now.max(now);
    }

    /// A timed lock is armed when its thread is first primary with it; it keeps its deadline through later rounds.
    fn arm_lock(&mut self, thread: u32, pending: &Pending) {
        if let Pending::Lock { timeout: Some(timeout), .. } = pending
            && self.threads[thread as usize].deadline.is_none()
        {
            self.arm(thread, *timeout);
        }
    }

    fn arm(&mut self, thread: u32, duration: u64) {
        let entry = &mut self.threads[thread as usize];
        let deadline = entry.now.max(self.now).saturating_add(duration);
        entry.deadline = Some(deadline);
        self.timers.insert((deadline, entry.id, thread));
    }

    fn disarm(&mut self, thread: u32) {
        let entry = &mut self.threads[thread as usize];
        if let Some(deadline) = entry.deadline.take() {
            self.timers.remove(&(deadline, entry.id, thread));
        }
    }

    // -- grants

    /// The operation of a running thread returns at once.
    #[inline]
    fn go_on(&mut self, thread: u32, result: OperationResult, grants: &mut Vec<Grant>) {
        self.moved = true;
        let entry = &mut self.threads[thread as usize];
        entry.now = entry.now.max(self.now);
        grants.push(Grant::Resume { thread: ThreadIndex(thread), result, now: entry.now });
    }

    /// The thread's operation is done; the caller has counted it as active.
    fn resume(&mut self, thread: u32, running: State, result: OperationResult, grants: &mut Vec<Grant>) {
        self.moved = true;
        self.disarm(thread);
        let entry = &mut self.threads[thread as usize];
        entry.now = entry.now.max(self.now);
        entry.state = running;
        entry.pending = None;
        grants.push(Grant::Resume { thread: ThreadIndex(thread), result, now: entry.now });
    }
}
