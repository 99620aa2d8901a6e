//! Replicated services that survive crashes and lies: the host, and the one crate that users name.
//!
//! ```text
//!   config     directories, keys, settings              node       a replica: the event loop around the pure core
//!   transport  TCP + TLS, mutual, pinned keys           admin      the signed status query
//!   storage    the write-ahead log                      metrics    counters for Prometheus
//!   client     a cluster's client                       gateway    hosts a sans-IO protocol for applications
//! ```
//! Everything that decides lives in pure crates (`replica`, `consensus`, `trusted`, `scheduler`, `client`); here are
//! the sockets, files, clocks and threads around them, and nothing that decides.

pub mod admin;
pub mod cli;
pub mod client;
pub mod config;
pub mod dev;
pub mod gateway;
pub mod load;
pub mod metrics;
pub mod node;
pub mod storage;
pub mod transport;
pub mod verify;

pub use cli::main;
pub use client::Client;
pub use unisono_execution::{
    CallError, Context, Fault, Guard, Input, Invoke, Key, LockError, Mutex, Objects, Output, Queue, QueueId, ReadGuard,
    RwLock, Service, State, Table, Timestamp, UnknownOperation, Value, borsh, macro_support, testing,
};
pub use unisono_macros::{Input, State, service};
