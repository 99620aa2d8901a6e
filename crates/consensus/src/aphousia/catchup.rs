//! Getting what is missing: single blocks by name, decided ones with their proof. And giving it, within bounds.
//!
//! What a peer says about where it stands only decides whom to ask; what comes is proven by hashes and certificates.

use super::block::{CertifiedBlock, Header};
use super::message::{Decided, Message, Position, Proof};
use super::votes::UNREQUESTED_MAX;
use super::{Instance, Node, Rules, reading_context, rules};
use crate::{Contradiction, Output, Provide};
use alloc::{collections::BTreeMap, vec::Vec};
use unisono_types::{Bytes, Digest, ReplicaId, SequenceNumber, Step, Time, View};

/// Blocks asked for by name at once, for each peer that named them.
const WANTS_MAX: usize = 8;
/// After so many fruitless attempts, or two for each member, a name is forgotten: garbage has names too. A correct voter
/// names it again.
const ATTEMPTS_MAX: u32 = 12;
/// Decisions that a replica may lack and still take part. With more it only catches up.
const NEAR: u64 = 256;
/// More than a correct leader has in flight: a block this far above the last decided one shows that decided ones are
/// missing, unless views have passed that decided nothing.
const AHEAD: u64 = 8;
/// How long a question for decided blocks waits before another peer is asked too.
const TURN_MICROS: u64 = 100_000;
/// A peer that does not answer, or to no use, is asked half as often each time, down to every 3.2 s.
const FRUITLESS_MAX: u32 = 5;
/// What one peer may draw from us per second beyond what we decide meanwhile: a tenth of that, or this much, so that
/// catching up comes to an end and costs the others little.
const SERVED_BYTES: i64 = 32 << 20;
/// What an answer costs at least, and what reading the log costs: how much that will be is not known beforehand.
const ANSWER_CHARGE: usize = 32 << 10;
const READ_CHARGE: usize = 2 << 20;
/// The same place is not served again to the same peer before this time, and half as often each time.
const AGAIN_MICROS: u64 = 50_000;
const AGAIN_MAX: u32 = 5;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Want {
    /// Who named it.
    from: ReplicaId,
    /// Who was asked at once besides.
    also: Option<ReplicaId>,
    attempts: u32,
    /// Not before this round of retries.
    due: u32,
}

/// What a peer was last asked, about decided blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Question {
    at: u64,
    /// Not answered yet. Only what was asked for is looked at.
    open: bool,
    /// Questions in a row that this peer did not answer, or to no use.
    fruitless: u32,
}

impl Question {
    /// When the peer may be asked again, whoever else is asked meanwhile.
    fn until(&self) -> u64 {
        let waits = self.open || self.fruitless > 0;
        self.at.saturating_add(if waits { TURN_MICROS << self.fruitless.min(FRUITLESS_MAX) } else { 0 })
    }
}

/// What a peer may still draw from us.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Served {
    /// Bytes; what is asked for while it is above 0 is served whole.
    credit: i64,
    /// When the credit was last raised, and how much this replica had decided then.
    since: u64,
    decided: u64,
    /// The last place that decided blocks were asked from, when it was answered, and how often.
    after: SequenceNumber,
    at: Option<u64>,
    times: u32,
    /// When a peer that is behind was last told so.
    told: Option<u64>,
}

impl Served {
    const fn new(now: u64, decided: u64) -> Self {
        let after = SequenceNumber(0);
        Self { credit: SERVED_BYTES, since: now, decided, after, at: None, times: 0, told: None }
    }

