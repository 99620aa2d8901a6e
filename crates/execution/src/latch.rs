//! Short locks of the machinery itself: around an object's value, a thread's cell, the scheduler core.
//!
//! Never the deterministic locks of a service. Invariant: a latch does not poison. A panic inside a service's closure
//! leaves what it wrote, on every replica alike, and the next handler finds the object usable.

use crate::sync::{
    Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError, spin_loop,
};

/// A mutex that a panic does not poison.
#[derive(Default)]
pub(crate) struct Latch<T>(Mutex<T>);

impl<T> Latch<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Latch::lock`] of one that is held for a microsecond at a time and wanted all the time: whoever waits, waits for
    /// longer than the standard library does before the operating system is asked, which costs both sides more.
    pub(crate) fn lock_soon(&self) -> MutexGuard<'_, T> {
        for _ in 0..LOOKS {
            match self.0.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => (0..PAUSES).for_each(|_| spin_loop()),
            }
        }
        self.lock()
    }
}

/// Some ten microseconds.
const LOOKS: usize = 30;
const PAUSES: usize = 10;

/// Waits on `signal`; a panic elsewhere does not matter here either.
pub(crate) fn wait<'a, T>(signal: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    signal.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// A read-write latch that a panic does not poison: readers of one object run their closures side by side.
#[derive(Default)]
pub(crate) struct ReadWriteLatch<T>(RwLock<T>);

impl<T> ReadWriteLatch<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(RwLock::new(value))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
