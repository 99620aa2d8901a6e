//! Runs handlers as async tasks and obeys the scheduler's grants.
//!
//! ```text
//!            submit(Work)                     ┌──────────────── Core, one short latch ───────────────┐
//!   host ────────────────── Entry ──────────> │ Scheduler ── Grant ──> slots, ready queue            │
//!        <── take_done ──── Done  <────────── │     ^                        |                       │
//!                                             └─────┼────────────────────────┼───────────────────────┘
//!                                               Operation            worker: poll the task,
//!                                                   └──────────────── until it asks for something
//! ```
//! With no workers the caller runs the tasks: all of them (`run_until_idle`), or one poll at a time and the next one
//! picked by a seed (`step`). With workers, threads do. The number of workers, the start-ahead window and who polls
//! what first never change a result.
//!
//! A slot is a live thread: it is taken by a request and free again when the scheduler has performed its Finish. How
//! many there can be is bounded by the sessions and their windows, which the replica enforces before the order.
//!
//! Invariant: no closure on shared state runs while a Mark's root is computed. At the end of a round no thread that
//! owns a lock is being polled, and the root is computed under the latch, before any later grant is carried out.
//!
//! Invariant: a task is in its slot exactly while nobody polls it.
//!
//! Panics of handlers are caught (this needs `panic = "unwind"`). An endless loop without operations and a stack
//! overflow cannot be turned into a reply in native code.

mod calls;
mod core;
mod recorder;
mod schedule;
mod seen;
mod settle;
mod starved;
mod state;
mod wake;

pub(crate) use self::core::{Core, HandlerFuture};
pub use self::recorder::Clock;

use crate::latch::Latch;
use crate::object::Objects;
use crate::recording::Recording;
use crate::service::Service;
use crate::sync::thread::JoinHandle;
use crate::witness::{Fact, Witness};
use std::collections::BTreeMap;
use std::sync::Arc;
use unisono_scheduler::{Declaration, LockId, Parameters, Scheduler, Status};
use unisono_types::borsh::{BorshDeserialize, BorshSerialize};
use unisono_types::{ClusterId, Digest, Done, Position, SequenceNumber, Work};

/// What is told when something is there for [`Executor::take_done`].
pub type Notify = Arc<dyn Fn() + Send + Sync>;

/// How an executor begins. Only `cluster` and `result_bytes_max` are agreed; the rest is local, can be changed while it
/// runs, and never changes a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Seeds random numbers and lock ids.
    pub cluster: ClusterId,
    /// Threads that run handlers; 0: the caller runs them.
    pub workers: usize,
    /// How many handlers may compute before the scheduler has selected them.
    pub start_ahead: usize,
    /// Bytes of the largest result; a larger one becomes a fault.
    pub result_bytes_max: usize,
}

impl Settings {
    /// A little more than the default limit of one operation, so that whatever could be stored can be read back.
    pub const RESULT_BYTES_MAX: usize = (16 << 20) + (64 << 10);

    /// Enough for some cores to have work while a round is full; each costs a future, no thread.
    pub const START_AHEAD: usize = 64;
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster: ClusterId::default(),
            workers: 0,
            start_ahead: Self::START_AHEAD,
            result_bytes_max: Self::RESULT_BYTES_MAX,
        }
    }
}

/// A grant of a lock, in a round that has ended.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub struct GrantRecord {
    /// Counted from the beginning.
    pub number: u64,
    /// In which round.
    pub round: u64,
    /// To which request.
    pub position: Position,
    /// To which child of which child of the request's own thread, whose path is empty.
    pub path: Vec<u16>,
    /// Which lock, as people know it.
    pub lock: String,
    /// To own it alone.
    pub write: bool,
    /// How many writers owned it before, since it was last idle.
    pub writers_before: u64,
}

impl std::fmt::Display for GrantRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, round, position, lock, writers_before, .. } = self;
        let how = if self.write { "" } else { " for reading" };
        write!(f, "grant {number}: in round {round} to request {position:?}")?;
        if !self.path.is_empty() {
            write!(f, ", child {:?},", self.path)?;
        }
        write!(f, " lock {lock}{how} after {writers_before} writers")
    }
}

/// Runs one service.
pub struct Executor {
    core: Arc<Core>,
    /// In the order of their numbers.
    workers: Latch<Vec<JoinHandle<()>>>,
}

impl Executor {
    /// An executor of a new `S`, with its objects in their first state.
    #[must_use]
    pub fn new<S: Service>(scheduler: Box<dyn Scheduler>, settings: Settings) -> Self {
        Self::begin::<S>(scheduler, settings, false)
    }

    /// One that keeps what every thread learns and does.
    pub(crate) fn watched<S: Service>(scheduler: Box<dyn Scheduler>, settings: Settings) -> Self {
        Self::begin::<S>(scheduler, settings, true)
    }

    fn begin<S: Service>(scheduler: Box<dyn Scheduler>, settings: Settings, watched: bool) -> Self {
        let mut objects = Objects::new(settings.cluster);
        let service = Arc::new(S::create(&mut objects, ""));
        let core = Core::new(scheduler, settings, objects, core::handlers(service), watched);
        let executor = Self { core, workers: Latch::default() };
        executor.set_workers(settings.workers);
        executor
    }

