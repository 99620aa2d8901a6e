//! Cycles among threads that wait for one another. Exact: an edge is a thread that stands at a lock and whoever must go
//! first, or a thread that joins a child and that child. A victim is always one that stands at a lock: every cycle has
//! one, because nobody joins its parent. Looks only at what the given threads can reach, every edge once while there is no cycle.

use crate::locks::{Locks, Place};
use alloc::vec::Vec;

/// Scratch memory of the search, kept between searches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cycles {
    /// By thread: `epoch * 2` on the path, `epoch * 2 + 1` left behind; smaller: not met.
    met: Vec<u64>,
    epoch: u64,
    path: Vec<Frame>,
    edges: Vec<u32>,
    reached: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    thread: u32,
    /// Its edges not yet followed begin here and end where `edges` does when it is on top.
    first_edge: usize,
}

impl Cycles {
    /// Of the threads on a cycle that one of `starts` leads to, the one with the greatest `rank`.
    pub(crate) fn youngest<R: Ord>(
        &mut self,
        locks: &Locks,
        starts: &[u32],
        threads: usize,
        rank: impl Fn(u32) -> R,
        joins: impl Fn(u32) -> Option<u32>,
    ) -> Option<u32> {
        self.begin(threads);
        self.reached.clear();
        let mut found = false;
        for start in starts {
            found |= self.search(locks, *start, None, &joins);
        }
        if !found {
            return None;
        }
        let mut reached = core::mem::take(&mut self.reached);
        reached.retain(|thread| matches!(locks.place(*thread), Place::Queue(_) | Place::Blocked(_)));
        reached.sort_unstable_by_key(|thread| core::cmp::Reverse(rank(*thread)));
        let youngest = reached.iter().copied().find(|thread| self.lies_on_cycle(locks, *thread, threads, &joins));
        self.reached = reached;
        youngest
    }

    /// Whether the thread waits, through others, for itself.
    pub(crate) fn lies_on_cycle(
        &mut self,
        locks: &Locks,
        thread: u32,
        threads: usize,
        joins: impl Fn(u32) -> Option<u32>,
    ) -> bool {
        self.begin(threads);
        self.search(locks, thread, Some(thread), &joins)
    }

    fn begin(&mut self, threads: usize) {
        self.epoch += 1;
        if self.met.len() < threads {
            self.met.resize(threads, 0);
        }
    }

    /// Depth first from `start`. With a goal: whether an edge leads to it. Without: whether any edge closes a cycle.
    fn search(&mut self, locks: &Locks, start: u32, goal: Option<u32>, joins: &impl Fn(u32) -> Option<u32>) -> bool {
        let (on_path, behind) = (self.epoch * 2, self.epoch * 2 + 1);
        if self.met[start as usize] >= on_path {
            return false;
        }
        let mut found = false;
        self.enter(locks, start, joins);
        while let Some(frame) = self.path.last().copied() {
            if self.edges.len() == frame.first_edge {
                self.met[frame.thread as usize] = behind;
                self.path.pop();
                continue;
            }
            let next = self.edges.pop().expect("an edge is left");
            let met = self.met[next as usize];
            found |= match goal {
                Some(goal) => next == goal,
                None => met == on_path,
            };
            if met < on_path {
                self.enter(locks, next, joins);
            }
        }
        found
    }

    fn enter(&mut self, locks: &Locks, thread: u32, joins: &impl Fn(u32) -> Option<u32>) {
        self.met[thread as usize] = self.epoch * 2;
        self.reached.push(thread);
        self.path.push(Frame { thread, first_edge: self.edges.len() });
        locks.waits_for(thread, &mut self.edges);
        self.edges.extend(joins(thread));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LockId, Mode};

    /// Thread i owns lock i; `waits` = (thread, lock) in order of arrival.
    fn youngest(waits: &[(u32, u32)]) -> Option<u32> {
        youngest_with(waits, &[])
    }

    /// `joins` = (thread, child); those that wait and those that join are looked at.
    fn youngest_with(waits: &[(u32, u32)], joins: &[(u32, u32)]) -> Option<u32> {
        let mut locks = Locks::default();
        for thread in 0..8 {
            locks.reserve(thread);
            let lock = locks.open(LockId(thread.into()));
            locks.own(thread, lock, Mode::Write);
        }
        for (thread, lock) in waits {
            let lock = locks.find(LockId((*lock).into())).unwrap();
            locks.enqueue(*thread, lock, Mode::Write);
        }
        let starts: Vec<u32> = waits.iter().chain(joins).map(|(thread, _)| *thread).collect();
        let child = |thread| joins.iter().find(|(joiner, _)| *joiner == thread).map(|(_, child)| *child);
        Cycles::default().youngest(&locks, &starts, 8, |thread| thread, child)
    }

    #[test]
    fn a_chain_is_no_cycle() {
        assert_eq!(youngest(&[(0, 1), (1, 2), (2, 3)]), None);
        assert_eq!(youngest(&[(0, 3), (1, 3), (2, 3)]), None, "a queue");
    }

    #[test]
    fn the_youngest_of_the_cycle_not_of_those_behind_it() {
        assert_eq!(youngest(&[(0, 1), (1, 0)]), Some(1));
        assert_eq!(youngest(&[(2, 3), (3, 5), (5, 2), (7, 2)]), Some(5), "7 waits for the cycle but is not on it");
        assert_eq!(youngest(&[(0, 1), (1, 0), (4, 6), (6, 4)]), Some(6), "two cycles, the youngest first");
    }

    #[test]
    fn the_way_leads_through_joins_but_who_joins_is_no_victim() {
        assert_eq!(youngest_with(&[(2, 7)], &[(7, 2)]), Some(2), "the child wants what its parent owns");
        assert_eq!(youngest_with(&[(2, 1)], &[(7, 2)]), None);
        assert_eq!(youngest_with(&[(1, 6), (2, 1)], &[(6, 2)]), Some(2));
    }

    #[test]
    fn the_way_leads_through_the_queue() {
        // 1 stands behind 6 at the lock of 3, and 3 waits for 1: all three wait for one another.
        assert_eq!(youngest(&[(6, 3), (1, 3), (3, 1)]), Some(6));
        assert_eq!(youngest(&[(1, 3), (6, 3), (3, 1)]), Some(3), "6 stands behind 1: nobody waits for it");
    }
}
