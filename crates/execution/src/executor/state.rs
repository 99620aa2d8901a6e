//! What is under the executor's latch: scheduler, slots, ready queue; and the carrying out of grants. Never polls.

use super::calls::Calls;
use super::core::HandlerFuture;
use super::recorder::{Clock, Recorder};
use super::schedule;
use super::settle::Settled;
use super::starved::Starved;
use super::wake::{Notices, Sleepers};
use super::{Notify, Settings};
use crate::call::Question;
use crate::family::Birth;
use crate::object::Registry;
use crate::thread::{Name, Reply, Thread};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use unisono_scheduler::{
    Declaration, Entry, Event, Grant, Operation, OperationResult, RoundReport, Scheduler, ThreadIndex,
};
use unisono_types::{Bytes, CallAnswer, Digest, Done, MarkReport, Outcome, SequenceNumber, Timestamp, Work};

pub(super) struct State {
    /// How many workers there are to be.
    pub(super) workers: usize,
    /// How many threads may run ahead of the scheduler.
    pub(super) start_ahead: usize,
    pub(super) scheduler: Box<dyn Scheduler>,
    /// Reused between calls, empty between them.
    grants: Vec<Grant>,
    pub(super) slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots that may be polled, in the order of their grants.
    pub(super) ready: VecDeque<u32>,
    /// Slots that nobody has begun, in order; those begun meanwhile are skipped.
    fresh: VecDeque<u32>,
    /// Threads that run ahead of the scheduler.
    ahead: usize,
    /// Tasks that are being polled.
    pub(super) polling: usize,
    pub(super) registry: Registry,
    pub(super) calls: Calls,
    pub(super) settled: Settled,
    starved: Starved,
    pub(super) done: Vec<Done>,
    pub(super) notices: Notices,
    pub(super) sleepers: Sleepers,
    /// Who calls [`Core::wait_idle`](super::Core::wait_idle).
    pub(super) waiting_for_idle: usize,
    pub(super) shut_down: bool,
    pub(super) clock: Option<Clock>,
    /// While the schedule is recorded.
    pub(super) recorder: Option<Box<Recorder>>,
    /// The one that was switched off last.
    pub(super) recorded: Option<Box<Recorder>>,
}

/// What is known of a request before it runs.
#[derive(Default)]
pub(super) struct Known {
    pub(super) declaration: Declaration,
    pub(super) handler: &'static str,
}

/// A live thread, or a free place for one.
pub(super) struct Slot {
    pub(super) phase: Phase,
    pub(super) name: Name,
    /// The child whose Spawn is at the scheduler.
    newborn: Option<u32>,
    /// The scheduler has let it begin.
    started: bool,
    /// Counts in `State::ahead`.
    ahead: bool,
    /// No longer counts in `State::settled`.
    pub(super) settled: bool,
    /// What it asks the outside; until the call is performed.
    question: Option<Question>,
    /// Its call that waits for an answer.
    call: Option<u32>,
    /// What its pending operation came to.
    pub(super) reply: Option<Reply>,
    /// The task, while nobody polls it and it is not finished.
    pub(super) task: Option<Task>,
}

pub(super) enum Phase {
    Free,
    /// Nobody has begun it.
    Fresh(Timestamp, Bytes),
    /// A child whose Spawn is at the scheduler: it must not run ahead yet.
    Unborn(Birth),
    /// A child that nobody has begun.
    FreshChild(Timestamp, Birth),
    /// In the ready queue.
    Ready,
    /// Being polled, or its operation is just being handed to the scheduler.
    Polled,
    /// Its operation waits in the scheduler.
    Waiting,
    /// Its Finish waits in the scheduler.
    Finishing(Outcome),
}

pub(super) struct Task {
    pub(super) thread: Arc<Thread>,
    pub(super) future: HandlerFuture,
}

impl Slot {
    fn new(phase: Phase, name: Name) -> Self {
        Self {
            phase,
            name,
            newborn: None,
            started: false,
            ahead: false,
            settled: false,
            question: None,
            call: None,
            reply: None,
            task: None,
        }
    }
}

impl Task {
    /// Drops the handler's stack: guards and operations in it say nothing, and a panic of a destructor is the
    /// handler's own.
    pub(super) fn tear_down(self) {
        self.thread.tear_down();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self.future)));
    }
}

