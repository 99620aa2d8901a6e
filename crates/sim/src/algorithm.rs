//! Agreement algorithms that the simulator can run: how each is made from a disk, and how a liar lies in it.

use crate::{Abuse, Disk, Identities, Planted, Random};
use unisono_consensus::{Consensus, Decision};
use unisono_types::{Bytes, Digest, Membership, Message as _, ReplicaId, SequenceNumber, Signer, VerifyContext};

/// One algorithm.
pub trait Algorithm: Consensus + Sized + 'static {
    /// Its name in configurations and on the command line.
    const NAME: &'static str;

    /// An instance as the disk leaves it; on an empty one, a first start.
    fn create(
        replica: ReplicaId,
        signer: Signer,
        membership: Membership,
        disk: &Disk,
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

    /// The hash of the block before, from a block's bytes as its log holds them.
    fn parent(block: &Bytes) -> Option<Digest>;

    /// The decisions that the disk's own log holds, from the first on, in order.
    #[must_use]
    fn decided(disk: &Disk, context: &VerifyContext) -> Vec<Decision> {
        let blocks = disk.decided(SequenceNumber(1), Self::parent).into_iter();
        blocks.map(|block| Self::decision(&block.bytes, context).expect("our own log holds blocks")).collect()
    }
}
