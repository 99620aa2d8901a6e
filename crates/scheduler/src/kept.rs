//! The last grants as they were made, kept so that two replicas whose grant hashes differ can find the first grant in
//! which they do. Decides nothing and is no part of the state.
//!
//! ```text
//!   as made   (lock, mode, writers before, the same thread's grant before it in this round)
//!   folded    at the end of the round, in the order of the trace: (round, thread, first number, last of its grants)
//! ```
//! Grants are numbered in the order in which the trace folds them, which is the same on all replicas; how they were made
//! in time is not. So a grant costs one write to a ring, and only who asks pays for the order.
//!
//! Invariant: at most `KEPT_MAX` grants are kept, and as many folds. A fold whose grants were overwritten is forgotten.

use crate::family::ThreadId;
use crate::{GrantRecord, LockId, Mode};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Grants that are kept: some seconds of a busy replica, in 24 megabytes at most.
const KEPT_MAX: usize = 1 << 18;

/// No grant.
const NONE: u64 = u64::MAX;

/// Where a thread's grants of a round stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Chain {
    last: u64,
    count: u32,
}

impl Default for Chain {
    fn default() -> Self {
        Self { last: NONE, count: 0 }
    }
}

/// 32 bytes.
#[derive(Clone, Copy, Debug)]
struct Made {
    lock: [u64; 2],
    /// The number of writers, times 2, and 1 for a writer.
    writers_before_and_mode: u64,
    previous: u64,
}

/// 56 bytes.
#[derive(Clone, Copy, Debug)]
struct Fold {
    round: u64,
    thread: [u64; 3],
    first: u64,
    grants: Chain,
}

/// The last grants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    /// The n-th grant as made stands at n modulo its length.
    made: Vec<Made>,
    count: u64,
    folds: VecDeque<Fold>,
    folded: u64,
}

impl Kept {
    /// A grant is made, of the thread to which the chain belongs.
    #[inline]
    pub(crate) fn grant(&mut self, chain: &mut Chain, lock: LockId, mode: Mode, writers_before: u64) {
        let made = Made {
            lock: [(lock.0 >> 64) as u64, lock.0 as u64],
            writers_before_and_mode: writers_before << 1 | u64::from(mode == Mode::Write),
            previous: chain.last,
        };
        *chain = Chain { last: self.count, count: chain.count.saturating_add(1) };
        if self.made.len() < KEPT_MAX {
            self.made.push(made);
        } else {
            self.made[self.count as usize % KEPT_MAX] = made;
        }
        self.count += 1;
    }

    /// The thread's grants get their numbers.
    pub(crate) fn fold(&mut self, round: u64, thread: ThreadId, grants: Chain) {
        if grants.count == 0 {
            return;
        }
        let first = self.folded;
        self.folded += u64::from(grants.count);
        if self.folds.front().is_some_and(|fold| fold.grants.last < self.oldest()) {
            self.folds.pop_front();
        }
        self.folds.push_back(Fold { round, thread: thread.words(), first, grants });
    }

    /// As made.
    fn oldest(&self) -> u64 {
        self.count.saturating_sub(KEPT_MAX as u64)
    }

    /// At most `limit` of the kept grants with a number of `from` or more.
    pub(crate) fn records(&self, from: u64, limit: usize) -> Vec<GrantRecord> {
        let begin = self.folds.partition_point(|fold| fold.first + u64::from(fold.grants.count) <= from);
        let records = self.folds.range(begin..).flat_map(|fold| self.of_thread(fold));
        records.filter(|record| record.number >= from).take(limit).collect()
    }

    /// Those of a thread that are still there, in their order.
    fn of_thread(&self, fold: &Fold) -> Vec<GrantRecord> {
        let mut records = Vec::new();
        let mut at = fold.grants.last;
        let mut number = fold.first + u64::from(fold.grants.count);
        while at != NONE && at >= self.oldest() {
            let made = self.made[at as usize % KEPT_MAX];
            let (position, path) = ThreadId::of_words(fold.thread).name();
            let lock = LockId(u128::from(made.lock[0]) << 64 | u128::from(made.lock[1]));
            let mode = if made.writers_before_and_mode & 1 == 1 { Mode::Write } else { Mode::Read };
            let writers_before = made.writers_before_and_mode >> 1;
            number -= 1;
            records.push(GrantRecord { number, round: fold.round, position, path, lock, mode, writers_before });
            at = made.previous;
        }
        records.reverse();
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(position: u64) -> ThreadId {
        ThreadId::request(position)
    }

    #[test]
    fn grants_are_numbered_in_the_order_of_the_folds_however_they_were_made() {
        let numbered = |order: &[usize]| {
            let mut kept = Kept::default();
            let mut chains = [Chain::default(); 2];
            let mut writers = [0; 2];
            for thread in order {
                kept.grant(&mut chains[*thread], LockId(*thread as u128), Mode::Write, writers[*thread]);
                writers[*thread] += 1;
            }
            kept.fold(1, thread(7), chains[0]);
            kept.fold(1, thread(8).child(3).unwrap(), chains[1]);
            kept.records(0, 99)
        };
        let records = numbered(&[0, 1, 0, 1, 1]);
        assert_eq!(records, numbered(&[1, 1, 0, 1, 0]));
        let told: Vec<_> =
            records.iter().map(|record| (record.number, record.position, record.writers_before)).collect();
        assert_eq!(told, [(0, 7, 0), (1, 7, 1), (2, 8, 0), (3, 8, 1), (4, 8, 2)]);
        assert_eq!((records[1].path.as_slice(), records[2].path.as_slice()), ([].as_slice(), [3].as_slice()));
    }

    #[test]
    fn a_page_begins_where_it_is_told_to() {
        let mut kept = Kept::default();
        for round in 0..10 {
            let mut chain = Chain::default();
            for lock in 0..3 {
                kept.grant(&mut chain, LockId(lock), Mode::Read, 0);
            }
            kept.fold(round, thread(round), chain);
        }
        let numbers = |from, limit| kept.records(from, limit).iter().map(|record| record.number).collect::<Vec<_>>();
        assert_eq!(numbers(0, 2), [0, 1]);
        assert_eq!(numbers(4, 3), [4, 5, 6]);
        assert_eq!(numbers(29, 3), [29]);
        assert_eq!(numbers(30, 3), []);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut kept = Kept::default();
        let rounds = KEPT_MAX as u64 + 1_000;
        for round in 0..rounds {
            let mut chain = Chain::default();
            kept.grant(&mut chain, LockId(1), Mode::Write, round);
            kept.fold(round, thread(round), chain);
        }
        assert!(kept.made.len() == KEPT_MAX && kept.folds.len() <= KEPT_MAX + 1);
        assert_eq!(kept.records(0, 1)[0].number, 1_000);
        assert_eq!(kept.records(rounds - 1, 9).len(), 1);
    }
}
