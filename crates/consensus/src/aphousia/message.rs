//! What instances of Aphousia say to each other, and all checks that need no state: bounds and form when a message is
//! read, signatures when it is verified. What comes through is well-formed and signed; it may still be a lie.

use super::block::{Block, CertifiedBlock, Cursor, Header, Justification, length, parse_header, put_bytes};
use alloc::{collections::BTreeSet, vec::Vec};
use unisono_trusted::{verify_certificate, verify_view_change};
use unisono_types::borsh::{BorshDeserialize, BorshSerialize};
use unisono_types::bounds::{PROOF_BYTES, VIEW_CHANGE_BYTES, WISH_BYTES};
use unisono_types::{
    Bytes, Certificate, Digest, Frame, Rejected, ReplicaId, SequenceNumber, Signed, Verify, VerifyContext, View,
    ViewChange, VotePosition, Wish, decode, encode,
};

pub(super) use unisono_types::bounds::FORWARD_BYTES;

/// One certificate, one wish, one number: all small and fixed.
const SMALL_BYTES: usize = 128;

/// A message between instances.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// A proposal, or the answer to a [`Message::Fetch`].
    Block(CertifiedBlock),
    /// A vote. The proposer's own makes its block valid.
    Vote(Certificate),
    /// Let us leave this view.
    Wish(Signed<Wish>),
    /// I have left all views below, with the f+1 wishes that made me.
    ViewChange(EnteredView),
    /// Frames that I wait for: order them, or help me see to it.
    Frames(Vec<Frame>),
    /// Send me the block of this name.
    Fetch(Digest),
    /// Where I stand.
    Status(Position),
    /// I have decided up to here; send me what comes next.
    Ask(SequenceNumber),
    /// Consecutive decided blocks, with the proof that the last is decided.
    Decided(Decided),
    /// Say this back to me: how far are you? By the sender's monotonic clock.
    Probe(u64),
    /// The answer.
    Echo(u64),
}

/// Where a replica stands, as it says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub struct Position {
    /// Its view.
    pub view: View,
    /// Its last decision.
    pub committed: SequenceNumber,
}

/// A view change with what shows that it was lawful. The wishes may be missing after a restart: then it convinces
/// nobody to follow, but still counts for who is in that view.
#[derive(Clone, PartialEq, Eq, Hash, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub struct EnteredView {
    /// What the register signed.
    pub change: ViewChange,
    /// Of distinct members, ascending: f+1 for this view or later, or none.
    pub wishes: Vec<Signed<Wish>>,
}

/// Decided blocks, as bytes of a log and, when they came from the network, already read.
#[derive(Clone, Debug)]
pub struct Decided {
    committed: SequenceNumber,
    blocks: Vec<Bytes>,
    proof: Bytes,
    read: Option<(Vec<CertifiedBlock>, Proof)>,
}

impl Decided {
    /// From the bytes of consecutive records and a proof, by a replica that has come to `committed`.
    pub(super) const fn new(committed: SequenceNumber, blocks: Vec<Bytes>, proof: Bytes) -> Self {
        Self { committed, blocks, proof, read: None }
    }

    /// How far the sender says that it is.
    #[must_use]
    pub const fn committed(&self) -> SequenceNumber {
        self.committed
    }

    /// The bytes of the blocks, as a log holds them.
    #[must_use]
    pub fn blocks(&self) -> &[Bytes] {
        &self.blocks
    }

    /// The bytes of the proof.
    #[must_use]
    pub const fn proof(&self) -> &Bytes {
        &self.proof
    }

    /// The blocks and the proof, read now if they did not come through [`unisono_types::Message::parse`] (a host may
    /// pass messages by value). They are checked by [`Verify`] either way.
    pub(super) fn read(self, context: &VerifyContext) -> Result<(Vec<CertifiedBlock>, Proof), Rejected> {
        match self.read {
            Some(read) => Ok(read),
            None => Self::read_parts(&self.blocks, &self.proof, context),
        }
    }

    fn read_parts(
        blocks: &[Bytes],
        proof: &Bytes,
        context: &VerifyContext,
    ) -> Result<(Vec<CertifiedBlock>, Proof), Rejected> {
        let blocks: Result<Vec<_>, _> = blocks.iter().map(|bytes| CertifiedBlock::parse_all(bytes, context)).collect();
        Ok((blocks?, Proof::parse(proof, context)?))
    }
}

