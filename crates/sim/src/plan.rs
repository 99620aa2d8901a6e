//! What one seed does to a cluster: its size, its speed, its faults and its liars, drawn before the run begins.
//!
//! Swarm testing (Groce and others, ISSTA 2012): each seed switches each kind of fault on or off by itself, since
//! faults of one kind often hide those of another. A plan is data: it can be printed, changed by hand and run again.

use crate::Random;
use crate::lies::{Bend, Flood};
use unisono_consensus::aphousia::planted::Planted as PlantedRule;
use unisono_scheduler::uds::Planted as PlantedSchedule;
use unisono_scheduler::{Order, Parameters};
use unisono_types::Limits;

/// A second of virtual time.
pub const SECOND: u64 = 1_000_000;
pub(crate) const MILLISECOND: u64 = 1_000;

/// Every 64th seed signs with real Ed25519: as slow as it is, it keeps the keyed tags honest.
pub const ED25519_EVERY: u64 = 64;

/// All that a seed decides beforehand.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed: chance during the run comes from it too.
    pub seed: u64,
    /// n.
    pub replicas: usize,
    /// Real Ed25519 in place of keyed tags.
    pub ed25519: bool,
    /// Which scheduler executes.
    pub schedule: Schedule,
    /// Steps of one leader; 0: until it fails.
    pub rotation: u64,
    /// A Mark takes effect so many decisions, or so many microseconds, behind the one before.
    pub marks: (u64, u64),
    /// The links.
    pub network: NetworkPlan,
    /// Delay of one sync, from and to.
    pub disk: (u64, u64),
    /// What else disks do.
    pub storage: StoragePlan,
    /// Largest skew of a wall clock and largest drift in millionths.
    pub clocks: (u64, u64),
    /// Whether machines learn at once that a link went down or came up.
    pub link_hints: bool,
    /// Who lies, and how.
    pub liars: Vec<LiarPlan>,
    /// What happens when; ascending.
    pub faults: Vec<(u64, Fault)>,
    /// When all faults end. Lying does not.
    pub heal_at: u64,
    /// Logical clients with one operation at a time, for linearizability.
    pub linear_clients: usize,
    /// Clients with many operations at a time, for exactly-once.
    pub busy_clients: usize,
    /// Largest pause of a client between two operations.
    pub think: u64,
    /// Largest delay before a runnable task of an executor takes its next step.
    pub step_delay: u64,
    /// How long the outside takes to answer a call, from and to.
    pub outside: (u64, u64),
    /// Longest pause between two changes of the schedule's parameters; `None`: there is no administrator.
    pub administrator: Option<u64>,
    /// Whether clients ask for everything that a service can do, or only for what could be done before children, tries,
    /// permits, outside calls and declarations were there: the seeds that failed then must go on doing the same.
    pub everything: bool,
    /// Whether clients with one operation at a time only write: nothing that they ask for waits inside the service.
    pub plain: bool,
    /// Sizes that the cluster allows.
    pub limits: Limits,
    /// Large operations: how many each busy client asks for.
    pub large: u64,
    /// How many of 1 000 of its operations are large until then.
    pub large_permille: u64,
    /// How fast machines work and links carry.
    pub speed: SpeedPlan,
    /// Whether clients ask for something new when everything has healed.
    pub after_calm: bool,
    /// A bug that is switched on to see whether it is found.
    pub planted: Option<Planted>,
}

/// Wrong rules that can be switched on: one that the checkers do not find shows a hole in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// Of agreement.
    Agreement(PlantedRule),
    /// Of the scheduler.
    Schedule(PlantedSchedule),
    /// Answers of the register and replies leave before the disk has what they rest on.
    AnswersBeforeSync,
    /// A register whose log does not fit its mark speaks all the same.
    AmnesiaForgiven,
    /// A register votes for two blocks at one place.
    RegisterVotesTwice,
}

