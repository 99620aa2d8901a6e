//! The services of the stories, and the names by which this program runs them.

use crate::workflow;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use unisono::oracle::{Call, Oracles, Said};
use unisono::{Bytes, CallError, Context, Mutex, State, Table, cli, service};

type Program = fn(Vec<OsString>, Vec<OsString>) -> ExitCode;

pub(crate) fn named(name: &str) -> Option<Program> {
    Some(match name {
        "workflow" => |program, arguments| {
            let setup = |replica: &mut Oracles| {
                replica.oracle("rates", workflow::rate);
            };
            cli::main_within::<workflow::Shop>(setup, program, arguments)
        },
        "caller" => |program, arguments| cli::main_within::<Caller>(oracles, program, arguments),
        "scatter" => |program, arguments| cli::main_within::<Scatter>(|_| (), program, arguments),
        "diary" => |program, arguments| cli::main_within::<Diary>(|_| (), program, arguments),
        _ => return None,
    })
}

fn directory() -> PathBuf {
    std::env::var_os("STORY_DIRECTORY").expect("the story says where it takes place").into()
}

/// This replica is the one that goes astray.
fn is_astray() -> bool {
    std::env::var_os("STORY_ASTRAY").is_some()
}

/// Asks whoever it is told to ask.
#[derive(State)]
pub(crate) struct Caller {
    greeted: Mutex<u64>,
}

#[service]
impl Caller {
    /// Asks outside, for `timeout` microseconds at most; for as long as it takes with 0.
    async fn ask(&self, cx: &Context, target: String, request: Vec<u8>, timeout: u64) -> Result<Vec<u8>, CallError> {
        let timeout = Some(timeout).filter(|timeout| *timeout > 0);
        cx.call(&target, request, timeout).await.map(|answer| answer.to_vec())
    }

    /// Is polite. The same to everybody who asks with the same name, however often.
    async fn greet(&self, cx: &Context, name: String) -> String {
        self.greeted.lock(cx).await.with_mut((), |greeted, ()| *greeted += 1);
        format!("hello {name}")
    }

    /// How often it has greeted.
    async fn greeted(&self, cx: &Context) -> u64 {
        self.greeted.lock(cx).await.with((), |greeted, ()| *greeted)
    }
}

/// Oracles of every kind. What was asked is written down beside the cluster.
fn oracles(replica: &mut Oracles) {
    replica.oracle("echo", |call, request| async move {
        write_down(&call);
        Ok(request.to_vec())
    });
    replica.oracle("process", |_, _| async { Ok(std::process::id().to_string().into_bytes()) });
    replica.oracle("broken", |_, request: Bytes| async move {
        assert!(request.is_empty(), "planted");
        Ok(Vec::new())
    });
    replica.oracle("gate", gate);
}

/// Answers once somebody has opened the gate.
async fn gate(call: Call, _: Bytes) -> Said {
    write_down(&call);
    while !directory().join("open").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(b"open".to_vec())
}

fn write_down(call: &Call) {
    let path = directory().join("asked");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(format!("{call}\n").as_bytes()).unwrap();
}

/// Gives to several rows at once; where it goes astray, in the order of a hash map.
#[derive(State)]
pub(crate) struct Scatter {
    rows: Table<u64, u64>,
}

#[service]
impl Scatter {
    async fn give(&self, cx: &Context, rows: u64) -> u64 {
        let ordered: BTreeMap<u64, u64> = (0..rows).map(|row| (row, row + 1)).collect();
        let shares: Vec<(u64, u64)> = if is_astray() {
            ordered.into_iter().collect::<HashMap<_, _>>().into_iter().collect()
        } else {
            ordered.into_iter().collect()
        };
        let mut given = 0;
        for (row, share) in shares {
            let mut row = self.rows.lock(cx, row).await;
            row.with_mut(share, |row, share| *row += share);
            given += share;
        }
        given
    }
}

/// Writes down when something was said; where it goes astray, by the clock of the machine.
#[derive(State)]
pub(crate) struct Diary {
    last: Mutex<u64>,
}

#[service]
impl Diary {
    async fn note(&self, cx: &Context) -> u64 {
        let now = if is_astray() {
            u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
        } else {
            cx.now().0
        };
        self.last.lock(cx).await.with_mut(now, |last, now| *last = now);
        1
    }
}