    /// Changes how many threads run handlers, while they run; 0: from now on the caller runs them, beginning with what is
    /// ready. Waits for the threads that are too many, each until the handler that it runs waits or asks for something.
    /// Returns how many there are: fewer than wanted only if the operating system gives no more.
    ///
    /// It must not be called by a handler or by what [`Executor::set_notify`] was given.
    pub fn set_workers(&self, workers: usize) -> usize {
        let mut running = self.workers.lock();
        self.core.set_workers(workers);
        while running.len() > workers {
            // A worker ends by itself; that it panicked would be a defect it has already printed.
            let _ = running.pop().map(JoinHandle::join);
        }
        while running.len() < workers {
            match core::start_worker(&self.core, running.len()) {
                Ok(worker) => running.push(worker),
                Err(_) => {
                    self.core.set_workers(running.len());
                    break;
                }
            }
        }
        running.len()
    }

    /// How many threads run handlers; 0: the caller does.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.core.workers()
    }

    /// Changes how many handlers may compute before the scheduler has selected them. Those that do already, go on.
    pub fn set_start_ahead(&self, start_ahead: usize) {
        self.core.set_start_ahead(start_ahead);
    }

    /// How many handlers may compute before the scheduler has selected them.
    #[must_use]
    pub fn start_ahead(&self) -> usize {
        self.core.start_ahead()
    }

    /// Gives the next ordered work.
    pub fn submit(&self, work: Work) {
        self.core.submit([work]);
    }

    /// Gives the next ordered works, a whole decision's, at once.
    pub fn submit_all(&self, works: impl IntoIterator<Item = Work>) {
        self.core.submit(works);
    }

    /// All work of `sequence` and before was submitted: a decision without requests is executed, too.
    pub fn decided(&self, sequence: SequenceNumber) {
        self.core.decided(sequence);
    }

    /// Appends what has happened since the last call.
    pub fn take_done(&self, done: &mut Vec<Done>) {
        self.core.take_done(done);
    }

    /// Called by a worker when there is something to take; while there is more to run, not again within 250 microseconds.
    /// It must not call the executor.
    pub fn set_notify(&self, notify: Notify) {
        self.core.set_notify(notify);
    }

    /// Runs everything that can run, in the calling thread.
    pub fn run_until_idle(&self) {
        self.core.run_until_idle();
    }

    /// How many tasks [`Executor::step`] can choose from. The last ones may be such that only run ahead.
    #[must_use]
    pub fn runnable(&self) -> usize {
        self.core.runnable()
    }

    /// Polls the `pick`-th runnable task once. False if there is no such task.
    pub fn step(&self, pick: usize) -> bool {
        self.core.step(pick)
    }

    /// Waits until the workers have nothing left to run.
    pub fn wait_idle(&self) {
        self.core.wait_idle();
    }

    /// [`Executor::wait_idle`] or [`Executor::run_until_idle`], whichever it is that makes progress.
    pub(crate) fn wait_workers_or_run(&self) {
        if self.workers() == 0 { self.run_until_idle() } else { self.wait_idle() }
    }

    /// Ends everything, and gives what the threads have learnt and done, with the locks in it as people know them.
    pub(crate) fn into_witness(self) -> (Witness, BTreeMap<LockId, String>) {
        let core = Arc::clone(&self.core);
        drop(self);
        let witness = core.witness().map(|witness| std::mem::take(&mut *witness.lock())).unwrap_or_default();
        let locks = witness.journals.values().flat_map(|journal| journal.facts.iter().filter_map(Fact::lock)).collect();
        let names = core.lock_names(&locks);
        (witness, names)
    }

    /// What the service says of this operation before it runs.
    #[must_use]
    pub fn declaration(&self, operation: &[u8]) -> Declaration {
        self.core.declaration(operation)
    }

    /// The last decision of which, and of all before it, every request has finished or is parked. It is meant between
    /// decisions: of a decision that was submitted in part, only that part counts.
    #[must_use]
    pub fn executed(&self) -> SequenceNumber {
        self.core.executed()
    }

    /// At most `limit` objects with their digests as of the last Mark, from the one behind `after` on, in an order
    /// that is the same on all replicas: to find the first object in which two of them differ.
    #[must_use]
    pub fn leaves(&self, after: Option<&str>, limit: usize) -> Vec<(String, Digest)> {
        self.core.leaves(after, limit)
    }

    /// How many objects there were at the last Mark.
    #[must_use]
    pub fn objects(&self) -> usize {
        self.core.objects()
    }

    /// Records the schedule from now on and keeps the last `limit` events (some hundred thousand at most); 0: no longer.
    /// What was recorded before is forgotten when recording begins anew.
    pub fn record(&self, limit: usize) {
        self.core.record(limit);
    }

    /// What tells recordings the time; execution itself reads no clock. Without, times count events.
    pub fn set_clock(&self, clock: Clock) {
        self.core.set_clock(clock);
    }

    /// What was recorded.
    #[must_use]
    pub fn recording(&self) -> Recording {
        self.core.recording()
    }

    /// At most `limit` of the last grants, with a number of `from` or more: to find the first grant in which two replicas
    /// differ. Numbers and order are the same on all replicas as long as their grants are. Some seconds of a busy replica
    /// are kept, of rounds that have ended.
    #[must_use]
    pub fn grants(&self, from: u64, limit: usize) -> Vec<GrantRecord> {
        self.core.grants(from, limit)
    }

    /// Answers to outside calls that are kept until they are due, for people.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.core.answers()
    }

    /// The global parameters in force, for people; a schedule may have none.
    #[must_use]
    pub fn parameters(&self) -> Option<Parameters> {
        self.core.parameters()
    }

    /// What the scheduler is doing, for people.
    #[must_use]
    pub fn status(&self) -> Status {
        self.core.status()
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.core.shut_down();
        self.set_workers(0);
        self.core.tear_down();
    }
}
