//! The rules of UDS for tries, outside calls and children, as stories. The others stand in `uds.rs`.

mod support;

use support::parameters;
use support::story::story;
use unisono_scheduler::Scheduler;
use unisono_scheduler::uds::Uds;

fn uds(primaries: u32, steps: u32) -> Uds {
    Uds::new(parameters(primaries, steps))
}

// -- try

#[test]
fn a_try_is_answered_at_the_end_of_the_round() {
    story(
        &mut uds(3, 2),
        "request 1      -> start 1
         request 2      -> start 2
         request 3      -> start 3
         1 lock a       -> 1 granted
         2 try a        ->
         3 try a        ->
         1 unlock a     -> 1 granted                # before or after the tries: that is local
         1 finish       -> 1 finished, 2 granted, 3 occupied
         3 try b        ->
         2 try a        -> 2 not possible           # its own lock: an error at once
         2 finish       -> 2 finished
         flush          -> 3 granted",
    );
}

#[test]
fn a_try_takes_no_step_and_forfeits_the_others() {
    story(
        &mut uds(2, 2),
        "request 1      -> start 1
         request 2      -> start 2
         2 lock a       ->
         1 try b        -> 2 granted                # 1 has left the turns
         2 yield        -> 2 granted
         2 sleep 9      -> 1 granted",
    );
}

#[test]
fn readers_try_beside_readers_but_not_past_a_blocked_writer() {
    story(
        &mut uds(4, 2),
        "request 1      -> start 1
         request 2      -> start 2
         request 3      -> start 3
         request 4      -> start 4
         1 read a       -> 1 granted
         1 sleep 9      ->
         2 try-read a   ->
         3 try a        ->
         4 yield        -> 4 granted
         4 sleep 9      -> 2 granted, 3 occupied
         2 unlock a     -> 2 granted
         3 lock a       ->                          # its owner sleeps: blocked
         2 sleep 1      ->
         request 5      -> start 5
         5 try-read a   ->
         flush          -> 5 occupied",
    );
}

#[test]
fn whoever_tries_again_and_again_is_no_progress() {
    let mut uds = uds(1, 1);
    story(
        &mut uds,
        "request 1      -> start 1
         1 lock a       -> 1 granted
         1 yield        -> 1 granted
         request 2      ->
         1 sleep 9      -> start 2
         2 try a        -> 2 occupied
         2 try a        ->                          # the next round has a place more
         request 3      -> start 3
         3 finish       -> 3 finished, 2 occupied",
    );
}

// -- outside calls

#[test]
fn an_answer_counts_at_the_end_of_its_round_early_or_late() {
    for early in [false, true] {
        let mut uds = uds(2, 2);
        story(&mut uds, "request 1 -> start 1");
        let events = ["1 call -> 1 calls 0", "answer 1 0 ->"];
        story(&mut uds, events[usize::from(early)]);
        story(&mut uds, events[usize::from(!early)]);
        assert!(uds.status().needs_flush && uds.status().parked == 1);
        story(&mut uds, "flush -> 1 granted\n1 finish -> 1 finished");
    }
}

#[test]
fn a_call_has_a_time_and_an_answer_that_nobody_waits_for_is_dropped() {
    let mut uds = uds(2, 2);
    story(
        &mut uds,
        "request 1      -> start 1
         answer 1 0     ->
         answer 7 0     ->
         tick 1         ->
         1 yield        -> 1 granted
         1 yield        -> 1 granted
         1 yield        -> 1 granted @1             # the next round
         1 call for 5   -> 1 calls 0                     # the answer came in the round before
         tick 6         -> 1 timed out @6
         answer 1 0     ->
         1 call         -> 1 calls 1
         flush          ->
         answer 1 1     ->
         flush          -> 1 granted @6
         1 finish       -> 1 finished",
    );
    assert_eq!(uds.status().threads, 0);
}

// -- children

