//! Agreement alone: a cluster that orders a log of numbers, with no sessions, no execution and no state.
//!
//! ```text
//!   Submitter ── signed frame ──> Numbers: Consensus ── Decide ──> the log
//!             <── id, place ─────          (any algorithm)
//! ```
//! The smallest thing that an agreement algorithm can be wrong in. What the checkers see: decisions, the places of
//! frames in them, and whether everything submitted is ordered in the end.

use crate::core::{Actor, ActorEffect, ActorInput, Core, Effect, Factory, Input, Log, Moment, Observation, Progress};
use crate::lies::{Bend, Bent, Flood, Hearsay, Kind};
use crate::{Algorithm, Identities, Planted, Random, Seat};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use unisono_consensus::{Decision, Input as ConsensusInput, Output as ConsensusOutput, Provide, Record};
use unisono_node::log::{LogReader, Recovered};
use unisono_node::{Ledger, Promise};
use unisono_trusted::verify_certificate;
use unisono_types::{
    Bytes, Certificate, Digest, Frame, FrameBody, Message, Rejected, ReplicaId, RequestNumber, SequenceNumber,
    SessionId, Signer, Time, Unverified, Verified, VerifyContext, decode, encode,
};

/// Bytes of one frame here.
const FRAME_BYTES_MAX: usize = 1 << 16;

/// Makes replicas that order numbers.
pub struct NumbersFactory<A> {
    identities: Identities,
    planted: Option<Planted>,
    algorithm: PhantomData<A>,
}

impl<A: Algorithm> NumbersFactory<A> {
    /// For this cluster.
    #[must_use]
    pub const fn new(identities: Identities, planted: Option<Planted>) -> Self {
        Self { identities, planted, algorithm: PhantomData }
    }
}

impl<A: Algorithm> Factory for NumbersFactory<A> {
    fn create(&self, replica: ReplicaId, log: Log) -> Box<dyn Core> {
        let context = &self.identities.context;
        let signer = self.identities.hosts[usize::from(replica.0)].clone();
        let Log { recovered, reader, register } = log;
        let consensus = A::create(replica, signer, context.membership.clone(), &recovered, self.planted);
        Box::new(Numbers {
            consensus,
            context: context.clone(),
            ledger: Ledger::new(register, recovered.lost),
            log: Some((recovered, reader)),
            ordered: BTreeMap::new(),
            last: SequenceNumber(0),
            outbox: Vec::new(),
        })
    }

    fn parent(&self) -> fn(&Bytes) -> Option<Digest> {
        A::parent
    }

    fn speaker(&self, bytes: &Bytes) -> Option<ReplicaId> {
        A::spoken(bytes).map(|(replica, _)| replica)
    }

    fn vote(&self, bytes: &Bytes) -> Option<Certificate> {
        A::vote(bytes)
    }

    fn is_signed(&self, vote: &Certificate) -> bool {
        verify_certificate(vote, &self.identities.context).is_ok()
    }

    fn piece_bytes(&self) -> usize {
        self.identities.membership().bounds().piece
    }

    fn describe(&self, bytes: &Bytes) -> String {
        A::describe(&self.identities, bytes)
    }

    fn forge(&self, liar: ReplicaId, bytes: &Bytes, random: &mut Random) -> Vec<Bytes> {
        A::forge(&self.identities, liar, bytes, random)
    }

    fn show(&self, liar: ReplicaId, signed: &crate::core::Abuse, random: &mut Random) -> Vec<Bytes> {
        A::show(&self.identities, liar, signed, random)
    }

    fn kind(&self, bytes: &Bytes) -> Kind {
        A::kind(bytes)
    }

    fn bend(&self, liar: ReplicaId, block: &Bytes, bend: Bend, hearsay: &mut Hearsay<'_>) -> Option<Bent> {
        A::bend(&self.identities, liar, block, bend, hearsay)
    }

    fn tamper(&self, bytes: &Bytes, random: &mut Random) -> Option<Bytes> {
        A::tamper(&self.identities, bytes, random)
    }

    fn flood(&self, liar: ReplicaId, flood: Flood, hearsay: &mut Hearsay<'_>) -> Option<Bytes> {
        A::flood(&self.identities, liar, flood, hearsay)
    }