impl State {
    pub(super) fn new(scheduler: Box<dyn Scheduler>, registry: Registry, settings: Settings) -> Self {
        Self {
            workers: 0,
            start_ahead: settings.start_ahead,
            scheduler,
            grants: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            fresh: VecDeque::new(),
            ahead: 0,
            polling: 0,
            registry,
            calls: Calls::default(),
            settled: Settled::default(),
            starved: Starved::default(),
            done: Vec::new(),
            notices: Notices::default(),
            sleepers: Sleepers::default(),
            waiting_for_idle: 0,
            shut_down: false,
            clock: None,
            recorder: None,
            recorded: None,
        }
    }

    pub(super) fn slot(&mut self, thread: ThreadIndex) -> &mut Slot {
        &mut self.slots[thread.0 as usize]
    }

    pub(super) fn submit(&mut self, work: Work, known: Known) {
        self.starved.submitted(&work);
        let entry = match work {
            Work::Request { position, timestamp, session, number, operation } => {
                self.settled.add(position.sequence());
                let Known { declaration, handler } = known;
                let name = Name { position, session, number, path: Vec::new(), handler };
                let index = self.place(Slot::new(Phase::Fresh(timestamp, operation), name));
                self.forget_begun();
                self.fresh.push_back(index);
                let thread = ThreadIndex(index);
                Entry::Request { thread, position: position.0, timestamp: timestamp.0, declaration }
            }
            Work::Tick(timestamp) => Entry::Tick(timestamp.0),
            Work::Flush => Entry::Flush,
            Work::Reconfigure(change) => Entry::Reconfigure(schedule::change(change)),
            Work::Answer { position, path, call, timestamp, answer } => {
                self.calls.answered((position, path.clone(), call), answer);
                Entry::Answer { position: position.0, path, call, timestamp: timestamp.0 }
            }
            Work::Mark(sequence) => {
                self.settled.seen(sequence);
                self.calls.mark_submitted();
                Entry::Mark(sequence.0)
            }
        };
        self.entry(entry);
    }

    /// An operation that the thread asks for is about to go to the scheduler: what the scheduler needs not know stays
    /// here.
    pub(super) fn prepare(&mut self, asking: &Thread, operation: &mut Operation) {
        match operation {
            Operation::Wait { .. } | Operation::Sleep { .. } | Operation::Join { .. } => self.settle(asking.index),
            Operation::Spawn { thread } => *thread = self.conceive(asking.index, asking),
            Operation::External { .. } => {
                self.settle(asking.index);
                self.slot(asking.index).question = asking.take_question();
            }
            _ => {}
        }
    }

    /// A place for the child that the thread asks for; nobody begins it before the scheduler has let it be born.
    fn conceive(&mut self, parent: ThreadIndex, thread: &Thread) -> ThreadIndex {
        let (birth, name) = thread.take_birth().expect("who asks for a child has said which");
        // The request's own thread settles for its decision; children run on.
        let slot = Slot { settled: true, ..Slot::new(Phase::Unborn(birth), name) };
        let child = self.place(slot);
        self.slot(parent).newborn = Some(child);
        ThreadIndex(child)
    }

