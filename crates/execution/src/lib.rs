//! Runs services: deterministic primitives, and the executor that obeys the scheduler's grants.
//!
//! ```text
//!   service      Service, State: what a user writes
//!   context      a deterministic thread as its handler sees it: time, randomness, waiting
//!   family       children of a request, and joining them
//!   primitives   Mutex, RwLock, Table and their guards: the only way to shared state
//!   semaphore    permits, from a lock and its wait queue
//!   value        what may be shared, handed to a closure, and returned from it
//!   object       where values live, which changed;   tree: the Merkle tree over them
//!   executor     tasks, workers, grants;   Work in, Done out
//!   testing      a service under many random schedules, compared
//! ```
//! It knows nothing of agreement, networks or disks; it reads no clock. Threads live in `executor` only.
//!
//! Invariant: given the same work, every executor reports the same results and the same roots, whatever its number of
//! workers and whatever runs first.

mod context;
mod executor;
mod family;
mod keyed;
mod latch;
mod object;
mod primitives;
mod semaphore;
mod service;
mod tree;
mod value;

#[doc(hidden)]
pub mod macro_support;
pub mod testing;

pub use context::Context;
pub use executor::{Executor, Notify, Settings};
pub use family::{JoinHandle, TooManyChildren};
pub use object::Objects;
pub use primitives::{Guard, LockError, Mutex, ReadGuard, RwLock, Table};
pub use semaphore::Semaphore;
pub use service::{CallError, Invoke, Service, State, UnknownOperation};
pub use unisono_scheduler::QueueId;
pub use unisono_types::{Fault, Timestamp, borsh};
pub use value::{Input, Key, Output, Queue, Value};
