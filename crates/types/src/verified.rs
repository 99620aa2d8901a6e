//! The gate into the core: an [`Unverified`] value shows nothing until every signature and bound in it was checked.

use crate::{ClusterId, Membership, Verifier};
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;

/// Why something from outside was not let in. A value, counted and tested; never a panic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum Rejected {
    /// Not the encoding of any value of its kind.
    #[error("malformed")]
    Malformed,
    /// Larger than the cluster's limits allow.
    #[error("too large")]
    TooLarge,
    /// A signature does not verify.
    #[error("bad signature")]
    BadSignature,
    /// Signed by, or naming, someone who is no member.
    #[error("not a member")]
    NotAMember,
    /// Signed by a key that this connection may not speak for, or that may not say this.
    #[error("wrong sender")]
    WrongSender,
    /// Of another cluster, epoch or algorithm.
    #[error("of another cluster, epoch or algorithm")]
    Foreign,
    /// Contradicts itself: too few signatures, a hash that does not match, numbers that do not grow.
    #[error("contradicts itself")]
    Inconsistent,
}

/// All that checking needs: pure values, shared by the signature pool.
#[derive(Clone, Debug)]
pub struct VerifyContext {
    /// The cluster that every signature must cover.
    pub cluster: ClusterId,
    /// The scheme.
    pub verifier: Verifier,
    /// Keys and bounds of the epoch.
    pub membership: Membership,
}

/// What can be checked without any state but the membership.
pub trait Verify: Sized {
    /// Checks every signature and every bound inside.
    ///
    /// # Errors
    /// The first reason found.
    fn verify(&self, context: &VerifyContext) -> Result<(), Rejected>;
}

/// A message as it travels: `parse` is what `encode` wrote, and nothing else.
pub trait Message: Clone + fmt::Debug + Verify {
    /// Appends the bytes that travel.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads a message. Bounds are checked here, before anything is allocated; signatures by [`Verify`].
    ///
    /// # Errors
    /// The first reason found.
    fn parse(bytes: Bytes, context: &VerifyContext) -> Result<Self, Rejected>;
}

/// Something that came from outside. There is no getter.
#[derive(Clone)]
pub struct Unverified<T>(T);

impl<T: Verify> Unverified<T> {
    /// Wraps what was decoded.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, if everything in it checks.
    ///
    /// # Errors
    /// The reason from [`Verify::verify`].
    pub fn verify(self, context: &VerifyContext) -> Result<Verified<T>, Rejected> {
        self.0.verify(context)?;
        Ok(Verified(self.0))
    }
}

impl<T> fmt::Debug for Unverified<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unverified(..)")
    }
}

/// Something whose signatures were checked, or that we made ourselves.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// What this process made and signed itself needs no check.
    #[must_use]
    pub const fn own(value: T) -> Self {
        Self(value)
    }

    /// The value.
    #[must_use]
    pub const fn get(&self) -> &T {
        &self.0
    }

    /// The value, by move.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> core::ops::Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