    fn mentions(&self, bytes: &Bytes, client: usize) -> bool {
        let key = self.identities.client_key(client);
        bytes.first_chunk::<32>() == Some(&key.0) || A::mentions(&self.identities, bytes, &key)
    }

    fn wrong_reply(&self, bytes: &Bytes, random: &mut Random) -> Option<Bytes> {
        let (id, _): (Digest, SequenceNumber) = decode(bytes, 64).ok()?;
        Some(encode(&(id, SequenceNumber(random.below(1_000)))).into())
    }
}

/// One replica.
struct Numbers<A: Algorithm> {
    consensus: A,
    context: VerifyContext,
    ledger: Ledger<Seat>,
    /// The own log, to be followed again at the start.
    log: Option<(Recovered, LogReader)>,
    ordered: BTreeMap<Digest, SequenceNumber>,
    last: SequenceNumber,
    outbox: Vec<ConsensusOutput<A::Message>>,
}

impl<A: Algorithm> Core for Numbers<A> {
    fn handle(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Start => {
                self.replay(effects);
                self.pass(now, ConsensusInput::Start, effects);
                if self.last > SequenceNumber(0) {
                    self.pass(now, ConsensusInput::Executed(self.last), effects);
                }
            }
            Input::Peer { from, bytes } => match self.read(from, bytes) {
                Ok(Some(message)) => self.pass(now, ConsensusInput::Message { from, message }, effects),
                Ok(None) => {}
                Err(reason) => effects.push(Effect::Observe(Observation::Rejected(reason))),
            },
            Input::Client { connection, bytes, .. } => self.submit(now, connection, bytes, effects),
            Input::Timeout(timer) => {
                self.pass(now, ConsensusInput::Timeout(unisono_consensus::TimerId(timer as u32)), effects);
            }
            Input::Durable(ticket) => {
                for promise in self.ledger.durable(ticket) {
                    let input = match promise {
                        Promise::Persisted(id) => ConsensusInput::Persisted(id),
                        Promise::Answered(answer) => ConsensusInput::Answered(answer),
                    };
                    self.pass(now, input, effects);
                }
            }
            Input::Arriving { from, bytes } => self.pass(now, ConsensusInput::Arriving { from, bytes }, effects),
            Input::Link { peer, up } => self.pass(now, ConsensusInput::Link { peer, up }, effects),
            Input::Provided { provide: Provide { to, committed, .. }, blocks } => {
                if let Some(proof) = blocks.last().map(|last| last.proof.clone()) {
                    let blocks = blocks.into_iter().map(|block| block.bytes).collect();
                    send(effects, to, &A::provide(committed, blocks, proof));
                }
            }
            Input::Disconnected(_) | Input::Step(_) | Input::Outside { .. } | Input::StartAhead(_) => {}
        }
        effects.extend(self.ledger.group().map(Effect::Write));
    }

    fn runnable(&self) -> usize {
        0
    }

    fn progress(&self) -> Progress {
        Progress { committed: self.last, executed: self.last, view: self.consensus.status().view.view() }
    }
}

/// Bytes of the own log that are read at once.
const REPLAY_BYTES: usize = 1 << 20;

impl<A: Algorithm> Numbers<A> {
    fn replay(&mut self, effects: &mut Vec<Effect>) {
        let Some((recovered, reader)) = self.log.take() else { return };
        let last = recovered.committed.map_or(SequenceNumber(0), |block| block.sequence);
        while self.last < last {
            let blocks = reader.committed(self.last.next(), REPLAY_BYTES).expect("our own log can be read");
            assert!(!blocks.is_empty(), "a committed block is in the log");
            for block in blocks {
                let decision = A::decision(&block.bytes, &self.context).expect("our own log holds blocks");
                self.decide(&decision, effects);
            }
        }
    }

    /// A message, unless it is of no use: then it is dropped unchecked.
    fn read(&self, from: ReplicaId, bytes: Bytes) -> Result<Option<Verified<A::Message>>, Rejected> {
        let message = A::Message::parse(bytes, &self.context)?;
        let wanted = self.consensus.is_wanted(from, &message);
        wanted.then(|| Unverified::new(message).verify(&self.context)).transpose()
    }

