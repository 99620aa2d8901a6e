//! The replica itself: routes each input to the part that knows about it, and what the parts want to the host.

mod outside;
mod search;

use crate::admission::{EVER, EarlyFrames, Refused};
use crate::calls::{Calls, Question};
use crate::checkpoint::{Checkpoints, Verdict};
use crate::divergence::Divergence;
use crate::order::{Effect, Order};
use crate::proposals::{self, OWN_TIMERS, Proposals, Step};
use crate::replies::{Replies, is_short};
use crate::table::outcome_digest;
use crate::{
    ConnectionId, Counters, GrantsRequest, HaltReason, Input, LeavesRequest, Output, PeerMessage, QueryId, Settings,
    Status, Timer,
};
use alloc::{
    collections::{BTreeMap, VecDeque},
    string::String,
    vec::Vec,
};
use unisono_consensus::{self as consensus, Consensus, Decision, PersistId, Record, TimerId};
use unisono_types::{
    Answer, CallId, Done, Frame, FrameBody, MarkReport, Outcome, PublicKey, Refusal, ReplicaId, ReplyBody,
    RequestNumber, SequenceNumber, SessionId, Signed, SystemEntry, Time, Timestamp, Verified, Work,
};

/// The replica's own writes have the top bit set: those of consensus do not. The rest is the Mark they belong to.
const OWN_WRITES: u64 = 1 << 63;

const CHECKPOINT: Timer = TimerId(OWN_TIMERS | 4);
const DIVERGENCE: Timer = TimerId(OWN_TIMERS | 5);
const CALLS: Timer = TimerId(OWN_TIMERS | 6);

/// Until a checkpoint that is not stable is sent again, doubling up to the second figure: execution of the others may
/// be seconds behind, and nothing but the size of the log waits for it.
const CHECKPOINT_AGAIN_MICROSECONDS: u64 = 1_000_000;
const CHECKPOINT_AGAIN_MICROSECONDS_MAX: u64 = 30_000_000;

/// One replica around the consensus instance `C`.
#[derive(Clone, Debug)]
pub struct Replica<C: Consensus> {
    settings: Settings,
    consensus: C,
    order: Order,
    checkpoints: Checkpoints,
    proposals: Proposals,
    replies: Replies,
    early: EarlyFrames,
    calls: Calls,
    /// The timer for what was submitted about them runs.
    calls_watched: bool,
    divergence: Option<Divergence>,
    queries: BTreeMap<QueryId, Query>,
    next_query: QueryId,
    next_nonce: u64,
    /// Invariant: `executed` <= `order.height()`.
    executed: SequenceNumber,
    executed_told: SequenceNumber,
    /// Monotonic time at which the last decision was learnt of.
    agreed_since: u64,
    checkpoint_wait: u64,
    starved_early: Option<(bool, Option<Timestamp>)>,
    started: bool,
    halted: bool,
    counters: Counters,
    inbox: VecDeque<consensus::Input<C::Message>>,
    /// Frames to be admitted or not, once all that was decided before is walked.
    offered: Vec<Frame>,
    effects: Vec<Effect>,
    steps: Vec<Step>,
}

/// Why the executor was asked.
#[derive(Clone, Debug)]
enum Query {
    Leaves { to: ReplicaId, sequence: SequenceNumber, after: Option<String> },
    Grants { to: ReplicaId, from: u64 },
    Compare { after: Option<String> },
    CompareGrants { from: u64 },
}

impl<C: Consensus> Replica<C> {
    /// A replica with an empty history. What the own log holds is given by [`Replica::replay`], then
    /// [`Input::Start`].
    #[must_use]
    pub fn new(settings: Settings, consensus: C) -> Self {
        let membership = &settings.membership;
        Self {
            consensus,
            order: Order::new(membership.clone(), settings.marks),
            checkpoints: Checkpoints::new(membership),
            proposals: Proposals::new(settings.marks, membership.configuration().limits.session_idle),
            replies: Replies::default(),
            early: EarlyFrames::default(),
            calls: Calls::default(),
            calls_watched: false,
            divergence: None,
            queries: BTreeMap::new(),
            next_query: QueryId(0),
            next_nonce: 0,
            executed: SequenceNumber::ZERO,
            executed_told: SequenceNumber::ZERO,
            agreed_since: 0,
            checkpoint_wait: CHECKPOINT_AGAIN_MICROSECONDS,
            starved_early: None,
            started: false,
            halted: false,
            counters: Counters::default(),
            inbox: VecDeque::new(),
            offered: Vec::new(),
            effects: Vec::new(),
            steps: Vec::new(),
            settings,
        }
    }

