//! Runs scenarios under random timing, one step of one task at a time: which of the running tasks goes next, how many
//! run at once, which begin before they are primary, when the entries of the log arrive, are all chosen by a seed.
//! Watches from outside: owners per lock, results, reports.

use super::program::{Answer, LOCKS, Object, Scenario, Task, Wish, lock_id, random_change};
use super::{Checked, Random, mix};
use crate::{
    Change, Entry, Event, Grant, Lane, LockId, Mode, Operation, OperationResult, RoundReport, Status, ThreadIndex,
};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// An entry of a log, before a host has given it thread indices.
#[derive(Clone, Debug)]
pub enum LogEntry {
    /// Runs this program, decided at this time.
    Request(usize, u64),
    /// Agreed time.
    Tick(u64),
    /// Go on without new requests.
    Flush,
    /// New parameters.
    Reconfigure(Change),
    /// Position, path, call; decided at this time.
    Answer(u64, Vec<u16>, u32, u64),
    /// Close the round and report.
    Mark,
}

/// A run that does not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// Nobody can go on, whatever the log says.
    Hang(Status),
    /// Steps and steps, and no end.
    Livelock(Status),
}

/// Everything that must be the same however a log is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// By lock: who owned it in this order; neighbouring readers in order of id.
    pub owners: BTreeMap<LockId, Vec<(u64, bool)>>,
    /// By thread: all it has seen.
    pub results: BTreeMap<u64, u64>,
    /// The objects behind the locks, at the end.
    pub objects: Vec<Object>,
    /// One for each Mark.
    pub reports: Vec<RoundReport>,
    /// How many there were.
    pub rounds: u64,
    /// Threads that did not come to their end, and of those the parked.
    pub left: (usize, usize),
    /// Times of threads that are not what the rule of `now` says; the first, and how many.
    pub times: Option<(Anachronism, u64)>,
    /// What the programs were worth.
    pub counters: Counters,
}

/// A thread's `now` after an operation that is not as late as what it has met, or later than anything it can have met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anachronism {
    /// What returned.
    pub operation: Operation,
    /// With which `now`.
    pub now: u64,
    /// The latest of what it has met: its own time, what the lock carries, its child's end, its answer.
    pub met: u64,
    /// The last Tick.
    pub tick: u64,
}

/// How often things happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests of both lanes.
    pub requests: usize,
    /// Requests of the declared lane.
    pub declared: usize,
    /// Locks that were owned.
    pub grants: usize,
    /// Waits, timed or not.
    pub waits: usize,
    /// Timed operations whose time came first.
    pub timeouts: usize,
    /// Lock operations that would have closed a cycle.
    pub deadlocks: usize,
    /// Tries that failed.
    pub occupied: usize,
    /// Children.
    pub spawns: usize,
    /// Children joined.
    pub joins: usize,
    /// Outside calls answered in time.
    pub calls: usize,
    /// Changes of parameters, by handlers and by the log.
    pub reconfigurations: usize,
    /// What declared threads did and had not declared.
    pub trespasses: usize,
}

impl core::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        let Self {
            requests,
            declared,
            grants,
            waits,
            timeouts,
            deadlocks,
            occupied,
            spawns,
            joins,
            calls,
            reconfigurations,
            trespasses,
        } = other;
        self.requests += requests;
        self.declared += declared;
        self.grants += grants;
        self.waits += waits;
        self.timeouts += timeouts;
        self.deadlocks += deadlocks;
        self.occupied += occupied;
        self.spawns += spawns;
        self.joins += joins;
        self.calls += calls;
        self.reconfigurations += reconfigurations;
        self.trespasses += trespasses;
    }
}

impl Outcome {
    /// A number that tells outcomes apart: owners, results, objects and rounds.
    pub fn fingerprint(&self) -> u64 {
        let owners = self.owners.iter().flat_map(|(lock, owners)| {
            let owners = owners.iter().map(|(name, writes)| mix(*name, u64::from(*writes)));
            core::iter::once(lock.0 as u64).chain(owners)
        });
        let results = self.results.iter().map(|(name, seen)| mix(*name, *seen));
        owners.chain(results).chain([self.rounds, self.left.0 as u64]).fold(0, mix)
    }
}

#[derive(Clone)]
struct Running {
    task: Task,
    /// Position of a request; of a child a mix of its parent's name and its number.
    name: u64,
    children: u64,
    position: u64,
    path: Vec<u16>,
    begun: bool,
    /// The operation it waits for.
    pending: Option<Operation>,
    now: u64,
    /// Outside calls that it has made.
    calls: u32,
}

