//! The built program's commands against a running cluster: what they print, and what they refuse. What happens to the
//! cluster itself under kills is told in `cluster.rs`.

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value as Json;
use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};
use unisono::load::resp::{RespClient, Value};

const PROGRAM: &str = env!("CARGO_BIN_EXE_unisono");

/// Longest wait for something that takes a fraction of a second: a test that hangs shall say where.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process in the foreground that says `ready`.
struct Running {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    said: String,
}

impl Running {
    async fn start(words: &[OsString]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(PATIENCE, output.next_line()).await.expect("it never became ready");
        let said = line.unwrap().expect("it ended before it was ready");
        assert!(said.starts_with("ready "), "{said}");
        Self { child, output, said }
    }

    fn word(&self, name: &str) -> &str {
        let words = self.said.split_whitespace().filter_map(|word| word.split_once('='));
        words.clone().find(|(key, _)| *key == name).unwrap_or_else(|| panic!("no {name} in {}", self.said)).1
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap(), signal).unwrap();
    }

    async fn end(mut self) {
        self.signal(Signal::TERM);
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it does not end").unwrap();
        assert!(status.success(), "{status}");
        assert_eq!(self.output.next_line().await.unwrap(), None, "dev prints one line");
    }
}

async fn dev(directory: &Path, more: &[&str]) -> Running {
    let mut words: Vec<OsString> = ["dev", "--redis", "127.0.0.1:0", "--dir"].map(OsString::from).to_vec();
    words.push(directory.into());
    words.extend(more.iter().map(OsString::from));
    Running::start(&words).await
}

async fn connect(running: &Running) -> RespClient {
    RespClient::connect(running.word("redis").parse().unwrap()).await.unwrap()
}

async fn ask(client: &RespClient, words: &[&str]) -> Value {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    tokio::time::timeout(PATIENCE, client.command(&words)).await.expect("no answer").unwrap()
}

fn bulk(text: &str) -> Value {
    Value::Bulk(Some(text.into()))
}

fn pid(directory: &Path, name: &str) -> Pid {
    let text = std::fs::read_to_string(directory.join(format!("run/{name}.pid"))).unwrap();
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

async fn unisono(words: &[&str]) -> Output {
    let output = Command::new(PROGRAM).args(words).stdin(Stdio::null()).kill_on_drop(true).output();
    tokio::time::timeout(PATIENCE, output).await.expect("the command does not end").unwrap()
}

async fn status(directory: &Path) -> Json {
    let output = unisono(&["status", directory.to_str().unwrap(), "--json"]).await;
    serde_json::from_slice(&output.stdout).unwrap()
}

fn cluster() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("cluster");
    (place, directory)
}

#[tokio::test]
async fn a_cluster_serves_redis_clients_and_keeps_what_it_has_acknowledged() {
    let (_place, directory) = cluster();
    let first = dev(&directory, &[]).await;
    assert_eq!(first.word("dir"), directory.canonicalize().unwrap().to_str().unwrap());
    let client = connect(&first).await;
    assert_eq!(ask(&client, &["SET", "name", "value"]).await, Value::Simple("OK".into()));
    assert_eq!(ask(&client, &["GET", "name"]).await, bulk("value"));
    for count in 1..=50 {
        assert_eq!(ask(&client, &["INCR", "count"]).await, Value::Integer(count));
    }
    first.end().await;
    assert_eq!(std::fs::read_dir(directory.join("run")).unwrap().count(), 0, "nothing runs, nothing is written there");

    let second = dev(&directory, &["--replicas", "3"]).await;
    let client = connect(&second).await;
    assert_eq!(ask(&client, &["GET", "name"]).await, bulk("value"));
    assert_eq!(ask(&client, &["INCR", "count"]).await, Value::Integer(51));
    second.end().await;
}

#[tokio::test]
async fn a_killed_replica_is_shown_as_unreachable_and_catches_up_when_started_by_hand() {
    let (_place, directory) = cluster();
    let running = dev(&directory, &[]).await;
    let client = connect(&running).await;
    let mut again = Vec::new();
    for id in 0..3 {
        let name = format!("replica-{id}");
        let killed = pid(&directory, &name);
        kill_process(killed, Signal::KILL).unwrap();
        for _ in 0..20 {
            assert!(matches!(ask(&client, &["INCR", "count"]).await, Value::Integer(_)));
        }
        let before = status(&directory).await;
        assert_eq!(before["replicas"][id], serde_json::json!({ "id": id, "reachable": false }));
        again.push(Running::start(&["replica".into(), directory.join(&name).into()]).await);
        assert_ne!(pid(&directory, &name), killed);
        let height = before["replicas"].as_array().unwrap().iter().filter_map(|one| one["height"].as_u64()).max();
        let caught_up = async { while status(&directory).await["replicas"][id]["executed"].as_u64() < height {} };
        tokio::time::timeout(PATIENCE, caught_up).await.expect("it does not catch up");
    }
    assert_eq!(ask(&client, &["GET", "count"]).await, bulk("60"));
    for replica in again {
        replica.end().await;
    }
    running.end().await;
}

