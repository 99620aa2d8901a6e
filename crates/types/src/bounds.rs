//! How large things are, in one table: what a correct replica may have to say or keep fits everywhere it must pass.
//!
//! ```text
//!   operation < frame <= block < certified block <= answer of catch-up <= message < link <= outbox, inbox
//!                                      piece <= /                   \= blocks + proof (headers of a chain + q votes)
//! ```
//! Bytes throughout. The limits of a configuration and the number of members determine everything; the relations are
//! asserted at compile time for the default limits and every number of members, and checked for a configuration by
//! [`Membership::new`](crate::Membership::new).
//!
//! Invariant: whatever f members send takes room from their own shares only, never from that of a correct proposer.

use crate::Limits;

/// Members of a cluster at most.
pub const MEMBERS_MAX: usize = 64;
/// A certificate of a vote register: replica, position, signature.
pub const CERTIFICATE_BYTES: usize = 2 + (8 + 8 + 32) + 64;
/// A view change: replica, view, last position, signature.
pub const VIEW_CHANGE_BYTES: usize = 2 + 8 + (8 + 8 + 32) + 64;
/// A signed checkpoint: replica, epoch, sequence number, header, root, signature.
pub const CHECKPOINT_BYTES: usize = 2 + (4 + 8 + 32 + 32) + 64;
/// A signed wish: replica, epoch, view, signature.
pub const WISH_BYTES: usize = 2 + (4 + 4) + 64;
/// A penalty in a header: member, count, height.
pub const PENALTY_BYTES: usize = 2 + 1 + 8;
/// A header without penalties and justification.
pub const HEADER_FIXED_BYTES: usize = 4 + 4 + 8 + 8 + 32 + 8 + 32 + 4 + 1;
/// What a header counts for at least in a chain's bytes, so that small ones are not free.
pub const HEADER_CHARGE_BYTES: usize = 1 << 10;
/// What travels with a block's header and frames: two certificates, lengths, a count.
pub const BLOCK_OVERHEAD_BYTES: usize = 256;
/// Headers of an undecided chain. Each view that decides nothing adds one, with its justification, and correct replicas
/// alone can make any number of such views: at n = 64 this holds 400, at n = 3 the charge allows 4 096, each of them
/// at least one time-out long.
pub const CHAIN_HEADER_BYTES: usize = 4 << 20;
/// The transferable proof of a decision: the headers of such a chain, certificates, counts.
pub const PROOF_BYTES: usize = CHAIN_HEADER_BYTES + MEMBERS_MAX * CERTIFICATE_BYTES + 64;
/// Decided blocks are handed on in pieces of this size, except that one block may be larger.
pub const PIECE_BYTES: usize = 1 << 20;
/// Frames that are forwarded in one message, unless a single one is larger.
pub const FORWARD_BYTES: usize = 1 << 20;
/// What a message adds to its largest part: kind, lengths, counts.
pub const MESSAGE_OVERHEAD_BYTES: usize = 64;
/// Blocks of the greatest size that one peer may have here unasked and not voted for. A correct leader has what is in
/// flight, and a new view's block.
pub const SHARE_BLOCKS: usize = 3;
/// Blocks that a leader may have proposed and not seen decided, at most.
pub const IN_FLIGHT_BLOCKS: usize = 2;
/// Blocks of the greatest size whose frames an undecided chain may hold before no more frames are put on top.
pub const CHAIN_BLOCKS: usize = 2;
/// Blocks of the greatest size whose frames an undecided chain may hold for a vote: what correct leaders build.
pub const VOTE_BLOCKS: usize = CHAIN_BLOCKS + IN_FLIGHT_BLOCKS + 1;
/// Decided blocks kept in memory for slower peers.
pub const DECIDED_MEMORY_BYTES: usize = 8 << 20;

/// A header with q view changes, f+1 checkpoint signatures and a penalty for each member.
#[must_use]
pub const fn header_bytes(members: usize) -> usize {
    let commit = members / 2 + 1;
    let one_correct = members - commit + 1;
    let lengths = 4 + 4;
    let justification = lengths + commit * VIEW_CHANGE_BYTES + one_correct * CHECKPOINT_BYTES;
    HEADER_FIXED_BYTES + members * PENALTY_BYTES + justification
}

/// The table for one configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// One operation.
    pub operation: usize,
    /// One signed frame.
    pub frame: usize,
    /// The frames of one block.
    pub block: usize,
    /// One header.
    pub header: usize,
    /// A block with header and certificates, as it travels and is stored.
    pub certified_block: usize,
    /// Decided blocks that are handed on together, unless one block is larger.
    pub piece: usize,
    /// The blocks of one answer to a laggard: a piece, or one block.
    pub answer: usize,
    /// The proof beside them.
    pub proof: usize,
    /// The largest message of agreement.
    pub message: usize,
    /// What a link between replicas carries at once.
    pub link: usize,
    /// What one peer may have here that was not voted for: unasked, and asked for by name.
    pub share: usize,
    /// Frames of an undecided chain on which more frames may be put.
    pub chain: usize,
    /// Frames of an undecided chain that may be voted for.
    pub vote: usize,
    /// All undecided blocks: every member's share, and the chain voted for.
    pub undecided: usize,
    /// What is queued for one peer.
    pub outbox: usize,
    /// What peers have sent and nobody has handled yet.
    pub inbox: usize,
    /// What one commit group of the log holds.
    pub group: usize,
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

