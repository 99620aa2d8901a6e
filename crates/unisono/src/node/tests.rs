//! Three replicas on loopback sockets with real logs, and a client that votes on their answers.

use super::*;
use crate::admin::{self, Administrator};
use crate::client::Client;
use crate::config::{AdminConfig, ClientConfig, InitOptions, ReplicaConfig, init};
use crate::schedule;
use crate::tuning::Tuning;
use serde_json::Value;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use unisono_execution::{Context, Mutex, Objects, Service, State, UnknownOperation};
use unisono_types::ReplicaId;

/// Numbers that are added up; each answer is the sum so far, so an operation that was lost or done twice shows.
struct Sum(Mutex<u64>);

impl State for Sum {
    fn create(objects: &mut Objects, name: &str) -> Self {
        Self(Mutex::create(objects, &format!("{name}sum")))
    }
}

impl Service for Sum {
    async fn execute<'a>(&'a self, cx: &'a Context, operation: &'a [u8]) -> Result<Vec<u8>, UnknownOperation> {
        let number = u64::from_le_bytes(operation.try_into().map_err(|_| UnknownOperation)?);
        let mut sum = self.0.lock(cx).await;
        let sum: u64 = sum.with_mut(number, |sum, number| {
            *sum += number;
            *sum
        });
        Ok(sum.to_le_bytes().to_vec())
    }

    fn handler(_operation: &[u8]) -> &'static str {
        "add"
    }
}

/// A replica in a thread with a runtime of its own, as a process would have it.
struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), NodeError>>>,
}

