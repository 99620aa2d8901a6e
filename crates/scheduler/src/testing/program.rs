//! Random handlers: what a thread asks for depends on what it has seen, so that any difference in the order of grants
//! spreads into results.

use super::{Random, mix};
use crate::{
    Change, ClassRule, Declaration, DeclaredLock, Lane, LockId, Mode, Operation, OperationResult, Order, Parameters,
    Predicate, QueueId,
};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Locks 0..LOCKS; those from FIRST_TOKEN_LOCK on guard tokens that handlers consume and produce.
pub(super) const LOCKS: usize = 12;
const FIRST_TOKEN_LOCK: usize = 9;

/// A line of a handler.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Compute,
    Lock(usize),
    Read(usize),
    /// Tries; touches and unlocks if it got the lock.
    Try(usize, Mode),
    /// Locks, touches and unlocks, or gives up.
    LockFor(usize, u64),
    Unlock(usize),
    /// Mixes what it has seen into the object behind a lock it owns, and the other way round.
    Touch(usize),
    /// Locks, touches and unlocks one of three, by what it has seen.
    Choose(usize),
    Consume {
        lock: usize,
        queue: u64,
        timeout: Option<u64>,
    },
    Produce {
        lock: usize,
        queue: u64,
        all: bool,
    },
    Sleep(u64),
    Yield,
    /// A child that runs this program.
    Spawn(usize),
    /// An outside call.
    Call(Option<u64>),
    /// Joins the oldest child that was not joined.
    Join,
    /// Operations that are not possible; without any effect.
    Nonsense(usize),
    /// Tries, and yields, until it gets the lock; touches and unlocks it.
    Spin(usize),
    /// Changes parameters.
    Reconfigure(Change),
    /// What a declared handler may not do; without any effect.
    Trespass(usize),
}

/// Which steps a random program may have.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// Locks in any order, so that cycles arise.
    pub cycles: bool,
    /// Waits and notifications.
    pub wait_queues: bool,
    /// Wait queues of one lock.
    pub queues: u64,
    /// Sleeps, and timed locks and waits.
    pub time: bool,
    /// Locks kept while asleep or waiting.
    pub hold_parked: bool,
    /// Yields.
    pub yields: bool,
    /// Spawns and joins.
    pub children: bool,
    /// Tries.
    pub tries: bool,
    /// Outside calls.
    pub calls: bool,
    /// Outside calls with a time.
    pub timed_calls: bool,
    /// Locks for reading.
    pub readers: bool,
    /// Operations that are not possible.
    pub nonsense: bool,
    /// Locks left to Finish.
    pub forget: bool,
    /// Tries and yields until it works.
    pub spins: bool,
    /// Changes of parameters, by handlers and by the log.
    pub reconfigure: bool,
    /// Changes that leave something as it was, and such of k.
    pub partial_changes: bool,
    /// Predicates, classes and foreknown locks.
    pub predicates: bool,
    /// Declared requests.
    pub declared: bool,
    /// Locks that a declared request uses twice.
    pub several_uses: bool,
}

impl Features {
    /// All of them.
    pub const ALL: Features = Features {
        cycles: true,
        wait_queues: true,
        queues: 3,
        time: true,
        hold_parked: true,
        yields: true,
        children: true,
        tries: true,
        calls: true,
        timed_calls: true,
        readers: true,
        nonsense: true,
        forget: true,
        spins: true,
        reconfigure: true,
        partial_changes: true,
        predicates: true,
        declared: true,
        several_uses: true,
    };
}

/// Handlers, the requests that run them, and under which parameters.
#[derive(Debug)]
pub struct Scenario {
    pub(super) programs: Vec<Vec<Step>>,
    /// By program: what requests that run it declare.
    pub(super) declarations: Vec<Declaration>,
    /// By request: which program.
    pub(super) requests: Vec<usize>,
    /// Programs that produce one token each, to wake who is left waiting.
    pub(super) producers: Vec<usize>,
    /// Those that it begins with.
    pub parameters: Parameters,
    /// How likely a burst of requests ends with a Flush.
    pub(super) flush_percent: u64,
    pub(super) features: Features,
}

