//! What may be shared, what may be handed to a closure, what may come back out of it.
//!
//! ```text
//!   handler locals ── Input ──>  fn(&mut T, Input) -> Output  ── Output ──> handler locals
//!                                T: Value, reached through a guard only
//! ```
//! Invariant: the only information that flows from shared state into a handler is `Output` values and the results of
//! operations. A function pointer captures nothing, and an [`Input`] is data: no cell, lock, atomic or shared pointer
//! through which a closure could pass something out unseen (docs: checkpoints while executing).

use std::collections::{BTreeMap, BTreeSet};
use unisono_scheduler::QueueId;
use unisono_types::borsh::{BorshDeserialize, BorshSerialize};
use unisono_types::{
    Bytes, ClusterId, Digest, Position, ReplicaId, RequestNumber, SequenceNumber, SessionId, Timestamp,
};

/// A shared value: it has canonical bytes, a default to begin with, and can be copied for a snapshot.
pub trait Value: BorshSerialize + BorshDeserialize + Clone + Default + Send + Sync + 'static {}
impl<T: BorshSerialize + BorshDeserialize + Clone + Default + Send + Sync + 'static> Value for T {}

/// A row's key in a table.
pub trait Key: BorshSerialize + BorshDeserialize + Ord + Clone + Send + Sync + 'static {}
impl<K: BorshSerialize + BorshDeserialize + Ord + Clone + Send + Sync + 'static> Key for K {}

/// What a closure on shared state returns: owned data with canonical bytes, so that it can be written to a journal.
pub trait Output: BorshSerialize + BorshDeserialize + Clone {}
impl<R: BorshSerialize + BorshDeserialize + Clone> Output for R {}

/// What a closure on shared state may be given: data, or slices of the request.
///
/// Never implement it for something with interior mutability (`Cell`, `Mutex`, atomics) or for `Arc`; derive it
/// (`#[derive(Input)]`), then the compiler checks every field.
///
/// ```compile_fail,E0277
/// # use unisono_execution::{Context, Mutex};
/// async fn leak(mutex: &Mutex<u64>, cx: &Context) -> u64 {
///     let seen = std::cell::Cell::new(0);
///     let guard = mutex.lock(cx).await;
///     guard.with(&seen, |value, seen: &std::cell::Cell<u64>| seen.set(*value)); // a Cell is no Input
///     seen.get()
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be handed to a closure on shared state",
    label = "not plain data",
    note = "inputs are data and slices of the request, without Cell, Mutex, atomics or Arc; derive `Input` for your types"
)]
pub trait Input {
    /// Shows every [`Timestamp`] in it, for [`testing`](crate::testing): a time that the handler read before it owned the
    /// lock is told from one that it reads now. Data without times shows nothing.
    fn times(&self, see: &mut dyn FnMut(Timestamp)) {
        let _ = see;
    }
}

macro_rules! input {
    ($($data:ty),* $(,)?) => { $(impl Input for $data {})* };
}
input!((), bool, char, u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, str, String, Bytes);
input!(std::time::Duration, std::cmp::Ordering);
input!(ClusterId, Digest, Position, ReplicaId, RequestNumber, SequenceNumber, SessionId, QueueId);

impl Input for Timestamp {
    fn times(&self, see: &mut dyn FnMut(Timestamp)) {
        see(*self);
    }
}

impl<T: Input + ?Sized> Input for &T {
    fn times(&self, see: &mut dyn FnMut(Timestamp)) {
        (**self).times(see);
    }
}

impl<T: Input> Input for [T] {
    fn times(&self, see: &mut dyn FnMut(Timestamp)) {
        self.iter().for_each(|one| one.times(see));
    }
}

impl<T: Input, const N: usize> Input for [T; N] {
    fn times(&self, see: &mut dyn FnMut(Timestamp)) {
        self.as_slice().times(see);
    }
}

impl<T: Input> Input for Vec<T> {
    fn times(&self, see: &mut dyn FnMut(Timestamp)) {
        self.as_slice().times(see);
    }
}

impl<T: Input + ?Sized> Input for Box<T> {
    fn times(&self, see: &mut dyn FnMut(Timestamp)) {
        (**self).times(see);
    }
}

impl<T: Input> Input for Option<T> {
    fn times(&self, see: &mut dyn FnMut(Timestamp)) {
        self.iter().for_each(|one| one.times(see));
    }
}

impl<T: Input, E: Input> Input for Result<T, E> {
    fn times(&self, see: &mut dyn FnMut(Timestamp)) {
        match self {
            Ok(value) => value.times(see),
            Err(error) => error.times(see),
        }
    }
}

impl<T: Input> Input for BTreeSet<T> {
    fn times(&self, see: &mut dyn FnMut(Timestamp)) {
        self.iter().for_each(|one| one.times(see));
    }
}

impl<K: Input, V: Input> Input for BTreeMap<K, V> {
    fn times(&self, see: &mut dyn FnMut(Timestamp)) {
        self.iter().for_each(|(key, value)| {
            key.times(see);
            value.times(see);
        });
    }
}

impl<T: Input> Input for std::ops::Range<T> {
    fn times(&self, see: &mut dyn FnMut(Timestamp)) {
        self.start.times(see);
        self.end.times(see);
    }
}

macro_rules! input_tuple {
    ($($name:ident)*) => {
        impl<$($name: Input),*> Input for ($($name,)*) {
            fn times(&self, see: &mut dyn FnMut(Timestamp)) {
                #[allow(non_snake_case)]
                let ($($name,)*) = self;
                $($name.times(see);)*
            }
        }
    };
}
input_tuple!(A);
input_tuple!(A B);
input_tuple!(A B C);
input_tuple!(A B C D);
input_tuple!(A B C D E);
input_tuple!(A B C D E F);
input_tuple!(A B C D E F G);
input_tuple!(A B C D E F G H);

/// A wait queue of a guard's lock: a number, or a [`QueueId`]. A plain condition variable is queue 0.
pub trait Queue {
    /// Its name within the lock.
    fn id(self) -> QueueId;
}

impl Queue for u64 {
    fn id(self) -> QueueId {
        QueueId(self)
    }
}

impl Queue for QueueId {
    fn id(self) -> QueueId {
        self
    }
}
