//! Deterministic multithreading, policy only: ordered entries and the operations of threads in, grants out.
//! No threads, no clock, no IO, no knowledge of what a handler does.
//!
//! ```text
//!   ordered log ── Entry ──────>  ┌───────────┐
//!                                 │ Scheduler │ ── Grant: start, go on, round ended, log used up
//!   threads ────── Operation ──>  └───────────┘
//! ```
//! Contract: given the same entries and the same handlers, the grants per lock, the rounds and everything reported
//! with a round are the same, whatever the order in which running threads happen to reach their operations.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

mod cycles;
mod family;
mod kept;
mod list;
mod locks;
mod parameters;
pub mod presets;
pub mod sequential;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;
pub mod uds;

use alloc::boxed::Box;
use alloc::vec::Vec;
pub use parameters::{Change, ClassRule, Order, Parameters, Predicate};

/// A scheduling policy.
pub trait Scheduler: Send {
    /// The one entry point. Grants are appended in the order in which they are to be carried out.
    fn handle(&mut self, event: Event, grants: &mut Vec<Grant>);

    /// What it is doing, for people and hints; never for a decision.
    fn status(&self) -> Status;

    /// The global parameters in force, for people; a policy may have none.
    fn parameters(&self) -> Option<&Parameters> {
        None
    }

    /// At most `limit` of the last grants, with a number of `from` or more, in an order that is the same on all replicas:
    /// to find the first grant in which two of them differ. Only of rounds that have ended.
    fn grants(&self, from: u64, limit: usize) -> Vec<GrantRecord> {
        let _ = (from, limit);
        Vec::new()
    }

    /// From now on [`Grant::RoundEnded`] is given, or no longer. A policy without rounds never gives it.
    fn observe(&mut self, on: bool) {
        let _ = on;
    }

    /// What a thread is doing, for people; never for a decision.
    fn standing(&self, thread: ThreadIndex) -> Standing {
        let _ = thread;
        Standing::Nowhere
    }
}

/// The host's name for a live thread: an index into its table of tasks, given with the event that creates the thread
/// and free again after [`Grant::Finished`]. Local: it differs between replicas and never decides anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ThreadIndex(pub u32);

/// Names a lock: equal on all replicas. The upper 32 bits are the object, the lower 96 a key within it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LockId(pub u128);

/// A wait queue of one lock; 0 is the only one of a plain condition variable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueueId(pub u64);

/// How a lock is owned.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mode {
    /// With other readers.
    Read,
    /// Alone.
    Write,
}

/// What happens to a scheduler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The next entry of the log.
    Entry(Entry),
    /// A running thread asks for something. Exactly one operation of a thread is outstanding at a time.
    Operation {
        /// Who.
        thread: ThreadIndex,
        /// What.
        operation: Operation,
    },
}

/// An ordered entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A new thread.
    Request {
        /// The host's name for it.
        thread: ThreadIndex,
        /// Place in the log: ascending, the thread's deterministic id.
        position: u64,
        /// Its first `now`.
        timestamp: u64,
        /// What is known of it before it runs.
        declaration: Declaration,
    },
    /// Agreed time.
    Tick(u64),
    /// Go on without new requests.
    Flush,
    /// Changes global parameters, from the next round on; behind what handlers changed in the same round.
    Reconfigure(Change),
    /// An outside call of a thread was answered; what with, the host keeps. Without effect when no such call is
    /// outstanding at the end of the round that consumes it.
    Answer {
        /// The thread's request.
        position: u64,
        /// Which child of which child of its thread; empty: that thread itself.
        path: Vec<u16>,
        /// Which of its calls, counted from 0.
        call: u32,
        /// When it was decided; of several answers in a round the first counts.
        timestamp: u64,
    },
    /// Close the round and report; the number comes back in [`Grant::Marked`].
    Mark(u64),
}

/// What is known of a request before it runs: from the log alone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Declaration {
    /// What predicates see. Its children are of the same class.
    pub class: u16,
    /// How it takes its locks.
    pub lane: Lane,
    /// The locks that it will use. Each once; of several for one lock, the uses add up and a writer wins.
    pub locks: Vec<DeclaredLock>,
}

/// How a request takes its locks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lane {
    /// In rounds, with steps. Declared locks are only foreknowledge, for predicates.
    #[default]
    Undeclared,
    /// By tickets, one for each declared lock, in log order. It may lock what it declared, unlock, notify and finish;
    /// anything else is [`OperationResult::NotDeclared`].
    Declared,
}

/// A lock that a request will use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeclaredLock {
    /// Which.
    pub lock: LockId,
    /// How.
    pub mode: Mode,
    /// How often it is locked and unlocked; 0 counts as 1.
    pub uses: u32,
}

