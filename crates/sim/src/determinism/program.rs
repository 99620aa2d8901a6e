//! Programs by chance: what handlers do with locks, conditions, permits, time, children and the outside.
//!
//! Every program comes to its end in every schedule: loops are bounded, permits and calls have a time-out, and the last
//! programs of a case give whoever waits without one what it waits for.

use crate::Random;
use unisono_types::borsh::{BorshDeserialize, BorshSerialize};

/// Mutexes.
pub(super) const MUTEXES: usize = 3;

/// Where there are conditions: mutexes, then rows.
pub(super) const PLACES: usize = MUTEXES + 2;

/// Locks that readers share.
pub(super) const SHARED: usize = 2;

/// Keys of the table that are used.
const KEYS: u64 = 4;

/// Semaphores.
pub(super) const SEMAPHORES: usize = 2;

/// Longest sleep or patience in microseconds; a few requests are ordered meanwhile.
const PATIENCE_MAX: u64 = 4_000;

/// Generations of children and locks one in the other.
const DEPTH_MAX: u32 = 3;

/// What a request asks for: all of it.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub struct Program {
    /// What predicates see.
    pub class: u16,
    /// What it says of itself.
    pub foretold: Foretold,
    /// What it does.
    pub actions: Vec<Action>,
}

/// What a program says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub enum Foretold {
    /// Nothing.
    Nothing,
    /// The locks that it will use, which only predicates look at.
    Locks,
    /// The same, as a request of the declared lane.
    Declared,
    /// It leaves one out.
    TooLittle,
}

/// What a program does next. Numbers of objects are taken modulo how many there are.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub enum Action {
    /// Under a mutex.
    Lock(u8, Vec<Action>),
    /// The same, if it is free within so many microseconds.
    LockWithin(u8, u32, Vec<Action>),
    /// The same, if it is free.
    TryLock(u8, Vec<Action>),
    /// Together with other readers.
    Read(u8, Vec<Action>),
    /// Alone.
    Write(u8, Vec<Action>),
    /// With other readers, if nobody writes.
    TryRead(u8),
    /// Under a row's lock; a third of the rows are deleted behind it.
    Row(u32, Vec<Action>),
    /// Under two rows' locks, in ascending order.
    Rows(u32, u32),
    /// Takes a token that somebody produced; waits for one, for so many microseconds or for ever.
    Consume(u8, Option<u32>),
    /// Puts down a token and wakes one, or all.
    Produce(u8, bool),
    /// With a permit, if there is one within so many microseconds.
    Permit(u8, u32, Vec<Action>),
    /// Asks for a mutex again and again, and yields in between, some times.
    Spin(u8),
    /// Pauses.
    Sleep(u32),
    /// Lets others go first.
    Yield,
    /// Bears a child.
    Spawn(Vec<Action>),
    /// Waits for the eldest child that was not waited for.
    Join,
    /// Asks the outside, for so many microseconds.
    Call(u8, u32),
    /// Changes the schedule's parameters by chance of this seed.
    Reconfigure(u64),
    /// Panics, under whatever it owns.
    Panic,
}

/// The programs of a case, in their order.
pub fn programs(random: &mut Random) -> Vec<Program> {
    let lean = Lean::draw(random);
    let mut programs: Vec<Program> = (0..random.between(6, 24)).map(|_| program(random, &lean)).collect();
    let mut consumers = [0; PLACES];
    programs.iter().for_each(|program| count_consumers(&program.actions, &mut consumers));
    for (place, count) in consumers.into_iter().enumerate() {
        let produce =
            Program { class: 0, foretold: Foretold::Nothing, actions: vec![Action::Produce(place as u8, true)] };
        programs.extend(std::iter::repeat_n(produce, count));
    }
    programs
}

