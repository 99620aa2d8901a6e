//! The directories of a cluster: what `init` writes and what each program loads.
//!
//! ```text
//!   DIR/replica-0/   cluster.toml  process.toml  host.key  register.key  data/     one per replica, to be copied to its machine
//!   DIR/client/      cluster.toml  keys/0.key ... keys/63.key                      for gateways and clients
//!   DIR/admin/       cluster.toml  admin.key                                       for `status` and other commands
//!   DIR/run/         replica-0.pid ...                                             written while programs run
//! ```
//! `cluster.toml` is agreed: the same bytes everywhere, its contents go into the digest that the first block stands on.
//! `process.toml` is local and decides nothing by default. Keys are 32 random bytes, made by `init`, nothing is default.
//!
//! Never: a key that group or others may read is loaded; a directory of one cluster is used with another; an unknown
//! setting is ignored. Every error names the file and says what to do.

mod error;
mod files;
mod init;
mod key;

pub use crate::schedule::Schedule;
pub use error::ConfigError;
pub(crate) use files::from_hex;
pub use init::{CLIENT_KEYS, InitOptions, init};
pub use key::KeyPair;

use crate::schedule::{self, Words};
use crate::tuning::Tuning;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use unisono_types::{ClusterId, Configuration, Epoch, Incarnation, Limits, Member, Membership, PublicKey, ReplicaId};
use unisono_types::{Verifier, VerifyContext};

/// Name of the agreed settings' file in every directory.
pub const CLUSTER_FILE: &str = "cluster.toml";
/// Name of a replica's local settings.
pub const PROCESS_FILE: &str = "process.toml";
const HOST_KEY_FILE: &str = "host.key";
const REGISTER_KEY_FILE: &str = "register.key";
const ADMIN_KEY_FILE: &str = "admin.key";
const DATA_DIRECTORY: &str = "data";
const RUN_DIRECTORY: &str = "run";

/// The agreement algorithms of this version.
pub const ALGORITHMS: [&str; 1] = ["aphousia"];

/// What every participant knows about its cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Members, client keys and limits.
    pub membership: Membership,
    /// How requests are executed, and the parameters that the cluster began with.
    pub schedule: Schedule,
}

impl Cluster {
    /// What messages of this cluster are checked against.
    #[must_use]
    pub fn verify_context(&self) -> VerifyContext {
        let configuration = self.membership.configuration();
        let members = configuration.members.iter().flat_map(|member| [member.host_key, member.register_key]);
        let keys = members.chain(configuration.client_keys.iter().copied());
        VerifyContext {
            cluster: configuration.cluster,
            verifier: Verifier::ed25519_knowing(keys),
            membership: self.membership.clone(),
        }
    }
}

/// A replica's directory, loaded.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// DIR/replica-I.
    pub directory: PathBuf,
    /// Which member this is.
    pub id: ReplicaId,
    /// The cluster.
    pub cluster: Cluster,
    /// Authenticates links and signs statements.
    pub host: KeyPair,
    /// The vote register's key.
    pub register: KeyPair,
    /// Where to listen: the member's address, unless `process.toml` says otherwise.
    pub listen: String,
    /// Execution threads to begin with; 0 runs handlers on the event loop.
    pub workers: usize,
    /// How many handlers may compute before they are primary, to begin with.
    pub start_ahead: usize,
    /// Other clusters that handlers may call as `cluster:NAME`, by their client directories.
    pub clusters: BTreeMap<String, PathBuf>,
}

