//! A Redis-compatible store as a replicated service, and the gateway through which unmodified Redis clients use it.
//!
//! ```text
//!   application ── RESP ──> gateway: Gateway, Connection ── operation ──> replicas: Redis ── result ──> votes ──> RESP
//!
//!   resp      requests in, replies out            operation  what travels to the replicas
//!   gateway   a connection's state and queue      service    stripes, locks, transactions, blocking pops
//!   local     what concerns a connection alone    commands   what commands do to a stripe: pure functions
//!   command   the table of commands               shard, value, waiters   the shared state
//!   number, extended   Redis's arithmetic         load       operations for load generators
//! ```
//! It is written against the public interface of `unisono` only and owns no socket, clock or thread.
//!
//! Invariant: the service trusts no gateway, and the gateway no application: every byte from outside is checked, every
//! size bounded. Behaviour and texts are those of Redis 7.0; where they differ, docs/guide/redis.md says why.

pub mod command;
pub mod commands;
pub mod extended;
pub mod failure;
pub mod gateway;
pub mod load;
mod local;
pub mod number;
pub mod operation;
pub mod resp;
pub mod service;
pub mod shard;
pub mod value;
pub mod waiters;

pub use gateway::Gateway;
pub use service::Redis;
