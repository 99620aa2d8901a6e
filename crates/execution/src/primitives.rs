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

use crate::context::Context;
use crate::declared::{Locking, Undeclared, once};
use crate::object::{Cell, Home, Kind, Objects, label, no_label};
use crate::service::State;
use crate::thread::OperationFuture;
use crate::value::{Input, Key, Output, Queue, Value};
use crate::witness::{self, Fact};
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use unisono_scheduler::{DeclaredLock, LockId, Mode, Operation, OperationResult};
use unisono_types::borsh::{self, BorshDeserialize, BorshSerialize};

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
pub struct Mutex<T: Value>(Arc<Whole<T>>);

/// A value under a lock that readers share. A clone is another handle of the same object, for a child.
pub struct RwLock<T: Value>(Arc<Whole<T>>);

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
    fn create(objects: &mut Objects, name: &str, kind: Kind) -> Arc<Self> {
        let home = objects.register(name, kind, no_label);
        let cell = home.whole();
        Arc::new(Self { home, cell })
    }

    fn request(self: &Arc<Self>, mode: Mode, timeout: Option<u64>) -> Request<T> {
        Request { lock: self.home.lock_id(), mode, timeout, place: Place::Whole(Arc::clone(self)) }
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

impl<T: Value> Clone for Mutex<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Value> Clone for RwLock<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
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
        request.glance::<Guard<'cx, _>>(cx)
    }

    /// Owns the lock. Ends the handler when that can never be.
    pub fn lock<'cx, C: Locking>(
        &self,
        cx: &'cx C,
    ) -> impl Future<Output = Guard<'cx, T, C::Lane>> + Send + use<'cx, T, C> {
        let (request, cx) = (self.0.request(Mode::Write, None), cx.context());
        request.must::<Guard<'cx, _, C::Lane>>(cx)
    }

    /// The lock, for a request's [`Declaration`](crate::Declaration).
    #[must_use]
    pub fn declared(&self) -> DeclaredLock {
        once(self.0.home.lock_id(), Mode::Write)
    }

    /// Owns the lock, or says why it cannot.
    pub fn lock_or<'cx>(
        &self,
        cx: &'cx Context,
    ) -> impl Future<Output = Result<Guard<'cx, T>, LockError>> + Send + use<'cx, T> {
        let request = self.0.request(Mode::Write, None);
        request.attempt::<Guard<'cx, _>>(cx)
    }

    /// Owns the lock, or says after `microseconds` of agreed time that it was not free.
    pub fn lock_for<'cx>(
        &self,
        cx: &'cx Context,
        microseconds: u64,
    ) -> impl Future<Output = Result<Guard<'cx, T>, LockError>> + Send + use<'cx, T> {
        let request = self.0.request(Mode::Write, Some(microseconds));
        request.attempt::<Guard<'cx, _>>(cx)
    }
}

