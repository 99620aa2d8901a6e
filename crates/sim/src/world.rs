//! The simulated world: machines, their clocks, disks and links, one queue of events, one thread.
//!
//! ```text
//!             ┌────────────── queue of events, by virtual time ──────────────┐
//!             v                                                              │
//!   Deliver Timer Synced Step Fault ──> machine ──> effects ──> network, disk, register, timers
//!                                          └──> observations ──> checkers
//! ```
//! It knows machines and bytes, no protocol. Time passes only between events; whatever a replica does within one
//! event takes no time, so slowness is put into links, disks and steps of tasks.
//!
//! Invariant: everything that happens is a function of the plan (and so of the seed). Nothing here reads a clock,
//! an address, an environment or the order of a hash map.

use crate::core::{Abuse, Actor, ActorEffect, ActorInput, Core, Effect, Factory, Input, Moment, Observation, Progress};
use crate::disk::{Entry, Promise};
use crate::{Checker, Clock, Counts, Disk, Fault, Liar, Network, Plan, Property, Random, RegisterCall, Trace};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use unisono_consensus::{Provide, RegisterAnswer};
use unisono_trusted::{Register, RegisterState, VoteRegister};
use unisono_types::{Bytes, RegisterId, ReplicaId, Signer};

/// What is outstanding when everything heals, or is asked for later, must be done within this long.
pub const LIVENESS_LIMIT: u64 = 10 * crate::plan::SECOND;

/// How often the world looks whether everything is done.
const WATCH_INTERVAL: u64 = 2_000;

/// Bytes of committed blocks that one answer to a laggard carries, as in the real host.
const PROVIDED_BYTES_MAX: usize = 1 << 20;

/// The most events of a run: one that takes more goes round in circles.
const EVENTS_MAX: u64 = 20_000_000;

/// Characters of a message that a line of a trace shows.
const SAID_MAX: usize = 300;

/// A simulated world.
pub struct World {
    plan: Plan,
    factory: Box<dyn Factory>,
    now: u64,
    order: u64,
    scheduled: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    random: Random,
    network: Network,
    hosts: Vec<Host>,
    actors: Vec<Machine>,
    checker: Checker,
    trace: Trace,
    counts: Counts,
    healed: bool,
    /// Healing, or the newest request behind it.
    awaited_since: u64,
    effects: Vec<Effect>,
    actor_effects: Vec<ActorEffect>,
}

/// A replica's machine.
struct Host {
    clock: Clock,
    disk: Disk,
    disk_slowness: u64,
    register: Register,
    identity: (RegisterId, Signer),
    cores: Vec<Box<dyn Core>>,
    /// Which setting of each timer counts.
    timers: BTreeMap<(usize, u64), u64>,
    steps_pending: [bool; 2],
    /// Counts starts: events of an earlier life concern nobody.
    life: u64,
    up: bool,
    paused: bool,
    backlog: Vec<Event>,
    liar: Option<Liar>,
}

/// A client's machine.
struct Machine {
    clock: Clock,
    actor: Box<dyn Actor>,
    timer: u64,
    life: u64,
}

