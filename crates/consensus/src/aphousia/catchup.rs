//! Getting what is missing: single blocks by name, decided ones with their proof. And giving it, within bounds.
//!
//! What a peer says about where it stands only decides whom to ask; what comes is proven by hashes and certificates.

use super::block::CertifiedBlock;
use super::message::{Decided, Message, Position};
use super::votes::AHEAD_MAX;
use super::{Instance, Node, Rules, reading_context};
use crate::{Output, Provide};
use alloc::{collections::BTreeMap, vec::Vec};
use unisono_types::{Digest, ReplicaId, SequenceNumber, Time};

/// Blocks asked for by name at once, for each peer that named them.
const WANTS_MAX: usize = 8;
/// After so many fruitless rounds a name is forgotten: garbage has names too. A correct voter names it again.
const ATTEMPTS_MAX: u32 = 12;
/// Decided blocks in one answer.
const ANSWER_BYTES: usize = 1 << 20;
/// An unanswered question may be put to another peer after this time.
const ASK_MICROS: u64 = 100_000;
/// What one peer may draw from us per second: bytes and answers. Far above what a correct laggard takes in.
const SERVED_BYTES_MAX: usize = 256 << 20;
const SERVED_ANSWERS_MAX: u32 = 1_024;
const SERVED_WINDOW_MICROS: u64 = 1_000_000;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Want {
    /// Who named it.
    from: ReplicaId,
    attempts: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Served {
    since: u64,
    bytes: usize,
    answers: u32,
    /// The last place that decided blocks were asked from, and when it was answered.
    after: SequenceNumber,
    at: u64,
    /// When a peer that is behind was last told so.
    told: u64,
}

/// See the module. Bounded by the membership.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct CatchUp {
    wants: BTreeMap<Digest, Want>,
    /// How far each peer says that it is.
    heights: BTreeMap<ReplicaId, SequenceNumber>,
    /// Who was asked last, and when.
    asked: Option<(ReplicaId, u64)>,
    served: BTreeMap<ReplicaId, Served>,
}

impl CatchUp {
    /// A block has come; whether it was asked for.
    pub(super) fn arrived(&mut self, hash: &Digest) -> bool {
        self.wants.remove(hash).is_some()
    }

    pub(super) fn forget_wants(&mut self) {
        self.wants.clear();
    }

    pub(super) fn has_work(&self, height: SequenceNumber) -> bool {
        !self.wants.is_empty() || self.heights.values().any(|claimed| *claimed > height)
    }

    /// Takes from the peer's budget; whether there was enough.
    fn may_serve(&mut self, peer: ReplicaId, bytes: usize, now: u64) -> bool {
        let served = self.served.entry(peer).or_default();
        if now.saturating_sub(served.since) >= SERVED_WINDOW_MICROS {
            *served = Served { since: now, bytes: 0, answers: 0, ..*served };
        }
        served.bytes = served.bytes.saturating_add(bytes);
        served.answers = served.answers.saturating_add(1);
        served.bytes <= SERVED_BYTES_MAX && served.answers <= SERVED_ANSWERS_MAX
    }
}

impl<R: Rules> Instance<R> {
    /// Asks `from` for the block of this name, once now and again with every retry, then of others in turn.
    pub(super) fn want(&mut self, hash: Digest, from: ReplicaId, outbox: &mut Vec<Output<Message>>) {
        let of_peer = self.catchup.wants.values().filter(|want| want.from == from).count();
        if self.catchup.wants.contains_key(&hash) || of_peer >= WANTS_MAX || self.chain.decided(&hash).is_some() {
            return;
        }
        self.catchup.wants.insert(hash, Want { from, attempts: 0 });
        if from != self.me() {
            outbox.push(Output::Send { to: from, message: Message::Fetch(hash) });
        }
    }

    pub(super) fn retry_wants(&mut self, outbox: &mut Vec<Output<Message>>) {
        let missing: Vec<(Digest, ReplicaId)> =
            self.chain.nodes.values().filter_map(|node| self.missing_of(node)).collect();
        for (hash, from) in missing {
            self.catchup.wants.entry(hash).or_insert(Want { from, attempts: 0 });
        }
        let members = self.settings.membership.len() as u32;
        let me = self.me();
        self.catchup.wants.retain(|_, want| {
            want.attempts += 1;
            want.attempts <= ATTEMPTS_MAX
        });
        for (hash, want) in &self.catchup.wants {
            let to = ReplicaId(((u32::from(want.from.0) + want.attempts - 1) % members) as u16);
            if to != me {
                outbox.push(Output::Send { to, message: Message::Fetch(*hash) });
            }
        }
    }

    /// What keeps a node from being valid: its parent, or its proposer's certificate although votes show that there is
    /// one (it comes with the block).
    fn missing_of(&self, node: &Node) -> Option<(Digest, ReplicaId)> {
        let header = node.header();
        match node.proposer {
            None if self.chain.nodes.contains_key(&header.parent) || header.parent == self.chain.root().hash => None,
            None => Some((header.parent, node.from)),
            Some(proposer) if proposer == self.me() || node.is_valid() => None,
            Some(proposer) => {
                // Nobody votes for, builds on, or names as its last vote what has no certificate.
                let position = node.block.position();
                let voted = self.chain.nodes.values().any(|other| {
                    let above = other.header().view == header.view && other.header().step >= header.step;
                    other.header().parent == position.hash || (above && !other.votes.is_empty())
                });
                let named = self
                    .early
                    .values()
                    .flatten()
                    .any(|early| early.vote.view == position.view && early.vote.step > position.step);
                let named = named || self.changes.is_last(&position);
                (voted || named).then(|| (node.block.hash(), proposer))
            }
        }
    }