impl ReplicaConfig {
    /// Loads DIR/replica-I.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file and says what to do.
    pub fn load(directory: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let directory = files::existing_directory(directory.as_ref())?;
        let cluster = load_cluster(&directory)?;
        let path = directory.join(PROCESS_FILE);
        let process: ProcessFile = files::read_toml(&path)?;
        let id = ReplicaId(process.replica);
        let Some(member) = cluster.membership.member(id) else {
            return Err(ConfigError::NoSuchReplica { path, id });
        };
        let host = KeyPair::load(&directory.join(HOST_KEY_FILE))?;
        let register = KeyPair::load(&directory.join(REGISTER_KEY_FILE))?;
        for (key, expected, name) in
            [(&host, member.host_key, HOST_KEY_FILE), (&register, member.register_key, REGISTER_KEY_FILE)]
        {
            if key.public() != expected {
                return Err(ConfigError::ForeignKey {
                    path: directory.join(name),
                    cluster: directory.join(CLUSTER_FILE),
                });
            }
        }
        let listen = process.listen.unwrap_or_else(|| member.address.clone());
        let local = Tuning { workers: process.workers, start_ahead: process.start_ahead };
        let Tuning { workers, start_ahead } = local.check().map_err(|reason| ConfigError::Tuning { path, reason })?;
        let workers = workers.unwrap_or(0);
        let start_ahead = start_ahead.unwrap_or(cluster.schedule.start_ahead());
        // Named as seen from the replica's own directory, which may have been copied as a whole.
        let clusters = process.clusters.into_iter().map(|(name, path)| (name, directory.join(path))).collect();
        Ok(Self { id, cluster, host, register, listen, workers, start_ahead, clusters, directory })
    }

    /// Where the log lies.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.directory.join(DATA_DIRECTORY)
    }

    /// Where the pid file is written: DIR/run, beside the replica's directory.
    #[must_use]
    pub fn run_directory(&self) -> PathBuf {
        self.directory.parent().map_or_else(|| PathBuf::from(RUN_DIRECTORY), |parent| parent.join(RUN_DIRECTORY))
    }
}

/// DIR/client, loaded.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The cluster.
    pub cluster: Cluster,
    /// Registered keys, at least one.
    pub keys: Vec<KeyPair>,
}

impl ClientConfig {
    /// Loads DIR/client.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file and says what to do.
    pub fn load(directory: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let directory = files::existing_directory(directory.as_ref())?;
        let cluster = load_cluster(&directory)?;
        let key_directory = directory.join("keys");
        let mut keys = Vec::new();
        for path in files::numbered_keys(&key_directory)? {
            let key = KeyPair::load(&path)?;
            if !cluster.membership.is_client(&key.public()) {
                return Err(ConfigError::ForeignKey { path, cluster: directory.join(CLUSTER_FILE) });
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(ConfigError::NoKeys(key_directory));
        }
        Ok(Self { cluster, keys })
    }
}

/// DIR/admin, loaded.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// The cluster.
    pub cluster: Cluster,
    /// The administrator's key.
    pub key: KeyPair,
}

impl AdminConfig {
    /// Loads DIR/admin.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file and says what to do.
    pub fn load(directory: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let directory = files::existing_directory(directory.as_ref())?;
        let cluster = load_cluster(&directory)?;
        let path = directory.join(ADMIN_KEY_FILE);
        let key = KeyPair::load(&path)?;
        if key.public() != cluster.membership.configuration().admin_key {
            return Err(ConfigError::ForeignKey { path, cluster: directory.join(CLUSTER_FILE) });
        }
        Ok(Self { cluster, key })
    }
}

/// `cluster.toml` as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterFile {
    cluster: String,
    epoch: u32,
    algorithm: String,
    /// A preset's name.
    schedule: String,
    /// What the cluster begins with, in words. Without it, what this version's preset says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<String>,
    rotation: u64,
    admin_key: String,
    client_keys: Vec<String>,
    limits: LimitsFile,
    members: Vec<MemberFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsFile {
    operation_bytes: u32,
    frame_bytes: u32,
    block_bytes: u32,
    sessions: u32,
    window: u32,
    reply_bytes: u32,
    session_idle_us: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberFile {
    id: u16,
    address: String,
    host_key: String,
    register_key: String,
    incarnation: u32,
}

/// `process.toml` as it is written.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProcessFile {
    replica: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listen: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workers: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start_ahead: Option<usize>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    clusters: BTreeMap<String, PathBuf>,
}

