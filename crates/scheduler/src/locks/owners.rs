//! Who owns what. A hold is one thread's ownership of one lock; it stands in the lock's list and in the thread's.

use super::{Lock, LockIndex, Locks};
use crate::list::{LOOSE, Link, Linked};
use crate::{LockId, Mode};
use alloc::vec::Vec;

#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) thread: u32,
    pub(super) lock: LockIndex,
    links: [Link; 2],
}

/// The sides of a hold.
pub(super) const BY_LOCK: usize = 0;
const BY_THREAD: usize = 1;

impl<const SIDE: usize> Linked<SIDE> for Vec<Hold> {
    #[inline]
    fn link(&self, node: u32) -> Link {
        self[node as usize].links[SIDE]
    }

    #[inline]
    fn link_mut(&mut self, node: u32) -> &mut Link {
        &mut self[node as usize].links[SIDE]
    }
}

/// What asking for a lock comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Acquired {
    /// It is owned.
    Owned(Past),
    /// The thread owns it already.
    Already,
    /// Somebody stands against it.
    Busy(LockIndex),
}

/// What a new owner is told of the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Past {
    /// How many writers there were before.
    pub(crate) writers_before: u64,
    /// The greatest `now` that an exclusive owner had at its release.
    pub(crate) carried: u64,
}

impl Locks {
    /// The thread becomes an owner, if nobody stands against it.
    #[inline]
    pub(crate) fn acquire(&mut self, thread: u32, id: LockId, mode: Mode) -> Acquired {
        let lock = self.open(id);
        let entry = self.lock(lock);
        if entry.owner_count > 0 && self.hold(thread, lock).is_some() {
            return Acquired::Already;
        }
        match entry.admits(mode) {
            true => Acquired::Owned(self.own(thread, lock, mode)),
            false => Acquired::Busy(lock),
        }
    }

    /// Whether the lock can be owned at once.
    pub(crate) fn admits(&self, lock: LockIndex, mode: Mode) -> bool {
        self.lock(lock).admits(mode)
    }

    /// How the thread owns the lock, if it does.
    pub(crate) fn owned_as(&self, thread: u32, lock: LockIndex) -> Option<Mode> {
        self.hold(thread, lock).map(|_| self.lock(lock).mode)
    }

    /// The thread becomes an owner.
    #[inline]
    pub(crate) fn own(&mut self, thread: u32, lock: LockIndex, mode: Mode) -> Past {
        self.add_owner(thread, lock, mode);
        self.count_writer(lock, mode)
    }

    #[inline]
    pub(super) fn add_owner(&mut self, thread: u32, lock: LockIndex, mode: Mode) -> u32 {
        let new = Hold { thread, lock, links: [LOOSE; 2] };
        let hold = match self.free_holds.pop() {
            Some(free) => {
                self.holds[free as usize] = new;
                free
            }
            None => {
                self.holds.push(new);
                self.holds.len() as u32 - 1
            }
        };
        let entry = &mut self.locks[lock.0 as usize];
        assert!(entry.owner_count == 0 || mode == Mode::Read && entry.mode == Mode::Read, "a writer owns a lock alone");
        entry.mode = mode;
        entry.owner_count += 1;
        entry.owners.push_back::<BY_LOCK>(&mut self.holds, hold);
        let seat = &mut self.seats[thread as usize];
        seat.owned_count += 1;
        seat.owned.push_back::<BY_THREAD>(&mut self.holds, hold);
        hold
    }

    /// An owner goes on with the lock.
    #[inline]
    pub(super) fn count_writer(&mut self, lock: LockIndex, mode: Mode) -> Past {
        let forgotten = self.forgotten;
        let entry = &mut self.locks[lock.0 as usize];
        let past = Past { writers_before: entry.writers, carried: entry.carried.max(forgotten) };
        entry.writers += u64::from(mode == Mode::Write);
        past
    }

    /// The thread, at its own time `now`, gives the lock back. `None`: it does not own it. Whether somebody queues there.
    #[inline]
    pub(crate) fn release(&mut self, thread: u32, lock: LockIndex, now: u64) -> Option<bool> {
        let hold = self.hold(thread, lock)?;
        self.remove_owner(hold);
        if self.lock(lock).mode == Mode::Write {
            self.carry(lock, now);
        }
        Some(!self.lock(lock).queue.is_empty())
    }

    /// Whoever owns the lock next has at least this time.
    #[inline]
    pub(crate) fn carry(&mut self, lock: LockIndex, now: u64) {
        let entry = &mut self.locks[lock.0 as usize];
        entry.carried = entry.carried.max(now);
    }

    #[inline]
    pub(super) fn remove_owner(&mut self, hold: u32) {
        let Hold { thread, lock, .. } = self.holds[hold as usize];
        let seat = &mut self.seats[thread as usize];
        seat.owned_count -= 1;
        seat.owned.remove::<BY_THREAD>(&mut self.holds, hold);
        let entry = &mut self.locks[lock.0 as usize];
        entry.owner_count -= 1;
        entry.owners.remove::<BY_LOCK>(&mut self.holds, hold);
        self.free_holds.push(hold);
        if !entry.blocked.is_empty() && !entry.released {
            entry.released = true;
            self.released.push(lock);
        }
        if entry.owner_count == 0 && !entry.listed {
            entry.listed = true;
            self.unowned.push(lock);
        }
    }

    /// The lock that the thread acquired first of those it owns.
    pub(crate) fn first_owned(&self, thread: u32) -> Option<LockIndex> {
        self.seats[thread as usize].owned.first().map(|hold| self.holds[hold as usize].lock)
    }

    /// What the thread owns, in order of acquisition.
    pub(crate) fn owned(&self, thread: u32) -> impl Iterator<Item = (LockId, Mode)> + '_ {
        self.seats[thread as usize].owned.iter::<BY_THREAD, _>(&self.holds).map(|hold| {
            let lock = self.lock(self.holds[hold as usize].lock);
            (lock.id, lock.mode)
        })
    }

    pub(crate) fn owners(&self, lock: LockIndex) -> impl Iterator<Item = u32> + '_ {
        self.lock(lock).owners.iter::<BY_LOCK, _>(&self.holds).map(|hold| self.holds[hold as usize].thread)
    }

    /// Searches the shorter of the lock's owners and the thread's locks.
    #[inline]
    fn hold(&self, thread: u32, lock: LockIndex) -> Option<u32> {
        let (entry, seat) = (self.lock(lock), &self.seats[thread as usize]);
        if entry.owner_count <= seat.owned_count {
            let mut owners = entry.owners.iter::<BY_LOCK, _>(&self.holds);
            owners.find(|hold| self.holds[*hold as usize].thread == thread)
        } else {
            let mut owned = seat.owned.iter::<BY_THREAD, _>(&self.holds);
            owned.find(|hold| self.holds[*hold as usize].lock == lock)
        }
    }
}

impl Lock {
    /// Write: it is free and nobody queues. Read: it is free, or only readers own it, nobody queues and no writer is
    /// blocked on it.
    #[inline]
    fn admits(&self, mode: Mode) -> bool {
        self.queue.is_empty()
            && (self.owner_count == 0 || mode == Mode::Read && self.mode == Mode::Read && self.blocked_writers == 0)
    }
}
