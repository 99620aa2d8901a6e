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

mod bounds;
mod effects;
mod event;
mod faults;
mod inbox;
mod lies;
mod storage;
mod stress;

use self::bounds::Bounds;
use self::event::{Event, Scheduled};
use self::inbox::Inbox;
use self::storage::Store;
use crate::core::{Actor, ActorEffect, ActorInput, Core, Effect, Factory, Input, Moment, Progress};
use crate::{Checker, Clock, Counts, Disk, Liar, Network, Plan, Planted, Property, Random, Seat, Trace};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use unisono_trusted::RegisterState;
use unisono_types::{Bytes, CallId, RegisterId, RegisterView, ReplicaId, Signer, Step};

/// What is outstanding when everything heals, or is asked for later, must be done within this long.
pub const LIVENESS_LIMIT: u64 = 10 * crate::plan::SECOND;

/// How often the world looks whether everything is done.
const WATCH_INTERVAL: u64 = 2_000;

/// The most events of a run: one that takes more goes round in circles.
const EVENTS_MAX: u64 = 20_000_000;

/// One in so many steps of tasks, somebody changes how many handlers may run ahead, below the second figure.
const TUNED_EVERY: u64 = 64;
const START_AHEAD_MAX: usize = 70;

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
    /// When a correct replica last decided something new.
    decided_at: u64,
    /// Agreed time, as far as a correct replica has executed it.
    agreed: u64,
    /// See [`Plan::is_calm`].
    is_calm: bool,
    bounds: Bounds,
    /// Until when the newest notice of a link is under way, by node and replica.
    noticed: BTreeMap<(usize, usize), u64>,
    /// When the newest message that comes in pieces is there, by sender and receiver.
    announced: BTreeMap<(usize, usize), u64>,
    /// The greatest that a correct clock read before it was set, and when that was.
    greatest_clock: (u64, u64),
    /// Who sent what is handled just now, if that is a replica.
    speaker: Option<usize>,
    /// Signatures checked so far.
    checked: Arc<AtomicU64>,
    effects: Vec<Effect>,
    actor_effects: Vec<ActorEffect>,
}

/// A replica's machine.
struct Host {
    clock: Clock,
    disk: Disk,
    disk_slowness: u64,
    stores: Vec<Store>,
    register: Seat,
    /// The registers of the cores, in their order: clones of `register`.
    seats: Vec<Seat>,
    identity: (RegisterId, Signer),
    /// Where its register stood with the newest of its statements that left it.
    spoken: (RegisterView, Step),
    /// Its register is silent, since its log was lost.
    lost: bool,
    /// What its log was at its newest start, and at the one before.
    newest: BTreeMap<String, Vec<u8>>,
    older: BTreeMap<String, Vec<u8>>,
    /// What somebody keeps of it.
    copy: BTreeMap<String, Vec<u8>>,
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
    /// Where its register stood when that was last looked at.
    stood: RegisterState,
    /// When its register last signed something that a liar asked for.
    spoke: u64,
    /// When its cores were made.
    seated: u64,
    /// How far its wall clock has jumped.
    jumped: i64,
    /// Until when it works on what it was given.
    busy_until: u64,
    /// Nanoseconds of work below a microsecond.
    rest_of_work: u64,
    /// What waits until then.
    inbox: Inbox,
    /// A [`Event::Free`] is scheduled.
    waking: bool,
    /// Outside calls that it asked and was not answered, with the life in which it did.
    asked: BTreeMap<CallId, u64>,
}

/// A client's machine.
struct Machine {
    clock: Clock,
    actor: Box<dyn Actor>,
    timer: u64,
    life: u64,
}

