//! The grant trace and the writer of state digests.
//!
//! A grant is (round, thread, lock, mode, number of writers that owned the lock before). Grants are mixed into a word
//! of their thread as they are made, because only the grants of one thread have an order that every replica sees:
//! hand-overs on different locks, and neighbouring readers of one, happen in any order. The words are folded in slot
//! order when the round ends. 64 bits and two multiplications per grant: the trace finds divergence, it keeps no
//! secrets and convinces nobody. BLAKE3 chains the folded word at each Mark.
//!
//! "Writers before" are counted from the last end of a round (in `sequential`: the last moment) at which nobody owned
//! the lock or waited at it. That needs memory for locks in use only, and is the same everywhere because the state at
//! the end of a round is.

use crate::family::ThreadId;
use crate::kept::{Chain, Kept};
use crate::{Change, DeclaredLock, LockId, Mode, Operation, OperationResult, Order, Parameters, Predicate};

/// One thread's grants within a round, or all rounds so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Word(u64);

impl Word {
    /// A step of which every half is a bijection: no input can make the word forget what it held.
    #[inline]
    pub(crate) fn mix(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 29);
    }

    /// A grant of the thread that this word belongs to.
    #[inline]
    pub(crate) fn grant(&mut self, lock: LockId, mode: Mode, writers_before: u64) {
        let (low, high) = (lock.0 as u64, (lock.0 >> 64) as u64);
        self.mix(low ^ high.rotate_left(32).wrapping_mul(0xC2B2_AE3D_27D4_EB4F));
        self.mix(writers_before << 1 | u64::from(mode == Mode::Write));
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Word::default()
    }
}

/// One thread's grants within a round: what is hashed, and where they are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Grants {
    word: Word,
    kept: Chain,
}

impl Grants {
    pub(crate) fn is_empty(self) -> bool {
        self.word.is_empty()
    }
}

/// The trace of all rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    word: Word,
    chain: [u8; 32],
    kept: Kept,
}

impl Trace {
    /// A grant of the thread whose grants these are.
    #[inline]
    pub(crate) fn grant(&mut self, grants: &mut Grants, lock: LockId, mode: Mode, writers_before: u64) {
        grants.word.grant(lock, mode, writers_before);
        self.kept.grant(&mut grants.kept, lock, mode, writers_before);
    }

    /// The last grants of all.
    pub(crate) const fn kept(&self) -> &Kept {
        &self.kept
    }

    /// A thread's grants of a round that ends, in slot order.
    #[inline]
    pub(crate) fn fold(&mut self, round: u64, thread: ThreadId, grants: Grants) {
        let Grants { word, kept } = grants;
        self.kept.fold(round, thread, kept);
        self.word.mix(round);
        let [position, path @ ..] = thread.words();
        self.word.mix(position);
        if !thread.is_request() {
            path.into_iter().for_each(|word| self.word.mix(word));
        }
        self.word.mix(word.0);
    }

    /// A Mark: what the trace is now.
    pub(crate) fn report(&mut self, round: u64) -> [u8; 32] {
        let mut digest = DigestWriter::new("unisono grant trace");
        digest.bytes(&self.chain);
        digest.word(round);
        digest.word(self.word.0);
        self.chain = digest.finish();
        self.chain
    }
}

/// Canonical bytes into BLAKE3: integers little-endian, sequences behind their length.
pub(crate) struct DigestWriter(blake3::Hasher);

