//! A cluster of real processes: `dev` started from this program, its processes killed, stopped and started by pid.

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};
use unisono::{
    admin::{Administrator, Request},
    config::AdminConfig,
    node::liar,
};

/// How long a process may take to serve. Far above the goals: a slower start is a finding, not an error.
const START_TIME: Duration = Duration::from_secs(60);

/// How this program is started as `unisono`.
pub(crate) fn program() -> anyhow::Result<Vec<OsString>> {
    Ok(vec![std::env::current_exe()?.into_os_string(), crate::UNISONO.into()])
}

/// What `status --json` prints, as far as experiments look at it.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub(crate) struct ReplicaStatus {
    pub(crate) id: usize,
    pub(crate) reachable: bool,
    #[serde(default)]
    pub(crate) view: u64,
    #[serde(default)]
    pub(crate) leader: usize,
    #[serde(default)]
    pub(crate) height: u64,
    #[serde(default)]
    pub(crate) executed: u64,
    #[serde(default)]
    pub(crate) recent_roots: Vec<(u64, String)>,
    #[serde(default)]
    pub(crate) root_height: u64,
    #[serde(default)]
    pub(crate) grant_hash: String,
    #[serde(default)]
    pub(crate) register: RegisterStatus,
    #[serde(default)]
    pub(crate) clock_skew_seconds: f64,
    /// How often it wished for another leader, by reason.
    #[serde(default)]
    pub(crate) complaints: BTreeMap<String, u64>,
}

/// How the vote register is.
#[derive(Clone, PartialEq, Eq, Default, Debug, Deserialize)]
pub(crate) struct RegisterStatus {
    /// `durable`, or `lost` when it must not vote.
    #[serde(default)]
    pub(crate) mode: String,
}

/// Which replicas are started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Build {
    /// As they ship.
    Plain,
    /// They follow orders: [`unisono::node::liar`].
    Liar,
}

/// What became of a replica that was started again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Restarted {
    /// It serves.
    Ready,
    /// It ended with an error.
    Refused,
}

#[derive(Deserialize)]
struct Status {
    replicas: Vec<ReplicaStatus>,
}

/// A running program that says `ready` on its standard output. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(program: &[OsString], arguments: &[OsString], build: Build, error: Stdio) -> anyhow::Result<Self> {
        let (executable, prefix) = program.split_first().context("no program")?;
        let mut command = Command::new(executable);
        if build == Build::Liar {
            command.env(liar::VARIABLE, "1");
        }
        let mut child = command
            .args(prefix)
            .args(arguments)
            .env("UNISONO_PARENT", std::process::id().to_string()) // it ends when this program ends, however
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(error)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start this program again")?;
        let output = BufReader::new(child.stdout.take().context("no output")?).lines();
        Ok(Self { child, output })
    }

    /// The words of the line by which it says that it serves.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<BTreeMap<String, String>> {
        let line = async {
            while let Some(line) = self.output.next_line().await? {
                if let Some(words) = line.strip_prefix("ready ") {
                    let pairs = words.split_whitespace().filter_map(|word| word.split_once('='));
                    return Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
                }
            }
            bail!("the process ended before it was ready; its own message above says why")
        };
        tokio::time::timeout(START_TIME, line).await.context("the process was not ready within a minute")?
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.child.id()?.cast_signed())
    }

    /// Asks it to end and waits.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.pid() {
            kill_process(pid, Signal::TERM)?;
        }
        self.child.wait().await?;
        Ok(())
    }
}

/// A cluster under experiment.
pub(crate) struct Cluster {
    directory: PathBuf,
    place: tempfile::TempDir,
    dev: Process,
    /// Replicas that were started again, by their numbers.
    again: BTreeMap<usize, Process>,
    build: Build,
    /// Where the gateway listens.
    pub(crate) redis: SocketAddr,
    pub(crate) replicas: usize,
    /// From start to the line `ready`.
    pub(crate) ready_after: Duration,
}

impl Cluster {
    pub(crate) async fn start(replicas: usize) -> anyhow::Result<Self> {
        Self::start_as(replicas, Build::Plain).await
    }

