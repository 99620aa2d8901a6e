//! Aphousia: total order with n = 2f+1 by a vote register per replica. Batches stand inline in the leader's blocks.
//!
//! ```text
//!   leader     Block ──────────┬─> Persist, Certify ──> Vote(own) ──┐            q certificates: Decide
//!   follower        receives it ┘            waits ────────────────┴─> Persist, Certify ──> Vote
//!                                                                      (n = 3: the leader's and my own are q)
//!   fault      timer or link ──> Wish(w)   f+1 wishes ──> Advance(w) ──> ViewChange(w)   q of them at L(w, 1):
//!              NewView = Block (w, 1) on the base, voted like any block
//! ```
//! The algorithm that the 2019 slides name was never published; this one is ours. Its rules are in `rules` (what is
//! valid), `message` (what must be signed), and here (when to speak).
//!
//! What it never does: vote before its block, all blocks below it and their proposers' certificates are in the log;
//! let an own certificate become unrepeatable while only memory holds it; decide by anything but q certificates of one
//! view; change the chain because of a local opinion (opinions shorten waits, nothing else).
//!
//! Choices, with their reasons in docs/internals/consensus.md:
//! * A follower writes block and certificate in one record when it votes, not the block before: one sync per vote.
//! * One register call is outstanding at a time; votes are cumulative, so the next one covers what came meanwhile.
//! * The header carries the penalties, checked against the parent: the rules need the parent's header alone.
//! * Lanes, tips and Next(config) are not here yet: epoch 0 is the only one.
//!
//! Invariants: see `chain`, `pending` and [`Aphousia::invariants`].

mod agreed_time;
mod block;
mod catchup;
mod chain;
mod change;
mod distance;
mod forward;
mod message;
mod pending;
#[cfg(any(test, feature = "planted"))]
pub mod planted;
mod propose;
mod rules;
mod share;
mod timers;
mod votes;
mod watch;

#[cfg(test)]
mod tests;

pub use block::{Block, CertifiedBlock, Header, Justification, Penalty, inline_digest, parent_of};
pub use message::{Decided, EnteredView, Message, Position, Proof};
pub use rules::{Rules, Standard};

use crate::{
    ClockReading, Consensus, Contradiction, Decision, Input, Output, PersistId, Record, RegisterAnswer,
    StableCheckpoint, Status, TimerId,
};
use agreed_time::AgreedTime;
use alloc::{collections::BTreeMap, vec::Vec};
use catchup::CatchUp;
use chain::{Chain, Node, Root};
use change::{Changes, Patience};
use distance::Distance;
use forward::Forwarding;
use pending::Pending;
use timers::Timers;
use unisono_trusted::RegisterState;
use unisono_types::bounds::IN_FLIGHT_BLOCKS;
use unisono_types::{
    Bytes, Certificate, Digest, Epoch, Frame, Membership, RegisterView, Rejected, ReplicaId, SequenceNumber, Signer,
    Step, Time, Verifier, VerifyContext, View, VotePosition,
};
use watch::Watch;

/// What an instance is made with.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Settings {
    /// Which member this is.
    pub id: ReplicaId,
    /// Its host key: signs wishes.
    pub signer: Signer,
    /// The members.
    pub membership: Membership,
    /// What this replica may choose alone.
    pub tuning: Tuning,
}

impl Settings {
    /// Settings with the default tuning.
    #[must_use]
    pub fn new(id: ReplicaId, signer: Signer, membership: Membership) -> Self {
        Self { id, signer, membership, tuning: Tuning::default() }
    }
}

/// Local choices: they change how soon things happen, never what is decided. Times in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tuning {
    /// Blocks of a view that may be undecided before the next is proposed.
    pub in_flight: usize,
    /// Bytes of frames at which a block is closed.
    pub batch_bytes: usize,
    /// How long the oldest entry may wait at least before its leader is to be replaced. Grows with the measured round
    /// trips and syncs and with the bytes that wait, doubles per view without a decision.
    pub timeout_micros: u64,
    /// D: clocks of correct replicas closer than this cost nothing.
    pub skew_micros: u64,
    /// First repetition of what is unfinished; doubles four times.
    pub retry_micros: u64,
    /// How often a replica says where it stands when nothing happens.
    pub status_micros: u64,
    /// How long after its link went down a leader is given up.
    pub link_grace_micros: u64,
}