struct Scheduled {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

enum Event {
    ToReplica { replica: usize, from: usize, life: u64, bytes: Bytes },
    ToClient { client: usize, from: usize, life: u64, bytes: Bytes },
    Timer { replica: usize, core: usize, timer: u64, setting: u64 },
    Synced { replica: usize, life: u64 },
    Step { replica: usize, core: usize, life: u64 },
    Inner { replica: usize, core: usize, life: u64, input: Box<Input> },
    ClientTimer { client: usize, setting: u64 },
    ClientLink { client: usize, replica: usize, up: bool },
    Begin(usize),
    End(Fault),
}

/// Everything that a world starts with besides its plan.
pub struct Parts {
    /// Makes replicas.
    pub factory: Box<dyn Factory>,
    /// Identity and key of each replica's register.
    pub registers: Vec<(RegisterId, Signer)>,
    /// The clients.
    pub actors: Vec<Box<dyn Actor>>,
}

impl World {
    /// A world in which everybody starts at time 0.
    #[must_use]
    pub fn new(plan: Plan, parts: Parts, trace: Trace) -> Self {
        let mut random = Random::new(plan.seed);
        let nodes = plan.replicas + parts.actors.len();
        let hosts = parts.registers.into_iter().enumerate().map(|(replica, identity)| {
            let liar = plan.liars.iter().find(|liar| liar.replica == replica);
            let clock = draw_clock(&plan, &mut random);
            Host::new(clock, identity, liar.map(|liar| Liar::new(*liar, plan.replicas, random.fork())))
        });
        let hosts: Vec<Host> = hosts.collect();
        let mut world = Self {
            network: Network::new(plan.network.clone(), nodes),
            checker: Checker::new(plan.replicas),
            counts: Counts::default(),
            factory: parts.factory,
            now: 0,
            order: 0,
            scheduled: 0,
            queue: BinaryHeap::new(),
            hosts,
            actors: Vec::new(),
            trace,
            healed: false,
            awaited_since: 0,
            effects: Vec::new(),
            actor_effects: Vec::new(),
            random,
            plan,
        };
        for (index, (at, _)) in world.plan.faults.iter().enumerate() {
            let number = world.scheduled;
            world.scheduled += 1;
            world.queue.push(Reverse(Scheduled { at: *at, number, event: Event::Begin(index) }));
        }
        for replica in 0..world.hosts.len() {
            world.start(replica);
        }
        for actor in parts.actors {
            let clock = draw_clock(&world.plan, &mut world.random);
            world.actors.push(Machine { clock, actor, timer: 0, life: 0 });
            world.client_input(world.actors.len() - 1, ActorInput::Start);
        }
        world
    }

    /// One more client, from now on; its number.
    pub fn join(&mut self, actor: Box<dyn Actor>) -> usize {
        self.network.join();
        let clock = draw_clock(&self.plan, &mut self.random);
        self.actors.push(Machine { clock, actor, timer: 0, life: 0 });
        let client = self.actors.len() - 1;
        self.client_input(client, ActorInput::Start);
        client
    }

    /// Tells a client that somebody put something down for it.
    pub fn wake(&mut self, client: usize) {
        self.client_input(client, ActorInput::Wake);
    }

    /// Virtual time.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// The checkers.
    #[must_use]
    pub const fn checker(&self) -> &Checker {
        &self.checker
    }

    /// What happened, in numbers.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = self.counts.clone();
        counts.events = self.order;
        counts.decisions = self.checker.decisions();
        counts.marks = self.checker.marks() as u64;
        counts.view_changes = self.correct().map(|replica| self.progress(replica).view.0).max().map_or(0, u64::from);
        counts.faults.loss = self.network.lost;
        counts.faults.duplication = self.network.doubled;
        counts
    }

    /// Hash of everything that happened.
    #[must_use]
    pub const fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    /// How far a replica is; nowhere while it is down.
    #[must_use]
    pub fn progress(&self, replica: usize) -> Progress {
        self.hosts[replica].cores.first().map_or_else(Progress::default, |core| core.progress())
    }

