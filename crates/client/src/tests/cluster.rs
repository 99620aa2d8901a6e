//! A cluster as a client sees it: one order, replicas that answer from it, links with delays and losses. By seed.
//!
//! Requests run at once in the order of arrival at the leader (or, once a repetition has told the others, at any
//! replica: the order is one). A request for `park` is answered only when a `wake` has run.

use crate::{Client, Input, InvokeError, Output, Settings};
use std::collections::{BTreeMap, BTreeSet};
use unisono_types::{
    Answer, Bytes, ClientMessage, ClusterId, Configuration, Digest, Epoch, Frame, FrameBody, Incarnation, Limits,
    Member, Membership, Outcome, Refusal, ReplicaId, Reply, ReplyBody, RequestNumber, SequenceNumber, SessionId,
    Signer, Time,
};

const UNIVERSE: u64 = 1;

/// Splitmix64: enough for tests, and its seed is printed when one fails.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

pub(super) fn membership(members: u16, change: impl FnOnce(&mut Limits)) -> Membership {
    let mut limits = Limits::default();
    change(&mut limits);
    let key = |seed: u64| Signer::keyed(UNIVERSE, seed).public_key();
    Membership::new(Configuration {
        cluster: ClusterId([7; 16]),
        epoch: Epoch(0),
        members: (0..members)
            .map(|index| Member {
                id: ReplicaId(index),
                address: String::new(),
                host_key: key(100 + u64::from(index)),
                register_key: key(200 + u64::from(index)),
                incarnation: Incarnation(0),
            })
            .collect(),
        client_keys: vec![key(1)],
        admin_key: key(2),
        algorithm: "test".into(),
        rotation: 0,
        limits,
    })
    .unwrap()
}

/// How a replica behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Manner {
    Correct,
    /// Takes everything and says nothing.
    Silent,
    /// Says wrong things, in every way it knows.
    Liar,
}

pub(super) struct Peer {
    pub(super) manner: Manner,
    pub(super) leader: ReplicaId,
    /// Sessions for which it knows where the client is.
    heard: BTreeSet<SessionId>,
    /// Frames it was sent.
    pub(super) frames: Vec<Frame>,
}

#[derive(Clone, Debug)]
enum Event {
    ToReplica(ReplicaId, Bytes),
    ToClient(ReplicaId, Reply),
    Timer,
}

pub(super) struct Cluster {
    pub(super) client: Client,
    pub(super) membership: Membership,
    pub(super) peers: Vec<Peer>,
    pub(super) now: Time,
    pub(super) random: Random,
    /// In a thousand, each way: messages lost, messages that come twice.
    pub(super) loss: u64,
    pub(super) delay: u64,
    queue: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    timer: Option<u64>,
    /// What every correct replica refuses to open.
    pub(super) refusal: Option<Refusal>,
    pub(super) height: u64,
    pub(super) floor: u64,
    nonces: BTreeMap<u64, SessionId>,
    pub(super) open: BTreeSet<SessionId>,
    pub(super) runs: BTreeMap<(SessionId, RequestNumber), u32>,
    finished: BTreeMap<(SessionId, RequestNumber), Outcome>,
    parked: Vec<(SessionId, RequestNumber)>,
    /// Only digests are stored of long outcomes.
    pub(super) forgetful: bool,
    pub(super) completed: BTreeMap<RequestNumber, Result<Outcome, InvokeError>>,
    pub(super) other: Vec<Output>,
    pub(super) sent: u64,
}

pub(super) fn outcome_of(operation: &[u8]) -> Outcome {
    let mut bytes = b"did ".to_vec();
    bytes.extend_from_slice(operation);
    if operation.starts_with(b"long") {
        bytes.resize(5_000, b'x');
    }
    Ok(bytes.into())
}

impl Cluster {
    pub(super) fn new(seed: u64) -> Self {
        Self::with(seed, membership(3, |_| ()))
    }

    pub(super) fn with(seed: u64, membership: Membership) -> Self {
        let signer = Signer::keyed(UNIVERSE, 1);
        let settings = Settings { membership: membership.clone(), signer, jitter: seed };
        let peer =
            |_| Peer { manner: Manner::Correct, leader: ReplicaId(0), heard: BTreeSet::new(), frames: Vec::new() };
        Self {
            client: Client::new(settings, seed << 8),
            peers: membership.ids().map(peer).collect(),
            membership,
            now: Time { monotonic: 1_000_000, wall: 0 },
            random: Random(seed),
            loss: 0,
            delay: 1_000,
            queue: BTreeMap::new(),
            next_event: 0,
            timer: None,
            refusal: None,
            height: 10,
            floor: 0,
            nonces: BTreeMap::new(),
            open: BTreeSet::new(),
            runs: BTreeMap::new(),
            finished: BTreeMap::new(),
            parked: Vec::new(),
            forgetful: false,
            completed: BTreeMap::new(),
            other: Vec::new(),
            sent: 0,
        }
    }

