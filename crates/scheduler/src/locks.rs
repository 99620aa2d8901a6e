//! Who owns which lock, who stands where at it: the bookkeeping that both policies share. Decides nothing about turns.
//!
//! ```text
//!   LockId ──> Lock   owners  ──  Hold ── Hold           (each Hold stands in its lock's list and in its thread's)
//!                     queue   ──  thread ── thread       FIFO of those that took their step and wait for an unlock
//!                     blocked ──  thread                 waits for a lock whose owner is parked
//!                     wait queues by QueueId ── thread   condition variables
//! ```
//! Invariants: all owners of a lock own it alike, a writer alone. A thread stands at one place at most. A lock has an
//! entry while somebody owns it or stands at it, so memory follows the locks in use and not those that exist.
//! Every operation costs O(1) or O(log) (looking for one reader among many: the shorter of two lists).

use crate::family::ThreadId;
use crate::list::{Links, List, NONE};
use crate::trace::DigestWriter;
use crate::{LockId, Mode, QueueId};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Names the entry of a lock in use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct LockIndex(u32);

/// Where a thread stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Nowhere,
    Queue(LockIndex),
    Blocked(LockIndex),
    Waiting(LockIndex, QueueId),
}

#[derive(Clone, Debug)]
struct Lock {
    id: LockId,
    /// How the owners own it; meaningless without owners.
    mode: Mode,
    owner_count: u32,
    owners: List,
    queue: List,
    blocked: List,
    blocked_writers: u32,
    waiters: u32,
    /// Writers since it came into use.
    writers: u64,
    /// Stands in `Locks::unowned`.
    listed: bool,
    /// Stands in `Locks::released`.
    released: bool,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    thread: u32,
    lock: LockIndex,
}

#[derive(Clone, Copy, Debug)]
struct Seat {
    place: Place,
    wants: Mode,
    owned: List,
    owned_count: u32,
}

const EMPTY_SEAT: Seat = Seat { place: Place::Nowhere, wants: Mode::Write, owned: List::EMPTY, owned_count: 0 };

/// All locks in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locks {
    index: Index,
    locks: Vec<Lock>,
    free_locks: Vec<u32>,
    holds: Vec<Hold>,
    free_holds: Vec<u32>,
    holds_by_lock: Links,
    holds_by_thread: Links,
    seats: Vec<Seat>,
    seat_links: Links,
    wait_queues: BTreeMap<(LockId, QueueId), List>,
    /// Locks that lost their last owner or waiter since the last sweep: only they can be idle.
    unowned: Vec<LockIndex>,
    /// Locks with blocked threads that were released since the last `take_released`.
    released: Vec<LockIndex>,
}

impl Locks {
    /// Makes room for a thread.
    pub(crate) fn reserve(&mut self, thread: u32) {
        let count = thread as usize + 1;
        if self.seats.len() < count {
            self.seats.resize(count, EMPTY_SEAT);
            self.seat_links.reserve(count);
        }
    }

    pub(crate) fn find(&self, id: LockId) -> Option<LockIndex> {
        self.index.find(id, &self.locks)
    }

    /// The lock's entry, made when it has none. The caller owns it or stands at it next.
    pub(crate) fn open(&mut self, id: LockId) -> LockIndex {
        if let Some(lock) = self.find(id) {
            return lock;
        }
        let fresh = Lock {
            id,
            mode: Mode::Write,
            owner_count: 0,
            owners: List::EMPTY,
            queue: List::EMPTY,
            blocked: List::EMPTY,
            blocked_writers: 0,
            waiters: 0,
            writers: 0,
            listed: false,
            released: false,
        };
        let lock = match self.free_locks.pop() {
            Some(free) => {
                self.locks[free as usize] = fresh;
                LockIndex(free)
            }
            None => {
                self.locks.push(fresh);
                LockIndex(self.locks.len() as u32 - 1)
            }
        };
        self.index.insert(lock, &self.locks);
        lock
    }

