//! What each thread learnt and what it did, kept while a service is tested: who went astray is told from who was led
//! astray by others.
//!
//! ```text
//!   learnt   results of operations, the values that its closures found           from the scheduler and other threads
//!   did      operations, the values that its closures left, what it came to      a function of what it learnt before
//! ```
//! Two executions of one log that differ: the thread whose first difference is a deed is the one that is not
//! deterministic. Whoever merely learnt something else is not.
//!
//! Off outside of tests: it encodes values at every access.

use crate::keyed::HashKey;
use std::collections::BTreeMap;
use unisono_scheduler::{LockId, Operation, OperationResult};
use unisono_types::{CallAnswer, ClusterId, Outcome, Position};

/// Facts of one thread beyond which nothing is kept: a handler that spins for ever must not fill the memory.
const FACTS_MAX: usize = 1 << 20;

/// What is kept of an execution.
#[derive(Default)]
pub(crate) struct Witness {
    pub(crate) journals: Journals,
    /// By lock: the greatest `now` of a thread that used its value while it owned it alone.
    objects: BTreeMap<LockId, u64>,
    /// The first, in the order of the log, that was seen.
    pub(crate) earlier: Option<EarlierTime>,
}

/// A thread that wrote a time below one that it had read: below the time of a thread that owned the object before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct EarlierTime {
    pub(crate) position: Position,
    pub(crate) path: Vec<u16>,
    pub(crate) lock: LockId,
    /// What it wrote, or its own `now`.
    pub(crate) written: u64,
    /// The greatest `now` of those who owned the object alone before.
    pub(crate) read: u64,
    /// The thread's own `now`. Below `read` only if the scheduler's time is not causal.
    pub(crate) now: u64,
}

impl Witness {
    /// The thread uses the value under a lock at its own time `now`, and hands in what it had as `now` at `given` times.
    pub(crate) fn used(
        &mut self,
        (position, path): (Position, &[u16]),
        lock: LockId,
        alone: bool,
        now: u64,
        given: impl Iterator<Item = u64>,
    ) {
        let read = self.objects.get(&lock).copied().unwrap_or_default();
        if alone {
            self.objects.insert(lock, now.max(read));
        }
        let Some(written) = given.chain([now]).min().filter(|written| *written < read) else { return };
        let first = self.earlier.as_ref().is_none_or(|first| (position, path) < (first.position, &first.path));
        if first {
            self.earlier = Some(EarlierTime { position, path: path.to_vec(), lock, written, read, now });
        }
    }
}

/// Of all threads, by request and path of births.
pub(crate) type Journals = BTreeMap<(Position, Vec<u16>), Journal>;

/// Of one thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Journal {
    pub(crate) handler: &'static str,
    /// Its first `now`.
    began: u64,
    pub(crate) facts: Vec<Fact>,
}

impl Journal {
    pub(crate) const fn new(handler: &'static str, began: u64) -> Self {
        Self { handler, began, facts: Vec::new() }
    }

    /// Whether the thread has had this `now`.
    pub(crate) fn has_had(&self, now: u64) -> bool {
        let learnt = |fact: &Fact| matches!(fact, Fact::Learnt(_, then, _) if *then == now);
        now == self.began || self.facts.iter().any(learnt)
    }

    pub(crate) fn note(&mut self, fact: Fact) {
        if self.facts.len() < FACTS_MAX {
            self.facts.push(fact);
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fact {
    /// An operation ended like this, at this time, for a call with this answer.
    Learnt(OperationResult, u64, Option<Box<CallAnswer>>),
    /// A closure found a value with this hash under the lock.
    Found(LockId, u64),
    /// It asked for this.
    Asked(Operation),
    /// A closure left a value under the lock and returned something; the hash of both.
    Left(LockId, u64),
    /// It came to its end.
    Ended(Outcome),
}

impl Fact {
    /// Whether it follows from what the thread has learnt before.
    pub(crate) const fn is_deed(&self) -> bool {
        matches!(self, Self::Asked(_) | Self::Left(..) | Self::Ended(_))
    }

    /// The lock that it is about.
    pub(crate) const fn lock(&self) -> Option<LockId> {
        match self {
            Self::Found(lock, _) | Self::Left(lock, _) => Some(*lock),
            Self::Asked(operation) => lock_of(operation),
            Self::Learnt(..) | Self::Ended(_) => None,
        }
    }
}

/// The lock that an operation is about.
pub(crate) const fn lock_of(operation: &Operation) -> Option<LockId> {
    match operation {
        Operation::Lock { lock, .. }
        | Operation::Try { lock, .. }
        | Operation::Unlock { lock }
        | Operation::Wait { lock, .. }
        | Operation::Notify { lock, .. } => Some(*lock),
        _ => None,
    }
}

/// Hashes for comparisons within one process.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    HashKey::of(ClusterId::default()).hash(bytes) as u64
}