    /// Replicas that do not lie.
    pub fn correct(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.hosts.len()).filter(|replica| self.hosts[*replica].liar.is_none())
    }

    /// The whole plan: faults, healing, and then everything outstanding must come to its end in time.
    pub fn run(&mut self) {
        self.run_until(self.plan.heal_at);
        self.heal();
        for client in 0..self.actors.len() {
            self.client_input(client, ActorInput::Finish);
        }
        while self.checker.violation().is_none() && !self.is_settled() {
            if self.now >= self.awaited_since + LIVENESS_LIMIT {
                let text = self.unfinished();
                self.checker.report(Property::Liveness, text);
                break;
            }
            self.run_until(self.now + WATCH_INTERVAL);
        }
        let correct: Vec<usize> = self.correct().collect();
        self.checker.finish(&correct);
    }

    /// Runs until this virtual time, or a violation.
    pub fn run_until(&mut self, until: u64) {
        while self.checker.violation().is_none() {
            match self.queue.peek() {
                Some(Reverse(next)) if next.at <= until => self.step(),
                _ => break,
            }
            if self.order > EVENTS_MAX {
                self.checker.report(Property::Liveness, format!("more than {EVENTS_MAX} events: it goes round in circles"));
            }
        }
        self.now = self.now.max(until);
    }

    /// Ends all faults; liars go on lying.
    pub fn heal(&mut self) {
        self.trace.line(self.now, || "everything heals".into());
        self.healed = true;
        self.awaited_since = self.now;
        self.network.heal();
        for replica in 0..self.hosts.len() {
            self.hosts[replica].disk_slowness = 0;
            if !self.hosts[replica].up {
                self.start(replica);
            }
            if self.hosts[replica].paused {
                self.resume(replica);
            }
        }
        for a in 0..self.hosts.len() {
            self.links_changed(a, true);
        }
    }

    /// Whether nobody waits for anything and all correct replicas are equally far.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let first = self.correct().next().map_or_else(Progress::default, |replica| self.progress(replica));
        let equal = |replica: usize| {
            let progress = self.progress(replica);
            progress.committed == first.committed && progress.executed == progress.committed
        };
        self.actors.iter().all(|machine| machine.actor.is_done()) && self.correct().all(equal)
    }

    fn unfinished(&self) -> String {
        let waiting = self.actors.iter().enumerate().filter(|(_, machine)| !machine.actor.is_done());
        let waiting: Vec<String> = waiting.map(|(client, machine)| format!("client {client}: {}", machine.actor.waits_for())).collect();
        let heights = self.correct().map(|replica| {
            let Progress { committed, executed, view } = self.progress(replica);
            let doing = self.hosts[replica].cores.first().map(|core| core.describe()).unwrap_or_default();
            format!("replica {replica}: committed {committed} executed {executed} in {view:?} {doing}")
        });
        format!("not done within {} s of a healed world; {}; {}", LIVENESS_LIMIT / 1_000_000, waiting.join(", "), heights.collect::<Vec<_>>().join(", "))
    }

    fn schedule(&mut self, at: u64, event: Event) {
        let number = self.scheduled;
        self.scheduled += 1;
        self.queue.push(Reverse(Scheduled { at: at.max(self.now), number, event }));
    }

    fn step(&mut self) {
        let Some(Reverse(Scheduled { at, event, .. })) = self.queue.pop() else { return };
        self.now = at;
        if let Some(replica) = event.replica() {
            let host = &mut self.hosts[replica];
            if host.paused {
                host.backlog.push(event);
                return;
            }
        }
        if self.is_stale(&event) {
            return;
        }
        self.order += 1;
        self.trace.number(at);
        self.note(&event);
        match event {
            Event::ToReplica { replica, from, life, bytes } => self.deliver(replica, from, life, bytes),
            Event::ToClient { client, from, bytes, .. } => {
                self.client_input(client, ActorInput::Reply { from: ReplicaId(from as u16), bytes });
            }
            Event::Timer { replica, core, timer, .. } => {
                self.hosts[replica].timers.remove(&(core, timer));
                self.input(replica, core, Input::Timeout(timer));
            }
            Event::Synced { replica, .. } => self.synced(replica),
            Event::Step { replica, core, .. } => {
                self.hosts[replica].steps_pending[core] = false;
                let pick = self.random.next_u64();
                self.input(replica, core, Input::Step(pick));
            }
            Event::Inner { replica, core, input, .. } => self.input(replica, core, *input),
            Event::ClientTimer { client, .. } => self.client_input(client, ActorInput::Timeout),
            Event::ClientLink { client, replica, up } => {
                self.client_input(client, ActorInput::Link { replica: ReplicaId(replica as u16), up });
            }
            Event::Begin(index) => {
                let fault = self.plan.faults[index].1.clone();
                self.begin(&fault);
            }
            Event::End(fault) => self.end(&fault),
        }
    }

    fn is_stale(&self, event: &Event) -> bool {
        match event {
            Event::ToReplica { replica, .. } => !self.hosts[*replica].up,
            Event::ToClient { client, life, .. } => self.actors[*client].life != *life,
            Event::Timer { replica, core, timer, setting } => {
                self.hosts[*replica].timers.get(&(*core, *timer)) != Some(setting)
            }
            Event::Synced { replica, life } | Event::Step { replica, life, .. } | Event::Inner { replica, life, .. } => {
                let host = &self.hosts[*replica];
                !host.up || host.life != *life
            }
            Event::ClientTimer { client, setting } => self.actors[*client].timer != *setting,
            Event::ClientLink { .. } => false,
            Event::Begin(_) | Event::End(_) => self.healed,
        }
    }

    /// Into the trace.
    fn note(&mut self, event: &Event) {
        let (kind, who, what) = match event {
            Event::ToReplica { replica, from, bytes, .. } => {
                self.trace.bytes(bytes);
                (1, *replica, *from as u64)
            }
            Event::ToClient { client, from, bytes, .. } => {
                self.trace.bytes(bytes);
                (2, *client, *from as u64)
            }
            Event::Timer { replica, timer, .. } => (3, *replica, *timer),
            Event::Synced { replica, .. } => (4, *replica, 0),
            Event::Step { replica, core, .. } => (5, *replica, *core as u64),
            Event::Inner { replica, core, .. } => (6, *replica, *core as u64),
            Event::ClientTimer { client, .. } => (7, *client, 0),
            Event::ClientLink { client, replica, up } => (8, *client, (*replica as u64) << 1 | u64::from(*up)),
            Event::Begin(index) => (9, *index, 0),
            Event::End(_) => (10, 0, 0),
        };
        self.trace.number(kind << 48 | (who as u64) << 32 | what);
        if self.trace.prints() {
            self.trace.line(self.now, || event.describe(self.plan.replicas, &*self.factory));
        }
    }

    fn start(&mut self, replica: usize) {
        self.trace.line(self.now, || format!("replica {replica} starts"));
        let count = self.hosts[replica].liar.as_ref().map_or(1, Liar::cores);
        let life_start = self.random.below(1 << 40);
        let drift = draw_drift(&self.plan, &mut self.random);
        let skew = draw_skew(&self.plan, &mut self.random);
        let host = &mut self.hosts[replica];
        host.life += 1;
        host.up = true;
        host.steps_pending = [false; 2];
        host.clock = Clock::starting_at(self.now, life_start, drift, skew);
        let (id, signer) = host.identity.clone();
        host.register = match host.disk.register() {
            Some(state) => Register::restore(id, signer, state),
            None => Register::new(id, signer),
        };
        host.cores = (0..count).map(|_| self.factory.create(ReplicaId(replica as u16), &host.disk)).collect();
        self.checker.started(replica);
        for core in 0..count {
            self.input(replica, core, Input::Start);
        }
        self.links_changed(replica, true);
    }

    fn crash(&mut self, replica: usize) {
        let host = &mut self.hosts[replica];
        if !host.up {
            return;
        }
        self.counts.faults.crash += 1;
        host.up = false;
        host.paused = false;
        host.backlog.clear();
        host.cores.clear();
        host.timers.clear();
        host.disk.crash(&mut self.random);
        self.links_changed(replica, false);
    }

    fn resume(&mut self, replica: usize) {
        let host = &mut self.hosts[replica];
        host.paused = false;
        for event in std::mem::take(&mut host.backlog) {
            self.schedule(self.now, event);
        }
    }

    /// Everybody who has a connection to `replica`, and it itself, notices that it went down or came up.
    fn links_changed(&mut self, replica: usize, up: bool) {
        if !self.plan.link_hints {
            return;
        }
        for peer in 0..self.hosts.len() {
            let both_up = self.hosts[peer].up && self.hosts[replica].up;
            if peer == replica || (up && !both_up) {
                continue;
            }
            self.link_hint(peer, replica, up);
            if self.hosts[replica].up {
                self.link_hint(replica, peer, up);
            }
        }
        for client in 0..self.actors.len() {
            let at = self.now + self.random.between(100, 5_000);
            self.schedule(at, Event::ClientLink { client, replica, up });
        }
    }

    fn link_hint(&mut self, at_replica: usize, peer: usize, up: bool) {
        let host = &self.hosts[at_replica];
        let (life, cores) = (host.life, host.cores.len());
        let at = self.now + self.random.between(100, 5_000);
        for core in 0..cores {
            let input = Box::new(Input::Link { peer: ReplicaId(peer as u16), up });
            self.schedule(at, Event::Inner { replica: at_replica, core, life, input });
        }
    }

    fn begin(&mut self, fault: &Fault) {
        self.trace.line(self.now, || format!("fault begins: {fault:?}"));
        let members = |set: u64, count: usize| (0..count).filter(move |index| set & (1 << index) != 0);
        let length = match fault {
            Fault::Crash { replicas, down } => {
                members(*replicas, self.hosts.len()).for_each(|replica| self.crash(replica));
                *down
            }
            Fault::Pause { replica, length } => {
                self.counts.faults.pause += 1;
                self.hosts[*replica].paused = true;
                *length
            }
            Fault::Partition { side, one_way, length } => {
                self.counts.faults.partition += 1;
                for (from, to) in self.divided(*side) {
                    self.network.cut(from, to);
                    if !one_way {
                        self.network.cut(to, from);
                    }
                    if self.plan.link_hints && from < self.hosts.len() && to < self.hosts.len() {
                        self.link_hint(to, from, false);
                    }
                }
                *length
            }
            Fault::Clog { from, to, length } => {
                self.network.clog(*from, *to, self.now + length);
                return;
            }
            Fault::SlowLinks { node, delay, length } => {
                self.network.slow_down(*node, *delay);
                *length
            }
            Fault::SlowDisk { replica, delay, length } => {
                self.hosts[*replica].disk_slowness = *delay;
                *length
            }
            Fault::WallClock { replica, skew } => {
                self.hosts[*replica].clock.set_skew(*skew);
                return;
            }
            Fault::ClientCrash { client } => {
                self.crash_client(*client);
                return;
            }
        };
        self.schedule(self.now + length, Event::End(fault.clone()));
    }

    fn end(&mut self, fault: &Fault) {
        self.trace.line(self.now, || format!("fault ends: {fault:?}"));
        match fault {
            Fault::Crash { replicas, .. } => {
                for replica in (0..self.hosts.len()).filter(|index| replicas & (1 << index) != 0) {
                    if !self.hosts[replica].up {
                        self.start(replica);
                    }
                }
            }
            Fault::Pause { replica, .. } => self.resume(*replica),
            Fault::Partition { side, .. } => {
                for (from, to) in self.divided(*side) {
                    self.network.mend(from, to);
                    self.network.mend(to, from);
                    if self.plan.link_hints && from < self.hosts.len() && to < self.hosts.len() {
                        self.link_hint(to, from, true);
                    }
                }
            }
            Fault::SlowLinks { node, .. } => self.network.slow_down(*node, 0),
            Fault::SlowDisk { replica, .. } => self.hosts[*replica].disk_slowness = 0,
            Fault::Clog { .. } | Fault::WallClock { .. } | Fault::ClientCrash { .. } => {}
        }
    }

    fn divided(&self, side: u64) -> Vec<(usize, usize)> {
        let nodes = self.hosts.len() + self.actors.len();
        let inside = |node: &usize| side & (1 << node) != 0;
        let pairs = (0..nodes).filter(inside).flat_map(|from| (0..nodes).filter(move |to| !inside(to)).map(move |to| (from, to)));
        pairs.collect()
    }

    fn crash_client(&mut self, client: usize) {
        self.counts.faults.client_crash += 1;
        self.actors[client].timer += 1;
        let old = connection(client, self.actors[client].life);
        self.actors[client].life += 1;
        for replica in 0..self.hosts.len() {
            let (life, cores) = (self.hosts[replica].life, self.hosts[replica].cores.len());
            for core in 0..cores {
                let at = self.now + self.random.between(100, 5_000);
                self.schedule(at, Event::Inner { replica, core, life, input: Box::new(Input::Disconnected(old)) });
            }
        }
        self.client_input(client, ActorInput::Crash);
    }

    fn deliver(&mut self, replica: usize, from: usize, life: u64, bytes: Bytes) {
        let replicas = self.hosts.len();
        let now = self.now;
        let core = match &mut self.hosts[replica].liar {
            Some(liar) => {
                if from < replicas {
                    liar.remember(&bytes);
                }
                liar.core_for(now, from)
            }
            None => 0,
        };
        let input = match from.checked_sub(replicas) {
            Some(client) => Input::Client { client, connection: connection(client, life), bytes },
            None => Input::Peer { from: ReplicaId(from as u16), bytes },
        };
        self.input(replica, core, input);
    }

    fn input(&mut self, replica: usize, core: usize, input: Input) {
        let now = self.now;
        let host = &mut self.hosts[replica];
        let Some(running) = host.cores.get_mut(core) else { return };
        let mut effects = std::mem::take(&mut self.effects);
        let time = host.clock.read(now);
        if host.liar.is_none() {
            running.handle(time, input, &mut effects);
        } else {
            // What a liar does to its own core (votes behind its back) may break promises inside it: then it is silent.
            let outcome = catch_unwind(AssertUnwindSafe(|| running.handle(time, input, &mut effects)));
            if outcome.is_err() {
                effects.clear();
                host.cores.clear();
                host.timers.clear();
                self.effects = effects;
                return;
            }
        }
        let may_step = running.runnable() > 0 && !host.steps_pending[core];
        if may_step {
            host.steps_pending[core] = true;
            let life = host.life;
            let at = now + self.random.below(self.plan.step_delay + 1);
            self.schedule(at, Event::Step { replica, core, life });
        }
        for effect in effects.drain(..) {
            self.effect(replica, core, effect);
        }
        self.effects = effects;
    }

    fn effect(&mut self, replica: usize, core: usize, effect: Effect) {
        match effect {
            Effect::Send { to, bytes } => self.send(replica, core, usize::from(to.0), bytes),
            Effect::Reply { connection, bytes } => self.reply(replica, core, connection, bytes),
            Effect::Persist { id, record } => self.write(replica, core, Entry::Record(record), Promise::Persisted(id)),
            Effect::Certify { view, step, hash } => {
                let answer = self.hosts[replica].register.certify(view, step, hash);
                self.trace.line(self.now, || format!("replica {replica}: certify {view:?} {step:?} {hash:?}: {}", answer.is_ok()));
                self.answer(replica, core, answer.map_or(RegisterAnswer::Refused, RegisterAnswer::Certificate));
            }
            Effect::Advance { view } => {
                let answer = self.hosts[replica].register.advance(view);
                self.trace.line(self.now, || format!("replica {replica}: advance {view:?}: {}", answer.is_ok()));
                self.answer(replica, core, answer.map_or(RegisterAnswer::Refused, RegisterAnswer::ViewChange));
            }
            Effect::Attest { nonce } => {
                let attestation = self.hosts[replica].register.attest(nonce);
                self.answer(replica, core, RegisterAnswer::Attestation(attestation));
            }
            Effect::SetTimer { timer, at } => self.set_timer(replica, core, timer, at),
            Effect::Provide(provide) => self.provide(replica, core, provide),
            Effect::Observe(observation) => {
                self.trace.line(self.now, || format!("replica {replica}: {observation:?}"));
                match &observation {
                    Observation::Rejected(_) => self.counts.rejected += 1,
                    Observation::Suspected { .. } => self.counts.suspected += 1,
                    _ => {}
                }
                if self.hosts[replica].liar.is_none() {
                    self.checker.observe(replica, observation);
                }
            }
        }
    }

    fn send(&mut self, replica: usize, core: usize, to: usize, bytes: Bytes) {
        let now = self.now;
        if to >= self.hosts.len() || to == replica {
            return;
        }
        let Some(mut liar) = self.hosts[replica].liar.take() else {
            return self.transmit(now, replica, to, bytes);
        };
        if liar.core_for(now, to) == core {
            self.counts.faults.byzantine += 1;
            liar.remember(&bytes);
            let factory = &self.factory;
            let said = liar.say(now, to, bytes.clone(), |random| factory.forge(ReplicaId(replica as u16), &bytes, random));
            for said in said {
                self.transmit(now + said.delay, replica, said.to, said.bytes);
            }
            self.abuse_register(replica, &mut liar);
        }
        self.hosts[replica].liar = Some(liar);
    }

    /// A liar may have its register vote for what it likes, as far as an honest register goes along.
    fn abuse_register(&mut self, replica: usize, liar: &mut Liar) {
        let RegisterState { view, step, .. } = self.hosts[replica].register.state();
        let register = &mut self.hosts[replica].register;
        let signed = match liar.abuse(view, step) {
            Some(RegisterCall::Certify(view, step, hash)) => register.certify(view, step, hash).map(Abuse::Vote),
            Some(RegisterCall::Advance(view)) => register.advance(view).map(Abuse::Departure),
            None => return,
        };
        let Ok(signed) = signed else { return };
        let state = register.state();
        self.write(replica, usize::MAX, Entry::Register(state), Promise::Answered(RegisterAnswer::Refused));
        for bytes in self.factory.show(ReplicaId(replica as u16), &signed, liar.random()) {
            for to in (0..self.hosts.len()).filter(|to| *to != replica) {
                if liar.random().chance(700) {
                    self.transmit(self.now, replica, to, bytes.clone());
                }
            }
        }
    }

    fn reply(&mut self, replica: usize, core: usize, connection: u64, bytes: Bytes) {
        let (client, life) = ((connection >> 32) as usize, connection & u64::from(u32::MAX));
        let node = self.hosts.len() + client;
        let mut bytes = bytes;
        let now = self.now;
        if let Some(liar) = &mut self.hosts[replica].liar {
            if liar.core_for(now, node) != core {
                return;
            }
            if liar.answers_wrongly() {
                let Some(wrong) = self.factory.wrong_reply(&bytes, liar.random()) else { return };
                bytes = wrong;
            }
        }
        for at in self.network.route(now, replica, node, &mut self.random).into_iter().flatten() {
            self.schedule(at, Event::ToClient { client, from: replica, life, bytes: bytes.clone() });
        }
    }

    fn transmit(&mut self, at: u64, from: usize, to: usize, bytes: Bytes) {
        let copies = self.network.route(at, from, to, &mut self.random);
        for at in copies.into_iter().flatten() {
            self.schedule(at, Event::ToReplica { replica: to, from, life: 0, bytes: bytes.clone() });
        }
    }

    fn answer(&mut self, replica: usize, core: usize, answer: RegisterAnswer) {
        let state = self.hosts[replica].register.state();
        self.write(replica, core, Entry::Register(state), Promise::Answered(answer));
    }

    fn write(&mut self, replica: usize, writer: usize, entry: Entry, promise: Promise) {
        if self.hosts[replica].disk.append(writer, entry, promise) {
            self.begin_sync(replica);
        }
    }

    fn begin_sync(&mut self, replica: usize) {
        let (low, high) = self.plan.disk;
        let host = &self.hosts[replica];
        let at = self.now + self.random.between(low, high) + host.disk_slowness;
        let life = host.life;
        self.schedule(at, Event::Synced { replica, life });
    }

    fn synced(&mut self, replica: usize) {
        let (promises, more) = self.hosts[replica].disk.synced();
        if more {
            self.begin_sync(replica);
        }
        for (writer, promise) in promises {
            let input = match promise {
                Promise::Persisted(id) => Input::Persisted(id),
                Promise::Answered(answer) => Input::Answered(answer),
            };
            self.input(replica, writer, input);
        }
    }

    fn set_timer(&mut self, replica: usize, core: usize, timer: u64, at: Option<u64>) {
        let host = &mut self.hosts[replica];
        match at {
            None => {
                host.timers.remove(&(core, timer));
            }
            Some(monotonic) => {
                let at = host.clock.when(monotonic);
                let setting = self.scheduled;
                host.timers.insert((core, timer), setting);
                self.schedule(at, Event::Timer { replica, core, timer, setting });
            }
        }
    }

    /// Reads the log on behalf of a peer that is far behind, as far as one message may carry: up to a block with a
    /// proof (blocks decided together share that of the last).
    fn provide(&mut self, replica: usize, core: usize, provide: Provide) {
        let disk = &self.hosts[replica].disk;
        let (mut blocks, mut proven, mut proof, mut size) = (Vec::new(), 0, Bytes::new(), 0);
        for (sequence, (hash, certificate)) in disk.commits().range(provide.from..) {
            let expected = provide.from.0 + blocks.len() as u64;
            let Some((_, bytes)) = disk.block(hash) else { break };
            if sequence.0 != expected || (size + bytes.len() > PROVIDED_BYTES_MAX && proven > 0) {
                break;
            }
            size += bytes.len();
            blocks.push(bytes.clone());
            if !certificate.is_empty() {
                (proven, proof) = (blocks.len(), certificate.clone());
            }
        }
        blocks.truncate(proven);
        if blocks.is_empty() {
            return;
        }
        let life = self.hosts[replica].life;
        let at = self.now + self.random.between(20, 500);
        let input = Box::new(Input::Provided { to: provide.to, blocks, proof });
        self.schedule(at, Event::Inner { replica, core, life, input });
    }

    fn client_input(&mut self, client: usize, input: ActorInput) {
        let mut effects = std::mem::take(&mut self.actor_effects);
        let machine = &mut self.actors[client];
        self.order += 1;
        let moment = Moment { time: machine.clock.read(self.now), order: self.order };
        machine.actor.handle(moment, input, &mut effects);
        for effect in effects.drain(..) {
            self.client_effect(client, effect);
        }
        self.actor_effects = effects;
    }

    fn client_effect(&mut self, client: usize, effect: ActorEffect) {
        match effect {
            ActorEffect::Send { to, bytes } => {
                let (node, life) = (self.hosts.len() + client, self.actors[client].life);
                let to = usize::from(to.0);
                for at in self.network.route(self.now, node, to, &mut self.random).into_iter().flatten() {
                    self.schedule(at, Event::ToReplica { replica: to, from: node, life, bytes: bytes.clone() });
                }
            }
            ActorEffect::SetTimer { at } => {
                let machine = &mut self.actors[client];
                machine.timer += 1;
                let (at, setting) = (machine.clock.when(at), machine.timer);
                self.schedule(at, Event::ClientTimer { client, setting });
            }
            ActorEffect::Invoked { session, number, operation } => {
                self.trace.line(self.now, || format!("client {client}: {session:?} {number:?} asks"));
                self.counts.client_operations += 1;
                self.awaited_since = self.now;
                self.checker.invoked(session, number, operation);
            }
            ActorEffect::Completed { session, number, outcome } => {
                self.trace.line(self.now, || format!("client {client}: {session:?} {number:?} is answered {outcome:?}"));
                self.checker.completed(session, number, outcome);
            }
            ActorEffect::Violated(property, text) => self.checker.report(property, text),
        }
    }

    /// Begins a fault now; it ends as it says. For tests that write their own story.
    pub fn inflict(&mut self, fault: &Fault) {
        self.begin(fault);
    }

    /// Power loss of one replica, until [`World::restart`].
    pub fn power_off(&mut self, replica: usize) {
        self.crash(replica);
    }

    /// Starts a replica that is down.
    pub fn restart(&mut self, replica: usize) {
        if !self.hosts[replica].up {
            self.start(replica);
        }
    }
}