    pub(super) fn serve_block(&mut self, now: Time, peer: ReplicaId, hash: Digest, outbox: &mut Vec<Output<Message>>) {
        let known = self.chain.nodes.get(&hash).map(|node| node.certified_block());
        let found: Option<CertifiedBlock> = known.or_else(|| self.chain.decided(&hash).cloned());
        let bytes = found.as_ref().map_or(0, |block| block.block.bytes());
        if !self.catchup.may_serve(peer, bytes, now.monotonic) {
            return;
        }
        let message = found.map_or_else(|| self.position(), Message::Block);
        outbox.push(Output::Send { to: peer, message });
    }

    /// Answers a probe, within the peer's budget.
    pub(super) fn serve_probe(&mut self, now: Time, peer: ReplicaId, sent: u64, outbox: &mut Vec<Output<Message>>) {
        if self.catchup.may_serve(peer, 0, now.monotonic) {
            outbox.push(Output::Send { to: peer, message: Message::Echo(sent) });
        }
    }

    pub(super) fn receive_status(
        &mut self,
        now: Time,
        peer: ReplicaId,
        position: Position,
        outbox: &mut Vec<Output<Message>>,
    ) {
        let height = self.chain.height();
        self.catchup.heights.insert(peer, position.committed);
        if position.committed < height {
            let served = self.catchup.served.entry(peer).or_default();
            if served.told == 0 || now.monotonic.saturating_sub(served.told) >= self.settings.tuning.retry_micros {
                served.told = now.monotonic.max(1);
                outbox.push(Output::Send { to: peer, message: self.position() });
            }
        } else if position.committed > height {
            // While the blocks up to there are on their way anyway, votes will decide them.
            let known = self.chain.nodes.values().filter(|node| node.is_valid()).map(|node| node.header().height).max();
            if known.is_none_or(|known| known < position.committed) {
                self.ask(now, peer, outbox);
            }
        }
    }

    /// Asks a peer for decided blocks, unless a question is already open.
    pub(super) fn ask(&mut self, now: Time, peer: ReplicaId, outbox: &mut Vec<Output<Message>>) {
        if self.catchup.asked.is_some_and(|(_, at)| now.monotonic.saturating_sub(at) < ASK_MICROS) {
            return;
        }
        self.catchup.asked = Some((peer, now.monotonic));
        outbox.push(Output::Send { to: peer, message: Message::Ask(self.chain.height()) });
    }

    /// Asks the next peer that says it is ahead: the one asked before may have lied.
    pub(super) fn ask_anyone(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) {
        let height = self.chain.height();
        let ahead: Vec<ReplicaId> =
            self.catchup.heights.iter().filter(|(_, claimed)| **claimed > height).map(|(peer, _)| *peer).collect();
        let before = self.catchup.asked.map(|(peer, _)| peer);
        let next = ahead.iter().find(|peer| before.is_none_or(|before| **peer > before)).or(ahead.first());
        if let Some(peer) = next {
            self.ask(now, *peer, outbox);
        }
    }

    pub(super) fn serve_decided(
        &mut self,
        now: Time,
        peer: ReplicaId,
        after: SequenceNumber,
        outbox: &mut Vec<Output<Message>>,
    ) {
        if after >= self.chain.height() {
            return;
        }
        let served = self.catchup.served.entry(peer).or_default();
        let again = served.at > 0 && served.after == after && now.monotonic.saturating_sub(served.at) < ASK_MICROS / 2;
        (served.after, served.at) = (after, now.monotonic.max(1));
        let answer = self.chain.decided_after(after, ANSWER_BYTES);
        let bytes = answer.as_ref().map_or(ANSWER_BYTES, |(blocks, _)| blocks.iter().map(|block| block.len()).sum());
        if again || !self.catchup.may_serve(peer, bytes, now.monotonic) {
            return;
        }
        outbox.push(match answer {
            Some((blocks, proof)) => Output::Send { to: peer, message: Message::Decided(Decided::new(blocks, proof)) },
            None => Output::Provide(Provide { to: peer, from: after.next() }),
        });
    }

    pub(super) fn receive_decided(
        &mut self,
        now: Time,
        from: ReplicaId,
        decided: Decided,
        outbox: &mut Vec<Output<Message>>,
    ) {
        let Ok((blocks, proof)) = decided.read(&reading_context(&self.settings.membership)) else { return };
        let height = self.chain.height();
        let new: Vec<CertifiedBlock> =
            blocks.into_iter().filter(|block| block.block.header().height > height).collect();
        let Some(first) = new.first().map(|block| block.block.header()) else { return };
        if first.height != height.next() {
            return; // an answer to an older question
        }
        if first.parent != self.chain.root().hash {
            // Two proven histories: more faults than the model allows. Ours stays; people must look.
            outbox.push(Output::Suspect { peer: from, reason: "a proven decision that contradicts ours" });
            return;
        }
        let stored = |hash: &Digest| self.chain.nodes.get(hash).is_some_and(|node| node.stored);
        let new = new.into_iter().map(|block| {
            let stored = stored(&block.block.hash());
            (CertifiedBlock { parent_certificate: None, ..block }, stored)
        });
        let new: Vec<(CertifiedBlock, bool)> = new.collect();
        self.decide(now, new, &proof, outbox);
        self.catchup.asked = None;
        let claimed = self.catchup.heights.entry(from).or_default();
        *claimed = (*claimed).max(self.chain.height());
        if *claimed > self.chain.height() {
            self.ask(now, from, outbox);
        }
    }

    /// Whether a block is so far ahead that decided ones should be asked for instead.
    pub(super) fn is_far_ahead(&self, height: SequenceNumber) -> bool {
        height.0 > self.chain.height().0.saturating_add(AHEAD_MAX)
    }
}
