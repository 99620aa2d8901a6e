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

mod core;
mod settle;
mod starved;

pub(crate) use self::core::{Core, HandlerFuture};

use crate::object::Objects;
use crate::service::Service;
use std::sync::Arc;
use std::thread::JoinHandle;
use unisono_scheduler::{Scheduler, Status};
use unisono_types::{ClusterId, Digest, Done, SequenceNumber, Work};

/// What is told when something is there for [`Executor::take_done`].
pub type Notify = Arc<dyn Fn() + Send + Sync>;

/// How an executor runs. Only `cluster` and `result_bytes_max` are agreed; the rest is local and never changes a
/// result.
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

/// Runs one service.
pub struct Executor {
    core: Arc<Core>,
    workers: Vec<JoinHandle<()>>,
}

impl Executor {
    /// An executor of a new `S`, with its objects in their first state.
    #[must_use]
    pub fn new<S: Service>(scheduler: Box<dyn Scheduler>, settings: Settings) -> Self {
        let mut objects = Objects::new(settings.cluster);
        let service = Arc::new(S::create(&mut objects, ""));
        let core = Core::new(scheduler, settings, objects, core::handlers(service));
        let workers = (0..settings.workers).map(|number| core::start_worker(&core, number)).collect();
        Self { core, workers }
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

    /// Called by a worker when there is something to take. It must not call the executor.
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
        if self.workers.is_empty() { self.run_until_idle() } else { self.wait_idle() }
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

    /// What the scheduler is doing, for people.
    #[must_use]
    pub fn status(&self) -> Status {
        self.core.status()
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.core.shut_down();
        for worker in self.workers.drain(..) {
            // A worker ends by itself; that it panicked would be a defect it has already printed.
            let _ = worker.join();
        }
        self.core.tear_down();
    }
}
