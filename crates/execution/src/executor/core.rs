//! The core of an executor: scheduler, slots and ready queue under one latch, and the polling of tasks outside of it.

use super::settle::Settled;
use super::starved::Starved;
use super::{Notify, Settings};
use crate::context::{Asked, Context, FaultKind, Name, Thread};
use crate::family::Birth;
use crate::keyed::HashKey;
use crate::latch::{Latch, wait};
use crate::object::{Objects, Registry};
use crate::service::{Service, UnknownOperation};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, MutexGuard};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use unisono_scheduler::{Entry, Event, Grant, Operation, OperationResult, RoundReport, Scheduler, Status, ThreadIndex};
use unisono_types::{Bytes, Digest, Done, Fault, MarkReport, Outcome, Position, SequenceNumber, Timestamp, Work};

pub(crate) type HandlerFuture = Pin<Box<dyn Future<Output = Result<Vec<u8>, UnknownOperation>> + Send>>;

/// A service, its type forgotten: what begins a handler, and what names it.
pub(super) struct Handlers {
    begin: Box<dyn Fn(Context, Bytes) -> HandlerFuture + Send + Sync>,
    name: fn(&[u8]) -> &'static str,
}

pub(super) fn handlers<S: Service>(service: Arc<S>) -> Handlers {
    let begin = move |cx: Context, operation: Bytes| -> HandlerFuture {
        let service = Arc::clone(&service);
        Box::pin(async move { service.execute(&cx, &operation).await })
    };
    Handlers { begin: Box::new(begin), name: S::handler }
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
}

struct State {
    scheduler: Box<dyn Scheduler>,
    /// Reused between calls, empty between them.
    grants: Vec<Grant>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots that may be polled, in the order of their grants.
    ready: VecDeque<u32>,
    /// Slots that nobody has begun, in order; those begun meanwhile are skipped.
    fresh: VecDeque<u32>,
    /// Threads that run ahead of the scheduler.
    ahead: usize,
    /// Tasks that are being polled.
    polling: usize,
    registry: Registry,
    settled: Settled,
    starved: Starved,
    done: Vec<Done>,
    notify: Option<Notify>,
    /// It was told that there is something in `done`.
    told: bool,
    sleeping: usize,
    shut_down: bool,
}

/// A live thread, or a free place for one.
struct Slot {
    phase: Phase,
    name: Name,
    /// The child whose Spawn is at the scheduler.
    newborn: Option<u32>,
    /// The scheduler has let it begin.
    started: bool,
    /// Counts in `State::ahead`.
    ahead: bool,
    /// No longer counts in `State::settled`.
    settled: bool,
    /// The result of its pending operation.
    answer: Option<(OperationResult, u64)>,
    /// The task, while nobody polls it and it is not finished.
    task: Option<Task>,
}

