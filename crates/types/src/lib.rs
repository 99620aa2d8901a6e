//! The vocabulary of Unisono. Data only: nothing here decides, waits or does IO.
//!
//! ```text
//!   ids         ReplicaId SessionId SequenceNumber Position Timestamp Time ...   a type for every number
//!   digest      Digest = BLAKE3, always with a domain
//!   codec       canonical bytes (borsh), every decoder capped by the length it was given
//!   sign        Signer / Verifier as values: Ed25519, or a keyed hash in simulation only
//!   verified    Unverified<T> -> Verified<T>, the only way into the core
//!   membership  Configuration, Membership, Quorum (made from a membership only)
//!   bounds      how large things are, in one table, with its relations
//!   frame       what clients and replicas put into the order: signed frames, the unit that is batched
//!   statement   Wish, Checkpoint: signed one by one, so that third parties can be convinced
//!   register    Certificate, ViewChange, Attestation: what a vote register signs
//!   message     what travels between clients and replicas
//!   schedule    changes of the schedule's global parameters;   call: outside calls and their answers
//!   work        Work and Done: how `replica` and `execution`, which do not know each other, meet in the host
//! ```
//!
//! Invariant: everything that is signed or hashed is signed and hashed as the bytes that were received; nothing is
//! re-encoded to be checked.
//!
//! Invariant: no decoder allocates more than a small multiple of the bytes it was given.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

pub mod bounds;
mod call;
mod codec;
mod digest;
mod frame;
mod ids;
mod membership;
mod message;
mod register;
mod schedule;
mod sign;
mod statement;
mod verified;
mod work;

pub use bounds::Bounds;
pub use call::{CALL_ANSWER_BYTES_MAX, CALL_FAILED_BYTES_MAX, CallAnswer, CallId, CallRefused};
pub use codec::{CodecError, decode, encode};
pub use digest::{Digest, Hasher};
pub use frame::{AdminEntry, Frame, FrameBody, FrameError, SystemEntry};
pub use ids::{
    ClusterId, Epoch, Incarnation, Position, RegisterView, ReplicaId, RequestNumber, SequenceNumber, SessionId, Step,
    Time, Timestamp, View,
};
pub use membership::{Configuration, ConfigurationError, Limits, Member, Membership, Quorum};
pub use message::{Answer, ClientMessage, Refusal, Reply, ReplyBody};
pub use register::{Attestation, Certificate, RegisterId, ViewChange, VotePosition};
pub use schedule::{ScheduleChange, ScheduleClass, ScheduleError, ScheduleOrder, SchedulePredicate};
pub use sign::{PublicKey, Signature, Signer, Verifier};
pub use statement::{Checkpoint, Signed, Statement, Wish};
pub use verified::{Message, Rejected, Unverified, Verified, Verify, VerifyContext};
pub use work::{Done, Fault, MarkReport, Outcome, Work};

pub use borsh;
pub use bytes::Bytes;
