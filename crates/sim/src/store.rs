//! The service that the simulator runs: small, and made of everything that can go wrong in a schedule. Locks one
//! inside the other, readers and writers, tries, conditional waits and locks with and without time-outs, permits,
//! sleeps, yields, children, the declared lane, questions to the outside, changes of the schedule, deadlocks, panics.
//!
//! ```text
//!   registers  Table      read, write, exchange, compare and set, hold, consult   one part of the history per key
//!   totals     RwLock     sum, add, add after a nap                               one part per total
//!   lists      Table      push, pop, take (waits), move between two lists         one part for all lists
//!   tallies    Table      what each session had done, and how often               exactly once
//!   room       Semaphore  enter, stay, leave; guests: how many are in it          never too many
//!   desks      Table      what a child brings its parent, for a moment            that very value
//! ```
//! [`StoreModel`] says what it should do one operation at a time; all values written are unique.

mod model;
mod operation;

pub use model::{Part, StoreModel};
pub use operation::{Question, StoreAnswer, StoreOperation, USES};

use crate::Random;
use crate::determinism::change;
use StoreAnswer::{Done, Nothing, Number, Refused, Told};
use unisono_execution::{
    CallError, Context, Declaration, DeclaredContext, Fault, Guard, Lane, LockError, Mutex, Objects, RwLock, Semaphore,
    Service, State, Table, UnknownOperation,
};
use unisono_types::borsh;
use unisono_types::encode;

/// Registers that clients use.
const REGISTERS: u64 = 4;

/// Totals.
const TOTALS: usize = 3;

/// Lists that clients use.
const LISTS: u64 = 3;

/// How many the room holds.
pub const ROOM: u64 = 2;

/// The service.
pub struct Store {
    registers: Table<u32, u64>,
    totals: [RwLock<u64>; TOTALS],
    lists: Table<u32, Vec<u64>>,
    tallies: Table<u64, Vec<u64>>,
    room: Semaphore<ROOM>,
    guests: Mutex<u64>,
    /// By the place of the request: nobody else comes to it.
    desks: Table<u64, Vec<u64>>,
}

impl State for Store {
    fn create(objects: &mut Objects, name: &str) -> Self {
        Self {
            registers: State::create(objects, &Objects::path(name, "registers")),
            totals: State::create(objects, &Objects::path(name, "totals")),
            lists: State::create(objects, &Objects::path(name, "lists")),
            tallies: State::create(objects, &Objects::path(name, "tallies")),
            room: State::create(objects, &Objects::path(name, "room")),
            guests: State::create(objects, &Objects::path(name, "guests")),
            desks: State::create(objects, &Objects::path(name, "desks")),
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
            Some(14..) => "more",
            _ => "unknown",
        }
    }

    /// Who is not of the declared lane tells some of its locks: foreknowledge for predicates.
    fn declare(&self, operation: &[u8]) -> Declaration {
        use StoreOperation as Op;
        let Ok(operation) = borsh::from_slice::<Op>(operation) else { return Declaration::default() };
        let (lane, locks) = match &operation {
            Op::ExchangeDeclared(key, _) | Op::Overreach(key) => (Lane::Declared, vec![self.registers.declared(key)]),
            Op::SumDeclared(total) => (Lane::Declared, vec![self.total(*total).declared_read()]),
            Op::MoveDeclared(from, to) => (Lane::Declared, [from, to].map(|list| self.lists.declared(list)).into()),
            Op::Write(key, _) | Op::TryWrite(key, _) => (Lane::Undeclared, vec![self.registers.declared(key)]),
            Op::Add(total, _) => (Lane::Undeclared, vec![self.total(*total).declared()]),
            _ => (Lane::Undeclared, Vec::new()),
        };
        Declaration { class: operation.part().map_or(0, |(kind, _)| u16::from(kind)), lane, locks }
    }

    fn sample_operation(seed: u64) -> Vec<u8> {
        let random = &mut Random::new(seed);
        let draw = if random.chance(500) { StoreOperation::draw } else { StoreOperation::draw_more };
        encode(&draw(random, seed))
    }
}

