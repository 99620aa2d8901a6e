//! The main job as a user meets it: `unisono dev`, Redis clients, kill -9. Real processes, real sockets, real logs.
//!
//! Nothing here waits for a time: a test asks again until the cluster says what it waits for, up to a bound at which
//! it fails with what was seen last.

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_unisono");

/// Far above what anything here takes on a machine that does nothing else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `unisono dev`, ended with the test.
struct Dev {
    child: Child,
    redis: String,
    dir: PathBuf,
    /// Held so that the program can go on printing.
    _output: BufReader<ChildStdout>,
    /// Replicas that were started again by hand.
    replicas: Vec<Child>,
}

impl Dev {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["dev", "--redis", "127.0.0.1:0", "--dir"])
            .arg(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("the program prints");
        let word = |name: &str| {
            let found = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            found.unwrap_or_else(|| panic!("no {name} in {line:?}")).to_owned()
        };
        assert!(line.starts_with("ready "), "{line:?}");
        Self { child, redis: word("redis="), dir: PathBuf::from(word("dir=")), _output: output, replicas: Vec::new() }
    }

    fn client(&self) -> Redis {
        Redis::connect(&self.redis)
    }

    fn pid(&self, name: &str) -> Pid {
        let text = fs::read_to_string(self.dir.join("run").join(format!("{name}.pid"))).expect("a pid file");
        Pid::from_raw(text.trim().parse().expect("a number")).expect("a process id")
    }

    fn kill_replica(&self, id: usize) {
        kill_process(self.pid(&format!("replica-{id}")), Signal::KILL).expect("the replica runs");
    }

    /// Starts a replica by hand, as the guide says.
    fn start_replica(&mut self, id: usize) {
        let child = Command::new(PROGRAM)
            .arg("replica")
            .arg(self.dir.join(format!("replica-{id}")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.replicas.push(child.expect("the replica starts"));
    }

    fn status(&self) -> Vec<Value> {
        let output = Command::new(PROGRAM).arg("status").arg(&self.dir).arg("--json").output().expect("status runs");
        let status: Value = serde_json::from_slice(&output.stdout).expect("status prints JSON");
        status["replicas"].as_array().expect("replicas").clone()
    }

    /// Asks for the status until it is as wanted.
    fn until(&self, wanted: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let begin = Instant::now();
        loop {
            let status = self.status();
            if holds(&status) {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "not {wanted}: {status:#?}");
        }
    }

    /// All reachable, and all have executed what any of them has decided at the time of asking.
    fn until_caught_up(&self) {
        let heights = |status: &[Value]| status.iter().filter_map(|r| r["height"].as_u64()).max().unwrap_or(0);
        let target = heights(&self.status());
        self.until("caught up", |status| {
            status.iter().all(|replica| {
                replica["reachable"] == true && replica["executed"].as_u64().is_some_and(|executed| executed >= target)
            })
        });
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        for replica in &mut self.replicas {
            // It may have ended before; either way it is gone afterwards.
            let _ = replica.kill();
            let _ = replica.wait();
        }
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

/// A Redis client of a few lines.
struct Redis(BufReader<TcpStream>);

impl Redis {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        Self(BufReader::new(stream))
    }

    fn send(&mut self, words: &[&str]) {
        let mut command = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| command.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        self.0.get_mut().write_all(command.as_bytes()).expect("the gateway reads");
    }

    /// A reply as one line: bulk strings as they are, arrays with spaces.
    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the gateway answers");
        let line = line.trim_end();
        match line.split_at(1) {
            ("$", "-1") | ("*", "-1") => "(nil)".into(),
            ("$", length) => {
                let mut bytes = vec![0; length.parse::<usize>().expect("a length") + 2];
                self.0.read_exact(&mut bytes).expect("the gateway sends what it announced");
                String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned()
            }
            ("*", count) => {
                (0..count.parse::<usize>().expect("a count")).map(|_| self.answer()).collect::<Vec<_>>().join(" ")
            }
            _ => line.to_owned(),
        }
    }

    fn call(&mut self, words: &[&str]) -> String {
        self.send(words);
        self.answer()
    }
}

fn is_gone(pid: Pid) -> bool {
    test_kill_process(pid).is_err()
}

fn until_gone(pids: &[Pid]) {
    let begin = Instant::now();
    while !pids.iter().all(|pid| is_gone(*pid)) {
        assert!(begin.elapsed() < PATIENCE, "processes are left");
        std::thread::yield_now();
    }
}

const PROCESSES: [&str; 4] = ["replica-0", "replica-1", "replica-2", "gateway"];

#[test]
fn dev_serves_redis_ends_all_its_processes_and_resumes_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path());
    let mut redis = dev.client();
    assert_eq!(redis.call(&["SET", "greeting", "hello"]), "+OK");
    assert_eq!(redis.call(&["GET", "greeting"]), "hello");
    let pids = PROCESSES.map(|name| dev.pid(name));
    drop(redis);
    drop(dev); // SIGTERM
    until_gone(&pids);

    let again = Dev::start(dir.path());
    assert_eq!(again.client().call(&["GET", "greeting"]), "hello");
}

