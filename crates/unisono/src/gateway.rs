//! Lets programs that speak some other protocol use a cluster: accepts their connections, votes on the cluster's
//! answers on their behalf, and owns every socket. What the bytes mean is the business of a [`Protocol`].
//!
//! ```text
//!   socket ── bytes ──> Connection::receive ── Action::Invoke ──> one cluster client ── one signed frame per wake-up
//!   socket <── Action::Write ── Connection::answer <── outcome, voted f+1 ──┘
//! ```
//! A protocol is sans-IO: bytes and outcomes in, actions out; it never sees a socket, a clock or a thread.
//!
//! Invariant: a socket is read only while its connection has less than [`OUTPUT_BYTES_MAX`] unsent and fewer than
//! [`INVOCATIONS_MAX`] invocations outstanding. So a client that does not read its answers costs a bounded amount of
//! memory and holds up nobody else.
//!
//! Invariant: what all connections asked for within one wake-up of the process travels in one signed frame.

pub use bytes::{Buf, BufMut, Bytes, BytesMut};
pub use unisono_types::{Fault, Outcome};

pub use crate::client::InvokeError;
pub(crate) use server::Inbox;
pub use server::{CONNECTIONS_MAX, INPUT_BYTES_MAX, serve};

mod server;
#[cfg(test)]
mod tests;

/// Unsent bytes of one connection above which its socket is no longer read.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Outstanding invocations of one connection above which its socket is no longer read.
pub const INVOCATIONS_MAX: usize = 64;

/// What a protocol may want to know before it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setup {
    /// Bytes that one operation may have: the cluster's limit.
    pub operation_bytes: usize,
    /// Random, different for every gateway and each of its lives.
    pub nonce: [u8; 8],
}

/// Makes the protocol's side of each accepted connection.
pub trait Protocol: Send + Sync + 'static {
    /// The state of one connection.
    type Connection: Connection;

    /// Somebody has connected.
    fn connect(&self) -> Self::Connection;
}

/// One connection of a [`Protocol`]. Values in, [`Action`]s out, appended in the order in which they take effect.
pub trait Connection: Send + 'static {
    /// Bytes have come. Takes from the front of `input` what is complete and leaves the rest, which comes again with
    /// more behind it. Called with an empty rest never, with an unchanged one only after an [`answer`](Self::answer)
    /// (see there).
    fn receive(&mut self, input: &mut BytesMut, actions: &mut Vec<Action>);

    /// The answer to an [`Action::Invoke`]. Afterwards `receive` is called again when input is left over, so a
    /// connection may leave complete commands in its input until the answer it waits for has come.
    fn answer(&mut self, ticket: u64, outcome: Result<Outcome, InvokeError>, actions: &mut Vec<Action>);

    /// The peer is gone. Invocations may still be made; their answers go nowhere, as do those outstanding.
    fn disconnected(&mut self, actions: &mut Vec<Action>);
}

/// What a [`Connection`] wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Have the cluster execute `operation`; the outcome comes back with `ticket`, a number of the connection's own.
    Invoke {
        /// Comes back with the answer.
        ticket: u64,
        /// What the service shall execute.
        operation: Bytes,
    },
    /// Send these bytes.
    Write(Bytes),
    /// Send what was written before this, then close. Nothing is received any more.
    Close,
}