/// Below this a sync of a busy disk looks like a dead leader.
const TIMEOUT_MICROS_MIN: u64 = 50_000;
/// Time-outs grow no further.
const TIMEOUT_MICROS_MAX: u64 = 60_000_000;
/// How often a time-out may be doubled: from the shortest to the longest and no further.
const DOUBLINGS_MAX: u32 = 11;
const _: () = assert!(TIMEOUT_MICROS_MIN << DOUBLINGS_MAX >= TIMEOUT_MICROS_MAX);

impl Default for Tuning {
    fn default() -> Self {
        Self {
            in_flight: IN_FLIGHT_BLOCKS,
            batch_bytes: 1 << 20,
            timeout_micros: 150_000,
            skew_micros: 500_000,
            retry_micros: 50_000,
            status_micros: 1_000_000,
            link_grace_micros: 3_000,
        }
    }
}

/// What a replica finds in its log. [`Recovered::default`] at the first start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// The vote register's newest durable state.
    pub register: RegisterState,
    /// Place, hash and bytes of the last block that a [`Record::Commit`] names.
    pub committed: Option<(SequenceNumber, Digest, Bytes)>,
    /// Bytes of the [`Record::Block`]s above it, in any order; forks and repetitions do no harm.
    pub blocks: Vec<Bytes>,
    /// The proof of that [`Record::Commit`].
    pub proof: Option<Bytes>,
    /// Of the last [`Record::Clock`].
    pub clock: ClockReading,
}

/// What the register said last, and what it was asked since.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Seat {
    view: View,
    step: Step,
    last: VotePosition,
    /// Asked and not answered. Invariant: one call at a time.
    call: Option<Call>,
    /// The newest answer was repeated since the start (or there was none to repeat).
    ready: bool,
    /// It refused what it must not refuse: this replica votes no more.
    mute: bool,
    /// Its newest certificate.
    certificate: Option<Certificate>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Call {
    Certify(VotePosition),
    Advance(View),
}

/// One replica's instance. See the module.
pub type Aphousia = Instance<Standard>;

/// An instance by rules that a test may have replaced. What ships is [`Aphousia`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Instance<R> {
    rules: R,
    settings: Settings,
    /// What the epoch stands on: the digest of its configuration.
    epoch_base: Digest,
    seat: Seat,
    chain: Chain,
    pending: Pending,
    forwarding: Forwarding,
    changes: Changes,
    time: AgreedTime,
    distance: Distance,
    watch: Watch,
    catchup: CatchUp,
    timers: Timers,
    /// Certificates of blocks that are not here, the newest few of each replica.
    early: BTreeMap<ReplicaId, Vec<Certificate>>,
    /// The newest certificate of each peer: shown to it when its link comes up, in case its register has lost it.
    newest: BTreeMap<ReplicaId, Certificate>,
    patience: Option<Patience>,
    /// When the last input came, on the monotonic clock.
    seen: u64,
    stable: Option<StableCheckpoint>,
    next_persist: PersistId,
}

impl Aphousia {
    /// An instance as of its log. It does nothing before [`Input::Start`].
    ///
    /// # Panics
    /// When what our own log says is decided is no block: the log's checksums make that a broken promise of ours.
    #[must_use]
    pub fn new(settings: Settings, recovered: Recovered) -> Self {
        Self::with_rules(Standard, settings, recovered)
    }
}

impl<R: Rules> Instance<R> {
    /// An instance by other rules, as of its log.
    ///
    /// # Panics
    /// As [`Aphousia::new`].
    #[must_use]
    pub fn with_rules(rules: R, settings: Settings, recovered: Recovered) -> Self {
        let configuration = settings.membership.configuration();
        let epoch_base = configuration.digest();
        let genesis = Root { header: Header::genesis(configuration.epoch), hash: epoch_base };
        let context = reading_context(&settings.membership);
        let mut chain = Chain::new(genesis);
        if let Some((_, hash, bytes)) = &recovered.committed {
            let block = CertifiedBlock::parse_all(bytes, &context).expect("a decided block of our own log can be read");
            assert_eq!(block.block.hash(), *hash, "a decided block of our own log has the hash it was decided by");
            chain = Chain::new(Root { header: block.block.header().clone(), hash: *hash });
            chain.remember_root(block, recovered.proof);
        }
        // Frames wait here until they are decided: room for what may be in flight, and as much again.
        let pending = Pending::new(4 * configuration.limits.block_bytes as usize);
        let register = recovered.register;
        let seat = Seat {
            view: register.view.view(),
            step: register.step,
            last: register.last,
            call: None,
            ready: false,
            mute: false,
            certificate: None,
        };
        let mut instance = Self {
            rules,
            settings,
            epoch_base,
            seat,
            chain,
            pending,
            forwarding: Forwarding::default(),
            changes: Changes::default(),
            time: AgreedTime::recovered(recovered.clock),
            distance: Distance::default(),
            watch: Watch::default(),
            catchup: CatchUp::default(),
            timers: Timers::default(),
            early: BTreeMap::new(),
            newest: BTreeMap::new(),
            patience: None,
            seen: 0,
            stable: None,
            next_persist: PersistId(0),
        };
        instance.recover(&recovered.blocks, &context);
        instance
    }

