//! n instances with their registers, disks and clocks, and a network between them: a function of its seed and of what
//! is done to it.

use super::{Checks, Cluster, Disk, Random, Subject, Violation};
use crate::{Contradiction, Input, Output, Provide, Record, RegisterAnswer, StableCheckpoint, TimerId};
use std::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use unisono_trusted::{Register, RegisterState, VoteRegister};
use unisono_types::{
    Bytes, Digest, Frame, Message, Rejected, ReplicaId, SequenceNumber, Step, Time, Timestamp, Unverified, Verified,
};

/// Wall clocks start here; they are not the monotonic one, and may be set back by days.
const WALL_START_MICROS: u64 = 1_000_000_000_000_000;
/// Agreed time may be this far ahead of the clocks of correct replicas, as these have run at most, and no further.
const AGREED_TIME_AHEAD_MAX: u64 = 61_000_000;
/// Bytes of decided blocks in one answer from the log.
const PROVIDE_BYTES: usize = 32 * 1024;

/// By how much a slow replica is late: a time-out passes only just not.
const SLOW_MICROS: u64 = 100_000;

/// How kind the world is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conditions {
    /// Messages lost, per mille.
    pub loss: u64,
    /// Messages that come twice, per mille.
    pub duplication: u64,
    /// Microseconds on the way, at least and at most.
    pub delay: (u64, u64),
    /// Microseconds of a sync, at least and at most.
    pub sync: (u64, u64),
    /// Bytes per millisecond that a link carries; 0: as many as there are.
    pub bandwidth: u64,
}

impl Conditions {
    /// Nothing is lost, everything takes exactly a millisecond.
    pub const CALM: Self = Self { loss: 0, duplication: 0, delay: (1_000, 1_000), sync: (1_000, 1_000), bandwidth: 0 };
}

/// How a replica behaves towards others. Its register is always honest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// As it should.
    Correct,
    /// Says nothing.
    Silent,
    /// Says one thing to some and another to others.
    Equivocating,
    /// Stands by corrupted proposals, has its register certify garbage, and says always that it is far ahead.
    Corrupting,
    /// Repeats whatever it has ever said, and forgets to say things.
    Replaying,
    /// Says everything late.
    Slow,
}

enum Write {
    Record { id: crate::PersistId, record: Record },
    Register { state: RegisterState, answer: RegisterAnswer },
}

enum Event {
    Deliver { from: ReplicaId, to: ReplicaId, bytes: Bytes },
    Synced { replica: ReplicaId, life: u32 },
    Fire { replica: ReplicaId, life: u32, timer: TimerId, at: u64 },
    Stable { to: ReplicaId, stable: StableCheckpoint },
}

struct Replica<S> {
    instance: Option<S>,
    behaviour: Behaviour,
    life: u32,
    register: Register,
    disk: Disk,
    /// Being written, and waiting to be.
    syncing: Vec<Write>,
    waiting: Vec<Write>,
    /// Decided in this life or before, for the log.
    decided: BTreeMap<SequenceNumber, Digest>,
    timers: BTreeMap<TimerId, u64>,
    /// Frames that it decided: what is offered again is not admitted.
    ordered: BTreeSet<Digest>,
    offered: Vec<Frame>,
    /// Added to the wall clock.
    skew_micros: i64,
    /// Until then nothing reaches it: it is stopped, and does not know.
    stopped_until: u64,
    /// What a corrupting proposer stands by instead.
    replaced: BTreeMap<Digest, Digest>,
    said: Vec<Bytes>,
}

/// See the module.
pub struct Network<S: Subject> {
    cluster: Cluster,
    /// How kind the world is now.
    pub conditions: Conditions,
    /// Watches the correct ones.
    pub checks: Checks,
    random: Random,
    now: u64,
    replicas: Vec<Replica<S>>,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    cuts: BTreeSet<(ReplicaId, ReplicaId)>,
    stable: SequenceNumber,
    /// Every so many decisions a checkpoint becomes stable; 0: never.
    pub checkpoint_interval: u64,
    names: BTreeMap<Digest, String>,
    /// What happened, one line each, when somebody wants to read it.
    pub trace: Option<Vec<String>>,
    violation: Option<Violation>,
    /// The greatest skew that a correct replica has ever had.
    skew_most: i64,
    /// Evidence of lies: who was suspected by a correct replica.
    pub suspected: BTreeSet<ReplicaId>,
}