    /// Walks a decision of the own log, before [`Input::Start`]. Only gives [`Output::Execute`]: nobody is told again
    /// what was said before the restart. What execution reports meanwhile may be given to [`Replica::handle`].
    pub fn replay(&mut self, decision: &Decision, out: &mut Vec<Output<C::Message>>) {
        assert!(!self.started, "decisions are replayed before the start");
        self.starved_early = None;
        self.decided(decision, out);
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Time, input: Input<C::Message>, out: &mut Vec<Output<C::Message>>) {
        self.handle_all(now, [input], out);
    }

    /// Takes inputs one after the other; what they make known to one client connection travels in one reply.
    pub fn handle_all(
        &mut self,
        now: Time,
        inputs: impl IntoIterator<Item = Input<C::Message>>,
        out: &mut Vec<Output<C::Message>>,
    ) {
        for input in inputs {
            if self.halted {
                return;
            }
            self.input(now, input, out);
            self.drain(now, out);
        }
        if !self.replies.is_empty() {
            let epoch = self.settings.membership.configuration().epoch;
            self.replies.flush(epoch, self.consensus.status().leader, self.executed(), out);
        }
        self.invariants();
    }

    fn input(&mut self, now: Time, input: Input<C::Message>, out: &mut Vec<Output<C::Message>>) {
        match input {
            Input::Start => self.start(now, out),
            Input::Peer { from, message } => self.peer(now, from, message, out),
            Input::Client { connection, key, frame } => self.client(now, connection, key, frame),
            Input::Admin(frame) => self.administered(frame),
            Input::Outside { call, answer } => self.told(now, call, answer, out),
            Input::Disconnected(connection) => self.replies.gone(connection),
            Input::Timeout(timer) if timer.0 & OWN_TIMERS != 0 => self.timeout(now, timer, out),
            Input::Timeout(timer) => self.inbox.push_back(consensus::Input::Timeout(timer)),
            Input::Persisted(id) if id.0 & OWN_WRITES != 0 => {
                self.durable(now, SequenceNumber(id.0 & !OWN_WRITES), out);
            }
            Input::Persisted(id) => self.inbox.push_back(consensus::Input::Persisted(id)),
            Input::Answered(answer) => self.inbox.push_back(consensus::Input::Answered(answer)),
            Input::Done(Done::Executed { session, number, outcome, .. }) => self.finished(session, number, &outcome),
            Input::Done(Done::Called { position, path, call, target, request }) => {
                let call = CallId { position, path, call };
                self.called(Question { call, target, request }, out);
            }
            Input::Done(Done::Marked(report)) => self.marked(now, &report, out),
            Input::Done(Done::Starved { flush, tick }) => self.starved(now, flush, tick, out),
            Input::Executed(sequence) => self.executed = self.executed.max(sequence).min(self.order.height()),
            Input::Arriving { from, bytes } => {
                self.inbox.push_back(consensus::Input::Arriving { from, bytes });
            }
            Input::Link { peer, up } => {
                self.inbox.push_back(consensus::Input::Link { peer, up });
                if let Some(own) = self.checkpoints.last_own().filter(|_| up) {
                    out.push(Output::Send { to: peer, message: PeerMessage::Checkpoint(*own) });
                }
            }
            Input::Leaves { query, leaves } => self.leaves(now, query, leaves, out),
            Input::Grants { query, grants } => self.grants(now, query, grants, out),
        }
    }