impl Planted {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let schedule =
            [PlantedSchedule::ArrivalOrder, PlantedSchedule::TryWithoutSlot, PlantedSchedule::SpawnWithoutSlot];
        PlantedRule::ALL.into_iter().map(Self::Agreement).chain(schedule.into_iter().map(Self::Schedule)).chain([
            Self::AnswersBeforeSync,
            Self::AmnesiaForgiven,
            Self::RegisterVotesTwice,
        ])
    }

    /// Its name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agreement(rule) => rule.name(),
            Self::Schedule(PlantedSchedule::TryWithoutSlot) => "try-without-turn",
            Self::Schedule(PlantedSchedule::SpawnWithoutSlot) => "spawn-without-turn",
            Self::Schedule(_) => "lock-granted-in-arrival-order",
            Self::AnswersBeforeSync => "answers-before-sync",
            Self::AmnesiaForgiven => "amnesia-forgiven",
            Self::RegisterVotesTwice => "register-votes-twice",
        }
    }

    /// The rule that it breaks.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Agreement(rule) => rule.rule(),
            Self::Schedule(PlantedSchedule::TryWithoutSlot) => "a try is answered in its thread's turn",
            Self::Schedule(PlantedSchedule::SpawnWithoutSlot) => "a child is born in its parent's turn",
            Self::Schedule(_) => "a lock is granted in the order of turns",
            Self::AnswersBeforeSync => "an answer leaves when what it rests on is durable",
            Self::AmnesiaForgiven => "a register key that has spoken never starts from less",
            Self::RegisterVotesTwice => "a register signs one vote per view and step",
        }
    }

    /// The wrong rule of the scheduler, if it is one.
    #[must_use]
    pub const fn of_schedule(self) -> Option<PlantedSchedule> {
        match self {
            Self::Schedule(rule) => Some(rule),
            _ => None,
        }
    }
}

/// Which scheduler executes requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Schedule {
    /// One request after the other.
    Sequential,
    /// UDS.
    Uds(Parameters),
}

/// Failures of disks until everything heals. A process whose disk fails ends, and is started again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoragePlan {
    /// Groups whose write fails: their sync, for lack of room, or by a loss of power between two operations.
    pub fails: u64,
}

/// The links of a cluster.
#[derive(Clone, Debug)]
pub struct NetworkPlan {
    /// Messages lost.
    pub loss_permille: u64,
    /// Messages doubled.
    pub duplication_permille: u64,
    /// Least time on the way.
    pub delay_min: u64,
    /// Usual greatest time on the way.
    pub delay_max: u64,
    /// Messages that are much later.
    pub straggler_permille: u64,
    /// How much later at the most.
    pub straggler_delay: u64,
    /// Whether messages of one link overtake each other.
    pub reorder: bool,
}

impl NetworkPlan {
    /// A network without faults.
    #[must_use]
    pub const fn calm() -> Self {
        Self {
            loss_permille: 0,
            duplication_permille: 0,
            delay_min: 50,
            delay_max: 150,
            straggler_permille: 0,
            straggler_delay: 0,
            reorder: false,
        }
    }
}

/// How long machines take for what they do, and how much links carry. All 0: no time, and as much as there is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SpeedPlan {
    /// Nanoseconds for whatever a replica handles.
    pub input: u64,
    /// Nanoseconds for one signature that it checks.
    pub signature: u64,
    /// Nanoseconds for 1 024 bytes that it is given.
    pub kibibyte: u64,
    /// Bytes that a link of a replica carries in a millisecond; 0: as many as there are.
    pub bandwidth: u64,
    /// Replicas that are ten times slower, as a set of bits.
    pub slow: u64,
    /// Only links between replicas are narrow.
    pub clients_near: bool,
}

/// How much slower a slow replica is.
pub(crate) const SLOWNESS: u64 = 10;

impl SpeedPlan {
    /// Nanoseconds that `replica` takes for one input.
    #[must_use]
    pub const fn cost(&self, replica: usize, signatures: u64, bytes: usize) -> u64 {
        let cost = self.input + signatures * self.signature + bytes as u64 * self.kibibyte / 1_024;
        if self.is_slow(replica) { cost * SLOWNESS } else { cost }
    }

    /// What the links of `replica` carry in a millisecond; 0: as much as there is.
    #[must_use]
    pub const fn bandwidth(&self, replica: usize) -> u64 {
        if self.is_slow(replica) { self.bandwidth.div_ceil(SLOWNESS) } else { self.bandwidth }
    }

    const fn is_slow(&self, replica: usize) -> bool {
        self.slow & (1 << replica) != 0
    }
}