    /// A client that has its session.
    pub(super) fn opened(seed: u64) -> Self {
        let mut cluster = Self::new(seed);
        cluster.input(Input::Start);
        cluster.pass(100_000);
        assert!(cluster.client.session().is_some());
        cluster.sent = 0;
        cluster.peers.iter_mut().for_each(|peer| peer.frames.clear());
        cluster
    }

    pub(super) fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.client.handle(self.now, input, &mut out);
        for output in out {
            match output {
                Output::Send { to, message: ClientMessage::Frame(wire) } => {
                    self.sent += 1;
                    self.deliver(Event::ToReplica(to, wire));
                }
                Output::SetTimer { at } => self.timer = Some(at),
                Output::Completed { number, outcome } => {
                    assert!(self.completed.insert(number, outcome).is_none(), "{number:?} completes once");
                }
                other => self.other.push(other),
            }
        }
    }

    pub(super) fn invoke(&mut self, operation: &str) -> RequestNumber {
        let number = self.client.next_number();
        self.input(Input::Invoke { operation: Bytes::copy_from_slice(operation.as_bytes()) });
        number
    }

    /// Invokes and flushes.
    pub(super) fn call(&mut self, operation: &str) -> RequestNumber {
        let number = self.invoke(operation);
        self.input(Input::Flush);
        number
    }

    fn deliver(&mut self, event: Event) {
        let copies = match self.random.below(1_000) {
            chance if chance < self.loss => 0,
            chance if chance < 2 * self.loss => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let at = self.now.monotonic + self.delay + self.random.below(self.delay);
            self.next_event += 1;
            self.queue.insert((at, self.next_event), event.clone());
        }
    }

    pub(super) fn pass(&mut self, microseconds: u64) {
        let end = self.now.monotonic + microseconds;
        loop {
            let event = self.queue.first_key_value().map(|((at, _), _)| *at);
            let timer = self.timer.filter(|timer| event.is_none_or(|event| *timer <= event));
            let Some(at) = timer.or(event).filter(|at| *at <= end) else { break };
            self.now.monotonic = self.now.monotonic.max(at);
            let event = if timer.is_some() { Event::Timer } else { self.queue.pop_first().unwrap().1 };
            match event {
                Event::Timer => {
                    self.timer = None;
                    self.input(Input::Timeout);
                }
                Event::ToReplica(to, wire) => self.replica(to, wire),
                Event::ToClient(from, reply) => self.input(Input::Reply { from, reply }),
            }
        }
        self.now.monotonic = end;
    }

    fn replica(&mut self, id: ReplicaId, wire: Bytes) {
        let limit = self.membership.configuration().limits.frame_bytes as usize;
        let frame = Frame::parse(self.membership.configuration().cluster, wire, limit).expect("a client is correct");
        self.peers[usize::from(id.0)].frames.push(frame.clone());
        match self.peers[usize::from(id.0)].manner {
            Manner::Silent => return,
            Manner::Liar => self.lie(id, &frame),
            Manner::Correct => {}
        }
        match frame.body() {
            FrameBody::Open { nonce, recent } => self.open(id, *nonce, *recent),
            FrameBody::Close { session } => {
                self.open.remove(session);
                let session = *session;
                self.say(id, vec![Answer::NoSession { session }]);
            }
            FrameBody::Requests { session, requests, .. } if self.open.contains(session) => {
                self.peers[usize::from(id.0)].heard.insert(*session);
                for (number, operation) in requests {
                    self.request(id, *session, *number, operation);
                }
            }
            FrameBody::Requests { session, .. } => self.say(id, vec![Answer::NoSession { session: *session }]),
            FrameBody::System { .. } | FrameBody::Admin { .. } | FrameBody::Called { .. } => {
                panic!("no client's affair")
            }
        }
    }

    fn open(&mut self, id: ReplicaId, nonce: u64, recent: SequenceNumber) {
        let refusal = self.refusal.or((recent.0 < self.floor).then_some(Refusal::TooOld));
        if let Some(reason) = refusal {
            return self.say(id, vec![Answer::NotOpened { nonce, reason }]);
        }
        self.height += 1;
        let session = *self.nonces.entry(nonce).or_insert_with(|| {
            self.open.insert(SessionId(self.height << 24));
            SessionId(self.height << 24)
        });
        self.peers[usize::from(id.0)].heard.insert(session);
        self.say(id, vec![Answer::Opened { nonce, session }]);
    }

    fn request(&mut self, id: ReplicaId, session: SessionId, number: RequestNumber, operation: &Bytes) {
        let key = (session, number);
        if self.runs.contains_key(&key) {
            if let Some(outcome) = self.finished.get(&key) {
                let body = self.body(outcome, true);
                self.say(id, vec![Answer::Executed { session, number, body }]);
            }
            return;
        }
        let leads = self.peers[usize::from(id.0)].leader == id;
        let leader = self.peers[usize::from(id.0)].leader;
        if !leads && self.peers[usize::from(leader.0)].manner != Manner::Correct {
            // The others notice and choose another one.
            self.peers.iter_mut().filter(|peer| peer.manner == Manner::Correct).for_each(|peer| peer.leader = id);
        }
        if !leads && self.peers[usize::from(leader.0)].manner == Manner::Correct {
            return;
        }
        self.height += 1;
        self.runs.insert(key, 1);
        if operation.starts_with(b"park") {
            self.parked.push(key);
            return;
        }
        self.finish(session, number, outcome_of(operation));
        if operation.starts_with(b"wake") {
            for (session, number) in std::mem::take(&mut self.parked) {
                self.finish(session, number, outcome_of(b"park"));
            }
        }
    }

    fn finish(&mut self, session: SessionId, number: RequestNumber, outcome: Outcome) {
        for id in self.membership.ids().collect::<Vec<_>>() {
            let peer = &self.peers[usize::from(id.0)];
            if peer.manner == Manner::Correct && peer.heard.contains(&session) {
                let whole = (session.0.wrapping_add(number.0)) % self.peers.len() as u64 == u64::from(id.0);
                let body = self.body(&outcome, whole);
                self.say(id, vec![Answer::Executed { session, number, body }]);
            }
        }
        self.finished.insert((session, number), outcome);
    }

    fn body(&self, outcome: &Outcome, whole: bool) -> ReplyBody {
        let short = outcome.as_ref().is_ok_and(|bytes| bytes.len() <= 1_024);
        if short || (whole && !self.forgetful) {
            ReplyBody::Full(outcome.clone())
        } else {
            ReplyBody::Digest(ReplyBody::digest_of(outcome))
        }
    }

    pub(super) fn say(&mut self, id: ReplicaId, answers: Vec<Answer>) {
        let leader = self.peers[usize::from(id.0)].leader;
        let reply = Reply { epoch: Epoch(0), leader, executed: SequenceNumber(self.height), answers };
        self.deliver(Event::ToClient(id, reply));
    }

    /// Everything that a liar may think of.
    fn lie(&mut self, id: ReplicaId, frame: &Frame) {
        let wrong = |text: &'static str| ReplyBody::Full(Ok(Bytes::from_static(text.as_bytes())));
        let mut answers = Vec::new();
        match frame.body() {
            FrameBody::Open { nonce, .. } => {
                answers.push(Answer::Opened { nonce: *nonce, session: SessionId(self.random.below(1 << 40)) });
                answers.push(Answer::NotOpened { nonce: *nonce, reason: Refusal::UnknownKey });
            }
            FrameBody::Requests { session, requests, .. } => {
                let session = *session;
                for (number, _) in requests {
                    let number = *number;
                    answers.push(Answer::Executed { session, number, body: wrong("lie") });
                    let body = ReplyBody::Digest(Digest([self.random.below(256) as u8; 32]));
                    answers.push(Answer::Executed { session, number, body });
                    answers.push(Answer::Executed { session: SessionId(1), number, body: wrong("lie") });
                }
                let number = RequestNumber(u64::MAX);
                answers.push(Answer::Executed { session, number, body: wrong("lie") });
                answers.push(Answer::NoSession { session });
                answers.push(Answer::NoSession { session: SessionId(u64::MAX) });
            }
            _ => {}
        }
        let leader = ReplicaId(self.random.below(70_000).min(65_535) as u16);
        for _ in 0..2 {
            let executed = SequenceNumber(u64::MAX);
            let reply = Reply { epoch: Epoch(9), leader, executed, answers: answers.clone() };
            self.deliver(Event::ToClient(id, reply));
        }
    }

    /// All correct replicas close this session.
    pub(super) fn expire(&mut self, session: SessionId) {
        self.open.remove(&session);
    }

    /// A frame's numbers, as it was sent to `id`, newest last.
    pub(super) fn frames_to(&self, id: u16) -> Vec<Vec<u64>> {
        let numbers = |frame: &Frame| match frame.body() {
            FrameBody::Requests { requests, .. } => Some(requests.iter().map(|(number, _)| number.0).collect()),
            _ => None,
        };
        self.peers[usize::from(id)].frames.iter().filter_map(numbers).collect()
    }
}