    /// Takes from the budget; whether there was some.
    fn take(&mut self, bytes: usize, now: u64, decided: u64) -> bool {
        let elapsed = now.saturating_sub(self.since).min(1_000_000);
        let keeping_up = decided - self.decided;
        let gain = i64::try_from(elapsed).unwrap_or(0) * SERVED_BYTES / 1_000_000;
        let gain = gain.max(i64::try_from(keeping_up / 10).unwrap_or(i64::MAX));
        let refill = gain.saturating_add(i64::try_from(keeping_up).unwrap_or(i64::MAX));
        self.credit = self.credit.saturating_add(refill).min(SERVED_BYTES.max(refill));
        (self.since, self.decided) = (now, decided);
        let enough = self.credit > 0;
        if enough {
            self.credit = self.credit.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        enough
    }

    /// Whether this place was served to the peer a moment ago. Else it counts as served now.
    fn is_again(&mut self, after: SequenceNumber, now: u64) -> bool {
        let same = self.after == after && self.at.is_some();
        let wait = AGAIN_MICROS << self.times.min(AGAIN_MAX);
        if same && self.at.is_some_and(|at| now.saturating_sub(at) < wait) {
            return true;
        }
        self.times = if same { self.times.saturating_add(1) } else { 0 };
        (self.after, self.at) = (after, Some(now));
        false
    }
}

/// See the module. Bounded by the membership.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct CatchUp {
    wants: BTreeMap<Digest, Want>,
    /// Rounds of retries so far.
    round: u32,
    /// How far each peer says that it is.
    heights: BTreeMap<ReplicaId, SequenceNumber>,
    asked: BTreeMap<ReplicaId, Question>,
    /// Who was asked last: the next in line is asked next.
    last_asked: Option<ReplicaId>,
    served: BTreeMap<ReplicaId, Served>,
    /// When all were last told where this replica stands because it seemed to be behind.
    told_all: Option<u64>,
    /// Bytes decided since the start.
    decided: u64,
    /// Another history is proven: see [`Output::Contradiction`].
    pub(super) contradicted: bool,
}

impl CatchUp {
    /// A block has come; whether it was asked for.
    pub(super) fn arrived(&mut self, hash: &Digest) -> bool {
        self.wants.remove(hash).is_some()
    }

    pub(super) fn is_wanted(&self, hash: &Digest) -> bool {
        self.wants.contains_key(hash)
    }

    /// Whether this peer has been asked for decided blocks and has not answered yet.
    pub(super) fn is_asked(&self, peer: ReplicaId) -> bool {
        self.asked.get(&peer).is_some_and(|question| question.open)
    }

    pub(super) fn decided(&mut self, bytes: usize) {
        self.decided = self.decided.saturating_add(bytes as u64);
    }

    /// Whatever is missing is asked for in the next round: others may answer now.
    pub(super) fn want_now(&mut self) {
        self.wants.values_mut().for_each(|want| want.due = 0);
    }

    pub(super) fn forget_wants(&mut self) {
        self.wants.clear();
    }

    pub(super) fn has_work(&self, height: SequenceNumber) -> bool {
        !self.wants.is_empty() || self.heights.values().any(|claimed| *claimed > height)
    }

    fn served(&mut self, peer: ReplicaId, now: u64) -> &mut Served {
        let decided = self.decided;
        self.served.entry(peer).or_insert_with(|| Served::new(now, decided))
    }

    /// Takes from the peer's budget; whether there was enough.
    fn may_serve(&mut self, peer: ReplicaId, bytes: usize, now: u64) -> bool {
        let decided = self.decided;
        self.served(peer, now).take(bytes.max(ANSWER_CHARGE), now, decided)
    }
}

impl<R: Rules> Instance<R> {
    /// Whether this replica only catches up: it neither votes, nor wishes, nor fetches single blocks. f+1 peers say that
    /// they are far ahead, so the others go on without it, and one of them is correct and has what is missing.
    pub(super) fn is_far_behind(&self) -> bool {
        let near = SequenceNumber(self.chain.height().0.saturating_add(NEAR));
        let ahead = self.catchup.heights.values().filter(|claimed| **claimed > near).count();
        self.rules.steps_aside(ahead, self.settings.membership.quorum())
    }

    /// Asks `from` for the block of this name, once now and again with retries, then of others in turn.
    pub(super) fn want(&mut self, hash: Digest, from: ReplicaId, outbox: &mut Vec<Output<Message>>) {
        let of_peer = self.catchup.wants.values().filter(|want| want.from == from).count();
        let known = self.catchup.wants.contains_key(&hash) || self.chain.decided(&hash).is_some();
        if known || of_peer >= WANTS_MAX || self.is_far_behind() {
            return;
        }
        // Votes overtake the pieces of a block.
        let asks = from != self.me() && !self.is_receiving();
        self.catchup.wants.insert(hash, Want { from, also: None, attempts: u32::from(asks), due: 0 });
        if asks {
            outbox.push(Output::Send { to: from, message: Message::Fetch(hash) });
        }
    }