/// One thing that goes wrong. Each ends by itself or when everything heals.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Power loss: what was not synced is gone.
    Crash {
        /// Who, as a set of bits.
        replicas: u64,
        /// For how long.
        down: u64,
    },
    /// Power loss, and whoever starts it again gives it an older copy of its log, or none.
    LoseLog {
        /// Whose.
        replica: usize,
        /// A copy made when it was started before; else the directory is empty.
        older: bool,
        /// For how long it is down.
        down: u64,
    },
    /// Somebody copies the log of a replica, also while it runs.
    CopyLog {
        /// Whose.
        replica: usize,
    },
    /// As by SIGKILL, and whoever starts it again puts that copy back.
    PutBack {
        /// Whose.
        replica: usize,
        /// For how long it is down.
        down: u64,
    },
    /// As by SIGSTOP: nothing is lost, everything comes late.
    Pause {
        /// Who.
        replica: usize,
        /// For how long.
        length: u64,
    },
    /// Nothing goes from one side to the other.
    Partition {
        /// One side, as a set of bits over all machines.
        side: u64,
        /// Only from this side to the other, not back.
        one_way: bool,
        /// For how long.
        length: u64,
    },
    /// A link holds everything back.
    Clog {
        /// From.
        from: usize,
        /// To.
        to: usize,
        /// For how long.
        length: u64,
    },
    /// A machine's links get slow.
    SlowLinks {
        /// Which machine.
        node: usize,
        /// By how much.
        delay: u64,
        /// For how long.
        length: u64,
    },
    /// A replica's disk gets slow.
    SlowDisk {
        /// Whose.
        replica: usize,
        /// By how much.
        delay: u64,
        /// For how long.
        length: u64,
    },
    /// Somebody sets a wall clock.
    WallClock {
        /// Whose.
        replica: usize,
        /// So far ahead.
        skew: i64,
    },
    /// Wall clocks jump, and jump back when it ends.
    ClockJump {
        /// Whose, as a set of bits.
        replicas: u64,
        /// By how much.
        by: i64,
        /// For how long; 0: they stay there.
        length: u64,
    },
    /// Every message between machines takes this much longer.
    SlowNetwork {
        /// By how much.
        delay: u64,
        /// For how long.
        length: u64,
    },
    /// A client's process ends and starts anew, with a new session.
    ClientCrash {
        /// Which client, from 0.
        client: usize,
    },
}

/// One Byzantine replica. Every habit is a chance in 1 000, drawn for each occasion.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LiarPlan {
    /// Which replica.
    pub replica: usize,
    /// Runs two cores on one register: each says its own to its half of the peers, so blocks of two contents,
    /// conflicting wishes and two histories leave one machine.
    pub twins: bool,
    /// Says nothing to some peer for a while.
    pub silent: u64,
    /// Says it late.
    pub slow: u64,
    /// Flips bytes in what it says.
    pub corrupts: u64,
    /// Says again what it, or others, said long ago.
    pub replays: u64,
    /// Says what it says to one peer to another one.
    pub misdirects: u64,
    /// Changes what its own messages claim, well-formed, signed with its own keys.
    pub forges: u64,
    /// Has its register vote for garbage and run ahead of the views.
    pub abuses_register: u64,
    /// Answers clients wrongly.
    pub wrong_replies: u64,
    /// Answers no client, so that each asks all replicas.
    pub mute: bool,
    /// Says of the outside what it did not say.
    pub misquotes: u64,
    /// Its cores take what the register refuses as granted, and are made anew when they have lost the thread: it goes
    /// on voting, leading and lying from a position of trust for the whole run.
    pub keeps_seat: bool,
    /// Until then it neither ignores a client nor drags, and its clock is right: others have got used to it.
    pub behaves_until: u64,
    /// How often it strikes by itself, in microseconds.
    pub interval: u64,
    /// Certifies something else than its core asks for.
    pub bends: u64,
    /// In which ways, as a set of bits over [`Bend::ALL`].
    pub bend_kinds: u64,
    /// Votes for something that nobody has before it leaves a view.
    pub hides: u64,
    /// Shows the certificate of a block of its own to a peer, and not the block.
    pub withholds: u64,
    /// Ignores this client: what it says itself, and what others forward of it.
    pub censors: Option<usize>,
    /// Ignores frames of any client: what is left is proposed, so that it leads, a little.
    pub ignores: u64,
    /// Says everything so much later, in order: up to just below a time-out.
    pub drags: u64,
    /// How it feeds who asks for blocks.
    pub feeds: Feeding,
    /// What it floods its peers with, and how many messages each time it strikes.
    pub floods: Option<(Flood, u64)>,
    /// Its clock is now here, now there, at the edges of what others tolerate.
    pub pushes_time: bool,
    /// Its wall clock runs at so many thousandths of its speed: as a leader it holds agreed time back.
    pub clock_permille: Option<u64>,
    /// Wishes for every next view, and its links go down and up.
    pub deposes: bool,
}

/// How a liar feeds who asks it for blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Feeding {
    /// As its core does.
    #[default]
    Honest,
    /// So late that the question is almost given up.
    Late,
    /// With what is true and old, again and again.
    Stale,
    /// With signatures and certificates that do not hold, under hashes that do.
    Tampered,
    /// Not at all, and it claims to be far ahead.
    Starving,
}

impl LiarPlan {
    /// The bends that it knows.
    #[must_use]
    pub fn bends(&self) -> Vec<Bend> {
        let known = |(index, bend): (usize, Bend)| (self.bend_kinds & (1 << index) != 0).then_some(bend);
        Bend::ALL.into_iter().enumerate().filter_map(known).collect()
    }