impl PartialEq for Decided {
    fn eq(&self, other: &Self) -> bool {
        (self.committed, &self.blocks, &self.proof) == (other.committed, &other.blocks, &other.proof)
    }
}

impl Eq for Decided {}

impl core::hash::Hash for Decided {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.committed.hash(state);
        self.blocks.hash(state);
        self.proof.hash(state);
    }
}

/// Shows anyone that a block is decided: q certificates of its view, each naming the block or one above it, and the
/// headers between.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Proof {
    /// Of distinct members.
    pub certificates: Vec<Certificate>,
    /// From the block's child up to the newest one named.
    pub headers: Vec<Bytes>,
}

#[derive(BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
struct ProofBytes {
    certificates: Vec<Certificate>,
    headers: Vec<Vec<u8>>,
}

impl Proof {
    pub(super) fn to_bytes(&self) -> Bytes {
        let headers = self.headers.iter().map(|header| header.to_vec()).collect();
        encode(&ProofBytes { certificates: self.certificates.clone(), headers }).into()
    }

    pub(super) fn parse(bytes: &Bytes, context: &VerifyContext) -> Result<Self, Rejected> {
        let proof: ProofBytes = decode(bytes, PROOF_BYTES).map_err(|_| Rejected::Malformed)?;
        if proof.certificates.len() > context.membership.len() {
            return Err(Rejected::TooLarge);
        }
        let headers = proof.headers.into_iter().map(Bytes::from).collect();
        Ok(Self { certificates: proof.certificates, headers })
    }

    /// The same votes, showing that the first of `blocks` is decided: those above it are its descendants.
    pub(super) fn of_ancestor(&self, above: &[&Block]) -> Self {
        let between = above.iter().map(|block| block.header_bytes().clone());
        Self { certificates: self.certificates.clone(), headers: between.chain(self.headers.iter().cloned()).collect() }
    }

    /// The headers between `block` and the newest one named, each naming the one before it, with their hashes.
    pub(super) fn above(&self, block: &Block, context: &VerifyContext) -> Result<Vec<(Header, Digest)>, Rejected> {
        let mut above: Vec<(Header, Digest)> = Vec::with_capacity(self.headers.len());
        for bytes in &self.headers {
            let (child, child_hash) = parse_header(bytes, context)?;
            let (parent, parent_hash) =
                above.last().map_or_else(|| (block.header(), block.hash()), |(header, hash)| (header, *hash));
            if child.parent != parent_hash || child.height != parent.height.next() {
                return Err(Rejected::Inconsistent);
            }
            above.push((child, child_hash));
        }
        Ok(above)
    }

    /// Whether this shows that `block` is decided, signatures included.
    ///
    /// The commit rule: q replicas have certificates in one view, each naming exactly the (view, step) of a header of
    /// that view. Then the lowest one named and all its ancestors are decided; `block` is it or one of them. Whether
    /// the headers are valid is checked against the chain that the block stands on, by who has that chain.
    pub(super) fn verify(&self, block: &Block, context: &VerifyContext) -> Result<(), Rejected> {
        let above = self.above(block, context)?;
        let named = |vote: &VotePosition| {
            let is = |header: &Header, hash: Digest| {
                *vote == VotePosition { view: header.register_view(), step: header.step, hash }
            };
            is(block.header(), block.hash()) || above.iter().any(|(header, hash)| is(header, *hash))
        };
        let view = self.certificates.first().map(|certificate| certificate.vote.view);
        let mut voters = BTreeSet::new();
        for certificate in &self.certificates {
            let counts = named(&certificate.vote) && Some(certificate.vote.view) == view;
            if !counts || !voters.insert(certificate.replica) {
                return Err(Rejected::Inconsistent);
            }
            verify_certificate(certificate, context)?;
        }
        if voters.len() < context.membership.quorum().commit() {
            return Err(Rejected::Inconsistent);
        }
        Ok(())
    }
}

