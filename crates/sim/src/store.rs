//! The service that the simulator runs: small, and made of everything that can go wrong in a schedule. Locks one
//! inside the other, readers and writers, conditional waits with and without time-outs, sleeps, yields, deadlocks,
//! panics.
//!
//! ```text
//!   registers  Table   read, write, exchange, compare and set             one part of the history per key
//!   totals     RwLock  sum, add, add after a nap                          one part per total
//!   lists      Table   push, pop, take (waits), move between two lists    one part for all lists
//!   tallies    Table   what each session had done, and how often          exactly once
//! ```
//! [`StoreModel`] says what it should do one operation at a time; all values written are unique.

use crate::Random;
use crate::linear::Model;
use std::collections::BTreeMap;
use unisono_execution::{Context, LockError, Objects, RwLock, Service, State, Table, UnknownOperation};
use unisono_types::borsh::{self, BorshDeserialize, BorshSerialize};
use unisono_types::encode;

/// Totals.
const TOTALS: usize = 3;

/// The service.
pub struct Store {
    registers: Table<u32, u64>,
    totals: [RwLock<u64>; TOTALS],
    lists: Table<u32, Vec<u64>>,
    tallies: Table<u64, Vec<u64>>,
}

/// What a client may ask for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub enum StoreOperation {
    /// The value of a register.
    Read(u32),
    /// Sets it.
    Write(u32, u64),
    /// Sets it; answers what was there.
    Exchange(u32, u64),
    /// Sets it if it has the first value.
    CompareAndSet(u32, u64, u64),
    /// A total.
    Sum(u8),
    /// Adds to it; answers what it is then.
    Add(u8, u64),
    /// Sleeps so many microseconds, then adds.
    AddLater(u8, u64, u64),
    /// Appends to a list; answers its length.
    Push(u32, u64),
    /// Takes the first of a list, if there is one.
    Pop(u32),
    /// Takes the first of a list; waits so many microseconds for one.
    Take(u32, u64),
    /// Moves the first of one list to the end of another, both locked in ascending order.
    Move(u32, u32),
    /// The same, locked as they come, which may be a deadlock.
    MoveCarelessly(u32, u32),
    /// Notes that this request ran, after that many yields; answers how often it has.
    Tally(u8),
    /// Panics.
    Panic,
}

/// What a client is answered.
#[derive(Clone, PartialEq, Eq, Hash, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub enum StoreAnswer {
    /// A number.
    Number(u64),
    /// Nothing there.
    Nothing,
    /// It was done, or not.
    Done(bool),
    /// A lock could not be had; nothing was changed.
    Refused,
}

use StoreAnswer::{Done, Nothing, Number, Refused};

impl State for Store {
    fn create(objects: &mut Objects, name: &str) -> Self {
        Self {
            registers: State::create(objects, &Objects::path(name, "registers")),
            totals: State::create(objects, &Objects::path(name, "totals")),
            lists: State::create(objects, &Objects::path(name, "lists")),
            tallies: State::create(objects, &Objects::path(name, "tallies")),
        }
    }
}

impl Service for Store {
    async fn execute<'a>(&'a self, cx: &'a Context, operation: &'a [u8]) -> Result<Vec<u8>, UnknownOperation> {
        let operation: StoreOperation = borsh::from_slice(operation).map_err(|_| UnknownOperation)?;
        Ok(encode(&self.perform(cx, operation).await))
    }

    fn handler(operation: &[u8]) -> &'static str {
        match operation.first() {
            Some(0..=3) => "register",
            Some(4..=6) => "total",
            Some(7..=11) => "list",
            Some(12) => "tally",
            Some(13) => "panic",
            _ => "unknown",
        }
    }

    fn sample_operation(seed: u64) -> Vec<u8> {
        encode(&StoreOperation::draw(&mut Random::new(seed), seed))
    }
}

