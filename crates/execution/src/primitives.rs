//! What a service is made of: [`Mutex`], [`RwLock`], [`Table`], and the guards through which their values are reached.
//!
//! ```text
//!   mutex.lock(cx).await ──> Guard ── with / with_mut ──> value
//!                              |── wait(queue).await ──> Guard      give the lock back, be notified, own it again
//!                              |── notify_one / notify_all(queue)
//!                              └── drop: unlock
//! ```
//! Every `.await` is a scheduling point. `lock` ends the handler with a typed error when it can never succeed
//! (deadlock, owned already); `lock_or` gives the error to the handler. What was written before such an end stays:
//! take all locks before the first write.
//!
//! A condition variable is a wait queue of a lock: numbered, 0 if there is only one. Semaphores and barriers are built
//! from a lock and its queues; [`Semaphore`](crate::Semaphore) is one.

use crate::context::{Context, FaultKind};
use crate::object::{Cell, Home, Kind, Objects, label, no_label};
use crate::service::State;
use crate::value::{Input, Key, Output, Queue, Value};
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use unisono_scheduler::{LockId, Mode, Operation, OperationResult};
use unisono_types::borsh::{BorshDeserialize, BorshSerialize};

/// Why a lock was not taken.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize, thiserror::Error,
)]
#[borsh(crate = "unisono_types::borsh")]
pub enum LockError {
    /// It would have closed a cycle of waiting threads, of which this one is the youngest.
    #[error("taking this lock would have been a deadlock")]
    Deadlock,
    /// The thread owns it already.
    #[error("the lock is owned already")]
    AlreadyOwned,
    /// The same key stands twice among those to be locked.
    #[error("a key is to be locked twice")]
    EqualKeys,
    /// The time-out came first.
    #[error("the lock was not free in time")]
    TimedOut,
}

impl Input for LockError {}

/// A value under a lock of its own. A clone is another handle of the same object, for a child.
pub struct Mutex<T: Value>(Whole<T>);

/// A value under a lock that readers share. A clone is another handle of the same object, for a child.
pub struct RwLock<T: Value>(Whole<T>);

/// Values by key, each under a lock of its own. A row exists from the first `with_mut` on until `remove`. A clone is
/// another handle of the same table, for a child.
pub struct Table<K, V: Value> {
    home: Arc<Home<V>>,
    key: PhantomData<fn(K)>,
}

struct Whole<T: Value> {
    home: Arc<Home<T>>,
    cell: Arc<Cell<T>>,
}

impl<T: Value> Whole<T> {
    fn create(objects: &mut Objects, name: &str, kind: Kind) -> Self {
        let home = objects.register(name, kind, no_label);
        let cell = home.whole();
        Self { home, cell }
    }

    fn request(&self, mode: Mode, timeout: Option<u64>) -> Request<T> {
        let (home, lock) = (Arc::clone(&self.home), self.home.lock_id());
        Request { home, lock, mode, timeout, place: Place::Whole(Arc::clone(&self.cell)) }
    }
}

impl<T: Value> State for Mutex<T> {
    fn create(objects: &mut Objects, name: &str) -> Self {
        Self(Whole::create(objects, name, Kind::Mutex))
    }
}

impl<T: Value> State for RwLock<T> {
    fn create(objects: &mut Objects, name: &str) -> Self {
        Self(Whole::create(objects, name, Kind::RwLock))
    }
}

impl<K: Key, V: Value> State for Table<K, V> {
    fn create(objects: &mut Objects, name: &str) -> Self {
        Self { home: objects.register(name, Kind::Table, label::<K>), key: PhantomData }
    }
}

impl<T: Value> Clone for Whole<T> {
    fn clone(&self) -> Self {
        Self { home: Arc::clone(&self.home), cell: Arc::clone(&self.cell) }
    }
}

impl<T: Value> Clone for Mutex<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Value> Clone for RwLock<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V: Value> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self { home: Arc::clone(&self.home), key: PhantomData }
    }
}

