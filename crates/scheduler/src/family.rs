//! Names of threads, and which children of whom have not been joined. Shared by both policies; decides nothing.
//!
//! ```text
//!   request 7            (7)
//!   its first child      (7, 1)           behind its parent
//!   that one's first     (7, 1, 1)        behind its parent, before its parent's next child
//!   its second child     (7, 2)
//! ```
//! A path has 8 places of 16 bits, from the left, 0 where it ends: so names compare as numbers do. That bounds how deep
//! a family goes and how many children one thread has in its life; beyond it a spawn is not possible, on every replica
//! alike, because a thread's own operations alone decide it.

use crate::trace::DigestWriter;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Bits of one place of a path.
const PLACE_BITS: u32 = 16;

/// A thread's deterministic name: place in the log, then the path of births. Threads are ordered by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ThreadId {
    position: u64,
    path: u128,
}

impl ThreadId {
    /// The thread of a request.
    pub(crate) const fn request(position: u64) -> Self {
        Self { position, path: 0 }
    }

    /// The thread that this path leads to. `None`: there can be none.
    pub(crate) fn of(position: u64, path: &[u16]) -> Option<Self> {
        path.iter().try_fold(Self::request(position), |id, number| id.child(*number))
    }

    pub(crate) const fn is_request(self) -> bool {
        self.path == 0
    }

    /// Its child number `number`, counted from 1. `None`: the family would be too deep, or the number is 0.
    pub(crate) const fn child(self, number: u16) -> Option<Self> {
        let free_bits = self.path.trailing_zeros() / PLACE_BITS * PLACE_BITS;
        if number == 0 || free_bits == 0 {
            return None;
        }
        Some(Self { position: self.position, path: self.path | (number as u128) << (free_bits - PLACE_BITS) })
    }

    /// Its parent, and which child it is.
    pub(crate) const fn parent(self) -> Option<(Self, u16)> {
        if self.is_request() {
            return None;
        }
        let shift = self.path.trailing_zeros() / PLACE_BITS * PLACE_BITS;
        let number = (self.path >> shift) as u16;
        Some((Self { position: self.position, path: self.path & !((number as u128) << shift) }, number))
    }

    /// Place in the log and path of births.
    pub(crate) fn name(self) -> (u64, Vec<u16>) {
        let places = (1..=u128::BITS / PLACE_BITS).map(|place| (self.path >> (u128::BITS - place * PLACE_BITS)) as u16);
        (self.position, places.take_while(|number| *number != 0).collect())
    }

    pub(crate) const fn words(self) -> [u64; 3] {
        [self.position, (self.path >> 64) as u64, self.path as u64]
    }

    /// From its [`ThreadId::words`].
    pub(crate) const fn of_words([position, high, low]: [u64; 3]) -> Self {
        Self { position, path: (high as u128) << 64 | low as u128 }
    }
}

/// A child that its parent has not joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Child {
    /// The host's index of it, and of the parent if it waits for it.
    Alive { thread: u32, joiner: Option<u32> },
    /// In which round it finished, and its last `now`.
    Finished { round: u64, now: u64 },
}

/// All children that may still be joined. A parent that finishes takes its own out; they run on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Families(BTreeMap<(ThreadId, u16), Child>);

impl Families {
    /// The next child of a thread that has had `born`: its name. `None`: that is not possible.
    pub(crate) fn next(parent: ThreadId, born: u16) -> Option<ThreadId> {
        born.checked_add(1).and_then(|number| parent.child(number))
    }

    /// A child is born.
    pub(crate) fn add(&mut self, child: ThreadId, thread: u32) {
        let key = child.parent().expect("a child has a parent");
        self.0.insert(key, Child::Alive { thread, joiner: None });
    }

    /// The parent asks for its child: what is known of it. A child that has finished is joined by this.
    pub(crate) fn join(&mut self, parent: ThreadId, number: u16, joiner: u32) -> Option<Child> {
        let child = self.0.get_mut(&(parent, number))?;
        let known = *child;
        match child {
            Child::Alive { joiner: waiting, .. } => *waiting = Some(joiner),
            Child::Finished { .. } => drop(self.0.remove(&(parent, number))),
        }
        Some(known)
    }

