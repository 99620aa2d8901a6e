//! The client itself: one `match` over what happens, small functions for what then is done.

use crate::round_trip::{RoundTrip, longer, transfer_microseconds};
use crate::votes::{Tally, Votes};
use crate::{Input, InvokeError, Output, Settings};
use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};
use unisono_types::{
    Answer, Bytes, ClientMessage, Frame, FrameBody, Limits, Outcome, Refusal, ReplicaId, Reply, ReplyBody,
    RequestNumber, SequenceNumber, SessionId, Time,
};

/// Bytes of a frame beside its operations: key, signature, kind, session, number, count.
const FRAME_BYTES: usize = 32 + 64 + 1 + 8 + 8 + 4;

/// Bytes of a request in a frame beside its operation: number and length.
const REQUEST_BYTES: usize = 8 + 4;

/// Requests whose time-outs lie this close together are repeated together, since they share a signature: this many
/// microseconds, or this part of the pause that the first of them made.
const TOGETHER_MICROSECONDS: u64 = 10_000;
const TOGETHER_PARTS: u64 = 4;

/// Repetitions of a Close: the cluster closes an idle session by itself, so this is only a courtesy.
const CLOSE_ATTEMPTS: u32 = 5;

/// Repetitions after which a replica that answers with a mere digest is taken to have nothing else.
const REPEATED_ATTEMPTS: u32 = 4;

/// Blocks of the greatest size whose bytes may be under way before more is sent: what can be in flight at once. Replicas
/// have room for it, so none of it is dropped and sent again.
const WINDOW_BLOCKS: usize = 2;

/// Repetitions after which a request is taken to wait inside the service, perhaps for one that is not sent yet.
const PARKED_ATTEMPTS: u32 = 3;

/// Repeating one that waits so takes this part of the slowest link at most: it stands in the way of all others.
const PARKED_PART: u64 = 20;

/// The session is kept alive this often within the time that it may be idle.
const KEEP_ALIVE_PARTS: u64 = 4;

/// Whole outcomes kept of one replica's votes: a liar must not fill our memory; correct ones find that their vote
/// counts as well by its digest.
const VOTE_BYTES_MAX: u64 = 64 << 20;

/// A client with one session.
#[derive(Clone, Debug)]
pub struct Client {
    settings: Settings,
    enough: usize,
    nonce: u64,
    phase: Phase,
    next: RequestNumber,
    /// Not sent. Numbers ascending, all above those outstanding.
    queued: VecDeque<(RequestNumber, Bytes)>,
    /// Not all that was to be sent could be: no session is open, or too many bytes are under way.
    flushing: bool,
    outstanding: BTreeMap<RequestNumber, Outstanding>,
    /// Bytes of operations that replicas may not have ordered yet.
    under_way: usize,
    frames: BTreeMap<FrameIndex, Sent>,
    next_frame: FrameIndex,
    /// Invariant: exactly the outstanding requests, by when each is repeated.
    due: BTreeSet<(u64, RequestNumber)>,
    peers: Vec<Peer>,
    leader: Option<ReplicaId>,
    /// The leader let a request time out and has not answered since: new ones go to all.
    suspected: bool,
    answered_at: u64,
    active_at: u64,
    round_trip: RoundTrip,
    timer: Option<u64>,
}

type FrameIndex = u64;

#[derive(Clone, Debug)]
enum Phase {
    Fresh,
    Opening(Opening),
    Open { session: SessionId, gone: BTreeSet<ReplicaId> },
    Closing { session: SessionId, gone: BTreeSet<ReplicaId>, attempts: u32, at: u64 },
    Ended(InvokeError),
}

#[derive(Clone, Debug)]
struct Opening {
    frame: Frame,
    recent: SequenceNumber,
    votes: BTreeMap<ReplicaId, Result<SessionId, Refusal>>,
    at: u64,
    wait: u64,
}