impl Store {
    async fn perform(&self, cx: &Context, operation: StoreOperation) -> StoreAnswer {
        use StoreOperation as Op;
        match operation {
            Op::Read(key) => Number(self.registers.read(cx, key).await.with((), |value, ()| *value)),
            Op::Write(key, new) => {
                self.registers.lock(cx, key).await.with_mut(new, |value, new| *value = new);
                Done(true)
            }
            Op::Exchange(key, new) => Number(self.registers.lock(cx, key).await.with_mut(new, std::mem::replace)),
            Op::CompareAndSet(key, expected, new) => self.compare_and_set(cx, key, expected, new).await,
            Op::Sum(total) => Number(self.total(total).read(cx).await.with((), |sum, ()| *sum)),
            Op::Add(total, amount) => self.add(cx, total, amount).await,
            Op::AddLater(total, amount, nap) => {
                cx.sleep(nap).await;
                self.add(cx, total, amount).await
            }
            Op::Push(list, value) => {
                let mut list = self.lists.lock(cx, list).await;
                let length = list.with_mut(value, push);
                list.notify_one(0);
                Number(length)
            }
            Op::Pop(list) => self.lists.lock(cx, list).await.with_mut((), pop).map_or(Nothing, Number),
            Op::Take(list, patience) => self.take(cx, list, patience).await,
            Op::Move(from, to) => self.move_first(cx, from, to).await.unwrap_or(Refused),
            Op::MoveCarelessly(from, to) => self.move_carelessly(cx, from, to).await.unwrap_or(Refused),
            Op::Tally(yields) => self.tally(cx, yields).await,
            Op::Panic => panic!("a handler that panics"),
        }
    }

    fn total(&self, total: u8) -> &RwLock<u64> {
        &self.totals[usize::from(total) % TOTALS]
    }

    async fn compare_and_set(&self, cx: &Context, key: u32, expected: u64, new: u64) -> StoreAnswer {
        let mut register = self.registers.lock(cx, key).await;
        Done(register.with_mut((expected, new), |value, (expected, new)| {
            let equal = *value == expected;
            if equal {
                *value = new;
            }
            equal
        }))
    }

    async fn add(&self, cx: &Context, total: u8, amount: u64) -> StoreAnswer {
        let mut total = self.total(total).write(cx).await;
        Number(total.with_mut(amount, |sum, amount| {
            *sum = sum.wrapping_add(amount);
            *sum
        }))
    }

    /// Every wake-up looks again: what was pushed may have been popped by somebody who came in between.
    async fn take(&self, cx: &Context, list: u32, patience: u64) -> StoreAnswer {
        let deadline = cx.now().after(patience);
        let mut list = self.lists.lock(cx, list).await;
        loop {
            if let Some(value) = list.with_mut((), pop) {
                return Number(value);
            }
            let left = deadline.0.saturating_sub(cx.now().0);
            if left == 0 {
                return Nothing;
            }
            list = list.wait_for(0, left).await.0;
        }
    }

    async fn move_first(&self, cx: &Context, from: u32, to: u32) -> Result<StoreAnswer, LockError> {
        let [mut from, mut to] = self.lists.lock_all(cx, [from, to]).await?;
        let Some(value) = from.with_mut((), pop) else { return Ok(Nothing) };
        to.with_mut(value, push);
        to.notify_one(0);
        Ok(Number(value))
    }

    async fn move_carelessly(&self, cx: &Context, from: u32, to: u32) -> Result<StoreAnswer, LockError> {
        let mut from = self.lists.lock_or(cx, from).await?;
        cx.yield_now().await;
        let mut to = self.lists.lock_or(cx, to).await?;
        let Some(value) = from.with_mut((), pop) else { return Ok(Nothing) };
        to.with_mut(value, push);
        to.notify_one(0);
        Ok(Number(value))
    }