impl Host {
    fn new(clock: Clock, identity: (RegisterId, Signer), liar: Option<Liar>) -> Self {
        Self {
            clock,
            disk: Disk::default(),
            disk_slowness: 0,
            register: Register::new(identity.0, identity.1.clone()),
            identity,
            cores: Vec::new(),
            timers: BTreeMap::new(),
            steps_pending: [false; 2],
            life: 0,
            up: false,
            paused: false,
            backlog: Vec::new(),
            liar,
        }
    }
}

impl Event {
    fn replica(&self) -> Option<usize> {
        match self {
            Self::ToReplica { replica, .. }
            | Self::Timer { replica, .. }
            | Self::Synced { replica, .. }
            | Self::Step { replica, .. }
            | Self::Inner { replica, .. } => Some(*replica),
            _ => None,
        }
    }

    fn describe(&self, replicas: usize, factory: &dyn Factory) -> String {
        match self {
            Self::ToReplica { replica, from, bytes, .. } if *from < replicas => {
                let mut said = factory.describe(bytes);
                if let Some((end, _)) = said.char_indices().nth(SAID_MAX) {
                    said.truncate(end);
                }
                format!("replica {replica} <- replica {from}: {said}")
            }
            Self::ToReplica { replica, from, bytes, .. } => {
                format!("replica {replica} <- client {}: {} bytes", from - replicas, bytes.len())
            }
            Self::ToClient { client, from, bytes, .. } => {
                format!("client {client} <- replica {from}: {} bytes", bytes.len())
            }
            Self::Timer { replica, timer, .. } => format!("replica {replica}: timer {timer:#x}"),
            Self::Synced { replica, .. } => format!("replica {replica}: disk synced"),
            Self::Step { replica, .. } => format!("replica {replica}: a task steps"),
            Self::Inner { replica, input, .. } => format!("replica {replica}: {input:?}"),
            Self::ClientTimer { client, .. } => format!("client {client}: timer"),
            Self::ClientLink { client, replica, up } => format!("client {client}: link to replica {replica} up: {up}"),
            Self::Begin(_) | Self::End(_) => "the plan goes on".into(),
        }
    }
}

fn connection(client: usize, life: u64) -> u64 {
    (client as u64) << 32 | life
}

fn draw_drift(plan: &Plan, random: &mut Random) -> i64 {
    random.between(0, 2 * plan.clocks.1) as i64 - plan.clocks.1 as i64
}

fn draw_skew(plan: &Plan, random: &mut Random) -> i64 {
    random.between(0, 2 * plan.clocks.0) as i64 - plan.clocks.0 as i64
}

fn draw_clock(plan: &Plan, random: &mut Random) -> Clock {
    let start = random.below(1 << 40);
    Clock::starting_at(0, start, draw_drift(plan, random), draw_skew(plan, random))
}