/// What a thread asks for. Deadlines and timeouts in microseconds of agreed time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Own a lock. A step.
    Lock {
        /// Which.
        lock: LockId,
        /// How.
        mode: Mode,
        /// Give up after this long.
        timeout: Option<u64>,
    },
    /// Own a lock if nobody stands against it at the end of the round: sooner, it would depend on who unlocks first.
    Try {
        /// Which.
        lock: LockId,
        /// How.
        mode: Mode,
    },
    /// Give a lock back. Returns at once.
    Unlock {
        /// Which.
        lock: LockId,
    },
    /// Give the lock back, wait to be notified, own it again.
    Wait {
        /// Which lock; the thread owns it for writing.
        lock: LockId,
        /// Which of its wait queues.
        queue: QueueId,
        /// Give up after this long (the lock is owned again all the same).
        timeout: Option<u64>,
    },
    /// Wake the first waiter, or all. Only the lock's owner may. Returns at once.
    Notify {
        /// Which lock.
        lock: LockId,
        /// Which of its wait queues.
        queue: QueueId,
        /// All of them.
        all: bool,
    },
    /// Pause.
    Sleep {
        /// For how long.
        duration: u64,
    },
    /// Let others go first. A step.
    Yield,
    /// A child thread of the same request: it may compute at once and is eligible from the next round on. Returns at
    /// once. The thread's children are numbered 1, 2, ... as they are granted; not possible beyond 65 535 children of
    /// one thread, or eight generations.
    Spawn {
        /// The host's name for it. Not taken when the result is not [`OperationResult::Granted`].
        thread: ThreadIndex,
    },
    /// Wait until a child has finished. Each can be joined once, by its parent.
    Join {
        /// Its number.
        child: u16,
    },
    /// Wait for the answer to an outside call, the thread's next.
    External {
        /// Give up after this long.
        timeout: Option<u64>,
    },
    /// Changes global parameters, from the next round on. Returns at once. Of several in a round the highest slot wins.
    ///
    /// Boxed, as what is seldom given: operations and grants are moved with every lock.
    Reconfigure(Box<Change>),
    /// The handler came to its end; locks still owned are released in the order of their acquisition.
    Finish,
}

/// What a scheduler lets happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Grant {
    /// A thread that has not begun may begin, as primary or admitted. (One that began ahead is simply primary now.)
    Start {
        /// Who.
        thread: ThreadIndex,
    },
    /// A pending operation came to its result; the thread may go on.
    Resume {
        /// Who.
        thread: ThreadIndex,
        /// With what.
        result: OperationResult,
        /// The thread's new `now`.
        now: u64,
    },
    /// A thread's [`Operation::External`] was performed: now its host may ask outside, not when the handler came to it,
    /// because how far a handler runs ahead is local.
    Call {
        /// Who.
        thread: ThreadIndex,
        /// Which of its calls, counted from 0.
        call: u32,
    },
    /// A thread's Finish was performed: its index is free, its reply may be sent.
    Finished {
        /// Who.
        thread: ThreadIndex,
    },
    /// The round that a Mark closed has ended; no operation of a later round was performed before this grant.
    Marked(Box<RoundReport>),
    /// A round has ended; given only while somebody observes.
    RoundEnded(Box<RoundEnd>),
}

/// A grant of a round that has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrantRecord {
    /// Counted from the beginning, in the order in which the trace has them: a round's by thread.
    pub number: u64,
    /// In which round.
    pub round: u64,
    /// The thread's request.
    pub position: u64,
    /// Which child of which child of the request's own thread.
    pub path: Vec<u16>,
    /// Which lock.
    pub lock: LockId,
    /// How.
    pub mode: Mode,
    /// How many writers owned the lock before, since it was last idle.
    pub writers_before: u64,
}

/// A round that has ended, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoundEnd {
    /// Which.
    pub round: u64,
    /// Threads that were primary in it.
    pub primaries: usize,
    /// Declared requests that it consumed.
    pub admitted: usize,
    /// What holds from the next round on.
    pub parameters: Parameters,
}

/// What a thread is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// There is no such thread.
    Nowhere,
    /// Never yet selected.
    Fresh,
    /// Computes.
    Running,
    /// Waits to be selected.
    NotPrimary,
    /// Waits for its turn in the round.
    AwaitingTurn,
    /// Waits for a step in a later round.
    OutOfSteps,
    /// Queues at a lock.
    Enqueued,
    /// Tries a lock until the end of the round.
    Trying,
    /// Parked behind a lock whose owner is parked.
    Blocked,
    /// Waits until its ticket for a lock is first.
    Ticket,
    /// In a wait queue.
    Waiting,
    /// Until its deadline.
    Sleeping,
    /// Until a child has finished.
    Joining,
    /// Until an outside call is answered.
    External,
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum OperationResult {
    /// Done.
    Granted,
    /// The time-out came first. After a timed wait the lock is owned again, after a timed lock it is not.
    TimedOut,
    /// The lock operation would have closed a cycle; it was not performed. A wait that ends like this does not own its
    /// lock; everything else that the thread owned, it owns still.
    Deadlock,
    /// The thread owns that lock already (or, for unlock, wait and notify, does not own it). Nothing happened.
    NotPossible,
    /// A try: somebody stands against it.
    Occupied,
    /// A thread of the declared lane did what it had not declared. Nothing happened.
    NotDeclared,
}

/// What all replicas agree on at the end of a round closed by a Mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundReport {
    /// The Mark's number.
    pub mark: u64,
    /// The round.
    pub round: u64,
    /// Grant-trace hash of all rounds so far.
    pub grants: [u8; 32],
    /// Digest of the scheduler's own state (queues, waiters, timers, parked threads, cursor, parameters).
    pub state: [u8; 32],
}

/// What `status` shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// Current round.
    pub round: u64,
    /// Threads alive.
    pub threads: usize,
    /// Of those, parked (waiting, sleeping, blocked behind a parked owner).
    pub parked: usize,
    /// The log is used up and threads are left that only a Flush (or a new request) lets go on.
    pub needs_flush: bool,
    /// Earliest armed deadline.
    pub deadline: Option<u64>,
}