    /// Each name is asked for once a round, of one member after the other; when all were asked in every second round, then in
    /// every fourth, eighth.
    pub(super) fn retry_wants(&mut self, outbox: &mut Vec<Output<Message>>) {
        if self.is_far_behind() {
            self.catchup.wants.clear();
            return;
        }
        let missing: Vec<(Digest, ReplicaId)> =
            self.chain.nodes.values().filter_map(|node| self.missing_of(node)).collect();
        for (hash, from) in missing {
            self.catchup.wants.entry(hash).or_insert(Want { from, also: None, attempts: 0, due: 0 });
        }
        if self.is_receiving() {
            return;
        }
        self.catchup.round = self.catchup.round.wrapping_add(1);
        let round = self.catchup.round;
        let members = self.settings.membership.len() as u32;
        let me = self.me();
        self.catchup.wants.retain(|_, want| want.attempts < ATTEMPTS_MAX.max(2 * members));
        for (hash, want) in self.catchup.wants.iter_mut().filter(|(_, want)| want.due <= round) {
            let turn = |attempts| ReplicaId(((u32::from(want.from.0) + attempts) % members) as u16);
            if turn(want.attempts) == me {
                want.attempts += 1;
            }
            let to = turn(want.attempts);
            want.attempts += 1;
            want.due = round.saturating_add(1 << ((want.attempts - 1) / members).min(3));
            outbox.push(Output::Send { to, message: Message::Fetch(*hash) });
        }
    }

    /// A block from this peer stands on a missing one, so the peer has that, too: one such peer is asked at once, whatever else
    /// is on its way.
    pub(super) fn want_parent(&mut self, parent: Digest, from: ReplicaId, outbox: &mut Vec<Output<Message>>) {
        match self.catchup.wants.get_mut(&parent) {
            Some(want) if want.from != from && want.also.is_none() && from != self.settings.id => {
                want.also = Some(from);
                outbox.push(Output::Send { to: from, message: Message::Fetch(parent) });
            }
            Some(_) => {}
            None => self.want(parent, from, outbox),
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
        let known = self.chain.nodes.get(&hash).map(Node::certified_block);
        // One that came with a proof has no certificate of its own, and nobody could build on it: the position says where to ask.
        let decided = || self.chain.decided(&hash).filter(|block| block.certificate.is_some()).cloned();
        let found: Option<CertifiedBlock> = known.or_else(decided);
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
            let retry = self.settings.tuning.retry_micros;
            let served = self.catchup.served(peer, now.monotonic);
            if served.told.is_none_or(|told| now.monotonic.saturating_sub(told) >= retry) {
                served.told = Some(now.monotonic);
                outbox.push(Output::Send { to: peer, message: self.position() });
            }
        } else if position.committed > height {
            // While the blocks up to there are on their way anyway, votes will decide them.
            let known = self.chain.nodes.values().filter(|node| node.is_valid()).map(|node| node.header().height).max();
            if known.is_none_or(|known| known < position.committed) {
                self.ask(now, peer, 1, outbox);
            }
        }
    }

    /// Asks a peer for decided blocks, unless it must not be asked again yet or `questions_max` peers are having their
    /// turns.
    ///
    /// Each peer has a turn of its own: no answer of one makes its own longer, and none keeps another from being asked.
    fn ask(&mut self, now: Time, peer: ReplicaId, questions_max: usize, outbox: &mut Vec<Output<Message>>) {
        let has_turn = |question: &Question| {
            question.open && !self.rules.is_turn_over(now.monotonic.saturating_sub(question.at), TURN_MICROS)
        };
        let turns = self.catchup.asked.values().filter(|question| has_turn(question)).count();
        let before = self.catchup.asked.get(&peer).copied();
        if turns >= questions_max || before.is_some_and(|before| now.monotonic < before.until()) {
            return;
        }
        let fruitless = before.map_or(0, |before| before.fruitless + u32::from(before.open)).min(FRUITLESS_MAX);
        self.catchup.asked.insert(peer, Question { at: now.monotonic, open: true, fruitless });
        self.catchup.last_asked = Some(peer);
        outbox.push(Output::Send { to: peer, message: Message::Ask(self.chain.height()) });
    }

