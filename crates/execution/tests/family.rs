//! Children: they work side by side, outlive their parent, hand their value or their fault to whoever joins them, and are
//! the same on every replica.
#![allow(missing_docs)]

mod common;

use common::{Bench, decode, quiet, sequential, uds};
use unisono_execution::testing;
use unisono_execution::{Context, Fault, Mutex, Settings, Table};
use unisono_macros::{State, service};
use unisono_scheduler::Order;

#[derive(State)]
#[state(crate = unisono_execution)]
struct Workshop {
    rows: Table<u64, u64>,
    journal: Mutex<Vec<u64>>,
}

#[service(crate = unisono_execution)]
impl Workshop {
    /// One child per row; their results in the order of the rows.
    async fn add_to_all(&self, cx: &Context, rows: u64, amount: u64) -> Vec<u64> {
        let mut children = Vec::new();
        for row in 0..rows {
            let table = self.rows.clone();
            let child = cx.spawn(move |cx| async move {
                let mut row = table.lock(&cx, row).await;
                row.with_mut(amount, |value, amount| {
                    *value += amount;
                    *value
                })
            });
            children.push(child.await.expect("few children"));
        }
        let mut sums = Vec::new();
        for child in children {
            sums.push(child.join().await);
        }
        sums
    }

    /// Answers at once; a child writes later.
    async fn later(&self, cx: &Context, microseconds: u64, entry: u64) -> u64 {
        let journal = self.journal.clone();
        let child = cx.spawn(move |cx| async move {
            cx.sleep(microseconds).await;
            journal.lock(&cx).await.with_mut(entry, |entries, entry| entries.push(entry));
        });
        drop(child.await);
        entry
    }

    async fn journal(&self, cx: &Context) -> Vec<u64> {
        self.journal.lock(cx).await.with((), |entries, ()| entries.clone())
    }

    /// What parent and children see of the world.
    async fn views(&self, cx: &Context) -> Vec<(u64, u64, u64)> {
        let view = |cx: &Context| (cx.random(), cx.now().0, cx.position().0 ^ cx.session().0 ^ cx.number().0);
        let mut views = vec![view(cx)];
        for _ in 0..2 {
            let child = cx.spawn(move |cx| async move {
                let grandchild = cx.spawn(move |cx| async move { view(&cx) }).await.expect("few children");
                (view(&cx), grandchild.join().await)
            });
            let (child, grandchild) = child.await.expect("few children").join().await;
            views.extend([child, grandchild]);
        }
        views
    }

    async fn survive_a_child(&self, cx: &Context) -> String {
        let journal = self.journal.clone();
        let child = cx.spawn(move |cx| async move {
            let mut guard = journal.lock(&cx).await;
            guard.with_mut((), |entries, ()| entries.push(1));
            panic!("deliberate: a child");
        });
        let fault: Result<(), Fault> = child.await.expect("few children").join_or().await;
        self.journal.lock(cx).await.with_mut((), |entries, ()| entries.push(2));
        fault.expect_err("it panicked").to_string()
    }

    async fn fall_with_a_child(&self, cx: &Context) -> u64 {
        let child = cx.spawn(|cx| async move {
            std::future::pending::<()>().await;
            cx.now().0
        });
        child.await.expect("few children").join().await
    }

    /// Joins a child while owning what it wants.
    async fn strangle(&self, cx: &Context) -> String {
        let journal = self.journal.clone();
        let guard = self.journal.lock(cx).await;
        let child = cx.spawn(move |cx| async move { journal.lock_or(&cx).await.map(drop) });
        let result = child.await.expect("few children").join().await;
        guard.with((), |entries, ()| entries.len());
        format!("{result:?}")
    }

    /// Each generation bears the next until it cannot.
    async fn generations(&self, cx: &Context) -> u64 {
        fn next(cx: Context) -> std::pin::Pin<Box<dyn Future<Output = u64> + Send>> {
            Box::pin(async move {
                match cx.spawn(next).await {
                    Ok(child) => 1 + child.join().await,
                    Err(_) => 1,
                }
            })
        }
        match cx.spawn(next).await {
            Ok(child) => child.join().await,
            Err(_) => 0,
        }
    }

    async fn crowd(&self, cx: &Context) -> u64 {
        let mut count = 0;
        while cx.spawn(|_| async {}).await.is_ok() {
            count += 1;
        }
        count
    }

