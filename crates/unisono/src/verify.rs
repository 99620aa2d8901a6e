//! Checks of what came from outside, beside the event loop: whoever causes them pays for them.
//!
//! ```text
//!   event loop ── few signatures, nothing of the account waits, credit left ──> checked at once
//!       │
//!       └── else: queue per account ──> workers, least served account first ──> results, in order per account
//!                                       one worker takes short checks only
//! ```
//! An account has one check under way at a time, so its results come in order and it occupies one worker at most.
//! Workers serve the class (peers, clients) that has had the least of their time, and in it the account that has: a
//! flood delays others by the check that is running, not by its length. The caller's own time is lent to each account
//! and each class at a fixed rate, so a flood leaves the event loop the rest of it.
//!
//! Nothing is refused here: what is queued is bounded by what lets it in (in the host, a budget of bytes per account
//! that a message takes from until its result was taken).
//!
//! Invariant: no result of an account overtakes an earlier one.
//! Invariant: the event loop never waits for a check that it does not make itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What one signature is taken to cost where nothing was measured.
const SIGNATURE: Duration = Duration::from_micros(50);

/// More signatures than this are never checked by the caller.
const HERE_MAX: usize = 8;

/// A check of at most so many signatures is a short one: some milliseconds.
const SHORT_MAX: usize = 64;

/// Of the caller's time, lent to one account: a third, and so much at once.
const ACCOUNT_RATE: Rate = Rate { percent: 30, burst: Duration::from_millis(20) };

/// The same for all accounts of a class together.
const CLASS_RATE: Rate = Rate { percent: 50, burst: Duration::from_millis(40) };

/// More workers than this check faster than one event loop can feed them.
const WORKERS_MAX: usize = 8;

/// Workers for all checks that a machine with this many cores should have, beside the one for short checks.
#[must_use]
pub const fn workers_for(cores: usize) -> usize {
    // Three: the event loop, the storage thread, and one for everybody else.
    let free = cores.saturating_sub(3);
    if free > WORKERS_MAX {
        WORKERS_MAX
    } else if free == 0 {
        1
    } else {
        free
    }
}

/// Accounts of one class share what is set aside for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Members.
    Peer,
    /// Holders of client keys.
    Client,
}

/// Where an item comes from.
pub trait Source: Copy + Send + 'static {
    /// Who pays for its check, and whose items keep their order. There are not many: accounts are kept for ever.
    type Account: Ord + Copy + Send + 'static;

    /// The account.
    fn account(&self) -> Self::Account;

    /// The class of the account.
    fn class(account: Self::Account) -> Class;
}

/// A check panicked: a defect of ours that something from outside has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Panicked;

/// What came of a check.
pub type Outcome<R> = Result<R, Panicked>;

/// How much a check costs, as far as can be seen before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cost {
    /// So many signatures and nothing else that counts.
    Signatures(usize),
    /// Not known, and more than the caller should spend.
    Long,
}

impl Cost {
    const fn is_short(self) -> bool {
        matches!(self, Self::Signatures(count) if count <= SHORT_MAX)
    }

    /// What it is taken for, whatever a clock says.
    fn expected(self) -> Duration {
        match self {
            Self::Signatures(count) => SIGNATURE * u32::try_from(count.max(1)).unwrap_or(u32::MAX),
            Self::Long => SIGNATURE,
        }
    }
}

type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;
type Check<T, R> = Arc<dyn Fn(T) -> R + Send + Sync>;

/// Checks items of type `T` to results of type `R`. Its threads end some time after it was dropped.
pub struct Verifier<S: Source, T, R> {
    shared: Arc<Shared<S, T, R>>,
    accounts: BTreeMap<S::Account, Account>,
    classes: [Credit; 2],
}

impl<S: Source, T, R> std::fmt::Debug for Verifier<S, T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

/// An account as the caller sees it.
#[derive(Default)]
struct Account {
    /// Queued, under way, or a result that was not taken.
    outstanding: usize,
    credit: Credit,
}

struct Shared<S: Source, T, R> {
    check: Check<T, R>,
    clock: Clock,
    /// Told when there are results again.
    notify: Box<dyn Fn() + Send + Sync>,
    state: Mutex<State<S, T, R>>,
    /// Workers for all checks wait here.
    wake: Condvar,
    /// The worker for short ones waits here.
    wake_short: Condvar,
}

struct State<S: Source, T, R> {
    queues: BTreeMap<S::Account, Queue<S, T>>,
    /// By class: what its accounts have been served, and those that have something to check and no check under way, by
    /// what each has been served.
    classes: [Served<S::Account>; 2],
    results: Vec<(S, Outcome<R>)>,
    /// Workers for all checks that are busy with one that is not short.
    long: usize,
    stop: bool,
}