/// How a host behaves; nothing of it may change an [`Outcome`].
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How many handlers run at once.
    pub workers: usize,
    /// How many threads may begin before they are primary.
    pub ahead: usize,
    /// How likely, in percent, entries arrive rather than tasks run.
    pub arrival_percent: u64,
    /// How many arrive at once at most.
    pub burst: u64,
    /// Every fifth thread or so is slow.
    pub slow: u64,
    /// Whether indices of finished threads are used again at once.
    pub reuse: bool,
}

impl Timing {
    /// Any timing.
    pub fn random(random: &mut Random) -> Timing {
        let long = if random.percent(30) { 1_000 } else { 6 };
        Timing {
            workers: 1 + random.below(16) as usize,
            ahead: if random.percent(30) { 0 } else { random.below(40) as usize },
            arrival_percent: 1 + random.below(40),
            burst: 1 + random.below(long),
            slow: random.word(),
            reuse: random.percent(50),
        }
    }

    /// Everything in line.
    pub const PLAIN: Timing = Timing { workers: 1, ahead: 0, arrival_percent: 100, burst: 1, slow: 1, reuse: true };
}

/// Steps of a run: far more than any scenario needs.
const STEPS_MAX: u64 = 400_000;

/// Requests that wake who is left waiting: far more than any scenario needs.
const RESCUES_MAX: usize = 2_000;

/// Entries in a row that ought to let somebody go on and do not: a Flush may be passed over, once or twice.
const WITHOUT_EFFECT_MAX: usize = 20;

/// One run of a scenario.
pub struct Executor<'a> {
    scenario: &'a Scenario,
    /// The policy under test.
    pub scheduler: Box<dyn Checked>,
    timing: Timing,
    random: Random,
    threads: Vec<Option<Running>>,
    free: VecDeque<u32>,
    /// Requests that arrived and may begin ahead, oldest first.
    fresh: Vec<u32>,
    ready: Vec<(u32, Answer)>,
    running: Vec<(u32, Answer)>,
    holders: BTreeMap<LockId, Vec<(u32, Mode)>>,
    /// By lock: the greatest `now` of its exclusive owners at their release.
    carried: BTreeMap<LockId, u64>,
    /// By name: the last `now` of threads that have finished.
    ended: BTreeMap<u64, u64>,
    /// When outside calls were answered first.
    answered: BTreeMap<(u64, Vec<u16>, u32), u64>,
    /// The last Tick.
    tick: u64,
    /// Asked, by this replica, and not yet answered.
    calls: Vec<(u64, Vec<u16>, u32)>,
    entries: u64,
    time: u64,
    marks: u64,
    grants: Vec<Grant>,
    steps: u64,
    outcome: Outcome,
}

impl<'a> Executor<'a> {
    /// At its beginning.
    pub fn new(scenario: &'a Scenario, scheduler: Box<dyn Checked>, timing: Timing, seed: u64) -> Self {
        Self {
            scenario,
            scheduler,
            timing,
            random: Random::new(seed),
            threads: Vec::new(),
            free: VecDeque::new(),
            fresh: Vec::new(),
            ready: Vec::new(),
            running: Vec::new(),
            holders: BTreeMap::new(),
            carried: BTreeMap::new(),
            ended: BTreeMap::new(),
            answered: BTreeMap::new(),
            tick: 0,
            calls: Vec::new(),
            entries: 0,
            time: 0,
            marks: 0,
            grants: Vec::new(),
            steps: 0,
            outcome: Outcome { objects: alloc::vec![Object::default(); LOCKS], ..Outcome::default() },
        }
    }