    fn recover(&mut self, blocks: &[Bytes], context: &VerifyContext) {
        let mut certificates = Vec::new();
        for recovered in blocks.iter().filter_map(|bytes| CertifiedBlock::parse_all(bytes, context).ok()) {
            let hash = recovered.block.hash();
            if recovered.block.header().height <= self.chain.height() {
                continue;
            }
            self.pending.wait_for(&recovered.block);
            certificates.extend([recovered.certificate, recovered.parent_certificate].into_iter().flatten());
            let mut node = Node::new(recovered.block, self.settings.id);
            node.stored = true;
            self.chain.nodes.entry(hash).or_insert(node);
        }
        // A certificate may stand in another record than its block's: in that of the block above, or in a repetition.
        for certificate in certificates {
            if let Some(node) = self.chain.nodes.get_mut(&certificate.vote.hash)
                && node.block.position() == certificate.vote
            {
                node.votes.insert(certificate.replica, certificate);
                node.certificate_stored = true;
            }
        }
        let mut nothing = Vec::new();
        for hash in self.chain.children(&self.chain.root().hash) {
            self.link(hash, &mut nothing);
        }
        self.catchup.forget_wants(); // asked for after the start, as the need shows
    }

    fn me(&self) -> ReplicaId {
        self.settings.id
    }

    fn commit_quorum(&self) -> usize {
        self.rules.commit_quorum(self.settings.membership.quorum())
    }

    fn epoch(&self) -> Epoch {
        self.settings.membership.configuration().epoch
    }

    fn register_view(&self, view: View) -> RegisterView {
        RegisterView::new(self.epoch(), view)
    }

    fn start(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) {
        self.timers.want(timers::STATUS, Some(now.monotonic + self.settings.tuning.status_micros), outbox);
        let root = self.chain.root().header.clone();
        self.time.start(root.height, root.timestamp, now);
        self.chain.nodes.values_mut().for_each(|node| node.since = now.monotonic);
        outbox.push(Output::Broadcast(self.position()));
        self.probe(now, outbox);
        // Repeat the newest answer before anything else: a crash may have lost it, and nobody else can make it.
        if self.seat.step > Step(0) {
            let VotePosition { view, step, hash } = self.seat.last;
            self.seat.call = Some(Call::Certify(self.seat.last));
            outbox.push(Output::Certify { view, step, hash });
        } else if self.seat.view > View(0) {
            self.seat.call = Some(Call::Advance(self.seat.view));
            outbox.push(Output::Advance { view: self.register_view(self.seat.view) });
        } else {
            self.seat.ready = true;
        }
    }

    fn receive(&mut self, now: Time, from: ReplicaId, message: Message, outbox: &mut Vec<Output<Message>>) {
        if from == self.me() || self.settings.membership.member(from).is_none() {
            return;
        }
        match message {
            Message::Block(block) => self.receive_block(now, from, block, outbox),
            Message::Vote(certificate) if self.is_unknown_own(&certificate) => self.fall_silent(outbox),
            Message::Vote(certificate) => self.receive_vote(from, certificate, outbox),
            Message::Wish(wish) => self.changes.add_wish(from, wish, self.seen),
            Message::ViewChange(entered) => self.changes.add_change(from, entered, self.seen),
            Message::Frames(frames) => self.offer(frames, outbox),
            Message::Fetch(hash) => self.serve_block(now, from, hash, outbox),
            Message::Status(position) => self.receive_status(now, from, position, outbox),
            Message::Ask(after) => self.serve_decided(now, from, after, outbox),
            Message::Decided(decided) => self.receive_decided(now, from, decided, outbox),
            Message::Probe(sent) => self.serve_probe(now, from, sent, outbox),
            Message::Echo(sent) => self.receive_echo(now, from, sent),
        }
    }