    /// Asks for decided blocks too when a block is so far ahead that collecting single ones takes long. And tells all
    /// where it stands, so that those who are far ahead say so: see [`Self::is_far_behind`].
    pub(super) fn ask_if_far_ahead(
        &mut self,
        now: Time,
        peer: ReplicaId,
        height: SequenceNumber,
        outbox: &mut Vec<Output<Message>>,
    ) {
        if !self.is_far_ahead(height) {
            return;
        }
        self.ask(now, peer, 1, outbox);
        let told = self.catchup.told_all.is_some_and(|told| now.monotonic.saturating_sub(told) < TURN_MICROS);
        if !told {
            self.catchup.told_all = Some(now.monotonic);
            outbox.push(Output::Broadcast(self.position()));
        }
    }

    /// The least height that a block at this place has, as far as it may be undecided here: each step of a view is a block,
    /// and a view stands on all that was decided before it.
    pub(super) fn least_height(&self, view: View, step: Step) -> SequenceNumber {
        let root = &self.chain.root().header;
        let above = if view == root.view { step.0.saturating_sub(root.step.0) } else { step.0 };
        SequenceNumber(root.height.0.saturating_add(if view < root.view { 0 } else { above }))
    }

    /// Whether a block or vote for this place is worth a check: it is near enough to be used, or shows that decided ones are
    /// missing where its sender has not said so. A leader has a few blocks of its view in flight.
    pub(super) fn is_of_use(&self, peer: ReplicaId, view: View, step: Step) -> bool {
        let height = self.least_height(view, step);
        let near = height.0 <= self.chain.height().0.saturating_add(UNREQUESTED_MAX as u64);
        near || !self.catchup.heights.get(&peer).is_some_and(|claimed| self.is_far_ahead(*claimed))
    }

    /// Whether decided blocks below this height are likely to be missing, so that asking for them comes before fetching
    /// single ones.
    pub(super) fn is_far_ahead(&self, height: SequenceNumber) -> bool {
        height.0 > self.chain.height().0.saturating_add(AHEAD)
    }

    /// Asks the next peer that says it is ahead while f others have not answered yet: they may all be lying.
    pub(super) fn ask_anyone(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) {
        self.ask_next(now, self.settings.membership.quorum().one_correct(), outbox);
    }

    fn ask_next(&mut self, now: Time, questions_max: usize, outbox: &mut Vec<Output<Message>>) {
        let height = self.chain.height();
        let may_be_asked =
            |peer: &ReplicaId| self.catchup.asked.get(peer).is_none_or(|question| now.monotonic >= question.until());
        let ahead = self.catchup.heights.iter().filter(|(_, claimed)| **claimed > height).map(|(peer, _)| *peer);
        let ahead: Vec<ReplicaId> = ahead.filter(may_be_asked).collect();
        let before = self.catchup.last_asked;
        let next = ahead.iter().find(|peer| before.is_none_or(|before| **peer > before)).or(ahead.first());
        if let Some(peer) = next {
            self.ask(now, *peer, questions_max, outbox);
        }
    }

    pub(super) fn serve_decided(
        &mut self,
        now: Time,
        peer: ReplicaId,
        after: SequenceNumber,
        outbox: &mut Vec<Output<Message>>,
    ) {
        if after >= self.chain.height() || self.catchup.served(peer, now.monotonic).is_again(after, now.monotonic) {
            return;
        }
        let committed = self.chain.height();
        let answer = self.chain.decided_after(after, self.settings.membership.bounds().piece);
        let bytes = answer.as_ref().map_or(READ_CHARGE, |(blocks, _)| blocks.iter().map(Bytes::len).sum());
        if !self.catchup.may_serve(peer, bytes, now.monotonic) {
            return;
        }
        outbox.push(match answer {
            Some((blocks, proof)) => {
                Output::Send { to: peer, message: Message::Decided(Decided::new(committed, blocks, proof)) }
            }
            None => Output::Provide(Provide { to: peer, from: after.next(), committed }),
        });
    }