impl DigestWriter {
    pub(crate) fn new(context: &str) -> Self {
        Self(blake3::Hasher::new_derive_key(context))
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn word(&mut self, word: u64) {
        self.bytes(&word.to_le_bytes());
    }

    pub(crate) fn words(&mut self, words: &[u64]) {
        self.word(words.len() as u64);
        words.iter().for_each(|word| self.word(*word));
    }

    pub(crate) fn id(&mut self, thread: ThreadId) {
        thread.words().iter().for_each(|word| self.word(*word));
    }

    pub(crate) fn ids(&mut self, threads: &[ThreadId]) {
        self.word(threads.len() as u64);
        threads.iter().for_each(|thread| self.id(*thread));
    }

    pub(crate) fn option(&mut self, word: Option<u64>) {
        match word {
            None => self.word(0),
            Some(word) => self.words(&[word]),
        }
    }

    pub(crate) fn lock(&mut self, lock: LockId) {
        self.bytes(&lock.0.to_le_bytes());
    }

    pub(crate) fn future_locks(&mut self, locks: Option<&[DeclaredLock]>) {
        self.word(locks.map_or(0, |locks| locks.len() as u64 + 1));
        for DeclaredLock { lock, mode, uses } in locks.unwrap_or_default() {
            self.lock(*lock);
            self.words(&[u64::from(*mode == Mode::Write), u64::from(*uses)]);
        }
    }

    pub(crate) fn result(&mut self, result: OperationResult) {
        self.word(match result {
            OperationResult::Granted => 0,
            OperationResult::TimedOut => 1,
            OperationResult::Deadlock => 2,
            OperationResult::NotPossible => 3,
            OperationResult::Occupied => 4,
            OperationResult::NotDeclared => 5,
        });
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

impl Operation {
    pub(crate) fn digest(&self, digest: &mut DigestWriter) {
        match self {
            Operation::Lock { lock, mode, timeout } => {
                digest.words(&[0, u64::from(*mode == Mode::Write)]);
                digest.lock(*lock);
                digest.option(*timeout);
            }
            Operation::Unlock { lock } => {
                digest.word(1);
                digest.lock(*lock);
            }
            Operation::Wait { lock, queue, timeout } => {
                digest.words(&[2, queue.0]);
                digest.lock(*lock);
                digest.option(*timeout);
            }
            Operation::Notify { lock, queue, all } => {
                digest.words(&[3, queue.0, u64::from(*all)]);
                digest.lock(*lock);
            }
            Operation::Sleep { duration } => digest.words(&[4, *duration]),
            Operation::Yield => digest.word(5),
            Operation::Finish => digest.word(6),
            // The index is local; the child's name follows from its parent.
            Operation::Spawn { thread: _ } => digest.word(7),
            Operation::Try { lock, mode } => {
                digest.words(&[9, u64::from(*mode == Mode::Write)]);
                digest.lock(*lock);
            }
            Operation::External { timeout } => {
                digest.word(10);
                digest.option(*timeout);
            }
            Operation::Join { child } => digest.words(&[8, (*child).into()]),
            Operation::Reconfigure(change) => {
                digest.word(11);
                change.digest(digest);
            }
        }
    }
}

impl Parameters {
    pub(crate) fn digest(&self, digest: &mut DigestWriter) {
        digest.words(&[self.primaries.into(), self.steps.into(), self.flush_rounds.into()]);
        self.order.digest(digest);
        self.predicate.digest(digest);
    }
}

impl Change {
    fn digest(&self, digest: &mut DigestWriter) {
        for number in [self.primaries, self.steps, self.flush_rounds] {
            digest.option(number.map(u64::from));
        }
        digest.word(self.order.is_some().into());
        self.order.iter().for_each(|order| order.digest(digest));
        digest.word(self.predicate.is_some().into());
        self.predicate.iter().for_each(|predicate| predicate.digest(digest));
    }
}

impl Order {
    fn digest(&self, digest: &mut DigestWriter) {
        match self {
            Order::RoundRobin => digest.word(0),
            Order::Quantum(quantum) => digest.words(&[1, (*quantum).into()]),
            Order::Explicit(slots) => {
                digest.word(2);
                digest.word(slots.len() as u64);
                slots.iter().for_each(|slot| digest.word((*slot).into()));
            }
        }
    }
}

impl Predicate {
    fn digest(&self, digest: &mut DigestWriter) {
        match self {
            Predicate::All => digest.word(0),
            Predicate::FutureLocks => digest.word(1),
            Predicate::Classes(rules) => {
                digest.word(2);
                digest.word(rules.len() as u64);
                rules.iter().for_each(|rule| {
                    digest.words(&[rule.class.into(), rule.every.into(), rule.phase.into()]);
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(grants: &[(u128, Mode, u64)]) -> Word {
        let mut word = Word::default();
        grants.iter().for_each(|(lock, mode, writers)| word.grant(LockId(*lock), *mode, *writers));
        word
    }

    #[test]
    fn every_part_of_a_grant_counts() {
        let base = word(&[(7, Mode::Write, 3)]);
        assert_eq!(base, word(&[(7, Mode::Write, 3)]));
        assert!(!base.is_empty());
        for other in [(8, Mode::Write, 3), (7 << 64, Mode::Write, 3), (7, Mode::Read, 3), (7, Mode::Write, 4)] {
            assert_ne!(base, word(&[other]), "{other:?}");
        }
        assert_ne!(
            word(&[(1, Mode::Write, 0), (2, Mode::Write, 0)]),
            word(&[(2, Mode::Write, 0), (1, Mode::Write, 0)])
        );
    }

    #[test]
    fn rounds_threads_and_marks_have_an_order() {
        let fold = |folds: &[(u64, u64)]| {
            let mut trace = Trace::default();
            folds.iter().for_each(|(round, position)| {
                let mut grants = Grants::default();
                trace.grant(&mut grants, LockId(1), Mode::Write, 0);
                trace.fold(*round, ThreadId::request(*position), grants)
            });
            trace.report(9)
        };
        assert_eq!(fold(&[(1, 5), (1, 6)]), fold(&[(1, 5), (1, 6)]));
        assert_ne!(fold(&[(1, 5), (1, 6)]), fold(&[(1, 6), (1, 5)]));
        assert_ne!(fold(&[(1, 5), (1, 6)]), fold(&[(1, 5), (2, 6)]));
        let mut trace = Trace::default();
        assert_ne!(trace.report(1), trace.report(1), "each report continues the chain");
    }
}
