//! One thread at a time, in line: the policy of a replica with one core. No rounds to end, no turns to wait for, a lock
//! that nobody holds costs a table lookup.
//!
//! ```text
//!   log ──next entry, when nobody is ready──> runs until it parks, queues or finishes ──> the first that is ready
//!                                               ^                                               │
//!                                               └───────────────────────────────────────────────┘
//! ```
//! Source: the `sequential` preset of UDS (one primary, unlimited steps, no start-ahead). It differs where rounds would
//! cost without buying anything: who queues at a lock stays in the queue, and the lock operation that would close a cycle
//! gets Deadlock at once.
//!
//! The rules, all a function of the log and of what handlers do:
//! * The ready run in order of id, each until it parks (wait, sleep), queues at a lock or finishes.
//! * When nobody runs, deadlines that have come fire, by (deadline, id). When then nobody is ready, the next entry is
//!   read. So a Flush is needed only for threads that yield.
//! * A notified waiter, and one whose wait timed out, is ready to own the lock again. A lock that is given back goes to
//!   the first in its queue, and if that reads to all readers directly behind it; they are ready.
//! * Yield: all that are ready go first; after [`PASSES_PER_ENTRY`] rounds of yielding threads, the next entry too. So a
//!   spinning handler cannot keep out the request that it waits for.
//! * Try: at once. One that fails lets others go first, like a yield: who tries again and again keeps nobody out.
//! * A child is ready at once, and behind its parent. A cycle that a join closes: the youngest lock operation on it gets
//!   Deadlock.
//! * A declared request gets its tickets when it is read; who waits for one is never the victim of a cycle.
//! * Each selection of a thread is a round. Parameters do not concern it: a change of them is accepted and has no effect.
//!
//! Invariants: at most one thread runs; a lock has an entry only while somebody owns it or stands at it.

mod digest;

use crate::cycles::Cycles;
use crate::family::{Child, Families, ThreadId};
use crate::locks::{Acquired, ByTicket, Grip, Heir, LockIndex, Locks, Past, Place, normalized};
use crate::trace::{Grants, Trace};
use crate::{
    Entry, Event, Grant, GrantRecord, Lane, LockId, Mode, Operation, OperationResult, QueueId, RoundReport, Scheduler,
    Standing, Status, ThreadIndex,
};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

/// How often the yielding threads come round before the next entry is read: enough that a polite handler does not need
/// an agreement for each yield, few enough that a spinning one does not burn a core.
pub const PASSES_PER_ENTRY: u32 = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Vacant,
    /// Never yet selected. Whether it computes already is local.
    Fresh,
    Running,
    /// Has something pending and may be selected.
    Ready,
    Yielded,
    Enqueued,
    Waiting,
    Sleeping,
    Joining,
    External,
    /// Until its ticket is first.
    Ticket,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Pending {
    /// Of a thread that was started ahead.
    Operation(Operation),
    Relock {
        lock: LockId,
        result: OperationResult,
    },
    Resume(OperationResult),
}

#[derive(Clone, Debug)]
struct Thread {
    id: ThreadId,
    state: State,
    pending: Option<Pending>,
    now: u64,
    /// Invariant: stands in `timers` exactly when set.
    deadline: Option<u64>,
    /// Children that it has had.
    born: u16,
    /// The living child that it joins.
    joins: Option<u32>,
    /// Somebody waits for its end.
    joined: bool,
    /// Outside calls that it has made.
    calls: u32,
    /// Has tickets.
    declared: bool,
}

const VACANT: Thread = Thread {
    id: ThreadId::request(0),
    state: State::Vacant,
    pending: None,
    now: 0,
    deadline: None,
    born: 0,
    joins: None,
    joined: false,
    calls: 0,
    declared: false,
};

