//! What a request costs in line, without agreement and network: `cargo bench -p unisono-execution`.
//!
//! Prints one JSON line per measurement: the median and the extremes of several runs, in nanoseconds of CPU time per
//! request (of wall time where the system does not tell), so that a busy machine disturbs less.

use std::hint::black_box;
use std::sync::{Mutex as StdMutex, PoisonError};
use std::time::Instant;
use unisono_execution::{Context, Executor, Mutex, Settings, Table};
use unisono_macros::{State, service};
use unisono_scheduler::sequential::Sequential;
use unisono_scheduler::uds::Uds;
use unisono_scheduler::{Order, Parameters, Scheduler};
use unisono_types::{Bytes, Done, Position, RequestNumber, SequenceNumber, SessionId, Timestamp, Work};

#[derive(State)]
#[state(crate = unisono_execution)]
struct Store {
    total: Mutex<u64>,
    rows: Table<u64, u64>,
}

#[service(crate = unisono_execution)]
impl Store {
    async fn empty(&self, _cx: &Context) {}

    async fn add(&self, cx: &Context, by: u64) -> u64 {
        self.total.lock(cx).await.with_mut(by, |total, by| {
            *total += by;
            *total
        })
    }

    /// So many pairs of lock and unlock, nobody else there.
    async fn pairs(&self, cx: &Context, count: u64) {
        for _ in 0..count {
            self.total.lock(cx).await.with_mut(1, |total, by| *total += by);
        }
    }

    /// The same with a mutex of the standard library, uncontended too: what a pair costs without determinism.
    async fn plain_pairs(&self, _cx: &Context, count: u64) {
        for _ in 0..count {
            *black_box(&PLAIN).lock().unwrap_or_else(PoisonError::into_inner) += black_box(1);
        }
    }

    async fn set(&self, cx: &Context, row: u64, new: u64) {
        self.rows.lock(cx, row).await.with_mut(new, |value, new| *value = new);
    }
}

static PLAIN: StdMutex<u64> = StdMutex::new(0);

/// Pairs of one handler.
const PAIRS: u64 = 1_000;

const RUNS: usize = 7;
const REQUESTS: u64 = 100_000;
/// Requests per decision.
const DECISION: u64 = 100;
/// Decisions between two Marks.
const MARK: u64 = 500;

type MakeScheduler = fn() -> Box<dyn Scheduler>;
type MakeOperation = fn(u64) -> Vec<u8>;

fn sequential() -> Box<dyn Scheduler> {
    Box::new(Sequential::new())
}

fn uds() -> Box<dyn Scheduler> {
    Box::new(Uds::new(Parameters { primaries: 16, steps: 4, ..Parameters::uds() }))
}

fn uds_unlimited() -> Box<dyn Scheduler> {
    Box::new(Uds::new(Parameters {
        primaries: 16,
        steps: u32::MAX,
        order: Order::Quantum(u32::MAX),
        ..Parameters::uds()
    }))
}

fn main() {
    let schedulers: [(&str, MakeScheduler); 2] = [("sequential", sequential), ("uds-16-4", uds)];
    let handlers: [(&str, MakeOperation); 3] = [
        ("empty", |_| StoreOperation::empty()),
        ("mutex", |_| StoreOperation::add(1)),
        ("row of 10000", |n| StoreOperation::set(n.wrapping_mul(7919) % 10_000, n)),
    ];
    // `cargo bench -p unisono-execution -- pairs` measures the pairs only.
    let pairs_only = std::env::args().any(|argument| argument == "pairs");
    for (scheduler_name, scheduler) in schedulers.into_iter().filter(|_| !pairs_only) {
        for (handler, operation) in handlers {
            for marks in [false, true] {
                let [minimum, median, maximum] = runs(scheduler, operation, marks, REQUESTS);
                println!(
                    r#"{{"scheduler":"{scheduler_name}","handler":"{handler}","marks":{marks},"median_ns":{median},"min_ns":{minimum},"max_ns":{maximum}}}"#,
                );
            }
        }
    }
    for (scheduler_name, scheduler) in [("sequential", sequential as MakeScheduler), ("uds-16-max", uds_unlimited)] {
        let of = |operation: MakeOperation| runs(scheduler, operation, false, 1_000)[1];
        let empty = runs(scheduler, |_| StoreOperation::empty(), false, REQUESTS)[1];
        let lock = of(|_| StoreOperation::pairs(PAIRS)).saturating_sub(empty) / PAIRS;
        let plain = of(|_| StoreOperation::plain_pairs(PAIRS)).saturating_sub(empty) / PAIRS;
        println!(
            r#"{{"scheduler":"{scheduler_name}","lock_pair_ns":{lock},"plain_pair_ns":{plain},"empty_handler_ns":{empty}}}"#
        );
    }
}

/// The least, the median and the greatest of several runs.
fn runs(scheduler: MakeScheduler, operation: MakeOperation, marks: bool, requests: u64) -> [u64; 3] {
    let mut runs: Vec<u64> = (0..RUNS).map(|_| run(scheduler, operation, marks, requests)).collect();
    runs.sort_unstable();
    [runs[0], runs[RUNS / 2], runs[RUNS - 1]]
}

/// Nanoseconds per request.
fn run(scheduler: MakeScheduler, operation: MakeOperation, marks: bool, requests: u64) -> u64 {
    let executor = Executor::new::<Store>(scheduler(), Settings::default());
    let mut works: Vec<Vec<Work>> =
        (0..requests / DECISION).map(|decision| works(decision, operation, marks)).collect();
    let mut done = Vec::new();
    let mut ended = 0;
    let begun = (Instant::now(), cpu_ns());
    for works in works.drain(..) {
        executor.submit_all(works);
        executor.run_until_idle();
        executor.take_done(&mut done);
        for done in done.drain(..) {
            match done {
                Done::Executed { outcome, .. } => ended += u64::from(black_box(outcome).is_ok()),
                Done::Starved { flush: true, .. } => executor.submit(Work::Flush),
                Done::Starved { .. } | Done::Marked(_) | Done::Called { .. } => {}
            }
        }
    }
    let nanoseconds = match (begun.1, cpu_ns()) {
        (Some(begun), Some(now)) => now - begun,
        _ => begun.0.elapsed().as_nanos() as u64,
    };
    assert!(ended + 100 > requests, "all but the last round's requests have ended: {ended}");
    nanoseconds / requests
}

/// What this thread has used so far (Linux).
fn cpu_ns() -> Option<u64> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
}

fn works(decision: u64, operation: MakeOperation, marks: bool) -> Vec<Work> {
    let sequence = SequenceNumber(decision + 1);
    let mut works: Vec<Work> = (0..DECISION)
        .map(|index| Work::Request {
            position: Position::new(sequence, index as u32).expect("a short log"),
            timestamp: Timestamp(sequence.0),
            session: SessionId(index),
            number: RequestNumber(sequence.0),
            operation: Bytes::from(operation(decision * DECISION + index)),
        })
        .collect();
    if marks && decision % MARK == MARK - 1 {
        works.push(Work::Mark(sequence));
    }
    works
}
