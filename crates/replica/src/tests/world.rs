//! A small world around replicas: links that lose, repeat and reorder, a log that takes its time, an executor that runs
//! requests in any order that its rounds allow. All by seed.
//!
//! The executor stands for a deterministic one: what a request returns depends on its operation only, what it changes
//! adds up, and `park` and `wake` are run in order. So replicas agree at Marks and on outcomes, and differ in
//! everything between.

use super::instant::{Instant, Said};
use crate::testing::{client_signer, context, host_signer, register_signer};
use crate::{ConnectionId, GrantRecord, HaltReason, Input, MarkRule, Output, PeerMessage, Replica, Settings, Timer};
use std::collections::{BTreeMap, VecDeque};
use unisono_consensus::{Consensus, Decision, Provide, Record, RegisterAnswer};
use unisono_trusted::{Register, VoteRegister};
use unisono_types::{
    Answer, Bytes, CallAnswer, CallId, Digest, Done, Fault, Frame, FrameBody, MarkReport, Membership, Message, Outcome,
    Position, RegisterId, ReplicaId, Reply, RequestNumber, ScheduleChange, SequenceNumber, SessionId, Signer, Time,
    Timestamp, Unverified, Verified, VerifyContext, Work,
};

pub(super) type Event<C> = Input<<C as Consensus>::Message>;

/// A total order that the world can make, and make again from its log.
pub(super) trait Order: Consensus + Sized {
    /// With this log, whose committed blocks are `committed`, and a register that has seen what it has seen.
    fn create(
        id: ReplicaId,
        membership: &Membership,
        committed: &BTreeMap<SequenceNumber, Bytes>,
        log: &[Record],
        register: &Register,
    ) -> Self;

    /// The hash of the block before this one.
    fn parent(bytes: &Bytes, context: &VerifyContext) -> Digest;
}

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

/// The stand-in for execution.
#[derive(Default)]
pub(super) struct Executor {
    pub(super) works: VecDeque<Work>,
    pub(super) objects: BTreeMap<String, u64>,
    parked: Vec<Work>,
    pub(super) runs: BTreeMap<(SessionId, RequestNumber), u32>,
    finished: u64,
    submitted: Vec<SequenceNumber>,
    marked: Vec<(String, Digest)>,
    /// Mixed into the scheduler's digest: a fault of this machine.
    pub(super) scheduler_fault: u8,
    /// Grants from this number on are wrong: a handler that is not deterministic.
    pub(super) grants_fault: Option<u64>,
    /// Outcomes are wrong from here on: another fault.
    pub(super) outcome_fault: bool,
    pub(super) ticks: Vec<Timestamp>,
    pub(super) flushes: u32,
    pub(super) changes: Vec<ScheduleChange>,
    pub(super) answers: u32,
}

pub(super) fn outcome_of(operation: &[u8]) -> Outcome {
    match operation.split_first() {
        // `L` and a size: a long outcome.
        Some((b'L', size)) => {
            let bytes = std::str::from_utf8(size).unwrap().parse().unwrap();
            Ok(Bytes::from(vec![b'x'; bytes]))
        }
        _ => Ok(Bytes::from([b"did ", operation].concat())),
    }
}

impl Executor {
    fn submit(&mut self, work: Work) {
        self.works.push_back(work);
    }

