//! Who owns which lock, who stands where at it: the bookkeeping that both policies share. Decides nothing about turns.
//!
//! ```text
//!   LockId ──> Lock   owners  ──  Hold ── Hold           (each Hold stands in its lock's list and in its thread's)
//!                     queue   ──  thread ── ticket       FIFO of those that took their step and wait for an unlock,
//!                                                        and of tickets
//!                     blocked ──  thread                 waits for a lock whose owner is parked
//!                     wait queues by QueueId ── thread   condition variables
//! ```
//! Invariants: all owners of a lock own it alike, a writer alone. A thread stands at one place at most. A lock has an
//! entry while somebody owns it or stands at it, and a bounded number have one beyond that, so memory follows the locks
//! in use and not those that exist.
//!
//! **Time.** A lock carries the greatest `now` of its exclusive owners at their release, and whoever comes to own it takes
//! the maximum; so time never runs backwards between exclusive owners. That value outlives the owners, but not without a
//! bound: `forgotten` is a value that every lock carries at least. It rises, between two rounds, to the greatest value of
//! an idle lock when there are too many idle locks with a value above it, or when the round's `now` has come that far.
//! Sound, because no value is lost but replaced by a greater one, and the greater one is a time that an ordered entry
//! has had already. Exact in the second case, because every later owner has that time anyway. Deterministic, because the
//! locks in use and the values at the end of a round are.
//! Every operation costs O(1) or O(log) (looking for one reader among many: the shorter of two lists).

mod index;
mod owners;
mod tickets;

use crate::family::ThreadId;
use crate::list::{Links, List};
use crate::trace::DigestWriter;
use crate::{LockId, Mode, QueueId};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use index::Index;
pub(crate) use owners::{Acquired, Past};
use owners::{BY_LOCK, Hold};
pub(crate) use tickets::{ByTicket, Grip, normalized};
use tickets::{Stage, Ticket, thread_node, ticket_node};

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
    /// Its ticket stands in the queue, the thread waits for it.
    Ticket(LockIndex),
}

/// Who goes on with a lock that was handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heir {
    /// It has left the queue and is to own the lock like this.
    Thread(u32, Mode),
    /// It owns the lock.
    Ticket(Grip),
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
    /// Greatest `now` of its exclusive owners at their release; outdated when it is below `Locks::forgotten`.
    carried: u64,
    /// Not merely kept for the next time.
    used: bool,
    /// Stands in `Locks::unowned`.
    listed: bool,
    /// Stands in `Locks::released`.
    released: bool,
}

#[derive(Clone, Debug)]
struct Seat {
    place: Place,
    wants: Mode,
    owned: List,
    owned_count: u32,
    tickets: Vec<u32>,
}

const EMPTY_SEAT: Seat =
    Seat { place: Place::Nowhere, wants: Mode::Write, owned: List::EMPTY, owned_count: 0, tickets: Vec::new() };

/// All locks in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locks {
    index: Index,
    locks: Vec<Lock>,
    /// Locks with `used`.
    in_use: usize,
    /// Locks without `used` that carry more than `forgotten`. Invariant: at most `REMEMBERED_MAX` after a sweep.
    remembered: usize,
    /// The greatest value that an idle lock has carried.
    latest: u64,
    /// Every lock carries at least this.
    forgotten: u64,
    free_locks: Vec<u32>,
    holds: Vec<Hold>,
    free_holds: Vec<u32>,
    seats: Vec<Seat>,
    tickets: Vec<Ticket>,
    free_tickets: Vec<u32>,
    /// Of everything that stands at a lock; nodes are numbered as in `tickets`.
    links: Links,
    wait_queues: BTreeMap<(LockId, QueueId), List>,
    /// Locks that lost their last owner or waiter since the last sweep: only they can be idle.
    unowned: Vec<LockIndex>,
    /// Threads that wait for one ticket and came to own, by another, a lock where somebody is blocked: that may have
    /// closed a cycle.
    pub(crate) cornered: Vec<u32>,
    /// Locks with blocked threads that were released since the last `take_released`.
    released: Vec<LockIndex>,
}

