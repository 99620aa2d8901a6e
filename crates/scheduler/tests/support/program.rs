//! Random handlers: what a thread asks for depends on what it has seen, so that any difference in the order of grants
//! spreads into results.

use super::{Random, mix};
use unisono_scheduler::{LockId, Mode, Operation, OperationResult, Order, Parameters, QueueId};

/// Locks 0..LOCKS; those from FIRST_TOKEN_LOCK on guard tokens that handlers consume and produce.
pub const LOCKS: usize = 12;
const FIRST_TOKEN_LOCK: usize = 9;

/// A line of a handler.
#[derive(Clone, Debug)]
pub enum Step {
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
}

/// Which steps a random program may have.
#[derive(Clone, Copy)]
pub struct Features {
    /// Locks in any order, so that cycles arise.
    pub cycles: bool,
    pub wait_queues: bool,
    /// Several wait queues of one lock.
    pub queues: u64,
    pub time: bool,
    /// Locks kept while asleep or waiting.
    pub hold_parked: bool,
    pub yields: bool,
    pub children: bool,
    pub tries: bool,
    pub calls: bool,
    pub readers: bool,
    pub nonsense: bool,
    /// Locks left to Finish.
    pub forget: bool,
}

impl Features {
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
        readers: true,
        nonsense: true,
        forget: true,
    };
}

/// Handlers, the requests that run them, and under which parameters.
pub struct Scenario {
    pub programs: Vec<Vec<Step>>,
    /// By request: which program.
    pub requests: Vec<usize>,
    /// Programs that produce one token each, to wake who is left waiting.
    pub producers: Vec<usize>,
    pub parameters: Parameters,
    /// How likely a burst of requests ends with a Flush.
    pub flush_percent: u64,
}

impl Scenario {
    pub fn random(seed: u64, features: Features) -> Scenario {
        let mut random = Random::new(seed);
        let hot = 2 + random.below(10) as usize;
        let mut programs = Vec::new();
        let mut producers = Vec::new();
        for lock in FIRST_TOKEN_LOCK..LOCKS {
            for queue in 0..features.queues {
                producers.push(programs.len());
                programs.push(vec![Step::Produce { lock, queue, all: false }]);
            }
        }
        // Children have programs of their own, and they may have children, whose programs come before.
        let mut children = Vec::new();
        for _ in 0..random.below(6) * u64::from(features.children) {
            let mut steps = Vec::new();
            block(&mut random, hot, features, &mut steps);
            family_block(&mut random, hot, features, &children, &mut steps);
            children.push(programs.len());
            programs.push(steps);
        }
        let mut requests = Vec::new();
        for _ in 0..8 + random.below(50) {
            requests.push(programs.len());
            let mut steps = Vec::new();
            for _ in 0..1 + random.below(4) {
                block(&mut random, hot, features, &mut steps);
                family_block(&mut random, hot, features, &children, &mut steps);
            }
            programs.push(steps);
        }
        Scenario {
            programs,
            requests,
            producers,
            parameters: random_parameters(&mut random),
            flush_percent: [0, 30, 100][random.below(3) as usize],
        }
    }
}

fn block(random: &mut Random, hot: usize, features: Features, steps: &mut Vec<Step>) {
    use Step::*;
    let lock = random.below(hot as u64) as usize;
    let token = FIRST_TOKEN_LOCK + random.below((LOCKS - FIRST_TOKEN_LOCK) as u64) as usize;
    let queue = random.below(features.queues.max(1));
    match random.below(25) {
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
        23 if features.calls => steps.push(Call(random.percent(30).then(|| random.below(20)))),
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

pub fn random_parameters(random: &mut Random) -> Parameters {
    let most = if random.percent(30) { 2 } else { 12 };
    let primaries = 1 + random.below(most) as u32;
    let steps = if random.percent(10) { u32::MAX } else { 1 + random.below(5) as u32 };
    let order = match random.below(4) {
        0 => Order::Quantum(1 + random.below(3) as u32),
        1 => Order::Explicit((0..primaries * 2).map(|_| random.below(primaries.into()) as u16).collect()),
        _ => Order::RoundRobin,
    };
    let flush_rounds = if random.percent(50) { 16 } else { 1 + random.below(20) as u32 };
    Parameters { primaries, steps, order, flush_rounds }
}

/// What a task wants next.
pub enum Wish {
    Compute,
    Value(usize, Access),
    Operation(Operation),
    /// A child that runs this program; the host names it.
    Spawn(usize),
}

/// What it does with the object behind a lock it owns.
#[derive(Clone, Copy)]
pub enum Access {
    Mix(u64),
    /// Takes a token of the queue: 1 or, when there is none, 0.
    Take(u64),
    Give(u64),
}

/// The object behind a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    pub value: u64,
    tokens: [u64; 4],
}

impl Object {
    pub fn access(&mut self, access: Access) -> u64 {
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
pub enum Answer {
    Begin,
    Computed,
    Value(u64),
    Result(OperationResult, u64),
}

/// A handler on its way.
#[derive(Clone, Debug)]
pub struct Task {
    program: usize,
    line: usize,
    /// Within the line.
    part: u8,
    /// Everything it has seen.
    pub seen: u64,
    chosen: usize,
    held: Vec<usize>,
    /// Had, and joined.
    born: u16,
    joined: u16,
    aborted: bool,
}

pub fn lock_id(lock: usize) -> LockId {
    LockId((lock as u128) << 96 | lock as u128)
}

impl Task {
    pub fn new(program: usize, position: u64) -> Task {
        Task {
            program,
            line: 0,
            part: 0,
            seen: mix(1, position),
            chosen: 0,
            held: vec![],
            born: 0,
            joined: 0,
            aborted: false,
        }
    }

    pub fn next(&mut self, programs: &[Vec<Step>], answer: Answer) -> Wish {
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