impl<T: Value> Mutex<T> {
    /// Owns the lock if nobody else does. `None` also when the thread owns it itself. The answer comes when all threads of
    /// the round have done what they could: before that it would depend on who unlocks first. It is no cheap operation.
    pub fn try_lock<'cx>(&self, cx: &'cx Context) -> impl Future<Output = Option<Guard<'cx, T>>> + Send + use<'cx, T> {
        let request = self.0.request(Mode::Write, None);
        async move { request.glance(cx).await.map(Guard) }
    }

    /// Owns the lock. Ends the handler when that can never be.
    pub fn lock<'cx>(&self, cx: &'cx Context) -> impl Future<Output = Guard<'cx, T>> + Send + use<'cx, T> {
        let request = self.0.request(Mode::Write, None);
        async move { Guard(request.must(cx).await) }
    }

    /// Owns the lock, or says why it cannot.
    pub fn lock_or<'cx>(
        &self,
        cx: &'cx Context,
    ) -> impl Future<Output = Result<Guard<'cx, T>, LockError>> + Send + use<'cx, T> {
        let request = self.0.request(Mode::Write, None);
        async move { request.attempt(cx).await.map(Guard) }
    }

    /// Owns the lock, or says after `microseconds` of agreed time that it was not free.
    pub fn lock_for<'cx>(
        &self,
        cx: &'cx Context,
        microseconds: u64,
    ) -> impl Future<Output = Result<Guard<'cx, T>, LockError>> + Send + use<'cx, T> {
        let request = self.0.request(Mode::Write, Some(microseconds));
        async move { request.attempt(cx).await.map(Guard) }
    }
}

impl<T: Value> RwLock<T> {
    /// [`Mutex::try_lock`], to own the lock together with other readers.
    pub fn try_read<'cx>(
        &self,
        cx: &'cx Context,
    ) -> impl Future<Output = Option<ReadGuard<'cx, T>>> + Send + use<'cx, T> {
        let request = self.0.request(Mode::Read, None);
        async move { request.glance(cx).await.map(ReadGuard) }
    }

    /// [`Mutex::try_lock`].
    pub fn try_write<'cx>(&self, cx: &'cx Context) -> impl Future<Output = Option<Guard<'cx, T>>> + Send + use<'cx, T> {
        let request = self.0.request(Mode::Write, None);
        async move { request.glance(cx).await.map(Guard) }
    }

    /// Owns the lock together with other readers. Ends the handler when that can never be.
    pub fn read<'cx>(&self, cx: &'cx Context) -> impl Future<Output = ReadGuard<'cx, T>> + Send + use<'cx, T> {
        let request = self.0.request(Mode::Read, None);
        async move { ReadGuard(request.must(cx).await) }
    }

    /// Owns the lock together with other readers, or says why it cannot.
    pub fn read_or<'cx>(
        &self,
        cx: &'cx Context,
    ) -> impl Future<Output = Result<ReadGuard<'cx, T>, LockError>> + Send + use<'cx, T> {
        let request = self.0.request(Mode::Read, None);
        async move { request.attempt(cx).await.map(ReadGuard) }
    }

    /// Owns the lock alone. Ends the handler when that can never be.
    pub fn write<'cx>(&self, cx: &'cx Context) -> impl Future<Output = Guard<'cx, T>> + Send + use<'cx, T> {
        let request = self.0.request(Mode::Write, None);
        async move { Guard(request.must(cx).await) }
    }

    /// Owns the lock alone, or says why it cannot.
    pub fn write_or<'cx>(
        &self,
        cx: &'cx Context,
    ) -> impl Future<Output = Result<Guard<'cx, T>, LockError>> + Send + use<'cx, T> {
        let request = self.0.request(Mode::Write, None);
        async move { request.attempt(cx).await.map(Guard) }
    }
}

impl<K: Key, V: Value> Table<K, V> {
    #[cfg(test)]
    pub(crate) fn home(&self) -> &Arc<Home<V>> {
        &self.home
    }

    fn request(&self, key: &K, mode: Mode, timeout: Option<u64>) -> Request<V> {
        let key = self.home.row_key(key);
        let lock = self.home.row_lock_id(&key);
        Request { home: Arc::clone(&self.home), lock, mode, timeout, place: Place::Row(key) }
    }

