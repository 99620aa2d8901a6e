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

/// A decided block in the log.
#[derive(Clone, Debug)]
pub struct Decided {
    /// Its place.
    pub sequence: SequenceNumber,
    /// Its hash.
    pub hash: Digest,
    /// Its bytes.
    pub bytes: Bytes,
    /// The proof of its commit, if one was written for it: blocks decided together share that of the last.
    pub proof: Option<Bytes>,
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

    /// The decided blocks from `from` on: those below the newest commit, found by their parents. `parent` reads the
    /// parent's hash from a block's bytes.
    #[must_use]
    pub fn decided(&self, from: SequenceNumber, parent: impl Fn(&Bytes) -> Option<Digest>) -> Vec<Decided> {
        let with_block = |(_, (hash, _)): &(&SequenceNumber, &(Digest, Bytes))| self.blocks.contains_key(hash);
        let newest = self.commits.iter().rev().find(with_block);
        let mut at = newest.map(|(_, (hash, _))| *hash);
        let mut decided = Vec::new();
        while let Some((hash, (sequence, bytes))) = at.and_then(|hash| self.blocks.get_key_value(&hash)) {
            if *sequence < from {
                break;
            }
            let proof =
                self.commits.get(sequence).filter(|(committed, _)| committed == hash).map(|(_, proof)| proof.clone());
            decided.push(Decided { sequence: *sequence, hash: *hash, bytes: bytes.clone(), proof });
            at = parent(bytes);
        }
        decided.reverse();
        decided
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
    fn decided_blocks_are_found_by_their_parents_and_forks_are_left_out() {
        let mut disk = Disk::default();
        let name = |place: u64, fork: u8| Digest::of("block", &[&[place as u8, fork]]);
        // The bytes of a block here are its parent's name.
        for (place, fork, parent) in [(1, 0, Digest::ZERO), (2, 1, name(1, 0)), (2, 2, name(1, 0)), (3, 2, name(2, 2))]
        {
            let (sequence, hash, bytes) = (SequenceNumber(place), name(place, fork), parent.0.to_vec().into());
            disk.keep(Entry::Record(Record::Block { sequence, hash, bytes }));
        }
        disk.keep(Entry::Record(Record::Commit { sequence: SequenceNumber(3), hash: name(3, 2), proof: Bytes::new() }));
        let parent = |bytes: &Bytes| bytes.first_chunk().map(|hash| Digest(*hash));
        let names = |from| -> Vec<Digest> {
            disk.decided(SequenceNumber(from), parent).iter().map(|decided| decided.hash).collect()
        };
        assert_eq!(names(1), [name(1, 0), name(2, 2), name(3, 2)]);
        assert_eq!(names(3), [name(3, 2)]);
        assert_eq!(names(4), []);
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
