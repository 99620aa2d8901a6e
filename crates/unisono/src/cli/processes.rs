//! `replica` and `gateway`: one process of a cluster in the foreground, by hand or as a child of `dev`.
//!
//! Each says `ready ...` on its standard output when it serves, and before that has written, whole, by rename:
//! DIR/run/NAME.pid with its pid and DIR/run/NAME.metrics with the address of its metrics.

use super::Serve;
use crate::{
    client::Client,
    config::{ClientConfig, ReplicaConfig},
    gateway::Setup,
    metrics::Endpoint,
    node::{self, write_whole},
    oracle::Oracles,
};
use anyhow::{Context, bail};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
};
use unisono_execution::Service;

/// Ports that are tried above the first one.
const PORTS_TRIED: u16 = 100;

/// Connections that the kernel holds until they are accepted (it may allow fewer): when thousands of applications
/// connect at one moment, one that does not fit here waits a whole second before it tries again.
const BACKLOG: u32 = 16_384;

#[derive(Args, Debug)]
pub(super) struct ReplicaArguments {
    /// The replica's directory, as `init` made it.
    #[arg(value_name = "DIR/replica-I")]
    dir: PathBuf,
    /// Where its metrics can be read, at /metrics [default: any free port].
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    #[command(flatten)]
    calls: super::CallArguments,
}

#[derive(Args, Debug)]
pub(super) struct GatewayArguments {
    /// The cluster's client directory, as `init` made it.
    #[arg(value_name = "DIR/client")]
    dir: PathBuf,
    /// Where applications connect.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Take the next free port above when that one is taken.
    #[arg(long, hide = true)]
    or_next_free: bool,
    /// Which of the directory's keys to use; one process, one key, so that they can be told apart.
    #[arg(long, value_name = "N", default_value_t = 0)]
    key: usize,
    /// Where its metrics can be read, at /metrics [default: any free port].
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
}

pub(super) fn replica<S: Service>(arguments: ReplicaArguments, oracles: Oracles) -> anyhow::Result<()> {
    start_logging();
    allow_many_files();
    let mut config = ReplicaConfig::load(&arguments.dir)?;
    config.clusters.extend(arguments.calls.clusters);
    super::block_on(async move {
        let name = format!("replica-{}", config.id);
        let run_directory = config.run_directory();
        let metrics = serve_metrics(arguments.metrics, &run_directory, &name).await?;
        let listen = config.listen.clone();
        let node = node::Node::start_with::<S>(config, oracles).await?;
        let _pid = PidFile::write(&run_directory, &name)?;
        println!("ready listen={listen} metrics={}", metrics.address);
        Ok(node.run(interrupted()).await?)
    })?
}

pub(super) async fn gateway(arguments: GatewayArguments, serve: &Serve) -> anyhow::Result<()> {
    start_logging();
    allow_many_files();
    let config = ClientConfig::load(&arguments.dir)?;
    let directory = arguments.dir.canonicalize()?;
    let run_directory = directory.parent().unwrap_or(&directory).join("run");
    let listener = listen(arguments.listen, arguments.or_next_free)?;
    let address = listener.local_addr()?;
    let metrics = serve_metrics(arguments.metrics, &run_directory, "gateway").await?;
    let setup = setup(&config)?;
    let client = tokio::select! {
        client = Client::connect(&config, arguments.key) => client?,
        () = interrupted() => return Ok(()),
    };
    let _pid = PidFile::write(&run_directory, "gateway")?;
    println!("ready listen={address} metrics={}", metrics.address);
    tokio::select! {
        () = serve(listener, client.clone(), &setup) => {}
        () = interrupted() => {}
    }
    client.close().await;
    Ok(())
}

/// SIGINT or SIGTERM.
async fn interrupted() {
    let signals =
        signal(SignalKind::interrupt()).and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)));
    match signals {
        Ok((mut interrupt, mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(error) => {
            // Then they end the process as they always do.
            tracing::warn!(%error, "signals cannot be caught");
            std::future::pending().await
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?; // a gateway that ended may be started again at once
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn listen(address: SocketAddr, or_next_free: bool) -> anyhow::Result<TcpListener> {
    let last = address.port().saturating_add(if or_next_free { PORTS_TRIED } else { 0 });
    for port in address.port()..=last {
        match bind(SocketAddr::new(address.ip(), port)) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => bail!("cannot listen on {}:{port}: {error}", address.ip()),
        }
    }
    if or_next_free {
        bail!("no port from {address} to {last} is free: choose one with --redis ADDR:PORT");
    }
    bail!("{address} is in use: stop what listens there, or choose another port")
}

fn setup(config: &ClientConfig) -> anyhow::Result<Setup> {
    let mut nonce = [0; 8];
    getrandom::fill(&mut nonce).map_err(|error| anyhow::anyhow!("the system gives no random bytes: {error}"))?;
    let operation_bytes = config.cluster.membership.configuration().limits.operation_bytes as usize;
    Ok(Setup { operation_bytes, nonce })
}

async fn serve_metrics(address: Option<SocketAddr>, run_directory: &Path, name: &str) -> anyhow::Result<Endpoint> {
    let address = address.unwrap_or(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0));
    let mut endpoint = Endpoint::start(address)
        .await
        .with_context(|| format!("cannot serve metrics on {address}: choose another address with --metrics"))?;
    std::fs::create_dir_all(run_directory).and_then(|()| endpoint.announce(run_directory, name)).with_context(
        || format!("cannot write into {}: check who owns it and whether the disk is full", run_directory.display()),
    )?;
    Ok(endpoint)
}

/// DIR/run/NAME.pid, gone again when this process ends in good order: then nobody takes a later process of that number
/// for this one.
struct PidFile {
    path: PathBuf,
    text: String,
}

impl PidFile {
    fn write(run_directory: &Path, name: &str) -> anyhow::Result<Self> {
        let path = run_directory.join(format!("{name}.pid"));
        let text = format!("{}\n", std::process::id());
        write_whole(&path, text.as_bytes()).with_context(|| {
            format!("cannot write {}: check who owns it and whether the disk is full", path.display())
        })?;
        Ok(Self { path, text })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A later process of the same name has written its own.
        if std::fs::read_to_string(&self.path).is_ok_and(|text| text == self.text) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Warnings on standard error; the variable UNISONO_LOG asks for more (`info`, `unisono=debug`).
pub(super) fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("UNISONO_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    // Another program that has these commands may have set up its own.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).try_init();
}

/// Raises the number of files this process may open to what the system allows: a connection is a file.
pub(super) fn allow_many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_an_error_or_the_next_one_is_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen(address, false).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("choose another port"), "{error}");
        let next = listen(address, true).unwrap().local_addr().unwrap();
        assert_eq!(next.ip(), address.ip());
        assert!(next.port() > address.port());
        let elsewhere = listen("192.0.2.1:1".parse().unwrap(), false).unwrap_err().to_string();
        assert!(elsewhere.contains("cannot listen on 192.0.2.1:1"), "{elsewhere}");
    }

    #[test]
    fn a_pid_file_goes_with_its_process_but_not_with_an_earlier_one() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("replica-0.pid");
        let file = PidFile::write(place.path(), "replica-0").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
        let file = PidFile::write(place.path(), "replica-0").unwrap();
        std::fs::write(&path, "1\n").unwrap();
        drop(file);
        assert!(path.exists(), "it is another process's now");
        let nowhere = place.path().join("nowhere");
        assert!(PidFile::write(&nowhere, "x").is_err_and(|error| error.to_string().contains("disk is full")));
    }
}