/// The policy.
#[derive(Clone, Debug, Default)]
pub struct Sequential {
    log: VecDeque<Entry>,
    /// Entries consumed.
    cursor: u64,
    last_position: Option<u64>,
    /// Indexed by `ThreadIndex`.
    threads: Vec<Thread>,
    locks: Locks,
    running: Option<u32>,
    ready: BTreeSet<(ThreadId, u32)>,
    yielded: Vec<u32>,
    /// Rounds of the yielding threads left before the next entry.
    passes: u32,
    timers: BTreeSet<(u64, ThreadId, u32)>,
    families: Families,
    /// Outside calls that wait for their answers.
    outstanding: BTreeMap<(ThreadId, u32), u32>,
    now: u64,
    round: u64,
    /// Grants of the running thread since it was selected.
    grants: Grants,
    trace: Trace,
    alive: usize,
    /// Requests not yet read.
    unread: usize,
    cycles: Cycles,
}

impl Scheduler for Sequential {
    fn handle(&mut self, event: Event, grants: &mut Vec<Grant>) {
        match event {
            Event::Operation { thread, operation } => self.operation(thread.0, operation, grants),
            Event::Entry(entry) => {
                if let Entry::Request { thread, position, timestamp, .. } = &entry {
                    assert!(self.last_position < Some(*position), "positions ascend");
                    self.last_position = Some(*position);
                    self.create(thread.0, ThreadId::request(*position), *timestamp);
                    self.unread += 1;
                }
                self.log.push_back(entry);
            }
        }
        self.select(grants);
    }

    fn status(&self) -> Status {
        let unparked = self.ready.len() + self.yielded.len() + self.unread + usize::from(self.running.is_some());
        Status {
            round: self.round,
            threads: self.alive,
            parked: self.alive - unparked,
            needs_flush: self.running.is_none() && !self.yielded.is_empty(),
            deadline: self.timers.first().map(|(deadline, ..)| *deadline),
        }
    }

    fn grants(&self, from: u64, limit: usize) -> Vec<GrantRecord> {
        self.trace.kept().records(from, limit)
    }

    fn standing(&self, thread: ThreadIndex) -> Standing {
        match self.threads.get(thread.0 as usize).map_or(State::Vacant, |thread| thread.state) {
            State::Vacant => Standing::Nowhere,
            State::Fresh => Standing::Fresh,
            State::Running => Standing::Running,
            State::Ready | State::Yielded => Standing::NotPrimary,
            State::Enqueued => Standing::Enqueued,
            State::Ticket => Standing::Ticket,
            State::Waiting => Standing::Waiting,
            State::Sleeping => Standing::Sleeping,
            State::Joining => Standing::Joining,
            State::External => Standing::External,
        }
    }
}

