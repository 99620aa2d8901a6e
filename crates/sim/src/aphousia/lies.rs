//! False statements in Aphousia's words, each wrong in one respect, certified or signed with the liar's own keys.
//!
//! ```text
//!   bend    own block ──> the same place, one thing changed ──(the register signs)──> proposal, vote or last
//!   tamper  decided blocks with other signatures under the same hashes: who takes them on trust passes them on
//!   flood   what costs its receivers more than its sender
//! ```

use super::{encoded, garbage};
use crate::lies::{Bend, Bent, Flood, Hearsay, Kind};
use crate::plan::SECOND;
use crate::{Identities, Random};
use unisono_consensus::Consensus;
use unisono_consensus::aphousia::{
    Aphousia, Block, CertifiedBlock, EnteredView, Header, Justification, Message, Penalty, Position, inline_digest,
    planted::penalties,
};
use unisono_types::{
    Bytes, Certificate, Checkpoint, Digest, Frame, FrameBody, Message as _, PublicKey, RegisterView, ReplicaId,
    SequenceNumber, SessionId, Signature, Signed, Signer, Step, SystemEntry, Timestamp, View, Wish, decode,
};

/// Frames in one message of a flood: many signatures to check in few events.
const FLOOD_FRAMES: u64 = 16;

/// Leads over the clocks that are worth trying: below, at and above what is tolerated after some time-outs.
const LEADS: [u64; 7] = [
    SECOND / 2 - 1_000,
    SECOND / 2 + 1_000,
    2 * SECOND - 1_000,
    8 * SECOND,
    31 * SECOND,
    59 * SECOND,
    5_184_000 * SECOND,
];

/// More than a vote or a view change takes.
const SMALL_BYTES_MAX: usize = 64 << 10;

/// What a message is about, by its first byte. A test holds this against the codec.
pub(super) fn kind(bytes: &Bytes) -> Kind {
    match bytes.first() {
        Some(0) => Kind::Block,
        Some(1) => Kind::Vote,
        Some(4) => Kind::Frames,
        Some(5) => Kind::Fetch,
        Some(6) => Kind::Status,
        Some(7) => Kind::Ask,
        Some(8) => Kind::Decided,
        _ => Kind::Other,
    }
}

/// The certificate that a message consists of.
pub(super) fn vote_of(bytes: &Bytes) -> Option<Certificate> {
    let value = bytes.get(5..).filter(|_| kind(bytes) == Kind::Vote)?;
    decode(value, SMALL_BYTES_MAX).ok()
}

/// Whose register signed a vote or a view change, and where it stands with that.
pub(super) fn spoken(bytes: &Bytes) -> Option<(ReplicaId, (RegisterView, Step))> {
    let value = bytes.get(5..)?;
    match bytes.first() {
        Some(1) => {
            let certificate = vote_of(bytes)?;
            Some((certificate.replica, (certificate.vote.view, certificate.vote.step)))
        }
        Some(3) => {
            let entered: EnteredView = decode(value, SMALL_BYTES_MAX).ok()?;
            Some((entered.change.replica, (entered.change.view, Step(0))))
        }
        _ => None,
    }
}