/// Each block names the one before it, and the proof fits the last. That is all: one of those q voters is correct and has
/// checked the frames' signatures, which the hashes cover, and certificates that come along are not kept.
fn check_decided(blocks: &[CertifiedBlock], proof: &Proof, context: &VerifyContext) -> Result<(), Rejected> {
    let follows = |pair: &[CertifiedBlock]| {
        let (parent, child) = (&pair[0].block, pair[1].block.header());
        child.parent == parent.hash() && child.height == parent.header().height.next()
    };
    if !blocks.windows(2).all(follows) {
        return Err(Rejected::Inconsistent);
    }
    let last = blocks.last().ok_or(Rejected::Malformed)?;
    proof.verify(&last.block, context)
}

const BLOCK: u8 = 0;
const VOTE: u8 = 1;
const WISH: u8 = 2;
const VIEW_CHANGE: u8 = 3;
const FRAMES: u8 = 4;
const FETCH: u8 = 5;
const STATUS: u8 = 6;
const ASK: u8 = 7;
const DECIDED: u8 = 8;
const PROBE: u8 = 9;
const ECHO: u8 = 10;

impl unisono_types::Message for Message {
    fn encode(&self, out: &mut Vec<u8>) {
        fn small<T: BorshSerialize>(out: &mut Vec<u8>, kind: u8, value: &T) {
            out.push(kind);
            put_bytes(out, &encode(value));
        }
        match self {
            Self::Block(block) => {
                out.push(BLOCK);
                block.encode(out);
            }
            Self::Vote(certificate) => small(out, VOTE, certificate),
            Self::Wish(wish) => small(out, WISH, wish),
            Self::ViewChange(entered) => small(out, VIEW_CHANGE, entered),
            Self::Frames(frames) => {
                out.push(FRAMES);
                out.extend_from_slice(&length(frames.len()));
                frames.iter().for_each(|frame| put_bytes(out, frame.wire()));
            }
            Self::Fetch(hash) => small(out, FETCH, hash),
            Self::Status(position) => small(out, STATUS, position),
            Self::Ask(after) => small(out, ASK, after),
            Self::Probe(at) => small(out, PROBE, at),
            Self::Echo(at) => small(out, ECHO, at),
            Self::Decided(decided) => {
                out.push(DECIDED);
                out.extend_from_slice(&decided.committed.0.to_le_bytes());
                put_bytes(out, &decided.proof);
                out.extend_from_slice(&length(decided.blocks.len()));
                decided.blocks.iter().for_each(|block| put_bytes(out, block));
            }
        }
    }

    fn parse(bytes: Bytes, context: &VerifyContext) -> Result<Self, Rejected> {
        let limits = &context.membership.configuration().limits;
        let members = context.membership.len();
        let mut cursor = Cursor::new(bytes);
        let message = match cursor.byte()? {
            BLOCK => Self::Block(CertifiedBlock::parse(&mut cursor, context)?),
            VOTE => Self::Vote(cursor.value(SMALL_BYTES)?),
            WISH => Self::Wish(cursor.value(SMALL_BYTES)?),
            VIEW_CHANGE => Self::ViewChange(cursor.value(VIEW_CHANGE_BYTES + 4 + members * WISH_BYTES)?),
            FRAMES => {
                let count = cursor.number()? as usize;
                if cursor.rest() > FORWARD_BYTES + limits.frame_bytes as usize {
                    return Err(Rejected::TooLarge);
                }
                let mut frames = Vec::with_capacity(count.min(cursor.rest() / 128));
                for _ in 0..count {
                    let wire = cursor.sized(limits.frame_bytes as usize)?;
                    frames.push(Frame::parse(context.cluster, wire, limits.frame_bytes as usize)?);
                }
                Self::Frames(frames)
            }
            FETCH => Self::Fetch(cursor.value(SMALL_BYTES)?),
            STATUS => Self::Status(cursor.value(SMALL_BYTES)?),
            ASK => Self::Ask(cursor.value(SMALL_BYTES)?),
            PROBE => Self::Probe(cursor.value(SMALL_BYTES)?),
            ECHO => Self::Echo(cursor.value(SMALL_BYTES)?),
            DECIDED => {
                let bounds = context.membership.bounds();
                let committed = SequenceNumber(cursor.long()?);
                let proof = cursor.sized(bounds.proof)?;
                let count = cursor.number()? as usize;
                if cursor.rest() > bounds.answer {
                    return Err(Rejected::TooLarge);
                }
                let mut blocks = Vec::with_capacity(count.min(cursor.rest() / 64));
                for _ in 0..count {
                    blocks.push(cursor.sized(bounds.answer)?);
                }
                let read = Some(Decided::read_parts(&blocks, &proof, context)?);
                Self::Decided(Decided { committed, blocks, proof, read })
            }
            _ => return Err(Rejected::Malformed),
        };
        cursor.end()?;
        Ok(message)
    }
}