impl Scenario {
    /// The scenario of this seed.
    pub fn random(seed: u64, features: Features) -> Scenario {
        let mut random = Random::new(seed);
        // Some without: a change may save a round that no rule saves.
        let features = Features { reconfigure: features.reconfigure && random.percent(60), ..features };
        let hot = 2 + random.below(10) as usize;
        let mut programs = Vec::new();
        let mut producers = Vec::new();
        for lock in FIRST_TOKEN_LOCK..LOCKS {
            for queue in 0..features.queues {
                producers.push(programs.len());
                programs.push(alloc::vec![Step::Produce { lock, queue, all: false }]);
            }
        }
        // Children have programs of their own, and they may have children, whose programs come before.
        let mut children = Vec::new();
        for _ in 0..random.below(6) * u64::from(features.children) {
            let mut steps = Vec::new();
            // No cycle shows that a child spins for what its joining parent owns.
            let features = Features { spins: false, ..features };
            block(&mut random, hot, features, &mut steps);
            family_block(&mut random, hot, features, &children, &mut steps);
            children.push(programs.len());
            programs.push(steps);
        }
        let declared_percent = [0, 0, 45, 45, 100][random.below(5) as usize] * u64::from(features.declared);
        let mut declarations = alloc::vec![Declaration::default(); programs.len()];
        let mut requests = Vec::new();
        for _ in 0..8 + random.below(50) {
            requests.push(programs.len());
            let mut steps = Vec::new();
            if random.percent(declared_percent) {
                declarations.push(declared_program(&mut random, hot, features, &mut steps));
                programs.push(steps);
                continue;
            }
            for _ in 0..1 + random.below(4) {
                block(&mut random, hot, features, &mut steps);
                family_block(&mut random, hot, features, &children, &mut steps);
            }
            declarations.push(foreknowledge(&mut random, features, &steps));
            programs.push(steps);
        }
        Scenario {
            programs,
            declarations,
            requests,
            producers,
            parameters: random_parameters(&mut random, features),
            flush_percent: [0, 30, 100][random.below(3) as usize],
            features,
        }
    }
}

fn block(random: &mut Random, hot: usize, features: Features, steps: &mut Vec<Step>) {
    use Step::*;
    let lock = random.below(hot as u64) as usize;
    let token = FIRST_TOKEN_LOCK + random.below((LOCKS - FIRST_TOKEN_LOCK) as u64) as usize;
    let queue = random.below(features.queues.max(1));
    match random.below(29) {
        0 | 1 => steps.extend([Compute, Lock(lock), Compute, Touch(lock), Unlock(lock)]),
        2 | 3 => steps.extend([Lock(lock), Touch(lock), Unlock(lock), Compute]),
        4..=6 => {
            let other = (lock + 1 + random.below(hot as u64 - 1) as usize) % hot;
            // A token lock last: nobody keeps producers out while it stands behind a parked owner.
            let any_order = features.cycles && random.percent(30) && lock < FIRST_TOKEN_LOCK;
            let (a, b) = if any_order { (lock, other) } else { (lock.min(other), lock.max(other)) };
            steps.extend([Lock(a), Compute, Lock(b), Touch(b), Touch(a), Unlock(a), Compute, Unlock(b)]);
        }
        7 if features.readers => steps.extend([Read(lock), Compute, Unlock(lock)]),
        8 if features.readers => steps.extend([Read(lock), Compute, Compute, Unlock(lock), Compute]),
        9 => steps.push(Choose(random.below(9) as usize)),
        10 | 11 if features.wait_queues => {
            let timeout = random.percent(40).then(|| random.below(30));
            steps.push(Consume { lock: token, queue, timeout });
        }
        12 | 13 if features.wait_queues => steps.push(Produce { lock: token, queue, all: random.percent(30) }),
        14 if features.yields => steps.push(Yield),
        15 if features.time => steps.push(LockFor(lock, random.below(20))),
        16 if features.time => steps.push(Sleep(random.below(20))),
        17 if features.time && features.hold_parked => {
            steps.extend([Lock(lock), Touch(lock), Sleep(random.below(10)), Touch(lock), Unlock(lock)]);
        }
        18 if features.hold_parked && features.wait_queues && lock < FIRST_TOKEN_LOCK => {
            steps.extend([Lock(lock), Consume { lock: token, queue, timeout: Some(random.below(20)) }, Unlock(lock)]);
        }
        19 if features.nonsense => steps.push(Nonsense(lock)),
        23 if features.calls => {
            let timed = features.timed_calls && random.percent(30);
            steps.push(Call(timed.then(|| random.below(20))));
        }
        24 if features.spins && random.percent(30) => steps.push(Spin(lock)),
        25 if features.reconfigure => steps.push(Reconfigure(random_change(random, features))),
        26 if features.readers && features.hold_parked && features.time => {
            steps.extend([Read(lock), Sleep(random.below(10)), Compute, Unlock(lock)]);
        }
        27 if features.calls && features.hold_parked => {
            steps.extend([Lock(lock), Touch(lock), Call(None), Touch(lock), Unlock(lock)]);
        }
        21 | 22 if features.tries => {
            let mode = if features.readers && random.percent(30) { Mode::Read } else { Mode::Write };
            steps.push(Try(lock, mode));
        }
        // Never a token lock: its producers would stand behind it for ever.
        20 if features.forget && lock < FIRST_TOKEN_LOCK => steps.extend([Lock(lock), Touch(lock)]),
        _ => steps.extend([Compute, Compute]),
    }
}