    pub(crate) fn id(&self, lock: LockIndex) -> LockId {
        self.lock(lock).id
    }

    /// How the thread owns the lock, if it does.
    pub(crate) fn owned_as(&self, thread: u32, lock: LockIndex) -> Option<Mode> {
        self.hold(thread, lock).map(|_| self.lock(lock).mode)
    }

    pub(crate) fn is_owned(&self, lock: LockIndex) -> bool {
        self.lock(lock).owner_count > 0
    }

    /// Whether the lock can be owned at once. Write: it is free and nobody queues. Read: it is free, or only readers
    /// own it, nobody queues and no writer is blocked on it.
    pub(crate) fn admits(&self, lock: LockIndex, mode: Mode) -> bool {
        let lock = self.lock(lock);
        lock.queue.is_empty()
            && (lock.owner_count == 0 || mode == Mode::Read && lock.mode == Mode::Read && lock.blocked_writers == 0)
    }

    /// The thread becomes an owner; says how many writers there were before.
    pub(crate) fn own(&mut self, thread: u32, lock: LockIndex, mode: Mode) -> u64 {
        let hold = self.new_hold(Hold { thread, lock });
        let entry = &mut self.locks[lock.0 as usize];
        assert!(entry.owner_count == 0 || mode == Mode::Read && entry.mode == Mode::Read, "a writer owns a lock alone");
        let writers_before = entry.writers;
        entry.writers += u64::from(mode == Mode::Write);
        entry.mode = mode;
        entry.owner_count += 1;
        entry.owners.push_back(&mut self.holds_by_lock, hold);
        let seat = &mut self.seats[thread as usize];
        seat.owned_count += 1;
        seat.owned.push_back(&mut self.holds_by_thread, hold);
        writers_before
    }

    /// The thread gives the lock back; false when it does not own it.
    pub(crate) fn release(&mut self, thread: u32, lock: LockIndex) -> bool {
        let Some(hold) = self.hold(thread, lock) else { return false };
        let seat = &mut self.seats[thread as usize];
        seat.owned_count -= 1;
        seat.owned.remove(&mut self.holds_by_thread, hold);
        let entry = &mut self.locks[lock.0 as usize];
        entry.owner_count -= 1;
        entry.owners.remove(&mut self.holds_by_lock, hold);
        self.free_holds.push(hold);
        if !entry.blocked.is_empty() && !entry.released {
            entry.released = true;
            self.released.push(lock);
        }
        self.list_if_unowned(lock);
        true
    }

    /// The lock that the thread acquired first of those it owns.
    pub(crate) fn first_owned(&self, thread: u32) -> Option<LockIndex> {
        self.seats[thread as usize].owned.first().map(|hold| self.holds[hold as usize].lock)
    }

