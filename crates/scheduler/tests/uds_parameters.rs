//! Changes of parameters, and predicates, as stories.

mod support;

use support::parameters;
use support::story::story;
use unisono_scheduler::uds::Uds;
use unisono_scheduler::{ClassRule, Parameters, Predicate};

fn uds(primaries: u32, steps: u32) -> Uds {
    Uds::new(parameters(primaries, steps))
}

fn with(primaries: u32, predicate: Predicate) -> Uds {
    Uds::new(Parameters { predicate, ..parameters(primaries, 1) })
}

// -- who changes them

#[test]
fn a_handler_changes_parameters_at_the_end_of_the_round() {
    story(
        &mut uds(1, 1),
        "request 1          -> start 1
         request 2          ->
         1 parameters 2 2   -> 1 granted
         1 lock a           -> 1 granted
         1 lock b           -> start 2, 1 granted     # two primaries
         2 lock c           -> 2 granted
         1 lock d           -> 1 granted              # two steps",
    );
}

#[test]
fn it_needs_a_slot() {
    story(
        &mut uds(1, 1),
        "request 1          -> start 1
         request 2          ->
         2 parameters 2 2   ->                        # it ran ahead
         1 finish           -> 1 finished, 2 granted
         2 yield            -> 2 granted
         2 yield            -> 2 granted              # the new round reads on: a slot may still come
         request 3          -> start 3",
    );
}

#[test]
fn of_several_the_highest_slot_wins_then_the_log() {
    for (first, second) in [("1 parameters 5 5", "2 parameters 1 1"), ("2 parameters 1 1", "1 parameters 5 5")] {
        let [one, two] = [first, second].map(|operation| format!("{operation} -> {} granted", &operation[..1]));
        story(
            &mut uds(2, 1),
            &format!(
                "request 1       -> start 1
                 request 2       -> start 2
                 request 3       ->
                 {one}
                 {two}
                 1 finish        -> 1 finished
                 2 lock a        -> 2 granted
                 2 lock b        -> 2 granted         # slot 1 has set n = 1: the only primary
                 2 lock c        -> 2 granted
                 2 finish        -> 2 finished, start 3"
            ),
        );
    }
    story(
        &mut uds(2, 1),
        "request 1          -> start 1
         1 parameters 1 1   -> 1 granted
         parameters 2 2     ->                        # from the next round on
         1 yield            -> 1 granted
         1 yield            -> 1 granted              # the log's change came last: a second slot may still come
         request 2          -> start 2",
    );
}

// -- classes

#[test]
fn a_class_is_primary_in_its_rounds_only() {
    let rules = vec![ClassRule { class: 1, every: 3, phase: 0 }];
    story(
        &mut with(4, Predicate::Classes(rules)),
        "request 1          -> start 1
         request 2 class 1  ->                        # round 1: held back, but a member
         request 3 class 9  -> start 3                # no rule
         request 4          -> start 4
         1 yield            -> 1 granted
         3 yield            -> 3 granted
         4 yield            -> 4 granted
         1 finish           -> 1 finished
         4 finish           -> 4 finished
         3 yield            -> 3 granted              # round 2
         3 sleep 5          ->
         flush              -> start 2                # round 3",
    );
}

#[test]
fn if_nobody_passes_the_first_does() {
    let rules = vec![ClassRule { class: 1, every: 2, phase: 0 }];
    story(
        &mut with(2, Predicate::Classes(rules)),
        "request 1 class 1  -> start 1                # round 1
         request 2 class 1  ->
         1 finish           -> 1 finished, start 2
         2 finish           -> 2 finished",
    );
}

#[test]
fn after_a_round_without_progress_everybody_passes() {
    let rules = vec![ClassRule { class: 1, every: 1_000, phase: 0 }];
    story(
        &mut with(2, Predicate::Classes(rules)),
        "request 1 class 1  -> start 1
         1 lock a           -> 1 granted
         request 2          -> start 2
         2 lock a           ->
         1 yield            -> 1 granted              # round 2 without 1, then one in which all pass
         1 unlock a         -> 2 granted, 1 granted",
    );
}

#[test]
fn a_predicate_may_change() {
    story(
        &mut uds(2, 1),
        "request 1          -> start 1
         classes 0/2+1      ->
         1 sleep 5          ->                        # round 2: nobody passes
         request 2          -> start 2                # the first does
         request 3          ->
         2 finish           -> 2 finished, start 3    # round 3
         future-locks       ->",
    );
}

// -- future locks

#[test]
fn who_wants_what_an_elder_may_still_want_is_held_back() {
    story(
        &mut with(5, Predicate::FutureLocks),
        "request 1 wants a b       -> start 1
         request 2 wants a         ->
         request 3 wants c         -> start 3
         request 4 wants c         ->
         request 5 wants read:d    -> start 5         # the fifth member closes the membership
         request 6 wants read:d    ->",
    );
    story(
        &mut with(5, Predicate::FutureLocks),
        "request 1 wants read:d    -> start 1
         request 2 wants read:d    -> start 2         # readers do not stand against each other
         request 3 wants d         ->
         request 4 wants read:d    ->                 # behind a writer, though it is held back
         request 5 wants e         -> start 5",
    );
}

#[test]
fn a_thread_of_which_nothing_is_known_may_want_any_lock() {
    story(
        &mut with(4, Predicate::FutureLocks),
        "request 1 wants a         -> start 1
         request 2                 ->                 # 1 still wants a
         request 3 wants c         ->                 # 2 may want c
         request 4 wants d         ->
         1 finish                  -> 1 finished, start 2
         2 sleep 9                 ->
         flush                     -> start 3, start 4 # who is parked holds nobody back",
    );
}

#[test]
fn a_lock_is_wanted_until_its_uses_are_used_up() {
    story(
        &mut with(2, Predicate::FutureLocks),
        "request 1 wants a*2       -> start 1
         request 2 wants a         ->
         1 lock a                  -> 1 granted
         1 unlock a                -> 1 granted
         1 lock a                  -> 1 granted       # a new round: 2 is still held back
         1 unlock a                -> 1 granted
         1 yield                   -> start 2, 1 granted",
    );
}

#[test]
fn children_want_what_their_parent_still_wants() {
    story(
        &mut with(3, Predicate::FutureLocks),
        "request 1 wants a b       -> start 1
         request 2 wants b         ->
         request 3 wants c         -> start 3
         1 lock a                  -> 1 granted
         1 unlock a                -> 1 granted
         1 spawn 7                 -> 1 granted
         1 join 1                  ->
         3 finish                  -> 3 finished, start 7
         7 lock b                  -> 7 granted
         7 unlock b                -> 7 granted
         7 yield                   ->
         flush                     -> start 2, 7 granted",
    );
}
