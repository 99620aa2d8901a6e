//! The executor's contract with its host: order of what it reports, roots, parked requests, workers, the end.
#![allow(missing_docs)]

mod common;

use common::{Bench, decode, sequential, uds};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex as Latch};
use unisono_execution::{Context, Executor, Mutex, Service, Settings, State, Table, UnknownOperation};
use unisono_macros::{State, service};
use unisono_scheduler::{Operation, Order};
use unisono_types::{Bytes, Digest, Done, Position, RequestNumber, SequenceNumber, SessionId, Timestamp, Work};

#[derive(State)]
#[state(crate = unisono_execution)]
struct Store {
    rows: Table<u64, u64>,
    total: Mutex<u64>,
    gate: Mutex<bool>,
}

static DROPPED: AtomicUsize = AtomicUsize::new(0);

struct Witness;

impl Drop for Witness {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

#[service(crate = unisono_execution)]
impl Store {
    async fn set(&self, cx: &Context, row: u64, new: u64) {
        self.rows.lock(cx, row).await.with_mut(new, |value, new| *value = new);
    }

    async fn add(&self, cx: &Context, by: u64) -> u64 {
        self.total.lock(cx).await.with_mut(by, |total, by| {
            *total += by;
            *total
        })
    }

    async fn delete(&self, cx: &Context, row: u64) {
        self.rows.lock(cx, row).await.remove();
    }

    async fn pass(&self, cx: &Context) {
        let mut gate = self.gate.lock(cx).await;
        while !gate.with((), |open, ()| *open) {
            gate = gate.wait(3).await;
        }
    }

    async fn open(&self, cx: &Context) {
        let mut gate = self.gate.lock(cx).await;
        gate.with_mut((), |open, ()| *open = true);
        gate.notify_all(3);
    }

    async fn hold_for_ever(&self, cx: &Context) {
        let _total = self.total.lock(cx).await;
        let gate = self.gate.lock(cx).await;
        let _witness = Witness;
        let _never = gate.wait(9).await;
    }

    async fn sleep(&self, cx: &Context, microseconds: u64) -> u64 {
        cx.sleep(microseconds).await;
        cx.now().0
    }

    async fn draw(&self, cx: &Context) -> [u64; 2] {
        [cx.random(), cx.random()]
    }

    /// Waits for a row to be filled, and takes from it.
    async fn take(&self, cx: &Context, row: u64) -> u64 {
        let mut row = self.rows.lock(cx, row).await;
        while row.with((), |value, ()| *value == 0) {
            row = row.wait(0).await;
        }
        row.with_mut((), |value, ()| {
            *value -= 1;
            *value
        })
    }