    fn submit(&mut self, now: Time, connection: u64, bytes: Bytes, effects: &mut Vec<Effect>) {
        let frame = Frame::parse(self.context.cluster, bytes, FRAME_BYTES_MAX);
        match frame.and_then(|frame| Unverified::new(frame).verify(&self.context)) {
            Err(reason) => effects.push(Effect::Observe(Observation::Rejected(reason))),
            Ok(frame) => match self.ordered.get(&frame.id()) {
                Some(place) => {
                    let bytes = encode(&(frame.id(), *place)).into();
                    effects.push(Effect::Reply { connection, bytes });
                }
                None => self.pass(now, ConsensusInput::Submit(frame), effects),
            },
        }
    }

    fn pass(&mut self, now: Time, input: ConsensusInput<A::Message>, effects: &mut Vec<Effect>) {
        let mut outbox = std::mem::take(&mut self.outbox);
        self.consensus.handle(now, input, &mut outbox);
        let mut executed = None;
        let mut offered = Vec::new();
        for output in outbox.drain(..) {
            match output {
                ConsensusOutput::Send { to, message } => send(effects, to, &message),
                ConsensusOutput::Broadcast(message) => {
                    let mut bytes = Vec::new();
                    message.encode(&mut bytes);
                    let bytes = Bytes::from(bytes);
                    let all = self.context.membership.ids();
                    effects.extend(all.map(|to| Effect::Send { to, bytes: bytes.clone() }));
                }
                ConsensusOutput::Persist { id, record } => {
                    match &record {
                        Record::Block { hash, bytes, .. } => {
                            let (hash, bytes) = (*hash, bytes.clone());
                            effects.push(Effect::Observe(Observation::Written { hash, bytes }));
                        }
                        Record::Commit { sequence, hash, .. } => {
                            let (sequence, hash) = (*sequence, *hash);
                            effects.push(Effect::Observe(Observation::Committed { sequence, hash }));
                        }
                        Record::Clock(_) | Record::Barrier => {}
                    }
                    self.ledger.persist(id, record);
                }
                ConsensusOutput::Certify { view, step, hash } => self.ledger.certify(view, step, hash),
                ConsensusOutput::Advance { view } => self.ledger.advance(view),
                ConsensusOutput::Attest { nonce } => self.ledger.attest(nonce),
                ConsensusOutput::SetTimer { timer, at } => {
                    effects.push(Effect::SetTimer { timer: u64::from(timer.0), at });
                }
                ConsensusOutput::Provide(provide) => effects.push(Effect::Provide(provide)),
                ConsensusOutput::Offer(frames) => offered.extend(frames),
                ConsensusOutput::Silence => effects.push(Effect::Observe(Observation::Silenced)),
                ConsensusOutput::Suspect { peer, reason } => {
                    effects.push(Effect::Observe(Observation::Suspected { peer, reason }));
                }
                ConsensusOutput::Contradiction(found) => {
                    let what = format!("two histories are proven at {:?}", found.sequence);
                    effects.push(Effect::Observe(Observation::Halted(what)));
                }
                ConsensusOutput::Decide(decision) => {
                    executed = Some(decision.sequence);
                    self.decide(&decision, effects);
                }
            }
        }
        self.outbox = outbox;
        for frame in offered {
            if !self.ordered.contains_key(&frame.id()) {
                self.pass(now, ConsensusInput::Admitted(Verified::own(frame)), effects);
            }
        }
        if let Some(sequence) = executed {
            self.pass(now, ConsensusInput::Executed(sequence), effects);
        }
    }

    fn decide(&mut self, decision: &Decision, effects: &mut Vec<Effect>) {
        assert_eq!(decision.sequence, self.last.next(), "decisions come without gaps");
        self.last = decision.sequence;
        let frames: Vec<Digest> = decision.frames.iter().map(Frame::id).collect();
        let whole = (decision.sequence, decision.hash, decision.timestamp, frames);
        let digest = Digest::of("simulated decision", &[&encode(&whole)]);
        effects.push(Effect::Observe(Observation::Ordered { kind: "decision", digest }));
        effects.push(Effect::Observe(Observation::Timed(decision.timestamp)));
        for frame in &decision.frames {
            let FrameBody::Requests { session, requests, .. } = frame.body() else { continue };
            if self.ordered.contains_key(&frame.id()) {
                continue;
            }
            self.ordered.insert(frame.id(), decision.sequence);
            for (number, operation) in requests {
                let (session, number) = (*session, *number);
                let operation = digest_of(operation);
                effects.push(Effect::Observe(Observation::Requested { session, number, operation }));
                let outcome = digest_of(&encode(&decision.sequence));
                effects.push(Effect::Observe(Observation::Executed { session, number, outcome }));
            }
        }
    }
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::of("simulated", &[bytes])
}

