//! The declared lane: requests that say beforehand which locks they will use, and the Context of their handlers, which
//! offers only what they may do.
//!
//! ```text
//!   Service::declare(operation) ──> tickets, one per lock, in log order ──> DeclaredContext: lock them, unlock, notify
//! ```
//! Such a request needs no turn and no steps, and waits only for those before it that want the same locks. What slips
//! through the type (a lock that was not declared) ends the handler with a typed fault, on every replica alike.

use crate::context::Context;
use crate::primitives::{Mutex, RwLock, Table};
use crate::value::{Key, Value};
use unisono_scheduler::{DeclaredLock, LockId, Mode};
use unisono_types::{Position, RequestNumber, SessionId, Timestamp};

/// A [`Context`] that offers what a handler of the declared lane may do: to lock what it declared, and to know what every
/// handler knows. No waiting, sleeping, spawning, calling, trying.
///
/// ```compile_fail,E0599
/// # use unisono_execution::DeclaredContext;
/// async fn doze(cx: &DeclaredContext<'_>) {
///     cx.sleep(1).await; // no such thing in the declared lane
/// }
/// ```
///
/// ```compile_fail,E0599
/// # use unisono_execution::{DeclaredContext, Mutex};
/// async fn linger(mutex: &Mutex<u64>, cx: &DeclaredContext<'_>) {
///     let guard = mutex.lock(cx).await;
///     guard.wait(0).await; // nor this
/// }
/// ```
///
/// ```
/// # use unisono_execution::{DeclaredContext, Mutex};
/// async fn bump(mutex: &Mutex<u64>, cx: &DeclaredContext<'_>) {
///     let mut guard = mutex.lock(cx).await;
///     guard.with_mut((), |value, ()| *value += 1);
///     guard.notify_one(0);
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DeclaredContext<'cx> {
    cx: &'cx Context,
}

impl<'cx> DeclaredContext<'cx> {
    /// A narrower view of a Context. What takes a `DeclaredContext` can be used by handlers of both lanes.
    #[must_use]
    pub const fn new(cx: &'cx Context) -> Self {
        Self { cx }
    }

    /// [`Context::now`]
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.cx.now()
    }

    /// [`Context::random`]
    #[must_use]
    pub fn random(&self) -> u64 {
        self.cx.random()
    }

    /// [`Context::session`]
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.cx.session()
    }

    /// [`Context::number`]
    #[must_use]
    pub fn number(&self) -> RequestNumber {
        self.cx.number()
    }

    /// [`Context::position`]
    #[must_use]
    pub fn position(&self) -> Position {
        self.cx.position()
    }
}

/// Marks guards whose lock may be waited at.
#[derive(Debug)]
pub enum Undeclared {}

/// Marks guards of the declared lane.
#[derive(Debug)]
pub enum Declared {}

/// What locks can be taken with: a [`Context`] or a [`DeclaredContext`].
#[diagnostic::on_unimplemented(message = "locks are taken with a Context or a DeclaredContext")]
pub trait Locking: sealed::Sealed + Sync {
    /// What the guards can do.
    type Lane;

    #[doc(hidden)]
    fn context(&self) -> &Context;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::Context {}
    impl Sealed for super::DeclaredContext<'_> {}
    impl<C: Sealed> Sealed for &C {}
}

impl Locking for Context {
    type Lane = Undeclared;

    fn context(&self) -> &Context {
        self
    }
}

impl Locking for DeclaredContext<'_> {
    type Lane = Declared;

    fn context(&self) -> &Context {
        self.cx
    }
}

impl<C: Locking> Locking for &C {
    type Lane = C::Lane;

    fn context(&self) -> &Context {
        (*self).context()
    }
}

/// A lock, used once.
pub(crate) const fn once(lock: LockId, mode: Mode) -> DeclaredLock {
    DeclaredLock { lock, mode, uses: 1 }
}

/// To be declared for reading.
#[derive(Debug)]
pub enum Reads {}

/// To be declared for writing.
#[derive(Debug)]
pub enum Writes {}

/// A whole object that can be declared in this way.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be declared like this",
    note = "a Mutex is declared as it is, an RwLock also with `read`, a row of a Table or an array as `self.rows[key]`"
)]
pub trait Whole<M> {
    /// Its lock.
    fn declared(&self) -> DeclaredLock;
}

/// Something with places that can be declared in this way.
#[diagnostic::on_unimplemented(
    message = "the places of `{Self}` cannot be declared like this",
    note = "a row is declared by a key of the table's type, a place of an array by a usize"
)]
pub trait Row<K: ?Sized, M> {
    /// The lock at this place; none if there is no such place.
    fn declared(&self, key: &K) -> Option<DeclaredLock>;
}

impl<T: Value> Whole<Writes> for Mutex<T> {
    fn declared(&self) -> DeclaredLock {
        Mutex::declared(self)
    }
}

impl<T: Value> Whole<Writes> for RwLock<T> {
    fn declared(&self) -> DeclaredLock {
        RwLock::declared(self)
    }
}

impl<T: Value> Whole<Reads> for RwLock<T> {
    fn declared(&self) -> DeclaredLock {
        self.declared_read()
    }
}

impl<K: Key, V: Value> Row<K, Writes> for Table<K, V> {
    fn declared(&self, key: &K) -> Option<DeclaredLock> {
        Some(Table::declared(self, key))
    }
}

impl<K: Key, V: Value> Row<K, Reads> for Table<K, V> {
    fn declared(&self, key: &K) -> Option<DeclaredLock> {
        Some(self.declared_read(key))
    }
}

impl<M, S: Whole<M>, const N: usize> Row<usize, M> for [S; N] {
    fn declared(&self, index: &usize) -> Option<DeclaredLock> {
        self.get(*index).map(Whole::declared)
    }
}