/// See [`crate::Factory::bend`]. Of a block that somebody else proposed only the vote can be bent.
pub(super) fn bend(
    identities: &Identities,
    liar: ReplicaId,
    block: &Bytes,
    bend: Bend,
    hearsay: &mut Hearsay<'_>,
) -> Option<Bent> {
    let honest = CertifiedBlock::parse_all(block, &identities.context).ok()?;
    let mut header = honest.block.header().clone();
    let mut frames = honest.block.frames().to_vec();
    let view = RegisterView::new(header.epoch, header.view);
    match bend {
        Bend::HashOfAnother => return Some(vote(view, header.step, header.parent)),
        Bend::HashOfNothing => {
            let step = Step(header.step.0 + hearsay.random.below(3));
            return Some(vote(view, step, garbage(hearsay.random)));
        }
        Bend::FramesReversed => frames.reverse(),
        Bend::FramesLeftOut => frames.truncate(hearsay.random.index(frames.len() + 1)),
        Bend::FramesDoubled => frames.extend(frames.clone()),
        Bend::FramesOfStrangers => {
            frames.extend((0..4).map(|_| strangers_frame(identities, hearsay.random)));
        }
        _ => bend_header(identities, liar, &mut header, bend, hearsay)?,
    }
    header.inline = inline_digest(&frames);
    let step = header.step;
    let parent_certificate = honest.parent_certificate.filter(|certificate| certificate.vote.hash == header.parent);
    let block = Block::new(identities.context.cluster, header, frames);
    let hash = block.hash();
    if hash == honest.block.hash() {
        return None;
    }
    let show = Box::new(move |certificate| {
        let certified = CertifiedBlock { block, certificate: Some(certificate), parent_certificate };
        vec![encoded(&Message::Block(certified)), encoded(&Message::Vote(certificate))]
    });
    Some(Bent { view, step, hash, show })
}

/// A certificate with no block of its own.
fn vote(view: RegisterView, step: Step, hash: Digest) -> Bent {
    Bent { view, step, hash, show: Box::new(|certificate| vec![encoded(&Message::Vote(certificate))]) }
}

fn bend_header(
    identities: &Identities,
    liar: ReplicaId,
    header: &mut Header,
    bend: Bend,
    hearsay: &mut Hearsay<'_>,
) -> Option<()> {
    let parent = |header: &Header| -> Option<Header> {
        let bytes = (hearsay.known)(&header.parent)?;
        Some(CertifiedBlock::parse_all(&bytes, &identities.context).ok()?.block.header().clone())
    };
    match bend {
        Bend::TimeAhead => header.timestamp = Timestamp(header.timestamp.0.saturating_add(hearsay.random.pick(&LEADS))),
        Bend::TimeBack => {
            let before = parent(header).map_or(Timestamp(0), |parent| parent.timestamp);
            header.timestamp = if hearsay.random.chance(700) { before } else { Timestamp(before.0.saturating_sub(1)) };
        }
        Bend::ParentUnknown => header.parent = garbage(hearsay.random),
        Bend::ParentSkipped => {
            header.parent = parent(header)?.parent;
            if hearsay.random.chance(500) {
                header.height = header.height.previous()?;
            }
        }
        Bend::Height => {
            let ahead = hearsay.random.pick(&[1, 2, 100, u64::MAX / 2]);
            header.height = SequenceNumber(header.height.0 + ahead);
        }
        Bend::StepSkipped => header.step = Step(header.step.0 + hearsay.random.between(1, 3)),
        Bend::Penalties => {
            let member = ReplicaId(hearsay.random.index(identities.hosts.len()) as u16);
            if header.penalties.pop().is_none() {
                header.penalties.push(Penalty { member, count: 1, until: SequenceNumber(header.height.0 + 2) });
            }
        }
        Bend::Justification => bend_changes(header.justification.as_mut()?, hearsay.random),
        Bend::BaseLowered => {
            let base = parent(header).filter(|_| header.justification.is_some())?;
            let below = parent(&base)?;
            header.parent = base.parent;
            header.height = below.height.next();
            header.penalties = penalties(identities.membership(), header.view, Step(1), &below);
        }
        Bend::CheckpointForged => {
            let (epoch, sequence) = (header.epoch, header.height.previous()?);
            let statement = Checkpoint { epoch, sequence, header: header.parent, root: garbage(hearsay.random) };
            let signer = &identities.hosts[usize::from(liar.0)];
            let signed = Signed::sign(identities.context.cluster, liar, signer, statement);
            let needed = identities.membership().quorum().one_correct();
            // Others' names under its own signature: as far as one key goes.
            let named = (0..needed as u16).map(|other| Signed { replica: ReplicaId(other), ..signed });
            header.justification.as_mut()?.checkpoint = named.collect();
        }
        _ => return None,
    }
    Some(())
}