#[tokio::test]
async fn status_has_the_fixed_fields_and_equal_roots() {
    let (_place, directory) = cluster();
    let running = dev(&directory, &["--schedule", "sequential"]).await;
    let client = connect(&running).await;
    assert_eq!(ask(&client, &["SET", "a", "b"]).await, Value::Simple("OK".into()));
    let json = status(&directory).await;
    let replicas = json["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 3);
    for (id, replica) in replicas.iter().enumerate() {
        assert_eq!(replica["id"], id);
        assert_eq!(replica["reachable"], true);
        assert_eq!(replica["members"], serde_json::json!([0, 1, 2]));
        for field in ["epoch", "view", "leader", "height", "executed", "round", "root_height", "pid"] {
            assert!(replica[field].is_u64(), "{field} of {replica}");
        }
        for field in ["algorithm", "grant_hash", "state_root"] {
            assert!(replica[field].is_string(), "{field} of {replica}");
        }
        assert!(replica["recent_roots"].is_array(), "{replica}");
        assert!(replica["register"]["backend"].is_string(), "{replica}");
        assert!(replica["register"]["incarnation"].is_u64(), "{replica}");
        assert!(replica["register"]["mode"].is_string(), "{replica}");
        assert_eq!(replica["pid"], pid(&directory, &format!("replica-{id}")).as_raw_nonzero().get());
    }
    let table = unisono(&["status", directory.to_str().unwrap()]).await;
    assert!(String::from_utf8_lossy(&table.stdout).contains("executed"));
    running.end().await;
    let output = unisono(&["status", directory.to_str().unwrap(), "--json"]).await;
    assert_eq!(output.status.code(), Some(1), "nobody answers");
}

#[tokio::test]
async fn bench_prints_the_fixed_fields() {
    let (_place, directory) = cluster();
    let running = dev(&directory, &[]).await;
    let cluster = ["--cluster", directory.to_str().unwrap()];
    let redis = ["--redis", running.word("redis")];
    for (target, more) in [(cluster, ["--keys", "3"]), (cluster, ["--rate", "20"]), (redis, ["--size", "10"])] {
        let mut words = vec!["bench", "--clients", "5", "--outstanding", "2", "--seconds", "0.5", "--json"];
        words.extend(target);
        words.extend(more);
        let output = unisono(&words).await;
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        let json: Json = serde_json::from_slice(&output.stdout).unwrap();
        for field in ["ops_per_s", "p50_us", "p99_us", "replica_cpu_us_per_op", "steal"] {
            assert!(json[field].is_number(), "{field} of {json}");
        }
        assert_eq!(json["errors"], 0);
    }
    running.end().await;
}

#[tokio::test]
async fn metrics_of_all_processes_are_in_one_place() {
    let (_place, directory) = cluster();
    let running = dev(&directory, &[]).await;
    let client = connect(&running).await;
    assert_eq!(ask(&client, &["SET", "a", "b"]).await, Value::Simple("OK".into()));
    let text = get(running.word("metrics").parse().unwrap()).await;
    for name in ["replica-0", "replica-1", "replica-2", "gateway"] {
        assert!(text.contains(&format!("unisono_process_up{{process=\"{name}\"}} 1")), "{name}: {text}");
    }
    assert!(text.contains("unisono_gateway_connections_total{process=\"gateway\"} 1"), "{text}");
    running.end().await;
}

async fn get(address: SocketAddr) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn what_is_taken_is_not_taken_again() {
    let (_place, directory) = cluster();
    let running = dev(&directory, &[]).await;
    let text = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    // The gateway's port.
    let (_other_place, other) = cluster();
    let output = unisono(&["dev", "--redis", running.word("redis"), "--dir", other.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("is in use"), "{}", text(&output));

    // The metrics' port.
    let (_third_place, third) = cluster();
    let metrics = running.word("metrics");
    let words = ["dev", "--redis", "127.0.0.1:0", "--metrics", metrics, "--dir", third.to_str().unwrap()];
    let output = unisono(&words).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("--metrics"), "{}", text(&output));

    // A running replica's directory.
    let output = unisono(&["replica", directory.join("replica-0").to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("error: "), "{}", text(&output));
    assert!(test_kill_process(pid(&directory, "replica-0")).is_ok(), "the first one is not disturbed");
    running.end().await;
}
