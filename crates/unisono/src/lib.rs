//! Replicated services that survive crashes and lies: the host, and the one crate that users name.
//!
//! ```text
//!   config     directories, keys, settings              node       a replica: the event loop around the pure core
//!   schedule   presets and parameters in words          tuning     local parameters
//!   transport  TCP + TLS, mutual, pinned keys           admin      what the administrator asks of replicas
//!   storage    the write-ahead log                      metrics    counters for Prometheus
//!   oracle     whom handlers may call outside           trace      a recorded schedule as a page
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
pub mod oracle;
pub mod schedule;
pub mod storage;
pub mod trace;
pub mod transport;
pub mod tuning;
pub mod verify;

pub use cli::{main, main_with};
pub use client::Client;
pub use unisono_execution::{
    Bytes, CallError, CallRefused, Change, ClassRule, Context, Declaration, DeclaredContext, DeclaredLock, Fault,
    Guard, Input, Invoke, InvokeError, JoinHandle, Key, Lane, LockError, Mode, Mutex, Objects, Order, Output,
    Predicate, Queue, QueueId, ReadGuard, RwLock, Semaphore, Service, State, Table, Timestamp, TooManyChildren,
    UnknownOperation, Value, borsh, macro_support, recording, testing,
};
pub use unisono_macros::{Input, State, service};