enum Phase {
    Free,
    /// Nobody has begun it.
    Fresh(Timestamp, Bytes),
    /// A child whose Spawn is at the scheduler, with its parent's handler's name: it must not run ahead yet.
    Unborn(Birth, &'static str),
    /// A child that nobody has begun.
    FreshChild(Timestamp, Birth, &'static str),
    /// In the ready queue.
    Ready,
    /// Being polled, or its operation is just being handed to the scheduler.
    Polled,
    /// Its operation waits in the scheduler.
    Waiting,
    /// Its Finish waits in the scheduler.
    Finishing(Outcome),
}

struct Task {
    thread: Arc<Thread>,
    future: HandlerFuture,
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
    ) -> Arc<Self> {
        let state = State {
            scheduler,
            grants: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            fresh: VecDeque::new(),
            ahead: 0,
            polling: 0,
            registry: objects.finish(),
            settled: Settled::default(),
            starved: Starved::default(),
            done: Vec::new(),
            notify: None,
            told: false,
            sleeping: 0,
            shut_down: false,
        };
        let (work, idle) = (Condvar::new(), Condvar::new());
        let key = HashKey::of(settings.cluster);
        Arc::new(Self { settings, key, handlers, state: Latch::new(state), work, idle })
    }

    /// The seed of the random numbers of the thread at `position`, or of the child that `path` leads to.
    pub(crate) fn seed(&self, position: Position, path: &[u16]) -> u64 {
        let mut name = position.0.to_le_bytes().to_vec();
        name.extend(path.iter().flat_map(|number| number.to_le_bytes()));
        self.key.hash(&name) as u64
    }

    /// An operation that returns at once: unlock, notify.
    pub(crate) fn at_once(&self, thread: &Thread, operation: Operation) {
        let mut state = self.state.lock();
        state.operation(thread.index, operation);
        if let Some((_, now)) = state.slot(thread.index).answer.take() {
            thread.time(now);
        }
        self.release(state);
    }

    pub(super) fn submit(&self, works: impl IntoIterator<Item = Work>) {
        let mut state = self.state.lock();
        for work in works {
            state.submit(work);
        }
        if self.settings.workers > 0 {
            state.rest();
        }
        self.release(state);
    }

    pub(super) fn decided(&self, sequence: SequenceNumber) {
        self.state.lock().settled.seen(sequence);
    }

    pub(super) fn take_done(&self, done: &mut Vec<Done>) {
        let mut state = self.state.lock();
        state.rest();
        done.append(&mut state.done);
        state.told = false;
    }

    pub(super) fn set_notify(&self, notify: Notify) {
        self.state.lock().notify = Some(notify);
    }

    pub(super) fn executed(&self) -> SequenceNumber {
        self.state.lock().settled.executed()
    }

    pub(super) fn leaves(&self, after: Option<&str>, limit: usize) -> Vec<(String, Digest)> {
        self.state.lock().registry.tree().page(after, limit)
    }

    pub(super) fn objects(&self) -> usize {
        self.state.lock().registry.tree().len()
    }

    pub(super) fn status(&self) -> Status {
        self.state.lock().scheduler.status()
    }

    pub(super) fn run_until_idle(self: &Arc<Self>) {
        let mut state = self.state.lock();
        while let Some(index) = state.ready.pop_front() {
            state = self.run(state, index, true);
        }
        state.rest();
    }

    pub(super) fn runnable(&self) -> usize {
        let mut state = self.state.lock();
        let ahead = state.candidates(self.settings.start_ahead);
        state.ready.len() + ahead
    }

    pub(super) fn step(self: &Arc<Self>, pick: usize) -> bool {
        let mut state = self.state.lock();
        let ready = state.ready.len();
        let index = if pick < ready {
            state.ready.remove(pick)
        } else if pick - ready < state.candidates(self.settings.start_ahead) {
            state.begin_ahead(pick - ready)
        } else {
            None
        };
        let Some(index) = index else { return false };
        self.run(state, index, false).rest();
        true
    }

    pub(super) fn wait_idle(&self) {
        let mut state = self.state.lock();
        while !(state.ready.is_empty() && state.polling == 0) {
            state = wait(&self.idle, state);
        }
    }

    fn work(self: &Arc<Self>) {
        let mut state = self.state.lock();
        while !state.shut_down {
            if let Some(index) = state.next(self.settings.start_ahead) {
                if !state.ready.is_empty() && state.sleeping > 0 {
                    self.work.notify_one(); // each worker that wakes up wakes the next one while there is work
                }
                state = self.run(state, index, true);
                continue;
            }
            if state.polling == 0 {
                state.rest();
                self.idle.notify_all();
            }
            if state.owes_notice() {
                self.release(state);
                state = self.state.lock();
                continue;
            }
            state.sleeping += 1;
            state = wait(&self.work, state);
            state.sleeping -= 1;
        }
    }

    /// Runs the task of slot `index` until it waits: `on` when an answer is there at once, else for one poll.
    fn run<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State>, index: u32, on: bool) -> MutexGuard<'a, State> {
        let thread = ThreadIndex(index);
        let slot = state.slot(thread);
        let answer = slot.answer.take();
        let phase = std::mem::replace(&mut slot.phase, Phase::Polled);
        let fresh = matches!(phase, Phase::Fresh(..) | Phase::FreshChild(..)).then(|| slot.name.clone());
        let task = slot.task.take();
        state.polling += 1;
        drop(state);