impl Running {
    fn start(config: ReplicaConfig) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (sender, started) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let node = Node::start::<Sum>(config).await?;
                sender.send(()).unwrap();
                node.run(async { drop(stopped.await) }).await
            })
        });
        // An error has no start; stop() will show it.
        let _ = started.recv();
        Self { stop: Some(stop), thread: Some(thread) }
    }

    fn stop(mut self) -> Result<(), NodeError> {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

struct Cluster {
    directory: tempfile::TempDir,
    replicas: Vec<Option<Running>>,
}

impl Cluster {
    fn start(workers: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        init(directory.path(), &InitOptions { client_keys: 2, ..InitOptions::default() }).unwrap();
        let mut cluster = Self { directory, replicas: (0..3).map(|_| None).collect() };
        for index in 0..3 {
            if workers > 0 {
                let path = cluster.directory.path().join(format!("replica-{index}/process.toml"));
                fs::write(&path, format!("replica = {index}\nworkers = {workers}\n")).unwrap();
            }
            cluster.start_replica(index);
        }
        cluster
    }

    fn config(&self, index: usize) -> ReplicaConfig {
        ReplicaConfig::load(self.directory.path().join(format!("replica-{index}"))).unwrap()
    }

    fn start_replica(&mut self, index: usize) {
        self.replicas[index] = Some(Running::start(self.config(index)));
    }

    fn stop_replica(&mut self, index: usize) {
        self.replicas[index].take().unwrap().stop().unwrap();
    }

    async fn client(&self) -> Client {
        let config = ClientConfig::load(self.directory.path().join("client")).unwrap();
        within(Client::connect(&config, 0)).await.unwrap()
    }

    async fn status(&self) -> Vec<Value> {
        admin::query_status(self.directory.path().join("admin")).await.unwrap()
    }

    /// Asks until the answers are as they shall become.
    async fn status_when(&self, right: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        within(async {
            loop {
                let status = self.status().await;
                if right(&status) {
                    return status;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

/// Far more than anything here takes, so that a hang is a failure and not a hang.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it must not take this long")
}

async fn add(client: &Client, number: u64) -> u64 {
    let outcome = within(client.invoke(number.to_le_bytes().to_vec())).await.unwrap().unwrap();
    u64::from_le_bytes(outcome[..].try_into().unwrap())
}

fn executed(status: &Value) -> u64 {
    status["executed"].as_u64().unwrap_or(0)
}

fn all_equal(status: &[Value]) -> bool {
    status.iter().all(|one| one["reachable"] == true && executed(one) > 0 && executed(one) == executed(&status[0]))
}

#[tokio::test]
async fn a_cluster_answers_says_how_it_is_and_ends_in_order() {
    let mut cluster = Cluster::start(0);
    let client = cluster.client().await;
    for expected in 1..=20 {
        assert_eq!(add(&client, 1).await, expected);
    }
    let many: Vec<_> = (0..200).map(|_| client.invoke(1u64.to_le_bytes().to_vec())).collect();
    let mut sums = Vec::new();
    for outcome in many {
        sums.push(u64::from_le_bytes(within(outcome).await.unwrap().unwrap()[..].try_into().unwrap()));
    }
    sums.sort_unstable();
    assert_eq!(sums, (21..=220).collect::<Vec<_>>());
    let status = cluster.status_when(all_equal).await;
    for (index, one) in status.iter().enumerate() {
        assert_eq!(one["id"], index);
        assert_eq!(one["algorithm"], "aphousia");
        assert_eq!(one["members"], serde_json::json!([0, 1, 2]));
        assert_eq!(one["register"]["mode"], "durable");
        assert_eq!(one["pid"], std::process::id());
        assert!(one["height"].as_u64().unwrap() >= executed(one));
        assert!(one["recent_roots"].is_array() && one["state_root"].is_string() && one["grant_hash"].is_string());
    }
    client.close().await;
    for index in 0..3 {
        cluster.stop_replica(index);
    }
    assert_eq!(cluster.status().await[0], serde_json::json!({ "id": 0, "reachable": false }));
}

#[tokio::test]
async fn with_execution_threads_the_answers_are_the_same() {
    let cluster = Cluster::start(2);
    let client = cluster.client().await;
    for expected in 1..=50 {
        assert_eq!(add(&client, 1).await, expected);
    }
    cluster.status_when(all_equal).await;
}

#[tokio::test]
async fn each_replica_in_turn_may_stop_and_come_back() {
    let mut cluster = Cluster::start(0);
    let client = cluster.client().await;
    let mut sum = 0;
    for index in 0..3 {
        cluster.stop_replica(index);
        for _ in 0..10 {
            sum += 7;
            assert_eq!(add(&client, 7).await, sum, "without replica {index}");
        }
        cluster.start_replica(index);
        cluster.status_when(all_equal).await;
    }
}

#[tokio::test]
async fn all_stop_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(0);
    let client = cluster.client().await;
    for expected in 1..=30 {
        assert_eq!(add(&client, 1).await, expected);
    }
    for index in 0..3 {
        cluster.stop_replica(index);
    }
    for index in 0..3 {
        cluster.start_replica(index);
    }
    // The old session goes on, and a new one sees the same.
    assert_eq!(add(&client, 1).await, 31);
    assert_eq!(add(&cluster.client().await, 1).await, 32);
    cluster.status_when(all_equal).await;
}

#[tokio::test]
async fn strangers_get_no_status() {
    let cluster = Cluster::start(0);
    let client = ClientConfig::load(cluster.directory.path().join("client")).unwrap();
    let impostor = AdminConfig { cluster: client.cluster.clone(), key: client.keys[0].clone() };
    for one in admin::status_of(&impostor).await {
        assert_eq!(one["reachable"], false);
    }
}

fn administrator(cluster: &Cluster) -> Administrator {
    Administrator::new(AdminConfig::load(cluster.directory.path().join("admin")).unwrap())
}

#[tokio::test]
async fn the_schedule_is_changed_under_load_and_a_restarted_replica_has_it_too() {
    let mut cluster = Cluster::start(0);
    let client = cluster.client().await;
    let mut administrator = administrator(&cluster);
    let load: Vec<_> = (0..300).map(|_| client.invoke(1u64.to_le_bytes().to_vec())).collect();
    let mut heights = Vec::new();
    for words in ["n=3 steps=1 order=quantum:2", "order=explicit:0,1,1,2 flush-rounds=1", "n=all"] {
        let change = schedule::change_of(words.split(' ')).unwrap();
        let done = within(administrator.reconfigure(change)).await.unwrap();
        assert!(done.holds && done.replicas >= 2, "{words}: {done:?}");
        heights.push(done.height);
    }
    assert!(heights.windows(2).all(|pair| pair[0] < pair[1]), "{heights:?}");
    for outcome in load {
        within(outcome).await.unwrap().unwrap();
    }
    cluster.stop_replica(1);
    cluster.start_replica(1);
    assert_eq!(add(&client, 1).await, 301, "nothing was lost");
    let expected = serde_json::json!({
        "n": "all", "steps": 1, "order": "explicit:0,1,1,2", "flush_rounds": 1, "predicate": "all",
    });
    cluster.status_when(|status| all_equal(status) && status.iter().all(|one| one["parameters"] == expected)).await;
}

#[tokio::test]
async fn what_is_in_the_way_of_a_change_is_said() {
    let mut cluster = Cluster::start(0);
    let change = || schedule::change_of(["n=2"]).unwrap();
    let client = ClientConfig::load(cluster.directory.path().join("client")).unwrap();
    let impostor = AdminConfig { cluster: client.cluster.clone(), key: client.keys[0].clone() };
    let refused = Administrator::new(impostor).reconfigure(change()).await.unwrap_err().to_string();
    assert!(refused.contains("only 0 of 3 replicas answer"), "nobody listens to another key: {refused}");
    let mut administrator = administrator(&cluster);
    for (frame, reason) in [("zz", "malformed"), (&"00".repeat(200), "malformed")] {
        let answers = administrator.ask_all(&admin::Request::Submit { frame: frame.into() }).await;
        assert!(answers.iter().all(|answer| answer["refused"] == reason), "{answers:?}");
    }
    let body = unisono_types::FrameBody::System { entry: unisono_types::SystemEntry::Flush, nonce: 1 };
    let config = cluster.config(0);
    let cluster_id = config.cluster.membership.configuration().cluster;
    let frame = unisono_types::Frame::sign(cluster_id, config.host.signer(), body);
    let frame = frame.wire().iter().map(|byte| format!("{byte:02x}")).collect();
    let answers = administrator.ask_all(&admin::Request::Submit { frame }).await;
    assert!(answers.iter().all(|answer| answer["refused"].is_string()), "no entry of a replica: {answers:?}");
    for index in 1..3 {
        cluster.stop_replica(index);
    }
    let alone = administrator.reconfigure(change()).await.unwrap_err().to_string();
    assert!(alone.contains("only 1 of 3 replicas answer, 2 must"), "{alone}");
}

#[tokio::test]
async fn local_parameters_change_while_it_runs_and_end_with_the_process() {
    let mut cluster = Cluster::start(0);
    let client = cluster.client().await;
    let mut administrator = administrator(&cluster);
    let mut sum = 0;
    for (workers, start_ahead) in [(2, 0), (1, 5), (0, 5), (3, 64)] {
        let tuning = Tuning { workers: Some(workers), start_ahead: Some(start_ahead) };
        for answer in within(administrator.ask_all(&admin::Request::Tune(tuning))).await {
            assert_eq!((&answer["workers"], &answer["start_ahead"]), (&workers.into(), &start_ahead.into()));
        }
        for _ in 0..20 {
            sum += 1;
            assert_eq!(add(&client, 1).await, sum, "{workers} workers");
        }
    }
    let too_many = admin::Request::Tune(Tuning { workers: Some(1 << 20), ..Tuning::default() });
    let answers = administrator.ask_some(&[ReplicaId(2)], &too_many).await;
    assert!(answers[0]["refused"].as_str().unwrap().contains("at most"), "{answers:?}");
    cluster.stop_replica(0);
    cluster.start_replica(0);
    let status = cluster.status_when(all_equal).await;
    assert_eq!((&status[0]["workers"], &status[1]["workers"]), (&0.into(), &3.into()));
}

#[tokio::test]
async fn what_no_correct_program_sends_closes_the_link_and_is_counted() {
    use crate::transport::{Dialer, LinkKind, Target};
    let cluster = Cluster::start(0);
    let config = ClientConfig::load(cluster.directory.path().join("client")).unwrap();
    let membership = &config.cluster.membership;
    let target = Target::from(&membership.configuration().members[0]);
    let dialer = Dialer::new(config.keys[0].clone(), LinkKind::Client, membership.clone());
    for message in [&b""[..], b"\xff\xff\xff\xff\xff", &[0; 1000]] {
        let mut link = within(dialer.dial(&target)).await.unwrap();
        link.write(message).await.unwrap();
        assert!(within(link.read()).await.is_err(), "closed");
    }
    assert!(crate::metrics::render().contains("unisono_rejected_total{kind=\"client\",reason=\"malformed\"}"));
    // The others are unaffected.
    assert_eq!(add(&cluster.client().await, 5).await, 5);
}

#[tokio::test]
async fn what_is_in_the_way_is_named() {
    let cluster = Cluster::start(0);
    let again = Running::start(cluster.config(0)).stop().unwrap_err().to_string();
    assert!(again.contains("cannot listen on 127.0.0.1:") && again.contains("process.toml"), "{again}");
    let elsewhere = ReplicaConfig { listen: "127.0.0.1:0".into(), ..cluster.config(0) };
    let locked = Running::start(elsewhere).stop().unwrap_err().to_string();
    assert!(locked.contains("in use by another process"), "{locked}");
}

/// A copy of a directory's files.
fn copied(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap();
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn a_replica_with_an_older_log_follows_without_voting() {
    let mut cluster = Cluster::start(0);
    let client = cluster.client().await;
    assert_eq!(add(&client, 1).await, 1);
    let replica = cluster.directory.path().join("replica-1");
    let (data, copy) = (replica.join("data"), tempfile::tempdir().unwrap());
    cluster.stop_replica(1);
    copied(&data, copy.path());
    cluster.start_replica(1);
    assert_eq!(add(&client, 1).await, 2);
    for sum in [3, 4] {
        cluster.stop_replica(1);
        // The second start has a log that fits its mark again: once lost it stays lost.
        if sum == 3 {
            copied(copy.path(), &data);
        }
        cluster.start_replica(1);
        assert_eq!(add(&client, 1).await, sum);
        let status = cluster.status_when(all_equal).await;
        assert!(status[1]["register"]["lost"].as_str().unwrap().contains("an older copy"), "{status:?}");
        assert!(status[0]["register"]["lost"].is_null() && status[2]["register"]["lost"].is_null(), "{status:?}");
    }
    // Without a vote of its own the two others are needed.
    cluster.stop_replica(2);
    let mut waits = std::pin::pin!(client.invoke(1u64.to_le_bytes().to_vec()));
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut waits).await.is_err(), "one vote is no quorum");
    cluster.start_replica(2);
    within(waits).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_replica_with_an_emptied_data_directory_follows_without_voting() {
    let mut cluster = Cluster::start(0);
    let client = cluster.client().await;
    assert_eq!(add(&client, 1).await, 1);
    cluster.stop_replica(1);
    let data = cluster.directory.path().join("replica-1/data");
    fs::remove_dir_all(&data).unwrap();
    fs::create_dir(&data).unwrap();
    cluster.start_replica(1);
    assert_eq!(add(&client, 1).await, 2);
    let status = cluster.status_when(all_equal).await;
    assert_eq!(status[1]["register"]["mode"], "lost");
    assert_eq!(status[1]["register"]["lost"], "the data directory is empty");
}
