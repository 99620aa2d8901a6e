//! Aphousia in the simulator: how an instance is made from a log, and what a liar can say in its words.
//!
//! ```text
//!   own block  ──> the same place with other frames, another time, another parent, without its certificate
//!   own vote   ──> what its register signed, shown as a vote for something else
//!   own wish   ──> a wish for any view
//!   own change ──> without its wishes, with a last that it never had
//!   status     ──> any height and view;   decided ──> cut, in the wrong order, with the proof of another block
//! ```
//! Everything forged is well-formed and, where the liar's own keys suffice, correctly signed: it gets through the
//! gate and meets the protocol's rules.

mod lies;

use crate::lies::{Bend, Bent, Flood, Hearsay, Kind};
use crate::{Abuse, Algorithm, Identities, Planted, Random};
use unisono_consensus::aphousia::{
    self, CertifiedBlock, EnteredView, Header, Instance, Message, Position, Rules, Settings, Standard, inline_digest,
    planted::Planted as PlantedRule,
};
use unisono_node::log::Recovered;
use unisono_types::{
    Bytes, Certificate, Digest, Frame, Membership, Message as _, PublicKey, RegisterView, ReplicaId, SequenceNumber,
    Signed, Signer, Step, Timestamp, View, Wish, encode,
};

/// Rules that a plan can ask for.
pub trait Variant: Rules {
    /// Those of this plan.
    fn of(planted: Option<Planted>) -> Self;
}

impl Variant for Standard {
    fn of(_: Option<Planted>) -> Self {
        Self
    }
}

impl Variant for PlantedRule {
    fn of(planted: Option<Planted>) -> Self {
        match planted {
            Some(Planted::Agreement(rule)) => rule,
            other => unreachable!("{other:?} is no rule of agreement"),
        }
    }
}

impl<R: Variant> Algorithm for Instance<R> {
    const NAME: &'static str = "aphousia";

    fn create(
        replica: ReplicaId,
        signer: Signer,
        membership: Membership,
        recovered: &Recovered,
        planted: Option<Planted>,
    ) -> Self {
        let settings = Settings::new(replica, signer, membership);
        Self::with_rules(R::of(planted), settings, recovered.into())
    }

    fn parent(block: &Bytes) -> Option<Digest> {
        aphousia::parent_of(block)
    }

    fn vote(bytes: &Bytes) -> Option<Certificate> {
        lies::vote_of(bytes)
    }

    fn spoken(bytes: &Bytes) -> Option<(ReplicaId, (RegisterView, Step))> {
        lies::spoken(bytes)
    }

    fn kind(bytes: &Bytes) -> Kind {
        lies::kind(bytes)
    }

    fn bend(
        identities: &Identities,
        liar: ReplicaId,
        block: &Bytes,
        bend: Bend,
        hearsay: &mut Hearsay<'_>,
    ) -> Option<Bent> {
        lies::bend(identities, liar, block, bend, hearsay)
    }

    fn tamper(identities: &Identities, bytes: &Bytes, random: &mut Random) -> Option<Bytes> {
        lies::tamper(identities, bytes, random)
    }

    fn flood(identities: &Identities, liar: ReplicaId, flood: Flood, hearsay: &mut Hearsay<'_>) -> Option<Bytes> {
        lies::flood(identities, liar, flood, hearsay)
    }

    fn mentions(identities: &Identities, bytes: &Bytes, key: &PublicKey) -> bool {
        lies::mentions(identities, bytes, key)
    }