    /// The strategies that it follows, by name.
    #[must_use]
    pub fn strategies(&self) -> Vec<&'static str> {
        let feeding = match self.feeds {
            Feeding::Honest => None,
            Feeding::Late => Some("feeds-late"),
            Feeding::Stale => Some("feeds-stale"),
            Feeding::Tampered => Some("accuses"),
            Feeding::Starving => Some("starves"),
        };
        let named = [
            (self.bends > 0, "bends"),
            (self.hides > 0, "hides"),
            (self.withholds > 0, "withholds"),
            (self.censors.is_some(), "censors"),
            (self.ignores > 0, "ignores"),
            (self.drags > 0, "drags"),
            (self.mute, "mute"),
            (self.floods.is_some(), "floods"),
            (self.pushes_time, "pushes-time"),
            (self.clock_permille.is_some(), "holds-time"),
            (self.deposes, "deposes"),
        ];
        named.into_iter().filter_map(|(follows, name)| follows.then_some(name)).chain(feeding).collect()
    }
}

impl Plan {
    /// A cluster without any fault, for scripted use: services in tests.
    #[must_use]
    pub fn calm(seed: u64, replicas: usize) -> Self {
        Self {
            seed,
            replicas,
            ed25519: false,
            schedule: Schedule::Uds(parameters(4, 4, Order::RoundRobin, 16)),
            rotation: 0,
            marks: (4_096, 5 * SECOND),
            network: NetworkPlan::calm(),
            disk: (50, 150),
            storage: StoragePlan::default(),
            clocks: (0, 0),
            link_hints: true,
            liars: Vec::new(),
            faults: Vec::new(),
            heal_at: 0,
            linear_clients: 0,
            busy_clients: 0,
            think: 0,
            step_delay: 20,
            outside: (100, 1_000),
            administrator: None,
            everything: false,
            plain: false,
            limits: Limits::default(),
            large: 0,
            large_permille: 40,
            speed: SpeedPlan::default(),
            after_calm: false,
            planted: None,
        }
    }