    /// Runs one piece of work: any of the ordinary requests that come first, or what stands before them.
    pub(super) fn step(&mut self, random: &mut Random, done: &mut Vec<Done>) -> bool {
        let ordinary = |work: &Work| matches!(work, Work::Request { operation, .. } if !operation.starts_with(b"park") && !operation.starts_with(b"wake"));
        let first = self.works.iter().take(8).take_while(|work| ordinary(work)).count();
        let pick = random.below(first.max(1) as u64) as usize;
        let Some(work) = self.works.remove(pick) else { return false };
        match work {
            Work::Request { ref operation, session, number, position, .. } => {
                *self.runs.entry((session, number)).or_default() += 1;
                if let Some(target) = operation.strip_prefix(b"park call ") {
                    let target = String::from_utf8(target.to_vec()).unwrap();
                    let request = Bytes::from_static(b"?");
                    done.push(Done::Called { position, path: vec![], call: 0, target, request });
                }
                if operation.starts_with(b"park") {
                    self.parked.push(work);
                    return true;
                }
                if operation.starts_with(b"wake") {
                    for parked in std::mem::take(&mut self.parked) {
                        self.finish(&parked, done);
                    }
                }
                self.finish(&work, done);
            }
            Work::Tick(time) => self.ticks.push(time),
            Work::Flush => self.flushes += 1,
            Work::Reconfigure(change) => self.changes.push(change),
            Work::Answer { position, answer, .. } => {
                self.answers += 1;
                let called = |work: &Work| matches!(work, Work::Request { position: place, .. } if *place == position);
                if let Some(parked) = self.parked.iter().position(called) {
                    let work = self.parked.remove(parked);
                    self.finish_with(&work, answer.map_err(|_| Fault::UnknownOperation), done);
                }
            }
            Work::Mark(sequence) => done.push(Done::Marked(self.mark(sequence))),
        }
        true
    }

    fn finish(&mut self, work: &Work, done: &mut Vec<Done>) {
        let Work::Request { operation, .. } = work else { return };
        self.finish_with(work, outcome_of(operation), done);
    }

    fn finish_with(&mut self, work: &Work, mut outcome: Outcome, done: &mut Vec<Done>) {
        let Work::Request { position, session, number, operation, .. } = work else { return };
        let object = format!("object {}", operation.last().unwrap_or(&0) % 5);
        let change = u64::from(operation.len() as u32) + number.0;
        *self.objects.entry(object).or_default() += change;
        self.finished += 1;
        if self.outcome_fault {
            outcome = Ok(Bytes::from_static(b"wrong"));
        }
        done.push(Done::Executed { position: *position, session: *session, number: *number, outcome });
    }

    fn mark(&mut self, sequence: SequenceNumber) -> MarkReport {
        let digest = |value: &u64| Digest::of("object", &[&value.to_le_bytes()]);
        self.marked = self.objects.iter().map(|(name, value)| (name.clone(), digest(value))).collect();
        let mut objects = unisono_types::Hasher::new("objects");
        for (name, digest) in &self.marked {
            objects.part(name.as_bytes()).part(&digest.0);
        }
        let trace = Digest::of("grants", &[&self.finished.to_le_bytes(), &[u8::from(self.grants_fault.is_some())]]);
        let scheduler = Digest::of("scheduler", &[&[self.scheduler_fault, self.parked.len() as u8]]);
        MarkReport { sequence, objects: objects.finish(), scheduler, grants: trace, round: self.finished }
    }

    /// One per request that has run, in the order of their numbers: a story that needs them has one session.
    fn grants(&self, from: u64, limit: usize) -> Vec<GrantRecord> {
        let grant = |(number, _): (u64, _)| GrantRecord {
            number,
            round: number / 10,
            position: Position(number << 24),
            path: vec![],
            lock: format!("rows[{}]", if self.grants_fault.is_some_and(|fault| number >= fault) { 0 } else { number }),
            write: true,
            writers_before: 0,
        };
        (0..).zip(self.runs.keys()).skip(from as usize).take(limit).map(grant).collect()
    }

    fn leaves(&self, after: Option<&String>, limit: usize) -> Vec<(String, Digest)> {
        let behind = |entry: &&(String, Digest)| after.is_none_or(|after| entry.0 > *after);
        self.marked.iter().filter(behind).take(limit).cloned().collect()
    }

    /// The last decision given in full of which nothing is left to do.
    fn executed(&self) -> SequenceNumber {
        let left = self.works.iter().find_map(|work| match work {
            Work::Request { position, .. } => Some(position.sequence()),
            _ => None,
        });
        let last = self.submitted.last().copied().unwrap_or_default();
        left.and_then(SequenceNumber::previous).unwrap_or(last)
    }
}

