//! Where to begin to read for a decision: one entry per 256 KiB of log, so a gigabyte of log takes 130 KiB of memory.

use super::record::Place;
use unisono_types::SequenceNumber;

/// Log bytes between two entries.
const ENTRY_BYTES: u64 = 256 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct IndexEntry {
    /// Start of a group.
    pub(super) place: Place,
    /// The last whole group before it.
    pub(super) whole: u64,
    /// Invariant: no block above this stands before `place`.
    pub(super) highest_before: SequenceNumber,
}

/// A sparse index over the durable part of the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// Invariant: grows in place and `highest_before`.
    entries: Vec<IndexEntry>,
    highest: SequenceNumber,
}

impl Index {
    /// A group begins here.
    pub(super) fn group(&mut self, place: Place, whole: u64) {
        let due = self
            .entries
            .last()
            .is_none_or(|last| last.place.segment != place.segment || place.offset - last.place.offset >= ENTRY_BYTES);
        if due {
            self.entries.push(IndexEntry { place, whole, highest_before: self.highest });
        }
    }

    /// The group holds this block.
    pub(super) fn block(&mut self, sequence: SequenceNumber) {
        self.highest = self.highest.max(sequence);
    }

    /// The last entry before which nothing of `sequence` or above stands.
    pub(super) fn find(&self, sequence: SequenceNumber) -> Option<IndexEntry> {
        let behind = self.entries.partition_point(|entry| entry.highest_before < sequence);
        self.entries.get(behind.checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mark_before_all_blocks_from_a_place_on_is_found() {
        let mut index = Index::default();
        assert_eq!(index.find(SequenceNumber(1)), None);
        for step in 0..10u64 {
            index.group(Place { segment: 1, offset: 512 + step * ENTRY_BYTES }, step);
            index.block(SequenceNumber(10 * step + 10));
            index.group(Place { segment: 1, offset: 1024 + step * ENTRY_BYTES }, step);
        }
        let offset = |sequence| index.find(SequenceNumber(sequence)).unwrap().place.offset;
        assert_eq!(offset(1), 512);
        assert_eq!(offset(10), 512);
        assert_eq!(offset(11), 512 + ENTRY_BYTES);
        assert_eq!(offset(1000), 512 + 9 * ENTRY_BYTES);
        index.group(Place { segment: 2, offset: 512 }, 11);
        assert_eq!(index.find(SequenceNumber(1000)).unwrap().place, Place { segment: 2, offset: 512 });
    }
}
