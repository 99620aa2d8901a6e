//! `dev`: a whole cluster on this machine, every replica and the gateway a process of its own.
//!
//! ```text
//!   dev ──┬── replica DIR/replica-0 ──┐
//!         ├── replica DIR/replica-1 ──┼── ready? ──> one line `ready redis=.. metrics=.. dir=..`
//!         ├── replica DIR/replica-2 ──┤
//!         └── gateway DIR/client ─────┘
//! ```
//! The children are this program again, with another command. Each says `ready` on its standard output, writes its pid
//! file itself, and dies with its parent, however that ends (see [`bind_to_parent`]).
//!
//! Never: a killed process is started again. Whoever kills one wants to see what happens.

mod merge;

use crate::config::{ClientConfig, ConfigError, InitOptions, init};
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

/// What `dev` is asked for.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// How this program is started: the executable and what stands before the command.
    pub program: Vec<OsString>,
    /// Members of a new cluster; of an existing one, what it must have.
    pub replicas: Option<u16>,
    /// The cluster's directory; a new temporary one when `None`.
    pub directory: Option<PathBuf>,
    /// Where the gateway listens. `None`: there is no gateway.
    pub gateway: Option<GatewayAddress>,
    /// Where metrics of all processes can be read; any free port of the loopback interface when `None`.
    pub metrics: Option<SocketAddr>,
    /// Other clusters that handlers may call as `cluster:NAME`, by their client directories.
    pub clusters: Vec<(String, PathBuf)>,
    /// What a new cluster is made of beyond that. An existing cluster must have been made of the same.
    pub algorithm: Option<String>,
    /// How requests are executed.
    pub schedule: Option<crate::config::Schedule>,
}

/// Where a gateway listens.
#[derive(Clone, Copy, Debug)]
pub enum GatewayAddress {
    /// There, or it is an error.
    Exactly(SocketAddr),
    /// There, or on the next free port above.
    OrNextFree(SocketAddr),
}

/// Environment variable by which a child knows whose death ends it.
const PARENT_VARIABLE: &str = "UNISONO_PARENT";

/// How long the children are given to end by themselves.
const ENDING: Duration = Duration::from_secs(3);

/// In a process that `dev` started: asks the kernel to end it when `dev` ends. Elsewhere nothing.
///
/// # Errors
/// When the parent is gone already.
pub fn bind_to_parent() -> anyhow::Result<()> {
    let Some(parent) = std::env::var_os(PARENT_VARIABLE) else { return Ok(()) };
    let parent = parent.to_str().and_then(|text| text.parse::<i32>().ok()).and_then(Pid::from_raw);
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot bind this process to its parent")?;
    // It may have died before the line above.
    if parent.is_none() || getppid() != parent {
        bail!("the process that started this one is gone");
    }
    Ok(())
}

/// Runs a cluster until SIGINT or SIGTERM.
///
/// # Errors
/// What kept it from serving, with what to do about it.
pub async fn run(options: DevOptions) -> anyhow::Result<()> {
    // Before anything is started, so that no signal ends this process and leaves children to the kernel.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let directory = prepare(&options)?;
    let replicas = ClientConfig::load(directory.join("client"))?.cluster.membership.len();
    let mut children = Children::default();
    let served = tokio::select! {
        served = serve(&options, &directory, replicas, &mut children) => served.map(Some),
        _ = interrupt.recv() => Ok(None),
        _ = terminate.recv() => Ok(None),
    };
    let result = match served {
        Err(error) => Err(error),
        Ok(None) => Ok(()),
        Ok(Some(_metrics)) => {
            tokio::select! {
                () = children.watch(&directory) => {}
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            Ok(())
        }
    };
    children.end(ENDING).await;
    result
}

/// The directory of a cluster that is ready to be started.
fn prepare(options: &DevOptions) -> anyhow::Result<PathBuf> {
    let directory = match &options.directory {
        Some(directory) => directory.clone(),
        None => temporary_directory()?,
    };
    let is_new = std::fs::read_dir(&directory).map_or(true, |mut entries| entries.next().is_none());
    if is_new {
        let defaults = InitOptions::default();
        let asked = InitOptions {
            replicas: options.replicas.unwrap_or(defaults.replicas),
            algorithm: options.algorithm.clone().unwrap_or_else(|| defaults.algorithm.clone()),
            schedule: options.schedule.clone().unwrap_or_else(|| defaults.schedule.clone()),
            ..defaults
        };
        init(&directory, &asked)?;
    }
    let directory = directory.canonicalize()?;
    if !is_new {
        let cluster = ClientConfig::load(directory.join("client"))
            .map_err(|error| match error {
                ConfigError::NoDirectory(_) => {
                    anyhow::anyhow!("{} is not empty and holds no cluster: name another directory", directory.display())
                }
                other => other.into(),
            })?
            .cluster;
        let configuration = cluster.membership.configuration();
        let differs = |what: &str, has: &dyn std::fmt::Display, asked: &dyn std::fmt::Display| {
            anyhow::anyhow!(
                "the cluster in {} has {what} {has}, not {asked}: leave the flag out, or name another directory",
                directory.display()
            )
        };
        match options.replicas {
            Some(asked) if usize::from(asked) != cluster.membership.len() => {
                return Err(differs("a number of replicas of", &cluster.membership.len(), &asked));
            }
            _ => {}
        }
        match &options.algorithm {
            Some(asked) if *asked != configuration.algorithm => {
                return Err(differs("the algorithm", &configuration.algorithm, asked));
            }
            _ => {}
        }
        match &options.schedule {
            Some(asked) if asked.name() != cluster.schedule.name() => {
                return Err(differs("the schedule", &cluster.schedule.name(), &asked.name()));
            }
            _ => {}
        }
    }
    Ok(directory)
}

fn temporary_directory() -> anyhow::Result<PathBuf> {
    let mut random = [0; 6];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("the system gives no random bytes: {error}"))?;
    let name = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(std::env::temp_dir().join(format!("unisono-{name}")))
}

