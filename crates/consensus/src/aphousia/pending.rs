//! Frames that wait to be decided, in order of arrival, bounded in number and bytes.
//!
//! Invariant: `index` and `entries` name the same frames. Invariant: no entry below `cursor` is unproposed.

use super::block::{Block, FRAME_OVERHEAD_BYTES};
use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use unisono_types::{Digest, Frame};

/// Frames that may wait. A client that is not served sends again, so what does not fit is dropped.
const FRAMES_MAX: usize = 1 << 16;
/// Names of decided frames remembered, so that what slower peers forward is not ordered twice.
const RECENT_MAX: usize = 1 << 13;
/// For how long: a frame that is still forwarded after it (its requests may have been refused) is ordered again.
const RECENT_MICROS: u64 = 1_000_000;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Entry {
    frame: Frame,
    /// Stands in a block of the chain that this replica follows.
    proposed: bool,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Pending {
    entries: BTreeMap<u64, Entry>,
    index: BTreeMap<Digest, u64>,
    /// Arrival number of the next one.
    next: u64,
    cursor: u64,
    bytes: usize,
    bytes_max: usize,
    recent: BTreeMap<Digest, u64>,
    recent_order: VecDeque<Digest>,
}

impl Pending {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            index: BTreeMap::new(),
            next: 0,
            cursor: 0,
            bytes: 0,
            bytes_max,
            recent: BTreeMap::new(),
            recent_order: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all that waits.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Arrival number of the entry that has waited longest.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.entries.keys().next().copied()
    }

    /// Whether that entry stands in a block of the chain.
    pub(super) fn oldest_is_proposed(&self) -> bool {
        self.entries.first_key_value().is_some_and(|(_, entry)| entry.proposed)
    }

    /// Takes a frame in; whether it is new.
    pub(super) fn add(&mut self, frame: &Frame) -> bool {
        let bytes = frame.wire().len();
        let full = self.entries.len() >= FRAMES_MAX || self.bytes + bytes > self.bytes_max;
        if full || self.index.contains_key(&frame.id()) {
            return false;
        }
        self.index.insert(frame.id(), self.next);
        self.entries.insert(self.next, Entry { frame: frame.clone(), proposed: false });
        self.next += 1;
        self.bytes += bytes;
        true
    }

    /// As [`Self::add`], but for what a peer sends: not what was decided a moment ago.
    pub(super) fn add_forwarded(&mut self, frame: &Frame, now: u64) -> bool {
        let known = self.recent.get(&frame.id()).is_some_and(|at| now.saturating_sub(*at) < RECENT_MICROS);
        !known && self.add(frame)
    }

    /// These frames are decided.
    pub(super) fn decided(&mut self, block: &Block, now: u64) {
        for frame in block.frames() {
            if let Some(entry) = self.index.remove(&frame.id()).and_then(|arrival| self.entries.remove(&arrival)) {
                self.bytes -= entry.frame.wire().len();
            }
            if self.recent.insert(frame.id(), now).is_none() {
                self.recent_order.push_back(frame.id());
            }
            if self.recent_order.len() > RECENT_MAX
                && let Some(oldest) = self.recent_order.pop_front()
            {
                self.recent.remove(&oldest);
            }
        }
    }

    /// These frames stand in a block of the chain.
    pub(super) fn proposed(&mut self, block: &Block) {
        for frame in block.frames() {
            if let Some(entry) = self.index.get(&frame.id()).and_then(|arrival| self.entries.get_mut(arrival)) {
                entry.proposed = true;
            }
        }
    }

    /// The chain is another one now: nothing stands in it but what is told again.
    pub(super) fn forget_proposed(&mut self) {
        self.cursor = 0;
        self.entries.values_mut().for_each(|entry| entry.proposed = false);
    }

    pub(super) fn has_unproposed(&mut self) -> bool {
        self.advance_cursor();
        self.entries.range(self.cursor..).next().is_some()
    }

    /// The frames of the next block, in order of arrival: about `batch_bytes` of them, `bytes_max` at the most.
    pub(super) fn take_batch(&mut self, batch_bytes: usize, bytes_max: usize) -> Vec<Frame> {
        self.advance_cursor();
        let mut bytes = 0;
        let mut batch = Vec::new();
        for entry in self.entries.range_mut(self.cursor..).map(|(_, entry)| entry) {
            if entry.proposed {
                continue;
            }
            let more = entry.frame.wire().len() + FRAME_OVERHEAD_BYTES;
            if bytes + more > bytes_max || (bytes > 0 && bytes + more > batch_bytes) {
                break;
            }
            bytes += more;
            entry.proposed = true;
            batch.push(entry.frame.clone());
        }
        batch
    }

    /// The oldest frames that stand in no block of the chain, at most about `bytes` of them but one at least.
    pub(super) fn unproposed(&self, bytes: usize) -> Vec<Frame> {
        let mut left = bytes;
        let mut frames = Vec::new();
        for entry in self.entries.values().filter(|entry| !entry.proposed) {
            let more = entry.frame.wire().len() + FRAME_OVERHEAD_BYTES;
            if more > left && !frames.is_empty() {
                break;
            }
            left = left.saturating_sub(more);
            frames.push(entry.frame.clone());
        }
        frames
    }

    fn advance_cursor(&mut self) {
        let first = self.entries.range(self.cursor..).find(|(_, entry)| !entry.proposed).map(|(arrival, _)| *arrival);
        self.cursor = first.unwrap_or(self.next);
    }

    /// What must always hold; see the module.
    pub(super) fn invariants(&self) {
        assert_eq!(self.entries.len(), self.index.len(), "index and entries name the same frames");
        assert!(self.recent.len() <= RECENT_MAX && self.entries.len() <= FRAMES_MAX, "bounded");
    }
}