fn bend_changes(Justification { changes, .. }: &mut Justification, random: &mut Random) {
    match random.below(3) {
        0 => drop(changes.pop()),
        1 if changes.len() > 1 => changes[0] = changes[1],
        _ => {
            let one = random.index(changes.len());
            if let Some(change) = changes.get_mut(one) {
                change.last.step = Step(change.last.step.0.saturating_sub(1));
            }
        }
    }
}

/// See [`crate::Factory::tamper`]. The hashes, and with them what is ordered, stay.
pub(super) fn tamper(identities: &Identities, bytes: &Bytes, random: &mut Random) -> Option<Bytes> {
    match Message::parse(bytes.clone(), &identities.context).ok()? {
        Message::Block(block) => Some(encoded(&Message::Block(tampered(identities, block, random)?))),
        Message::Decided(decided) => {
            let mut blocks = decided.blocks().to_vec();
            let place = random.index(blocks.len());
            let block = CertifiedBlock::parse_all(blocks.get(place)?, &identities.context).ok()?;
            blocks[place] = tampered(identities, block, random)?.to_bytes();
            Some(encoded(&<Aphousia as Consensus>::provide(decided.committed(), blocks, decided.proof().clone())))
        }
        _ => None,
    }
}

fn tampered(identities: &Identities, block: CertifiedBlock, random: &mut Random) -> Option<CertifiedBlock> {
    let mut block = block;
    let frames = block.block.frames();
    match random.below(4) {
        0 => block.certificate = None,
        1 => block.certificate.as_mut()?.signature = Signature([7; 64]),
        2 => block.parent_certificate.as_mut()?.signature = Signature([7; 64]),
        _ => {
            let mut frames = frames.to_vec();
            let place = random.index(frames.len());
            let mut wire = frames.get(place)?.wire().to_vec();
            wire[32] ^= 1; // the key stands in front of the signature, and is covered by the frame's id
            frames[place] = Frame::parse(identities.context.cluster, wire.into(), usize::MAX).ok()?;
            block.block = Block::new(identities.context.cluster, block.block.header().clone(), frames);
        }
    }
    Some(block)
}

/// See [`crate::Factory::flood`].
pub(super) fn flood(
    identities: &Identities,
    liar: ReplicaId,
    flood: Flood,
    hearsay: &mut Hearsay<'_>,
) -> Option<Bytes> {
    let cluster = identities.context.cluster;
    let signer = &identities.hosts[usize::from(liar.0)];
    let random = &mut *hearsay.random;
    let block = hearsay
        .block
        .and_then(|bytes| CertifiedBlock::parse_all(bytes, &identities.context).ok())
        .map(|block| block.block);
    Some(encoded(&match flood {
        Flood::Wishes => {
            let view = View(hearsay.view.0.saturating_add(random.pick(&[1, 1, 1, 2, 5, 1_000])));
            let epoch = identities.membership().configuration().epoch;
            Message::Wish(Signed::sign(cluster, liar, signer, Wish { epoch, view }))
        }
        Flood::StrangersFrames => {
            Message::Frames((0..FLOOD_FRAMES).map(|_| strangers_frame(identities, random)).collect())
        }
        Flood::OwnEntries => {
            let entry = random.pick(&[SystemEntry::Flush, SystemEntry::Mark, SystemEntry::Expire]);
            let body = |nonce| FrameBody::System { entry, nonce };
            Message::Frames((0..4).map(|_| Frame::sign(cluster, signer, body(random.next_u64()))).collect())
        }
        Flood::OldFrames => Message::Frames(block.filter(|block| !block.frames().is_empty())?.frames().to_vec()),
        Flood::FarBlocks => Message::Block(made_up(identities, &block?, random.between(70, 10_000), random)),
        Flood::NearBlocks => Message::Block(made_up(identities, &block?, random.between(1, 60), random)),
        Flood::Fetches => Message::Fetch(garbage(random)),
        Flood::Asks => Message::Ask(SequenceNumber(random.below(4))),
        Flood::Boasts => {
            let committed = SequenceNumber(random.pick(&[1 << 20, u64::MAX / 2]));
            Message::Status(Position { view: hearsay.view, committed })
        }
        Flood::Duplicates => return None,
    }))
}