    pub(crate) async fn start_as(replicas: usize, build: Build) -> anyhow::Result<Self> {
        let place = tempfile::Builder::new().prefix("unisono-bench-").tempdir()?;
        let directory = place.path().join("cluster");
        let began = Instant::now();
        let words = ["dev", "--redis", "127.0.0.1:0", "--replicas"].map(OsString::from);
        let mut arguments = Vec::from(words);
        arguments.extend([replicas.to_string().into(), "--dir".into(), directory.clone().into_os_string()]);
        let mut dev = Process::start(&program()?, &arguments, build, Stdio::inherit())?;
        let said = dev.ready().await?;
        let redis = said.get("redis").context("dev did not say where its gateway listens")?.parse()?;
        let ready_after = began.elapsed();
        Ok(Self { directory, place, dev, again: BTreeMap::new(), build, redis, replicas, ready_after })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn run_directory(&self) -> PathBuf {
        self.directory.join("run")
    }

    pub(crate) fn replica_directory(&self, replica: usize) -> PathBuf {
        self.directory.join(format!("replica-{replica}"))
    }

    fn pid(&self, replica: usize) -> anyhow::Result<Pid> {
        let path = self.run_directory().join(format!("replica-{replica}.pid"));
        let text = std::fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
        Pid::from_raw(text.trim().parse()?).context("a pid is not 0")
    }

    pub(crate) fn signal(&self, replica: usize, signal: Signal) -> anyhow::Result<()> {
        kill_process(self.pid(replica)?, signal).with_context(|| format!("cannot signal replica {replica}"))
    }

    /// Starts a killed replica again, by hand as it were, and waits until it serves.
    pub(crate) async fn restart(&mut self, replica: usize) -> anyhow::Result<()> {
        let mut process = self.start_again(replica, Stdio::inherit())?;
        process.ready().await.with_context(|| format!("replica {replica}"))?;
        self.again.insert(replica, process);
        Ok(())
    }

    /// The same for one that may have reason to refuse. [`said`](Self::said) tells what it says of it.
    pub(crate) async fn restart_or_refusal(&mut self, replica: usize) -> anyhow::Result<Restarted> {
        let mut process = self.start_again(replica, std::fs::File::create(self.said_file())?.into())?;
        let Err(error) = process.ready().await else {
            self.again.insert(replica, process);
            return Ok(Restarted::Ready);
        };
        let ended = tokio::time::timeout(START_TIME, process.child.wait()).await.context(error)??;
        if ended.success() {
            bail!("replica {replica} ended as if all were well, and said: {}", self.said()?);
        }
        Ok(Restarted::Refused)
    }

    /// Everything on the standard error of the replica that was last started by [`Self::restart_or_refusal`], so far.
    pub(crate) fn said(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.said_file())?)
    }

    fn said_file(&self) -> PathBuf {
        self.place.path().join("said")
    }

    fn start_again(&mut self, replica: usize, error: Stdio) -> anyhow::Result<Process> {
        let arguments = ["replica".into(), self.replica_directory(replica).into_os_string()];
        self.again.remove(&replica); // the one that was killed
        Process::start(&program()?, &arguments, self.build, error)
    }

    /// Waits until a killed replica is no process any more.
    pub(crate) async fn gone(&mut self, replica: usize) -> anyhow::Result<()> {
        if let Some(mut process) = self.again.remove(&replica) {
            process.child.wait().await?;
            return Ok(());
        }
        let pid = self.pid(replica)?;
        while test_kill_process(pid).is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await; // dev has to see it, too
        }
        Ok(())
    }

    /// What these replicas say of themselves, in the order of their numbers.
    pub(crate) async fn ask(&self, replicas: &[usize]) -> anyhow::Result<Vec<ReplicaStatus>> {
        let config = AdminConfig::load(self.directory.join("admin"))?;
        let ids: Vec<_> = config.cluster.membership.ids().filter(|id| replicas.contains(&usize::from(id.0))).collect();
        let answers = Administrator::new(config).ask_some(&ids, &Request::Status).await;
        Ok(answers.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?)
    }

    pub(crate) async fn ask_all(&self) -> anyhow::Result<Vec<ReplicaStatus>> {
        self.ask(&(0..self.replicas).collect::<Vec<_>>()).await
    }

    /// What `unisono status DIR --json` says.
    pub(crate) async fn status(&self) -> anyhow::Result<Vec<ReplicaStatus>> {
        let program = program()?;
        let output = Command::new(&program[0])
            .args(&program[1..])
            .args(["status".into(), self.directory.clone().into_os_string(), "--json".into()])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        let status: Status = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("status printed no JSON: {}", String::from_utf8_lossy(&output.stderr).trim()))?;
        Ok(status.replicas)
    }

    pub(crate) async fn end(self) -> anyhow::Result<()> {
        for process in self.again.into_values() {
            process.end().await?;
        }
        self.dev.end().await
    }
}
