//! The stories.

use crate::cluster::{Cluster, PATIENCE, within};
use crate::services::{CallerClient, DiaryClient, ScatterClient};
use crate::workflow::{Receipt, ShopClient};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use unisono::admin::Administrator;
use unisono::config::AdminConfig;
use unisono::{CallError, CallRefused, Client, schedule};

pub(crate) const ALL: &[(&str, fn())] = &[
    ("the_workflow_prints_what_is_paid_and_sends_the_others_away", || run(workflow())),
    ("each_replica_asks_an_oracle_and_f_plus_one_equal_answers_count", || run(oracles())),
    ("a_call_that_is_outstanding_is_asked_again_after_a_restart", || run(restart())),
    ("another_cluster_answers_a_call", || run(other_cluster())),
    ("a_log_of_the_same_run_put_back_after_a_kill_is_known_for_an_older_one", || run(older_log())),
    ("a_person_reconfigures_and_tunes_a_running_cluster", || run(commands())),
    ("a_hundred_changes_under_load_lose_nothing_and_leave_the_replicas_alike", || run(changes())),
    ("a_replica_that_iterates_over_a_hash_map_stops_and_names_the_grant", || run(hash_map())),
    ("a_replica_that_reads_the_clock_stops_and_names_the_object", || run(clock())),
];

fn run(story: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(story);
}

fn is_reachable(replica: &Value) -> bool {
    replica["reachable"] == true
}

/// All of them run, have executed the same, and have the same state where they can be compared.
fn all_alike(status: &[Value]) -> bool {
    let mut roots: BTreeMap<u64, &Value> = BTreeMap::new();
    let listed = status.iter().filter_map(|one| one["recent_roots"].as_array()).flatten();
    let equal = listed.clone().all(|pair| **roots.entry(pair[0].as_u64().unwrap()).or_insert(&pair[1]) == pair[1]);
    status.iter().all(|one| is_reachable(one) && one["executed"] == status[0]["executed"]) && equal
}

async fn workflow() {
    let mut cluster = Cluster::start("workflow", 3);
    let shop = ShopClient::new(cluster.client().await);
    assert_eq!(within(shop.serve(20_000)).await, Ok(None), "no order: the clerk goes home when the time is up");

    // A clerk and a customer wait; then the order comes.
    let story = async {
        let order = async {
            assert_eq!(shop.place(5, "EUR".into()).await, Ok(1));
        };
        let (served, receipt, ()) = tokio::join!(shop.serve(60_000_000), shop.receipt(1), order);
        assert_eq!((served, receipt), (Ok(Some(1)), Ok(Receipt::Paid(50))));
    };
    within(story).await;

    // One that does not answer, one that says no, and one more that is paid: all at once, without one of the replicas.
    cluster.kill_replica(2);
    for (number, currency) in [(2, "SLOW"), (3, "GOLD"), (4, "USD")] {
        assert_eq!(within(shop.place(3, currency.into())).await, Ok(number));
    }
    let clerks = async { tokio::join!(shop.serve(1_000), shop.serve(1_000), shop.serve(1_000)) };
    let (first, second, third) = within(clerks).await;
    let mut served = [first, second, third].map(|number| number.unwrap().unwrap());
    served.sort_unstable();
    assert_eq!(served, [2, 3, 4]);
    let refused = |reason: &str| Ok(Receipt::Refused(reason.into()));
    assert_eq!(within(shop.receipt(2)).await, refused("nobody tells the rate"), "the time-out, in agreed time");
    assert_eq!(within(shop.receipt(3)).await, refused("the target refused: no such currency"));
    assert_eq!(within(shop.receipt(4)).await, Ok(Receipt::Paid(36)));

    cluster.start_replica(2, &[]);
    assert_eq!(within(shop.receipt(1)).await, Ok(Receipt::Paid(50)));
    cluster.status_when(all_alike).await;
}

