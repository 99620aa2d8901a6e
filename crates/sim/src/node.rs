//! A whole replica: the core that ships, its executor stepped by chance, its log on the simulated disk.
//!
//! ```text
//!   bytes ──parse──verify──> Replica<A> ── Execute ──> Executor<S>, one poll at a time
//!                              ^   └──────────────────── Done ─────┘
//! ```
//! The same glue as the real host's event loop, without its threads: what is told to the checkers is what passes
//! here.

use crate::core::{Abuse, Core, Effect, Factory, Input, Observation, Progress};
use crate::{Algorithm, Disk, Identities, Plan, Planted, Random, Schedule};
use std::marker::PhantomData;
use unisono_consensus::{Decision, Record};
use unisono_execution::{Executor, Service, Settings as ExecutorSettings};
use unisono_replica::{
    ConnectionId, GrantRecord, Input as ReplicaInput, MarkRule, Output as ReplicaOutput, PeerMessage, Replica,
    Settings, Timer,
};
use unisono_scheduler::{Scheduler, sequential::Sequential, uds::Uds};
use unisono_types::{
    Answer, Bytes, CallAnswer, CallId, ClientMessage, Digest, Done, Frame, FrameBody, Message, Rejected, ReplicaId,
    Reply, ReplyBody, SequenceNumber, Time, Unverified, Verified, VerifyContext, Work, decode, encode,
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
    fn create(&self, replica: ReplicaId, disk: &Disk) -> Box<dyn Core> {
        let context = self.identities.context.clone();
        let signer = self.identities.hosts[usize::from(replica.0)].clone();
        let membership = context.membership.clone();
        let consensus = A::create(replica, signer.clone(), membership.clone(), disk, self.planted);
        let settings = Settings { id: replica, signer, membership, marks: self.marks };
        let executor_settings =
            ExecutorSettings { cluster: context.cluster, workers: 0, ..ExecutorSettings::default() };
        Box::new(Node {
            id: replica,
            replica: Replica::new(settings, consensus),
            executor: Executor::new::<S>(self.scheduler(), executor_settings),
            decided: A::decided(disk, &context),
            identities: self.identities.clone(),
            context,
            halted: false,
            executed: SequenceNumber(0),
            outbox: Vec::new(),
            done: Vec::new(),
        })
    }

    fn parent(&self, block: &Bytes) -> Option<Digest> {
        A::parent(block)
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
struct Node<A: Algorithm> {
    id: ReplicaId,
    replica: Replica<A>,
    executor: Executor,
    /// From the own log, to be followed again at the start.
    decided: Vec<Decision>,
    identities: Identities,
    context: VerifyContext,
    halted: bool,
    executed: SequenceNumber,
    outbox: Vec<ReplicaOutput<A::Message>>,
    done: Vec<Done>,
}

impl<A: Algorithm> Core for Node<A> {
    fn handle(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        if self.halted {
            return;
        }
        match input {
            Input::Start => self.start(now, effects),
            Input::Peer { from, bytes } => match self.read_peer(bytes) {
                Ok(message) => self.pass(now, ReplicaInput::Peer { from, message }, effects),
                Err(reason) => effects.push(Effect::Observe(Observation::Rejected(reason))),
            },
            Input::Client { client, connection, bytes } => match self.read_client(&bytes) {
                // Its signature says who it is from; the real host has a link of its own for the administrator.
                Ok(frame) if matches!(frame.body(), FrameBody::Admin { .. }) => {
                    self.pass(now, ReplicaInput::Admin(frame), effects);
                }
                Ok(frame) => {
                    let (connection, key) = (ConnectionId(connection), self.identities.client_key(client));
                    self.pass(now, ReplicaInput::Client { connection, key, frame }, effects);
                }
                Err(reason) => effects.push(Effect::Observe(Observation::Rejected(reason))),
            },
            Input::Disconnected(connection) => {
                self.pass(now, ReplicaInput::Disconnected(ConnectionId(connection)), effects);
            }
            Input::Timeout(timer) => {
                let timer: Timer = unisono_consensus::TimerId(timer as u32);
                self.pass(now, ReplicaInput::Timeout(timer), effects);
            }
            Input::Persisted(id) => self.pass(now, ReplicaInput::Persisted(id), effects),
            Input::Answered(answer) => self.pass(now, ReplicaInput::Answered(answer), effects),
            Input::Link { peer, up } => self.pass(now, ReplicaInput::Link { peer, up }, effects),
            Input::Outside { call, answer } => self.pass(now, ReplicaInput::Outside { call, answer }, effects),
            Input::StartAhead(threads) => self.executor.set_start_ahead(threads),
            Input::Step(pick) => {
                let runnable = self.executor.runnable();
                if runnable > 0 {
                    self.executor.step((pick % runnable as u64) as usize);
                }
                self.collect(now, effects);
            }
            Input::Provided { to, blocks, proof } => {
                let message = PeerMessage::Consensus(A::provide(blocks, proof));
                self.send(to, &message, effects);
            }
        }
    }

    fn runnable(&self) -> usize {
        if self.halted { 0 } else { self.executor.runnable() }
    }

    fn progress(&self) -> Progress {
        let status = self.replica.status();
        Progress { committed: status.height, executed: status.executed, view: status.view }
    }

    fn describe(&self) -> String {
        let (runnable, schedule) = (self.executor.runnable(), self.executor.status());
        format!("{runnable} tasks runnable, {schedule:?}, {:?}", self.replica.status().counters)
    }
}

impl<A: Algorithm> Node<A> {
    fn start(&mut self, now: Time, effects: &mut Vec<Effect>) {
        for decision in std::mem::take(&mut self.decided) {
            let mut outbox = std::mem::take(&mut self.outbox);
            self.replica.replay(&decision, &mut outbox);
            outbox.drain(..).for_each(|output| self.effect(now, output, effects));
            self.outbox = outbox;
        }
        self.pass(now, ReplicaInput::Start, effects);
    }

    fn read_peer(&self, bytes: Bytes) -> Result<Verified<PeerMessage<A::Message>>, Rejected> {
        Unverified::new(PeerMessage::parse(bytes, &self.context)?).verify(&self.context)
    }

    fn read_client(&self, bytes: &Bytes) -> Result<Verified<Frame>, Rejected> {
        let limits = &self.context.membership.configuration().limits;
        let limit = limits.frame_bytes as usize;
        let ClientMessage::Frame(wire) = decode(bytes, limit + 64).map_err(|_| Rejected::Malformed)?;
        Unverified::new(Frame::parse(self.context.cluster, wire, limit)?).verify(&self.context)
    }

    fn pass(&mut self, now: Time, input: ReplicaInput<A::Message>, effects: &mut Vec<Effect>) {
        self.handle_one(now, input, effects);
        self.collect(now, effects);
    }

    fn handle_one(&mut self, now: Time, input: ReplicaInput<A::Message>, effects: &mut Vec<Effect>) {
        let mut outbox = std::mem::take(&mut self.outbox);
        self.replica.handle(now, input, &mut outbox);
        outbox.drain(..).for_each(|output| self.effect(now, output, effects));
        self.outbox = outbox;
    }

    /// What execution has come to, as long as that makes the replica do something.
    fn collect(&mut self, now: Time, effects: &mut Vec<Effect>) {
        while !self.halted {
            let mut done = std::mem::take(&mut self.done);
            self.executor.take_done(&mut done);
            let nothing = done.is_empty();
            for done in done.drain(..) {
                self.observe(&done, effects);
                self.handle_one(now, ReplicaInput::Done(done), effects);
            }
            self.done = done;
            let executed = self.executor.executed();
            if executed > self.executed {
                self.executed = executed;
                self.handle_one(now, ReplicaInput::Executed(executed), effects);
            } else if nothing {
                return;
            }
        }
    }

    fn observe(&self, done: &Done, effects: &mut Vec<Effect>) {
        match done {
            Done::Executed { session, number, outcome, .. } => {
                let (session, number, outcome) = (*session, *number, ReplyBody::digest_of(outcome));
                effects.push(Effect::Observe(Observation::Executed { session, number, outcome }));
            }
            // What was asked shows in the answers, and these in the order.
            Done::Called { .. } => {}
            Done::Marked(report) => effects.push(Effect::Observe(Observation::Marked(*report))),
            Done::Starved { flush, tick } => {
                effects.push(Effect::Observe(Observation::Starved { flush: *flush, tick: *tick }));
            }
        }
    }

    fn effect(&mut self, now: Time, output: ReplicaOutput<A::Message>, effects: &mut Vec<Effect>) {
        match output {
            ReplicaOutput::Send { to, message } => self.send(to, &message, effects),
            ReplicaOutput::Broadcast(message) => {
                if let PeerMessage::Checkpoint(signed) = &message
                    && signed.replica == self.id
                {
                    let (sequence, root) = (signed.statement.sequence, signed.statement.root);
                    effects.push(Effect::Observe(Observation::Root { sequence, root }));
                }
                let bytes = encoded(&message);
                let all = self.context.membership.ids();
                effects.extend(all.map(|to| Effect::Send { to, bytes: bytes.clone() }));
            }
            ReplicaOutput::Reply { connection, reply } => {
                effects.push(Effect::Reply { connection: connection.0, bytes: encode(&reply).into() });
            }
            ReplicaOutput::Persist { id, record } => {
                if let Record::Commit { sequence, hash, .. } = &record {
                    effects.push(Effect::Observe(Observation::Committed { sequence: *sequence, hash: *hash }));
                }
                effects.push(Effect::Persist { id, record });
            }
            ReplicaOutput::Certify { view, step, hash } => effects.push(Effect::Certify { view, step, hash }),
            ReplicaOutput::Advance { view } => effects.push(Effect::Advance { view }),
            ReplicaOutput::Attest { nonce } => effects.push(Effect::Attest { nonce }),
            ReplicaOutput::SetTimer { timer, at } => effects.push(Effect::SetTimer { timer: u64::from(timer.0), at }),
            ReplicaOutput::Execute(work) => self.execute(work, effects),
            ReplicaOutput::Ask { call, target, request } => effects.push(Effect::Ask { call, target, request }),
            ReplicaOutput::Provide(provide) => effects.push(Effect::Provide(provide)),
            ReplicaOutput::QueryLeaves { query, after, limit } => {
                let leaves = self.executor.leaves(after.as_deref(), limit);
                self.handle_one(now, ReplicaInput::Leaves { query, leaves }, effects);
            }
            ReplicaOutput::QueryGrants { query, from, limit } => {
                let grants = self.executor.grants(from, limit).into_iter().map(grant_record).collect();
                self.handle_one(now, ReplicaInput::Grants { query, grants }, effects);
            }
            ReplicaOutput::Halt(reason) => {
                self.halted = true;
                effects.push(Effect::Observe(Observation::Halted(reason.to_string())));
            }
            ReplicaOutput::Suspect { peer, reason } => {
                effects.push(Effect::Observe(Observation::Suspected { peer, reason }));
            }
        }
    }

    fn execute(&self, work: Work, effects: &mut Vec<Effect>) {
        let (kind, digest) = name_of_work(&work);
        effects.push(Effect::Observe(Observation::Ordered { kind, digest }));
        if let Work::Request { session, number, operation, .. } = &work {
            let (session, number, operation) = (*session, *number, digest_of_operation(operation));
            effects.push(Effect::Observe(Observation::Requested { session, number, operation }));
        }
        self.executor.submit(work);
    }

    fn send(&self, to: ReplicaId, message: &PeerMessage<A::Message>, effects: &mut Vec<Effect>) {
        effects.push(Effect::Send { to, bytes: encoded(message) });
    }
}

fn encoded<M: Message>(message: &M) -> Bytes {
    let mut bytes = Vec::with_capacity(256);
    message.encode(&mut bytes);
    bytes.into()
}

fn grant_record(grant: unisono_execution::GrantRecord) -> GrantRecord {
    let unisono_execution::GrantRecord { number, round, position, path, lock, write, writers_before } = grant;
    GrantRecord { number, round, position, path, lock, write, writers_before }
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