impl<S: Subject> Network<S> {
    /// A network of replicas that were never started before.
    #[must_use]
    pub fn new(cluster: Cluster, seed: u64, conditions: Conditions) -> Self {
        let replicas = cluster.membership().ids().map(|id| Replica {
            instance: None,
            behaviour: Behaviour::Correct,
            life: 0,
            register: cluster.register(id, RegisterState::default()),
            disk: Disk::default(),
            syncing: Vec::new(),
            waiting: Vec::new(),
            decided: BTreeMap::new(),
            timers: BTreeMap::new(),
            ordered: BTreeSet::new(),
            offered: Vec::new(),
            skew_micros: 0,
            stopped_until: 0,
            replaced: BTreeMap::new(),
            said: Vec::new(),
        });
        Self {
            replicas: replicas.collect(),
            cluster,
            conditions,
            checks: Checks::default(),
            random: Random::new(seed),
            now: 0,
            events: BTreeMap::new(),
            next_event: 0,
            cuts: BTreeSet::new(),
            stable: SequenceNumber(0),
            checkpoint_interval: 0,
            names: BTreeMap::new(),
            trace: None,
            violation: None,
            skew_most: 0,
            suspected: BTreeSet::new(),
        }
    }

    /// The members, ascending.
    pub fn ids(&self) -> impl Iterator<Item = ReplicaId> + use<S> {
        (0..self.replicas.len() as u16).map(ReplicaId)
    }

    /// The keys.
    #[must_use]
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Chance, for whoever drives this network.
    pub const fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Microseconds since the beginning.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// A running instance.
    #[must_use]
    pub fn instance(&self, id: ReplicaId) -> Option<&S> {
        self.replicas[usize::from(id.0)].instance.as_ref()
    }

    /// What is durable at a replica.
    #[must_use]
    pub fn disk(&self, id: ReplicaId) -> &Disk {
        &self.replicas[usize::from(id.0)].disk
    }

    /// The first promise that was broken.
    ///
    /// # Errors
    /// That one.
    pub fn verdict(&self) -> Result<(), Violation> {
        self.violation.clone().map_or(Ok(()), Err)
    }

    /// From now on a replica behaves like this.
    pub fn set_behaviour(&mut self, id: ReplicaId, behaviour: Behaviour) {
        self.replica(id).behaviour = behaviour;
    }

    /// A replica's wall clock is ahead by this; below 0: behind.
    pub fn set_skew(&mut self, id: ReplicaId, micros: i64) {
        self.replica(id).skew_micros = micros;
        if self.replica(id).behaviour == Behaviour::Correct {
            self.skew_most = self.skew_most.max(micros);
        }
    }

    /// A replica's wall clock is set by so much more.
    pub fn set_clock(&mut self, id: ReplicaId, micros: i64) {
        let skew = self.replica(id).skew_micros.saturating_add(micros);
        self.set_skew(id, skew);
    }

    /// Agreed time as of the newest decision.
    #[must_use]
    pub fn agreed_time(&self) -> Timestamp {
        self.checks.timestamp()
    }

    /// Whether a replica runs.
    #[must_use]
    pub fn is_up(&self, id: ReplicaId) -> bool {
        self.instance(id).is_some()
    }

    /// Starts a replica from its disk.
    pub fn start(&mut self, id: ReplicaId) {
        if self.is_up(id) {
            return;
        }
        let height = self.disk(id).committed().map_or(SequenceNumber(0), |(sequence, ..)| sequence);
        self.checks.opened(id, height);
        let cluster = self.cluster.clone();
        let replica = self.replica(id);
        replica.life += 1;
        replica.register = cluster.register(id, replica.disk.register);
        replica.decided = replica.disk.decided.clone();
        replica.decided.retain(|sequence, _| *sequence <= height);
        replica.instance = Some(S::open(&cluster, id, &replica.disk));
        self.note(id, "starts".into());
        self.input(id, Input::Start);
    }

