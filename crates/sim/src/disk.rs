//! The log on a simulated disk: appended, synced in groups after a delay, cut by a crash somewhere behind the last
//! sync.
//!
//! ```text
//!   append ──> waiting ──(disk idle)──> syncing ──(delay)──> durable ──> answers go back
//!                  \________ a crash keeps a prefix of these ____/
//! ```
//! Contract, as of the real log: answers come only when everything up to them is durable, and what survives a crash
//! is a prefix of what was written (records carry checksums, so a torn tail is cut at its first bad record).
//! The vote register's state stands in the same log, behind the data it votes for.

use crate::Random;
use std::collections::BTreeMap;
use unisono_consensus::{PersistId, Record, RegisterAnswer};
use unisono_trusted::RegisterState;
use unisono_types::{Bytes, Digest, SequenceNumber};

/// One record of the log.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Of the core.
    Record(Record),
    /// The vote register's state after a call.
    Register(RegisterState),
}

/// What its writer waits for.
#[derive(Clone, Copy, Debug)]
pub enum Promise {
    /// The core's write is durable.
    Persisted(PersistId),
    /// The register's answer may leave.
    Answered(RegisterAnswer),
}

/// Who wrote: a liar may run two cores on one disk, and each must get its own answers.
pub type Writer = usize;

/// One machine's disk.
#[derive(Default, Debug)]
pub struct Disk {
    durable: Vec<Entry>,
    blocks: BTreeMap<Digest, (SequenceNumber, Bytes)>,
    commits: BTreeMap<SequenceNumber, (Digest, Bytes)>,
    syncing: Vec<(Writer, Entry, Promise)>,
    waiting: Vec<(Writer, Entry, Promise)>,
}

impl Disk {
    /// Writes behind everything written before. True: the disk was idle and a sync begins, so that [`Disk::synced`]
    /// must be called after the disk's delay.
    #[must_use]
    pub fn append(&mut self, writer: Writer, entry: Entry, promise: Promise) -> bool {
        self.waiting.push((writer, entry, promise));
        self.begin()
    }

    fn begin(&mut self) -> bool {
        let begins = self.syncing.is_empty() && !self.waiting.is_empty();
        if begins {
            self.syncing = std::mem::take(&mut self.waiting);
        }
        begins
    }

    /// The sync has ended: what may be answered now, and whether the next one begins.
    #[must_use]
    pub fn synced(&mut self) -> (Vec<(Writer, Promise)>, bool) {
        let done = std::mem::take(&mut self.syncing);
        let promises = done.iter().map(|(writer, _, promise)| (*writer, *promise)).collect();
        for (_, entry, _) in done {
            self.keep(entry);
        }
        (promises, self.begin())
    }

    /// Power is lost: a prefix of what was on its way survives, how long a one is chance.
    pub fn crash(&mut self, random: &mut Random) {
        let mut tail = std::mem::take(&mut self.syncing);
        tail.append(&mut self.waiting);
        let survives = random.index(tail.len() + 1);
        for (_, entry, _) in tail.into_iter().take(survives) {
            self.keep(entry);
        }
    }

    fn keep(&mut self, entry: Entry) {
        match &entry {
            Entry::Record(Record::Block { sequence, hash, bytes }) => {
                self.blocks.insert(*hash, (*sequence, bytes.clone()));
            }
            Entry::Record(Record::Commit { sequence, hash, proof }) => {
                self.commits.insert(*sequence, (*hash, proof.clone()));
            }
            Entry::Record(Record::Barrier) | Entry::Register(_) => {}
        }
        self.durable.push(entry);
    }

    /// Everything durable, in order.
    #[must_use]
    pub fn durable(&self) -> &[Entry] {
        &self.durable
    }

    /// The register's newest state.
    #[must_use]
    pub fn register(&self) -> Option<RegisterState> {
        self.durable.iter().rev().find_map(|entry| match entry {
            Entry::Register(state) => Some(*state),
            Entry::Record(_) => None,
        })
    }

    /// A block that was written.
    #[must_use]
    pub fn block(&self, hash: &Digest) -> Option<&(SequenceNumber, Bytes)> {
        self.blocks.get(hash)
    }

    /// All blocks.
    pub fn blocks(&self) -> impl Iterator<Item = (&Digest, SequenceNumber, &Bytes)> {
        self.blocks.iter().map(|(hash, (sequence, bytes))| (hash, *sequence, bytes))
    }

    /// Place, hash and bytes of the blocks that are proven to be decided, from the first on, without gaps. Blocks
    /// decided together share the proof of the last; a crash may have come between their records.
    pub fn committed_places(&self) -> impl Iterator<Item = (SequenceNumber, Digest, &Bytes)> {
        let proven = self.commits.iter().rev().find(|(_, (_, proof))| !proof.is_empty()).map_or(0, |(last, _)| last.0);
        let known = (1..=proven).map_while(|place| self.commits.get_key_value(&SequenceNumber(place)));
        known.map_while(|(sequence, (hash, _))| self.blocks.get(hash).map(|(_, bytes)| (*sequence, *hash, bytes)))
    }

    /// Commits that were written: hash and proof by place.
    #[must_use]
    pub const fn commits(&self) -> &BTreeMap<SequenceNumber, (Digest, Bytes)> {
        &self.commits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(disk: &mut Disk, number: u64) -> bool {
        disk.append(0, Entry::Record(Record::Barrier), Promise::Persisted(PersistId(number)))
    }

    fn answered(promises: &[(Writer, Promise)]) -> Vec<u64> {
        let id = |(_, promise): &(Writer, Promise)| match promise {
            Promise::Persisted(id) => id.0,
            Promise::Answered(_) => u64::MAX,
        };
        promises.iter().map(id).collect()
    }

    #[test]
    fn writes_that_come_during_a_sync_share_the_next_one() {
        let mut disk = Disk::default();
        assert!(write(&mut disk, 1));
        assert!(!write(&mut disk, 2));
        assert!(!write(&mut disk, 3));
        let (promises, more) = disk.synced();
        assert_eq!((answered(&promises), more), (vec![1], true));
        let (promises, more) = disk.synced();
        assert_eq!((answered(&promises), more), (vec![2, 3], false));
    }

    #[test]
    fn a_crash_loses_only_what_was_not_answered_and_only_a_tail() {
        let mut lengths = [0; 4];
        for seed in 0..100 {
            let mut disk = Disk::default();
            assert!(write(&mut disk, 1));
            let _ = disk.synced();
            assert!(write(&mut disk, 2));
            let _ = write(&mut disk, 3);
            disk.crash(&mut Random::new(seed));
            lengths[disk.durable().len()] += 1;
        }
        assert_eq!(lengths[0], 0);
        assert!(lengths[1..].iter().all(|count| *count > 10), "{lengths:?}");
    }
}
