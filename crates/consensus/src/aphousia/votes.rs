//! Blocks and votes come in; blocks become valid; q votes decide.
//!
//! ```text
//!   block ──> node ──(parent valid, rules hold)──> linked ──(its proposer's certificate)──> valid ──(q voters at it
//!             │                                                                             or above, one view)──> decided
//!             └ parent unknown: fetch it
//! ```
//! Votes stand at the node they name. A vote is cumulative: it counts for every ancestor of its node in its view.

use super::message::{Message, Proof};
use super::{CertifiedBlock, Instance, Node, Rules, decision_of, rules};
use crate::{Output, Record};
use alloc::{collections::BTreeMap, vec::Vec};
use unisono_types::{Bytes, Certificate, Digest, ReplicaId, Time, View, VotePosition};

/// Certificates of one replica that may wait for their blocks: what is in flight, and a little more.
pub(super) const EARLY_MAX: usize = 8;
/// Blocks of one peer that may be here without being valid, and their bytes in blocks of the greatest size.
const UNPROVEN_MAX: usize = 64;
const UNPROVEN_BYTES_MAX: usize = 3;
/// All undecided blocks together, likewise: a correct leader has `in_flight` of them, a view change carries them over.
const UNDECIDED_BYTES_MAX: usize = 8;
/// Blocks this far above the last decided one are not collected one by one: decided ones are asked for instead.
pub(super) const AHEAD_MAX: u64 = 64;

impl<R: Rules> Instance<R> {
    pub(super) fn receive_block(
        &mut self,
        now: Time,
        from: ReplicaId,
        received: CertifiedBlock,
        outbox: &mut Vec<Output<Message>>,
    ) {
        let CertifiedBlock { block, certificate, parent_certificate } = received;
        let hash = block.hash();
        let header = block.header();
        let requested = self.catchup.arrived(&hash);
        if header.height > self.chain.height() && !self.chain.nodes.contains_key(&hash) {
            if self.is_far_ahead(header.height) {
                self.ask(now, from, outbox);
                return;
            }
            if !self.make_room(from, &block, requested, certificate.is_some()) {
                return;
            }
            for frame in block.frames() {
                self.pending.add_forwarded(frame, now.monotonic);
            }
            let mut node = Node::new(block, from);
            node.requested = requested;
            node.since = self.held_since(node.header().timestamp, now);
            self.chain.nodes.insert(hash, node);
            self.collect_early(&hash);
            self.link(hash, outbox);
        }
        for certificate in [parent_certificate, certificate].into_iter().flatten() {
            self.receive_vote(from, certificate, outbox);
        }
    }

    /// Bounds what peers can make us hold; whether `block` may come in.
    ///
    /// A second proposal for one place takes the place of the first: only one of them can ever be certified, and that
    /// one is asked for by name if need be. A peer that has filled its room with what was never proven starts anew.
    fn make_room(&mut self, from: ReplicaId, block: &super::Block, requested: bool, certified: bool) -> bool {
        let block_bytes = self.settings.membership.configuration().limits.block_bytes as usize;
        let all: usize = self.chain.nodes.values().map(|node| node.block.bytes()).sum();
        if all > UNDECIDED_BYTES_MAX * block_bytes && !requested {
            return false;
        }
        let place = block.header().place();
        let unproven: Vec<&Node> = self
            .chain
            .nodes
            .values()
            .filter(|node| node.from == from && !node.own && !node.stored && !node.is_valid())
            .collect();
        let bytes: usize = unproven.iter().map(|node| node.block.bytes()).sum();
        let full = unproven.len() >= UNPROVEN_MAX || bytes + block.bytes() > UNPROVEN_BYTES_MAX * block_bytes;
        let replaced = |node: &&&Node| {
            full || (!certified && !requested && node.header().place() == place && node.votes.is_empty())
        };
        let doomed: Vec<Digest> = unproven.iter().filter(replaced).map(|node| node.block.hash()).collect();
        for hash in &doomed {
            self.chain.remove_with_descendants(hash);
        }
        true
    }

