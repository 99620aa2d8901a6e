//! A recorded stretch of the schedule, as data: for whoever draws it. The executor fills it
//! ([`Executor::record`](crate::Executor::record)), the host ships it, a viewer shows it.
//!
//! ```text
//!   Recording   threads: [position, path, handler]   objects: ["accounts[7]", ..]   events, in their order
//!
//!   a thread's life:  (Ahead) Selected  Runs Asked ── Resumed .. Asked ── Waits ── Resumed  Runs .. Asked Finish  Finished
//!                      \__ maybe later __/     └ at once           └ until a later grant   └ a worker takes it up again
//! ```
//! Between `Runs` or `Resumed` and the next `Asked` a thread computes, from `Waits` to `Resumed` it waits, from `Resumed`
//! after a `Waits` to `Runs` it has been let go on and waits for a worker. Unlocking and notifying are `Asked` with their
//! `Resumed` directly behind. Everything between two `RoundEnded` belongs to one round.
//!
//! Canonical bytes by borsh, in the order of the fields.

use unisono_types::Position;
use unisono_types::borsh::{BorshDeserialize, BorshSerialize};

/// The last events before recording was switched off, or before now.
#[derive(Clone, PartialEq, Eq, Debug, Default, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub struct Recording {
    /// Whether times are microseconds of the host's clock; otherwise they count events.
    pub clocked: bool,
    /// Events that did not fit and were forgotten: all older than those here.
    pub forgotten: u64,
    /// The threads of the events.
    pub threads: Vec<RecordedThread>,
    /// The objects of the events, by their paths; a row with its key, or `#` and a hash if it was never written.
    pub objects: Vec<String>,
    /// In the order in which they happened on this replica. Other replicas have others.
    pub events: Vec<RecordedEvent>,
}

/// What a thread is called.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub struct RecordedThread {
    /// Its request.
    pub position: Position,
    /// Which child of which child of the request's own thread, whose path is empty.
    pub path: Vec<u16>,
    /// The handler.
    pub handler: String,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub struct RecordedEvent {
    /// Counted from when recording was switched on: without gaps.
    pub number: u64,
    /// When: see [`Recording::clocked`].
    pub time: u64,
    /// In which round.
    pub round: u64,
    /// Of whom: an index into [`Recording::threads`]. `None` for the end of a round.
    pub thread: Option<u32>,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub enum EventKind {
    /// Its handler begins to compute before the scheduler has selected it.
    Ahead,
    /// The scheduler has let it begin: it is a primary, or admitted with its tickets.
    Selected,
    /// It is taken up by a worker, counted from 0; `None`: by whoever called the executor.
    Runs {
        /// Which.
        worker: Option<u16>,
    },
    /// It asks for an operation.
    Asked {
        /// Which.
        operation: AskedOperation,
        /// On which object: an index into [`Recording::objects`].
        object: Option<u32>,
    },
    /// What it asked for is not done yet: why. Also when the reason changes.
    Waits {
        /// Why.
        reason: WaitReason,
    },
    /// What it asked for came to this; it may go on.
    Resumed {
        /// To what.
        result: AskedResult,
    },
    /// It has come to its end.
    Finished,
    /// The round has ended.
    RoundEnded {
        /// Threads that were primary in it.
        primaries: u32,
        /// Declared requests that it consumed.
        admitted: u32,
        /// n of the next round.
        next_primaries: u32,
        /// s of the next round.
        next_steps: u32,
        /// The order of the next round, for people.
        next_order: String,
        /// Who may be primary in the next round, for people.
        next_predicate: String,
    },
}

/// What a thread can ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub enum AskedOperation {
    /// Own a lock alone.
    Lock,
    /// Own a lock with other readers.
    Read,
    /// Own a lock if it is free.
    Try,
    /// Give a lock back.
    Unlock,
    /// Give a lock back, be notified, own it again.
    Wait,
    /// Wake who waits at a lock.
    Notify,
    /// Pause.
    Sleep,
    /// Let others go first.
    Yield,
    /// Bear a child.
    Spawn,
    /// Wait for a child.
    Join,
    /// Ask the outside.
    Call,
    /// Change the schedule.
    Reconfigure,
    /// End.
    Finish,
}

/// Why a thread waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub enum WaitReason {
    /// To be selected.
    Selection,
    /// For its turn in the round.
    Turn,
    /// For a step in a later round.
    Step,
    /// In the queue of the lock.
    Queue,
    /// For the end of the round, which tells whether its try succeeds.
    EndOfRound,
    /// Parked: the lock's owner is parked.
    ParkedOwner,
    /// Parked: its ticket is not the first.
    Ticket,
    /// Parked: to be notified.
    Notification,
    /// Parked: asleep.
    Time,
    /// Parked: for a child.
    Child,
    /// Parked: for an answer from outside.
    Answer,
}

/// What an operation came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub enum AskedResult {
    /// Done.
    Granted,
    /// The time-out came first.
    TimedOut,
    /// It would have been a deadlock.
    Deadlock,
    /// It cannot be.
    NotPossible,
    /// A try: somebody has it.
    Occupied,
    /// It was not declared.
    NotDeclared,
}