async fn oracles() {
    let cluster = Cluster::start("caller", 3);
    let client = cluster.client().await;
    let caller = CallerClient::new(client.clone());
    let ask = async |target: &str, request: &[u8], timeout| {
        within(caller.ask(target.into(), request.to_vec(), timeout)).await.unwrap()
    };
    assert_eq!(ask("echo", b"hello", 0).await, Ok(b"hello".to_vec()));
    assert_eq!(ask("nobody", b"", 0).await, Err(CallError::Refused(CallRefused::Unknown)));
    assert_eq!(ask("cluster:nowhere", b"", 0).await, Err(CallError::Refused(CallRefused::Unknown)));
    let failed = |text: &str| Err(CallError::Refused(CallRefused::Failed(text.into())));
    assert_eq!(ask("broken", b"!", 0).await, failed("the oracle panicked"));
    assert_eq!(ask("broken", b"", 0).await, Ok(vec![]), "and the next one is asked as before");
    assert_eq!(ask("process", b"", 200_000).await, Err(CallError::TimedOut), "each says something else");
    let large = vec![7; ANSWER_BYTES_MAX + 1];
    assert_eq!(ask("echo", &large, 0).await, Err(CallError::Refused(CallRefused::TooLarge)));

    // Many at once, more than are asked at once.
    let many: Vec<_> = (0..600u32)
        .map(|number| {
            let caller = CallerClient::new(client.clone());
            let call = async move { caller.ask("echo".into(), number.to_le_bytes().to_vec(), 0).await };
            (number, tokio::spawn(within(call)))
        })
        .collect();
    for (number, call) in many {
        assert_eq!(call.await.unwrap().unwrap(), Ok(number.to_le_bytes().to_vec()));
    }
    let asked = asked(&cluster);
    let (first, rest) = asked.split_first().unwrap();
    assert!(first.contains('/') && first.ends_with("#0"), "{first}");
    assert!(rest.contains(first), "another replica has named the call alike");
    cluster.status_when(all_alike).await;
}