impl Message {
    /// Signatures that [`Verify`] checks in it: what a host may count against its sender before it checks any.
    #[must_use]
    pub fn signatures(&self) -> usize {
        match self {
            Self::Block(CertifiedBlock { block, certificate, parent_certificate }) => {
                let justified =
                    |Justification { changes, checkpoint }: &Justification| changes.len() + checkpoint.len();
                let justification = block.header().justification.as_ref().map_or(0, justified);
                let certificates = [certificate, parent_certificate].into_iter().flatten().count();
                certificates + justification + block.frames().len()
            }
            Self::Vote(_) | Self::Wish(_) => 1,
            Self::ViewChange(entered) => 1 + entered.wishes.len(),
            Self::Frames(frames) => frames.len(),
            Self::Fetch(_) | Self::Status(_) | Self::Ask(_) | Self::Probe(_) | Self::Echo(_) => 0,
            Self::Decided(decided) => decided.read.as_ref().map_or(0, |(_, proof)| proof.certificates.len()),
        }
    }
}

impl Verify for Message {
    fn verify(&self, context: &VerifyContext) -> Result<(), Rejected> {
        match self {
            Self::Block(CertifiedBlock { block, certificate, parent_certificate }) => {
                for certificate in [certificate, parent_certificate].into_iter().flatten() {
                    verify_certificate(certificate, context)?;
                }
                if let Some(justification) = &block.header().justification {
                    verify_justification(block.header(), justification, context)?;
                }
                block.frames().iter().try_for_each(|frame| frame.verify(context))
            }
            Self::Vote(certificate) => verify_certificate(certificate, context),
            Self::Wish(wish) => wish.verify(context),
            Self::ViewChange(entered) => {
                verify_view_change(&entered.change, context)?;
                let wishes = &entered.wishes;
                let wished = wishes.iter().all(|wish| wish.statement.view >= entered.change.view.view());
                let enough = wishes.is_empty() || wishes.len() == context.membership.quorum().one_correct();
                if !wished || !enough || !ascending(wishes.iter().map(|wish| wish.replica)) {
                    return Err(Rejected::Inconsistent);
                }
                wishes.iter().try_for_each(|wish| wish.verify(context))
            }
            Self::Frames(frames) => frames.iter().try_for_each(|frame| frame.verify(context)),
            Self::Fetch(_) | Self::Status(_) | Self::Ask(_) | Self::Probe(_) | Self::Echo(_) => Ok(()),
            Self::Decided(decided) => match &decided.read {
                Some((blocks, proof)) => check_decided(blocks, proof, context),
                None => {
                    let (blocks, proof) = decided.clone().read(context)?;
                    check_decided(&blocks, &proof, context)
                }
            },
        }
    }
}

fn verify_justification(
    header: &Header,
    justification: &Justification,
    context: &VerifyContext,
) -> Result<(), Rejected> {
    let Justification { changes, checkpoint } = justification;
    let quorum = context.membership.quorum();
    let for_this_view = changes.iter().all(|change| change.view == header.register_view());
    let one = checkpoint.windows(2).all(|pair| pair[0].statement == pair[1].statement);
    let consistent = for_this_view
        && changes.len() == quorum.commit()
        && ascending(changes.iter().map(|change| change.replica))
        && one
        && (checkpoint.is_empty() || checkpoint.len() == quorum.one_correct())
        && ascending(checkpoint.iter().map(|signed| signed.replica));
    if !consistent {
        return Err(Rejected::Inconsistent);
    }
    changes.iter().try_for_each(|change| verify_view_change(change, context))?;
    checkpoint.iter().try_for_each(|signed| signed.verify(context))
}

fn ascending(mut replicas: impl Iterator<Item = ReplicaId>) -> bool {
    let Some(mut before) = replicas.next() else { return true };
    replicas.all(|replica| core::mem::replace(&mut before, replica) < replica)
}
