//! Speaking: blocks are built and broadcast at once, the register is asked only when everything below is in the log.
//!
//! One register call is outstanding at a time. Before each call, in the same log write, stands what it needs:
//! * certify: the block, all blocks below it, and their proposers' certificates. So whoever shows a last vote has its
//!   data, and a proposer's certificate is in the log before the register can no longer repeat it.
//! * advance: the same for the last vote.

use super::block::{Header, Justification, inline_digest};
use super::message::Message;
use super::{Block, Call, CertifiedBlock, Instance, Node, Rules, rules};
use crate::{ClockReading, Output, Record};
use alloc::vec::Vec;
use unisono_types::bounds::HEADER_CHARGE_BYTES;
use unisono_types::{Digest, ReplicaId, Step, Time, View, ViewChange};

/// Where a block may be built.
struct Place {
    parent: Header,
    parent_hash: Digest,
    step: Step,
    justification: Option<Justification>,
}

impl<R: Rules> Instance<R> {
    /// The newest block of this view that a next one could stand on, or the root if it is of this view.
    fn head(&self) -> Option<(&Header, Digest)> {
        let buildable = |node: &&Node| node.header().view == self.seat.view && (node.is_valid() || node.own);
        let newest = self.chain.nodes.values().filter(buildable).max_by_key(|node| node.header().step);
        if let Some(node) = newest {
            return Some((node.header(), node.block.hash()));
        }
        let root = self.chain.root();
        (root.header.view == self.seat.view).then_some((&root.header, root.hash))
    }

    /// Whose block comes next, as far as this replica knows.
    pub(super) fn next_leader(&self) -> ReplicaId {
        let membership = &self.settings.membership;
        match self.head() {
            Some((head, _)) => rules::leader(membership, self.seat.view, head.step.next(), head),
            None => rules::first_leader(membership, self.seat.view),
        }
    }

    /// Builds and broadcasts whatever is this replica's to propose now.
    pub(super) fn propose(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) {
        if !self.seat.ready || self.seat.mute || self.target_view() > self.seat.view {
            return;
        }
        while let Some(place) = self.next_place(now, outbox).filter(|place| self.has_room_above(&place.parent_hash)) {
            // What is invalid at once is gone again and would be built for ever.
            if !self.build(now, place, outbox) {
                break;
            }
        }
    }

    /// Whether the largest header on this parent still belongs to a chain that everyone follows.
    fn has_room_above(&self, parent: &Digest) -> bool {
        let header = self.settings.membership.bounds().header.max(HEADER_CHARGE_BYTES);
        !self.rules.is_too_long(self.chain.path(parent).len() + 1, self.chain.path_bytes(parent).1 + header)
    }

    fn next_place(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) -> Option<Place> {
        if self.next_leader() != self.me() {
            return None;
        }
        let unproposed = self.pending.has_unproposed();
        let Some((head, hash)) = self.head() else { return self.new_view(now, outbox) };
        if !unproposed {
            return None;
        }
        let (parent, parent_hash, step) = (head.clone(), hash, head.step.next());
        // A step at or below the register's is past: what stood there is lost or on its way back.
        let past = step <= self.seat.step;
        let path = self.chain.path(&parent_hash);
        let of_this_view = |hash: &&Digest| self.chain.nodes.get(hash).is_some_and(|n| n.header().view == parent.view);
        let in_flight = path.iter().filter(of_this_view).count();
        let full = in_flight >= self.settings.tuning.in_flight.max(1) || self.is_chain_full(&parent_hash);
        if past || full || !self.is_timely(&parent_hash, now) {
            return None;
        }
        Some(Place { parent, parent_hash, step, justification: None })
    }

