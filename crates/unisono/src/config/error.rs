//! What can be wrong with a directory. Every text names the file and says what to do about it.

use crate::schedule::{UnknownSchedule, WordError};
use crate::tuning::TuningError;
use std::{io, path::PathBuf};
use unisono_node::log::StorageError;
use unisono_types::{ConfigurationError, ReplicaId};

/// Why a directory cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The directory is not there.
    #[error("{0} is no directory: make a cluster with `unisono init DIR`, then name one of its directories")]
    NoDirectory(PathBuf),
    /// A file of the directory is not there.
    #[error("{0} is missing: copy the whole directory that `unisono init` made, not a part of it")]
    Missing(PathBuf),
    /// The file cannot be read or written.
    #[error("{path}: {source}: check who owns it and whether the disk is full")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The log of a new replica cannot be made.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Not the TOML that is expected.
    #[error(
        "{path} cannot be understood: {reason}Correct it, or copy it again from the directory that `unisono init` made"
    )]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A key or identifier is not hexadecimal of the right length.
    #[error("{0} holds a key or identifier that is not hexadecimal of the right length: copy the file again")]
    NotHex(PathBuf),
    /// The settings contradict each other.
    #[error("{path}: {reason}")]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// How.
        reason: ConfigurationError,
    },
    /// `block_bytes` is above what a message may hold.
    #[error("{path}: limits.block_bytes must be at most {limit}")]
    BlockTooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit: u32,
    },
    /// A secret that others may read.
    #[error("{path} may be read by group or others (mode {mode:03o}): anyone could have copied it. Run `chmod 600 {path}` if you are sure that nobody did, else make a new cluster", path = path.display())]
    ReadableKey {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A key file of the wrong length.
    #[error("{path} has {length} bytes, a key has 32: copy it again from the directory that `unisono init` made")]
    KeyLength {
        /// The file.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// The key and the cluster do not belong together.
    #[error(
        "{path} is no key of the cluster in {cluster}: this is a directory of another cluster, or files of two were mixed. Use the directories of one `unisono init`"
    )]
    ForeignKey {
        /// The key.
        path: PathBuf,
        /// The cluster's file.
        cluster: PathBuf,
    },
    /// `replica = N` names nobody.
    #[error("{path}: replica {id} is no member of the cluster: correct the number, or copy the directory again")]
    NoSuchReplica {
        /// The file.
        path: PathBuf,
        /// The number.
        id: ReplicaId,
    },
    /// No client keys.
    #[error("{0} holds no key: copy the whole client directory that `unisono init` made")]
    NoKeys(PathBuf),
    /// `init` into a directory in use.
    #[error(
        "{0} exists and is not empty: choose another directory, or remove it if you do not need its cluster any more"
    )]
    NotEmpty(PathBuf),
    /// `--replicas` out of range.
    #[error("{0} replicas: a cluster has 1 to 64, three tolerate one faulty replica")]
    ReplicaCount(u16),
    /// `--hosts` does not fit `--replicas`.
    #[error("{hosts} hosts are named for {replicas} replicas: give one HOST:PORT for each")]
    HostCount {
        /// Hosts named.
        hosts: usize,
        /// Replicas asked for.
        replicas: u16,
    },
    /// A host without a port.
    #[error("{0} is not HOST:PORT")]
    BadHost(String),
    /// An algorithm that this version does not have.
    #[error("there is no agreement algorithm {0:?}: this version has \"aphousia\"")]
    UnknownAlgorithm(String),
    /// A schedule that this version does not have.
    #[error("{path}: {reason}")]
    UnknownSchedule {
        /// The file.
        path: PathBuf,
        /// Which, and which there are.
        reason: UnknownSchedule,
    },
    /// Parameters of the schedule that make no sense.
    #[error("{path}: parameters: {reason}")]
    Parameters {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: WordError,
    },
    /// Local parameters out of bounds.
    #[error("{path}: {reason}")]
    Tuning {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: TuningError,
    },
    /// No port is free.
    #[error("no free port was found on 127.0.0.1: name addresses with --hosts")]
    NoPort,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes for keys: {0}")]
    Random(String),
}