#[test]
fn processes_of_dev_end_when_dev_itself_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path());
    let pids = PROCESSES.map(|name| dev.pid(name));
    dev.child.kill().unwrap();
    dev.child.wait().unwrap();
    until_gone(&pids);
}

#[test]
fn a_blocked_pop_is_answered_although_every_replica_was_killed_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path());
    let mut waiting = dev.client();
    waiting.send(&["BLPOP", "queue", "0"]);
    // The pop is ordered once something behind it is.
    assert_eq!(dev.client().call(&["SET", "before", "1"]), "+OK");
    for id in 0..3 {
        dev.kill_replica(id);
        assert_eq!(dev.client().call(&["SET", "without", &id.to_string()]), "+OK", "two of three go on");
        dev.start_replica(id);
        dev.until_caught_up();
    }
    assert_eq!(dev.client().call(&["LPUSH", "queue", "served"]), ":1");
    assert_eq!(waiting.answer(), "queue served");
    assert_eq!(dev.client().call(&["LLEN", "queue"]), ":0", "served once");
}

#[test]
fn all_replicas_killed_at_once_lose_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path());
    let mut redis = dev.client();
    for key in 0..200 {
        assert_eq!(redis.call(&["SET", &format!("key {key}"), &key.to_string()]), "+OK");
    }
    (0..3).for_each(|id| dev.kill_replica(id));
    (0..3).for_each(|id| dev.start_replica(id));
    for key in 0..200 {
        assert_eq!(redis.call(&["GET", &format!("key {key}")]), key.to_string());
    }
    assert_eq!(redis.call(&["DBSIZE"]), ":200");
    dev.until_caught_up();
}

#[test]
fn a_port_that_is_taken_is_an_error_when_it_was_asked_for() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(PROGRAM).args(["dev", "--redis", &address, "--dir"]).arg(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains(&address), "the message names the address: {message}");
}

#[test]
fn replicas_that_nobody_runs_are_unreachable_and_a_strange_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = dir.path().join("cluster");
    let init = Command::new(PROGRAM).arg("init").arg(&cluster).args(["--replicas", "3"]).output().unwrap();
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    let output = Command::new(PROGRAM).arg("status").arg(&cluster).arg("--json").output().unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (id, replica) in status["replicas"].as_array().unwrap().iter().enumerate() {
        assert_eq!(*replica, serde_json::json!({"id": id, "reachable": false}));
    }
    let strange = Command::new(PROGRAM).arg("replica").arg(dir.path()).output().unwrap();
    assert_eq!(strange.status.code(), Some(1));
    assert!(!strange.stderr.is_empty());
}