    pub(super) fn receive_decided(
        &mut self,
        now: Time,
        from: ReplicaId,
        decided: Decided,
        outbox: &mut Vec<Output<Message>>,
    ) {
        let Some(question) = self.catchup.asked.get_mut(&from).filter(|question| question.open) else { return };
        question.open = false;
        question.fruitless = (question.fruitless + 1).min(FRUITLESS_MAX); // until it has shown to be of use
        let committed = decided.committed();
        let Ok((blocks, proof)) = decided.read(&reading_context(&self.settings.membership)) else { return };
        if self.contradicts(from, &blocks, &proof, outbox) {
            return;
        }
        let height = self.chain.height();
        let mut new: Vec<CertifiedBlock> =
            blocks.into_iter().filter(|block| block.block.header().height > height).collect();
        if new.first().is_none_or(|first| first.block.header().height != height.next()) {
            return; // an answer to an older question
        }
        if let Err(reason) = self.check_run(&mut new, &proof) {
            outbox.push(Output::Suspect { peer: from, reason });
            return;
        }
        let stored = |hash: &Digest| self.chain.nodes.get(hash).is_some_and(|node| node.stored);
        let new = new.into_iter().map(|block| {
            let stored = stored(&block.block.hash());
            (block, stored)
        });
        let new: Vec<(CertifiedBlock, bool)> = new.collect();
        self.decide(now, new, &proof, outbox);
        if let Some(question) = self.catchup.asked.get_mut(&from) {
            question.fruitless = 0;
        }
        // What else has come from it may have left long before this.
        let claimed = self.catchup.heights.entry(from).or_default();
        *claimed = (*claimed).max(self.chain.height()).max(committed);
        self.ask_next(now, 1, outbox);
    }

    /// Whether a proven run of decided blocks names another block for a place that is decided here.
    fn contradicts(
        &mut self,
        from: ReplicaId,
        blocks: &[CertifiedBlock],
        proof: &Proof,
        outbox: &mut Vec<Output<Message>>,
    ) -> bool {
        let root = self.chain.root();
        let ours = |height: SequenceNumber| {
            if height == root.header.height { Some(root.hash) } else { self.chain.decided_at(height) }
        };
        let headers = blocks.iter().map(|block| block.block.header());
        let parents = headers.filter_map(|header| Some((header.height.previous()?, header.parent)));
        let named = parents.chain(blocks.last().map(|last| (last.block.header().height, last.block.hash())));
        let differs = |(height, theirs)| ours(height).filter(|ours| *ours != theirs).map(|ours| (height, ours, theirs));
        let Some((sequence, ours, theirs)) = named.filter_map(differs).next() else { return false };
        let evidence = proof.to_bytes();
        self.contradicted(Contradiction { sequence, ours, theirs, from: Some(from), evidence }, outbox);
        true
    }

    /// Two proven histories: more faults than the model allows. This replica certifies nothing more.
    pub(super) fn contradicted(&mut self, contradiction: Contradiction, outbox: &mut Vec<Output<Message>>) {
        if !self.catchup.contradicted {
            self.catchup.contradicted = true;
            self.seat.mute = true;
            outbox.push(Output::Contradiction(contradiction));
        }
    }

    /// Checks a proven run on the root by the rules, the headers of its proof included: what is kept of it is what any
    /// receiver of it will accept. Certificates are not kept: nothing was checked about them.
    fn check_run(&self, run: &mut [CertifiedBlock], proof: &Proof) -> Result<(), rules::Invalid> {
        let membership = &self.settings.membership;
        let check = |header: &Header, parent: &Header, parent_hash: Digest| {
            rules::check_header(&self.rules, membership, header, parent, parent_hash, self.epoch_base)
        };
        let root = self.chain.root();
        let (mut parent, mut parent_hash) = (root.header.clone(), root.hash);
        for block in run.iter_mut() {
            let header = block.block.header();
            check(header, &parent, parent_hash)?;
            (parent, parent_hash) = (header.clone(), block.block.hash());
            (block.certificate, block.parent_certificate) = (None, None);
        }
        let Some(last) = run.last() else { return Ok(()) };
        let above = proof.above(&last.block, &reading_context(membership)).map_err(|_| "a proof that does not fit")?;
        for (header, hash) in above {
            check(&header, &parent, parent_hash)?;
            (parent, parent_hash) = (header, hash);
        }
        Ok(())
    }
}
