//! Tries and semaphores.
#![allow(missing_docs)]

mod common;

use common::{Bench, decode, sequential, uds};
use unisono_execution::testing;
use unisono_execution::{Context, Mutex, RwLock, Semaphore, Settings, Table};
use unisono_macros::{State, service};
use unisono_scheduler::Order;

#[derive(State)]
#[state(crate = unisono_execution)]
struct Gates {
    gate: Semaphore<2>,
    /// Who is inside, and the most there ever were.
    inside: Mutex<(u64, u64)>,
    shared: RwLock<u64>,
    rows: Table<u64, u64>,
}

#[service(crate = unisono_execution)]
impl Gates {
    async fn pass(&self, cx: &Context, microseconds: u64) -> u64 {
        self.gate.acquire(cx).await;
        self.inside.lock(cx).await.with_mut((), |(now, most), ()| {
            *now += 1;
            *most = (*most).max(*now);
        });
        cx.sleep(microseconds).await;
        self.inside.lock(cx).await.with_mut((), |(now, _), ()| *now -= 1);
        self.gate.release(cx).await;
        cx.now().0
    }

    async fn take(&self, cx: &Context) -> bool {
        self.gate.try_acquire(cx).await
    }

    async fn take_within(&self, cx: &Context, microseconds: u64) -> bool {
        self.gate.acquire_for(cx, microseconds).await
    }

    async fn give(&self, cx: &Context) -> u64 {
        self.gate.release(cx).await;
        self.gate.free(cx).await
    }

    async fn most(&self, cx: &Context) -> (u64, u64) {
        self.inside.lock(cx).await.with((), |inside, ()| *inside)
    }

    async fn hold(&self, cx: &Context, row: u64, microseconds: u64) {
        let mut row = self.rows.lock(cx, row).await;
        let shared = self.shared.read(cx).await;
        cx.sleep(microseconds).await;
        let seen = shared.with((), |value, ()| *value);
        row.with_mut(seen, |value, seen| *value += seen);
    }

    /// Which of its tries succeed: to write, to read and to write the shared value, and to write it while it owns it.
    async fn tries(&self, cx: &Context, row: u64) -> (bool, bool, bool, bool) {
        let own = match self.rows.try_lock(cx, row).await {
            Some(mut row) => {
                row.with_mut((), |value, ()| *value += 1);
                true
            }
            None => self.rows.try_read(cx, row).await.is_some(),
        };
        let read = self.shared.try_read(cx).await;
        let reads = read.is_some();
        drop(read);
        let write = self.shared.try_write(cx).await;
        let twice = self.shared.try_write(cx).await.is_some();
        (own, reads, write.is_some(), twice)
    }

    fn sample_operation(seed: u64) -> Vec<u8> {
        let (row, time) = ((seed >> 8) % 3, 1 + (seed >> 16) % 3_000);
        match seed % 8 {
            0..=2 => GatesOperation::pass(time),
            3 => GatesOperation::hold(row, time),
            4 | 5 => GatesOperation::tries(row),
            6 => GatesOperation::take_within(time),
            _ => GatesOperation::give(),
        }
    }
}

fn benches() -> Vec<Bench> {
    [sequential(), uds(1, u32::MAX, Order::RoundRobin), uds(8, 2, Order::RoundRobin)]
        .into_iter()
        .map(|scheduler| Bench::with::<Gates>(scheduler, Settings::default()))
        .collect()
}

#[test]
fn no_more_are_inside_than_there_are_permits_and_all_come_through() {
    for mut bench in benches() {
        for _ in 0..7 {
            bench.request(GatesOperation::pass(100));
        }
        let mut ended = 0;
        for _ in 0..200 {
            bench.flush();
            ended += bench.run().len();
            bench.tick(50);
            ended += bench.run().len();
        }
        assert_eq!(ended, 7);
        assert_eq!(decode::<(u64, u64)>(&bench.call(GatesOperation::most())), (0, 2));
    }
}

#[test]
fn permits_are_counted() {
    for mut bench in benches() {
        let mut taken = || decode::<bool>(&bench.call(GatesOperation::take()));
        assert_eq!([taken(), taken(), taken()], [true, true, false]);
        assert_eq!(decode::<u64>(&bench.call(GatesOperation::give())), 1);
        assert_eq!(decode::<u64>(&bench.call(GatesOperation::give())), 2);
        assert_eq!(decode::<u64>(&bench.call(GatesOperation::give())), 2, "more than all is all");
    }
}

#[test]
fn a_timed_acquisition_gives_up_or_takes_what_comes() {
    let mut bench = Bench::new::<Gates>();
    for _ in 0..2 {
        assert!(decode::<bool>(&bench.call(GatesOperation::take())));
    }
    let late = bench.request(GatesOperation::take_within(100));
    assert_eq!(bench.run(), []);
    bench.tick(100);
    let ended = bench.run();
    assert_eq!((ended[0].0, decode::<bool>(&ended[0].1)), (late, false));
    let lucky = bench.request(GatesOperation::take_within(100));
    assert_eq!(bench.run(), []);
    bench.request(GatesOperation::give());
    let ended = bench.run();
    let outcome = &ended.iter().find(|(sequence, _)| *sequence == lucky).expect("it was woken").1;
    assert!(decode::<bool>(outcome));
}

#[test]
fn tries_see_who_stands_against_them() {
    for mut bench in benches() {
        let tries =
            |bench: &mut Bench, row| decode::<(bool, bool, bool, bool)>(&bench.call(GatesOperation::tries(row)));
        assert_eq!(tries(&mut bench, 1), (true, true, true, false));
        bench.request(GatesOperation::hold(1, 1_000_000));
        bench.run();
        assert_eq!(tries(&mut bench, 1), (false, true, false, false), "a sleeper owns the row and reads");
        assert_eq!(tries(&mut bench, 2), (true, true, false, false));
    }
}

#[test]
fn every_policy_and_schedule_gives_one_result() {
    for sample in 0..3 {
        let operations = testing::samples::<Gates>(40, sample);
        testing::check::<Gates>(sequential, &operations, 0..4).unwrap();
        testing::check_all::<Gates>(&operations, 0..3).unwrap();
    }
}
