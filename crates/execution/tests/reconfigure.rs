//! The schedule's parameters changed while it runs, by an operator's ordered entry and by handlers; and how many workers
//! carry it out, which changes nothing.
#![allow(missing_docs)]

mod common;

use common::{Bench, uds};
use unisono_execution::testing;
use unisono_execution::{Change, Context, Mutex, Order, Predicate, Settings, Table};
use unisono_macros::{State, service};
use unisono_scheduler::Operation;
use unisono_types::{ScheduleChange, ScheduleClass, ScheduleOrder, SchedulePredicate, Work};

#[derive(State)]
#[state(crate = unisono_execution)]
struct Tuned {
    total: Mutex<u64>,
    rows: Table<u64, u64>,
}

#[service(crate = unisono_execution)]
impl Tuned {
    async fn add(&self, cx: &Context, row: u64, by: u64) -> u64 {
        let mut row = self.rows.lock(cx, row).await;
        let mut total = self.total.lock(cx).await;
        let sum = row.with_mut(by, |row, by| {
            *row += by;
            *row
        });
        total.with_mut(by, |total, by| *total += by);
        sum
    }

    /// Tunes its own schedule, and goes on.
    async fn tune(&self, cx: &Context, primaries: u32, steps: u32, quantum: u32) -> u64 {
        let order = Some(if quantum == 0 { Order::RoundRobin } else { Order::Quantum(quantum) });
        let change = Change { primaries: Some(primaries), steps: Some(steps), order, ..Change::default() };
        cx.reconfigure(change).await;
        cx.yield_now().await;
        cx.reconfigure(Change { predicate: Some(Predicate::All), ..Change::default() }).await;
        self.total.lock(cx).await.with((), |total, ()| *total)
    }

    fn sample_operation(seed: u64) -> Vec<u8> {
        match seed % 5 {
            0 => TunedOperation::tune((seed >> 8) as u32 % 9, (seed >> 16) as u32 % 4, (seed >> 24) as u32 % 3),
            _ => TunedOperation::add((seed >> 8) % 3, (seed >> 16) % 10),
        }
    }
}

#[test]
fn a_handler_s_change_reaches_the_scheduler_and_is_part_of_the_state() {
    let bench = || Bench::with::<Tuned>(uds(2, 1, Order::RoundRobin), Settings::default());
    let (mut one, mut two) = (bench(), bench());
    one.call(TunedOperation::tune(2, 1, 0)).unwrap();
    two.call(TunedOperation::tune(7, 1, 0)).unwrap();
    let asked = two.take_operations();
    let changes = asked.iter().filter(|operation| matches!(operation, Operation::Reconfigure(_)));
    assert_eq!(changes.count(), 2);
    let (one, two) = (one.mark(), two.mark());
    assert_eq!(one.objects, two.objects);
    assert_ne!(one.scheduler, two.scheduler, "the parameters differ");
}

#[test]
fn every_part_of_an_operator_s_change_arrives() {
    let bench = || Bench::with::<Tuned>(uds(2, 1, Order::RoundRobin), Settings::default());
    let everything = ScheduleChange {
        primaries: Some(5),
        steps: Some(3),
        order: Some(ScheduleOrder::Explicit(vec![1, 0])),
        flush_rounds: Some(9),
        predicate: Some(SchedulePredicate::Classes(vec![ScheduleClass { class: 1, every: 2, phase: 1 }])),
    };
    let mark = |changes: &[ScheduleChange]| {
        let mut bench = bench();
        for change in changes {
            bench.executor.submit(Work::Reconfigure(change.clone()));
        }
        bench.mark()
    };
    let parts = [
        ScheduleChange { primaries: everything.primaries, steps: everything.steps, ..ScheduleChange::default() },
        ScheduleChange { order: everything.order.clone(), ..ScheduleChange::default() },
        ScheduleChange { flush_rounds: everything.flush_rounds, ..ScheduleChange::default() },
        ScheduleChange { predicate: everything.predicate.clone(), ..ScheduleChange::default() },
    ];
    let nothing = [(); 4].map(|()| ScheduleChange::default());
    // The last round of both makes progress.
    let whole = [ScheduleChange::default(), ScheduleChange::default(), ScheduleChange::default(), everything];
    assert_eq!(mark(&parts).scheduler, mark(&whole).scheduler);
    assert_ne!(mark(&nothing).scheduler, mark(&whole).scheduler);
}

#[test]
fn every_policy_and_schedule_gives_one_result() {
    for sample in 0..3 {
        let operations = testing::samples::<Tuned>(60, sample);
        for recording in testing::check_all::<Tuned>(&operations, 0..4).unwrap() {
            assert!(recording.trace.outcomes.len() > 55, "most handlers end: {}", recording.trace.outcomes.len());
        }
    }
}

#[test]
fn recordings_with_an_odd_seed_reconfigure() {
    let operations = testing::samples::<Tuned>(60, 1);
    let changes = |seed| {
        let recording = testing::record::<Tuned>(common::sequential(), &operations, seed);
        recording.log.iter().filter(|work| matches!(work, Work::Reconfigure(_))).count()
    };
    assert_eq!((changes(0), changes(2)), (0, 0));
    assert!(changes(1) + changes(3) > 3);
}
