//! Outside calls of handlers: how one is named, and what the outside may say to it.

use crate::Position;
use alloc::string::String;
use alloc::vec::Vec;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use core::fmt;

/// Generations of children: the scheduler bears no deeper ones.
const PATH_MAX: usize = 8;

/// Bytes of one answer: it travels in a signed frame of each replica, through the order.
pub const CALL_ANSWER_BYTES_MAX: usize = 1 << 20;

/// Bytes of the text with which a target refuses.
pub const CALL_FAILED_BYTES_MAX: usize = 256;

/// Names an outside call within its cluster: equal on every replica, in every replay, and never used again.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct CallId {
    /// The thread's request.
    pub position: Position,
    /// Which child of which child of the request's own thread, whose path is empty.
    pub path: Vec<u16>,
    /// Which of its calls, counted from 0.
    pub call: u32,
}

impl CallId {
    /// Whether a thread of this name can exist.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.path.len() <= PATH_MAX
    }
}

impl fmt::Display for CallId {
    /// `417.0/2.1#3`: request, path, call.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.position)?;
        for (index, child) in self.path.iter().enumerate() {
            write!(f, "{}{child}", if index == 0 { '/' } else { '.' })?;
        }
        write!(f, "#{}", self.call)
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {self}")
    }
}

/// What the outside said to a call, equal in enough submissions to be believed.
pub type CallAnswer = Result<Bytes, CallRefused>;

/// Why the outside gave no answer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize, thiserror::Error)]
pub enum CallRefused {
    /// Nobody of that name.
    #[error("nobody of that name can be called")]
    Unknown,
    /// The target's own error, in few words.
    #[error("the target refused: {0}")]
    Failed(String),
    /// The request or the answer is larger than it may be.
    #[error("the request or the answer is too large")]
    TooLarge,
}

impl CallRefused {
    /// The target's own error, cut to what may travel.
    #[must_use]
    pub fn failed(mut text: String) -> Self {
        text.truncate(text.floor_char_boundary(CALL_FAILED_BYTES_MAX));
        Self::Failed(text)
    }
}

/// Whether an answer may travel.
pub(crate) fn is_bounded(answer: &CallAnswer) -> bool {
    match answer {
        Ok(bytes) => bytes.len() <= CALL_ANSWER_BYTES_MAX,
        Err(CallRefused::Failed(text)) => text.len() <= CALL_FAILED_BYTES_MAX,
        Err(CallRefused::Unknown | CallRefused::TooLarge) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SequenceNumber;
    use alloc::{string::ToString, vec};

    #[test]
    fn a_call_is_named_by_request_path_and_number() {
        let position = Position::new(SequenceNumber(417), 2).unwrap();
        assert_eq!(CallId { position, path: vec![2, 1], call: 3 }.to_string(), "417.2/2.1#3");
        assert_eq!(CallId { position, path: vec![], call: 0 }.to_string(), "417.2#0");
    }

    #[test]
    fn a_long_error_is_cut_between_two_characters() {
        let CallRefused::Failed(text) = CallRefused::failed("ä".repeat(200)) else { panic!() };
        assert_eq!(text, "ä".repeat(128));
        let CallRefused::Failed(text) = CallRefused::failed(["x", &"ä".repeat(200)].concat()) else { panic!() };
        assert_eq!(text.len(), 255);
    }
}