    /// Whether what a vote names is decided, or stands beside what is.
    pub(super) fn is_past(&self, vote: &VotePosition) -> bool {
        (vote.view.view(), vote.step) <= self.chain.root().header.place()
    }

    pub(super) fn receive_vote(
        &mut self,
        from: ReplicaId,
        certificate: Certificate,
        outbox: &mut Vec<Output<Message>>,
    ) {
        let vote = certificate.vote;
        if self.is_past(&vote) {
            return;
        }
        match self.chain.nodes.get_mut(&vote.hash) {
            Some(node) if node.block.position() == vote => {
                node.votes.insert(certificate.replica, certificate);
                self.link(vote.hash, outbox);
            }
            // A register signs what it is given: certificate and header must agree, else it counts for nothing.
            Some(_) => {
                let reason = "a certificate for another place than its header's";
                outbox.push(Output::Suspect { peer: certificate.replica, reason });
            }
            None => {
                self.remember_early(certificate);
                if certificate.replica != self.me() {
                    self.want(vote.hash, from, outbox);
                }
            }
        }
    }

    pub(super) fn remember_early(&mut self, certificate: Certificate) {
        let early = self.early.entry(certificate.replica).or_default();
        if !early.contains(&certificate) {
            early.push(certificate);
            early.sort_by_key(|certificate| (certificate.vote.view, certificate.vote.step));
            if early.len() > EARLY_MAX {
                early.remove(0);
            }
        }
    }

    /// Votes that were here before their block.
    pub(super) fn collect_early(&mut self, hash: &Digest) {
        let Some(node) = self.chain.nodes.get_mut(hash) else { return };
        let position = node.block.position();
        for early in self.early.values_mut() {
            let found = early.iter().filter(|certificate| certificate.vote == position);
            node.votes.extend(found.map(|certificate| (certificate.replica, *certificate)));
            early.retain(|certificate| certificate.vote.hash != *hash);
        }
    }

    /// Carries `first`, and whatever stands on it, as far as it goes: linked, valid.
    pub(super) fn link(&mut self, first: Digest, outbox: &mut Vec<Output<Message>>) {
        let mut work = alloc::vec![first];
        while let Some(hash) = work.pop() {
            let Some(node) = self.chain.nodes.get(&hash) else { continue };
            if node.proposer.is_none() && !self.link_one(&hash, outbox) {
                continue;
            }
            let Some(node) = self.chain.nodes.get_mut(&hash) else { continue };
            if node.is_valid() && !node.announced {
                node.announced = true;
                self.became_valid(&hash);
                work.extend(self.chain.children(&hash));
            }
        }
    }

    /// Whether the node is linked now.
    fn link_one(&mut self, hash: &Digest, outbox: &mut Vec<Output<Message>>) -> bool {
        let Some(node) = self.chain.nodes.get(hash) else { return false };
        let (header, from) = (node.header(), node.from);
        let parent_hash = header.parent;
        let stands_on_own = node.own && self.chain.nodes.get(&parent_hash).is_some_and(|parent| parent.own);
        if !self.chain.is_valid(&parent_hash) && !stands_on_own {
            if !self.chain.nodes.contains_key(&parent_hash) {
                self.want(parent_hash, from, outbox);
            }
            return false;
        }
        let Some(parent) = self.chain.linked_header(&parent_hash) else { return false };
        let membership = &self.settings.membership;
        match rules::check_header(&self.rules, membership, header, parent, parent_hash, self.epoch_base) {
            Ok(proposer) => {
                if let Some(node) = self.chain.nodes.get_mut(hash) {
                    node.proposer = Some(proposer);
                }
                true
            }
            Err(reason) => {
                let liars: Vec<ReplicaId> = node.votes.keys().copied().collect();
                outbox.extend(liars.into_iter().map(|peer| Output::Suspect { peer, reason }));
                self.chain.remove_with_descendants(hash);
                false
            }
        }
    }

