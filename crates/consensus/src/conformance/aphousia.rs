//! Aphousia under test: how it starts from a disk, how it lies, how its messages read.

use super::{Cluster, Disk, Random, Subject};
use crate::aphousia::{
    Block, CertifiedBlock, Header, Instance, Message, Position, Recovered, Rules, Settings, Standard, inline_digest,
};
use std::{string::String, vec::Vec};
use unisono_types::{Certificate, Digest, Frame, ReplicaId, SequenceNumber, Step, View};

/// Rules that a cluster can be told to run by.
trait Variant: Rules {
    fn of(cluster: &Cluster) -> Self;
}

impl Variant for Standard {
    fn of(_: &Cluster) -> Self {
        Self
    }
}

#[cfg(any(test, feature = "planted"))]
impl Variant for crate::aphousia::planted::Planted {
    fn of(cluster: &Cluster) -> Self {
        let all = Self::ALL.into_iter().chain(Self::STORIES);
        all.into_iter().nth(cluster.variant()).expect("a variant that there is")
    }
}

impl<R: Variant> Subject for Instance<R> {
    fn open(cluster: &Cluster, id: ReplicaId, disk: &Disk) -> Self {
        let settings = Settings::new(id, cluster.host_signer(id), cluster.membership().clone());
        let committed = disk.committed();
        let recovered = Recovered {
            register: disk.register,
            proof: committed.as_ref().map(|(.., proof)| proof.clone()),
            committed: committed.map(|(sequence, hash, bytes, _)| (sequence, hash, bytes)),
            blocks: disk.above(),
            clock: disk.clock,
        };
        Self::with_rules(R::of(cluster), settings, recovered)
    }

    fn corrupt(cluster: &Cluster, message: &Message, random: &mut Random) -> Option<Message> {
        match message {
            Message::Block(CertifiedBlock { block, .. }) => {
                let (header, frames) = corrupt_header(block.header(), block.frames(), random);
                let block = Block::new(cluster.membership().configuration().cluster, header, frames);
                Some(Message::Block(CertifiedBlock { block, certificate: None, parent_certificate: None }))
            }
            Message::Frames(frames) => Some(Message::Frames(frames.iter().skip(1).cloned().collect())),
            Message::Status(position) => {
                let view = View(position.view.0.wrapping_add(random.below(5) as u32));
                let committed = SequenceNumber(if random.chance(300) { u64::MAX } else { random.below(200) });
                Some(Message::Status(Position { view, committed }))
            }
            Message::Ask(_) => Some(Message::Ask(SequenceNumber(random.below(100)))),
            Message::Echo(at) => Some(Message::Echo(at.wrapping_sub(random.below(10_000_000)))),
            Message::Fetch(_) => Some(Message::Fetch(Digest([random.next() as u8; 32]))),
            // The register signed the others, or a signature of a third party stands in them.
            _ => None,
        }
    }

    fn boast(message: &Message) -> Option<Message> {
        match message {
            Message::Status(position) => {
                Some(Message::Status(Position { committed: SequenceNumber(u64::MAX / 2), ..*position }))
            }
            _ => None,
        }
    }

    fn proposed(message: &Message) -> Option<Digest> {
        match message {
            Message::Block(CertifiedBlock { block, .. }) => Some(block.hash()),
            _ => None,
        }
    }

    fn vote(certificate: Certificate) -> Message {
        Message::Vote(certificate)
    }

    fn describe(message: &Message, name: &dyn Fn(Digest) -> String) -> String {
        let place = |header: &Header| format!("{:?}.{:?}", header.view, header.step);
        match message {
            Message::Block(CertifiedBlock { block, certificate, .. }) => {
                let header = block.header();
                let frames: Vec<String> = block.frames().iter().map(|frame| name(frame.id())).collect();
                let kind = if header.justification.is_some() { "NewView" } else { "block" };
                let certified = if certificate.is_some() { " certified" } else { "" };
                format!("{kind} {} {:?} [{}]{certified}", place(header), header.height, frames.join(" "))
            }
            Message::Vote(certificate) => {
                format!("vote {:?}.{:?}", certificate.vote.view.view(), certificate.vote.step)
            }
            Message::Wish(wish) => format!("wish {:?}", wish.statement.view),
            Message::ViewChange(entered) => {
                let last = entered.change.last;
                let wishes = entered.wishes.len();
                let view = entered.change.view.view();
                format!("view change {view:?} last {:?}.{:?} wishes {wishes}", last.view.view(), last.step)
            }
            Message::Frames(frames) => {
                let frames: Vec<String> = frames.iter().map(|frame| name(frame.id())).collect();
                format!("frames [{}]", frames.join(" "))
            }
            Message::Fetch(_) => "fetch".into(),
            Message::Status(position) => format!("status {:?} {:?}", position.view, position.committed),
            Message::Ask(after) => format!("ask after {after:?}"),
            Message::Decided(_) => "decided blocks".into(),
            Message::Probe(_) => "probe".into(),
            Message::Echo(_) => "echo".into(),
        }
    }
}

fn corrupt_header(header: &Header, frames: &[Frame], random: &mut Random) -> (Header, Vec<Frame>) {
    let mut header = header.clone();
    let mut frames = frames.to_vec();
    match random.below(10) {
        0 => header.timestamp.0 += 1,
        1 => {
            const DAY_MICROS: u64 = 24 * 3_600 * 1_000_000;
            let most = if random.chance(500) { 3_000_000 } else { DAY_MICROS };
            header.timestamp.0 = header.timestamp.0.saturating_add(random.below(most));
        }
        2 => header.timestamp.0 = 0,
        3 => frames.truncate(frames.len() / 2),
        4 => frames.reverse(),
        5 => header.parent.0[0] ^= 1,
        6 => header.step = Step(header.step.0 + 1),
        7 => header.height = SequenceNumber(header.height.0 + random.below(100)),
        8 => header.penalties.clear(),
        _ => {
            if let Some(justification) = &mut header.justification {
                // A lie about the base: another parent than the greatest last.
                let index = random.below(justification.changes.len() as u64) as usize;
                header.parent = justification.changes[index].last.hash;
            } else {
                header.timestamp.0 += 2;
            }
        }
    }
    header.inline = inline_digest(&frames);
    (header, frames)
}
