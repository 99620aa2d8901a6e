//! A client of a cluster: sessions over one key, any number of callers, one task that does everything.
//!
//! ```text
//!   callers ── invoke ──> queue ──> ┌────────┐ ── one signed frame per wake-up and session ──> links to all replicas
//!                                   │ driver │
//!   callers <── outcome, f+1 ────── └────────┘ <── replies, links up and down ────────────────┘
//! ```
//! The rules (numbering, voting, retransmission) live in the pure crate `unisono-client`; here are its sockets, its
//! clock and its callers. What all callers ask for before the driver's next turn shares one signature.
//!
//! Sessions. A session has a window of numbers, and a request that waits inside the service (a blocking pop) holds it
//! open. So the driver has as many sessions as it takes, at the most [`SESSIONS_MAX`], and callers that tend to wait
//! ([`Pace::Parking`]) have sessions of their own, so that they do not use up those of the others.
//!
//! Invariant: at most [`OUTSTANDING_MAX`] requests with [`OUTSTANDING_BYTES_MAX`] bytes are held; what is above is
//! refused at once with [`InvokeError::TooManyOutstanding`].

mod driver;
#[cfg(test)]
mod tests;

use crate::{
    config::{ClientConfig, KeyPair},
    gateway::Inbox,
    transport::{Budget, Dialer, Inlet, LinkKind, Outbox, Target},
};
use bytes::Bytes;
use driver::{Driver, Replicas};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::{mpsc, oneshot};
use unisono_execution::{Fault, Invoke};
use unisono_types::{Membership, Outcome, Refusal};

pub use unisono_client::InvokeError;

/// Requests that one client holds: the callers of a busy gateway, ten thousand of them in blocking operations.
pub const OUTSTANDING_MAX: usize = 65_536;

/// Bytes of the operations that one client holds.
pub const OUTSTANDING_BYTES_MAX: usize = 256 << 20;

/// Sessions that one client has open at once.
pub const SESSIONS_MAX: usize = 64;

/// Link events that wait for the driver.
const EVENTS_MAX: usize = 1024;

/// Bytes of small replies of one replica that wait for the driver.
const REPLY_BYTES_MAX: usize = 8 << 20;

