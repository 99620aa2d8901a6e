//! Makes the directories of a new cluster.

use super::{
    ADMIN_KEY_FILE, ALGORITHMS, CLUSTER_FILE, ClusterFile, ConfigError, DATA_DIRECTORY, HOST_KEY_FILE, KeyPair,
    PROCESS_FILE, ProcessFile, REGISTER_KEY_FILE, RUN_DIRECTORY, Schedule, files,
};
use crate::storage;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use unisono_types::{ClusterId, Configuration, Epoch, Incarnation, Limits, Member, Membership, ReplicaId};

/// How many client keys a new cluster knows.
pub const CLIENT_KEYS: usize = 64;

/// What `init` is asked for.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Members.
    pub replicas: u16,
    /// One HOST:PORT per member; free ports of the loopback interface when `None`.
    pub hosts: Option<Vec<String>>,
    /// Agreement algorithm.
    pub algorithm: String,
    /// How requests are executed.
    pub schedule: Schedule,
    /// How many client keys to make.
    pub client_keys: usize,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            replicas: 3,
            hosts: None,
            algorithm: ALGORITHMS[0].into(),
            schedule: Schedule::default(),
            client_keys: CLIENT_KEYS,
        }
    }
}

/// Makes a cluster in `directory`, which must be empty or not exist.
///
/// # Errors
/// [`ConfigError`]; what was written until then stays and is of no use.
pub fn init(directory: impl AsRef<Path>, options: &InitOptions) -> Result<Membership, ConfigError> {
    let directory = directory.as_ref();
    let addresses = addresses(options)?;
    if !ALGORITHMS.contains(&options.algorithm.as_str()) {
        return Err(ConfigError::UnknownAlgorithm(options.algorithm.clone()));
    }
    if std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(ConfigError::NotEmpty(directory.into()));
    }
    let keys = |count: usize| (0..count).map(|_| KeyPair::generate()).collect::<Result<Vec<_>, _>>();
    let (hosts, registers) = (keys(addresses.len())?, keys(addresses.len())?);
    let (clients, admin) = (keys(options.client_keys.max(1))?, KeyPair::generate()?);
    let mut cluster = [0; 16];
    getrandom::fill(&mut cluster).map_err(|error| ConfigError::Random(error.to_string()))?;
    let members = addresses.into_iter().zip(&hosts).zip(&registers).enumerate().map(|(index, parts)| Member {
        id: ReplicaId(u16::try_from(index).expect("addresses() gives at most 64")),
        address: parts.0.0,
        host_key: parts.0.1.public(),
        register_key: parts.1.public(),
        incarnation: Incarnation(0),
    });
    let configuration = Configuration {
        cluster: ClusterId(cluster),
        epoch: Epoch(0),
        members: members.collect(),
        client_keys: clients.iter().map(KeyPair::public).collect(),
        admin_key: admin.public(),
        algorithm: options.algorithm.clone(),
        rotation: 0,
        limits: Limits::default(),
    };
    let membership = Membership::new(configuration.clone())
        .map_err(|reason| ConfigError::Contradiction { path: directory.join(CLUSTER_FILE), reason })?;
    let cluster_text = to_toml(&ClusterFile::new(&configuration, &options.schedule));

    for (index, (host, register)) in (0u16..).zip(hosts.iter().zip(&registers)) {
        let replica = directory.join(format!("replica-{index}"));
        files::make_directory(&replica.join(DATA_DIRECTORY))?;
        files::write_new(&replica.join(CLUSTER_FILE), cluster_text.as_bytes())?;
        let process = ProcessFile { replica: index, ..ProcessFile::default() };
        files::write_new(&replica.join(PROCESS_FILE), to_toml(&process).as_bytes())?;
        host.write_new(&replica.join(HOST_KEY_FILE))?;
        register.write_new(&replica.join(REGISTER_KEY_FILE))?;
        let places = storage::unlocked(&replica.join(DATA_DIRECTORY), &replica);
        unisono_node::log::create(&places, storage::settings(&membership, ReplicaId(index)))?;
        files::sync_directory(&replica)?;
    }
    let client = directory.join("client");
    files::make_directory(&client.join("keys"))?;
    files::write_new(&client.join(CLUSTER_FILE), cluster_text.as_bytes())?;
    for (index, key) in clients.iter().enumerate() {
        key.write_new(&client.join("keys").join(format!("{index}.key")))?;
    }
    let administrator = directory.join("admin");
    files::make_directory(&administrator)?;
    files::write_new(&administrator.join(CLUSTER_FILE), cluster_text.as_bytes())?;
    admin.write_new(&administrator.join(ADMIN_KEY_FILE))?;
    files::make_directory(&directory.join(RUN_DIRECTORY))?;
    files::sync_directory(directory)?;
    Ok(membership)
}

fn to_toml<T: serde::Serialize>(file: &T) -> String {
    toml::to_string(file).expect("these structures of strings and small numbers have a TOML form")
}

fn addresses(options: &InitOptions) -> Result<Vec<String>, ConfigError> {
    if options.replicas == 0 || options.replicas > 64 {
        return Err(ConfigError::ReplicaCount(options.replicas));
    }
    let count = usize::from(options.replicas);
    match &options.hosts {
        None => free_addresses(count),
        Some(hosts) if hosts.len() != count => {
            Err(ConfigError::HostCount { hosts: hosts.len(), replicas: options.replicas })
        }
        Some(hosts) => {
            let good = |host: &String| {
                host.rsplit_once(':')
                    .is_some_and(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
            };
            hosts
                .iter()
                .map(|host| if good(host) { Ok(host.clone()) } else { Err(ConfigError::BadHost(host.clone())) })
                .collect()
        }
    }
}

/// Ports below those that the system gives to outgoing connections (from 32768 on), so that between `init` and the
/// start of a replica no connection happens to sit on its port.
fn free_addresses(count: usize) -> Result<Vec<String>, ConfigError> {
    const FIRST: u16 = 18_000;
    const COUNT: u16 = 14_000;
    let mut seed = [0; 2];
    getrandom::fill(&mut seed).map_err(|error| ConfigError::Random(error.to_string()))?;
    let start = u16::from_le_bytes(seed) % COUNT;
    let free =
        (0..COUNT).map(|offset| FIRST + (u32::from(start) + u32::from(offset)).rem_euclid(u32::from(COUNT)) as u16);
    let mut held = Vec::new();
    for port in free {
        if held.len() == count {
            break;
        }
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    }
    if held.len() < count {
        return Err(ConfigError::NoPort);
    }
    held.iter()
        .map(|listener| listener.local_addr().map(|address| address.to_string()).map_err(|_| ConfigError::NoPort))
        .collect()
}
