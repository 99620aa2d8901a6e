//! Outside calls: a handler asks somebody who is not part of the service, and all replicas get one answer.
//!
//! ```text
//!   handler ── call ──> Done::Called ──> the host asks and submits ──(f+1 equal)──> Work::Answer ──> handler
//! ```
//! A call parks its thread until the ordered answer, or until its time is up in agreed time. What a handler holds while
//! it calls, others wait for.

use crate::context::Context;
use crate::value::Input;
use unisono_scheduler::{Operation, OperationResult};
use unisono_types::borsh::{BorshDeserialize, BorshSerialize};
use unisono_types::{Bytes, CallRefused};

/// Longer names are refused before anybody is asked.
const TARGET_BYTES_MAX: usize = 256;

/// Why a call has no answer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize, thiserror::Error)]
#[borsh(crate = "unisono_types::borsh")]
pub enum CallError {
    /// The time-out came first.
    #[error("there was no answer in time")]
    TimedOut,
    /// There was an answer, and it was no.
    #[error(transparent)]
    Refused(CallRefused),
}

impl Input for CallError {}

/// What a thread asks the outside.
pub(crate) struct Question {
    pub(crate) target: String,
    pub(crate) request: Bytes,
}

impl Context {
    /// Asks `target` outside of the service, and waits for the answer on which the replicas agree; for `timeout`
    /// microseconds of agreed time at most.
    ///
    /// The target is asked by every replica, so it must bear being asked more than once.
    ///
    /// # Errors
    /// [`CallError::TimedOut`], or that the target is unknown, refused, or gave too much.
    pub async fn call(&self, target: &str, request: Vec<u8>, timeout: Option<u64>) -> Result<Bytes, CallError> {
        if target.len() > TARGET_BYTES_MAX || request.len() > self.bytes_max() {
            return Err(CallError::Refused(CallRefused::TooLarge));
        }
        self.ask(Question { target: target.to_owned(), request: request.into() });
        match self.operation(Operation::External { timeout }).await {
            OperationResult::Granted => self.take_outside().map_err(CallError::Refused),
            OperationResult::TimedOut => Err(CallError::TimedOut),
            result => self.refused(result).await,
        }
    }
}