        let mut task = match (phase, fresh, task) {
            (Phase::Fresh(now, operation), Some(name), _) => self.begin(thread, &name, now, operation),
            (Phase::FreshChild(now, birth, handler), Some(name), _) => {
                self.begin_child(thread, &name, now, birth, handler)
            }
            (_, _, Some(task)) => task,
            (_, _, None) => unreachable!("a task is in its slot while nobody polls it"),
        };
        if let Some((result, now)) = answer {
            task.thread.answer(result, now);
        }
        loop {
            let verdict = self.poll(task);
            state = self.state.lock();
            match verdict {
                Verdict::Operation(asking, mut operation) => {
                    match &mut operation {
                        Operation::Wait { .. } | Operation::Sleep { .. } | Operation::Join { .. } => {
                            state.settle(thread);
                        }
                        Operation::Spawn { thread: child } => *child = state.conceive(thread, &asking.thread),
                        _ => {}
                    }
                    state.operation(thread, operation);
                    if on && let Some((result, now)) = state.slot(thread).answer.take() {
                        self.wake(&state);
                        drop(state);
                        asking.thread.answer(result, now);
                        task = asking;
                        continue;
                    }
                    state.put_back(thread, asking);
                }
                Verdict::End(outcome) => {
                    state.slot(thread).phase = Phase::Finishing(outcome);
                    state.operation(thread, Operation::Finish);
                }
            }
            state.polling -= 1;
            self.wake(&state);
            if state.owes_notice() {
                self.release(state);
                state = self.state.lock();
            }
            return state;
        }
    }

    fn begin(self: &Arc<Self>, index: ThreadIndex, name: &Name, now: Timestamp, operation: Bytes) -> Task {
        let handler = (self.handlers.name)(&operation);
        let thread = Arc::new(Thread::new(Arc::clone(self), index, name, now, handler));
        Task { future: (self.handlers.begin)(Context::new(Arc::clone(&thread)), operation), thread }
    }

    fn begin_child(
        self: &Arc<Self>,
        index: ThreadIndex,
        name: &Name,
        now: Timestamp,
        birth: Birth,
        handler: &'static str,
    ) -> Task {
        let mut thread = Thread::new(Arc::clone(self), index, name, now, handler);
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
                Asked::Operation(operation) => return Verdict::Operation(task, operation),
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
        task.tear_down();
        Verdict::End(match outcome {
            Err(fault) => Err(fault.of(handler)),
            Ok(Err(UnknownOperation)) => Err(Fault::UnknownOperation),
            Ok(Ok(bytes)) if bytes.len() > self.settings.result_bytes_max => {
                Err(Fault::ResultTooLarge { handler: handler.to_owned() })
            }
            Ok(Ok(bytes)) => Ok(Bytes::from(bytes)),
        })
    }

    /// Wakes a worker if there is something for it.
    fn wake(&self, state: &State) {
        if state.sleeping > 0 && !state.ready.is_empty() {
            self.work.notify_one();
        }
    }

    /// Gives the latch back and tells who wants to know.
    fn release(&self, mut state: MutexGuard<'_, State>) {
        if state.sleeping > 0 && (!state.ready.is_empty() || state.may_run_ahead(self.settings.start_ahead)) {
            self.work.notify_one();
        }
        let notify = state.notice();
        drop(state);
        if let Some(notify) = notify {
            notify();
        }
    }

    pub(super) fn shut_down(&self) {
        self.state.lock().shut_down = true;
        self.work.notify_all();
    }

    /// Drops the tasks that are left, without a word to the scheduler.
    pub(super) fn tear_down(&self) {
        let slots = std::mem::take(&mut self.state.lock().slots);
        slots.into_iter().filter_map(|slot| slot.task).for_each(Task::tear_down);
    }
}

pub(super) fn start_worker(core: &Arc<Core>, number: usize) -> JoinHandle<()> {
    let core = Arc::clone(core);
    std::thread::Builder::new()
        .name(format!("execution-{number}"))
        .spawn(move || core.work())
        .expect("the operating system gives a thread when the process starts")
}

