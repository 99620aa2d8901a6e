//! Blocks and votes come in; blocks become valid; q votes decide.
//!
//! ```text
//!   block ──> node ──(parent valid, rules hold)──> linked ──(its proposer's certificate)──> valid ──(q voters at it
//!             │                                                                             or above, one view)──> decided
//!             └ parent unknown: fetch it
//! ```
//! Votes stand at the node they name. A vote is cumulative: it counts for every ancestor of its node in its view.

use super::block::{Block, Header};
use super::message::{Message, Proof};
use super::{CertifiedBlock, Instance, Node, Rules, decision_of, rules};
use crate::{Output, Record};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use unisono_types::bounds::CHAIN_HEADER_BYTES;
use unisono_types::{Bytes, Certificate, Digest, ReplicaId, Step, Time, View, VotePosition};

/// Certificates of one replica that may wait for their blocks: what is in flight, and a little more.
pub(super) const EARLY_MAX: usize = 8;
/// Blocks of one peer that nobody asked for and that may be here without being voted for: what is in flight is far less.
pub(super) const UNREQUESTED_MAX: usize = 64;

/// Blocks of one kind: how many, their frames' bytes, and what their headers count for.
#[derive(Clone, Copy, Default)]
struct Held {
    count: usize,
    frames: usize,
    headers: usize,
}

