//! A replica as a process: the event loop around the pure core.
//!
//! ```text
//!   links ── bytes ──> parse, verify ──> ┌─────────────┐ ── messages, replies ──> outboxes ──> links
//!   timers ── due ─────────────────────> │   Replica   │ ── records, register ──> one group ──> storage thread
//!   storage ── durable ────────────────> │ (pure core) │ ── Work ──> executor (here, or on worker threads)
//!   executor ── Done ──────────────────> └─────────────┘ ── timers
//! ```
//! The ring around the core (spine, register, executor, what waits for the disk) is `unisono_node`, the same as in the
//! simulator; here are the clock, links, files and threads.
//!
//! One thread does network, core and (without workers) execution; storage has a thread of its own. A wake-up takes all
//! that is ready, feeds it, and hands on at once what came out: under load one group commit, one write per link and one
//! reply per client stand for many requests.
//!
//! Never: an answer of the register leaves before the group commit that holds its record; a message is handled whose
//! signatures were not checked; a decision is made here.
//!
//! Invariant: what is received and not handled is bounded by a budget for each peer and each client key, so nobody
//! keeps another from being heard.
//! Invariant: after a failed write nothing is answered any more, and the process ends saying why.

mod administer;
mod checking;
mod contradiction;
mod core;
mod counters;
#[cfg(feature = "liar")]
pub mod liar;
mod links;
mod messages;
mod outside;
mod timers;

use crate::storage::StorageError;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use unisono_node::log::Lost;
use unisono_replica::HaltReason;

pub use self::core::Node;

/// Why a replica ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Its log.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Its address.
    #[error("cannot listen on {address}: {source}. Stop what uses the port, or set `listen` in {settings}")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        source: io::Error,
        /// The file with the setting.
        settings: PathBuf,
    },
    /// Its state differs from that of the others.
    #[error("{0}")]
    Halted(HaltReason),
    /// The system.
    #[error("{operation}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl NodeError {
    fn system(operation: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { operation, source }
    }
}

/// One line for a person: why this replica does not vote, and what to do.
pub(crate) fn lost_text(lost: Lost, directory: &str) -> String {
    format!(
        "this replica's vote register must stay silent: {lost}. It follows the others without voting, since it could \
         vote against its own votes. Stop it and put back {directory}/data and {directory}/register.mark together, as \
         they were when it last stopped; without them it needs a new key"
    )
}

/// Writes a file that others read: they see all of it or what was there before.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    File::create(&temporary)?.write_all(bytes)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests;