/// Bytes that an answer may have.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The calls that oracles were asked, in the order in which they wrote them down.
fn asked(cluster: &Cluster) -> Vec<String> {
    let text = std::fs::read_to_string(cluster.path().join("asked")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

async fn until_asked(cluster: &Cluster, times: usize) {
    let begin = std::time::Instant::now();
    while asked(cluster).len() < times {
        assert!(begin.elapsed() < PATIENCE, "not asked: {:?}", asked(cluster));
        tokio::task::yield_now().await;
    }
}

async fn restart() {
    let mut cluster = Cluster::start("caller", 3);
    let caller = CallerClient::new(cluster.client().await);
    let story = async {
        let call = caller.ask("gate".into(), vec![], 0);
        let meanwhile = async {
            until_asked(&cluster, 3).await;
            (0..3).for_each(|id| cluster.kill_replica(id));
            (0..3).for_each(|id| cluster.start_replica(id, &[]));
            until_asked(&cluster, 6).await;
            std::fs::write(cluster.path().join("open"), "").unwrap();
        };
        let (answer, ()) = tokio::join!(call, meanwhile);
        assert_eq!(answer.unwrap(), Ok(b"open".to_vec()));
    };
    within(story).await;
    let asked = asked(&cluster);
    assert!(asked.iter().all(|call| *call == asked[0]), "by its name a repetition can be recognised: {asked:?}");
    cluster.status_when(all_alike).await;
}

async fn older_log() {
    let mut cluster = Cluster::start("diary", 3);
    let diary = DiaryClient::new(cluster.client().await);
    let note = async |times| {
        for _ in 0..times {
            assert_eq!(within(diary.note()).await, Ok(1));
        }
    };
    note(20).await;
    let copy = tempfile::tempdir().unwrap();
    cluster.copy_log(1, copy.path());
    note(300).await;
    cluster.kill_replica(1);
    cluster.put_back(1, copy.path());
    cluster.start_replica(1, &[]);
    note(20).await;
    let status = cluster.status_when(all_alike).await;
    let lost: Vec<&Value> = status.iter().map(|one| &one["register"]["lost"]).collect();
    // Its own mark says so at the start, not a peer later.
    assert_eq!(lost, [&Value::Null, &json!("the end of the log is missing"), &Value::Null]);
    let said = cluster.complaints(1);
    assert_eq!(said.lines().filter(|line| line.contains("register.mark")).count(), 1, "{said}");
}

async fn other_cluster() {
    let other = Cluster::start("caller", 1);
    let mut cluster = Cluster::new("caller", 3);
    // Two of the replicas are told on the command line, one by its settings.
    let call = ["--call".to_owned(), format!("friends={}", other.path().join("client").display())];
    (0..2).for_each(|id| cluster.start_replica(id, &call));
    let settings = format!("replica = 2\n[clusters]\nfriends = {:?}\n", other.path().join("client"));
    std::fs::write(cluster.path().join("replica-2/process.toml"), settings).unwrap();
    cluster.start_replica(2, &[]);
    let caller = CallerClient::new(cluster.client().await);
    let greet = crate::services::CallerOperation::greet("neighbours".into());
    let answer = within(caller.ask("cluster:friends".into(), greet, 0)).await.unwrap().unwrap();
    assert!(answer.ends_with(b"hello neighbours"), "{answer:?}");
    let friends = CallerClient::new(other.client().await);
    let greeted = within(friends.greeted()).await.unwrap();
    assert!((2..=3).contains(&greeted), "every replica asks, so it must bear repetitions: {greeted}");
    let nonsense = within(caller.ask("cluster:friends".into(), vec![99], 0)).await.unwrap();
    assert!(matches!(nonsense, Err(CallError::Refused(CallRefused::Failed(_)))), "{nonsense:?}");
    cluster.status_when(all_alike).await;
}

async fn commands() {
    let cluster = Cluster::start("caller", 3);
    let caller = CallerClient::new(cluster.client().await);
    within(caller.greet("you".into())).await.unwrap();
    let run = |words: &[&str]| {
        let output = cluster.run(words);
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.code().unwrap(), out, err)
    };
    let (code, out, err) = run(&["reconfigure", "n=64", "steps=4", "order=quantum:8"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("n=64 steps=4 order=quantum:8 flush-rounds=16 predicate=all"), "{out}");
    let (_, out, _) = run(&["reconfigure", "--json", "order=explicit:0,1,1,2", "predicate=classes:1/2/0"]);
    let said: Value = serde_json::from_str(&out).unwrap();
    let expected = json!({
        "n": 64, "steps": 4, "order": "explicit:0,1,1,2", "flush_rounds": 16, "predicate": "classes:1/2/0",
    });
    assert_eq!((&said["parameters"], &said["holds"]), (&expected, &json!(true)));
    assert!(said["height"].as_u64().unwrap() > 1 && said["replicas"].as_u64().unwrap() >= 2, "{said}");
    cluster.status_when(|status| status.iter().all(|one| one["parameters"] == expected)).await;
    let (code, _, err) = run(&["reconfigure", "n=0"]);
    assert_eq!(code, 2, "{err}");

    let (code, out, err) = run(&["tune", "set", "--replica", "1", "workers=2", "start-ahead=128"]);
    assert_eq!((code, out.lines().count()), (0, 2), "{out}{err}");
    let (_, out, _) = run(&["tune", "show"]);
    let rows: Vec<Vec<&str>> = out.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows, [["0", "0", "64"], ["1", "2", "128"], ["2", "0", "64"]], "{out}");
    assert_eq!(within(caller.greeted()).await, Ok(1), "with threads at one replica and without at the others");
    let (code, _, err) = run(&["tune", "show", "--replica", "7"]);
    assert_eq!(code, 1);
    assert!(err.contains("there is no replica 7"), "{err}");
    let (_, out, _) = run(&["status"]);
    assert!(out.contains("schedule  uds: n=64 steps=4 order=explicit:0,1,1,2"), "{out}");

    // Who does not have the key cannot.
    std::fs::remove_file(cluster.path().join("admin/admin.key")).unwrap();
    let (code, _, err) = run(&["reconfigure", "n=9"]);
    assert_eq!(code, 1);
    assert!(err.contains("admin.key") && err.contains("is missing"), "{err}");
}

async fn changes() {
    let cluster = Cluster::start("workflow", 3);
    let client = cluster.client().await;
    let done = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (shop, done) = (ShopClient::new(client.clone()), Arc::clone(&done));
            tokio::spawn(async move {
                let mut placed = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    placed.push(shop.place(1, "EUR".into()).await.unwrap());
                }
                placed
            })
        })
        .collect();
    let config = AdminConfig::load(cluster.path().join("admin")).unwrap();
    let mut administrator = Administrator::new(config);
    for change in 0..100u32 {
        let order = ["round-robin", "quantum:2", "explicit:1,0,0"][change as usize % 3];
        let words =
            [format!("n={}", 1 + change * 7 % 20), format!("steps={}", 1 + change % 4), format!("order={order}")];
        let changed = within(administrator.reconfigure(schedule::change_of(words).unwrap())).await.unwrap();
        assert!(changed.holds, "{change}: {changed:?}");
    }
    done.store(true, Ordering::Relaxed);
    let mut placed = Vec::new();
    for caller in callers {
        placed.extend(within(caller).await.unwrap());
    }
    placed.sort_unstable();
    let expected: Vec<u64> = (1..=placed.len() as u64).collect();
    assert!(placed.len() > 100 && placed == expected, "every order was placed once");
    // Roots cover the grants of locks. One Mark behind all of it is waited for.
    let heights = |status: &[Value]| status.iter().filter_map(|one| one["height"].as_u64()).max();
    let end = heights(&cluster.status_when(all_alike).await);
    within(ShopClient::new(client).place(1, "EUR".into())).await.unwrap();
    let marked = |status: &[Value]| status.iter().all(|one| one["root_height"].as_u64() > end);
    let status = cluster.status_when(|status| marked(status) && all_alike(status)).await;
    assert!(status.iter().all(|one| one["grant_hash"] == status[0]["grant_hash"]), "{status:#?}");
}

