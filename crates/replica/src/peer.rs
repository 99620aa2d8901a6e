//! What replicas say to each other: what consensus says, and a little about checkpoints.
//!
//! ```text
//!   kind (1)  0 consensus: its own bytes    1 checkpoint    2 checkpoint wanted    3 leaves wanted    4 leaves
//!             5 grants wanted    6 grants    7 a frame of the sender's own
//! ```

use alloc::{string::String, vec::Vec};
use borsh::{BorshDeserialize, BorshSerialize};
use core::fmt;
use unisono_types::{
    Bytes, Checkpoint, Digest, Frame, Message, Position, Rejected, SequenceNumber, Signed, Verify, VerifyContext,
    decode,
};

/// Objects in one [`Leaves`] at most: about 64 KiB of usual names.
pub(crate) const LEAVES_MAX: usize = 1_024;

/// Grants in one [`Grants`] at most: about 128 KiB of usual names.
pub(crate) const GRANTS_MAX: usize = 1_024;

/// Bytes of names in one [`Leaves`] or [`Grants`] at most, so that the message stays far below what a link carries.
pub(crate) const NAME_BYTES_MAX: usize = 256 << 10;

/// Bytes of any message here but those of consensus: a full [`Leaves`] or [`Grants`] with room to spare.
const SMALL_BYTES_MAX: usize = 512 << 10;

/// From one replica to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerMessage<M> {
    /// Consensus to consensus.
    Consensus(M),
    /// "My state at this Mark has this root."
    Checkpoint(Signed<Checkpoint>),
    /// "Send me your checkpoint of this Mark": f+1 have not reached me in time.
    CheckpointWanted(SequenceNumber),
    /// "My root differs from yours: what have you got?"
    LeavesRequest(LeavesRequest),
    /// The answer.
    Leaves(Leaves),
    /// "My grants differ from yours: which were they?"
    GrantsRequest(GrantsRequest),
    /// The answer.
    Grants(Grants),
    /// "Order this frame of mine": what the outside said to a call. Agreement would show it to the leader only when it
    /// had waited for a while, as clients send theirs to everybody.
    Submission(Frame),
}

/// Asks for grants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct GrantsRequest {
    /// The first one's number.
    pub from: u64,
}

/// Answers a [`GrantsRequest`]. Only one replica's word: it names what differs, it decides nothing.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Grants {
    /// As asked.
    pub from: u64,
    /// Grants of that number or more that are still kept, ascending.
    pub grants: Vec<GrantRecord>,
}

/// A grant of a lock, in a round that has ended. The same on all replicas.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct GrantRecord {
    /// Counted from the beginning.
    pub number: u64,
    /// In which round.
    pub round: u64,
    /// To which request.
    pub position: Position,
    /// To which child of which child of the request's own thread, whose path is empty.
    pub path: Vec<u16>,
    /// Which lock, as people know it.
    pub lock: String,
    /// To own it alone.
    pub write: bool,
    /// How many writers owned it before, since it was last idle.
    pub writers_before: u64,
}

impl fmt::Display for GrantRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { round, position, lock, writers_before, .. } = self;
        write!(f, "lock {lock} {}", if self.write { "for writing" } else { "for reading" })?;
        write!(f, " behind {writers_before} writers, in round {round}, to request {position:?}")?;
        if !self.path.is_empty() {
            write!(f, ", its child {:?}", self.path)?;
        }
        Ok(())
    }
}

/// Asks for the parts of a root and a page of objects.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct LeavesRequest {
    /// The Mark at which the roots differ.
    pub sequence: SequenceNumber,
    /// Objects behind this one; the first ones without.
    pub after: Option<String>,
}

/// Answers a [`LeavesRequest`]. Only one replica's word: it names what differs, it decides nothing.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Leaves {
    /// As asked.
    pub sequence: SequenceNumber,
    /// As asked.
    pub after: Option<String>,
    /// What the root at `sequence` was made from, if still known.
    pub parts: Option<Parts>,
    /// The Mark that `leaves` belong to, the sender's last.
    pub marked: SequenceNumber,
    /// Objects behind `after`.
    pub leaves: Vec<(String, Digest)>,
    /// Whether there are more behind them.
    pub more: bool,
}

/// What a root is made from, apart from height and configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Parts {
    /// Root over all objects.
    pub objects: Digest,
    /// The scheduler's state.
    pub scheduler: Digest,
    /// The table of sessions.
    pub sessions: Digest,
    /// All grants so far.
    pub grants: Digest,
}

impl<M: Message> Verify for PeerMessage<M> {
    fn verify(&self, context: &VerifyContext) -> Result<(), Rejected> {
        match self {
            Self::Consensus(message) => message.verify(context),
            Self::Checkpoint(signed) => signed.verify(context),
            Self::Submission(frame) => frame.verify(context),
            Self::Leaves(leaves) if leaves.leaves.len() > LEAVES_MAX => Err(Rejected::TooLarge),
            Self::Grants(grants) if grants.grants.len() > GRANTS_MAX => Err(Rejected::TooLarge),
            Self::CheckpointWanted(_)
            | Self::LeavesRequest(_)
            | Self::Leaves(_)
            | Self::GrantsRequest(_)
            | Self::Grants(_) => Ok(()),
        }
    }
}

impl<M: Message> Message for PeerMessage<M> {
    fn encode(&self, out: &mut Vec<u8>) {
        fn put<T: BorshSerialize>(out: &mut Vec<u8>, kind: u8, value: &T) {
            out.push(kind);
            out.extend_from_slice(&unisono_types::encode(value));
        }
        match self {
            Self::Consensus(message) => {
                out.push(0);
                message.encode(out);
            }
            Self::Checkpoint(signed) => put(out, 1, signed),
            Self::CheckpointWanted(sequence) => put(out, 2, sequence),
            Self::LeavesRequest(request) => put(out, 3, request),
            Self::Leaves(leaves) => put(out, 4, leaves),
            Self::GrantsRequest(request) => put(out, 5, request),
            Self::Grants(grants) => put(out, 6, grants),
            Self::Submission(frame) => {
                out.push(7);
                out.extend_from_slice(frame.wire());
            }
        }
    }

    fn parse(bytes: Bytes, context: &VerifyContext) -> Result<Self, Rejected> {
        fn get<T: BorshDeserialize>(bytes: &[u8]) -> Result<T, Rejected> {
            if bytes.len() > SMALL_BYTES_MAX {
                return Err(Rejected::TooLarge);
            }
            decode(bytes, SMALL_BYTES_MAX).map_err(|_| Rejected::Malformed)
        }
        let kind = *bytes.first().ok_or(Rejected::Malformed)?;
        let rest = bytes.slice(1..);
        Ok(match kind {
            0 => Self::Consensus(M::parse(rest, context)?),
            1 => Self::Checkpoint(get(&rest)?),
            2 => Self::CheckpointWanted(get(&rest)?),
            3 => Self::LeavesRequest(get(&rest)?),
            4 => Self::Leaves(get(&rest)?),
            5 => Self::GrantsRequest(get(&rest)?),
            6 => Self::Grants(get(&rest)?),
            7 => {
                let limit = context.membership.configuration().limits.frame_bytes as usize;
                Self::Submission(Frame::parse(context.cluster, rest, limit)?)
            }
            _ => return Err(Rejected::Malformed),
        })
    }
}
