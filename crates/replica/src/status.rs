//! What a replica shows of itself to people. Never the base of a decision.

use crate::Root;
use alloc::{string::String, vec::Vec};
use unisono_types::{Digest, Epoch, ReplicaId, SequenceNumber, View};

/// A view of a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Which member.
    pub id: ReplicaId,
    /// Name of the agreement algorithm.
    pub algorithm: String,
    /// The epoch.
    pub epoch: Epoch,
    /// The view.
    pub view: View,
    /// Whom it takes for the leader.
    pub leader: ReplicaId,
    /// The members.
    pub members: Vec<ReplicaId>,
    /// Last committed decision.
    pub height: SequenceNumber,
    /// Last decision of which, and of all before it, every request has finished or is parked.
    pub executed: SequenceNumber,
    /// Newest stable checkpoint.
    pub stable: SequenceNumber,
    /// The newest Marks, oldest first, at most 16.
    pub recent_roots: Vec<Root>,
    /// Sessions open.
    pub sessions: usize,
    /// Bytes of replies stored for clients that have not acknowledged them.
    pub stored_reply_bytes: u64,
    /// Frames known and not yet committed.
    pub pending_frames: usize,
    /// Outside calls that wait to be asked.
    pub calls_queued: usize,
    /// Outside calls that are asked, or whose answer is on its way into the order.
    pub calls_open: usize,
    /// What was not let in.
    pub counters: Counters,
}

impl Status {
    /// The newest Mark: `state_root`, `grant_hash` and `round` are those of `root_height`.
    #[must_use]
    pub fn last_root(&self) -> Option<&Root> {
        self.recent_roots.last()
    }

    /// Digest of the state at the last Mark.
    #[must_use]
    pub fn state_root(&self) -> Digest {
        self.last_root().map_or(Digest::ZERO, |root| root.root)
    }
}

/// Frames that were not let in, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Signed by another key than the connection's, or a system entry.
    pub foreign_frames: u64,
    /// Of a session that has too many bytes of replies stored.
    pub held_back_frames: u64,
    /// Of a session that is not open.
    pub sessionless_frames: u64,
    /// Shown by a peer, or left by a void block, and of no use: of a stranger or done already.
    pub useless_offers: u64,
}
