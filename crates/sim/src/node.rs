//! A whole replica: the node that ships, its executor stepped by chance, its log on the simulated disk.
//!
//! ```text
//!   bytes ──parse──verify──> Node<A> ── Effect ──> world
//!                              └── observations ──> checkers
//! ```
//! Nothing here joins anything: the ring around the core is [`unisono_node`], the same as in the real host.

use crate::core::{Abuse, Core, Effect, Factory, Input, Log, Observation, Progress};
use crate::lies::{Bend, Bent, Flood, Hearsay, Kind};
use crate::{Algorithm, Identities, Plan, Planted, Random, Schedule, Seat};
use std::marker::PhantomData;
use unisono_consensus::{Provide, Record};
use unisono_execution::{Executor, Service, Settings as ExecutorSettings};
use unisono_node::log::{LogReader, Recovered};
use unisono_node::{Drive, Effect as NodeEffect, Node, Probe, message, message::encoded, provided};
use unisono_replica::{ConnectionId, Input as ReplicaInput, MarkRule, PeerMessage, Settings, Timer};
use unisono_scheduler::{Scheduler, sequential::Sequential, uds::Uds};
use unisono_trusted::verify_certificate;
use unisono_types::{
    Answer, Bytes, CallAnswer, CallId, Certificate, Checkpoint, Digest, Done, Frame, FrameBody, Message, Rejected,
    ReplicaId, Reply, ReplyBody, SequenceNumber, Signed, Time, Verified, VerifyContext, Work, decode, encode,
};

/// Makes replicas of service `S` over algorithm `A`.
pub struct ReplicaFactory<S, A> {
    identities: Identities,
    schedule: Schedule,
    marks: MarkRule,
    planted: Option<Planted>,
    kind: PhantomData<(fn() -> S, A)>,
}

impl<S: Service, A: Algorithm> ReplicaFactory<S, A> {
    /// For this plan's cluster.
    #[must_use]
    pub fn new(identities: Identities, plan: &Plan) -> Self {
        let marks = MarkRule { decisions: plan.marks.0, microseconds: plan.marks.1 };
        Self { identities, schedule: plan.schedule.clone(), marks, planted: plan.planted, kind: PhantomData }
    }

    fn scheduler(&self) -> Box<dyn Scheduler> {
        match (&self.schedule, self.planted.and_then(Planted::of_schedule)) {
            (Schedule::Sequential, _) => Box::new(Sequential::new()),
            (Schedule::Uds(parameters), Some(rule)) => Box::new(Uds::planted(parameters.clone(), rule)),
            (Schedule::Uds(parameters), None) => Box::new(Uds::new(parameters.clone())),
        }
    }
}

impl<S: Service, A: Algorithm> Factory for ReplicaFactory<S, A> {
    fn create(&self, replica: ReplicaId, log: Log) -> Box<dyn Core> {
        let context = self.identities.context.clone();
        let signer = self.identities.hosts[usize::from(replica.0)].clone();
        let membership = context.membership.clone();
        let Log { recovered, reader, register } = log;
        let consensus = A::create(replica, signer.clone(), membership.clone(), &recovered, self.planted);
        let settings = Settings { id: replica, signer, membership, marks: self.marks };
        let executor_settings =
            ExecutorSettings { cluster: context.cluster, workers: 0, ..ExecutorSettings::default() };
        let executor = Executor::new::<S>(self.scheduler(), executor_settings);
        let register = (register, recovered.lost);
        Box::new(Process {
            node: Node::new(settings, consensus, register, executor, Drive::Step, Watch::default()),
            log: Some((recovered, reader)),
            identities: self.identities.clone(),
            context,
            effects: Vec::new(),
        })
    }

    fn parent(&self) -> fn(&Bytes) -> Option<Digest> {
        A::parent
    }

    fn speaker(&self, bytes: &Bytes) -> Option<ReplicaId> {
        let consensus = bytes.first() == Some(&0);
        consensus.then(|| A::spoken(&bytes.slice(1..))).flatten().map(|(replica, _)| replica)
    }