    async fn tally(&self, cx: &Context, yields: u8) -> StoreAnswer {
        for _ in 0..yields {
            cx.yield_now().await;
        }
        let mut tally = self.tallies.lock(cx, cx.session().0).await;
        Number(tally.with_mut(cx.number().0, |numbers, number| {
            numbers.push(number);
            numbers.iter().filter(|other| **other == number).count() as u64
        }))
    }
}

fn push(list: &mut Vec<u64>, value: u64) -> u64 {
    list.push(value);
    list.len() as u64
}

fn pop(list: &mut Vec<u64>, (): ()) -> Option<u64> {
    if list.is_empty() { None } else { Some(list.remove(0)) }
}

/// Registers that clients use.
const REGISTERS: u64 = 4;

/// Lists that clients use.
const LISTS: u64 = 3;

/// Longest wait for an element of a list, and longest nap.
const PATIENCE_MAX: u64 = 1_500_000;

impl StoreOperation {
    /// Any operation whose effect a history can tell; `unique` is what it writes.
    pub fn draw(random: &mut Random, unique: u64) -> Self {
        let register = random.below(REGISTERS) as u32;
        let total = random.below(TOTALS as u64) as u8;
        let (list, other) = (random.below(LISTS) as u32, random.below(LISTS) as u32);
        let wait = random.below(PATIENCE_MAX);
        match random.below(20) {
            0..=2 => Self::Read(register),
            3 | 4 => Self::Write(register, unique),
            5 => Self::Exchange(register, unique),
            6 => Self::CompareAndSet(register, 0, unique),
            7 => Self::Sum(total),
            8 | 9 => Self::Add(total, unique),
            10 => Self::AddLater(total, unique, wait / 10),
            11..=13 => Self::Push(list, unique),
            14 => Self::Pop(list),
            15 | 16 => Self::Take(list, wait),
            17 => Self::Move(list, other),
            _ => Self::MoveCarelessly(list, other),
        }
    }

    /// Something for a client that has many requests under way.
    pub fn draw_busy(random: &mut Random) -> Self {
        match random.below(30) {
            0 => Self::Panic,
            1 | 2 => Self::AddLater(0, 0, random.below(300_000)),
            3 => Self::Take(LISTS as u32, random.below(300_000)),
            _ => Self::Tally(random.below(3) as u8),
        }
    }

    /// Which part of the history it belongs to; parts cannot influence each other.
    #[must_use]
    pub const fn part(&self) -> Option<(u8, u32)> {
        match self {
            Self::Read(key) | Self::Write(key, _) | Self::Exchange(key, _) | Self::CompareAndSet(key, _, _) => {
                Some((0, *key))
            }
            Self::Sum(total) | Self::Add(total, _) | Self::AddLater(total, _, _) => Some((1, *total as u32)),
            Self::Push(..) | Self::Pop(_) | Self::Take(..) | Self::Move(..) | Self::MoveCarelessly(..) => Some((2, 0)),
            Self::Tally(_) | Self::Panic => None,
        }
    }

    /// Whether it may be refused, with nothing changed: lists are what is locked two at a time.
    #[must_use]
    pub const fn may_meet_deadlock(&self) -> bool {
        matches!(self.part(), Some((2, _)))
    }

    /// Reads of everything that a history can tell about, for its end.
    #[must_use]
    pub fn reads() -> Vec<Self> {
        let registers = (0..REGISTERS as u32).map(Self::Read);
        registers.chain((0..TOTALS as u8).map(Self::Sum)).chain((0..LISTS as u32).map(Self::Pop)).collect()
    }
}

/// What the store does when nothing else is under way.
#[derive(Debug)]
pub struct StoreModel;

/// The state of one part.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Part {
    number: u64,
    lists: BTreeMap<u32, Vec<u64>>,
}

impl Model for StoreModel {
    type State = Part;
    type Input = StoreOperation;
    type Output = StoreAnswer;

