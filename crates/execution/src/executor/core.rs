//! The core of an executor: who polls which task, and the latch around everything else.

use super::recorder::Clock;
use super::state::{Known, Phase, State, Task};
use super::{GrantRecord, Notify, Settings};
use crate::context::{Context, FaultKind};
use crate::family::Birth;
use crate::keyed::HashKey;
use crate::latch::{Latch, wait};
use crate::object::Objects;
use crate::recording::Recording;
use crate::service::{Service, UnknownOperation};
use crate::sync::thread::{Builder, JoinHandle};
use crate::sync::{Condvar, MutexGuard};
use crate::thread::{Asked, Name, Thread};
use crate::witness::{Fact, Witness};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use unisono_scheduler::{Declaration, LockId, Operation, Parameters, Scheduler, Status, ThreadIndex};
use unisono_types::{Bytes, Digest, Done, Fault, Outcome, Position, SequenceNumber, Timestamp, Work};

pub(crate) type HandlerFuture = Pin<Box<dyn Future<Output = Result<Vec<u8>, UnknownOperation>> + Send>>;

type Declare = dyn Fn(&[u8]) -> Declaration + Send + Sync;

/// A service, its type forgotten: what begins a handler, and what names it.
pub(super) struct Handlers {
    declare: Box<Declare>,
    begin: Box<dyn Fn(Context, Bytes) -> HandlerFuture + Send + Sync>,
    name: fn(&[u8]) -> &'static str,
}

pub(super) fn handlers<S: Service>(service: Arc<S>) -> Handlers {
    let declaring = Arc::clone(&service);
    // One that panics has declared nothing, on every replica.
    let declare =
        move |operation: &[u8]| catch_unwind(AssertUnwindSafe(|| declaring.declare(operation))).unwrap_or_default();
    let begin = move |cx: Context, operation: Bytes| -> HandlerFuture {
        let service = Arc::clone(&service);
        Box::pin(async move { service.execute(&cx, &operation).await })
    };
    Handlers { declare: Box::new(declare), begin: Box::new(begin), name: S::handler }
}

/// Shared by the executor, its workers and every Context.
pub(crate) struct Core {
    settings: Settings,
    key: HashKey,
    handlers: Handlers,
    state: Latch<State>,
    /// There is something to run, or the end has come.
    work: Condvar,
    /// Nothing is left to run.
    idle: Condvar,
    /// Where threads leave what they learnt and did, when a service is tested.
    witness: Option<Latch<Witness>>,
}

/// Who polls.
#[derive(Clone, Copy)]
enum Runner {
    /// The worker of this number.
    Worker(usize),
    /// Whoever called the executor.
    Caller,
    /// The same, for a single poll.
    Step,
}

impl Runner {
    const fn worker(self) -> Option<usize> {
        match self {
            Self::Worker(number) => Some(number),
            Self::Caller | Self::Step => None,
        }
    }

    /// Whether it polls a task again whose answer is there at once.
    fn goes_on(self, state: &State) -> bool {
        match self {
            Self::Worker(number) => number < state.workers && !state.shut_down,
            Self::Caller => true,
            Self::Step => false,
        }
    }
}

/// What a poll came to.
enum Verdict {
    Operation(Task, Operation),
    End(Outcome),
}

impl Core {
    pub(super) fn new(
        scheduler: Box<dyn Scheduler>,
        settings: Settings,
        objects: Objects,
        handlers: Handlers,
        watched: bool,
    ) -> Arc<Self> {
        let state = State::new(scheduler, objects.finish(), settings);
        let (work, idle) = (Condvar::new(), Condvar::new());
        let key = HashKey::of(settings.cluster);
        let witness = watched.then(Latch::default);
        Arc::new(Self { settings, key, handlers, state: Latch::new(state), work, idle, witness })
    }

    pub(crate) const fn witness(&self) -> Option<&Latch<Witness>> {
        self.witness.as_ref()
    }