    fn vote(&self, bytes: &Bytes) -> Option<Certificate> {
        (bytes.first() == Some(&0)).then(|| A::vote(&bytes.slice(1..))).flatten()
    }

    fn is_signed(&self, vote: &Certificate) -> bool {
        verify_certificate(vote, &self.identities.context).is_ok()
    }

    fn piece_bytes(&self) -> usize {
        self.identities.membership().bounds().piece
    }

    fn describe(&self, bytes: &Bytes) -> String {
        match PeerMessage::<A::Message>::parse(bytes.clone(), &self.identities.context) {
            Ok(PeerMessage::Consensus(_)) => A::describe(&self.identities, &bytes.slice(1..)),
            Ok(message) => format!("{message:?}"),
            Err(reason) => format!("{} bytes, {reason}", bytes.len()),
        }
    }

    fn forge(&self, liar: ReplicaId, bytes: &Bytes, random: &mut Random) -> Vec<Bytes> {
        match PeerMessage::<A::Message>::parse(bytes.clone(), &self.identities.context) {
            Ok(PeerMessage::Consensus(_)) => {
                let inner = bytes.slice(1..);
                A::forge(&self.identities, liar, &inner, random).into_iter().map(|inner| within(&inner)).collect()
            }
            Ok(PeerMessage::Checkpoint(signed)) => {
                vec![wrong_checkpoint::<A>(&self.identities, liar, signed.statement, random)]
            }
            _ => Vec::new(),
        }
    }

    fn show(&self, liar: ReplicaId, signed: &Abuse, random: &mut Random) -> Vec<Bytes> {
        A::show(&self.identities, liar, signed, random).into_iter().map(|inner| within(&inner)).collect()
    }

    fn submission(&self, liar: ReplicaId, call: &CallId, answer: CallAnswer) -> Option<Bytes> {
        let signer = &self.identities.hosts[usize::from(liar.0)];
        let body = FrameBody::Called { call: call.clone(), answer };
        let frame = Frame::sign(self.identities.context.cluster, signer, body);
        Some(encoded(&PeerMessage::<A::Message>::Submission(frame)))
    }

    fn kind(&self, bytes: &Bytes) -> Kind {
        if bytes.first() == Some(&0) { A::kind(&bytes.slice(1..)) } else { Kind::Other }
    }

    fn bend(&self, liar: ReplicaId, block: &Bytes, bend: Bend, hearsay: &mut Hearsay<'_>) -> Option<Bent> {
        let Bent { view, step, hash, show } = A::bend(&self.identities, liar, block, bend, hearsay)?;
        let show = Box::new(|certificate| show(certificate).iter().map(within).collect());
        Some(Bent { view, step, hash, show })
    }

    fn tamper(&self, bytes: &Bytes, random: &mut Random) -> Option<Bytes> {
        let inner = (bytes.first() == Some(&0)).then(|| bytes.slice(1..))?;
        A::tamper(&self.identities, &inner, random).as_ref().map(within)
    }

    fn flood(&self, liar: ReplicaId, flood: Flood, hearsay: &mut Hearsay<'_>) -> Option<Bytes> {
        A::flood(&self.identities, liar, flood, hearsay).as_ref().map(within)
    }

    fn mentions(&self, bytes: &Bytes, client: usize) -> bool {
        let key = self.identities.client_key(client);
        // From a client: its frame, which its key stands in front of, as a list of bytes in one of two variants.
        let by_itself = bytes.get(CLIENT_FRAME_AT..).and_then(|wire| wire.first_chunk::<32>()) == Some(&key.0);
        by_itself || (bytes.first() == Some(&0) && A::mentions(&self.identities, &bytes.slice(1..), &key))
    }

