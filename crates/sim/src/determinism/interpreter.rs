//! The service that takes its handlers from its requests.

use super::program::{Action, Foretold, MUTEXES, PLACES, Program, SEMAPHORES, SHARED};
use crate::{Random, random_change};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use unisono_execution::{
    Change, Context, Declaration, DeclaredLock, Guard, JoinHandle, Lane, LockError, Mutex, Objects, RwLock, Semaphore,
    Service, State, Table, UnknownOperation,
};
use unisono_scheduler::{ClassRule, Order, Predicate};
use unisono_types::borsh::{self, BorshDeserialize, BorshSerialize};
use unisono_types::{ScheduleOrder, SchedulePredicate, encode};

/// Permits of each semaphore.
const PERMITS: u64 = 2;

/// Rows with tokens; those below it are deleted now and then.
const ROWS_OF_PLACES: u32 = 100;

/// How often a spinning handler asks.
const SPINS: u32 = 6;

/// Microseconds that a call waits at least.
const CALL_PATIENCE_MIN: u64 = 500;

/// Whom handlers call. The pretended outside of `execution::testing` answers by name, request and seed.
const TARGETS: [&str; 3] = ["oracle", "weather", "bank"];

/// What a handler has seen and done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub struct Tally {
    /// A digest of all that it has seen.
    pub seen: u64,
    /// Waits on a condition.
    pub waits: u64,
    /// Whatever was not there in time.
    pub timeouts: u64,
    /// Children born.
    pub spawns: u64,
    /// Tries.
    pub tries: u64,
    /// Outside calls.
    pub calls: u64,
    /// Locks that would have been a deadlock.
    pub deadlocks: u64,
    /// Changes of the schedule.
    pub reconfigurations: u64,
}

impl Tally {
    /// Both.
    pub const fn add(&mut self, other: &Self) {
        self.see(other.seen);
        self.waits += other.waits;
        self.timeouts += other.timeouts;
        self.spawns += other.spawns;
        self.tries += other.tries;
        self.calls += other.calls;
        self.deadlocks += other.deadlocks;
        self.reconfigurations += other.reconfigurations;
    }

    const fn see(&mut self, value: u64) {
        self.seen = mix(self.seen, value);
    }
}

/// Runs [`Program`]s.
#[derive(Clone)]
pub struct Interpreter {
    mutexes: [Mutex<Cell>; MUTEXES],
    shared: [RwLock<u64>; SHARED],
    rows: Table<u32, Cell>,
    permits: [Semaphore<PERMITS>; SEMAPHORES],
}

#[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
struct Cell {
    digest: u64,
    tokens: u64,
}

impl Cell {
    fn mix(&mut self, seen: u64) -> u64 {
        self.digest = mix(self.digest, seen);
        self.digest
    }

    fn take(&mut self, (): ()) -> bool {
        let there = self.tokens > 0;
        self.tokens -= u64::from(there);
        there
    }
}

impl State for Interpreter {
    fn create(objects: &mut Objects, name: &str) -> Self {
        Self {
            mutexes: State::create(objects, &Objects::path(name, "mutexes")),
            shared: State::create(objects, &Objects::path(name, "shared")),
            rows: State::create(objects, &Objects::path(name, "rows")),
            permits: State::create(objects, &Objects::path(name, "permits")),
        }
    }
}

impl Service for Interpreter {
    async fn execute<'a>(&'a self, cx: &'a Context, operation: &'a [u8]) -> Result<Vec<u8>, UnknownOperation> {
        let program: Program = borsh::from_slice(operation).map_err(|_| UnknownOperation)?;
        Ok(encode(&self.clone().run(cx, &program.actions, 0).await))
    }

    fn handler(operation: &[u8]) -> &'static str {
        match borsh::from_slice::<Program>(operation) {
            Ok(Program { foretold: Foretold::Nothing, .. }) => "undeclared",
            Ok(Program { foretold: Foretold::Locks, .. }) => "foretold",
            Ok(Program { foretold: Foretold::Declared, .. }) => "declared",
            Ok(Program { foretold: Foretold::TooLittle, .. }) => "wrongly declared",
            Err(_) => "unknown",
        }
    }

    fn declare(&self, operation: &[u8]) -> Declaration {
        let Ok(program) = borsh::from_slice::<Program>(operation) else { return Declaration::default() };
        let mut locks = Vec::new();
        if program.foretold != Foretold::Nothing {
            self.foretell(&program.actions, &mut locks);
        }
        if program.foretold == Foretold::TooLittle {
            locks.pop();
        }
        let lane = match program.foretold {
            Foretold::Nothing | Foretold::Locks => Lane::Undeclared,
            Foretold::Declared | Foretold::TooLittle => Lane::Declared,
        };
        Declaration { class: program.class, lane, locks }
    }
}