    /// Ends a replica at once: what was not durable is lost, but for a prefix of what was being written.
    pub fn crash(&mut self, id: ReplicaId) {
        let survivors = self.random.below(self.replicas[usize::from(id.0)].syncing.len() as u64 + 1);
        let replica = self.replica(id);
        replica.instance = None;
        replica.timers.clear();
        replica.offered.clear();
        replica.waiting.clear();
        let syncing = std::mem::take(&mut replica.syncing);
        for write in syncing.into_iter().take(survivors as usize) {
            replica.make_durable(write);
        }
        self.note(id, "crashes".into());
    }

    /// Stops a replica for so long: what happens to it meanwhile waits.
    pub fn stop(&mut self, id: ReplicaId, micros: u64) {
        let until = self.now + micros;
        self.replica(id).stopped_until = until;
        self.note(id, format!("is stopped until {until}"));
    }

    /// No message passes between these two.
    pub fn cut(&mut self, a: ReplicaId, b: ReplicaId) {
        self.cuts.insert((a, b));
        self.cuts.insert((b, a));
    }

    /// All links are whole again.
    pub fn mend(&mut self) {
        self.cuts.clear();
    }

    /// The others are told that a replica's link went down or came up.
    pub fn tell_link(&mut self, peer: ReplicaId, up: bool) {
        for id in self.ids().filter(|id| *id != peer) {
            self.input(id, Input::Link { peer, up });
        }
    }

    /// Hands a frame to a replica.
    pub fn submit(&mut self, to: ReplicaId, frame: Frame, name: &str) {
        self.checks.submitted(frame.id());
        self.names.insert(frame.id(), name.into());
        self.note(to, format!("is given {name}"));
        self.input(to, Input::Submit(Verified::own(frame)));
    }

    /// Lets this much time pass.
    pub fn run(&mut self, micros: u64) {
        let end = self.now + micros;
        while self.violation.is_none() {
            let Some(((at, _), _)) = self.events.first_key_value().filter(|((at, _), _)| *at <= end) else { break };
            self.now = (*at).max(self.now);
            if let Some((_, event)) = self.events.pop_first() {
                self.happen(event);
            }
        }
        self.now = end;
    }

    fn replica(&mut self, id: ReplicaId) -> &mut Replica<S> {
        &mut self.replicas[usize::from(id.0)]
    }

    fn time(&self, id: ReplicaId) -> Time {
        let skew_micros = self.replicas[usize::from(id.0)].skew_micros;
        Time { monotonic: self.now, wall: (WALL_START_MICROS + self.now).saturating_add_signed(skew_micros) }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }

    fn happen(&mut self, event: Event) {
        let id = match &event {
            Event::Deliver { to, .. } | Event::Stable { to, .. } => *to,
            Event::Synced { replica, .. } | Event::Fire { replica, .. } => *replica,
        };
        let until = self.replica(id).stopped_until;
        if until > self.now {
            // A host looks at its clock first and reads its sockets then.
            let in_socket = matches!(event, Event::Deliver { .. });
            self.schedule(until + u64::from(in_socket), event);
            return;
        }
        match event {
            Event::Deliver { from, to, bytes } => {
                if self.cuts.contains(&(from, to)) || !self.is_up(to) {
                    return;
                }
                self.deliver(from, to, bytes);
            }
            Event::Synced { replica, life } => self.synced(replica, life),
            Event::Stable { to, stable } => self.input(to, Input::Stable(stable)),
            Event::Fire { replica: id, life, timer, at } => {
                let replica = self.replica(id);
                if replica.life == life && replica.instance.is_some() && replica.timers.get(&timer) == Some(&at) {
                    replica.timers.remove(&timer);
                    self.input(id, Input::Timeout(timer));
                }
            }
        }
    }