    /// Feeds consensus until it has nothing more to say and we have nothing more to propose.
    fn drain(&mut self, now: Time, out: &mut Vec<Output<C::Message>>) {
        let mut outputs = Vec::new();
        self.admit_offered(now);
        while let Some(input) = self.inbox.pop_front() {
            let height = self.order.height();
            self.consensus.handle(now, input, &mut outputs);
            for output in outputs.drain(..) {
                self.consensus_output(output, out);
            }
            self.admit_offered(now);
            if self.order.height() != height {
                self.agreed_since = now.monotonic;
                self.withdraw_useless(now.timestamp());
            }
            if self.order.height() != height && self.started {
                self.propose(now, out, Proposals::walked);
            }
            self.tell_executed();
        }
        if self.tell_executed() {
            self.drain(now, out);
        }
    }

    /// What was decided may have made useless what has waited longest: its requests stood in another frame. Others do
    /// not take it in any more, so it would wait for ever, in front of everything that is younger, and accuse every leader.
    fn withdraw_useless(&mut self, now: Timestamp) {
        while let Some(frame) = self.consensus.oldest_waiting().filter(|frame| self.is_useless(frame, now)) {
            let id = frame.id();
            self.consensus.withdraw(&id);
            self.counters.useless_offers += 1;
        }
    }

    /// Whether this frame would do nothing if it were ordered. One of a session that holds too much is sent again.
    fn is_useless(&self, frame: &Frame, now: Timestamp) -> bool {
        !matches!(self.order.admission(frame, now), Ok(()) | Err(Refused::Early))
    }

    fn consensus_output(&mut self, output: consensus::Output<C::Message>, out: &mut Vec<Output<C::Message>>) {
        out.push(match output {
            consensus::Output::Send { to, message } => Output::Send { to, message: PeerMessage::Consensus(message) },
            consensus::Output::Broadcast(message) => Output::Broadcast(PeerMessage::Consensus(message)),
            consensus::Output::Persist { id, record } => Output::Persist { id, record },
            consensus::Output::Certify { view, step, hash } => Output::Certify { view, step, hash },
            consensus::Output::Advance { view } => Output::Advance { view },
            consensus::Output::Attest { nonce } => Output::Attest { nonce },
            consensus::Output::SetTimer { timer, at } => Output::SetTimer { timer, at },
            consensus::Output::Provide(provide) => Output::Provide(provide),
            consensus::Output::Silence => Output::Silence,
            consensus::Output::Suspect { peer, reason } => Output::Suspect { peer, reason },
            consensus::Output::Offer(frames) => return self.offered.extend(frames),
            consensus::Output::Contradiction(contradiction) => {
                self.halted = true;
                self.inbox.clear();
                Output::Halt(HaltReason::TwoHistories(contradiction))
            }
            consensus::Output::Decide(decision) => return self.decided(&decision, out),
        });
    }

    /// The last decision of which, and of all before it, every request has finished or is parked: what the executor
    /// said, and behind its last request everything that was walked.
    fn executed(&self) -> SequenceNumber {
        if self.executed >= self.order.last_request() { self.order.height() } else { self.executed }
    }

    /// Consensus learns how far execution is. Whether there was something to tell.
    fn tell_executed(&mut self) -> bool {
        let executed = self.executed();
        let news = executed > self.executed_told && self.started;
        if news {
            self.executed_told = executed;
            self.inbox.push_back(consensus::Input::Executed(executed));
        }
        news
    }

    fn start(&mut self, now: Time, out: &mut Vec<Output<C::Message>>) {
        self.started = true;
        self.inbox.push_back(consensus::Input::Start);
        self.next_nonce = now.wall;
        if let Some(root) = self.checkpoints.last() {
            out.push(barrier(root.height));
        }
        self.propose(now, out, Proposals::walked);
        if let Some((flush, tick)) = self.starved_early.take() {
            self.starved(now, flush, tick, out);
        }
        self.ask(out);
    }

    // ------------------------------------------------------------------------------------------------ clients

