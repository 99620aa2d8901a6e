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
//! Invariant: what is received and not handled is bounded by two budgets, one for peers and one for clients, so clients
//! cannot keep peers from being heard.
//! Invariant: after a failed write nothing is answered any more, and the process ends saying why.

mod core;
mod links;
mod register;
mod timers;

use crate::config::{ConfigError, ReplicaConfig};
use crate::metrics::Endpoint;
use crate::storage::StorageError;
use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::net::TcpListener;
use unisono_execution::Service;
use unisono_replica::HaltReason;

/// What the command line may say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReplicaOptions {
    /// Where to serve metrics; port 0 is any free one. Nowhere when `None`.
    pub metrics: Option<SocketAddr>,
}

/// Where a replica can be found once it serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Serving {
    /// Where it listens for peers, clients and the administrator.
    pub address: SocketAddr,
    /// Where metrics can be read.
    pub metrics: Option<SocketAddr>,
}

/// Why a replica ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Its directory.
    #[error(transparent)]
    Config(#[from] ConfigError),
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
    #[error("the log of this replica holds the votes of another register: register.key was exchanged. Put the right one back")]
    ForeignRegister,
    /// Its own log cannot be understood.
    #[error("the log holds a block at height {0} that cannot be read: it was written by another version, or this is a defect. Use the program that wrote it")]
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

/// Runs the replica of `directory` for service `S` in this thread until SIGINT or SIGTERM. `ready` is called once it
/// serves.
///
/// # Errors
/// [`NodeError`], which says what to do. The caller prints it and exits with a failure.
pub fn run_replica<S: Service>(
    directory: impl AsRef<Path>,
    options: ReplicaOptions,
    ready: impl FnOnce(Serving),
) -> Result<(), NodeError> {
    let config = ReplicaConfig::load(directory)?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(NodeError::system("starting the runtime"))?;
    runtime.block_on(async {
        let stop = signals().map_err(NodeError::system("listening for signals"))?;
        serve::<S>(config, options, stop, ready).await
    })
}

/// [`run_replica`] within a runtime, which should be a single-threaded one of its own, until `stop`.
///
/// # Errors
/// [`NodeError`], which says what to do.
pub async fn serve<S: Service>(
    config: ReplicaConfig,
    options: ReplicaOptions,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(Serving),
) -> Result<(), NodeError> {
    crate::metrics::install();
    let listening = |source| NodeError::Listen {
        address: config.listen.clone(),
        source,
        settings: config.directory.join(crate::config::PROCESS_FILE),
    };
    // Before the log is opened, so that a port in use shows at once; nobody is let in before the replay is done.
    let listener = TcpListener::bind(&config.listen).await.map_err(listening)?;
    let address = listener.local_addr().map_err(listening)?;
    let node = core::Node::recover::<S>(&config)?;
    let name = format!("replica-{}", config.id);
    let run_directory = config.run_directory();
    fs::create_dir_all(&run_directory).map_err(NodeError::system("making the run directory"))?;
    let metrics = match options.metrics {
        Some(wanted) => {
            let mut endpoint = Endpoint::start(wanted).await.map_err(NodeError::system("serving metrics"))?;
            endpoint.announce(&run_directory, &name).map_err(NodeError::system("announcing metrics"))?;
            Some(endpoint)
        }
        None => None,
    };
    let pid_file = run_directory.join(format!("{name}.pid"));
    write_whole(&pid_file, format!("{}\n", std::process::id()).as_bytes())
        .map_err(NodeError::system("writing the pid file"))?;
    tracing::info!(replica = %config.id, %address, "serving");
    let serving = Serving { address, metrics: metrics.as_ref().map(|endpoint| endpoint.address) };
    let result = node.run(listener, stop, || ready(serving)).await;
    if let Err(error) = &result {
        tracing::error!(replica = %config.id, "stopped: {error}");
    }
    // Only ours: a successor may have written its own.
    if fs::read_to_string(&pid_file).is_ok_and(|text| text.trim() == std::process::id().to_string()) {
        drop(fs::remove_file(&pid_file));
    }
    result
}

/// Writes a file that others read: they see all of it or what was there before.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    File::create(&temporary)?.write_all(bytes)?;
    fs::rename(&temporary, path)
}

fn signals() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    })
}

/// Links are files: take as many as the system lets us have. Without more, fewer clients are let in.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }));
}

#[cfg(test)]
mod tests;
