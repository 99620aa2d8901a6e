//! A whole replica as a value: the spine with its agreement, the vote register, the executor, and what waits for the
//! disk, joined once for all hosts. Inputs in, effects out; the log's logic over a few operations on files.
//!
//! ```text
//!   links, clients, timers ──push──> ┌───────────────── Node ─────────────────┐ ──Effect──> links, clients, timers
//!                                    │ Replica<A> ──Execute──> Executor        │
//!   log ────────durable(ticket)────> │     └─Persist, Certify──> Ledger<R>     │ ──Group──> log::Queue ──> log::Writer
//!                                    └─────────────────────────────────────────┘
//! ```
//! Two hosts bind it: the program's event loop, with threads, sockets and files, and the simulator's world. Nothing
//! that decides anything stands between it and them, so what the simulator checks is what ships.
//!
//! Never: a clock, a socket, a file or a thread of its own (the executor's workers are the host's choice).

mod ledger;
pub mod log;
pub mod message;
mod node;

pub use ledger::{KeptRegister, Ledger, Promise};
pub use node::{Drive, Effect, Node, PROGRESS_PAUSE, Probe, arriving_bytes, provided};