    async fn fill(&self, cx: &Context, row: u64, new: u64) {
        let mut row = self.rows.lock(cx, row).await;
        row.with_mut(new, |value, new| *value = new);
        row.notify_all(0);
    }
}

#[test]
fn what_ended_before_a_mark_stands_before_it() {
    let mut bench = Bench::new::<Store>();
    bench.request(StoreOperation::add(1));
    bench.executor.submit(Work::Mark(SequenceNumber(50)));
    bench.request(StoreOperation::add(1));
    bench.executor.run_until_idle();
    let mut done = Vec::new();
    bench.executor.take_done(&mut done);
    let kinds: Vec<_> = done
        .iter()
        .map(|done| match done {
            Done::Executed { position, .. } => position.sequence().0,
            Done::Marked(report) => report.sequence.0,
            Done::Starved { .. } | Done::Called { .. } => 0,
        })
        .collect();
    assert_eq!(kinds, [1, 50, 2]);
    let Done::Marked(report) = &done[1] else { unreachable!() };
    let mut other = Bench::new::<Store>();
    other.request(StoreOperation::add(1));
    assert_eq!(other.mark().objects, report.objects, "the root is that of the Mark, not of what came later");
}

#[test]
fn the_root_is_a_function_of_the_state_and_the_leaves_name_what_differs() {
    let mut one = Bench::new::<Store>();
    let mut two = Bench::new::<Store>();
    for row in 0..50 {
        one.call(StoreOperation::set(row, row)).unwrap();
        two.call(StoreOperation::set(49 - row, 49 - row)).unwrap();
        two.call(StoreOperation::set(100 + row, 1)).unwrap();
    }
    two.mark();
    for row in 0..50 {
        two.call(StoreOperation::delete(100 + row)).unwrap();
    }
    assert_eq!(one.mark().objects, two.mark().objects, "another history, the same state");
    assert_eq!(one.executor.objects(), 52);

    two.call(StoreOperation::set(17, 0)).unwrap();
    assert_eq!(one.mark().objects, one.mark().objects);
    assert_ne!(one.mark().objects, two.mark().objects);
    let pages = |bench: &Bench| {
        let mut leaves: Vec<(String, Digest)> = Vec::new();
        loop {
            let page = bench.executor.leaves(leaves.last().map(|(name, _)| name.as_str()), 20);
            if page.is_empty() {
                return leaves;
            }
            leaves.extend(page);
        }
    };
    let (left, right) = (pages(&one), pages(&two));
    let differing: Vec<_> =
        left.iter().zip(&right).filter(|(left, right)| left != right).map(|(leaf, _)| &leaf.0).collect();
    assert_eq!(differing, ["rows[17]"]);
}

#[test]
fn executed_counts_parked_requests_and_those_stuck_behind_them() {
    let mut bench = Bench::new::<Store>();
    bench.request(StoreOperation::add(1));
    assert_eq!(bench.executor.executed(), SequenceNumber(0), "submitted, not run");
    bench.run();
    assert_eq!(bench.executor.executed(), SequenceNumber(1));
    bench.request(StoreOperation::pass());
    bench.run();
    assert_eq!(bench.executor.executed(), SequenceNumber(2), "parked");
    bench.request(StoreOperation::hold_for_ever());
    bench.request(StoreOperation::add(1));
    assert_eq!(bench.run(), [], "its lock belongs to one that is parked");
    assert_eq!(bench.executor.executed(), SequenceNumber(4));
    bench.executor.decided(SequenceNumber(9));
    assert_eq!(bench.executor.executed(), SequenceNumber(9), "decisions without requests");
    assert_eq!((bench.executor.status().threads, bench.executor.status().parked), (3, 3));
}

#[test]
fn a_need_for_agreed_time_is_reported_once_and_again_after_a_tick_did_not_help() {
    let mut bench = Bench::new::<Store>();
    bench.request(StoreOperation::sleep(500));
    bench.run();
    let deadline = Some(bench.timestamp + 500);
    assert_eq!(bench.starved, [(false, deadline)]);
    bench.call(StoreOperation::add(1)).unwrap();
    assert_eq!(bench.starved.len(), 1, "nothing new");
    bench.tick(400);
    bench.run();
    assert_eq!(bench.starved, [(false, deadline), (false, deadline)]);
    bench.tick(100);
    let ended = bench.run();
    assert_eq!(decode::<u64>(&ended[0].1), bench.timestamp);
    assert_eq!(bench.starved.len(), 2);
}

#[test]
fn a_round_that_waits_for_requests_says_that_a_flush_would_help() {
    let mut bench = Bench::with::<Store>(uds(4, 1, Order::RoundRobin), Settings::default());
    bench.request(StoreOperation::add(1));
    bench.run();
    let mut flushes = 0;
    while bench.executor.status().threads > 0 {
        assert!(
            bench.starved.last().is_some_and(|(flush, _)| *flush),
            "nothing but a Flush helps: {:?}",
            bench.starved
        );
        bench.starved.clear();
        flushes += 1;
        assert!(flushes < 10);
        bench.flush();
        bench.run();
    }
}

#[test]
fn random_numbers_follow_from_cluster_and_position() {
    let draw = |cluster: u8, skip: usize| {
        let settings = Settings { cluster: unisono_types::ClusterId([cluster; 16]), ..Settings::default() };
        let mut bench = Bench::with::<Store>(sequential(), settings);
        let drawn: Vec<[u64; 2]> = (0..=skip).map(|_| decode(&bench.call(StoreOperation::draw()))).collect();
        drawn[skip]
    };
    assert_eq!(draw(1, 0), draw(1, 0));
    assert_ne!(draw(1, 0), draw(1, 1));
    assert_ne!(draw(1, 0), draw(2, 0));
    let [first, second] = draw(1, 0);
    assert_ne!(first, second);
}

#[test]
fn an_executor_that_ends_drops_parked_handlers_without_a_word() {
    let mut bench = Bench::new::<Store>();
    bench.request(StoreOperation::hold_for_ever());
    bench.run();
    bench.take_operations();
    let operations = Arc::clone(&bench.operations);
    let before = DROPPED.load(Ordering::Relaxed);
    drop(bench);
    assert_eq!(DROPPED.load(Ordering::Relaxed), before + 1, "the handler's locals are dropped");
    assert_eq!(*operations.lock().unwrap(), Vec::<Operation>::new(), "its guards say nothing");
    assert_eq!(Arc::strong_count(&operations), 1, "nothing of the executor is left: no cycle keeps it");
}

#[test]
fn threads_that_start_ahead_do_nothing_before_they_are_selected() {
    let settings = Settings { start_ahead: 2, ..Settings::default() };
    let mut bench = Bench::with::<Store>(sequential(), settings);
    for row in 0..4 {
        bench.request(StoreOperation::set(row, 1));
    }
    assert_eq!(bench.executor.runnable(), 3, "the first may run, two more may compute ahead");
    assert!(bench.executor.step(2));
    assert!(bench.executor.step(1));
    assert_eq!(bench.executor.runnable(), 1, "the window is used up");
    assert_eq!(bench.take_operations().len(), 2, "both have asked for their lock");
    assert!(!bench.executor.step(1));
    assert_eq!(bench.run().len(), 4);
}

fn request(sequence: u64, operation: Vec<u8>) -> Work {
    Work::Request {
        position: Position::new(SequenceNumber(sequence), 0).unwrap(),
        timestamp: Timestamp(sequence),
        session: SessionId(1),
        number: RequestNumber(sequence),
        operation: Bytes::from(operation),
    }
}

#[test]
fn workers_do_the_work_and_tell_when_there_is_something_to_take() {
    for workers in [1, 2, 4] {
        let settings = Settings { workers, ..Settings::default() };
        let executor = Executor::new::<Store>(uds(8, 2, Order::RoundRobin), settings);
        let told = Arc::new((Latch::new(false), Condvar::new()));
        let teller = Arc::clone(&told);
        executor.set_notify(Arc::new(move || {
            *teller.0.lock().unwrap() = true;
            teller.1.notify_all();
        }));
        executor
            .submit_all((1..=200).map(|n| request(n, StoreOperation::add(1))).chain([Work::Mark(SequenceNumber(201))]));
        let (mut ended, mut marked, mut done) = (Vec::new(), false, Vec::new());
        while ended.len() < 200 || !marked {
            let mut notice = told.0.lock().unwrap();
            while !std::mem::take(&mut *notice) {
                notice = told.1.wait(notice).unwrap();
            }
            drop(notice);
            executor.take_done(&mut done);
            for done in done.drain(..) {
                match done {
                    Done::Executed { outcome, .. } => ended.push(decode::<u64>(&outcome)),
                    Done::Marked(_) => marked = true,
                    Done::Starved { flush, .. } if flush => executor.submit(Work::Flush),
                    Done::Starved { .. } | Done::Called { .. } => {}
                }
            }
        }
        ended.sort_unstable();
        assert!(ended.into_iter().eq(1..=200), "each addition saw another total");
        executor.wait_idle();
        assert_eq!(executor.executed(), SequenceNumber(201));
    }
}

#[test]
fn the_number_of_workers_changes_while_they_run_down_to_none_and_up_again() {
    let executor = Executor::new::<Store>(uds(8, 2, Order::RoundRobin), Settings { workers: 3, ..Settings::default() });
    let mut done = Vec::new();
    for (round, workers) in [3, 1, 0, 2, 0, 4, 0].into_iter().enumerate() {
        let begin = 1 + 100 * round as u64;
        executor.submit_all((begin..begin + 50).map(|n| request(n, StoreOperation::add(1))));
        assert_eq!(executor.set_workers(workers), workers);
        assert_eq!(executor.workers(), workers);
        executor.set_start_ahead(round);
        assert_eq!(executor.start_ahead(), round);
        executor.submit_all((begin + 50..begin + 100).map(|n| request(n, StoreOperation::add(1))));
        if workers == 0 {
            executor.run_until_idle();
        } else {
            executor.wait_idle();
        }
        executor.take_done(&mut done);
    }
    executor.submit_all([Work::Mark(SequenceNumber(999))]);
    executor.run_until_idle();
    executor.take_done(&mut done);
    let totals = done.iter().filter_map(|done| match done {
        Done::Executed { outcome, .. } => Some(decode::<u64>(outcome)),
        _ => None,
    });
    let mut totals: Vec<u64> = totals.collect();
    totals.sort_unstable();
    assert!(totals.into_iter().eq(1..=700), "nothing is lost and nothing runs twice");
}

#[test]
fn an_executor_with_workers_ends_while_handlers_are_parked() {
    let settings = Settings { workers: 2, ..Settings::default() };
    let executor = Executor::new::<Store>(sequential(), settings);
    executor.submit_all((1..=20).map(|n| request(n, StoreOperation::pass())));
    executor.wait_idle();
    assert_eq!(executor.status().parked, 20);
    drop(executor);
}

#[test]
fn parked_requests_are_woken_in_the_order_in_which_they_came() {
    let mut bench = Bench::new::<Store>();
    let waiting: Vec<_> = (0..10).map(|_| bench.request(StoreOperation::pass())).collect();
    bench.run();
    bench.request(StoreOperation::open());
    let ended: Vec<_> = bench.run().into_iter().map(|(sequence, _)| sequence).collect();
    let woken: Vec<_> = ended.into_iter().filter(|sequence| waiting.contains(sequence)).collect();
    assert_eq!(woken, waiting);
}

#[test]
fn who_waited_for_a_row_that_did_not_exist_finds_the_one_that_was_made() {
    let mut bench = Bench::new::<Store>();
    let waiting: Vec<_> = (0..2).map(|_| bench.request(StoreOperation::take(7))).collect();
    bench.run();
    bench.request(StoreOperation::fill(7, 5));
    let ended = bench.run();
    let left: Vec<u64> =
        ended.iter().filter(|(sequence, _)| waiting.contains(sequence)).map(|(_, outcome)| decode(outcome)).collect();
    assert_eq!(left, [4, 3]);
}

/// No macros.
struct Plain {
    value: Mutex<u64>,
}

impl State for Plain {
    fn create(objects: &mut unisono_execution::Objects, name: &str) -> Self {
        Self { value: Mutex::create(objects, &unisono_execution::Objects::path(name, "value")) }
    }
}

impl Service for Plain {
    async fn execute<'a>(&'a self, cx: &'a Context, operation: &'a [u8]) -> Result<Vec<u8>, UnknownOperation> {
        let [by] = operation else { return Err(UnknownOperation) };
        let total = self.value.lock(cx).await.with_mut(u64::from(*by), |value, by| {
            *value += by;
            *value
        });
        Ok(total.to_string().into_bytes())
    }

    fn handler(_: &[u8]) -> &'static str {
        "add"
    }
}

#[test]
fn a_service_without_macros() {
    let mut bench = Bench::new::<Plain>();
    assert_eq!(bench.call(vec![40]), Ok(Bytes::from_static(b"40")));
    assert_eq!(bench.call(vec![2]), Ok(Bytes::from_static(b"42")));
    bench.mark();
    assert_eq!(bench.executor.leaves(None, 9)[0].0, "value");
}
