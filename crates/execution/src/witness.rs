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

/// Of all threads, by request and path of births.
pub(crate) type Journals = BTreeMap<(Position, Vec<u16>), Journal>;

/// Of one thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Journal {
    pub(crate) handler: &'static str,
    pub(crate) facts: Vec<Fact>,
}

impl Journal {
    pub(crate) const fn new(handler: &'static str) -> Self {
        Self { handler, facts: Vec::new() }
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