    /// A frame of a client: answered from what is known, and ordered if something in it is new.
    fn client(&mut self, now: Time, connection: ConnectionId, key: PublicKey, frame: Verified<Frame>) {
        if frame.key() != key {
            self.counters.foreign_frames += 1;
            return;
        }
        self.replies.heard(connection);
        let wanted = match frame.body() {
            FrameBody::Requests { session, lowest_unacknowledged, requests } => {
                self.speaks_for(connection, key, *session);
                let (lowest, now) = (*lowest_unacknowledged, now.timestamp());
                self.requests(connection, frame.get(), *session, lowest, requests, now)
            }
            FrameBody::Open { nonce, recent } => {
                let open = self.open(connection, key, *nonce, *recent);
                open && self.order.admission(frame.get(), now.timestamp()).is_ok()
            }
            FrameBody::Close { session } => self.speaks_for(connection, key, *session),
            FrameBody::System { .. } | FrameBody::Admin { .. } | FrameBody::Called { .. } => {
                self.counters.foreign_frames += 1;
                false
            }
        };
        if wanted {
            self.inbox.push_back(consensus::Input::Submit(frame)); // which bounds what it holds
        }
    }

    /// Whether something in a frame of requests is new. What has its answer stored is answered, whole: its client asks
    /// again because it needs it.
    fn requests(
        &mut self,
        connection: ConnectionId,
        frame: &Frame,
        id: SessionId,
        lowest: RequestNumber,
        requests: &[(RequestNumber, unisono_types::Bytes)],
        now: Timestamp,
    ) -> bool {
        let replies = &mut self.replies;
        let admitted = self.order.requests(id, &frame.key(), lowest, requests, now, |number, stored| {
            let body = stored.body();
            replies.say(Some(connection), || Answer::Executed { session: id, number, body });
        });
        match admitted {
            Err(Refused::HeldBack) => self.counters.held_back_frames += 1,
            Err(Refused::Early) => self.early.keep(frame),
            _ => {}
        }
        admitted.is_ok()
    }

    /// Frames that a peer shows or a void block leaves go into the order on the same terms as those of clients.
    fn admit_offered(&mut self, now: Time) {
        for frame in core::mem::take(&mut self.offered) {
            match self.order.admission(&frame, now.timestamp()) {
                // Verified as part of the message or block that it came in.
                Ok(()) => self.inbox.push_back(consensus::Input::Admitted(Verified::own(frame))),
                Err(Refused::Early) => self.early.keep(&frame),
                Err(_) => self.counters.useless_offers += 1,
            }
        }
    }

    /// Notes that the session's client is heard on this connection. Whether the session is open; if it is proven not
    /// to be, the client is told.
    fn speaks_for(&mut self, connection: ConnectionId, key: PublicKey, id: SessionId) -> bool {
        if let Some(session) = self.order.table.of_mut(id, &key) {
            session.connection = Some(connection);
            return true;
        }
        self.counters.sessionless_frames += 1;
        if self.order.proves_absence(id, &key) {
            self.replies.say(Some(connection), || Answer::NoSession { session: id });
        } else {
            self.replies.early(id, key, connection);
        }
        false
    }

    /// Whether an Open shall be ordered. Not if the answer is certain already.
    fn open(&mut self, connection: ConnectionId, key: PublicKey, nonce: u64, recent: SequenceNumber) -> bool {
        let height = self.order.height();
        match self.order.table.opening(&key, nonce, recent, height.next()) {
            Ok(Some(session)) => {
                if let Some(open) = self.order.table.of_mut(session, &key) {
                    open.connection = Some(connection);
                }
                self.replies.say(Some(connection), || Answer::Opened { nonce, session });
                return false;
            }
            Ok(None) => {}
            Err(Refusal::TooOld) if recent > height => {} // it is we who are behind
            Err(reason) => {
                self.replies.say(Some(connection), || Answer::NotOpened { nonce, reason });
                return false;
            }
        }
        self.replies.opening(key, nonce, connection);
        true
    }

    // ----------------------------------------------------------------------------------- order and execution

    fn decided(&mut self, decision: &Decision, out: &mut Vec<Output<C::Message>>) {
        let mut effects = core::mem::take(&mut self.effects);
        self.order.walk(decision, &mut effects);
        for effect in effects.drain(..) {
            self.effect(effect, out);
        }
        self.effects = effects;
    }