    fn submit(&mut self, frame: &Frame, outbox: &mut Vec<Output<Message>>) {
        let rotates = self.settings.membership.configuration().rotation > 0;
        if self.pending.add(frame) && rotates {
            // The client cannot know whose turn it is.
            let leader = self.next_leader();
            if leader != self.me() {
                outbox.push(Output::Send { to: leader, message: Message::Frames(alloc::vec![frame.clone()]) });
            }
        }
    }

    fn timeout(&mut self, now: Time, timer: TimerId, outbox: &mut Vec<Output<Message>>) {
        if !self.timers.fired(timer, now, outbox) {
            return;
        }
        match timer {
            timers::REPLACE => self.lose_patience(outbox),
            timers::FORWARD => self.forward(now, outbox),
            timers::TELL => self.tell_leader(now, outbox),
            timers::RETRY => self.retry(now, outbox),
            timers::STATUS => {
                outbox.push(Output::Broadcast(self.position()));
                self.probe(now, outbox);
                // Where others' entries are decided all the time nothing else repeats it.
                if self.wish_stands() {
                    self.wish(self.seat.view.next(), outbox);
                }
                self.timers.want(timers::STATUS, Some(now.monotonic + self.settings.tuning.status_micros), outbox);
            }
            timers::LINK => self.give_up_unlinked_leader(outbox),
            _ => {} // CLOCK: what waited is looked at again now
        }
    }

    fn answered(&mut self, now: Time, answer: RegisterAnswer, outbox: &mut Vec<Output<Message>>) {
        match (self.seat.call, answer) {
            (Some(Call::Certify(vote)), RegisterAnswer::Certificate(certificate)) if certificate.vote == vote => {
                self.seat.call = None;
                self.seat.ready = true;
                self.seat.step = vote.step;
                self.seat.last = vote;
                self.seat.certificate = Some(certificate);
                outbox.push(Output::Broadcast(Message::Vote(certificate)));
                self.receive_vote(self.me(), certificate, outbox);
            }
            (Some(Call::Advance(view)), RegisterAnswer::ViewChange(change))
                if change.view == self.register_view(view) =>
            {
                self.seat.call = None;
                self.seat.ready = true;
                self.enter_view(now, view, change, outbox);
            }
            (Some(_), RegisterAnswer::Refused) => {
                self.seat.call = None;
                self.seat.mute = true;
                outbox.push(Output::Suspect { peer: self.me(), reason: "the own vote register refuses" });
            }
            _ => {} // the answer to nothing that is asked any more
        }
    }

    /// Whether this is a vote of the own register beyond where that stands: it started from less than it has said.
    fn is_unknown_own(&self, certificate: &Certificate) -> bool {
        let VotePosition { view, step, .. } = certificate.vote;
        let asked = self.seat.call == Some(Call::Certify(certificate.vote));
        certificate.replica == self.me() && !asked && (view.view(), step) > (self.seat.view, self.seat.step)
    }

    fn fall_silent(&mut self, outbox: &mut Vec<Output<Message>>) {
        if !self.seat.mute {
            self.seat.mute = true;
            outbox.push(Output::Silence);
        }
    }

    fn set_stable(&mut self, stable: StableCheckpoint, outbox: &mut Vec<Output<Message>>) {
        let StableCheckpoint { checkpoint, signatures } = &stable;
        let sequence = checkpoint.sequence;
        if self.stable.as_ref().is_some_and(|known| known.checkpoint.sequence >= sequence) {
            return;
        }
        if let Some(ours) = self.chain.decided_at(sequence).filter(|ours| *ours != checkpoint.header) {
            let (theirs, evidence) = (checkpoint.header, unisono_types::encode(signatures).into());
            self.contradicted(Contradiction { sequence, ours, theirs, from: None, evidence }, outbox);
            return;
        }
        self.chain.truncate(sequence);
        self.stable = Some(stable);
    }

    /// After every input: whatever has become possible is done, in the order decide, propose, vote.
    fn settle(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) {
        while self.decide_next(now, outbox) {}
        self.propose(now, outbox);
        self.use_register(now, outbox);
        self.watch_blocks(outbox);
        self.arm_timers(now, outbox);
    }

    fn persist_block(&mut self, block: &CertifiedBlock, outbox: &mut Vec<Output<Message>>) {
        let record =
            Record::Block { sequence: block.block.header().height, hash: block.block.hash(), bytes: block.to_bytes() };
        self.persist(record, outbox);
    }

    fn persist(&mut self, record: Record, outbox: &mut Vec<Output<Message>>) {
        let id = self.next_persist;
        self.next_persist = PersistId(id.0 + 1);
        outbox.push(Output::Persist { id, record });
    }