/// Starts everything and says so when all of it serves.
async fn serve(
    options: &DevOptions,
    directory: &Path,
    replicas: usize,
    children: &mut Children,
) -> anyhow::Result<merge::Endpoint> {
    let metrics = options.metrics.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
    let run_directory = directory.join("run");
    let names = (0..replicas).map(|id| format!("replica-{id}")).chain(options.gateway.map(|_| "gateway".to_owned()));
    let endpoint = merge::serve(metrics, run_directory, names.collect())
        .await
        .with_context(|| format!("cannot serve metrics on {metrics}: choose another address with --metrics"))?;
    for id in 0..replicas {
        let name = format!("replica-{id}");
        let mut arguments = vec!["replica".into(), directory.join(&name).into_os_string()];
        for (name, directory) in &options.clusters {
            let directory = std::path::absolute(directory)?;
            let mut call = OsString::from(name);
            call.push("=");
            call.push(directory);
            arguments.extend(["--call".into(), call]);
        }
        children.start(&options.program, name, &arguments)?;
    }
    if let Some(address) = options.gateway {
        let (address, more) = match address {
            GatewayAddress::Exactly(address) => (address, None),
            GatewayAddress::OrNextFree(address) => (address, Some(OsString::from("--or-next-free"))),
        };
        let mut arguments = vec!["gateway".into(), directory.join("client").into_os_string()];
        arguments.extend(["--listen".into(), address.to_string().into()]);
        arguments.extend(more);
        children.start(&options.program, "gateway".into(), &arguments)?;
    }
    let mut redis = None;
    for child in &mut children.0 {
        let line = child.ready().await?;
        if child.name == "gateway" {
            redis = line.split_whitespace().find_map(|word| word.strip_prefix("listen=")).map(str::to_owned);
        }
    }
    if options.gateway.is_none() {
        // What the gateway's line says otherwise: the cluster gives sessions.
        let client = crate::client::Client::connect(&ClientConfig::load(directory.join("client"))?, 0).await?;
        client.close().await;
    }
    let redis = redis.map(|address| format!("redis={address} ")).unwrap_or_default();
    println!("ready {redis}metrics={} dir={}", endpoint.address, directory.display());
    Ok(endpoint)
}

struct Started {
    name: String,
    child: Child,
    output: Option<tokio::io::Lines<BufReader<tokio::process::ChildStdout>>>,
}

impl Started {
    /// Waits for the line by which the child says that it serves.
    async fn ready(&mut self) -> anyhow::Result<String> {
        let output = self.output.as_mut().context("asked twice")?;
        while let Some(line) = output.next_line().await? {
            if line.starts_with("ready ") {
                return Ok(line);
            }
        }
        let status = self.child.wait().await?;
        bail!("{} did not start ({status}): its own message above says why", self.name)
    }
}

/// The processes of the cluster. Killed when dropped.
#[derive(Default)]
struct Children(Vec<Started>);

impl Children {
    fn start(&mut self, program: &[OsString], name: String, arguments: &[OsString]) -> anyhow::Result<()> {
        let (executable, prefix) = program.split_first().context("no program to start")?;
        let mut child = Command::new(executable)
            .args(prefix)
            .args(arguments)
            .env(PARENT_VARIABLE, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let output = child.stdout.take().map(|output| BufReader::new(output).lines());
        self.0.push(Started { name, child, output });
        Ok(())
    }

    /// Tells of processes that end, until none is left.
    async fn watch(&mut self, directory: &Path) {
        let ended = self.0.iter_mut().map(|started| {
            let name = started.name.clone();
            async move {
                // Its output ends with it; nothing more is said there.
                if let Some(output) = &mut started.output {
                    while let Ok(Some(_)) = output.next_line().await {}
                }
                (name, started.child.wait().await)
            }
        });
        let mut ended = ended.map(Box::pin).collect::<Vec<_>>();
        while !ended.is_empty() {
            let (index, (name, status)) = first(&mut ended).await;
            drop(ended.swap_remove(index));
            eprintln!("{}", obituary(&name, status.ok(), directory));
        }
    }

    /// Asks all to end, and ends those that do not.
    async fn end(&mut self, patience: Duration) {
        for started in &self.0 {
            if let Some(pid) = started.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
                let _ = kill_process(pid, Signal::TERM);
                let _ = kill_process(pid, Signal::CONT); // a stopped one would not see the other
            }
        }
        let all = async {
            for started in &mut self.0 {
                let _ = started.child.wait().await;
            }
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            for started in &mut self.0 {
                let _ = started.child.kill().await;
            }
        }
    }
}