/// A handler, or a child, under way.
struct Frame<'cx> {
    tally: Tally,
    children: VecDeque<JoinHandle<'cx, Tally>>,
    /// Locks that it owns, or that are owned by who waits for it.
    owned: u32,
}

type Acting<'f> = Pin<Box<dyn Future<Output = ()> + Send + 'f>>;

impl Interpreter {
    /// Whether the request runs in the declared lane.
    #[must_use]
    pub fn is_declared(operation: &[u8]) -> bool {
        matches!(borsh::from_slice(operation), Ok(Program { foretold: Foretold::Declared | Foretold::TooLittle, .. }))
    }

    async fn run(self, cx: &Context, actions: &[Action], owned: u32) -> Tally {
        let mut frame = Frame { tally: Tally::default(), children: VecDeque::new(), owned };
        frame.tally.see(cx.now().0);
        self.act_all(cx, actions, &mut frame).await;
        frame.tally
    }

    fn act_all<'f, 'cx: 'f>(
        &'f self,
        cx: &'cx Context,
        actions: &'f [Action],
        frame: &'f mut Frame<'cx>,
    ) -> Acting<'f> {
        Box::pin(async move {
            for action in actions {
                self.act(cx, action, frame).await;
                frame.tally.see(cx.now().0);
            }
        })
    }

    async fn act_owning<'cx>(&self, cx: &'cx Context, actions: &[Action], frame: &mut Frame<'cx>) {
        frame.owned += 1;
        self.act_all(cx, actions, frame).await;
        frame.owned -= 1;
    }

    async fn act<'cx>(&self, cx: &'cx Context, action: &Action, frame: &mut Frame<'cx>) {
        match action {
            Action::Lock(mutex, body) => {
                let guard = self.mutex(*mutex).lock_or(cx).await;
                self.under(cx, guard, body, frame).await;
            }
            Action::LockWithin(mutex, patience, body) => {
                let guard = self.mutex(*mutex).lock_for(cx, u64::from(*patience)).await;
                self.under(cx, guard, body, frame).await;
            }
            Action::TryLock(mutex, body) => {
                frame.tally.tries += 1;
                match self.mutex(*mutex).try_lock(cx).await {
                    Some(guard) => self.under(cx, Ok(guard), body, frame).await,
                    None => frame.tally.see(1),
                }
            }
            Action::Read(shared, body) => match self.shared(*shared).read_or(cx).await {
                Ok(guard) => {
                    frame.tally.see(guard.with((), |value, ()| *value));
                    self.act_owning(cx, body, frame).await;
                }
                Err(error) => refused(error, frame),
            },
            Action::Write(shared, body) => match self.shared(*shared).write_or(cx).await {
                Ok(mut guard) => {
                    frame.tally.see(guard.with_mut(frame.tally.seen, mix_into));
                    self.act_owning(cx, body, frame).await;
                }
                Err(error) => refused(error, frame),
            },
            Action::TryRead(shared) => {
                frame.tally.tries += 1;
                let value = self.shared(*shared).try_read(cx).await.map(|guard| guard.with((), |value, ()| *value));
                frame.tally.see(value.unwrap_or(1));
            }
            Action::Row(key, body) => match self.rows.lock_or(cx, *key).await {
                Ok(mut guard) => {
                    frame.tally.see(guard.with_mut(frame.tally.seen, Cell::mix));
                    self.act_owning(cx, body, frame).await;
                    if frame.tally.seen.is_multiple_of(3) {
                        guard.remove();
                    }
                }
                Err(error) => refused(error, frame),
            },
            Action::Rows(one, other) => match self.rows.lock_all(cx, [*one, *other]).await {
                Ok([mut one, other]) => {
                    let digest = other.with((), |cell, ()| cell.digest);
                    frame.tally.see(one.with_mut(digest, Cell::mix));
                }
                Err(error) => refused(error, frame),
            },
            Action::Consume(place, patience) => self.consume(cx, *place, *patience, frame).await,
            Action::Produce(place, all) => self.produce(cx, *place, *all, frame).await,
            Action::Permit(semaphore, patience, body) => {
                let semaphore = &self.permits[usize::from(*semaphore) % SEMAPHORES];
                if semaphore.acquire_for(cx, u64::from(*patience)).await {
                    self.act_all(cx, body, frame).await;
                    semaphore.release(cx).await;
                } else {
                    frame.tally.timeouts += 1;
                    frame.tally.see(2);
                }
            }
            Action::Spin(mutex) => {
                for _ in 0..SPINS {
                    frame.tally.tries += 1;
                    if let Some(mut guard) = self.mutex(*mutex).try_lock(cx).await {
                        frame.tally.see(guard.with_mut(frame.tally.seen, Cell::mix));
                        break;
                    }
                    cx.yield_now().await;
                }
            }
            Action::Sleep(pause) => cx.sleep(u64::from(*pause)).await,
            Action::Yield => cx.yield_now().await,
            Action::Spawn(body) => {
                let (child, body) = (self.clone(), body.clone());
                // Its parent may own something while it waits for it.
                if let Ok(handle) = cx.spawn(move |cx| async move { child.run(&cx, &body, 1).await }).await {
                    frame.tally.spawns += 1;
                    frame.children.push_back(handle);
                }
            }
            Action::Join => {
                if let Some(child) = frame.children.pop_front() {
                    match child.join_or().await {
                        Ok(tally) => frame.tally.add(&tally),
                        Err(fault) => frame.tally.see(fault.to_string().len() as u64),
                    }
                }
            }
            Action::Call(target, patience) => {
                frame.tally.calls += 1;
                let target = TARGETS[usize::from(*target) % TARGETS.len()];
                let patience = Some(CALL_PATIENCE_MIN + u64::from(*patience));
                let answer = cx.call(target, frame.tally.seen.to_le_bytes().to_vec(), patience).await;
                frame.tally.timeouts += u64::from(answer == Err(unisono_execution::CallError::TimedOut));
                encode(&answer.map(|bytes| bytes.to_vec())).iter().for_each(|byte| frame.tally.see(u64::from(*byte)));
            }
            Action::Reconfigure(seed) => {
                frame.tally.reconfigurations += 1;
                cx.reconfigure(change(*seed)).await;
            }
            // Without a word: nobody has to hear of a hundred thousand of them.
            Action::Panic => std::panic::resume_unwind(Box::new("a program that panics")),
        }
    }

    async fn under<'cx>(
        &self,
        cx: &'cx Context,
        guard: Result<Guard<'cx, Cell>, LockError>,
        body: &[Action],
        frame: &mut Frame<'cx>,
    ) {
        match guard {
            Ok(mut guard) => {
                frame.tally.see(guard.with_mut(frame.tally.seen, Cell::mix));
                self.act_owning(cx, body, frame).await;
            }
            Err(error) => refused(error, frame),
        }
    }

    async fn consume(&self, cx: &Context, place: u8, patience: Option<u32>, frame: &mut Frame<'_>) {
        let mut guard = match self.lock_place(cx, place).await {
            Ok(guard) => guard,
            Err(error) => return refused(error, frame),
        };
        while !guard.with_mut((), Cell::take) {
            frame.tally.waits += 1;
            guard = match patience {
                None => guard.wait(0).await,
                Some(patience) => {
                    let (guard, late) = guard.wait_for(0, u64::from(patience)).await;
                    if late {
                        frame.tally.timeouts += 1;
                        return frame.tally.see(3);
                    }
                    guard
                }
            };
        }
        frame.tally.see(guard.with_mut(frame.tally.seen, Cell::mix));
    }

    /// Of who owns nothing the token must come: whoever waits without a time-out waits for it.
    async fn produce(&self, cx: &Context, place: u8, all: bool, frame: &mut Frame<'_>) {
        loop {
            match self.lock_place(cx, place).await {
                Ok(mut guard) => {
                    guard.with_mut((), |cell, ()| cell.tokens += 1);
                    if all {
                        guard.notify_all(0)
                    } else {
                        guard.notify_one(0)
                    }
                    return;
                }
                Err(LockError::Deadlock) if frame.owned == 0 => refused(LockError::Deadlock, frame),
                Err(error) => return refused(error, frame),
            }
        }
    }

    /// Where tokens lie: a mutex, or a row that is never deleted.
    async fn lock_place<'cx>(&self, cx: &'cx Context, place: u8) -> Result<Guard<'cx, Cell>, LockError> {
        match Place::of(place) {
            Place::Mutex(mutex) => self.mutexes[mutex].lock_or(cx).await,
            Place::Row(row) => self.rows.lock_or(cx, row).await,
        }
    }

    fn mutex(&self, number: u8) -> &Mutex<Cell> {
        &self.mutexes[usize::from(number) % MUTEXES]
    }

    fn shared(&self, number: u8) -> &RwLock<u64> {
        &self.shared[usize::from(number) % SHARED]
    }

    /// Each lock once for every time that the actions may take it.
    fn foretell(&self, actions: &[Action], locks: &mut Vec<DeclaredLock>) {
        for action in actions {
            match action {
                Action::Lock(mutex, body) | Action::LockWithin(mutex, _, body) | Action::TryLock(mutex, body) => {
                    locks.push(self.mutex(*mutex).declared());
                    self.foretell(body, locks);
                }
                Action::Consume(place, _) | Action::Produce(place, _) => locks.push(match Place::of(*place) {
                    Place::Mutex(mutex) => self.mutexes[mutex].declared(),
                    Place::Row(row) => self.rows.declared(&row),
                }),
                Action::Spin(mutex) => locks.push(self.mutex(*mutex).declared()),
                Action::Read(shared, body) => {
                    locks.push(self.shared(*shared).declared_read());
                    self.foretell(body, locks);
                }
                Action::TryRead(shared) => locks.push(self.shared(*shared).declared_read()),
                Action::Write(shared, body) => {
                    locks.push(self.shared(*shared).declared());
                    self.foretell(body, locks);
                }
                Action::Row(key, body) => {
                    locks.push(self.rows.declared(key));
                    self.foretell(body, locks);
                }
                Action::Rows(one, other) => locks.extend([one, other].map(|key| self.rows.declared(key))),
                Action::Permit(_, _, body) | Action::Spawn(body) => self.foretell(body, locks),
                Action::Sleep(_)
                | Action::Yield
                | Action::Join
                | Action::Call(..)
                | Action::Reconfigure(_)
                | Action::Panic => {}
            }
        }
    }
}

