//! What threads of the operating system share, and the threads themselves: of the standard library, or of a tool that
//! tries interleavings in its place (`--cfg shuttle`, `--cfg loom`).

#[cfg(loom)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread,
};
#[cfg(shuttle)]
pub(crate) use shuttle::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread,
};
pub(crate) use std::sync::{PoisonError, TryLockError};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::time::Instant;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread,
};

/// A tool that tries interleavings knows no time: shuttle tries both, a moment that is long past and one that is not.
#[cfg(any(loom, shuttle))]
#[derive(Clone, Copy)]
pub(crate) struct Instant;

#[cfg(any(loom, shuttle))]
impl Instant {
    pub(crate) const fn now() -> Self {
        Self
    }

    pub(crate) fn elapsed(self) -> std::time::Duration {
        #[cfg(shuttle)]
        if shuttle::rand::Rng::r#gen(&mut shuttle::rand::thread_rng()) {
            return std::time::Duration::ZERO;
        }
        std::time::Duration::MAX
    }
}
