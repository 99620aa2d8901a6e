//! What must hold at every moment, whatever happens.

use crate::Decision;
use std::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use unisono_types::{Digest, ReplicaId, SequenceNumber, Timestamp};

/// A promise that was broken, in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation(pub String);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Agreed {
    hash: Digest,
    timestamp: Timestamp,
    frames: Vec<Digest>,
    first: ReplicaId,
}

/// Watches the decisions of correct replicas.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    submitted: BTreeSet<Digest>,
    agreed: BTreeMap<SequenceNumber, Agreed>,
    decided_frames: BTreeSet<Digest>,
    /// Last decision of each replica in its present life.
    heights: BTreeMap<ReplicaId, SequenceNumber>,
}

impl Checks {
    /// A frame was handed to some replica.
    pub fn submitted(&mut self, frame: Digest) {
        self.submitted.insert(frame);
    }

    /// A replica starts from a log that ends here.
    pub fn opened(&mut self, replica: ReplicaId, height: SequenceNumber) {
        self.heights.insert(replica, height);
    }

    /// A correct replica decided, at a moment at which agreed time must not be beyond `latest`.
    ///
    /// # Errors
    /// The promise that this breaks.
    pub fn decided(&mut self, replica: ReplicaId, decision: &Decision, latest: Timestamp) -> Result<(), Violation> {
        let Decision { sequence, hash, timestamp, frames } = decision;
        let height = self.heights.entry(replica).or_default();
        if *sequence != height.next() {
            return Err(Violation(format!("integrity: {replica:?} decides {sequence:?} behind {height:?}")));
        }
        *height = *sequence;
        let ids: Vec<Digest> = frames.iter().map(unisono_types::Frame::id).collect();
        let found = Agreed { hash: *hash, timestamp: *timestamp, frames: ids, first: replica };
        if let Some(stranger) = found.frames.iter().find(|id| !self.submitted.contains(id)) {
            return Err(Violation(format!("validity: {replica:?} decides {stranger:?}, which nobody submitted")));
        }
        if let Some(known) = self.agreed.get(sequence) {
            if (known.hash, known.timestamp, &known.frames) != (found.hash, found.timestamp, &found.frames) {
                let first = known.first;
                return Err(Violation(format!("agreement: {first:?} and {replica:?} differ at {sequence:?}")));
            }
            return Ok(());
        }
        let before = sequence.previous().and_then(|before| self.agreed.get(&before));
        if before.is_some_and(|before| before.timestamp > *timestamp) {
            return Err(Violation(format!("time runs backwards at {sequence:?}")));
        }
        if *timestamp > latest {
            return Err(Violation(format!("time runs ahead of all clocks at {sequence:?}")));
        }
        self.decided_frames.extend(found.frames.iter().copied());
        self.agreed.insert(*sequence, found);
        Ok(())
    }

    /// The greatest decision of all.
    #[must_use]
    pub fn height(&self) -> SequenceNumber {
        self.agreed.last_key_value().map_or(SequenceNumber(0), |(sequence, _)| *sequence)
    }

    /// The greatest decision's timestamp.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.agreed.last_key_value().map_or(Timestamp(0), |(_, agreed)| agreed.timestamp)
    }

    /// The last decision of one replica.
    #[must_use]
    pub fn height_of(&self, replica: ReplicaId) -> SequenceNumber {
        self.heights.get(&replica).copied().unwrap_or_default()
    }

    /// The hash of a decision.
    #[must_use]
    pub fn hash_at(&self, sequence: SequenceNumber) -> Option<Digest> {
        self.agreed.get(&sequence).map(|agreed| agreed.hash)
    }

    /// Whether a frame was decided.
    #[must_use]
    pub fn is_decided(&self, frame: &Digest) -> bool {
        self.decided_frames.contains(frame)
    }
}