    /// Owns the row's lock. Ends the handler when that can never be.
    pub fn lock<'cx>(&self, cx: &'cx Context, key: K) -> impl Future<Output = Guard<'cx, V>> + Send + use<'cx, K, V> {
        let request = self.request(&key, Mode::Write, None);
        async move { Guard(request.must(cx).await) }
    }

    /// Owns the row's lock, or says why it cannot.
    pub fn lock_or<'cx>(
        &self,
        cx: &'cx Context,
        key: K,
    ) -> impl Future<Output = Result<Guard<'cx, V>, LockError>> + Send + use<'cx, K, V> {
        let request = self.request(&key, Mode::Write, None);
        async move { request.attempt(cx).await.map(Guard) }
    }

    /// Owns the row's lock, or says after `microseconds` of agreed time that it was not free.
    pub fn lock_for<'cx>(
        &self,
        cx: &'cx Context,
        key: K,
        microseconds: u64,
    ) -> impl Future<Output = Result<Guard<'cx, V>, LockError>> + Send + use<'cx, K, V> {
        let request = self.request(&key, Mode::Write, Some(microseconds));
        async move { request.attempt(cx).await.map(Guard) }
    }

    /// [`Mutex::try_lock`], for a row.
    pub fn try_lock<'cx>(
        &self,
        cx: &'cx Context,
        key: K,
    ) -> impl Future<Output = Option<Guard<'cx, V>>> + Send + use<'cx, K, V> {
        let request = self.request(&key, Mode::Write, None);
        async move { request.glance(cx).await.map(Guard) }
    }

    /// [`RwLock::try_read`], for a row.
    pub fn try_read<'cx>(
        &self,
        cx: &'cx Context,
        key: K,
    ) -> impl Future<Output = Option<ReadGuard<'cx, V>>> + Send + use<'cx, K, V> {
        let request = self.request(&key, Mode::Read, None);
        async move { request.glance(cx).await.map(ReadGuard) }
    }

    /// Owns the row's lock together with other readers. Ends the handler when that can never be.
    pub fn read<'cx>(
        &self,
        cx: &'cx Context,
        key: K,
    ) -> impl Future<Output = ReadGuard<'cx, V>> + Send + use<'cx, K, V> {
        let request = self.request(&key, Mode::Read, None);
        async move { ReadGuard(request.must(cx).await) }
    }

    /// Owns the locks of several rows: taken in ascending order of the keys, so that no two handlers that lock this
    /// way can deadlock; handed out in the order of the arguments.
    ///
    /// # Errors
    /// [`LockError::EqualKeys`] before anything is locked; else as `lock_or`, with what was locked given back.
    pub async fn lock_all<'cx, const N: usize>(
        &self,
        cx: &'cx Context,
        keys: [K; N],
    ) -> Result<[Guard<'cx, V>; N], LockError> {
        let guards = self.lock_many(cx, keys.into()).await?;
        Ok(guards.try_into().unwrap_or_else(|_| unreachable!("one guard per key")))
    }

    /// [`Table::lock_all`] for a number of keys known only at run time.
    ///
    /// # Errors
    /// As [`Table::lock_all`].
    pub async fn lock_many<'cx>(&self, cx: &'cx Context, keys: Vec<K>) -> Result<Vec<Guard<'cx, V>>, LockError> {
        let mut places: Vec<usize> = (0..keys.len()).collect();
        places.sort_by(|a, b| keys[*a].cmp(&keys[*b]));
        if places.windows(2).any(|pair| keys[pair[0]] == keys[pair[1]]) {
            return Err(LockError::EqualKeys);
        }
        let mut guards: Vec<Option<Guard<'cx, V>>> = keys.iter().map(|_| None).collect();
        for place in places {
            guards[place] = Some(self.lock_or(cx, keys[place].clone()).await?);
        }
        Ok(guards.into_iter().flatten().collect())
    }
}

/// A lock to be taken, independent of the table it belongs to.
struct Request<T: Value> {
    home: Arc<Home<T>>,
    lock: LockId,
    mode: Mode,
    timeout: Option<u64>,
    place: Place<T>,
}

enum Place<T> {
    Whole(Arc<Cell<T>>),
    Row(crate::object::RowKey),
}

impl<T: Value> Request<T> {
    async fn attempt(self, cx: &Context) -> Result<Hold<'_, T>, LockError> {
        let operation = Operation::Lock { lock: self.lock, mode: self.mode, timeout: self.timeout };
        match cx.operation(operation).await {
            OperationResult::Granted => Ok(self.hold(cx)),
            OperationResult::TimedOut => Err(LockError::TimedOut),
            OperationResult::Deadlock => Err(LockError::Deadlock),
            OperationResult::NotPossible | OperationResult::Occupied => Err(LockError::AlreadyOwned),
        }
    }

    /// `None`: somebody stands against it, or the thread owns it already.
    async fn glance(self, cx: &Context) -> Option<Hold<'_, T>> {
        let operation = Operation::Try { lock: self.lock, mode: self.mode };
        let granted = cx.operation(operation).await == OperationResult::Granted;
        granted.then(|| self.hold(cx))
    }

    fn hold(self, cx: &Context) -> Hold<'_, T> {
        let cell = match self.place {
            Place::Whole(cell) => cell,
            Place::Row(key) => self.home.row(key),
        };
        Hold { cx, lock: self.lock, home: self.home, cell, held: true }
    }

    async fn must(self, cx: &Context) -> Hold<'_, T> {
        match self.attempt(cx).await {
            Ok(hold) => hold,
            Err(LockError::Deadlock | LockError::TimedOut) => cx.end(FaultKind::Deadlock).await,
            Err(LockError::AlreadyOwned | LockError::EqualKeys) => cx.end(FaultKind::AlreadyOwned).await,
        }
    }
}

