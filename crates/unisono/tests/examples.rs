//! The examples run, under every schedule alike.
#![allow(dead_code, missing_docs)]

#[path = "../examples/bank.rs"]
mod bank; // with its own tests
#[path = "../examples/counter.rs"]
mod counter;
#[path = "../examples/workflow.rs"]
mod workflow;

use unisono::testing;

#[test]
fn the_counter_counts() {
    let operations: Vec<_> = (1..=10).map(counter::CounterOperation::add).collect();
    let recording = testing::check_all::<counter::Counter>(&operations, 0..5).unwrap().swap_remove(0);
    let last = recording.trace.outcomes.into_values().next_back().unwrap().unwrap();
    assert_eq!(*last, 55u64.to_le_bytes());
}

#[test]
fn the_shop_comes_to_the_same_under_every_schedule() {
    let order = |sheets, currency: &str| workflow::ShopOperation::place(sheets, currency.into());
    let mut operations = vec![workflow::ShopOperation::receipt(2), workflow::ShopOperation::serve(2_000)];
    operations.extend([order(3, "EUR"), order(1, "USD"), order(2, "SLOW"), workflow::ShopOperation::receipt(1)]);
    operations.extend((0..4).map(|_| workflow::ShopOperation::serve(1_000)));
    testing::check_all::<workflow::Shop>(&operations, 0..5).unwrap();
}