impl<T: Value> RwLock<T> {
    /// [`Mutex::try_lock`], to own the lock together with other readers.
    pub fn try_read<'cx>(
        &self,
        cx: &'cx Context,
    ) -> impl Future<Output = Option<ReadGuard<'cx, T>>> + Send + use<'cx, T> {
        let request = self.0.request(Mode::Read, None);
        request.glance::<ReadGuard<'cx, _>>(cx)
    }

    /// [`Mutex::try_lock`].
    pub fn try_write<'cx>(&self, cx: &'cx Context) -> impl Future<Output = Option<Guard<'cx, T>>> + Send + use<'cx, T> {
        let request = self.0.request(Mode::Write, None);
        request.glance::<Guard<'cx, _>>(cx)
    }

    /// Owns the lock together with other readers. Ends the handler when that can never be.
    pub fn read<'cx, C: Locking>(&self, cx: &'cx C) -> impl Future<Output = ReadGuard<'cx, T>> + Send + use<'cx, T, C> {
        let (request, cx) = (self.0.request(Mode::Read, None), cx.context());
        request.must::<ReadGuard<'cx, _>>(cx)
    }

    /// The lock, to be owned alone, for a request's [`Declaration`](crate::Declaration).
    #[must_use]
    pub fn declared(&self) -> DeclaredLock {
        once(self.0.home.lock_id(), Mode::Write)
    }

    /// [`RwLock::declared`], to be shared with other readers.
    #[must_use]
    pub fn declared_read(&self) -> DeclaredLock {
        once(self.0.home.lock_id(), Mode::Read)
    }

    /// Owns the lock together with other readers, or says why it cannot.
    pub fn read_or<'cx>(
        &self,
        cx: &'cx Context,
    ) -> impl Future<Output = Result<ReadGuard<'cx, T>, LockError>> + Send + use<'cx, T> {
        let request = self.0.request(Mode::Read, None);
        request.attempt::<ReadGuard<'cx, _>>(cx)
    }

    /// Owns the lock alone. Ends the handler when that can never be.
    pub fn write<'cx, C: Locking>(
        &self,
        cx: &'cx C,
    ) -> impl Future<Output = Guard<'cx, T, C::Lane>> + Send + use<'cx, T, C> {
        let (request, cx) = (self.0.request(Mode::Write, None), cx.context());
        request.must::<Guard<'cx, _, C::Lane>>(cx)
    }

    /// Owns the lock alone, or says why it cannot.
    pub fn write_or<'cx>(
        &self,
        cx: &'cx Context,
    ) -> impl Future<Output = Result<Guard<'cx, T>, LockError>> + Send + use<'cx, T> {
        let request = self.0.request(Mode::Write, None);
        request.attempt::<Guard<'cx, _>>(cx)
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
        Request { lock, mode, timeout, place: Place::Row(Arc::clone(&self.home), key) }
    }

    /// Owns the row's lock. Ends the handler when that can never be.
    pub fn lock<'cx, C: Locking>(
        &self,
        cx: &'cx C,
        key: K,
    ) -> impl Future<Output = Guard<'cx, V, C::Lane>> + Send + use<'cx, K, V, C> {
        let (request, cx) = (self.request(&key, Mode::Write, None), cx.context());
        request.must::<Guard<'cx, _, C::Lane>>(cx)
    }

    /// The row's lock, for a request's [`Declaration`](crate::Declaration).
    #[must_use]
    pub fn declared(&self, key: &K) -> DeclaredLock {
        once(self.home.row_lock_id(&self.home.row_key(key)), Mode::Write)
    }

    /// [`Table::declared`], to be shared with other readers.
    #[must_use]
    pub fn declared_read(&self, key: &K) -> DeclaredLock {
        once(self.home.row_lock_id(&self.home.row_key(key)), Mode::Read)
    }

    /// Owns the row's lock, or says why it cannot.
    pub fn lock_or<'cx>(
        &self,
        cx: &'cx Context,
        key: K,
    ) -> impl Future<Output = Result<Guard<'cx, V>, LockError>> + Send + use<'cx, K, V> {
        let request = self.request(&key, Mode::Write, None);
        request.attempt::<Guard<'cx, _>>(cx)
    }

    /// Owns the row's lock, or says after `microseconds` of agreed time that it was not free.
    pub fn lock_for<'cx>(
        &self,
        cx: &'cx Context,
        key: K,
        microseconds: u64,
    ) -> impl Future<Output = Result<Guard<'cx, V>, LockError>> + Send + use<'cx, K, V> {
        let request = self.request(&key, Mode::Write, Some(microseconds));
        request.attempt::<Guard<'cx, _>>(cx)
    }

    /// [`Mutex::try_lock`], for a row.
    pub fn try_lock<'cx>(
        &self,
        cx: &'cx Context,
        key: K,
    ) -> impl Future<Output = Option<Guard<'cx, V>>> + Send + use<'cx, K, V> {
        let request = self.request(&key, Mode::Write, None);
        request.glance::<Guard<'cx, _>>(cx)
    }

    /// [`RwLock::try_read`], for a row.
    pub fn try_read<'cx>(
        &self,
        cx: &'cx Context,
        key: K,
    ) -> impl Future<Output = Option<ReadGuard<'cx, V>>> + Send + use<'cx, K, V> {
        let request = self.request(&key, Mode::Read, None);
        request.glance::<ReadGuard<'cx, _>>(cx)
    }

    /// Owns the row's lock together with other readers. Ends the handler when that can never be.
    pub fn read<'cx, C: Locking>(
        &self,
        cx: &'cx C,
        key: K,
    ) -> impl Future<Output = ReadGuard<'cx, V>> + Send + use<'cx, K, V, C> {
        let (request, cx) = (self.request(&key, Mode::Read, None), cx.context());
        request.must::<ReadGuard<'cx, _>>(cx)
    }

    /// Owns the locks of several rows: taken in ascending order of the keys, so that no two handlers that lock this
    /// way can deadlock; handed out in the order of the arguments.
    ///
    /// # Errors
    /// [`LockError::EqualKeys`] before anything is locked; else as `lock_or`, with what was locked given back.
    pub async fn lock_all<'cx, C: Locking, const N: usize>(
        &self,
        cx: &'cx C,
        keys: [K; N],
    ) -> Result<[Guard<'cx, V, C::Lane>; N], LockError> {
        let guards = self.lock_many(cx, keys.into()).await?;
        Ok(guards.try_into().unwrap_or_else(|_| unreachable!("one guard per key")))
    }

    /// [`Table::lock_all`] for a number of keys known only at run time.
    ///
    /// # Errors
    /// As [`Table::lock_all`].
    pub async fn lock_many<'cx, C: Locking>(
        &self,
        cx: &'cx C,
        keys: Vec<K>,
    ) -> Result<Vec<Guard<'cx, V, C::Lane>>, LockError> {
        let mut places: Vec<usize> = (0..keys.len()).collect();
        places.sort_by(|a, b| keys[*a].cmp(&keys[*b]));
        if places.windows(2).any(|pair| keys[pair[0]] == keys[pair[1]]) {
            return Err(LockError::EqualKeys);
        }
        let mut guards: Vec<Option<Guard<'cx, V, C::Lane>>> = keys.iter().map(|_| None).collect();
        for place in places {
            let request = self.request(&keys[place], Mode::Write, None);
            guards[place] = Some(request.attempt::<Guard<'cx, _, C::Lane>>(cx.context()).await?);
        }
        Ok(guards.into_iter().flatten().collect())
    }
}

