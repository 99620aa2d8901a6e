//! What a vote register signs. The rules by which it does, and the verification, are in `unisono-trusted`.

use crate::{ClusterId, Digest, Incarnation, PublicKey, RegisterView, ReplicaId, Signature, Step};
use borsh::{BorshDeserialize, BorshSerialize};

/// Names one life of one vote register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub struct RegisterId {
    /// The cluster.
    pub cluster: ClusterId,
    /// Which of the replica's registers: an algorithm may use several.
    pub group: u8,
    /// The replica that it serves.
    pub replica: ReplicaId,
    /// Which life.
    pub incarnation: Incarnation,
    /// Its key.
    pub key: PublicKey,
}

/// What a register voted for: view, step and the hash of a block header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct VotePosition {
    /// The view.
    pub view: RegisterView,
    /// The step; 0 only in the `last` of a register that never voted.
    pub step: Step,
    /// Hash of the header. The register does not read it: (view, step) and the header are bound by the verifier.
    pub hash: Digest,
}

/// "I, the register of this replica, vote for this position", at most once for each (view, step), steps growing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub struct Certificate {
    /// The replica.
    pub replica: ReplicaId,
    /// What it votes for.
    pub vote: VotePosition,
    /// `Sig(id, "C", view, step, hash)`.
    pub signature: Signature,
}

/// "I have entered this view and will never vote below it again; this was my last vote."
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub struct ViewChange {
    /// The replica.
    pub replica: ReplicaId,
    /// The view entered.
    pub view: RegisterView,
    /// The last vote before.
    pub last: VotePosition,
    /// `Sig(id, "V", view, last)`.
    pub signature: Signature,
}

/// "At the time of this nonce I stood here."
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub struct Attestation {
    /// The replica.
    pub replica: ReplicaId,
    /// Chosen by who asks.
    pub nonce: [u8; 32],
    /// The view.
    pub view: RegisterView,
    /// The step.
    pub step: Step,
    /// The last vote.
    pub last: VotePosition,
    /// `Sig(id, "A", nonce, view, step, last)`.
    pub signature: Signature,
}