    fn effect(&mut self, effect: Effect, out: &mut Vec<Output<C::Message>>) {
        match effect {
            Effect::Work(work) => {
                self.proposals.executing();
                if let Work::Answer { position, path, call, .. } = &work {
                    self.over(&CallId { position: *position, path: path.clone(), call: *call }, out);
                }
                out.push(Output::Execute(work));
            }
            Effect::Voted { member, call } => {
                if member == self.settings.id {
                    self.over(&call, out);
                }
            }
            Effect::Mark(mark) => self.checkpoints.ordered(mark),
            Effect::Opened { key, nonce, session } => {
                let connection = self.replies.opener(key, nonce).or_else(|| self.replies.take_early(session, key));
                if let Some(open) = self.order.table.of_mut(session, &key).filter(|_| connection.is_some()) {
                    open.connection = connection;
                }
                self.replies.say(connection, || Answer::Opened { nonce, session });
                self.offered.extend(self.early.take(session, &key));
            }
            Effect::NotOpened { key, nonce, reason } => {
                let connection = self.replies.opener(key, nonce);
                self.replies.say(connection, || Answer::NotOpened { nonce, reason });
            }
            Effect::Closed { session, connection } => {
                self.replies.say(connection, || Answer::NoSession { session });
            }
        }
    }

    /// A request came to its end: stored until acknowledged, and sent to where its client was last heard. Long outcomes
    /// are sent whole by one replica and as a digest by the others.
    fn finished(&mut self, id: SessionId, number: RequestNumber, outcome: &Outcome) {
        let digest = outcome_digest(outcome);
        let Some(session) = self.order.table.finish(id, number, outcome, digest) else { return };
        if self.divergence.is_some() {
            return; // we are known to be wrong
        }
        let members = self.settings.membership.len() as u64;
        let sender = id.0.wrapping_add(number.0) % members;
        let whole = is_short(outcome) || sender == u64::from(self.settings.id.0);
        let body = || if whole { ReplyBody::Full(outcome.clone()) } else { ReplyBody::Digest(digest) };
        self.replies.say(session.connection, || Answer::Executed { session: id, number, body: body() });
    }

    fn starved(&mut self, now: Time, flush: bool, tick: Option<Timestamp>, out: &mut Vec<Output<C::Message>>) {
        if !self.started {
            self.starved_early = Some((flush, tick));
            return;
        }
        self.propose(now, out, |proposals, now, view, steps| proposals.starved(now, view, flush, tick, steps));
    }

    /// The agreed time that a decision made now may have, as leaders stamp theirs: the clock's, or where agreed time is
    /// ahead of it, that of the last decision and half of what has passed since; and whether it is the latter.
    fn agreed(&self, now: Time) -> (Timestamp, bool) {
        let since = now.monotonic.saturating_sub(self.agreed_since);
        let resumed = self.order.timestamp().after(since / 2);
        if now.timestamp() >= self.order.timestamp() { (now.timestamp(), false) } else { (resumed, true) }
    }

    /// Asks [`Proposals`] what to do and does it.
    fn propose(
        &mut self,
        now: Time,
        out: &mut Vec<Output<C::Message>>,
        ask: impl FnOnce(&mut Proposals, Time, &proposals::View, &mut Vec<Step>),
    ) {
        let members = self.settings.membership.len() as u64;
        let leader = u64::from(self.consensus.status().leader.0) % members;
        let view = proposals::View {
            rank: (u64::from(self.settings.id.0) + members - leader) % members,
            tick: self.order.tick(),
            mark: self.order.last_mark(),
            mark_due: self.order.mark_due(),
            sessions: self.order.table.len() != 0,
            agreed: self.agreed(now),
        };
        let mut steps = core::mem::take(&mut self.steps);
        ask(&mut self.proposals, now, &view, &mut steps);
        for step in steps.drain(..) {
            match step {
                Step::Propose(entry) => self.submit_own(entry),
                Step::SetTimer(timer, at) => out.push(Output::SetTimer { timer, at }),
            }
        }
        self.steps = steps;
    }

    fn submit_own(&mut self, entry: SystemEntry) {
        // Above all that is ordered of this replica, also when its clock was set back since: else it is a repetition.
        let ordered = self.order.last_entry(self.settings.id).unwrap_or_default();
        self.next_nonce = self.next_nonce.max(ordered).saturating_add(1);
        let frame = self.sign(FrameBody::System { entry, nonce: self.next_nonce });
        self.inbox.push_back(consensus::Input::Submit(frame));
    }