pub(super) struct Node<C: Consensus = Instant> {
    pub(super) replica: Replica<C>,
    register: Register,
    log: Vec<Record>,
    /// When the last write will be durable: writes and register calls are in one order.
    durable_at: u64,
    pub(super) executor: Executor,
    timers: BTreeMap<Timer, u64>,
    pub(super) halted: Option<HaltReason>,
    up: bool,
}

pub(super) struct World<C: Order = Instant> {
    pub(super) membership: Membership,
    marks: MarkRule,
    pub(super) nodes: Vec<Node<C>>,
    pub(super) now: Time,
    pub(super) random: Random,
    /// In a thousand: messages between replicas that are lost, and that come twice.
    pub(super) loss: u64,
    queue: BTreeMap<(u64, u64), (ReplicaId, Event<C>)>,
    next_event: u64,
    /// Everything said to clients, by whom and to which connection.
    pub(super) replies: Vec<(ReplicaId, ConnectionId, Reply)>,
    pub(super) sent: Vec<(ReplicaId, PeerMessage<C::Message>)>,
    /// Executors run on their own; otherwise only when told.
    pub(super) executing: bool,
    /// Everything that was asked outside, by whom; and what the outside says to that replica, if anything.
    pub(super) asked: Vec<(ReplicaId, CallId)>,
    pub(super) outside: fn(ReplicaId, &str) -> Option<CallAnswer>,
}

impl<C: Order> World<C> {
    pub(super) fn new(seed: u64, membership: Membership, marks: MarkRule) -> Self {
        let mut world = Self {
            marks,
            nodes: Vec::new(),
            now: Time { monotonic: 1_000, wall: 1_000_000_000 },
            random: Random(seed),
            loss: 0,
            queue: BTreeMap::new(),
            next_event: 0,
            replies: Vec::new(),
            sent: Vec::new(),
            executing: true,
            asked: Vec::new(),
            outside: |_, target| Some(Ok(Bytes::copy_from_slice(target.as_bytes()))),
            membership,
        };
        let ids: Vec<ReplicaId> = world.membership.ids().collect();
        for id in ids {
            let register = register(&world.membership, id);
            let node = world.node(id, Vec::new(), register);
            world.nodes.push(node);
            world.input(id, Input::Start);
        }
        world
    }

    fn node(&self, id: ReplicaId, log: Vec<Record>, register: Register) -> Node<C> {
        let signer = host_signer(id.0);
        let settings = Settings { id, signer, membership: self.membership.clone(), marks: self.marks };
        Node {
            replica: Replica::new(
                settings,
                C::create(id, &self.membership, &self.committed_blocks(&log), &log, &register),
            ),
            register,
            log,
            durable_at: 0,
            executor: Executor::default(),
            timers: BTreeMap::new(),
            halted: None,
            up: true,
        }
    }

    /// Ends a replica's process: its memory and everything on its way to it is lost.
    pub(super) fn crash(&mut self, id: ReplicaId) {
        self.queue.retain(|_, (to, _)| *to != id);
        self.nodes[usize::from(id.0)].up = false;
    }

    /// Starts it again from its log.
    pub(super) fn restart(&mut self, id: ReplicaId) {
        let old = &self.nodes[usize::from(id.0)];
        let context = context(&self.membership);
        let blocks = self.committed_blocks(&old.log).into_values();
        let decided: Vec<Decision> = blocks.map(|bytes| C::decision(&bytes, &context).unwrap()).collect();
        let mut node = self.node(id, old.log.clone(), old.register.clone());
        let mut outputs = Vec::new();
        for decision in &decided {
            node.replica.replay(decision, &mut outputs);
            for output in outputs.drain(..) {
                let Output::Execute(work) = output else { panic!("a replay only executes: {output:?}") };
                node.executor.submit(work);
            }
            node.executor.submitted.push(decision.sequence);
        }
        self.nodes[usize::from(id.0)] = node;
        self.input(id, Input::Start);
    }

