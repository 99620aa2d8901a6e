//! A cluster of processes of one service, and what a story asks of it. Nothing waits for a time: a story asks again
//! until something holds, up to a bound at which it fails with what was seen last.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use unisono::client::Client;
use unisono::config::{ClientConfig, InitOptions, init};

/// Far above what anything here takes on a machine that does nothing else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct Cluster {
    service: &'static str,
    directory: tempfile::TempDir,
    replicas: Vec<Option<Child>>,
}

impl Cluster {
    /// A cluster of this service; nobody runs yet.
    pub(crate) fn new(service: &'static str, replicas: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        init(directory.path(), &InitOptions { replicas, ..InitOptions::default() }).unwrap();
        Self { service, directory, replicas: (0..replicas).map(|_| None).collect() }
    }

    /// All of it runs.
    pub(crate) fn start(service: &'static str, replicas: u16) -> Self {
        let mut cluster = Self::new(service, replicas);
        (0..replicas.into()).for_each(|id| cluster.start_replica(id, &[]));
        cluster
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Runs one replica, with more words behind its directory. The story's directory is in its environment, and whether
    /// it shall go astray.
    pub(crate) fn start_replica(&mut self, id: usize, words: &[String]) {
        self.start_in(id, words, false);
    }

    pub(crate) fn start_astray(&mut self, id: usize) {
        self.start_in(id, &[], true);
    }

    fn start_in(&mut self, id: usize, words: &[String], astray: bool) {
        let complaints = std::fs::File::create(self.complaints_of(id)).unwrap();
        let mut command = self.program();
        command.arg("replica").arg(self.path().join(format!("replica-{id}"))).args(words);
        command.env("STORY_DIRECTORY", self.path()).stdout(Stdio::piped()).stderr(complaints);
        if astray {
            command.env("STORY_ASTRAY", "1");
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("ready "), "{line:?} {}", self.complaints(id));
        self.replicas[id] = Some(child);
    }

    /// kill -9.
    pub(crate) fn kill_replica(&mut self, id: usize) {
        let mut child = self.replicas[id].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Puts a copy of a replica's log, made at one moment of its run, into `to`.
    pub(crate) fn copy_log(&self, id: usize, to: &Path) {
        let replica = Pid::from_child(self.replicas[id].as_ref().unwrap());
        kill_process(replica, Signal::STOP).unwrap();
        copy(&self.data_of(id), to);
        kill_process(replica, Signal::CONT).unwrap();
    }

    /// Puts such a copy in place of a replica's log.
    pub(crate) fn put_back(&self, id: usize, from: &Path) {
        copy(from, &self.data_of(id));
    }

    fn data_of(&self, id: usize) -> PathBuf {
        self.path().join(format!("replica-{id}/data"))
    }

    /// Waits until the replica has ended by itself. Whether it calls that a success, and what it printed.
    pub(crate) async fn ended(&mut self, id: usize) -> (bool, String) {
        let mut child = self.replicas[id].take().unwrap();
        let ended = tokio::task::spawn_blocking(move || (child.try_wait().unwrap().is_none(), child));
        let (mut runs, mut child) = ended.await.unwrap();
        let begin = std::time::Instant::now();
        while runs {
            assert!(begin.elapsed() < PATIENCE, "replica {id} goes on: {}", self.complaints(id));
            tokio::time::sleep(Duration::from_millis(20)).await;
            runs = child.try_wait().unwrap().is_none();
        }
        (child.wait().unwrap().success(), self.complaints(id))
    }

    fn complaints_of(&self, id: usize) -> PathBuf {
        self.path().join(format!("complaints-{id}"))
    }

    pub(crate) fn complaints(&self, id: usize) -> String {
        std::fs::read_to_string(self.complaints_of(id)).unwrap_or_default()
    }

    /// The program of this service.
    fn program(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(self.service);
        command
    }

    /// Runs a command on this cluster, as a person would; its directory comes last.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.program().args(words).arg(self.path()).output().unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        let config = ClientConfig::load(self.path().join("client")).unwrap();
        within(Client::connect(&config, 9)).await.unwrap()
    }

    /// Asks all replicas how they are until it is as it shall become.
    pub(crate) async fn status_when(&self, right: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let mut last = Vec::new();
        let ask = async {
            loop {
                last = unisono::admin::query_status(self.path().join("admin")).await.unwrap();
                if right(&last) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, ask).await.is_ok(), "it does not become so: {last:#?}");
        last
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.replicas.iter_mut().flatten() {
            // It may have ended before; either way it is gone afterwards.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Makes `to` hold the files of `from`, and nothing else.
fn copy(from: &Path, to: &Path) {
    std::fs::remove_dir_all(to).unwrap();
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// So that a hang is a failure and not a hang.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it must not take this long")
}
