//! A deterministic thread as its handler sees it, and the one future that everything waits on.
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
//! Never panics in a poll or a drop.

use crate::executor::Core;
use crate::family::{Birth, End};
use crate::latch::Latch;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use unisono_scheduler::{LockId, Operation, OperationResult, QueueId, ThreadIndex};
use unisono_types::{Fault, Position, RequestNumber, SessionId, Timestamp};

/// What a handler knows of the world: agreed time, seeded randomness, who asks; and the place where it waits.
///
/// One per deterministic thread. It cannot be cloned, and guards borrow it, so neither leaves its handler:
///
/// ```compile_fail
/// # use unisono_execution::{Context, Mutex};
/// # fn spawn(child: impl Future<Output = ()> + Send + 'static) {}
/// async fn escape(mutex: &Mutex<u64>, cx: &Context) {
///     let guard = mutex.lock(cx).await;
///     spawn(async move { drop(guard) }); // borrowed data escapes
/// }
/// ```
pub struct Context {
    thread: Arc<Thread>,
}

impl Context {
    pub(crate) const fn new(thread: Arc<Thread>) -> Self {
        Self { thread }
    }

    /// The thread's own agreed time: the timestamp of its request, moved on by each operation that returns.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.thread.cell.lock().now
    }

    /// The next number of a sequence that is seeded by the cluster and the request's place in the log. Equal on all
    /// replicas and known to whoever knows both: no secret.
    #[must_use]
    pub fn random(&self) -> u64 {
        let mut cell = self.thread.cell.lock();
        let mut source =
            cell.random.unwrap_or_else(|| Random::new(self.thread.core.seed(self.thread.position, &self.thread.path)));
        let number = source.next_number();
        cell.random = Some(source);
        number
    }

    /// Whose request this is.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.thread.session
    }

    /// Which request of its session this is.
    #[must_use]
    pub fn number(&self) -> RequestNumber {
        self.thread.number
    }

    /// The request's place in the log: unique for ever.
    #[must_use]
    pub fn position(&self) -> Position {
        self.thread.position
    }

    /// Pauses for `microseconds` of agreed time.
    pub fn sleep(&self, microseconds: u64) -> impl Future<Output = ()> + Send + use<'_> {
        self.must(Operation::Sleep { duration: microseconds })
    }

    /// Lets other threads go first.
    pub fn yield_now(&self) -> impl Future<Output = ()> + Send + use<'_> {
        self.must(Operation::Yield)
    }

    /// The number that the thread's next child gets.
    pub(crate) fn next_child(&self) -> u16 {
        self.thread.cell.lock().born.saturating_add(1)
    }

    /// The child that the Spawn asked for next is about.
    pub(crate) fn give_birth(&self, birth: Birth) {
        self.thread.cell.lock().birth = Some(birth);
    }

    pub(crate) fn born(&self) {
        let mut cell = self.thread.cell.lock();
        cell.born = cell.born.saturating_add(1);
    }

    pub(crate) fn fault_of(&self, kind: FaultKind) -> Fault {
        kind.of(self.thread.handler)
    }

    /// Asks the scheduler; the result is the caller's.
    pub(crate) fn operation(&self, operation: Operation) -> OperationFuture<'_> {
        OperationFuture { cx: self, stage: Stage::New(operation) }
    }

    /// Asks the scheduler for something that cannot fail but by ending the handler.
    async fn must(&self, operation: Operation) {
        match self.operation(operation).await {
            OperationResult::Granted | OperationResult::TimedOut => {}
            OperationResult::Deadlock => self.end(FaultKind::Deadlock).await,
            OperationResult::NotPossible | OperationResult::Occupied => self.end(FaultKind::AlreadyOwned).await,
        }
    }

    /// Ends the handler: the executor finds the fault and never polls again.
    pub(crate) async fn end<T>(&self, kind: FaultKind) -> T {
        self.thread.fault(kind);
        std::future::pending().await
    }

    /// Gives a lock back, at once. Silent while the handler is being torn down: the scheduler then releases what is
    /// left in the order of acquisition, which is not the order in which an unwinding stack drops its guards.
    pub(crate) fn release(&self, lock: LockId) {
        if !self.thread.silent() {
            self.thread.core.at_once(&self.thread, Operation::Unlock { lock });
        }
    }

    pub(crate) fn notify(&self, lock: LockId, queue: QueueId, all: bool) {
        if !self.thread.silent() {
            self.thread.core.at_once(&self.thread, Operation::Notify { lock, queue, all });
        }
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context({:?})", self.thread.position)
    }
}

/// Why a handler is ended, without its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FaultKind {
    Panicked,
    ForeignAwait,
    TwoOperations,
    DroppedOperation,
    Deadlock,
    AlreadyOwned,
}

impl FaultKind {
    /// The typed error of the reply.
    pub(crate) fn of(self, handler: &str) -> Fault {
        let handler = handler.to_owned();
        match self {
            Self::Panicked => Fault::Panicked { handler },
            Self::ForeignAwait => Fault::ForeignAwait { handler },
            Self::TwoOperations => Fault::TwoOperations { handler },
            Self::DroppedOperation => Fault::DroppedOperation { handler },
            Self::Deadlock => Fault::Deadlock { handler },
            Self::AlreadyOwned => Fault::AlreadyOwned { handler },
        }
    }
}