    /// Has `event` happen now.
    pub(super) fn input(&mut self, id: ReplicaId, event: Event<C>) {
        let node = &mut self.nodes[usize::from(id.0)];
        if !node.up || node.halted.is_some() {
            return;
        }
        let mut outputs = Vec::new();
        node.replica.handle(self.now, event, &mut outputs);
        outputs.into_iter().for_each(|output| self.output(id, output));
        let node = &mut self.nodes[usize::from(id.0)];
        let height = node.replica.status().height;
        if node.executor.submitted.last() != Some(&height) {
            node.executor.submitted.push(height);
        }
    }

    fn output(&mut self, id: ReplicaId, output: Output<C::Message>) {
        let at = usize::from(id.0);
        match output {
            Output::Send { to, message } => self.send(id, to, message),
            Output::Broadcast(message) => {
                let others: Vec<ReplicaId> = self.membership.ids().filter(|other| *other != id).collect();
                others.into_iter().for_each(|to| self.send(id, to, message.clone()));
            }
            Output::Reply { connection, reply } => self.replies.push((id, connection, reply)),
            Output::Persist { id: write, record } => {
                if record != Record::Barrier {
                    self.nodes[at].log.push(record);
                }
                self.written(id, Input::Persisted(write));
            }
            Output::Certify { view, step, hash } => {
                let answer = self.nodes[at].register.certify(view, step, hash);
                let answer = answer.map_or(RegisterAnswer::Refused, RegisterAnswer::Certificate);
                self.written(id, Input::Answered(answer));
            }
            Output::Advance { view } => {
                let answer = self.nodes[at].register.advance(view);
                let answer = answer.map_or(RegisterAnswer::Refused, RegisterAnswer::ViewChange);
                self.written(id, Input::Answered(answer));
            }
            Output::Attest { nonce } => {
                let answer = RegisterAnswer::Attestation(self.nodes[at].register.attest(nonce));
                self.written(id, Input::Answered(answer));
            }
            Output::Provide(provide) => self.provide(id, provide),
            Output::Silence => unreachable!("registers of this world forget nothing"),
            Output::Suspect { .. } => {}
            Output::SetTimer { timer, at: Some(time) } => {
                self.nodes[at].timers.insert(timer, time);
            }
            Output::SetTimer { timer, at: None } => {
                self.nodes[at].timers.remove(&timer);
            }
            Output::Execute(work) => self.nodes[at].executor.submit(work),
            Output::Ask { call, target, request } => {
                assert_eq!(request, "?");
                self.asked.push((id, call.clone()));
                if let Some(answer) = (self.outside)(id, &target) {
                    let delay = self.random.below(3_000);
                    self.later(delay, id, Input::Outside { call, answer });
                }
            }
            Output::QueryLeaves { query, after, limit } => {
                let leaves = self.nodes[at].executor.leaves(after.as_ref(), limit);
                self.later(1, id, Input::Leaves { query, leaves });
            }
            Output::QueryGrants { query, from, limit } => {
                let grants = self.nodes[at].executor.grants(from, limit.min(8));
                self.later(1, id, Input::Grants { query, grants });
            }
            Output::Halt(reason) => self.nodes[at].halted = Some(reason),
        }
    }

    /// The answer to a write or to the register comes when everything up to it is durable. (What was written is never
    /// lost here: crashes that lose it are the simulator's.)
    fn written(&mut self, id: ReplicaId, event: Event<C>) {
        let delay = self.random.below(2_000);
        let node = &mut self.nodes[usize::from(id.0)];
        node.durable_at = node.durable_at.max(self.now.monotonic + delay);
        let delay = node.durable_at - self.now.monotonic;
        self.later(delay, id, event);
    }

