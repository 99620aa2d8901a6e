//! What travels between clients and replicas. Replies carry no signature: each link is authenticated by its pinned
//! key, and nobody else has to believe them.

use crate::{Digest, Epoch, Outcome, ReplicaId, RequestNumber, SequenceNumber, SessionId, codec};
use alloc::vec::Vec;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;

/// From a client to a replica.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum ClientMessage {
    /// A signed frame in its wire form.
    Frame(Bytes),
}

/// From a replica to a client: all that it has to say just now.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Reply {
    /// The replica's epoch; a client that sees a newer one fetches the configuration.
    pub epoch: Epoch,
    /// Whom the replica takes for the leader: a hint where to send first.
    pub leader: ReplicaId,
    /// The newest decision the replica has executed: a client needs a recent one to open a session.
    pub executed: SequenceNumber,
    /// The answers.
    pub answers: Vec<Answer>,
}

/// One answer. The client accepts it when f+1 replicas give the same.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, BorshSerialize, BorshDeserialize)]
pub enum Answer {
    /// To a request.
    Executed {
        /// The session.
        session: SessionId,
        /// The request.
        number: RequestNumber,
        /// Its outcome, or the digest of it.
        body: ReplyBody,
    },
    /// To an Open with this nonce.
    Opened {
        /// The nonce.
        nonce: u64,
        /// The new session.
        session: SessionId,
    },
    /// To an Open with this nonce that the order refused.
    NotOpened {
        /// The nonce.
        nonce: u64,
        /// Why.
        reason: Refusal,
    },
    /// The session is not open (any more): closed, expired, or never opened by this key.
    NoSession {
        /// The session.
        session: SessionId,
    },
}

/// Why a session was not opened.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize, thiserror::Error,
)]
pub enum Refusal {
    /// The key may not open sessions.
    #[error("this client key is not registered with the cluster: use a key from the cluster's client directory")]
    UnknownKey,
    /// As many sessions are open as the cluster allows.
    #[error("the cluster has no session left: close some, or raise the limit `sessions`")]
    TooManySessions,
    /// The frame is too old to tell whether it was used before.
    #[error("the request to open a session is too old: try again")]
    TooOld,
}

/// One replica sends the outcome, the others its digest (short outcomes are sent by all).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, BorshSerialize, BorshDeserialize)]
pub enum ReplyBody {
    /// The outcome.
    Full(Outcome),
    /// [`ReplyBody::digest_of`] the outcome.
    Digest(Digest),
}

impl ReplyBody {
    /// What a replica votes with when another one sends the outcome whole.
    #[must_use]
    pub fn digest_of(outcome: &Outcome) -> Digest {
        Digest::of("unisono outcome 1", &[&codec::encode(outcome)])
    }

    /// The digest, computed for a full one.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self {
            Self::Full(outcome) => Self::digest_of(outcome),
            Self::Digest(digest) => *digest,
        }
    }
}
