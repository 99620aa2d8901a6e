//! The client's side: numbering, signed frames, retransmission, voting on replies. Pure: time, nonce and the seed of
//! its jitter are arguments; sockets are the host's.
//!
//! ```text
//!   Invoke Invoke .. Flush ──> one signed frame ──> the leader           Reply of each replica ──> one vote each
//!                              nothing in time  ──> all, ever more rarely   f+1 equal, one of them whole ──> Completed
//! ```
//! ```text
//!   Fresh ──Start──> Opening ──f+1 Opened──> Open ──Close──> Closing ──f+1 NoSession──> Ended
//!                       ^  `──f+1 refused──> Ended    |
//!                       `───────f+1 NoSession─────────'   (outstanding requests complete with an error)
//! ```
//! Invariant: an outcome is given out only when f+1 distinct replicas vouch for it, so at least one correct one does.
//!
//! Invariant: a request is sent under one number of one session, so it runs at most once; when the session is lost,
//! what was sent is never sent again.
//!
//! Invariant: of each request at most one vote per replica is kept, and of each replica a bounded number of bytes, so
//! no replica can make a client grow.
//!
//! Source: PBFT (Castro and Liskov, OSDI 1999) section 4.1 for the client; Jacobson and Karn for the round trip.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

mod client;
mod io;
mod round_trip;
#[cfg(test)]
mod tests;
mod votes;

pub use client::Client;
pub use io::{Input, InvokeError, Output, Settings};