    fn wrong_reply(&self, bytes: &Bytes, random: &mut Random) -> Option<Bytes> {
        let mut reply: Reply = decode(bytes, REPLY_BYTES_MAX).ok()?;
        reply.leader = ReplicaId(random.below(8) as u16);
        if random.chance(300) {
            reply.executed = SequenceNumber(random.next_u64() >> random.below(64));
        }
        for answer in &mut reply.answers {
            wrong_answer(answer, random);
        }
        Some(encode(&reply).into())
    }
}

/// Where a client's message has its frame: behind the variant and the length.
const CLIENT_FRAME_AT: usize = 5;

/// Bytes of a reply in the simulator.
pub(crate) const REPLY_BYTES_MAX: usize = 32 << 20;

/// Bytes of consensus as a message between replicas.
fn within(inner: &Bytes) -> Bytes {
    let mut bytes = Vec::with_capacity(inner.len() + 1);
    bytes.push(0);
    bytes.extend_from_slice(inner);
    bytes.into()
}

fn wrong_checkpoint<A: Algorithm>(
    identities: &Identities,
    liar: ReplicaId,
    mut checkpoint: unisono_types::Checkpoint,
    random: &mut Random,
) -> Bytes {
    let garbage = Digest::of("a liar's garbage", &[&random.next_u64().to_le_bytes()]);
    match random.below(3) {
        0 => checkpoint.root = garbage,
        1 => checkpoint.header = garbage,
        _ => checkpoint.sequence = SequenceNumber(checkpoint.sequence.0 + random.between(1, 50)),
    }
    let signer = &identities.hosts[usize::from(liar.0)];
    let signed = unisono_types::Signed::sign(identities.context.cluster, liar, signer, checkpoint);
    let mut bytes = Vec::new();
    PeerMessage::<A::Message>::Checkpoint(signed).encode(&mut bytes);
    bytes.into()
}

fn wrong_answer(answer: &mut Answer, random: &mut Random) {
    match answer {
        Answer::Executed { body, .. } => {
            let garbage = Bytes::from(encode(&random.below(3)));
            *body = match random.below(2) {
                0 => ReplyBody::Full(Ok(garbage)),
                _ => ReplyBody::Digest(Digest::of("a liar's garbage", &[&garbage])),
            };
        }
        Answer::Opened { nonce, session } => {
            *answer = match random.below(2) {
                0 => Answer::Opened { nonce: *nonce, session: unisono_types::SessionId(session.0 + 1) },
                _ => Answer::NotOpened { nonce: *nonce, reason: unisono_types::Refusal::TooOld },
            };
        }
        Answer::NotOpened { nonce, .. } => {
            *answer = Answer::Opened { nonce: *nonce, session: unisono_types::SessionId(random.below(1 << 30)) };
        }
        Answer::NoSession { session } => session.0 ^= 1,
    }
}

/// One replica's process.
struct Process<A: Algorithm> {
    node: Node<A, Seat, Watch>,
    /// The own log, to be followed again at the start.
    log: Option<(Recovered, LogReader)>,
    identities: Identities,
    context: VerifyContext,
    effects: Vec<NodeEffect>,
}

/// What passes through a node, for the checkers.
#[derive(Default)]
struct Watch(Vec<Observation>);

impl Probe for Watch {
    fn work(&mut self, work: &Work) {
        let (kind, digest) = name_of_work(work);
        self.0.push(Observation::Ordered { kind, digest });
        match work {
            Work::Request { session, number, operation, timestamp, .. } => {
                let (session, number, operation) = (*session, *number, digest_of_operation(operation));
                self.0.push(Observation::Requested { session, number, operation });
                self.0.push(Observation::Timed(*timestamp));
            }
            Work::Tick(timestamp) => self.0.push(Observation::Timed(*timestamp)),
            _ => {}
        }
    }