/// Spawns children of the given programs and joins them: some, all, or none, now and then with a lock in hand.
fn family_block(random: &mut Random, hot: usize, features: Features, children: &[usize], steps: &mut Vec<Step>) {
    if children.is_empty() || !random.percent(25) {
        return;
    }
    let lock = random.below(hot.min(FIRST_TOKEN_LOCK) as u64) as usize;
    let holds = features.hold_parked && random.percent(25);
    if holds {
        steps.extend([Step::Lock(lock), Step::Touch(lock)]);
    }
    let count = 1 + random.below(3);
    for _ in 0..count {
        steps.push(Step::Spawn(children[random.below(children.len() as u64) as usize]));
    }
    block(random, hot, features, steps);
    steps.extend((0..random.below(count + 1)).map(|_| Step::Join));
    if holds {
        steps.push(Step::Unlock(lock));
    }
}

/// A handler of the declared lane: some locks, in an order of its own, some of them twice, some not at all.
fn declared_program(random: &mut Random, hot: usize, features: Features, steps: &mut Vec<Step>) -> Declaration {
    use Step::*;
    let mut locks: Vec<DeclaredLock> = Vec::new();
    if features.wait_queues && random.percent(25) {
        // A token lock alone: reserved for a thread that waits for another lock it would keep producers out.
        let lock = FIRST_TOKEN_LOCK + random.below((LOCKS - FIRST_TOKEN_LOCK) as u64) as usize;
        let queue = random.below(features.queues.max(1));
        steps.extend([Compute, Produce { lock, queue, all: random.percent(30) }, Compute]);
        locks.push(DeclaredLock { lock: lock_id(lock), mode: Mode::Write, uses: 1 });
        return Declaration { class: random.below(3) as u16, lane: Lane::Declared, locks };
    }
    let hot = hot.min(FIRST_TOKEN_LOCK);
    for _ in 0..1 + random.below(3) {
        let lock = random.below(hot as u64) as usize;
        let mode = if features.readers && random.percent(30) { Mode::Read } else { Mode::Write };
        // What a lock is declared as last does not hold: it is declared once.
        if locks.iter().any(|declared| declared.lock == lock_id(lock)) {
            continue;
        }
        let uses = if features.several_uses && random.percent(20) { 2 } else { 1 };
        locks.push(DeclaredLock { lock: lock_id(lock), mode, uses });
        steps.push(Compute);
        for _ in 0..random.below(8).min(1) * u64::from(uses) {
            let touch = if mode == Mode::Write { Touch(lock) } else { Compute };
            steps.extend([if mode == Mode::Write { Lock(lock) } else { Read(lock) }, Compute, touch]);
            if uses == 2 || random.percent(50) {
                steps.extend([Unlock(lock), Compute]);
            }
        }
        if features.nonsense && random.percent(10) {
            steps.push(Trespass(lock));
        }
    }
    if features.nonsense && random.percent(10) {
        steps.push(Choose(random.below(9) as usize)); // what it locks it may or may not have declared
    }
    Declaration { class: random.below(3) as u16, lane: Lane::Declared, locks }
}

/// What an undeclared request lets predicates know: nothing, or the locks of its steps, now and then not all.
fn foreknowledge(random: &mut Random, features: Features, steps: &[Step]) -> Declaration {
    use Step::*;
    if !features.predicates {
        return Declaration::default();
    }
    let mut locks = Vec::new();
    if random.percent(60) {
        for step in steps {
            let (first, count, mode) = match step {
                Lock(lock) | LockFor(lock, _) | Spin(lock) => (*lock, 1, Mode::Write),
                Consume { lock, .. } | Produce { lock, .. } => (*lock, 1, Mode::Write),
                Read(lock) => (*lock, 1, Mode::Read),
                Try(lock, mode) => (*lock, 1, *mode),
                Choose(base) => (*base, 3, Mode::Write),
                _ => continue,
            };
            let known = (first..first + count).filter(|_| random.percent(95));
            locks.extend(known.map(|lock| DeclaredLock { lock: lock_id(lock), mode, uses: 1 }));
        }
    }
    Declaration { class: random.below(3) as u16, lane: Lane::Undeclared, locks }
}