    /// What the thread owns, in order of acquisition.
    pub(crate) fn owned(&self, thread: u32) -> impl Iterator<Item = (LockId, Mode)> + '_ {
        self.seats[thread as usize].owned.iter(&self.holds_by_thread).map(|hold| {
            let lock = self.lock(self.holds[hold as usize].lock);
            (lock.id, lock.mode)
        })
    }

    pub(crate) fn owners(&self, lock: LockIndex) -> impl Iterator<Item = u32> + '_ {
        self.lock(lock).owners.iter(&self.holds_by_lock).map(|hold| self.holds[hold as usize].thread)
    }

    // -- the queue

    pub(crate) fn enqueue(&mut self, thread: u32, lock: LockIndex, mode: Mode) {
        let seat = &mut self.seats[thread as usize];
        assert_eq!(seat.place, Place::Nowhere, "a thread stands at one place at most");
        seat.place = Place::Queue(lock);
        seat.wants = mode;
        self.locks[lock.0 as usize].queue.push_back(&mut self.seat_links, thread);
    }

    /// First in the queue.
    pub(crate) fn front(&self, lock: LockIndex) -> Option<(u32, Mode)> {
        self.lock(lock).queue.first().map(|thread| (thread, self.seats[thread as usize].wants))
    }

    pub(crate) fn is_read(&self, lock: LockIndex) -> bool {
        let lock = self.lock(lock);
        lock.owner_count > 0 && lock.mode == Mode::Read
    }

    // -- threads blocked behind a parked owner

    pub(crate) fn block(&mut self, thread: u32, lock: LockIndex, mode: Mode) {
        let seat = &mut self.seats[thread as usize];
        assert_eq!(seat.place, Place::Nowhere, "a thread stands at one place at most");
        seat.place = Place::Blocked(lock);
        seat.wants = mode;
        let entry = &mut self.locks[lock.0 as usize];
        entry.blocked.push_back(&mut self.seat_links, thread);
        entry.blocked_writers += u32::from(mode == Mode::Write);
    }

    pub(crate) fn blocked(&self, lock: LockIndex) -> impl Iterator<Item = u32> + '_ {
        self.lock(lock).blocked.iter(&self.seat_links)
    }

    /// The locks with blocked threads that were released since the last call, in order of their ids.
    pub(crate) fn take_released(&mut self, into: &mut Vec<LockIndex>) {
        into.clear();
        into.append(&mut self.released);
        for lock in into.iter() {
            self.locks[lock.0 as usize].released = false;
        }
        into.sort_unstable_by_key(|lock| self.id(*lock));
    }

    // -- wait queues

    pub(crate) fn join_wait_queue(&mut self, thread: u32, lock: LockIndex, queue: QueueId) {
        let seat = &mut self.seats[thread as usize];
        assert_eq!(seat.place, Place::Nowhere, "a thread stands at one place at most");
        seat.place = Place::Waiting(lock, queue);
        let entry = &mut self.locks[lock.0 as usize];
        entry.waiters += 1;
        self.wait_queues.entry((entry.id, queue)).or_insert(List::EMPTY).push_back(&mut self.seat_links, thread);
    }

    pub(crate) fn first_waiter(&self, lock: LockIndex, queue: QueueId) -> Option<u32> {
        let lock = self.lock(lock);
        if lock.waiters == 0 {
            return None; // a notify that nobody waits for costs nothing
        }
        self.wait_queues.get(&(lock.id, queue)).and_then(List::first)
    }

    /// The thread leaves the place where it stands.
    pub(crate) fn leave(&mut self, thread: u32) {
        let place = core::mem::replace(&mut self.seats[thread as usize].place, Place::Nowhere);
        match place {
            Place::Nowhere => {}
            Place::Queue(lock) => self.locks[lock.0 as usize].queue.remove(&mut self.seat_links, thread),
            Place::Blocked(lock) => {
                let wants = self.seats[thread as usize].wants;
                let entry = &mut self.locks[lock.0 as usize];
                entry.blocked.remove(&mut self.seat_links, thread);
                entry.blocked_writers -= u32::from(wants == Mode::Write);
            }
            Place::Waiting(lock, queue) => {
                let entry = &mut self.locks[lock.0 as usize];
                entry.waiters -= 1;
                let key = (entry.id, queue);
                let list = self.wait_queues.get_mut(&key).expect("a waiter stands in a wait queue");
                list.remove(&mut self.seat_links, thread);
                if list.is_empty() {
                    self.wait_queues.remove(&key);
                }
                self.list_if_unowned(lock);
            }
        }
    }

    pub(crate) fn place(&self, thread: u32) -> Place {
        self.seats[thread as usize].place
    }

    /// Whom the thread waits for directly: who stands in front of it, else the owners.
    pub(crate) fn waits_for(&self, thread: u32, into: &mut Vec<u32>) {
        match self.place(thread) {
            Place::Nowhere | Place::Waiting(..) => {}
            Place::Queue(lock) => match self.seat_links.previous(thread) {
                Some(ahead) => into.push(ahead),
                None => into.extend(self.owners(lock)),
            },
            Place::Blocked(lock) => into.extend(self.owners(lock)),
        }
    }

    // -- entries come and go

    /// Drops the entries of locks that nobody owns and where nobody stands.
    pub(crate) fn sweep(&mut self) {
        while let Some(lock) = self.unowned.pop() {
            let entry = &mut self.locks[lock.0 as usize];
            entry.listed = false;
            let idle =
                entry.owner_count == 0 && entry.waiters == 0 && entry.queue.is_empty() && entry.blocked.is_empty();
            if idle {
                self.index.remove(lock, &self.locks);
                self.free_locks.push(lock.0);
            }
        }
        if self.index.live == 0 && self.locks.len() > KEPT_ENTRIES {
            self.forget_peak();
        }
    }

    /// Locks in use.
    pub(crate) fn len(&self) -> usize {
        self.index.live
    }

    pub(crate) fn digest(&self, digest: &mut DigestWriter, name: impl Fn(u32) -> ThreadId) {
        let mut used: Vec<&Lock> =
            self.locks.iter().enumerate().filter(|(at, _)| !self.is_free(*at as u32)).map(|(_, lock)| lock).collect();
        used.sort_unstable_by_key(|lock| lock.id);
        let sorted = |mut names: Vec<ThreadId>| {
            names.sort_unstable();
            names
        };
        digest.word(used.len() as u64);
        for lock in used {
            digest.lock(lock.id);
            digest.word(u64::from(lock.owner_count > 0 && lock.mode == Mode::Write));
            digest.word(lock.writers);
            let owners = lock.owners.iter(&self.holds_by_lock).map(|hold| name(self.holds[hold as usize].thread));
            digest.ids(&sorted(owners.collect()));
            digest.word(lock.queue.iter(&self.seat_links).count() as u64);
            for thread in lock.queue.iter(&self.seat_links) {
                digest.id(name(thread));
                digest.word(u64::from(self.seats[thread as usize].wants == Mode::Write));
            }
            digest.ids(&sorted(lock.blocked.iter(&self.seat_links).map(&name).collect()));
        }
        digest.word(self.wait_queues.len() as u64);
        for ((lock, queue), list) in &self.wait_queues {
            digest.lock(*lock);
            digest.word(queue.0);
            digest.ids(&list.iter(&self.seat_links).map(&name).collect::<Vec<_>>());
        }
    }

    /// Asserts the module's invariants; O(locks in use).
    pub(crate) fn invariants(&self) {
        let mut owned_count = 0;
        for (at, lock) in self.locks.iter().enumerate() {
            if self.is_free(at as u32) {
                continue;
            }
            let index = LockIndex(at as u32);
            assert_eq!(self.find(lock.id), Some(index), "every lock in use is found");
            assert_eq!(self.owners(index).count(), lock.owner_count as usize);
            assert!(lock.owner_count <= 1 || lock.mode == Mode::Read, "a writer owns a lock alone");
            assert!(lock.owner_count > 0 || lock.queue.is_empty(), "nobody queues at a free lock");
            assert!(lock.queue.iter(&self.seat_links).all(|thread| self.place(thread) == Place::Queue(index)));
            assert!(lock.blocked.iter(&self.seat_links).all(|thread| self.place(thread) == Place::Blocked(index)));
            owned_count += lock.owner_count;
        }
        assert_eq!(owned_count, self.seats.iter().map(|seat| seat.owned_count).sum::<u32>(), "holds have two ends");
        assert_eq!(owned_count as usize, self.holds.len() - self.free_holds.len());
        assert!(self.wait_queues.values().all(|list| !list.is_empty()));
    }

    fn lock(&self, lock: LockIndex) -> &Lock {
        &self.locks[lock.0 as usize]
    }

    fn is_free(&self, at: u32) -> bool {
        self.index.find(self.locks[at as usize].id, &self.locks) != Some(LockIndex(at))
    }

    /// Searches the shorter of the lock's owners and the thread's locks.
    fn hold(&self, thread: u32, lock: LockIndex) -> Option<u32> {
        let (entry, seat) = (self.lock(lock), &self.seats[thread as usize]);
        if entry.owner_count <= seat.owned_count {
            entry.owners.iter(&self.holds_by_lock).find(|hold| self.holds[*hold as usize].thread == thread)
        } else {
            seat.owned.iter(&self.holds_by_thread).find(|hold| self.holds[*hold as usize].lock == lock)
        }
    }

    fn new_hold(&mut self, hold: Hold) -> u32 {
        match self.free_holds.pop() {
            Some(free) => {
                self.holds[free as usize] = hold;
                free
            }
            None => {
                self.holds.push(hold);
                self.holds_by_lock.reserve(self.holds.len());
                self.holds_by_thread.reserve(self.holds.len());
                self.holds.len() as u32 - 1
            }
        }
    }

    fn list_if_unowned(&mut self, lock: LockIndex) {
        let entry = &mut self.locks[lock.0 as usize];
        if entry.owner_count == 0 && entry.waiters == 0 && !entry.listed {
            entry.listed = true;
            self.unowned.push(lock);
        }
    }

    /// Gives back the memory of a peak.
    fn forget_peak(&mut self) {
        assert!(self.holds.len() == self.free_holds.len(), "no lock in use, none owned");
        let seats = core::mem::take(&mut self.seats);
        let seat_links = core::mem::take(&mut self.seat_links);
        *self = Locks { seats, seat_links, ..Locks::default() };
    }
}