    /// A thread has finished, at its own time `now`: whoever waits for it.
    pub(crate) fn finished(&mut self, thread: ThreadId, round: u64, now: u64) -> Option<u32> {
        let key = thread.parent()?;
        match self.0.get_mut(&key)? {
            Child::Alive { joiner: Some(joiner), .. } => {
                let joiner = *joiner;
                self.0.remove(&key);
                Some(joiner)
            }
            child => {
                *child = Child::Finished { round, now };
                None
            }
        }
    }

    /// Nobody is left who could join the children of this thread.
    pub(crate) fn forget(&mut self, parent: ThreadId) {
        while let Some((key, _)) = self.0.range((parent, 0)..=(parent, u16::MAX)).next() {
            let key = *key;
            self.0.remove(&key);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn digest(&self, digest: &mut DigestWriter) {
        digest.word(self.0.len() as u64);
        for ((parent, number), child) in &self.0 {
            digest.id(*parent);
            let (state, now) = match child {
                Child::Alive { joiner: None, .. } => (0, 0),
                Child::Alive { joiner: Some(_), .. } => (1, 0),
                Child::Finished { now, .. } => (2, *now),
            };
            digest.words(&[u64::from(*number), state, now]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_stands_behind_its_parent_and_its_elder_siblings_families() {
        let request = ThreadId::request(7);
        let child = |of: ThreadId, number| of.child(number).unwrap();
        let ordered = [
            request,
            child(request, 1),
            child(child(request, 1), 1),
            child(child(child(request, 1), 1), u16::MAX),
            child(child(request, 1), 2),
            child(request, 2),
            child(request, u16::MAX),
            ThreadId::request(8),
        ];
        assert!(ordered.is_sorted_by(|a, b| a < b));
        for id in ordered {
            assert_eq!(id.is_request(), id.parent().is_none());
            if let Some((parent, number)) = id.parent() {
                assert_eq!(parent.child(number), Some(id));
            }
        }
        // A number whose last bits are 0 does not look like the end of the path.
        let round = child(request, 256);
        assert_eq!(child(round, 1).parent(), Some((round, 1)));
    }

    #[test]
    fn families_have_a_depth_and_a_size() {
        let mut id = ThreadId::request(1);
        let mut depth = 0;
        while let Some(child) = id.child(3) {
            id = child;
            depth += 1;
        }
        assert_eq!(depth, 8);
        assert_eq!(Families::next(id, 0), None);
        assert_eq!(Families::next(ThreadId::request(1), u16::MAX), None);
        assert_eq!(ThreadId::request(1).child(0), None);
        assert_eq!((ThreadId::of(1, &[3; 8]), id.name()), (Some(id), (1, alloc::vec![3; 8])));
        assert_eq!((ThreadId::of(1, &[3; 9]), ThreadId::of(1, &[0])), (None, None));
    }

    #[test]
    fn a_child_is_joined_once_before_or_after_its_end() {
        let mut families = Families::default();
        let parent = ThreadId::request(1);
        let [first, second, third] = [1, 2, 3].map(|number| parent.child(number).unwrap());
        families.add(first, 10);
        families.add(second, 11);
        families.add(third, 12);
        assert_eq!(families.join(parent, 1, 5), Some(Child::Alive { thread: 10, joiner: None }));
        assert_eq!(families.finished(first, 3, 30), Some(5));
        assert_eq!(families.join(parent, 1, 5), None);
        assert_eq!(families.finished(second, 4, 40), None);
        assert_eq!(families.join(parent, 2, 5), Some(Child::Finished { round: 4, now: 40 }));
        assert_eq!(families.join(parent, 2, 5), None);
        families.forget(parent);
        assert_eq!(families.len(), 0);
        assert_eq!(families.finished(third, 5, 50), None, "it ran on, and nobody asks");
        assert_eq!(families.finished(parent, 5, 50), None);
    }
}
