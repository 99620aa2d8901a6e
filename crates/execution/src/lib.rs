//! Runs services: deterministic primitives, and the executor that obeys the scheduler's grants.
//!
//! ```text
//!   service      Service, State: what a user writes
//!   context      a deterministic thread as its handler sees it: time, randomness, waiting
//!   thread       what a handler and the executor tell each other
//!   declared     the lane of requests that say beforehand what they lock
//!   call         asking somebody outside
//!   family       children of a request, and joining them
//!   primitives   Mutex, RwLock, Table and their guards: the only way to shared state
//!   semaphore    permits, from a lock and its wait queue
//!   value        what may be shared, handed to a closure, and returned from it
//!   object       where values live, which changed;   tree: the Merkle tree over them
//!   executor     tasks, workers, grants;   Work in, Done out
//!   recording    a recorded stretch of the schedule, as data
//!   witness      what each thread learnt and did, for tests
//!   testing      a service under many random schedules, compared
//! ```
//! It knows nothing of agreement, networks or disks; it reads no clock. Threads live in `executor` only.
//!
//! Invariant: given the same work, every executor reports the same results and the same roots, whatever its number of
//! workers and whatever runs first.

mod call;
mod context;
mod declared;
mod executor;
mod family;
mod keyed;
mod latch;
mod object;
mod primitives;
mod semaphore;
mod service;
mod sync;
mod thread;
mod tree;
mod value;
mod witness;

#[doc(hidden)]
pub mod macro_support;
pub mod recording;
pub mod testing;

pub use call::CallError;
pub use context::Context;
pub use declared::{Declared, DeclaredContext, Locking, Undeclared};
pub use executor::{Clock, Executor, GrantRecord, Notify, Settings};
pub use family::{JoinHandle, TooManyChildren};
pub use object::Objects;
pub use primitives::{Guard, LockError, Mutex, ReadGuard, RwLock, Table};
pub use semaphore::Semaphore;
pub use service::{Invoke, InvokeError, Service, State, UnknownOperation};
pub use unisono_scheduler::{Change, ClassRule, Declaration, DeclaredLock, Lane, Mode, Order, Predicate, QueueId};
pub use unisono_types::{Bytes, CallRefused, Fault, Timestamp, borsh};
/// What an executor takes and gives.
pub use unisono_types::{Done, Outcome, Position, RequestNumber, SequenceNumber, SessionId, Work};
pub use value::{Input, Key, Output, Queue, Value};
