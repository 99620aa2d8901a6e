//! The examples run, under every schedule alike.
#![allow(dead_code, missing_docs)]

#[path = "../examples/bank.rs"]
mod bank; // with its own tests
#[path = "../examples/counter.rs"]
mod counter;

use unisono::testing;

#[test]
fn the_counter_counts() {
    let operations: Vec<_> = (1..=10).map(counter::CounterOperation::add).collect();
    let recording = testing::check_all::<counter::Counter>(&operations, 0..5).unwrap().swap_remove(0);
    let last = recording.trace.outcomes.into_values().next_back().unwrap().unwrap();
    assert_eq!(*last, 55u64.to_le_bytes());
}