#[test]
fn a_child_is_eligible_from_the_next_round_on_behind_its_parent() {
    story(
        &mut uds(3, 2),
        "request 1      -> start 1
         request 2      -> start 2
         1 spawn 7      -> 1 granted
         1 spawn 8      -> 1 granted
         7 lock a       ->                          # it was started ahead
         2 lock a       ->
         1 lock a       -> 1 granted
         1 finish       -> 2 granted, 1 finished
         flush          ->
         2 wait a       -> start 8, 7 granted       # 7 and 8 stand before 2, were it there",
    );
}

#[test]
fn a_join_returns_at_once_only_for_a_child_of_an_earlier_round() {
    story(
        &mut uds(2, 2),
        "request 1      -> start 1
         1 spawn 7      -> 1 granted
         1 spawn 8      -> 1 granted
         flush          ->
         1 join 1       -> start 7, start 8
         8 finish       -> 8 finished
         7 finish       -> 7 finished, 1 granted
         1 join 2       -> 1 granted                # 8 finished in the round before
         1 join 2       -> 1 not possible           # once
         1 join 3       -> 1 not possible
         1 join 0       -> 1 not possible
         1 finish       -> 1 finished",
    );
}

#[test]
fn what_is_left_of_a_join_when_the_log_is_used_up_needs_a_flush() {
    let mut uds = uds(4, 2);
    story(
        &mut uds,
        "request 1      -> start 1
         1 spawn 7      -> 1 granted
         tick 9         ->                          # closes the round
         1 yield        -> 1 granted
         1 yield        -> 1 granted
         1 yield        -> start 7, 1 granted @9
         7 finish       -> 7 finished
         1 join 1       ->                          # 7 finished in this round",
    );
    assert!(uds.status().needs_flush && uds.status().parked == 1);
    story(&mut uds, "flush -> 1 granted @9");
    story(&mut uds, "1 finish -> 1 finished");
    assert_eq!(uds.status().threads, 0);
}

#[test]
fn children_outlive_their_parent() {
    let mut uds = uds(1, 9);
    story(
        &mut uds,
        "request 1      -> start 1
         1 spawn 7      -> 1 granted
         1 finish       -> 1 finished, start 7
         7 spawn 1      -> 7 granted                # a child of the child
         7 join 1       -> start 1
         1 finish       -> 1 finished, 7 granted
         7 finish       -> 7 finished",
    );
    assert_eq!((uds.status().threads, uds.status().needs_flush), (0, false));
}

#[test]
fn a_child_that_wants_what_its_joining_parent_owns_is_the_victim() {
    story(
        &mut uds(2, 3),
        "request 1      -> start 1
         1 lock a       -> 1 granted
         1 spawn 7      -> 1 granted
         flush          ->
         1 join 1       -> start 7
         7 lock a       -> 7 deadlock               # its parent waits for it
         7 finish       -> 7 finished, 1 granted",
    );
}

#[test]
fn a_join_closes_a_cycle_with_a_child_that_is_blocked_already() {
    story(
        &mut uds(1, 9),
        "request 1      -> start 1
         1 lock a       -> 1 granted
         1 spawn 7      -> 1 granted
         1 sleep 10     -> start 7
         7 lock a       ->                          # its owner is parked: blocked
         tick 10        -> 1 granted @10
         1 join 1       -> 7 deadlock @10",
    );
}

/// Found by the simulator's `determinism` (seed 390): nobody asked for the Flush, so the cycle stood until somebody else
/// came.
#[test]
fn a_parent_that_joins_a_child_blocked_behind_it_needs_the_end_of_the_round() {
    let mut uds = uds(2, 2);
    story(
        &mut uds,
        "request 1      -> start 1
         1 lock a       -> 1 granted
         1 spawn 2      -> 1 granted
         1 sleep 9      ->
         flush          -> start 2
         2 lock a       ->
         flush          ->
         tick 9         -> 1 granted @9
         1 join 1       ->",
    );
    let status = uds.status();
    assert_eq!((status.threads, status.parked, status.needs_flush), (2, 2, true));
    story(&mut uds, "flush -> 2 deadlock @9");
}