/// Above so many entries an empty table gives its memory back: a few hundred KiB are kept for the next burst.
const KEPT_ENTRIES: usize = 4096;

/// From [`LockId`] to entry: one probe of a table four times as large as the locks in use; ids that collide there go to
/// a map. So a lookup is O(1), and O(log) for ids that somebody chose to collide. Its layout decides nothing.
#[derive(Clone, Debug, Default)]
struct Index {
    /// A power of two, or empty.
    direct: Vec<u32>,
    collided: BTreeMap<LockId, u32>,
    live: usize,
}

const INDEX_SIZE_MIN: usize = 64;

impl Index {
    #[inline]
    fn find(&self, id: LockId, locks: &[Lock]) -> Option<LockIndex> {
        let at = *self.direct.get(self.bucket(id))?;
        if at != NONE && locks[at as usize].id == id {
            return Some(LockIndex(at));
        }
        if self.collided.is_empty() {
            return None;
        }
        self.collided.get(&id).copied().map(LockIndex)
    }

    /// The lock must not be in it.
    fn insert(&mut self, lock: LockIndex, locks: &[Lock]) {
        self.live += 1;
        if self.live * 4 > self.direct.len() {
            self.grow(locks);
        }
        self.place(lock.0, locks[lock.0 as usize].id);
    }