/// Where tokens lie.
enum Place {
    Mutex(usize),
    Row(u32),
}

impl Place {
    fn of(number: u8) -> Self {
        let number = usize::from(number) % PLACES;
        match number.checked_sub(MUTEXES) {
            None => Self::Mutex(number),
            Some(row) => Self::Row(ROWS_OF_PLACES + row as u32),
        }
    }
}

fn refused(error: LockError, frame: &mut Frame<'_>) {
    match error {
        LockError::Deadlock => frame.tally.deadlocks += 1,
        LockError::TimedOut => frame.tally.timeouts += 1,
        _ => {}
    }
    frame.tally.see(error as u64 + 4);
}

const fn mix(one: u64, other: u64) -> u64 {
    (one.rotate_left(7) ^ other).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn mix_into(value: &mut u64, seen: u64) -> u64 {
    *value = mix(*value, seen);
    *value
}

/// What a handler makes of a number.
pub(crate) fn change(seed: u64) -> Change {
    let change = random_change(&mut Random::new(seed));
    Change {
        primaries: change.primaries,
        steps: change.steps,
        order: change.order.map(|order| match order {
            ScheduleOrder::RoundRobin => Order::RoundRobin,
            ScheduleOrder::Quantum(quantum) => Order::Quantum(quantum),
            ScheduleOrder::Explicit(vector) => Order::Explicit(vector),
        }),
        flush_rounds: change.flush_rounds,
        predicate: change.predicate.map(|predicate| match predicate {
            SchedulePredicate::All => Predicate::All,
            SchedulePredicate::FutureLocks => Predicate::FutureLocks,
            SchedulePredicate::Classes(rules) => Predicate::Classes(
                rules
                    .into_iter()
                    .map(|rule| ClassRule { class: rule.class, every: rule.every, phase: rule.phase })
                    .collect(),
            ),
        }),
    }
}