impl Locks {
    /// Makes room for a thread.
    pub(crate) fn reserve(&mut self, thread: u32) {
        let count = thread as usize + 1;
        if self.seats.len() < count {
            self.seats.resize(count, EMPTY_SEAT);
            self.links.reserve(thread_node(thread) as usize + 1);
        }
    }

    #[inline]
    pub(crate) fn find(&self, id: LockId) -> Option<LockIndex> {
        self.index.find(id, &self.locks)
    }

    /// The lock's entry, made when it has none. The caller owns it or stands at it next.
    #[inline]
    pub(crate) fn open(&mut self, id: LockId) -> LockIndex {
        let lock = match self.find(id) {
            Some(lock) => lock,
            None => self.make(id),
        };
        let entry = &mut self.locks[lock.0 as usize];
        if !entry.used {
            entry.used = true;
            self.in_use += 1;
            self.remembered -= usize::from(entry.carried > self.forgotten);
        }
        lock
    }

    fn make(&mut self, id: LockId) -> LockIndex {
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
            carried: 0,
            used: false,
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

    // -- the queue

    pub(crate) fn enqueue(&mut self, thread: u32, lock: LockIndex, mode: Mode) {
        let seat = &mut self.seats[thread as usize];
        assert_eq!(seat.place, Place::Nowhere, "a thread stands at one place at most");
        seat.place = Place::Queue(lock);
        seat.wants = mode;
        self.locks[lock.0 as usize].queue.push_back(&mut self.links, thread_node(thread));
    }

    /// The first in the queue leaves it if nobody stands against it: if no owner is left, or if it reads like the
    /// owners. Then a thread must also find no writer blocked at the lock: it would not have been let in without a
    /// queue either, and whether there was a queue when it came depends on when an unlock happened. To be called until
    /// there is none.
    #[inline]
    pub(crate) fn heir(&mut self, lock: LockIndex) -> Option<Heir> {
        loop {
            let entry = self.lock(lock);
            let first = entry.queue.first()?;
            let follows =
                |mode, passes: bool| entry.owner_count == 0 || mode == Mode::Read && entry.mode == Mode::Read && passes;
            match node(first) {
                Node::Ticket(at) if follows(self.tickets[at as usize].mode, true) => {
                    // One that nobody waits for yet is reserved, and the next one looked at.
                    if let Some(grip) = self.reserve_ticket(at) {
                        return Some(Heir::Ticket(grip));
                    }
                }
                Node::Thread(thread) if follows(self.seats[thread as usize].wants, entry.blocked_writers == 0) => {
                    self.leave(thread);
                    return Some(Heir::Thread(thread, self.seats[thread as usize].wants));
                }
                _ => return None,
            }
        }
    }

    // -- threads blocked behind a parked owner

    pub(crate) fn block(&mut self, thread: u32, lock: LockIndex, mode: Mode) {
        let seat = &mut self.seats[thread as usize];
        assert_eq!(seat.place, Place::Nowhere, "a thread stands at one place at most");
        seat.place = Place::Blocked(lock);
        seat.wants = mode;
        let entry = &mut self.locks[lock.0 as usize];
        entry.blocked.push_back(&mut self.links, thread_node(thread));
        entry.blocked_writers += u32::from(mode == Mode::Write);
    }

    pub(crate) fn blocked(&self, lock: LockIndex) -> impl Iterator<Item = u32> + '_ {
        self.lock(lock).blocked.iter(&self.links).map(|at| self.thread_at(at))
    }

    /// Whether the end of the round frees blocked threads.
    pub(crate) fn any_released(&self) -> bool {
        !self.released.is_empty()
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
        self.wait_queues
            .entry((entry.id, queue))
            .or_insert(List::EMPTY)
            .push_back(&mut self.links, thread_node(thread));
    }

    pub(crate) fn first_waiter(&self, lock: LockIndex, queue: QueueId) -> Option<u32> {
        let lock = self.lock(lock);
        if lock.waiters == 0 {
            return None; // a notify that nobody waits for costs nothing
        }
        self.wait_queues.get(&(lock.id, queue)).and_then(List::first).map(|at| self.thread_at(at))
    }