impl Slot {
    fn new(phase: Phase, name: Name) -> Self {
        let (newborn, answer, task) = (None, None, None);
        Self { phase, name, newborn, started: false, ahead: false, settled: false, answer, task }
    }
}

impl Task {
    /// Drops the handler's stack: guards and operations in it say nothing, and a panic of a destructor is the
    /// handler's own.
    fn tear_down(self) {
        self.thread.tear_down();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self.future)));
    }
}

impl State {
    fn slot(&mut self, thread: ThreadIndex) -> &mut Slot {
        &mut self.slots[thread.0 as usize]
    }

    fn submit(&mut self, work: Work) {
        self.starved.submitted(&work);
        let entry = match work {
            Work::Request { position, timestamp, session, number, operation } => {
                self.settled.add(position.sequence());
                let name = Name { position, session, number, path: Vec::new() };
                let index = self.place(Slot::new(Phase::Fresh(timestamp, operation), name));
                self.forget_begun();
                self.fresh.push_back(index);
                Entry::Request { thread: ThreadIndex(index), position: position.0, timestamp: timestamp.0 }
            }
            Work::Tick(timestamp) => Entry::Tick(timestamp.0),
            Work::Flush => Entry::Flush,
            Work::Mark(sequence) => {
                self.settled.seen(sequence);
                Entry::Mark(sequence.0)
            }
        };
        self.handle(Event::Entry(entry));
    }

    /// A place for the child that the thread asks for; nobody begins it before the scheduler has let it be born.
    fn conceive(&mut self, parent: ThreadIndex, thread: &Thread) -> ThreadIndex {
        let (birth, name) = thread.take_birth().expect("who asks for a child has said which");
        // The request's own thread settles for its decision; children run on.
        let slot = Slot { settled: true, ..Slot::new(Phase::Unborn(birth, thread.handler), name) };
        let child = self.place(slot);
        self.slot(parent).newborn = Some(child);
        ThreadIndex(child)
    }

    /// The Spawn has come to its result. A child's time begins where its parent's stands.
    fn deliver(&mut self, child: u32, result: OperationResult, now: Timestamp) {
        let slot = self.slot(ThreadIndex(child));
        match std::mem::replace(&mut slot.phase, Phase::Free) {
            Phase::Unborn(birth, handler) if result == OperationResult::Granted => {
                slot.phase = Phase::FreshChild(now, birth, handler);
                self.forget_begun();
                self.fresh.push_back(child);
            }
            _ => self.free.push(child),
        }
    }

