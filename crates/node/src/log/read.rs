//! Reads committed blocks back: for a peer that is far behind, and for the own replay after a start.

use super::disk::Disk;
use super::record::{Kind, Place, segment_name, split_block};
use super::scan::{Segment, Walk};
use super::write::Durable;
use super::{SECTOR_BYTES, StorageError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use unisono_types::{Digest, SequenceNumber};

/// A block that is known to be decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedBlock {
    /// Its place.
    pub sequence: SequenceNumber,
    /// Names it.
    pub hash: Digest,
    /// As the algorithm encodes it.
    pub bytes: Bytes,
    /// The proof that it and all before it are decided; empty where only a later one says so.
    pub proof: Bytes,
}

/// Reads what is durable, while the log is written. Cheap to clone.
#[derive(Clone)]
pub struct LogReader {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) durable: Arc<Mutex<Durable>>,
    pub(super) parent: fn(&Bytes) -> Option<Digest>,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogReader")
    }
}

/// A block that may turn out to be decided.
struct Candidate {
    place: Place,
    length: u32,
    parent: Option<Digest>,
}

impl LogReader {
    /// Committed blocks from `from` on without gaps, at most `bytes_max` bytes of them unless the first that has a proof
    /// comes later. The last one has its proof.
    ///
    /// # Errors
    /// [`StorageError`] when the disk fails or what was written cannot be read any more.
    pub fn committed(&self, from: SequenceNumber, bytes_max: usize) -> Result<Vec<CommittedBlock>, StorageError> {
        let (mark, salts, end) = {
            let durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
            match (durable.index.find(from), durable.end) {
                (Some(mark), Some(end)) => (mark, durable.salts.clone(), end),
                _ => return Ok(Vec::new()),
            }
        };
        let open = |number: u64, salt| -> Result<Segment, StorageError> {
            let name = segment_name(number);
            let failed = |error| StorageError::io("opening", &self.disk.path(&name), error);
            let file = self.disk.open(&name).map_err(failed)?;
            let limit = if number == end.segment { end.offset } else { file.length().map_err(failed)? };
            Ok(Segment::new(file, number, salt, limit))
        };
        // Candidates are places, not bytes: forks and what is not yet committed cost little.
        let mut blocks: BTreeMap<(SequenceNumber, Digest), Candidate> = BTreeMap::new();
        let mut chosen: Vec<(SequenceNumber, Digest, Place, Bytes)> = Vec::new();
        let (mut next, mut bytes, mut whole, mut at) = (from, 0usize, mark.whole, mark.place.offset);
        'segments: for (number, salt) in (1u64..).zip(salts).skip_while(|(number, _)| *number < mark.place.segment) {
            if number > end.segment {
                break;
            }
            let mut walk = Walk::new(open(number, salt)?, at, whole);
            at = SECTOR_BYTES;
            // A torn tail that an earlier start has left behind skips a group number.
            if let Some(first) = walk.segment.record_at(walk.at).map_err(|error| self.failed(number, error))?
                && first.header.kind == Kind::Start
                && first.header.group > walk.whole
            {
                walk.whole = first.header.group - 1;
            }
            while let Some(record) = walk.next().map_err(|error| self.failed(number, error))? {
                let Some((sequence, hash, rest)) = split_block(&record.payload) else { continue };
                match record.header.kind {
                    Kind::Block if sequence >= next => {
                        let (place, length) = (record.place, record.header.length);
                        blocks.insert((sequence, hash), Candidate { place, length, parent: (self.parent)(&rest) });
                    }
                    Kind::Commit if sequence >= next => {
                        let Some(run) = run(&mut blocks, next, (sequence, hash)) else { break 'segments };
                        let more: usize = run.iter().map(|(.., candidate)| candidate.length as usize).sum();
                        if !chosen.is_empty() && bytes + more > bytes_max {
                            break 'segments;
                        }
                        blocks.retain(|(other, _), _| *other > sequence);
                        next = sequence.next();
                        for (sequence, hash, candidate) in run {
                            bytes += candidate.length as usize;
                            chosen.push((sequence, hash, candidate.place, Bytes::new()));
                        }
                        chosen.last_mut().expect("a run has its last block").3 = rest;
                        if bytes >= bytes_max {
                            break 'segments;
                        }
                    }
                    _ => {}
                }
            }
            whole = walk.whole;
        }
        let mut committed = Vec::with_capacity(chosen.len());
        for (sequence, hash, place, proof) in chosen {
            committed.push(CommittedBlock { sequence, hash, bytes: self.block_at(place)?, proof });
        }
        Ok(committed)
    }

    /// The bytes of the block whose record stands at `place`.
    pub(super) fn block_at(&self, place: Place) -> Result<Bytes, StorageError> {
        let failed = |error| self.failed(place.segment, error);
        let salt = {
            let durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
            durable.salts[usize::try_from(place.segment - 1).expect("segments are few")]
        };
        let file = self.disk.open(&segment_name(place.segment)).map_err(failed)?;
        let length = file.length().map_err(failed)?;
        let record = Segment::new(file, place.segment, salt, length).record_at(place.offset).map_err(failed)?;
        match record.as_ref().and_then(|record| split_block(&record.payload)) {
            Some((_, _, bytes)) => Ok(bytes),
            None => Err(StorageError::Corrupt {
                path: self.disk.path(&segment_name(place.segment)),
                offset: place.offset,
                reason: "a block that was whole a moment ago is not any more",
            }),
        }
    }

    fn failed(&self, segment: u64, error: std::io::Error) -> StorageError {
        StorageError::io("reading", &self.disk.path(&segment_name(segment)), error)
    }
}

/// The blocks from `next` up to the committed one, by their parents. `None` when one of them is not there.
fn run(
    blocks: &mut BTreeMap<(SequenceNumber, Digest), Candidate>,
    next: SequenceNumber,
    committed: (SequenceNumber, Digest),
) -> Option<Vec<(SequenceNumber, Digest, Candidate)>> {
    let (mut sequence, mut hash) = committed;
    let mut run = Vec::new();
    loop {
        let candidate = blocks.remove(&(sequence, hash))?;
        let parent = candidate.parent;
        run.push((sequence, hash, candidate));
        if sequence == next {
            run.reverse();
            return Some(run);
        }
        (sequence, hash) = (sequence.previous()?, parent?);
    }
}