    /// L(w, 1): the NewView's place, as soon as q view changes have a base that is complete here.
    fn new_view(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) -> Option<Place> {
        if self.seat.step != Step(0) || self.seat.view == View(0) {
            return None;
        }
        let mut changes = self.changes.of_view(self.register_view(self.seat.view));
        changes.sort_by_key(|change| core::cmp::Reverse(rules::last_place(change)));
        let quorum = self.settings.membership.quorum().commit();
        for (index, greatest) in changes.iter().enumerate() {
            let place = rules::last_place(greatest);
            // The set: this one as its greatest, and q-1 at or below it. Those above it are left out whole.
            let first_at_or_below =
                changes.iter().position(|change| rules::last_place(change) == place).unwrap_or(index);
            if changes.len() - first_at_or_below < quorum {
                self.want_lasts(&changes, outbox);
                return None;
            }
            let others = changes[first_at_or_below..].iter().filter(|change| change.replica != greatest.replica);
            let mut set: Vec<ViewChange> = core::iter::once(greatest).chain(others.take(quorum - 1)).copied().collect();
            let Some(base) = rules::greatest(self.rules.looked_at(&mut set)).copied() else { continue };
            let (place, hash) = (rules::last_place(&base), rules::last_hash(&base, self.epoch_base));
            let parent = self.chain.linked_header(&hash).filter(|header| header.place() == place).cloned();
            let Some(parent) = parent.filter(|_| self.chain.is_valid(&hash)) else { continue };
            if self.is_timely(&hash, now) {
                return Some(self.place_on(parent, hash, set));
            }
        }
        self.want_lasts(&changes, outbox);
        None
    }

    /// Whether the undecided chain below holds so many frames that no more are put on top: then a new view carries it
    /// over and adds nothing.
    fn is_chain_full(&self, parent: &Digest) -> bool {
        self.chain.path_bytes(parent).0 >= self.settings.membership.bounds().chain
    }

    fn place_on(&self, parent: Header, parent_hash: Digest, mut changes: Vec<ViewChange>) -> Place {
        changes.sort_by_key(|change| change.replica);
        let stable = self.stable.as_ref().filter(|stable| stable.checkpoint.header == parent_hash);
        let mut checkpoint = stable.map_or_else(Vec::new, |stable| stable.signatures.clone());
        checkpoint.truncate(self.settings.membership.quorum().one_correct());
        let justification = Some(Justification { changes, checkpoint });
        Place { parent, parent_hash, step: Step(1), justification }
    }

    /// Fetches the blocks that last votes name, from those who voted for them.
    fn want_lasts(&mut self, changes: &[ViewChange], outbox: &mut Vec<Output<Message>>) {
        let root = self.chain.root().header.place();
        for change in changes.iter().filter(|change| rules::last_place(change) > root) {
            if !self.chain.nodes.contains_key(&change.last.hash) && change.replica != self.me() {
                self.want(change.last.hash, change.replica, outbox);
            }
        }
    }

    /// Whether the block stands in the tree.
    fn build(&mut self, now: Time, place: Place, outbox: &mut Vec<Output<Message>>) -> bool {
        let Place { parent, parent_hash, step, justification } = place;
        if justification.is_some() {
            // What stands in the chain below the base is not proposed again.
            self.forget_proposed();
            self.mark_proposed(&parent_hash);
        }
        let membership = &self.settings.membership;
        let block_bytes = membership.configuration().limits.block_bytes as usize;
        let room = if self.is_chain_full(&parent_hash) { 0 } else { block_bytes };
        let frames = self.pending.take_batch(self.settings.tuning.batch_bytes, room);
        let header = Header {
            epoch: self.epoch(),
            view: self.seat.view,
            step,
            height: parent.height.next(),
            parent: parent_hash,
            timestamp: self.stamp(parent.timestamp, now),
            inline: inline_digest(&frames),
            penalties: rules::penalties(membership, self.seat.view, step, &parent),
            justification,
        };
        let block = Block::new(membership.configuration().cluster, header, frames);
        outbox.push(Output::Broadcast(Message::Block(CertifiedBlock::bare(block.clone()))));
        let hash = block.hash();
        let mut node = Node::new(block, self.me());
        node.own = true;
        node.since = now.monotonic;
        self.chain.nodes.insert(hash, node);
        self.collect_early(&hash);
        self.link(hash, outbox);
        self.chain.nodes.contains_key(&hash)
    }