fn send<M: Message>(effects: &mut Vec<Effect>, to: ReplicaId, message: &M) {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    effects.push(Effect::Send { to, bytes: bytes.into() });
}

/// A client that has numbers ordered.
pub struct Submitter {
    identities: Identities,
    signer: Signer,
    session: SessionId,
    random: Random,
    think: u64,
    next: RequestNumber,
    waiting: BTreeMap<Digest, Waiting>,
    finishing: bool,
}

struct Waiting {
    number: RequestNumber,
    wire: Bytes,
    places: BTreeMap<ReplicaId, SequenceNumber>,
}

/// Frames that one submitter has under way at once.
const WAITING_MAX: usize = 8;

/// After this long a frame goes to all.
const RESEND_AFTER: u64 = 150_000;

impl Submitter {
    /// Client `client`, which pauses up to `think` between two numbers.
    #[must_use]
    pub fn new(identities: Identities, client: usize, think: u64, random: Random) -> Self {
        let signer = identities.clients[client].clone();
        let session = SessionId(client as u64 + 1);
        let next = RequestNumber(1);
        Self { identities, signer, session, random, think, next, waiting: BTreeMap::new(), finishing: false }
    }

    fn submit(&mut self, effects: &mut Vec<ActorEffect>) {
        let (session, number) = (self.session, self.next);
        self.next = number.next();
        let value = Bytes::from(encode(&self.random.next_u64()));
        let operation = digest_of(&value);
        let body = FrameBody::Requests { session, lowest_unacknowledged: number, requests: vec![(number, value)] };
        let frame = Frame::sign(self.identities.context.cluster, &self.signer, body);
        effects.push(ActorEffect::Invoked { session, number, operation });
        let to = ReplicaId(self.random.below(self.identities.hosts.len() as u64) as u16);
        effects.push(ActorEffect::Send { to, bytes: frame.wire().clone() });
        let waiting = Waiting { number, wire: frame.wire().clone(), places: BTreeMap::new() };
        self.waiting.insert(frame.id(), waiting);
    }

    fn accept(&mut self, from: ReplicaId, bytes: &Bytes, effects: &mut Vec<ActorEffect>) {
        let Ok((id, place)) = decode::<(Digest, SequenceNumber)>(bytes, 64) else { return };
        let Some(waiting) = self.waiting.get_mut(&id) else { return };
        waiting.places.insert(from, place);
        let equal = waiting.places.values().filter(|other| **other == place).count();
        if equal >= self.identities.membership().quorum().one_correct() {
            let (session, number, outcome) = (self.session, waiting.number, digest_of(&encode(&place)));
            self.waiting.remove(&id);
            effects.push(ActorEffect::Completed { session, number, outcome });
        }
    }
}

impl Actor for Submitter {
    fn handle(&mut self, now: Moment, input: ActorInput, effects: &mut Vec<ActorEffect>) {
        match input {
            ActorInput::Reply { from, bytes } => return self.accept(from, &bytes, effects),
            ActorInput::Link { .. } | ActorInput::Wake => return,
            ActorInput::Crash => self.waiting.clear(),
            ActorInput::Finish => self.finishing = true,
            ActorInput::Start | ActorInput::Timeout => {
                for waiting in self.waiting.values() {
                    for to in self.identities.membership().ids() {
                        effects.push(ActorEffect::Send { to, bytes: waiting.wire.clone() });
                    }
                }
                let burst = self.random.between(1, 3);
                for _ in 0..burst {
                    if !self.finishing && self.waiting.len() < WAITING_MAX {
                        self.submit(effects);
                    }
                }
            }
        }
        let pause = if self.waiting.is_empty() { self.random.below(self.think + 1) } else { RESEND_AFTER };
        effects.push(ActorEffect::SetTimer { at: now.time.monotonic + pause.max(1_000) });
    }

    fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    fn waits_for(&self) -> String {
        let numbers: Vec<String> = self.waiting.values().map(|waiting| waiting.number.to_string()).collect();
        format!("the places of {}", numbers.join(", "))
    }
}