impl Sequential {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Locks that somebody owns or stands at. Memory follows this number.
    pub fn locks_in_use(&self) -> usize {
        self.locks.len()
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
            State::Running => self.perform(thread, operation, grants),
            State::Fresh => {
                assert!(entry.pending.is_none(), "one operation at a time");
                entry.pending = Some(Pending::Operation(operation));
            }
            state => panic!("an operation of a thread that is {state:?}"),
        }
    }

    // -- who runs

    /// Until a thread runs or the log is used up.
    fn select(&mut self, grants: &mut Vec<Grant>) {
        while self.running.is_none() {
            self.fire_timers();
            if let Some((_, thread)) = self.ready.pop_first() {
                self.run(thread, grants);
            } else if !self.yielded.is_empty() && self.passes > 0 {
                self.passes -= 1;
                for thread in core::mem::take(&mut self.yielded) {
                    let entry = &mut self.threads[thread as usize];
                    entry.state = State::Ready;
                    self.ready.insert((entry.id, thread));
                }
            } else if let Some(entry) = self.log.pop_front() {
                self.cursor += 1;
                self.passes = PASSES_PER_ENTRY;
                self.read(entry, grants);
            } else {
                return;
            }
        }
    }

    fn read(&mut self, entry: Entry, grants: &mut Vec<Grant>) {
        match entry {
            Entry::Request { thread, declaration, .. } => {
                self.unread -= 1;
                if declaration.lane == Lane::Declared {
                    self.threads[thread.0 as usize].declared = true;
                    for declared in normalized(declaration.locks) {
                        let lock = self.locks.issue(thread.0, declared);
                        self.hand_over(lock);
                    }
                }
                self.run(thread.0, grants);
            }
            // Never too early: entries are read when everybody has come to where they wait.
            Entry::Answer { position, path, call, timestamp } => {
                let known = ThreadId::of(position, &path).and_then(|thread| self.outstanding.remove(&(thread, call)));
                if let Some(thread) = known {
                    self.disarm(thread);
                    self.catch_up(thread, timestamp);
                    self.make_ready(thread, Pending::Resume(OperationResult::Granted));
                }
            }
            Entry::Tick(timestamp) => self.now = self.now.max(timestamp),
            Entry::Flush | Entry::Reconfigure(_) => {}
            Entry::Mark(mark) => {
                let (grant_hash, state) = (self.trace.report(self.round), self.digest());
                let report = RoundReport { mark, round: self.round, grants: grant_hash, state };
                grants.push(Grant::Marked(Box::new(report)));
            }
        }
    }

    fn run(&mut self, thread: u32, grants: &mut Vec<Grant>) {
        self.round += 1;
        self.running = Some(thread);
        let entry = &mut self.threads[thread as usize];
        entry.state = State::Running;
        match entry.pending.take() {
            None => grants.push(Grant::Start { thread: ThreadIndex(thread) }),
            Some(Pending::Resume(result)) => self.resume(thread, result, grants),
            Some(Pending::Relock { lock, result }) => self.acquire(thread, lock, Mode::Write, None, result, grants),
            Some(Pending::Operation(operation)) => self.perform(thread, operation, grants),
        }
    }

    /// The running thread stops.
    fn stop(&mut self, thread: u32, state: State) {
        self.threads[thread as usize].state = state;
        self.running = None;
        if !self.grants.is_empty() {
            let grants = core::mem::take(&mut self.grants);
            self.trace.fold(self.round, self.threads[thread as usize].id, grants);
        }
    }

    fn make_ready(&mut self, thread: u32, pending: Pending) {
        let entry = &mut self.threads[thread as usize];
        entry.state = State::Ready;
        entry.pending = Some(pending);
        self.ready.insert((entry.id, thread));
    }

    // -- operations

    /// Of the running thread.
    fn perform(&mut self, thread: u32, operation: Operation, grants: &mut Vec<Grant>) {
        if self.threads[thread as usize].declared {
            return self.declared_operation(thread, operation, grants);
        }
        match operation {
            Operation::Lock { lock, mode, timeout } => {
                self.acquire(thread, lock, mode, timeout, OperationResult::Granted, grants)
            }
            Operation::Unlock { lock } => {
                let result = self.unlock(thread, lock);
                self.resume(thread, result, grants);
            }
            Operation::Notify { lock, queue, all } => {
                let result = self.notify(thread, lock, queue, all);
                self.resume(thread, result, grants);
            }
            Operation::Wait { lock, queue, timeout } => self.wait(thread, lock, queue, timeout, grants),
            Operation::Sleep { duration } => {
                self.arm(thread, duration);
                self.stop(thread, State::Sleeping);
            }
            Operation::Yield => self.let_others_go_first(thread, OperationResult::Granted),
            Operation::Try { lock, mode } => self.attempt(thread, lock, mode, grants),
            Operation::Spawn { thread: child } => {
                let result = self.spawn(thread, child.0);
                self.resume(thread, result, grants);
            }
            Operation::Join { child } => self.join(thread, child, grants),
            Operation::External { timeout } => {
                let entry = &mut self.threads[thread as usize];
                self.outstanding.insert((entry.id, entry.calls), thread);
                grants.push(Grant::Call { thread: ThreadIndex(thread), call: entry.calls });
                entry.calls += 1;
                if let Some(timeout) = timeout {
                    self.arm(thread, timeout);
                }
                self.stop(thread, State::External);
            }
            Operation::Reconfigure(_) => self.resume(thread, OperationResult::Granted, grants),
            Operation::Finish => {
                while let Some(lock) = self.locks.first_owned(thread) {
                    self.give_back(thread, lock);
                }
                self.stop(thread, State::Vacant);
                self.finish(thread);
                grants.push(Grant::Finished { thread: ThreadIndex(thread) });
            }
        }
    }

    /// Of a running thread that has tickets.
    fn declared_operation(&mut self, thread: u32, operation: Operation, grants: &mut Vec<Grant>) {
        let now = self.threads[thread as usize].now;
        let result = match operation {
            Operation::Lock { lock, mode, timeout: None } => match self.locks.lock_by_ticket(thread, lock, mode) {
                ByTicket::Locked(grip) => {
                    self.owned(grip);
                    OperationResult::Granted
                }
                ByTicket::Waits => {
                    self.stop(thread, State::Ticket);
                    return self.break_cycles(thread);
                }
                ByTicket::NotPossible => OperationResult::NotPossible,
                ByTicket::NotDeclared => OperationResult::NotDeclared,
            },
            Operation::Unlock { lock } => match self.locks.unlock_by_ticket(thread, lock, now) {
                Some(lock) => {
                    self.hand_over(lock);
                    self.locks.sweep(self.now);
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
            Operation::Finish => {
                while let Some(lock) = self.locks.give_up_ticket(thread, now) {
                    self.hand_over(lock);
                }
                self.locks.sweep(self.now);
                self.stop(thread, State::Vacant);
                self.finish(thread);
                return grants.push(Grant::Finished { thread: ThreadIndex(thread) });
            }
            _ => OperationResult::NotDeclared,
        };
        self.resume(thread, result, grants);
    }

    fn let_others_go_first(&mut self, thread: u32, result: OperationResult) {
        self.threads[thread as usize].pending = Some(Pending::Resume(result));
        self.stop(thread, State::Yielded);
        self.yielded.push(thread);
    }

    fn attempt(&mut self, thread: u32, lock: LockId, mode: Mode, grants: &mut Vec<Grant>) {
        match self.locks.find(lock) {
            Some(lock) if self.locks.owned_as(thread, lock).is_some() => {
                self.resume(thread, OperationResult::NotPossible, grants);
            }
            Some(lock) if !self.locks.admits(lock, mode) => {
                self.let_others_go_first(thread, OperationResult::Occupied);
            }
            _ => {
                let lock = self.locks.open(lock);
                self.own(thread, lock, mode);
                self.resume(thread, OperationResult::Granted, grants);
            }
        }
    }

    fn spawn(&mut self, parent: u32, child: u32) -> OperationResult {
        let entry = &mut self.threads[parent as usize];
        let (now, next) = (entry.now.max(self.now), Families::next(entry.id, entry.born));
        let Some(id) = next else { return OperationResult::NotPossible };
        entry.born += 1;
        self.families.add(id, child);
        self.create(child, id, now);
        self.ready.insert((id, child));
        OperationResult::Granted
    }

    fn join(&mut self, thread: u32, child: u16, grants: &mut Vec<Grant>) {
        let id = self.threads[thread as usize].id;
        match self.families.join(id, child, thread) {
            None => self.resume(thread, OperationResult::NotPossible, grants),
            Some(Child::Finished { now, .. }) => {
                self.catch_up(thread, now);
                self.resume(thread, OperationResult::Granted, grants);
            }
            Some(Child::Alive { thread: child, .. }) => {
                self.threads[thread as usize].joins = Some(child);
                self.threads[child as usize].joined = true;
                self.stop(thread, State::Joining);
                self.break_cycles(thread);
            }
        }
    }

    /// After a join, or when a thread waits for its ticket: those are no victims. Several, because a lock is owned by several readers and a queue has many places.
    fn break_cycles(&mut self, joiner: u32) {
        let rank = |thread: u32| self.threads[thread as usize].id;
        let joins = |thread: u32| self.threads[thread as usize].joins;
        let mut victims = Vec::new();
        while let Some(victim) = self.cycles.youngest(&self.locks, &[joiner], self.threads.len(), rank, joins) {
            let Place::Queue(lock) = self.locks.place(victim) else { unreachable!("a victim queues at a lock") };
            self.locks.leave(victim);
            victims.push((victim, lock));
        }
        for (victim, lock) in victims {
            self.disarm(victim);
            self.make_ready(victim, Pending::Resume(OperationResult::Deadlock));
            self.hand_over(lock);
        }
    }

    /// The thread has come to its end.
    fn finish(&mut self, thread: u32) {
        let Thread { id, born, now, .. } = core::mem::replace(&mut self.threads[thread as usize], VACANT);
        self.alive -= 1;
        if born > 0 {
            self.families.forget(id);
        }
        if let Some(joiner) = self.families.finished(id, self.round, now) {
            self.threads[joiner as usize].joins = None;
            self.catch_up(joiner, now);
            self.make_ready(joiner, Pending::Resume(OperationResult::Granted));
        }
    }

    fn acquire(
        &mut self,
        thread: u32,
        lock: LockId,
        mode: Mode,
        timeout: Option<u64>,
        result: OperationResult,
        grants: &mut Vec<Grant>,
    ) {
        let index = match self.locks.acquire(thread, lock, mode) {
            Acquired::Already => return self.resume(thread, OperationResult::NotPossible, grants),
            Acquired::Owned(Past { writers_before, carried }) => {
                self.note(thread, lock, mode, writers_before);
                self.catch_up(thread, carried);
                return self.resume(thread, result, grants);
            }
            Acquired::Busy(index) => index,
        };
        self.locks.enqueue(thread, index, mode);
        // Who owns nothing and is not joined, nobody waits for: a long queue costs a newcomer no search.
        let may_close_cycle = self.locks.first_owned(thread).is_some() || self.threads[thread as usize].joined;
        let joins = |thread: u32| self.threads[thread as usize].joins;
        if may_close_cycle && self.cycles.lies_on_cycle(&self.locks, thread, self.threads.len(), joins) {
            self.locks.leave(thread);
            return self.resume(thread, OperationResult::Deadlock, grants);
        }
        if let Some(timeout) = timeout {
            self.arm(thread, timeout);
        }
        self.threads[thread as usize].pending = Some(Pending::Relock { lock, result });
        self.stop(thread, State::Enqueued);
    }

    fn own(&mut self, thread: u32, lock: LockIndex, mode: Mode) {
        let past = self.locks.own(thread, lock, mode);
        self.owned(Grip { thread, lock, mode, past });
    }

    /// A thread has come to own a lock: its time is not before that of those who owned it alone before.
    fn owned(&mut self, Grip { thread, lock, mode, past }: Grip) {
        self.note(thread, self.locks.id(lock), mode, past.writers_before);
        self.catch_up(thread, past.carried);
    }

    /// A grant, for the trace.
    fn note(&mut self, thread: u32, id: LockId, mode: Mode, writers_before: u64) {
        if self.running == Some(thread) {
            self.trace.grant(&mut self.grants, id, mode, writers_before);
        } else {
            // An heir: the order of everything that happens is one, so its grant is folded where it is made.
            let mut grants = Grants::default();
            self.trace.grant(&mut grants, id, mode, writers_before);
            self.trace.fold(self.round, self.threads[thread as usize].id, grants);
        }
    }

    fn unlock(&mut self, thread: u32, lock: LockId) -> OperationResult {
        match self.locks.find(lock) {
            Some(lock) if self.give_back(thread, lock) => OperationResult::Granted,
            _ => OperationResult::NotPossible,
        }
    }

    /// False: it does not own it.
    fn give_back(&mut self, thread: u32, lock: LockIndex) -> bool {
        let now = self.threads[thread as usize].now;
        let Some(queued) = self.locks.release(thread, lock, now) else { return false };
        if queued {
            self.hand_over(lock);
        }
        self.locks.sweep(self.now);
        true
    }

    /// Those that may own the lock now, become its owners and are ready.
    fn hand_over(&mut self, lock: LockIndex) {
        while let Some(heir) = self.locks.heir(lock) {
            match heir {
                Heir::Thread(thread, mode) => {
                    self.own(thread, lock, mode);
                    let result = match self.threads[thread as usize].pending {
                        Some(Pending::Relock { result, .. }) => result,
                        _ => unreachable!("who queues at a lock wants to own it"),
                    };
                    self.disarm(thread);
                    self.make_ready(thread, Pending::Resume(result));
                }
                Heir::Ticket(grip) => {
                    self.owned(grip);
                    self.make_ready(grip.thread, Pending::Resume(OperationResult::Granted));
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

    /// The first waiter, or all, are ready to own the lock again.
    fn wake(&mut self, lock: LockId, index: LockIndex, queue: QueueId, all: bool) {
        while let Some(waiter) = self.locks.first_waiter(index, queue) {
            self.locks.leave(waiter);
            self.disarm(waiter);
            self.make_ready(waiter, Pending::Relock { lock, result: OperationResult::Granted });
            if !all {
                return;
            }
        }
    }

    fn wait(&mut self, thread: u32, lock: LockId, queue: QueueId, timeout: Option<u64>, grants: &mut Vec<Grant>) {
        let owned = self.locks.find(lock).filter(|lock| self.locks.owned_as(thread, *lock) == Some(Mode::Write));
        let Some(index) = owned else {
            return self.resume(thread, OperationResult::NotPossible, grants);
        };
        self.locks.join_wait_queue(thread, index, queue);
        if let Some(timeout) = timeout {
            self.arm(thread, timeout);
        }
        self.give_back(thread, index);
        self.threads[thread as usize].pending = Some(Pending::Relock { lock, result: OperationResult::TimedOut });
        self.stop(thread, State::Waiting);
    }

    // -- time

    /// The thread's time is not before this one.
    #[inline]
    fn catch_up(&mut self, thread: u32, now: u64) {
        let entry = &mut self.threads[thread as usize];
        entry.now = entry.now.max(now);
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

    fn fire_timers(&mut self) {
        while let Some((deadline, _, thread)) = self.timers.first().copied() {
            if deadline > self.now {
                return;
            }
            self.timers.pop_first();
            let entry = &mut self.threads[thread as usize];
            entry.deadline = None;
            let pending = entry.pending.take();
            match (entry.state, pending) {
                (State::Waiting, Some(relock)) => {
                    self.locks.leave(thread);
                    self.make_ready(thread, relock);
                }
                (State::Enqueued, _) => {
                    let Place::Queue(lock) = self.locks.place(thread) else { unreachable!("it queues at a lock") };
                    self.locks.leave(thread);
                    self.make_ready(thread, Pending::Resume(OperationResult::TimedOut));
                    self.hand_over(lock); // readers behind a writer that gave up may join those that read
                }
                (State::External, _) => {
                    let Thread { id, calls, .. } = self.threads[thread as usize];
                    self.outstanding.remove(&(id, calls - 1));
                    self.make_ready(thread, Pending::Resume(OperationResult::TimedOut));
                }
                (State::Sleeping, _) => self.make_ready(thread, Pending::Resume(OperationResult::Granted)),
                (state, pending) => unreachable!("the timer of a thread that is {state:?} with {pending:?}"),
            }
        }
        self.locks.sweep(self.now);
    }

    // -- grants

    #[inline]
    fn resume(&mut self, thread: u32, result: OperationResult, grants: &mut Vec<Grant>) {
        let entry = &mut self.threads[thread as usize];
        entry.now = entry.now.max(self.now);
        grants.push(Grant::Resume { thread: ThreadIndex(thread), result, now: entry.now });
    }
}
