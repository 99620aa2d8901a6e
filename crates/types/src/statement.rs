//! Statements of replicas that others must be able to pass on: each is signed on its own with the host key, since the
//! signature of a frame or a link cannot be passed on.

use crate::{ClusterId, Digest, Epoch, Rejected, ReplicaId, SequenceNumber, Signature, Signer, View, codec};
use crate::{Verify, VerifyContext};
use borsh::{BorshDeserialize, BorshSerialize};

/// Something that a replica states.
pub trait Statement: BorshSerialize {
    /// Keeps statements of different types apart under the signature.
    const DOMAIN: &'static str;
    /// The epoch that the statement belongs to.
    fn epoch(&self) -> Epoch;
}

/// "I want to leave every view below this one."
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub struct Wish {
    /// The epoch.
    pub epoch: Epoch,
    /// The view wished for.
    pub view: View,
}

impl Statement for Wish {
    const DOMAIN: &'static str = "unisono wish 1";

    fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// "Having executed the order up to here, my state has this root, and my log up to here is durable."
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub struct Checkpoint {
    /// The epoch.
    pub epoch: Epoch,
    /// The decision that holds the Mark.
    pub sequence: SequenceNumber,
    /// Digest of that decision's header: what agreement may stand on.
    pub header: Digest,
    /// Root of the state.
    pub root: Digest,
}

impl Statement for Checkpoint {
    const DOMAIN: &'static str = "unisono checkpoint 1";

    fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// A statement with the signature of one member's host key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub struct Signed<T> {
    /// Who says so.
    pub replica: ReplicaId,
    /// What it says.
    pub statement: T,
    /// On `H(domain, cluster, replica, statement)`.
    pub signature: Signature,
}

impl<T: Statement> Signed<T> {
    /// Signs with this replica's host key.
    #[must_use]
    pub fn sign(cluster: ClusterId, replica: ReplicaId, signer: &Signer, statement: T) -> Self {
        let signature = signer.sign(&signing_digest(cluster, replica, &statement).0);
        Self { replica, statement, signature }
    }
}

fn signing_digest<T: Statement>(cluster: ClusterId, replica: ReplicaId, statement: &T) -> Digest {
    Digest::of(T::DOMAIN, &[&cluster.0, &replica.0.to_le_bytes(), &codec::encode(statement)])
}

impl<T: Statement> Verify for Signed<T> {
    fn verify(&self, context: &VerifyContext) -> Result<(), Rejected> {
        let member = context.membership.member(self.replica).ok_or(Rejected::NotAMember)?;
        if self.statement.epoch() != context.membership.configuration().epoch {
            return Err(Rejected::Foreign);
        }
        let digest = signing_digest(context.cluster, self.replica, &self.statement);
        if context.verifier.verify(&member.host_key, &digest.0, &self.signature) {
            Ok(())
        } else {
            Err(Rejected::BadSignature)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Membership, Verifier, membership::tests::configuration};

    #[test]
    fn a_statement_counts_for_its_signer_and_epoch_only() {
        let signer = Signer::ed25519(&[1; 32]);
        let mut configuration = configuration(3);
        configuration.members[1].host_key = signer.public_key();
        let cluster = configuration.cluster;
        let membership = Membership::new(configuration).unwrap();
        let context = VerifyContext { cluster, verifier: Verifier::ed25519(), membership };
        let wish = Wish { epoch: Epoch(0), view: View(3) };
        let signed = Signed::sign(cluster, ReplicaId(1), &signer, wish);
        assert_eq!(signed.verify(&context), Ok(()));
        let other = Signed { replica: ReplicaId(2), ..signed };
        assert_eq!(other.verify(&context), Err(Rejected::BadSignature));
        let changed = Signed { statement: Wish { view: View(4), ..wish }, ..signed };
        assert_eq!(changed.verify(&context), Err(Rejected::BadSignature));
        let late = Signed::sign(cluster, ReplicaId(1), &signer, Wish { epoch: Epoch(1), view: View(3) });
        assert_eq!(late.verify(&context), Err(Rejected::Foreign));
        let stranger = Signed { replica: ReplicaId(7), ..signed };
        assert_eq!(stranger.verify(&context), Err(Rejected::NotAMember));
    }
}