/// A request without an answer.
#[derive(Clone, Debug)]
struct Outstanding {
    operation: Bytes,
    frame: FrameIndex,
    sent_at: u64,
    due_at: u64,
    wait: u64,
    attempts: u32,
    votes: Votes,
}

impl Outstanding {
    /// The bytes that it holds back others with.
    fn under_way(&self) -> usize {
        if self.attempts < PARKED_ATTEMPTS { self.operation.len() } else { 0 }
    }
}

/// A frame as it was sent, while a request of it is outstanding.
#[derive(Clone, Debug)]
struct Sent {
    frame: Frame,
    lowest: RequestNumber,
    outstanding: usize,
}

/// What we know about one replica.
#[derive(Clone, Debug)]
struct Peer {
    up: bool,
    leader: Option<ReplicaId>,
    executed: SequenceNumber,
    /// Bytes of its votes that we keep.
    vote_bytes: u64,
}

impl Client {
    /// A client that opens sessions with nonces from `nonce` on: a random number, so that no other process with the
    /// same key uses them.
    #[must_use]
    pub fn new(settings: Settings, nonce: u64) -> Self {
        let peer = Peer { up: true, leader: None, executed: SequenceNumber::ZERO, vote_bytes: 0 };
        Self {
            enough: settings.membership.quorum().one_correct(),
            nonce,
            phase: Phase::Fresh,
            next: RequestNumber(1),
            queued: VecDeque::new(),
            flushing: false,
            outstanding: BTreeMap::new(),
            under_way: 0,
            frames: BTreeMap::new(),
            next_frame: 0,
            due: BTreeSet::new(),
            peers: settings.membership.ids().map(|_| peer.clone()).collect(),
            leader: None,
            suspected: false,
            answered_at: 0,
            active_at: 0,
            round_trip: RoundTrip::new(settings.jitter),
            timer: None,
            settings,
        }
    }

    /// The number that the next Invoke gets.
    #[must_use]
    pub fn next_number(&self) -> RequestNumber {
        self.next
    }

    /// How many more requests may be invoked just now.
    #[must_use]
    pub fn room(&self) -> usize {
        let used = self.next.0 - self.lowest_unanswered().0;
        usize::try_from(u64::from(self.limits().window).saturating_sub(used)).unwrap_or(usize::MAX)
    }

