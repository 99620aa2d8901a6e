//! A deterministic thread: what its handler and the executor tell each other, and the one future that everything waits on.
//!
//! ```text
//!            first poll                    poll returned              grant
//!   (none) ────────────> Asked(operation) ────────────> Sent ─────────────────> Answered ──> (none)
//!              |               |  the executor hands it     the executor polls      |
//!              |               |  to the scheduler           again                  taken by the next poll
//!              └ a second one: TwoOperations
//! ```
//! Invariant: an operation is never ready at its first poll, and reaches the scheduler only after the poll that asked
//! for it has come back without a fault. So whether `join!` or `select!` breaks the rule of one operation at a time
//! depends on the handler alone, never on how fast a grant comes, and a fault leaves nothing pending in the scheduler.
//!
//! Invariant: a thread is touched by its handler while it is polled, and by the executor between polls, which the
//! executor's latch orders. So its atomics need no order of their own, and what is used with every operation stands in
//! them; the rest stands under a latch. (A handler that hands its Context to threads of its own gets nonsense, safely.)
//!
//! Never panics in a poll or a drop.

use crate::call::Question;
use crate::context::{FaultKind, Random};
use crate::executor::Core;
use crate::family::{Birth, End};
use crate::latch::Latch;
use crate::sync::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use crate::value::Input;
use crate::witness::{Fact, Journal};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use unisono_scheduler::{LockId, Mode, Operation, OperationResult, ThreadIndex};
use unisono_types::{CallAnswer, Position, RequestNumber, SessionId, Timestamp};

/// What tells a thread from all others, on every replica alike.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Name {
    pub(crate) position: Position,
    pub(crate) session: SessionId,
    pub(crate) number: RequestNumber,
    /// Which child of which child of the request's own thread, whose path is empty.
    pub(crate) path: Vec<u16>,
    /// The handler that it runs; a child: its parent's.
    pub(crate) handler: &'static str,
}

/// A deterministic thread: shared by its handler's Context and the executor.
pub(crate) struct Thread {
    pub(crate) core: Arc<Core>,
    pub(crate) index: ThreadIndex,
    pub(crate) position: Position,
    pub(crate) session: SessionId,
    pub(crate) number: RequestNumber,
    pub(crate) path: Vec<u16>,
    /// Of a child: where its fault goes.
    pub(crate) end: Option<End>,
    pub(crate) handler: &'static str,
    now: AtomicU64,
    mailbox: Mailbox,
    /// The first fault; later ones do not matter.
    fault: AtomicU8,
    teardown: AtomicBool,
    pub(crate) cell: Latch<Cell>,
}

/// What is seldom used.
pub(crate) struct Cell {
    pub(crate) random: Option<Random>,
    /// Children that it has had.
    pub(crate) born: u16,
    /// The child that the Spawn it asks for is about.
    pub(crate) birth: Option<Birth>,
    /// The question that the External it asks for is about.
    pub(crate) question: Option<Question>,
    /// What its outside call came to.
    pub(crate) outside: Option<Box<CallAnswer>>,
    /// What is kept for the core's witness, if there is one.
    journal: Journal,
}

/// What a pending operation came to.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) result: OperationResult,
    pub(crate) now: u64,
    /// Of an outside call that was granted.
    pub(crate) outside: Option<Box<CallAnswer>>,
}

/// What a poll that came back `Pending` means.
#[derive(Debug)]
pub(crate) enum Asked {
    Operation(Operation),
    Fault(FaultKind),
}