    /// The Spawn has come to its result. A child's time begins where its parent's stands.
    fn deliver(&mut self, child: u32, result: OperationResult, now: Timestamp) {
        let slot = self.slot(ThreadIndex(child));
        match std::mem::replace(&mut slot.phase, Phase::Free) {
            Phase::Unborn(birth) if result == OperationResult::Granted => {
                slot.phase = Phase::FreshChild(now, birth);
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

    /// The thread asks; its reply, if it is there at once.
    pub(super) fn operation(&mut self, thread: ThreadIndex, operation: Operation) -> Option<Reply> {
        if self.recorder.is_some() {
            self.record_asked(thread, &operation);
        }
        self.scheduler.handle(Event::Operation { thread, operation }, &mut self.grants);
        // Most often that is all that happens, and then the reply need not pass through the slot.
        if let [Grant::Resume { thread: resumed, result, now }] = *self.grants.as_slice()
            && resumed == thread
            && self.is_plain(thread)
        {
            self.grants.clear();
            return Some(Reply { result, now, outside: None });
        }
        self.carry_out();
        if self.recorder.is_some() {
            self.record_standing(thread);
        }
        self.slot(thread).reply.take()
    }

    /// Whether a reply to the thread is nothing but a reply.
    fn is_plain(&self, thread: ThreadIndex) -> bool {
        let slot = &self.slots[thread.0 as usize];
        !slot.ahead && slot.newborn.is_none() && slot.call.is_none() && self.recorder.is_none()
    }

    fn entry(&mut self, entry: Entry) {
        if self.recorder.is_some() {
            self.record_round();
        }
        self.scheduler.handle(Event::Entry(entry), &mut self.grants);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        let mut grants = std::mem::take(&mut self.grants);
        for grant in grants.drain(..) {
            if self.recorder.is_some() {
                self.record_grant(&grant);
            }
            match grant {
                Grant::Start { thread } => self.start(thread),
                Grant::Resume { thread, result, now } => self.resume(thread, result, now),
                Grant::Call { thread, call } => self.called(thread, call),
                Grant::Finished { thread } => self.finished(thread),
                Grant::Marked(report) => self.marked(&report),
                Grant::RoundEnded(_) => {}
            }
        }
        self.grants = grants;
        if self.recorder.is_some() {
            self.record_moves();
        }
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

    fn called(&mut self, thread: ThreadIndex, call: u32) {
        self.selected(thread);
        let slot = self.slot(thread);
        slot.call = Some(call);
        let Name { position, path, .. } = slot.name.clone();
        let Question { target, request } = slot.question.take().expect("who asks for a call has said which");
        self.calls.performed((position, path.clone(), call));
        self.done.push(Done::Called { position, path, call, target, request });
    }

    fn resume(&mut self, thread: ThreadIndex, result: OperationResult, now: u64) {
        self.selected(thread);
        let outside = self.outside(thread, result);
        let slot = self.slot(thread);
        slot.reply = Some(Reply { result, now, outside });
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

    /// The value for a thread whose outside call is over.
    fn outside(&mut self, thread: ThreadIndex, result: OperationResult) -> Option<Box<CallAnswer>> {
        let call = self.slot(thread).call.take()?;
        let Name { position, path, .. } = &self.slots[thread.0 as usize].name;
        let answer = self.calls.end(&(*position, path.clone(), call));
        answer.filter(|_| result == OperationResult::Granted).map(Box::new)
    }

    fn finished(&mut self, thread: ThreadIndex) {
        self.selected(thread);
        self.settle(thread);
        let slot = self.slot(thread);
        let Name { position, session, number, ref path, .. } = slot.name;
        let is_child = !path.is_empty();
        if let Phase::Finishing(outcome) = std::mem::replace(&mut slot.phase, Phase::Free) {
            self.free.push(thread.0);
            if !is_child {
                self.done.push(Done::Executed { position, session, number, outcome });
            }
        }
    }

    fn marked(&mut self, report: &RoundReport) {
        self.calls.mark_reached();
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
    pub(super) fn put_back(&mut self, thread: ThreadIndex, task: Task) {
        let slot = self.slot(thread);
        slot.task = Some(task);
        if slot.reply.is_some() {
            slot.phase = Phase::Ready;
            self.ready.push_back(thread.0);
        } else {
            slot.phase = Phase::Waiting;
        }
    }

    pub(super) fn settle(&mut self, thread: ThreadIndex) {
        let slot = self.slot(thread);
        if !std::mem::replace(&mut slot.settled, true) {
            let sequence = slot.name.position.sequence();
            self.settled.settle(sequence);
        }
    }

    /// What a worker runs next: what the scheduler lets run, else what may run ahead of it.
    pub(super) fn next(&mut self) -> Option<u32> {
        if let Some(index) = self.ready.pop_front() {
            return Some(index);
        }
        if self.may_run_ahead() { self.begin_ahead(0) } else { None }
    }

    /// How many threads [`State::begin_ahead`] can choose from.
    pub(super) fn candidates(&mut self) -> usize {
        self.forget_begun();
        let room = self.start_ahead.saturating_sub(self.ahead);
        self.fresh.iter().take(room).take_while(|index| self.may_begin(**index)).count()
    }

    pub(super) fn may_run_ahead(&mut self) -> bool {
        self.forget_begun();
        self.ahead < self.start_ahead && !self.fresh.is_empty()
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

    pub(super) fn begin_ahead(&mut self, candidate: usize) -> Option<u32> {
        let index = self.fresh.remove(candidate)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.ahead(index, &self.slots[index as usize].name);
        }
        self.slot(ThreadIndex(index)).ahead = true;
        self.ahead += 1;
        Some(index)
    }

    /// When nothing runs: says what is missing, and counts what is parked behind a parked owner as settled.
    pub(super) fn rest(&mut self) {
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

    /// Nothing runs, and nothing can without new work.
    pub(super) fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.polling == 0
    }

    /// Whom to tell now that there is something to take. Who `looks_again` soon may leave it for later.
    pub(super) fn notice(&mut self, looks_again: bool) -> Option<Notify> {
        let waits = looks_again && self.notices.owed(&self.done) && !self.notices.due(&self.done);
        if waits { None } else { self.notices.take(&self.done) }
    }
}