    /// The thread leaves the place where it stands.
    pub(crate) fn leave(&mut self, thread: u32) {
        let place = core::mem::replace(&mut self.seats[thread as usize].place, Place::Nowhere);
        match place {
            Place::Nowhere | Place::Ticket(_) => {}
            Place::Queue(lock) => self.locks[lock.0 as usize].queue.remove(&mut self.links, thread_node(thread)),
            Place::Blocked(lock) => {
                let wants = self.seats[thread as usize].wants;
                let entry = &mut self.locks[lock.0 as usize];
                entry.blocked.remove(&mut self.links, thread_node(thread));
                entry.blocked_writers -= u32::from(wants == Mode::Write);
            }
            Place::Waiting(lock, queue) => {
                let entry = &mut self.locks[lock.0 as usize];
                entry.waiters -= 1;
                let key = (entry.id, queue);
                let list = self.wait_queues.get_mut(&key).expect("a waiter stands in a wait queue");
                list.remove(&mut self.links, thread_node(thread));
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

    /// Whom the thread waits for directly: who stands in front of it, else the owners. A thread or a waiting ticket in
    /// front waits for all that stand in front of it; who waits elsewhere does not, so the way leads on past its ticket.
    pub(crate) fn waits_for(&self, thread: u32, into: &mut Vec<u32>) {
        let (lock, mut at) = match self.place(thread) {
            Place::Nowhere | Place::Waiting(..) => return,
            Place::Blocked(lock) => return into.extend(self.owners(lock)),
            Place::Queue(lock) => (lock, thread_node(thread)),
            Place::Ticket(lock) => {
                let ticket = self.ticket(thread, self.id(lock)).expect("it waits for its ticket");
                (lock, ticket_node(ticket))
            }
        };
        while let Some(ahead) = self.links.previous(at) {
            let thread = self.thread_at(ahead);
            into.push(thread);
            if matches!(self.place(thread), Place::Queue(place) | Place::Ticket(place) if place == lock) {
                return;
            }
            at = ahead;
        }
        into.extend(self.owners(lock));
    }

    fn thread_at(&self, at: u32) -> u32 {
        match node(at) {
            Node::Thread(thread) => thread,
            Node::Ticket(ticket) => self.tickets[ticket as usize].thread,
        }
    }

    // -- entries come and go

    /// Forgets the locks that nobody owns and where nobody stands, but for the time that they carry, if that is after
    /// `now`, which every later owner has. Their entries are kept for the next time, up to a number: most locks come
    /// again soon.
    pub(crate) fn sweep(&mut self, now: u64) {
        while let Some(lock) = self.unowned.pop() {
            let entry = &mut self.locks[lock.0 as usize];
            entry.listed = false;
            let idle =
                entry.owner_count == 0 && entry.waiters == 0 && entry.queue.is_empty() && entry.blocked.is_empty();
            if idle {
                entry.used = false;
                entry.writers = 0;
                self.in_use -= 1;
                if entry.carried > self.forgotten {
                    self.remembered += 1;
                    self.latest = self.latest.max(entry.carried);
                }
            }
        }
        if self.remembered > REMEMBERED_MAX || self.latest <= now {
            self.forgotten = self.forgotten.max(self.latest);
            self.remembered = 0;
        }
        if self.index.live > KEPT_IDLE + 2 * self.in_use + self.remembered {
            self.drop_idle();
        }
        if self.in_use == 0 && self.locks.len() > KEPT_ENTRIES {
            self.forget_peak();
        }
    }

    /// As many came into use since the last time as are looked at.
    fn drop_idle(&mut self) {
        for at in 0..self.locks.len() as u32 {
            let entry = &self.locks[at as usize];
            if !entry.used && entry.carried <= self.forgotten && !self.is_free(at) {
                self.index.remove(LockIndex(at), &self.locks);
                self.free_locks.push(at);
            }
        }
    }

    /// Locks in use.
    pub(crate) fn len(&self) -> usize {
        self.in_use
    }

    pub(crate) fn digest(&self, digest: &mut DigestWriter, name: impl Fn(u32) -> ThreadId) {
        let mut used: Vec<&Lock> = self.locks.iter().filter(|lock| lock.used).collect();
        used.sort_unstable_by_key(|lock| lock.id);
        let sorted = |mut names: Vec<ThreadId>| {
            names.sort_unstable();
            names
        };
        digest.word(used.len() as u64);
        for lock in used {
            digest.lock(lock.id);
            digest.word(u64::from(lock.owner_count > 0 && lock.mode == Mode::Write));
            digest.words(&[lock.writers, lock.carried.max(self.forgotten)]);
            let owners = lock.owners.iter::<BY_LOCK, _>(&self.holds).map(|hold| name(self.holds[hold as usize].thread));
            digest.ids(&sorted(owners.collect()));
            digest.word(lock.queue.iter(&self.links).count() as u64);
            for at in lock.queue.iter(&self.links) {
                digest.id(name(self.thread_at(at)));
                digest.word(match node(at) {
                    Node::Thread(thread) => u64::from(self.seats[thread as usize].wants == Mode::Write),
                    Node::Ticket(ticket) => 2 + u64::from(self.tickets[ticket as usize].mode == Mode::Write),
                });
            }
            digest.ids(&sorted(lock.blocked.iter(&self.links).map(|at| name(self.thread_at(at))).collect()));
        }
        let mut remembered: Vec<&Lock> = self.remembered().collect();
        remembered.sort_unstable_by_key(|lock| lock.id);
        digest.words(&[self.forgotten, self.latest, remembered.len() as u64]);
        for lock in remembered {
            digest.lock(lock.id);
            digest.word(lock.carried);
        }
        digest.word(self.wait_queues.len() as u64);
        for ((lock, queue), list) in &self.wait_queues {
            digest.lock(*lock);
            digest.word(queue.0);
            digest.ids(&list.iter(&self.links).map(|at| name(self.thread_at(at))).collect::<Vec<_>>());
        }
    }

    /// Asserts the module's invariants; O(locks in use).
    pub(crate) fn invariants(&self) {
        let mut owned_count = 0;
        for (at, lock) in self.locks.iter().enumerate() {
            if !lock.used {
                assert!(lock.owner_count == 0 && lock.waiters == 0 && lock.writers == 0);
                assert!(lock.queue.is_empty() && lock.blocked.is_empty());
                continue;
            }
            let index = LockIndex(at as u32);
            assert_eq!(self.find(lock.id), Some(index), "every lock in use is found");
            assert_eq!(self.owners(index).count(), lock.owner_count as usize);
            assert!(lock.owner_count <= 1 || lock.mode == Mode::Read, "a writer owns a lock alone");
            assert!(lock.owner_count > 0 || lock.queue.is_empty(), "nobody queues at a free lock");
            assert!(lock.queue.iter(&self.links).all(|at| match node(at) {
                Node::Thread(thread) => self.place(thread) == Place::Queue(index),
                Node::Ticket(ticket) => {
                    self.tickets[ticket as usize].lock == index && self.tickets[ticket as usize].stage == Stage::Queued
                }
            }));
            let blocked = |at| self.place(self.thread_at(at)) == Place::Blocked(index);
            assert!(lock.blocked.iter(&self.links).all(blocked));
            owned_count += lock.owner_count;
        }
        assert_eq!(self.remembered().count(), self.remembered);
        assert_eq!(owned_count, self.seats.iter().map(|seat| seat.owned_count).sum::<u32>(), "holds have two ends");
        assert_eq!(owned_count as usize, self.holds.len() - self.free_holds.len());
        assert!(self.wait_queues.values().all(|list| !list.is_empty()));
        let issued: usize = self.seats.iter().map(|seat| seat.tickets.len()).sum();
        assert_eq!(issued, self.tickets.len() - self.free_tickets.len(), "a ticket is its thread's");
    }

    #[inline]
    fn lock(&self, lock: LockIndex) -> &Lock {
        &self.locks[lock.0 as usize]
    }

    /// Idle locks whose time is not forgotten.
    fn remembered(&self) -> impl Iterator<Item = &Lock> {
        self.locks.iter().filter(|lock| !lock.used && lock.carried > self.forgotten)
    }

    fn is_free(&self, at: u32) -> bool {
        self.index.find(self.locks[at as usize].id, &self.locks) != Some(LockIndex(at))
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
        let remembered: Vec<(LockId, u64)> = self.remembered().map(|lock| (lock.id, lock.carried)).collect();
        let seats = core::mem::take(&mut self.seats);
        let mut links = Links::default();
        links.reserve(thread_node(seats.len() as u32) as usize);
        let Locks { latest, forgotten, .. } = *self;
        *self = Locks { seats, links, latest, forgotten, remembered: remembered.len(), ..Locks::default() };
        for (id, carried) in remembered {
            let LockIndex(at) = self.make(id);
            self.locks[at as usize].carried = carried;
        }
    }
}

/// What stands at a lock.
enum Node {
    Thread(u32),
    Ticket(u32),
}

fn node(at: u32) -> Node {
    if at.is_multiple_of(2) { Node::Thread(at / 2) } else { Node::Ticket(at / 2) }
}

/// Above so many entries an empty table gives its memory back: a few hundred KiB are kept for the next burst.
const KEPT_ENTRIES: usize = 4096;

/// So many entries are kept of locks that are not in use: they fit the nearest cache.
const KEPT_IDLE: usize = 256;

/// So many idle locks keep a time of their own: they fit the second cache, and a digest of them takes microseconds. With
/// more, all carry the greatest.
const REMEMBERED_MAX: usize = 1024;

const _: () = assert!(REMEMBERED_MAX + KEPT_IDLE < KEPT_ENTRIES, "what is remembered is no peak");

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
        assert_eq!(locks.own(0, lock, Mode::Write).writers_before, 0);
        locks.enqueue(1, lock, Mode::Write);
        assert_eq!(locks.release(0, lock, 0), Some(true));
        assert_eq!(locks.heir(lock), Some(Heir::Thread(1, Mode::Write)));
        assert_eq!(locks.own(1, lock, Mode::Write).writers_before, 1, "one writer before");
        locks.sweep(0);
        assert_eq!(locks.len(), 1);
        locks.join_wait_queue(0, lock, QueueId(3));
        locks.release(1, lock, 0);
        locks.sweep(0);
        assert_eq!(locks.len(), 1, "somebody waits");
        assert_eq!(locks.first_waiter(lock, QueueId(3)), Some(0));
        assert_eq!(locks.first_waiter(lock, QueueId(0)), None);
        locks.leave(0);
        locks.invariants();
        locks.sweep(0);
        assert_eq!(locks.len(), 0);
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
        assert_eq!([1, 2, 0].map(|thread| locks.release(thread, lock, 0)), [None, Some(true), Some(true)]);
        assert!(!locks.admits(lock, Mode::Read), "the writer in the queue is first");
    }

    #[test]
    fn colliding_ids_are_found_all_the_same() {
        let mut locks = locks(1);
        // The bucket sees `low * LOW ^ rotated high * HIGH`: here the two products are equal.
        let inverse = (0..6)
            .fold(1_u64, |inverse, _| inverse.wrapping_mul(2_u64.wrapping_sub(inverse.wrapping_mul(index::HIGH))));
        let colliding = |low: u64| {
            let high = low.wrapping_mul(index::LOW).wrapping_mul(inverse).rotate_left(32);
            LockId(u128::from(high) << 64 | u128::from(low))
        };
        let opened: Vec<_> = (1..500).map(|half| locks.open(colliding(half))).collect();
        for (lock, half) in opened.iter().zip(1..) {
            assert_eq!(locks.find(colliding(half)), Some(*lock));
            locks.own(0, *lock, Mode::Write);
        }
        assert_eq!((locks.len(), locks.index.collided()), (499, 498), "all in one bucket");
        locks.invariants();
        while let Some(lock) = locks.first_owned(0) {
            locks.release(0, lock, 0);
        }
        locks.sweep(0);
        locks.invariants();
        assert_eq!(locks.len(), 0);
    }

    #[test]
    fn entries_of_idle_locks_are_kept_for_the_next_time_but_not_many() {
        let mut locks = locks(1);
        for id in 0..10_000 {
            let lock = locks.open(LockId(id % 3_000));
            assert_eq!(locks.own(0, lock, Mode::Write).writers_before, 0, "nothing is known of it");
            locks.release(0, lock, 0);
            locks.sweep(0);
            assert_eq!(locks.len(), 0);
            assert!(locks.index.live <= KEPT_IDLE);
        }
        assert!(locks.locks.len() <= KEPT_IDLE + 1);
        locks.invariants();
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
            locks.release(0, lock, 0);
        }
        locks.sweep(0);
        assert_eq!((locks.locks.capacity(), locks.holds.capacity(), locks.index.direct.capacity()), (0, 0, 0));
        let lock = locks.open(LockId(3));
        assert_eq!(locks.own(0, lock, Mode::Write).writers_before, 0);
        locks.invariants();
    }