struct Served<A> {
    time: Duration,
    ready: BTreeSet<(Duration, A)>,
    /// What the account that was served last had been served by then: one that was idle begins there.
    floor: Duration,
}

struct Queue<S, T> {
    items: VecDeque<(S, T, Cost)>,
    running: bool,
    served: Duration,
}

/// Time that is lent: grows with the clock up to a bound, and one check may overdraw it.
#[derive(Clone, Copy, Default)]
struct Credit {
    /// Microseconds.
    balance: i64,
    at: Option<Duration>,
}

#[derive(Clone, Copy)]
struct Rate {
    percent: u32,
    burst: Duration,
}

impl Credit {
    fn left(&mut self, now: Duration, rate: Rate) -> bool {
        let full = micros(rate.burst);
        let earned = self.at.map_or(full, |at| micros(now.saturating_sub(at) * rate.percent / 100));
        // What is less than a microsecond is not lost: it is earned later.
        if self.at.is_none() || earned > 0 {
            self.balance = self.balance.saturating_add(earned).min(full);
            self.at = Some(now);
        }
        self.balance > 0
    }

    fn charge(&mut self, time: Duration) {
        self.balance = self.balance.saturating_sub(micros(time));
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl<S: Source, T: Send + 'static, R: Send + 'static> Verifier<S, T, R> {
    /// `workers` for all checks, at least one, and one more for short ones. `clock` tells the time, `notify` is called
    /// on a worker when there are results again.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new(
        workers: usize,
        check: impl Fn(T) -> R + Send + Sync + 'static,
        clock: impl Fn() -> Duration + Send + Sync + 'static,
        notify: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let verifier = Self::idle(check, clock, notify);
        for number in 0..=workers.max(1) {
            let shared = Arc::clone(&verifier.shared);
            let short_only = number == 0;
            let name = format!("verify-{number}");
            std::thread::Builder::new().name(name).spawn(move || shared.work(short_only))?;
        }
        Ok(verifier)
    }

    /// Without workers: a test is one.
    fn idle(
        check: impl Fn(T) -> R + Send + Sync + 'static,
        clock: impl Fn() -> Duration + Send + Sync + 'static,
        notify: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let served = || Served { time: Duration::ZERO, ready: BTreeSet::new(), floor: Duration::ZERO };
        let classes = [served(), served()];
        let state = State { queues: BTreeMap::new(), classes, results: Vec::new(), long: 0, stop: false };
        let shared = Shared {
            check: Arc::new(check),
            clock: Arc::new(clock),
            notify: Box::new(notify),
            state: Mutex::new(state),
            wake: Condvar::new(),
            wake_short: Condvar::new(),
        };
        Self { shared: Arc::new(shared), accounts: BTreeMap::new(), classes: [Credit::default(); 2] }
    }

    /// The outcome when the check was made at once; otherwise the item is queued, and [`take`](Self::take) has the
    /// outcome later.
    pub fn submit(&mut self, source: S, item: T, cost: Cost) -> Option<Outcome<R>> {
        let account = self.accounts.entry(source.account()).or_default();
        let class = &mut self.classes[S::class(source.account()) as usize];
        let few = matches!(cost, Cost::Signatures(count) if count <= HERE_MAX);
        if few && account.outstanding == 0 {
            let begun = (self.shared.clock)();
            // Both are asked, so that both go on earning.
            if account.credit.left(begun, ACCOUNT_RATE) & class.left(begun, CLASS_RATE) {
                let outcome = self.shared.check(item);
                // A clock that stood or a thread that was held up tells nothing about the source.
                let expected = cost.expected();
                let took = (self.shared.clock)().saturating_sub(begun).clamp(expected / 4, expected * 16);
                account.credit.charge(took);
                class.charge(took);
                return Some(outcome);
            }
        }
        account.outstanding += 1;
        self.shared.push(source, item, cost);
        None
    }

    /// Appends the outcomes that have come since, each account's in its order.
    pub fn take(&mut self, outcomes: &mut Vec<(S, Outcome<R>)>) {
        let results = std::mem::take(&mut self.shared.lock().results);
        for (source, _) in &results {
            self.less(source.account(), 1);
        }
        outcomes.extend(results);
    }

    /// Forgets queued items that are not worth their check any more. What is under way is finished.
    pub fn retain(&mut self, mut keep: impl FnMut(S, &T) -> bool) {
        let mut dropped = Vec::new();
        {
            let mut state = self.shared.lock();
            let State { queues, classes, .. } = &mut *state;
            for (account, queue) in queues {
                let before = queue.items.len();
                queue.items.retain(|(source, item, _)| keep(*source, item));
                dropped.push((*account, before - queue.items.len()));
                if queue.items.is_empty() {
                    classes[S::class(*account) as usize].ready.remove(&(queue.served, *account));
                }
            }
        }
        dropped.into_iter().for_each(|(account, count)| self.less(account, count));
    }

    /// Items whose outcome was not taken.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.accounts.values().map(|account| account.outstanding).sum()
    }

