//! A recorded stretch of the schedule, and the last grants: what a viewer and who looks for a divergence are given.
#![allow(missing_docs)]

mod common;

use common::{Bench, sequential, uds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use unisono_execution::recording::{AskedOperation, EventKind, Recording, WaitReason};
use unisono_execution::{Context, Executor, Mutex, Settings, Table};
use unisono_macros::{State, service};
use unisono_scheduler::Order;
use unisono_types::{Bytes, Position, RequestNumber, SequenceNumber, SessionId, Timestamp, Work, decode, encode};

#[derive(State)]
#[state(crate = unisono_execution)]
struct Shop {
    rows: Table<u64, u64>,
    total: Mutex<u64>,
}

#[service(crate = unisono_execution)]
impl Shop {
    async fn add(&self, cx: &Context, row: u64) -> u64 {
        let mut row = self.rows.lock(cx, row).await;
        row.with_mut((), |value, ()| *value += 1);
        let mut total = self.total.lock(cx).await;
        total.with_mut((), |value, ()| *value += 1);
        total.with((), |value, ()| *value)
    }

    async fn doze(&self, cx: &Context) {
        let _total = self.total.lock(cx).await;
        cx.sleep(100).await;
    }

    async fn wait(&self, cx: &Context) {
        let total = self.total.lock(cx).await;
        drop(total.wait_for(0, 1_000).await);
    }

    async fn family(&self, cx: &Context) {
        let child = cx.spawn(|cx| async move { cx.yield_now().await }).await;
        child.expect("few children").join().await;
    }
}

/// What happened to a thread, in words.
fn story(recording: &Recording, position: u64) -> Vec<String> {
    let of_thread = recording.events.iter().filter(|event| {
        event.thread.is_some_and(|thread| recording.threads[thread as usize].position.sequence().0 == position)
    });
    let words = of_thread.map(|event| match &event.kind {
        EventKind::Ahead => "ahead".to_owned(),
        EventKind::Selected => "selected".to_owned(),
        EventKind::Runs { .. } => "runs".to_owned(),
        EventKind::Asked { operation, object } => {
            let object = object.map_or("", |object| &recording.objects[object as usize]);
            format!("{operation:?} {object}").trim().to_owned()
        }
        EventKind::Waits { reason } => format!("waits: {reason:?}"),
        EventKind::Resumed { result } => format!("{result:?}"),
        EventKind::Finished => "finished".to_owned(),
        EventKind::RoundEnded { .. } => unreachable!("of no thread"),
    });
    words.collect()
}

#[test]
fn the_life_of_a_thread_is_told_with_objects_by_name() {
    let mut bench = Bench::with::<Shop>(uds(2, 2, Order::Quantum(2)), Settings::default());
    bench.executor.record(1_000);
    bench.request(ShopOperation::doze());
    bench.request(ShopOperation::add(7));
    bench.run();
    bench.flush();
    bench.run();
    bench.tick(100);
    bench.run();
    bench.flush();
    bench.run();
    let recording = bench.executor.recording();
    assert_eq!(
        story(&recording, 1),
        [
            "selected",
            "runs",
            "Lock total",
            "Granted",
            "Sleep",
            "waits: Time",
            "Granted",
            "runs",
            "Unlock total",
            "Granted",
            "Finish",
            "finished"
        ]
    );
    assert_eq!(
        story(&recording, 2),
        [
            "selected",
            "runs",
            "Lock rows[7]",
            "Granted",
            "Lock total",
            "waits: ParkedOwner",
            "Granted",
            "runs",
            "Unlock total",
            "Granted",
            "Unlock rows[7]",
            "Granted",
            "Finish",
            "finished"
        ]
    );
    let names: Vec<_> = recording.threads.iter().map(|thread| (thread.handler.as_str(), thread.path.len())).collect();
    assert_eq!(names, [("doze", 0), ("add", 0)]);
    let rounds: Vec<_> = recording
        .events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::RoundEnded { primaries, next_primaries, next_order, .. } => {
                Some((event.round, *primaries, *next_primaries, next_order.as_str()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(rounds[0], (1, 2, 2, "quantum 2"));
    assert!(rounds.is_sorted_by_key(|(round, ..)| *round));
    assert!(recording.events.iter().zip(0..).all(|(event, number)| event.number == number && event.time == number));
    assert!(recording.events.is_sorted_by_key(|event| event.round));
    assert!(!recording.clocked && recording.forgotten == 0);
}

#[test]
fn waits_and_families_are_told_too() {
    let mut bench = Bench::with::<Shop>(uds(4, 1, Order::RoundRobin), Settings::default());
    bench.executor.record(1_000);
    bench.request(ShopOperation::family());
    bench.request(ShopOperation::wait());
    for _ in 0..6 {
        bench.run();
        bench.flush();
    }
    let recording = bench.executor.recording();
    let family = story(&recording, 1);
    for expected in ["Spawn", "Join", "waits: Child", "Yield"] {
        assert!(family.iter().any(|event| event == expected), "{expected} in {family:?}");
    }
    assert!(recording.threads.iter().any(|thread| thread.path == [1] && thread.handler == "family"));
    assert!(story(&recording, 2).contains(&"waits: Notification".to_owned()));
}

#[test]
fn a_ring_forgets_the_oldest_and_recording_costs_nothing_when_it_is_off() {
    let mut bench = Bench::with::<Shop>(sequential(), Settings::default());
    assert_eq!(bench.executor.recording(), Recording::default());
    bench.call(ShopOperation::add(1)).unwrap();
    bench.executor.record(10);
    for _ in 0..5 {
        bench.call(ShopOperation::add(1)).unwrap();
    }
    let recording = bench.executor.recording();
    assert_eq!(recording.events.len(), 10);
    assert_eq!(recording.events[0].number, recording.forgotten);
    assert_eq!(recording.threads.len(), 1, "names of threads without events are forgotten");
    bench.executor.record(0);
    bench.call(ShopOperation::add(1)).unwrap();
    assert_eq!(bench.executor.recording(), recording, "what was recorded stays");
    bench.executor.record(10);
    assert_eq!(bench.executor.recording().events, []);
    bench.executor.record(0);
    assert_eq!(bench.executor.recording().events, [], "the newer one, although it is empty");
}

#[test]
fn a_recording_travels_as_bytes_and_its_times_are_the_host_s() {
    let mut bench = Bench::with::<Shop>(sequential(), Settings::default());
    let time = Arc::new(AtomicU64::new(0));
    bench.executor.set_clock(Arc::new(move || time.fetch_add(5, Ordering::Relaxed)));
    bench.executor.record(100);
    bench.call(ShopOperation::add(1)).unwrap();
    let recording = bench.executor.recording();
    assert!(recording.clocked && recording.events.iter().zip(0..).all(|(event, number)| event.time == 5 * number));
    let bytes = encode(&recording);
    assert_eq!(decode::<Recording>(&bytes, bytes.len()), Ok(recording));
}

#[test]
fn recording_is_switched_under_load_and_the_workers_are_told() {
    let settings = Settings { workers: 2, ..Settings::default() };
    let executor = Executor::new::<Shop>(uds(8, 2, Order::RoundRobin), settings);
    let mut begin = 1;
    let mut load = || {
        executor.submit_all((begin..begin + 200).map(|n| Work::Request {
            position: Position::new(SequenceNumber(n), 0).unwrap(),
            timestamp: Timestamp(n),
            session: SessionId(1),
            number: RequestNumber(n),
            operation: Bytes::from(ShopOperation::add(n % 5)),
        }));
        begin += 200;
    };
    load();
    executor.record(1 << 14);
    load();
    executor.submit_all([Work::Flush, Work::Mark(SequenceNumber(500))]);
    executor.wait_idle();
    executor.record(0);
    load();
    executor.wait_idle();
    let recording = executor.recording();
    let workers = recording.events.iter().filter_map(|event| match event.kind {
        EventKind::Runs { worker } => Some(worker),
        _ => None,
    });
    assert!(workers.into_iter().all(|worker| worker.is_some_and(|worker| worker < 2)));
    for (at, event) in recording.events.iter().enumerate() {
        if let EventKind::Asked { operation: AskedOperation::Unlock, .. } = event.kind {
            assert!(matches!(recording.events[at + 1].kind, EventKind::Resumed { .. }), "it returns at once");
        }
    }
    assert!(recording.events.iter().any(|event| matches!(event.kind, EventKind::Waits { reason: WaitReason::Queue })));
}

#[test]
fn the_last_grants_lead_to_the_first_one_that_differs() {
    let run = |second: u64| {
        let mut bench = Bench::with::<Shop>(uds(4, 2, Order::RoundRobin), Settings::default());
        for row in [1, second, 3] {
            bench.request(ShopOperation::add(row));
        }
        let report = bench.mark();
        (bench, report)
    };
    let ((one, left), (two, right)) = (run(2), run(9));
    assert_ne!(left.grants, right.grants);
    let (one, two) = (one.executor.grants(0, 99), two.executor.grants(0, 99));
    let first = one.iter().zip(&two).position(|(left, right)| left != right).expect("they differ");
    assert_eq!(one[first].to_string(), "grant 2: in round 1 to request 2.0 lock rows[2] after 0 writers");
    assert_eq!(two[first].lock, "rows[9]");
    assert_eq!(one.len(), 6);
}
