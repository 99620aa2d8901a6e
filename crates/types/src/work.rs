//! How `replica` and `execution`, which do not know each other, meet in the host: ordered [`Work`] in, [`Done`] out.

use crate::{CallAnswer, Digest, Position, RequestNumber, ScheduleChange, SequenceNumber, SessionId, Timestamp};
use alloc::string::String;
use alloc::vec::Vec;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;

/// What execution is given, in order. The same on every replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Work {
    /// Run a handler.
    Request {
        /// Its place in the log: the id of its deterministic thread.
        position: Position,
        /// Timestamp of its decision: the thread's first `now`.
        timestamp: Timestamp,
        /// Whose.
        session: SessionId,
        /// Which.
        number: RequestNumber,
        /// What.
        operation: Bytes,
    },
    /// Agreed time has come to this.
    Tick(Timestamp),
    /// Run the threads that are left without waiting for more requests.
    Flush,
    /// Global parameters of the schedule change.
    Reconfigure(ScheduleChange),
    /// An outside call of a thread was answered.
    Answer {
        /// The thread's request.
        position: Position,
        /// Which child of which child of the request's own thread, whose path is empty.
        path: Vec<u16>,
        /// Which of its calls, counted from 0.
        call: u32,
        /// Timestamp of its decision.
        timestamp: Timestamp,
        /// What the outside said.
        answer: CallAnswer,
    },
    /// Close the round and report the state's root (the place of a checkpoint's cut).
    Mark(SequenceNumber),
}

/// What a handler came to. Equal on every correct replica.
pub type Outcome = Result<Bytes, Fault>;

/// Why a handler gave no result of its own. Typed, deterministic, equal on every replica.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize, thiserror::Error)]
pub enum Fault {
    /// The handler panicked.
    #[error("handler {handler} panicked; what it wrote before stays")]
    Panicked {
        /// The handler's name.
        handler: String,
    },
    /// The handler awaited something that is no operation of its Context (a foreign future).
    #[error("handler {handler} awaited a future that is not an operation of its Context")]
    ForeignAwait {
        /// The handler's name.
        handler: String,
    },
    /// The handler began a second operation while one was pending (join!).
    #[error("handler {handler} began two operations at once")]
    TwoOperations {
        /// The handler's name.
        handler: String,
    },
    /// The handler dropped a pending operation (select!, timeout).
    #[error("handler {handler} dropped a pending operation")]
    DroppedOperation {
        /// The handler's name.
        handler: String,
    },
    /// A lock operation would have closed a cycle of waiting threads; this one was the youngest.
    #[error("handler {handler} was ended by deadlock detection; what it wrote before stays")]
    Deadlock {
        /// The handler's name.
        handler: String,
    },
    /// A lock operation that can never succeed: the thread owns that lock already.
    #[error("handler {handler} locked what it owns already")]
    AlreadyOwned {
        /// The handler's name.
        handler: String,
    },
    /// The operation's bytes are no call of this service.
    #[error("the operation is no call of this service")]
    UnknownOperation,
    /// The result is larger than a reply may be.
    #[error("the result of handler {handler} is larger than a reply may be")]
    ResultTooLarge {
        /// The handler's name.
        handler: String,
    },
    /// A handler of the declared lane did what it had not declared.
    #[error("handler {handler} did what it had not declared; what it wrote before stays")]
    NotDeclared {
        /// The handler's name.
        handler: String,
    },
}

/// What execution reports. Order: everything that finished in a round up to a Mark's stands before its `Marked`,
/// everything later behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Done {
    /// A handler came to its end.
    Executed {
        /// Its thread.
        position: Position,
        /// Whose.
        session: SessionId,
        /// Which.
        number: RequestNumber,
        /// What it came to.
        outcome: Outcome,
    },
    /// A thread's outside call was performed: now the outside may be asked. It goes on with the [`Work::Answer`] that
    /// names it, or when its time is up.
    Called {
        /// The thread's request.
        position: Position,
        /// Which child of which child of the request's own thread.
        path: Vec<u16>,
        /// Which of its calls, counted from 0.
        call: u32,
        /// Whom.
        target: String,
        /// What.
        request: Bytes,
    },
    /// A Mark took effect.
    Marked(MarkReport),
    /// The log is used up and something is left that only a new entry can move.
    Starved {
        /// Threads are left that are neither finished nor parked, or parked ones whose join has arrived.
        flush: bool,
        /// The earliest deadline that is armed.
        tick: Option<Timestamp>,
    },
}

/// The state at a Mark. Equal on every correct replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MarkReport {
    /// The decision that holds the Mark.
    pub sequence: SequenceNumber,
    /// Root over all objects.
    pub objects: Digest,
    /// Digest of the scheduler's state.
    pub scheduler: Digest,
    /// Grant-trace hash.
    pub grants: Digest,
    /// Rounds ended so far.
    pub round: u64,
}