    fn sign(&self, body: FrameBody) -> Verified<Frame> {
        let cluster = self.settings.membership.configuration().cluster;
        Verified::own(Frame::sign(cluster, &self.settings.signer, body))
    }

    fn timeout(&mut self, now: Time, timer: Timer, out: &mut Vec<Output<C::Message>>) {
        match timer {
            CHECKPOINT => self.send_checkpoint_again(now, out),
            CALLS => self.submit_calls_again(now, out),
            DIVERGENCE => {
                if let Some(search) = &mut self.divergence {
                    let next = search.retry();
                    self.search(now, next, out);
                }
            }
            _ => {
                let idle = timer == proposals::EXPIRE && self.order.table.has_idle(now.timestamp());
                self.propose(now, out, |proposals, now, view, steps| {
                    proposals.timeout(now, timer, view, idle, steps);
                });
            }
        }
    }

    // ---------------------------------------------------------------------------------- Marks and checkpoints

    fn marked(&mut self, now: Time, report: &MarkReport, out: &mut Vec<Output<C::Message>>) {
        let table = &self.order.table;
        let root = self.checkpoints.marked(report, |ordered| table.digest(ordered));
        if self.started {
            out.push(barrier(root.height));
        }
        let verdict = self.checkpoints.judge(root.height);
        self.verdict(now, verdict, out);
    }

    /// The log up to the Mark is durable: now we may sign.
    fn durable(&mut self, now: Time, sequence: SequenceNumber, out: &mut Vec<Output<C::Message>>) {
        let Some(statement) = self.checkpoints.statement(sequence).filter(|_| self.divergence.is_none()) else {
            return;
        };
        let cluster = self.settings.membership.configuration().cluster;
        let own = Signed::sign(cluster, self.settings.id, &self.settings.signer, statement);
        out.push(Output::Broadcast(PeerMessage::Checkpoint(own)));
        let verdict = self.checkpoints.signed(own);
        self.checkpoint_wait = CHECKPOINT_AGAIN_MICROSECONDS;
        if self.checkpoints.stable() < sequence && verdict == Verdict::Nothing {
            let at = Some(now.monotonic.saturating_add(self.checkpoint_wait));
            out.push(Output::SetTimer { timer: CHECKPOINT, at });
        }
        self.verdict(now, verdict, out);
    }

    fn send_checkpoint_again(&mut self, now: Time, out: &mut Vec<Output<C::Message>>) {
        let Some(own) = self.checkpoints.last_own().copied() else { return };
        if own.statement.sequence <= self.checkpoints.stable() || self.divergence.is_some() {
            return;
        }
        out.push(Output::Broadcast(PeerMessage::Checkpoint(own)));
        out.push(Output::Broadcast(PeerMessage::CheckpointWanted(own.statement.sequence)));
        self.checkpoint_wait = (self.checkpoint_wait * 2).min(CHECKPOINT_AGAIN_MICROSECONDS_MAX);
        let at = Some(now.monotonic.saturating_add(self.checkpoint_wait));
        out.push(Output::SetTimer { timer: CHECKPOINT, at });
    }

    fn verdict(&mut self, now: Time, verdict: Verdict, out: &mut Vec<Output<C::Message>>) {
        match verdict {
            Verdict::Nothing => {}
            Verdict::Stable(stable) => self.inbox.push_back(consensus::Input::Stable(stable)),
            Verdict::Minority(mismatch) if self.divergence.is_none() => {
                let root = self.checkpoints.root(mismatch.own.sequence).expect("a verdict is about a recent root");
                let (search, next) = Divergence::new(mismatch, root.parts);
                self.divergence = Some(search);
                self.search(now, next, out);
            }
            Verdict::Minority(_) => {}
        }
    }

    // ------------------------------------------------------------------------------------------------- peers