    fn less(&mut self, account: S::Account, count: usize) {
        if let Some(account) = self.accounts.get_mut(&account) {
            account.outstanding -= count;
        }
    }
}

impl<S: Source, T, R> Drop for Verifier<S, T, R> {
    fn drop(&mut self) {
        // Nobody waits for them: what is under way may take long and interests no one.
        self.shared.lock().stop = true;
        self.shared.wake.notify_all();
        self.shared.wake_short.notify_all();
    }
}

impl<S: Source, T, R> Shared<S, T, R> {
    fn lock(&self) -> MutexGuard<'_, State<S, T, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, item: T) -> Outcome<R> {
        catch_unwind(AssertUnwindSafe(|| (self.check)(item))).map_err(|_| Panicked)
    }

    fn push(&self, source: S, item: T, cost: Cost) {
        let mut state = self.lock();
        state.push(source, item, cost);
        let busy = state.long > 0;
        drop(state);
        self.wake.notify_one();
        if busy && cost.is_short() {
            self.wake_short.notify_one();
        }
    }

    fn work(&self, short_only: bool) {
        let mut state = self.lock();
        loop {
            if state.stop {
                return;
            }
            let Some(job) = state.pick(short_only) else {
                let condvar = if short_only { &self.wake_short } else { &self.wake };
                state = condvar.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state = self.run(state, job);
            if short_only {
                // What follows may be none of this worker's.
                self.wake.notify_one();
            }
        }
    }

    /// One check, without the lock.
    fn run<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<S, T, R>>,
        (source, item, cost): (S, T, Cost),
    ) -> MutexGuard<'a, State<S, T, R>> {
        let long = usize::from(!cost.is_short());
        state.long += long;
        drop(state);
        if long > 0 {
            // Short ones that are ready shall not wait for this one.
            self.wake_short.notify_one();
        }
        let begun = (self.clock)();
        let outcome = self.check(item);
        let took = (self.clock)().saturating_sub(begun).max(cost.expected() / 4);
        let mut state = self.lock();
        state.long -= long;
        if state.finish(source, took, outcome) {
            drop(state);
            (self.notify)();
            state = self.lock();
        }
        state
    }
}

impl<S: Source, T, R> State<S, T, R> {
    fn push(&mut self, source: S, item: T, cost: Cost) {
        let account = source.account();
        let queue = self.queues.entry(account).or_insert_with(|| Queue {
            items: VecDeque::new(),
            running: false,
            served: Duration::ZERO,
        });
        queue.items.push_back((source, item, cost));
        if queue.items.len() == 1 && !queue.running {
            let class = S::class(account) as usize;
            let other = 1 - class;
            // Who was idle has saved nothing up.
            queue.served = queue.served.max(self.classes[class].floor);
            if self.classes[class].ready.is_empty() && !self.classes[other].ready.is_empty() {
                self.classes[class].time = self.classes[class].time.max(self.classes[other].time);
            }
            self.classes[class].ready.insert((queue.served, account));
        }
    }

    /// The next check: of the class and the account that have been served least.
    fn pick(&mut self, short_only: bool) -> Option<(S, T, Cost)> {
        let order = if self.classes[0].time <= self.classes[1].time { [0, 1] } else { [1, 0] };
        let fits = |(_, account): &&(Duration, S::Account)| {
            let first = self.queues.get(account).and_then(|queue| queue.items.front());
            first.is_some_and(|(_, _, cost)| !short_only || cost.is_short())
        };
        let next =
            |class: usize| self.classes[class].ready.iter().find(fits).map(|(at, account)| (class, *at, *account));
        let (class, served, account) = order.into_iter().find_map(next)?;
        let class = &mut self.classes[class];
        class.ready.remove(&(served, account));
        class.floor = class.floor.max(served);
        let queue = self.queues.get_mut(&account)?;
        queue.running = true;
        queue.items.pop_front()
    }

    /// Whether there was no result before this one.
    fn finish(&mut self, source: S, took: Duration, outcome: Outcome<R>) -> bool {
        let account = source.account();
        let class = &mut self.classes[S::class(account) as usize];
        class.time += took;
        if let Some(queue) = self.queues.get_mut(&account) {
            queue.running = false;
            queue.served += took;
            if !queue.items.is_empty() {
                class.ready.insert((queue.served, account));
            }
        }
        self.results.push((source, outcome));
        self.results.len() == 1
    }
}

#[cfg(test)]
mod tests;