/// Something other than before.
pub(super) fn random_change(random: &mut Random, features: Features) -> Change {
    let Parameters { primaries, steps, order, flush_rounds, predicate } = random_parameters(random, features);
    let mut keep = || !features.partial_changes || random.percent(50);
    Change {
        primaries: keep().then_some(primaries),
        steps: keep().then_some(steps),
        order: keep().then_some(order),
        flush_rounds: (features.partial_changes && keep()).then_some(flush_rounds),
        predicate: (features.predicates && keep()).then_some(predicate),
    }
}

fn random_predicate(random: &mut Random) -> Predicate {
    match random.below(5) {
        0 => Predicate::FutureLocks,
        1 => {
            let rule = |class| ClassRule { class, every: 1 + random.below(4) as u32, phase: random.below(4) as u32 };
            Predicate::Classes((0..2).map(rule).collect())
        }
        _ => Predicate::All,
    }
}

fn random_parameters(random: &mut Random, features: Features) -> Parameters {
    let most = if random.percent(30) { 2 } else { 12 };
    let primaries = 1 + random.below(most) as u32;
    let steps = if random.percent(10) { u32::MAX } else { 1 + random.below(5) as u32 };
    let order = match random.below(4) {
        0 => Order::Quantum(1 + random.below(3) as u32),
        1 => Order::Explicit((0..primaries * 2).map(|_| random.below(primaries.into()) as u16).collect()),
        _ => Order::RoundRobin,
    };
    let flush_rounds = if random.percent(50) { 16 } else { 1 + random.below(20) as u32 };
    let predicate = if features.predicates { random_predicate(random) } else { Predicate::All };
    Parameters { primaries, steps, order, flush_rounds, predicate }
}

/// What a task wants next.
pub(super) enum Wish {
    Compute,
    Value(usize, Access),
    Operation(Operation),
    /// A child that runs this program; the host names it.
    Spawn(usize),
}

/// What it does with the object behind a lock it owns.
#[derive(Clone, Copy)]
pub(super) enum Access {
    Mix(u64),
    /// Takes a token of the queue: 1 or, when there is none, 0.
    Take(u64),
    Give(u64),
}

/// The object behind a lock. A handler's operations depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    value: u64,
    tokens: [u64; 4],
}

impl Object {
    pub(super) fn access(&mut self, access: Access) -> u64 {
        match access {
            Access::Mix(seen) => {
                self.value = mix(self.value, seen);
                self.value
            }
            Access::Take(queue) => {
                let tokens = &mut self.tokens[queue as usize];
                let taken = (*tokens).min(1);
                *tokens -= taken;
                taken
            }
            Access::Give(queue) => {
                self.tokens[queue as usize] += 1;
                self.tokens[queue as usize]
            }
        }
    }
}

/// What its last wish came to.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    Begin,
    Computed,
    Value(u64),
    Result(OperationResult, u64),
}

/// A handler on its way.
#[derive(Clone, Debug)]
pub(super) struct Task {
    program: usize,
    line: usize,
    /// Within the line.
    part: u8,
    /// Everything it has seen.
    pub(super) seen: u64,
    chosen: usize,
    held: Vec<usize>,
    /// Had, and joined.
    born: u16,
    joined: u16,
    aborted: bool,
}

pub(super) fn lock_id(lock: usize) -> LockId {
    LockId((lock as u128) << 96 | lock as u128)
}

impl Task {
    pub(super) fn new(program: usize, position: u64) -> Task {
        Task {
            program,
            line: 0,
            part: 0,
            seen: mix(1, position),
            chosen: 0,
            held: Vec::new(),
            born: 0,
            joined: 0,
            aborted: false,
        }
    }

    pub(super) fn next(&mut self, programs: &[Vec<Step>], answer: Answer) -> Wish {
        let mut answer = Some(answer);
        if let Some(Answer::Result(result, now)) = answer {
            self.seen = mix(self.seen, mix(result as u64, now));
        }
        loop {
            let Some(step) = programs[self.program].get(self.line).filter(|_| !self.aborted) else {
                return match self.held.pop().filter(|_| self.aborted) {
                    Some(lock) => Wish::Operation(Operation::Unlock { lock: lock_id(lock) }),
                    None => Wish::Operation(Operation::Finish),
                };
            };
            let part = self.part;
            self.part += 1;
            if let Some(wish) = self.line(&step.clone(), part, answer.take()) {
                return wish;
            }
        }
    }