/// A block that stands on nothing, so far above another one.
fn made_up(identities: &Identities, block: &Block, above: u64, random: &mut Random) -> CertifiedBlock {
    let mut header = block.header().clone();
    (header.parent, header.justification, header.view) = (garbage(random), None, header.view.max(View(1)));
    header.step = Step(header.step.0.max(2) + above);
    header.height = SequenceNumber(header.height.0 + above);
    let frames = block.frames().to_vec();
    header.inline = inline_digest(&frames);
    let block = Block::new(identities.context.cluster, header, frames);
    CertifiedBlock { block, certificate: None, parent_certificate: None }
}

/// The smallest frame there is, by a key of this moment.
fn strangers_frame(identities: &Identities, random: &mut Random) -> Frame {
    let signer = identities.stranger(random.next_u64());
    Frame::sign(identities.context.cluster, &signer, FrameBody::Close { session: SessionId(random.below(1 << 20)) })
}

/// See [`crate::Factory::mentions`].
pub(super) fn mentions(identities: &Identities, bytes: &Bytes, key: &PublicKey) -> bool {
    // Parsing costs: only what can bring frames to somebody who proposes is read.
    kind(bytes) == Kind::Frames
        && matches!(Message::parse(bytes.clone(), &identities.context),
            Ok(Message::Frames(frames)) if frames.iter().any(|frame| frame.key() == *key))
}