    /// Makes a log while running it, as a leader and the clocks of a cluster would, until every thread has finished.
    pub fn lead(mut self) -> Result<(Vec<LogEntry>, Outcome), Stuck> {
        let mut log = Vec::new();
        let mut requests: VecDeque<usize> = self.scenario.requests.iter().copied().collect();
        let (mut rescued, mut without_effect) = (0, 0);
        loop {
            if self.steps >= STEPS_MAX {
                return Err(Stuck::Livelock(self.scheduler.status()));
            }
            self.steps += 1;
            let mut append = Vec::new();
            self.schedule();
            if !requests.is_empty() && self.random.percent(12) {
                let step = [0, 0, 1, 5, 40][self.random.below(5) as usize];
                self.time += step;
                for _ in 0..1 + self.random.below(5) {
                    append.extend(requests.pop_front().map(|program| LogEntry::Request(program, self.time)));
                }
                if self.random.percent(self.scenario.flush_percent) {
                    append.push(LogEntry::Flush);
                }
            } else if !self.calls.is_empty() && (self.running.is_empty() || self.random.percent(5)) {
                let call = self.random.below(self.calls.len() as u64) as usize;
                let (position, path, call) = self.calls.swap_remove(call);
                append.push(LogEntry::Answer(position, path, call, self.time));
            } else if (!requests.is_empty() || self.random.percent(10)) && self.random.percent(4) {
                // Less often once the requests are there: a policy may let who spins go round many times per entry.
                append.push(match self.random.below(4) {
                    0 => LogEntry::Mark,
                    1 if self.scenario.features.reconfigure => {
                        LogEntry::Reconfigure(random_change(&mut self.random, self.scenario.features))
                    }
                    _ => LogEntry::Tick(self.time + self.random.below(8)),
                });
            } else if !self.running.is_empty() {
                self.step();
            } else if requests.is_empty() {
                let status = self.scheduler.status();
                if without_effect > WITHOUT_EFFECT_MAX {
                    return Err(Stuck::Hang(status));
                }
                // Who spins may wait for one that waits for tokens or for a deadline.
                let waits = status.parked > 0 && self.random.percent(10);
                match status.deadline {
                    _ if status.threads == 0 => break,
                    _ if status.needs_flush && !waits => append.push(LogEntry::Flush),
                    Some(deadline) => append.push(LogEntry::Tick(deadline)),
                    // All wait for tokens.
                    None => {
                        if rescued >= RESCUES_MAX {
                            return Err(Stuck::Hang(status));
                        }
                        let producers = &self.scenario.producers;
                        append.push(LogEntry::Request(producers[rescued % producers.len()], self.time));
                        rescued += 1;
                    }
                }
            }
            for entry in append {
                let before = self.scheduler.status();
                self.deliver(&entry);
                let idle = self.ready.is_empty() && self.running.is_empty();
                without_effect = match entry {
                    LogEntry::Flush | LogEntry::Tick(_) if idle && self.scheduler.status() == before => {
                        without_effect + 1
                    }
                    _ => 0,
                };
                log.push(entry);
            }
        }
        Ok((log, self.finish()))
    }

    /// Runs a log to its end.
    pub fn follow(mut self, log: &[LogEntry]) -> Result<Outcome, Stuck> {
        self.run(log)?;
        Ok(self.finish())
    }

    /// Runs a log until nobody can go on.
    pub fn run(&mut self, log: &[LogEntry]) -> Result<(), Stuck> {
        let mut entries = log.iter();
        loop {
            if self.steps >= 10 * STEPS_MAX {
                return Err(Stuck::Livelock(self.scheduler.status()));
            }
            self.steps += 1;
            self.schedule();
            if entries.len() > 0 && (self.running.is_empty() || self.random.percent(self.timing.arrival_percent)) {
                for _ in 0..1 + self.random.below(self.timing.burst) {
                    if let Some(entry) = entries.next() {
                        self.deliver(entry);
                    }
                }
            } else if self.running.is_empty() {
                return Ok(());
            } else {
                self.step();
            }
        }
    }

    fn finish(mut self) -> Outcome {
        self.scheduler.check();
        let status = self.scheduler.status();
        self.outcome.left = (status.threads, status.parked);
        self.outcome.rounds = status.round;
        for owners in self.outcome.owners.values_mut() {
            for readers in owners.chunk_by_mut(|a, b| !a.1 && !b.1) {
                readers.sort_unstable();
            }
        }
        self.outcome
    }

    /// The next entry of the log arrives.
    pub fn deliver(&mut self, entry: &LogEntry) {
        let position = self.entries;
        self.entries += 1;
        let entry = match entry {
            LogEntry::Request(program, time) => {
                self.time = self.time.max(*time);
                let thread = self.place(*program, position, (position, Vec::new()), *time);
                self.fresh.push(thread);
                let declaration = self.scenario.declarations[*program].clone();
                self.outcome.counters.requests += 1;
                self.outcome.counters.declared += usize::from(declaration.lane == Lane::Declared);
                Entry::Request { thread: ThreadIndex(thread), position, timestamp: *time, declaration }
            }
            LogEntry::Tick(time) => {
                self.time = self.time.max(*time);
                self.tick = self.tick.max(*time);
                Entry::Tick(*time)
            }
            LogEntry::Flush => Entry::Flush,
            LogEntry::Answer(position, path, call, time) => {
                self.answered.entry((*position, path.clone(), *call)).or_insert(*time);
                Entry::Answer { position: *position, path: path.clone(), call: *call, timestamp: *time }
            }
            LogEntry::Reconfigure(change) => {
                self.outcome.counters.reconfigurations += 1;
                Entry::Reconfigure(change.clone())
            }
            LogEntry::Mark => {
                self.marks += 1;
                Entry::Mark(self.marks)
            }
        };
        self.handle(Event::Entry(entry));
    }

