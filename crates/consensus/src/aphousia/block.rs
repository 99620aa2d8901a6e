//! Blocks: what the chain is made of, as bytes and as values. No rules here but those of form.
//!
//! ```text
//!   header  canonical (borsh) Header                       hash = H("unisono block 1", cluster, header bytes)
//!   block   u32 length | header
//!           u8 0/1 | certificate of its proposer           when it is known
//!           u8 0/1 | certificate of its parent's proposer  what a proposer writes down before it votes again
//!           u32 count | (u32 length | frame's wire bytes)*
//! ```
//! A header names its frames by their ids, which cover key and body, and their signatures ([`inline_digest`]): what proves
//! a block proves that they were checked. Frames are slices of the bytes received; nothing is re-encoded.
//!
//! Penalties stand in the header although they follow from the chain: so the rules need nothing but the parent's
//! header, and a restart or a truncated chain loses nothing. They are checked, never believed.

use alloc::{sync::Arc, vec::Vec};
use core::{fmt, hash};
use unisono_types::borsh::{BorshDeserialize, BorshSerialize};
use unisono_types::bounds::{BLOCK_OVERHEAD_BYTES, CERTIFICATE_BYTES, HEADER_CHARGE_BYTES};
use unisono_types::{
    Bytes, Certificate, Checkpoint, ClusterId, Digest, Epoch, Frame, Hasher, RegisterView, Rejected, ReplicaId,
    SequenceNumber, Signed, Step, Timestamp, VerifyContext, View, ViewChange, VotePosition, decode, encode,
};

/// Bytes of a frame's length prefix; counted into a block's size so that empty frames are not free.
pub(super) const FRAME_OVERHEAD_BYTES: usize = 4;

/// What replicas agree on. Everything else follows from a chain of these.
#[derive(Clone, PartialEq, Eq, Hash, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub struct Header {
    /// Of the configuration that the block belongs to.
    pub epoch: Epoch,
    /// Of the leader that proposed it.
    pub view: View,
    /// Place within the view, from 1.
    pub step: Step,
    /// Place within the order, from 1.
    pub height: SequenceNumber,
    /// Hash of the header before; of the first block: digest of the configuration.
    pub parent: Digest,
    /// Agreed time, never below the parent's.
    pub timestamp: Timestamp,
    /// [`inline_digest`] of the frames.
    pub inline: Digest,
    /// Who was penalised in this epoch, as of this block: the one penalised last stands last.
    pub penalties: Vec<Penalty>,
    /// Why this block may begin its view: at step 1 of every view but 0, nowhere else.
    pub justification: Option<Justification>,
}

/// A leader whose view ended without need, and until when it leads no later step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub struct Penalty {
    /// Who was penalised.
    pub member: ReplicaId,
    /// How often so far in this epoch, at most 16.
    pub count: u8,
    /// Last height at which it counts.
    pub until: SequenceNumber,
}

/// What a NewView stands on.
#[derive(Clone, PartialEq, Eq, Hash, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub struct Justification {
    /// q view changes for this very view, of distinct members, ascending.
    pub changes: Vec<ViewChange>,
    /// Empty, or f+1 signatures on one stable checkpoint, of distinct members, ascending.
    pub checkpoint: Vec<Signed<Checkpoint>>,
}

impl Header {
    /// Where a vote for this header stands.
    pub(super) fn register_view(&self) -> RegisterView {
        RegisterView::new(self.epoch, self.view)
    }

    /// (view, step): what positions are compared by.
    pub(super) const fn place(&self) -> (View, Step) {
        (self.view, self.step)
    }

    /// What the first block stands on: a header that nobody proposed, named by the configuration's digest.
    pub(super) const fn genesis(epoch: Epoch) -> Self {
        Self {
            epoch,
            view: View(0),
            step: Step(0),
            height: SequenceNumber(0),
            parent: Digest::ZERO,
            timestamp: Timestamp(0),
            inline: Digest::ZERO,
            penalties: Vec::new(),
            justification: None,
        }
    }

    /// Form alone: nothing here looks at another header.
    fn check_form(&self, context: &VerifyContext) -> Result<(), Rejected> {
        if self.epoch != context.membership.configuration().epoch {
            return Err(Rejected::Foreign);
        }
        let begins_later_view = self.view > View(0) && self.step == Step(1);
        let numbered = self.step >= Step(1) && self.height >= SequenceNumber(1);
        if !numbered || self.justification.is_some() != begins_later_view {
            return Err(Rejected::Inconsistent);
        }
        if self.penalties.len() > context.membership.len() {
            return Err(Rejected::TooLarge);
        }
        Ok(())
    }
}