/// A lock to be taken, independent of the table it belongs to.
struct Request<T: Value> {
    lock: LockId,
    mode: Mode,
    timeout: Option<u64>,
    place: Place<T>,
}

enum Place<T: Value> {
    Whole(Arc<Whole<T>>),
    Row(Arc<Home<T>>, crate::object::RowKey),
}

impl<T: Value> Request<T> {
    /// Owns the lock, or ends the handler.
    fn must<'cx, G: Owning<'cx, T>>(self, cx: &'cx Context) -> Taking<'cx, T, Must<G>> {
        let operation = Operation::Lock { lock: self.lock, mode: self.mode, timeout: self.timeout };
        Taking::new(self, cx, operation)
    }

    /// Owns the lock, or says why not.
    fn attempt<'cx, G: Owning<'cx, T>>(self, cx: &'cx Context) -> Taking<'cx, T, Attempt<G>> {
        let operation = Operation::Lock { lock: self.lock, mode: self.mode, timeout: self.timeout };
        Taking::new(self, cx, operation)
    }

    /// Owns the lock, or not: when somebody stands against it, or the thread owns it already.
    fn glance<'cx, G: Owning<'cx, T>>(self, cx: &'cx Context) -> Taking<'cx, T, Glance<G>> {
        let operation = Operation::Try { lock: self.lock, mode: self.mode };
        Taking::new(self, cx, operation)
    }
}

/// A lock that is being taken. Written by hand, because an async block around another one moves everything that it holds
/// at each poll.
struct Taking<'cx, T: Value, E> {
    cx: &'cx Context,
    asking: OperationFuture<'cx>,
    lock: LockId,
    /// Until it is owned.
    place: Option<Place<T>>,
    end: PhantomData<fn() -> E>,
}

impl<'cx, T: Value, E> Taking<'cx, T, E> {
    fn new(request: Request<T>, cx: &'cx Context, operation: Operation) -> Self {
        let Request { lock, place, .. } = request;
        Self { cx, asking: cx.operation(operation), lock, place: Some(place), end: PhantomData }
    }
}

impl<'cx, T: Value, E: End<'cx, T>> Future for Taking<'cx, T, E> {
    type Output = E::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<E::Output> {
        let Poll::Ready(result) = Pin::new(&mut self.asking).poll(context) else { return Poll::Pending };
        let cx = self.cx;
        let hold = match self.place.take() {
            Some(place) if result == OperationResult::Granted => Ok(Hold::new(cx, self.lock, place)),
            _ => Err(result),
        };
        match E::end(hold) {
            Ok(output) => Poll::Ready(output),
            Err(result) => {
                cx.refuse(result);
                Poll::Pending
            }
        }
    }
}

/// What the taking of a lock comes to.
trait End<'cx, T: Value> {
    type Output;

