//! The spine of a replica: sessions, the walk over decisions, stored replies, Marks and checkpoints. Pure: no clock,
//! thread, socket, file or randomness; agreement and execution are somebody else's.
//!
//! ```text
//!   clients ── frames ──> ┌─────────────── Replica<C> ───────────────┐ ── Reply ──────────────> clients
//!   peers ── messages ──> │ filter ─ Submit ─> C ─ Decide ─> walk ───┼── Execute(Work) ───────> execution
//!   execution ── Done ──> │ sessions <─ finish │ Marked ─> root ─────┼── Persist, Checkpoint ─> log, peers
//!   log, register ──────> │          C <─ Stable ── f+1 equal        │ ── Send Certify Timer ─> host
//!                         └──────────────────────────────────────────┘
//! ```
//! * [`Replica::handle`] is a function of the state, the time given and the input. Outputs take effect in their order.
//! * What a decision does is decided when it is walked, by ordered data alone ([`order`]). Everything before that (what
//!   is let in, what this replica proposes) is a hint that no other replica depends on.
//! * It never knows which fault model or algorithm `C` has, and never what an operation means.
//!
//! Invariant: a request runs at most once, wherever and however often its frames are ordered.
//!
//! Invariant: executed <= walked, and the walk has no gaps.
//!
//! Source: the design's sections on the way of a request and on checkpoints; PBFT (Castro and Liskov, OSDI 1999)
//! section 4 for the table of replies.
#![cfg_attr(not(test), no_std)]
extern crate alloc;

mod accumulator;
mod admin;
mod admission;
mod calls;
mod checkpoint;
mod divergence;
mod io;
mod order;
mod peer;
mod proposals;
mod replica;
mod replies;
mod session;
mod status;
mod table;
mod tally;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use checkpoint::Root;
pub use io::{ConnectionId, Difference, HaltReason, Input, MarkRule, Output, QueryId, Settings, Timer};
pub use peer::{GrantRecord, Grants, GrantsRequest, Leaves, LeavesRequest, Parts, PeerMessage};
pub use replica::Replica;
pub use status::{Counters, Status};