/// Why a client could not be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no such key.
    #[error("the client directory has {available} keys, number {wanted} is none of them: name fewer keys")]
    NoSuchKey {
        /// The key asked for, from 0.
        wanted: usize,
        /// How many there are.
        available: usize,
    },
    /// The cluster opened no session.
    #[error("{0}")]
    Refused(Refusal),
    /// The client ended.
    #[error("the client ended before it had a session")]
    Closed,
    /// The system gave no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
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
    pub const fn ignored() -> Self {
        Self(None)
    }

    pub(crate) const fn ticket(ticket: u64, inbox: Arc<Inbox>) -> Self {
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

/// One caller's wish on its way to the driver.
struct Request {
    operation: Bytes,
    pace: Pace,
    slot: Slot,
    completion: Completion,
}

enum Command {
    Invoke(Request),
    /// Answered when there is a session, or why there is none.
    Opened(oneshot::Sender<Result<(), ConnectError>>),
    /// Answered when the sessions were closed, as far as the replicas could be told.
    Close(oneshot::Sender<()>),
}

/// What is held, of all callers together.
#[derive(Default)]
struct Held {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// A request's share of what may be held; given back when dropped.
struct Slot {
    held: Arc<Held>,
    bytes: usize,
}

impl Slot {
    fn take(held: &Arc<Held>, bytes: usize) -> Option<Self> {
        let slot = Self { held: held.clone(), bytes };
        let requests = held.requests.fetch_add(1, Ordering::Relaxed);
        let held_bytes = held.bytes.fetch_add(bytes, Ordering::Relaxed);
        (requests < OUTSTANDING_MAX && held_bytes + bytes <= OUTSTANDING_BYTES_MAX).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.held.requests.fetch_sub(1, Ordering::Relaxed);
        self.held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A client of a cluster. Cheap to clone; its sessions are closed when [`close`](Self::close) is called or the last
/// clone is gone.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::UnboundedSender<Command>,
    held: Arc<Held>,
    operation_bytes_max: usize,
}

impl Client {
    /// Connects to all replicas with the key `key` of the directory (from 0) and opens a session.
    ///
    /// Waits as long as it takes for a quorum of replicas to answer.
    ///
    /// # Errors
    /// [`ConnectError`] when there is no such key or the cluster gives no session.
    pub async fn connect(config: &ClientConfig, key: usize) -> Result<Self, ConnectError> {
        let key = config.keys.get(key).ok_or(ConnectError::NoSuchKey { wanted: key, available: config.keys.len() })?;
        let membership = &config.cluster.membership;
        let (commands, receiver) = mpsc::unbounded_channel(); // bounded by the slots that commands hold
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(|error| ConnectError::Random(error.to_string()))?;
        let replicas = dial(membership, key);
        let driver = Driver::new(membership.clone(), key.signer().clone(), u64::from_le_bytes(nonce), replicas);
        tokio::spawn(driver.run(receiver));
        let operation_bytes_max = membership.configuration().limits.operation_bytes as usize;
        let client = Self { commands, held: Arc::default(), operation_bytes_max };
        let (sender, opened) = oneshot::channel();
        let _ = client.commands.send(Command::Opened(sender)); // a driver that has ended shows below
        opened.await.unwrap_or(Err(ConnectError::Closed))?;
        Ok(client)
    }

    /// Has `operation` executed exactly once and returns the outcome that f+1 replicas agree on. Any number of callers
    /// may wait at once.
    ///
    /// # Errors
    /// [`InvokeError`]; its texts say whether the operation may have been executed.
    pub async fn invoke(&self, operation: impl Into<Bytes>) -> Result<Outcome, InvokeError> {
        let (completion, answer) = Completion::one();
        self.submit(operation.into(), Pace::Usual, completion);
        answer.await.unwrap_or(Err(InvokeError::Closed))
    }

    /// Closes the sessions and ends the driver. What is still outstanding is answered with [`InvokeError::Closed`].
    pub async fn close(&self) {
        let (sender, closed) = oneshot::channel();
        if self.commands.send(Command::Close(sender)).is_ok() {
            let _ = closed.await; // a driver that has ended is closed
        }
    }
}

impl Submit for Client {
    fn submit(&self, operation: Bytes, pace: Pace, completion: Completion) {
        let bytes = operation.len();
        if bytes > self.operation_bytes_max {
            return completion.complete(Err(InvokeError::TooLarge { bytes, limit: self.operation_bytes_max }));
        }
        let Some(slot) = Slot::take(&self.held, bytes) else {
            return completion.complete(Err(InvokeError::TooManyOutstanding { limit: OUTSTANDING_MAX }));
        };
        // A driver that has ended drops the request, which answers `Closed`.
        let _ = self.commands.send(Command::Invoke(Request { operation, pace, slot, completion }));
    }
}

/// Why a typed call on a cluster has no result.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ServiceError {
    /// The cluster gave no outcome.
    #[error(transparent)]
    Invoke(#[from] InvokeError),
    /// The handler came to no result.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// What typed clients (`BankClient::new(client)`) stand on.
impl Invoke for Client {
    type Error = ServiceError;

    async fn invoke(&self, operation: Vec<u8>) -> Result<Vec<u8>, ServiceError> {
        Ok(Self::invoke(self, operation).await??.into())
    }
}

/// Dials all members.
fn dial(membership: &Membership, key: &KeyPair) -> Replicas {
    let dialer = Dialer::new(key.clone(), LinkKind::Client, membership.clone());
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let limits = &membership.configuration().limits;
    let links = membership.configuration().members.iter().map(|member| {
        // A budget each: one that sends without end, or begins a reply and does not go on, keeps nobody else's out.
        let budget = Budget::new(REPLY_BYTES_MAX, LinkKind::Client.answer_bytes_max(limits));
        let inlet = Inlet { tag: member.id, sender: sender.clone(), budget };
        // Room for everything that may be outstanding, twice: first sent and sent again.
        let outbox = Outbox::new(2 * OUTSTANDING_BYTES_MAX.max(limits.frame_bytes as usize));
        dialer.keep(Target::from(member), outbox, inlet)
    });
    Replicas { links: links.collect(), events }
}