/// A header with its frames. Cheap to clone; compared by hash, which fixes all that is ordered.
#[derive(Clone)]
pub struct Block(Arc<Parts>);

struct Parts {
    header: Header,
    hash: Digest,
    header_bytes: Bytes,
    frames: Vec<Frame>,
    frame_bytes: usize,
}

impl Block {
    /// A new block. The caller has put [`inline_digest`] of `frames` into `header`.
    #[must_use]
    pub fn new(cluster: ClusterId, header: Header, frames: Vec<Frame>) -> Self {
        let header_bytes: Bytes = encode(&header).into();
        let hash = header_hash(cluster, &header_bytes);
        let frame_bytes = frames.iter().map(|frame| frame.wire().len() + FRAME_OVERHEAD_BYTES).sum();
        Self(Arc::new(Parts { header, hash, header_bytes, frames, frame_bytes }))
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.0.header
    }

    /// Names the block.
    #[must_use]
    pub fn hash(&self) -> Digest {
        self.0.hash
    }

    /// What it orders.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.0.frames
    }

    /// How many bytes it takes in memory, on its way and in a log, at most.
    pub(super) fn bytes(&self) -> usize {
        self.0.frame_bytes + self.0.header_bytes.len() + BLOCK_OVERHEAD_BYTES
    }

    /// Bytes of its frames alone.
    pub(super) fn frame_bytes(&self) -> usize {
        self.0.frame_bytes
    }

    /// What its header counts for among those of a chain: at least as much as it takes in a proof.
    pub(super) fn header_charge(&self) -> usize {
        (self.0.header_bytes.len() + size_of::<u32>()).max(HEADER_CHARGE_BYTES)
    }

    pub(super) fn header_bytes(&self) -> &Bytes {
        &self.0.header_bytes
    }

    /// The position of a vote for this block.
    pub(super) fn position(&self) -> VotePosition {
        VotePosition { view: self.header().register_view(), step: self.header().step, hash: self.hash() }
    }
}

impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        self.0.hash == other.0.hash
    }
}

impl Eq for Block {}

impl hash::Hash for Block {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.0.hash.hash(state);
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header();
        write!(f, "block {:?} {:?}.{:?} {:?}", self.hash(), header.view, header.step, header.height)
    }
}

/// A block with the certificates that travel and are stored with it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct CertifiedBlock {
    /// The block.
    pub block: Block,
    /// Its proposer's certificate, when known. Which replica that must be is a matter of the chain.
    pub certificate: Option<Certificate>,
    /// The parent's, when the proposer had to write it down.
    pub parent_certificate: Option<Certificate>,
}

impl CertifiedBlock {
    /// A block of which no certificate is known yet.
    pub(super) const fn bare(block: Block) -> Self {
        Self { block, certificate: None, parent_certificate: None }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let Parts { header_bytes, frames, frame_bytes, .. } = &*self.block.0;
        out.reserve(header_bytes.len() + frame_bytes);
        put_bytes(out, header_bytes);
        for certificate in [&self.certificate, &self.parent_certificate] {
            out.extend_from_slice(&encode(certificate));
        }
        out.extend_from_slice(&length(frames.len()));
        for frame in frames {
            put_bytes(out, frame.wire());
        }
    }