    /// The lock must be in it.
    fn remove(&mut self, lock: LockIndex, locks: &[Lock]) {
        let id = locks[lock.0 as usize].id;
        self.live -= 1;
        let bucket = self.bucket(id);
        if self.direct[bucket] == lock.0 {
            self.direct[bucket] = NONE;
        } else {
            self.collided.remove(&id).expect("a lock in use is in the index");
        }
    }

    fn place(&mut self, at: u32, id: LockId) {
        let bucket = self.bucket(id);
        match self.direct[bucket] {
            NONE => self.direct[bucket] = at,
            _ => drop(self.collided.insert(id, at)),
        }
    }

    fn grow(&mut self, locks: &[Lock]) {
        let size = (self.direct.len() * 2).max(INDEX_SIZE_MIN);
        let old = core::mem::replace(&mut self.direct, alloc::vec![NONE; size]);
        let collided = core::mem::take(&mut self.collided);
        for at in old.into_iter().filter(|at| *at != NONE).chain(collided.into_values()) {
            self.place(at, locks[at as usize].id);
        }
    }

    #[inline]
    fn bucket(&self, id: LockId) -> usize {
        let folded = (id.0 as u64) ^ ((id.0 >> 64) as u64).rotate_left(29);
        let mixed = folded.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> 32) as usize & self.direct.len().wrapping_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locks(threads: u32) -> Locks {
        let mut locks = Locks::default();
        (0..threads).for_each(|thread| locks.reserve(thread));
        locks
    }

