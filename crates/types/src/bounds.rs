//! How large things are, in one table: what a correct replica may have to say or keep fits everywhere it must pass.
//!
//! ```text
//!   operation < frame <= block < certified block <= answer < answer + proof < message < link < 1 GiB
//!                                          piece <= answer                             inbox: 2 links, outbox: 3
//!
//!   undecided blocks   frames                                                            headers
//!   of one peer        unasked: share, 3 blocks      asked for by name: vote, 5 blocks   4 MiB each
//!   in one chain       added to below chain, 2 blocks       voted for up to vote         4 MiB
//! ```
//! Bytes throughout. The limits of a configuration and the number of members determine everything. Most relations hold
//! by construction ([`Bounds::new`]). The others are asserted at compile time for the default limits and every number of
//! members, and checked for a configuration by [`Membership::new`](crate::Membership::new).
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
/// Blocks of the greatest size whose frames one peer may have here unasked and not voted for. A correct leader has what
/// is in flight, and a new view's block.
pub const SHARE_BLOCKS: usize = 3;
/// Blocks that a leader may have proposed and not seen decided, at most.
pub const IN_FLIGHT_BLOCKS: usize = 2;
/// Blocks of the greatest size whose frames an undecided chain may hold before no more frames are put on top.
pub const CHAIN_BLOCKS: usize = 2;
/// Blocks of the greatest size whose frames an undecided chain may hold for a vote: what correct leaders build.
pub const VOTE_BLOCKS: usize = CHAIN_BLOCKS + IN_FLIGHT_BLOCKS + 1;
/// Decided blocks kept in memory for slower peers.
pub const DECIDED_MEMORY_BYTES: usize = 8 << 20;
/// A commit group of the log takes entries up to this size, or one larger entry; the rest goes with the next group.
pub const GROUP_BYTES: usize = 32 << 20;
/// Small messages received from one peer and not yet handled. Each counts for 1 KiB at least, and a signature takes 96
/// bytes of one: checking all of them takes about a second.
pub const INBOX_SMALL_BYTES: usize = 2 << 20;
/// The largest messages of one peer, likewise: one is checked while the next one comes.
pub const INBOX_LARGE_MESSAGES: usize = 2;
/// Small messages queued for one peer. More is dropped, the protocol sends it again.
pub const OUTBOX_SMALL_BYTES: usize = 8 << 20;
/// The largest messages queued for one peer, likewise: what is in flight, and an answer to a peer that catches up.
pub const OUTBOX_LARGE_MESSAGES: usize = IN_FLIGHT_BLOCKS + 1;

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
    /// Frames of the blocks that one peer may have here unasked and not voted for.
    pub share: usize,
    /// Frames of an undecided chain on which more frames may be put.
    pub chain: usize,
    /// Frames of an undecided chain that may be voted for, and of the blocks that one peer was asked for by name.
    pub vote: usize,
    /// Large messages received from one peer and not yet handled.
    pub inbox: usize,
    /// Large messages queued for one peer.
    pub outbox: usize,
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
        let (frame, block) = (limits.frame_bytes as usize, limits.block_bytes as usize);
        let header = header_bytes(members);
        let certified_block = block + header + BLOCK_OVERHEAD_BYTES;
        let piece = min(PIECE_BYTES, block);
        let answer = max(piece, certified_block);
        let message = max(answer + PROOF_BYTES, FORWARD_BYTES + frame) + MESSAGE_OVERHEAD_BYTES;
        let link = message + MESSAGE_OVERHEAD_BYTES;
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
            share: SHARE_BLOCKS * block,
            chain: CHAIN_BLOCKS * block,
            vote: VOTE_BLOCKS * block,
            inbox: INBOX_LARGE_MESSAGES * link,
            outbox: OUTBOX_LARGE_MESSAGES * link,
        }
    }

    /// The relations that a configuration could break.
    ///
    /// # Errors
    /// The relation that does not hold.
    pub const fn check(&self) -> Result<(), &'static str> {
        if self.operation == 0 || self.operation >= self.frame || self.frame > self.block {
            return Err("operation_bytes < frame_bytes <= block_bytes, and none may be 0");
        }
        if self.link >= 1 << 30 {
            return Err("block_bytes is so large that the length of a message has no room in 30 bits");
        }
        Ok(())
    }
}

/// For the default limits and every number of members, and with it for every f.
const _: () = {
    let mut members = 1;
    while members <= MEMBERS_MAX {
        assert!(Bounds::new(&Limits::DEFAULT, members).check().is_ok());
        members += 1;
    }
    // A correct leader's blocks have room in its own share.
    assert!(IN_FLIGHT_BLOCKS < SHARE_BLOCKS);
    // A chain has room for hundreds of views that decide nothing.
    assert!(header_bytes(MEMBERS_MAX) <= CHAIN_HEADER_BYTES / 256);
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
        assert!(Bounds::new(&huge, 3).check().unwrap_err().contains("30 bits"));
    }
}