const fn min(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}

impl Bounds {
    /// The table of a cluster with these limits and so many members.
    #[must_use]
    pub const fn new(limits: &Limits, members: usize) -> Self {
        const MIB: usize = 1 << 20;
        let (frame, block) = (limits.frame_bytes as usize, limits.block_bytes as usize);
        let header = header_bytes(members);
        let certified_block = block + header + BLOCK_OVERHEAD_BYTES;
        let piece = min(PIECE_BYTES, block);
        let answer = max(piece, certified_block);
        let message = max(answer + PROOF_BYTES, FORWARD_BYTES + frame) + MESSAGE_OVERHEAD_BYTES;
        let link = message + MESSAGE_OVERHEAD_BYTES;
        let share = (SHARE_BLOCKS + VOTE_BLOCKS) * certified_block + 2 * CHAIN_HEADER_BYTES;
        let vote = VOTE_BLOCKS * block;
        Self {
            operation: limits.operation_bytes as usize,
            frame,
            block,
            header,
            certified_block,
            piece,
            answer,
            proof: PROOF_BYTES,
            message,
            link,
            share,
            chain: CHAIN_BLOCKS * block,
            vote,
            undecided: members * share + vote + CHAIN_HEADER_BYTES,
            outbox: max(64 * MIB, 3 * link),
            inbox: max(96 * MIB, 3 * link),
            group: max(32 * MIB, certified_block + piece),
        }
    }

    /// Whether everything that must pass somewhere fits there.
    ///
    /// # Errors
    /// The relation that does not hold.
    pub const fn check(&self) -> Result<(), &'static str> {
        if self.operation == 0 || self.operation >= self.frame || self.frame > self.block {
            return Err("operation_bytes < frame_bytes <= block_bytes, and none may be 0");
        }
        if self.certified_block > self.answer || self.piece > self.answer {
            return Err("an answer holds a block of the greatest size, and a piece of smaller ones");
        }
        if self.answer + self.proof >= self.message || self.message >= self.link {
            return Err("a link carries an answer with its proof");
        }
        if self.link > u32::MAX as usize {
            return Err("block_bytes is so large that the length of a message has no room in 32 bits");
        }
        if self.link > self.outbox || self.link > self.inbox || self.certified_block > self.group {
            return Err("queues and the log take the largest message and block");
        }
        if (IN_FLIGHT_BLOCKS + 1) * self.block > SHARE_BLOCKS * self.block || self.share > self.undecided {
            return Err("a correct leader's blocks have room in its own share");
        }
        if CHAIN_HEADER_BYTES < 2 * self.header || self.header > CHAIN_HEADER_BYTES / 256 {
            return Err("a chain has room for hundreds of views that decide nothing");
        }
        if self.chain + (IN_FLIGHT_BLOCKS + 1) * self.block > self.vote {
            return Err("what a correct leader puts on a full chain can be voted for");
        }
        Ok(())
    }
}

/// The relations hold for the default limits and every number of members, and with it for every f.
const _: () = {
    let mut members = 1;
    while members <= MEMBERS_MAX {
        assert!(Bounds::new(&Limits::DEFAULT, members).check().is_ok());
        members += 1;
    }
    assert!(HEADER_CHARGE_BYTES > HEADER_FIXED_BYTES + 4);
    assert!(BLOCK_OVERHEAD_BYTES >= 2 * (1 + CERTIFICATE_BYTES) + 3 * 4);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Certificate, Checkpoint, Signed, ViewChange, VotePosition, Wish, encode};
    use crate::{Digest, Epoch, RegisterView, ReplicaId, SequenceNumber, Signature, View};

    #[test]
    fn what_is_counted_is_what_is_encoded() {
        let (replica, signature) = (ReplicaId(1), Signature([1; 64]));
        let vote = VotePosition::default();
        assert_eq!(encode(&Certificate { replica, vote, signature }).len(), CERTIFICATE_BYTES);
        let change = ViewChange { replica, view: RegisterView(1), last: vote, signature };
        assert_eq!(encode(&change).len(), VIEW_CHANGE_BYTES);
        let statement =
            Checkpoint { epoch: Epoch(0), sequence: SequenceNumber(1), header: Digest::ZERO, root: Digest::ZERO };
        assert_eq!(encode(&Signed { replica, statement, signature }).len(), CHECKPOINT_BYTES);
        let statement = Wish { epoch: Epoch(0), view: View(1) };
        assert_eq!(encode(&Signed { replica, statement, signature }).len(), WISH_BYTES);
    }

    #[test]
    fn limits_that_break_a_relation_are_named() {
        let small = Limits { operation_bytes: 100, frame_bytes: 200, block_bytes: 300, ..Limits::DEFAULT };
        for members in 1..=MEMBERS_MAX {
            assert_eq!(Bounds::new(&small, members).check(), Ok(()), "{members} members");
        }
        let equal = Limits { frame_bytes: 100, ..small };
        assert!(Bounds::new(&equal, 3).check().is_err());
        let huge = Limits { block_bytes: u32::MAX, ..small };
        assert!(Bounds::new(&huge, 3).check().unwrap_err().contains("32 bits"));
    }
}
