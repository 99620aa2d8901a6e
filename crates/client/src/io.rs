//! What goes into a client and what comes out.

use unisono_types::{
    Bytes, ClientMessage, Membership, Outcome, Refusal, ReplicaId, Reply, RequestNumber, SessionId, Signer,
};

/// What a client is made from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The replicas, and the limits that they enforce.
    pub membership: Membership,
    /// A key that the cluster knows.
    pub signer: Signer,
    /// Seed of the jitter that keeps many clients from asking again at one moment.
    pub jitter: u64,
}

/// What happens to a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// Once: opens a session. Requests may be queued before.
    Start,
    /// Queues a request; its number is the one that `next_number` tells before.
    Invoke {
        /// What the service shall execute.
        operation: Bytes,
    },
    /// Signs what is queued and sends it: one frame, as far as the limits allow.
    Flush,
    /// From a replica whose link is authenticated.
    Reply {
        /// The replica.
        from: ReplicaId,
        /// What it says.
        reply: Reply,
    },
    /// The link to a replica came up or went down.
    Link {
        /// The replica.
        replica: ReplicaId,
        /// Whether it is up.
        up: bool,
    },
    /// The timer has come.
    Timeout,
    /// Closes the session. What has no answer yet completes with [`InvokeError::Closed`].
    Close,
}

/// What a client wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send to a replica. May be lost.
    Send {
        /// The replica.
        to: ReplicaId,
        /// What to say.
        message: ClientMessage,
    },
    /// A request came to its end. Exactly once for each Invoke.
    Completed {
        /// The request.
        number: RequestNumber,
        /// Its outcome, or why there is none.
        outcome: Result<Outcome, InvokeError>,
    },
    /// (Re)start the one timer, to fire at `at` microseconds of the monotonic clock.
    SetTimer {
        /// When.
        at: u64,
    },
    /// A session is open. Comes again when the session was lost and another one was opened.
    Opened(SessionId),
    /// The cluster gives this key no session. Nothing more will come of this client.
    Failed(Refusal),
    /// The session is closed, after [`Input::Close`].
    Closed,
}

/// Why an invocation has no outcome.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvokeError {
    /// The operation is larger than the cluster allows. It was not sent.
    #[error("the operation has {bytes} bytes, the cluster's limit is {limit}: split it")]
    TooLarge {
        /// Bytes of the operation.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// As many requests wait as a session may have. It was not sent.
    #[error("too many outstanding requests: a session has at most {limit}. Try again when answers have come")]
    TooManyOutstanding {
        /// Requests allowed, from the oldest unanswered one on.
        limit: usize,
    },
    /// The cluster gave this client no session. It was not sent.
    #[error("{0}")]
    Refused(Refusal),
    /// The session ended before the answer came: whether the operation was executed is not known.
    #[error("the session ended before the answer came: the operation may or may not have been executed")]
    SessionLost,
    /// It was executed, but the replicas store only a digest of the outcome, since too many bytes of replies were
    /// unacknowledged.
    #[error(
        "the operation was executed, but its result is no longer stored: keep fewer requests with large results \
         outstanding"
    )]
    OutcomeLost,
    /// The client was closed: whether the operation was executed is not known.
    #[error("the client was closed before the answer came: the operation may or may not have been executed")]
    Closed,
}
