//! A client of a cluster.
use crate::gateway::Inbox;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::oneshot;
use unisono_types::{Outcome, Refusal};

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

/// How long a caller's requests tend to take inside the service. A request that waits there holds a session's window
/// open, so those that tend to wait share sessions of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Pace {
    /// They are answered at once.
    Usual,
    /// They wait (a blocking pop).
    Parking,
}

/// Whoever executes operations: a cluster, or a test in its place.
pub trait Submit: Clone + Send + Sync + 'static {
    /// Has `operation` executed exactly once, or answers with an error. Never waits.
    fn submit(&self, operation: Bytes, pace: Pace, completion: Completion);
}

/// Where an outcome goes. Dropped without one, it answers [`InvokeError::Closed`].
pub struct Completion(Option<Receiver>);

enum Receiver {
    One(oneshot::Sender<Result<Outcome, InvokeError>>),
    Ticket { ticket: u64, inbox: Arc<Inbox> },
}

impl Completion {
    /// To one waiting caller.
    #[must_use]
    pub fn one() -> (Self, oneshot::Receiver<Result<Outcome, InvokeError>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(Receiver::One(sender))), receiver)
    }

    /// To nobody.
    #[must_use]
    pub fn ignored() -> Self {
        Self(None)
    }

    pub(crate) fn ticket(ticket: u64, inbox: Arc<Inbox>) -> Self {
        Self(Some(Receiver::Ticket { ticket, inbox }))
    }

    /// Delivers the outcome.
    pub fn complete(mut self, answer: Result<Outcome, InvokeError>) {
        self.deliver(answer);
    }

    fn deliver(&mut self, answer: Result<Outcome, InvokeError>) {
        match self.0.take() {
            Some(Receiver::One(sender)) => drop(sender.send(answer)), // who asked may have gone
            Some(Receiver::Ticket { ticket, inbox }) => inbox.put(ticket, answer),
            None => {}
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.deliver(Err(InvokeError::Closed));
    }
}