    fn forge(identities: &Identities, liar: ReplicaId, bytes: &Bytes, random: &mut Random) -> Vec<Bytes> {
        let Ok(message) = Message::parse(bytes.clone(), &identities.context) else { return Vec::new() };
        let signer = &identities.hosts[usize::from(liar.0)];
        let cluster = identities.context.cluster;
        match message {
            Message::Block(block) => vec![other_block(identities, &block, random)],
            Message::Vote(mut certificate) => {
                // Its signature covers something else: this must not get through.
                certificate.vote.hash = garbage(random);
                vec![encoded(&Message::Vote(certificate))]
            }
            Message::Wish(wish) => {
                let view = View(wish.statement.view.0.saturating_add(random.between(1, 3) as u32));
                let statement = Wish { epoch: wish.statement.epoch, view };
                vec![encoded(&Message::Wish(Signed::sign(cluster, liar, signer, statement)))]
            }
            Message::ViewChange(EnteredView { mut change, wishes }) => {
                let bare = encoded(&Message::ViewChange(EnteredView { change, wishes: Vec::new() }));
                change.last.hash = garbage(random);
                vec![bare, encoded(&Message::ViewChange(EnteredView { change, wishes }))]
            }
            Message::Status(position) => {
                let size = random.below(40);
                let committed = SequenceNumber(position.committed.0 + random.below(1 << size));
                let view = View(position.view.0.saturating_add(random.below(4) as u32));
                vec![encoded(&Message::Status(Position { view, committed }))]
            }
            Message::Ask(_) => vec![encoded(&Message::Ask(SequenceNumber(random.below(50))))],
            Message::Fetch(_) => vec![encoded(&Message::Fetch(garbage(random)))],
            Message::Frames(frames) => {
                frames.into_iter().take(2).map(|frame| encoded(&Message::Frames(vec![frame; 2]))).collect()
            }
            // A Byzantine echo: the distance seems to be any.
            Message::Probe(_) => vec![encoded(&Message::Probe(random.next_u64()))],
            Message::Echo(_) => vec![encoded(&Message::Echo(random.next_u64()))],
            Message::Decided(_) => Vec::new(),
        }
    }

    fn show(identities: &Identities, liar: ReplicaId, signed: &Abuse, random: &mut Random) -> Vec<Bytes> {
        match signed {
            Abuse::Vote(certificate) => vec![encoded(&Message::Vote(*certificate))],
            Abuse::Departure(change) => {
                let statement = Wish { epoch: change.view.epoch(), view: change.view.view() };
                let signer = &identities.hosts[usize::from(liar.0)];
                let wish = Signed::sign(identities.context.cluster, liar, signer, statement);
                let wishes = if random.chance(500) { Vec::new() } else { vec![wish] };
                vec![
                    encoded(&Message::Wish(wish)),
                    encoded(&Message::ViewChange(EnteredView { change: *change, wishes })),
                ]
            }
        }
    }
}

/// A block for the same place that says something else. Its certificate is left away: the liar's register signed one
/// hash for this place and no other.
fn other_block(identities: &Identities, block: &CertifiedBlock, random: &mut Random) -> Bytes {
    let mut header: Header = block.block.header().clone();
    let mut frames: Vec<Frame> = block.block.frames().to_vec();
    match random.below(6) {
        0 => frames.reverse(),
        1 => frames.truncate(random.index(frames.len() + 1)),
        2 => frames.extend(frames.clone()),
        3 => header.timestamp = Timestamp(header.timestamp.0.wrapping_add(random.below(1 << 45))),
        4 => header.parent = garbage(random),
        _ => header.step = Step(header.step.0 + random.between(1, 3)),
    }
    header.inline = inline_digest(&frames);
    let mut out = vec![0];
    let mut part = |bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    part(&encode(&header));
    let keeps = random.chance(200);
    let certificate = block.certificate.filter(|_| keeps);
    out.extend_from_slice(&encode(&certificate));
    out.extend_from_slice(&encode(&block.parent_certificate));
    out.extend_from_slice(&(frames.len() as u32).to_le_bytes());
    for frame in &frames {
        out.extend_from_slice(&(frame.wire().len() as u32).to_le_bytes());
        out.extend_from_slice(frame.wire());
    }
    let bytes = Bytes::from(out);
    let readable = Message::parse(bytes.clone(), &identities.context).is_ok();
    let moved = header.step != block.block.header().step; // a justification belongs to step 1
    debug_assert!(readable || keeps || moved, "a forged block meets the rules, not the parser");
    bytes
}

fn garbage(random: &mut Random) -> Digest {
    Digest::of("a liar's garbage", &[&random.next_u64().to_le_bytes()])
}

fn encoded(message: &Message) -> Bytes {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes.into()
}