/// What tells a thread from all others, on every replica alike.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Name {
    pub(crate) position: Position,
    pub(crate) session: SessionId,
    pub(crate) number: RequestNumber,
    /// Which child of which child of the request's own thread, whose path is empty.
    pub(crate) path: Vec<u16>,
}

/// A deterministic thread: shared by its handler's Context and the executor.
pub(crate) struct Thread {
    core: Arc<Core>,
    pub(crate) index: ThreadIndex,
    position: Position,
    session: SessionId,
    number: RequestNumber,
    path: Vec<u16>,
    /// Of a child: where its fault goes.
    pub(crate) end: Option<End>,
    pub(crate) handler: &'static str,
    cell: Latch<Cell>,
}

/// Invariant: touched by the handler while it is polled, and by the executor between polls; never by both at once.
struct Cell {
    now: Timestamp,
    random: Option<Random>,
    pending: Pending,
    /// The first fault; later ones do not matter.
    fault: Option<FaultKind>,
    /// Children that it has had.
    born: u16,
    /// The child that the Spawn it asks for is about.
    birth: Option<Birth>,
    teardown: bool,
}

#[derive(Debug)]
enum Pending {
    Nothing,
    Asked(Operation),
    Sent,
    Answered(OperationResult),
}

/// What a poll that came back `Pending` means.
#[derive(Debug)]
pub(crate) enum Asked {
    Operation(Operation),
    Fault(FaultKind),
}

impl Thread {
    pub(crate) fn new(core: Arc<Core>, index: ThreadIndex, name: &Name, now: Timestamp, handler: &'static str) -> Self {
        let cell =
            Cell { now, random: None, pending: Pending::Nothing, fault: None, born: 0, birth: None, teardown: false };
        let Name { position, session, number, path } = name.clone();
        Self { core, index, position, session, number, path, end: None, handler, cell: Latch::new(cell) }
    }

    /// The child that it asks for, to be taken with its Spawn; and what names the child.
    pub(crate) fn take_birth(&self) -> Option<(Birth, Name)> {
        let birth = self.cell.lock().birth.take()?;
        let mut path = self.path.clone();
        path.push(birth.number);
        let name = Name { position: self.position, session: self.session, number: self.number, path };
        Some((birth, name))
    }

    /// The scheduler's answer, before the next poll.
    pub(crate) fn answer(&self, result: OperationResult, now: u64) {
        let mut cell = self.cell.lock();
        cell.now = cell.now.max(Timestamp(now));
        cell.pending = Pending::Answered(result);
    }

    /// An operation that returns at once has returned.
    pub(crate) fn time(&self, now: u64) {
        let mut cell = self.cell.lock();
        cell.now = cell.now.max(Timestamp(now));
    }

    /// After a poll that came back `Pending`.
    pub(crate) fn asked(&self) -> Asked {
        let mut cell = self.cell.lock();
        match (cell.fault, std::mem::replace(&mut cell.pending, Pending::Sent)) {
            (Some(fault), _) => Asked::Fault(fault),
            (None, Pending::Asked(operation)) => Asked::Operation(operation),
            (None, Pending::Nothing | Pending::Sent | Pending::Answered(_)) => Asked::Fault(FaultKind::ForeignAwait),
        }
    }

    /// After a poll that came back `Ready`: a fault all the same?
    pub(crate) fn ended(&self) -> Option<FaultKind> {
        let cell = self.cell.lock();
        match (cell.fault, &cell.pending) {
            (None, Pending::Nothing) => None,
            (None, _) => Some(FaultKind::DroppedOperation), // forgotten rather than dropped
            (fault, _) => fault,
        }
    }

    /// From now on guards and operations are dropped without a word.
    pub(crate) fn tear_down(&self) {
        self.cell.lock().teardown = true;
    }

    fn fault(&self, kind: FaultKind) {
        self.cell.lock().fault.get_or_insert(kind);
    }

    fn silent(&self) -> bool {
        std::thread::panicking() || self.cell.lock().teardown
    }
}

/// The only thing a handler may await.
pub(crate) struct OperationFuture<'cx> {
    cx: &'cx Context,
    stage: Stage,
}

enum Stage {
    New(Operation),
    Asked,
    Refused,
    Done,
}

impl Future for OperationFuture<'_> {
    type Output = OperationResult;

    fn poll(mut self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<OperationResult> {
        let cx = self.cx;
        let mut cell = cx.thread.cell.lock();
        match std::mem::replace(&mut self.stage, Stage::Refused) {
            Stage::New(operation) if matches!(cell.pending, Pending::Nothing) => {
                cell.pending = Pending::Asked(operation);
                self.stage = Stage::Asked;
                Poll::Pending
            }
            Stage::New(_) => {
                cell.fault.get_or_insert(FaultKind::TwoOperations);
                Poll::Pending
            }
            Stage::Asked => {
                if let Pending::Answered(result) = cell.pending {
                    cell.pending = Pending::Nothing;
                    self.stage = Stage::Done;
                    return Poll::Ready(result);
                }
                self.stage = Stage::Asked;
                Poll::Pending
            }
            Stage::Refused | Stage::Done => Poll::Pending,
        }
    }
}

impl Drop for OperationFuture<'_> {
    fn drop(&mut self) {
        if matches!(self.stage, Stage::Asked) && !self.cx.thread.silent() {
            self.cx.thread.fault(FaultKind::DroppedOperation);
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, well mixed, the same everywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, 0 when the bound is 0.
    pub(crate) const fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next_number() % bound as u64) as usize }
    }
}