    /// The plan of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        crate::focus::plan(seed).unwrap_or_else(|| Self::hard(seed))
    }

    /// The plan that a seed had before some got a theme.
    #[must_use]
    pub fn hard(seed: u64) -> Self {
        let mut plan = Self::wide(seed);
        plan.harden(&mut Random::new(seed ^ 0x6861_7264));
        plan.spoil_disks(&mut Random::new(seed ^ 0x6469_736b));
        plan.put_back(&mut Random::new(seed ^ 0x636f_7079));
        plan
    }

    /// The plan that a seed had before liars kept their seats: what failed then is run as it was.
    #[must_use]
    pub fn wide(seed: u64) -> Self {
        let mut plan = Self::narrow(seed);
        plan.extend(&mut Random::new(seed ^ 0x6561_7665_7279));
        plan
    }

    /// The plan that a seed had when clients asked for less: what failed then is run as it was.
    #[must_use]
    pub fn narrow(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x756e_6973_6f6e_6f00);
        let r = &mut random;
        let replicas = r.pick(&[3, 3, 3, 3, 4, 5, 5, 6, 7]);
        let mut plan = Self::calm(seed, replicas);
        plan.ed25519 = seed.is_multiple_of(ED25519_EVERY);
        plan.schedule = schedule(r);
        plan.rotation = r.pick(&[0, 0, 1, 2, 7, 100]);
        plan.marks = r.pick(&[(4_096, 5 * SECOND), (5, SECOND / 2), (40, SECOND), (200, 2 * SECOND)]);
        plan.network = network(r);
        plan.disk = r.pick(&[(20, 80), (100, 400), (500, 3_000), (1_000, 20_000)]);
        plan.clocks = r.pick(&[(0, 0), (5_000, 100), (200_000, 500), (2 * SECOND, 900)]);
        plan.link_hints = r.chance(500);
        plan.heal_at = r.between(2 * SECOND, 7 * SECOND);
        plan.linear_clients = r.between(2, 5) as usize;
        plan.busy_clients = r.between(1, 2) as usize;
        plan.think = r.pick(&[10 * MILLISECOND, 50 * MILLISECOND, 200 * MILLISECOND]);
        plan.step_delay = r.pick(&[5, 50, 1_000]);
        plan.liars = liars(r, replicas);
        plan.faults = faults(r, &plan);
        plan
    }

    /// What was thought of later, drawn apart: nothing before it changes.
    fn extend(&mut self, r: &mut Random) {
        self.everything = true;
        self.outside = r.pick(&[(100, MILLISECOND), (MILLISECOND, 50 * MILLISECOND), (10 * MILLISECOND, 2 * SECOND)]);
        self.administrator = r.pick(&[None, Some(20 * MILLISECOND), Some(300 * MILLISECOND)]);
        for liar in &mut self.liars {
            liar.misquotes = if r.chance(700) { r.between(1, 1_000) } else { 0 };
        }
    }

    /// Liars that are dangerous, drawn apart once more.
    fn harden(&mut self, r: &mut Random) {
        let clients = self.linear_clients + self.busy_clients;
        for liar in &mut self.liars {
            harden(r, liar, clients);
            // Real signatures are there to be checked, a few of each kind, not by the thousand.
            liar.floods = liar.floods.filter(|_| !self.ed25519);
        }
        self.after_calm = true;
        self.speed = speed(r, self.replicas);
        self.clock_trouble(r);
        self.large_values(r);
        self.long_trouble(r);
        self.faults.sort_by_key(|(at, _)| *at);
    }

    /// Disks fail, and where a replica more may be faulty one loses its log.
    fn spoil_disks(&mut self, r: &mut Random) {
        if r.chance(300) {
            self.storage.fails = r.pick(&[2, 10, 50]);
        }
        if !self.leaves_room_for_a_fault() || !r.chance(250) {
            return;
        }
        let replica = self.pick_correct(r);
        let down = r.between(20 * MILLISECOND, SECOND);
        // A first crash, so that there is an older copy.
        let first = r.between(SECOND / 2, self.heal_at / 2);
        let second = r.between(self.heal_at / 2, self.heal_at - 1);
        self.faults.push((first, Fault::Crash { replicas: 1 << replica, down }));
        self.faults.push((second, Fault::LoseLog { replica, older: r.chance(500), down }));
        self.faults.sort_by_key(|(at, _)| *at);
    }

    /// Likewise, but the log that is put back may be of the same run of the process.
    fn put_back(&mut self, r: &mut Random) {
        let loses = |(_, fault): &(u64, Fault)| matches!(fault, Fault::LoseLog { .. });
        if !self.leaves_room_for_a_fault() || self.faults.iter().any(loses) || !r.chance(200) {
            return;
        }
        let replica = self.pick_correct(r);
        let copied = r.between(1, self.heal_at - 2);
        let ended = (copied + r.pick(&[MILLISECOND, 20 * MILLISECOND, SECOND, 7 * SECOND])).min(self.heal_at - 1);
        let down = r.between(20 * MILLISECOND, SECOND);
        self.faults.extend([(copied, Fault::CopyLog { replica }), (ended, Fault::PutBack { replica, down })]);
        self.faults.sort_by_key(|(at, _)| *at);
    }

    /// Whether one more replica may be faulty.
    fn leaves_room_for_a_fault(&self) -> bool {
        let misled = |(_, fault): &&(u64, Fault)| matches!(fault, Fault::ClockJump { by, .. } if *by > 0);
        self.liars.len() + self.faults.iter().filter(misled).count() < faulty(self.replicas)
    }

    fn pick_correct(&self, r: &mut Random) -> usize {
        let correct: Vec<usize> = (0..self.replicas).filter(|replica| !self.is_liar(*replica)).collect();
        r.pick(&correct)
    }

    /// Clocks that are set, by an administrator or by a time server that was wrong.
    fn clock_trouble(&mut self, r: &mut Random) {
        if !r.chance(200) {
            return;
        }
        let (all, one) = ((1 << self.replicas) - 1, 1 << r.index(self.replicas));
        let at = r.between(self.heal_at / 5, self.heal_at / 2);
        let short = r.between(self.heal_at / 10, self.heal_at / 3);
        let (second, day) = (SECOND as i64, 86_400 * SECOND as i64);
        // A correct replica that certified blocks of tomorrow is as faulty as a liar while these are undecided, also when
        // its clock is right again: no base may stand on them, and none may leave them out without q others.
        let day = if self.liars.len() < faulty(self.replicas) { day } else { -60 * second };
        let (replicas, by, length) = r.pick(&[
            (all, -5 * second, 0),
            (all, -60 * second, 0),
            (all, -600 * second, 0),
            (one, -600 * second, 0),
            (one, day, short),
            (all, day, short),
        ]);
        self.faults.push((at, Fault::ClockJump { replicas, by, length }));
    }

    /// Values up to the greatest: of a small cluster-wide limit in some seeds, of the real one in few.
    fn large_values(&mut self, r: &mut Random) {
        const MIB: u32 = 1 << 20;
        match r.below(100) {
            0 if !self.ed25519 => self.large = 2,
            1..=8 => {
                (self.limits.operation_bytes, self.limits.frame_bytes) = (2 * MIB, 5 * MIB / 2);
                self.limits.block_bytes = 3 * MIB;
                self.large = r.between(2, 5);
            }
            _ => {}
        }
    }

    /// Minutes in which messages take seconds, or in which liars go about their business.
    fn long_trouble(&mut self, r: &mut Random) {
        let minute = 60 * SECOND;
        let (delay, length) = match r.below(200) {
            0 => (6 * SECOND, 20 * minute),
            1..=5 => (r.between(2 * SECOND, 6 * SECOND), r.between(minute, 3 * minute)),
            6..=8 => (0, r.between(minute, 2 * minute)),
            _ => return,
        };
        if self.ed25519 {
            return;
        }
        if delay > 0 {
            self.faults.push((self.heal_at - 1, Fault::SlowNetwork { delay, length }));
        }
        self.heal_at += length;
        self.think = self.think.max(2 * SECOND);
        self.administrator = self.administrator.map(|pause| pause.max(5 * SECOND));
        for liar in &mut self.liars {
            liar.interval *= 20;
        }
    }

    /// Whether links and disks are in order, and clocks near each other: replicas decide within milliseconds, whatever
    /// liars do, and whomever clients reach.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        let of_client = |fault: &Fault| matches!(fault, Fault::Clog { from, .. } if *from >= self.replicas);
        self.is_in_order() && self.faults.iter().all(|(_, fault)| of_client(fault))
    }

    /// Whether nothing is wrong but that every message takes long.
    #[must_use]
    pub fn is_far(&self) -> bool {
        let far = |fault: &Fault| matches!(fault, Fault::SlowNetwork { .. });
        self.is_in_order() && !self.faults.is_empty() && self.faults.iter().all(|(_, fault)| far(fault))
    }

    fn is_in_order(&self) -> bool {
        let NetworkPlan { loss_permille, straggler_permille, delay_max, .. } = self.network;
        let in_order = loss_permille == 0 && straggler_permille == 0 && delay_max <= MILLISECOND;
        let fast = self.disk.1 <= MILLISECOND && self.storage.fails == 0 && self.speed.slow == 0;
        in_order && fast && self.clocks.0 < SECOND / 4
    }

    /// Within how long everything outstanding must be done when everything has healed, or when it is asked for later.
    #[must_use]
    pub fn liveness_limit(&self) -> u64 {
        let stretched = |(_, fault): &(u64, Fault)| matches!(fault, Fault::SlowNetwork { .. });
        let slow = self.speed.slow != 0 || self.large > 0 || self.faults.iter().any(stretched);
        if slow { 3 * crate::LIVENESS_LIMIT } else { crate::LIVENESS_LIMIT }
    }

    /// Whether agreed time may have moved so far that idle sessions end.
    #[must_use]
    pub fn sessions_may_end(&self) -> bool {
        let idle = self.limits.session_idle as i64;
        self.faults.iter().any(|(_, fault)| matches!(fault, Fault::ClockJump { by, .. } if *by >= idle))
    }

    /// Machines: replicas and clients.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.replicas + self.linear_clients + self.busy_clients
    }

    /// Whether this replica lies.
    #[must_use]
    pub fn is_liar(&self, replica: usize) -> bool {
        self.liars.iter().any(|liar| liar.replica == replica)
    }
}