    fn position(&self) -> Message {
        Message::Status(Position { view: self.seat.view, committed: self.chain.height() })
    }

    /// What we promise ourselves, whatever peers do.
    fn invariants(&self) {
        self.chain.invariants();
        self.pending.invariants();
        assert!(self.early.values().all(|early| early.len() <= votes::EARLY_MAX), "bounded");
        let last = self.seat.last;
        assert!(last.view.view() <= self.seat.view, "the last vote stands in a view that was entered");
    }
}

/// Reading needs the cluster and the limits, never the scheme: signatures were checked before anything comes in here.
fn reading_context(membership: &Membership) -> VerifyContext {
    VerifyContext {
        cluster: membership.configuration().cluster,
        verifier: Verifier::ed25519(),
        membership: membership.clone(),
    }
}

fn decision_of(block: &Block) -> Decision {
    let header = block.header();
    Decision {
        sequence: header.height,
        hash: block.hash(),
        timestamp: header.timestamp,
        frames: block.frames().to_vec(),
    }
}

impl<R: Rules> Consensus for Instance<R> {
    type Message = Message;

    fn handle(&mut self, now: Time, input: Input<Message>, outbox: &mut Vec<Output<Message>>) {
        self.time.reads(now);
        self.excuse_pause(now);
        match input {
            Input::Start => self.start(now, outbox),
            Input::Message { from, message } => self.receive(now, from, message.into_inner(), outbox),
            Input::Submit(frame) => self.submit(frame.get(), outbox),
            Input::Admitted(frame) => drop(self.pending.add(frame.get())),
            Input::Timeout(timer) => self.timeout(now, timer, outbox),
            Input::Answered(answer) => {
                self.distance.register_answered(now);
                self.answered(now, answer, outbox);
            }
            Input::Stable(stable) => self.set_stable(stable, outbox),
            Input::Link { peer, up } => self.link_changed(now, peer, up, outbox),
            Input::Arriving { from, bytes } => self.set_arriving(from, bytes),
            // The register's answer says that all writes before it are durable; nothing else waits for one.
            // Execution lags by what clients have outstanding, which their sessions bound.
            Input::Persisted(_) | Input::Executed(_) => {}
        }
        self.settle(now, outbox);
        self.invariants();
    }

    fn is_wanted(&self, from: ReplicaId, message: &Message) -> bool {
        if from == self.me() || self.settings.membership.member(from).is_none() {
            return false;
        }
        match message {
            Message::Block(block) => self.wants_block(from, block),
            Message::Vote(certificate) => self.wants_vote(certificate),
            Message::Wish(wish) => self.changes.is_new_wish(from, wish, self.seen),
            Message::ViewChange(entered) => self.changes.is_new_change(from, entered, self.seen),
            Message::Decided(_) => self.catchup.is_asked(from),
            Message::Frames(frames) => {
                self.wants_frames() && !frames.iter().all(|frame| self.pending.knows(&frame.id()))
            }
            Message::Fetch(_) | Message::Status(_) | Message::Ask(_) | Message::Probe(_) | Message::Echo(_) => true,
        }
    }

    fn wants_frames(&self) -> bool {
        !self.is_far_behind()
    }

    fn oldest_waiting(&self) -> Option<&Frame> {
        self.pending.oldest_waiting()
    }

    fn withdraw(&mut self, frame: &Digest) {
        let Some(arrival) = self.pending.withdraw(frame) else { return };
        if self.patience.as_ref().is_some_and(|patience| patience.subject == Some(arrival)) {
            self.patience = None;
            self.watch.forget_oldest();
        }
    }

    fn signatures(message: &Message) -> usize {
        message.signatures()
    }

    fn offered(message: &Message) -> &[Frame] {
        match message {
            Message::Frames(frames) => frames,
            _ => &[],
        }
    }

    fn provide(committed: SequenceNumber, blocks: Vec<Bytes>, proof: Bytes) -> Message {
        Message::Decided(Decided::new(committed, blocks, proof))
    }

    fn decision(bytes: &Bytes, context: &VerifyContext) -> Result<Decision, Rejected> {
        CertifiedBlock::parse_all(bytes, context).map(|block| decision_of(&block.block))
    }

    fn status(&self) -> Status {
        Status {
            view: self.register_view(self.seat.view),
            leader: self.next_leader(),
            committed: self.chain.height(),
            pending: self.pending.len(),
            clock_skew_micros: self.time.skew_micros,
            clock_waits: self.time.waits,
            complaints: self.changes.complaints,
        }
    }
}