    fn done(&mut self, done: &Done) {
        match done {
            Done::Executed { session, number, outcome, .. } => {
                let (session, number, outcome) = (*session, *number, ReplyBody::digest_of(outcome));
                self.0.push(Observation::Executed { session, number, outcome });
            }
            // What was asked shows in the answers, and these in the order.
            Done::Called { .. } => {}
            Done::Marked(report) => self.0.push(Observation::Marked(*report)),
            Done::Starved { flush, tick } => self.0.push(Observation::Starved { flush: *flush, tick: *tick }),
        }
    }

    fn record(&mut self, record: &Record) {
        match record {
            Record::Block { hash, bytes, .. } => {
                self.0.push(Observation::Written { hash: *hash, bytes: bytes.clone() });
            }
            Record::Commit { sequence, hash, .. } => {
                self.0.push(Observation::Committed { sequence: *sequence, hash: *hash });
            }
            Record::Clock(_) | Record::Barrier => {}
        }
    }

    fn checkpoint(&mut self, own: &Signed<Checkpoint>) {
        let (sequence, root) = (own.statement.sequence, own.statement.root);
        self.0.push(Observation::Root { sequence, root });
    }
}

impl<A: Algorithm> Core for Process<A> {
    fn handle(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        if self.node.is_halted() {
            return;
        }
        match input {
            Input::Start => self.start(now),
            Input::Peer { from, bytes } => match self.read_peer(from, bytes) {
                Ok(message) => {
                    message.into_iter().for_each(|message| self.node.push(ReplicaInput::Peer { from, message }));
                }
                Err(reason) => effects.push(Effect::Observe(Observation::Rejected(reason))),
            },
            Input::Client { client, connection, bytes } => match self.read_client(&bytes) {
                // Its signature says who it is from; the real host has a link of its own for the administrator.
                Ok(Some(frame)) if matches!(frame.body(), FrameBody::Admin { .. }) => {
                    self.node.push(ReplicaInput::Admin(frame));
                }
                Ok(None) => {}
                Ok(Some(frame)) => {
                    let (connection, key) = (ConnectionId(connection), self.identities.client_key(client));
                    self.node.push(ReplicaInput::Client { connection, key, frame });
                }
                Err(reason) => effects.push(Effect::Observe(Observation::Rejected(reason))),
            },
            Input::Disconnected(connection) => self.node.push(ReplicaInput::Disconnected(ConnectionId(connection))),
            Input::Timeout(timer) => {
                let timer: Timer = unisono_consensus::TimerId(timer as u32);
                self.node.push(ReplicaInput::Timeout(timer));
            }
            Input::Durable(ticket) => self.node.durable(ticket, &mut self.effects),
            Input::Arriving { from, bytes } => self.node.push(ReplicaInput::Arriving { from, bytes }),
            Input::Link { peer, up } => self.node.push(ReplicaInput::Link { peer, up }),
            Input::Outside { call, answer } => self.node.push(ReplicaInput::Outside { call, answer }),
            Input::StartAhead(threads) => self.node.executor().set_start_ahead(threads),
            Input::Step(pick) => self.node.step(pick),
            Input::Provided { provide: Provide { to, committed, .. }, blocks } => {
                effects.extend(provided::<A>(committed, blocks).map(|bytes| Effect::Send { to, bytes }));
            }
        }
        self.node.turn(now, &mut self.effects);
        self.pass_on(effects);
    }

    fn runnable(&self) -> usize {
        if self.node.is_halted() { 0 } else { self.node.executor().runnable() }
    }

    fn progress(&self) -> Progress {
        let status = self.node.replica().status();
        Progress { committed: status.height, executed: status.executed, view: status.view }
    }

    fn describe(&self) -> String {
        let (runnable, schedule) = (self.node.executor().runnable(), self.node.executor().status());
        format!("{runnable} tasks runnable, {schedule:?}, {:?}", self.node.replica().status().counters)
    }
}

impl<A: Algorithm> Process<A> {
    fn start(&mut self, now: Time) {
        if let Some((recovered, reader)) = self.log.take() {
            let replayed = self.node.replay(now, &recovered, &reader, &self.context, &mut self.effects);
            replayed.expect("a log that could be opened a moment ago can be read");
        }
        self.node.push(ReplicaInput::Start);
    }