/// f.
const fn faulty(replicas: usize) -> usize {
    replicas - (replicas / 2 + 1)
}

fn parameters(primaries: u32, steps: u32, order: Order, flush_rounds: u32) -> Parameters {
    Parameters { primaries, steps, order, flush_rounds, ..Parameters::uds() }
}

fn schedule(r: &mut Random) -> Schedule {
    if r.chance(250) {
        return Schedule::Sequential;
    }
    let primaries = r.pick(&[1, 2, 3, 4, 8, 32]);
    let steps = r.pick(&[1, 1, 2, 4, u32::MAX]);
    let order = match r.below(3) {
        0 => Order::RoundRobin,
        1 => Order::Quantum(r.between(1, 4) as u32),
        _ => {
            let mut slots: Vec<u16> = (0..primaries as u16).chain(0..(primaries / 2) as u16).collect();
            r.shuffle(&mut slots);
            Order::Explicit(slots)
        }
    };
    Schedule::Uds(parameters(primaries, steps, order, r.pick(&[1, 2, 16])))
}

fn network(r: &mut Random) -> NetworkPlan {
    let often = |r: &mut Random, limit: u64| if r.chance(500) { r.below(limit + 1) } else { 0 };
    let (delay_min, delay_max) = r.pick(&[(20, 100), (100, 500), (500, 5_000), (1_000, 40_000)]);
    NetworkPlan {
        loss_permille: often(r, 300),
        duplication_permille: often(r, 500),
        delay_min,
        delay_max,
        straggler_permille: often(r, 50),
        straggler_delay: r.pick(&[10 * MILLISECOND, 100 * MILLISECOND, SECOND]),
        reorder: r.chance(500),
    }
}

