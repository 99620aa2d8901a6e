//! A service: its shared state and its handlers. Everything here works without macros; `#[service]` and
//! `#[derive(State)]` write the same by rule.
//!
//! ```text
//!   operation bytes = index of the method, then the canonical bytes of its arguments
//!   result bytes    = the canonical bytes of what the method returned
//! ```

use crate::{Context, Objects};
use std::future::Future;
use unisono_scheduler::Declaration;
use unisono_types::borsh::BorshDeserialize;

/// Shared objects, or a composition of them. `create` names every one of them, the same on every replica.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no shared state",
    note = "a service consists of Mutex, RwLock, Table, arrays of them, and structs that derive `State`"
)]
pub trait State: Sized {
    /// Makes the objects with their first values. `name` is the path that names them: `accounts`, `shards[17]`.
    fn create(objects: &mut Objects, name: &str) -> Self;
}

impl<S: State, const N: usize> State for [S; N] {
    fn create(objects: &mut Objects, name: &str) -> Self {
        std::array::from_fn(|index| S::create(objects, &format!("{name}[{index}]")))
    }
}

/// A replicated service.
///
/// Invariant: a handler is a deterministic function of its operation, its [`Context`] and what its closures on shared
/// state returned. No statics, clocks, files or ambient randomness.
pub trait Service: State + Send + Sync + 'static {
    /// Runs one operation. The bytes returned are the reply.
    fn execute<'a>(
        &'a self,
        cx: &'a Context,
        operation: &'a [u8],
    ) -> impl Future<Output = Result<Vec<u8>, UnknownOperation>> + Send + 'a;

    /// The name of the handler that `operation` calls, for faults and metrics.
    fn handler(operation: &[u8]) -> &'static str;

    /// What is known of `operation` before it runs: its class, and the locks that it will use. It may depend on the
    /// operation and on which objects there are, on nothing else. With [`Lane::Declared`](crate::Lane::Declared) its handler runs in the declared
    /// lane and may use a [`DeclaredContext`](crate::DeclaredContext) only; without, the locks are foreknowledge of a
    /// schedule by future locks.
    fn declare(&self, operation: &[u8]) -> Declaration {
        let _ = operation;
        Declaration::default()
    }

    /// An operation for load generators and random tests.
    fn sample_operation(seed: u64) -> Vec<u8> {
        let _ = seed;
        Vec::new()
    }
}

/// The operation's bytes are no call of this service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the operation is no call of this service")]
pub struct UnknownOperation;

/// Something that brings an operation to a service and its result back: what a typed client stands on.
pub trait Invoke {
    /// Why there is no result.
    type Error;

    /// Runs `operation`, once.
    fn invoke(&self, operation: Vec<u8>) -> impl Future<Output = Result<Vec<u8>, Self::Error>> + Send;
}

impl<I: Invoke> Invoke for &I {
    type Error = I::Error;

    fn invoke(&self, operation: Vec<u8>) -> impl Future<Output = Result<Vec<u8>, Self::Error>> + Send {
        (**self).invoke(operation)
    }
}

/// Why a typed call has no value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvokeError<E> {
    /// The call itself failed.
    #[error(transparent)]
    Invoke(#[from] E),
    /// The reply's bytes are no value of the expected type: client and service are of different versions.
    #[error("the reply does not have the expected type")]
    Malformed,
}

/// What is left of an operation's bytes while its arguments are read.
pub struct Arguments<'a>(&'a [u8]);

impl<'a> Arguments<'a> {
    /// The arguments behind the method's index.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next argument, owned.
    ///
    /// # Errors
    /// [`UnknownOperation`] when the bytes are no `T`.
    pub fn value<T: BorshDeserialize>(&mut self) -> Result<T, UnknownOperation> {
        T::deserialize(&mut self.0).map_err(|_| UnknownOperation)
    }

    /// The next argument as a slice of the operation: nothing is copied.
    ///
    /// # Errors
    /// [`UnknownOperation`] when it is cut short.
    pub fn bytes(&mut self) -> Result<&'a [u8], UnknownOperation> {
        let length = self.value::<u32>()? as usize;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(UnknownOperation)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// The next argument as text.
    ///
    /// # Errors
    /// [`UnknownOperation`] when it is cut short or not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, UnknownOperation> {
        std::str::from_utf8(self.bytes()?).map_err(|_| UnknownOperation)
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// [`UnknownOperation`] when something is.
    pub fn end(self) -> Result<(), UnknownOperation> {
        if self.0.is_empty() { Ok(()) } else { Err(UnknownOperation) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_types::encode;

    #[test]
    fn arguments_are_read_once_and_wholly() {
        let bytes = encode(&(7u64, "seven", b"7".as_slice()));
        let mut arguments = Arguments::new(&bytes);
        assert_eq!(arguments.value::<u64>(), Ok(7));
        assert_eq!(arguments.text(), Ok("seven"));
        assert_eq!(arguments.bytes(), Ok(b"7".as_slice()));
        assert_eq!(arguments.end(), Ok(()));
    }

    #[test]
    fn hostile_arguments_are_refused() {
        assert_eq!(Arguments::new(&u32::MAX.to_le_bytes()).bytes(), Err(UnknownOperation));
        assert_eq!(Arguments::new(&[1, 0, 0, 0, 0xff]).text(), Err(UnknownOperation));
        assert_eq!(Arguments::new(&[1]).end(), Err(UnknownOperation));
        assert_eq!(Arguments::new(&[]).value::<u8>(), Err(UnknownOperation));
    }
}