impl Store {
    async fn perform(&self, cx: &Context, operation: StoreOperation) -> StoreAnswer {
        use StoreOperation as Op;
        match operation {
            Op::Read(key) => Number(self.registers.read(cx, key).await.with((), |value, ()| *value)),
            Op::Write(key, new) => write(&mut self.registers.lock(cx, key).await, new),
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
            Op::Carry(bytes) => Number(operation::sum(&bytes)),
            Op::Panic => panic!("a handler that panics"),
            Op::Hold(key, nap) => {
                let register = self.registers.lock(cx, key).await;
                cx.sleep(nap).await;
                Number(register.with((), |value, ()| *value))
            }
            Op::TryWrite(key, new) => match self.registers.try_lock(cx, key).await {
                Some(mut register) => write(&mut register, new),
                None => Refused,
            },
            Op::WriteWithin(key, new, patience) => match self.registers.lock_for(cx, key, patience).await {
                Ok(mut register) => write(&mut register, new),
                Err(_) => Refused,
            },
            Op::TrySum(total) => {
                let total = self.total(total).try_read(cx).await;
                total.map_or(Refused, |total| Number(total.with((), |sum, ()| *sum)))
            }
            Op::TryAdd(total, amount) => {
                let total = self.total(total).try_write(cx).await;
                total.map_or(Refused, |mut total| Number(total.with_mut(amount, add)))
            }
            Op::ExchangeDeclared(key, new) => {
                let cx = &DeclaredContext::new(cx);
                Number(self.registers.lock(cx, key).await.with_mut(new, std::mem::replace))
            }
            Op::SumDeclared(total) => {
                let cx = &DeclaredContext::new(cx);
                Number(self.total(total).read(cx).await.with((), |sum, ()| *sum))
            }
            Op::MoveDeclared(from, to) => self.move_declared(&DeclaredContext::new(cx), from, to).await,
            Op::Overreach(key) => {
                let cx = &DeclaredContext::new(cx);
                let undeclared = self.registers.lock(cx, key + 1).await;
                Number(undeclared.with((), |value, ()| *value))
            }
            Op::Consult(key, question) => self.consult(cx, key, question).await,
            Op::Ask(question) => Told(ask(cx, question).await),
            Op::Handover(value) => self.hand_over(cx, value).await,
            Op::Bereave => bereave(cx).await,
            Op::Enter(patience, stay) => self.enter(cx, patience, stay).await,
            Op::Reconfigure(seed) => {
                cx.reconfigure(change(seed)).await;
                Done(true)
            }
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
        Number(total.with_mut(amount, add))
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

    /// Its locks may be taken in any order: the tickets have one.
    async fn move_declared(&self, cx: &DeclaredContext<'_>, from: u32, to: u32) -> StoreAnswer {
        let mut from = self.lists.lock(cx, from).await;
        let mut to = self.lists.lock(cx, to).await;
        let Some(value) = from.with_mut((), pop) else { return Nothing };
        to.with_mut(value, push);
        to.notify_one(0);
        Number(value)
    }

    async fn consult(&self, cx: &Context, key: u32, question: Question) -> StoreAnswer {
        let mut register = self.registers.lock(cx, key).await;
        let told = ask(cx, question).await;
        if let Some(number) = told.as_ref().ok().and_then(|bytes| bytes[..].try_into().ok()) {
            write(&mut register, u64::from_le_bytes(number));
        }
        Told(told)
    }

    /// The parent owns the desk when its child is born, so it waits before anything lies there.
    async fn hand_over(&self, cx: &Context, value: u64) -> StoreAnswer {
        let place = cx.position().0;
        let mut desk = self.desks.lock(cx, place).await;
        let desks = self.desks.clone();
        let bring = move |cx: Context| async move {
            let mut desk = desks.lock(&cx, place).await;
            desk.with_mut(value, push);
            desk.notify_all(0);
        };
        let Ok(child) = cx.spawn(bring).await else { return Nothing };
        let brought = loop {
            desk = desk.wait(0).await;
            if let Some(brought) = desk.with_mut((), pop) {
                break brought;
            }
        };
        desk.remove();
        drop(desk);
        child.join().await;
        Number(brought)
    }

    async fn enter(&self, cx: &Context, patience: u64, stay: u64) -> StoreAnswer {
        if !self.room.acquire_for(cx, patience).await {
            return Nothing;
        }
        let guests = self.guests.lock(cx).await.with_mut(1, add);
        cx.sleep(stay).await;
        self.guests.lock(cx).await.with_mut((), |guests, ()| *guests -= 1);
        self.room.release(cx).await;
        Number(guests)
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

fn add(sum: &mut u64, amount: u64) -> u64 {
    *sum = sum.wrapping_add(amount);
    *sum
}

fn write(register: &mut Guard<'_, u64>, new: u64) -> StoreAnswer {
    register.with_mut(new, |value, new| *value = new);
    Done(true)
}

async fn ask(cx: &Context, question: Question) -> Result<Vec<u8>, CallError> {
    if !question.by_child {
        return put(cx, question).await;
    }
    match cx.spawn(move |cx: Context| async move { put(&cx, question).await }).await {
        Ok(child) => child.join().await,
        Err(_) => Err(CallError::TimedOut),
    }
}

async fn put(cx: &Context, question: Question) -> Result<Vec<u8>, CallError> {
    let request = question.bytes().to_vec();
    cx.call(question.target(), request, question.patience).await.map(|answer| answer.to_vec())
}

async fn bereave(cx: &Context) -> StoreAnswer {
    let Ok(child) = cx.spawn(|_| async { panic!("a child that panics") }).await else { return Done(false) };
    let fault: Result<(), Fault> = child.join_or().await;
    Done(matches!(fault, Err(Fault::Panicked { .. })))
}