    /// Asks the register for what is due: to leave the view, to stand by an own block, or to vote.
    pub(super) fn use_register(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) {
        if !self.seat.ready || self.seat.mute || self.seat.call.is_some() {
            return;
        }
        let target = self.target_view();
        if target > self.seat.view {
            let last = self.seat.last.hash;
            self.secure(&last, outbox);
            self.seat.call = Some(Call::Advance(target));
            self.register_asked(now, outbox);
            outbox.push(Output::Advance { view: self.register_view(target) });
        } else if self.is_far_behind() {
            // The others decide without this vote; catching up comes first.
        } else if let Some(hash) = self.own_uncertified().or_else(|| self.votable(now)) {
            self.secure(&hash, outbox);
            let Some(node) = self.chain.nodes.get(&hash) else { return };
            let vote = node.block.position();
            self.seat.call = Some(Call::Certify(vote));
            self.register_asked(now, outbox);
            outbox.push(Output::Certify { view: vote.view, step: vote.step, hash });
        }
    }

    /// What the clock has shown goes to the disk with each statement: a restart must not forget it.
    fn register_asked(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) {
        self.distance.register_asked(now);
        let reading = ClockReading { after: self.chain.height(), micros: self.time.clock(now) };
        self.persist(Record::Clock(reading), outbox);
    }

    /// The next own block that the register has not stood by, its parent valid. Only of those built since the start:
    /// what was built before and never certified is void, and another block may stand in its place.
    fn own_uncertified(&self) -> Option<Digest> {
        let due = |node: &&Node| {
            node.own
                && !node.is_valid()
                && node.header().view == self.seat.view
                && node.header().step > self.seat.step
                && self.chain.is_valid(&node.header().parent)
        };
        self.chain.nodes.values().filter(due).min_by_key(|node| node.header().step).map(|node| node.block.hash())
    }

    /// The newest valid block of this view above my last vote, as far as time allows: its votes are cumulative.
    fn votable(&mut self, now: Time) -> Option<Digest> {
        let vote = self.settings.membership.bounds().vote;
        let newer = |node: &&Node| {
            node.header().view == self.seat.view
                && node.header().step > self.seat.step
                && node.is_valid()
                && self.chain.path_bytes(&node.block.hash()).0 <= vote
        };
        let mut newer: Vec<(Step, Digest)> =
            self.chain.nodes.values().filter(newer).map(|node| (node.header().step, node.block.hash())).collect();
        newer.sort_unstable();
        newer.into_iter().rev().map(|(_, hash)| hash).find(|hash| self.is_timely(hash, now))
    }

    /// Writes what a vote for `hash` rests on, lowest first, as far as the log does not have it.
    fn secure(&mut self, hash: &Digest, outbox: &mut Vec<Output<Message>>) {
        for at in self.chain.path(hash) {
            let Some(node) = self.chain.nodes.get(&at) else { continue };
            let certificate = node.certificate();
            let missing_certificate = certificate.is_some() && !node.certificate_stored;
            // A child that is not in the log yet will carry it there.
            let carried = self.chain.path(hash).iter().any(|above| {
                self.chain.nodes.get(above).is_some_and(|above| above.header().parent == at && !above.stored)
            });
            if node.stored && (!missing_certificate || carried) {
                continue;
            }
            let parent_hash = node.header().parent;
            let parent = self.chain.nodes.get(&parent_hash);
            // A record that repeats a block says all that the one before said: a log may keep only the newest.
            let parent_certificate = parent.and_then(Node::certificate);
            let record = CertifiedBlock { block: node.block.clone(), certificate, parent_certificate };
            self.persist_block(&record, outbox);
            if record.parent_certificate.is_some()
                && let Some(parent) = self.chain.nodes.get_mut(&parent_hash)
            {
                parent.certificate_stored = true;
            }
            if let Some(node) = self.chain.nodes.get_mut(&at) {
                node.stored = true;
                node.certificate_stored |= certificate.is_some();
            }
        }
    }
}