    /// A writer owns the lock and gives it back at this time.
    fn write_at(locks: &mut Locks, id: u128, now: u64) {
        let lock = locks.open(LockId(id));
        locks.own(0, lock, Mode::Write);
        locks.release(0, lock, now);
    }

    /// What the next owner of the lock is told.
    fn carried(locks: &mut Locks, id: u128) -> u64 {
        let lock = locks.open(LockId(id));
        let carried = locks.own(0, lock, Mode::Read).carried;
        locks.release(0, lock, 99_999);
        carried
    }

    #[test]
    fn a_lock_carries_the_greatest_time_of_those_who_owned_it_alone() {
        let mut locks = locks(1);
        assert_eq!(carried(&mut locks, 1), 0);
        write_at(&mut locks, 1, 30);
        write_at(&mut locks, 1, 20);
        assert_eq!(carried(&mut locks, 1), 30);
        assert_eq!(carried(&mut locks, 1), 30, "readers leave nothing, however late they are");
        locks.sweep(10);
        assert_eq!((locks.len(), carried(&mut locks, 1)), (0, 30), "idle, and later than any owner to come must be");
        assert_eq!(carried(&mut locks, 2), 0);
        locks.invariants();
        locks.sweep(30);
        assert_eq!((locks.remembered, locks.forgotten), (0, 30), "whoever comes has that time: nothing to remember");
        locks.invariants();
    }