    fn place(&mut self, slot: Slot) -> u32 {
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = slot;
            return index;
        }
        self.slots.push(slot);
        u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 live requests, by sessions and their windows")
    }

    fn operation(&mut self, thread: ThreadIndex, operation: Operation) {
        self.handle(Event::Operation { thread, operation });
    }

    fn handle(&mut self, event: Event) {
        let mut grants = std::mem::take(&mut self.grants);
        self.scheduler.handle(event, &mut grants);
        for grant in grants.drain(..) {
            match grant {
                Grant::Start { thread } => self.start(thread),
                Grant::Resume { thread, result, now } => self.resume(thread, result, now),
                Grant::Call { .. } => unreachable!("no Context asks for an outside call"),
                Grant::Finished { thread } => self.finished(thread),
                Grant::Marked(report) => self.marked(report),
            }
        }
        self.grants = grants;
    }

    fn start(&mut self, thread: ThreadIndex) {
        self.selected(thread);
        // One that has begun ahead simply goes on.
        let slot = self.slot(thread);
        let begins = matches!(slot.phase, Phase::Fresh(..) | Phase::FreshChild(..)) && !slot.started;
        slot.started = true;
        if begins {
            self.ready.push_back(thread.0);
        }
    }

    fn resume(&mut self, thread: ThreadIndex, result: OperationResult, now: u64) {
        self.selected(thread);
        let slot = self.slot(thread);
        slot.answer = Some((result, now));
        if let Some(child) = slot.newborn.take() {
            self.deliver(child, result, Timestamp(now));
        }
        let slot = self.slot(thread);
        // One that is polled has just asked: whoever polls it sees the answer.
        if matches!(slot.phase, Phase::Waiting) {
            slot.phase = Phase::Ready;
            self.ready.push_back(thread.0);
        }
    }

    fn finished(&mut self, thread: ThreadIndex) {
        self.selected(thread);
        self.settle(thread);
        let slot = self.slot(thread);
        let Name { position, session, number, ref path } = slot.name;
        let is_child = !path.is_empty();
        if let Phase::Finishing(outcome) = std::mem::replace(&mut slot.phase, Phase::Free) {
            self.free.push(thread.0);
            if !is_child {
                self.done.push(Done::Executed { position, session, number, outcome });
            }
        }
    }

    fn marked(&mut self, report: RoundReport) {
        self.done.push(Done::Marked(MarkReport {
            sequence: SequenceNumber(report.mark),
            objects: self.registry.root(),
            scheduler: Digest(report.state),
            grants: Digest(report.grants),
            round: report.round,
        }));
    }

    /// The scheduler has taken notice of the thread: it no longer runs ahead.
    fn selected(&mut self, thread: ThreadIndex) {
        if std::mem::take(&mut self.slot(thread).ahead) {
            self.ahead -= 1;
        }
    }

    /// Parks the task, unless its answer is there already.
    fn put_back(&mut self, thread: ThreadIndex, task: Task) {
        let slot = self.slot(thread);
        slot.task = Some(task);
        if slot.answer.is_some() {
            slot.phase = Phase::Ready;
            self.ready.push_back(thread.0);
        } else {
            slot.phase = Phase::Waiting;
        }
    }

    fn settle(&mut self, thread: ThreadIndex) {
        let slot = self.slot(thread);
        if !std::mem::replace(&mut slot.settled, true) {
            let sequence = slot.name.position.sequence();
            self.settled.settle(sequence);
        }
    }

    /// What a worker runs next: what the scheduler lets run, else what may run ahead of it.
    fn next(&mut self, window: usize) -> Option<u32> {
        if let Some(index) = self.ready.pop_front() {
            return Some(index);
        }
        if self.may_run_ahead(window) { self.begin_ahead(0) } else { None }
    }

    /// How many threads [`State::begin_ahead`] can choose from.
    fn candidates(&mut self, window: usize) -> usize {
        self.forget_begun();
        let room = window.saturating_sub(self.ahead);
        self.fresh.iter().take(room).take_while(|index| self.may_begin(**index)).count()
    }

    fn may_run_ahead(&mut self, window: usize) -> bool {
        self.forget_begun();
        self.ahead < window && !self.fresh.is_empty()
    }

    fn forget_begun(&mut self) {
        while self.fresh.front().is_some_and(|index| !self.may_begin(*index)) {
            self.fresh.pop_front();
        }
    }

    fn may_begin(&self, index: u32) -> bool {
        let slot = &self.slots[index as usize];
        matches!(slot.phase, Phase::Fresh(..) | Phase::FreshChild(..)) && !slot.started
    }

    fn begin_ahead(&mut self, candidate: usize) -> Option<u32> {
        let index = self.fresh.remove(candidate)?;
        self.slot(ThreadIndex(index)).ahead = true;
        self.ahead += 1;
        Some(index)
    }

    /// When nothing runs: says what is missing, and counts what is parked behind a parked owner as settled.
    fn rest(&mut self) {
        if !self.ready.is_empty() || self.polling > 0 {
            return;
        }
        let status = self.scheduler.status();
        if let Some(done) = self.starved.check(status) {
            self.done.push(done);
        }
        if !self.settled.all() && status.parked == status.threads {
            for index in 0..self.slots.len() as u32 {
                if !matches!(self.slots[index as usize].phase, Phase::Free) {
                    self.settle(ThreadIndex(index));
                }
            }
        }
    }

    fn owes_notice(&self) -> bool {
        !self.told && !self.done.is_empty() && self.notify.is_some()
    }

    /// Whom to tell that there is something to take; once until it was taken.
    fn notice(&mut self) -> Option<Notify> {
        let owed = self.owes_notice();
        self.told |= owed;
        if owed { self.notify.clone() } else { None }
    }
}