    fn sample_operation(seed: u64) -> Vec<u8> {
        match seed % 8 {
            0..=2 => WorkshopOperation::add_to_all((seed >> 8) % 6, seed >> 32),
            3 => WorkshopOperation::later((seed >> 8) % 3_000, seed >> 32),
            4 => WorkshopOperation::views(),
            5 => WorkshopOperation::strangle(),
            6 => WorkshopOperation::fall_with_a_child(),
            _ => WorkshopOperation::journal(),
        }
    }
}

fn benches() -> Vec<Bench> {
    [sequential(), uds(1, u32::MAX, Order::RoundRobin), uds(8, 2, Order::RoundRobin)]
        .into_iter()
        .map(|scheduler| Bench::with::<Workshop>(scheduler, Settings::default()))
        .collect()
}

#[test]
fn children_work_and_their_values_come_back() {
    for mut bench in benches() {
        assert_eq!(decode::<Vec<u64>>(&bench.call(WorkshopOperation::add_to_all(5, 3))), [3; 5]);
        assert_eq!(decode::<Vec<u64>>(&bench.call(WorkshopOperation::add_to_all(3, 4))), [7; 3]);
        assert_eq!(decode::<Vec<u64>>(&bench.call(WorkshopOperation::add_to_all(0, 4))), [0; 0]);
    }
}

#[test]
fn the_reply_does_not_wait_for_children_that_run_on() {
    for mut bench in benches() {
        assert_eq!(decode::<u64>(&bench.call(WorkshopOperation::later(500, 42))), 42);
        assert_eq!(decode::<Vec<u64>>(&bench.call(WorkshopOperation::journal())), [0; 0]);
        bench.flush();
        bench.run();
        bench.tick(500);
        assert_eq!(bench.run(), [], "a child has no reply of its own");
        bench.tick(500);
        for _ in 0..4 {
            bench.flush();
            bench.run();
        }
        assert_eq!(decode::<Vec<u64>>(&bench.call(WorkshopOperation::journal())), [42]);
        assert_eq!(bench.executor.status().threads, 0);
    }
}

#[test]
fn each_thread_of_a_family_has_random_numbers_of_its_own_and_the_requests_names() {
    for mut bench in benches() {
        let views: Vec<(u64, u64, u64)> = decode(&bench.call(WorkshopOperation::views()));
        assert_eq!(views.len(), 5);
        for (at, view) in views.iter().enumerate() {
            assert!(views[..at].iter().all(|other| other.0 != view.0), "{views:?}");
            assert_eq!((view.1, view.2), (bench.timestamp, views[0].2));
        }
    }
}

#[test]
fn a_childs_fault_reaches_who_joins_it() {
    quiet();
    for mut bench in benches() {
        let said: String = decode(&bench.call(WorkshopOperation::survive_a_child()));
        assert!(said.contains("survive_a_child panicked"), "{said}");
        assert_eq!(decode::<Vec<u64>>(&bench.call(WorkshopOperation::journal())), [1, 2], "its lock was released");
        let fault = bench.call(WorkshopOperation::fall_with_a_child()).unwrap_err();
        assert_eq!(fault, Fault::ForeignAwait { handler: "fall_with_a_child".into() });
    }
}

#[test]
fn a_child_that_wants_what_its_joining_parent_owns_gets_a_deadlock() {
    for mut bench in benches() {
        assert_eq!(decode::<String>(&bench.call(WorkshopOperation::strangle())), "Err(Deadlock)");
    }
}

#[test]
fn families_are_bounded() {
    let mut bench = Bench::new::<Workshop>();
    assert_eq!(decode::<u64>(&bench.call(WorkshopOperation::generations())), 8);
    assert_eq!(decode::<u64>(&bench.call(WorkshopOperation::crowd())), 65_535);
    bench.run();
    assert_eq!(bench.executor.status().threads, 0);
}

#[test]
fn every_policy_and_schedule_gives_one_result() {
    for sample in 0..3 {
        let operations = testing::samples::<Workshop>(40, sample);
        testing::check::<Workshop>(sequential, &operations, 0..4).unwrap();
        testing::check_all::<Workshop>(&operations, 0..3).unwrap();
    }
}