/// A lock that is owned.
struct Hold<'cx, T: Value> {
    cx: &'cx Context,
    lock: LockId,
    home: Arc<Home<T>>,
    cell: Arc<Cell<T>>,
    /// Not while it waits.
    held: bool,
}

impl<T: Value> Drop for Hold<'_, T> {
    fn drop(&mut self) {
        if self.held {
            self.cx.release(self.lock);
        }
    }
}

/// A lock owned alone. Dropping it unlocks.
///
/// ```compile_fail
/// # use unisono_execution::{Context, Mutex};
/// async fn leak(mutex: &Mutex<u64>, cx: &Context) -> u64 {
///     let mut seen = 0;
///     let mut guard = mutex.lock(cx).await;
///     guard.with_mut((), |value, ()| seen = *value); // a closure that captures is no function pointer
///     seen
/// }
/// ```
///
/// The same with data in and data out:
///
/// ```
/// # use unisono_execution::{Context, Mutex};
/// async fn bump(mutex: &Mutex<u64>, cx: &Context, by: u64) -> u64 {
///     let mut guard = mutex.lock(cx).await;
///     guard.with_mut(by, |value, by| {
///         *value += by;
///         *value
///     })
/// }
/// ```
#[must_use = "dropping the guard unlocks"]
pub struct Guard<'cx, T: Value>(Hold<'cx, T>);

/// A lock shared with other readers. Dropping it unlocks.
#[must_use = "dropping the guard unlocks"]
pub struct ReadGuard<'cx, T: Value>(Hold<'cx, T>);

impl<T: Value> ReadGuard<'_, T> {
    /// Looks at the value.
    pub fn with<I: Input, R: Output>(&self, input: I, f: fn(&T, I) -> R) -> R {
        self.0.cell.with(input, f)
    }

    /// Whether the row exists (a whole object: whether it was ever written).
    #[must_use]
    pub fn exists(&self) -> bool {
        self.0.cell.exists()
    }
}

impl<'cx, T: Value> Guard<'cx, T> {
    /// Looks at the value. A row that does not exist looks like the default.
    pub fn with<I: Input, R: Output>(&self, input: I, f: fn(&T, I) -> R) -> R {
        self.0.cell.with(input, f)
    }

    /// Changes the value. A row that does not exist is made, with the default.
    pub fn with_mut<I: Input, R: Output>(&mut self, input: I, f: fn(&mut T, I) -> R) -> R {
        self.0.cell.with_mut(&self.0.home, input, f)
    }

    /// Whether the row exists (a whole object: whether it was written since it was made or removed).
    #[must_use]
    pub fn exists(&self) -> bool {
        self.0.cell.exists()
    }

    /// Deletes the row; a whole object returns to its default. True if there was something.
    pub fn remove(&mut self) -> bool {
        self.0.cell.remove(&self.0.home)
    }

    /// Gives the lock back, waits to be notified on `queue`, owns it again.
    pub fn wait<Q: Queue>(self, queue: Q) -> impl Future<Output = Guard<'cx, T>> + Send + use<'cx, T, Q> {
        let waiting = self.park(queue, None);
        async move { waiting.await.0 }
    }

    /// [`Guard::wait`], for `microseconds` of agreed time at most. Owns the lock again in any case; true if the time
    /// was up before a notification came.
    pub fn wait_for<Q: Queue>(
        self,
        queue: Q,
        microseconds: u64,
    ) -> impl Future<Output = (Guard<'cx, T>, bool)> + Send + use<'cx, T, Q> {
        self.park(queue, Some(microseconds))
    }

    fn park<Q: Queue>(
        mut self,
        queue: Q,
        timeout: Option<u64>,
    ) -> impl Future<Output = (Guard<'cx, T>, bool)> + Send + use<'cx, T, Q> {
        let (cx, operation) = (self.0.cx, Operation::Wait { lock: self.0.lock, queue: queue.id(), timeout });
        async move {
            let waiting = cx.operation(operation);
            self.0.held = false;
            let result = waiting.await;
            match result {
                OperationResult::Granted | OperationResult::TimedOut => self.0.held = true,
                OperationResult::Deadlock => cx.end(FaultKind::Deadlock).await,
                OperationResult::NotPossible | OperationResult::Occupied => cx.end(FaultKind::AlreadyOwned).await,
            }
            (self, result == OperationResult::TimedOut)
        }
    }

    /// Wakes the thread that has waited longest on `queue`. It goes on when it owns the lock again.
    pub fn notify_one<Q: Queue>(&self, queue: Q) {
        self.0.cx.notify(self.0.lock, queue.id(), false);
    }

    /// Wakes all threads that wait on `queue`, in the order in which they came.
    pub fn notify_all<Q: Queue>(&self, queue: Q) {
        self.0.cx.notify(self.0.lock, queue.id(), true);
    }
}