    /// As a log holds it.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.encode(&mut out);
        out.into()
    }

    /// Reads one from a cursor: bounds and form, no signatures.
    pub(super) fn parse(cursor: &mut Cursor, context: &VerifyContext) -> Result<Self, Rejected> {
        let limits = &context.membership.configuration().limits;
        let header_bytes_max = context.membership.bounds().header;
        let header_bytes = cursor.sized(header_bytes_max)?;
        let header: Header = decode(&header_bytes, header_bytes_max).map_err(|_| Rejected::Malformed)?;
        header.check_form(context)?;
        let hash = header_hash(context.cluster, &header_bytes);
        let certificate = cursor.certificate()?;
        let parent_certificate = cursor.certificate()?;
        let binds = |certificate: &Option<Certificate>, view, step, hash| {
            certificate.is_none_or(|c| c.vote == VotePosition { view, step, hash })
        };
        if !binds(&certificate, header.register_view(), header.step, hash)
            || parent_certificate.is_some_and(|c| c.vote.hash != header.parent)
        {
            return Err(Rejected::Inconsistent);
        }
        let count = cursor.number()? as usize;
        // Every frame takes its prefix at least: a claimed count allocates nothing that the bytes cannot fill.
        let mut frames = Vec::with_capacity(count.min(cursor.rest() / FRAME_OVERHEAD_BYTES));
        let mut frame_bytes = 0;
        for _ in 0..count {
            let wire = cursor.sized(limits.frame_bytes as usize)?;
            frame_bytes += wire.len() + FRAME_OVERHEAD_BYTES;
            if frame_bytes > limits.block_bytes as usize {
                return Err(Rejected::TooLarge);
            }
            frames.push(Frame::parse(context.cluster, wire, limits.frame_bytes as usize)?);
        }
        if inline_digest(&frames) != header.inline {
            return Err(Rejected::Inconsistent);
        }
        let block = Block(Arc::new(Parts { header, hash, header_bytes, frames, frame_bytes }));
        Ok(Self { block, certificate, parent_certificate })
    }

    /// Reads one that takes all of `bytes`, as a log holds it.
    ///
    /// # Errors
    /// [`Rejected`] when the bytes are no block.
    pub fn parse_all(bytes: &Bytes, context: &VerifyContext) -> Result<Self, Rejected> {
        let mut cursor = Cursor::new(bytes.clone());
        let block = Self::parse(&mut cursor, context)?;
        cursor.end()?;
        Ok(block)
    }
}

/// What a header says about its frames.
#[must_use]
pub fn inline_digest(frames: &[Frame]) -> Digest {
    let mut hasher = Hasher::new("unisono inline 2");
    for frame in frames {
        hasher.part(&frame.id().0);
        hasher.part(&frame.signature().0);
    }
    hasher.finish()
}

fn header_hash(cluster: ClusterId, header_bytes: &[u8]) -> Digest {
    Digest::of("unisono block 1", &[&cluster.0, header_bytes])
}

/// A header read back from its bytes, with its hash.
pub(super) fn parse_header(bytes: &Bytes, context: &VerifyContext) -> Result<(Header, Digest), Rejected> {
    let header: Header = decode(bytes, context.membership.bounds().header).map_err(|_| Rejected::Malformed)?;
    header.check_form(context)?;
    Ok((header, header_hash(context.cluster, bytes)))
}

/// The parent of a block, from its bytes as a log holds them: the header stands first, its length in front.
#[must_use]
pub fn parent_of(block: &Bytes) -> Option<Digest> {
    let (length, rest) = block.split_first_chunk::<4>()?;
    let header = rest.get(..u32::from_le_bytes(*length) as usize)?;
    decode::<Header>(header, header.len()).ok().map(|header| header.parent)
}

/// Appends a length-prefixed part.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&length(bytes.len()));
    out.extend_from_slice(bytes);
}

/// A length or count as it travels. Everything that is encoded is far below 4 GiB.
pub(super) fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

/// Reads from the front of received bytes; everything taken is a slice of them.
pub(super) struct Cursor(Bytes);

impl Cursor {
    pub(super) const fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(super) fn rest(&self) -> usize {
        self.0.len()
    }

    pub(super) fn take(&mut self, count: usize) -> Result<Bytes, Rejected> {
        if count > self.0.len() {
            return Err(Rejected::Malformed);
        }
        Ok(self.0.split_to(count))
    }

    pub(super) fn byte(&mut self) -> Result<u8, Rejected> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn number(&mut self) -> Result<u32, Rejected> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(super) fn long(&mut self) -> Result<u64, Rejected> {
        let (low, high) = (self.number()?, self.number()?);
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    pub(super) fn sized(&mut self, limit: usize) -> Result<Bytes, Rejected> {
        let length = self.number()? as usize;
        if length > limit {
            return Err(Rejected::TooLarge);
        }
        self.take(length)
    }

    pub(super) fn value<T: BorshDeserialize>(&mut self, limit: usize) -> Result<T, Rejected> {
        let bytes = self.sized(limit)?;
        decode(&bytes, limit).map_err(|_| Rejected::Malformed)
    }

    fn certificate(&mut self) -> Result<Option<Certificate>, Rejected> {
        match self.byte()? {
            0 => Ok(None),
            1 => decode(&self.take(CERTIFICATE_BYTES)?, CERTIFICATE_BYTES).map(Some).map_err(|_| Rejected::Malformed),
            _ => Err(Rejected::Malformed),
        }
    }

    /// All of it was read.
    pub(super) fn end(&self) -> Result<(), Rejected> {
        if self.0.is_empty() { Ok(()) } else { Err(Rejected::Malformed) }
    }
}
