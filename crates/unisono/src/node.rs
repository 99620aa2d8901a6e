//! A replica as a process: the event loop around the pure core.
//!
//! ```text
//!   links ── bytes ──> parse, verify ──> ┌─────────────┐ ── messages, replies ──> outboxes ──> links
//!   timers ── due ─────────────────────> │   Replica   │ ── records, register ──> one group ──> storage thread
//!   storage ── durable ────────────────> │ (pure core) │ ── Work ──> executor (here, or on worker threads)
//!   executor ── Done ──────────────────> └─────────────┘ ── timers
//! ```
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
mod core;
mod counters;
mod links;
mod messages;
mod outside;
mod register;
mod timers;

use crate::storage::StorageError;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
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
    /// Its log and its keys do not belong together.
    #[error(
        "the log of this replica holds the votes of another register: register.key was exchanged. Put the right one back"
    )]
    ForeignRegister,
    /// Its own log cannot be understood.
    #[error(
        "the log holds a block at height {0} that cannot be read: it was written by another version, or this is a defect. Use the program that wrote it"
    )]
    Unreadable(u64),
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

/// Writes a file that others read: they see all of it or what was there before.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    File::create(&temporary)?.write_all(bytes)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests;