    /// An error ends the handler.
    fn end(hold: Result<Hold<'cx, T>, OperationResult>) -> Result<Self::Output, OperationResult>;
}

/// [`Request::must`]
struct Must<G>(PhantomData<G>);

/// [`Request::attempt`]
struct Attempt<G>(PhantomData<G>);

/// [`Request::glance`]
struct Glance<G>(PhantomData<G>);

impl<'cx, T: Value, G: Owning<'cx, T>> End<'cx, T> for Must<G> {
    type Output = G;

    fn end(hold: Result<Hold<'cx, T>, OperationResult>) -> Result<G, OperationResult> {
        hold.map(G::of)
    }
}

impl<'cx, T: Value, G: Owning<'cx, T>> End<'cx, T> for Attempt<G> {
    type Output = Result<G, LockError>;

    fn end(hold: Result<Hold<'cx, T>, OperationResult>) -> Result<Self::Output, OperationResult> {
        Ok(hold.map(G::of).map_err(|result| match result {
            OperationResult::TimedOut => LockError::TimedOut,
            OperationResult::Deadlock => LockError::Deadlock,
            _ => LockError::AlreadyOwned,
        }))
    }
}

impl<'cx, T: Value, G: Owning<'cx, T>> End<'cx, T> for Glance<G> {
    type Output = Option<G>;

    fn end(hold: Result<Hold<'cx, T>, OperationResult>) -> Result<Option<G>, OperationResult> {
        Ok(hold.ok().map(G::of))
    }
}

/// A guard.
trait Owning<'cx, T: Value> {
    fn of(hold: Hold<'cx, T>) -> Self;
}

impl<'cx, T: Value, L> Owning<'cx, T> for Guard<'cx, T, L> {
    fn of(hold: Hold<'cx, T>) -> Self {
        Self(hold, PhantomData)
    }
}

impl<'cx, T: Value> Owning<'cx, T> for ReadGuard<'cx, T> {
    fn of(hold: Hold<'cx, T>) -> Self {
        Self(hold)
    }
}

/// A lock that is owned.
struct Hold<'cx, T: Value> {
    cx: &'cx Context,
    lock: LockId,
    owned: Owned<T>,
    /// Not while it waits.
    held: bool,
}

enum Owned<T: Value> {
    Whole(Arc<Whole<T>>),
    Row(Arc<Home<T>>, Arc<Cell<T>>),
}