    /// As a host does it: read, asked whether it is wanted, checked, handled. What a correct replica says passes.
    fn deliver(&mut self, from: ReplicaId, to: ReplicaId, bytes: Bytes) {
        let context = self.cluster.context();
        let link = context.membership.bounds().link;
        let read = if bytes.len() > link { Err(Rejected::TooLarge) } else { S::Message::parse(bytes, &context) };
        let wanted = |message: &S::Message| self.instance(to).is_some_and(|instance| instance.is_wanted(from, message));
        let checked = match read {
            Ok(message) if !wanted(&message) => return,
            Ok(message) => Unverified::new(message).verify(&context),
            Err(rejected) => Err(rejected),
        };
        match checked {
            Ok(message) => self.input(to, Input::Message { from, message }),
            Err(rejected) if self.replica(from).behaviour == Behaviour::Correct => {
                let what = format!("{to:?} rejects what {from:?} said, which is correct: {rejected}");
                self.violation.get_or_insert(Violation(what));
            }
            Err(_) => {}
        }
    }

    fn synced(&mut self, id: ReplicaId, life: u32) {
        let replica = self.replica(id);
        if replica.life != life || replica.instance.is_none() {
            return;
        }
        for write in std::mem::take(&mut replica.syncing) {
            let input = match &write {
                Write::Record { id, .. } => Input::Persisted(*id),
                Write::Register { answer, .. } => Input::Answered(*answer),
            };
            self.replica(id).make_durable(write);
            self.input(id, input);
        }
        self.begin_sync(id);
    }

    fn begin_sync(&mut self, id: ReplicaId) {
        let (least, most) = self.conditions.sync;
        let at = self.now + self.random.between(least, most);
        let replica = self.replica(id);
        if replica.syncing.is_empty() && !replica.waiting.is_empty() {
            replica.syncing = std::mem::take(&mut replica.waiting);
            let life = replica.life;
            self.schedule(at, Event::Synced { replica: id, life });
        }
    }

    fn input(&mut self, id: ReplicaId, input: Input<S::Message>) {
        let now = self.time(id);
        let Some(instance) = self.replica(id).instance.as_mut() else { return };
        let mut outbox = Vec::new();
        instance.handle(now, input, &mut outbox);
        for output in outbox {
            self.output(id, output);
        }
        self.admit(id);
        self.begin_sync(id);
    }

    /// As the enclosing replica does: what was ordered is not let in again.
    fn admit(&mut self, id: ReplicaId) {
        for frame in std::mem::take(&mut self.replica(id).offered) {
            if !self.replica(id).ordered.contains(&frame.id()) {
                self.input(id, Input::Admitted(Verified::own(frame)));
            }
        }
    }