impl Thread {
    pub(crate) fn new(core: Arc<Core>, index: ThreadIndex, name: Name, now: Timestamp) -> Self {
        let Name { position, session, number, path, handler } = name;
        let cell = Cell {
            random: None,
            born: 0,
            birth: None,
            question: None,
            outside: None,
            journal: Journal::new(handler, now.0),
        };
        Self {
            core,
            index,
            position,
            session,
            number,
            path,
            end: None,
            handler,
            now: AtomicU64::new(now.0),
            mailbox: Mailbox::default(),
            fault: AtomicU8::new(0),
            teardown: AtomicBool::new(false),
            cell: Latch::new(cell),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Relaxed))
    }

    fn set_now(&self, now: u64) {
        if now > self.now.load(Relaxed) {
            self.now.store(now, Relaxed);
        }
    }

    /// The child that it asks for, to be taken with its Spawn; and what names the child.
    pub(crate) fn take_birth(&self) -> Option<(Birth, Name)> {
        let birth = self.cell.lock().birth.take()?;
        let mut path = self.path.clone();
        path.push(birth.number);
        let Self { position, session, number, handler, .. } = *self;
        let name = Name { position, session, number, path, handler };
        Some((birth, name))
    }

    /// The question that it asks, to be taken with its External.
    pub(crate) fn take_question(&self) -> Option<Question> {
        self.cell.lock().question.take()
    }

    /// For the witness, if there is one.
    pub(crate) fn note(&self, fact: impl FnOnce() -> Fact) {
        if self.core.witness().is_some() {
            self.cell.lock().journal.note(fact());
        }
    }

    /// For the witness, if there is one: the thread uses the value under a lock, and hands `input` to a closure.
    pub(crate) fn uses(&self, lock: LockId, alone: bool, input: &impl Input) {
        let Some(witness) = self.core.witness() else { return };
        let mut given = Vec::new();
        input.times(&mut |time| given.push(time.0));
        let cell = self.cell.lock();
        given.retain(|time| cell.journal.has_had(*time));
        drop(cell);
        witness.lock().used((self.position, &self.path), lock, alone, self.now().0, given.into_iter());
    }

    /// The scheduler's answer, before the next poll.
    pub(crate) fn answer(&self, reply: Reply) {
        self.note(|| Fact::Learnt(reply.result, reply.now, reply.outside.clone()));
        self.set_now(reply.now);
        if reply.outside.is_some() {
            self.cell.lock().outside = reply.outside;
        }
        self.mailbox.answer(reply.result);
    }

    /// An operation that returns at once has returned.
    pub(crate) fn returned(&self, reply: &Reply) {
        self.note(|| Fact::Learnt(reply.result, reply.now, None));
        self.set_now(reply.now);
    }

    /// After a poll that came back `Pending`.
    pub(crate) fn asked(&self) -> Asked {
        match (self.first_fault(), self.mailbox.send()) {
            (Some(fault), _) => Asked::Fault(fault),
            (None, Some(operation)) => Asked::Operation(operation),
            (None, None) => Asked::Fault(FaultKind::ForeignAwait),
        }
    }

    /// After a poll that came back `Ready`: a fault all the same?
    pub(crate) fn ended(&self) -> Option<FaultKind> {
        // An operation that is still pending was forgotten rather than dropped.
        self.first_fault().or_else(|| (!self.mailbox.is_empty()).then_some(FaultKind::DroppedOperation))
    }

    /// From now on guards and operations are dropped without a word.
    pub(crate) fn tear_down(&self) {
        self.teardown.store(true, Relaxed);
    }

    pub(crate) fn fault(&self, kind: FaultKind) {
        if self.fault.load(Relaxed) == 0 {
            self.fault.store(kind as u8 + 1, Relaxed);
        }
    }

    fn first_fault(&self) -> Option<FaultKind> {
        let fault = self.fault.load(Relaxed).checked_sub(1)?;
        FaultKind::ALL.get(usize::from(fault)).copied()
    }

    pub(crate) fn silent(&self) -> bool {
        self.teardown.load(Relaxed) || std::thread::panicking()
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(witness) = self.core.witness() {
            let journal = std::mem::replace(&mut self.cell.lock().journal, Journal::new(self.handler, 0));
            witness.lock().journals.insert((self.position, std::mem::take(&mut self.path)), journal);
        }
    }
}

/// Where one operation lies until the executor takes it, and what it came to until the handler takes that.
struct Mailbox {
    stage: AtomicU8,
    /// Of a Lock, which almost all operations are: the lock in two halves, and its time-out.
    lock: [AtomicU64; 2],
    timeout: AtomicU64,
    /// Any other operation.
    other: Latch<Option<Operation>>,
}

const NOTHING: u8 = 0;
const ASKED_LOCK: u8 = 1;
const ASKED_READ: u8 = 2;
const ASKED_OTHER: u8 = 3;
const SENT: u8 = 4;
/// And the result.
const ANSWERED: u8 = 5;

/// A time-out that never comes. Its neighbour, half a million years, is no other.
const NEVER: u64 = u64::MAX;

const RESULTS: [OperationResult; 6] = [
    OperationResult::Granted,
    OperationResult::TimedOut,
    OperationResult::Deadlock,
    OperationResult::NotPossible,
    OperationResult::Occupied,
    OperationResult::NotDeclared,
];

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            stage: AtomicU8::new(NOTHING),
            lock: [AtomicU64::new(0), AtomicU64::new(0)],
            timeout: AtomicU64::new(NEVER),
            other: Latch::default(),
        }
    }
}

impl Mailbox {
    fn is_empty(&self) -> bool {
        self.stage.load(Relaxed) == NOTHING
    }

    /// The handler asks.
    fn ask(&self, operation: Operation) {
        let stage = match operation {
            Operation::Lock { lock, mode, timeout } => {
                self.lock[0].store((lock.0 >> 64) as u64, Relaxed);
                self.lock[1].store(lock.0 as u64, Relaxed);
                self.timeout.store(timeout.unwrap_or(NEVER), Relaxed);
                if mode == Mode::Write { ASKED_LOCK } else { ASKED_READ }
            }
            other => {
                *self.other.lock() = Some(other);
                ASKED_OTHER
            }
        };
        self.stage.store(stage, Relaxed);
    }

    /// The executor takes what was asked, if anything was.
    fn send(&self) -> Option<Operation> {
        let stage = self.stage.load(Relaxed);
        self.stage.store(SENT, Relaxed);
        match stage {
            ASKED_LOCK | ASKED_READ => {
                let [high, low] = [0, 1].map(|half| u128::from(self.lock[half].load(Relaxed)));
                let timeout = Some(self.timeout.load(Relaxed)).filter(|timeout| *timeout != NEVER);
                let mode = if stage == ASKED_LOCK { Mode::Write } else { Mode::Read };
                Some(Operation::Lock { lock: LockId(high << 64 | low), mode, timeout })
            }
            ASKED_OTHER => self.other.lock().take(),
            _ => None,
        }
    }