    /// Requests without an answer, sent or not.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.outstanding.len() + self.queued.len()
    }

    /// The session, while one is open.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match self.phase {
            Phase::Open { session, .. } => Some(session),
            _ => None,
        }
    }

    /// Bytes kept of a replica's votes.
    #[cfg(test)]
    pub(crate) fn vote_bytes(&self, replica: ReplicaId) -> u64 {
        self.peer(replica).vote_bytes
    }

    /// Whom it takes for the leader.
    #[must_use]
    pub fn leader(&self) -> Option<ReplicaId> {
        self.leader
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Start => {
                if matches!(self.phase, Phase::Fresh) {
                    self.open(now, out);
                }
            }
            Input::Invoke { operation } => self.invoke(operation, out),
            Input::Flush => self.flush(now, out),
            Input::Reply { from, reply } => self.reply(now, from, reply, out),
            Input::Link { replica, up } => self.link(now, replica, up, out),
            Input::Timeout => self.timeout(now, out),
            Input::Close => self.close(now, out),
        }
        if self.flushing {
            self.flush(now, out);
        }
        self.arm(out);
        self.invariants();
    }

    fn limits(&self) -> &Limits {
        &self.settings.membership.configuration().limits
    }

    // ------------------------------------------------------------------------------------------------ session

    fn open(&mut self, now: Time, out: &mut Vec<Output>) {
        let recent = self.recent();
        let frame = self.sign(FrameBody::Open { nonce: self.nonce, recent });
        let wait = self.round_trip.timeout();
        self.send_to_all(&frame, out);
        let at = now.monotonic.saturating_add(self.round_trip.jittered(wait));
        self.phase = Phase::Opening(Opening { frame, recent, votes: BTreeMap::new(), at, wait });
    }

    /// The newest decision that at least one correct replica has executed.
    fn recent(&self) -> SequenceNumber {
        let mut executed: Vec<SequenceNumber> = self.peers.iter().map(|peer| peer.executed).collect();
        executed.sort_unstable();
        executed[executed.len() - self.enough]
    }

    fn open_vote(
        &mut self,
        now: Time,
        from: ReplicaId,
        nonce: u64,
        vote: Result<SessionId, Refusal>,
        out: &mut Vec<Output>,
    ) {
        let Phase::Opening(opening) = &mut self.phase else { return };
        if nonce != self.nonce {
            return;
        }
        opening.votes.insert(from, vote);
        if opening.votes.values().filter(|other| **other == vote).count() < self.enough {
            return;
        }
        match vote {
            Ok(session) => {
                self.phase = Phase::Open { session, gone: BTreeSet::new() };
                self.active_at = now.monotonic;
                out.push(Output::Opened(session));
            }
            Err(Refusal::TooOld) => {
                opening.votes.clear();
                if self.recent() > self.opening_recent() {
                    self.open(now, out);
                }
            }
            Err(refusal) => {
                self.end(&InvokeError::Refused(refusal), out);
                out.push(Output::Failed(refusal));
            }
        }
    }

    fn opening_recent(&self) -> SequenceNumber {
        match &self.phase {
            Phase::Opening(opening) => opening.recent,
            _ => SequenceNumber::ZERO,
        }
    }

    /// A replica says that the session is not open.
    fn gone_vote(&mut self, now: Time, from: ReplicaId, which: SessionId, out: &mut Vec<Output>) {
        match &mut self.phase {
            Phase::Open { session, gone } if *session == which => {
                gone.insert(from);
                if gone.len() >= self.enough {
                    // What was sent may have run: it is never sent again. What was not goes into the next session.
                    self.fail_outstanding(&InvokeError::SessionLost, out);
                    self.nonce = self.nonce.wrapping_add(1);
                    self.flushing |= !self.queued.is_empty();
                    self.open(now, out);
                }
            }
            Phase::Closing { session, gone, .. } if *session == which => {
                gone.insert(from);
                if gone.len() >= self.enough {
                    self.phase = Phase::Ended(InvokeError::Closed);
                    out.push(Output::Closed);
                }
            }
            _ => {}
        }
    }

    fn close(&mut self, now: Time, out: &mut Vec<Output>) {
        let session = match self.phase {
            Phase::Ended(_) | Phase::Closing { .. } => return,
            Phase::Open { session, .. } => Some(session),
            Phase::Fresh | Phase::Opening(_) => None,
        };
        self.end(&InvokeError::Closed, out);
        match session {
            Some(session) => self.send_close(now, session, BTreeSet::new(), CLOSE_ATTEMPTS, out),
            None => out.push(Output::Closed),
        }
    }

    fn send_close(
        &mut self,
        now: Time,
        session: SessionId,
        gone: BTreeSet<ReplicaId>,
        attempts: u32,
        out: &mut Vec<Output>,
    ) {
        let frame = self.sign(FrameBody::Close { session });
        self.send_to_all(&frame, out);
        let wait = self.round_trip.timeout() << (CLOSE_ATTEMPTS - attempts);
        let at = now.monotonic.saturating_add(self.round_trip.jittered(wait));
        self.phase = Phase::Closing { session, gone, attempts: attempts - 1, at };
    }

    /// Nothing more comes of this client: everything completes with `error`, now and later.
    fn end(&mut self, error: &InvokeError, out: &mut Vec<Output>) {
        self.fail_outstanding(error, out);
        for (number, _) in core::mem::take(&mut self.queued) {
            out.push(Output::Completed { number, outcome: Err(error.clone()) });
        }
        self.phase = Phase::Ended(error.clone());
    }

    fn fail_outstanding(&mut self, error: &InvokeError, out: &mut Vec<Output>) {
        self.due.clear();
        self.frames.clear();
        self.under_way = 0;
        self.peers.iter_mut().for_each(|peer| peer.vote_bytes = 0);
        for (number, _) in core::mem::take(&mut self.outstanding) {
            out.push(Output::Completed { number, outcome: Err(error.clone()) });
        }
    }

    // ----------------------------------------------------------------------------------------------- requests

    fn invoke(&mut self, operation: Bytes, out: &mut Vec<Output>) {
        let number = self.next;
        let room = self.room();
        let limits = self.limits();
        let one_frame = (limits.frame_bytes as usize).saturating_sub(FRAME_BYTES + REQUEST_BYTES);
        let limit = one_frame.min(limits.operation_bytes as usize);
        let refused = match &self.phase {
            Phase::Ended(error) => Some(error.clone()),
            Phase::Closing { .. } => Some(InvokeError::Closed),
            _ if operation.len() > limit => Some(InvokeError::TooLarge { bytes: operation.len(), limit }),
            _ if room == 0 => Some(InvokeError::TooManyOutstanding { limit: limits.window as usize }),
            _ => None,
        };
        match refused {
            // A number that is never sent would only use up the window.
            Some(error) => out.push(Output::Completed { number, outcome: Err(error) }),
            None => {
                self.next = number.next();
                self.queued.push_back((number, operation));
            }
        }
    }

    /// The lowest number without an answer.
    fn lowest_unanswered(&self) -> RequestNumber {
        let sent = self.outstanding.first_key_value().map(|(number, _)| *number);
        sent.or_else(|| self.queued.front().map(|(number, _)| *number)).unwrap_or(self.next)
    }

    fn flush(&mut self, now: Time, out: &mut Vec<Output>) {
        let Phase::Open { session, .. } = self.phase else {
            self.flushing = true;
            return;
        };
        let to_all = self.suspected || self.leader.is_none_or(|leader| !self.peer(leader).up);
        let window = WINDOW_BLOCKS * self.limits().block_bytes as usize;
        while !self.queued.is_empty() && self.under_way < window {
            let lowest = self.lowest_unanswered();
            let queued = self.queued.iter();
            let count = fitting(queued.map(|(_, operation)| operation.len()), self.limits());
            let requests: Vec<(RequestNumber, Bytes)> = self.queued.drain(..count).collect();
            let index = self.next_frame;
            let bytes = requests.iter().map(|(_, operation)| operation.len()).sum::<usize>();
            self.under_way += bytes;
            // From here to the leader behind all others, and from there to its followers.
            let transfer = transfer_microseconds(self.under_way + (self.peers.len() - 1) * bytes);
            let wait = self.round_trip.timeout() + transfer;
            for (number, operation) in &requests {
                let due_at = now.monotonic.saturating_add(self.round_trip.jittered(wait));
                self.due.insert((due_at, *number));
                let operation = operation.clone();
                let sent_at = now.monotonic;
                let votes = Votes::default();
                let request = Outstanding { operation, frame: index, sent_at, due_at, wait, attempts: 0, votes };
                self.outstanding.insert(*number, request);
            }
            let frame = self.remember(session, lowest, requests);
            match self.leader.filter(|_| !to_all) {
                Some(leader) => send(leader, &frame, out),
                None => self.send_to_all(&frame, out),
            }
        }
        self.flushing = !self.queued.is_empty();
    }

    /// Signs a frame of requests and keeps it until the last of them is answered.
    fn remember(&mut self, session: SessionId, lowest: RequestNumber, requests: Vec<(RequestNumber, Bytes)>) -> Frame {
        let outstanding = requests.len();
        let frame = self.sign(FrameBody::Requests { session, lowest_unacknowledged: lowest, requests });
        self.frames.insert(self.next_frame, Sent { frame: frame.clone(), lowest, outstanding });
        self.next_frame += 1;
        frame
    }

    fn executed(&mut self, now: Time, from: ReplicaId, number: RequestNumber, body: ReplyBody, out: &mut Vec<Output>) {
        let (enough, members) = (self.enough, self.peers.len());
        let Some(request) = self.outstanding.get_mut(&number) else { return };
        let peer = &mut self.peers[usize::from(from.0)];
        let before = request.votes.bytes(from);
        let room = VOTE_BYTES_MAX.saturating_sub(peer.vote_bytes - before);
        let repeatedly = request.attempts >= REPEATED_ATTEMPTS;
        let tally = request.votes.vote(from, body, room, repeatedly, enough, members);
        if let Tally::Decided(outcome) = tally {
            peer.vote_bytes -= before;
            return self.complete(now, number, Ok(outcome), Some(from), out);
        }
        peer.vote_bytes = peer.vote_bytes - before + request.votes.bytes(from);
        match tally {
            Tally::DigestOnly { exhausted, .. } if exhausted > members - enough => {
                self.complete(now, number, Err(InvokeError::OutcomeLost), None, out);
            }
            // All have spoken and the one that should have sent the outcome whole did not: ask at once.
            Tally::DigestOnly { complete: true, .. } if request.attempts == 0 => {
                self.repeat(now, &[number], out);
            }
            _ => {}
        }
    }

    /// `settled`: the replica whose kept bytes are already given back.
    fn complete(
        &mut self,
        now: Time,
        number: RequestNumber,
        outcome: Result<Outcome, InvokeError>,
        settled: Option<ReplicaId>,
        out: &mut Vec<Output>,
    ) {
        let Some(request) = self.outstanding.remove(&number) else { return };
        self.under_way -= request.under_way();
        self.due.remove(&(request.due_at, number));
        for (replica, bytes) in request.votes.all_bytes().filter(|(replica, _)| Some(*replica) != settled) {
            self.peers[usize::from(replica.0)].vote_bytes -= bytes;
        }
        self.leave_frame(request.frame);
        if request.attempts == 0 {
            self.round_trip.measured(now.monotonic.saturating_sub(request.sent_at));
        }
        self.suspected = false;
        self.answered_at = now.monotonic;
        self.active_at = now.monotonic;
        out.push(Output::Completed { number, outcome });
    }

    fn leave_frame(&mut self, index: FrameIndex) {
        if let Some(sent) = self.frames.get_mut(&index) {
            sent.outstanding -= 1;
            if sent.outstanding == 0 {
                self.frames.remove(&index);
            }
        }
    }

    // --------------------------------------------------------------------------------------------- repetition

    fn timeout(&mut self, now: Time, out: &mut Vec<Output>) {
        self.timer = None;
        match &mut self.phase {
            Phase::Fresh | Phase::Ended(_) => {}
            Phase::Opening(opening) if opening.at <= now.monotonic => {
                let (frame, wait) = (opening.frame.clone(), longer(opening.wait));
                let newer = self.recent() > self.opening_recent();
                if newer {
                    self.open(now, out);
                } else {
                    self.send_to_all(&frame, out);
                }
                let at = now.monotonic.saturating_add(self.round_trip.jittered(wait));
                if let Phase::Opening(opening) = &mut self.phase {
                    (opening.at, opening.wait) = (at, wait);
                }
            }
            Phase::Opening(_) => {}
            Phase::Open { session, .. } => {
                let session = *session;
                self.repeat_due(now, out);
                if self.keep_alive_at() <= now.monotonic {
                    self.active_at = now.monotonic;
                    let frame = self.empty_frame(session);
                    self.send_to_all(&frame, out);
                }
            }
            Phase::Closing { session, gone, attempts, at } if *at <= now.monotonic => {
                let (session, gone, attempts) = (*session, core::mem::take(gone), *attempts);
                if attempts == 0 {
                    self.phase = Phase::Ended(InvokeError::Closed);
                    out.push(Output::Closed);
                } else {
                    self.send_close(now, session, gone, attempts, out);
                }
            }
            Phase::Closing { .. } => {}
        }
    }

    fn keep_alive_at(&self) -> u64 {
        self.active_at.saturating_add(self.limits().session_idle / KEEP_ALIVE_PARTS)
    }

    /// Says where this client is, what it has, and that it is alive.
    fn empty_frame(&self, session: SessionId) -> Frame {
        let lowest_unacknowledged = self.lowest_unanswered();
        self.sign(FrameBody::Requests { session, lowest_unacknowledged, requests: Vec::new() })
    }

    fn repeat_due(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some((_, first)) = self.due.first().filter(|(at, _)| *at <= now.monotonic) else { return };
        let together = (self.outstanding[first].wait / TOGETHER_PARTS).max(TOGETHER_MICROSECONDS);
        let until = now.monotonic.saturating_add(together);
        let numbers: Vec<RequestNumber> =
            self.due.iter().take_while(|(at, _)| *at <= until).map(|(_, number)| *number).collect();
        // A request may wait inside the service; that others are answered meanwhile shows that the leader is well.
        let silent = |request: &Outstanding| request.attempts == 0 && request.sent_at >= self.answered_at;
        self.suspected |= numbers.iter().filter_map(|number| self.outstanding.get(number)).any(silent);
        self.repeat(now, &numbers, out);
    }

    /// Sends these requests again, to all. A frame of which nothing is answered goes as it was, so that replicas know
    /// it again; what is left of the others goes in new ones.
    fn repeat(&mut self, now: Time, numbers: &[RequestNumber], out: &mut Vec<Output>) {
        let Phase::Open { session, .. } = self.phase else { return };
        let lowest = self.lowest_unanswered();
        let mut by_frame: BTreeMap<FrameIndex, Vec<RequestNumber>> = BTreeMap::new();
        for number in numbers {
            let Some(request) = self.outstanding.get_mut(number) else { continue };
            self.due.remove(&(request.due_at, *number));
            self.under_way -= request.under_way();
            request.wait = longer(request.wait);
            request.attempts = request.attempts.saturating_add(1);
            if request.attempts >= PARKED_ATTEMPTS {
                let transfer = transfer_microseconds(self.peers.len() * request.operation.len());
                request.wait = request.wait.max(PARKED_PART * transfer);
            }
            self.under_way += request.under_way();
            request.due_at = now.monotonic.saturating_add(self.round_trip.jittered(request.wait));
            self.due.insert((request.due_at, *number));
            by_frame.entry(request.frame).or_default().push(*number);
        }
        let mut rest = Vec::new();
        for (index, numbers) in by_frame {
            let Some(sent) = self.frames.get(&index) else { continue };
            let whole = numbers.len() == sent.frame.entries();
            let repeated = numbers.iter().any(|number| self.outstanding[number].attempts > 1);
            if whole && (sent.lowest == lowest || !repeated) {
                let frame = sent.frame.clone();
                self.send_to_all(&frame, out);
            } else {
                rest.extend(numbers);
            }
        }
        rest.sort_unstable();
        let mut rest = rest.as_slice();
        while !rest.is_empty() {
            let sizes = rest.iter().map(|number| self.outstanding[number].operation.len());
            let (now_sent, later) = rest.split_at(fitting(sizes, self.limits()));
            rest = later;
            let index = self.next_frame;
            let mut requests = Vec::with_capacity(now_sent.len());
            for number in now_sent {
                let Some(request) = self.outstanding.get_mut(number) else { continue };
                let before = core::mem::replace(&mut request.frame, index);
                requests.push((*number, request.operation.clone()));
                self.leave_frame(before);
            }
            let frame = self.remember(session, lowest, requests);
            self.send_to_all(&frame, out);
        }
    }

    fn link(&mut self, now: Time, replica: ReplicaId, up: bool, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(usize::from(replica.0)) else { return };
        peer.up = up;
        match &self.phase {
            // It does not know yet where to send its answers.
            Phase::Open { session, .. } if up => send(replica, &self.empty_frame(*session), out),
            Phase::Opening(opening) if up => send(replica, &opening.frame, out),
            Phase::Open { .. } if self.leader == Some(replica) => {
                let all: Vec<RequestNumber> = self.outstanding.keys().copied().collect();
                self.repeat(now, &all, out);
            }
            _ => {}
        }
    }

    // ------------------------------------------------------------------------------------------------ replies

    fn reply(&mut self, now: Time, from: ReplicaId, reply: Reply, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(usize::from(from.0)) else { return };
        peer.executed = reply.executed;
        if peer.leader != Some(reply.leader) {
            peer.leader = Some(reply.leader);
            self.follow(reply.leader);
        }
        for answer in reply.answers {
            match answer {
                Answer::Executed { session, number, body } if self.session() == Some(session) => {
                    self.executed(now, from, number, body, out);
                }
                Answer::Executed { .. } => {}
                Answer::Opened { nonce, session } => self.open_vote(now, from, nonce, Ok(session), out),
                Answer::NotOpened { nonce, reason } => self.open_vote(now, from, nonce, Err(reason), out),
                Answer::NoSession { session } => self.gone_vote(now, from, session, out),
            }
        }
    }

    /// Takes `leader` for the leader if f+1 do: a single liar cannot draw our requests to itself.
    fn follow(&mut self, leader: ReplicaId) {
        let hints = self.peers.iter().filter(|peer| peer.leader == Some(leader)).count();
        if hints >= self.enough && usize::from(leader.0) < self.peers.len() && self.leader != Some(leader) {
            self.leader = Some(leader);
            self.suspected = false;
        }
    }

    // ------------------------------------------------------------------------------------------------ sending

    fn peer(&self, replica: ReplicaId) -> &Peer {
        &self.peers[usize::from(replica.0)]
    }

    fn sign(&self, body: FrameBody) -> Frame {
        Frame::sign(self.settings.membership.configuration().cluster, &self.settings.signer, body)
    }

    fn send_to_all(&self, frame: &Frame, out: &mut Vec<Output>) {
        for replica in self.settings.membership.ids().filter(|replica| self.peer(*replica).up) {
            send(replica, frame, out);
        }
    }

    /// Sets the timer if it stands too late; one that stands too early only comes for nothing.
    fn arm(&mut self, out: &mut Vec<Output>) {
        let wanted = match &self.phase {
            Phase::Fresh | Phase::Ended(_) => None,
            Phase::Opening(opening) => Some(opening.at),
            Phase::Closing { at, .. } => Some(*at),
            Phase::Open { .. } => {
                let repeat = self.due.first().map_or(u64::MAX, |(at, _)| *at);
                Some(repeat.min(self.keep_alive_at()))
            }
        };
        if let Some(at) = wanted.filter(|at| self.timer.is_none_or(|timer| *at < timer)) {
            self.timer = Some(at);
            out.push(Output::SetTimer { at });
        }
    }

    fn invariants(&self) {
        let under_way = || self.outstanding.values().map(Outstanding::under_way).sum::<usize>();
        debug_assert_eq!(self.under_way, under_way(), "what waits is held back for a reason");
        assert_eq!(self.due.len(), self.outstanding.len(), "every outstanding request is repeated some time");
        assert!(self.frames.len() <= self.outstanding.len(), "a frame is kept for what is outstanding of it");
    }
}

fn send(to: ReplicaId, frame: &Frame, out: &mut Vec<Output>) {
    out.push(Output::Send { to, message: ClientMessage::Frame(frame.wire().clone()) });
}

/// How many operations of these sizes, from the first on, fit into one frame: at least one.
fn fitting(sizes: impl Iterator<Item = usize>, limits: &Limits) -> usize {
    let mut bytes = FRAME_BYTES;
    let fits = |size: &usize| {
        bytes += REQUEST_BYTES + size;
        bytes <= limits.frame_bytes as usize
    };
    sizes.take_while(fits).count().max(1)
}
