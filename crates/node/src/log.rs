//! The write-ahead log of a replica: blocks, commits and the vote register's state.
//!
//! ```text
//!   register.mark                  beside the key: what the key has said ([`mark`])
//!   data/lock                      held while a process uses the directory
//!   data/log-00000001 ...          segments, preallocated
//!
//!   segment = header (512: magic, version, cluster, replica, number, salt, length, checksum) | group | group | zeros
//!   group   = record ... record [register | to the next sector | register's copy]     starts at a sector of its own
//!   record  = magic 1 | kind 1 | flags 1 | 0 | length 4 | group number 8 | checksum 16 | payload
//! ```
//! One writer takes everything that is queued, writes it as one group, syncs once and reports. Everything of
//! a group is answered after its sync, and the next group is begun only then. So what is found behind a damaged place
//! tells a torn tail, which nobody was told of and is left behind, from damage to what was answered, which is an error.
//!
//! Never: a group writes into a sector that an earlier group has used; something damaged is cut off; the log is loaded
//! into memory; after a failed write or sync is anything written or answered again.
//!
//! Invariant: the register's state is found again if either of its copies is whole, and is never older than the newest
//! that was answered.
//! Invariant: checksums are keyed with a random salt of the segment and cover the place, so no byte that a client sends
//! can pass for a record, and no record for one of another place.

mod disk;
mod index;
pub mod mark;
mod queue;
mod read;
mod record;
mod recover;
mod scan;
mod write;

pub use disk::{Disk, DiskFile};
pub use mark::{Lost, MARK_FILE};
pub use queue::{Group, Queue, Ticket};
pub use read::{CommittedBlock, LogReader};
pub use recover::{Opened, Places, Recovered, create, open};
pub use write::Writer;

use bytes::Bytes;
use std::io;
use unisono_consensus::ClockReading;
use unisono_trusted::RegisterRecord;
use unisono_types::{ClusterId, Digest, RegisterId, ReplicaId, SequenceNumber};

/// Bytes of a usual segment. A group that does not fit into it gets a larger one.
pub const SEGMENT_BYTES: u64 = 32 << 20;

/// What disks write as one.
const SECTOR_BYTES: u64 = 512;

/// Whose log it is. Checked in each segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Owner {
    cluster: ClusterId,
    replica: ReplicaId,
}

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    /// Whose: the replica's vote register.
    pub register: RegisterId,
    /// [`SEGMENT_BYTES`], less in tests.
    pub segment_bytes: u64,
    /// The name of the block that a block stands on, as the algorithm encodes it. Commits are cumulative: which of two
    /// forks lies below a committed block is known from here.
    pub parent: fn(&Bytes) -> Option<Digest>,
    /// Whether the register may speak with what was found: [`mark::judge`].
    pub judge: fn(Option<&mark::Mark>, &mark::Found) -> Option<Lost>,
}

impl LogSettings {
    /// The usual ones.
    #[must_use]
    pub const fn new(register: RegisterId, parent: fn(&Bytes) -> Option<Digest>) -> Self {
        Self { register, segment_bytes: SEGMENT_BYTES, parent, judge: mark::judge }
    }

    const fn owner(&self) -> Owner {
        Owner { cluster: self.register.cluster, replica: self.register.replica }
    }
}

/// One thing to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A block that may be decided.
    Block {
        /// Its place if it is decided.
        sequence: SequenceNumber,
        /// Names it.
        hash: Digest,
        /// As the algorithm encodes it.
        bytes: Bytes,
    },
    /// A block and all before it are decided.
    Commit {
        /// Its place.
        sequence: SequenceNumber,
        /// Names it.
        hash: Digest,
        /// As the algorithm encodes it.
        proof: Bytes,
    },
    /// The vote register's state, written twice, behind everything else of its group. A newer one in the same group
    /// stands for all before it.
    Register(RegisterRecord),
    /// The vote register must stay silent: goes into its mark.
    Lost(Lost),
    /// What the replica's clock has shown: goes into the mark with the register's next state.
    Clock(ClockReading),
}

impl Entry {
    /// About how many it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Block { bytes, .. } | Self::Commit { proof: bytes, .. } => bytes.len(),
            Self::Register(_) => RegisterRecord::BYTES,
            Self::Lost(_) | Self::Clock(_) => 0,
        }
    }
}

/// Why the log cannot be used (any more). The replica stops answering and says this.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process has the directory.
    #[error("{0} is in use by another process: a replica runs once. Stop the other one first")]
    Locked(String),
    /// No space.
    #[error(
        "the disk that holds {0} is full: free some space, then start the replica again; nothing acknowledged is lost"
    )]
    Full(String),
    /// The system reports an error.
    #[error(
        "{operation} of {path} failed: {source}. The replica has stopped, since it cannot promise to remember: check the disk, then start it again"
    )]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// Damage to what was answered.
    #[error(
        "{path} is damaged at byte {offset}: {reason}. Nothing was cut off or changed. Check the disk, and restore the \
         directory from a copy that was made after this replica was last stopped; do not start it with an older or an \
         empty one, it could vote against its own votes. The cluster goes on without it while most others are up"
    )]
    Corrupt {
        /// The segment.
        path: String,
        /// Where.
        offset: u64,
        /// How it shows.
        reason: &'static str,
    },
    /// A segment is not there.
    #[error("{0} is missing, though later segments are there: restore it from a copy of the directory")]
    MissingSegment(String),
    /// A block that no algorithm of this version can read.
    #[error(
        "the log holds a block at height {0} that cannot be read: it was written by another version, or this is a defect. Use the program that wrote it"
    )]
    Unreadable(u64),
    /// The log of this replica with another register's records.
    #[error("{0} holds the votes of another register: register.key was exchanged. Put the right one back")]
    ForeignRegister(String),
    /// The log of another replica or cluster.
    #[error("{0} belongs to another replica or another cluster: use the data directory of this one")]
    Foreign(String),
    /// The log of another version of the format.
    #[error("{path} has format {found}, this program knows format {known}: use the program that wrote it")]
    Version {
        /// The segment.
        path: String,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
}

impl StorageError {
    /// What the system says of an operation on a file.
    #[must_use]
    pub fn io(operation: &'static str, path: &str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(path.into()),
            _ => Self::Io { operation, path: path.into(), source },
        }
    }
}

#[cfg(test)]
mod tests;
