//! Agreement algorithms that the simulator can run: how each is made from a disk, and how a liar lies in it.

use crate::lies::{Bend, Bent, Flood, Hearsay, Kind};
use crate::{Abuse, Identities, Planted, Random};
use unisono_consensus::Consensus;
use unisono_node::log::Recovered;
use unisono_types::{
    Bytes, Certificate, Digest, Membership, Message as _, PublicKey, RegisterView, ReplicaId, Signer, Step,
};

/// One algorithm.
pub trait Algorithm: Consensus + Sized + 'static {
    /// Its name in configurations and on the command line.
    const NAME: &'static str;

    /// An instance as its log leaves it.
    fn create(
        replica: ReplicaId,
        signer: Signer,
        membership: Membership,
        recovered: &Recovered,
        planted: Option<Planted>,
    ) -> Self;

    /// What a message says, for traces.
    #[must_use]
    fn describe(identities: &Identities, bytes: &Bytes) -> String {
        match Self::Message::parse(bytes.clone(), &identities.context) {
            Ok(message) => format!("{message:?}"),
            Err(reason) => format!("{} bytes, {reason}", bytes.len()),
        }
    }

    /// Messages that a liar makes of one it is about to send.
    fn forge(identities: &Identities, liar: ReplicaId, bytes: &Bytes, random: &mut Random) -> Vec<Bytes>;

    /// Messages that show what a liar had its register sign.
    fn show(identities: &Identities, liar: ReplicaId, signed: &Abuse, random: &mut Random) -> Vec<Bytes>;

    /// See [`crate::Factory::kind`].
    #[must_use]
    fn kind(bytes: &Bytes) -> Kind {
        let _ = bytes;
        Kind::Other
    }

    /// See [`crate::Factory::bend`].
    fn bend(
        identities: &Identities,
        liar: ReplicaId,
        block: &Bytes,
        bend: Bend,
        hearsay: &mut Hearsay<'_>,
    ) -> Option<Bent> {
        let _ = (identities, liar, block, bend, hearsay);
        None
    }

    /// See [`crate::Factory::tamper`].
    fn tamper(identities: &Identities, bytes: &Bytes, random: &mut Random) -> Option<Bytes> {
        let _ = (identities, bytes, random);
        None
    }

    /// See [`crate::Factory::flood`].
    fn flood(identities: &Identities, liar: ReplicaId, flood: Flood, hearsay: &mut Hearsay<'_>) -> Option<Bytes> {
        let _ = (identities, liar, flood, hearsay);
        None
    }

    /// Whether a message brings frames signed with this key.
    #[must_use]
    fn mentions(identities: &Identities, bytes: &Bytes, key: &PublicKey) -> bool {
        let _ = (identities, bytes, key);
        false
    }

    /// The hash of the block before, from a block's bytes as its log holds them.
    fn parent(block: &Bytes) -> Option<Digest>;

    /// The vote that this message is, its signature unchecked.
    #[must_use]
    fn vote(bytes: &Bytes) -> Option<Certificate> {
        let _ = bytes;
        None
    }

    /// Whose register signed what this message shows, and where it stands with that.
    #[must_use]
    fn spoken(bytes: &Bytes) -> Option<(ReplicaId, (RegisterView, Step))> {
        let _ = bytes;
        None
    }
}
