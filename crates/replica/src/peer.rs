//! What replicas say to each other: what consensus says, and a little about checkpoints.
//!
//! ```text
//!   kind (1)  0 consensus: its own bytes    1 checkpoint    2 checkpoint wanted    3 leaves wanted    4 leaves
//! ```

use alloc::{string::String, vec::Vec};
use borsh::{BorshDeserialize, BorshSerialize};
use unisono_types::{
    Bytes, Checkpoint, Digest, Message, Rejected, SequenceNumber, Signed, Verify, VerifyContext, decode,
};

/// Objects in one [`Leaves`] at most: about 64 KiB of usual names.
pub(crate) const LEAVES_MAX: usize = 1_024;

/// Bytes of names in one [`Leaves`] at most, so that the message stays far below what a link carries.
pub(crate) const LEAVES_NAME_BYTES_MAX: usize = 256 << 10;

/// Bytes of any message here but those of consensus: a full [`Leaves`] with room to spare.
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
}

impl<M: Message> Verify for PeerMessage<M> {
    fn verify(&self, context: &VerifyContext) -> Result<(), Rejected> {
        match self {
            Self::Consensus(message) => message.verify(context),
            Self::Checkpoint(signed) => signed.verify(context),
            Self::Leaves(leaves) if leaves.leaves.len() > LEAVES_MAX => Err(Rejected::TooLarge),
            Self::CheckpointWanted(_) | Self::LeavesRequest(_) | Self::Leaves(_) => Ok(()),
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
            _ => return Err(Rejected::Malformed),
        })
    }
}