    fn end_line(&mut self) -> Option<Wish> {
        self.line += 1;
        self.part = 0;
        None
    }

    fn lock(&self, lock: usize, mode: Mode, timeout: Option<u64>) -> Option<Wish> {
        Some(Wish::Operation(Operation::Lock { lock: lock_id(lock), mode, timeout }))
    }

    fn unlock(&mut self, lock: usize) -> Option<Wish> {
        self.held.retain(|held| *held != lock);
        Some(Wish::Operation(Operation::Unlock { lock: lock_id(lock) }))
    }

    /// Whether the lock operation gave the lock.
    fn got(&mut self, lock: usize, answer: Option<Answer>) -> bool {
        match answer {
            Some(Answer::Result(OperationResult::Granted, _)) => {
                self.held.push(lock);
                true
            }
            Some(Answer::Result(OperationResult::TimedOut | OperationResult::Occupied, _)) => false,
            _ => {
                self.aborted = true;
                false
            }
        }
    }

    /// `None`: this part is done without a wish.
    fn line(&mut self, step: &Step, part: u8, answer: Option<Answer>) -> Option<Wish> {
        match (step, part) {
            (Step::Compute, 0) => Some(Wish::Compute),
            (Step::Lock(lock), 0) => self.lock(*lock, Mode::Write, None),
            (Step::Read(lock), 0) => self.lock(*lock, Mode::Read, None),
            (Step::Lock(lock) | Step::Read(lock), _) => {
                self.got(*lock, answer);
                self.end_line()
            }
            (Step::Unlock(lock), 0) if self.held.contains(lock) => self.unlock(*lock),
            (Step::Touch(lock), 0) => Some(Wish::Value(*lock, Access::Mix(self.seen))),
            (Step::Touch(_), _) => self.saw(answer),
            (Step::Try(lock, mode), 0) if !self.held.contains(lock) => {
                Some(Wish::Operation(Operation::Try { lock: lock_id(*lock), mode: *mode }))
            }
            // A reader may not write.
            (Step::Try(lock, Mode::Read), part) if part == 1 && self.got(*lock, answer) => {
                self.part = 3;
                Some(Wish::Compute)
            }
            (Step::Try(lock, Mode::Write), part) if part > 0 => self.critical_section(*lock, part, answer),
            (Step::Try(lock, Mode::Read), 3) => self.unlock(*lock),
            (Step::LockFor(lock, timeout), 0) => self.lock(*lock, Mode::Write, Some(*timeout)),
            (Step::LockFor(lock, _), part) => self.critical_section(*lock, part, answer),
            (Step::Choose(base), 0) => {
                self.chosen = base + (self.seen >> 32) as usize % 3;
                self.lock(self.chosen, Mode::Write, None)
            }
            (Step::Choose(_), part) => self.critical_section(self.chosen, part, answer),
            (Step::Consume { lock, .. }, 0) => self.lock(*lock, Mode::Write, None),
            (Step::Consume { lock, queue, .. }, 1) => {
                if !self.got(*lock, answer) {
                    return self.end_line();
                }
                Some(Wish::Value(*lock, Access::Take(*queue)))
            }
            (Step::Consume { lock, queue, timeout }, 2) => match answer {
                Some(Answer::Value(0)) => Some(Wish::Operation(Operation::Wait {
                    lock: lock_id(*lock),
                    queue: QueueId(*queue),
                    timeout: *timeout,
                })),
                _ => {
                    self.part = 4;
                    self.unlock(*lock)
                }
            },
            (Step::Consume { lock, queue, .. }, 3) => match answer {
                Some(Answer::Result(OperationResult::Granted, _)) => {
                    self.part = 2;
                    Some(Wish::Value(*lock, Access::Take(*queue)))
                }
                Some(Answer::Result(OperationResult::TimedOut, _)) => self.unlock(*lock),
                _ => {
                    // A relock that was refused: the lock is not owned.
                    self.held.retain(|held| held != lock);
                    self.aborted = true;
                    None
                }
            },
            (Step::Produce { lock, .. }, 0) => self.lock(*lock, Mode::Write, None),
            (Step::Produce { lock, queue, .. }, 1) => {
                if !self.got(*lock, answer) {
                    return self.end_line();
                }
                Some(Wish::Value(*lock, Access::Give(*queue)))
            }
            (Step::Produce { lock, queue, all }, 2) => {
                Some(Wish::Operation(Operation::Notify { lock: lock_id(*lock), queue: QueueId(*queue), all: *all }))
            }
            (Step::Produce { .. }, 3) => Some(Wish::Compute),
            (Step::Produce { lock, .. }, 4) => self.unlock(*lock),
            (Step::Sleep(duration), 0) => Some(Wish::Operation(Operation::Sleep { duration: *duration })),
            (Step::Call(timeout), 0) => Some(Wish::Operation(Operation::External { timeout: *timeout })),
            (Step::Yield, 0) => Some(Wish::Operation(Operation::Yield)),
            (Step::Spawn(program), 0) => Some(Wish::Spawn(*program)),
            (Step::Spawn(_), _) => {
                self.born += 1;
                self.end_line()
            }
            (Step::Join, 0) if self.joined < self.born => {
                self.joined += 1;
                Some(Wish::Operation(Operation::Join { child: self.joined }))
            }
            // With a lock in hand, two could spin for one another's.
            (Step::Spin(lock), 0) if self.held.is_empty() => {
                Some(Wish::Operation(Operation::Try { lock: lock_id(*lock), mode: Mode::Write }))
            }
            (Step::Spin(_), 1) if matches!(answer, Some(Answer::Result(OperationResult::Occupied, _))) => {
                self.part = 0;
                Some(Wish::Operation(Operation::Yield))
            }
            (Step::Spin(lock), part) if part > 0 => self.critical_section(*lock, part, answer),
            (Step::Reconfigure(change), 0) => Some(Wish::Operation(Operation::Reconfigure(Box::new(change.clone())))),
            (Step::Trespass(lock), part) => match part {
                0 => Some(Wish::Operation(Operation::Unlock { lock: lock_id(LOCKS) })),
                1 => Some(Wish::Operation(Operation::Sleep { duration: 3 })),
                2 => self.lock(*lock, Mode::Write, Some(5)),
                3 => self.lock(LOCKS, Mode::Write, None),
                4 => Some(Wish::Operation(Operation::Yield)),
                5 => Some(Wish::Operation(Operation::External { timeout: None })),
                6 => Some(Wish::Operation(Operation::Join { child: 1 })),
                7 => Some(Wish::Operation(Operation::Try { lock: lock_id(*lock), mode: Mode::Write })),
                8 => Some(Wish::Operation(Operation::Reconfigure(Box::default()))),
                9 => Some(Wish::Operation(Operation::Notify { lock: lock_id(LOCKS), queue: QueueId(0), all: true })),
                _ => self.end_line(),
            },
            (Step::Nonsense(lock), part) if part > 0 || !self.held.contains(lock) => match part {
                0 => Some(Wish::Operation(Operation::Unlock { lock: lock_id(*lock) })),
                1 => Some(Wish::Operation(Operation::Notify { lock: lock_id(*lock), queue: QueueId(0), all: true })),
                2 => {
                    Some(Wish::Operation(Operation::Wait { lock: lock_id(*lock), queue: QueueId(0), timeout: Some(3) }))
                }
                3 => self.lock(*lock, Mode::Write, Some(5)),
                4 => match self.got(*lock, answer) {
                    true => self.lock(*lock, Mode::Read, Some(5)),
                    false => self.end_line(),
                },
                5 => Some(Wish::Operation(Operation::Join { child: self.born + 1 })),
                6 => Some(Wish::Operation(Operation::Join { child: 0 })),
                7 => Some(Wish::Operation(Operation::Try { lock: lock_id(*lock), mode: Mode::Read })),
                8 => self.unlock(*lock),
                _ => self.end_line(),
            },
            _ => self.end_line(),
        }
    }

    fn saw(&mut self, answer: Option<Answer>) -> Option<Wish> {
        if let Some(Answer::Value(value)) = answer {
            self.seen = mix(self.seen, value);
        }
        self.end_line()
    }

    /// From the lock operation's answer to the unlock.
    fn critical_section(&mut self, lock: usize, part: u8, answer: Option<Answer>) -> Option<Wish> {
        match part {
            1 if self.got(lock, answer) => Some(Wish::Value(lock, Access::Mix(self.seen))),
            2 => {
                self.saw(answer);
                self.line -= 1;
                self.part = 3;
                Some(Wish::Compute)
            }
            3 => self.unlock(lock),
            _ => self.end_line(),
        }
    }
}