    /// The chain that a log's last commit record stands on, by place.
    fn committed_blocks(&self, log: &[Record]) -> BTreeMap<SequenceNumber, Bytes> {
        let context = context(&self.membership);
        let mut blocks = BTreeMap::new();
        let mut tip = None;
        for record in log {
            match record {
                Record::Block { sequence, hash, bytes } => {
                    blocks.insert(*hash, (*sequence, bytes.clone()));
                }
                Record::Commit { hash, .. } => tip = Some(*hash),
                Record::Clock(_) | Record::Barrier => {}
            }
        }
        let mut chain = BTreeMap::new();
        while let Some((sequence, bytes)) = tip.and_then(|hash| blocks.get(&hash)) {
            chain.insert(*sequence, bytes.clone());
            tip = Some(C::parent(bytes, &context));
        }
        chain
    }

    /// What a replica's log says was decided, in order.
    pub(super) fn decisions(&self, id: u16) -> Vec<Decision> {
        let context = context(&self.membership);
        let blocks = self.committed_blocks(&self.nodes[usize::from(id)].log);
        blocks.values().map(|bytes| C::decision(bytes, &context).unwrap()).collect()
    }

    /// Committed blocks of the log, from `provide.from` up to the last one that has a proof.
    fn provide(&mut self, id: ReplicaId, provide: Provide) {
        let log = &self.nodes[usize::from(id.0)].log;
        let commit = log.iter().rev().find_map(|record| match record {
            Record::Commit { sequence, hash, proof } => Some((*sequence, *hash, proof.clone())),
            _ => None,
        });
        let Some((last, _, proof)) = commit else { return };
        let decided = self.committed_blocks(log);
        let blocks = decided.range(provide.from..=last).map(|(_, bytes)| bytes.clone()).collect();
        let message = PeerMessage::Consensus(C::provide(provide.committed, blocks, proof));
        self.send(id, provide.to, message);
    }

    /// Over the wire: encoded, parsed and verified like in earnest.
    fn send(&mut self, from: ReplicaId, to: ReplicaId, message: PeerMessage<C::Message>) {
        self.sent.push((from, message.clone()));
        let copies = match self.random.below(1_000) {
            chance if chance < self.loss => 0,
            chance if chance < 2 * self.loss => 2,
            _ => 1,
        };
        let context = context(&self.membership);
        for _ in 0..copies {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            let parsed = PeerMessage::parse(Bytes::from(bytes), &context).unwrap();
            let message = Unverified::new(parsed).verify(&context).unwrap();
            let delay = 100 + self.random.below(3_000);
            self.later(delay, to, Input::Peer { from, message });
        }
    }

    fn later(&mut self, delay: u64, id: ReplicaId, event: Event<C>) {
        self.next_event += 1;
        self.queue.insert((self.now.monotonic + delay, self.next_event), (id, event));
    }

    /// Lets `microseconds` pass.
    pub(super) fn pass(&mut self, microseconds: u64) {
        let end = self.now.monotonic + microseconds;
        loop {
            if self.executing {
                self.execute();
            }
            let timer = self.nodes.iter().enumerate().filter(|(_, node)| node.up && node.halted.is_none()).flat_map(
                |(index, node)| node.timers.iter().map(move |(timer, at)| (*at, ReplicaId(index as u16), *timer)),
            );
            let timer = timer.min();
            let event = self.queue.first_key_value().map(|((at, _), _)| *at);
            let next = [timer.map(|(at, ..)| at), event].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.advance(at);
            match timer.filter(|(timer, ..)| event.is_none_or(|event| *timer < event)) {
                Some((_, id, timer)) => {
                    self.nodes[usize::from(id.0)].timers.remove(&timer);
                    self.input(id, Input::Timeout(timer));
                }
                None => {
                    let (_, (id, event)) = self.queue.pop_first().unwrap();
                    self.input(id, event);
                }
            }
        }
        self.advance(end);
    }

    fn advance(&mut self, to: u64) {
        self.now.wall += to.saturating_sub(self.now.monotonic);
        self.now.monotonic = self.now.monotonic.max(to);
    }