    /// A new thread; nobody has begun it.
    fn place(&mut self, program: usize, name: u64, (position, path): (u64, Vec<u16>), now: u64) -> u32 {
        let reused = if self.timing.reuse || self.free.len() > 20 { self.free.pop_front() } else { None };
        let thread = reused.unwrap_or_else(|| {
            self.threads.push(None);
            self.threads.len() as u32 - 1
        });
        let task = Task::new(program, name);
        self.threads[thread as usize] =
            Some(Running { task, name, children: 0, position, path, begun: false, pending: None, now, calls: 0 });
        thread
    }

    fn handle(&mut self, event: Event) {
        let mut grants = core::mem::take(&mut self.grants);
        self.scheduler.handle(event, &mut grants);
        for grant in grants.drain(..) {
            match grant {
                Grant::Start { thread } => self.begin(thread.0),
                Grant::Resume { thread, result, now } => {
                    self.check_time(thread.0, result, now);
                    self.note(thread.0, result);
                    self.ready.push((thread.0, Answer::Result(result, now)));
                }
                Grant::Call { thread, call } => {
                    let running = self.threads[thread.0 as usize].as_ref().expect("a live thread");
                    self.calls.push((running.position, running.path.clone(), call));
                    self.threads[thread.0 as usize].as_mut().expect("a live thread").calls = call + 1;
                }
                Grant::Finished { thread } => {
                    let running = self.threads[thread.0 as usize].take().expect("a live thread");
                    assert_eq!(running.pending, Some(Operation::Finish));
                    self.ended.insert(running.name, running.now);
                    self.outcome.results.insert(running.name, running.task.seen);
                    self.free.push_back(thread.0);
                }
                Grant::Marked(report) => self.outcome.reports.push(*report),
                Grant::RoundEnded(_) => unreachable!("nobody observes"),
            }
        }
        self.grants = grants;
        if self.steps.is_multiple_of(16) {
            self.scheduler.check();
        }
    }

    fn begin(&mut self, thread: u32) {
        let running = self.threads[thread as usize].as_mut().expect("a live thread");
        if !running.begun {
            running.begun = true;
            self.ready.push((thread, Answer::Begin));
        }
        self.fresh.retain(|fresh| *fresh != thread);
    }

    /// The thread's new time: not before anything that it has met, and later only if a Tick was.
    fn check_time(&mut self, thread: u32, result: OperationResult, now: u64) {
        let running = self.threads[thread as usize].as_ref().expect("a live thread");
        let operation = running.pending.clone().expect("a result needs an operation");
        let met = match (&operation, result) {
            (Operation::Lock { lock, .. } | Operation::Try { lock, .. }, OperationResult::Granted)
            | (Operation::Wait { lock, .. }, OperationResult::Granted | OperationResult::TimedOut) => {
                self.carried.get(lock).copied()
            }
            (Operation::Join { child }, OperationResult::Granted) => {
                Some(self.ended[&mix(running.name, u64::from(*child))])
            }
            (Operation::External { .. }, OperationResult::Granted) => {
                let call = (running.position, running.path.clone(), running.calls - 1);
                Some(self.answered[&call])
            }
            _ => None,
        };
        let met = running.now.max(met.unwrap_or_default());
        if now < met || now > met.max(self.tick) {
            let first = Anachronism { operation, now, met, tick: self.tick };
            self.outcome.times.get_or_insert((first, 0)).1 += 1;
        }
        self.threads[thread as usize].as_mut().expect("a live thread").now = now;
    }

    /// A thread that runs gives back what it owned like this.
    fn leave_time(&mut self, thread: u32, lock: LockId) {
        let owns = |holder: &(u32, Mode)| *holder == (thread, Mode::Write);
        if self.holders.get(&lock).is_some_and(|holders| holders.iter().any(owns)) {
            let now = self.threads[thread as usize].as_ref().expect("a live thread").now;
            let carried = self.carried.entry(lock).or_default();
            *carried = now.max(*carried);
        }
    }