impl ClusterFile {
    fn new(configuration: &Configuration, schedule: &Schedule) -> Self {
        let limits = &configuration.limits;
        Self {
            cluster: configuration.cluster.to_string(),
            epoch: configuration.epoch.0,
            algorithm: configuration.algorithm.clone(),
            schedule: schedule.name().into(),
            parameters: schedule.parameters().map(|parameters| Words(parameters).to_string()),
            rotation: configuration.rotation,
            admin_key: configuration.admin_key.to_string(),
            client_keys: configuration.client_keys.iter().map(ToString::to_string).collect(),
            limits: LimitsFile {
                operation_bytes: limits.operation_bytes,
                frame_bytes: limits.frame_bytes,
                block_bytes: limits.block_bytes,
                sessions: limits.sessions,
                window: limits.window,
                reply_bytes: limits.reply_bytes,
                session_idle_us: limits.session_idle,
            },
            members: configuration
                .members
                .iter()
                .map(|member| MemberFile {
                    id: member.id.0,
                    address: member.address.clone(),
                    host_key: member.host_key.to_string(),
                    register_key: member.register_key.to_string(),
                    incarnation: member.incarnation.0,
                })
                .collect(),
        }
    }

    fn configuration(self) -> Option<Configuration> {
        let key = |text: &str| files::from_hex_of::<32>(text).map(PublicKey);
        let members = self.members.iter().map(|member| {
            Some(Member {
                id: ReplicaId(member.id),
                address: member.address.clone(),
                host_key: key(&member.host_key)?,
                register_key: key(&member.register_key)?,
                incarnation: Incarnation(member.incarnation),
            })
        });
        Some(Configuration {
            cluster: ClusterId(files::from_hex_of::<16>(&self.cluster)?),
            epoch: Epoch(self.epoch),
            members: members.collect::<Option<_>>()?,
            client_keys: self.client_keys.iter().map(|text| key(text)).collect::<Option<_>>()?,
            admin_key: key(&self.admin_key)?,
            algorithm: self.algorithm,
            rotation: self.rotation,
            limits: Limits {
                operation_bytes: self.limits.operation_bytes,
                frame_bytes: self.limits.frame_bytes,
                block_bytes: self.limits.block_bytes,
                sessions: self.limits.sessions,
                window: self.limits.window,
                reply_bytes: self.limits.reply_bytes,
                session_idle: self.limits.session_idle_us,
            },
        })
    }
}

fn load_cluster(directory: &Path) -> Result<Cluster, ConfigError> {
    let path = directory.join(CLUSTER_FILE);
    let file: ClusterFile = files::read_toml(&path)?;
    let schedule = file.schedule.parse();
    let mut schedule: Schedule =
        schedule.map_err(|reason| ConfigError::UnknownSchedule { path: path.clone(), reason })?;
    if let Some(words) = &file.parameters {
        let change = schedule::change_of(words.split_whitespace());
        let change = change.map_err(|reason| ConfigError::Parameters { path: path.clone(), reason })?;
        schedule = schedule.changed(change);
    }
    let configuration = file.configuration().ok_or_else(|| ConfigError::NotHex(path.clone()))?;
    if !ALGORITHMS.contains(&configuration.algorithm.as_str()) {
        return Err(ConfigError::UnknownAlgorithm(configuration.algorithm));
    }
    let membership =
        Membership::new(configuration).map_err(|reason| ConfigError::Contradiction { path: path.clone(), reason })?;
    if membership.configuration().limits.block_bytes > BLOCK_BYTES_MAX {
        return Err(ConfigError::BlockTooLarge { path, limit: BLOCK_BYTES_MAX });
    }
    Ok(Cluster { membership, schedule })
}

/// A block must fit into one message and one log segment with room to spare, whatever the limits say.
pub const BLOCK_BYTES_MAX: u32 = 256 << 20;

#[cfg(test)]
mod tests;