impl Identities {
    /// The key of somebody whom no configuration knows.
    fn stranger(&self, number: u64) -> Signer {
        let mut seed = [0xa7; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        match self.universe {
            Some(universe) => Signer::keyed(universe, number | 1 << 63),
            None => Signer::ed25519(&seed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Plan;
    use unisono_types::Rejected;

    fn identities() -> Identities {
        Identities::new(&Plan::calm(1, 3))
    }

    fn block(identities: &Identities, justified: bool) -> (CertifiedBlock, CertifiedBlock) {
        let mut random = Random::new(1);
        let frames = vec![strangers_frame(identities, &mut random), strangers_frame(identities, &mut random)];
        let configuration = identities.membership().configuration();
        let header = |step, height, parent, view, justification| Header {
            epoch: configuration.epoch,
            view: View(view),
            step: Step(step),
            height: SequenceNumber(height),
            parent,
            timestamp: Timestamp(height * SECOND),
            inline: inline_digest(&frames),
            penalties: Vec::new(),
            justification,
        };
        let bare = |header, frames: &Vec<Frame>| CertifiedBlock {
            block: Block::new(identities.context.cluster, header, frames.clone()),
            certificate: None,
            parent_certificate: None,
        };
        let below = bare(header(1, 1, garbage(&mut random), 0, None), &frames);
        let justification = Justification { changes: Vec::new(), checkpoint: Vec::new() };
        let above = match justified {
            true => header(1, 2, below.block.hash(), 1, Some(justification)),
            false => header(2, 2, below.block.hash(), 0, None),
        };
        (below, bare(above, &frames))
    }

    #[test]
    fn kinds_are_those_of_the_codec() {
        let identities = identities();
        let (below, _) = block(&identities, false);
        for (message, expected) in [
            (Message::Block(below), Kind::Block),
            (Message::Frames(Vec::new()), Kind::Frames),
            (Message::Fetch(Digest::ZERO), Kind::Fetch),
            (Message::Status(Position { view: View(0), committed: SequenceNumber(0) }), Kind::Status),
            (Message::Ask(SequenceNumber(0)), Kind::Ask),
            (<Aphousia as Consensus>::provide(SequenceNumber(0), Vec::new(), Bytes::new()), Kind::Decided),
        ] {
            assert_eq!(kind(&encoded(&message)), expected);
        }
    }

    #[test]
    fn what_is_bent_is_well_formed_and_another_statement() {
        let identities = identities();
        for one in Bend::ALL {
            let justified = matches!(one, Bend::Justification | Bend::BaseLowered | Bend::CheckpointForged);
            let (below, above) = block(&identities, justified);
            let known = |hash: &Digest| (*hash == below.block.hash()).then(|| below.to_bytes());
            let bent = (0..20).find_map(|seed| {
                let mut random = Random::new(seed);
                let mut hearsay = Hearsay { view: View(0), block: None, known: &known, random: &mut random };
                bend(&identities, ReplicaId(0), &above.to_bytes(), one, &mut hearsay)
            });
            // A base can be lowered, and view changes left out, only where there are some.
            if matches!(one, Bend::Justification | Bend::BaseLowered) && bent.is_none() {
                continue;
            }
            let bent = bent.unwrap_or_else(|| panic!("{one:?}"));
            assert_ne!(bent.hash, above.block.hash(), "{one:?}");
            let mut register =
                unisono_trusted::Register::new(identities.registers[0].0, identities.registers[0].1.clone());
            let _ = unisono_trusted::VoteRegister::advance(&mut register, bent.view);
            let signed = unisono_trusted::VoteRegister::certify(&mut register, bent.view, bent.step, bent.hash);
            for message in (bent.show)(signed.expect("an honest register signs one statement for a place")) {
                assert!(Message::parse(message, &identities.context).is_ok(), "{one:?}");
            }
        }
    }

    #[test]
    fn what_is_tampered_with_keeps_its_header() {
        let identities = identities();
        let (block, _) = block(&identities, false);
        let (state, signer) = &identities.registers[0];
        let mut register = unisono_trusted::Register::new(*state, signer.clone());
        let (header, hash) = (block.block.header(), block.block.hash());
        let signed = unisono_trusted::VoteRegister::certify(
            &mut register,
            RegisterView::new(header.epoch, header.view),
            header.step,
            hash,
        )
        .unwrap();
        let block = CertifiedBlock { certificate: Some(signed), ..block };
        let bytes = encoded(&Message::Block(block.clone()));
        let changed = (0..40).filter_map(|seed| tamper(&identities, &bytes, &mut Random::new(seed)));
        let (mut by_certificate, mut by_frame) = (0, 0);
        for other in changed {
            match Message::parse(other, &identities.context) {
                Ok(Message::Block(other)) => {
                    assert_eq!(other.block.hash(), block.block.hash());
                    assert_ne!(other.certificate, block.certificate);
                    by_certificate += 1;
                }
                // The header names the signatures of its frames.
                other => {
                    assert_eq!(other, Err(Rejected::Inconsistent));
                    by_frame += 1;
                }
            }
        }
        assert!(by_certificate > 0 && by_frame > 0);
    }

    #[test]
    fn every_flood_gets_through_the_gate() {
        let identities = identities();
        let (below, _) = block(&identities, false);
        let bytes = below.to_bytes();
        for one in Flood::ALL.into_iter().filter(|one| *one != Flood::Duplicates) {
            let mut random = Random::new(5);
            let mut hearsay = Hearsay { view: View(0), block: Some(&bytes), known: &|_| None, random: &mut random };
            let message = flood(&identities, ReplicaId(1), one, &mut hearsay).unwrap_or_else(|| panic!("{one:?}"));
            let message = Message::parse(message, &identities.context).unwrap_or_else(|e| panic!("{one:?}: {e}"));
            assert!(unisono_types::Unverified::new(message).verify(&identities.context).is_ok(), "{one:?}");
        }
    }
}