    /// Who owns what, as a watcher sees it.
    fn note(&mut self, thread: u32, result: OperationResult) {
        let running = self.threads[thread as usize].as_mut().expect("a live thread");
        let operation = running.pending.take().expect("a result needs an operation");
        let name = running.name;
        let counters = &mut self.outcome.counters;
        counters.deadlocks += usize::from(result == OperationResult::Deadlock);
        counters.timeouts += usize::from(result == OperationResult::TimedOut);
        counters.occupied += usize::from(result == OperationResult::Occupied);
        counters.trespasses += usize::from(result == OperationResult::NotDeclared);
        let granted = usize::from(result == OperationResult::Granted);
        match &operation {
            Operation::Wait { .. } => counters.waits += 1,
            Operation::Spawn { .. } => counters.spawns += granted,
            Operation::Join { .. } => counters.joins += granted,
            Operation::External { .. } => counters.calls += granted,
            Operation::Reconfigure(_) => counters.reconfigurations += granted,
            _ => {}
        }
        match (&operation, result) {
            (Operation::Spawn { thread: child }, OperationResult::Granted) => {
                let now = running.now;
                running.children += 1;
                self.threads[child.0 as usize].as_mut().expect("a new thread").now = now;
                self.fresh.push(child.0);
            }
            (Operation::Spawn { thread: child }, _) => {
                self.threads[child.0 as usize] = None;
                self.free.push_back(child.0);
            }
            (Operation::Join { child }, OperationResult::Granted) => {
                running.task.seen = mix(running.task.seen, self.outcome.results[&mix(name, u64::from(*child))]);
            }
            _ => {}
        }
        let owned = match (operation, result) {
            (Operation::Lock { lock, mode, .. } | Operation::Try { lock, mode }, OperationResult::Granted) => {
                Some((lock, mode))
            }
            (Operation::Wait { lock, .. }, OperationResult::Granted | OperationResult::TimedOut) => {
                Some((lock, Mode::Write))
            }
            _ => None,
        };
        if let Some((lock, mode)) = owned {
            let holders = self.holders.entry(lock).or_default();
            let alone = holders.is_empty() || mode == Mode::Read && holders.iter().all(|(_, mode)| *mode == Mode::Read);
            assert!(alone, "two owners of {lock:?}");
            holders.push((thread, mode));
            self.outcome.counters.grants += 1;
            self.outcome.owners.entry(lock).or_default().push((name, mode == Mode::Write));
        }
    }

    /// Gives the workers something to do.
    fn schedule(&mut self) {
        let mut at = 0;
        for _ in 0..self.fresh.len().min(self.timing.ahead) {
            match self.random.percent(30) {
                true => self.begin(self.fresh[at]),
                false => at += 1,
            }
        }
        while self.running.len() < self.timing.workers && !self.ready.is_empty() {
            let chosen = self.random.below(self.ready.len() as u64) as usize;
            self.running.push(self.ready.swap_remove(chosen));
        }
    }

    /// One of the running tasks takes a step.
    fn step(&mut self) {
        let chosen = self.random.below(self.running.len() as u64) as usize;
        let name = self.threads[self.running[chosen].0 as usize].as_ref().expect("a live thread").name;
        if name.wrapping_mul(self.timing.slow).is_multiple_of(5) && self.random.percent(80) {
            return;
        }
        let (thread, answer) = self.running.swap_remove(chosen);
        let running = self.threads[thread as usize].as_mut().expect("a live thread");
        match running.task.next(&self.scenario.programs, answer) {
            Wish::Compute => self.running.push((thread, Answer::Computed)),
            Wish::Value(lock, access) => {
                let holders = &self.holders[&lock_id(lock)];
                assert!(holders.iter().any(|(holder, _)| *holder == thread), "an object without its lock");
                let value = self.outcome.objects[lock].access(access);
                self.running.push((thread, Answer::Value(value)));
            }
            Wish::Spawn(program) => {
                let name = mix(running.name, running.children + 1);
                let mut path = running.path.clone();
                path.push(running.children as u16 + 1);
                let position = running.position;
                let child = self.place(program, name, (position, path), 0);
                let operation = Operation::Spawn { thread: ThreadIndex(child) };
                self.threads[thread as usize].as_mut().expect("a live thread").pending = Some(operation.clone());
                self.handle(Event::Operation { thread: ThreadIndex(thread), operation });
            }
            Wish::Operation(operation) => {
                running.pending = Some(operation.clone());
                match &operation {
                    Operation::Unlock { lock } | Operation::Wait { lock, .. } => {
                        self.leave_time(thread, *lock);
                        if let Some(holders) = self.holders.get_mut(lock) {
                            holders.retain(|(holder, _)| *holder != thread);
                        }
                    }
                    Operation::Finish => {
                        let held: Vec<LockId> = self.holders.keys().copied().collect();
                        held.into_iter().for_each(|lock| self.leave_time(thread, lock));
                        self.holders.values_mut().for_each(|holders| holders.retain(|(holder, _)| *holder != thread));
                    }
                    _ => {}
                }
                self.handle(Event::Operation { thread: ThreadIndex(thread), operation });
            }
        }
    }
}