impl<'cx, T: Value> Hold<'cx, T> {
    fn new(cx: &'cx Context, lock: LockId, place: Place<T>) -> Self {
        let owned = match place {
            Place::Whole(whole) => Owned::Whole(whole),
            Place::Row(home, key) => {
                let cell = home.row(key);
                Owned::Row(home, cell)
            }
        };
        Self { cx, lock, owned, held: true }
    }

    fn cell(&self) -> &Arc<Cell<T>> {
        match &self.owned {
            Owned::Whole(whole) => &whole.cell,
            Owned::Row(_, cell) => cell,
        }
    }

    /// While the thread waited, others owned the lock: a row may have been made or deleted.
    fn find_again(&mut self) {
        if let Owned::Row(home, cell) = &mut self.owned {
            *cell = home.current(cell);
        }
    }

    fn home(&self) -> &Home<T> {
        match &self.owned {
            Owned::Whole(whole) => &whole.home,
            Owned::Row(home, _) => home,
        }
    }

    /// Runs a closure on the value, with a note of what it found and what it left where somebody wants to know.
    fn watched<R: Output>(&self, run: impl FnOnce() -> R) -> R {
        if !self.cx.is_watched() {
            return run();
        }
        self.cx.note(Fact::Found(self.lock, self.cell().hash()));
        let output = run();
        let mut left = self.cell().hash().to_le_bytes().to_vec();
        left.extend(borsh::to_vec(&output).unwrap_or_default());
        self.cx.note(Fact::Left(self.lock, witness::hash(&left)));
        output
    }
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
///
/// In the declared lane it cannot wait.
#[must_use = "dropping the guard unlocks"]
pub struct Guard<'cx, T: Value, L = Undeclared>(Hold<'cx, T>, PhantomData<fn() -> L>);

/// A lock shared with other readers. Dropping it unlocks.
#[must_use = "dropping the guard unlocks"]
pub struct ReadGuard<'cx, T: Value>(Hold<'cx, T>);

impl<T: Value> ReadGuard<'_, T> {
    /// Looks at the value.
    pub fn with<I: Input, R: Output>(&self, input: I, f: fn(&T, I) -> R) -> R {
        self.0.cx.uses(self.0.lock, false, &());
        self.0.watched(|| self.0.cell().with(input, f))
    }

    /// Whether the row exists (a whole object: whether it was ever written).
    #[must_use]
    pub fn exists(&self) -> bool {
        self.0.watched(|| self.0.cell().exists())
    }
}

impl<T: Value, L> Guard<'_, T, L> {
    /// Looks at the value. A row that does not exist looks like the default.
    pub fn with<I: Input, R: Output>(&self, input: I, f: fn(&T, I) -> R) -> R {
        self.0.cx.uses(self.0.lock, true, &());
        self.0.watched(|| self.0.cell().with(input, f))
    }

    /// Changes the value. A row that does not exist is made, with the default.
    ///
    /// A time among `input` should be one that was read after the lock was owned: [`testing`](crate::testing) reports an
    /// earlier one if somebody has owned the lock since.
    pub fn with_mut<I: Input, R: Output>(&mut self, input: I, f: fn(&mut T, I) -> R) -> R {
        self.0.cx.uses(self.0.lock, true, &input);
        self.0.watched(|| self.0.cell().with_mut(self.0.home(), input, f))
    }

    /// Whether the row exists (a whole object: whether it was written since it was made or removed).
    #[must_use]
    pub fn exists(&self) -> bool {
        self.0.watched(|| self.0.cell().exists())
    }

    /// Deletes the row; a whole object returns to its default. True if there was something.
    pub fn remove(&mut self) -> bool {
        self.0.watched(|| self.0.cell().remove(self.0.home()))
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

impl<'cx, T: Value> Guard<'cx, T> {
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
                OperationResult::Granted | OperationResult::TimedOut => {
                    self.0.held = true;
                    self.0.find_again();
                }
                result => cx.refused(result).await,
            }
            (self, result == OperationResult::TimedOut)
        }
    }
}