impl Held {
    fn with(self, block: &Block) -> Self {
        Self {
            count: self.count + 1,
            frames: self.frames + block.frame_bytes(),
            headers: self.headers + block.header_charge(),
        }
    }
}

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
            self.ask_if_far_ahead(now, from, header.height, outbox);
            let known = requested || self.may_propose(from, header);
            if !known || (self.is_far_behind() && !requested) || !self.make_room(from, &block, requested) {
                return;
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

    /// Whether `from` may propose this header, as far as is known here: blocks of others come only when asked for.
    pub(super) fn may_propose(&self, from: ReplicaId, header: &Header) -> bool {
        let membership = &self.settings.membership;
        let parent = self.chain.linked_header(&header.parent);
        if membership.configuration().rotation == 0 || header.step <= Step(1) {
            return rules::first_leader(membership, header.view) == from;
        }
        parent.is_none_or(|parent| rules::leader(membership, header.view, header.step, parent) == from)
    }

    /// Bounds what peers can make us hold; whether `block` may come in.
    ///
    /// Every peer has a share of its own for what it sends unasked, and one for what it was asked for. A peer that
    /// fills one loses what it has in it, except for what this replica builds on: all of it can be fetched again from
    /// who voted for it. What this replica has voted for counts against nobody.
    fn make_room(&mut self, from: ReplicaId, block: &Block, requested: bool) -> bool {
        let bounds = self.settings.membership.bounds();
        let share = if requested { bounds.vote } else { bounds.share };
        let more = Held::default().with(block);
        let fits = |held: Held| {
            held.frames <= share && held.headers <= CHAIN_HEADER_BYTES && (requested || held.count <= UNREQUESTED_MAX)
        };
        let counts = |node: &&Node| {
            !node.own && !node.stored && node.requested == requested && self.rules.shares_room(from, node.from)
        };
        let counted: Vec<&Node> = self.chain.nodes.values().filter(counts).collect();
        let full = !fits(counted.iter().fold(more, |held, node| held.with(&node.block)));
        // A second proposal for one place takes the place of the first: only one of them can ever be certified, and
        // that one is asked for by name if need be.
        let place = block.header().place();
        let replaced =
            |node: &&&Node| !requested && !node.is_valid() && node.header().place() == place && node.votes.is_empty();
        let kept = if full { self.built_on(&block.header().parent) } else { BTreeSet::new() };
        let goes =
            |node: &&&Node| node.from == from && (replaced(node) || (full && !kept.contains(&node.block.hash())));
        let doomed: Vec<Digest> = counted.iter().filter(goes).map(|node| node.block.hash()).collect();
        let room = fits(counted.iter().filter(|node| !goes(node)).fold(more, |held, node| held.with(&node.block)));
        for hash in &doomed {
            self.chain.remove_with_descendants(hash);
        }
        room
    }

    /// What this replica stands on or is about to: the chain of its last vote, of its view, and below `parent`.
    fn built_on(&self, parent: &Digest) -> BTreeSet<Digest> {
        let tip = self.chain.tip(self.seat.view).map(|node| node.block.hash());
        let own = self.chain.nodes.values().filter(|node| node.own).map(|node| node.block.hash());
        let tops = tip.into_iter().chain(own).chain([*parent, self.seat.last.hash]);
        tops.flat_map(|top| self.chain.path(&top)).collect()
    }

    /// Whether a block is of use here: see [`crate::Consensus::is_wanted`].
    pub(super) fn wants_block(&self, from: ReplicaId, block: &CertifiedBlock) -> bool {
        let header = block.block.header();
        if header.height <= self.chain.height() {
            return false;
        }
        let mut certificates = [block.certificate, block.parent_certificate].into_iter().flatten();
        if self.chain.nodes.contains_key(&block.block.hash()) {
            return certificates.any(|certificate| self.wants_vote(&certificate));
        }
        self.catchup.is_wanted(&block.block.hash())
            || (self.may_propose(from, header) && self.is_of_use(from, header.view, header.step))
    }

    /// Whether a vote is new and names what is not decided.
    pub(super) fn wants_vote(&self, certificate: &Certificate) -> bool {
        if self.is_unknown_own(certificate) {
            return true;
        }
        if self.is_past(&certificate.vote) {
            return false;
        }
        let VotePosition { view, step, .. } = certificate.vote;
        let known = |early: &Vec<Certificate>| early.contains(certificate);
        match self.chain.nodes.get(&certificate.vote.hash) {
            Some(node) => node.votes.get(&certificate.replica) != Some(certificate),
            None => {
                self.is_of_use(certificate.replica, view.view(), step)
                    && !self.early.get(&certificate.replica).is_some_and(known)
            }
        }
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
        let place = |certificate: &Certificate| (certificate.vote.view, certificate.vote.step);
        if self.newest.get(&certificate.replica).is_none_or(|newest| place(newest) < place(&certificate)) {
            self.newest.insert(certificate.replica, certificate);
        }
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
            // Decided blocks that are asked for may fill the gap; if not, a retry names the parent.
            let waits = !node.requested && self.is_far_ahead(header.height);
            if !waits && !self.chain.nodes.contains_key(&parent_hash) {
                self.want_parent(parent_hash, from, outbox);
            }
            return false;
        }
        let blocks = self.chain.path(&parent_hash).len() + 1;
        let header_bytes = self.chain.path_bytes(&parent_hash).1 + node.block.header_charge();
        if self.rules.is_too_long(blocks, header_bytes) {
            self.chain.remove_with_descendants(hash);
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

    /// For each block, the proof that it is decided if a piece ends with it. `proof` is that of the last.
    fn prove_pieces(&self, blocks: &[(CertifiedBlock, bool)], proof: &Proof) -> Vec<Option<Bytes>> {
        let piece = self.settings.membership.bounds().piece;
        let blocks: Vec<&Block> = blocks.iter().map(|(block, _)| &block.block).collect();
        let mut bytes = 0;
        let ends = blocks.iter().enumerate().map(|(index, block)| {
            bytes += block.bytes();
            let next = blocks.get(index + 1).map(|next| next.bytes());
            let ends = next.is_none_or(|next| self.rules.ends_piece(bytes, next, piece));
            bytes = if ends { 0 } else { bytes };
            ends.then(|| proof.of_ancestor(&blocks[index + 1..]).to_bytes())
        });
        ends.collect()
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
    ///
    /// They are cut into pieces, each with a Commit and a proof of its own, so that a run of any length can be handed on
    /// in messages of bounded size. A Commit proves all below it, which a log finds by their parents.
    pub(super) fn decide(
        &mut self,
        now: Time,
        blocks: Vec<(CertifiedBlock, bool)>,
        proof: &Proof,
        outbox: &mut Vec<Output<Message>>,
    ) {
        let newest = blocks.last().and_then(|(block, _)| self.chain.nodes.get(&block.block.hash()));
        let since = newest.map_or(now.monotonic, |node| node.since);
        let proofs = self.prove_pieces(&blocks, proof);
        for ((block, stored), proof) in blocks.into_iter().zip(proofs) {
            if !stored {
                self.persist_block(&block, outbox);
            }
            outbox.push(Output::Decide(decision_of(&block.block)));
            let shown = self.pending.decided(&block.block);
            self.forwarding.decided(shown);
            self.block_passed(block.block.bytes());
            self.catchup.decided(block.block.bytes());
            let (sequence, hash) = (block.block.header().height, block.block.hash());
            self.chain.decide(block, proof.clone());
            if let Some(proof) = proof {
                self.persist(Record::Commit { sequence, hash, proof }, outbox);
            }
        }
        let root = self.chain.root();
        let (hash, place, timestamp) = (root.hash, root.header.place(), root.header.timestamp);
        self.early.values_mut().for_each(|early| {
            early.retain(|certificate| (certificate.vote.view.view(), certificate.vote.step) > place);
        });
        // What stood on the new root without being linked may be linked now.
        for hash in self.chain.children(&hash) {
            self.link(hash, outbox);
        }
        self.watch_blocks(outbox);
        self.made_progress(now, outbox);
        self.time_agreed(now, timestamp, since, outbox);
    }
}