    fn output(&mut self, id: ReplicaId, output: Output<S::Message>) {
        match output {
            Output::Send { to, message } => {
                self.note_message(id, &format!("to {to:?}"), &message);
                self.send(id, to, &message);
            }
            Output::Broadcast(message) => {
                self.note_message(id, "to all", &message);
                self.broadcast(id, &message);
            }
            Output::Persist { id: write, record } => {
                if let Record::Block { sequence, .. } = &record {
                    self.note(id, format!("writes block {sequence:?}"));
                }
                self.replica(id).waiting.push(Write::Record { id: write, record });
            }
            Output::Certify { view, step, hash } => {
                self.note(id, format!("certifies {:?}.{step:?}", view.view()));
                let replica = self.replica(id);
                let stands_by = replica.replaced.get(&hash).copied().unwrap_or(hash);
                let answer = replica.register.certify(view, step, stands_by);
                if let (Ok(certificate), true) = (answer, stands_by != hash) {
                    let to: Vec<ReplicaId> = self.ids().filter(|to| *to != id).collect();
                    to.into_iter().for_each(|to| self.send(id, to, &S::vote(certificate)));
                }
                // A liar's instance goes on as if its own block had been certified.
                let answer = answer.map(|mut certificate| {
                    certificate.vote.hash = hash;
                    certificate
                });
                self.register_answered(id, answer.map_or(RegisterAnswer::Refused, RegisterAnswer::Certificate));
            }
            Output::Advance { view } => {
                self.note(id, format!("advances to {:?}", view.view()));
                let answer = self.replica(id).register.advance(view);
                self.register_answered(id, answer.map_or(RegisterAnswer::Refused, RegisterAnswer::ViewChange));
            }
            Output::Attest { nonce } => {
                let answer = RegisterAnswer::Attestation(self.replica(id).register.attest(nonce));
                self.register_answered(id, answer);
            }
            Output::SetTimer { timer, at } => {
                let replica = self.replica(id);
                let life = replica.life;
                match at {
                    Some(at) => {
                        replica.timers.insert(timer, at);
                        self.schedule(at, Event::Fire { replica: id, life, timer, at });
                    }
                    None => {
                        replica.timers.remove(&timer);
                    }
                }
            }
            Output::Decide(decision) => {
                let names: Vec<String> = decision.frames.iter().map(|frame| self.name(frame.id())).collect();
                self.note(id, format!("decides {:?} [{}]", decision.sequence, names.join(" ")));
                self.replica(id).decided.insert(decision.sequence, decision.hash);
                let frames = decision.frames.iter().map(Frame::id);
                self.replica(id).ordered.extend(frames);
                if self.replica(id).behaviour == Behaviour::Correct {
                    let clocks = (WALL_START_MICROS + self.now).saturating_add_signed(self.skew_most);
                    let latest = Timestamp(clocks).after(AGREED_TIME_AHEAD_MAX);
                    if let Err(violation) = self.checks.decided(id, &decision, latest) {
                        self.violation.get_or_insert(violation);
                    }
                    self.stabilise();
                }
            }
            Output::Provide(Provide { to, from, committed }) => {
                self.note(id, format!("reads its log from {from:?} for {to:?}"));
                if let Some((blocks, proof)) = self.disk(id).decided_from(from, PROVIDE_BYTES) {
                    self.send(id, to, &S::provide(committed, blocks, proof));
                }
            }
            Output::Offer(frames) => self.replica(id).offered.extend(frames),
            Output::Silence => {
                let what = format!("{id:?} is told of votes of its own that its register does not know");
                if self.replica(id).behaviour == Behaviour::Correct {
                    self.violation.get_or_insert(Violation(what));
                }
            }
            Output::Contradiction(contradiction) => {
                let Contradiction { sequence, ours, theirs, .. } = contradiction;
                let what = format!("{id:?} has proof of two histories at {sequence:?}: {ours:?} and {theirs:?}");
                self.violation.get_or_insert(Violation(what));
            }
            Output::Suspect { peer, reason } => {
                self.note(id, format!("suspects {peer:?}: {reason}"));
                if self.replica(id).behaviour == Behaviour::Correct {
                    self.suspected.insert(peer);
                    if self.replica(peer).behaviour == Behaviour::Correct && peer != id {
                        let what = format!("{id:?} suspects {peer:?}, which is correct: {reason}");
                        self.violation.get_or_insert(Violation(what));
                    }
                }
            }
        }
    }

    fn register_answered(&mut self, id: ReplicaId, answer: RegisterAnswer) {
        let replica = self.replica(id);
        let state = replica.register.state();
        replica.waiting.push(Write::Register { state, answer });
    }

    fn broadcast(&mut self, from: ReplicaId, message: &S::Message) {
        let to: Vec<ReplicaId> = self.ids().filter(|to| *to != from).collect();
        match self.replica(from).behaviour {
            Behaviour::Equivocating => {
                for to in to {
                    let lie = self.random.chance(500).then(|| S::corrupt(&self.cluster, message, &mut self.random));
                    self.send(from, to, lie.flatten().as_ref().unwrap_or(message));
                }
            }
            Behaviour::Corrupting => {
                let lie = S::boast(message).or_else(|| {
                    self.random.chance(300).then(|| S::corrupt(&self.cluster, message, &mut self.random)).flatten()
                });
                if let (Some(before), Some(after)) = (S::proposed(message), lie.as_ref().and_then(S::proposed)) {
                    self.replica(from).replaced.insert(before, after);
                }
                to.iter().for_each(|to| self.send(from, *to, lie.as_ref().unwrap_or(message)));
                if self.random.chance(20) {
                    self.certify_garbage(from);
                }
            }
            _ => to.into_iter().for_each(|to| self.send(from, to, message)),
        }
    }