    #[test]
    fn an_entry_lives_while_somebody_owns_or_stands() {
        let mut locks = locks(2);
        let lock = locks.open(LockId(5));
        assert_eq!(locks.own(0, lock, Mode::Write), 0);
        locks.enqueue(1, lock, Mode::Write);
        assert!(locks.release(0, lock));
        assert_eq!(locks.front(lock), Some((1, Mode::Write)));
        locks.leave(1);
        assert_eq!(locks.own(1, lock, Mode::Write), 1, "one writer before");
        locks.sweep();
        assert_eq!(locks.len(), 1);
        locks.join_wait_queue(0, lock, QueueId(3));
        locks.release(1, lock);
        locks.sweep();
        assert_eq!(locks.len(), 1, "somebody waits");
        assert_eq!(locks.first_waiter(lock, QueueId(3)), Some(0));
        assert_eq!(locks.first_waiter(lock, QueueId(0)), None);
        locks.leave(0);
        locks.invariants();
        locks.sweep();
        assert_eq!((locks.len(), locks.find(LockId(5))), (0, None));
    }

    #[test]
    fn readers_share_until_a_writer_queues_or_is_blocked() {
        let mut locks = locks(4);
        let lock = locks.open(LockId(1));
        locks.own(0, lock, Mode::Read);
        assert!(locks.admits(lock, Mode::Read) && !locks.admits(lock, Mode::Write));
        locks.block(1, lock, Mode::Write);
        assert!(!locks.admits(lock, Mode::Read));
        locks.leave(1);
        locks.own(2, lock, Mode::Read);
        locks.enqueue(3, lock, Mode::Write);
        assert!(!locks.admits(lock, Mode::Read));
        assert_eq!(locks.owners(lock).collect::<Vec<_>>(), [0, 2]);
        assert!(!locks.release(1, lock) && locks.release(2, lock) && locks.release(0, lock));
        assert!(!locks.admits(lock, Mode::Read), "the writer in the queue is first");
    }

    #[test]
    fn colliding_ids_are_found_all_the_same() {
        let mut locks = locks(1);
        // The bucket sees the two halves folded: equal halves, rotated, all fold to zero.
        let colliding = |half: u64| LockId((u128::from(half.rotate_right(29)) << 64) | u128::from(half));
        let opened: Vec<_> = (1..500).map(|half| locks.open(colliding(half))).collect();
        for (lock, half) in opened.iter().zip(1..) {
            assert_eq!(locks.find(colliding(half)), Some(*lock));
            locks.own(0, *lock, Mode::Write);
        }
        assert_eq!(locks.len(), 499);
        locks.invariants();
        while let Some(lock) = locks.first_owned(0) {
            locks.release(0, lock);
        }
        locks.sweep();
        locks.invariants();
        assert_eq!(locks.len(), 0);
    }

    #[test]
    fn the_memory_of_a_peak_is_given_back() {
        let mut locks = locks(1);
        for id in 0..10_000 {
            let lock = locks.open(LockId(id));
            locks.own(0, lock, Mode::Write);
        }
        assert_eq!(locks.owned(0).nth(9_999), Some((LockId(9_999), Mode::Write)));
        while let Some(lock) = locks.first_owned(0) {
            locks.release(0, lock);
        }
        locks.sweep();
        assert_eq!((locks.locks.capacity(), locks.holds.capacity(), locks.index.direct.capacity()), (0, 0, 0));
        let lock = locks.open(LockId(3));
        assert_eq!(locks.own(0, lock, Mode::Write), 0);
        locks.invariants();
    }
}