    fn peer(
        &mut self,
        now: Time,
        from: ReplicaId,
        message: Verified<PeerMessage<C::Message>>,
        out: &mut Vec<Output<C::Message>>,
    ) {
        match message.into_inner() {
            // Verified as part of the whole.
            PeerMessage::Consensus(message) => {
                self.inbox.push_back(consensus::Input::Message { from, message: Verified::own(message) });
            }
            PeerMessage::Checkpoint(signed) => {
                let verdict = self.checkpoints.received(self.settings.id, signed);
                self.verdict(now, verdict, out);
            }
            PeerMessage::CheckpointWanted(sequence) => {
                for own in [self.checkpoints.own(sequence), self.checkpoints.last_own()].into_iter().flatten() {
                    if own.statement.sequence >= sequence {
                        out.push(Output::Send { to: from, message: PeerMessage::Checkpoint(*own) });
                    }
                }
            }
            PeerMessage::LeavesRequest(LeavesRequest { sequence, after }) => {
                self.serve(from, Query::Leaves { to: from, sequence, after }, out);
            }
            PeerMessage::GrantsRequest(GrantsRequest { from: number }) => {
                self.serve(from, Query::Grants { to: from, from: number }, out);
            }
            PeerMessage::Submission(frame) => self.submission(from, frame),
            PeerMessage::Grants(grants) => {
                if let Some(search) = &mut self.divergence {
                    let next = search.grants_answered(from, grants);
                    self.search(now, next, out);
                }
            }
            PeerMessage::Leaves(leaves) => {
                let marked = self.last_marked();
                if let Some(search) = &mut self.divergence {
                    let next = search.answered(from, leaves, marked);
                    self.search(now, next, out);
                }
            }
        }
    }

    // ------------------------------------------------------------------------------------------------- views

    /// What it shows of itself.
    #[must_use]
    pub fn status(&self) -> Status {
        let configuration = self.settings.membership.configuration();
        let consensus = self.consensus.status();
        let (calls_queued, calls_open) = self.calls.counts();
        Status {
            id: self.settings.id,
            algorithm: configuration.algorithm.clone(),
            epoch: configuration.epoch,
            view: consensus.view.view(),
            leader: consensus.leader,
            members: self.settings.membership.ids().collect(),
            height: self.order.height(),
            executed: self.executed(),
            stable: self.checkpoints.stable(),
            recent_roots: self.checkpoints.recent().iter().copied().collect(),
            sessions: self.order.table.len(),
            stored_reply_bytes: self.order.table.stored_bytes(),
            pending_frames: consensus.pending,
            calls_queued,
            calls_open,
            counters: self.counters,
        }
    }

    /// The last decision that was followed.
    #[must_use]
    pub fn height(&self) -> SequenceNumber {
        self.order.height()
    }

    /// The decision in which the administrator's entry with this nonce took effect, among the newest 1 024 entries.
    #[must_use]
    pub fn administered_at(&self, nonce: u64) -> Option<SequenceNumber> {
        self.order.admin.place(nonce)
    }

    /// Whether a peer's message could be of any use: one that is not is dropped before its signatures are checked.
    #[must_use]
    pub fn is_wanted(&self, from: ReplicaId, message: &PeerMessage<C::Message>) -> bool {
        match message {
            PeerMessage::Consensus(message) => {
                let offered = C::offered(message);
                let nothing_new = !offered.is_empty() && offered.iter().all(|frame| self.is_useless(frame, EVER));
                !nothing_new && self.consensus.is_wanted(from, message)
            }
            _ => true,
        }
    }

    /// The same for a client's frame.
    #[must_use]
    pub fn wants_frames(&self) -> bool {
        self.consensus.wants_frames()
    }

    /// How many signatures have to be checked in a peer's message: what counts against its budget beforehand.
    #[must_use]
    pub fn signatures(message: &PeerMessage<C::Message>) -> usize {
        match message {
            PeerMessage::Consensus(message) => C::signatures(message),
            PeerMessage::Checkpoint(_) | PeerMessage::Submission(_) => 1,
            _ => 0,
        }
    }

    /// The consensus instance, for the views that its algorithm offers.
    #[must_use]
    pub fn consensus(&self) -> &C {
        &self.consensus
    }

    fn invariants(&self) {
        assert!(self.executed <= self.order.height(), "execution cannot be ahead of the order");
        let given = self.inbox.is_empty() && self.offered.is_empty();
        assert!(self.halted || given, "consensus has had everything that was for it");
    }
}

fn barrier<M>(sequence: SequenceNumber) -> Output<M> {
    Output::Persist { id: PersistId(OWN_WRITES | sequence.0), record: Record::Barrier }
}