/// Up to f liars, in half of the seeds.
fn liars(r: &mut Random, replicas: usize) -> Vec<LiarPlan> {
    let faulty = replicas - (replicas / 2 + 1);
    let count = if r.chance(500) { r.between(1, faulty as u64) as usize } else { 0 };
    let mut chosen: Vec<usize> = (0..replicas).collect();
    r.shuffle(&mut chosen);
    chosen.truncate(count);
    chosen.sort_unstable();
    chosen.into_iter().map(|replica| liar(r, replica)).collect()
}

fn liar(r: &mut Random, replica: usize) -> LiarPlan {
    let habit = |r: &mut Random, limit: u64| if r.chance(350) { r.between(1, limit) } else { 0 };
    LiarPlan {
        replica,
        twins: r.chance(400),
        silent: if r.chance(150) { 1_000 } else { habit(r, 500) },
        slow: habit(r, 500),
        corrupts: habit(r, 200),
        replays: habit(r, 300),
        misdirects: habit(r, 300),
        forges: habit(r, 500),
        abuses_register: habit(r, 30),
        wrong_replies: habit(r, 1_000),
        ..LiarPlan::default()
    }
}

/// Machines that are fast, slow, all of them very slow, or one of them; links likewise.
fn speed(r: &mut Random, replicas: usize) -> SpeedPlan {
    let fast =
        SpeedPlan { input: 2_000, signature: 25_000, kibibyte: 1_000, bandwidth: 125_000, ..SpeedPlan::default() };
    let everybody = (1 << replicas) - 1;
    match r.below(10) {
        0..=3 => SpeedPlan::default(),
        4..=6 => fast,
        7 => SpeedPlan { bandwidth: 12_500, signature: 60_000, input: 5_000, ..fast },
        8 => SpeedPlan { slow: everybody, ..fast },
        _ => SpeedPlan { slow: 1 << r.index(replicas), ..fast },
    }
}

/// Strategies on top of its habits; each by chance, most liars with one to three of them.
fn harden(r: &mut Random, liar: &mut LiarPlan, clients: usize) {
    liar.keeps_seat = true;
    liar.interval = r.pick(&[10, 20, 50, 100]) * MILLISECOND;
    // Who never speaks is tried in every other plan; here it speaks.
    liar.silent = liar.silent.min(100);
    let sometimes = |r: &mut Random, limit: u64| if r.chance(250) { r.between(1, limit) } else { 0 };
    liar.bends = if r.chance(400) { r.pick(&[20, 100, 400, 1_000]) } else { 0 };
    liar.bend_kinds = r.next_u64() & r.next_u64() | 1 << r.index(Bend::ALL.len());
    liar.hides = sometimes(r, 1_000);
    liar.withholds = sometimes(r, 1_000);
    liar.censors = r.chance(150).then(|| r.index(clients));
    liar.ignores = if r.chance(150) { r.between(500, 990) } else { 0 };
    liar.drags = if r.chance(200) { r.between(10, 140) * MILLISECOND } else { 0 };
    liar.feeds = r.pick(&[
        Feeding::Honest,
        Feeding::Honest,
        Feeding::Honest,
        Feeding::Late,
        Feeding::Stale,
        Feeding::Tampered,
        Feeding::Starving,
    ]);
    liar.floods = r.chance(250).then(|| (r.pick(&Flood::ALL), r.pick(&[1, 2, 5])));
    liar.pushes_time = r.chance(200);
    liar.deposes = r.chance(150);
}