    /// The seed of the random numbers of the thread at `position`, or of the child that `path` leads to.
    pub(crate) fn seed(&self, position: Position, path: &[u16]) -> u64 {
        let mut name = position.0.to_le_bytes().to_vec();
        name.extend(path.iter().flat_map(|number| number.to_le_bytes()));
        self.key.hash(&name) as u64
    }

    /// An operation that returns at once: unlock, notify.
    pub(crate) fn at_once(&self, thread: &Thread, operation: Operation) {
        thread.note(|| Fact::Asked(operation.clone()));
        let mut state = self.state.lock_soon();
        if let Some(reply) = state.operation(thread.index, operation) {
            thread.returned(&reply);
        }
        self.release(state, true); // the end of this poll is a moment to look again
    }

    pub(crate) fn bytes_max(&self) -> usize {
        self.settings.result_bytes_max
    }

    pub(super) fn declaration(&self, operation: &[u8]) -> Declaration {
        (self.handlers.declare)(operation)
    }

    fn handler(&self, operation: &[u8]) -> &'static str {
        catch_unwind(AssertUnwindSafe(|| (self.handlers.name)(operation))).unwrap_or("unknown")
    }

    pub(super) fn record(&self, limit: usize) {
        self.state.lock_soon().record(limit);
    }

    pub(super) fn set_clock(&self, clock: Clock) {
        self.state.lock_soon().clock = Some(clock);
    }

    pub(super) fn recording(&self) -> Recording {
        self.state.lock_soon().recording()
    }

    pub(super) fn grants(&self, from: u64, limit: usize) -> Vec<GrantRecord> {
        self.state.lock_soon().last_grants(from, limit)
    }

    pub(super) fn submit(&self, works: impl IntoIterator<Item = Work>) {
        // A service's own code is not called under the latch.
        let known = |work: &Work| match work {
            Work::Request { operation, .. } => {
                Known { declaration: self.declaration(operation), handler: self.handler(operation) }
            }
            _ => Known::default(),
        };
        let works: Vec<(Known, Work)> = works.into_iter().map(|work| (known(&work), work)).collect();
        let mut state = self.state.lock_soon();
        for (known, work) in works {
            state.submit(work, known);
        }
        if state.workers > 0 {
            state.rest();
        }
        self.release(state, false);
    }

    pub(super) fn decided(&self, sequence: SequenceNumber) {
        self.state.lock_soon().settled.seen(sequence);
    }

    pub(super) fn take_done(&self, done: &mut Vec<Done>) {
        let mut state = self.state.lock_soon();
        state.rest();
        done.append(&mut state.done);
        state.notices.taken();
    }

    pub(super) fn set_notify(&self, notify: Notify) {
        self.state.lock_soon().notices.set(notify);
    }

    pub(super) fn executed(&self) -> SequenceNumber {
        self.state.lock_soon().settled.executed()
    }

    pub(super) fn leaves(&self, after: Option<&str>, limit: usize) -> Vec<(String, Digest)> {
        self.state.lock_soon().registry.tree().page(after, limit)
    }

    pub(super) fn objects(&self) -> usize {
        self.state.lock_soon().registry.tree().len()
    }

    pub(super) fn lock_names(&self, locks: &BTreeSet<LockId>) -> BTreeMap<LockId, String> {
        self.state.lock_soon().registry.lock_names(locks)
    }

    pub(super) fn answers(&self) -> usize {
        self.state.lock_soon().calls.values()
    }

    pub(super) fn parameters(&self) -> Option<Parameters> {
        self.state.lock_soon().scheduler.parameters().cloned()
    }

    pub(super) fn status(&self) -> Status {
        self.state.lock_soon().scheduler.status()
    }

    /// Workers with a number from `workers` on come to their end.
    pub(super) fn set_workers(&self, workers: usize) {
        self.state.lock_soon().workers = workers;
        self.work.notify_all();
    }

    pub(super) fn workers(&self) -> usize {
        self.state.lock_soon().workers
    }

    pub(super) fn set_start_ahead(&self, start_ahead: usize) {
        let mut state = self.state.lock_soon();
        state.start_ahead = start_ahead;
        self.release(state, false);
    }

    pub(super) fn start_ahead(&self) -> usize {
        self.state.lock_soon().start_ahead
    }

    pub(super) fn run_until_idle(self: &Arc<Self>) {
        let mut state = self.state.lock_soon();
        while let Some(index) = state.ready.pop_front() {
            state = self.run(state, index, Runner::Caller);
        }
        state.rest();
    }

    pub(super) fn runnable(&self) -> usize {
        let mut state = self.state.lock_soon();
        let ahead = state.candidates();
        state.ready.len() + ahead
    }

    pub(super) fn step(self: &Arc<Self>, pick: usize) -> bool {
        let mut state = self.state.lock_soon();
        let ready = state.ready.len();
        let index = if pick < ready {
            state.ready.remove(pick)
        } else if pick - ready < state.candidates() {
            state.begin_ahead(pick - ready)
        } else {
            None
        };
        let Some(index) = index else { return false };
        self.run(state, index, Runner::Step).rest();
        true
    }

    pub(super) fn wait_idle(&self) {
        let mut state = self.state.lock_soon();
        state.waiting_for_idle += 1;
        while !state.is_idle() {
            state = wait(&self.idle, state);
        }
        state.waiting_for_idle -= 1;
    }

    fn work(self: &Arc<Self>, number: usize) {
        let mut state = self.state.lock_soon();
        while Runner::Worker(number).goes_on(&state) {
            if let Some(index) = state.next() {
                self.wake(&mut state); // each worker that wakes up wakes the next one while there is work
                state = self.run(state, index, Runner::Worker(number));
                continue;
            }
            if state.polling == 0 {
                state.rest();
            }
            self.say_if_idle(&state);
            if let Some(notify) = state.notice(false) {
                state = self.tell(state, &notify);
            } else {
                state.sleepers.sleeps();
                state = wait(&self.work, state);
                state.sleepers.woke();
            }
        }
        // Nobody must wait for a worker that is gone: neither for what it made ready, nor for its word that all is done.
        self.wake(&mut state);
        self.say_if_idle(&state);
    }

    fn say_if_idle(&self, state: &State) {
        if state.waiting_for_idle > 0 && state.is_idle() {
            self.idle.notify_all();
        }
    }

    /// Runs the task of slot `index` until it waits, or until the runner is to do something else.
    fn run<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
        index: u32,
        runner: Runner,
    ) -> MutexGuard<'a, State> {
        let thread = ThreadIndex(index);
        state.record_run(thread, runner.worker());
        let slot = state.slot(thread);
        let reply = slot.reply.take();
        let phase = std::mem::replace(&mut slot.phase, Phase::Polled);
        let fresh = matches!(phase, Phase::Fresh(..) | Phase::FreshChild(..)).then(|| slot.name.clone());
        let task = slot.task.take();
        state.polling += 1;
        drop(state);

        let mut task = match (phase, fresh, task) {
            (Phase::Fresh(now, operation), Some(name), _) => self.begin(thread, name, now, operation),
            (Phase::FreshChild(now, birth), Some(name), _) => self.begin_child(thread, name, now, birth),
            (_, _, Some(task)) => task,
            (_, _, None) => unreachable!("a task is in its slot while nobody polls it"),
        };
        if let Some(reply) = reply {
            task.thread.answer(reply);
        }
        loop {
            let verdict = self.poll(task);
            state = self.state.lock_soon();
            match verdict {
                Verdict::Operation(asking, mut operation) => {
                    state.prepare(&asking.thread, &mut operation);
                    let reply = state.operation(thread, operation);
                    if let Some(reply) = reply {
                        if runner.goes_on(&state) {
                            self.wake(&mut state);
                            drop(state);
                            asking.thread.answer(reply);
                            task = asking;
                            continue;
                        }
                        state.slot(thread).reply = Some(reply);
                    }
                    state.put_back(thread, asking);
                }
                Verdict::End(outcome) => {
                    state.slot(thread).phase = Phase::Finishing(outcome);
                    state.operation(thread, Operation::Finish);
                }
            }
            state.polling -= 1;
            // What is ready now, the runner looks for itself.
            let looks_again = runner.worker().is_some() && (!state.ready.is_empty() || state.may_run_ahead());
            return match state.notice(looks_again) {
                Some(notify) => self.tell(state, &notify),
                None => state,
            };
        }
    }

    fn begin(self: &Arc<Self>, index: ThreadIndex, name: Name, now: Timestamp, operation: Bytes) -> Task {
        let thread = Arc::new(Thread::new(Arc::clone(self), index, name, now));
        Task { future: (self.handlers.begin)(Context::new(Arc::clone(&thread)), operation), thread }
    }

    fn begin_child(self: &Arc<Self>, index: ThreadIndex, name: Name, now: Timestamp, birth: Birth) -> Task {
        let mut thread = Thread::new(Arc::clone(self), index, name, now);
        thread.end = Some(Arc::clone(&birth.end));
        let thread = Arc::new(thread);
        Task { future: birth.begin(Context::new(Arc::clone(&thread))), thread }
    }

    /// Polls once. No latch of ours is held.
    fn poll(&self, mut task: Task) -> Verdict {
        let mut cx = std::task::Context::from_waker(Waker::noop());
        let polled = catch_unwind(AssertUnwindSafe(|| task.future.as_mut().poll(&mut cx)));
        let outcome = match polled {
            Ok(Poll::Pending) => match task.thread.asked() {
                Asked::Operation(operation) => {
                    task.thread.note(|| Fact::Asked(operation.clone()));
                    return Verdict::Operation(task, operation);
                }
                Asked::Fault(fault) => Err(fault),
            },
            Ok(Poll::Ready(result)) => match task.thread.ended() {
                None => Ok(result),
                Some(fault) => Err(fault),
            },
            Err(_) => Err(FaultKind::Panicked),
        };
        let handler = task.thread.handler;
        if let (Err(fault), Some(end)) = (&outcome, &task.thread.end) {
            *end.lock() = Some(*fault);
        }
        let outcome = match outcome {
            Err(fault) => Err(fault.of(handler)),
            Ok(Err(UnknownOperation)) => Err(Fault::UnknownOperation),
            Ok(Ok(bytes)) if bytes.len() > self.settings.result_bytes_max => {
                Err(Fault::ResultTooLarge { handler: handler.to_owned() })
            }
            Ok(Ok(bytes)) => Ok(Bytes::from(bytes)),
        };
        task.thread.note(|| Fact::Ended(outcome.clone()));
        task.tear_down();
        Verdict::End(outcome)
    }

    /// Wakes a worker if there is something for it that no other was woken for.
    fn wake(&self, state: &mut State) {
        let runnable = state.ready.len() + usize::from(state.may_run_ahead());
        if state.sleepers.call(runnable) {
            self.work.notify_one();
        }
    }

    /// Gives the latch back, wakes a worker for what may run now, and tells who wants to know.
    fn release(&self, mut state: MutexGuard<'_, State>, looks_again: bool) {
        self.wake(&mut state);
        let notify = state.notice(looks_again);
        drop(state);
        if let Some(notify) = notify {
            notify();
        }
    }

    /// Without the latch: whoever is told may wake up and want it.
    fn tell<'a>(&'a self, state: MutexGuard<'a, State>, notify: &Notify) -> MutexGuard<'a, State> {
        drop(state);
        notify();
        self.state.lock_soon()
    }

    pub(super) fn shut_down(&self) {
        self.state.lock_soon().shut_down = true;
        self.work.notify_all();
    }

    /// Drops the tasks that are left, without a word to the scheduler.
    pub(super) fn tear_down(&self) {
        let slots = std::mem::take(&mut self.state.lock_soon().slots);
        slots.into_iter().filter_map(|slot| slot.task).for_each(Task::tear_down);
    }
}

/// Worker `number`, if the operating system gives a thread.
pub(super) fn start_worker(core: &Arc<Core>, number: usize) -> std::io::Result<JoinHandle<()>> {
    let core = Arc::clone(core);
    Builder::new().name(format!("execution-{number}")).spawn(move || core.work(number))
}
