//! From lock ids to entries.

use super::{Lock, LockIndex};
use crate::LockId;
use crate::list::NONE;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// From [`LockId`] to entry: one probe of a table four times as large as the locks in use; ids that collide there go to
/// a map. So a lookup is O(1), and O(log) for ids that somebody chose to collide. Its layout decides nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// A power of two, or empty.
    pub(super) direct: Vec<u32>,
    collided: BTreeMap<LockId, u32>,
    pub(super) live: usize,
}

const INDEX_SIZE_MIN: usize = 64;

/// Odd, and nothing else matters.
pub(super) const LOW: u64 = 0x9E37_79B9_7F4A_7C15;
pub(super) const HIGH: u64 = 0xC2B2_AE3D_27D4_EB4F;

impl Index {
    #[inline]
    pub(super) fn find(&self, id: LockId, locks: &[Lock]) -> Option<LockIndex> {
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
    pub(super) fn insert(&mut self, lock: LockIndex, locks: &[Lock]) {
        self.live += 1;
        if self.live * 4 > self.direct.len() {
            self.grow(locks);
        }
        self.place(lock.0, locks[lock.0 as usize].id);
    }

    /// The lock must be in it.
    pub(super) fn remove(&mut self, lock: LockIndex, locks: &[Lock]) {
        let id = locks[lock.0 as usize].id;
        self.live -= 1;
        let bucket = self.bucket(id);
        if self.direct[bucket] == lock.0 {
            self.direct[bucket] = NONE;
        } else {
            self.collided.remove(&id).expect("a lock in use is in the index");
        }
    }

    #[cfg(test)]
    pub(super) fn collided(&self) -> usize {
        self.collided.len()
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
        let (low, high) = (id.0 as u64, (id.0 >> 64) as u64);
        // Objects are numbered in the upper half of `high`, so they go to its lower half: the low bits of a product see
        // the low bits of its factors only.
        let mixed = low.wrapping_mul(LOW) ^ high.rotate_left(32).wrapping_mul(HIGH);
        (mixed ^ mixed >> 32) as usize & self.direct.len().wrapping_sub(1)
    }
}