    #[test]
    fn too_many_times_to_remember_become_one() {
        let mut locks = locks(1);
        for id in 0..REMEMBERED_MAX as u128 {
            write_at(&mut locks, id, 1_000 + id as u64);
            locks.sweep(5);
            locks.invariants();
        }
        assert_eq!([0, 7, 5_000].map(|id| carried(&mut locks, id)), [1_000, 1_007, 0], "each its own");
        locks.sweep(5);
        write_at(&mut locks, 5_001, 900);
        locks.sweep(5);
        locks.invariants();
        let greatest = 999 + REMEMBERED_MAX as u64;
        assert_eq!([0, 7, 5_000].map(|id| carried(&mut locks, id)), [greatest; 3], "none has become earlier");
        assert_eq!(locks.remembered, 0);
        write_at(&mut locks, 1, greatest + 1);
        locks.sweep(5);
        assert_eq!([1, 2].map(|id| carried(&mut locks, id)), [greatest + 1, greatest]);
    }

    #[test]
    fn times_outlive_the_memory_of_a_peak() {
        let mut locks = locks(1);
        for id in 0..2 * KEPT_ENTRIES as u128 {
            let lock = locks.open(LockId(id));
            locks.own(0, lock, if id < 9 { Mode::Write } else { Mode::Read });
        }
        while let Some(lock) = locks.first_owned(0) {
            let now = 100 + locks.id(lock).0 as u64;
            locks.release(0, lock, now);
        }
        locks.sweep(5);
        locks.invariants();
        assert!(locks.locks.len() < KEPT_ENTRIES, "given back");
        assert_eq!([0, 8, 9].map(|id| carried(&mut locks, id)), [100, 108, 0]);
    }

    #[test]
    fn two_that_remember_other_times_differ() {
        let digest = |times: &[(u128, u64)]| {
            let mut locks = locks(1);
            times.iter().for_each(|(id, now)| write_at(&mut locks, *id, *now));
            locks.sweep(5);
            let mut digest = DigestWriter::new("test");
            locks.digest(&mut digest, |_| unreachable!("nobody is there"));
            digest.finish()
        };
        assert_eq!(digest(&[(1, 10), (2, 20)]), digest(&[(2, 20), (1, 9), (1, 10)]));
        for other in [&[(1, 11), (2, 20)], &[(1, 10), (3, 20)], &[(1, 20), (2, 20)]] {
            assert_ne!(digest(&[(1, 10), (2, 20)]), digest(other), "{other:?}");
        }
    }
}