/// Everything that a world starts with besides its plan.
pub struct Parts {
    /// Makes replicas.
    pub factory: Box<dyn Factory>,
    /// Identity and key of each replica's register.
    pub registers: Vec<(RegisterId, Signer)>,
    /// The clients.
    pub actors: Vec<Box<dyn Actor>>,
    /// Counts the signatures that anybody checks.
    pub checked: Arc<AtomicU64>,
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
            let votes_twice = plan.planted == Some(Planted::RegisterVotesTwice);
            let liar = liar.map(|liar| Liar::new(*liar, plan.replicas, random.fork()));
            Host::new(clock, identity, liar, votes_twice)
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
            decided_at: 0,
            agreed: 0,
            is_calm: plan.is_calm(),
            bounds: Bounds::new(plan.replicas),
            noticed: BTreeMap::new(),
            announced: BTreeMap::new(),
            greatest_clock: (0, 0),
            speaker: None,
            checked: parts.checked,
            effects: Vec::new(),
            actor_effects: Vec::new(),
            random,
            plan,
        };
        for replica in 0..world.plan.replicas {
            world.network.limit(replica, world.plan.speed.bandwidth(replica));
        }
        if world.plan.speed.clients_near {
            world.network.unlimit_from(world.plan.replicas);
        }
        for (index, (at, _)) in world.plan.faults.iter().enumerate() {
            let number = world.scheduled;
            world.scheduled += 1;
            world.queue.push(Reverse(Scheduled { at: *at, number, event: Event::Begin(index) }));
        }
        for replica in 0..world.hosts.len() {
            world.start(replica);
        }
        for replica in 0..world.hosts.len() {
            if world.keeps_seat(replica) {
                world.schedule(0, Event::Act { replica });
            }
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
        counts.ordered = self.checker.kinds().clone();
        counts.view_changes = self.correct().map(|replica| self.progress(replica).view.0).max().map_or(0, u64::from);
        (counts.liars, counts.liars_active) = self.liars();
        counts.faults.loss = self.network.lost;
        counts.faults.duplication = self.network.doubled;
        counts.stress.queued_messages = self.network.queued;
        counts.stress.overflowed_messages = self.network.overflowed;
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
        self.check_patience();
        self.heal();
        for client in 0..self.actors.len() {
            self.client_input(client, ActorInput::Finish);
        }
        while self.checker.violation().is_none() && !self.is_settled() {
            if self.now >= self.awaited_since + self.plan.liveness_limit() {
                let text = self.unfinished();
                self.checker.report(Property::Liveness, text);
                break;
            }
            self.run_until(self.now + WATCH_INTERVAL);
        }
        self.check_agreed_time_follows();
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
                self.checker
                    .report(Property::Liveness, format!("more than {EVENTS_MAX} events: it goes round in circles"));
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
            self.hosts[replica].disk.disarm();
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
        let waiting: Vec<String> =
            waiting.map(|(client, machine)| format!("client {client}: {}", machine.actor.waits_for())).collect();
        let heights = self.correct().map(|replica| {
            let Progress { committed, executed, view } = self.progress(replica);
            let doing = self.hosts[replica].cores.first().map(|core| core.describe()).unwrap_or_default();
            format!("replica {replica}: committed {committed} executed {executed} in {view:?} {doing}")
        });
        format!(
            "not done within {} s of a healed world; {}; {}",
            self.plan.liveness_limit() / 1_000_000,
            waiting.join(", "),
            heights.collect::<Vec<_>>().join(", ")
        )
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
            if host.busy_until > at || !host.inbox.is_empty() {
                self.enqueue(replica, event);
                return;
            }
        }
        self.happen(event);
    }

    fn happen(&mut self, event: Event) {
        let at = self.now;
        if self.is_stale(&event) {
            return;
        }
        if let Event::Free { replica } = event {
            return self.work_off(replica);
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
            Event::Synced { replica, core, .. } => self.synced(replica, core),
            Event::Write { replica, core, .. } => self.write_due(replica, core),
            Event::Step { replica, core, .. } => {
                self.hosts[replica].steps_pending[core] = false;
                let pick = self.random.next_u64();
                if self.plan.everything && (pick >> 32).is_multiple_of(TUNED_EVERY) {
                    self.counts.start_ahead += 1;
                    self.input(replica, core, Input::StartAhead((pick >> 48) as usize % START_AHEAD_MAX));
                }
                self.input(replica, core, Input::Step(pick));
            }
            Event::Inner { replica, core, input, .. } => {
                if let Input::Outside { call, .. } = &*input {
                    self.hosts[replica].asked.remove(call);
                }
                self.input(replica, core, *input);
            }
            Event::ClientTimer { client, .. } => self.client_input(client, ActorInput::Timeout),
            Event::ClientLink { client, replica, up } => {
                self.client_input(client, ActorInput::Link { replica: ReplicaId(replica as u16), up });
            }
            Event::Begin(index) => {
                let fault = self.plan.faults[index].1.clone();
                self.begin(&fault);
            }
            Event::End(fault) => self.end(&fault),
            Event::Act { replica } => self.act(replica),
            Event::Free { .. } => {}
        }
    }

    fn is_stale(&self, event: &Event) -> bool {
        match event {
            Event::ToReplica { replica, .. } => !self.hosts[*replica].up,
            Event::ToClient { client, life, .. } => self.actors[*client].life != *life,
            Event::Timer { replica, core, timer, setting } => {
                self.hosts[*replica].timers.get(&(*core, *timer)) != Some(setting)
            }
            Event::Synced { replica, life, .. }
            | Event::Write { replica, life, .. }
            | Event::Step { replica, life, .. }
            | Event::Inner { replica, life, .. } => {
                let host = &self.hosts[*replica];
                !host.up || host.life != *life
            }
            Event::ClientTimer { client, setting } => self.actors[*client].timer != *setting,
            Event::ClientLink { .. } | Event::Act { .. } | Event::Free { .. } => false,
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
            Event::Synced { replica, core, .. } => (4, *replica, *core as u64),
            Event::Write { replica, core, .. } => (13, *replica, *core as u64),
            Event::Step { replica, core, .. } => (5, *replica, *core as u64),
            Event::Inner { replica, core, .. } => (6, *replica, *core as u64),
            Event::ClientTimer { client, .. } => (7, *client, 0),
            Event::ClientLink { client, replica, up } => (8, *client, (*replica as u64) << 1 | u64::from(*up)),
            Event::Begin(index) => (9, *index, 0),
            Event::End(_) => (10, 0, 0),
            Event::Act { replica } => (11, *replica, 0),
            Event::Free { replica } => (12, *replica, 0),
        };
        self.trace.number(kind << 48 | (who as u64) << 32 | what);
        if self.trace.prints() {
            self.trace.line(self.now, || event.describe(self.plan.replicas, &*self.factory));
        }
    }

    fn deliver(&mut self, replica: usize, from: usize, life: u64, bytes: Bytes) {
        let replicas = self.hosts.len();
        let now = self.now;
        if self.is_ignored(replica, from >= replicas, &bytes) || self.accuses_itself(replica, &bytes) {
            return;
        }
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
        self.speaker = (from < replicas).then_some(from);
        self.input(replica, core, input);
        self.speaker = None;
    }

    fn input(&mut self, replica: usize, core: usize, input: Input) {
        let now = self.now;
        let host = &mut self.hosts[replica];
        let Some(running) = host.cores.get_mut(core) else { return };
        let mut effects = std::mem::take(&mut self.effects);
        if let Some(skew) = host.liar.as_ref().and_then(|liar| liar.skew(now)) {
            host.clock.set_skew(host.jumped + skew);
        }
        let time = host.clock.read(now);
        if host.liar.is_none() {
            let (bytes, before) = (input.bytes(), self.checked.load(Ordering::Relaxed));
            running.handle(time, input, &mut effects);
            let signatures = self.checked.load(Ordering::Relaxed) - before;
            let cost = self.plan.speed.cost(replica, signatures, bytes) + host.rest_of_work;
            host.busy_until = host.busy_until.max(now) + cost / 1_000;
            host.rest_of_work = cost % 1_000;
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
        self.answer_core(replica, core);
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
}

impl Host {
    fn new(clock: Clock, identity: (RegisterId, Signer), liar: Option<Liar>, votes_twice: bool) -> Self {
        let register = Seat::new(identity.0, identity.1.clone(), RegisterState::default(), votes_twice);
        Self {
            clock,
            disk: Disk::default(),
            disk_slowness: 0,
            stores: Vec::new(),
            register,
            seats: Vec::new(),
            identity,
            spoken: (RegisterView(0), Step(0)),
            lost: false,
            newest: BTreeMap::new(),
            older: BTreeMap::new(),
            copy: BTreeMap::new(),
            cores: Vec::new(),
            timers: BTreeMap::new(),
            steps_pending: [false; 2],
            life: 0,
            up: false,
            paused: false,
            backlog: Vec::new(),
            liar,
            stood: RegisterState::default(),
            spoke: 0,
            seated: 0,
            jumped: 0,
            busy_until: 0,
            rest_of_work: 0,
            inbox: Inbox::default(),
            waking: false,
            asked: BTreeMap::new(),
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
