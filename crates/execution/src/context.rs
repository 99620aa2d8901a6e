//! A deterministic thread as its handler sees it.

use crate::call::Question;
use crate::family::Birth;
use crate::thread::{OperationFuture, Thread};
use crate::value::Input;
use crate::witness::Fact;
use std::future::Future;
use std::sync::Arc;
use unisono_scheduler::{Change, LockId, Operation, OperationResult, QueueId};
use unisono_types::{CallAnswer, CallRefused, Fault, Position, RequestNumber, SessionId, Timestamp};

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
        self.thread.now()
    }

    /// The next number of a sequence that is seeded by the cluster and the request's place in the log. Equal on all
    /// replicas and known to whoever knows both: no secret.
    #[must_use]
    pub fn random(&self) -> u64 {
        let thread = &*self.thread;
        let mut cell = thread.cell.lock();
        cell.random.get_or_insert_with(|| Random::new(thread.core.seed(thread.position, &thread.path))).next_number()
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

    /// Changes the schedule's global parameters, on all replicas alike, from the next round on. Of several changes in one
    /// round that of the youngest thread counts, and behind it that of an operator.
    pub fn reconfigure(&self, change: Change) -> impl Future<Output = ()> + Send + use<'_> {
        self.must(Operation::Reconfigure(Box::new(change)))
    }

    /// The question that the External asked for next is about.
    pub(crate) fn ask(&self, question: Question) {
        self.thread.cell.lock().question = Some(question);
    }

    /// What the call that has just been granted was answered with.
    pub(crate) fn take_outside(&self) -> CallAnswer {
        let outside = self.thread.cell.lock().outside.take();
        outside.map_or(Err(CallRefused::Unknown), |answer| *answer)
    }

    /// Bytes of the largest request to the outside.
    pub(crate) fn bytes_max(&self) -> usize {
        self.thread.core.bytes_max()
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
        OperationFuture::new(&self.thread, operation)
    }

    /// Asks the scheduler for something that cannot fail but by ending the handler.
    async fn must(&self, operation: Operation) {
        match self.operation(operation).await {
            OperationResult::Granted | OperationResult::TimedOut => {}
            result => self.refused(result).await,
        }
    }

    /// Ends the handler whose operation came to this.
    pub(crate) async fn refused<T>(&self, result: OperationResult) -> T {
        self.refuse(result);
        std::future::pending().await
    }

    /// The same for a future that is written by hand: it stays pending.
    pub(crate) fn refuse(&self, result: OperationResult) {
        let deadlock = matches!(result, OperationResult::Deadlock | OperationResult::TimedOut);
        self.thread.fault(if deadlock { FaultKind::Deadlock } else { FaultKind::AlreadyOwned });
    }

    /// Ends the handler: the executor finds the fault and never polls again.
    pub(crate) async fn end<T>(&self, kind: FaultKind) -> T {
        self.thread.fault(kind);
        std::future::pending().await
    }

    /// Whether somebody wants to know what the thread learns and does.
    pub(crate) fn is_watched(&self) -> bool {
        self.thread.core.witness().is_some()
    }

    /// Tells the witness, if there is one, that the value under a lock is used, and what a closure is given.
    pub(crate) fn uses(&self, lock: LockId, alone: bool, input: &impl Input) {
        self.thread.uses(lock, alone, input);
    }

    pub(crate) fn note(&self, fact: Fact) {
        self.thread.note(|| fact);
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
    NotDeclared,
}

impl FaultKind {
    /// In the order of their numbers.
    pub(crate) const ALL: [Self; 7] = [
        Self::Panicked,
        Self::ForeignAwait,
        Self::TwoOperations,
        Self::DroppedOperation,
        Self::Deadlock,
        Self::AlreadyOwned,
        Self::NotDeclared,
    ];

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
            Self::NotDeclared => Fault::NotDeclared { handler },
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