fn obituary(name: &str, status: Option<ExitStatus>, directory: &Path) -> String {
    let status = status.map_or_else(|| "unknown status".to_owned(), |status| status.to_string());
    match name.strip_prefix("replica-") {
        Some(_) => format!(
            "{name} ended ({status}) and is not started again: `unisono replica {}` does that",
            directory.join(name).display()
        ),
        None => format!(
            "{name} ended ({status}) and is not started again: `unisono gateway {} --listen ADDR:PORT` does that",
            directory.join("client").display()
        ),
    }
}

/// The first of several futures to be ready, and its place.
async fn first<F: Future + Unpin>(futures: &mut [F]) -> (usize, F::Output) {
    std::future::poll_fn(|context| {
        for (index, future) in futures.iter_mut().enumerate() {
            if let std::task::Poll::Ready(output) = std::pin::Pin::new(future).poll(context) {
                return std::task::Poll::Ready((index, output));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(directory: &Path) -> DevOptions {
        DevOptions {
            program: vec!["/bin/sh".into(), "-c".into()],
            replicas: None,
            directory: Some(directory.into()),
            gateway: None,
            metrics: None,
            clusters: Vec::new(),
            algorithm: None,
            schedule: None,
        }
    }

    #[test]
    fn a_new_directory_becomes_a_cluster_and_an_old_one_is_resumed() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("cluster");
        let made = prepare(&DevOptions { replicas: Some(5), ..options(&directory) }).unwrap();
        let first = ClientConfig::load(made.join("client")).unwrap();
        assert_eq!(first.cluster.membership.len(), 5);
        let resumed = prepare(&options(&directory)).unwrap();
        assert_eq!(resumed, made);
        let second = ClientConfig::load(resumed.join("client")).unwrap();
        assert_eq!(second.cluster.membership, first.cluster.membership);
    }

    #[test]
    fn what_an_existing_cluster_is_not_cannot_be_asked_of_it() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("cluster");
        prepare(&options(&directory)).unwrap();
        let refused = prepare(&DevOptions { replicas: Some(4), ..options(&directory) }).unwrap_err().to_string();
        assert!(refused.contains("3, not 4") && refused.contains("leave the flag out"), "{refused}");
        let other = Some("sequential".parse().unwrap());
        let refused = prepare(&DevOptions { schedule: other, ..options(&directory) }).unwrap_err().to_string();
        assert!(refused.contains("schedule"), "{refused}");
        std::fs::write(place.path().join("letter"), "of somebody").unwrap();
        let refused = prepare(&options(place.path())).unwrap_err().to_string();
        assert!(refused.contains("holds no cluster"), "{refused}");
        assert!(place.path().join("letter").exists());
    }

    #[tokio::test]
    async fn a_child_that_ends_before_it_is_ready_is_named() {
        let mut children = Children::default();
        children.start(&["/bin/sh".into(), "-c".into()], "replica-1".into(), &["exit 3".into()]).unwrap();
        let error = children.0[0].ready().await.unwrap_err().to_string();
        assert!(error.contains("replica-1") && error.contains('3'), "{error}");
    }

    #[tokio::test]
    async fn all_children_end_also_those_that_will_not() {
        let place = tempfile::tempdir().unwrap();
        let mut children = Children::default();
        let shell = ["/bin/sh".into(), "-c".into()];
        children.start(&shell, "replica-0".into(), &["echo ready x; read line".into()]).unwrap();
        children
            .start(&shell, "gateway".into(), &["trap '' TERM; echo ready listen=y; exec sleep 1000".into()])
            .unwrap();
        assert_eq!(children.0[0].ready().await.unwrap(), "ready x");
        assert_eq!(children.0[1].ready().await.unwrap(), "ready listen=y");
        children.end(Duration::from_millis(50)).await;
        for started in &mut children.0 {
            assert!(started.child.try_wait().unwrap().is_some(), "{} lives", started.name);
        }
        children.watch(place.path()).await;
        assert!(obituary("replica-0", None, Path::new("/d")).contains("unisono replica /d/replica-0"));
        assert!(obituary("gateway", None, Path::new("/d")).contains("unisono gateway /d/client"));
    }
}