    fn step(state: &mut Part, input: &StoreOperation) -> StoreAnswer {
        use StoreOperation as Op;
        match input {
            Op::Read(_) | Op::Sum(_) => Number(state.number),
            Op::Write(_, new) => {
                state.number = *new;
                Done(true)
            }
            Op::Exchange(_, new) => Number(std::mem::replace(&mut state.number, *new)),
            Op::CompareAndSet(_, expected, new) => {
                let equal = state.number == *expected;
                if equal {
                    state.number = *new;
                }
                Done(equal)
            }
            Op::Add(_, amount) | Op::AddLater(_, amount, _) => {
                state.number = state.number.wrapping_add(*amount);
                Number(state.number)
            }
            Op::Push(list, value) => Number(push(state.lists.entry(*list).or_default(), *value)),
            Op::Pop(list) | Op::Take(list, _) => state.take(*list).map_or(Nothing, Number),
            Op::Move(from, to) | Op::MoveCarelessly(from, to) => match state.take(*from) {
                None => Nothing,
                Some(value) => {
                    push(state.lists.entry(*to).or_default(), value);
                    Number(value)
                }
            },
            Op::Tally(_) | Op::Panic => Nothing,
        }
    }
}

impl Part {
    fn take(&mut self, list: u32) -> Option<u64> {
        self.lists.get_mut(&list).and_then(|list| pop(list, ()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::{Operation, Verdict, check};

    fn done(
        called: u64,
        at: u64,
        input: StoreOperation,
        output: StoreAnswer,
    ) -> Operation<StoreOperation, StoreAnswer> {
        Operation { client: 0, called, input, returned: Some((at, output)) }
    }

    #[test]
    fn a_lost_push_and_a_doubled_pop_are_seen() {
        let push = done(0, 1, StoreOperation::Push(0, 7), Number(1));
        let pop = |called, answer| done(called, called + 1, StoreOperation::Pop(0), answer);
        assert_eq!(check::<StoreModel>(&[push.clone(), pop(2, Number(7)), pop(4, Nothing)]), Verdict::Linearizable);
        assert!(matches!(check::<StoreModel>(&[push.clone(), pop(2, Nothing)]), Verdict::Violated(_)));
        let twice = [push, pop(2, Number(7)), pop(4, Number(7))];
        assert!(matches!(check::<StoreModel>(&twice), Verdict::Violated(_)));
    }

    #[test]
    fn a_take_that_gives_up_must_have_met_an_empty_list() {
        let push = done(0, 1, StoreOperation::Push(0, 7), Number(1));
        let take = |called, at| done(called, at, StoreOperation::Take(0, 50), Nothing);
        assert!(matches!(check::<StoreModel>(&[push.clone(), take(2, 9)]), Verdict::Violated(_)));
        assert_eq!(
            check::<StoreModel>(&[done(5, 6, StoreOperation::Push(0, 7), Number(1)), take(2, 9)]),
            Verdict::Linearizable
        );
    }

    #[test]
    fn an_element_that_moves_is_nowhere_else() {
        let history = [
            done(0, 1, StoreOperation::Push(0, 7), Number(1)),
            done(2, 3, StoreOperation::Move(0, 1), Number(7)),
            done(4, 5, StoreOperation::Pop(0), Number(7)),
        ];
        assert!(matches!(check::<StoreModel>(&history), Verdict::Violated(_)));
    }

    #[test]
    fn operations_of_every_part_are_drawn() {
        let mut random = Random::new(1);
        let drawn: Vec<StoreOperation> = (0..500).map(|unique| StoreOperation::draw(&mut random, unique)).collect();
        for part in 0..3 {
            assert!(drawn.iter().any(|operation| operation.part().is_some_and(|(kind, _)| kind == part)));
        }
        assert!(drawn.iter().all(|operation| operation.part().is_some()));
        assert_eq!(Store::handler(&encode(&StoreOperation::Panic)), "panic");
        assert_eq!(Store::handler(&encode(&StoreOperation::Push(1, 1))), "list");
        assert_eq!(Store::handler(&encode(&StoreOperation::Sum(1))), "total");
    }
}