    /// The executor brings the result.
    fn answer(&self, result: OperationResult) {
        self.stage.store(ANSWERED + result as u8, Relaxed);
    }

    /// The handler takes it, if it is there.
    fn take(&self) -> Option<OperationResult> {
        let result = self.stage.load(Relaxed).checked_sub(ANSWERED)?;
        self.stage.store(NOTHING, Relaxed);
        RESULTS.get(usize::from(result)).copied()
    }
}

/// The only thing a handler may await.
pub(crate) struct OperationFuture<'cx> {
    thread: &'cx Thread,
    stage: Stage,
}

enum Stage {
    New(Operation),
    Asked,
    Refused,
    Done,
}

impl<'cx> OperationFuture<'cx> {
    pub(crate) const fn new(thread: &'cx Thread, operation: Operation) -> Self {
        Self { thread, stage: Stage::New(operation) }
    }
}

impl Future for OperationFuture<'_> {
    type Output = OperationResult;

    fn poll(mut self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<OperationResult> {
        let thread = self.thread;
        match self.stage {
            Stage::Asked => {
                let Some(result) = thread.mailbox.take() else { return Poll::Pending };
                self.stage = Stage::Done;
                if result == OperationResult::NotDeclared {
                    // Whatever it asked for, and whatever it would make of the refusal.
                    thread.fault(FaultKind::NotDeclared);
                    return Poll::Pending;
                }
                Poll::Ready(result)
            }
            Stage::New(_) => {
                if !thread.mailbox.is_empty() {
                    self.stage = Stage::Refused;
                    thread.fault(FaultKind::TwoOperations);
                } else if let Stage::New(operation) = std::mem::replace(&mut self.stage, Stage::Asked) {
                    thread.mailbox.ask(operation);
                }
                Poll::Pending
            }
            Stage::Refused | Stage::Done => Poll::Pending,
        }
    }
}

impl Drop for OperationFuture<'_> {
    fn drop(&mut self) {
        if matches!(self.stage, Stage::Asked) && !self.thread.silent() {
            self.thread.fault(FaultKind::DroppedOperation);
        }
    }
}

#[cfg(all(test, loom))]
mod interleavings {
    use super::*;

    /// A handler asks in one worker, another worker takes the task up: the latch between them orders what stands in the
    /// atomics.
    #[test]
    fn a_mailbox_is_handed_over_with_the_latch() {
        loom::model(|| {
            let (mailbox, slot) = (Arc::new(Mailbox::default()), Arc::new(Latch::new(false)));
            let (theirs, place) = (Arc::clone(&mailbox), Arc::clone(&slot));
            let operation = Operation::Lock { lock: LockId(3 << 96 | 4), mode: Mode::Write, timeout: Some(5) };
            let asked = operation.clone();
            let worker = loom::thread::spawn(move || {
                theirs.ask(asked);
                *place.lock() = true;
            });
            if std::mem::take(&mut *slot.lock()) {
                assert_eq!(mailbox.send(), Some(operation));
                mailbox.answer(OperationResult::Deadlock);
                assert_eq!(mailbox.take(), Some(OperationResult::Deadlock));
                assert!(mailbox.is_empty());
            }
            worker.join().unwrap();
        });
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use unisono_scheduler::QueueId;

    #[test]
    fn a_mailbox_brings_every_operation_and_every_result() {
        let mailbox = Mailbox::default();
        let lock = LockId(7 << 96 | 5);
        for operation in [
            Operation::Lock { lock, mode: Mode::Write, timeout: None },
            Operation::Lock { lock, mode: Mode::Read, timeout: Some(0) },
            Operation::Lock { lock: LockId(u128::MAX), mode: Mode::Write, timeout: Some(u64::MAX - 1) },
            Operation::Try { lock, mode: Mode::Read },
            Operation::Wait { lock, queue: QueueId(3), timeout: Some(1) },
            Operation::Sleep { duration: u64::MAX },
            Operation::Yield,
            Operation::Join { child: 9 },
        ] {
            for result in RESULTS {
                assert!(mailbox.is_empty() && mailbox.take().is_none());
                mailbox.ask(operation.clone());
                assert!(!mailbox.is_empty());
                assert_eq!(mailbox.send(), Some(operation.clone()));
                assert_eq!((mailbox.take(), mailbox.send()), (None, None), "sent once, not answered");
                mailbox.answer(result);
                assert_eq!((mailbox.take(), mailbox.take()), (Some(result), None));
            }
        }
    }

    #[test]
    fn every_fault_has_a_number() {
        for (number, fault) in FaultKind::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, number);
        }
        for (number, result) in RESULTS.into_iter().enumerate() {
            assert_eq!(result as usize, number);
        }
    }
}