/// Two replicas as they should be, and one that goes astray.
async fn astray(service: &'static str) -> (Cluster, Client) {
    let mut cluster = Cluster::new(service, 3);
    (0..2).for_each(|id| cluster.start_replica(id, &[]));
    cluster.start_astray(2);
    let client = cluster.client().await;
    (cluster, client)
}

/// The replica that went astray has stopped, and said so; the others serve and agree.
async fn stopped(cluster: &mut Cluster) -> String {
    let (success, said) = cluster.ended(2).await;
    assert!(!success, "{said}");
    assert!(said.contains("differs from that of 2 others"), "{said}");
    let others = |status: &[Value]| is_reachable(&status[0]) && is_reachable(&status[1]) && !is_reachable(&status[2]);
    let status = cluster.status_when(others).await;
    assert!(all_alike(&status[..2]), "{status:#?}");
    said
}

async fn hash_map() {
    let (mut cluster, client) = astray("scatter").await;
    let scatter = ScatterClient::new(client);
    for _ in 0..20 {
        assert_eq!(within(scatter.give(20)).await, Ok(210), "the answers are those of the others");
    }
    let said = stopped(&mut cluster).await;
    let grant = said.split_once("grant ").expect("a grant is named").1;
    assert!(grant.contains("here lock rows[") && grant.contains("there lock rows["), "{said}");
    assert!(grant.contains("to request ") && grant.contains("is not deterministic"), "{said}");
    assert_eq!(within(scatter.give(20)).await, Ok(210), "the others go on");
}

async fn clock() {
    let (mut cluster, client) = astray("diary").await;
    let diary = DiaryClient::new(client);
    for _ in 0..20 {
        assert_eq!(within(diary.note()).await, Ok(1));
    }
    let said = stopped(&mut cluster).await;
    assert!(said.contains("object \"last\" differs"), "{said}");
    assert_eq!(within(diary.note()).await, Ok(1), "the others go on");
}