fn count_consumers(actions: &[Action], consumers: &mut [usize; PLACES]) {
    for action in actions {
        match action {
            Action::Consume(place, _) => consumers[usize::from(*place) % PLACES] += 1,
            Action::Lock(_, body)
            | Action::LockWithin(_, _, body)
            | Action::TryLock(_, body)
            | Action::Read(_, body)
            | Action::Write(_, body)
            | Action::Row(_, body)
            | Action::Permit(_, _, body)
            | Action::Spawn(body) => count_consumers(body, consumers),
            _ => {}
        }
    }
}

/// What the programs of a case do much and what they leave out: kinds of operations hide each other.
struct Lean {
    kinds: Vec<u64>,
    /// In 1 000.
    declared: u64,
    foretold: u64,
    faults: u64,
}

/// Kinds of actions that are drawn.
const KINDS: u64 = 17;

impl Lean {
    fn draw(random: &mut Random) -> Self {
        let mut kinds: Vec<u64> = (0..KINDS).filter(|_| random.chance(500)).collect();
        kinds.push(0);
        let often = |random: &mut Random| random.pick(&[0, 0, 200, 500]);
        Self { kinds, declared: often(random), foretold: often(random), faults: random.pick(&[0, 20]) }
    }
}

fn program(random: &mut Random, lean: &Lean) -> Program {
    let class = random.below(3) as u16;
    if random.chance(lean.declared) {
        let foretold = if random.chance(lean.faults) { Foretold::TooLittle } else { Foretold::Declared };
        return Program { class, foretold, actions: declared(random, 0) };
    }
    let foretold = if random.chance(lean.foretold) { Foretold::Locks } else { Foretold::Nothing };
    Program { class, foretold, actions: actions(random, lean, 0) }
}

fn actions(random: &mut Random, lean: &Lean, depth: u32) -> Vec<Action> {
    let most = if depth == 0 { 5 } else { 3 };
    (0..random.between(u64::from(depth == 0), most)).map(|_| action(random, lean, depth)).collect()
}

fn action(random: &mut Random, lean: &Lean, depth: u32) -> Action {
    let object = random.below(6) as u8;
    let patience = random.below(PATIENCE_MAX) as u32;
    let key = |random: &mut Random| random.below(KEYS) as u32;
    let body = |random: &mut Random| if depth < DEPTH_MAX { actions(random, lean, depth + 1) } else { Vec::new() };
    if random.chance(lean.faults) {
        return Action::Panic;
    }
    match random.pick(&lean.kinds) {
        0 => Action::Lock(object, body(random)),
        1 => Action::LockWithin(object, patience, body(random)),
        2 => Action::TryLock(object, body(random)),
        3 => Action::Read(object, body(random)),
        4 => Action::Write(object, body(random)),
        5 => Action::TryRead(object),
        6 => Action::Row(key(random), body(random)),
        7 => Action::Rows(key(random), key(random)),
        // Who owns a lock must not wait for ever: whoever could help may need that lock.
        8 => Action::Consume(object, (depth > 0 || random.chance(600)).then_some(patience)),
        9 => Action::Produce(object, random.chance(300)),
        10 => Action::Permit(object, patience, body(random)),
        11 => Action::Spin(object),
        12 => Action::Sleep(patience),
        13 => Action::Yield,
        14 if random.chance(500) => Action::Spawn(body(random)),
        14 => Action::Join,
        15 => Action::Call(object, patience),
        _ => Action::Reconfigure(random.next_u64()),
    }
}

/// What the declared lane may do: locks, one in the other, and notify.
fn declared(random: &mut Random, depth: u32) -> Vec<Action> {
    let most = if depth == 0 { 3 } else { 1 };
    let action = |_| {
        let object = random.below(6) as u8;
        let body = if depth < 2 { declared(random, depth + 1) } else { Vec::new() };
        match random.below(5) {
            0 | 1 => Action::Lock(object, body),
            2 => Action::Read(object, body),
            3 => Action::Write(object, body),
            _ => Action::Produce(object, random.chance(300)),
        }
    };
    (0..most).map(action).collect()
}