    /// A message of a peer, unless it is of no use: then it is dropped unchecked, as the real host does.
    fn read_peer(&self, from: ReplicaId, bytes: Bytes) -> Result<Option<Verified<PeerMessage<A::Message>>>, Rejected> {
        let message = message::parse_peer(bytes, &self.context)?;
        let wanted = self.node.replica().is_wanted(from, &message);
        wanted.then(|| message::check_peer(message, &self.context)).transpose()
    }

    fn read_client(&self, bytes: &Bytes) -> Result<Option<Verified<Frame>>, Rejected> {
        let frame = message::parse_client(bytes, &self.context)?;
        let wanted = self.node.replica().wants_frames() || matches!(frame.body(), FrameBody::Admin { .. });
        wanted.then(|| message::check_client(frame, &self.context)).transpose()
    }

    /// In the order in which things leave: first what the checkers see, last what goes to the disk.
    fn pass_on(&mut self, effects: &mut Vec<Effect>) {
        effects.extend(self.node.probe_mut().0.drain(..).map(Effect::Observe));
        for effect in self.effects.drain(..) {
            match effect {
                NodeEffect::Send { to, bytes } => {
                    effects.extend(spoken::<A>(&bytes));
                    effects.push(Effect::Send { to, bytes });
                }
                NodeEffect::Broadcast(bytes) => {
                    effects.extend(spoken::<A>(&bytes));
                    let all = self.context.membership.ids();
                    effects.extend(all.map(|to| Effect::Send { to, bytes: bytes.clone() }));
                }
                NodeEffect::Reply { connection, reply } => {
                    effects.push(Effect::Reply { connection: connection.0, bytes: encode(&reply).into() });
                }
                NodeEffect::SetTimer { timer, at } => effects.push(Effect::SetTimer { timer: u64::from(timer.0), at }),
                NodeEffect::Ask { call, target, request } => effects.push(Effect::Ask { call, target, request }),
                NodeEffect::Provide(provide) => effects.push(Effect::Provide(provide)),
                NodeEffect::Silenced(_) => effects.push(Effect::Observe(Observation::Silenced)),
                NodeEffect::Halt(reason) => effects.push(Effect::Observe(Observation::Halted(reason.to_string()))),
                NodeEffect::Suspect { peer, reason } => {
                    effects.push(Effect::Observe(Observation::Suspected { peer, reason }));
                }
            }
        }
        effects.extend(self.node.group().map(Effect::Write));
    }
}

/// What of a register a message to peers shows.
fn spoken<A: Algorithm>(bytes: &Bytes) -> Option<Effect> {
    if bytes.first() != Some(&0) {
        return None;
    }
    let (replica, place) = A::spoken(&bytes.slice(1..))?;
    Some(Effect::Observe(Observation::Spoke { replica, place }))
}

/// Names an operation for the checkers.
#[must_use]
pub fn digest_of_operation(operation: &[u8]) -> Digest {
    Digest::of("simulated operation", &[operation])
}

fn name_of_work(work: &Work) -> (&'static str, Digest) {
    match work {
        Work::Request { position, timestamp, session, number, operation } => {
            let place = encode(&(position.0, timestamp.0, session.0, number.0));
            ("request", Digest::of("simulated work", &[&place, operation]))
        }
        Work::Tick(timestamp) => ("tick", Digest::of("simulated tick", &[&encode(timestamp)])),
        Work::Reconfigure(change) => ("reconfigure", Digest::of("simulated change", &[&encode(change)])),
        Work::Answer { position, path, call, answer, .. } => {
            ("answer", Digest::of("simulated answer", &[&encode(&(position, path, call, answer))]))
        }
        Work::Flush => ("flush", Digest::of("simulated flush", &[])),
        Work::Mark(sequence) => ("mark", Digest::of("simulated mark", &[&encode(sequence)])),
    }
}