    /// Each executor does what it has, or only some of it.
    fn execute(&mut self) {
        for index in 0..self.nodes.len() {
            while self.random.below(4) != 0 && self.step(index) {}
        }
    }

    pub(super) fn execute_all(&mut self) {
        while (0..self.nodes.len()).any(|index| self.step(index)) {}
    }

    fn step(&mut self, index: usize) -> bool {
        let id = ReplicaId(index as u16);
        let mut done = Vec::new();
        if !self.nodes[index].executor.step(&mut self.random, &mut done) {
            return false;
        }
        done.into_iter().for_each(|done| self.input(id, Input::Done(done)));
        let executed = self.nodes[index].executor.executed();
        self.input(id, Input::Executed(executed));
        true
    }

    // ------------------------------------------------------------------------------------------------ clients

    pub(super) fn frame(&self, client: u64, body: FrameBody) -> Frame {
        Frame::sign(self.membership.configuration().cluster, &client_signer(client), body)
    }

    /// Client `client` sends to these replicas over its connection, whose number is its own.
    pub(super) fn send_frame(&mut self, client: u64, to: &[u16], frame: &Frame) {
        let key = client_signer(client).public_key();
        for id in to {
            let frame = Verified::own(frame.clone());
            self.input(ReplicaId(*id), Input::Client { connection: ConnectionId(client), key, frame });
        }
    }

    /// Opens a session at all replicas.
    pub(super) fn open(&mut self, client: u64, nonce: u64) -> SessionId {
        let frame = self.frame(client, FrameBody::Open { nonce, recent: SequenceNumber(0) });
        self.send_frame(client, &[0, 1, 2], &frame);
        self.pass(50_000);
        let opened = self.take_answers(client).into_iter().find_map(|(_, answer)| match answer {
            Answer::Opened { nonce: opened, session } if opened == nonce => Some(session),
            _ => None,
        });
        opened.expect("the session opens")
    }

    pub(super) fn requests(&self, client: u64, session: SessionId, lowest: u64, requests: &[(u64, &str)]) -> Frame {
        let requests = requests
            .iter()
            .map(|(number, operation)| (RequestNumber(*number), Bytes::copy_from_slice(operation.as_bytes())))
            .collect();
        let lowest_unacknowledged = RequestNumber(lowest);
        self.frame(client, FrameBody::Requests { session, lowest_unacknowledged, requests })
    }

    /// What was said to this client since the last time, by whom.
    pub(super) fn take_answers(&mut self, client: u64) -> Vec<(ReplicaId, Answer)> {
        let (mine, others) =
            std::mem::take(&mut self.replies).into_iter().partition(|(_, to, _)| *to == ConnectionId(client));
        self.replies = others;
        let mine: Vec<(ReplicaId, ConnectionId, Reply)> = mine;
        mine.into_iter().flat_map(|(id, _, reply)| reply.answers.into_iter().map(move |answer| (id, answer))).collect()
    }
}

impl World<Instant> {
    /// Has the leader order a replica's system entry.
    pub(super) fn system(&mut self, id: u16, entry: unisono_types::SystemEntry, nonce: u64) {
        self.order(id, &host_signer(id), FrameBody::System { entry, nonce });
    }

    /// Has the leader order what a replica forwards.
    pub(super) fn order(&mut self, id: u16, signer: &Signer, body: FrameBody) {
        let frame = Frame::sign(self.membership.configuration().cluster, signer, body);
        let message = Verified::own(PeerMessage::Consensus(Said::Submit(frame)));
        self.later(0, ReplicaId(0), Input::Peer { from: ReplicaId(id), message });
    }
}

fn register(membership: &Membership, id: ReplicaId) -> Register {
    let member = membership.member(id).unwrap();
    let id = RegisterId {
        cluster: membership.configuration().cluster,
        group: 0,
        replica: id,
        incarnation: member.incarnation,
        key: member.register_key,
    };
    Register::new(id, register_signer(id.replica.0))
}