fn faults(r: &mut Random, plan: &Plan) -> Vec<(u64, Fault)> {
    let (replicas, nodes) = (plan.replicas, plan.nodes());
    let mut kinds: Vec<u32> = (0..9).filter(|_| r.chance(450)).collect();
    r.shuffle(&mut kinds);
    let interval = r.pick(&[100 * MILLISECOND, 400 * MILLISECOND, 1_500 * MILLISECOND]);
    let mut faults = Vec::new();
    let mut at = 0;
    while !kinds.is_empty() {
        at += r.between(1, 2 * interval);
        if at >= plan.heal_at {
            break;
        }
        let length = r.pick(&[20 * MILLISECOND, 200 * MILLISECOND, SECOND, 3 * SECOND]);
        let replica = r.index(replicas);
        let fault = match r.pick(&kinds) {
            0 => Fault::Crash { replicas: 1 << replica, down: length },
            1 => Fault::Crash { replicas: r.below(1 << replicas), down: length },
            2 => Fault::Pause { replica, length },
            3 => Fault::Partition { side: r.below(1 << nodes), one_way: r.chance(300), length },
            4 => Fault::Clog { from: r.index(nodes), to: r.index(nodes), length: r.between(1, 5 * SECOND) },
            5 => Fault::SlowLinks { node: r.index(nodes), delay: r.between(MILLISECOND, 200 * MILLISECOND), length },
            6 => Fault::SlowDisk { replica, delay: r.between(MILLISECOND, 300 * MILLISECOND), length },
            7 => Fault::WallClock { replica, skew: r.below(4 * SECOND) as i64 - 2 * SECOND as i64 },
            _ => Fault::ClientCrash { client: r.index(nodes - replicas) },
        };
        faults.push((at, fault));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_of_earlier_seeds_keep_their_meaning() {
        for seed in 0..200 {
            let (wide, hard) = (Plan::wide(seed), Plan::hard(seed));
            let liars = |plan: &Plan| plan.liars.iter().map(|liar| (liar.replica, liar.twins)).collect::<Vec<_>>();
            assert_eq!((wide.replicas, liars(&wide)), (hard.replicas, liars(&hard)));
            assert!(wide.liars.iter().all(|liar| liar.strategies().is_empty() && !liar.keeps_seat));
            assert!(wide.faults.iter().all(|fault| hard.faults.contains(fault)));
        }
    }

    #[test]
    fn the_swarm_reaches_every_size_every_fault_and_every_habit_within_its_bounds() {
        let plans: Vec<Plan> = (0..1_000).map(Plan::of_seed).collect();
        for size in 3..=7 {
            assert!(plans.iter().any(|plan| plan.replicas == size));
        }
        for plan in &plans {
            let faulty = plan.replicas - (plan.replicas / 2 + 1);
            assert!(plan.liars.len() <= faulty && plan.nodes() <= crate::network::NODES_MAX);
            assert!(plan.network.loss_permille <= 300 && plan.network.duplication_permille <= 500);
            assert!(plan.faults.is_sorted_by_key(|(at, _)| *at));
            assert!(plan.faults.last().is_none_or(|(at, _)| *at < plan.heal_at));
        }
        let any = |what: fn(&Plan) -> bool| plans.iter().any(what);
        assert!(any(|plan| plan.liars.iter().any(|liar| liar.twins)));
        assert!(any(|plan| plan.liars.is_empty() && plan.faults.is_empty()));
        assert!(any(|plan| plan.faults.iter().any(|(_, fault)| matches!(fault, Fault::ClientCrash { .. }))));
        assert!(any(|plan| plan
            .faults
            .iter()
            .any(|(_, fault)| matches!(fault, Fault::Partition { one_way: true, .. }))));
        assert!(any(|plan| plan.schedule == Schedule::Sequential) && any(|plan| plan.ed25519));
        for name in [
            "bends",
            "hides",
            "withholds",
            "censors",
            "ignores",
            "drags",
            "floods",
            "pushes-time",
            "deposes",
            "feeds-late",
            "feeds-stale",
            "accuses",
            "starves",
        ] {
            assert!(plans.iter().flat_map(|plan| &plan.liars).any(|liar| liar.strategies().contains(&name)), "{name}");
        }
        for (index, bend) in Bend::ALL.into_iter().enumerate() {
            let drawn =
                |plan: &Plan| plan.liars.iter().any(|liar| liar.bends > 0 && liar.bend_kinds & (1 << index) != 0);
            assert!(plans.iter().any(drawn), "{bend:?}");
        }
        let jump = |by: i64| {
            move |plan: &&Plan| {
                plan.faults.iter().any(|(_, fault)| matches!(fault, Fault::ClockJump { by: drawn, .. } if *drawn == by))
            }
        };
        for seconds in [-5, -60, -600, 86_400] {
            assert!(plans.iter().any(|plan| jump(seconds * SECOND as i64)(&plan)), "{seconds} s");
        }
        assert!(any(|plan| plan.limits.operation_bytes == Limits::default().operation_bytes && plan.large > 0));
        assert!(any(|plan| plan.limits.operation_bytes < 4 << 20) && any(|plan| plan.heal_at > 1_200 * SECOND));
        assert!(any(|plan| plan.speed.slow.count_ones() == 1) && any(|plan| plan.speed == SpeedPlan::default()));
        assert!(any(|plan| plan.speed.slow.count_ones() as usize == plan.replicas));
    }
}