    fn became_valid(&mut self, hash: &Digest) {
        let Some(node) = self.chain.nodes.get(hash) else { return };
        if node.header().view == self.seat.view {
            if node.header().justification.is_some() {
                self.mark_proposed(hash);
            } else {
                self.pending.proposed(&node.block);
            }
        }
    }

    /// The frames of the whole chain below are proposed: they stand in it until the view changes.
    pub(super) fn mark_proposed(&mut self, hash: &Digest) {
        for at in self.chain.path(hash) {
            if let Some(node) = self.chain.nodes.get(&at) {
                self.pending.proposed(&node.block);
            }
        }
    }

    /// Decides what q votes allow; whether something was decided.
    ///
    /// The commit rule: q replicas have certificates in one view, each naming exactly the place of a valid header that
    /// is the block or a descendant of it of that view. Then it and all its ancestors are decided, and nothing else.
    pub(super) fn decide_next(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) -> bool {
        let found = self.chain.views().into_iter().find_map(|view| self.decidable(view));
        let Some((hash, proof)) = found else { return false };
        let blocks: Vec<(CertifiedBlock, bool)> = self
            .chain
            .path(&hash)
            .iter()
            .filter_map(|at| self.chain.nodes.get(at))
            .map(|node| (node.certified_block(), node.stored))
            .collect();
        self.decide(now, blocks, &proof, outbox);
        true
    }

    fn decidable(&self, view: View) -> Option<(Digest, Proof)> {
        let mut voters: BTreeMap<ReplicaId, Certificate> = BTreeMap::new();
        let mut above: Vec<Bytes> = Vec::new();
        let mut at = self.chain.tip(view)?.block.hash();
        while let Some(node) = self.chain.nodes.get(&at).filter(|node| node.header().view == view && node.is_valid()) {
            // A lower vote of the same replica needs fewer headers to prove.
            voters.extend(node.votes.iter().map(|(replica, certificate)| (*replica, *certificate)));
            if voters.len() >= self.commit_quorum() {
                let mut certificates: Vec<Certificate> = voters.into_values().collect();
                certificates.sort_by_key(|certificate| certificate.vote.step);
                certificates.truncate(self.commit_quorum());
                let top = certificates.last().map_or(node.header().step, |certificate| certificate.vote.step);
                above.reverse();
                above.truncate(usize::try_from(top.0 - node.header().step.0).unwrap_or(usize::MAX));
                return Some((at, Proof { certificates, headers: above }));
            }
            above.push(node.block.header_bytes().clone());
            at = node.header().parent;
        }
        None
    }

    /// These blocks, consecutive above the root, are decided; each with whether the log has it already.
    pub(super) fn decide(
        &mut self,
        now: Time,
        blocks: Vec<(CertifiedBlock, bool)>,
        proof: &Proof,
        outbox: &mut Vec<Output<Message>>,
    ) {
        let proof = proof.to_bytes();
        let count = blocks.len();
        let newest = blocks.last().and_then(|(block, _)| self.chain.nodes.get(&block.block.hash()));
        let since = newest.map_or(now.monotonic, |node| node.since);
        for (index, (block, stored)) in blocks.into_iter().enumerate() {
            if !stored {
                self.persist_block(&block, outbox);
            }
            outbox.push(Output::Decide(decision_of(&block.block)));
            self.pending.decided(&block.block, now.monotonic);
            self.block_passed(block.block.bytes());
            self.chain.decide(block, (index + 1 == count).then(|| proof.clone()));
        }
        let root = self.chain.root();
        let (sequence, hash, place, timestamp) =
            (root.header.height, root.hash, root.header.place(), root.header.timestamp);
        // One Commit for the whole group, on its last block: it proves all below it, which a log finds by their parents.
        self.persist(Record::Commit { sequence, hash, proof }, outbox);
        self.early.values_mut().for_each(|early| {
            early.retain(|certificate| (certificate.vote.view.view(), certificate.vote.step) > place);
        });
        // What stood on the new root without being linked may be linked now.
        for hash in self.chain.children(&hash) {
            self.link(hash, outbox);
        }
        self.made_progress(now, outbox);
        self.time_agreed(now, timestamp, since, outbox);
    }
}
