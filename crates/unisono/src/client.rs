//! A client of a cluster.
use unisono_types::Refusal;

/// Why an invocation has no outcome.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvokeError {
    /// The operation is larger than the cluster allows. It was not sent.
    #[error("the operation has {bytes} bytes, the cluster's limit is {limit}")]
    TooLarge {
        /// Bytes of the operation.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// More requests wait than this client holds. It was not sent: try again when answers have come.
    #[error("too many outstanding requests: {limit} wait already")]
    TooManyOutstanding {
        /// Requests allowed.
        limit: usize,
    },
    /// The cluster gave this client no session. It was not sent.
    #[error("{0}")]
    Refused(Refusal),
    /// The session ended before the answer came: whether the operation was executed is not known.
    #[error("the session ended before the answer came: the operation may or may not have been executed")]
    SessionLost,
    /// The client was closed: whether the operation was executed is not known.
    #[error("the client was closed before the answer came: the operation may or may not have been executed")]
    Closed,
}