    /// The register signs what it is given; that nobody can make a header of that hash is not its business.
    fn certify_garbage(&mut self, from: ReplicaId) {
        let mut hash = Digest::ZERO;
        hash.0[..8].copy_from_slice(&self.random.next().to_le_bytes());
        let RegisterState { view, step, .. } = self.replica(from).register.state();
        let step = Step(step.0 + 1 + self.random.below(2));
        if let Ok(certificate) = self.replica(from).register.certify(view, step, hash) {
            let to: Vec<ReplicaId> = self.ids().filter(|to| *to != from).collect();
            to.into_iter().for_each(|to| self.send(from, to, &S::vote(certificate)));
        }
    }

    fn send(&mut self, from: ReplicaId, to: ReplicaId, message: &S::Message) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let mut bytes = Bytes::from(bytes);
        match self.replica(from).behaviour {
            Behaviour::Silent => return,
            Behaviour::Replaying => {
                self.replica(from).said.push(bytes.clone());
                if self.random.chance(200) {
                    let count = self.replica(from).said.len() as u64;
                    let index = self.random.below(count) as usize;
                    bytes = self.replica(from).said[index].clone();
                } else if self.random.chance(200) {
                    return;
                }
            }
            _ => {}
        }
        let Conditions { loss, duplication, delay: (least, most), bandwidth, .. } = self.conditions;
        let transfer = (bytes.len() as u64).saturating_mul(1_000).checked_div(bandwidth).unwrap_or(0);
        let late = if self.replica(from).behaviour == Behaviour::Slow { SLOW_MICROS } else { 0 };
        let copies = if self.random.chance(duplication) { 2 } else { 1 };
        for _ in 0..copies {
            if !self.random.chance(loss) {
                let at = self.now + late + transfer + self.random.between(least, most);
                self.schedule(at, Event::Deliver { from, to, bytes: bytes.clone() });
            }
        }
    }

    /// A checkpoint is stable when f+1 replicas have decided up to it; all that have are told.
    fn stabilise(&mut self) {
        let next = SequenceNumber(self.stable.0 + self.checkpoint_interval);
        let enough = self.cluster.membership().quorum().one_correct();
        let there: Vec<ReplicaId> = self.ids().filter(|id| self.checks.height_of(*id) >= next).collect();
        let Some(header) = self.checks.hash_at(next).filter(|_| self.checkpoint_interval > 0 && there.len() >= enough)
        else {
            return;
        };
        self.stable = next;
        let signed: Vec<_> = there.iter().map(|id| self.cluster.checkpoint(*id, next, header)).take(enough).collect();
        let stable = StableCheckpoint { checkpoint: signed[0].statement, signatures: signed };
        for to in there {
            self.schedule(self.now, Event::Stable { to, stable: stable.clone() });
        }
    }

    fn name(&self, frame: Digest) -> String {
        self.names.get(&frame).cloned().unwrap_or_else(|| format!("{frame:?}"))
    }

    fn note(&mut self, id: ReplicaId, what: String) {
        let at = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>4}.{} {id:?} {what}", at / 1_000, at / 100 % 10));
        }
    }

    fn note_message(&mut self, id: ReplicaId, to: &str, message: &S::Message) {
        if self.trace.is_some() && self.replica(id).behaviour != Behaviour::Silent {
            let described = S::describe(message, &|frame| self.name(frame));
            self.note(id, format!("{to}: {described}"));
        }
    }
}

impl<S> Replica<S> {
    fn make_durable(&mut self, write: Write) {
        match write {
            Write::Record { record, .. } => {
                if let Record::Commit { sequence, .. } = &record {
                    let decided = self.decided.range(..=*sequence).map(|(sequence, hash)| (*sequence, *hash));
                    self.disk.decided.extend(decided);
                }
                self.disk.write(record);
            }
            Write::Register { state, .. } => self.disk.register = state,
        }
    }
}
